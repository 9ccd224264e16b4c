"""The build: hand-computed values, edges of the range, and what it refuses."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from trading_core.errors import (
    DuplicateKeysError,
    InvalidDateRangeError,
    MissingColumnsError,
    UnknownNameError,
    WrongTypeError,
)
from trading_core.features.build import build, describe, families, table_name, warm_up
from trading_core.features.registry import FEATURES

PANEL = Path(__file__).resolve().parents[2].parent / "shared" / "market" / "sp500_2013_2018.parquet"
MONDAY = date(2024, 1, 1)


def bars_of(symbol: str = "A", **columns: list[float]) -> pl.DataFrame:
    """Daily bars from a Monday on; columns not given repeat the close (or 1000 for the volume)."""
    n = len(next(iter(columns.values())))
    close = columns.get("close", [10.0] * n)
    days = [MONDAY + timedelta(days=i) for i in range(n)]
    return pl.DataFrame(
        {
            "symbol": [symbol] * n,
            "ts": pl.Series(
                [datetime(d.year, d.month, d.day, 21, tzinfo=UTC) for d in days], dtype=pl.Datetime("us", "UTC")
            ),
            "session": days,
            "open": columns.get("open", close),
            "high": columns.get("high", close),
            "low": columns.get("low", close),
            "close": close,
            "volume": columns.get("volume", [1000.0] * n),
        }
    )


def values(bars: pl.DataFrame, name: str) -> list[float]:
    return build(bars, [name], date(1990, 1, 1), date(2100, 1, 1))[name].to_list()


def last(bars: pl.DataFrame, name: str) -> float:
    return values(bars, name)[-1]


def approx(expected: object) -> object:
    return pytest.approx(expected, rel=1e-6, abs=1e-7, nan_ok=True)


# --- values by hand ---------------------------------------------------------------------------------------------------


def test_returns() -> None:
    bars = bars_of(close=[100.0, 110.0, 99.0, 121.0])
    assert values(bars, "ret_1") == approx([math.nan, 0.1, -0.1, 2 / 9])
    assert values(bars, "ret_3") == approx([math.nan, math.nan, math.nan, 0.21])
    assert values(bars, "log_ret") == approx([math.nan, math.log(1.1), math.log(0.9), math.log(11 / 9)])


def test_gap_and_range_within_the_bar() -> None:
    bars = bars_of(open=[10.0, 12.0], high=[11.0, 13.0], low=[9.0, 11.0], close=[10.0, 12.6])
    assert values(bars, "overnight_ret") == approx([math.nan, 0.2])
    assert values(bars, "intraday_ret") == approx([0.0, 0.05])
    assert values(bars, "close_location") == approx([0.5, 0.8])
    assert values(bars_of(close=[5.0]), "close_location") == [0.5]


def test_distances_from_the_extremes() -> None:
    n = 63
    bars = bars_of(close=[10.0] * n, high=[12.5] + [10.0] * (n - 1), low=[8.0] + [10.0] * (n - 1))
    assert last(bars, "high_dist_63") == approx(-0.2)
    assert last(bars, "low_dist_63") == approx(0.25)
    assert all(math.isnan(v) for v in values(bars, "high_dist_63")[:-1])


def test_volatility_of_two_alternating_returns() -> None:
    """Ten returns of +1 % and ten of -1 % (in logs): mean 0, sample variance 20 * 1e-4 / 19."""
    close = [100.0 * math.exp(0.01 * (i % 2)) for i in range(21)]
    assert last(bars_of(close=close), "vol_20") == approx(math.sqrt(20e-4 / 19))


def test_parkinson() -> None:
    """Every bar spans a factor e: sqrt(1 / (4 ln 2))."""
    bars = bars_of(close=[1.0] * 20, high=[math.e] * 20, low=[1.0] * 20)
    assert last(bars, "parkinson_20") == approx(0.6005612043932249)


def test_volatility_ratio() -> None:
    """58 quiet returns, then +-2 % in turn: by numpy from the returns themselves."""
    returns = [0.001 * (-1) ** i for i in range(58)] + [0.02, -0.02, 0.02, -0.02, 0.02]
    close = list(100.0 * np.exp(np.concatenate(([0.0], np.cumsum(returns)))))
    assert last(bars_of(close=close), "vol_ratio") == approx(np.std(returns[-5:], ddof=1) / np.std(returns, ddof=1))


def test_volume_surprise() -> None:
    """20 volumes of e^9 and e^11 in turn: mean 10, sample deviation sqrt(20/19). Then e^13."""
    bars = bars_of(volume=[math.exp(9 + 2 * (i % 2)) for i in range(20)] + [math.exp(13)])
    assert last(bars, "volume_z_20") == approx(3 / math.sqrt(20 / 19))
    assert math.isnan(last(bars_of(volume=[0.0] + [5.0, 6.0] * 10), "volume_z_20"))
    assert math.isnan(last(bars_of(volume=[5.0] * 21), "volume_z_20"))


def test_volume_trend() -> None:
    bars = bars_of(volume=[100.0] * 15 + [200.0] * 5)
    assert last(bars, "volume_trend_20") == approx(math.log(200 / 125))


def test_on_balance_volume() -> None:
    """Twelve rises, eight falls, no volume differs: (12 - 8) sessions."""
    steps = [1.0] * 12 + [-1.0] * 8
    close = [100.0, *(100.0 + np.cumsum(steps))]
    assert last(bars_of(close=close), "obv_change_20") == approx(4.0)


def test_momentum_skips_the_last_month() -> None:
    close = [50.0] + [60.0] * 230 + [75.0] + [1.0] * 21  # rows 0, 231 = t - 21 and t = 252
    assert last(bars_of(close=close), "mom_252_21") == approx(0.5)


def test_a_market_that_does_not_move() -> None:
    bars = bars_of(close=[33.3] * 300)
    expected = {
        "rsi_14": 50.0,
        "stoch_k_14": 50.0,
        "bollinger_position_20": 0.0,
        "macd": 0.0,
        "vol_20": 0.0,
        "atr_14": 0.0,
    }
    for name, value in expected.items():
        assert last(bars, name) == pytest.approx(value, abs=1e-7), name
    assert math.isnan(last(bars, "vol_ratio"))


def test_weekdays() -> None:
    bars = bars_of(close=[1.0] * 8)
    assert values(bars, "dow") == [0, 1, 2, 3, 4, 5, 6, 0]
    assert values(bars, "dow_sin")[:2] == approx([0.0, 0.7818314824680298])
    assert values(bars, "dow_cos")[:2] == approx([1.0, 0.6234898018587336])


def test_cross_section() -> None:
    bars = pl.concat(
        [bars_of(s, close=[100.0] * 5 + [c]) for s, c in (("A", 110.0), ("B", 120.0), ("C", 130.0), ("D", 120.0))]
    )
    built = build(bars, ["ret_5_rank", "rel_ret_5", "market_ret"], MONDAY, MONDAY + timedelta(days=5))
    day = built.filter(pl.col("session") == MONDAY + timedelta(days=5))
    assert day["symbol"].to_list() == ["A", "B", "C", "D"]
    assert day["ret_5_rank"].to_list() == approx([-0.5, 0.0, 0.5, 0.0])
    assert day["rel_ret_5"].to_list() == approx([-0.1, 0.0, 0.1, 0.0])
    assert day["market_ret"].to_list() == approx([0.2] * 4)


def test_a_symbol_alone_ranks_in_the_middle() -> None:
    assert last(bars_of(close=[1.0] * 5 + [2.0]), "ret_5_rank") == 0.0


def test_symbols_without_history_do_not_count_in_ranks() -> None:
    young = bars_of("Y", close=[1.0] * 6).tail(1)
    bars = pl.concat([bars_of("A", close=[1.0] * 5 + [2.0]), bars_of("B", close=[1.0] * 5 + [3.0]), young])
    day = build(bars, ["ret_5_rank", "market_ret"], MONDAY + timedelta(days=5), MONDAY + timedelta(days=5))
    assert day["ret_5_rank"].to_list() == approx([-0.5, 0.5, math.nan])
    assert day["market_ret"].to_list() == approx([1.5, 1.5, 1.5])  # the market has a return, also for a newcomer


# --- the frame --------------------------------------------------------------------------------------------------------


def test_only_the_range_comes_back() -> None:
    bars = pl.concat([bars_of(s, close=[float(i + 1) for i in range(10)]) for s in ("B", "A")])
    built = build(bars, ["ret_1", "dow"], MONDAY + timedelta(days=3), MONDAY + timedelta(days=4))
    assert built.columns == ["symbol", "ts", "session", "ret_1", "dow"]
    assert built.schema["ret_1"] == pl.Float32
    assert built["symbol"].to_list() == ["A", "A", "B", "B"]
    assert built["ret_1"].to_list() == approx([1 / 3, 1 / 4] * 2)
    assert built.schema["ts"] == bars.schema["ts"]


def test_nothing_in_the_range() -> None:
    built = build(bars_of(close=[1.0, 2.0]), sorted(FEATURES), date(2030, 1, 1), date(2030, 2, 1))
    assert built.shape == (0, 3 + len(FEATURES))
    empty = build(bars_of(close=[1.0]).clear(), sorted(FEATURES), MONDAY, MONDAY)
    assert empty.shape == (0, 3 + len(FEATURES))


def test_integers_and_nulls_in_bars() -> None:
    bars = bars_of(close=[100.0, 110.0, 121.0, 121.0])
    hole = bars.with_columns(pl.when(pl.col("close") == 110.0).then(None).otherwise(pl.col("close")).alias("close"))
    assert values(hole, "ret_1") == approx([math.nan, math.nan, math.nan, 0.0])
    volume = bars_of(volume=[100.0] * 15 + [200.0] * 5).with_columns(pl.col("volume").cast(pl.Int64))
    assert last(volume, "volume_trend_20") == approx(math.log(200 / 125))


def test_a_name_given_twice_comes_once() -> None:
    assert build(bars_of(close=[1.0]), ["dow", "dow"], MONDAY, MONDAY).columns[3:] == ["dow"]


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_unknown_name() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown feature 'rsi_15'. Did you mean 'rsi_14'"):
        build(bars_of(close=[1.0]), ["rsi_15"], MONDAY, MONDAY)


def test_missing_column() -> None:
    with pytest.raises(MissingColumnsError, match="lacks the column volume"):
        build(bars_of(close=[1.0]).drop("volume"), ["volume_z_20"], MONDAY, MONDAY)


def test_wrong_type() -> None:
    bars = bars_of(close=[1.0]).with_columns(pl.col("close").cast(pl.String))
    with pytest.raises(WrongTypeError, match="column 'close' is String"):
        build(bars, ["ret_1"], MONDAY, MONDAY)


def test_duplicate_bars() -> None:
    bars = bars_of(close=[1.0, 2.0])
    with pytest.raises(DuplicateKeysError, match="holds 1 duplicated keys"):
        build(pl.concat([bars, bars.tail(1)]), ["ret_1"], MONDAY, MONDAY + timedelta(days=3))


def test_reversed_range() -> None:
    with pytest.raises(InvalidDateRangeError):
        build(bars_of(close=[1.0]), ["dow"], MONDAY, MONDAY - timedelta(days=1))


# --- what callers ask of names ----------------------------------------------------------------------------------------


def test_warm_up_is_the_longest_lookback() -> None:
    assert warm_up([]) == 0
    assert warm_up(["ret_3", "dow"]) == 3
    assert warm_up(["ret_3", "ret_63"]) == 63
    # MACD: (25/27)^210 < 1e-7 < (25/27)^209, the signal's (8/10)^73 on top: 209 + 72 earlier rows.
    assert warm_up(["macd", "macd_signal"]) == 281


def test_families_are_tables() -> None:
    assert families(["ret_3", "dow", "ret_1"]) == {"returns": ["ret_3", "ret_1"], "calendar": ["dow"]}
    assert table_name("returns") == "features_returns"
    assert [f.name for f in describe()] == [f.name for f in sorted(FEATURES.values(), key=lambda f: (f.family, f.name))]


@pytest.mark.panel
@pytest.mark.skipif(not PANEL.is_file(), reason="the shared real panel is not on this machine")
def test_real_panel_by_day_and_at_once() -> None:
    raw = pl.read_parquet(PANEL).filter(pl.col("symbol").is_in(["AAPL", "MSFT", "GE", "JPM", "XOM", "ALLE"]))
    bars = raw.rename({"date": "ts"}).with_columns(session=pl.col("ts").dt.date())
    names, days = sorted(FEATURES), sorted(bars["session"].unique())
    whole = build(bars, names, days[0], days[-1])
    for day in days[-5:]:
        earliest = days[days.index(day) - warm_up(names) - 5]
        part = build(bars.filter(pl.col("session") >= earliest), names, day, day)
        assert part.equals(whole.filter(pl.col("session") == day), null_equal=True)
    settled = whole.filter(pl.col("session") >= days[300])
    assert settled.filter(pl.col("symbol") == "AAPL").select(pl.col(names).is_nan().any()).row(0) == (False,) * len(
        names
    )
