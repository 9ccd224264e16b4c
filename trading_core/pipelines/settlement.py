"""What the market did to an account: fills at the open, corporate actions, reconciliation, the session's report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime

from trading_core.errors import AccountMismatchError, SessionNotSettledError, SessionOrderError
from trading_core.execution.broker import SimulatedBroker
from trading_core.execution.ledger import open_orders
from trading_core.execution.reconciliation import Holdings, differences, expected
from trading_core.execution.records import AdoptionRecord, EventLevel, SessionStatus, SessionSummary
from trading_core.pipelines.account import TradingAccount
from trading_core.pipelines.corporate_actions import actions_of, earlier_actions, effective_actions, tell_late
from trading_core.pipelines.market_data import last_closes, night_before, traded_opens
from trading_core.pipelines.refs import SessionResult, dump
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import BARS, AccountState, ActionKind, CashFlow, Fill, Position
from trading_core.storage.tables import Predicate

OPENING = "the platform"  # who adopts what an account holds before its first session
POSTED_WITHIN = 5  # sessions: so late a broker may post a fee or a dividend of a day


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
        result = settle(ws, account, last.session, "", now)
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
            _settle_broker(ws, account, account.broker, missed)


def settle(ws: Workspace, account: TradingAccount, session: date, kind: str, now: datetime) -> SessionResult:
    """Closes a session whose bar is there: fills, states and the summary go to the ledger. Run again, changes nothing.

    A session whose run stopped before all was decided and sent is left alone where the run can go on (replays, or the
    open is still to come). Where the open was missed, what was sent is all there is.
    """
    ledger, name, trading = account.ledger, account.name, account.session(session)
    state = ledger.session_state(name, session)
    decided = ledger.get_decision(name, session)
    sends = account.kind.sends
    missed = trading.over(now)
    if sends and not missed and trading.unsent(decided):
        return _result(ws, account, session, kind, now)
    closed = _has_bars(ws, session)
    if isinstance(account.broker, SimulatedBroker) and closed:
        _settle_broker(ws, account, account.broker, session)
    foreign = _polled(ws, account, session, now) if sends else ()
    undecided = decided is None and not missed
    open_or_unknown = open_orders(ledger.orders(name, session))
    pending = bool(open_or_unknown) or undecided or not closed or bool(trading.fills_missing())
    if not pending and (state is None or state.status is not SessionStatus.SETTLED):
        wanted = reconcile(ws, account, session, now, foreign) if sends else None
        there = _standing(account, wanted)
        ledger.settle_session(name, session, _summary(ws, account, session, there, now))
    return _result(ws, account, session, kind, now)


def _polled(ws: Workspace, account: TradingAccount, session: date, now: datetime) -> tuple[str, ...]:
    """The ledger brought up to the broker's word; what is still open after the close is cancelled, where that is the policy.

    Returns the ids of orders that were not sent from here.
    """
    trading = account.session(session)
    found = trading.poll(now)
    living_broker = not isinstance(account.broker, SimulatedBroker)
    if found.open and living_broker and account.policy.cancel_leftovers and now >= ws.sessions.close(session):
        trading.cancel_open(now)
        found = trading.poll(now)
    return found.foreign


def _has_bars(ws: Workspace, session: date) -> bool:
    return bool(ws.tables.sessions(BARS.name, Predicate(session, session)))


def _settle_broker(ws: Workspace, account: TradingAccount, broker: SimulatedBroker, session: date) -> None:
    """Tells the broker what the market did, and the ledger which corporate actions came late."""
    night, earlier = night_before(ws, session), earlier_actions(ws, account, session)
    opens, actions = traded_opens(ws, session), actions_of(ws, session)
    broker.settle_open(session, opens, actions, ws.sessions.open(session), night, earlier)
    tell_late(ws, account, session)


def reconcile(
    ws: Workspace, account: TradingAccount, session: date, now: datetime, foreign: Sequence[str] = ()
) -> Holdings | None:
    """The ledger's own arithmetic must give the broker's positions and cash; returns what it gives for the end of `session`.

    Expected: what the last settled session (or a person since) left, through corporate actions and cash flows, plus the
    fills of this session. A broker that lives in the market may by now have restated positions and paid cash of later
    sessions: that is explained too. None where the account has no past to reckon from. Errors: AccountMismatchError.
    """
    adopted = [said for said in account.ledger.adoptions(account.name) if said.session == session]
    wanted = (
        _adopted(adopted[-1])
        if adopted
        else _expected(ws, account, session, session, account.ledger.fills(account.name, session))
    )
    if wanted is None:
        return None
    # What a person has adopted, strangers' orders included, is explained.
    _compare(ws, account, session, now, wanted, _begun_since(ws, account, session, now), () if adopted else foreign)
    return wanted.held


def reconcile_before(ws: Workspace, account: TradingAccount, session: date, now: datetime) -> None:
    """Before T is decided: nothing may have moved at the broker that the ledger cannot explain, and no order may be open
    there that was not sent from here. Errors: AccountMismatchError. A new account is taken as it is, and that is kept."""
    if not account.kind.sends or account.ledger.session_state(account.name, session) is not None:
        return
    before = ws.sessions.previous(session)
    wanted = _expected(ws, account, session, before, ())
    if wanted is None:
        if not isinstance(account.broker, SimulatedBroker):
            adopt(ws, account, before, OPENING, "as it was when its first session was opened", now)
        return
    foreign = [order.order.client_order_id for order in account.broker.open_orders()]
    _compare(ws, account, session, now, wanted, _begun_since(ws, account, before, now), foreign)


def adopt(ws: Workspace, account: TradingAccount, session: date, by: str, reason: str, now: datetime) -> AdoptionRecord:
    """Takes the broker's positions and cash for the truth after `session`, and notes which cash flows are in it already."""
    there = account.broker.account()
    around = [*_still_posting(ws, account, session), *_begun_since(ws, account, session, now)]
    ids = tuple(flow.flow_id for flow in _flows(account, around))
    said = AdoptionRecord(account.name, session, there.positions, there.cash, by, reason, now, ids)
    return account.ledger.adopt(said)


def _begun_since(ws: Workspace, account: TradingAccount, session: date, now: datetime) -> list[date]:
    """The sessions after `session` of which a broker that lives in the market may have restated or paid something by `now`."""
    coming = ws.sessions.next(ws.sessions.last_closed(now))
    if isinstance(account.broker, SimulatedBroker) or coming <= session:
        return []
    return ws.sessions.between(ws.sessions.next(session), coming)


def _still_posting(ws: Workspace, account: TradingAccount, session: date) -> list[date]:
    """The sessions up to `session` of which a broker that lives in the market may still post cash."""
    if isinstance(account.broker, SimulatedBroker):
        return []
    return ws.sessions.between(ws.sessions.offset(session, 1 - POSTED_WITHIN), session)


def _posted_late(ws: Workspace, account: TradingAccount, base: _Base) -> list[CashFlow]:
    """Cash of sessions up to the base's that the broker has posted since: it counts on the session after it."""
    ledger, days = account.ledger, _still_posting(ws, account, base.session)
    known = {flow.flow_id for day in days for flow in ledger.cash_flows(account.name, day)}
    for said in ledger.adoptions(account.name):
        known |= set(said.flows) if said.session <= base.session else set()
    counted_on = ws.sessions.next(base.session)
    return [replace(flow, session=counted_on) for flow in _flows(account, days) if flow.flow_id not in known]


def _flows(account: TradingAccount, days: Sequence[date]) -> list[CashFlow]:
    """What the broker lists of these sessions, each flow once."""
    listed = {flow.flow_id: flow for day in days for flow in account.broker.cash_flows(day)}
    return list(listed.values())


def _compare(
    ws: Workspace,
    account: TradingAccount,
    session: date,
    now: datetime,
    wanted: _Base,
    later: Sequence[date],
    foreign: Sequence[str],
) -> None:
    new = [flow.amount for flow in _flows(account, later) if flow.flow_id not in wanted.flows]
    due = Holdings(wanted.held.positions, math.fsum([wanted.held.cash, *new]))
    overnight = [action for day in later for action in actions_of(ws, day)]
    found = differences(due, account.broker.account(), foreign, overnight)
    if found:
        account.session(session).event("mismatch", EventLevel.ALERT, "; ".join(found), now)
        raise AccountMismatchError(account.name, found)


@dataclass(frozen=True, slots=True)
class _Base:
    """What an account held at the end of `session`. `flows`: ids of cash flows that are in its cash already."""

    session: date
    held: Holdings
    flows: frozenset[str] = frozenset()


def _base(account: TradingAccount, session: date) -> _Base | None:
    """Of the last settled session before `session`, or by a person's word since.

    On a paper account's first session what its decision was made with; None when there is not even that.
    """
    ledger, known = account.ledger, None
    before = [s for s in ledger.sessions(account.name) if s.session < session]
    if before:
        state = ledger.session_state(account.name, before[-1].session)
        if state is None or state.summary is None:
            raise SessionNotSettledError(account.name, session, before[-1].session, 0)
        held = {p.symbol: p.quantity for p in state.summary.positions}
        known = _Base(before[-1].session, Holdings(held, state.summary.cash))
    for said in ledger.adoptions(account.name):
        if said.session < session and (known is None or said.session >= known.session):
            known = _adopted(said)
    decision = ledger.get_decision(account.name, session)
    if known is None and decision is not None:
        held = {h.symbol: h.quantity for h in decision.holdings}
        known = _Base(decision.decision_session, Holdings(held, decision.cash))
    return known


def _adopted(said: AdoptionRecord) -> _Base:
    held = {position.symbol: position.quantity for position in said.positions}
    return _Base(said.session, Holdings(held, said.cash), frozenset(said.flows))


def _expected(
    ws: Workspace, account: TradingAccount, session: date, through: date, fills: Sequence[Fill]
) -> _Base | None:
    """The ledger's arithmetic from what was before `session` up to and including `through`; None without a past. Cash flows
    on the way are recorded."""
    base = _base(account, session)
    if base is None:
        return None
    since = ws.sessions.next(base.session)
    days = ws.sessions.between(since, through) if since <= through else []
    flows = [*_posted_late(ws, account, base), *_flows(account, days)]
    for flow in flows:
        account.ledger.record_cash_flow(account.name, flow)
    new = [flow for flow in flows if flow.flow_id not in base.flows]
    held = expected(base.held, effective_actions(ws, account, days, base.held.positions), fills, new)
    return _Base(through, held, base.flows)


def in_shares_of_close(ws: Workspace, account: TradingAccount, session: date) -> AccountState:
    """What the broker holds, in the shares that D's closes are prices of.

    A broker that lives in the market restates positions for T's splits at some moment of the night: where a position is what
    the ledger expects times the ratio, that has happened, and it is divided by it.
    """
    there, ratios = account.broker.account(), splits_overnight(ws, account, session)
    if not any(position.symbol in ratios for position in there.positions):
        return there
    wanted = _expected(ws, account, session, ws.sessions.previous(session), ())
    held = wanted.held.positions if wanted is not None else {}
    return replace(there, positions=tuple(_unsplit(p, ratios.get(p.symbol, 1.0), held) for p in there.positions))


def _unsplit(position: Position, ratio: float, expected_before: Mapping[str, float]) -> Position:
    before = expected_before.get(position.symbol, 0.0) * ratio
    if ratio == 1.0 or not math.isclose(position.quantity, before, rel_tol=1e-6, abs_tol=1e-6):
        return position
    return Position(position.symbol, position.quantity / ratio, position.average_price * ratio)


def splits_overnight(ws: Workspace, account: TradingAccount, session: date) -> dict[str, float]:
    """Split ratios of `session` by symbol, which a broker that lives in the market has to be told in today's shares."""
    if isinstance(account.broker, SimulatedBroker):
        return {}
    ratios: dict[str, float] = {}
    for action in actions_of(ws, session):
        if action.kind is ActionKind.SPLIT:
            ratios[action.symbol] = ratios.get(action.symbol, 1.0) * action.value
    return ratios


def _standing(account: TradingAccount, wanted: Holdings | None) -> AccountState:
    """What is kept as the account's state at the session's end: of a broker that lives in the market, which may have moved on
    to the next session's shares and cash, what the ledger reckons and the broker has confirmed."""
    there = account.broker.account()
    if wanted is None or isinstance(account.broker, SimulatedBroker):
        return there
    paid = {position.symbol: position for position in there.positions}
    held = []
    for symbol, quantity in sorted(wanted.positions.items()):
        if quantity != 0.0:
            now = paid.get(symbol)
            average = now.average_price * now.quantity / quantity if now is not None else 0.0
            held.append(Position(symbol, quantity, average))
    return AccountState(account.name, wanted.cash, tuple(held))


def _summary(
    ws: Workspace, account: TradingAccount, session: date, state: AccountState, now: datetime
) -> SessionSummary:
    fills = account.ledger.fills(account.name, session)
    return SessionSummary(
        cash=state.cash,
        equity=_equity(ws, state, session),
        positions=state.positions,
        orders=len(account.ledger.orders(account.name, session)),
        fills=len(fills),
        commission=math.fsum(fill.commission for fill in fills),
        settled_at=now,
    )


def _equity(ws: Workspace, state: AccountState, session: date) -> float | None:
    """Cash plus positions at their last known close up to `session`; None when a position has no price at all."""
    held = [position.symbol for position in state.positions]
    prices = last_closes(ws, session, symbols=held) if held else {}
    values = [state.cash]
    for position in state.positions:
        last = prices.get(position.symbol)
        if last is None:
            return None
        values.append(position.quantity * last.close / _splits_since(ws, position.symbol, last.session, session))
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
