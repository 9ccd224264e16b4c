"""configs/zoo/btc_direction.yaml on artificial daily bars of one asset: `python -m benchmarks btc`.

There is no file of real BTC-USD bars in this repository: what is printed says that the comparison runs and finds nothing
where nothing is to be found (or the momentum that --momentum plants), and nothing about Bitcoin. On a file of your own:
`trading compare --config configs/zoo/btc_direction.yaml --data BTC-USD.csv`.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.processes import ROOT

FIRST, LAST = date(2017, 1, 1), date(2024, 12, 31)
SEED = 7
VOLATILITY = 0.035  # of a day, in the long run; BTC-USD moved about as much in these years
ALPHA, BETA = 0.10, 0.87  # GARCH(1,1)
FREEDOM = 5.0  # of Student's t, whose tails the shocks have


def garch_bars(first: date = FIRST, last: date = LAST, seed: int = SEED, momentum: float = 0.0) -> pl.DataFrame:
    """Daily bars as Yahoo's download page writes them: Date, Open, High, Low, Close, Adj Close, Volume; weekends too.

    Log returns close to close: r[t] = momentum * r[t-1] + s[t] * e[t], s^2 a GARCH(1,1) (Bollerslev 1986) around
    VOLATILITY^2, e Student's t with 5 degrees of freedom and variance 1. A day opens where the one before has closed,
    to 2 bps. momentum: 0 is a martingale, whose direction nobody can know.
    """
    days = (last - first).days + 1
    random = np.random.default_rng(seed)
    shock = random.standard_t(FREEDOM, days) * math.sqrt((FREEDOM - 2.0) / FREEDOM)
    returns = np.zeros(days)
    variance = VOLATILITY**2
    for t in range(days):
        surprise = math.sqrt(variance) * shock[t]
        returns[t] = (momentum * returns[t - 1] if t else 0.0) + surprise
        variance = (1.0 - ALPHA - BETA) * VOLATILITY**2 + ALPHA * surprise**2 + BETA * variance
    close = 1_000.0 * np.exp(np.cumsum(returns))
    before = np.concatenate([[1_000.0], close[:-1]])
    opened = before * np.exp(2e-4 * random.standard_normal(days))
    wick = np.abs(0.3 * VOLATILITY * random.standard_normal((2, days)))
    return pl.DataFrame(
        {
            "Date": [first + timedelta(days=t) for t in range(days)],
            "Open": opened,
            "High": np.maximum(opened, close) * np.exp(wick[0]),
            "Low": np.minimum(opened, close) * np.exp(-wick[1]),
            "Close": close,
            "Adj Close": close,
            "Volume": np.round(3e10 * np.exp(0.3 * random.standard_normal(days) + 5.0 * np.abs(returns))),
        }
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--momentum", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="trading-bench-") as folder:
        path = Path(folder) / "btc-usd.csv"
        garch_bars(seed=given.seed, momentum=given.momentum).write_csv(path)
        command = [sys.executable, "-m", "trading_core.cli", "compare", "--data", str(path)]
        command += ["--config", str(ROOT / "configs" / "zoo" / "btc_direction.yaml")]
        environment = {"TRADING_VAR_DIR": str(Path(folder) / "var")}
        sys.exit(subprocess.run(command, cwd=ROOT, env={**_environment(), **environment}, check=False).returncode)


def _environment() -> dict[str, str]:
    """This process's, without settings of an installation: the benchmark keeps to its own folder."""
    import os

    return {name: value for name, value in os.environ.items() if not name.startswith("TRADING_")}


if __name__ == "__main__":
    main()
