"""Where the price stands against its averages. Feature contract: `trading_core.features.registry`.

The averages inside MACD are truncated to `ewm_window` bars (see `kernels.ewm_mean`), the signal's window on top.
"""

from __future__ import annotations

from trading_core.features.kernels import ewm_mean, ewm_window, ratio, rolling_mean, rolling_mean_std
from trading_core.features.registry import BarBlock, feature
from trading_core.schema import FloatArray

_FAST, _SLOW, _SIGNAL = 11 / 13, 25 / 27, 8 / 10  # decays (n - 1) / (n + 1) of the spans 12, 26 and 9
_MACD_ROWS = ewm_window(_SLOW) - 1
_SIGNAL_ROWS = _MACD_ROWS + ewm_window(_SIGNAL) - 1


def _macd_line(close: FloatArray) -> FloatArray:
    """MACD in the currency of the price; NaN in the first 25 rows."""
    return ewm_mean(close, _FAST, 26) - ewm_mean(close, _SLOW, 26)


@feature(family="trend", inputs=("close",), lookback=_MACD_ROWS, unit="fraction of the close")
def macd(bars: BarBlock) -> FloatArray:
    """Moving average convergence divergence over the close.

    Formula: (EMA(close, 12) - EMA(close, 26)) / close.
    NaN: the first 25 rows.
    Reference: Appel (1979); times the close it is TA-Lib MACD(12, 26, 9), once that has forgotten its seed.
    """
    return ratio(_macd_line(bars.close), bars.close)


@feature(family="trend", inputs=("close",), lookback=_SIGNAL_ROWS, unit="fraction of the close")
def macd_signal(bars: BarBlock) -> FloatArray:
    """Signal line of MACD over the close.

    Formula: EMA(EMA(close, 12) - EMA(close, 26), 9) / close.
    NaN: the first 33 rows.
    Reference: as for macd.
    """
    return ratio(ewm_mean(_macd_line(bars.close), _SIGNAL, 9), bars.close)


@feature(family="trend", inputs=("close",), lookback=_SIGNAL_ROWS, unit="fraction of the close")
def macd_hist(bars: BarBlock) -> FloatArray:
    """MACD minus its signal line, over the close.

    Formula: macd - macd_signal.
    NaN: the first 33 rows.
    Reference: as for macd.
    """
    line = _macd_line(bars.close)
    return ratio(line - ewm_mean(line, _SIGNAL, 9), bars.close)


@feature(family="trend", inputs=("close",), lookback=19, unit="simple return")
def sma_ratio_20(bars: BarBlock) -> FloatArray:
    """Close against its mean of 20 sessions.

    Formula: close[t] / mean(close[t-19 .. t]) - 1.
    NaN: the first 19 rows.
    Reference: Brock, Lakonishok and LeBaron (1992), Simple technical trading rules.
    """
    return ratio(bars.close, rolling_mean(bars.close, 20)) - 1.0


@feature(family="trend", inputs=("close",), lookback=49, unit="simple return")
def sma_ratio_50(bars: BarBlock) -> FloatArray:
    """Close against its mean of 50 sessions.

    Formula: close[t] / mean(close[t-49 .. t]) - 1.
    NaN: the first 49 rows.
    Reference: as for sma_ratio_20.
    """
    return ratio(bars.close, rolling_mean(bars.close, 50)) - 1.0


@feature(family="trend", inputs=("close",), lookback=19, unit="half-widths of the band")
def bollinger_position_20(bars: BarBlock) -> FloatArray:
    """Where the close lies in its Bollinger bands: -1 at the lower, 0 in the middle, 1 at the upper band.

    Formula: (close - m) / (2 s), mean m and population deviation s of close[t-19 .. t]; 0 when they are all equal.
    NaN: the first 19 rows.
    Reference: Bollinger (1992); bands as TA-Lib BBANDS(20, 2, 2).
    """
    mean, deviation = rolling_mean_std(bars.close, 20, ddof=0)
    return ratio(bars.close - mean, 2.0 * deviation, undefined=0.0)
