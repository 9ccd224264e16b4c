"""The report of a trading session: the page that a person reads in the evening, and the same as JSON beside it.

`write` may be called as often as one likes: it reads ledger and tables and replaces both files. The page of the account's
session before is brought up to date with it where that was not final yet: a session is settled by the run of the next one.
"""

from __future__ import annotations

import dataclasses
import math
from datetime import date, datetime
from typing import Any

from trading_core.config import canonical_json
from trading_core.execution.accounts import kind_of
from trading_core.execution.ledger import Ledger
from trading_core.execution.records import SessionRecord
from trading_core.pipelines import run_reports
from trading_core.pipelines.refs import SessionResult, dump
from trading_core.pipelines.session_outcome import outcome_facts
from trading_core.pipelines.session_rows import account_facts, decision_facts, fill_rows, order_rows, totals
from trading_core.pipelines.session_sources import Sources, read_sources
from trading_core.pipelines.session_standing import event_rows, standing_facts
from trading_core.pipelines.workspace import Workspace
from trading_core.plots.session_data import OrderRow, SessionHead, SessionPage, Standing
from trading_core.plots.session_page import session_page

PAGE = "page"  # the key of the JSON under which all that the page shows is kept


def write(ws: Workspace, account_name: str, session: date, now: datetime, run_id: str = "") -> str:
    """Writes a session's page and JSON; returns the path of the page in the artifact store.

    The page is noted under the run that opened the session and all others that have written it (`run_id`: the one that
    does now), so that the tabs of those runs show the newest one.
    Errors: UnknownNameError (account, session), LedgerUnreachableError, StoreUnreachableError, those of reading tables.
    """
    before = _unfinished_before(ws, account_name, session)
    if before is not None:
        _write(ws, account_name, before, now)
    return _write(ws, account_name, session, now, run_id)


def write_last(ws: Workspace, account: str, now: datetime) -> str:
    """`write` for the account's last session; "" where none was opened on it yet."""
    last = Ledger(ws.ledger_store()).last_session(account)
    return "" if last is None else write(ws, account, last.session, now)


def page_path(ws: Workspace, account: str, session: date) -> str:
    """Where the page of a session lies in the artifact store."""
    return ws.path("sessions", account, f"{session}.html")


def json_path(ws: Workspace, account: str, session: date) -> str:
    return ws.path("sessions", account, f"{session}.json")


def gather(ws: Workspace, account: str, session: date, now: datetime) -> SessionPage:
    """What the page of a session shows. Errors: those of `write`."""
    return _page(read_sources(ws, account, session, now))


def _write(ws: Workspace, account: str, session: date, now: datetime, run_id: str = "") -> str:
    found = read_sources(ws, account, session, now)
    shown, path = _page(found), page_path(ws, account, session)
    report = {
        "result": dump(_result(found, shown)),
        "decision": found.decision,
        "orders": found.orders.records,
        "fills": found.orders.fills,
        "written_at": str(now),
        PAGE: _plain(shown),
    }
    ws.store.write_bytes(json_path(ws, account, session), canonical_json(report).encode())
    ws.store.write_bytes(path, session_page(shown))
    for run in _runs(ws, found.record, run_id):
        run_reports.note_session(ws, run, account, session, path)
    return path


def _runs(ws: Workspace, record: SessionRecord, run_id: str) -> list[str]:
    """The runs that show the page: the one that opened the session, those that wrote the page since, and `run_id`.

    The ledger knows only the first of them; the others are kept beside the page.
    """
    path = ws.path("sessions", record.account, f"{record.session}.runs.json")
    known = ws.store.read_json(path) if ws.store.exists(path) else []
    if run_id in ("", record.run_id, *known):
        return [record.run_id, *known]
    ws.store.write_json(path, [*known, run_id])
    return [record.run_id, *known, run_id]


def _unfinished_before(ws: Workspace, account: str, session: date) -> date | None:
    """The account's session before, where it has a report that shows it as it was before it was settled."""
    earlier = [found.session for found in Ledger(ws.ledger_store()).sessions(account) if found.session < session]
    if not earlier or not ws.store.exists(json_path(ws, account, earlier[-1])):
        return None
    shown = ws.store.read_json(json_path(ws, account, earlier[-1])).get(PAGE)
    final = shown is not None and shown["head"]["settled_at"] is not None
    return None if final else earlier[-1]


def _page(found: Sources) -> SessionPage:
    orders = order_rows(found)
    outcome, missing = outcome_facts(found)
    account = account_facts(found, orders)
    return SessionPage(
        head=_head(found),
        standing=standing_facts(found, orders, account),
        decision=decision_facts(found),
        orders=orders,
        fills=fill_rows(found),
        totals=totals(orders),
        account=account,
        outcome=outcome,
        outcome_missing=missing,
        events=event_rows(found),
        lineage=_lineage(found),
        explain=_explain(found, orders),
    )


def _head(found: Sources) -> SessionHead:
    record, decision, summary = found.record, found.decision, found.state.summary
    return SessionHead(
        market=found.ws.market.id,
        account=record.account,
        kind=kind_of(record.account).value,
        strategy=found.strategy,
        session=record.session,
        decision_session=record.decision_session,
        number=record.number,
        opens_at=found.ws.sessions.open(record.session),
        decided_at=decision.decided_at if decision else None,
        settled_at=summary.settled_at if summary else None,
        written_at=found.now,
    )


def _lineage(found: Sources) -> tuple[tuple[str, str], ...]:
    decision = found.decision
    if decision is None:
        return ()
    forecasts = f"version {decision.forecasts_version}" if decision.forecasts_version >= 0 else ""
    bars = f"version {decision.bars_version}" if decision.bars_version >= 0 else ""
    return (
        ("Model", f"{decision.model}, version {decision.model_version}" if decision.model_version else decision.model),
        ("Bundle digest", decision.model_digest),
        ("Features", decision.features_version),
        ("Forecasts table", forecasts),
        ("Bars table", bars),
        ("Forecast rows", decision.forecasts_digest),
        ("Config hash", decision.config_hash),
        ("Strategy and costs", decision.strategy_hash),
        ("Code", decision.code_version),
        ("Decision", decision.decision_id),
        ("Forecasts made by run", decision.run_id),
        ("Session opened by run", found.record.run_id),
    )


def _explain(found: Sources, orders: tuple[OrderRow, ...]) -> str:
    """The command that walks the first order back."""
    sent = next((row.client_order_id for row in orders if row.client_order_id), "")
    return f"trading explain {sent[:12]} --market {found.ws.market.id} --replay" if sent else ""


def _result(found: Sources, shown: SessionPage) -> SessionResult:
    """What the session came to, as the step `settle` hands it on."""
    record, decision, opens = found.record, found.decision, found.opens()
    costs = [f.commission + f.quantity * abs(f.price - opens.get(f.symbol, f.price)) for f in found.orders.fills]
    return SessionResult(
        account=record.account,
        kind=kind_of(record.account).value,
        session=record.session,
        decision_session=record.decision_session,
        status=Standing.SETTLED.value if found.settled else Standing.PENDING.value,
        orders=len(found.orders.records),
        fills=len(found.orders.fills),
        rejected=len(decision.rejected) if decision else 0,
        held_without_forecast=len(decision.held_without_forecast) if decision else 0,
        equity=shown.account.equity,
        cash=shown.account.cash,
        costs=math.fsum(costs),
        report=json_path(found.ws, record.account, record.session),
    )


def _plain(value: Any) -> Any:
    """Dataclasses as objects; JSON has no NaN: what is not known is null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
