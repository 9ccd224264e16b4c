"""The forecasts in the evaluation report: an overview of all models and horizons, then one of them at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING

import numpy as np

from trading_core.plots import embedding, page, sortable
from trading_core.plots.embedding import Place, Turn, numbers
from trading_core.plots.evaluation_data import Buckets, EvaluationReport, ForecastReport
from trading_core.plots.evaluation_order import name_html
from trading_core.plots.evaluation_verdict import ic_t
from trading_core.plots.figures import BENCHMARK_COLOURS, ROLLING_SESSIONS, STRATEGY_COLOURS, base_figure, rolling_mean
from trading_core.plots.sortable import Column, Row

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SWITCH = "forecast"
POINTS = 300  # of a series of rank IC
_LEAD = (
    "Rank IC: Spearman's correlation of forecast and outcome over the symbols of a session; 0 is no skill. "
    "Buckets: the symbols of each session by forecast, lowest first; bars are two standard errors."
)


def section(report: EvaluationReport) -> str:
    """The section as HTML; empty where no forecast is judged."""
    forecasts = report.forecasts
    if not forecasts:
        return ""
    axes: dict[tuple[date, ...], str] = {}
    entries = [{"buckets": _buckets_turn(f.buckets), "ic": _ic_turn(f, axes)} for f in forecasts]
    shared = "".join(
        embedding.shared(name, [days[i].isoformat() for i in _index(len(days))]) for days, name in axes.items()
    )
    several = len(forecasts) > 1
    names = [f"{f.model}, {over(f.horizon)}" for f in forecasts]
    steps = {embedding.stride(len(days), POINTS) for days in axes}
    parts = [
        _overview(forecasts) if several else "",
        embedding.chooser(SWITCH, "Forecasts", names),
        shared,
        f'<div class="panels">{_panels(forecasts, max(steps, default=1))}</div>',
        embedding.turns(SWITCH, [_skill(f) for f in forecasts]),
        embedding.switch_data(SWITCH, entries),
    ]
    return page.section("The forecasts", "".join(parts), page.escape(_LEAD), "forecasts")


def over(horizon: int) -> str:
    """A horizon in words."""
    return "1 session" if horizon == 1 else f"{horizon} sessions"


def _overview(forecasts: Sequence[ForecastReport]) -> str:
    """One row per model and horizon."""
    columns = (
        Column("Horizon", "in sessions"),
        Column("Rank IC", "mean over sessions; 0 is no skill"),
        Column(
            "t",
            "of the mean rank IC, robust to overlapping labels and to autocorrelation (Newey-West, usual number of lags)",
        ),
        Column("Sessions", "with a rank IC"),
        Column("Top − bottom", "mean label of the highest bucket less that of the lowest, over the horizon"),
        Column("t of it", "of top − bottom (Newey-West)"),
        Column("Monotonicity", "Spearman's correlation of bucket and mean label; 1: rises from each to the next"),
    )
    rows = []
    for f in forecasts:
        ic = f.ic.ic[np.isfinite(f.ic.ic)] if f.ic is not None else np.zeros(0)
        buckets = f.buckets or Buckets(np.zeros(0), np.zeros(0))
        cells = [
            str(f.horizon),
            page.number(float(ic.mean()) if len(ic) else math.nan, 4),
            page.number(ic_t(f), 1),
            f"{len(ic):,}",
            page.percent(buckets.spread, 2),
            page.number(buckets.spread_t, 1),
            page.number(buckets.monotonicity),
        ]
        rows.append(Row(name_html(f.model, ""), cells))
    return sortable.table("Skill of the forecasts", Column("Model", "sort by name"), columns, rows)


def _panels(forecasts: Sequence[ForecastReport], step: int) -> str:
    drawn = f", every {step} sessions" if step > 1 else ""
    panels = []
    if any(f.buckets is not None and len(f.buckets.mean) for f in forecasts):
        title = "Mean outcome by bucket of the forecast"
        panels.append((title, Place("buckets", title, 300), _buckets_figure(), "Not computed for these forecasts."))
    if any(f.ic is not None and len(f.ic.ic) for f in forecasts):
        title = f"Rank IC over time, mean of {ROLLING_SESSIONS} and of 126 sessions{drawn}"
        panels.append((title, Place("ic", title, 300), _ic_figure(), "Too few sessions."))
    return "".join(
        f'<figure class="panel"><figcaption>{page.escape(title)}</figcaption>'
        f'{embedding.switched_chart(spot, figure, SWITCH)}<p class="missing">{page.escape(missing)}</p></figure>'
        for title, spot, figure, missing in panels
    )


def _buckets_figure() -> Figure:
    figure = base_figure("mean label")
    error = {"type": "data", "color": BENCHMARK_COLOURS[0], "thickness": 1.4, "width": 4}
    figure.add_bar(
        marker={"color": STRATEGY_COLOURS[0], "opacity": 0.75, "line": {"width": 0}}, error_y=error,
        hovertemplate="%{y:.3%}", name="mean label",
    )  # fmt: skip
    figure.update_layout(showlegend=False, bargap=0.18, margin_t=12)
    figure.update_yaxes(tickformat=".2~%", zeroline=True)
    figure.update_xaxes(
        type="category",
        tickmode="linear",
        dtick=1,
        title={"text": "bucket, lowest forecast first", "standoff": 8, "font": {"size": 12}},
    )
    return figure


def _buckets_turn(buckets: Buckets | None) -> Turn | None:
    if buckets is None or not np.isfinite(buckets.mean).any():
        return None
    names = [str(k + 1) for k in range(len(buckets.mean))]
    error = {"array": numbers(2.0 * buckets.standard_error, 6)}
    return Turn(({"x": names, "y": numbers(buckets.mean, 6), "error_y": error},), {})


def _ic_figure() -> Figure:
    figure = base_figure("rank correlation")
    for name, colour, width in (
        (f"mean of {ROLLING_SESSIONS}", BENCHMARK_COLOURS[0], 1.2),
        ("mean of 126", STRATEGY_COLOURS[0], 2.2),
    ):
        figure.add_scatter(name=name, mode="lines", line={"color": colour, "width": width}, hovertemplate="%{y:.3f}")
    figure.update_layout(margin={"t": 30})
    figure.update_yaxes(zeroline=True)
    return figure


def _ic_turn(forecast: ForecastReport, axes: dict[tuple[date, ...], str]) -> Turn | None:
    series = forecast.ic
    if series is None or not np.isfinite(series.ic).any():
        return None
    axis = axes.setdefault(series.sessions, f"ic-days{len(axes)}")
    index = _index(len(series.ic))
    means = (rolling_mean(series.ic, window)[index] for window in (ROLLING_SESSIONS, 126))
    return Turn(tuple({"x": axis, "y": numbers(mean, 4)} for mean in means), {})


def _index(count: int) -> np.ndarray:
    return embedding.kept(count, embedding.stride(count, POINTS))


def _skill(forecast: ForecastReport) -> str:
    """All figures of one model and horizon, and what is missing from its forecasts."""
    heads = [(name, "") for name in ("", "Value", "No skill", "")]
    rows = "".join(
        f'<tr><th scope="row">{page.escape(r.metric)}</th><td>{page.number(r.value, 4)}</td>'
        f'<td>{page.number(r.no_skill, 4)}</td><td class="note">{page.escape(r.note)}</td></tr>'
        for r in forecast.skill
    )
    gaps = page.bullets(forecast.gaps, "gaps") if forecast.gaps else ""
    return (page.table(heads, rows) if rows else "") + gaps
