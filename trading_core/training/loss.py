"""The objective: quantile loss, the order within each session, and the losses of further targets, weighted and summed.

B samples, H horizons, O output columns, L targets. Labels that are not known (NaN) count in no loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from trading_core.errors import InvalidConfigError
from trading_core.schema import InputSpec, Target
from trading_core.training.losses import LossConfig

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


def binary_loss(logit: Tensor, outcome: Tensor, pos_weight: Tensor, gamma: float) -> Tensor:
    """Mean of w (1 - p_t)^gamma * (-log p_t) over known outcomes; p_t is the probability given to what came. A scalar.

    gamma = 0 is cross-entropy with the positive outcomes weighted by w; gamma > 0 the focal loss (Lin et al. 2017, eq. 5).
    logit, outcome: [B,H], outcome 0, 1 or NaN. pos_weight: [H], w of a positive outcome; that of a negative one is 1.
    """
    known = torch.isfinite(outcome)
    target = torch.where(known, outcome, 0.0)
    loss = F.binary_cross_entropy_with_logits(logit, target, reduction="none")  # [B,H], -log p_t
    weight = 1.0 + (pos_weight - 1.0) * target
    return _mean(weight * (-torch.expm1(-loss)).clamp(min=EPSILON) ** gamma * loss if gamma else weight * loss, known)


def class_loss(logits: Tensor, code: Tensor, weights: Tensor, gamma: float) -> Tensor:
    """Mean of w_c (1 - p_c)^gamma * (-log p_c) over known codes c (Lin et al. 2017). A scalar.

    logits: [B,H,3]. code: [B,H], 0, 1, 2 or NaN. weights: [H,3].
    """
    known = torch.isfinite(code)
    index = torch.where(known, code, 0.0).long().unsqueeze(-1)  # [B,H] -> [B,H,1]
    loss = -torch.log_softmax(logits, dim=-1).gather(-1, index).squeeze(-1)  # [B,H,3] -> [B,H]
    weight = weights.expand(len(code), -1, -1).gather(-1, index).squeeze(-1)  # [B,H,3] -> [B,H]
    return _mean(weight * (-torch.expm1(-loss)).clamp(min=EPSILON) ** gamma * loss if gamma else weight * loss, known)


def squared_loss(prediction: Tensor, label: Tensor) -> Tensor:
    """Mean squared error over known labels. A scalar. prediction, label: [B,H], label may be NaN."""
    known = torch.isfinite(label)
    return _mean((prediction - torch.where(known, label, 0.0)) ** 2, known)


def _mean(values: Tensor, known: Tensor) -> Tensor:
    return torch.where(known, values, 0.0).sum() / known.sum().clamp(min=1)


@dataclass(frozen=True, slots=True, eq=False)
class Objective:
    """The weighted sum of the losses of all targets of `spec`.

    levels: [Q]. pos_weight: [H], of the direction. class_weights: [H,3] each, of the classes and of the barriers.
    """

    spec: InputSpec
    losses: LossConfig
    levels: Tensor
    pos_weight: Tensor
    class_weights: Tensor
    barrier_weights: Tensor

    @classmethod
    def of(cls, spec: InputSpec, losses: LossConfig, labels: Tensor) -> Objective:
        """labels: [N,H,L] of the training part: what "balanced" weights are counted from.

        Errors: InvalidConfigError when nothing has a weight.
        """
        if not losses.ic and not any(getattr(losses, _WEIGHT_OF[target]) for target in spec.targets):
            names = [_WEIGHT_OF[target] for target in spec.targets]
            raise InvalidConfigError(
                "training.losses", [f"nothing to learn: give ic or one of {names} a weight above 0"]
            )
        horizons = len(spec.horizons)
        weights = {target: torch.tensor(losses.class_weights).repeat(horizons, 1) for target in _CLASSES}
        if losses.balance_classes:
            weights = {t: w / _shares(labels, spec, t) if t in spec.targets else w for t, w in weights.items()}
        pos_weight = torch.ones(horizons)
        if losses.pos_weight != "balanced":
            pos_weight *= float(losses.pos_weight)
        elif Target.DIRECTION in spec.targets:
            up = labels[..., spec.targets.index(Target.DIRECTION)]  # [N,H]
            pos_weight = (up == 0).sum(dim=0) / (up == 1).sum(dim=0).clamp(min=1)
        levels = torch.tensor(spec.quantiles, dtype=torch.float32)
        return cls(spec, losses, levels, pos_weight.float(), weights[Target.CLASSES], weights[Target.BARRIER])

    @property
    def uses_all_outputs(self) -> bool:
        """Whether every column of the output has a part in the loss."""
        ranked = self.spec.score if self.losses.ic else None
        return all(getattr(self.losses, _WEIGHT_OF[t]) or t is ranked for t in self.spec.targets)

    def to(self, like: Tensor) -> Objective:
        """On the device and with the dtype of `like`."""
        moved = (part.to(like) for part in (self.levels, self.pos_weight, self.class_weights, self.barrier_weights))
        return Objective(self.spec, self.losses, *moved)

    def __call__(self, output: Tensor, y: Tensor, labels: Tensor, date: Tensor) -> Tensor:
        """A scalar. output: [B,H,O]. y: [B,H], the scaled return. labels: [B,H,L]. date: [B], see information_coefficient."""
        total = output.new_zeros(())
        for position, target in enumerate(self.spec.targets):
            weight = getattr(self.losses, _WEIGHT_OF[target])
            if weight:
                part = output[..., self.spec.columns_of(target)]  # [B,H,w]
                total = total + weight * self._loss(target, part, y, labels[..., position])
        if self.losses.ic:
            total = total + self.losses.ic * (1.0 - information_coefficient(score_of(output, self.spec), y, date))
        return total

    def _loss(self, target: Target, part: Tensor, y: Tensor, label: Tensor) -> Tensor:
        gamma = self.losses.focal_gamma
        if target is Target.QUANTILES:
            return pinball(part, y, self.levels)
        if target is Target.DIRECTION:
            focal = gamma if self.losses.direction_loss == "focal" else 0.0
            return binary_loss(part.squeeze(-1), label, self.pos_weight, focal)
        if target is Target.CLASSES:
            return class_loss(part, label, self.class_weights, gamma)
        if target is Target.BARRIER:
            return class_loss(part, label, self.barrier_weights, gamma)
        return squared_loss(part.squeeze(-1), label)


_CLASSES = (Target.CLASSES, Target.BARRIER)
_WEIGHT_OF = {
    Target.QUANTILES: "quantile",
    Target.DIRECTION: "direction",
    Target.CLASSES: "classes",
    Target.VOLATILITY: "volatility",
    Target.BARRIER: "barrier",
    Target.RANK: "rank",
}


def score_of(output: Tensor, spec: InputSpec) -> Tensor:
    """[B,H] of [B,H,O]: what symbols are ranked by, before the label's scale: the median, or `spec.score`'s column."""
    part = output[..., spec.columns_of(spec.score)]
    return part[..., spec.median if spec.score is Target.QUANTILES else 0]


def _shares(labels: Tensor, spec: InputSpec, target: Target) -> Tensor:
    """[H,3]: how often each class comes, times 3, so that classes equally often keep their weights."""
    code = labels[..., spec.targets.index(target)]  # [N,H]
    counts = torch.stack([(code == k).sum(dim=0) for k in range(3)], dim=-1).float()  # [H,3]
    shares = 3.0 * counts / counts.sum(dim=-1, keepdim=True).clamp(min=1.0)
    return torch.where(counts > 0, shares, 1.0)  # a class that training never met keeps its weight
