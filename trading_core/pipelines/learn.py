"""One learning problem: a panel and a config as windows, the fit, and its skill on sessions that it has not seen.

Training, tuning, ablation and the zoo's comparison go through here, so that all of them purge, scale and judge alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trading_core import config
from trading_core.config import ModelConfig
from trading_core.dataset.panel import Panel
from trading_core.dataset.scaling import Scaler
from trading_core.dataset.splits import Split, chronological
from trading_core.dataset.windows import ScaledPanel, Vocabulary, WindowSet, WindowSpec
from trading_core.models.registry import model_entry
from trading_core.schema import InputSpec, IntArray, Target
from trading_core.training.checkpoint import Checkpoints
from trading_core.training.config import TrainingConfig
from trading_core.training.data import input_spec
from trading_core.training.fit import FitResult, fit
from trading_core.training.watch import OnProgress


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What one training learns from. `spec`: the shapes of its model. train_columns: the decisions it learns from."""

    scaled: ScaledPanel
    scaler: Scaler
    split: Split
    train_columns: IntArray
    windows: WindowSpec
    vocabulary: Vocabulary
    train: WindowSet
    validation: WindowSet
    spec: InputSpec

    def labelled(self, columns: IntArray) -> WindowSet:
        """The samples of other decisions, to judge forecasts by. Errors: EmptyUniverseError (no label is known)."""
        return WindowSet.for_training(self.scaled, columns, self.windows, self.vocabulary)


def split_before(panel: Panel, model: ModelConfig, test_start: np.datetime64) -> Split:
    """The config's chronological split of a panel, with nothing from `test_start` on. Errors: TooShortHistoryError."""
    share, embargo = model.split.validation_fraction, model.split.embargo
    return chronological(panel.sessions, test_start.astype(object), max(model.horizons), share, embargo, False)


def prepare(panel: Panel, model: ModelConfig, split: Split, vocabulary: Vocabulary | None = None) -> Prepared:
    """Windows of the training and validation parts over one scaled panel; the scaler learns from training rows only.

    The panel's features are `model.inputs`, in that order. vocabulary: of the symbols and sectors that the model may
    know by name (default: the panel's). Errors: EmptyUniverseError, NoDataError, TooShortHistoryError.
    """
    columns = split.train[split.train >= min(model.split.skip_first, len(split.train) // 2)]
    scaler = Scaler.fit(panel.values, model.inputs, columns, mask_above=model.mask_above, kind=model.scaler)
    scaled = ScaledPanel.of(panel, scaler)
    windows = WindowSpec(
        encoder_length=model.encoder_length,
        horizons=tuple(model.horizons),
        target_scale=model.target_scale,
        static=tuple(model.static),
        targets=tuple(Target(name) for name in model.targets),
        score=Target(model.score),
        context=tuple(model.context),
        class_threshold=model.class_threshold,
        barrier_width=model.barrier_width,
    )
    vocabulary = vocabulary or Vocabulary.of(panel)
    train = WindowSet.for_training(scaled, columns, windows, vocabulary)
    validation = WindowSet.for_training(scaled, split.validation, windows, vocabulary)
    return Prepared(scaled, scaler, split, columns, windows, vocabulary, train, validation, input_spec(train))


def fit_prepared(
    prepared: Prepared,
    model: ModelConfig,
    name: str,
    seed: int | None = None,
    on_progress: OnProgress | None = None,
    resume: tuple[Checkpoints, str] | None = None,
) -> FitResult:
    """Trains the config on what was prepared with it. name: of the config, for errors. seed: default the config's.

    Errors: InvalidConfigError (options that do not fit the architecture or the data), TrainingFailedError.
    """
    entry = model_entry(model.model)
    architecture = config.parse_options(entry.config, model.architecture, f"architecture of '{name}'")
    training = config.parse_options(TrainingConfig, model.training, f"training of '{name}'")
    return fit(
        entry,
        architecture,
        prepared.spec,
        prepared.train,
        prepared.validation,
        training,
        model.seed if seed is None else seed,
        on_progress,
        members=model.ensemble,
        calibration=model.calibration,
        scope=model.scope,
        resume=resume,
    )
