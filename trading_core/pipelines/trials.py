"""The table of everything that was ever scored on a market. Deflated statistics need all of it, so nothing is left out."""

from __future__ import annotations

from datetime import date, datetime

import polars as pl

from trading_core.config import config_hash as hash_of
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import MONTH, TRIALS, month_of
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
    month = month_of(now.date())
    if ws.tables.exists(TRIALS.name):
        known = ws.tables.read(TRIALS.name, columns=["trial_id", MONTH]).filter(pl.col("trial_id") == trial_id)
        month = known[MONTH][0] if len(known) else month
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
