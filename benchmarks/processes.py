"""A command in a process of its own on two cores, with the peak memory of everything it starts.

Memory is the proportional set size (PSS): shared pages are counted once, however many workers share them. It is read from
/proc (Linux only). Reading it walks the page tables of all watched processes: what is timed is watched rarely or not at all.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CORES = 2
MARK = "TRADING_BENCHMARK_CHILD"
RESULT = "RESULT "  # the line by which a command hands its numbers back: this word and one JSON object


@dataclass(frozen=True, slots=True)
class Finished:
    """What a command left. `peak_mib`: 0 when it was not watched."""

    result: dict[str, Any]
    peak_mib: float


def report(**numbers: Any) -> None:
    """Hands numbers to the process that called `run`."""
    print(RESULT + json.dumps(numbers), flush=True)


def on_two_cores() -> int:
    """Keeps this process and its children on two of the cores it may use; returns how many they are."""
    allowed = sorted(os.sched_getaffinity(0))[:CORES]
    os.sched_setaffinity(0, allowed)
    return len(allowed)


def busy_cores() -> float:
    """How many of this process's cores others keep busy, over one second."""

    def idle_ticks() -> int:  # /proc/stat: "cpuN user nice system idle iowait ..."
        lines = [line.split() for line in Path("/proc/stat").read_text().splitlines() if line.startswith("cpu")]
        return sum(int(line[4]) + int(line[5]) for line in lines if line[0] in mine)

    mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    before, start = idle_ticks(), time.monotonic()
    time.sleep(1)
    idle = (idle_ticks() - before) / os.sysconf("SC_CLK_TCK") / (time.monotonic() - start)
    return max(0.0, len(mine) - idle)


def run(command: list[str], *, watch_every_s: float = 0.0, library_threads: int = CORES) -> Finished:
    """Runs `command` in the repository's root and returns its RESULT line; exits with its output when it fails.

    `watch_every_s`: seconds between two readings of its memory, 0 for none. `library_threads`: threads of polars, numba
    and BLAS in each of its processes.
    """
    mark = f"{MARK}={os.getpid()}"
    counts = ("POLARS_MAX_THREADS", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    environment = {**os.environ, MARK: str(os.getpid()), **dict.fromkeys(counts, str(library_threads))}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    peak, done = [0.0], threading.Event()
    watcher = threading.Thread(target=_watch, args=(peak, done, f"{mark}\0".encode(), watch_every_s), daemon=True)
    if watch_every_s:
        watcher.start()
    output = process.communicate()[0]
    done.set()
    if watch_every_s:
        watcher.join()
    lines = [line for line in output.splitlines() if line.startswith(RESULT)]
    if process.returncode or not lines:
        raise SystemExit(f"{' '.join(command)} failed with exit code {process.returncode}:\n{output[-4000:]}")
    return Finished(json.loads(lines[-1].removeprefix(RESULT)), peak[0])


def _watch(peak: list[float], done: threading.Event, mark: bytes, every_s: float) -> None:
    while not done.wait(every_s):
        peak[0] = max(peak[0], sum(_pss_mib(entry, mark) for entry in Path("/proc").glob("[0-9]*")))


def _pss_mib(entry: Path, mark: bytes) -> float:
    """PSS of one process in MiB; 0 for one without the mark in its environment, or that has ended meanwhile."""
    try:
        if mark not in (entry / "environ").read_bytes():
            return 0.0
        for line in (entry / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0
