"""LightGBM's trees: what LightGBM itself gives, and a text format that is checked before its parser sees it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import lightgbm
import numpy as np
import pytest
import torch

from trading_core.errors import InvalidConfigError, TrainingFailedError
from trading_core.models.tree_text import ExpectedTrees, check_tree_text
from trading_core.models.trees import LightGBMConfig, TreesModel, build, fit_closed_form
from trading_core.schema import Float32Array, InputSpec, Target

if TYPE_CHECKING:
    from trading_core.models.registry import Batches

NAN = float("nan")
CONFIG = LightGBMConfig(rounds=30, learning_rate=0.1, leaves=5, min_leaf_samples=20, lags=2, patience=30)
SPEC = InputSpec(("a", "b"), 3, (1,), (4,), quantiles=(0.1, 0.5, 0.9))
FAST = {"deterministic": True, "force_row_wise": True, "num_threads": 1, "verbosity": -1, "feature_pre_filter": False}


class Data:
    """400 samples to learn from and 200 held out: y depends on a's last value and on the category."""

    def __init__(self, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.x = random.standard_normal((600, 3, 2)).astype(np.float32)
        self.static = random.integers(0, 3, (600, 1))
        noise = random.standard_normal(600)
        self.y = (self.x[:, -1, 0] + 0.5 * self.static[:, 0] + noise).astype(np.float32)[:, None]
        self.labels = self.y[..., None]

    @property
    def rows(self) -> Float32Array:
        """The inputs as the model's documentation says: the row before, the last row, the category."""
        rows: Float32Array = np.concatenate((self.x[:, 1], self.x[:, 2], self.static.astype(np.float32)), axis=1)
        return rows

    def part(self, start: int, stop: int) -> Batches:
        parts = [
            (
                torch.from_numpy(self.x[i:j]),
                torch.from_numpy(self.static[i:j]),
                torch.from_numpy(self.y[i:j]),
                torch.from_numpy(self.labels[i:j].astype(np.float32)),
            )
            for i, j in ((start, start + 150), (start + 150, stop))
        ]
        return lambda: parts

    def forecast(self, model: TreesModel) -> Float32Array:
        with torch.no_grad():
            found: Float32Array = model(torch.from_numpy(self.x), torch.from_numpy(self.static)).numpy()
        return found


def fitted(data: Data, config: LightGBMConfig = CONFIG, spec: InputSpec = SPEC, seed: int = 3) -> TreesModel:
    model = build(config, spec)
    assert isinstance(model, TreesModel)
    torch.manual_seed(seed)
    fit_closed_form(model, data.part(0, 400), data.part(400, 600))
    return model


def drawn_seed(seed: int = 3) -> int:
    torch.manual_seed(seed)
    return int(torch.randint(2**31 - 1, ()))


def by_lightgbm(
    data: Data, known: np.ndarray[tuple[int], np.dtype[np.bool_]] | None = None, **options: object
) -> lightgbm.Booster:
    """All rounds of one booster, trained by the library alone on its own dataset."""
    keep = np.arange(400) if known is None else np.flatnonzero(known[:400])
    params = {
        **FAST,
        "learning_rate": 0.1,
        "num_leaves": 5,
        "min_data_in_leaf": 20,
        "lambda_l2": 1.0,
        "seed": drawn_seed(),
    }
    params |= {"feature_fraction": 0.8, "bagging_fraction": 0.8, "bagging_freq": 1}
    target = options.pop("label", data.y[:, 0])
    assert isinstance(target, np.ndarray)
    train = lightgbm.Dataset(
        data.rows[keep], target[keep], categorical_feature=[4], params=FAST | {"min_data_in_leaf": 20}
    )
    return lightgbm.train({**params, **options}, train, 30)


def pinball(y: Float32Array, q: Float32Array, level: float) -> float:
    return float(np.maximum(level * (y - q), (level - 1.0) * (y - q)).mean())


def test_each_quantile_is_lightgbms_own_and_stops_where_its_validation_loss_is_lowest() -> None:
    data = Data()
    model = fitted(data)
    expected = []
    for level in SPEC.quantiles:
        booster = by_lightgbm(data, objective="quantile", alpha=level)
        held_out = [booster.predict(data.rows[400:], num_iteration=k) for k in range(1, 31)]
        losses = [pinball(data.y[400:, 0], np.asarray(found), level) for found in held_out]
        best = 1 + int(np.argmin(losses))
        expected.append(booster.predict(data.rows, num_iteration=best))
        assert model.boosters[f"h1_q{SPEC.quantiles.index(level)}"].num_trees() == best
    found = data.forecast(model)
    assert found.shape == (600, 1, 3)
    np.testing.assert_allclose(found[:, 0], np.sort(np.stack(expected, axis=1), axis=1), rtol=1e-6)


def test_quantiles_that_cross_are_sorted() -> None:
    data = Data()
    data.y = np.random.default_rng(5).standard_normal((600, 1)).astype(np.float32)
    data.labels = data.y[..., None]
    levels = (0.45, 0.5, 0.55)
    spec = InputSpec(("a", "b"), 3, (1,), (4,), quantiles=levels)
    model = fitted(data, LightGBMConfig(rounds=30, learning_rate=0.3, min_leaf_samples=5, lags=2), spec)
    raw = np.stack([np.asarray(model.boosters[f"h1_q{i}"].predict(data.rows)) for i in range(3)], axis=1)
    assert (np.diff(raw, axis=1) < 0).any()
    assert (np.diff(data.forecast(model)[:, 0], axis=1) >= 0).all()


def test_every_target_has_its_objective_and_unknown_labels_are_left_out() -> None:
    data = Data()
    targets = (Target.DIRECTION, Target.QUANTILES, Target.CLASSES, Target.VOLATILITY, Target.BARRIER, Target.RANK)
    spec = InputSpec(("a", "b"), 3, (1,), (4,), quantiles=(0.5,), targets=targets)
    y = data.y[:, 0]
    classes = np.digitize(y, [-0.5, 0.5]).astype(np.float32)
    volatility = np.where(np.arange(600) % 3 == 0, NAN, np.abs(y)).astype(np.float32)
    unheld = np.where(np.arange(600) < 400, classes[::-1], NAN).astype(np.float32)
    columns = (y > 0, y, classes, volatility, unheld, y / 2)
    data.labels = np.stack(columns, axis=-1)[:, None, :].astype(np.float32)
    model = fitted(data, spec=spec)
    found = data.forecast(model)[:, 0]
    assert found.shape == (600, 1 + 1 + 3 + 1 + 3 + 1)

    def kept(booster: lightgbm.Booster, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        rounds = model.boosters[name].current_iteration()
        return np.asarray(booster.predict(data.rows, raw_score=True, num_iteration=rounds)).reshape(600, -1)

    up = by_lightgbm(data, objective="binary", label=(y > 0).astype(np.float32))
    np.testing.assert_allclose(found[:, [0]], kept(up, "h1_direction"), rtol=1e-5)
    three = by_lightgbm(data, objective="multiclass", num_class=3, label=classes)
    np.testing.assert_allclose(found[:, 2:5], kept(three, "h1_classes"), rtol=1e-5)
    size = by_lightgbm(data, np.isfinite(volatility), objective="regression", label=volatility)
    np.testing.assert_allclose(found[:, [5]], kept(size, "h1_volatility"), rtol=1e-5)
    barrier = by_lightgbm(data, objective="multiclass", num_class=3, label=unheld)
    assert model.boosters["h1_barrier"].current_iteration() == 30  # no label was held out: all rounds
    np.testing.assert_allclose(found[:, 6:9], kept(barrier, "h1_barrier"), rtol=1e-5)


def test_a_target_without_labels_and_an_empty_validation_part_fail() -> None:
    data = Data()
    data.labels = np.full((600, 1, 2), NAN)
    spec = InputSpec(("a", "b"), 3, (1,), (4,), targets=(Target.QUANTILES, Target.RANK))
    with pytest.raises(TrainingFailedError, match="no training sample has a label of 'rank' at horizon 1"):
        fitted(data, LightGBMConfig(rounds=1, lags=2), spec)
    with pytest.raises(TrainingFailedError, match="there is no validation sample"):
        fit_closed_form(build(CONFIG, SPEC), data.part(0, 400), list)


def without_threads(files: dict[str, bytes]) -> list[bytes]:
    return [re.sub(rb"\[num_threads: \d+\]", b"", text) for text in files.values()]


def test_the_trees_do_not_depend_on_the_threads() -> None:
    data, before = Data(), torch.get_num_threads()
    torch.set_num_threads(1)
    one = fitted(data).files()
    try:
        torch.set_num_threads(2)
        two = fitted(data)
        found = data.forecast(two)
    finally:
        torch.set_num_threads(before)
    assert without_threads(one) == without_threads(two.files())
    np.testing.assert_array_equal(found, data.forecast(two))


def test_a_category_that_training_has_not_seen_gets_a_forecast() -> None:
    data = Data()
    model = fitted(data)
    data.static[:] = 3
    assert np.isfinite(data.forecast(model)).all()


def test_a_machine_without_the_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightgbm", None)
    model = build(CONFIG, SPEC)
    assert isinstance(model, TreesModel)
    with pytest.raises(InvalidConfigError, match=r"cannot be loaded .* apt install libgomp1"):
        model.load_files(MODEL.files())


def test_before_it_is_fitted_it_has_no_files_and_forecasts_zeros() -> None:
    model = build(CONFIG, SPEC)
    assert isinstance(model, TreesModel)
    assert model.files() == {}
    assert model.file_names == ("trees_h1_q0.txt", "trees_h1_q1.txt", "trees_h1_q2.txt")
    assert not Data().forecast(model).any()


# --- the text format --------------------------------------------------------------------------------------------------

DATA = Data()
MODEL = fitted(DATA)
TEXT = MODEL.files()["trees_h1_q1.txt"]
EXPECTED = ExpectedTrees("quantile", 1, ("a_lag1", "b_lag1", "a_lag0", "b_lag0", "static_0"), 30, 5)


def resized(text: bytes) -> bytes:
    """The text with the tree_sizes that its trees have."""
    trees = re.findall(rb"Tree=\d+\n.*?\n\n\n", text, re.DOTALL)
    return re.sub(rb"tree_sizes=[^\n]*", b"tree_sizes=" + b" ".join(b"%d" % len(tree) for tree in trees), text)


def changed(key: str, value: Callable[[list[str]], list[str]], tree: int = 0) -> bytes:
    """The text with another list under `key` of one tree, and sizes that fit."""
    text = TEXT.decode()
    start = text.index(f"\nTree={tree}\n")
    first = text.index(f"\n{key}=", start) + len(key) + 2
    last = text.index("\n", first)
    return resized((text[:first] + " ".join(value(text[first:last].split())) + text[last:]).encode())


def header(key: str, value: str) -> bytes:
    return re.sub(rf"\n{key}=[^\n]*".encode(), f"\n{key}={value}".encode(), TEXT, count=1)


def test_the_text_is_what_lightgbm_reads() -> None:
    assert check_tree_text(TEXT, EXPECTED) == TEXT.decode()
    assert resized(TEXT) == TEXT
    again = lightgbm.Booster(model_str=TEXT.decode())
    np.testing.assert_array_equal(again.predict(DATA.rows), MODEL.boosters["h1_q1"].predict(DATA.rows))
    assert b"num_cat=1" in TEXT  # splits by category are among what is checked


def test_a_tree_of_one_leaf_is_read() -> None:
    data = Data()
    data.y[:] = 1.5
    model = fitted(data)
    np.testing.assert_allclose(data.forecast(model), 1.5)
    other = build(CONFIG, SPEC)
    assert isinstance(other, TreesModel)
    other.load_files(model.files())
    np.testing.assert_allclose(data.forecast(other), 1.5)


with_category = next(k for k in range(30) if b"num_cat=1" in TEXT.split(b"Tree=")[k + 1])
BAD = {
    "empty": (b"", "ends within its header"),
    "a pickle": (b"\x80\x04\x95\x10", "not ASCII"),
    "another program's text": (b"hello\n\nworld\n", "its header says 'hello', expected 'tree'"),
    "another version": (header("version", "v9"), "expected 'version=v4'"),
    "more classes": (header("num_class", "3"), "expected 'num_class=1'"),
    "more trees a round": (header("num_tree_per_iteration", "0"), "expected 'num_tree_per_iteration=1'"),
    "more inputs": (header("max_feature_idx", "9999"), "expected 'max_feature_idx=4'"),
    "other inputs": (header("feature_names", "a b c d e"), "expected 'feature_names=a_lag1"),
    "another objective": (header("objective", "custom"), "expected 'objective=quantile'"),
    "inputs without a range": (header("feature_infos", "none none"), "one range for each of 5 inputs"),
    "a further line": (TEXT.replace(b"\ntree_sizes", b"\naverage_output\ntree_sizes"), "its header has 11 lines"),
    "sizes too large": (header("tree_sizes", "99999999"), "tree 0: it does not begin and end where tree_sizes says"),
    "a negative size": (header("tree_sizes", "-600"), "tree_sizes must be positive"),
    "no tree": (header("tree_sizes", ""), "it holds 0 trees"),
    "sizes that are no numbers": (header("tree_sizes", "six"), "should be whole numbers"),
    "more rounds than the config": (header("tree_sizes", " ".join(["600"] * 31)), "it holds 31 trees"),
    "a feature that does not exist": (changed("split_feature", lambda v: ["5", *v[1:]]), "between 0 and 4"),
    "a negative feature": (changed("split_feature", lambda v: ["-1", *v[1:]]), "between 0 and 4"),
    "a node too few": (changed("split_feature", lambda v: v[1:]), "should be 4 whole numbers"),
    "a circle": (changed("left_child", lambda v: ["0", *v[1:]]), "form no tree"),
    "a child outside": (changed("right_child", lambda v: ["77", *v[1:]]), "form no tree"),
    "a leaf outside": (changed("right_child", lambda v: [*v[:-1], "-900"]), "form no tree"),
    "a leaf twice": (changed("left_child", lambda v: [*v[:-1], "-1"]), "form no tree"),
    "a threshold that is no number": (changed("threshold", lambda v: ["nan", *v[1:]]), "should be 4 finite numbers"),
    "a leaf without end": (changed("leaf_value", lambda v: ["inf", *v[1:]]), "should be 5 finite numbers"),
    "a leaf beyond": (changed("leaf_value", lambda v: ["1e+308", *v[1:]]), "numbers beyond 1e[+]300"),
    "a leaf too many": (changed("leaf_value", lambda v: [*v, "1"]), "should be 5 finite numbers"),
    "leaves of another count": (changed("num_leaves", lambda v: ["4"]), "should be 4 finite numbers"),
    "more leaves than the config": (changed("num_leaves", lambda v: ["6"]), "at most what the model allows"),
    "no leaf": (changed("num_leaves", lambda v: ["0"]), "it has no leaf"),
    "one leaf and splits": (changed("num_leaves", lambda v: ["1"]), "should be 1 finite numbers"),
    "a split of no kind": (changed("decision_type", lambda v: ["64", *v[1:]]), "a kind of split that does not exist"),
    "a split by a group that is not there": (changed("decision_type", lambda v: ["1"] * 4, 29), "outside the"),
    "groups beyond their words": (
        changed("cat_boundaries", lambda v: ["0", "9"], with_category),
        "do not fit cat_threshold",
    ),
    "a word of more bits": (changed("cat_threshold", lambda v: ["4294967296"], with_category), "words of 32 bits"),
    "categories without words": (changed("num_cat", lambda v: ["0"], with_category), "it has the keys"),
    "linear trees": (changed("is_linear", lambda v: ["1"]), "is_linear is 1; expected 0"),
    "a shrinkage of words": (changed("shrinkage", lambda v: ["small"]), "should be 1 finite numbers"),
    "a key twice": (resized(TEXT.replace(b"\nnum_cat=", b"\nnum_leaves=5\nnum_cat=", 1)), "it has the keys"),
    "an unknown key": (resized(TEXT.replace(b"\nshrinkage=", b"\nleaf_const=0\nshrinkage=", 1)), "it has the keys"),
    "importances of others": (
        TEXT.replace(b"importances:\na_lag0=", b"importances:\nzzz="),
        "count the splits of its inputs",
    ),
    "a parameter that is none": (TEXT.replace(b"[boosting: gbdt]", b"[boosting: gbdt"), r"of the form \[name: value\]"),
    "a frame's categories": (TEXT.replace(b"categorical:null", b"categorical:[1]"), "what follows its trees"),
    "text after its end": (TEXT + b"more\n", "what follows its trees"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_text_that_lies_is_refused(case: str) -> None:
    data, reason = BAD[case]
    assert data != TEXT
    with pytest.raises(ValueError, match=reason):
        check_tree_text(data, EXPECTED)


def test_a_text_cut_anywhere_is_refused() -> None:
    for length in [*range(0, len(TEXT), 97), len(TEXT) - 1]:
        with pytest.raises(ValueError):
            check_tree_text(TEXT[:length], EXPECTED)


def test_what_passes_the_check_is_safe_to_read() -> None:
    """A thousand texts with one character changed: refused, or read and forecast by LightGBM without harm."""
    random = np.random.default_rng(0)
    end = TEXT.index(b"\nparameters:")
    refused = 0
    for offset, byte in zip(random.integers(0, end, 1000), random.integers(32, 127, 1000), strict=True):
        data = bytearray(TEXT)
        data[offset] = byte
        try:
            text = check_tree_text(bytes(data), EXPECTED)
        except ValueError:
            refused += 1
            continue
        assert np.isfinite(np.asarray(lightgbm.Booster(model_str=text).predict(DATA.rows[:5]))).all()
    assert 300 < refused < 1000  # most changes are noticed, a digit of a leaf's value is not


def test_files_that_are_not_the_models_change_nothing() -> None:
    model = build(CONFIG, SPEC)
    assert isinstance(model, TreesModel)
    files = MODEL.files()
    with pytest.raises(ValueError, match=r"the files are other\.txt; expected trees_h1_q0\.txt, trees_h1_q1\.txt"):
        model.load_files({"other.txt": TEXT})
    with pytest.raises(ValueError, match=r"trees_h1_q2\.txt: it ends within its header"):
        model.load_files({**files, "trees_h1_q2.txt": b""})
    assert model.files() == {}
    assert model.boosters == {}
