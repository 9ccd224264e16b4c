"""Bars on which indicators are compared with answers from outside: random walks, and real symbols of the shared panel."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from trading_core.features.build import build

INPUTS = ("open", "high", "low", "close", "volume")
# Large and small prices, rising and falling ones, one that rose by half in a day (AMD).
SYMBOLS = ("AAPL", "AMD", "AMZN", "BAC", "CMG", "GE", "JNJ", "KO", "NFLX", "NVDA", "PG", "XOM")
# Leaps that are errors of the panel (distributions not adjusted for, one-bar spikes) or nearly a bankruptcy (CHK).
WILD = ("CHK", "EBAY", "FLR", "LNT", "NI")
SETTLED = 700  # rows after which every recursion of the library has forgotten its seed to 1e-10


def bars_of(symbol: str, columns: dict[str, np.ndarray]) -> pl.DataFrame:
    """Daily bars from arrays; what is not given is the close, and a volume of 1000."""
    close = np.asarray(columns["close"], dtype=np.float64)
    stamps = [datetime(2013, 1, 1, 21) + timedelta(days=i) for i in range(len(close))]
    filled = {name: columns.get(name, np.full(len(close), 1000.0) if name == "volume" else close) for name in INPUTS}
    frame = pl.DataFrame({"symbol": [symbol] * len(close), "ts": stamps, **filled})
    return frame.with_columns(pl.col("ts").dt.replace_time_zone("UTC"), session=pl.col("ts").dt.date())


def walk(seed: int, rows: int = 1200) -> pl.DataFrame:
    """A random walk with gaps, ranges and lognormal volume."""
    r = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(r.normal(0.0003, 0.015, rows)))
    opening = np.concatenate(([100.0], close[:-1])) * np.exp(r.normal(0.0, 0.004, rows))
    columns = {
        "open": opening,
        "high": np.maximum(opening, close) * np.exp(np.abs(r.normal(0.0, 0.004, rows))),
        "low": np.minimum(opening, close) * np.exp(-np.abs(r.normal(0.0, 0.004, rows))),
        "close": close,
        "volume": np.round(np.exp(r.normal(12.0, 0.4, rows))),
    }
    return bars_of("WALK", columns)


def real_bars(path: Path, symbols: tuple[str, ...] = SYMBOLS) -> pl.DataFrame:
    """The bars of `symbols` in the shared panel."""
    rows = pl.read_parquet(path).filter(pl.col("symbol").is_in(symbols)).sort("symbol", "date")
    ts = pl.col("date").dt.offset_by("21h").dt.replace_time_zone("UTC")
    return rows.with_columns(ts=ts, session=pl.col("date").dt.date()).drop("date")


def built(bars: pl.DataFrame, names: list[str]) -> dict[str, np.ndarray]:
    """Each feature of one symbol's bars, as an array."""
    frame = build(bars, names, bars["session"].min(), bars["session"].max())
    return {name: frame[name].to_numpy() for name in names}


def columns_of(bars: pl.DataFrame) -> dict[str, np.ndarray]:
    """INPUTS as float64 arrays."""
    return {name: bars[name].cast(pl.Float64).to_numpy() for name in INPUTS}


def leading_nans(values: np.ndarray) -> int:
    """How many rows pass before the first value."""
    return int(np.flatnonzero(~np.isnan(values))[0])
