"""Classification metrics against scikit-learn and numbers worked out by hand."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from trading_core.errors import InvalidConfigError
from trading_core.metrics import classification as m

NAN = np.nan


def _binary(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    outcome = rng.integers(0, 2, n).astype(float)
    return np.round(np.clip(0.25 * outcome + rng.uniform(0, 0.75, n), 0, 1), 2), outcome  # rounded: there are ties


def _three(n: int = 500, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    actual = rng.choice(3, n, p=(0.2, 0.5, 0.3)).astype(float)
    raw = rng.gamma(1.0, 1.0, (n, 3)) + np.eye(3)[actual.astype(int)]
    return raw / raw.sum(axis=1, keepdims=True), actual


def test_counts_by_hand() -> None:
    actual = np.array([0.0, 0, 0, 1, 1, 1, 1, NAN, 1])
    predicted = np.array([0.0, 1, 0, 1, 1, 0, 0, 1, NAN])
    counts = m.confusion(actual, predicted)
    assert counts.tolist() == [[2, 1], [2, 2]]
    assert m.accuracy(counts) == pytest.approx(4 / 7)
    np.testing.assert_allclose(m.precision(counts), [2 / 4, 2 / 3])
    np.testing.assert_allclose(m.recall(counts), [2 / 3, 2 / 4])
    np.testing.assert_allclose(m.f1(counts), [4 / 7, 4 / 7])
    assert m.balanced_accuracy(counts) == pytest.approx((2 / 3 + 1 / 2) / 2)
    # (TP TN - FP FN) / sqrt((TP+FP)(TP+FN)(TN+FP)(TN+FN)) = (4 - 2) / sqrt(3 * 4 * 3 * 4)
    assert m.mcc(counts) == pytest.approx(2 / 12)


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_counts_equal_sklearns(classes: int) -> None:
    rng = np.random.default_rng(classes)
    actual, predicted = rng.integers(0, classes, (2, 300)).astype(float)
    counts = m.confusion(actual, predicted, classes)
    np.testing.assert_array_equal(counts, sk.confusion_matrix(actual, predicted))
    assert m.accuracy(counts) == pytest.approx(sk.accuracy_score(actual, predicted), abs=1e-14)
    assert m.balanced_accuracy(counts) == pytest.approx(sk.balanced_accuracy_score(actual, predicted), abs=1e-14)
    assert m.mcc(counts) == pytest.approx(sk.matthews_corrcoef(actual, predicted), abs=1e-14)
    reference = sk.precision_recall_fscore_support(actual, predicted)
    for ours, theirs in zip((m.precision, m.recall, m.f1), reference, strict=False):
        np.testing.assert_allclose(ours(counts), theirs, atol=1e-14)
    assert m.mean_over_classes(m.f1(counts)) == pytest.approx(sk.f1_score(actual, predicted, average="macro"))


def test_what_is_not_defined_is_nan_and_left_out_of_means() -> None:
    # class 2 never occurs and is predicted once; class 1 occurs and is never predicted
    actual, predicted = np.array([0.0, 0, 1, 0]), np.array([0.0, 0, 0, 2])
    counts = m.confusion(actual, predicted, 3)
    np.testing.assert_allclose(m.precision(counts), [2 / 3, NAN, 0.0])
    np.testing.assert_allclose(m.recall(counts), [2 / 3, 0.0, NAN])
    np.testing.assert_allclose(m.f1(counts), [4 / 6, 0.0, 0.0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for ours, theirs in ((m.precision, sk.precision_score), (m.recall, sk.recall_score), (m.f1, sk.f1_score)):
            expected = theirs(actual, predicted, average=None, zero_division=np.nan)
            np.testing.assert_allclose(ours(counts), expected)
            macro = theirs(actual, predicted, average="macro", zero_division=np.nan)
            assert m.mean_over_classes(ours(counts)) == pytest.approx(macro)
    assert math.isnan(m.mcc(m.confusion(np.zeros(4), np.array([0.0, 1, 1, 0]))))
    nothing = m.confusion(np.zeros(0), np.zeros(0))
    assert nothing.tolist() == [[0, 0], [0, 0]]
    assert math.isnan(m.accuracy(nothing))
    assert math.isnan(m.balanced_accuracy(nothing))
    assert math.isnan(m.mcc(nothing))


def test_average_precision_by_hand_and_sklearn() -> None:
    # sorted: 1 at 0.9, {0, 1} at 0.5, 0 at 0.1: recall gains 1/2 at precision 1, 1/2 at precision 2/3
    assert m.pr_auc(np.array([0.5, 0.9, 0.1, 0.5]), np.array([0.0, 1, 0, 1])) == pytest.approx(0.5 + 0.5 * 2 / 3)
    for seed in range(3):
        p, outcome = _binary(seed=seed)
        assert m.pr_auc(p, outcome) == pytest.approx(sk.average_precision_score(outcome, p), abs=1e-13)
        assert m.pr_auc(np.append(p, [NAN, 0.3]), np.append(outcome, [1.0, NAN])) == m.pr_auc(p, outcome)
    assert m.pr_auc(np.full(8, 0.3), np.array([1.0, 0, 0, 0, 1, 0, 0, 0])) == 0.25  # knows nothing: the base rate
    assert math.isnan(m.pr_auc(np.array([0.1, 0.2]), np.zeros(2)))
    assert math.isnan(m.pr_auc(np.zeros(0), np.zeros(0)))


def test_log_loss_and_brier_equal_sklearns() -> None:
    p, outcome = _binary()
    p[:3], outcome[:3] = (0.0, 1.0, 1.0), (1.0, 0.0, 1.0)  # two wrong certainties
    assert m.log_loss(p, outcome) == pytest.approx(sk.log_loss(outcome, p), rel=1e-12)
    assert m.log_loss(np.full(4, 0.5), np.array([0.0, 1, 1, 0])) == pytest.approx(math.log(2))
    q, actual = _three()
    assert m.class_log_loss(q, actual) == pytest.approx(sk.log_loss(actual, q), rel=1e-12)
    one_hot = np.eye(3)[actual.astype(int)]
    assert m.class_brier(q, actual) == pytest.approx(3 * sk.mean_squared_error(one_hot, q), rel=1e-12)
    # (0.2 - 0)^2 + (0.5 - 1)^2 + (0.3 - 0)^2
    assert m.class_brier(np.array([[0.2, 0.5, 0.3]]), np.array([1.0])) == pytest.approx(0.38)
    two = np.stack([1 - p, p], axis=1)
    assert m.class_brier(two, outcome) == pytest.approx(2 * sk.brier_score_loss(outcome, p), rel=1e-12)
    holes = np.vstack([q, [[NAN, 0.5, 0.5]], q[:1]]), np.append(actual, [0.0, NAN])
    assert m.class_log_loss(*holes) == pytest.approx(m.class_log_loss(q, actual), rel=1e-14)
    assert math.isnan(m.log_loss(np.zeros(0), np.zeros(0)))


@pytest.mark.parametrize(("binning", "strategy"), [("width", "uniform"), ("mass", "quantile")])
@pytest.mark.parametrize("bins", [1, 5, 10, 37])
def test_the_reliability_table_equals_sklearns(binning: m.Binning, strategy: str, bins: int) -> None:
    p, outcome = _binary(seed=4)
    p[:2] = 0.0, 1.0
    table = m.reliability(p, outcome, bins, binning)
    frequency, probability = calibration_curve(outcome, p, n_bins=bins, strategy=strategy)
    np.testing.assert_allclose(table.frequency, frequency, atol=1e-14)
    np.testing.assert_allclose(table.probability, probability, atol=1e-14)
    assert table.count.sum() == len(p)
    for low, high, count in zip(table.low, table.high, table.count, strict=True):
        inside = (p > low) & (p <= high) if low > p.min() else p <= high
        assert inside.sum() == count
    again = m.reliability(np.append(p, [NAN, 0.4]), np.append(outcome, [1.0, NAN]), bins, binning)
    np.testing.assert_array_equal(again.count, table.count)


def test_calibration_errors_by_hand() -> None:
    """Bins of width 1/2: (0.2, 0.4) with outcomes 0, 1 and (0.6, 0.8, 1.0) with 1, 1, 0."""
    p, outcome = np.array([0.2, 0.4, 0.6, 0.8, 1.0]), np.array([0.0, 1, 1, 1, 0])
    table = m.reliability(p, outcome, 2)
    assert (table.low.tolist(), table.high.tolist(), table.count.tolist()) == ([0.0, 0.5], [0.5, 1.0], [2, 3])
    gaps = 0.5 - 0.3, 0.8 - 2 / 3
    assert m.ece(table) == pytest.approx((2 * gaps[0] + 3 * gaps[1]) / 5)
    assert m.mce(table) == pytest.approx(gaps[0])
    # bins of equal mass: the median 0.6 belongs to the lower one
    halves = m.reliability(p, outcome, 2, "mass")
    assert (halves.low.tolist(), halves.high.tolist(), halves.count.tolist()) == ([0.2, 0.6], [0.6, 1.0], [3, 2])
    assert m.ece(halves) == pytest.approx((3 * (2 / 3 - 0.4) + 2 * (0.9 - 0.5)) / 5)
    assert m.mce(halves) == pytest.approx(0.4)
    edge = m.reliability(np.array([0.5]), np.array([1.0]), 2)
    assert (edge.low[0], edge.high[0]) == (0.0, 0.5)
    same = m.reliability(np.full(6, 0.25), np.array([1.0, 0, 0, 0, 0, 0]), 10, "mass")
    assert same.count.tolist() == [6]
    assert m.ece(same) == pytest.approx(0.25 - 1 / 6)
    for binning in ("width", "mass"):
        nothing = m.reliability(np.zeros(0), np.zeros(0), 10, binning)
        assert len(nothing.count) == 0
        assert math.isnan(m.ece(nothing))
        assert math.isnan(m.mce(nothing))


def test_a_calibrated_forecast_has_almost_no_error() -> None:
    rng = np.random.default_rng(5)
    p = rng.uniform(0, 1, 200_000)
    outcome = (rng.uniform(0, 1, len(p)) < p).astype(float)
    for binning in ("width", "mass"):
        assert m.ece(m.reliability(p, outcome, 10, binning)) < 0.005
        assert m.ece(m.reliability(p**2, outcome, 10, binning)) == pytest.approx(1 / 2 - 1 / 3, abs=0.01)


def test_the_binary_summary_is_made_of_sklearns_numbers() -> None:
    p, outcome = _binary(seed=6)
    skill = m.binary_skill(np.append(p, NAN), np.append(outcome, 1.0), threshold=0.45)
    predicted = (p >= 0.45).astype(float)
    assert skill.n == 400
    assert skill.base_rate == pytest.approx(outcome.mean())
    np.testing.assert_array_equal(skill.counts, sk.confusion_matrix(outcome, predicted))
    assert skill.accuracy == pytest.approx(sk.accuracy_score(outcome, predicted))
    assert skill.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(outcome, predicted))
    assert skill.precision == pytest.approx(sk.precision_score(outcome, predicted))
    assert skill.recall == pytest.approx(sk.recall_score(outcome, predicted))
    assert skill.f1 == pytest.approx(sk.f1_score(outcome, predicted))
    assert skill.macro_f1 == pytest.approx(sk.f1_score(outcome, predicted, average="macro"))
    assert skill.mcc == pytest.approx(sk.matthews_corrcoef(outcome, predicted))
    assert skill.roc_auc == pytest.approx(sk.roc_auc_score(outcome, p))
    assert skill.pr_auc == pytest.approx(sk.average_precision_score(outcome, p))
    assert skill.brier == pytest.approx(sk.brier_score_loss(outcome, p))
    assert skill.log_loss == pytest.approx(sk.log_loss(outcome, p))
    table = m.reliability(p, outcome)
    assert (skill.ece, skill.mce) == (m.ece(table), m.mce(table))
    nothing = m.binary_skill(np.zeros(0), np.zeros(0))
    assert nothing.n == 0
    assert math.isnan(nothing.f1)
    assert math.isnan(nothing.log_loss)


def test_the_summary_of_three_classes_is_made_of_sklearns_numbers() -> None:
    q, actual = _three()
    skill = m.class_skill(q, actual)
    predicted = q.argmax(axis=1)
    np.testing.assert_array_equal(skill.counts, sk.confusion_matrix(actual, predicted))
    assert skill.accuracy == pytest.approx(sk.accuracy_score(actual, predicted))
    assert skill.macro_precision == pytest.approx(sk.precision_score(actual, predicted, average="macro"))
    assert skill.macro_recall == pytest.approx(skill.balanced_accuracy)
    assert skill.macro_f1 == pytest.approx(sk.f1_score(actual, predicted, average="macro"))
    assert skill.mcc == pytest.approx(sk.matthews_corrcoef(actual, predicted))
    assert skill.log_loss == pytest.approx(sk.log_loss(actual, q))
    assert skill.brier == pytest.approx(m.class_brier(q, actual))
    top = m.reliability(q.max(axis=1), (predicted == actual).astype(float))
    assert (skill.ece, skill.mce) == (m.ece(top), m.mce(top))
    report = sk.classification_report(actual, predicted, output_dict=True)
    assert [one.name for one in skill.per_class] == ["bear", "neutral", "bull"]
    for c, one in enumerate(skill.per_class):
        row, came = report[f"{c}.0"], actual == c
        assert (one.precision, one.recall, one.f1) == pytest.approx((row["precision"], row["recall"], row["f1-score"]))
        assert one.support == row["support"]
        assert one.roc_auc == pytest.approx(sk.roc_auc_score(came, q[:, c]))
        assert one.pr_auc == pytest.approx(sk.average_precision_score(came, q[:, c]))
        assert one.brier == pytest.approx(sk.brier_score_loss(came, q[:, c]))
        assert one.ece == m.ece(m.reliability(q[:, c], came.astype(float)))
    nothing = m.class_skill(np.zeros((0, 3)), np.zeros(0))
    assert nothing.n == 0
    assert math.isnan(nothing.accuracy)
    assert math.isnan(nothing.per_class[2].roc_auc)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match=r"from 0.2 to 1.2; they must lie in \[0, 1\]"):
        m.reliability(np.array([0.2, 1.2]), np.zeros(2))
    with pytest.raises(InvalidConfigError, match="other than 0 and 1"):
        m.log_loss(np.array([0.2]), np.array([2.0]))
    with pytest.raises(InvalidConfigError, match="bins: 0"):
        m.reliability(np.zeros(1), np.zeros(1), 0)
    with pytest.raises(InvalidConfigError, match=r"codes other than 0 \.\. 1"):
        m.confusion(np.array([2.0]), np.array([0.0]))
    with pytest.raises(InvalidConfigError, match=r"codes other than 0 \.\. 2"):
        m.class_skill(np.full((1, 3), 1 / 3), np.array([0.5]))
    with pytest.raises(InvalidConfigError, match=r"expected \[N, 3\]"):
        m.class_skill(np.full((1, 2), 0.5), np.array([0.0]))
    with pytest.raises(InvalidConfigError, match="must sum to 1"):
        m.class_skill(np.full((1, 3), 0.5), np.array([0.0]))
