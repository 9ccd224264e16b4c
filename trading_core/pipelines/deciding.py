"""From what an account knew to what it decided: the one function that a live session, a replay and `trading explain` share.

A decision follows from its `DecisionInputs`, the strategy's file, the market's costs and the code. The inputs are frozen
with the decision in the ledger, so that it can be computed again when tables, holdings and models have moved on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import polars as pl

from trading_core import config
from trading_core.backtest.data import ForecastPanel
from trading_core.backtest.engine import view_of
from trading_core.config import StrategyConfig
from trading_core.errors import NoDataError, StaleDataError
from trading_core.execution.records import DecidedOrder, Holding, OrderVerdict, Rejection, Target
from trading_core.pipelines.backfill import name_version
from trading_core.pipelines.market_data import load_market_data, load_strategy_columns
from trading_core.pipelines.panels import Versions, current_versions
from trading_core.pipelines.strategies import build_strategy, require_horizon, risk_limits
from trading_core.pipelines.workspace import Workspace
from trading_core.portfolio.decision import AccountWeights, value_account
from trading_core.portfolio.decision import Decision as PortfolioDecision
from trading_core.portfolio.decision import decide as portfolio_decide
from trading_core.portfolio.strategy import Strategy
from trading_core.schema import BARS, CORPORATE_ACTIONS, FORECASTS, QUARANTINE, FloatArray
from trading_core.storage.tables import Predicate


@dataclass(frozen=True, slots=True)
class PriceVersions:
    """Delta versions of the tables that prices are read from; None: there is no such table."""

    bars: int | None
    actions: int | None
    quarantine: int | None

    @property
    def by_table(self) -> Mapping[str, int | None]:
        return {BARS.name: self.bars, CORPORATE_ACTIONS.name: self.actions, QUARANTINE.name: self.quarantine}


@dataclass(frozen=True, slots=True)
class DecisionInputs:
    """What a decision of `session` (T), made after the close of `decision_session` (D), is computed from.

    `cash` in currency; `first_decision`: the account's first decision session; `columns_version`: of the features that the
    strategy itself reads, "" for those there are now.
    """

    strategy: str
    session: date
    decision_session: date
    model_version: str
    forecasts_version: int
    holdings: tuple[Holding, ...]
    cash: float
    first_decision: date
    prices: PriceVersions
    columns_version: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Decided:
    """A decision with what it was made of: `symbols` and `score` [S] as in `made.targets`; `forecasts`: all rows of D.

    `columns_version`: of the features that the strategy read, "" where it reads none.
    """

    chosen: StrategyConfig
    forecasts: pl.DataFrame
    symbols: tuple[str, ...]
    score: FloatArray
    account: AccountWeights
    made: PortfolioDecision
    columns_version: str

    @property
    def _kept(self) -> list[int]:
        """The symbols that are wanted or held."""
        wanted, held = self.made.targets, self.account.quantities
        return [s for s in range(len(self.symbols)) if wanted[s] != 0 or held[s] != 0]

    def _known(self, s: int) -> bool:
        return bool(self.score[s] == self.score[s])

    @property
    def targets(self) -> tuple[Target, ...]:
        score, weights = self.score, self.made.targets
        return tuple(
            Target(self.symbols[s], float(weights[s]), float(score[s]) if self._known(s) else None) for s in self._kept
        )

    @property
    def held_without_forecast(self) -> tuple[str, ...]:
        held = self.account.quantities
        return tuple(self.symbols[s] for s in self._kept if held[s] != 0 and not self._known(s))

    @property
    def orders(self) -> tuple[DecidedOrder, ...]:
        return tuple(DecidedOrder(o.symbol, o.side, o.quantity, o.reference_price) for o in self.made.orders)

    @property
    def rejected(self) -> tuple[Rejection, ...]:
        return tuple(
            Rejection(v.order.symbol, v.order.side, v.order.quantity - v.quantity, v.rule, v.reason)
            for v in self.made.verdicts
            if v.verdict != "approve"
        )

    @property
    def risk(self) -> tuple[OrderVerdict, ...]:
        return tuple(
            OrderVerdict(v.order.symbol, v.order.side, v.order.quantity, v.quantity, v.verdict, v.rule, v.reason)
            for v in self.made.verdicts
        )


def newest_prices(ws: Workspace) -> PriceVersions:
    """The versions there are now. Bars are asked first: the events of bars that are there are there too."""
    bars = ws.tables.version(BARS.name)
    return PriceVersions(bars, ws.tables.version(CORPORATE_ACTIONS.name), ws.tables.version(QUARANTINE.name))


def stored_forecasts(ws: Workspace, day: date, model_version: str, version: int) -> pl.DataFrame:
    """The forecasts of D by a model version, at a version of their table. Errors: NoDataError."""
    found = ws.tables.read(FORECASTS.name, where=Predicate(day, day, {"model_version": model_version}), version=version)
    if found.is_empty():
        raise NoDataError(
            f"There are no forecasts of session {day} by model version {model_version}",
            "Run the infer step (or `trading predict`) for it first.",
        )
    return found


def decide(ws: Workspace, known: DecisionInputs) -> Decided:
    """Targets and orders, checked by the risk rules. Nothing is stored, but the name of a features version.

    Errors: UnknownNameError and InvalidConfigError (the strategy's file), StaleDataError (no bars of D), NoDataError (no
    forecasts of D, or a holding without a price), EmptyUniverseError (another horizon), StrategyOutputError.
    """
    chosen, day = config.load_strategy(known.strategy, ws.settings), known.decision_session
    data, _, _ = load_market_data(ws, day, versions=known.prices.by_table)
    d = len(data.sessions) - 1
    if data.sessions[d] != day:
        raise StaleDataError(ws.market.id, day, data.sessions[d])
    forecasts = stored_forecasts(ws, day, known.model_version, known.forecasts_version)
    require_horizon(ws, known.strategy, chosen, forecasts)
    panel = ForecastPanel.from_frame(forecasts, chosen.horizon, data.symbols, data.sessions)
    holdings = {holding.symbol: holding.quantity for holding in known.holdings}
    valued = value_account(data.symbols, holdings, known.cash, data.marks[d])
    strategy = build_strategy(
        ws, chosen, known.strategy, lambda: ws.registry().version(ws.market.id, int(known.model_version))
    )
    version, features = _features_of(ws, strategy, known.columns_version)
    columns = load_strategy_columns(ws, strategy, data, day, day, features)
    ordinal = d - data.first_at_or_after(known.first_decision)
    view = view_of(data, panel, strategy, valued, d, known.session, ordinal, columns)
    limits = risk_limits(chosen)
    volumes = data.liquidity[1][d] if limits.needs_volumes else None
    made = portfolio_decide(
        known.strategy, strategy, view, valued, data.marks[d], ws.costs,
        chosen.fractional, chosen.min_order_notional, limits, volumes,
    )  # fmt: skip
    return Decided(chosen, forecasts, data.symbols, panel.score[d], valued, made, version)


def _features_of(ws: Workspace, strategy: Strategy, version: str) -> tuple[str, Versions | None]:
    """The features version that a strategy reads, and its table versions; nothing where it reads no features."""
    if not strategy.columns:
        return "", None
    if version:
        return version, tables_of(ws, version)
    versions = current_versions(ws, list(strategy.columns))
    return name_version(ws, versions), versions


def tables_of(ws: Workspace, features_version: str) -> Versions:
    """table -> Delta version, as recorded under the name of a features version. Errors: ArtifactMissingError."""
    recorded = ws.store.read_json(ws.path("features", "versions", f"{features_version}.json"))
    return {str(table): int(version) for table, version in recorded["tables"].items()}
