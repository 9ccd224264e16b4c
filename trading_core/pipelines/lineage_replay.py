"""A frozen decision computed again from what it cites, and the forecasts under it from the stored model.

The decision must come out bit for bit: the inputs, the strategy's file, the costs and the code are all it is made of. The
forecasts need not: how many rows a network is given at once moves its last bits, so they are compared to a tolerance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from trading_core import config
from trading_core.errors import NoDataError, TradingError
from trading_core.execution.ledger import Ledger
from trading_core.execution.records import Decision
from trading_core.pipelines import deciding, infer, lineage
from trading_core.pipelines.deciding import Decided, DecisionInputs, PriceVersions, stored_forecasts, tables_of
from trading_core.pipelines.digests import rows_digest
from trading_core.pipelines.lineage import Lineage
from trading_core.pipelines.strategies import strategy_hash
from trading_core.pipelines.trade import FLATTEN
from trading_core.pipelines.train import code_version
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import FORECASTS, SESSION, SYMBOL, FloatArray

TOLERANCE = 1e-6  # absolute: of log returns, probabilities and volatilities
OLDER = "this decision was frozen by an older version; it cannot be recomputed"
BY_HAND = "a person decided to close the account; there is nothing to recompute"
INTERVAL = ("low_90", "high_90")
_KEY = [SYMBOL, SESSION, "horizon"]


@dataclass(frozen=True, slots=True)
class Difference:
    """The first thing that came out otherwise."""

    what: str
    frozen: str
    recomputed: str


@dataclass(frozen=True, slots=True)
class DecisionCheck:
    """`problem`: why it could not be recomputed, else "". `changed`: what is not as it was, each a possible reason."""

    identical: bool
    difference: Difference | None
    changed: tuple[str, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ColumnDifference:
    """The largest differences of one column, recomputed against stored; `symbol` has the absolute one."""

    column: str
    absolute: float
    relative: float
    symbol: str


@dataclass(frozen=True, slots=True)
class ForecastCheck:
    """`agrees`: the same rows, and no value further off than TOLERANCE. `problem`: why they could not be recomputed, or
    which rows are not the same. The largest differences are over all columns, None where nothing could be compared."""

    agrees: bool
    rows: int
    absolute: float | None
    relative: float | None
    columns: tuple[ColumnDifference, ...]
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Replay:
    decision: DecisionCheck
    forecasts: ForecastCheck

    @property
    def confirmed(self) -> bool:
        """Whether all that was decided and forecast came out again."""
        return self.decision.identical and self.forecasts.agrees


@dataclass(frozen=True, slots=True)
class Explained:
    """`replay` and `confirmed` (whether all came out again) are None where that was not asked for or there is no decision."""

    lineage: Lineage
    replay: Replay | None
    confirmed: bool | None


def explained(ws: Workspace, order_id: str, again: bool) -> Explained:
    """The lineage of an order; `again`: also its decision and forecasts recomputed. Errors: those of `lineage.explain`."""
    made = lineage.explain(ws, order_id)
    intent = made.order.intent
    decision = Ledger(ws.ledger_store()).get_decision(intent.account, intent.session) if again else None
    found = replay(ws, decision) if decision is not None else None
    return Explained(made, found, found.confirmed if found is not None else None)


def replay(ws: Workspace, decision: Decision) -> Replay:
    """Computes a decision and its forecasts again and compares; stores nothing. What cannot be computed is said, not raised."""
    if decision.model == FLATTEN:
        return Replay(DecisionCheck(False, None, (), BY_HAND), _no_forecasts(BY_HAND))
    return Replay(check_decision(ws, decision), check_forecasts(ws, decision))


# --- the decision -----------------------------------------------------------------------------------------------------


def check_decision(ws: Workspace, decision: Decision) -> DecisionCheck:
    """Whether targets, orders, rejections and risk decisions come out again to the last bit."""
    if decision.first_decision is None:
        return DecisionCheck(False, None, (), OLDER)
    changed = _changed_since(ws, decision)
    try:
        decided = deciding.decide(ws, inputs_of(decision))
    except TradingError as error:
        return DecisionCheck(False, None, changed, str(error))
    difference = first_difference(decision, decided)
    return DecisionCheck(difference is None, difference, changed)


def inputs_of(decision: Decision) -> DecisionInputs:
    """What a frozen decision was made of. Errors: NoDataError for one that was frozen by an older version."""
    if decision.first_decision is None:
        raise NoDataError(
            f"Decision {decision.decision_id}: {OLDER}", "Look at its targets and orders as they are stored."
        )
    versions = (decision.bars_version, decision.actions_version, decision.quarantine_version)
    return DecisionInputs(
        strategy=decision.strategy,
        session=decision.session,
        decision_session=decision.decision_session,
        model_version=decision.model_version,
        forecasts_version=decision.forecasts_version,
        holdings=decision.holdings,
        cash=decision.cash,
        first_decision=decision.first_decision,
        prices=PriceVersions(*(version if version >= 0 else None for version in versions)),
        columns_version=decision.columns_version,
    )


def first_difference(frozen: Decision, now: Decided) -> Difference | None:
    """The first of equity, targets, orders, rejections, risk decisions and what is held without a forecast that differs."""
    if repr(frozen.equity) != repr(now.account.equity):
        return Difference("equity at the close of D", repr(frozen.equity), repr(now.account.equity))
    parts = (
        ("target", frozen.targets, now.targets),
        ("order", frozen.orders, now.orders),
        ("rejection", frozen.rejected, now.rejected),
        ("risk decision", frozen.risk, now.risk),
    )
    for what, stored, made in parts:
        if difference := _first_of(what, stored, made):
            return difference
    if frozen.held_without_forecast != now.held_without_forecast:
        names = (", ".join(held) or "nothing" for held in (frozen.held_without_forecast, now.held_without_forecast))
        return Difference("what is held without a forecast", *names)
    return None


def _first_of(what: str, frozen: Sequence[Any], now: Sequence[Any]) -> Difference | None:
    """By symbol, then in their sequence; the text of a float is different exactly when its bits are."""
    one, two = ({_name(record): _words(record) for record in records} for records in (frozen, now))
    for key in sorted({*one, *two}):
        if one.get(key) != two.get(key):
            return Difference(f"the {what} of {key}", one.get(key, "none"), two.get(key, "none"))
    orders = [[_name(record) for record in records] for records in (frozen, now)]
    return (
        None if orders[0] == orders[1] else Difference(f"the sequence of each {what}", *(", ".join(o) for o in orders))
    )


def _name(record: Any) -> str:
    side = getattr(record, "side", None)
    return f"{record.symbol} ({side.value})" if side is not None else str(record.symbol)


def _words(record: Any) -> str:
    values = {f.name: getattr(record, f.name) for f in dataclasses.fields(record) if f.name not in ("symbol", "side")}
    return ", ".join(f"{name} {value if isinstance(value, str) else repr(value)}" for name, value in values.items())


def _changed_since(ws: Workspace, decision: Decision) -> tuple[str, ...]:
    """What a decision is made of and is not as it was, in words."""
    found = [_changed_config(ws, decision)]
    if (code := code_version()) != decision.code_version:
        found.append(f"the code is another version: {decision.code_version} then, {code} now")
    try:
        rows = stored_forecasts(ws, decision.decision_session, decision.model_version, decision.forecasts_version)
        digest = rows_digest(rows, FORECASTS.key)
        if digest != decision.forecasts_digest:
            found.append(f"the stored forecasts were changed: sha256 {decision.forecasts_digest} then, {digest} now")
    except TradingError as error:
        found.append(f"the stored forecasts cannot be read: {error}")
    return tuple(text for text in found if text)


def _changed_config(ws: Workspace, decision: Decision) -> str:
    try:
        chosen = config.load_strategy(decision.strategy, ws.settings)
    except TradingError as error:
        return f"the file of strategy '{decision.strategy}' cannot be read: {error}"
    if (now := config.config_hash(chosen)) != decision.config_hash:
        return f"the file of strategy '{decision.strategy}' was changed: config hash {decision.config_hash} then, {now} now"
    if (now := strategy_hash(ws, decision.strategy)) != decision.strategy_hash:
        return f"the costs of market '{ws.market.id}' were changed: hash {decision.strategy_hash} then, {now} now"
    return ""


# --- the forecasts ----------------------------------------------------------------------------------------------------


def check_forecasts(ws: Workspace, decision: Decision) -> ForecastCheck:
    """Whether the stored model gives the stored forecasts of D again, from the features that they name."""
    try:
        day = decision.decision_session
        stored = stored_forecasts(ws, day, decision.model_version, decision.forecasts_version)
        return compare_forecasts(stored, _forecast_again(ws, decision, stored))
    except TradingError as error:
        return _no_forecasts(str(error))


def _no_forecasts(problem: str) -> ForecastCheck:
    return ForecastCheck(False, 0, None, None, (), problem)


def _forecast_again(ws: Workspace, decision: Decision, stored: pl.DataFrame) -> pl.DataFrame:
    from trading_core.inference.predict import ForecastLabels
    from trading_core.registry.bundle import check_fingerprints, load_bundle

    version = ws.registry().version(ws.market.id, int(decision.model_version))
    bundle = load_bundle(ws.store, ws.store.path_of(version.bundle_uri), decision.model_digest)
    cited = decision.features_version
    # The formulas of the stored values, whatever the code says today.
    recorded = ws.store.read_json(ws.path("features", "versions", f"{cited}.json"))["fingerprints"]
    check_fingerprints(bundle.card, recorded)
    labels = ForecastLabels(decision.model_version, cited, decision.run_id)
    day = decision.decision_session
    return infer.forecasts_of(ws, bundle, [day], tables_of(ws, cited), labels, decision.forecasts_version)


def compare_forecasts(stored: pl.DataFrame, again: pl.DataFrame) -> ForecastCheck:
    """Two readings of one day's forecasts (schema.FORECASTS rows), number by number.

    Relative differences are to the stored value, infinite where that is 0. A value that only one of them has counts as
    infinitely far.
    """
    one, two = (frame.sort(_KEY) for frame in (stored, again))
    only = [_rows_only_in(*pair) for pair in ((one, two), (two, one))]
    texts = [
        f"{len(r)} row(s) are {where}: {_sample(r)}"
        for where, r in zip(("stored alone", "new"), only, strict=True)
        if len(r)
    ]
    keys = one.select(_KEY).join(two.select(_KEY), on=_KEY, how="semi")
    one, two = (keys.join(frame, on=_KEY, how="left", maintain_order="left") for frame in (one, two))
    numbers = [name for name, dtype in FORECASTS.columns.items() if dtype == pl.Float64 and name in one.columns]
    columns = tuple(_column(name, one[name], two[name], keys[SYMBOL]) for name in numbers) if len(keys) else ()
    far = [column.column for column in columns if not column.absolute <= TOLERANCE]
    if far and set(far) <= set(INTERVAL):
        texts.append(
            "only the intervals differ: they follow from earlier forecasts, of which more may have been stored since"
        )
    return ForecastCheck(
        agrees=not far and not texts and bool(columns),
        rows=len(keys),
        absolute=max((column.absolute for column in columns), default=None),
        relative=max((column.relative for column in columns), default=None),
        columns=columns,
        problem="; ".join(texts),
    )


def _rows_only_in(one: pl.DataFrame, two: pl.DataFrame) -> pl.DataFrame:
    return one.select(_KEY).join(two.select(_KEY), on=_KEY, how="anti")


def _sample(rows: pl.DataFrame) -> str:
    return ", ".join(f"{row[SYMBOL]} over {row['horizon']}" for row in rows.head(3).iter_rows(named=True))


def _column(name: str, stored: pl.Series, again: pl.Series, symbols: pl.Series) -> ColumnDifference:
    one, two = _numbers(stored), _numbers(again)
    known = ~(np.isnan(one) & np.isnan(two))
    apart = np.where(known, np.abs(two - one), 0.0)
    apart[np.isnan(apart)] = np.inf
    size = np.abs(one)
    relative = np.where(apart > 0, np.divide(apart, size, out=np.full_like(apart, np.inf), where=size > 0), 0.0)
    worst = int(np.argmax(apart))
    return ColumnDifference(name, float(apart[worst]), float(relative.max()), str(symbols[worst]))


def _numbers(values: pl.Series) -> FloatArray:
    return values.fill_null(float("nan")).to_numpy().astype(np.float64)
