"""What holds for every account, whatever the market: properties under random inputs, and inputs that must be refused."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backtest.random_markets import CASES, LEVERAGE, Case, RandomMarket, Signals, panel_of, random_market
from trading_core.backtest.data import ForecastPanel, MarketData
from trading_core.backtest.engine import Job, Terms, run_many, view_of
from trading_core.backtest.result import BacktestResult
from trading_core.costs import FREE, CostModel
from trading_core.errors import DuplicateKeysError, StrategyOutputError
from trading_core.portfolio.decision import decide, valued
from trading_core.portfolio.kernels.types import GIVEN, TOP_K, Allocation
from trading_core.portfolio.strategy import SessionView, SignalStrategy, Strategy
from trading_core.portfolio.top_k import TopK, TopKParams
from trading_core.schema import QUANTILE_COLUMNS, FloatArray

SEEDS = st.integers(0, 2**31)
NAMES = st.sampled_from(sorted(CASES))
FEW = settings(max_examples=25, deadline=None, derandomize=True)


def backtest(data: MarketData, panel: ForecastPanel, strategy: Strategy, terms: Terms) -> BacktestResult:
    job = Job("it", strategy, terms, panel)
    return run_many(data, [job], start=data.sessions[0], end=data.sessions[-1])[0]


def played(case: Case, market: RandomMarket) -> BacktestResult:
    return backtest(market.data, market.panel, Signals(case.rule, case.short), case.terms)


def bits(result: BacktestResult) -> tuple[bytes, ...]:
    paths = (result.equity, result.cash, result.gross, result.turnover, result.borrow, result.interest)
    return tuple(array.tobytes() for array in (*paths, result.fills, result.misses, result.final_quantities))


def holdings(market: MarketData, result: BacktestResult) -> FloatArray:
    """[N, S] shares at each close, from nothing but the fills and the events."""
    held = np.zeros((len(result.sessions), len(market.symbols)))
    for n in range(1, len(held)):
        held[n] = held[n - 1]
        for event in sorted(market.actions[n], key=lambda e: e.kind.value == "delisting"):
            s = market.symbols.index(event.symbol)
            held[n, s] *= event.value if event.kind.value == "split" else event.kind.value != "delisting"
        ours = result.fills[result.fills[:, 0] == n]
        np.add.at(held[n], ours[:, 1].astype(int), ours[:, 2])
    return held


# --- the account ------------------------------------------------------------------------------------------------------


@FEW
@given(NAMES, SEEDS)
def test_cash_and_positions_are_the_equity_and_buying_never_overdraws(name: str, seed: int) -> None:
    case = CASES[name]
    market = case.market(seed)
    result = played(case, market)
    held = holdings(market.data, result)
    worth = (held * np.nan_to_num(market.data.marks)).sum(axis=1)
    np.testing.assert_allclose(result.cash + worth, result.equity, rtol=1e-9, atol=1e-6)
    if not case.short:
        assert result.cash.min() >= 0.0
        assert held.min() >= -1e-9
    bought = np.unique(result.fills[result.fills[:, 2] > 0, 0]).astype(int)
    assert result.cash[bought].min(initial=0.0) >= 0.0  # a session that buys anything ends with cash


@FEW
@given(SEEDS, st.sampled_from([0.15, 0.3, 0.6]))
def test_the_limits_hold_at_the_prices_of_the_decision(seed: int, largest: float) -> None:
    """Promised: had orders filled at D's closes, no position would lie above `max_position` of D's equity, nor would all
    together above `max_gross` if all filled, but for what lay above it before. Prices then move: nothing is promised of T."""
    case = replace(
        CASES["weights, long and short"], terms=Terms(20_000.0, FREE, limits=replace(LEVERAGE, max_position=largest))
    )
    market = case.market(seed)
    data, result = market.data, played(case, market)
    assert result.limits is not None
    held, missed = holdings(data, result), set(result.misses[result.misses[:, 5] == 0, 0].astype(int))
    for n in range(1, len(held)):
        split = data.split_factor[n] / data.split_factor[n - 1]
        fills = result.fills[result.fills[:, 0] == n]
        change = np.zeros(len(data.symbols))
        np.add.at(change, fills[:, 1].astype(int), fills[:, 2])
        marks = np.nan_to_num(data.marks[n - 1])
        before, after = held[n - 1] * marks, (held[n - 1] + change / split) * marks
        limit = largest * result.equity[n - 1]
        assert (np.abs(after) <= np.maximum(limit, np.abs(before)) + 1e-6 * limit).all()
        assert (np.abs(change / split * marks) <= result.limits.max_order_notional * (1 + 1e-9)).all()
        if n not in missed:
            gross = max(result.limits.max_gross * result.equity[n - 1], np.abs(before).sum())
            assert np.abs(after).sum() <= gross * (1 + 1e-6)


@FEW
@given(NAMES, SEEDS)
def test_the_order_of_rows_changes_no_bit(name: str, seed: int) -> None:
    case = CASES[name]
    market = case.market(seed)
    bars = market.bars.sample(fraction=1.0, shuffle=True, seed=seed % 1000)
    events = market.events.sample(fraction=1.0, shuffle=True, seed=seed % 999)
    shuffled = replace(market, data=MarketData.from_frames(bars, events, case.fill_at))
    assert bits(played(case, shuffled)) == bits(played(case, market))


@FEW
@given(NAMES, SEEDS)
def test_other_names_change_only_the_names(name: str, seed: int) -> None:
    """Without ties. Sums run over other columns first then, so that the last bits may differ."""
    case = CASES[name]
    case = replace(case, terms=replace(case.terms, limits=None)) if case.terms.limits else case  # it names a symbol
    case = replace(case, rule=case.rule._replace(gross=1.0))
    market = case.market(seed)
    symbols = list(market.data.symbols)
    turned = dict(zip(symbols, reversed(symbols), strict=True))
    rename = pl.col("symbol").replace_strict(turned)
    data = MarketData.from_frames(market.bars.with_columns(rename), market.events.with_columns(rename), case.fill_at)
    one = played(case, market)
    two = played(case, replace(market, data=data, signals=np.ascontiguousarray(market.signals[:, ::-1])))
    np.testing.assert_allclose(two.equity, one.equity, rtol=1e-9)
    np.testing.assert_allclose(two.final_quantities[::-1], one.final_quantities, rtol=1e-7, atol=1e-6)
    key = ["session", "side", "symbol"]
    theirs = two.trades.with_columns(rename).sort(key)
    assert theirs.select(key).equals(one.trades.sort(key).select(key))
    np.testing.assert_allclose(theirs["quantity"], one.trades.sort(key)["quantity"], rtol=1e-7, atol=2e-6)


@FEW
@given(NAMES, SEEDS, st.integers(2, 22))
def test_nothing_of_the_future_changes_a_bit_of_the_past(name: str, seed: int, cut: int) -> None:
    case = CASES[name]
    market = case.market(seed)
    rng = np.random.default_rng(seed)
    day = market.data.sessions[cut]
    later = pl.col("session") > day
    noise = pl.Series(rng.uniform(0.2, 5.0, market.bars.height))
    fields = ("open", "high", "low", "close", "volume")
    bars = market.bars.with_columns(
        pl.when(later).then(pl.col(c) * noise).otherwise(pl.col(c)).alias(c) for c in fields
    )
    events = pl.concat([market.events.filter(~later), market.events.filter(later).with_columns(pl.col("value") * 1.5)])
    signals = market.signals.copy()
    signals[cut + 1 :] = rng.normal(size=signals[cut + 1 :].shape) * case.scale
    other = replace(market, data=MarketData.from_frames(bars, events, case.fill_at), signals=signals)
    one, two = played(case, market), played(case, other)
    for field in ("equity", "cash", "gross", "borrow", "interest", "impact"):
        assert getattr(one, field)[: cut + 1].tobytes() == getattr(two, field)[: cut + 1].tobytes(), field
    assert one.fills[one.fills[:, 0] <= cut].tobytes() == two.fills[two.fills[:, 0] <= cut].tobytes()
    assert one.misses[one.misses[:, 0] <= cut].tobytes() == two.misses[two.misses[:, 0] <= cut].tobytes()


# --- two ways to run ------------------------------------------------------------------------------------------------


class ByViews(Strategy):
    """A strategy of signals that hides it, as a user's strategy is: it knows views only."""

    def __init__(self, inner: SignalStrategy) -> None:
        self.inner = inner
        self.lookback, self.columns, self.short = inner.lookback, inner.columns, inner.short
        self.needs_forecasts = True

    def decide(self, view: SessionView) -> FloatArray:
        return self.inner.decide(view)


@pytest.mark.parametrize("name", CASES)
def test_a_users_strategy_with_the_same_weights_has_the_same_bits(name: str) -> None:
    case = CASES[name]
    market = case.market(5)
    slow = backtest(market.data, market.panel, ByViews(Signals(case.rule, case.short)), case.terms)
    assert bits(slow) == bits(played(case, market))


@pytest.mark.parametrize("name", ["top 3, few names and little volume", "weights, whole shares, little of all"])
def test_a_live_decision_is_cut_by_the_risk_rules_as_the_engine_cuts_it(name: str) -> None:
    """Session by session from the account the engine had then: the same orders to the bit, for the same reasons."""
    case = CASES[name]
    rules, strategy = replace(case.terms, costs=FREE), Signals(case.rule, case.short)
    market = replace(random_market(4, clean=True), signals=random_market(4, clean=True).signals * case.scale)
    data, days, reasons = market.data, market.data.sessions, ""
    for n in range(1, len(days) - 1):
        job = Job("it", strategy, rules, market.panel)
        before = run_many(data, [job], start=days[0], end=days[n])[0]
        after = run_many(data, [job], start=days[0], end=days[n + 1])[0]
        account = valued(before.final_quantities, float(before.cash[-1]), data.marks[n])
        view = view_of(data, market.panel, strategy, account, n, days[n + 1], n)
        made = decide(
            "it", strategy, view, account, data.marks[n], FREE, rules.fractional, rules.min_order_notional, rules.limits,
            data.liquidity[1][n],
        )  # fmt: skip
        filled = after.trades.filter(pl.col("session") == days[n + 1]).select("symbol", "side", "quantity").rows()
        assert [(o.symbol, o.side.value, o.quantity) for o in made.orders] == filled
        missed = after.unfilled.filter(pl.col("session") == days[n + 1], pl.col("stage") == "risk")
        said = sorted((v.order.symbol, f"cut by {v.rule}: {v.reason}") for v in made.verdicts if v.rule)
        assert said == missed.select("symbol", "reason").rows()
        reasons += " ".join(missed["reason"])
    assert all(f"cut by {rule}" in reasons for rule in ("max_names", "max_turnover", "max_volume_share"))


def test_threads_and_records_change_no_bit_and_jobs_keep_their_order() -> None:
    market = CASES["top 3"].market(3)
    names = [name for name, case in CASES.items() if case.rule.kind == TOP_K and case.fill_at == "open"]
    panel, days = market.panel, market.data.sessions
    jobs = [Job(name, Signals(CASES[name].rule), CASES[name].terms, panel) for name in names]
    together = run_many(market.data, jobs, start=days[0], end=days[-1], threads=2)
    alone = [run_many(market.data, [job], start=days[0], end=days[-1])[0] for job in jobs]
    assert [result.name for result in together] == names
    assert [bits(result) for result in together] == [bits(result) for result in alone]
    bare = [replace(job, terms=replace(job.terms, record=False)) for job in jobs]
    for result, full in zip(run_many(market.data, bare, start=days[0], end=days[-1]), together, strict=True):
        assert (len(result.fills), len(result.misses)) == (0, 0)
        assert result.equity.tobytes() == full.equity.tobytes()
        assert result.final_quantities.tobytes() == full.final_quantities.tobytes()


# --- costs and skill ----------------------------------------------------------------------------------------------------


@FEW
@given(SEEDS, st.sampled_from([2.0, 15.0, 80.0]))
def test_costs_twice_as_high_never_help_fixed_weights(seed: int, bps: float) -> None:
    """Fractional shares, weights that never change, no gap of bars: what a cost takes away, no later price gives back,
    since dearer trades are smaller by that cost alone and a price never falls by all of it."""
    market = random_market(seed, clean=True)
    wish = np.random.default_rng(seed).dirichlet(np.ones(len(market.data.symbols) + 1))[:-1]
    panel = panel_of(np.tile(wish, (len(market.data.sessions), 1)))
    ends = [
        backtest(market.data, panel, Signals(Allocation(GIVEN)), Terms(20_000.0, CostModel(bps * m, bps * m, bps * m)))
        for m in (0.0, 1.0, 2.0)
    ]
    for cheap, dear in itertools.pairwise(ends):
        assert dear.equity[-1] < cheap.equity[-1]
        assert dear.costs_paid.sum() > cheap.costs_paid.sum()


@FEW
@given(SEEDS, st.integers(1, 4))
def test_no_top_k_beats_perfect_forecasts(seed: int, k: int) -> None:
    """A theorem where every session starts at the last close, nothing costs anything and shares are fractional: then k names
    at equal weights, reweighted each session, grow by the mean of their k returns, and no k returns have a larger mean than
    the k largest. Session by session, so at every close."""
    market = random_market(seed, clean=True)
    closes = market.data.closes
    opens = np.vstack([closes[:1], closes[:-1]])
    data = replace(market.data, opens=opens, prices=opens)
    perfect = np.vstack([closes[1:] / closes[:-1], np.full((1, closes.shape[1]), np.nan)])
    strategy, terms = TopK(TopKParams(k=k, reweight=True)), Terms(1e6, FREE)
    best = backtest(data, panel_of(perfect), strategy, terms).equity
    growth = np.sort(perfect[:-1], axis=1)[:, -k:].mean(axis=1)
    np.testing.assert_allclose(best[1:], 1e6 * np.cumprod(growth), rtol=1e-6)
    for guess in (market.signals, -perfect, perfect + 0.02 * market.signals):
        other = backtest(data, panel_of(guess), strategy, terms).equity
        assert (other <= best * (1 + 1e-6)).all()


# --- what must be refused -----------------------------------------------------------------------------------------------


def refused(row: list[float], terms: Terms | None = None, short: bool = False) -> str:
    """The message when these weights are given on the third decision, both ways to run."""
    market = random_market(1, clean=True)
    signals = np.zeros(market.signals.shape)
    signals[2, : len(row)] = row
    said = []
    for strategy in (Signals(Allocation(GIVEN), short), ByViews(Signals(Allocation(GIVEN), short))):
        with pytest.raises(StrategyOutputError) as raised:
            backtest(market.data, panel_of(signals), strategy, terms or Terms(1e4, FREE))
        said.append(str(raised.value))
    assert said[0] == said[1]
    return said[0]


def test_weights_that_cannot_be_acted_on_stop_both_ways_with_the_same_words() -> None:
    assert "weight of S1 is not finite: nan" in refused([0.1, np.nan])
    assert "weight of S0 is not finite: inf" in refused([np.inf])
    assert "weight of S2 is negative (long only): -0.25" in refused([0.5, 0.0, -0.25])
    assert "above the limit 1.0" in refused([0.6, 0.6])
    assert "above the limit 1.5" in refused([0.9, -0.9], Terms(1e4, FREE, limits=LEVERAGE), short=True)
    assert "above the limit 1.0" in refused([0.9, -0.9], short=True)


def test_a_symbol_without_a_bar_may_not_be_moved() -> None:
    market = random_market(1, clean=True)
    bars = market.bars.filter(~((pl.col("symbol") == "S3") & (pl.col("session") == market.data.sessions[4])))
    signals = np.tile([0.1] * 6, (len(market.data.sessions), 1))
    with pytest.raises(StrategyOutputError, match="S3 has no bar on 2021-03-05"):
        backtest(MarketData.from_frames(bars), panel_of(signals), Signals(Allocation(GIVEN)), Terms(1e4, FREE))


def test_two_rows_of_one_key_are_refused() -> None:
    market = random_market(1)
    with pytest.raises(DuplicateKeysError):
        MarketData.from_frames(pl.concat([market.bars, market.bars.tail(1)]), market.events)
    row = {"symbol": ["S1"], "session": [market.data.sessions[0]], "horizon": [1], "score": [0.1], "p_up": [0.5]}
    frame = pl.DataFrame(row | {name: [0.0] for name in QUANTILE_COLUMNS})
    with pytest.raises(DuplicateKeysError):
        ForecastPanel.from_frame(pl.concat([frame, frame]), 1, market.data.symbols, market.data.sessions)


def test_an_account_that_is_worth_nothing_stands_still() -> None:
    market = random_market(2, clean=True)
    weights = np.tile([-1.5, 0, 0, 0, 0, 0.0], (len(market.data.sessions), 1))
    ruined = MarketData.from_frames(
        market.bars.with_columns(
            pl.when((pl.col("symbol") == "S0") & (pl.col("session") >= market.data.sessions[5]))
            .then(pl.col(c) * 4.0)
            .otherwise(pl.col(c))
            .alias(c)
            for c in ("open", "high", "low", "close")
        )
    )
    # Closes are four times as high from the sixth session on: the short loses more than there is.
    result = backtest(ruined, panel_of(weights), Signals(Allocation(GIVEN), True), Terms(1e4, FREE, limits=LEVERAGE))
    assert result.equity[6] < 0
    assert result.fills[:, 0].max() <= 5
    assert np.isfinite(result.equity).all()
