"""The contenders that run in this environment, one per process: `python -m benchmarks.peers.contenders NAME PANEL RUNS`.

PANEL is a parquet file of bars, sorted by symbol and session, read before the clock starts. Each contender first computes
the bars of the first 20 symbols, untimed, so that imports, compiling and the starting of threads are not counted. Then it
computes the panel RUNS times, each result dropped before the next is made.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from benchmarks.processes import CORES, report

WARM_SYMBOLS = 20


@dataclass(frozen=True, slots=True)
class Job:
    """Work on one panel: `features` columns for each of its rows."""

    run: Callable[[], object]
    features: int


def ours(bars: pl.DataFrame) -> Job:
    """Every registered feature by `features.build`, two threads, float32."""
    from trading_core.features import build
    from trading_core.features.registry import FEATURES

    names = sorted(FEATURES)
    first, last = bars["session"].min(), bars["session"].max()
    return Job(lambda: build.build(bars, names, first, last, threads=CORES), len(names))


def polars_over(bars: pl.DataFrame) -> Job:
    """16 simple rolling features, each a plain expression `.over("symbol")`, all in one select; float64."""
    close, volume = pl.col("close"), pl.col("volume")
    log_ret = (close / close.shift(1)).log()
    simple = {
        "log_ret": log_ret,
        **{f"ret_{n}": close / close.shift(n) - 1 for n in (5, 21, 63)},
        **{f"sma_ratio_{n}": close / close.rolling_mean(n) - 1 for n in (5, 20, 50, 200)},
        **{f"vol_{n}": log_ret.rolling_std(n) for n in (20, 63)},
        **{f"high_{n}": close / pl.col("high").rolling_max(n) for n in (20, 252)},
        **{f"low_{n}": close / pl.col("low").rolling_min(n) for n in (20, 252)},
        "ema_ratio_20": close / close.ewm_mean(span=20, adjust=False) - 1,
        "volume_z_20": (volume - volume.rolling_mean(20)) / volume.rolling_std(20),
    }
    columns = [expression.over("symbol").alias(name) for name, expression in simple.items()]
    return Job(lambda: bars.select("symbol", "session", *columns), len(columns))


def pandas_groupby(bars: pl.DataFrame) -> Job:
    """A dozen of the same kind as pandas' groupby writes them, one thread; float64."""
    import numpy as np

    frame = bars.to_pandas()

    def run() -> list[object]:
        close, volume = frame.groupby("symbol")["close"], frame.groupby("symbol")["volume"]
        log_ret = np.log(frame["close"] / close.shift(1))
        by_symbol = log_ret.groupby(frame["symbol"])
        columns = [log_ret, *(frame["close"] / close.shift(n) - 1 for n in (1, 3, 7, 14, 21, 63))]
        columns += [by_symbol.transform(lambda x, n=n: x.rolling(n).std()) for n in (20, 63)]
        columns += [frame["close"] / close.transform(lambda x, n=n: x.rolling(n).mean()) - 1 for n in (20, 50)]
        columns += [volume.transform(lambda x: (x - x.rolling(20).mean()) / x.rolling(20).std())]
        return columns

    return Job(run, 12)


def talib_loop(bars: pl.DataFrame) -> Job:
    """12 TA-Lib functions per symbol in a plain loop over ready float64 arrays, one core; each
    symbol's results are dropped before the next: it shows how far away the limit is."""
    import numpy as np
    import talib

    fields = ("open", "high", "low", "close", "volume")
    ends = np.cumsum(bars.group_by("symbol", maintain_order=True).len()["len"].to_numpy())[:-1]
    columns = [np.split(bars[field].cast(pl.Float64).to_numpy(), ends) for field in fields]
    symbols = list(zip(*columns, strict=True))

    def run() -> tuple[object, ...]:
        made: tuple[object, ...] = ()
        for _, high, low, close, volume in symbols:
            made = (
                talib.SMA(close, 20),
                talib.EMA(close, 20),
                talib.RSI(close, 14),
                talib.ROC(close, 10),
                talib.STDDEV(close, 20),
                talib.LINEARREG_SLOPE(close, 14),
                talib.ATR(high, low, close, 14),
                talib.ADX(high, low, close, 14),
                talib.CCI(high, low, close, 20),
                talib.WILLR(high, low, close, 14),
                talib.MFI(high, low, close, volume, 14),
                talib.OBV(close, volume),
            )
        return made

    return Job(run, 12)


CONTENDERS: dict[str, Callable[[pl.DataFrame], Job]] = {
    "ours": ours,
    "polars": polars_over,
    "pandas": pandas_groupby,
    "talib": talib_loop,
}


def timed(run: Callable[[], object], runs: int) -> list[float]:
    """Seconds of each of `runs` calls; a result is dropped before the next call."""
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        result = run()
        seconds.append(time.perf_counter() - start)
        del result
    return seconds


def main() -> None:
    name, panel, runs = sys.argv[1], sys.argv[2], int(sys.argv[3])
    bars = pl.read_parquet(panel)
    few = bars["symbol"].unique().sort()[:WARM_SYMBOLS].to_list()
    CONTENDERS[name](bars.filter(pl.col("symbol").is_in(few))).run()
    job = CONTENDERS[name](bars)
    report(rows=len(bars), features=job.features, seconds=timed(job.run, runs))


if __name__ == "__main__":
    main()
