"""Where the result comes from and what it hangs on: regimes, sectors, costs, the number of positions, overfitting."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from trading_core.plots import embedding, page, sortable
from trading_core.plots.embedding import Place, numbers
from trading_core.plots.evaluation_data import Breakdown, EvaluationReport, Measure, Overfitting, Sensitivity
from trading_core.plots.evaluation_order import SHOWN_FIRST, heads_by_label
from trading_core.plots.figures import BENCHMARK_COLOURS, CURVE_COLOURS, STRATEGY_COLOURS, base_figure
from trading_core.plots.sortable import Column, Row
from trading_core.schema import FloatArray

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def breakdowns(report: EvaluationReport) -> str:
    """Tables by regime, sector ...; empty where there is none."""
    heads = heads_by_label(report)
    parts = [_breakdown(found, heads) for found in report.breakdowns if found.rows and found.groups]
    return page.section("Where it comes from", "".join(parts), anchor="breakdowns") if parts else ""


def sensitivities(report: EvaluationReport) -> str:
    """Charts and tables by setting; empty where nothing was varied."""
    heads = heads_by_label(report)
    parts = [
        _sensitivity(k, found, heads) for k, found in enumerate(report.sensitivities) if found.labels and found.ticks
    ]
    return page.section("What it hangs on", "".join(parts), anchor="sensitivity") if parts else ""


def overfitting(report: EvaluationReport) -> str:
    """The logits of combinatorially symmetric cross-validation; empty where it was not run."""
    found = report.overfitting
    if found is None:
        return ""
    if not math.isfinite(found.pbo):
        content = f"<p>Not computed: {page.escape(found.reason or 'too little is known')}.</p>"
    else:
        spot = Place("logits", "Distribution of the logits of the rank out of sample", 280)
        content = _overfitting_facts(found) + embedding.chart(spot, _logits_figure(found.logits))
    lead = (
        "The sessions are cut into blocks; whichever variant is best on one half is ranked on the other. Logit of its rank: "
        "below 0 it is in the lower half there. Mass left of 0 means that picking the best picks luck (Bailey et al. 2017)."
    )
    return page.section("Overfitting", content, page.escape(lead), "overfitting")


# --- by group ---------------------------------------------------------------------------------------------------------


def _breakdown(found: Breakdown, heads: Mapping[str, str]) -> str:
    sizes = found.sizes or ("",) * len(found.groups)
    columns = [
        Column(group, f"{measure.meaning} ({size})" if size else measure.meaning, measure.name)
        for measure in found.measures
        for group, size in zip(found.groups, sizes, strict=True)
    ]
    place = {label: k for k, label in enumerate(heads)}
    order = sorted(range(len(found.rows)), key=lambda r: place.get(found.rows[r], len(place)))
    rows = [
        Row(
            heads.get(found.rows[r], page.escape(found.rows[r])),
            [_measured(measure, r, g) for measure in found.measures for g in range(len(sizes))],
        )
        for r in order
    ]
    said = ", ".join(f"{group}: {size}" for group, size in zip(found.groups, sizes, strict=True) if size)
    lead = f"{found.lead} {said}." if said else found.lead
    table = sortable.table(found.title, Column("", ""), columns, rows, meanings=False)
    return f'<h3>{page.escape(found.title)}</h3><p class="lead under">{page.escape(lead.strip())}</p>{table}'


def _measured(measure: Measure, row: int, group: int) -> str:
    value = float(measure.values[row, group])
    return page.percent(value, measure.digits) if measure.percent else page.number(value, measure.digits)


# --- by setting -------------------------------------------------------------------------------------------------------


def _sensitivity(number: int, found: Sensitivity, heads: Mapping[str, str]) -> str:
    order = _best_first(found)
    drawn = order[:SHOWN_FIRST]
    charts = "".join(
        f'<figure class="panel"><figcaption>{title}</figcaption>'
        + embedding.chart(
            Place(f"{name}{number}", f"{found.title}: {title}", 260), _lines(found, values, drawn, title, number_format)
        )
        + "</figure>"
        for name, title, values, number_format in (
            ("sharpe", "Sharpe ratio a year", found.sharpe, ".2f"),
            ("cagr", "CAGR", found.cagr, ".1%"),
        )
    )
    more = (
        f" Drawn: the {len(drawn)} highest of {len(order)} by Sharpe ratio; all are in the table."
        if len(order) > len(drawn)
        else ""
    )
    table = _sensitivity_table(found, order, heads)
    key = embedding.key([found.labels[row] for row in drawn], CURVE_COLOURS)
    folded = f"<details><summary>All numbers</summary>{table}</details>" if len(order) > SHOWN_FIRST else table
    return (
        f'<h3>{page.escape(found.title)}</h3><p class="lead under">{page.escape(found.lead + more)}</p>'
        f'{key}<div class="panels">{charts}</div>{folded}'
    )


def _best_first(found: Sensitivity) -> list[int]:
    """Rows by Sharpe ratio at the setting that the report uses, or by their mean."""
    with np.errstate(invalid="ignore"):
        by = found.sharpe[:, found.chosen] if found.chosen is not None else found.sharpe.mean(axis=1)
    keys = np.where(np.isfinite(by), -by, math.inf)
    return [int(row) for row in np.argsort(keys, kind="stable")]


def _lines(found: Sensitivity, values: FloatArray, drawn: Sequence[int], y_title: str, number_format: str) -> Figure:
    figure = base_figure(y_title)
    for k, row in enumerate(drawn):
        figure.add_scatter(
            x=[html.escape(tick) for tick in found.ticks], y=numbers(values[row], 5), name=html.escape(found.labels[row]),
            mode="lines+markers", line={"color": CURVE_COLOURS[k % len(CURVE_COLOURS)], "width": 2.0},
            hovertemplate=f"%{{y:{number_format}}}",
        )  # fmt: skip
    figure.update_xaxes(
        type="category",
        tickmode="linear",
        dtick=1,
        title={"text": html.escape(found.setting), "standoff": 8, "font": {"size": 12}},
    )
    figure.update_yaxes(zeroline=True, tickformat=".0%" if "%" in number_format else "")
    figure.update_layout(showlegend=False, margin={"t": 12})
    if found.chosen is not None:
        line = {"color": BENCHMARK_COLOURS[0], "width": 1.2, "dash": "dot"}
        figure.add_shape(type="line", x0=found.chosen, x1=found.chosen, y0=0, y1=1, xref="x", yref="paper", line=line)
    return figure


def _sensitivity_table(found: Sensitivity, order: Sequence[int], heads: Mapping[str, str]) -> str:
    measures = (("Sharpe ratio a year", found.sharpe), ("CAGR", found.cagr))
    columns = [
        Column(tick, f"{found.setting}: {tick}" + (" (the rest of the report)" if k == found.chosen else ""), name)
        for name, _ in measures
        for k, tick in enumerate(found.ticks)
    ]
    rows = [
        Row(
            heads.get(found.labels[row], page.escape(found.labels[row])),
            [page.number(value) for value in found.sharpe[row].tolist()]
            + [page.percent(value) for value in found.cagr[row].tolist()],
        )
        for row in order
    ]
    return sortable.table(found.title, Column("Strategy", ""), columns, rows, meanings=False)


# --- overfitting ------------------------------------------------------------------------------------------------------


def _overfitting_facts(found: Overfitting) -> str:
    facts = (
        ("Probability of overfitting", page.percent(found.pbo, 0)),
        ("Variants", f"{found.variants:,}"),
        ("Blocks and splits", f"{found.blocks}, {len(found.logits):,}"),
        ("Slope, out of sample on in sample", page.number(found.slope)),
        ("Loss out of sample", page.percent(found.loss_probability, 0)),
    )
    items = "".join(f"<div><dt>{page.escape(name)}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f'<dl class="facts small">{items}</dl>'


def _logits_figure(logits: FloatArray) -> Figure:
    known = logits[np.isfinite(logits)]
    reach = max(float(np.abs(known).max()) if len(known) else 1.0, 0.5)
    edges = np.linspace(-reach, reach, 41)  # an edge at 0: no bar holds both halves
    shares = np.histogram(known, edges)[0] / max(len(known), 1)
    centre = (edges[:-1] + edges[1:]) / 2.0
    colours = [STRATEGY_COLOURS[1] if x < 0 else STRATEGY_COLOURS[0] for x in centre.tolist()]
    figure = base_figure("share of splits")
    figure.add_bar(
        x=numbers(centre, 3), y=numbers(shares, 4), marker={"color": colours, "opacity": 0.7, "line": {"width": 0}},
        hovertemplate="%{y:.1%}", showlegend=False,
    )  # fmt: skip
    line = {"color": BENCHMARK_COLOURS[0], "width": 1.6, "dash": "dot"}
    figure.add_shape(type="line", x0=0, x1=0, y0=0, y1=1, xref="x", yref="paper", line=line)
    figure.update_layout(bargap=0.06, margin_t=12)
    figure.update_yaxes(tickformat=".0%")
    figure.update_xaxes(title={"text": "logit of the rank out of sample", "standoff": 8, "font": {"size": 12}})
    return figure
