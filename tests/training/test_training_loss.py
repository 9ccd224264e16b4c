"""The objective against hand-made numbers and other libraries."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from sklearn.metrics import log_loss, mean_pinball_loss
from torch.nn import functional

from trading_core.errors import InvalidConfigError
from trading_core.schema import InputSpec, Target
from trading_core.training.loss import (
    Objective,
    binary_loss,
    class_loss,
    information_coefficient,
    pinball,
    score_of,
    squared_loss,
)
from trading_core.training.losses import LossConfig

LEVELS = torch.tensor([0.1, 0.5, 0.9])


def test_pinball_by_hand() -> None:
    # y = 1: errors 2, 1, -1 -> 0.1*2, 0.5*1, (0.9-1)*(-1) = 0.2, 0.5, 0.1
    value = pinball(torch.tensor([[[-1.0, 0.0, 2.0]]]), torch.tensor([[1.0]]), LEVELS)
    assert float(value) == pytest.approx((0.2 + 0.5 + 0.1) / 3)


def test_pinball_equals_scikit_learn() -> None:
    random = np.random.default_rng(0)
    quantiles, y = random.standard_normal((50, 2, 3)), random.standard_normal((50, 2))
    expected = np.mean([mean_pinball_loss(y, quantiles[..., k], alpha=a) for k, a in enumerate((0.1, 0.5, 0.9))])
    value = pinball(torch.from_numpy(quantiles), torch.from_numpy(y), LEVELS.double())
    assert float(value) == pytest.approx(expected, rel=1e-6)


def test_ic_is_the_mean_of_scipys_correlation_per_date() -> None:
    random = np.random.default_rng(1)
    score, y = random.standard_normal((30, 2)), random.standard_normal((30, 2))
    date = np.repeat([0, 1, 2], [5, 12, 13])
    expected = np.mean([pearsonr(score[date == d, h], y[date == d, h])[0] for d in range(3) for h in range(2)])
    value = information_coefficient(torch.from_numpy(score), torch.from_numpy(y), torch.from_numpy(date))
    assert float(value) == pytest.approx(expected, abs=1e-6)


def test_ic_ignores_dates_that_have_none() -> None:
    score, y = torch.tensor([[1.0], [2.0], [3.0], [9.0], [7.0]]), torch.tensor([[1.0], [2.0], [3.0], [1.0], [2.0]])
    assert float(information_coefficient(score, y, torch.tensor([0, 0, 0, 1, 1]))) == pytest.approx(1.0, abs=1e-5)
    assert float(information_coefficient(score[:2], y[:2], torch.tensor([0, 0]))) == 0.0


def test_a_constant_score_has_a_finite_gradient() -> None:
    score = torch.ones(4, 1, requires_grad=True)
    information_coefficient(score, torch.arange(4.0).unsqueeze(1), torch.zeros(4, dtype=torch.long)).backward()
    assert torch.isfinite(score.grad).all()  # type: ignore[union-attr]


# --- targets ----------------------------------------------------------------------------------------------------------


def test_binary_loss_equals_scikit_learn() -> None:
    random = np.random.default_rng(2)
    logit, up = random.standard_normal((40, 1)), (random.random((40, 1)) < 0.3).astype(np.float64)
    expected = log_loss(up[:, 0], 1.0 / (1.0 + np.exp(-logit[:, 0])))
    value = binary_loss(torch.from_numpy(logit), torch.from_numpy(up), torch.ones(1).double(), 0.0)
    assert float(value) == pytest.approx(expected, rel=1e-9)


def test_positive_outcomes_weigh_as_torch_says() -> None:
    logit, up = torch.tensor([[0.3, -0.2], [1.0, 0.5]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    weight = torch.tensor([3.0, 0.5])
    expected = functional.binary_cross_entropy_with_logits(logit, up, pos_weight=weight)
    assert float(binary_loss(logit, up, weight, 0.0)) == pytest.approx(float(expected), rel=1e-6)


def test_focal_losses_by_hand() -> None:
    # p_t = sigmoid(0) = 1/2 for both: (1 - 1/2)^2 * log 2, the positive one twice
    value = binary_loss(torch.zeros(2, 1), torch.tensor([[1.0], [0.0]]), torch.tensor([2.0]), 2.0)
    assert float(value) == pytest.approx((2.0 + 1.0) / 2.0 * 0.25 * math.log(2.0), rel=1e-6)
    # three equal logits: p = 1/3, (2/3)^2 * log 3, Bear weighted 2
    value = class_loss(torch.zeros(2, 1, 3), torch.tensor([[0.0], [2.0]]), torch.tensor([[2.0, 1.0, 1.0]]), 2.0)
    assert float(value) == pytest.approx((2.0 + 1.0) / 2.0 * (4.0 / 9.0) * math.log(3.0), rel=1e-6)


def test_class_loss_without_focus_equals_scikit_learn() -> None:
    random = np.random.default_rng(3)
    logits, code = random.standard_normal((60, 1, 3)), random.integers(0, 3, (60, 1)).astype(np.float64)
    p = np.exp(logits[:, 0]) / np.exp(logits[:, 0]).sum(axis=1, keepdims=True)
    value = class_loss(torch.from_numpy(logits), torch.from_numpy(code), torch.ones(1, 3).double(), 0.0)
    assert float(value) == pytest.approx(log_loss(code[:, 0], p), rel=1e-9)


def test_unknown_labels_count_in_no_loss_and_give_no_gradient() -> None:
    nan = float("nan")
    for loss in (
        lambda p: binary_loss(p[..., 0], torch.tensor([[1.0], [nan]]), torch.ones(1), 2.0),
        lambda p: class_loss(p, torch.tensor([[2.0], [nan]]), torch.ones(1, 3), 2.0),
        lambda p: squared_loss(p[..., 0], torch.tensor([[1.5], [nan]])),
    ):
        both = torch.tensor([[[0.2, -0.1, 0.4]], [[1.0, 2.0, 3.0]]], requires_grad=True)
        value = loss(both)
        value.backward()
        assert torch.isfinite(value)
        assert both.grad is not None
        assert both.grad[0].abs().sum() > 0
        assert (both.grad[1] == 0).all()


def test_a_perfect_probability_has_a_finite_gradient() -> None:
    logit = torch.tensor([[200.0]], requires_grad=True)
    binary_loss(logit, torch.ones(1, 1), torch.ones(1), 0.5).backward()
    assert torch.isfinite(logit.grad).all()  # type: ignore[union-attr]


# --- the sum ----------------------------------------------------------------------------------------------------------

SPEC = InputSpec(("a",), 2, (1,), quantiles=(0.1, 0.5, 0.9))
ALL = InputSpec(("a",), 2, (1,), quantiles=(0.1, 0.5, 0.9), targets=tuple(Target))


def test_the_objective_adds_the_weighted_ic_of_the_median() -> None:
    y = torch.tensor([[1.0], [2.0], [4.0]])
    labels, date = y.unsqueeze(-1), torch.zeros(3, dtype=torch.long)
    quantiles = torch.stack([y - 1.0, y, y + 1.0], dim=-1)  # a perfect median
    base = pinball(quantiles, y, LEVELS)
    without, half = (Objective.of(SPEC, LossConfig(ic=weight), labels) for weight in (0.0, 0.5))
    assert float(without(quantiles, y, labels, date)) == float(base)
    assert float(half(quantiles, y, labels, date)) == pytest.approx(float(base), abs=1e-5)
    upside_down = torch.stack([-y - 1.0, -y, -y + 1.0], dim=-1)
    extra = half(upside_down, y, labels, date) - pinball(upside_down, y, LEVELS)
    assert float(extra) == pytest.approx(0.5 * 2.0, abs=1e-5)


def test_the_objective_is_the_weighted_sum_of_its_parts() -> None:
    torch.manual_seed(0)
    output, y = torch.randn(12, 1, ALL.outputs), torch.randn(12, 1)
    labels = torch.stack([y, (y > 0).float(), torch.ones(12, 1), y.abs(), 2 * torch.ones(12, 1), y], dim=-1)
    date = torch.arange(12) // 4
    weights = {"quantile": 0.5, "direction": 2.0, "classes": 3.0, "volatility": 5.0, "barrier": 7.0, "rank": 11.0}
    nothing = dict.fromkeys((*weights, "ic"), 0.0)

    def value(**losses: float) -> float:
        return float(Objective.of(ALL, LossConfig(**losses), labels)(output, y, labels, date))

    parts = {name: value(**{**nothing, name: 1.0}) for name in weights}
    assert all(part > 0 for part in parts.values())
    assert value(**{**nothing, **weights}) == pytest.approx(sum(weights[n] * parts[n] for n in weights), rel=1e-5)
    assert parts["volatility"] == pytest.approx(float(((output[..., 7] - y.abs()) ** 2).mean()), rel=1e-5)  # 3 + 1 + 3
    assert parts["rank"] == pytest.approx(float(((output[..., 11] - y) ** 2).mean()), rel=1e-5)


def test_balanced_weights_are_counted_from_the_training_labels() -> None:
    up = torch.tensor([1.0, 0.0, 0.0, 0.0, float("nan")]).reshape(5, 1)
    classes = torch.tensor([0.0, 1.0, 1.0, 2.0, float("nan")]).reshape(5, 1)
    spec = InputSpec(("a",), 2, (1,), targets=(Target.QUANTILES, Target.DIRECTION, Target.CLASSES))
    labels = torch.stack([up, up, classes], dim=-1)
    losses = LossConfig(pos_weight="balanced", balance_classes=True, class_weights=(2.0, 1.0, 1.0))
    found = Objective.of(spec, losses, labels)
    assert found.pos_weight.tolist() == [3.0]  # three fall, one rises
    # shares 1/4, 1/2, 1/4 of three classes: weights over 3 * share
    assert found.class_weights.tolist() == [pytest.approx([2.0 / 0.75, 1.0 / 1.5, 1.0 / 0.75])]


def test_a_class_that_training_never_met_keeps_its_weight() -> None:
    spec = InputSpec(("a",), 2, (1,), targets=(Target.QUANTILES, Target.CLASSES))
    codes = torch.tensor([1.0, 1.0, 2.0]).reshape(3, 1)
    found = Objective.of(spec, LossConfig(balance_classes=True), torch.stack([codes, codes], dim=-1))
    # shares 0, 2/3, 1/3 of three classes
    assert found.class_weights.tolist() == [pytest.approx([2.0, 1.0 / 2.0, 1.0])]


def test_nothing_to_learn_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match=r"give ic or one of \['quantile'\] a weight above 0"):
        Objective.of(SPEC, LossConfig(quantile=0.0, ic=0.0), torch.zeros(3, 1, 1))


def test_the_score_is_the_column_that_symbols_are_ranked_by() -> None:
    output = torch.arange(12.0).reshape(1, 1, 12)
    assert score_of(output, ALL).item() == 1.0  # the middle one of three quantiles
    assert score_of(output, replace(ALL, score=Target.DIRECTION)).item() == 3.0
    assert score_of(output, replace(ALL, score=Target.RANK)).item() == 11.0


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("quantile", -1.0, "quantile is -1.0; it must lie between"),
        ("direction_loss", "hinge", "direction_loss is 'hinge'; it must be 'bce' or 'focal'"),
        ("pos_weight", 0.0, "pos_weight is 0.0"),
        ("class_weights", (1.0, 2.0), "class_weights has 2 values; it must have 3"),
        ("class_weights", (1.0, 2.0, -3.0), "class_weights is -3.0"),
        ("focal_gamma", 11.0, "focal_gamma is 11.0"),
    ],
)
def test_bounds_of_the_loss_config(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        LossConfig(**{field: value})
    assert message in str(caught.value)
