"""Equity and drawdown of all strategies, with one legend of buttons for both charts."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from trading_core.metrics.returns import drawdowns
from trading_core.plots import embedding, page
from trading_core.plots.embedding import Patch, Place
from trading_core.plots.evaluation_data import EvaluationReport, StrategyReport, WalkForward
from trading_core.plots.evaluation_order import SHOWN_FIRST, benchmarks, contenders
from trading_core.plots.figures import BENCHMARK_COLOURS, CURVE_COLOURS, base_figure

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_POINTS = 400  # of one curve
ALL_POINTS = 15_000  # of all curves together
FEWEST_POINTS = 60
_DASHES = ("solid", "dash", "dot", "dashdot")


@dataclass(frozen=True, slots=True)
class _Curve:
    """A strategy as it is drawn. axis: the name of its dates, shared by all curves over the same sessions."""

    strategy: StrategyReport
    colour: str
    dash: str
    width: float
    shown: bool
    step: int  # every how many sessions are drawn
    axis: str


def section(report: EvaluationReport) -> str:
    """Both charts with their legend, as HTML."""
    curves, axes = _curves(report)
    if not curves:
        return ""
    shared = "".join(embedding.shared(name, [day.isoformat() for day in days]) for name, days in axes)
    equity = embedding.chart(
        Place("equity", "Growth of 1 of every strategy over time", 430),
        _figure("growth of 1, log scale", curves, report.run.walk_forward),
        [_equity(curve) for curve in curves],
    )
    falls = embedding.chart(
        Place("drawdown", "Drawdown of every strategy over time", 280),
        _figure("below the peak", curves, report.run.walk_forward),
        [_drawdown(curve) for curve in curves],
    )
    content = f"{shared}{_legend(curves)}<h3>Equity</h3>{equity}<h3>Drawdown</h3>{falls}"
    return page.section("Equity and drawdown", content, page.escape(_lead(report, curves)), "equity-section")


def _curves(report: EvaluationReport) -> tuple[list[_Curve], list[tuple[str, list[date]]]]:
    strategies, others = contenders(report), benchmarks(report)
    points = int(np.clip(ALL_POINTS // max(len(strategies) + len(others), 1), FEWEST_POINTS, MOST_POINTS))
    axes: dict[tuple[date, ...], str] = {}
    curves = []
    for s in [*strategies, *others]:
        if not len(s.equity):
            continue
        axis = axes.setdefault(s.sessions, f"sessions{len(axes)}")
        step = embedding.stride(len(s.equity), points)
        rank = (others if s.benchmark else strategies).index(s)
        colours = BENCHMARK_COLOURS if s.benchmark else CURVE_COLOURS
        dash = ("dash", "dot", "dashdot")[rank % 3] if s.benchmark else _DASHES[rank // len(colours) % len(_DASHES)]
        shown = s.benchmark or rank < SHOWN_FIRST
        width = 1.6 if s.benchmark else 2.0
        curves.append(_Curve(s, colours[rank % len(colours)], dash, width, shown, step, axis))
    drawn = []
    for days, name in axes.items():
        index = embedding.kept(len(days), embedding.stride(len(days), points))
        drawn.append((name, [days[i] for i in index]))
    return curves, drawn


def _figure(y_title: str, curves: Sequence[_Curve], walk_forward: WalkForward | None) -> Figure:
    """One empty trace per curve; what follows the learning is shaded, and the days of retraining are marked."""
    figure = base_figure(y_title)
    growth = y_title.startswith("growth")
    for curve in curves:
        figure.add_scatter(
            name=html.escape(curve.strategy.label), mode="lines", visible=curve.shown,
            line={"color": curve.colour, "width": curve.width, "dash": curve.dash},
            hovertemplate="%{y:.3f}" if growth else "%{y:.1f} %",
        )  # fmt: skip
    figure.update_layout(showlegend=False, margin={"t": 12, "l": 76})
    figure.update_yaxes(automargin=False)  # both charts have the same left edge
    if growth:
        figure.update_yaxes(type="log", tickformat=".4~g")
    else:
        figure.update_yaxes(ticksuffix="\u00a0%", rangemode="tozero")
    if walk_forward is not None:
        figure.update_layout(shapes=_schedule(walk_forward, max(c.strategy.sessions[-1] for c in curves)))
    return figure


def _schedule(schedule: WalkForward, end: date) -> list[Patch]:
    frame = {"xref": "x", "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
    start = schedule.out_of_sample.isoformat()
    band = {
        "type": "rect",
        "x0": start,
        "x1": end.isoformat(),
        "fillcolor": "rgba(59,130,246,0.07)",
        "line": {"width": 0},
    }
    marks = [
        {"type": "line", "x0": day.isoformat(), "x1": day.isoformat(), "line": _MARK, **frame}
        for day in schedule.retrained
    ]
    return [{**band, **frame}, *marks]


_MARK = {"color": "rgba(132,146,166,0.55)", "width": 1, "dash": "dot"}


def _equity(curve: _Curve) -> Patch:
    equity = curve.strategy.equity
    index = embedding.kept(len(equity), curve.step)
    growth = equity[index] / equity[0]
    return {"x": curve.axis, "y": embedding.numbers(np.where(growth > 0, growth, np.nan), 4)}


def _drawdown(curve: _Curve) -> Patch:
    equity = curve.strategy.equity
    deepest = embedding.lowest(drawdowns(equity), embedding.kept(len(equity), curve.step))
    return {"x": curve.axis, "y": embedding.numbers(100.0 * deepest, 1)}


def _lead(report: EvaluationReport, curves: Sequence[_Curve]) -> str:
    said = ["Net of costs, starting at 1."]
    hidden = sum(not curve.shown for curve in curves)
    if hidden:
        said.append(
            f"The {SHOWN_FIRST} strategies with the highest Sharpe ratio and the benchmarks are shown; "
            f"the buttons bring the other {hidden}. Best first, chosen after the fact."
        )
    step = max(curve.step for curve in curves)
    if step > 1:
        said.append(f"Drawn every {step} sessions; a drawdown is the deepest of them.")
    schedule = report.run.walk_forward
    if schedule is not None:
        marks = "; dotted: a model was retrained" if schedule.retrained else ""
        said.append(f"Shaded: out of sample, from {schedule.out_of_sample}{marks}.")
    return " ".join(said)


def _legend(curves: Sequence[_Curve]) -> str:
    numbered = sorted(enumerate(curves), key=lambda item: (item[1].strategy.benchmark, item[1].strategy.model))
    models = sorted({c.strategy.model for c in curves if c.strategy.model})
    groups = []
    for (benchmark, model), members in groupby(
        numbered, key=lambda item: (item[1].strategy.benchmark, item[1].strategy.model)
    ):
        chips = "".join(_chip(number, curve, models) for number, curve in members)
        name = "Benchmarks" if benchmark else model or "Strategies"
        groups.append(
            f'<div class="chips" role="group" aria-label="{page.escape(name)}">'
            f"<span>{page.escape(name)}</span><div>{chips}</div></div>"
        )
    return f'<div class="legend" data-legend="equity drawdown">{_sets(curves, models)}{"".join(groups)}</div>'


def _sets(curves: Sequence[_Curve], models: Sequence[str]) -> str:
    """Buttons that choose many curves at once, where there are many."""
    if len(curves) <= SHOWN_FIRST + 3:
        return ""
    named = [("best", f"Best {SHOWN_FIRST}"), ("all", "All"), ("benchmarks", "Benchmarks only")]
    if len(models) > 1:
        named += [(f"model{k}", f"All of {model}") for k, model in enumerate(models)]
    buttons = "".join(f'<button type="button" data-set="{name}">{page.escape(title)}</button>' for name, title in named)
    return f'<div class="sets" role="group" aria-label="Show">{buttons}</div>'


def _chip(number: int, curve: _Curve, models: Sequence[str]) -> str:
    s = curve.strategy
    sets = [f"model{models.index(s.model)}"] if s.model else []
    sets += ["benchmarks", *(f"model{k}" for k in range(len(models)))] if s.benchmark else []
    sets += ["best"] if curve.shown else []
    line = "dashed" if curve.dash != "solid" else "solid"
    return (
        f'<button type="button" data-curve="{number}" data-sets="{" ".join(sets)}" '
        f'aria-pressed="{str(curve.shown).lower()}"><i style="border-top:3px {line} {curve.colour}"></i>'
        f"{page.escape(s.name)}</button>"
    )
