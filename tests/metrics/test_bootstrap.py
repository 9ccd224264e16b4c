"""The stationary bootstrap: its generator, its blocks, its moments against sums written out. arch: test_significance_peers."""

import math

import numpy as np
import pytest

from trading_core.errors import InvalidConfigError
from trading_core.metrics import bootstrap as b

X = np.random.default_rng(1).normal(0.001, 0.01, (60, 3))


def test_the_generator_is_splitmix64():
    """The first numbers of the public reference implementation (Vigna, splitmix64.c) from the state 1234567."""
    drawn = [int(b._mixed(np.uint64((1234567 + k * int(b._GAMMA)) % 2**64))) for k in (1, 2, 3)]
    assert drawn == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize("length", [1.0, 4.0])
def test_moments_are_those_of_the_resampled_days(length):
    drawn = b.stationary_bootstrap(X, length, 7, seed=3)
    for number in range(7):
        picked = X[b.resampled_days(len(X), length, 3, number)]
        np.testing.assert_allclose(drawn.means[number], picked.mean(axis=0), rtol=0, atol=1e-16)
        np.testing.assert_allclose(drawn.deviations[number], picked.std(axis=0, ddof=1), rtol=1e-12)


def test_a_column_alone_is_resampled_as_beside_others():
    together, alone = b.stationary_bootstrap(X, 3.0, 20, 5), b.stationary_bootstrap(X[:, 1], 3.0, 20, 5)
    np.testing.assert_allclose(together.means[:, 1], alone.means[:, 0], rtol=0, atol=1e-17)  # centred in another order


def test_threads_and_the_number_of_resamples_change_no_bit():
    one = b.stationary_bootstrap(X, 3.0, 101, seed=5, threads=1)
    for other in (b.stationary_bootstrap(X, 3.0, 101, 5, threads=3), b.stationary_bootstrap(X, 3.0, 200, 5)):
        assert one.means.tobytes() == other.means[:101].tobytes()
        assert one.deviations.tobytes() == other.deviations[:101].tobytes()
    assert one.means.tobytes() != b.stationary_bootstrap(X, 3.0, 101, seed=6).means.tobytes()


def test_blocks_end_by_chance_and_start_anywhere():
    count, length = 20_000, 5.0
    days = b.resampled_days(count, length, seed=2, number=0)
    starts = np.append(True, days[1:] != (days[:-1] + 1) % count)
    assert starts.mean() == pytest.approx(1 / length, abs=4 * math.sqrt(0.2 * 0.8 / count))
    lengths = np.diff(np.flatnonzero(starts))
    assert np.mean(lengths == 1) == pytest.approx(0.2, abs=0.03)  # of a geometric distribution
    assert np.var(lengths) == pytest.approx(length * (length - 1), rel=0.1)
    quarters = np.histogram(days[starts], 4, (0, count))[0] / starts.sum()
    np.testing.assert_allclose(quarters, 0.25, atol=0.03)


def test_blocks_go_on_from_the_last_day_to_the_first():
    days = np.concatenate([b.resampled_days(6, 50.0, 1, number) for number in range(40)]).reshape(40, 6)
    whole = days[(np.diff(days, axis=1) % 6 == 1).all(axis=1)]
    assert len(whole) > 25  # (1 - 1 / 50)^5 of 40
    assert len(np.unique(whole[:, 0])) > 3


def test_the_variance_is_the_sum_over_all_pairs_of_days():
    count, length = len(X), 4.0
    centred = X[:, 0] - X[:, 0].mean()
    total = 0.0
    for i in range(count):
        for j in range(count):
            gap = abs(i - j)
            together = (1 - 1 / length) ** gap
            total += together * np.mean(centred * np.roll(centred, -gap))
    assert b.stationary_variance(X, length)[0] == pytest.approx(total / count, rel=1e-10)


def test_resampled_means_have_that_variance():
    walk = np.convolve(np.random.default_rng(2).normal(0, 1, 400), np.ones(5), "valid")
    drawn = b.stationary_bootstrap(walk, 8.0, 20_000, seed=1).means[:, 0]
    exact = float(b.stationary_variance(walk, 8.0)[0]) / len(walk)
    assert drawn.var() == pytest.approx(exact, rel=4 * math.sqrt(2 / 20_000))
    assert drawn.mean() == pytest.approx(walk.mean(), abs=4 * math.sqrt(exact / 20_000))


def test_block_lengths():
    rng = np.random.default_rng(6)
    noise = rng.normal(0, 1, 2000)
    trend = np.convolve(noise, 0.8 ** np.arange(60), "valid")
    assert b.optimal_block_length(noise) < 5
    assert 15 < b.optimal_block_length(trend) < 135  # at most 3 sqrt(2000)
    assert b.optimal_block_length(trend) < b.optimal_block_length(np.cumsum(noise)) <= 135
    assert math.isnan(b.optimal_block_length(np.ones(50)))
    assert math.isnan(b.optimal_block_length(np.append(noise, np.nan)))


@pytest.mark.parametrize(
    ("values", "length", "resamples", "problem"),
    [
        (X, 0.5, 10, "block_length: 0.5"),
        (X, math.nan, 10, "block_length: nan"),
        (X, 2.0, 0, "resamples: 0"),
        (X[:1], 2.0, 10, "values: 1 days"),
        (np.array([1.0, np.nan]), 2.0, 10, "not finite"),
    ],
)
def test_what_cannot_be_resampled(values, length, resamples, problem):
    with pytest.raises(InvalidConfigError, match=problem):
        b.stationary_bootstrap(values, length, resamples, 1)
