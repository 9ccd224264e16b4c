"""How likely the best of several variants in the past is to be one of the worse half afterwards.

Source: Bailey, Borwein, Lopez de Prado & Zhu (2017), "The Probability of Backtest Overfitting": combinatorially symmetric
cross-validation (CSCV). The sessions are cut into S blocks; every half of the blocks serves once to choose the variant
with the highest Sharpe ratio, the other half to see where that variant ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from trading_core.errors import InvalidConfigError
from trading_core.metrics.returns import SESSIONS_PER_YEAR
from trading_core.metrics.significance import MIN_RETURNS, Excluded, untestable
from trading_core.schema import BoolArray, FloatArray

BLOCKS = 16  # 12,870 combinations
MAX_BLOCKS = 20  # 184,756
MIN_BLOCKS = 4
_AT_ONCE = 2048  # combinations in memory


@dataclass(frozen=True, slots=True, eq=False)
class Overfitting:
    """What choosing by the past was worth, over C combinations. `reason` says why the figures are NaN, else "".

    pbo: the share of combinations in which the chosen variant ranks in the worse half out of sample (logit <= 0); about
    0.5 where the choice is worth nothing. slope, intercept: of the chosen variant's Sharpe ratio out of sample on that in
    sample; below 0 the better it looked, the worse it did. Where nearly always the same variant is chosen it is below 0 by
    construction (what one half of its returns has, the other lacks) and says nothing against it.
    """

    pbo: float
    slope: float
    intercept: float
    probability_of_loss: float  # share of combinations whose chosen variant has a Sharpe ratio below 0 out of sample
    logits: FloatArray  # [C] log(w / (1 - w)), w = rank out of sample / (M + 1), rank 1 the worst; ties share a rank
    in_sample: FloatArray  # [C] annual Sharpe ratio of the chosen variant where it was chosen
    out_of_sample: FloatArray  # [C] and in the other half
    combinations: int
    blocks: int
    variants: int  # M that were compared
    returns: int
    excluded: tuple[Excluded, ...] = ()
    reason: str = ""


def backtest_overfitting(
    returns: FloatArray,
    names: Sequence[str],
    blocks: int = BLOCKS,
    per_year: int = SESSIONS_PER_YEAR,
    *,
    min_block: int = 10,
) -> Overfitting:
    """CSCV of M variants of one strategy. returns: [N, M] simple returns of the same sessions, in order of time.

    blocks: S, even, from 4 to 20; fewer are used where a block would hold fewer than `min_block` sessions. Blocks differ by
    at most one session. A variant whose returns are not finite, or do not vary in some half of the blocks, is left out and
    named. NaN with the reason for fewer than two variants, or too few sessions for 4 blocks (or fewer than 30).
    Errors: InvalidConfigError.
    """
    if returns.ndim != 2 or returns.shape[1] != len(names):
        raise InvalidConfigError("The variants", [f"returns of shape {returns.shape} for {len(names)} names"])
    if blocks % 2 or not MIN_BLOCKS <= blocks <= MAX_BLOCKS or min_block < 1:
        allowed = f"an even number from {MIN_BLOCKS} to {MAX_BLOCKS}, of at least 1 session"
        raise InvalidConfigError("The blocks", [f"blocks: {blocks} of {min_block} sessions or more; {allowed}"])
    count = len(returns)
    reasons = [untestable(returns[:, m]) or _repeated(returns, names, m) for m in range(len(names))]
    needed = max(MIN_RETURNS, MIN_BLOCKS * min_block)
    if count < needed:
        short = f"only {count} returns; at least {needed} are needed"
        return _undefined(count, _excluded(names, reasons), short)
    used = min(blocks, count // min_block // 2 * 2)
    halves = _halves(used)
    kept = [m for m, reason in enumerate(reasons) if not reason]
    sums = _BlockSums.of(np.asarray(returns, dtype=np.float64)[:, kept], used)
    for m, flat in zip(kept, sums.flat(halves), strict=True):
        reasons[m] = "the returns do not vary in some half of the blocks" if flat else ""
    steady = [k for k, m in enumerate(kept) if not reasons[m]]
    if len(steady) < 2:
        return _undefined(count, _excluded(names, reasons), "fewer than two variants can be compared")
    return _compared(sums.of_columns(steady), halves, count, _excluded(names, reasons), math.sqrt(per_year))


@dataclass(frozen=True, slots=True, eq=False)
class _BlockSums:
    """Of each block: sessions [S], sums and sums of squares of centred returns [S, M]; and the centres [M]."""

    sessions: FloatArray
    sums: FloatArray
    squares: FloatArray
    centre: FloatArray

    @classmethod
    def of(cls, returns: FloatArray, blocks: int) -> _BlockSums:
        centre = returns.mean(axis=0)
        edges = np.linspace(0, len(returns), blocks + 1).astype(int)
        centred = returns - centre
        sums = np.add.reduceat(centred, edges[:-1], axis=0)
        squares = np.add.reduceat(centred**2, edges[:-1], axis=0)
        return cls(np.diff(edges).astype(np.float64), sums, squares, centre)

    def of_columns(self, columns: list[int]) -> _BlockSums:
        return _BlockSums(self.sessions, self.sums[:, columns], self.squares[:, columns], self.centre[columns])

    def variances(self, halves: FloatArray) -> FloatArray:
        """[C, M] with n - 1, of the sessions in each half [C, S] of zeros and ones."""
        count = (halves @ self.sessions)[:, None]
        return np.maximum(halves @ self.squares - (halves @ self.sums) ** 2 / count, 0.0) / (count - 1.0)

    def sharpe(self, halves: FloatArray) -> FloatArray:
        """[C, M] mean / standard deviation, per session."""
        means = self.centre + halves @ self.sums / (halves @ self.sessions)[:, None]
        return np.asarray(means / np.sqrt(self.variances(halves)), dtype=np.float64)

    def flat(self, halves: FloatArray) -> BoolArray:
        """[M] whether a variant stands still in some half, by more than rounding beside all its sessions."""
        lowest = np.full(len(self.centre), np.inf)
        for first in range(0, len(halves), _AT_ONCE):
            lowest = np.minimum(lowest, self.variances(halves[first : first + _AT_ONCE]).min(axis=0))
        return np.asarray(lowest <= 1e-12 * self.variances(np.ones((1, len(self.sessions))))[0], dtype=np.bool_)


def _halves(blocks: int) -> FloatArray:
    """[C, S] every choice of half of the blocks: 1 where a block is chosen."""
    chosen = np.array(list(combinations(range(blocks), blocks // 2)))
    halves = np.zeros((len(chosen), blocks))
    np.put_along_axis(halves, chosen, 1.0, axis=1)
    return halves


def _compared(
    sums: _BlockSums, halves: FloatArray, count: int, excluded: tuple[Excluded, ...], scale: float
) -> Overfitting:
    parts = [_chosen(sums, halves[first : first + _AT_ONCE]) for first in range(0, len(halves), _AT_ONCE)]
    inside, outside, rank = (np.concatenate(column) for column in zip(*parts, strict=True))
    variants = len(sums.centre)
    share = rank / (variants + 1.0)
    logits = np.log(share / (1.0 - share))
    inside, outside = inside * scale, outside * scale
    spread = inside - inside.mean()
    slope = float(spread @ outside / (spread @ spread)) if np.ptp(inside) > 0.0 else math.nan
    return Overfitting(
        pbo=float(np.mean(logits <= 0.0)),
        slope=slope,
        intercept=float(outside.mean() - slope * inside.mean()),
        probability_of_loss=float(np.mean(outside < 0.0)),
        logits=logits,
        in_sample=inside,
        out_of_sample=outside,
        combinations=len(halves),
        blocks=halves.shape[1],
        variants=variants,
        returns=count,
        excluded=excluded,
    )


def _chosen(sums: _BlockSums, halves: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The chosen variant's Sharpe ratio in each half and in the other, and its rank there, 1 the worst: [C] each."""
    inside, outside = sums.sharpe(halves), sums.sharpe(1.0 - halves)
    rows, best = np.arange(len(halves)), inside.argmax(axis=1)
    reached = outside[rows, best]
    below, level = (outside < reached[:, None]).sum(axis=1), (outside == reached[:, None]).sum(axis=1)
    return inside[rows, best], reached, below + (level + 1.0) / 2.0


def _repeated(returns: FloatArray, names: Sequence[str], variant: int) -> str:
    """Why a variant with the same returns as an earlier one is left out: the two would rank as one, in the lower half."""
    for other in range(variant):
        if np.array_equal(returns[:, other], returns[:, variant]):
            return f"its returns are those of {names[other]}"
    return ""


def _excluded(names: Sequence[str], reasons: Sequence[str]) -> tuple[Excluded, ...]:
    return tuple(Excluded(str(name), reason) for name, reason in zip(names, reasons, strict=True) if reason)


def _undefined(count: int, excluded: tuple[Excluded, ...], reason: str) -> Overfitting:
    none = np.zeros(0)
    return Overfitting(
        pbo=math.nan,
        slope=math.nan,
        intercept=math.nan,
        probability_of_loss=math.nan,
        logits=none,
        in_sample=none,
        out_of_sample=none,
        combinations=0,
        blocks=0,
        variants=0,
        returns=count,
        excluded=excluded,
        reason=reason,
    )
