"""What a strategy sees (`SessionView`) and what it must answer (target weights).

A view holds copies of the rows up to D's close and nothing else, read-only: a strategy cannot reach the future through
it, not even through the base of an array.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trading_core.errors import StrategyOutputError
from trading_core.schema import BoolArray, FloatArray

_TOLERANCE = 1e-9  # on the sum of weights: ten times 0.1 may exceed 1 by float noise


@dataclass(frozen=True, slots=True, eq=False)
class SessionView:
    """All a decision may use: known at the close of `session` (D), to be filled at the open of `trade_session` (T).

    S symbols, Q quantiles, L = the strategy's `lookback` rows (fewer at the beginning of history).
    """

    session: date  # D
    trade_session: date  # T
    ordinal: int  # sessions since the account's first decision, which has 0
    symbols: tuple[str, ...]  # S, sorted
    score: FloatArray  # [S] higher is better; NaN = no forecast
    quantiles: FloatArray  # [S, Q] of the label, schema.QUANTILES; NaN = no forecast
    p_up: FloatArray  # [S] calibrated probability that the label is positive; NaN = none
    closes: FloatArray  # [L, S] up to D in D's basis: adjusted for splits through D, so row -1 is the price as traded
    volumes: FloatArray  # [L, S] shares, in D's basis
    weights: FloatArray  # [S] present positions at D's close, as fractions of equity
    cash_weight: float  # the rest of equity

    @property
    def tradable(self) -> BoolArray:
        """[S] whether the symbol has a bar at D."""
        return np.isfinite(self.closes[-1]) & (self.closes[-1] > 0)


class Strategy(Protocol):
    """Stateless: everything comes from the view, so replaying a session gives the same answer.

    `lookback`: rows of closes and volumes it wants, at least 1. `needs_forecasts`: whether it ranks by forecasts; then
    what it holds without one stays. What any strategy holds without a bar at D stays (`validate_weights`).
    """

    lookback: int
    needs_forecasts: bool

    def decide(self, view: SessionView) -> FloatArray:
        """Target weights [S] as fractions of equity; the present weight unchanged (same bits) means "leave it"."""
        ...


def session_view(
    session: date,
    trade_session: date,
    ordinal: int,
    symbols: tuple[str, ...],
    score: FloatArray,
    quantiles: FloatArray,
    p_up: FloatArray,
    closes: FloatArray,
    volumes: FloatArray,
    weights: FloatArray,
    cash_weight: float,
) -> SessionView:
    """The view of one decision, made of read-only copies. Arguments as the fields of `SessionView`.

    Errors: ValueError when the symbols are not sorted or shapes do not agree (a fault of the caller, not of a user).
    """
    count = len(symbols)
    if list(symbols) != sorted(set(symbols)):
        raise ValueError("the symbols of a view must be sorted and distinct")
    for name, array in (("score", score), ("p_up", p_up), ("weights", weights)):
        if array.shape != (count,):
            raise ValueError(f"{name} has shape {array.shape}; expected ({count},)")
    if closes.ndim != 2 or closes.shape[1] != count or closes.shape[0] < 1 or volumes.shape != closes.shape:
        raise ValueError(f"closes {closes.shape} and volumes {volumes.shape} must both be [L, {count}] with L >= 1")
    return SessionView(
        session,
        trade_session,
        ordinal,
        tuple(symbols),
        _sealed(score),
        _sealed(quantiles),
        _sealed(p_up),
        _sealed(closes),
        _sealed(volumes),
        _sealed(weights),
        float(cash_weight),
    )


def _sealed(array: npt.ArrayLike) -> FloatArray:
    """A read-only float64 copy that owns its data (`base` is None), so nothing behind it can be reached."""
    copy = np.array(array, dtype=np.float64, copy=True, order="C")
    copy.flags.writeable = False
    return copy


def validate_weights(strategy: str, weights: object, view: SessionView, max_gross: float = 1.0) -> FloatArray:
    """A strategy's answer as float64 [S], or StrategyOutputError: wrong shape, not finite, negative, above the leverage
    limit (`max_gross`, or the present gross weight where drift has brought it higher), or a symbol without a bar moved.
    """
    try:
        target = np.array(weights, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise StrategyOutputError(strategy, f"they are {type(weights).__name__}, not an array of numbers") from error
    if target.shape != (len(view.symbols),):
        raise StrategyOutputError(strategy, f"their shape is {target.shape} for {len(view.symbols)} symbols")
    for flaw, wrong in (("is not finite", ~np.isfinite(target)), ("is negative (long only)", target < 0)):
        if wrong.any():
            s = int(np.argmax(wrong))
            raise StrategyOutputError(strategy, f"the weight of {view.symbols[s]} {flaw}: {target[s]}")
    limit = max(max_gross, float(view.weights.sum()))
    if target.sum() > limit + _TOLERANCE:
        raise StrategyOutputError(strategy, f"they sum to {target.sum():.6f}, above the limit {limit:.6f}")
    moved = ~view.tradable & (target != view.weights)
    if moved.any():
        s = int(np.argmax(moved))
        raise StrategyOutputError(strategy, f"{view.symbols[s]} has no bar on {view.session} and must keep its weight")
    return target
