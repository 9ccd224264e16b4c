"""What features are computed from: bars as adjusted, with sectors, of exactly as many sessions as a range needs.

The cost of a range is that of its own rows and its warm-up. What needs all of history is light (symbol, session, close)
and is walked once per run, a year at a time: the factors of the forward adjustment, whose base is the symbol's first bar
in every run, so that day by day, month by month and all at once give the same float32 bits.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import polars as pl

from trading_core.errors import NoDataError
from trading_core.features import build as features
from trading_core.market import adjust
from trading_core.market.source import ACTION_SCHEMA, BAR_SCHEMA
from trading_core.pipelines import instruments, quality
from trading_core.pipelines.backfill_merge import first_difference
from trading_core.pipelines.refs import DateRange
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import (
    BARS,
    CORPORATE_ACTIONS,
    DAILY,
    INSTRUMENTS,
    MONTH,
    QUARANTINE,
    SESSION,
    SYMBOL,
    TS,
    month_of,
)
from trading_core.storage.tables import Predicate

Versions = Mapping[str, int | None]

# A symbol that did not trade for longer starts anew: no feature looks back across such a hole, and no range has to be read
# from before it. A ticker that comes back after a year is often another company.
LONGEST_HOLE = 252  # sessions
SPARE = 5  # bars of each symbol beyond the warm-up: some of them may be held out on the sessions to compute
CELLS_AT_ONCE = 1 << 28  # values held at a time: 1 GiB as float32, so that 5,000 symbols x 750 sessions fit a laptop
_SINCE = "since"
_MARK = "\x01"  # sorts before every character of a symbol, so that the order of symbols within a session stays


@dataclass(frozen=True, slots=True)
class History:
    """What all of history says of a symbol. `steps`: adjust.factor_steps. `spells`: symbol, since: the first session, and
    each one after a hole of more than LONGEST_HOLE sessions."""

    steps: pl.DataFrame
    spells: pl.DataFrame


def input_versions(ws: Workspace) -> dict[str, int | None]:
    """The versions of what features are made of. Bars are asked first: the events of bars that are there are there too."""
    names = (BARS.name, CORPORATE_ACTIONS.name, QUARANTINE.name, INSTRUMENTS.name, instruments.FACTS)
    return {name: ws.tables.version(name) for name in names}


def computed(
    ws: Workspace, run_id: str, span: DateRange, members: Mapping[str, Sequence[str]], versions: Versions
) -> Iterator[tuple[tuple[str, ...], pl.DataFrame]]:
    """The features of `span`, over the whole cross-section, from the tables at `versions`: some families at a time.

    `members`: family -> names. Yields families and their columns as `features.build` gives them, the same rows each time.
    A session is computed of the bars that were not held out at its close. Errors: NoDataError when there are no bars.
    """
    warm_up = features.warm_up([name for names in members.values() for name in names])
    bars = feature_bars(ws, run_id, span, warm_up, versions)
    held = quality.held_rows(ws, span.start, span.end, versions)
    spell_of = pl.col(SYMBOL).str.splitn(_MARK, 2).struct.field("field_0")
    days, rows = ws.sessions.between(span.start, span.end), int((bars[SESSION] >= span.start).sum())
    for families in _batches(members, rows):
        names = [name for family in families for name in members[family]]
        made = quality.as_known_then(bars, held, days, _building(ws, names), spell_of)
        if made[SYMBOL].str.contains(_MARK, literal=True).any():
            made = made.with_columns(pl.col(SYMBOL).str.split(_MARK).list.first()).sort(SYMBOL, TS)
        yield families, made


def _building(ws: Workspace, names: Sequence[str]) -> Callable[[pl.DataFrame, date, date], pl.DataFrame]:
    def build(known: pl.DataFrame, first: date, last: date) -> pl.DataFrame:
        return features.build(known, names, first, last, calendar=ws.market.calendar)

    return build


def _batches(members: Mapping[str, Sequence[str]], rows: int) -> Iterator[tuple[str, ...]]:
    """Families that are computed together, at least one: at most CELLS_AT_ONCE values of `rows` rows."""
    batch: list[str] = []
    for family, names in members.items():
        if batch and rows * (len(names) + sum(len(members[other]) for other in batch)) > CELLS_AT_ONCE:
            yield tuple(batch)
            batch = []
        batch.append(family)
    if batch:
        yield tuple(batch)


def feature_bars(ws: Workspace, run_id: str, span: DateRange, rows: int, versions: Versions) -> pl.DataFrame:
    """Adjusted bars of `span` and of at least `rows` bars of each of its symbols before it, in whole sessions.

    Columns as BAR_SCHEMA, and `sector` where one is known; sorted by symbol and ts. The bars of a symbol before a hole of
    more than LONGEST_HOLE sessions bear another name: symbol, U+0001, the first session of that spell.
    """
    if versions.get(BARS.name) is None:
        raise NoDataError(f"Market '{ws.market.id}' has no bars yet", "Run feature_backfill first.")
    history = history_of(ws, run_id, versions)
    start = first_needed(ws, span, rows + SPARE, history.spells, versions)
    where = Predicate(start, span.end)
    bars = ws.tables.read(BARS.name, columns=list(BAR_SCHEMA), where=where, version=versions[BARS.name])
    if history.steps.filter((pl.col(adjust.PRICE_FACTOR) != 1.0) | (pl.col(adjust.VOLUME_FACTOR) != 1.0)).is_empty():
        bars = bars.sort(SYMBOL, TS)
    else:
        bars = adjust.with_factors(bars, history.steps)
    sector = instruments.sectors_of(ws, bars, versions)
    if sector.null_count() < len(sector):
        bars = bars.with_columns(sector.alias(instruments.SECTOR))
    return _parted(bars, history.spells)


def _parted(bars: pl.DataFrame, spells: pl.DataFrame) -> pl.DataFrame:
    """Rows of a symbol's earlier spells under a name of their own."""
    several = spells.filter(pl.col(SYMBOL).is_duplicated())
    if several.is_empty():
        return bars
    own = bars.select(SYMBOL, SESSION).with_row_index("_row").sort(SESSION)
    own = own.join_asof(several.sort(_SINCE), left_on=SESSION, right_on=_SINCE, by=SYMBOL, check_sortedness=False).sort(
        "_row"
    )
    since = own[_SINCE]
    last = pl.col(_SINCE).max().over(SYMBOL)
    name = pl.when(pl.col(_SINCE) < last).then(pl.col(SYMBOL) + _MARK + pl.col(_SINCE).cast(pl.String))
    named = bars.with_columns(since).with_columns(name.otherwise(pl.col(SYMBOL)).alias(SYMBOL))
    return named.drop(_SINCE).sort(SYMBOL, TS)


# --- which sessions ---------------------------------------------------------------------------------------------------


def first_needed(ws: Workspace, span: DateRange, rows: int, spells: pl.DataFrame, versions: Versions) -> date:
    """The session from which on each symbol that trades in `span` has `rows` bars before its first one there, or all.

    Found by reading keys only, further back as long as a symbol with holes lacks some.
    """
    oldest = spells[_SINCE].min()
    floor = oldest if isinstance(oldest, date) else span.start
    first = _back(ws, span.start, _sessions_for(ws, rows), floor)
    keys = _keys(ws, first, span.end, versions)
    while first > floor and _lacking(keys, span.start, rows, first, spells):
        earlier = _back(ws, first, max(20, rows // 4), floor)
        keys = pl.concat([_keys(ws, earlier, ws.sessions.previous(first), versions), keys])
        first = earlier
    return first


def _sessions_for(ws: Workspace, rows: int) -> int:
    """Sessions that hold `rows` bars of a symbol without holes; of intraday bars as few as the shortest day allows."""
    if ws.market.interval == DAILY:
        return rows
    from trading_core.schema import INTERVALS

    half_day = 3 * 3600  # seconds: the shortest sessions of the big exchanges are a little longer
    return -(-rows // max(1, half_day // int(INTERVALS[ws.market.interval].total_seconds())))


def _lacking(keys: pl.DataFrame, start: date, rows: int, first: date, spells: pl.DataFrame) -> bool:
    """Whether a symbol needs bars from before `first`."""
    begins = keys.filter(pl.col(SESSION) >= start).group_by(SYMBOL).agg(pl.col(SESSION).min()).sort(SESSION)
    since = begins.join_asof(
        spells.sort(_SINCE), left_on=SESSION, right_on=_SINCE, by=SYMBOL, check_sortedness=False
    ).filter(pl.col(_SINCE) < first)
    before = keys.filter(pl.col(SESSION) < start).group_by(SYMBOL).len("have")
    short = since.join(before, on=SYMBOL, how="left").filter(pl.col("have").fill_null(0) < rows)
    return not short.is_empty()


def _keys(ws: Workspace, start: date, end: date, versions: Versions) -> pl.DataFrame:
    where = Predicate(start, end)
    return ws.tables.read(BARS.name, columns=[SYMBOL, SESSION], where=where, version=versions[BARS.name])


def _back(ws: Workspace, session: date, count: int, floor: date) -> date:
    """The session `count` sessions before, but not before `floor`."""
    if session <= floor:
        return floor
    between = ws.sessions.between(floor, session)
    return between[-1 - count] if len(between) > count else floor


# --- all of history, lightly ------------------------------------------------------------------------------------------


def history_of(ws: Workspace, run_id: str, versions: Versions) -> History:
    """The history of all symbols at these versions; computed once per run and kept in its staging folder."""
    name = "-".join(str(versions[table]) for table in (BARS.name, CORPORATE_ACTIONS.name))
    folder = ws.path("staging", run_id, "history", name)
    paths = [f"{folder}/{part}.parquet" for part in ("spells", "steps")]
    if not all(ws.store.exists(path) for path in paths):
        found = _walk(ws, versions)
        for path, frame in zip(paths, (found.spells, found.steps), strict=True):
            buffer = io.BytesIO()
            frame.write_parquet(buffer)
            ws.store.write_bytes(path, buffer.getvalue())
        return found
    spells, steps = (pl.read_parquet(io.BytesIO(ws.store.read_bytes(path))) for path in paths)
    return History(steps, spells)


def _walk(ws: Workspace, versions: Versions) -> History:
    version, first = versions[CORPORATE_ACTIONS.name], ws.tables.first_session(BARS.name)
    last = ws.tables.last_session(BARS.name)
    spells = _Spells(ws, first, last)
    actions = pl.DataFrame(schema=ACTION_SCHEMA)
    if version is not None:
        actions = ws.tables.read(CORPORATE_ACTIONS.name, columns=list(ACTION_SCHEMA), version=version)
    parts = spells.watching(_years(ws, first, last, versions))
    if actions.is_empty():
        for _ in parts:
            pass
        steps = adjust.factor_steps([], actions)
    else:
        steps = adjust.factor_steps(parts, actions)
    return History(steps, spells.found())


def _years(ws: Workspace, first: date | None, last: date | None, versions: Versions) -> Iterator[pl.DataFrame]:
    """symbol, ts, session, close of a calendar year at a time."""
    if first is None or last is None:
        return
    columns = [SYMBOL, TS, SESSION, "close"]
    for year in range(first.year, last.year + 1):
        where = Predicate(date(year, 1, 1), date(year, 12, 31))
        yield ws.tables.read(BARS.name, columns=columns, where=where, version=versions[BARS.name])


class _Spells:
    """Notes, as bars pass by in whole sessions, where each symbol begins and begins again."""

    def __init__(self, ws: Workspace, first: date | None, last: date | None) -> None:
        days = ws.sessions.between(first, last) if first and last else []
        self._numbers = pl.DataFrame(
            {SESSION: days, "number": range(len(days))}, schema={SESSION: pl.Date, "number": pl.Int64}
        )
        self._last = pl.DataFrame(schema={SYMBOL: pl.String, "number": pl.Int64})
        self._found: list[pl.DataFrame] = [pl.DataFrame(schema={SYMBOL: pl.String, _SINCE: pl.Date})]

    def watching(self, parts: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        for part in parts:
            days = part.select(SYMBOL, SESSION).unique().join(self._numbers, on=SESSION, how="inner")
            days = days.sort(SYMBOL, SESSION).join(
                self._last, on=SYMBOL, how="left", suffix="_last", maintain_order="left"
            )
            before = pl.coalesce(pl.col("number").shift().over(SYMBOL), pl.col("number_last"))
            begins = before.is_null() | (pl.col("number") - before > LONGEST_HOLE)
            self._found.append(days.filter(begins).select(SYMBOL, pl.col(SESSION).alias(_SINCE)))
            newest = pl.concat([self._last, days.select(SYMBOL, "number")])
            self._last = newest.group_by(SYMBOL).agg(pl.col("number").max())
            yield part

    def found(self) -> pl.DataFrame:
        return pl.concat(self._found).sort(SYMBOL, _SINCE)


# --- what has changed -------------------------------------------------------------------------------------------------


def first_change(ws: Workspace, then: Versions, now: Versions, end: date) -> date | None:
    """The first session up to `end` whose bars, events, held rows or sectors differ between two states of the tables.

    Only months whose data files differ are read, one at a time.
    """
    tables = (BARS.name, CORPORATE_ACTIONS.name, QUARANTINE.name)
    found = [_first_changed_row(ws, name, then.get(name), now.get(name), end) for name in tables]
    names = (INSTRUMENTS.name, instruments.FACTS)
    if any(then.get(name) != now.get(name) for name in names):
        found.append(instruments.first_change(*(instruments.sector_periods(ws, v) for v in (then, now))))
    return min((day for day in found if day is not None and day <= end), default=None)


def _first_changed_row(ws: Workspace, name: str, then: int | None, now: int | None, end: date) -> date | None:
    if then == now:
        return None
    for month in ws.tables.changed_months(name, then, now):
        if month > month_of(end):
            break
        where = Predicate(None, end, {MONTH: month})
        old, new = (ws.tables.read(name, where=where, version=v) if v is not None else None for v in (then, now))
        if old is None and new is None:
            continue
        if first := first_difference(old, new if new is not None else old.clear()):  # type: ignore[union-attr]
            return first
    return None
