"""A search for a model's options: the request, the trials in a process of their own, and what came of them.

The request holds all that determines the trials' results, and its hash names the study: another config, data version, range
or seed begins another study, the same one goes on where it was. How many trials it is to reach is not part of it.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from trading_core import config
from trading_core.config import ModelConfig, Settings
from trading_core.errors import InvalidConfigError, NoDataError, TrainingFailedError
from trading_core.features import build as features
from trading_core.models.registry import model_entry
from trading_core.models.search import Real, SearchSpace, Value
from trading_core.pipelines import requests
from trading_core.pipelines.markets import require_daily
from trading_core.pipelines.panels import current_versions
from trading_core.pipelines.refs import TuneRef, TuneResult
from trading_core.pipelines.train import check_model_config, default_test_start
from trading_core.pipelines.workspace import Workspace
from trading_core.training.config import TrainingConfig

if TYPE_CHECKING:
    from trading_core.training.tune import Pruner, Study, TrialRow

MAX_TRIALS = 500


@dataclass(frozen=True, slots=True)
class TuneRequest:
    """Everything a trial needs. `test_start`: the first session that no trial knows anything of; see TrainRequest.

    space: the ranges searched, as Optuna's distributions. seed: of the proposals; every training has the config's own, so
    that trials differ by their options alone.
    """

    market: dict[str, Any]
    model_name: str
    model: dict[str, Any]
    space: dict[str, str]
    seed: int
    pruner: str
    start: date
    test_start: date
    versions: dict[str, int]
    fingerprints: dict[str, str]
    requested_at: datetime

    def hash(self) -> str:
        """Of what determines the trials."""
        parts = {
            "market": self.market["id"],
            "model": self.model,
            "search": [self.space, self.seed, self.pruner],
            "range": [str(self.start), str(self.test_start)],
            "versions": self.versions,
            "fingerprints": self.fingerprints,
        }
        return config.config_hash(parts, 16)

    @property
    def study(self) -> str:
        """The study's name in the database."""
        return f"{self.market['id']} {self.model_name} {self.hash()}"


def prepare(
    ws: Workspace,
    *,
    model: str,
    trials: int,
    test_start: date | None,
    now: datetime,
    seed: int | None = None,
    pruner: Pruner = "median",
) -> TuneRef:
    """Writes the request, opens its study and returns its reference. seed: default the config's.

    The first trial is the config as it stands, where it lies within the ranges.
    Errors: ConfigError (also for a model without anything to search for), NoDataError, TooShortHistoryError.
    """
    from trading_core.training.tune import contains, distributions

    require_daily(ws.market)
    if not 1 <= trials <= MAX_TRIALS:
        raise InvalidConfigError("The search", [f"trials: {trials} is not allowed; give 1 to {MAX_TRIALS}"])
    chosen = config.load_model(model, ws.settings)
    check_model_config(chosen, f"model '{model}'")
    space = search_space(chosen, model)
    request = TuneRequest(
        market=ws.market.model_dump(mode="json"),
        model_name=model,
        model=chosen.model_dump(mode="json"),
        space=distributions(space),
        seed=chosen.seed if seed is None else seed,
        pruner=pruner,
        start=ws.market.history_start,
        test_start=test_start or default_test_start(ws, now),
        versions=current_versions(ws, chosen.features),
        fingerprints=features.fingerprints(chosen.features),
        requested_at=now,
    )
    uri = requests.write_request(ws, "tuning", request)
    standing = options_of(chosen, space)
    if contains(space, standing):
        study_of(ws, request).begin_with(standing)
    return TuneRef(ws.market.id, uri, request.hash(), trials)


def search_space(model: ModelConfig, name: str) -> SearchSpace:
    """`architecture.<field>` of the model's own file and, where it is trained by gradients, `training.<field>`.

    Errors: InvalidConfigError for a model that has nothing to search for.
    """
    from trading_core.training.tune import TRAINING_SEARCH

    entry = model_entry(model.model)
    found: dict[str, Any] = {f"architecture.{key}": value for key, value in entry.search.items()}
    if entry.fit_closed_form is None:
        found |= {f"training.{key}": value for key, value in TRAINING_SEARCH.items()}
        lowest = float(model.training.get("min_learning_rate", 0.0))
        rates = TRAINING_SEARCH["learning_rate"]
        if isinstance(rates, Real) and lowest > rates.low:  # no rate may lie below the one that a schedule ends at
            found["training.learning_rate"] = Real(lowest, max(rates.high, 10.0 * lowest), rates.log)
    if not found:
        raise InvalidConfigError(f"A search for '{name}'", [f"model: '{model.model}' has no option to search for"])
    return found


def options_of(model: ModelConfig, space: SearchSpace) -> dict[str, Value]:
    """The config's own values of the options of `space`, defaults included."""
    parts = {
        "architecture": config.parse_options(model_entry(model.model).config, model.architecture, "architecture"),
        "training": config.parse_options(TrainingConfig, model.training, "training"),
    }
    return {name: getattr(parts[name.partition(".")[0]], name.partition(".")[2]) for name in space}


def with_options(model: ModelConfig, options: Mapping[str, Value]) -> ModelConfig:
    """The config with the options of a trial in it."""
    parts = {"architecture": dict(model.architecture), "training": dict(model.training)}
    for name, value in options.items():
        part, _, key = name.partition(".")
        parts[part][key] = value
    return model.model_copy(update=parts)


def study_of(ws: Workspace, request: TuneRequest) -> Study:
    """The request's study. Errors: InvalidConfigError (the database cannot be opened)."""
    from trading_core.training.tune import StudySpec, open_study

    spec = StudySpec(request.study, request.space, request.seed, request.pruner)  # type: ignore[arg-type]
    return open_study(ws.settings.tuning, spec)


# --- running ----------------------------------------------------------------------------------------------------------


def run(uri: str, trials: int, settings: Settings, now: datetime, timeout: float | None = None) -> bool:
    """Takes trials from the request's study until it holds `trials` of them; False when the time was up before.

    timeout: seconds after which no trial is begun any more. Each trial that was trained leaves a row in `trials`.
    """
    from trading_core.pipelines.tune_trials import run_trials  # torch only from here on

    ws, request = requests.read_request(uri, TuneRequest, settings)
    return run_trials(ws, request, trials, now, timeout)


def run_in_process(ref: TuneRef, settings: Settings, timeout: float | None = None) -> None:
    """Runs `trading tune --request URI` as a child process: see `requests.run_in_process`. Errors: TrainingFailedError."""
    more = [] if timeout is None else ["--timeout", str(timeout)]
    requests.run_in_process(["tune", "--request", ref.request_uri, "--trials", str(ref.trials), *more], settings)


def run_in_processes(ws: Workspace, ref: TuneRef, workers: int, timeout: float | None = None) -> None:
    """`run_in_process` by several workers side by side. A worker that dies is named, and its trial taken over by the others.

    Errors: TrainingFailedError (workers died, and the study does not hold its trials).
    """
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(run_in_process, ref, ws.settings, timeout) for _ in range(workers)]
    died = [
        f"worker {number} of {workers}: {found.reason}"
        for number, future in enumerate(futures, start=1)
        if (found := _failure(future)) is not None
    ]
    _, request = requests.read_request(ref.request_uri, TuneRequest, ws.settings)
    done = study_of(ws, request).done()
    if died and done < ref.trials:
        raise TrainingFailedError("\n".join([f"the study holds {done} of {ref.trials} trials", *died]))
    for line in died:
        print(f"{line}\nThe study is complete all the same: other workers did its trials.", flush=True)


def _failure(future: Future[None]) -> TrainingFailedError | None:
    """Errors: whatever ended the worker that is not a training's end."""
    error = future.exception()
    if error is None or isinstance(error, TrainingFailedError):
        return error
    raise error


# --- what came of it --------------------------------------------------------------------------------------------------


def result(ws: Workspace, ref: TuneRef, save_as: str | None = None) -> TuneResult:
    """The best trial, with the table of all and the best config in the artifact store.

    save_as: also a model config of that name under var/, which `trading train --model` takes from then on.
    Errors: NoDataError (no trial is complete), InvalidConfigError (a name that is taken or not allowed).
    """
    _, request = requests.read_request(ref.request_uri, TuneRequest, ws.settings)
    study = study_of(ws, request)
    rows, best = study.rows(), study.best()
    if best is None:
        failed = [row.error for row in rows if row.error]
        reason = f"; the last one failed: {failed[-1]}" if failed else ""
        raise NoDataError(f"No trial of study '{request.study}' is complete{reason}", "Run `trading tune` for more.")
    text = _config_text(request, best)
    prefix = ws.path("tuning", request.hash())
    ws.store.write_bytes(f"{prefix}/trials.csv", trials_csv(rows, list(request.space)).encode())
    ws.store.write_bytes(f"{prefix}/best.yaml", text.encode())
    if save_as:
        save_config(ws.settings, save_as, text)
    count = [row.state for row in rows].count
    return TuneResult(
        market=ref.market,
        model=request.model_name,
        study=request.study,
        # What was watched: the loss, where no session has a rank IC. Trials of older versions do not say.
        monitor=str(best.facts.get("monitor", request.model["training"].get("monitor", TrainingConfig().monitor))),
        complete=count("complete"),
        pruned=count("pruned"),
        failed=count("failed"),
        best_trial=best.number,
        best_value=best.value,
        first_value=_value_of_standing(request, rows),
        best_options=best.options,
        table=f"{prefix}/trials.csv",
        config=f"{prefix}/best.yaml",
        saved_as=save_as or "",
    )


def table(ws: Workspace, ref: TuneRef) -> list[dict[str, Any]]:
    """All trials, the best first, for people to read."""
    _, request = requests.read_request(ref.request_uri, TuneRequest, ws.settings)
    rows = sorted(study_of(ws, request).rows(), key=lambda row: (row.state != "complete", -_known(row.value)))
    return [
        {"trial": row.number, "state": row.state, "value": row.value, "rank_ic": row.facts.get("rank_ic")}
        | {name.partition(".")[2]: row.options.get(name) for name in request.space}
        for row in rows
    ]


def trials_csv(rows: Sequence[TrialRow], options: Sequence[str]) -> str:
    """One line per trial, lost ones included; numbers are written so that they read back exactly."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["trial", "state", "value", "rank_ic", "epochs", "best_epoch", *options, "error"])
    for row in rows:
        facts = [row.facts.get(name) for name in ("rank_ic", "epochs", "best_epoch")]
        value = None if math.isnan(row.value) else row.value
        writer.writerow([row.number, row.state, value, *facts, *(row.options.get(name) for name in options), row.error])
    return text.getvalue()


def save_config(settings: Settings, name: str, text: str) -> Path:
    """Writes a model config under var/. One of that name that says something else is never overwritten."""
    if not re.fullmatch(config.NAME_PATTERN, name):
        raise InvalidConfigError(f"The name '{name}'", ["it must be lower-case letters, digits and hyphens"])
    target = settings.var_dir / "configs" / "models" / f"{name}.yaml"
    taken = [folder for folder in (settings.config_dir / "models", target.parent) if (folder / target.name).is_file()]
    if taken and (taken[0] / target.name).read_text(encoding="utf-8") != text:
        problem = f"'{taken[0] / target.name}' is there and says something else; give another name or remove it"
        raise InvalidConfigError(f"The model config '{name}'", [problem])
    if not taken:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_suffix(".tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(target)
    return target


def _config_text(request: TuneRequest, best: TrialRow) -> str:
    base = config.validate(ModelConfig, request.model, f"model '{request.model_name}'")
    tuned = with_options(base, best.options)
    values = tuned.model_dump(mode="json", exclude_defaults=True)
    values["selected_until"] = str(request.test_start - timedelta(days=1))  # no trial knew a label beyond it
    values["description"] = (
        f"'{request.model_name}' with the options of trial {best.number} of study '{request.study}'."
    )
    return yaml.safe_dump(values, sort_keys=False, width=120, allow_unicode=True)


def _value_of_standing(request: TuneRequest, rows: Sequence[TrialRow]) -> float:
    base = config.validate(ModelConfig, request.model, f"model '{request.model_name}'")
    standing = options_of(base, search_space(base, request.model_name))
    return next((row.value for row in rows if row.state == "complete" and row.options == standing), math.nan)


def _known(value: float) -> float:
    return -math.inf if math.isnan(value) else value
