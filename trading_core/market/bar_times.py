"""When a daily bar ends: the close of its session, shared by every source that only knows dates."""

from __future__ import annotations

from datetime import time

import polars as pl

from trading_core.schema import SESSION, TS, UTC_TS
from trading_core.sessions import EARLIEST, Sessions

# A row dated on a day that is no session has no close. It gets this time so that it keeps a key, and the quality gate
# (`not_a_session`) sets it aside with a reason; a source that dropped it would hide a broken vendor.
NO_SESSION_CLOSE = time(21, 0)


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
