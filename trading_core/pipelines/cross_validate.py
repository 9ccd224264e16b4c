"""One config trained once per fold and judged on what each training has not seen: is its skill there in all of a history?

Nothing is registered: the models of a cross-validation also learn from what comes after their tests. All folds lie before
`test_start`, of which nothing is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date, datetime
from math import comb
from typing import Any, Literal, get_args

import numpy as np

from trading_core import config
from trading_core.config import ModelConfig
from trading_core.dataset.panel import Panel
from trading_core.dataset.splits import (
    CombinatorialFolds,
    Fold,
    Split,
    combinatorial,
    first_of_last,
    purged_k_fold,
    walk_forward,
)
from trading_core.errors import InvalidConfigError, UnknownNameError
from trading_core.features import build as features
from trading_core.metrics.forecasts import rank_ic_per_date
from trading_core.pipelines import evaluations, refs, trials
from trading_core.pipelines.held_out import out_of_fold
from trading_core.pipelines.learn import fit_prepared, prepare
from trading_core.pipelines.markets import require_daily
from trading_core.pipelines.panels import current_versions, load_panel
from trading_core.pipelines.refs import Real
from trading_core.pipelines.skill import HorizonSkill
from trading_core.pipelines.train import check_model_config, default_test_start
from trading_core.pipelines.tune_trials import on_one_device
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import DateArray, FloatArray

Scheme = Literal["purged_k_fold", "combinatorial", "expanding", "rolling"]
WALKING = ("expanding", "rolling")
MAX_TRAININGS = 500


@dataclass(frozen=True, slots=True)
class FoldPlan:
    """How the sessions before the test are cut; see trading_core.dataset.splits.

    folds: groups (purged_k_fold, combinatorial), or blocks of `fold_sessions` at the end of the history (expanding,
    rolling). tested: groups that each fold of `combinatorial` tests. train_sessions: length of the window of `rolling`.
    embargo: sessions dropped beyond the purge of the longest horizon + 1; default the config's.
    Errors: UnknownNameError (scheme), InvalidConfigError.
    """

    scheme: Scheme = "purged_k_fold"
    folds: int = 5
    tested: int = 2
    fold_sessions: int = 63  # a quarter
    train_sessions: int | None = None
    embargo: int | None = None

    def __post_init__(self) -> None:
        if self.scheme not in get_args(Scheme):
            raise UnknownNameError("scheme of folds", self.scheme, get_args(Scheme))
        problems = [] if self.folds >= 2 else [f"folds: {self.folds} is not allowed; give at least 2"]
        if self.trainings > MAX_TRAININGS:
            problems.append(f"{self.trainings} trainings; give fewer folds, for at most {MAX_TRAININGS}")
        if (self.scheme == "rolling") != (self.train_sessions is not None):
            problems.append("train_sessions: the scheme 'rolling' needs it, and no other one has it")
        if problems:
            raise InvalidConfigError("The cross-validation", problems)

    def embargo_for(self, model: ModelConfig) -> int:
        return model.split.embargo if self.embargo is None else self.embargo

    @property
    def trainings(self) -> int:
        return comb(self.folds, self.tested) if self.scheme == "combinatorial" else self.folds

    def cut(self, sessions: DateArray, before: date, model: ModelConfig) -> CombinatorialFolds:
        """The folds and the paths through them; all schemes but `combinatorial` have one path.

        sessions: [T], all before `before`. model: its longest horizon purges, and its split says what share validates.
        Errors: InvalidConfigError, TooShortHistoryError.
        """
        max_horizon, share, embargo = max(model.horizons), model.split.validation_fraction, self.embargo_for(model)
        if self.scheme == "combinatorial":
            return combinatorial(sessions, before, max_horizon, self.folds, self.tested, share, embargo)
        if self.scheme == "purged_k_fold":
            return _one_path(purged_k_fold(sessions, before, max_horizon, self.folds, share, embargo))
        first, expanding = first_of_last(sessions, self.folds, self.fold_sessions), self.scheme == "expanding"
        made = walk_forward(
            sessions, first, self.fold_sessions, max_horizon, share, embargo, expanding, self.train_sessions
        )
        return _one_path([Fold(s.train, s.validation, s.test, (number,)) for number, s in enumerate(made)])


@dataclass(frozen=True, slots=True)
class PartSkill:
    """One line of the table: a fold, or a path through all of them (rank IC only), at one horizon.

    part, tested: counted from 1. trained: decisions that were learned from. sessions: those with a rank IC (its mean is
    `rank_ic`). roc_auc, brier: see pipelines.skill.HorizonSkill.
    """

    part: str
    tested: str
    horizon: int
    trained: int | None
    sessions: int
    rank_ic: Real
    roc_auc: Real
    brier: Real


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """What came out. start .. end: decisions that were tested, each once on every path.

    rank_ic: of the shortest horizon, mean over paths; fold_spread, path_spread: its standard deviation (ddof 1) over folds
    and over paths, not defined for a single one. Neither is a standard error: folds share what they learn from, and paths
    their forecasts.
    """

    market: str
    model: str
    scheme: str
    folds: int
    paths: int
    purge: int  # sessions dropped at each border
    embargo: int
    start: date
    end: date
    horizon: int
    rank_ic: Real
    fold_spread: Real
    path_spread: Real
    table: str  # path of the JSON in the artifact store
    parts: tuple[PartSkill, ...]


def cross_validate(
    ws: Workspace,
    *,
    model: str,
    plan: FoldPlan,
    test_start: date | None,
    now: datetime,
    given: ModelConfig | None = None,
) -> CrossValidation:
    """Trains `model` (given: its config, where it is not one that can be named) once per fold and judges the tests.

    test_start: default as in training. The figures go to the `evaluations` table, the mean rank IC to the trials.
    Errors: ConfigError, NoDataError, TooShortHistoryError, TrainingFailedError.
    """
    require_daily(ws.market)
    chosen = on_one_device(config.load_model(model, ws.settings) if given is None else given)
    check_model_config(chosen, f"model '{model}'")
    before = test_start or default_test_start(ws, now)
    versions, last = current_versions(ws, chosen.features), ws.sessions.previous(before)
    panel = load_panel(ws, chosen.features, ws.market.history_start, last, versions, chosen.instrument_columns)
    made = plan.cut(panel.sessions, before, chosen)
    results = []
    for number, fold in enumerate(made.folds, start=1):
        results.append(_judged(panel, chosen, model, fold))
        print(f"fold {number} of {len(made.folds)}  rank IC {results[-1].skill[0].rank_ic:+.4f}", flush=True)
    formulas = features.fingerprints(chosen.features)
    # Of what determines the figures: the same call replaces its own rows.
    key = config.config_hash([ws.market.id, chosen, asdict(plan), str(before), versions, formulas], 16)
    found = _found(ws, model, chosen, plan, made, panel.sessions, results, key)
    _record(ws, found, results, f"{config.config_hash(chosen)}-{key}", key, now)
    ws.store.write_json(found.table, refs.dump(found))
    return found


def _found(
    ws: Workspace,
    name: str,
    model: ModelConfig,
    plan: FoldPlan,
    made: CombinatorialFolds,
    sessions: DateArray,
    results: Sequence[_Result],
    key: str,
) -> CrossValidation:
    days = sessions[np.concatenate(made.groups)].astype(object)
    parts = (*_fold_lines(results), *_path_lines(made, results, model.horizons))
    rank_ic, fold_spread, path_spread = _headline(parts, min(model.horizons))
    return CrossValidation(
        market=ws.market.id,
        model=name,
        scheme=plan.scheme,
        folds=len(made.folds),
        paths=len(made.paths),
        purge=max(model.horizons) + 1,
        embargo=plan.embargo_for(model),
        start=days[0],
        end=days[-1],
        horizon=min(model.horizons),
        rank_ic=rank_ic,
        fold_spread=fold_spread,
        path_spread=path_spread,
        table=ws.path("cross-validations", f"{key}.json"),
        parts=parts,
    )


def _one_path(folds: Sequence[Fold]) -> CombinatorialFolds:
    """Folds that test every decision once."""
    groups = tuple(fold.test for fold in folds)
    return CombinatorialFolds(tuple(folds), groups, np.arange(len(folds), dtype=np.int64)[None, :])


@dataclass(frozen=True, slots=True, eq=False)
class _Result:
    """trained: decisions that were learned from. rank_ic: [tested decisions, H] of every session, NaN where it has none."""

    fold: Fold
    trained: int
    skill: tuple[HorizonSkill, ...]
    rank_ic: FloatArray


def _judged(panel: Panel, model: ModelConfig, name: str, fold: Fold) -> _Result:
    """One training, judged on the fold's test."""
    known = max(fold.train[-1], fold.validation[-1]) + 1 + max(model.horizons)
    split = Split(fold.train, fold.validation, fold.test, panel.sessions[known].astype(object))
    prepared = prepare(panel, model, split)
    found = out_of_fold(prepared, fit_prepared(prepared, model, name, on_progress=lambda _: None))
    rank_ic = np.full((len(fold.test), len(model.horizons)), np.nan)
    for h in range(len(model.horizons)):
        series = rank_ic_per_date(found.score[:, h], found.returns[:, h], found.windows.columns)
        rank_ic[np.searchsorted(fold.test, series.dates), h] = series.values
    return _Result(fold, len(prepared.train_columns), found.skill(), rank_ic)


# --- the table --------------------------------------------------------------------------------------------------------


def _fold_lines(results: Sequence[_Result]) -> list[PartSkill]:
    return [
        PartSkill(
            part=f"fold {number}",
            tested=", ".join(str(group + 1) for group in result.fold.tested),
            horizon=row.horizon,
            trained=result.trained,
            sessions=row.sessions,
            rank_ic=row.rank_ic,
            roc_auc=row.roc_auc,
            brier=row.brier,
        )
        for number, result in enumerate(results, start=1)
        for row in result.skill
    ]


def _path_lines(made: CombinatorialFolds, results: Sequence[_Result], horizons: Sequence[int]) -> list[PartSkill]:
    assembled = made.assemble([result.rank_ic for result in results])  # [phi, decisions, H]
    return [
        PartSkill(
            part=f"path {number}",
            tested=f"1 to {len(made.groups)}",
            horizon=horizon,
            trained=None,
            sessions=len(_known(values[:, h])),
            rank_ic=_mean(values[:, h]),
            roc_auc=math.nan,
            brier=math.nan,
        )
        for number, values in enumerate(assembled, start=1)
        for h, horizon in enumerate(horizons)
    ]


def _headline(parts: Sequence[PartSkill], horizon: int) -> tuple[float, float, float]:
    """The mean over paths, and the spreads over folds and over paths."""
    folds, paths = (
        [part.rank_ic for part in parts if part.horizon == horizon and part.part.startswith(kind)]
        for kind in ("fold", "path")
    )
    return _mean(paths), _spread(folds), _spread(paths)


def _known(values: Sequence[float] | FloatArray) -> FloatArray:
    found = np.asarray(values, dtype=np.float64)
    return found[np.isfinite(found)]


def _mean(values: Sequence[float] | FloatArray) -> float:
    known = _known(values)
    return float(known.mean()) if len(known) else math.nan


def _spread(values: Sequence[float]) -> float:
    known = _known(values)
    return float(known.std(ddof=1)) if len(known) > 1 else math.nan


def _record(
    ws: Workspace, made: CrossValidation, results: Sequence[_Result], config_hash: str, key: str, now: datetime
) -> None:
    """All figures of the folds, the rank ICs of the paths, and one trial: one config was looked at."""
    lines = [
        (f"fold {number} h{row.horizon}", metric, float(value))
        for number, result in enumerate(results, start=1)
        for row in result.skill
        for metric, value in asdict(row).items()
        if metric != "horizon"
    ]
    paths = [part for part in made.parts if part.part.startswith("path")]
    lines += [(f"{part.part} h{part.horizon}", "rank_ic", part.rank_ic) for part in paths]
    shared: dict[str, Any] = {"start": made.start, "end": made.end, "now": now}
    evaluations.record(ws, key, lines, model_version="", **shared)  # no version: these models are not kept
    trials.record(
        ws, kind="model", subject=made.model, config_hash=config_hash, metric="rank_ic", value=made.rank_ic,
        source=f"cross-validation {key}", **shared,
    )  # fmt: skip
