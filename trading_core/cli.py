"""`trading`: one command per operation. Every command takes `--json`; errors go to stderr with exit code 2."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from trading_core import config
from trading_core.commands.base import (
    End,
    Json,
    Market,
    Model,
    ModelFile,
    Start,
    TestStart,
    Variant,
    opened,
    parsed_day,
    show,
    show_rows,
    training_output,
)
from trading_core.commands.evaluating import add_evaluating
from trading_core.commands.features import features_app
from trading_core.commands.judging import add_judging
from trading_core.commands.models import models_app
from trading_core.commands.quality import print_overview
from trading_core.commands.trading import add_trading, executions_app
from trading_core.commands.tuning import add_tuning
from trading_core.errors import TradingError, UnknownNameError

app = typer.Typer(
    help="Forecasting models trained, judged and traded.", no_args_is_help=True, pretty_exceptions_enable=False
)
config_app = typer.Typer(help="Configuration files.", no_args_is_help=True)
market_app = typer.Typer(help="Markets.", no_args_is_help=True)
quality_app = typer.Typer(help="What the quality gate finds in bars, and a person's answers to it.")
for name, sub in (
    ("models", models_app),
    ("features", features_app),
    ("executions", executions_app),
    ("config", config_app),
    ("market", market_app),
    ("quality", quality_app),
):
    app.add_typer(sub, name=name)


def _now() -> datetime:
    return datetime.now(UTC)


def _run_id() -> str:
    import secrets

    return f"cli-{secrets.token_hex(6)}"


add_tuning(app, lambda: _now())
add_judging(app, lambda: _now(), _run_id)
add_evaluating(app, lambda: _now(), _run_id)
add_trading(app, lambda: _now(), _run_id)


# --- operations -------------------------------------------------------------------------------------------------------


@app.command()
def backfill(
    market: Market = "",
    start: Start = None,
    end: End = None,
    refresh: Annotated[
        bool, typer.Option(help="Fetch sessions that are stored already, too, and symbols that failed before.")
    ] = False,
    family: Annotated[
        list[str] | None,
        typer.Option(help="Compute this family of features alone, and fetch nothing; repeat for more. Default: all."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Fetch bars, check them, compute features. Default: what is missing of the whole history.

    Stored bars that the source now gives otherwise are listed; the rows they replace are kept in `bar_revisions`.
    """
    from trading_core.pipelines import backfill as pipeline

    ws = opened(market)
    made = pipeline.run(
        ws,
        start=parsed_day(start),
        end=parsed_day(end),
        refresh=refresh,
        run_id=_run_id(),
        now=_now(),
        families=family or (),
    )
    show(made, as_json, rows=made.contradictions or None)


@app.command()
def train(
    request: Annotated[
        str | None, typer.Option(help="URI of a training request: run that one and nothing else.")
    ] = None,
    market: Market = "",
    model: Model = "",
    config_file: ModelFile = None,
    variant: Variant = "",
    test_start: TestStart = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Default: the config's.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most so many. Default: the config's.")] = None,
    reuse: Annotated[bool, typer.Option(help="Take an identical version that exists.")] = True,
    as_json: Json = False,
) -> None:
    """Train a model and register it. Needs features: `trading backfill`.

    `--request URI` is what Airflow calls, wherever the training runs.
    """
    from trading_core.pipelines import train as pipeline

    settings = config.read_settings()
    if request is None:
        if config_file and model:
            raise typer.BadParameter("give --model or --config, not both")
        ws, given = opened(market), None
        if config_file:
            model, given = config.load_model_file(config_file, variant, settings)
        request = pipeline.prepare(
            ws,
            model=model or settings.model,
            given=given,
            test_start=parsed_day(test_start),
            now=_now(),
            seed=seed,
            epochs=epochs,
            reuse=reuse,
        ).request_uri
    with training_output(as_json):
        made = pipeline.run(request, settings, _now())
    show(made, as_json)


@app.command()
def predict(
    market: Market = "",
    version: Annotated[str, typer.Option(help="champion, challenger or a version number.")] = "champion",
    start: Start = None,
    end: End = None,
    as_json: Json = False,
) -> None:
    """Store forecasts of a model version; sessions that are stored already stay as they are.

    Needs features and a version: `trading backfill`, `trading train`. Default: every session after the version's cut-off.
    """
    from trading_core.pipelines import infer as pipeline

    ws = opened(market)
    show(
        pipeline.infer(ws, version=version, start=parsed_day(start), end=parsed_day(end), run_id=_run_id(), now=_now()),
        as_json,
    )


# --- lists ------------------------------------------------------------------------------------------------------------


@config_app.command("check")
def config_check(
    file: Annotated[
        str | None, typer.Argument(help="One YAML file, anywhere; default: all under configs/ and var/configs/.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Validate configuration files to the last option; exits with 2 if one is wrong."""
    from trading_core.pipelines import check

    rows = check.check_all(config.read_settings(), file)
    show_rows(rows, as_json, "")
    if any(not row["valid"] for row in rows):
        raise typer.Exit(2)


@market_app.command("list")
def market_list(as_json: Json = False) -> None:
    """The markets that can be named."""
    settings = config.read_settings()
    loaded = [config.load_market(name, settings) for name in config.names("markets", settings)]
    rows = [
        {
            "market": m.id,
            "source": m.source,
            "calendar": m.calendar,
            "interval": m.interval,
            "start": m.history_start,
            "description": m.description,
        }
        for m in loaded
    ]
    show_rows(rows, as_json, "")


@market_app.command("add")
def market_add(
    path: Annotated[str, typer.Argument(help="A panel of bars (Parquet or CSV), or yahoo or alpaca with --symbols.")],
    sectors: Annotated[str | None, typer.Option(help="A file with the columns symbol and sector.")] = None,
    instruments: Annotated[
        str | None,
        typer.Option(
            help="A file with symbol, from, to, sector and any other column: what holds when (CSV or Parquet)."
        ),
    ] = None,
    symbols: Annotated[
        str, typer.Option(help="Separated by commas; of a panel without a column symbol: the name of its only one.")
    ] = "",
    calendar: Annotated[str, typer.Option(help="An exchange's calendar, or 24/7. Default: XNYS.")] = "",
    interval: Annotated[str, typer.Option(help="1m, 5m, 15m, 30m, 1h or 1d. Default: 1d.")] = "",
    as_json: Json = False,
) -> None:
    """Make a market of a panel file, which is checked in full first, or of a list of symbols."""
    from trading_core.pipelines import markets

    settings, wanted = config.read_settings(), [part.strip() for part in symbols.split(",") if part.strip()]
    trading = markets.trading_of(calendar, interval) or markets.US_DAILY
    if instruments:
        markets.check_instruments(instruments)  # a file that cannot be used leaves no market behind
    if path in markets.LISTED_SOURCES:
        made = markets.add_listed(path, wanted, settings, _now(), trading=trading)
    else:
        made = markets.add_panel(path, settings, _now(), sectors, trading, markets.only_symbol(path, wanted))
    show(markets.with_instruments(made, instruments, settings) if instruments else made, as_json)


@quality_app.callback(invoke_without_command=True)
def quality_overview(
    context: typer.Context,
    market: Annotated[str, typer.Option("--market", "-m", help="A market, or the path of a panel of bars.")] = "",
    calendar: Annotated[str, typer.Option(help="The calendar of a panel file, such as XNYS or 24/7.")] = "XNYS",
    interval: Annotated[str, typer.Option(help="The interval of a panel file: 1m, 5m, 15m, 30m, 1h or 1d.")] = "1d",
    as_json: Json = False,
) -> None:
    """Judge a market's stored bars, or a panel file as it is; stores nothing."""
    if context.invoked_subcommand is None:
        print_overview(market, calendar, interval, as_json, _now())


@quality_app.command("resolve")
def quality_resolve(
    symbol: Annotated[str, typer.Argument(help="The symbol of a quarantined jump.")],
    session: Annotated[datetime, typer.Argument(formats=["%Y-%m-%d"], help="Its session.")],
    answer: Annotated[str, typer.Option("--as", help="genuine, bad, or split (a missing split or distribution).")],
    ratio: Annotated[float | None, typer.Option(help="New shares per old, with --as split.")] = None,
    dividend: Annotated[float | None, typer.Option(help="Cash per new share, with --as split.")] = None,
    market: Market = "",
    as_json: Json = False,
) -> None:
    """Say what a quarantined jump is. The next backfill that fetches acts on it (at once: --refresh its session)."""
    from trading_core.pipelines import quality

    ws, day = opened(market), session.date()
    show(quality.resolve(ws, symbol, day, answer=answer, ratio=ratio, dividend=dividend, now=_now()), as_json)


def main() -> None:
    """The entry point: errors made on purpose are one message, never a traceback."""
    try:
        app(standalone_mode=True)
    except UnknownNameError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(2)
    except TradingError as error:
        typer.echo(f"Error ({type(error).__name__}): {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
