"""Volatility and average volume as an order's impact is priced by them, against sums by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.backtest.random_markets import random_market
from trading_core.backtest.liquidity import MIN_RETURNS, liquidity

NAN = np.nan


def column(values: list[float]) -> np.ndarray:
    return np.array(values, dtype=np.float64)[:, None]


def test_volatility_is_about_zero_and_starts_with_five_returns() -> None:
    steps = [0.01, -0.02, 0.02, 0.0, -0.01, 0.04]
    closes = column(np.exp(np.cumsum([3.0, *steps])).tolist())
    sigma, _ = liquidity(closes, np.ones_like(closes), np.ones_like(closes))
    assert np.isnan(sigma[:MIN_RETURNS, 0]).all()
    # (1 + 4 + 4 + 0 + 1) / 5 = 2 and, with 16, 26 / 6, in units of 1e-4.
    assert sigma[5:, 0] == pytest.approx(np.sqrt([2e-4, 26e-4 / 6]))


def test_only_the_window_counts() -> None:
    closes = column([1.0, 100.0, 1.0, *([1.0, 1.1] * 5)])
    sigma, adv = liquidity(closes, column([9e9, *range(1, 13)]), np.ones_like(closes), window=5)
    assert sigma[-1, 0] == pytest.approx(np.log(1.1))
    assert adv[-1, 0] == 10.0  # 8 .. 12
    assert adv[2, 0] == pytest.approx((9e9 + 1 + 2) / 3)


def test_a_split_moves_neither_the_volatility_nor_the_value_traded() -> None:
    plain = column([50.0, 51.0, 50.0, 52.0, 51.0, 53.0, 52.0])
    factor = column([1, 1, 1, 4, 4, 4, 4])
    volumes = column([100.0] * 7)
    sigma, adv = liquidity(plain, volumes, np.ones_like(plain))
    split_sigma, split_adv = liquidity(plain / factor, volumes * factor, factor)
    np.testing.assert_allclose(split_sigma, sigma)
    np.testing.assert_allclose(split_adv, adv * factor)  # in the basis of the day


def test_a_missing_bar_is_skipped_with_the_returns_on_both_of_its_sides() -> None:
    closes = column([1.0, 1.1, NAN, 1.0, 1.1, 1.0, 1.1, 1.0])
    volumes = column([10.0, 20.0, NAN, 30.0, 40.0, 0.0, 40.0, 40.0])
    sigma, adv = liquidity(closes, volumes, np.ones_like(closes))
    assert np.isnan(sigma[6, 0])  # 1 + 3 returns
    assert sigma[7, 0] == pytest.approx(np.log(1.1))
    assert adv[2, 0] == 15.0
    assert adv[5, 0] == 20.0  # a session without volume is one of the five
    nothing = np.full((4, 1), NAN)
    assert np.isnan(liquidity(nothing, nothing, np.ones((4, 1)))).all()


def test_a_history_that_ends_earlier_or_starts_later_has_the_same_bits() -> None:
    data = random_market(4, sessions=70).data
    sigma, adv = liquidity(data.closes, data.volumes, data.split_factor)
    for end in (1, 6, 33):
        short = liquidity(data.closes[:end], data.volumes[:end], data.split_factor[:end])
        assert (short[0].tobytes(), short[1].tobytes()) == (sigma[:end].tobytes(), adv[:end].tobytes())
    late = liquidity(data.closes[40:], data.volumes[40:], data.split_factor[40:])
    assert (late[0][20:].tobytes(), late[1][20:].tobytes()) == (sigma[60:].tobytes(), adv[60:].tobytes())
