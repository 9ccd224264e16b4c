"""Kernels against pandas and plain loops, and their independence of where the array begins."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from trading_core.features import kernels

X = 50.0 * np.exp(np.cumsum(np.random.default_rng(5).normal(0.0, 0.03, (3, 400)), axis=1))
WINDOWS = [1, 2, 3, 5, 7, 20, 63, 64, 100]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min"])
def test_rolling_equals_pandas(name: str, window: int) -> None:
    expected = getattr(pd.DataFrame(X.T).rolling(window), name)().to_numpy().T
    np.testing.assert_allclose(getattr(kernels, f"rolling_{name}")(X, window), expected, rtol=1e-12)


@pytest.mark.parametrize("window", [2, 3, 20, 63])
@pytest.mark.parametrize("ddof", [0, 1])
def test_deviation_equals_pandas(window: int, ddof: int) -> None:
    mean, deviation = kernels.rolling_mean_std(X, window, ddof)
    frame = pd.DataFrame(X.T).rolling(window)
    np.testing.assert_allclose(mean, frame.mean().to_numpy().T, rtol=1e-12)
    np.testing.assert_allclose(deviation, frame.std(ddof=ddof).to_numpy().T, rtol=1e-9)


def test_deviation_of_equal_values_is_exactly_zero() -> None:
    mean, deviation = kernels.rolling_mean_std(np.full((1, 30), 0.1), 20, 1)
    assert (deviation[0, 19:] == 0.0).all()
    assert (mean[0, 19:] == 0.1).all()


@pytest.mark.parametrize("decay", [0.8, 13 / 14])
def test_exponential_average_equals_pandas(decay: float) -> None:
    expected = pd.DataFrame(X.T).ewm(alpha=1 - decay, adjust=True, min_periods=9).mean().to_numpy().T
    np.testing.assert_allclose(kernels.ewm_mean(X, decay, 9), expected, rtol=1e-6)


def test_exponential_average_by_the_sum_it_claims() -> None:
    decay, window = 0.8, kernels.ewm_window(0.8)
    weights = decay ** np.arange(window)
    expected = (weights * X[0, ::-1][:window]).sum() / weights.sum()
    np.testing.assert_allclose(kernels.ewm_mean(X, decay, 1)[0, -1], expected, rtol=1e-14)


def test_exponential_average_steps_over_missing_bars() -> None:
    x = np.array([[1.0, np.nan, 3.0, np.nan]])
    out = kernels.ewm_mean(x, 0.5, 1)
    np.testing.assert_allclose(out, [[1.0, np.nan, (3 + 0.25 * 1) / 1.25, np.nan]])


def test_a_missing_value_spoils_only_its_window() -> None:
    x = X[:1, :60].copy()
    x[0, 30] = np.nan
    for kernel in (kernels.rolling_sum, kernels.rolling_max, kernels.rolling_std):
        missing = np.flatnonzero(np.isnan(kernel(x, 5)[0]))
        assert missing.tolist() == [0, 1, 2, 3, 30, 31, 32, 33, 34], kernel.__name__


KERNELS = {
    "sum": (lambda x: kernels.rolling_sum(x, 63), 62),
    "std": (lambda x: kernels.rolling_std(x, 63), 62),
    "log": (kernels.log, 0),
    "ewm": (lambda x: kernels.ewm_mean(x, 0.8, 9), kernels.ewm_window(0.8) - 1),
}


@pytest.mark.parametrize("name", KERNELS)
def test_bits_do_not_depend_on_where_the_array_begins(name: str) -> None:
    """Every cut of lookback + 1 bars gives, at its last bar, the float64 of the whole."""
    kernel, lookback = KERNELS[name]
    whole = kernel(X)
    for t in range(lookback, X.shape[1]):
        part = kernel(X[:, t - lookback : t + 1])
        np.testing.assert_array_equal(part[:, -1], whole[:, t])


def test_rank_shares_ties_and_skips_nan() -> None:
    values = np.array([3.0, 1.0, 1.0, np.nan, 2.0, 7.0, np.nan])
    group = np.array([0, 0, 0, 0, 0, 1, 2])
    np.testing.assert_allclose(kernels.rank_across(values, group), [0.5, -1 / 3, -1 / 3, np.nan, 1 / 6, 0.0, np.nan])


def test_rank_equals_pandas() -> None:
    r = np.random.default_rng(1)
    group = np.sort(r.integers(0, 40, 1000))
    values = r.integers(0, 12, 1000).astype(float)
    values[r.random(1000) < 0.1] = np.nan
    frame = pd.Series(values).groupby(group)
    expected = (frame.rank(method="average") - 1) / (frame.transform("count") - 1) - 0.5
    np.testing.assert_allclose(kernels.rank_across(values, group), expected, rtol=1e-12, atol=1e-15)


def test_mean_and_excess_across() -> None:
    values, group = np.array([1.0, np.nan, 3.0, np.nan]), np.array([0, 0, 0, 1])
    np.testing.assert_allclose(kernels.mean_across(values, group), [2.0, 2.0, 2.0, np.nan])
    np.testing.assert_allclose(kernels.excess_across(values, group), [-1.0, np.nan, 1.0, np.nan])


def test_ratio_never_divides_by_zero() -> None:
    top, bottom = np.array([[1.0, 0.0, np.nan, 1e300]]), np.array([[0.0, 0.0, 0.0, 1e-300]])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(kernels.ratio(top, bottom, undefined=0.5), [[0.5, 0.5, np.nan, np.nan]])
