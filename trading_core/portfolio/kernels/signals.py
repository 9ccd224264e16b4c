"""The arithmetic of signals that has no natural form as whole arrays: choosing among symbols, and baskets of them."""

from __future__ import annotations

import math

import numpy as np

from trading_core.portfolio.kernels.account import usable
from trading_core.portfolio.kernels.allocation import _mark_best
from trading_core.portfolio.kernels.compiled import compiled
from trading_core.schema import BoolArray, FloatArray, IntArray

_STILL = 1e-9  # a deviation of returns below it is float noise of a price that never moved: a split restates prices


@compiled
def best_of(signal: FloatArray, counts: IntArray) -> BoolArray:
    """[R, S] the `counts[r]` highest signals of each row [R, S]; of equal ones the first columns. NaN and -inf: never."""
    best = np.zeros(signal.shape, np.bool_)
    for r in range(len(signal)):
        _mark_best(signal[r], counts[r], best[r])
    return best


@compiled
def carry_forward(closes: FloatArray, factor: FloatArray) -> tuple[FloatArray, FloatArray]:
    """[T, S] the close of the last bar up to each session and the split factor of its session; NaN and 1 before the first."""
    last_closes, last_factor = np.empty_like(closes), np.empty_like(factor)
    for t in range(len(closes)):
        for s in range(closes.shape[1]):
            if usable(closes[t, s]):
                last_closes[t, s], last_factor[t, s] = closes[t, s], factor[t, s]
            elif t > 0:
                last_closes[t, s], last_factor[t, s] = last_closes[t - 1, s], last_factor[t - 1, s]
            else:
                last_closes[t, s], last_factor[t, s] = math.nan, 1.0
    return last_closes, last_factor


@compiled
def _add_returns(closes: FloatArray, factor: FloatArray, own: float, weight: float, returns: FloatArray) -> None:
    """Adds `weight` times the simple returns of one symbol's closes [W + 1], restated to the basis `own`, to `returns` [W]."""
    before = closes[0] * (factor[0] / own)
    for i in range(len(returns)):
        price = closes[i + 1] * (factor[i + 1] / own)
        returns[i] += weight * (price / before - 1.0)
        before = price


@compiled
def _deviation(values: FloatArray) -> float:
    """Standard deviation with n - 1, summed in order."""
    total, squares = 0.0, 0.0
    for i in range(len(values)):
        total += values[i]
    mean = total / len(values)
    for i in range(len(values)):
        squares += (values[i] - mean) ** 2
    return math.sqrt(squares / (len(values) - 1))


@compiled
def target_volatility_weights(
    closes: FloatArray, factor: FloatArray, own: FloatArray, chosen: BoolArray, window: int, goal: float, inverse: bool
) -> FloatArray:
    """[R, S] weights of each row's `chosen` basket [R, S], scaled down to the volatility `goal` (per session).

    closes, factor: [T, S] as in `signals.Carried`; own: [R, S] the split factor of each decision, whose rows are the last R
    of T. Only baskets of names whose last `window` + 1 closes are known may be asked for. Before scaling a basket sums to 1:
    equal weights, or with `inverse` in proportion to 1 / its own volatility; a name that never moved then gets none.
    """
    weights, returns = np.zeros(chosen.shape), np.empty(window)
    first = len(closes) - len(chosen)
    for r in range(len(chosen)):
        span = slice(first + r - window, first + r + 1)
        total = 0.0
        for s in range(chosen.shape[1]):
            if chosen[r, s]:
                weights[r, s] = 1.0
                if inverse:
                    returns[:] = 0.0
                    _add_returns(closes[span, s], factor[span, s], own[r, s], 1.0, returns)
                    deviation = _deviation(returns)
                    weights[r, s] = 1.0 / deviation if deviation > _STILL else 0.0
                total += weights[r, s]
        returns[:] = 0.0
        for s in range(chosen.shape[1]):
            if weights[r, s] > 0.0:
                weights[r, s] /= total
                _add_returns(closes[span, s], factor[span, s], own[r, s], weights[r, s], returns)
        deviation = _deviation(returns)
        if deviation > goal:
            weights[r] *= goal / deviation
    return weights
