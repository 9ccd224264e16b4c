"""The steps of a trading session as the tasks of the DAG take them, on the session core alone: no market data, no Airflow.

Each step takes the account's lease, does its part and lets go. All of them may be run again at any time.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from trading_core.errors import AccountMismatchError, SessionNotSettledError
from trading_core.execution.broker import Broker
from trading_core.execution.ids import decision_id
from trading_core.execution.lease import FencedStore, Leases
from trading_core.execution.ledger import Ledger
from trading_core.execution.reconciliation import Holdings, differences, expected
from trading_core.execution.records import (
    DecidedOrder,
    Decision,
    EventLevel,
    Holding,
    Intent,
    RuleVerdict,
    SessionStatus,
    SessionSummary,
    Target,
)
from trading_core.execution.session import PollResult, SendResult, SessionPolicy, TradingSession
from trading_core.execution.store import DocumentStore
from trading_core.schema import ActionKind, CorporateAction, Fill, OrderKind, Position, Side
from trading_core.sessions import Sessions

ACCOUNT, STRATEGY, MARKET = "exchange-faults-top2", "top2", "faults"
BUY_RATE = 1.0  # no proportional costs: commissions are cents


@dataclass(frozen=True, slots=True)
class Known:
    """What the market tells a worker: closes before T by symbol, and the corporate actions of T and before."""

    closes: dict[str, float]
    actions: dict[date, tuple[CorporateAction, ...]]
    opening_cash: float
    nights: tuple[date, ...]  # sessions whose actions are in the broker's books
    split_applied: bool  # whether T's are


def decide(day: date, held: dict[str, float], cash: float, known: Known, seed: int) -> tuple[DecidedOrder, ...]:
    """Up to two sells of what is held and two buys of what is not, in whole shares; the same for the same account."""
    dice = random.Random(f"{seed}|{day}")
    sells = dice.sample(sorted(held), min(2, len(held)))
    fresh = sorted(set(known.closes) - set(held))
    buys = dice.sample(fresh, min(2, len(fresh)))
    orders = []
    for symbol in sells:
        part = held[symbol] if dice.random() < 0.6 else max(1.0, held[symbol] // 2)
        orders.append(DecidedOrder(symbol, Side.SELL, part, known.closes[symbol]))
    worth = cash + sum(orders_worth(orders))
    for symbol in buys:
        shares = float(int(worth * dice.uniform(0.2, 0.55) / known.closes[symbol]))
        if shares > 0:
            orders.append(DecidedOrder(symbol, Side.BUY, shares, known.closes[symbol]))
    return tuple(orders)


def orders_worth(orders: Sequence[DecidedOrder]) -> list[float]:
    return [order.quantity * order.reference_price for order in orders]


@dataclass(slots=True)
class Worker:
    """One process that takes steps of session `day`, decided on `decided_on`."""

    store: DocumentStore
    broker: Broker
    sessions: Sessions
    holder: str
    seed: int
    fractional: bool = False
    kind: OrderKind = OrderKind.OPENING

    # --- the steps ----------------------------------------------------------------------------------------------------

    def open(self, day: date, known: Known, now: datetime) -> None:
        """Settles the session before and opens T."""
        with self._leased(day, now) as session:
            session.refuse_when_halted()
            ledger = session.ledger
            ledger.claim_account(ACCOUNT, STRATEGY, MARKET, now)
            ledger.claim_identity(self.broker.identity(), ACCOUNT)
            last = ledger.last_session(ACCOUNT)
            if last is not None and last.session < day:
                self._settle(self._session(ledger, last.session), known, now)
            self._reconcile(session, known, now, before=True)
            decided_on = self.sessions.previous(day)
            ledger.open_session(ACCOUNT, day, decided_on, decided_on, now, "run")

    def check(self, day: date, known: Known, now: datetime) -> None:
        """Only looks whether the account is as the ledger reckons before T."""
        with self._leased(day, now) as session:
            self._reconcile(session, known, now, before=True)

    def decide(self, day: date, known: Known, now: datetime) -> Decision:
        with self._leased(day, now) as session:
            found = session.ledger.get_decision(ACCOUNT, day)
            if found is not None:
                return found
            session.refuse_when_halted()
            state = self.broker.account()
            held = {p.symbol: p.quantity for p in state.positions}
            on_day_before = (
                {s: q / self._ratio(s, day, known) for s, q in held.items()} if known.split_applied else held
            )
            orders = decide(day, on_day_before, state.cash, known, self.seed)
            return session.ledger.freeze_decision(
                _decision(day, self.sessions.previous(day), orders, held, state.cash, now)
            )

    def send(self, day: date, side: Side, known: Known, now: datetime) -> SendResult | None:
        with self._leased(day, now) as session:
            decision = session.ledger.get_decision(ACCOUNT, day)
            state = session.ledger.session_state(ACCOUNT, day)
            if decision is None or state is None or state.status is SessionStatus.SETTLED:
                return None
            orders = [self._restated(o, day, known) for o in decision.orders if o.side is side]
            if side is Side.BUY:
                orders = session.affordable(orders, BUY_RATE, self.fractional)
            return session.send(decision, orders, _gate, now)

    def wait(self, day: date, now: datetime, cancel: bool = False) -> PollResult:
        with self._leased(day, now) as session:
            result = session.poll(now)
            if cancel:
                session.cancel_open(now)
            return result

    def settle(self, day: date, known: Known, now: datetime) -> None:
        with self._leased(day, now) as session:
            self._settle(session, known, now)

    # --- their parts --------------------------------------------------------------------------------------------------

    @contextmanager
    def _leased(self, day: date, now: datetime) -> Iterator[TradingSession]:
        leases = Leases(self.store)
        lease = leases.acquire(ACCOUNT, self.holder, now)
        try:
            yield self._session(Ledger(FencedStore(self.store, leases, lease)), day)
        finally:
            leases.release(lease, now)

    def _session(self, ledger: Ledger, day: date) -> TradingSession:
        return TradingSession(ledger, self.broker, self.sessions, ACCOUNT, day, SessionPolicy(self.kind))

    def _settle(self, session: TradingSession, known: Known, now: datetime) -> None:
        """Closes a session that is over: everything ended, every fill told, positions and cash as reckoned."""
        ledger, day = session.ledger, session.session
        state = ledger.session_state(ACCOUNT, day)
        if state is None or state.status is SessionStatus.SETTLED:
            return
        result = session.poll(now)
        over = now >= self.sessions.close(day) + timedelta(seconds=self.broker.traits.visible_after_s)
        if result.open or session.fills_missing() or not over:
            raise SessionNotSettledError(ACCOUNT, day, day, result.open)
        there = self._reconcile(session, known, now)
        fills = ledger.fills(ACCOUNT, day)
        commission = sum(fill.commission for fill in fills)
        count = len(ledger.orders(ACCOUNT, day))
        positions = tuple(Position(s, q, 1.0) for s, q in sorted(there.positions.items()) if q)
        summary = SessionSummary(there.cash, None, positions, count, len(fills), commission, now)
        ledger.settle_session(ACCOUNT, day, summary)

    def _reconcile(self, session: TradingSession, known: Known, now: datetime, before: bool = False) -> Holdings:
        """What the account holds by the ledger's arithmetic, once the broker's word agrees. `before`: T is not open yet.

        The night after T may have passed already: the broker then has the next session's splits and dividends, too.
        Errors: AccountMismatchError, with an alert in the ledger.
        """
        ledger, day = session.ledger, session.session
        start, since = Holdings({}, known.opening_cash), date.min
        if last := [r.session for r in ledger.sessions(ACCOUNT) if r.session < day]:
            state = ledger.session_state(ACCOUNT, last[-1])
            if state is None or state.summary is None:
                raise SessionNotSettledError(ACCOUNT, day, last[-1], 0)
            start = Holdings({p.symbol: p.quantity for p in state.summary.positions}, state.summary.cash)
            since = last[-1]
        end = self.sessions.previous(day) if before else day
        nights = [night for night in known.nights if night > since]
        fills = [] if before else ledger.fills(ACCOUNT, day)
        wanted = self._after(start, [night for night in nights if night <= end], fills, known)
        by_now = self._after(wanted, [night for night in nights if night > end], (), known)
        if found := differences(by_now, self.broker.account()):
            session.event("mismatch", EventLevel.ALERT, "; ".join(found), now)
            raise AccountMismatchError(ACCOUNT, found)
        return wanted

    def _after(self, start: Holdings, nights: Sequence[date], fills: Sequence[Fill], known: Known) -> Holdings:
        flows = {flow.flow_id: flow for night in nights for flow in self.broker.cash_flows(night)}
        splits = [a for night in nights for a in known.actions[night] if a.kind is ActionKind.SPLIT]
        return expected(start, splits, fills, list(flows.values()))

    def _restated(self, order: DecidedOrder, day: date, known: Known) -> DecidedOrder:
        ratio = self._ratio(order.symbol, day, known) if known.split_applied else 1.0
        return replace(order, quantity=order.quantity * ratio, reference_price=order.reference_price / ratio)

    @staticmethod
    def _ratio(symbol: str, day: date, known: Known) -> float:
        found = [a.value for a in known.actions.get(day, ()) if a.symbol == symbol and a.kind is ActionKind.SPLIT]
        return found[0] if found else 1.0


def _gate(intent: Intent, at: datetime) -> Sequence[RuleVerdict]:
    return ()


def _decision(
    day: date, decided_on: date, orders: tuple[DecidedOrder, ...], held: dict[str, float], cash: float, now: datetime
) -> Decision:
    return Decision(
        decision_id=decision_id(ACCOUNT, day),
        account=ACCOUNT,
        market=MARKET,
        session=day,
        decision_session=decided_on,
        strategy=STRATEGY,
        strategy_hash="0" * 12,
        model="none",
        model_version="1",
        model_digest="0" * 64,
        features_version="none",
        forecasts_version=1,
        run_id="run",
        equity=cash,
        cash=cash,
        targets=tuple(Target(order.symbol, 0.0, None) for order in orders),
        orders=orders,
        held_without_forecast=(),
        rejected=(),
        decided_at=now,
        code_version="test",
        config_hash="0" * 12,
        holdings=tuple(Holding(s, q) for s, q in sorted(held.items())),
    )
