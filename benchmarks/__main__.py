"""`python -m benchmarks [NAME]`: all benchmarks, or one."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = {
    "dag_parse": "seconds to parse each DAG file over Airflow's own import",
    "features": "feature values per second beside Qlib, polars, pandas and TA-Lib; one new session; streaming",
    "commands": "time and peak memory of make run, in a fresh clone",
}


def main() -> None:
    chosen = sys.argv[1:2] or list(BENCHMARKS)
    unknown = [name for name in chosen if name not in BENCHMARKS]
    if unknown:
        sys.exit(f"Unknown benchmark '{unknown[0]}'. Allowed: " + "; ".join(f"{n}: {d}" for n, d in BENCHMARKS.items()))
    codes = []
    for name in chosen:
        print(f"\n== {name}: {BENCHMARKS[name]}", flush=True)
        codes.append(
            subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *sys.argv[2:]], check=False).returncode
        )
    sys.exit(max(codes))


if __name__ == "__main__":
    main()
