"""The market's state against pandas on real bars, and by hand."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

from trading_core.features.build import build
from trading_core.features.registry import FEATURES
from trading_core.market.bar_times import with_close
from trading_core.sessions import Sessions

NAMES = sorted(name for name, f in FEATURES.items() if f.family == "regime")
SYMBOLS = 40
EVER = (date(1990, 1, 1), date(2100, 1, 1))


@pytest.fixture(scope="module")
def bars(panel_path: Path) -> pl.DataFrame:
    frame = pl.read_parquet(panel_path).rename({"date": "session"}).with_columns(pl.col("session").cast(pl.Date))
    frame = frame.filter(pl.all_horizontal(pl.col("open", "high", "low", "close").is_not_null()))
    chosen = frame["symbol"].unique().sort().gather_every(12)[:SYMBOLS]
    return with_close(frame.filter(pl.col("symbol").is_in(chosen.to_list())), Sessions("XNYS"))


@pytest.fixture(scope="module")
def returns(bars: pl.DataFrame) -> pd.DataFrame:
    """Simple returns over adjacent sessions, sessions x symbols."""
    close = bars.to_pandas().pivot(index="session", columns="symbol", values="close")
    return close / close.shift(1) - 1.0


@pytest.fixture(scope="module")
def market(bars: pl.DataFrame) -> pd.DataFrame:
    """Every feature by session, after it was seen that all symbols have the same."""
    built = build(bars, NAMES, *EVER)
    ways = built.group_by("session").agg(pl.col(NAMES).fill_nan(None).n_unique())
    assert ways.select(pl.max_horizontal(NAMES).max()).item() == 1
    return built.group_by("session").agg(pl.col(NAMES).first()).sort("session").to_pandas().set_index("session")


def test_against_pandas(market: pd.DataFrame, returns: pd.DataFrame) -> None:
    r = returns.mean(axis=1)
    log_r = np.log1p(r)
    level = log_r.fillna(0.0).cumsum()
    apart = returns.std(axis=1, ddof=0)
    rising = (returns > 0.0).where(returns.notna()).astype(float).mean(axis=1)
    vol = log_r.rolling(20).std()
    squares = (returns**2).mean(axis=1)
    answers = {
        "market_vol_20": vol,
        "market_vol_ratio": vol / log_r.rolling(252).std(),
        "market_trend_50": level - level.rolling(50).mean(),
        "market_trend_200": level - level.rolling(200).mean(),
        "market_momentum_21": level.diff(21),
        "market_momentum_126": level.diff(126),
        "market_momentum_252": level.diff(252),
        "market_drawdown_252": np.exp(level - level.rolling(252).max()) - 1.0,
        "market_breadth_20": rising.rolling(20).mean(),
        "market_dispersion_20": apart.rolling(20).mean(),
        "market_dispersion_ratio": apart.rolling(20).mean() / apart.rolling(252).mean(),
        "market_correlation_63": (r**2).rolling(63).sum() / squares.rolling(63).sum(),
    }
    for name, expected in answers.items():
        np.testing.assert_allclose(market[name], expected, rtol=1e-5, atol=1e-7, err_msg=name)
    assert set(NAMES) == {*answers, "market_vol_state", "market_trend_state"}


def test_states_against_pandas(market: pd.DataFrame, returns: pd.DataFrame) -> None:
    log_r = np.log1p(returns.mean(axis=1))
    vol = log_r.rolling(20).std()
    low, high = vol.rolling(252).quantile(1 / 3), vol.rolling(252).quantile(2 / 3)
    expected = ((vol > high).astype(float) - (vol < low).astype(float)).where(low.notna())
    np.testing.assert_array_equal(market["market_vol_state"], expected)
    level = log_r.fillna(0.0).cumsum()
    long = level.rolling(200).mean()
    short = level.rolling(50).mean()
    bull, bear = (level > long) & (short > long), (level < long) & (short < long)
    expected = (bull.astype(float) - bear.astype(float)).where(long.notna())
    np.testing.assert_array_equal(market["market_trend_state"], expected)
    for name in ("market_vol_state", "market_trend_state"):
        assert set(market[name].dropna().unique()) == {-1.0, 0.0, 1.0}


def test_correlation_is_that_of_the_covariance_matrix(market: pd.DataFrame, returns: pd.DataFrame) -> None:
    """Mean of all covariances over the mean variance, by pandas; they subtract the means, which hardly matters a day."""
    whole = returns.dropna(axis=1, thresh=len(returns) - 1)
    for t in range(100, len(returns), 50):
        covariance = whole.iloc[t - 62 : t + 1].cov().to_numpy()
        expected = covariance.mean() / np.diag(covariance).mean()
        assert market["market_correlation_63"].iloc[t] == pytest.approx(expected, abs=0.02)


# --- by hand ----------------------------------------------------------------------------------------------------------


def of_closes(*closes: list[float]) -> pl.DataFrame:
    frames = []
    for symbol, close in zip("ABC", closes, strict=False):
        days = [date(2020, 1, 1) + timedelta(days=i) for i in range(len(close))]
        stamps = [datetime(d.year, d.month, d.day, 21, tzinfo=UTC) for d in days]
        stamps_column = pl.Series(stamps, dtype=pl.Datetime("us", "UTC"))
        frames.append(pl.DataFrame({"symbol": symbol, "ts": stamps_column, "session": days, "close": close}))
    return pl.concat(frames)


def last(bars: pl.DataFrame, name: str) -> float:
    return build(bars, [name], *EVER)[name].to_list()[-1]


def test_a_steady_rise() -> None:
    """1 % a bar: L is a line of slope ln 1.01, so it lies 24.5 (99.5) steps above its mean of 50 (200)."""
    step = math.log(1.01)
    bars = of_closes([100.0 * 1.01**i for i in range(300)])
    assert last(bars, "market_trend_50") == pytest.approx(24.5 * step)
    assert last(bars, "market_trend_200") == pytest.approx(99.5 * step)
    assert last(bars, "market_momentum_21") == pytest.approx(21 * step)
    assert last(bars, "market_momentum_252") == pytest.approx(252 * step)
    assert last(bars, "market_drawdown_252") == 0.0
    assert last(bars, "market_breadth_20") == 1.0
    assert last(bars, "market_trend_state") == 1.0
    assert last(bars, "market_vol_20") == pytest.approx(0.0, abs=1e-12)


def test_drawdown_counts_a_peak_as_long_as_it_is_in_the_window() -> None:
    """A peak of 200 among 100s: half is lost while the peak is one of the last 252 bars."""
    close = [100.0] * 300
    close[40] = 200.0
    shown = build(of_closes(close), ["market_drawdown_252"], *EVER)["market_drawdown_252"].to_list()
    assert all(math.isnan(v) for v in shown[:251])
    assert shown[251:292] == pytest.approx([-0.5] * 41)  # 40 + 251 = 291 is the last to see it
    assert shown[292:] == pytest.approx([0.0] * 8, abs=1e-7)


def test_correlation_of_one_and_of_opposites() -> None:
    up = [100.0 * (1.0 + 0.01 * (i % 2)) for i in range(70)]
    assert last(of_closes(up, up), "market_correlation_63") == pytest.approx(1.0)
    assert last(of_closes(up, up), "market_dispersion_20") == pytest.approx(0.0, abs=1e-12)
    a = np.cumprod([100.0, *([1.02, 0.98] * 35)])
    b = np.cumprod([100.0, *([0.98, 1.02] * 35)])
    assert last(of_closes(list(a), list(b)), "market_correlation_63") == pytest.approx(0.0, abs=1e-9)
    assert last(of_closes(list(a), list(b)), "market_dispersion_20") == pytest.approx(0.02)
    assert last(of_closes(list(a), list(b)), "market_breadth_20") == pytest.approx(0.5)


def test_a_fall_is_a_bear_and_a_bounce_is_sideways() -> None:
    fall = [100.0 * 0.995**i for i in range(260)]
    assert last(of_closes(fall), "market_trend_state") == -1.0
    bounced = [*fall, fall[-1] * 3.0]  # above its long mean, while the short mean is still below
    assert last(of_closes(bounced), "market_trend_state") == 0.0


def test_volatility_state_follows_its_own_past() -> None:
    """A year of moves of +-0.5 % and +-1 % in turn, then of +-3 %, then of +-0.1 %."""
    ordinary = [0.005 * (1 + (i // 40) % 2) * (-1) ** i for i in range(280)]
    loud, quiet = [0.03 * (-1) ** i for i in range(20)], [0.001 * (-1) ** i for i in range(20)]
    for steps, state in ((ordinary + loud, 1.0), (ordinary + quiet, -1.0)):
        close = list(100.0 * np.exp(np.concatenate(([0.0], np.cumsum(steps)))))
        assert last(of_closes(close), "market_vol_state") == state
