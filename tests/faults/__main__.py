"""`make faults [ONLY=row,row] [SEED=1] [DAYS=10000] [LANES=2]`: the fault matrix, as one table; every figure is of this run.

Exit status 1 when anything was violated. The same goes to var/faults/report.json.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path

from rows import ROWS, Row, Setting

REPOSITORY = Path(__file__).resolve().parents[2]
SHOWN = 5  # violations printed per row; all are in the report


def main() -> None:
    only = [name for name in os.environ.get("ONLY", "").replace(",", " ").split() if name]
    unknown = sorted(set(only) - set(ROWS))
    if unknown:
        sys.exit(f"Unknown row '{unknown[0]}'. Allowed: " + "; ".join(f"{n}: {r.__doc__}" for n, r in ROWS.items()))
    memory = (
        "/dev/shm" if Path("/dev/shm").is_dir() else None
    )  # a kill is no power cut: nothing in memory is lost by it
    with tempfile.TemporaryDirectory(prefix="faults-", dir=memory) as folder:
        setting = Setting(
            seed=int(os.environ.get("SEED") or 1),
            days=int(os.environ.get("DAYS") or 10_000),
            lanes=int(os.environ.get("LANES") or min(4, os.cpu_count() or 1)),
            folder=Path(folder),
            every=int(os.environ.get("EVERY") or 1),
            thorough=bool(os.environ.get("ALL")),
        )
        print(HEAD, flush=True)
        made: list[Row] = []
        for name in only or ROWS:
            started = time.perf_counter()
            for row in ROWS[name](setting):
                row.seconds, started = time.perf_counter() - started, time.perf_counter()
                made.append(row)
                print(line(name, row), flush=True)
    report(made, setting)
    sys.exit(1 if any(row.violations for row in made) else 0)


HEAD = f"{'row':<10} {'scenario':<58} {'runs':>7} {'faults':>8} {'violations':>10} {'seconds':>8}  seed"


def line(name: str, row: Row) -> str:
    seed = "" if row.seed is None else str(row.seed)
    figures = f"{row.runs:>7,} {row.faults:>8,} {len(row.violations):>10,} {row.seconds:>8.1f}  {seed}"
    notes = [f"{'':<10} {note}" for note in row.notes]
    bad = [f"{'':<10} VIOLATION {text}" for text in row.violations[:SHOWN]]
    return "\n".join([f"{name:<10} {row.scenario:<58} {figures}", *notes, *bad])


def report(rows: list[Row], setting: Setting) -> None:
    runs, faults = sum(row.runs for row in rows), sum(row.faults for row in rows)
    bad = sum(len(row.violations) for row in rows)
    print(f"{'':<10} {'in all':<58} {runs:>7,} {faults:>8,} {bad:>10,} {sum(r.seconds for r in rows):>8.1f}")
    folder = REPOSITORY / "var" / "faults"
    folder.mkdir(parents=True, exist_ok=True)
    written = {"seed": setting.seed, "days": setting.days, "rows": [row.as_json() for row in rows], "violations": bad}
    (folder / "report.json").write_text(json.dumps(written, indent=1) + "\n")
    print(f"{'':<10} written to {(folder / 'report.json').relative_to(REPOSITORY)}")


if __name__ == "__main__":
    main()
