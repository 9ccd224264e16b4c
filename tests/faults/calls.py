"""Every external call of a session, counted: the k-th one can die before or after it was carried out.

`Watched(store, log, ...)` stands in for a store, broker or anything else; `Calls` numbers the calls of all that share it.
A read leaves nothing behind, so dying after it is dying before the next call; both are tried nevertheless.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

BEFORE, AFTER = "before", "after"
STORE_CALLS = ("get", "find", "put_new", "replace", "query", "transact_new")
BROKER_CALLS = ("account", "submit", "order", "orders", "open_orders", "fills", "cash_flows", "cancel", "settle_open")
# Calls that can leave something behind.
EFFECTS = ("put_new", "replace", "transact_new", "submit", "cancel", "settle_open", "write_bytes")


class KillSwitchError(BaseException):
    """The death of a process, for tests in one process: no `except Exception` sees it. `finally` still runs."""


def die() -> None:
    """The real one: nothing runs after it."""
    os.kill(os.getpid(), signal.SIGKILL)


def stop() -> None:
    """Frozen until somebody sends SIGCONT: a paused machine, a long garbage collection."""
    os.kill(os.getpid(), signal.SIGSTOP)


def unwind() -> None:
    raise KillSwitchError


@dataclass(slots=True)
class Calls:
    """`number` calls were begun so far (from 1). At call `at`, `when` it is BEFORE or AFTER, `act` happens, once.

    After `unwind` the process counts as dead: a `finally` that calls out raises again, as a dead one calls nobody.
    """

    at: int = 0
    when: str = BEFORE
    act: Callable[[], None] = unwind
    number: int = 0
    names: list[str] = field(default_factory=list)
    dead: bool = False

    def carried_out(self, name: str, call: Callable[[], Any]) -> Any:
        if self.dead:
            raise KillSwitchError
        self.number += 1
        number = self.number
        self.names.append(name)
        if number == self.at and self.when == BEFORE:
            self._act()
        answer = call()
        if number == self.at and self.when == AFTER:
            self._act()
        return answer

    def _act(self) -> None:
        self.dead = self.act is unwind
        self.act()


class Watched:
    """Stands in for `inner`: calls of `methods` are counted under `label`, everything else is passed through."""

    def __init__(self, inner: Any, calls: Calls, label: str, methods: Sequence[str]) -> None:
        self._inner, self._calls, self._label, self._methods = inner, calls, label, frozenset(methods)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if name not in self._methods:
            return value

        def counted(*args: Any, **kwargs: Any) -> Any:
            return self._calls.carried_out(f"{self._label}.{name}", lambda: value(*args, **kwargs))

        return counted


def watched_store(store: Any, calls: Calls) -> Any:
    return Watched(store, calls, "store", STORE_CALLS)


def watched_broker(broker: Any, calls: Calls) -> Any:
    return Watched(broker, calls, "broker", BROKER_CALLS)


def has_effect(name: str) -> bool:
    """Whether a call of this name (`store.put_new`) can leave something behind."""
    return name.rpartition(".")[2] in EFFECTS
