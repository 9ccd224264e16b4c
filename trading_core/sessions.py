"""Trading sessions of an exchange: dates, opens and closes. Thin over exchange_calendars; nothing here asks for "now".

`24/7` is the calendar of markets that never close: every date is a session, open 00:00 UTC to the next 00:00 UTC. There
the close of D and the open of T are one instant, which leaves no time between them to decide and to send: what is to
trade at T's open may be decided and sent until `DECISION_WINDOW` after it (see `Sessions.deadline`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING

from trading_core.errors import InvalidDateRangeError, NotASessionError, UnknownNameError

if TYPE_CHECKING:
    from exchange_calendars import ExchangeCalendar

EARLIEST = date(1990, 1, 1)
ALWAYS_OPEN = "24/7"
# Long enough for the backfill of D (due half an hour after its close by default) and the steps of a trading session.
DECISION_WINDOW = timedelta(hours=2)


@lru_cache(maxsize=8)
def _load(name: str, end: date) -> ExchangeCalendar:
    import exchange_calendars  # loads pandas: only when a session is really asked for

    names = exchange_calendars.get_calendar_names()
    if name not in names:
        raise UnknownNameError("calendar", name, names)
    try:
        return exchange_calendars.get_calendar(name, start=EARLIEST.isoformat(), end=end.isoformat())
    except ValueError:
        # Tokyo's and Bombay's holidays are known from 1997 on, Shanghai's to the end of the next year.
        usual = exchange_calendars.get_calendar(name)
        first, last = usual.bound_min(), usual.bound_max()
        start = EARLIEST if first is None else max(EARLIEST, first.date())
        until = end if last is None else min(end, last.date())
        return exchange_calendars.get_calendar(name, start=start.isoformat(), end=until.isoformat())


class Sessions:
    """The sessions of one calendar, e.g. `Sessions("XNYS")`.

    `horizon_year`: the last year whose sessions can be asked for. Dates outside 1990 .. that year raise
    `InvalidDateRangeError`; within, a year that the calendar does not know holds no session. Constructing does no I/O;
    the calendar is built on first use and cached.
    """

    def __init__(self, calendar: str, horizon_year: int = 2035) -> None:
        self.calendar = calendar
        self._end = date(horizon_year, 12, 31)

    @property
    def always_open(self) -> bool:
        """Whether the market never closes, so that a session opens in the moment in which the one before it ends."""
        return self.calendar == ALWAYS_OPEN

    @property
    def per_year(self) -> int:
        """Sessions of a usual year, by which figures are annualised: 365 where it never closes, else 252 by convention."""
        return 365 if self.always_open else 252

    @property
    def _cal(self) -> ExchangeCalendar:
        return _load(self.calendar, self._end)

    def _check(self, day: date) -> None:
        if not EARLIEST <= day <= self._end:
            raise InvalidDateRangeError(day, day, f"calendar {self.calendar} is known from {EARLIEST} to {self._end}")

    @property
    def timezone(self) -> str:
        """The exchange's time zone, as in the tz database."""
        return str(self._cal.tz)

    def is_session(self, day: date) -> bool:
        self._check(day)
        known = self._cal.first_session.date() <= day <= self._cal.last_session.date()
        return known and bool(self._cal.is_session(day.isoformat()))

    def require(self, day: date) -> date:
        """`day` itself; `NotASessionError` if it is no session."""
        if not self.is_session(day):
            raise NotASessionError(self.calendar, day)
        return day

    def between(self, start: date, end: date) -> list[date]:
        """All sessions from `start` to `end`, both included. `InvalidDateRangeError` when start > end."""
        if start > end:
            raise InvalidDateRangeError(start, end, "the start lies after the end")
        self._check(start)
        self._check(end)
        # A calendar may know fewer years, and its first session is seldom the first of January.
        first, last = max(start, self._cal.first_session.date()), min(end, self._cal.last_session.date())
        if first > last:
            return []
        return [stamp.date() for stamp in self._cal.sessions_in_range(first.isoformat(), last.isoformat())]

    def next(self, session: date) -> date:
        """The session after `session`, which need not be a session itself."""
        day = self._known(session + timedelta(days=1))
        return self._cal.date_to_session(day.isoformat(), direction="next").date()

    def previous(self, session: date) -> date:
        """The session before `session`, which need not be a session itself."""
        day = self._known(session - timedelta(days=1))
        return self._cal.date_to_session(day.isoformat(), direction="previous").date()

    def _known(self, day: date) -> date:
        """`day` itself; InvalidDateRangeError when the calendar has no session at all on one side of it."""
        self._check(day)
        first, last = self._cal.first_session.date(), self._cal.last_session.date()
        if not first <= day <= last:
            reason = (
                f"calendar {self.calendar} is known from {first} to {last} (newer exchange_calendars may know more)"
            )
            raise InvalidDateRangeError(day, day, reason)
        return day

    def offset(self, session: date, count: int) -> date:
        """The session `count` sessions after (before, when negative) `session`."""
        self.require(session)
        return self._cal.session_offset(session.isoformat(), count).date()

    def open(self, session: date) -> datetime:
        """Opening time in UTC."""
        self.require(session)
        return self._cal.session_open(session.isoformat()).to_pydatetime().astimezone(UTC)

    def close(self, session: date) -> datetime:
        """Closing time in UTC (early on half days)."""
        self.require(session)
        return self._cal.session_close(session.isoformat()).to_pydatetime().astimezone(UTC)

    def opens(self, sessions: Sequence[date]) -> list[datetime]:
        """Opening times in UTC of many sessions at once."""
        stamps = self._cal.opens.loc[[s.isoformat() for s in sessions]]
        return [stamp.to_pydatetime().astimezone(UTC) for stamp in stamps]

    def closes(self, sessions: Sequence[date]) -> list[datetime]:
        """Closing times in UTC of many sessions at once."""
        stamps = self._cal.closes.loc[[s.isoformat() for s in sessions]]
        return [stamp.to_pydatetime().astimezone(UTC) for stamp in stamps]

    def last_closed(self, now: datetime) -> date:
        """The newest session whose close is at or before `now` (aware)."""
        day = now.astimezone(UTC).date()
        session = day if self.is_session(day) else self.previous(day)
        while self.close(session) > now:
            session = self.previous(session)
        return session

    def deadline(self, session: date) -> datetime:
        """Until when, in UTC, what trades at the open of `session` may be decided and sent: its open.

        In a market that never closes it is DECISION_WINDOW later: only the bars up to the session before are read then
        too, and the paper broker fills at the price of the open, but a real one fills at what it finds.
        """
        return self.open(session) + (DECISION_WINDOW if self.always_open else timedelta(0))

    def tradable(self, session: date, now: datetime) -> bool:
        """Whether an order sent at `now` meets the open of `session`: the one before has closed, its deadline is to come."""
        return self.is_session(session) and self.close(self.previous(session)) <= now < self.deadline(session)
