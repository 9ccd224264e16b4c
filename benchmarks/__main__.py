"""`python -m benchmarks [NAME]`: all benchmarks of speed, or one of all."""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = {
    "dag_parse": "seconds to parse each DAG file over Airflow's own import",
    "features": "feature values per second beside Qlib, polars, pandas and TA-Lib; one new session; streaming",
    "backtest": "one backtest and 100 variants beside vectorbt, with the same trades; statistics; bootstrap",
    "tft": "the TFT beside pytorch-forecasting's pipeline and neuralforecast's: forecasts, training steps, gathering, memory",
    "commands": "time and peak memory of make run, in a fresh clone",
}
# What models find takes up to an hour, and is run by name only.
ON_REQUEST = {
    "attainable": "each network on a simulated market whose attainable rank IC is known; with the signal off; labels shuffled",
    "zoo": "every model of configs/zoo on the shared real panel, two folds and three seeds",
    "btc": "configs/zoo/btc_direction.yaml on artificial bars of one asset that never stops trading",
}


def main() -> None:
    chosen, known = sys.argv[1:2] or list(BENCHMARKS), BENCHMARKS | ON_REQUEST
    unknown = [name for name in chosen if name not in known]
    if unknown:
        sys.exit(f"Unknown benchmark '{unknown[0]}'. Allowed: " + "; ".join(f"{n}: {d}" for n, d in known.items()))
    codes = []
    for name in chosen:
        print(f"\n== {name}: {known[name]}", flush=True)
        codes.append(
            subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *sys.argv[2:]], check=False).returncode
        )
    sys.exit(max(codes))


if __name__ == "__main__":
    main()
