"""Reading the time column of a panel file: days of daily bars, starts of intraday bars, from dates, datetimes or text."""

from __future__ import annotations

from typing import Literal
from zoneinfo import ZoneInfo

import polars as pl

from trading_core.errors import WrongTypeError
from trading_core.schema import INTERVALS, UTC_TS

Stamped = Literal["start", "end"]

_INSTANT = pl.duration(microseconds=1)
_OFFSET = r"[+-]\d{2}:?\d{2}$"
# Polars tries one format at a time; seconds and a fraction may be missing.
_FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M")


def is_zone(name: str) -> bool:
    """Whether `name` is a time zone this machine knows, such as UTC or America/New_York."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return False
    return True


def day_of(path: str, column: str, dtype: pl.DataType, stamped: Stamped) -> pl.Expr:
    """The day of a daily bar, null where the text is no ISO date.

    A stamp counts in its own zone. A bar stamped with its end belongs to the day that ends there: midnight closes the
    day before. A plain date is the day itself. Errors: WrongTypeError.
    """
    if dtype == pl.Date:
        return pl.col(column)
    if isinstance(dtype, pl.Datetime):
        return (pl.col(column) - _INSTANT if stamped == "end" else pl.col(column)).dt.date()
    if dtype == pl.String:
        written = pl.col(column).str.head(10).str.to_date("%Y-%m-%d", strict=False)
        if stamped == "start":
            return written
        clock = _parsed(pl.col(column).str.replace("T", " ").str.replace(rf"(Z|{_OFFSET})$", ""))
        return pl.coalesce((clock - _INSTANT).dt.date(), written)
    raise WrongTypeError(f"'{path}'", column, str(dtype), "a date, a datetime or ISO text (YYYY-MM-DD)")


def start_of(path: str, column: str, dtype: pl.DataType, stamped: Stamped, zone: str, interval: str) -> pl.Expr:
    """The start of an intraday bar in UTC, null where the text is no ISO time. Stamps without a zone are in `zone`.

    Errors: WrongTypeError for a column without a time of day.
    """
    if isinstance(dtype, pl.Datetime):
        stamp = _in_utc(pl.col(column), zone) if dtype.time_zone is None else pl.col(column).dt.convert_time_zone("UTC")
    elif dtype == pl.String:
        stamp = _text_in_utc(pl.col(column), zone)
    else:
        expected = "a datetime or ISO text (YYYY-MM-DD HH:MM, with or without an offset)"
        raise WrongTypeError(f"'{path}'", column, str(dtype), f"{expected}, as bars of {interval} need")
    stamp = stamp.cast(UTC_TS)
    return stamp - INTERVALS[interval] if stamped == "end" else stamp


def _in_utc(stamp: pl.Expr, zone: str) -> pl.Expr:
    # In the hour that the clock goes through twice, the first pass is taken: the second then shows as a duplicate.
    local = stamp.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return local.dt.convert_time_zone("UTC")


def _text_in_utc(text: pl.Expr, zone: str) -> pl.Expr:
    plain = text.str.replace("T", " ").str.replace("Z$", "+00:00")
    with_offset = [plain.str.to_datetime(f"{form}%z", time_unit="us", strict=False) for form in _FORMATS]
    offset = pl.coalesce(with_offset).dt.convert_time_zone("UTC")
    return pl.when(plain.str.contains(_OFFSET)).then(offset).otherwise(_in_utc(_parsed(plain), zone))


def _parsed(text: pl.Expr) -> pl.Expr:
    return pl.coalesce([text.str.to_datetime(form, time_unit="us", strict=False) for form in _FORMATS])
