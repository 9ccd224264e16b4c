"""What Airflow tells the ledger: a run of the daily trade that failed, so that status and report of the account show it."""

from __future__ import annotations

from datetime import datetime

from trading_core.errors import TradingError
from trading_core.execution.ledger import Ledger
from trading_core.execution.records import EventLevel, LedgerEvent
from trading_core.pipelines.refs import SessionRef
from trading_core.pipelines.workspace import Workspace

RUN_FAILED = "run_failed"
PROCESS_ENDED = "its process ended without a word"


def record_failure(
    ws: Workspace, ref: SessionRef, task: str, run: str, error: BaseException | None, now: datetime
) -> bool:
    """An alert in the ledger that `task` of `run` failed on the account of `ref`; False where it is known already.

    Of the errors only the project's own are quoted: what other libraries say may hold an address or a key. Needs no lease: an
    event changes nothing, and it must be told also while another process works on the account.
    Errors: LedgerUnreachableError.
    """
    ledger = Ledger(ws.ledger_store())
    message = f"the task {task} of daily_trade failed: {in_words(error)} (run {run})"
    known = ledger.events(ref.account, ref.session)
    if any((event.kind, event.message) == (RUN_FAILED, message) for event in known):
        return False
    return ledger.record_event(LedgerEvent(ref.account, ref.session, RUN_FAILED, EventLevel.ALERT, message, now))


def in_words(error: BaseException | None) -> str:
    """An error as it may be written down."""
    if error is None:
        return PROCESS_ENDED
    name = type(error).__name__
    return f"{name}: {error}" if isinstance(error, TradingError) else name
