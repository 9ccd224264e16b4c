"""From a probability to a decision: the threshold above which a symbol is held, searched on validation and frozen."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Literal, get_args

import numpy as np

from trading_core.costs import CostModel
from trading_core.errors import InvalidConfigError, UnknownNameError
from trading_core.metrics.classification import confusion, f1, precision, recall
from trading_core.metrics.returns import SESSIONS_PER_YEAR, sharpe_annual
from trading_core.schema import BoolArray, FloatArray, IntArray

Objective = Literal["f1", "net_sharpe_annual"]
CANDIDATES = 101
FALLBACK = 0.5  # where no threshold has a value
_SAME = 12  # decimals: values that agree this far are equal, so that rounding never chooses


@dataclass(frozen=True, slots=True, eq=False)
class LongFlat:
    """Rows [N] to decide on: one per symbol and decision date.

    p_up: calibrated probability. up: 1.0 where the label was positive, 0.0 where not. next_return: log return from the
    open at which the decision trades to the next session's open (a label of horizon 1), whatever the horizon of p_up.
    date_index: integers that order the dates, taken as consecutive sessions; symbol: integers.
    """

    p_up: FloatArray
    up: FloatArray
    next_return: FloatArray
    date_index: IntArray
    symbol: IntArray


@dataclass(frozen=True, slots=True)
class ThresholdRow:
    """What holding every symbol with p_up >= threshold would have been like.

    n: rows held. precision, recall, f1: of "up". gross_mean, net_mean: simple return per session before and after costs,
    of capital cut into equal slots, one for each symbol with a row on the date. net_sharpe_annual: of the net returns.
    turnover: mean one-way turnover per session (half of buys + sells, over capital). NaN where not defined.
    """

    threshold: float
    n: int
    precision: float
    recall: float
    f1: float
    gross_mean: float
    net_mean: float
    net_sharpe_annual: float
    turnover: float


@dataclass(frozen=True, slots=True)
class ThresholdChoice:
    """The chosen threshold, what it was chosen by and at which costs, and the whole table, ascending by threshold.

    value: of the objective at the threshold; NaN where no row was eligible, and the threshold is one half."""

    objective: Objective
    threshold: float
    value: float
    cost_bps: float  # of one side of a trade
    rows: tuple[ThresholdRow, ...]

    def column(self, name: str) -> FloatArray:
        """[rows] one column of the table. Errors: UnknownNameError."""
        names = tuple(field.name for field in fields(ThresholdRow))
        if name not in names:
            raise UnknownNameError("column of the threshold table", name, names)
        return np.array([getattr(row, name) for row in self.rows], dtype=np.float64)

    def to_json(self) -> str:
        """JSON (null for NaN) that `from_json` turns into an equal object."""
        raw = asdict(self)
        raw["value"] = _or_none(self.value)
        raw["rows"] = [{name: _or_none(value) for name, value in row.items()} for row in raw["rows"]]
        return json.dumps({"kind": "threshold", **raw}, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> ThresholdChoice:
        """The object of `to_json`. Errors: InvalidConfigError."""
        try:
            raw = json.loads(text)
            rows = tuple(_row(row) for row in raw["rows"])
            objective, threshold = raw["objective"], float(raw["threshold"])
            made = cls(objective, threshold, _or_nan(raw["value"]), float(raw["cost_bps"]), rows)
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise InvalidConfigError("A stored threshold", [f"{type(error).__name__}: {error}"]) from error
        if objective not in get_args(Objective) or not 0.0 <= threshold <= 1.0:
            raise InvalidConfigError(
                "A stored threshold", [f"{objective} at {threshold}: {_OBJECTIVES} at a number in [0, 1]"]
            )
        return made


_OBJECTIVES = " or ".join(get_args(Objective))


def _row(raw: dict[str, float | None]) -> ThresholdRow:
    value = {field.name: _or_nan(raw[field.name]) for field in fields(ThresholdRow)}
    return ThresholdRow(
        threshold=value["threshold"],
        n=int(value["n"]),
        precision=value["precision"],
        recall=value["recall"],
        f1=value["f1"],
        gross_mean=value["gross_mean"],
        net_mean=value["net_mean"],
        net_sharpe_annual=value["net_sharpe_annual"],
        turnover=value["turnover"],
    )


def search_threshold(
    data: LongFlat,
    objective: Objective,
    costs: CostModel,
    thresholds: Sequence[float] | None = None,
    min_share: float = 0.05,
    per_year: int = SESSIONS_PER_YEAR,
) -> ThresholdChoice:
    """The threshold with the highest F1 or net Sharpe ratio among those that hold at least `min_share` of the rows.

    thresholds: default `candidate_thresholds(p_up)`. Of equal values the threshold nearest to one half wins, then the
    lower one. The maximum over a table is flattered by the search: it is chosen on validation and judged elsewhere.
    Errors: InvalidConfigError, UnknownNameError for another objective.
    """
    if objective not in get_args(Objective):
        raise UnknownNameError("objective of a threshold", objective, get_args(Objective))
    if not 0.0 <= min_share < 1.0:
        raise InvalidConfigError("The threshold search", [f"min_share: {min_share} is not allowed; it lies in [0, 1)"])
    rows = threshold_table(data, costs, candidate_thresholds(data.p_up) if thresholds is None else thresholds, per_year)
    least = min_share * np.isfinite(data.p_up).sum()
    ranked = [
        (-round(getattr(row, objective), _SAME), round(abs(row.threshold - 0.5), _SAME), row.threshold)
        for row in rows
        if row.n >= least and math.isfinite(getattr(row, objective))
    ]
    threshold = min(ranked)[2] if ranked else FALLBACK
    value = next((getattr(row, objective) for row in rows if ranked and row.threshold == threshold), math.nan)
    return ThresholdChoice(objective, threshold, value, costs.total_bps, rows)


def candidate_thresholds(p_up: FloatArray, count: int = CANDIDATES) -> tuple[float, ...]:
    """Distinct values of p_up [N] at `count` equally spaced ranks, ascending: calibrated probabilities crowd about one
    half, and a fixed grid would miss most of them. Empty when nothing is finite."""
    known = np.sort(np.asarray(p_up, dtype=np.float64)[np.isfinite(p_up)])
    if not len(known):
        return ()
    return tuple(np.unique(known[np.linspace(0, len(known) - 1, count).round().astype(np.int64)]).tolist())


def threshold_table(
    data: LongFlat, costs: CostModel, thresholds: Sequence[float], per_year: int = SESSIONS_PER_YEAR
) -> tuple[ThresholdRow, ...]:
    """One row per distinct threshold, ascending. A row of `data` without p_up is nothing to decide on; one without
    `up` counts for the returns only, one without `next_return` for the classification only.

    Every date's weights are 1 / (its rows) or 0; drift between sessions is not traded back in this estimate, what a
    change of weights trades costs `costs.total_bps` of its notional, the first purchase included and a last sale not.
    Errors: InvalidConfigError for a threshold outside [0, 1].
    """
    levels = np.unique(np.asarray(thresholds, dtype=np.float64))
    if len(levels) and not (levels[0] >= 0.0 and levels[-1] <= 1.0):
        raise InvalidConfigError("The threshold search", [f"thresholds from {levels[0]} to {levels[-1]}: give [0, 1]"])
    slots, returns, place = _slots(data)
    known = np.isfinite(data.p_up)
    rows = []
    for level in levels.tolist():
        long: BoolArray = known & (data.p_up >= level)
        counts = confusion(np.where(known, data.up, np.nan), long.astype(np.float64))
        weights = np.zeros(slots.size)
        weights[place[long & (place >= 0)]] = 1.0
        gross, traded = _returns(weights.reshape(slots.shape) * slots, returns)
        net = gross - traded * costs.total_bps * 1e-4
        rows.append(
            ThresholdRow(
                threshold=level,
                n=int(long.sum()),
                precision=float(precision(counts)[1]),
                recall=float(recall(counts)[1]),
                f1=float(f1(counts)[1]),
                gross_mean=_mean(gross),
                net_mean=_mean(net),
                net_sharpe_annual=sharpe_annual(net, per_year),
                turnover=_mean(traded) / 2.0,
            )
        )
    return tuple(rows)


def _slots(data: LongFlat) -> tuple[FloatArray, FloatArray, IntArray]:
    """The weight of a held symbol [D, S], its simple return [D, S] (0 where there is none), and each row's flat position
    in them [N], -1 for a row without a return or probability."""
    tradable = np.isfinite(data.p_up) & np.isfinite(data.next_return)
    dates, d = np.unique(data.date_index[tradable], return_inverse=True)
    symbols, s = np.unique(data.symbol[tradable], return_inverse=True)
    returns = np.zeros((len(dates), len(symbols)))
    returns[d, s] = np.expm1(data.next_return[tradable])
    slots = np.zeros_like(returns)
    slots[d, s] = 1.0 / np.bincount(d, minlength=len(dates))[d]
    place = np.full(len(data.p_up), -1, dtype=np.int64)
    place[tradable] = d * len(symbols) + s
    return slots, returns, place


def _returns(weights: FloatArray, returns: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Per date [D]: the gross return of the weights [D, S], and buys + sells over capital."""
    traded = np.abs(np.diff(weights, axis=0, prepend=0.0)).sum(axis=1)  # [D, S] -> [D]
    return (weights * returns).sum(axis=1), traded


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else float(value)
