"""A timetable whose partitions are the trading sessions of an exchange.

Each run's partition key is a session's date ("2026-11-27"). With `anchor="close"` the run of a session is due some
minutes after its close (early on half days), with `anchor="open"` some minutes before its open. Holidays have no
partition, so neither the scheduler nor a backfill ever makes a run for one. The exchange calendar is loaded only when
it is asked.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from airflow._shared.timezones.timezone import coerce_datetime, utcnow
from airflow.plugins_manager import AirflowPlugin
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction, Timetable

if TYPE_CHECKING:
    from pendulum import DateTime

    from trading_core.sessions import Sessions

ANCHORS = ("open", "close")
# A run that fell due this recently still counts as the first one of a fresh installation: the DAG may be parsed again
# in the moment between the due time and the scheduler's next look, and would else skip the session it waited for.
GRACE = dt.timedelta(minutes=2)


class SessionTimetable(Timetable):
    """Partitioned by trading session.

    :param calendar: exchange calendar name, e.g. "XNYS" or "24/7".
    :param anchor: "open" or "close" of the session, from which the due time is counted.
    :param offset_minutes: minutes after (negative: before) the anchor at which the run is due.
    """

    partitioned = True
    run_ordering = ("partition_date", "run_after")

    def __init__(self, calendar: str, anchor: str, offset_minutes: int) -> None:
        if anchor not in ANCHORS:
            raise ValueError(f"anchor is '{anchor}'; allowed: {', '.join(ANCHORS)}")
        self._calendar, self._anchor, self._offset = calendar, anchor, offset_minutes

    # --- serialization ---

    def serialize(self) -> dict[str, Any]:
        return {"calendar": self._calendar, "anchor": self._anchor, "offset_minutes": self._offset}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Timetable:
        return cls(data["calendar"], data["anchor"], data["offset_minutes"])

    @property
    def summary(self) -> str:
        when = f"{abs(self._offset)} min {'after' if self._offset >= 0 else 'before'} the {self._anchor}"
        return f"{self._calendar} sessions, {when}"

    # --- sessions and due times ---

    @property
    def _sessions(self) -> Sessions:
        from trading_core.sessions import Sessions

        return Sessions(self._calendar)

    def _due(self, session: dt.date) -> DateTime:
        at = self._sessions.open(session) if self._anchor == "open" else self._sessions.close(session)
        return coerce_datetime(at + dt.timedelta(minutes=self._offset))

    def _info(self, session: dt.date) -> DagRunInfo:
        midnight = dt.datetime(session.year, session.month, session.day, tzinfo=dt.UTC)
        return DagRunInfo(
            run_after=self._due(session),
            data_interval=None,
            partition_date=coerce_datetime(midnight),
            partition_key=session.isoformat(),
        )

    def _latest_due(self, now: dt.datetime) -> dt.date:
        """The newest session whose run is due at `now`."""
        session = self._sessions.next(now.date() + dt.timedelta(days=2))
        while self._due(session) > now:
            session = self._sessions.previous(session)
        return session

    # --- what the scheduler asks ---

    def next_dagrun_info_v2(
        self, *, last_dagrun_info: DagRunInfo | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """The run after `last_dagrun_info`, or the first one.

        With catch-up every session has its run, from the DAG's start date on. Without it, the first run ever is that of
        the next session to fall due, so that a fresh installation does nothing about the past; after a downtime it is
        the newest session that is due, and the sessions before it are left out.
        """
        candidates: list[dt.date] = []
        if last_dagrun_info is not None and last_dagrun_info.partition_key:
            candidates.append(self._sessions.next(dt.date.fromisoformat(last_dagrun_info.partition_key)))
            if not restriction.catchup:
                candidates.append(self._latest_due(utcnow()))
        elif not restriction.catchup or restriction.earliest is None:
            candidates.append(self._sessions.next(self._latest_due(utcnow() - GRACE)))
        if restriction.earliest is not None:
            candidates.append(self._sessions.next(restriction.earliest.date() - dt.timedelta(days=1)))
        info = self._info(max(candidates))
        if restriction.latest is not None and info.run_after > restriction.latest:
            return None
        return info

    def iter_partition_dagrun_infos(self, *, earliest: dt.datetime, latest: dt.datetime) -> Iterable[DagRunInfo]:
        """One info per session whose date lies in [earliest, latest], both included: what a backfill runs.

        `run_after` is the partition date: a backfill of a session that has ended is due at once.
        """
        return self._backfill_infos(earliest.date(), latest.date())

    def _backfill_infos(self, start: dt.date, end: dt.date) -> Iterator[DagRunInfo]:
        for session in self._sessions.between(start, end):
            info = self._info(session)
            yield info._replace(run_after=info.partition_date)

    def _decode_partition_date(self, partition_key: str) -> dt.datetime:
        from airflow.exceptions import InvalidPartitionKeyError

        from trading_core.errors import TradingError

        try:
            day = dt.date.fromisoformat(partition_key)
            self._sessions.require(day)
        except ValueError as error:
            raise InvalidPartitionKeyError(f"'{partition_key}' is not a date; give a session as YYYY-MM-DD") from error
        except TradingError as error:
            raise InvalidPartitionKeyError(str(error)) from error
        return dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC)

    def infer_manual_data_interval(self, *, run_after: DateTime) -> DataInterval:
        return DataInterval.exact(run_after)

    def generate_run_id(self, *, run_type: Any, run_after: DateTime, data_interval: Any, **extra: Any) -> str:
        from airflow.utils.strings import get_random_string

        key = extra.get("partition_key") or run_after.isoformat()
        return run_type.generate_run_id(suffix=f"{key}__{get_random_string()}")


class SessionTimetablePlugin(AirflowPlugin):
    name = "trading_sessions"
    timetables = [SessionTimetable]  # noqa: RUF012 - the attribute Airflow reads
