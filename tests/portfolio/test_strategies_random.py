"""The random benchmark: what it draws, and that it trades as much as it is asked to."""

from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest
from scipy.stats import kstest

from trading_core.backtest.data import ForecastPanel, MarketData
from trading_core.backtest.engine import run, signal_inputs
from trading_core.costs import FREE
from trading_core.portfolio.random_same_turnover import RandomSameTurnover, RandomSameTurnoverParams, _mixed

COUNT, SESSIONS = 60, 200


@pytest.fixture(scope="module")
def market():
    rng = np.random.default_rng(1)
    closes = 50 * np.exp(np.cumsum(rng.normal(0, 0.005, (SESSIONS, COUNT)), axis=0))
    days = [date(2020, 1, 1) + timedelta(days=t) for t in range(SESSIONS)]
    bars = pl.DataFrame(
        {
            "symbol": [f"S{s:02d}" for _ in days for s in range(COUNT)],
            "session": [day for day in days for _ in range(COUNT)],
            "open": closes.ravel(),
            "close": closes.ravel(),
            "volume": np.full(closes.size, 1e6),
        }
    )
    score = np.ones(closes.shape)
    return MarketData.from_frames(bars), ForecastPanel(score, np.repeat(score[..., None], 7, axis=2), score)


def random(**params):
    return RandomSameTurnover(RandomSameTurnoverParams(**params))


def drawn(market, last=SESSIONS, **params):
    """The numbers as they are drawn: nothing leaves."""
    return random(**{"replace_share": 0.0, **params}).signals(signal_inputs(*market, {}, 0, last))


def test_the_mixer_is_splitmix64():
    # Published outputs: the first two of seed 0, and of seed 1234567 (rosettacode.org, "Pseudo-random numbers/Splitmix64").
    gamma = 0x9E3779B97F4A7C15
    states = np.array([0, gamma, 1234567, (1234567 + gamma) % 2**64], dtype=np.uint64)
    assert _mixed(states).tolist() == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        6457827717110365317,
        3203168211198807973,
    ]


def test_draws_are_uniform_and_hang_on_seed_symbol_and_day_alone(market):
    one = drawn(market)
    assert kstest(one.ravel(), "uniform").pvalue > 0.01
    assert np.abs(np.corrcoef(one[1:].ravel(), one[:-1].ravel())[0, 1]) < 0.03
    assert np.abs(np.corrcoef(one.ravel(), drawn(market, seed=8).ravel())[0, 1]) < 0.03
    inputs = signal_inputs(*market, {}, 0, SESSIONS)
    fewer = replace(
        inputs,
        symbols=inputs.symbols[5:9],
        **{name: getattr(inputs, name)[:, 5:9] for name in ("score", "closes")},
    )
    assert random(replace_share=0.0).signals(fewer).tobytes() == one[:, 5:9].tobytes()
    assert drawn(market, last=50).tobytes() == one[:50].tobytes()


def test_only_names_with_a_forecast_are_drawn(market):
    data, ranked = market
    score = ranked.score.copy()
    score[:, ::2] = np.nan
    signals = random().signals(signal_inputs(data, replace(ranked, score=score), {}, 0, SESSIONS))
    assert np.isnan(signals[:, ::2]).all()
    assert not np.isnan(signals[:, 1::2]).any()


def test_what_leaves_is_below_the_share_but_never_one_of_the_highest(market):
    number = drawn(market)
    for share, k in ((0.1, 10), (0.95, 10)):
        left = np.isneginf(random(k=k, replace_share=share).signals(signal_inputs(*market, {}, 0, SESSIONS)))
        place = np.argsort(np.argsort(-number, axis=1), axis=1)
        np.testing.assert_array_equal(left, (number < share) & (place >= k))


@pytest.mark.parametrize("share", [0.0, 0.02, 0.1, 0.4, 1.0])
def test_turnover_is_what_was_asked_for(market, share):
    """A name that leaves is sold and another is bought: the turnover (half of what is traded) is the share that leaves.

    Where all are drawn anew, 15 of 60 names stay by chance. Allowed are three standard errors of so many draws.
    """
    data, ranked = market
    strategy = random(k=15, replace_share=share)
    days = {"start": date(2020, 1, 1), "end": date(2021, 1, 1)}
    result = run(data, ranked, strategy, name="it", capital=1e6, costs=FREE, **days)
    measured, expected = result.turnover[2:].mean(), min(share, 1 - 15 / COUNT)
    error = np.sqrt(expected * (1 - expected) / (15 * (SESSIONS - 2)))
    assert measured == pytest.approx(expected, abs=3 * error + 1e-12)
    assert (result.n_positions[1:] == 15).all()
