"""Whatever is done to the files of a bundle: it is refused with the reason, and no code that lies in them runs."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import re
import resource
import struct
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import safetensors.torch
import torch
from packaging.requirements import Requirement
from packaging.version import Version
from test_bundle import CARD_IN, module

from trading_core.errors import ArtifactCorruptedError, ArtifactMissingError, BundleError
from trading_core.models.registry import HasFiles
from trading_core.models.trees import LightGBMConfig, build, fit_closed_form
from trading_core.registry.bundle import CARD, WEIGHTS, architecture_of, load_bundle, save_bundle
from trading_core.schema import InputSpec
from trading_core.storage.artifacts import MANIFEST, ArtifactStore
from trading_core.storage.backends import FolderBackend

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
REPOSITORY = Path(__file__).resolve().parents[2]
REFUSED = (BundleError, ArtifactCorruptedError, ArtifactMissingError)
TREES = LightGBMConfig(rounds=2, leaves=4, min_leaf_samples=20)
TREES_CARD = replace(
    CARD_IN,
    model="lightgbm",
    architecture=architecture_of(TREES),
    spec=InputSpec(("a", "b"), 5, (1, 5), (3,), quantiles=(0.1, 0.5, 0.9)),
)
TREES_FILE = "trees_h5_q1.txt"


class InMemory(FolderBackend):
    """Files in a dictionary, so that a thousand bundles are read in a second."""

    def __init__(self, files: Mapping[str, bytes] | None = None) -> None:
        super().__init__("memory")
        self.files = dict(files or {})

    def get(self, path: str) -> bytes:
        if path not in self.files:
            raise ArtifactMissingError(path)
        return self.files[path]

    def put(self, path: str, data: bytes) -> None:
        self.files[path] = data

    def exists(self, path: str) -> bool:
        return path in self.files

    def remove(self, path: str) -> None:
        del self.files[path]


@cache
def trees() -> torch.nn.Module:
    random = np.random.default_rng(0)
    x = torch.from_numpy(random.standard_normal((200, 5, 2)).astype(np.float32))
    y = x[:, -1] + torch.from_numpy(random.standard_normal((200, 2)).astype(np.float32))
    static = torch.from_numpy(random.integers(0, 3, (200, 1)))
    model = build(TREES, TREES_CARD.spec)
    torch.manual_seed(0)
    fit_closed_form(model, lambda: [(x, static, y, y.unsqueeze(-1))], lambda: [(x, static, y, y.unsqueeze(-1))])
    return model.eval()


@cache
def saved(kind: str) -> tuple[Mapping[str, bytes], str]:
    """The files of a good bundle at "m", and its digest."""
    backend = InMemory()
    source, card = (trees(), TREES_CARD) if kind == "lightgbm" else (module(), CARD_IN)
    digest = save_bundle(ArtifactStore(backend), "m", source, card, NOW)
    return backend.files, digest


def load(files: Mapping[str, bytes], digest: str | None = None) -> Any:
    return load_bundle(ArtifactStore(InMemory(files)), "m", digest)


def republished(kind: str, changes: Mapping[str, bytes | None]) -> Mapping[str, bytes]:
    """The bundle with files replaced, added or (None) left out, under a manifest that fits them: a forger's best work."""
    files: dict[str, bytes | None] = {n.removeprefix("m/"): d for n, d in saved(kind)[0].items() if MANIFEST not in n}
    backend = InMemory()
    kept: dict[str, bytes | Path] = {name: data for name, data in (files | dict(changes)).items() if data is not None}
    ArtifactStore(backend).publish("m", kept, NOW)
    return backend.files


def same(one: Any, other: Any) -> bool:
    if one.card != other.card:
        return False
    state, others = one.module.state_dict(), other.module.state_dict()
    files, other_files = (b.module.files() if isinstance(b.module, HasFiles) else {} for b in (one, other))
    return (
        state.keys() == others.keys()
        and all(torch.equal(v, others[k]) for k, v in state.items())
        and files == other_files
    )


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


# --- tensors ----------------------------------------------------------------------------------------------------------


def state() -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module().state_dict().items()}


def with_first(change: Callable[[torch.Tensor], torch.Tensor]) -> bytes:
    tensors = state()
    name = next(iter(tensors))
    return safetensors.torch.save(tensors | {name: change(tensors[name]).contiguous()})


def one_infinite(tensor: torch.Tensor) -> torch.Tensor:
    tensor.view(-1)[-1] = torch.inf
    return tensor


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (with_first(lambda t: t.T), r"the architecture has \["),
        (with_first(lambda t: t.reshape(-1)), r"the architecture has \["),
        (with_first(lambda t: t[:-1]), r"the architecture has \["),
        (with_first(torch.Tensor.half), r"torch\.float16, the architecture has"),
        (with_first(torch.Tensor.long), r"torch\.int64, the architecture has"),
        (with_first(torch.Tensor.bool), r"torch\.bool, the architecture has"),
        (with_first(one_infinite), "holds values that are not finite numbers"),
        (safetensors.torch.save(dict(list(state().items())[1:])), "name different tensors"),
        (safetensors.torch.save(state() | {"__class__": torch.zeros(1)}), "name different tensors: __class__"),
        (safetensors.torch.save({}), "name different tensors"),
    ],
)
def test_tensors_that_are_not_the_architectures_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BundleError, match=rf"{WEIGHTS}.*{reason}"):
        load(republished("lstm", {WEIGHTS: data}))


def test_tensors_for_a_model_that_has_none_are_refused() -> None:
    with pytest.raises(BundleError, match="name different tensors: w"):
        load(republished("lightgbm", {WEIGHTS: safetensors.torch.save({"w": torch.zeros(2)})}))


def written(header: object, data: bytes = b"\0" * 8, length: int | None = None) -> bytes:
    """A safetensors file by hand: 8 bytes with the header's length, the header, the tensors."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


LYING_HEADERS = {
    "a header longer than the file": written({}, length=10_000),
    "a header of 2^63 bytes": written({}, length=2**63),
    "a header that is not JSON": written(b"\x80\x04."),
    "a header without end": written(b'{"a":' * 50_000),
    "a header that is a list": written([]),
    "a tensor beyond the file": written({"w": entry([1000], 0, 4000)}),
    "a tensor of 2^60 elements": written({"w": entry([2**60], 0, 2**62)}),
    "a shape that overflows": written({"w": entry([2**33, 2**33], 0, 8)}),
    "a shape larger than its bytes": written({"w": entry([100], 0, 8)}),
    "a shape smaller than its bytes": written({"w": entry([1], 0, 8)}),
    "a negative shape": written({"w": entry([-2], 0, 8)}),
    "offsets the wrong way round": written({"w": entry([2], 8, 0)}),
    "offsets below zero": written({"w": entry([2], -8, 0)}),
    "tensors over one another": written({"v": entry([2], 0, 8), "w": entry([1], 4, 8)}),
    "bytes between tensors": written({"v": entry([1], 0, 4), "w": entry([1], 8, 12)}, b"\0" * 12),
    "bytes after the tensors": written({"w": entry([2], 0, 8)}, b"\0" * 9),
    "a type that does not exist": written({"w": entry([2], 0, 8, "OBJECT")}),
    "an entry without a shape": written({"w": {"dtype": "F32", "data_offsets": [0, 8]}}),
}


@pytest.mark.parametrize("case", LYING_HEADERS)
def test_a_safetensors_header_that_lies_is_refused(case: str) -> None:
    with pytest.raises(BundleError, match=f"{WEIGHTS} cannot be read"):
        load(republished("lstm", {WEIGHTS: LYING_HEADERS[case]}))


# --- the program ------------------------------------------------------------------------------------------------------

# Whatever runs code that it finds in a file or a text, by the full name or its beginning.
RUNS_CODE = (
    *("pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle", "skops"),
    *("torch.load", "torch.save", "torch.jit.load", "torch.export.load", "torch.package", "torch.hub"),
    *(
        "torch.serialization",
        "pandas.read_pickle",
        "numpy.lib.format",
        "yaml.load",
        "yaml.load_all",
        "yaml.unsafe_load",
    ),
    *("yaml.unsafe_load_all", "yaml.full_load", "yaml.full_load_all"),
    *(f"mlflow.{flavour}" for flavour in ("pyfunc", "pytorch", "sklearn", "lightgbm", "transformers", "models")),
)
BUILTINS = {"eval", "exec", "compile", "__import__"}
METHODS = {"load_from_checkpoint", "read_pickle", "to_pickle", "allow_pickle", "save_checkpoint"}
# Arguments and the only value they may have; Lightning reads what `ckpt_path` names by pickle.
KEYWORDS = {"allow_pickle": "False", "ckpt_path": "None", "weights_only": "True", "enable_checkpointing": "False"}


def code_runners(tree: ast.AST) -> list[str]:
    """`line: name` of every mention, called or handed on, of what RUNS_CODE and its like name."""
    aliases: dict[str, str] = {}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {
                a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names
            }
            found += [(node.lineno, a.name) for a in node.names if _named(a.name)]
        elif isinstance(node, ast.ImportFrom) and node.module:
            aliases |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
            found += [(node.lineno, f"{node.module}.{a.name}") for a in node.names if _named(f"{node.module}.{a.name}")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, _, rest = ast.unparse(node).partition(".")
            name = f"{aliases[first]}.{rest}" if first in aliases else ""
            found += [(node.lineno, name or node.attr)] if _named(name) or node.attr in METHODS else []
        elif isinstance(node, ast.Name) and node.id in BUILTINS:
            found.append((node.lineno, node.id))
        elif isinstance(node, ast.keyword) and KEYWORDS.get(node.arg or "", ast.unparse(node.value)) != ast.unparse(
            node.value
        ):
            found.append((node.lineno, f"{node.arg}={ast.unparse(node.value)}"))
    return [f"{line}: {name}" for line, name in sorted(set(found))]


def _named(name: str) -> bool:
    return any(name == other or name.startswith(f"{other}.") for other in RUNS_CODE)


def test_nothing_in_the_program_runs_code_that_it_finds_in_a_file() -> None:
    files = sorted((REPOSITORY / "trading_core").rglob("*.py"))
    assert len(files) > 150  # it has really looked
    found = {str(path.relative_to(REPOSITORY)): code_runners(ast.parse(path.read_text())) for path in files}
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import pickle", "1: pickle"),
        ("from joblib import load", "1: joblib.load"),
        ("def f():\n    import dill as d", "2: dill"),
        ("import torch\nread = torch.load", "2: torch.load"),
        ("from torch import load as read", "1: torch.load"),
        ("import torch as t\nt.jit.load('x')", "2: torch.jit.load"),
        ("import numpy as np\nnp.load('x', allow_pickle=True)", "2: allow_pickle=True"),
        ("import numpy as np\nflag = 1\nnp.load('x', allow_pickle=flag)", "3: allow_pickle=flag"),
        ("Model.load_from_checkpoint('x')", "1: load_from_checkpoint"),
        ("import mlflow\nmlflow.pyfunc.load_model('x')", "2: mlflow.pyfunc"),
        ("from mlflow.pytorch import load_model", "1: mlflow.pytorch.load_model"),
        ("trainer.fit(m, ckpt_path='x')", "1: ckpt_path='x'"),
        ("import pandas as pd\nread = pd.read_pickle", "2: pandas.read_pickle"),
        ("import yaml\nyaml.load(x, Loader=l)", "2: yaml.load"),
        ("eval(text)", "1: eval"),
        ("run = exec", "1: exec"),
    ],
)
def test_the_search_finds_what_is_planted(text: str, expected: str) -> None:
    assert expected in code_runners(ast.parse(text))


def test_the_search_leaves_what_is_harmless() -> None:
    lines = (
        "import yaml, re, torch, numpy as np",
        "yaml.safe_load(x)",
        "model.eval()",
        "re.compile('x')",
        "np.load('x', allow_pickle=False)",
        "torch.compile(f)",
    )
    assert code_runners(ast.parse("\n".join(lines))) == []


def test_lightning_is_no_version_that_runs_code_from_checkpoints() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(line).specifier for line in project["dependencies"] if Requirement(line).name == "lightning"]
    assert len(wanted) == 1
    assert not any(wanted[0].contains(old) for old in ("2.6.1", "2.6.2", "2.6.3", "2.6.5"))
    assert wanted[0].contains("2.6.6")
    locked = re.findall(r"^lightning==(\S+)$", (REPOSITORY / "requirements.txt").read_text(), re.MULTILINE)
    assert len(locked) == 1
    assert wanted[0].contains(locked[0])
    assert wanted[0].contains(Version(version("lightning")))
