"""The verdict of the evaluation report: what holds up against luck, first for all strategies together, then one by one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from trading_core.metrics.forecasts import newey_west_t
from trading_core.metrics.significance import MIN_RETURNS, newey_west_lags
from trading_core.plots import page, sortable, verdict
from trading_core.plots.evaluation_data import EvaluationReport, ForecastReport, StrategyReport
from trading_core.plots.evaluation_order import contenders, head_of, main_benchmark, random_p
from trading_core.plots.sortable import Column, Row
from trading_core.plots.verdict import NBSP, SIGNIFICANT

SPELT_OUT = 3  # strategies whose sentences stand in the open
NAMED = 4  # strategies that a sentence lists


@dataclass(frozen=True, slots=True)
class Checks:
    """What one strategy has stood up to; None: it was not tested."""

    growth: bool | None  # it grew more than the main benchmark
    sharpe: bool | None  # significant in every way that was tried
    deflated: bool | None
    fdr: bool | None
    stepm: bool | None
    random: bool | None

    @property
    def all(self) -> tuple[bool | None, ...]:
        return self.growth, self.sharpe, self.deflated, self.fdr, self.stepm, self.random

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the checks that it failed."""
        return tuple(check.name for check, passed in zip(_CHECKS, self.all, strict=True) if passed is False)

    @property
    def significant(self) -> bool:
        """Its Sharpe ratio is above zero, also once trials and other strategies are counted, where they were."""
        return self.sharpe is True and self.deflated is not False and self.fdr is not False

    @property
    def holds(self) -> bool:
        """No check failed, and the Sharpe ratio was tested."""
        return self.sharpe is True and False not in self.all


_CHECKS = (
    Column("Grew more", "CAGR above the main benchmark's"),
    Column("Sharpe above 0", "p below 5 % in every way that was tried"),
    Column("After all trials", "deflated Sharpe ratio above 95 %"),
    Column("False discoveries", "Benjamini-Hochberg adjusted p below 5 %"),
    Column("StepM", "superior to the main benchmark among all strategies"),
    Column("Beats random", "p below 5 % among random portfolios with the same turnover"),
)


def checks_of(strategy: StrategyReport) -> Checks:
    """What a strategy has stood up to."""
    sure = strategy.significance
    ways = [way.p_value for way in (sure.moments, sure.hac, sure.bootstrap) if math.isfinite(way.p_value)]
    return Checks(
        _below(-strategy.returns.active_cagr, 0.0),
        _below(max(ways, default=math.nan), SIGNIFICANT),
        _below(-sure.deflated, SIGNIFICANT - 1.0),
        _below(sure.fdr_p, SIGNIFICANT),
        sure.stepm,
        _below(_random_p(strategy), SIGNIFICANT),
    )


def section(report: EvaluationReport) -> str:
    """The section as HTML."""
    found = contenders(report)
    sentences = [sentence for sentence in (*_summary(report, found), *_forecasts(report.forecasts)) if sentence]
    parts = [f'<p class="headline">{page.escape(headline(found))}</p>']
    if sentences:
        parts.append(page.bullets(sentences, "verdict"))
    each = page.bullets([_sentences(report, s) for s in found], "each")
    if len(found) <= SPELT_OUT:
        parts.append(each)
    else:
        parts += [_folded("Check by check", _marks(found)), _folded("In words, strategy by strategy", each, apart=True)]
    return page.section("Verdict", "".join(parts), anchor="verdict")


def headline(found: Sequence[StrategyReport]) -> str:
    """One sentence on all strategies."""
    if not found:
        return "There are only benchmarks here: nothing to judge."
    if all(checks_of(s).sharpe is None for s in found):
        return f"Nothing can be said about luck: {verdict.reason_of(found[0].significance)}."
    alone, all_of_them = len(found) == 1, f"None of the {len(found)} strategies"
    if holding := [s for s in found if checks_of(s).holds]:
        return _holding(found, holding)
    significant = [s for s in found if checks_of(s).significant]
    if not significant:
        return f"{f'{found[0].label} cannot' if alone else f'{all_of_them} can'} be told from luck here."
    closest = min(significant, key=lambda s: len(checks_of(s).failed))
    failed = _and([f"“{name}”" for name in checks_of(closest).failed])
    if alone:
        return f"{closest.label} does not stand up to every check: it fails {failed}."
    return f"{all_of_them} stands up to every check. Closest is {closest.label}: it fails {failed}."


def _holding(found: Sequence[StrategyReport], holding: Sequence[StrategyReport]) -> str:
    made = min(len(_known(checks_of(s).all)) for s in holding)
    which = "every check" if made == len(_CHECKS) else f"the {made} of {len(_CHECKS)} checks that could be made"
    labels, verb = _listed([s.label for s in holding]), "stands" if len(holding) == 1 else "stand"
    if len(found) == 1:
        return f"{labels} stands up to {which}."
    return f"{len(holding)} of {len(found)} strategies {verb} up to {which}: {labels}."


def _summary(report: EvaluationReport, found: Sequence[StrategyReport]) -> list[str]:
    """What is true of all strategies together, a sentence or two each."""
    if len(found) < 2:
        return [_joint(report), _overfitting(report), _trials(report, found)]
    return [
        _growth(report, found),
        _sharpe(found),
        _trials(report, found),
        _joint(report),
        _overfitting(report),
        _random(found),
    ]


def _growth(report: EvaluationReport, found: Sequence[StrategyReport]) -> str:
    known = sorted((s for s in found if math.isfinite(s.returns.cagr)), key=lambda s: s.returns.cagr)
    if not known:
        return ""
    spread = (
        f"After costs they grew between {verdict.percent(known[0].returns.cagr)} ({known[0].label}) and "
        f"{verdict.percent(known[-1].returns.cagr)} a year ({known[-1].label})"
    )
    ahead, main = _known(checks_of(s).growth for s in known), main_benchmark(report)
    if not ahead or main is None:
        return f"{spread}."
    grew = verdict.percent(main.returns.cagr)
    return f"{spread}; {_count(sum(ahead))} of {len(ahead)} grew more than {main.label} ({grew})."


def _sharpe(found: Sequence[StrategyReport]) -> str:
    judged = [s.significance for s in found if checks_of(s).sharpe is not None]
    ways = (
        ("when returns are taken as independent", [sure.moments.p_value for sure in judged]),
        ("when autocorrelation is allowed for", [sure.hac.p_value for sure in judged]),
        ("by block bootstrap", [sure.bootstrap.p_value for sure in judged]),
    )
    said = [
        f"{_count(sum(p < SIGNIFICANT for p in values))} {name}"
        for name, values in ways
        if any(math.isfinite(p) for p in values)
    ]
    if not said:
        return ""
    chance = f"; luck alone would give about {SIGNIFICANT * len(judged):.1f}" if len(judged) > SPELT_OUT else ""
    lead = f"Taken one by one, of {len(judged)} Sharpe ratios are significantly above zero (5{NBSP}% level)"
    return f"{lead}: {_and(said)}{chance}."


def _trials(report: EvaluationReport, found: Sequence[StrategyReport]) -> str:
    """What remains once all trials are counted: deflated Sharpe ratios, or Bonferroni where there are none."""
    known = sorted((s for s in found if math.isfinite(s.significance.deflated)), key=lambda s: s.significance.deflated)
    if not known:
        p_values = [s.significance.hac.p_value for s in found if math.isfinite(s.significance.hac.p_value)]
        return verdict.trials_sentence(report.run.trials, min(p_values, default=math.nan))
    if len(found) == 1:
        return ""  # said with the strategy
    passed = sum(bool(checks_of(s).deflated) for s in known)
    fdr = _known(checks_of(s).fdr for s in found)
    also = f" With false discoveries held to 5{NBSP}%: {_count(sum(fdr))} of {len(fdr)}." if fdr else ""
    return (
        f"Counting all {report.run.trials:,} strategies tried here, a deflated Sharpe ratio above 95{NBSP}% is left to "
        f"{_count(passed)} of {len(known)}; the highest is {verdict.percent(known[-1].significance.deflated)} "
        f"({known[-1].label}).{also}"
    )


def _joint(report: EvaluationReport) -> str:
    joint = report.joint
    if joint is None:
        return ""
    if not math.isfinite(joint.spa_consistent):
        return (
            f"All strategies against {joint.against} at once cannot be tested: {joint.reason or 'too little is known'}."
        )
    judged = "can" if joint.spa_consistent < SIGNIFICANT else "cannot"
    named = f"names {_listed(joint.stepm)}" if joint.stepm else "names none"
    return (
        f"That the best of all is no better than {joint.against} {judged} be rejected once the search for it is counted "
        f"(Hansen's SPA, {verdict.p_text(joint.spa_consistent)}); StepM {named} as superior at the "
        f"{verdict.percent(joint.level, 0)} level."
    )


def _overfitting(report: EvaluationReport) -> str:
    found = report.overfitting
    if found is None:
        return ""
    if not math.isfinite(found.pbo):
        return f"The probability of backtest overfitting cannot be said: {found.reason or 'too little is known'}."
    return (
        f"Picking the best on half of the sessions, one would have picked one not above the median of the other half in "
        f"{verdict.percent(found.pbo, 0)} of splits (probability of backtest overfitting; 50{NBSP}% is picking blindly)."
    )


def _random_p(strategy: StrategyReport) -> float:
    """NaN with fewer random portfolios than it takes to be beaten by one in twenty."""
    draws = int(np.isfinite(strategy.random.sharpe).sum()) if strategy.random else 0
    return random_p(strategy) if draws >= 1 / SIGNIFICANT - 1 else math.nan


def _random(found: Sequence[StrategyReport]) -> str:
    tested = _known(checks_of(s).random for s in found)
    if not tested:
        return ""
    number = _count(sum(tested)).capitalize()
    return f"{number} of {len(tested)} did better than 95{NBSP}% of random portfolios that trade as much."


def _forecasts(forecasts: Sequence[ForecastReport]) -> list[str]:
    """One sentence for each of a few forecasts, else one for all."""
    judged = []
    for f in forecasts:
        if f.ic is not None:
            known = f.ic.ic[np.isfinite(f.ic.ic)]
            mean = float(known.mean()) if len(known) else math.nan
            judged.append((f, mean, ic_t(f), len(known)))
    if len(judged) <= SPELT_OUT:
        models = len({f.model for f in forecasts})
        return [
            (f"{f.model}: " if models > 1 else "") + verdict.skill_sentence(f.horizon, mean, t, count)
            for f, mean, t, count in judged
        ]
    better = [f"{f.model} over {f.horizon}" for f, _, t, _ in judged if t > 1.96]
    worse = sum(t < -1.96 for _, _, t, _ in judged)
    highest = max(judged, key=lambda row: -math.inf if math.isnan(row[2]) else row[2])
    return [
        f"Of {len(judged)} forecasts (model and horizon in sessions) {_count(len(better))} ranked outcomes better than chance"
        f"{f' ({_listed(better)})' if better else ''}{f', {worse} worse' if worse else ''}; the highest t is "
        f"{page.number(highest[2], 1)}, with a mean rank IC of {page.number(highest[1], 3)}."
    ]


def ic_t(forecast: ForecastReport) -> float:
    """The t of the mean rank IC, robust to labels that overlap over the horizon; NaN where too few are known."""
    if forecast.ic is None:
        return math.nan
    known = int(np.isfinite(forecast.ic.ic).sum())
    enough = known >= max(
        MIN_RETURNS, 10 * forecast.horizon
    )  # with fewer the error of a few overlapping labels is nothing
    return newey_west_t(forecast.ic.ic, max(forecast.horizon - 1, newey_west_lags(known))) if enough else math.nan


def _sentences(report: EvaluationReport, s: StrategyReport) -> str:
    sure = s.significance
    draws = s.random.sharpe[np.isfinite(s.random.sharpe)] if s.random else np.zeros(0)
    said = [
        verdict.growth_sentence(s.label, s.returns.cagr, report.benchmark, s.returns.active_cagr),
        verdict.active_sentence(report.benchmark, sure.active_p, sure.active_reason) if report.benchmark else "",
        verdict.sharpe_sentence(s.returns.sharpe, sure),
        verdict.deflated_sentence(sure.deflated, report.run.trials, sure.deflated_reason),
        verdict.random_sentence(int((draws >= s.returns.sharpe).sum()), len(draws)),
    ]
    return " ".join(sentence for sentence in said if sentence)


def _marks(found: Sequence[StrategyReport]) -> str:
    marks = {None: "–", True: '<span class="yes">✓ yes</span>', False: '<span class="no">✗ no</span>'}
    ordered = sorted(found, key=lambda s: -sum(bool(mark) for mark in checks_of(s).all))
    rows = [Row(head_of(s), [marks[mark] for mark in checks_of(s).all]) for s in ordered]
    return sortable.table("What each strategy stands up to", Column("Strategy", "sort by name"), _CHECKS, rows)


def _folded(title: str, content: str, apart: bool = False) -> str:
    """apart: so long that it stays folded up on paper."""
    kind = ' class="apart"' if apart else ""
    return f"<details{kind}><summary>{page.escape(title)}</summary>{content}</details>"


def _known(marks: Iterable[bool | None]) -> list[bool]:
    return [mark for mark in marks if mark is not None]


def _below(value: float, limit: float) -> bool | None:
    return value < limit if math.isfinite(value) else None


def _count(number: int) -> str:
    return "none" if number == 0 else str(number)


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _listed(names: Sequence[str]) -> str:
    if len(names) <= NAMED:
        return _and(names)
    return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"
