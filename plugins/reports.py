"""Shows the report that a run has made inside Airflow: a tab "Report" on every run and task, for whoever may read the DAG.

Tabs and not links of an operator: a link would be stored by every task of its kind, opens outside of Airflow's page, and is there
on the task alone. A tab is there on runs that make no report, too, where it says so.

Every process of Airflow loads this file, and only the API server answers requests: FastAPI, the login and the store are imported
by the first request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin

if TYPE_CHECKING:
    from fastapi import FastAPI

Message = MutableMapping[str, Any]
PREFIX = "/trading"
# Relative to the page's base, so that an Airflow below a path of its server finds it as well.
HREF = "trading/report/{DAG_ID}/{RUN_ID}"


async def app(scope: Message, receive: Callable[..., Any], send: Callable[[Message], Awaitable[None]]) -> None:
    """The ASGI app that Airflow mounts: `made` by the first request."""
    await made()(scope, receive, send)


@lru_cache(maxsize=1)
def made() -> FastAPI:
    """The app behind Airflow's login: 401 without one, 403 for a user who may not read the runs of the DAG."""
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
    from airflow.api_fastapi.core_api.security import requires_access_dag

    return build(requires_access_dag("GET", DagAccessEntity.RUN))


def build(guard: Callable[..., Any]) -> FastAPI:
    """The app with its one page. guard: a FastAPI dependency that raises unless the user may read the DAG of the path."""
    from fastapi import Depends, FastAPI

    pages = FastAPI(title="Reports of runs", openapi_url=None)
    pages.get("/report/{dag_id}/{run_id}", dependencies=[Depends(guard)], response_model=None)(_report)
    return pages


def _report(dag_id: str, run_id: str, report: str = "") -> Any:
    """Runs in a thread of its own, as what is not async does: it reads files, or S3."""
    from fastapi import Response

    from trading_core.serving import reports

    page = reports.run_page(reports.open_store(), dag_id, run_id, report)
    return Response(page.body, page.status, dict(page.headers))


class ReportsPlugin(AirflowPlugin):
    name = "trading_reports"
    fastapi_apps = [{"app": app, "url_prefix": PREFIX, "name": "Reports of runs"}]  # noqa: RUF012 - Airflow reads it
    external_views = [  # noqa: RUF012
        {"name": "Report", "href": HREF, "destination": place, "url_route": f"report-{place.replace('_', '-')}"}
        for place in ("dag_run", "task_instance")
    ]
