"""The bars that the feature benchmarks run on: a seeded random walk of any size, and the shared real panel."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from itertools import groupby
from pathlib import Path

import numpy as np
import polars as pl

from trading_core.market.registry import source_entry
from trading_core.schema import SESSION, SYMBOL, TS, UTC_TS
from trading_core.sessions import Sessions

REAL = Path(__file__).resolve().parents[2] / "shared" / "market" / "sp500_2013_2018.parquet"
CALENDAR = "XNYS"
LAST = date(2025, 12, 31)
SEED = 7


def sessions(count: int) -> list[date]:
    """The last `count` New York sessions up to the end of 2025."""
    return Sessions(CALENDAR).between(date(LAST.year - 1 - count // 250, 1, 1), LAST)[-count:]


def random_walk_months(symbols: int, days: list[date], seed: int = SEED) -> Iterator[tuple[str, pl.DataFrame]]:
    """Bars of `symbols` symbols on every one of `days`, month by month: ("YYYY-MM", frame sorted by symbol and session).

    Geometric random walk: overnight moves of 0.7 % and moves in the session of 1.4 % (standard deviations), log-normal
    volume. Columns as in adjusted bars: symbol, ts, session, sector (one of 11), open, high, low, close, volume.
    """
    log_close = np.log(np.random.default_rng([seed, 0]).uniform(10, 300, symbols))
    names = np.array([f"S{number:05d}" for number in range(symbols)])
    sectors = np.array([f"sector {number % 11}" for number in range(symbols)])
    closes = dict(zip(days, Sessions(CALENDAR).closes(days), strict=True))
    for number, (month, group) in enumerate(groupby(days, key=lambda day: f"{day:%Y-%m}"), start=1):
        dates = list(group)
        shape = (symbols, len(dates))
        rng = np.random.default_rng([seed, number])
        gap, move = rng.normal(0, 0.007, shape), rng.normal(0, 0.014, shape)
        close = log_close[:, None] + np.cumsum(gap + move, axis=1)
        open_ = close - move
        high = np.maximum(open_, close) + np.abs(rng.normal(0, 0.004, shape))
        low = np.minimum(open_, close) - np.abs(rng.normal(0, 0.004, shape))
        log_close = close[:, -1]
        prices = {"open": open_, "high": high, "low": low, "close": close, "volume": rng.normal(13, 0.6, shape)}
        keys = {
            SYMBOL: np.repeat(names, len(dates)),
            TS: pl.Series([closes[day] for day in dates] * symbols, dtype=UTC_TS),
            SESSION: pl.Series(dates * symbols, dtype=pl.Date),
            "sector": np.repeat(sectors, len(dates)),
        }
        yield month, pl.DataFrame({**keys, **{name: np.exp(values).ravel() for name, values in prices.items()}})


def random_walk(symbols: int, count: int, seed: int = SEED) -> pl.DataFrame:
    """`random_walk_months` in one frame, sorted by symbol and session."""
    return pl.concat([frame for _, frame in random_walk_months(symbols, sessions(count), seed)]).sort(SYMBOL, SESSION)


def real_panel() -> pl.DataFrame | None:
    """The shared real panel (505 US stocks, 2013-02-08 to 2018-02-07) as its source reads it; None when it is absent."""
    if not REAL.is_file():
        return None
    entry = source_entry("parquet")
    source = entry.build(entry.options(path=str(REAL)), CALENDAR)
    fetched = source.fetch(source.symbols(), date(2013, 2, 8), date(2018, 2, 7), datetime(2026, 1, 5, tzinfo=UTC))
    return fetched.bars.sort(SYMBOL, SESSION)
