"""What one run of evaluate_strategies evaluates, and how its simulations are spread over tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from trading_core.pipelines.refs import EvaluationPlan, ForecastsRef


@dataclass(frozen=True, slots=True)
class EvaluationTarget:
    """Forecasts that share one report; the fields are those of `evaluation_inputs.Wanted`."""

    market: str
    versions: tuple[str, ...]
    walk_forwards: tuple[str, ...] = ()
    start: date | None = None
    end: date | None = None


@dataclass(frozen=True, slots=True)
class SimulationBatch:
    """Strategies that one task simulates, one after the other. evaluation: the place of their plan among the run's."""

    evaluation: int
    strategies: tuple[str, ...]


def announced(forecasts: Sequence[ForecastsRef]) -> tuple[EvaluationTarget, ...]:
    """One target per market and version: what is found of a version must not depend on what else was announced with it.

    Of a version that was announced more than once the earliest start counts.
    """
    found: dict[tuple[str, str], date] = {}
    for item in forecasts:
        key = (item.market, item.model_version)
        found[key] = min(item.start, found.get(key, item.start))
    return tuple(EvaluationTarget(market, (version,), start=start) for (market, version), start in found.items())


def batches(plans: Sequence[EvaluationPlan], size: int) -> tuple[SimulationBatch, ...]:
    """The strategies of each plan, `size` at most together: a task's start costs seconds, most simulations less than one."""
    return tuple(
        SimulationBatch(number, plan.strategies[first : first + size])
        for number, plan in enumerate(plans)
        for first in range(0, len(plan.strategies), size)
    )
