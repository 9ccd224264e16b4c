"""Top k: hold the k symbols with the highest forecasts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from trading_core.portfolio.strategy import SessionView
from trading_core.schema import FloatArray


@dataclass(frozen=True, slots=True)
class TopKParams:
    """`k` symbols, 1 .. 1000. `reweight`: bring all of them to equal weight every session (more trading)."""

    k: int = 10
    reweight: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.k <= 1000:
            raise ValueError(f"k is {self.k}; it must lie between 1 and 1000")


class TopK:
    """Holds the `k` highest scores; ties go to the symbol that comes first in the alphabet.

    A held symbol without a forecast or without a bar is left alone and takes up one of the k places. Of the open
    places each gets an equal share of the spare cash and of the weights sold; names that stay keep their weight to the
    bit. When fewer symbols have a forecast than there are places, the share of the empty places stays in cash.
    With `reweight` every chosen symbol goes to 1/k, or to an equal share of what those without a forecast leave.
    """

    lookback = 1
    needs_forecasts = True

    def __init__(self, params: TopKParams) -> None:
        self.params = params

    def decide(self, view: SessionView) -> FloatArray:
        k = self.params.k
        held = view.weights > 0
        ranked = np.isfinite(view.score) & view.tradable
        locked = held & ~ranked
        places = max(k - int(locked.sum()), 0)
        order = np.argsort(np.where(ranked, -view.score, np.inf), kind="stable")  # symbols are sorted: ties by name
        chosen = np.zeros(len(view.symbols), dtype=bool)
        chosen[order[: min(places, int(ranked.sum()))]] = True

        target = np.where(locked, view.weights, 0.0)
        if self.params.reweight:
            left = max(1.0 - math.fsum(view.weights[locked].tolist()), 0.0)
            target[chosen] = min(1.0 / k, left / places) if places else 0.0
            return target
        stays = held & chosen
        target[stays] = view.weights[stays]
        open_places = places - int(stays.sum())
        if open_places:
            sold = held & ~chosen & ~locked
            budget = max(view.cash_weight, 0.0) + math.fsum(view.weights[sold].tolist())
            target[chosen & ~held] = budget / open_places
        return target
