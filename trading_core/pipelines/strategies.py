"""The strategy of a config: its parameters checked, and those that a model's card knows filled in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import polars as pl

from trading_core import config
from trading_core.calibration.thresholds import ThresholdChoice
from trading_core.config import StrategyConfig
from trading_core.errors import EmptyUniverseError, InvalidConfigError
from trading_core.execution.gate_facts import GateLimits
from trading_core.pipelines.workspace import Workspace
from trading_core.portfolio.registry import strategy_entry
from trading_core.portfolio.risk import RiskLimits
from trading_core.portfolio.strategy import Strategy
from trading_core.portfolio.threshold_long_flat import ThresholdLongFlatParams
from trading_core.registry.mlflow_registry import ModelVersion


def strategy_params(chosen: StrategyConfig, name: str) -> Any:
    """The parameters of a config, as its strategy's own class. Errors: UnknownNameError, InvalidConfigError."""
    return config.parse_options(strategy_entry(chosen.strategy).params, chosen.params, f"params of strategy '{name}'")


def build_strategy(ws: Workspace, chosen: StrategyConfig, name: str, model: Callable[[], ModelVersion]) -> Strategy:
    """The strategy of a config that decides by a model's forecasts.

    model: which version that is; asked for only where a parameter is taken from its card.
    Errors: those of `strategy_params`, InvalidConfigError where the card does not hold what the config asks for, and what
    `registry.bundle.load_card` raises.
    """
    params = strategy_params(chosen, name)
    horizon = getattr(params, "horizon", chosen.horizon)
    if horizon != chosen.horizon:
        problem = f"horizon: {horizon} must be that of the strategy, {chosen.horizon}: its forecasts are over so many sessions"
        raise InvalidConfigError(f"params of strategy '{name}'", [problem])
    if isinstance(params, ThresholdLongFlatParams) and isinstance(params.threshold, str):
        found = _searched(ws, name, chosen.horizon, params.threshold, model())
        params = replace(params, threshold=found)
    return strategy_entry(chosen.strategy).build(params)


def require_horizon(ws: Workspace, name: str, chosen: StrategyConfig, forecasts: pl.DataFrame) -> None:
    """A strategy whose horizon the model does not forecast would hold nothing without a word. Errors: EmptyUniverseError."""
    horizons = sorted(forecasts["horizon"].unique().to_list())
    if strategy_entry(chosen.strategy).benchmark or chosen.horizon in horizons:
        return
    reason = f"strategy '{name}' ranks by horizon {chosen.horizon}, the model forecasts {horizons}"
    raise EmptyUniverseError(ws.market.id, reason)


def needs_card(chosen: StrategyConfig, name: str) -> bool:
    """Whether a parameter is taken from the card of a model version. Errors: those of `strategy_params`."""
    params = strategy_params(chosen, name)
    return isinstance(params, ThresholdLongFlatParams) and isinstance(params.threshold, str)


def may_short(chosen: StrategyConfig, name: str) -> bool:
    """Whether the strategy of a config may hold negative positions. Errors: those of `strategy_params`."""
    params = strategy_params(chosen, name)
    if needs_card(chosen, name):
        return False  # what is not complete yet cannot be built
    return strategy_entry(chosen.strategy).build(params).short


def _searched(ws: Workspace, name: str, horizon: int, objective: str, version: ModelVersion) -> float:
    """The threshold on p_up of a horizon that was searched on the version's validation part."""
    from trading_core.registry.bundle import load_card

    card = load_card(ws.store, ws.store.path_of(version.bundle_uri), version.digest)
    choices = dict(zip(card.spec.horizons, card.thresholds.get(objective, ()), strict=False))
    if horizon not in choices:
        held = f"it for horizons {list(choices)}" if choices else f"of {sorted(card.thresholds) or 'no objective'}"
        problem = (
            f"threshold: '{objective}' over {horizon} sessions is not in the card of model version {version.version} "
            f"({version.model}), which holds {held}; give a number, or train the model again"
        )
        raise InvalidConfigError(f"params of strategy '{name}'", [problem])
    return ThresholdChoice.from_json(choices[horizon]).threshold


def risk_limits(chosen: StrategyConfig) -> RiskLimits:
    limits = chosen.risk
    return RiskLimits(
        max_position=limits.max_position,
        max_gross=limits.max_gross,
        max_order_notional=limits.max_order_notional,
        restricted=frozenset(limits.restricted),
        max_net=limits.max_net,
        max_names=limits.max_names,
        max_turnover=limits.max_turnover,
        max_volume_share=limits.max_volume_share,
    )


def gate_limits(chosen: StrategyConfig, name: str) -> GateLimits:
    """What each order of a strategy must pass before it is sent. Errors: InvalidConfigError for limits at odds."""
    limits = chosen.risk
    try:
        return GateLimits(
            restricted=frozenset(limits.restricted),
            price_collar_bps=limits.price_collar_bps,
            max_order_notional=limits.max_order_notional,
            max_orders_per_session=limits.max_orders_per_session,
            max_orders_per_minute=limits.max_orders_per_minute,
            duplicate_window_seconds=limits.duplicate_window_seconds,
            max_price_age_sessions=limits.max_price_age_sessions,
            max_closing_price_age_sessions=limits.max_closing_price_age_sessions,
            max_daily_loss=limits.max_daily_loss,
            max_drawdown=limits.max_drawdown,
            max_model_age_sessions=limits.max_model_age_sessions,
        )
    except ValueError as error:
        raise InvalidConfigError(f"risk of strategy '{name}'", [str(error)]) from error


def strategy_hash(ws: Workspace, strategy: str) -> str:
    """Of everything that makes a strategy's orders: its config and the market's costs."""
    return config.config_hash([config.load_strategy(strategy, ws.settings), ws.market.costs])
