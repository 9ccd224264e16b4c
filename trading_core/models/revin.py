"""Reversible instance normalisation (Kim et al. 2022, https://openreview.net/forum?id=cGDAkQo1C0p)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class InstanceStatistics(NamedTuple):
    """Of each sample's own window, per channel. mean, std [B,R]; std is sqrt(variance + epsilon), never 0."""

    mean: Tensor
    std: Tensor


class RevIN(nn.Module):
    """x [B,E,R] -> gamma * (x - mean) / sqrt(variance + epsilon) + beta, with the moments of each window over time.

    The variance divides by E. Level and volatility are gone from the result; whoever still needs them takes them from
    the statistics. A window reads nothing but itself, so a sample does not depend on its batch.

    The published inverse brings an output back to its input channel's scale. No member of schema.Target is a price or
    any other channel, so there is none here (docs/decisions.md).
    """

    def __init__(self, channels: int, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> tuple[Tensor, InstanceStatistics]:
        mean = x.mean(dim=1)  # [B,E,R] -> [B,R]
        std = (x.var(dim=1, correction=0) + self.epsilon).sqrt()
        normal = (x - mean.unsqueeze(1)) / std.unsqueeze(1)
        return normal * self.gamma + self.beta, InstanceStatistics(mean, std)
