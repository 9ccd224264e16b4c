"""The trials of a search, trained and recorded. Imports torch; `tune.run` calls it when needed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import date, datetime

import numpy as np

from trading_core import config
from trading_core.config import ModelConfig
from trading_core.errors import TrainingFailedError
from trading_core.models.registry import model_entry
from trading_core.models.search import Value
from trading_core.pipelines import trials as table
from trading_core.pipelines.learn import Prepared, fit_prepared, prepare, split_before
from trading_core.pipelines.panels import load_panel
from trading_core.pipelines.tune import TuneRequest, study_of, with_options
from trading_core.pipelines.workspace import Workspace
from trading_core.training.config import TrainingConfig
from trading_core.training.trial import measure
from trading_core.training.tune import Measured, Report, was_interrupted
from trading_core.training.watch import watched


def run_trials(ws: Workspace, request: TuneRequest, trials: int, now: datetime, timeout: float | None) -> bool:
    """Works on the request's study until it holds `trials` trials; False when the time was up before.

    The panel ends before `test_start`, and all trials share it: options of architecture and training change no window.
    """
    study = study_of(ws, request)
    before = study.done()
    print(f"Study '{request.study}': {before} of {trials} trials are there", flush=True)
    if before >= trials:
        return True
    base = one_network(config.validate(ModelConfig, request.model, f"model '{request.model_name}'"))
    last = ws.sessions.previous(request.test_start)
    panel = load_panel(ws, base.features, request.start, last, request.versions, base.instrument_columns)
    prepared = prepare(panel, base, split_before(panel, base, np.datetime64(request.test_start)))
    return study.run(trials, _Trainings(ws, request, base, prepared, now), timeout)


def one_network(model: ModelConfig) -> ModelConfig:
    """The config with one pooled network on one device: what a trial trains, whatever the config asks for.

    An ensemble, or networks per symbol, would cost a multiple and come in much the same order.
    """
    return on_one_device(model.model_copy(update={"ensemble": 1, "scope": "pooled"}))


def on_one_device(model: ModelConfig) -> ModelConfig:
    """The config for a program that trains many times: devices that share a training start the whole program anew."""
    training = {key: value for key, value in model.training.items() if key != "devices"}
    return model.model_copy(update={"training": training})


@dataclass(frozen=True, slots=True)
class _Trainings:
    """Trains one trial after the other on what was prepared for all of them."""

    ws: Workspace
    request: TuneRequest
    base: ModelConfig
    prepared: Prepared
    now: datetime

    def __call__(self, number: int, options: dict[str, Value], report: Report) -> Measured:
        model, name = with_options(self.base, options), self.request.model_name
        where = f"trial {number} of '{name}'"
        training = config.parse_options(TrainingConfig, model.training, f"training of {where}")
        epochs = training.epochs if model_entry(model.model).fit_closed_form is None else 1
        try:
            measured = measure(lambda tell: fit_prepared(self.prepared, model, name, None, tell), epochs, report)
        except TrainingFailedError as error:
            if not was_interrupted(error):  # its loss was no number, say
                self._record(number, model, math.nan)
            raise
        rank_ic = measured.facts["rank_ic"]
        self._record(number, model, math.nan if rank_ic is None else float(rank_ic))
        monitor = watched(training, self.prepared.validation)
        return replace(measured, facts={**measured.facts, "monitor": monitor})

    def _record(self, number: int, model: ModelConfig, rank_ic: float) -> None:
        """The trial's row, before the study knows the trial's end: one that is begun again writes the same row again."""
        days = self.prepared.scaled.panel.sessions
        first, last = (_day(days[self.prepared.split.validation[at]]) for at in (0, -1))
        table.record(
            self.ws,
            kind="model",
            subject=self.request.model_name,
            config_hash=f"{config.config_hash(model)}-{self.request.hash()}",
            metric="rank_ic",
            value=rank_ic,
            start=first,
            end=last,
            source=f"tuning {self.request.hash()} trial {number}",
            now=self.now,
        )


def _day(session: np.datetime64) -> date:
    day: date = session.astype(object)
    return day
