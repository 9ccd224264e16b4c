"""A symbol's own bars against the market's return (the market model). Feature contract: `trading_core.features.registry`.

r is the symbol's simple return since its bar before, m the market's since the market's bar before: the equal-weight mean over
all symbols, this one included. Where a symbol has missed sessions its next r spans them and m does not. The risk-free rate is
taken as 0: over a session it is far below the noise.
"""

from __future__ import annotations

import numpy as np

from trading_core.features.common import returns
from trading_core.features.kernels import rank_across, ratio, rolling_joint, rolling_sum, shift
from trading_core.features.registry import BarBlock, feature, shared
from trading_core.schema import FloatArray


@shared
def _joint_63(bars: BarBlock) -> FloatArray:
    """Central sums of m and r over 63 bars: of m^2, r^2 and m r. [3, S, R]"""
    return rolling_joint(bars.market_ret, returns(bars), 63)


@shared
def _beta_63(bars: BarBlock) -> FloatArray:
    joint = _joint_63(bars)
    return ratio(joint[2], joint[0])


@shared
def _beta_252(bars: BarBlock) -> FloatArray:
    joint = rolling_joint(bars.market_ret, returns(bars), 252)
    return ratio(joint[2], joint[0])


@shared
def _idiosyncratic_63(bars: BarBlock) -> FloatArray:
    joint = _joint_63(bars)
    explained = ratio(joint[2] * joint[2], joint[0])
    return np.sqrt(np.maximum(joint[1] - explained, 0.0) / 61.0)  # rounding may leave a negative rest


@shared
def _residual_1(bars: BarBlock) -> FloatArray:
    """r[t] less what the market explains of it by the beta known the bar before."""
    return returns(bars) - shift(_beta_63(bars), 1) * bars.market_ret


@feature(family="cross_section", inputs=("close", "market_ret"), lookback=63, unit="slope")
def beta_63(bars: BarBlock) -> FloatArray:
    """Beta to the market over 63 sessions.

    Formula: slope of the least-squares line of r on m over t-62 .. t: cov(r, m) / var(m).
    NaN: the first 63 rows; where the market has not moved for 63 sessions.
    Reference: Sharpe (1964), Capital asset prices; as statsmodels OLS with a constant.
    """
    return _beta_63(bars)


@feature(family="cross_section", inputs=("close", "market_ret"), lookback=252, unit="slope")
def beta_252(bars: BarBlock) -> FloatArray:
    """Beta to the market over 252 sessions.

    Formula: as for beta_63, over t-251 .. t.
    NaN: the first 252 rows; where the market has not moved for 252 sessions.
    Reference: as for beta_63.
    """
    return _beta_252(bars)


@feature(
    family="cross_section",
    inputs=("close", "market_ret"),
    lookback=252,
    unit="rank -0.5 .. 0.5",
    across=rank_across,
)
def beta_252_rank(bars: BarBlock) -> FloatArray:
    """Rank of the beta to the market over 252 sessions.

    Formula: (average rank - 1) / (symbols - 1) - 0.5 of beta_252.
    NaN: the first 252 rows; where the market has not moved for 252 sessions.
    Reference: Frazzini and Pedersen (2014), Betting against beta.
    """
    return _beta_252(bars)


@feature(family="cross_section", inputs=("close", "market_ret"), lookback=252, unit="slope")
def downside_beta_252(bars: BarBlock) -> FloatArray:
    """Beta to the market over 252 sessions, counting those in which it fell.

    Formula: sum(r min(m, 0)) / sum(min(m, 0)^2) over t-251 .. t.
    NaN: the first 252 rows; where the market has not fallen for 252 sessions.
    Reference: Hogan and Warren (1974), Toward the development of an equilibrium capital-market model based on
        semivariance, with a risk-free rate of 0.
    """
    fall = np.minimum(bars.market_ret, 0.0)
    return ratio(rolling_sum(returns(bars) * fall, 252), rolling_sum(fall * fall, 252))


@feature(family="cross_section", inputs=("close", "market_ret"), lookback=63, unit="-1 .. 1")
def market_corr_63(bars: BarBlock) -> FloatArray:
    """Correlation with the market over 63 sessions.

    Formula: Pearson's correlation of r and m over t-62 .. t.
    NaN: the first 63 rows; where the symbol or the market has not moved for 63 sessions.
    Reference: definition.
    """
    joint = _joint_63(bars)
    return ratio(joint[2], np.sqrt(joint[0]) * np.sqrt(joint[1]))


@feature(family="cross_section", inputs=("close", "market_ret"), lookback=63, unit="simple return per session")
def idio_vol_63(bars: BarBlock) -> FloatArray:
    """Volatility over 63 sessions that the market does not explain.

    Formula: sqrt(sum of squared residuals / 61) of the line of beta_63.
    NaN: the first 63 rows; where the market has not moved for 63 sessions.
    Reference: Ang, Hodrick, Xing and Zhang (2006), The cross-section of volatility and expected returns, with one factor.
    """
    return _idiosyncratic_63(bars)


@feature(
    family="cross_section",
    inputs=("close", "market_ret"),
    lookback=63,
    unit="rank -0.5 .. 0.5",
    across=rank_across,
)
def idio_vol_63_rank(bars: BarBlock) -> FloatArray:
    """Rank of the volatility that the market does not explain.

    Formula: (average rank - 1) / (symbols - 1) - 0.5 of idio_vol_63.
    NaN: the first 63 rows; where the market has not moved for 63 sessions.
    Reference: as for idio_vol_63.
    """
    return _idiosyncratic_63(bars)


@feature(family="cross_section", inputs=("close", "market_ret"), lookback=64, unit="simple return")
def residual_ret_1(bars: BarBlock) -> FloatArray:
    """Return of the session that the market does not explain.

    Formula: r[t] - beta_63[t-1] m[t]: the beta is that of the 63 sessions before.
    NaN: the first 64 rows; where the market has not moved for 63 sessions.
    Reference: MacKinlay (1997), Event studies in economics and finance, without the intercept.
    """
    return _residual_1(bars)


@feature(family="cross_section", inputs=("close", "market_ret"), lookback=83, unit="simple return")
def residual_ret_20(bars: BarBlock) -> FloatArray:
    """Return over 20 sessions that the market does not explain.

    Formula: sum of residual_ret_1 over t-19 .. t.
    NaN: the first 83 rows; where the market has not moved for 63 sessions.
    Reference: Blitz, Huij and Martens (2011), Residual momentum, with one factor.
    """
    return rolling_sum(_residual_1(bars), 20)
