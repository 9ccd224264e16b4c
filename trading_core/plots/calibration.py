"""How far probabilities can be trusted, and where the threshold on them was set: a reliability diagram, threshold curves."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from trading_core.errors import InvalidConfigError
from trading_core.metrics.classification import Reliability
from trading_core.plots.figures import BENCHMARK_COLOURS, STRATEGY_COLOURS, stacked_figure, y_axis
from trading_core.schema import FloatArray

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_MARGIN = 0.02  # of the unit square, around what is drawn
_THINNEST = 0.005  # of the drawn stretch: the width of the thinnest bar


def reliability_figure(tables: Mapping[str, Reliability]) -> Figure:
    """The share of outcomes 1 over the mean probability of each bin, beside the diagonal of a calibrated forecast; below,
    where the rows lie: the area of a bin's bar is its share of them, whether bins are of equal width or of equal mass.
    tables: by name, such as "raw" and "calibrated"; at least one with a bin.

    Both axes show the stretch of [0, 1] that the bins take: p_up hardly leaves the middle.
    Errors: InvalidConfigError when there is no bin.
    """
    held = [values for table in tables.values() for values in (table.probability, table.frequency)]
    drawn = np.concatenate(held) if held else np.zeros(0)
    if not len(drawn):
        raise InvalidConfigError("The reliability diagram", ["no bin to draw: give a table with rows"])
    low, high = max(float(drawn.min()) - _MARGIN, 0.0), min(float(drawn.max()) + _MARGIN, 1.0)
    figure = stacked_figure(("share that came true", "density"), (3.0, 1.0))
    figure.add_scatter(
        x=[low, high], y=[low, high], name="perfect", mode="lines", hoverinfo="skip",
        line={"color": BENCHMARK_COLOURS[0], "width": 1.6, "dash": "dash"},
    )  # fmt: skip
    for k, (name, table) in enumerate(tables.items()):
        colour = STRATEGY_COLOURS[k % len(STRATEGY_COLOURS)]
        shares = table.count / max(int(table.count.sum()), 1)
        widths = np.maximum(table.high - table.low, _THINNEST * (high - low))  # a bin of one probability has none
        figure.add_scatter(
            x=table.probability, y=table.frequency, name=html.escape(name), mode="lines+markers", customdata=table.count,
            line={"color": colour, "width": 2.2}, hovertemplate="%{x:.3f} said, %{y:.3f} came, %{customdata} rows",
        )  # fmt: skip
        figure.add_bar(
            x=(table.low + table.high) / 2.0, y=shares / widths, width=widths, customdata=shares, yaxis=y_axis(1),
            name=html.escape(name), showlegend=False, hovertemplate="%{customdata:.1%} of rows",
            marker={"color": colour, "opacity": 0.5, "line": {"width": 0}},
        )  # fmt: skip
    figure.update_layout(
        hovermode="closest",
        barmode="overlay",
        yaxis={"range": [low, high]},
        yaxis2={"showticklabels": False, "nticks": 3},
    )
    figure.update_xaxes(range=[low, high], title={"text": "probability", "standoff": 8, "font": {"size": 12}})
    return figure


def threshold_figure(threshold: FloatArray, curves: Mapping[str, FloatArray], chosen: float) -> Figure:
    """One panel for each of `curves` [K] over the thresholds [K], with a line at the chosen one.

    Errors: InvalidConfigError when there is no curve, or one of another length than `threshold`.
    """
    problems = [f"{name}: {len(v)} values for {len(threshold)} thresholds" for name, v in curves.items()]
    if not curves or any(len(values) != len(threshold) for values in curves.values()):
        raise InvalidConfigError("The threshold curves", problems or ["give at least one curve"])
    figure = stacked_figure(tuple(curves))
    for k, (name, values) in enumerate(curves.items()):
        figure.add_scatter(
            x=threshold, y=values, name=html.escape(name), mode="lines", yaxis=y_axis(k), connectgaps=False,
            line={"color": STRATEGY_COLOURS[k % len(STRATEGY_COLOURS)], "width": 2.2}, hovertemplate="%{y:.4g}",
        )  # fmt: skip
    figure.add_shape(
        type="line", x0=chosen, x1=chosen, xref="x", y0=0.0, y1=1.0, yref="paper",
        line={"color": BENCHMARK_COLOURS[1], "width": 1.6, "dash": "dot"},
    )  # fmt: skip
    figure.add_annotation(
        text=f"chosen: {chosen:.4g}", x=chosen, xref="x", y=1.0, yref="paper", xanchor="auto", yanchor="bottom",
        showarrow=False, font={"size": 12},
    )  # fmt: skip
    figure.update_layout(showlegend=False, margin_t=26)
    figure.update_xaxes(title={"text": "threshold on p_up", "standoff": 8, "font": {"size": 12}})
    return figure
