"""Small samples that the tests of models, training, registry and inference share: a panel with a planted signal."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, time
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np

from trading_core.calibration.conformal import Adaptive, Conformal
from trading_core.calibration.temperature import ClassCalibration
from trading_core.dataset.panel import Panel, trailing_volatility
from trading_core.dataset.scaling import Scaler
from trading_core.dataset.windows import ScaledPanel, Vocabulary, WindowSet, WindowSpec
from trading_core.models.base_rate import BaseRateConfig
from trading_core.models.gru import GRUConfig
from trading_core.models.hybrid import HybridConfig
from trading_core.models.kan_former import KANFormerConfig
from trading_core.models.linear import LinearConfig
from trading_core.models.logistic import LogisticConfig
from trading_core.models.lstm import LSTMConfig
from trading_core.models.mlp import MLPConfig
from trading_core.models.registry import MODELS
from trading_core.models.sma_cross import SMACrossConfig
from trading_core.models.tft import TFTConfig
from trading_core.models.transformer import TransformerConfig
from trading_core.models.trees import LightGBMConfig
from trading_core.registry.bundle import Bundle, ModelCard, architecture_of
from trading_core.schema import CLASS_TARGETS, Target
from trading_core.training.config import TrainingConfig
from trading_core.training.data import input_spec
from trading_core.training.fit import FitResult

# A new member of MODELS brings one small config here.
CONFIGS: dict[str, Any] = {
    "tft": TFTConfig(hidden_size=8, attention_heads=2, hidden_continuous_size=4, dropout=0.1),
    "lstm": LSTMConfig(hidden_size=8, dropout=0.1),
    "gru": GRUConfig(hidden_size=8, dropout=0.1, bidirectional=True),
    "transformer": TransformerConfig(hidden_size=16, attention_heads=2, layers=1, feed_forward_size=16),
    "mlp": MLPConfig(hidden_size=16, layers=1, dropout=0.1),
    "hybrid": HybridConfig(hidden_size=8, attention_heads=2, feed_forward_size=16, experts=2, expert_size=4),
    "kan_former": KANFormerConfig(
        hidden_size=8, attention_heads=2, feed_forward_size=8, experts=2, expert_size=4, revin_channels="f1"
    ),
    "linear": LinearConfig(ridge=0.001, lags=2),
    "logistic": LogisticConfig(ridge=0.001, lags=2),
    "lightgbm": LightGBMConfig(rounds=60, learning_rate=0.1, leaves=7, min_leaf_samples=30, lags=2, patience=10),
    "sma_cross": SMACrossConfig(channel="f0"),  # in place of the averages' order, the sign of the planted signal
    "base_rate": BaseRateConfig(),
}
# Solved or counted, so that every seed gives the same; lightgbm draws rows and inputs.
SEEDLESS = {"linear", "logistic", "sma_cross", "base_rate"}
# Models that give some targets only; the others give all.
GIVES = {"linear": (Target.QUANTILES,), "logistic": (Target.QUANTILES, Target.DIRECTION)}
# Models that cannot learn the planted signal, and why.
BLIND = {"base_rate": "it looks at no input"}
TRAINING = TrainingConfig(epochs=3, learning_rate=0.02, dates_per_batch=6, symbols_per_date=None, patience=3, threads=1)
ENCODER = 5
HORIZONS = (1, 3)


def choices_of(name: str) -> dict[str, tuple[Any, ...]]:
    """What the options of a model that are words or switches may be, by field."""
    hints = {key: hint for key, hint in get_type_hints(MODELS[name].config).items() if key[0] != "_"}
    words = {key: get_args(hint) for key, hint in hints.items() if get_origin(hint) is Literal}
    return words | {key: (False, True) for key, hint in hints.items() if hint is bool}


def variants() -> dict[str, tuple[str, Any]]:
    """Every model's name with its sample, and with the sample's words and switches at their other values, one by one."""
    found = {name: (name, config) for name, config in CONFIGS.items()}
    for name, config in CONFIGS.items():
        for key, values in choices_of(name).items():
            others = [value for value in values if value != getattr(config, key)]
            found |= {f"{name}-{key}={value}": (name, replace(config, **{key: value})) for value in others}
    return found


def planted_panel(
    symbols: int = 16, sessions: int = 160, seed: int = 3, missing: float = 0.0, ic: float = 0.6
) -> Panel:
    """Feature f0 of t has correlation `ic` with the return from open t+1 to open t+2; f1 and f2 are noise."""
    random = np.random.default_rng(seed)
    values = random.standard_normal((symbols, sessions, 3)).astype(np.float32)
    noise = random.standard_normal((symbols, sessions))
    returns = 0.02 * noise
    returns[:, 2:] = 0.02 * (ic * values[:, :-2, 0] + np.sqrt(1.0 - ic**2) * noise[:, 2:])
    opens = 100.0 * np.exp(np.cumsum(returns, axis=1))
    closes = opens * np.exp(0.001 * random.standard_normal((symbols, sessions)))
    values[random.random(values.shape) < missing] = np.nan
    days = np.arange("2021-01-01", "2022-12-31", dtype="datetime64[D]")
    days = days[np.is_busday(days)][:sessions]
    names = tuple(f"S{i:02d}" for i in range(symbols))
    sector = np.arange(symbols, dtype=np.int64) % 3  # 0 is unknown
    return Panel(
        names, days, ("f0", "f1", "f2"), values, opens, closes, trailing_volatility(closes), sector, ("a", "b")
    )


def window_sets(panel: Panel, horizons: tuple[int, ...] = HORIZONS) -> tuple[WindowSet, WindowSet]:
    """Train on the first 100 sessions, validate on 105 .. 135, leave the rest for forecasts."""
    columns = np.arange(100)
    scaled = ScaledPanel.of(panel, Scaler.fit(panel.values, panel.features, columns))
    spec = WindowSpec(ENCODER, horizons, "volatility", ("sector",))
    vocabulary = Vocabulary.of(panel)
    train = WindowSet.for_training(scaled, columns, spec, vocabulary)
    return train, WindowSet.for_training(scaled, np.arange(105, 136), spec, vocabulary)


def scaler_of(windows: WindowSet) -> Scaler:
    return Scaler.fit(windows.scaled.panel.values, windows.scaled.panel.features, np.arange(100))


def card_of(name: str, result: FitResult, train: WindowSet, config: Any = None) -> ModelCard:
    """The card of a model with `config`; without one, of the sample."""
    panel = train.scaled.panel
    days = panel.sessions.astype(object)
    return ModelCard(
        market="test",
        model=name,
        architecture=architecture_of(config or CONFIGS[name]),
        members=result.members,
        scope=result.scope,
        spec=input_spec(train),
        features=panel.features,
        instrument_columns=(),
        fingerprints={feature: f"print-of-{feature}" for feature in panel.features},
        target_scale="volatility",
        class_threshold=train.spec.class_threshold,
        barrier_width=train.spec.barrier_width,
        static=train.spec.static,
        scaler=scaler_of(train).to_json(),
        vocabulary=train.vocabulary.to_json(),
        calibration=tuple(fitted.to_json() for fitted in result.calibration),
        class_calibration={
            str(target): tuple(ClassCalibration().to_json() for _ in result.calibration)
            for target in train.spec.targets
            if target in CLASS_TARGETS
        },
        intervals=tuple(Conformal(0.1, True).to_json() for _ in result.calibration),
        adaptive=Adaptive().to_json(),
        thresholds={},
        cutoff=days[139],
        train_start=days[0],
        train_end=days[99],
        validation_start=days[105],
        validation_end=days[135],
        data_versions={"features_price": 3},
        seed=7,
        config_hash="abc",
        code_version="test",
        library_versions={"torch": "2.13.0"},
    )


def bundle_of(name: str, result: FitResult, train: WindowSet, config: Any = None) -> Bundle:
    return Bundle(result.module, card_of(name, result, train, config), "memory", "")


def closes_of(panel: Panel) -> dict[date, datetime]:
    return {day: datetime.combine(day, time(21), UTC) for day in panel.sessions.astype(object)}


def scrambled_after(panel: Panel, column: int, seed: int = 0) -> Panel:
    """The panel with everything after `column` replaced by other numbers."""
    other = planted_panel(len(panel.symbols), len(panel.sessions), seed=seed + 1000)
    values, opens, closes = panel.values.copy(), panel.opens.copy(), panel.closes.copy()
    values[:, column + 1 :] = 9.0 * other.values[:, column + 1 :]
    opens[:, column + 1 :] = 3.0 * other.opens[:, column + 1 :]
    closes[:, column + 1 :] = 5.0 * other.closes[:, column + 1 :]
    return replace(panel, values=values, opens=opens, closes=closes, sigma=trailing_volatility(closes))
