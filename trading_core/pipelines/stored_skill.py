"""How good the intervals and the class probabilities were that a version's forecasts were stored with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from trading_core.calibration.conformal import Conformal
from trading_core.dataset.labels import forward_returns
from trading_core.dataset.panel import Panel
from trading_core.dataset.windows import WindowSpec, horizon_scale, labels_of
from trading_core.metrics.classification import ClassSkill, OneClassSkill, class_skill
from trading_core.metrics.intervals import IntervalSkill, coverage_between, interval_skill, variance_break
from trading_core.pipelines.refs import Real
from trading_core.schema import (
    CLASS_COLUMNS,
    CLASS_TARGETS,
    INTERVAL_ALPHA,
    INTERVAL_COLUMNS,
    QUANTILE_COLUMNS,
    SESSION,
    SYMBOL,
    FloatArray,
    IntArray,
    Target,
)

if TYPE_CHECKING:
    from trading_core.registry.bundle import ModelCard


@dataclass(frozen=True, slots=True)
class VarianceBreak:
    """The first decision after the largest change of variance of what was judged, and the daily volatility on both sides
    (the root of the mean squared return). Found in hindsight, to judge by: nothing decides with it."""

    session: date
    volatility_before: float
    volatility_after: float


@dataclass(frozen=True, slots=True)
class IntervalRow:
    """Intervals of nine labels in ten over one horizon against what came; null where a figure is not defined.

    interval: "stored", whose level adapted to errors known before (ACI); "static", the same with the level as validation
    left it; "quantiles", q05 and q95 as forecast. Volatility: thirds by what was known at the decision. before_break,
    after_break: coverage of the decisions on both sides of the `VarianceBreak`; labels that overlap it count as before.
    """

    horizon: int
    interval: str
    rows: int
    coverage: Real
    low_volatility: Real
    middle_volatility: Real
    high_volatility: Real
    mean_width: Real
    interval_score: Real
    before_break: Real
    after_break: Real


@dataclass(frozen=True, slots=True)
class ClassRow:
    """The stored probabilities of one target with classes over one horizon: see metrics.classification.ClassSkill."""

    horizon: int
    target: str
    rows: int
    accuracy: Real
    balanced_accuracy: Real
    macro_f1: Real
    mcc: Real
    log_loss: Real
    brier: Real
    ece: Real
    mce: Real


@dataclass(frozen=True, slots=True)
class OneClassRow:
    """One class of a `ClassRow` against the rest: see metrics.classification.OneClassSkill."""

    horizon: int
    target: str
    name: str
    support: int
    precision: Real
    recall: Real
    f1: Real
    roc_auc: Real
    pr_auc: Real
    brier: Real
    ece: Real


def find_break(panel: Panel, rows: pl.DataFrame) -> VarianceBreak | None:
    """By the next session's returns of the `rows` (symbol, session), mean square over the symbols of each session."""
    symbol, column = panel.places(rows.select(SYMBOL, SESSION).unique(maintain_order=True))
    squares = forward_returns(panel.opens, (1,), panel.breaks)[symbol, column, 0] ** 2
    known = np.isfinite(squares)
    if not known.any():
        return None
    days, place = np.unique(column[known], return_inverse=True)
    daily = np.bincount(place, squares[known]) / np.bincount(place)
    at = variance_break(daily)
    if at is None:
        return None
    before, after = (float(np.sqrt(part.mean())) for part in (daily[:at], daily[at:]))
    return VarianceBreak(panel.sessions[days[at]].astype(object), before, after)


def stored_interval(panel: Panel, rows: pl.DataFrame) -> IntervalSkill:
    """The stored intervals of rows of one horizon, with the column "label"."""
    low, high = (rows[name].to_numpy() for name in INTERVAL_COLUMNS)
    return interval_skill(rows["label"].to_numpy(), low, high, panel.sigma[panel.places(rows)], INTERVAL_ALPHA)


def interval_rows(
    card: ModelCard, panel: Panel, rows: pl.DataFrame, found_break: VarianceBreak | None
) -> tuple[IntervalRow, ...]:
    """The intervals of every horizon. rows: of schema.FORECASTS with the column "label", the realised return."""
    made = []
    for h, horizon in enumerate(card.spec.horizons):
        part = rows.filter(pl.col("horizon") == horizon)
        symbol, column = panel.places(part)
        scale = horizon_scale(panel, card.target_scale, symbol, column, (horizon,))[:, 0]
        quantiles = (part[QUANTILE_COLUMNS[0]].to_numpy(), part[QUANTILE_COLUMNS[-1]].to_numpy())
        ends = {
            "stored": (part[INTERVAL_COLUMNS[0]].to_numpy(), part[INTERVAL_COLUMNS[1]].to_numpy()),
            "static": Conformal.from_json(card.intervals[h]).apply(*quantiles, scale),
            "quantiles": quantiles,
        }
        label, sigma = part["label"].to_numpy(), panel.sigma[symbol, column]
        cut = -1 if found_break is None else panel.column_of(found_break.session)
        for name, (low, high) in ends.items():
            sides = _sides(label, low, high, column, cut, len(panel.sessions))
            made.append(_interval_row(horizon, name, interval_skill(label, low, high, sigma, INTERVAL_ALPHA), sides))
    return tuple(made)


def _sides(
    label: FloatArray, low: FloatArray, high: FloatArray, column: IntArray, cut: int, end: int
) -> tuple[float, float]:
    """Coverage before and from column `cut` on; NaN for both where there is no break (-1)."""
    spans = ((0, cut), (cut, end)) if cut >= 0 else ((0, 0), (0, 0))
    before, after = (coverage_between(label, low, high, column, *span) for span in spans)
    return before, after


def _interval_row(horizon: int, name: str, skill: IntervalSkill, sides: tuple[float, float]) -> IntervalRow:
    return IntervalRow(
        horizon=horizon,
        interval=name,
        rows=skill.n,
        coverage=skill.coverage,
        low_volatility=skill.coverage_low_volatility,
        middle_volatility=skill.coverage_middle_volatility,
        high_volatility=skill.coverage_high_volatility,
        mean_width=skill.mean_width,
        interval_score=skill.interval_score,
        before_break=sides[0],
        after_break=sides[1],
    )


def class_rows(
    card: ModelCard, panel: Panel, rows: pl.DataFrame
) -> tuple[tuple[ClassRow, ...], tuple[OneClassRow, ...]]:
    """Every target with classes that the model has, and each of its classes. rows: as for `interval_rows`."""
    whole: list[ClassRow] = []
    single: list[OneClassRow] = []
    spec = WindowSpec(
        card.spec.encoder_length,
        card.spec.horizons,
        class_threshold=card.class_threshold,
        barrier_width=card.barrier_width,
    )
    returns = forward_returns(panel.opens, card.spec.horizons, panel.breaks)
    for target in (target for target in CLASS_TARGETS if target in card.spec.targets):
        actual = labels_of(panel, spec, target, returns)
        for h, horizon in enumerate(card.spec.horizons):
            part = rows.filter(pl.col("horizon") == horizon)
            symbol, column = panel.places(part)
            skill = class_skill(_probabilities(part, target), actual[symbol, column, h], CLASS_TARGETS[target])
            whole.append(_class_row(horizon, target, skill))
            single += [_one_class_row(horizon, target, one) for one in skill.per_class]
    return tuple(whole), tuple(single)


def _probabilities(rows: pl.DataFrame, target: Target) -> FloatArray:
    """[N,3]: the first and the last class as stored, and what they leave for the one between them."""
    first, last = (rows[name].to_numpy() for name in CLASS_COLUMNS[target])
    return np.stack([first, np.clip(1.0 - first - last, 0.0, 1.0), last], axis=1)


def _class_row(horizon: int, target: Target, skill: ClassSkill) -> ClassRow:
    return ClassRow(
        horizon=horizon,
        target=str(target),
        rows=skill.n,
        accuracy=skill.accuracy,
        balanced_accuracy=skill.balanced_accuracy,
        macro_f1=skill.macro_f1,
        mcc=skill.mcc,
        log_loss=skill.log_loss,
        brier=skill.brier,
        ece=skill.ece,
        mce=skill.mce,
    )


def _one_class_row(horizon: int, target: Target, skill: OneClassSkill) -> OneClassRow:
    return OneClassRow(horizon=horizon, target=str(target), **asdict(skill))
