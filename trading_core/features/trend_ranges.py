"""Where the price stands against the middles of its ranges. Feature contract: `trading_core.features.registry`.

The cloud of Ichimoku is drawn 26 sessions ahead of the bars it is made of, so the cloud over the bar t is made of bars up to
t-26 and looks at nothing that lies ahead. The lagging line (the close drawn 26 sessions back) would: it is left out. So is
Wilder's parabolic stop, whose value depends on every reversal since history began and on no fixed number of bars.
"""

from __future__ import annotations

import numpy as np

from trading_core.features.kernels import ratio, rolling_max, rolling_min, shift
from trading_core.features.registry import BarBlock, feature, shared
from trading_core.schema import FloatArray


def _middle(bars: BarBlock, window: int) -> FloatArray:
    """Middle of the range of the last `window` bars."""
    return (rolling_max(bars.high, window) + rolling_min(bars.low, window)) / 2.0


@shared
def _tenkan(bars: BarBlock) -> FloatArray:
    return _middle(bars, 9)


@shared
def _kijun(bars: BarBlock) -> FloatArray:
    return _middle(bars, 26)


@shared
def _span_a(bars: BarBlock) -> FloatArray:
    """The first edge of the cloud over t."""
    return shift((_tenkan(bars) + _kijun(bars)) / 2.0, 26)


@shared
def _span_b(bars: BarBlock) -> FloatArray:
    """The second edge of the cloud over t."""
    return shift(_middle(bars, 52), 26)


@feature(family="trend", inputs=("high", "low", "close"), lookback=8, unit="simple return")
def tenkan_dist_9(bars: BarBlock) -> FloatArray:
    """Close against Ichimoku's conversion line.

    Formula: close[t] / tenkan[t] - 1, tenkan = (max(high) + min(low)) / 2 over t-8 .. t.
    NaN: the first 8 rows.
    Reference: Hosoda (1969), Ichimoku kinko hyo; lines of 9, 26 and 52 sessions.
    """
    return ratio(bars.close, _tenkan(bars)) - 1.0


@feature(family="trend", inputs=("high", "low", "close"), lookback=25, unit="simple return")
def kijun_dist_26(bars: BarBlock) -> FloatArray:
    """Close against Ichimoku's base line.

    Formula: close[t] / kijun[t] - 1, kijun = (max(high) + min(low)) / 2 over t-25 .. t.
    NaN: the first 25 rows.
    Reference: as for tenkan_dist_9.
    """
    return ratio(bars.close, _kijun(bars)) - 1.0


@feature(family="trend", inputs=("high", "low"), lookback=25, unit="simple return")
def tenkan_kijun(bars: BarBlock) -> FloatArray:
    """Ichimoku's conversion line against its base line.

    Formula: tenkan[t] / kijun[t] - 1, of tenkan_dist_9 and kijun_dist_26.
    NaN: the first 25 rows.
    Reference: as for tenkan_dist_9.
    """
    return ratio(_tenkan(bars), _kijun(bars)) - 1.0


@feature(family="trend", inputs=("high", "low", "close"), lookback=77, unit="simple return")
def cloud_top_dist(bars: BarBlock) -> FloatArray:
    """Close against the upper edge of Ichimoku's cloud: positive above the cloud.

    Formula: close[t] / max(A, B) - 1, A = (tenkan[t-26] + kijun[t-26]) / 2, B = (max(high) + min(low)) / 2 over
        t-77 .. t-26.
    NaN: the first 77 rows.
    Reference: as for tenkan_dist_9.
    """
    return ratio(bars.close, np.maximum(_span_a(bars), _span_b(bars))) - 1.0


@feature(family="trend", inputs=("high", "low", "close"), lookback=77, unit="simple return")
def cloud_bottom_dist(bars: BarBlock) -> FloatArray:
    """Close against the lower edge of Ichimoku's cloud: negative below the cloud.

    Formula: close[t] / min(A, B) - 1, A and B as for cloud_top_dist.
    NaN: the first 77 rows.
    Reference: as for tenkan_dist_9.
    """
    return ratio(bars.close, np.minimum(_span_a(bars), _span_b(bars))) - 1.0


@feature(family="trend", inputs=("high", "low"), lookback=77, unit="fraction of the second edge")
def cloud_thickness(bars: BarBlock) -> FloatArray:
    """Thickness of Ichimoku's cloud: positive where its first edge is the upper one.

    Formula: A / B - 1, A and B as for cloud_top_dist.
    NaN: the first 77 rows.
    Reference: as for tenkan_dist_9.
    """
    return ratio(_span_a(bars), _span_b(bars)) - 1.0


@feature(family="trend", inputs=("high", "low", "close"), lookback=19, unit="simple return")
def donchian_mid_20(bars: BarBlock) -> FloatArray:
    """Close against the middle of its 20-session channel.

    Formula: close[t] / ((max(high) + min(low)) / 2 over t-19 .. t) - 1.
    NaN: the first 19 rows.
    Reference: Donchian's channel; its middle is TA-Lib MIDPRICE(20).
    """
    return ratio(bars.close, _middle(bars, 20)) - 1.0


@feature(family="trend", inputs=("high", "low", "close"), lookback=54, unit="simple return")
def donchian_mid_55(bars: BarBlock) -> FloatArray:
    """Close against the middle of its 55-session channel.

    Formula: as for donchian_mid_20, over t-54 .. t.
    NaN: the first 54 rows.
    Reference: Donchian's channel; its middle is TA-Lib MIDPRICE(55).
    """
    return ratio(bars.close, _middle(bars, 55)) - 1.0
