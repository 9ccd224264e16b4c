"""Feature values per second and memory, this program beside its peers in one run: `python -m benchmarks features`.

    --only peers|session|stream    one part of it
    --panel walk|real              peers: one of the two panels

peers: all our features, Qlib's Alpha158, polars `over("symbol")`, pandas groupby and a TA-Lib loop on the same bars and the
same two cores. session: one new session for 500 symbols. stream: 25 years of up to 5,000 symbols by ranges of 750 sessions.
Every contender runs in a process of its own. Seconds are the best of three after an untimed warm-up (imports, compiling,
starting threads); peak memory is read in a further run, so that reading it does not slow the timed ones. The bars lie in
memory for all but Qlib, which has no other way than to read them from its own files (in the page cache by then).
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from benchmarks import panels, processes, streaming
from benchmarks.peers import environment, qlib_store

SYMBOLS, SESSIONS = 500, 2_520
RUNS = 3
STREAM_SYMBOLS, STREAM_SESSIONS = (1_250, 2_500, 5_000), 6_300
# The goals.
MIN_TIMES_QLIB = 10.0
MAX_PEERS_MIB, MAX_STREAM_MIB = 3 * 1024, 8 * 1024
MAX_SESSION_S = 1.0
MAX_COST_GROWTH = 1.25  # linear in rows, and room for a busy machine: each size is streamed once
MAX_BUSY_CORES = 0.25  # before the start; more, and the figures say little
LABELS = {
    "ours": "trading_core, every feature, 2 threads",
    "qlib": "Qlib 0.9.7 Alpha158, 2 workers, no cache",
    "polars": 'polars over("symbol"), simple rolling, 2 threads',
    "pandas": "pandas groupby, simple rolling, 1 core",
    "talib": "TA-Lib loop, results dropped, 1 core",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One contender on one panel. `seconds`: the best run."""

    name: str
    rows: int
    features: int
    seconds: float
    peak_mib: float

    @property
    def rate(self) -> float:
        """Values (rows x features) per second."""
        return self.rows * self.features / self.seconds


def times(ours: Row, other: Row) -> float:
    """How many times the other's values per second ours are."""
    return ours.rate / other.rate


def table(rows: Sequence[Row]) -> Iterator[str]:
    """The lines of the table; the first row is ours."""
    yield f"{'':<50}{'features':>9}{'seconds':>9}{'million values/s':>18}{'ours / theirs':>15}{'peak MiB':>10}"
    for row in rows:
        yield (
            f"{LABELS[row.name]:<50}{row.features:>9}{row.seconds:>9.2f}{row.rate / 1e6:>18.1f}"
            f"{times(rows[0], row):>15.2f}{row.peak_mib:>10,.0f}"
        )


def goal(what: str, value: float, limit: float, *, at_least: bool = False) -> str:
    """One line that says whether a goal was met."""
    met = value >= limit if at_least else value <= limit
    return (
        f"goal {'met' if met else 'MISSED'}: {what} {value:,.2f} ({'at least' if at_least else 'at most'} {limit:,g})"
    )


# --- the peers --------------------------------------------------------------------------------------------------------


def peers(choice: str | None) -> None:
    """Prints a table per panel."""
    walk = f"seeded random walk, {SYMBOLS} symbols x {SESSIONS:,} sessions"
    sets = {"walk": (walk, lambda: panels.random_walk(SYMBOLS, SESSIONS)), "real": ("real panel", panels.real_panel)}
    python = environment.peer_python("qlib")
    for name, (label, load) in sets.items():
        if choice not in (None, name):
            continue
        bars = load()
        if bars is None:
            print(f"{label}: absent on this machine")
            continue
        print(f"\n{label}: {len(bars):,} rows; best of {RUNS} after a warm-up; peak memory (PSS) in a run of its own")
        with tempfile.TemporaryDirectory(prefix="trading-bench-") as folder:
            rows = _measure_all(bars, python, Path(folder))
        print("\n".join(table(rows)))
        print(
            "Qlib reads the bars from its own files; the vwap that one of its features needs is (high + low + close) / 3."
        )
        print(goal("ours / Qlib", times(rows[0], rows[1]), MIN_TIMES_QLIB, at_least=True))
        print(goal("our peak MiB", rows[0].peak_mib, MAX_PEERS_MIB))


def _measure_all(bars: pl.DataFrame, python: Path, folder: Path) -> list[Row]:
    panel, store = folder / "panel.parquet", folder / "qlib"
    bars.write_parquet(panel)
    qlib_store.write_store(bars, store)
    rows = []
    for name in LABELS:
        print(f"... {LABELS[name]}", file=sys.stderr, flush=True)
        if name == "qlib":
            command, threads = [str(python), "benchmarks/qlib_alpha158.py", str(store)], 1  # threads of each worker
        else:
            command, threads = [sys.executable, "-m", "benchmarks.peers.contenders", name, str(panel)], processes.CORES
        timed = processes.run([*command, str(RUNS)], library_threads=threads).result
        watched = processes.run([*command, "1"], watch_every_s=0.1, library_threads=threads)
        if name == "qlib":
            check_qlib(bars, timed["rows"], timed["probe"])
        # Where a symbol has no bar, Qlib returns a row of NaN: only the bars count.
        rows.append(Row(name, len(bars), timed["features"], min(timed["seconds"]), watched.peak_mib))
    return rows


def check_qlib(bars: pl.DataFrame, rows: int, probe: float) -> None:
    """Exits unless Qlib computed all bars, and the right ones: `probe` is (close - open) / open of the last row."""
    last = bars.sort("symbol", "session").row(-1, named=True)
    expected = (last["close"] - last["open"]) / last["open"]
    if rows < len(bars) or not math.isclose(probe, expected, rel_tol=1e-3, abs_tol=1e-6):
        raise SystemExit(f"Qlib computed {rows:,} of {len(bars):,} rows; its last KMID is {probe}, expected {expected}")


# --- one session, and streams -----------------------------------------------------------------------------------------


def session() -> None:
    """Prints the seconds of one new session."""
    with tempfile.TemporaryDirectory(prefix="trading-bench-") as folder:
        panel = Path(folder) / "panel.parquet"
        panels.random_walk(SYMBOLS, SESSIONS).write_parquet(panel)
        made = processes.run([sys.executable, "-m", "benchmarks.one_session", str(panel)]).result
    print(f"\none new session, {made['symbols']} symbols, {made['features']} features; best of {RUNS}")
    print(f"{made['history']:.3f} s with {SESSIONS:,} sessions in memory")
    print(f"{made['tail']:.3f} s with the {made['needed']:,} sessions that its features need")
    print(f"{made['cold']:.3f} s at the first call of a process (loads or compiles the kernels)")
    print(goal("seconds for one session", max(made["history"], made["tail"]), MAX_SESSION_S))


def stream() -> None:
    """Prints seconds per million rows and peak memory of long histories, for growing numbers of symbols."""
    print(
        f"\nstreaming {STREAM_SESSIONS:,} sessions by ranges of {streaming.RANGE}: random-walk bars in monthly parquet files,"
        "\nfeatures to one parquet file per range (snappy), deleted once written; memory read every half second"
    )
    print(
        f"{'symbols':>8}{'rows':>14}{'read s':>8}{'build s':>9}{'write s':>9}{'s / million rows':>18}{'GiB':>7}{'peak MiB':>10}"
    )
    costs = []
    for symbols in STREAM_SYMBOLS:
        with tempfile.TemporaryDirectory(prefix="trading-bench-") as folder:
            streaming.write_bars(Path(folder), symbols, STREAM_SESSIONS)
            command = [sys.executable, "-m", "benchmarks.streaming", folder, str(STREAM_SESSIONS)]
            done = processes.run(command, watch_every_s=0.5)
        r = done.result
        cost = (r["read_s"] + r["build_s"] + r["write_s"]) / r["rows"] * 1e6
        print(
            f"{symbols:>8,}{r['rows']:>14,}{r['read_s']:>8.1f}{r['build_s']:>9.1f}{r['write_s']:>9.1f}{cost:>18.2f}"
            f"{r['written_gib']:>7.1f}{done.peak_mib:>10,.0f}",
            flush=True,
        )
        costs.append(cost)
    print(goal(f"peak MiB with {symbols:,} symbols", done.peak_mib, MAX_STREAM_MIB))
    print(
        goal(f"seconds per row, {symbols:,} symbols over {STREAM_SYMBOLS[0]:,}", costs[-1] / costs[0], MAX_COST_GROWTH)
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks features")
    parser.add_argument("--only", choices=("peers", "session", "stream"))
    parser.add_argument("--panel", choices=("walk", "real"))
    chosen = parser.parse_args()
    cores = processes.on_two_cores()
    busy = processes.busy_cores()
    print(f"{cores} cores, Python {sys.version.split()[0]}; {busy:.1f} cores busy with other work before the start")
    if busy > MAX_BUSY_CORES:
        print("WARNING: others are computing on this machine: these figures are not to be quoted")
    parts = {"peers": lambda: peers(chosen.panel), "session": session, "stream": stream}
    for name, part in parts.items():
        if chosen.only in (None, name):
            part()


if __name__ == "__main__":
    main()
