"""Labels against hand-computed returns."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from trading_core.dataset.labels import (
    class_labels,
    directions,
    forward_returns,
    label_known_index,
    rank_labels,
    triple_barrier,
    volatility_labels,
)
from trading_core.dataset.panel import VOLATILITY_FLOOR
from trading_core.errors import InvalidConfigError

NAN = np.nan


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


Make = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
EVERY_LABEL: dict[str, Make] = {
    "returns": lambda opens, closes, sigma: forward_returns(opens, (1, 5)),
    "volatility": lambda opens, closes, sigma: volatility_labels(opens, sigma, (1, 5)),
    "barrier": lambda opens, closes, sigma: triple_barrier(opens, closes, sigma, (1, 5), 0.5),
    "rank": lambda opens, closes, sigma: rank_labels(forward_returns(opens, (1, 5))),
}


@pytest.mark.parametrize("name", EVERY_LABEL)
def test_a_label_reads_nothing_after_the_open_it_is_known_at(name: str) -> None:
    rng = np.random.default_rng(0)
    opens, closes = rng.uniform(1, 2, (2, 5, 30))
    sigma = rng.uniform(0.1, 0.4, (5, 30))
    make = EVERY_LABEL[name]
    labels = make(opens, closes, sigma)
    open_matters = 0
    for t in range(20):
        for k, h in enumerate((1, 5)):
            known = label_known_index(t, h)
            later = opens.copy(), closes.copy(), sigma.copy()
            later[0][:, known + 1 :] = rng.uniform(1, 2)
            later[1][:, known:] = rng.uniform(1, 2)  # the close of the session at whose open it is known
            later[2][:, t + 1 :] = rng.uniform(0.1, 0.4)  # sigma is of the decision's own close
            np.testing.assert_array_equal(make(*later)[:, t, k], labels[:, t, k])
            later[0][:, known] = rng.uniform(8, 9, 5)
            open_matters += not np.array_equal(make(*later)[:, t, k], labels[:, t, k])
    assert open_matters > 10  # the open of t + 1 + h itself is read


def test_a_history_shorter_than_the_horizon_has_no_label() -> None:
    for sessions in range(1, 5):
        ones = np.ones((2, sessions))
        for labels in (
            forward_returns(ones, (3, 9)),
            volatility_labels(ones, ones, (3, 9)),
            triple_barrier(ones, ones, ones, (3, 9), 1.0),
        ):
            assert labels.shape == (2, sessions, 2)
            assert np.isnan(labels).all()
    ones = np.ones((2, 5))
    for horizons in ((0, 1), ()):
        for make in (
            lambda given: forward_returns(ones, given),
            lambda given: volatility_labels(ones, ones, given),
            lambda given: triple_barrier(ones, ones, ones, given, 1.0),
        ):
            with pytest.raises(InvalidConfigError, match=">= 1 session"):
                make(horizons)


def test_no_label_spans_a_break() -> None:
    """A break at column 4: h = 1 is held from the open of t + 1 to that of t + 2, so only t = 2 spans it; h = 2: 1, 2."""
    ones = np.full((1, 8), 2.0)
    breaks = np.zeros((1, 8), dtype=np.bool_)
    breaks[0, 4] = True
    for labels in (
        forward_returns(ones, (1, 2), breaks),
        volatility_labels(ones, ones, (1, 2), breaks),
        triple_barrier(ones, ones, ones, (1, 2), 1.0, breaks),
    ):
        assert np.flatnonzero(np.isnan(labels[0, :, 0])).tolist() == [2, 6, 7]
        assert np.flatnonzero(np.isnan(labels[0, :, 1])).tolist() == [1, 2, 5, 6, 7]


def test_directions() -> None:
    np.testing.assert_array_equal(directions(np.array([0.1, -0.1, 0.0, np.nan])), [1.0, 0.0, 0.0, np.nan])


def test_classes_by_hand() -> None:
    scaled = np.array([[-0.6, -0.5, 0.0], [0.5, 0.51, NAN]])
    np.testing.assert_array_equal(class_labels(scaled, 0.5), [[0.0, 1.0, 1.0], [1.0, 2.0, NAN]])
    np.testing.assert_array_equal(class_labels(scaled, 0.0), [[0.0, 0.0, 1.0], [2.0, 2.0, NAN]])
    for threshold in (-0.1, math.inf, NAN):
        with pytest.raises(InvalidConfigError, match="threshold"):
            class_labels(scaled, threshold)


def test_ranks_by_hand() -> None:
    """Five symbols: a date with a tie, one with two holes, one with two symbols only."""
    labels = np.array([[0.1, 0.3, NAN], [0.2, NAN, NAN], [0.2, 0.1, 5.0], [0.9, 0.2, NAN], [-1.0, NAN, 4.0]])[
        :, :, None
    ]
    got = rank_labels(labels)  # [5, 3, 1]
    z = stats.norm.ppf
    # ranks 2, 3.5, 3.5, 5, 1 of five
    np.testing.assert_allclose(got[:, 0, 0], [z(0.3), z(0.6), z(0.6), z(0.9), z(0.1)], atol=1e-12)
    # ranks 3, -, 1, 2, - of three
    np.testing.assert_allclose(got[:, 1, 0], [z(2.5 / 3), NAN, z(0.5 / 3), 0.0, NAN], atol=1e-12)
    assert np.isnan(got[:, 2]).all()


def test_ranks_are_of_each_date_and_horizon_alone() -> None:
    rng = np.random.default_rng(1)
    labels = np.round(rng.normal(size=(9, 6, 2)), 1)
    labels[rng.uniform(size=labels.shape) < 0.2] = NAN
    together = rank_labels(labels)
    for t in range(6):
        for k in range(2):
            np.testing.assert_array_equal(rank_labels(labels[:, t : t + 1, k : k + 1])[:, 0, 0], together[:, t, k])
            known = np.isfinite(labels[:, t, k])
            ranks = stats.rankdata(labels[known, t, k])
            np.testing.assert_allclose(together[known, t, k], stats.norm.ppf((ranks - 0.5) / known.sum()), atol=1e-12)


def test_volatility_by_hand() -> None:
    # Log opens 0, 1, 1.3, 0.9, 0.9, 0.9: after the open of t + 1 they change by .3, -.4, 0, 0.
    opens = np.exp(np.array([[0.0, 1.0, 1.3, 0.9, 0.9, 0.9]]))
    sigma = np.array([[0.1, 0.2, 0.5, 0.5, NAN, 0.5]])
    labels = volatility_labels(opens, sigma, (1, 2))
    floor = math.log(VOLATILITY_FLOOR / 0.5)  # the price stands still
    one = [math.log(0.3 / 0.1), math.log(0.4 / 0.2), floor, floor, NAN, NAN]
    two = [math.log(math.sqrt(0.125) / 0.1), math.log(math.sqrt(0.08) / 0.2), floor, NAN, NAN, NAN]
    np.testing.assert_allclose(labels[0, :, 0], one, atol=1e-12)
    np.testing.assert_allclose(labels[0, :, 1], two, atol=1e-12)
    sigma[0, :2] = 0.0, NAN
    assert np.isnan(volatility_labels(opens, sigma, (1,))[0, :2, 0]).all()
    opens[0, 2] = NAN  # in the middle of h = 2 at t = 0
    sigma[0, :2] = 0.1
    assert np.isnan(volatility_labels(opens, sigma, (2,))[0, :2, 0]).all()


def _barrier(closes: list[float], last_open: float, h: int, sigma: float = 0.1, width: float = 1.0) -> float:
    """The code of decision 0 for log prices: open of t + 1 at 0, closes of t + 1 .. t + h, the open of t + 1 + h."""
    opens = np.full((1, h + 2), NAN)  # the opens in between are not looked at
    opens[0, 1], opens[0, 1 + h] = 1.0, math.exp(last_open)
    path = np.full((1, h + 2), NAN)
    path[0, 1 : 1 + h] = np.exp(closes)
    return float(triple_barrier(opens, path, np.full((1, h + 2), sigma), (h,), width)[0, 0, 0])


def test_the_first_barrier_touched_decides() -> None:
    # sigma = 0.1, h = 4, width = 1: barriers at +-0.2
    assert _barrier([0.1, 0.21, -0.5, 0.0], 0.0, 4) == 2.0
    assert _barrier([0.1, -0.21, 0.5, 0.0], 0.5, 4) == 0.0
    assert _barrier([0.19, -0.19, 0.1, 0.0], 0.19, 4) == 1.0
    assert _barrier([0.0, 0.0, 0.0, 0.0], -0.21, 4) == 0.0  # the last open is looked at, and last
    assert _barrier([0.0, 0.0, 0.0, 0.21], -0.21, 4) == 2.0
    # width = 2: barriers at +-0.4; h = 1: at +-0.1
    assert _barrier([0.1, 0.21, -0.5, 0.0], 0.0, 4, width=2.0) == 0.0
    assert _barrier([0.11], 0.0, 1) == 2.0
    assert _barrier([0.09], 0.09, 1) == 1.0
    # Reaching is touching: a barrier of the very bits that the last price has
    assert _barrier([0.0], 0.5, 1, sigma=float(np.log(np.exp(0.5)))) == 2.0


def test_a_path_with_a_hole_has_no_code() -> None:
    for hole in range(3):
        closes = [0.5, 0.0, 0.0]
        closes[hole] = NAN
        assert math.isnan(_barrier(closes, 0.0, 3))  # also after the touch at the first close
    assert math.isnan(_barrier([0.5, 0.0, 0.0], NAN, 3))
    for sigma in (NAN, 0.0, -0.1):
        assert math.isnan(_barrier([0.5], 0.0, 1, sigma=sigma))
    ones = np.ones((1, 4))
    for width in (0.0, -1.0, NAN, math.inf):
        with pytest.raises(InvalidConfigError, match="width"):
            triple_barrier(ones, ones, ones, (1,), width)


def test_barriers_of_a_panel_equal_a_walk_along_each_path() -> None:
    rng = np.random.default_rng(2)
    logs = np.cumsum(rng.normal(0, 0.1, (3, 40, 2)), axis=1)
    opens, closes = np.exp(logs[..., 0]), np.exp(logs[..., 1])
    sigma = rng.uniform(0.05, 0.2, (3, 40))
    got = triple_barrier(opens, closes, sigma, (2, 7), 0.8)
    for s in range(3):
        for k, h in enumerate((2, 7)):
            for t in range(40 - 1 - h):
                expected = 1.0
                for price in [*closes[s, t + 1 : t + 1 + h], opens[s, t + 1 + h]]:
                    move = math.log(price / opens[s, t + 1])
                    if abs(move) >= 0.8 * sigma[s, t] * math.sqrt(h):
                        expected = 2.0 if move > 0 else 0.0
                        break
                assert got[s, t, k] == expected
    assert set(np.unique(got[np.isfinite(got)])) == {0.0, 1.0, 2.0}
