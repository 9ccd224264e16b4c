"""Whatever is done to the files of a bundle: it is refused with the reason, and no code that lies in them runs."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from bundle_files import TREES_FILE, load, republished, same, saved, trees

from trading_core.errors import ArtifactCorruptedError, ArtifactMissingError, BundleError
from trading_core.registry.bundle import CARD, WEIGHTS
from trading_core.storage.artifacts import MANIFEST

REFUSED = (BundleError, ArtifactCorruptedError, ArtifactMissingError)


# --- bytes ------------------------------------------------------------------------------------------------------------


def drawn_changes(kind: str, count: int, among: str = "") -> Iterator[tuple[str, dict[str, bytes]]]:
    """The bundle with one byte changed, `count` times: a file, an offset and a bit pattern drawn from a seed.

    among: the only file to change; "": any.
    """
    files = saved(kind)[0]
    names = sorted(name for name in files if name.endswith(among))
    random = np.random.default_rng(2024)
    for _ in range(count):
        name = str(random.choice(names))
        data = bytearray(files[name])
        data[random.integers(len(data))] ^= int(random.integers(1, 256))
        yield name, {**files, name: bytes(data)}


@pytest.mark.parametrize("kind", ["lstm", "lightgbm"])
def test_one_changed_byte_at_any_of_a_thousand_offsets_is_refused(kind: str) -> None:
    files, digest = saved(kind)
    assert same(load(files, digest), load(files))
    touched = set()
    for name, changed in drawn_changes(kind, 1000):
        with pytest.raises(ArtifactCorruptedError, match="SHA-256"):
            load(changed, digest)
        if not name.endswith(MANIFEST):
            with pytest.raises(ArtifactCorruptedError, match="SHA-256"):
                load(changed)
        touched.add(name)
    assert touched == set(files)  # the manifest too


@pytest.mark.parametrize("kind", ["lstm", "lightgbm"])
def test_without_the_digest_only_the_time_in_the_manifest_could_be_forged(kind: str) -> None:
    """A byte of any other file is refused without it too: the manifest holds their digests. Every registered version has
    its own; this is what reading without one still promises.
    """
    files = saved(kind)[0]
    good, accepted = load(files), 0
    for name, changed in drawn_changes(kind, 1000, MANIFEST):
        try:
            found = load(changed)
        except REFUSED:
            continue
        accepted += 1
        before, after = json.loads(files[name]), json.loads(changed[name])
        assert (before["files"], before["format_version"]) == (after["files"], after["format_version"])
        assert same(found, good)
        assert found.digest != good.digest
    assert 0 < accepted < 100  # of the manifest's bytes few are the time's digits


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "name"), [("lstm", WEIGHTS), ("lstm", CARD), ("lightgbm", TREES_FILE)])
def test_a_file_that_is_gone_or_left_out_is_refused(kind: str, name: str) -> None:
    files, digest = saved(kind)
    gone = {path: data for path, data in files.items() if path != f"m/{name}"}
    with pytest.raises(ArtifactCorruptedError, match="its manifest names it but it is missing"):
        load(gone, digest)
    with pytest.raises(BundleError, match=f"{name} is missing" if name == CARD else "expected exactly"):
        load(republished(kind, {name: None}))


@pytest.mark.parametrize("kind", ["lstm", "lightgbm"])
@pytest.mark.parametrize("name", ["model.pkl", "trees_h9_q0.txt", "hooks.py", "deeper/config.json"])
def test_a_file_that_the_model_does_not_have_is_refused(kind: str, name: str) -> None:
    with pytest.raises(BundleError, match=rf"it holds .*{re.escape(name)}.*; expected exactly {CARD}, "):
        load(republished(kind, {name: b"x"}))


def test_files_of_another_model_are_refused() -> None:
    text = trees().files()[TREES_FILE]
    with pytest.raises(BundleError, match="expected exactly"):
        load(republished("lstm", {TREES_FILE: text}))
    card = json.loads(saved("lightgbm")[0][f"m/{CARD}"])
    with pytest.raises(BundleError, match="a model with files of its own has one "):
        load(republished("lightgbm", {CARD: json.dumps(card | {"members": 2}).encode()}))


@pytest.mark.parametrize(
    ("kind", "name"),
    [("lstm", WEIGHTS), ("lstm", CARD), ("lightgbm", WEIGHTS), ("lightgbm", CARD), ("lightgbm", TREES_FILE)],
)
def test_a_file_cut_short_is_refused(kind: str, name: str) -> None:
    files, digest = saved(kind)
    whole = files[f"m/{name}"]
    for length in {0, 1, 7, 8, 9, len(whole) // 3, len(whole) // 2, len(whole) - 1}:
        with pytest.raises(ArtifactCorruptedError, match="SHA-256"):
            load({**files, f"m/{name}": whole[:length]}, digest)
        with pytest.raises(REFUSED):  # also when the manifest was made to fit
            load(republished(kind, {name: whole[:length]}))


def test_trees_that_lie_are_refused_before_lightgbm_reads_them() -> None:
    text = trees().files()[TREES_FILE].decode()
    for change, reason in (
        (lambda t: re.sub("tree_sizes=[0-9 ]*", "tree_sizes=1000000000", t), "does not begin and end where tree_sizes"),
        (lambda t: re.sub("\nsplit_feature=[0-9]*", "\nsplit_feature=4000000", t), "split_feature must lie between"),
        (lambda t: re.sub("\nleft_child=[-0-9]*", "\nleft_child=0", t), "form no tree"),
        (lambda t: re.sub("\nleaf_value=[^ ]*", "\nleaf_value=nan", t), "finite numbers"),
    ):
        lying = change(text)
        if "tree_sizes" not in reason:  # the sizes shall fit
            parts = re.findall(r"Tree=\d+\n.*?\n\n\n", lying, re.DOTALL)
            lying = re.sub("tree_sizes=[0-9 ]*", "tree_sizes=" + " ".join(str(len(part)) for part in parts), lying)
        with pytest.raises(BundleError, match=rf"{TREES_FILE}: .*{reason}"):
            load(republished("lightgbm", {TREES_FILE: lying.encode()}))


# --- code -------------------------------------------------------------------------------------------------------------


class Payload:
    """Unpickling it makes the folder `marker`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.marker),)


def pickled(payload: Payload) -> bytes:
    return pickle.dumps(payload)


def by_torch(payload: Payload) -> bytes:
    torch.save({"lstm.weight_ih_l0": payload}, file := io.BytesIO())
    return file.getvalue()


def by_joblib(payload: Payload) -> bytes:
    joblib.dump(payload, file := io.BytesIO())
    return file.getvalue()


def by_numpy(payload: Payload) -> bytes:
    np.save(file := io.BytesIO(), np.array([payload], dtype=object), allow_pickle=True)
    return file.getvalue()


UNPICKLERS: dict[Callable[[Payload], bytes], Callable[[bytes], object]] = {
    pickled: pickle.loads,
    by_torch: lambda data: torch.load(io.BytesIO(data), weights_only=False),
    by_joblib: lambda data: joblib.load(io.BytesIO(data)),
    by_numpy: lambda data: np.load(io.BytesIO(data), allow_pickle=True),
}


@pytest.mark.parametrize("made", UNPICKLERS, ids=lambda made: made.__name__)
def test_a_pickle_in_place_of_a_file_is_refused_and_does_not_run(tmp_path: Path, made: Callable[..., bytes]) -> None:
    marker = tmp_path / "ran"
    data = made(Payload(marker))
    UNPICKLERS[made](data)
    assert marker.is_dir()  # the payload works: whoever unpickles it runs it
    marker.rmdir()
    for kind, name in (("lstm", WEIGHTS), ("lstm", CARD), ("lightgbm", WEIGHTS), ("lightgbm", TREES_FILE)):
        with pytest.raises(BundleError, match=f"{name}(: it is not ASCII text| cannot be read| is not JSON)"):
            load(republished(kind, {name: data}))
        with pytest.raises(BundleError, match="expected exactly"):
            load(republished(kind, {"model.pkl": data}))
    assert not marker.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"model": "os.system"},
        {"model": "trading_core.models.lstm"},
        {"model": "__import__('os').mkdir('ran')"},
        {"model": "LSTM"},
        {"model": ""},
        {"model": ["lstm"]},
        {"class": "LSTMModel"},
        {"__reduce__": ["os.mkdir", ["ran"]]},
        {"architecture": {"hidden_size": 4, "__class__": "os.mkdir"}},
        {"architecture": {"hidden_size": {"py/object": "os.mkdir"}}},
        {"spec": {"__class__": "os.mkdir"}},
        {"format_version": "!!python/object/apply:os.mkdir [ran]"},
    ],
    ids=str,
)
def test_an_unknown_class_or_key_is_refused_and_nothing_runs(
    change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    card = json.loads(saved("lstm")[0][f"m/{CARD}"])
    with pytest.raises(BundleError, match=r"is refused: config\.json"):
        load(republished("lstm", {CARD: json.dumps(card | change).encode()}))
    assert not list(tmp_path.iterdir())


def test_a_card_without_end_is_refused() -> None:
    with pytest.raises(BundleError, match=r"config\.json is not JSON"):
        load(republished("lstm", {CARD: b"[" * 200_000 + b"]" * 200_000}))


def test_a_card_that_asks_for_more_than_the_file_holds_gets_no_memory() -> None:
    """16 networks of 8 layers of 1,024: 4 GB, of which next to nothing is taken."""
    card = json.loads(saved("lstm")[0][f"m/{CARD}"])
    card |= {"members": 16, "architecture": card["architecture"] | {"hidden_size": 1024, "layers": 8}}
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit  # the most there ever was
    with pytest.raises(BundleError, match="name different tensors"):
        load(republished("lstm", {CARD: json.dumps(card).encode()}))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before < 2**27
