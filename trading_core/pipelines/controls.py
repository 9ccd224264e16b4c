"""The kill switch and what belongs to it: halt, resume, flatten, settle. What `controls` and the commands call."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from trading_core import config
from trading_core.errors import (
    FlattenRefusedError,
    ResolveRefusedError,
    SessionNotSettledError,
    SessionOrderError,
    UnknownNameError,
)
from trading_core.execution.accounts import PAPER, AccountKind, kind_of
from trading_core.execution.ids import decision_id
from trading_core.execution.ledger import ALL_ACCOUNTS, Ledger, open_orders
from trading_core.execution.records import (
    AccountRecord,
    DecidedOrder,
    Decision,
    EventLevel,
    SessionStatus,
    Target,
)
from trading_core.execution.registry import BROKERS
from trading_core.execution.session import FLATTEN
from trading_core.pipelines import refs, settlement
from trading_core.pipelines.account import TradingAccount, leased
from trading_core.pipelines.market_data import last_closes
from trading_core.pipelines.pretrade import gate
from trading_core.pipelines.strategies import strategy_hash
from trading_core.pipelines.train import code_version
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import OrderStatus, Side

ACTIONS = ("halt", "resume", "flatten", "settle", "adopt")


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
    if action == "flatten":
        if kind_of(account) in (AccountKind.REPLAY, AccountKind.SHADOW):
            raise FlattenRefusedError(account, "it is a replay or a shadow: there is nothing of its own at a broker")
        # Before anything else: whoever is about to send must find the halt.
        ledger.halt(account, f"flatten: {reason}", by, now)
    chosen = config.load_strategy(owner.strategy, ws.settings)
    with leased(ws, account, broker_of(account), chosen, f"{action} by {by}", now) as opened:
        if action == "flatten":
            done = _flatten(ws, opened, owner, now)
        elif action == "adopt":
            done = _adopt(ws, opened, reason, by, now)
        else:
            done = _settle(ws, opened, now)
    return {"action": action, "account": account, **done}


def resolve(ws: Workspace, order_id: str, reason: str, *, by: str, now: datetime) -> dict[str, Any]:
    """Ends an order that stayed UNKNOWN, by a person who has looked it up at the broker: it never arrived there.

    The broker is asked once more. Errors: UnknownNameError (no such open order), ResolveRefusedError (the broker knows it).
    """
    ledger = Ledger(ws.ledger_store())
    known = {
        order.intent.client_order_id: order.intent
        for owner in ledger.accounts(ws.market.id)
        for opened in ledger.sessions(owner.account)[-2:]
        for order in open_orders(ledger.orders(owner.account, opened.session))
    }
    if order_id not in known:
        raise UnknownNameError("open order", order_id, sorted(known))
    intent = known[order_id]
    chosen = config.load_strategy(_owner(ledger, ws, intent.account).strategy, ws.settings)
    with leased(ws, intent.account, broker_of(intent.account), chosen, f"resolve by {by}", now) as account:
        found = account.broker.order(order_id)
        if found is not None:
            account.session(intent.session).poll(now)
            raise ResolveRefusedError(order_id, found.status.value)
        said = f"resolved by {by}: it never reached the broker ({reason})"
        account.ledger.record_order_state(
            intent.account, intent.session, order_id, OrderStatus.EXPIRED, now, reason=said
        )
    return {"action": "resolve", "order": order_id, "account": intent.account, "status": OrderStatus.EXPIRED.value}


def broker_of(account: str) -> str:
    """The broker an account is at: its id begins with the name; a shadow's says it next; replays and dry runs are on paper."""
    rest = account.removeprefix("shadow-")
    found = [name for name in BROKERS if rest.startswith(f"{name}-")]
    return max(found, key=len, default=PAPER)


def _settle(ws: Workspace, account: TradingAccount, now: datetime) -> dict[str, Any]:
    last = account.ledger.last_session(account.name)
    if last is None:
        return {"status": "no session yet"}
    return refs.dump(settlement.settle(ws, account, last.session, "", now))


def _adopt(ws: Workspace, account: TradingAccount, reason: str, by: str, now: datetime) -> dict[str, Any]:
    """Takes the broker's positions and cash for the truth, after a mismatch that a person has looked into."""
    last = account.ledger.last_session(account.name)
    state = account.ledger.session_state(account.name, last.session) if last is not None else None
    closed = ws.sessions.last_closed(now)
    unsettled = state is not None and state.status is not SessionStatus.SETTLED
    session = state.record.session if state is not None and unsettled else closed
    said = settlement.adopt(ws, account, session, by, reason, now)
    account.session(session).event("adopted", EventLevel.WARNING, f"{by}: {reason}", now)
    return {"session": str(session), "positions": len(said.positions), "cash": said.cash, "reason": reason}


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
    trading, last = account.session(session), account.ledger.last_session(account.name)
    if last is not None and last.session > session:
        raise SessionOrderError(account.name, session, last.session, "a later session was already traded on it")
    canceled = 0
    if last is not None and last.session == session:
        canceled = trading.cancel_open(now, but=FLATTEN)  # run again, a flatten leaves its own orders alone
        trading.poll(now)
    else:
        _catch_up(ws, account, session, now)
        decided = ws.sessions.previous(session)
        account.ledger.open_session(account.name, session, decided, decided, now, f"{FLATTEN}-{now:%Y%m%dT%H%M%S}")
    decision = account.ledger.freeze_decision(_decision(ws, account, owner, session, now))
    state = account.ledger.session_state(account.name, session)
    if state is not None and state.status is SessionStatus.SETTLED:
        return {"session": str(session), "canceled": canceled, "sells": 0, "note": "the session is settled already"}
    rules = gate(ws, account, decision, "", flatten=True)
    sent = trading.send(decision, _closing(ws, account, session), rules, now, flatten=FLATTEN).sent
    result = settlement.settle(ws, account, session, "", now)
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
    held = account.broker.account().positions
    prices = last_closes(ws, ws.sessions.previous(session), symbols=[position.symbol for position in held])
    return [
        DecidedOrder(
            position.symbol,
            Side.SELL if position.quantity > 0 else Side.BUY,
            abs(position.quantity),
            prices[position.symbol].close if position.symbol in prices else position.average_price,
        )
        for position in held
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
