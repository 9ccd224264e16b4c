"""When a bar ends and which session it belongs to, shared by every source.

A daily bar ends at the close of its session, whatever time a vendor stamps it with. An intraday bar is stamped by most
vendors with its start; `ts` is its end, cut at the close of the session, and its session is the one in whose regular
hours it starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, time, timedelta

import polars as pl

from trading_core.schema import INTERVALS, SESSION, SYMBOL, TS, UTC_TS
from trading_core.sessions import EARLIEST, Sessions

# A row dated on a day that is no session has no close. It gets this time so that it keeps a key, and the quality gate
# (`not_a_session`) sets it aside with a reason; a source that dropped it would hide a broken vendor.
NO_SESSION_CLOSE = time(21, 0)
START = "start"  # the column of an intraday frame that holds the start of each bar, UTC


@dataclass(frozen=True, slots=True)
class Placed:
    """`bars`: the rows inside regular hours, with `ts` and `session`. `outside`: the start of every other row."""

    bars: pl.DataFrame
    outside: pl.Series

    def left_out(self, first: date, last: date) -> int:
        """How many rows outside regular hours start on the UTC days first..last: day by day they add up to the whole."""
        return int(self.outside.dt.date().is_between(first, last).sum())


def with_close(frame: pl.DataFrame, sessions: Sessions) -> pl.DataFrame:
    """`frame` (column session: Date) with `ts` added: the session's close in UTC, 21:00 UTC on a day that is none.

    Row order is kept. Errors: UnknownNameError for an unknown calendar, InvalidDateRangeError for a session after the
    calendar's horizon.
    """
    fallback = pl.col(SESSION).dt.combine(NO_SESSION_CLOSE).dt.replace_time_zone("UTC").cast(UTC_TS)
    first, last = frame[SESSION].min(), frame[SESSION].max()
    if first is None or last is None or last < EARLIEST:  # type: ignore[operator]
        return frame.with_columns(fallback.alias(TS))
    days = sessions.between(max(first, EARLIEST), last)  # type: ignore[type-var, arg-type]
    closes = pl.DataFrame({SESSION: days, TS: sessions.closes(days)}, schema={SESSION: pl.Date, TS: UTC_TS})
    joined = frame.join(closes, on=SESSION, how="left", maintain_order="left")
    return joined.with_columns(pl.coalesce(TS, fallback).alias(TS))


def placed(frame: pl.DataFrame, sessions: Sessions, interval: str) -> Placed:
    """Intraday bars (columns symbol, start ...) with `ts` and `session`, sorted by symbol and ts.

    A bar belongs to a session when it starts at or after the open and before the close. One that starts earlier and
    reaches into the session mixes trades of two markets and is left out like the rest outside regular hours. The last
    bar of a session may be a short one (one hour from 15:30 to 16:00 in New York): its end is the close.
    A market that never closes has no outside. Errors: as `with_close`.
    """
    if frame.is_empty():
        empty = frame.with_columns(pl.lit(None, UTC_TS).alias(TS), pl.lit(None, pl.Date).alias(SESSION))
        return Placed(empty, frame[START])
    first, last = (_day(bound) for bound in (frame[START].min(), frame[START].max()))
    # A day more on both sides: a session of Sydney opens on the UTC day before its date.
    days = sessions.between(max(first - timedelta(days=1), EARLIEST), max(last + timedelta(days=1), EARLIEST))
    known = frame.sort(START).join_asof(_hours(days, sessions), left_on=START, right_on="opening", strategy="backward")
    is_inside = (pl.col(START) < pl.col("closing")).fill_null(False)
    ends = pl.min_horizontal(pl.col(START) + INTERVALS[interval], "closing").alias(TS)
    bars = known.filter(is_inside).with_columns(ends).drop("opening", "closing").sort(SYMBOL, TS)
    return Placed(bars, known.filter(~is_inside)[START])


def hours_of(bars: pl.DataFrame, sessions: Sessions) -> pl.DataFrame:
    """One-hour bars, counted from the open of each session, made of shorter ones; sorted by symbol and ts.

    `bars`: as `placed` gives them, with open, high, low, close and volume. The last hour ends at the close.
    """
    hours = _hours(bars[SESSION].unique().sort().to_list(), sessions)
    since_open = (pl.col(START) - pl.col("opening")).dt.total_hours()
    numbered = bars.sort(SYMBOL, START).join(hours, on=SESSION, how="left", maintain_order="left")
    ends = pl.min_horizontal(pl.col("opening") + (pl.col("hour") + 1) * timedelta(hours=1), "closing").alias(TS)
    made = numbered.with_columns(since_open.alias("hour")).with_columns(ends).group_by(SYMBOL, TS, SESSION)
    return made.agg(
        pl.col(START).min(),
        pl.col("open").drop_nulls().first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").drop_nulls().last(),
        pl.col("volume").sum(),
    ).sort(SYMBOL, TS)


def _hours(days: list[date], sessions: Sessions) -> pl.DataFrame:
    """The regular hours of sessions: opening, closing (UTC) and session, ascending."""
    return pl.DataFrame(
        {"opening": sessions.opens(days), "closing": sessions.closes(days), SESSION: days},
        schema={"opening": UTC_TS, "closing": UTC_TS, SESSION: pl.Date},
    )


def _day(stamp: object) -> date:
    return stamp.date()  # type: ignore[attr-defined, no-any-return]
