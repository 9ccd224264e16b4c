"""LightGBM's text format, checked before its parser sees it.

That parser is C++: it trusts sizes, counts and positions in the text, and a text that lies about them makes it read memory
that is not its own. So nothing is handed to it but what has exactly the shape that training writes: the header of the
model that is expected, trees whose arrays fit their counts and whose nodes form a tree, a list of importances and of
parameters. Source: the version "v4" as LightGBM 4 writes it (Tree::ToString, GBDT::SaveModelToString).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from trading_core.schema import FloatArray, IntArray

_NUMBER = r"-?\d{1,20}(?:\.\d{1,30})?(?:e[+-]\d{1,3})?"
_REALS = re.compile(rf"(?:{_NUMBER}(?: {_NUMBER})*)?")
_NOTES = re.compile(rf"(?:(?:{_NUMBER}|-?inf|-?nan)(?: (?:{_NUMBER}|-?inf|-?nan))*)?")
_WHOLE = re.compile(r"(?:-?\d{1,10}(?: -?\d{1,10})*)?")
_RANGE = rf"(?:none|\[{_NUMBER}:{_NUMBER}\]|-?\d{{1,10}}(?::-?\d{{1,10}})*)"
_RANGES = re.compile(rf"{_RANGE}(?: {_RANGE})*")
_IMPORTANCE = re.compile(r"[!-<>-~]{1,200}=\d{1,15}")
_PARAMETER = re.compile(r"\[[a-z0-9_]{1,60}: [ -~]{0,10000}\]")
_LARGEST = 1e300  # LightGBM keeps its own numbers within
_TREE_KEYS = (
    *("num_leaves", "num_cat", "split_feature", "split_gain", "threshold", "decision_type", "left_child"),
    *("right_child", "leaf_value", "leaf_weight", "leaf_count", "internal_value", "internal_weight", "internal_count"),
)
_CATEGORY_KEYS = ("cat_boundaries", "cat_threshold")
_LAST_KEYS = ("is_linear", "shrinkage")
_CATEGORICAL = 1  # the bit of decision_type; bits 2 and 3 say what counts as missing
_DECISIONS = frozenset(range(12))


@dataclass(frozen=True, slots=True)
class ExpectedTrees:
    """What a text must say of itself. objective: the whole line; per_round: trees per round (one per class).

    inputs: names of the inputs, in their order. rounds, leaves: at most so many rounds, and leaves in a tree.
    """

    objective: str
    per_round: int
    inputs: tuple[str, ...]
    rounds: int
    leaves: int


def check_tree_text(data: bytes, expected: ExpectedTrees) -> str:
    """`data` as text; ValueError, with what is wrong, unless it is a model that LightGBM can read safely."""
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not ASCII text ({error.reason} at byte {error.start})") from error
    head, blank, rest = text.partition("\n\n")
    if not blank:
        raise ValueError("it ends within its header")
    sizes = _check_header(head.split("\n"), expected)
    for number, (start, end) in enumerate(pairwise(np.cumsum([0, *sizes]).tolist())):
        try:
            _check_tree(rest[start:end], number, expected)
        except ValueError as error:
            raise ValueError(f"tree {number}: {error}") from error
    _check_tail(rest[sum(sizes) :], expected)
    return text


def _check_header(lines: list[str], expected: ExpectedTrees) -> list[int]:
    """The sizes of the trees in characters."""
    wanted = [
        "tree",
        "version=v4",
        f"num_class={expected.per_round}",
        f"num_tree_per_iteration={expected.per_round}",
        "label_index=0",
        f"max_feature_idx={len(expected.inputs) - 1}",
        f"objective={expected.objective}",
        f"feature_names={' '.join(expected.inputs)}",
    ]
    for line, found in zip(wanted, lines, strict=False):
        if found != line:
            raise ValueError(f"its header says '{found[:80]}', expected '{line[:80]}'")
    if len(lines) != len(wanted) + 2:
        raise ValueError(f"its header has {len(lines)} lines, expected {len(wanted) + 2}")
    ranges = _value(lines[-2], "feature_infos")
    if not _RANGES.fullmatch(ranges) or ranges.count(" ") != len(expected.inputs) - 1:
        raise ValueError(f"feature_infos must hold one range for each of {len(expected.inputs)} inputs")
    sizes = _whole(_value(lines[-1], "tree_sizes")).tolist()
    if not 0 < len(sizes) <= expected.rounds * expected.per_round or len(sizes) % expected.per_round:
        rounds = f"1 to {expected.rounds} rounds of {expected.per_round}"
        raise ValueError(f"it holds {len(sizes)} trees, expected {rounds}")
    if min(sizes) < 1:
        raise ValueError("tree_sizes must be positive")
    return [int(size) for size in sizes]


def _check_tree(text: str, number: int, expected: ExpectedTrees) -> None:
    lines = text.split("\n")
    if lines[0] != f"Tree={number}" or lines[-3:] != ["", "", ""]:
        raise ValueError("it does not begin and end where tree_sizes says")
    fields = dict(line.partition("=")[::2] for line in lines[1:-3])
    categories = _count(fields.get("num_cat", ""), expected.leaves)
    keys = (*_TREE_KEYS, *(_CATEGORY_KEYS if categories else ()), *_LAST_KEYS)
    if tuple(fields) != keys or len(lines) != len(keys) + 4:
        raise ValueError(f"it has the keys {', '.join(fields)[:300]}; expected {', '.join(keys)}")
    leaves = _count(fields["num_leaves"], expected.leaves)
    if leaves < 1:
        raise ValueError("it has no leaf")
    _check_leaves(fields, leaves)
    if leaves > 1:
        _check_nodes(fields, leaves - 1, categories, expected)
    elif any(fields[key] for key in ("split_feature", "threshold", "decision_type", "left_child", "right_child")):
        raise ValueError("it has one leaf, but also splits")
    if categories:
        _check_categories(fields, categories)
    if leaves > 1 or fields["leaf_count"]:
        _whole(fields["leaf_count"], leaves)
    if fields["is_linear"] != "0":
        raise ValueError(f"is_linear is {fields['is_linear'][:20]}; expected 0")
    _reals(fields["shrinkage"], 1)


def _check_leaves(fields: dict[str, str], leaves: int) -> None:
    _reals(fields["leaf_value"], leaves)
    for key, count in (
        ("leaf_weight", leaves if leaves > 1 or fields["leaf_weight"] else 0),
        ("split_gain", leaves - 1),
        ("internal_value", leaves - 1),
        ("internal_weight", leaves - 1),
    ):
        if not _NOTES.fullmatch(fields[key]) or len(fields[key].split()) != count:
            raise ValueError(f"{key} must hold {count} numbers")
    _whole(fields["internal_count"], leaves - 1)


def _check_nodes(fields: dict[str, str], nodes: int, categories: int, expected: ExpectedTrees) -> None:
    feature, decision = _whole(fields["split_feature"], nodes), _whole(fields["decision_type"], nodes)
    threshold = _reals(fields["threshold"], nodes)
    if feature.min() < 0 or feature.max() >= len(expected.inputs):
        raise ValueError(f"split_feature must lie between 0 and {len(expected.inputs) - 1}")
    if not set(decision.tolist()) <= _DECISIONS:
        raise ValueError("decision_type holds a kind of split that does not exist")
    groups = threshold[decision & _CATEGORICAL != 0]
    if len(groups) and not ((groups == np.floor(groups)) & (groups >= 0) & (groups < categories)).all():
        raise ValueError(f"a split by category names a group outside the {categories} of the tree")
    _check_shape(_whole(fields["left_child"], nodes).tolist(), _whole(fields["right_child"], nodes).tolist())


def _check_shape(left: list[int], right: list[int]) -> None:
    """From node 0 every node and every leaf (leaf i is written ~i) is reached exactly once."""
    nodes = len(left)
    seen, waiting = set(), [0]
    while waiting:
        node = waiting.pop()
        if node in seen or not -nodes - 1 <= node < nodes:
            raise ValueError("left_child and right_child form no tree")
        seen.add(node)
        if node >= 0:
            waiting += (left[node], right[node])
    if len(seen) != 2 * nodes + 1:
        raise ValueError("left_child and right_child form no tree")


def _check_categories(fields: dict[str, str], categories: int) -> None:
    """Bit sets of 32 categories a word; group i lies in the words boundaries[i] .. boundaries[i + 1] - 1."""
    boundaries, words = _whole(fields["cat_boundaries"], categories + 1), _whole(fields["cat_threshold"])
    if boundaries[0] != 0 or (np.diff(boundaries) < 1).any() or boundaries[-1] != len(words):
        raise ValueError("cat_boundaries do not fit cat_threshold")
    if words.min() < 0 or words.max() >= 2**32:
        raise ValueError("cat_threshold must hold words of 32 bits")


def _check_tail(text: str, expected: ExpectedTrees) -> None:
    """Importances, parameters and the categories of a pandas frame, of which there is none."""
    start, middle, end = "end of trees\n\nfeature_importances:\n", "\nparameters:\n", "\nend of parameters\n"
    importances, found, rest = text.removeprefix(start).partition(middle)
    parameters, ended, last = rest.partition(end)
    if not (text.startswith(start) and found and ended and last == "\npandas_categorical:null\n"):
        raise ValueError("what follows its trees is not what LightGBM writes")
    for line in filter(None, importances.split("\n")):
        if not _IMPORTANCE.fullmatch(line) or line.partition("=")[0] not in expected.inputs:
            raise ValueError("feature_importances must count the splits of its inputs")
    if not all(_PARAMETER.fullmatch(line) for line in parameters.split("\n") if line):
        raise ValueError("its parameters must be lines of the form [name: value]")


# --- numbers ----------------------------------------------------------------------------------------------------------


def _value(line: str, key: str) -> str:
    name, _, value = line.partition("=")
    if name != key:
        raise ValueError(f"its header says '{line[:80]}', expected {key}")
    return value


def _count(text: str, most: int) -> int:
    if not re.fullmatch(r"\d{1,9}", text) or int(text) > most:
        raise ValueError(f"num_leaves and num_cat must be at most what the model allows ({most}), not '{text[:20]}'")
    return int(text)


def _whole(text: str, count: int | None = None) -> IntArray:
    if not _WHOLE.fullmatch(text) or (count is not None and len(text.split()) != count):
        raise ValueError(f"'{text[:40]}' should be {'whole numbers' if count is None else f'{count} whole numbers'}")
    return np.array(text.split(), dtype=np.int64)


def _reals(text: str, count: int) -> FloatArray:
    if not _REALS.fullmatch(text) or len(text.split()) != count:
        raise ValueError(f"'{text[:40]}' should be {count} finite numbers")
    values = np.array(text.split(), dtype=np.float64)
    if (np.abs(values) > _LARGEST).any():
        raise ValueError(f"it holds numbers beyond {_LARGEST:g}")
    return values
