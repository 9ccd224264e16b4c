"""Frames -> plotly figures. Backgrounds are transparent and text has no colour: the page's theme gives both.

plotly is imported inside the functions: it is heavy, and only a report needs it.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np

from trading_core.metrics.returns import drawdowns
from trading_core.schema import FloatArray

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

# Mid tones: legible on white and on near-black.
STRATEGY_COLOURS = ("#3b82f6", "#f97316", "#10b981", "#a855f7", "#ec4899", "#eab308")
BENCHMARK_COLOURS = ("#8492a6", "#c08457", "#6b9a8b")
ROLLING_SESSIONS = 21  # about a month
PANEL_GAP = 0.06  # of the figure's height, between panels


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """An equity curve [N] to draw; a benchmark is drawn thinner, dashed and grey."""

    name: str
    sessions: Sequence[date]
    equity: FloatArray
    benchmark: bool = False


def equity_figure(curves: Sequence[Curve]) -> Figure:
    """Growth of 1 after costs, logarithmic: equal distances are equal percentages."""
    figure = base_figure("growth of 1, log scale")
    low, high = 1.0, 1.0
    for curve, line in zip(curves, _lines(curves), strict=True):
        growth = curve.equity / curve.equity[0]
        low, high = min(low, float(np.nanmin(growth))), max(high, float(np.nanmax(growth)))
        figure.add_scatter(
            x=list(curve.sessions), y=growth, name=html.escape(curve.name), mode="lines", line=line,
            hovertemplate="%{y:.3f}",
        )  # fmt: skip
    ticks = log_ticks(low, high)
    figure.update_yaxes(type="log", tickmode="array", tickvals=ticks, ticktext=[f"{tick:.4g}" for tick in ticks])
    return figure


def drawdown_figure(curves: Sequence[Curve]) -> Figure:
    """How far each curve lies below its highest value so far."""
    figure = base_figure("below the peak")
    figure.update_layout(showlegend=False, margin_t=12)
    for curve, line in zip(curves, _lines(curves), strict=True):
        figure.add_scatter(
            x=list(curve.sessions), y=drawdowns(curve.equity), name=html.escape(curve.name), mode="lines", line=line,
            hovertemplate="%{y:.1%}",
        )  # fmt: skip
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    return figure


def ic_figure(sessions: Sequence[date], ic: FloatArray) -> Figure:
    """The rank correlation of forecast and outcome: one bar per session [N], and its mean over the last 21."""
    figure = base_figure("rank correlation")
    figure.add_bar(
        x=list(sessions), y=ic, name="daily", marker={"color": "rgba(132,146,166,0.45)", "line": {"width": 0}},
        hovertemplate="%{y:.3f}",
    )  # fmt: skip
    figure.add_scatter(
        x=list(sessions), y=rolling_mean(ic, ROLLING_SESSIONS), name=f"mean of {ROLLING_SESSIONS}", mode="lines",
        line={"color": STRATEGY_COLOURS[0], "width": 2.2}, hovertemplate="%{y:.3f}",
    )  # fmt: skip
    figure.update_layout(bargap=0.15)
    return figure


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


def log_ticks(low: float, high: float) -> list[float]:
    """Round values between `low` and `high` (both above 0) for a logarithmic axis: about four to nine of them."""
    if high / low > 20:
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        return [m * 10.0**e for e in exponents for m in (1, 2, 5) if low * 0.99 <= m * 10.0**e <= high * 1.01]
    rough = (high - low) / 6 or 0.01
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(i * step, 10) for i in range(first, last + 1) if i > 0]


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


def _lines(curves: Sequence[Curve]) -> list[dict[str, object]]:
    lines: list[dict[str, object]] = []
    strategies = benchmarks = 0
    for curve in curves:
        if curve.benchmark:
            colour = BENCHMARK_COLOURS[benchmarks % len(BENCHMARK_COLOURS)]
            lines.append({"color": colour, "width": 1.6, "dash": ("dash", "dot", "dashdot")[benchmarks % 3]})
            benchmarks += 1
        else:
            lines.append({"color": STRATEGY_COLOURS[strategies % len(STRATEGY_COLOURS)], "width": 2.2})
            strategies += 1
    return lines


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
