"""The report of one training: how it went, how good its forecasts are, and what it looked at, as one HTML file.

All numbers are of the validation part, which also stopped the training and calibrated it; the page says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date

import numpy as np

from trading_core.metrics.classification import BinarySkill, ClassSkill, Reliability
from trading_core.metrics.forecasts import ForecastSkill
from trading_core.metrics.intervals import IntervalSkill
from trading_core.plots import classes, page, verdict
from trading_core.plots.calibration import reliability_figure, threshold_figure
from trading_core.plots.forecasts import Fan, fan_chart
from trading_core.plots.interpretation import attention_figure, importance_figure
from trading_core.plots.training import training_figure
from trading_core.schema import FloatArray

MEMBERS_SHOWN = 8  # of an ensemble; the others are in the CSV


@dataclass(frozen=True, slots=True, eq=False)
class MemberCurves:
    """The training of one network (`member`, from 1) over its epochs 1 .. N; arrays [N]. metrics: higher is better."""

    member: int
    losses: Mapping[str, FloatArray]
    metrics: Mapping[str, FloatArray]
    learning_rate: FloatArray  # all zero: solved in closed form
    best_epoch: int


@dataclass(frozen=True, slots=True, eq=False)
class ThresholdCurves:
    """One search for a threshold on p_up. curves: [K] over `threshold` [K], the one that was searched first."""

    objective: str  # in words
    threshold: FloatArray
    curves: Mapping[str, FloatArray]
    chosen: float
    value: float  # of the objective at the chosen threshold
    cost_bps: float  # of one side of a trade


@dataclass(frozen=True, slots=True)
class AgainstShare:
    """Raw probabilities of a rise beside always saying `share`, the share of rises in training. brier, reference: the
    Brier score of each; t_stat: of the mean difference per session, positive where the model is better."""

    share: float
    brier: float
    reference: float
    t_stat: float
    sessions: int


@dataclass(frozen=True, slots=True, eq=False)
class HorizonReport:
    """All that is said of one horizon (sessions). reliability and intervals: by name, before and after their fit on the
    validation part; so are the probabilities of each target with classes. calibrated: at the F1 threshold; raw: at one half.
    """

    horizon: int
    skill: ForecastSkill
    against_share: AgainstShare
    raw: BinarySkill
    calibrated: BinarySkill
    reliability: Mapping[str, Reliability]
    thresholds: tuple[ThresholdCurves, ...]
    intervals: Mapping[str, IntervalSkill]
    classes: Mapping[str, Mapping[str, ClassSkill]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Weights [C] of the `names` C, of at least 0."""

    title: str
    names: tuple[str, ...]
    weights: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Looked:
    """What the network looked at, mean over `samples` forecasts. attention [H,E]: on the window's sessions, of each of
    the horizons; on_horizons: share of all attention that goes to the horizons themselves."""

    samples: int
    importance: tuple[Weights, ...]
    attention: FloatArray
    on_horizons: float


@dataclass(frozen=True, slots=True)
class ExpertUse:
    """Mean gate value of each expert of one horizon, at the member's best epoch."""

    member: int
    horizon: int
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class ModelReport:
    """All the page shows. facts: (name, value) pairs; validation: first and last decision that it judges."""

    title: str
    facts: tuple[tuple[str, str], ...]
    validation: tuple[date, date]
    closed_form: bool
    calibration: str  # the kind of calibrator
    alpha: float  # share of labels that may lie outside the intervals
    horizons: tuple[HorizonReport, ...]
    members: tuple[MemberCurves, ...]
    looked: Looked | None
    experts: tuple[ExpertUse, ...]
    fan: Fan | None
    notes: tuple[str, ...]  # what these numbers cannot tell


def model_report(report: ModelReport) -> bytes:
    """The report as one UTF-8 HTML file (about 5 MB: the plotting script). Every text of `report` is escaped."""
    with_classes = any(h.classes for h in report.horizons)
    parts = [
        page.header(report.title, report.facts, "What was trained"),
        page.section("Verdict", _verdict(report)),
        page.section("Skill", _skill(report), _on_validation(report)),
        page.section("Training", _training(report), _training_lead(report)),
        page.section("Probability of a rise", _probabilities(report), _probabilities_lead(report)),
        page.section("Classes", "".join(_classes(h) for h in report.horizons), classes.LEAD) if with_classes else "",
        page.section("Thresholds", _thresholds(report), _thresholds_lead(report)),
        page.section("Intervals", _intervals(report), _intervals_lead(report)),
        _looked(report.looked, tuple(h.horizon for h in report.horizons)) if report.looked else "",
        page.section("Experts", _experts(report), _EXPERTS) if report.experts else "",
        _fan(report.fan) if report.fan else "",
        page.section("What these numbers cannot tell", page.bullets(report.notes)),
    ]
    return page.document(report.title, "\n".join(parts))


# --- skill ------------------------------------------------------------------------------------------------------------


def _verdict(report: ModelReport) -> str:
    items = []
    for h in report.horizons:
        skill, against = h.skill, h.against_share
        if skill.n_dates:
            items.append(verdict.skill_sentence(h.horizon, skill.mean_rank_ic, skill.rank_t_stat, skill.n_dates))
        items.append(
            verdict.direction_sentence(
                h.horizon, against.brier, against.reference, against.share, against.t_stat, against.sessions
            )
        )
    if not any(h.skill.n_dates for h in report.horizons):
        items.append("No session has three symbols with different forecasts: there is nothing to rank.")
    return page.bullets(
        [*items, f"{_on_validation(report)} What counts is later sessions (trading evaluate)."], "verdict"
    )


def _on_validation(report: ModelReport) -> str:
    used = "may have told the fit when to stop, and" if report.closed_form else "also stopped the training and"
    start, end = report.validation
    return f"On the validation part, {start} to {end}, which {used} calibrated it: these numbers flatter the model."


def _skill(report: ModelReport) -> str:
    heads = (
        ("Horizon", "in sessions"),
        ("Sessions", "with enough symbols to rank"),
        ("Rank IC", "Spearman's correlation of forecast and outcome within a session, mean; 0 is no skill"),
        ("t", "of the mean rank IC, robust to overlapping labels (Newey-West)"),
        ("Rank ICIR", "mean over standard deviation of the rank IC, per session"),
        ("IC", "Pearson's correlation within a session, mean"),
        ("ROC-AUC", "of the calibrated probability of a rise; 0.5 is no skill"),
        ("PR-AUC", "average precision; the share of rises is no skill"),
        ("Rises", "share of labels above 0"),
        ("F1", "of the rises, at the threshold chosen for it on these rows"),
        ("Pinball", "mean quantile loss, in log return"),
    )
    rows = "".join(_skill_row(h) for h in report.horizons)
    return page.table(heads, rows)


def _skill_row(h: HorizonReport) -> str:
    skill, direction = h.skill, h.calibrated
    cells = [
        f"{skill.n_dates:,}",
        page.number(skill.mean_rank_ic, 4),
        page.number(skill.rank_t_stat, 1),
        page.number(skill.rank_icir),
        page.number(skill.mean_ic, 4),
        page.number(direction.roc_auc, 3),
        page.number(direction.pr_auc, 3),
        page.percent(direction.base_rate),
        page.number(direction.f1, 3),
        page.number(skill.pinball, 5),
    ]
    return page.row(str(h.horizon), cells)


# --- training ---------------------------------------------------------------------------------------------------------


def _training_lead(report: ModelReport) -> str:
    if report.closed_form:
        return "Solved in closed form: there are no epochs."
    return "Losses are the training objective, lower is better. Dotted: the epoch whose weights were kept."


def _training(report: ModelReport) -> str:
    if report.closed_form:
        losses = report.members[0].losses.items()
        rows = "".join(page.row(name, [page.number(float(values[-1]), 5)]) for name, values in losses)
        return page.table((("", ""), ("Loss", "the training objective")), rows)
    parts = []
    for m in report.members[:MEMBERS_SHOWN]:
        title = f"<h3>Network {m.member}</h3>" if len(report.members) > 1 else ""
        figure = training_figure(m.losses, m.metrics, m.learning_rate, m.best_epoch)
        parts.append(title + page.chart(f"training{m.member}", figure, 460))
    if len(report.members) > MEMBERS_SHOWN:
        parts.append(f"<p>and {len(report.members) - MEMBERS_SHOWN} more: see history.csv.</p>")
    return "".join(parts)


# --- after training ---------------------------------------------------------------------------------------------------


def _probabilities_lead(report: ModelReport) -> str:
    return page.escape(
        f"Before and after calibration ({report.calibration}), which was fitted on these rows. ECE and MCE: mean and largest "
        "gap between what was said and what came, of ten bins of equal width, however few rows one has. In the charts a point "
        "holds a tenth of the rows."
    )


def _probabilities(report: ModelReport) -> str:
    heads = (
        ("", ""),
        ("ECE", "expected calibration error"),
        ("MCE", "maximum calibration error"),
        ("Brier", "mean squared error of the probability; 0.25 is always one half"),
        ("Log loss", "in nats; 0.693 is always one half"),
    )
    parts = []
    for h in report.horizons:
        rows = _probability_row("raw", h.raw) + _probability_row("calibrated", h.calibrated)
        parts.append(f"<h3>{_over(h.horizon)}</h3>" + page.table(heads, rows))
        parts.append(page.chart(f"reliability{h.horizon}", reliability_figure(h.reliability), 420))
    return "".join(parts)


def _probability_row(name: str, skill: BinarySkill) -> str:
    return page.row(name, [page.number(value, 4) for value in (skill.ece, skill.mce, skill.brier, skill.log_loss)])


def _classes(h: HorizonReport) -> str:
    return "".join(classes.tables(_over(h.horizon), skills) for skills in h.classes.values())


def _thresholds_lead(report: ModelReport) -> str:
    costs = report.horizons[0].thresholds[0].cost_bps
    return (
        "Chosen on the validation part and frozen into the bundle: the highest point of a curve is flattered by the search. "
        f"Trades pay {costs:g} bps a side and last from one open to the next, whatever the horizon."
    )


def _thresholds(report: ModelReport) -> str:
    parts = []
    for h in report.horizons:
        for k, found in enumerate(h.thresholds):
            said = f"{found.chosen:.4g}, {found.objective} {page.number(found.value, 3)}"
            parts.append(f"<h3>{page.escape(f'{_over(h.horizon)}, by {found.objective}: {said}')}</h3>")
            if len(found.threshold) < 2:
                parts.append("<p>The calibrated probabilities are all the same: there is nothing to choose.</p>")
            else:
                figure = threshold_figure(found.threshold, found.curves, found.chosen)
                parts.append(page.chart(f"threshold{h.horizon}x{k}", figure, 110 + 110 * len(found.curves)))
    return "".join(parts)


def _intervals_lead(report: ModelReport) -> str:
    return page.escape(
        f"Share of labels inside; {verdict.percent(1.0 - report.alpha, 0)} is meant. Thirds by the daily volatility known at "
        "the decision. The conformal correction was fitted on these rows: over all of them it is right by construction."
    )


def _intervals(report: ModelReport) -> str:
    heads = (
        ("", ""),
        ("Coverage", "share of labels inside"),
        ("Calm third", "coverage where volatility is lowest"),
        ("Middle third", "coverage"),
        ("Wild third", "coverage where volatility is highest"),
        ("Width", "mean, in log return"),
        ("Score", "width plus a penalty for labels outside (Gneiting & Raftery 2007); lower is better"),
    )
    parts = []
    for h in report.horizons:
        rows = "".join(page.row(name, _interval_cells(skill)) for name, skill in h.intervals.items())
        parts.append(f"<h3>{_over(h.horizon)}</h3>" + page.table(heads, rows))
    return "".join(parts)


def _interval_cells(skill: IntervalSkill) -> list[str]:
    thirds = (skill.coverage_low_volatility, skill.coverage_middle_volatility, skill.coverage_high_volatility)
    cells = [page.percent(value) for value in (skill.coverage, *thirds)]
    return [*cells, page.number(skill.mean_width, 4), page.number(skill.interval_score, 4)]


# --- the network ------------------------------------------------------------------------------------------------------


def _looked(looked: Looked, horizons: tuple[int, ...]) -> str:
    parts = []
    for k, weights in enumerate(looked.importance):
        rows = min(len(weights.names), 21)
        figure = importance_figure(weights.names, weights.weights)
        parts.append(f"<h3>{page.escape(weights.title)}</h3>" + page.chart(f"importance{k}", figure, 90 + 24 * rows))
    share = verdict.percent(looked.on_horizons, 0)
    parts.append(
        "<h3>Attention over time</h3>"
        f'<p class="lead">Of each horizon on the sessions of the window; another {share} of all attention goes to the '
        "horizons themselves.</p>"
    )
    parts.append(page.chart("attention", attention_figure(looked.attention, horizons), 300))
    lead = (
        f"Mean weights over {looked.samples:,} validation forecasts, drawn by the seed. A weight says where the network "
        "looked, not that a forecast would be worse without it."
    )
    return page.section("What it looked at", "".join(parts), lead)


_EXPERTS = (
    "Mean gate value of each expert on the validation part, at the epoch whose weights were kept. A row sums to one; an expert "
    "near zero does nothing."
)


def _experts(report: ModelReport) -> str:
    count = max(len(use.shares) for use in report.experts)
    heads = [("", ""), *((f"Expert {k}", "") for k in range(count))]
    many = len({use.member for use in report.experts}) > 1
    rows = "".join(
        page.row(
            _over(use.horizon) + (f", network {use.member}" if many else ""),
            [page.percent(share) for share in use.shares] + [""] * (count - len(use.shares)),
        )
        for use in report.experts
    )
    return page.table(heads, rows)


def _fan(fan: Fan) -> str:
    known = fan.outcome is not None and bool(np.isfinite(fan.outcome).any())
    lead = (
        f"{fan.symbol} after the close of {fan.sessions[-1]}, the last decision of the validation part: the first symbol by "
        f"name, whatever came of it. Returns count from the open of {fan.entry}, where the bands begin. Bands hold the share "
        "of outcomes that they are named after, before the conformal "
        f"correction{'; dots: the opening prices that came' if known else ''}."
    )
    return page.section("One forecast", page.chart("fan", fan_chart(fan), 420), page.escape(lead))


def _over(horizon: int) -> str:
    return "Over 1 session" if horizon == 1 else f"Over {horizon} sessions"
