"""The session timetable against known facts of the NYSE and against exchange_calendars itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import exchange_calendars
import pytest
from airflow_env import PLUGINS, airflow_environment
from hypothesis import given, settings
from hypothesis import strategies as st

CALENDAR_DAYS = st.dates(date(2000, 1, 3), date(2030, 12, 1))


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The plugin's module; Airflow is imported with a home of its own, and the environment is put back."""
    before, path = dict(os.environ), list(sys.path)
    os.environ.update(airflow_environment(tmp_path_factory.mktemp("airflow")))
    sys.path.insert(0, str(PLUGINS))
    import session_timetable

    os.environ.clear()
    os.environ.update(before)
    sys.path[:] = path
    return session_timetable


@pytest.fixture(scope="module")
def nyse() -> Any:
    return exchange_calendars.get_calendar("XNYS", start="1999-01-01", end="2031-12-31")


@pytest.fixture(scope="module")
def close_timetable(module: Any) -> Any:
    return module.SessionTimetable("XNYS", "close", 30)


@pytest.fixture(scope="module")
def open_timetable(module: Any) -> Any:
    return module.SessionTimetable("XNYS", "open", -30)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def restriction(catchup: bool, earliest: str | None = None, latest: str | None = None) -> Any:
    from airflow.timetables.base import TimeRestriction

    return TimeRestriction(utc(earliest) if earliest else None, utc(latest) if latest else None, catchup)  # type: ignore[arg-type]


def run_of(timetable: Any, session: str) -> Any:
    """The info of a run that has been: what the scheduler reads back from its database."""
    from airflow.timetables.base import DagRunInfo

    key = date.fromisoformat(session)
    return DagRunInfo(
        run_after=timetable._due(key), data_interval=None, partition_date=utc(session), partition_key=session
    )


def first_due(timetable: Any, session: str) -> datetime:
    """When the run of `session` is due, asked as the scheduler asks: with catch-up, from that day on."""
    info = timetable.next_dagrun_info_v2(last_dagrun_info=None, restriction=restriction(True, session))
    assert info.partition_key == session
    return info.run_after


# --- known facts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("session", "opens", "closes"),
    [
        ("2026-11-25", "14:30", "21:00"),
        ("2026-11-27", "14:30", "18:00"),  # the day after Thanksgiving closes at 13:00 in New York
        ("2026-03-06", "14:30", "21:00"),  # the Friday before and the Monday after the clocks go forward
        ("2026-03-09", "13:30", "20:00"),
        ("2026-10-30", "13:30", "20:00"),  # and back
        ("2026-11-02", "14:30", "21:00"),
        ("2026-12-24", "14:30", "18:00"),
    ],
)
def test_runs_are_due_around_the_real_open_and_close(
    open_timetable: Any, close_timetable: Any, session: str, opens: str, closes: str
) -> None:
    assert first_due(open_timetable, session) == utc(f"{session}T{opens}") - timedelta(minutes=30)
    assert first_due(close_timetable, session) == utc(f"{session}T{closes}") + timedelta(minutes=30)


@pytest.mark.parametrize(
    ("last", "following"),
    [
        ("2026-11-25", "2026-11-27"),  # Thanksgiving
        ("2026-11-27", "2026-11-30"),  # a weekend
        ("2026-12-31", "2027-01-04"),
        ("2026-04-02", "2026-04-06"),  # Good Friday
        ("2012-10-26", "2012-10-31"),  # hurricane Sandy
    ],
)
def test_closed_days_have_no_run(close_timetable: Any, last: str, following: str) -> None:
    info = close_timetable.next_dagrun_info_v2(
        last_dagrun_info=run_of(close_timetable, last), restriction=restriction(True)
    )
    assert info.partition_key == following
    assert info.partition_date == utc(following)
    assert info.logical_date is None


def test_a_market_that_never_closes(module: Any) -> None:
    timetable = module.SessionTimetable("24/7", "close", 5)
    assert first_due(timetable, "2026-11-28") == utc("2026-11-29T00:05")  # a Saturday
    keys = [
        info.partition_key
        for info in timetable.iter_partition_dagrun_infos(earliest=utc("2026-12-24"), latest=utc("2026-12-27"))
    ]
    assert keys == ["2026-12-24", "2026-12-25", "2026-12-26", "2026-12-27"]


# --- iteration --------------------------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(
    start=CALENDAR_DAYS, count=st.integers(2, 40), anchor=st.sampled_from([("open", -30), ("close", 30), ("close", 0)])
)
def test_scheduled_sessions_are_those_of_the_exchange(
    module: Any, nyse: Any, start: date, count: int, anchor: tuple[str, int]
) -> None:
    timetable = module.SessionTimetable("XNYS", *anchor)
    infos: list[Any] = []
    for _ in range(count):
        rule = restriction(True, start.isoformat())
        infos.append(timetable.next_dagrun_info_v2(last_dagrun_info=infos[-1] if infos else None, restriction=rule))
    expected = nyse.sessions_window(nyse.date_to_session(start.isoformat(), "next"), count)
    assert [info.partition_key for info in infos] == [stamp.date().isoformat() for stamp in expected]
    assert all(early.run_after < late.run_after for early, late in pairwise(infos))


@settings(max_examples=20, deadline=None)
@given(start=CALENDAR_DAYS, days=st.integers(0, 90))
def test_a_backfill_runs_every_session_of_its_range_and_no_other_day(
    module: Any, nyse: Any, start: date, days: int
) -> None:
    end = start + timedelta(days=days)
    timetable = module.SessionTimetable("XNYS", "open", -30)
    infos = list(timetable.iter_partition_dagrun_infos(earliest=utc(start.isoformat()), latest=utc(end.isoformat())))
    expected = nyse.sessions_in_range(start.isoformat(), end.isoformat())
    assert [info.partition_key for info in infos] == [stamp.date().isoformat() for stamp in expected]
    assert all(info.run_after == info.partition_date for info in infos)


def test_a_backfill_holds_both_its_ends(open_timetable: Any) -> None:
    infos = open_timetable.iter_partition_dagrun_infos(earliest=utc("2026-11-25"), latest=utc("2026-11-30"))
    assert [info.partition_key for info in infos] == ["2026-11-25", "2026-11-27", "2026-11-30"]


def test_nothing_runs_after_the_end_date(close_timetable: Any) -> None:
    last = run_of(close_timetable, "2026-11-25")
    rule = restriction(True, latest="2026-11-26")
    assert close_timetable.next_dagrun_info_v2(last_dagrun_info=last, restriction=rule) is None


# --- without catch-up -------------------------------------------------------------------------------------------------


def next_at(
    module: Any, monkeypatch: pytest.MonkeyPatch, timetable: Any, now: str, last: str | None, **rule: Any
) -> str:
    monkeypatch.setattr(module, "utcnow", lambda: utc(now))
    ran = run_of(timetable, last) if last else None
    return timetable.next_dagrun_info_v2(last_dagrun_info=ran, restriction=restriction(False, **rule)).partition_key


@pytest.mark.parametrize(
    ("now", "first"),
    [
        ("2026-11-25T12:00", "2026-11-25"),  # its close + 30 min is still to come
        ("2026-11-25T21:29", "2026-11-25"),
        ("2026-11-25T21:30", "2026-11-25"),  # due now: the scheduler has not looked yet
        ("2026-11-25T21:31", "2026-11-25"),  # parsed again while the scheduler had not looked yet
        ("2026-11-25T21:33", "2026-11-27"),  # past: left out, Thanksgiving too
        ("2026-11-26T15:00", "2026-11-27"),
        ("2026-11-27T18:29", "2026-11-27"),  # the half day's early close
        ("2026-11-27T18:33", "2026-11-30"),
        ("2026-11-28T23:00", "2026-11-30"),
    ],
)
def test_a_fresh_installation_starts_with_the_next_session(
    module: Any, monkeypatch: pytest.MonkeyPatch, close_timetable: Any, now: str, first: str
) -> None:
    assert next_at(module, monkeypatch, close_timetable, now, None) == first


def test_a_fresh_daily_trade_waits_for_the_next_open(
    module: Any, monkeypatch: pytest.MonkeyPatch, open_timetable: Any
) -> None:
    assert next_at(module, monkeypatch, open_timetable, "2026-11-25T13:59", None) == "2026-11-25"
    assert next_at(module, monkeypatch, open_timetable, "2026-11-25T14:30", None) == "2026-11-27"


@pytest.mark.parametrize(
    ("now", "last", "following"),
    [
        ("2026-11-25T21:31", "2026-11-25", "2026-11-27"),  # up to date: the next one
        ("2026-11-27T10:00", "2026-11-25", "2026-11-27"),
        ("2026-11-30T21:00", "2026-11-20", "2026-11-27"),  # after a downtime: the newest that is due, and it alone
        ("2026-11-30T21:30", "2026-11-20", "2026-11-30"),
        ("2026-11-30T21:30", "2013-02-08", "2026-11-30"),  # a backfill of history is a last run as well
        ("2026-11-20T12:00", "2026-11-30", "2026-12-01"),  # never one that has been, even when the clock went back
    ],
)
def test_after_a_downtime_only_the_newest_session_is_made_up_for(
    module: Any, monkeypatch: pytest.MonkeyPatch, close_timetable: Any, now: str, last: str, following: str
) -> None:
    assert next_at(module, monkeypatch, close_timetable, now, last) == following


def test_a_start_date_in_the_future_is_waited_for(
    module: Any, monkeypatch: pytest.MonkeyPatch, close_timetable: Any
) -> None:
    found = next_at(module, monkeypatch, close_timetable, "2026-11-20T12:00", None, earliest="2026-11-28")
    assert found == "2026-11-30"


@settings(max_examples=25, deadline=None)
@given(now=st.datetimes(datetime(2010, 1, 1), datetime(2029, 12, 1), timezones=st.just(UTC)), lag=st.integers(0, 60))
def test_without_catch_up_a_session_never_runs_twice(module: Any, now: datetime, lag: int) -> None:
    """Parsing at any time, any number of sessions behind: the next run is newer than the last one, and due runs are newest."""
    timetable = module.SessionTimetable("XNYS", "close", 30)
    newest = timetable._latest_due(now)
    last = timetable._sessions.offset(newest, -lag)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "utcnow", lambda: now)
        info = timetable.next_dagrun_info_v2(
            last_dagrun_info=run_of(timetable, last.isoformat()), restriction=restriction(False)
        )
    assert info.partition_key > last.isoformat()
    assert (info.run_after <= now) == (lag > 0)
    assert date.fromisoformat(info.partition_key) == (newest if lag else timetable._sessions.next(newest))


# --- keys, ids, serialization -----------------------------------------------------------------------------------------


def test_a_session_is_a_partition_key(close_timetable: Any) -> None:
    assert close_timetable.resolve_partition_date("2026-11-27") == utc("2026-11-27")


@pytest.mark.parametrize(
    "key", ["2026-11-26", "2026-11-28", "garbage", "2026-13-01", "27.11.2026", "1900-01-02", "2026-11-27T00:00"]
)
def test_a_key_that_is_no_session_is_refused(close_timetable: Any, key: str) -> None:
    from airflow.exceptions import InvalidPartitionKeyError

    with pytest.raises(InvalidPartitionKeyError, match=r"YYYY-MM-DD|not a trading session|known from"):
        close_timetable.resolve_partition_date(key)


@pytest.mark.parametrize("arguments", [("XNYS", "open", -30), ("24/7", "close", 0), ("XLON", "close", 15)])
def test_serialization_keeps_the_timetable(module: Any, arguments: tuple[str, str, int]) -> None:
    timetable = module.SessionTimetable(*arguments)
    restored = module.SessionTimetable.deserialize(timetable.serialize())
    assert restored.serialize() == timetable.serialize()
    assert restored.summary == timetable.summary
    rule = restriction(True, "2026-11-20")
    infos = [item.next_dagrun_info_v2(last_dagrun_info=None, restriction=rule) for item in (timetable, restored)]
    assert infos[0] == infos[1]


def test_the_summary_is_readable(open_timetable: Any, close_timetable: Any) -> None:
    assert open_timetable.summary == "XNYS sessions, 30 min before the open"
    assert close_timetable.summary == "XNYS sessions, 30 min after the close"


def test_an_unknown_anchor_is_refused(module: Any) -> None:
    with pytest.raises(ValueError, match="allowed: open, close"):
        module.SessionTimetable("XNYS", "noon", 0)


def test_run_ids_name_their_session_and_differ(close_timetable: Any) -> None:
    from airflow.utils.types import DagRunType

    due = utc("2026-11-27T18:30")
    ids = {
        close_timetable.generate_run_id(
            run_type=DagRunType.SCHEDULED, run_after=due, data_interval=None, partition_key="2026-11-27"
        )
        for _ in range(2)
    }
    assert len(ids) == 2
    assert all(name.startswith("scheduled__2026-11-27__") for name in ids)
