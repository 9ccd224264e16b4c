"""Forecasts + bars -> what each strategy would have earned beside the benchmarks: when forecasts appear, or by hand.

By hand it may compare several model versions and walk-forwards in one report, at other costs and prices than the market's.
The report opens under the tab "Report" of the run, and lies in MLflow as an artifact of the evaluation's run.
"""

from __future__ import annotations

from typing import Any

import runtime
from airflow.sdk import ExceptionRetryPolicy, Param, RetryAction, RetryRule, dag, get_current_context, result, task
from assets import EVALUATION, FORECASTS

STRATEGIES = runtime.config.names("strategies", runtime.SETTINGS)
# What the form or the data make impossible is so at the next try, too.
NO_RETRY = ("ConfigError", "DataError", "ModelError", "StrategyOutputError")
RETRY_POLICY = ExceptionRetryPolicy(
    rules=[RetryRule([f"trading_core.errors.{name}" for name in NO_RETRY], RetryAction.FAIL, reason="would fail again")]
)
COSTS = {
    "commission_bps": ("Commission", "Basis points of a side's notional."),
    "half_spread_bps": ("Half spread", "Basis points of a side's notional."),
    "slippage_bps": ("Slippage", "Basis points of a side's notional."),
    "impact_coefficient": ("Market impact", "Coefficient of the square-root law; 0 for no impact."),
    "max_participation": (
        "Largest share of the volume",
        "Of a session's volume that an order may fill; 1 for all of it.",
    ),
    "borrow_bps_annual": ("Borrowing fee", "Basis points a year of the value of shares sold short."),
    "interest_bps_annual": ("Interest on cash", "Basis points a year."),
}
SCOPE = ("market", "start", "end")
PRICES = {"open": "official open", "close": "close", "vwap": "VWAP, (open + high + low + close) / 4"}


def names_param(pattern: str, default: list[str] | None, title: str, description: str) -> Param:
    """A list of names, written one a line; empty lines count for nothing."""
    items = {"type": "string", "pattern": f"^({pattern})?$"}
    return Param(default, type=["null", "array"], items=items, title=title, description=f"{description} One a line.")


def cost_params() -> dict[str, Param]:
    """A field for each of a market's costs, with the bounds of the market's file; empty for what the market has."""
    schema = runtime.config.CostConfig.model_json_schema()["properties"]
    found = {}
    for name, (title, description) in COSTS.items():
        number = next((part for part in schema[name].get("anyOf", ()) if part["type"] == "number"), schema[name])
        bounds = {key: number[key] for key in ("minimum", "maximum", "exclusiveMinimum") if key in number}
        found[name] = Param(
            None,
            type=["null", "number"],
            title=title,
            description=f"{description} Empty: as the market has it.",
            section="Other costs than the market's",
            **bounds,
        )
    return found


@dag(
    schedule=[FORECASTS],
    catchup=False,
    max_active_runs=2,
    default_args={**runtime.LONG_ARGS, "retry_policy": RETRY_POLICY},
    tags=["trading", "evaluation"],
    doc_md=__doc__,
    params={
        "market": runtime.market_param(),
        "versions": names_param(
            "champion|challenger|[1-9][0-9]*",
            ["champion"],
            "Model versions",
            "Whose stored forecasts are traded: champion, challenger or a version number; several share one report.",
        ),
        "walk_forwards": names_param(
            "[A-Za-z0-9][A-Za-z0-9._-]{0,80}",
            None,
            "Walk-forwards",
            "Ids of walk-forwards (`trading walk-forward` prints them) that are traded as well, or alone.",
        ),
        "strategies": Param(
            STRATEGIES,
            type="array",
            items={"type": "string", "enum": STRATEGIES},
            examples=STRATEGIES,
            minItems=1,
            title="Strategies",
            description="Files of configs/strategies; each counts as a trial of the market for every model it trades.",
        ),
        "start": runtime.date_param("First session", "Default: the first session that all these forecasts have."),
        "end": runtime.date_param("Last session", "Default: the last session with bars."),
        "capital": Param(
            1_000_000, type="number", exclusiveMinimum=0, title="Capital", description="In the market's currency."
        ),
        "fill_at": Param(
            "open",
            type="string",
            enum=list(PRICES),
            values_display=PRICES,
            title="Orders fill at",
            description="This price of the next session. The daily trade fills at the open.",
        ),
        "random_portfolios": Param(
            49,
            type="integer",
            minimum=0,
            maximum=10_000,
            title="Random portfolios",
            description="Drawn per strategy with its turnover and number of names, to compare it with; 0 for none.",
        ),
        "seed": Param(
            7,
            type="integer",
            minimum=0,
            maximum=2**31 - 1,
            title="Seed",
            description="Of the bootstrap and of the portfolios drawn at random.",
        ),
        "strategies_per_task": Param(
            10,
            type="integer",
            minimum=1,
            maximum=100,
            title="Strategies per task",
            description="How many one task simulates: 1 spreads them over all workers, more save the start of a task.",
        ),
        **cost_params(),
    },
)
def evaluate_strategies() -> None:
    @task
    def targets() -> list[dict[str, Any]]:
        """What to evaluate: the forecasts of the events that started this run, each version by itself, or the form's."""
        from trading_core.pipelines import refs
        from trading_core.pipelines.evaluation_targets import EvaluationTarget, announced

        params = runtime.form()
        events = [item for extra in runtime.triggering_extras(FORECASTS.name) for item in extra["forecasts"]]
        if events:
            return [refs.dump(target) for target in announced([refs.load(refs.ForecastsRef, item) for item in events])]
        names = {key: [name for name in params[key] or () if name] for key in ("versions", "walk_forwards")}
        return [refs.dump(refs.load(EvaluationTarget, {**names, **{key: params[key] for key in SCOPE}}))]

    @task
    def plan(wanted: list[dict[str, Any]], *, ti: Any) -> list[dict[str, Any]]:
        """Fixes what each evaluation reads; the plans go under key `plans`. Returns the batches of simulations."""
        from trading_core.pipelines import evaluate as pipeline
        from trading_core.pipelines import refs
        from trading_core.pipelines.evaluation_inputs import Wanted
        from trading_core.pipelines.evaluation_targets import EvaluationTarget, batches

        params, asked_for = runtime.form(), []
        for target in (refs.load(EvaluationTarget, each) for each in wanted):
            asked = Wanted(
                versions=target.versions,
                walk_forwards=target.walk_forwards,
                strategies=tuple(params["strategies"]),
                start=target.start,
                end=target.end,
                capital=float(params["capital"]),
                costs={name: params[name] for name in COSTS if params[name] is not None},
                fill_at=params["fill_at"],
                seed=params["seed"],
                random_portfolios=params["random_portfolios"],
            )
            asked_for.append((runtime.workspace(target.market), asked))
        plans = pipeline.plan_each(asked_for, runtime.safe_run_id(), progress=print)
        ti.xcom_push("plans", [refs.dump(made) for made in plans])
        return [refs.dump(batch) for batch in batches(plans, params["strategies_per_task"])]

    @task(map_index_template="{{ label }}")
    def simulate(batch: dict[str, Any], plans: list[dict[str, Any]]) -> dict[str, Any]:
        """Simulates some strategies on all forecasts of a plan, net of costs, at several costs and sizes."""
        get_current_context()["label"] = ", ".join(batch["strategies"])
        from trading_core.pipelines import evaluate as pipeline
        from trading_core.pipelines import refs

        made = refs.load(refs.EvaluationPlan, plans[batch["evaluation"]])
        ws = runtime.workspace(made.market)
        found = pipeline.simulate_some(ws, made, batch["strategies"], runtime.now(), progress=print)
        return {"evaluation": batch["evaluation"], "simulated": [refs.dump(ref) for ref in found]}

    @result
    @task(outlets=[EVALUATION])
    def compare(
        plans: list[dict[str, Any]], simulated: list[dict[str, Any]], *, outlet_events: Any
    ) -> list[dict[str, Any]]:
        """Judges the strategies of each plan together; writes the report, its tables, the trials and the run in MLflow."""
        from trading_core.pipelines import evaluate as pipeline
        from trading_core.pipelines import refs, run_reports

        done, found = list(simulated), []
        for number, each in enumerate(plans):
            made = refs.load(refs.EvaluationPlan, each)
            ws = runtime.workspace(made.market)
            parts = [part for batch in done if batch["evaluation"] == number for part in batch["simulated"]]
            judged = pipeline.compare(ws, made, [refs.load(refs.SimulatedRef, part) for part in parts], runtime.now())
            run_reports.note_evaluation(ws, made, judged)
            print(f"Report: {ws.store.uri(judged.report)}")
            found.append(refs.dump(judged))
        told = ("market", "evaluation_id", "report")
        outlet_events[EVALUATION].extra = {"evaluations": [{key: each[key] for key in told} for each in found]}
        return found

    planned = plan(targets())
    compare(planned["plans"], simulate.partial(plans=planned["plans"]).expand(batch=planned))


evaluate_strategies()
