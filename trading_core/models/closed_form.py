"""What the models without gradients share: the samples they learn from, and what can be said without looking at inputs.

N samples, P inputs, H horizons, Q quantiles, L targets, O output columns (see schema.InputSpec).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trading_core.errors import TrainingFailedError
from trading_core.schema import InputSpec, Target

if TYPE_CHECKING:
    from trading_core.models.registry import Batches

CLASSES = 3  # of Target.CLASSES and Target.BARRIER


def require_targets(model: str, spec: InputSpec, given: Collection[Target]) -> None:
    """ValueError when the spec asks for a target that the model does not give."""
    missing = [str(target) for target in spec.targets if target not in given]
    if missing:
        allowed = ", ".join(str(target) for target in given)
        raise ValueError(f"targets name {', '.join(missing)}, which '{model}' does not give; it gives {allowed}")


def require_lags(lags: int, spec: InputSpec) -> None:
    """ValueError when the window has fewer rows than are to be read."""
    if lags > spec.encoder_length:
        raise ValueError(f"lags is {lags}; it must not exceed the encoder length {spec.encoder_length}")


def last_rows(x: Tensor, lags: int) -> Tensor:
    """[B,E,C] -> [B,lags*C]: the window's last rows side by side, the decision's own last."""
    return x[:, -lags:].flatten(1)


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """rows: [N,lags*C] float32 of `last_rows`. static: [N,K] int64. y: [N,H] float32. labels: [N,H,L] float32."""

    rows: Tensor
    static: Tensor
    y: Tensor
    labels: Tensor

    @classmethod
    def of(cls, batches: Batches, lags: int, part: str = "training") -> Samples:
        """One pass; whole windows are not kept. TrainingFailedError when there is no sample in that `part`."""
        parts = [(last_rows(x, lags), static, y, labels) for x, static, y, labels in batches()]
        if not sum(len(part[0]) for part in parts):
            raise TrainingFailedError(f"there is no {part} sample")
        return cls(*(torch.cat(column) for column in zip(*parts, strict=True)))


def sample_quantiles(values: Tensor, levels: tuple[float, ...]) -> Tensor:
    """[N,H] -> [H,Q], interpolated linearly between order statistics as numpy does (torch.quantile stops at 2^24)."""
    ordered = values.sort(dim=0).values
    position = torch.tensor(levels, dtype=torch.float64) * (len(ordered) - 1)
    low = position.floor().long()
    high = (low + 1).clamp(max=len(ordered) - 1)
    share = (position - low).unsqueeze(1)  # [Q,1]
    return (ordered[low] + share * (ordered[high] - ordered[low])).T  # [Q,H] -> [H,Q]


def unconditional(y: Tensor, labels: Tensor, spec: InputSpec, default: Tensor | None = None) -> Tensor:
    """[H,O] float64: the output that the samples themselves suggest, whatever their inputs.

    Quantiles of y; the logit of the share of rises; log shares of the classes; means of volatilities and ranks. What no
    sample has a label of is taken from `default` [H,O], TrainingFailedError without one. y: [N,H], labels: [N,H,L].
    """
    out = torch.zeros(len(spec.horizons), spec.outputs, dtype=torch.float64)
    for position, target in enumerate(spec.targets):
        values = y if target is Target.QUANTILES else labels[..., position]  # [N,H]
        columns = spec.columns_of(target)
        for h, horizon in enumerate(spec.horizons):
            known = values[:, h][torch.isfinite(values[:, h])].double()
            if len(known):
                out[h, columns] = _statistic(target, known, spec)
            elif default is None:
                raise TrainingFailedError(f"no training sample has a label of '{target}' at horizon {horizon}")
            else:
                out[h, columns] = default[h, columns]
    return out


def _statistic(target: Target, known: Tensor, spec: InputSpec) -> Tensor:
    """[w] of one target from its labels [N], all finite."""
    if target is Target.QUANTILES:
        return sample_quantiles(known.unsqueeze(1), spec.quantiles)[0]  # [N,1] -> [1,Q] -> [Q]
    if target is Target.DIRECTION:
        down, up = _log_shares(known, 2)
        return (up - down).unsqueeze(0)
    if target in (Target.CLASSES, Target.BARRIER):
        return _log_shares(known, CLASSES)
    return known.mean().unsqueeze(0)


def _log_shares(codes: Tensor, count: int) -> Tensor:
    """[count] logarithms of how often each code comes; one that never came counts as half a time, to stay finite."""
    times = torch.stack([(codes == code).sum() for code in range(count)]).double()
    return torch.log(times.clamp(min=0.5) / len(codes))
