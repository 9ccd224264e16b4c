"""Variable selection of the Temporal Fusion Transformer (Lim et al. 2021, section 4.2), all variables at once.

Each variable passes a gated residual network of its own; another one looks at all of them and says how much of each is
taken. Written variable by variable this is nearly all of the model's time. A real variable is one number per row, so what
its network does before the first activation is a straight line in that number: prescaler, first layer and skip connection
fold into vectors per variable, and what is left are matrix products over all variables together.

V variables, P columns of a prescaled variable, I = min(P, D) inside, D columns of the model, N rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trading_core.models.tft_layers import GatedResidual, ResampleNorm, interpolation

EPSILON = 1e-5  # of every LayerNorm
# Numbers in one array that is worked on: 1 MiB on a CPU, so that several stay in a core's cache; 256 MiB elsewhere.
CPU_NUMBERS, GPU_NUMBERS = 2**18, 2**26


def rows_at_once(device: torch.device, numbers: int) -> int:
    """How many rows of so many numbers each are best worked on together."""
    return max(32, (CPU_NUMBERS if device.type == "cpu" else GPU_NUMBERS) // numbers)


class Lines(NamedTuple):
    """What `ScalarSelection` folds its weights into. The last column of a matrix is an offset: its input has a row of ones."""

    first: Tensor  # [V,I+1,2] of (x, 1); the last row makes the next input's row of ones, because ELU(1) = 1
    second: Tensor | None  # [V,I,I+1]; None: folded into `value` and `gate`, where no dropout lies between
    value: Tensor  # [V,D,I+1]
    gate: Tensor  # [V,D,I+1]
    skip: Tensor  # [V,D,3] of (z r, r, 1), see `spread`
    spread: Tensor | None  # [V,4,1]: z = x + pivot, r = 1 / sqrt(a z^2 + b z + c) of pivot, a, b, c; None: z = x, r = 1
    mean: Tensor  # [V,1,D]
    norm_weight: Tensor  # [D,1,V]
    norm_offset: Tensor  # [V,D]
    weighing: Weighing | None  # None: there is one variable, which is taken whole


class Weighing(NamedTuple):
    """The network that weighs the variables, folded the same way. J = min(D, V) hidden columns."""

    first: Tensor  # [J,V]
    first_offset: Tensor  # [J]
    second: Tensor  # [J,J]
    second_offset: Tensor  # [J]
    gate: Tensor  # [2V,J]
    gate_offset: Tensor  # [2V]
    low: Tensor  # [V] int64: the two variables that a place of the skip connection lies between
    high: Tensor  # [V] int64
    low_slope: Tensor  # [V]
    high_slope: Tensor  # [V]
    skip_offset: Tensor  # [V]
    skip_norm: tuple[Tensor, Tensor] | None  # weight, bias [V]
    norm: tuple[Tensor, Tensor]  # [V]


class Masks(NamedTuple):
    """Of dropout: zero where a number is dropped, else what makes up for those that are."""

    variables: Tensor  # [V,I,N]
    weighing: Tensor  # [N,J]


# (x [N,V], context [N,J] or None, lines, masks of dropout or None) -> (embedding [N,D], weights [N,V])
Select: TypeAlias = Callable[[Tensor, Tensor | None, Lines, Masks | None], tuple[Tensor, Tensor]]


def select(x: Tensor, context: Tensor | None, lines: Lines, masks: Masks | None) -> tuple[Tensor, Tensor]:
    """Embedding [N,D] and weights [N,V] of rows x [N,V]; context [N,J] is added inside the weighing network.

    A pure function of tensors: `torch.compile` takes it whole, and what is random comes from outside.
    """
    numbers = x.T.contiguous()  # [N,V] -> [V,N]: rows lie next to each other in everything that follows
    weights = torch.ones_like(x) if lines.weighing is None else _weights(x, numbers, context, lines.weighing, masks)
    numbers = numbers.unsqueeze(1)  # [V,1,N]
    ones = torch.ones_like(numbers)
    # In place where nobody needs what was there: on a CPU, fetching fresh memory costs as much as the arithmetic.
    hidden = F.elu_(torch.bmm(lines.first, torch.cat((numbers, ones), dim=1)))  # [V,2,N] -> [V,I+1,N]
    if lines.second is not None and masks is not None:
        hidden = torch.cat((torch.bmm(lines.second, hidden) * masks.variables, ones), dim=1)
    outputs = _skip(numbers, ones, lines)  # [V,D,N]
    outputs.addcmul_(torch.bmm(lines.value, hidden), torch.bmm(lines.gate, hidden).sigmoid_())
    # The LayerNorm of each variable over D, its weight and bias taken out of the sum over variables.
    outputs -= torch.bmm(lines.mean, outputs)
    scale = torch.rsqrt(torch.bmm(lines.mean, outputs * outputs) + EPSILON) * weights.T.unsqueeze(1)  # [V,1,N]
    taken = (outputs * scale).transpose(0, 1)  # [D,V,N]
    mixed = torch.bmm(lines.norm_weight, taken).squeeze(1)  # [D,1,V] x [D,V,N] -> [D,N]
    return torch.addmm(mixed.T, weights, lines.norm_offset), weights


def _skip(numbers: Tensor, ones: Tensor, lines: Lines) -> Tensor:
    """[V,D,N]: each variable's skip connection, with its own LayerNorm where it has one. numbers, ones: [V,1,N]."""
    if lines.spread is None:
        return torch.bmm(lines.skip, torch.cat((numbers, ones, ones), dim=1))
    pivot, a, b, c = lines.spread.unsqueeze(-1).unbind(1)  # 4 x [V,1,1]
    z = numbers + pivot
    r = torch.rsqrt((a * z + b) * z + c)
    return torch.bmm(lines.skip, torch.cat((z * r, r, ones), dim=1))  # [V,D,3] x [V,3,N]


def _weights(x: Tensor, numbers: Tensor, context: Tensor | None, net: Weighing, masks: Masks | None) -> Tensor:
    """[N,V]: how much of each variable is taken. x: [N,V]; numbers: its transpose."""
    hidden = F.linear(x, net.first, net.first_offset)  # [N,V] -> [N,J]
    if context is not None:
        hidden += context
    hidden = F.linear(F.elu_(hidden), net.second, net.second_offset)
    if masks is not None:
        hidden = hidden * masks.weighing
    gated = F.glu(F.linear(hidden, net.gate, net.gate_offset))  # [N,2V] -> [N,V]
    between = numbers[net.low] * net.low_slope[:, None] + numbers[net.high] * net.high_slope[:, None]  # [V,N]
    skip = between.T + net.skip_offset
    if net.skip_norm is not None:
        skip = F.layer_norm(skip, skip.shape[-1:], *net.skip_norm, EPSILON)
    return F.layer_norm(gated + skip, skip.shape[-1:], *net.norm, EPSILON).softmax(dim=-1)


class ScalarSelection(nn.Module):
    """(x [N,V] real variables, context [N,D] or None) -> (embedding [N,D], weights [N,V] that sum to one)."""

    def __init__(self, variables: int, width: int, prescaled: int, dropout: float, *, context: bool) -> None:
        super().__init__()
        inside = min(prescaled, width)
        self.variables, self.width, self.prescaled, self.dropout = variables, width, prescaled, dropout
        self.select: Select = select
        self.prescale_weight = nn.Parameter(torch.empty(variables, prescaled).uniform_(-1.0, 1.0))
        self.prescale_bias = nn.Parameter(torch.empty(variables, prescaled).uniform_(-1.0, 1.0))
        self.first_weight = nn.Parameter(torch.randn(variables, inside, prescaled) * (2.0 / prescaled) ** 0.5)
        self.first_bias = nn.Parameter(torch.zeros(variables, inside))
        self.second_weight = nn.Parameter(torch.randn(variables, inside, inside) * (2.0 / inside) ** 0.5)
        self.second_bias = nn.Parameter(torch.zeros(variables, inside))
        bound = (6.0 / (inside + 2 * width)) ** 0.5
        self.gate_weight = nn.Parameter(torch.empty(variables, 2 * width, inside).uniform_(-bound, bound))
        self.gate_bias = nn.Parameter(torch.zeros(variables, 2 * width))
        self.norm_weight = nn.Parameter(torch.ones(variables, width))
        self.norm_bias = nn.Parameter(torch.zeros(variables, width))
        if prescaled != width:  # the skip connection is resampled, see ResampleNorm
            self.skip_mask = nn.Parameter(torch.zeros(variables, width))
            self.skip_weight = nn.Parameter(torch.ones(variables, width))
            self.skip_bias = nn.Parameter(torch.zeros(variables, width))
        self.weighing: GatedResidual | None = None
        if variables > 1:
            hidden = min(width, variables)
            self.weighing = GatedResidual(variables * prescaled, variables, dropout, hidden, width if context else None)

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        size, lines = self.rows_at_once(x.device), self.fold()
        xs = x.split(size)
        projected = None if context is None else self.projected(context)
        contexts = [None] * len(xs) if projected is None else projected.split(size)
        parts = [self.select(*part, lines, self.masks(len(part[0]))) for part in zip(xs, contexts, strict=True)]
        embeddings, weights = zip(*parts, strict=True)
        return torch.cat(embeddings), torch.cat(weights)

    def masks(self, rows: int) -> Masks | None:
        """For so many rows, drawn from torch's random state; None outside training and without dropout."""
        if not (self.training and self.dropout > 0.0):
            return None
        kept, inside = 1.0 - self.dropout, min(self.prescaled, self.width)
        weight, hidden = self.prescale_weight, min(self.width, self.variables)
        shapes = (self.variables, inside, rows), (rows, hidden)
        return Masks(*(weight.new_empty(shape).bernoulli_(kept).div_(kept) for shape in shapes))

    def rows_at_once(self, device: torch.device) -> int:
        return rows_at_once(device, self.variables * self.width)

    def projected(self, context: Tensor) -> Tensor | None:
        """[N,D] -> [N,J], what `select` takes; None where a single variable needs no weighing."""
        if self.weighing is None or self.weighing.context is None:
            return None
        projected: Tensor = self.weighing.context(context)
        return projected

    def fold(self) -> Lines:
        """The weights as lines; what follows from the weights alone is computed once, however many rows there are."""
        line = torch.stack((self.prescale_weight, self.prescale_bias), dim=-1)  # [V,P,2]: prescaled = line (x, 1)
        first = self.first_weight @ line  # [V,I,2]
        first = torch.cat((first[..., :1], first[..., 1:] + self.first_bias.unsqueeze(-1)), dim=-1)
        one = first.new_tensor((0.0, 1.0)).expand(self.variables, 1, 2)
        second = torch.cat((self.second_weight, self.second_bias.unsqueeze(-1)), dim=-1)  # [V,I,I+1]
        apart = self.training and self.dropout > 0.0
        if apart:
            value_gate = torch.cat((self.gate_weight, self.gate_bias.unsqueeze(-1)), dim=-1)  # [V,2D,I+1]
        else:
            value_gate = self.gate_weight @ second
            value_gate = torch.cat((value_gate[..., :-1], value_gate[..., -1:] + self.gate_bias.unsqueeze(-1)), dim=-1)
        value, gate = value_gate.chunk(2, dim=1)
        skip, spread = self._fold_skip()
        return Lines(
            first=torch.cat((first, one), dim=1),
            second=second if apart else None,
            value=value,
            gate=gate,
            skip=skip,
            spread=spread,
            mean=first.new_full((1, 1, self.width), 1.0 / self.width).expand(self.variables, -1, -1),
            norm_weight=self.norm_weight.T.unsqueeze(1),
            norm_offset=self.norm_bias,
            weighing=None if self.weighing is None else self._fold_weighing(self.weighing),
        )

    def _fold_skip(self) -> tuple[Tensor, Tensor | None]:
        """(skip, spread) of Lines. The LayerNorm of a straight line: its mean is one, its variance a parabola."""
        weight, bias = self.prescale_weight, self.prescale_bias
        if self.prescaled == self.width:
            return torch.stack((weight, bias, torch.zeros_like(bias)), dim=-1), None  # [V,D,3]
        low, high, share = interpolation(self.prescaled, self.width, weight)
        mask = 2.0 * self.skip_mask.sigmoid()
        slope, offset = (mask * torch.lerp(line[:, low], line[:, high], share) for line in (weight, bias))  # [V,D]
        slope, offset = (line - line.mean(dim=1, keepdim=True) for line in (slope, offset))
        a, steep = slope.square().mean(dim=1), offset.square().mean(dim=1)  # [V]
        # Around x = -pivot the variance is least; written around it, nothing cancels there. Its value does not matter.
        pivot = ((slope * offset).mean(dim=1) / torch.maximum(a, 0.01 * steep).clamp(min=1e-12)).detach()
        offset = offset - pivot.unsqueeze(1) * slope
        b, c = 2.0 * (slope * offset).mean(dim=1), offset.square().mean(dim=1) + EPSILON
        skip = torch.stack((slope * self.skip_weight, offset * self.skip_weight, self.skip_bias), dim=-1)
        return skip, torch.stack((pivot, a, b, c), dim=-1).unsqueeze(-1)  # [V,D,3], [V,4,1]

    def _fold_weighing(self, net: GatedResidual) -> Weighing:
        variables, prescaled = self.prescale_weight.shape
        first = net.first.weight.view(-1, variables, prescaled)  # [J,V*P] -> [J,V,P]
        flat_weight, flat_bias = self.prescale_weight.flatten(), self.prescale_bias.flatten()  # [V*P]
        low, high, share = interpolation(variables * prescaled, variables, first)
        mask = torch.ones_like(share) if net.skip is None else 2.0 * net.skip.mask.sigmoid()
        return Weighing(
            first=(first * self.prescale_weight).sum(dim=-1),  # [J,V]
            first_offset=net.first.weight @ flat_bias + net.first.bias,
            second=net.second.weight,
            second_offset=net.second.bias,
            gate=net.output.linear.weight,
            gate_offset=net.output.linear.bias,
            low=low // prescaled,
            high=high // prescaled,
            low_slope=mask * (1.0 - share) * flat_weight[low],
            high_slope=mask * share * flat_weight[high],
            skip_offset=mask * torch.lerp(flat_bias[low], flat_bias[high], share),
            skip_norm=None if net.skip is None else (net.skip.norm.weight, net.skip.norm.bias),
            norm=(net.output.norm.weight, net.output.norm.bias),
        )


class StaticSelection(nn.Module):
    """static [N,K] int64 -> (embedding [N,D], weights [N,K]); zeros and no weights where K = 0."""

    nothing: Tensor  # [D]

    def __init__(self, cardinalities: tuple[int, ...], sizes: tuple[int, ...], width: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("nothing", torch.zeros(width), persistent=False)
        self.tables = nn.ModuleList(nn.Embedding(count, size) for count, size in zip(cardinalities, sizes, strict=True))
        self.resample = nn.ModuleList(ResampleNorm(size, width) for size in sizes)
        count = len(sizes)
        self.weighing = GatedResidual(sum(sizes), count, dropout, min(width, count)) if count > 1 else None

    def forward(self, static: Tensor) -> tuple[Tensor, Tensor]:
        parts = [table(static[:, k]) for k, table in enumerate(self.tables)]  # K x [N,d_k]
        if not parts:
            return self.nothing.expand(len(static), -1), self.nothing.new_zeros(len(static), 0)
        columns = torch.stack([norm(part) for norm, part in zip(self.resample, parts, strict=True)], dim=1)  # [N,K,D]
        if self.weighing is None:
            return columns[:, 0], self.nothing.new_ones(len(static), 1)
        weights = self.weighing(torch.cat(parts, dim=-1)).softmax(dim=-1)  # [N,K]
        return (weights.unsqueeze(-1) * columns).sum(dim=1), weights
