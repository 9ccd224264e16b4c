"""Ranks, market-relative returns and the market model against pandas, statsmodels and scikit-learn, on real bars and by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import statsmodels.api as sm
from sklearn.linear_model import LinearRegression
from statsmodels.regression.rolling import RollingOLS

from trading_core.features.build import build
from trading_core.features.kernels import rolling_joint
from trading_core.features.registry import FEATURES
from trading_core.market.bar_times import with_close
from trading_core.sessions import Sessions

NAMES = sorted(name for name, f in FEATURES.items() if f.family == "cross_section")
SYMBOLS = 36
SECTORS = 5
START = date(2014, 6, 2)  # more than a year after the panel begins, so that every window is full
EVER = (date(1990, 1, 1), date(2100, 1, 1))


@pytest.fixture(scope="module")
def bars(panel_path: Path) -> pl.DataFrame:
    """Real bars of every 14th symbol, those listed late or with holes among them, in five made-up sectors."""
    frame = pl.read_parquet(panel_path).rename({"date": "session"}).with_columns(pl.col("session").cast(pl.Date))
    frame = frame.filter(pl.all_horizontal(pl.col("open", "high", "low", "close").is_not_null()))
    chosen = frame["symbol"].unique().sort().gather_every(14)[:SYMBOLS]
    number = {symbol: str(i % SECTORS) for i, symbol in enumerate(chosen)}
    frame = frame.filter(pl.col("symbol").is_in(chosen.to_list()))
    return with_close(frame, Sessions("XNYS")).with_columns(sector=pl.col("symbol").replace_strict(number))


@pytest.fixture(scope="module")
def built(bars: pl.DataFrame) -> pl.DataFrame:
    return build(bars, NAMES, *EVER)


@pytest.fixture(scope="module")
def wide(bars: pl.DataFrame) -> Callable[[str], pd.DataFrame]:
    """A column of the bars as sessions x symbols."""
    frame = bars.to_pandas()
    return lambda column: frame.pivot(index="session", columns="symbol", values=column)


def by_own_bars(table: pd.DataFrame, formula: Callable[[pd.Series], pd.Series]) -> pd.DataFrame:
    """`formula` of each symbol's own bars, sessions without a bar left out."""
    return pd.DataFrame({name: formula(column.dropna()) for name, column in table.items()}, index=table.index)


def change(table: pd.DataFrame, n: int) -> pd.DataFrame:
    return by_own_bars(table, lambda x: x / x.shift(n) - 1.0)


def rank(table: pd.DataFrame) -> pd.DataFrame:
    """By pandas; equal is what is equal as float32, as the features are stored."""
    single = table.astype(np.float32)
    return single.rank(axis=1).sub(1.0).div(single.count(axis=1) - 1.0, axis=0) - 0.5


def zscore(table: pd.DataFrame) -> pd.DataFrame:
    return table.sub(table.mean(axis=1), axis=0).div(table.std(axis=1, ddof=0), axis=0)


def excess(table: pd.DataFrame) -> pd.DataFrame:
    return table.sub(table.mean(axis=1), axis=0)


def within_sectors(table: pd.DataFrame, bars: pl.DataFrame, formula: Callable[[pd.DataFrame], pd.DataFrame]):
    sector = dict(bars.select("symbol", "sector").unique().iter_rows())
    names = sorted(set(sector.values()))
    return pd.concat([formula(table[[s for s in table if sector[s] == name]]) for name in names], axis=1)


def agree(built: pl.DataFrame, name: str, expected: pd.DataFrame, tolerance: float = 1e-6) -> None:
    """Every value of the feature, the missing ones too."""
    found = built.to_pandas().pivot(index="session", columns="symbol", values=name)
    there = built.to_pandas().assign(there=1.0).pivot(index="session", columns="symbol", values="there")
    wanted = expected[found.columns].where(there.notna())
    assert found.notna().to_numpy().sum() > 10_000
    np.testing.assert_allclose(found.to_numpy(), wanted.to_numpy(), rtol=tolerance, atol=1e-6, err_msg=name)


def test_returns_beyond_the_market(built: pl.DataFrame, wide: Callable[[str], pd.DataFrame]) -> None:
    for name, n in (("rel_ret_1", 1), ("rel_ret_20", 20), ("rel_ret_63", 63)):
        agree(built, name, excess(change(wide("close"), n)))


def test_returns_beyond_the_sector(
    built: pl.DataFrame, bars: pl.DataFrame, wide: Callable[[str], pd.DataFrame]
) -> None:
    for name, n in (("sector_rel_ret_1", 1), ("sector_rel_ret_5", 5), ("sector_rel_ret_21", 21)):
        agree(built, name, within_sectors(change(wide("close"), n), bars, excess))
    agree(built, "sector_ret_21_rank", within_sectors(change(wide("close"), 21), bars, rank))


def test_ranks(built: pl.DataFrame, wide: Callable[[str], pd.DataFrame]) -> None:
    close, volume, high = wide("close"), wide("volume"), wide("high")
    money = close * volume
    ret = change(close, 1)
    answers = {
        "ret_1_rank": ret,
        "mom_12_1_rank": by_own_bars(close, lambda x: x.shift(21) / x.shift(252) - 1.0),
        "vol_63_rank": by_own_bars(close, lambda x: np.log(x).diff().rolling(63).std()),
        "volume_surprise_rank": by_own_bars(volume, lambda x: x / x.rolling(20).mean().shift(1)),
        "overnight_rank": wide("open") / by_own_bars(close, lambda x: x.shift(1)) - 1.0,
        "amihud_21_rank": by_own_bars((ret.abs() / money).where(close.notna()), lambda x: x.rolling(21).mean()),
        "max_ret_21_rank": by_own_bars(close, lambda x: x.pct_change().rolling(21).max()),
        "high_252_rank": close / by_own_bars(high, lambda x: x.rolling(252).max()),
    }
    for name, values in answers.items():
        agree(built, name, rank_where_certain(built, name, values))


def rank_where_certain(built: pl.DataFrame, name: str, values: pd.DataFrame) -> pd.DataFrame:
    """pandas' ranks, but the feature's own in the few sessions where two values differ by rounding alone."""
    expected = rank(values)
    found = built.to_pandas().pivot(index="session", columns="symbol", values=name)[expected.columns]
    ordered = np.sort(values.to_numpy(), axis=1)
    close_call = (np.diff(ordered, axis=1) < 1e-6 * np.abs(ordered[:, 1:])).any(axis=1)
    assert close_call.mean() < 0.08
    expected.loc[close_call] = found.loc[close_call]
    return expected


def test_zscores(built: pl.DataFrame, wide: Callable[[str], pd.DataFrame]) -> None:
    close = wide("close")
    agree(built, "ret_1_z", zscore(change(close, 1)))
    agree(built, "mom_12_1_z", zscore(by_own_bars(close, lambda x: x.shift(21) / x.shift(252) - 1.0)))


# --- the market model -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def market(wide: Callable[[str], pd.DataFrame]) -> pd.Series:
    """The equal-weight return over adjacent sessions."""
    close = wide("close")
    return (close / close.shift(1) - 1.0).mean(axis=1)


@pytest.mark.parametrize("window", [63, 252])
def test_beta_is_that_of_statsmodels(
    built: pl.DataFrame, wide: Callable[[str], pd.DataFrame], market: pd.Series, window: int
) -> None:
    """Rolling least squares with a constant: slope, and for 63 sessions the residuals' deviation and R2."""
    for symbol in built["symbol"].unique().sort().to_list()[:8]:
        ours = built.filter(pl.col("symbol") == symbol)
        r = wide("close")[symbol].dropna().pct_change()
        m = market[r.index]
        fitted = RollingOLS(r.to_numpy()[1:], sm.add_constant(m.to_numpy()[1:]), window=window).fit()
        np.testing.assert_allclose(ours[f"beta_{window}"].to_numpy()[1:], fitted.params[:, 1], rtol=2e-6, atol=1e-6)
        if window == 63:
            np.testing.assert_allclose(ours["idio_vol_63"].to_numpy()[1:], np.sqrt(fitted.mse_resid), rtol=2e-6)
            corr = r.rolling(63).corr(m).to_numpy()
            np.testing.assert_allclose(ours["market_corr_63"].to_numpy(), corr, rtol=1e-5, atol=1e-6)


def test_downside_beta_is_a_line_through_the_origin_on_falls(
    built: pl.DataFrame, wide: Callable[[str], pd.DataFrame], market: pd.Series
) -> None:
    for symbol in built["symbol"].unique().sort().to_list()[:6]:
        ours = built.filter(pl.col("symbol") == symbol)["downside_beta_252"].to_numpy()
        r = wide("close")[symbol].dropna().pct_change()
        fall = np.minimum(market[r.index].to_numpy(), 0.0)
        assert np.isnan(ours[:252]).all()
        for t in range(252, len(r), 97):
            part = slice(t - 251, t + 1)
            line = LinearRegression(fit_intercept=False).fit(fall[part, None], r.to_numpy()[part])
            assert ours[t] == pytest.approx(line.coef_[0], rel=1e-5)


def test_residual_returns(built: pl.DataFrame, wide: Callable[[str], pd.DataFrame], market: pd.Series) -> None:
    """The beta is that of the 63 sessions before: the session's own return is no part of it."""
    for symbol in built["symbol"].unique().sort().to_list()[:6]:
        ours = built.filter(pl.col("symbol") == symbol)
        r = wide("close")[symbol].dropna().pct_change()
        m = market[r.index]
        beta = (r.rolling(63).cov(m) / m.rolling(63).var()).shift(1)
        residual = r - beta * m
        np.testing.assert_allclose(ours["residual_ret_1"].to_numpy(), residual.to_numpy(), rtol=1e-5, atol=1e-7)
        over_20 = residual.rolling(20).sum().to_numpy()
        np.testing.assert_allclose(ours["residual_ret_20"].to_numpy(), over_20, rtol=1e-5, atol=1e-7)


def test_ranks_of_the_market_model(built: pl.DataFrame) -> None:
    """Ranked are the values that the plain features show, up to what float32 leaves out."""
    for name in ("beta_252", "idio_vol_63"):
        table = built.to_pandas().pivot(index="session", columns="symbol", values=name)
        agree(built, f"{name}_rank", rank_where_certain(built, f"{name}_rank", table))


# --- by hand ----------------------------------------------------------------------------------------------------------


def of_closes(*closes: list[float]) -> pl.DataFrame:
    """Daily bars of symbols A, B ... from their closes; open = close, volume 1000."""
    frames = []
    for symbol, close in zip("ABCDE", closes, strict=False):
        days = [date(2020, 1, 1) + timedelta(days=i) for i in range(len(close))]
        stamps = [datetime(d.year, d.month, d.day, 21, tzinfo=UTC) for d in days]
        frame = pl.DataFrame(
            {"symbol": symbol, "ts": pl.Series(stamps, dtype=pl.Datetime("us", "UTC")), "session": days}
        )
        prices = {name: pl.Series(close, dtype=pl.Float64) for name in ("open", "high", "low", "close")}
        frames.append(frame.with_columns(**prices, volume=pl.lit(1000.0)))
    return pl.concat(frames)


def column(frame: pl.DataFrame, name: str, symbol: str) -> list[float]:
    return build(frame, [name], *EVER).filter(pl.col("symbol") == symbol)[name].to_list()


def test_a_symbol_that_moves_twice_as_much_as_another() -> None:
    """r_A = 2 g, r_B = g: the market is 1.5 g, so the betas are 4/3 and 2/3, without any residual."""
    steps = [0.01 * ((7 * i) % 5 - 2) for i in range(70)]
    a, b = (list(np.cumprod([100.0, *(1.0 + k * g for g in steps)])) for k in (2.0, 1.0))
    bars = of_closes(a, b)
    assert column(bars, "beta_63", "A")[63:] == pytest.approx([4 / 3] * 8)
    assert column(bars, "beta_63", "B")[63:] == pytest.approx([2 / 3] * 8)
    assert all(math.isnan(v) for v in column(bars, "beta_63", "A")[:63])
    assert column(bars, "market_corr_63", "A")[-1] == pytest.approx(1.0)
    assert column(bars, "idio_vol_63", "A")[-1] == pytest.approx(0.0, abs=1e-9)
    assert column(bars, "residual_ret_1", "A")[64:] == pytest.approx([0.0] * 7, abs=1e-9)


def test_a_market_of_one_symbol_has_a_beta_of_one() -> None:
    walk = list(np.cumprod([50.0, *(1.0 + 0.01 * ((3 * i) % 7 - 3) for i in range(300))]))
    assert column(of_closes(walk), "beta_252", "A")[-1] == 1.0
    assert column(of_closes(walk), "downside_beta_252", "A")[-1] == pytest.approx(1.0)
    assert column(of_closes(walk), "rel_ret_1", "A")[-1] == 0.0


def test_a_market_that_stands_still_has_no_beta() -> None:
    flat = [10.0] * 300
    for name in ("beta_63", "beta_252", "downside_beta_252", "market_corr_63", "idio_vol_63", "residual_ret_1"):
        assert all(math.isnan(v) for v in column(of_closes(flat, flat), name, "A")), name


def test_rank_and_zscore_of_three() -> None:
    """Returns +10 %, 0, -10 %: ranks 0.5, 0, -0.5; deviation 0.1 sqrt(2/3)."""
    bars = of_closes([10.0, 11.0], [10.0, 10.0], [10.0, 9.0])
    assert [column(bars, "ret_1_rank", s)[1] for s in "ABC"] == pytest.approx([0.5, 0.0, -0.5])
    z = math.sqrt(1.5)
    assert [column(bars, "ret_1_z", s)[1] for s in "ABC"] == pytest.approx([z, 0.0, -z], abs=1e-6)
    assert [column(bars, "rel_ret_1", s)[1] for s in "ABC"] == pytest.approx([0.1, 0.0, -0.1], abs=1e-7)


def test_without_sectors_all_symbols_are_one() -> None:
    bars = of_closes([10.0, 11.0], [10.0, 10.0], [10.0, 9.0])
    assert [column(bars, "sector_rel_ret_1", s)[1] for s in "ABC"] == pytest.approx([0.1, 0.0, -0.1], abs=1e-7)
    split = bars.with_columns(sector=pl.when(pl.col("symbol") == "C").then(pl.lit("x")).otherwise(pl.lit("y")))
    assert [column(split, "sector_rel_ret_1", s)[1] for s in "ABC"] == pytest.approx([0.05, -0.05, 0.0], abs=1e-7)


def test_a_session_without_volume_has_no_illiquidity() -> None:
    bars = of_closes(*([[10.0 + (i + k) % 3 for i in range(44)] for k in range(2)]))
    halted = bars.with_columns(
        volume=pl.when((pl.col("symbol") == "A") & (pl.col("session") == date(2020, 1, 22))).then(0.0).otherwise(1e3)
    )
    shown = column(halted, "amihud_21_rank", "A")
    assert [i for i, v in enumerate(shown) if math.isnan(v)] == list(range(42))
    assert [i for i, v in enumerate(column(bars, "amihud_21_rank", "A")) if math.isnan(v)] == list(range(21))


def test_joint_sums_are_those_of_numpy_and_miss_what_is_missing() -> None:
    """A window of 11 = 8 + 2 + 1 bars, so that blocks of every kind are joined; one bar of x, later one of y, is missing."""
    r = np.random.default_rng(4)
    x, y = r.normal(5.0, 1.0, (2, 60)), r.normal(-3.0, 2.0, (2, 60))
    x[0, 20] = np.nan
    y[1, 40] = np.nan
    joint = rolling_joint(x, y, 11)
    for s in range(2):
        for t in range(60):
            part = np.stack([x[s, max(0, t - 10) : t + 1], y[s, max(0, t - 10) : t + 1]])
            if t < 10 or np.isnan(part).any():
                assert np.isnan(joint[:, s, t]).all()
            else:
                sums = np.cov(part, ddof=0) * 11
                np.testing.assert_allclose(joint[:, s, t], [sums[0, 0], sums[1, 1], sums[0, 1]], rtol=1e-9, atol=1e-9)
