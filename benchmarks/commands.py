"""Time and peak memory of the README's commands, each in a fresh clone of this checkout (its last commit).

Memory is the proportional set size (PSS) of the command and everything it started, summed three times a second from /proc: what
the machine really has to hold, with shared pages counted once. Linux only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"  # not part of the repository: commands and tests that need it find it beside the clone
PANEL = Path("..", "shared", "market", "sp500_2013_2018.parquet")
MARK = "TRADING_BENCHMARK"


@dataclass(frozen=True, slots=True)
class Measured:
    name: str
    seconds: float
    peak_mib: float
    code: int
    where: str  # the command's own account of where the time went


def main() -> None:
    """Prints one row per command; exits with 1 when one of them failed."""
    with tempfile.TemporaryDirectory(prefix="trading-bench-") as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        if SHARED.is_dir():
            (Path(folder) / "shared").symlink_to(SHARED)
        commands = [
            ("make run (fresh clone, warm package cache)", ["make", "run"]),
            ("make run (again)", ["make", "run"]),
        ]
        if (clone / PANEL).is_file():
            commands.append(("make run MARKET=sp500_2013_2018.parquet", ["make", "run", f"MARKET={PANEL}"]))
        if "--with-tests" in sys.argv:
            commands.append(("make test", ["make", "test"]))
        rows = [measure(name, command, clone) for name, command in commands]
    print(f"\n{os.cpu_count()} cores, Python {sys.version.split()[0]}")
    print(f"{'command':<46}{'seconds':>9}{'peak MiB':>10}  exit")
    for row in rows:
        print(f"{row.name:<46}{row.seconds:>9.0f}{row.peak_mib:>10.0f}  {row.code}")
        if row.where:
            print(f"    {row.where}")
    sys.exit(max(1 if row.code else 0 for row in rows))


def measure(name: str, command: list[str], folder: Path) -> Measured:
    """Runs `command` in `folder`, watching the memory of its whole process tree."""
    peak = [0.0]
    done = threading.Event()
    environment = {**os.environ, MARK: str(os.getpid()), "SPT_NOENV": "1"}
    environment.pop("VIRTUAL_ENV", None)
    watcher = threading.Thread(target=_watch, args=(peak, done), daemon=True)
    start = time.monotonic()
    process = subprocess.Popen(
        command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    watcher.start()
    where = ""
    for line in process.stdout or ():
        print(line, end="", flush=True)
        where = line.strip() if line.startswith("Where the time went") else where
    code = process.wait()
    seconds = time.monotonic() - start
    done.set()
    watcher.join()
    return Measured(name, seconds, peak[0], code, where)


def _watch(peak: list[float], done: threading.Event) -> None:
    mark = f"{MARK}={os.getpid()}\0".encode()
    while not done.wait(0.33):
        peak[0] = max(peak[0], sum(_pss_mib(entry, mark) for entry in Path("/proc").glob("[0-9]*")))


def _pss_mib(entry: Path, mark: bytes) -> float:
    try:
        if mark not in (entry / "environ").read_bytes():
            return 0.0
        for line in (entry / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


if __name__ == "__main__":
    main()
