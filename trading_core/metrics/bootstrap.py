"""The stationary bootstrap: what else a series of dependent returns could have been.

Sources: Politis & Romano (1994), "The Stationary Bootstrap"; Politis & White (2004), "Automatic Block-Length Selection
for the Dependent Bootstrap", with the correction of Patton, Politis & White (2009).

A resample of N days is made of blocks of consecutive days: a block starts at any day with equal chance, ends after each
day with probability 1 / block length, and goes on from the last day of the series to the first. All columns of a matrix
are resampled with the same days, so what binds them together stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
from numba import njit

from trading_core.errors import InvalidConfigError
from trading_core.metrics.returns import varies
from trading_core.schema import FloatArray, IntArray

KernelT = TypeVar("KernelT", bound=Callable[..., object])

# Steele, Lea & Flood (2014), "Fast Splittable Pseudorandom Number Generators": splitmix64. Unsigned constants, because
# numba makes a float of an unsigned number beside a signed one.
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLIER_1, _MULTIPLIER_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFT_1, _SHIFT_2, _SHIFT_3, _HALF = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_ALWAYS = np.uint64(2**32)  # above every 32-bit number: a new block for certain


@dataclass(frozen=True, slots=True, eq=False)
class Resamples:
    """Of B resamples of M columns: `means` [B, M] and `deviations` [B, M], the standard deviations with n - 1."""

    means: FloatArray
    deviations: FloatArray
    block_length: float


def stationary_bootstrap(
    values: FloatArray, block_length: float, resamples: int, seed: int, threads: int = 2
) -> Resamples:
    """Means and standard deviations of resamples of `values`, [N] (one column) or [N, M], finite, N >= 2.

    block_length: the mean length of a block in days, 1 (independent days) or more. Resample b is a function of (seed, b)
    alone: fewer resamples are the first of many, and the number of threads changes no bit.
    Errors: InvalidConfigError.
    """
    matrix = values[:, None] if values.ndim == 1 else values
    restart = _restart(len(matrix), block_length, resamples, threads)
    if not np.isfinite(matrix).all():
        raise InvalidConfigError("The bootstrap", ["values: some are not finite"])
    centre = matrix.mean(axis=0)
    centred = np.array(matrix - centre, dtype=np.float64, order="C")  # small sums: their squares lose no digits
    sums, squares = np.zeros((resamples, centred.shape[1])), np.zeros((resamples, centred.shape[1]))

    def part(first: int, last: int) -> None:
        _resampled_sums(centred, restart, _seeded(seed), first, sums[first:last], squares[first:last])

    edges = np.linspace(0, resamples, min(threads, resamples) + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(part, edges[:-1], edges[1:]))
    count = len(centred)
    means = sums / count
    variances = np.maximum(squares - count * means**2, 0.0) / (count - 1)
    return Resamples(means + centre, np.sqrt(variances), block_length)


def resampled_days(count: int, block_length: float, seed: int, number: int) -> IntArray:
    """[count] the days that resample `number` of `stationary_bootstrap` with the same seed and length is made of.

    For statistics other than means and deviations. Errors: InvalidConfigError.
    """
    days = np.empty(count, dtype=np.int64)
    _resampled_days(_restart(count, block_length, 1, 1), _seeded(seed), number, days)
    return days


def stationary_variance(values: FloatArray, block_length: float) -> FloatArray:
    """[M] what N times the variance of a column's resampled mean tends to with the number of resamples.

    values [N] or [N, M]. Two days of a resample that lie k apart are k apart in the series with probability (1 - p)^k,
    p = 1 / block length, and else independent: c_0 + 2 sum_k (1 - k / N) (1 - p)^k c_k, with c_k the autocovariance
    (over N) of the series closed to a circle (Politis & Romano 1994).
    """
    matrix = values[:, None] if values.ndim == 1 else values
    count = len(matrix)
    spectrum = np.abs(np.fft.rfft(matrix - matrix.mean(axis=0), axis=0)) ** 2
    circular = np.fft.irfft(spectrum, count, axis=0) / count
    lag = np.arange(count)
    weights = np.where(lag == 0, 1.0, 2.0) * (1.0 - lag / count) * (1.0 - 1.0 / block_length) ** lag
    return np.asarray(weights @ circular, dtype=np.float64)


def optimal_block_length(values: FloatArray) -> float:
    """The mean block length that makes the bootstrapped variance of the mean of `values` [N] most exact.

    Politis & White (2004) with the correction of 2009, for the stationary bootstrap: (2 g^2 / d * N)^(1/3), with g the sum
    of |k| c_k and d twice the square of the sum of c_k, both under a flat-top window that ends at twice the first of
    max(5, log10 N) lags in a row whose correlations lie within 2 sqrt(log10(N) / N). From 1 to min(3 sqrt(N), N / 3),
    rounded up. NaN for fewer than 10 values, or values that do not vary or are not finite.
    """
    count = len(values)
    if count < 10 or not np.isfinite(values).all() or not varies(values):
        return math.nan
    run = max(5, int(math.log10(count)))
    widest = min(math.ceil(math.sqrt(count)) + run, count - 1)
    longest = float(math.ceil(min(3.0 * math.sqrt(count), count / 3.0)))
    centred = values - values.mean()
    covariances = np.array([centred[k:] @ centred[: count - k] for k in range(widest + 1)]) / count
    small = np.abs(covariances / covariances[0]) < 2.0 * math.sqrt(math.log10(count) / count)
    runs = [k for k in range(1, widest - run + 1) if small[k : k + run].all()]
    window = min(2 * runs[0], widest) if runs else widest
    lag = np.arange(1, window + 1)
    tapered = 2.0 * np.minimum(1.0, 2.0 * (1.0 - lag / window)) * covariances[1 : window + 1]
    long_run = covariances[0] + tapered.sum()
    if long_run == 0.0:
        return longest
    length = (float(tapered @ lag) / float(long_run)) ** 2 * count
    return min(max(length ** (1.0 / 3.0), 1.0), longest)


def _restart(count: int, block_length: float, resamples: int, threads: int) -> np.uint64:
    """The chance that a day starts a new block, in parts of 2^32. Errors: InvalidConfigError."""
    problems = []
    if count < 2:
        problems.append(f"values: {count} days; at least 2")
    if not (math.isfinite(block_length) and block_length >= 1.0):
        problems.append(f"block_length: {block_length}; at least 1")
    if resamples < 1:
        problems.append(f"resamples: {resamples}; at least 1")
    if threads < 1:
        problems.append(f"threads: {threads}; at least 1")
    if problems:
        raise InvalidConfigError("The bootstrap", problems)
    return np.uint64(round(2**32 / block_length))


def _seeded(seed: int) -> np.uint64:
    return np.uint64(seed % 2**64)


# --- compiled ---------------------------------------------------------------------------------------------------------


def _compiled(function: KernelT) -> KernelT:
    """Machine code on first use, kept on disk; one thread and no fast math, so the order of operations is the source's.
    It is made anew only when this file changes: compiled functions here call compiled ones of this file only."""
    return cast(KernelT, njit(nogil=True, cache=True, error_model="numpy")(function))


@_compiled
def _mixed(state: np.uint64) -> np.uint64:
    """64 well mixed bits of a counter."""
    state = (state ^ (state >> _SHIFT_1)) * _MULTIPLIER_1
    state = (state ^ (state >> _SHIFT_2)) * _MULTIPLIER_2
    return state ^ (state >> _SHIFT_3)


@_compiled
def _stream(seed: np.uint64, number: int) -> np.uint64:
    """Where the counter of resample `number` starts."""
    return _mixed(_mixed(seed) + np.uint64(number + 1) * _GAMMA)


@_compiled
def _next_day(day: np.int64, draw: np.uint64, count: np.uint64, restart: np.uint64) -> np.int64:
    """The day after `day`, or any day where a new block starts: the low half of `draw` says whether, the high half which."""
    if (draw & _LOW) < restart:
        return np.int64(((draw >> _HALF) * count) >> _HALF)
    return np.int64(day + 1) if day + 1 < np.int64(count) else np.int64(0)


@_compiled
def _resampled_days(restart: np.uint64, seed: np.uint64, number: int, days: IntArray) -> None:
    state, count, day = _stream(seed, number), np.uint64(len(days)), np.int64(0)
    for t in range(len(days)):
        state += _GAMMA
        day = _next_day(day, _mixed(state), count, _ALWAYS if t == 0 else restart)
        days[t] = day


@_compiled
def _resampled_sums(
    values: FloatArray, restart: np.uint64, seed: np.uint64, first: int, sums: FloatArray, squares: FloatArray
) -> None:
    """Adds the values [N, M] of resamples first, first + 1 ... to `sums` [B, M], their squares to `squares`."""
    rows, columns = values.shape
    count = np.uint64(rows)
    for b in range(sums.shape[0]):
        state, day = _stream(seed, first + b), np.int64(0)
        for t in range(rows):
            state += _GAMMA
            day = _next_day(day, _mixed(state), count, _ALWAYS if t == 0 else restart)
            for m in range(columns):
                sums[b, m] += values[day, m]
                squares[b, m] += values[day, m] * values[day, m]
