"""What the exchange's calendar and the clock say. Feature contract: `trading_core.features.registry`.

An exchange publishes its sessions years ahead, so the next session is known at t. What asks for the sessions around a day
is NaN on a day that is no session of the exchange. Exchanges without weekends know no holidays.
"""

from __future__ import annotations

import math

import numpy as np

from trading_core.features.calendar import by_date, day_of_month, days_left_in_month, days_left_in_quarter, weekday
from trading_core.features.registry import BarBlock, feature, shared
from trading_core.schema import FloatArray

_MINUTES = 1440
_MINUTE_SINES = tuple(math.sin(2.0 * math.pi * minute / _MINUTES) for minute in range(_MINUTES))
_MINUTE_COSINES = tuple(math.cos(2.0 * math.pi * minute / _MINUTES) for minute in range(_MINUTES))
_FRIDAY, _SATURDAY, _SUNDAY, _MONDAY = 4, 5, 6, 0


@shared
def _minute(bars: BarBlock) -> FloatArray:
    """0 .. 1439; 0 in the padding."""
    minute = bars.column("local_minute")
    return np.where(np.isnan(minute), 0.0, minute)


@shared
def _weekday(bars: BarBlock) -> FloatArray:
    return by_date(bars, weekday)


@shared
def _day_of_month(bars: BarBlock) -> FloatArray:
    return by_date(bars, day_of_month)


@shared
def _left_in_month(bars: BarBlock) -> FloatArray:
    return by_date(bars, days_left_in_month)


def _flag(happens: np.ndarray, needed: FloatArray) -> FloatArray:
    return np.where(np.isnan(needed), np.nan, happens.astype(np.float64))


@feature(family="calendar", inputs=("local_minute",), lookback=0, unit="fraction of a day")
def minute_of_day(bars: BarBlock) -> FloatArray:
    """Time of the day at the end of the bar, on the exchange's clock.

    Formula: minutes since midnight / 1440.
    NaN: never.
    Reference: definition.
    """
    return bars.column("local_minute") / _MINUTES


@feature(family="calendar", inputs=("local_minute",), lookback=0, unit="-1 .. 1")
def hour_sin(bars: BarBlock) -> FloatArray:
    """Time of the day at the end of the bar on a circle, first coordinate.

    Formula: sin(2 pi minutes since midnight / 1440), on the exchange's clock.
    NaN: never.
    Reference: definition; Heston, Korajczyk and Sadka (2010), Intraday patterns in the cross-section of stock returns.
    """
    return np.array(_MINUTE_SINES)[_minute(bars).astype(np.int64)]


@feature(family="calendar", inputs=("local_minute",), lookback=0, unit="-1 .. 1")
def hour_cos(bars: BarBlock) -> FloatArray:
    """Time of the day at the end of the bar on a circle, second coordinate.

    Formula: cos(2 pi minutes since midnight / 1440), on the exchange's clock.
    NaN: never.
    Reference: as for hour_sin.
    """
    return np.array(_MINUTE_COSINES)[_minute(bars).astype(np.int64)]


@feature(family="calendar", inputs=("days_since_last",), lookback=0, unit="calendar days")
def days_since_last_session(bars: BarBlock) -> FloatArray:
    """Calendar days since the exchange's session before: 1 on an ordinary day, 3 after a weekend.

    Formula: session - session before.
    NaN: on a day that is no session.
    Reference: French (1980), Stock returns and the weekend effect.
    """
    return bars.column("days_since_last") * 1.0


@feature(family="calendar", inputs=("days_to_next",), lookback=0, unit="calendar days")
def days_to_next_session(bars: BarBlock) -> FloatArray:
    """Calendar days to the exchange's next session: 1 on an ordinary day, 3 before a weekend.

    Formula: next session - session.
    NaN: on a day that is no session.
    Reference: as for days_since_last_session.
    """
    return bars.column("days_to_next") * 1.0


@feature(family="calendar", inputs=("days_since_last",), lookback=0, unit="0 or 1")
def after_holiday(bars: BarBlock) -> FloatArray:
    """Whether the exchange was closed since its last session on a day other than a weekend's.

    Formula: 1 if days since the session before > 1 (> 2 on a Sunday, > 3 on a Monday), else 0.
    NaN: on a day that is no session.
    Reference: Ariel (1990), High stock returns before holidays.
    """
    day, since = _weekday(bars), bars.column("days_since_last")
    usual = 1.0 + 2.0 * (day == _MONDAY) + 1.0 * (day == _SUNDAY)
    return _flag(since > usual, since)


@feature(family="calendar", inputs=("days_to_next",), lookback=0, unit="0 or 1")
def before_holiday(bars: BarBlock) -> FloatArray:
    """Whether the exchange is closed before its next session on a day other than a weekend's.

    Formula: 1 if days to the next session > 1 (> 2 on a Saturday, > 3 on a Friday), else 0.
    NaN: on a day that is no session.
    Reference: as for after_holiday.
    """
    day, until = _weekday(bars), bars.column("days_to_next")
    usual = 1.0 + 2.0 * (day == _FRIDAY) + 1.0 * (day == _SATURDAY)
    return _flag(until > usual, until)


@feature(family="calendar", inputs=("days_since_last",), lookback=0, unit="0 or 1")
def week_first_session(bars: BarBlock) -> FloatArray:
    """Whether it is the first session of its week, which begins on Monday.

    Formula: 1 if days since the session before > weekday (Monday = 0), else 0.
    NaN: on a day that is no session.
    Reference: French (1980), Stock returns and the weekend effect.
    """
    since = bars.column("days_since_last")
    return _flag(since > _weekday(bars), since)


@feature(family="calendar", inputs=("days_to_next",), lookback=0, unit="0 or 1")
def week_last_session(bars: BarBlock) -> FloatArray:
    """Whether it is the last session of its week, which ends on Sunday.

    Formula: 1 if weekday (Monday = 0) + days to the next session > 6, else 0.
    NaN: on a day that is no session.
    Reference: as for week_first_session.
    """
    until = bars.column("days_to_next")
    return _flag(_weekday(bars) + until > _SUNDAY, until)


@feature(family="calendar", inputs=("days_since_last",), lookback=0, unit="0 or 1")
def month_first_session(bars: BarBlock) -> FloatArray:
    """Whether it is the first session of its month.

    Formula: 1 if the session before lies in another month, else 0.
    NaN: on a day that is no session.
    Reference: Ariel (1987), A monthly effect in stock returns.
    """
    since = bars.column("days_since_last")
    return _flag(since > _day_of_month(bars), since)


@feature(family="calendar", inputs=("days_to_next",), lookback=0, unit="0 or 1")
def month_last_session(bars: BarBlock) -> FloatArray:
    """Whether it is the last session of its month.

    Formula: 1 if the next session lies in another month, else 0.
    NaN: on a day that is no session.
    Reference: as for month_first_session.
    """
    until = bars.column("days_to_next")
    return _flag(until > _left_in_month(bars), until)


@feature(family="calendar", inputs=("days_to_next",), lookback=0, unit="0 or 1")
def quarter_last_session(bars: BarBlock) -> FloatArray:
    """Whether it is the last session of its quarter.

    Formula: 1 if the next session lies in another quarter, else 0.
    NaN: on a day that is no session.
    Reference: Carhart, Kaniel, Musto and Reed (2002), Leaning for the tape: evidence of gaming behavior in equity funds.
    """
    until = bars.column("days_to_next")
    return _flag(until > by_date(bars, days_left_in_quarter), until)


@feature(family="calendar", inputs=("days_to_next",), lookback=0, unit="0 or 1")
def turn_of_month(bars: BarBlock) -> FloatArray:
    """The turn of the month: its last session, or one of its first four calendar days.

    Formula: 1 if the next session lies in another month or the day of the month is at most 4, else 0.
    NaN: on a day that is no session.
    Reference: McConnell and Xu (2008), Equity returns at the turn of the month: sessions -1 to 3, here by calendar days, so
        that one bar is enough to tell.
    """
    until = bars.column("days_to_next")
    return _flag((until > _left_in_month(bars)) | (_day_of_month(bars) < 4.0), until)
