"""The last layer of the networks: features in, non-decreasing quantiles out; and the embedding of static columns."""

from __future__ import annotations

from math import expm1, log
from statistics import NormalDist

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trading_core.schema import InputSpec, Target


class MonotoneQuantileHead(nn.Module):
    """[B,D] -> [B,H,Q]: the middle quantile is free, the others are it plus or minus summed softplus steps.

    Steps are positive, so quantiles cannot cross. The steps' biases start at the gaps of a standard normal, because
    labels scaled by their volatility are close to one.
    """

    def __init__(self, in_features: int, spec: InputSpec) -> None:
        super().__init__()
        self.horizons, self.count, self.middle = len(spec.horizons), len(spec.quantiles), spec.median
        self.linear = nn.Linear(in_features, self.horizons * self.count)
        with torch.no_grad():
            self.linear.bias.copy_(normal_quantile_bias(spec.quantiles, spec.median).repeat(self.horizons))

    def forward(self, features: Tensor) -> Tensor:
        raw = self.linear(features).unflatten(-1, (self.horizons, self.count))  # [B,H*Q] -> [B,H,Q]
        return monotone_quantiles(raw, self.middle)


def normal_quantile_bias(quantiles: tuple[float, ...], middle: int) -> Tensor:
    """[Q] that `monotone_quantiles` turns into the quantiles of a standard normal."""
    points = [NormalDist().inv_cdf(q) for q in quantiles]
    gaps = [abs(points[i] - points[i + (1 if i < middle else -1)]) for i in range(len(points)) if i != middle]
    start = [log(expm1(gap)) for gap in gaps]  # softplus(start) = gap
    start.insert(middle, points[middle])
    return torch.tensor(start)


def monotone_quantiles(raw: Tensor, middle: int) -> Tensor:
    """[...,Q] -> [...,Q], non-decreasing: column `middle` is taken as it is, the others are steps away from it."""
    centre = raw[..., middle : middle + 1]
    below = F.softplus(raw[..., :middle])
    above = F.softplus(raw[..., middle + 1 :])
    down = centre - below.flip(-1).cumsum(-1).flip(-1)  # farther from the middle = more steps down
    return torch.cat((down, centre, centre + above.cumsum(-1)), dim=-1)


class OutputHead(nn.Module):
    """[B,D] -> [B,H,O]: the columns of `spec.targets` side by side; quantiles cannot cross, the others are linear."""

    def __init__(self, in_features: int, spec: InputSpec) -> None:
        super().__init__()
        self.horizons = len(spec.horizons)
        self.parts = nn.ModuleList(
            MonotoneQuantileHead(in_features, spec)
            if target is Target.QUANTILES
            else nn.Linear(in_features, self.horizons * spec.width(target))
            for target in spec.targets
        )

    def forward(self, features: Tensor) -> Tensor:
        parts = [part(features) for part in self.parts]
        return torch.cat(
            [part if part.dim() == 3 else part.unflatten(-1, (self.horizons, -1)) for part in parts], dim=-1
        )  # [B,H*w] -> [B,H,w], side by side [B,H,O]


def embedding_size(cardinality: int, limit: int) -> int:
    """Columns of the embedding of a category: about 1.6 * n^0.56 (fastai's rule), at most `limit`."""
    return max(1, min(limit, round(1.6 * cardinality**0.56)))


class StaticEmbedding(nn.Module):
    """static [B,K] int64 -> [B,D]: one embedding per static column, side by side. D = 0 when there is none."""

    def __init__(self, cardinalities: tuple[int, ...], limit: int) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(n, embedding_size(n, limit)) for n in cardinalities)
        self.width = sum(embedding_size(n, limit) for n in cardinalities)

    def forward(self, static: Tensor) -> Tensor:
        parts = [table(static[:, k]) for k, table in enumerate(self.tables)]
        if not parts:
            return torch.zeros(len(static), 0, device=static.device)
        return torch.cat(parts, dim=-1)  # K x [B,d_k] -> [B,D]
