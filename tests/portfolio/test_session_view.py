from datetime import date

import numpy as np
import pytest

from trading_core.costs import FREE
from trading_core.errors import NoDataError, StrategyOutputError
from trading_core.portfolio.decision import decide, value_account
from trading_core.portfolio.risk import RiskLimits
from trading_core.portfolio.strategy import Strategy, session_view, validate_weights


def view(closes=((10.0, 20.0),), weights=(0.5, 0.0), symbols=("A", "B")):
    closes = np.array(closes, dtype=float)
    count = closes.shape[1]
    weights = np.array(weights, dtype=float)
    nans = np.full(count, np.nan)
    quantiles = np.full((count, 7), np.nan)
    return session_view(
        date(2020, 1, 2),
        date(2020, 1, 3),
        0,
        symbols,
        nans,
        quantiles,
        nans,
        closes,
        closes,
        weights,
        1 - weights.sum(),
    )


def test_arrays_of_a_view_are_sealed_copies():
    whole = np.arange(20.0).reshape(10, 2) + 1
    seen = view(closes=whole[:4])
    assert seen.closes.base is None
    assert seen.closes.tolist() == whole[:4].tolist()
    with pytest.raises(ValueError, match="read-only"):
        seen.closes[0, 0] = 0.0


@pytest.mark.parametrize("symbols", [("B", "A"), ("A", "A")])
def test_symbols_must_be_sorted_and_distinct(symbols):
    with pytest.raises(ValueError, match="sorted and distinct"):
        view(symbols=symbols)


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        ([0.5], "shape is"),
        ([[0.5, 0.5]], "shape is"),
        ("all of it", "not an array of numbers"),
        ([0.5, np.nan], "the weight of B is not finite"),
        ([0.5, np.inf], "the weight of B is not finite"),
        ([-0.1, 0.5], r"the weight of A is negative \(long only\)"),
        ([0.6, 0.5], "sum to 1.100000, above the limit 1.000000"),
    ],
)
def test_unusable_weights_are_refused_with_the_reason(weights, reason):
    with pytest.raises(StrategyOutputError, match=f"Strategy 'mine'.*{reason}"):
        validate_weights("mine", weights, view())


def test_a_symbol_without_a_bar_must_keep_its_weight():
    seen = view(closes=((np.nan, 20.0),))
    assert validate_weights("mine", [0.5, 0.5], seen).tolist() == [0.5, 0.5]
    with pytest.raises(StrategyOutputError, match="A has no bar on 2020-01-02"):
        validate_weights("mine", [0.0, 0.5], seen)


def test_holding_what_drifted_above_the_limit_is_allowed():
    assert validate_weights("mine", [0.95, 0.0], view(weights=(0.95, 0.0)), max_gross=0.9).tolist() == [0.95, 0.0]


def test_an_account_is_valued_at_its_marks():
    # 100 of cash, 5 A at 10 and 2 B at 25: 200.
    account = value_account(("A", "B", "C"), {"A": 5.0, "B": 2.0}, 100.0, np.array([10.0, 25.0, np.nan]))
    assert account.equity == 200.0
    assert account.weights.tolist() == [0.25, 0.25, 0.0]
    assert account.cash_weight == 0.5


@pytest.mark.parametrize("symbol", ["B", "Z"])
def test_a_holding_without_a_price_is_an_error(symbol):
    with pytest.raises(NoDataError, match=f"holds 1 {symbol}, which has no known price"):
        value_account(("A", "B"), {symbol: 1.0}, 0.0, np.array([1.0, np.nan]))


def test_a_decision_is_planned_and_clipped():
    class AllIn(Strategy):
        lookback = 1
        needs_forecasts = False

        def decide(self, seen):
            return np.array([0.0, 1.0])

    marks = np.array([10.0, 20.0])
    account = value_account(("A", "B"), {"A": 50.0}, 500.0, marks)
    decision = decide("all-in", AllIn(), view(), account, marks, FREE, limits=RiskLimits(max_position=0.25))
    # Sells all 50 A; 1000 would buy 50 B, but a quarter of 1000 is 12.5 of them.
    assert [(o.symbol, o.side.value, o.quantity) for o in decision.orders] == [("A", "sell", 50.0), ("B", "buy", 12.5)]
    assert [v.verdict for v in decision.verdicts] == ["approve", "clip"]
    assert decision.targets.tolist() == [0.0, 1.0]
