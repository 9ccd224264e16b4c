"""The kill switch and what belongs to it: halt, resume, flatten, settle. What `controls` and the commands call."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from trading_core import config
from trading_core.errors import FlattenRefusedError, SessionNotSettledError, SessionOrderError, UnknownNameError
from trading_core.execution.accounts import PAPER
from trading_core.execution.ids import decision_id
from trading_core.execution.ledger import ALL_ACCOUNTS, Ledger, open_orders
from trading_core.execution.records import AccountRecord, DecidedOrder, Decision, SessionStatus, Target
from trading_core.execution.registry import BROKERS
from trading_core.pipelines import refs, settlement
from trading_core.pipelines.account import TradingAccount, open_account
from trading_core.pipelines.trade import FLATTEN, send_order, strategy_hash
from trading_core.pipelines.train import code_version
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import BARS, SYMBOL, Side
from trading_core.storage.tables import Predicate

ACTIONS = ("halt", "resume", "flatten", "settle")


def act(ws: Workspace, action: str, account: str, reason: str, *, by: str, now: datetime) -> dict[str, Any]:
    """Carries out one action and says what was done. Errors: UnknownNameError, LedgerUnreachableError."""
    if action not in ACTIONS:
        raise UnknownNameError("action", action, ACTIONS)
    ledger = Ledger(ws.ledger_store())
    if action == "halt":
        ledger.halt(account, reason, by, now)
        return {"action": action, "account": account, "halted": True, "reason": reason}
    if action == "resume":
        ledger.resume(account, by, now, reason)
        return {"action": action, "account": account, "halted": ledger.halted(account) is not None, "reason": reason}
    owner = _owner(ledger, ws, account)
    opened = open_account(ws, account, _broker_of(account), config.load_strategy(owner.strategy, ws.settings))
    if action == "settle":
        last = ledger.last_session(account)
        if last is None:
            return {"action": action, "account": account, "status": "no session yet"}
        done = settlement.settle(ws, opened, account, last.session, "", now)
        return {"action": action, "account": account, **refs.dump(done)}
    if account.startswith("replay-"):
        raise FlattenRefusedError(account, "it is a replay; its positions are history on paper")
    ledger.halt(account, f"flatten: {reason}", by, now)
    return {"action": action, "account": account, **_flatten(ws, opened, owner, now)}


def _broker_of(account: str) -> str:
    """The broker an account was opened at: its id begins with the name; replays and dry runs are on paper."""
    name = account.split("-", 1)[0]
    return name if name in BROKERS else PAPER


def _owner(ledger: Ledger, ws: Workspace, account: str) -> AccountRecord:
    known = {record.account: record for record in ledger.accounts(ws.market.id)}
    if account == ALL_ACCOUNTS or account not in known:
        raise UnknownNameError("account", account, sorted(known))
    return known[account]


def _flatten(ws: Workspace, account: TradingAccount, owner: AccountRecord, now: datetime) -> dict[str, Any]:
    """Cancels pending orders of the coming session and closes every position at its open: sells it, or buys back a short."""
    session = ws.sessions.next(ws.sessions.last_closed(now))
    if not ws.sessions.tradable(session, now):
        session = ws.sessions.next(session)
    last = account.ledger.last_session(account.name)
    if last is not None and last.session > session:
        raise SessionOrderError(account.name, session, last.session, "a later session was already traded on it")
    canceled = 0
    if last is not None and last.session == session:
        for order in open_orders(account.ledger.orders(account.name, session)):
            reached = account.broker.order(order.intent.client_order_id) is not None  # else a run died before
            if reached and order.intent.strategy != FLATTEN:  # run again, a flatten leaves its own sells alone
                account.broker.cancel(order.intent.client_order_id)
                canceled += 1
    else:
        _catch_up(ws, account, session, now)
        decided = ws.sessions.previous(session)
        account.ledger.open_session(account.name, session, decided, decided, now, f"{FLATTEN}-{now:%Y%m%dT%H%M%S}")
    decision = account.ledger.freeze_decision(_decision(ws, account, owner, session, now))
    state = account.ledger.session_state(account.name, session)
    if state is not None and state.status is SessionStatus.SETTLED:
        return {"session": str(session), "canceled": canceled, "sells": 0, "note": "the session is settled already"}
    sells = _closing(ws, account, session)
    sent = sum(send_order(account, decision, order, now, label=FLATTEN) for order in sells)
    result = settlement.settle(ws, account, account.name, session, "", now)
    return {"session": str(session), "canceled": canceled, "sells": sent, "status": result.status}


def _catch_up(ws: Workspace, account: TradingAccount, session: date, now: datetime) -> None:
    """Settles what came before; while a session is being traded that cannot be done yet."""
    try:
        settlement.catch_up(ws, account, session, now)
    except SessionNotSettledError as error:
        close = ws.sessions.close(error.unsettled)
        reason = (
            f"its session {error.unsettled} is not settled; its bars come after {close:%Y-%m-%d %H:%M} UTC. The account is "
            "halted; flatten it again then"
        )
        raise FlattenRefusedError(account.name, reason) from error


def _closing(ws: Workspace, account: TradingAccount, session: date) -> list[DecidedOrder]:
    bars = ws.tables.read(
        BARS.name, columns=[SYMBOL, "session", "close"], where=Predicate(None, ws.sessions.previous(session))
    )
    close = {row[SYMBOL]: row["close"] for row in bars.sort("session").iter_rows(named=True)}
    return [
        DecidedOrder(
            position.symbol,
            Side.SELL if position.quantity > 0 else Side.BUY,
            abs(position.quantity),
            close.get(position.symbol, position.average_price),
        )
        for position in account.broker.account().positions
    ]


def _decision(ws: Workspace, account: TradingAccount, owner: AccountRecord, session: date, now: datetime) -> Decision:
    """The decision to hold nothing; if the session was decided before, the ledger keeps that one."""
    state = account.broker.account()
    return Decision(
        decision_id=decision_id(account.name, session),
        account=account.name,
        market=ws.market.id,
        session=session,
        decision_session=ws.sessions.previous(session),
        strategy=owner.strategy,
        strategy_hash=strategy_hash(ws, owner.strategy),
        model=FLATTEN,
        model_version="",
        model_digest="",
        features_version="",
        forecasts_version=-1,
        run_id=FLATTEN,
        equity=state.cash,
        cash=state.cash,
        targets=tuple(Target(position.symbol, 0.0, None) for position in state.positions),
        orders=tuple(_closing(ws, account, session)),
        held_without_forecast=(),
        rejected=(),
        decided_at=now,
        code_version=code_version(),
        config_hash=config.config_hash([]),
    )
