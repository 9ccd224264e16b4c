"""What the runs of Airflow have made to look at: each notes its HTML report, which the page of the run then shows."""

from __future__ import annotations

from datetime import date

from trading_core.pipelines.refs import EvaluationPlan, EvaluationRef, ForecastsUsed, ModelRef
from trading_core.pipelines.workspace import Workspace
from trading_core.storage.run_reports import RunReport, is_run_key, note_report


def note_evaluation(ws: Workspace, plan: EvaluationPlan, made: EvaluationRef) -> RunReport:
    """Notes the report of an evaluation under the run that planned it. Errors: those of `note_report`."""
    models = " and ".join(_named(used) for used in plan.forecasts)
    title = f"Strategies on {ws.market.id}, forecasts of {models}, {made.start} to {made.end}"
    return note_report(ws.store, plan.run_id, ws.market.id, title, made.report)


def _named(used: ForecastsUsed) -> str:
    """A label has the version in it only where one model comes with several; two runs of one model are told apart here."""
    version = f"v{used.segments[-1][0]}"
    return used.label if used.walk_forward or used.label.endswith(version) else f"{used.label} {version}"


def note_training(ws: Workspace, run_id: str, made: ModelRef) -> RunReport | None:
    """Notes the page of a training under its run; None for a version that has none. Errors: those of `note_report`."""
    if not made.report:
        return None
    title = f"Training of {made.model}, version {made.version} on {ws.market.id}"
    return note_report(ws.store, run_id, ws.market.id, title, made.report)


def note_session(ws: Workspace, run_id: str, account: str, session: date, path: str) -> RunReport | None:
    """Notes the page of a trading session under a run; None for one that is no run of Airflow. Errors: those of `note_report`.

    Written again the page is another one, and a run that has noted the old one shows that it was replaced: note it again.
    """
    if not is_run_key(run_id):
        return None
    return note_report(ws.store, run_id, ws.market.id, f"Session {session} of {account}", path)
