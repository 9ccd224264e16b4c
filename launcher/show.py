"""The table `make run` ends with."""

from __future__ import annotations

import math

from rich.console import Console
from rich.table import Table

from launcher.environment import Installation
from trading_core.pipelines.summary import Outcome

SHOWN_EXECUTIONS = 12


def show_outcome(console: Console, outcome: Outcome, home: Installation) -> None:
    """Skill, strategies, sessions and the newest executions, then where to look further."""
    evaluation, model = outcome.evaluation, outcome.model
    console.rule(f"{outcome.market}: {evaluation.start} .. {evaluation.end}")
    ceiling = evaluation.rank_ic_ceiling
    best = f" (the market's own truth reaches {ceiling:.3f})" if math.isfinite(ceiling) else ""
    console.print(
        f"Forecasts of {model.model} v{model.version}, which knows nothing after {model.cutoff}: mean rank IC "
        f"{evaluation.mean_rank_ic:+.4f}{best}, t = {evaluation.rank_ic_t:.1f}, rank ICIR {evaluation.rank_icir:.2f}.",
        highlight=False,
        soft_wrap=True,
    )
    console.print(_strategies(outcome))
    console.print(_sessions(outcome))
    console.print(_executions(outcome))
    console.print(f"Report      {outcome.report_path}", highlight=False, soft_wrap=True)
    console.print(f"Executions  .venv/bin/trading executions list --market {outcome.market} --json", highlight=False, soft_wrap=True)
    console.print(f"UI          make up   (Airflow {home.base_url}, MLflow {home.mlflow_url}; it prints the login)", highlight=False, soft_wrap=True)


def _strategies(outcome: Outcome) -> Table:
    table = Table(title="Strategies net of costs, benchmarks last", title_justify="left", box=None, header_style="bold")
    for name in ("strategy", "return", "CAGR", "volatility", "Sharpe", "p-value", "Sortino", "max drawdown", "turnover/yr", "hit ratio"):
        table.add_column(name, justify="left" if name == "strategy" else "right")
    for row in sorted(outcome.evaluation.strategies, key=lambda r: (r.benchmark, -r.sharpe)):
        table.add_row(
            row.name + (" *" if row.benchmark else ""),
            f"{row.total_return:+.1%}",
            f"{row.cagr:+.1%}",
            f"{row.volatility:.1%}",
            f"{row.sharpe:.2f}",
            f"{row.p_value:.3f}",
            f"{row.sortino:.2f}",
            f"{row.max_drawdown:.1%}",
            f"{row.turnover:.0f}x",
            f"{row.hit_ratio:.1%}",
        )
    table.caption = "* benchmark. p-value: one-sided, Sharpe <= 0, robust to autocorrelation; not corrected for the number of trials."
    table.caption_justify = "left"
    return table


def _sessions(outcome: Outcome) -> Table:
    table = Table(title="Trading sessions", title_justify="left", box=None, header_style="bold")
    for name in ("session", "account", "decided on", "status", "orders", "fills", "equity"):
        table.add_column(name, justify="right" if name in ("orders", "fills", "equity") else "left", overflow="fold")
    for line in outcome.sessions:
        summary = line.state.summary
        equity = f"{summary.equity:,.2f}" if summary and summary.equity is not None else "(at the open)"
        status = "settled" if summary else "pending"
        record = line.state.record
        table.add_row(
            str(record.session), line.account, str(record.decision_session), status, str(line.orders), str(line.fills), equity
        )
    return table


def _executions(outcome: Outcome) -> Table:
    shown = outcome.executions[-SHOWN_EXECUTIONS:]
    title = f"Executions: {len(outcome.executions)} in these sessions, the last {len(shown)}"
    table = Table(title=title, title_justify="left", box=None, header_style="bold")
    for name in ("session", "symbol", "side", "quantity", "price", "commission", "model", "client order id"):
        table.add_column(name, justify="right" if name in ("quantity", "price", "commission") else "left")
    for row in shown:
        table.add_row(
            str(row.session),
            row.symbol,
            row.side.value,
            f"{row.quantity:,.4f}",
            f"{row.price:,.4f}",
            f"{row.commission:.2f}",
            f"{row.model} v{row.model_version}",
            row.client_order_id[:12] + "…",
        )
    return table
