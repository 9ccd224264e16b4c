"""The evaluation report: one self-contained HTML file that a person reads from top to bottom.

Everything lies inside (the plotting script too): no request leaves the page. Light and dark follow the reader's system.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import numpy as np

from trading_core.metrics.forecasts import newey_west_t
from trading_core.metrics.returns import SESSIONS_PER_YEAR, ReturnSummary, max_drawdown, simple_returns, summarize
from trading_core.metrics.significance import SharpeTest, newey_west_lags, sharpe_test
from trading_core.plots import page, verdict
from trading_core.plots.figures import Curve, drawdown_figure, equity_figure, ic_figure
from trading_core.plots.quality import QualitySection, quality_section
from trading_core.schema import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class StrategyReport:
    """One strategy or benchmark, net of costs. `equity` [N] in currency at each session's close."""

    name: str
    benchmark: bool
    sessions: Sequence[date]
    equity: FloatArray
    costs_paid: float  # total, currency
    trades: int
    summary: ReturnSummary
    test: SharpeTest  # its Sharpe ratio against zero
    active_test: SharpeTest | None = None  # its active return against the main benchmark


@dataclass(frozen=True, slots=True, eq=False)
class IcSeries:
    """Rank IC [N] of the forecasts of one horizon, by decision session; NaN where it is not defined."""

    horizon: int
    sessions: Sequence[date]
    ic: FloatArray


@dataclass(frozen=True, slots=True)
class SkillRow:
    """One figure of forecast skill beside what no skill would give (NaN: no such figure)."""

    horizon: int
    metric: str
    value: float
    no_skill: float = math.nan
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class EvaluationReport:
    """All the report shows. `versions`: (name, version) pairs: model version, tables, code; `costs`: in words."""

    title: str
    market: str
    model: str
    versions: tuple[tuple[str, str], ...]
    start: date
    end: date
    costs: str
    notes: tuple[str, ...]  # what these data cannot tell (survivorship ...)
    benchmark: str  # the name of the main one among `strategies`
    strategies: tuple[StrategyReport, ...]
    skill: tuple[SkillRow, ...]
    ic: tuple[IcSeries, ...]
    trials: int  # models and strategies ever scored on this market
    quality: QualitySection | None = None  # of the bars; None: not looked at
    sessions_per_year: int = SESSIONS_PER_YEAR


def strategy_report(
    name: str,
    sessions: Sequence[date],
    equity: FloatArray,
    turnover: FloatArray,
    costs_paid: FloatArray,
    trades: int,
    benchmark_equity: FloatArray | None,
    is_benchmark: bool = False,
    per_year: int = SESSIONS_PER_YEAR,
) -> StrategyReport:
    """Judges one equity curve [N]; `benchmark_equity` [N]: the main benchmark's, None for itself. `per_year`: sessions."""
    returns, active = simple_returns(equity), None
    if benchmark_equity is not None:
        active = sharpe_test(returns - simple_returns(benchmark_equity), per_year=per_year)
    summary = summarize(equity, turnover, benchmark_equity, per_year)
    paid = float(np.sum(costs_paid))
    test = sharpe_test(returns, per_year=per_year)
    return StrategyReport(name, is_benchmark, tuple(sessions), equity, paid, trades, summary, test, active)


def evaluation_report(report: EvaluationReport) -> bytes:
    """The report as one UTF-8 HTML file (about 5 MB: the plotting script). Every text of `report` is escaped."""
    ordered = sorted(report.strategies, key=lambda s: s.benchmark)
    curves = [Curve(s.name, s.sessions, s.equity, s.benchmark) for s in ordered]
    sections = [
        _head(report),
        page.section("Verdict", _verdict(report, ordered)),
        page.section(
            "Strategies beside the benchmarks", _table(ordered, report), "Net of costs. " + page.escape(report.costs)
        ),
        page.section("Equity", page.chart("equity", equity_figure(curves), 400)),
        page.section(
            "Drawdown",
            page.chart("drawdown", drawdown_figure(curves), 260),
            "Fall from the highest value so far. Colours as above.",
        ),
        _forecasts(report),
        quality_section(report.quality) if report.quality else "",
        page.section("What these data cannot tell", _limits(report)),
    ]
    body = "\n".join(sections)
    return page.document(report.title, body)


def _head(report: EvaluationReport) -> str:
    facts = [
        ("Market", report.market),
        ("Model", report.model),
        ("Sessions", f"{report.start} to {report.end}"),
        ("Scored on this market", f"{report.trials} models and strategies"),
        *report.versions,
    ]
    return page.header(report.title, facts, "What was run")


def _verdict(report: EvaluationReport, strategies: Sequence[StrategyReport]) -> str:
    items = []
    for s in strategies:
        if s.benchmark:
            continue
        sentences = [
            verdict.growth_sentence(s.name, s.summary.cagr, report.benchmark, s.summary.active_cagr),
            verdict.active_sentence(report.benchmark, s.active_test) if s.active_test else "",
            verdict.sharpe_sentence(s.test),
        ]
        items.append(" ".join(sentence for sentence in sentences if sentence))
    for series in report.ic:
        known = series.ic[np.isfinite(series.ic)]
        t = (
            newey_west_t(series.ic, max(series.horizon - 1, newey_west_lags(len(known))))
            if len(known) > 2
            else math.nan
        )
        mean = float(known.mean()) if len(known) else math.nan
        items.append(verdict.skill_sentence(series.horizon, mean, t, len(known)))
    p_values = [s.test.p_value for s in strategies if not s.benchmark and math.isfinite(s.test.p_value)]
    items.append(verdict.trials_sentence(report.trials, min(p_values, default=math.nan)))
    return page.bullets(items, "verdict")


def _table(strategies: Sequence[StrategyReport], report: EvaluationReport) -> str:
    heads = (
        ("", ""),
        ("Return", "total over the period"),
        ("CAGR", f"compound growth a year, {report.sessions_per_year} sessions"),
        ("Volatility", "standard deviation a year"),
        ("Sharpe", "annualised, risk-free rate 0; ± its standard error"),
        ("p", "one-sided: the true Sharpe ratio is at most 0; robust to autocorrelation (Newey-West)"),
        ("Sortino", "annualised, downside deviation about 0"),
        ("Max drawdown", "deepest fall from a peak"),
        ("Calmar", "CAGR / max drawdown"),
        ("Hit ratio", "share of sessions with a gain"),
        ("Turnover", "one-way, times a year"),
        ("Costs", "commission, spread and slippage, of starting capital"),
        ("Trades", "fills"),
        ("IR", f"information ratio against {report.benchmark}"),
        ("p (active)", f"one-sided: it does no better than {report.benchmark}"),
        ("Beta", f"against {report.benchmark}"),
    )
    return page.table(heads, "".join(_table_row(s) for s in strategies))


def _table_row(s: StrategyReport) -> str:
    m = s.summary
    cells = [
        page.percent(m.total_return),
        page.percent(m.cagr),
        page.percent(m.volatility_annual),
        f'{page.number(m.sharpe_annual)} <span class="dim">± {page.number(s.test.standard_error_annual)}</span>',
        page.number(s.test.p_value, 3),
        page.number(m.sortino_annual),
        f'<span title="{page.escape(_drawdown_dates(s))}">{page.percent(m.max_drawdown)}</span>',
        page.number(m.calmar),
        page.percent(m.hit_ratio),
        page.number(m.turnover_annual, 1) + "×",
        page.percent(s.costs_paid / float(s.equity[0]), 2),
        f"{s.trades:,}",
        page.number(m.information_ratio),
        page.number(s.active_test.p_value if s.active_test else math.nan, 3),
        page.number(m.beta),
    ]
    tag = ' <span class="tag">benchmark</span>' if s.benchmark else ""
    kind = ' class="benchmark"' if s.benchmark else ""
    data = "".join(f"<td>{cell}</td>" for cell in cells)
    return f'<tr{kind}><th scope="row">{page.escape(s.name)}{tag}</th>{data}</tr>'


def _drawdown_dates(s: StrategyReport) -> str:
    fall = max_drawdown(s.equity)
    back = f"recovered {s.sessions[fall.recovered]}" if fall.recovered is not None else "not recovered yet"
    return f"from {s.sessions[fall.peak]} to {s.sessions[fall.trough]}, {back}"


def _forecasts(report: EvaluationReport) -> str:
    parts = []
    for series in report.ic:
        unit = "session" if series.horizon == 1 else "sessions"
        title = f"<h3>Rank IC over {series.horizon} {unit}</h3>" if len(report.ic) > 1 else ""
        parts.append(title + page.chart(f"ic{series.horizon}", ic_figure(series.sessions, series.ic), 280))
    if report.skill:
        rows = "".join(
            f'<tr><th scope="row">{page.escape(r.metric)}</th><td>{r.horizon}</td><td>{page.number(r.value, 4)}</td>'
            f'<td>{page.number(r.no_skill, 4)}</td><td class="note">{page.escape(r.note)}</td></tr>'
            for r in report.skill
        )
        parts.append(page.table([(name, "") for name in ("", "Horizon", "Value", "No skill", "")], rows))
    if not parts:
        return ""
    lead = "Rank IC: Spearman's correlation of forecast and outcome over the symbols of a session; 0 is no skill."
    return page.section("The forecasts", "".join(parts), page.escape(lead))


def _limits(report: EvaluationReport) -> str:
    sessions = max((len(s.sessions) - 1 for s in report.strategies), default=0)
    standing = (
        f"Over {sessions} sessions the standard error of an annual Sharpe ratio is about "
        f"{math.sqrt(report.sessions_per_year / max(sessions, 1)):.1f}: only large differences can be told from luck.",
        "Fills are assumed at the opening price plus the stated costs, without market impact or partial fills.",
    )
    return page.bullets((*report.notes, *standing))
