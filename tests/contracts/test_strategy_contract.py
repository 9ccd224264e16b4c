"""What every strategy must do, over the registry: a new strategy needs no test of its own for these."""

import dataclasses
from datetime import date

import numpy as np
import pytest

from trading_core.portfolio.registry import STRATEGIES
from trading_core.portfolio.strategy import session_view, validate_weights

SYMBOLS = tuple(f"S{i:02d}" for i in range(30))


def build(name):
    entry = STRATEGIES[name]
    return entry.build(entry.params())


def random_view(strategy, seed, ordinal=0, order=None, invested=0.8):
    """A view with gaps: some symbols without a bar, some without a forecast, about a third held."""
    rng = np.random.default_rng(seed)
    count = len(SYMBOLS)
    score = np.where(rng.random(count) < 0.3, np.nan, rng.normal(size=count))
    closes = rng.uniform(5, 200, size=(strategy.lookback, count))
    closes[-1, rng.random(count) < 0.15] = np.nan
    weights = np.where(rng.random(count) < 0.3, rng.random(count), 0.0)
    weights *= invested / weights.sum()
    closes[-1, np.flatnonzero(weights)[0]] = np.nan  # at least one is held without a bar
    order = np.arange(count) if order is None else order
    return session_view(
        date(2020, 1, 2),
        date(2020, 1, 3),
        ordinal,
        tuple(sorted(SYMBOLS)),
        score[order],
        np.tile(score[order][:, None], 7),
        (score[order] > 0).astype(float),
        closes[:, order],
        np.ones_like(closes),
        weights[order],
        1.0 - weights.sum(),
    )


@pytest.fixture(params=sorted(STRATEGIES))
def strategy(request):
    return build(request.param)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_parameters_are_a_frozen_dataclass_with_defaults(name):
    params = STRATEGIES[name].params
    assert dataclasses.is_dataclass(params)
    assert params.__dataclass_params__.frozen
    assert build(name).lookback >= 1


@pytest.mark.parametrize("seed", range(15))
def test_weights_are_usable_and_the_view_is_left_alone(strategy, seed):
    view = random_view(strategy, seed, ordinal=seed % 3)
    before = view.weights.tobytes()
    target = validate_weights("it", strategy.decide(view), view)
    assert target.dtype == np.float64
    assert view.weights.tobytes() == before


@pytest.mark.parametrize("seed", range(15))
def test_what_is_held_without_a_forecast_or_a_bar_stays_to_the_bit(strategy, seed):
    view = random_view(strategy, seed)
    target = strategy.decide(view)
    locked = (view.weights > 0) & ~view.tradable
    if strategy.needs_forecasts:
        locked |= (view.weights > 0) & np.isnan(view.score)
    assert locked.any()
    assert target[locked].tobytes() == view.weights[locked].tobytes()


@pytest.mark.parametrize("seed", range(5))
def test_the_same_view_gives_the_same_bits(strategy, seed):
    first, again = random_view(strategy, seed), random_view(strategy, seed)
    strategy.decide(random_view(strategy, seed + 100))
    assert strategy.decide(first).tobytes() == strategy.decide(again).tobytes()


@pytest.mark.parametrize("seed", range(5))
def test_renaming_the_symbols_permutes_the_weights(strategy, seed):
    order = np.random.default_rng(seed).permutation(len(SYMBOLS))
    plain = strategy.decide(random_view(strategy, seed))
    renamed = strategy.decide(random_view(strategy, seed, order=order))
    np.testing.assert_allclose(renamed, plain[order], rtol=0, atol=1e-15)


def test_an_empty_market_is_left_alone(strategy):
    view = random_view(strategy, 1)
    empty = dataclasses.replace(view, closes=np.full_like(view.closes, np.nan), score=np.full_like(view.score, np.nan))
    assert strategy.decide(empty).tobytes() == view.weights.tobytes()
