"""Forward adjustment against arrays computed by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest

from trading_core.market.adjust import adjusted, factor_steps, forward_factors, with_factors
from trading_core.market.source import ACTION_SCHEMA, BAR_SCHEMA, empty_actions, empty_bars

FIRST = date(2024, 1, 1)


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def bars_of(closes: dict[int, float], symbol: str = "A", volume: float = 100.0) -> pl.DataFrame:
    rows = []
    for number, close in closes.items():
        stamp = datetime.combine(day(number), datetime.min.time(), UTC) + timedelta(hours=21)
        rows.append((symbol, stamp, day(number), close - 1, close + 2, close - 2, close, volume))
    return pl.DataFrame(rows, schema=BAR_SCHEMA, orient="row")


def actions_of(*events: tuple[str, int, str, float]) -> pl.DataFrame:
    rows = [(symbol, day(number), kind, value, day(number - 1)) for symbol, number, kind, value in events]
    return pl.DataFrame(rows, schema=ACTION_SCHEMA, orient="row")


def price_factors(bars: pl.DataFrame, actions: pl.DataFrame) -> list[float]:
    return forward_factors(bars, actions).get_column("price_factor").to_list()


def test_two_for_one_split_joins_prices_and_halves_volume() -> None:
    bars = bars_of({0: 100.0, 1: 104.0, 2: 52.0, 3: 54.0})
    actions = actions_of(("A", 2, "split", 2.0))
    out = adjusted(bars, actions)
    assert out.get_column("close").to_list() == [100.0, 104.0, 104.0, 108.0]
    assert out.get_column("open").to_list() == [99.0, 103.0, 102.0, 106.0]  # 51 * 2, 53 * 2
    assert out.get_column("high").to_list() == [102.0, 106.0, 108.0, 112.0]
    assert out.get_column("low").to_list() == [98.0, 102.0, 100.0, 104.0]
    assert out.get_column("volume").to_list() == [100.0, 100.0, 50.0, 50.0]
    assert out.columns == bars.columns


def test_dividend_is_total_return_and_leaves_volume() -> None:
    # 100 -> ex-date close 98 with 2 paid: nothing was lost, then +1 %.
    bars = bars_of({0: 100.0, 1: 98.0, 2: 98.98})
    out = adjusted(bars, actions_of(("A", 1, "dividend", 2.0)))
    assert out.get_column("close").to_list() == pytest.approx([100.0, 100.0, 101.0], rel=1e-14)
    assert out.get_column("volume").to_list() == [100.0, 100.0, 100.0]


def test_reference_of_a_dividend_is_the_raw_close_before() -> None:
    # Split first, dividend of 1 later: the reference is 50 (raw), not 100 (adjusted): 2 * 50 / 49.
    bars = bars_of({0: 100.0, 1: 50.0, 2: 49.0})
    actions = actions_of(("A", 1, "split", 2.0), ("A", 2, "dividend", 1.0))
    assert price_factors(bars, actions) == pytest.approx([1.0, 2.0, 2.0 * 50.0 / 49.0], rel=1e-15)


@pytest.mark.parametrize("order", [1, -1])
def test_split_and_dividend_on_one_day_dividend_is_per_new_share(order: int) -> None:
    # 2:1 and 1 per new share: 100 old = 50 new, ex 49. Adjusted close stays 100.
    events = [("A", 1, "split", 2.0), ("A", 1, "dividend", 1.0)][::order]
    out = adjusted(bars_of({0: 100.0, 1: 49.0}), actions_of(*events))
    assert out.get_column("close").to_list() == pytest.approx([100.0, 100.0], rel=1e-15)


def test_reverse_split() -> None:
    assert adjusted(bars_of({0: 5.0, 1: 50.0}), actions_of(("A", 1, "split", 0.1)))["close"].to_list() == [5.0, 5.0]


def test_event_without_a_bar_waits_for_the_next_one() -> None:
    # Day 1 has no bar (halt): a dividend of 2 per old share on day 1, a split on day 2, bar on day 2 at 49.
    actions = actions_of(("A", 1, "dividend", 2.0), ("A", 2, "split", 2.0))
    out = adjusted(bars_of({0: 100.0, 2: 49.0}), actions)
    assert out.get_column("close").to_list() == pytest.approx([100.0, 100.0], rel=1e-15)


@pytest.mark.parametrize(
    "event",
    [
        ("A", 0, "split", 2.0),  # at the first bar: no earlier row to join with
        ("A", -3, "dividend", 1.0),  # before it
        ("A", 2, "dividend", 101.0),  # as large as the close before
        ("A", 2, "dividend", 250.0),
        ("A", 2, "split", 0.0),
        ("A", 2, "split", float("nan")),
        ("A", 2, "dividend", -1.0),
        ("A", 2, "delisting", 101.0),  # changes holdings, not prices
        ("A", 9, "split", 2.0),  # after the last bar
        ("B", 1, "split", 2.0),  # another symbol
    ],
)
def test_events_that_do_not_adjust(event: tuple[str, int, str, float]) -> None:
    bars = bars_of({0: 100.0, 1: 101.0, 2: 102.0})
    assert adjusted(bars, actions_of(event)).equals(bars)


def test_a_dividend_that_is_too_large_keeps_the_split_of_its_day() -> None:
    actions = actions_of(("A", 1, "dividend", 60.0), ("A", 1, "split", 2.0))
    assert price_factors(bars_of({0: 100.0, 1: 50.0}), actions) == [1.0, 2.0]


def test_missing_close_falls_back_to_the_last_one() -> None:
    bars = bars_of({0: 100.0, 1: float("nan"), 2: 98.0})
    assert price_factors(bars, actions_of(("A", 2, "dividend", 2.0))) == pytest.approx([1.0, 1.0, 100.0 / 98.0])


def test_symbols_do_not_mix_and_rows_come_sorted() -> None:
    bars = pl.concat([bars_of({0: 10.0, 1: 11.0}, "B"), bars_of({0: 100.0, 1: 50.0}, "A")])
    out = adjusted(bars.reverse(), actions_of(("A", 1, "split", 2.0)))
    assert out.select("symbol", "close").rows() == [("A", 100.0), ("A", 100.0), ("B", 10.0), ("B", 11.0)]


def test_intraday_bars_share_the_factor_of_their_session() -> None:
    # Two bars per session; the reference of the dividend is the last close of the session before (100), not 90.
    morning = bars_of({0: 90.0, 1: 97.0}).with_columns(pl.col("ts") - timedelta(hours=3))
    bars = pl.concat([morning, bars_of({0: 100.0, 1: 98.0})])
    out = adjusted(bars, actions_of(("A", 1, "dividend", 2.0)))
    assert out.get_column("close").to_list() == pytest.approx([90.0, 100.0, 97.0 * 100 / 98, 100.0], rel=1e-15)


def test_later_bars_and_events_change_no_earlier_row() -> None:
    closes = {number: 100.0 + (number * 7919 % 13) for number in range(60)}
    events = [("A", number, "dividend", 0.7 + number / 100) for number in range(3, 60, 7)]
    events += [("A", 20, "split", 3.0), ("A", 41, "split", 0.5)]
    bars, actions = bars_of(closes), actions_of(*events)
    whole = adjusted(bars, actions)
    for cut in (5, 20, 21, 40, 59):
        early = bars.filter(pl.col("session") <= day(cut))
        past = actions.filter(pl.col("session") <= day(cut))
        assert adjusted(early, past).equals(whole.head(cut + 1))  # bit for bit
        assert adjusted(early, actions).equals(whole.head(cut + 1))


def test_empty_frames() -> None:
    assert adjusted(empty_bars(), empty_actions()).equals(empty_bars())
    bars = bars_of({0: 100.0, 1: 101.0})
    assert adjusted(bars, empty_actions()).equals(bars)
    assert forward_factors(bars, empty_actions()).columns == ["symbol", "session", "price_factor", "volume_factor"]


def test_steps_are_the_first_bar_and_what_changes_the_factor() -> None:
    bars = pl.concat([bars_of({0: 100.0, 1: 104.0, 2: 52.0, 3: 50.0}), bars_of({1: 10.0, 3: 11.0}, "B")])
    steps = factor_steps([bars], actions_of(("A", 2, "split", 2.0), ("A", 3, "dividend", 2.0)))
    assert steps.rows() == [
        ("A", day(0), 1.0, 1.0),
        ("A", day(2), 2.0, 0.5),
        ("A", day(3), 2.0 * (52.0 / 50.0), 0.5),
        ("B", day(1), 1.0, 1.0),
    ]


@pytest.mark.parametrize("cuts", [[7], [1, 2, 3], [5, 20, 21, 40], list(range(1, 60))], ids=str)
def test_bars_in_parts_give_the_factors_of_all_bars_to_the_bit(cuts: list[int]) -> None:
    """Two symbols with holes over the cuts, one that comes late, one that goes early; events in holes and on cuts."""
    gone = {5, 6, 20, 21, 22, 40}
    held = {number: 100.0 + (number * 7919 % 13) for number in range(60) if number not in gone}
    bars = pl.concat(
        [bars_of(held), bars_of({n: 30.0 + n % 3 for n in range(17, 60)}, "LATE"), bars_of({0: 9.0}, "END")]
    )
    events = [("A", number, "dividend", 0.7 + number / 100) for number in range(3, 60, 7)]
    events += [("A", 20, "split", 3.0), ("A", 41, "split", 0.5), ("LATE", 20, "split", 7.0), ("LATE", 5, "split", 9.0)]
    events += [("END", 30, "dividend", 1.0), ("A", 21, "dividend", 1.1)]
    actions = actions_of(*events)
    edges = [0, *cuts, 60]
    parts = [bars.filter(pl.col("session").is_between(day(a), day(b - 1))) for a, b in pairwise(edges)]
    steps = factor_steps(parts, actions)
    whole = adjusted(bars, actions)
    assert with_factors(bars, steps).equals(whole)
    late = bars.filter(pl.col("session") >= day(23))
    assert with_factors(late, steps).equals(whole.filter(pl.col("session") >= day(23)))
