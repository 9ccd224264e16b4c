"""The kill switch and what belongs to it, by hand: halt, resume, flatten, settle, adopt an account, resolve an order."""

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
            enum=["halt", "resume", "flatten", "settle", "adopt", "resolve"],
            title="Action",
            description="halt: no order is sent any more; resume: lift it; flatten: halt, cancel, sell all at the next open; "
            "settle: fill what the market has filled since and write the report; adopt: take the broker's positions and "
            "cash for the truth, after a mismatch that you have looked into; resolve: end an UNKNOWN order that you did "
            "not find at the broker.",
        ),
        "account": Param(
            "all",
            type="string",
            title="Account",
            description="An account id (`trading status` shows them), or all for halt and resume. resolve needs none.",
        ),
        "order": Param(
            None,
            type=["null", "string"],
            maxLength=64,
            title="Order",
            description="With resolve only: the client order id, as `trading status` shows it.",
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
        from airflow.sdk.exceptions import AirflowFailException

        from trading_core.pipelines import controls as pipeline
        from trading_core.pipelines import session_report

        params, ws, now = runtime.form(), runtime.workspace(), runtime.now()
        action, order, by = params["action"], params["order"], f"{runtime.triggered_by()} by the DAG controls"
        if (action == "resolve") != bool(order):
            raise AirflowFailException("The action resolve needs an order id, and no other action takes one.")
        if action == "resolve":
            return pipeline.resolve(ws, order, params["reason"], by=by, now=now)
        done = pipeline.act(ws, action, params["account"], params["reason"], by=by, now=now)
        if action == "settle":
            session_report.write_last(ws, params["account"], now)
        return done

    act()


controls()
