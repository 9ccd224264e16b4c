"""Whether one strategy is better than another over the same sessions: its Sharpe ratio, its mean return.

Sources: Ledoit & Wolf (2008), "Robust Performance Hypothesis Testing with the Sharpe Ratio"; Newey & West (1987, 1994);
Politis & Romano (1994), "The Stationary Bootstrap".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trading_core.errors import InvalidConfigError
from trading_core.metrics.returns import SESSIONS_PER_YEAR, sharpe_per_session, varies
from trading_core.metrics.significance import (
    NO_DEVIATION,
    RESAMPLES,
    VOLATILITY_FLOOR,
    less_cash,
    long_run_variance,
    newey_west_lags,
    resampled_p_value,
    sharpe_influence,
    untestable,
    upper_tail,
)
from trading_core.schema import FloatArray

PairedMethod = Literal["hac", "bootstrap"]


@dataclass(frozen=True, slots=True)
class PairedTest:
    """H0: the first is not better than the second. `reason` says why the p-values are NaN, else "".

    Figures are annual: Sharpe ratios, or arithmetic mean returns (fractions).
    """

    first_annual: float
    second_annual: float
    difference_annual: float  # first - second
    standard_error_annual: float
    statistic: float  # difference / standard error
    p_value: float  # one-sided: of a difference this far above 0
    p_two_sided: float  # of a difference this far from 0, either way
    returns: int
    method: PairedMethod
    reason: str = ""
    block_length: float = math.nan  # mean days of a block; of the bootstrap
    resamples: int = 0


@dataclass(frozen=True, slots=True)
class _Sample:
    """Two figures per session, and what each session moves their difference by, times n: [N], mean 0."""

    first: float
    second: float
    influence: FloatArray
    scale: float  # to annual


@dataclass(frozen=True, slots=True)
class _Settings:
    method: PairedMethod
    lags: int | None
    seed: int
    resamples: int
    block_length: float | None


def sharpe_difference_test(
    first: FloatArray,
    second: FloatArray,
    method: PairedMethod = "hac",
    lags: int | None = None,
    per_year: int = SESSIONS_PER_YEAR,
    *,
    cash: FloatArray | float = 0.0,
    volatility_floor: float = VOLATILITY_FLOOR,
    seed: int = 0,
    resamples: int = RESAMPLES,
    block_length: float | None = None,
) -> PairedTest:
    """Tests whether the Sharpe ratio of `first` is above that of `second`, both [N] simple returns of the same sessions.

    "hac": the delta method with a long-run variance, as Ledoit & Wolf (2008, section 3.1), but with Bartlett weights and
    `lags` (default: `newey_west_lags`). "bootstrap": the plain stationary bootstrap of both on the same days, centred at
    the observed difference; not their studentised one. `cash`, `volatility_floor` (of either) and when there is no
    answer: as in `sharpe_test`, and where the two do not differ. Errors: InvalidConfigError.
    """
    _same_length(first, second)
    settings = _Settings(method, lags, seed, resamples, block_length)
    pair = (less_cash(first, cash), less_cash(second, cash))
    reasons = [untestable(returns, per_year, volatility_floor) for returns in pair]
    scale = math.sqrt(per_year)
    ratios = [sharpe_per_session(r) if np.isfinite(r).all() else math.nan for r in pair]
    if any(reasons):
        reason = f"the first: {reasons[0]}" if reasons[0] else f"the second: {reasons[1]}"
        return _untested(_Sample(ratios[0], ratios[1], np.zeros(len(first)), scale), settings, reason)
    sample = _Sample(ratios[0], ratios[1], sharpe_influence(pair[0]) - sharpe_influence(pair[1]), scale)
    return _tested(sample, np.column_stack(pair), settings)


def active_return_test(
    first: FloatArray,
    second: FloatArray,
    method: PairedMethod = "hac",
    lags: int | None = None,
    per_year: int = SESSIONS_PER_YEAR,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    block_length: float | None = None,
) -> PairedTest:
    """Tests whether the mean return of `first` is above that of `second`, both [N] simple returns of the same sessions.

    "hac": mean / sqrt(long-run variance / n) with Bartlett weights; "bootstrap": the stationary bootstrap of the
    differences, centred at their mean. NaN with a reason for fewer than 30 sessions, and differences that are not finite
    or do not vary. Errors: InvalidConfigError.
    """
    _same_length(first, second)
    settings = _Settings(method, lags, seed, resamples, block_length)
    active = np.asarray(first, dtype=np.float64) - second
    means = [float(np.mean(r)) if len(r) else math.nan for r in (first, second)]
    sample = _Sample(means[0], means[1], active - active.mean() if len(active) else active, float(per_year))
    if reason := untestable(active, what="differences"):
        return _untested(sample, settings, reason)
    return _tested(sample, active[:, None], settings)


def _same_length(first: FloatArray, second: FloatArray) -> None:
    if len(first) != len(second):
        raise InvalidConfigError("The pair", [f"{len(first)} and {len(second)} returns; the same sessions are needed"])


def _tested(sample: _Sample, columns: FloatArray, settings: _Settings) -> PairedTest:
    """columns: [N, 2] returns whose Sharpe ratios are compared, or [N, 1] differences whose mean is tested."""
    difference = sample.first - sample.second
    if not varies(sample.influence):
        return _untested(sample, settings, "the two do not differ in what is compared")
    if settings.method == "bootstrap":
        return _bootstrapped(sample, columns, settings)
    if settings.method != "hac":
        raise InvalidConfigError("The paired test", [f"method: {settings.method}; hac or bootstrap"])
    count = len(sample.influence)
    lags = newey_west_lags(count) if settings.lags is None else settings.lags
    error = math.sqrt(long_run_variance(sample.influence, lags) / count)
    if not error > 0.0:
        return _untested(sample, settings, "the standard error is zero")
    p_value, p_two_sided = upper_tail(difference / error), 2.0 * upper_tail(abs(difference / error))
    return _result(sample, settings, error, p_value, p_two_sided)


def _bootstrapped(sample: _Sample, columns: FloatArray, settings: _Settings) -> PairedTest:
    from trading_core.metrics import bootstrap  # imports numba, a second; only this method needs it

    length = settings.block_length
    length = bootstrap.optimal_block_length(sample.influence) if length is None else length
    drawn = bootstrap.stationary_bootstrap(columns, length, settings.resamples, settings.seed)
    if columns.shape[1] == 1:
        differences = drawn.means[:, 0]
    elif np.any(drawn.deviations <= NO_DEVIATION * np.std(columns, axis=0)):
        return _untested(sample, settings, "in some resamples the returns do not vary")
    else:
        ratios = drawn.means / drawn.deviations
        differences = ratios[:, 0] - ratios[:, 1]
    difference = sample.first - sample.second
    null = differences - difference
    error = float(np.std(differences, ddof=1)) if settings.resamples > 1 else math.nan
    p_two_sided = resampled_p_value(np.abs(null), abs(difference)) if difference else 1.0
    return _result(sample, settings, error, resampled_p_value(null, difference), p_two_sided, length)


def _result(
    sample: _Sample,
    settings: _Settings,
    error: float,
    p_value: float,
    p_two_sided: float,
    block_length: float = math.nan,
    reason: str = "",
) -> PairedTest:
    difference = sample.first - sample.second
    return PairedTest(
        first_annual=sample.first * sample.scale,
        second_annual=sample.second * sample.scale,
        difference_annual=difference * sample.scale,
        standard_error_annual=error * sample.scale,
        statistic=difference / error if error > 0.0 else math.nan,
        p_value=p_value,
        p_two_sided=p_two_sided,
        returns=len(sample.influence),
        method=settings.method,
        reason=reason,
        block_length=block_length,
        resamples=settings.resamples if math.isfinite(block_length) else 0,
    )


def _untested(sample: _Sample, settings: _Settings, reason: str) -> PairedTest:
    return _result(sample, settings, math.nan, math.nan, math.nan, reason=reason)
