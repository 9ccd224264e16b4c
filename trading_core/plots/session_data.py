"""What the page of a trading session shows: frozen facts, gathered by `pipelines.session_report`, drawn by `session_page`.

T is the session that was traded, D the one it was decided on. Shares, prices in currency per share, money in currency,
weights as fractions of equity, returns and forecasts as log returns. NaN: not known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from trading_core.metrics.execution_quality import Shortfall


class Standing(StrEnum):
    """Where a session stands, for a person."""

    SETTLED = "settled"
    PENDING = "pending"
    NEEDS_A_PERSON = "needs a person"


@dataclass(frozen=True, slots=True)
class SessionHead:
    """Whose session it is. `opens_at`: of T; `decided_at`: None before the decision; `number` counts the account's sessions."""

    market: str
    account: str
    kind: str  # live, replay, dry or shadow
    strategy: str
    session: date
    decision_session: date
    number: int
    opens_at: datetime
    decided_at: datetime | None
    settled_at: datetime | None
    written_at: datetime


@dataclass(frozen=True, slots=True)
class StandingFacts:
    """`headline`: one sentence; `reasons`: what a person must look at, or what is waited for."""

    standing: Standing
    headline: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TargetRow:
    """What the decision wants of a symbol, and why. `rank`: by score, 1 is the best; `rank_before`: at the decision before.

    `order`: what was decided to be traded, in words; "" for nothing.
    """

    symbol: str
    score: float
    rank: int | None
    rank_before: int | None
    forecast: float  # median of the return over the horizon
    weight_before: float
    weight: float
    order: str
    why: str


@dataclass(frozen=True, slots=True)
class RefusalRow:
    """What a rule refused: all of an order or a part. `stage`: "when it was decided" or "when it was to be sent"."""

    symbol: str
    side: str
    quantity: float
    rule: str
    reason: str
    stage: str


@dataclass(frozen=True, slots=True)
class DecisionFacts:
    """`ranked`: symbols with a score. `held_without_forecast`: held because nothing is known of them. `note`: what stands out."""

    horizon: int
    ranked: int
    equity: float  # at D's close
    cash: float
    targets: tuple[TargetRow, ...]
    held_without_forecast: tuple[str, ...]
    refusals: tuple[RefusalRow, ...]
    approval: str = ""
    note: str = ""

    @property
    def left(self) -> tuple[TargetRow, ...]:
        """Targets of zero: what was held and is not wanted any more."""
        return tuple(row for row in self.targets if row.weight == 0.0)


@dataclass(frozen=True, slots=True)
class StateRow:
    """One state of an order's history. `at`: when it was learned of."""

    status: str
    at: datetime
    filled: float
    reason: str


@dataclass(frozen=True, slots=True)
class OrderRow:
    """An order, all in T's shares. `decision_price`: the close of D it was sized with; `open_price`: of T. Costs positive."""

    symbol: str
    side: str
    quantity: float
    status: str
    filled: float
    price: float  # average of what is filled
    reason: str
    client_order_id: str  # "" for one that was never sent
    attempt: int
    history: tuple[StateRow, ...]
    decision_price: float = math.nan
    open_price: float = math.nan
    decision_bps: float = math.nan
    decision_cash: float = math.nan
    open_bps: float = math.nan
    open_cash: float = math.nan
    commission: float = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True)
class FillRow:
    symbol: str
    side: str
    quantity: float
    price: float
    commission: float
    at: datetime
    note: str = ""


@dataclass(frozen=True, slots=True)
class Totals:
    """Slippage of all executed orders together, and its parts. Money and bps of the notional at the reference."""

    decision_bps: float
    decision_cash: float
    open_bps: float
    open_cash: float
    shortfall: Shortfall


@dataclass(frozen=True, slots=True)
class PositionRow:
    """`price`: the last known close, of session `priced_on`, in T's shares; `profit`: against the average price paid."""

    symbol: str
    quantity: float
    average_price: float
    price: float
    priced_on: date | None
    value: float
    weight: float
    profit: float


@dataclass(frozen=True, slots=True)
class MoneyRow:
    """A line of the way from the cash before to the cash now, below 0 for what was paid."""

    name: str
    amount: float


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """What the account holds. `as_of`: in words, whose close. `before`: the session that changes are measured from, or None.

    `money`: from cash to cash; `curve`: (session, equity) of the account's last settled sessions, ascending.
    """

    as_of: str
    equity: float
    cash: float
    equity_before: float
    before: date | None
    positions: tuple[PositionRow, ...]
    money: tuple[MoneyRow, ...]
    curve: tuple[tuple[date, float], ...]
    turnover: float = math.nan  # notional of all executions / equity at D

    @property
    def change(self) -> float:
        return self.equity - self.equity_before

    @property
    def change_share(self) -> float:
        return self.equity / self.equity_before - 1.0 if self.equity_before > 0 else math.nan


@dataclass(frozen=True, slots=True)
class OutcomeRow:
    """A symbol that the decision before forecast. `held`: its weight after that session, 0 for none."""

    symbol: str
    held: float
    score: float
    rank: int | None
    forecast: float
    low: float
    high: float
    realised: float


@dataclass(frozen=True, slots=True)
class OutcomeFacts:
    """The decision of the session before, and the returns since. `span`: what the returns reach over, in words."""

    session: date
    decision_session: date
    model_version: str
    horizon: int
    span: str
    complete: bool  # the horizon has passed
    rows: tuple[OutcomeRow, ...]
    rank_ic: float
    pairs: int
    right_direction: float
    covered: float
    held: int
    hit_rate: float
    mean_held: float
    mean_all: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class EventRow:
    """Something worth telling. `level`: info, warning or alert."""

    at: datetime
    level: str
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class SessionPage:
    """All of it. `outcome` None: there is no decision before; `decision` None: nothing is decided yet.

    `lineage`: (name, value); `explain`: the command that walks one order back.
    """

    head: SessionHead
    standing: StandingFacts
    decision: DecisionFacts | None
    orders: tuple[OrderRow, ...]
    fills: tuple[FillRow, ...]
    totals: Totals | None
    account: AccountFacts
    outcome: OutcomeFacts | None
    outcome_missing: str
    events: tuple[EventRow, ...]
    lineage: tuple[tuple[str, str], ...]
    explain: str
