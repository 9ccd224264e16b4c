"""Bucket returns against pandas, statsmodels, scipy and numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats

from trading_core.errors import InvalidConfigError
from trading_core.metrics import buckets as m


def _panel() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """60 dates of 30 symbols, whose score says something."""
    rng = np.random.default_rng(8)
    score = rng.normal(0, 1, 1800)
    return score, 0.01 * score + rng.normal(0, 0.03, 1800), np.repeat(np.arange(60), 30)


@pytest.mark.parametrize("horizon", [1, 5])
def test_deciles_equal_pandas_and_statsmodels(horizon: int) -> None:
    score, label, date_index = _panel()
    found = m.bucket_returns(score, label, date_index, horizon)
    frame = pd.DataFrame({"score": score, "label": label, "date": date_index})
    frame["bucket"] = frame.groupby("date")["score"].transform(lambda s: pd.qcut(s, 10, labels=False))
    table = frame.pivot_table(index="date", columns="bucket", values="label").to_numpy()
    np.testing.assert_allclose(m.bucket_returns_per_date(score, label, date_index), table, rtol=1e-12)
    np.testing.assert_allclose(found.mean, table.mean(axis=0), rtol=1e-12)
    hac = {"maxlags": horizon - 1, "use_correction": False}
    fits = [sm.OLS(y, np.ones(60)).fit(cov_type="HAC", cov_kwds=hac) for y in (*table.T, table[:, 9] - table[:, 0])]
    np.testing.assert_allclose(found.standard_error, [fit.bse[0] for fit in fits[:10]], rtol=1e-10)
    assert found.spread == pytest.approx(table[:, 9].mean() - table[:, 0].mean())
    assert found.spread_standard_error == pytest.approx(fits[10].bse[0])
    assert found.spread_t == pytest.approx(fits[10].tvalues[0])
    assert found.monotonicity == pytest.approx(stats.spearmanr(np.arange(10), table.mean(axis=0)).statistic)
    assert (found.dates, found.dates_excluded, found.hac_lag) == (60, 0, horizon - 1)


def test_sizes_differ_by_at_most_one() -> None:
    # Seven symbols in three buckets: floor(p * 3 / 7) for p = 0 .. 6 is 0 0 0 1 1 2 2.
    found = m.bucket_returns_per_date(np.arange(7.0), np.arange(7.0), np.zeros(7, dtype=np.int64), 3)
    np.testing.assert_allclose(found, [[1.0, 3.5, 5.5]])


def test_ties_count_with_their_mean_whatever_the_order_of_rows() -> None:
    # The two middle symbols of four are tied across the border of two buckets: each bucket has one of them, on average.
    score, label = np.array([1.0, 2.0, 2.0, 3.0]), np.array([0.1, 0.5, 0.7, 0.3])
    day = np.zeros(4, dtype=np.int64)
    np.testing.assert_allclose(m.bucket_returns_per_date(score, label, day, 2), [[(0.1 + 0.6) / 2, (0.6 + 0.3) / 2]])
    score, label, date_index = _panel()
    score = np.round(score, 1)
    shuffled = np.random.default_rng(1).permutation(len(score))
    once = m.bucket_returns_per_date(score, label, date_index)
    again = m.bucket_returns_per_date(score[shuffled], label[shuffled], date_index[shuffled])
    assert once.tolist() == again.tolist()
    assert np.isfinite(once).all()


def test_dates_without_enough_symbols_or_a_ranking_are_left_out() -> None:
    #            fine        | one has no label | one score for all | no score at all
    date_index = np.repeat([1, 2, 3, 4], 3)
    score = np.array([1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 0.5, 0.5, 0.5, np.nan, np.nan, np.nan])
    label = np.array([0.1, 0.2, 0.4, 0.1, np.nan, 0.3, 0.1, 0.2, 0.3, 0.1, 0.2, 0.3])
    found = m.bucket_returns(score, label, date_index, buckets=3)
    np.testing.assert_allclose(found.mean, [0.1, 0.2, 0.4])
    assert found.spread == pytest.approx(0.3)
    assert (found.dates, found.dates_excluded) == (1, 3)
    assert found.monotonicity == pytest.approx(1.0)
    assert np.isnan(found.standard_error).all()  # of one date
    assert math.isnan(found.spread_t)


def test_nothing_and_bad_arguments() -> None:
    none = m.bucket_returns(np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))
    assert np.isnan(none.mean).all()
    assert math.isnan(none.spread)
    assert math.isnan(none.monotonicity)
    assert (none.dates, none.dates_excluded) == (0, 0)
    for horizon, buckets in ((0, 10), (1, 1)):
        with pytest.raises(InvalidConfigError, match=f"buckets: {buckets}, horizon: {horizon}"):
            m.bucket_returns(np.zeros(3), np.zeros(3), np.zeros(3, dtype=np.int64), horizon, buckets)
