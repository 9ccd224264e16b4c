"""Forecast metrics against scipy, scikit-learn, statsmodels and numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import stats
from sklearn.metrics import (
    brier_score_loss,
    mean_absolute_error,
    mean_pinball_loss,
    mean_squared_error,
    roc_auc_score,
)

from trading_core.errors import InvalidConfigError
from trading_core.metrics import forecasts as m

TAUS = (0.05, 0.5, 0.95)


def _cross_sections(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    date_index = rng.integers(100, 130, 900)
    label = rng.normal(0, 0.02, 900)
    score = np.round(0.3 * label + rng.normal(0, 0.01, 900), 3)  # rounded: there are ties
    score[::50], label[7::61] = np.nan, np.nan
    return score, label, date_index


@pytest.mark.parametrize(("ours", "theirs"), [(m.ic_per_date, stats.pearsonr), (m.rank_ic_per_date, stats.spearmanr)])
def test_correlations_equal_scipys_date_by_date(ours: object, theirs: object) -> None:
    score, label, date_index = _cross_sections()
    result = ours(score, label, date_index)  # type: ignore[operator]
    assert result.dates.tolist() == sorted(set(date_index.tolist()))
    for day, value, pairs in zip(result.dates, result.values, result.pairs, strict=True):
        keep = (date_index == day) & np.isfinite(score) & np.isfinite(label)
        assert pairs == keep.sum()
        assert value == pytest.approx(theirs(score[keep], label[keep]).statistic, abs=1e-12)  # type: ignore[operator]
    assert result.excluded == 0


def test_dates_without_a_correlation_are_excluded_and_counted() -> None:
    #        two pairs | constant score  | constant label  | all missing | fine
    date_index = np.array([1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5])
    score = np.array([1.0, 2, 0.1, 0.1, 0.1, 1, 2, 3, np.nan, np.nan, np.nan, 1, 2, 3])
    label = np.array([1.0, 2, 1, 2, 3, 0.3, 0.3, 0.3, 1, 2, 3, 3, 2, 1])
    for result in (m.ic_per_date(score, label, date_index), m.rank_ic_per_date(score, label, date_index)):
        np.testing.assert_allclose(result.values, [np.nan, np.nan, np.nan, np.nan, -1.0])
        assert result.pairs.tolist() == [2, 3, 3, 0, 3]
        assert result.excluded == 4
        np.testing.assert_allclose(result.included, [-1.0])
    empty = m.ic_per_date(np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64))
    assert len(empty.values) == 0


def test_ranks_equal_scipys() -> None:
    values = np.array([3.0, 1, 1, 2, 5, 5, 5, -1])
    np.testing.assert_array_equal(m.average_ranks(values, np.zeros(8, dtype=np.int64)), stats.rankdata(values))
    groups = np.array([1, 0, 1, 0, 1, 0, 1, 0])
    got = m.average_ranks(values, groups)
    for group in (0, 1):
        np.testing.assert_array_equal(got[groups == group], stats.rankdata(values[groups == group]))


@pytest.mark.parametrize("lag", [0, 1, 4, 20])
def test_newey_west_equals_statsmodels(lag: int) -> None:
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 1, 204)
    series = 0.1 + np.convolve(noise, np.ones(5) / 5, "valid")  # overlapping, as labels of horizon 5 are
    fit = sm.OLS(series, np.ones(len(series))).fit(cov_type="HAC", cov_kwds={"maxlags": lag, "use_correction": False})
    assert m.newey_west_t(series, lag) == pytest.approx(float(fit.tvalues[0]), rel=1e-10)
    assert m.newey_west_error(series, lag) == pytest.approx(float(fit.bse[0]), rel=1e-10)
    with_gaps = np.insert(series, [3, 50], np.nan)
    assert m.newey_west_t(with_gaps, lag) == pytest.approx(float(fit.tvalues[0]), rel=1e-10)


def test_t_and_information_ratio_of_nothing() -> None:
    for values in (np.zeros(0), np.array([0.1]), np.full(9, 0.1)):
        assert math.isnan(m.newey_west_t(values, 1))
        assert math.isnan(m.newey_west_error(values, 1))
        assert math.isnan(m.information_ratio(values))
    assert m.information_ratio(np.array([1.0, np.nan, 3.0])) == pytest.approx(2.0 / math.sqrt(2.0))
    with pytest.raises(InvalidConfigError, match="lag: -1"):
        m.newey_west_t(np.ones(4), -1)


def test_quantile_metrics_equal_sklearns_and_hand_counts() -> None:
    rng = np.random.default_rng(1)
    label = rng.normal(0, 1, 200)
    quantiles = np.sort(rng.normal(0, 1, (200, 3)), axis=1)
    expected = np.mean([mean_pinball_loss(label, quantiles[:, k], alpha=tau) for k, tau in enumerate(TAUS)])
    assert m.pinball(label, quantiles, TAUS) == pytest.approx(expected, rel=1e-12)
    # y = 2 between q = 1 and q = 4: (0.05 * 1 + 0.5 * 1 + 0.05 * 2) / 3
    assert m.pinball(np.array([2.0]), np.array([[1.0, 1.0, 4.0]]), TAUS) == pytest.approx(0.65 / 3)
    y, low, high = np.array([0.0, 1.0, 2.0, 3.0, np.nan]), np.array([0.0, 2, 0, 0, 0]), np.array([1.0, 3, 1, 3, 9])
    assert m.coverage(y, low, high) == 0.5  # both ends belong to the interval
    rows = np.array([[1.0, 2, 3], [1, 1, 1], [1, 3, 2], [2, 1, 3], [np.nan, 1, 0]])
    assert m.crossing_rate(rows) == 0.5
    with pytest.raises(InvalidConfigError, match="3 columns for 2 levels"):
        m.pinball(label, quantiles, (0.1, 0.9))


def test_point_metrics() -> None:
    y, q = np.array([1.0, -2.0, 3.0, 0.0, 1.0, np.nan]), np.array([2.0, -1.0, -3.0, 1.0, 0.0, 1.0])
    assert m.rmse(y, q) == pytest.approx(math.sqrt(mean_squared_error(y[:5], q[:5])))
    assert m.mae(y, q) == pytest.approx(mean_absolute_error(y[:5], q[:5]))
    assert m.directional_accuracy(y, q) == pytest.approx(2 / 3)  # the rows with a zero have no direction
    assert math.isnan(m.directional_accuracy(y, np.zeros(6)))
    assert math.isnan(m.rmse(np.full(2, np.nan), np.zeros(2)))


def test_probability_metrics_equal_sklearns() -> None:
    rng = np.random.default_rng(2)
    outcome = rng.integers(0, 2, 300).astype(float)
    p = np.round(np.clip(0.3 * outcome + rng.uniform(0, 0.7, 300), 0, 1), 2)  # ties
    assert m.brier(p, outcome) == pytest.approx(brier_score_loss(outcome, p), rel=1e-12)
    assert m.roc_auc(p, outcome) == pytest.approx(roc_auc_score(outcome, p), rel=1e-12)
    holes = np.append(p, [np.nan, 0.5]), np.append(outcome, [1.0, np.nan])
    assert m.roc_auc(*holes) == m.roc_auc(p, outcome)
    assert m.brier(*holes) == pytest.approx(m.brier(p, outcome), rel=1e-12)
    assert math.isnan(m.roc_auc(p, np.ones(300)))


def test_summary_is_made_of_the_metrics() -> None:
    score, label, date_index = _cross_sections(4)
    quantiles = np.column_stack([score - 0.03, score, score + 0.03])
    p_up = 1.0 / (1.0 + np.exp(-50.0 * score))
    skill = m.summary(score, label, date_index, 5, quantiles, TAUS, p_up)
    keep = np.isfinite(score) & np.isfinite(label)
    rank_ics = [
        stats.spearmanr(score[keep & (date_index == d)], label[keep & (date_index == d)]).statistic
        for d in sorted(set(date_index.tolist()))
    ]
    assert skill.mean_rank_ic == pytest.approx(np.mean(rank_ics), rel=1e-10)
    assert skill.rank_icir == pytest.approx(np.mean(rank_ics) / np.std(rank_ics, ddof=1), rel=1e-10)
    hac = {"maxlags": 4, "use_correction": False}
    fit = sm.OLS(rank_ics, np.ones(len(rank_ics))).fit(cov_type="HAC", cov_kwds=hac)
    assert skill.rank_t_stat == pytest.approx(float(fit.tvalues[0]), rel=1e-9)
    assert (skill.hac_lag, skill.n, skill.n_dates, skill.n_dates_excluded) == (4, keep.sum(), len(rank_ics), 0)
    assert skill.coverage_90 == pytest.approx(np.mean(np.abs(label - score)[keep] <= 0.03))
    assert skill.crossing_rate == 0.0
    assert skill.roc_auc == pytest.approx(roc_auc_score(label[keep] > 0, p_up[keep]))
    assert skill.brier == pytest.approx(brier_score_loss(label[keep] > 0, p_up[keep]))
    assert skill.rmse == pytest.approx(math.sqrt(mean_squared_error(label[keep], score[keep])))
    bare = m.summary(score, label, date_index)
    assert bare.mean_ic == skill.mean_ic
    assert math.isnan(bare.pinball)
    assert math.isnan(bare.brier)
