"""What a pass over a market came to: forecasts, strategies, sessions and executions, read back from what was recorded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from trading_core.execution.ledger import Ledger
from trading_core.execution.records import Execution, SessionState
from trading_core.pipelines import refs
from trading_core.pipelines.refs import EvaluationRef
from trading_core.pipelines.trade import choose_account
from trading_core.pipelines.workspace import Workspace
from trading_core.registry.mlflow_registry import CHAMPION, ModelVersion

MAX_CATCH_UP = 20  # more missed sessions than this and only the last ones are replayed, on an account of their own


@dataclass(frozen=True, slots=True)
class SessionLine:
    account: str
    state: SessionState
    orders: int
    fills: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """`sessions` and `executions`: of the sessions given to `collect`, oldest first."""

    market: str
    model: ModelVersion  # the one this pass trained or took again
    champion: ModelVersion  # the one live sessions trade with
    evaluation: EvaluationRef
    report_path: str  # full path or URI of the HTML report
    sessions: tuple[SessionLine, ...]
    executions: tuple[Execution, ...]


@dataclass(frozen=True, slots=True)
class TradePlan:
    """The sessions to trade, ascending; `replay`: the name of a fresh account when the usual one lags too far behind."""

    sessions: tuple[date, ...]
    replay: str | None


def sessions_to_trade(ws: Workspace, strategy: str, count: int, now: datetime) -> TradePlan:
    """The market's last `count` sessions and the one after them, whose orders stay pending.

    An account that has traded before goes on where it stopped; the coming session is always among them.
    """
    last = ws.last_session(now)
    coming = ws.sessions.next(last)
    first = ws.sessions.offset(last, 1 - count)
    ledger = Ledger(ws.ledger_store())
    account = choose_account(ws, strategy, first, is_backfill=False, replay=None, now=now).account
    known = ledger.last_session(account)
    if known is None:
        return TradePlan((*ws.sessions.between(first, last), coming), None)
    if known.session >= last:
        return TradePlan((coming,), None)
    missed = ws.sessions.between(ws.sessions.next(known.session), last)
    if len(missed) <= MAX_CATCH_UP:
        return TradePlan((*missed, coming), None)
    return TradePlan((*missed[-count:], coming), f"from-{missed[-count]}")


def collect(ws: Workspace, version: int, start: date) -> Outcome:
    """A version's newest evaluation, and every session of the market's accounts from `start` on."""
    registry = ws.registry()
    model, champion = registry.version(ws.market.id, version), registry.get(ws.market.id, CHAMPION)
    raw = ws.store.read_json(ws.path("evaluations", f"latest-v{version}.json"))
    evaluation = refs.load(EvaluationRef, raw)
    ledger = Ledger(ws.ledger_store())
    lines = []
    for owner in ledger.accounts(ws.market.id):
        for record in ledger.sessions(owner.account):
            state = ledger.session_state(owner.account, record.session)
            if record.session >= start and state is not None:
                orders, fills = (
                    ledger.orders(owner.account, record.session),
                    ledger.fills(owner.account, record.session),
                )
                lines.append(SessionLine(owner.account, state, len(orders), len(fills)))
    lines.sort(key=lambda line: (line.state.record.session, line.account))
    executions = ledger.executions(market=ws.market.id, start=start)
    report = ws.store.uri(evaluation.report)
    return Outcome(ws.market.id, model, champion, evaluation, report, tuple(lines), tuple(executions))
