"""What happened within the bar and against recent extremes. Feature contract: `trading_core.features.registry`."""

from __future__ import annotations

from trading_core.features.kernels import ratio, rolling_max, rolling_min, shift
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


@feature(family="price_action", inputs=("high", "close"), lookback=62, unit="simple return")
def high_dist_63(bars: BarBlock) -> FloatArray:
    """Distance of the close from the highest high of 63 sessions, at most 0.

    Formula: close[t] / max(high[t-62 .. t]) - 1.
    NaN: the first 62 rows.
    Reference: George and Hwang (2004), The 52-week high and momentum investing, with a quarter for the year.
    """
    return ratio(bars.close, rolling_max(bars.high, 63)) - 1.0


@feature(family="price_action", inputs=("low", "close"), lookback=62, unit="simple return")
def low_dist_63(bars: BarBlock) -> FloatArray:
    """Distance of the close from the lowest low of 63 sessions, at least 0.

    Formula: close[t] / min(low[t-62 .. t]) - 1.
    NaN: the first 62 rows.
    Reference: as for high_dist_63.
    """
    return ratio(bars.close, rolling_min(bars.low, 63)) - 1.0
