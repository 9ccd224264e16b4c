"""Who comes first in the evaluation report, what each strategy is called in a table, and what it paid a year."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trading_core.plots import page
from trading_core.plots.evaluation_data import EvaluationReport, StrategyReport
from trading_core.schema import FloatArray

SHOWN_FIRST = 5  # strategies whose curves are drawn before the reader chooses others


def ranked(strategies: Sequence[StrategyReport]) -> list[StrategyReport]:
    """By Sharpe ratio, highest first; those without one last, by label."""

    def key(strategy: StrategyReport) -> tuple[bool, float, str]:
        sharpe = strategy.returns.sharpe
        unknown = not math.isfinite(sharpe)
        return unknown, 0.0 if unknown else -sharpe, strategy.label

    return sorted(strategies, key=key)


def contenders(report: EvaluationReport) -> list[StrategyReport]:
    """The strategies that are no benchmarks, best first."""
    return ranked([s for s in report.strategies if not s.benchmark])


def benchmarks(report: EvaluationReport) -> list[StrategyReport]:
    """The benchmarks, the main one first."""
    others = ranked([s for s in report.strategies if s.benchmark])
    return sorted(others, key=lambda s: s.label != report.benchmark)


def main_benchmark(report: EvaluationReport) -> StrategyReport | None:
    """What the others are measured against; None where there is none."""
    return next((s for s in report.strategies if s.label == report.benchmark), None)


def head_of(strategy: StrategyReport) -> str:
    """The name of a row, as HTML."""
    return name_html(strategy.name, strategy.model, strategy.benchmark)


def name_html(name: str, model: str, benchmark: bool = False) -> str:
    """A strategy's name with its model, or the mark of a benchmark, in a lighter shade."""
    said = model or ("benchmark" if benchmark else "")
    return f'{page.escape(name)} <span class="of">{page.escape(said)}</span>' if said else page.escape(name)


def heads_by_label(report: EvaluationReport) -> dict[str, str]:
    """The name of a row by label, best strategy first, for tables that know their rows by label only."""
    return {s.label: head_of(s) for s in ranked(report.strategies)}


def random_p(strategy: StrategyReport) -> float:
    """The p-value among random portfolios; NaN where none was drawn, or none of them has a Sharpe ratio."""
    drawn = strategy.random
    return drawn.p_value if drawn is not None and np.isfinite(drawn.sharpe).any() else math.nan


@dataclass(frozen=True, slots=True)
class CostsAYear:
    """What was paid a year, as a fraction of equity (mean of the session's costs over the equity of the session before)."""

    commission: float
    spread: float
    slippage: float
    impact: float
    borrow: float
    interest: float  # earned

    @property
    def trading(self) -> float:
        """All that trading and borrowing cost; NaN where a part is not known."""
        return self.commission + self.spread + self.slippage + self.impact + self.borrow


def costs_a_year(strategy: StrategyReport, per_year: int) -> CostsAYear:
    """The costs of a strategy a year, by kind."""
    daily = strategy.daily

    def rate(paid: FloatArray) -> float:
        if len(strategy.equity) < 2:
            return math.nan
        return float(np.mean(paid[1:] / strategy.equity[:-1])) * per_year

    kinds = (daily.commission, daily.spread, daily.slippage, daily.impact, daily.borrow, daily.interest)
    return CostsAYear(*(rate(paid) for paid in kinds))
