"""`trading trade`, `settle`, `halt`, `resume`, `flatten`, `adopt`, `resolve`, `status`, `explain` and `executions list`: what
concerns an account.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated

import typer

from trading_core.commands.base import Json, Market, opened, parsed_day, show, show_rows
from trading_core.commands.trading_text import account_lines, lineage_lines

Clock = Callable[[], datetime]
RunId = Callable[[], str]
Account = Annotated[str, typer.Option(help="An account id, or all.")]
Reason = Annotated[str, typer.Option(help="Kept in the ledger.")]

BY = "trading command"  # who, as the ledger has it

executions_app = typer.Typer(help="What was executed.", no_args_is_help=True)


def add_trading(app: typer.Typer, now: Clock, run_id: RunId) -> None:
    """Adds the commands to the program; `now` reads the clock, `run_id` names a run."""
    _add_trade(app, now, run_id)
    _add_controls(app, now)
    _add_repairs(app, now)
    _add_status(app, now)
    _add_explain(app)


def _add_trade(app: typer.Typer, now: Clock, run_id: RunId) -> None:
    @app.command()
    def trade(
        market: Market = "",
        strategy: Annotated[
            str, typer.Option(help="A file of configs/strategies. Default: TRADING_STRATEGY or top10.")
        ] = "",
        session: Annotated[
            str | None, typer.Option(help="Session to trade, YYYY-MM-DD. Default: the next one.")
        ] = None,
        replay: Annotated[str | None, typer.Option(help="Trade on the paper account replay-<market>-<name>.")] = None,
        as_json: Json = False,
    ) -> None:
        """Trade one session: check, infer, decide, sell, buy, settle. Running it again changes nothing.

        Needs features of the session before, and a champion: `trading backfill`, `trading train`.
        """
        from trading_core.pipelines import session_report
        from trading_core.pipelines import trade as pipeline

        ws = opened(market)
        made = pipeline.run(
            ws,
            strategy=strategy or ws.settings.strategy,
            session=parsed_day(session),
            is_backfill=False,
            replay=replay,
            run_id=run_id(),
            now=now(),
        )
        show(made, as_json, page=ws.store.uri(session_report.write(ws, made.account, made.session, now())))


def _add_controls(app: typer.Typer, now: Clock) -> None:
    def control(action: str, market: str, account: str, reason: str, as_json: bool) -> None:
        from trading_core.pipelines import controls

        show(controls.act(opened(market), action, account, reason, by=BY, now=now()), as_json)

    @app.command()
    def halt(market: Market = "", account: Account = "all", reason: Reason = "by hand", as_json: Json = False) -> None:
        """Stop all trading: no order is sent until `trading resume`."""
        control("halt", market, account, reason, as_json)

    @app.command()
    def resume(
        market: Market = "", account: Account = "all", reason: Reason = "by hand", as_json: Json = False
    ) -> None:
        """Lift a halt."""
        control("resume", market, account, reason, as_json)

    @app.command()
    def flatten(
        account: Annotated[str, typer.Option(help="The account to close.")],
        market: Market = "",
        reason: Reason = "by hand",
        as_json: Json = False,
    ) -> None:
        """Halt an account, cancel what is pending and sell everything at the next open."""
        control("flatten", market, account, reason, as_json)

    @app.command()
    def settle(
        account: Annotated[str, typer.Option(help="The account whose open session is to be settled.")],
        market: Market = "",
        as_json: Json = False,
    ) -> None:
        """Fill what the market has filled since, without starting a new session."""
        from trading_core.pipelines import controls, session_report

        ws = opened(market)
        done = controls.act(ws, "settle", account, "", by=BY, now=now())
        page = session_report.write_last(ws, account, now())
        show(done, as_json, page=ws.store.uri(page) if page else "")


def _add_repairs(app: typer.Typer, now: Clock) -> None:
    """What a person says after having looked at the broker."""

    @app.command()
    def adopt(
        account: Annotated[str, typer.Option(help="The account, after a mismatch that you have looked into.")],
        reason: Annotated[str, typer.Option(help="What it was. Kept in the ledger.")],
        market: Market = "",
        as_json: Json = False,
    ) -> None:
        """Take the broker's positions and cash for the truth from now on."""
        from trading_core.pipelines import controls

        show(controls.act(opened(market), "adopt", account, reason, by=BY, now=now()), as_json)

    @app.command()
    def resolve(
        order: Annotated[
            str, typer.Argument(metavar="ORDER_ID", help="The client order id; `trading status` shows it.")
        ],
        reason: Annotated[str, typer.Option(help="How you know. Kept in the ledger.")],
        market: Market = "",
        as_json: Json = False,
    ) -> None:
        """End an UNKNOWN order that you did not find at the broker. The broker is asked once more before."""
        from trading_core.pipelines import controls

        show(controls.resolve(opened(market), order, reason, by=BY, now=now()), as_json)


def _add_status(app: typer.Typer, now: Clock) -> None:
    @app.command()
    def status(
        market: Market = "",
        account: Annotated[str | None, typer.Option(help="Only this account.")] = None,
        as_json: Json = False,
    ) -> None:
        """Show where every account of a market stands: its last session, open orders, halts, warnings, cash and equity.

        Read from the ledger alone; no broker is asked.
        """
        from trading_core.pipelines import account_status

        rows = account_status.statuses(opened(market), account, now())
        if as_json:
            show_rows(rows, True, "")
        elif not rows:
            typer.echo("No account yet. Trade a session with `trading trade`.")
        else:
            typer.echo("\n\n".join("\n".join(account_lines(row)) for row in rows))


def _add_explain(app: typer.Typer) -> None:
    @app.command()
    def explain(
        order: Annotated[
            str, typer.Argument(metavar="ORDER_ID", help="A client order id, or at least its first 6 characters.")
        ],
        replay: Annotated[
            bool, typer.Option("--replay", help="Recompute the decision and its forecasts, and compare.")
        ] = False,
        market: Market = "",
        as_json: Json = False,
    ) -> None:
        """Show all an order came from, with hashes: intent, risk decisions, target, forecast, model, features, bars.

        With --replay the exit code is 1 unless the decision comes out again to the bit and the forecasts to 1e-6.
        """
        from trading_core.pipelines import lineage_replay

        made = lineage_replay.explained(opened(market), order, replay)
        if as_json:
            show(made, True)
        else:
            typer.echo("\n".join(lineage_lines(made)))
        if replay and not made.confirmed:
            raise typer.Exit(1)


@executions_app.command("list")
def executions_list(
    market: Market = "",
    account: Annotated[str | None, typer.Option(help="Only this account.")] = None,
    session: Annotated[str | None, typer.Option(help="Only this session, YYYY-MM-DD.")] = None,
    as_json: Json = False,
) -> None:
    """Every fill with what made it: strategy, model version, features version, client order id."""
    from trading_core.pipelines import trade as pipeline

    rows = pipeline.executions(opened(market), account=account, session=parsed_day(session))
    show_rows(rows, as_json, "Nothing was executed yet. Trade a session with `trading trade`.")
