"""Bugs planted into the session core: each must be seen by the invariants, or a run without violations proves little."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from kills import Killed
from processes import in_child, spread
from world import Dangers, World

from trading_core.errors import AmbiguousOrderError, TradingError
from trading_core.execution import ids, lease, machine, order_records, session
from trading_core.schema import OrderStatus

WORLDS = 60  # in which a bug must show
Patch = tuple[object, str, Any]  # of what, which name, what stands there instead


def _sends_first() -> list[Patch]:
    """The intent is written after the order was sent."""
    kept: dict[str, Any] = {}
    record, submit = order_records.OrderRecords.record_intent, session.TradingSession._submit

    def later(self: Any, intent: Any) -> bool:
        kept[intent.client_order_id] = intent
        return True

    def send(self: Any, intent: Any, now: Any, *args: Any) -> Any:
        if intent.client_order_id in kept:
            answer = self.broker.submit(self._order(intent))
            record(self.ledger, kept.pop(intent.client_order_id))
            self._report(answer, now)
            return "sent"
        return submit(self, intent, now, *args)

    return [(order_records.OrderRecords, "record_intent", later), (session.TradingSession, "_submit", send)]


def _new_id_each_time() -> list[Patch]:
    """A second attempt has another id, so the broker cannot know it."""
    count = [0]

    def numbered(*key: Any, **more: Any) -> str:
        count[0] += 1
        return ids.client_order_id(*key[:5], attempt=count[0])

    return [(session, "client_order_id", numbered)]


def _unknown_is_refused() -> list[Patch]:
    """An order without an answer counts as one that was not taken."""
    state = session.TradingSession._state

    def written(self: Any, key: str, status: OrderStatus, *rest: Any) -> Any:
        return state(self, key, OrderStatus.REJECTED if status is OrderStatus.UNKNOWN else status, *rest)

    return [(session.TradingSession, "_state", written)]


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _resend_anyway() -> list[Patch]:
    """What may have been sent is sent again, whatever the broker does with ids it knows."""
    return [(session.TradingSession, "_ask", _nothing)]


def _no_fence() -> list[Patch]:
    def unfenced(self: Any, items: Any, absent: Any = ()) -> bool:
        return bool(self._store.transact_new(items, absent))

    return [(lease.FencedStore, "transact_new", unfenced)]


def _no_corrections() -> list[Patch]:
    record = order_records.OrderRecords.record_fill

    def first_word(self: Any, account: str, fill: Any, at: Any = None) -> Any:
        known = self.fills(account, fill.session)
        if any(f.fill_id == fill.fill_id for f in known):
            return order_records.FillChange.SAME
        return record(self, account, fill, at)

    return [(order_records.OrderRecords, "record_fill", first_word)]


def _twice_told_twice_filled() -> list[Patch]:
    record, count = order_records.OrderRecords.record_fill, [0]

    def each(self: Any, account: str, fill: Any, at: Any = None) -> Any:
        count[0] += 1
        return record(self, account, replace(fill, fill_id=f"{fill.fill_id}-{count[0]}"), at)

    return [(order_records.OrderRecords, "record_fill", each)]


def _ended_is_ended() -> list[Patch]:
    """What is filled after a cancellation does not count."""
    advance = machine.advance

    def stubborn(now: Any, report: Any, *rest: Any) -> Any:
        return None if now is not None and now.status.terminal else advance(now, report, *rest)

    return [(order_records, "advance", stubborn)]


def _nobody_told() -> list[Patch]:
    return [(session.TradingSession, "_alert_unknown", _nothing), (session.TradingSession, "event", _nothing)]


def _blind_reconciliation() -> list[Patch]:
    import worker

    return [(worker, "differences", lambda *args, **more: [])]


def _settles_too_early() -> list[Patch]:
    return [(session.TradingSession, "fills_missing", lambda self: []), *_blind_reconciliation()]


def _halt_is_not_asked() -> list[Patch]:
    return [(session.TradingSession, "refuse_when_halted", _nothing)]


def _any_time() -> list[Patch]:
    return [(session.TradingSession, "require_window", _nothing)]


def _ambiguous_is_taken() -> list[Patch]:
    """No answer is taken for a yes."""
    submit = session.TradingSession._submit

    def hopeful(self: Any, intent: Any, now: Any, *args: Any) -> Any:
        try:
            return submit(self, intent, now, *args)
        except AmbiguousOrderError:
            self._state(intent.client_order_id, OrderStatus.ACCEPTED, now, "")
            return "sent"

    return [(session.TradingSession, "_submit", hopeful)]


MUTANTS: dict[str, Callable[[], list[Patch]]] = {
    "sent before its intent is written": _sends_first,
    "a new id for every attempt": _new_id_each_time,
    "UNKNOWN taken for a refusal": _unknown_is_refused,
    "no answer taken for a yes": _ambiguous_is_taken,
    "sent again without asking": _resend_anyway,
    "writes without the fence": _no_fence,
    "corrections of fills ignored": _no_corrections,
    "a fill told twice counts twice": _twice_told_twice_filled,
    "fills after the end ignored": _ended_is_ended,
    "nobody is alerted": _nobody_told,
    "reconciliation sees nothing": _blind_reconciliation,
    "settled before all fills are told": _settles_too_early,
    "halt not asked": _halt_is_not_asked,
    "window not asked": _any_time,
}
# More of what these bugs need to show.
DANGERS = Dangers(
    habits=replace(Dangers().habits, late_fill=0.3, corrected=0.3),
    rates=replace(Dangers().rates, stale=0.1),
    halts=0.3,
    missed=0.1,
)


@contextmanager
def patched(patches: list[Patch]) -> Iterator[None]:
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    for owner, name, value in patches:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def planted(seed: int, lanes: int, names: list[str] | None = None) -> tuple[Killed, dict[str, str]]:
    """Every planted bug, in world after world until one shows it; by name, what showed it. A bug unseen is a violation."""

    def one(name: str) -> tuple[int, str]:
        return in_child(lambda: _first_sign(name, seed))

    chosen = names or list(MUTANTS)
    total, seen = Killed(), {}
    for name, (worlds, sign) in zip(chosen, spread(chosen, one, lanes), strict=True):
        total.runs += worlds
        total.kills += 1
        if sign:
            seen[name] = sign
        else:
            total.found.append(f"planted bug not seen in {worlds} worlds: {name}")
    return total, seen


def _first_sign(name: str, seed: int) -> tuple[int, str]:
    with patched(MUTANTS[name]()):
        for number in range(WORLDS):
            try:
                found = World(seed + number, 3, DANGERS).run().found
            except TradingError as error:  # the core refuses to go on
                found = [f"{type(error).__name__}: {error}"]
            if found:
                return number + 1, found[0]
    return WORLDS, ""
