"""Interval metrics by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from trading_core.errors import InvalidConfigError
from trading_core.metrics import intervals as m

NAN = np.nan


def test_coverage_by_tercile_by_hand() -> None:
    label = np.array([0.0, 2, 0, 2, 2, 0, NAN, 0])
    low, high = np.full(8, -1.0), np.full(8, 1.0)
    volatility = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, NAN])
    np.testing.assert_array_equal(m.coverage_by_tercile(label, low, high, volatility), [0.5, 0.5, 0.5])
    label[1] = 0.0
    np.testing.assert_array_equal(m.coverage_by_tercile(label, low, high, volatility), [1.0, 0.5, 0.5])
    assert np.isnan(m.coverage_by_tercile(label, low, high, np.full(8, NAN))).all()
    same = m.coverage_by_tercile(label, low, high, np.ones(8))  # no thirds: all lie in the lowest
    assert same[0] == pytest.approx(5 / 7)
    assert np.isnan(same[1:]).all()


def test_coverage_between_dates() -> None:
    label, date_index = np.array([0.0, 2, 0, 2]), np.array([4, 5, 6, 7])
    ends = np.full(4, -1.0), np.full(4, 1.0)
    assert m.coverage_between(label, *ends, date_index, 4, 6) == 0.5
    assert m.coverage_between(label, *ends, date_index, 7, 9) == 0.0
    assert math.isnan(m.coverage_between(label, *ends, date_index, 8, 9))


def test_the_break_of_a_variance_by_hand() -> None:
    # C_k / C_D - k / D: 1/22 - 1/6, 2/22 - 2/6, 3/22 - 3/6, 4/22 - 4/6 = -0.48, 13/22 - 5/6, 0.
    assert m.variance_break(np.array([1.0, 1, 1, 1, 9, 9])) == 4
    assert m.variance_break(np.array([9.0, 9, 1, 1, 1, 1])) == 2
    assert m.variance_break(np.array([NAN, 1.0, 1, 9])) == 3
    for nothing in (np.zeros(5), np.ones(1), np.full(3, NAN), np.zeros(0)):
        assert m.variance_break(nothing) is None
    rng = np.random.default_rng(1)
    returns = rng.normal(0, 1, (400, 20)) * np.where(np.arange(400) >= 250, 1.5, 1.0)[:, None]
    assert m.variance_break((returns**2).mean(axis=1)) == pytest.approx(250, abs=2)


def test_interval_score_by_hand_and_at_its_minimum() -> None:
    # width 2, outside by 0, 1 and 0.5; alpha 0.5: each unit outside costs 4
    label, low, high = np.array([0.0, 2, -1.5, NAN]), np.full(4, -1.0), np.full(4, 1.0)
    assert m.interval_score(label, low, high, 0.5) == pytest.approx((2 + 6 + 4) / 3)
    assert m.mean_width(low, np.array([1.0, 2, 3, NAN])) == pytest.approx(3.0)
    draws = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    at = [m.interval_score(draws, np.full(20_000, -z), np.full(20_000, z), 0.1) for z in (1.4, 1.645, 1.9)]
    assert at[1] == min(at)
    for alpha in (0.0, 1.0, NAN):
        with pytest.raises(InvalidConfigError, match="alpha"):
            m.interval_score(label, low, high, alpha)


def test_the_summary_is_made_of_the_metrics() -> None:
    rng = np.random.default_rng(0)
    label, volatility = rng.normal(size=300), rng.uniform(size=300)
    low, high = -1.0 - volatility, 1.0 + volatility
    label[0] = NAN
    skill = m.interval_skill(label, low, high, volatility, 0.1)
    inside = np.abs(label[1:]) <= high[1:]
    assert skill.n == 299
    assert skill.coverage == pytest.approx(inside.mean())
    terciles = skill.coverage_low_volatility, skill.coverage_middle_volatility, skill.coverage_high_volatility
    assert terciles == pytest.approx(tuple(m.coverage_by_tercile(label, low, high, volatility)))
    assert skill.mean_width == pytest.approx((high - low).mean())
    assert skill.interval_score == m.interval_score(label, low, high, 0.1)
