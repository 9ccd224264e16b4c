"""Bundles: what is written is what is read, and what does not fit is refused with the reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from trading_core.calibration.conformal import Adaptive, Conformal
from trading_core.calibration.platt import Platt
from trading_core.calibration.temperature import ClassCalibration
from trading_core.calibration.thresholds import ThresholdChoice
from trading_core.dataset.scaling import Scaler
from trading_core.errors import ArtifactCorruptedError, ArtifactMissingError, BundleError, FormulaMismatchError
from trading_core.models.lstm import LSTMConfig
from trading_core.models.registry import MODELS
from trading_core.registry.bundle import (
    CARD,
    WEIGHTS,
    ModelCard,
    architecture_of,
    check_fingerprints,
    load_bundle,
    save_bundle,
)
from trading_core.schema import InputSpec
from trading_core.storage.artifacts import ArtifactStore

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
CONFIG = LSTMConfig(hidden_size=4)
CARD_IN = ModelCard(
    market="simulated",
    model="lstm",
    architecture=architecture_of(CONFIG),
    members=1,
    scope="pooled",
    spec=InputSpec(("a", "b"), 5, (1, 5), (3,)),
    features=("a", "b"),
    instrument_columns=(),
    fingerprints={"a": "1f", "b": "2e"},
    target_scale="volatility",
    class_threshold=0.5,
    barrier_width=1.0,
    static=("sector",),
    scaler=Scaler(("a", "b"), (0.5, 0.0), (2.0, 1.0)).to_json(),
    vocabulary='{"sectors": ["a", "b"], "symbols": []}',
    calibration=(Platt().to_json(), Platt(0.9, 0.125).to_json()),
    class_calibration={},
    intervals=(Conformal(0.1, True).to_json(),) * 2,
    adaptive=Adaptive().to_json(),
    thresholds={},
    cutoff=date(2024, 4, 30),
    train_start=date(2020, 1, 2),
    train_end=date(2023, 12, 29),
    validation_start=date(2024, 1, 10),
    validation_end=date(2024, 4, 19),
    data_versions={"features_price": 7},
    seed=7,
    config_hash="0123456789ab",
    code_version="abc",
    library_versions={"torch": "2.13.0"},
)


def module() -> torch.nn.Module:
    torch.manual_seed(1)
    return MODELS["lstm"].build(CONFIG, CARD_IN.spec).eval()


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore.open(str(tmp_path))


def test_round_trip(store: ArtifactStore) -> None:
    source = module()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    digest = save_bundle(store, "models/1", source, CARD_IN, NOW)
    loaded = load_bundle(store, "models/1")
    assert torch.equal(torch.rand(2), expected)  # building the module did not touch the caller's random state
    assert loaded.card == CARD_IN
    assert loaded.digest == digest
    assert loaded.uri.endswith("/models/1")
    state = loaded.module.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in source.state_dict().items())
    assert sorted(store.list("models/1")) == [
        "models/1/MANIFEST.json",
        "models/1/config.json",
        "models/1/weights.safetensors",
    ]


def test_the_same_bundle_has_the_same_digest(store: ArtifactStore) -> None:
    assert save_bundle(store, "a", module(), CARD_IN, NOW) == save_bundle(store, "b", module(), CARD_IN, NOW)


def edited(store: ArtifactStore, change: Callable[[dict[str, Any]], object]) -> None:
    """Publishes, with a valid manifest, a bundle whose config.json was changed."""
    save_bundle(store, "m", module(), CARD_IN, NOW)
    published = store.open_published("m")
    card = json.loads(published.read(CARD))
    change(card)
    store.publish("m", {CARD: json.dumps(card).encode(), WEIGHTS: published.read(WEIGHTS)}, NOW)


HOT = ClassCalibration().to_json().replace('"temperature": 1.0', '"temperature": 21.0')
COLD = ClassCalibration().to_json().replace("1.0", "1" + "0" * 400)  # no float holds it
NET = ThresholdChoice("net_sharpe_annual", 0.6, 1.0, 10.0, ()).to_json()


def with_classes(card: dict[str, Any], *texts: str) -> None:
    """A card of a model of Bear, Neutral and Bull, calibrated by `texts`."""
    card["spec"]["targets"].append("classes")
    card["class_calibration"] = {"classes": list(texts)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda card: card.update(surprise=1), "unknown, missing or altered keys: surprise"),
        (lambda card: card["spec"].update(code="import os"), "unknown, missing or altered keys: spec.code"),
        (lambda card: card.pop("cutoff"), "cutoff: "),
        (lambda card: card["spec"].pop("static_cardinalities"), "keys: spec.static_cardinalities"),
        (lambda card: card.update(format_version=2), "format_version 2; this code reads 3"),
        (
            lambda card: card.update(model="resnet"),
            f"unknown model class 'resnet' (known: {', '.join(sorted(MODELS))})",
        ),
        (lambda card: card["architecture"].update(heads=3), "the architecture of 'lstm' is not valid: "),
        (lambda card: card["architecture"].update(hidden_size=0), "hidden_size is 0; it must lie between 1 and 1024"),
        (
            lambda card: card["architecture"].update(hidden_size=5),
            "'recurrence.weight_ih_l0' is [16, 2] torch.float32, the architecture has [20, 2]",
        ),
        (lambda card: card["architecture"].update(layers=2), "name different tensors: recurrence.bias_hh_l1"),
        (lambda card: card.update(calibration=[]), "0 calibrations for 2 horizons"),
        (lambda card: card.update(members=0), "0 members; there are 1 to 64"),
        (lambda card: card.update(scope="symbol"), "the architecture of 'lstm' is not valid: "),
        (
            lambda card: card["spec"].update(static_cardinalities=[10**12]),
            "cardinalities [1000000000000] for a vocabulary",
        ),
        (
            lambda card: card["spec"].update(encoder_length=20_000_000),
            "encoder_length 20000000; it lies between 1 and 512",
        ),
        (lambda card: card["spec"].update(horizons=[1, 1]), "horizons [1, 1]; they ascend and lie between 1 and 63"),
        (lambda card: card["spec"].update(horizons=[-5, 1]), "horizons [-5, 1]; they ascend"),
        (lambda card: card.update(vocabulary="{}"), "the vocabulary does not hold the names of the static columns"),
        (lambda card: card.update(scaler="{}"), "the scaler cannot be read (KeyError: 'features')"),
        (
            lambda card: card.update(scaler=card["scaler"].replace("{", '{"code": "import os", ')),
            "the scaler cannot be read (unknown keys code)",
        ),
        (lambda card: card.update(scaler=card["scaler"].replace("2.0", "NaN")), "must be finite"),
        (lambda card: card.update(scaler=card["scaler"].replace("2.0", "0.0")), "std and clip positive"),
        (
            lambda card: card.update(scaler=Scaler(("b", "a"), (0.0, 0.0), (1.0, 1.0)).to_json()),
            "the scaler makes b, a of b, a; the model reads a, b of a, b",
        ),
        (
            lambda card: card.update(scaler=Scaler(("a", "b"), (0.0, 0.0), (1.0, 1.0), ("a",)).to_json()),
            "the scaler makes a, b, a__missing of a, b; the model reads a, b of a, b",
        ),
        (lambda card: card.update(intervals=["{}"]), "1 intervals for 2 horizons"),
        (lambda card: card.update(adaptive='{"alpha": 2, "gamma": 0}'), "a calibration cannot be read"),
        (lambda card: card.update(thresholds={"f1": ["{}", "{}"]}), "a calibration cannot be read"),
        (
            lambda card: card.update(thresholds={"f1": [NET] * 2}),
            "thresholds of f1 that were searched for net_sharpe_annual",
        ),
        (lambda card: with_classes(card, COLD, COLD), "a calibration cannot be read"),
        (lambda card: card.pop("class_calibration"), "class_calibration: "),
        (lambda card: card.update(class_calibration={"classes": [""] * 2}), "classes are calibrated of ['classes']"),
        (lambda card: card["spec"]["targets"].append("barrier"), "classes are calibrated of []"),
        (lambda card: with_classes(card, "{}", "{}"), "a calibration cannot be read"),
        (lambda card: with_classes(card, ClassCalibration().to_json()), "1 classes for 2 horizons"),
        (lambda card: with_classes(card, HOT, HOT), "temperature = 21.0: it lies between 0.05 and 20.0"),
        (lambda card: card.update(class_threshold=-1.0), "class_threshold -1.0, barrier_width 1.0: at most 10.0"),
        (lambda card: card.update(barrier_width=1e300), "barrier_width 1e+300"),
        (lambda card: card["calibration"].__setitem__(0, "{}"), "a calibration cannot be read"),
        (lambda card: card["fingerprints"].pop("a"), "features and fingerprints name different features"),
        (lambda card: card.update(cutoff="2024-01-01"), "the cut-off 2024-01-01 lies before decisions"),
        (lambda card: card.update(seed="many"), "seed: "),
    ],
)
def test_a_card_that_does_not_fit_is_refused(
    store: ArtifactStore, change: Callable[[dict[str, Any]], object], reason: str
) -> None:
    edited(store, change)
    with pytest.raises(BundleError) as caught:
        load_bundle(store, "m")
    assert reason in str(caught.value)
    assert str(caught.value).startswith(f"The model bundle '{store.url}/m' is refused: ")


def test_json_that_is_none_is_refused(store: ArtifactStore) -> None:
    store.publish("m", {CARD: b"{", WEIGHTS: b"x"}, NOW)
    with pytest.raises(BundleError, match="is not JSON"):
        load_bundle(store, "m")
    store.publish("m", {CARD: b"[]", WEIGHTS: b"x"}, NOW)
    with pytest.raises(BundleError, match="format_version None"):
        load_bundle(store, "m")


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (b"\x80\x04\x95pickle", "cannot be read"),
        (b"", "is empty"),
        (safetensors.torch.save({"w": torch.zeros(2)}), "name different tensors"),
        (
            safetensors.torch.save({k: torch.full_like(v, torch.nan) for k, v in module().state_dict().items()}),
            "holds values that are not finite numbers",
        ),
        (
            safetensors.torch.save({k: v.double() for k, v in module().state_dict().items()}),
            "torch.float64, the architecture has",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(store: ArtifactStore, weights: bytes, reason: str) -> None:
    save_bundle(store, "m", module(), CARD_IN, NOW)
    card = store.open_published("m").read(CARD)
    store.publish("m", {CARD: card, WEIGHTS: weights}, NOW)
    with pytest.raises((BundleError, ArtifactCorruptedError), match=reason):
        load_bundle(store, "m")


def test_a_changed_byte_a_missing_file_and_another_digest_are_refused(store: ArtifactStore, tmp_path: Path) -> None:
    digest = save_bundle(store, "m", module(), CARD_IN, NOW)
    weights = tmp_path / "m" / WEIGHTS
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    with pytest.raises(ArtifactCorruptedError, match="SHA-256"):
        load_bundle(store, "m", digest)
    weights.unlink()
    with pytest.raises(ArtifactCorruptedError, match="missing"):
        load_bundle(store, "m", digest)
    with pytest.raises(ArtifactCorruptedError):
        load_bundle(store, "m", "0" * 64)
    with pytest.raises(ArtifactMissingError):
        load_bundle(store, "never")


def test_further_files_are_refused(store: ArtifactStore) -> None:
    save_bundle(store, "m", module(), CARD_IN, NOW)
    published = store.open_published("m")
    files = {name: published.read(name) for name in published.names}
    store.publish("m", {**files, "model.pkl": b"x"}, NOW)
    with pytest.raises(BundleError, match=r"it holds config\.json, model\.pkl, weights\.safetensors"):
        load_bundle(store, "m")


def test_a_bundle_that_could_not_be_loaded_is_not_published(store: ArtifactStore) -> None:
    with pytest.raises(BundleError, match="architecture has"):
        save_bundle(
            store, "m", module(), replace(CARD_IN, architecture={**CARD_IN.architecture, "hidden_size": 8}), NOW
        )
    assert store.list("m") == []


def test_other_formulas_are_refused() -> None:
    check_fingerprints(CARD_IN, {"a": "1f", "b": "2e", "c": "anything"})
    with pytest.raises(FormulaMismatchError, match=r"other formulas of: a, b\. Train a new version"):
        check_fingerprints(CARD_IN, {"a": "changed"})
