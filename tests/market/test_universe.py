"""Who is eligible on a session, on frames small enough to count by hand."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from trading_core.errors import UnreadableFileError
from trading_core.market.source import BAR_SCHEMA, empty_bars
from trading_core.market.universe import eligible, eligible_rows, read_membership

FIRST = date(2024, 3, 1)


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def bars_of(symbol: str, numbers: range | list[int], close: float = 10.0, volume: float = 100.0) -> pl.DataFrame:
    stamps = [datetime.combine(day(n), datetime.min.time(), UTC) + timedelta(hours=21) for n in numbers]
    rows = [
        (symbol, stamp, day(n), close, close, close, close, volume) for n, stamp in zip(numbers, stamps, strict=True)
    ]
    return pl.DataFrame(rows, schema=BAR_SCHEMA, orient="row")


def test_needs_a_bar_on_the_session_and_enough_history() -> None:
    bars = pl.concat(
        [
            bars_of("OLD", range(30)),
            bars_of("NEW", range(26, 30)),  # 4 bars
            bars_of("GONE", range(29)),  # none on the session
            bars_of("ALSO", range(25, 30)),  # 5 bars
        ]
    )
    assert eligible(bars, day(29), 5) == ["ALSO", "OLD"]
    assert eligible(bars, day(29), 1) == ["ALSO", "NEW", "OLD"]
    assert eligible(bars, day(28), 5) == ["GONE", "OLD"]
    assert eligible(bars, day(40), 1) == []
    assert eligible(empty_bars(), day(0), 1) == []


def test_floor_is_the_median_traded_value_of_the_last_twenty_bars() -> None:
    # Twenty last bars of SPIKE: one of 10 * 1e6, nineteen of 10 * 100: the median is 1,000. LATE was thin until then.
    spike = pl.concat([bars_of("SPIKE", range(39)), bars_of("SPIKE", [39], volume=1e6)])
    late = pl.concat([bars_of("LATE", range(20), volume=1.0), bars_of("LATE", range(20, 40), volume=100.0)])
    bars = pl.concat([spike, late])
    assert eligible(bars, day(39), 1, 1000.0) == ["LATE", "SPIKE"]
    assert eligible(bars, day(39), 1, 1000.1) == []
    assert eligible(bars, day(38), 1, 1000.0) == ["LATE", "SPIKE"]  # 19 of 20 bars at 1,000
    assert eligible(bars, day(28), 1, 1000.0) == ["SPIKE"]  # 9 of 20: the median of LATE is still 10


def test_missing_volume_fails_a_floor_but_not_its_absence() -> None:
    bars = bars_of("A", range(25), volume=float("nan"))
    assert eligible(bars, day(24), 20, 1.0) == []
    assert eligible(bars, day(24), 20) == ["A"]


def test_rows_after_the_session_are_never_read() -> None:
    rng = np.random.default_rng(3)
    bars = pl.concat([bars_of(f"S{n}", range(n, 60), volume=50.0 * (n + 1)) for n in range(40)])
    later = pl.col("session") > day(30)
    noise = pl.Series(rng.random(len(bars)) * 1e9)
    scrambled = bars.with_columns(
        pl.when(later).then(noise).otherwise(pl.col("volume")).alias("volume"),
        pl.when(later).then(float("nan")).otherwise(pl.col("close")).alias("close"),
    ).sample(fraction=1.0, shuffle=True, seed=1)
    expected = [f"S{n}" for n in range(9, 22)]  # 10 * 50 * (n + 1) >= 5,000, and 10 bars up to day 30
    assert eligible(bars, day(30), 10, 5000.0) == sorted(expected)
    assert eligible(scrambled, day(30), 10, 5000.0) == sorted(expected)
    assert eligible(scrambled.filter(~later), day(30), 10, 5000.0) == sorted(expected)


def test_price_floor_is_the_close_of_the_session_itself() -> None:
    falling = pl.concat([bars_of("FELL", range(20), close=8.0), bars_of("FELL", [20], close=4.99)])
    bars = pl.concat([falling, bars_of("HELD", range(21), close=5.0), bars_of("NONE", range(21), close=float("nan"))])
    assert eligible(bars, day(20), 5, min_price=5.0) == ["HELD"]
    assert eligible(bars, day(19), 5, min_price=5.0) == ["FELL", "HELD"]
    assert eligible(bars, day(20), 5) == ["FELL", "HELD", "NONE"]


def test_members_are_those_of_the_session_and_names_that_left_stay_in_its_past(tmp_path: Path) -> None:
    path = tmp_path / "members.csv"
    path.write_text(
        f"symbol,from,to\nEVER,,\nLEFT,,{day(10)}\nCAME,{day(11)},\nBACK,{day(2)},{day(4)}\nBACK,{day(8)},{day(9)}\n"
    )
    membership = read_membership(str(path))
    names = ("EVER", "LEFT", "CAME", "BACK", "STRANGER")
    bars = pl.concat([bars_of(name, range(15)) for name in names] + [bars_of("GONE", range(5))])
    found = eligible_rows(bars, day(0), day(14), 1, membership=membership)
    sessions = {name: found.filter(pl.col("symbol") == name)["session"].sort().to_list() for name in names}
    assert sessions["EVER"] == [day(n) for n in range(15)]
    assert sessions["LEFT"] == [day(n) for n in range(11)]
    assert sessions["CAME"] == [day(n) for n in range(11, 15)]
    assert sessions["BACK"] == [day(n) for n in (2, 3, 4, 8, 9)]
    assert sessions["STRANGER"] == []
    assert eligible(bars, day(10), 1, membership=membership) == ["EVER", "LEFT"]
    assert eligible(bars, day(11), 12, membership=membership) == ["CAME", "EVER"]


def test_a_membership_without_symbols_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "members.csv"
    path.write_text("symbol,from,to\n")
    with pytest.raises(UnreadableFileError, match="names no symbol"):
        read_membership(str(path))


def test_all_rows_at_once_are_those_of_session_by_session() -> None:
    rng = np.random.default_rng(8)
    parts = [
        bars_of(f"S{n}", sorted(rng.choice(60, size=int(rng.integers(5, 60)), replace=False).tolist()), close=1.0 + n)
        for n in range(25)
    ]
    bars = pl.concat(parts).with_columns(pl.col("volume") * pl.Series(rng.uniform(0.1, 3.0, sum(map(len, parts)))))
    rows = eligible_rows(bars, day(10), day(59), 7, 800.0, 6.0)
    for number in range(10, 60, 7):
        once = rows.filter(pl.col("session") == day(number))["symbol"].sort().to_list()
        assert once == eligible(bars.filter(pl.col("session") <= day(number)), day(number), 7, 800.0, 6.0)
