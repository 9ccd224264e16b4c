"""What a network looked at: its weights of channels and past sessions, averaged over many samples."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from trading_core.models.ensemble import Ensemble
from trading_core.models.per_symbol import PerSymbol
from trading_core.schema import Float32Array, FloatArray, IntArray

if TYPE_CHECKING:
    from trading_core.models.tft import Interpretation


@runtime_checkable
class Interpretable(Protocol):
    """A network whose forecasts are made by weights that say where it looked, such as the TFT's."""

    def interpret(self, x: Tensor, static: Tensor) -> Interpretation:
        """The weights behind `forward(x [B,E,C], static [B,K])`, by sample."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class MeanWeights:
    """Means over samples; every row sums to one. attention [H,E+H]: of each horizon on the window's steps, then on the
    horizons; channels [C]; static [K]; future [1+context]: of the horizon and the context channels."""

    samples: int
    attention: FloatArray
    channels: FloatArray
    static: FloatArray
    future: FloatArray


def mean_weights(module: nn.Module, batches: Iterable[tuple[Float32Array, IntArray]]) -> MeanWeights | None:
    """The mean weights over batches of (x [B,E,C], static [B,K]); None where the network has none or there is no sample.

    An ensemble's are the mean of its members', those of networks per symbol come from each sample's own network.
    """
    module.eval()
    weight = next(iter(module.state_dict().values()), torch.zeros(()))
    total: list[Tensor] | None = None
    samples = 0
    with torch.inference_mode():
        for x, static in batches:
            found = _sums(module, torch.from_numpy(x).to(weight.device), torch.from_numpy(static).to(weight.device))
            if found is None:
                return None
            total = found if total is None else _added(total, found)
            samples += len(x)
    if total is None or not samples:
        return None
    return MeanWeights(samples, *((part / samples).cpu().numpy() for part in total))


def _sums(module: nn.Module, x: Tensor, static: Tensor) -> list[Tensor] | None:
    """The sum over the samples of each field of Interpretation, in float64."""
    if isinstance(module, Interpretable):
        return [part.double().sum(dim=0) for part in module.interpret(x, static)]  # [B,...] -> [...]
    if isinstance(module, Ensemble):
        parts = [_sums(member, x, static) for member in module.members]
        share = 1.0 / len(parts)
    elif isinstance(module, PerSymbol):
        codes = static[:, module.column]
        rows = [(code, codes == code) for code in torch.unique(codes).tolist()]
        parts = [_sums(module.networks[code], x[mine], static[mine]) for code, mine in rows]
        share = 1.0
    else:
        return None
    total: list[Tensor] | None = None
    for part in parts:
        if part is None:
            return None
        total = part if total is None else _added(total, part)
    return None if total is None else [share * field for field in total]


def _added(left: list[Tensor], right: list[Tensor]) -> list[Tensor]:
    return [a + b for a, b in zip(left, right, strict=True)]
