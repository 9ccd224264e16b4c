"""What the market did to an account: fills at the open, corporate actions, reconciliation, the session's report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date, datetime

import polars as pl

from trading_core.errors import AccountMismatchError, SessionNotSettledError, SessionOrderError
from trading_core.execution.broker import SimulatedBroker
from trading_core.execution.ledger import open_orders
from trading_core.execution.records import Decision, SessionStatus, SessionSummary
from trading_core.pipelines.account import TradingAccount
from trading_core.pipelines.market_data import night_before, traded_opens
from trading_core.pipelines.quality import seen_that_day
from trading_core.pipelines.refs import SessionResult, dump
from trading_core.pipelines.workspace import Workspace
from trading_core.portfolio.actions import apply_actions
from trading_core.schema import (
    BARS,
    CORPORATE_ACTIONS,
    SESSION,
    SYMBOL,
    ActionKind,
    CorporateAction,
    Fill,
    OrderStatus,
    Side,
)
from trading_core.storage.tables import Predicate

NEVER_SENT = "it had not reached the broker when its session opened"
QUANTITY_TOLERANCE = 1e-9  # shares, relative: float noise of splits


def catch_up(ws: Workspace, account: TradingAccount, session: date, now: datetime, strict: bool = False) -> None:
    """Settles the account's last session and lets the paper book live through the sessions before `session`.

    `strict` (replays): no session between may be missing. Errors: SessionNotSettledError when the last session is not
    over (open or unsent orders, no bar yet), SessionOrderError, AccountMismatchError.
    """
    last = account.ledger.last_session(account.name)
    if last is None or last.session >= session:
        return
    state = account.ledger.session_state(account.name, last.session)
    if state is not None and state.status is not SessionStatus.SETTLED:
        result = settle(ws, account, account.name, last.session, "", now)
        if result.status == "pending":
            waiting = len(open_orders(account.ledger.orders(account.name, last.session)))
            raise SessionNotSettledError(account.name, session, last.session, waiting)
    skipped = ws.sessions.between(last.session, session)[1:-1]
    if strict and skipped:
        # Before the book lives through them: they can still be traded in order.
        reason = f"the session before it, {skipped[-1]}, was not traded on it"
        raise SessionOrderError(account.name, session, last.session, reason)
    if isinstance(account.broker, SimulatedBroker):
        # Sessions nobody traded still split, pay and delist, whether or not a bar of theirs is there.
        for missed in skipped:
            _settle_broker(ws, account.broker, missed)


def settle(ws: Workspace, account: TradingAccount, name: str, session: date, kind: str, now: datetime) -> SessionResult:
    """Closes a session whose bar is there: fills, states and the summary go to the ledger. Run again, changes nothing.

    A session whose run stopped before all was decided and sent is left alone where the run can go on (replays, or the
    open is still to come). Where the open was missed, what was sent is all there is.
    """
    ledger = account.ledger
    state = ledger.session_state(name, session)
    decided = ledger.get_decision(name, session)
    missed = not name.startswith("replay-") and now >= ws.sessions.deadline(session)
    if not missed and _has_unsent(account, decided, session):
        return _result(ws, account, session, kind, now)
    if isinstance(account.broker, SimulatedBroker) and _has_bars(ws, session):
        _settle_broker(ws, account.broker, session)
    for order in account.broker.orders(session):
        ledger.record_order_state(
            name, session, order.order.client_order_id, order.status, now,
            order.filled_quantity, order.average_price, order.reason,
        )  # fmt: skip
    fills = account.broker.fills(session)
    for fill in fills:
        ledger.record_fill(name, fill)
    if missed and _has_bars(ws, session):
        _expire_unsent(account, session, now)
    undecided = decided is None and not missed
    pending = bool(open_orders(ledger.orders(name, session))) or undecided or not _has_bars(ws, session)
    if not pending and (state is None or state.status is not SessionStatus.SETTLED):
        reconcile(ws, account, session, fills)
        ledger.settle_session(name, session, _summary(ws, account, session, fills, now))
    return _result(ws, account, session, kind, now)


def _has_unsent(account: TradingAccount, decided: Decision | None, session: date) -> bool:
    """Whether orders of the decision have not reached the broker."""
    if decided is None:
        return False
    sent = {(state.order.symbol, state.order.side) for state in account.broker.orders(session)}
    return any((order.symbol, order.side) not in sent for order in decided.orders)


def _expire_unsent(account: TradingAccount, session: date, now: datetime) -> None:
    """Ends orders whose intent was written and which the paper broker never got: it can say for certain."""
    if not isinstance(account.broker, SimulatedBroker):
        return
    for order in open_orders(account.ledger.orders(account.name, session)):
        key = order.intent.client_order_id
        if account.broker.order(key) is None:
            account.ledger.record_order_state(account.name, session, key, OrderStatus.EXPIRED, now, reason=NEVER_SENT)


def _has_bars(ws: Workspace, session: date) -> bool:
    return bool(ws.tables.sessions(BARS.name, Predicate(session, session)))


def _settle_broker(ws: Workspace, broker: SimulatedBroker, session: date) -> None:
    night = night_before(ws, session)
    broker.settle_open(session, traded_opens(ws, session), actions_of(ws, session), ws.sessions.open(session), night)


def actions_of(ws: Workspace, session: date) -> list[CorporateAction]:
    """Corporate actions that take effect at the start of `session`."""
    found = ws.tables.read(CORPORATE_ACTIONS.name, where=Predicate(session, session)).sort(SYMBOL, "kind")
    return [
        CorporateAction(row[SYMBOL], row[SESSION], ActionKind(row["kind"]), row["value"])
        for row in found.iter_rows(named=True)
    ]


def reconcile(ws: Workspace, account: TradingAccount, session: date, fills: Sequence[Fill]) -> None:
    """The ledger's own arithmetic must give the broker's positions. Errors: AccountMismatchError.

    Expected: the positions of the last settled session, through the corporate actions since, plus this session's fills.
    """
    before = [s for s in account.ledger.sessions(account.name) if s.session < session]
    held: dict[str, float] = {}
    since = session
    if before:
        state = account.ledger.session_state(account.name, before[-1].session)
        if state is None or state.summary is None:
            raise SessionNotSettledError(account.name, session, before[-1].session, 0)
        held = {p.symbol: p.quantity for p in state.summary.positions}
        since = ws.sessions.next(before[-1].session)
    for day in ws.sessions.between(since, session):
        held, _ = apply_actions(held, 0.0, actions_of(ws, day))
    for fill in fills:
        held[fill.symbol] = held.get(fill.symbol, 0.0) + (fill.quantity if fill.side is Side.BUY else -fill.quantity)
    there = {p.symbol: p.quantity for p in account.broker.account().positions}
    differences = [
        f"{symbol}: the ledger says {held.get(symbol, 0.0):g} shares, the broker {there.get(symbol, 0.0):g}"
        for symbol in sorted({*held, *there})
        if not math.isclose(held.get(symbol, 0.0), there.get(symbol, 0.0), rel_tol=QUANTITY_TOLERANCE, abs_tol=1e-9)
    ]
    if differences:
        raise AccountMismatchError(account.name, differences)


def _summary(
    ws: Workspace, account: TradingAccount, session: date, fills: Sequence[Fill], now: datetime
) -> SessionSummary:
    state = account.broker.account()
    return SessionSummary(
        cash=state.cash,
        equity=_equity(ws, account, session),
        positions=state.positions,
        orders=len(account.ledger.orders(account.name, session)),
        fills=len(fills),
        commission=math.fsum(fill.commission for fill in fills),
        settled_at=now,
    )


def _equity(ws: Workspace, account: TradingAccount, session: date) -> float | None:
    """Cash plus positions at their last known close up to `session`; None when a position has no price at all."""
    state = account.broker.account()
    held = [position.symbol for position in state.positions]
    if not held:
        return state.cash
    bars = ws.tables.read(BARS.name, columns=[SYMBOL, SESSION, "close"], where=Predicate(None, session))
    bars = seen_that_day(ws, bars)
    last = bars.filter(pl.col(SYMBOL).is_in(held)).sort(SESSION).group_by(SYMBOL).agg(pl.col("close", SESSION).last())
    price = {row[SYMBOL]: (row["close"], row[SESSION]) for row in last.iter_rows(named=True)}
    values = [state.cash]
    for position in state.positions:
        if position.symbol not in price:
            return None
        close, known = price[position.symbol]
        values.append(position.quantity * close / _splits_since(ws, position.symbol, known, session))
    return math.fsum(values)


def _splits_since(ws: Workspace, symbol: str, known: date, session: date) -> float:
    """The product of split ratios after `known`, so that an old close is valued in today's shares."""
    if known >= session:
        return 1.0
    days = ws.sessions.between(ws.sessions.next(known), session)
    found = [a for day in days for a in actions_of(ws, day) if a.symbol == symbol and a.kind is ActionKind.SPLIT]
    return math.prod(action.value for action in found)


def _result(ws: Workspace, account: TradingAccount, session: date, kind: str, now: datetime) -> SessionResult:
    """The session as it stands, written as its report."""
    ledger, name = account.ledger, account.name
    decision, state = ledger.get_decision(name, session), ledger.session_state(name, session)
    orders, fills = ledger.orders(name, session), ledger.fills(name, session)
    settled = state is not None and state.status is SessionStatus.SETTLED
    book = account.broker.account()
    equity = state.summary.equity if settled and state and state.summary else decision.equity if decision else book.cash
    path = ws.path("sessions", name, f"{session}.json")
    result = SessionResult(
        account=name,
        kind=kind,
        session=session,
        decision_session=decision.decision_session if decision else ws.sessions.previous(session),
        status="settled" if settled else "pending",
        orders=len(orders),
        fills=len(fills),
        rejected=len(decision.rejected) if decision else 0,
        held_without_forecast=len(decision.held_without_forecast) if decision else 0,
        equity=equity if equity is not None else float("nan"),
        cash=state.summary.cash if settled and state and state.summary else book.cash,
        costs=_costs(ws, session, fills),
        report=path,
    )
    from trading_core.config import canonical_json

    report = {"result": dump(result), "decision": decision, "orders": orders, "fills": fills, "written_at": str(now)}
    ws.store.write_bytes(path, canonical_json(report).encode())
    return result


def _costs(ws: Workspace, session: date, fills: Sequence[Fill]) -> float:
    """Commission plus what spread, slippage and impact took, in currency."""
    opens = traded_opens(ws, session) if fills else {}
    return math.fsum(
        fill.commission + fill.quantity * abs(fill.price - opens.get(fill.symbol, fill.price)) for fill in fills
    )
