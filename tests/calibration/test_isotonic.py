"""Isotonic calibration against scikit-learn, and the choice between calibrations by what is stored."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit
from sklearn.isotonic import IsotonicRegression

from trading_core.calibration.calibrators import CALIBRATORS, calibrated, calibrator_from_json, fit_calibrator
from trading_core.calibration.isotonic import MIN_ROWS, Isotonic
from trading_core.calibration.platt import CLIP, Platt
from trading_core.errors import InvalidConfigError, UnknownNameError
from trading_core.metrics.classification import ece, reliability


def _bent(n: int, seed: int = 0, digits: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities p that should be p ** 3: no logistic curve through them."""
    rng = np.random.default_rng(seed)
    p = np.round(rng.uniform(0, 1, n), digits)
    return p, (rng.uniform(0, 1, n) < p**3).astype(float)


@pytest.mark.parametrize("digits", [1, 2, 6])  # many ties, some, none
def test_it_equals_sklearns(digits: int) -> None:
    p, outcome = _bent(500, digits, digits)
    n1 = outcome.sum()
    reference = IsotonicRegression(y_min=1 / (500 - n1 + 2), y_max=(n1 + 1) / (n1 + 2), out_of_bounds="clip")
    reference.fit(p, outcome)
    curve = Isotonic.fit(p, outcome)
    at = np.linspace(0, 1, 1001)
    np.testing.assert_allclose(curve.apply(at), reference.predict(at), atol=1e-12)
    np.testing.assert_allclose(curve.apply(p), reference.predict(p), atol=1e-12)
    np.testing.assert_allclose(curve.x, reference.X_thresholds_)
    np.testing.assert_allclose(curve.y, reference.y_thresholds_)


def test_pooling_by_hand() -> None:
    """200 rows at four probabilities: shares of outcome 1 are .2, .6, .4, .8; the middle two violate the order."""
    p = np.repeat([0.1, 0.3, 0.5, 0.9], [50, 50, 50, 50])
    outcome = np.concatenate([np.arange(50) < count for count in (10, 30, 20, 40)]).astype(float)
    curve = Isotonic.fit(p, outcome)
    assert curve.x == (0.1, 0.3, 0.5, 0.9)
    np.testing.assert_allclose(curve.y, [0.2, 0.5, 0.5, 0.8])
    np.testing.assert_allclose(curve.apply(np.array([0.0, 0.2, 0.4, 0.7, 1.0])), [0.2, 0.35, 0.5, 0.65, 0.8])


def test_certainty_is_kept_within_what_the_rows_can_say() -> None:
    p = np.linspace(0, 1, 400)
    curve = Isotonic.fit(p, (p > 0.5).astype(float))
    np.testing.assert_allclose(curve.apply(np.array([0.0, 1.0])), [1 / 202, 201 / 202])
    np.testing.assert_array_equal(Isotonic().apply(np.array([0.0, 1.0])), [CLIP, 1 - CLIP])


def test_it_follows_a_curve_that_platt_cannot() -> None:
    p, outcome = _bent(20_000, 1)
    new, truth = _bent(20_000, 2)
    error = {
        kind: ece(reliability(fit_calibrator(kind, p, outcome).apply(new), truth)) for kind in ("platt", "isotonic")
    }
    assert error["isotonic"] < 0.01
    assert error["isotonic"] < error["platt"]
    assert ece(reliability(new, truth)) > 0.2


def test_what_cannot_be_fitted_is_the_identity() -> None:
    p, outcome = _bent(400)
    few = MIN_ROWS - 1
    for data in ((p, np.ones(400)), (p[:few], outcome[:few]), (np.full(400, 0.5), outcome), (p * np.nan, outcome)):
        assert Isotonic.fit(*data) == Isotonic()
    np.testing.assert_allclose(Isotonic().apply(p), np.clip(p, CLIP, 1 - CLIP), atol=1e-15)
    assert math.isnan(Isotonic.fit(p, outcome).apply(np.array([np.nan]))[0])
    turned = Isotonic.fit(1.0 - p, outcome)
    assert (np.diff(turned.apply(np.linspace(0, 1, 50))) >= 0).all()
    holes = np.append(p, [np.nan, 0.5]), np.append(outcome, [1.0, np.nan])
    assert Isotonic.fit(*holes) == Isotonic.fit(p, outcome)
    assert Isotonic.fit(p, outcome).apply(p.reshape(20, 20)).shape == (20, 20)


@pytest.mark.parametrize("kind", CALIBRATORS)
def test_every_calibration_comes_back_from_its_json(kind: str) -> None:
    rng = np.random.default_rng(3)
    p = expit(rng.normal(0, 1, 600))
    outcome = (rng.uniform(0, 1, 600) < p**2).astype(float)
    fitted = fit_calibrator(kind, p, outcome)
    again = calibrator_from_json(fitted.to_json())
    assert again == fitted
    assert isinstance(again, CALIBRATORS[kind])
    np.testing.assert_array_equal(again.apply(p), fitted.apply(p))
    at = np.linspace(0, 1, 201)
    assert (np.diff(fitted.apply(at)) >= 0.0).all()
    assert fitted.apply(at).min() >= CLIP
    assert fitted.apply(at).max() <= 1.0 - CLIP
    for data, problem in (((np.array([1.2]), np.ones(1)), "must lie"), ((np.array([0.2]), np.full(1, 2.0)), "0 and 1")):
        with pytest.raises(InvalidConfigError, match=problem):
            fit_calibrator(kind, *data)


def test_every_horizon_is_calibrated_by_its_own() -> None:
    p = np.array([[0.2, 0.2], [0.9, 0.9]])
    # sigmoid(logit(p) + log 3): the odds times three, 1/4 -> 3/4 and 9 -> 27.
    np.testing.assert_allclose(calibrated((Platt(), Platt(1.0, np.log(3.0))), p), [[0.2, 3 / 7], [0.9, 27 / 28]])
    with pytest.raises(ValueError, match="zip"):
        calibrated((Platt(),), p)


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "[]",
        "{}",
        '{"a": 0.9, "b": 0.125}',
        '{"kind": "spline"}',
        '{"kind": "isotonic"}',
        '{"kind": "isotonic", "x": [0.1, 0.2], "y": [0.1]}',
        '{"kind": "isotonic", "x": [0.1], "y": [0.1]}',
        '{"kind": "isotonic", "x": [0.2, 0.2], "y": [0.1, 0.3]}',
        '{"kind": "isotonic", "x": [0.1, 0.2], "y": [0.3, 0.1]}',
        '{"kind": "isotonic", "x": [0.1, 0.2], "y": [0.3, NaN]}',
        '{"kind": "isotonic", "x": [0.1, 0.2], "y": [0.3, 1.1]}',
        '{"kind": "isotonic", "x": 3, "y": [0.3, 0.4]}',
        '{"kind": "platt", "a": -1, "b": 0}',
    ],
)
def test_a_damaged_calibration_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfigError, match="stored calibration"):
        calibrator_from_json(text)


def test_an_unknown_calibration_is_answered_with_those_there_are() -> None:
    with pytest.raises(UnknownNameError, match="Allowed: isotonic, platt"):
        fit_calibrator("spline", np.zeros(1), np.zeros(1))
