"""A network for each symbol behind one forward pass, and a pooled one for symbols that have none."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class PerSymbol(nn.Module):
    """forward(x [B,E,C], static [B,K]) -> [B,H,O]: each sample by the network of its symbol's code.

    networks: one per code of the symbol column; the first, of code 0, is the pooled one: it serves new symbols, and lends
    its weights to those with too little history. `column`: which static column holds the symbol.
    """

    def __init__(self, networks: Sequence[nn.Module], column: int) -> None:
        super().__init__()
        self.networks, self.column = nn.ModuleList(networks), column

    def forward(self, x: Tensor, static: Tensor) -> Tensor:
        codes = static[:, self.column]
        order = torch.argsort(codes, stable=True)
        present, counts = torch.unique(codes, return_counts=True)  # ascending, as `order`
        parts = [
            self.networks[code](x[rows], static[rows])
            for code, rows in zip(present.tolist(), order.split(counts.tolist()), strict=True)
        ]
        return torch.cat(parts)[torch.argsort(order)]  # [B,H,O], back in the batch's order
