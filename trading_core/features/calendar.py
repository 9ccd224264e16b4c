"""What the date says. Feature contract: `trading_core.features.registry`.

The family goes on in `calendar_sessions` (what the exchange's calendar and the clock say).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from trading_core.features.registry import BarBlock, feature
from trading_core.schema import DateArray, FloatArray, IntArray

# Tables of math's values: numpy's sine may round otherwise in the last bit, depending on the processor and the place in
# the array. Seven days, also for exchanges that trade on five: one formula for all markets.
_SINES = tuple(math.sin(2.0 * math.pi * day / 7.0) for day in range(7))
_COSINES = tuple(math.cos(2.0 * math.pi * day / 7.0) for day in range(7))
_MONTH_SINES = tuple(math.sin(2.0 * math.pi * month / 12.0) for month in range(12))
_MONTH_COSINES = tuple(math.cos(2.0 * math.pi * month / 12.0) for month in range(12))
# By length of the month (28 .. 31) or of the year (365, 366), then by the day, from 0 on.
_DAY_SINES = tuple(tuple(math.sin(2.0 * math.pi * day / n) for day in range(31)) for n in range(28, 32))
_DAY_COSINES = tuple(tuple(math.cos(2.0 * math.pi * day / n) for day in range(31)) for n in range(28, 32))
_YEAR_SINES = tuple(tuple(math.sin(2.0 * math.pi * day / n) for day in range(366)) for n in (365, 366))
_YEAR_COSINES = tuple(tuple(math.cos(2.0 * math.pi * day / n) for day in range(366)) for n in (365, 366))
_LONGEST_MONTH, _LONGEST_QUARTER = 31.0, 92.0  # days


def by_date(bars: BarBlock, formula: Callable[[DateArray], npt.NDArray[np.generic]]) -> FloatArray:
    """`formula` (dates [D] -> values [D]) at every bar. It is asked once for each date of the block's span, not per bar."""
    days = bars.sessions.astype(np.int64)
    first = int(days[:, 0].min())  # no row begins with padding, whose NaT is the smallest integer
    dates = np.arange(first, int(days.max()) + 1).astype("datetime64[D]")
    return np.take(formula(dates).astype(np.float64), np.maximum(days, first) - first)


def weekday(dates: DateArray) -> IntArray:
    """Monday = 0."""
    return (dates.astype(np.int64) + 3) % 7  # 1970-01-01 was a Thursday


def day_of_month(dates: DateArray) -> IntArray:
    """0 = the first."""
    return (dates - dates.astype("datetime64[M]").astype("datetime64[D]")).astype(np.int64)


def days_left_in_month(dates: DateArray) -> IntArray:
    """Calendar days to the last of the month."""
    return ((dates.astype("datetime64[M]") + 1).astype("datetime64[D]") - dates).astype(np.int64) - 1


def days_left_in_quarter(dates: DateArray) -> IntArray:
    """Calendar days to the last of March, June, September or December."""
    end = (_month(dates) // 3 + 1) * 3
    return (end.astype("datetime64[M]").astype("datetime64[D]") - dates).astype(np.int64) - 1


def _month(dates: DateArray) -> IntArray:
    """Months since January 1970."""
    return dates.astype("datetime64[M]").astype(np.int64)


def _place_in_month(dates: DateArray) -> tuple[IntArray, IntArray]:
    """Where a date lies in _DAY_SINES."""
    day = day_of_month(dates)
    return day + days_left_in_month(dates) + 1 - 28, day


def _place_in_year(dates: DateArray) -> tuple[IntArray, IntArray]:
    """Where a date lies in _YEAR_SINES."""
    year = dates.astype("datetime64[Y]")
    start, end = year.astype("datetime64[D]"), (year + 1).astype("datetime64[D]")
    return (end - start).astype(np.int64) - 365, (dates - start).astype(np.int64)


def _week(dates: DateArray) -> IntArray:
    """ISO week: the week of its Thursday, counted in the year of that."""
    thursday = dates + (3 - weekday(dates))
    return (thursday - thursday.astype("datetime64[Y]").astype("datetime64[D]")).astype(np.int64) // 7 + 1


@feature(family="calendar", inputs=(), lookback=0, unit="0 .. 6")
def dow(bars: BarBlock) -> FloatArray:
    """Day of the week of the session, Monday = 0.

    Formula: ISO weekday - 1.
    NaN: never.
    Reference: ISO 8601.
    """
    return by_date(bars, weekday)


@feature(family="calendar", inputs=(), lookback=0, unit="-1 .. 1")
def dow_sin(bars: BarBlock) -> FloatArray:
    """Day of the week on a circle, first coordinate.

    Formula: sin(2 pi dow / 7).
    NaN: never.
    Reference: definition.
    """
    return by_date(bars, lambda dates: np.array(_SINES)[weekday(dates)])


@feature(family="calendar", inputs=(), lookback=0, unit="-1 .. 1")
def dow_cos(bars: BarBlock) -> FloatArray:
    """Day of the week on a circle, second coordinate.

    Formula: cos(2 pi dow / 7).
    NaN: never.
    Reference: definition.
    """
    return by_date(bars, lambda dates: np.array(_COSINES)[weekday(dates)])


@feature(family="calendar", inputs=(), lookback=0, unit="-1 .. 1")
def dom_sin(bars: BarBlock) -> FloatArray:
    """Day of the month on a circle, first coordinate.

    Formula: sin(2 pi (d - 1) / n), day d of a month of n days.
    NaN: never.
    Reference: definition.
    """
    return by_date(bars, lambda dates: np.array(_DAY_SINES)[_place_in_month(dates)])


@feature(family="calendar", inputs=(), lookback=0, unit="-1 .. 1")
def dom_cos(bars: BarBlock) -> FloatArray:
    """Day of the month on a circle, second coordinate.

    Formula: cos(2 pi (d - 1) / n), day d of a month of n days.
    NaN: never.
    Reference: definition.
    """
    return by_date(bars, lambda dates: np.array(_DAY_COSINES)[_place_in_month(dates)])


@feature(family="calendar", inputs=(), lookback=0, unit="-1 .. 1")
def month_sin(bars: BarBlock) -> FloatArray:
    """Month of the year on a circle, first coordinate.

    Formula: sin(2 pi (m - 1) / 12), m = 1 for January.
    NaN: never.
    Reference: definition; the months differ: Heston and Sadka (2008), Seasonality in the cross-section of stock returns.
    """
    return by_date(bars, lambda dates: np.array(_MONTH_SINES)[_month(dates) % 12])


@feature(family="calendar", inputs=(), lookback=0, unit="-1 .. 1")
def month_cos(bars: BarBlock) -> FloatArray:
    """Month of the year on a circle, second coordinate.

    Formula: cos(2 pi (m - 1) / 12), m = 1 for January.
    NaN: never.
    Reference: as for month_sin.
    """
    return by_date(bars, lambda dates: np.array(_MONTH_COSINES)[_month(dates) % 12])


@feature(family="calendar", inputs=(), lookback=0, unit="-1 .. 1")
def doy_sin(bars: BarBlock) -> FloatArray:
    """Day of the year on a circle, first coordinate.

    Formula: sin(2 pi (d - 1) / n), day d of a year of n days.
    NaN: never.
    Reference: definition.
    """
    return by_date(bars, lambda dates: np.array(_YEAR_SINES)[_place_in_year(dates)])


@feature(family="calendar", inputs=(), lookback=0, unit="-1 .. 1")
def doy_cos(bars: BarBlock) -> FloatArray:
    """Day of the year on a circle, second coordinate.

    Formula: cos(2 pi (d - 1) / n), day d of a year of n days.
    NaN: never.
    Reference: definition.
    """
    return by_date(bars, lambda dates: np.array(_YEAR_COSINES)[_place_in_year(dates)])


@feature(family="calendar", inputs=(), lookback=0, unit="1 .. 53")
def week_of_year(bars: BarBlock) -> FloatArray:
    """Number of the week in its year.

    Formula: the ISO week: weeks begin on Monday and belong to the year of their Thursday.
    NaN: never.
    Reference: ISO 8601.
    """
    return by_date(bars, _week)


@feature(family="calendar", inputs=(), lookback=0, unit="fraction of 31 days")
def days_from_month_start(bars: BarBlock) -> FloatArray:
    """Calendar days since the first of the month.

    Formula: (d - 1) / 31, day d of the month.
    NaN: never.
    Reference: definition; the first half of a month: Ariel (1987), A monthly effect in stock returns.
    """
    return by_date(bars, day_of_month) / _LONGEST_MONTH


@feature(family="calendar", inputs=(), lookback=0, unit="fraction of 31 days")
def days_to_month_end(bars: BarBlock) -> FloatArray:
    """Calendar days to the last day of the month.

    Formula: (n - d) / 31, day d of a month of n days.
    NaN: never.
    Reference: as for days_from_month_start.
    """
    return by_date(bars, days_left_in_month) / _LONGEST_MONTH


@feature(family="calendar", inputs=(), lookback=0, unit="fraction of 92 days")
def days_to_quarter_end(bars: BarBlock) -> FloatArray:
    """Calendar days to the last day of the quarter.

    Formula: (last day of March, June, September or December - session) / 92.
    NaN: never.
    Reference: definition; window dressing: Lakonishok, Shleifer, Thaler and Vishny (1991).
    """
    return by_date(bars, days_left_in_quarter) / _LONGEST_QUARTER
