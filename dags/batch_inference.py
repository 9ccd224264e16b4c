"""Model + features -> forecasts of hundreds of symbols over a year: when a model version appears, or by hand for a range."""

from __future__ import annotations

from typing import Any

import runtime
from airflow.sdk import dag, task
from assets import FORECASTS, MODEL


@dag(
    schedule=[MODEL],
    catchup=False,
    max_active_runs=2,
    default_args=runtime.LONG_ARGS,
    tags=["trading", "models"],
    doc_md=__doc__,
    params={
        "market": runtime.market_param(),
        "version": runtime.version_param("A run started by a new model takes that model; by hand:"),
        "start": runtime.date_param("First session", "Default: the first session after the model's cut-off."),
        "end": runtime.date_param("Last session", "Default: the last session with features."),
    },
)
def batch_inference() -> None:
    @task
    def targets() -> list[dict[str, Any]]:
        """Which model versions to run: those of the events that started this run, or the form's."""
        params = runtime.form()
        extras = runtime.triggering_extras(MODEL.name)
        if extras:
            return [{"market": e["market"], "version": e["version"], "start": None, "end": None} for e in extras]
        return [{key: params[key] for key in ("market", "version", "start", "end")}]

    @task
    def infer(target: dict[str, Any]) -> dict[str, Any]:
        """Stores the forecasts that are not there yet; rows that are there are never rewritten."""
        from trading_core.pipelines import infer as pipeline
        from trading_core.pipelines import refs

        made = pipeline.infer(
            runtime.workspace(target["market"]),
            version=target["version"],
            start=runtime.parse_date(target["start"]),
            end=runtime.parse_date(target["end"]),
            run_id=runtime.safe_run_id(),
            now=runtime.now(),
        )
        return refs.dump(made)

    @task(outlets=[FORECASTS])
    def publish(forecasts: list[dict[str, Any]], *, outlet_events: Any) -> list[dict[str, Any]]:
        """Announces the forecasts, which starts evaluate_strategies."""
        outlet_events[FORECASTS].extra = {"forecasts": list(forecasts)}
        return list(forecasts)

    publish(infer.expand(target=targets()))


batch_inference()
