"""The objective against hand-made numbers and other libraries."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from sklearn.metrics import mean_pinball_loss

from trading_core.training.loss import information_coefficient, objective, pinball

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


def test_objective_adds_the_weighted_ic_of_the_median() -> None:
    y = torch.tensor([[1.0], [2.0], [4.0]])
    quantiles = torch.stack([y - 1.0, y, y + 1.0], dim=-1)  # a perfect median
    date = torch.zeros(3, dtype=torch.long)
    base = pinball(quantiles, y, LEVELS)
    assert float(objective(quantiles, y, date, LEVELS, 0.0)) == float(base)
    assert float(objective(quantiles, y, date, LEVELS, 0.5)) == pytest.approx(float(base), abs=1e-5)
    upside_down = torch.stack([-y - 1.0, -y, -y + 1.0], dim=-1)
    extra = objective(upside_down, y, date, LEVELS, 0.5) - pinball(upside_down, y, LEVELS)
    assert float(extra) == pytest.approx(0.5 * 2.0, abs=1e-5)
