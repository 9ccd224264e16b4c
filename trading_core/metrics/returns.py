"""Returns of an equity curve. Pure functions of float64 arrays.

Conventions: simple returns, one per session; 252 sessions a year unless `per_year` says otherwise (365 where a market
never closes); the risk-free rate is 0; standard deviations use n - 1, skewness and kurtosis moments over n. A figure
that is not defined (too few returns, zero variance, returns that are not finite) is NaN, never a made-up number. By
month and year, and over rolling windows: trading_core.metrics.periods.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from trading_core.errors import InvalidConfigError, WrongTypeError
from trading_core.schema import FloatArray

SESSIONS_PER_YEAR = 252
TAIL_LEVEL = 0.05  # of the value at risk in a summary


def simple_returns(equity: FloatArray) -> FloatArray:
    """equity[n] / equity[n-1] - 1, [N] -> [N-1]; NaN after a value of 0 or below: what is lost has no return."""
    before = equity[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(before > 0.0, equity[1:] / before - 1.0, np.nan)


def total_return(equity: FloatArray) -> float:
    """equity[-1] / equity[0] - 1, a fraction of the first value; -1 once equity was not above 0: nobody lends it a way back."""
    if not len(equity):
        return math.nan
    return -1.0 if bool(np.any(equity <= 0.0)) else float(equity[-1] / equity[0] - 1.0)


def cagr(equity: FloatArray, per_year: int = SESSIONS_PER_YEAR) -> float:
    """Compound growth a year: (equity[-1] / equity[0]) ** (per_year / (N - 1)) - 1; -1 once it was not above 0."""
    periods = len(equity) - 1
    if periods < 1:
        return math.nan
    if bool(np.any(equity <= 0.0)):
        return -1.0
    return float((equity[-1] / equity[0]) ** (per_year / periods) - 1.0)


def volatility_annual(returns: FloatArray, per_year: int = SESSIONS_PER_YEAR) -> float:
    """std(returns, n - 1) * sqrt(per_year)."""
    return float(np.std(returns, ddof=1) * math.sqrt(per_year)) if len(returns) > 1 else math.nan


def sharpe_annual(returns: FloatArray, per_year: int = SESSIONS_PER_YEAR) -> float:
    """mean / std(n - 1) * sqrt(per_year) with a risk-free rate of 0 (Sharpe 1994). NaN when the returns do not vary."""
    return sharpe_per_session(returns) * math.sqrt(per_year)


def sharpe_per_session(returns: FloatArray) -> float:
    """mean / std(n - 1), not annualised. NaN when there are fewer than two returns or they do not vary."""
    if len(returns) < 2 or not varies(returns):
        return math.nan
    return float(np.mean(returns) / np.std(returns, ddof=1))


def varies(returns: FloatArray) -> bool:
    """Whether the returns differ by more than float noise."""
    return bool(np.ptp(returns) > 1e-14 * max(1.0, float(np.max(np.abs(returns)))))


def skewness(returns: FloatArray) -> float:
    """Third central moment / std^3, moments over n (not bias-corrected); NaN when the returns do not vary."""
    z = _standardized(returns)
    return float(np.mean(z * z * z)) if len(z) else math.nan


def kurtosis(returns: FloatArray) -> float:
    """Fourth central moment / std^4, moments over n: 3 for a normal distribution; NaN when the returns do not vary."""
    z = _standardized(returns)
    return float(np.mean((z * z) ** 2)) if len(z) else math.nan


def _standardized(returns: FloatArray) -> FloatArray:
    """Mean 0, standard deviation (over n) 1; empty when the returns do not vary."""
    if len(returns) < 2 or not varies(returns):
        return np.zeros(0)
    return np.asarray((returns - np.mean(returns)) / np.std(returns), dtype=np.float64)


def value_at_risk(returns: FloatArray, level: float = TAIL_LEVEL) -> float:
    """Historical value at risk of one session, a fraction of equity, positive for a loss: minus the empirical quantile.

    The quantile is the ceil(n level)-th smallest return, the inverse of the empirical distribution (definition 1 of
    Hyndman & Fan 1996), without interpolation; with fewer than 1 / level returns it is the worst one.
    Errors: InvalidConfigError unless 0 < level < 1.
    """
    worst = _tail(returns, level)
    return -float(np.max(worst)) if len(worst) else math.nan


def conditional_value_at_risk(returns: FloatArray, level: float = TAIL_LEVEL) -> float:
    """Historical CVaR (expected shortfall): the mean loss of the worst n level sessions, positive for a loss.

    The last of them counts with the fraction that n level leaves of it, as in Acerbi & Tasche (2002, eq. 12), so that
    it is coherent and never below `value_at_risk`. Errors: InvalidConfigError unless 0 < level < 1.
    """
    worst = _tail(returns, level)
    if not len(worst):
        return math.nan
    quantile = np.max(worst)
    return float(np.sum(quantile - worst) / (len(returns) * level) - quantile)


def _tail(returns: FloatArray, level: float) -> FloatArray:
    """The ceil(n level) smallest returns, at least one, in any order; empty when there is none or one is not finite."""
    if not 0.0 < level < 1.0:
        raise InvalidConfigError("The value at risk", [f"level: {level} is not allowed; it lies between 0 and 1"])
    if not len(returns) or not np.isfinite(returns).all():
        return np.zeros(0)
    count = max(math.ceil(len(returns) * level - 1e-9), 1)  # 100 * 0.07 is a little more than 7 in floats
    return np.partition(returns, count - 1)[:count]


def sortino_annual(returns: FloatArray, per_year: int = SESSIONS_PER_YEAR) -> float:
    """mean / sqrt(mean(min(r, 0)^2)) * sqrt(per_year): downside deviation about 0 over all n (Sortino & Price 1994)."""
    if not len(returns):
        return math.nan
    downside = math.sqrt(float(np.mean(np.minimum(returns, 0.0) ** 2)))
    return float(np.mean(returns)) / downside * math.sqrt(per_year) if downside > 0 else math.nan


def drawdowns(equity: FloatArray) -> FloatArray:
    """equity / highest equity so far - 1, [N], at most 0."""
    return equity / np.maximum.accumulate(equity) - 1.0


@dataclass(frozen=True, slots=True)
class Drawdown:
    """The deepest fall: `depth` (a negative fraction), indices of peak, trough and recovery (None: not yet)."""

    depth: float
    peak: int  # the last one at that height
    trough: int
    recovered: int | None

    @property
    def sessions(self) -> int | None:
        """Sessions from the peak to the recovery; None: not recovered yet."""
        return None if self.recovered is None else self.recovered - self.peak


def max_drawdown(equity: FloatArray) -> Drawdown:
    """The deepest drawdown of `equity` [N], N >= 1; depth 0 at index 0 when it never falls."""
    falls = drawdowns(equity)
    trough = int(np.argmin(falls))
    peak = trough - int(np.argmax(equity[trough::-1]))
    again = np.flatnonzero(equity[trough:] >= equity[peak])
    return Drawdown(float(falls[trough]), peak, trough, trough + int(again[0]) if len(again) else None)


@dataclass(frozen=True, slots=True)
class UnderWater:
    """The longest time below an earlier high: from the session of the high (`peak`) to the one that reached it again."""

    sessions: int  # recovered - peak; to the last session where it is not recovered
    peak: int
    recovered: int | None  # None: not yet


def longest_under_water(equity: FloatArray) -> UnderWater:
    """The longest stretch below an earlier high of `equity` [N], N >= 1 and finite, the first of equal ones; 0 sessions
    at index 0 when it never falls. It need not be the deepest one."""
    highs = np.flatnonzero(equity >= np.maximum.accumulate(equity))
    lengths = np.diff(highs, append=len(equity) - 1)
    lengths[:-1][lengths[:-1] == 1] = 0  # the next session was a high too
    longest = int(np.argmax(lengths))
    if lengths[longest] == 0:
        return UnderWater(0, 0, 0)
    again = int(highs[longest + 1]) if longest + 1 < len(highs) else None
    return UnderWater(int(lengths[longest]), int(highs[longest]), again)


def calmar(equity: FloatArray, per_year: int = SESSIONS_PER_YEAR) -> float:
    """CAGR / |maximum drawdown| (Young 1991, over the whole curve); NaN without a drawdown, and after ruin."""
    depth = max_drawdown(equity).depth if len(equity) else 0.0
    return cagr(equity, per_year) / abs(depth) if -1.0 < depth < 0 else math.nan


def hit_ratio(returns: FloatArray) -> float:
    """The share of sessions with a positive return; a session of exactly 0 counts as not positive."""
    return float(np.mean(returns > 0)) if len(returns) and np.isfinite(returns).all() else math.nan


def turnover_annual(turnover: FloatArray, per_year: int = SESSIONS_PER_YEAR) -> float:
    """Mean one-way turnover of a session (half of buys + sells, over equity) * per_year; 1 = all replaced once a year."""
    return float(np.mean(turnover)) * per_year if len(turnover) else math.nan


def gross_exposure(values: FloatArray, equity: FloatArray) -> FloatArray:
    """sum over symbols of |value| / equity, [N, S] and [N] -> [N]: 1 = as much held, long and short, as there is equity.

    values: market value of each position at the close, negative for shorts, NaN where nothing is held.
    """
    return np.asarray(np.nansum(np.abs(values), axis=1) / equity, dtype=np.float64)


def net_exposure(values: FloatArray, equity: FloatArray) -> FloatArray:
    """sum over symbols of value / equity, arguments as in `gross_exposure`: longs minus shorts."""
    return np.asarray(np.nansum(values, axis=1) / equity, dtype=np.float64)


def information_ratio(returns: FloatArray, benchmark: FloatArray, per_year: int = SESSIONS_PER_YEAR) -> float:
    """Sharpe ratio of the active returns (returns - benchmark), annualised with sqrt(per_year)."""
    return sharpe_annual(returns - benchmark, per_year)


def tracking_error_annual(returns: FloatArray, benchmark: FloatArray, per_year: int = SESSIONS_PER_YEAR) -> float:
    """std(returns - benchmark, n - 1) * sqrt(per_year)."""
    return volatility_annual(returns - benchmark, per_year)


def beta(returns: FloatArray, benchmark: FloatArray) -> float:
    """cov(returns, benchmark) / var(benchmark); NaN when the benchmark does not vary."""
    if len(returns) < 2 or not varies(benchmark):
        return math.nan
    moments = np.cov(returns, benchmark, ddof=1)
    return float(moments[0, 1] / moments[1, 1])


def alpha_annual(returns: FloatArray, benchmark: FloatArray, per_year: int = SESSIONS_PER_YEAR) -> float:
    """(mean(returns) - beta * mean(benchmark)) * per_year: Jensen's alpha with a risk-free rate of 0, arithmetic."""
    slope = beta(returns, benchmark)
    return float(np.mean(returns) - slope * np.mean(benchmark)) * per_year if math.isfinite(slope) else math.nan


@dataclass(frozen=True, slots=True)
class ReturnSummary:
    """The figures of one equity curve, net of costs. Fractions unless named. NaN without a benchmark: active_cagr,
    information_ratio, beta, alpha_annual and tracking_error_annual. NaN where not given: the exposures."""

    total_return: float
    cagr: float
    volatility_annual: float
    sharpe_annual: float
    sortino_annual: float
    calmar: float
    max_drawdown: float  # negative
    hit_ratio: float
    turnover_annual: float
    active_cagr: float  # CAGR minus the benchmark's
    information_ratio: float
    beta: float
    alpha_annual: float
    drawdown_peak: int  # indices into the equity curve, of the deepest drawdown
    drawdown_trough: int
    drawdown_recovered: int | None  # None: not yet
    drawdown_sessions: int  # peak to recovery, or to the last session
    under_water_sessions: int  # the longest one, see `longest_under_water`
    value_at_risk: float  # of one session at 5 %, positive for a loss
    conditional_value_at_risk: float  # likewise
    skewness: float
    kurtosis: float  # 3 for a normal distribution
    tracking_error_annual: float
    mean_gross_exposure: float  # 1 = as much held, long and short, as there is equity
    mean_net_exposure: float  # longs minus shorts


def summarize(
    equity: FloatArray,
    turnover: FloatArray,
    benchmark: FloatArray | None = None,
    per_year: int = SESSIONS_PER_YEAR,
    gross: FloatArray | None = None,
    net: FloatArray | None = None,
) -> ReturnSummary:
    """All figures of `equity` [N]; `turnover` [N] or [N-1] one-way per session; `benchmark` [N], another equity curve;
    `gross`, `net` [N] or [N-1]: the exposures at each close, see `gross_exposure`.

    What is as long as `equity` and no curve begins with the session before the first return, which is left out.
    Errors: WrongTypeError for an equity curve that is empty or not finite, or arrays of another length.
    """
    _check(equity, turnover, benchmark, gross, net)
    returns = simple_returns(equity)
    active = _active(equity, returns, benchmark, per_year)
    fall = max_drawdown(equity)
    return ReturnSummary(
        total_return=total_return(equity),
        cagr=cagr(equity, per_year),
        volatility_annual=volatility_annual(returns, per_year),
        sharpe_annual=sharpe_annual(returns, per_year),
        sortino_annual=sortino_annual(returns, per_year),
        calmar=calmar(equity, per_year),
        max_drawdown=fall.depth,
        hit_ratio=hit_ratio(returns),
        turnover_annual=turnover_annual(turnover[len(turnover) - len(returns) :], per_year),
        active_cagr=active[0],
        information_ratio=active[1],
        beta=active[2],
        alpha_annual=active[3],
        drawdown_peak=fall.peak,
        drawdown_trough=fall.trough,
        drawdown_recovered=fall.recovered,
        drawdown_sessions=(len(equity) - 1 if fall.recovered is None else fall.recovered) - fall.peak,
        under_water_sessions=longest_under_water(equity).sessions,
        value_at_risk=value_at_risk(returns),
        conditional_value_at_risk=conditional_value_at_risk(returns),
        skewness=skewness(returns),
        kurtosis=kurtosis(returns),
        tracking_error_annual=active[4],
        mean_gross_exposure=_mean_of_last(gross, len(returns)),
        mean_net_exposure=_mean_of_last(net, len(returns)),
    )


def _active(
    equity: FloatArray, returns: FloatArray, benchmark: FloatArray | None, per_year: int
) -> tuple[float, float, float, float, float]:
    """Active CAGR, information ratio, beta, alpha and tracking error; NaN without a benchmark."""
    if benchmark is None:
        return (math.nan, math.nan, math.nan, math.nan, math.nan)
    other = simple_returns(benchmark)
    return (
        cagr(equity, per_year) - cagr(benchmark, per_year),
        information_ratio(returns, other, per_year),
        beta(returns, other),
        alpha_annual(returns, other, per_year),
        tracking_error_annual(returns, other, per_year),
    )


def _mean_of_last(values: FloatArray | None, count: int) -> float:
    """The mean of the last `count` values; NaN when there are none."""
    return math.nan if values is None or not count else float(np.mean(values[-count:]))


def _check(
    equity: FloatArray,
    turnover: FloatArray,
    benchmark: FloatArray | None,
    gross: FloatArray | None,
    net: FloatArray | None,
) -> None:
    """Errors: see `summarize`."""
    where, count = "The figures of an equity curve", len(equity)
    if not count or not np.isfinite(equity).all():
        found = "empty" if not count else f"not finite at position {int(np.argmin(np.isfinite(equity)))}"
        raise WrongTypeError(where, "equity", found, "finite numbers")
    if benchmark is not None and len(benchmark) != count:
        raise WrongTypeError(where, "benchmark", f"{len(benchmark)} long", f"{count}, as the equity curve")
    for name, values in (("turnover", turnover), ("gross", gross), ("net", net)):
        if values is not None and len(values) not in (count, count - 1):
            raise WrongTypeError(where, name, f"{len(values)} long", f"{count} or {count - 1}")
