"""Networks on a simulated market whose attainable rank IC is known; `python -m benchmarks attainable` runs all, larger."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import attainable
from benchmarks.attainable import Problem, measure, model_of, problem, shuffled

SIZE = {"symbols": 60, "years": 2}


@pytest.fixture(scope="module")
def signal() -> Problem:
    return problem(attainable.SIGNAL_IC, **SIZE)


def test_the_truth_reaches_the_correlation_that_was_planted(signal: Problem) -> None:
    """Spearman's of a bivariate normal with correlation 0.2 is 6 / pi * asin(0.1) = 0.191; the noise has fat tails."""
    panel, known = signal.panel, np.isfinite(signal.truth)
    label = np.full(panel.opens.shape, np.nan)
    label[:, :-2] = np.log(panel.opens[:, 2:] / panel.opens[:, 1:-1])
    both = [(signal.truth[:, t], label[:, t]) for t in range(label.shape[1] - 2) if known[:, t].all()]
    ranks = [[np.argsort(np.argsort(values)) for values in pair] for pair in both]
    assert np.mean([np.corrcoef(x, y)[0, 1] for x, y in ranks]) == pytest.approx(0.191, abs=0.02)


@pytest.mark.parametrize("name", ["mlp", "gru", "lstm"])
def test_a_network_reaches_nine_tenths_of_what_is_attainable(name: str, signal: Problem) -> None:
    found = measure(signal, model_of(name))
    assert len(found.daily) > 240
    assert found.share >= attainable.REACHED


@pytest.mark.parametrize("name", ["mlp", "lstm"])
def test_without_a_signal_nothing_is_found(name: str) -> None:
    found = measure(problem(0.0, **SIZE), model_of(name))
    assert len(found.truth) == 0  # the truth is the same of all symbols
    assert found.errors_from_zero <= attainable.STANDARD_ERRORS


@pytest.mark.parametrize("name", ["mlp", "lstm"])
def test_with_the_prices_of_another_symbol_nothing_is_found(name: str, signal: Problem) -> None:
    other = shuffled(signal)
    assert not (other.panel.opens == signal.panel.opens).all(axis=1).any()  # nobody kept its own
    assert sorted(other.panel.opens[:, 0]) == sorted(signal.panel.opens[:, 0])
    found = measure(other, model_of(name))
    assert found.errors_from_zero <= attainable.STANDARD_ERRORS
    assert found.truth.mean() > 0.15  # the truth moved with the prices


def test_a_result_is_kept_to_the_bit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(attainable, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(attainable, "named", lambda label, seed: problem(attainable.SIGNAL_IC, 10, 1, seed))
    made = attainable.compute(("linear", "signal", 5))
    monkeypatch.setattr(attainable, "measure", None)
    again = attainable.compute(("linear", "signal", 5))
    assert again.daily.tolist() == made.daily.tolist()
    assert again.truth.tolist() == made.truth.tolist()
    assert len({attainable.file_of(("linear", label, seed)) for label in attainable.PROBLEMS for seed in (5, 6)}) == 6
