"""`trading evaluate-model`, `cross-validate`, `walk-forward` and `compare`: how good models are at forecasting."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

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

Clock = Callable[[], datetime]
RunId = Callable[[], str]


def add_judging(app: typer.Typer, now: Clock, run_id: RunId) -> None:
    """Adds the commands to the program; `now` reads the clock, `run_id` names a run."""
    _add_evaluate_model(app, now, run_id)
    _add_cross_validate(app, now)
    _add_walk_forward(app, now, run_id)
    _add_compare(app, now, run_id)


def _add_evaluate_model(app: typer.Typer, now: Clock, run_id: RunId) -> None:
    @app.command("evaluate-model")
    def evaluate_model(
        model: Annotated[
            str, typer.Option(help="NAME@ALIAS, NAME@NUMBER, or NAME for its newest version; NAME of its config.")
        ] = "",
        config_file: Annotated[
            Path | None, typer.Option("--config", help="A model config: only what was trained with it is judged.")
        ] = None,
        variant: Variant = "",
        market: Market = "",
        start: Start = None,
        end: End = None,
        as_json: Json = False,
    ) -> None:
        """Judge a registered version's forecasts: one row per horizon. Default: every session after its cut-off.

        Forecasts that are stored are read, missing ones computed and stored. Sessions up to the cut-off are refused. Needs
        --model or --config of a version that is there: `trading train`.
        """
        from trading_core.pipelines import evaluate_model as pipeline

        given = config.load_model_file(config_file, variant)[1] if config_file else None
        made = pipeline.evaluate_model(
            opened(market),
            model=model,
            given=given,
            start=parsed_day(start),
            end=parsed_day(end),
            run_id=run_id(),
            now=now(),
        )
        show(made, as_json, rows=made.horizons)
        for rows in (made.intervals, made.classes, made.each_class):
            if rows and not as_json:
                show_rows(rows, as_json, when_empty="")


def _add_cross_validate(app: typer.Typer, now: Clock) -> None:
    @app.command("cross-validate")
    def cross_validate(
        market: Market = "",
        model: Model = "",
        config_file: ModelFile = None,
        variant: Variant = "",
        scheme: Annotated[
            Literal["purged_k_fold", "combinatorial", "expanding", "rolling"],
            typer.Option(help="How the history is cut; the last two are walk-forward."),
        ] = "purged_k_fold",
        folds: Annotated[
            int, typer.Option(min=2, help="Groups of the history, or walk-forward blocks at its end.")
        ] = 5,
        tested: Annotated[int, typer.Option(min=1, help="combinatorial: groups that each training is tested on.")] = 2,
        fold_sessions: Annotated[int, typer.Option(min=5, help="expanding, rolling: sessions of a block.")] = 63,
        train_sessions: Annotated[
            int | None, typer.Option(min=1, help="rolling: sessions that each block's training looks back.")
        ] = None,
        embargo: Annotated[
            int | None, typer.Option(min=0, help="Sessions dropped beyond the purge. Default: the config's.")
        ] = None,
        test_start: TestStart = None,
        as_json: Json = False,
    ) -> None:
        """Train a model once per fold of its history and judge what each training has not seen; registers nothing.

        Around every test the longest horizon + 1 sessions are purged. Sessions from --test-start on are not even read.
        Needs features: `trading backfill`.
        """
        from trading_core.pipelines import cross_validate as pipeline

        if config_file and model:
            raise typer.BadParameter("give --model or --config, not both")
        ws, given = opened(market), None
        if config_file:
            model, given = config.load_model_file(config_file, variant, ws.settings)
        plan = pipeline.FoldPlan(scheme, folds, tested, fold_sessions, train_sessions, embargo)
        day, name = parsed_day(test_start), model or ws.settings.model
        with training_output(as_json):
            made = pipeline.cross_validate(ws, model=name, given=given, plan=plan, test_start=day, now=now())
        show(made, as_json, rows=made.parts)


def _add_walk_forward(app: typer.Typer, now: Clock, run_id: RunId) -> None:
    @app.command("walk-forward")
    def walk_forward(
        start: Annotated[
            datetime,
            typer.Option(formats=["%Y-%m-%d"], help="First session that is forecast, where the first block begins."),
        ],
        end: End = None,
        every: Annotated[int, typer.Option(min=5, help="Sessions between two trainings.")] = 63,
        market: Market = "",
        model: Model = "",
        config_file: ModelFile = None,
        variant: Variant = "",
        seed: Annotated[int | None, typer.Option(min=0, help="Default: the config's.")] = None,
        epochs: Annotated[int | None, typer.Option(min=1, help="At most so many. Default: the config's.")] = None,
        as_json: Json = False,
    ) -> None:
        """Train a model anew every so many sessions and forecast each block by the version trained before it.

        Run again, it takes what is there: after an interruption, or with a later --end (default: the last session with
        features). Versions are registered without an alias, so none of them trades live. Needs features of the whole
        history: `trading backfill`.
        """
        from trading_core.pipelines import walk_forward as pipeline

        if config_file and model:
            raise typer.BadParameter("give --model or --config, not both")
        ws, given = opened(market), None
        if config_file:
            model, given = config.load_model_file(config_file, variant, ws.settings)
        with training_output(as_json):
            made = pipeline.walk_forward(
                ws,
                model=model or ws.settings.model,
                given=given,
                start=start.date(),
                end=parsed_day(end),
                every=every,
                seed=seed,
                epochs=epochs,
                run_id=run_id(),
                now=now(),
                progress=lambda line: typer.echo(line, err=True),
            )
        show(made, as_json, rows=made.segments)


def _add_compare(app: typer.Typer, now: Clock, run_id: RunId) -> None:
    @app.command()
    def compare(
        config_file: Annotated[
            Path, typer.Option("--config", help="A comparison, such as configs/zoo/btc_direction.yaml.")
        ],
        data: Annotated[str, typer.Option(help="A panel of bars (CSV or Parquet) to compare them on.")],
        only: Annotated[
            list[str] | None, typer.Option(help="Only this one of its models; repeat for more. Default: all.")
        ] = None,
        as_json: Json = False,
    ) -> None:
        """Train models alike on one panel, and judge and trade them over sessions that they have not seen: one table.

        Each model's probabilities are calibrated and its threshold searched on the validation part; the test comes last.
        """
        from trading_core.pipelines import compare as pipeline

        chosen = config.load_file(config_file, config.ComparisonConfig)
        with training_output(as_json):
            made = pipeline.compare(
                config_file.stem, chosen, data, config.read_settings(), only=only or (), run_id=run_id(), now=now()
            )
        show(made, as_json, rows=made.models)
