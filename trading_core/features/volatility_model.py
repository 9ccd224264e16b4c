"""What models expect of the next session's volatility. Family `volatility`.

Feature contract: `trading_core.features.registry`.
"""

from __future__ import annotations

import numpy as np

from trading_core.features.common import log_returns
from trading_core.features.kernels import ewm_mean, ewm_window, prequential_garch, ratio
from trading_core.features.registry import BarBlock, feature, shared
from trading_core.features.volatility import deviation_20, squared_returns
from trading_core.schema import FloatArray

_RISKMETRICS = 0.94  # the decay for daily data
_LEFT_OUT = 1e-9  # so that the square of a crash that leaves the window does not show
# (alpha, beta): the weight of the day's square and of yesterday's variance in the next variance, over what estimates on
# daily share returns usually give: from alpha + beta = 0.85, soon forgotten, to 0.99, nearly integrated. Pairs of one beta
# stand together (see the kernel).
GARCH_PAIRS = (
    (0.05, 0.80),
    (0.10, 0.80),
    (0.15, 0.80),
    (0.04, 0.88),
    (0.07, 0.88),
    (0.10, 0.88),
    (0.03, 0.93),
    (0.045, 0.93),
    (0.06, 0.93),
)
_YEAR = 252  # sessions of the variance target, and of the scores by which a pair is chosen
_LEAST_SCORES = 63


@shared
def garch_deviation(bars: BarBlock) -> FloatArray:
    """Square root of the next session's GARCH variance."""
    variance, _ = prequential_garch(log_returns(bars), GARCH_PAIRS, _YEAR, _YEAR, _LEAST_SCORES)
    return np.sqrt(variance)


@feature(
    family="volatility", inputs=("close",), lookback=ewm_window(_RISKMETRICS, _LEFT_OUT), unit="log return per session"
)
def ewma_vol_94(bars: BarBlock) -> FloatArray:
    """Exponentially weighted volatility.

    Formula: sqrt of the exponential average with decay 0.94, truncated to 335 rows, of the squared log returns (no mean
        return).
    NaN: the first 20 rows.
    Reference: J.P. Morgan and Reuters (1996), RiskMetrics technical document, the decay of daily data.
    """
    return np.sqrt(ewm_mean(squared_returns(bars), _RISKMETRICS, 20, _LEFT_OUT))


@feature(family="volatility", inputs=("close",), lookback=2 * _YEAR, unit="log return per session")
def garch_vol(bars: BarBlock) -> FloatArray:
    """Volatility that GARCH(1,1) expects of the next session, its parameters chosen by the past alone.

    Formula: sqrt(h[t+1]), h[i+1] = (1 - a - b) v[i] + a r[i]^2 + b h[i], r the log returns, v[i] the mean of r^2 over
        i-251 .. i (variance targeting), the recursion truncated to the same 252 rows; (a, b) is that pair of GARCH_PAIRS
        whose forecasts h[i] gave the returns of i = t-251 .. t the highest Gaussian log density (of as many as there
        are, at least 63).
    NaN: the first 315 rows; where the price has not moved for 252 sessions.
    Reference: Bollerslev (1986), Generalized autoregressive conditional heteroskedasticity; Engle and Mezrich (1996),
        GARCH for groups; the choice by past forecasts: Dawid (1984).
    """
    return garch_deviation(bars)


@feature(family="volatility", inputs=("close",), lookback=2 * _YEAR, unit="ratio")
def garch_vol_ratio(bars: BarBlock) -> FloatArray:
    """Volatility expected of the next session against that of the last month.

    Formula: garch_vol / vol_20.
    NaN: the first 315 rows; where the last 20 returns are all equal.
    Reference: as for garch_vol.
    """
    return ratio(garch_deviation(bars), deviation_20(bars))
