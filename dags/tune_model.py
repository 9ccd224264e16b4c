"""Search for a model's options, by hand from the form: workers take trials from one study until it holds as many as asked for.

Every worker is a process of its own, as in train_model. The same form again goes on where the study is, also after a kill and
with more trials; each trial leaves a row in `trials`. They are judged on validation: nothing from `test_start` on is read.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import runtime
from airflow.sdk import Param, dag, result, task

SEARCH_TIMEOUT = timedelta(hours=24)


@dag(
    schedule=None,
    max_active_runs=4,
    default_args=runtime.DEFAULT_ARGS,
    tags=["trading", "models"],
    doc_md=__doc__,
    params={
        "market": runtime.market_param(),
        "model": runtime.name_param(
            "models", runtime.SETTINGS.model, "Model", "A file of configs/models, or of configs/zoo."
        ),
        "trials": Param(
            20,
            type="integer",
            minimum=1,
            maximum=500,
            title="Trials",
            description="How many the study is to reach; those that it holds already count.",
        ),
        "workers": Param(
            1,
            type="integer",
            minimum=1,
            maximum=16,
            title="Parallel workers",
            description="Tasks that take trials side by side, as far as the pool 'training' has slots.",
        ),
        "seed": Param(
            None,
            type=["null", "integer"],
            minimum=0,
            maximum=2**31 - 1,
            title="Seed",
            description="Of the proposals; trainings have the config's. Default: the config's.",
        ),
        "test_start": runtime.date_param(
            "First session that no trial may know",
            "Every label it uses was known before this session. Default: the market's last `test_sessions` stay unseen.",
        ),
        "save_as": Param(
            None,
            type=["null", "string"],
            pattern=runtime.config.NAME_PATTERN,
            title="Save the best config as",
            description="A new model config under var/ that train_model can take. One that exists is never overwritten.",
        ),
    },
)
def tune_model() -> None:
    @task
    def prepare(*, ti: Any) -> list[int]:
        """Writes the request (config, ranges, data versions, seed) and opens its study; returns the workers' numbers."""
        from trading_core.pipelines import refs, tune

        params = runtime.form()
        request = tune.prepare(
            runtime.workspace(),
            model=params["model"],
            trials=params["trials"],
            test_start=runtime.parse_date(params["test_start"]),
            seed=params["seed"],
            now=runtime.now(),
        )
        ti.xcom_push("request", refs.dump(request))
        return list(range(1, params["workers"] + 1))

    @task(pool="training", execution_timeout=SEARCH_TIMEOUT)
    def search(worker: int, request: dict[str, Any]) -> None:
        """Takes trials until there are enough; what a worker that died has left behind is taken first."""
        from trading_core.pipelines import refs, tune

        print(f"Worker {worker}")
        tune.run_in_process(refs.load(refs.TuneRef, request), runtime.settings())

    @result
    @task
    def best(request: dict[str, Any]) -> dict[str, Any]:
        """The best trial, the table of all, and the config that goes with it."""
        from trading_core.pipelines import refs, tune

        ref = refs.load(refs.TuneRef, request)
        return refs.dump(tune.result(runtime.workspace(ref.market), ref, runtime.form()["save_as"]))

    workers = prepare()
    request = workers["request"]
    search.partial(request=request).expand(worker=workers) >> best(request)


tune_model()
