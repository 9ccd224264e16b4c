"""The numbers of one training's report, from what was prepared, fitted and calibrated. All are of the validation part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np

from trading_core.calibration.thresholds import ThresholdChoice
from trading_core.config import ModelConfig
from trading_core.dataset.windows import WindowSet
from trading_core.metrics.classification import ClassSkill, binary_skill, class_skill, reliability
from trading_core.metrics.forecasts import newey_west_t
from trading_core.metrics.intervals import IntervalSkill, interval_skill
from trading_core.models.interpretation import mean_weights
from trading_core.models.registry import model_entry
from trading_core.pipelines.after import AfterTraining, FittedClasses
from trading_core.pipelines.learn import Prepared
from trading_core.pipelines.train import TrainRequest
from trading_core.plots.forecasts import Fan
from trading_core.plots.model_report import (
    AgainstShare,
    ExpertUse,
    HorizonReport,
    Looked,
    MemberCurves,
    ModelReport,
    ThresholdCurves,
    Weights,
)
from trading_core.registry.bundle import ModelCard
from trading_core.schema import CLASS_TARGETS, INTERVAL_ALPHA, FloatArray, IntArray, Target
from trading_core.training.config import TrainingConfig
from trading_core.training.fit import FitResult
from trading_core.training.progress import EpochRecord, best_epoch
from trading_core.training.validate import returns_of

SAMPLES = 2048  # windows that are looked into: enough for means to three digits
SAMPLES_AT_ONCE = 512
SAME = 1e-6  # probabilities nearer to each other than float32 outputs can tell
FAN_SESSIONS = 60  # of the past, beside the forecast
USAGE = "expert_usage/"  # the figures `expert_usage/h<horizon>/e<expert>` of a mixture of experts
_OBJECTIVES = {"f1": "F1", "net_sharpe_annual": "net Sharpe"}


def gather(
    request: TrainRequest,
    model: ModelConfig,
    card: ModelCard,
    prepared: Prepared,
    fitted: FitResult,
    after: AfterTraining,
    horizons: tuple[HorizonReport, ...],
) -> ModelReport:
    """All that the page of one training shows. horizons: of `judged`."""
    return ModelReport(
        title=f"{request.model_name} on {card.market}",
        facts=_facts(request, model, card, prepared, fitted),
        validation=(card.validation_start, card.validation_end),
        closed_form=model_entry(model.model).fit_closed_form is not None,
        calibration=model.calibration,
        alpha=INTERVAL_ALPHA,
        horizons=horizons,
        members=member_curves(fitted.history, str(model.training.get("monitor", TrainingConfig().monitor))),
        looked=looked(prepared, fitted, model),
        experts=expert_use(fitted.history),
        fan=fan_of(prepared.validation, after.quantiles, prepared.spec.quantiles),
        notes=_notes(request, fitted),
    )


def _facts(
    request: TrainRequest, model: ModelConfig, card: ModelCard, prepared: Prepared, fitted: FitResult
) -> tuple[tuple[str, str], ...]:
    seeds = ", ".join(str(model.seed + k) for k in range(fitted.members))
    facts = [
        ("Market", card.market),
        ("Config", request.model_name),
        ("Architecture", card.model),
        ("Features", f"{len(card.inputs)}, windows of {model.encoder_length}"),
        ("Trained on", f"{card.train_start} to {card.train_end}"),
        ("Validated on", f"{card.validation_start} to {card.validation_end}"),
        ("Windows", f"{len(prepared.train):,} to learn from, {len(prepared.validation):,} to validate"),
        ("Cut-off", str(card.cutoff)),
        ("Seeds" if fitted.members > 1 else "Seed", seeds),
        ("Device", f"{fitted.device}, {fitted.seconds:.0f} s"),
        ("Request", request.hash()),
        ("Code", card.code_version),
    ]
    if fitted.scope == "symbol":
        known = len(prepared.vocabulary.symbols)
        facts.append(("Networks of their own", f"{len(fitted.by_symbol)} of {known} symbols"))
    return tuple(facts)


def _notes(request: TrainRequest, fitted: FitResult) -> tuple[str, ...]:
    notes = [
        "Epoch, calibration, thresholds and intervals were chosen on the validation part. Sessions after the cut-off, which "
        "nothing here has seen, are judged by the evaluation report.",
        "One training with one seed says little: the spread between seeds is as large as that between architectures.",
        "Thresholds trade at the next open, in equal slots, without market impact.",
    ]
    if fitted.members > 1:
        notes[1] = f"The average of {fitted.members} seeds was judged, not their spread."
    if fitted.scope == "symbol":
        notes.append("Training curves are of the pooled network; history_by_symbol.csv has those of each symbol.")
    if request.market.get("source") == "simulated":
        notes.append(
            "The market is simulated, with a signal that was planted in it: skill here says that the training finds what is "
            "there to find, and nothing about a real market."
        )
    return tuple(notes)


# --- skill ------------------------------------------------------------------------------------------------------------


def judged(prepared: Prepared, fitted: FitResult, after: AfterTraining) -> tuple[HorizonReport, ...]:
    """Every horizon's skill on the validation part."""
    return tuple(_horizon(prepared, fitted, after, h) for h in range(len(prepared.spec.horizons)))


def _horizon(prepared: Prepared, fitted: FitResult, after: AfterTraining, h: int) -> HorizonReport:
    raw, calibrated, up = after.raw_p_up[:, h], after.p_up[:, h], after.up[:, h]
    threshold = after.thresholds["f1"][h].threshold
    return HorizonReport(
        horizon=prepared.spec.horizons[h],
        skill=fitted.skill[h],
        against_share=_against_share(prepared, raw, up, h),
        raw=binary_skill(raw, up),
        calibrated=binary_skill(calibrated, up, threshold),
        # By mass: calibrated probabilities lie in two or three of ten bins of equal width.
        reliability={name: reliability(p, up, 10, "mass") for name, p in (("raw", raw), ("calibrated", calibrated))},
        thresholds=tuple(threshold_curves(choices[h]) for choices in after.thresholds.values()),
        intervals=_intervals(prepared.validation, after, h),
        classes={str(target): _class_skills(target, found, h) for target, found in after.classes.items()},
    )


def _class_skills(target: Target, found: FittedClasses, h: int) -> dict[str, ClassSkill]:
    stages = {"raw": found.raw, "calibrated": found.calibrated}
    return {name: class_skill(p[:, h], found.actual[:, h], CLASS_TARGETS[target]) for name, p in stages.items()}


def _against_share(prepared: Prepared, raw: FloatArray, up: FloatArray, h: int) -> AgainstShare:
    """The raw probability [N] against the share of rises that training knew: neither has seen these outcomes `up` [N]."""
    share = float((returns_of(prepared.train)[:, h] > 0.0).mean())
    errors, reference = (raw - up) ** 2, (share - up) ** 2
    _, session = np.unique(prepared.validation.columns, return_inverse=True)
    gain = np.bincount(session, reference - errors) / np.bincount(session)  # [N] -> one per session
    same = np.abs(raw - share).max() < SAME  # what remains are roundings, and a t statistic of them would say something
    t_stat = math.nan if same else newey_west_t(gain, prepared.spec.horizons[h] - 1)
    return AgainstShare(share, float(errors.mean()), float(reference.mean()), t_stat, len(gain))


def threshold_curves(choice: ThresholdChoice) -> ThresholdCurves:
    """The objective first, then what one gives for it."""
    beside = {"f1": ("precision", "recall"), "net_sharpe_annual": ("turnover",)}[choice.objective]
    names = {choice.objective: _OBJECTIVES[choice.objective], **{name: name for name in beside}}
    curves = {words: choice.column(name) for name, words in names.items()}
    objective = _OBJECTIVES[choice.objective]
    return ThresholdCurves(
        objective, choice.column("threshold"), curves, choice.threshold, choice.value, choice.cost_bps
    )


def _intervals(validation: WindowSet, after: AfterTraining, h: int) -> dict[str, IntervalSkill]:
    label, scale = after.returns[:, h], validation.scale[:, h]
    sigma = validation.scaled.panel.sigma[validation.symbol, validation.columns]
    before = after.quantiles[:, h, 0], after.quantiles[:, h, -1]
    ends = {"forecast quantiles": before, "conformal": after.intervals[h].apply(*before, scale)}
    return {name: interval_skill(label, low, high, sigma, INTERVAL_ALPHA) for name, (low, high) in ends.items()}


# --- training ---------------------------------------------------------------------------------------------------------


def by_member(history: Sequence[EpochRecord]) -> dict[int, list[EpochRecord]]:
    """The records of each network, in order."""
    return {member: list(records) for member, records in groupby(history, key=lambda record: record.member)}


def member_curves(history: Sequence[EpochRecord], monitor: str) -> tuple[MemberCurves, ...]:
    """The curves of every network. monitor: the name of what early stopping watches."""
    return tuple(_curves(member, records, monitor) for member, records in by_member(history).items())


def _curves(member: int, records: Sequence[EpochRecord], monitor: str) -> MemberCurves:
    losses = {"training": _column(records, "train_loss"), "validation": _column(records, "val_loss")}
    metrics = {"rank IC": _column(records, "val_rank_ic")}
    watched = _column(records, "monitored")
    shown = (metrics["rank IC"], -losses["validation"])
    if not any(np.array_equal(watched, values, equal_nan=True) for values in shown):
        metrics[f"watched: {monitor}"] = watched
    metrics = {name: values for name, values in metrics.items() if np.isfinite(values).any()}
    return MemberCurves(member, losses, metrics, _column(records, "learning_rate"), best_epoch(records))


def _column(records: Sequence[EpochRecord], name: str) -> FloatArray:
    return np.array([getattr(record, name) for record in records], dtype=np.float64)


def expert_use(history: Sequence[EpochRecord]) -> tuple[ExpertUse, ...]:
    """What a mixture of experts used at each network's best epoch; empty for other networks."""
    found = []
    for member, records in by_member(history).items():
        best = best_epoch(records)
        figures = next(record.figures for record in records if record.epoch == best)
        for horizon, shares in _usage(figures).items():
            found.append(ExpertUse(member, horizon, tuple(share for _, share in sorted(shares.items()))))
    return tuple(found)


def _usage(figures: Mapping[str, float]) -> dict[int, dict[int, float]]:
    """horizon -> expert -> share."""
    usage: dict[int, dict[int, float]] = {}
    for name, share in figures.items():
        if name.startswith(USAGE):
            horizon, expert = name.removeprefix(USAGE).split("/")
            usage.setdefault(int(horizon[1:]), {})[int(expert[1:])] = share
    return usage


# --- the network ------------------------------------------------------------------------------------------------------


def looked(prepared: Prepared, fitted: FitResult, model: ModelConfig) -> Looked | None:
    """What the network looked at in `sampled` validation windows; None where it has no such weights."""
    windows, spec = prepared.validation, prepared.spec
    rows = sampled(len(windows), model.seed)
    parts = (windows.gather(rows[at : at + SAMPLES_AT_ONCE]) for at in range(0, len(rows), SAMPLES_AT_ONCE))
    found = mean_weights(fitted.module, ((part.x, part.static) for part in parts))
    if found is None:
        return None
    candidates = (
        ("Channels of the window", spec.channels, found.channels),
        ("Static columns", tuple(model.static), found.static),
        ("Known of the future", ("horizon", *spec.context), found.future),
    )
    importance = tuple(Weights(*parts) for parts in candidates if len(parts[1]) > 1)  # of one alone it is always all
    past = found.attention[:, : spec.encoder_length]  # [H,E+H] -> [H,E]
    return Looked(found.samples, importance, past, float(1.0 - past.sum(axis=1).mean()))


def sampled(count: int, seed: int) -> IntArray:
    """At most SAMPLES of `count` rows, ascending; another seed draws others."""
    return np.sort(np.random.default_rng(seed).permutation(count)[:SAMPLES]).astype(np.int64)


def fan_of(windows: WindowSet, quantiles: FloatArray, levels: tuple[float, ...]) -> Fan:
    """The last decision's forecast of the first symbol by name. quantiles: [N,H,Q] of the log return."""
    panel = windows.scaled.panel
    row = int(windows.rows_of_column(int(windows.columns[-1]))[0])  # rows are ordered by column, then symbol
    symbol, column = int(windows.symbol[row]), int(windows.columns[row])
    past = slice(max(column + 1 - FAN_SESSIONS, 0), column + 1)
    ends = column + 1 + np.array(windows.spec.horizons)
    days = panel.sessions.astype(object)
    return Fan(
        symbol=panel.symbols[symbol],
        sessions=days[past].tolist(),
        closes=panel.closes[symbol, past],
        entry=days[column + 1],
        entry_open=float(panel.opens[symbol, column + 1]),
        ends=days[ends].tolist(),
        quantiles=quantiles[row],
        levels=levels,
        outcome=panel.opens[symbol, ends],
    )
