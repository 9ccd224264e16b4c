"""Everything that a session's page is made of, read once: from the ledger, and the tables at the versions the decision cites.

Reads nothing after the session: written again later, with the same ledger, the page says the same.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from trading_core import config
from trading_core.backtest.data import MarketData
from trading_core.errors import UnknownNameError
from trading_core.execution.lease import LeaseRecord, Leases
from trading_core.execution.ledger import ALL_ACCOUNTS, Ledger
from trading_core.execution.records import (
    AdoptionRecord,
    ApprovalRecord,
    Decision,
    FillCorrection,
    GateRecord,
    HaltEvent,
    LedgerEvent,
    OrderEvent,
    OrderRecord,
    SessionRecord,
    SessionState,
    SessionStatus,
)
from trading_core.pipelines.market_data import load_market_data
from trading_core.pipelines.workspace import Workspace
from trading_core.portfolio.actions import apply_actions
from trading_core.schema import FORECASTS, SYMBOL, CashFlow, Fill
from trading_core.storage.tables import Predicate

_STEP = re.compile(r".* of (\d{4}-\d{2}-\d{2}) @")  # of a lease's holder, see pipelines.trade
CURVE_SESSIONS = 30  # of the account, in the drawing


@dataclass(frozen=True, slots=True, eq=False)
class Orders:
    """What was ordered in a session. `history`: by client order id, oldest first."""

    records: tuple[OrderRecord, ...]
    history: Mapping[str, tuple[OrderEvent, ...]]
    fills: tuple[Fill, ...]
    corrections: tuple[FillCorrection, ...]
    gates: tuple[GateRecord, ...]
    flows: tuple[CashFlow, ...]


@dataclass(frozen=True, slots=True)
class LeaseChange:
    """A change of the account's lease, and the one before it."""

    before: LeaseRecord | None
    record: LeaseRecord


@dataclass(frozen=True, slots=True, eq=False)
class Happenings:
    """What was recorded beside the orders, oldest first. `halted`: why the account may not trade now (its last session's)."""

    events: tuple[LedgerEvent, ...]
    halts: tuple[HaltEvent, ...]
    leases: tuple[LeaseChange, ...]
    adoptions: tuple[AdoptionRecord, ...]
    halted: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Sources:
    """One session of an account. `before`: the account's session before it; `forecasts`: of the strategy's horizon."""

    ws: Workspace
    strategy: str
    state: SessionState
    decision: Decision | None
    approval: ApprovalRecord | None
    orders: Orders
    happenings: Happenings
    before: SessionState | None
    decision_before: Decision | None
    curve: tuple[tuple[date, float], ...]
    horizon: int
    forecasts: pl.DataFrame
    forecasts_before: pl.DataFrame
    market: MarketData
    bars: pl.DataFrame  # raw, up to T
    actions: pl.DataFrame
    now: datetime

    @property
    def record(self) -> SessionRecord:
        return self.state.record

    @property
    def settled(self) -> bool:
        return self.state.status is SessionStatus.SETTLED

    @property
    def traded(self) -> bool:
        """Whether the bars of T are there."""
        return self.record.session in self.market.sessions

    def row(self, day: date) -> int | None:
        """The market's last session up to `day`; None before the first."""
        place = bisect_right(self.market.sessions, day) - 1
        return place if place >= 0 else None

    def marks(self, day: date) -> dict[str, float]:
        """The last known close of every symbol up to `day`, in the shares of its last session up to there."""
        row = self.row(day)
        return {} if row is None else _by_symbol(self.market.symbols, self.market.marks[row].tolist())

    def opens(self) -> dict[str, float]:
        """The official opens of T; {} without its bars."""
        row = self.row(self.record.session) if self.traded else None
        return {} if row is None else _by_symbol(self.market.symbols, self.market.prices[row].tolist())

    def split_ratio(self, symbol: str) -> float:
        """New shares per old one between the close of D and the open of T."""
        last, first = self.row(self.record.session), self.row(self.record.decision_session)
        if last is None or first is None or symbol not in self.market.symbols:
            return 1.0
        factor = self.market.split_factor[:, self.market.symbols.index(symbol)]
        return float(factor[last] / factor[first])

    def held_at_decision(self) -> dict[str, float]:
        """Shares held at D's close: as the decision froze them; else what the session before left, through the splits since."""
        if self.decision is not None and self.decision.first_decision is not None:
            return {holding.symbol: holding.quantity for holding in self.decision.holdings}
        summary = self.before.summary if self.before is not None else None
        if self.before is None or summary is None:
            return {}
        adopted = [a for a in self.happenings.adoptions if a.session == self.before.record.session]
        positions = adopted[-1].positions if adopted else summary.positions
        held = {position.symbol: position.quantity for position in positions}
        last = self.row(self.record.decision_session)
        for row in range(len(self.market.sessions) if last is None else last + 1):
            if self.market.sessions[row] > self.before.record.session:
                held, _ = apply_actions(held, 0.0, self.market.actions[row])
        return {symbol: quantity for symbol, quantity in held.items() if quantity != 0.0}


def _by_symbol(symbols: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    return {symbol: value for symbol, value in zip(symbols, values, strict=True) if value == value}


def read_sources(ws: Workspace, account: str, session: date, now: datetime) -> Sources:
    """All of a session. Errors: UnknownNameError (no such account on this market, or session of it), LedgerUnreachableError."""
    ledger = Ledger(ws.ledger_store())
    owner = next((found for found in ledger.accounts(ws.market.id) if found.account == account), None)
    if owner is None:
        raise UnknownNameError("account", account, [found.account for found in ledger.accounts(ws.market.id)])
    records = ledger.sessions(account)
    state = ledger.session_state(account, session)
    if state is None:
        raise UnknownNameError(f"session of {account}", str(session), [str(found.session) for found in records])
    earlier = [found for found in records if found.session < session]
    before = ledger.session_state(account, earlier[-1].session) if earlier else None
    decision, decision_before = ledger.get_decision(account, session), _decision_of(ledger, before)
    horizon = config.load_strategy(owner.strategy, ws.settings).horizon
    data, bars, actions = load_market_data(ws, session)
    return Sources(
        ws=ws,
        strategy=owner.strategy,
        state=state,
        decision=decision,
        approval=ledger.approval(account, session),
        orders=_orders(ledger, account, session),
        happenings=_happenings(ws, ledger, records, state.record, now),
        before=before,
        decision_before=decision_before,
        curve=_curve(ledger, [*earlier, state.record][-CURVE_SESSIONS:]),
        horizon=horizon,
        forecasts=_forecasts(ws, decision, horizon),
        forecasts_before=_forecasts(ws, decision_before, horizon),
        market=data,
        bars=bars,
        actions=actions,
        now=now,
    )


def _decision_of(ledger: Ledger, state: SessionState | None) -> Decision | None:
    return None if state is None else ledger.get_decision(state.record.account, state.record.session)


def _orders(ledger: Ledger, account: str, session: date) -> Orders:
    records = tuple(ledger.orders(account, session))
    ids = [record.intent.client_order_id for record in records]
    return Orders(
        records=records,
        history={key: tuple(ledger.order_history(account, session, key)) for key in ids},
        fills=tuple(ledger.fills(account, session)),
        corrections=tuple(ledger.corrections(account, session)),
        gates=tuple(ledger.gates(account, session)),
        flows=tuple(ledger.cash_flows(account, session)),
    )


def _happenings(
    ws: Workspace, ledger: Ledger, records: Sequence[SessionRecord], record: SessionRecord, now: datetime
) -> Happenings:
    """What names the session, and what names none and happened from its opening until the next one's."""
    account, later = record.account, [found for found in records if found.session > record.session]
    first = record is records[0] or record.number == 1
    end = later[0].opened_at if later else None

    def within(at: datetime) -> bool:
        return (first or at >= record.opened_at) and (end is None or at < end)

    events = [e for e in ledger.events(account) if e.session == record.session or (e.session is None and within(e.at))]
    halts = [halt for scope in (ALL_ACCOUNTS, account) for halt in ledger.halt_history(scope) if within(halt.at)]
    leases = Leases(ws.ledger_store()).history(account)
    changes = [LeaseChange(before, lease) for before, lease in zip([None, *leases], leases, strict=False)]

    def ours(lease: LeaseRecord) -> bool:
        """A step that names its session ("sell of 2026-03-06") belongs to that one, whenever it ran."""
        named = _STEP.match(lease.holder)
        return named[1] == str(record.session) if named else within(lease.at)

    return Happenings(
        events=tuple(events),
        halts=tuple(sorted(halts, key=lambda halt: halt.at)),
        leases=tuple(change for change in changes if ours(change.record)),
        adoptions=tuple(ledger.adoptions(account)),
        halted=None if later else ledger.halted(account),
    )


def _curve(ledger: Ledger, records: Sequence[SessionRecord]) -> tuple[tuple[date, float], ...]:
    states = [ledger.session_state(found.account, found.session) for found in records]
    return tuple(
        (state.record.session, state.summary.equity)
        for state in states
        if state is not None and state.summary is not None and state.summary.equity is not None
    )


def _forecasts(ws: Workspace, decision: Decision | None, horizon: int) -> pl.DataFrame:
    """The rows a decision was made with, one per symbol; none for one that was made without (a flatten)."""
    if decision is None or decision.forecasts_version < 0:
        return FORECASTS.empty()
    where = Predicate(decision.decision_session, decision.decision_session, {"model_version": decision.model_version})
    found = ws.tables.read(FORECASTS.name, where=where, version=decision.forecasts_version)
    return found.filter(pl.col("horizon") == horizon).sort(SYMBOL)


def ranks(forecasts: pl.DataFrame) -> dict[str, int]:
    """The rank of each symbol by score, 1 for the highest; equal scores share the better rank."""
    scored = forecasts.filter(pl.col("score").is_finite())
    placed = scored.select(SYMBOL, pl.col("score").rank("min", descending=True).cast(pl.Int64).alias("rank"))
    return dict(placed.iter_rows())
