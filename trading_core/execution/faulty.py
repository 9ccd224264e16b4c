"""A broker that fails on purpose: lost answers, lost orders, refusals and silence, as a plan and a seed say.

For rehearsals on paper: `TRADING_PAPER_FAULTS="seed=7,lost_answer=0.1,unreachable=0.2"`. Whether a call fails follows from
a hash of the seed, the account, the call, what it asks for and how often it was asked before, so the same calls fail in the
same way again. Faults pass: no call fails more than `MOST_FAULTS` times for the same order or session. A refusal alone
stays: a refused order is refused again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol, TypeVar

from trading_core.errors import (
    AmbiguousOrderError,
    BrokerBusyError,
    BrokerUnreachableError,
    DuplicateOrderError,
    InvalidConfigError,
    OrderRefusedError,
)
from trading_core.execution.broker import Broker, OrderWindow, SimulatedBroker
from trading_core.execution.store import DocumentStore
from trading_core.portfolio.late import AppliedAction
from trading_core.portfolio.overnight import QUIET, Night
from trading_core.schema import AccountState, CashFlow, CorporateAction, Fill, Order, OrderKind, OrderState
from trading_core.sessions import Sessions

MOST_FAULTS = 3  # of one call about one order or session; then it succeeds
BUSY_SECONDS = 0.05
WHY = "a fault on purpose (paper_faults)"
AnswerT = TypeVar("AnswerT")


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """The share of calls that fail in each way, from 0 to 1; what can happen to one call adds up to 1 at most.

    `refuse`: of orders, for good. `lost_answer`: of orders and cancellations that were taken, and of whose answer nothing
    came. `lost_order`: of those that never arrived, which looks the same. `busy`: of all calls. `unreachable`: of
    questions and cancellations.
    """

    seed: int = 0
    refuse: float = 0.0
    lost_answer: float = 0.0
    lost_order: float = 0.0
    unreachable: float = 0.0
    busy: float = 0.0


RATES = tuple(field.name for field in dataclasses.fields(FaultPlan) if field.name != "seed")


def parse_faults(text: str) -> FaultPlan:
    """The plan in a text like "seed=7,refuse=0.05,busy=0.1"; what is not named is 0. Errors: InvalidConfigError."""
    problems: list[str] = []
    values: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in ("seed", *RATES):
            problems.append(f"paper_faults: '{key}' is no key; allowed: seed, {', '.join(RATES)}")
        elif key in values:
            problems.append(f"paper_faults: '{key}' is given twice")
        else:
            values[key] = _number(value)
            problems += _problem(key, value, values[key])
    together = [("lost_answer", "lost_order", "busy"), ("lost_answer", "unreachable", "busy")]
    if not problems and any(math.fsum(values.get(key, 0.0) for key in keys) > 1.0 for keys in together):
        problems.append("paper_faults: what can happen to one call adds up to more than 1")
    if problems:
        raise InvalidConfigError("The setting paper_faults", problems)
    return FaultPlan(int(values.get("seed", 0)), *(values.get(key, 0.0) for key in RATES))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _problem(key: str, text: str, value: float) -> list[str]:
    if key == "seed":
        good, wanted = value >= 0 and value.is_integer(), "a whole number of at least 0"
    else:
        good, wanted = 0.0 <= value <= 1.0, "a number from 0 to 1"
    return [] if good else [f"paper_faults: {key} is '{text}'; give {wanted}"]


class PaperLike(Broker, SimulatedBroker, Protocol):
    """A broker that is told what the market did."""


class FaultyBroker:
    """`inner` with the faults of `plan`. What the market does to it (`settle_open` and its like) never fails.

    `store`: where faults are counted, so that they pass for a process that starts anew too; without one they are counted
    in memory. Constructing does no I/O.
    """

    def __init__(self, inner: PaperLike, plan: FaultPlan, store: DocumentStore | None = None) -> None:
        self.name, self.real, self.traits = inner.name, inner.real, inner.traits
        self._inner = inner
        self._plan = plan
        self._store = store
        self._calls: dict[str, int] = {}
        self._faults: dict[str, int] = {}

    # --- the broker ---------------------------------------------------------------------------------------------------

    def identity(self) -> str:
        return self._asked("identity", "", self._inner.identity)

    def account(self) -> AccountState:
        return self._asked("account", self._now(), self._inner.account)

    def window(self, kind: OrderKind, session: date, sessions: Sessions) -> OrderWindow:
        return self._inner.window(kind, session, sessions)

    def submit(self, order: Order) -> OrderState:
        """As the inner broker's, or a fault: then the order was refused, taken without an answer, lost, or not looked at."""
        key, plan = order.client_order_id, self._plan
        # Drawn without the count of attempts: a broker that refuses an order refuses it the next time too.
        if self._draw("refuse", key) < plan.refuse and self._inner.order(key) is None:
            raise OrderRefusedError(self.name, key, WHY)
        chances = {"lost_answer": plan.lost_answer, "lost_order": plan.lost_order, "busy": plan.busy}
        fault = self._fault("submit", key, chances)
        if fault == "busy":
            raise BrokerBusyError(self.name, f"the order {key}", WHY, BUSY_SECONDS)
        if fault == "lost_answer":
            with contextlib.suppress(DuplicateOrderError, OrderRefusedError):  # nobody hears of these either
                self._inner.submit(order)
        if fault:
            raise AmbiguousOrderError(self.name, key, f"no answer came: {WHY}")
        return self._inner.submit(order)

    def order(self, client_order_id: str) -> OrderState | None:
        return self._asked("order", client_order_id, lambda: self._inner.order(client_order_id))

    def orders(self, session: date) -> list[OrderState]:
        return self._asked("orders", str(session), lambda: self._inner.orders(session))

    def open_orders(self) -> list[OrderState]:
        return self._asked("open orders", self._now(), self._inner.open_orders)

    def fills(self, session: date) -> list[Fill]:
        return self._asked("fills", str(session), lambda: self._inner.fills(session))

    def cash_flows(self, session: date) -> list[CashFlow]:
        return self._asked("cash flows", str(session), lambda: self._inner.cash_flows(session))

    def cancel(self, client_order_id: str) -> OrderState:
        """As the inner broker's, or BrokerUnreachableError: then it may have been canceled or not."""
        plan, what = self._plan, f"the cancellation of {client_order_id}"
        chances = {"lost_answer": plan.lost_answer, "unreachable": plan.unreachable, "busy": plan.busy}
        fault = self._fault("cancel", client_order_id, chances)
        if fault == "busy":
            raise BrokerBusyError(self.name, what, WHY, BUSY_SECONDS)
        if fault == "unreachable":
            raise BrokerUnreachableError(self.name, what, WHY)
        canceled = self._inner.cancel(client_order_id)
        if fault:
            raise BrokerUnreachableError(self.name, what, f"no answer came: {WHY}")
        return canceled

    # --- the market ---------------------------------------------------------------------------------------------------

    def settled_through(self) -> date | None:
        return self._inner.settled_through()

    def settle_open(
        self,
        session: date,
        opens: Mapping[str, float],
        actions: Sequence[CorporateAction],
        settled_at: datetime,
        night: Night = QUIET,
        earlier: Sequence[CorporateAction] = (),
    ) -> list[Fill]:
        return self._inner.settle_open(session, opens, actions, settled_at, night, earlier)

    def took_effect(self, session: date) -> list[AppliedAction]:
        return self._inner.took_effect(session)

    # --- the faults ---------------------------------------------------------------------------------------------------

    def _now(self) -> str:
        """What a question about the account as it is now is about."""
        return str(self._inner.settled_through())

    def _asked(self, call: str, key: str, answer: Callable[[], AnswerT]) -> AnswerT:
        fault = self._fault(call, key, {"unreachable": self._plan.unreachable, "busy": self._plan.busy})
        what = f"{call} {key}".strip()
        if fault == "busy":
            raise BrokerBusyError(self.name, what, WHY, BUSY_SECONDS)
        if fault:
            raise BrokerUnreachableError(self.name, what, WHY)
        return answer()

    def _fault(self, call: str, key: str, chances: Mapping[str, float]) -> str:
        """The fault of this call, or "" for none; `chances`: of each that it may have."""
        if not any(chances.values()):
            return ""
        name = f"{call}#{key}"
        before = self._count(name)
        self._calls[name] = self._calls.get(name, 0) + 1
        drawn, edge = self._draw(name, f"{self._calls[name]}#{before}"), 0.0
        for fault, chance in chances.items():
            edge += chance
            if drawn < edge and before < MOST_FAULTS:
                self._note(name, before + 1)
                return fault
        return ""

    def _draw(self, *what: str) -> float:
        """A number in [0, 1) that follows from the seed, the account and `what`."""
        text = "#".join((str(self._plan.seed), self._inner.identity(), *what))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2.0**64

    def _count(self, name: str) -> int:
        if self._store is None:
            return self._faults.get(name, 0)
        return len(self._store.query(self._pk, f"{name}#"))

    def _note(self, name: str, number: int) -> None:
        if self._store is None:
            self._faults[name] = number
        else:
            self._store.put_new(self._pk, f"{name}#{number}", {"fault": name})

    @property
    def _pk(self) -> str:
        return f"faults#{self._inner.identity()}"
