"""Labels against hand-computed returns."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trading_core.dataset.labels import directions, forward_returns, label_known_index
from trading_core.errors import InvalidConfigError


def test_hand_computed_returns() -> None:
    nan = np.nan
    opens = np.array([[100.0, 110.0, 121.0, 60.5, 60.5], [10.0, nan, 20.0, 40.0, 5.0]])
    labels = forward_returns(opens, (1, 2))
    assert labels.shape == (2, 5, 2)
    # decision 0 buys at the open of column 1 and sells at the open of column 2 (h = 1) or 3 (h = 2)
    one = [[math.log(1.1), math.log(0.5), 0.0, nan, nan], [nan, math.log(2.0), math.log(1 / 8), nan, nan]]
    two = [[math.log(0.55), math.log(0.5), nan, nan, nan], [nan, math.log(0.25), nan, nan, nan]]
    np.testing.assert_allclose(labels[:, :, 0], one, atol=1e-15)
    np.testing.assert_allclose(labels[:, :, 1], two, atol=1e-15)


def test_a_label_reads_no_open_after_the_one_it_is_known_at() -> None:
    rng = np.random.default_rng(0)
    opens = rng.uniform(1, 2, (3, 30))
    labels = forward_returns(opens, (1, 5))
    for t in range(20):
        for k, h in enumerate((1, 5)):
            known = label_known_index(t, h)
            changed = opens.copy()
            changed[:, known + 1 :] = 9.0
            np.testing.assert_array_equal(forward_returns(changed, (1, 5))[:, t, k], labels[:, t, k])
            changed[:, known] = 9.0
            assert not np.array_equal(forward_returns(changed, (1, 5))[:, t, k], labels[:, t, k])


def test_a_history_shorter_than_the_horizon_has_no_label() -> None:
    for sessions in range(1, 5):
        assert np.isnan(forward_returns(np.ones((2, sessions)), (3, 9))).all()
    with pytest.raises(InvalidConfigError, match=">= 1 session"):
        forward_returns(np.ones((2, 5)), (0, 1))


def test_directions() -> None:
    np.testing.assert_array_equal(directions(np.array([0.1, -0.1, 0.0, np.nan])), [1.0, 0.0, 0.0, np.nan])
