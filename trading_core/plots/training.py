"""How a training went: loss, metrics and learning rate by epoch."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from trading_core.errors import InvalidConfigError
from trading_core.plots.figures import BENCHMARK_COLOURS, STRATEGY_COLOURS, stacked_figure, y_axis
from trading_core.schema import FloatArray

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_HEIGHTS = {"loss": 2.0, "metric": 1.5, "learning rate": 1.0}


def training_figure(
    losses: Mapping[str, FloatArray],
    metrics: Mapping[str, FloatArray],
    learning_rate: FloatArray,
    best_epoch: int | None = None,
) -> Figure:
    """Three panels over the epochs 1 .. N: the losses (such as "training" and "validation"), the metrics (such as "rank
    IC"; left out when there are none) and the learning rate on a logarithmic axis, all [N]; a line at `best_epoch`.

    NaN leaves a gap. Errors: InvalidConfigError when the series are not all as long as `learning_rate`.
    """
    n = len(learning_rate)
    wrong = [f"{name}: {len(v)} epochs, not {n}" for name, v in {**losses, **metrics}.items() if len(v) != n]
    if wrong or not n:
        raise InvalidConfigError("The training curves", wrong or ["no epoch to draw"])
    groups = {"loss": losses, "metric": metrics, "learning rate": {"learning rate": learning_rate}}
    groups = {title: series for title, series in groups.items() if series}
    figure = stacked_figure(tuple(groups), [_HEIGHTS[title] for title in groups])
    epochs = list(range(1, n + 1))
    colour = 0
    for panel, series in enumerate(groups.values()):
        for name, values in series.items():
            figure.add_scatter(
                x=epochs, y=values, name=html.escape(name), mode="lines+markers", yaxis=y_axis(panel), connectgaps=False,
                line={"color": STRATEGY_COLOURS[colour % len(STRATEGY_COLOURS)], "width": 2.0}, marker={"size": 4},
                hovertemplate="%{y:.4g}",
            )  # fmt: skip
            colour += 1
    # The ends say all: a logarithmic axis of half a decade would have one tick, and of one rate a dozen.
    known = learning_rate[np.isfinite(learning_rate) & (learning_rate > 0.0)]
    ticks = sorted({float(known.min()), float(known.max())}) if len(known) else []
    rates = {"type": "log", "tickmode": "array", "tickvals": ticks, "ticktext": [f"{tick:.3g}" for tick in ticks]}
    figure.update_layout({f"yaxis{len(groups)}" if len(groups) > 1 else "yaxis": rates})
    figure.update_xaxes(
        title={"text": "epoch", "standoff": 8, "font": {"size": 12}}, dtick=max(1, n // 10), zeroline=False
    )
    if best_epoch is not None:
        figure.add_shape(
            type="line", x0=best_epoch, x1=best_epoch, xref="x", y0=0.0, y1=1.0, yref="paper",
            line={"color": BENCHMARK_COLOURS[1], "width": 1.6, "dash": "dot"},
        )  # fmt: skip
    return figure
