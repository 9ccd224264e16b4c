"""Temperature scaling against a search over the log loss of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.metrics import log_loss

from trading_core.calibration.temperature import COOLEST, HOTTEST, Temperature
from trading_core.errors import InvalidConfigError
from trading_core.metrics.classification import class_skill


def _overconfident(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits three times as large as they should be."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 1, (n, 3))
    actual = np.array([rng.choice(3, p=row) for row in softmax(truth, axis=1)], dtype=float)
    return 3.0 * truth, actual


def test_fit_is_the_minimum_of_the_log_loss() -> None:
    logits, actual = _overconfident(600)
    best = minimize_scalar(
        lambda t: log_loss(actual, softmax(logits / t, axis=1)), bounds=(0.1, 10), options={"xatol": 1e-9}
    )
    assert Temperature.fit(logits, actual).temperature == pytest.approx(best.x, rel=1e-5)


def test_it_recovers_the_temperature_and_calibrates_new_data() -> None:
    scale = Temperature.fit(*_overconfident(4_000, 1))
    assert scale.temperature == pytest.approx(3.0, rel=0.06)
    logits, actual = _overconfident(4_000, 2)
    before, after = class_skill(softmax(logits, axis=1), actual), class_skill(scale.apply(logits), actual)
    assert after.ece < 0.03 < 0.15 < before.ece
    assert after.log_loss < before.log_loss - 0.2
    np.testing.assert_array_equal(after.counts, before.counts)  # the order of the classes stays


def test_apply_is_a_softmax() -> None:
    logits = np.random.default_rng(3).normal(0, 5, (2, 4, 3))
    np.testing.assert_allclose(Temperature(2.5).apply(logits), softmax(logits / 2.5, axis=-1), rtol=1e-12)
    assert np.isfinite(Temperature(COOLEST).apply(np.array([1e4, -1e4, 0.0]))).all()
    assert np.isnan(Temperature().apply(np.array([np.nan, 0.0, 1.0]))).all()


def test_edges_and_what_cannot_be_fitted() -> None:
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 1, (300, 3))
    best, worst = logits.argmax(axis=1).astype(float), logits.argmin(axis=1).astype(float)
    assert Temperature.fit(logits, best).temperature == COOLEST  # always right: never sure enough
    assert Temperature.fit(logits, worst).temperature == HOTTEST  # always wrong: all classes alike is best
    assert Temperature.fit(logits[:49], best[:49]) == Temperature()
    assert Temperature.fit(np.zeros((300, 3)), best) == Temperature()
    holes = np.vstack([logits, [[np.nan, 0, 0]], logits[:1]]), np.append(best, [1.0, np.nan])
    assert Temperature.fit(*holes) == Temperature.fit(logits, best)
    with pytest.raises(InvalidConfigError, match=r"codes other than 0 \.\. 2"):
        Temperature.fit(logits, np.full(300, 3.0))


def test_json() -> None:
    scale = Temperature.fit(*_overconfident(300))
    assert Temperature.from_json(scale.to_json()) == scale
    for text in ("{}", "x", "[]", '{"temperature": 0}', '{"temperature": NaN}', '{"temperature": "hot"}'):
        with pytest.raises(InvalidConfigError, match="stored calibration"):
            Temperature.from_json(text)
