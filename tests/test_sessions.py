"""Sessions against facts of the exchange that anybody can look up."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from trading_core.errors import InvalidDateRangeError, NotASessionError, UnknownNameError
from trading_core.sessions import Sessions

NYSE = Sessions("XNYS")
ALWAYS = Sessions("24/7")
THANKSGIVING = date(2026, 11, 26)
HALF_DAY = date(2026, 11, 27)
WEDNESDAY = date(2026, 11, 25)
MONDAY = date(2026, 11, 30)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_holidays_and_weekends_are_no_sessions() -> None:
    days = [date(2026, 11, day) for day in range(23, 31)]
    assert [day.day for day in days if NYSE.is_session(day)] == [23, 24, 25, 27, 30]
    assert NYSE.between(days[0], days[-1]) == [day for day in days if day.day in (23, 24, 25, 27, 30)]


def test_a_year_of_the_nyse_has_its_known_number_of_sessions() -> None:
    counts = {2001: 248, 2012: 250, 2023: 250, 2024: 252}  # 2001: four days shut in September; 2012: Sandy
    assert {year: len(NYSE.between(date(year, 1, 1), date(year, 12, 31))) for year in counts} == counts


@pytest.mark.parametrize(
    ("session", "opens", "closes"),
    [
        (HALF_DAY, "14:30", "18:00"),
        (WEDNESDAY, "14:30", "21:00"),
        (date(2026, 3, 6), "14:30", "21:00"),
        (date(2026, 3, 9), "13:30", "20:00"),  # after the clocks went forward on the 8th
        (date(2026, 10, 30), "13:30", "20:00"),
        (date(2026, 11, 2), "14:30", "21:00"),  # after they went back on the 1st
    ],
)
def test_opens_and_closes_are_utc_and_follow_the_clock_of_new_york(session: date, opens: str, closes: str) -> None:
    assert NYSE.open(session) == utc(f"{session}T{opens}")
    assert NYSE.close(session) == utc(f"{session}T{closes}")
    assert NYSE.open(session).utcoffset() == timedelta(0)


def test_closes_of_many_sessions_are_those_of_each() -> None:
    sessions = [WEDNESDAY, HALF_DAY, MONDAY]
    assert NYSE.closes(sessions) == [NYSE.close(session) for session in sessions]


def test_neighbours() -> None:
    assert NYSE.next(WEDNESDAY) == HALF_DAY == NYSE.next(THANKSGIVING)
    assert NYSE.previous(HALF_DAY) == WEDNESDAY == NYSE.previous(THANKSGIVING)
    assert NYSE.previous(MONDAY) == HALF_DAY
    assert NYSE.offset(WEDNESDAY, 2) == MONDAY
    assert NYSE.offset(MONDAY, -2) == WEDNESDAY
    assert NYSE.offset(MONDAY, 0) == MONDAY


@pytest.mark.parametrize(
    ("now", "session"),
    [
        ("2026-11-27T17:59:59", WEDNESDAY),
        ("2026-11-27T18:00:00", HALF_DAY),  # at its close a session has closed
        ("2026-11-29T12:00:00", HALF_DAY),
        ("2026-11-30T20:59:59", HALF_DAY),
        ("2026-11-30T21:00:00", MONDAY),
        ("2026-11-26T12:00:00", WEDNESDAY),
    ],
)
def test_last_closed(now: str, session: date) -> None:
    assert NYSE.last_closed(utc(now)) == session


def test_last_closed_understands_other_time_zones() -> None:
    # 23:30 on the 27th in New York (UTC-5) is the 28th in UTC
    late = datetime.fromisoformat("2026-11-27T23:30:00-05:00")
    assert NYSE.last_closed(late) == HALF_DAY


@pytest.mark.parametrize(
    ("now", "tradable"),
    [
        ("2026-11-25T20:59", False),  # the session before is still open
        ("2026-11-25T21:00", True),
        ("2026-11-27T14:29", True),
        ("2026-11-27T14:30", False),  # its own open has come
    ],
)
def test_tradable_is_between_the_close_before_and_the_open(now: str, tradable: bool) -> None:
    assert NYSE.tradable(HALF_DAY, utc(now)) is tradable


def test_a_holiday_is_never_tradable() -> None:
    assert NYSE.tradable(THANKSGIVING, utc("2026-11-26T12:00")) is False


@pytest.mark.parametrize("ask", [NYSE.open, NYSE.close, NYSE.require, lambda day: NYSE.offset(day, 1)])
def test_asking_for_the_times_of_a_holiday_is_an_error(ask: object) -> None:
    with pytest.raises(NotASessionError, match="2026-11-26 is not a trading session of XNYS"):
        ask(THANKSGIVING)  # type: ignore[operator]


def test_ranges_without_sense_are_refused() -> None:
    with pytest.raises(InvalidDateRangeError, match="start lies after the end"):
        NYSE.between(HALF_DAY, WEDNESDAY)
    with pytest.raises(InvalidDateRangeError, match="known from 1990-01-01 to 2035-12-31"):
        NYSE.is_session(date(1980, 1, 2))
    with pytest.raises(InvalidDateRangeError):
        Sessions("XNYS", horizon_year=2026).next(date(2026, 12, 31))


def test_new_year_of_the_earliest_year_is_a_holiday_like_any_other() -> None:
    assert NYSE.is_session(date(1990, 1, 1)) is False
    assert NYSE.between(date(1990, 1, 1), date(1990, 1, 3)) == [date(1990, 1, 2), date(1990, 1, 3)]


@pytest.mark.parametrize(
    ("calendar", "session", "before"),
    [("XTKS", date(2024, 1, 4), date(1996, 12, 2)), ("XBOM", date(2024, 1, 1), date(1996, 12, 2))],
)
def test_a_calendar_that_knows_fewer_years_has_no_session_in_the_others(
    calendar: str, session: date, before: date
) -> None:
    sessions = Sessions(calendar)
    assert sessions.is_session(session)
    assert sessions.is_session(before) is False
    assert sessions.between(date(1990, 1, 1), before) == []
    assert sessions.between(date(1990, 1, 1), date(2024, 1, 31))[0].year == 1997
    with pytest.raises(InvalidDateRangeError, match=rf"calendar {calendar} is known from 1997-01-0\d to 20"):
        sessions.next(before)


def test_an_unknown_calendar_is_refused_when_asked() -> None:
    with pytest.raises(UnknownNameError, match="calendar 'NYSEE'"):
        Sessions("NYSEE").is_session(WEDNESDAY)


def test_a_market_that_never_closes() -> None:
    saturday = date(2026, 11, 28)
    assert ALWAYS.is_session(saturday)
    assert ALWAYS.open(saturday) == utc("2026-11-28T00:00")
    assert ALWAYS.close(saturday) == utc("2026-11-29T00:00")
    assert ALWAYS.last_closed(utc("2026-11-29T00:00")) == saturday
    assert len(ALWAYS.between(date(2024, 1, 1), date(2024, 12, 31))) == 366


def test_opens_of_many_sessions_are_those_of_each() -> None:
    sessions = [WEDNESDAY, HALF_DAY, MONDAY]
    assert NYSE.opens(sessions) == [NYSE.open(session) for session in sessions]


def test_where_a_session_opens_as_the_one_before_ends_the_deadline_lies_after_the_open() -> None:
    saturday = date(2026, 11, 28)
    assert (ALWAYS.always_open, NYSE.always_open) == (True, False)
    assert ALWAYS.close(HALF_DAY) == ALWAYS.open(saturday)
    assert ALWAYS.deadline(saturday) == utc("2026-11-28T02:00")
    assert NYSE.deadline(HALF_DAY) == NYSE.open(HALF_DAY)


@pytest.mark.parametrize(
    ("now", "tradable"),
    [
        ("2026-11-27T23:59:59", False),  # the day before has not ended: its bar is not known
        ("2026-11-28T00:00", True),
        ("2026-11-28T01:59:59", True),
        ("2026-11-28T02:00", False),  # two hours later its price is history
    ],
)
def test_tradable_where_the_market_never_closes(now: str, tradable: bool) -> None:
    assert ALWAYS.tradable(date(2026, 11, 28), utc(now)) is tradable
