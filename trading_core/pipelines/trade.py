"""One trading session, as steps that may each be killed and run again: open -> infer -> decide -> sell -> buy -> settle.

T is the session traded at its open, D the session before it. The decision is written once; every later step reads it from the
ledger, and an order is sent only after its intent was written. `sell`, `buy` and `settle` therefore change nothing when run
again. Every step takes and returns references only.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import date, datetime
from typing import Any

import polars as pl

from trading_core import config
from trading_core.backtest.data import ForecastPanel
from trading_core.backtest.engine import view_of
from trading_core.config import StrategyConfig
from trading_core.errors import (
    DuplicateOrderError,
    InvalidConfigError,
    LedgerUnreachableError,
    NoDataError,
    OrderWindowClosedError,
    StaleDataError,
    TradingHaltedError,
)
from trading_core.execution.accounts import AccountChoice, AccountKind, resolve_account
from trading_core.execution.ids import client_order_id, decision_id
from trading_core.execution.ledger import Ledger
from trading_core.execution.records import DecidedOrder, Decision, Execution, Intent, Rejection, SessionStatus, Target
from trading_core.execution.registry import broker_entry
from trading_core.pipelines import infer as inference
from trading_core.pipelines import settlement
from trading_core.pipelines.account import TradingAccount, open_account
from trading_core.pipelines.market_data import load_market_data, load_strategy_columns
from trading_core.pipelines.markets import require_daily
from trading_core.pipelines.refs import OrdersRef, SessionRef, SessionResult
from trading_core.pipelines.strategies import build_strategy, require_horizon, risk_limits, strategy_params
from trading_core.pipelines.train import code_version
from trading_core.pipelines.workspace import Workspace
from trading_core.portfolio.decision import AccountWeights, value_account
from trading_core.portfolio.decision import Decision as PortfolioDecision
from trading_core.portfolio.decision import decide as portfolio_decide
from trading_core.schema import FORECASTS, Order, OrderStatus, Side
from trading_core.storage.tables import Predicate

LIVE_POLICY, REPLAY_POLICY = "champion", "as-of"
FLATTEN = "flatten"  # the label of orders, and the model of decisions, that close an account by hand
REPLAY_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


def why_not_now(ws: Workspace, session: date, now: datetime) -> str:
    """Why a scheduled run must not trade `session`, as a sentence; empty when it may."""
    before = ws.sessions.previous(session)
    end = ws.market.history_end
    if end and before > end:
        return f"Market '{ws.market.id}' ends at {end}: there is no bar of {before} to decide with."
    if not ws.sessions.tradable(session, now):
        return f"The open of {session} is not the next one any more: a missed session is not traded late."
    return ""


def strategy_hash(ws: Workspace, strategy: str) -> str:
    """Of everything that makes a strategy's orders: its config and the market's costs."""
    return config.config_hash([config.load_strategy(strategy, ws.settings), ws.market.costs])


def choose_account(
    ws: Workspace, strategy: str, session: date, *, is_backfill: bool, replay: str | None, now: datetime
) -> AccountChoice:
    """The account a run of `session` trades on: code decides, not configuration (see execution.accounts)."""
    if replay is not None and not REPLAY_NAME.fullmatch(replay):
        raise InvalidConfigError("The replay name", [f"'{replay}': give 1 to 31 of a-z, 0-9 and '-', not '-' first"])
    broker = broker_entry(ws.settings.broker)
    return resolve_account(
        market=ws.market.id,
        strategy=strategy,
        strategy_hash=strategy_hash(ws, strategy),
        model_policy=REPLAY_POLICY,
        tradable_now=ws.sessions.tradable(session, now),
        is_backfill=is_backfill,
        broker_name=ws.settings.broker,
        broker_is_real=broker.real,
        replay_name=replay,
    )


def open_session(
    ws: Workspace,
    *,
    strategy: str,
    session: date | None,
    is_backfill: bool,
    replay: str | None,
    run_id: str,
    now: datetime,
) -> SessionRef:
    """Opens T in the ledger on the right account, after settling what is pending on it.

    Errors: UnknownNameError, NotASessionError, StaleDataError (no features of D), TradingHaltedError,
    StrategyConflictError, SessionOrderError, SessionNotSettledError, AccountMismatchError, LedgerUnreachableError.
    """
    require_daily(ws.market)
    chosen = config.load_strategy(strategy, ws.settings)
    strategy_params(chosen, strategy)
    traded = ws.sessions.require(session or ws.sessions.next(ws.last_session(now)))
    decided = ws.sessions.previous(traded)
    _require_data(ws, decided, now)
    choice = choose_account(ws, strategy, traded, is_backfill=is_backfill, replay=replay, now=now)
    account = open_account(ws, choice.account, choice.broker, chosen)
    _refuse_when_halted(account.ledger, choice.account)
    strict = choice.kind is AccountKind.REPLAY
    account.ledger.claim_account(choice.account, strategy, ws.market.id, now)
    settlement.catch_up(ws, account, traded, now, strict)
    account.ledger.open_session(choice.account, traded, decided, decided, now, run_id, strict=strict)
    return SessionRef(
        market=ws.market.id,
        account=choice.account,
        kind=choice.kind.value,
        broker=choice.broker,
        strategy=strategy,
        session=traded,
        decision_session=decided,
        run_id=run_id,
    )


def _require_data(ws: Workspace, decided: date, now: datetime) -> None:
    """D must have closed, and its features must be there."""
    stored = inference.feature_sessions(ws)
    if decided > ws.last_session(now) or decided not in stored:
        raise StaleDataError(ws.market.id, decided, stored[-1])


def _refuse_when_halted(ledger: Ledger, account: str) -> None:
    reason = ledger.halted(account)
    if reason is not None:
        raise TradingHaltedError(account, reason)


def _refuse_after_open(ws: Workspace, ref: SessionRef, now: datetime) -> None:
    """A live decision or order belongs before the open; a task that wakes up late must not trade a price it could know."""
    if ref.kind != AccountKind.REPLAY and now >= ws.sessions.deadline(ref.session):
        raise OrderWindowClosedError(ref.account, ref.session, ws.sessions.open(ref.session))


def _account(ws: Workspace, ref: SessionRef) -> TradingAccount:
    return open_account(ws, ref.account, ref.broker, config.load_strategy(ref.strategy, ws.settings))


def infer(ws: Workspace, ref: SessionRef, now: datetime) -> SessionRef:
    """Makes sure the forecasts of D are stored; the model is the champion live, and the newest one of that day in a replay.

    A session that is decided already keeps the model of its decision.
    """
    known = _account(ws, ref).ledger.get_decision(ref.account, ref.session)
    if known is not None:
        return replace(
            ref,
            model=known.model,
            model_version=known.model_version,
            model_digest=known.model_digest,
            forecasts_version=known.forecasts_version,
        )
    registry = ws.registry()
    if ref.kind == AccountKind.REPLAY:
        version = registry.resolve(ws.market.id, ref.decision_session)
    else:
        version = registry.get(ws.market.id, LIVE_POLICY)
    day = ref.decision_session
    made = inference.infer_with(ws, version, start=day, end=day, run_id=ref.run_id)
    return replace(
        ref,
        model=made.model,
        model_version=made.model_version,
        model_digest=version.digest,
        forecasts_version=made.table_version,
    )


def decide(ws: Workspace, ref: SessionRef, now: datetime) -> SessionRef:
    """Targets and orders from what was known at D's close, checked by the risk rules, frozen in the ledger."""
    account = _account(ws, ref)
    if account.ledger.get_decision(ref.account, ref.session) is not None:
        return ref
    _refuse_when_halted(account.ledger, ref.account)
    _refuse_after_open(ws, ref, now)
    chosen = config.load_strategy(ref.strategy, ws.settings)
    data, _, _ = load_market_data(ws, ref.decision_session)
    d = len(data.sessions) - 1
    if data.sessions[d] != ref.decision_session:
        raise StaleDataError(ws.market.id, ref.decision_session, data.sessions[d])
    forecasts = _stored_forecasts(ws, ref)
    require_horizon(ws, ref.strategy, chosen, forecasts)
    panel = ForecastPanel.from_frame(forecasts, chosen.horizon, data.symbols, data.sessions)
    state = account.broker.account()
    holdings = {position.symbol: position.quantity for position in state.positions}
    valued = value_account(data.symbols, holdings, state.cash, data.marks[d])
    first = _first_decision(account.ledger, ref)
    strategy = build_strategy(
        ws, chosen, ref.strategy, lambda: ws.registry().version(ws.market.id, int(ref.model_version))
    )
    day = ref.decision_session
    columns = load_strategy_columns(ws, strategy, data, day, day)
    view = view_of(data, panel, strategy, valued, d, ref.session, d - data.first_at_or_after(first), columns)
    made = portfolio_decide(
        ref.strategy, strategy, view, valued, data.marks[d], ws.costs,
        chosen.fractional, chosen.min_order_notional, risk_limits(chosen),
    )  # fmt: skip
    frozen = _decision(ws, ref, chosen, forecasts, data.symbols, panel.score[d], valued, state.cash, made, now)
    account.ledger.freeze_decision(frozen)
    return ref


def _first_decision(ledger: Ledger, ref: SessionRef) -> date:
    """The decision session of the account's first decision: a session that was opened and never decided does not count."""
    for opened in ledger.sessions(ref.account):
        if ledger.get_decision(ref.account, opened.session) is not None:
            return opened.decision_session
    return ref.decision_session


def _stored_forecasts(ws: Workspace, ref: SessionRef) -> pl.DataFrame:
    where = Predicate(ref.decision_session, ref.decision_session, {"model_version": ref.model_version})
    found = ws.tables.read(FORECASTS.name, where=where, version=ref.forecasts_version)
    if found.is_empty():
        raise NoDataError(
            f"There are no forecasts of session {ref.decision_session} by model version {ref.model_version}",
            "Run the infer step (or `trading predict`) for it first.",
        )
    return found


def _decision(
    ws: Workspace,
    ref: SessionRef,
    chosen: StrategyConfig,
    forecasts: pl.DataFrame,
    symbols: tuple[str, ...],
    score: Any,
    valued: AccountWeights,
    cash: float,
    made: PortfolioDecision,
    now: datetime,
) -> Decision:
    """The ledger's record of a decision, with all that made it."""
    kept = [s for s in range(len(symbols)) if made.targets[s] != 0 or valued.quantities[s] != 0]
    return Decision(
        decision_id=decision_id(ref.account, ref.session),
        account=ref.account,
        market=ws.market.id,
        session=ref.session,
        decision_session=ref.decision_session,
        strategy=ref.strategy,
        strategy_hash=strategy_hash(ws, ref.strategy),
        model=ref.model,
        model_version=ref.model_version,
        model_digest=ref.model_digest,
        features_version=str(forecasts["features_version"][0]),
        forecasts_version=ref.forecasts_version,
        run_id=str(forecasts["run_id"][0]),
        equity=valued.equity,
        cash=cash,
        targets=tuple(
            Target(symbols[s], float(made.targets[s]), float(score[s]) if score[s] == score[s] else None) for s in kept
        ),
        orders=tuple(DecidedOrder(o.symbol, o.side, o.quantity, o.reference_price) for o in made.orders),
        held_without_forecast=tuple(symbols[s] for s in kept if valued.quantities[s] != 0 and score[s] != score[s]),
        rejected=tuple(
            Rejection(v.order.symbol, v.order.side, v.order.quantity - v.quantity, v.rule, v.reason)
            for v in made.verdicts
            if v.verdict != "approve"
        ),
        decided_at=now,
        code_version=code_version(),
        config_hash=config.config_hash(chosen),
    )


def sell(ws: Workspace, ref: SessionRef, now: datetime) -> OrdersRef:
    """Sends the decision's sells."""
    return _send(ws, ref, Side.SELL, now)


def buy(ws: Workspace, ref: SessionRef, now: datetime) -> OrdersRef:
    """Sends the decision's buys; at the open they fill with the cash that is there after the sells."""
    return _send(ws, ref, Side.BUY, now)


def _send(ws: Workspace, ref: SessionRef, side: Side, now: datetime) -> OrdersRef:
    account = _account(ws, ref)
    decision = account.ledger.get_decision(ref.account, ref.session)
    if decision is None:
        raise NoDataError(f"Session {ref.session} of '{ref.account}' has no decision", "Run its decide step first.")
    orders = [order for order in decision.orders if order.side is side]
    state = account.ledger.session_state(ref.account, ref.session)
    settled = state is not None and state.status is SessionStatus.SETTLED
    if not orders or settled or decision.model == FLATTEN:  # a flatten has sent its orders itself
        return OrdersRef(ref.account, ref.session, side.value, 0, len(orders))
    _refuse_after_open(ws, ref, now)
    submitted = sum(send_order(account, decision, order, now) for order in orders)
    return OrdersRef(ref.account, ref.session, side.value, submitted, len(orders) - submitted)


def send_order(
    account: TradingAccount, decision: Decision, order: DecidedOrder, now: datetime, label: str | None = None
) -> bool:
    """Intent first, then the order; False when the broker had it already.

    The kill switch is asked before every order (`label` marks the orders of a flatten, which it does not stop). An
    answer that is no answer makes the order UNKNOWN: only the broker's word for that id may resolve it.
    """
    if label is None:
        _refuse_when_halted(account.ledger, decision.account)
    strategy = label or decision.strategy
    key = client_order_id(decision.account, strategy, decision.session, order.symbol, order.side)
    account.ledger.record_intent(
        Intent(
            client_order_id=key,
            account=decision.account,
            session=decision.session,
            strategy=strategy,
            symbol=order.symbol,
            side=order.side,
            quantity=order.quantity,
            reference_price=order.reference_price,
            attempt=1,
            decision_id=decision.decision_id,
            created_at=now,
        )
    )

    def record(status: OrderStatus, reason: str = "") -> None:
        account.ledger.record_order_state(decision.account, decision.session, key, status, now, reason=reason)

    known = account.broker.order(key)
    if known is not None:
        if not known.status.terminal:
            record(known.status)
        return False
    record(OrderStatus.SUBMITTING)
    sent = Order(key, order.symbol, order.side, order.quantity, decision.session, order.reference_price)
    try:
        answer = account.broker.submit(sent)
    except DuplicateOrderError:
        return False  # another worker was faster; settle reads the broker's word
    except (LedgerUnreachableError, OSError) as error:
        record(OrderStatus.UNKNOWN, reason=f"no clear answer: {error}")
        raise
    record(answer.status, answer.reason)
    return True


def settle(ws: Workspace, ref: SessionRef, now: datetime) -> SessionResult:
    """Fills the session where its bar is there, reconciles, records and reports; else leaves the orders pending."""
    return settlement.settle(ws, _account(ws, ref), ref.account, ref.session, ref.kind, now)


def run(
    ws: Workspace,
    *,
    strategy: str,
    session: date | None,
    is_backfill: bool,
    replay: str | None,
    run_id: str,
    now: datetime,
) -> SessionResult:
    """All steps in one process: what `trading trade` does."""
    ref = open_session(
        ws, strategy=strategy, session=session, is_backfill=is_backfill, replay=replay, run_id=run_id, now=now
    )
    ref = decide(ws, infer(ws, ref, now), now)
    sell(ws, ref, now)
    buy(ws, ref, now)
    return settle(ws, ref, now)


def executions(ws: Workspace, account: str | None = None, session: date | None = None) -> list[Execution]:
    """Every fill of the market (of one account, one session) with what made it. Errors: UnknownNameError."""
    ledger = Ledger(ws.ledger_store())
    return ledger.executions(account=account, market=ws.market.id, start=session, end=session)
