"""The kill switch, by hand: halt, resume, or flatten (halt, cancel what is pending and sell everything at the next open)."""

from __future__ import annotations

from typing import Any

import runtime
from airflow.sdk import Param, dag, result, task


@dag(
    schedule=None,
    max_active_runs=1,
    default_args={**runtime.DEFAULT_ARGS, "retries": 1},
    tags=["trading", "execution"],
    doc_md=__doc__,
    params={
        "market": runtime.market_param(),
        "action": Param(
            "halt",
            type="string",
            enum=["halt", "resume", "flatten", "settle"],
            title="Action",
            description="halt: no order is sent any more; resume: lift it; flatten: halt, cancel, sell all at the next open; "
            "settle: fill what the market has filled since and write the report.",
        ),
        "account": Param(
            "all",
            type="string",
            title="Account",
            description="An account id (`trading executions list` shows them), or all. flatten and settle need one.",
        ),
        "reason": Param(
            "by hand", type="string", minLength=1, maxLength=200, title="Reason", description="Kept in the ledger."
        ),
    },
)
def controls() -> None:
    @result
    @task
    def act() -> dict[str, Any]:
        from trading_core.pipelines import controls as pipeline

        params = runtime.form()
        return pipeline.act(
            runtime.workspace(),
            params["action"],
            params["account"],
            params["reason"],
            by="controls DAG",
            now=runtime.now(),
        )

    act()


controls()
