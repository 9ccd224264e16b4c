"""Model bundles: weights.safetensors, config.json and a model's own text files, published as one. No pickle on any path.

config.json holds the model card: all that is needed to rebuild the module, to prepare its inputs and to know what it
has seen. The card says which files there must be: those of a model that `HasFiles`, such as LightGBM's trees, beside the
other two. What does not fit the code that loads it is refused, with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any, Literal

import safetensors.torch
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from torch import Tensor, nn

from trading_core.calibration.calibrators import calibrator_from_json
from trading_core.calibration.conformal import Adaptive, Conformal
from trading_core.calibration.temperature import ClassCalibration
from trading_core.calibration.thresholds import ThresholdChoice
from trading_core.dataset.scaling import Scaler
from trading_core.errors import ArtifactCorruptedError, BundleError, FormulaMismatchError, InvalidConfigError
from trading_core.models.ensemble import joined
from trading_core.models.per_symbol import PerSymbol
from trading_core.models.registry import MODELS, HasFiles
from trading_core.schema import BUNDLE_FORMAT, CLASS_TARGETS, InputSpec
from trading_core.storage.artifacts import ArtifactStore, Published

FORMAT_VERSION = BUNDLE_FORMAT
MAX_MEMBERS = 64
LONGEST_ENCODER, LONGEST_HORIZON = 512, 63  # as in the configuration
FARTHEST_LABEL = 10.0  # of class_threshold and barrier_width, as in the configuration
_VOCABULARY = {"symbol": "symbols", "sector": "sectors"}  # static column -> its names in the vocabulary
WEIGHTS = "weights.safetensors"
CARD = "config.json"
Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What config.json says of a model.

    architecture: the fields of the model's config class, of each of `members` networks. features, then
    instrument_columns: the panel's last axis; fingerprints: of each feature's formula. static: static columns, in order.
    class_threshold, barrier_width: what the labels of these targets mean, in volatilities (dataset.windows.WindowSpec).
    scaler, vocabulary: as trading_core.dataset writes them. calibration (of p_up), class_calibration (by target), intervals
    (Conformal), thresholds (by objective): one JSON per horizon of `spec`, adaptive: one for all, as
    trading_core.calibration writes them. cutoff:
    the session of the last label end used in training, validation or calibration; ranges are of decision sessions, both
    ends included. data_versions: table -> Delta version. library_versions: package -> version.
    """

    market: str
    model: str  # a name of trading_core.models.registry.MODELS
    architecture: Mapping[str, Scalar]
    members: int  # of the ensemble; 1: a single network
    scope: Literal["pooled", "symbol"]  # "symbol": a network for each symbol, beside the pooled one
    spec: InputSpec
    features: tuple[str, ...]
    instrument_columns: tuple[str, ...]
    fingerprints: Mapping[str, str]
    target_scale: str
    class_threshold: float
    barrier_width: float
    static: tuple[str, ...]
    scaler: str
    vocabulary: str
    calibration: tuple[str, ...]
    class_calibration: Mapping[str, tuple[str, ...]]
    intervals: tuple[str, ...]
    adaptive: str
    thresholds: Mapping[str, tuple[str, ...]]
    cutoff: date
    train_start: date
    train_end: date
    validation_start: date
    validation_end: date
    data_versions: Mapping[str, int]
    seed: int
    config_hash: str
    code_version: str
    library_versions: Mapping[str, str]
    format_version: int = FORMAT_VERSION

    @property
    def inputs(self) -> tuple[str, ...]:
        """The panel's last axis."""
        return self.features + self.instrument_columns


_CARD = TypeAdapter(ModelCard)


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A loaded model: `module` in eval mode on the CPU. uri: where it came from; digest: of its manifest."""

    module: nn.Module
    card: ModelCard
    uri: str
    digest: str


def architecture_of(config: Any) -> dict[str, Scalar]:
    """The plain fields of a model's config dataclass, for the card."""
    return asdict(config)


def save_bundle(store: ArtifactStore, prefix: str, module: nn.Module, card: ModelCard, now: datetime) -> str:
    """Publishes the bundle under `prefix` and returns the digest of its manifest. Errors: BundleError, StorageError.

    The card is checked as on loading, so that no bundle is published which cannot be loaded.
    """
    text = json.dumps(_CARD.dump_python(card, mode="json"), sort_keys=True, indent=2)
    uri = f"{store.url}/{prefix}"
    weights = safetensors.torch.save({name: tensor.contiguous().cpu() for name, tensor in _tensors(module).items()})
    parsed = _parse_card(text.encode(), uri)
    rebuilt = _loaded(parsed, _rebuild(parsed, uri, "meta"), weights, uri)
    files = module.files() if isinstance(module, HasFiles) else {}
    _load_files(rebuilt, files, uri)
    return store.publish(prefix, {WEIGHTS: weights, CARD: text.encode(), **files}, now)


def load_bundle(store: ArtifactStore, prefix: str, digest: str | None = None) -> Bundle:
    """The bundle under `prefix`; with `digest`, only that very one.

    Errors: ArtifactMissingError (never published), ArtifactCorruptedError (a byte or the digest differs, a file is
    missing), BundleError (whole, but not a bundle that this code can rebuild).
    """
    published = store.open_published(prefix, digest)
    uri = f"{store.url}/{prefix}"
    card = _card_of(published, uri)
    shapes = _rebuild(card, uri, "meta")
    own = shapes.file_names if isinstance(shapes, HasFiles) else ()
    expected = {WEIGHTS, CARD, *own}
    if set(published.names) != expected:
        raise BundleError(uri, f"it holds {', '.join(published.names)}; expected exactly {', '.join(sorted(expected))}")
    module = _loaded(card, shapes, _read_weights(published, uri), uri)
    _load_files(module, {name: published.read(name) for name in own}, uri)
    return Bundle(module.eval(), card, uri, published.digest)


def load_card(store: ArtifactStore, prefix: str, digest: str | None = None) -> ModelCard:
    """The card alone of the bundle under `prefix`. Errors: those of `load_bundle` that the card may give."""
    return _card_of(store.open_published(prefix, digest), f"{store.url}/{prefix}")


def _card_of(published: Published, uri: str) -> ModelCard:
    if CARD not in published.names:
        raise BundleError(uri, f"it holds {', '.join(published.names)}; {CARD} is missing")
    return _parse_card(published.read(CARD), uri)


def check_fingerprints(card: ModelCard, current: Mapping[str, str]) -> None:
    """FormulaMismatchError naming every feature of the card whose formula in `current` is another one or not there."""
    changed = [name for name in card.features if current.get(name) != card.fingerprints[name]]
    if changed:
        raise FormulaMismatchError(f"{card.model} of market {card.market}, cut-off {card.cutoff}", changed)


def _read_weights(published: Published, uri: str) -> bytes:
    data = published.read(WEIGHTS)
    if not data:
        raise ArtifactCorruptedError(uri, f"{WEIGHTS} is empty")
    return data


# --- the card ---------------------------------------------------------------------------------------------------------


def _parse_card(data: bytes, uri: str) -> ModelCard:
    """The card in `data`; BundleError unless every key is known, present, of its type and fits the others."""
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BundleError(uri, f"{CARD} is not JSON ({error})") from error
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if version != FORMAT_VERSION:
        way_out = "a version trained now is `champion` after `trading models promote VERSION --market MARKET`"
        raise BundleError(uri, f"{CARD} has format_version {version!r}; this code reads {FORMAT_VERSION} ({way_out})")
    try:
        card = _CARD.validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise BundleError(uri, f"{CARD}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    # Written again it must be the same: pydantic skips keys it does not know and fills in those that have defaults.
    again = _CARD.dump_python(card, mode="json")
    if again != raw:
        unknown = sorted(_paths(raw) ^ _paths(again))
        raise BundleError(uri, f"{CARD} has unknown, missing or altered keys: {', '.join(unknown) or 'a value'}")
    _check_card(card, uri)
    return card


def _paths(value: Any, prefix: str = "") -> set[str]:
    if not isinstance(value, dict):
        return {prefix}
    return {path for key, item in value.items() for path in _paths(item, f"{prefix}.{key}" if prefix else str(key))}


def _check_card(card: ModelCard, uri: str) -> None:
    problems = []
    if card.model not in MODELS:
        problems.append(f"unknown model class '{card.model}' (known: {', '.join(sorted(MODELS))})")
    if set(card.fingerprints) != set(card.features):
        problems.append("features and fingerprints name different features")
    if not 1 <= card.members <= MAX_MEMBERS:
        problems.append(f"{card.members} members; there are 1 to {MAX_MEMBERS}")
    horizons = len(card.spec.horizons)
    by_name = (*card.class_calibration.items(), *card.thresholds.items())
    for what, given in (("calibrations", card.calibration), ("intervals", card.intervals), *by_name):
        if len(given) != horizons:
            problems.append(f"{len(given)} {what} for {horizons} horizons")
    problems += [*_spec_problems(card), *_scaler_problems(card)]
    if card.validation_end > card.cutoff or card.train_end > card.cutoff:
        problems.append(f"the cut-off {card.cutoff} lies before decisions that were learned from")
    try:
        for text in card.calibration:
            calibrator_from_json(text)
        for text in card.intervals:
            Conformal.from_json(text)
        for text in (text for texts in card.class_calibration.values() for text in texts):
            ClassCalibration.from_json(text)
        for objective, texts in card.thresholds.items():
            if wrong := {ThresholdChoice.from_json(text).objective for text in texts} - {objective}:
                problems.append(f"thresholds of {objective} that were searched for {', '.join(sorted(wrong))}")
        Adaptive.from_json(card.adaptive)
    except InvalidConfigError as error:
        problems.append(f"a calibration cannot be read ({'; '.join(error.problems)})")
    if problems:
        raise BundleError(uri, f"{CARD}: {'; '.join(problems)}")


def _spec_problems(card: ModelCard) -> list[str]:
    """What is wrong with the shapes: a card of a few bytes must not be able to ask for any amount of memory."""
    spec, problems = card.spec, []
    if sorted(card.class_calibration) != sorted(set(spec.targets) & CLASS_TARGETS.keys()):
        problems.append(
            f"classes are calibrated of {sorted(card.class_calibration)}, the targets are {list(spec.targets)}"
        )
    if not (0.0 <= card.class_threshold <= FARTHEST_LABEL and 0.0 < card.barrier_width <= FARTHEST_LABEL):
        problems.append(
            f"class_threshold {card.class_threshold}, barrier_width {card.barrier_width}: at most {FARTHEST_LABEL}"
        )
    if not 1 <= spec.encoder_length <= LONGEST_ENCODER:
        problems.append(f"encoder_length {spec.encoder_length}; it lies between 1 and {LONGEST_ENCODER}")
    if list(spec.horizons) != sorted(set(spec.horizons)) or not all(1 <= h <= LONGEST_HORIZON for h in spec.horizons):
        problems.append(f"horizons {list(spec.horizons)}; they ascend and lie between 1 and {LONGEST_HORIZON}")
    try:
        names = json.loads(card.vocabulary)
        known = tuple(len(names[_VOCABULARY[column]]) + 1 for column in card.static)
    except (KeyError, TypeError, ValueError):
        return [*problems, f"the vocabulary does not hold the names of the static columns {list(card.static)}"]
    if known != spec.static_cardinalities:
        problems.append(f"cardinalities {list(spec.static_cardinalities)} for a vocabulary of {list(known)}")
    return problems


def _scaler_problems(card: ModelCard) -> list[str]:
    """What keeps the card's scaler from making the channels that the model reads."""
    try:
        scaler = Scaler.from_json(card.scaler)
    except InvalidConfigError as error:
        return [f"the scaler cannot be read ({'; '.join(error.problems)})"]
    if scaler.features != card.inputs or scaler.channels != card.spec.channels:
        made = f"makes {', '.join(scaler.channels)} of {', '.join(scaler.features)}"
        return [f"the scaler {made}; the model reads {', '.join(card.spec.channels)} of {', '.join(card.inputs)}"]
    return []


# --- the module -------------------------------------------------------------------------------------------------------


def _rebuild(card: ModelCard, uri: str, device: Literal["cpu", "meta"]) -> nn.Module:
    """The card's module with weights still to be loaded; on "meta" it has shapes and takes no memory for tensors.

    Torch's random state is left as it was.
    """
    entry = MODELS[card.model]
    try:
        config = entry.config(**card.architecture)
        with torch.random.fork_rng(devices=[]), torch.device(device):
            return _composed(card, lambda: entry.build(config, card.spec))
    except (TypeError, ValueError, ArithmeticError, LookupError, RuntimeError, MemoryError) as error:
        raise BundleError(uri, f"{CARD}: the architecture of '{card.model}' is not valid: {error}") from error


def _composed(card: ModelCard, build: Callable[[], nn.Module]) -> nn.Module:
    """The card's networks as one module. ValueError (also KeyError, IndexError) when they cannot be put together so."""
    count, column = 1, 0
    if card.scope == "symbol":
        column = card.static.index("symbol")
        count = card.spec.static_cardinalities[column]
    first = build()
    if count * card.members > 1 and isinstance(first, HasFiles):
        raise ValueError("a model with files of its own has one network")
    if count * card.members == 1:
        return first
    networks = [joined([build() for _ in range(card.members)]) for _ in range(count)]
    return PerSymbol(networks, column) if card.scope == "symbol" else networks[0]


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """The state by name, each tensor once: modules may share parameters."""
    seen: set[int] = set()
    found = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[name] = tensor.detach()
    return found


def _loaded(card: ModelCard, shapes: nn.Module, data: bytes, uri: str) -> nn.Module:
    """The card's module with the tensors in `data`; BundleError unless they are exactly those of `shapes`.

    Compared before the module is built: a card of a few bytes can ask for any number of weights, and gets memory for
    no more than the file holds.
    """
    try:
        stored = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise BundleError(uri, f"{WEIGHTS} cannot be read ({error})") from error
    _require_same(stored, _tensors(shapes), uri)
    module = _rebuild(card, uri, "cpu")
    with torch.no_grad():
        for name, tensor in _tensors(module).items():
            tensor.copy_(stored[name])
    return module


def _require_same(stored: Mapping[str, Tensor], own: Mapping[str, Tensor], uri: str) -> None:
    """BundleError unless names, shapes and dtypes are those of `own`, and all numbers finite."""
    if set(stored) != set(own):
        raise BundleError(
            uri, f"{WEIGHTS} and the architecture name different tensors: {_some_of(set(stored) ^ set(own))}"
        )
    for name, tensor in own.items():
        given = stored[name]
        if given.shape != tensor.shape or given.dtype != tensor.dtype:
            found, wanted = (f"{list(t.shape)} {t.dtype}" for t in (given, tensor))
            raise BundleError(uri, f"{WEIGHTS}: '{name}' is {found}, the architecture has {wanted}")
        if given.is_floating_point() and not torch.isfinite(given).all():
            raise BundleError(uri, f"{WEIGHTS}: '{name}' holds values that are not finite numbers")


def _load_files(module: nn.Module, files: Mapping[str, bytes], uri: str) -> None:
    """Hands the model its own files, whose checksums have been verified; BundleError when it refuses them."""
    if isinstance(module, HasFiles):
        try:
            module.load_files(files)
        except ValueError as error:
            raise BundleError(uri, str(error)) from error


def _some_of(names: set[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:5]) + (f" and {len(ordered) - 5} more" if len(ordered) > 5 else "")
