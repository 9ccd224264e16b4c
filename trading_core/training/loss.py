"""The objective: quantile loss, plus a reward for ordering each session's symbols right."""

from __future__ import annotations

import torch
from torch import Tensor

EPSILON = 1e-8  # variances of scaled labels are near 1


def pinball(quantiles: Tensor, y: Tensor, levels: Tensor) -> Tensor:
    """Mean quantile loss max(q * e, (q - 1) * e), e = y - quantile (Koenker and Bassett 1978). A scalar.

    quantiles: [B,H,Q]. y: [B,H]. levels: [Q].
    """
    error = y.unsqueeze(-1) - quantiles  # [B,H] -> [B,H,Q]
    return torch.maximum(levels * error, (levels - 1.0) * error).mean()


def information_coefficient(score: Tensor, y: Tensor, date: Tensor) -> Tensor:
    """Mean over sessions and horizons of the Pearson correlation of `score` and `y` within a session. A scalar.

    score, y: [B,H]. date: [B] int64, the session's number 0 .. D-1. Sessions with fewer than 3 symbols, or whose labels
    are all equal, do not count; 0 when none does. A constant score has correlation 0, with a finite gradient.
    """
    sessions = int(date.max()) + 1

    def total(values: Tensor) -> Tensor:  # [B,H] -> [D,H]
        return values.new_zeros(sessions, values.shape[1]).index_add(0, date, values)

    count = total(torch.ones_like(y))
    score = score - (total(score) / count.clamp(min=1.0)).index_select(0, date)
    label = y - (total(y) / count.clamp(min=1.0)).index_select(0, date)
    variance = total(label * label)
    correlation = total(score * label) / torch.sqrt((total(score * score) + EPSILON) * (variance + EPSILON))  # [D,H]
    usable = (count >= 3.0) & (variance > EPSILON)
    return (correlation * usable).sum() / usable.sum().clamp(min=1)


def objective(quantiles: Tensor, y: Tensor, date: Tensor, levels: Tensor, ic_weight: float) -> Tensor:
    """pinball + ic_weight * (1 - information_coefficient of the median). A scalar; shapes as above."""
    loss = pinball(quantiles, y, levels)
    if ic_weight == 0.0:
        return loss
    median = quantiles[..., int((levels - 0.5).abs().argmin())]  # [B,H,Q] -> [B,H]
    return loss + ic_weight * (1.0 - information_coefficient(median, y, date))
