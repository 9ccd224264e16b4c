"""The durable steps of one trading session between a ledger and a broker: send, poll, cancel what is left.

Every step may be killed anywhere and run again, by another process or by two at once:

- an intent is in the ledger before its order is sent, and SUBMITTING before every attempt to send it, so that what may
  have been sent is known;
- whatever may have been sent is asked for before it is sent again, under the same id;
- all writes are made through the ledger handed in, which is fenced by the account's lease: a process that lost the lease
  fails at the write before the send.

Nothing here reads the clock, prices or configuration: they are handed in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from trading_core.errors import (
    AmbiguousOrderError,
    BrokerAccessError,
    BrokerBusyError,
    DuplicateOrderError,
    LedgerUnreachableError,
    OrderRefusedError,
    OrderWindowClosedError,
    TradingHaltedError,
    UnresolvedOrdersError,
)
from trading_core.execution.broker import Broker, OrderWindow
from trading_core.execution.ids import client_order_id
from trading_core.execution.ledger import Ledger
from trading_core.execution.order_records import FillChange
from trading_core.execution.records import (
    DecidedOrder,
    Decision,
    EventLevel,
    GateRecord,
    Intent,
    LedgerEvent,
    OrderEvent,
    OrderRecord,
    RuleVerdict,
)
from trading_core.portfolio.planner import floor_quantity
from trading_core.schema import Order, OrderKind, OrderState, OrderStatus, Side
from trading_core.sessions import Sessions

FLATTEN = "flatten"  # the label of orders, and the model of decisions, that close an account by hand
STOPPED = "stopped"  # the event of a session that a rule has stopped
NEVER_ARRIVED = "it had not reached the broker when its window closed"
NOT_THERE = "the broker does not know it"
NOT_TAKEN = "the broker did not look at it; it may be sent again"
MAYBE_SENT = (OrderStatus.SUBMITTING, OrderStatus.UNKNOWN)
FILLS_TOLERANCE = 1e-9  # shares, relative

# What the pre-trade rules say of an order about to be sent, at a time. A rule that stops the whole session raises.
Gate = Callable[[Intent, datetime], Sequence[RuleVerdict]]


@dataclass(frozen=True, slots=True)
class SessionPolicy:
    """How orders of an account are sent.

    `kind`: of its orders. `collar_bps`: how far the limit of a LIMIT order lies from the reference price, against us.
    `cash_margin_bps`: of the cash, kept back from buys that are sent after the fills of the sells. `replay`: history on
    paper, which no order window binds.
    """

    kind: OrderKind = OrderKind.OPENING
    collar_bps: float = 100.0
    cash_margin_bps: float = 50.0
    cancel_leftovers: bool = True
    replay: bool = False


@dataclass(frozen=True, slots=True)
class SendResult:
    """`sent`: taken by the broker now; `known`: it had them; `refused`: by a rule, or by the broker's clear word."""

    sent: int = 0
    known: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class PollResult:
    """`open`: orders that may still fill; `unknown`: those of which nobody knows what became (part of `open`)."""

    open: int
    unknown: int
    corrected: int = 0
    foreign: tuple[str, ...] = ()  # ids at the broker, for this session, that the ledger does not know


class TradingSession:
    """Session T of `account`. Constructing does no I/O."""

    def __init__(
        self, ledger: Ledger, broker: Broker, sessions: Sessions, account: str, session: date, policy: SessionPolicy
    ) -> None:
        self.ledger = ledger
        self.broker = broker
        self.account = account
        self.session = session
        self.policy = policy
        self._sessions = sessions

    # --- sending ------------------------------------------------------------------------------------------------------

    def send(
        self,
        decision: Decision,
        orders: Sequence[DecidedOrder],
        gate: Gate,
        now: datetime,
        flatten: str = "",
    ) -> SendResult:
        """Sends `orders` of the frozen decision, each at most once, in the order given.

        `flatten`: the label of orders that close an account by hand, which a halt does not stop.
        Errors: TradingHaltedError, OrderWindowClosedError, LeaseLostError and LedgerUnreachableError (before anything is
        sent); AmbiguousOrderError and other errors of the broker (the order is UNKNOWN or known not to be taken);
        UnresolvedOrdersError when orders of before stay UNKNOWN: an alert is in the ledger then.
        """
        counted = {"sent": 0, "known": 0, "refused": 0}
        unresolved: list[str] = []
        for order in orders:
            outcome = self._send_one(decision, order, gate, now, flatten)
            if outcome == "unknown":
                unresolved.append(f"{order.side.value} {order.quantity:g} {order.symbol}")
            else:
                counted[outcome] += 1
        if unresolved:
            self._alert_unknown(unresolved, now)
            raise UnresolvedOrdersError(self.account, self.session, unresolved)
        return SendResult(**counted)

    def _send_one(self, decision: Decision, order: DecidedOrder, gate: Gate, now: datetime, flatten: str) -> str:
        intent = self._intent(decision, order, now, flatten)
        known = self.ledger.order(self.account, self.session, intent.client_order_id)
        if known is not None:
            intent = known.intent  # as it was meant first: that is what is judged and sent
            if known.status not in (OrderStatus.PLANNED, *MAYBE_SENT):
                return "known"
            settled = self._ask(known, now) if known.status in MAYBE_SENT else None
            if settled is not None:
                return settled
        against = self._judge(intent, gate, now, flatten)
        if against is not None and known is not None:
            self._state(intent.client_order_id, OrderStatus.REJECTED, now, f"{against.rule}: {against.reason}")
        if against is not None:
            return "refused"
        if known is None:
            self.ledger.record_intent(intent)
        return self._submit(intent, now)

    def _judge(self, intent: Intent, gate: Gate, now: datetime, flatten: str = "") -> RuleVerdict | None:
        """The first rule that refuses an order; None when it may be sent now. What the rules said is kept."""
        if not flatten:
            self.refuse_when_halted()
        self.require_window(intent.side, now)
        verdicts = tuple(gate(intent, now))
        if verdicts:
            made = GateRecord(self.account, self.session, intent.client_order_id, intent.symbol, verdicts, now)
            self.ledger.record_gates(made)
        return next((verdict for verdict in verdicts if verdict.verdict == "reject"), None)

    def rehearse(self, decision: Decision, orders: Sequence[DecidedOrder], gate: Gate, now: datetime) -> int:
        """All that is asked before an order is sent, and no more; how many the rules refuse. Errors: as of `send` before
        anything is sent."""
        intents = [self._intent(decision, order, now, "") for order in orders]
        return sum(self._judge(intent, gate, now) is not None for intent in intents)

    def _intent(self, decision: Decision, order: DecidedOrder, now: datetime, flatten: str) -> Intent:
        strategy = flatten or decision.strategy
        return Intent(
            client_order_id=client_order_id(self.account, strategy, self.session, order.symbol, order.side),
            account=self.account,
            session=self.session,
            strategy=strategy,
            symbol=order.symbol,
            side=order.side,
            quantity=order.quantity,
            reference_price=order.reference_price,
            attempt=1,
            decision_id=decision.decision_id,
            created_at=now,
        )

    def _ask(self, known: OrderRecord, now: datetime) -> str | None:
        """What became of an order that may have been sent; None when it may be sent (again)."""
        key = known.intent.client_order_id
        found = self.broker.order(key)
        if found is not None:
            self._report(found, now)
            return "known"
        if known.reason == NOT_TAKEN:
            return None
        history = self.ledger.order_history(self.account, self.session, key)
        attempts = [event.at for event in history if event.status is OrderStatus.SUBMITTING]
        traits = self.broker.traits
        if not traits.unique_ids or now < max(attempts, default=history[-1].at) + timedelta(
            seconds=traits.visible_after_s
        ):
            self._state(key, OrderStatus.UNKNOWN, now, NOT_THERE)
            return "unknown"
        return None

    def _submit(self, intent: Intent, now: datetime) -> str:
        key = intent.client_order_id
        if self._state(key, OrderStatus.SUBMITTING, now, "").status is not OrderStatus.SUBMITTING:
            return "known"  # another worker was faster
        try:
            answer = self.broker.submit(self._order(intent))
        except DuplicateOrderError:
            found = self.broker.order(key)  # another worker was faster
            if found is not None:
                self._report(found, now)
            return "known"
        except OrderRefusedError as error:
            self._state(key, OrderStatus.REJECTED, now, error.reason)
            return "refused"
        except (BrokerBusyError, BrokerAccessError):
            self._state(key, OrderStatus.SUBMITTING, now, NOT_TAKEN)
            raise
        except (AmbiguousOrderError, LedgerUnreachableError, OSError) as error:
            self._state(key, OrderStatus.UNKNOWN, now, f"no clear answer: {error}")
            raise
        self._report(answer, now)
        return "sent"

    def _order(self, intent: Intent) -> Order:
        limit, kind = None, self.kind(intent.side)
        if kind is OrderKind.LIMIT:
            away = self.policy.collar_bps / 1e4 * (1.0 if intent.side is Side.BUY else -1.0)
            limit = round(intent.reference_price * (1.0 + away), 2)
        return Order(
            intent.client_order_id,
            intent.symbol,
            intent.side,
            intent.quantity,
            self.session,
            intent.reference_price,
            kind,
            limit,
        )

    def refuse_when_halted(self) -> None:
        """Errors: TradingHaltedError. Asked before every order."""
        reason = self.ledger.halted(self.account)
        if reason is not None:
            raise TradingHaltedError(self.account, reason)

    def kind(self, side: Side) -> OrderKind:
        """Of the orders of a side. Buys that wait for the fills of the sells come too late for the opening auction."""
        waits = side is Side.BUY and not self.broker.traits.one_auction
        return OrderKind.MARKET if waits and self.policy.kind is OrderKind.OPENING else self.policy.kind

    def require_window(self, side: Side, now: datetime) -> None:
        """Errors: OrderWindowClosedError unless orders of a side may be sent now (a replay's always may)."""
        if self.policy.replay:
            return
        window = self._window(side)
        if not window.start <= now < window.end:
            raise OrderWindowClosedError(self.account, self.session, window.start, window.end, now)

    # --- asking -------------------------------------------------------------------------------------------------------

    def poll(self, now: datetime) -> PollResult:
        """Brings the ledger up to what the broker says of every order and fill of the session.

        Errors: BrokerUnreachableError: nothing is concluded from a question without an answer.
        """
        there = {state.order.client_order_id: state for state in self.broker.orders(self.session)}
        corrected = self._take_fills(now)
        restated, told = self._restated(), self._told()
        mine = self.ledger.orders(self.account, self.session)
        for known in mine:
            key = known.intent.client_order_id
            found = there.get(key)
            if found is None and not known.status.terminal:
                found = self.broker.order(key)
            if found is not None:
                # Not only in the poll that learned of the correction: it may have been killed before it came here. Nor
                # only of fills known to be corrected: the first word we heard of one may have been the corrected one.
                fewer = found.status.terminal and found.filled_quantity < known.filled_quantity
                explained = _same_shares(found.filled_quantity, told.get(key, 0.0))
                self._report(found, now, correction=explained and (fewer or key in restated))
            elif not known.status.terminal:
                self._missing(known, now)
        mine = self.ledger.orders(self.account, self.session)
        unknown = [o for o in mine if o.status in MAYBE_SENT and o.reason != NOT_TAKEN]
        if unknown:
            self._alert_unknown(
                [f"{o.intent.side.value} {o.intent.quantity:g} {o.intent.symbol}" for o in unknown], now
            )
        foreign = sorted(set(there) - {o.intent.client_order_id for o in mine})
        living = sum(not o.status.terminal for o in mine)
        return PollResult(living, len(unknown), len(corrected), tuple(foreign))

    def _take_fills(self, now: datetime) -> set[str]:
        """Records the broker's fills of our orders; the ids of orders whose fills were corrected."""
        mine = {order.intent.client_order_id for order in self.ledger.orders(self.account, self.session)}
        corrected: set[str] = set()
        for fill in self.broker.fills(self.session):
            if fill.client_order_id not in mine:
                continue  # a stranger's: reconciliation sees it in the positions
            if self.ledger.record_fill(self.account, fill, now) is FillChange.CORRECTED:
                corrected.add(fill.client_order_id)
        for made in self.ledger.corrections(self.account, self.session):  # also those whose run stopped right after
            what = f"{made.fill.quantity:g} {made.fill.symbol} at {made.fill.price:g}"
            said = f"the broker restated the fill {made.fill.fill_id}: {what}"
            self.event("fill_corrected", EventLevel.WARNING, said, now)
        return corrected

    def _missing(self, known: OrderRecord, now: datetime) -> None:
        """An order that the broker does not know: not sent yet, on its way, or never arrived; or forgotten."""
        key = known.intent.client_order_id
        sent = known.status in MAYBE_SENT and known.reason != NOT_TAKEN
        over = self.policy.replay or now >= self._window(known.intent.side).end + timedelta(
            seconds=self.broker.traits.visible_after_s
        )
        if sent and not (over and self.broker.traits.unique_ids):
            self._state(key, OrderStatus.UNKNOWN, now, NOT_THERE)
        elif known.status not in (OrderStatus.PLANNED, *MAYBE_SENT):
            if over:
                what = f"the broker took the {known.intent.side.value} of {known.intent.symbol} ({key})"
                said = f"{what} and does not know it any more; nothing is concluded from it"
                self.event("order_gone", EventLevel.ALERT, said, now)
        elif over and not self.policy.replay:
            self._state(key, OrderStatus.EXPIRED, now, NEVER_ARRIVED)

    def _window(self, side: Side) -> OrderWindow:
        return self.broker.window(self.kind(side), self.session, self._sessions)

    def over(self, now: datetime) -> bool:
        """Whether nothing of the session can be sent any more (a replay's always can)."""
        return not self.policy.replay and now >= max(self._window(side).end for side in Side)

    def unsent(self, decision: Decision | None) -> list[DecidedOrder]:
        """Orders of the decision that the broker has not taken and nobody has refused: a run stopped before them."""
        said = self.ledger.approval(self.account, self.session)
        if decision is None or (said is not None and not said.approved) or self._stopped_for_good():
            return []
        mine = self.ledger.orders(self.account, self.session)
        done = {(o.intent.symbol, o.intent.side) for o in mine if o.status not in (OrderStatus.PLANNED, *MAYBE_SENT)}
        refused = {
            record.client_order_id: any(verdict.verdict == "reject" for verdict in record.verdicts)
            for record in self.ledger.gates(self.account, self.session)
        }
        ids = {o.intent.client_order_id for o in mine}  # a stranger's order of the same symbol is not ours
        at_broker = {
            (s.order.symbol, s.order.side) for s in self.broker.orders(self.session) if s.order.client_order_id in ids
        }
        return [
            order
            for order in decision.orders
            if (order.symbol, order.side) not in done | at_broker and not refused.get(self._key(decision, order))
        ]

    def stop(self, why: str, now: datetime) -> None:
        """Notes that a rule has stopped the session."""
        self.event(STOPPED, EventLevel.ALERT, why, now)

    def _stopped_for_good(self) -> bool:
        """In a replay a session that a rule has stopped is over; a live one may go on until its window closes."""
        return self.policy.replay and any(
            event.kind == STOPPED for event in self.ledger.events(self.account, self.session)
        )

    def _key(self, decision: Decision, order: DecidedOrder) -> str:
        label = FLATTEN if decision.model == FLATTEN else decision.strategy
        return client_order_id(self.account, label, self.session, order.symbol, order.side)

    def _restated(self) -> set[str]:
        """The ids of orders that have a corrected fill."""
        return {made.fill.client_order_id for made in self.ledger.corrections(self.account, self.session)}

    def _told(self) -> dict[str, float]:
        """Shares by client order id, as the fills that the ledger has sum up."""
        told: dict[str, list[float]] = {}
        for fill in self.ledger.fills(self.account, self.session):
            told.setdefault(fill.client_order_id, []).append(fill.quantity)
        return {key: math.fsum(quantities) for key, quantities in told.items()}

    def fills_missing(self) -> list[str]:
        """Orders whose fills do not add up to what the broker says was filled: they have not all been told yet."""
        told = self._told()
        return [
            f"{o.intent.symbol}: {told.get(o.intent.client_order_id, 0.0)} of {o.filled_quantity} shares"
            for o in self.ledger.orders(self.account, self.session)
            if not _same_shares(told.get(o.intent.client_order_id, 0.0), o.filled_quantity)
        ]

    # --- buys after sells, leftovers ----------------------------------------------------------------------------------

    def affordable(self, orders: Sequence[DecidedOrder], rate: float, fractional: bool) -> list[DecidedOrder]:
        """Buys as they can be paid with the cash that is at the broker now, all shrunk by one factor where it is short.

        `rate`: 1 plus the proportional costs of a purchase. Those with an intent keep its quantity. Where sells and buys
        clear in one auction nothing is shrunk here: the auction does it.
        """
        if self.broker.traits.one_auction or not orders:
            return list(orders)
        known = {(o.intent.symbol, o.intent.side): o for o in self.ledger.orders(self.account, self.session)}
        fixed = [known[o.symbol, o.side] for o in orders if (o.symbol, o.side) in known]
        cash = self.broker.account().cash
        cash -= cash * self.policy.cash_margin_bps / 1e4 if cash > 0 else 0.0
        cash -= math.fsum(
            (o.intent.quantity - o.filled_quantity) * o.intent.reference_price * rate
            for o in fixed
            if not o.status.terminal
        )
        free = [o for o in orders if (o.symbol, o.side) not in known]
        need = math.fsum(o.quantity * o.reference_price * rate for o in free)
        scale = 1.0 if need <= 0 else min(1.0, max(cash, 0.0) / need)
        made = []
        for order in orders:
            if (order.symbol, order.side) in known:
                quantity = known[order.symbol, order.side].intent.quantity
            else:
                quantity = order.quantity if scale == 1.0 else floor_quantity(order.quantity * scale, fractional)
            if quantity > 0:
                made.append(DecidedOrder(order.symbol, order.side, quantity, order.reference_price))
        return made

    def cancel_open(self, now: datetime, side: Side | None = None, but: str = "") -> int:
        """Asks the broker to cancel what is still open (of one side; but what was sent under the label `but`); how many."""
        asked = 0
        for known in self.ledger.orders(self.account, self.session):
            key = known.intent.client_order_id
            mine = side in (None, known.intent.side) and (not but or known.intent.strategy != but)
            there = self.broker.order(key) if mine and not known.status.terminal else None
            if there is None:
                continue
            if not there.status.terminal:
                self._report(replace(there, status=OrderStatus.PENDING_CANCEL), now)
            self._report(self.broker.cancel(key), now)
            asked += 1
        return asked

    # --- writing ------------------------------------------------------------------------------------------------------

    def event(self, kind: str, level: EventLevel, message: str, now: datetime) -> None:
        """Tells something, once: the same words about the same session are not repeated."""
        known = self.ledger.events(self.account, self.session)
        if not any((e.kind, e.message) == (kind, message) for e in known):
            self.ledger.record_event(LedgerEvent(self.account, self.session, kind, level, message, now))

    def _alert_unknown(self, orders: Sequence[str], now: datetime) -> None:
        said = f"nobody knows what became of {', '.join(sorted(orders))}; see docs/operations.md, An order is UNKNOWN"
        self.event("unknown_order", EventLevel.ALERT, said, now)

    def _report(self, found: OrderState, now: datetime, correction: bool = False) -> None:
        self.ledger.record_order_state(
            self.account,
            self.session,
            found.order.client_order_id,
            found.status,
            now,
            found.filled_quantity,
            found.average_price,
            found.reason,
            found.order.quantity,
            correction,
        )

    def _state(self, key: str, status: OrderStatus, now: datetime, reason: str) -> OrderEvent:
        return self.ledger.record_order_state(self.account, self.session, key, status, now, reason=reason)


def _same_shares(left: float, right: float) -> bool:
    return math.isclose(left, right, rel_tol=FILLS_TOLERANCE, abs_tol=FILLS_TOLERANCE)
