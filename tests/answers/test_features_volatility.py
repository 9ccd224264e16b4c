"""Volatility: TA-Lib, pandas, arch and Brownian motions of known volatility as the answer sheets."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import talib
from arch import arch_model
from arch.univariate import Normal

from trading_core.features import kernels
from trading_core.features.build import build
from trading_core.features.registry import FEATURES
from trading_core.features.volatility_model import GARCH_PAIRS

SYMBOLS = ("AAPL", "AMD", "CAT", "DIS", "GE", "JPM", "KO", "MMM", "NVDA", "T", "WMT", "XOM")
SETTLED = 500  # rows after which TA-Lib's recursive indicators have forgotten their seeds
NAMES = sorted(name for name, f in FEATURES.items() if f.family == "volatility")


def _frame(symbol: str, prices: dict[str, np.ndarray]) -> pl.DataFrame:
    stamps = [datetime(2010, 1, 4, 21) + timedelta(days=i) for i in range(len(prices["close"]))]
    frame = pl.DataFrame({"symbol": [symbol] * len(stamps), "ts": stamps, **prices})
    return frame.with_columns(pl.col("ts").dt.replace_time_zone("UTC"), session=pl.col("ts").dt.date())


def _walk(seed: int, rows: int = 900) -> pl.DataFrame:
    r = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(r.normal(0.0003, 0.015, rows)))
    opening = np.concatenate(([100.0], close[:-1])) * np.exp(r.normal(0.0, 0.004, rows))
    high = np.maximum(opening, close) * np.exp(np.abs(r.normal(0.0, 0.004, rows)))
    low = np.minimum(opening, close) * np.exp(-np.abs(r.normal(0.0, 0.004, rows)))
    return _frame(f"W{seed}", {"open": opening, "high": high, "low": low, "close": close})


def _real(path: Path) -> pl.DataFrame:
    """The same columns for a dozen shares; a bar is a row, so the dates may be any."""
    rows = pl.read_parquet(path).filter(pl.col("symbol").is_in(SYMBOLS)).drop_nulls().sort("symbol", "date")
    parts = rows.partition_by("symbol", as_dict=True)
    return pl.concat(
        _frame(str(key[0]), {c: part[c].to_numpy() for c in ("open", "high", "low", "close")})
        for key, part in parts.items()
    )


@pytest.fixture(scope="module", params=["walks", "panel"])
def bars(request: pytest.FixtureRequest) -> pl.DataFrame:
    if request.param == "panel":
        return _real(request.getfixturevalue("panel_path"))
    return pl.concat([_walk(1), _walk(2)])


@pytest.fixture(scope="module")
def built(bars: pl.DataFrame) -> pl.DataFrame:
    return build(bars, NAMES, date(2010, 1, 1), date(2030, 1, 1))


def _each(bars: pl.DataFrame, built: pl.DataFrame):
    """Symbol by symbol: the bars as pandas (float64), the features as float32."""
    for (symbol,), part in bars.sort("symbol", "ts").group_by("symbol", maintain_order=True):
        yield part.to_pandas(), built.filter(pl.col("symbol") == symbol)


def _same(ours: pl.DataFrame, answers: dict[str, np.ndarray], start: int, **tolerance: float) -> None:
    for name, expected in answers.items():
        got = ours[name].to_numpy()[start:]
        np.testing.assert_allclose(got, np.asarray(expected)[start:], err_msg=name, **tolerance)


def test_equal_to_talib(bars: pl.DataFrame, built: pl.DataFrame) -> None:
    for frame, ours in _each(bars, built):
        high, low, close = (frame[c].to_numpy() for c in ("high", "low", "close"))
        upper, middle, lower = talib.BBANDS(close, 20, 2.0, 2.0)
        atr, ranges = talib.ATR(high, low, close, 14), talib.TRANGE(high, low, close)
        week, quarter = (np.concatenate(([np.nan], talib.SMA(ranges[1:], n))) for n in (5, 63))
        answers = {
            "true_range_1": ranges / close,
            "atr_14": talib.NATR(high, low, close, 14) / 100.0,
            "true_range_ratio_5_63": week / quarter,
            "bollinger_width_20": (upper - lower) / middle,
            "keltner_position_20": (close - talib.EMA(close, 20)) / (2.0 * atr),
            "squeeze_20": (upper - middle) / (1.5 * atr),
        }
        _same(ours, answers, SETTLED, rtol=1e-6, atol=1e-7)


def _by_pandas(frame: pd.DataFrame) -> dict[str, pd.Series]:
    high, low, close, opening = (np.log(frame[c]) for c in ("high", "low", "close", "open"))
    moves, night, day = close.diff(), opening - close.shift(), close - opening
    vol = {n: moves.rolling(n).std() for n in (5, 10, 20, 63, 126, 252)}
    parkinson = {n: np.sqrt(((high - low) ** 2).rolling(n).mean() / (4 * np.log(2))) for n in (20, 63)}
    satchell = ((high - close) * (high - opening) + (low - close) * (low - opening)).rolling(20).mean()
    klass = (0.5 * (high - low) ** 2 - (2 * np.log(2) - 1) * day**2).rolling(20).mean()
    k = 0.34 / (1.34 + (20 + 1) / (20 - 1))
    yang = night.rolling(20).var() + k * day.rolling(20).var() + (1 - k) * satchell
    up, down = (moves.clip(lower=0) ** 2).rolling(63).sum(), (moves.clip(upper=0) ** 2).rolling(63).sum()
    pairs = (moves.abs() * moves.abs().shift()).rolling(62).sum()
    return {
        **{f"vol_{n}": values for n, values in vol.items()},
        "vol_ratio": vol[5] / vol[63],
        "vol_ratio_5_20": vol[5] / vol[20],
        "vol_ratio_20_126": vol[20] / vol[126],
        "vol_of_vol_20_63": vol[20].rolling(63).std() / vol[20].rolling(63).mean(),
        "downside_dev_20": np.sqrt((moves.clip(upper=0) ** 2).rolling(20).mean()),
        "up_down_variance_63": (up - down) / (up + down),
        "bipower_ratio_63": np.pi / 2 * pairs / 62 / ((moves**2).rolling(63).sum() / 63),
        "parkinson_20": parkinson[20],
        "parkinson_63": parkinson[63],
        "garman_klass_20": np.sqrt(klass),
        "rogers_satchell_20": np.sqrt(satchell),
        "yang_zhang_20": np.sqrt(yang),
        "range_ratio_1_20": (high - low) / (high - low).rolling(20).mean().shift(),
        "range_vol_ratio_20": parkinson[20] / vol[20],
        "overnight_vol_share_20": (night**2).rolling(20).sum() / (night**2 + day**2).rolling(20).sum(),
    }


def test_equal_to_pandas_from_the_first_row(bars: pl.DataFrame, built: pl.DataFrame) -> None:
    with np.errstate(invalid="ignore"):
        for frame, ours in _each(bars, built):
            answers = {name: values.to_numpy() for name, values in _by_pandas(frame).items()}
            _same(ours, answers, 0, rtol=2e-6, atol=1e-8)


def test_exponential_volatility_forgets_the_same_as_pandas(bars: pl.DataFrame, built: pl.DataFrame) -> None:
    for frame, ours in _each(bars, built):
        squares = np.log(frame["close"]).diff() ** 2
        expected = np.sqrt(squares.ewm(alpha=0.06, adjust=True, min_periods=20).mean())
        _same(ours, {"ewma_vol_94": expected.to_numpy()}, 0, rtol=1e-6)


def test_deepest_fall_by_hand_and_by_brute_force() -> None:
    x = np.array([[10.0, 12.0, 9.0, 11.0, 6.0, 8.0, 12.0, 12.0]])
    expected = [np.nan, np.nan, 0.25, 0.25, 5 / 11, 5 / 11, 0.0, 0.0]  # windows of 3
    np.testing.assert_allclose(kernels.rolling_max_drawdown(x, 3)[0], expected, rtol=1e-15)
    walk = np.exp(np.cumsum(np.random.default_rng(3).normal(0, 0.02, 300)))
    walk[200] = np.nan
    got = kernels.rolling_max_drawdown(walk[None, :], 63)[0]
    for t in range(62, 300):
        window = walk[t - 62 : t + 1]
        assert got[t] == pytest.approx(max(1 - window[i:].min() / window[i] for i in range(63)), nan_ok=True), t
    assert np.isnan(got[:62]).all()
    assert np.isnan(got[200:263]).all()
    assert not np.isnan(got[[199, 263]]).any()


def test_deepest_fall_is_a_feature_of_the_closes(bars: pl.DataFrame, built: pl.DataFrame) -> None:
    for frame, ours in _each(bars, built):
        close = frame["close"]
        by_loop = [
            max(1 - w[i:].min() / w[i] for i in range(63))
            for w in (close[t - 62 : t + 1].to_numpy() for t in (62, 500, 800))
        ]
        np.testing.assert_allclose(ours["max_drawdown_63"].to_numpy()[[62, 500, 800]], by_loop, rtol=1e-6)


# --- volatility that is known ------------------------------------------------------------------------------------------

DAYS, STEPS, SIGMA = 1500, 2000, 0.02


def _brownian(drift: float, overnight: float, seed: int) -> pl.DataFrame:
    """Days of a Brownian motion of SIGMA a day in small steps, nights of `overnight` deviation between them."""
    r = np.random.default_rng(seed)
    steps = r.normal(drift / STEPS, SIGMA / np.sqrt(STEPS), (DAYS, STEPS)).cumsum(axis=1)
    path = np.concatenate((np.zeros((DAYS, 1)), steps), axis=1)
    nights = r.normal(0.0, overnight, DAYS)
    begin = np.cumsum(nights) + np.concatenate(([0.0], np.cumsum(path[:-1, -1])))
    parts = {"open": path[:, 0], "high": path.max(axis=1), "low": path.min(axis=1), "close": path[:, -1]}
    return _frame("B", {name: np.exp(begin + part) for name, part in parts.items()})


def _average(frame: pl.DataFrame, name: str) -> float:
    """Root of the mean variance that the feature tells."""
    values = build(frame, [name], date(2010, 1, 1), date(2030, 1, 1))[name].drop_nans().to_numpy()
    return float(np.sqrt(np.mean(values.astype(np.float64) ** 2)))


def test_range_estimators_find_the_volatility_of_a_brownian_motion() -> None:
    """A path seen in 2,000 steps has a range about 1.5 % too short; 1,500 days tell the deviation to about 1 %."""
    frame = _brownian(drift=0.0, overnight=0.0, seed=1)
    for name in ("parkinson_20", "parkinson_63", "garman_klass_20", "rogers_satchell_20", "yang_zhang_20", "vol_20"):
        assert _average(frame, name) == pytest.approx(SIGMA, rel=0.04), name


def test_drift_disturbs_only_those_that_say_so() -> None:
    frame = _brownian(drift=1.5 * SIGMA, overnight=0.0, seed=2)
    for name in ("rogers_satchell_20", "yang_zhang_20", "vol_20"):
        assert _average(frame, name) == pytest.approx(SIGMA, rel=0.04), name
    assert _average(frame, "parkinson_20") > 1.2 * SIGMA
    assert _average(frame, "garman_klass_20") > 1.05 * SIGMA


def test_nights_belong_to_yang_and_zhang() -> None:
    frame = _brownian(drift=0.0, overnight=SIGMA, seed=3)
    assert _average(frame, "yang_zhang_20") == pytest.approx(np.sqrt(2) * SIGMA, rel=0.04)
    assert _average(frame, "garman_klass_20") == pytest.approx(SIGMA, rel=0.04)
    share = build(frame, ["overnight_vol_share_20"], date(2010, 1, 1), date(2030, 1, 1))["overnight_vol_share_20"]
    assert share.drop_nans().mean() == pytest.approx(0.5, abs=0.03)


def test_jumps_lower_the_bipower_ratio() -> None:
    r = np.random.default_rng(4)
    moves = r.normal(0.0, 0.01, 1000)
    flat = 100.0 * np.exp(np.cumsum(moves))
    moves[::50] += 0.15
    jumpy = 100.0 * np.exp(np.cumsum(moves))
    smooth, rough = (
        build(_frame("J", {"close": x}), ["bipower_ratio_63"], date(2010, 1, 1), date(2030, 1, 1))["bipower_ratio_63"]
        for x in (flat, jumpy)
    )
    assert smooth.drop_nans().mean() == pytest.approx(1.0, abs=0.03)
    assert rough.drop_nans().mean() < 0.6


# --- GARCH -------------------------------------------------------------------------------------------------------------


def _simulated(alpha: float, beta: float, seed: int, rows: int = 6000) -> np.ndarray:
    """arch's simulator, daily deviation 1.5 %. Returns."""
    model = arch_model(None, mean="Zero", vol="GARCH", p=1, q=1)
    model.distribution = Normal(seed=np.random.default_rng(seed))
    data = model.simulate([1.5**2 * (1 - alpha - beta), alpha, beta], nobs=rows)
    return data["data"].to_numpy() / 100.0


@pytest.mark.parametrize(("alpha", "beta"), GARCH_PAIRS)
def test_variance_of_a_pair_equals_arch(alpha: float, beta: float) -> None:
    moves = _simulated(0.08, 0.9, seed=5, rows=1000)
    ours = kernels.garch_variance(moves[None, :], alpha, beta, 252)[0]
    assert np.isnan(ours[:251]).all()
    for t in (600, 750, 999):
        target = float(np.mean(moves[t - 251 : t + 1] ** 2))
        model = arch_model(moves[: t + 1], mean="Zero", vol="GARCH", p=1, q=1, rescale=False)
        fixed = model.fix([(1 - alpha - beta) * target, alpha, beta])
        assert ours[t] == pytest.approx(float(fixed.forecast(horizon=1).variance.iloc[-1, 0]), rel=1e-6)


def _choice_by_loop(moves: np.ndarray, t: int, target_bars: int, score_bars: int) -> tuple[float, int]:
    """The definition, word by word: recursion, score, sum, the best."""

    def variance(i: int, alpha: float, beta: float) -> float:
        target = np.mean(moves[i - target_bars + 1 : i + 1] ** 2)
        h = target
        for k in range(target_bars - 1, -1, -1):
            h = (1 - alpha - beta) * target + alpha * moves[i - k] ** 2 + beta * h
        return float(h)

    def density(i: int, alpha: float, beta: float) -> float:
        h = variance(i - 1, alpha, beta)
        return float(-0.5 * (np.log(2 * np.pi * h) + moves[i] ** 2 / h))

    sums = [sum(density(i, a, b) for i in range(t - score_bars + 1, t + 1)) for a, b in GARCH_PAIRS]
    best = int(np.argmax(sums))
    return variance(t, *GARCH_PAIRS[best]), best


def test_choice_by_the_sum_of_past_scores() -> None:
    moves = _simulated(0.1, 0.85, seed=6, rows=420)
    variance, choice = kernels.prequential_garch(moves[None, :], GARCH_PAIRS, 252, 30, 30)
    for t in (290, 333, 419):
        expected, best = _choice_by_loop(moves, t, 252, 30)
        assert choice[0, t] == best
        assert variance[0, t] == pytest.approx(expected, rel=1e-9)
    assert len(np.unique(choice[0, 281:])) > 1


def test_first_choice_comes_with_the_63rd_score() -> None:
    close = 100.0 * np.exp(np.cumsum(_simulated(0.1, 0.85, seed=7, rows=400)))
    built = build(_frame("G", {"close": close}), ["garch_vol"], date(2010, 1, 1), date(2030, 1, 1))
    assert np.flatnonzero(~np.isnan(built["garch_vol"].to_numpy()))[0] == 315


@pytest.mark.parametrize(("alpha", "beta"), [(0.15, 0.80), (0.05, 0.80), (0.06, 0.93)])
def test_chosen_pair_lies_near_the_true_one(alpha: float, beta: float) -> None:
    """A year of scores is little: the mean over 20 years must lie near, and the true pair or its neighbours must lead."""
    moves = _simulated(alpha, beta, seed=8)
    choice = kernels.prequential_garch(moves[None, :], GARCH_PAIRS, 252, 252, 63)[1][0, 600:].astype(int)
    pairs = np.array(GARCH_PAIRS)
    distance = np.abs(pairs[choice].mean(axis=0) - (alpha, beta))
    assert distance[0] < 0.04
    assert distance[1] < 0.06
    near = np.abs(pairs - (alpha, beta)).max(axis=1) <= 0.081
    assert near[choice].mean() > 0.5


@pytest.mark.parametrize(("alpha", "beta"), [(0.15, 0.80), (0.10, 0.88), (0.06, 0.93)])
def test_forecast_beats_the_constant(alpha: float, beta: float) -> None:
    """QLIKE of the next session's square: chosen GARCH < mean square of the last year, and near the true process's."""
    moves = _simulated(alpha, beta, seed=9)
    variance = kernels.prequential_garch(moves[None, :], GARCH_PAIRS, 252, 252, 63)[0][0]
    constant = pd.Series(moves**2).rolling(252).mean().to_numpy()
    truth = arch_model(moves, mean="Zero", vol="GARCH", p=1, q=1, rescale=False)
    fixed = truth.fix([0.015**2 * (1 - alpha - beta), alpha, beta]).conditional_volatility ** 2

    def qlike(forecast: np.ndarray) -> float:
        return float(np.mean(np.log(forecast) + moves[600:] ** 2 / forecast))

    ours, flat, best = qlike(variance[599:-1]), qlike(constant[599:-1]), qlike(fixed[600:])
    assert best < ours < flat
    assert ours - best < 0.5 * (flat - best)


def test_garch_features_are_the_kernel_on_log_returns(bars: pl.DataFrame, built: pl.DataFrame) -> None:
    for frame, ours in _each(bars, built):
        moves = np.log(frame["close"]).diff()
        variance = kernels.prequential_garch(moves.to_numpy()[None, :], GARCH_PAIRS, 252, 252, 63)[0][0]
        vol = np.sqrt(variance)
        answers = {"garch_vol": vol, "garch_vol_ratio": vol / moves.rolling(20).std().to_numpy()}
        _same(ours, answers, 0, rtol=1e-6)
