"""The build: hand-computed values, edges of the range, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal

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
from trading_core.features.build import _CELLS_PER_BLOCK, build, describe, families, table_name, warm_up
from trading_core.features.kernels import change, excess_in_sector, rank_in_sector
from trading_core.features.registry import CALENDAR_INPUTS, FEATURES, MARKET_INPUTS, BarBlock, feature
from trading_core.schema import FloatArray

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


# --- what is known besides a symbol's own bars ------------------------------------------------------------------------


@pytest.fixture
def derived() -> Iterator[None]:
    """Features that show the derived inputs as they are, for the time of a test."""
    before = dict(FEATURES)
    for name in (*MARKET_INPUTS, *CALENDAR_INPUTS):
        _show(name, "symbol")
    for name in MARKET_INPUTS:
        _show(name, "market")
    yield
    FEATURES.clear()
    FEATURES.update(before)


def _show(name: str, on: Literal["symbol", "market"]) -> None:
    def shown(bars: BarBlock) -> FloatArray:
        """An input as it is."""
        return bars.column(name)

    shown.__name__ = f"{on}_{name}"
    feature(family="shown", inputs=(name,), lookback=0, unit="-", on=on)(shown)


def _on_days(symbol: str, closes: dict[int, float]) -> pl.DataFrame:
    """Bars of some of the days after MONDAY."""
    bars = bars_of(symbol, close=list(closes.values()))
    day = pl.Series([MONDAY + timedelta(days=i) for i in closes])
    return bars.with_columns(session=day, ts=day.cast(pl.Datetime("us", "UTC")) + pl.duration(hours=21))


@pytest.mark.usefixtures("derived")
def test_market_inputs_by_hand() -> None:
    """A: +10 %, -10 %, +10 %. B: -50 %, no bar on day 2, so no return on day 3 either. C comes on day 2: +30 % on day 3."""
    bars = pl.concat(
        [
            _on_days("A", {0: 100.0, 1: 110.0, 2: 99.0, 3: 108.9}),
            _on_days("B", {0: 8.0, 1: 4.0, 3: 40.0}),
            _on_days("C", {2: 10.0, 3: 13.0}),
        ]
    )
    expected = {
        "market_ret": [math.nan, -0.2, -0.1, 0.2],
        "market_up_share": [math.nan, 0.5, 0.0, 1.0],
        "market_dispersion": [math.nan, 0.3, 0.0, 0.1],
    }
    for name, by_day in expected.items():
        for on in ("symbol", "market"):
            built = build(bars, [f"{on}_{name}"], MONDAY, MONDAY + timedelta(days=3))
            got = dict.fromkeys("ABC", ()) | dict(built.group_by("symbol").agg(f"{on}_{name}").iter_rows())
            assert got["A"] == approx(by_day), name
            assert got["B"] == approx([by_day[0], by_day[1], by_day[3]]), name
            assert got["C"] == approx(by_day[2:]), name


@pytest.mark.usefixtures("derived")
def test_what_has_no_price_does_not_count_in_the_market() -> None:
    """A close of 0 has no return after it; the market is what the others do."""
    bars = pl.concat([_on_days("A", {0: 0.0, 1: 5.0}), _on_days("B", {0: 4.0, 1: 5.0})])
    assert last(bars, "symbol_market_ret") == approx(0.25)
    assert last(bars, "symbol_market_up_share") == 1.0


@pytest.mark.usefixtures("derived")
def test_calendar_inputs_by_hand() -> None:
    """New York, Friday 2024-01-12 to Tuesday: Monday is Martin Luther King's day. The bars end at 16:00."""
    bars = _on_days("A", {11: 1.0, 14: 1.0, 15: 1.0})
    assert values(bars, "symbol_local_minute") == [960.0] * 3
    assert values(bars, "symbol_days_since_last") == approx([1.0, math.nan, 4.0])
    assert values(bars, "symbol_days_to_next") == approx([4.0, math.nan, 1.0])
    always = build(bars, ["symbol_days_to_next", "symbol_local_minute"], MONDAY, date(2024, 2, 1), calendar="24/7")
    assert always["symbol_days_to_next"].to_list() == [1.0] * 3
    assert always["symbol_local_minute"].to_list() == [1260.0] * 3


def test_sectors_are_compared_within_themselves() -> None:
    """Returns of 10, 20 and 60 % in one sector, 50 and 30 % in another; a null is a sector of its own."""
    sectors = {"A": ("tech", 1.1), "B": ("tech", 1.2), "C": ("tech", 1.6), "D": ("oil", 1.5), "E": ("oil", 1.3)}
    bars = pl.concat(
        [bars_of(s, close=[100.0, 100.0 * c]).with_columns(sector=pl.lit(x)) for s, (x, c) in sectors.items()]
        + [bars_of("F", close=[100.0, 170.0]).with_columns(sector=pl.lit(None, pl.String))]
    )
    before = dict(FEATURES)
    try:
        for across in (excess_in_sector, rank_in_sector):

            def compared(block: BarBlock) -> FloatArray:
                """Return within the sector."""
                return change(block.close, 1)

            compared.__name__ = across.__name__
            feature(family="shown", inputs=("close", "sector"), lookback=1, unit="-", across=across)(compared)
        day = MONDAY + timedelta(days=1)
        built = build(bars, ["excess_in_sector", "rank_in_sector"], day, day)
        assert built["excess_in_sector"].to_list() == approx([-0.2, -0.1, 0.3, 0.1, -0.1, 0.0])
        assert built["rank_in_sector"].to_list() == approx([-0.5, 0.0, 0.5, 0.5, -0.5, 0.0])
        alone = build(bars.drop("sector"), ["rank_in_sector"], day, day)  # no sector: all are compared
        assert alone["rank_in_sector"].to_list() == approx([-0.5, -0.3, 0.3, 0.1, -0.1, 0.5])
    finally:
        FEATURES.clear()
        FEATURES.update(before)


def test_any_number_of_threads_gives_the_same_bits() -> None:
    """Symbols of many lengths, so that there are several blocks, computed in whichever order."""
    r = np.random.default_rng(6)
    steps = [np.exp(np.cumsum(r.normal(0.0, 0.02, 1000 + 7 * i))) for i in range(60)]
    bars = pl.concat([bars_of(f"S{i:02}", close=list(x)) for i, x in enumerate(steps)])
    names = ["ret_7", "rsi_14", "macd_signal", "ret_5_rank", "market_ret", "dow_sin", "skew_20", "beta_63"]
    one = build(bars, names, MONDAY, date(2030, 1, 1), threads=1)
    assert len(one) > 2 * _CELLS_PER_BLOCK
    for threads in (2, 5):
        many = build(bars, names, MONDAY, date(2030, 1, 1), threads=threads)
        assert one.equals(many, null_equal=True)
        for name in names:
            np.testing.assert_array_equal(one[name].to_numpy().view(np.uint32), many[name].to_numpy().view(np.uint32))


def test_older_bars_than_the_warm_up_change_nothing() -> None:
    r = np.random.default_rng(9)
    bars = pl.concat([bars_of(s, close=list(np.exp(np.cumsum(r.normal(0, 0.02, 400))))) for s in "AB"])
    names, day = ["macd_signal", "beta_63", "ret_5_rank"], MONDAY + timedelta(days=399)
    needed = bars.filter(pl.col("session") >= day - timedelta(days=warm_up(names)))
    assert build(needed, names, day, day).equals(build(bars, names, day, day))


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


@pytest.mark.parametrize("key", ["symbol", "ts", "session"])
def test_a_bar_that_does_not_say_whose_or_when(key: str) -> None:
    """Null keys would pass for a symbol of their own, which changes the lags of the rows around them, or vanish."""
    bars = bars_of(close=[1.0, 2.0, 3.0])
    holed = bars.with_columns(pl.when(pl.int_range(pl.len()) == 1).then(None).otherwise(pl.col(key)).alias(key))
    with pytest.raises(WrongTypeError, match=f"column '{key}' is null in 1 of 3 rows, expected a value in every row"):
        build(holed, ["ret_1"], MONDAY, MONDAY + timedelta(days=3))


def test_a_bar_ends_at_a_time_and_not_on_a_day() -> None:
    with pytest.raises(WrongTypeError, match="column 'ts' is Date, expected Datetime"):
        build(bars_of(close=[1.0]).with_columns(pl.col("ts").dt.date()), ["ret_1"], MONDAY, MONDAY)


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
    settled = whole.filter(pl.col("session") >= days[warm_up(names) + 1])
    assert len(settled) > 500
    assert settled.filter(pl.col("symbol") == "AAPL").select(pl.col(names).is_nan().any()).row(0) == (False,) * len(
        names
    )
