"""How good a Sharpe ratio has to be: against a mark, for a length of record, and as the best of many that were tried.

Sources: Bailey & Lopez de Prado (2012), "The Sharpe Ratio Efficient Frontier" (PSR, MinTRL), and (2014), "The Deflated
Sharpe Ratio" (DSR). Functions of numbers take Sharpe ratios per session and raw kurtosis (3 for a normal distribution),
as the papers do; what is named annual is per year. All of it holds for independent returns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from trading_core.errors import InvalidConfigError
from trading_core.metrics.returns import SESSIONS_PER_YEAR, kurtosis, sharpe_per_session, skewness, varies
from trading_core.metrics.significance import (
    MIN_RETURNS,
    VOLATILITY_FLOOR,
    annual,
    less_cash,
    sharpe_standard_error,
    untestable,
    upper_tail,
)
from trading_core.schema import FloatArray

EULER_MASCHERONI = 0.5772156649015329
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class ProbabilisticSharpe:
    """How sure one can be that the true Sharpe ratio lies above a mark. `reason` says why `probability` is NaN, else ""."""

    probability: float  # PSR: 1 - the p-value of "at most the mark"
    sharpe_annual: float
    benchmark_annual: float  # the mark
    minimum_track_record: float  # returns needed for `confidence`; NaN at or below the mark, where no number is enough
    confidence: float
    skewness: float
    kurtosis: float  # 3 for a normal distribution
    returns: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TrialStats:
    """The Sharpe ratios of everything that was tried, those without a value included in `count`."""

    count: int
    valued: int  # trials with a finite Sharpe ratio
    mean_annual: float  # of those; NaN without any
    variance_annual: float  # of those, n - 1; NaN for fewer than two
    best_annual: float
    effective: float = math.nan  # independent ones among them, see `effective_trials`; NaN: not known


@dataclass(frozen=True, slots=True)
class EffectiveTrials:
    """Two answers to how many of M trials count as independent, from 1 to M. NaN with a `reason`.

    by_average_correlation: r + (1 - r) M with r the mean correlation of two trials (Bailey & Lopez de Prado 2014,
    appendix): high where trials come in groups. by_effective_rank: exp of the entropy of the correlation matrix's
    eigenvalues / M (Roy & Vetterli 2007): counts groups as one each, and is low where there are few returns per trial.
    """

    trials: int  # M that could be used
    by_average_correlation: float
    by_effective_rank: float
    average_correlation: float
    left_out: int  # columns that are not finite or do not vary
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DeflatedSharpe:
    """How sure one can be that a Sharpe ratio is more than the best of as many tries by luck. See `deflated_sharpe`."""

    probability: float  # DSR, for the plain count of trials
    sharpe_annual: float
    threshold_annual: float  # the Sharpe ratio that the best of `trials` without skill is expected to have
    trials: int
    variance_annual: float  # of the trials' annual Sharpe ratios
    effective_trials: float  # NaN: not known
    probability_effective: float  # DSR for that number of trials, beside the other
    skewness: float
    kurtosis: float
    returns: int
    reason: str = ""


def probabilistic_sharpe(sharpe: float, benchmark: float, skew: float, kurt: float, count: int) -> float:
    """PSR: the normal distribution at (SR - benchmark) / `sharpe_standard_error` (Bailey & Lopez de Prado 2012).

    Sharpe ratios per session, `count` returns. NaN where the standard error is 0 or not defined.
    """
    error = sharpe_standard_error(sharpe, skew, kurt, count)
    return upper_tail((benchmark - sharpe) / error) if error > 0 else math.nan


def minimum_track_record(sharpe: float, benchmark: float, skew: float, kurt: float, confidence: float = 0.95) -> float:
    """MinTRL: how many returns a PSR of `confidence` needs if they go on as they were (2012, eq. 13). A number of returns,
    not rounded: 1 + (1 - skew SR + (kurt - 1) / 4 SR^2) (z / (SR - benchmark))^2, Sharpe ratios per session.

    NaN at or below the benchmark: no number is enough. Errors: InvalidConfigError unless 0.5 < confidence < 1.
    """
    if not 0.5 < confidence < 1.0:
        raise InvalidConfigError("The track record", [f"confidence: {confidence}; above 0.5 and below 1"])
    error = sharpe_standard_error(sharpe, skew, kurt, 2)  # of two returns: the numerator alone
    if not sharpe > benchmark:
        return math.nan
    return 1.0 + (error * _NORMAL.inv_cdf(confidence) / (sharpe - benchmark)) ** 2


def expected_maximum_sharpe(trials: float, variance: float) -> float:
    """What the best of N independent trials without skill is expected to have (2014, with mean 0):
    sqrt(variance) ((1 - g) z(1 - 1 / N) + g z(1 - 1 / (N e))), g Euler's constant, z the normal quantile.

    In the unit of sqrt(variance), the variance of the trials' Sharpe ratios; 0 for one trial: nothing was chosen.
    `trials` may be a fraction (an effective number). Errors: InvalidConfigError for fewer than one trial.
    """
    if not trials >= 1.0:
        raise InvalidConfigError("The expected maximum", [f"trials: {trials}; at least 1"])
    if trials == 1.0:
        return 0.0
    if not variance >= 0.0:
        return math.nan
    high, higher = _NORMAL.inv_cdf(1.0 - 1.0 / trials), _NORMAL.inv_cdf(1.0 - 1.0 / (trials * math.e))
    # Made for many trials: between one and two the formula falls below the mean, which the best of any number does not.
    return math.sqrt(variance) * max((1.0 - EULER_MASCHERONI) * high + EULER_MASCHERONI * higher, 0.0)


def probabilistic_sharpe_test(
    returns: FloatArray,
    benchmark_annual: float = 0.0,
    confidence: float = 0.95,
    per_year: int = SESSIONS_PER_YEAR,
    *,
    cash: FloatArray | float = 0.0,
    volatility_floor: float = VOLATILITY_FLOOR,
) -> ProbabilisticSharpe:
    """PSR and MinTRL of returns [N] against an annual Sharpe ratio. `cash`, `volatility_floor` and when there is no answer:
    as in `sharpe_test`. Errors: InvalidConfigError."""
    excess = less_cash(returns, cash)
    reason = untestable(excess, per_year, volatility_floor)
    moments = _Moments.of(excess)
    mark = benchmark_annual / math.sqrt(per_year)
    needed = minimum_track_record(moments.sharpe, mark, moments.skew, moments.kurt, confidence)
    return ProbabilisticSharpe(
        probability=math.nan if reason else moments.probability(mark),
        sharpe_annual=annual(moments.sharpe, per_year),
        benchmark_annual=benchmark_annual,
        minimum_track_record=math.nan if reason else needed,
        confidence=confidence,
        skewness=moments.skew,
        kurtosis=moments.kurt,
        returns=len(excess),
        reason=reason,
    )


def trials_of(values: FloatArray, effective: float = math.nan) -> TrialStats:
    """What is known of the trials with these annual Sharpe ratios [K]; NaN for one that was tried and has no value.

    `effective`: how many of them count as independent, where their returns are known.
    """
    finite = values[np.isfinite(values)]
    return TrialStats(
        count=len(values),
        valued=len(finite),
        mean_annual=float(finite.mean()) if len(finite) else math.nan,
        variance_annual=float(np.var(finite, ddof=1)) if len(finite) > 1 else math.nan,
        best_annual=float(finite.max()) if len(finite) else math.nan,
        effective=effective,
    )


def effective_trials(returns: FloatArray) -> EffectiveTrials:
    """How many of the trials with these returns per session [N, M] count as independent: see `EffectiveTrials`."""
    good = [m for m in range(returns.shape[1]) if np.isfinite(returns[:, m]).all() and varies(returns[:, m])]
    left_out = returns.shape[1] - len(good)
    if len(returns) < MIN_RETURNS or not good:
        few = f"only {len(returns)} returns; at least {MIN_RETURNS} are needed"
        reason = few if len(returns) < MIN_RETURNS else "no trial has finite returns that vary"
        return EffectiveTrials(len(good), math.nan, math.nan, math.nan, left_out, reason)
    count = len(good)
    if count == 1:
        return EffectiveTrials(1, 1.0, 1.0, math.nan, left_out)
    correlation = np.corrcoef(returns[:, good], rowvar=False)
    average = float((correlation.sum() - np.trace(correlation)) / (count * (count - 1)))
    share = np.linalg.eigvalsh(correlation) / count
    share = share[share > 0.0]
    rank = math.exp(-float(share @ np.log(share)))
    by_average = min(max(average + (1.0 - average) * count, 1.0), float(count))
    return EffectiveTrials(count, by_average, min(max(rank, 1.0), float(count)), average, left_out)


def deflated_sharpe(
    returns: FloatArray,
    trials: TrialStats,
    per_year: int = SESSIONS_PER_YEAR,
    *,
    cash: FloatArray | float = 0.0,
    volatility_floor: float = VOLATILITY_FLOOR,
) -> DeflatedSharpe:
    """DSR of returns [N], the best of `trials`: the PSR against the Sharpe ratio that the best of as many without skill is
    expected to have (2014). The same for the effective number of trials where it is known.

    `cash`, `volatility_floor` and when there is no answer: as in `sharpe_test`; none either where several trials have
    fewer than two values between them. One trial alone is not deflated. Errors: InvalidConfigError for no trial.
    """
    excess = less_cash(returns, cash)
    variance = trials.variance_annual / per_year
    reason = untestable(excess, per_year, volatility_floor)
    if not reason and trials.count > 1 and trials.valued < 2:
        reason = f"{trials.valued} of {trials.count} trials have a Sharpe ratio; its variance needs two"
    moments = _Moments.of(excess)
    threshold = expected_maximum_sharpe(trials.count, variance)
    known = math.isfinite(trials.effective) and not reason
    fewer = expected_maximum_sharpe(trials.effective, variance) if known else math.nan
    return DeflatedSharpe(
        probability=math.nan if reason else moments.probability(threshold),
        sharpe_annual=annual(moments.sharpe, per_year),
        threshold_annual=annual(threshold, per_year),
        trials=trials.count,
        variance_annual=trials.variance_annual,
        effective_trials=trials.effective,
        probability_effective=moments.probability(fewer) if known else math.nan,
        skewness=moments.skew,
        kurtosis=moments.kurt,
        returns=len(excess),
        reason=reason,
    )


@dataclass(frozen=True, slots=True)
class _Moments:
    sharpe: float  # per session
    skew: float
    kurt: float
    count: int

    @classmethod
    def of(cls, returns: FloatArray) -> _Moments:
        """NaN for returns that are not finite, too few or do not vary."""
        if not np.isfinite(returns).all():
            return cls(math.nan, math.nan, math.nan, len(returns))
        return cls(sharpe_per_session(returns), skewness(returns), kurtosis(returns), len(returns))

    def probability(self, benchmark: float) -> float:
        return probabilistic_sharpe(self.sharpe, benchmark, self.skew, self.kurt, self.count)
