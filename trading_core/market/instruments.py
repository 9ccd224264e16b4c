"""What an instrument is: sector, and other columns that hold for a time. Read from a file, asked as of a day.

A fact is a row (symbol, valid_from, valid_to, further columns), both days included; `valid_to` null = still valid. A file
without dates says what holds at all times: its author's knowledge of today is then used for the past too, so give dates
where a sector or an index membership has changed and that matters.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl

from trading_core.errors import MissingColumnsError, MissingFileError, UnreadableFileError, WrongTypeError
from trading_core.schema import SESSION, SYMBOL

VALID_FROM, VALID_TO = "valid_from", "valid_to"
SECTOR = "sector"
ALWAYS = date(1900, 1, 1)  # `valid_from` of what has no beginning
_FACT_KEY = (SYMBOL, VALID_FROM, VALID_TO)
_ALIASES = {
    VALID_FROM: ("from", VALID_FROM, "start", "date_from"),
    VALID_TO: ("to", VALID_TO, "end", "date_to"),
}


def read_periods(path: str, what: str) -> pl.DataFrame:
    """symbol, valid_from (null-free), valid_to and all further columns of a .csv or .parquet file, by symbol and time.

    Column names in any case; `from` and `to` may be missing (always, still). `what`: how errors call the file.
    Errors: MissingFileError, UnreadableFileError (also for an end before its start and for periods of one symbol that
    overlap), MissingColumnsError (no symbol), WrongTypeError (a day that is none).
    """
    frame = _read(path, what)
    frame = frame.rename({name: name.strip().lower() for name in frame.columns})
    if SYMBOL not in frame.columns:
        raise MissingColumnsError(f"'{path}'", [SYMBOL], frame.columns)
    days = [_day(path, frame, wanted) for wanted in (VALID_FROM, VALID_TO)]
    used = {SYMBOL, *(name for names in _ALIASES.values() for name in names)}
    rest = [name for name in frame.columns if name not in used]
    made = frame.select(pl.col(SYMBOL).cast(pl.String).str.strip_chars(), *days, *rest)
    made = made.with_columns(pl.col(VALID_FROM).fill_null(ALWAYS)).sort(SYMBOL, VALID_FROM)
    _check_periods(path, what, made)
    return made


def read_facts(path: str) -> pl.DataFrame:
    """The facts of an instruments file: `read_periods` with at least one column besides the dates (`sector`, usually).

    Text stays text, numbers become float64, so that a later file of the same columns fits the stored table.
    Errors: those of `read_periods`; MissingColumnsError when there is no such column, WrongTypeError for nested ones.
    """
    frame = read_periods(path, "a file of instruments")
    facts = [name for name in frame.columns if name not in _FACT_KEY]
    if not facts:
        raise MissingColumnsError(f"'{path}'", [SECTOR], frame.columns)
    casts = []
    for name in facts:
        dtype = frame.schema[name]
        if not (dtype.is_numeric() or dtype in (pl.String, pl.Boolean, pl.Date, pl.Null)):
            raise WrongTypeError(f"'{path}'", name, str(dtype), "text, a number, a date, or true and false")
        wanted = pl.Float64 if dtype.is_numeric() else pl.String if dtype == pl.Null or name == SECTOR else dtype
        casts.append(pl.col(name).cast(wanted))
    return frame.with_columns(casts)


def facts_as_of(facts: pl.DataFrame, day: date) -> pl.DataFrame:
    """The facts that hold on `day`: at most one row per symbol, sorted, without those of later days."""
    valid = (pl.col(VALID_FROM) <= day) & (pl.col(VALID_TO).fill_null(date.max) >= day)
    return facts.filter(valid).sort(SYMBOL)


def with_periods(rows: pl.DataFrame, periods: pl.DataFrame) -> pl.DataFrame:
    """The rows (with symbol and session), in order, with the period that holds on their session; nulls where none does."""
    found = rows.with_row_index("_row").sort(SESSION)
    found = found.join_asof(
        periods.sort(VALID_FROM), left_on=SESSION, right_on=VALID_FROM, by=SYMBOL, check_sortedness=False
    )
    holds = pl.col(SESSION) <= pl.col(VALID_TO).fill_null(date.max)
    held = [pl.when(holds).then(pl.col(name)).alias(name) for name in periods.columns if name != SYMBOL]
    return found.with_columns(held).sort("_row").drop("_row")


def sectors_at(rows: pl.DataFrame, facts: pl.DataFrame | None, instruments: pl.DataFrame | None) -> pl.Series:
    """The sector of each row (symbol, session) on its session; null = unknown. In the order of `rows`.

    A fact goes before the `sector` of `instruments` (symbol, sector: what the source says today).
    """
    found = rows.select(SYMBOL, SESSION)
    if facts is not None and SECTOR in facts.columns:
        found = with_periods(found, facts.select(*_FACT_KEY, SECTOR))
    else:
        found = found.with_columns(pl.lit(None, pl.String).alias(SECTOR))
    if instruments is not None and SECTOR in instruments.columns:
        fallback = instruments.select(SYMBOL, pl.col(SECTOR).alias("_said"))
        found = found.join(fallback, on=SYMBOL, how="left", maintain_order="left")
        found = found.with_columns(pl.coalesce(SECTOR, "_said").alias(SECTOR))
    return found[SECTOR]


def _read(path: str, what: str) -> pl.DataFrame:
    if not Path(path).is_file():
        raise MissingFileError(path, what)
    lower = path.lower()
    try:
        if lower.endswith((".parquet", ".pq")):
            return pl.read_parquet(path)
        if lower.endswith((".csv", ".txt", ".csv.gz")):
            # The header first: a symbol such as 005930 or TRUE is no number and no truth value, and which of 01/02/2020
            # is the month is not for us to guess.
            header = pl.read_csv(path, n_rows=0, infer_schema=False).columns
            kept = {SYMBOL, SECTOR, *(alias for names in _ALIASES.values() for alias in names)}
            texts = {name: pl.String for name in header if name.strip().lower() in kept}
            return pl.read_csv(path, schema_overrides=texts, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UnreadableFileError(path, what, reason) from error
    raise UnreadableFileError(path, what, "its name must end in .parquet, .pq, .csv, .txt or .csv.gz")


def _day(path: str, frame: pl.DataFrame, wanted: str) -> pl.Expr:
    given = next((name for name in _ALIASES[wanted] if name in frame.columns), None)
    if given is None:
        return pl.lit(None, pl.Date).alias(wanted)
    dtype = frame.schema[given]
    if dtype in (pl.Date, pl.Null) or isinstance(dtype, pl.Datetime):
        return pl.col(given).cast(pl.Date).alias(wanted)
    if dtype == pl.String:
        text = pl.col(given).str.strip_chars()
        parsed = text.str.to_date("%Y-%m-%d", strict=False)
        odd = frame.filter(parsed.is_null() & text.is_not_null() & (text != ""))
        if odd.is_empty():
            return parsed.alias(wanted)
        raise WrongTypeError(f"'{path}'", given, f"text such as '{odd[given][0]}'", "a day as YYYY-MM-DD, or nothing")
    raise WrongTypeError(f"'{path}'", given, str(dtype), "a day as YYYY-MM-DD, or nothing")


def _check_periods(path: str, what: str, made: pl.DataFrame) -> None:
    unnamed = made.filter(pl.col(SYMBOL).is_null() | (pl.col(SYMBOL) == ""))
    if not unnamed.is_empty():
        raise UnreadableFileError(path, what, f"the symbol is empty in {unnamed.height} row(s)")
    turned = made.filter(pl.col(VALID_TO) < pl.col(VALID_FROM))
    if not turned.is_empty():
        symbol, start, end = turned.select(_FACT_KEY).row(0)
        raise UnreadableFileError(path, what, f"a period of '{symbol}' ends on {end}, before its start on {start}")
    earlier = pl.col(VALID_TO).fill_null(date.max).shift().over(SYMBOL)
    overlapping = made.filter(earlier >= pl.col(VALID_FROM))
    if not overlapping.is_empty():
        symbol, start = overlapping.select(SYMBOL, VALID_FROM).row(0)
        raise UnreadableFileError(
            path, what, f"'{symbol}' has a period from {start} on while the one before it still holds"
        )
