"""Returns by month and rolling Sharpe ratios against pandas and numbers worked out by hand."""

from __future__ import annotations

import math
from datetime import date

import numpy as np
import pandas as pd
import pytest

from trading_core.errors import InvalidConfigError, WrongTypeError
from trading_core.metrics import periods as m


def test_months_and_years_by_hand() -> None:
    days = [date(2023, 11, 30), date(2023, 12, 4), date(2023, 12, 29), date(2024, 1, 31), date(2024, 3, 1)]
    found = m.period_returns(days, np.array([100.0, 90.0, 110.0, 121.0, 60.5]))
    assert found.years.tolist() == [2023, 2024]
    expected = np.full((2, 12), np.nan)  # November 2023 is only where the curve begins; February 2024 has no session
    expected[0, 11], expected[1, 0], expected[1, 2] = 0.1, 0.1, -0.5
    np.testing.assert_allclose(found.monthly, expected)
    np.testing.assert_allclose(found.yearly, [0.1, 60.5 / 110.0 - 1.0])


def test_months_and_years_equal_pandas_and_compound() -> None:
    index = pd.bdate_range("2019-03-14", "2022-08-17")
    equity = 1e5 * np.cumprod(1.0 + np.random.default_rng(0).normal(0.0003, 0.01, len(index)))
    found = m.period_returns([stamp.date() for stamp in index], equity)
    curve = pd.Series(equity, index)
    for rule, values in (("ME", found.monthly.ravel()), ("YE", found.yearly)):
        last = curve.resample(rule).last()
        expected = last / last.shift().fillna(equity[0]) - 1.0
        np.testing.assert_allclose(values[np.isfinite(values)], expected, rtol=1e-10, atol=1e-14)
    assert np.isfinite(found.monthly).sum() == 42  # March 2019 to August 2022
    np.testing.assert_allclose(np.nanprod(1.0 + found.monthly, axis=1), 1.0 + found.yearly)


def test_a_year_without_sessions_and_no_curve() -> None:
    found = m.period_returns([date(2020, 6, 1), date(2020, 6, 2), date(2022, 6, 1)], np.array([1.0, 2.0, 3.0]))
    assert found.years.tolist() == [2020, 2021, 2022]
    np.testing.assert_allclose(found.yearly, [1.0, np.nan, 0.5])
    assert m.period_returns([], np.zeros(0)).monthly.shape == (0, 12)
    assert np.isnan(m.period_returns([date(2020, 6, 1)], np.ones(1)).yearly).all()
    with pytest.raises(WrongTypeError, match="2 long"):
        m.period_returns([date(2020, 6, 1), date(2020, 6, 2)], np.ones(3))
    with pytest.raises(WrongTypeError, match="out of order at position 1"):
        m.period_returns([date(2020, 6, 2), date(2020, 6, 1)], np.ones(2))


@pytest.mark.parametrize("block", [4096, 50])
def test_rolling_sharpe_equals_pandas(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(m, "_BLOCK", block)
    returns = np.random.default_rng(1).normal(0.0005, 0.01, 400)
    returns[200] = np.nan
    rolling = pd.Series(returns).rolling(63)
    expected = rolling.mean() / rolling.std() * math.sqrt(252)
    found = m.rolling_sharpe(returns, 63)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert np.isnan(found).sum() == 62 + 63
    np.testing.assert_allclose(m.rolling_sharpe(returns, 63, 365), expected * math.sqrt(365 / 252), rtol=1e-9)


def test_rolling_sharpe_where_it_is_not_defined() -> None:
    calm = np.concatenate([[0.5, -0.5], np.full(8, 0.001)])
    found = m.rolling_sharpe(calm, 4)
    assert np.isnan(found[:3]).all()
    assert np.isfinite(found[3:5]).all()
    assert np.isnan(found[5:]).all()  # the windows that no longer hold the wild days do not vary
    assert np.isnan(m.rolling_sharpe(calm, 11)).all()
    with pytest.raises(InvalidConfigError, match="window: 1"):
        m.rolling_sharpe(calm, 1)
