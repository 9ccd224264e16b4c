"""`trading tune` and `trading ablate`: which options and which inputs are worth having."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Literal

import typer

from trading_core import config
from trading_core.commands.base import Json, Market, Model, TestStart, opened, parsed_day, show, training_output

Clock = Callable[[], datetime]
Pruner = Literal["median", "halving", "none"]


def add_tuning(app: typer.Typer, now: Clock) -> None:
    """Adds the commands to the program; `now` reads the clock."""
    _add_tune(app, now)
    _add_ablate(app, now)


def _add_tune(app: typer.Typer, now: Clock) -> None:
    @app.command()
    def tune(
        request: Annotated[
            str | None, typer.Option(help="URI of a search: take trials from that one, and print nothing else.")
        ] = None,
        market: Market = "",
        model: Model = "",
        trials: Annotated[int, typer.Option(min=1, max=500, help="Trials that the search is to reach.")] = 20,
        seed: Annotated[int | None, typer.Option(min=0, help="Of the proposals. Default: the config's.")] = None,
        pruner: Annotated[Pruner, typer.Option(help="Which trials are stopped early.")] = "median",
        test_start: TestStart = None,
        workers: Annotated[int, typer.Option(min=1, max=16, help="Processes that train side by side.")] = 1,
        timeout: Annotated[
            float | None, typer.Option(min=0.0, help="Seconds after which no trial is begun any more.")
        ] = None,
        save: Annotated[str, typer.Option(help="Write the best config under var/ by this name.")] = "",
        as_json: Json = False,
    ) -> None:
        """Search for a model's options. The same search goes on where it was, also with more trials than before.

        Trials are judged on the validation part; the sessions from --test-start on are not even read. Needs features:
        `trading backfill`.
        """
        from trading_core.pipelines import tune as pipeline

        settings = config.read_settings()
        if request is not None:
            pipeline.run(request, trials, settings, now(), timeout)
            return
        ws = opened(market)
        ref = pipeline.prepare(
            ws,
            model=model or settings.model,
            trials=trials,
            test_start=parsed_day(test_start),
            now=now(),
            seed=seed,
            pruner=pruner,
        )
        with training_output(as_json):
            if workers == 1:
                pipeline.run(ref.request_uri, trials, settings, now(), timeout)
            else:
                pipeline.run_in_processes(ws, ref, workers, timeout)
        made = pipeline.result(ws, ref, save or None)
        show(made, as_json, rows=pipeline.table(ws, ref))


def _add_ablate(app: typer.Typer, now: Clock) -> None:
    @app.command()
    def ablate(
        market: Market = "",
        model: Model = "",
        seeds: Annotated[int, typer.Option(min=1, max=100, help="Trainings of each variant.")] = 3,
        family: Annotated[
            list[str] | None, typer.Option(help="Leave out the features of this family; repeat for more.")
        ] = None,
        drop: Annotated[
            list[str] | None,
            typer.Option(help="Leave out these inputs together, separated by commas; repeat for more."),
        ] = None,
        encoder_length: Annotated[list[int] | None, typer.Option(help="Another length; repeat for more.")] = None,
        horizons: Annotated[
            list[str] | None, typer.Option(help="Other horizons, separated by commas; repeat for more.")
        ] = None,
        target_scale: Annotated[list[str] | None, typer.Option(help="volatility or none.")] = None,
        mask_above: Annotated[list[float] | None, typer.Option(help="Another share; repeat for more.")] = None,
        scaler: Annotated[list[str] | None, typer.Option(help="zscore or robust.")] = None,
        folds: Annotated[int, typer.Option(min=0, help="Walk-forward blocks to judge on; 0: the validation part.")] = 0,
        fold_sessions: Annotated[int, typer.Option(min=1, help="Sessions of each block.")] = 63,
        metric: Annotated[str, typer.Option(help="What the table compares: rank_ic, roc_auc, pinball ...")] = "rank_ic",
        horizon: Annotated[int | None, typer.Option(help="Default: the config's shortest.")] = None,
        test_start: TestStart = None,
        as_json: Json = False,
    ) -> None:
        """Train a model without some of its inputs, or with other values, beside itself; see docs/ablation.md.

        Without any option each family of features is left out once. Trainings that are there already are not done again.
        Needs features: `trading backfill`.
        """
        from trading_core.pipelines import ablate as pipeline

        ws = opened(market)
        variants = pipeline.Variants(
            drop_families=tuple(family or ()),
            drop=tuple(_names(text) for text in drop or ()),
            encoder_length=tuple(encoder_length or ()),
            horizons=tuple(_numbers(text) for text in horizons or ()),
            target_scale=tuple(target_scale or ()),
            mask_above=tuple(mask_above or ()),
            scaler=tuple(scaler or ()),
        )
        request = pipeline.prepare(
            ws,
            model=model or ws.settings.model,
            variants=variants,
            seeds=seeds,
            test_start=parsed_day(test_start),
            now=now(),
            folds=folds,
            fold_sessions=fold_sessions,
        )
        with training_output(as_json):
            made = pipeline.run(ws, request, now(), metric, horizon)
        show(made, as_json, rows=made.rows)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in _names(text))
    except ValueError:
        raise typer.BadParameter(f"'{text}' are no whole numbers; write them separated by commas") from None
