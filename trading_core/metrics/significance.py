"""How sure one can be of a Sharpe ratio.

Sources: Lo (2002), "The Statistics of Sharpe Ratios"; Mertens (2002), "Comments on Variance of the IID Estimator
in Lo (2002)"; Bailey & Lopez de Prado (2012), "The Sharpe Ratio Efficient Frontier"; Newey & West (1987, 1994).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trading_core.metrics.returns import SESSIONS_PER_YEAR, sharpe_per_session, varies
from trading_core.schema import FloatArray

MIN_RETURNS = 30  # below, the normal approximation of the Sharpe ratio means nothing
Method = Literal["moments", "hac"]


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


def skewness(returns: FloatArray) -> float:
    """Third central moment / std^3, moments over n (not bias-corrected)."""
    z = _standardized(returns)
    return float(np.mean(z**3))


def kurtosis(returns: FloatArray) -> float:
    """Fourth central moment / std^4, moments over n; 3 for a normal distribution."""
    z = _standardized(returns)
    return float(np.mean(z**4))


def sharpe_standard_error(sharpe: float, skew: float, kurt: float, count: int) -> float:
    """sqrt((1 - skew * SR + (kurt - 1) / 4 * SR^2) / (n - 1)), all per session, kurt = 3 for normal returns.

    Mertens (2002) in the form of Bailey & Lopez de Prado (2012, eq. 8); for normal returns it is Lo's (2002)
    (1 + SR^2 / 2) / n but for n - 1. Holds for independent returns.
    """
    return math.sqrt((1.0 - skew * sharpe + (kurt - 1.0) / 4.0 * sharpe**2) / (count - 1))


def sharpe_standard_error_hac(returns: FloatArray, lags: int | None = None) -> float:
    """Standard error of the Sharpe ratio per session for dependent returns (Lo 2002, section on GMM).

    The delta method makes SR a mean of psi_t = z_t - SR / 2 * (z_t^2 - 1) with z_t the standardized return; the
    long-run variance of psi uses Bartlett weights (Newey & West 1987) and `lags`, by default floor(4 (n / 100)^(2/9)).
    """
    count = len(returns)
    lags = newey_west_lags(count) if lags is None else lags
    z = _standardized(returns)
    psi = z - 0.5 * sharpe_per_session(returns) * (z**2 - 1.0)
    psi = psi - psi.mean()
    variance = float(psi @ psi) / count
    for lag in range(1, min(lags, count - 1) + 1):
        variance += 2.0 * (1.0 - lag / (lags + 1.0)) * float(psi[lag:] @ psi[:-lag]) / count
    return math.sqrt(max(variance, 0.0) / count)


def newey_west_lags(count: int) -> int:
    """floor(4 (n / 100)^(2/9)), the usual rule for Bartlett weights (Newey & West 1994)."""
    return math.floor(4.0 * (count / 100.0) ** (2.0 / 9.0))


def sharpe_test(
    returns: FloatArray, method: Method = "hac", lags: int | None = None, per_year: int = SESSIONS_PER_YEAR
) -> SharpeTest:
    """Tests a Sharpe ratio against zero; give active returns to test an information ratio.

    `method` "moments": independent returns, skew and kurtosis counted; "hac": also robust to autocorrelation up
    to `lags` (default: `newey_west_lags`; give at least h - 1 for values that overlap over h sessions). The
    p-value is NaN, with the reason, for fewer than 30 returns or returns that do not vary. `per_year`: sessions, for
    the annual figures; the test itself is the same.
    """
    count = len(returns)
    reason = ""
    if count < MIN_RETURNS:
        reason = f"only {count} returns; at least {MIN_RETURNS} are needed"
    elif not np.isfinite(returns).all():
        reason = "some returns are not finite"
    elif not varies(returns):
        reason = "the returns do not vary"
    if reason:
        sharpe = sharpe_per_session(returns) if count > 1 and np.isfinite(returns).all() else math.nan
        return SharpeTest(_annual(sharpe, per_year), math.nan, math.nan, math.nan, count, method, reason)
    sharpe = sharpe_per_session(returns)
    if method == "hac":
        error = sharpe_standard_error_hac(returns, lags)
    else:
        error = sharpe_standard_error(sharpe, skewness(returns), kurtosis(returns), count)
    statistic = sharpe / error if error > 0 else math.nan
    p_value = 0.5 * math.erfc(statistic / math.sqrt(2.0))
    why = "" if error > 0 else "the standard error is zero"
    return SharpeTest(_annual(sharpe, per_year), _annual(error, per_year), statistic, p_value, count, method, why)


def sharpe_p_value(returns: FloatArray, method: Method = "hac") -> float:
    """The one-sided p-value of `sharpe_test`: the chance of a Sharpe ratio this high if the true one were 0."""
    return sharpe_test(returns, method).p_value


def _annual(per_session: float, per_year: int) -> float:
    return per_session * math.sqrt(per_year)


def _standardized(returns: FloatArray) -> FloatArray:
    return (returns - np.mean(returns)) / np.std(returns)
