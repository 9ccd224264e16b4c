"""One training, from tables to a registered model version. Imports torch and MLflow; `train.run` calls it when needed."""

from __future__ import annotations

import importlib.metadata
from datetime import date, datetime

import numpy as np

from trading_core import config
from trading_core.config import ModelConfig
from trading_core.dataset.panel import Panel
from trading_core.dataset.scaling import Scaler
from trading_core.dataset.splits import Split, chronological
from trading_core.dataset.windows import ScaledPanel, Vocabulary, WindowSet, WindowSpec
from trading_core.models.registry import model_entry
from trading_core.pipelines import trials
from trading_core.pipelines.panels import load_panel
from trading_core.pipelines.refs import ModelRef
from trading_core.pipelines.train import REQUEST_TAG, TrainRequest, code_version
from trading_core.pipelines.workspace import Workspace
from trading_core.registry.bundle import ModelCard, architecture_of, save_bundle
from trading_core.registry.mlflow_registry import ModelVersion
from trading_core.schema import InputSpec
from trading_core.training.config import TrainingConfig
from trading_core.training.fit import FitResult, fit
from trading_core.training.progress import history_csv

MASK_ABOVE = 0.01  # a feature missing in more of the training rows than this gets a mask channel
LIBRARIES = ("torch", "numpy", "polars", "pytorch-forecasting", "lightning", "safetensors")


def fit_and_register(ws: Workspace, request: TrainRequest, now: datetime) -> ModelRef:
    """Trains, publishes the bundle, logs to MLflow and registers the version. Nothing is registered when it fails.

    The panel ends before `test_start`: what the model must not know is not even read.
    """
    model = config.validate(ModelConfig, request.model, f"model '{request.model_name}'")
    last = ws.sessions.previous(request.test_start)
    panel = load_panel(ws, model.features, request.start, last, request.versions)
    split = chronological(
        panel.sessions,
        request.test_start,
        max(model.horizons),
        model.split.validation_fraction,
        model.split.embargo,
        False,
    )
    train_columns = split.train[split.train >= min(model.split.skip_first, len(split.train) // 2)]
    windows = _windows(panel, model, train_columns, split)
    scaler = Scaler.from_json(windows[2])
    spec = InputSpec(scaler.channels, model.encoder_length, tuple(model.horizons), windows[0].cardinalities)
    entry = model_entry(model.model)
    architecture = config.parse_options(entry.config, model.architecture, f"architecture of '{request.model_name}'")
    training = config.parse_options(TrainingConfig, model.training, f"training of '{request.model_name}'")
    print(f"{model.model}: {len(windows[0])} training and {len(windows[1])} validation windows, cut-off {split.cutoff}")
    fitted = fit(entry, architecture, spec, windows[0], windows[1], training, model.seed)
    card = ModelCard(
        market=ws.market.id,
        model=model.model,
        architecture=architecture_of(architecture),
        spec=spec,
        features=tuple(model.features),
        fingerprints=request.fingerprints,
        target_scale=model.target_scale,
        static=tuple(model.static),
        scaler=windows[2],
        vocabulary=windows[0].vocabulary.to_json(),
        platt=tuple(platt.to_json() for platt in fitted.platt),
        cutoff=split.cutoff,
        train_start=_day(panel, train_columns[0]),
        train_end=_day(panel, split.train[-1]),
        validation_start=_day(panel, split.validation[0]),
        validation_end=_day(panel, split.validation[-1]),
        data_versions=request.versions,
        seed=model.seed,
        config_hash=config.config_hash(model),
        code_version=code_version(),
        library_versions={name: importlib.metadata.version(name) for name in LIBRARIES},
    )
    prefix = ws.path("models", request.model_name, request.hash())
    # Stamped with the request's time: trained again, the same request gives the same bundle to the last byte, so that a
    # version that cites it by its digest stays readable.
    digest = save_bundle(ws.store, prefix, fitted.module, card, request.requested_at)
    return _register(ws, request, model, card, fitted, prefix, digest, now)


def _windows(
    panel: Panel, model: ModelConfig, train_columns: np.ndarray, split: Split
) -> tuple[WindowSet, WindowSet, str]:
    """Training and validation windows over one scaled panel, and the scaler's JSON; scaled by training rows only."""
    scaler = Scaler.fit(panel.values, model.features, train_columns, mask_above=MASK_ABOVE)
    scaled = ScaledPanel.of(panel, scaler)
    spec = WindowSpec(model.encoder_length, tuple(model.horizons), model.target_scale, tuple(model.static))
    vocabulary = Vocabulary.of(panel)
    train = WindowSet.for_training(scaled, train_columns, spec, vocabulary)
    return train, WindowSet.for_training(scaled, split.validation, spec, vocabulary), scaler.to_json()


def _register(
    ws: Workspace,
    request: TrainRequest,
    model: ModelConfig,
    card: ModelCard,
    fitted: FitResult,
    prefix: str,
    digest: str,
    now: datetime,
) -> ModelRef:
    metrics = _metrics(model, fitted)
    registry = ws.registry()
    run_id = registry.log_run(
        ws.market.id,
        f"{request.model_name} {request.hash()[:8]}",
        params=_params(request, model, card, fitted),
        metrics=metrics,
        curves={
            "train_loss": [record.train_loss for record in fitted.history],
            "validation_loss": [record.val_loss for record in fitted.history],
            "validation_rank_ic": [record.val_rank_ic for record in fitted.history],
            "learning_rate": [record.learning_rate for record in fitted.history],
        },
        files={
            "request.json": config.canonical_json(request).encode(),
            "history.csv": history_csv(fitted.history).encode(),
            "bundle/config.json": ws.store.read_bytes(f"{prefix}/config.json"),
            "bundle/weights.safetensors": ws.store.read_bytes(f"{prefix}/weights.safetensors"),
            "bundle/MANIFEST.json": ws.store.read_bytes(f"{prefix}/MANIFEST.json"),
        },
        tags={REQUEST_TAG: request.hash(), "market": ws.market.id, "model": model.model},
    )
    tags = {REQUEST_TAG: request.hash(), "config": request.model_name, "config_hash": card.config_hash}
    bundle = prefix  # relative to the store, which may be moved
    version = registry.register(ws.market.id, run_id, request.model_name, bundle, digest, card.cutoff, tags)
    _record_trial(ws, request, card, metrics, run_id, now)
    return _reference(version, metrics)


def _reference(version: ModelVersion, metrics: dict[str, float]) -> ModelRef:
    return ModelRef(
        market=version.market,
        model=version.model,
        version=version.version,
        bundle=version.bundle_uri,
        digest=version.digest,
        cutoff=version.cutoff,
        aliases=version.aliases,
        reused=False,
        metrics=metrics,
    )


def _metrics(model: ModelConfig, fitted: FitResult) -> dict[str, float]:
    """Validation skill per horizon, plus how long the training took."""
    found = {"training_seconds": fitted.seconds, "best_epoch": float(fitted.best_epoch)}
    for horizon, skill in zip(model.horizons, fitted.skill, strict=True):
        for name in ("mean_ic", "mean_rank_ic", "rank_icir", "pinball", "coverage_90", "brier", "roc_auc"):
            found[f"validation_{name}_h{horizon}"] = float(getattr(skill, name))
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _params(
    request: TrainRequest, model: ModelConfig, card: ModelCard, fitted: FitResult
) -> dict[str, str | int | float | bool | None]:
    return {
        "config": request.model_name,
        "model": model.model,
        "features": ",".join(model.features),
        "horizons": ",".join(map(str, model.horizons)),
        "encoder_length": model.encoder_length,
        "target_scale": model.target_scale,
        "seed": model.seed,
        "cutoff": str(card.cutoff),
        "train": f"{card.train_start} .. {card.train_end}",
        "validation": f"{card.validation_start} .. {card.validation_end}",
        "config_hash": card.config_hash,
        "code_version": card.code_version,
        "device": fitted.device,
        **{f"architecture.{key}": value for key, value in card.architecture.items()},
        **{f"training.{key}": str(value) for key, value in model.training.items()},
        **{f"table.{key}": value for key, value in request.versions.items()},
    }


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


def _day(panel: Panel, column: int) -> date:
    return panel.sessions[column].astype(object)
