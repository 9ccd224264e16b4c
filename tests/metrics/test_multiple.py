"""Adjusted p-values against scipy and against steps done by hand; statsmodels: test_significance_peers.py."""

import numpy as np
import pytest
from scipy import stats

from trading_core.errors import InvalidConfigError
from trading_core.metrics.multiple import adjusted_p_values

P = np.random.default_rng(3).uniform(size=40) ** 3


@pytest.mark.parametrize("method", ["bh", "by"])
def test_false_discovery_rates_are_scipys(method):
    np.testing.assert_allclose(adjusted_p_values(P, method), stats.false_discovery_control(P, method=method))


def test_by_hand():
    """Four tests. Holm: 4 * 0.01, 3 * 0.02 = 0.06, then 2 * 0.03 = 0.06 and 0.04, which may not fall below. BH from the
    top: 0.04, 0.03 * 4 / 3 = 0.04, 0.02 * 2 = 0.04, 0.01 * 4 = 0.04."""
    p = np.array([0.04, 0.01, 0.03, 0.02])
    np.testing.assert_allclose(adjusted_p_values(p, "holm"), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(adjusted_p_values(p, "bh"), [0.04] * 4)
    np.testing.assert_allclose(adjusted_p_values(p, "by"), [0.04 * 25 / 12] * 4)


@pytest.mark.parametrize("method", ["holm", "bh", "by"])
def test_what_has_no_p_value_is_no_test(method):
    with_gaps = np.insert(P, [0, 20, 40], np.nan)
    adjusted = adjusted_p_values(with_gaps, method)
    assert np.isnan(adjusted[[0, 21, 42]]).all()
    np.testing.assert_array_equal(adjusted[~np.isnan(with_gaps)], adjusted_p_values(P, method))
    assert np.isnan(adjusted_p_values(np.array([np.nan]), method)).all()
    assert adjusted_p_values(np.array([0.2]), method).tolist() == [0.2]


def test_what_is_no_p_value_is_an_error():
    with pytest.raises(InvalidConfigError, match=r"outside 0 \.\. 1"):
        adjusted_p_values(np.array([0.2, 1.2]))
    with pytest.raises(InvalidConfigError, match="method: magic"):
        adjusted_p_values(P, "magic")
