"""What is known of a market's instruments: the source's list, the facts of a file, and both as of a day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from trading_core.errors import NoDataError, UnknownNameError
from trading_core.market import instruments
from trading_core.market.instruments import ALWAYS, SECTOR, VALID_FROM, VALID_TO
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import BARS, INSTRUMENTS, MONTH, SESSION, SYMBOL
from trading_core.storage.tables import Predicate

FACTS = "instrument_facts"  # symbol, valid_from, valid_to and the columns of the market's instruments file
WHOLE = "all"  # the month partition of tables without a session
_WHOLE = Predicate(None, None, {MONTH: WHOLE})


def instruments_as_of(ws: Workspace, day: date, versions: Mapping[str, int] | None = None) -> pl.DataFrame:
    """One row per symbol that was listed by `day`: symbol, listed, delisted, sector and the other facts that held then.

    `delisted` is null when it lies after `day`; names that are gone stay in. Where no first session is known, the symbol
    is taken as listed. Facts come from the market's instruments file (MarketConfig.instruments), sectors that it does not
    give from the source. `versions`: table versions to read (default: the newest).
    Errors: NoDataError when no backfill has stored instruments yet.
    """
    version = versions.get(INSTRUMENTS.name) if versions is not None else ws.tables.version(INSTRUMENTS.name)
    if version is None:
        raise NoDataError(f"Market '{ws.market.id}' has no instruments yet", "Run feature_backfill first.")
    said = ws.tables.read(INSTRUMENTS.name, version=version).drop(MONTH)
    there = said.filter(pl.col("listed").is_null() | (pl.col("listed") <= day))
    later = pl.col("delisted") > day
    there = there.with_columns(pl.when(later).then(None).otherwise(pl.col("delisted")).alias("delisted")).sort(SYMBOL)
    facts = stored_facts(ws, versions)
    if facts is None:
        return there
    sectors = instruments.sectors_at(there.select(SYMBOL, pl.lit(day).alias(SESSION)), facts, said)
    held = instruments.facts_as_of(facts, day).drop(VALID_FROM, VALID_TO)
    others = held.drop(SECTOR) if SECTOR in held.columns else held
    return there.with_columns(sectors).join(others, on=SYMBOL, how="left", maintain_order="left")


def stored_facts(ws: Workspace, versions: Mapping[str, int | None] | Mapping[str, int] | None) -> pl.DataFrame | None:
    """symbol, valid_from, valid_to and the facts; None when the market has never had a file of them."""
    version = versions.get(FACTS) if versions is not None else ws.tables.version(FACTS)
    return None if version is None else ws.tables.read(FACTS, version=version).drop(MONTH)


def sectors_of(ws: Workspace, rows: pl.DataFrame, versions: Mapping[str, int | None]) -> pl.Series:
    """The sector of each row (symbol, session), as of its session; null = unknown."""
    version = versions.get(INSTRUMENTS.name)
    said = None if version is None else ws.tables.read(INSTRUMENTS.name, version=version)
    return instruments.sectors_at(rows, stored_facts(ws, versions), said)


def with_facts(ws: Workspace, rows: pl.DataFrame, columns: Sequence[str], versions: Mapping[str, int]) -> pl.DataFrame:
    """The rows (symbol, session ...) with numeric facts of the instruments file as of each row's session; null = unknown.

    Errors: UnknownNameError for a column that the file does not have or that holds no numbers.
    """
    facts = stored_facts(ws, versions)
    numeric = [] if facts is None else [name for name, dtype in facts.schema.items() if dtype.is_numeric()]
    for column in columns:
        if column not in numeric:
            raise UnknownNameError(f"numeric instrument column of market '{ws.market.id}'", column, numeric)
    if facts is None:
        return rows
    return instruments.with_periods(rows, facts.select(SYMBOL, VALID_FROM, VALID_TO, *columns)).drop(
        VALID_FROM, VALID_TO
    )


@dataclass(frozen=True, slots=True)
class NewInstruments:
    """What a backfill has found out about instruments. `changed`: the first session of a stored bar whose sector is another."""

    listed: pl.DataFrame
    facts: pl.DataFrame | None
    changed: date | None

    def store(self, ws: Workspace) -> None:
        """Writes the tables that are not so yet."""
        if not _is_stored(ws, INSTRUMENTS.name, self.listed, [SYMBOL]):
            ws.tables.replace(INSTRUMENTS.name, self.listed, _WHOLE, schema=INSTRUMENTS)
        if self.facts is not None and not _is_stored(ws, FACTS, self.facts, [SYMBOL, VALID_FROM]):
            ws.tables.replace(FACTS, self.facts, _WHOLE)


def new_instruments(ws: Workspace, found: pl.DataFrame) -> NewInstruments:
    """The source's list and the market's instruments file, beside what is stored. Writes nothing.

    Errors: those of `market.instruments.read_facts`.
    """
    path = ws.market.instruments
    facts = instruments.read_facts(path).with_columns(pl.lit(WHOLE).alias(MONTH)) if path else None
    listed = found.with_columns(pl.lit(WHOLE).alias(MONTH)).sort(SYMBOL)
    kept = facts if facts is not None else stored_facts(ws, None)
    before = sector_periods(ws, {name: ws.tables.version(name) for name in (INSTRUMENTS.name, FACTS)})
    first, first_bar = first_change(before, _periods(listed, kept)), ws.tables.first_session(BARS.name)
    return NewInstruments(listed, facts, max(first, first_bar) if first and first_bar else None)


def first_change(before: pl.DataFrame, after: pl.DataFrame) -> date | None:
    """The first day on which a symbol of both has another sector (columns symbol, valid_from, valid_to, sector).

    A symbol that only one of them names has no bars yet, or none any more: its own rows say so.
    """
    both = set(before[SYMBOL]) & set(after[SYMBOL])
    rows = pl.concat([before, after]).filter(pl.col(SYMBOL).is_in(sorted(both)))
    first = rows.unique(keep="none")[VALID_FROM].min()
    return first if isinstance(first, date) else None


def sector_periods(ws: Workspace, versions: Mapping[str, int | None]) -> pl.DataFrame:
    """symbol, valid_from, valid_to, sector: everything that `sectors_of` goes by."""
    version = versions.get(INSTRUMENTS.name)
    said = None if version is None else ws.tables.read(INSTRUMENTS.name, columns=[SYMBOL, SECTOR], version=version)
    return _periods(said, stored_facts(ws, versions))


def _periods(said: pl.DataFrame | None, facts: pl.DataFrame | None) -> pl.DataFrame:
    columns = {SYMBOL: pl.String, VALID_FROM: pl.Date, VALID_TO: pl.Date, SECTOR: pl.String}
    made = [pl.DataFrame(schema=columns)]
    if said is not None:
        days = (pl.lit(ALWAYS).alias(VALID_FROM), pl.lit(None, pl.Date).alias(VALID_TO))
        made.append(said.select(SYMBOL, SECTOR).with_columns(days).select(list(columns)))
    if facts is not None and SECTOR in facts.columns:
        made.append(facts.select(list(columns)))
    return pl.concat(made)


def _is_stored(ws: Workspace, table: str, frame: pl.DataFrame, order: list[str]) -> bool:
    if not ws.tables.exists(table):
        return False
    stored = ws.tables.read(table).sort(order)
    if set(stored.columns) != set(frame.columns):
        return False
    return stored.select(frame.columns).equals(frame.sort(order))
