"""The shared vocabulary: column names, dtypes and keys of every table, and the values that rooms hand to each other.

Prices are float64 in the currency of the market, features float32. `ts` is the end of a bar in UTC, `session` the
exchange's date. Quantities are shares (fractions allowed). All timestamps are timezone-aware UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

FloatArray: TypeAlias = npt.NDArray[np.float64]
Float32Array: TypeAlias = npt.NDArray[np.float32]
IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]
DateArray: TypeAlias = npt.NDArray[np.datetime64]  # datetime64[D]

SYMBOL = "symbol"
TS = "ts"
SESSION = "session"
MONTH = "month"  # "YYYY-MM" of the session: the partition of every table
KNOWN_AT = "known_at"  # the session at whose close a flag, event or label became known

UTC_TS = pl.Datetime("us", "UTC")

DAILY = "1d"
# What a bar spans; a bar of "1d" is one session, from its open to its close, however long that is.
INTERVALS: dict[str, timedelta] = {
    "1m": timedelta(minutes=1),
    "5m": timedelta(minutes=5),
    "15m": timedelta(minutes=15),
    "30m": timedelta(minutes=30),
    "1h": timedelta(hours=1),
    DAILY: timedelta(days=1),
}

QUANTILES: tuple[float, ...] = (0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95)
QUANTILE_COLUMNS: tuple[str, ...] = tuple(f"q{round(100 * q):02d}" for q in QUANTILES)
BUNDLE_FORMAT = 3  # of a model bundle's card, see registry.bundle; here, so that looking for a model needs no torch
INTERVAL_COLUMNS = ("low_90", "high_90")
INTERVAL_ALPHA = 0.1  # share of labels that may lie outside the stored interval


class PriceBasis(StrEnum):
    """What a source's prices are adjusted for."""

    RAW = "raw"  # as traded; split and dividend events come beside them
    SPLIT_ADJUSTED = "split_adjusted"  # for splits through the day of download; no dollar floor may be applied
    TOTAL_RETURN = "total_return"  # for splits and dividends through the day of download


class ActionKind(StrEnum):
    """Corporate actions. `value` of the event: new shares per old / cash per share / cash per share."""

    SPLIT = "split"
    DIVIDEND = "dividend"
    DELISTING = "delisting"


@dataclass(frozen=True, slots=True)
class TableSchema:
    """One Delta table: its columns with dtypes, its key, and (always) the month partition."""

    name: str
    columns: dict[str, pl.DataType | type[pl.DataType]]
    key: tuple[str, ...]

    def empty(self) -> pl.DataFrame:
        return pl.DataFrame(schema=self.columns)


_BAR_COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    SYMBOL: pl.String,
    TS: UTC_TS,
    SESSION: pl.Date,
    "open": pl.Float64,
    "high": pl.Float64,
    "low": pl.Float64,
    "close": pl.Float64,
    "volume": pl.Float64,
}

BARS = TableSchema("bars", {**_BAR_COLUMNS, MONTH: pl.String}, (SYMBOL, TS))

BAR_REVISIONS = TableSchema(
    "bar_revisions",
    # Bars as they were stored until a later fetch said otherwise; `recorded_at`, `run_id`: when and by which run.
    {**_BAR_COLUMNS, "recorded_at": UTC_TS, "run_id": pl.String, MONTH: pl.String},
    (SYMBOL, TS, "run_id"),
)

CORPORATE_ACTIONS = TableSchema(
    "corporate_actions",
    # `session`: the first session that trades on the new basis (the ex-date). `kind`: ActionKind.
    {SYMBOL: pl.String, SESSION: pl.Date, "kind": pl.String, "value": pl.Float64, KNOWN_AT: pl.Date, MONTH: pl.String},
    (SYMBOL, SESSION, "kind"),
)

INSTRUMENTS = TableSchema(
    "instruments",
    {SYMBOL: pl.String, "sector": pl.String, "listed": pl.Date, "delisted": pl.Date, MONTH: pl.String},
    (SYMBOL,),
)

QUARANTINE = TableSchema(
    "quarantine",
    # Known in two steps: at the close of `known_at` the row was held out; at the close of `resolved_at` it was known
    # what it is (`verdict`, null until then). From `released_at` on it is in `bars` too; null: it is not.
    {
        **_BAR_COLUMNS,
        "check": pl.String,
        "reason": pl.String,
        KNOWN_AT: pl.Date,
        "verdict": pl.String,
        "resolved_at": pl.Date,
        "released_at": pl.Date,
        MONTH: pl.String,
    },
    (SYMBOL, TS, "check"),
)

QUALITY_ANSWERS = TableSchema(
    "quality_answers",
    # What a person said of a quarantined bar. `answer`: genuine, bad or split; `ratio` (new shares per old) and
    # `dividend` (cash per new share) belong to split, null where there is none.
    {
        SYMBOL: pl.String,
        SESSION: pl.Date,
        "answer": pl.String,
        "ratio": pl.Float64,
        "dividend": pl.Float64,
        KNOWN_AT: pl.Date,
        MONTH: pl.String,
    },
    (SYMBOL, SESSION),
)

FORECASTS = TableSchema(
    "forecasts",
    {
        SYMBOL: pl.String,
        TS: UTC_TS,
        SESSION: pl.Date,
        "horizon": pl.Int32,
        **dict.fromkeys(QUANTILE_COLUMNS, pl.Float64),
        "score": pl.Float64,  # what strategies rank by (higher is better); here the median of the label
        "p_up": pl.Float64,  # calibrated probability that the label is positive
        "low_90": pl.Float64,  # conformal interval of the label, see calibration.conformal
        "high_90": pl.Float64,
        # Null where the model has no such target.
        "volatility": pl.Float64,  # of one session's log return, over the horizon
        # What the network says, not calibrated: its losses may weigh classes differently, and then these do too.
        "p_bear": pl.Float64,  # see Target.CLASSES
        "p_bull": pl.Float64,
        "p_stop": pl.Float64,  # see Target.BARRIER
        "p_take": pl.Float64,
        "model": pl.String,
        "model_version": pl.String,
        "features_version": pl.String,
        "run_id": pl.String,
        MONTH: pl.String,
    },
    (SYMBOL, SESSION, "horizon", "model_version"),
)

EVALUATIONS = TableSchema(
    "evaluations",
    {
        "evaluation_id": pl.String,
        "recorded_at": UTC_TS,
        "subject": pl.String,  # a strategy or benchmark name, or "forecasts"
        "model_version": pl.String,
        "start": pl.Date,
        "end": pl.Date,
        "metric": pl.String,
        "value": pl.Float64,
        MONTH: pl.String,
    },
    ("evaluation_id", "subject", "metric"),
)

TRIALS = TableSchema(
    "trials",
    # One row for every model or strategy ever scored on a market: the deflated statistics need them all.
    {
        "trial_id": pl.String,
        "recorded_at": UTC_TS,
        "kind": pl.String,  # "model" or "strategy"
        "subject": pl.String,
        "config_hash": pl.String,
        "metric": pl.String,  # "rank_ic" for models, "sharpe_annual" for strategies
        "value": pl.Float64,
        "start": pl.Date,
        "end": pl.Date,
        "source": pl.String,  # the run that scored it
        MONTH: pl.String,
    },
    ("trial_id",),
)


def month_of(day: date) -> str:
    """The partition a session belongs to, "YYYY-MM"."""
    return f"{day.year:04d}-{day.month:02d}"


# --- what a model reads and gives -------------------------------------------------------------------------------------

MASK_SUFFIX = "__missing"  # of a channel that is 1.0 where the feature before it is missing


class Target(StrEnum):
    """What a model is asked of the h sessions after a decision. Where it is unclear, a unit is that of the scaled label."""

    QUANTILES = "quantiles"  # of the scaled return
    DIRECTION = "direction"  # logit of P(return > 0)
    CLASSES = "classes"  # logits of Bear, Neutral, Bull: the scaled return below, between, above -/+ a threshold
    VOLATILITY = "volatility"  # log of the root mean squared session return over the trailing volatility
    BARRIER = "barrier"  # logits of stop, neither, take: which of two barriers in volatility units is touched first
    RANK = "rank"  # the return's rank within its session, as a standard normal score


# Targets that say a probability of each of three classes: their codes 0, 1, 2 by name.
CLASS_TARGETS: Mapping[Target, tuple[str, str, str]] = {
    Target.CLASSES: ("bear", "neutral", "bull"),
    Target.BARRIER: ("stop", "neither", "take"),
}
# Where the probabilities of the first and the last class are stored, in FORECASTS; the one between has the rest.
CLASS_COLUMNS: Mapping[Target, tuple[str, str]] = {
    Target.CLASSES: ("p_bear", "p_bull"),
    Target.BARRIER: ("p_stop", "p_take"),
}


@dataclass(frozen=True, slots=True)
class InputSpec:
    """The shapes a model is built for. B samples, E encoder sessions, C channels, K static columns, H horizons, Q quantiles.

    A model's output is one tensor [B,H,O]: the columns of `targets` side by side, see `columns_of`.
    """

    channels: tuple[str, ...]  # C: scaled features, then one `<feature>__missing` mask per feature that needs it
    encoder_length: int  # E
    horizons: tuple[int, ...]  # H, in sessions, ascending
    static_cardinalities: tuple[int, ...] = ()  # K: number of categories of each static column, index 0 = unknown
    quantiles: tuple[float, ...] = QUANTILES
    targets: tuple[Target, ...] = (Target.QUANTILES,)
    score: Target = Target.QUANTILES  # what symbols are ranked by: the median, or the column of another target
    # Channels that describe the sample rather than its path (calendar, moneyness): models with an input for such things
    # read them at the decision's own step; all channels are also part of the path.
    context: tuple[str, ...] = ()

    @property
    def median(self) -> int:
        """The position of the middle quantile, or of the level nearest to it."""
        return min(range(len(self.quantiles)), key=lambda i: abs(self.quantiles[i] - 0.5))

    def width(self, target: Target) -> int:
        """How many columns of the output the target takes."""
        widths = {Target.QUANTILES: len(self.quantiles), Target.CLASSES: 3, Target.BARRIER: 3}
        return widths.get(target, 1)

    @property
    def outputs(self) -> int:
        """O: the width of all targets."""
        return sum(self.width(target) for target in self.targets)

    def columns_of(self, target: Target) -> slice:
        """The target's columns of the output. ValueError when it is none of `targets`."""
        before = self.targets[: self.targets.index(target)]
        start = sum(self.width(other) for other in before)
        return slice(start, start + self.width(target))

    @property
    def context_columns(self) -> tuple[int, ...]:
        """The positions of `context` among the channels."""
        return tuple(self.channels.index(name) for name in self.context)


# --- what is decided, ordered and filled ------------------------------------------------------------------------------


class Side(StrEnum):
    BUY = "buy"
    SELL = "sell"


class OrderStatus(StrEnum):
    """The states of an order as the ledger sees them; `UNKNOWN` is an ambiguous answer that only the broker may resolve."""

    PLANNED = "planned"
    SUBMITTING = "submitting"
    ACCEPTED = "accepted"
    PARTIALLY_FILLED = "partially_filled"
    PENDING_CANCEL = "pending_cancel"
    FILLED = "filled"
    REJECTED = "rejected"
    CANCELED = "canceled"
    EXPIRED = "expired"
    UNKNOWN = "unknown"

    @property
    def terminal(self) -> bool:
        return self in (OrderStatus.FILLED, OrderStatus.REJECTED, OrderStatus.CANCELED, OrderStatus.EXPIRED)


class OrderKind(StrEnum):
    """When and at what price an order may fill in its session. What a broker does not offer, it refuses by name."""

    OPENING = "opening"  # in the opening auction, at its price
    MARKET = "market"  # from the open on, at the market
    LIMIT = "limit"  # from the open on, at `limit_price` or better
    CLOSING = "closing"  # in the closing auction, at its price


@dataclass(frozen=True, slots=True)
class Order:
    """An order for `session`, before anybody has answered it. `quantity` in shares, always positive."""

    client_order_id: str  # at most 48 characters; brokers refuse a second order with the same id
    symbol: str
    side: Side
    quantity: float
    session: date
    reference_price: float  # the close the decision was sized with
    kind: OrderKind = OrderKind.OPENING
    limit_price: float | None = None  # of a LIMIT order, per share


@dataclass(frozen=True, slots=True)
class OrderState:
    """What a broker says of an order."""

    order: Order
    status: OrderStatus
    filled_quantity: float = 0.0
    average_price: float | None = None  # of what is filled, before costs
    reason: str = ""  # of a rejection, cancellation or expiry
    broker_id: str = ""  # the broker's own id, where it has one


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution. `price` is the execution price with spread and slippage in it, `commission` is paid on top."""

    fill_id: str
    client_order_id: str
    symbol: str
    side: Side
    quantity: float
    price: float
    commission: float
    session: date
    filled_at: datetime


class CashFlowKind(StrEnum):
    DIVIDEND = "dividend"
    PROCEEDS = "proceeds"  # of a delisting, a merger, or the cash for a fraction of a share
    INTEREST = "interest"
    BORROW = "borrow"  # the fee for shares sold short
    FEE = "fee"
    TRANSFER = "transfer"  # a deposit or a withdrawal
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Position:
    symbol: str
    quantity: float  # negative for shorts
    average_price: float  # cost basis per share, costs included


@dataclass(frozen=True, slots=True)
class CashFlow:
    """Cash that moved without an order. `amount` in currency, below 0 for what was paid."""

    flow_id: str
    session: date
    kind: CashFlowKind
    symbol: str  # empty where no symbol caused it
    amount: float


@dataclass(frozen=True, slots=True)
class AccountState:
    """What a broker says an account holds."""

    account: str
    cash: float
    positions: tuple[Position, ...]

    def quantity(self, symbol: str) -> float:
        return sum(p.quantity for p in self.positions if p.symbol == symbol)


@dataclass(frozen=True, slots=True)
class CorporateAction:
    """An event that changes holdings at the start of `session` (see ActionKind for the meaning of `value`)."""

    symbol: str
    session: date
    kind: ActionKind
    value: float
