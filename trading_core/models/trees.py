"""Gradient-boosted trees on the last rows of the window, by LightGBM (Ke et al. 2017): the baseline that is hardest to beat.

One booster per horizon and quantile, and one per horizon for every further target. Each stops where its own loss on the
validation part is lowest. Static columns are categories; one that training has not seen goes where a split sends
all that it does not name. The trees are kept in LightGBM's own text format, one file per booster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from trading_core.errors import InvalidConfigError, TrainingFailedError
from trading_core.models.bounds import require_between
from trading_core.models.closed_form import CLASSES, Samples, last_rows, require_lags
from trading_core.models.search import Real, SearchSpace, Whole
from trading_core.models.tree_text import ExpectedTrees, check_tree_text
from trading_core.schema import Float32Array, InputSpec, Target

if TYPE_CHECKING:
    import lightgbm

    from trading_core.models.registry import Batches

    _Sets: TypeAlias = tuple[lightgbm.Dataset, lightgbm.Dataset | None]


@dataclass(frozen=True, slots=True)
class LightGBMConfig:
    """The names in brackets are LightGBM's own."""

    rounds: int = 500  # at most [num_iterations]
    learning_rate: float = 0.05
    leaves: int = 31  # at most, of a tree [num_leaves]
    min_leaf_samples: int = 200  # [min_data_in_leaf]
    feature_fraction: float = 0.8  # share of the inputs that a tree may use
    row_fraction: float = 0.8  # share of the samples that a tree learns from [bagging_fraction]
    l2: float = 1.0  # [lambda_l2]
    lags: int = 1  # how many of the window's last rows are read
    patience: int = 50  # rounds without a lower validation loss before a booster stops

    def __post_init__(self) -> None:
        require_between("rounds", self.rounds, 1, 10_000)
        require_between("learning_rate", self.learning_rate, 1e-4, 1.0)
        require_between("leaves", self.leaves, 2, 1024)
        require_between("min_leaf_samples", self.min_leaf_samples, 1, 1_000_000)
        require_between("feature_fraction", self.feature_fraction, 0.01, 1.0)
        require_between("row_fraction", self.row_fraction, 0.01, 1.0)
        require_between("l2", self.l2, 0.0, 1e6)
        require_between("lags", self.lags, 1, 512)
        require_between("patience", self.patience, 1, 10_000)


@dataclass(frozen=True, slots=True)
class _Part:
    """One booster: columns `columns` of the output of horizon `h`, learned with `objective` and its `options`."""

    name: str
    h: int
    columns: slice
    target: Target
    objective: str  # as LightGBM names it
    metric: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def width(self) -> int:
        return self.columns.stop - self.columns.start

    @property
    def line(self) -> str:
        """How the objective reads in the text format."""
        return {"binary": "binary sigmoid:1", "multiclass": f"multiclass num_class:{CLASSES}"}.get(
            self.objective, self.objective
        )


def _parts(spec: InputSpec) -> tuple[_Part, ...]:
    found = []
    for h, horizon in enumerate(spec.horizons):
        for target in spec.targets:
            start, stop = spec.columns_of(target).start, spec.columns_of(target).stop
            if target is Target.QUANTILES:
                found += [
                    _Part(
                        f"h{horizon}_q{i}",
                        h,
                        slice(start + i, start + i + 1),
                        target,
                        "quantile",
                        "quantile",
                        {"alpha": q},
                    )
                    for i, q in enumerate(spec.quantiles)
                ]
                continue
            objective, metric, options = _OBJECTIVES.get(target, ("regression", "l2", {}))
            found.append(_Part(f"h{horizon}_{target}", h, slice(start, stop), target, objective, metric, options))
    return tuple(found)


_MULTICLASS: tuple[str, str, Mapping[str, Any]] = ("multiclass", "multi_logloss", {"num_class": CLASSES})
_OBJECTIVES: dict[Target, tuple[str, str, Mapping[str, Any]]] = {
    Target.DIRECTION: ("binary", "binary_logloss", {}),
    Target.CLASSES: _MULTICLASS,
    Target.BARRIER: _MULTICLASS,
}


class TreesModel(nn.Module):
    """forward(x [B,E,C], static [B,K]) -> [B,H,O], every target; zeros before it has trees. Runs on the CPU.

    It holds no tensor: its state is `files` (see trading_core.models.registry.HasFiles). The threads are torch's.
    """

    def __init__(self, config: LightGBMConfig, spec: InputSpec) -> None:
        super().__init__()
        require_lags(config.lags, spec)
        self.config, self.spec, self.parts = config, spec, _parts(spec)
        lagged = tuple(f"{name}_lag{lag}" for lag in range(config.lags - 1, -1, -1) for name in spec.channels)
        self.categories = tuple(f"static_{k}" for k in range(len(spec.static_cardinalities)))
        self.inputs = lagged + self.categories
        self.texts: dict[str, bytes] = {}
        self.boosters: dict[str, lightgbm.Booster] = {}

    @property
    def file_names(self) -> tuple[str, ...]:
        return tuple(f"trees_{part.name}.txt" for part in self.parts)

    def files(self) -> dict[str, bytes]:
        return dict(self.texts)

    def load_files(self, files: Mapping[str, bytes]) -> None:
        if set(files) != set(self.file_names):
            raise ValueError(f"the files are {', '.join(sorted(files))}; expected {', '.join(self.file_names)}")
        texts, boosters = {}, {}
        for name, part in zip(self.file_names, self.parts, strict=True):
            try:
                boosters[part.name] = self._booster(files[name], part)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
            texts[name] = bytes(files[name])
        self.texts, self.boosters = texts, boosters

    def _booster(self, data: bytes, part: _Part) -> lightgbm.Booster:
        expected = ExpectedTrees(part.line, part.width, self.inputs, self.config.rounds, self.config.leaves)
        text, library = check_tree_text(data, expected), _library()
        try:
            booster: lightgbm.Booster = library.Booster(model_str=text)
        except library.basic.LightGBMError as error:
            raise ValueError(f"LightGBM refuses it ({error})") from error
        return booster

    def rows(self, last: Tensor, static: Tensor) -> Float32Array:
        """[B,L*C] of `last_rows` and [B,K] codes -> [B,L*C+K], the inputs of the trees."""
        inputs: Float32Array = torch.cat((last, static.to(last.dtype)), dim=1).cpu().numpy()
        return inputs

    def forward(self, x: Tensor, static: Tensor) -> Tensor:
        output = np.zeros((len(x), len(self.spec.horizons), self.spec.outputs), dtype=np.float32)
        if len(x):
            rows, threads = self.rows(last_rows(x, self.config.lags), static), torch.get_num_threads()
            for part in self.parts:
                if part.name in self.boosters:
                    raw = self.boosters[part.name].predict(rows, raw_score=True, num_threads=threads)
                    output[:, part.h, part.columns] = np.asarray(raw).reshape(len(x), part.width)
        if Target.QUANTILES in self.spec.targets:
            columns = self.spec.columns_of(Target.QUANTILES)
            output[..., columns] = np.sort(output[..., columns], axis=-1)  # boosters of their own may cross
        return torch.from_numpy(output).to(x)


def fit_closed_form(module: nn.Module, train: Batches, validation: Batches) -> None:
    """Grows all boosters. The draws of rows and inputs follow torch's random state; the same trees for any threads.

    Without a validation label of its target a booster grows all rounds.
    TrainingFailedError when there is no training or validation sample, or no training label of a target.
    """
    if not isinstance(module, TreesModel):
        raise TypeError(f"expected a TreesModel, not {type(module).__name__}")
    seed = int(torch.randint(2**31 - 1, ()))
    samples = Samples.of(train, module.config.lags)
    held_out = Samples.of(validation, module.config.lags, "validation")
    data, reference = (module.rows(part.rows, part.static) for part in (samples, held_out))
    whole = _datasets(module, data, reference)
    texts = {}
    for part, name in zip(module.parts, module.file_names, strict=True):
        position = module.spec.targets.index(part.target)
        labels, others = (_labels(part, position, found) for found in (samples, held_out))
        known, known_others = np.isfinite(labels), np.isfinite(others)
        if not known.any():
            horizon = module.spec.horizons[part.h]
            raise TrainingFailedError(f"no training sample has a label of '{part.target}' at horizon {horizon}")
        sets = whole
        if not (known.all() and known_others.all()):
            sets = _datasets(module, data[known], reference[known_others])
        sets[0].set_label(labels[known])
        if sets[1] is not None:
            sets[1].set_label(others[known_others])
        texts[name] = _grow(module, part, sets, seed)
    module.load_files(texts)


def _library() -> ModuleType:
    """LightGBM, imported when trees are grown or read; InvalidConfigError where its C++ part cannot be loaded."""
    try:
        import lightgbm
    except (ImportError, OSError) as error:
        remedy = "install the OpenMP runtime (Debian: apt install libgomp1; macOS: brew install libomp)"
        raise InvalidConfigError(
            "The model 'lightgbm'", [f"its library cannot be loaded ({error}); {remedy}"]
        ) from error
    return lightgbm


def _labels(part: _Part, position: int, samples: Samples) -> Float32Array:
    """[N] labels of the part's horizon."""
    values = samples.y if part.target is Target.QUANTILES else samples.labels[..., position]  # [N,H]
    labels: Float32Array = values[:, part.h].numpy()
    return labels


def _datasets(module: TreesModel, data: Float32Array, reference: Float32Array) -> _Sets:
    """The inputs in bins, for all boosters alike: bins depend on no label. No validation set without its rows."""
    params = {**_common(), "min_data_in_leaf": module.config.min_leaf_samples}
    columns = [module.inputs.index(name) for name in module.categories]
    train: lightgbm.Dataset = _library().Dataset(
        data,
        np.zeros(len(data), np.float32),
        feature_name=list(module.inputs),
        categorical_feature=columns,
        params=params,
    )
    held_out = train.create_valid(reference, np.zeros(len(reference), np.float32)) if len(reference) else None
    return train, held_out


def _common() -> dict[str, Any]:
    return {
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": torch.get_num_threads(),
        "feature_pre_filter": False,  # it would drop inputs by the labels that the bins were first made for
        "verbosity": -1,
    }


def _grow(module: TreesModel, part: _Part, sets: _Sets, seed: int) -> bytes:
    config = module.config
    params = {
        **_common(),
        "objective": part.objective,
        "metric": part.metric,
        **part.options,
        "learning_rate": config.learning_rate,
        "num_leaves": config.leaves,
        "min_data_in_leaf": config.min_leaf_samples,
        "feature_fraction": config.feature_fraction,
        "bagging_fraction": config.row_fraction,
        "bagging_freq": 1 if config.row_fraction < 1.0 else 0,
        "lambda_l2": config.l2,
        "seed": seed,
    }
    (train, held_out), library = sets, _library()
    stopping = [library.early_stopping(config.patience, verbose=False)]
    watched = {} if held_out is None else {"valid_sets": [held_out], "callbacks": stopping}
    booster: lightgbm.Booster = library.train(params, train, config.rounds, **watched)
    # best_iteration is 0 where nothing was held out: all rounds are kept.
    return booster.model_to_string(num_iteration=booster.best_iteration or None).encode("ascii")


def build(config: LightGBMConfig, spec: InputSpec) -> nn.Module:
    return TreesModel(config, spec)


CONFIG = LightGBMConfig
SEARCH: SearchSpace = {
    "learning_rate": Real(0.01, 0.2, log=True),
    "leaves": Whole(4, 255, log=True),
    "min_leaf_samples": Whole(20, 2000, log=True),
    "feature_fraction": Real(0.2, 1.0),
    "row_fraction": Real(0.4, 1.0),
    "l2": Real(1e-3, 1000.0, log=True),
}
