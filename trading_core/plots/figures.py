"""What all figures share: colours, empty figures with the look of the page, a rolling mean.

Backgrounds are transparent and text has no colour: the page's theme gives both.

plotly is imported inside the functions: it is heavy, and only a report needs it.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from trading_core.schema import FloatArray

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Mid tones: legible on white and on near-black.
STRATEGY_COLOURS = ("#3b82f6", "#f97316", "#10b981", "#a855f7", "#ec4899", "#eab308")
CURVE_COLOURS = (*STRATEGY_COLOURS, "#06b6d4", "#ef4444", "#84cc16", "#6366f1")
BENCHMARK_COLOURS = ("#8492a6", "#c08457", "#6b9a8b")
ROLLING_SESSIONS = 21  # about a month
PANEL_GAP = 0.06  # of the figure's height, between panels


def rolling_mean(values: FloatArray, window: int) -> FloatArray:
    """Mean of the finite values among the last `window` [N]; NaN in the first `window - 1` rows."""
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    means = np.full(len(values), np.nan)
    if len(values) >= window:
        number = counts[window:] - counts[:-window]
        total = sums[window:] - sums[:-window]
        means[window - 1 :] = np.where(number > 0, total / np.maximum(number, 1), np.nan)
    return means


def stacked_figure(y_titles: Sequence[str], weights: Sequence[float] = ()) -> Figure:
    """An empty figure of panels under each other on one x axis; panel k draws on axis `y_axis(k)`. weights: heights."""
    figure = base_figure(y_titles[0])
    shares = np.array(weights or [1.0] * len(y_titles))
    heights = (1.0 - PANEL_GAP * (len(shares) - 1)) * shares / shares.sum()
    top = 1.0
    for panel, (title, height) in enumerate(zip(y_titles, heights.tolist(), strict=True)):
        bottom = max(top - height, 0.0)
        axis = {"domain": [bottom, top], "anchor": "x", "zeroline": False, "automargin": True}
        axis["title"] = {"text": html.escape(title), "standoff": 10, "font": {"size": 12}}
        figure.update_layout({"yaxis" if panel == 0 else f"yaxis{panel + 1}": axis})
        top = bottom - PANEL_GAP
    figure.update_layout(xaxis={"anchor": y_axis(len(y_titles) - 1)})
    return figure


def y_axis(panel: int) -> str:
    """The name of a panel's axis: y, y2, y3 ..."""
    return "y" if panel == 0 else f"y{panel + 1}"


def base_figure(y_title: str) -> Figure:
    """An empty figure with the look of all charts."""
    from plotly.graph_objects import Figure

    return Figure(
        layout={
            "template": "none",
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "font": {"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 13},
            "margin": {"l": 58, "r": 14, "t": 40, "b": 34},
            "hovermode": "x unified",
            "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 1.02, "yanchor": "bottom"},
            "xaxis": {"showgrid": False, "ticks": "outside", "ticklen": 4, "tickangle": 0, "automargin": True},
            "yaxis": {
                "title": {"text": y_title, "standoff": 10, "font": {"size": 12}},
                "zeroline": False,
                "automargin": True,
            },
        }
    )
