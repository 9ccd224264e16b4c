"""One symbol's bars and features as a self-contained HTML page: candles, volume, one panel per feature, a table of formulas.

All panels share one time axis: dragging zooms them together, and the pointer reads all of them at its bar.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from trading_core.plots import page
from trading_core.plots.figures import BENCHMARK_COLOURS, STRATEGY_COLOURS
from trading_core.schema import FloatArray

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_UP, _DOWN = "#10b981", "#ef4444"
_PRICE_PX, _VOLUME_PX, _FEATURE_PX = 330, 70, 118
_GAP_PX, _TITLE_PX, _BOTTOM_PX = 10, 24, 34
_STATES = 5  # a feature of at most so many whole numbers is drawn in steps


@dataclass(frozen=True, slots=True, eq=False)
class FeatureSeries:
    """One feature at the symbol's bars. `values` [N]; `lookback` in bars; `formula` as in the feature's docstring."""

    name: str
    family: str
    description: str
    unit: str
    lookback: int
    formula: str
    values: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class SymbolChart:
    """All the page shows. `times` [N] ascending: sessions of daily bars, else the bars' ends in the exchange's time.

    open, high, low, close in the currency of the market, volume in shares, [N] each. `facts`: (name, value) pairs.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    times: Sequence[date] | Sequence[datetime]
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume: FloatArray
    features: tuple[FeatureSeries, ...]
    notes: tuple[str, ...]

    @property
    def daily(self) -> bool:
        return not isinstance(self.times[0], datetime)


def feature_page(chart: SymbolChart) -> bytes:
    """The page as one UTF-8 HTML file (about 5 MB: the plotting script). Every text of `chart` is escaped."""
    figure, height = figure_of(chart)
    notes = "".join(f"<li>{page.escape(note)}</li>" for note in chart.notes)
    body = "\n".join(
        [
            page.header(chart.title, chart.facts, "What is shown"),
            page.section(
                "Bars and features",
                page.chart("bars", figure, height),
                "Drag to zoom all panels, double-click to see all again.",
            ),
            page.section("The features in these bars", _table(chart.features)),
            page.section("How to read it", f"<ul>{notes}</ul>"),
        ]
    )
    return page.document(chart.title, body)


def figure_of(chart: SymbolChart) -> tuple[Figure, int]:
    """The panels under each other, and their height in pixels."""
    from plotly.graph_objects import Figure

    heights = [_PRICE_PX, _VOLUME_PX, *(_FEATURE_PX for _ in chart.features)]
    titles = [0, 0, *(_TITLE_PX for _ in chart.features)]  # room above a panel for its name
    inner = sum(heights) + sum(titles) + _GAP_PX * (len(heights) - 1)
    figure = Figure(layout=_layout(chart))
    _draw_bars(figure, chart)
    top = inner
    for i, (height, title) in enumerate(zip(heights, titles, strict=True)):
        top -= title
        domain = [max(0.0, (top - height) / inner), top / inner]
        name = "yaxis" if i == 0 else f"yaxis{i + 1}"
        figure.update_layout({name: _y_axis(i, domain)})
        if i >= 2:
            _draw_feature(figure, chart, i, top / inner)
        top -= height + _GAP_PX
    figure.update_layout(xaxis={"anchor": f"y{len(heights)}"})
    return figure, inner + _BOTTOM_PX + figure.layout.margin.t


def _layout(chart: SymbolChart) -> dict[str, Any]:
    axis: dict[str, Any] = {"type": "date", "rangebreaks": closed_days(chart.times)}
    if not chart.daily:  # nights and weekends would be most of the width: one place per bar
        axis = {"type": "category"}
    spike = {"showspikes": True, "spikemode": "across", "spikethickness": 1, "spikedash": "dot", "spikesnap": "cursor"}
    return {
        "template": "none",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 13},
        "margin": {"l": 58, "r": 14, "t": 8, "b": _BOTTOM_PX},
        "hovermode": "x unified",
        "hoversubplots": "axis",
        "showlegend": False,
        "bargap": 0.25,
        "xaxis": {
            **axis,
            **spike,
            "showgrid": True,
            "ticks": "outside",
            "ticklen": 4,
            "tickangle": 0,
            "rangeslider": {"visible": False},
        },
    }


def closed_days(times: Sequence[date] | Sequence[datetime]) -> list[dict[str, Any]]:
    """The stretches that a time axis of daily bars leaves out: weekends when no bar lies on one, other days without a bar."""
    days = {t.date() if isinstance(t, datetime) else t for t in times}
    first, last = min(days), max(days)
    every = [first + timedelta(days=i) for i in range((last - first).days + 1)]
    weekends = not any(day.weekday() >= 5 for day in days)
    missing = [day.isoformat() for day in every if day not in days and not (weekends and day.weekday() >= 5)]
    breaks: list[dict[str, Any]] = [{"bounds": ["sat", "mon"]}] if weekends else []
    return [*breaks, {"values": missing}] if missing else breaks


def _y_axis(panel: int, domain: list[float]) -> dict[str, Any]:
    axis: dict[str, Any] = {"domain": domain, "anchor": "x", "zeroline": False, "automargin": True}
    axis |= {"showspikes": False}
    if panel == 0:
        return {**axis, "title": {"text": "price", "standoff": 8}}
    if panel == 1:
        return {**axis, "title": {"text": "volume", "standoff": 8}, "nticks": 3, "rangemode": "tozero"}
    return {**axis, "nticks": 5, "zeroline": True}


def _x(chart: SymbolChart) -> list[str]:
    return [t.isoformat() if chart.daily else f"{t:%Y-%m-%d %H:%M}" for t in chart.times]


def _draw_bars(figure: Figure, chart: SymbolChart) -> None:
    x = _x(chart)
    figure.add_candlestick(
        x=x, open=chart.open, high=chart.high, low=chart.low, close=chart.close, name="price", yaxis="y",
        increasing={"line": {"color": _UP, "width": 1}, "fillcolor": _UP},
        decreasing={"line": {"color": _DOWN, "width": 1}, "fillcolor": _DOWN},
    )  # fmt: skip
    rising = chart.close >= chart.open
    figure.add_bar(
        x=x, y=chart.volume, name="volume", yaxis="y2", hovertemplate="%{y:.4s}",
        marker={"color": np.where(rising, _UP, _DOWN).tolist(), "opacity": 0.55, "line": {"width": 0}},
    )  # fmt: skip


def _draw_feature(figure: Figure, chart: SymbolChart, panel: int, top: float) -> None:
    series = chart.features[panel - 2]
    known = series.values[np.isfinite(series.values)]
    state = len(known) > 0 and len(np.unique(known)) <= _STATES and bool((known == np.round(known)).all())
    colours = (STRATEGY_COLOURS[0], *STRATEGY_COLOURS[3:], *BENCHMARK_COLOURS)
    line = {"color": colours[(panel - 2) % len(colours)], "width": 1.6, "shape": "hv" if state else "linear"}
    figure.add_scatter(
        x=_x(chart), y=series.values, name=page.escape(series.name), mode="lines", yaxis=f"y{panel + 1}", line=line,
        connectgaps=False, hovertemplate="%{y:.4g}",
    )  # fmt: skip
    if not len(known):
        figure.add_annotation(
            text="not defined at any of these bars", xref="paper", yref=f"y{panel + 1} domain", x=0.5, y=0.5,
            showarrow=False, opacity=0.7,
        )  # fmt: skip
    text = f"<b>{page.escape(series.name)}</b>  {page.escape(series.description)} · {page.escape(series.unit)}"
    figure.add_annotation(
        text=text, xref="paper", yref="paper", x=0, y=top, xanchor="left", yanchor="bottom", showarrow=False,
        font={"size": 12},
    )  # fmt: skip


def _table(features: Sequence[FeatureSeries]) -> str:
    heads = ("", "Last", "Lowest", "Median", "Highest", "Missing", "Looks back")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    head += '<th scope="col" class="unit">Unit</th><th scope="col" class="note">Formula</th>'
    rows = "".join(_row(series) for series in features)
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _row(series: FeatureSeries) -> str:
    known = series.values[np.isfinite(series.values)]
    low, middle, high = (
        (known.min(), float(np.median(known)), known.max()) if len(known) else (math.nan, math.nan, math.nan)
    )
    cells = [
        *(_number(float(value)) for value in (series.values[-1], low, middle, high)),
        f"{len(series.values) - len(known)} of {len(series.values)}",
        f"{series.lookback} bars",
    ]
    data = "".join(f"<td>{cell}</td>" for cell in cells)
    text = f'<td class="unit">{page.escape(series.unit)}</td><td class="note">{page.escape(series.formula)}</td>'
    name = f'{page.escape(series.name)} <span class="tag">{page.escape(series.family)}</span>'
    return f'<tr><th scope="row">{name}</th>{data}{text}</tr>'


def _number(value: float) -> str:
    return f"{value:.4g}".replace("-", "−") if math.isfinite(value) else "–"
