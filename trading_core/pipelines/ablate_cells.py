"""The trainings of an ablation: each (variant, seed) once, kept by its hash. Imports torch; `ablate.run` calls it when needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import numpy as np

from trading_core import config
from trading_core.calibration.calibrators import calibrated
from trading_core.config import ModelConfig
from trading_core.dataset.panel import Panel
from trading_core.dataset.splits import Split, chronological, first_of_last, walk_forward
from trading_core.errors import DataError, InvalidConfigError, TrainingFailedError
from trading_core.metrics.forecasts import rank_ic_per_date
from trading_core.pipelines import refs
from trading_core.pipelines import trials as table
from trading_core.pipelines.ablate import AblateRequest, Variant, with_change
from trading_core.pipelines.ablation_table import Cell, Line
from trading_core.pipelines.held_out import HeldOut, held_out
from trading_core.pipelines.learn import Prepared, fit_prepared, prepare
from trading_core.pipelines.panels import load_panel
from trading_core.pipelines.skill import horizon_skill
from trading_core.pipelines.train import code_version
from trading_core.pipelines.tune_trials import on_one_device
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import DateArray
from trading_core.training.fit import FitResult, forecast
from trading_core.training.tune import was_interrupted
from trading_core.training.validate import outputs_of, returns_of


def train_cells(ws: Workspace, request: AblateRequest, now: datetime) -> list[Line]:
    """All cells in the order of variants and seeds; those that were kept are read back.

    A variant that cannot be trained has its reason in the place of its cells. Errors: that of the config as it stands.
    """
    base = request.base
    last = ws.sessions.previous(request.test_start)
    panel = load_panel(ws, base.features, request.start, last, request.versions, base.instrument_columns)
    splits = _splits(panel, request)
    lines: list[Line] = []
    for variant in request.variants:
        try:
            lines.append((variant.name, _cells(ws, request, variant, panel, splits, now), ""))
        except (InvalidConfigError, DataError, TrainingFailedError) as error:
            if not lines or was_interrupted(error):
                raise
            reason = error.problems[0] if isinstance(error, InvalidConfigError) else str(error)
            print(f"{variant.name}: {reason}", flush=True)
            lines.append((variant.name, (), reason))
    return lines


def _splits(panel: Panel, request: AblateRequest) -> Sequence[Split]:
    """What all variants learn from and are judged on; without folds the validation part is what they are judged on."""
    part, horizon, sessions = request.base.split, request.longest_horizon, panel.sessions
    if not request.folds:
        share = part.validation_fraction
        return [chronological(sessions, request.test_start, horizon, share, part.embargo, require_test=False)]
    first = first_of_last(sessions, request.folds, request.fold_sessions)
    return walk_forward(sessions, first, request.fold_sessions, horizon, part.validation_fraction, part.embargo)


def _cells(
    ws: Workspace, request: AblateRequest, variant: Variant, panel: Panel, splits: Sequence[Split], now: datetime
) -> tuple[Cell, ...]:
    """The cells of one variant; what it learns from is prepared once, and only where a cell is missing."""
    chosen = with_change(request.base, variant.change)
    own = _part_of(panel, chosen)
    parts: list[Prepared] = []
    cells = []
    for seed in request.seeds:
        model = chosen.model_copy(update={"seed": seed})
        digest = request.cell_hash(model)
        path = ws.path("ablations", "cells", f"{digest}.json")
        if not ws.store.exists(path):
            parts = parts or [prepare(own, model, split) for split in splits]
            cell = _trained(request, model, parts)
            _record(ws, request, model, cell, digest, now)
            ws.store.write_json(path, refs.dump(cell))
        cells.append(refs.load(Cell, ws.store.read_json(path)))
        value = cells[-1].value("rank_ic", min(model.horizons))
        print(f"{variant.name}  seed {seed}  rank IC {value:+.4f}", flush=True)
    return tuple(cells)


def _part_of(panel: Panel, model: ModelConfig) -> Panel:
    """The panel with the inputs of a variant only."""
    places = [panel.features.index(name) for name in model.inputs]
    return replace(panel, features=tuple(model.inputs), values=np.ascontiguousarray(panel.values[:, :, places]))


def _trained(request: AblateRequest, model: ModelConfig, parts: Sequence[Prepared]) -> Cell:
    """One training per split; what is judged of each is judged together."""
    found = []
    for prepared in parts:
        fitted = fit_prepared(prepared, on_one_device(model), request.model_name, on_progress=lambda _: None)
        test = prepared.split.test
        found.append(held_out(prepared, fitted, test) if request.folds else _validated(prepared, fitted))
    return _cell(model, found, parts[0].scaled.panel.sessions)


def _cell(model: ModelConfig, found: Sequence[HeldOut], sessions: DateArray) -> Cell:
    score, p_up, returns = (np.concatenate([getattr(f, name) for f in found]) for name in ("score", "p_up", "returns"))
    quantiles = np.concatenate([f.quantiles for f in found])  # [N,H,Q], N rows of all splits
    columns = np.concatenate([f.windows.columns for f in found])
    known = np.isfinite(returns).any(axis=1)  # the last decisions of a fold at the panel's end have no label
    score, p_up, returns, quantiles, columns = (part[known] for part in (score, p_up, returns, quantiles, columns))
    skill, daily = [], {}
    for h, horizon in enumerate(model.horizons):
        label = returns[:, h]
        skill.append(horizon_skill(horizon, score[:, h], quantiles[:, h], p_up[:, h], label, sessions[columns]))
        daily[horizon] = rank_ic_per_date(score[:, h], label, columns)
    days = sessions[np.unique(columns)].astype(object)
    return Cell(
        seed=model.seed,
        inputs=len(model.inputs),
        skill=tuple(skill),
        sessions=tuple(days),
        rank_ic={horizon: tuple(map(float, series.values)) for horizon, series in daily.items()},
        code_version=code_version(),
    )


def _validated(prepared: Prepared, fitted: FitResult) -> HeldOut:
    """The forecasts of the validation part, which chose the epoch and the calibration: the same favour to all variants."""
    windows = prepared.validation
    found = outputs_of(forecast(fitted.module, windows), windows, prepared.spec)
    p_up = calibrated(fitted.calibration, found.p_up)
    return HeldOut(windows, found.score, found.quantiles, p_up, found.p_up, returns_of(windows))


def _record(ws: Workspace, request: AblateRequest, model: ModelConfig, cell: Cell, digest: str, now: datetime) -> None:
    """The training's row in `trials`, before the cell is kept: one that is trained again writes the same row again."""
    value = cell.value("rank_ic", min(model.horizons))
    table.record(
        ws,
        kind="model",
        subject=request.model_name,
        config_hash=f"{config.config_hash(model)}-{digest}",
        metric="rank_ic",
        value=value if math.isfinite(value) else math.nan,
        start=cell.sessions[0],
        end=cell.sessions[-1],
        source=f"ablation {request.hash()}",
        now=now,
    )
