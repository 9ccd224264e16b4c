"""What a fetch changes in what is stored: kept, replaced, or put aside as a revision."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from trading_core.errors import CommitConflictError
from trading_core.market.source import BAR_SCHEMA
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import BAR_REVISIONS, BARS, MONTH, SESSION, SYMBOL, TS, TableSchema
from trading_core.storage.tables import Predicate

MERGE_ATTEMPTS = 20  # each is lost only to another run that committed to the same table meanwhile
# Relative: below it two numbers are one, written down differently (a vendor's price divided by a split and multiplied back).
FLOAT_NOISE = 1e-9
NUMBERS = tuple(name for name, dtype in BAR_SCHEMA.items() if dtype == pl.Float64)
KEY = [SYMBOL, TS]
# `column` is "row" where the source no longer has the bar, or has it only as one that the quality gate holds back.
CONTRADICTIONS: dict[str, pl.DataType | type[pl.DataType]] = {
    SYMBOL: pl.String,
    TS: pl.Datetime("us", "UTC"),
    SESSION: pl.Date,
    "column": pl.String,
    "stored": pl.Float64,
    "fetched": pl.Float64,
}


@dataclass(frozen=True, slots=True)
class Region:
    """The rows that a fetch speaks for: `symbols` (those that did not fail) on the sessions `start` .. `end`."""

    symbols: tuple[str, ...]
    start: date
    end: date

    def inside(self) -> pl.Expr:
        return pl.col(SYMBOL).is_in(self.symbols) & pl.col(SESSION).is_between(self.start, self.end)


@dataclass(frozen=True, slots=True)
class MergedBars:
    """`bars`: all rows of the sessions from `start` on, as they should be. The others as their schemas say."""

    bars: pl.DataFrame
    superseded: pl.DataFrame  # stored rows that `bars` has otherwise, or not at all
    contradictions: pl.DataFrame


def merge_bars(stored: pl.DataFrame, fetched: pl.DataFrame, region: Region) -> MergedBars:
    """`fetched` into `stored` (all rows of its sessions). Equal but for float noise: the stored row stays, bit for bit.

    Fetched rows of sessions before the region (a bar that was held back and is cleared now) are added or replaced; that a
    stored one is not among them says nothing.
    """
    both = stored.join(fetched, on=KEY, how="inner", suffix="_new")
    differing = both.filter(pl.any_horizontal(_differs(name) for name in NUMBERS))
    gone = stored.filter(region.inside()).join(fetched, on=KEY, how="anti")
    same = both.join(differing, on=KEY, how="anti")
    superseded = pl.concat([differing.select(list(BAR_SCHEMA)), gone.select(list(BAR_SCHEMA))])
    kept = stored.join(superseded, on=KEY, how="anti")
    fresh = fetched.join(same, on=KEY, how="anti")
    bars = pl.concat([kept.select(list(BAR_SCHEMA)), fresh.select(list(BAR_SCHEMA))]).sort(KEY)
    return MergedBars(bars, superseded, _contradictions(differing, gone))


def _differs(name: str) -> pl.Expr:
    old, new = pl.col(name).fill_nan(None), pl.col(f"{name}_new").fill_nan(None)
    apart = (old - new).abs() > FLOAT_NOISE * pl.max_horizontal(old.abs(), new.abs())
    return apart.fill_null(False) | (old.is_null() != new.is_null())


def _contradictions(differing: pl.DataFrame, gone: pl.DataFrame) -> pl.DataFrame:
    columns = [
        differing.filter(_differs(name)).select(
            *KEY,
            SESSION,
            pl.lit(name).alias("column"),
            pl.col(name).alias("stored"),
            pl.col(f"{name}_new").alias("fetched"),
        )
        for name in NUMBERS
    ]
    missing = gone.select(
        *KEY,
        SESSION,
        pl.lit("row").alias("column"),
        pl.col("close").alias("stored"),
        pl.lit(None, pl.Float64).alias("fetched"),
    )
    return pl.concat([*columns, missing]).sort(SESSION, SYMBOL, TS, "column", maintain_order=True)


def contradicting_events(stored: pl.DataFrame, fetched: pl.DataFrame, region: Region) -> pl.DataFrame:
    """Stored events of the region that the source now gives another value, or not at all; columns as CONTRADICTIONS."""
    key = [SYMBOL, SESSION, "kind"]
    both = stored.filter(region.inside()).join(fetched, on=key, how="left", suffix="_new")
    differing = both.filter(_differs("value"))
    stamp = pl.col(SESSION).cast(pl.Datetime("us")).dt.replace_time_zone("UTC").alias(TS)
    values = (pl.col("kind").alias("column"), pl.col("value").alias("stored"), pl.col("value_new").alias("fetched"))
    return differing.select(SYMBOL, stamp, SESSION, *values)


def merge_rows(stored: pl.DataFrame, fetched: pl.DataFrame, region: Region, key: Sequence[str]) -> pl.DataFrame:
    """`stored` with the rows of the region taken from `fetched`; fetched rows before it are added or replaced by `key`."""
    kept = stored.filter(~region.inside()).join(fetched, on=list(key), how="anti")
    return pl.concat([kept.select(fetched.columns), fetched])


# --- commits ----------------------------------------------------------------------------------------------------------


def rewrite(
    ws: Workspace, table: TableSchema, span: Predicate, made_from: Callable[[pl.DataFrame], pl.DataFrame]
) -> int:
    """Replaces the rows of `span` by what `made_from` makes of them; returns the table's version afterwards.

    `made_from` may be called again when another run commits in between, and nothing is written when it changes nothing.
    """
    columns = [name for name in table.columns if name != MONTH]
    for _ in range(MERGE_ATTEMPTS):
        version = ws.tables.version(table.name)
        stored = read_or_empty(ws, table, span, version).select(columns)
        made = made_from(stored).select(columns)
        if version is not None and first_difference(stored, made) is None:
            return version
        try:
            return ws.tables.replace(table.name, made, span, schema=table, expected=version)
        except CommitConflictError:
            continue
    raise CommitConflictError(f"{ws.market.id}/{table.name}", MERGE_ATTEMPTS)


def read_or_empty(ws: Workspace, table: TableSchema, where: Predicate, version: int | None) -> pl.DataFrame:
    """The rows of `where`; none when there is no table. Columns that the stored table does not have yet are null."""
    if version is None:
        return table.empty()
    found = ws.tables.read(table.name, where=where, version=version)
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in table.columns.items() if name not in found.columns]
    return found.with_columns(missing).select(list(table.columns))


def keep_revisions(ws: Workspace, superseded: pl.DataFrame, run_id: str, now: datetime) -> None:
    """Stores rows before they are replaced. Of one run's attempts the first stands: it saw them as they were."""
    if superseded.is_empty():
        return
    span = Predicate(superseded[SESSION].min(), superseded[SESSION].max(), {"run_id": run_id})  # type: ignore[arg-type]
    rows = superseded.with_columns(
        pl.lit(now).dt.convert_time_zone("UTC").dt.cast_time_unit("us").alias("recorded_at"),
        pl.lit(run_id).alias("run_id"),
    )
    rewrite(
        ws,
        BAR_REVISIONS,
        span,
        lambda stored: pl.concat([stored, rows.join(stored, on=KEY, how="anti")], how="diagonal"),
    )


def as_before(ws: Workspace, stored: pl.DataFrame, span: Predicate, run_id: str) -> pl.DataFrame:
    """`stored` bars of `span` as they were before an earlier attempt of this run replaced some of them."""
    version = ws.tables.version(BAR_REVISIONS.name)
    if version is None:
        return stored
    own = Predicate(span.start, span.end, {"run_id": run_id})
    kept = ws.tables.read(BAR_REVISIONS.name, where=own, version=version).select(list(BAR_SCHEMA))
    return pl.concat([stored.join(kept, on=KEY, how="anti").select(list(BAR_SCHEMA)), kept])


def first_difference(left: pl.DataFrame | None, right: pl.DataFrame) -> date | None:
    """The first session with a row that only one of the two has (keys are unique in each); None when they are equal."""
    both = pl.concat([left.select(right.columns), right]) if left is not None else right
    first = both.unique(keep="none")[SESSION].min()
    return first if isinstance(first, date) else None


def symbols_but(symbols: Collection[str], failed: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted(set(symbols) - set(failed)))


__all__ = ["BARS", "CONTRADICTIONS", "MergedBars", "Region"]
