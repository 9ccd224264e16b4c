"""Encodings of a step's place in the window, added to the steps of a network that would not know their order.

All are modules forward(x [B,E,D]) -> x + encoding [E,D], built for windows of one length E; D is even or odd.
"""

from __future__ import annotations

from math import log, pi
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from trading_core.models.bounds import require_one_of

Positions = Literal["sinusoidal", "learnable", "time2vec"]
POSITIONS: tuple[Positions, ...] = get_args(Positions)


class Sinusoidal(nn.Module):
    """PE(t,2i) = sin(t / 10000^(2i/D)), PE(t,2i+1) = cos(t / 10000^(2i/D)); t counts from the window's first step.

    Vaswani et al. 2017, section 3.5 (https://arxiv.org/abs/1706.03762). It has no weights.
    """

    table: Tensor  # [E,D]

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        steps = torch.arange(length, dtype=torch.float64).unsqueeze(1)  # [E,1]
        # float64 until the end: float32 angles are off by 1e-4 after a few hundred steps.
        rates = torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * (-log(10_000.0) / width))  # [ceil(D/2)]
        angles = steps * rates  # [E,ceil(D/2)]
        table = torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)[:, :width]  # [E,ceil(D/2),2] -> [E,D]
        self.register_buffer("table", table.float(), persistent=False)  # follows from the shapes: not a weight

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table


class Learnable(nn.Module):
    """One free vector per step (Gehring et al. 2017, https://arxiv.org/abs/1705.03122), drawn from N(0, 1/2).

    That is the power of the sinusoids. BERT's N(0, 0.02^2) suits tokens as small as that; beside steps projected from
    channels of unit variance such a position is not seen for hundreds of batches.
    """

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(0.5**0.5 * torch.randn(length, width))  # [E,D]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.table


class Time2Vec(nn.Module):
    """t2v(t)[0] = w_0 t + b_0, t2v(t)[i] = sin(w_i t + b_i) with learnt w, b [D]; t counts sessions to the last step.

    Kazemi et al. 2019, equation 1 (https://arxiv.org/abs/1907.05321). t is 0 at the window's last step, the decision, and
    -(E-1) at its first. It starts with w_0 t in -1..0 and, for the waves, periods between two sessions and the window's
    length, drawn uniformly on a logarithmic scale, at any phase.
    """

    time: Tensor  # [E,1]

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.register_buffer("time", torch.arange(1.0 - length, 1.0).unsqueeze(1), persistent=False)
        periods = 2.0 * (max(length, 2) / 2.0) ** torch.rand(width)  # [D]
        frequency, phase = 2.0 * pi / periods, 2.0 * pi * torch.rand(width)
        frequency[0], phase[0] = 1.0 / length, 0.0
        self.frequency = nn.Parameter(frequency)
        self.phase = nn.Parameter(phase)

    def encoding(self) -> Tensor:
        """[E,D] for t = -(E-1) .. 0."""
        angles = self.time * self.frequency + self.phase  # [E,1] * [D] -> [E,D]
        return torch.cat((angles[:, :1], angles[:, 1:].sin()), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.encoding()


def position_encoding(kind: Positions, length: int, width: int) -> nn.Module:
    """The encoding called `kind` for x [B,length,width]; ValueError naming the allowed ones otherwise."""
    require_one_of("positions", kind, POSITIONS)
    if kind == "sinusoidal":
        return Sinusoidal(length, width)
    return Learnable(length, width) if kind == "learnable" else Time2Vec(length, width)
