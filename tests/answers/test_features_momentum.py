"""The family `momentum` against TA-Lib, pandas and arrays computed by hand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import talib
from indicator_samples import SETTLED, WILD, bars_of, built, columns_of, leading_nans, real_bars, walk

from trading_core.features.registry import FEATURES

NAMES = sorted(name for name, feature in FEATURES.items() if feature.family == "momentum")
PERCENT = ("rsi_", "stoch", "cci_", "mfi_", "ultosc_", "tsi_")  # scales of 100
RECURSIVE = ("rsi_", "ppo_", "stochrsi_", "trix_", "bull_", "bear_", "tsi_")


def _answers(bars: pl.DataFrame) -> dict[str, np.ndarray]:
    """What TA-Lib says of one symbol."""
    x = columns_of(bars)
    high, low, close = x["high"], x["low"], x["close"]
    slow_k, slow_d = talib.STOCH(high, low, close, 14, 3, 0, 3, 0)
    return {
        **{f"rsi_{n}": talib.RSI(close, n) for n in (2, 7, 14, 28)},
        **{f"roc_{n}": talib.ROCP(close, n) for n in (10, 20, 126, 252)},
        "stoch_k_14": talib.STOCHF(high, low, close, 14, 1)[0],
        "stoch_slow_k_14": slow_k,
        "stoch_slow_d_14": slow_d,
        "stochrsi_14": talib.STOCHRSI(close, 14, 14, 3)[0],
        "cci_20": talib.CCI(high, low, close, 20),
        "mfi_14": talib.MFI(high, low, close, x["volume"], 14),
        "trix_15": talib.TRIX(close, 15) / 100.0,
        "ultosc_7_14_28": talib.ULTOSC(high, low, close, 7, 14, 28),
        "ppo_12_26": talib.PPO(close, 12, 26) / 100.0,
        "bop": talib.BOP(x["open"], high, low, close),
        "bull_power_13": (high - talib.EMA(close, 13)) / close,
        "bear_power_13": (low - talib.EMA(close, 13)) / close,
    }


def _atol(name: str) -> float:
    return 1e-5 if name.startswith(PERCENT) else 1e-7


def _check(bars: pl.DataFrame, closeness: float) -> None:
    """Equal to a relative 1e-6 or to `closeness` of the indicator's scale, once TA-Lib's seeds are forgotten."""
    answers = _answers(bars)
    values = built(bars, list(answers))
    for name, expected in answers.items():
        atol = closeness * (100.0 if name.startswith(PERCENT) else 1.0)
        np.testing.assert_allclose(values[name][SETTLED:], expected[SETTLED:], rtol=1e-6, atol=atol, err_msg=name)


@pytest.mark.parametrize("seed", [31, 32])
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
    names = ("rsi_2", "rsi_7", "rsi_14", "rsi_28")
    for _, bars in real_bars(panel_path, WILD).group_by("symbol", maintain_order=True):
        answers, values = _answers(bars), built(bars, list(names))
        for name in names:
            np.testing.assert_allclose(
                values[name][SETTLED:], answers[name][SETTLED:], rtol=1e-6, atol=5e-6, err_msg=name
            )


def test_what_needs_no_seed_agrees_with_talib_from_its_first_row() -> None:
    bars = walk(33, rows=300)
    answers = {name: x for name, x in _answers(bars).items() if not name.startswith(RECURSIVE)}
    values = built(bars, list(answers))
    # TA-Lib shows slow K only where slow D begins.
    for name in set(answers) - {"stoch_slow_k_14"}:
        assert leading_nans(values[name]) == leading_nans(answers[name]), name
        np.testing.assert_allclose(values[name], answers[name], rtol=1e-6, atol=_atol(name), err_msg=name)
    assert leading_nans(values["stoch_slow_k_14"]) == leading_nans(answers["stoch_slow_k_14"]) - 2


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"bop"}))
def test_documented_first_row(name: str) -> None:
    rows = re.search(r"NaN: the first (\d+) rows", FEATURES[name].compute.__doc__ or "")
    assert rows is not None
    assert leading_nans(built(walk(34, rows=300), [name])[name]) == int(rows.group(1))


def test_what_talib_calls_otherwise_is_left_out() -> None:
    """Chande's oscillator in TA-Lib is a line through RSI, Williams' %R one through %K, APO over the close is MACD."""
    bars = walk(35)
    x = columns_of(bars)
    values = built(bars, ["rsi_14", "stoch_k_14", "macd"])
    chande = talib.CMO(x["close"], 14)
    oscillator = talib.APO(x["close"], 12, 26) / x["close"]
    williams = talib.WILLR(x["high"], x["low"], x["close"], 14)
    np.testing.assert_allclose(2.0 * values["rsi_14"][300:] - 100.0, chande[300:], rtol=1e-6, atol=2e-5)
    np.testing.assert_allclose(values["stoch_k_14"][13:] - 100.0, williams[13:], rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(values["macd"][300:], oscillator[300:], rtol=1e-6, atol=1e-7)


def test_equal_to_pandas() -> None:
    bars = walk(36)
    x = {name: pd.Series(values) for name, values in columns_of(bars).items()}
    close, move = x["close"], x["close"].diff()

    def twice(series: pd.Series) -> pd.Series:
        return series.ewm(span=25, adjust=False).mean().ewm(span=13, adjust=False).mean()

    middle = (x["high"] + x["low"]) / 2.0
    expected = {
        "tsi_25_13": 100.0 * twice(move) / twice(move.abs()),
        "awesome_osc": (middle.rolling(5).mean() - middle.rolling(34).mean()) / close,
        **{f"mom_{n}_21": close.shift(21) / close.shift(n) - 1.0 for n in (63, 126, 252)},
    }
    for name, values in built(bars, list(expected)).items():
        np.testing.assert_allclose(
            values[SETTLED:], expected[name].to_numpy()[SETTLED:], rtol=1e-6, atol=_atol(name), err_msg=name
        )


def test_a_price_that_does_not_move() -> None:
    """After 500 bars at 0.1 what compares rises and falls, or places the price in a range, is in the middle."""
    values = built(bars_of("X", {"close": np.full(500, 0.1)}), NAMES)
    middle = {name: 50.0 for name in NAMES if name.startswith(("rsi_", "stoch", "mfi_"))}
    assert len(middle) == 9
    for name in NAMES:
        assert values[name][-1] == pytest.approx(middle.get(name, 0.0), abs=1e-7), name


def test_a_price_that_only_rises_by_hand() -> None:
    """close = low + 1 = open + 1 = high, up by 1 each bar: the open is the last close, and every bar closes at its high."""
    close = 100.0 + np.arange(600.0)
    bars = bars_of("X", {"open": close - 1.0, "high": close, "low": close - 1.0, "close": close})
    last = close[-1]
    expected = {
        "rsi_2": 100.0,
        "rsi_28": 100.0,
        "stoch_k_14": 100.0,
        "stoch_slow_d_14": 100.0,
        "mfi_14": 100.0,
        "ultosc_7_14_28": 100.0,
        "tsi_25_13": 100.0,
        "bop": 1.0,
        # The last of 20 values a step apart is 9.5 steps from their mean, their mean distance is 5 steps.
        "cci_20": 9.5 / (0.015 * 5.0),
        "roc_10": last / (last - 10.0) - 1.0,
        "mom_126_21": (last - 21.0) / (last - 126.0) - 1.0,
        "ppo_12_26": (last - 5.5) / (last - 12.5) - 1.0,  # EMAs of 12 and 26 lag by 5.5 and 12.5
        "awesome_osc": 14.5 / last,  # the means of 5 and 34 lag by 2 and 16.5
        "bull_power_13": 6.0 / last,  # an EMA of 13 lags by 6
        "bear_power_13": 5.0 / last,
        "trix_15": 1.0 / (last - 1.0 - 21.0),  # three EMAs of 15 lag by 7 each
    }
    values = built(bars, list(expected))
    for name, value in expected.items():
        assert values[name][-1] == pytest.approx(value, rel=2e-6), name


def test_strength_by_hand() -> None:
    """RSI(2), decay 1/2: rises 4, 0, 2 and falls 0, 3, 0 give G = (2 + 0 + 1) / 1.75 and L = 1.5 / 1.75."""
    close = np.array([10.0, 14.0, 11.0, 13.0])
    values = built(bars_of("X", {"close": close}), ["rsi_2"])["rsi_2"]
    assert values[3] == pytest.approx(100.0 * 3.0 / 4.5, rel=1e-6)
    # One bar earlier: G = (0 + 4/2) / 1.5, L = 3 / 1.5.
    assert values[2] == pytest.approx(100.0 * 2.0 / 5.0, rel=1e-6)


def test_money_flow_by_hand() -> None:
    """Prices 10, 11, 11, 9 and then the same twelve times: 11 x 200 came in, 9 x 400 went out, the equal bar is neither."""
    close = np.concatenate(([10.0, 11.0, 11.0, 9.0], np.full(11, 9.0)))
    volume = np.concatenate(([100.0, 200.0, 300.0, 400.0], np.full(11, 500.0)))
    values = built(bars_of("X", {"close": close, "volume": volume}), ["mfi_14"])["mfi_14"]
    assert values[14] == pytest.approx(100.0 * 2200.0 / (2200.0 + 3600.0), rel=1e-6)


def test_the_same_typical_price_is_no_flow() -> None:
    """Altria, 2016: two bars whose prices add up to 198.84, in doubles 198.84 and 198.83999999999997."""
    rows = 30
    high, low, close = np.full(rows, 66.0), np.full(rows, 66.0), np.full(rows, 66.0)
    high[20], low[20], close[20] = 66.60, 66.09, 66.15
    high[21], low[21], close[21] = 66.57, 65.96, 66.31
    values = built(bars_of("X", {"high": high, "low": low, "close": close}), ["mfi_14"])["mfi_14"]
    assert values[21] == 100.0  # 66 -> 66.28 is the only move


@pytest.mark.parametrize(("last", "place"), [(500.0, 100.0), (1.0, 0.0)])
def test_stochastic_of_strength_by_hand(last: float, place: float) -> None:
    """A leap puts the strength at the top of its 14 sessions, a crash at the bottom."""
    close = np.append(walk(37, rows=60)["close"].to_numpy(), last)
    assert built(bars_of("X", {"close": close}), ["stochrsi_14"])["stochrsi_14"][-1] == place
