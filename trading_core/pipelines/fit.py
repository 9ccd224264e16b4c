"""One training, from tables to a registered model version. Imports torch and MLflow; `train.run` calls it when needed."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from trading_core import config
from trading_core.config import ModelConfig
from trading_core.models.registry import model_entry
from trading_core.pipelines import trials
from trading_core.pipelines.after import AfterTraining, fit_after
from trading_core.pipelines.learn import Prepared, fit_prepared, prepare, split_before
from trading_core.pipelines.model_report import gather, judged
from trading_core.pipelines.panels import load_panel
from trading_core.pipelines.refs import ModelRef
from trading_core.pipelines.run_record import curves_of, files_of, headline, metrics_of, params_of
from trading_core.pipelines.train import REQUEST_TAG, TrainRequest, code_version, epochs_path, report_path
from trading_core.pipelines.workspace import Workspace
from trading_core.plots.model_report import model_report
from trading_core.registry.bundle import ModelCard, architecture_of, save_bundle
from trading_core.storage.artifacts import ArtifactStore
from trading_core.training.fit import FitResult

LIBRARIES = ("torch", "numpy", "polars", "lightning", "lightgbm", "safetensors")


def fit_and_register(ws: Workspace, request: TrainRequest, now: datetime) -> ModelRef:
    """Trains, publishes the bundle, logs to MLflow and registers the version. Nothing is registered when it fails.

    The panel ends before `test_start`: what the model must not know is not even read. A training that was killed goes on
    after its last whole epoch when the same request is run again.
    """
    model = config.validate(ModelConfig, request.model, f"model '{request.model_name}'")
    last = ws.sessions.previous(request.test_start)
    panel = load_panel(ws, model.features, request.start, last, request.versions, model.instrument_columns)
    prepared = prepare(panel, model, split_before(panel, model, np.datetime64(request.test_start)))
    counts = f"{len(prepared.train)} training and {len(prepared.validation)} validation windows"
    print(f"{model.model}: {counts}, cut-off {prepared.split.cutoff}")
    checkpoints = StoredCheckpoints(ws.store, epochs_path(ws, request.hash()))
    key = f"{request.hash()} {code_version()}"
    fitted = fit_prepared(prepared, model, request.model_name, resume=(checkpoints, key))
    after = fit_after(fitted, prepared.validation, ws.costs, ws.sessions.per_year)
    card = _card(ws, request, model, prepared, fitted, after)
    prefix = ws.path("models", request.model_name, request.hash())
    # Stamped with the request's time: trained again, the same request gives the same bundle to the last byte, so that a
    # version that cites it by its digest stays readable.
    digest = save_bundle(ws.store, prefix, fitted.module, card, request.requested_at)
    horizons = judged(prepared, fitted, after)
    page = model_report(gather(request, model, card, prepared, fitted, after, horizons))
    report = report_path(ws, request.hash())
    ws.store.write_bytes(report, page)
    metrics = metrics_of(fitted, horizons)
    run_id = ws.registry().log_run(
        ws.market.id,
        f"{request.model_name} {request.hash()[:8]}",
        params=params_of(request, model, card, fitted),
        metrics=metrics,
        curves=curves_of(fitted.history),
        files=files_of(request, fitted, after, model.horizons, page, ws.store, prefix),
        tags={REQUEST_TAG: request.hash(), "market": ws.market.id, "model": model.model},
    )
    # Before the version is there: a run that dies in between is run again, one that has registered is not.
    _record_trial(ws, request, card, metrics, run_id, now)
    made = _register(ws, request, card, run_id, prefix, digest, metrics)
    checkpoints.clear()
    print(f"Report: {ws.store.uri(report)}")
    return made


@dataclass(frozen=True, slots=True)
class StoredCheckpoints:
    """Checkpoints of one training in the artifact store, where the next attempt finds them wherever it runs."""

    store: ArtifactStore
    prefix: str

    def load(self, name: str) -> bytes | None:
        path = f"{self.prefix}/{name}.safetensors"
        return self.store.read_bytes(path) if self.store.exists(path) else None

    def save(self, name: str, data: bytes) -> None:
        self.store.write_bytes(f"{self.prefix}/{name}.safetensors", data)

    def clear(self) -> None:
        self.store.delete(self.prefix)


def _card(
    ws: Workspace,
    request: TrainRequest,
    model: ModelConfig,
    prepared: Prepared,
    fitted: FitResult,
    after: AfterTraining,
) -> ModelCard:
    entry = model_entry(model.model)
    split, days = prepared.split, prepared.scaled.panel.sessions.astype(object)
    where = f"architecture of '{request.model_name}'"
    return ModelCard(
        market=ws.market.id,
        model=model.model,
        architecture=architecture_of(config.parse_options(entry.config, model.architecture, where)),
        members=fitted.members,
        scope=fitted.scope,
        spec=prepared.spec,
        features=tuple(model.features),
        instrument_columns=tuple(model.instrument_columns),
        fingerprints=request.fingerprints,
        target_scale=model.target_scale,
        class_threshold=model.class_threshold,
        barrier_width=model.barrier_width,
        static=tuple(model.static),
        scaler=prepared.scaler.to_json(),
        vocabulary=prepared.vocabulary.to_json(),
        calibration=tuple(calibrator.to_json() for calibrator in fitted.calibration),
        class_calibration={
            str(target): tuple(fit.to_json() for fit in found.calibration) for target, found in after.classes.items()
        },
        intervals=tuple(interval.to_json() for interval in after.intervals),
        adaptive=after.adaptive.to_json(),
        thresholds={name: tuple(choice.to_json() for choice in found) for name, found in after.thresholds.items()},
        # Options that were searched for know the labels that they were chosen by.
        cutoff=max(split.cutoff, model.selected_until or split.cutoff),
        train_start=days[prepared.train_columns[0]],
        train_end=days[split.train[-1]],
        validation_start=days[split.validation[0]],
        validation_end=days[split.validation[-1]],
        data_versions=request.versions,
        seed=model.seed,
        config_hash=config.config_hash(model),
        code_version=code_version(),
        library_versions={name: importlib.metadata.version(name) for name in LIBRARIES},
    )


def _register(
    ws: Workspace,
    request: TrainRequest,
    card: ModelCard,
    run_id: str,
    prefix: str,
    digest: str,
    metrics: dict[str, float],
) -> ModelRef:
    tags = {REQUEST_TAG: request.hash(), "config": request.model_name, "config_hash": card.config_hash}
    bundle = prefix  # relative to the store, which may be moved
    version = ws.registry().register(
        ws.market.id, run_id, request.model_name, bundle, digest, card.cutoff, tags, request.candidate
    )
    return ModelRef(
        market=version.market,
        model=version.model,
        version=version.version,
        bundle=version.bundle_uri,
        digest=version.digest,
        cutoff=version.cutoff,
        aliases=version.aliases,
        reused=False,
        metrics=headline(metrics),
        report=report_path(ws, request.hash()),
    )


def _record_trial(
    ws: Workspace, request: TrainRequest, card: ModelCard, metrics: dict[str, float], run_id: str, now: datetime
) -> None:
    horizon = min(card.spec.horizons)
    trials.record(
        ws,
        kind="model",
        subject=request.model_name,
        config_hash=f"{card.config_hash}-{request.hash()}",
        metric="rank_ic",
        value=metrics.get(f"validation_mean_rank_ic_h{horizon}", float("nan")),
        start=card.validation_start,
        end=card.validation_end,
        source=run_id,
        now=now,
    )
