"""One strategy at a time: the part of the evaluation report whose charts follow a list.

Each figure is embedded once, as a template; per strategy only its numbers are (`embedding.switch_data`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np

from trading_core.metrics.periods import period_returns
from trading_core.plots import embedding, page, strategy_figures
from trading_core.plots.embedding import Place, Turn
from trading_core.plots.evaluation_data import EvaluationReport, StrategyReport
from trading_core.plots.evaluation_order import benchmarks, contenders, costs_a_year, main_benchmark
from trading_core.plots.evaluation_tables import signed_percent, times
from trading_core.plots.figures import CURVE_COLOURS, STRATEGY_COLOURS
from trading_core.plots.strategy_periods import Grid, grid

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SWITCH = "strategy"
DETAILED = 48  # strategies and benchmarks that the list offers
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_Grids = dict[tuple[date, ...], Grid]  # by the sessions of the strategies that they draw
_SHADES = 8  # of a cell of the table of months


@dataclass(frozen=True, slots=True, eq=False)
class _Panel:
    """A figure of the list. missing: why a strategy has none."""

    name: str
    title: str
    height: int
    figure: Figure
    turn: Callable[[StrategyReport], Turn | None]
    missing: str = "Too few returns."
    note: str = ""  # behind the title
    key: Sequence[str] = ()  # what its colours stand for
    notes: Sequence[str] = ()  # below it, one per strategy


def section(report: EvaluationReport) -> str:
    """The section as HTML; empty where there is no strategy with an equity curve."""
    everyone = [s for s in (*contenders(report), *benchmarks(report)) if len(s.equity)]
    listed = everyone[:DETAILED]
    if not listed:
        return ""
    grids = _grids(listed)
    panels = _panels(report, listed, grids)
    entries = [{panel.name: panel.turn(s) for panel in panels} for s in listed]
    seen = [panel for panel in panels if any(entry[panel.name] is not None for entry in entries)]
    figures = "".join(_figure(panel) for panel in seen)
    content = (
        embedding.chooser(SWITCH, "Strategy", [s.label for s in listed])
        + "".join(g.shared for g in grids.values())
        + _benchmark_line(report, grids)
        + embedding.turns(SWITCH, [_facts(s, report) + _months(s) for s in listed])
        + f'<div class="panels">{figures}</div>'
        + embedding.switch_data(SWITCH, [{panel.name: entry[panel.name] for panel in seen} for entry in entries])
    )
    return page.section("Strategy by strategy", content, page.escape(_lead(everyone, listed, grids)), "each-strategy")


def _lead(everyone: Sequence[StrategyReport], listed: Sequence[StrategyReport], grids: _Grids) -> str:
    said = []
    if len(everyone) > len(listed):
        said.append(f"Of {len(everyone)} strategies and benchmarks the first {len(listed)} by Sharpe ratio.")
    step = max(g.step for g in grids.values())
    if step > 1:
        said.append(f"Lines are drawn every {step} sessions, from figures of every session.")
    return " ".join(["Net of costs.", *said])


def _grids(strategies: Sequence[StrategyReport]) -> _Grids:
    found: _Grids = {}
    for s in strategies:
        if s.sessions not in found:
            found[s.sessions] = grid(len(found), s.sessions)
    return found


def _panels(report: EvaluationReport, listed: Sequence[StrategyReport], grids: _Grids) -> list[_Panel]:
    """All figures, with what each strategy does to them."""
    return [
        *_return_panels(report, grids),
        *_trading_panels(listed, grids),
        _random_panel(listed),
        *_sector_panels(listed, grids),
    ]


def _return_panels(report: EvaluationReport, grids: _Grids) -> list[_Panel]:
    main, per_year, draw = main_benchmark(report), report.sessions_per_year, strategy_figures
    name = main.label if main is not None else ""

    def rolling(s: StrategyReport) -> Turn | None:
        g = grids[s.sessions]
        others = [_line_name(g)] if main is not None and main.sessions == s.sessions else []
        return draw.rolling_turn(s, g, others, per_year)

    return [
        _Panel("years", "Return by year", 260, draw.years_figure(name), lambda s: draw.years_turn(s, main)),
        _Panel(
            "rolling", f"Sharpe ratio over the last {draw.ROLLING} sessions", 260, draw.rolling_figure(name), rolling,
            f"Fewer than {draw.ROLLING + 1} sessions.",
        ),
        _Panel(
            "distribution", "Returns of one session; the outermost bars hold all beyond", 280,
            draw.distribution_figure(), draw.distribution_turn,
        ),
    ]  # fmt: skip


def _trading_panels(listed: Sequence[StrategyReport], grids: _Grids) -> list[_Panel]:
    draw = strategy_figures
    unit = next(iter(grids.values())).unit
    kinds = [kind for kind in draw.COSTS if any(np.nan_to_num(draw.paid(s.daily, kind)).any() for s in listed)]
    return [
        _Panel(
            "exposure", "Exposure and positions", 280, draw.exposure_figure(),
            lambda s: draw.exposure_turn(s, grids[s.sessions]), "Not recorded.",
        ),
        _Panel(
            "activity", f"Turnover and costs a {unit}, of equity", 300, draw.activity_figure(kinds),
            lambda s: draw.activity_turn(s, grids[s.sessions], kinds), "Not recorded.",
            "Interest earned goes below zero." if "interest" in kinds else "", kinds,
        ),
    ]  # fmt: skip


def _random_panel(listed: Sequence[StrategyReport]) -> _Panel:
    rules = [s.random.rule.rstrip(".") if s.random is not None else "" for s in listed]
    return _Panel(
        "random", "Beside random portfolios", 280, strategy_figures.random_figure(), strategy_figures.random_turn,
        "Not drawn for this one.", notes=[f"{rule}." if rule else "" for rule in rules],
    )  # fmt: skip


def _sector_panels(listed: Sequence[StrategyReport], grids: _Grids) -> list[_Panel]:
    draw, missing = strategy_figures, "No sectors are known."
    unit = next(iter(grids.values())).unit
    names = sorted({name for s in listed if s.sectors is not None for name in s.sectors.names})
    gain_and_loss = (STRATEGY_COLOURS[0], STRATEGY_COLOURS[1])
    return [
        _Panel(
            "sectors", f"Sector weights at the end of each {unit}", 300, draw.sectors_figure(names),
            lambda s: draw.sectors_turn(s.sectors, grids[s.sessions], names), missing, key=names,
        ),
        _Panel(
            "contribution", "What each sector contributed, after costs, over the whole period", 320,
            draw.contribution_figure(), lambda s: draw.contribution_turn(s.sectors, gain_and_loss), missing,
        ),
    ]  # fmt: skip


def _figure(panel: _Panel) -> str:
    spot = Place(panel.name, panel.title, panel.height)
    note = f" <span>{page.escape(panel.note)}</span>" if panel.note else ""
    below = embedding.turns(SWITCH, [page.escape(text) for text in panel.notes]) if any(panel.notes) else ""
    return (
        f'<figure class="panel"><figcaption>{page.escape(panel.title)}{note}</figcaption>'
        f"{embedding.key(panel.key, CURVE_COLOURS) if panel.key else ''}"
        f'{embedding.switched_chart(spot, panel.figure, SWITCH)}{below}<p class="missing">{page.escape(panel.missing)}</p>'
        "</figure>"
    )


def _benchmark_line(report: EvaluationReport, grids: _Grids) -> str:
    """The main benchmark's rolling Sharpe ratio, once for all strategies."""
    main = main_benchmark(report)
    if main is None or main.sessions not in grids:
        return ""
    g = grids[main.sessions]
    return embedding.shared(_line_name(g), strategy_figures.rolling_numbers(main, g, report.sessions_per_year))


def _line_name(g: Grid) -> str:
    return f"benchmark-{g.days}"


def _facts(s: StrategyReport, report: EvaluationReport) -> str:
    costs = costs_a_year(s, report.sessions_per_year)
    facts = (
        ("CAGR", page.percent(s.returns.cagr)),
        ("vs benchmark", signed_percent(s.returns.active_cagr)),
        ("Sharpe", page.number(s.returns.sharpe)),
        ("Max drawdown", page.percent(s.returns.max_drawdown)),
        ("Volatility", page.percent(s.returns.volatility)),
        ("Turnover a year", times(s.trading.turnover)),
        ("Costs a year", page.percent(costs.trading, 2)),
        ("Win rate", page.percent(s.trading.win_rate)),
    )
    items = "".join(f"<div><dt>{page.escape(name)}</dt><dd>{value}</dd></div>" for name, value in facts)
    return f'<dl class="facts small">{items}</dl>'


def _months(s: StrategyReport) -> str:
    """The returns by month and year as a table whose cells are coloured."""
    if len(s.equity) < 2:
        return ""
    found = period_returns(s.sessions, s.equity)
    largest = float(np.nanmax(np.abs(found.monthly))) if np.isfinite(found.monthly).any() else 0.0
    head = "".join(f'<th scope="col">{month}</th>' for month in _MONTHS)
    rows = "".join(
        f'<tr><th scope="row">{year}</th>{"".join(_cell(value, largest) for value in months)}{_cell(whole, 0.0)}</tr>'
        for year, months, whole in zip(found.years.tolist(), found.monthly.tolist(), found.yearly.tolist(), strict=True)
    )
    return (
        '<h3>Return by month, %</h3><div class="scroll" tabindex="0" role="region" aria-label="Return by month">'
        f'<table class="months"><thead><tr><th scope="col"></th>{head}<th scope="col">Year</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _cell(value: float, largest: float) -> str:
    """A return in per cent; the further from zero, the stronger its shade: g1 to g8 for gains, l1 to l8 for losses."""
    if not math.isfinite(value):
        return "<td></td>"
    shade = math.ceil(abs(value) / largest * _SHADES) if largest > 0 else 0
    kind = f' class="{"g" if value > 0 else "l"}{shade}"' if shade else ""
    return f"<td{kind}>{page.number(100.0 * value, 1)}</td>"
