"""Every network on a simulated market whose attainable rank IC is known; `python -m benchmarks attainable` is larger."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import attainable
from benchmarks.attainable import BESIDE, NETWORKS, Problem, measure, model_of, problem, shuffled
from trading_core.config import ModelConfig
from trading_core.models.registry import MODELS

SIZE = {"symbols": 60, "years": 2}
# What is planted shows in the last row, so windows of three and few steps at a high rate are enough.
TRAINING = {"epochs": 3, "patience": 3, "learning_rate": 0.006, "schedule": "cosine", "warmup_epochs": 0.3}
TRAINING |= {"dates_per_batch": 6, "consecutive_dates": True}
SMALLER: dict[str, dict[str, Any]] = {
    "mlp": {"lags": 1},
    "transformer": {"layers": 1},
    "hybrid": {"hidden_size": 16, "attention_heads": 2, "feed_forward_size": 32, "experts": 2, "expert_size": 8},
    "kan_former": {"feed_forward_size": 8, "expert_size": 4},
    "tft": {"hidden_size": 8, "hidden_continuous_size": 4},
}
LEARNERS = ("linear", *NETWORKS)
# What has nothing to find takes as long as what has: of the slow ones, `make test` trains only the one with a signal.
SLOW = {"transformer", "hybrid", "kan_former", "tft"}
NOTHING_TO_FIND = [pytest.param(name, marks=[pytest.mark.thorough] if name in SLOW else []) for name in LEARNERS]


def quick(name: str) -> ModelConfig:
    """The benchmark's model, smaller and trained in some 200 steps: one or two seconds on one core."""
    model = model_of(name)
    changed = {"architecture": model.architecture | SMALLER.get(name, {}), "encoder_length": 3}
    return model.model_copy(update=changed | ({"training": TRAINING} if model.training else {}))


@pytest.fixture(scope="module")
def signal() -> Problem:
    return problem(attainable.SIGNAL_IC, **SIZE)


@pytest.fixture(scope="module")
def silence() -> Problem:
    """On another market: on the signal's own one a network comes within a tenth of a standard error of the bound, so that
    roundings of another machine could carry it over."""
    return problem(0.0, **SIZE, seed=6)


@pytest.fixture(scope="module")
def others(signal: Problem) -> Problem:
    return shuffled(signal)


def test_every_network_of_the_zoo_is_judged() -> None:
    assert {*NETWORKS, *BESIDE} == set(MODELS) - {"logistic", "sma_cross", "base_rate"}


def test_the_truth_reaches_the_correlation_that_was_planted(signal: Problem) -> None:
    """Spearman's of a bivariate normal with correlation 0.2 is 6 / pi * asin(0.1) = 0.191; the noise has fat tails."""
    panel, known = signal.panel, np.isfinite(signal.truth)
    label = np.full(panel.opens.shape, np.nan)
    label[:, :-2] = np.log(panel.opens[:, 2:] / panel.opens[:, 1:-1])
    both = [(signal.truth[:, t], label[:, t]) for t in range(label.shape[1] - 2) if known[:, t].all()]
    ranks = [[np.argsort(np.argsort(values)) for values in pair] for pair in both]
    assert np.mean([np.corrcoef(x, y)[0, 1] for x, y in ranks]) == pytest.approx(0.191, abs=0.02)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_network_reaches_nine_tenths_of_what_is_attainable(name: str, signal: Problem) -> None:
    found = measure(signal, quick(name))
    assert len(found.daily) > 240
    assert found.share >= attainable.REACHED


@pytest.mark.parametrize("name", NOTHING_TO_FIND)
def test_without_a_signal_nothing_is_found(name: str, silence: Problem) -> None:
    found = measure(silence, quick(name))
    assert len(found.truth) == 0  # the truth is the same of all symbols
    assert found.errors_from_zero <= attainable.STANDARD_ERRORS


@pytest.mark.parametrize("name", NOTHING_TO_FIND)
def test_with_the_prices_of_another_symbol_nothing_is_found(name: str, others: Problem) -> None:
    found = measure(others, quick(name))
    assert found.errors_from_zero <= attainable.STANDARD_ERRORS
    assert found.truth.mean() > 0.15  # the truth moved with the prices


def test_nobody_keeps_its_own_prices(signal: Problem, others: Problem) -> None:
    assert not (others.panel.opens == signal.panel.opens).all(axis=1).any()
    assert sorted(others.panel.opens[:, 0]) == sorted(signal.panel.opens[:, 0])


def test_a_result_is_kept_to_the_bit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(attainable, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(attainable, "named", lambda label, seed: problem(attainable.SIGNAL_IC, 10, 1, seed))
    made = attainable.compute(("linear", "signal", 5))
    monkeypatch.setattr(attainable, "measure", None)
    again = attainable.compute(("linear", "signal", 5))
    assert again.daily.tolist() == made.daily.tolist()
    assert again.truth.tolist() == made.truth.tolist()
    assert len({attainable.file_of(("linear", label, seed)) for label in attainable.PROBLEMS for seed in (5, 6)}) == 6
