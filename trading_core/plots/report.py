"""The evaluation report: one self-contained HTML file that a person reads from top to bottom.

Everything lies inside (the plotting script too): no request leaves the page. Light and dark follow the reader's system.
What it shows is in `evaluation_data.py`; each part has a module of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from trading_core.plots import (
    blotter,
    evaluation_breakdowns,
    evaluation_curves,
    evaluation_forecasts,
    evaluation_tables,
    evaluation_verdict,
    page,
    page_scripts,
    page_style,
    strategy_panels,
)
from trading_core.plots.evaluation_data import EvaluationReport, ModelFacts, RunFacts
from trading_core.plots.quality import quality_section


def evaluation_report(report: EvaluationReport) -> bytes:
    """The report as one UTF-8 HTML file (5 to 6 MB, of which the plotting script is 4.8). Every text of it is escaped."""
    sections = [
        ("Verdict", evaluation_verdict.section(report)),
        *_tables(report),
        ("Curves", evaluation_curves.section(report)),
        ("Each strategy", strategy_panels.section(report)),
        ("Forecasts", evaluation_forecasts.section(report)),
        ("Breakdowns", evaluation_breakdowns.breakdowns(report)),
        ("Sensitivity", evaluation_breakdowns.sensitivities(report)),
        ("Overfitting", evaluation_breakdowns.overfitting(report)),
        ("Findings", _findings(report)),
        ("Data", _quality(report)),
        ("Limits", page.section("What these data cannot tell", page.bullets(_limits(report)), anchor="limits")),
        ("Fills", blotter.section(report.blotter) if report.blotter is not None else ""),
    ]
    there = [(name, content) for name, content in sections if content]
    body = "\n".join([_head(report), _contents(there), *(content for _, content in there)])
    return page.document(report.title, body, page_style.STYLE, page_scripts.ALL)


def _tables(report: EvaluationReport) -> list[tuple[str, str]]:
    if not report.strategies:
        return []
    costs = "Net of costs. " + page.escape(report.run.costs)
    bold = f"Bold: p below 5{page.NBSP}%, a deflated Sharpe ratio above 95{page.NBSP}%. All p-values are one-sided."
    cash = max((s.significance.cash_rate for s in report.strategies), default=0.0)
    if cash:
        bold += f" Tested is what was earned beyond cash at {page.percent(cash, 2)} a year."
    parts = (
        ("Strategies", "Strategies beside the benchmarks", evaluation_tables.performance(report), costs, "strategies"),
        ("Significance", "How sure that is", evaluation_tables.significance(report), page.escape(bold), "significance"),
        ("Risk", "Risk", evaluation_tables.risk(report), "", "risk"),
        ("Trading", "Trading and its costs", evaluation_tables.trading(report), "", "trading"),
    )
    return [(name, page.section(title, table, lead, anchor)) for name, title, table, lead, anchor in parts]


def _contents(sections: Sequence[tuple[str, str]]) -> str:
    """Links to the parts that have a name to link to."""
    links = []
    for name, content in sections:
        anchor = content.partition('id="')[2].partition('"')[0]
        links.append(f'<a href="#{anchor}">{page.escape(name)}</a>')
    return f'<nav aria-label="Parts of the report">{"".join(links)}</nav>'


def _head(report: EvaluationReport) -> str:
    run = report.run
    unit = f" {run.currency}" if run.currency else ""
    facts = [
        ("Market", run.market),
        ("Sessions", f"{run.start} to {run.end}"),
        ("Symbols", f"{run.symbols:,}"),
        ("Capital", f"{run.capital:,.0f}{unit}" if math.isfinite(run.capital) else "–"),
        ("Tried on this market", f"{run.trials:,} strategies"),
        *([("Bars table", f"version {run.bars_version}")] if run.bars_version is not None else []),
        ("Code", run.code),
        *([("Seed", str(run.seed))] if run.seed is not None else []),
        *run.more,
    ]
    header = page.header(report.title, [(name, value) for name, value in facts if value], "What was run")
    return header + _sentences(run)


def _sentences(run: RunFacts) -> str:
    """What takes more than a few words."""
    facts = [
        *((f"Model {k + 1}" if len(run.models) > 1 else "Model", _model_words(m)) for k, m in enumerate(run.models)),
        ("Walk-forward", _schedule(run)),
        ("Fills", run.fills),
        ("Costs", run.costs),
    ]
    rows = "".join(f"<dt>{page.escape(name)}</dt><dd>{page.escape(value)}</dd>" for name, value in facts if value)
    return f'<dl class="long" aria-label="How it was run">{rows}</dl>'


def _model_words(model: ModelFacts) -> str:
    said = [f"{model.name}, version {model.versions}"]
    if model.trained_until is not None:
        said.append(f"learnt up to {model.trained_until}")
    return ", ".join([*said, *([model.note] if model.note else [])])


def _schedule(run: RunFacts) -> str:
    schedule = run.walk_forward
    if schedule is None:
        return ""
    count = len(schedule.retrained)
    again = f", retrained {'once' if count == 1 else f'{count} times'}" if count else ""
    return f"{schedule.schedule}; out of sample from {schedule.out_of_sample}{again}"


def _findings(report: EvaluationReport) -> str:
    """What went wrong or is odd, forecasts with gaps among it."""
    gaps = [
        f"{forecast.model}, {evaluation_forecasts.over(forecast.horizon)}: {gap}"
        for forecast in report.forecasts
        for gap in forecast.gaps
    ]
    found = [*report.findings, *gaps]
    return page.section("What stands out in this run", page.bullets(found), anchor="findings") if found else ""


def _quality(report: EvaluationReport) -> str:
    return f'<div id="quality">{quality_section(report.quality)}</div>' if report.quality is not None else ""


def _limits(report: EvaluationReport) -> tuple[str, ...]:
    sessions = max((len(s.sessions) - 1 for s in report.strategies), default=0)
    error = math.sqrt(report.sessions_per_year / max(sessions, 1))
    return (
        *report.notes,
        f"Over {sessions:,} sessions the standard error of an annual Sharpe ratio is about {error:.1f}: only large differences "
        "can be told from luck.",
    )
