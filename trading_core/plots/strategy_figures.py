"""The figures of one strategy: each a template, and what a strategy does to it (`embedding.Turn`).

A template has no numbers. None instead of a turn: there is nothing to draw for that strategy.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from trading_core.metrics.periods import period_returns, rolling_sharpe
from trading_core.metrics.returns import simple_returns
from trading_core.plots.embedding import Patch, Turn, numbers
from trading_core.plots.evaluation_data import DailySeries, SectorSeries, StrategyReport
from trading_core.plots.figures import (
    BENCHMARK_COLOURS,
    CURVE_COLOURS,
    STRATEGY_COLOURS,
    base_figure,
    stacked_figure,
    y_axis,
)
from trading_core.plots.strategy_periods import Grid
from trading_core.schema import FloatArray

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

PER_CENT = "\u00a0%"  # behind the numbers of an axis; per cent need fewer letters in a file than fractions
ROLLING = 126  # sessions, half a year
BINS = 41  # of a distribution
COSTS = ("commission", "spread", "slippage", "impact", "borrow", "interest")
_EDGE = 4.0  # standard deviations; returns beyond are counted in the outermost bars
_OURS, _THEIRS = STRATEGY_COLOURS[0], BENCHMARK_COLOURS[0]


# --- returns ----------------------------------------------------------------------------------------------------------


def years_figure(benchmark: str) -> Figure:
    """Bars of the return of each year, beside the benchmark's ("": none)."""
    figure = _empty("return")
    for name, colour in (("strategy", _OURS), *(((html.escape(benchmark), _THEIRS),) if benchmark else ())):
        figure.add_bar(name=name, marker={"color": colour, "line": {"width": 0}}, hovertemplate="%{y:.1%}")
    figure.update_yaxes(tickformat=".0%", zeroline=True)
    figure.update_xaxes(type="category")
    return figure


def years_turn(strategy: StrategyReport, benchmark: StrategyReport | None) -> Turn | None:
    """The returns of its years, and the benchmark's."""
    if len(strategy.equity) < 2:
        return None
    traces = []
    for one in (strategy, *((benchmark,) if benchmark is not None else ())):
        found = period_returns(one.sessions, one.equity)
        traces.append({"x": [str(year) for year in found.years.tolist()], "y": numbers(found.yearly, 4)})
    return Turn(tuple(traces), {})


def rolling_figure(benchmark: str) -> Figure:
    """Lines of the Sharpe ratio over the last half year."""
    figure = _empty("Sharpe ratio a year")
    for name, line in (
        ("strategy", {"color": _OURS, "width": 2.0}),
        (html.escape(benchmark), {"color": _THEIRS, "width": 1.4}),
    ):
        if name:
            figure.add_scatter(name=name, mode="lines", line=line, hovertemplate="%{y:.2f}")
    figure.update_yaxes(zeroline=True)
    return figure


def rolling_turn(strategy: StrategyReport, grid: Grid, others: Sequence[str], per_year: int) -> Turn | None:
    """Its rolling Sharpe ratio. others: names of shared numbers, one for each further line, drawn over the same days."""
    drawn = rolling_numbers(strategy, grid, per_year)
    if all(value is None for value in drawn):
        return None
    return Turn(({"x": grid.days, "y": drawn}, *({"x": grid.days, "y": name} for name in others)), {})


def rolling_numbers(strategy: StrategyReport, grid: Grid, per_year: int) -> list[float | int | None]:
    """The rolling Sharpe ratio at the sessions that are drawn."""
    ratio = np.full(len(strategy.equity), np.nan)
    ratio[1:] = rolling_sharpe(simple_returns(strategy.equity), ROLLING, per_year)
    return numbers(ratio[grid.index], 2)


def distribution_figure() -> Figure:
    """Bars of the share of sessions by return, and the normal curve of the same mean and spread."""
    figure = _empty("share of sessions")
    figure.add_bar(
        name="sessions", marker={"color": _OURS, "opacity": 0.55, "line": {"width": 0}}, hovertemplate="%{y:.1%}"
    )
    figure.add_scatter(
        name="normal", mode="lines", line={"color": BENCHMARK_COLOURS[1], "width": 1.8}, hovertemplate="%{y:.1%}"
    )
    figure.update_layout(bargap=0.06)
    figure.update_yaxes(tickformat=".0%")
    figure.update_xaxes(tickformat=".1%")
    return figure


def distribution_turn(strategy: StrategyReport) -> Turn | None:
    """The distribution of its returns, with marks at VaR and CVaR."""
    returns = simple_returns(strategy.equity)
    returns = returns[np.isfinite(returns)]
    spread = float(np.std(returns, ddof=1)) if len(returns) > 1 else 0.0
    if not spread > 0.0:
        return None
    mean = float(np.mean(returns))
    edges = np.linspace(mean - _EDGE * spread, mean + _EDGE * spread, BINS + 1)
    shares = np.histogram(np.clip(returns, edges[0], edges[-1]), edges)[0] / len(returns)
    width = float(edges[1] - edges[0])
    centre = (edges[:-1] + edges[1:]) / 2.0
    normal = np.exp(-0.5 * ((centre - mean) / spread) ** 2) / (spread * math.sqrt(2.0 * math.pi)) * width
    axis = {"x0": round(float(centre[0]), 7), "dx": round(width, 8)}
    marks = [("VaR", strategy.risk.var, False), ("CVaR", strategy.risk.cvar, True)]
    return Turn(({**axis, "y": numbers(shares, 4)}, {**axis, "y": numbers(normal, 4)}), _marks(marks))


# --- trading ----------------------------------------------------------------------------------------------------------


def activity_figure(kinds: Sequence[str]) -> Figure:
    """Panels of turnover and of what was paid, stacked by kind, one bar per period."""
    figure = stacked_figure(("turnover", "paid"), (1.0, 1.5))
    figure.add_bar(
        name="turnover", marker={"color": _THEIRS, "line": {"width": 0}}, hovertemplate="%{y:.1f} %", showlegend=False
    )
    for k, kind in enumerate(kinds):
        marker = {"color": CURVE_COLOURS[k % len(CURVE_COLOURS)], "line": {"width": 0}}
        figure.add_bar(name=kind, yaxis=y_axis(1), marker=marker, hovertemplate="%{y:.2f} bps")
    figure.update_layout(showlegend=False, margin={"t": 12})
    figure.update_layout(barmode="relative", bargap=0.12, yaxis={"ticksuffix": PER_CENT}, yaxis2={"ticksuffix": " bps"})
    return figure


def activity_turn(strategy: StrategyReport, grid: Grid, kinds: Sequence[str]) -> Turn | None:
    """Its turnover and its costs as shares of equity; interest that was earned goes below zero."""
    if not np.isfinite(strategy.daily.turnover).any():
        return None
    before = np.concatenate([strategy.equity[:1], strategy.equity[:-1]])
    traces: list[Patch] = [{"x": grid.periods, "y": numbers(100.0 * grid.sums(strategy.daily.turnover), 1)}]
    for kind in kinds:
        share = paid(strategy.daily, kind) / before * (-1.0 if kind == "interest" else 1.0)
        traces.append({"x": grid.periods, "y": numbers(1e4 * grid.sums(share), 2)})
    return Turn(tuple(traces), {})


def paid(daily: DailySeries, kind: str) -> FloatArray:
    """One of `COSTS`, [N] in currency."""
    return {
        "commission": daily.commission,
        "spread": daily.spread,
        "slippage": daily.slippage,
        "impact": daily.impact,
        "borrow": daily.borrow,
        "interest": daily.interest,
    }[kind]


def exposure_figure() -> Figure:
    """Panels of exposure, gross and net, and of the number of positions."""
    figure = stacked_figure(("share of equity", "positions"), (1.6, 1.0))
    figure.add_scatter(name="gross", mode="lines", line={"color": _OURS, "width": 1.8}, hovertemplate="%{y:.1f} %")
    figure.add_scatter(
        name="net", mode="lines", line={"color": STRATEGY_COLOURS[1], "width": 1.6}, hovertemplate="%{y:.1f} %"
    )
    figure.add_scatter(
        name="positions", mode="lines", yaxis=y_axis(1), line={"color": _THEIRS, "width": 1.6, "shape": "hv"},
        hovertemplate="%{y:.0f}", showlegend=False,
    )  # fmt: skip
    figure.update_layout(
        yaxis={"ticksuffix": PER_CENT, "rangemode": "tozero"}, yaxis2={"rangemode": "tozero", "nticks": 4}
    )
    return figure


def exposure_turn(strategy: StrategyReport, grid: Grid) -> Turn | None:
    """Its exposure and positions at the closes that are drawn."""
    daily = strategy.daily
    if not np.isfinite(daily.gross).any():
        return None
    series = ((100.0 * daily.gross, 1), (100.0 * daily.net, 1), (daily.positions, 0))
    return Turn(tuple({"x": grid.days, "y": numbers(values[grid.index], digits)} for values, digits in series), {})


def sectors_figure(names: Sequence[str]) -> Figure:
    """Bars of the weight of each sector, stacked, one per period; shorts below zero."""
    figure = _empty("share of equity")
    for k, name in enumerate(names):
        marker = {"color": CURVE_COLOURS[k % len(CURVE_COLOURS)], "opacity": _fade(k), "line": {"width": 0}}
        figure.add_bar(name=html.escape(name), marker=marker, hovertemplate="%{y:.1f} %")
    figure.update_layout(barmode="relative", bargap=0.12, showlegend=False, margin={"t": 12})
    figure.update_yaxes(ticksuffix=PER_CENT)
    return figure


def sectors_turn(sectors: SectorSeries | None, grid: Grid, names: Sequence[str]) -> Turn | None:
    """Its weights at the end of each period, in the order of `names`."""
    if sectors is None or not len(sectors.names):
        return None
    column = {name: k for k, name in enumerate(sectors.names)}
    traces: list[Patch] = []
    for name in names:
        held = numbers(100.0 * grid.ends(sectors.weights[:, column[name]]), 1) if name in column else []
        traces.append({"x": grid.periods, "y": held, "visible": name in column})
    return Turn(tuple(traces), {})


def contribution_figure() -> Figure:
    """Lying bars of what each sector contributed."""
    figure = _empty("")
    figure.add_bar(orientation="h", marker={"line": {"width": 0}}, hovertemplate="%{x:.1%}", showlegend=False)
    figure.update_layout(hovermode="closest", margin_t=12)
    figure.update_xaxes(tickformat=".0%", showgrid=True, zeroline=True)
    figure.update_yaxes(type="category", showgrid=False)
    return figure


def contribution_turn(sectors: SectorSeries | None, colours: Sequence[str]) -> Turn | None:
    """Its contributions, largest on top. colours: of a gain and of a loss."""
    if sectors is None or not len(sectors.names):
        return None
    order = np.argsort(np.nan_to_num(sectors.contribution), kind="stable")
    values = sectors.contribution[order]
    names = [html.escape(sectors.names[k]) for k in order]
    marker = {"color": [colours[0] if value >= 0 else colours[1] for value in values.tolist()]}
    return Turn(({"x": numbers(values, 4), "y": names, "marker": marker},), {})


def random_figure() -> Figure:
    """Bars of the share of random portfolios by Sharpe ratio."""
    figure = _empty("share of random portfolios")
    figure.add_bar(
        name="random", marker={"color": _THEIRS, "opacity": 0.6, "line": {"width": 0}}, hovertemplate="%{y:.1%}"
    )
    figure.update_layout(bargap=0.06, showlegend=False, margin_t=26)
    figure.update_yaxes(tickformat=".0%")
    figure.update_xaxes(title={"text": "Sharpe ratio a year", "standoff": 8, "font": {"size": 12}})
    return figure


def random_turn(strategy: StrategyReport) -> Turn | None:
    """The Sharpe ratios of its random portfolios, with a mark at its own."""
    if strategy.random is None:
        return None
    drawn = strategy.random.sharpe[np.isfinite(strategy.random.sharpe)]
    own = strategy.returns.sharpe
    if not len(drawn):
        return None
    low, high = float(drawn.min()), float(drawn.max())
    edges = np.linspace(low, high if high > low else low + 1.0, 31)
    shares = np.histogram(drawn, edges)[0] / len(drawn)
    width = float(edges[1] - edges[0])
    traces = ({"x0": round(float(edges[0]) + width / 2.0, 5), "dx": round(width, 6), "y": numbers(shares, 4)},)
    return Turn(traces, _marks([("this strategy", own, own > (low + high) / 2.0)]))


def _marks(marks: Sequence[tuple[str, float, bool]]) -> Patch:
    """Lines from top to bottom at values of x, each with its name, on its left or not; those that are not known are left out."""
    known = [(name, round(value, 6), left) for name, value, left in marks if math.isfinite(value)]
    line = {"color": "#ef4444", "width": 1.6, "dash": "dot"}
    shapes = [
        {"type": "line", "x0": value, "x1": value, "y0": 0, "y1": 1, "xref": "x", "yref": "paper", "line": line}
        for _, value, _ in known
    ]
    notes = [
        {
            "text": name, "x": value, "xref": "x", "y": 1.0, "yref": "paper", "yanchor": "top",
            "xanchor": "right" if left else "left", "xshift": -4 if left else 4,
            "showarrow": False, "font": {"size": 11},
        }
        for name, value, left in known
    ]  # fmt: skip
    return {"shapes": shapes, "annotations": notes}


def _empty(y_title: str) -> Figure:
    figure = base_figure(y_title)
    figure.update_layout(margin={"t": 30})
    return figure


def _fade(k: int) -> float:
    """The second round of colours is paler."""
    return 0.9 if k < len(CURVE_COLOURS) else 0.5
