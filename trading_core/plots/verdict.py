"""The verdict in plain words, made of the numbers alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trading_core.plots.evaluation_data import SharpeWay, SignificanceFigures

SIGNIFICANT = 0.05
NBSP = "\u00a0"  # keeps a number and its unit on one line


def percent(value: float, digits: int = 1) -> str:
    """0.1234 -> "12.3 %"; NaN -> "not defined"."""
    return "not defined" if not math.isfinite(value) else f"{value * 100:.{digits}f}{NBSP}%".replace("-", "−")


def p_text(p_value: float) -> str:
    """A p-value as written in sentences: "p = 0.18", "p < 0.001" (with no-break spaces)."""
    if not math.isfinite(p_value):
        return "p not defined"
    text = "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}" if p_value < 0.1 else f"p = {p_value:.2f}"
    return text.replace(" ", NBSP)


def growth_sentence(name: str, cagr: float, benchmark: str, active_cagr: float) -> str:
    """How much the strategy grew a year, and how much more or less than the benchmark (fractions)."""
    if not math.isfinite(active_cagr):
        return f"{name} grew {percent(cagr)} a year after costs."
    points = f"{abs(active_cagr) * 100:.1f} percentage points a year"
    compared = f"{points} {'more' if active_cagr > 0 else 'less'} than" if abs(active_cagr) >= 5e-4 else "the same as"
    return f"{name} grew {percent(cagr)} a year after costs, {compared} {benchmark} ({percent(cagr - active_cagr)})."


def sharpe_sentence(sharpe: float, sure: SignificanceFigures) -> str:
    """Whether the Sharpe ratio (a year) can be told from zero, by each of the three ways."""
    named = (("independent returns", sure.moments), ("autocorrelated", sure.hac), ("bootstrap", sure.bootstrap))
    known = [(name, way) for name, way in named if math.isfinite(way.p_value)]
    if not known:
        return f"Whether its Sharpe ratio differs from zero cannot be said: {reason_of(sure)}."
    error = next(
        (way.standard_error for way in (sure.hac, *(w for _, w in known)) if math.isfinite(way.standard_error)), 0.0
    )
    said = ", ".join(f"{p_text(way.p_value)} ({name})" for name, way in known)
    shown = f"Its Sharpe ratio is {_signed(sharpe)} ± {error:.2f}"
    if sure.cash_rate and math.isfinite(sure.tested_sharpe):
        shown = f"Its Sharpe ratio is {_signed(sharpe)}, beyond cash {_signed(sure.tested_sharpe)} ± {error:.2f}"
    return f"{shown}; against zero {said}: {_judged(known)}."


def _judged(known: Sequence[tuple[str, SharpeWay]]) -> str:
    passed = sum(way.p_value < SIGNIFICANT for _, way in known)
    if passed == 0:
        return f"not significant at the 5{NBSP}% level"
    if passed == len(known):
        return f"significant at the 5{NBSP}% level" + (" in all three ways" if passed == 3 else "")
    return f"significant at the 5{NBSP}% level in {passed} of {len(known)} ways only"


def reason_of(sure: SignificanceFigures) -> str:
    """Why there is no p-value of the Sharpe ratio."""
    reasons = (way.reason for way in (sure.hac, sure.moments, sure.bootstrap))
    return next((reason for reason in reasons if reason), "it was not tested")


def active_sentence(benchmark: str, p_value: float, reason: str = "") -> str:
    """Whether the difference to the benchmark can be told from luck. p_value: one-sided, it does no better."""
    if not math.isfinite(p_value):
        return f"Whether it differs from {benchmark} cannot be said: {reason or 'it was not tested'}."
    if p_value < SIGNIFICANT:
        return f"That it does better than {benchmark} is hard to put down to luck ({p_text(p_value)})."
    if p_value > 1 - SIGNIFICANT:
        return f"That it does worse than {benchmark} is hard to put down to luck ({p_text(1 - p_value)})."
    return f"The difference to {benchmark} cannot be told from luck ({p_text(p_value)} for doing better)."


def deflated_sentence(deflated: float, trials: int, reason: str = "") -> str:
    """What the number of things tried leaves of the Sharpe ratio. deflated: the deflated Sharpe ratio, a probability."""
    if not math.isfinite(deflated):
        return f"What {trials:,} trials leave of it cannot be said: {reason}." if reason else ""
    judged = "enough" if deflated > 1 - SIGNIFICANT else f"95{NBSP}% would be needed"
    return f"After {trials:,} trials the probability that it is above what luck alone reaches is {percent(deflated)}: {judged}."


def random_sentence(as_good: int, draws: int) -> str:
    """How many random portfolios with the same turnover did at least as well."""
    if draws <= 0:
        return ""
    return f"{as_good:,} of {draws:,} random portfolios with the same turnover did at least as well."


def trials_sentence(trials: int, best_p: float) -> str:
    """What the number of things tried does to the smallest p-value (Bonferroni)."""
    if trials <= 1 or not math.isfinite(best_p):
        return ""
    corrected = min(best_p * trials, 1.0)
    survives = "still significant" if corrected < SIGNIFICANT else "not significant"
    return (
        f"{trials} strategies have been tried on this market. The smallest p-value, "
        f"{best_p:.2g}, corrected for that many tries (Bonferroni) is {corrected:.2g}: {survives}."
    )


def skill_sentence(horizon: int, mean_ic: float, t_statistic: float, sessions: int) -> str:
    """Whether the forecasts rank tomorrow's winners above the losers."""
    unit = "session" if horizon == 1 else "sessions"
    if not math.isfinite(t_statistic):
        return f"The forecasts over {horizon} {unit} cannot be judged: too few sessions with an outcome ({sessions})."
    judged = "ranked outcomes better than chance" if t_statistic > 1.96 else "cannot be told from chance"
    judged = "ranked outcomes worse than chance" if t_statistic < -1.96 else judged
    return (
        f"The forecasts over {horizon} {unit} {judged}: mean rank IC {_signed(mean_ic, 3)} "
        f"over {sessions} sessions, t{NBSP}={NBSP}{_signed(t_statistic, 1)}."
    )


def direction_sentence(
    horizon: int, brier: float, reference_brier: float, share: float, t_statistic: float, sessions: int
) -> str:
    """Whether probabilities of a rise say more than the share of rises that was known beforehand."""
    unit = "session" if horizon == 1 else "sessions"
    if not math.isfinite(t_statistic) and abs(brier - reference_brier) < 1e-6:
        return f"The probability of a rise over {horizon} {unit} is always {percent(share)}, the share of rises in training."
    if not math.isfinite(t_statistic):
        return f"The probabilities of a rise over {horizon} {unit} cannot be judged: too few sessions ({sessions})."
    judged = "came closer to what happened than" if t_statistic > 1.96 else "cannot be told from"
    judged = "were further from what happened than" if t_statistic < -1.96 else judged
    return (
        f"The probabilities of a rise over {horizon} {unit}, before calibration, {judged} always saying "
        f"{percent(share)}, the share of rises in training: Brier score {brier:.4f} beside {reference_brier:.4f}, "
        f"t{NBSP}={NBSP}{_signed(t_statistic, 1)}."
    )


def _signed(value: float, digits: int = 2) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")  # + 0.0: no minus before a zero
