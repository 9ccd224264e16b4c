"""Model + features -> stored forecasts, for a year or for a day: one function.

Forecast rows are never rewritten: a (model version, session) that is stored stays as it is, so what a decision has used can
always be read again. Only sessions after a version's cut-off can be forecast.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from trading_core.errors import InvalidDateRangeError, LookAheadError, NoDataError, StaleDataError
from trading_core.features import build as features
from trading_core.market import universe
from trading_core.market.source import BAR_SCHEMA
from trading_core.pipelines import panels
from trading_core.pipelines.backfill import name_version
from trading_core.pipelines.markets import require_daily
from trading_core.pipelines.panels import Versions, current_versions, load_panel, load_prices
from trading_core.pipelines.refs import ForecastsRef
from trading_core.pipelines.workspace import Workspace
from trading_core.registry.mlflow_registry import ModelVersion
from trading_core.schema import BARS, FORECASTS, QUANTILE_COLUMNS, SESSION, SYMBOL, PriceBasis
from trading_core.storage.tables import Predicate

if TYPE_CHECKING:
    from trading_core.inference.predict import ForecastLabels
    from trading_core.registry.bundle import Bundle, ModelCard

CONTEXT_SESSIONS = 40  # sessions before the first encoder step: enough for the trailing volatility of 20 returns


def find_version(ws: Workspace, version: str) -> ModelVersion:
    """A model version by alias (`champion`, `challenger`) or number. Errors: NoModelError."""
    registry = ws.registry()
    return (
        registry.version(ws.market.id, int(version))
        if version.isascii() and version.isdecimal()
        else registry.get(ws.market.id, version)
    )


def infer(
    ws: Workspace, *, version: str, start: date | None, end: date | None, run_id: str, now: datetime
) -> ForecastsRef:
    """Forecasts of every eligible symbol for the decision sessions start..end; stores those that are missing.

    Defaults: from the first session after the version's cut-off to the last one with features.
    Errors: NoModelError, LookAheadError (a session at or before the cut-off), StaleDataError (no features there yet),
    BundleError, FormulaMismatchError, ArtifactCorruptedError.
    """
    return infer_with(ws, find_version(ws, version), start=start, end=end, run_id=run_id)


def infer_with(
    ws: Workspace, chosen: ModelVersion, *, start: date | None, end: date | None, run_id: str
) -> ForecastsRef:
    """`infer` by a version that was resolved already."""
    require_daily(ws.market)
    stored = feature_sessions(ws)
    if start is not None and start <= chosen.cutoff:
        raise LookAheadError(str(chosen.version), chosen.cutoff, start)
    first = start or ws.sessions.next(chosen.cutoff)
    last = end or stored[-1]
    if last > stored[-1]:
        raise StaleDataError(ws.market.id, last, stored[-1])
    wanted = [session for session in stored if first <= session <= last]
    if not wanted:
        raise InvalidDateRangeError(first, last, f"no session with features lies in it (they end at {stored[-1]})")
    present = forecast_sessions(ws, str(chosen.version))
    missing = [session for session in wanted if session not in present]
    added = _forecast(ws, chosen, missing, run_id) if missing else 0
    table_version = ws.tables.version(FORECASTS.name)
    where = Predicate(wanted[0], wanted[-1], {"model_version": str(chosen.version)})
    rows = len(ws.tables.read(FORECASTS.name, columns=[SYMBOL], where=where)) if table_version is not None else 0
    if rows == 0 or table_version is None:
        way_out = "Check the universe's limits and how much history the symbols have."
        raise NoDataError(f"Model version {chosen.version} could forecast no symbol from {first} to {last}", way_out)
    return ForecastsRef(
        ws.market.id, chosen.model, str(chosen.version), table_version, wanted[0], wanted[-1], rows, added
    )


def feature_sessions(ws: Workspace) -> list[date]:
    """Sessions with features, ascending. Errors: StaleDataError when there are none."""
    found = panels.feature_sessions(ws)
    if not found:
        raise StaleDataError(ws.market.id, ws.market.history_start, None)
    return found


def forecast_sessions(ws: Workspace, model_version: str) -> set[date]:
    """Sessions that hold forecasts of a model version."""
    if not ws.tables.exists(FORECASTS.name):
        return set()
    return set(ws.tables.sessions(FORECASTS.name, Predicate(None, None, {"model_version": model_version})))


def _forecast(ws: Workspace, chosen: ModelVersion, sessions: list[date], run_id: str) -> int:
    """Computes and stores the forecasts of `sessions` in one commit; returns how many rows."""
    from trading_core.inference.predict import ForecastLabels
    from trading_core.registry.bundle import check_fingerprints, load_bundle

    bundle = load_bundle(ws.store, ws.store.path_of(chosen.bundle_uri), chosen.digest)
    check_fingerprints(bundle.card, features.fingerprints(bundle.card.features))
    versions = current_versions(ws, bundle.card.features)
    labels = ForecastLabels(str(chosen.version), name_version(ws, versions), run_id)
    found = forecasts_of(ws, bundle, sessions, versions, labels)
    if found.is_empty():
        return 0
    # A run beside this one may have stored some of them meanwhile: rows that a decision may cite are never rewritten.
    present = forecast_sessions(ws, str(chosen.version))
    for part in _contiguous([session for session in sessions if session not in present], ws):
        rows = found.filter(pl.col(SESSION).is_between(part[0], part[-1]))
        where = Predicate(part[0], part[-1], {"model_version": str(chosen.version)})
        ws.tables.replace(
            FORECASTS.name, rows.with_columns(month=pl.col(SESSION).dt.strftime("%Y-%m")), where, schema=FORECASTS
        )
    return len(found)


def forecasts_of(
    ws: Workspace,
    bundle: Bundle,
    sessions: list[date],
    versions: Versions,
    labels: ForecastLabels,
    stored_at: int | None = None,
) -> pl.DataFrame:
    """The forecasts of every eligible symbol for the decision sessions `sessions`, from tables at `versions`; stores nothing.

    stored_at: the version of the forecasts table whose earlier rows intervals follow from (default: the newest).
    """
    from trading_core.inference.predict import predict

    card = bundle.card
    begin = max(_back(ws, sessions[0], card.spec.encoder_length + CONTEXT_SESSIONS), ws.market.history_start)
    panel = load_panel(ws, card.features, begin, sessions[-1], versions, card.instrument_columns)
    columns = np.array([panel.column_of(session) for session in sessions], dtype=np.int64)
    columns = columns[columns >= 0]
    closes = dict(zip(sessions, ws.sessions.closes(sessions), strict=True))
    found = predict(bundle, panel, columns, closes, labels)
    found = found.join(_eligible(ws, sessions, versions), on=[SYMBOL, SESSION], how="semi")
    if found.is_empty():
        return found
    # Of the rows that will be stored: a later run sees no others, and must find the same state.
    return _with_intervals(ws, card, found, labels.model_version, versions, stored_at)


def _with_intervals(
    ws: Workspace, card: ModelCard, found: pl.DataFrame, version: str, versions: Versions, stored_at: int | None
) -> pl.DataFrame:
    """The forecasts with intervals whose level follows from the version's stored forecasts that came true before."""
    from trading_core.inference.intervals import with_adapted_intervals

    first, last = found[SESSION].min(), found[SESSION].max()
    if not isinstance(first, date) or not isinstance(last, date):
        return found
    past = found.clear()
    if ws.tables.exists(FORECASTS.name):
        columns = [SYMBOL, SESSION, "horizon", *QUANTILE_COLUMNS]
        of_version = Predicate(None, last, {"model_version": version})
        past = ws.tables.read(FORECASTS.name, columns=columns, where=of_version, version=stored_at)
    begin = min([first, *past[SESSION].unique().to_list()])
    begin = max(_back(ws, begin, CONTEXT_SESSIONS), ws.market.history_start)
    prices = load_prices(ws, begin, last, versions)
    return with_adapted_intervals(card, prices, found, past)


def _eligible(ws: Workspace, sessions: list[date], versions: Versions) -> pl.DataFrame:
    """symbol, session of the market's universe on each session, judged with that session's past only."""
    limits = ws.market.universe
    require_raw_for_floors(ws)
    bars = ws.tables.read(BARS.name, where=Predicate(None, sessions[-1]), version=versions[BARS.name]).select(
        *BAR_SCHEMA
    )
    return universe.eligible_rows(
        bars,
        sessions[0],
        sessions[-1],
        limits.min_history,
        limits.min_dollar_volume,
        limits.min_price,
        universe.read_membership(limits.membership) if limits.membership else None,
    )


def require_raw_for_floors(ws: Workspace) -> None:
    """NoDataError when the universe has a price or dollar-volume floor and the prices are not those that were traded."""
    limits, basis = ws.market.universe, ws.source().price_basis
    floors = {"min_price": limits.min_price, "min_dollar_volume": limits.min_dollar_volume}
    asked = [f"universe.{name}" for name, floor in floors.items() if floor > 0]
    if asked and basis is not PriceBasis.RAW:
        raise NoDataError(
            f"Market '{ws.market.id}' has {' and '.join(asked)}, but its prices are {basis.value}: what was paid is not in them",
            f"Remove {' and '.join(asked)}, or use a source with raw prices.",
        )


def _back(ws: Workspace, session: date, count: int) -> date:
    return ws.sessions.offset(session, -count)


def _contiguous(sessions: list[date], ws: Workspace) -> list[list[date]]:
    """Runs of neighbouring sessions: what lies between them is stored already and must not be replaced."""
    parts: list[list[date]] = []
    for session in sessions:
        if parts and ws.sessions.next(parts[-1][-1]) == session:
            parts[-1].append(session)
        else:
            parts.append([session])
    return parts
