"""`python -m launcher run|up|down|status`: what `make run`, `make up` and `make down` call."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from types import FrameType

import typer
from rich.console import Console

from launcher import supervisor
from launcher.airflow_api import AirflowApi, AirflowApiError
from launcher.environment import USER, Installation, installation
from launcher.job import Job, JobFailed
from launcher.progress import Progress
from launcher.show import show_outcome
from trading_core import config
from trading_core.errors import TradingError
from trading_core.pipelines import markets

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
# A pipe has no width of its own: rows keep to one line there.
console = Console(width=None if sys.stdout.isatty() else 110)
errors = Console(stderr=True, soft_wrap=True)


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """SIGINT or SIGTERM: unwinds through every `finally`, so that no service stays behind."""


@app.command()
def run(
    market: str = typer.Option("", help="A market's name, the path of a panel (Parquet or CSV), yahoo or alpaca."),
    symbols: str = typer.Option("", help="For yahoo and alpaca: symbols separated by commas."),
    calendar: str = typer.Option("", help="For a panel or symbols: an exchange's calendar or 24/7; default XNYS."),
    interval: str = typer.Option("", help="For a panel or symbols: what a bar spans; default 1d."),
    model: str = typer.Option("", help="A model config; default tft."),
    strategy: str = typer.Option("", help="A strategy config; default top10."),
    sessions: int = typer.Option(5, min=1, max=60, help="How many of the last sessions a fresh account trades."),
) -> None:
    """Runs the main job through Airflow and prints what came of it."""
    settings = config.read_settings()
    chosen = _resolve(market or settings.market, symbols, settings, calendar, interval)
    config.load_model(model or settings.model, settings)
    config.load_strategy(strategy or settings.strategy, settings)
    settings = _on_calendar_of(chosen, settings)
    home = installation(settings)
    with supervisor.exclusive(home):
        _run(home, chosen, model or settings.model, strategy or settings.strategy, sessions)


def _run(home: Installation, market: config.MarketConfig, model: str, strategy: str, sessions: int) -> None:
    progress = Progress(console)
    console.print(
        f"Market [bold]{market.id}[/bold], model {model}, strategy {strategy}. Everything stays under {home.var_dir}."
    )
    ours = not supervisor.running(home)
    if not ours:
        _require_calendar(market, supervisor.scheduled_market(home), home.settings)
    compiling = _compile_kernels()
    try:
        if ours:
            with progress.step("Airflow: database and services"):
                supervisor.prepare(home)
                supervisor.start(home)
        job = Job(AirflowApi(home), progress, home.settings, market, model, strategy, sessions)
        with progress.step("Airflow: DAGs parsed"):
            job.prepare_airflow(fresh=ours)
        outcome = job.run()
    finally:
        compiling.terminate()
        if ours:
            supervisor.stop(home)
    show_outcome(console, outcome, home)
    console.print(f"\nWhere the time went: {progress.where_the_time_went()}", highlight=False, soft_wrap=True)


@app.command()
def up(
    market: str = typer.Option("", help="The market whose schedules run; default simulated."),
    symbols: str = typer.Option("", help="For yahoo and alpaca: symbols separated by commas."),
    calendar: str = typer.Option("", help="For a panel or symbols: an exchange's calendar or 24/7; default XNYS."),
    interval: str = typer.Option("", help="For a panel or symbols: what a bar spans; default 1d."),
) -> None:
    """Starts Airflow and MLflow and leaves them running; the schedules are on."""
    settings = config.read_settings()
    if market:
        os.environ["TRADING_MARKET"] = _resolve(market, symbols, settings, calendar, interval).id
        settings = config.read_settings()
    home = installation(settings)
    with supervisor.exclusive(home):
        if supervisor.running(home):
            kept = supervisor.scheduled_market(home)
            if market and kept != settings.market:
                raise supervisor.ServiceError(f"The services run for market '{kept}'. Stop them first: make down.")
            console.print("The services are running already.")
        else:
            console.print("Starting Airflow and MLflow (about half a minute) ...")
            try:
                supervisor.prepare(home)
                supervisor.start(home, mlflow=True)
                Job(
                    AirflowApi(home), Progress(console), settings, config.load_market(settings.market), "", "", 1
                ).prepare_airflow()
                supervisor.keep(home)
            except BaseException:
                supervisor.stop(home)
                raise
    _print_addresses(home)


def _print_addresses(home: Installation) -> None:
    console.print(f"Airflow  {home.base_url}", highlight=False)
    console.print(f"MLflow   {home.mlflow_url}", highlight=False)
    console.print(f"Login    user {USER}, password {home.password}", highlight=False)
    console.print(f"Scheduled market: {supervisor.scheduled_market(home)}. Stop with `make down`.", highlight=False)


@app.command()
def down() -> None:
    """Stops the services; everything they made stays."""
    home = installation()
    with supervisor.exclusive(home):
        console.print(f"Stopped {supervisor.stop(home)} processes.")


@app.command()
def status() -> None:
    """Says whether the services are up, and where."""
    home = installation()
    if supervisor.running(home):
        _print_addresses(home)
    else:
        console.print("The services are not running. Start them with `make up`.")


def _resolve(name: str, symbols: str, settings: config.Settings, calendar: str, interval: str) -> config.MarketConfig:
    """The market of MARKET=, SYMBOLS=, CALENDAR= and INTERVAL=. One that cannot be trained is refused before any work."""
    found = markets.resolve(name, _split(symbols), settings, datetime.now(UTC), markets.trading_of(calendar, interval))
    markets.require_daily(found)
    return found


def _on_calendar_of(market: config.MarketConfig, settings: config.Settings) -> config.Settings:
    """The timetables of the services know one calendar, that of TRADING_MARKET, and take no other session.

    So a market with another calendar is the scheduled one of the services that this run starts.
    """
    if config.load_market(settings.market, settings).calendar == market.calendar:
        return settings
    os.environ["TRADING_MARKET"] = market.id
    return config.read_settings()


def _require_calendar(market: config.MarketConfig, scheduled: str, settings: config.Settings) -> None:
    """Services that run already keep their calendar. Errors: ServiceError."""
    scheduled = scheduled or settings.market
    kept = config.load_market(scheduled, settings).calendar
    if kept != market.calendar:
        raise supervisor.ServiceError(
            f"The services run for market '{scheduled}' on calendar {kept}; '{market.id}' trades on {market.calendar}. "
            "Stop them first: make down."
        )


def _compile_kernels() -> subprocess.Popen[bytes]:
    """Compiles all kernels while the services start: the mapped tasks that need them begin at the same time."""
    both = "from trading_core.features import compile as f; from trading_core.portfolio import compile as p; f.main(); p.main()"
    command = [sys.executable, "-c", both]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _split(symbols: str) -> Sequence[str]:
    return [part for part in symbols.replace(" ", ",").split(",") if part]


def _stop(_signal: int, _frame: FrameType | None) -> None:
    for number in SIGNALS:  # a second Ctrl-C must not cut off the clearing away
        signal.signal(number, signal.SIG_IGN)
    raise Stopped


def main() -> None:
    for number in SIGNALS:
        signal.signal(number, _stop)
    try:
        app()
    except (TradingError, supervisor.ServiceError, AirflowApiError, JobFailed) as error:
        errors.print(f"\n[bold red]Stopped:[/bold red] {type(error).__name__}", highlight=False)
        errors.print(str(error), markup=False, highlight=False)
        sys.exit(2)
    except Stopped:
        errors.print("\nInterrupted. Nothing is half written; the same command carries on where it can.")
        sys.exit(130)


if __name__ == "__main__":
    main()
