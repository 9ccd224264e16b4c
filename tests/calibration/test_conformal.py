"""Conformal intervals: ranks by hand, coverage where volatility moves, and an adaptive level that never looks ahead."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pytest

from trading_core.calibration.conformal import (
    MAX_SCORES,
    MIN_ROWS,
    Adaptive,
    Conformal,
    adaptive_levels,
)
from trading_core.dataset.labels import forward_returns, label_known_index
from trading_core.dataset.panel import trailing_volatility
from trading_core.errors import InvalidConfigError
from trading_core.metrics.forecasts import coverage
from trading_core.metrics.intervals import coverage_between, coverage_by_tercile

NAN = np.nan

# --- split conformal --------------------------------------------------------------------------------------------------


def test_the_rank_by_hand() -> None:
    """99 labels at distance 1 .. 99 from a point forecast: ceil(100 * 0.9) = 90th, ceil(100 * 0.895) = 90th."""
    label = np.arange(1.0, 100.0)[::-1] * np.where(np.arange(99) % 2, 1.0, -1.0)
    point = np.zeros(99)
    made = Conformal.fit(label, point, point, 0.1)
    assert (made.n, made.normalised) == (99, False)
    np.testing.assert_array_equal(made.quantile(np.array([0.1, 0.105, 0.5, 0.99])), [90.0, 90.0, 50.0, 1.0])
    # below 1 / 100 the theory says infinity, at 1 nothing: the largest and the smallest score
    np.testing.assert_array_equal(made.quantile(np.array([0.005, 0.0, 1.0])), [99.0, 99.0, 1.0])
    low, high = made.apply(np.array([5.0, NAN]), np.array([5.0, 6.0]))
    np.testing.assert_array_equal((low[0], high[0]), (-85.0, 95.0))
    assert math.isnan(low[1])
    per_row = made.apply(np.zeros(2), np.zeros(2), alpha=np.array([0.5, 0.1]))
    np.testing.assert_array_equal(per_row[1], [50.0, 90.0])


def test_a_band_of_quantiles_is_widened_or_narrowed_by_hand() -> None:
    """CQR: labels 0 .. 98 in the band [9, 89]: the score is max(9 - y, y - 89); the 90th of 99 is the tenth largest.

    From the top: 9 and 9 (labels 0 and 98), 8, 8, 7, 7, 6, 6, 5, 5.
    """
    label = np.arange(99.0)
    low, high = np.full(99, 9.0), np.full(99, 89.0)
    made = Conformal.fit(label, low, high, 0.1)
    assert made.quantile(0.1) == 5.0
    assert [float(end[0]) for end in made.apply(low, high)] == [4.0, 94.0]
    wide = Conformal.fit(label, low - 100, high + 100, 0.1)  # everything lies 91 or more inside
    ends = wide.apply(low - 100, high + 100)
    assert [float(end[0]) for end in ends] == [4.0, 94.0]
    narrow = wide.apply(np.array([0.0]), np.array([10.0]))  # narrowed by more than its width: its middle
    assert [float(end[0]) for end in narrow] == [5.0, 5.0]


def test_normalised_scores_scale_with_the_volatility() -> None:
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.5, 3.0, 600)
    label = scale * rng.normal(size=600)
    point = np.zeros(600)
    made = Conformal.fit(label, point, point, 0.2, scale)
    rank = math.ceil(601 * 0.8) / 600
    expected = np.quantile(np.abs(label) / scale, rank, method="inverted_cdf")
    np.testing.assert_allclose(made.quantile(0.2), expected)
    low, high = made.apply(point[:2], point[:2], np.array([1.0, 2.0]))
    np.testing.assert_allclose(high, [expected, 2 * expected])
    np.testing.assert_allclose(low, -high)


def test_coverage_is_what_it_promises_for_exchangeable_rows() -> None:
    """Averaged over calibrations of 60 rows: between 1 - alpha and 1 - alpha + 1 / (n + 1), whatever the distribution."""
    rng = np.random.default_rng(1)
    shares = []
    for _ in range(400):
        label = rng.standard_t(2, 560) + rng.exponential(1.0, 560)
        point = np.zeros(560)
        made = Conformal.fit(label[:60], point[:60], point[:60], 0.1)
        shares.append(coverage(label[60:], *made.apply(point[60:], point[60:])))
    error = np.std(shares) / math.sqrt(len(shares))
    assert 0.9 - 3 * error < np.mean(shares) < 0.9 + 1 / 61 + 3 * error


def test_thinned_scores_never_make_a_band_narrower() -> None:
    label = np.random.default_rng(2).normal(size=5_432)
    point = np.zeros(5_432)
    made = Conformal.fit(label, point, point, 0.1)
    assert len(made.scores) == MAX_SCORES
    scores = np.sort(np.abs(label))
    for alpha in (0.01, 0.05, 0.1, 0.1234, 0.5, 0.9):
        rank = math.ceil(5_433 * (1 - alpha))
        assert scores[rank - 1] <= made.quantile(alpha) <= scores[min(rank + 6, 5_431)]


def test_what_cannot_be_fitted_leaves_the_band_as_it_is() -> None:
    few = np.arange(MIN_ROWS - 1.0)
    made = Conformal.fit(few, few - 9, few + 9, 0.1)
    assert (made.n, made.scores) == (0, (0.0,))
    low, high = made.apply(np.array([1.0]), np.array([2.0]))
    assert (low[0], high[0]) == (1.0, 2.0)
    more = np.append(np.arange(60.0), [NAN, 5.0])
    holes = Conformal.fit(more, np.zeros(62), np.append(np.zeros(61), NAN), 0.1)
    assert holes == Conformal.fit(np.arange(60.0), np.zeros(60), np.zeros(60), 0.1)
    assert holes.n == 60


# --- where the volatility moves ---------------------------------------------------------------------------------------

CALIBRATED, BREAK, SESSIONS, SYMBOLS = 500, 900, 960, 40


@dataclass
class Bands:
    """Rows of the test part of a GARCH panel."""

    label: np.ndarray
    column: np.ndarray
    sigma: np.ndarray
    split: tuple[np.ndarray, np.ndarray]
    adaptive: tuple[np.ndarray, np.ndarray]


def _garch_prices(seed: int) -> np.ndarray:
    """[S, T] prices of GARCH(1,1) returns (0.1, 0.87), 1 % a day; from column BREAK on every return is 2.3 times as large."""
    rng = np.random.default_rng(seed)
    variance, returns = np.full(SYMBOLS, 1e-4), np.zeros((SYMBOLS, SESSIONS))
    for t in range(SESSIONS):
        shock = np.sqrt(variance) * rng.standard_normal(SYMBOLS)
        returns[:, t] = shock * (2.3 if t >= BREAK else 1.0)
        variance = 1e-4 * 0.03 + 0.1 * shock**2 + 0.87 * variance
    return np.exp(np.cumsum(returns, axis=1))


@pytest.fixture(scope="module")
def bands() -> Bands:
    """A forecaster that always says 0: bands of 90 % by plain split conformal, and by normalised scores with ACI."""
    prices = _garch_prices(0)
    label, sigma = forward_returns(prices, (1,))[:, :, 0], trailing_volatility(prices)
    column = np.broadcast_to(np.arange(SESSIONS), label.shape)
    known = np.isfinite(label) & np.isfinite(sigma)
    fitted, test = known & (column < CALIBRATED - 2), known & (column >= CALIBRATED)
    zero = np.zeros(label.shape)
    plain = Conformal.fit(label[fitted], zero[fitted], zero[fitted], 0.1)
    normalised = Conformal.fit(label[fitted], zero[fitted], zero[fitted], 0.1, sigma[fitted])
    rows = label[test], zero[test], zero[test], column[test]
    levels = adaptive_levels(normalised, Adaptive(0.1, 0.02), *rows, horizon=1, scale=sigma[test])
    issued = normalised.apply(zero[test], zero[test], sigma[test], levels.of_rows(column[test]))
    return Bands(label[test], column[test], sigma[test], plain.apply(zero[test], zero[test]), issued)


def test_where_it_is_wild_plain_bands_cover_too_little(bands: Bands) -> None:
    """facts: 0.81 against 0.93 in the high-volatility tercile of a GARCH panel, of 0.90 promised."""
    calm = bands.column < BREAK - 2  # labels that end before the break
    rows = bands.label[calm], bands.sigma[calm]
    plain, adaptive = (
        coverage_by_tercile(rows[0], low[calm], high[calm], rows[1]) for low, high in (bands.split, bands.adaptive)
    )
    assert 0.76 < plain[2] < 0.86
    assert 0.90 < adaptive[2] < 0.95
    assert plain[0] > 0.93  # and too much where it is calm
    for low, high in (bands.split, bands.adaptive):
        assert 0.88 < coverage(rows[0], low[calm], high[calm]) < 0.92  # over all of them both keep their word


def test_after_a_variance_break_adaptive_bands_recover(bands: Bands) -> None:
    """facts: 0.53 against 0.88 just after a break."""
    rows = bands.label, bands.column
    plain, adaptive = (
        coverage_between(rows[0], low, high, rows[1], BREAK, BREAK + 40) for low, high in (bands.split, bands.adaptive)
    )
    assert 0.45 < plain < 0.60
    assert 0.83 < adaptive < 0.92
    assert adaptive - plain > 0.25


# --- adaptive ---------------------------------------------------------------------------------------------------------


def level_at(errors: np.ndarray, known_at: np.ndarray, as_of: int, adaptive: Adaptive) -> float:
    """The level at a decision: every error known strictly before it, in order."""
    return reduce(adaptive.after, errors[known_at < as_of].tolist(), adaptive.alpha)


def test_the_level_by_hand() -> None:
    """alpha 0.1, gamma 0.05: an error of 0.3 lowers the level by 0.01, one of 0 raises it by 0.005."""
    adaptive = Adaptive(0.1, 0.05)
    errors, known_at = np.array([0.3, 0.0, NAN, 0.1]), np.array([5, 6, 7, 8])
    expected = {5: 0.1, 6: 0.09, 7: 0.095, 8: 0.095, 9: 0.095}
    for as_of, level in expected.items():
        assert level_at(errors, known_at, as_of, adaptive) == pytest.approx(level, abs=1e-15)
    assert level_at(np.zeros(0), np.zeros(0, dtype=np.int64), 3, adaptive) == 0.1
    # It stays in [0, 1], and comes back from there at once.
    steep = Adaptive(0.1, 1.0)
    assert level_at(np.array([1.0, 1.0]), np.array([1, 2]), 9, steep) == 0.0
    assert level_at(np.array([1.0, 1.0, 0.0]), np.array([1, 2, 3]), 9, steep) == pytest.approx(0.1)
    assert level_at(np.ones(3), np.array([1, 2, 3]), 9, Adaptive(0.1, 0.0)) == 0.1


def _stored(seed: int, horizon: int) -> tuple[Conformal, tuple[np.ndarray, ...]]:
    """Rows of 40 dates, every second session, 6 symbols each, in no order; the label is wilder later on."""
    rng = np.random.default_rng(seed)
    column = rng.permutation(np.repeat(np.arange(100, 180, 2), 6))
    label = rng.normal(0, 1, len(column)) * np.where(column > 140, 2.0, 1.0)
    point = np.zeros(len(column))
    fitted = rng.normal(0, 1, 200)
    return Conformal.fit(fitted, np.zeros(200), np.zeros(200), 0.1), (label, point, point, column)


@pytest.mark.parametrize("horizon", [1, 2, 5])
def test_the_rebuilt_path_is_the_level_of_the_errors_known_before_each_decision(horizon: int) -> None:
    conformal, rows = _stored(0, horizon)
    adaptive = Adaptive(0.1, 0.05)
    path = adaptive_levels(conformal, adaptive, *rows, horizon)
    known_at = label_known_index(path.dates, horizon)
    assert path.dates.tolist() == list(range(100, 180, 2))
    for day, level, error in zip(path.dates, path.levels, path.errors, strict=True):
        assert level_at(path.errors, known_at, int(day), adaptive) == level
        on = rows[3] == day
        low, high = conformal.apply(rows[1][on], rows[2][on], alpha=level)
        assert error == pytest.approx(1.0 - coverage(rows[0][on], low, high))
    assert path.levels[-1] < 0.1  # it has seen that the bands became too narrow
    np.testing.assert_array_equal(path.of_rows(np.array([102, 100])), path.levels[[1, 0]])
    with pytest.raises(InvalidConfigError, match="no level"):
        path.of_rows(np.array([101]))


@pytest.mark.parametrize("horizon", [1, 2, 5])
def test_a_level_does_not_move_with_labels_that_were_not_known(horizon: int) -> None:
    """Every label known at or after `as_of` is replaced by NaN, or by a wild one: the level of `as_of` stays, to the bit."""
    conformal, (label, low, high, column) = _stored(1, horizon)
    adaptive = Adaptive(0.1, 0.05)
    levels = adaptive_levels(conformal, adaptive, label, low, high, column, horizon)
    moved = 0
    for d, as_of in enumerate(levels.dates.tolist()):
        unknown = label_known_index(column, horizon) >= as_of
        for other in (NAN, 99.0):
            changed = np.where(unknown, other, label)
            again = adaptive_levels(conformal, adaptive, changed, low, high, column, horizon)
            np.testing.assert_array_equal(again.levels[: d + 1], levels.levels[: d + 1])
        just_known = label_known_index(column, horizon) < as_of
        earlier = np.where(just_known, 99.0, label)
        moved += adaptive_levels(conformal, adaptive, earlier, low, high, column, horizon).levels[d] != levels.levels[d]
    assert moved > 25  # what was known is used


def test_frozen_parameters_come_back_from_their_json() -> None:
    rng = np.random.default_rng(3)
    for n, scale in ((30, None), (70, None), (3_000, np.full(3_000, 0.5))):
        made = Conformal.fit(rng.normal(size=n), np.zeros(n), np.zeros(n), 0.1, scale)
        assert Conformal.from_json(made.to_json()) == made
    adaptive = Adaptive(0.2, 0.005)
    assert Adaptive.from_json(adaptive.to_json()) == adaptive
    raw = json.loads(Conformal.fit(rng.normal(size=60), np.zeros(60), np.zeros(60), 0.1).to_json())
    for change in ({"alpha": 0}, {"n": 61}, {"scores": raw["scores"][::-1]}, {"scores": None}, {"alpha": "x"}):
        with pytest.raises(InvalidConfigError):
            Conformal.from_json(json.dumps({**raw, **change}))
    for text in ("x", "{}", "[]", '{"alpha": 0.1, "gamma": -1}', '{"alpha": 1.0, "gamma": 0.1}'):
        with pytest.raises(InvalidConfigError):
            Adaptive.from_json(text)
        with pytest.raises(InvalidConfigError):
            Conformal.from_json(text)


def test_wrong_input_is_refused() -> None:
    zeros = np.zeros(60)
    with pytest.raises(InvalidConfigError, match="alpha: 1"):
        Conformal.fit(zeros, zeros, zeros, 1.0)
    with pytest.raises(InvalidConfigError, match="not positive"):
        Conformal.fit(zeros, zeros, zeros, 0.1, zeros)
    with pytest.raises(InvalidConfigError, match="give no scale"):
        Conformal.fit(zeros, zeros, zeros, 0.1).apply(zeros, zeros, zeros + 1)
    with pytest.raises(InvalidConfigError, match="give the scale of each row"):
        Conformal.fit(zeros, zeros, zeros, 0.1, zeros + 1).apply(zeros, zeros)
    with pytest.raises(InvalidConfigError, match="horizon: 0"):
        adaptive_levels(Conformal(0.1), Adaptive(), zeros, zeros, zeros, np.arange(60), 0)
