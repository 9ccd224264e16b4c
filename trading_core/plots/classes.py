"""The tables of the training's page that say how good the probabilities of several classes are."""

from __future__ import annotations

from collections.abc import Mapping

from trading_core.metrics.classification import ClassSkill, OneClassSkill
from trading_core.plots import page

LEAD = (
    "Before and after calibration (a temperature and an offset for each class), which was fitted on these rows and takes back "
    "what class weights and focal loss did. The most probable class counts as said. ECE and MCE are of its probability; the "
    "single classes are after calibration."
)
_HEADS = (
    ("", ""),
    ("Accuracy", "share of rows whose most probable class came"),
    ("Balanced", "mean recall over the classes; a third is no skill"),
    ("Macro F1", "mean over the classes"),
    ("MCC", "Matthews' correlation; 0 is no skill"),
    ("Log loss", "in nats; 1.099 is always a third each"),
    ("Brier", "sum over the classes, 0 to 2"),
    ("ECE", "expected calibration error"),
    ("MCE", "maximum calibration error"),
)


def tables(title: str, skills: Mapping[str, ClassSkill]) -> str:
    """One target of one horizon. skills: by name, before and after calibration; the last one's classes are told one by one."""
    last = list(skills.values())[-1]
    names = ", ".join(one.name for one in last.per_class)
    rows = "".join(page.row(name, _cells(skill)) for name, skill in skills.items())
    return f"<h3>{page.escape(f'{title}: {names}')}</h3>" + page.table(_HEADS, rows) + _each_class(last)


def _cells(skill: ClassSkill) -> list[str]:
    shares = [page.percent(value) for value in (skill.accuracy, skill.balanced_accuracy)]
    figures = (skill.macro_f1, skill.mcc, skill.log_loss, skill.brier, skill.ece, skill.mce)
    return [*shares, *(page.number(value, 4) for value in figures)]


def _each_class(skill: ClassSkill) -> str:
    heads = (
        ("", ""),
        ("Rows", "of this class"),
        ("Precision", "share of those said that came"),
        ("Recall", "share of those that came that were said"),
        ("F1", ""),
        ("ROC-AUC", "of its probability; 0.5 is no skill"),
        ("PR-AUC", "average precision; the share of its rows is no skill"),
    )
    rows = "".join(page.row(one.name, [f"{one.support:,}", *_one_class(one)]) for one in skill.per_class)
    return page.table(heads, rows)


def _one_class(one: OneClassSkill) -> list[str]:
    return [page.number(value, 3) for value in (one.precision, one.recall, one.f1, one.roc_auc, one.pr_auc)]
