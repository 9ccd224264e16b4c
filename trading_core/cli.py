"""`trading`: one command per operation. Every command takes `--json`; errors go to stderr with exit code 2."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from enum import Enum
from typing import Annotated, Any

import typer

from trading_core import config
from trading_core.errors import TradingError, UnknownNameError

app = typer.Typer(
    help="Forecasting models trained, judged and traded.", no_args_is_help=True, pretty_exceptions_enable=False
)
models_app = typer.Typer(help="Model versions.", no_args_is_help=True)
features_app = typer.Typer(help="Features.", no_args_is_help=True)
executions_app = typer.Typer(help="What was executed.", no_args_is_help=True)
config_app = typer.Typer(help="Configuration files.", no_args_is_help=True)
market_app = typer.Typer(help="Markets.", no_args_is_help=True)
for name, sub in (
    ("models", models_app),
    ("features", features_app),
    ("executions", executions_app),
    ("config", config_app),
    ("market", market_app),
):
    app.add_typer(sub, name=name)

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Market = Annotated[str, typer.Option("--market", "-m", help="A market (default: TRADING_MARKET or simulated).")]
Day = Annotated[str | None, typer.Option(help="YYYY-MM-DD.")]


def _workspace(market: str) -> Any:
    from trading_core.pipelines.workspace import open_workspace

    settings = config.read_settings()
    return open_workspace(market or settings.market, settings)


def _now() -> datetime:
    return datetime.now(UTC)


def _run_id() -> str:
    import secrets

    return f"cli-{secrets.token_hex(6)}"


def _day(text: str | None) -> date | None:
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"'{text}' is not a date; write YYYY-MM-DD") from None


# --- operations -------------------------------------------------------------------------------------------------------


@app.command()
def backfill(
    market: Market = "",
    start: Day = None,
    end: Day = None,
    refresh: Annotated[bool, typer.Option(help="Fetch and replace sessions that are stored already.")] = False,
    as_json: Json = False,
) -> None:
    """Fetch bars, check them, compute features. Default: what is missing of the whole history."""
    from trading_core.pipelines import backfill as pipeline

    ws = _workspace(market)
    made = pipeline.run(ws, start=_day(start), end=_day(end), refresh=refresh, run_id=_run_id(), now=_now())
    _show(made, as_json)


@app.command()
def train(
    request: Annotated[
        str | None, typer.Option(help="URI of a training request: run that one and nothing else.")
    ] = None,
    market: Market = "",
    model: Annotated[str, typer.Option(help="A file of configs/models.")] = "",
    test_start: Day = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    reuse: Annotated[bool, typer.Option(help="Take an identical version that exists.")] = True,
    as_json: Json = False,
) -> None:
    """Train a model and register it. `--request URI` is what Airflow calls, wherever the training runs."""
    from trading_core.pipelines import train as pipeline

    settings = config.read_settings()
    if request is None:
        ws = _workspace(market)
        request = pipeline.prepare(
            ws,
            model=model or settings.model,
            test_start=_day(test_start),
            now=_now(),
            seed=seed,
            epochs=epochs,
            reuse=reuse,
        ).request_uri
    with _quiet_stdout(as_json):
        made = pipeline.run(request, settings, _now())
    _show(made, as_json)


@app.command()
def predict(
    market: Market = "",
    version: Annotated[str, typer.Option(help="champion, challenger or a version number.")] = "champion",
    start: Day = None,
    end: Day = None,
    as_json: Json = False,
) -> None:
    """Store forecasts of a model version; sessions that are stored already stay as they are."""
    from trading_core.pipelines import infer as pipeline

    ws = _workspace(market)
    _show(pipeline.infer(ws, version=version, start=_day(start), end=_day(end), run_id=_run_id(), now=_now()), as_json)


@app.command()
def evaluate(
    market: Market = "",
    version: Annotated[str, typer.Option(help="champion, challenger or a version number.")] = "champion",
    strategy: Annotated[
        list[str] | None, typer.Option(help="A file of configs/strategies; repeat for more. Default: all.")
    ] = None,
    start: Day = None,
    end: Day = None,
    capital: Annotated[float, typer.Option(min=1.0)] = 1_000_000.0,
    as_json: Json = False,
) -> None:
    """Simulate strategies on stored forecasts beside the benchmarks and write the report."""
    from trading_core.pipelines import evaluate as pipeline

    ws = _workspace(market)
    made = pipeline.evaluate(
        ws,
        version=version,
        strategies=strategy or config.names("strategies", ws.settings),
        start=_day(start),
        end=_day(end),
        capital=capital,
        run_id=_run_id(),
        now=_now(),
    )
    _show(made, as_json, rows=made.strategies)


@app.command()
def trade(
    market: Market = "",
    strategy: Annotated[str, typer.Option(help="A file of configs/strategies.")] = "",
    session: Annotated[str | None, typer.Option(help="Session to trade, YYYY-MM-DD. Default: the next one.")] = None,
    replay: Annotated[str | None, typer.Option(help="Trade on the paper account replay-<market>-<name>.")] = None,
    as_json: Json = False,
) -> None:
    """Trade one session: check, infer, decide, sell, buy, settle. Running it again changes nothing."""
    from trading_core.pipelines import trade as pipeline

    ws = _workspace(market)
    made = pipeline.run(
        ws,
        strategy=strategy or ws.settings.strategy,
        session=_day(session),
        is_backfill=False,
        replay=replay,
        run_id=_run_id(),
        now=_now(),
    )
    _show(made, as_json)


def _control(action: str, market: str, account: str, reason: str, as_json: bool) -> None:
    from trading_core.pipelines import controls

    _show(controls.act(_workspace(market), action, account, reason, by="trading command", now=_now()), as_json)


Account = Annotated[str, typer.Option(help="An account id, or all.")]
Reason = Annotated[str, typer.Option(help="Kept in the ledger.")]


@app.command()
def halt(market: Market = "", account: Account = "all", reason: Reason = "by hand", as_json: Json = False) -> None:
    """Stop all trading: no order is sent until `trading resume`."""
    _control("halt", market, account, reason, as_json)


@app.command()
def resume(market: Market = "", account: Account = "all", reason: Reason = "by hand", as_json: Json = False) -> None:
    """Lift a halt."""
    _control("resume", market, account, reason, as_json)


@app.command()
def flatten(
    account: Annotated[str, typer.Option(help="The account to close.")],
    market: Market = "",
    reason: Reason = "by hand",
    as_json: Json = False,
) -> None:
    """Halt an account, cancel what is pending and sell everything at the next open."""
    _control("flatten", market, account, reason, as_json)


@app.command()
def settle(
    account: Annotated[str, typer.Option(help="The account whose open session is to be settled.")],
    market: Market = "",
    as_json: Json = False,
) -> None:
    """Fill what the market has filled since, without starting a new session."""
    _control("settle", market, account, "", as_json)


# --- lists ------------------------------------------------------------------------------------------------------------


@models_app.command("list")
def models_list(market: Market = "", as_json: Json = False) -> None:
    """All registered versions of a market; `trading models zoo` lists what can be trained."""
    from trading_core.pipelines import models

    _show_rows(models.versions(_workspace(market)), as_json, "No model version yet. Train one with `trading train`.")


@models_app.command("zoo")
def models_zoo(as_json: Json = False) -> None:
    """The architectures, and the configs that train them."""
    from trading_core.models.registry import MODELS

    settings = config.read_settings()
    configs = {name: config.load_model(name, settings) for name in config.names("models", settings)}
    rows = [
        {
            "model": entry.name,
            "description": entry.description,
            "configs": sorted(name for name, loaded in configs.items() if loaded.model == entry.name),
        }
        for entry in MODELS.values()
    ]
    _show_rows(rows, as_json, "")


@models_app.command("promote")
def models_promote(version: Annotated[int, typer.Argument(min=1)], market: Market = "", as_json: Json = False) -> None:
    """Make a version the champion: the one the live session trades with."""
    from trading_core.pipelines import models

    _show(models.promote(_workspace(market), version), as_json)


@features_app.command("list")
def features_list(as_json: Json = False) -> None:
    """Every feature with its family, inputs, lookback (rows) and unit."""
    from trading_core.features.build import describe

    rows = [
        {
            "name": f.name,
            "family": f.family,
            "inputs": list(f.inputs),
            "lookback": f.lookback,
            "unit": f.unit,
            "description": f.description,
        }
        for f in describe()
    ]
    _show_rows(rows, as_json, "")


@executions_app.command("list")
def executions_list(
    market: Market = "",
    account: Annotated[str | None, typer.Option(help="Only this account.")] = None,
    session: Annotated[str | None, typer.Option(help="Only this session, YYYY-MM-DD.")] = None,
    as_json: Json = False,
) -> None:
    """Every fill with what made it: strategy, model version, features version, client order id."""
    from trading_core.pipelines import trade as pipeline

    rows = pipeline.executions(_workspace(market), account=account, session=_day(session))
    _show_rows(rows, as_json, "Nothing was executed yet. Trade a session with `trading trade`.")


@config_app.command("check")
def config_check(
    file: Annotated[str | None, typer.Argument(help="One YAML file under configs/; default: all.")] = None,
    as_json: Json = False,
) -> None:
    """Validate configuration files to the last option; exits with 2 if one is wrong."""
    from trading_core.pipelines import check

    rows = check.check_all(config.read_settings(), file)
    _show_rows(rows, as_json, "")
    if any(not row["valid"] for row in rows):
        raise typer.Exit(2)


@market_app.command("list")
def market_list(as_json: Json = False) -> None:
    """The markets that can be named."""
    settings = config.read_settings()
    loaded = [config.load_market(name, settings) for name in config.names("markets", settings)]
    rows = [
        {"market": m.id, "source": m.source, "start": m.history_start, "description": m.description} for m in loaded
    ]
    _show_rows(rows, as_json, "")


@market_app.command("add")
def market_add(
    path: Annotated[str, typer.Argument(help="A panel of bars: Parquet or CSV.")],
    sectors: Annotated[str | None, typer.Option(help="A file with the columns symbol and sector.")] = None,
    as_json: Json = False,
) -> None:
    """Make a market of a panel file; the file is checked in full first."""
    from trading_core.pipelines import markets

    _show(markets.add_panel(path, config.read_settings(), _now(), sectors), as_json)


# --- output -----------------------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return None  # JSON has no NaN
    return value


def _show(value: Any, as_json: bool, rows: Sequence[Any] | None = None) -> None:
    plain = _plain(value)
    if as_json:
        typer.echo(json.dumps(plain, indent=2))
        return
    for key, item in plain.items():
        if not isinstance(item, list | dict) or not item or rows is None:
            typer.echo(f"{key:<24} {item}")
    if rows is not None:
        _table([_plain(row) for row in rows])


def _show_rows(rows: Sequence[Any], as_json: bool, when_empty: str) -> None:
    plain = [_plain(row) for row in rows]
    if as_json:
        typer.echo(json.dumps(plain, indent=2))
    elif not plain:
        typer.echo(when_empty)
    else:
        _table(plain)


def _table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold")
    for key in rows[0]:
        table.add_column(key, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    console = Console()
    # A pipe has no width: let every row keep to one line there.
    Console(width=None if console.is_terminal else 400).print(table)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


class _quiet_stdout:
    """Sends what a training prints to stderr, so that stdout is JSON and nothing else."""

    def __init__(self, active: bool) -> None:
        self._active = active

    def __enter__(self) -> None:
        self._kept = sys.stdout
        if self._active:
            sys.stdout = sys.stderr

    def __exit__(self, *_: object) -> None:
        sys.stdout = self._kept


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
