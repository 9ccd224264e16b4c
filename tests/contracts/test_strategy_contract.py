"""What every strategy must do, over the registry: a new strategy needs no test of its own for these."""

import dataclasses
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from strategy_samples import PARAMS, any_columns, sample

from trading_core import config
from trading_core.backtest.data import ForecastPanel, MarketData
from trading_core.backtest.engine import signal_inputs, view_of
from trading_core.portfolio.decision import AccountWeights
from trading_core.portfolio.kernels.allocation import allocate
from trading_core.portfolio.registry import STRATEGIES
from trading_core.portfolio.strategy import session_view, validate_weights

SYMBOLS = tuple(f"S{i:02d}" for i in range(30))
# Strategies whose draws hang on the names themselves: renamed, they draw anew.
BY_NAME = {"random_same_turnover"}


def forecasts(rng, shape):
    """Scores with gaps, quantiles around them (some cross), probabilities."""
    score = np.where(rng.random(shape) < 0.3, np.nan, rng.normal(scale=0.01, size=shape))
    width = np.where(rng.random(shape) < 0.1, -0.01, rng.uniform(0.01, 0.05, shape))
    quantiles = score[..., None] + width[..., None] * np.linspace(-1, 1, 7)
    return score, quantiles, 1.0 / (1.0 + np.exp(-100 * score))


def random_weights(strategy, rng, count, invested=0.8):
    """About a third is held; where the strategy may, some of it short."""
    weights = np.where(rng.random(count) < 0.3, rng.random(count), 0.0)
    weights[0] = 0.3
    if strategy.short:
        weights *= np.where(rng.random(count) < 0.4, -1, 1)
    return weights * invested / np.abs(weights).sum()


def random_view(strategy, seed, ordinal=0, order=None):
    """A view with gaps: some symbols without a bar, some without a forecast."""
    rng = np.random.default_rng(seed)
    count = len(SYMBOLS)
    score, quantiles, p_up = forecasts(rng, count)
    closes = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, size=(strategy.lookback, count)), axis=0))
    closes[-1, rng.random(count) < 0.15] = np.nan
    weights = random_weights(strategy, rng, count)
    closes[-1, np.flatnonzero(weights)[0]] = np.nan  # at least one is held without a bar
    volumes = rng.lognormal(10, 1, closes.shape)
    order = np.arange(count) if order is None else order
    return session_view(
        date(2020, 1, 2),
        date(2020, 1, 3),
        ordinal,
        tuple(sorted(SYMBOLS)),
        score[order],
        quantiles[order],
        p_up[order],
        closes[:, order],
        volumes[:, order],
        weights[order],
        1.0 - weights.sum(),
        {name: values[:, order] for name, values in any_columns(strategy, closes.shape, seed).items()},
    )


@pytest.fixture(params=sorted(STRATEGIES))
def strategy(request):
    return sample(request.param)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_parameters_are_a_frozen_dataclass_with_defaults(name):
    params = STRATEGIES[name].params
    assert dataclasses.is_dataclass(params)
    assert params.__dataclass_params__.frozen
    assert STRATEGIES[name].build(params()).lookback >= 1
    assert type(PARAMS[name]) is params


@pytest.mark.parametrize("seed", range(6))
def test_weights_are_usable_and_the_view_is_left_alone(strategy, seed):
    view = random_view(strategy, seed, ordinal=seed % 2)
    before = view.weights.tobytes()
    target = validate_weights("it", strategy.decide(view), view, short=strategy.short)
    assert target.dtype == np.float64
    assert view.weights.tobytes() == before


@pytest.mark.parametrize("seed", range(6))
def test_what_is_held_without_a_forecast_or_a_bar_stays_to_the_bit(strategy, seed):
    view = random_view(strategy, seed)
    target = strategy.decide(view)
    locked = (view.weights != 0) & ~view.tradable
    if strategy.needs_forecasts:
        locked |= (view.weights != 0) & np.isnan(view.score)
    assert locked.any()
    assert target[locked].tobytes() == view.weights[locked].tobytes()


@pytest.mark.parametrize("seed", range(3))
def test_the_same_view_gives_the_same_bits(strategy, seed):
    first, again = random_view(strategy, seed), random_view(strategy, seed)
    strategy.decide(random_view(strategy, seed + 100))
    assert strategy.decide(first).tobytes() == strategy.decide(again).tobytes()


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - BY_NAME))
def test_renaming_the_symbols_permutes_the_weights(name):
    strategy = sample(name)
    for seed in range(4):
        order = np.random.default_rng(seed).permutation(len(SYMBOLS))
        plain = strategy.decide(random_view(strategy, seed))
        renamed = strategy.decide(random_view(strategy, seed, order=order))
        np.testing.assert_allclose(renamed, plain[order], rtol=0, atol=1e-15)


def test_an_empty_market_is_left_alone(strategy):
    view = random_view(strategy, 1)
    empty = dataclasses.replace(view, closes=np.full_like(view.closes, np.nan), score=np.full_like(view.score, np.nan))
    assert strategy.decide(empty).tobytes() == view.weights.tobytes()


def test_without_forecasts_a_strategy_holds_what_it_has_or_decides_as_it_did(strategy):
    view = random_view(strategy, 2)
    nothing = np.full_like(view.score, np.nan)
    blind = dataclasses.replace(view, score=nothing, p_up=nothing, quantiles=np.full_like(view.quantiles, np.nan))
    before = view.weights if strategy.needs_forecasts else strategy.decide(view)
    assert strategy.decide(blind).tobytes() == before.tobytes()


# --- a panel and its views ----------------------------------------------------------------------------------------------

COUNT, SESSIONS = 12, 44


@cache
def panel():
    """A market with gaps and splits (some by ratios that are no powers of two), and forecasts of it."""
    rng = np.random.default_rng(5)
    shape = (SESSIONS, COUNT)
    closes = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, size=shape), axis=0))
    days = [date(2020, 1, 1) + timedelta(days=t) for t in range(SESSIONS)]
    splits = [(3, 8, 3.0), (3, 26, 1.5), (5, 30, 0.1), (7, 33, 3.0), (8, 29, 7.0)]  # column, row, ratio
    gone = rng.random(shape) < 0.02
    for column, row, ratio in splits:
        closes[row:, column] /= ratio
    gone[30, 5] = True  # a split on a day without a bar
    bars = pl.DataFrame(
        [
            (SYMBOLS[s], days[t], closes[t, s], closes[t, s], float(rng.lognormal(10, 1)))
            for t in range(SESSIONS)
            for s in range(COUNT)
            if not gone[t, s]
        ],
        schema=["symbol", "session", "open", "close", "volume"],
        orient="row",
    )
    actions = pl.DataFrame(
        [(SYMBOLS[s], days[t], "split", ratio) for s, t, ratio in splits],
        schema=["symbol", "session", "kind", "value"],
        orient="row",
    )
    score, quantiles, p_up = forecasts(rng, shape)
    return MarketData.from_frames(bars, actions), ForecastPanel(score, quantiles, p_up)


def test_a_panel_and_its_views_decide_alike_to_the_bit(strategy):
    data, ranked = panel()
    columns = any_columns(strategy, data.closes.shape, 1)
    signals = strategy.signals(signal_inputs(data, ranked, columns, 0, SESSIONS - 1))
    rng = np.random.default_rng(9)
    assert signals.shape == (SESSIONS - 1, COUNT)
    for t in range(SESSIONS - 1):
        weights = random_weights(strategy, rng, COUNT)
        account = AccountWeights(weights, weights, 1.0 - weights.sum(), 1.0, 0.0)
        view = view_of(data, ranked, strategy, account, t, data.sessions[t + 1], t, columns)
        whole = allocate(strategy.allocation, np.array(signals[t], dtype=np.float64), view.tradable, weights, t)
        assert strategy.decide(view).tobytes() == whole.tobytes(), t
        validate_weights("it", whole, view, short=strategy.short)


def test_scrambling_what_comes_later_changes_no_signal(strategy):
    data, ranked = panel()
    inputs = signal_inputs(data, ranked, any_columns(strategy, data.closes.shape, 1), 0, SESSIONS - 1)
    cut = 36
    rng = np.random.default_rng(3)

    def scrambled(values):
        later = np.arange(len(values)) > cut
        noise = rng.uniform(0.3, 3.0, values.shape)
        return np.where(later.reshape(-1, *[1] * (values.ndim - 1)), values * noise, values)

    other = dataclasses.replace(
        inputs,
        columns={name: scrambled(values) for name, values in inputs.columns.items()},
        **{name: scrambled(getattr(inputs, name)) for name in ("score", "quantiles", "p_up", "closes", "volumes")},
        split_factor=scrambled(inputs.split_factor),
    )
    one, two = strategy.signals(inputs), strategy.signals(other)
    assert np.isfinite(one[: cut + 1]).any()
    assert one[: cut + 1].tobytes() == two[: cut + 1].tobytes()


def test_what_has_too_short_a_history_is_not_known(strategy):
    data, ranked = panel()
    signals = strategy.signals(
        signal_inputs(data, ranked, any_columns(strategy, data.closes.shape, 1), 0, SESSIONS - 1)
    )
    assert np.isnan(signals[: strategy.lookback - 1]).all()
    short = signal_inputs(data, ranked, any_columns(strategy, data.closes.shape, 1), 0, 2)  # a history of two sessions
    assert strategy.lookback <= 2 or np.isnan(strategy.signals(short)).all()


# --- what is shipped ----------------------------------------------------------------------------------------------------

SHIPPED = sorted(path.stem for path in (Path(__file__).parents[2] / "configs" / "strategies").glob("*.yaml"))


def test_every_strategy_is_shipped_as_a_config():
    assert {config.load_strategy(name).strategy for name in SHIPPED} == set(STRATEGIES)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_config_builds_and_its_limits_let_it_act(name):
    chosen = config.load_strategy(name)
    entry = STRATEGIES[chosen.strategy]
    params = config.parse_options(entry.params, chosen.params, name)
    assert chosen.description.endswith(".")
    assert getattr(params, "gross", 1.0) <= chosen.risk.max_gross
    assert getattr(params, "max_weight", 0.0) <= chosen.risk.max_position
    assert getattr(params, "horizon", chosen.horizon) == chosen.horizon
    if not isinstance(getattr(params, "threshold", None), str):  # else the model's card has the number
        entry.build(params)
