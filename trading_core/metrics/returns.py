"""Returns of an equity curve. Pure functions of float64 arrays.

Conventions: simple returns, one per session; 252 sessions a year unless `per_year` says otherwise (365 where a market
never closes); the risk-free rate is 0; standard deviations use
n - 1. A figure that is not defined (too few returns, zero variance) is NaN, never a made-up number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from trading_core.schema import FloatArray

SESSIONS_PER_YEAR = 252


def simple_returns(equity: FloatArray) -> FloatArray:
    """equity[n] / equity[n-1] - 1, [N] -> [N-1]."""
    return equity[1:] / equity[:-1] - 1.0


def total_return(equity: FloatArray) -> float:
    """equity[-1] / equity[0] - 1, a fraction of the first value."""
    return float(equity[-1] / equity[0] - 1.0) if len(equity) else math.nan


def cagr(equity: FloatArray, per_year: int = SESSIONS_PER_YEAR) -> float:
    """Compound growth a year: (equity[-1] / equity[0]) ** (per_year / (N - 1)) - 1."""
    periods = len(equity) - 1
    if periods < 1:
        return math.nan
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
    peak: int
    trough: int
    recovered: int | None


def max_drawdown(equity: FloatArray) -> Drawdown:
    """The deepest drawdown of `equity` [N], N >= 1; depth 0 at index 0 when it never falls."""
    falls = drawdowns(equity)
    trough = int(np.argmin(falls))
    peak = int(np.argmax(equity[: trough + 1]))
    again = np.flatnonzero(equity[trough:] >= equity[peak])
    return Drawdown(float(falls[trough]), peak, trough, trough + int(again[0]) if len(again) else None)


def calmar(equity: FloatArray, per_year: int = SESSIONS_PER_YEAR) -> float:
    """CAGR / |maximum drawdown| (Young 1991, over the whole curve); NaN without a drawdown."""
    depth = max_drawdown(equity).depth if len(equity) else 0.0
    return cagr(equity, per_year) / abs(depth) if depth < 0 else math.nan


def hit_ratio(returns: FloatArray) -> float:
    """The share of sessions with a positive return; a session of exactly 0 counts as not positive."""
    return float(np.mean(returns > 0)) if len(returns) else math.nan


def turnover_annual(turnover: FloatArray, per_year: int = SESSIONS_PER_YEAR) -> float:
    """Mean one-way turnover of a session (half of buys + sells, over equity) * per_year; 1 = all replaced once a year."""
    return float(np.mean(turnover)) * per_year if len(turnover) else math.nan


def information_ratio(returns: FloatArray, benchmark: FloatArray, per_year: int = SESSIONS_PER_YEAR) -> float:
    """Sharpe ratio of the active returns (returns - benchmark), annualised with sqrt(per_year)."""
    return sharpe_annual(returns - benchmark, per_year)


def beta(returns: FloatArray, benchmark: FloatArray) -> float:
    """cov(returns, benchmark) / var(benchmark); NaN when the benchmark does not vary."""
    if len(returns) < 2 or not varies(benchmark):
        return math.nan
    moments = np.cov(returns, benchmark, ddof=1)
    return float(moments[0, 1] / moments[1, 1])


def alpha_annual(returns: FloatArray, benchmark: FloatArray, per_year: int = SESSIONS_PER_YEAR) -> float:
    """(mean(returns) - beta * mean(benchmark)) * per_year: Jensen's alpha with a risk-free rate of 0, arithmetic."""
    return float(np.mean(returns) - beta(returns, benchmark) * np.mean(benchmark)) * per_year


@dataclass(frozen=True, slots=True)
class ReturnSummary:
    """The figures of one equity curve, net of costs. Fractions unless named; the last four NaN without a benchmark."""

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


def summarize(
    equity: FloatArray, turnover: FloatArray, benchmark: FloatArray | None = None, per_year: int = SESSIONS_PER_YEAR
) -> ReturnSummary:
    """All figures of `equity` [N]; `turnover` [N] or [N-1] one-way per session; `benchmark` [N], another equity curve.

    A `turnover` as long as `equity` begins with the session before the first return, which is left out.
    """
    returns = simple_returns(equity)
    active = (math.nan, math.nan, math.nan, math.nan)
    if benchmark is not None:
        other = simple_returns(benchmark)
        active = (
            cagr(equity, per_year) - cagr(benchmark, per_year),
            information_ratio(returns, other, per_year),
            beta(returns, other),
            alpha_annual(returns, other, per_year),
        )
    return ReturnSummary(
        total_return(equity),
        cagr(equity, per_year),
        volatility_annual(returns, per_year),
        sharpe_annual(returns, per_year),
        sortino_annual(returns, per_year),
        calmar(equity, per_year),
        max_drawdown(equity).depth,
        hit_ratio(returns),
        turnover_annual(turnover[1:] if len(turnover) == len(equity) else turnover, per_year),
        *active,
    )
