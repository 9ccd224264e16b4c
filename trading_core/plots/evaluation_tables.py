"""The four tables of the evaluation report, one row per strategy: what it earned, how sure that is, its risk, its trading."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import date

from trading_core.plots import page, sortable
from trading_core.plots.evaluation_data import EvaluationReport, SharpeWay, StrategyReport
from trading_core.plots.evaluation_order import CostsAYear, costs_a_year, head_of, random_p, ranked
from trading_core.plots.sortable import Column, Row

SIGNIFICANT = 0.05
_FIRST = Column("Strategy", "sort by name")


def performance(report: EvaluationReport) -> str:
    """What was earned, beside the benchmarks."""
    rows = _rows(report, _performance_cells)
    return sortable.table("Returns net of costs", _FIRST, _performance_columns(report), rows)


def _performance_columns(report: EvaluationReport) -> tuple[Column, ...]:
    against = report.benchmark or "the main benchmark"
    year = f"{report.sessions_per_year} sessions"
    return (
        Column(
            "Sharpe",
            "a year, after costs, risk-free rate 0; ± its standard error (robust to autocorrelation)",
            "Result",
        ),
        Column("CAGR", f"compound growth a year ({year})", "Result"),
        Column("vs benchmark", f"CAGR minus that of {against}, percentage points", "Result"),
        Column("Max drawdown", "deepest fall from a peak", "Result"),
        Column("Costs", "commission, spread, slippage, impact and borrowing, a year, of equity", "Result"),
        Column("Return", "over the whole period", "Growth"),
        Column("Volatility", "standard deviation a year", "Growth"),
        Column("Hit ratio", "share of sessions with a gain", "Growth"),
        Column("Sortino", "a year; mean over downside deviation about 0", "Ratios"),
        Column("Calmar", "CAGR / max drawdown", "Ratios"),
        Column("IR", f"information ratio a year against {against}", "Ratios"),
        Column("Alpha", f"a year, beyond beta times {against}", "Ratios"),
        Column("Turnover", "one-way, times a year; 1× = everything replaced once", "Trading"),
        Column("Positions", "mean number held", "Trading"),
    )


def _performance_cells(s: StrategyReport, report: EvaluationReport) -> list[str]:
    r, costs = s.returns, costs_a_year(s, report.sessions_per_year)
    return [
        _ratio(r.sharpe, s.significance.hac),
        page.percent(r.cagr),
        signed_percent(r.active_cagr),
        page.percent(r.max_drawdown),
        page.percent(costs.trading, 2),
        page.percent(r.total_return),
        page.percent(r.volatility),
        page.percent(r.hit_ratio),
        page.number(r.sortino),
        page.number(r.calmar),
        page.number(r.information_ratio),
        page.percent(r.alpha),
        times(s.trading.turnover),
        page.number(s.trading.positions, 0),
    ]


def significance(report: EvaluationReport) -> str:
    """How sure one can be of the Sharpe ratios. A p-value below 5 % is bold."""
    rows = _rows(report, _significance_cells)
    return sortable.table("Significance", _FIRST, _significance_columns(report), rows)


def _significance_columns(report: EvaluationReport) -> tuple[Column, ...]:
    against = report.benchmark or "the main benchmark"
    one_sided = "p: one-sided, the chance of a ratio this high if the true one were 0"
    return (
        Column("Ratio", "Sharpe ratio a year, after costs", "Sharpe"),
        Column("p", f"returns taken as independent, with their skew and kurtosis (Mertens 2002). {one_sided}", "Moments"),
        Column("SE", "standard error a year of the Sharpe ratio", "Moments"),
        Column("p", f"robust to autocorrelation (Lo 2002, Newey-West). {one_sided}", "HAC"),
        Column("SE", "standard error a year of the Sharpe ratio", "HAC"),
        Column("p", f"stationary block bootstrap (Politis & Romano 1994). {one_sided}", "Bootstrap"),
        Column("SE", "standard error a year of the Sharpe ratio", "Bootstrap"),
        Column("PSR", "probability that the true Sharpe ratio is above 0 (Bailey & López de Prado 2012)", "One alone"),
        Column("MinTRL", "years of returns it would take to say so at the 5 % level; here are "
               f"{_years(report)}", "One alone"),
        Column("DSR", f"probability that it is above what luck reaches in {report.run.trials:,} trials "
               "(Bailey & López de Prado 2014); above 95 % counts",
               "Among all"),
        Column("FDR p", "Benjamini-Hochberg adjusted over the strategies of this report", "Among all"),
        Column("StepM", f"named superior to {against} by StepM (Romano & Wolf 2005)", "Among all"),
        Column("p vs benchmark", f"one-sided: it does no better than {against}", "Against"),
        Column("p vs random", "share of random portfolios with as much turnover that do at least as well", "Against"),
    )  # fmt: skip


def _significance_cells(s: StrategyReport, report: EvaluationReport) -> list[str]:
    sure = s.significance
    ways = [cell for way in (sure.moments, sure.hac, sure.bootstrap) for cell in _way(way)]
    deflated = page.percent(sure.deflated)
    return [
        page.number(s.returns.sharpe),
        *ways,
        page.percent(sure.psr),
        page.number(sure.min_track_record / report.sessions_per_year, 1),
        _because(f"<b>{deflated}</b>" if sure.deflated > 1 - SIGNIFICANT else deflated, sure.deflated_reason),
        p_cell(sure.fdr_p),
        {None: "–", True: "<b>yes</b>", False: "no"}[sure.stepm],
        _because(p_cell(sure.active_p), sure.active_reason),
        p_cell(random_p(s)),
    ]


def risk(report: EvaluationReport) -> str:
    """What could be lost."""
    rows = _rows(report, _risk_cells)
    return sortable.table("Risk", _FIRST, _risk_columns(report), rows)


def _risk_columns(report: EvaluationReport) -> tuple[Column, ...]:
    against = report.benchmark or "the main benchmark"
    return (
        Column("Depth", "deepest fall from a peak", "Deepest drawdown"),
        Column("Peak", "the session it fell from", "Deepest drawdown"),
        Column("Trough", "the session it fell to", "Deepest drawdown"),
        Column("Recovered", "the session that was above the peak again", "Deepest drawdown"),
        Column("Sessions", "from the peak to the recovery, or to the end", "Deepest drawdown"),
        Column("Under water", "most sessions in a row below an earlier peak", "Deepest drawdown"),
        Column("VaR", "5 % of sessions returned this or less (historical)", "One session"),
        Column("CVaR", "mean return of those sessions", "One session"),
        Column("Worst", "", "One session"),
        Column("Best", "", "One session"),
        Column("Skew", "0 for a normal distribution", "Shape"),
        Column("Kurtosis", "3 for a normal distribution", "Shape"),
        Column("Beta", f"against {against}", "Benchmark"),
        Column("Tracking error", f"standard deviation a year of the return beyond {against}", "Benchmark"),
    )


def _risk_cells(s: StrategyReport, report: EvaluationReport) -> list[str]:
    r = s.risk
    falls = r.drawdown_peak is not None
    return [
        page.percent(s.returns.max_drawdown),
        _day(r.drawdown_peak),
        _day(r.drawdown_trough),
        "not yet" if falls and r.drawdown_recovered is None else _day(r.drawdown_recovered),
        count(r.drawdown_sessions),
        count(r.under_water),
        *(page.percent(value, 2) for value in (r.var, r.cvar, r.worst, r.best)),
        page.number(r.skew),
        page.number(r.kurtosis, 1),
        page.number(r.beta),
        page.percent(r.tracking_error),
    ]


def trading(report: EvaluationReport) -> str:
    """How it traded and what that cost."""
    rows = _rows(report, _trading_cells)
    return sortable.table("Trading", _FIRST, _trading_columns(report), rows)


def _trading_columns(report: EvaluationReport) -> tuple[Column, ...]:
    rules = {s.trading.capacity_rule for s in report.strategies if s.trading.capacity_rule}
    money = f"capital in {report.run.currency}" if report.run.currency else "capital"
    capacity = f"{money} {rules.pop() if len(rules) == 1 else 'at which fills become too large for the market'}"
    return (
        Column("Turnover", "one-way, times a year", "Activity"),
        Column("Gross", "mean exposure, longs and shorts added, of equity", "Activity"),
        Column("Net", "mean exposure, longs less shorts, of equity", "Activity"),
        Column("Fills", "", "Activity"),
        Column("Cut", "orders that limits, the auction or the volume cap did not let through whole", "Activity"),
        Column("Trades", "closed: positions from flat to flat", "Trades"),
        Column("Win rate", "share of closed trades with a profit after costs", "Trades"),
        Column("Profit factor", "gains over losses", "Trades"),
        Column("Expectancy", "mean profit of a trade, of its largest size", "Trades"),
        Column("Payoff", "mean gain over mean loss", "Trades"),
        Column("Held", "mean sessions from opening to closing", "Trades"),
        Column("Capacity", capacity, "Size"),
        Column("All", "the following together", "Costs a year, of equity"),
        Column("Commission", "", "Costs a year, of equity"),
        Column("Spread", "half of it on each side", "Costs a year, of equity"),
        Column("Slippage", "", "Costs a year, of equity"),
        Column("Impact", "what the orders themselves moved the price", "Costs a year, of equity"),
        Column("Borrow", "fees on shares sold short", "Costs a year, of equity"),
        Column("Interest", "earned on cash; not part of the costs", "Costs a year, of equity"),
    )


def _trading_cells(s: StrategyReport, report: EvaluationReport) -> list[str]:
    t = s.trading
    return [
        times(t.turnover),
        page.percent(t.gross, 0),
        page.percent(t.net, 0),
        count(t.fills),
        count(t.unfilled),
        count(t.trades),
        page.percent(t.win_rate),
        page.number(t.profit_factor),
        page.percent(t.expectancy, 2),
        page.number(t.payoff),
        page.number(t.holding, 1),
        count(t.capacity),
        *_costs(costs_a_year(s, report.sessions_per_year)),
    ]


def p_cell(p_value: float) -> str:
    """A p-value of a table: three digits, bold below 5 %."""
    if not math.isfinite(p_value):
        return "–"
    text = "&lt;0.001" if p_value < 0.001 else page.number(p_value, 3)
    return f"<b>{text}</b>" if p_value < SIGNIFICANT else text


def signed_percent(value: float, digits: int = 1) -> str:
    """Per cent with its sign, as HTML; a dash where there is no number."""
    text = page.percent(value, digits)
    return f"+{text}" if value > 0 and round(value, digits + 2) > 0 else text


def times(value: float) -> str:
    """12.3 -> "12.3×"; a dash where there is no number."""
    return f"{page.number(value, 1)}×" if math.isfinite(value) else "–"


def count(value: float) -> str:
    """12345.0 -> "12,345"; a dash where there is no number."""
    return f"{value:,.0f}" if math.isfinite(value) else "–"


def _rows(report: EvaluationReport, cells: Callable[[StrategyReport, EvaluationReport], list[str]]) -> list[Row]:
    return [Row(head_of(s), cells(s, report), "benchmark" if s.benchmark else "") for s in ranked(report.strategies)]


def _ratio(sharpe: float, way: SharpeWay) -> str:
    error = (
        f' <span class="dim">± {page.number(way.standard_error)}</span>' if math.isfinite(way.standard_error) else ""
    )
    return page.number(sharpe) + error


def _way(way: SharpeWay) -> tuple[str, str]:
    return _because(p_cell(way.p_value), way.reason), page.number(way.standard_error)


def _because(cell: str, reason: str) -> str:
    return f'<span title="{page.escape(reason)}">{cell}</span>' if reason else cell


def _costs(costs: CostsAYear) -> list[str]:
    kinds = (costs.trading, costs.commission, costs.spread, costs.slippage, costs.impact, costs.borrow, costs.interest)
    return [page.percent(kind, 2) for kind in kinds]


def _day(day: date | None) -> str:
    return str(day) if day is not None else "–"


def _years(report: EvaluationReport) -> str:
    sessions = max((len(s.sessions) - 1 for s in report.strategies), default=0)
    return f"{sessions / report.sessions_per_year:.1f}"
