"""`trading quality`: what the quality gate finds in bars, printed."""

from __future__ import annotations

from datetime import datetime

import typer

from trading_core import config
from trading_core.commands.base import show, show_rows


def print_overview(market: str, calendar: str, interval: str, as_json: bool, now: datetime) -> None:
    """The report of a market's stored bars or of a panel file."""
    from trading_core.pipelines import quality

    settings = config.read_settings()
    made = quality.overview(market or settings.market, settings, now, calendar=calendar, interval=interval)
    if as_json:
        show(made, True)
        return
    span = f"{made.start} to {made.end}, {made.price_basis} prices"
    typer.echo(f"{made.market}: {made.rows:,} bars of {made.symbols} symbols, {span}")
    show_rows(made.summary, False, "")
    show_rows(quality.brief(made), False, "No row is in quarantine.")
    for line in (*(f"The gate is shut. {block}" for block in made.blocks), *made.cannot_tell):
        typer.echo(f"- {line}")
