"""Keeps Airflow's API server on SQLite from waiting for itself.

Every request that changes something in the UI or the REST API first writes a line of Airflow's audit log, and commits it, on the
server's event loop. A request of a task (the execution API) may hold SQLite's only write lock at that moment, and its own commit
needs the same loop: neither goes on until the wait for the lock ends (five seconds by default), and the whole server with them.
So an audited request waits here until no task's request is under way, and those wait while it runs (a clearing of many runs takes
seconds; heartbeats have minutes). Servers with row locks (PostgreSQL, MySQL) do not need this; only with TRADING_SQLITE_GATE=1,
which the launcher sets, is anything installed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from airflow.plugins_manager import AirflowPlugin

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

READING = {"GET", "HEAD", "OPTIONS"}
TASKS = "/execution/"


class SqliteGate:
    """ASGI middleware: requests that change something run alone, requests of tasks run together, all others pass."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._turn = asyncio.Lock()  # of the one request that runs alone
        self._changed = asyncio.Condition()
        self._together = 0  # requests of tasks under way
        self._alone = 0  # requests that run alone or wait for it: those of tasks let them go first

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif str(scope["path"]).startswith(TASKS):
            async with self._with_other_tasks():
                await self._app(scope, receive, send)
        elif scope["method"] in READING:
            await self._app(scope, receive, send)
        else:
            body = await _body(receive)  # before its turn: a client that stops sending must not stop the tasks
            async with self._by_itself():
                await self._app(scope, _first(body, receive), send)

    @asynccontextmanager
    async def _with_other_tasks(self) -> AsyncIterator[None]:
        async with self._changed:
            await self._changed.wait_for(lambda: self._alone == 0)
            self._together += 1
        try:
            yield
        finally:
            async with self._changed:
                self._together -= 1
                self._changed.notify_all()

    @asynccontextmanager
    async def _by_itself(self) -> AsyncIterator[None]:
        self._alone += 1
        try:
            async with self._turn:
                async with self._changed:
                    await self._changed.wait_for(lambda: self._together == 0)
                yield
        finally:
            self._alone -= 1
            async with self._changed:
                self._changed.notify_all()


async def _body(receive: Receive) -> list[Message]:
    """Everything that the client sends, to its end or until it hangs up."""
    messages = [await receive()]
    while messages[-1]["type"] == "http.request" and messages[-1].get("more_body", False):
        messages.append(await receive())
    return messages


def _first(messages: list[Message], then: Receive) -> Receive:
    """A `receive` that gives `messages` before it asks `then`."""
    waiting = iter(messages)

    async def receive() -> Message:
        return next(waiting, None) or await then()

    return receive


class SqliteGatePlugin(AirflowPlugin):
    name = "trading_sqlite_gate"
    fastapi_root_middlewares = (
        [{"name": "sqlite gate", "middleware": SqliteGate}] if os.environ.get("TRADING_SQLITE_GATE") == "1" else []
    )
