"""A symbol against the whole market at the same time. Feature contract: `trading_core.features.registry`.

Each function gives the symbol's own value; `across` then compares it with those of all symbols that have a bar with the
same `ts`. These are the only features that change with the universe.
"""

from __future__ import annotations

from trading_core.features.common import log_returns
from trading_core.features.kernels import (
    change,
    excess_across,
    mean_across,
    rank_across,
    rolling_mean,
    rolling_std,
)
from trading_core.features.registry import BarBlock, feature
from trading_core.schema import FloatArray


@feature(family="cross_section", inputs=("close",), lookback=1, unit="simple return", across=mean_across)
def market_ret(bars: BarBlock) -> FloatArray:
    """Equal-weight return of the market over the session.

    Formula: mean over symbols of close[t] / close[t-1] - 1.
    NaN: where no symbol has a bar before.
    Reference: definition.
    """
    return change(bars.close, 1)


@feature(family="cross_section", inputs=("close",), lookback=5, unit="simple return", across=excess_across)
def rel_ret_5(bars: BarBlock) -> FloatArray:
    """Return over 5 sessions beyond the market's.

    Formula: r - mean over symbols of r, r = close[t] / close[t-5] - 1.
    NaN: the first 5 rows.
    Reference: Lehmann (1990), Fads, martingales, and market efficiency.
    """
    return change(bars.close, 5)


@feature(family="cross_section", inputs=("close",), lookback=5, unit="rank -0.5 .. 0.5", across=rank_across)
def ret_5_rank(bars: BarBlock) -> FloatArray:
    """Rank of the return over 5 sessions.

    Formula: (average rank - 1) / (symbols - 1) - 0.5 of close[t] / close[t-5] - 1.
    NaN: the first 5 rows.
    Reference: Jegadeesh (1990), Evidence of predictable behavior of security returns.
    """
    return change(bars.close, 5)


@feature(family="cross_section", inputs=("close",), lookback=21, unit="rank -0.5 .. 0.5", across=rank_across)
def ret_21_rank(bars: BarBlock) -> FloatArray:
    """Rank of the return over 21 sessions.

    Formula: (average rank - 1) / (symbols - 1) - 0.5 of close[t] / close[t-21] - 1.
    NaN: the first 21 rows.
    Reference: as for ret_5_rank.
    """
    return change(bars.close, 21)


@feature(family="cross_section", inputs=("close",), lookback=20, unit="rank -0.5 .. 0.5", across=rank_across)
def vol_20_rank(bars: BarBlock) -> FloatArray:
    """Rank of the volatility over 20 sessions.

    Formula: (average rank - 1) / (symbols - 1) - 0.5 of vol_20.
    NaN: the first 20 rows.
    Reference: Ang, Hodrick, Xing and Zhang (2006), The cross-section of volatility and expected returns.
    """
    return rolling_std(log_returns(bars), 20)


@feature(family="cross_section", inputs=("close", "volume"), lookback=19, unit="rank -0.5 .. 0.5", across=rank_across)
def dollar_volume_rank(bars: BarBlock) -> FloatArray:
    """Rank of the money traded over 20 sessions.

    Formula: (average rank - 1) / (symbols - 1) - 0.5 of mean(close volume) over t-19 .. t.
    NaN: the first 19 rows.
    Reference: Chordia, Subrahmanyam and Anshuman (2001), Trading activity and expected stock returns.
    """
    return rolling_mean(bars.close * bars.volume, 20)
