"""Numbers for a page, small: rounded, thinned out where a series is long, and figures that share them or take turns.

A figure whose traces name shared numbers is drawn by `page.SCRIPT`; figures that a list switches are drawn by
`page_scripts.SWITCH`, from one template and, per entry of the list, the numbers that differ.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from trading_core.plots import page
from trading_core.schema import FloatArray, IntArray

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_TICK = 85  # pixels that a tick of a time axis takes
Patch = dict[str, Any]  # what plotly calls an update: of one trace, or of a layout


@dataclass(frozen=True, slots=True)
class Place:
    """Where a figure of a page goes. name: unique in the page; label: what it shows, for a reader who cannot see it."""

    name: str
    label: str
    height: int


@dataclass(frozen=True, slots=True)
class Turn:
    """What one entry of a list does to a figure: one patch per trace of its template, and one of its layout."""

    traces: tuple[Patch, ...]
    layout: Patch


def numbers(values: FloatArray | Sequence[float], digits: int) -> list[float | int | None]:
    """Rounded, [N]; whole numbers without a point, None for what is not finite."""
    found: list[float | int | None] = []
    for value in np.asarray(values, dtype=np.float64).tolist():
        if not math.isfinite(value):
            found.append(None)
            continue
        rounded = round(value, digits)
        found.append(int(rounded) if rounded == int(rounded) else rounded)
    return found


def stride(count: int, limit: int) -> int:
    """Every how many of `count` values are drawn so that at most about `limit` are."""
    return max(1, math.ceil(count / max(limit, 1)))


def kept(count: int, step: int) -> IntArray:
    """Indices of every `step`-th of `count` values, ascending: the last one and the first one always among them."""
    back = np.arange(count - 1, -1, -step, dtype=np.int64)[::-1]
    return back if not count or back[0] == 0 else np.concatenate([np.zeros(1, dtype=np.int64), back])


def lowest(values: FloatArray, index: IntArray) -> FloatArray:
    """The lowest of the values after the index before, up to each of `index` (as `kept` gives it); NaN where none is known."""
    starts = np.concatenate([[0], index[:-1] + 1])[: len(index)]
    found = np.minimum.reduceat(np.where(np.isfinite(values), values, np.inf), starts) if len(index) else values[:0]
    return np.where(np.isfinite(found), found, np.nan)


def compact(value: object) -> str:
    """JSON without blanks; "<" is written as an escape so that no text can close the script element."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def shared(name: str, values: object) -> str:
    """Numbers or dates that several traces use: they give `name` as their x or y."""
    return f'<script type="application/json" data-shared="{page.escape(name)}">{compact(values)}</script>'


def place(spot: Place) -> str:
    """The element that a figure is drawn into."""
    return (
        f'<div class="chart" id="{spot.name}" role="img" aria-label="{page.escape(spot.label)}" '
        f'style="height:{spot.height}px"></div>'
    )


def chart(spot: Place, figure: Figure, patches: Sequence[Patch] = ()) -> str:
    """A figure in its place. patches: one per trace, such as {"x": the name of shared numbers, "y": [...]}."""
    return place(spot) + _source(spot, figure, patches, "")


def switched_chart(spot: Place, figure: Figure, switch: str) -> str:
    """A figure in its place that is drawn as the list `switch` says; its traces are a template, see `switch_data`."""
    return place(spot) + _source(spot, figure, (), f' data-switch="{switch}"')


def switch_data(switch: str, entries: Sequence[dict[str, Turn | None]]) -> str:
    """Per entry of the list `switch`: what it does to each figure by name; None: nothing to show there."""
    data = [
        {
            name: None if turn is None else {"traces": list(turn.traces), "layout": turn.layout}
            for name, turn in entry.items()
        }
        for entry in entries
    ]
    return f'<script type="application/json" data-entries="{switch}">{compact(data)}</script>'


def key(names: Sequence[str], colours: Sequence[str]) -> str:
    """What the colours of a chart stand for, in lines that break where the page is narrow; colours may come round again."""
    items = "".join(
        f'<span><i style="background:{colours[k % len(colours)]}"></i>{page.escape(name)}</span>'
        for k, name in enumerate(names)
    )
    return f'<div class="key">{items}</div>'


def chooser(switch: str, label: str, names: Sequence[str]) -> str:
    """The list of a switch; the first entry is chosen."""
    options = "".join(f'<option value="{k}">{page.escape(name)}</option>' for k, name in enumerate(names))
    return (
        f'<div class="chooser"><label for="pick-{switch}">{page.escape(label)}</label>'
        f'<select id="pick-{switch}" data-pick="{switch}" autocomplete="off">{options}</select></div>'
    )


def turns(switch: str, blocks: Sequence[str]) -> str:
    """HTML that takes turns: only the block of the chosen entry shows."""
    return "".join(
        f'<div data-turn="{switch}" data-entry="{k}"{"" if k == 0 else " hidden"}>{block}</div>'
        for k, block in enumerate(blocks)
    )


def _source(spot: Place, figure: Figure, patches: Sequence[Patch], switch: str) -> str:
    drawn = json.loads(figure.to_json())  # arrays as plotly writes them
    drawn["layout"]["meta"] = {"tick": _TICK}
    if patches:
        drawn["data"] = [{**trace, **patch} for trace, patch in zip(drawn["data"], patches, strict=True)]
    return f'<script type="application/json" data-chart="{spot.name}"{switch}>{compact(drawn)}</script>'
