"""What the pre-trade rules of `execution.gates` are told about an order, gathered from ledger, broker, bars and registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from trading_core import config
from trading_core.errors import RiskRejectionError
from trading_core.execution.accounts import AccountKind
from trading_core.execution.broker import QuotingBroker
from trading_core.execution.gate_facts import GateFacts, GateIntent, GateLimits, GateOrder, Scope
from trading_core.execution.gates import age_in_sessions, check_order, refusals
from trading_core.execution.ledger import Ledger
from trading_core.execution.records import Decision, GateRecord, Intent, RuleVerdict
from trading_core.execution.session import Gate
from trading_core.pipelines import settlement
from trading_core.pipelines.account import TradingAccount
from trading_core.pipelines.market_data import LastClose, last_closes
from trading_core.pipelines.strategies import gate_limits, strategy_hash
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import AccountState, OrderStatus

PRICE_SESSIONS = 30  # how far back a last price is looked for: older than any rule allows
BY = "risk rule"


def gate(
    ws: Workspace,
    account: TradingAccount,
    decision: Decision,
    kind: str,
    *,
    flatten: bool = False,
    splits: Mapping[str, float] | None = None,
) -> Gate:
    """The rules as one question per order: its verdicts. What holds for all orders is gathered once, here; the kill switch
    and the orders sent so far are asked before each.

    The last price of a symbol is the broker's last trade where it tells one that is younger than D's close, else that
    close. What is flattened is sold at whatever is paid for it: then it is D's close.

    `splits`: ratios by symbol that took effect since the prices that the orders' reference prices are compared with.
    The answer raises RiskRejectionError for a rule that stops the whole session; the account is halted first where the rule
    pauses trading.
    """
    chosen = config.load_strategy(decision.strategy, ws.settings)
    limits = gate_limits(chosen, decision.strategy)
    state = account.broker.account()
    at_close = settlement.in_shares_of_close(ws, account, decision.session)
    day = decision.decision_session
    prices = last_closes(ws, day, ws.sessions.offset(day, -PRICE_SESSIONS))
    trades = {} if flatten else _trades_since(ws, account, decision)
    base = GateFacts(
        equity=_equity(at_close, prices),
        settled_equities=_settled_equities(account.ledger, account.name, decision),
        decided_config_hash=decision.strategy_hash,
        current_config_hash=strategy_hash(ws, decision.strategy),
        **({} if flatten else _model_facts(ws, decision, kind)),  # type: ignore[arg-type]
    )

    # The account is leased: what is sent meanwhile is sent through this very gate.
    sent = _intents(account, decision, kind)
    # What ended unfilled makes room for an order like it: a flatten after the cancellation of the day's orders.
    ended = frozenset(
        order.intent.client_order_id
        for order in account.ledger.orders(account.name, decision.session)
        if order.status.terminal and order.status is not OrderStatus.FILLED
    )

    def ask(intent: Intent, at: datetime) -> Sequence[RuleVerdict]:
        price = prices.get(intent.symbol)
        ratio = (splits or {}).get(intent.symbol, 1.0)
        halted = account.ledger.halted(account.name)
        facts = replace(
            base,
            now=at,
            halted=halted is not None,
            halt_reason=halted or "",
            last_price=trades.get(intent.symbol, price.close / ratio if price else None),
            position=state.quantity(intent.symbol),
            price_age_sessions=age_in_sessions(ws.sessions, price.session, day) if price else None,
            intents=tuple(sent),
        )
        verdicts = _judge(account, _order(intent, flatten, ended), facts, limits, at)
        if all(verdict.verdict == "approve" for verdict in verdicts):
            sent.append(_gate_intent(intent))
        return verdicts

    return ask


def _trades_since(ws: Workspace, account: TradingAccount, decision: Decision) -> dict[str, float]:
    """Prices by symbol of the broker's last trades after D's close, on T's share basis. Errors: those of a question."""
    if not isinstance(account.broker, QuotingBroker):
        return {}
    closed = ws.sessions.close(decision.decision_session)
    found = account.broker.last_trades([order.symbol for order in decision.orders])
    return {symbol: trade.price for symbol, trade in found.items() if trade.at > closed}


def _judge(
    account: TradingAccount, order: GateOrder, facts: GateFacts, limits: GateLimits, now: datetime
) -> Sequence[RuleVerdict]:
    verdicts = check_order(order, facts, limits)
    against = refusals(verdicts)
    for verdict in against:
        if verdict.pauses and account.ledger.halted(account.name) is None:
            account.ledger.halt(account.name, f"{verdict.rule}: {verdict.reason}", BY, now)
    said = tuple(RuleVerdict(v.rule, "reject" if v.reason is not None else "approve", v.reason or "") for v in verdicts)
    stopped = [f"{v.rule}: {v.reason}" for v in against if v.scope is Scope.SESSION]
    if stopped:
        record = GateRecord(account.name, order.session, order.client_order_id, order.symbol, said, now)
        account.ledger.record_gates(record)
        account.session(order.session).stop("; ".join(stopped), now)
        raise RiskRejectionError(account.name, order.session, stopped)
    return said


def _order(intent: Intent, flatten: bool, ended: frozenset[str]) -> GateOrder:
    return GateOrder(
        client_order_id=intent.client_order_id,
        account=intent.account,
        session=intent.session,
        symbol=intent.symbol,
        side=intent.side,
        quantity=intent.quantity,
        reference_price=intent.reference_price,
        flatten=flatten,
        earlier_attempts=ended,
    )


def _model_facts(ws: Workspace, decision: Decision, kind: str) -> dict[str, int | bool | None]:
    registry = ws.registry()
    version = registry.version(ws.market.id, int(decision.model_version))
    approved = True
    if kind != AccountKind.REPLAY:
        champion = registry.get(ws.market.id, "champion")
        approved = (champion.version, champion.digest) == (version.version, decision.model_digest)
    age = age_in_sessions(ws.sessions, version.cutoff, decision.decision_session)
    return {"model_age_sessions": age, "model_approved": approved}


def _equity(state: AccountState, prices: Mapping[str, LastClose]) -> float | None:
    """Cash plus positions at their last closes; None where one has none: nothing may be concluded from a part."""
    if any(position.symbol not in prices for position in state.positions):
        return None
    return state.cash + sum(position.quantity * prices[position.symbol].close for position in state.positions)


def _settled_equities(ledger: Ledger, account: str, decision: Decision) -> tuple[float, ...]:
    settled = ledger.summaries(account)
    first = ledger.sessions(account)[0].session
    opening = ledger.get_decision(account, first)
    start = opening.equity if opening is not None else decision.equity
    return (start, *(summary.equity if summary.equity is not None else float("nan") for summary in settled))


def _intents(account: TradingAccount, decision: Decision, kind: str) -> list[GateIntent]:
    """Of the session, and, where time passes as on the wall, of the session before."""
    days = [decision.session]
    if kind != AccountKind.REPLAY:
        days += [s.session for s in account.ledger.sessions(account.name) if s.session < decision.session][-1:]
    found = [order.intent for day in days for order in account.ledger.orders(account.name, day)]
    return [_gate_intent(intent) for intent in found]


def _gate_intent(i: Intent) -> GateIntent:
    return GateIntent(i.client_order_id, i.account, i.session, i.symbol, i.side, i.created_at)
