"""`trading models`: versions, what can be trained, promotion."""

from __future__ import annotations

from typing import Annotated

import typer

from trading_core import config
from trading_core.commands.base import Json, Market, opened, show, show_rows

models_app = typer.Typer(help="Model versions.", no_args_is_help=True)


@models_app.command("list")
def models_list(market: Market = "", as_json: Json = False) -> None:
    """All registered versions of a market; `trading models zoo` lists what can be trained."""
    from trading_core.pipelines import models

    show_rows(models.versions(opened(market)), as_json, "No model version yet. Train one with `trading train`.")


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
    show_rows(rows, as_json, "")


@models_app.command("promote")
def models_promote(
    version: Annotated[int, typer.Argument(min=1, help="A number; `trading models list` shows them.")],
    market: Market = "",
    as_json: Json = False,
) -> None:
    """Make a version the champion: the one the live session trades with."""
    from trading_core.pipelines import models

    show(models.promote(opened(market), version), as_json)
