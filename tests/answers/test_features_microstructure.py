"""Microstructure: pandas, arch, scipy, simulated trading of known spread and hand-made bars as the answer sheets."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.stats
from arch.unitroot import VarianceRatio

from trading_core.features import kernels
from trading_core.features.build import build
from trading_core.features.registry import FEATURES

SYMBOLS = ("AAPL", "AMD", "CAT", "DIS", "GE", "JPM", "KO", "MMM", "NVDA", "T", "WMT", "XOM")
COLUMNS = ("open", "high", "low", "close", "volume")
NAMES = sorted(name for name, f in FEATURES.items() if f.family == "microstructure")
SPAN = (date(2010, 1, 1), date(2040, 1, 1))


def _frame(symbol: str, columns: dict[str, np.ndarray]) -> pl.DataFrame:
    stamps = [datetime(2010, 1, 4, 21) + timedelta(days=i) for i in range(len(columns["close"]))]
    frame = pl.DataFrame({"symbol": [symbol] * len(stamps), "ts": stamps, **columns})
    return frame.with_columns(pl.col("ts").dt.replace_time_zone("UTC"), session=pl.col("ts").dt.date())


def _walk(seed: int, rows: int = 700) -> pl.DataFrame:
    r = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(r.normal(0.0003, 0.015, rows)))
    opening = np.concatenate(([100.0], close[:-1])) * np.exp(r.normal(0.0, 0.008, rows))
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


def _spreads(frame: pd.DataFrame) -> dict[str, pd.Series]:
    """Roll, Corwin and Schultz, Abdi and Ranaldo, written as in their papers."""
    moves = np.log(frame["close"]).diff()
    bounce = moves.rolling(20).cov(moves.shift()).clip(upper=0.0)
    last = frame["close"].shift()
    up, down = (last - frame["high"]).clip(lower=0.0), (frame["low"] - last).clip(lower=0.0)
    high, low = frame["high"] + up - down, frame["low"] + up - down
    beta = np.log(frame["high"] / frame["low"]).shift() ** 2 + np.log(high / low) ** 2
    both_high = np.maximum(high, frame["high"].shift())  # NaN in the first row
    gamma = np.log(both_high / np.minimum(low, frame["low"].shift())) ** 2
    k = 3.0 - 2.0 * np.sqrt(2.0)
    alpha = (np.sqrt(2.0 * beta) - np.sqrt(beta)) / k - np.sqrt(gamma / k)
    spread = 2.0 * (np.exp(alpha) - 1.0) / (1.0 + np.exp(alpha))
    middle, end = (np.log(frame["high"]) + np.log(frame["low"])) / 2.0, np.log(frame["close"])
    two_day = 4.0 * (end - middle).shift() * (end.shift() - middle)
    return {
        "roll_spread_20": 2.0 * np.sqrt(-bounce),
        "corwin_schultz_20": spread.where(spread.isna(), spread.clip(lower=0.0)).rolling(20).mean(),
        "abdi_ranaldo_20": np.sqrt(two_day.clip(lower=0.0)).rolling(20).mean(),
    }


def _others(frame: pd.DataFrame) -> dict[str, pd.Series]:
    close, opening, volume = frame["close"], frame["open"], frame["volume"]
    moves, money = np.log(close).diff(), close * volume
    night, day = np.log(opening / close.shift()), np.log(close / opening)
    price_of_volume = moves.abs() / money
    flow = np.sign(moves) * np.sqrt(money)
    deviation = moves.rolling(20).std()
    width = frame["high"] - frame["low"]
    imbalance = (2.0 * pd.Series(scipy.stats.norm.cdf(moves / deviation)) - 1.0).abs()
    return {
        "amihud_20": price_of_volume.rolling(20).mean() / price_of_volume.rolling(252).mean(),
        "kyle_lambda_20": flow.rolling(20).cov(moves) / flow.rolling(20).var() * flow.abs().rolling(20).mean(),
        "vpin_20": (volume * imbalance).rolling(20).sum() / volume.rolling(20).sum(),
        "overnight_minus_intraday_20": (night - day).rolling(20).mean(),
        "intraday_momentum_share_20": day.where(night.notna()).rolling(20).sum()
        / (night.abs() + day.abs()).rolling(20).sum(),
        "night_day_corr_20": night.rolling(20).corr(day),
        "close_location_20": ((close - frame["low"]) / width).where(width > 0.0, 0.5).rolling(20).mean(),
        "body_range_ratio_20": (close - opening).abs().rolling(20).sum() / width.rolling(20).sum(),
        "quiet_share_20": (moves.abs() <= 0.1 * deviation).where(deviation.notna()).astype(float).rolling(20).mean(),
    }


def test_equal_to_pandas_from_the_first_row(bars: pl.DataFrame, built: pl.DataFrame) -> None:
    """Roll's root magnifies the rounding of a covariance near 0, hence its tolerance of 1e-8."""
    for frame, ours in _each(bars, built):
        for name, expected in (_spreads(frame) | _others(frame)).items():
            got, wanted = ours[name].to_numpy(), expected.to_numpy()
            if name == "intraday_momentum_share_20":  # the first day's own return needs no night, ours waits for both
                got, wanted = got[20:], wanted[20:]
            np.testing.assert_allclose(got, wanted, rtol=3e-6, atol=3e-7, err_msg=name)


def test_variance_ratio_equals_arch(bars: pl.DataFrame, built: pl.DataFrame) -> None:
    """arch takes log prices, here the 64 of each window."""
    for frame, ours in _each(bars, built):
        price = np.log(frame["close"].to_numpy())
        for t in (63, 200, 450, len(price) - 1):
            answer = VarianceRatio(price[t - 63 : t + 1], lags=5, trend="c", overlap=True, debiased=True).vr
            assert float(ours["variance_ratio_5_63"][t]) == pytest.approx(answer, rel=1e-6)


# --- trading of known spread -------------------------------------------------------------------------------------------


def _traded(spread: float, seed: int, volatility: float = 0.01, days: int = 3000, trades: int = 390) -> pl.DataFrame:
    """Days of 390 trades, each at the value plus or minus half the spread: the simulation of Corwin and Schultz."""
    r = np.random.default_rng(seed)
    value = np.cumsum(r.normal(0.0, volatility / np.sqrt(trades), days * trades))
    price = np.exp(value + r.choice([-0.5, 0.5], days * trades) * spread).reshape(days, trades)
    columns = {"open": price[:, 0], "high": price.max(axis=1), "low": price.min(axis=1), "close": price[:, -1]}
    return _frame("S", {name: 100.0 * values for name, values in columns.items()})


def _mean(frame: pl.DataFrame, name: str) -> float:
    return float(build(frame, [name], *SPAN)[name].drop_nans().mean())


def test_spread_estimators_find_a_known_spread() -> None:
    """2 % of spread at 1 % of volatility. A mean of roots lies below the root of a mean: Abdi and Ranaldo's by 10 %."""
    frame = _traded(0.02, seed=1)
    assert _mean(frame, "corwin_schultz_20") == pytest.approx(0.02, rel=0.1)
    assert _mean(frame, "abdi_ranaldo_20") == pytest.approx(0.018, rel=0.1)
    assert _mean(frame, "roll_spread_20") == pytest.approx(0.02, rel=0.1)


def test_spread_estimators_order_spreads() -> None:
    for name in ("corwin_schultz_20", "abdi_ranaldo_20", "roll_spread_20"):
        narrow, middle, wide = (_mean(_traded(spread, seed=2), name) for spread in (0.0, 0.01, 0.03))
        assert narrow < middle < wide, name


def test_bounce_of_the_price_lowers_the_variance_ratio() -> None:
    """A walk has a ratio of 1; where half the variance of a return is bounce (first autocorrelation c = -0.25), the
    ratio over 5 is 1 + 2 (4 / 5) c = 0.6."""
    r = np.random.default_rng(3)
    walk = np.cumsum(r.normal(0.0, 0.01, 20_000))
    bounce = r.normal(0.0, 0.01 / np.sqrt(2.0), 20_000)  # its change has the variance of a step of the walk
    assert _mean(_frame("V", {"close": np.exp(walk)}), "variance_ratio_5_63") == pytest.approx(1.0, abs=0.03)
    noisy = np.exp(walk + bounce)
    assert _mean(_frame("V", {"close": noisy}), "variance_ratio_5_63") == pytest.approx(0.6, abs=0.03)


# --- bars whose answer is plain ----------------------------------------------------------------------------------------


def _last(frame: pl.DataFrame, name: str) -> float:
    return float(build(frame, [name], *SPAN)[name][-1])


def test_alternating_price_has_the_spread_of_its_steps() -> None:
    """Log returns +1 %, -1 % ...: covariance with the one before is -20/19 x 1e-4, and Roll's spread near 2 %."""
    close = 100.0 * np.exp(0.01 * (np.arange(60) % 2))
    frame = _frame("R", {"close": close})
    assert _last(frame, "roll_spread_20") == pytest.approx(2.0 * 0.01 * np.sqrt(20 / 19), rel=1e-6)
    rising = _frame("R", {"close": 100.0 * np.exp(0.001 * np.arange(60) ** 1.5)})
    assert _last(rising, "roll_spread_20") == 0.0


def test_impact_of_a_typical_session() -> None:
    """Returns of +-2 % on equal money: each session's impact is the 2 % itself, whatever the currency."""
    signs = np.where(np.random.default_rng(4).random(40) < 0.5, 1.0, -1.0)
    close = 100.0 * np.exp(0.02 * np.cumsum(signs))
    for unit in (1.0, 1000.0):
        frame = _frame("K", {"close": close * unit, "volume": 1e6 / close})
        assert _last(frame, "kyle_lambda_20") == pytest.approx(0.02, rel=1e-6)


def test_sessions_without_volume_do_not_count_as_liquid() -> None:
    """Every second session is not traded: the others alone make both means, and they are all alike."""
    rows = 300
    close = 100.0 * np.exp(0.01 * (np.arange(rows) // 2 % 2))  # moves when it trades
    volume = np.where(np.arange(rows) % 2 == 0, 1e6 / close, 0.0)
    assert _last(_frame("A", {"close": close, "volume": volume}), "amihud_20") == pytest.approx(1.0, rel=1e-6)
    assert np.isnan(_last(_frame("A", {"close": close, "volume": volume * 0.0}), "amihud_20"))


def test_who_trades_when() -> None:
    """Each night +1 %, each day -1 %."""
    opening = np.full(30, 101.0)
    frame = _frame("N", {"open": opening, "close": np.full(30, 100.0), "high": opening, "low": np.full(30, 100.0)})
    up = np.log(1.01)
    assert _last(frame, "overnight_minus_intraday_20") == pytest.approx(2.0 * up, rel=1e-6)
    assert _last(frame, "intraday_momentum_share_20") == pytest.approx(-0.5, rel=1e-6)
    assert _last(frame, "close_location_20") == 0.0
    assert _last(frame, "body_range_ratio_20") == pytest.approx(1.0, rel=1e-6)
    assert np.isnan(_last(frame, "night_day_corr_20"))


def test_quiet_sessions_are_counted() -> None:
    """5 of the last 20 closes stand still, the others move by 1 %."""
    moves = np.where(np.arange(80) % 2 == 0, 0.01, -0.01)
    moves[[62, 65, 70, 71, 79]] = 0.0
    close = 100.0 * np.exp(np.cumsum(moves))
    assert _last(_frame("Q", {"close": close}), "quiet_share_20") == pytest.approx(0.25, rel=1e-6)
    assert _last(_frame("Q", {"close": np.full(80, 9.0)}), "quiet_share_20") == 1.0


def test_normal_distribution_equals_scipy() -> None:
    x = np.array([[-40.0, -6.0, -1.0, 0.0, 0.3, 1.96, 9.0, np.nan]])
    np.testing.assert_allclose(kernels.normal_cdf(x), scipy.stats.norm.cdf(x), rtol=1e-13, atol=1e-16)
