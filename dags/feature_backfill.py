"""Market data -> bars and features: after every session's close, as an Airflow backfill, or by hand for a range."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import runtime
from airflow.sdk import Param, dag, task
from assets import FEATURES
from session_timetable import SessionTimetable

CALENDAR = runtime.config.load_market(runtime.SETTINGS.market, runtime.SETTINGS).calendar


@dag(
    schedule=SessionTimetable(CALENDAR, "close", runtime.SETTINGS.close_delay_minutes),
    catchup=False,
    max_active_runs=4,
    default_args=runtime.DEFAULT_ARGS,
    tags=["trading", "data"],
    doc_md=__doc__,
    params={
        "market": runtime.market_param(),
        "start": runtime.date_param("First session", "Start of a range by hand; default: the market's first session."),
        "end": runtime.date_param("Last session", "End of a range by hand; default: the last closed session."),
        "refresh": Param(
            False,
            type="boolean",
            title="Fetch again",
            description="Fetch sessions that are stored already, too. Runs of a single session always do.",
        ),
        "families": Param(
            None,
            type=["null", "array"],
            items={"type": "string"},
            title="Feature families",
            description="Compute these alone, and fetch nothing: for features that were added. Default: all.",
        ),
    },
)
def feature_backfill() -> None:
    @task
    def plan(*, ti: Any) -> list[dict[str, Any]]:
        """What to fetch together; the whole plan goes under key `plan`. Skips when the market has no such bar yet."""
        from airflow.sdk.exceptions import AirflowSkipException

        from trading_core.pipelines import backfill, refs

        params, session = runtime.form(), runtime.partition_session()
        ws = runtime.workspace()
        if session is not None:
            skip = backfill.why_not_yet(ws, session, runtime.now())
            if skip:
                raise AirflowSkipException(skip)
        made = backfill.plan(
            ws,
            start=session or runtime.parse_date(params["start"]),
            end=session or runtime.parse_date(params["end"]),
            refresh=params["refresh"] or session is not None,
            fill_gap=runtime.run_type() == "scheduled",
            run_id=runtime.safe_run_id(),
            now=runtime.now(),
            families=params["families"] or (),
        )
        ti.xcom_push("plan", refs.dump(made))
        return [refs.dump(chunk) for chunk in made.chunks]

    @task(pool="market_data", retries=4, retry_exponential_backoff=True, max_retry_delay=timedelta(minutes=5))
    def fetch(chunk: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
        """Downloads the bars and events of some symbols into the staging area."""
        from trading_core.pipelines import backfill, refs

        made, asked = refs.load(refs.BackfillPlan, plan), refs.load(refs.FetchChunk, chunk)
        return refs.dump(backfill.fetch(runtime.workspace(made.market), made, asked, runtime.now()))

    @task(trigger_rule="none_failed")
    def check(plan: dict[str, Any], staged: list[dict[str, Any]], *, ti: Any) -> list[dict[str, Any]]:
        """Quality gates, then one commit of bars, events and quarantine. Returns the ranges to compute."""
        from trading_core.pipelines import backfill, refs

        made, ws = refs.load(refs.BackfillPlan, plan), runtime.workspace(plan["market"])
        parts = [refs.load(refs.StagedRef, part) for part in staged or []]
        stored = backfill.check_and_store(ws, made, parts, runtime.now())
        ti.xcom_push("bars", refs.dump(stored) if stored else None)
        return [refs.dump(span) for span in backfill.ranges(ws, made)]

    @task(trigger_rule="none_failed")
    def compute(sessions: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
        """Features of a range of sessions, over the whole cross-section, into the staging area."""
        from trading_core.pipelines import backfill, refs

        made = refs.load(refs.BackfillPlan, plan)
        span = refs.load(refs.FeatureRange, sessions)
        return refs.dump(backfill.compute(runtime.workspace(made.market), made, span, runtime.now()))

    @task(trigger_rule="none_failed", outlets=[FEATURES])
    def publish(plan: dict[str, Any], staged: list[dict[str, Any]], *, outlet_events: Any) -> dict[str, Any]:
        """One commit per feature family and range; the features version is the reference that everything after cites."""
        from trading_core.pipelines import backfill, refs

        made = refs.load(refs.BackfillPlan, plan)
        parts = [refs.load(refs.StagedRef, part) for part in staged or []]
        published = refs.dump(backfill.publish(runtime.workspace(made.market), made, parts, runtime.now()))
        outlet_events[FEATURES].extra = published
        return published

    chunks = plan()
    made = chunks["plan"]
    ranges = check(made, fetch.partial(plan=made).expand(chunk=chunks))
    publish(made, compute.partial(plan=made).expand(sessions=ranges))


feature_backfill()
