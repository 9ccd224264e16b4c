"""Bars from one parquet or CSV file: a panel somebody already has.

The file holds one row per symbol and bar: `symbol`, a time, `open`, `high`, `low`, `close`, `volume`; names in any case,
further columns are ignored. The time of daily bars is the day (`date`, `session`, or the day of a stamp), that of
intraday bars a stamp (`ts`, `datetime`, `timestamp`, `time` or `date`). A file of one symbol needs no column `symbol`.
It is checked as a whole once per content, then read by symbols and dates only, with both pushed down into the scan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path

import polars as pl

from trading_core.errors import (
    DuplicateKeysError,
    EmptyUniverseError,
    FutureDataError,
    InvalidConfigError,
    InvalidDateRangeError,
    MissingColumnsError,
    MissingFileError,
    UnreadableFileError,
    WrongTypeError,
)
from trading_core.market.bar_times import START, placed, with_close
from trading_core.market.source import (
    BAR_SCHEMA,
    INSTRUMENT_SCHEMA,
    Fetched,
    Source,
    empty_actions,
    require_interval,
)
from trading_core.market.stamps import Stamped, day_of, is_zone, start_of
from trading_core.schema import DAILY, INTERVALS, SESSION, SYMBOL, TS, PriceBasis
from trading_core.sessions import Sessions

PRICES = ("open", "high", "low", "close")
NUMBERS = (*PRICES, "volume")
_WHAT = "file of bars"
_CSV = (".csv", ".txt")
_DAY_COLUMNS = ("date", SESSION, "ts", "datetime", "timestamp", "time")
_START_COLUMNS = ("ts", "datetime", "timestamp", "time", "date")


@dataclass(frozen=True, slots=True)
class ParquetOptions:
    """`path`: a .parquet or .csv file (.gz too), relative to the folder the command runs in.

    `price_basis`: what its prices are adjusted for; no events come with the file, so `raw` means that splits and
    dividends stay unexplained. `sectors`: a file of the same kinds with the columns symbol and sector.
    `symbol`: the name of the only symbol of a file without such a column; default: the file's name in upper case.
    `stamped`: whether a bar carries the time of its `start` (as vendors do) or of its `end`; a plain date is the day.
    `timezone`: of stamps without a zone, for intraday bars.
    """

    path: str
    price_basis: str = PriceBasis.SPLIT_ADJUSTED.value
    sectors: str | None = None
    symbol: str | None = None
    stamped: Stamped = "start"
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        if not self.path.strip():
            raise ValueError("path is empty; name a .parquet or .csv file")
        allowed = [basis.value for basis in PriceBasis]
        if self.price_basis not in allowed:
            raise ValueError(f"price_basis is '{self.price_basis}'; allowed: {', '.join(allowed)}")
        if self.symbol is not None and not self.symbol.strip():
            raise ValueError("symbol is empty; name the file's only symbol, or leave the option out")
        if self.stamped not in ("start", "end"):
            raise ValueError(f"stamped is '{self.stamped}'; allowed: start, end")
        if not is_zone(self.timezone):
            raise ValueError(f"timezone is '{self.timezone}'; give a name such as UTC or America/New_York")


@dataclass(frozen=True, slots=True)
class _Layout:
    """How to read the file: its options, and the interval and calendar of its bars."""

    options: ParquetOptions
    interval: str
    calendar: str

    @property
    def path(self) -> str:
        return self.options.path

    @property
    def daily(self) -> bool:
        return self.interval == DAILY

    @property
    def key(self) -> str:
        """The column of `_normalised` that says when a bar is: its session, or its start."""
        return SESSION if self.daily else START


@dataclass(frozen=True, slots=True)
class _Summary:
    """What the check of a whole file found out. `last`: the day of the newest bar, or its start in UTC if intraday.

    `listed`: columns symbol, listed (its first session), sorted by symbol.
    """

    last: date | datetime
    listed: pl.DataFrame

    @property
    def symbols(self) -> list[str]:
        return self.listed[SYMBOL].to_list()


class _ParquetSource:
    """See ParquetOptions. Every method reads the file; errors of its content name the file and what to correct."""

    name = "parquet"

    def __init__(self, options: ParquetOptions, calendar: str, interval: str) -> None:
        self._layout = _Layout(options, interval, calendar)
        self._sessions = Sessions(calendar)
        self.interval = interval
        self.price_basis = PriceBasis(options.price_basis)

    def symbols(self) -> list[str]:
        return self._summary().symbols

    def instruments(self, now: datetime) -> pl.DataFrame:
        """One row per symbol; `listed` is its first session in the file, `sector` is null without a sectors file."""
        frame, sectors = self._checked(now).listed, self._layout.options.sectors
        if sectors is None:
            frame = frame.with_columns(pl.lit(None, pl.String).alias("sector"))
        else:
            frame = frame.join(_sectors(sectors), on=SYMBOL, how="left", maintain_order="left")
        return frame.with_columns(pl.lit(None, pl.Date).alias("delisted")).select(list(INSTRUMENT_SCHEMA))

    def fetch(self, symbols: Sequence[str], start: date, end: date, now: datetime) -> Fetched:
        """Bars of `symbols` in start..end; NaN and null prices are both null. The file brings no corporate actions.

        A day that is no session of the calendar is handed over with ts = 21:00 UTC: the quality gate quarantines it.
        Intraday bars outside regular hours are left out and counted; a session that is still open has no bars yet.
        Errors: InvalidDateRangeError; MissingFileError, UnreadableFileError, MissingColumnsError, WrongTypeError,
        DuplicateKeysError, EmptyUniverseError for the file as a whole; FutureDataError when it holds any day after the
        last session closed by `now` (an intraday bar that ends after `now`), since such a bar cannot have happened.
        """
        if start > end:
            raise InvalidDateRangeError(start, end, "the start lies after the end")
        summary = self._checked(now)
        known = set(summary.symbols)
        wanted = _normalised(self._layout).filter(pl.col(SYMBOL).is_in(sorted(known.intersection(symbols))))
        missing = {symbol: f"it is not in '{self._layout.path}'" for symbol in symbols if symbol not in known}
        if self._layout.daily:
            rows = wanted.filter(pl.col(SESSION).is_between(start, end)).collect()
            bars = with_close(rows, self._sessions).select(list(BAR_SCHEMA)).sort(SYMBOL, TS)
            return Fetched(bars, empty_actions(), missing)
        # A day more on both sides: the bars of a session may start on the UTC day before its date.
        span = pl.col(START).dt.date().is_between(start - timedelta(days=1), end + timedelta(days=1))
        found = placed(wanted.filter(span).collect(), self._sessions, self.interval)
        last = min(end, self._sessions.last_closed(now))
        bars = found.bars.filter(pl.col(SESSION).is_between(start, last)).select(list(BAR_SCHEMA))
        return Fetched(bars, empty_actions(), missing, found.left_out(start, last))

    def content(self) -> str:
        """The SHA-256 of the file: an edited one is compared with the stored bars as a whole. MissingFileError."""
        path = _existing(self._layout.path, _WHAT)
        stat = path.stat()
        return _digest(str(path.resolve()), stat.st_mtime_ns, stat.st_size)

    def _summary(self) -> _Summary:
        path = _existing(self._layout.path, _WHAT)
        stat = path.stat()
        return _summarise(self._layout, str(path.resolve()), stat.st_mtime_ns, stat.st_size)

    def _checked(self, now: datetime) -> _Summary:
        summary = self._summary()
        if isinstance(summary.last, datetime):
            later = summary.last + INTERVALS[self.interval] > now
        else:
            later = summary.last > self._sessions.last_closed(now)
        if later:
            raise FutureDataError(f"'{self._layout.path}'", summary.last, now)
        return summary


def build_parquet(options: ParquetOptions, calendar: str, interval: str = DAILY) -> Source:
    """The source of one parquet or CSV file on the sessions of `calendar`. Reads nothing yet.

    Errors: InvalidConfigError for an interval there is no such.
    """
    return _ParquetSource(options, calendar, require_interval("parquet", interval, tuple(INTERVALS)))


def read_as_delivered(options: ParquetOptions, calendar: str, interval: str = DAILY) -> pl.DataFrame:
    """The whole file as BAR_SCHEMA, daily bars in the file's own order, nothing refused but rows without symbol or day.

    For a report on what is wrong with a panel; a market is fed by `fetch`. Errors: those of the file (see `fetch`)
    except DuplicateKeysError and FutureDataError.
    """
    _existing(options.path, _WHAT)
    layout = _Layout(options, require_interval("parquet", interval, tuple(INTERVALS)), calendar)
    rows = _whole(layout)
    if missing := rows.select(SYMBOL, layout.key).null_count().sum_horizontal().item():
        raise WrongTypeError(
            f"'{options.path}'", layout.key, f"empty or no time in {missing} row(s)", "one in every row"
        )
    clock = Sessions(calendar)
    bars = with_close(rows, clock) if layout.daily else placed(rows, clock, interval).bars
    return bars.select(list(BAR_SCHEMA))


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


def _time_columns(layout: _Layout) -> tuple[str, ...]:
    return _DAY_COLUMNS if layout.daily else _START_COLUMNS


def _normalised(layout: _Layout) -> pl.LazyFrame:
    """Columns symbol, session (intraday: start), open, high, low, close, volume in our types; values are unchecked.

    WrongTypeError for a column whose dtype cannot hold what it should.
    """
    path, frame = layout.path, _scan(layout.path, _WHAT)
    times = _time_columns(layout)
    wanted = [*(((SYMBOL,),) if _has_symbols(layout, frame) else ()), times, *((name,) for name in NUMBERS)]
    columns = _columns(path, frame, wanted)
    schema = frame.collect_schema()
    for name, given in columns.items():
        dtype = schema[given]
        if name == SYMBOL and dtype not in (pl.String, pl.Categorical, pl.Enum):
            raise WrongTypeError(f"'{path}'", given, str(dtype), "text")
        if name in NUMBERS and not (dtype.is_numeric() or dtype == pl.Null or _is_csv(path)):
            raise WrongTypeError(f"'{path}'", given, str(dtype), "a number")
    symbol = pl.col(columns[SYMBOL]).cast(pl.String) if SYMBOL in columns else pl.lit(_only_symbol(layout))
    when = _when(layout, columns[times[0]], schema)
    numbers = [_number(columns[name]).alias(name) for name in NUMBERS]
    return frame.select(symbol.alias(SYMBOL), when.alias(layout.key), *numbers)


def _when(layout: _Layout, column: str, schema: pl.Schema) -> pl.Expr:
    options = layout.options
    if layout.daily:
        return day_of(layout.path, column, schema[column], options.stamped)
    return start_of(layout.path, column, schema[column], options.stamped, options.timezone, layout.interval)


def _has_symbols(layout: _Layout, frame: pl.LazyFrame) -> bool:
    found = any(name.strip().lower() == SYMBOL for name in frame.collect_schema().names())
    if found and layout.options.symbol is not None:
        raise InvalidConfigError(
            f"Options of source 'parquet' for '{layout.path}'",
            [f"symbol: '{layout.options.symbol}' is given, but the file has a column symbol; leave the option out"],
        )
    return found


def _only_symbol(layout: _Layout) -> str:
    """The symbol of a file without such a column: `btc-usd.csv.gz` holds BTC-USD."""
    return (layout.options.symbol or Path(layout.path).name.split(".")[0].upper()).strip()


def _number(column: str) -> pl.Expr:
    """Text or a number as float64; NaN and text that is no number become null."""
    return pl.col(column).cast(pl.Float64, strict=False).fill_nan(None)


# --- the check of a whole file ---------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _digest(resolved: str, modified_ns: int, size: int) -> str:
    """The SHA-256 of a file, read once per modification time and size."""
    with open(resolved, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=8)
def _summarise(layout: _Layout, resolved: str, modified_ns: int, size: int) -> _Summary:
    """Checks the whole file, once per resolved path, modification time and size: a changed file is checked again."""
    # All columns, though only the keys are kept: a bad block or a ragged line shows here, not in a later fetch.
    keys = _whole(layout).select(SYMBOL, layout.key)
    if keys.is_empty():
        raise EmptyUniverseError(layout.path, "the file holds no row")
    _check_keys(layout, keys)
    days = keys if layout.daily else placed(keys, Sessions(layout.calendar), layout.interval).bars
    listed = keys.select(SYMBOL).unique().join(days.group_by(SYMBOL).agg(pl.col(SESSION).min()), on=SYMBOL, how="left")
    return _Summary(keys[layout.key].max(), listed.rename({SESSION: "listed"}).sort(SYMBOL))  # type: ignore[arg-type]


def _whole(layout: _Layout) -> pl.DataFrame:
    """All of `_normalised`. Errors: UnreadableFileError, WrongTypeError, MissingColumnsError."""
    try:
        rows = _normalised(layout).collect()
        _check_texts(layout.path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UnreadableFileError(layout.path, f"a {_WHAT}", _first_line(error)) from error
    return rows


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


def _check_keys(layout: _Layout, keys: pl.DataFrame) -> None:
    path, when = f"'{layout.path}'", _time_columns(layout)[0]
    undated = keys[layout.key].null_count()
    if undated:
        kind = "date" if layout.daily else "time"
        raise WrongTypeError(path, when, f"empty or no ISO {kind} in {undated} row(s)", f"a {kind} in every row")
    unnamed = keys.filter(pl.col(SYMBOL).is_null() | (pl.col(SYMBOL).str.strip_chars() == "")).height
    if unnamed:
        raise WrongTypeError(path, SYMBOL, f"empty in {unnamed} row(s)", "a symbol in every row")
    duplicated = keys.filter(keys.is_duplicated())
    if duplicated.height:
        frame = _scan(layout.path, _WHAT)
        if not _has_symbols(layout, frame) and layout.options.symbol is None:
            # Many rows at one time: these are several symbols, and nothing says which row is whose.
            raise MissingColumnsError(path, [SYMBOL], frame.collect_schema().names())
        unique = duplicated.unique().sort(SYMBOL, layout.key)
        sample = [f"{symbol} {day}" for symbol, day in unique.head(3).iter_rows()]
        raise DuplicateKeysError(path, (SYMBOL, when), unique.height, sample)


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
