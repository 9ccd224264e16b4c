"""Good bundles held in memory, and forged ones: what the tests of their safety share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from test_bundle import CARD_IN, module

from trading_core.errors import ArtifactMissingError
from trading_core.models.registry import HasFiles
from trading_core.models.trees import LightGBMConfig, build, fit_closed_form
from trading_core.registry.bundle import architecture_of, load_bundle, save_bundle
from trading_core.schema import InputSpec
from trading_core.storage.artifacts import MANIFEST, ArtifactStore
from trading_core.storage.backends import FolderBackend

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
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
