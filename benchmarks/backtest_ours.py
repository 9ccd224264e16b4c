"""Our side of `python -m benchmarks backtest`, in a process of its own: `python -m benchmarks.backtest_ours FOLDER`.

Writes the panel and the orders of every variant to FOLDER, then does the jobs that it is told (see `turns`). The clock runs
from arrays in memory (`MarketData`, `ForecastPanel`) to the result with its records of fills.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from benchmarks.processes import RESULT
from trading_core.backtest.data import ForecastPanel, MarketData
from trading_core.backtest.engine import Job, Terms, run_many
from trading_core.backtest.result import BacktestResult
from trading_core.costs import CostModel
from trading_core.metrics import bootstrap, deflated, periods, returns, significance, trades
from trading_core.portfolio.top_k import TopK, TopKParams

SYMBOLS, SESSIONS, CAPITAL, SEED = 500, 2_520, 1e6, 7
RESAMPLES = 10_000


def panel() -> tuple[MarketData, ForecastPanel]:
    """A seeded random walk without gaps or events, and scores that foretell a little of it and change from one session to
    the next: nearly every name held is sold each time, which is the most work that an account of this size can be."""
    random, shape = np.random.default_rng(SEED), (SESSIONS, SYMBOLS)
    steps = random.normal(0.0003, 0.015, shape)
    closes = random.uniform(10, 300, SYMBOLS) * np.exp(np.cumsum(steps, axis=0))
    opens = closes * np.exp(-steps + random.normal(0, 0.005, shape))
    score = random.normal(size=shape) + 3.0 * np.vstack([steps[1:], steps[:1]])
    days = tuple(date(2016, 1, 4) + timedelta(days=n) for n in range(SESSIONS))
    names = tuple(f"S{n:03d}" for n in range(SYMBOLS))
    data = MarketData(
        names, days, opens, closes, np.full(shape, 1e6), np.ones(shape), closes, tuple(() for _ in days), opens
    )
    nothing = np.full(shape, np.nan)
    return data, ForecastPanel(score, np.broadcast_to(np.nan, (*shape, 7)), nothing)


def variants(forecasts: ForecastPanel) -> list[Job]:
    """100 of them; the first is the one that is measured alone: ten names, 5 bps a side."""
    return [
        Job(
            f"top {k}, buffer {buffer}, {bps:g} bps",
            TopK(TopKParams(k, buffer=buffer)),
            Terms(CAPITAL, costs),
            forecasts,
        )
        for k in (10, 5, 20, 30, 50)
        for buffer in (0, 5, 10, 20)
        for bps, costs in ((5 * m, CostModel(m, 2.0 * m, 2.0 * m)) for m in (1.0, 0.0, 0.2, 0.5, 2.0))
    ]


def statistics(result: BacktestResult) -> tuple[object, ...]:
    """Every figure of a result that needs no bootstrap."""
    earned = returns.simple_returns(result.equity)
    session, column, quantity, price, commission = result.fills.T[:5]
    closed = trades.closed_trades(session.astype(np.int64), column.astype(np.int64), quantity, price, commission)
    return (
        returns.summarize(result.equity, result.turnover, gross=result.gross, net=result.net),
        returns.drawdowns(result.equity),
        periods.period_returns(result.sessions, result.equity),
        periods.rolling_sharpe(earned, 126),
        significance.sharpe_test(earned, "moments"),
        significance.sharpe_test(earned, "hac"),
        deflated.probabilistic_sharpe_test(earned),
        trades.summarize_trades(closed),
    )


class Ours:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data, forecasts = panel()
        self.variants = variants(forecasts)
        self.days = {"start": self.data.sessions[0], "end": self.data.sessions[-1]}
        np.save(folder / "opens.npy", self.data.opens)
        np.save(folder / "closes.npy", self.data.closes)

    def run(self, jobs: Sequence[Job], threads: int = 1) -> list[BacktestResult]:
        return run_many(self.data, jobs, **self.days, threads=threads)

    def write(self) -> dict[str, object]:
        """The orders of every variant, for the peer; how many trades they are and what is left at the end."""
        results = self.run(self.variants)
        for number, (job, result) in enumerate(zip(self.variants, results, strict=True)):
            rows, columns, sizes = result.fills.T[:3]
            np.savez(
                self.folder / f"orders-{number:03d}.npz",
                row=rows.astype(np.int64),
                column=columns.astype(np.int64),
                size=sizes,
                commission=job.terms.costs.rates.commission,
                concession=job.terms.costs.rates.concession,
                capital=job.terms.capital,
            )
        ends = [float(result.equity[-1]) for result in results]
        return {"trades": [len(result.fills) for result in results], "ends": ends, "capital": CAPITAL}

    def do(self, job: str) -> dict[str, float]:
        work: dict[str, Callable[[], object]] = {
            "one": lambda: self.run(self.variants[:1]),
            "statistics": lambda: statistics(self.run(self.variants[:1])[0]),
            "many": lambda: self.run(self.variants),
            "many, paths only": lambda: self.run(
                [replace(j, terms=replace(j.terms, record=False)) for j in self.variants]
            ),
            "many, 2 threads": lambda: self.run(self.variants, threads=2),
            "bootstrap": lambda: significance.sharpe_test(self.earned, "bootstrap", resamples=RESAMPLES),
            "arch": self.arch,
        }
        start, cpu = time.perf_counter(), time.process_time()
        made = work[job]()
        taken = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
        del made
        return taken

    def arch(self) -> object:
        """The same resamples of mean over deviation by arch, whose statistic is a Python function."""
        from arch.bootstrap import StationaryBootstrap

        length = bootstrap.optimal_block_length(significance.sharpe_influence(self.earned))
        return StationaryBootstrap(length, self.earned, seed=SEED).apply(lambda x: x.mean() / x.std(ddof=1), RESAMPLES)

    def remember(self) -> dict[str, object]:
        self.earned = returns.simple_returns(self.run(self.variants[:1])[0].equity)
        return {}


def main() -> None:
    ours = Ours(Path(sys.argv[1]))
    say({})
    for line in sys.stdin:
        job = line.strip()
        say(ours.write() if job == "write" else ours.remember() if job == "remember" else ours.do(job))


def say(numbers: dict[str, object]) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(RESULT + json.dumps({**numbers, "peak_mib": peak}), flush=True)


if __name__ == "__main__":
    main()
