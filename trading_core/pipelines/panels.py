"""Tables -> the panel that training and inference read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl

from trading_core.dataset.panel import Panel
from trading_core.errors import NoDataError, StaleFormulasError
from trading_core.features import build as features
from trading_core.features.registry import FEATURES
from trading_core.market import adjust
from trading_core.market.source import ACTION_SCHEMA, BAR_SCHEMA
from trading_core.pipelines import backfill_notes as notes
from trading_core.pipelines import quality
from trading_core.pipelines.instruments import FACTS, instruments_as_of, with_facts
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import BARS, CORPORATE_ACTIONS, INSTRUMENTS, QUARANTINE, SESSION, SYMBOL, TS
from trading_core.storage.tables import Predicate

Versions = Mapping[str, int]
MARKER_FAMILY = "returns"  # published last: a session that it holds has the features of all families
VISIBLE_ATTEMPTS = 20  # each is lost only to a run that began and ended writing meanwhile


def feature_tables() -> tuple[str, ...]:
    """Every table that a model reads, directly or through its features."""
    names = [features.table_name(family) for family in features.families(sorted(FEATURES))]
    return (*names, BARS.name, CORPORATE_ACTIONS.name, INSTRUMENTS.name, QUARANTINE.name, FACTS)


def current_versions(ws: Workspace, names: Sequence[str] | None = None) -> dict[str, int]:
    """The Delta version of every table a model reads, at this moment; tables that do not exist are left out.

    `names`: the features that will be read (default: all). While a run writes stored sessions again, or when it has died
    at it, these are the versions of the last record, in which all tables belong together.
    Errors: NoDataError (no tables yet), StaleFormulasError (they hold values of other formulas than today's code).
    """
    wanted = list(names) if names is not None else sorted(FEATURES)
    found = visible_versions(ws)
    needed = [features.table_name(family) for family in features.families(wanted)]
    missing = [name for name in (*needed, BARS.name, CORPORATE_ACTIONS.name, INSTRUMENTS.name) if name not in found]
    if missing:
        way_out = "Run feature_backfill (or `trading backfill`) first."
        raise NoDataError(f"Market '{ws.market.id}' has no table {', '.join(missing)} yet", way_out)
    _refuse_old_formulas(ws, wanted)
    return found


def feature_sessions(ws: Workspace) -> list[date]:
    """Sessions whose features are published, ascending; [] when there are none."""
    table = features.table_name(MARKER_FAMILY)
    version = visible_versions(ws).get(table)
    return [] if version is None else ws.tables.sessions(table, version=version)


def visible_versions(ws: Workspace) -> dict[str, int]:
    """The versions of `feature_tables` that belong together: see `current_versions`. Tables that do not exist are left out."""
    record = record_of(ws)
    for _ in range(VISIBLE_ATTEMPTS):
        newest = {name: ws.tables.version(name) for name in feature_tables()}
        if notes.rewriting(ws):
            break
        before, record = record, record_of(ws)
        if before == record:  # nobody began and ended in between
            return {name: version for name, version in newest.items() if version is not None}
    if record is None:
        return {}
    return {name: version for name, version in record["tables"].items() if version is not None}


def record_of(ws: Workspace) -> dict[str, Any] | None:
    """What the last publish recorded: features_version, tables (name -> version) and fingerprints; None before the first."""
    path = ws.path("features", "current.json")
    return ws.store.read_json(path) if ws.store.exists(path) else None


def _refuse_old_formulas(ws: Workspace, names: Sequence[str]) -> None:
    """A model must not be stamped with today's formulas when the stored values come from yesterday's."""
    stored = (record_of(ws) or {"fingerprints": {}})["fingerprints"]
    today = features.fingerprints(names)
    changed = sorted(name for name, fingerprint in today.items() if stored.get(name) != fingerprint)
    if changed:
        raise StaleFormulasError(ws.market.id, changed)


@dataclass(frozen=True, slots=True)
class StoredFamily:
    """One table of features. `changed`: features that are not stored yet, or were made by another formula than today's."""

    family: str
    table: str
    version: int | None
    features: int
    sessions: int
    first: date | None
    last: date | None
    changed: tuple[str, ...]


def describe_tables(ws: Workspace) -> list[StoredFamily]:
    """Every family of today's code, and what is stored of it; `trading backfill --family` mends a single one."""
    found, recorded = visible_versions(ws), (record_of(ws) or {"fingerprints": {}})["fingerprints"]
    rows = []
    for family, names in sorted(features.families(sorted(FEATURES)).items()):
        table, today = features.table_name(family), features.fingerprints(names)
        version = found.get(table)
        days = ws.tables.sessions(table, version=version) if version is not None else []
        changed = tuple(name for name in names if recorded.get(name) != today[name])
        first, last = (days[0], days[-1]) if days else (None, None)
        rows.append(StoredFamily(family, table, version, len(names), len(days), first, last, changed))
    return rows


def load_panel(
    ws: Workspace, names: Sequence[str], start: date, end: date, versions: Versions, columns: Sequence[str] = ()
) -> Panel:
    """The panel of sessions start..end with the features `names`, then the instrument columns `columns` as of each session,
    read at fixed table versions.

    Nothing after `end` is read or known: prices are adjusted with the events up to it, bars held out at its close are
    left out. Labels across suspected corporate actions are masked (Panel.breaks).
    Errors: NoDataError when there is no bar, UnknownNameError for a feature or column.
    """
    prices = _prices(ws, start, end, versions)
    values = _features(ws, names, Predicate(start, end), versions)
    if columns:
        values = with_facts(ws, values, columns, versions)
    return _panel(ws, values, prices, [*names, *columns], end, versions)


def load_prices(ws: Workspace, start: date, end: date, versions: Versions) -> Panel:
    """`load_panel` without any feature: what labels and volatilities are made of. Errors: NoDataError."""
    prices = _prices(ws, start, end, versions)
    return _panel(ws, prices.select(SYMBOL, SESSION), prices, [], end, versions)


def load_columns(ws: Workspace, names: Sequence[str], start: date, end: date, versions: Versions) -> pl.DataFrame:
    """The features `names` of sessions start..end as rows of SYMBOL, SESSION and float32 values, at fixed table versions.

    Errors: UnknownNameError for a feature.
    """
    return _features(ws, names, Predicate(start, end), versions)


def _panel(
    ws: Workspace, values: pl.DataFrame, prices: pl.DataFrame, names: Sequence[str], end: date, versions: Versions
) -> Panel:
    instruments = instruments_as_of(ws, end, versions)
    breaks = quality.suspected_actions(ws, versions, end)
    return Panel.from_frames(values, prices, instruments, names, ws.market.id, breaks)


def _prices(ws: Workspace, start: date, end: date, versions: Versions) -> pl.DataFrame:
    """Adjusted bars of start..end as known at the close of `end`."""
    bars = ws.tables.read(BARS.name, where=Predicate(None, end), version=versions[BARS.name]).select(*BAR_SCHEMA)
    if bars.filter(pl.col(SESSION) >= start).is_empty():
        raise NoDataError(f"Market '{ws.market.id}' has no bar from {start} to {end}", "Run feature_backfill for them.")
    table = CORPORATE_ACTIONS.name
    actions = ws.tables.read(table, where=Predicate(None, end), version=versions[table]).select(*ACTION_SCHEMA)
    bars = bars.join(quality.held_rows(ws, end, end, versions), on=[SYMBOL, TS], how="anti")  # not known yet at `end`
    return adjust.adjusted(bars, actions).filter(pl.col(SESSION) >= start)


def _features(ws: Workspace, names: Sequence[str], span: Predicate, versions: Versions) -> pl.DataFrame:
    joined: pl.DataFrame | None = None
    for family, members in features.families(names).items():
        table = features.table_name(family)
        part = ws.tables.read(table, columns=[SYMBOL, SESSION, *members], where=span, version=versions[table])
        joined = part if joined is None else joined.join(part, on=[SYMBOL, SESSION], how="full", coalesce=True)
    if joined is None:
        raise NoDataError("A model without features", "Name at least one feature in its configuration.")
    return joined
