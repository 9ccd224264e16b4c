"""`trading features`: what there is, what is stored, and a look at it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from trading_core.commands.base import End, Json, Market, Start, opened, parsed_day, show, show_rows

if TYPE_CHECKING:
    from trading_core.pipelines.feature_views import FeatureRow

features_app = typer.Typer(help="Features.", no_args_is_help=True)


@features_app.command("tables")
def features_tables(market: Market = "", as_json: Json = False) -> None:
    """The stored families: version, sessions, and the features whose formulas have changed since."""
    from trading_core.pipelines import panels

    show_rows(panels.describe_tables(opened(market)), as_json, "No features yet. Run `trading backfill`.")


@features_app.command("list")
def features_list(
    family: Annotated[str | None, typer.Option(help="Only this family.")] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="With formulas and references, as docs/features.md.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Every feature with its family, unit, lookback (rows), inputs and description; in JSON also its fingerprint."""
    from trading_core.pipelines import feature_views

    if markdown and not as_json:
        typer.echo(feature_views.as_markdown(family), nl=False)
    elif as_json:
        show_rows(feature_views.listed(family), True, "")
    else:
        show_rows([_for_people(row) for row in feature_views.listed(family)], False, "")


def _for_people(row: FeatureRow) -> dict[str, object]:
    """Family first, and what fits on a line."""
    return {
        "family": row.family,
        "name": row.name,
        "unit": row.unit,
        "lookback": row.lookback,
        "inputs": list(row.inputs),
        "description": row.description,
    }


@features_app.command("plot")
def features_plot(
    symbol: Annotated[str, typer.Argument(help="A symbol of the market.")],
    features: Annotated[list[str], typer.Argument(help="Names of features; `trading features list` shows them.")],
    market: Market = "",
    start: Start = None,
    end: End = None,
    out: Annotated[
        str | None, typer.Option(help="An .html file. Default: plots/<market>-<symbol>.html under var/.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw stored bars and features of one symbol as an HTML page. Default: the last 252 bars."""
    from trading_core.pipelines import feature_views

    ws = opened(market)
    show(feature_views.plot(ws, symbol, features, start=parsed_day(start), end=parsed_day(end), out=out), as_json)
