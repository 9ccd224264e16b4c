"""What MLflow keeps of one training: parameters, metrics, curves and files."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields

from trading_core import config
from trading_core.calibration.thresholds import Objective, ThresholdChoice, ThresholdRow
from trading_core.config import ModelConfig
from trading_core.pipelines.after import AfterTraining
from trading_core.pipelines.model_report import by_member
from trading_core.pipelines.train import TrainRequest
from trading_core.plots.model_report import HorizonReport
from trading_core.registry.bundle import ModelCard
from trading_core.storage.artifacts import ArtifactStore
from trading_core.training.fit import FitResult
from trading_core.training.progress import EpochRecord, history_csv

_SKILL = ("mean_ic", "mean_rank_ic", "rank_icir", "rank_t_stat", "pinball", "coverage_90")
_PROBABILITY = ("brier", "log_loss", "roc_auc", "pr_auc", "ece", "mce")
_AT_THRESHOLD = ("accuracy", "precision", "recall", "f1", "mcc")
_OF_CLASSES = ("accuracy", "balanced_accuracy", "macro_f1", "mcc", "log_loss", "brier", "ece", "mce")
_TERCILES = ("coverage_low_volatility", "coverage_middle_volatility", "coverage_high_volatility")
_HEADLINE = re.compile(
    r"training_seconds|best_epoch|"
    r"validation_(mean_ic|mean_rank_ic|rank_icir|rank_t_stat|pinball|coverage_90|brier|roc_auc|pr_auc|ece)_h\d+"
)
_CURVES = {
    "train_loss": "train_loss",
    "validation_loss": "val_loss",
    "validation_rank_ic": "val_rank_ic",
    "monitored": "monitored",
    "learning_rate": "learning_rate",
}


def params_of(
    request: TrainRequest, model: ModelConfig, card: ModelCard, fitted: FitResult
) -> dict[str, str | int | float | bool | None]:
    return {
        "config": request.model_name,
        "model": model.model,
        "features": ",".join(model.features),
        "horizons": ",".join(map(str, model.horizons)),
        "encoder_length": model.encoder_length,
        "target_scale": model.target_scale,
        "targets": ",".join(model.targets),
        "scaler": model.scaler,
        "calibration": model.calibration,
        "scope": fitted.scope,
        "members": fitted.members,
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


def metrics_of(fitted: FitResult, horizons: Sequence[HorizonReport]) -> dict[str, float]:
    """Validation skill by horizon and how long the training took; what is not defined is left out.

    Probabilities are calibrated, those before it begin with `raw_`; accuracy to mcc are at the F1 threshold. `coverage_90`
    is of the forecast quantiles, `interval_` of the conformal intervals.
    """
    found = {"training_seconds": fitted.seconds, "best_epoch": float(fitted.best_epoch)}
    for report in horizons:
        named = {name: getattr(report.skill, name) for name in _SKILL}
        named |= {name: getattr(report.calibrated, name) for name in (*_PROBABILITY, *_AT_THRESHOLD)}
        named |= {f"raw_{name}": getattr(report.raw, name) for name in ("brier", "log_loss", "ece", "mce")}
        named["brier_of_share"] = report.against_share.reference
        for prefix, skill in zip(("coverage_90", "interval"), report.intervals.values(), strict=True):
            named |= {f"{prefix}_{name.removeprefix('coverage_')}": getattr(skill, name) for name in _TERCILES}
            named |= {f"{prefix}_width": skill.mean_width, f"{prefix}_score": skill.interval_score}
        named["interval_coverage"] = report.intervals["conformal"].coverage
        for target, skills in report.classes.items():
            named |= {f"{target}_{name}": getattr(skills["calibrated"], name) for name in _OF_CLASSES}
            named |= {
                f"raw_{target}_{name}": getattr(skills["raw"], name) for name in ("log_loss", "brier", "ece", "mce")
            }
        found |= {f"validation_{name}_h{report.horizon}": float(value) for name, value in named.items()}
        for curves in report.thresholds:
            name = curves.objective.lower().replace(" ", "_")
            found[f"threshold_{name}_h{report.horizon}"] = curves.chosen
            found[f"validation_best_{name}_h{report.horizon}"] = curves.value
    return {name: value for name, value in found.items() if math.isfinite(value)}


def headline(metrics: Mapping[str, float]) -> dict[str, float]:
    """The few of `metrics_of` that a training's reference carries; MLflow has all."""
    return {name: value for name, value in metrics.items() if _HEADLINE.fullmatch(name)}


def curves_of(history: Sequence[EpochRecord]) -> dict[str, list[float]]:
    """A value per epoch: `curves/train_loss` and the like, and a network's own figures under their names; those of an
    ensemble's further networks begin with `member_2/`, `member_3/` ...

    MLflow draws what stands before a slash as a section of its own, and only then all single numbers, one by one.
    """
    found: dict[str, list[float]] = {}
    for member, records in by_member(history).items():
        prefix = "" if member == 1 else f"member_{member}/"
        for name, column in _CURVES.items():
            found[f"{prefix or 'curves/'}{name}"] = [float(getattr(record, column)) for record in records]
        for name in sorted({name for record in records for name in record.figures}):
            found[prefix + name] = [record.figures.get(name, math.nan) for record in records]
    return found


def files_of(
    request: TrainRequest,
    fitted: FitResult,
    after: AfterTraining,
    horizons: Sequence[int],
    page: bytes,
    store: ArtifactStore,
    prefix: str,
) -> dict[str, bytes]:
    """The page, the request, the history and thresholds as CSV, and the bundle that lies under `prefix`."""
    files = {
        "report.html": page,
        "request.json": config.canonical_json(request).encode(),
        "history.csv": history_csv(fitted.history).encode(),
    }
    if fitted.by_symbol:
        files["history_by_symbol.csv"] = history_by_symbol_csv(fitted.by_symbol).encode()
    for h, horizon in enumerate(horizons):
        choices = {objective: found[h] for objective, found in after.thresholds.items()}
        files[f"thresholds_h{horizon}.csv"] = thresholds_csv(choices).encode()
    bundle = {f"bundle/{path.rsplit('/', 1)[-1]}": store.read_bytes(path) for path in store.list(prefix)}
    return {**files, **bundle}


def thresholds_csv(choices: Mapping[Objective, ThresholdChoice]) -> str:
    """The table of one horizon as CSV, with a last column that says by which objectives a row was chosen.

    All searches of a horizon try the same thresholds. Numbers read back exactly; what is not defined is empty.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*(field.name for field in fields(ThresholdRow)), "chosen_by"])
    rows = next(iter(choices.values())).rows if choices else ()
    for row in rows:
        chosen = " ".join(name for name, choice in choices.items() if choice.threshold == row.threshold)
        writer.writerow([*("" if math.isnan(value) else repr(value) for value in astuple(row)), chosen])
    return out.getvalue()


def history_by_symbol_csv(by_symbol: Mapping[str, Sequence[EpochRecord]]) -> str:
    """`history_csv` of each symbol's own networks, with the symbol before each row."""
    symbols = [symbol for symbol, records in by_symbol.items() for _ in records]
    table = history_csv([record for records in by_symbol.values() for record in records])
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for symbol, line in zip(["symbol", *symbols], table.splitlines(), strict=True):
        writer.writerow([symbol, *line.split(",")])
    return out.getvalue()
