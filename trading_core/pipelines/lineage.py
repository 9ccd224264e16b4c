"""From an order back to the bars: order, intent, risk decisions, target, forecast, model, features, bars, each with a hash.

Everything is read at the versions that the decision cites, so that what was written since changes no word. A link that is
not there any more (a model that was deleted, a decision of an older version) is named in `notes`; the others are still told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import polars as pl

from trading_core.errors import NoDataError, TradingError, UnknownNameError
from trading_core.execution.codec import to_document, to_json
from trading_core.execution.ledger import Ledger
from trading_core.execution.records import (
    Decision,
    GateRecord,
    Intent,
    OrderEvent,
    OrderRecord,
    OrderVerdict,
    Target,
)
from trading_core.pipelines.deciding import stored_forecasts, tables_of
from trading_core.pipelines.digests import rows_digest
from trading_core.pipelines.instruments import with_facts
from trading_core.pipelines.panels import load_columns
from trading_core.pipelines.trade import FLATTEN
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import BARS, FORECASTS, SESSION, SYMBOL, Fill
from trading_core.storage.tables import Predicate

if TYPE_CHECKING:
    from trading_core.registry.bundle import ModelCard

LEAST_PREFIX = 6  # characters of an order's id that must be given
NEAR = 5  # orders that are listed where none, or more than one, was meant
LinkT = TypeVar("LinkT")


@dataclass(frozen=True, slots=True)
class DecisionLink:
    """What was decided, from what and by what. `digest`: of the ledger's document; a version of -1: not recorded."""

    decision_id: str
    strategy: str
    decision_session: date
    decided_at: datetime
    equity: float
    cash: float
    orders: int
    forecasts_version: int
    bars_version: int
    actions_version: int
    quarantine_version: int
    columns_version: str
    strategy_hash: str
    config_hash: str
    code_version: str
    digest: str


@dataclass(frozen=True, slots=True)
class ForecastRow:
    """The symbol's forecast over `horizon` sessions; `rank` of its score among the `of` scores of D, 1 the highest."""

    horizon: int
    score: float
    median: float
    p_up: float
    rank: int
    of: int
    digest: str


@dataclass(frozen=True, slots=True)
class ForecastsLink:
    """All forecasts of D that the decision used, at the version of the table it cites.

    `frozen_digest`: of these rows when it decided, "" where that was not recorded; another one now means they were changed.
    """

    table_version: int
    rows: int
    digest: str
    frozen_digest: str
    symbol: tuple[ForecastRow, ...]

    @property
    def changed(self) -> bool:
        return self.frozen_digest not in ("", self.digest)


@dataclass(frozen=True, slots=True)
class ModelLink:
    """The version that forecast. `digest`: of its bundle's manifest; `data_versions`: of the tables it learned from."""

    model: str
    version: int
    aliases: tuple[str, ...]
    digest: str
    cited_digest: str  # by the decision
    bundle_uri: str
    cutoff: date
    train_start: date
    train_end: date
    seed: int
    config_hash: str
    code_version: str
    data_versions: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class FeaturesLink:
    """The symbol's features at D, at the table versions the forecasts name. `missing`: of `count`, those without a value."""

    features_version: str
    tables: Mapping[str, int]
    count: int
    missing: int
    digest: str


@dataclass(frozen=True, slots=True)
class Bar:
    """As it is stored: prices as the source gives them, volume in shares."""

    open: float | None
    high: float | None
    low: float | None
    close: float | None
    volume: float | None


@dataclass(frozen=True, slots=True)
class BarsLink:
    """The symbol's bars up to D at a version of their table. `read_by`: "features", "decision" or both. `bar`: of D."""

    read_by: tuple[str, ...]
    table_version: int
    bar: Bar | None
    bar_digest: str  # of D's row alone
    first: date | None
    rows: int
    digest: str  # of all rows up to D


@dataclass(frozen=True, slots=True)
class Lineage:
    """An order and all it came from. None: not known, and `notes` say why."""

    order: OrderRecord
    history: tuple[OrderEvent, ...]
    fills: tuple[Fill, ...]
    gates: tuple[GateRecord, ...]
    risk: tuple[OrderVerdict, ...]
    target: Target | None
    decision: DecisionLink | None
    forecasts: ForecastsLink | None
    model: ModelLink | None
    features: FeaturesLink | None
    bars: tuple[BarsLink, ...]
    notes: tuple[str, ...]


def explain(ws: Workspace, order_id: str) -> Lineage:
    """The lineage of the order with that client order id, or with the one id that begins so.

    Errors: UnknownNameError (none, or several), NoDataError (the market has no order), LedgerUnreachableError.
    """
    ledger = Ledger(ws.ledger_store())
    intent = find_order(ws, ledger, order_id)
    account, session, key = intent.account, intent.session, intent.client_order_id
    decision, notes = ledger.get_decision(account, session), list[str]()
    order = next(found for found in ledger.orders(account, session) if found.intent.client_order_id == key)
    made = _made_by(ws, intent, decision, notes) if decision is not None else _nothing()
    if decision is None:
        notes.append(f"The ledger holds no decision of {account} for {session}.")
    return Lineage(
        order=order,
        history=tuple(ledger.order_history(account, session, key)),
        fills=tuple(fill for fill in ledger.fills(account, session) if fill.client_order_id == key),
        gates=tuple(record for record in ledger.gates(account, session) if record.client_order_id == key),
        risk=tuple(v for v in decision.risk if v.symbol == intent.symbol) if decision else (),
        target=next((t for t in decision.targets if t.symbol == intent.symbol), None) if decision else None,
        decision=_decision_link(decision) if decision else None,
        forecasts=made.forecasts,
        model=made.model,
        features=made.features,
        bars=made.bars,
        notes=tuple(notes),
    )


# --- which order ------------------------------------------------------------------------------------------------------


def find_order(ws: Workspace, ledger: Ledger, order_id: str) -> Intent:
    """The intent with that id, or with the one id of the market that begins so. Errors: UnknownNameError, NoDataError."""
    intents = [intent for owner in ledger.accounts(ws.market.id) for intent in ledger.intents(owner.account)]
    if not intents:
        raise NoDataError(f"Market '{ws.market.id}' has no order yet", "Trade a session with `trading trade`.")
    known = {intent.client_order_id: intent for intent in intents}
    if order_id in known:
        return known[order_id]
    if len(order_id) < LEAST_PREFIX:
        kind = f"order (give at least {LEAST_PREFIX} characters of its id)"
        raise UnknownNameError(kind, order_id, _near(order_id, list(known)))
    begins = [key for key in known if key.startswith(order_id)]
    if len(begins) == 1:
        return known[begins[0]]
    kind = f"order ({len(begins)} ids begin so; give more characters)" if begins else "order"
    raise UnknownNameError(kind, order_id, _near(order_id, begins or list(known)))


def _near(text: str, ids: Sequence[str]) -> list[str]:
    """The ids that share the longest beginning with `text`."""
    return sorted(ids, key=lambda key: (-_shared(text, key), key))[:NEAR]


def _shared(left: str, right: str) -> int:
    """How many first characters are the same."""
    pairs = zip(left, right, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


# --- what made it -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Made:
    forecasts: ForecastsLink | None
    model: ModelLink | None
    features: FeaturesLink | None
    bars: tuple[BarsLink, ...]


def _nothing() -> _Made:
    return _Made(None, None, None, ())


def _made_by(ws: Workspace, intent: Intent, decision: Decision, notes: list[str]) -> _Made:
    """The links before the decision; what cannot be read is added to `notes`."""
    if FLATTEN in (intent.strategy, decision.model):
        notes.append("A person closed the account (flatten): no strategy, forecast or model asked for this order.")
        return _nothing()
    if decision.first_decision is None:
        notes.append(
            "The decision was frozen by an older version: holdings, risk decisions and versions of bars were not kept."
        )
    symbol, day, cited = intent.symbol, decision.decision_session, decision.features_version
    forecasts = _read(notes, "Its forecasts", lambda: _forecasts(ws, decision, symbol))
    found = _read(notes, "Its model", lambda: _model(ws, decision))
    tables = _read(notes, "Its features version", lambda: tables_of(ws, cited))
    model, features = (found[0] if found else None), None
    if found is not None and tables is not None:
        card, versions = found[1], tables
        features = _read(notes, "Its features", lambda: _features(ws, cited, versions, card, symbol, day))
    by_version: dict[int, list[str]] = {}
    for reader, version in (("features", (tables or {}).get(BARS.name, -1)), ("decision", decision.bars_version)):
        by_version.setdefault(version, []).append(reader)
    bars = [
        _read(notes, "Its bars", partial(_bars, ws, tuple(readers), version, symbol, day))
        for version, readers in by_version.items()
        if version >= 0
    ]
    return _Made(forecasts, model, features, tuple(link for link in bars if link is not None))


def _read(notes: list[str], what: str, read: Callable[[], LinkT]) -> LinkT | None:
    try:
        return read()
    except TradingError as error:
        notes.append(f"{what} cannot be read: {error}")
        return None


def _decision_link(decision: Decision) -> DecisionLink:
    return DecisionLink(
        decision_id=decision.decision_id,
        strategy=decision.strategy,
        decision_session=decision.decision_session,
        decided_at=decision.decided_at,
        equity=decision.equity,
        cash=decision.cash,
        orders=len(decision.orders),
        forecasts_version=decision.forecasts_version,
        bars_version=decision.bars_version,
        actions_version=decision.actions_version,
        quarantine_version=decision.quarantine_version,
        columns_version=decision.columns_version,
        strategy_hash=decision.strategy_hash,
        config_hash=decision.config_hash,
        code_version=decision.code_version,
        digest=hashlib.sha256(to_json(to_document(decision)).encode()).hexdigest(),
    )


def _forecasts(ws: Workspace, decision: Decision, symbol: str) -> ForecastsLink:
    rows = stored_forecasts(ws, decision.decision_session, decision.model_version, decision.forecasts_version)
    ranks = pl.col("score").rank("min", descending=True).over("horizon").alias("rank")
    counts = pl.col("score").count().over("horizon").alias("of")
    own = rows.with_columns(ranks, counts).filter(pl.col(SYMBOL) == symbol).sort("horizon")
    return ForecastsLink(
        table_version=decision.forecasts_version,
        rows=len(rows),
        digest=rows_digest(rows, FORECASTS.key),
        frozen_digest=decision.forecasts_digest,
        symbol=tuple(
            ForecastRow(
                int(row["horizon"]), row["score"], row["q50"], row["p_up"], int(row["rank"]), int(row["of"]),
                rows_digest(rows.filter(pl.col(SYMBOL) == symbol, pl.col("horizon") == row["horizon"]), FORECASTS.key),
            )
            for row in own.iter_rows(named=True)
        ),
    )  # fmt: skip


def _model(ws: Workspace, decision: Decision) -> tuple[ModelLink, ModelCard]:
    from trading_core.registry.bundle import load_card

    version = ws.registry().version(ws.market.id, int(decision.model_version))
    card = load_card(ws.store, ws.store.path_of(version.bundle_uri), decision.model_digest)
    link = ModelLink(
        model=version.model,
        version=version.version,
        aliases=version.aliases,
        digest=version.digest,
        cited_digest=decision.model_digest,
        bundle_uri=version.bundle_uri,
        cutoff=version.cutoff,
        train_start=card.train_start,
        train_end=card.train_end,
        seed=card.seed,
        config_hash=card.config_hash,
        code_version=card.code_version,
        data_versions=dict(card.data_versions),
    )
    return link, card


def _features(
    ws: Workspace, version: str, tables: Mapping[str, int], card: ModelCard, symbol: str, day: date
) -> FeaturesLink:
    rows = load_columns(ws, card.features, day, day, tables).filter(pl.col(SYMBOL) == symbol)
    if card.instrument_columns:
        rows = with_facts(ws, rows, card.instrument_columns, tables)
    if rows.is_empty():
        raise NoDataError(f"{symbol} has no features of {day}", "The forecasts cite a version that does not hold them.")
    values = rows.select(card.inputs).row(0)
    missing = sum(value is None or value != value for value in values)
    return FeaturesLink(version, dict(tables), len(values), missing, rows_digest(rows, (SYMBOL, SESSION)))


def _bars(ws: Workspace, read_by: tuple[str, ...], version: int, symbol: str, day: date) -> BarsLink:
    rows = ws.tables.read(BARS.name, where=Predicate(None, day, {SYMBOL: symbol}), version=version).sort(SESSION)
    of_day = rows.filter(pl.col(SESSION) == day)
    return BarsLink(
        read_by=read_by,
        table_version=version,
        bar=Bar(*of_day.select("open", "high", "low", "close", "volume").row(0)) if len(of_day) else None,
        bar_digest=rows_digest(of_day, BARS.key),
        first=rows[SESSION][0] if len(rows) else None,
        rows=len(rows),
        digest=rows_digest(rows, BARS.key),
    )
