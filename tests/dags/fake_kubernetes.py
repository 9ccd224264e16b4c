"""A small Kubernetes API on 127.0.0.1: a pod is a local process of its container's command, with its container's environment.

Enough of the API for KubernetesPodOperator: create, list, get, patch and delete pods, follow a log, list events. The
process gets the variables of the pod and of the secrets it names and none of this process's own, as in a real pod; only
PATH (so that `trading` is found) and HOME come from here, as they would come from the image.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

POD_PATH = re.compile(r"^/api/v1/namespaces/([^/]+)/pods(?:/([^/]+))?(?:/(log))?$")
EVENTS_PATH = re.compile(r"^/api/v1/namespaces/[^/]+/events$")


class Pod:
    """One pod: its manifest and the process that is its container."""

    def __init__(
        self, manifest: dict[str, Any], namespace: str, secrets: Mapping[str, Mapping[str, str]], folder: Path
    ) -> None:
        self.manifest = manifest
        metadata = manifest.setdefault("metadata", {})
        metadata.update(namespace=namespace, uid=str(uuid.uuid4()), creationTimestamp=_stamp())
        self.name: str = metadata["name"]
        self.lines: list[str] = []
        container = manifest["spec"]["containers"][0]
        self.container_name: str = container["name"]
        self.environment = {
            **_from_secrets(container, secrets),
            **_from_literals(container),
        }  # `env` wins over `envFrom`
        home = folder / self.name
        home.mkdir()
        image = {"PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}", "HOME": str(home)}
        self.process = subprocess.Popen(
            [*(container.get("command") or []), *(container.get("args") or [])],
            env={**image, **self.environment},
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.append(f"{_stamp()} {line.rstrip()}\n")
        self.process.wait()

    @property
    def finished(self) -> bool:
        return not self._reader.is_alive()

    def follow(self) -> Iterator[str]:
        """Lines as they come, until the process has ended."""
        sent = 0
        while True:
            finished = self.finished
            while sent < len(self.lines):
                yield self.lines[sent]
                sent += 1
            if finished:
                return
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self._reader.join(10)

    def to_json(self) -> dict[str, Any]:
        started = self.manifest["metadata"]["creationTimestamp"]
        if not self.finished:
            phase, state = "Running", {"running": {"startedAt": started}}
        else:
            code = self.process.returncode
            phase, reason = ("Succeeded", "Completed") if code == 0 else ("Failed", "Error")
            ended = {"exitCode": code, "reason": reason, "startedAt": started, "finishedAt": _stamp()}
            state = {"terminated": ended}
        image = self.manifest["spec"]["containers"][0]["image"]
        container = {"name": self.container_name, "state": state, "ready": phase == "Running", "restartCount": 0}
        status = {"phase": phase, "containerStatuses": [{**container, "image": image, "imageID": image}]}
        return {"apiVersion": "v1", "kind": "Pod", **self.manifest, "status": status}


@dataclass
class FakeKubernetes:
    """A running fake. `secrets`: by name, what `envFrom` reads. `pods`: alive; `created` and `deleted`: ever."""

    folder: Path
    secrets: dict[str, dict[str, str]]
    url: str = ""
    pods: dict[str, Pod] = field(default_factory=dict)
    created: list[Pod] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)

    def create(self, manifest: dict[str, Any], namespace: str) -> Pod:
        pod = Pod(manifest, namespace, self.secrets, self.folder)
        self.pods[pod.name] = pod
        self.created.append(pod)
        return pod

    def delete(self, name: str) -> Pod:
        pod = self.pods.pop(name)
        pod.stop()
        self.deleted.append(name)
        return pod

    def kubeconfig(self) -> Path:
        """A file that points a Kubernetes client at this server (JSON is YAML)."""
        path = self.folder / "kubeconfig.yaml"
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
            "users": [{"name": "fake", "user": {"token": "fake"}}],
        }
        path.write_text(json.dumps(content))
        return path


@contextmanager
def serve(folder: Path, secrets: dict[str, dict[str, str]]) -> Iterator[FakeKubernetes]:
    """A fake cluster for the time of the block; every pod that is still there is killed at its end."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = FakeKubernetes(folder, secrets)

    class Bound(_Handler):
        kubernetes = cluster

    server = ThreadingHTTPServer(("127.0.0.1", 0), Bound)
    server.daemon_threads = True
    cluster.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield cluster
    finally:
        server.shutdown()
        server.server_close()
        for pod in cluster.pods.values():
            pod.stop()


class _Handler(BaseHTTPRequestHandler):
    kubernetes: FakeKubernetes
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        found = POD_PATH.match(parts.path)
        if EVENTS_PATH.match(parts.path):
            self._answer(200, {"apiVersion": "v1", "kind": "EventList", "metadata": {}, "items": []})
        elif found is None:
            self._missing()
        elif found[2] is None:
            items = [
                p.to_json()
                for p in self.kubernetes.pods.values()
                if _selected(p, found[1], query.get("labelSelector", ""))
            ]
            self._answer(200, {"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items})
        elif (pod := self.kubernetes.pods.get(found[2])) is None:
            self._missing()
        elif found[3]:
            self._log(pod, follow=query.get("follow", "").lower() == "true")
        else:
            self._answer(200, pod.to_json())

    def do_POST(self) -> None:
        found, body = POD_PATH.match(urlsplit(self.path).path), self._body()
        if found is None or found[2]:
            self._missing()
        elif body["metadata"]["name"] in self.kubernetes.pods:
            self._answer(409, {"kind": "Status", "reason": "AlreadyExists", "code": 409})
        else:
            self._answer(201, self.kubernetes.create(body, found[1]).to_json())

    def do_PATCH(self) -> None:
        found, body = POD_PATH.match(urlsplit(self.path).path), self._body()
        pod = self.kubernetes.pods.get(found[2]) if found else None
        if pod is None:
            self._missing()
            return
        metadata = body.get("metadata", {})
        for key in ("labels", "annotations"):
            pod.manifest["metadata"].setdefault(key, {}).update(metadata.get(key) or {})
        self._answer(200, pod.to_json())

    def do_DELETE(self) -> None:
        found = POD_PATH.match(urlsplit(self.path).path)
        self._body()
        if found is None or found[2] not in self.kubernetes.pods:
            self._missing()
        else:
            self._answer(200, self.kubernetes.delete(found[2]).to_json())

    def _log(self, pod: Pod, follow: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in pod.follow() if follow else list(pod.lines):
            data = line.encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def _body(self) -> dict[str, Any]:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return json.loads(raw) if raw else {}

    def _missing(self) -> None:
        self._answer(404, {"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404})

    def _answer(self, code: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        return None


def _from_secrets(container: dict[str, Any], secrets: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        reference = source["secretRef"]
        if reference["name"] not in secrets and not reference.get("optional"):
            raise ValueError(f"the pod asks for the secret {reference['name']}, which is not there")
        found |= secrets.get(reference["name"], {})
    return found


def _from_literals(container: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item.get("value") or "" for item in container.get("env") or []}


def _selected(pod: Pod, namespace: str, selector: str) -> bool:
    """Label selectors of the forms a=b, a!=b, a and !a."""
    labels = pod.manifest["metadata"].get("labels") or {}
    if pod.manifest["metadata"]["namespace"] != namespace:
        return False
    for term in filter(None, (part.strip() for part in selector.split(","))):
        key, operator, value = re.fullmatch(r"(!?[^=!]+)(?:(!=|==?)(.*))?", term).groups()  # type: ignore[union-attr]
        if operator is None:
            holds = (key[1:] not in labels) if key.startswith("!") else key in labels
        else:
            holds = (labels.get(key) == value) != (operator == "!=")
        if not holds:
            return False
    return True


def _stamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
