"""The calendar against the standard library, exchange_calendars and dates known by heart."""

from __future__ import annotations

import calendar
import math
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import exchange_calendars
import numpy as np
import polars as pl
import pytest

from trading_core.features.build import build

NAMES = ["dow", "dow_sin", "dow_cos", "dom_sin", "dom_cos", "month_sin", "month_cos", "doy_sin", "doy_cos"]
NAMES += ["week_of_year", "days_from_month_start", "days_to_month_end", "days_to_quarter_end"]
SESSION_NAMES = ["days_since_last_session", "days_to_next_session", "after_holiday", "before_holiday"]
SESSION_NAMES += ["week_first_session", "week_last_session", "month_first_session", "month_last_session"]
SESSION_NAMES += ["quarter_last_session", "turn_of_month"]
NEW_YORK = ZoneInfo("America/New_York")


def bars_on(stamps: list[datetime], sessions: list[date]) -> pl.DataFrame:
    return pl.DataFrame({"symbol": ["X"] * len(sessions), "ts": stamps, "session": sessions})


def daily(days: list[date]) -> pl.DataFrame:
    return bars_on([datetime.combine(d, time(16), NEW_YORK).astimezone(UTC) for d in days], days)


def built(bars: pl.DataFrame, names: list[str], exchange: str = "XNYS") -> dict[str, list[float]]:
    days = sorted(bars["session"])
    return build(bars, names, days[0], days[-1], calendar=exchange).select(names).to_dict(as_series=False)


def on(day: date, name: str, exchange: str = "XNYS") -> float:
    return built(daily([day]), [name], exchange)[name][0]


def approx(expected: object) -> object:
    return pytest.approx(expected, rel=1e-6, abs=1e-6, nan_ok=True)


def _quarter_end(day: date) -> date:
    month = (day.month + 2) // 3 * 3
    return date(day.year, month, calendar.monthrange(day.year, month)[1])


def test_dates_equal_the_standard_library() -> None:
    """Every day of 2015 .. 2025, leap years and all, and some before 1970, where days count down."""
    days = [date(2015, 1, 1) + timedelta(days=i) for i in range(11 * 365 + 3)]
    for span in (days, [date(1899, 12, 28) + timedelta(days=i) for i in range(70)]):
        values = built(daily(span), NAMES)
        month = [calendar.monthrange(d.year, d.month)[1] for d in span]
        year = [366 if calendar.isleap(d.year) else 365 for d in span]
        turns = {
            "dow": [d.weekday() / 7 for d in span],
            "dom": [(d.day - 1) / n for d, n in zip(span, month, strict=True)],
            "month": [(d.month - 1) / 12 for d in span],
            "doy": [(d.timetuple().tm_yday - 1) / n for d, n in zip(span, year, strict=True)],
        }
        for name, part in turns.items():
            assert values[f"{name}_sin"] == approx([math.sin(2 * math.pi * x) for x in part]), name
            assert values[f"{name}_cos"] == approx([math.cos(2 * math.pi * x) for x in part]), name
        assert values["dow"] == [d.weekday() for d in span]
        assert values["week_of_year"] == [d.isocalendar().week for d in span]
        assert values["days_from_month_start"] == approx([(d.day - 1) / 31 for d in span])
        assert values["days_to_month_end"] == approx([(n - d.day) / 31 for d, n in zip(span, month, strict=True)])
        assert values["days_to_quarter_end"] == approx([(_quarter_end(d) - d).days / 92 for d in span])


def test_sessions_equal_exchange_calendars() -> None:
    """Ten years of New York: each flag from its neighbours in the list of sessions."""
    known = exchange_calendars.get_calendar("XNYS").sessions_in_range("2009-12-31", "2020-01-02")
    sessions = [stamp.date() for stamp in known]
    days = sessions[1:-1]
    values = built(daily(days), SESSION_NAMES)
    around = list(zip(sessions[:-2], days, sessions[2:], strict=True))
    week = [d.isocalendar()[:2] for d in sessions]
    quarter = [(d.year, (d.month - 1) // 3) for d in sessions]
    assert values["days_since_last_session"] == [(d - last).days for last, d, _ in around]
    assert values["days_to_next_session"] == [(after - d).days for _, d, after in around]
    assert values["month_first_session"] == [last.month != d.month for last, d, _ in around]
    assert values["month_last_session"] == [after.month != d.month for _, d, after in around]
    assert values["week_first_session"] == [a != b for a, b in pairwise(week[:-1])]
    assert values["week_last_session"] == [a != b for a, b in pairwise(week[1:])]
    assert values["quarter_last_session"] == [a != b for a, b in pairwise(quarter[1:])]
    assert values["turn_of_month"] == [after.month != d.month or d.day <= 4 for _, d, after in around]
    weekdays_between = [np.busday_count(d + timedelta(days=1), after) for _, d, after in around]
    assert values["before_holiday"] == [n > 0 for n in weekdays_between]
    assert values["after_holiday"] == [n > 0 for n in [np.busday_count("2010-01-01", days[0]), *weekdays_between[:-1]]]


def test_holidays_known_by_heart() -> None:
    assert on(date(2016, 11, 23), "before_holiday") == 1.0  # the day before Thanksgiving
    assert on(date(2016, 11, 23), "days_to_next_session") == 2.0
    assert on(date(2016, 11, 25), "after_holiday") == 1.0
    assert on(date(2016, 11, 25), "before_holiday") == 0.0  # an ordinary weekend follows
    assert on(date(2016, 7, 5), "after_holiday") == 1.0  # Independence Day on a Monday
    assert on(date(2016, 7, 5), "days_since_last_session") == 4.0
    assert on(date(2016, 7, 5), "week_first_session") == 1.0
    assert on(date(2016, 3, 24), "week_last_session") == 1.0  # Good Friday follows
    assert on(date(2016, 12, 30), "quarter_last_session") == 1.0
    assert on(date(2016, 11, 30), "month_last_session") == 1.0
    assert on(date(2016, 11, 30), "quarter_last_session") == 0.0


def test_a_market_that_never_closes() -> None:
    days = [date(2024, 2, 26) + timedelta(days=i) for i in range(14)]  # a Monday on; February has 29 days
    values = built(daily(days), SESSION_NAMES, "24/7")
    assert values["days_since_last_session"] == values["days_to_next_session"] == [1.0] * 14
    assert values["after_holiday"] == values["before_holiday"] == [0.0] * 14
    assert values["week_first_session"] == ([1.0] + [0.0] * 6) * 2
    assert values["week_last_session"] == ([0.0] * 6 + [1.0]) * 2
    assert values["month_last_session"] == [0.0] * 3 + [1.0] + [0.0] * 10
    assert values["month_first_session"] == [0.0] * 4 + [1.0] + [0.0] * 9


def test_a_day_that_is_no_session() -> None:
    sunday = date(2024, 3, 3)
    for name in SESSION_NAMES:
        assert math.isnan(on(sunday, name)), name
    assert on(sunday, "dow") == 6.0


def test_the_clock_is_the_exchanges() -> None:
    """9:31 and 16:00 in New York, in winter and in summer."""
    for day, hours in ((date(2024, 1, 10), 5), (date(2024, 7, 10), 4)):
        stamps = [datetime(day.year, day.month, day.day, h + hours, m, tzinfo=UTC) for h, m in ((9, 31), (16, 0))]
        values = built(bars_on(stamps, [day, day]), ["minute_of_day", "hour_sin", "hour_cos", "dow"])
        assert values["minute_of_day"] == approx([571 / 1440, 960 / 1440])
        assert values["hour_sin"] == approx([math.sin(2 * math.pi * m / 1440) for m in (571, 960)])
        assert values["hour_cos"] == approx([math.cos(2 * math.pi * m / 1440) for m in (571, 960)])
        assert values["dow"] == [2.0, 2.0]


def test_midnight_begins_the_circle() -> None:
    bars = bars_on([datetime(2024, 3, 6, tzinfo=UTC)], [date(2024, 3, 5)])
    values = built(bars, ["minute_of_day", "hour_sin", "hour_cos"], "24/7")
    assert values == {"minute_of_day": [0.0], "hour_sin": [0.0], "hour_cos": [1.0]}
