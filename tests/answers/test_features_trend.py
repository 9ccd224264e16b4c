"""The family `trend` against TA-Lib, pandas, scipy and arrays computed by hand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.stats
import talib
from indicator_samples import SETTLED, WILD, bars_of, built, columns_of, leading_nans, real_bars, walk

from trading_core.features.kernels import adaptive_mean, rolling_trend
from trading_core.features.registry import FEATURES

NAMES = sorted(name for name, feature in FEATURES.items() if feature.family == "trend")
PERCENT = ("adx_14", "aroon_down_25", "aroon_osc_25", "aroon_up_25", "di_diff_14", "minus_di_14", "plus_di_14")
RECURSIVE = ("ema_", "dema_", "tema_", "kama_", "plus_di", "minus_di", "di_diff", "adx", "macd")


def _answers(bars: pl.DataFrame) -> dict[str, np.ndarray]:
    """What TA-Lib says of one symbol."""
    x = columns_of(bars)
    high, low, close = x["high"], x["low"], x["close"]
    down, up = talib.AROON(high, low, 25)
    plus, minus = talib.PLUS_DI(high, low, close, 14), talib.MINUS_DI(high, low, close, 14)
    time = np.arange(len(close), dtype=np.float64)
    line, signal, hist = talib.MACD(close, 12, 26, 9)
    return {
        **{f"sma_ratio_{n}": close / talib.SMA(close, n) - 1.0 for n in (5, 10, 20, 50, 100, 200)},
        **{f"ema_ratio_{n}": close / talib.EMA(close, n) - 1.0 for n in (8, 12, 20, 26, 50)},
        **{f"sma_cross_{a}_{b}": talib.SMA(close, a) / talib.SMA(close, b) - 1.0 for a, b in ((20, 50), (50, 200))},
        "macd": line / close,
        "macd_signal": signal / close,
        "macd_hist": hist / close,
        "dema_ratio_20": close / talib.DEMA(close, 20) - 1.0,
        "tema_ratio_20": close / talib.TEMA(close, 20) - 1.0,
        "wma_ratio_20": close / talib.WMA(close, 20) - 1.0,
        "kama_ratio_10": close / talib.KAMA(close, 10) - 1.0,
        "plus_di_14": plus,
        "minus_di_14": minus,
        "di_diff_14": plus - minus,
        "adx_14": talib.ADX(high, low, close, 14),
        "aroon_up_25": up,
        "aroon_down_25": down,
        "aroon_osc_25": talib.AROONOSC(high, low, 25),
        **{f"linreg_slope_{n}": talib.LINEARREG_SLOPE(close, n) / close for n in (20, 63)},
        **{f"linreg_r2_{n}": talib.CORREL(close, time, n) ** 2 for n in (20, 63)},
        **{f"linreg_dist_{n}": close / talib.LINEARREG(close, n) - 1.0 for n in (20, 63)},
        "forecast_osc_20": (close - np.concatenate(([np.nan], talib.TSF(close, 20)[:-1]))) / close,
        **{f"donchian_mid_{n}": close / talib.MIDPRICE(high, low, n) - 1.0 for n in (20, 55)},
    }


def _check(bars: pl.DataFrame, closeness: float) -> None:
    """Equal to a relative 1e-6 or to `closeness` of the indicator's scale, once TA-Lib's seeds are forgotten."""
    answers = _answers(bars)
    values = built(bars, list(answers))
    for name, expected in answers.items():
        atol = closeness * (100.0 if name in PERCENT else 1.0)
        np.testing.assert_allclose(values[name][SETTLED:], expected[SETTLED:], rtol=1e-6, atol=atol, err_msg=name)


@pytest.mark.parametrize("seed", [21, 22])
def test_equal_to_talib_on_random_walks(seed: int) -> None:
    _check(walk(seed), 1e-7)


def test_equal_to_talib_on_real_bars(panel_path: Path) -> None:
    for _, bars in real_bars(panel_path).group_by("symbol", maintain_order=True):
        _check(bars, 1e-7)


def test_equal_to_talib_on_real_bars_with_leaps(panel_path: Path) -> None:
    """What is left out of a truncated average weighs most after a leap: still less than 1e-6 of the scale."""
    for _, bars in real_bars(panel_path, WILD).group_by("symbol", maintain_order=True):
        _check(bars, 1e-6)


def test_shares_of_averages_stay_close_after_leaps(panel_path: Path) -> None:
    """What a window leaves out of both sides of a share shows ten times more in it: to a relative 1e-6 all the same."""
    names = ("plus_di_14", "minus_di_14", "adx_14")
    for _, bars in real_bars(panel_path, WILD).group_by("symbol", maintain_order=True):
        answers, values = _answers(bars), built(bars, list(names))
        for name in names:
            np.testing.assert_allclose(
                values[name][SETTLED:], answers[name][SETTLED:], rtol=1e-6, atol=5e-6, err_msg=name
            )


def test_what_needs_no_seed_agrees_with_talib_from_its_first_row() -> None:
    bars = walk(23, rows=300)
    answers = {name: x for name, x in _answers(bars).items() if not name.startswith(RECURSIVE)}
    values = built(bars, list(answers))
    assert len(answers) > 15
    for name, expected in answers.items():
        atol = 1e-5 if name in PERCENT else 1e-7
        assert leading_nans(values[name]) == leading_nans(expected), name
        np.testing.assert_allclose(values[name], expected, rtol=1e-6, atol=atol, err_msg=name)


def test_recursive_ones_begin_where_talib_begins() -> None:
    """MACD's line, which TA-Lib delays to its signal, and KAMA, whose bars must hold the weight, begin on their own."""
    bars = walk(23, rows=400)
    answers = {name: x for name, x in _answers(bars).items() if name.startswith(RECURSIVE)}
    values = built(bars, list(answers))
    for name in set(answers) - {"macd", "kama_ratio_10"}:
        assert leading_nans(values[name]) == leading_nans(answers[name]), name


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"kama_ratio_10"}))
def test_documented_first_row(name: str) -> None:
    rows = re.search(r"NaN: the first (\d+) rows", FEATURES[name].compute.__doc__ or "")
    assert rows is not None
    assert leading_nans(built(walk(24, rows=260), [name])[name]) == int(rows.group(1))


def test_ichimoku_equals_pandas() -> None:
    bars = walk(25, rows=200)
    x = {name: pd.Series(values) for name, values in columns_of(bars).items()}

    def middle(n: int) -> pd.Series:
        return (x["high"].rolling(n).max() + x["low"].rolling(n).min()) / 2.0

    first, second = ((middle(9) + middle(26)) / 2.0).shift(26), middle(52).shift(26)
    edges = pd.concat([first, second], axis=1)
    expected = {
        "tenkan_dist_9": x["close"] / middle(9) - 1.0,
        "kijun_dist_26": x["close"] / middle(26) - 1.0,
        "tenkan_kijun": middle(9) / middle(26) - 1.0,
        "cloud_top_dist": x["close"] / edges.max(axis=1, skipna=False) - 1.0,
        "cloud_bottom_dist": x["close"] / edges.min(axis=1, skipna=False) - 1.0,
        "cloud_thickness": first / second - 1.0,
    }
    for name, values in built(bars, list(expected)).items():
        np.testing.assert_allclose(values, expected[name].to_numpy(), rtol=1e-6, atol=1e-7, err_msg=name)


def test_the_cloud_over_a_bar_is_26_sessions_old() -> None:
    """Lows at 80 throughout, highs at 120 until bar 100 and at 160 after it: the middles jump from 100 to 120."""
    rows = 160
    high = np.where(np.arange(rows) < 100, 120.0, 160.0)
    bars = bars_of("X", {"close": np.full(rows, 110.0), "high": high, "low": np.full(rows, 80.0)})
    values = built(bars, ["cloud_top_dist", "cloud_bottom_dist", "kijun_dist_26"])
    for name in ("cloud_top_dist", "cloud_bottom_dist"):
        np.testing.assert_allclose(values[name][77:126], 110.0 / 100.0 - 1.0, rtol=1e-6)
        np.testing.assert_allclose(values[name][126:], 110.0 / 120.0 - 1.0, rtol=1e-6)
    np.testing.assert_allclose(values["kijun_dist_26"][100:], 110.0 / 120.0 - 1.0, rtol=1e-6)


@pytest.mark.parametrize("n", [20, 63])
def test_regression_equals_scipy(n: int) -> None:
    bars = walk(26, rows=120)
    close = bars["close"].to_numpy()
    values = built(bars, [f"linreg_slope_{n}", f"linreg_r2_{n}", f"linreg_dist_{n}"])
    for t in (n - 1, 90, 119):
        line = scipy.stats.linregress(np.arange(n), close[t - n + 1 : t + 1])
        end = line.intercept + line.slope * (n - 1)
        assert values[f"linreg_slope_{n}"][t] == pytest.approx(line.slope / close[t], rel=1e-6)
        assert values[f"linreg_r2_{n}"][t] == pytest.approx(line.rvalue**2, rel=1e-6)
        assert values[f"linreg_dist_{n}"][t] == pytest.approx(close[t] / end - 1.0, rel=1e-6, abs=1e-8)


def test_a_straight_line_by_hand() -> None:
    """close = 100 + t: the mean of n bars lies (n - 1) / 2 below the close, every bar is the high, nothing falls."""
    close = 100.0 + np.arange(600.0)
    last = close[-1]
    expected = {
        "sma_ratio_5": last / (last - 2.0) - 1.0,
        "sma_ratio_200": last / (last - 99.5) - 1.0,
        "sma_cross_20_50": (last - 9.5) / (last - 24.5) - 1.0,
        "golden_cross_50_200": 1.0,  # the mean of 50 lies 24.5 below the close, that of 200 lies 99.5 below it
        "ema_ratio_20": last / (last - 9.5) - 1.0,  # the lag of an EMA is (1 - alpha) / alpha = 9.5
        "dema_ratio_20": 0.0,
        "tema_ratio_20": 0.0,
        "wma_ratio_20": last / (last - 19.0 / 3.0) - 1.0,
        "kama_ratio_10": last / (last - 1.25) - 1.0,  # efficiency 1: rate 4/9, lag (5/9) / (4/9)
        "plus_di_14": 100.0,
        "minus_di_14": 0.0,
        "adx_14": 100.0,
        "aroon_up_25": 100.0,
        "aroon_down_25": 0.0,
        "linreg_slope_20": 1.0 / last,
        "linreg_r2_63": 1.0,
        "linreg_dist_20": 0.0,
        "forecast_osc_20": 0.0,
        "donchian_mid_20": last / (last - 9.5) - 1.0,
    }
    values = built(bars_of("X", {"close": close}), list(expected))
    for name, value in expected.items():
        assert values[name][-1] == pytest.approx(value, rel=1e-6, abs=2e-6), name


def test_a_price_that_does_not_move() -> None:
    """After 500 bars at 0.1 every ratio is 0, there is no direction, the extremes are now, and no line to explain."""
    values = built(bars_of("X", {"close": np.full(500, 0.1)}), NAMES)
    odd = {"aroon_up_25": 100.0, "aroon_down_25": 100.0, "linreg_r2_20": np.nan, "linreg_r2_63": np.nan}
    for name in NAMES:
        assert values[name][-1] == pytest.approx(odd.get(name, 0.0), abs=1e-7, nan_ok=True), name


def test_directional_movement_by_hand() -> None:
    """An outside bar counts for the side that went further, an inside bar for none; the average then remembers."""
    rows, decay = 40, 13.0 / 14.0
    high, low = np.full(rows, 110.0), np.full(rows, 90.0)
    high[20], low[20] = 115.0, 88.0  # 5 up against 2 down
    high[21], low[21] = 112.0, 89.0  # inside
    bars = bars_of("X", {"close": np.full(rows, 100.0), "high": high, "low": low})
    values = built(bars, ["plus_di_14", "minus_di_14", "adx_14"])
    ranges = [23.0, 27.0] + [20.0] * 19  # the true ranges of t = 21, 20, 19 .. 1; the first bar has none
    total = sum(decay**k * x for k, x in enumerate(ranges))
    assert values["plus_di_14"][21] == pytest.approx(100.0 * 5.0 * decay / total, rel=1e-6)
    assert (values["minus_di_14"][14:] == 0.0).all()
    # The index of a bar is 0 on the six bars from its first (14) to 19, 100 on the eight from 20 to 27.
    share = sum(decay**k for k in range(8)) / sum(decay**k for k in range(14))
    assert values["adx_14"][27] == pytest.approx(100.0 * share, rel=1e-6)


def test_kama_is_not_known_where_the_price_goes_nowhere() -> None:
    """To and fro, the efficiency is 0 and the rate (2/31)^2: 384 bars leave a weight of 0.2 to older ones."""
    close = np.concatenate((walk(27, rows=300)["close"].to_numpy(), np.tile([100.0, 101.0], 250)))
    values = built(bars_of("X", {"close": close}), ["kama_ratio_10"])["kama_ratio_10"]
    assert not np.isnan(values[250:300]).any()
    assert np.isnan(values[-50:]).all()


def test_kama_is_known_on_real_bars(panel_path: Path) -> None:
    for _, bars in real_bars(panel_path).group_by("symbol", maintain_order=True):
        assert not np.isnan(built(bars, ["kama_ratio_10"])["kama_ratio_10"][FEATURES["kama_ratio_10"].lookback :]).any()


def test_a_line_knows_only_its_window() -> None:
    """The same bits wherever the array begins, NaN while a bar is missing, no slope at all through equal values."""
    x = walk(30, rows=120)["close"].to_numpy()[None, :].copy()
    whole, cut = rolling_trend(x, 21), rolling_trend(x[:, 70:].copy(), 21)
    for all_bars, few in zip(whole, cut, strict=True):
        assert all_bars[:, 90:].tobytes() == few[:, 20:].tobytes()
    x[0, 60] = np.nan
    for part in rolling_trend(x, 21):
        assert np.flatnonzero(np.isnan(part[0])).tolist() == [*range(20), *range(60, 81)]
    slope, line, _ = rolling_trend(np.full((1, 40), 0.1), 21)
    assert (slope[0, 20:] == 0.0).all()
    assert (line[0, 20:] == 0.1).all()


def test_adaptive_mean_is_the_recursion() -> None:
    r = np.random.default_rng(28)
    x, rate = r.normal(100.0, 5.0, (2, 90)), r.uniform(0.3, 0.9, (2, 90))
    x[1, 40] = np.nan
    got = adaptive_mean(x, rate, 60)
    for s in range(2):
        y = x[s, 0]
        for t in range(1, 90):
            if np.isnan(x[s, t]):
                assert np.isnan(got[s, t])
                continue
            y += rate[s, t] * (x[s, t] - y)
            if t >= 60:
                assert got[s, t] == pytest.approx(y, rel=1e-9)


def test_adaptive_mean_forgets_and_says_when_it_cannot() -> None:
    """The value at t has the same bits whatever lies before the window; a rate of 1/2 needs 20 bars to reach 1e-6."""
    r = np.random.default_rng(29)
    x, rate = r.normal(100.0, 5.0, (1, 80)), r.uniform(0.2, 0.9, (1, 80))
    other = x.copy()
    other[:, :20] = r.normal(5.0, 1.0, (1, 20))
    assert adaptive_mean(x, rate, 60)[0, 79].tobytes() == adaptive_mean(other, rate, 60)[0, 79].tobytes()
    assert adaptive_mean(x[:, 20:], rate[:, 20:], 60)[0, -1].tobytes() == adaptive_mean(x, rate, 60)[0, -1].tobytes()
    assert leading_nans(adaptive_mean(x, np.full((1, 80), 0.5), 60)[0]) == 19  # 2^-20 < 1e-6
    assert np.isnan(adaptive_mean(x, np.full((1, 80), 0.5), 19)).all()


def test_the_state_after_a_golden_and_a_death_cross() -> None:
    """300 bars at 100, then 60 at 110, then 120 at 90: the mean of 50 sees each step first."""
    close = np.repeat([100.0, 110.0, 90.0], [300, 60, 120])
    state = built(bars_of("X", {"close": close}), ["golden_cross_50_200"])["golden_cross_50_200"]
    assert np.isnan(state[:199]).all()
    assert (state[199:300] == 0.0).all()  # equal means are no cross
    assert (state[300:360] == 1.0).all()
    # k bars after the fall the 50 hold k of 90 and 50 - k of 110, the 200 hold k of 90, 60 of 110 and the rest of 100:
    # 110 - 20 k / 50 > 100 + (600 - 10 k) / 200 as long as 7 > 0.35 k, k < 20.
    assert (state[360:379] == 1.0).all()
    assert (state[379:] == 0.0).all()
