"""What a strategy sees (`SessionView`) and what it must answer (target weights).

A view holds copies of the rows up to D's close and nothing else, read-only: a strategy cannot reach the future through
it, not even through the base of an array.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from types import MappingProxyType
from typing import Protocol

import numpy as np
import numpy.typing as npt

from trading_core.errors import StrategyOutputError
from trading_core.portfolio.kernels.allocation import allocate
from trading_core.portfolio.kernels.types import Allocation
from trading_core.schema import BoolArray, FloatArray

_TOLERANCE = 1e-9  # on the sum of weights: ten times 0.1 may exceed 1 by float noise
_NO_COLUMNS: Mapping[str, FloatArray] = MappingProxyType({})


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
    weights: FloatArray  # [S] present positions at D's close, as fractions of equity; below 0 for shorts
    cash_weight: float  # the rest of equity
    columns: Mapping[str, FloatArray] = field(default_factory=lambda: _NO_COLUMNS)  # [L, S] of each declared feature

    @property
    def tradable(self) -> BoolArray:
        """[S] whether the symbol has a bar at D."""
        return np.isfinite(self.closes[-1]) & (self.closes[-1] > 0)


class Strategy(Protocol):
    """What a user's own strategy is, and may be written on: `class Mine(Strategy)` with a `lookback` and `decide`.

    Stateless: everything comes from the view, so replaying a session gives the same answer.

    `lookback`: rows of closes, volumes and columns it wants, at least 1. `needs_forecasts`: whether it ranks by forecasts;
    then what it holds without one stays. What any strategy holds without a bar at D stays (`validate_weights`).
    `columns`: the features it reads. `short`: whether its weights may be negative.
    """

    lookback: int
    needs_forecasts: bool
    columns: tuple[str, ...] = ()
    short: bool = False

    def decide(self, view: SessionView) -> FloatArray:
        """Target weights [S] as fractions of equity; the present weight unchanged (same bits) means "leave it"."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class SignalInputs:
    """What signals are made of: T sessions of which the last R are decided on. Row t may use rows up to t alone.

    closes and volumes are as traded; `split_factor[t]` is the product of the split ratios up to t, so that
    closes[i] * (split_factor[i] / split_factor[t]) is the close of i in the basis of t.
    """

    symbols: tuple[str, ...]
    days: tuple[date, ...]  # R, the sessions decided on
    ordinals: tuple[int, ...]  # R, of the decisions
    score: FloatArray  # [R, S]
    quantiles: FloatArray  # [R, S, Q]
    p_up: FloatArray  # [R, S]
    closes: FloatArray  # [T, S]
    volumes: FloatArray  # [T, S]
    split_factor: FloatArray  # [T, S]
    columns: Mapping[str, FloatArray]  # [T, S] of each declared feature

    @property
    def first(self) -> int:
        """The row of the first decision."""
        return len(self.closes) - len(self.score)


class SignalStrategy:
    """A strategy that is a row of signals and a rule of allocation: the form of all built-in ones.

    `signals` is written once, for many rows, and is what a whole panel is decided with; a single view is a panel of one
    decision, whose rows end there. So both ways have the same bits, and the contract tests hold every member to it.
    """

    lookback: int = 1
    needs_forecasts: bool = True
    columns: tuple[str, ...] = ()
    short: bool = False
    allocation: Allocation

    def signals(self, inputs: SignalInputs) -> FloatArray:
        """[R, S] the signals of each decision, as the rule of `allocation` reads them; NaN: not known."""
        raise NotImplementedError

    def decide(self, view: SessionView) -> FloatArray:
        signals = np.asarray(self.signals(_inputs_of(view)))
        if signals.shape != (1, len(view.symbols)):
            expected = (1, len(view.symbols))
            raise StrategyOutputError(
                type(self).__name__, f"its signals have shape {signals.shape}; expected {expected}"
            )
        signal = signals[-1]
        weights = np.array(view.weights)
        return allocate(self.allocation, np.array(signal, dtype=np.float64), view.tradable, weights, view.ordinal)


def _inputs_of(view: SessionView) -> SignalInputs:
    return SignalInputs(
        view.symbols,
        (view.session,),
        (view.ordinal,),
        view.score[None],
        view.quantiles[None],
        view.p_up[None],
        view.closes,
        view.volumes,
        np.ones_like(view.closes),
        view.columns,
    )


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
    columns: Mapping[str, FloatArray] = _NO_COLUMNS,
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
        MappingProxyType({name: _sealed(values) for name, values in columns.items()}),
    )


def _sealed(array: npt.ArrayLike) -> FloatArray:
    """A read-only float64 copy that owns its data (`base` is None), so nothing behind it can be reached."""
    copy = np.array(array, dtype=np.float64, copy=True, order="C")
    copy.flags.writeable = False
    return copy


def validate_weights(
    strategy: str, weights: object, view: SessionView, max_gross: float = 1.0, short: bool = False
) -> FloatArray:
    """A strategy's answer as float64 [S], or StrategyOutputError: wrong shape, not finite, negative where it may not be
    `short`, above the leverage limit (`max_gross`, or the present gross weight where drift has brought it higher), or a
    symbol without a bar moved.
    """
    try:
        target = np.array(weights, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise StrategyOutputError(strategy, f"they are {type(weights).__name__}, not an array of numbers") from error
    if target.shape != (len(view.symbols),):
        raise StrategyOutputError(strategy, f"their shape is {target.shape} for {len(view.symbols)} symbols")
    negative = (target < 0) & (not short)
    for flaw, wrong in (("is not finite", ~np.isfinite(target)), ("is negative (long only)", negative)):
        if wrong.any():
            s = int(np.argmax(wrong))
            raise StrategyOutputError(strategy, f"the weight of {view.symbols[s]} {flaw}: {target[s]}")
    limit, gross = max(max_gross, float(np.abs(view.weights).sum())), float(np.abs(target).sum())
    if gross > limit + _TOLERANCE:
        what = "they sum to" if not short else "their absolute values sum to"
        raise StrategyOutputError(strategy, f"{what} {gross:.6f}, above the limit {limit:.6f}")
    moved = ~view.tradable & (target != view.weights)
    if moved.any():
        s = int(np.argmax(moved))
        raise StrategyOutputError(strategy, f"{view.symbols[s]} has no bar on {view.session} and must keep its weight")
    return target
