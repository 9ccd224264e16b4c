"""Feature values per second: this registry beside pandas' groupby on the same bars, in one run. Issue B adds more peers."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl

from trading_core.features import build
from trading_core.features.registry import FEATURES
from trading_core.market.registry import source_entry

PANEL = Path(__file__).resolve().parents[2] / "shared" / "market" / "sp500_2013_2018.parquet"


def bars() -> tuple[str, pl.DataFrame]:
    """The shared real panel, or a simulated one of the same size."""
    now = datetime(2026, 1, 5, tzinfo=UTC)
    if PANEL.is_file():
        entry = source_entry("parquet")
        source = entry.build(entry.options(path=str(PANEL)), "XNYS")
        span = (date(2013, 2, 8), date(2018, 2, 7))
    else:
        entry = source_entry("simulated")
        source = entry.build(entry.options(symbols=505, start=date(2020, 1, 2)), "XNYS")
        span = (date(2020, 1, 2), date(2024, 12, 31))
    return source.name, source.fetch(source.symbols(), *span, now).bars


def _pandas(frame: pd.DataFrame) -> int:
    """A dozen of our rolling features, as pandas writes them; returns how many."""
    close, volume = frame.groupby("symbol")["close"], frame.groupby("symbol")["volume"]
    log_ret = np.log(frame["close"] / close.shift(1))
    grouped = log_ret.groupby(frame["symbol"])
    columns = [log_ret, *(frame["close"] / close.shift(n) - 1 for n in (1, 3, 7, 14, 21, 63))]
    columns += [grouped.transform(lambda x: x.rolling(20).std()), grouped.transform(lambda x: x.rolling(63).std())]
    columns += [frame["close"] / close.transform(lambda x, n=n: x.rolling(n).mean()) - 1 for n in (20, 50)]
    columns += [volume.transform(lambda x: (x - x.rolling(20).mean()) / x.rolling(20).std())]
    return len(columns)


def _best(function: Callable[[], object], runs: int = 3) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    name, frame = bars()
    names = sorted(FEATURES)
    first, last = frame["session"].min(), frame["session"].max()
    ours = _best(lambda: build.build(frame, names, first, last)) / (len(frame) * len(names))
    pandas_frame = frame.sort("symbol", "session").to_pandas()
    count = _pandas(pandas_frame)
    theirs = _best(lambda: _pandas(pandas_frame)) / (len(frame) * count)
    print(f"{name}: {frame['symbol'].n_unique()} symbols, {len(frame)} rows")
    print(
        f"trading_core, {len(names)} features (recursive and cross-sectional among them): {1e-6 / ours:.1f} million values/s"
    )
    print(f"pandas groupby, {count} simple features: {1e-6 / theirs:.1f} million values/s")
    print(f"ratio {theirs / ours:.1f}")


if __name__ == "__main__":
    main()
