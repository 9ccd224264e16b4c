"""Bundle + panel -> forecasts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

import numpy as np
import polars as pl

from trading_core.calibration.calibrators import calibrated, calibrator_from_json
from trading_core.calibration.conformal import Conformal
from trading_core.calibration.outputs import Outputs, read_outputs
from trading_core.calibration.temperature import ClassCalibration, calibrated_classes
from trading_core.dataset.panel import Panel
from trading_core.dataset.scaling import Scaler
from trading_core.dataset.windows import ScaledPanel, TargetScale, Vocabulary, WindowSet, WindowSpec
from trading_core.errors import BundleError, InvalidConfigError, LookAheadError, NoDataError
from trading_core.models.forward import WINDOWS_PER_BATCH, forward_samples, torch_threads
from trading_core.registry.bundle import Bundle, ModelCard
from trading_core.schema import (
    CLASS_COLUMNS,
    FORECASTS,
    INTERVAL_COLUMNS,
    MONTH,
    QUANTILE_COLUMNS,
    QUANTILES,
    SESSION,
    SYMBOL,
    TS,
    UTC_TS,
    FloatArray,
    IntArray,
)

FURTHER = ("volatility", "p_bear", "p_bull", "p_stop", "p_take")  # null where the model has no such target
_COLUMNS = pl.Schema({name: dtype for name, dtype in FORECASTS.columns.items() if name != MONTH})


@dataclass(frozen=True, slots=True)
class ForecastLabels:
    """What every forecast row says of where it comes from."""

    model_version: str
    features_version: str
    run_id: str


def predict(
    bundle: Bundle,
    panel: Panel,
    columns: IntArray,
    closes: Mapping[date, datetime],
    labels: ForecastLabels,
    batch_size: int = WINDOWS_PER_BATCH,
    threads: int = 1,
) -> pl.DataFrame:
    """Forecasts for the decisions at `columns` of the panel: schema.FORECASTS without month.

    Rows are ordered by session, symbol, horizon. closes: the close (UTC) of every session that may be asked for. A
    symbol has a row where its window is complete enough at that session; a symbol or sector that the model has not met
    takes the unknown code. A row does not depend on which others are asked for, to float32 rounding.
    Errors: LookAheadError (a session at or before the model's cut-off), BundleError (the card does not fit the code),
    InvalidConfigError (other features than the model's), NoDataError (a session without a close),
    TooShortHistoryError (the panel is shorter than the encoder).
    """
    card = bundle.card
    columns = np.unique(np.asarray(columns, dtype=np.int64))
    _check_sessions(card, panel, columns, closes, labels.model_version)
    windows = _windows(bundle, panel, columns)
    with torch_threads(threads):
        output = forward_samples(bundle.module, windows, batch_size)  # [N,H,O]
    if len(windows) == 0:
        return pl.DataFrame(schema=_COLUMNS)
    found = read_outputs(output, card.spec, windows.scale, panel.sigma[windows.symbol, windows.columns])
    return _frame(card, panel, windows, found, closes, labels)


def _check_sessions(
    card: ModelCard, panel: Panel, columns: IntArray, closes: Mapping[date, datetime], version: str
) -> None:
    total = len(panel.sessions)
    if len(columns) and not 0 <= columns[0] <= columns[-1] < total:
        raise InvalidConfigError(
            "The sessions to forecast", [f"columns {columns[0]} .. {columns[-1]} of a panel of {total}"]
        )
    for session in panel.sessions[columns].astype(object):
        if session <= card.cutoff:
            raise LookAheadError(version, card.cutoff, session)
        if session not in closes:
            raise NoDataError(
                f"The close of session {session} is not known", "Hand in the closes of all sessions asked for."
            )


def _windows(bundle: Bundle, panel: Panel, columns: IntArray) -> WindowSet:
    card = bundle.card
    target_scale: TargetScale
    if card.spec.quantiles != QUANTILES:
        raise BundleError(
            bundle.uri, f"it forecasts the quantiles {card.spec.quantiles}; the forecasts table holds {QUANTILES}"
        )
    if card.target_scale == "volatility":
        target_scale = "volatility"
    elif card.target_scale == "none":
        target_scale = "none"
    else:
        raise BundleError(bundle.uri, f"its target_scale is '{card.target_scale}'; known are 'volatility' and 'none'")
    scaler, vocabulary = Scaler.from_json(card.scaler), Vocabulary.from_json(card.vocabulary)
    if scaler.channels != card.spec.channels or scaler.features != card.inputs:
        raise BundleError(bundle.uri, "its scaler's features and channels are not those of its model")
    if vocabulary.cardinalities(card.static) != card.spec.static_cardinalities:
        raise BundleError(bundle.uri, "its vocabulary's sizes are not those of its model")
    spec = WindowSpec(card.spec.encoder_length, card.spec.horizons, target_scale, card.static)
    return WindowSet.for_inference(ScaledPanel.of(panel, scaler), columns, spec, vocabulary)


def _p_up(card: ModelCard, raw: FloatArray) -> FloatArray:
    """[N,H] calibrated probability that the label is positive. raw: [N,H]."""
    return calibrated([calibrator_from_json(text) for text in card.calibration], raw)


def _further(card: ModelCard, found: Outputs, scale: FloatArray) -> dict[str, FloatArray]:
    """[N,H] of the interval, and of what the model's further targets say, probabilities calibrated."""
    quantiles = found.quantiles
    ends = [
        Conformal.from_json(text).apply(quantiles[:, h, 0], quantiles[:, h, -1], scale[:, h])
        for h, text in enumerate(card.intervals)
    ]
    columns = {name: np.stack([pair[k] for pair in ends], axis=1) for k, name in enumerate(INTERVAL_COLUMNS)}
    if found.volatility is not None:
        columns["volatility"] = found.volatility
    for target, raw in found.probabilities().items():
        fitted = [ClassCalibration.from_json(text) for text in card.class_calibration[target]]
        probabilities = calibrated_classes(fitted, raw)
        columns |= {name: probabilities[..., k] for name, k in zip(CLASS_COLUMNS[target], (0, 2), strict=True)}
    return columns


def _frame(
    card: ModelCard,
    panel: Panel,
    windows: WindowSet,
    found: Outputs,
    closes: Mapping[date, datetime],
    labels: ForecastLabels,
) -> pl.DataFrame:
    rows, horizons = found.score.shape
    sessions = panel.sessions[windows.columns]  # [N]
    asked = np.unique(sessions)
    close_of = pl.DataFrame(
        {SESSION: asked, TS: [closes[day] for day in asked.astype(object)]},
        schema_overrides={SESSION: pl.Date, TS: UTC_TS},
    )
    flat = found.quantiles.reshape(rows * horizons, -1)  # [N,H,Q] -> [N*H,Q]
    frame = pl.DataFrame(
        {
            SYMBOL: np.repeat(np.array(panel.symbols, dtype=object)[windows.symbol], horizons),
            SESSION: np.repeat(sessions, horizons),
            "horizon": np.tile(np.array(card.spec.horizons, dtype=np.int32), rows),
            **{name: flat[:, k] for k, name in enumerate(QUANTILE_COLUMNS)},
            "score": found.score.reshape(-1),
            "p_up": _p_up(card, found.p_up).reshape(-1),
            **{name: values.reshape(-1) for name, values in _further(card, found, windows.scale).items()},
        },
        schema_overrides={SYMBOL: pl.String, SESSION: pl.Date},
    )
    frame = frame.with_columns(pl.lit(None, pl.Float64).alias(name) for name in FURTHER if name not in frame.columns)
    constants = {
        "model": card.model,
        "model_version": labels.model_version,
        "features_version": labels.features_version,
        "run_id": labels.run_id,
    }
    frame = frame.join(close_of, on=SESSION, how="left", maintain_order="left")
    return frame.with_columns(pl.lit(value).alias(name) for name, value in constants.items()).select(list(_COLUMNS))
