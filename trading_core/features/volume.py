"""How much is traded, and in which direction. Feature contract: `trading_core.features.registry`."""

from __future__ import annotations

import numpy as np

from trading_core.features.kernels import diff, log, ratio, rolling_mean, rolling_mean_std, rolling_sum, shift
from trading_core.features.registry import BarBlock, feature
from trading_core.schema import FloatArray


@feature(family="volume", inputs=("volume",), lookback=20, unit="standard deviations")
def volume_z_20(bars: BarBlock) -> FloatArray:
    """Surprise in the volume against the 20 sessions before.

    Formula: (ln volume[t] - m) / s, mean m and sample deviation s of ln volume[t-20 .. t-1].
    NaN: the first 20 rows; where one of the 21 volumes is 0; where the 20 are all equal.
    Reference: Gervais, Kaniel and Mingelgrin (2001), The high-volume return premium.
    """
    level = log(bars.volume)
    mean, deviation = rolling_mean_std(shift(level, 1), 20, ddof=1)
    return ratio(level - mean, deviation)


@feature(family="volume", inputs=("volume",), lookback=19, unit="log ratio")
def volume_trend_20(bars: BarBlock) -> FloatArray:
    """Volume of a week against that of a month.

    Formula: ln(mean(volume[t-4 .. t]) / mean(volume[t-19 .. t])).
    NaN: the first 19 rows; where nothing was traded for 5 sessions.
    Reference: definition.
    """
    return log(ratio(rolling_mean(bars.volume, 5), rolling_mean(bars.volume, 20)))


@feature(family="volume", inputs=("close", "volume"), lookback=20, unit="mean sessions of volume")
def obv_change_20(bars: BarBlock) -> FloatArray:
    """Change of the on-balance volume over 20 sessions, from -20 (all falling) to 20.

    Formula: sum(sign(close[i] - close[i-1]) volume[i]) / mean(volume[i]), i = t-19 .. t.
    NaN: the first 20 rows; where nothing was traded for 20 sessions.
    Reference: Granville (1963); times the mean it is the change of TA-Lib OBV.
    """
    signed = np.sign(diff(bars.close)) * bars.volume
    return ratio(rolling_sum(signed, 20), rolling_mean(bars.volume, 20))
