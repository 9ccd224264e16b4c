"""Several networks of one architecture as one: the mean of their outputs (Lakshminarayanan et al. 2017).

Quantiles are averaged level by level (Vincent 1912), logits before they become probabilities.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from trading_core.models.forward import PanelForward


class Ensemble(nn.Module):
    """forward(x [B,E,C], static [B,K]) -> [B,H,O], the members' mean: means of ascending quantiles ascend."""

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor, static: Tensor) -> Tensor:
        return torch.stack([member(x, static) for member in self.members]).mean(dim=0)  # M x [B,H,O] -> [B,H,O]


class PanelEnsemble(Ensemble):
    """An ensemble of members that share the work on a panel's rows: see models.forward.PanelForward."""

    def __init__(self, members: list[nn.Module], encoder_length: int) -> None:
        super().__init__(members)
        self.encoder_length = encoder_length

    def forward_panel(self, channels: Tensor, static: Tensor, symbol: Tensor, column: Tensor) -> Tensor:
        members = (member for member in self.members if isinstance(member, PanelForward))  # all of them are
        parts = [member.forward_panel(channels, static, symbol, column) for member in members]
        return torch.stack(parts).mean(dim=0)  # M x [B,H,O] -> [B,H,O]


def joined(members: list[nn.Module]) -> nn.Module:
    """The only member, or an ensemble of all."""
    first = members[0]
    if len(members) == 1:
        return first
    return PanelEnsemble(members, first.encoder_length) if isinstance(first, PanelForward) else Ensemble(members)
