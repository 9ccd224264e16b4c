"""Tables -> the panel that training and inference read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import polars as pl

from trading_core.dataset.panel import Panel
from trading_core.errors import NoDataError, StaleFormulasError
from trading_core.features import build as features
from trading_core.features.registry import FEATURES
from trading_core.market import adjust
from trading_core.market.source import ACTION_SCHEMA, BAR_SCHEMA
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import BARS, CORPORATE_ACTIONS, INSTRUMENTS, SESSION, SYMBOL
from trading_core.storage.tables import Predicate

Versions = Mapping[str, int]


def current_versions(ws: Workspace) -> dict[str, int]:
    """The Delta version of every table a model reads, at this moment.

    Errors: NoDataError (no tables yet), StaleFormulasError (they hold values of other formulas than today's code).
    """
    names = [features.table_name(family) for family in features.families(sorted(FEATURES))]
    found = {name: ws.tables.version(name) for name in (*names, BARS.name, CORPORATE_ACTIONS.name, INSTRUMENTS.name)}
    missing = [name for name, version in found.items() if version is None]
    if missing:
        way_out = "Run feature_backfill (or `trading backfill`) first."
        raise NoDataError(f"Market '{ws.market.id}' has no table {', '.join(missing)} yet", way_out)
    _refuse_old_formulas(ws)
    return {name: version for name, version in found.items() if version is not None}


def _refuse_old_formulas(ws: Workspace) -> None:
    """A model must not be stamped with today's formulas when the stored values come from yesterday's."""
    path = ws.path("features", "current.json")
    stored = ws.store.read_json(path)["fingerprints"] if ws.store.exists(path) else {}
    today = features.fingerprints(sorted(FEATURES))
    changed = sorted(name for name, fingerprint in today.items() if stored.get(name) != fingerprint)
    if changed:
        raise StaleFormulasError(ws.market.id, changed)


def load_panel(ws: Workspace, names: Sequence[str], start: date, end: date, versions: Versions) -> Panel:
    """The panel of sessions start..end with the features `names`, read at fixed table versions.

    Nothing after `end` is read: prices are adjusted with the events up to it.
    Errors: NoDataError when there is no bar, UnknownNameError for a feature.
    """
    span = Predicate(start, end)
    bars = ws.tables.read(BARS.name, where=Predicate(None, end), version=versions[BARS.name]).select(*BAR_SCHEMA)
    if bars.filter(pl.col(SESSION) >= start).is_empty():
        raise NoDataError(f"Market '{ws.market.id}' has no bar from {start} to {end}", "Run feature_backfill for them.")
    table = CORPORATE_ACTIONS.name
    actions = ws.tables.read(table, where=Predicate(None, end), version=versions[table]).select(*ACTION_SCHEMA)
    adjusted = adjust.adjusted(bars, actions).filter(pl.col(SESSION) >= start)
    instruments = ws.tables.read(INSTRUMENTS.name, version=versions[INSTRUMENTS.name])
    return Panel.from_frames(_features(ws, names, span, versions), adjusted, instruments, names, ws.market.id)


def _features(ws: Workspace, names: Sequence[str], span: Predicate, versions: Versions) -> pl.DataFrame:
    joined: pl.DataFrame | None = None
    for family, members in features.families(names).items():
        table = features.table_name(family)
        part = ws.tables.read(table, columns=[SYMBOL, SESSION, *members], where=span, version=versions[table])
        joined = part if joined is None else joined.join(part, on=[SYMBOL, SESSION], how="full", coalesce=True)
    if joined is None:
        raise NoDataError("A model without features", "Name at least one feature in its configuration.")
    return joined
