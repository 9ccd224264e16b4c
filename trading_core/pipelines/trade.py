"""One trading session, as steps that may each be killed and run again: open, infer, decide, approve, sell, buy, settle.

T is the session traded at its open, D the session before it. The decision is written once; every later step reads it from the
ledger, and an order is sent only after its intent was written. `sell`, `buy` and `settle` therefore change nothing when run
again. Every step takes and returns references only.
"""

from __future__ import annotations

import re
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

from trading_core import config
from trading_core.errors import InvalidConfigError, MarketClosedError, NoDataError, RiskRejectionError, StaleDataError
from trading_core.execution.accounts import AccountChoice, AccountKind, resolve_account
from trading_core.execution.broker import CalendarBroker, SimulatedBroker
from trading_core.execution.ids import decision_id
from trading_core.execution.ledger import Ledger
from trading_core.execution.records import (
    ApprovalRecord,
    DecidedOrder,
    Decision,
    EventLevel,
    Execution,
    Holding,
    SessionStatus,
)
from trading_core.execution.registry import broker_entry
from trading_core.execution.session import FLATTEN
from trading_core.pipelines import deciding, settlement
from trading_core.pipelines import infer as inference
from trading_core.pipelines.account import TradingAccount, leased, open_account
from trading_core.pipelines.deciding import Decided, DecisionInputs
from trading_core.pipelines.digests import rows_digest
from trading_core.pipelines.markets import require_daily
from trading_core.pipelines.pretrade import gate
from trading_core.pipelines.refs import OrdersRef, SessionRef, SessionResult
from trading_core.pipelines.strategies import strategy_hash, strategy_params
from trading_core.pipelines.train import code_version
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import FORECASTS, Side

LIVE_POLICY, REPLAY_POLICY = "champion", "as-of"
BATCH = 20  # orders that are sent by one reading of the clock
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
        mode=ws.settings.trade_mode,
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
    approval: bool = False,
) -> SessionRef:
    """Opens T in the ledger on the right account, after settling what is pending on it.

    Errors: UnknownNameError, NotASessionError, MarketClosedError, StaleDataError (no features of D), TradingHaltedError,
    StrategyConflictError, SessionOrderError, SessionNotSettledError, AccountMismatchError, LeaseHeldError,
    BrokerUnreachableError, LedgerUnreachableError.
    """
    require_daily(ws.market)
    chosen = config.load_strategy(strategy, ws.settings)
    strategy_params(chosen, strategy)
    traded = ws.sessions.require(session or ws.sessions.next(ws.last_session(now)))
    decided = ws.sessions.previous(traded)
    _require_data(ws, decided, now)
    choice = choose_account(ws, strategy, traded, is_backfill=is_backfill, replay=replay, now=now)
    strict = choice.kind is AccountKind.REPLAY
    with leased(ws, choice.account, choice.broker, chosen, f"check of {traded}", now) as account:
        account.session(traded).refuse_when_halted()
        if isinstance(account.broker, CalendarBroker) and not account.broker.trades_on(traded):
            raise MarketClosedError(account.broker.name, traded)
        account.ledger.claim_account(choice.account, strategy, ws.market.id, now)
        if choice.kind.sends:
            account.ledger.claim_identity(account.broker.identity(), choice.account)
        settlement.catch_up(ws, account, traded, now, strict)
        settlement.reconcile_before(ws, account, traded, now)
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
        approval=approval,
    )


def _require_data(ws: Workspace, decided: date, now: datetime) -> None:
    """D must have closed, and its features must be there."""
    stored = inference.feature_sessions(ws)
    if decided > ws.last_session(now) or decided not in stored:
        raise StaleDataError(ws.market.id, decided, stored[-1])


def _account(ws: Workspace, ref: SessionRef) -> TradingAccount:
    """For reading only."""
    return open_account(ws, ref.account, ref.broker, config.load_strategy(ref.strategy, ws.settings))


def _leased(ws: Workspace, ref: SessionRef, step: str, now: datetime) -> AbstractContextManager[TradingAccount]:
    chosen = config.load_strategy(ref.strategy, ws.settings)
    return leased(ws, ref.account, ref.broker, chosen, f"{step} of {ref.session}", now)


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
    if _account(ws, ref).ledger.get_decision(ref.account, ref.session) is not None:
        return ref
    with _leased(ws, ref, "decide", now) as account:
        session = account.session(ref.session)
        session.refuse_when_halted()
        # A task that wakes up late must not decide at a price it could know.
        session.require_window(Side.SELL, now)
        known = _inputs(ws, ref, account)
        frozen = _decision(ws, ref, known, deciding.decide(ws, known), now)
        account.ledger.freeze_decision(frozen)
    return ref


@dataclass(frozen=True, slots=True)
class Question:
    """What a person is asked before anything is sent, and until when an answer is of use. `body` in Markdown."""

    subject: str
    body: str
    orders: int
    until: datetime


def question(ws: Workspace, ref: SessionRef) -> Question:
    """The decision in words. Errors: NoDataError when there is none."""
    account = _account(ws, ref)
    decision = _decided(account, ref)
    rows = [
        f"| {o.side.value} | {o.symbol} | {o.quantity:,.6g} | {o.reference_price:,.2f} | "
        f"{o.quantity * o.reference_price:,.0f} |"
        for o in decision.orders
    ]
    refused = [f"- {r.side.value} {r.quantity:,.6g} {r.symbol}: {r.reason} ({r.rule})" for r in decision.rejected]
    head = f"Account `{ref.account}`, equity {decision.equity:,.0f}, model version {decision.model_version}."
    table = "\n".join(["| | symbol | shares | close | value |", "|---|---|---|---|---|", *rows])
    cut = "\n".join(["Cut by the risk rules:", *refused]) if refused else ""
    end = account.broker.window(account.session(ref.session).kind(Side.SELL), ref.session, ws.sessions).end
    subject = f"Send {len(rows)} orders of {ref.strategy} for {ref.session}?"
    return Question(subject, f"{head}\n\n{table}\n\n{cut}".strip(), len(rows), end)


def approve(ws: Workspace, ref: SessionRef, approved: bool, by: str, note: str, now: datetime) -> bool:
    """Keeps what a person said of the decision, before anything is sent; whether it may be sent. The first word stands."""
    with _leased(ws, ref, "approval", now) as account:
        decision = _decided(account, ref)
        said = ApprovalRecord(ref.account, ref.session, decision.decision_id, approved, by, note, now)
        return account.ledger.record_approval(said).approved


def _first_decision(ledger: Ledger, ref: SessionRef) -> date:
    """The decision session of the account's first decision: a session that was opened and never decided does not count."""
    for opened in ledger.sessions(ref.account):
        if ledger.get_decision(ref.account, opened.session) is not None:
            return opened.decision_session
    return ref.decision_session


def _inputs(ws: Workspace, ref: SessionRef, account: TradingAccount) -> DecisionInputs:
    """What the decision of `ref` is made of, as it is now."""
    state = settlement.in_shares_of_close(ws, account, ref.session)
    return DecisionInputs(
        strategy=ref.strategy,
        session=ref.session,
        decision_session=ref.decision_session,
        model_version=ref.model_version,
        forecasts_version=ref.forecasts_version,
        holdings=tuple(Holding(position.symbol, position.quantity) for position in state.positions),
        cash=state.cash,
        first_decision=_first_decision(account.ledger, ref),
        prices=deciding.newest_prices(ws),
    )


def _decision(ws: Workspace, ref: SessionRef, known: DecisionInputs, decided: Decided, now: datetime) -> Decision:
    """The ledger's record of a decision, with all that made it."""
    forecasts = decided.forecasts
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
        equity=decided.account.equity,
        cash=known.cash,
        targets=decided.targets,
        orders=decided.orders,
        held_without_forecast=decided.held_without_forecast,
        rejected=decided.rejected,
        decided_at=now,
        code_version=code_version(),
        config_hash=config.config_hash(decided.chosen),
        holdings=known.holdings,
        first_decision=known.first_decision,
        bars_version=_or_missing(known.prices.bars),
        actions_version=_or_missing(known.prices.actions),
        quarantine_version=_or_missing(known.prices.quarantine),
        columns_version=decided.columns_version,
        forecasts_digest=rows_digest(forecasts, FORECASTS.key),
        risk=decided.risk,
    )


def _or_missing(version: int | None) -> int:
    return -1 if version is None else version


def sell(ws: Workspace, ref: SessionRef, now: datetime) -> OrdersRef:
    """Sends the decision's sells."""
    return _send(ws, ref, Side.SELL, now)


def buy(ws: Workspace, ref: SessionRef, now: datetime) -> OrdersRef:
    """Sends the decision's buys: at a broker with one auction together with the sells, whose cash it uses; else, once the
    sells have ended, for the cash that is really there."""
    return _send(ws, ref, Side.BUY, now)


def _decided(account: TradingAccount, ref: SessionRef) -> Decision:
    decision = account.ledger.get_decision(ref.account, ref.session)
    if decision is None:
        raise NoDataError(f"Session {ref.session} of '{ref.account}' has no decision", "Run its decide step first.")
    return decision


def _send(ws: Workspace, ref: SessionRef, side: Side, now: datetime) -> OrdersRef:
    with _leased(ws, ref, side.value, now) as account:
        decision = _decided(account, ref)
        orders = [order for order in decision.orders if order.side is side]
        state = account.ledger.session_state(ref.account, ref.session)
        settled = state is not None and state.status is SessionStatus.SETTLED
        if not orders or settled or decision.model == FLATTEN:  # a flatten has sent its orders itself
            return OrdersRef(ref.account, ref.session, side.value, 0, len(orders))
        if not _may_send(account, ref):
            return OrdersRef(ref.account, ref.session, side.value, 0, 0, len(orders))
        return _send_orders(ws, account, ref, decision, orders, now)


def _may_send(account: TradingAccount, ref: SessionRef) -> bool:
    """What a person said, where one is asked. Errors: RiskRejectionError while there is no word."""
    said = account.ledger.approval(ref.account, ref.session)
    if said is None and ref.approval:
        raise RiskRejectionError(
            ref.account, ref.session, ["this run asks for a person's approval, and none is recorded"]
        )
    return said is None or said.approved


def _send_orders(
    ws: Workspace,
    account: TradingAccount,
    ref: SessionRef,
    decision: Decision,
    orders: list[DecidedOrder],
    now: datetime,
) -> OrdersRef:
    session, side = account.session(ref.session), orders[0].side
    splits = settlement.splits_overnight(ws, account, ref.session)
    orders = [restated(order, splits.get(order.symbol, 1.0)) for order in orders]
    rules = gate(ws, account, decision, ref.kind, splits=splits)
    if not AccountKind(ref.kind).sends:
        refused = session.rehearse(decision, orders, rules, now)
        said = f"{len(orders)} {side.value}(s) not sent; the rules would have refused {refused} of them"
        session.event("shadow", EventLevel.INFO, said, now)
        return OrdersRef(ref.account, ref.session, side.value, 0, 0, len(orders))
    if side is Side.BUY:
        fractional = config.load_strategy(ref.strategy, ws.settings).fractional
        orders = session.affordable(orders, ws.costs.rates.buy, fractional)
    sent = known = refused = 0
    started = time.monotonic()
    for first in range(0, len(orders), BATCH):
        # Many orders take minutes: windows are judged, and the lease is kept, by the time it is then.
        # In a replay, and for the first of them, it is the time that was handed in.
        at = now
        if first:
            elapsed = timedelta(seconds=time.monotonic() - started)
            account.keep(now + elapsed)
            at = now if account.policy.replay else now + elapsed
        done = session.send(decision, orders[first : first + BATCH], rules, at)
        sent, known, refused = sent + done.sent, known + done.known, refused + done.refused
    return OrdersRef(ref.account, ref.session, side.value, sent, known, refused)


def restated(order: DecidedOrder, ratio: float) -> DecidedOrder:
    """An order sized on D's shares, in T's: brokers that live in the market are told what is traded there now."""
    if ratio == 1.0:
        return order
    return DecidedOrder(order.symbol, order.side, order.quantity * ratio, order.reference_price / ratio)


def waiting(ws: Workspace, ref: SessionRef, which: str, now: datetime) -> int:
    """How many orders of a side (sell, buy) may still fill, after asking the broker.

    Those of a simulated market fill when its bars are there: nothing is waited for.
    """
    side = Side(which)
    with _leased(ws, ref, f"wait for {which}s", now) as account:
        if isinstance(account.broker, SimulatedBroker) or not AccountKind(ref.kind).sends:
            return 0
        session = account.session(ref.session)
        session.poll(now)
        late = not account.policy.replay and now >= ws.sessions.close(ref.session)
        if late and account.policy.cancel_leftovers:
            session.cancel_open(now, side)
        mine = account.ledger.orders(ref.account, ref.session)
        return sum(order.intent.side is side and not order.status.terminal for order in mine)


def settle(ws: Workspace, ref: SessionRef, now: datetime) -> SessionResult:
    """Fills the session where its bar is there, reconciles, records and reports; else leaves the orders pending."""
    with _leased(ws, ref, "settle", now) as account:
        return settlement.settle(ws, account, ref.session, ref.kind, now)


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
