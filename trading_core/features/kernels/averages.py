"""Exponential averages that forget: the recursion of a textbook, truncated to a window.

GARCH variances are such averages. They stand in this file because they call `_geometric_sum` (see `compiled`).
"""

from __future__ import annotations

import math

import numpy as np

from trading_core.features.kernels.compiled import compiled
from trading_core.features.kernels.windows import rolling_mean
from trading_core.schema import FloatArray

# A truncated exponential average leaves out this share of its weight at most.
TRUNCATED_WEIGHT = 1e-7


def ewm_window(decay: float, left_out: float | None = None) -> int:
    """Bars after which the weights decay^k, k = 0, 1 ..., have all but the share `left_out` of their sum.

    None: TRUNCATED_WEIGHT (read here and not as the default, so that fingerprints know its value).
    """
    return math.ceil(math.log(TRUNCATED_WEIGHT if left_out is None else left_out) / math.log(decay))


def ewm_mean(x: FloatArray, decay: float, min_bars: int, left_out: float | None = None) -> FloatArray:
    """Exponential average: sum of decay^k x[t-k] over sum of decay^k, k < ewm_window(decay, left_out), of bars present.

    NaN where x[t] is missing or fewer than `min_bars` bars of the window are present. A span of n (EMA) is the decay
    (n - 1) / (n + 1), Wilder's smoothing over n is (n - 1) / n. Both definitions start from a seed and never forget it
    completely; here it is forgotten after the window, so the value does not depend on where history begins. Series with
    heavy tails, such as squares, need a smaller `left_out` to be as close to the endless average.
    """
    return _ewm(x, decay, ewm_window(decay, left_out), min_bars)


@compiled
def _ewm(x: FloatArray, decay: float, window: int, min_bars: int) -> FloatArray:
    out = np.full_like(x, np.nan)
    rows = x.shape[1]
    present, value = np.ones(rows), np.empty(rows)
    total, weight, count = np.empty(rows), np.empty(rows), np.empty(rows)
    whole, block, spare = np.empty(rows), np.empty(rows), np.empty(rows)
    _geometric_sum(present, decay, window, whole, block, spare)  # the weight of 1, 2 ... bars without a hole
    for s in range(x.shape[0]):
        first, last, bars = rows, -1, 0
        for t in range(rows):
            here = x[s, t] == x[s, t]
            present[t] = 1.0 if here else 0.0
            value[t] = x[s, t] if here else 0.0
            first = min(first, t) if here else first
            last = t if here else last
            bars += 1 if here else 0
        _geometric_sum(value, decay, window, total, block, spare)
        if bars == last - first + 1:  # the usual row: the same bits without two more sums
            for t in range(first + min_bars - 1, last + 1):
                out[s, t] = total[t] / whole[t - first]
            continue
        _geometric_sum(present, decay, window, weight, block, spare)
        _geometric_sum(present, 1.0, window, count, block, spare)
        for t in range(rows):
            if present[t] > 0.0 and count[t] >= min_bars:
                out[s, t] = total[t] / weight[t]
    return out


@compiled
def _geometric_sum(
    x: FloatArray, decay: float, window: int, total: FloatArray, block: FloatArray, spare: FloatArray
) -> None:
    """total[t] = sum of decay^k x[t-k], k < window, 0 before the first bar. `block`, `spare`: room to work in. [R]"""
    rows = x.shape[0]
    block[:] = x
    size, covered = 1, 0
    while True:
        if window & size:
            if covered == 0:
                total[:] = block
            else:
                factor = decay**covered
                for t in range(covered, rows):
                    total[t] += factor * block[t - covered]
            covered += size
        if 2 * size > window:
            return
        factor = decay**size
        edge = min(size, rows)
        spare[:edge] = block[:edge]
        for t in range(edge, rows):
            spare[t] = block[t] + factor * block[t - size]
        block, spare = spare, block
        size *= 2


# --- GARCH(1,1), and the choice of its parameters by what they have foretold ------------------------------------------


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
