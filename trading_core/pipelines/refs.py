"""What Airflow tasks hand to each other: small frozen references, never frames. All of them are plain JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, PlainSerializer, TypeAdapter

RefT = TypeVar("RefT")
# JSON has no NaN (PostgreSQL refuses it): "not known" travels as null.
Real = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    PlainSerializer(lambda value: value if math.isfinite(value) else None, return_type=float | None),
]


@lru_cache(maxsize=64)
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def dump(ref: Any) -> Any:
    """A reference as JSON-ready values (dates as ISO strings)."""
    return _adapter(type(ref)).dump_python(ref, mode="json")  # type: ignore[arg-type]


def load(kind: type[RefT], values: Any) -> RefT:
    """The reference that `dump` wrote."""
    return _adapter(kind).validate_python(values)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class DateRange:
    """Sessions from `start` to `end`, both included."""

    start: date
    end: date


@dataclass(frozen=True, slots=True)
class FetchChunk:
    """Symbols to fetch together, over sessions `start` .. `end`.

    `kind`: "sessions" asks for sessions of all symbols; "new" for the stored sessions of symbols that the market did not
    have before; "retry" for those of symbols whose download failed.
    """

    symbols: tuple[str, ...]
    start: date
    end: date
    kind: Literal["sessions", "new", "retry"] = "sessions"


@dataclass(frozen=True, slots=True)
class FeatureRange:
    """Sessions to compute together, over the whole cross-section; `families`: () means all."""

    start: date
    end: date
    families: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BackfillPlan:
    """What one feature backfill will do. No chunks and no ranges: everything is there already.

    `start` .. `end`: the sessions that were asked for; chunks and ranges may reach further.
    """

    market: str
    run_id: str
    start: date
    end: date
    chunks: tuple[FetchChunk, ...]
    ranges: tuple[FeatureRange, ...]
    reason: str = ""  # why there is nothing to do
    source_content: str = ""  # fingerprint of the source's content, when all that is stored is compared with it


@dataclass(frozen=True, slots=True)
class StagedRef:
    """Files published under `prefix`, the manifest's SHA-256 being `digest`."""

    prefix: str
    digest: str
    rows: int


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A stored value that a later fetch gave otherwise. `column`: of a bar, an event's kind, or "row" for a bar that is gone."""

    symbol: str
    session: date
    column: str
    stored: Real
    fetched: Real


@dataclass(frozen=True, slots=True)
class BarsRef:
    market: str
    bars_version: int
    rows: int
    quarantined: int
    symbols: int
    failures: dict[str, str]
    report: str  # path of the quality report in the artifact store
    contradictions_found: int = (
        0  # stored values that the source now gives otherwise: the old rows are in `bar_revisions`
    )
    contradictions: tuple[Contradiction, ...] = ()  # the first of them; the report lists more


@dataclass(frozen=True, slots=True)
class FeaturesRef:
    market: str
    features_version: str
    start: date
    end: date
    rows: int
    sessions: int
    families: tuple[str, ...] = ()  # those that were written
    # Of this run's bars, see BarsRef; `report` is empty when none were fetched.
    failures: dict[str, str] = field(default_factory=dict)
    report: str = ""
    contradictions_found: int = 0
    contradictions: tuple[Contradiction, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainingRef:
    """A training request in the artifact store."""

    market: str
    request_uri: str  # full URI: what `trading train --request` takes
    request_hash: str


@dataclass(frozen=True, slots=True)
class ModelRef:
    market: str
    model: str
    version: int
    bundle: str
    digest: str
    cutoff: date
    aliases: tuple[str, ...]
    reused: bool
    metrics: dict[str, float]
    report: str = ""  # path of the training's page in the artifact store; "" of one that has none


@dataclass(frozen=True, slots=True)
class ForecastsRef:
    market: str
    model: str
    model_version: str
    table_version: int
    start: date
    end: date
    rows: int
    added: int


@dataclass(frozen=True, slots=True)
class StrategyRow:
    """One line of the strategy table, net of costs."""

    name: str
    benchmark: bool
    total_return: Real
    cagr: Real
    volatility: Real
    sharpe: Real
    p_value: Real
    sortino: Real
    max_drawdown: Real
    turnover: Real
    hit_ratio: Real


@dataclass(frozen=True, slots=True)
class EvaluationRef:
    market: str
    evaluation_id: str
    model_version: str
    start: date
    end: date
    report: str  # path of the HTML report in the artifact store
    mean_rank_ic: Real
    rank_icir: Real
    rank_ic_t: Real
    rank_ic_ceiling: Real  # what a perfect model reaches, where the market knows it; else NaN
    strategies: tuple[StrategyRow, ...]


@dataclass(frozen=True, slots=True)
class SessionRef:
    """A trading session that was opened in the ledger."""

    market: str
    account: str
    kind: str  # live, replay or dry
    broker: str
    strategy: str  # name of the strategy config
    session: date  # T: filled at its open
    decision_session: date  # D: the last session the decision knows
    run_id: str
    model: str = ""
    model_version: str = ""
    model_digest: str = ""
    forecasts_version: int = -1


@dataclass(frozen=True, slots=True)
class OrdersRef:
    account: str
    session: date
    side: str
    submitted: int  # sent now
    known: int  # already there from an earlier attempt


@dataclass(frozen=True, slots=True)
class SessionResult:
    account: str
    kind: str
    session: date
    decision_session: date
    status: str  # settled or pending
    orders: int
    fills: int
    rejected: int
    held_without_forecast: int
    equity: Real
    cash: Real
    costs: Real
    report: str  # path of the session's report in the artifact store


@dataclass(frozen=True, slots=True)
class TuneRef:
    """A search in the artifact store and how many trials it is to reach."""

    market: str
    request_uri: str  # full URI: what `trading tune --request` takes
    request_hash: str
    trials: int


@dataclass(frozen=True, slots=True)
class TuneResult:
    """What a search found. best_options: by `architecture.<field>` and `training.<field>`; values: of the `monitor`."""

    market: str
    model: str
    study: str
    monitor: str
    complete: int
    pruned: int
    failed: int
    best_trial: int
    best_value: Real
    first_value: Real  # of the config as it stands, where it lies within the ranges; else not known
    best_options: dict[str, str | int | float | bool | None]
    table: str  # path of the CSV of all trials in the artifact store
    config: str  # path of the best config as YAML in the artifact store
    saved_as: str = ""  # the name of the model config that was written
