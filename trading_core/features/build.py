"""Bars in, features out. Every caller (backfill, inference, replay) builds features here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np
import polars as pl

from trading_core.errors import DuplicateKeysError, InvalidDateRangeError, MissingColumnsError, WrongTypeError
from trading_core.features.registry import FEATURES, BarBlock, Feature, get
from trading_core.schema import SESSION, SYMBOL, TS, BoolArray, Float32Array, IntArray

_KEYS = (SYMBOL, TS, SESSION)
_CELLS_PER_BLOCK = 1 << 15  # 256 KiB per column: a kernel's arrays stay in the cache of one core


def describe() -> list[Feature]:
    """All features, by family and name."""
    return sorted(FEATURES.values(), key=lambda f: (f.family, f.name))


def warm_up(names: Sequence[str]) -> int:
    """Rows of a symbol needed before the first row to build, so that it is as if all history had been there."""
    return max((get(name).lookback for name in names), default=0)


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


def build(bars: pl.DataFrame, names: Sequence[str], start: date, end: date) -> pl.DataFrame:
    """Computes the features `names` for the bars of sessions `start` .. `end`, both included.

    bars: adjusted bars (symbol, ts, session and the inputs of the features; in any order, of any symbols) of that range
        and at least `warm_up(names)` rows of each symbol before it, as far as they exist. More change nothing. Rows
        after `end` are not read. Cross-sectional features compare the symbols that are in `bars` at the same `ts`.
    Returns symbol, ts, session and one float32 column per name, sorted by symbol and ts. NaN = not defined (each
        feature's docstring says when); there are no nulls and no infinities.
    Errors: UnknownNameError, InvalidDateRangeError, MissingColumnsError, WrongTypeError, DuplicateKeysError.
    """
    features = [get(name) for name in dict.fromkeys(names)]
    if start > end:
        raise InvalidDateRangeError(start, end, "the start lies after the end")
    inputs = tuple(dict.fromkeys(column for f in features for column in f.inputs))
    rows = _checked(bars, inputs).filter(pl.col(SESSION) <= end).sort(SYMBOL, TS)
    _refuse_duplicates(rows)
    spans = _Spans.of(rows, start, warm_up(names))
    keys = rows.select(_KEYS).filter(pl.col(SESSION) >= start)
    columns = _compute(features, rows, inputs, spans, keys)
    return keys.with_columns(pl.Series(f.name, columns[f.name], dtype=pl.Float32) for f in features)


def _checked(bars: pl.DataFrame, inputs: tuple[str, ...]) -> pl.DataFrame:
    """The needed columns, the inputs as float64 with NaN for null."""
    missing = [column for column in (*_KEYS, *inputs) if column not in bars.columns]
    if missing:
        raise MissingColumnsError("Bars", missing, bars.columns)
    for column in inputs:
        if not bars.schema[column].is_numeric():
            raise WrongTypeError("Bars", column, str(bars.schema[column]), "a number")
    if bars.schema[SESSION] != pl.Date:
        raise WrongTypeError("Bars", SESSION, str(bars.schema[SESSION]), "Date")
    return bars.select(*_KEYS, *(pl.col(column).cast(pl.Float64).fill_null(np.nan) for column in inputs))


def _refuse_duplicates(rows: pl.DataFrame) -> None:
    repeated = (pl.col(SYMBOL) == pl.col(SYMBOL).shift()) & (pl.col(TS) == pl.col(TS).shift())
    doubles = rows.filter(repeated)
    if len(doubles):
        sample = [f"{symbol} {ts}" for symbol, ts in doubles.select(SYMBOL, TS).head(3).iter_rows()]
        raise DuplicateKeysError("Bars", (SYMBOL, TS), len(doubles), sample)


@dataclass(frozen=True, slots=True)
class _Spans:
    """Where each symbol lies in the sorted rows: `count` rows from `first` on, the last `wanted` are asked for."""

    first: IntArray
    count: IntArray
    wanted: IntArray
    out: IntArray  # where the wanted rows begin in the result

    @classmethod
    def of(cls, rows: pl.DataFrame, start: date, warm_up_rows: int) -> _Spans:
        asked = (pl.col(SESSION) >= start).sum().alias("wanted")
        total = rows.group_by(SYMBOL, maintain_order=True).agg(pl.len(), asked)
        length, wanted = (total[c].to_numpy().astype(np.int64) for c in ("len", "wanted"))
        # Older rows than the warm-up cannot matter: a daily run may hand in years of history at no cost.
        count = np.minimum(length, wanted + warm_up_rows)
        return cls(np.cumsum(length) - count, count, wanted, np.cumsum(wanted) - wanted)

    def blocks(self) -> Iterator[tuple[IntArray, IntArray, BoolArray, BoolArray]]:
        """Symbols of similar length together: numbers; rows to read [S, R]; which are real; which are asked for."""
        order = np.argsort(self.count, kind="stable")[::-1]
        order = order[self.wanted[order] > 0]
        while len(order):
            width = int(self.count[order[0]])
            size = max(1, _CELLS_PER_BLOCK // width)
            members, order = order[:size], order[size:]
            position = np.arange(width)[None, :]
            count = self.count[members][:, None]
            real = position < count
            asked = real & (position >= count - self.wanted[members][:, None])
            yield members, self.first[members][:, None] + np.minimum(position, count - 1), real, asked


def _compute(
    features: Sequence[Feature], rows: pl.DataFrame, inputs: Sequence[str], spans: _Spans, keys: pl.DataFrame
) -> dict[str, Float32Array]:
    out = {f.name: np.empty(len(keys), dtype=np.float32) for f in features}
    own = {f.name: np.empty(len(keys)) for f in features if f.across}  # a symbol's value, before it is compared
    flat = {column: rows[column].to_numpy() for column in inputs}
    sessions = rows[SESSION].to_numpy().astype("datetime64[D]")
    with np.errstate(all="ignore"):  # what is not defined becomes NaN below
        for members, read, real, asked in spans.blocks():
            block = BarBlock(
                sessions=np.where(real, sessions[read], np.datetime64("NaT")),
                columns={column: np.where(real, data[read], np.nan) for column, data in flat.items()},
            )
            offset = np.cumsum(asked, axis=1) - 1 + spans.out[members][:, None]
            target = offset[asked]
            for f in features:
                (own if f.across else out)[f.name][target] = f.compute(block)[asked]
        group, order = _groups(keys)
        for f in features:
            if f.across is not None:
                out[f.name][order] = f.across(own[f.name][order], group)
    for column in out.values():
        column[~np.isfinite(column)] = np.nan
    return out


def _groups(keys: pl.DataFrame) -> tuple[IntArray, IntArray]:
    """The order of rows by (ts, symbol), and in that order the number of each row's `ts`."""
    stamp = keys[TS].to_physical().to_numpy()
    order = np.argsort(stamp, kind="stable")  # the rows came sorted by symbol
    return np.unique(stamp[order], return_inverse=True)[1].astype(np.int64), order
