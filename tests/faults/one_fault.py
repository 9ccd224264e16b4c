"""One fault at every place where one can be, enumerated: every call to the storage, every question to the broker."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from calls import Calls
from exchange import Exchange
from exchange_broker import ExchangeBroker, Faults, Rates
from invariants import Witness, comparable, violations
from kills import Killed
from memory_store import AFTER, BEFORE, MemoryStore
from processes import FIRST, HABITS, SEED, Flavour, in_child, spread, take_all_steps
from worker import ACCOUNT
from world import NYSE, SYMBOLS, known_of

from trading_core.execution.ledger import Ledger
from trading_core.schema import OrderStatus

DAY = NYSE.next(FIRST)
Fault = tuple[int, str]  # which call or question, and what happens to it


class AskedBroker(ExchangeBroker):
    """The broker, and the questions about virtual time that a worker asks beside it."""

    def ask(self, name: str, *args):  # type: ignore[no-untyped-def]
        if name == "advance":
            return self.exchange.advance(args[0])
        return self.exchange.now if name == "now" else known_of(self.exchange, args[0])


class OneFault(Faults):
    """Meets the fault `what` at the `number`-th question, and no other; `asked` lists what each could have met."""

    def __init__(self, number: int = 0, what: str = "") -> None:
        super().__init__(Rates(), 0)
        self._number, self._what = number, what
        self.asked: list[tuple[str, ...]] = []

    def meets(self, *names: str) -> str:
        self.asked.append(names)
        return self._what if len(self.asked) == self._number else ""


class Stage:
    """An account that has traded its first session, in this process, with a store and a broker whose faults are ours."""

    def __init__(self, flavour: Flavour) -> None:
        start = NYSE.close(NYSE.previous(FIRST)) + timedelta(minutes=1)
        self.flavour = flavour
        self.exchange = Exchange(
            NYSE, SYMBOLS, FIRST, start, SEED, habits=HABITS, unique_ids=flavour.unique_ids,
            one_auction=flavour.one_auction, visible_after_s=60.0,
        )  # fmt: skip
        self.store = MemoryStore()
        self.witness = Witness(self.store, self.exchange, ACCOUNT)
        self.play(FIRST)

    def play(self, day, faults: Faults | None = None) -> None:  # type: ignore[no-untyped-def]
        broker = AskedBroker(self.exchange, faults, self.witness, ACCOUNT)
        take_all_steps(broker, self.store, day, Calls())

    def judged(self, plain: dict[str, object], same: bool = True) -> list[str]:
        """What is wrong; `same`: it must have ended as the undisturbed day. Where ids are not unique, an order of which
        nobody knows may stay UNKNOWN: that somebody was alerted is checked."""
        self.store.hook = lambda name: ""
        found = violations(self.store, self.exchange, ACCOUNT, self.witness)
        ended = comparable(self.store, ACCOUNT)
        if same and ended != plain and (self.flavour.unique_ids or not self.unknown()):
            found.append(f"it ended otherwise: {sorted(k for k in ended if ended[k] != plain.get(k))}")
        return found

    def unknown(self) -> bool:
        return any(o.status is OrderStatus.UNKNOWN for o in Ledger(self.store).orders(ACCOUNT, DAY))


def storage_once(stage: Stage, lanes: int) -> Killed:
    """Each call to the storage fails once, before or after the write; the step is taken again."""
    plain, count = in_child(lambda: _counted(stage))

    def one(fault: Fault) -> Killed:
        def work() -> Killed:
            stage.store.hook = _hook_at(lambda n: n == fault[0], fault[1])
            stage.play(DAY)
            found = stage.judged(plain)
            text = f"{stage.flavour.name}, storage fails {fault[1]} call {fault[0]}"
            return Killed(1, 1, [f"{text}: {what}" for what in found])

        return in_child(work)

    return _sum(spread([(n, when) for n in range(1, count + 1) for when in (BEFORE, AFTER)], one, lanes))


def storage_gone(stage: Stage, lanes: int, every: int = 1) -> Killed:
    """From each call on, the storage answers no more on that day: no order may be sent from then on."""
    _, count = in_child(lambda: _counted(stage))

    def one(start: int) -> Killed:
        def work() -> Killed:
            at_failure: list[int] = []

            def gone(number: int) -> bool:
                if number == start:
                    at_failure.append(len(stage.witness.sent))
                return number >= start

            quiet = Witness(MemoryStore(), stage.exchange, ACCOUNT)  # asks nothing of the storage that is gone
            stage.witness = quiet
            stage.store.hook = _hook_at(gone, BEFORE)
            stage.play(DAY)
            more = len(quiet.sent) - at_failure[0]
            stage.store.hook = lambda name: ""
            text = f"{stage.flavour.name}, storage gone from call {start} on"
            found = [f"{text}: {more} orders were sent afterwards"] if more else []
            return Killed(1, 1, found + [f"{text}: {v}" for v in _one_each(stage)])

        return in_child(work)

    return _sum(spread(list(range(1, count + 1, every)), one, lanes))


def broker_once(stage: Stage, lanes: int) -> Killed:
    """Each question to the broker meets each fault that it can meet, once."""
    plain, asked = in_child(lambda: _asked(stage))
    faults = [(n, what) for n, names in enumerate(asked, 1) for what in names]

    def one(fault: Fault) -> Killed:
        def work() -> Killed:
            stage.play(DAY, OneFault(*fault))
            found = stage.judged(plain, same=fault[1] != "refused")
            text = f"{stage.flavour.name}, {fault[1]} at question {fault[0]}"
            return Killed(1, 1, [f"{text}: {what}" for what in found])

        return in_child(work)

    return _sum(spread(faults, one, lanes))


def _counted(stage: Stage) -> tuple[dict[str, object], int]:
    numbers: list[str] = []

    def count(name: str) -> str:
        numbers.append(name)
        return ""

    quiet, stage.witness = stage.witness, Witness(MemoryStore(), stage.exchange, ACCOUNT)
    stage.store.hook = count
    stage.play(DAY)
    stage.store.hook = lambda name: ""
    stage.witness = quiet
    return comparable(stage.store, ACCOUNT), len(numbers)


def _asked(stage: Stage) -> tuple[dict[str, object], list[tuple[str, ...]]]:
    faults = OneFault()
    stage.play(DAY, faults)
    return comparable(stage.store, ACCOUNT), faults.asked


def _hook_at(when: Callable[[int], bool], what: str) -> Callable[[str], str]:
    calls: list[str] = []

    def hook(name: str) -> str:
        calls.append(name)
        return what if when(len(calls)) else ""

    return hook


def _one_each(stage: Stage) -> list[str]:
    ids = [held.order.client_order_id for held in stage.exchange.view.orders.values()]
    return ["an intent has two orders"] if len(ids) != len(set(ids)) else []


def _sum(parts: list[Killed]) -> Killed:
    total = Killed()
    for part in parts:
        total.add(part)
    return total
