"""The table of everything that was ever scored on a market. Deflated statistics need all of it, so nothing is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

import numpy as np
import polars as pl

from trading_core.config import config_hash as hash_of
from trading_core.errors import CommitConflictError
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import MONTH, TRIALS, FloatArray, TableSchema, month_of
from trading_core.storage.tables import Predicate

ATTEMPTS = 20  # each is lost only to another writer's commit in between


@dataclass(frozen=True, slots=True)
class Trial:
    """Something that was scored: a model or strategy, which configuration of it, and the figure it is judged by."""

    kind: str  # "model" or "strategy"
    subject: str
    config_hash: str
    metric: str
    value: float


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
    made = Trial(kind, subject, config_hash, metric, value)
    return record_many(ws, [made], start=start, end=end, source=source, now=now)[0]


def record_many(
    ws: Workspace, trials: Sequence[Trial], *, start: date, end: date, source: str, now: datetime
) -> list[str]:
    """Records scorings on the same data in one commit per month and returns their ids; none is kept twice.

    Errors: CommitConflictError when other writers are faster every time.
    """
    if not trials:
        return []
    ids = [
        hash_of([ws.market.id, t.kind, t.subject, t.config_hash, t.metric, str(start), str(end)], 20) for t in trials
    ]
    rows = {
        trial_id: {
            "trial_id": trial_id, "recorded_at": now, "kind": t.kind, "subject": t.subject, "config_hash": t.config_hash,
            "metric": t.metric, "value": t.value, "start": start, "end": end, "source": source,
        }
        for trial_id, t in zip(ids, trials, strict=True)
    }  # fmt: skip
    for attempt in range(ATTEMPTS):
        try:
            _write(ws, rows, now)
            return ids
        except CommitConflictError:
            if attempt == ATTEMPTS - 1:
                raise
    return ids


def _write(ws: Workspace, rows: dict[str, dict[str, object]], now: datetime) -> None:
    """Puts rows into the months in which their ids stand already, new ones into that of `now`."""
    version = ws.tables.version(TRIALS.name)
    if version is None:
        # Two creators add up; what both then replace is guarded by the version they saw.
        trial_id, row = next(iter(rows.items()))
        first = pl.DataFrame([row | {MONTH: month_of(now.date())}], schema=TRIALS.columns)
        where = Predicate(None, None, {MONTH: month_of(now.date()), "trial_id": trial_id})
        version = ws.tables.replace(TRIALS.name, first, where, schema=TRIALS)
    stored = TRIALS.empty() if version is None else ws.tables.read(TRIALS.name, version=version)
    month_of_id = dict(stored.select("trial_id", MONTH).iter_rows())
    new = pl.DataFrame(
        [row | {MONTH: month_of_id.get(trial_id, month_of(now.date()))} for trial_id, row in rows.items()],
        schema=TRIALS.columns,
    )
    for month in new[MONTH].unique().sort().to_list():
        kept = stored.filter((pl.col(MONTH) == month) & ~pl.col("trial_id").is_in(list(rows)))
        frame = pl.concat([kept.select(*TRIALS.columns), new.filter(pl.col(MONTH) == month)])
        where = Predicate(None, None, {MONTH: month})
        version = ws.tables.replace(TRIALS.name, frame, where, schema=TRIALS, expected=version)


def sharpe_ratios(ws: Workspace, start: date, end: date) -> FloatArray:
    """The annual Sharpe ratio of every strategy ever scored on the market, to deflate those of start .. end by.

    NaN for one without a value, and for one over less than half as long: all count as tries, but the ratio of a few sessions
    scatters so much that it says nothing of how far those of a longer time lie apart.
    """
    if not ws.tables.exists(TRIALS.name):
        return np.zeros(0)
    found = ws.tables.read(TRIALS.name, columns=["kind", "metric", "value", "start", "end"])
    found = found.filter((pl.col("kind") == "strategy") & (pl.col("metric") == "sharpe_annual"))
    long_enough = 2 * (pl.col("end") - pl.col("start")).dt.total_days() >= (end - start).days
    kept = pl.when(long_enough).then(pl.col("value").cast(pl.Float64)).fill_null(float("nan"))
    return found.select(kept)["value"].to_numpy()


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
