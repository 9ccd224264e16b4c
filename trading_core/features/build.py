"""Bars in, features out. Every caller (backfill, inference, replay) builds features here and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from trading_core.errors import (
    DuplicateKeysError,
    InvalidConfigError,
    InvalidDateRangeError,
    MissingColumnsError,
    WrongTypeError,
)
from trading_core.features.kernels import Section, compiled, fixed
from trading_core.features.market_inputs import MarketBars
from trading_core.features.registry import FEATURES, SECTOR, Across, BarBlock, Feature, get
from trading_core.schema import SESSION, SYMBOL, TS, Float32Array, FloatArray, IntArray

_KEYS = (SYMBOL, TS, SESSION)
_CELLS_PER_BLOCK = 1 << 15  # 256 KiB per column: a kernel's arrays stay in the cache of one core
_MAX_THREADS = 8
NumberArray: TypeAlias = npt.NDArray[np.floating]


def describe() -> list[Feature]:
    """All features, by family and name."""
    return sorted(FEATURES.values(), key=lambda f: (f.family, f.name))


def warm_up(names: Sequence[str]) -> int:
    """Rows of a symbol needed before the first row to build, so that it is as if all history had been there.

    One more for what looks at the market: its return needs the bar before.
    """
    return max((get(name).lookback + get(name).needs_market for name in names), default=0)


def families(names: Sequence[str]) -> dict[str, list[str]]:
    """The names by family, each family in the order given. One family is one table."""
    grouped: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        grouped.setdefault(get(name).family, []).append(name)
    return grouped


def table_name(family: str) -> str:
    """The table that stores a family."""
    return f"features_{family}"


def fingerprints(names: Sequence[str]) -> dict[str, str]:
    """The fingerprint of each name's formula. A model refuses features whose formula is not the one it learned from."""
    return {name: get(name).fingerprint for name in names}


def build(
    bars: pl.DataFrame,
    names: Sequence[str],
    start: date,
    end: date,
    *,
    calendar: str = "XNYS",
    threads: int | None = None,
) -> pl.DataFrame:
    """Computes the features `names` for the bars of sessions `start` .. `end`, both included.

    bars: adjusted bars (symbol, ts, session and the inputs of the features; in any order, of any symbols) of that range
        and at least `warm_up(names)` rows of each symbol before it, as far as they exist, in whole sessions: of every `ts`
        that is handed in, the bars of all symbols (the market's return is their mean). More change nothing. Rows after
        `end` are not read. Cross-sectional features compare the symbols that are in `bars` at the same `ts`; sector-relative
        ones read a String column `sector` where there is one.
    calendar: the exchange, for features of the calendar. threads: blocks of symbols computed side by side (default: one
        per core, at most 8); any number gives the same bits.
    Returns symbol, ts, session and one float32 column per name, sorted by symbol and ts. NaN = not defined (each
        feature's docstring says when); there are no nulls and no infinities.
    Errors: UnknownNameError, InvalidConfigError (threads), InvalidDateRangeError, MissingColumnsError, WrongTypeError,
        DuplicateKeysError.
    """
    features = [get(name) for name in dict.fromkeys(names)]
    if start > end:
        raise InvalidDateRangeError(start, end, "the start lies after the end")
    inputs = tuple(dict.fromkeys(column for f in features for column in f.columns))
    rows = _sorted(_checked(bars, inputs).filter(pl.col(SESSION) <= end))
    wanted = rows[SESSION] >= start
    table = _Table.of(features, rows, wanted.to_numpy(), warm_up(names), calendar)
    with ThreadPoolExecutor(_threads(threads)) as pool:
        columns = _compute(features, table, pool)
    keys = rows.select(_KEYS).filter(wanted)
    return keys.with_columns(pl.Series(f.name, columns[f.name], dtype=pl.Float32) for f in features)


def _threads(asked: int | None) -> int:
    """Errors: InvalidConfigError when fewer than one is asked for."""
    if asked is None:
        return min(
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, _MAX_THREADS
        )
    if asked < 1:
        raise InvalidConfigError("The feature build", [f"threads: {asked}; at least 1, or None for one per core"])
    return asked


def _checked(bars: pl.DataFrame, inputs: tuple[str, ...]) -> pl.DataFrame:
    """The needed columns, the inputs as float64 with NaN for null, the sector as text."""
    missing = [column for column in (*_KEYS, *inputs) if column not in bars.columns]
    if missing:
        raise MissingColumnsError("Bars", missing, bars.columns)
    for column in inputs:
        if not bars.schema[column].is_numeric():
            raise WrongTypeError("Bars", column, str(bars.schema[column]), "a number")
    _check_keys(bars)
    sector = [pl.col(SECTOR).cast(pl.String).fill_null("")] if SECTOR in bars.columns else []
    return bars.select(*_KEYS, *(pl.col(column).cast(pl.Float64).fill_null(np.nan) for column in inputs), *sector)


def _check_keys(bars: pl.DataFrame) -> None:
    """Every row says whose it is and when: a null would be taken for a symbol of its own, or out of the range."""
    if not isinstance(bars.schema[TS], pl.Datetime):
        raise WrongTypeError("Bars", TS, str(bars.schema[TS]), "Datetime")
    if bars.schema[SESSION] != pl.Date:
        raise WrongTypeError("Bars", SESSION, str(bars.schema[SESSION]), "Date")
    for key in _KEYS:
        if nulls := bars[key].null_count():
            raise WrongTypeError("Bars", key, f"null in {nulls} of {len(bars)} rows", "a value in every row")


def _sorted(rows: pl.DataFrame) -> pl.DataFrame:
    """By symbol and ts, each pair once."""
    same = pl.col(SYMBOL) == pl.col(SYMBOL).shift()
    in_order = (pl.col(SYMBOL) > pl.col(SYMBOL).shift()) | (same & (pl.col(TS) > pl.col(TS).shift()))
    if rows.select(in_order.all()).item():  # the first row's null does not count
        return rows
    rows = rows.sort(SYMBOL, TS)
    doubles = rows.filter(same & (pl.col(TS) == pl.col(TS).shift()))
    if len(doubles):
        sample = [f"{symbol} {ts}" for symbol, ts in doubles.select(SYMBOL, TS).head(3).iter_rows()]
        raise DuplicateKeysError("Bars", (SYMBOL, TS), len(doubles), sample)
    return rows


@dataclass(frozen=True, slots=True)
class _Table:
    """The sorted rows as arrays, and where each symbol lies in them."""

    columns: dict[str, FloatArray]  # inputs, derived ones included [N]
    sessions: IntArray  # days since 1970-01-01 [N]
    market: MarketBars
    first: IntArray  # of each symbol: the first row that matters
    count: IntArray  # rows that matter: the last `wanted` are asked for, the others are their warm-up
    wanted: IntArray
    out: IntArray  # where the wanted rows begin in the result
    asked: IntArray  # the rows that are asked for

    @classmethod
    def of(
        cls, features: Sequence[Feature], rows: pl.DataFrame, asked: np.ndarray, spare: int, calendar: str
    ) -> _Table:
        inputs = {name for f in features for name in f.inputs}
        starts = np.flatnonzero((rows[SYMBOL] != rows[SYMBOL].shift()).fill_null(True).to_numpy())
        length = np.diff(np.append(starts, len(rows)))
        wanted = np.add.reduceat(asked.astype(np.int64), starts) if len(starts) else np.zeros(0, np.int64)
        # Older rows than the warm-up cannot matter: a daily run may hand in years of history at no cost.
        count = np.minimum(length, wanted + spare)
        market = MarketBars.of(rows, starts, inputs, calendar)
        numbers = [name for name in rows.columns if name not in (*_KEYS, SECTOR)]
        own = {name: rows[name].to_numpy() for name in numbers}
        columns = {name: fixed(x) for name, x in (own | market.by_row()).items()}
        days = rows[SESSION].to_physical().to_numpy().astype(np.int64)
        first = starts + length - count
        return cls(columns, days, market, first, count, wanted, np.cumsum(wanted) - wanted, np.flatnonzero(asked))

    def blocks(self) -> Iterator[IntArray]:
        """Numbers of symbols that are computed together: of similar length, those with nothing asked for left out."""
        order = np.argsort(self.count, kind="stable")[::-1]
        order = order[self.wanted[order] > 0]
        while len(order):
            size = max(1, _CELLS_PER_BLOCK // int(self.count[order[0]]))
            members, order = order[:size], order[size:]
            yield members

    def block(self, members: IntArray) -> BarBlock:
        """The bars of these symbols."""
        first, count = self.first[members], self.count[members]
        days = _gather_days(self.sessions, first, count)
        columns = {name: _gather(data, first, count) for name, data in self.columns.items()}
        return BarBlock(days.view("datetime64[D]"), columns)

    def section(self, order: IntArray) -> Section:
        """How the asked rows are compared, in the order of `order`."""
        ts = self.market.row[self.asked][order]
        sector = self.market.sector[self.asked][order]
        pair = ts * (int(sector.max(initial=0)) + 1) + sector
        return Section(_numbered(ts), _numbered(pair))

    def order(self) -> IntArray:
        """The asked rows by (ts, symbol), as places in the result; they come sorted by symbol."""
        return np.argsort(self.market.row[self.asked], kind="stable")


def _numbered(values: IntArray) -> IntArray:
    """Each value's number in the order of size, without gaps."""
    seen = np.zeros(int(values.max(initial=-1)) + 1, dtype=np.int64)
    seen[values] = 1
    return (np.cumsum(seen) - 1)[values]


def _compute(features: Sequence[Feature], table: _Table, pool: ThreadPoolExecutor) -> dict[str, NumberArray]:
    size = len(table.asked)
    # A symbol's own value before it is compared keeps its double precision.
    out: dict[str, NumberArray] = {
        f.name: np.empty(size, dtype=np.float64 if f.across else np.float32) for f in features
    }
    own = [f for f in features if f.on == "symbol"]
    for _ in pool.map(lambda members: _compute_block(own, table, members, out), table.blocks()):
        pass
    compared = {f.name: f.across for f in features if f.across}
    if compared:
        order = table.order()
        section = table.section(order)
        columns = pool.map(lambda name: _compared(compared[name], out[name], order, section), compared)
        out |= zip(compared, columns, strict=True)
    whole = (np.array([size]), np.array([size]), np.array([0]))
    block = BarBlock(table.market.sessions[None, :], {name: x[None, :] for name, x in table.market.series.items()})
    for f in features:
        if f.on == "market":
            values = np.take(_of_market(f, block), table.market.row[table.asked])
            _store(values[None, :], *whole, out[f.name])
    return out


def _of_market(f: Feature, block: BarBlock) -> FloatArray:
    with np.errstate(all="ignore"):
        return f.compute(block)[0]


def _compute_block(features: Sequence[Feature], table: _Table, members: IntArray, out: dict[str, NumberArray]) -> None:
    block = table.block(members)
    count, wanted, place = table.count[members], table.wanted[members], table.out[members]
    with np.errstate(all="ignore"):  # what is not defined becomes NaN
        for f in features:
            _store(f.compute(block), count, wanted, place, out[f.name])


def _compared(across: Across, values: NumberArray, order: IntArray, section: Section) -> Float32Array:
    column = np.empty(len(values), dtype=np.float32)
    with np.errstate(all="ignore"):
        column[order] = across(values[order].astype(np.float64, copy=False), section)
    column[~np.isfinite(column)] = np.nan
    return column


@compiled
def _gather(data: FloatArray, first: IntArray, count: IntArray) -> FloatArray:
    out = np.full((len(first), count.max()), np.nan)
    for s in range(len(first)):
        out[s, : count[s]] = data[first[s] : first[s] + count[s]]
    return out


@compiled
def _gather_days(data: IntArray, first: IntArray, count: IntArray) -> IntArray:
    out = np.full((len(first), count.max()), np.iinfo(np.int64).min)  # NaT
    for s in range(len(first)):
        out[s, : count[s]] = data[first[s] : first[s] + count[s]]
    return out


@compiled
def _store(values: FloatArray, count: IntArray, wanted: IntArray, place: IntArray, out: NumberArray) -> None:
    """The last `wanted` bars of each symbol to their place in the result, NaN for what its type cannot hold."""
    for s in range(values.shape[0]):
        begin = count[s] - wanted[s]
        for i in range(wanted[s]):
            at = place[s] + i
            out[at] = values[s, begin + i]
            if np.isinf(out[at]):
                out[at] = np.nan
