"""The table of everything that was ever scored on a market. Deflated statistics need all of it, so nothing is left out."""

from __future__ import annotations

from datetime import date, datetime

import polars as pl

from trading_core.config import config_hash as hash_of
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import MONTH, TRIALS, TableSchema, month_of
from trading_core.storage.tables import Predicate


def record(
    ws: Workspace,
    *,
    kind: str,
    subject: str,
    config_hash: str,
    metric: str,
    value: float,
    start: date,
    end: date,
    source: str,
    now: datetime,
) -> str:
    """Records one scoring and returns its id. The same subject scored again on the same data keeps one row."""
    trial_id = hash_of([ws.market.id, kind, subject, config_hash, metric, str(start), str(end)], 20)
    month = month_of_row(ws, TRIALS, "trial_id", trial_id, now)
    row = {
        "trial_id": trial_id,
        "recorded_at": now,
        "kind": kind,
        "subject": subject,
        "config_hash": config_hash,
        "metric": metric,
        "value": value,
        "start": start,
        "end": end,
        "source": source,
        MONTH: month,
    }
    frame = pl.DataFrame([row], schema=TRIALS.columns)
    ws.tables.replace(TRIALS.name, frame, Predicate(None, None, {MONTH: month, "trial_id": trial_id}), schema=TRIALS)
    return trial_id


def count(ws: Workspace, kind: str | None = None) -> int:
    """How many trials the market has seen."""
    if not ws.tables.exists(TRIALS.name):
        return 0
    found = ws.tables.read(TRIALS.name, columns=["kind"])
    return len(found if kind is None else found.filter(pl.col("kind") == kind))


def month_of_row(ws: Workspace, schema: TableSchema, column: str, value: str, now: datetime) -> str:
    """The month partition of the rows whose `column` is `value`, and that of `now` where there are none: tables are
    replaced within a month, and what is scored again in the next one must not stand there twice."""
    if ws.tables.exists(schema.name):
        known = ws.tables.read(schema.name, columns=[MONTH], where=Predicate(None, None, {column: value}))
        if len(known):
            return str(known[MONTH][0])
    return month_of(now.date())
