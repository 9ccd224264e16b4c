"""Kolmogorov-Arnold layers (Liu et al. 2024, https://arxiv.org/abs/2404.19756): a learnable function on every edge."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

DEGREE = 3  # cubic, as published


class _CubicBasis(torch.autograd.Function):
    """Values of shifted cardinal cubic B-splines; its derivative is written out, so that only x is kept for it.

    The recursion of de Boor builds the lower degrees first, and autograd keeps what each of them was made of.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, centres: Tensor, width: float) -> Tensor:
        ctx.save_for_backward(x, centres)
        ctx.width = width
        outer = _scaled(x, centres, width).abs_().neg_().add_(2.0).clamp_min_(0.0)  # (2 - |u|)+  [...,K,D]
        inner = (outer - 1.0).clamp_min_(0.0)  # (1 - |u|)+
        return (outer * outer).mul_(outer).addcmul_(inner * inner, inner, value=-4.0).div_(6.0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        x, centres = ctx.saved_tensors
        u = _scaled(x, centres, ctx.width)
        outer = u.abs().neg_().add_(2.0).clamp_min_(0.0)
        inner = (outer - 1.0).clamp_min_(0.0)
        slope = inner.mul_(inner).mul_(4.0).addcmul_(outer, outer, value=-1.0).mul_(u.sign_())  # 2 dB/du
        return slope.mul_(gradient).sum(-2).div_(2.0 * ctx.width), None, None  # [...,K,D] -> [...,D]


def _scaled(x: Tensor, centres: Tensor, width: float) -> Tensor:
    """[...,D] -> [...,K,D]: the distance from each centre in intervals. D last, where the memory is contiguous."""
    return (x.unsqueeze(-2) - centres.unsqueeze(-1)).div_(width)


def spline_centres(intervals: int, limit: float) -> Tensor:
    """[K] float64, the peaks of the K = intervals + 3 cubic B-splines whose uniform grid divides [-limit, limit]."""
    reach = limit + 2.0 * limit / intervals  # the outermost peaks lie one interval outside
    return torch.linspace(-reach, reach, intervals + DEGREE, dtype=torch.float64)


def cubic_basis(x: Tensor, centres: Tensor, width: float) -> Tensor:
    """[...,D] -> [...,K,D]: B(u) = ((2 - |u|)+^3 - 4 (1 - |u|)+^3) / 6 with u = (x - centre) / width.

    This is the cubic B-spline on uniform knots `width` apart, in closed form. Within the grid the K values of one x
    sum to 1; two intervals and more from a centre its value is 0.
    """
    basis: Tensor = _CubicBasis.apply(x, centres, width)  # type: ignore[no-untyped-call]
    return basis


class KANLayer(nn.Module):
    """[...,D] -> [...,O]: y_o = sum over d of (w_od silu(x_d) + sum over k of c_okd B_k(x_d)).

    The published scale of the spline is part of its coefficients c. The grid is fixed: a grid that follows its inputs
    would make a sample's output depend on its batch. Inputs should be normalised; beyond [-limit, limit] the spline
    fades to zero within three intervals and the SiLU is all that is left.
    """

    centres: Tensor  # [K]

    def __init__(self, in_features: int, out_features: int, intervals: int = 5, limit: float = 3.0) -> None:
        super().__init__()
        self.width = 2.0 * limit / intervals
        centres = spline_centres(intervals, limit).float()
        self.register_buffer("centres", centres, persistent=False)  # follows from the config: not a weight
        self.base = nn.Parameter(torch.empty(out_features, in_features))
        self.coefficients = nn.Parameter(torch.empty(out_features, len(centres), in_features))  # [O,K,D]
        nn.init.xavier_uniform_(self.base)  # as published
        # Published: N(0, 0.1^2) per edge. Divided by sqrt(D), so that a wide layer does not start with large outputs.
        nn.init.normal_(self.coefficients, std=0.1 / in_features**0.5)

    def forward(self, x: Tensor) -> Tensor:
        # Half precision (autocast) is too coarse to tell where in its interval an x lies.
        exact = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        basis = cubic_basis(exact, self.centres, self.width).flatten(-2)  # [...,D] -> [...,K*D]
        return F.linear(F.silu(x), self.base) + F.linear(basis, self.coefficients.flatten(1))  # [...,O]


class GroupedKANLayer(nn.Module):
    """[B,G,D] -> [B,G,O]: a `KANLayer` of its own for each group, plus a bias, so that it can start at given outputs."""

    centres: Tensor  # [K]

    def __init__(
        self, groups: int, in_features: int, out_features: int, intervals: int = 5, limit: float = 3.0
    ) -> None:
        super().__init__()
        self.width = 2.0 * limit / intervals
        centres = spline_centres(intervals, limit).float()
        self.register_buffer("centres", centres, persistent=False)
        bound = (6.0 / (in_features + out_features)) ** 0.5  # Xavier's, of each group
        self.base = nn.Parameter(torch.empty(groups, in_features, out_features).uniform_(-bound, bound))
        drawn = torch.randn(groups, len(centres) * in_features, out_features)
        self.coefficients = nn.Parameter(0.1 / in_features**0.5 * drawn)  # [G,K*D,O]
        self.bias = nn.Parameter(torch.zeros(groups, out_features))

    def forward(self, x: Tensor) -> Tensor:
        exact = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        basis = cubic_basis(exact, self.centres, self.width).flatten(-2)  # [B,G,D] -> [B,G,K*D]
        smooth = torch.einsum("bgd,gdo->bgo", F.silu(x), self.base)
        return smooth + torch.einsum("bgk,gko->bgo", basis, self.coefficients) + self.bias
