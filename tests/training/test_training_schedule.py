"""The learning rate against torch's own schedulers."""

from __future__ import annotations

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, ReduceLROnPlateau, SequentialLR

from trading_core.training.config import TrainingConfig
from trading_core.training.schedule import learning_rate, plateau_reductions

STEPS = 5  # per epoch


def optimizer(rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)


def rates_of(sgd: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(sgd.param_groups[0]["lr"])
        sgd.step()
        scheduler.step()
    return rates


def test_cosine_equals_torch() -> None:
    config = TrainingConfig(epochs=4, learning_rate=0.1, schedule="cosine", min_learning_rate=0.01)
    sgd = optimizer(0.1)
    expected = rates_of(sgd, CosineAnnealingLR(sgd, 4 * STEPS, eta_min=0.01), 4 * STEPS)
    assert [learning_rate(config, step, STEPS) for step in range(4 * STEPS)] == pytest.approx(expected, rel=1e-9)


def test_warm_up_then_cosine_equals_torch() -> None:
    config = TrainingConfig(epochs=6, learning_rate=0.1, schedule="cosine", warmup_epochs=2.0)
    sgd = optimizer(0.1)
    warm = LinearLR(sgd, 1.0 / (2 * STEPS), 1.0, 2 * STEPS - 1)
    both = SequentialLR(sgd, [warm, CosineAnnealingLR(sgd, 4 * STEPS)], [2 * STEPS])
    expected = rates_of(sgd, both, 6 * STEPS)
    assert [learning_rate(config, step, STEPS) for step in range(6 * STEPS)] == pytest.approx(expected, rel=1e-6)


def test_a_plateau_lowers_the_rate_as_torch_does() -> None:
    values = [0.1, 0.3, 0.2, float("nan"), 0.25, 0.1, 0.1, 0.31, 0.3, 0.3, 0.3, 0.3]
    config = TrainingConfig(schedule="plateau", learning_rate=0.1, plateau_factor=0.5, min_learning_rate=0.01)
    sgd = optimizer(0.1)
    scheduler = ReduceLROnPlateau(sgd, "max", 0.5, patience=2, threshold=0.0, min_lr=0.01)
    expected, found = [], []
    for epoch, value in enumerate(values):
        found.append(learning_rate(config, epoch * STEPS, STEPS, plateau_reductions(values[:epoch], 2)))
        expected.append(sgd.param_groups[0]["lr"])
        scheduler.step(value)
    assert found == pytest.approx(expected)
    assert min(found) == pytest.approx(0.025)


def test_a_constant_rate_is_constant_after_its_warm_up() -> None:
    config = TrainingConfig(learning_rate=0.1, warmup_epochs=0.4)
    assert [learning_rate(config, step, STEPS) for step in range(4)] == pytest.approx([0.05, 0.1, 0.1, 0.1])
