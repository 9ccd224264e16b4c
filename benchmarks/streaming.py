"""Features of long histories by date ranges, from disk to disk: `python -m benchmarks.streaming FOLDER SESSIONS`.

FOLDER/bars holds one parquet file per month ("YYYY-MM.parquet"). Each range of 750 sessions (the platform's default for one
feature task) reads its bars and the warm-up before them, builds every feature and writes one parquet file, which is deleted
once it is complete: 25 years of 5,000 symbols would fill more disk than a laptop spares.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl

from benchmarks import panels
from benchmarks.processes import CORES, report
from trading_core.features import build
from trading_core.features.registry import FEATURES

RANGE = 750  # sessions


@dataclass(slots=True)
class Clock:
    """Where the time went, in seconds, and what was made."""

    read_s: float = 0.0
    build_s: float = 0.0
    write_s: float = 0.0
    rows: int = 0
    written_bytes: int = 0


def write_bars(folder: Path, symbols: int, count: int) -> None:
    """The input: a seeded random walk of `symbols` symbols over the last `count` sessions, a file per month."""
    (folder / "bars").mkdir()
    for month, frame in panels.random_walk_months(symbols, panels.sessions(count)):
        frame.write_parquet(folder / "bars" / f"{month}.parquet", compression="snappy")


def read_bars(folder: Path, start: date, end: date) -> pl.DataFrame:
    """The bars of sessions `start` .. `end` from the files of their months."""
    files = [path for path in sorted((folder / "bars").iterdir()) if f"{start:%Y-%m}" <= path.stem <= f"{end:%Y-%m}"]
    return pl.scan_parquet(files).filter(pl.col("session").is_between(start, end)).collect()


def stream(folder: Path, days: list[date], names: list[str]) -> Clock:
    """Builds `names` for `days`, a range at a time."""
    clock = Clock()
    warm_up = build.warm_up(names)
    for begin in range(0, len(days), RANGE):
        first, last = days[begin], days[min(begin + RANGE, len(days)) - 1]
        marks = [time.perf_counter()]
        bars = read_bars(folder, days[max(0, begin - warm_up)], last)
        marks.append(time.perf_counter())
        features = build.build(bars, names, first, last, threads=CORES)
        marks.append(time.perf_counter())
        target = folder / "features.parquet"
        features.write_parquet(target, compression="snappy")
        clock.rows += len(features)
        clock.written_bytes += target.stat().st_size
        target.unlink()
        marks.append(time.perf_counter())
        clock.read_s += marks[1] - marks[0]
        clock.build_s += marks[2] - marks[1]
        clock.write_s += marks[3] - marks[2]
        del bars, features  # before the next range is read
    return clock


def main() -> None:
    folder, count = Path(sys.argv[1]), int(sys.argv[2])
    names = sorted(FEATURES)
    days = panels.sessions(count)
    small = panels.random_walk(20, build.warm_up(names) + 1)
    build.build(small, names, small["session"].min(), small["session"].max(), threads=CORES)  # compiles, untimed
    clock = stream(folder, days, names)
    report(
        features=len(names),
        rows=clock.rows,
        read_s=clock.read_s,
        build_s=clock.build_s,
        write_s=clock.write_s,
        written_gib=clock.written_bytes / 2**30,
    )


if __name__ == "__main__":
    main()
