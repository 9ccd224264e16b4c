"""How good classifications and their probabilities are: confusion counts, rankings, calibration. Pure functions on arrays.

N rows, C classes coded 0 .. C - 1 (two classes: 0 down, 1 up; three: 0 Bear, 1 Neutral, 2 Bull). Everywhere: a row with
a non-finite value in what a metric reads is dropped; what is not defined (no rows, a class that never occurs, a precision
without a prediction) is NaN and is left out of means over classes. scikit-learn says the same with `zero_division=nan`.
Brier score and ROC AUC of two classes are in trading_core.metrics.forecasts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trading_core.errors import InvalidConfigError
from trading_core.metrics.forecasts import brier, roc_auc
from trading_core.schema import CLASS_TARGETS, BoolArray, FloatArray, IntArray, Target

Binning = Literal["width", "mass"]


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Calibration by bins of the probability; bins without rows are left out. All arrays [bins], ascending.

    low, high: a bin holds low < p <= high (the first one also p = low). count: its rows. probability: their mean
    probability. frequency: the share of them with outcome 1, which equals `probability` for a calibrated forecast.
    """

    low: FloatArray
    high: FloatArray
    count: IntArray
    probability: FloatArray
    frequency: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class BinarySkill:
    """A probability of class 1 against outcomes 0 and 1. `counts` [2, 2], see `confusion`; precision, recall and f1 are
    of class 1; what stands from `counts` to `mcc` depends on `threshold`; ece, mce: with bins of equal width."""

    n: int
    base_rate: float  # share of outcome 1
    threshold: float
    counts: IntArray
    accuracy: float
    balanced_accuracy: float
    precision: float
    recall: float
    f1: float
    macro_f1: float
    mcc: float
    roc_auc: float
    pr_auc: float
    brier: float
    log_loss: float
    ece: float
    mce: float


@dataclass(frozen=True, slots=True)
class OneClassSkill:
    """One class against the rest: precision, recall, f1 of the most probable class, the others of its probability."""

    name: str
    support: int  # rows of this class
    precision: float
    recall: float
    f1: float
    roc_auc: float
    pr_auc: float
    brier: float
    ece: float


@dataclass(frozen=True, slots=True, eq=False)
class ClassSkill:
    """Probabilities of C classes against the class that came. counts: [C, C], see `confusion`; the prediction is the most
    probable class, the lower code where two are equal. brier: sum over classes, 0 to 2. ece, mce: of the probability of
    the predicted class against "it came" (Guo et al. 2017), bins of equal width."""

    n: int
    counts: IntArray
    accuracy: float
    balanced_accuracy: float
    macro_precision: float
    macro_recall: float
    macro_f1: float
    mcc: float
    log_loss: float
    brier: float
    ece: float
    mce: float
    per_class: tuple[OneClassSkill, ...]


def binary_skill(p: FloatArray, outcome: FloatArray, threshold: float = 0.5, bins: int = 10) -> BinarySkill:
    """All metrics of two classes; class 1 is predicted where p >= threshold. p, outcome: [N]. Errors: as `reliability`."""
    p, outcome = _rows(p, outcome)
    counts = confusion(outcome, (p >= threshold).astype(np.float64))
    table = reliability(p, outcome, bins)
    return BinarySkill(
        n=len(p),
        base_rate=_mean(outcome),
        threshold=threshold,
        counts=counts,
        accuracy=accuracy(counts),
        balanced_accuracy=balanced_accuracy(counts),
        precision=float(precision(counts)[1]),
        recall=float(recall(counts)[1]),
        f1=float(f1(counts)[1]),
        macro_f1=mean_over_classes(f1(counts)),
        mcc=mcc(counts),
        roc_auc=roc_auc(p, outcome),
        pr_auc=pr_auc(p, outcome),
        brier=brier(p, outcome),
        log_loss=log_loss(p, outcome),
        ece=ece(table),
        mce=mce(table),
    )


def class_skill(
    probabilities: FloatArray, actual: FloatArray, names: Sequence[str] = CLASS_TARGETS[Target.CLASSES], bins: int = 10
) -> ClassSkill:
    """All metrics of C classes. probabilities: [N, C], rows that sum to 1; actual: [N] codes; names: C of them.

    Errors: InvalidConfigError for probabilities outside [0, 1] or of another sum, unknown codes, C other than len(names).
    """
    q, codes = _class_rows(probabilities, actual, len(names))
    predicted = q.argmax(axis=1) if len(q) else np.zeros(0, dtype=np.int64)
    counts = confusion(codes, predicted.astype(np.float64), len(names))
    top = reliability(q.max(axis=1, initial=0.0), (predicted == codes).astype(np.float64), bins)
    return ClassSkill(
        n=len(q),
        counts=counts,
        accuracy=accuracy(counts),
        balanced_accuracy=balanced_accuracy(counts),
        macro_precision=mean_over_classes(precision(counts)),
        macro_recall=mean_over_classes(recall(counts)),
        macro_f1=mean_over_classes(f1(counts)),
        mcc=mcc(counts),
        log_loss=class_log_loss(q, codes),
        brier=class_brier(q, codes),
        ece=ece(top),
        mce=mce(top),
        per_class=tuple(_one_class(name, c, q[:, c], codes, counts, bins) for c, name in enumerate(names)),
    )


def _one_class(name: str, c: int, p: FloatArray, codes: FloatArray, counts: IntArray, bins: int) -> OneClassSkill:
    """Class c against the rest. p: [N] its probability; codes: [N] the class that came."""
    came = (codes == c).astype(np.float64)
    return OneClassSkill(
        name=name,
        support=int(came.sum()),
        precision=float(precision(counts)[c]),
        recall=float(recall(counts)[c]),
        f1=float(f1(counts)[c]),
        roc_auc=roc_auc(p, came),
        pr_auc=pr_auc(p, came),
        brier=brier(p, came),
        ece=ece(reliability(p, came, bins)),
    )


# --- counts -----------------------------------------------------------------------------------------------------------


def confusion(actual: FloatArray, predicted: FloatArray, classes: int = 2) -> IntArray:
    """[C, C] counts: rows the class that came, columns the class that was predicted. Both arguments [N] codes or NaN.

    Two classes: [[true negatives, false positives], [false negatives, true positives]].
    Errors: InvalidConfigError for a code that is none of 0 .. classes - 1.
    """
    keep = np.isfinite(actual) & np.isfinite(predicted)
    rows, columns = _codes(actual[keep], classes), _codes(predicted[keep], classes)
    return np.bincount(rows * classes + columns, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def accuracy(counts: IntArray) -> float:
    """Share of rows whose class was predicted. counts: [C, C] as in `confusion`, here and below."""
    return _ratio(float(np.trace(counts)), float(counts.sum()))


def balanced_accuracy(counts: IntArray) -> float:
    """Mean recall over the classes that occur: 1 / C for any constant prediction. Brodersen et al. (2010)."""
    return mean_over_classes(recall(counts))


def precision(counts: IntArray) -> FloatArray:
    """[C] share of the predictions of a class that came true; NaN for a class that was never predicted."""
    return _divide(np.diag(counts), counts.sum(axis=0))


def recall(counts: IntArray) -> FloatArray:
    """[C] share of the rows of a class that were predicted as such; NaN for a class that never occurs."""
    return _divide(np.diag(counts), counts.sum(axis=1))


def f1(counts: IntArray) -> FloatArray:
    """[C] 2 TP / (2 TP + FP + FN), the harmonic mean of precision and recall; NaN for a class in neither."""
    return _divide(2 * np.diag(counts), counts.sum(axis=0) + counts.sum(axis=1))


def mean_over_classes(values: FloatArray) -> float:
    """The macro average: the plain mean of the classes [C] that have a value."""
    return _mean(values[np.isfinite(values)])


def mcc(counts: IntArray) -> float:
    """Matthews' correlation of the class that came and the one predicted, -1 to 1; Gorodkin (2004) for C > 2.

    NaN (scikit-learn: 0) where only one class occurs or is predicted.
    """
    came, predicted = counts.sum(axis=1).astype(np.float64), counts.sum(axis=0).astype(np.float64)
    n = came.sum()
    covariance = np.trace(counts) * n - came @ predicted
    return _ratio(covariance, np.sqrt(n * n - came @ came) * np.sqrt(n * n - predicted @ predicted))


# --- rankings ---------------------------------------------------------------------------------------------------------


def pr_auc(score: FloatArray, outcome: FloatArray) -> float:
    """Average precision: sum over the distinct scores, from the highest, of (recall gained) * precision at that score.

    Rows of the same score count together. No interpolation (Davis & Goadrich 2006). The share of outcome 1 for a score
    that knows nothing; NaN when outcome 1 never occurs. score, outcome: [N].
    """
    keep = np.isfinite(score) & np.isfinite(outcome)
    order = np.argsort(-score[keep], kind="stable")
    sorted_score, positive = score[keep][order], outcome[keep][order] > 0.5
    if not positive.any():
        return float("nan")
    last = np.flatnonzero(np.append(np.diff(sorted_score) != 0.0, True))  # the last row of each distinct score
    hits = np.cumsum(positive)[last]
    gained = np.diff(hits, prepend=0) / hits[-1]
    return float(np.sum(gained * hits / (last + 1.0)))


# --- probabilities ----------------------------------------------------------------------------------------------------


def log_loss(p: FloatArray, outcome: FloatArray) -> float:
    """Mean of -log(probability of what came), in nats; log 2 is "always one half". p, outcome: [N].

    Probabilities are kept one float64 step off 0 and 1, so that a wrong certainty costs 36 and not infinity.
    Errors: InvalidConfigError for a probability outside [0, 1] or an outcome other than 0 and 1.
    """
    p, outcome = _rows(p, outcome)
    return class_log_loss(np.stack([1.0 - p, p], axis=1), outcome)


def class_log_loss(probabilities: FloatArray, actual: FloatArray) -> float:
    """`log_loss` for C classes: probabilities [N, C], actual [N] codes. Errors: as in `class_skill`."""
    q, codes = _class_rows(probabilities, actual, probabilities.shape[1])
    tiny = float(np.finfo(np.float64).eps)
    came = q[np.arange(len(q)), codes.astype(np.int64)]  # [N, C] -> [N]
    return -_mean(np.log(np.clip(came, tiny, 1.0 - tiny)))


def class_brier(probabilities: FloatArray, actual: FloatArray) -> float:
    """Mean over rows of the sum over classes of (probability - 1 if it came else 0)^2, from 0 to 2 (Brier 1950).

    For two classes it is twice `forecasts.brier`. probabilities [N, C], actual [N]. Errors: as in `class_skill`.
    """
    q, codes = _class_rows(probabilities, actual, probabilities.shape[1])
    came = codes[:, None] == np.arange(q.shape[1])  # [N] -> [N, C]
    return _mean(((q - came) ** 2).sum(axis=1))


def reliability(p: FloatArray, outcome: FloatArray, bins: int = 10, binning: Binning = "width") -> Reliability:
    """The reliability table of probabilities p [N] of outcome 1 against outcomes [N].

    binning "width": `bins` equal parts of [0, 1]; "mass": parts between equally spaced quantiles of p, which equal
    probabilities never straddle, so there may be fewer.
    Errors: InvalidConfigError for a probability outside [0, 1], an outcome other than 0 and 1, or fewer than 1 bin.
    """
    if bins < 1:
        raise InvalidConfigError("The reliability table", [f"bins: {bins} is not allowed; give at least 1"])
    p, outcome = _rows(p, outcome)
    edges = np.linspace(0.0, 1.0, bins + 1)
    if binning == "mass" and len(p):
        edges = np.quantile(p, edges)
    place = np.searchsorted(edges[1:-1], p)  # an inner edge belongs to the bin below it
    count = np.bincount(place, minlength=bins)
    held = np.flatnonzero(count)
    total, came = np.bincount(place, p, bins)[held], np.bincount(place, outcome, bins)[held]
    return Reliability(
        edges[held], edges[held + 1], count[held].astype(np.int64), total / count[held], came / count[held]
    )


def ece(table: Reliability) -> float:
    """Expected calibration error: mean over rows of |frequency - probability| of their bin (Naeini et al. 2015)."""
    gaps = np.abs(table.frequency - table.probability)
    return _ratio(float(table.count @ gaps), float(table.count.sum()))


def mce(table: Reliability) -> float:
    """Maximum calibration error: the largest |frequency - probability| of any bin, however few rows it has."""
    gaps = np.abs(table.frequency - table.probability)
    return float(gaps.max()) if len(gaps) else float("nan")


def _rows(p: FloatArray, outcome: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The rows in which both are finite, checked, as float64."""
    keep = np.isfinite(p) & np.isfinite(outcome)
    p, outcome = np.asarray(p, dtype=np.float64)[keep], np.asarray(outcome, dtype=np.float64)[keep]
    problems = _range_problems(p)
    if not np.isin(outcome, (0.0, 1.0)).all():
        problems.append("outcome: holds values other than 0 and 1")
    if problems:
        raise InvalidConfigError("The probabilities", problems)
    return p, outcome


def _class_rows(probabilities: FloatArray, actual: FloatArray, classes: int) -> tuple[FloatArray, FloatArray]:
    """The rows that are finite throughout, checked, as float64: [N, C] and [N]."""
    if probabilities.ndim != 2 or probabilities.shape[1] != classes:
        raise InvalidConfigError("The probabilities", [f"shape {probabilities.shape}; expected [N, {classes}]"])
    keep = np.isfinite(probabilities).all(axis=1) & np.isfinite(actual)
    q = np.asarray(probabilities, dtype=np.float64)[keep]
    problems = _range_problems(q)
    off = np.abs(q.sum(axis=1) - 1.0)
    if off.max(initial=0.0) > 1e-3:  # wide enough for a softmax in float32
        problems.append(f"probabilities: a row sums to 1 +- {off.max():.3g}; the classes of a row must sum to 1")
    if problems:
        raise InvalidConfigError("The probabilities", problems)
    return q, _codes(actual[keep], classes).astype(np.float64)


def _range_problems(p: FloatArray) -> list[str]:
    if p.size and (p.min() < 0.0 or p.max() > 1.0):
        return [f"probabilities from {p.min()} to {p.max()}; they must lie in [0, 1]"]
    return []


def _codes(values: FloatArray, classes: int) -> IntArray:
    if not np.isin(values, np.arange(classes)).all():
        raise InvalidConfigError("The classes", [f"codes other than 0 .. {classes - 1}: give one code per class"])
    return values.astype(np.int64)


def _divide(above: IntArray, below: IntArray) -> FloatArray:
    return np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)


def _ratio(above: float, below: float) -> float:
    return float(above / below) if below > 0 else float("nan")


def _mean(values: FloatArray | BoolArray) -> float:
    return float(np.mean(values)) if values.size else float("nan")
