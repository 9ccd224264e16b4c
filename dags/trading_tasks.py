"""What daily_trade has beside its steps: the tasks that wait for a person and for fills, neither of which holds a worker
meanwhile, and the word to the ledger when a task has failed.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import runtime
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.providers.standard.triggers.temporal import DateTimeTrigger
from airflow.sdk import BaseOperator

APPROVE, REJECT = "Approve", "Reject"
POLL = timedelta(seconds=20)
STEP_LIMIT = timedelta(minutes=10)
SPARE = timedelta(minutes=1)  # between the end of the time to answer and the last moment to send
REPLAY_PATIENCE = timedelta(hours=24)  # no window binds a replay: so long a person may think about it


def record_failure(context: Any) -> None:
    """The failure callback of each task: an alert in the ledger. It runs where the task ran; for one whose process was killed,
    in the DAG processor. Before the account is known there is no ledger to tell: then the webhook has to do.
    """
    from trading_core.pipelines import alerting, refs

    task = context["ti"]
    session = task.xcom_pull(task_ids="check")
    if not session:
        return
    opened, error = refs.load(refs.SessionRef, session), context.get("exception")
    error = error if isinstance(error, BaseException) else None
    ws = runtime.workspace(opened.market)
    alerting.record_failure(ws, opened, task.task_id, task.run_id, error, runtime.now())


class Approval(HITLOperator):
    """Asks a person whether the decision may be sent, where the run wants that; no answer in time is a no.

    The answer is kept in the ledger with who gave it: the steps that send read it there, and send nothing without it.
    """

    def __init__(self, *, session: Any, **kwargs: Any) -> None:
        kwargs.setdefault("subject", "Send the orders of this session?")
        super().__init__(options=[APPROVE, REJECT], defaults=REJECT, **kwargs)
        # The operator takes a time-out for the time that a person has. This one is of the steps before and after.
        self.response_timeout, self.execution_timeout = None, STEP_LIMIT
        self.session = session
        self.template_fields = (*self.template_fields, "session")

    def execute(self, context: Any) -> Any:
        from trading_core.pipelines import refs, trade

        opened = refs.load(refs.SessionRef, self.session)
        if not opened.approval:
            self.log.info("This run asks nobody: its form says so.")
            return None
        asked = trade.question(runtime.workspace(opened.market), opened)
        if not asked.orders:
            self.log.info("There is nothing to approve: the decision holds no order.")
            return None
        now = runtime.now()
        left = asked.until - now - SPARE
        patience = REPLAY_PATIENCE if opened.kind == "replay" else max(left, timedelta(seconds=1))
        self.response_timeout, self.subject = patience, asked.subject
        self.body = f"{asked.body}\n\nWithout an answer by {now + patience:%Y-%m-%d %H:%M} UTC nothing is sent."
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        from trading_core.pipelines import refs, trade

        answer = super().execute_complete(context, event)
        opened = refs.load(refs.SessionRef, self.session)
        by = (answer.get("responded_by_user") or {}).get("name") or "nobody in time"
        approved = answer["chosen_options"] == [APPROVE]
        stands = trade.approve(runtime.workspace(opened.market), opened, approved, by, "in Airflow", runtime.now())
        return {"approved": stands, "by": by}


class WaitForFills(BaseOperator):
    """Until no order of a side may fill any more. Asks the broker again and again, deferred in between.

    Nothing fills before the session opens: asked once before, to learn of orders that were refused, it sleeps until then.
    """

    def __init__(self, *, session: Any, side: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.session, self.side = session, side
        self.template_fields = ("session",)

    def execute(self, context: Any, event: Any = None) -> int:
        from trading_core.pipelines import refs, trade

        opened = refs.load(refs.SessionRef, self.session)
        ws, now = runtime.workspace(opened.market), runtime.now()
        left = trade.waiting(ws, opened, self.side, now)
        if left:
            again = max(now + POLL, ws.sessions.open(opened.session))
            self.log.info(
                "%d %s(s) may still fill; asking again at %s.", left, self.side, f"{again:%Y-%m-%d %H:%M:%S} UTC"
            )
            self.defer(trigger=DateTimeTrigger(again), method_name="execute")
        return left
