"""What a model looked at: the weight of each variable, and of each past session."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from trading_core.errors import InvalidConfigError
from trading_core.plots.figures import BENCHMARK_COLOURS, STRATEGY_COLOURS, base_figure
from trading_core.schema import FloatArray

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def importance_figure(names: Sequence[str], weights: FloatArray, top: int = 20) -> Figure:
    """Bars of the `top` heaviest variables, the heaviest one above; the others are summed up in one last bar.

    names: C; weights: [C] of at least 0, such as the mean selection weights of a TFT. Bars show shares of their sum.
    Errors: InvalidConfigError for weights that are negative, not finite, all zero or not one per name.
    """
    _check("The variable importance", weights, len(names))
    shares = weights / weights.sum()
    order = np.argsort(-shares, kind="stable")
    shown, rest = order[:top], order[top:]
    labels, values = [html.escape(names[i]) for i in shown], shares[shown].tolist()
    colours = [STRATEGY_COLOURS[0]] * len(shown)
    if len(rest):
        labels.append(f"{len(rest)} others")
        values.append(float(shares[rest].sum()))
        colours.append(BENCHMARK_COLOURS[0])
    figure = base_figure("")
    figure.add_bar(
        x=values[::-1], y=labels[::-1], orientation="h", hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        marker={"color": colours[::-1], "line": {"width": 0}},
    )  # fmt: skip
    figure.update_layout(hovermode="closest", showlegend=False, margin_t=12, bargap=0.25)
    figure.update_xaxes(tickformat=".0%", title={"text": "share of weight", "standoff": 8, "font": {"size": 12}})
    figure.update_yaxes(type="category", title={"text": ""})
    return figure


def attention_figure(attention: FloatArray, horizons: Sequence[int] = ()) -> Figure:
    """Bars of the attention to each session of the window, the decision's own at 0 on the right, earlier ones at -1, -2 ...

    attention: [E] of one, or [H, E] with a group of bars for each of `horizons` (H, in sessions), of at least 0; each
    row is shown as shares of its sum. Errors: InvalidConfigError.
    """
    rows = np.atleast_2d(attention)
    if horizons and len(horizons) != len(rows):
        raise InvalidConfigError("The attention", [f"{len(rows)} rows for {len(horizons)} horizons"])
    figure = base_figure("share of attention")
    for k, row in enumerate(rows):
        _check("The attention", row, rows.shape[1])
        figure.add_bar(
            x=list(range(1 - len(row), 1)), y=row / row.sum(), name=f"h = {horizons[k]}" if horizons else "attention",
            marker={"color": STRATEGY_COLOURS[k % len(STRATEGY_COLOURS)], "line": {"width": 0}},
            hovertemplate="%{y:.1%}",
        )  # fmt: skip
    figure.update_layout(bargap=0.15, showlegend=len(rows) > 1)
    figure.update_xaxes(title={"text": "sessions before the decision", "standoff": 8, "font": {"size": 12}})
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    return figure


def _check(what: str, weights: FloatArray, count: int) -> None:
    problems = []
    if weights.shape != (count,) or not count:
        problems.append(f"{weights.shape} weights for {count} names or sessions; give one of each, at least one")
    elif not np.isfinite(weights).all() or weights.min() < 0.0 or weights.sum() == 0.0:
        problems.append("weights must be finite, at least 0 and not all 0")
    if problems:
        raise InvalidConfigError(what, problems)
