"""What is fitted after the weights: from the validation part, and from no price after its last label."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
from model_samples import CONFIGS, TRAINING, planted_panel, scaler_of, scrambled_after, window_sets
from sklearn.metrics import log_loss

from trading_core.costs import CostModel
from trading_core.dataset.panel import Panel
from trading_core.dataset.windows import ScaledPanel, Vocabulary, WindowSet
from trading_core.models.registry import MODELS
from trading_core.pipelines.after import fit_after
from trading_core.schema import Target
from trading_core.training.data import input_spec
from trading_core.training.fit import FitResult, fit

VALIDATED = np.arange(105, 136)
LAST_LABEL = 135 + 1 + 3  # the open at which the longest label of validation ends
TARGETS = (Target.QUANTILES, Target.CLASSES, Target.BARRIER)
PANEL = planted_panel()


def windows(panel: Panel, columns: np.ndarray) -> WindowSet:
    spec = replace(window_sets(PANEL)[0].spec, targets=TARGETS)
    return WindowSet.for_training(
        ScaledPanel.of(panel, scaler_of(window_sets(PANEL)[0])), columns, spec, Vocabulary.of(panel)
    )


TRAIN, VALIDATION = windows(PANEL, np.arange(100)), windows(PANEL, VALIDATED)
COSTS = CostModel()


@cache
def fitted() -> FitResult:
    """Its losses weigh Bear twice, so that its probabilities have something to take back. Not trained while tests are
    collected, which every worker does."""
    return fit(MODELS["lstm"], CONFIGS["lstm"], input_spec(TRAIN), TRAIN, VALIDATION, TRAINING, 3, lambda _: None)


def test_class_probabilities_are_calibrated_on_the_rows_whose_class_is_known() -> None:
    after = fit_after(fitted(), VALIDATION, COSTS, 252)
    assert list(after.classes) == [Target.CLASSES, Target.BARRIER]
    returns = (
        PANEL.opens[VALIDATION.symbol, VALIDATION.columns + 2] / PANEL.opens[VALIDATION.symbol, VALIDATION.columns + 1]
    )
    scaled = np.log(returns) / PANEL.sigma[VALIDATION.symbol, VALIDATION.columns]
    classes = after.classes[Target.CLASSES]
    np.testing.assert_array_equal(classes.actual[:, 0], np.where(scaled > 0.5, 2.0, np.where(scaled < -0.5, 0.0, 1.0)))
    for found in after.classes.values():
        for h in range(2):
            raw, calibrated = (log_loss(found.actual[:, h], p[:, h]) for p in (found.raw, found.calibrated))
            assert calibrated < raw - 0.005
            # At the minimum every class is expected as often as it came.
            shares = np.bincount(found.actual[:, h].astype(int)) / len(VALIDATION)
            np.testing.assert_allclose(found.calibrated[:, h].mean(axis=0), shares, atol=1e-6)


def test_no_price_after_the_last_label_changes_what_is_fitted() -> None:
    """Neither a test session nor one of the gap before it: only `validation` is read, and it reads no further."""
    later, within = (fit_after(fitted(), windows(scrambled_after(PANEL, column), VALIDATED), COSTS, 252)
                     for column in (LAST_LABEL, LAST_LABEL - 10))  # fmt: skip
    after = fit_after(fitted(), VALIDATION, COSTS, 252)
    for name in ("intervals", "thresholds"):
        assert getattr(later, name) == getattr(after, name)
    for target in after.classes:
        assert later.classes[target].calibration == after.classes[target].calibration
        assert within.classes[target].calibration != after.classes[target].calibration
