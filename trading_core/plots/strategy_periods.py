"""How a strategy's series are made small for a page: every so many sessions, or one number per month, quarter or year."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from trading_core.plots import embedding
from trading_core.schema import FloatArray, IntArray

POINTS = 200  # of a line
PERIODS = 60  # of bars over time


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """What is drawn of series over the same N sessions.

    index: of the sessions that lines show, every `step`-th; starts: of the P periods that bars show, each a `unit` long, with
    their labels. days, periods: the names under which a page shares both axes.
    """

    sessions: tuple[date, ...]
    days: str
    periods: str
    index: IntArray
    step: int
    starts: IntArray
    labels: tuple[str, ...]
    unit: str

    def sums(self, values: FloatArray) -> FloatArray:
        """Sum [P] of a series [N] over each period."""
        return np.add.reduceat(values, self.starts) if len(values) else np.zeros(0)

    def ends(self, values: FloatArray) -> FloatArray:
        """The last row of each period, [N, ...] -> [P, ...]."""
        return values[np.append(self.starts[1:] - 1, len(values) - 1)]

    @property
    def shared(self) -> str:
        """Both axes for the page, as HTML."""
        drawn = [self.sessions[i].isoformat() for i in self.index]
        return embedding.shared(self.days, drawn) + embedding.shared(self.periods, list(self.labels))


def grid(number: int, sessions: tuple[date, ...]) -> Grid:
    """The grid of N >= 1 ascending sessions; number: tells the grids of a page apart."""
    starts, labels, unit = _periods(sessions)
    step = embedding.stride(len(sessions), POINTS)
    index = embedding.kept(len(sessions), step)
    return Grid(sessions, f"days{number}", f"periods{number}", index, step, starts, labels, unit)


def _periods(sessions: Sequence[date]) -> tuple[IntArray, tuple[str, ...], str]:
    """The shortest of months, quarters and years that makes no more bars than fit."""
    found: list[str] = []
    for unit in ("month", "quarter", "year"):
        found = [_name(day, unit) for day in sessions]
        if len(set(found)) <= PERIODS or unit == "year":
            break
    starts = np.flatnonzero([True, *(a != b for a, b in zip(found[1:], found[:-1], strict=True))]).astype(np.int64)
    return starts, tuple(found[i] for i in starts), unit


def _name(day: date, unit: str) -> str:
    if unit == "month":
        return f"{day:%Y-%m}"
    return f"{day.year} Q{(day.month + 2) // 3}" if unit == "quarter" else str(day.year)
