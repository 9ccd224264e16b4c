"""Volume: TA-Lib, pandas and hand-made bars as the answer sheets."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import talib

from trading_core.features import kernels
from trading_core.features.build import build
from trading_core.features.registry import FEATURES

SYMBOLS = ("AAPL", "AMD", "CAT", "DIS", "GE", "JPM", "KO", "MMM", "NVDA", "T", "WMT", "XOM")
SETTLED = 300  # rows after which TA-Lib's recursive indicators have forgotten their seeds
COLUMNS = ("open", "high", "low", "close", "volume")
NAMES = sorted(name for name, f in FEATURES.items() if f.family == "volume")
SPAN = (date(2010, 1, 1), date(2030, 1, 1))


def _frame(symbol: str, columns: dict[str, np.ndarray]) -> pl.DataFrame:
    stamps = [datetime(2010, 1, 4, 21) + timedelta(days=i) for i in range(len(columns["volume"]))]
    frame = pl.DataFrame({"symbol": [symbol] * len(stamps), "ts": stamps, **columns})
    return frame.with_columns(pl.col("ts").dt.replace_time_zone("UTC"), session=pl.col("ts").dt.date())


def _walk(seed: int, rows: int = 800) -> pl.DataFrame:
    r = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(r.normal(0.0003, 0.015, rows)))
    opening = np.concatenate(([100.0], close[:-1])) * np.exp(r.normal(0.0, 0.004, rows))
    high = np.maximum(opening, close) * np.exp(np.abs(r.normal(0.0, 0.004, rows)))
    low = np.minimum(opening, close) * np.exp(-np.abs(r.normal(0.0, 0.004, rows)))
    volume = np.round(np.exp(r.normal(12.0, 0.4, rows)))
    return _frame(f"W{seed}", dict(zip(COLUMNS, (opening, high, low, close, volume), strict=True)))


def _real(path: Path) -> pl.DataFrame:
    rows = pl.read_parquet(path).filter(pl.col("symbol").is_in(SYMBOLS)).drop_nulls().sort("symbol", "date")
    parts = rows.partition_by("symbol", as_dict=True)
    return pl.concat(
        _frame(str(key[0]), {c: part[c].cast(pl.Float64).to_numpy() for c in COLUMNS}) for key, part in parts.items()
    )


@pytest.fixture(scope="module", params=["walks", "panel"])
def bars(request: pytest.FixtureRequest) -> pl.DataFrame:
    if request.param == "panel":
        return _real(request.getfixturevalue("panel_path"))
    return pl.concat([_walk(1), _walk(2)])


@pytest.fixture(scope="module")
def built(bars: pl.DataFrame) -> pl.DataFrame:
    return build(bars, NAMES, *SPAN)


def _each(bars: pl.DataFrame, built: pl.DataFrame):
    for (symbol,), part in bars.sort("symbol", "ts").group_by("symbol", maintain_order=True):
        yield part.to_pandas(), built.filter(pl.col("symbol") == symbol)


def _same(ours: pl.DataFrame, answers: dict[str, np.ndarray], start: int, **tolerance: float) -> None:
    for name, expected in answers.items():
        got = ours[name].to_numpy()[start:]
        np.testing.assert_allclose(got, np.asarray(expected)[start:], err_msg=name, **tolerance)


def _behind(indicator, *series: np.ndarray, window: int) -> np.ndarray:
    """A TA-Lib indicator of series whose first value is missing."""
    return np.concatenate(([np.nan], indicator(*(x[1:] for x in series), window)))


def test_equal_to_talib(bars: pl.DataFrame, built: pl.DataFrame) -> None:
    for frame, ours in _each(bars, built):
        high, low, close, volume = (frame[c].to_numpy() for c in ("high", "low", "close", "volume"))
        mean = talib.SMA(volume, 20)
        line, balance = talib.AD(high, low, close, volume), talib.OBV(close, volume)
        moves, growth = np.diff(np.log(close), prepend=np.nan), np.diff(np.log(volume), prepend=np.nan)
        force = np.diff(close, prepend=np.nan) * volume
        typical = talib.TYPPRICE(high, low, close)
        answers = {
            "obv_change_20": (balance - np.roll(balance, 20)) / mean,
            "obv_slope_20": talib.LINEARREG_SLOPE(balance, 20) / mean,
            "ad_change_5": (line - np.roll(line, 5)) / mean,
            "cmf_20": (line - np.roll(line, 20)) / talib.SUM(volume, 20),
            "chaikin_osc": talib.ADOSC(high, low, close, volume, 3, 10) / mean,
            "force_index_13": _behind(talib.EMA, force, window=13) / _behind(talib.EMA, np.abs(force), window=13),
            "vwap_dist_20": close / (talib.SUM(typical * volume, 20) / talib.SUM(volume, 20)) - 1.0,
            "return_volume_corr_20": _behind(talib.CORREL, moves, growth, window=20),
            "move_volume_corr_20": _behind(talib.CORREL, np.abs(moves), np.log(volume), window=20),
            "volume_ratio_1_20": volume / np.roll(mean, 1),
            "volume_variation_20": talib.STDDEV(volume, 20) * np.sqrt(20 / 19) / mean,
        }
        _same(ours, answers, SETTLED, rtol=1e-6, atol=3e-7)


def _by_pandas(frame: pd.DataFrame) -> dict[str, pd.Series]:
    high, low, close, volume = (frame[c] for c in ("high", "low", "close", "volume"))
    level, money, moved = np.log(volume), close * volume, close.diff()
    before = {n: level.shift().rolling(n) for n in (5, 20, 63)}
    flow = (((close - low) - (high - close)) / (high - low)).fillna(0.0) * volume
    mean = volume.rolling(20).mean()
    rising, falling = (volume.where(side, 0.0).where(moved.notna()) for side in (moved > 0, moved < 0))
    slope = (np.sign(moved).fillna(0.0) * volume).cumsum().rolling(20).apply(lambda y: np.polyfit(range(20), y, 1)[0])
    return {
        **{f"volume_z_{n}": (level - window.mean()) / window.std() for n, window in before.items()},
        "volume_trend_20": np.log(volume.rolling(5).mean() / mean),
        "volume_ratio_1_20": volume / mean.shift(),
        "volume_variation_20": volume.rolling(20).std() / mean,
        "turnover_1_252": money / money.rolling(252).mean(),
        "turnover_20_252": money.rolling(20).mean() / money.rolling(252).mean(),
        "return_volume_corr_20": np.log(close).diff().rolling(20).corr(level.diff()),
        "move_volume_corr_20": np.log(close).diff().abs().rolling(20).corr(level),
        "pvt_change_20": (close.pct_change() * volume).rolling(20).sum() / mean,
        "up_volume_share_20": rising.rolling(20).sum() / (rising + falling).rolling(20).sum(),
        "ad_change_5": flow.rolling(5).sum() / mean,
        "cmf_20": flow.rolling(20).sum() / volume.rolling(20).sum(),
        "obv_slope_20": slope / mean,
    }


def test_equal_to_pandas_from_the_first_row(bars: pl.DataFrame, built: pl.DataFrame) -> None:
    for frame, ours in _each(bars, built):
        answers = {name: values.to_numpy() for name, values in _by_pandas(frame).items()}
        _same(ours, answers, 0, rtol=2e-6, atol=3e-7)


def test_ease_of_movement_by_its_parts(bars: pl.DataFrame, built: pl.DataFrame) -> None:
    for frame, ours in _each(bars, built):
        high, low, volume = frame["high"], frame["low"], frame["volume"]
        ease = (((high + low) / 2).diff() * (high - low) / volume).rolling(14).mean() * volume.rolling(20).mean()
        atr = talib.ATR(high.to_numpy(), low.to_numpy(), frame["close"].to_numpy(), 14)
        _same(ours, {"ease_of_movement_14": ease.to_numpy() / atr**2}, SETTLED, rtol=2e-6, atol=1e-7)


# --- bars whose answer is plain ----------------------------------------------------------------------------------------


def _bars(close: list[float], volume: list[float], half_range: float = 1.0) -> pl.DataFrame:
    """Bars that close in the middle of their range and open there too."""
    middle = np.array(close, dtype=np.float64)
    columns = {"open": middle, "high": middle + half_range, "low": middle - half_range, "close": middle}
    return _frame("H", {**columns, "volume": np.array(volume, dtype=np.float64)})


def _last(frame: pl.DataFrame, name: str) -> float:
    return float(build(frame, [name], *SPAN)[name][-1])


def test_every_session_up_at_equal_volume() -> None:
    """20 rises of 1 at volume 500: all of it is bought, the balance rises by one mean volume a session."""
    frame = _bars([100.0 + i for i in range(21)], [500.0] * 21)
    assert _last(frame, "obv_change_20") == pytest.approx(20.0)
    assert _last(frame, "obv_slope_20") == pytest.approx(1.0)
    assert _last(frame, "up_volume_share_20") == 1.0
    assert _last(frame, "force_index_13") == pytest.approx(1.0)
    assert _last(frame, "cmf_20") == 0.0  # closes in the middle
    assert _last(frame, "pvt_change_20") == pytest.approx(sum(1.0 / (100 + i) for i in range(20)))
    assert _last(frame, "volume_variation_20") == 0.0


def test_closes_at_the_high() -> None:
    frame = _bars([50.0] * 25, [10.0] * 25).with_columns(close=pl.col("high"))
    assert _last(frame, "cmf_20") == 1.0
    assert _last(frame, "ad_change_5") == pytest.approx(5.0)
    assert _last(frame, "chaikin_osc") > 3.0  # 25 bars of AD rising by 1: both averages lag, the slow one more


def test_constant_flow_settles_at_the_difference_of_the_lags() -> None:
    """An EMA of span n lags a straight line by (n - 1) / 2 bars: 4.5 - 1 steps of one mean volume each."""
    frame = _bars([50.0] * 200, [10.0] * 200).with_columns(close=pl.col("high"))
    assert _last(frame, "chaikin_osc") == pytest.approx(3.5, rel=1e-6)


def test_price_of_the_volume() -> None:
    """19 sessions at 100 with volume 1 and one at 120 with volume 21: paid 4420 / 40 on average."""
    frame = _bars([100.0] * 19 + [120.0], [1.0] * 19 + [21.0])
    assert _last(frame, "vwap_dist_20") == pytest.approx(120.0 * 40.0 / (1900.0 + 2520.0) - 1.0)


def test_flat_and_halted_shares() -> None:
    """Flat closes: neither up nor down; no volume: not defined."""
    flat = _bars([10.0] * 30, [5.0] * 30)
    assert _last(flat, "up_volume_share_20") == 0.5
    assert _last(flat, "force_index_13") == 0.0
    assert _last(flat, "obv_change_20") == 0.0
    halted = _bars([10.0] * 30, [0.0] * 30)
    for name in ("obv_change_20", "cmf_20", "vwap_dist_20", "volume_variation_20", "volume_z_20", "chaikin_osc"):
        assert np.isnan(_last(halted, name)), name
    assert _last(halted, "ease_of_movement_14") == 0.0


def test_slope_of_a_sum_equals_least_squares() -> None:
    r = np.random.default_rng(6)
    steps = r.normal(0.0, 1.0, (2, 120))
    for window in (2, 3, 20, 63):
        got = kernels.slope_of_sum(steps, window)
        assert np.isnan(got[:, : window - 1]).all()
        for s, t in ((0, window - 1), (0, 100), (1, 119)):
            line = 1000.0 + np.cumsum(steps[s])
            assert got[s, t] == pytest.approx(np.polyfit(range(window), line[t - window + 1 : t + 1], 1)[0], abs=1e-10)
