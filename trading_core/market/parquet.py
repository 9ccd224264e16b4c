"""Bars from one parquet or CSV file: a panel somebody already has.

The file holds one row per symbol and day: `symbol`, `date` (or `session`), `open`, `high`, `low`, `close`, `volume`;
names in any case, further columns are ignored. It is checked as a whole once per content, then read by symbols and
dates only, with both pushed down into the scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import lru_cache
from pathlib import Path

import polars as pl

from trading_core.errors import (
    DuplicateKeysError,
    EmptyUniverseError,
    FutureDataError,
    InvalidDateRangeError,
    MissingColumnsError,
    MissingFileError,
    UnreadableFileError,
    WrongTypeError,
)
from trading_core.market.bar_times import with_close
from trading_core.market.source import BAR_SCHEMA, INSTRUMENT_SCHEMA, Fetched, Source, empty_actions
from trading_core.schema import SESSION, SYMBOL, TS, PriceBasis
from trading_core.sessions import Sessions

PRICES = ("open", "high", "low", "close")
NUMBERS = (*PRICES, "volume")
_WHAT = "file of bars"
_CSV = (".csv", ".txt")


@dataclass(frozen=True, slots=True)
class ParquetOptions:
    """`path`: a .parquet or .csv file (.gz too), relative to the folder the command runs in.

    `price_basis`: what its prices are adjusted for; no events come with the file, so `raw` means that splits and
    dividends stay unexplained. `sectors`: a file of the same kinds with the columns symbol and sector.
    """

    path: str
    price_basis: str = PriceBasis.SPLIT_ADJUSTED.value
    sectors: str | None = None

    def __post_init__(self) -> None:
        if not self.path.strip():
            raise ValueError("path is empty; name a .parquet or .csv file")
        allowed = [basis.value for basis in PriceBasis]
        if self.price_basis not in allowed:
            raise ValueError(f"price_basis is '{self.price_basis}'; allowed: {', '.join(allowed)}")


@dataclass(frozen=True, slots=True)
class _Summary:
    """What the check of a whole file found out. `listed`: columns symbol, listed (its first day), sorted by symbol."""

    first: date
    last: date
    listed: pl.DataFrame

    @property
    def symbols(self) -> list[str]:
        return self.listed[SYMBOL].to_list()


class _ParquetSource:
    """See ParquetOptions. Every method reads the file; errors of its content name the file and what to correct."""

    name = "parquet"

    def __init__(self, options: ParquetOptions, calendar: str) -> None:
        self._options = options
        self._sessions = Sessions(calendar)
        self.price_basis = PriceBasis(options.price_basis)

    def symbols(self) -> list[str]:
        return self._summary().symbols

    def instruments(self, now: datetime) -> pl.DataFrame:
        """One row per symbol; `listed` is its first day in the file, `sector` is null without a sectors file."""
        frame = self._checked(now).listed
        if self._options.sectors is None:
            frame = frame.with_columns(pl.lit(None, pl.String).alias("sector"))
        else:
            frame = frame.join(_sectors(self._options.sectors), on=SYMBOL, how="left", maintain_order="left")
        return frame.with_columns(pl.lit(None, pl.Date).alias("delisted")).select(list(INSTRUMENT_SCHEMA))

    def fetch(self, symbols: Sequence[str], start: date, end: date, now: datetime) -> Fetched:
        """Bars of `symbols` in start..end; NaN and null prices are both null. The file brings no corporate actions.

        A day that is no session of the calendar is handed over with ts = 21:00 UTC: the quality gate quarantines it.
        Errors: InvalidDateRangeError; MissingFileError, UnreadableFileError, MissingColumnsError, WrongTypeError,
        DuplicateKeysError, EmptyUniverseError for the file as a whole; FutureDataError when it holds any day after the
        last session closed by `now`, since such a bar cannot have happened.
        """
        if start > end:
            raise InvalidDateRangeError(start, end, "the start lies after the end")
        summary = self._checked(now)
        known = set(summary.symbols)
        wanted = pl.col(SYMBOL).is_in(sorted(known.intersection(symbols))) & pl.col(SESSION).is_between(start, end)
        rows = _normalised(self._options.path).filter(wanted).collect()
        bars = with_close(rows, self._sessions).select(list(BAR_SCHEMA)).sort(SYMBOL, TS)
        missing = {symbol: f"it is not in '{self._options.path}'" for symbol in symbols if symbol not in known}
        return Fetched(bars, empty_actions(), missing)

    def _summary(self) -> _Summary:
        path = _existing(self._options.path, _WHAT)
        stat = path.stat()
        return _summarise(self._options.path, str(path.resolve()), stat.st_mtime_ns, stat.st_size)

    def _checked(self, now: datetime) -> _Summary:
        summary = self._summary()
        if summary.last > self._sessions.last_closed(now):
            raise FutureDataError(f"'{self._options.path}'", summary.last, now)
        return summary


def build_parquet(options: ParquetOptions, calendar: str) -> Source:
    """The source of one parquet or CSV file on the sessions of `calendar`. Reads nothing yet."""
    return _ParquetSource(options, calendar)


# --- reading ---------------------------------------------------------------------------------------------------------


def _existing(path: str, what: str) -> Path:
    if not Path(path).is_file():
        raise MissingFileError(path, what)
    return Path(path)


def _is_csv(path: str) -> bool:
    return path.lower().removesuffix(".gz").endswith(_CSV)


def _scan(path: str, what: str) -> pl.LazyFrame:
    """The file as it is. A CSV's columns are all text: inferring types needs all rows and misreads TRUE and 005930."""
    if not _is_csv(path) and not path.lower().endswith((".parquet", ".pq")):
        raise UnreadableFileError(path, f"a {what}", "its name must end in .parquet, .pq, .csv, .txt or .csv.gz")
    try:
        if _is_csv(path):
            frame = pl.scan_csv(path, infer_schema=False).with_columns(pl.all().str.strip_chars())
        else:
            frame = pl.scan_parquet(path)
        frame.collect_schema()
        return frame
    except pl.exceptions.NoDataError as error:
        raise EmptyUniverseError(path, "the file is empty") from error
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UnreadableFileError(path, f"a {what}", _first_line(error)) from error


def _columns(path: str, frame: pl.LazyFrame, wanted: Sequence[tuple[str, ...]]) -> dict[str, str]:
    """The file's name of each wanted column (first of its accepted names). MissingColumnsError names all that lack."""
    found = frame.collect_schema().names()
    lower: dict[str, str] = {}
    for name in found:
        lower.setdefault(name.strip().lower(), name)
    columns, missing = {}, []
    for names in wanted:
        # An exact name wins over one that differs in case, an earlier alias over a later one.
        hit = next((n for n in names if n in found), None) or next((lower[n] for n in names if n in lower), None)
        if hit is None:
            missing.append(names[0])
        else:
            columns[names[0]] = hit
    if missing:
        raise MissingColumnsError(f"'{path}'", missing, found)
    return columns


def _normalised(path: str) -> pl.LazyFrame:
    """Columns symbol, session, open, high, low, close, volume in our types; values are still unchecked.

    WrongTypeError for a column whose dtype cannot hold what it should.
    """
    frame = _scan(path, _WHAT)
    columns = _columns(path, frame, [(SYMBOL,), ("date", SESSION), *((name,) for name in NUMBERS)])
    schema = frame.collect_schema()
    for name, given in columns.items():
        dtype = schema[given]
        if name == SYMBOL and dtype not in (pl.String, pl.Categorical, pl.Enum):
            raise WrongTypeError(f"'{path}'", given, str(dtype), "text")
        if name in NUMBERS and not (dtype.is_numeric() or dtype == pl.Null or _is_csv(path)):
            raise WrongTypeError(f"'{path}'", given, str(dtype), "a number")
    day = _day(path, columns["date"], schema[columns["date"]])
    numbers = [_number(columns[name]).alias(name) for name in NUMBERS]
    return frame.select(pl.col(columns[SYMBOL]).cast(pl.String).alias(SYMBOL), day.alias(SESSION), *numbers)


def _number(column: str) -> pl.Expr:
    """Text or a number as float64; NaN and text that is no number become null."""
    return pl.col(column).cast(pl.Float64, strict=False).fill_nan(None)


def _day(path: str, column: str, dtype: pl.DataType) -> pl.Expr:
    """The day of a Date, Datetime (in its own zone) or ISO text column; text that is no ISO date becomes null."""
    if dtype == pl.Date:
        return pl.col(column)
    if isinstance(dtype, pl.Datetime):
        return pl.col(column).dt.date()
    if dtype == pl.String:
        return pl.col(column).str.head(10).str.to_date("%Y-%m-%d", strict=False)
    raise WrongTypeError(f"'{path}'", column, str(dtype), "a date, a datetime or ISO text (YYYY-MM-DD)")


# --- the check of a whole file ---------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _summarise(path: str, resolved: str, modified_ns: int, size: int) -> _Summary:
    """Checks the whole file, once per resolved path, modification time and size: a changed file is checked again."""
    try:
        # All columns, though only the keys are kept: a bad block or a ragged line shows here, not in a later fetch.
        keys = _normalised(path).collect().select(SYMBOL, SESSION)
        _check_texts(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UnreadableFileError(path, f"a {_WHAT}", _first_line(error)) from error
    if keys.is_empty():
        raise EmptyUniverseError(path, "the file holds no row")
    _check_keys(path, keys)
    listed = keys.group_by(SYMBOL).agg(pl.col(SESSION).min().alias("listed")).sort(SYMBOL)
    first, last = keys[SESSION].min(), keys[SESSION].max()
    return _Summary(first, last, listed)  # type: ignore[arg-type]


def _check_texts(path: str) -> None:
    """Refuses a CSV whose numbers hold other text; empty cells and NaN are missing values."""
    if not _is_csv(path):
        return
    frame = _scan(path, _WHAT)
    for given in _columns(path, frame, [(name,) for name in NUMBERS]).values():
        odd = (
            pl.col(given).is_not_null() & (pl.col(given) != "") & pl.col(given).cast(pl.Float64, strict=False).is_null()
        )
        sample = frame.filter(odd).select(given).head(1).collect()
        if sample.height:
            raise WrongTypeError(f"'{path}'", given, f"text such as '{sample.item()}'", "a number")


def _check_keys(path: str, keys: pl.DataFrame) -> None:
    undated = keys[SESSION].null_count()
    if undated:
        raise WrongTypeError(f"'{path}'", "date", f"empty or no ISO date in {undated} row(s)", "a date in every row")
    unnamed = keys.filter(pl.col(SYMBOL).is_null() | (pl.col(SYMBOL).str.strip_chars() == "")).height
    if unnamed:
        raise WrongTypeError(f"'{path}'", SYMBOL, f"empty in {unnamed} row(s)", "a symbol in every row")
    duplicated = keys.filter(keys.is_duplicated())
    if duplicated.height:
        unique = duplicated.unique().sort(SYMBOL, SESSION)
        sample = [f"{symbol} {day}" for symbol, day in unique.head(3).iter_rows()]
        raise DuplicateKeysError(f"'{path}'", (SYMBOL, "date"), unique.height, sample)


def _sectors(path: str) -> pl.DataFrame:
    """Columns symbol, sector of a sectors file; one row per symbol or DuplicateKeysError."""
    _existing(path, "file of sectors")
    frame = _scan(path, "file of sectors")
    columns = _columns(path, frame, [(SYMBOL,), ("sector",)])
    table = frame.select(pl.col(given).cast(pl.String).alias(name) for name, given in columns.items()).collect()
    repeated = table.filter(table[SYMBOL].is_duplicated())[SYMBOL].unique().sort().to_list()
    if repeated:
        raise DuplicateKeysError(f"'{path}'", (SYMBOL,), len(repeated), repeated)
    return table


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
