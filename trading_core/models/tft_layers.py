"""The layers of the Temporal Fusion Transformer (Lim et al. 2021, https://arxiv.org/abs/1912.09363, sections 4.1 and 4.4).

They compute what pytorch-forecasting's layers compute. Its variant of the gated residual network takes a skip connection
of another width through linear interpolation, a learnt gate per column and a LayerNorm.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def interpolation(inputs: int, outputs: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(low, high [outputs] int64, share [outputs]): output k is (1 - share) x[low] + share x[high], ends on ends.

    In the precision and the order in which torch's own linear interpolation finds its places for numbers `like` these.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    step = torch.tensor(inputs - 1, dtype=dtype, device=like.device) / max(outputs - 1, 1)
    place = step * torch.arange(outputs, dtype=dtype, device=like.device)
    low = place.long().clamp(max=inputs - 1)
    return low, (low + 1).clamp(max=inputs - 1), (place - low).to(like.dtype)


class GateAddNorm(nn.Module):
    """(x [...,I], skip [...,O]) -> [...,O]: LayerNorm of the skip connection plus the gated x.

    The gate is a gated linear unit (Dauphin et al. 2017): a linear layer times the sigmoid of another one, after dropout.
    """

    def __init__(self, inputs: int, outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(inputs, 2 * outputs)  # values, then gates
        nn.init.xavier_uniform_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.dropout(x)
        # Two products: working on strided halves of one product costs more than the product.
        (value, gate), (value_bias, gate_bias) = self.linear.weight.chunk(2), self.linear.bias.chunk(2)
        open_ = F.linear(x, gate, gate_bias).sigmoid_()
        output: Tensor = self.norm(torch.addcmul(skip, F.linear(x, value, value_bias), open_))
        return output


class ResampleNorm(nn.Module):
    """x [N,I] -> [N,O] by linear interpolation over the columns, a gate of 0 .. 2 per column, and a LayerNorm."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.mask = nn.Parameter(torch.zeros(outputs))
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        if self.inputs != self.outputs:
            low, high, share = interpolation(self.inputs, self.outputs, x)
            x = torch.lerp(x[:, low], x[:, high], share)  # [N,I] -> [N,O]
        output: Tensor = self.norm(2.0 * self.mask.sigmoid() * x)
        return output


class GatedResidual(nn.Module):
    """x [...,I] -> [...,O] by the gated residual network (GRN), eq. 2 to 5: ELU inside, a gate and a skip connection.

    context [...,context] is added inside where there is one; it broadcasts against x.
    """

    def __init__(
        self, inputs: int, outputs: int, dropout: float, hidden: int | None = None, context: int | None = None
    ) -> None:
        super().__init__()
        hidden = outputs if hidden is None else hidden
        self.first = nn.Linear(inputs, hidden)
        self.second = nn.Linear(hidden, hidden)
        for layer in (self.first, self.second):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.context = None if context is None else nn.Linear(context, hidden, bias=False)
        if self.context is not None:
            nn.init.xavier_uniform_(self.context.weight)
        self.skip = ResampleNorm(inputs, outputs) if inputs != outputs else None
        self.output = GateAddNorm(hidden, outputs, dropout)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        hidden = self.first(x)
        if self.context is not None:
            hidden += self.context(context)
        skip = x if self.skip is None else self.skip(x)
        output: Tensor = self.output(self.second(F.elu_(hidden)), skip)
        return output


class InterpretableAttention(nn.Module):
    """steps [B,T,D] -> (output [B,H,D], weights [B,N,H,T]) of the last H steps, which ask; eq. 13 to 16.

    N heads with queries and keys of their own share one set of values, so that the mean of their weights says what was
    looked at. Step i of the last H sees all steps before itself. `dropout` falls on each head's result and on their mean.
    Keys have no bias: it would shift all scores of a query alike, which softmax takes out again.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width, bias=False)  # heads side by side
        self.value = nn.Linear(width, width // heads)
        self.output = nn.Linear(width // heads, width, bias=False)
        self.dropout = nn.Dropout(dropout)
        for layer in (self.query, self.key):
            for head in layer.weight.chunk(heads):  # each head is a layer of its own
                nn.init.xavier_uniform_(head)
        for layer in (self.value, self.output):
            nn.init.xavier_uniform_(layer.weight)
        for layer in (self.query, self.value):
            nn.init.zeros_(layer.bias)

    def forward(self, steps: Tensor, asking: int) -> tuple[Tensor, Tensor]:
        total = steps.shape[1]
        # Few steps ask and many are asked: the key's matrix is applied to the queries, the value's to what was found.
        query = self.query(steps[:, -asking:]).unflatten(-1, (self.heads, -1))  # [B,H,D] -> [B,H,N,D/N]
        asked = torch.einsum("bhnk,nkd->bnhd", query, self.key.weight.unflatten(0, (self.heads, -1))).flatten(1, 2)
        scores = torch.bmm(asked, steps.transpose(1, 2)).unflatten(1, (self.heads, asking))  # [B,N*H,T] -> [B,N,H,T]
        everything = torch.ones(asking, total, dtype=torch.bool, device=steps.device)
        unseen = everything.triu(total - asking)  # a step's own place and all after it
        weights = (scores * query.shape[-1] ** -0.5).masked_fill(unseen, -torch.inf).softmax(dim=-1)
        found = torch.bmm(weights.flatten(1, 2), steps).unflatten(1, (self.heads, asking))  # [B,N*H,D] -> [B,N,H,D]
        heads = self.dropout(self.value(found))  # [B,N,H,D/N]
        return self.dropout(self.output(heads.mean(dim=1))), weights
