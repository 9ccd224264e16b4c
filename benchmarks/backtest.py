"""A backtest beside vectorbt's, with the same trades: `python -m benchmarks backtest`.

    --only one|many|bootstrap|cold    one part of it

500 symbols x 2,520 sessions, the ten highest scores held, 5 bps a side. one: a single run. many: 100 variants of it (how many
names, how far a held one may slip, how high the costs). bootstrap: 10,000 resamples of the daily returns beside arch's. cold:
the first call of a process when nothing is compiled.

Ours goes from scores and prices to weights, orders, fills and a valued account; vectorbt gets the orders that came out, as
arrays made before the clock starts, and `from_orders` only fills them: values and figures come when they are asked for,
which `stats()` does. That both made the same number of trades and ended with the same money is checked for every variant.
All contenders stay in processes of their own and run in turns; the first call of each is given by itself.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from typing import Any

from benchmarks import processes
from benchmarks.features import MAX_BUSY_CORES, goal
from benchmarks.peers import environment
from benchmarks.turns import Timed, Worker, in_turns

ROUNDS, ROUNDS_OF_MANY = 7, 2
# Of what is left at the end or, where that is more, of the capital: each trade leaves a little that vectorbt takes for nothing
# (within 1e-9 of it), and ours does not.
SAME = 1e-6
# The goals.
MIN_TIMES_VECTORBT = 4.0
MAX_RUN_WITH_STATISTICS_S, MAX_BOOTSTRAP_S = 0.1, 1.0
ENGINES = ("numba", "rust")
OURS, WITH_FIGURES = "trading_core, scores to fills and equity", "trading_core, and all statistics but bootstraps"


def ours_in(folder: str, cache: str | None = None) -> Worker:
    return Worker([sys.executable, "-m", "benchmarks.backtest_ours", folder], cache=cache)


def theirs_in(folder: str, cache: str | None = None) -> Worker:
    return Worker([str(environment.peer_python("vectorbt")), "benchmarks/vectorbt_orders.py", folder], cache=cache)


def check_same(ours: Mapping[str, Any], theirs: Mapping[str, Any], engine: str) -> float:
    """Exits unless vectorbt made as many trades of each variant and ended with as much; returns the largest difference."""
    largest = 0.0
    for n, (trades, end) in enumerate(zip(theirs["trades"], theirs["ends"], strict=True)):
        apart = abs(end - ours["ends"][n]) / max(end, ours["capital"])
        if trades != ours["trades"][n] or not apart <= SAME:
            mine = f"{ours['trades'][n]:,} trades, {ours['ends'][n]:,.6f}"
            raise SystemExit(f"vectorbt ({engine}), variant {n}: {trades:,} trades, {end:,.6f}; ours: {mine}")
        largest = max(largest, apart)
    return largest


def table(timed: Mapping[str, Timed], first: Mapping[str, float], base: str) -> None:
    """The lines of all contenders; the ratios are to `base`."""
    columns = ("first call s", "best ms", "median ms", "CPU ms", "x best", "x median", "x CPU")
    print(f"{'':<54}" + "".join(f"{column:>13}" for column in columns))
    for name, taken in timed.items():
        start = f"{first[name]:.2f}" if name in first else ""
        figures = [taken.best * 1e3, taken.median * 1e3, min(taken.cpu) * 1e3]
        cells = [start, *(f"{figure:.1f}" for figure in figures), *(f"{x:.2f}" for x in taken.times(timed[base]))]
        print(f"{name:<54}" + "".join(f"{cell:>13}" for cell in cells))


def one(folder: str) -> None:
    """A single run; first calls are those of fresh processes with compiled code on disk."""
    with ours_in(folder) as ours, theirs_in(folder) as theirs:
        jobs = {OURS: (ours, "one"), WITH_FIGURES: (ours, "statistics")}
        jobs |= {f"vectorbt from_orders, {engine}": (theirs, engine) for engine in ENGINES}
        jobs |= {f"vectorbt from_orders and stats(), {engine}": (theirs, f"{engine} stats") for engine in ENGINES}
        first = {name: worker.ask(job)["seconds"] for name, (worker, job) in jobs.items()}
        timed = in_turns(jobs, ROUNDS)
    print(f"\none run; {ROUNDS} rounds in turn, one thread each")
    table(timed, first, OURS)
    for engine in ENGINES:
        *_, ratio = timed[f"vectorbt from_orders, {engine}"].times(timed[OURS])
        print(goal(f"times vectorbt ({engine}), one run, CPU", ratio, MIN_TIMES_VECTORBT, at_least=True))
    print(goal("seconds of a run with all statistics", timed[WITH_FIGURES].best, MAX_RUN_WITH_STATISTICS_S))
    memory(folder, "one", {engine: engine for engine in ENGINES})


def many(folder: str, expected: Mapping[str, Any]) -> None:
    """The variants, after a check that all of them are the same trades."""
    with ours_in(folder) as ours, theirs_in(folder) as theirs:
        apart = max(check_same(expected, theirs.ask(f"{engine} many"), engine) for engine in ENGINES)
        jobs = {"trading_core, 1 thread": (ours, "many"), "trading_core, 2 threads": (ours, "many, 2 threads")}
        jobs["trading_core, 1 thread, no records of fills"] = (ours, "many, paths only")
        jobs |= {f"vectorbt from_orders, {engine}, a call each": (theirs, f"{engine} many") for engine in ENGINES}
        timed = in_turns(jobs, ROUNDS_OF_MANY)
    total = f"{sum(expected['trades']):,} trades, as many with vectorbt; what is left differs by at most {apart:.0e}"
    print(f"\n{len(expected['trades'])} variants, {total}; {ROUNDS_OF_MANY} rounds in turn")
    table(timed, {}, "trading_core, 1 thread")
    for engine in ENGINES:
        theirs_timed = timed[f"vectorbt from_orders, {engine}, a call each"]
        *_, ratio = theirs_timed.times(timed["trading_core, 1 thread"])
        print(goal(f"times vectorbt ({engine}), variants, one thread, CPU", ratio, MIN_TIMES_VECTORBT, at_least=True))
        ratio, *_ = theirs_timed.times(timed["trading_core, 2 threads"])
        print(goal(f"times vectorbt ({engine}), variants, two threads", ratio, MIN_TIMES_VECTORBT, at_least=True))
    memory(folder, "many", {engine: f"{engine} many" for engine in ENGINES})


def memory(folder: str, ours_job: str, their_jobs: Mapping[str, str]) -> None:
    """Peak resident memory of a fresh process that does nothing else, the panel (and its orders) included."""
    with ours_in(folder) as worker:
        print(f"peak MiB: trading_core {worker.ask(ours_job)['peak_mib']:,.0f}", end="")
    for engine, job in their_jobs.items():
        with theirs_in(folder) as worker:
            print(f", vectorbt ({engine}) {worker.ask(job)['peak_mib']:,.0f}", end="")
    print()


def bootstrap(folder: str) -> None:
    with ours_in(folder) as ours:
        ours.ask("remember")
        timed = in_turns({"trading_core, 2 threads": (ours, "bootstrap"), "arch, 1 thread": (ours, "arch")}, 3)
    print("\nstationary bootstrap of a Sharpe ratio, 10,000 resamples of 2,519 returns; vectorbt has none")
    table(timed, {}, "trading_core, 2 threads")
    print(goal("seconds of a bootstrap", timed["trading_core, 2 threads"].best, MAX_BOOTSTRAP_S))


def cold(folder: str) -> None:
    print(
        "\nfirst call of a process when nothing is compiled (once per installation; `make test` compiles ours before), s"
    )
    with tempfile.TemporaryDirectory() as cache, ours_in(folder, cache) as worker:
        print(f"{'trading_core':<40}{worker.ask('one')['seconds']:>8.1f}", flush=True)
    for job in (*ENGINES, *(f"{engine} stats" for engine in ENGINES)):
        with tempfile.TemporaryDirectory() as cache, theirs_in(folder, cache) as worker:
            print(f"{'vectorbt, ' + job:<40}{worker.ask(job)['seconds']:>8.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks backtest")
    parser.add_argument("--only", choices=("one", "many", "bootstrap", "cold"))
    chosen = parser.parse_args().only
    environment.peer_python("vectorbt")
    cores, busy = processes.on_two_cores(), processes.busy_cores()
    print(f"{cores} cores, Python {sys.version.split()[0]}; {busy:.1f} cores busy with other work before the start")
    if busy > MAX_BUSY_CORES:
        print("WARNING: others are computing on this machine: these figures are not to be quoted")
    with tempfile.TemporaryDirectory(prefix="trading-bench-") as folder:
        with ours_in(folder) as worker:
            expected = worker.ask("write")
        parts = {"one": lambda: one(folder), "many": lambda: many(folder, expected)}
        parts |= {"bootstrap": lambda: bootstrap(folder), "cold": lambda: cold(folder)}
        for name, part in parts.items():
            if chosen in (None, name):
                part()


if __name__ == "__main__":
    main()
