"""What happened within the bar and since the last close. Feature contract: `trading_core.features.registry`.

The family goes on in `price_action_levels` (recent extremes) and `price_action_patterns` (candles).
"""

from __future__ import annotations

import numpy as np

from trading_core.features.common import WILDER_ROWS, atr_currency_14, bar_range, last_close, true_range
from trading_core.features.kernels import ratio, rolling_mean, shift
from trading_core.features.registry import BarBlock, feature
from trading_core.schema import FloatArray


@feature(family="price_action", inputs=("open", "close"), lookback=1, unit="simple return")
def overnight_ret(bars: BarBlock) -> FloatArray:
    """Return from the last close to the open, the gap.

    Formula: open[t] / close[t-1] - 1.
    NaN: the first row.
    Reference: Lou, Polk and Skouras (2019), A tug of war: overnight versus intraday expected returns.
    """
    return ratio(bars.open, shift(bars.close, 1)) - 1.0


@feature(family="price_action", inputs=("open", "close"), lookback=0, unit="simple return")
def intraday_ret(bars: BarBlock) -> FloatArray:
    """Return from the open to the close.

    Formula: close[t] / open[t] - 1.
    NaN: never, on bars with positive prices.
    Reference: Lou, Polk and Skouras (2019), as for overnight_ret.
    """
    return ratio(bars.close, bars.open) - 1.0


@feature(family="price_action", inputs=("high", "low", "close"), lookback=0, unit="fraction of the range")
def close_location(bars: BarBlock) -> FloatArray:
    """Where in the bar's range the close lies: 0 at the low, 1 at the high.

    Formula: (close - low) / (high - low); 0.5 when high = low.
    NaN: never, on complete bars.
    Reference: the fraction inside Chaikin's close location value, CLV = 2 x this - 1.
    """
    return ratio(bars.close - bars.low, bars.high - bars.low, undefined=0.5)


@feature(
    family="price_action",
    inputs=("open", "high", "low", "close"),
    lookback=WILDER_ROWS + 1,
    unit="average true ranges",
)
def gap_atr(bars: BarBlock) -> FloatArray:
    """Gap from the last close to the open, in average true ranges of the session before.

    Formula: (open[t] - close[t-1]) / ATR14[t-1], the ATR of atr_14 in the price's currency.
    NaN: the first 15 rows; where the price has not moved at all before.
    Reference: definition; the range of Wilder (1978).
    """
    return ratio(bars.open - last_close(bars), shift(atr_currency_14(bars), 1))


@feature(family="price_action", inputs=("open", "high", "low", "close"), lookback=1, unit="0 .. 1")
def gap_filled(bars: BarBlock) -> FloatArray:
    """Share of the gap that the bar went back through: 1 = it traded at the last close again.

    Formula: min((open - low) / g, 1) for a gap g = open[t] - close[t-1] > 0, min((high - open) / -g, 1) for g < 0;
        1 for g = 0, which leaves nothing open.
    NaN: the first row.
    Reference: definition.
    """
    gap = bars.open - last_close(bars)
    back = np.where(gap > 0.0, bars.open - bars.low, bars.high - bars.open)
    return np.minimum(ratio(back, np.abs(gap), undefined=1.0), 1.0)


@feature(family="price_action", inputs=("high", "low", "close"), lookback=1, unit="-1 .. 1")
def move_of_range(bars: BarBlock) -> FloatArray:
    """Change of the close over the true range: 1 = the session was all rise.

    Formula: (close[t] - close[t-1]) / (max(high, close[t-1]) - min(low, close[t-1])); 0 when that range is 0.
    NaN: the first row.
    Reference: definition; the range of Wilder (1978).
    """
    return ratio(bars.close - last_close(bars), true_range(bars), undefined=0.0)


@feature(family="price_action", inputs=("high", "low"), lookback=20, unit="ratio")
def range_expansion_20(bars: BarBlock) -> FloatArray:
    """The bar's range against the mean range of the 20 sessions before.

    Formula: (high - low)[t] / mean((high - low)[t-20 .. t-1]).
    NaN: the first 20 rows; where the price has not moved within those 20 sessions.
    Reference: Crabel (1990), Day trading with short term price patterns and opening range breakout.
    """
    width = bar_range(bars)
    return ratio(width, shift(rolling_mean(width, 20), 1))
