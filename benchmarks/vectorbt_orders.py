"""The same orders through vectorbt's `Portfolio.from_orders`; run by the Python of the peer environment, imports nothing of ours.

    python benchmarks/vectorbt_orders.py FOLDER

FOLDER holds opens.npy and closes.npy [T, S] and, for each variant, an orders file (benchmarks/backtest_ours.py writes them).
One account of all symbols (`cash_sharing`), the orders of a session in the sequence in which ours fill: sales first. Slippage
stands for our half spread and slippage, fees for our commission.

What vectorbt is fastest with of what was tried is measured: numpy arrays, NaN where there is no order, the sequence handed
over ready (outside the timing), room for as many orders as there are, and one call a variant (many variants side by side
in one call took longer). Jobs: "ENGINE" (variant 0), "ENGINE stats" (with `stats()`), "ENGINE many" (every variant).
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

started = time.perf_counter()

import numpy as np  # noqa: E402
import vectorbt as vbt  # noqa: E402

IMPORTED = time.perf_counter() - started


class Book:
    """The panel, and the orders of one variant after the other."""

    def __init__(self, folder: Path) -> None:
        self.opens, self.closes = np.load(folder / "opens.npy"), np.load(folder / "closes.npy")
        self.files = sorted(folder.glob("orders-*.npz"))

    def prepared(self, variant: int) -> dict[str, object]:
        """The arguments of `from_orders`."""
        orders = np.load(self.files[variant])
        size = np.full(self.opens.shape, np.nan)
        size[orders["row"], orders["column"]] = orders["size"]
        return {
            "close": self.closes,
            "size": size,
            "price": self.opens,
            "fees": float(orders["commission"]),
            "slippage": float(orders["concession"]),
            "init_cash": float(orders["capital"]),
            "call_seq": np.argsort(np.sign(np.nan_to_num(size)), axis=1, kind="stable"),
            "max_orders": len(orders["row"]) + 1,
            "cash_sharing": True,
            "group_by": True,
            "freq": "1D",
        }

    def run(self, variant: int, engine: str, stats: bool = False) -> tuple[tuple[float, float], vbt.Portfolio]:
        """The seconds that passed and those of processors, and what was made."""
        arguments = self.prepared(variant)
        start, cpu = time.perf_counter(), time.process_time()
        portfolio = vbt.Portfolio.from_orders(**arguments, engine=engine)
        if stats:
            portfolio.stats()
        return (time.perf_counter() - start, time.process_time() - cpu), portfolio

    def many(self, engine: str) -> dict[str, object]:
        seconds, cpu, trades, ends = 0.0, 0.0, [], []
        for variant in range(len(self.files)):
            taken, portfolio = self.run(variant, engine)
            seconds, cpu = seconds + taken[0], cpu + taken[1]
            trades.append(len(portfolio.orders.records))
            ends.append(float(portfolio.final_value()))
        return {"seconds": seconds, "cpu": cpu, "trades": trades, "ends": ends}


def main() -> None:
    book = Book(Path(sys.argv[1]))
    say({"imported": IMPORTED})
    for line in sys.stdin:
        engine, _, rest = line.strip().partition(" ")
        if rest == "many":
            say(book.many(engine))
        else:
            (seconds, cpu), _ = book.run(0, engine, stats=rest == "stats")
            say({"seconds": seconds, "cpu": cpu})


def say(numbers: dict[str, object]) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("RESULT " + json.dumps({**numbers, "peak_mib": peak}), flush=True)


if __name__ == "__main__":
    main()
