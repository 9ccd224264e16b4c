"""Tells people that a trading run failed or is late: to a webhook where one is set, and to the log in any case.

`TRADING_ALERT_URL` gets a POST of {"text": "..."}, which Slack, Mattermost, Teams' workflows and most pagers take.
"""

from __future__ import annotations

import logging
import os
from datetime import datetime
from typing import Any

from airflow.plugins_manager import AirflowPlugin
from airflow.sdk import BaseNotifier
from airflow.sdk.definitions.deadline import BaseDeadlineReference

LOG = logging.getLogger(__name__)
TIMEOUT_S = 10


def _text(context: dict[str, Any], what: str) -> str:
    run = context.get("dag_run")
    name = getattr(run, "dag_id", None) or (run or {}).get("dag_id", "?")
    run_id = getattr(run, "run_id", None) or (run or {}).get("dag_run_id", (run or {}).get("run_id", "?"))
    task = context.get("task_instance") or context.get("ti")
    where = f", task {task.task_id}" if task is not None else ""
    return (
        f"{name} {what} (run {run_id}{where}). `trading status` shows the accounts; docs/operations.md says what to do."
    )


def _payload(text: str) -> dict[str, Any]:
    return {"json": {"text": text}, "timeout": TIMEOUT_S, "follow_redirects": False}


class TradingAlert(BaseNotifier):
    """A failure callback. A webhook that cannot be reached is logged without its address, which may hold a secret."""

    template_fields = ()

    def __init__(self, what: str = "failed") -> None:
        super().__init__()
        self.what = what

    def notify(self, context: Any) -> None:
        import httpx

        text = _text(context, self.what)
        LOG.error(text)
        url = os.environ.get("TRADING_ALERT_URL", "")
        if not url:
            return
        try:
            httpx.post(url, **_payload(text)).raise_for_status()
        except (httpx.HTTPError, ValueError) as error:
            LOG.error("The alert could not be sent to TRADING_ALERT_URL: %s", type(error).__name__)


class RunQueued(BaseDeadlineReference):
    """A deadline's reference: when the run was queued.

    Airflow's own, DAGRUN_QUEUED_AT, is reckoned anew when a task is cleared, and fails there (3.3.2: it takes the interval as
    it lies in the database for seconds): no task of a DAG that uses it can be cleared.
    """

    required_kwargs = frozenset({"dag_id", "run_id"})

    def _evaluate_with(self, *, session: Any, dag_id: str, run_id: str) -> datetime | None:
        from airflow.models import DagRun
        from sqlalchemy import select

        found: datetime | None = session.scalar(
            select(DagRun.queued_at).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)
        )
        return found


async def late(**kwargs: Any) -> None:
    """What the deadline of daily_trade calls, in the triggerer."""
    import httpx

    text = _text(kwargs.get("context") or kwargs, "is late")
    LOG.error(text)
    url = os.environ.get("TRADING_ALERT_URL", "")
    if not url:
        return
    try:
        async with httpx.AsyncClient() as client:
            (await client.post(url, **_payload(text))).raise_for_status()
    except (httpx.HTTPError, ValueError) as error:
        LOG.error("The alert could not be sent to TRADING_ALERT_URL: %s", type(error).__name__)


class AlertsPlugin(AirflowPlugin):
    """Makes the reference known to those who read a stored DAG."""

    name = "alerts"
    deadline_references = [RunQueued]  # noqa: RUF012 - Airflow's way to declare it
