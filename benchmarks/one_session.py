"""Seconds for one new session of all symbols: `python -m benchmarks.one_session PANEL`, a process of its own."""

from __future__ import annotations

import sys
import time

import polars as pl

from benchmarks.peers.contenders import timed
from benchmarks.processes import CORES, report
from trading_core.features import build
from trading_core.features.registry import FEATURES

RUNS = 3


def main() -> None:
    """The last session of PANEL, once with all history in the frame, once with only the rows that are needed for it."""
    bars = pl.read_parquet(sys.argv[1])
    names = sorted(FEATURES)
    last = bars["session"].max()
    needed = bars["session"].unique().sort()[-build.warm_up(names) - 1 :]
    tail = bars.filter(pl.col("session") >= needed[0])
    begun = time.perf_counter()
    made = build.build(tail, names, last, last, threads=CORES)
    cold = time.perf_counter() - begun
    report(
        symbols=len(made),
        features=len(names),
        needed=len(needed),
        cold=cold,
        tail=min(timed(lambda: build.build(tail, names, last, last, threads=CORES), RUNS)),
        history=min(timed(lambda: build.build(bars, names, last, last, threads=CORES), RUNS)),
    )


if __name__ == "__main__":
    main()
