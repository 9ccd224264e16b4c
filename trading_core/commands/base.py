"""What all commands share: the options, opening a market, printing a result as text or as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trading_core import config

if TYPE_CHECKING:
    from trading_core.pipelines.workspace import Workspace

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Market = Annotated[str, typer.Option("--market", "-m", help="A market (default: TRADING_MARKET or simulated).")]
Start = Annotated[str | None, typer.Option(help="First session, YYYY-MM-DD.")]
End = Annotated[str | None, typer.Option(help="Last session, YYYY-MM-DD.")]
TestStart = Annotated[
    str | None,
    typer.Option(
        help="First session that nothing is learned of, YYYY-MM-DD. Default: the market's last `test_sessions` stay unseen."
    ),
]
Model = Annotated[
    str, typer.Option(help="A file of configs/models, or of configs/zoo: zoo/gru. Default: TRADING_MODEL or tft.")
]
ModelFile = Annotated[Path | None, typer.Option("--config", help="The model's config as a file, in place of --model.")]
Variant = Annotated[str, typer.Option(help="With a comparison as --config: which of its models.")]


def opened(market: str) -> Workspace:
    """The workspace of a market by name, '' for the one of the settings. Polars and the like are loaded here, not before."""
    from trading_core.pipelines.workspace import open_workspace

    settings = config.read_settings()
    return open_workspace(market or settings.market, settings)


def parsed_day(text: str | None) -> date | None:
    """A day as typed, None when none was. typer.BadParameter for what is no date."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"'{text}' is not a date; write YYYY-MM-DD") from None


def training_output(as_json: bool) -> AbstractContextManager[object]:
    """Where what a training prints goes: with --json to stderr, so that stdout is JSON and nothing else."""
    return redirect_stdout(sys.stderr) if as_json else nullcontext()


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


def show(value: Any, as_json: bool, rows: Sequence[Any] | None = None, page: str = "") -> None:
    """Prints a result: JSON, or one line per field and a table of `rows`. `page`: where its HTML page lies, "" for none."""
    plain = _plain(value)
    if page:
        plain["page"] = page
    if as_json:
        typer.echo(json.dumps(plain, indent=2))
        return
    for key, item in plain.items():
        if not isinstance(item, list | dict) or not item or rows is None:
            number = getattr(value, key, None)
            undefined = isinstance(number, float) and math.isnan(number)
            typer.echo(f"{key:<24} {'not defined' if undefined else item}")
    if rows is not None:
        _table([_plain(row) for row in rows])


def show_rows(rows: Sequence[Any], as_json: bool, when_empty: str) -> None:
    """Prints a table, or JSON; `when_empty`: what to say when there are none."""
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
