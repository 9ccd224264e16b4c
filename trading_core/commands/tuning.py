"""`trading tune`: which options are worth having."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from trading_core import config
from trading_core.commands.base import Day, Json, Market, opened, parsed_day, show

if TYPE_CHECKING:
    from trading_core.pipelines.refs import TuneRef

Clock = Callable[[], datetime]
Pruner = Literal["median", "halving", "none"]
Model = Annotated[str, typer.Option(help="A file of configs/models.")]


def add_tuning(app: typer.Typer, now: Clock) -> None:
    """Adds the commands to the program; `now` reads the clock."""
    _add_tune(app, now)


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
        test_start: Day = None,
        workers: Annotated[int, typer.Option(min=1, max=16, help="Processes that train side by side.")] = 1,
        timeout: Annotated[
            float | None, typer.Option(min=0.0, help="Seconds after which no trial is begun any more.")
        ] = None,
        save: Annotated[str, typer.Option(help="Write the best config under var/ by this name.")] = "",
        as_json: Json = False,
    ) -> None:
        """Search for a model's options. The same search goes on where it was, also with more trials than before.

        Trials are judged on the validation part; the sessions from --test-start on are not even read.
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
        with redirect_stdout(sys.stderr if as_json else sys.stdout):
            if workers == 1:
                pipeline.run(ref.request_uri, trials, settings, now(), timeout)
            else:
                _in_processes(ref, workers, settings, timeout)
        made = pipeline.result(ws, ref, save or None)
        show(made, as_json, rows=pipeline.table(ws, ref))


def _in_processes(ref: TuneRef, workers: int, settings: config.Settings, timeout: float | None) -> None:
    from trading_core.pipelines import tune as pipeline

    def work(_: int) -> Any:
        pipeline.run_in_process(ref, settings, timeout)

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers)))
