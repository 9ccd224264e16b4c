"""GARCH(1,1) variances by the tree, and the choice of their parameters by what they have foretold."""

from __future__ import annotations

import math

import numpy as np

from trading_core.features.kernels.averages import _geometric_sum
from trading_core.features.kernels.compiled import compiled
from trading_core.features.kernels.windows import rolling_mean
from trading_core.schema import FloatArray


def garch_variance(returns: FloatArray, alpha: float, beta: float, target_bars: int) -> FloatArray:
    """Variance of the return after t, h[t+1] = (1 - alpha - beta) v + alpha r[t]^2 + beta h[t]. [S, R] -> [S, R]

    v: mean of r^2 over the last `target_bars` bars (variance targeting, no mean return). The recursion is truncated to
    the same bars and starts from h = v, so the share beta^target_bars of what h was in truth then is left out.
    NaN where one of the last `target_bars` returns is missing.
    Reference: Bollerslev (1986); Engle and Mezrich (1996), GARCH for groups, for the targeting.
    """
    squares = returns * returns
    return _variance(squares, rolling_mean(squares, target_bars), alpha, beta, target_bars)


@compiled
def _variance(squares: FloatArray, target: FloatArray, alpha: float, beta: float, window: int) -> FloatArray:
    out = np.empty_like(squares)
    rows = squares.shape[1]
    total, block, spare = np.empty(rows), np.empty(rows), np.empty(rows)
    for s in range(squares.shape[0]):
        _geometric_sum(squares[s], beta, window, total, block, spare)
        _closed_form(total, target[s], alpha, beta, window, out[s])
    return out


@compiled
def _closed_form(
    total: FloatArray, target: FloatArray, alpha: float, beta: float, window: int, out: FloatArray
) -> None:
    """The recursion written out: alpha sum(beta^k r^2[t-k]) + what the constant and the start leave of the target."""
    left = beta**window
    share = (1.0 - alpha - beta) * (1.0 - left) / (1.0 - beta) + left
    for t in range(total.shape[0]):
        out[t] = alpha * total[t] + share * target[t]


def prequential_garch(
    returns: FloatArray, pairs: tuple[tuple[float, float], ...], target_bars: int, score_bars: int, least: int
) -> tuple[FloatArray, FloatArray]:
    """`garch_variance` by the pair (alpha, beta) that has foretold best, and that pair's place in `pairs`. [S, R] each.

    At each bar a pair is scored by the Gaussian log density of the bar's return under the variance it gave the bar
    before. At t the pair with the highest sum over the last `score_bars` bars is taken, the first of several equal.
    Pairs of one beta should stand together: they share the sum over the past.
    NaN where the variance is, and where fewer than `least` of the bars could be scored.
    Depends on the last `score_bars` + `target_bars` returns.
    Reference: Dawid (1984), Present position and potential developments: the prequential approach.
    """
    squares = returns * returns
    return _prequential(squares, rolling_mean(squares, target_bars), pairs, target_bars, score_bars, least)


@compiled
def _prequential(
    squares: FloatArray,
    target: FloatArray,
    pairs: tuple[tuple[float, float], ...],
    window: int,
    score_bars: int,
    least: int,
) -> tuple[FloatArray, FloatArray]:
    out, choice = np.full_like(squares, np.nan), np.full_like(squares, np.nan)
    rows = squares.shape[1]
    past, block, spare = np.empty(rows), np.empty(rows), np.empty(rows)
    h, score, total, best = np.empty(rows), np.empty(rows), np.empty(rows), np.empty(rows)
    count = np.empty(rows)
    for s in range(squares.shape[0]):
        best[:] = -np.inf
        known = 0.0  # the beta whose sum `past` holds
        for i in range(len(pairs)):
            alpha, beta = pairs[i]
            if beta != known:
                _geometric_sum(squares[s], beta, window, past, block, spare)
                known = beta
            _closed_form(past, target[s], alpha, beta, window, h)
            if i == 0:  # which bars can be scored does not depend on the pair
                _scorable(h, squares[s], score)
                _geometric_sum(score, 1.0, score_bars, count, block, spare)
            _log_scores(h, squares[s], score)
            _geometric_sum(score, 1.0, score_bars, total, block, spare)
            for t in range(rows):
                if h[t] > 0.0 and count[t] >= least and total[t] > best[t]:
                    best[t] = total[t]
                    out[s, t] = h[t]
                    choice[s, t] = i
    return out, choice


@compiled
def _scorable(h: FloatArray, squares: FloatArray, out: FloatArray) -> None:
    out[:1] = 0.0
    for t in range(1, h.shape[0]):
        out[t] = 1.0 if h[t - 1] > 0.0 and squares[t] == squares[t] else 0.0


@compiled
def _log_scores(h: FloatArray, squares: FloatArray, out: FloatArray) -> None:
    """Twice the Gaussian log density of each return, the constant left out; 0 where there is none."""
    out[:1] = 0.0
    for t in range(1, h.shape[0]):
        there = h[t - 1] > 0.0 and squares[t] == squares[t]
        out[t] = -(math.log(h[t - 1]) + squares[t] / h[t - 1]) if there else 0.0
