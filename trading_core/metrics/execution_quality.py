"""How well orders were executed, and what came of the forecasts behind them. Pure functions on arrays, nothing annualised.

One row per order (or fill): `side` is +1 for a buy and -1 for a sell, `quantity` is shares and never negative, prices are
currency per share, all in the share basis of the execution (restate a price from before a split by the caller). Costs are
positive: paid more, or received less.

The cost of a trade against the price it was decided at is its implementation shortfall (Perold 1988, "The implementation
shortfall: paper versus reality"); split by the price when trading began into delay and execution (Wagner & Edwards 1993,
"Best execution"). What was ordered and never filled has no price and is not counted here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trading_core.errors import WrongTypeError
from trading_core.metrics.forecasts import coverage, directional_accuracy, rank_ic_per_date
from trading_core.schema import BoolArray, FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Slippage:
    """Executions against a reference price. NaN where nothing was executed or the reference is not known.

    bps: [N] side * (price / reference - 1) * 1e4. cash: [N] side * quantity * (price - reference), currency.
    total_cash: the sum of the known rows; total_bps: over their notional at the reference, so large rows weigh more; both
    NaN without such a row. unknown: executed rows without a reference price.
    """

    bps: FloatArray
    cash: FloatArray
    total_bps: float
    total_cash: float
    unknown: int


@dataclass(frozen=True, slots=True)
class Shortfall:
    """The cost of all executions, currency, by where it arose. `delay` and `execution` leave out `unknown` rows: executed
    ones that lack the price of the decision or of the open.

    delay: from the decision's price to the open, nobody's fee but real. execution: from the open to the price paid, which
    holds spread, slippage and impact. notional: sum of quantity * price of all executions.
    """

    delay: float
    execution: float
    commission: float
    notional: float
    unknown: int

    @property
    def costs(self) -> float:
        """Execution and commission: what trading itself took."""
        return self.execution + self.commission

    @property
    def total(self) -> float:
        """Against a trade at the decision's price that costs nothing."""
        return self.delay + self.execution + self.commission


@dataclass(frozen=True, slots=True, eq=False)
class ForecastOutcome:
    """Forecasts of one decision beside what happened; NaN where too little is known. N symbols.

    error: [N] realised - forecast. rank_ic: Spearman's correlation of score and realised return over `pairs` symbols.
    right_direction: share of forecasts with the sign of the return. covered: share of returns within [low, high].
    held: positions whose return is known. hit_rate: share of them that earned (weight and return have one sign; a return
    of exactly 0 is left out). mean_held: their mean return, that of a short reversed, each position counting the same;
    mean_all: that of all symbols with a score.
    """

    error: FloatArray
    rank_ic: float
    pairs: int
    right_direction: float
    covered: float
    held: int
    hit_rate: float
    mean_held: float
    mean_all: float


def slippage(side: FloatArray, quantity: FloatArray, price: FloatArray, reference: FloatArray) -> Slippage:
    """Executions at `price` against `reference` (NaN: not known). All [N].

    Errors: WrongTypeError for different lengths, another side than +1 and -1, a quantity below 0 or not finite, an
    executed row without a price above 0.
    """
    _check(side, quantity, price, {"reference": reference})
    known = (quantity > 0.0) & _is_price(reference)
    bps, cash = np.full(len(side), np.nan), np.full(len(side), np.nan)
    bps[known] = side[known] * (price[known] / reference[known] - 1.0) * 1e4
    cash[known] = side[known] * quantity[known] * (price[known] - reference[known])
    notional = float(np.sum(quantity[known] * reference[known]))
    total = float(np.sum(cash[known])) if known.any() else float("nan")
    total_bps = total / notional * 1e4 if notional > 0.0 else float("nan")
    return Slippage(bps, cash, total_bps, total, int(np.sum((quantity > 0.0) & ~known)))


def shortfall(
    side: FloatArray,
    quantity: FloatArray,
    price: FloatArray,
    decision: FloatArray,
    opened: FloatArray,
    commission: FloatArray,
) -> Shortfall:
    """The cost of executions against the decision's price, by part. All [N]; NaN in `decision`, `opened`: not known.

    Errors: those of `slippage`; WrongTypeError for a commission that is not finite.
    """
    _check(side, quantity, price, {"decision": decision, "opened": opened, "commission": commission})
    if not np.isfinite(commission).all():
        raise WrongTypeError("The executions", "commission", "not finite", "finite numbers")
    done: BoolArray = quantity > 0.0
    known = done & _is_price(decision) & _is_price(opened)
    signed = side[known] * quantity[known]
    return Shortfall(
        delay=float(np.sum(signed * (opened[known] - decision[known]))),
        execution=float(np.sum(signed * (price[known] - opened[known]))),
        commission=float(np.sum(commission)),
        notional=float(np.sum(quantity[done] * price[done])),
        unknown=int(np.sum(done & ~known)),
    )


def log_returns(start: FloatArray, end: FloatArray) -> FloatArray:
    """[N] log(end / start); NaN where either is no price above 0. Prices in one basis, dividends reinvested by the caller."""
    _same_lengths("The prices", len(start), {"end": end})
    known = _is_price(start) & _is_price(end)
    returns = np.full(len(start), np.nan)
    returns[known] = np.log(end[known] / start[known])
    return returns


def forecast_outcome(
    score: FloatArray,
    forecast: FloatArray,
    low: FloatArray,
    high: FloatArray,
    realised: FloatArray,
    weight: FloatArray,
) -> ForecastOutcome:
    """One decision's forecasts beside the returns since. All [N], NaN where not known; weight: of equity, 0: not held.

    forecast: the median return, log; low, high: its interval; realised: log returns. Errors: WrongTypeError for
    different lengths.
    """
    columns = {"forecast": forecast, "low": low, "high": high, "realised": realised, "weight": weight}
    _same_lengths("The forecasts", len(score), columns)
    ranked = rank_ic_per_date(score, realised, np.zeros(len(score), dtype=np.int64))
    known = np.isfinite(realised)
    held = known & np.isfinite(weight) & (weight != 0.0)
    earned = np.sign(weight[held]) * realised[held]
    return ForecastOutcome(
        error=realised - forecast,
        rank_ic=float(ranked.values[0]) if len(ranked.values) else float("nan"),
        pairs=int(ranked.pairs.sum()),
        right_direction=directional_accuracy(realised, forecast),
        covered=coverage(realised, low, high),
        held=int(held.sum()),
        hit_rate=_mean((earned[earned != 0.0] > 0.0).astype(np.float64)),
        mean_held=_mean(earned),
        mean_all=_mean(realised[known & np.isfinite(score)]),
    )


def _check(side: FloatArray, quantity: FloatArray, price: FloatArray, others: Mapping[str, FloatArray]) -> None:
    where = "The executions"
    _same_lengths(where, len(side), {"quantity": quantity, "price": price, **others})
    if not np.isin(side, (-1.0, 1.0)).all():
        raise WrongTypeError(where, "side", "neither +1 nor -1 somewhere", "+1 for a buy, -1 for a sell")
    if not (np.isfinite(quantity) & (quantity >= 0.0)).all():
        raise WrongTypeError(where, "quantity", "below 0 or not finite somewhere", "shares, at least 0")
    if not _is_price(price)[quantity > 0.0].all():
        raise WrongTypeError(where, "price", "no price above 0 for an executed row", "a finite number above 0")


def _is_price(values: FloatArray) -> BoolArray:
    return np.logical_and(np.isfinite(values), values > 0.0)


def _same_lengths(where: str, count: int, columns: Mapping[str, FloatArray]) -> None:
    for name, values in columns.items():
        if len(values) != count:
            raise WrongTypeError(where, name, f"{len(values)} long", f"{count}, as the other columns")


def _mean(values: FloatArray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
