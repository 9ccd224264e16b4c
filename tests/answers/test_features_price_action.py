"""Price action: TA-Lib on real bars and random walks, the rest by hand."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import talib

from trading_core.features.build import build

SETTLED = 300  # rows after which TA-Lib's average true range has forgotten its seed to 1e-7
SYMBOLS = ["AAPL", "AMD", "BAC", "CVX", "F", "GE", "JPM", "KO", "MSFT", "NFLX", "PG", "XOM"]
MONDAY = date(2024, 1, 1)
nan = math.nan


def _walk(seed: int, rows: int = 700) -> pl.DataFrame:
    """Prices in steps of 5 cents, so that equal opens, closes, highs and lows do occur."""
    r = np.random.default_rng(seed)
    close = 10.0 * np.exp(np.cumsum(r.normal(0.0003, 0.015, rows)))
    opening = np.concatenate(([10.0], close[:-1])) * np.exp(r.normal(0.0, 0.004, rows))
    high = np.maximum(opening, close) * np.exp(np.abs(r.normal(0.0, 0.004, rows)))
    low = np.minimum(opening, close) * np.exp(-np.abs(r.normal(0.0, 0.004, rows)))
    return bars_of(*(np.round(x * 20.0) / 20.0 for x in (opening, high, low, close)))


def bars_of(opening: object, high: object, low: object, close: object) -> pl.DataFrame:
    columns = {"open": opening, "high": high, "low": low, "close": close}
    frame = pl.DataFrame({name: np.asarray(x, dtype=float) for name, x in columns.items()})
    days = [MONDAY + timedelta(days=i) for i in range(len(frame))]
    stamps = pl.Series([datetime(d.year, d.month, d.day, 21, tzinfo=UTC) for d in days])
    return frame.with_columns(symbol=pl.lit("X"), session=pl.Series(days), ts=stamps)


@pytest.fixture(scope="module", params=["walk 1", "walk 2", *SYMBOLS])
def bars(request: pytest.FixtureRequest) -> pl.DataFrame:
    kind, _, seed = request.param.partition(" ")
    if kind == "walk":
        return _walk(int(seed))
    panel: Path = request.getfixturevalue("panel_path")
    prices = pl.col("open", "high", "low", "close")
    return (
        pl.scan_parquet(panel)
        .filter((pl.col("symbol") == kind) & pl.all_horizontal(prices.is_not_null()))
        .select("symbol", prices.cast(pl.Float64), ts=pl.col("date").cast(pl.Datetime("us", "UTC")))
        .with_columns(session=pl.col("ts").dt.date())
        .sort("ts")
        .collect()
    )


def _built(bars: pl.DataFrame, *names: str) -> dict[str, np.ndarray]:
    features = build(bars, names, bars["session"][0], bars["session"][-1])
    return {name: features[name].to_numpy() for name in names}


def by_hand(name: str, expected: list[float], **columns: list[float]) -> None:
    """`close` stands for the columns that are not given."""
    close = columns.get("close") or next(iter(columns.values()))
    bars = bars_of(*(columns.get(c, close) for c in ("open", "high", "low", "close")))
    np.testing.assert_allclose(_built(bars, name)[name], expected, rtol=1e-6, atol=1e-7, err_msg=name)


# --- TA-Lib -----------------------------------------------------------------------------------------------------------


def test_channels_equal_talib(bars: pl.DataFrame) -> None:
    """From the first row on: nothing here needs a seed."""
    high, low, close = (bars[c].to_numpy() for c in ("high", "low", "close"))
    answers: dict[str, np.ndarray] = {"drawdown_252": close / talib.MAX(close, 252) - 1.0}
    for n in (20, 63, 126, 252):
        answers[f"high_dist_{n}"] = close / talib.MAX(high, n) - 1.0
        answers[f"low_dist_{n}"] = close / talib.MIN(low, n) - 1.0
    for n in (20, 63, 252):
        answers[f"range_position_{n}"] = talib.STOCHF(high, low, close, n, 1)[0] / 100.0
    for n in (20, 55):
        top, bottom = (np.append(nan, x[:-1]) for x in (talib.MAX(high, n), talib.MIN(low, n)))
        side = (close > top).astype(float) - (close < bottom)
        answers[f"breakout_{n}"] = np.where(np.isnan(top + bottom), nan, side)
    built = _built(bars, *answers)
    for name, expected in answers.items():
        np.testing.assert_allclose(built[name], expected, rtol=1e-6, atol=6e-8, err_msg=name)


def test_bars_since_the_extreme_equal_talib(bars: pl.DataFrame) -> None:
    """AROON(251) tells the last extreme of 252 bars: up = 100 (251 - bars since the high) / 251."""
    down, up = talib.AROON(bars["high"].to_numpy(), bars["low"].to_numpy(), 251)
    built = _built(bars, "since_high_252", "since_low_252")
    np.testing.assert_allclose(built["since_high_252"], 1.0 - up / 100.0, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(built["since_low_252"], 1.0 - down / 100.0, rtol=1e-6, atol=1e-7)


def test_candles_equal_talib(bars: pl.DataFrame) -> None:
    prices = [bars[c].to_numpy() for c in ("open", "high", "low", "close")]
    built = _built(bars, "engulfing", "doji_10", "body_share")
    engulfing = talib.CDLENGULFING(*prices) / 100.0
    assert set(np.unique(np.abs(engulfing))) - {0.0}
    np.testing.assert_allclose(built["engulfing"][2:], engulfing[2:], atol=1e-7)  # TA-Lib begins on the third row
    doji, near = talib.CDLDOJI(*prices) == 100, np.abs(built["doji_10"] - 0.9) < 1e-6
    assert doji[10:].any()
    clear = ~near[10:]  # at the border itself the rounding of TA-Lib's running sum decides
    np.testing.assert_array_equal((built["doji_10"] >= 0.9)[10:][clear], doji[10:][clear])
    np.testing.assert_allclose(built["body_share"], np.abs(talib.BOP(*prices)), rtol=1e-6, atol=1e-7)


def test_gap_in_talibs_ranges(bars: pl.DataFrame) -> None:
    opening, high, low, close = (bars[c].to_numpy() for c in ("open", "high", "low", "close"))
    expected = (opening[1:] - close[:-1]) / talib.ATR(high, low, close, 14)[:-1]
    built = _built(bars, "gap_atr")["gap_atr"]
    np.testing.assert_allclose(built[1:][SETTLED:], expected[SETTLED:], rtol=1e-6, atol=6e-8)
    assert np.isnan(built[:15]).all()
    assert not np.isnan(built[15:]).any()


def test_range_and_steps_equal_pandas(bars: pl.DataFrame) -> None:
    frame = bars.select("open", "high", "low", "close").to_pandas()
    width = frame.high - frame.low
    true = talib.TRANGE(*(frame[c].to_numpy() for c in ("high", "low", "close")))
    answers = {
        "range_expansion_20": width / width.rolling(20).mean().shift(),
        "narrow_range_7": (width < width.shift().rolling(6).min()).where(width.shift(6).notna()),
        "higher_highs_20": (frame.high.diff() > 0).where(frame.high.shift().notna()).astype(float).rolling(20).mean(),
        "lower_lows_20": (frame.low.diff() < 0).where(frame.low.shift().notna()).astype(float).rolling(20).mean(),
        "move_of_range": (frame.close.diff() / true).where(true != 0.0, 0.0).where(frame.close.shift().notna()),
        "upper_shadow": (frame.high - frame[["open", "close"]].max(axis=1)) / width,
        "lower_shadow": (frame[["open", "close"]].min(axis=1) - frame.low) / width,
    }
    built = _built(bars, *answers)
    for name, expected in answers.items():
        values = np.asarray(pd.Series(expected).fillna(0.0 if "shadow" in name else nan), dtype=float)
        np.testing.assert_allclose(built[name], values, rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_shares_of_a_bar_are_the_whole(bars: pl.DataFrame) -> None:
    built = _built(bars, "body_share", "upper_shadow", "lower_shadow")
    whole = sum(built.values())
    ranged = (bars["high"] > bars["low"]).to_numpy()
    np.testing.assert_allclose(whole[ranged], 1.0, rtol=1e-6)
    assert (whole[~ranged] == 0.0).all()


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_gap_filled() -> None:
    """Up 2 and back 1; up 2 and back beyond; no gap; down 2 and back half of one; down 2, not back at all."""
    by_hand(
        "gap_filled",
        [nan, 0.5, 1.0, 1.0, 0.25, 0.0],
        open=[10.0, 12.0, 13.0, 14.0, 12.0, 10.0],
        high=[10.0, 13.0, 15.0, 15.0, 12.5, 10.0],
        low=[10.0, 11.0, 9.0, 13.0, 11.0, 9.0],
        close=[10.0, 11.0, 14.0, 14.0, 12.0, 9.5],
    )


def test_inside_and_outside_bars() -> None:
    bars = {"high": [10.0, 9.0, 11.0, 11.0, 12.0], "low": [5.0, 6.0, 4.0, 5.0, 5.0]}
    by_hand("inside_bar", [nan, 1, 0, 0, 0], **bars)
    by_hand("outside_bar", [nan, 0, 1, 0, 0], **bars)


def test_engulfing_by_hand() -> None:
    """A fall, engulfed from both sides, on one side exactly, and not; then the mirror of the first."""
    cases = [((10, 8), (7, 11), 1.0), ((10, 8), (8, 11), 0.8), ((10, 8), (7, 10), 0.8), ((10, 8), (8, 10), 0.0)]
    cases += [((10, 8), (9, 11), 0.0), ((8, 10), (11, 7), -1.0), ((8, 10), (7, 11), 0.0)]
    for first, second, expected in cases:
        opening, close = ([float(pair[i]) for pair in (first, second)] for i in (0, 1))
        by_hand("engulfing", [nan, expected], open=opening, close=close)


def test_three_bar_reversal() -> None:
    """A falling bar, a lower low, a close above the high between; its mirror; and the same without the confirmation."""
    up = {"open": [10.0, 8.0, 8.0], "high": [10.0, 8.5, 9.5], "low": [8.0, 7.0, 7.5], "close": [8.5, 7.5, 9.0]}
    down = {name: [20.0 - x for x in up[{"high": "low", "low": "high"}.get(name, name)]] for name in up}
    by_hand("three_bar_reversal", [nan, nan, 1.0], **up)
    by_hand("three_bar_reversal", [nan, nan, -1.0], **down)
    by_hand("three_bar_reversal", [nan, nan, 0.0], **(up | {"close": [8.5, 7.5, 8.5]}))
    by_hand("three_bar_reversal", [nan, nan, 0.0], **(up | {"low": [8.0, 7.0, 7.0]}))
    by_hand("three_bar_reversal", [nan, nan, 0.0], **(up | {"open": [8.0, 8.0, 8.0]}))


def test_streak() -> None:
    rising = [float(i) for i in range(14)]
    by_hand("streak_10", [nan, *(min(i, 10) / 10 for i in range(1, 14))], close=rising)
    by_hand("streak_10", [nan, 0.1, 0.2, -0.1, 0.0, 0.1, -0.1, -0.2], close=[1.0, 2, 3, 2, 2, 3, 2, 1])


def test_narrow_range_needs_to_be_the_smallest_alone() -> None:
    low = [1.0] * 9
    by_hand("narrow_range_7", [nan] * 6 + [1.0, 0.0, 0.0], high=[5.0, 5, 5, 5, 5, 5, 3, 3, 4], low=low)


def test_a_bar_without_range() -> None:
    flat = bars_of([5.0] * 260, [5.0] * 260, [5.0] * 260, [5.0] * 260)
    expected = {"body_share": 0.0, "upper_shadow": 0.0, "lower_shadow": 0.0, "move_of_range": 0.0, "gap_filled": 1.0}
    expected |= {"range_position_20": 0.5, "range_position_252": 0.5, "engulfing": 0.0, "inside_bar": 0.0}
    expected |= {"since_high_252": 0.0, "drawdown_252": 0.0, "streak_10": 0.0, "breakout_20": 0.0}
    expected |= {"gap_atr": nan, "range_expansion_20": nan, "doji_10": nan}
    for name, values in _built(flat, *expected).items():
        np.testing.assert_equal(values[-1], expected[name], err_msg=name)
