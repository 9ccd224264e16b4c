"""Platt scaling against scikit-learn's logistic regression."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from trading_core.calibration.platt import CLIP, Platt
from trading_core.errors import InvalidConfigError


def _overconfident(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities whose logit is three times what it should be, and shifted."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 0.5, n)
    outcome = (rng.uniform(0, 1, n) < expit(truth)).astype(float)
    return expit(3.0 * truth + 0.9), outcome


def test_fit_equals_a_weighted_logistic_regression_on_the_smoothed_targets() -> None:
    p, outcome = _overconfident(400)
    got = Platt.fit(p, outcome)
    n1 = int(outcome.sum())
    target = np.where(outcome == 1, (n1 + 1) / (n1 + 2), 1 / (len(p) - n1 + 2))
    # A target t is t of a row with outcome 1 and 1 - t of a row with outcome 0.
    x = np.concatenate([logit(p), logit(p)])[:, None]
    y = np.concatenate([np.ones(len(p)), np.zeros(len(p))])
    reference = LogisticRegression(C=1e12, tol=1e-12, max_iter=10_000)
    reference.fit(x, y, sample_weight=np.concatenate([target, 1.0 - target]))
    assert got.a == pytest.approx(reference.coef_[0, 0], rel=1e-4)
    assert got.b == pytest.approx(reference.intercept_[0], rel=1e-3)


def test_it_recovers_the_curve_and_improves_the_log_loss_on_new_data() -> None:
    curve = Platt.fit(*_overconfident(20_000, 1))
    assert curve.a == pytest.approx(1 / 3, abs=0.03)
    assert curve.b == pytest.approx(-0.3, abs=0.06)
    p, outcome = _overconfident(5_000, 2)
    assert log_loss(outcome, curve.apply(p)) < log_loss(outcome, p) - 0.05


def test_the_order_of_probabilities_never_turns_round() -> None:
    p, outcome = _overconfident(2_000, 3)
    curve = Platt.fit(1.0 - p, outcome)
    assert curve.a == 0.0
    n1 = outcome.sum()
    mean = (n1 * (n1 + 1) / (n1 + 2) + (2_000 - n1) / (2_000 - n1 + 2)) / 2_000
    np.testing.assert_allclose(curve.apply(np.array([0.1, 0.9])), mean, rtol=1e-12)


def test_separable_outcomes_stay_finite() -> None:
    p = np.linspace(0.01, 0.99, 100)
    curve = Platt.fit(p, (p > 0.5).astype(float))
    assert np.isfinite([curve.a, curve.b]).all()
    calibrated = curve.apply(p)
    assert (np.diff(calibrated) >= 0).all()
    assert calibrated[0] >= CLIP
    assert calibrated[-1] <= 1 - CLIP


def test_what_cannot_be_fitted_is_the_identity() -> None:
    p, outcome = _overconfident(400)
    assert Platt.fit(p, np.ones(400)) == Platt()
    assert Platt.fit(p[:49], outcome[:49]) == Platt()
    assert Platt.fit(np.full(400, 0.5), outcome) == Platt()
    assert Platt.fit(np.full(400, np.nan), outcome) == Platt()
    np.testing.assert_array_equal(Platt().apply(p), p)
    assert math.isnan(Platt(0.5, 0.1).apply(np.array([np.nan]))[0])
    np.testing.assert_array_equal(Platt().apply(np.array([0.0, 1.0])), [CLIP, 1 - CLIP])


def test_missing_rows_are_dropped() -> None:
    p, outcome = _overconfident(400)
    holes = np.append(p, [np.nan, 0.5]), np.append(outcome, [1.0, np.nan])
    assert Platt.fit(*holes) == Platt.fit(p, outcome)


def test_json_and_wrong_input() -> None:
    curve = Platt.fit(*_overconfident(400))
    assert Platt.from_json(curve.to_json()) == curve
    for text in ("{}", "x", '{"a": -1, "b": 0}', '{"a": 1, "b": NaN}'):
        with pytest.raises(InvalidConfigError, match="stored calibration"):
            Platt.from_json(text)
    with pytest.raises(InvalidConfigError, match=r"must lie in \[0, 1\]"):
        Platt.fit(np.array([1.2]), np.array([1.0]))
    with pytest.raises(InvalidConfigError, match="other than 0 and 1"):
        Platt.fit(np.array([0.2]), np.array([2.0]))
