"""The trade of one session: check, infer, decide (frozen), approve, sell, buy, settle. Due before each open.

The partition key is the session to trade. Runs of a backfill, and runs whose session is not the one tradable now, are replays
on a paper account of their own. That no session trades twice is the ledger's promise: every task may be run again.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import runtime
from airflow.sdk import (
    AsyncCallback,
    DeadlineAlert,
    ExceptionRetryPolicy,
    Param,
    RetryAction,
    RetryRule,
    dag,
    result,
    task,
)
from alerts import RunQueued, TradingAlert
from session_timetable import SessionTimetable
from trading_tasks import Approval, WaitForFills, record_failure

CALENDAR = runtime.config.load_market(runtime.SETTINGS.market, runtime.SETTINGS).calendar
# In a market that never closes T opens when D closes: there the trade follows D's backfill (see Sessions.deadline).
AFTER_BACKFILL_MINUTES = 15
DUE_MINUTES = (
    runtime.SETTINGS.close_delay_minutes + AFTER_BACKFILL_MINUTES
    if CALENDAR == "24/7"
    else -runtime.SETTINGS.open_lead_minutes
)
# An order that the risk rules, the ledger's order of sessions or a halt refuse is refused for good: retrying cannot help.
NO_RETRY = (
    "OrderWindowClosedError",
    "AccountMismatchError",
    "BrokerAccessError",
    "MarketClosedError",
    "RiskRejectionError",
    "TradingHaltedError",
    "StrategyConflictError",
    "SessionOrderError",
    "NotASessionError",
    "UnknownNameError",
)
RETRY_POLICY = ExceptionRetryPolicy(
    rules=[
        RetryRule(exception=f"trading_core.errors.{name}", action=RetryAction.FAIL, reason="refused for good")
        for name in NO_RETRY
    ]
)


@dag(
    schedule=SessionTimetable(CALENDAR, "open", DUE_MINUTES),
    catchup=False,
    max_active_runs=1,
    default_args={
        **runtime.DEFAULT_ARGS,
        "retry_policy": RETRY_POLICY,
        "execution_timeout": timedelta(minutes=20),
        "pool": "trading",
        "on_failure_callback": record_failure,
    },
    on_failure_callback=TradingAlert(),
    deadline=DeadlineAlert(
        reference=RunQueued(),
        interval=timedelta(minutes=runtime.SETTINGS.trade_deadline_minutes),
        callback=AsyncCallback("alerts.late"),
        name="daily_trade is late",
    ),
    tags=["trading", "execution"],
    doc_md=__doc__,
    params={
        "market": runtime.market_param(),
        "strategy": runtime.name_param(
            "strategies", runtime.SETTINGS.strategy, "Strategy", "A file of configs/strategies."
        ),
        "session": runtime.date_param(
            "Session to trade", "Only for a run without a partition key. Default: the next one."
        ),
        "replay": Param(
            None,
            type=["null", "string"],
            pattern=r"^[a-z0-9][a-z0-9-]{0,30}$",
            title="Replay name",
            description="Trades on the paper account `replay-<market>-<name>`, whatever broker is configured.",
        ),
        "approval": Param(
            runtime.SETTINGS.approval,
            type="boolean",
            title="Ask a person",
            description="Nothing is sent before somebody approves the decision under Required Actions; no answer is a no.",
        ),
    },
)
def daily_trade() -> None:
    @task
    def check() -> dict[str, Any]:
        """Opens the session in the ledger: right account, right order of sessions, fresh features, nothing halted."""
        from airflow.sdk.exceptions import AirflowSkipException

        from trading_core.pipelines import refs, trade

        params, kind = runtime.form(), runtime.run_type()
        ws = runtime.workspace()
        session = runtime.partition_session() or runtime.parse_date(params["session"])
        if kind == "scheduled":
            skip = trade.why_not_now(ws, session, runtime.now())
            if skip:
                raise AirflowSkipException(skip)
        opened = trade.open_session(
            ws,
            strategy=params["strategy"],
            session=session,
            is_backfill=kind == "backfill",
            replay=params["replay"],
            approval=params["approval"] and kind != "backfill",
            run_id=runtime.safe_run_id(),
            now=runtime.now(),
        )
        return refs.dump(opened)

    @task
    def infer(session: dict[str, Any]) -> dict[str, Any]:
        """Forecasts of the decision session by the model of that day."""
        return _step("infer", session)

    @task
    def decide(session: dict[str, Any]) -> dict[str, Any]:
        """Targets and orders, checked by the risk rules and frozen in the ledger: later steps only read them."""
        return _step("decide", session)

    @task
    def sell(session: dict[str, Any]) -> dict[str, Any]:
        """Sends the sells; an order that was sent before is not sent again."""
        return _step("sell", session)

    @task
    def buy(session: dict[str, Any]) -> dict[str, Any]:
        """Sends the buys; they fill with the cash that is really there after the sells."""
        return _step("buy", session)

    @result
    @task
    def settle(session: dict[str, Any]) -> dict[str, Any]:
        """Reconciles with the broker, records fills, writes the session's report. Without a bar the orders stay pending."""
        from trading_core.pipelines import refs, session_report

        opened, settled = refs.load(refs.SessionRef, session), _step("settle", session)
        ws = runtime.workspace(opened.market)
        session_report.write(ws, opened.account, opened.session, runtime.now(), opened.run_id)
        return settled

    opened = check()
    inferred = infer(opened)
    decided = decide(inferred)
    approved = Approval(task_id="approve", session=inferred)
    wait_sold = WaitForFills(task_id="wait_sold", session=inferred, side="sell")
    wait_bought = WaitForFills(task_id="wait_bought", session=inferred, side="buy")
    decided >> approved >> sell(inferred) >> wait_sold >> buy(inferred) >> wait_bought >> settle(inferred)


def _step(name: str, session: dict[str, Any]) -> dict[str, Any]:
    """One step of the session, by reference."""
    from trading_core.pipelines import refs, trade

    opened = refs.load(refs.SessionRef, session)
    ws = runtime.workspace(opened.market)
    return refs.dump(getattr(trade, name)(ws, opened, runtime.now()))


daily_trade()
