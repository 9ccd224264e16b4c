"""The table `make run` ends with."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table

from launcher.environment import Installation
from trading_core.pipelines.refs import EvaluationRef
from trading_core.pipelines.summary import Outcome

SHOWN_EXECUTIONS = 12


def show_outcome(console: Console, outcome: Outcome, home: Installation) -> None:
    """Skill, strategies, sessions and the newest executions, then where to look further."""
    evaluation, model = outcome.evaluation, outcome.model
    console.rule(f"{outcome.market}: {evaluation.start} .. {evaluation.end}")
    ceiling = evaluation.rank_ic_ceiling
    best = f" (the market's own truth reaches {ceiling:.3f})" if math.isfinite(ceiling) else ""
    console.print(
        f"Forecasts of {model.model} v{model.version}, which knows nothing after {model.cutoff}: "
        f"{_skill(evaluation, best)}.",
        highlight=False,
        soft_wrap=True,
    )
    if outcome.champion.version != model.version:
        champion = f"{outcome.champion.model} v{outcome.champion.version}"
        promote = f".venv/bin/trading models promote --market {outcome.market} {model.version}"
        text = f"Live sessions trade with the champion, {champion}. To change that: {promote}"
        console.print(text, highlight=False, soft_wrap=True)
    console.print(_strategies(evaluation))
    console.print(_luck(evaluation), highlight=False, soft_wrap=True)
    console.print(_sessions(outcome))
    console.print(_executions(outcome))
    console.print(f"\nReport      {outcome.report_path}", highlight=False, soft_wrap=True)
    console.print(
        f"Executions  .venv/bin/trading executions list --market {outcome.market} --json",
        highlight=False,
        soft_wrap=True,
    )
    console.print(
        f"UI          make up   (Airflow {home.base_url}, MLflow {home.mlflow_url}; it prints the login)",
        highlight=False,
        soft_wrap=True,
    )


def _skill(evaluation: EvaluationRef, best: str) -> str:
    """The rank IC needs three symbols a session: a market of one has none, which is not the same as none found."""
    if not math.isfinite(evaluation.mean_rank_ic):
        return "mean rank IC not defined (fewer than three symbols a session)"
    return (
        f"mean rank IC {evaluation.mean_rank_ic:+.4f}{best}, t = {evaluation.rank_ic_t:.1f}, "
        f"rank ICIR {evaluation.rank_icir:.2f}"
    )


def _table(title: str, columns: dict[str, str]) -> Table:
    """A table whose `columns` map a heading to its alignment; nothing in it is ever cut."""
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for name, justify in columns.items():
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    return table


def _strategies(evaluation: EvaluationRef) -> Table:
    """The best first, by Sharpe ratio; what has none (it never traded) comes last. `model`: only where there are several."""
    several = len({row.model for row in evaluation.strategies if row.model}) > 1
    left = ["strategy", "model"] if several else ["strategy"]
    right = ["return", "CAGR", "vol", "Sharpe", "p", "DSR", "max DD", "turns/yr"]
    columns = dict.fromkeys(left, "left") | dict.fromkeys(right, "right")
    table = _table("\nStrategies net of costs, the highest Sharpe ratio first; * marks a benchmark", columns)
    for row in sorted(evaluation.strategies, key=lambda r: -r.sharpe if math.isfinite(r.sharpe) else math.inf):
        table.add_row(
            row.name + (" *" if row.benchmark else ""),
            *([row.model] if several else []),
            _figure(row.total_return, "+.1%"),
            _figure(row.cagr, "+.1%"),
            _figure(row.volatility, ".1%"),
            _figure(row.sharpe, ".2f"),
            _figure(row.p_value, ".3f"),
            _figure(row.deflated, ".3f"),
            _figure(row.max_drawdown, ".1%"),
            _figure(row.turnover, ".0f") + "x",
            style="dim" if row.benchmark else None,
        )
    table.caption = (
        "p: one-sided, Sharpe <= 0, robust to autocorrelation; not corrected for the number of trials.\n"
        "DSR: deflated Sharpe ratio, the probability that it is above what the best of all trials reaches by luck."
    )
    table.caption_justify = "left"
    return table


def _luck(evaluation: EvaluationRef) -> str:
    """What the search for the best strategy may have found by itself."""
    return (
        f"Trials on this market so far: {evaluation.trials}. "
        f"Probability of backtest overfitting (PBO): {_figure(evaluation.pbo, '.0%')}. "
        f"That the best is no better than the benchmark (SPA): p = {_figure(evaluation.spa_p_value, '.3f')}."
    )


def _figure(value: float, form: str) -> str:
    """A number, or a dash where there is none."""
    return format(value, form) if math.isfinite(value) else "–"


def _sessions(outcome: Outcome) -> Table:
    right = dict.fromkeys(("orders", "fills", "equity"), "right")
    columns = dict.fromkeys(("session", "decided on", "account", "status"), "left") | right
    table = _table("\nTrading sessions, each filled at its own open", columns)
    for line in outcome.sessions:
        summary, record = line.state.summary, line.state.record
        equity = f"{summary.equity:,.2f}" if summary and summary.equity is not None else "at the open"
        table.add_row(
            str(record.session),
            str(record.decision_session),
            line.account.split("-")[0],
            "settled" if summary else "pending",
            str(line.orders),
            str(line.fills),
            equity,
        )
    accounts = sorted({line.account for line in outcome.sessions})
    table.caption = "Accounts: " + ", ".join(accounts)
    table.caption_justify = "left"
    return table


def _executions(outcome: Outcome) -> Table:
    shown = outcome.executions[-SHOWN_EXECUTIONS:]
    title = f"\nExecutions: {len(outcome.executions)} in these sessions, the last {len(shown)}"
    right = dict.fromkeys(("quantity", "price", "commission"), "right")
    columns = dict.fromkeys(("session", "symbol", "side"), "left") | right | {"model": "left", "order id": "left"}
    table = _table(title, columns)
    for row in shown:
        table.add_row(
            str(row.session),
            row.symbol,
            row.side.value,
            f"{row.quantity:,.4f}",
            f"{row.price:,.4f}",
            f"{row.commission:.2f}",
            f"{row.model} v{row.model_version}",
            row.client_order_id[:10],
        )
    return table
