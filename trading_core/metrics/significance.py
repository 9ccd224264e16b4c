"""How sure one can be of one Sharpe ratio. Of several at once: paired, superior, multiple, deflated, overfitting.

Sources: Lo (2002), "The Statistics of Sharpe Ratios"; Mertens (2002), "Comments on Variance of the IID Estimator
in Lo (2002)"; Bailey & Lopez de Prado (2012), "The Sharpe Ratio Efficient Frontier"; Newey & West (1987, 1994);
Politis & Romano (1994), "The Stationary Bootstrap"; Davison & Hinkley (1997), "Bootstrap Methods", chapter 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trading_core.errors import InvalidConfigError
from trading_core.metrics.returns import (
    SESSIONS_PER_YEAR,
    kurtosis,
    sharpe_per_session,
    skewness,
    varies,
    volatility_annual,
)
from trading_core.schema import FloatArray

MIN_RETURNS = 30  # below, the normal approximation of the Sharpe ratio means nothing
# Of a year. Short bills and deposits stay below it, the tamest strategies that hold a risk do not.
VOLATILITY_FLOOR = 0.005
RESAMPLES = 10_000
NO_DEVIATION = 1e-6  # of all returns' deviation: what rounding makes of a resample of equal returns
Method = Literal["moments", "hac", "bootstrap"]


@dataclass(frozen=True, slots=True)
class SharpeTest:
    """H0: the true Sharpe ratio is at most 0, against above 0 (one-sided).

    `sharpe_annual` and `standard_error_annual` are per year; `reason` says why `p_value` is NaN, else "".
    """

    sharpe_annual: float
    standard_error_annual: float
    statistic: float  # sharpe / standard error, standard normal under H0
    p_value: float
    returns: int
    method: Method
    reason: str = ""
    volatility_annual: float = math.nan
    block_length: float = math.nan  # mean days of a block; of the bootstrap
    resamples: int = 0


@dataclass(frozen=True, slots=True)
class Excluded:
    """A strategy that a test of several leaves out, and why."""

    name: str
    reason: str


def sharpe_standard_error(sharpe: float, skew: float, kurt: float, count: int) -> float:
    """sqrt((1 - skew * SR + (kurt - 1) / 4 * SR^2) / (n - 1)), all per session, kurt = 3 for normal returns.

    Mertens (2002) in the form of Bailey & Lopez de Prado (2012, eq. 8); for normal returns it is Lo's (2002)
    (1 + SR^2 / 2) / n but for n - 1. Holds for independent returns. NaN for fewer than two returns, and where no
    distribution has such moments (kurt < 1 + skew^2) and the variance would be negative.
    """
    variance = 1.0 - skew * sharpe + (kurt - 1.0) / 4.0 * sharpe**2
    return math.sqrt(variance / (count - 1)) if count > 1 and variance >= 0.0 else math.nan


def sharpe_standard_error_hac(returns: FloatArray, lags: int | None = None) -> float:
    """Standard error of the Sharpe ratio per session for dependent returns (Lo 2002, section on GMM).

    The delta method makes SR a mean of psi_t (`sharpe_influence`); the long-run variance of psi uses Bartlett weights
    (Newey & West 1987) and `lags`, by default floor(4 (n / 100)^(2/9)).
    """
    count = len(returns)
    lags = newey_west_lags(count) if lags is None else lags
    return math.sqrt(long_run_variance(sharpe_influence(returns), lags) / count)


def sharpe_influence(returns: FloatArray) -> FloatArray:
    """[N] psi_t = z_t - SR / 2 * (z_t^2 - 1), z_t the standardized return: what each return moves the Sharpe ratio by,
    times n. Its mean is 0."""
    z = (returns - np.mean(returns)) / np.std(returns)
    return np.asarray(z - 0.5 * sharpe_per_session(returns) * (z**2 - 1.0), dtype=np.float64)


def long_run_variance(values: FloatArray, lags: int) -> float:
    """n times the variance of the mean of `values` [N]: c_0 + 2 sum (1 - k / (lags + 1)) c_k (Newey & West 1987).

    c_k the autocovariances over n, k up to `lags`; never negative. No small-sample correction.
    """
    count = len(values)
    centred = values - values.mean()
    variance = float(centred @ centred) / count
    for lag in range(1, min(lags, count - 1) + 1):
        variance += 2.0 * (1.0 - lag / (lags + 1.0)) * float(centred[lag:] @ centred[:-lag]) / count
    return max(variance, 0.0)


def newey_west_lags(count: int) -> int:
    """floor(4 (n / 100)^(2/9)), the usual rule for Bartlett weights (Newey & West 1994)."""
    return math.floor(4.0 * (count / 100.0) ** (2.0 / 9.0))


def sharpe_test(
    returns: FloatArray,
    method: Method = "hac",
    lags: int | None = None,
    per_year: int = SESSIONS_PER_YEAR,
    *,
    cash: FloatArray | float = 0.0,
    volatility_floor: float = VOLATILITY_FLOOR,
    seed: int = 0,
    resamples: int = RESAMPLES,
    block_length: float | None = None,
) -> SharpeTest:
    """Tests a Sharpe ratio against zero. returns: [N] simple returns per session.

    `method` "moments": independent returns, skew and kurtosis counted; "hac": also robust to autocorrelation up
    to `lags` (default: `newey_west_lags`; give at least h - 1 for values that overlap over h sessions); "bootstrap":
    free of the normal approximation, see `_bootstrapped`, with `seed`, `resamples` and `block_length` (days; default:
    `optimal_block_length` of `sharpe_influence`). A Sharpe ratio of at most 0 has a p-value of at least one half.

    `cash`: the risk-free return per session, [N] or one number; what is tested is the return above it. The p-value is
    NaN, with the reason, for fewer than 30 returns, returns that do not vary or are not finite, and where they vary by
    less than `volatility_floor` a year: what accrues like interest has any Sharpe ratio and no risk to judge it by.
    Active returns (against a benchmark) have no cash rate and no such floor: give 0, or use `active_return_test`.
    `per_year`: sessions, for the annual figures; the test itself is the same. Errors: InvalidConfigError.
    """
    excess = less_cash(returns, cash)
    reason = untestable(excess, per_year, volatility_floor)
    finite = bool(np.isfinite(excess).all())
    sharpe = sharpe_per_session(excess) if finite else math.nan
    volatility = volatility_annual(excess, per_year) if finite else math.nan
    if reason:
        nan = math.nan
        return SharpeTest(annual(sharpe, per_year), nan, nan, nan, len(excess), method, reason, volatility)
    if method == "bootstrap":
        found = _bootstrapped(excess, sharpe, seed, resamples, block_length)
    else:
        found = _approximated(excess, sharpe, method, lags)
    return SharpeTest(
        sharpe_annual=annual(sharpe, per_year),
        standard_error_annual=annual(found.error, per_year),
        statistic=sharpe / found.error if found.error > 0 else math.nan,
        p_value=found.p_value,
        returns=len(excess),
        method=method,
        reason=found.reason,
        volatility_annual=volatility,
        block_length=found.block_length,
        resamples=found.resamples,
    )


def sharpe_p_value(returns: FloatArray, method: Method = "hac") -> float:
    """The one-sided p-value of `sharpe_test`: the chance of a Sharpe ratio this high if the true one were 0."""
    return sharpe_test(returns, method).p_value


def untestable(
    returns: FloatArray,
    per_year: int = SESSIONS_PER_YEAR,
    volatility_floor: float = 0.0,
    what: str = "returns",
) -> str:
    """Why these returns [N] cannot be tested, or "". `volatility_floor`: a fraction a year; 0: none. `what`: their name."""
    if len(returns) < MIN_RETURNS:
        return f"only {len(returns)} {what}; at least {MIN_RETURNS} are needed"
    if not np.isfinite(returns).all():
        return f"some {what} are not finite"
    if not varies(returns):
        return f"the {what} do not vary"
    if volatility_annual(returns, per_year) < volatility_floor:
        return (
            f"the volatility is below {volatility_floor:.1%} a year: so little risk that its Sharpe ratio says nothing; "
            "compare the return with the cash rate"
        )
    return ""


def less_cash(returns: FloatArray, cash: FloatArray | float) -> FloatArray:
    """returns [N] above the risk-free return per session, [N] or one number. Errors: InvalidConfigError."""
    rate = np.asarray(cash, dtype=np.float64)
    if rate.ndim and rate.shape != np.shape(returns):
        raise InvalidConfigError("The cash rate", [f"{len(rate)} values for {len(returns)} returns"])
    return np.asarray(returns, dtype=np.float64) - rate


def annual(per_session: float, per_year: int) -> float:
    """A Sharpe ratio, or its standard error, per year."""
    return per_session * math.sqrt(per_year)


def upper_tail(statistic: float) -> float:
    """The chance that a standard normal variable exceeds `statistic`."""
    return 0.5 * math.erfc(statistic / math.sqrt(2.0))


def resampled_p_value(null: FloatArray, observed: float) -> float:
    """(1 + resamples at or above `observed`) / (1 + B), null [B] (Davison & Hinkley 1997, eq. 4.11); never 0.

    The skew of a null distribution may put its median below a small loss; a loss is no evidence of a gain all the same:
    where `observed` is at most 0 the p-value is at least one half.
    """
    p_value = (1.0 + float(np.sum(null >= observed))) / (1.0 + len(null))
    return max(p_value, 0.5) if observed <= 0.0 else p_value


@dataclass(frozen=True, slots=True)
class _Found:
    error: float  # of the Sharpe ratio per session
    p_value: float
    reason: str = ""
    block_length: float = math.nan
    resamples: int = 0


def _approximated(returns: FloatArray, sharpe: float, method: Method, lags: int | None) -> _Found:
    if method == "hac":
        error = sharpe_standard_error_hac(returns, lags)
    elif method == "moments":
        error = sharpe_standard_error(sharpe, skewness(returns), kurtosis(returns), len(returns))
    else:
        raise InvalidConfigError("The Sharpe ratio's test", [f"method: {method}; moments, hac or bootstrap"])
    if not error > 0:
        return _Found(error, math.nan, "the standard error is zero")
    return _Found(error, upper_tail(sharpe / error))


def _bootstrapped(returns: FloatArray, sharpe: float, seed: int, resamples: int, block_length: float | None) -> _Found:
    """The standard error is the standard deviation of the resampled Sharpe ratios (mean* / std*). The p-value comes from
    centred resamples: (mean* - mean) / std*, whose true Sharpe ratio is 0, are what luck makes of these returns; see
    `resampled_p_value`."""
    from trading_core.metrics import bootstrap  # imports numba, a second; only this method needs it

    length = bootstrap.optimal_block_length(sharpe_influence(returns)) if block_length is None else block_length
    drawn = bootstrap.stationary_bootstrap(returns, length, resamples, seed)
    means, deviations = drawn.means[:, 0], drawn.deviations[:, 0]
    if deviations.min() <= NO_DEVIATION * np.std(returns):
        return _Found(math.nan, math.nan, "in some resamples the returns do not vary", length, resamples)
    error = float(np.std(means / deviations, ddof=1)) if resamples > 1 else math.nan
    p_value = resampled_p_value((means - returns.mean()) / deviations, sharpe)
    return _Found(error, p_value, "", length, resamples)
