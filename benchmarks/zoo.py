"""Every model of configs/zoo on the shared real panel, beside each other: `python -m benchmarks zoo`.

    --quick       one fold, one seed, two epochs: whether all is well, and how long the rest would take
    --full        every feature, five seeds, retrained each quarter: for a GPU
    --only a,b    some of the models       --fresh    forget what earlier runs found       --workers N    default: 2

Open-to-open labels of one and five sessions. Two folds: learned to 2014, validated on 2015, tested on 2016; learned to 2015,
validated on 2016, tested from 2017 on. Every fifth session is learned from and validated on, every one is tested. Figures
are of the test parts, means over three seeds with their standard deviation.

What each (model, fold, seed) gave is kept under var/benchmarks/zoo and taken again while config, data and features are the
same, so a run that was stopped goes on. A run of all models writes its tables into docs/benchmarks.md, if all of them come from
the same code, and that code is committed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import trading_core
from benchmarks import panels
from benchmarks.documents import DOCS, write_between
from benchmarks.processes import CORES, ROOT
from trading_core import config
from trading_core.config import ModelConfig
from trading_core.pipelines.train import code_version

if TYPE_CHECKING:
    from trading_core.dataset.panel import Panel
    from trading_core.dataset.splits import Split
    from trading_core.schema import DateArray

ROOMS = ("calibration", "dataset", "inference", "metrics", "models", "training")
FILES = ("schema.py", "pipelines/held_out.py", "pipelines/learn.py", "pipelines/skill.py")
KEPT = ROOT / "var" / "benchmarks" / "zoo"
# The slowest first, so that two workers end together; the tables list them the other way round.
MODELS = (
    "tft", "kan_former", "hybrid", "transformer", "lightgbm", "lstm", "gru", "mlp", "logistic", "linear", "sma_cross",
    "base_rate",
)  # fmt: skip
SEEDLESS = {"logistic", "linear", "sma_cross", "base_rate"}  # solved or counted: every seed gives the same


@dataclass(frozen=True, slots=True)
class Fold:
    """What is learned lies before `validation`; test decisions lie in test .. end."""

    validation: date
    test: date
    end: date

    @property
    def name(self) -> str:
        return str(self.test.year)


@dataclass(frozen=True, slots=True)
class Protocol:
    """stride: of the decisions learned from. retrain_days: of the calendar, None for one training per fold."""

    name: str
    seeds: tuple[int, ...] = (1, 2, 3)
    folds: tuple[Fold, ...] = (
        Fold(date(2016, 1, 1), date(2017, 1, 1), date(2018, 2, 7)),
        Fold(date(2015, 1, 1), date(2016, 1, 1), date(2016, 12, 31)),
    )
    stride: int = 5
    retrain_days: int | None = None
    every_feature: bool = False
    epochs: int | None = None  # None: the config's


CPU = Protocol("zoo")
QUICK = Protocol("zoo-quick", seeds=CPU.seeds[:1], folds=CPU.folds[:1], epochs=2)
FULL = Protocol("zoo-full", seeds=(1, 2, 3, 4, 5), stride=1, retrain_days=91, every_feature=True, epochs=30)


@dataclass(frozen=True, slots=True)
class Job:
    """One model on one fold with one seed."""

    protocol: Protocol
    model: str
    fold: Fold
    seed: int

    @property
    def config(self) -> ModelConfig:
        """The zoo's config as the protocol changes it."""
        found = config.load_model(f"{config.ZOO}/{self.model}")
        changed: dict[str, object] = {}
        if self.protocol.every_feature:
            changed["features"] = every_feature()
        if self.protocol.epochs is not None and "epochs" in found.training:
            changed["training"] = {**found.training, "epochs": self.protocol.epochs}
        return found.model_copy(update=changed)

    @property
    def file(self) -> Path:
        """Where its result is kept. Its name holds a hash of all that determines the result, the code included."""
        from trading_core.features import build as features

        chosen = self.config
        parts = [asdict(self), chosen, features.fingerprints(chosen.features), data_digest(), code_digest()]
        return KEPT / f"{self.model}-{self.fold.name}-{self.seed}-{config.config_hash(parts)}.json"

    @property
    def label(self) -> str:
        return f"{self.model}, tested {self.fold.name}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Found:
    """skill: per horizon, the fields of pipelines.skill.HorizonSkill. seconds: learning, and testing. epochs: of all
    trainings of the job. channels: what the model read. code: the commit; digest: see `code_digest`."""

    skill: list[dict[str, float]]
    learning_s: float
    testing_s: float
    epochs: int
    trainings: int
    channels: int
    code: str
    digest: str


@cache
def code_digest() -> str:
    """Of the code that a result depends on: what was measured with other code is measured again."""
    core = Path(trading_core.__file__).parent
    files = [file for room in ROOMS for file in sorted((core / room).rglob("*.py"))]
    files += [core / name for name in FILES] + [ROOT / "benchmarks" / "learning.py"]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def data_digest() -> str:
    return hashlib.sha256(panels.REAL.read_bytes()).hexdigest()[:16]


@cache
def every_feature() -> list[str]:
    """All features that say something of a daily bar: what does not vary over the panel is left out."""
    from trading_core.features.registry import FEATURES

    return sorted(name for name in FEATURES if name not in ("hour_sin", "hour_cos", "minute_of_day"))


# --- one job ----------------------------------------------------------------------------------------------------------


def compute(job: Job) -> Found:
    """Trains (once, or each quarter), tests, and keeps what was found."""
    from benchmarks.learning import joint_skill, learn, strided

    chosen, code, digest = job.config, code_version(), code_digest()  # before anybody has the time to change it
    panel = _panel(tuple(chosen.features))
    learning = testing = 0.0
    parts, epochs, channels = [], 0, 0
    for split in splits(job, panel.sessions):
        began = time.monotonic()
        learned = learn(panel, chosen, strided(split, job.protocol.stride), job.seed)
        learning += time.monotonic() - began
        parts.append(learned.on(split.test))
        testing += time.monotonic() - began
        epochs += len(learned.fitted.history)
        channels = len(learned.prepared.spec.channels)
    skill = [asdict(row) for row in joint_skill(parts)]
    found = Found(skill, learning, testing - learning, epochs, len(parts), channels, code, digest)
    KEPT.mkdir(parents=True, exist_ok=True)
    temporary = job.file.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(found), indent=1))
    temporary.replace(job.file)
    return found


@cache
def _panel(names: tuple[str, ...]) -> Panel:
    from benchmarks.learning import panel_of

    bars = panels.real_panel()
    if bars is None:
        raise SystemExit(f"{panels.REAL} is absent on this machine.")
    return panel_of(bars, names, "sp500-panel")


def splits(job: Job, sessions: DateArray) -> Iterator[Split]:
    """One split for the whole test part, or one for each stretch of it between two trainings."""
    from trading_core.dataset.splits import dated

    fold, step = job.fold, job.protocol.retrain_days
    horizon = max(job.config.horizons)
    back = fold.test - fold.validation
    start = fold.test
    while start <= fold.end:
        end = fold.end if step is None else min(start + timedelta(days=step - 1), fold.end)
        if len(sessions[(sessions >= np.datetime64(start)) & (sessions <= np.datetime64(end))]):
            yield dated(sessions, start - back, start, end, horizon)
        start = end + timedelta(days=1)


# --- all jobs ---------------------------------------------------------------------------------------------------------


def jobs_of(protocol: Protocol, models: Sequence[str]) -> list[Job]:
    """Every job, the slowest models first."""
    return [
        Job(protocol, model, fold, seed)
        for model in MODELS
        if model in models
        for fold in protocol.folds
        for seed in (protocol.seeds[:1] if model in SEEDLESS else protocol.seeds)
    ]


def kept(job: Job) -> Found | None:
    """What an earlier run found."""
    return Found(**json.loads(job.file.read_text())) if job.file.is_file() else None


def run(jobs: Sequence[Job], workers: int, fresh: bool) -> dict[Job, Found]:
    """The results of all jobs, those that are kept already and those that are computed now."""
    found = {} if fresh else {job: result for job in jobs if (result := kept(job)) is not None}
    missing = [job for job in jobs if job not in found]
    print(
        f"{len(jobs)} trainings and tests, {len(found)} of them kept from earlier runs; {workers} worker(s)", flush=True
    )
    began = time.monotonic()
    # One thread each: two that spin for one core are slower than one. Read when the child imports its libraries.
    counts = ("POLARS_MAX_THREADS", "NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    os.environ.update(dict.fromkeys(counts, "1"))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(compute, job): job for job in missing}
        for done, future in enumerate(as_completed(waiting), start=1):
            job, result = waiting[future], future.result()
            found[job] = result
            ic = ", ".join(f"{row['rank_ic']:+.4f}" for row in result.skill)
            spent = (time.monotonic() - began) / 60
            seconds = f"{result.learning_s:.0f} + {result.testing_s:.0f} s"
            print(f"[{done}/{len(missing)}, {spent:.0f} min] {job.label}: rank IC {ic}; {seconds}", flush=True)
    return found


# --- tables -----------------------------------------------------------------------------------------------------------

COLUMNS = {
    "Rank IC": ("rank_ic", 4), "ICIR": ("rank_icir", 3), "t": ("rank_ic_t", 2), "ROC-AUC": ("roc_auc", 4),
    "PR-AUC": ("pr_auc", 4), "Brier": ("brier", 4), "coverage 90 %": ("coverage_90", 3),
}  # fmt: skip


def tables(protocol: Protocol, found: dict[Job, Found]) -> Iterator[str]:
    """Markdown: a table for each fold and horizon, a row for each model."""
    for fold in protocol.folds:
        inside = {job: result for job, result in found.items() if job.fold == fold}
        for h, row in enumerate(next(iter(inside.values())).skill if inside else []):
            yield f"\n{_caption(fold, row)}\n"
            yield f"| model | {' | '.join(COLUMNS)} | learning, s |"
            yield "|---" * (len(COLUMNS) + 2) + "|"
            for model in reversed(MODELS):
                results = [result for job, result in inside.items() if job.model == model]
                if results:
                    cells = [cell([r.skill[h][key] for r in results], digits) for key, digits in COLUMNS.values()]
                    seconds = statistics.mean(r.learning_s for r in results)
                    yield f"| {model} | {' | '.join(cells)} | {seconds:.0f} |"


def _caption(fold: Fold, row: dict[str, float]) -> str:
    sessions = f"{row['horizon']:.0f} session{'s' if row['horizon'] > 1 else ''}"
    return f"Tested {fold.test} to {fold.end}, {sessions} ahead ({row['sessions']:,.0f} sessions, {row['rows']:,.0f} forecasts):"


def cell(values: Sequence[float | None], digits: int) -> str:
    """Mean and standard deviation over seeds; a dash where no seed has a value."""
    known = [value for value in values if value is not None and value == value]
    if not known:
        return "–"
    mean = f"{statistics.mean(known):.{digits}f}"
    return mean if len(known) == 1 else f"{mean} ± {statistics.stdev(known):.{digits}f}"


def estimate(found: dict[Job, Found], protocol: Protocol, workers: int) -> str:
    """How long `protocol` takes at most, from what a quick run measured: early stopping only makes it shorter."""
    total = 0.0
    for quick, result in found.items():
        full = jobs_of(protocol, [quick.model])
        epochs = full[0].config.training.get("epochs", 1)
        total += len(full) * (result.learning_s / result.epochs * epochs + result.testing_s)
    slowest = max(found, key=lambda job: found[job].learning_s / found[job].epochs)
    return f"All of it would take at most {total / workers / 60:.0f} minutes with {workers} worker(s); slowest: {slowest.model}."


def unfit(found: Mapping[Job, Found]) -> list[str]:
    """Why results cannot stand in one table for a commit: each line names a code and the results that it gave."""
    digests = sorted({result.digest for result in found.values()})
    mixed = digests if len(digests) > 1 else []
    problems = [
        f"code {digest}: {_labels(job for job, result in found.items() if result.digest == digest)}" for digest in mixed
    ]
    dirty = sorted({result.code for result in found.values() if result.code.endswith("-dirty")})
    return problems + [
        f"{code}, changes that were not committed: {_labels(job for job, result in found.items() if result.code == code)}"
        for code in dirty
    ]


def _labels(jobs: Iterable[Job]) -> str:
    return "; ".join(sorted(job.label for job in jobs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true")
    size.add_argument("--full", action="store_true")
    parser.add_argument("--only", default=",".join(MODELS))
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--workers", type=int, default=min(CORES, os.cpu_count() or 1))
    given = parser.parse_args()
    protocol = QUICK if given.quick else FULL if given.full else CPU
    models = given.only.split(",")
    if unknown := sorted(set(models) - set(MODELS)):
        raise SystemExit(f"Unknown model(s) {', '.join(unknown)}. Allowed: {', '.join(MODELS)}.")
    if not panels.REAL.is_file():
        raise SystemExit(f"{panels.REAL} is absent on this machine.")
    if protocol is not QUICK and set(models) == set(MODELS) and code_version().endswith("-dirty"):
        print(f"There are changes that are not committed: {DOCS.name} will not be written.", flush=True)
    found = run(jobs_of(protocol, models), given.workers, given.fresh)
    lines = list(tables(protocol, found))
    print("\n".join(lines))
    codes = sorted({result.code for result in found.values()})
    print(f"\nCode: {', '.join(codes)}")
    if protocol is QUICK:
        print(estimate(found, CPU, given.workers))
    elif set(models) == set(MODELS):
        if problems := unfit(found):
            lead = f"{DOCS.relative_to(ROOT)} is left as it is"
            raise SystemExit("\n".join([f"{lead}; commit, and run again with --fresh:", *problems]))
        write_between(DOCS, protocol.name, lines)
        print(f"Written into {DOCS.relative_to(ROOT)}.")


if __name__ == "__main__":
    main()
