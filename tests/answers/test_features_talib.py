"""TA-Lib's indicators as the answer sheet, on random walks with ordinary ranges and volumes."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
import talib

from trading_core.features.build import build

ROWS = 700
SETTLED = 300  # rows after which TA-Lib's recursive indicators have forgotten their seed to 1e-7


@pytest.fixture(scope="module", params=[11, 12])
def bars(request: pytest.FixtureRequest) -> pl.DataFrame:
    r = np.random.default_rng(request.param)
    close = 100.0 * np.exp(np.cumsum(r.normal(0.0003, 0.015, ROWS)))
    opening = np.concatenate(([100.0], close[:-1])) * np.exp(r.normal(0.0, 0.004, ROWS))
    stamps = [datetime(2015, 1, 1, 21) + timedelta(days=i) for i in range(ROWS)]
    return pl.DataFrame(
        {
            "symbol": ["X"] * ROWS,
            "ts": pl.Series(stamps).dt.replace_time_zone("UTC"),
            "open": opening,
            "high": np.maximum(opening, close) * np.exp(np.abs(r.normal(0.0, 0.004, ROWS))),
            "low": np.minimum(opening, close) * np.exp(-np.abs(r.normal(0.0, 0.004, ROWS))),
            "close": close,
            "volume": np.round(np.exp(r.normal(12.0, 0.4, ROWS))),
        }
    ).with_columns(session=pl.col("ts").dt.date())


def _answers(bars: pl.DataFrame) -> dict[str, np.ndarray]:
    high, low, close, volume = (bars[c].to_numpy() for c in ("high", "low", "close", "volume"))
    line, signal, hist = talib.MACD(close, 12, 26, 9)
    upper, middle, _ = talib.BBANDS(close, 20, 2.0, 2.0)
    obv = talib.OBV(close, volume)
    returns = np.log(close) - np.log(np.roll(close, 1))
    returns[0] = np.nan
    return {
        "rsi_14": talib.RSI(close, 14),
        "macd": line / close,
        "macd_signal": signal / close,
        "macd_hist": hist / close,
        "atr_14": talib.ATR(high, low, close, 14) / close,
        "stoch_k_14": talib.STOCHF(high, low, close, 14, 1)[0],
        "bollinger_position_20": (close - middle) / (upper - middle),
        "sma_ratio_20": close / talib.SMA(close, 20) - 1.0,
        "sma_ratio_50": close / talib.SMA(close, 50) - 1.0,
        "high_dist_63": close / talib.MAX(high, 63) - 1.0,
        "low_dist_63": close / talib.MIN(low, 63) - 1.0,
        "obv_change_20": (obv - np.roll(obv, 20)) / talib.SMA(volume, 20),
        # TA-Lib's deviation divides by n and is not defined behind a NaN.
        "vol_20": np.concatenate(([np.nan], talib.STDDEV(returns[1:], 20))) * np.sqrt(20 / 19),
        **{f"ret_{n}": talib.ROCP(close, n) for n in (1, 3, 7, 14, 21, 63)},
    }


def test_equal_to_talib(bars: pl.DataFrame) -> None:
    answers = _answers(bars)
    built = build(bars, list(answers), bars["session"][0], bars["session"][-1])
    for name, expected in answers.items():
        np.testing.assert_allclose(
            built[name].to_numpy()[SETTLED:], expected[SETTLED:], rtol=1e-6, atol=3e-8, err_msg=name
        )


def test_windowed_ones_agree_from_the_first_row(bars: pl.DataFrame) -> None:
    """What needs no seed is there on the same row as in TA-Lib, with the same value."""
    recursive = {"rsi_14", "macd", "macd_signal", "macd_hist", "atr_14", "obv_change_20"}
    answers = {name: values for name, values in _answers(bars).items() if name not in recursive}
    built = build(bars, list(answers), bars["session"][0], bars["session"][-1])
    for name, expected in answers.items():
        np.testing.assert_allclose(built[name].to_numpy(), expected, rtol=1e-5, atol=1e-6, err_msg=name)


def test_recursive_ones_begin_where_talib_begins(bars: pl.DataFrame) -> None:
    """RSI and ATR appear on TA-Lib's first row; MACD, which TA-Lib delays to its signal's first row, on row 25."""
    answers = _answers(bars)
    built = build(bars, list(answers), bars["session"][0], bars["session"][-1])
    first = {name: int(np.flatnonzero(~np.isnan(built[name].to_numpy()))[0]) for name in answers}
    for name in ("rsi_14", "atr_14", "macd_signal", "macd_hist"):
        assert first[name] == int(np.flatnonzero(~np.isnan(answers[name]))[0]), name
    assert first["macd"] == 25


def test_williams_r_is_stochastic_k_minus_100(bars: pl.DataFrame) -> None:
    high, low, close = (bars[c].to_numpy() for c in ("high", "low", "close"))
    built = build(bars, ["stoch_k_14"], bars["session"][0], bars["session"][-1])["stoch_k_14"].to_numpy()
    np.testing.assert_allclose(built - 100.0, talib.WILLR(high, low, close, 14), rtol=1e-5, atol=1e-5)
