"""A gated mixture of experts per horizon (Jacobs et al. 1991; Shazeer et al. 2017, https://arxiv.org/abs/1701.06538).

All experts of all horizons are computed in one batched product, dense: at this size, sending samples to some experts
only would cost more than it saves, so `top_k` changes the mixture and not the work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trading_core.models.heads import monotone_quantiles, normal_quantile_bias
from trading_core.schema import InputSpec, Target

REGRESSION = (Target.QUANTILES, Target.VOLATILITY, Target.RANK)
CLASSIFICATION = (Target.DIRECTION, Target.CLASSES, Target.BARRIER)


class GroupedLinear(nn.Module):
    """[B,G,D] -> [B,G,O]: one linear layer per group, drawn as nn.Linear draws its own."""

    def __init__(self, groups: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = in_features**-0.5
        self.weight = nn.Parameter(torch.empty(groups, in_features, out_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(groups, out_features).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bgd,gdo->bgo", x, self.weight) + self.bias


# (groups, in_features, out_features) -> a layer [B,G,D] -> [B,G,O] of its own for each group, with a `bias` [G,O].
GroupedLayer: TypeAlias = Callable[[int, int, int], nn.Module]


class ExpertHead(nn.Module):
    """What every expert says of some of the targets: hidden [B,G,F] -> one [B,G,w] per target. G = horizons x experts."""

    def __init__(
        self, groups: int, in_features: int, spec: InputSpec, targets: tuple[Target, ...], layer: GroupedLayer
    ) -> None:
        super().__init__()
        self.targets, self.widths = targets, [spec.width(target) for target in targets]
        self.middle = spec.median
        self.layer = layer(groups, in_features, sum(self.widths))
        if Target.QUANTILES in targets:
            start = sum(self.widths[: targets.index(Target.QUANTILES)])
            with torch.no_grad():
                bias = self.layer.get_parameter("bias")
                bias[:, start : start + len(spec.quantiles)] = normal_quantile_bias(spec.quantiles, spec.median)

    def forward(self, hidden: Tensor) -> dict[Target, Tensor]:
        parts = dict(zip(self.targets, self.layer(hidden).split(self.widths, dim=-1), strict=True))
        if Target.QUANTILES in parts:
            parts[Target.QUANTILES] = monotone_quantiles(parts[Target.QUANTILES], self.middle)
        return parts


@dataclass(frozen=True, slots=True, eq=False)
class Usage:
    """Sums of gate values [H,N] over the samples seen since the mode last changed; new objects, nothing in place."""

    total: Tensor | None = None
    samples: int = 0
    training: bool = False

    def plus(self, gates: Tensor, training: bool) -> Usage:
        """With gates [B,H,N]; starts again when the mode or the device is another one."""
        added = gates.sum(dim=0, dtype=torch.float64 if gates.device.type == "cpu" else None)  # [B,H,N] -> [H,N]
        if self.total is None or training != self.training or added.device != self.total.device:
            return Usage(added, len(gates), training)
        return Usage(self.total + added, self.samples + len(gates), training)

    def mean(self) -> list[list[float]]:
        """[H][N] mean gate values; empty before the first sample."""
        if self.total is None or not self.samples:
            return []
        means: list[list[float]] = (self.total / self.samples).tolist()
        return means


def require_choosing(top_k: int) -> None:
    """ValueError for one expert per sample: its softmax is 1 whatever the gate says, so the gate would learn nothing."""
    if top_k == 1:
        raise ValueError("top_k is 1; it must be 0 (all experts) or at least 2, or the gate has no gradient")


class MixtureOfExperts(nn.Module):
    """features [B,D] -> [B,H,O], the columns of `spec.targets`; every horizon has its own N experts and its own gate.

    body: [B,D] -> [B,H*N*F], the experts' hidden layers side by side. Each expert has a regression head and a
    classification head on its F columns, for those targets that the spec names; a head is one `layer`. gate: softmax of
    a linear layer over all experts, or over the `top_k` largest (Shazeer et al. 2017, equations 3 to 5, without noise);
    0 means all.

    Regression columns are convex combinations of the experts' columns. An expert's quantiles do not decrease, so their
    combination does not either. Classes are mixed as probabilities and handed on as logits again.
    """

    def __init__(
        self,
        in_features: int,
        body: nn.Module,
        expert_size: int,
        experts: int,
        top_k: int,
        spec: InputSpec,
        layer: GroupedLayer = GroupedLinear,
    ) -> None:
        super().__init__()
        if top_k > experts:
            raise ValueError(f"top_k is {top_k}; it must not exceed the number of experts {experts}")
        self.horizons, self.experts, self.top_k, self.targets = spec.horizons, experts, top_k or experts, spec.targets
        groups = len(spec.horizons) * experts
        self.body, self.gate = body, nn.Linear(in_features, groups)
        self.heads = nn.ModuleList(
            ExpertHead(groups, expert_size, spec, targets, layer)
            for kind in (REGRESSION, CLASSIFICATION)
            if (targets := tuple(target for target in spec.targets if target in kind))
        )
        self._balance: Tensor | None = None  # of the last training forward
        self._usage = Usage()

    def forward(self, features: Tensor) -> Tensor:
        shape = (len(self.horizons), self.experts)
        logits = self.gate(features).unflatten(-1, shape)  # [B,H*N] -> [B,H,N]
        log_gates = F.log_softmax(keep_top(logits, self.top_k), dim=-1)  # -inf where an expert is left out
        self._note(logits, log_gates)
        hidden = self.body(features).unflatten(-1, (shape[0] * shape[1], -1))  # [B,H*N*F] -> [B,H*N,F]
        said: dict[Target, Tensor] = {}
        for head in self.heads:
            said.update(head(hidden))
        mixed = [mix(target, said[target].unflatten(1, shape), log_gates) for target in self.targets]
        return torch.cat(mixed, dim=-1)  # [B,H,O]

    def _note(self, logits: Tensor, log_gates: Tensor) -> None:
        gates = log_gates.exp()
        self._usage = self._usage.plus(gates.detach(), self.training)
        if self.training and self.top_k < self.experts:
            self._balance = routing_balance_loss(F.softmax(logits, dim=-1), log_gates.isfinite()).mean()
        elif self.training:
            self._balance = importance_loss(gates).mean()

    def auxiliary_loss(self) -> Tensor:
        """The load-balance loss of the last training forward, averaged over horizons; 0 before the first.

        All experts mixed: `importance_loss`. Only the top k: `routing_balance_loss`.
        """
        return self.gate.bias.new_zeros(()) if self._balance is None else self._balance

    def figures(self) -> dict[str, float]:
        """`expert_usage/h<horizon>/e<expert>`: the mean gate value; the experts of a horizon sum to 1."""
        mean = self._usage.mean()
        return {
            f"expert_usage/h{horizon}/e{expert}": share
            for horizon, shares in zip(self.horizons, mean, strict=False)
            for expert, share in enumerate(shares)
        }

    def __getstate__(self) -> dict[str, Any]:
        # A loss with its graph can neither be copied nor is it part of the model.
        return {**self.__dict__, "_balance": None, "_usage": Usage()}


def keep_top(logits: Tensor, count: int) -> Tensor:
    """[...,N] with all but the `count` largest set to -inf; exactly `count` are kept, also among equal ones."""
    if count == logits.shape[-1]:
        return logits
    left_out = torch.ones_like(logits, dtype=torch.bool).scatter(-1, logits.topk(count).indices, False)
    return logits.masked_fill(left_out, -torch.inf)


def mix(target: Target, values: Tensor, log_gates: Tensor) -> Tensor:
    """The experts' columns of one target [B,H,N,w] and the gates' logarithms [B,H,N] -> [B,H,w]."""
    if target in REGRESSION:
        return convex_combination(values, log_gates.exp())
    shares = log_gates.unsqueeze(-1)  # [B,H,N,1]
    if target is Target.DIRECTION:
        up = (shares + F.logsigmoid(values)).logsumexp(dim=2)  # log of the mixture's P(up)  [B,H,1]
        down = (shares + F.logsigmoid(-values)).logsumexp(dim=2)
        return up - down
    return (shares + F.log_softmax(values, dim=-1)).logsumexp(dim=2)


def convex_combination(values: Tensor, gates: Tensor) -> Tensor:
    """values [B,H,N,w], gates [B,H,N] >= 0 -> [B,H,w], the sum over experts of gate * value.

    Added expert by expert: a rounded product and a rounded sum keep the order of two columns, whereas `sum(dim=2)`
    adds some columns in another order than others, and so lets quantiles that are equal cross by a rounding.
    """
    total = gates[:, :, 0, None] * values[:, :, 0]
    for n in range(1, values.shape[2]):
        total = total + gates[:, :, n, None] * values[:, :, n]
    return total


def importance_loss(gates: Tensor) -> Tensor:
    """gates [B,...,N] -> [...]: the squared coefficient of variation, over experts, of their summed gate values.

    Shazeer et al. 2017, equations 6 and 7, with weight 1. 0 when the batch uses all experts alike, else positive.
    """
    importance = gates.sum(dim=0)  # [B,...,N] -> [...,N]
    return importance.var(dim=-1, correction=0) / importance.mean(dim=-1).square()


def routing_balance_loss(probabilities: Tensor, chosen: Tensor) -> Tensor:
    """probabilities, chosen [B,...,N] -> [...]: N * sum over experts of f * P.

    Fedus et al. 2021 (Switch Transformer, https://arxiv.org/abs/2101.03961), equations 4 to 6, without their weight.
    f: an expert's share of the batch's choices, which has no gradient; P: its mean probability before the others were
    left out. 1 when all are used alike; N when one expert gets everything.
    """
    share = chosen.float().mean(dim=0)
    share = share / share.sum(dim=-1, keepdim=True)  # k choices per sample count as one
    return probabilities.shape[-1] * (share * probabilities.mean(dim=0)).sum(dim=-1)
