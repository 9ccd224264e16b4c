"""Statistics of a window against pandas, scipy, statsmodels and plain loops; limits of known series by hand."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats
from statsmodels.tsa.stattools import acf

from trading_core.features.build import build

MONDAY = date(2024, 1, 1)
ROWS = 420
nan = math.nan


def bars_of(close: object) -> pl.DataFrame:
    values = np.asarray(close, dtype=float)
    days = [MONDAY + timedelta(days=i) for i in range(len(values))]
    stamps = pl.Series([datetime(d.year, d.month, d.day, 21, tzinfo=UTC) for d in days])
    return pl.DataFrame({"symbol": ["X"] * len(days), "ts": stamps, "session": days, "close": values})


@pytest.fixture(scope="module")
def close() -> np.ndarray:
    """A walk with fat tails, in steps of a hundredth, so that some closes are equal."""
    r = np.random.default_rng(8)
    return np.round(20.0 * np.exp(np.cumsum(0.008 * r.standard_t(4, ROWS))), 2)


def feature(close: object, name: str) -> np.ndarray:
    bars = bars_of(close)
    return build(bars, [name], bars["session"][0], bars["session"][-1])[name].to_numpy()


def windowed(x: np.ndarray, window: int, function: Callable[[np.ndarray], float]) -> np.ndarray:
    """`function` of every `window` values in a row, NaN before the first."""
    out = np.full(len(x), nan)
    for t in range(window - 1, len(x)):
        if not np.isnan(part := x[t - window + 1 : t + 1]).any():
            out[t] = function(part)
    return out


def _hurst(levels: np.ndarray) -> float:
    lags = np.array([2, 4, 8, 16])
    sizes = [np.mean(np.abs(levels[k:] - levels[:-k])) for k in lags]
    return float(np.polyfit(np.log(lags), np.log(sizes), 1)[0])


def _permutation_entropy(x: np.ndarray) -> float:
    orders = Counter(tuple(np.argsort(x[i : i + 3], kind="stable")) for i in range(len(x) - 2))
    return float(stats.entropy(list(orders.values())) / math.log(6))


def _sign_entropy(r: np.ndarray) -> float:
    words = Counter(tuple(r[i : i + 3] > 0) for i in range(len(r) - 2))
    return float(stats.entropy(list(words.values())) / math.log(8))


def _quantile_skew(r: np.ndarray) -> float:
    low, middle, high = np.quantile(r, [0.05, 0.5, 0.95])
    return (high + low - 2 * middle) / (high - low)


def _mid_rank(x: np.ndarray) -> float:
    return (stats.rankdata(x)[-1] - 1) / (len(x) - 1)


def test_of_the_close(close: np.ndarray) -> None:
    deciles: Callable[[np.ndarray], float] = lambda x: np.diff(np.quantile(x, [0.1, 0.9]))[0]  # noqa: E731
    answers = {
        "close_z_63": windowed(close, 63, lambda x: stats.zscore(x, ddof=1)[-1]),
        "close_z_252": windowed(close, 252, lambda x: stats.zscore(x, ddof=1)[-1]),
        "close_rank_63": windowed(close, 63, _mid_rank),
        "quantile_position_63": windowed(close, 63, lambda x: (x[-1] - np.quantile(x, 0.1)) / deciles(x)),
        "median_dist_63": close / pd.Series(close).rolling(63).median().to_numpy() - 1.0,
        "hurst_126": windowed(np.log(close), 127, _hurst),
        "permutation_entropy_63": windowed(close, 63, _permutation_entropy),
    }
    for name, expected in answers.items():
        np.testing.assert_allclose(feature(close, name), expected, rtol=2e-6, atol=1e-6, err_msg=name)


def test_of_the_returns(close: np.ndarray) -> None:
    log_returns = np.append(nan, np.diff(np.log(close)))
    log_returns[np.append(False, np.diff(close) == 0.0)] = 0.0
    simple = pd.Series(close).pct_change()
    answers = {
        "skew_20": windowed(log_returns, 20, stats.skew),
        "skew_63": windowed(log_returns, 63, stats.skew),
        "kurtosis_63": windowed(log_returns, 63, stats.kurtosis),
        "mad_ratio_63": windowed(log_returns, 63, lambda r: np.mean(np.abs(r - r.mean())) / r.std()),
        "ret_z_63": windowed(log_returns, 63, lambda r: (r[-1] - r[:-1].mean()) / r[:-1].std(ddof=1)),
        "ret_rank_63": windowed(log_returns, 63, _mid_rank),
        "tail_ratio_63": windowed(log_returns, 63, lambda r: abs(np.quantile(r, 0.95) / np.quantile(r, 0.05))),
        "quantile_skew_63": windowed(log_returns, 63, _quantile_skew),
        "autocorr_1_63": windowed(log_returns, 64, lambda r: stats.pearsonr(r[1:], r[:-1])[0]),
        "autocorr_5_63": windowed(log_returns, 68, lambda r: stats.pearsonr(r[5:], r[:-5])[0]),
        "continuation_63": windowed(log_returns, 64, lambda r: np.mean([a * b > 0 for a, b in pairwise(r)])),
        "sign_entropy_63": windowed(log_returns, 63, _sign_entropy),
        "sharpe_20": windowed(log_returns, 20, lambda r: r.mean() / r.std(ddof=1)),
        "sharpe_63": windowed(log_returns, 63, lambda r: r.mean() / r.std(ddof=1)),
        "up_share_20": windowed(log_returns, 20, lambda r: np.mean(r > 0)),
        "max_ret_20": simple.rolling(20).max().to_numpy(),
        "min_ret_20": simple.rolling(20).min().to_numpy(),
    }
    for name, expected in answers.items():
        np.testing.assert_allclose(feature(close, name), expected, rtol=5e-6, atol=2e-6, err_msg=name)


def test_autocorrelation_beside_statsmodels() -> None:
    """statsmodels' estimate divides by the variance of the whole series: on a stationary one both agree to O(1 / n)."""
    r = np.random.default_rng(4)
    noise = r.normal(0.0, 0.01, 400)
    returns = noise[1:] + 0.6 * noise[:-1]  # MA(1): autocorrelation 0.6 / 1.36 = 0.44
    ours = feature(np.exp(np.append(0.0, np.cumsum(returns))), "autocorr_1_63")
    for t in range(100, 399, 20):
        theirs = acf(returns[t - 64 : t], nlags=1, adjusted=True)[1]
        assert ours[t] == pytest.approx(theirs, abs=0.06)
    assert np.nanmean(ours) == pytest.approx(0.44, abs=0.05)


def test_hurst_tells_walks_trends_and_reversals_apart() -> None:
    r = np.random.default_rng(2)
    steps = r.normal(0.0, 0.01, 3000)
    assert np.nanmean(feature(np.exp(np.cumsum(steps)), "hurst_126")) == pytest.approx(0.5, abs=0.05)
    assert feature(np.exp(0.01 * np.arange(130)), "hurst_126")[-1] == pytest.approx(1.0, abs=1e-5)
    # A level that is forgotten: the distances do not grow with the lag.
    assert np.nanmean(feature(np.exp(steps), "hurst_126")) == pytest.approx(0.0, abs=0.05)


def test_entropies_at_their_limits() -> None:
    rising = np.arange(1.0, 70.0)
    assert feature(rising, "permutation_entropy_63")[-1] == 0.0
    assert feature(rising, "sign_entropy_63")[-1] == 0.0
    # Up and down in turn: two of six orders, two of eight words, 31 and 30 times.
    p = 31 / 61
    bits = -(p * math.log(p) + (1 - p) * math.log(1 - p))
    turning = 10.0 + np.arange(70) % 2 + 0.001 * np.arange(70)
    assert feature(turning, "permutation_entropy_63")[-1] == pytest.approx(bits / math.log(6), rel=1e-5)
    assert feature(turning, "sign_entropy_63")[-1] == pytest.approx(bits / math.log(8), rel=1e-5)
    noise = np.exp(np.random.default_rng(1).normal(0.0, 0.1, 500))
    assert np.nanmean(feature(noise, "permutation_entropy_63")) > 0.95  # all orders are equally likely


def test_equal_closes_count_as_rising_in_the_orders() -> None:
    """Bandt and Pompe: of equal values the earlier is the lower; so a flat series has one order only."""
    assert feature([5.0] * 70, "permutation_entropy_63")[-1] == 0.0


def test_a_price_that_does_not_move() -> None:
    expected = {"close_z_63": 0.0, "close_rank_63": 0.5, "quantile_position_63": 0.5, "median_dist_63": 0.0}
    expected |= {"ret_rank_63": 0.5, "quantile_skew_63": 0.0, "continuation_63": 0.0, "up_share_20": 0.0}
    expected |= {"max_ret_20": 0.0, "min_ret_20": 0.0, "sign_entropy_63": 0.0}
    undefined = ["skew_20", "skew_63", "kurtosis_63", "mad_ratio_63", "ret_z_63", "tail_ratio_63"]
    undefined += ["autocorr_1_63", "autocorr_5_63", "sharpe_20", "sharpe_63", "hurst_126"]
    for name, value in (expected | dict.fromkeys(undefined, nan)).items():
        np.testing.assert_equal(feature([33.3] * 260, name)[-1], value, err_msg=name)
