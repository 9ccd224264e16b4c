"""Requests: JSON files in the artifact store that say what is to be computed, and processes of their own that do it.

A request holds everything its work needs (configs, table versions, split, seed), so that a process on another machine
needs nothing but its URI and the store.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from trading_core import config
from trading_core.config import MarketConfig, Settings
from trading_core.errors import InvalidConfigError, TrainingFailedError
from trading_core.pipelines import refs
from trading_core.pipelines.workspace import Workspace, open_workspace, storage_options
from trading_core.storage.artifacts import ArtifactStore


class Request(Protocol):
    """`market`: the config of the market it is about."""

    @property
    def market(self) -> dict[str, Any]: ...

    def hash(self) -> str:
        """Of what determines the result, not of when it was asked for."""
        ...


RequestT = TypeVar("RequestT", bound=Request)


def write_request(ws: Workspace, kind: str, request: Request) -> str:
    """Stores a request as `<market>/<kind>/<hash>/request.json`, unless it lies there already, and returns its full URI."""
    path = ws.path(kind, request.hash(), "request.json")
    ws.store.create(path, config.canonical_json(refs.dump(request)).encode())
    return ws.store.uri(path)


def read_request(uri: str, kind: type[RequestT], settings: Settings) -> tuple[Workspace, RequestT]:
    """The request at `uri`, which must lie in the artifact store. Errors: UriEscapeError, StorageError, ConfigError."""
    store = ArtifactStore.open(settings.artifacts, storage_options(settings))
    raw = store.read_json(store.path_of(uri))
    try:
        request = refs.load(kind, raw)
    except ValueError as error:
        raise InvalidConfigError(uri, [str(error).splitlines()[0]]) from error
    market = config.validate(MarketConfig, request.market, f"market of {uri}")
    return open_workspace(market, settings), request


def run_in_process(arguments: Sequence[str], settings: Settings) -> None:
    """Runs `trading <arguments>` as a child process and prints what it prints.

    A process of its own, because Airflow's workers fork and CUDA does not survive a fork. It ends when this one ends.
    Errors: TrainingFailedError with the child's last lines.
    """
    command = [sys.executable, "-m", "trading_core.cli", *arguments]
    tail: deque[str] = deque(maxlen=20)
    with subprocess.Popen(
        command,
        env={**os.environ, **environment_of(settings), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_die_with_parent,
    ) as child:
        try:
            for line in child.stdout or ():
                print(line.rstrip())
                tail.append(line.rstrip())
        except BaseException:
            child.terminate()
            raise
    if child.returncode != 0:
        raise TrainingFailedError(f"its process ended with code {child.returncode}:\n" + "\n".join(tail))


def environment_of(settings: Settings) -> dict[str, str]:
    """`settings` as `TRADING_*` variables for a child process (secrets go by environment, never by command line)."""
    found = {}
    for name in Settings.model_fields:
        value = getattr(settings, name)
        plain = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        if plain not in (None, ""):
            found[f"TRADING_{name.upper()}"] = str(plain)
    return found


def _die_with_parent() -> None:
    """Asks Linux to end this child when its parent dies, even by kill -9. Elsewhere the child runs to its end."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, 15)  # PR_SET_PDEATHSIG, SIGTERM
