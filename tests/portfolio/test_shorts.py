"""Short positions through whole sessions, against an account kept by hand."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pytest

from tests.backtest.random_markets import panel_of
from trading_core.backtest.data import MarketData
from trading_core.backtest.engine import Job, Terms, run_many
from trading_core.backtest.result import BacktestResult
from trading_core.costs import FREE, CostModel
from trading_core.portfolio.planner import plan
from trading_core.portfolio.risk import RiskLimits
from trading_core.portfolio.strategy import SessionView, Strategy
from trading_core.schema import FloatArray, Side

DAYS = [date(2021, 3, 4), date(2021, 3, 5), date(2021, 3, 8), date(2021, 3, 9)]  # Thursday, Friday, Monday, Tuesday
COSTS = CostModel(10, 20, 30, borrow_bps_annual=365, interest_bps_annual=730)  # a day: 1e-4 and 2e-4
WIDE = RiskLimits(max_position=1.0, max_gross=2.0)


class Script(Strategy):
    """The weights of each decision; None: leave everything."""

    lookback = 1
    needs_forecasts = False
    columns = ()
    short = True

    def __init__(self, *targets: list[float] | None) -> None:
        self.targets = targets

    def decide(self, view: SessionView) -> FloatArray:
        target = self.targets[view.ordinal] if view.ordinal < len(self.targets) else None
        return np.array(view.weights) if target is None else np.array(target, dtype=np.float64)


def traded(
    opens: list[float], closes: list[float], script: Script, events: list[tuple[str, date, str, float]] | None = None,
    costs: CostModel = FREE, limits: RiskLimits | None = WIDE,
) -> BacktestResult:  # fmt: skip
    rows = [("A", DAYS[t], opens[t], closes[t], 1e6) for t in range(4)]
    bars = pl.DataFrame(rows, schema=["symbol", "session", "open", "close", "volume"], orient="row")
    happened = pl.DataFrame(events or [], schema=["symbol", "session", "kind", "value"], orient="row")
    data = MarketData.from_frames(bars, happened if events else None)
    job = Job("it", script, Terms(10_000.0, costs, limits=limits), panel_of(np.full((4, 1), np.nan)))
    return run_many(data, [job], start=DAYS[0], end=DAYS[-1])[0]


def test_a_short_earns_interest_pays_fees_and_owes_dividends_to_the_cent() -> None:
    prices = ([100.0, 100.0, 97.0, 96.0], [100.0, 98.0, 95.0, 96.0])
    result = traded(*prices, Script([-0.5], None, [0.0]), [("A", DAYS[2], "dividend", 1.0)], COSTS)
    # Friday: a day's interest on 10,000 is 2.00; 50 sold at 100 * 0.995 bring 4975.00 less 4.975.
    # Monday, three days later: 14972.025 * 6e-4 = 8.983215; 50 * 98 * 3e-4 = 1.47; the dividend of 50 is owed.
    # Tuesday: 14929.538215 * 2e-4 = 2.985908; 50 * 95 * 1e-4 = 0.475; 50 bought at 96.48, and 4.824.
    assert result.cash.tolist() == pytest.approx([10_000, 14_972.025, 14_929.538215, 10_103.225123])
    assert result.equity.tolist() == pytest.approx([10_000, 10_072.025, 10_179.538215, 10_103.225123])
    assert result.interest.tolist() == pytest.approx([0, 2, 8.983215, 2.985907643])
    assert result.borrow.tolist() == pytest.approx([0, 0, 1.47, 0.475])
    assert result.dividends.tolist() == pytest.approx([0, 0, -50, 0])
    assert result.gross[1] == pytest.approx(4900 / 10_072.025)
    assert result.net[1] == pytest.approx(-4900 / 10_072.025)
    assert result.trades.select("side", "quantity").rows() == [("sell", 50.0), ("buy", 50.0)]
    assert result.final_holdings == {}


def test_splits_and_delistings_of_a_short() -> None:
    split = traded([100, 100, 50, 50], [100, 100, 50, 50], Script([-0.5]), [("A", DAYS[2], "split", 2.0)])
    assert split.final_holdings == {"A": -100.0}
    assert split.equity.tolist() == pytest.approx([10_000] * 4)
    gone = traded([100] * 4, [100] * 4, Script([-0.5]), [("A", DAYS[3], "delisting", 20.0)])
    assert gone.proceeds.tolist() == pytest.approx([0, 0, 0, -1000])
    assert gone.equity[-1] == pytest.approx(10_000 + 50 * 80)
    assert gone.final_holdings == {}


def test_one_order_goes_from_long_to_short_and_back() -> None:
    result = traded([100] * 4, [100] * 4, Script([0.5], [-0.3], [0.2]))
    assert result.trades.select("side", "quantity").rows() == [("buy", 50.0), ("sell", 80.0), ("buy", 50.0)]
    assert result.net.tolist() == pytest.approx([0, 0.5, -0.3, 0.2])


def test_the_position_limit_holds_on_both_sides_and_never_stops_a_close() -> None:
    limits = RiskLimits(max_position=0.3, max_gross=2.0)
    short = traded([100] * 4, [100] * 4, Script([-0.5], None, [0.5]), limits=limits)
    assert short.net.tolist() == pytest.approx([0, -0.3, -0.3, 0.3])
    assert short.unfilled["quantity"].to_list() == [50.0, 80.0]
    # The price trebles: 30 short are 90 % of 4,000; closing them passes, whatever the limit.
    squeezed = traded([100, 100, 300, 300], [100, 300, 300, 300], Script([-0.3], [0.0]), limits=limits)
    assert squeezed.final_holdings == {}
    assert squeezed.equity[-1] == pytest.approx(4_000)


def test_proceeds_of_short_sales_pay_for_what_is_bought() -> None:
    """130 % long and 30 % short: the sale of B brings the cash that A needs beyond equity."""
    orders = plan(
        ("A", "B"), np.zeros(2), np.array([1.3, -0.3]), np.array([10.0, 20.0]), np.zeros(2), 1000.0, FREE, cash=1000.0
    )
    assert [(o.symbol, o.side, o.quantity) for o in orders] == [("B", Side.SELL, 15.0), ("A", Side.BUY, 130.0)]


def test_a_cover_is_exact_and_is_shrunk_like_every_purchase_when_cash_is_short() -> None:
    held, closes = np.array([-7.1234567, 0.0]), np.array([10.0, 10.0])
    weights = held * closes / 100.0
    exact = plan(("A", "B"), weights, np.array([0.0, 0.0]), closes, held, 100.0, COSTS, cash=171.234567)
    assert [(o.side, o.quantity) for o in exact] == [(Side.BUY, 7.1234567)]
    # To cover 7.12 of A and buy 10 of B at 10 takes 171.23 without costs; 85.62 is half of it.
    short = plan(("A", "B"), weights, np.array([0.0, 1.0]), closes, held, 100.0, FREE, cash=85.6172835)
    assert [(o.symbol, o.quantity) for o in short] == [("A", 3.561728), ("B", 5.0)]
