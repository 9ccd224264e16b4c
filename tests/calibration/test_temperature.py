"""Bias-corrected temperature scaling by hand, and against a multinomial search over the log loss of scikit-learn."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.metrics import log_loss

from trading_core.calibration.temperature import COOLEST, HOTTEST, ClassCalibration
from trading_core.errors import InvalidConfigError
from trading_core.metrics.classification import class_skill


def _distorted(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits three times as large as they should be, with Bear's odds doubled: p [N,3] and what came [N]."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 1, (n, 3))
    actual = np.array([rng.choice(3, p=row) for row in softmax(truth, axis=1)], dtype=float)
    return softmax(3.0 * truth + np.log([2.0, 1.0, 1.0]), axis=1), actual


def test_it_takes_back_a_distortion_by_hand() -> None:
    """What came is exactly as often as the true probabilities say, so the truth minimises the log loss."""
    truth = np.array([[4, 2, 2], [1, 1, 6], [2, 5, 1]]) / 8.0
    counts = (10 * 8 * truth).astype(int)
    rows = np.repeat(np.arange(3), 80)
    actual = np.concatenate([np.repeat(np.arange(3.0), row) for row in counts])
    # Sharpened by 2, then Bear (0) weighted fourfold: softmax(2 log q + (log 4, 0, 0)).
    said = softmax(2.0 * np.log(truth) + np.array([np.log(4.0), 0.0, 0.0]), axis=1)[rows]
    found = ClassCalibration.fit(said, actual)
    assert found.temperature == pytest.approx(2.0, rel=1e-6)
    assert found.offsets == pytest.approx((0.0, np.log(2.0), np.log(2.0)), abs=1e-6)  # log 4 / 2, of the others
    np.testing.assert_allclose(found.apply(said), truth[rows], atol=1e-6)


def test_one_answer_for_all_rows_becomes_the_shares() -> None:
    p = np.tile([0.5, 0.3, 0.2], (100, 1))
    actual = np.repeat([0.0, 1.0, 2.0], [20, 50, 30])
    found = ClassCalibration.fit(p, actual)
    assert found.temperature == 1.0
    np.testing.assert_allclose(found.apply(p[:1]), [[0.2, 0.5, 0.3]], atol=1e-7)


def test_fit_is_the_minimum_of_the_log_loss() -> None:
    p, actual = _distorted(600)

    def loss(x: np.ndarray) -> float:
        return float(log_loss(actual, softmax(np.log(p) * x[0] + np.array([0.0, x[1], x[2]]), axis=1)))

    best = minimize(loss, [0.5, 0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-14})
    found = ClassCalibration.fit(p, actual)
    assert 1.0 / found.temperature == pytest.approx(best.x[0], rel=1e-5)
    assert found.offsets == pytest.approx((0.0, *best.x[1:]), abs=1e-5)


def test_it_calibrates_new_data() -> None:
    fitted = ClassCalibration.fit(*_distorted(4_000, 1))
    assert fitted.temperature == pytest.approx(3.0, rel=0.06)
    p, actual = _distorted(4_000, 2)
    before, after = class_skill(p, actual), class_skill(fitted.apply(p), actual)
    assert after.ece < 0.03 < 0.15 < before.ece
    assert after.log_loss < before.log_loss - 0.2
    assert after.accuracy > before.accuracy  # Bear is no longer said too often


def test_apply() -> None:
    p = softmax(np.random.default_rng(3).normal(0, 2, (2, 4, 3)), axis=-1)
    np.testing.assert_allclose(ClassCalibration().apply(p), p, rtol=1e-12)
    # Odds of 4 : 2 : 2 to the power 1/2, then the last times 3.
    scaled = ClassCalibration(2.0, (0.0, 0.0, np.log(3.0))).apply(np.array([0.5, 0.25, 0.25]))
    odds = np.array([2.0, 2.0**0.5, 3.0 * 2.0**0.5])
    np.testing.assert_allclose(scaled, odds / odds.sum(), rtol=1e-12)
    assert np.isfinite(ClassCalibration(COOLEST).apply(np.array([1.0, 0.0, 0.0]))).all()
    assert np.isnan(ClassCalibration().apply(np.array([np.nan, 0.5, 0.5]))).all()


def test_edges_and_what_cannot_be_fitted() -> None:
    p = softmax(np.random.default_rng(4).normal(0, 1, (300, 3)), axis=1)
    best, worst = p.argmax(axis=1).astype(float), p.argmin(axis=1).astype(float)
    assert ClassCalibration.fit(p, best).temperature == COOLEST  # always right: never sure enough
    assert ClassCalibration.fit(p, worst).temperature == HOTTEST  # always wrong: all classes alike is best
    assert ClassCalibration.fit(p[:49], best[:49]) == ClassCalibration()
    assert ClassCalibration.fit(p, np.minimum(best, 1.0)) == ClassCalibration()  # no Bull ever came
    holes = np.vstack([p, [[np.nan, 0.5, 0.5]], p[:1]]), np.append(best, [1.0, np.nan])
    assert ClassCalibration.fit(*holes) == ClassCalibration.fit(p, best)
    for data, problem in (
        ((p, np.full(300, 3.0)), r"codes other than 0 \.\. 2"),
        ((p[:, :2], best), r"shape \(300, 2\)"),
        ((p + 0.5, best), r"must lie in \[0, 1\]"),
    ):
        with pytest.raises(InvalidConfigError, match=problem):
            ClassCalibration.fit(*data)


KIND = "bias_corrected_temperature"


def test_json() -> None:
    fitted = ClassCalibration.fit(*_distorted(300))
    assert ClassCalibration.from_json(fitted.to_json()) == fitted
    good = {"kind": KIND, "temperature": 1.5, "offsets": [0, 1, -1]}
    assert ClassCalibration.from_json(json.dumps(good)) == ClassCalibration(1.5, (0.0, 1.0, -1.0))
    bad = [
        {"kind": "platt"}, {"temperature": 0}, {"temperature": 21}, {"temperature": float("nan")}, {"temperature": "hot"},
        {"offsets": [0, 1]}, {"offsets": [1, 0, 0]}, {"offsets": [0, 21, 0]}, {"offsets": [0, float("nan"), 0]},
        {"offsets": 3}, {"surprise": 1},
    ]  # fmt: skip
    for text in ("{}", "x", "[]", *(json.dumps(good | change) for change in bad)):
        with pytest.raises(InvalidConfigError, match="calibration"):
            ClassCalibration.from_json(text)
