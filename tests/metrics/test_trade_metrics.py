"""Trades from fills: worked out by hand, and beside a plain loop over random fills."""

from __future__ import annotations

import math

import numpy as np
import pytest

from trading_core.errors import InvalidConfigError, WrongTypeError
from trading_core.metrics import trades as m

NAN = math.nan


def _closed(*fills: tuple[int, int, float, float, float]) -> m.ClosedTrades:
    """fills: session, symbol, quantity, price, commission."""
    session, symbol, quantity, price, commission = (np.array(column) for column in zip(*fills, strict=True))
    return m.closed_trades(session, symbol, quantity, price, commission)


def test_adding_and_reducing_belong_to_one_trade() -> None:
    # Bought 10 at 100 and 10 at 110, sold 5 at 120 and 15 at 105: 600 + 1575 - 1000 - 1100 = 75, less 4 * 1 commission.
    found = _closed((3, 7, 10, 100.0, 1), (4, 7, 10, 110.0, 1), (6, 7, -5, 120.0, 1), (9, 7, -15, 105.0, 1))
    assert found.symbol.tolist() == [7]
    assert (found.opened.tolist(), found.closed.tolist(), found.sessions.tolist()) == ([3], [9], [6])
    assert found.direction.tolist() == [1]
    assert found.profit.tolist() == [71.0]
    assert found.peak_notional.tolist() == [2200.0]  # 20 shares at 110
    assert found.profit_on_peak.tolist() == pytest.approx([71.0 / 2200.0])
    assert found.open_positions == 0


def test_a_fill_across_zero_closes_one_trade_and_opens_the_next() -> None:
    # Long 10 from 50; sells 30 at 55 (commission 3: 1 for closing 10, 2 for opening 20 short); covers 20 at 52.
    found = _closed((0, 1, 10, 50.0, 0.5), (2, 1, -30, 55.0, 3.0), (5, 1, 20, 52.0, 0.5))
    assert found.direction.tolist() == [1, -1]
    assert (found.opened.tolist(), found.closed.tolist()) == ([0, 2], [2, 5])
    assert found.profit.tolist() == pytest.approx([50.0 - 0.5 - 1.0, 60.0 - 2.0 - 0.5])
    assert found.peak_notional.tolist() == [550.0 - 50.0, 1100.0]


def test_what_is_open_at_the_end_is_counted_and_not_judged() -> None:
    found = _closed((0, 1, 10, 5.0, 0), (0, 2, -10, 5.0, 0), (1, 1, -10, 6.0, 0), (1, 2, 4, 4.0, 0), (2, 1, 3, 6.0, 0))
    assert found.symbol.tolist() == [1]
    assert found.profit.tolist() == [10.0]
    assert found.open_positions == 2


def test_rounding_is_flat_and_the_rest_of_it_no_trade() -> None:
    # 0.1 + 0.2 - 0.3 leaves 5.6e-17 shares in floats; selling a rest of that size later is no short.
    found = _closed((0, 1, 0.1, 10.0, 0), (1, 1, 0.2, 10.0, 0), (2, 1, -0.3, 11.0, 0), (3, 1, -5e-17, 11.0, 0))
    assert found.profit.tolist() == pytest.approx([0.3])
    assert (found.closed.tolist(), found.open_positions) == ([2], 0)
    again = _closed(
        (0, 1, 0.1, 10.0, 0), (1, 1, 0.2, 10.0, 0), (2, 1, -0.3, 11.0, 0), (4, 1, -2, 9.0, 0), (4, 1, 2, 8, 0)
    )
    assert again.direction.tolist() == [1, -1]
    assert again.sessions.tolist() == [2, 0]
    assert again.profit[1] == pytest.approx(2.0)
    nothing = _closed((0, 1, 0.0, 10.0, 0))
    assert (len(nothing.profit), nothing.open_positions) == (0, 0)


def _by_hand(fills: list[tuple[int, int, float, float, float]]) -> tuple[list[tuple[float, ...]], int]:
    """The same with whole shares, one fill after the other: (closed, symbol, opened, direction, profit, peak)."""
    done, state = [], {}
    for session, symbol, quantity, price, commission in fills:
        held, opened, cash, peak = state.get(symbol, (0.0, session, 0.0, 0.0))
        if held * (held + quantity) < 0:
            part = abs(held) / abs(quantity)
            done.append((session, symbol, opened, np.sign(held), cash + held * price - part * commission, peak))
            held, opened, cash, peak, quantity, commission = (
                0.0, session, 0.0, 0.0, held + quantity, (1 - part) * commission,
            )  # fmt: skip
        if held == 0:
            opened, cash, peak = session, 0.0, 0.0
        after = held + quantity
        cash, peak = cash - quantity * price - commission, max(peak, abs(after) * price)
        if after == 0:
            done.append((session, symbol, opened, np.sign(held), cash, peak))
        state[symbol] = (after, opened, cash, peak)
    return sorted(done, key=lambda trade: trade[:3]), sum(held != 0 for held, *_ in state.values())


def test_random_fills_equal_a_plain_loop() -> None:
    rng = np.random.default_rng(5)
    quantity = rng.choice([-3.0, -2.0, -1.0, 1.0, 2.0, 3.0], 3000)
    price, commission = rng.uniform(5, 50, 3000), rng.uniform(0, 1, 3000)
    session, symbol = np.sort(rng.integers(0, 400, 3000)), rng.integers(0, 90, 3000)
    found = m.closed_trades(session, symbol, quantity, price, commission)
    rows = zip(*(a.tolist() for a in (session, symbol, quantity, price, commission)), strict=True)
    expected, still_open = _by_hand(list(rows))
    assert len(expected) > 250
    assert found.open_positions == still_open
    got = sorted(
        zip(found.closed, found.symbol, found.opened, found.direction, found.profit, found.peak_notional, strict=True),
        key=lambda trade: trade[:3],
    )
    np.testing.assert_allclose(sorted(map(tuple, got)), sorted(map(tuple, expected)), rtol=1e-9, atol=1e-9)
    assert found.closed.tolist() == sorted(found.closed.tolist())


def test_bad_fills_are_refused() -> None:
    good = np.array([0, 1]), np.array([1, 1]), np.array([1.0, -1.0]), np.array([5.0, 6.0]), np.zeros(2)
    assert len(m.closed_trades(*good).profit) == 1
    with pytest.raises(WrongTypeError, match="'session' is out of order at position 1"):
        m.closed_trades(good[0][::-1], *good[1:])
    with pytest.raises(WrongTypeError, match="'price' is not finite at position 1"):
        m.closed_trades(*good[:3], np.array([5.0, NAN]), good[4])
    with pytest.raises(WrongTypeError, match="'commission' is 3 long"):
        m.closed_trades(*good[:4], np.zeros(3))


def _trades(profit: list[float], sessions: list[int]) -> m.ClosedTrades:
    count = np.zeros(len(profit), dtype=np.int64)
    gain, held = np.array(profit), np.array(sessions, dtype=np.int64)
    return m.ClosedTrades(count, count, held, count + 1, held, np.full(len(gain), 100.0), gain, gain / 100.0, 2)


def test_summary_by_hand() -> None:
    summary = m.summarize_trades(_trades([30.0, 10.0, -10.0, 0.0, -6.0], [1, 2, 3, 4, 20]))
    assert (summary.closed_trades, summary.open_positions) == (5, 2)
    assert summary.win_rate == pytest.approx(0.4)
    assert summary.profit_factor == pytest.approx(40.0 / 16.0)
    assert summary.expectancy == pytest.approx(24.0 / 5.0)
    assert summary.expectancy_on_peak == pytest.approx(0.24 / 5.0)
    assert summary.payoff_ratio == pytest.approx(20.0 / 8.0)
    assert (summary.mean_sessions, summary.median_sessions) == (6.0, 3.0)


def test_summary_of_what_is_not_there() -> None:
    none = m.summarize_trades(_trades([], []))
    assert none.closed_trades == 0
    figures = (none.win_rate, none.profit_factor, none.expectancy, none.payoff_ratio, none.mean_sessions)
    assert all(map(math.isnan, (*figures, none.median_sessions, none.expectancy_on_peak)))
    winners = m.summarize_trades(_trades([1.0, 2.0], [1, 1]))
    assert winners.win_rate == 1.0
    assert math.isnan(winners.profit_factor)
    assert math.isnan(winners.payoff_ratio)
    losers = m.summarize_trades(_trades([-1.0, -2.0], [1, 1]))
    assert (losers.win_rate, losers.profit_factor) == (0.0, 0.0)
    assert math.isnan(losers.payoff_ratio)


def test_capacity_by_hand() -> None:
    # 40 fills of 1,000 made with 100,000, volumes of 1 to 40 million: a fill reaches 1 % of its volume at 1 to 40 million
    # of capital (at 3 million it trades 30,000 of 3 million). Two of 40, 5 %, may exceed it: the third is the limit.
    notional, capital = np.full(40, -1000.0), np.full(40, 100_000.0)
    volume = np.random.default_rng(0).permutation(np.arange(1.0, 41.0)) * 1e6
    assert m.capacity(notional, capital, volume) == pytest.approx(3e6)
    assert np.mean(1000.0 * (3.001e6 / 100_000.0) / volume > 0.01) > 0.05
    assert m.capacity(notional, capital, volume, share=0.02) == pytest.approx(6e6)
    assert m.capacity(notional, capital, volume, exceeded=0.0) == pytest.approx(1e6)
    assert m.capacity(2 * notional, capital, volume) == pytest.approx(1.5e6)
    unknown = np.append(notional, [-1000.0, 0.0]), np.append(capital, [1e5, 1e5]), np.append(volume, [NAN, 1.0])
    assert m.capacity(*unknown) == pytest.approx(3e6)
    assert math.isnan(m.capacity(np.zeros(0), np.zeros(0), np.zeros(0)))
    with pytest.raises(InvalidConfigError, match="share: 0"):
        m.capacity(notional, capital, volume, share=0.0)
    with pytest.raises(WrongTypeError, match="'capital' is 1 long"):
        m.capacity(notional, capital[:1], volume)
