"""P(label > 0) from quantiles against hand-computed points and scipy's normal distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from trading_core.calibration.quantiles import BOUND, p_up_from_quantiles
from trading_core.errors import InvalidConfigError
from trading_core.schema import QUANTILES


def test_linear_between_quantiles() -> None:
    # 0 lies a quarter of the way from -1 (level 0.25) to 3 (level 0.75): F(0) = 0.375
    assert p_up_from_quantiles(np.array([-2.0, -1.0, 3.0]), (0.1, 0.25, 0.75)).item() == pytest.approx(0.625)
    assert p_up_from_quantiles(np.array([-2.0, 0.0, 3.0]), (0.1, 0.5, 0.9)).item() == pytest.approx(0.5)


def test_exponential_tails_by_hand() -> None:
    taus = (0.1, 0.5, 0.9)
    # F rises by 0.4 from 1 to 3, so s = 0.1 * 2 / 0.4 = 0.5 and F(0) = 0.1 exp(-1 / 0.5)
    assert p_up_from_quantiles(np.array([1.0, 3.0, 4.0]), taus).item() == pytest.approx(1 - 0.1 * math.exp(-2))
    assert p_up_from_quantiles(np.array([-4.0, -3.0, -1.0]), taus).item() == pytest.approx(0.1 * math.exp(-2))
    assert p_up_from_quantiles(np.array([0.0, 3.0, 4.0]), taus).item() == pytest.approx(0.9)
    assert p_up_from_quantiles(np.array([-4.0, -3.0, 0.0]), taus).item() == pytest.approx(0.1)


def test_ties_at_zero_and_point_forecasts() -> None:
    taus = (0.1, 0.5, 0.9)
    rows = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [2.0, 2.0, 2.0], [-2.0, -2.0, -2.0], [np.nan, 0.0, 1.0]])
    expected = [0.5, 0.7, 1 - BOUND, BOUND, np.nan]
    np.testing.assert_allclose(p_up_from_quantiles(rows, taus), expected, rtol=1e-12)


def test_close_to_the_normal_distribution_it_was_cut_from() -> None:
    means = np.linspace(-3, 3, 61)
    quantiles = means[:, None] + stats.norm.ppf(QUANTILES)
    got = p_up_from_quantiles(quantiles, QUANTILES)
    np.testing.assert_allclose(got, stats.norm.cdf(means), atol=0.03)
    assert (np.diff(got) > 0).all()
    assert ((got > 0) & (got < 1)).all()
    np.testing.assert_allclose(got + got[::-1], 1.0, atol=1e-12)  # mirrored means


def test_no_jump_where_a_quantile_passes_zero() -> None:
    base = np.array([-2.0, -1.0, -0.3, 0.1, 0.5, 1.0, 2.5])
    for shift in -base:
        near = p_up_from_quantiles(base + shift + np.array([[-1e-9], [0.0], [1e-9]]), QUANTILES)
        assert np.ptp(near) < 1e-7


def test_shapes_and_crossing() -> None:
    rng = np.random.default_rng(0)
    quantiles = rng.normal(0, 1, (4, 3, 7))
    got = p_up_from_quantiles(quantiles, QUANTILES)
    assert got.shape == (4, 3)
    np.testing.assert_array_equal(got, p_up_from_quantiles(np.sort(quantiles, axis=-1), QUANTILES))
    assert p_up_from_quantiles(np.zeros((0, 7)), QUANTILES).shape == (0,)


def test_wrong_levels_are_refused() -> None:
    for taus in ((0.5,), (0.9, 0.1), (0.0, 0.5)):
        with pytest.raises(InvalidConfigError, match="ascending inside"):
            p_up_from_quantiles(np.zeros((1, len(taus))), taus)
    with pytest.raises(InvalidConfigError, match="there are 3 levels"):
        p_up_from_quantiles(np.zeros((2, 4)), (0.1, 0.5, 0.9))
