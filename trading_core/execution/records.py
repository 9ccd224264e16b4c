"""What the ledger keeps: one frozen dataclass per kind of record. Quantities in shares, money in the market's currency.

Every record is written once; a correction is a further record. `codec.to_document` and `from_document` store them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum

from trading_core.schema import Fill, OrderStatus, Position, Side


@dataclass(frozen=True, slots=True)
class AccountRecord:
    """Who owns an account: one strategy of one market, for ever."""

    account: str
    strategy: str
    market: str
    opened_at: datetime


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """An account's session T being opened. `number` counts the account's sessions from 1."""

    account: str
    session: date  # T
    decision_session: date  # D
    number: int
    run_id: str
    opened_at: datetime


@dataclass(frozen=True, slots=True)
class Target:
    """What a strategy wants to hold of a symbol: a fraction of equity, and the score it was ranked by."""

    symbol: str
    weight: float
    score: float | None


@dataclass(frozen=True, slots=True)
class DecidedOrder:
    """An order as decided; `reference_price` is the close of D it was sized with."""

    symbol: str
    side: Side
    quantity: float
    reference_price: float


@dataclass(frozen=True, slots=True)
class Rejection:
    """An order that a risk rule refused (the whole of it, or the part it clipped), and why."""

    symbol: str
    side: Side
    quantity: float
    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class OrderVerdict:
    """What the risk rules made of one planned order: shares `planned` and `allowed`, approve, clip or reject, and why.

    `rule`: the last one that cut it, "" when none did; `reason`: of every rule that cut it.
    """

    symbol: str
    side: Side
    planned: float
    allowed: float
    verdict: str
    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Holding:
    """Shares of a symbol that an account held when it decided, below 0 for a short."""

    symbol: str
    quantity: float


@dataclass(frozen=True, slots=True)
class Decision:
    """The one decision of (account, session T), taken after D's close. Written once; every later step only reads it.

    From `holdings` on stands what it needs to be computed again; decisions of before these fields have their defaults.
    """

    decision_id: str
    account: str
    market: str
    session: date  # T
    decision_session: date  # D
    strategy: str
    strategy_hash: str
    model: str
    model_version: str
    model_digest: str
    features_version: str
    forecasts_version: int  # Delta version of the forecasts table that holds the rows used
    run_id: str
    equity: float  # at D's close
    cash: float
    targets: tuple[Target, ...]
    orders: tuple[DecidedOrder, ...]
    held_without_forecast: tuple[str, ...]
    rejected: tuple[Rejection, ...]
    decided_at: datetime
    code_version: str
    config_hash: str
    holdings: tuple[Holding, ...] = ()
    first_decision: date | None = None  # the account's first decision session: strategies count sessions from it
    bars_version: int = -1  # Delta versions of the tables that prices were read from; -1: there was no such table
    actions_version: int = -1
    quarantine_version: int = -1
    columns_version: str = ""  # of the features that the strategy itself read, "" where it reads none
    forecasts_digest: str = ""  # SHA-256 of the forecasts used, see pipelines.digests
    risk: tuple[OrderVerdict, ...] = ()


@dataclass(frozen=True, slots=True)
class Intent:
    """An order about to be sent; written before anything is sent."""

    client_order_id: str
    account: str
    session: date
    strategy: str
    symbol: str
    side: Side
    quantity: float
    reference_price: float
    attempt: int
    decision_id: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class OrderEvent:
    """One change of an order's state. `sequence` counts the order's events from 1; the last one is its state."""

    client_order_id: str
    sequence: int
    status: OrderStatus
    filled_quantity: float
    average_price: float | None
    reason: str
    at: datetime


@dataclass(frozen=True, slots=True)
class FillCorrection:
    """A fill as the broker restated it, `number`-th time; a quantity of 0 takes it back."""

    fill: Fill
    number: int
    at: datetime


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """What one rule said: approve, clip or reject, and why."""

    rule: str
    verdict: str
    reason: str


@dataclass(frozen=True, slots=True)
class GateRecord:
    """What the pre-trade rules said when an order was about to be sent."""

    account: str
    session: date
    client_order_id: str
    symbol: str
    verdicts: tuple[RuleVerdict, ...]
    at: datetime


@dataclass(frozen=True, slots=True)
class ApprovalRecord:
    """What a person said of a decision before anything was sent."""

    account: str
    session: date
    decision_id: str
    approved: bool
    by: str
    note: str
    at: datetime


@dataclass(frozen=True, slots=True)
class AdoptionRecord:
    """A person took what the broker holds for the truth: the account's positions and cash from `at` on."""

    account: str
    session: date  # the account's last session then
    positions: tuple[Position, ...]
    cash: float
    by: str
    reason: str
    at: datetime
    flows: tuple[str, ...] = ()  # ids of cash flows of later sessions that are in `cash` already


@dataclass(frozen=True, slots=True)
class OrderRecord:
    """An intent with the state it is in now (PLANNED when nothing has been recorded since)."""

    intent: Intent
    status: OrderStatus
    filled_quantity: float
    average_price: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """What a session ended with. `equity` is None when a position could not be priced."""

    cash: float
    equity: float | None
    positions: tuple[Position, ...]
    orders: int
    fills: int
    commission: float
    settled_at: datetime
    note: str = ""


class SessionStatus(StrEnum):
    OPEN = "open"  # nothing decided yet
    DECIDED = "decided"  # the decision is frozen; orders may be out
    SETTLED = "settled"


@dataclass(frozen=True, slots=True)
class SessionState:
    """Where an account's session stands."""

    record: SessionRecord
    status: SessionStatus
    decision_id: str | None
    summary: SessionSummary | None


@dataclass(frozen=True, slots=True)
class Execution:
    """One fill with everything it came from: the row that lineage, reports and the UI read."""

    symbol: str
    side: Side
    quantity: float
    price: float
    commission: float
    session: date
    strategy: str
    model: str
    model_version: str
    features_version: str
    client_order_id: str
    fill_id: str
    account: str
    market: str
    decision_id: str
    filled_at: datetime
    status: OrderStatus  # of the order now


class EventLevel(StrEnum):
    INFO = "info"
    WARNING = "warning"
    ALERT = "alert"  # a person must look


@dataclass(frozen=True, slots=True)
class LedgerEvent:
    """Something worth telling about an account: a mismatch, a missed session, an order nobody can explain."""

    account: str
    session: date | None
    kind: str
    level: EventLevel
    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class HaltEvent:
    """A halt (`halted` true) or a resume of one scope: "all" or an account id."""

    scope: str
    halted: bool
    reason: str
    by: str
    at: datetime
