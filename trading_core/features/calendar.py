"""What the date says. Feature contract: `trading_core.features.registry`."""

from __future__ import annotations

import math

import numpy as np

from trading_core.features.registry import BarBlock, feature
from trading_core.schema import FloatArray, IntArray

# Seven days, also for exchanges that trade on five: one formula for all markets. math's values, so all bits are fixed.
_SINES = tuple(math.sin(2.0 * math.pi * day / 7.0) for day in range(7))
_COSINES = tuple(math.cos(2.0 * math.pi * day / 7.0) for day in range(7))


def _weekday(bars: BarBlock) -> IntArray:
    days = bars.sessions.astype(np.int64)  # since 1970-01-01, a Thursday
    return (days + 3) % 7


@feature(family="calendar", inputs=(), lookback=0, unit="0 .. 6")
def dow(bars: BarBlock) -> FloatArray:
    """Day of the week of the session, Monday = 0.

    Formula: ISO weekday - 1.
    NaN: never.
    Reference: ISO 8601.
    """
    return _weekday(bars).astype(np.float64)


@feature(family="calendar", inputs=(), lookback=0, unit="-1 .. 1")
def dow_sin(bars: BarBlock) -> FloatArray:
    """Day of the week on a circle, first coordinate.

    Formula: sin(2 pi dow / 7).
    NaN: never.
    Reference: definition.
    """
    return np.array(_SINES)[_weekday(bars)]


@feature(family="calendar", inputs=(), lookback=0, unit="-1 .. 1")
def dow_cos(bars: BarBlock) -> FloatArray:
    """Day of the week on a circle, second coordinate.

    Formula: cos(2 pi dow / 7).
    NaN: never.
    Reference: definition.
    """
    return np.array(_COSINES)[_weekday(bars)]
