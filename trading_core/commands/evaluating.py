"""`trading evaluate`, `sweep` and `parity`: what strategies would have earned, and whether the daily trade does the same."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Literal

import typer

from trading_core import config
from trading_core.commands.base import End, Json, Market, Start, opened, parsed_day, show

Clock = Callable[[], datetime]
RunId = Callable[[], str]


def add_evaluating(app: typer.Typer, now: Clock, run_id: RunId) -> None:
    """Adds the commands to the program; `now` reads the clock, `run_id` names a run."""
    _add_evaluate(app, now, run_id)
    _add_sweep(app, now, run_id)
    _add_parity(app, now, run_id)


def _progress(message: str) -> None:
    print(message, file=sys.stderr)


def _add_evaluate(app: typer.Typer, now: Clock, run_id: RunId) -> None:
    @app.command()
    def evaluate(
        market: Market = "",
        version: Annotated[
            list[str] | None,
            typer.Option(
                help="champion, challenger or a version number whose stored forecasts are traded; repeat for more in one "
                "report. Default: champion, unless a walk-forward is given."
            ),
        ] = None,
        walk_forward: Annotated[
            list[str] | None, typer.Option(help="The id of a walk-forward, of `trading walk-forward`; repeat for more.")
        ] = None,
        strategy: Annotated[
            list[str] | None, typer.Option(help="A file of configs/strategies; repeat for more. Default: all.")
        ] = None,
        start: Start = None,
        end: End = None,
        capital: Annotated[
            float, typer.Option(min=1.0, help="Of each strategy, in the market's currency.")
        ] = 1_000_000.0,
        cost: Annotated[
            list[str] | None,
            typer.Option(
                help="One of the market's costs replaced, such as commission_bps=0 or impact_coefficient=0.5 (see "
                "configs/templates/market.yaml); repeat for more."
            ),
        ] = None,
        fill_at: Annotated[
            Literal["open", "close", "vwap"],
            typer.Option(
                help="The price of the next session that orders fill at; vwap is a proxy. The daily trade: open."
            ),
        ] = "open",
        seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap and of the portfolios drawn at random.")] = 7,
        resamples: Annotated[int, typer.Option(min=100, max=1_000_000, help="Of the bootstrap.")] = 10_000,
        random_portfolios: Annotated[
            int, typer.Option(min=0, max=10_000, help="Drawn at random per strategy, to compare it with; 0 for none.")
        ] = 49,
        as_json: Json = False,
    ) -> None:
        """Simulate strategies on stored forecasts beside the benchmarks, judge them and write the report.

        Needs forecasts: `trading predict` or `trading walk-forward`. Default: from the first session that all forecasts
        have to the last session with bars. Every strategy counts as a trial of the market.
        """
        from trading_core.pipelines import evaluate as pipeline
        from trading_core.pipelines.evaluation_inputs import Wanted

        ws = opened(market)
        wanted = Wanted(
            versions=tuple(version or ([] if walk_forward else ["champion"])),
            walk_forwards=tuple(walk_forward or ()),
            strategies=tuple(strategy or config.names("strategies", ws.settings)),
            start=parsed_day(start),
            end=parsed_day(end),
            capital=capital,
            costs=dict(_cost(text) for text in cost or ()),
            fill_at=fill_at,
            seed=seed,
            resamples=resamples,
            random_portfolios=random_portfolios,
        )
        made = pipeline.evaluate(ws, wanted, run_id=run_id(), now=now(), progress=_progress)
        show(made, as_json, rows=made.strategies)


def _cost(text: str) -> tuple[str, float | None]:
    """ "impact_coefficient=0.5" as a pair; "none" lifts a cap. typer.BadParameter for what is no pair."""
    name, separator, value = text.partition("=")
    try:
        return name.strip(), None if value.strip().lower() == "none" else float(value)
    except ValueError:
        problem = f"'{text}': write NAME=NUMBER, such as commission_bps=0"
        raise typer.BadParameter(problem if separator else f"{problem}; the '=' is missing") from None


def _add_sweep(app: typer.Typer, now: Clock, run_id: RunId) -> None:
    @app.command()
    def sweep(
        param: Annotated[
            list[str], typer.Option(help="A parameter and its values, such as k=5,10,20; repeat for all combinations.")
        ],
        strategy: Annotated[
            str, typer.Option(help="A file of configs/strategies. Default: TRADING_STRATEGY or top10.")
        ] = "",
        version: Annotated[str, typer.Option(help="champion, challenger or a version number.")] = "champion",
        market: Market = "",
        start: Start = None,
        end: End = None,
        as_json: Json = False,
    ) -> None:
        """Simulate one strategy with many values of its parameters at once: a table, best first.

        Every combination counts as a trial of the market; the probability of backtest overfitting says what choosing the
        best of them is worth. Needs forecasts: `trading predict`.
        """
        from trading_core.pipelines import sweep as pipeline
        from trading_core.pipelines.evaluation_inputs import Wanted

        ws = opened(market)
        name = strategy or ws.settings.strategy
        wanted = Wanted((version,), (name,), start=parsed_day(start), end=parsed_day(end))
        grid = dict(_values(text) for text in param)
        if len(grid) < len(param):
            raise typer.BadParameter("a parameter is named twice; give all its values at once, such as k=5,10,20")
        made = pipeline.sweep(ws, wanted, grid, run_id=run_id(), now=now())
        show(made, as_json, rows=made.variants)


def _values(text: str) -> tuple[str, list[object]]:
    """ "k=5,10" as a parameter and its values, each read as YAML reads it. typer.BadParameter for what is none."""
    import yaml

    name, separator, values = text.partition("=")
    if not separator or not name.strip() or not values.strip():
        raise typer.BadParameter(f"'{text}': write NAME=VALUE,VALUE, such as k=5,10,20")
    try:
        return name.strip(), [yaml.safe_load(value) for value in values.split(",")]
    except yaml.YAMLError:
        raise typer.BadParameter(f"'{text}': write NAME=VALUE,VALUE, such as k=5,10,20") from None


def _add_parity(app: typer.Typer, now: Clock, run_id: RunId) -> None:
    @app.command()
    def parity(
        market: Market = "",
        strategy: Annotated[
            str, typer.Option(help="A file of configs/strategies. Default: TRADING_STRATEGY or top10.")
        ] = "",
        start: Start = None,
        end: End = None,
        account: Annotated[
            str | None, typer.Option(help="Compare what this account of replayed sessions did, and trade nothing.")
        ] = None,
        as_json: Json = False,
    ) -> None:
        """Replay the daily trade over sessions on a paper account, and check that the backtest gives the same.

        Prints both and the first difference, if there is one; exits with 1 then. Needs --start and --end, or --account.
        """
        from trading_core.pipelines import parity as pipeline

        ws = opened(market)
        first, last = parsed_day(start), parsed_day(end)
        if account is not None:
            made = pipeline.compare_account(ws, account, last)
        elif first is None or last is None:
            raise typer.BadParameter("give --start and --end, or --account")
        else:
            name = strategy or ws.settings.strategy
            made = pipeline.parity(
                ws, strategy=name, start=first, end=last, run_id=run_id(), now=now(), progress=_progress
            )
        show(made, as_json)
        if not made.agrees:
            raise typer.Exit(1)
