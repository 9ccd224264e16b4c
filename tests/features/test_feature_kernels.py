"""Kernels against pandas and plain loops, and their independence of where the array begins."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from numba.core.dispatcher import Dispatcher
from scipy import stats

from trading_core import features
from trading_core.features import kernels
from trading_core.schema import FloatArray

X = 50.0 * np.exp(np.cumsum(np.random.default_rng(5).normal(0.0, 0.03, (3, 400)), axis=1))
MODULES = [importlib.import_module(m.name) for m in pkgutil.walk_packages(features.__path__, "trading_core.features.")]
COMPILED = [m for m in MODULES if any(isinstance(x, Dispatcher) for x in vars(m).values())]
WINDOWS = [1, 2, 3, 5, 7, 20, 63, 64, 100]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", ["sum", "mean", "max", "min"])
def test_rolling_equals_pandas(name: str, window: int) -> None:
    expected = getattr(pd.DataFrame(X.T).rolling(window), name)().to_numpy().T
    np.testing.assert_allclose(getattr(kernels, f"rolling_{name}")(X, window), expected, rtol=1e-12)


@pytest.mark.parametrize("window", [2, 3, 20, 63])
@pytest.mark.parametrize("ddof", [0, 1])
def test_deviation_equals_pandas(window: int, ddof: int) -> None:
    mean, deviation = kernels.rolling_mean_std(X, window, ddof)
    frame = pd.DataFrame(X.T).rolling(window)
    np.testing.assert_allclose(mean, frame.mean().to_numpy().T, rtol=1e-12)
    np.testing.assert_allclose(deviation, frame.std(ddof=ddof).to_numpy().T, rtol=1e-9)


def test_deviation_of_equal_values_is_exactly_zero() -> None:
    mean, deviation = kernels.rolling_mean_std(np.full((1, 30), 0.1), 20, 1)
    assert (deviation[0, 19:] == 0.0).all()
    assert (mean[0, 19:] == 0.1).all()


@pytest.mark.parametrize("decay", [0.8, 13 / 14])
def test_exponential_average_equals_pandas(decay: float) -> None:
    expected = pd.DataFrame(X.T).ewm(alpha=1 - decay, adjust=True, min_periods=9).mean().to_numpy().T
    np.testing.assert_allclose(kernels.ewm_mean(X, decay, 9), expected, rtol=1e-6)


def test_exponential_average_by_the_sum_it_claims() -> None:
    decay, window = 0.8, kernels.ewm_window(0.8)
    weights = decay ** np.arange(window)
    expected = (weights * X[0, ::-1][:window]).sum() / weights.sum()
    np.testing.assert_allclose(kernels.ewm_mean(X, decay, 1)[0, -1], expected, rtol=1e-14)


def test_exponential_average_steps_over_missing_bars() -> None:
    x = np.array([[1.0, np.nan, 3.0, np.nan]])
    out = kernels.ewm_mean(x, 0.5, 1)
    np.testing.assert_allclose(out, [[1.0, np.nan, (3 + 0.25 * 1) / 1.25, np.nan]])


# --- every kernel of one block ----------------------------------------------------------------------------------------


def _comoments(x: FloatArray) -> kernels.Comoments:
    return kernels.rolling_comoments(x, kernels.shift(x, 1), 20)


def _joint(x: FloatArray) -> FloatArray:
    return kernels.rolling_joint(x, kernels.shift(x, 1), 20)


def _co_sum(w: FloatArray) -> float:
    return float(((w[1:] - w[1:].mean()) * (w[:-1] - w[:-1].mean())).sum())


def _rises(x: FloatArray) -> FloatArray:
    move = kernels.diff(x)
    return np.where(np.isnan(move), np.nan, 1.0 * (move > 0.0))


def _rate(x: FloatArray) -> FloatArray:
    return 0.2 + 0.3 * (x > kernels.shift(x, 1))


def _adaptive(w: FloatArray) -> float:
    value, left = 0.0, 1.0
    for x, rate in zip(w[1:], _rate(w[None, :])[0, 1:], strict=True):
        value, left = value + rate * (x - value), left * (1.0 - rate)
    return value / (1.0 - left)


def _garch(w: FloatArray) -> float:
    squares = np.diff(np.log(w)) ** 2
    h = squares.mean()
    for square in squares:
        h = 0.1 * squares.mean() + 0.1 * square + 0.8 * h
    return float(h)


def _streak(w: FloatArray) -> float:
    signs = np.sign(np.diff(w))[::-1]
    return float(signs[0] * next((i for i, sign in enumerate(signs) if sign != signs[0]), len(signs)))


_WEIGHTS = 0.8 ** np.arange(kernels.ewm_window(0.8))[::-1]
_PAIRS = ((0.05, 0.9), (0.1, 0.8), (0.3, 0.6))
_log_steps = lambda x: kernels.diff(kernels.log(x))  # noqa: E731
_line = lambda w: stats.linregress(np.arange(len(w)), w)  # noqa: E731


class Kernel(NamedTuple):
    """A kernel, the bars that its value hangs on, and that value by a plain formula from just these bars."""

    compute: Callable[[FloatArray], FloatArray]
    bars: int
    answer: Callable[[FloatArray], float]
    all_needed: bool = True  # whether each of the bars must be there


KERNELS = {
    "rolling_sum": Kernel(lambda x: kernels.rolling_sum(x, 63), 63, np.sum),
    "rolling_mean": Kernel(lambda x: kernels.rolling_mean(x, 63), 63, np.mean),
    "rolling_max": Kernel(lambda x: kernels.rolling_max(x, 63), 63, np.max),
    "rolling_min": Kernel(lambda x: kernels.rolling_min(x, 63), 63, np.min),
    "rolling_std": Kernel(lambda x: kernels.rolling_std(x, 63), 63, lambda w: np.std(w, ddof=1)),
    "rolling_mean_std": Kernel(lambda x: kernels.rolling_mean_std(x, 63, 0)[1], 63, np.std),
    "rolling_skew": Kernel(lambda x: kernels.rolling_skew(x, 20), 20, stats.skew),
    "rolling_kurtosis": Kernel(lambda x: kernels.rolling_kurtosis(x, 20), 20, stats.kurtosis),
    "skew of both": Kernel(lambda x: kernels.rolling_skew_kurtosis(x, 20)[0], 20, stats.skew),
    "kurtosis of both": Kernel(lambda x: kernels.rolling_skew_kurtosis(x, 20)[1], 20, stats.kurtosis),
    "comoments mean_x": Kernel(lambda x: _comoments(x).mean_x, 20, np.mean),
    "comoments mean_y": Kernel(lambda x: _comoments(x).mean_y, 21, lambda w: w[:-1].mean(), False),
    "comoments xx": Kernel(lambda x: _comoments(x).xx, 20, lambda w: 20 * np.var(w)),
    "comoments yy": Kernel(lambda x: _comoments(x).yy, 21, lambda w: 20 * np.var(w[:-1]), False),
    "comoments xy": Kernel(lambda x: _comoments(x).xy, 21, _co_sum),
    "joint xx": Kernel(lambda x: _joint(x)[0], 21, lambda w: 20 * np.var(w[1:])),
    "joint yy": Kernel(lambda x: _joint(x)[1], 21, lambda w: 20 * np.var(w[:-1])),
    "joint xy": Kernel(lambda x: _joint(x)[2], 21, _co_sum),
    "trend slope": Kernel(lambda x: kernels.rolling_trend(x, 20)[0], 20, lambda w: _line(w).slope),
    "trend end": Kernel(
        lambda x: kernels.rolling_trend(x, 20)[1], 20, lambda w: _line(w).intercept + 19 * _line(w).slope
    ),
    "trend R2": Kernel(lambda x: kernels.rolling_trend(x, 20)[2], 20, lambda w: _line(w).rvalue ** 2),
    "bars_since_max": Kernel(lambda x: kernels.bars_since_max(x, 20), 20, lambda w: np.argmax(w[::-1])),
    "bars_since_min": Kernel(lambda x: kernels.bars_since_min(x, 20), 20, lambda w: np.argmin(w[::-1])),
    "rolling_quantile": Kernel(lambda x: kernels.rolling_quantile(x, 21, 0.3), 21, lambda w: np.quantile(w, 0.3)),
    "rolling_quantiles": Kernel(
        lambda x: kernels.rolling_quantiles(x, 20, (0.1, 0.5))[1], 20, lambda w: np.quantile(w, 0.5)
    ),
    "rolling_rank": Kernel(lambda x: kernels.rolling_rank(x, 21), 21, lambda w: (stats.rankdata(w)[-1] - 1) / 20),
    "rolling_mean_deviation": Kernel(
        lambda x: kernels.rolling_mean_deviation(x, 20), 20, lambda w: np.abs(w - w.mean()).mean()
    ),
    "weighted_mean": Kernel(
        lambda x: kernels.weighted_mean(x, 20), 20, lambda w: np.average(w, weights=np.arange(1, 21))
    ),
    "rolling_entropy": Kernel(
        lambda x: kernels.rolling_entropy(_rises(x), 20, 2), 21, lambda w: stats.entropy(np.bincount(np.diff(w) > 0))
    ),
    "rolling_max_drawdown": Kernel(
        lambda x: kernels.rolling_max_drawdown(x, 20), 20, lambda w: np.max(1.0 - w / np.maximum.accumulate(w))
    ),
    "slope_of_sum": Kernel(lambda x: kernels.slope_of_sum(kernels.diff(x), 20), 20, lambda w: _line(w).slope),
    "lowest_tail_sum": Kernel(
        lambda x: kernels.lowest_tail_sum(kernels.diff(x), 20), 21, lambda w: min(0.0, w[-1] - w.max())
    ),
    "garch_variance": Kernel(lambda x: kernels.garch_variance(_log_steps(x), 0.1, 0.8, 60), 61, _garch),
    "streak": Kernel(lambda x: kernels.streak(kernels.diff(x), 10), 11, _streak, False),
    "ewm_mean": Kernel(
        lambda x: kernels.ewm_mean(x, 0.8, 9), len(_WEIGHTS), lambda w: np.average(w, weights=_WEIGHTS), False
    ),
    "adaptive_mean": Kernel(lambda x: kernels.adaptive_mean(x, _rate(x), 80), 81, _adaptive, False),
    "shift": Kernel(lambda x: kernels.shift(x, 5), 6, lambda w: w[0], False),
    "diff": Kernel(lambda x: kernels.diff(x, 5), 6, lambda w: w[-1] - w[0], False),
    "change": Kernel(lambda x: kernels.change(x, 5), 6, lambda w: w[-1] / w[0] - 1.0, False),
    "ratio": Kernel(lambda x: kernels.ratio(x, kernels.shift(x, 5)), 6, lambda w: w[-1] / w[0], False),
    "log": Kernel(kernels.log, 1, lambda w: np.log(w[0])),
    "exp": Kernel(lambda x: kernels.exp(x / 100.0), 1, lambda w: np.exp(w[0] / 100.0)),
    "normal_cdf": Kernel(lambda x: kernels.normal_cdf(x / 50.0 - 1.0), 1, lambda w: stats.norm.cdf(w[0] / 50.0 - 1.0)),
}


@pytest.mark.parametrize("name", KERNELS)
def test_equals_the_plain_formula(name: str) -> None:
    kernel, rounded = KERNELS[name], np.round(X, 0)  # rounded: with equal values
    for x in (X, rounded):
        out = kernel.compute(x)
        for s in range(len(x)):
            for t in range(kernel.bars - 1, x.shape[1], 7):
                expected = kernel.answer(x[s, t - kernel.bars + 1 : t + 1])
                np.testing.assert_allclose(out[s, t], expected, rtol=1e-7, atol=1e-10, err_msg=f"row {s}, bar {t}")


@pytest.mark.parametrize("name", [*KERNELS, "prequential_garch"])
def test_bits_do_not_depend_on_where_the_array_begins(name: str) -> None:
    """Every cut of just the bars it hangs on gives, at its last bar, the float64 of the whole."""
    if name == "prequential_garch":  # 20 scores, of variances of 30 returns each; its values: test_features_volatility
        compute, bars = (lambda x: kernels.prequential_garch(_log_steps(x), _PAIRS, 30, 20, 10)[0]), 51
    else:
        compute, bars = KERNELS[name].compute, KERNELS[name].bars
    whole = compute(X)
    for t in range(bars - 1, X.shape[1]):
        part = compute(np.ascontiguousarray(X[:, t - bars + 1 : t + 1]))
        np.testing.assert_array_equal(part[:, -1].view(np.uint64), whole[:, t].view(np.uint64), err_msg=f"bar {t}")
    np.testing.assert_array_equal(compute(X[1:2]).view(np.uint64), whole[1:2].view(np.uint64))


@pytest.mark.parametrize("name", [name for name, kernel in KERNELS.items() if kernel.all_needed])
def test_a_missing_bar_spoils_the_windows_that_hold_it(name: str) -> None:
    kernel, x = KERNELS[name], X[:1].copy()
    x[0, 200] = np.nan
    first = np.flatnonzero(~np.isnan(kernel.compute(X[:1])[0]))[0]
    spoilt = np.zeros(x.shape[1], dtype=bool)
    spoilt[:first] = spoilt[200 : 200 + kernel.bars] = True
    np.testing.assert_array_equal(np.isnan(kernel.compute(x)[0]), spoilt)


@pytest.mark.parametrize("name", [name for name, kernel in KERNELS.items() if kernel.bars > 1])
def test_shorter_than_the_window(name: str) -> None:
    """A symbol that has just been listed gets no value, and no error."""
    for rows in (1, 2, KERNELS[name].bars - 1):
        assert KERNELS[name].compute(X[:, :rows].copy()).shape == (3, rows)
    assert KERNELS[name].compute(X[:, :0].copy()).shape == (3, 0)


@pytest.mark.parametrize("name", sorted(n for n in kernels.__all__ if hasattr(getattr(kernels, n), "py_func")))
def test_machine_code_keeps_the_order_of_operations(name: str) -> None:
    """What runs compiled has the bits of the same source run by Python: nothing is reordered or fused."""
    kernel, x = getattr(kernels, name), np.ascontiguousarray(X[:1, :90])
    rest = {
        "log": (),
        "exp": (),
        "normal_cdf": (),
        "rolling_entropy": (20, 2),
        "rolling_joint": (x[:, ::-1].copy(), 20),
    }
    rest |= {"adaptive_mean": (_rate(x), 30)}
    x = _rises(x) if name == "rolling_entropy" else x / 100.0
    arguments = (x, *rest.get(name, (20,)))
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(kernel(*arguments), kernel.py_func(*arguments))


def test_no_kernel_is_left_out() -> None:
    """A kernel that is added brings its line in KERNELS, or its test across symbols."""
    across = {"excess_across", "excess_in_sector", "mean_across", "rank_across", "rank_in_sector", "std_across"}
    no_kernel = {
        "TRUNCATED_WEIGHT",
        "Comoments",
        "Section",
        "compiled",
        "ewm_window",
        "fixed",
        "zscore_across",
        *across,
    }
    elsewhere = {"prequential_garch", "rolling_comoments", "rolling_joint", "rolling_trend", "rolling_skew_kurtosis"}
    assert set(kernels.__all__) - no_kernel - elsewhere <= set(KERNELS)


def _imported_names(module: ModuleType) -> set[str]:
    """Names that a module has from other files of this program."""
    tree = ast.parse(inspect.getsource(module))
    froms = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {a.asname or a.name for node in froms if (node.module or "").startswith("trading_core") for a in node.names}


@pytest.mark.parametrize("module", COMPILED, ids=lambda module: module.__name__.rpartition(".")[2])
def test_machine_code_is_of_one_file(module: ModuleType) -> None:
    """Numba keeps it until that file changes: what it had from another file would outlive a change of that."""
    elsewhere = _imported_names(module)
    for name, kernel in vars(module).items():
        if isinstance(kernel, Dispatcher) and kernel.py_func.__module__ == module.__name__:
            assert elsewhere.isdisjoint(kernel.py_func.__code__.co_names), f"{module.__name__}.{name}"


def test_quantiles_forget_the_sign_of_a_zero() -> None:
    """0 and -0 are equal: which of them came first must not be seen in the bits."""
    x = np.array([[0.0, -0.0, 1.0, -0.0, 0.0, -0.0]])
    assert not np.signbit(kernels.rolling_quantiles(x, 3, (0.0, 0.5))[:, 0, 2:]).any()


def test_adaptive_mean_is_not_there_while_older_bars_still_count() -> None:
    """A rate of 0.1 leaves 0.9^100 = 2.7e-5 of the weight to older bars, one of 0.2 leaves 2e-10."""
    x = np.ones((1, 120))
    assert np.isnan(kernels.adaptive_mean(x, np.full_like(x, 0.1), 100)).all()
    np.testing.assert_allclose(kernels.adaptive_mean(x, np.full_like(x, 0.2), 100)[0, 100:], 1.0, rtol=1e-12)


def test_streak_by_hand() -> None:
    x = np.array([[1.0, 2.0, 3.0, 4.0, 0.0, -1.0, -1.0, np.nan, -2.0, 5.0]])
    np.testing.assert_array_equal(kernels.streak(x, 3), [[1, 2, 3, 3, 0, -1, -2, np.nan, -1, 1]])


def test_logarithm_and_exponential_where_they_are_not_defined() -> None:
    np.testing.assert_array_equal(kernels.log(np.array([[0.0, -1.0, 1.0, np.nan]])), [[np.nan, np.nan, 0.0, np.nan]])
    np.testing.assert_array_equal(kernels.exp(np.array([[0.0, 1000.0, -1000.0, np.nan]])), [[1.0, np.nan, 0.0, np.nan]])


def test_change_after_a_zero() -> None:
    np.testing.assert_array_equal(kernels.change(np.array([[0.0, 1.0, 0.0, 0.0]]), 1), [[np.nan, np.nan, -1.0, np.nan]])


# --- across symbols ---------------------------------------------------------------------------------------------------


def _section(group: list[int] | np.ndarray, sector: list[int] | np.ndarray | None = None) -> kernels.Section:
    return kernels.Section(np.array(group), np.array(group if sector is None else sector))


@pytest.fixture(scope="module")
def market() -> tuple[np.ndarray, kernels.Section, pd.DataFrame]:
    """1,000 values at 40 times, some missing, some equal; the sectors of a time in any order."""
    r = np.random.default_rng(1)
    group = np.sort(r.integers(0, 40, 1000))
    values = r.integers(0, 12, 1000).astype(float)
    values[r.random(1000) < 0.1] = np.nan
    sector = r.integers(0, 3, 1000)
    pair = pd.Series(group * 3 + sector).rank(method="dense").to_numpy().astype(np.int64) - 1
    return values, _section(group, pair), pd.DataFrame({"value": values, "group": group, "pair": pair})


def test_rank_shares_ties_and_skips_nan() -> None:
    values = np.array([3.0, 1.0, 1.0, np.nan, 2.0, 7.0, np.nan])
    ranks = kernels.rank_across(values, _section([0, 0, 0, 0, 0, 1, 2]))
    np.testing.assert_allclose(ranks, [0.5, -1 / 3, -1 / 3, np.nan, 1 / 6, 0.0, np.nan])


def test_ranks_tie_what_is_equal_as_stored() -> None:
    values = np.array([0.1, 0.1 + 1e-12, 0.2])  # one float32, two float64
    np.testing.assert_array_equal(kernels.rank_across(values, _section([0, 0, 0])), [-0.25, -0.25, 0.5])


@pytest.mark.parametrize(("kernel", "by"), [(kernels.rank_across, "group"), (kernels.rank_in_sector, "pair")])
def test_rank_equals_pandas(market: tuple, kernel: Callable, by: str) -> None:
    values, section, frame = market
    grouped = frame.groupby(by)["value"]
    others = grouped.transform("count") - 1
    expected = ((grouped.rank(method="average") - 1) / others - 0.5).where(others > 0, 0.0).where(frame.value.notna())
    np.testing.assert_allclose(kernel(values, section), expected, rtol=1e-12, atol=1e-15)


def test_moments_across_equal_pandas(market: tuple) -> None:
    values, section, frame = market
    mean, deviation = frame.groupby("group")["value"].transform("mean"), _population_std(frame)
    np.testing.assert_allclose(kernels.mean_across(values, section), mean, rtol=1e-12)
    np.testing.assert_allclose(kernels.excess_across(values, section), frame.value - mean, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(kernels.std_across(values, section), deviation, rtol=1e-12)
    np.testing.assert_allclose(kernels.zscore_across(values, section), (frame.value - mean) / deviation, atol=1e-12)
    own = frame.value - frame.groupby("pair")["value"].transform("mean")
    np.testing.assert_allclose(kernels.excess_in_sector(values, section), own, rtol=1e-12, atol=1e-12)


def _population_std(frame: pd.DataFrame) -> pd.Series:
    return frame.groupby("group")["value"].transform(lambda v: v.std(ddof=0))


def test_mean_and_excess_across() -> None:
    values, section = np.array([1.0, np.nan, 3.0, np.nan]), _section([0, 0, 0, 1])
    np.testing.assert_allclose(kernels.mean_across(values, section), [2.0, 2.0, 2.0, np.nan])
    np.testing.assert_allclose(kernels.excess_across(values, section), [-1.0, np.nan, 1.0, np.nan])


def test_equal_values_are_no_deviations_apart() -> None:
    values = np.array([0.1, 0.1, 0.1, np.inf])  # what is not finite does not count
    np.testing.assert_array_equal(kernels.zscore_across(values, _section([0, 0, 0, 0]))[:3], [0.0, 0.0, 0.0])


def test_nothing_to_compare() -> None:
    none = np.zeros(0, np.int64)
    for kernel in (kernels.rank_across, kernels.rank_in_sector, kernels.mean_across, kernels.zscore_across):
        assert kernel(np.zeros(0), kernels.Section(none, none)).shape == (0,)


# --- bar by bar -------------------------------------------------------------------------------------------------------


def test_ratio_never_divides_by_zero() -> None:
    top, bottom = np.array([[1.0, 0.0, np.nan, 1e300]]), np.array([[0.0, 0.0, 0.0, 1e-300]])
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(kernels.ratio(top, bottom, undefined=0.5), [[0.5, 0.5, np.nan, np.nan]])
