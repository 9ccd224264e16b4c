"""The main job of `make run`: backfill -> training -> inference -> evaluation -> daily trades, each as its own DAG run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from launcher.airflow_api import AirflowApi, AirflowApiError
from launcher.progress import Progress, Step
from trading_core.config import MarketConfig, Settings
from trading_core.pipelines import models, summary
from trading_core.pipelines.workspace import Workspace, open_workspace

DAGS = ["feature_backfill", "train_model", "tune_model", "batch_inference", "evaluate_strategies", "daily_trade"]
DAGS += ["controls"]
# Consumers before producers: a paused consumer loses the events that should have started it.
UNPAUSE = ["evaluate_strategies", "batch_inference", "train_model", "tune_model", "controls", "daily_trade"]
UNPAUSE += ["feature_backfill"]
NOTE = "make run"  # marks the runs a pass has started itself
POOLS = {
    "market_data": (2, "downloads from a market data source"),
    "training": (1, "trainings and searches on this machine, one at a time"),
    "trading": (1, "steps of trading sessions: one at a time"),
}


class JobFailed(RuntimeError):
    """A DAG run that did not succeed; the message holds the end of the log of the task that failed."""


@dataclass
class Job:
    """One pass over one market through a running Airflow."""

    api: AirflowApi
    progress: Progress
    settings: Settings
    market: MarketConfig
    model: str
    strategy: str
    sessions: int

    def prepare_airflow(self, fresh: bool = True) -> None:
        """Pools, parsed DAGs, all DAGs on.

        `fresh`: the services were started just now for this pass, so a run of `make run` that counts as running is left
        over from a pass that was interrupted, and is failed. Runs of others (a backfill, a training) go on.
        """
        self.api.wait_for_dags(DAGS)
        for name, (slots, description) in POOLS.items():
            self.api.ensure_pool(name, slots, description)
        for dag_id in DAGS if fresh else ():
            for run in self.api.runs(dag_id, state=["running", "queued"]):
                if run["note"] == NOTE:
                    self.api.fail_run(dag_id, run["dag_run_id"])
        for dag_id in DAGS:
            self.api.wait_for_choice(dag_id, "market", self.market.id)
        for dag_id in UNPAUSE:
            self.api.pause(dag_id, False)

    def run(self) -> summary.Outcome:
        now = datetime.now(UTC)
        ws = open_workspace(self.market, self.settings)
        self.api.wait_for_choice("train_model", "model", self.model)
        self.api.wait_for_choice("daily_trade", "strategy", self.strategy)
        with self.progress.step("feature backfill") as step:
            self._report_data(self._dag("feature_backfill", {"market": self.market.id}, step))
        version, inferring = self._train(ws, now)
        with self.progress.step("batch inference") as step:
            conf = {"market": self.market.id, "version": str(version)}
            run_id = inferring or self.api.trigger("batch_inference", conf, note=NOTE)
            self._follow("batch_inference", run_id, step)
        with self.progress.step("strategy evaluation") as step:
            evaluating = self.api.run_started_by("evaluate_strategies", run_id)
            self._follow("evaluate_strategies", evaluating, step)
        plan = summary.sessions_to_trade(ws, self.strategy, self.sessions, now)
        with self.progress.step(f"daily trades ({len(plan.sessions)})") as step:
            for session in plan.sessions:
                self._trade(session, None if ws.sessions.tradable(session, now) else plan.replay, step)
        return summary.collect(ws, version, ws.sessions.offset(ws.last_session(now), 1 - self.sessions))

    def _train(self, ws: Workspace, now: datetime) -> tuple[int, str | None]:
        """Trains unless a fit version is there; returns its number and the inference run that a new model started."""
        known = models.reusable_version(ws, self.model, now)
        if known:
            self.progress.note(f"training skipped: {known.model} v{known.version} is fit ({known.reason})")
            return known.version, None
        with self.progress.step("training") as step:
            run_id = self._dag("train_model", {"market": self.market.id, "model": self.model}, step)
            version = int(self.api.xcom("train_model", run_id, "register")["version"])
            return version, self.api.run_started_by("batch_inference", run_id)

    def _report_data(self, run_id: str) -> None:
        """Says what the backfill could not fetch or set aside; silence would look like complete data."""
        bars = self.api.xcom("feature_backfill", run_id, "check", "bars")
        if not bars:
            return
        self.progress.note(
            f"{bars['rows']} bars of {bars['symbols']} symbols, {bars['quarantined']} quarantined ({bars['report']})"
        )
        for symbol, reason in bars["failures"].items():
            self.progress.note(f"NOT FETCHED: {symbol}: {reason}")

    def _trade(self, session: date, replay: str | None, step: Step) -> None:
        self.progress.note(f"session {session}")
        conf = {"market": self.market.id, "strategy": self.strategy, **({"replay": replay} if replay else {})}
        run_id = self.api.trigger("daily_trade", conf, partition_key=session.isoformat(), note=NOTE)
        self._follow("daily_trade", run_id, step.again())

    def _dag(self, dag_id: str, conf: dict[str, Any], step: Step) -> str:
        run_id = self.api.trigger(dag_id, conf, note=NOTE)
        self._follow(dag_id, run_id, step)
        return run_id

    def _follow(self, dag_id: str, run_id: str, step: Step) -> None:
        def show(tasks: list[dict[str, Any]]) -> None:
            step.tasks(tasks)
            for task in tasks:
                if task["task_id"] == "train_locally" and task["state"] == "running":
                    self._epochs(dag_id, run_id, task, step)

        if self.api.follow(dag_id, run_id, show) != "success":
            raise JobFailed(self._why(dag_id, run_id))

    def _epochs(self, dag_id: str, run_id: str, task: dict[str, Any], step: Step) -> None:
        """The training's own progress: its lines about epochs, as its log has them."""
        try:
            log = self.api.log(dag_id, run_id, task["task_id"], task["try_number"], task["map_index"])
        except (AirflowApiError, KeyError):
            return  # the log of a task that has just begun may not be there yet
        step.lines([line for line in log.splitlines() if line.startswith("epoch ")])

    def _why(self, dag_id: str, run_id: str) -> str:
        """Which task failed, and the end of its log."""
        for task in self.api.tasks(dag_id, run_id):
            if task["state"] == "failed":
                try:
                    log = self.api.log(dag_id, run_id, task["task_id"], task["try_number"], task["map_index"])
                except AirflowApiError as error:
                    log = f"(its log cannot be read: {error})"
                return f"{dag_id}: task {task['task_id']} failed.\n" + "\n".join(log.splitlines()[-25:])
        return f"{dag_id}: run {run_id} failed."
