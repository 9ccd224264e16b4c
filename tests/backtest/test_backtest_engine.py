"""The engine against a session-by-session account kept by hand, and what no backtest may do: look ahead."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from strategy_samples import PARAMS, sample

from trading_core.backtest.data import ForecastPanel, MarketData
from trading_core.backtest.engine import run
from trading_core.costs import FREE, CostModel
from trading_core.errors import InvalidDateRangeError, StrategyOutputError
from trading_core.portfolio.registry import STRATEGIES
from trading_core.portfolio.risk import RiskLimits
from trading_core.portfolio.strategy import Strategy
from trading_core.portfolio.top_k import TopK, TopKParams

COSTS = CostModel(commission_bps=10, half_spread_bps=5, slippage_bps=5)


def frame(opens, closes, days=None):
    """Bars of {symbol: prices by session}; None = no bar."""
    count = len(next(iter(opens.values())))
    days = days or [date(2020, 1, 1) + timedelta(days=i) for i in range(count)]
    rows = [
        (symbol, days[t], opens[symbol][t], closes[symbol][t], 1.0)
        for symbol in opens
        for t in range(count)
        if closes[symbol][t] is not None
    ]
    return pl.DataFrame(rows, schema=["symbol", "session", "open", "close", "volume"], orient="row")


def events(rows):
    return pl.DataFrame(rows, schema=["symbol", "session", "kind", "value"], orient="row")


def scored(score):
    score = np.array(score, dtype=float)
    return ForecastPanel(score, score[..., None] + np.linspace(-1, 1, 7), 1.0 / (1.0 + np.exp(-score)))


def backtest(data, score, strategy, **options):
    settings = {"name": "it", "start": data.sessions[0], "end": data.sessions[-1], "capital": 10_000.0, "costs": FREE}
    settings["columns"] = {name: any_feature(data) for name in strategy.columns}
    return run(data, None if score is None else scored(score), strategy, **(settings | options))


def any_feature(data):
    """[T, S] a number of each symbol and session that neither other symbols nor later sessions change."""
    pace = np.array([sum(symbol.encode()) for symbol in data.symbols])
    return np.cos(pace * np.arange(1.0, len(data.sessions) + 1)[:, None])


class AllIn(Strategy):
    """Everything in one symbol, always."""

    lookback = 1
    needs_forecasts = False

    def __init__(self, column=0):
        self.column = column

    def decide(self, view):
        target = np.array(view.weights)
        if view.tradable[self.column] and view.weights[self.column] == 0:
            target[:] = 0.0
            target[self.column] = 1.0
        return target


def test_three_sessions_to_the_cent():
    data = MarketData.from_frames(
        frame({"A": [100, 99, 103], "B": [50, 50, 52]}, {"A": [100, 102, 104], "B": [50, 51, 53]}),
        events([("A", date(2020, 1, 3), "dividend", 1.0)]),
    )
    result = backtest(data, [[0.1, 0.0], [0.0, 0.1], [0, 0]], TopK(TopKParams(1)), costs=COSTS, fractional=False)
    # Decision 1: 10000 / (100 * 1.001 * 1.001) = 99.80 -> 99 A. Filled at 99 * 1.001 = 99.099: 9810.801 and 9.810801.
    assert result.cash[1] == pytest.approx(179.388199)
    assert result.equity[1] == pytest.approx(179.388199 + 99 * 102)
    # Decision 2: sell 99 A; 10257.20 after costs / (51 * 1.001 * 1.001) = 200.7 -> 200 B. The dividend pays 99.
    # Sale at 103 * 0.999: 10186.803 less 10.186803. Purchase at 52 * 1.001: 10410.40 and 10.4104.
    assert result.cash[2] == pytest.approx(34.193996)
    assert result.equity.tolist() == pytest.approx([10_000.0, 10_277.388199, 10_634.193996])
    assert result.costs_paid.tolist() == pytest.approx([0.0, 19.611801, 41.194203])
    assert result.turnover[1:].tolist() == pytest.approx([0.49054005, 0.5 * 20597.203 / 10277.388199])
    trades = result.trades.select("symbol", "side", "quantity", "reference_price").rows()
    assert trades == [("A", "buy", 99.0, 100.0), ("A", "sell", 99.0, 102.0), ("B", "buy", 200.0, 51.0)]
    assert result.n_positions.tolist() == [0, 1, 1]
    assert result.final_holdings == {"B": 200.0}


def test_a_split_changes_shares_not_wealth():
    data = MarketData.from_frames(
        frame({"A": [100, 100, 50, 52]}, {"A": [100, 100, 51, 52]}), events([("A", date(2020, 1, 3), "split", 2.0)])
    )
    result = backtest(data, None, AllIn())
    assert result.final_holdings == {"A": 200.0}
    assert result.equity.tolist() == pytest.approx([10_000, 10_000, 10_200, 10_400])
    assert len(result.trades) == 1


def test_an_order_for_the_day_of_a_split_is_restated():
    data = MarketData.from_frames(
        frame({"A": [100, 50]}, {"A": [100, 50]}), events([("A", date(2020, 1, 2), "split", 2.0)])
    )
    result = backtest(data, None, AllIn())
    assert result.final_holdings == {"A": 200.0}
    assert result.trades["reference_price"].to_list() == [50.0]


def test_a_halted_holding_is_kept_at_its_last_price_and_a_delisting_pays_out():
    data = MarketData.from_frames(
        frame({"A": [100, 100, None, None], "B": [1, 1, 1, 1]}, {"A": [100, 110, None, None], "B": [1, 1, 1, 1]}),
        events([("A", date(2020, 1, 4), "delisting", 30.0)]),
    )
    result = backtest(data, [[1, 0]] * 4, TopK(TopKParams(1)))
    assert result.equity.tolist() == pytest.approx([10_000, 11_000, 11_000, 3_000])
    assert result.final_holdings == {}
    assert result.cash[-1] == pytest.approx(3_000)


def test_orders_that_do_not_fill_are_written_down():
    data = MarketData.from_frames(frame({"A": [100, None], "B": [1, 1]}, {"A": [100, None], "B": [1, 1]}))
    result = backtest(data, [[1, 0]] * 2, TopK(TopKParams(1)))
    assert result.unfilled.select("symbol", "stage", "reason").rows() == [("A", "auction", "no trade at the open")]
    assert result.equity.tolist() == [10_000, 10_000]
    clipped = backtest(data, [[0, 1]] * 2, TopK(TopKParams(1)), limits=RiskLimits(max_position=0.5))
    assert clipped.final_holdings == {"B": 5000.0}
    assert clipped.unfilled["stage"].to_list() == ["risk"]
    assert "max_position" in clipped.unfilled["reason"][0]


def test_a_range_without_two_sessions_is_refused():
    data = MarketData.from_frames(frame({"A": [1, 1, 1]}, {"A": [1, 1, 1]}))
    with pytest.raises(InvalidDateRangeError, match="two sessions"):
        backtest(data, None, AllIn(), start=date(2020, 1, 3))
    with pytest.raises(InvalidDateRangeError, match="two sessions"):
        backtest(data, None, AllIn(), start=date(2021, 1, 1), end=date(2021, 2, 1))
    assert len(backtest(data, None, AllIn(), end=date(2022, 1, 1)).sessions) == 3
    assert len(backtest(data, None, AllIn(), end=date(2020, 1, 2)).sessions) == 2


def test_unusable_weights_stop_the_backtest_with_the_name():
    class Broken(AllIn):
        def decide(self, view):
            return np.array([np.nan])

    with pytest.raises(StrategyOutputError, match="'it'"):
        backtest(MarketData.from_frames(frame({"A": [1, 1]}, {"A": [1, 1]})), None, Broken())


def test_signals_of_another_shape_are_refused_before_compiled_code_reads_them():
    class Short(TopK):
        def signals(self, inputs):
            return inputs.score[1:]

    class Narrow(TopK):
        def signals(self, inputs):
            return inputs.score[:, :1]

    data = MarketData.from_frames(frame({"A": [1, 1, 1], "B": [1, 1, 1]}, {"A": [1, 1, 1], "B": [1, 1, 1]}))
    for wrong, shape in ((Short, r"\(1, 2\)"), (Narrow, r"\(2, 1\)")):
        with pytest.raises(StrategyOutputError, match=rf"signals have shape {shape}; expected \(2, 2\)"):
            backtest(data, [[1, 0]] * 3, wrong(TopKParams(1)))


def test_a_subclass_that_decides_otherwise_is_asked_as_it_is_live():
    class Nothing(TopK):
        def decide(self, view):
            return np.zeros_like(super().decide(view))

    data = MarketData.from_frames(frame({"A": [1, 1, 1]}, {"A": [1, 1, 1]}))
    assert backtest(data, [[1]] * 3, Nothing(TopKParams(1))).trades.is_empty()


def test_a_lower_limit_of_gross_scales_what_a_strategy_wants():
    data = MarketData.from_frames(frame({"A": [1, 1, 1]}, {"A": [1, 1, 1]}))
    result = backtest(data, [[1]] * 3, TopK(TopKParams(1)), limits=RiskLimits(max_position=1.0, max_gross=0.5))
    assert result.gross[1:].tolist() == [0.5, 0.5]


# --- over a random market -------------------------------------------------------------------------------------------


def random_market(seed=3, sessions=40, symbols=12):
    rng = np.random.default_rng(seed)
    closes = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, size=(sessions, symbols)), axis=0))
    opens = closes * np.exp(rng.normal(0, 0.01, size=closes.shape))
    gone = rng.random(closes.shape) < 0.03
    names = [f"S{i:02d}" for i in range(symbols)]
    bars = frame(
        {s: opens[:, i].tolist() for i, s in enumerate(names)},
        {s: [None if gone[t, i] else closes[t, i] for t in range(sessions)] for i, s in enumerate(names)},
    )
    actions = events(
        [
            ("S01", date(2020, 1, 11), "split", 2.0),
            ("S02", date(2020, 1, 16), "dividend", 0.7),
            ("S03", date(2020, 1, 31), "delisting", 20.0),
        ]
    )
    score = np.where(rng.random(closes.shape) < 0.1, np.nan, rng.normal(size=closes.shape))
    return bars.filter(~((pl.col("symbol") == "S03") & (pl.col("session") >= date(2020, 1, 31)))), actions, score


def every_strategy():
    return {name: sample(name) for name in PARAMS} | {"top_10": TopK(TopKParams()), "top_3": TopK(TopKParams(3))}


@pytest.mark.parametrize("name", sorted(every_strategy()))
@pytest.mark.parametrize("fractional", [True, False])
def test_the_accounts_balance_every_session(name, fractional):
    bars, actions, score = random_market()
    data = MarketData.from_frames(bars, actions)
    strategy = every_strategy()[name]
    result = backtest(data, score, strategy, costs=COSTS, fractional=fractional)
    cash, held = 10_000.0, dict.fromkeys(data.symbols, 0.0)
    for t, session in enumerate(data.sessions):
        for symbol, day, kind, value in sorted(actions.rows()):
            if day == session and kind == "split":
                held[symbol] *= value
            elif day == session:
                cash += held[symbol] * value
                held[symbol] = 0.0 if kind == "delisting" else held[symbol]
        for trade in result.trades.filter(pl.col("session") == session).iter_rows(named=True):
            sign = 1 if trade["side"] == "buy" else -1
            cash -= sign * trade["quantity"] * trade["price"] + trade["commission"]
            held[trade["symbol"]] += sign * trade["quantity"]
        assert strategy.short or min(held.values()) >= 0
        assert cash >= -1e-9
        worth = sum(q * data.marks[t, s] for s, q in enumerate(held.values()) if q)
        assert result.cash[t] == pytest.approx(cash, abs=1e-6)
        assert result.equity[t] == pytest.approx(cash + worth, rel=1e-12)
    assert len(result.trades) > 0


@pytest.mark.parametrize("name", sorted(every_strategy()))
def test_scrambling_the_future_changes_no_trade_of_the_past(name):
    bars, actions, score = random_market()
    cut = 25
    day = date(2020, 1, 1) + timedelta(days=cut)
    rng = np.random.default_rng(0)
    noise = pl.Series(rng.uniform(0.2, 5.0, bars.height))
    later = pl.col("session") > day
    scrambled = bars.with_columns(
        pl.when(later).then(pl.col(c) * noise).otherwise(pl.col(c)).alias(c) for c in ("open", "close", "volume")
    )
    other_score = np.where(np.arange(len(score))[:, None] > cut, rng.normal(size=score.shape), score)
    future = events([("S05", date(2020, 2, 1), "split", 3.0), *actions.filter(later.not_()).rows()])
    one = backtest(MarketData.from_frames(bars, actions), score, every_strategy()[name], costs=COSTS)
    two = backtest(MarketData.from_frames(scrambled, future), other_score, every_strategy()[name], costs=COSTS)
    assert one.trades.filter(~later).equals(two.trades.filter(~later))
    assert one.equity[: cut + 1].tobytes() == two.equity[: cut + 1].tobytes()


@pytest.mark.parametrize("name", sorted(every_strategy()))
def test_neither_the_order_of_rows_nor_other_symbols_change_a_bit(name):
    bars, actions, score = random_market()
    one = backtest(MarketData.from_frames(bars, actions), score, every_strategy()[name], costs=COSTS)
    shuffled = MarketData.from_frames(bars.sample(fraction=1.0, shuffle=True, seed=1), actions.reverse())
    two = backtest(shuffled, score, every_strategy()[name], costs=COSTS)
    assert one.trades.equals(two.trades)
    assert one.equity.tobytes() == two.equity.tobytes()
    if every_strategy()[name].needs_forecasts:
        extra = bars.vstack(bars.filter(pl.col("symbol") == "S00").with_columns(symbol=pl.lit("AAA")))
        wider = np.column_stack([np.full(len(score), np.nan), score])
        three = backtest(MarketData.from_frames(extra, actions), wider, every_strategy()[name], costs=COSTS)
        assert one.equity.tobytes() == three.equity.tobytes()


def test_a_strategy_that_tries_to_peek_finds_nothing():
    bars, actions, score = random_market()
    data = MarketData.from_frames(bars, actions)
    seen = []

    class Peeking(Strategy):
        lookback = 5
        needs_forecasts = True

        def decide(self, view):
            d = data.sessions.index(view.session)
            assert view.trade_session == data.sessions[d + 1]
            for name in ("score", "quantiles", "p_up", "closes", "volumes", "weights"):
                array = getattr(view, name)
                assert array.base is None
                assert array.flags.owndata
                assert not array.flags.writeable
            np.testing.assert_array_equal(view.closes[-1], data.closes[d])
            np.testing.assert_array_equal(view.score, score[d])
            assert len(view.closes) == min(5, d + 1)
            seen.append(view.ordinal)
            return np.array(view.weights)

    backtest(data, score, Peeking())
    assert seen == list(range(len(data.sessions) - 1))


@pytest.mark.panel
def test_equal_weight_of_the_real_panel_is_what_numpy_says(panel_path):
    """Without costs a buy-and-hold of equal parts grows like the mean of the price ratios, open to close."""
    bars = pl.read_parquet(panel_path).with_columns(pl.col("date").cast(pl.Date).alias("session"))
    bars = bars.filter(pl.col("session") >= date(2017, 10, 1))
    whole = bars.group_by("symbol").len().filter(pl.col("len") == bars["session"].n_unique())
    bars = bars.filter(pl.col("symbol").is_in(whole["symbol"].implode()), pl.col("symbol") < "B").drop_nulls()
    data = MarketData.from_frames(bars)
    entry = STRATEGIES["buy_and_hold"]
    result = backtest(data, None, entry.build(entry.params()), capital=1e8)
    shares = 1e8 / len(data.symbols) / data.closes[0]
    need = (shares * data.opens[1]).sum()
    shares *= min(1.0, 1e8 / need)
    cash = 1e8 - (shares * data.opens[1]).sum()
    assert result.equity[1:] == pytest.approx((data.closes[1:] * shares).sum(axis=1) + cash, rel=1e-8)
