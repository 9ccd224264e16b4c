"""Returns of the close. Feature contract: `trading_core.features.registry`."""

from __future__ import annotations

from trading_core.features.common import log_returns
from trading_core.features.kernels import change
from trading_core.features.registry import BarBlock, feature
from trading_core.schema import FloatArray


@feature(family="returns", inputs=("close",), lookback=1, unit="log return")
def log_ret(bars: BarBlock) -> FloatArray:
    """Log return, close to close.

    Formula: ln close[t] - ln close[t-1].
    NaN: the first row; where a close is not positive.
    Reference: definition.
    """
    return log_returns(bars)


@feature(family="returns", inputs=("close",), lookback=1, unit="simple return")
def ret_1(bars: BarBlock) -> FloatArray:
    """Return over 1 session.

    Formula: close[t] / close[t-1] - 1.
    NaN: the first 1 row.
    Reference: TA-Lib ROCP(1).
    """
    return change(bars.close, 1)


@feature(family="returns", inputs=("close",), lookback=3, unit="simple return")
def ret_3(bars: BarBlock) -> FloatArray:
    """Return over 3 sessions.

    Formula: close[t] / close[t-3] - 1.
    NaN: the first 3 rows.
    Reference: TA-Lib ROCP(3).
    """
    return change(bars.close, 3)


@feature(family="returns", inputs=("close",), lookback=7, unit="simple return")
def ret_7(bars: BarBlock) -> FloatArray:
    """Return over 7 sessions.

    Formula: close[t] / close[t-7] - 1.
    NaN: the first 7 rows.
    Reference: TA-Lib ROCP(7).
    """
    return change(bars.close, 7)


@feature(family="returns", inputs=("close",), lookback=14, unit="simple return")
def ret_14(bars: BarBlock) -> FloatArray:
    """Return over 14 sessions.

    Formula: close[t] / close[t-14] - 1.
    NaN: the first 14 rows.
    Reference: TA-Lib ROCP(14).
    """
    return change(bars.close, 14)


@feature(family="returns", inputs=("close",), lookback=21, unit="simple return")
def ret_21(bars: BarBlock) -> FloatArray:
    """Return over 21 sessions.

    Formula: close[t] / close[t-21] - 1.
    NaN: the first 21 rows.
    Reference: TA-Lib ROCP(21).
    """
    return change(bars.close, 21)


@feature(family="returns", inputs=("close",), lookback=63, unit="simple return")
def ret_63(bars: BarBlock) -> FloatArray:
    """Return over 63 sessions.

    Formula: close[t] / close[t-63] - 1.
    NaN: the first 63 rows.
    Reference: TA-Lib ROCP(63).
    """
    return change(bars.close, 63)
