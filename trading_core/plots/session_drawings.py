"""The small drawings of a session's page, as inline SVG in the colours of the reader's theme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from typing import TypeAlias

from trading_core.plots import page
from trading_core.plots.session_data import OutcomeRow

Range: TypeAlias = tuple[float, float]
BAR = 90  # pixels of the longest bar
WIDTH, HEIGHT = 560, 250  # of the scatter, in its own units
_LEFT, _RIGHT, _BOTTOM, _TOP = 40, 546, 216, 30  # of the dots
DOTS = 600  # symbols that are drawn


def equity_line(curve: Sequence[tuple[date, float]]) -> str:
    """The account's equity over its last sessions; "" for fewer than two."""
    known = [(day, value) for day, value in curve if math.isfinite(value)]
    if len(known) < 2:
        return ""
    low, high = min(value for _, value in known), max(value for _, value in known)
    said = f"Equity from {known[0][0]} to {known[-1][0]}: lowest {low:,.2f}, highest {high:,.2f}"
    low, high = (low, high) if high > low else (low - 1.0, high + 1.0)  # what has not moved lies in the middle
    points = " ".join(
        f"{600 * k / (len(known) - 1):.1f},{66 - 60 * (value - low) / (high - low):.1f}"
        for k, (_, value) in enumerate(known)
    )
    line = (
        f'<svg class="curve" viewBox="0 0 600 72" preserveAspectRatio="none" role="img" aria-label="{page.escape(said)}">'
        f'<polyline points="{points}" fill="none" stroke="var(--accent)" stroke-width="2" '
        'vector-effect="non-scaling-stroke" stroke-linejoin="round"/></svg>'
    )
    return f'<figure class="small">{line}<figcaption>{page.escape(said)}</figcaption></figure>'


def outcome_scatter(rows: Sequence[OutcomeRow]) -> str:
    """Each symbol's forecast (across) and return (up), held ones filled; "" for fewer than three symbols."""
    known = [row for row in rows if math.isfinite(row.forecast) and math.isfinite(row.realised)]
    if len(known) < 3:
        return ""
    # The held ones last: they lie on top, and are kept where there are too many.
    known = sorted(known, key=lambda row: row.held != 0.0)[-DOTS:]
    across, up = _range([row.forecast for row in known]), _range([row.realised for row in known])
    dots = "".join(_dot(row, across, up) for row in known)
    zero_x, zero_y = _place(0.0, across, _LEFT, _RIGHT), _place(0.0, up, _BOTTOM, _TOP)
    labels = (
        f'<text x="{_RIGHT + 10}" y="{zero_y - 5:.1f}" text-anchor="end">forecast</text>'
        f'<text x="{_LEFT}" y="{HEIGHT - 4}">{_percent(across[0]) if across[0] < 0 else ""}</text>'
        f'<text x="{_RIGHT}" y="{HEIGHT - 4}" text-anchor="end">{_percent(across[1])}</text>'
        f'<text x="{zero_x + 6:.1f}" y="{_TOP - 14}">return {_percent(up[1])}</text>'
        f'<text x="{zero_x + 6:.1f}" y="{_BOTTOM + 18}">{_percent(up[0])}</text>'
    )
    drawn = (
        f'<svg class="scatter" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'aria-label="Forecasts and returns of all symbols; the numbers are in the table">'
        f'<line x1="{_LEFT - 20}" x2="{_RIGHT + 10}" y1="{zero_y:.1f}" y2="{zero_y:.1f}"/>'
        f'<line x1="{zero_x:.1f}" x2="{zero_x:.1f}" y1="{_TOP - 16}" y2="{_BOTTOM + 16}"/>{dots}{labels}</svg>'
    )
    caption = "Forecast (across) and return (up) of every symbol; filled: held."
    return f'<figure class="small">{drawn}<figcaption>{caption}</figcaption></figure>'


def weight_bar(weight: float, largest: float) -> str:
    """A bar for a position's share of equity; `largest`: the share whose bar is the longest."""
    if not (math.isfinite(weight) and largest > 0):
        return ""
    kind = " short" if weight < 0 else ""
    return f'<span class="bar{kind}" style="width:{abs(weight) / largest * BAR:.0f}px"></span>'


def _range(values: Sequence[float]) -> Range:
    """The ends of an axis, zero among them."""
    low, high = min(0.0, *values), max(0.0, *values)
    return (low, high) if high > low else (low, low + 1e-4)


def _place(value: float, span: Range, start: float, end: float) -> float:
    return start + (end - start) * (value - span[0]) / (span[1] - span[0])


def _dot(row: OutcomeRow, across: Range, up: Range) -> str:
    x, y = _place(row.forecast, across, _LEFT, _RIGHT), _place(row.realised, up, _BOTTOM, _TOP)
    said = f"{row.symbol}: forecast {page.percent(row.forecast, 2)}, return {page.percent(row.realised, 2)}"
    kind = ' class="held"' if row.held else ""
    return f'<circle{kind} cx="{x:.1f}" cy="{y:.1f}" r="4.5"><title>{page.escape(said)}</title></circle>'


def _percent(value: float) -> str:
    return page.escape(page.percent(value, 2))
