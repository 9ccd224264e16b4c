"""The stored corporate actions as they reach an account: on the session they belong to, or later when they came late."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta

import polars as pl

from trading_core.errors import SessionNotSettledError
from trading_core.execution.broker import SimulatedBroker
from trading_core.execution.records import EventLevel
from trading_core.pipelines.account import TradingAccount
from trading_core.pipelines.workspace import Workspace
from trading_core.portfolio.actions import apply_actions
from trading_core.portfolio.late import AppliedAction, Step, kept_since
from trading_core.schema import CORPORATE_ACTIONS, SESSION, SYMBOL, ActionKind, CorporateAction
from trading_core.storage.tables import Predicate

LATE = "late_action"  # the kind of the ledger's events
LOOK_BACK = timedelta(days=370)  # sources list an event weeks after it, at most a year


def actions_of(ws: Workspace, session: date) -> list[CorporateAction]:
    """Corporate actions that take effect at the start of `session`: dated after the session before it, as the backtest
    takes them too. One of a weekend keeps its date."""
    return _read(ws, ws.sessions.previous(session) + timedelta(days=1), session)


def earlier_actions(ws: Workspace, account: TradingAccount, session: date) -> list[CorporateAction]:
    """All actions, of what the account holds, from its first session (at most LOOK_BACK ago) up to the one before
    `session`."""
    opened, held = account.ledger.sessions(account.name), [p.symbol for p in account.broker.account().positions]
    last = ws.sessions.previous(session)
    if not held or not opened or opened[0].session > last:
        return []
    return _read(ws, max(opened[0].session, session - LOOK_BACK), last, held)


def _read(ws: Workspace, start: date, end: date, symbols: Sequence[str] | None = None) -> list[CorporateAction]:
    found = ws.tables.read(CORPORATE_ACTIONS.name, where=Predicate(start, end)).sort(SYMBOL, SESSION, "kind")
    if symbols is not None:
        found = found.filter(pl.col(SYMBOL).is_in(symbols))
    return [
        CorporateAction(row[SYMBOL], row[SESSION], ActionKind(row["kind"]), row["value"])
        for row in found.iter_rows(named=True)
    ]


def effective_actions(
    ws: Workspace, account: TradingAccount, days: Sequence[date], held: Mapping[str, float]
) -> list[CorporateAction]:
    """What changes the quantities `held` before the sessions `days`, as actions on the whole of each position.

    A simulated broker says what it has applied, so that an action that is stored after it settled a session is not counted
    for that session. On how much a late one takes effect is worked out from the ledger's own past.
    """
    if not isinstance(account.broker, SimulatedBroker):
        return [action for day in days for action in actions_of(ws, day)]
    quantities, found = dict(held), []
    for day in days:
        evening = dict(quantities)
        grown: dict[str, float] = {}  # by late splits: theirs too what was held since before a later action
        for item in account.broker.took_effect(day):
            action, symbol = item.action, item.action.symbol
            if item.late:
                if item.shares != 0.0:
                    shares = _kept(ws, account, action, day, evening.get(symbol, 0.0)) + grown.get(symbol, 0.0)
                    item = replace(item, shares=shares)
                    grown[symbol] = grown.get(symbol, 0.0) + item.after(shares) - shares
                action = item.on_all(quantities.get(symbol, 0.0))
            quantities, _ = apply_actions(quantities, 0.0, [action])
            found.append(replace(action, session=day))
    return found


def _kept(ws: Workspace, account: TradingAccount, action: CorporateAction, day: date, held: float) -> float:
    """How much of what was `held` on the evening before `day` was held since before an action, by the ledger's summaries."""
    before, ratio = 0.0, 1.0
    steps: list[Step] = []
    settled = {record.session for record in account.ledger.sessions(account.name) if record.session < day}
    past = [session for session in sorted(settled) if session < action.session]
    if past:
        before = _summarised(account, past[-1], action.symbol)
    quantity, start = before, ws.sessions.next(past[-1] if past else action.session - timedelta(days=1))
    for session in ws.sessions.between(start, day)[:-1]:
        for item in account.broker.took_effect(session) if isinstance(account.broker, SimulatedBroker) else ():
            if item.action.symbol == action.symbol and item.action.kind is ActionKind.SPLIT and quantity != 0.0:
                ratio, quantity = ratio * item.after(quantity) / quantity, item.after(quantity)
        if session in settled:
            quantity = _summarised(account, session, action.symbol)
            steps.append(Step(ratio, quantity))
            ratio = 1.0
    return kept_since(before, [*steps, Step(ratio, held)])


def _summarised(account: TradingAccount, session: date, symbol: str) -> float:
    """The quantity of a symbol at the end of a settled session."""
    state = account.ledger.session_state(account.name, session)
    if state is None or state.summary is None:
        raise SessionNotSettledError(account.name, session, session, 0)
    return math.fsum(position.quantity for position in state.summary.positions if position.symbol == symbol)


def tell_late(ws: Workspace, account: TradingAccount, session: date) -> None:
    """A warning in the ledger for every late action that took effect in `session`; told again, it is the same one."""
    if not isinstance(account.broker, SimulatedBroker):
        return
    for item in account.broker.took_effect(session):
        if item.late:
            account.session(session).event(LATE, EventLevel.WARNING, _words(item), ws.sessions.open(session))


def _words(item: AppliedAction) -> str:
    action = item.action
    named = f"the {action.kind.value} of {action.symbol} on {action.session} ({action.value:g}) was learned of late"
    if item.shares == 0.0:
        return f"{named}, as another date of one that has had its effect: nothing changes"
    return f"{named}: it took effect on the {item.shares:g} shares held since before it"
