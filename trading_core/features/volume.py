"""How much is traded. In which direction: `volume_flow`. Feature contract: `trading_core.features.registry`."""

from __future__ import annotations

import numpy as np

from trading_core.features.common import dollar_volume, log_returns
from trading_core.features.kernels import (
    diff,
    log,
    ratio,
    rolling_joint,
    rolling_mean,
    rolling_mean_std,
    rolling_std,
    shift,
)
from trading_core.features.registry import BarBlock, feature, shared
from trading_core.schema import FloatArray


@shared
def log_volume(bars: BarBlock) -> FloatArray:
    """ln volume; NaN where nothing was traded."""
    return log(bars.volume)


@shared
def mean_volume_20(bars: BarBlock) -> FloatArray:
    """Mean volume of the last 20 sessions."""
    return rolling_mean(bars.volume, 20)


@shared
def mean_dollar_volume_252(bars: BarBlock) -> FloatArray:
    """Mean of close volume over the last 252 sessions."""
    return rolling_mean(dollar_volume(bars), 252)


def _surprise(bars: BarBlock, window: int) -> FloatArray:
    """ln volume in sample deviations from the mean of the `window` sessions before."""
    level = log_volume(bars)
    mean, deviation = rolling_mean_std(shift(level, 1), window, ddof=1)
    return ratio(level - mean, deviation)


def _correlation(x: FloatArray, y: FloatArray, window: int) -> FloatArray:
    """Pearson's, over the last `window` bars; NaN where x or y does not vary."""
    joint = rolling_joint(x, y, window)
    return ratio(joint[2], np.sqrt(joint[0]) * np.sqrt(joint[1]))


@feature(family="volume", inputs=("volume",), lookback=5, unit="standard deviations")
def volume_z_5(bars: BarBlock) -> FloatArray:
    """Surprise in the volume against the 5 sessions before.

    Formula: (ln volume[t] - m) / s, mean m and sample deviation s of ln volume[t-5 .. t-1].
    NaN: the first 5 rows; where one of the 6 volumes is 0; where the 5 are all equal.
    Reference: as for volume_z_20.
    """
    return _surprise(bars, 5)


@feature(family="volume", inputs=("volume",), lookback=20, unit="standard deviations")
def volume_z_20(bars: BarBlock) -> FloatArray:
    """Surprise in the volume against the 20 sessions before.

    Formula: (ln volume[t] - m) / s, mean m and sample deviation s of ln volume[t-20 .. t-1].
    NaN: the first 20 rows; where one of the 21 volumes is 0; where the 20 are all equal.
    Reference: Gervais, Kaniel and Mingelgrin (2001), The high-volume return premium.
    """
    return _surprise(bars, 20)


@feature(family="volume", inputs=("volume",), lookback=63, unit="standard deviations")
def volume_z_63(bars: BarBlock) -> FloatArray:
    """Surprise in the volume against the 63 sessions before.

    Formula: (ln volume[t] - m) / s, mean m and sample deviation s of ln volume[t-63 .. t-1].
    NaN: the first 63 rows; where one of the 64 volumes is 0; where the 63 are all equal.
    Reference: as for volume_z_20.
    """
    return _surprise(bars, 63)


@feature(family="volume", inputs=("volume",), lookback=19, unit="log ratio")
def volume_trend_20(bars: BarBlock) -> FloatArray:
    """Volume of a week against that of a month.

    Formula: ln(mean(volume[t-4 .. t]) / mean(volume[t-19 .. t])).
    NaN: the first 19 rows; where nothing was traded for 5 sessions.
    Reference: definition.
    """
    return log(ratio(rolling_mean(bars.volume, 5), mean_volume_20(bars)))


@feature(family="volume", inputs=("volume",), lookback=20, unit="ratio")
def volume_ratio_1_20(bars: BarBlock) -> FloatArray:
    """Volume of the session against the 20 sessions before, the relative volume.

    Formula: volume[t] / mean(volume[t-20 .. t-1]).
    NaN: the first 20 rows; where nothing was traded in the 20.
    Reference: definition.
    """
    return ratio(bars.volume, shift(mean_volume_20(bars), 1))


@feature(family="volume", inputs=("volume",), lookback=19, unit="ratio")
def volume_variation_20(bars: BarBlock) -> FloatArray:
    """How unsteady the volume is: its coefficient of variation over 20 sessions.

    Formula: s / m, sample deviation s (divisor 19) and mean m of volume[t-19 .. t].
    NaN: the first 19 rows; where nothing was traded for 20 sessions.
    Reference: Chordia, Subrahmanyam and Anshuman (2001), Trading activity and expected stock returns.
    """
    return ratio(rolling_std(bars.volume, 20), mean_volume_20(bars))


@feature(family="volume", inputs=("close", "volume"), lookback=251, unit="ratio")
def turnover_1_252(bars: BarBlock) -> FloatArray:
    """Money traded in the session against the year's mean, in place of the turnover.

    Formula: close[t] volume[t] / mean(close volume over t-251 .. t). Turnover proper divides by the shares outstanding,
        which bars do not tell; as they change little in a year, the ratio moves with it.
    NaN: the first 251 rows; where nothing was traded for 252 sessions.
    Reference: Datar, Naik and Radcliffe (1998), Liquidity and stock returns: an alternative test, for the turnover.
    """
    return ratio(dollar_volume(bars), mean_dollar_volume_252(bars))


@feature(family="volume", inputs=("close", "volume"), lookback=251, unit="ratio")
def turnover_20_252(bars: BarBlock) -> FloatArray:
    """Money traded in a month against the year's mean, in place of the turnover.

    Formula: mean(close volume over t-19 .. t) / mean(close volume over t-251 .. t). Shares outstanding are not known, as
        for turnover_1_252.
    NaN: the first 251 rows; where nothing was traded for 252 sessions.
    Reference: as for turnover_1_252.
    """
    return ratio(rolling_mean(dollar_volume(bars), 20), mean_dollar_volume_252(bars))


@feature(family="volume", inputs=("close", "volume"), lookback=20, unit="correlation")
def return_volume_corr_20(bars: BarBlock) -> FloatArray:
    """Whether volume grows when the price rises: correlation over 20 sessions.

    Formula: Pearson's correlation of ln(close[i] / close[i-1]) and ln(volume[i] / volume[i-1]), i = t-19 .. t.
    NaN: the first 20 rows; where one of the 21 volumes is 0; where the price or the volume does not vary.
    Reference: Karpoff (1987), The relation between price changes and trading volume; TA-Lib CORREL(20) of the two.
    """
    return _correlation(log_returns(bars), diff(log_volume(bars)), 20)


@feature(family="volume", inputs=("close", "volume"), lookback=20, unit="correlation")
def move_volume_corr_20(bars: BarBlock) -> FloatArray:
    """Whether the volume is high when the price moves: correlation over 20 sessions.

    Formula: Pearson's correlation of |ln(close[i] / close[i-1])| and ln volume[i], i = t-19 .. t.
    NaN: the first 20 rows; where one of the 20 volumes is 0; where the moves or the volumes are all equal.
    Reference: as for return_volume_corr_20.
    """
    return _correlation(np.abs(log_returns(bars)), log_volume(bars), 20)
