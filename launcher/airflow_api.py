"""The few calls of Airflow's REST API v2 that the launcher makes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx

from launcher.environment import SQLITE_CONNECT, USER, Installation

DONE = ("success", "failed")
ATTEMPTS = 8
# Longer than a request may wait for SQLite's lock, twice: whoever gives up first hears nothing of what became of it.
TIMEOUT_S = 2 * SQLITE_CONNECT["timeout"] + 30


class AirflowApiError(RuntimeError):
    """A call that Airflow refused; the message is Airflow's own."""


class AirflowApi:
    """A logged-in client of the installation's API server."""

    def __init__(self, home: Installation) -> None:
        self.base_url = home.base_url
        self._client = httpx.Client(base_url=home.base_url, timeout=TIMEOUT_S)
        try:
            answer = self._client.post("/auth/token", json={"username": USER, "password": home.password})
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise AirflowApiError(f"{home.base_url} refuses this installation's login: {error}") from error
        self._client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def call(self, method: str, path: str, json: Any = None, params: dict[str, Any] | None = None) -> Any:
        """One request under /api/v2, repeated while the server or its database is busy.

        A database error rolled back whatever the request had begun, so that any request may follow it again; one that
        broke on its way may have been carried out, and only a GET is repeated.
        """
        for attempt in range(ATTEMPTS):
            last = attempt == ATTEMPTS - 1
            try:
                answer = self._client.request(method, f"/api/v2{path}", json=json, params=params)
            except httpx.TransportError as error:
                if method != "GET" or last:
                    raise AirflowApiError(f"{method} {path}: {error}") from error
            else:
                if last or not _busy(answer):
                    return _content(answer, f"{method} {path}")
            time.sleep(0.5 * (attempt + 1))
        raise AssertionError("unreachable: the last attempt returns or raises")

    def wait_for_dags(self, names: list[str], within_s: float = 120) -> None:
        """Returns when all DAGs are parsed; raises with the import errors if any file cannot be imported.

        An error of before is waited out: the file may have been mended, and is read again soon after a start.
        """
        began, deadline = datetime.now(UTC), time.monotonic() + within_s
        while True:
            errors = self.call("GET", "/importErrors")["import_errors"]
            new = any(datetime.fromisoformat(e["timestamp"]) >= began for e in errors)
            if new or (errors and time.monotonic() > deadline):
                raise AirflowApiError("\n".join(f"{e['filename']}: {e['stack_trace']}" for e in errors))
            known = {dag["dag_id"] for dag in self.call("GET", "/dags", params={"limit": 100})["dags"]}
            if set(names) <= known and not errors:
                return
            if time.monotonic() > deadline:
                raise AirflowApiError(f"DAGs not parsed within {within_s:.0f} s: {sorted(set(names) - known)}")
            time.sleep(0.5)

    def wait_for_choice(self, dag_id: str, field: str, value: str, within_s: float = 120) -> None:
        """Returns when the form of `dag_id` offers `value`: a market added just now is there once its file is parsed again."""
        deadline = time.monotonic() + within_s
        asked = False
        while value not in (dag := self.call("GET", f"/dags/{dag_id}/details"))["params"][field]["schema"]["enum"]:
            if not asked:
                self._ask_to_parse(dag["file_token"])
                asked = True
            if time.monotonic() > deadline:
                raise AirflowApiError(f"The form of {dag_id} does not offer {field} '{value}' after {within_s:.0f} s")
            time.sleep(1)

    def _ask_to_parse(self, file_token: str) -> None:
        try:
            self.call("PUT", f"/parseDagFile/{file_token}")
        except AirflowApiError as error:
            if "HTTP 409" not in str(error):  # that is: it has been asked for already
                raise

    def pause(self, dag_id: str, paused: bool) -> None:
        self.call("PATCH", f"/dags/{dag_id}", {"is_paused": paused})

    def ensure_pool(self, name: str, slots: int, description: str) -> None:
        known = {pool["name"] for pool in self.call("GET", "/pools")["pools"]}
        if name not in known:
            self.call("POST", "/pools", {"name": name, "slots": slots, "description": description})

    def trigger(
        self, dag_id: str, conf: dict[str, Any], partition_key: str | None = None, note: str | None = None
    ) -> str:
        """Starts a run and returns its id."""
        body: dict[str, Any] = {"logical_date": None, "conf": conf, "note": note}
        if partition_key:
            body["partition_key"] = partition_key
        return self.call("POST", f"/dags/{dag_id}/dagRuns", body)["dag_run_id"]

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        return self.call("GET", f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}")

    def runs(self, dag_id: str, **filters: Any) -> list[dict[str, Any]]:
        return self.call("GET", f"/dags/{dag_id}/dagRuns", params={"limit": 100, "order_by": "-id", **filters})[
            "dag_runs"
        ]

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances"
        return self.call("GET", path, params={"limit": 1000})["task_instances"]

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.call("GET", path, params={"deserialize": "false", "stringify": "false"})["value"]

    def fail_run(self, dag_id: str, run_id: str) -> None:
        self.call("PATCH", f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}", {"state": "failed"})

    def run_started_by(self, dag_id: str, source_run_id: str, within_s: float = 600) -> str:
        """The run of `dag_id` that an asset event of the run `source_run_id` started."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            # The API answers 500 for the events of a run that has not started yet: those are left for the next look.
            for candidate in [run for run in self.runs(dag_id)[:10] if run["start_date"]]:
                path = f"/dags/{dag_id}/dagRuns/{quote(candidate['dag_run_id'], safe='')}/upstreamAssetEvents"
                events = self.call("GET", path)["asset_events"]
                if any(event["source_run_id"] == source_run_id for event in events):
                    return candidate["dag_run_id"]
            time.sleep(0.5)
        raise AirflowApiError(f"No run of {dag_id} was started by {source_run_id} within {within_s:.0f} s")

    def follow(self, dag_id: str, run_id: str, show: Callable[[list[dict[str, Any]]], None]) -> str:
        """Waits for a run, handing its task instances to `show` whenever they change; returns its final state."""
        for state in self._states(dag_id, run_id):
            show(self.tasks(dag_id, run_id))
            if state in DONE:
                return state
        raise AssertionError("unreachable: _states ends only after a final state")

    def _states(self, dag_id: str, run_id: str) -> Iterator[str]:
        while True:
            yield self.run(dag_id, run_id)["state"]
            time.sleep(0.7)

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int, map_index: int) -> str:
        """The text of one task attempt's log."""
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task_id}/logs/{max(1, try_number)}"
        content = self.call("GET", path, params={"map_index": map_index, "full_content": "true"})["content"]
        return "\n".join(str(line.get("event", line)) if isinstance(line, dict) else str(line) for line in content)


def _busy(answer: httpx.Response) -> bool:
    """503, and the 500 that Airflow gives for any database error: SQLite was locked, or a row changed between two reads."""
    return answer.status_code == 503 or (answer.status_code == 500 and "Database error" in answer.text)


def _content(answer: httpx.Response, request: str) -> Any:
    if answer.is_error:
        raise AirflowApiError(f"{request}: HTTP {answer.status_code}: {answer.text[:4000]}")
    return answer.json() if answer.content else None
