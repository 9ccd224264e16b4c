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
class ForecastsUsed:
    """Forecasts that an evaluation trades: of one model version, or the stitched ones of a walk-forward.

    `label`: what the report calls them. `segments`: version, first and last decision session of each part, ascending.
    """

    label: str
    model: str
    walk_forward: str  # its id, "" for a single version
    segments: tuple[tuple[str, date, date], ...]


@dataclass(frozen=True, slots=True)
class EvaluationPlan:
    """What one evaluation does, fixed before anything is simulated. `tables`: the versions of the tables that are read.

    `start`: the first decision session, `end`: the last session traded. `costs`: those of the market's costs that are
    replaced. `fill_at`: open, close or vwap. `random_portfolios`: per strategy; `resamples`: of the bootstrap.
    """

    market: str
    evaluation_id: str
    run_id: str
    forecasts: tuple[ForecastsUsed, ...]
    strategies: tuple[str, ...]
    start: date
    end: date
    capital: float
    costs: dict[str, float | None]
    fill_at: Literal["open", "close", "vwap"]
    seed: int
    resamples: int
    random_portfolios: int
    tables: dict[str, int]
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SimulatedRef:
    """The simulations of one strategy: files published under `prefix`, the manifest's SHA-256 being `digest`."""

    strategy: str
    prefix: str
    digest: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """One block of a walk-forward: the version that was trained before it, and the decision sessions it speaks for."""

    version: int
    digest: str  # of the version's bundle
    cutoff: date  # before first_decision, see pipelines.walk_forward.WalkForward
    first_decision: date
    last_decision: date


@dataclass(frozen=True, slots=True)
class WalkForwardRef:
    """A walk-forward as far as it has come. `trained`, `added`: models and forecast rows that this run has made."""

    market: str
    id: str  # what `pipelines.walk_forward.load` takes
    model: str
    config_hash: str
    seed: int
    every: int
    start: date
    end: date
    trained: int
    added: int
    path: str  # of its JSON in the artifact store
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class StrategyRow:
    """One line of the strategy table, net of costs. `p_value`: of the Sharpe ratio, robust to autocorrelation."""

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
    model: str = ""  # the label of the forecasts it used; "" for none
    deflated: Real = math.nan  # probability that the Sharpe ratio is above what the best of all trials reaches by luck


@dataclass(frozen=True, slots=True)
class EvaluationRef:
    """What an evaluation came to. The skill is that of the first forecasts' shortest horizon."""

    market: str
    evaluation_id: str
    model_version: str  # of the first forecasts: the last of its versions
    start: date
    end: date
    report: str  # path of the HTML report in the artifact store
    mean_rank_ic: Real
    rank_icir: Real
    rank_ic_t: Real
    rank_ic_ceiling: Real  # what a perfect model reaches, where the market knows it; else NaN
    strategies: tuple[StrategyRow, ...]
    tables: dict[str, str] = field(default_factory=dict)  # path of each table in the artifact store
    trials: int = 0  # models and strategies ever scored on the market
    pbo: Real = math.nan  # probability of backtest overfitting
    spa_p_value: Real = math.nan  # Hansen's SPA, consistent: the best strategy does no better than the benchmark
    mlflow_run: str = ""


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One combination of parameters. `p_value` and `deflated` as in StrategyRow."""

    params: str
    sharpe: Real
    p_value: Real
    deflated: Real
    cagr: Real
    max_drawdown: Real
    turnover: Real


@dataclass(frozen=True, slots=True)
class SweepRef:
    """Many combinations of one strategy's parameters, best first. pbo: probability that choosing the best is overfitting."""

    market: str
    strategy: str
    model: str
    start: date
    end: date
    trials: int
    pbo: Real
    pbo_reason: str
    variants: tuple[SweepRow, ...]


@dataclass(frozen=True, slots=True)
class ParityRow:
    """A session on which replay and backtest differ. `what`: the first thing that does, in words."""

    session: date
    what: str
    replay: str
    backtest: str


@dataclass(frozen=True, slots=True)
class ParityRef:
    """The daily trade replayed beside the backtest over the same sessions and stored forecasts.

    `largest_difference`: of equity, relative; `difference`: the first, None where there is none.
    """

    market: str
    strategy: str
    account: str
    start: date
    end: date
    sessions: int
    trades: int
    equity: Real
    largest_difference: Real
    agrees: bool
    difference: ParityRow | None = None


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
    approval: bool = False  # whether a person has to approve the decision before anything is sent


@dataclass(frozen=True, slots=True)
class OrdersRef:
    account: str
    session: date
    side: str
    submitted: int  # sent now
    known: int  # already there from an earlier attempt
    refused: int = 0  # by a rule or by the broker, or not sent by a shadow


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
