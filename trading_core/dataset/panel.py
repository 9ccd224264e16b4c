"""The panel: features and prices of a market as dense arrays, symbols by sessions.

S symbols, T sessions, F features. Column t of every array is session `sessions[t]` of the *market* (the union of the
sessions in the bars), so "the next column" is the next session even for a symbol that did not trade.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from trading_core.errors import DuplicateKeysError, EmptyUniverseError, MissingColumnsError
from trading_core.schema import SESSION, SYMBOL, BoolArray, DateArray, Float32Array, FloatArray, IntArray

VOLATILITY_SESSIONS = 20  # returns in the trailing volatility
VOLATILITY_FLOOR = 1e-4  # 1 bps a day: a halted or pegged price must not blow up the scaled label


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """Dense arrays of one market. NaN is "missing" in every float array, also where the symbol has no bar.

    symbols:  S names, sorted.
    sessions: [T] datetime64[D], ascending: every session that any symbol has a bar of.
    features: F names, in the order of the last axis of `values`.
    values:   [S, T, F] float32, as known at the close of the session.
    opens, closes: [S, T] float64, forward adjusted for splits and dividends.
    sigma:    [S, T] float64, daily volatility of log returns known at the session's close (see `trailing_volatility`).
    sector:   [S] int64, 0 = unknown, k = `sector_names[k - 1]`.
    market:   the market's id, for error messages.
    breaks:   [S, T], True where the level is suspected to change for no reason of the market; no label spans it. None: none.
    """

    symbols: tuple[str, ...]
    sessions: DateArray
    features: tuple[str, ...]
    values: Float32Array
    opens: FloatArray
    closes: FloatArray
    sigma: FloatArray
    sector: IntArray
    sector_names: tuple[str, ...] = ()
    market: str = "panel"
    breaks: BoolArray | None = None

    @property
    def present(self) -> BoolArray:
        """[S, T]: the symbol has a bar on the session and at least one of its features is known."""
        return np.isfinite(self.closes) & np.isfinite(self.values).any(axis=2)

    def column_of(self, session: object) -> int:
        """The column of a session (date or datetime64), or -1 when the panel does not hold it."""
        day = np.datetime64(session, "D")  # type: ignore[call-overload]
        at = int(np.searchsorted(self.sessions, day))
        return at if at < len(self.sessions) and self.sessions[at] == day else -1

    def places(self, rows: pl.DataFrame) -> tuple[IntArray, IntArray]:
        """[N] symbol row and session column of each row (symbol, session), all of which the panel must hold."""
        place = {name: index for index, name in enumerate(self.symbols)}
        symbol = np.array([place[name] for name in rows[SYMBOL].to_list()], dtype=np.int64)
        days = rows[SESSION].to_numpy().astype("datetime64[D]")
        return symbol, np.searchsorted(self.sessions, days).astype(np.int64)

    @classmethod
    def from_frames(
        cls,
        features: pl.DataFrame,
        bars: pl.DataFrame,
        instruments: pl.DataFrame | None,
        names: Sequence[str],
        market: str = "panel",
        breaks: pl.DataFrame | None = None,
    ) -> Panel:
        """Scatter long tables into arrays.

        features: symbol, session and the columns `names`; rows without a bar are ignored.
        bars: symbol, session, open, close - *adjusted* prices; prices that are not positive count as missing.
        instruments: symbol, sector (others are ignored), or None when nothing is known of sectors.
        breaks: symbol, session; those that the panel does not hold are ignored.
        Errors: MissingColumnsError, DuplicateKeysError, EmptyUniverseError (no bars).
        """
        _require(features, "The features of the panel", (SYMBOL, SESSION, *names))
        _require(bars, "The bars of the panel", (SYMBOL, SESSION, "open", "close"))
        if bars.is_empty():
            raise EmptyUniverseError(market, "the bars hold no rows")
        symbols = tuple(bars[SYMBOL].unique().sort().to_list())
        sessions = bars[SESSION].unique().sort().to_numpy().astype("datetime64[D]")
        at = _positions(bars, symbols, sessions, "The bars of the panel")
        shape = (len(symbols), len(sessions))
        opens, closes = (_prices(bars, column, at, shape) for column in ("open", "close"))
        values = _scatter_features(features, names, symbols, sessions, np.isfinite(closes))
        sector, sector_names = _sectors(instruments, symbols)
        sigma = trailing_volatility(closes)
        broken = None if breaks is None else marked(breaks, symbols, sessions)
        return cls(symbols, sessions, tuple(names), values, opens, closes, sigma, sector, sector_names, market, broken)


def trailing_volatility(closes: FloatArray, sessions: int = VOLATILITY_SESSIONS) -> FloatArray:
    """[S, T] standard deviation (ddof 1) of the symbol's last `sessions` log close-to-close returns, up to and with t.

    The returns run over the symbol's own bars, so a gap is one longer return. NaN until `sessions` returns exist and
    where the symbol has no bar; never below VOLATILITY_FLOOR. Row t reads columns <= t only, and its bits do not
    depend on how much history stands before its window.
    """
    sigma = np.full(closes.shape, np.nan)
    for row, out in zip(closes, sigma, strict=True):
        own = np.flatnonzero(np.isfinite(row))
        count = len(own) - sessions
        if count <= 0:
            continue
        returns = np.diff(np.log(row[own]))
        # Summed lag by lag, not by a running sum: a running sum would carry the rounding of all history into row t.
        lags = [returns[k : k + count] for k in range(sessions)]
        mean = sum(lags, np.zeros(count)) / sessions
        variance = sum(((lag - mean) ** 2 for lag in lags), np.zeros(count)) / (sessions - 1)
        out[own[sessions:]] = np.maximum(np.sqrt(variance), VOLATILITY_FLOOR)
    return sigma


def _require(frame: pl.DataFrame, where: str, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise MissingColumnsError(where, missing, frame.columns)


def _positions(frame: pl.DataFrame, symbols: tuple[str, ...], sessions: DateArray, where: str) -> IntArray:
    """The flat position s * T + t of each row; -1 for a symbol or session that is not in the panel."""
    codes = frame[SYMBOL].cast(pl.Enum(symbols), strict=False).to_physical().cast(pl.Int64).fill_null(-1).to_numpy()
    days = frame[SESSION].to_numpy().astype("datetime64[D]")
    columns = np.searchsorted(sessions, days)
    known = (codes >= 0) & (columns < len(sessions))
    known &= sessions[np.minimum(columns, len(sessions) - 1)] == days
    at = np.where(known, codes * len(sessions) + columns, -1)
    times = np.bincount(at[known], minlength=1)
    if times.max(initial=0) > 1:
        twice = np.flatnonzero(times > 1)
        sample = [f"{symbols[p // len(sessions)]} {sessions[p % len(sessions)]}" for p in twice[:3]]
        raise DuplicateKeysError(where, (SYMBOL, SESSION), len(twice), sample)
    return at


def marked(rows: pl.DataFrame, symbols: tuple[str, ...], sessions: DateArray) -> BoolArray:
    """[S, T]: True at the given rows. One of a session that nobody traded marks the next session."""
    marked = np.zeros((len(symbols), len(sessions)), dtype=np.bool_)
    place = {symbol: index for index, symbol in enumerate(symbols)}
    for symbol, session in rows.select(SYMBOL, SESSION).iter_rows():
        column = int(np.searchsorted(sessions, np.datetime64(session, "D")))
        if symbol in place and column < len(sessions) and np.datetime64(session, "D") >= sessions[0]:
            marked[place[symbol], column] = True
    return marked


def _prices(bars: pl.DataFrame, column: str, at: IntArray, shape: tuple[int, int]) -> FloatArray:
    out = np.full(shape[0] * shape[1], np.nan)
    out[at] = bars[column].cast(pl.Float64).to_numpy()
    out[~(np.isfinite(out) & (out > 0.0))] = np.nan
    return out.reshape(shape)


def _scatter_features(
    features: pl.DataFrame, names: Sequence[str], symbols: tuple[str, ...], sessions: DateArray, has_bar: BoolArray
) -> Float32Array:
    at = _positions(features, symbols, sessions, "The features of the panel")
    rows = np.flatnonzero(at >= 0)
    rows = rows[has_bar.ravel()[at[rows]]]
    values = np.full((has_bar.size, len(names)), np.nan, dtype=np.float32)
    if names:  # a panel of prices alone has no block to scatter
        block = features.select(pl.col(name).cast(pl.Float32) for name in names).to_numpy(order="c")
        values[at[rows]] = block[rows]
    values[~np.isfinite(values)] = np.nan
    return values.reshape(*has_bar.shape, len(names))


def _sectors(instruments: pl.DataFrame | None, symbols: tuple[str, ...]) -> tuple[IntArray, tuple[str, ...]]:
    if instruments is None or instruments.is_empty():
        return np.zeros(len(symbols), dtype=np.int64), ()
    _require(instruments, "The instruments of the panel", (SYMBOL, "sector"))
    listed = instruments.filter(pl.col("sector").is_not_null() & (pl.col("sector") != ""))
    by_symbol = dict(zip(listed[SYMBOL].to_list(), listed["sector"].to_list(), strict=True))
    sectors = [by_symbol.get(symbol) for symbol in symbols]
    names = tuple(sorted({sector for sector in sectors if sector is not None}))
    code = {name: index for index, name in enumerate(names, start=1)}
    return np.array([0 if sector is None else code[sector] for sector in sectors], dtype=np.int64), names
