"""The table of everything that was ever judged on a market: one row per judgement, subject and metric."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

import polars as pl

from trading_core.pipelines.trials import month_of_row
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import EVALUATIONS, MONTH
from trading_core.storage.tables import Predicate


def record(
    ws: Workspace,
    evaluation_id: str,
    lines: Sequence[tuple[str, str, float]],
    *,
    model_version: str,
    start: date,
    end: date,
    now: datetime,
) -> None:
    """Records the figures of one judgement; those of the same id are replaced, whenever they were written.

    lines: (subject, metric, value). start .. end: what was judged.
    """
    month = month_of_row(ws, EVALUATIONS, "evaluation_id", evaluation_id, now)
    shared = {
        "evaluation_id": evaluation_id,
        "recorded_at": now,
        "model_version": model_version,
        "start": start,
        "end": end,
        MONTH: month,
    }
    rows = [{"subject": subject, "metric": metric, "value": value, **shared} for subject, metric, value in lines]
    where = Predicate(None, None, {MONTH: month, "evaluation_id": evaluation_id})
    frame = pl.DataFrame(rows, schema=EVALUATIONS.columns)
    ws.tables.replace(EVALUATIONS.name, frame, where, schema=EVALUATIONS)
