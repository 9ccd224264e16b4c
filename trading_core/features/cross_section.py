"""A symbol against the whole market at the same time. Feature contract: `trading_core.features.registry`.

Each function gives the symbol's own value; `across` then compares it with those of all symbols that have a bar with the
same `ts`. The families cross_section (here and in `cross_section_market`) and regime are the only ones that change with the
universe.
"""

from __future__ import annotations

import numpy as np

from trading_core.features.common import dollar_volume, last_close, log_returns, returns
from trading_core.features.kernels import (
    change,
    excess_across,
    excess_in_sector,
    mean_across,
    rank_across,
    rank_in_sector,
    ratio,
    rolling_max,
    rolling_mean,
    rolling_std,
    shift,
    zscore_across,
)
from trading_core.features.registry import BarBlock, feature, shared
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
    return rolling_mean(dollar_volume(bars), 20)


# --- returns beyond those of others -----------------------------------------------------------------------------------


@feature(family="cross_section", inputs=("close",), lookback=1, unit="simple return", across=excess_across)
def rel_ret_1(bars: BarBlock) -> FloatArray:
    """Return over 1 session beyond the market's.

    Formula: r - mean over symbols of r, r = close[t] / close[t-1] - 1.
    NaN: the first row.
    Reference: as for rel_ret_5.
    """
    return returns(bars)


@feature(family="cross_section", inputs=("close",), lookback=20, unit="simple return", across=excess_across)
def rel_ret_20(bars: BarBlock) -> FloatArray:
    """Return over 20 sessions beyond the market's.

    Formula: r - mean over symbols of r, r = close[t] / close[t-20] - 1.
    NaN: the first 20 rows.
    Reference: as for rel_ret_5.
    """
    return change(bars.close, 20)


@feature(family="cross_section", inputs=("close",), lookback=63, unit="simple return", across=excess_across)
def rel_ret_63(bars: BarBlock) -> FloatArray:
    """Return over 63 sessions beyond the market's.

    Formula: r - mean over symbols of r, r = close[t] / close[t-63] - 1.
    NaN: the first 63 rows.
    Reference: as for rel_ret_5.
    """
    return change(bars.close, 63)


@feature(family="cross_section", inputs=("close", "sector"), lookback=1, unit="simple return", across=excess_in_sector)
def sector_rel_ret_1(bars: BarBlock) -> FloatArray:
    """Return over 1 session beyond that of the sector.

    Formula: r - mean over the sector's symbols of r, r = close[t] / close[t-1] - 1; symbols without a sector form one.
    NaN: the first row.
    Reference: Da, Liu and Schaumburg (2014), A closer look at the short-term return reversal.
    """
    return returns(bars)


@feature(family="cross_section", inputs=("close", "sector"), lookback=5, unit="simple return", across=excess_in_sector)
def sector_rel_ret_5(bars: BarBlock) -> FloatArray:
    """Return over 5 sessions beyond that of the sector.

    Formula: r - mean over the sector's symbols of r, r = close[t] / close[t-5] - 1; symbols without a sector form one.
    NaN: the first 5 rows.
    Reference: as for sector_rel_ret_1.
    """
    return change(bars.close, 5)


@feature(family="cross_section", inputs=("close", "sector"), lookback=21, unit="simple return", across=excess_in_sector)
def sector_rel_ret_21(bars: BarBlock) -> FloatArray:
    """Return over 21 sessions beyond that of the sector.

    Formula: r - mean over the sector's symbols of r, r = close[t] / close[t-21] - 1; symbols without a sector form one.
    NaN: the first 21 rows.
    Reference: as for sector_rel_ret_1.
    """
    return change(bars.close, 21)


@feature(
    family="cross_section", inputs=("close", "sector"), lookback=21, unit="rank -0.5 .. 0.5", across=rank_in_sector
)
def sector_ret_21_rank(bars: BarBlock) -> FloatArray:
    """Rank of the return over 21 sessions within the sector.

    Formula: (average rank - 1) / (sector's symbols - 1) - 0.5 of close[t] / close[t-21] - 1; 0 for the only one.
    NaN: the first 21 rows.
    Reference: as for sector_rel_ret_1.
    """
    return change(bars.close, 21)


# --- ranks and z-scores of what predicts ------------------------------------------------------------------------------


@feature(family="cross_section", inputs=("close",), lookback=1, unit="rank -0.5 .. 0.5", across=rank_across)
def ret_1_rank(bars: BarBlock) -> FloatArray:
    """Rank of the return of the session.

    Formula: (average rank - 1) / (symbols - 1) - 0.5 of close[t] / close[t-1] - 1.
    NaN: the first row.
    Reference: as for ret_5_rank.
    """
    return returns(bars)


@feature(family="cross_section", inputs=("close",), lookback=1, unit="standard deviations", across=zscore_across)
def ret_1_z(bars: BarBlock) -> FloatArray:
    """Return of the session in deviations across symbols.

    Formula: (r - mean of r) / population deviation of r over symbols, r = close[t] / close[t-1] - 1; 0 where all are equal.
    NaN: the first row.
    Reference: as for ret_5_rank.
    """
    return returns(bars)


@shared
def _momentum_12_1(bars: BarBlock) -> FloatArray:
    """Return over the year up to a month ago: what comes after reverses (see ret_21_rank)."""
    return shift(change(bars.close, 231), 21)


@feature(family="cross_section", inputs=("close",), lookback=252, unit="rank -0.5 .. 0.5", across=rank_across)
def mom_12_1_rank(bars: BarBlock) -> FloatArray:
    """Rank of the momentum: the return of the year without its last month.

    Formula: (average rank - 1) / (symbols - 1) - 0.5 of close[t-21] / close[t-252] - 1.
    NaN: the first 252 rows.
    Reference: Jegadeesh and Titman (1993), Returns to buying winners and selling losers.
    """
    return _momentum_12_1(bars)


@feature(family="cross_section", inputs=("close",), lookback=252, unit="standard deviations", across=zscore_across)
def mom_12_1_z(bars: BarBlock) -> FloatArray:
    """Momentum in deviations across symbols.

    Formula: (r - mean of r) / population deviation of r over symbols, r = close[t-21] / close[t-252] - 1; 0 where all are
        equal.
    NaN: the first 252 rows.
    Reference: as for mom_12_1_rank.
    """
    return _momentum_12_1(bars)


@feature(family="cross_section", inputs=("close",), lookback=63, unit="rank -0.5 .. 0.5", across=rank_across)
def vol_63_rank(bars: BarBlock) -> FloatArray:
    """Rank of the volatility over 63 sessions.

    Formula: (average rank - 1) / (symbols - 1) - 0.5 of the sample deviation of the log returns of t-62 .. t.
    NaN: the first 63 rows.
    Reference: as for vol_20_rank.
    """
    return rolling_std(log_returns(bars), 63)


@feature(family="cross_section", inputs=("volume",), lookback=20, unit="rank -0.5 .. 0.5", across=rank_across)
def volume_surprise_rank(bars: BarBlock) -> FloatArray:
    """Rank of the volume against that of the 20 sessions before.

    Formula: (average rank - 1) / (symbols - 1) - 0.5 of volume[t] / mean(volume[t-20 .. t-1]).
    NaN: the first 20 rows; where nothing was traded in the 20 sessions before.
    Reference: Gervais, Kaniel and Mingelgrin (2001), The high-volume return premium.
    """
    return ratio(bars.volume, shift(rolling_mean(bars.volume, 20), 1))


@feature(family="cross_section", inputs=("open", "close"), lookback=1, unit="rank -0.5 .. 0.5", across=rank_across)
def overnight_rank(bars: BarBlock) -> FloatArray:
    """Rank of the return from the last close to the open.

    Formula: (average rank - 1) / (symbols - 1) - 0.5 of open[t] / close[t-1] - 1.
    NaN: the first row.
    Reference: Lou, Polk and Skouras (2019), A tug of war: overnight versus intraday expected returns.
    """
    return ratio(bars.open, last_close(bars)) - 1.0


@feature(family="cross_section", inputs=("close", "volume"), lookback=21, unit="rank -0.5 .. 0.5", across=rank_across)
def amihud_21_rank(bars: BarBlock) -> FloatArray:
    """Rank of the illiquidity over 21 sessions: how far money moves the price.

    Formula: (average rank - 1) / (symbols - 1) - 0.5 of
        mean(abs(close[i] / close[i-1] - 1) / (close[i] volume[i])), i = t-20 .. t.
    NaN: the first 21 rows; where one of the 21 sessions had no volume.
    Reference: Amihud (2002), Illiquidity and stock returns.
    """
    return rolling_mean(ratio(np.abs(returns(bars)), dollar_volume(bars)), 21)


@feature(family="cross_section", inputs=("close",), lookback=21, unit="rank -0.5 .. 0.5", across=rank_across)
def max_ret_21_rank(bars: BarBlock) -> FloatArray:
    """Rank of the best session's return among 21.

    Formula: (average rank - 1) / (symbols - 1) - 0.5 of max(close[i] / close[i-1] - 1), i = t-20 .. t.
    NaN: the first 21 rows.
    Reference: Bali, Cakici and Whitelaw (2011), Maxing out: stocks as lotteries.
    """
    return rolling_max(returns(bars), 21)


@feature(family="cross_section", inputs=("high", "close"), lookback=251, unit="rank -0.5 .. 0.5", across=rank_across)
def high_252_rank(bars: BarBlock) -> FloatArray:
    """Rank of the close against the highest price of 252 sessions.

    Formula: (average rank - 1) / (symbols - 1) - 0.5 of close[t] / max(high[t-251 .. t]).
    NaN: the first 251 rows.
    Reference: George and Hwang (2004), The 52-week high and momentum investing.
    """
    return ratio(bars.close, rolling_max(bars.high, 252))
