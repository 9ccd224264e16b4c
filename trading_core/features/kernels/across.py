"""Across symbols: flat arrays ordered by (bar of the market, symbol). What is not finite does not count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trading_core.features.kernels.compiled import compiled
from trading_core.features.kernels.lags import ratio
from trading_core.schema import FloatArray, IntArray

_RANK_CELLS = 1 << 20  # bars x symbols that are sorted together: bounds the memory of a rank


@dataclass(frozen=True, slots=True)
class Section:
    """Which rows are compared. Group numbers are 0, 1 ... without gaps.

    `group`: number of the row's `ts`, ascending [N]. `sector`: number of its (ts, sector) pair [N].
    """

    group: IntArray
    sector: IntArray


def rank_across(values: FloatArray, section: Section) -> FloatArray:
    """Rank within the group, from -0.5 (lowest) to 0.5; ties share their average rank, a lone member is at 0.

    Ties are what is equal as float32, the precision of a stored feature: rounding in float64 is no order.
    """
    if not len(values):
        return np.full(0, np.nan)
    starts = np.flatnonzero(np.diff(section.group, prepend=-1))
    return _ranks(_comparable(values), np.append(starts, len(values)))


def rank_in_sector(values: FloatArray, section: Section) -> FloatArray:
    """`rank_across`, among the symbols of the same sector."""
    order = np.argsort(section.sector, kind="stable")
    out = np.empty(len(values))
    out[order] = rank_across(values[order], Section(section.sector[order], section.sector[order]))
    return out


def _comparable(values: FloatArray) -> np.ndarray:
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    single[~np.isfinite(single)] = np.nan
    return single


def _ranks(values: np.ndarray, edges: IntArray) -> FloatArray:
    """Rank of each float32 within its slice edges[i] .. edges[i+1], sorted as rows of one table: NaN goes last."""
    out = np.full(len(values), np.nan)
    widest = int(np.diff(edges).max())
    step = max(1, _RANK_CELLS // max(widest, 1))
    for first in range(0, len(edges) - 1, step):
        part = edges[first : first + step + 1]
        table = _as_table(values, part, widest)
        _place(table, np.argsort(table, axis=1), part, out)
    return out


@compiled
def _as_table(values: np.ndarray, edges: IntArray, width: int) -> np.ndarray:
    table = np.full((len(edges) - 1, width), np.nan, dtype=np.float32)
    for g in range(len(edges) - 1):
        for i in range(edges[g], edges[g + 1]):
            table[g, i - edges[g]] = values[i]
    return table


@compiled
def _place(table: np.ndarray, order: IntArray, edges: IntArray, out: FloatArray) -> None:
    """Writes the average rank of each tie, scaled to -0.5 .. 0.5."""
    for g in range(table.shape[0]):
        count = 0
        while count < table.shape[1] and table[g, order[g, count]] == table[g, order[g, count]]:
            count += 1
        first = 0
        while first < count:
            last = first
            while last + 1 < count and table[g, order[g, last + 1]] == table[g, order[g, first]]:
                last += 1
            rank = (first + last) / 2.0 / (count - 1) - 0.5 if count > 1 else 0.0
            for i in range(first, last + 1):
                out[edges[g] + order[g, i]] = rank
            first = last + 1


def mean_across(values: FloatArray, section: Section) -> FloatArray:
    """Equal-weight mean of the group's finite values, at every member. NaN where there is none."""
    return _group_mean(values, section.group)[section.group]


def excess_across(values: FloatArray, section: Section) -> FloatArray:
    """Value minus the group's mean."""
    return values - mean_across(values, section)


def excess_in_sector(values: FloatArray, section: Section) -> FloatArray:
    """Value minus the mean of its sector at the same bar. Symbols without a sector form one."""
    return values - _group_mean(values, section.sector)[section.sector]


def std_across(values: FloatArray, section: Section) -> FloatArray:
    """Population standard deviation of the group's finite values, at every member."""
    distance = excess_across(values, section)
    return np.sqrt(mean_across(distance * distance, section))


def zscore_across(values: FloatArray, section: Section) -> FloatArray:
    """Distance to the group's mean in its population standard deviations; 0 where all are equal."""
    distance = excess_across(values, section)
    deviation = np.sqrt(mean_across(distance * distance, section))
    return ratio(distance[None, :], deviation[None, :], undefined=0.0)[0]


def _group_mean(values: FloatArray, group: IntArray) -> FloatArray:
    """Mean of the finite values of each group [G], added one after the other in the order given, that is by symbol."""
    present = np.isfinite(values)
    size = int(group.max()) + 1 if len(group) else 0
    total = np.bincount(group[present], weights=values[present], minlength=size).astype(np.float64)
    count = np.bincount(group[present], minlength=size).astype(np.float64)
    return ratio(total[None, :], count[None, :])[0]
