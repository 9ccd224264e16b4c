"""The paper broker over night and short of shares: interest, borrowing fees, impact and volume caps, worked out by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from trading_core.costs import CostModel
from trading_core.errors import NoDataError
from trading_core.execution.paper import PaperBroker
from trading_core.execution.store import open_store
from trading_core.portfolio.auction import Liquidity
from trading_core.portfolio.overnight import Night
from trading_core.schema import ActionKind, CorporateAction, Order, OrderStatus, Side

MON, TUE, WED = date(2024, 3, 4), date(2024, 3, 5), date(2024, 3, 6)
NOW = datetime(2024, 3, 5, 14, 30, tzinfo=UTC)
YEAR_PART = 1.0 / 365.0


def broker(path, costs, short=True):
    return PaperBroker(open_store(f"sqlite:///{path / 'ledger.sqlite'}"), "it", 10_000.0, costs, True, short)


def order(symbol, side, quantity, session):
    return Order(f"{symbol}-{side.value}-{session}", symbol, side, quantity, session, 100.0)


def test_a_short_position_brings_cash_and_costs_its_fee(tmp_path):
    costs = CostModel(10, 0, 0, borrow_bps_annual=365.0, interest_bps_annual=730.0)
    paper = broker(tmp_path, costs)
    paper.submit(order("A", Side.SELL, 20.0, TUE))
    paper.settle_open(TUE, {"A": 100.0}, (), NOW)
    # 20 at 100 less 10 bps of 2000.
    assert paper.account().cash == pytest.approx(10_000 + 2_000 - 2)
    (position,) = paper.account().positions
    assert (position.quantity, position.average_price) == (-20.0, pytest.approx(99.9))
    # One day: cash earns 7.30 % a year, and 20 shares at 110 cost 3.65 % a year; then the short owes the dividend.
    dividend = CorporateAction("A", WED, ActionKind.DIVIDEND, 0.5)
    paper.submit(order("A", Side.BUY, 5.0, WED))
    paper.settle_open(WED, {"A": 104.0}, (dividend,), NOW, Night(YEAR_PART, {"A": 110.0}))
    interest, fee = 11_998 * 0.073 / 365, 20 * 110 * 0.0365 / 365
    assert paper.account().cash == pytest.approx(11_998 + interest - fee - 20 * 0.5 - 5 * 104 * 1.001, abs=1e-9)
    (position,) = paper.account().positions
    assert (position.quantity, position.average_price) == (-15.0, pytest.approx(99.9))


def test_a_sale_beyond_what_is_held_is_cut_unless_shorts_are_allowed(tmp_path):
    for short, left in ((False, []), (True, [-10.0])):
        (tmp_path / str(short)).mkdir()
        paper = broker(tmp_path / str(short), CostModel(0, 0, 0), short)
        paper.submit(order("A", Side.BUY, 10.0, MON))
        paper.settle_open(MON, {"A": 100.0}, (), NOW)
        paper.submit(order("A", Side.SELL, 20.0, TUE))
        paper.settle_open(TUE, {"A": 100.0}, (), NOW)
        assert [p.quantity for p in paper.account().positions] == left
        if short:  # what crosses zero begins anew at its own price
            assert paper.account().positions[0].average_price == 100.0


def test_a_fee_that_cannot_be_priced_stops_the_settlement(tmp_path):
    paper = broker(tmp_path, CostModel(borrow_bps_annual=50.0))
    paper.submit(order("A", Side.SELL, 1.0, TUE))
    paper.settle_open(TUE, {"A": 100.0}, (), NOW)
    with pytest.raises(NoDataError, match="short position in A has no known price"):
        paper.settle_open(WED, {}, (), NOW, Night(YEAR_PART, {}))
    assert paper.settled_through() == TUE


def test_the_impact_and_the_cap_of_an_order(tmp_path):
    paper = broker(tmp_path, CostModel(0, 0, 0, impact_coefficient=1.0, max_participation=0.1))
    known = {"A": Liquidity(sigma=0.02, adv=10_000.0, volume=250.0), "B": Liquidity(volume=1e6)}
    for symbol in ("A", "B"):
        paper.submit(order(symbol, Side.BUY, 40.0, TUE))
    paper.settle_open(TUE, {"A": 100.0, "B": 100.0}, (), NOW, Night(liquidity=known))
    states = {state.order.symbol: state for state in paper.orders(TUE)}
    # A tenth of 250 shares is 25; they cost 2 % * sqrt(25 / 10000) = 0.1 % above the open.
    assert (states["A"].filled_quantity, states["A"].status) == (25.0, OrderStatus.EXPIRED)
    assert states["A"].average_price == pytest.approx(100.1)
    assert "largest share of the session's volume" in states["A"].reason
    # Nothing is known of B's volatility: its impact has no price, so it is not filled.
    assert (states["B"].status, states["B"].filled_quantity) == (OrderStatus.EXPIRED, 0.0)
    assert "volatility to price its impact by" in states["B"].reason
