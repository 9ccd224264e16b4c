"""Across symbols: flat arrays ordered by (bar of the market, symbol). What is not finite does not count."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trading_core.features.kernels.compiled import compiled
from trading_core.features.kernels.lags import ratio
from trading_core.schema import FloatArray, IntArray

_RANK_CELLS = 1 << 20  # bars x symbols that are sorted together: bounds the memory of a rank
_MISSING = np.iinfo(np.int64).max


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
        single = values.astype(np.float32) + np.float32(0.0)  # -0 becomes 0
    single[~np.isfinite(single)] = np.nan
    return single


def _ranks(values: np.ndarray, edges: IntArray) -> FloatArray:
    """Rank of each float32 within its slice edges[i] .. edges[i+1], sorted as rows of one table."""
    out = np.full(len(values), np.nan)
    widest = int(np.diff(edges).max())
    step = max(1, _RANK_CELLS // max(widest, 1))
    bits = values.view(np.int32)
    for first in range(0, len(edges) - 1, step):
        part = edges[first : first + step + 1]
        table = _as_table(bits, part, widest)
        table.sort(axis=1)
        _place(table, part, out)
    return out


@compiled
def _as_table(bits: np.ndarray, edges: IntArray, width: int) -> IntArray:
    """A row per slice: the float32 as a number of the same order, and behind it the place it stands at; last what is NaN.

    Sorting whole numbers is several times faster than finding the order of floats.
    """
    table = np.full((len(edges) - 1, width), _MISSING)
    for g in range(len(edges) - 1):
        for i in range(edges[g], edges[g + 1]):
            number = np.int64(bits[i])
            if number & 0x7FFFFFFF <= 0x7F800000:  # not NaN
                ordered = number if number >= 0 else number ^ 0x7FFFFFFF
                table[g, i - edges[g]] = (ordered << 32) | (i - edges[g])
    return table


@compiled
def _place(table: IntArray, edges: IntArray, out: FloatArray) -> None:
    """Writes the average rank of each tie, scaled to -0.5 .. 0.5."""
    for g in range(table.shape[0]):
        count = np.searchsorted(table[g], _MISSING)
        first = 0
        while first < count:
            last = first
            while last + 1 < count and table[g, last + 1] >> 32 == table[g, first] >> 32:
                last += 1
            rank = (first + last) / 2.0 / (count - 1) - 0.5 if count > 1 else 0.0
            for i in range(first, last + 1):
                out[edges[g] + (table[g, i] & 0xFFFFFFFF)] = rank
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
    """Population standard deviation of the group's finite values, at every member; exactly 0 where all are equal."""
    distance = _distance(values, section)
    return np.sqrt(mean_across(distance * distance, section))


def zscore_across(values: FloatArray, section: Section) -> FloatArray:
    """Distance to the group's mean in its population standard deviations; 0 where all are equal."""
    distance = _distance(values, section)
    deviation = np.sqrt(mean_across(distance * distance, section))
    return ratio(distance[None, :], deviation[None, :], undefined=0.0)[0]


def _distance(values: FloatArray, section: Section) -> FloatArray:
    """Value minus the group's mean, counted from the group's first value: a rounded mean of equal values may be none of
    them (that of three times 0.1 is not 0.1), and what is left would pass for a deviation."""
    rows = np.flatnonzero(np.isfinite(values))[::-1]
    first = np.full(int(section.group.max(initial=-1)) + 1, np.nan)
    first[section.group[rows]] = values[rows]  # of several writes to one place the last one stays: the first row's
    return excess_across(values - first[section.group], section)


def _group_mean(values: FloatArray, group: IntArray) -> FloatArray:
    """Mean of the finite values of each group [G], added one after the other in the order given, that is by symbol."""
    total, count = _group_sums(values, group, int(group.max(initial=-1)) + 1)
    return ratio(total[None, :], count[None, :])[0]


@compiled
def _group_sums(values: FloatArray, group: IntArray, size: int) -> tuple[FloatArray, FloatArray]:
    total, count = np.zeros(size), np.zeros(size)
    for i in range(len(values)):
        if np.isfinite(values[i]):
            total[group[i]] += values[i]
            count[group[i]] += 1.0
    return total, count
