"""Slippage, shortfall and what came of forecasts, all worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from trading_core.errors import WrongTypeError
from trading_core.metrics import execution_quality as m

NAN = math.nan


def _row(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float64)


def test_slippage_is_a_cost_for_a_dear_purchase_and_a_cheap_sale() -> None:
    # Bought 100 at 10.10 for 10.00: 1 % dearer, 10 in cash. Sold 50 at 19.90 for 20.00: 0.5 % cheaper, 5 in cash.
    # Bought 10 at 4.98 for 5.00: 0.4 % cheaper, 0.20 saved.
    found = m.slippage(_row(1, -1, 1), _row(100, 50, 10), _row(10.1, 19.9, 4.98), _row(10, 20, 5))
    assert found.bps.tolist() == pytest.approx([100.0, 50.0, -40.0])
    assert found.cash.tolist() == pytest.approx([10.0, 5.0, -0.2])
    assert found.total_cash == pytest.approx(14.8)
    assert found.total_bps == pytest.approx(14.8 / 2050.0 * 1e4)  # of 1000 + 1000 + 50
    assert found.unknown == 0


def test_what_was_not_executed_or_has_no_reference_is_not_a_number() -> None:
    found = m.slippage(_row(1, 1, -1, 1), _row(0, 5, 2, 4), _row(NAN, 10, 10, 11), _row(9, NAN, 0, 10))
    assert np.isnan(found.bps[:3]).all()
    assert np.isnan(found.cash[:3]).all()
    assert (found.total_cash, found.unknown) == (4.0, 2)
    assert found.total_bps == pytest.approx(1000.0)


def test_nothing_executed_has_no_slippage() -> None:
    found = m.slippage(_row(1), _row(0), _row(NAN), _row(10))
    assert (math.isnan(found.total_bps), math.isnan(found.total_cash), found.unknown) == (True, True, 0)
    assert m.slippage(_row(), _row(), _row(), _row()).bps.tolist() == []


def test_the_shortfall_is_delay_execution_and_commission() -> None:
    # Bought 100: decided at 10.00, opened at 10.20, paid 10.25, commission 1.
    # Sold 40: decided at 50.00, opened at 51.00, got 50.90, commission 2: the gap was in its favour.
    found = m.shortfall(_row(1, -1), _row(100, 40), _row(10.25, 50.9), _row(10, 50), _row(10.2, 51), _row(1, 2))
    assert found.delay == pytest.approx(20.0 - 40.0)
    assert found.execution == pytest.approx(5.0 + 4.0)
    assert (found.commission, found.unknown) == (3.0, 0)
    assert found.costs == pytest.approx(12.0)
    assert found.notional == pytest.approx(1025.0 + 2036.0)
    # Against a free trade at the decision's prices: 1000 paid and 2000 received; really 1025 + 1 and 2036 - 2.
    assert found.total == pytest.approx((1026.0 - 1000.0) + (2000.0 - 2034.0))


def test_an_execution_without_an_open_counts_for_commission_only() -> None:
    found = m.shortfall(_row(1, 1), _row(10, 10), _row(5, 5), _row(4, 4), _row(4.5, NAN), _row(0.5, 0.5))
    assert (found.delay, found.execution, found.commission) == (5.0, 5.0, 1.0)
    assert (found.notional, found.unknown) == (100.0, 1)


@pytest.mark.parametrize(
    ("side", "quantity", "price", "reference", "column"),
    [
        ([1.0, 1.0], [1.0], [1.0], [1.0], "quantity"),
        ([0.0], [1.0], [1.0], [1.0], "side"),
        ([1.0], [-1.0], [1.0], [1.0], "quantity"),
        ([1.0], [NAN], [1.0], [1.0], "quantity"),
        ([1.0], [1.0], [NAN], [1.0], "price"),
        ([1.0], [1.0], [1.0], [1.0, 2.0], "reference"),
    ],
)
def test_impossible_executions_are_refused(
    side: list[float], quantity: list[float], price: list[float], reference: list[float], column: str
) -> None:
    with pytest.raises(WrongTypeError, match=column):
        m.slippage(_row(*side), _row(*quantity), _row(*price), _row(*reference))


def test_a_commission_must_be_known() -> None:
    with pytest.raises(WrongTypeError, match="commission"):
        m.shortfall(_row(1), _row(1), _row(1), _row(1), _row(1), _row(NAN))


def test_log_returns_need_two_prices() -> None:
    found = m.log_returns(_row(10, 10, 0, NAN, 8), _row(11, NAN, 5, 5, 0))
    assert found[0] == pytest.approx(0.09531017980432493)  # log(1.1)
    assert np.isnan(found[1:]).all()


def test_the_outcome_of_forecasts_by_hand() -> None:
    score = _row(4, 3, 2, 1, 0)
    forecast = _row(0.02, 0.01, 0.0, -0.01, -0.02)
    realised = _row(0.03, -0.01, 0.01, -0.02, NAN)
    weight = _row(0.5, 0.3, 0.0, -0.2, 0.1)
    found = m.forecast_outcome(score, forecast, forecast - 0.015, forecast + 0.015, realised, weight)
    assert found.error[:4].tolist() == pytest.approx([0.01, -0.02, 0.01, -0.01])
    assert math.isnan(found.error[4])
    # Ranks 4 3 2 1 against 4 2 3 1: 1 - 6 * 2 / (4 * 15) = 0.8.
    assert found.rank_ic == pytest.approx(0.8)
    assert found.rank_ic == pytest.approx(spearmanr(score[:4], realised[:4]).statistic)
    assert found.pairs == 4
    assert found.right_direction == pytest.approx(2 / 3)  # the forecast of exactly 0 has no direction
    assert found.covered == pytest.approx(3 / 4)  # the second lies outside
    assert found.held == 3
    assert found.hit_rate == pytest.approx(2 / 3)  # up, down, and a short that fell
    assert found.mean_held == pytest.approx((0.03 - 0.01 + 0.02) / 3)
    assert found.mean_all == pytest.approx((0.03 - 0.01 + 0.01 - 0.02) / 4)


def test_the_outcome_of_nothing_is_not_known() -> None:
    none = _row()
    found = m.forecast_outcome(none, none, none, none, none, none)
    assert (found.pairs, found.held) == (0, 0)
    assert all(math.isnan(value) for value in (found.rank_ic, found.hit_rate, found.mean_held, found.mean_all))
    two = _row(1, 2)
    assert math.isnan(
        m.forecast_outcome(two, two, two, two, two, two).rank_ic
    )  # of two pairs it would always be +1 or -1


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(WrongTypeError, match="weight"):
        m.forecast_outcome(_row(1), _row(1), _row(1), _row(1), _row(1), _row(1, 2))
