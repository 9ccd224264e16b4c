"""What each network finds of a signal whose attainable rank IC is known: `python -m benchmarks attainable`.

    --only a,b    some of the models       --fresh    forget what earlier runs found       --workers N    default: 2

The simulated market plants a signal with a correlation of 0.2 in the one-session return. Its truth, the mean of the label
given everything up to the close, ranked against the labels of the test year, is what no forecast can expect to beat: each
network must reach 90 % of it. Where the signal is off, and where every symbol is given the prices of another, there is
nothing to be found: the rank IC of the test year must be zero within two standard errors. (One true zero in twenty is not.)
Options are those of configs/zoo, windows of five sessions, eight features; three markets of 100 symbols, one training on
each, whose test sessions are taken together. Networks are judged; linear and lightgbm stand beside them. What each training gave
is kept under var/benchmarks/attainable, so that a run that was stopped goes on; one of all models writes its table into
docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.documents import DOCS, write_between
from benchmarks.learning import learn, panel_of
from benchmarks.processes import CORES, ROOT
from trading_core import config
from trading_core.config import ModelConfig
from trading_core.dataset.panel import Panel
from trading_core.dataset.splits import Split, dated
from trading_core.features import build as features
from trading_core.market.adjust import adjusted
from trading_core.market.simulated import SimulatedOptions, build_simulated
from trading_core.metrics.forecasts import rank_ic_per_date
from trading_core.schema import SESSION, SYMBOL, FloatArray

SIGNAL_IC = 0.2
REACHED = 0.9  # of the attainable rank IC
STANDARD_ERRORS = 2.0
START = date(2019, 1, 2)
KEPT = ROOT / "var" / "benchmarks" / "attainable"
MARKETS = (5, 6, 7)  # seeds
NETWORKS = ("mlp", "lstm", "gru", "transformer", "hybrid", "kan_former", "tft")
BESIDE = ("linear", "lightgbm")
# The two that carry the signal, in three forms, and others that do not.
FEATURES = [
    "close_location", "volume_surprise_rank", "volume_ratio_1_20", "volume_z_20", "log_ret", "intraday_ret", "ret_5_rank",
    "vol_20",
]  # fmt: skip
TRAINING = {"epochs": 12, "patience": 3, "learning_rate": 2e-3, "dates_per_batch": 4}


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """truth: [S,T] mean of the one-session label given everything up to the close; NaN where there is none."""

    panel: Panel
    split: Split
    truth: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Rank IC of each test session [D], of the forecasts and of the truth (empty where it does not vary)."""

    daily: FloatArray
    truth: FloatArray

    @classmethod
    def joined(cls, parts: Sequence[Measured]) -> Measured:
        """Of several markets."""
        return cls(np.concatenate([part.daily for part in parts]), np.concatenate([part.truth for part in parts]))

    @property
    def rank_ic(self) -> float:
        return float(self.daily.mean())

    @property
    def error(self) -> float:
        """Standard error of the mean; labels of one session do not overlap."""
        return float(self.daily.std(ddof=1) / np.sqrt(len(self.daily)))

    @property
    def share(self) -> float:
        """Of the attainable rank IC."""
        return self.rank_ic / float(self.truth.mean())

    @property
    def errors_from_zero(self) -> float:
        return abs(self.rank_ic) / self.error


def problem(signal_ic: float, symbols: int = 100, years: int = 3, seed: int = 5) -> Problem:
    """A market of `years` to learn from, the last fifth of them to validate on, and one more to test. Nothing is listed
    late, delisted or split: what disturbs here is noise alone."""
    end = date(START.year + years, 12, 31)
    options = SimulatedOptions(
        symbols, START, seed, signal_ic, late_listings=0.0, delistings_per_year=0.0, splits_per_year=0.0
    )
    source, now = build_simulated(options, "XNYS"), datetime(end.year + 1, 2, 1, tzinfo=UTC)
    fetched = source.fetch(source.symbols(), START, end, now)
    panel = panel_of(adjusted(fetched.bars, fetched.actions), FEATURES, "simulated")
    test = date(end.year, 1, 1)
    validation = START + timedelta(days=round(0.8 * (test - START).days))
    split = dated(panel.sessions, validation, test, end, 1)
    return Problem(panel, split, _on_panel(panel, source.oracle(START, end, now)))


def _on_panel(panel: Panel, truth: pl.DataFrame) -> FloatArray:
    """[S,T] of the rows symbol, session, expected."""
    values = np.full(panel.closes.shape, np.nan)
    place = {symbol: row for row, symbol in enumerate(panel.symbols)}
    rows = np.array([place[symbol] for symbol in truth[SYMBOL].to_list()], dtype=np.int64)
    columns = np.searchsorted(panel.sessions, truth[SESSION].to_numpy().astype("datetime64[D]"))
    values[rows, columns] = truth["expected"].to_numpy()
    return values


def shuffled(given: Problem, seed: int = 1) -> Problem:
    """Every symbol with the features of its own and the prices of another, so that labels say nothing of features.

    Prices rather than labels change places, by one order for all sessions: what a label is made of stays whole, and a label
    that leaked from one part into another would still be found.
    """
    count = len(given.panel.symbols)
    order = np.random.default_rng(seed).permutation(count)
    other = np.empty(count, dtype=np.int64)
    other[order] = np.roll(order, 1)  # one cycle: nobody keeps its own
    panel = given.panel
    moved = replace(panel, opens=panel.opens[other], closes=panel.closes[other], sigma=panel.sigma[other])
    return Problem(moved, given.split, given.truth[other])


def model_of(name: str) -> ModelConfig:
    """The architecture of the zoo's config on the features and windows of the problem."""
    zoo = config.load_model(f"{config.ZOO}/{name}")
    changed = {
        "features": FEATURES,
        "horizons": [1],
        "encoder_length": 5,
        "targets": ["quantiles"],
        "score": "quantiles",
    }
    if "revin_channels" in zoo.architecture:
        there = [name for name in str(zoo.architecture["revin_channels"]).split() if name in FEATURES]
        changed["architecture"] = {**zoo.architecture, "revin_channels": " ".join(there)}
    training = {"training": TRAINING} if zoo.training else {}
    return zoo.model_copy(update={**changed, **training, "static": [], "context": []})


def measure(given: Problem, model: ModelConfig, seed: int = 7) -> Measured:
    """Trains one model and ranks the test sessions by its forecasts."""
    found = learn(given.panel, model, given.split, seed).on(given.split.test)
    windows, label = found.windows, found.returns[:, 0]
    daily = rank_ic_per_date(found.score[:, 0], label, windows.columns)
    truth = rank_ic_per_date(given.truth[windows.symbol, windows.columns], label, windows.columns)
    return Measured(daily.included, truth.included)


PROBLEMS = ("signal", "signal off", "prices of another")


@cache
def named(label: str, seed: int) -> Problem:
    """One of PROBLEMS on the market of a seed."""
    made = problem(0.0 if label == "signal off" else SIGNAL_IC, seed=seed)
    return shuffled(made) if label == "prices of another" else made


def file_of(task: tuple[str, str, int]) -> Path:
    """Where the result of a task (model, problem, seed of the market) is kept."""
    digest = config.config_hash([task, model_of(task[0]), features.fingerprints(FEATURES), SIGNAL_IC])
    return KEPT / f"{task[0]}-{task[1].replace(' ', '-')}-{task[2]}-{digest}.json"


def compute(task: tuple[str, str, int], fresh: bool = False) -> Measured:
    """What a task gives, now or in an earlier run."""
    path = file_of(task)
    if path.is_file() and not fresh:
        kept = json.loads(path.read_text())
        return Measured(np.array(kept["daily"]), np.array(kept["truth"]))
    model, label, seed = task
    made = measure(named(label, seed), model_of(model))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"daily": made.daily.tolist(), "truth": made.truth.tolist()}))
    temporary.replace(path)
    return made


def rows(models: Sequence[str], workers: int, fresh: bool = False) -> Iterator[str]:
    """The table, a line as soon as it is known."""
    lines = [(model, label) for model in models for label in PROBLEMS]
    tasks = [(model, label, seed) for model, label in lines for seed in MARKETS]
    os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    yield "| model | problem | rank IC | standard error | attainable | share | verdict |"
    yield "|---|---|---|---|---|---|---|"
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        results = pool.map(compute, tasks, [fresh] * len(tasks))
        for model, label in lines:
            yield line(model, label, Measured.joined([next(results) for _ in MARKETS]))


def line(model: str, label: str, found: Measured) -> str:
    """A row of the table; the verdict is about networks only."""
    reached = label == "signal"
    met = found.share >= REACHED if reached else found.errors_from_zero <= STANDARD_ERRORS
    cells = [f"{found.rank_ic:.4f}", f"{found.error:.4f}"]
    cells += [f"{found.truth.mean():.4f}", f"{found.share:.3f}"] if reached else ["0", "–"]
    verdict = "" if model in BESIDE else "met" if met else "MISSED"
    return f"| {model} | {label} | {' | '.join(cells)} | {verdict} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join((*BESIDE, *NETWORKS)))
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--workers", type=int, default=min(CORES, os.cpu_count() or 1))
    given = parser.parse_args()
    models = given.only.split(",")
    if unknown := sorted(set(models) - {*BESIDE, *NETWORKS}):
        raise SystemExit(f"Unknown model(s) {', '.join(unknown)}. Allowed: {', '.join((*BESIDE, *NETWORKS))}.")
    lines = []
    for text in rows(models, given.workers, given.fresh):
        print(text, flush=True)
        lines.append(text)
    if set(models) == {*BESIDE, *NETWORKS}:
        write_between(DOCS, "attainable", lines)


if __name__ == "__main__":
    main()
