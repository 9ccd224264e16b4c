"""Forecasts + bars -> what each strategy would have earned beside the benchmarks: when forecasts appear, or by hand."""

from __future__ import annotations

from typing import Any

import runtime
from airflow.sdk import Param, dag, task
from assets import EVALUATION, FORECASTS

STRATEGIES = runtime.config.names("strategies", runtime.SETTINGS)


@dag(
    schedule=[FORECASTS],
    catchup=False,
    max_active_runs=2,
    default_args=runtime.LONG_ARGS,
    tags=["trading", "evaluation"],
    doc_md=__doc__,
    params={
        "market": runtime.market_param(),
        "version": runtime.version_param("Whose stored forecasts are evaluated:"),
        "strategies": Param(
            STRATEGIES,
            type="array",
            items={"type": "string", "enum": STRATEGIES},
            examples=STRATEGIES,
            minItems=1,
            title="Strategies",
            description="Files of configs/strategies; each run is counted in the market's trials.",
        ),
        "start": runtime.date_param("First session", "Default: the first session with forecasts of this version."),
        "end": runtime.date_param("Last session", "Default: the last session with bars."),
        "capital": Param(
            1_000_000, type="number", exclusiveMinimum=0, title="Capital", description="In the market's currency."
        ),
    },
)
def evaluate_strategies() -> None:
    @task
    def targets() -> list[dict[str, Any]]:
        """Whose forecasts to evaluate: those of the events that started this run, or the form's."""
        params = runtime.form()
        rest = {key: params[key] for key in ("strategies", "capital")}
        extras = runtime.triggering_extras(FORECASTS.name)
        if extras:
            found = [forecasts for extra in extras for forecasts in extra["forecasts"]]
            return [
                {"market": f["market"], "version": f["model_version"], "start": f["start"], "end": None, **rest}
                for f in found
            ]
        return [{key: params[key] for key in ("market", "version", "start", "end")} | rest]

    @task(outlets=[EVALUATION])
    def evaluate(target: dict[str, Any]) -> dict[str, Any]:
        """Simulates every strategy net of costs, scores the forecasts, writes the report and the trials."""
        from trading_core.pipelines import evaluate as pipeline
        from trading_core.pipelines import refs

        made = pipeline.evaluate(
            runtime.workspace(target["market"]),
            version=target["version"],
            strategies=target["strategies"],
            start=runtime.parse_date(target["start"]),
            end=runtime.parse_date(target["end"]),
            capital=float(target["capital"]),
            run_id=runtime.safe_run_id(),
            now=runtime.now(),
        )
        return refs.dump(made)

    evaluate.expand(target=targets())


evaluate_strategies()
