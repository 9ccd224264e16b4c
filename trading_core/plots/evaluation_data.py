"""What the evaluation report shows, as plain data: the pipeline fills it, `plots/report.py` draws it.

Conventions: N sessions, row 0 is the first decision, at whose close nothing is held yet. Fractions, not per cent; currency of
the market; "a year" means `sessions_per_year` sessions. NaN is a figure that is not defined or was not computed: it shows as
a dash. Returns and drawdowns that lose are negative, VaR and CVaR too. A field that is None or empty leaves its part out.
Strategies are referred to by their `label`, which is unique in a report. Every text is shown as it is (escaped).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date

from trading_core.metrics.returns import SESSIONS_PER_YEAR
from trading_core.plots.quality import QualitySection
from trading_core.schema import FloatArray

NAN = math.nan

# --- what was run -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A model whose forecasts were traded. versions: in words, "3" or "7 to 12, retrained every 63 sessions".

    trained_until: the last session whose labels the (first) version has seen; None where it learns nothing.
    """

    name: str
    versions: str
    trained_until: date | None = None
    note: str = ""  # such as "config zoo/linear"


@dataclass(frozen=True, slots=True)
class WalkForward:
    """A schedule of retraining. schedule: in words; retrained: the first decision session of each further version.

    out_of_sample: the first decision that no model has learnt from; the curves are shaded from there on.
    """

    schedule: str
    out_of_sample: date
    retrained: tuple[date, ...] = ()


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What was run. start, end: first decision and last session; symbols: with at least one bar in between."""

    market: str
    models: tuple[ModelFacts, ...]
    start: date
    end: date
    symbols: int
    costs: str  # in sentences
    fills: str  # the fill rule, such as "at the next open"
    capital: float  # at the start
    code: str  # version of the code
    seed: int | None
    trials: int  # strategies ever scored on this market, these included
    currency: str = ""  # such as "USD"; "": not named
    bars_version: int | None = None  # of the table
    more: tuple[tuple[str, str], ...] = ()  # further (name, value) pairs
    walk_forward: WalkForward | None = None


# --- one strategy -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReturnFigures:
    """What was earned, net of costs. active_cagr, information_ratio, alpha: against the main benchmark, a year."""

    total_return: float = NAN
    cagr: float = NAN
    volatility: float = NAN  # a year
    sharpe: float = NAN  # a year
    sortino: float = NAN  # a year
    calmar: float = NAN
    max_drawdown: float = NAN  # negative
    hit_ratio: float = NAN  # share of sessions with a gain
    active_cagr: float = NAN
    information_ratio: float = NAN
    alpha: float = NAN


@dataclass(frozen=True, slots=True)
class RiskFigures:
    """What could be lost. var, cvar: historical, 5 % of one session, as returns (a loss is negative).

    drawdown_*: of the deepest fall; drawdown_sessions: from its peak to its recovery, or to the end where there is none.
    under_water: most sessions in a row below an earlier peak. beta, tracking_error (a year): against the main benchmark.
    """

    var: float = NAN
    cvar: float = NAN
    skew: float = NAN
    kurtosis: float = NAN  # 3 for a normal distribution
    worst: float = NAN  # return of the worst session
    best: float = NAN
    drawdown_peak: date | None = None
    drawdown_trough: date | None = None
    drawdown_recovered: date | None = None  # None: not yet
    drawdown_sessions: float = NAN
    under_water: float = NAN
    beta: float = NAN
    tracking_error: float = NAN


@dataclass(frozen=True, slots=True)
class TradingFigures:
    """How it traded. A trade is a position from flat to flat. capacity: capital at which fills become too large for the
    market; capacity_rule says when, "at which 5 % of the fills would exceed ...". expectancy: mean profit of a closed trade,
    as a fraction of its peak notional."""

    turnover: float = NAN  # one-way, times a year
    gross: float = NAN  # mean exposure, fraction of equity
    net: float = NAN
    positions: float = NAN  # mean number held
    fills: float = NAN
    unfilled: float = NAN  # orders that risk limits, the auction or the volume cap did not let through whole
    trades: float = NAN  # closed
    win_rate: float = NAN
    profit_factor: float = NAN
    payoff: float = NAN  # mean gain over mean loss
    expectancy: float = NAN
    holding: float = NAN  # mean sessions from opening to closing
    capacity: float = NAN  # currency
    capacity_rule: str = ""


@dataclass(frozen=True, slots=True)
class SharpeWay:
    """One test of the Sharpe ratio against zero, one-sided. `reason` says why there is no p-value, else ""."""

    standard_error: float = NAN  # of the ratio a year
    p_value: float = NAN
    reason: str = ""


@dataclass(frozen=True, slots=True)
class SignificanceFigures:
    """How sure one can be. moments, hac, bootstrap: the three ways of `metrics.significance`.

    psr: probability that the true Sharpe ratio is above 0; min_track_record: sessions it would take to say so at 5 %.
    deflated: the same above what the best of all trials would reach by luck. fdr_p: Benjamini-Hochberg over the strategies
    of the report. stepm: among the superior ones of StepM (None: not tested). active_p: one-sided, it does no better than
    the main benchmark. cash_rate: a year, taken off the returns before they were tested; 0 for none.
    """

    moments: SharpeWay = SharpeWay()
    hac: SharpeWay = SharpeWay()
    bootstrap: SharpeWay = SharpeWay()
    psr: float = NAN
    min_track_record: float = NAN
    deflated: float = NAN
    deflated_reason: str = ""  # why there is none
    fdr_p: float = NAN
    stepm: bool | None = None
    active_p: float = NAN
    active_reason: str = ""
    cash_rate: float = 0.0
    tested_sharpe: float = NAN  # a year, of the returns beyond cash; the Sharpe ratio itself where cash earns nothing


@dataclass(frozen=True, slots=True, eq=False)
class DailySeries:
    """[N] each, one value per session. turnover: one-way, as a share of equity. gross, net: exposure at the close, as a
    share of equity; positions: number held. The others in currency: what was paid for trading and borrowing, and interest
    on cash (negative where cash was owed). All NaN: not known."""

    turnover: FloatArray
    gross: FloatArray
    net: FloatArray
    positions: FloatArray
    commission: FloatArray
    spread: FloatArray
    slippage: FloatArray
    impact: FloatArray
    borrow: FloatArray
    interest: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class SectorSeries:
    """The K sectors that were held. weights [N,K]: at the close, share of equity, shorts negative. contribution [K]: sum over
    sessions of the sector's profit after costs / equity of the session before (arithmetic, over the whole period)."""

    names: tuple[str, ...]
    weights: FloatArray
    contribution: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class RandomPortfolios:
    """Sharpe ratios [R], a year and net of the same costs, of portfolios drawn at random that trade as much.

    p_value: share of them that do at least as well, (1 + count) / (R + 1). rule: how they were drawn, a sentence.
    """

    sharpe: FloatArray
    p_value: float
    rule: str


@dataclass(frozen=True, slots=True, eq=False)
class StrategyReport:
    """One strategy or benchmark. model: "" where none is used. equity [N]: currency, at each session's close."""

    name: str
    model: str
    benchmark: bool
    sessions: tuple[date, ...]
    equity: FloatArray
    returns: ReturnFigures
    risk: RiskFigures
    trading: TradingFigures
    significance: SignificanceFigures
    daily: DailySeries
    sectors: SectorSeries | None = None
    random: RandomPortfolios | None = None

    @property
    def label(self) -> str:
        """The name by which the whole report calls it: "top10 · lstm", or "buy-and-hold" where there is no model."""
        return label_of(self.name, self.model)


def label_of(name: str, model: str) -> str:
    """The label of a strategy of a model, "" for none."""
    return f"{name} · {model}" if model else name


# --- all strategies together ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JointTests:
    """Tests over all strategies at once. spa_*: p-values of Hansen's SPA that the best does no better than `against`.

    stepm: labels of the superior ones at `level`. `reason`: why there are none, then the p-values are NaN.
    """

    against: str  # label of the benchmark
    spa_lower: float = NAN
    spa_consistent: float = NAN
    spa_upper: float = NAN
    stepm: tuple[str, ...] = ()
    level: float = 0.05
    resamples: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Overfitting:
    """Combinatorially symmetric cross-validation (Bailey et al. 2017) of `variants` return series in `blocks` blocks.

    pbo: share of splits in which the best half is below the median in the other one; logits [C], one per split. slope: of
    Sharpe out of sample on Sharpe in sample; loss_probability: of a Sharpe below 0 out of sample. `reason`: why pbo is NaN.
    """

    pbo: float
    logits: FloatArray
    variants: int
    blocks: int
    slope: float = NAN
    loss_probability: float = NAN
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Measure:
    """A figure [R,G] of a breakdown. percent: show as per cent; digits: after the decimal point."""

    name: str
    meaning: str
    values: FloatArray
    percent: bool = False
    digits: int = 2


@dataclass(frozen=True, slots=True, eq=False)
class Breakdown:
    """Figures of R rows in G groups: of strategies by regime, by sector ... sizes [G]: in words, such as "312 sessions"."""

    title: str
    lead: str  # how the groups were made, a sentence or two
    groups: tuple[str, ...]
    sizes: tuple[str, ...]
    rows: tuple[str, ...]  # labels of strategies, mostly
    measures: tuple[Measure, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Sensitivity:
    """What L strategies would have earned at V other values of one setting; sharpe (a year) and cagr are [L,V].

    ticks [V]: the values in words, "2×", in ascending order of what they stand for; chosen: index of the one that the rest of
    the report uses, None where it is not among them.
    """

    title: str  # such as "Costs"
    lead: str
    setting: str  # the axis: "costs, times the assumed ones"
    ticks: tuple[str, ...]
    chosen: int | None
    labels: tuple[str, ...]
    sharpe: FloatArray
    cagr: FloatArray


# --- forecasts --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class IcSeries:
    """Rank IC [N] by decision session; NaN where it is not defined."""

    sessions: tuple[date, ...]
    ic: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Buckets:
    """Mean label [B] of the symbols of a session sorted into B buckets by forecast, lowest first, with the standard error [B]
    of the mean over sessions. spread: top minus bottom, spread_t its t; monotonicity: Spearman of bucket and mean."""

    mean: FloatArray
    standard_error: FloatArray
    spread: float = NAN
    spread_t: float = NAN
    monotonicity: float = NAN
    dates: int = 0
    left_out: int = 0  # sessions with too few symbols


@dataclass(frozen=True, slots=True)
class SkillRow:
    """One figure of forecast skill beside what no skill would give (NaN: no such figure)."""

    metric: str
    value: float
    no_skill: float = NAN
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class ForecastReport:
    """The forecasts of one model over one horizon, in sessions. gaps: days or symbols it has no forecast for, sentences."""

    model: str
    horizon: int
    ic: IcSeries | None
    buckets: Buckets | None
    skill: tuple[SkillRow, ...]
    gaps: tuple[str, ...] = ()


# --- fills ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FillRow:
    """One fill. quantity in shares, above 0; cost: commission, spread, slippage and impact, in currency."""

    session: date
    strategy: str  # label
    symbol: str
    side: str
    quantity: float
    price: float
    cost: float


@dataclass(frozen=True, slots=True)
class Blotter:
    """Fills in time order. fills: all or the last ones (the report keeps at most its own limit of them, again the last);
    total: how many there are; file: where the whole list lies, beside the report; note: how they were chosen, a sentence."""

    fills: tuple[FillRow, ...]
    total: int
    file: str = "trades.parquet"
    note: str = ""


# --- the report -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationReport:
    """All the report shows. benchmark: label of the main one among `strategies`, "" where there is none.

    findings: what went wrong or is odd in this run ("positions without a bar at the end"), sentences. notes: what these data
    cannot tell (survivorship ...). quality: of the bars; None: not looked at.
    """

    title: str
    run: RunFacts
    strategies: tuple[StrategyReport, ...]  # benchmarks among them
    benchmark: str
    forecasts: tuple[ForecastReport, ...] = ()
    joint: JointTests | None = None
    overfitting: Overfitting | None = None
    breakdowns: tuple[Breakdown, ...] = ()
    sensitivities: tuple[Sensitivity, ...] = ()
    blotter: Blotter | None = None
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    quality: QualitySection | None = None
    sessions_per_year: int = SESSIONS_PER_YEAR
