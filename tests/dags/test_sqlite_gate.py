"""The gate before Airflow's API server on SQLite: with it, requests that would wait for each other both succeed.

The server here holds its transactions as Airflow's does: a task's request writes in a thread and commits when the event loop
has given it back; an audited request commits its line of the log on the event loop itself.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from airflow_env import PLUGINS, airflow_environment
from anyio import to_thread
from fastapi import Depends, FastAPI

WAIT_S = 0.5  # SQLite's, for its lock


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The plugin's module; Airflow is imported with a home of its own, and the environment is put back."""
    before, path = dict(os.environ), list(sys.path)
    os.environ.update(airflow_environment(tmp_path_factory.mktemp("airflow"), TRADING_SQLITE_GATE="1"))
    sys.path.insert(0, str(PLUGINS))
    import sqlite_gate

    os.environ.clear()
    os.environ.update(before)
    sys.path[:] = path
    return sqlite_gate


class Server:
    """An app with a task's route and an audited one, on one database."""

    def __init__(self, database: Path) -> None:
        self.app, self.held = FastAPI(), asyncio.Event()
        self.order: list[str] = []
        connect = lambda: sqlite3.connect(database, timeout=WAIT_S, check_same_thread=False)  # noqa: E731
        with connect() as made:
            made.execute("CREATE TABLE log (line TEXT)")

        async def transaction() -> AsyncIterator[sqlite3.Connection]:
            connection = await to_thread.run_sync(connect)
            yield connection
            await asyncio.sleep(0.05)  # the loop has other work before it lets the thread commit
            await to_thread.run_sync(connection.commit)
            self.order.append("task")
            connection.close()

        async def audit() -> None:
            with connect() as connection:
                connection.execute("INSERT INTO log VALUES ('audited')")
            self.order.append("audited")

        @self.app.patch("/execution/run")
        async def task(session: sqlite3.Connection = Depends(transaction, scope="function")) -> str:
            await to_thread.run_sync(session.execute, "INSERT INTO log VALUES ('task')")
            self.held.set()
            return "written"

        @self.app.post("/api/v2/change", dependencies=[Depends(audit)])
        async def change(body: dict[str, int]) -> dict[str, int]:
            return body

        @self.app.get("/api/v2/look")
        async def look() -> str:
            return "seen"

    def lines(self, database: Path) -> list[str]:
        with sqlite3.connect(database) as connection:
            return sorted(line for (line,) in connection.execute("SELECT line FROM log"))


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://server")


async def together(app: Any, server: Server) -> tuple[int, int]:
    """A task's request, and an audited one while the first holds the lock: their status codes."""
    async with client(app) as http:
        task = asyncio.create_task(http.patch("/execution/run"))
        await server.held.wait()
        changed = await http.post("/api/v2/change", json={"n": 1})
        return (await task).status_code, changed.status_code


@pytest.mark.parametrize("gated", [False, True])
def test_a_task_and_a_click_at_the_same_time(gate: Any, tmp_path: Path, gated: bool) -> None:
    async def run() -> tuple[tuple[int, int], list[str]]:
        server = Server(tmp_path / "airflow.db")
        app = gate.SqliteGate(server.app) if gated else server.app
        codes = await together(app, server)
        return codes, server.lines(tmp_path / "airflow.db")

    codes, lines = asyncio.run(run())
    # Without the gate the click waits for a lock whose holder waits for the click, until SQLite gives up.
    assert codes == ((200, 200) if gated else (200, 500))
    assert lines == (["audited", "task"] if gated else ["task"])


def test_requests_of_tasks_run_together_and_let_a_click_go_first(gate: Any) -> None:
    events: list[str] = []
    release: dict[str, asyncio.Event] = {}

    async def app(scope: Any, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        events.append(f"+{scope['path']}")
        if scope["path"] in release:
            await release[scope["path"]].wait()
        events.append(f"-{scope['path']}")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def run() -> None:
        for path in ("/execution/1", "/execution/2", "/click"):
            release[path] = asyncio.Event()
        async with client(gate.SqliteGate(app)) as http:
            pending = []
            for method, path in [("PATCH", "/execution/1"), ("PATCH", "/execution/2"), ("POST", "/click")]:
                pending.append(asyncio.create_task(http.request(method, path)))
                await asyncio.sleep(0.02)
            pending.append(asyncio.create_task(http.patch("/execution/3")))
            await http.get("/look")  # whatever else is under way
            for path in ("/execution/1", "/execution/2", "/click"):
                release[path].set()
                await asyncio.sleep(0.02)
            await asyncio.gather(*pending)

    asyncio.run(run())
    assert events == [
        *("+/execution/1", "+/execution/2", "+/look", "-/look", "-/execution/1", "-/execution/2"),
        *("+/click", "-/click", "+/execution/3", "-/execution/3"),
    ]


def test_a_request_that_fails_or_never_ends_leaves_the_gate_open(gate: Any) -> None:
    async def app(scope: Any, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["path"] == "/click":
            raise RuntimeError("broken")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def run() -> list[int]:
        gated = gate.SqliteGate(app)
        async with client(gated) as http:
            slow = asyncio.create_task(gated({"type": "http", "method": "POST", "path": "/click"}, never, nothing))
            failed = await http.post("/click", json={})
            there = await http.patch("/execution/1")
            slow.cancel()
            return [failed.status_code, there.status_code]

    async def never() -> Any:
        await asyncio.Event().wait()

    async def nothing(_: Any) -> None:
        """No answer is wanted."""

    assert asyncio.run(run()) == [500, 200]


def test_the_body_of_a_request_arrives_whole(gate: Any) -> None:
    app = FastAPI()

    @app.post("/echo")
    async def echo(body: dict[str, str]) -> dict[str, str]:
        return body

    async def parts() -> AsyncIterator[bytes]:
        for part in (b'{"a": ', b'"1"', b"}"):
            yield part

    async def run() -> Any:
        async with client(gate.SqliteGate(app)) as http:
            return (await http.post("/echo", content=parts(), headers={"content-type": "application/json"})).json()

    assert asyncio.run(run()) == {"a": "1"}


def test_only_the_launchers_server_has_a_gate(gate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [each["middleware"] for each in gate.SqliteGatePlugin.fastapi_root_middlewares] == [gate.SqliteGate]
    monkeypatch.delenv("TRADING_SQLITE_GATE", raising=False)
    monkeypatch.syspath_prepend(str(PLUGINS))
    assert importlib.reload(gate).SqliteGatePlugin.fastapi_root_middlewares == []
