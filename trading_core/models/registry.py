"""The model zoo by name. Listing it is cheap: a member's file (and with it torch) is imported when it is first used.

A member is one file with three names: `CONFIG` (a frozen dataclass that states its own bounds), `build(config, spec)`
and, where the weights are solved for instead of trained by gradients, `fit_closed_form(module, train, validation)`.
`SEARCH` says which of the config's fields are worth searching for, and where (see models/search.py). `COMPILES = True`:
its networks are `Compilable`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from trading_core.errors import UnknownNameError
from trading_core.models.search import SearchSpace
from trading_core.schema import InputSpec

if TYPE_CHECKING:
    from torch import Tensor, nn

    # One batch: x [B,E,C] float32, static [B,K] int64, y [B,H] float32 scaled returns, labels [B,H,L] float32: a column
    # for each of spec.targets, NaN where it is not known.
    Batch: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor]
    # Called once per pass over the data; every call starts from the first batch.
    Batches: TypeAlias = Callable[[], Iterable[Batch]]
    # (module, training batches, validation batches): the weights in place; the validation part only says when to stop.
    FitClosedForm: TypeAlias = Callable[[nn.Module, Batches, Batches], None]


@runtime_checkable
class HasFiles(Protocol):
    """A module whose state is not (only) tensors but files in a text format of their own, such as LightGBM's trees.

    A bundle carries them beside the weights. Nothing in them may be code, and `load_files` trusts nothing in them.
    """

    @property
    def file_names(self) -> tuple[str, ...]:
        """Exactly the files that `files` gives once it is fitted and `load_files` takes; known from config and spec."""
        ...

    def files(self) -> dict[str, bytes]:
        """The module's files by name; empty before it is fitted."""
        ...

    def load_files(self, files: Mapping[str, bytes]) -> None:
        """Takes what `files` gave. ValueError, and nothing changed, when a name or what a file holds is not valid."""
        ...


@runtime_checkable
class Compilable(Protocol):
    """A module with a part that `torch.compile` makes faster and that is worth the wait."""

    def compiled(self, backend: str = "inductor") -> AbstractContextManager[None]:
        """Inside, that part runs compiled; afterwards the module is as it was."""
        ...


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One architecture. Its module computes forward(x [B,E,C] float32, static [B,K] int64) -> [B,H,O].

    The output holds the columns of `spec.targets` side by side (see schema.InputSpec); quantiles do not decrease along
    their columns. A sample's output never depends on the other samples of its batch (in eval mode).
    """

    name: str
    module: str  # where CONFIG, build and perhaps fit_closed_form live
    description: str

    @property
    def config(self) -> type[Any]:
        """The frozen dataclass of the architecture's options; it raises ValueError outside its bounds."""
        config: type[Any] = import_module(self.module).CONFIG
        return config

    @property
    def build(self) -> Callable[[Any, InputSpec], nn.Module]:
        """(config, spec) -> a module with fresh weights, drawn from torch's current random state."""
        build: Callable[[Any, InputSpec], nn.Module] = import_module(self.module).build
        return build

    @property
    def fit_closed_form(self) -> FitClosedForm | None:
        """Solves the weights in place, reading the batches as often as needed; None for models trained by gradients."""
        fit: FitClosedForm | None = getattr(import_module(self.module), "fit_closed_form", None)
        return fit

    @property
    def compiles(self) -> bool:
        """Whether its networks are `Compilable`."""
        found: bool = getattr(import_module(self.module), "COMPILES", False)
        return found

    @property
    def search(self) -> SearchSpace:
        """The ranges of the config's fields that a search may try; empty where there is nothing to search for."""
        search: SearchSpace = getattr(import_module(self.module), "SEARCH", {})
        return search


_ENTRIES = (
    ModelEntry("tft", "trading_core.models.tft", "Temporal Fusion Transformer; overlapping windows share their rows"),
    ModelEntry("lstm", "trading_core.models.lstm", "LSTM over the window with a monotone quantile head"),
    ModelEntry("gru", "trading_core.models.gru", "GRU over the window with a monotone quantile head"),
    ModelEntry("transformer", "trading_core.models.transformer", "Transformer encoder over the window, mean or CLS"),
    ModelEntry("mlp", "trading_core.models.mlp", "Multilayer perceptron over the window laid flat"),
    ModelEntry("hybrid", "trading_core.models.hybrid", "LSTM, Transformer, cross-attention and a mixture of experts"),
    ModelEntry("kan_former", "trading_core.models.kan_former", "Transformer and experts of Kolmogorov-Arnold layers"),
    ModelEntry("linear", "trading_core.models.linear", "Ridge regression on the last rows, solved in closed form"),
    ModelEntry("logistic", "trading_core.models.logistic", "Logistic regression of the direction on the last rows"),
    ModelEntry("lightgbm", "trading_core.models.trees", "Gradient-boosted trees on the last rows, by LightGBM"),
    ModelEntry("sma_cross", "trading_core.models.sma_cross", "The 50/200 rule: what followed each of its two states"),
    ModelEntry("base_rate", "trading_core.models.base_rate", "What the training labels say without any input"),
)

MODELS: dict[str, ModelEntry] = {entry.name: entry for entry in _ENTRIES}


def model_entry(name: str) -> ModelEntry:
    """The entry called `name`; UnknownNameError with the allowed names otherwise."""
    if name not in MODELS:
        raise UnknownNameError("model", name, list(MODELS))
    return MODELS[name]
