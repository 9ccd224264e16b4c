"""Where the price stands against its averages. Feature contract: `trading_core.features.registry`.

Exponential averages are truncated to `ewm_window` bars (see `kernels.ewm_mean`), those of averages to the sum of both
windows. Their spans end at 50: a span of 200 would need 1,612 bars, which is longer than many histories and would set the
warm-up of every build; the plain mean of 200 bars (sma_ratio_200) tells the same.
"""

from __future__ import annotations

import numpy as np

from trading_core.features.common import ema_rows, span
from trading_core.features.kernels import (
    adaptive_mean,
    diff,
    ewm_mean,
    ewm_window,
    ratio,
    rolling_mean,
    rolling_mean_std,
    rolling_sum,
    weighted_mean,
)
from trading_core.features.registry import BarBlock, feature, shared
from trading_core.schema import FloatArray

_ROUNDING = 1e-12  # what two means of equal prices may differ by, relative to them
_KAMA_ROWS = 384  # bars of the truncated recursion; on real prices the weight left behind them is below 1e-9


@shared
def ema_12(bars: BarBlock) -> FloatArray:
    """EMA(close, 12) in the currency of the price; NaN in the first 11 rows."""
    return ewm_mean(bars.close, span(12), 12)


@shared
def ema_20(bars: BarBlock) -> FloatArray:
    """EMA(close, 20) in the currency of the price; NaN in the first 19 rows."""
    return ewm_mean(bars.close, span(20), 20)


@shared
def ema_26(bars: BarBlock) -> FloatArray:
    """EMA(close, 26) in the currency of the price; NaN in the first 25 rows."""
    return ewm_mean(bars.close, span(26), 26)


@shared
def _ema_of_ema_20(bars: BarBlock) -> FloatArray:
    return ewm_mean(ema_20(bars), span(20), 20)


@shared
def _macd_line(bars: BarBlock) -> FloatArray:
    """MACD in the currency of the price; NaN in the first 25 rows."""
    return ema_12(bars) - ema_26(bars)


@shared
def _macd_average(bars: BarBlock) -> FloatArray:
    """The signal line of MACD in the currency of the price; NaN in the first 33 rows."""
    return ewm_mean(_macd_line(bars), span(9), 9)


@shared
def _sma_20(bars: BarBlock) -> FloatArray:
    return rolling_mean(bars.close, 20)


@shared
def _sma_50(bars: BarBlock) -> FloatArray:
    return rolling_mean(bars.close, 50)


@shared
def _sma_200(bars: BarBlock) -> FloatArray:
    return rolling_mean(bars.close, 200)


@feature(family="trend", inputs=("close",), lookback=ema_rows(26), unit="fraction of the close")
def macd(bars: BarBlock) -> FloatArray:
    """Moving average convergence divergence over the close.

    Formula: (EMA(close, 12) - EMA(close, 26)) / close.
    NaN: the first 25 rows.
    Reference: Appel (1979); times the close it is TA-Lib MACD(12, 26, 9), once that has forgotten its seed.
    """
    return ratio(_macd_line(bars), bars.close)


@feature(family="trend", inputs=("close",), lookback=ema_rows(26, 9), unit="fraction of the close")
def macd_signal(bars: BarBlock) -> FloatArray:
    """Signal line of MACD over the close.

    Formula: EMA(EMA(close, 12) - EMA(close, 26), 9) / close.
    NaN: the first 33 rows.
    Reference: as for macd.
    """
    return ratio(_macd_average(bars), bars.close)


@feature(family="trend", inputs=("close",), lookback=ema_rows(26, 9), unit="fraction of the close")
def macd_hist(bars: BarBlock) -> FloatArray:
    """MACD minus its signal line, over the close.

    Formula: macd - macd_signal.
    NaN: the first 33 rows.
    Reference: as for macd.
    """
    return ratio(_macd_line(bars) - _macd_average(bars), bars.close)


@feature(family="trend", inputs=("close",), lookback=4, unit="simple return")
def sma_ratio_5(bars: BarBlock) -> FloatArray:
    """Close against its mean of 5 sessions.

    Formula: close[t] / mean(close[t-4 .. t]) - 1.
    NaN: the first 4 rows.
    Reference: as for sma_ratio_20.
    """
    return ratio(bars.close, rolling_mean(bars.close, 5)) - 1.0


@feature(family="trend", inputs=("close",), lookback=9, unit="simple return")
def sma_ratio_10(bars: BarBlock) -> FloatArray:
    """Close against its mean of 10 sessions.

    Formula: close[t] / mean(close[t-9 .. t]) - 1.
    NaN: the first 9 rows.
    Reference: as for sma_ratio_20.
    """
    return ratio(bars.close, rolling_mean(bars.close, 10)) - 1.0


@feature(family="trend", inputs=("close",), lookback=19, unit="simple return")
def sma_ratio_20(bars: BarBlock) -> FloatArray:
    """Close against its mean of 20 sessions.

    Formula: close[t] / mean(close[t-19 .. t]) - 1.
    NaN: the first 19 rows.
    Reference: Brock, Lakonishok and LeBaron (1992), Simple technical trading rules.
    """
    return ratio(bars.close, _sma_20(bars)) - 1.0


@feature(family="trend", inputs=("close",), lookback=49, unit="simple return")
def sma_ratio_50(bars: BarBlock) -> FloatArray:
    """Close against its mean of 50 sessions.

    Formula: close[t] / mean(close[t-49 .. t]) - 1.
    NaN: the first 49 rows.
    Reference: as for sma_ratio_20.
    """
    return ratio(bars.close, _sma_50(bars)) - 1.0


@feature(family="trend", inputs=("close",), lookback=99, unit="simple return")
def sma_ratio_100(bars: BarBlock) -> FloatArray:
    """Close against its mean of 100 sessions.

    Formula: close[t] / mean(close[t-99 .. t]) - 1.
    NaN: the first 99 rows.
    Reference: as for sma_ratio_20.
    """
    return ratio(bars.close, rolling_mean(bars.close, 100)) - 1.0


@feature(family="trend", inputs=("close",), lookback=199, unit="simple return")
def sma_ratio_200(bars: BarBlock) -> FloatArray:
    """Close against its mean of 200 sessions.

    Formula: close[t] / mean(close[t-199 .. t]) - 1.
    NaN: the first 199 rows.
    Reference: as for sma_ratio_20.
    """
    return ratio(bars.close, _sma_200(bars)) - 1.0


@feature(family="trend", inputs=("close",), lookback=49, unit="simple return")
def sma_cross_20_50(bars: BarBlock) -> FloatArray:
    """Mean of 20 sessions against that of 50: positive after a golden cross, negative after a death cross.

    Formula: mean(close[t-19 .. t]) / mean(close[t-49 .. t]) - 1.
    NaN: the first 49 rows.
    Reference: as for sma_ratio_20, the rule of two averages.
    """
    return ratio(_sma_20(bars), _sma_50(bars)) - 1.0


@feature(family="trend", inputs=("close",), lookback=199, unit="simple return")
def sma_cross_50_200(bars: BarBlock) -> FloatArray:
    """Mean of 50 sessions against that of 200: positive after a golden cross, negative after a death cross.

    Formula: mean(close[t-49 .. t]) / mean(close[t-199 .. t]) - 1.
    NaN: the first 199 rows.
    Reference: as for sma_ratio_20, the rule of two averages.
    """
    return ratio(_sma_50(bars), _sma_200(bars)) - 1.0


@feature(family="trend", inputs=("close",), lookback=199, unit="0 or 1")
def golden_cross_50_200(bars: BarBlock) -> FloatArray:
    """Whether the mean of 50 sessions lies above that of 200: 1 from a golden cross to the next death cross.

    Formula: 1 if sma_cross_50_200 > 1e-12, else 0: equal means may differ by a rounding.
    NaN: the first 199 rows.
    Reference: as for sma_cross_50_200; a model's scaling keeps these two states apart, but not the sign of the distance.
    """
    distance = ratio(_sma_50(bars), _sma_200(bars)) - 1.0
    return np.where(np.isfinite(distance), (distance > _ROUNDING).astype(np.float64), np.nan)


@feature(family="trend", inputs=("close",), lookback=ema_rows(8), unit="simple return")
def ema_ratio_8(bars: BarBlock) -> FloatArray:
    """Close against its exponential average of span 8.

    Formula: close / EMA(close, 8) - 1, alpha = 2 / 9.
    NaN: the first 7 rows.
    Reference: TA-Lib EMA(8), once that has forgotten its seed.
    """
    return ratio(bars.close, ewm_mean(bars.close, span(8), 8)) - 1.0


@feature(family="trend", inputs=("close",), lookback=ema_rows(12), unit="simple return")
def ema_ratio_12(bars: BarBlock) -> FloatArray:
    """Close against its exponential average of span 12.

    Formula: close / EMA(close, 12) - 1, alpha = 2 / 13.
    NaN: the first 11 rows.
    Reference: TA-Lib EMA(12), once that has forgotten its seed.
    """
    return ratio(bars.close, ema_12(bars)) - 1.0


@feature(family="trend", inputs=("close",), lookback=ema_rows(20), unit="simple return")
def ema_ratio_20(bars: BarBlock) -> FloatArray:
    """Close against its exponential average of span 20.

    Formula: close / EMA(close, 20) - 1, alpha = 2 / 21.
    NaN: the first 19 rows.
    Reference: TA-Lib EMA(20), once that has forgotten its seed.
    """
    return ratio(bars.close, ema_20(bars)) - 1.0


@feature(family="trend", inputs=("close",), lookback=ema_rows(26), unit="simple return")
def ema_ratio_26(bars: BarBlock) -> FloatArray:
    """Close against its exponential average of span 26.

    Formula: close / EMA(close, 26) - 1, alpha = 2 / 27.
    NaN: the first 25 rows.
    Reference: TA-Lib EMA(26), once that has forgotten its seed.
    """
    return ratio(bars.close, ema_26(bars)) - 1.0


@feature(family="trend", inputs=("close",), lookback=ewm_window(span(50), 1e-8) - 1, unit="simple return")
def ema_ratio_50(bars: BarBlock) -> FloatArray:
    """Close against its exponential average of span 50.

    Formula: close / EMA(close, 50) - 1, alpha = 2 / 51.
    NaN: the first 49 rows.
    Reference: TA-Lib EMA(50), once that has forgotten its seed.
    """
    return ratio(bars.close, ewm_mean(bars.close, span(50), 50, 1e-8)) - 1.0


@feature(family="trend", inputs=("close",), lookback=ema_rows(20, 20), unit="simple return")
def dema_ratio_20(bars: BarBlock) -> FloatArray:
    """Close against its double exponential average of span 20.

    Formula: close / (2 E1 - E2) - 1, E1 = EMA(close, 20), E2 = EMA(E1, 20).
    NaN: the first 38 rows.
    Reference: Mulloy (1994), Smoothing data with faster moving averages; TA-Lib DEMA(20), its seed forgotten.
    """
    return ratio(bars.close, 2.0 * ema_20(bars) - _ema_of_ema_20(bars)) - 1.0


@feature(family="trend", inputs=("close",), lookback=ema_rows(20, 20, 20), unit="simple return")
def tema_ratio_20(bars: BarBlock) -> FloatArray:
    """Close against its triple exponential average of span 20.

    Formula: close / (3 E1 - 3 E2 + E3) - 1, E1 = EMA(close, 20), E2 = EMA(E1, 20), E3 = EMA(E2, 20).
    NaN: the first 57 rows.
    Reference: as for dema_ratio_20; TA-Lib TEMA(20), its seed forgotten.
    """
    third = ewm_mean(_ema_of_ema_20(bars), span(20), 20)
    return ratio(bars.close, 3.0 * (ema_20(bars) - _ema_of_ema_20(bars)) + third) - 1.0


@feature(family="trend", inputs=("close",), lookback=19, unit="simple return")
def wma_ratio_20(bars: BarBlock) -> FloatArray:
    """Close against its linearly weighted mean of 20 sessions.

    Formula: close[t] / (sum of (20 - k) close[t-k], k = 0 .. 19, over 210) - 1.
    NaN: the first 19 rows.
    Reference: TA-Lib WMA(20).
    """
    return ratio(bars.close, weighted_mean(bars.close, 20)) - 1.0


@feature(family="trend", inputs=("close",), lookback=_KAMA_ROWS - 1 + 10, unit="simple return")
def kama_ratio_10(bars: BarBlock) -> FloatArray:
    """Close against Kaufman's adaptive average: slow when the price wanders, fast when it goes straight.

    Formula: close / K - 1, K[t] = K[t-1] + c^2 (close[t] - K[t-1]), c = 2/31 + E (2/3 - 2/31), efficiency
        E = |close[t] - close[t-10]| / sum of |close[i] - close[i-1]|, i = t-9 .. t (1 where the price has not moved);
        truncated to 384 bars.
    NaN: until the bars hold all but 1e-6 of the weight, which takes about 200; later where 384 do not.
    Reference: Kaufman (1995), Smarter trading; TA-Lib KAMA(10), once that has forgotten its seed.
    """
    way = rolling_sum(np.abs(diff(bars.close)), 10)
    efficiency = np.minimum(ratio(np.abs(diff(bars.close, 10)), way, undefined=1.0), 1.0)
    smoothing = 2.0 / 31.0 + efficiency * (2.0 / 3.0 - 2.0 / 31.0)
    return ratio(bars.close, adaptive_mean(bars.close, smoothing * smoothing, _KAMA_ROWS)) - 1.0


@feature(family="trend", inputs=("close",), lookback=19, unit="half-widths of the band")
def bollinger_position_20(bars: BarBlock) -> FloatArray:
    """Where the close lies in its Bollinger bands: -1 at the lower, 0 in the middle, 1 at the upper band.

    Formula: (close - m) / (2 s), mean m and population deviation s of close[t-19 .. t]; 0 when they are all equal.
    NaN: the first 19 rows.
    Reference: Bollinger (1992); bands as TA-Lib BBANDS(20, 2, 2).
    """
    mean, deviation = rolling_mean_std(bars.close, 20, ddof=0)
    return ratio(bars.close - mean, 2.0 * deviation, undefined=0.0)
