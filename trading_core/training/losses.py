"""How much each part of the objective weighs. No torch here: configurations are checked before anything heavy is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trading_core.models.bounds import require_between

WEIGHTS = ("quantile", "ic", "direction", "classes", "volatility", "barrier", "rank", "auxiliary")


@dataclass(frozen=True, slots=True)
class LossConfig:
    """The objective is the weighted sum of these, each over the labels that are known. A target not asked for costs nothing.

    See trading_core.training.loss for the formulas.
    """

    quantile: float = 1.0  # pinball loss of the scaled return
    ic: float = 0.2  # 1 - information coefficient of the score within a session
    direction: float = 1.0  # of "the return is positive", see `direction_loss`
    classes: float = 1.0  # focal loss of Bear, Neutral, Bull
    volatility: float = 1.0  # squared error of the log volatility ratio
    barrier: float = 1.0  # focal loss of stop, neither, take
    rank: float = 1.0  # squared error of the normal rank score
    auxiliary: float = 0.01  # what a network asks for itself, such as the even use of its experts
    direction_loss: Literal["bce", "focal"] = "bce"
    # Weight of positive outcomes; "balanced": negatives over positives of the training labels, per horizon.
    pos_weight: float | Literal["balanced"] = 1.0
    focal_gamma: float = 2.0  # 0: plain cross-entropy
    class_weights: tuple[float, float, float] = (
        2.0,
        1.0,
        1.0,
    )  # Bear first: a missed fall costs more than a missed rise
    balance_classes: bool = False  # also divide by each class's share of the training labels, per horizon

    def __post_init__(self) -> None:
        for name in WEIGHTS:
            require_between(name, getattr(self, name), 0.0, 1000.0)
        if self.direction_loss not in ("bce", "focal"):
            raise ValueError(f"direction_loss is {self.direction_loss!r}; it must be 'bce' or 'focal'")
        if self.pos_weight != "balanced":
            require_between("pos_weight", float(self.pos_weight), 1e-3, 1000.0)
        require_between("focal_gamma", self.focal_gamma, 0.0, 10.0)
        if len(self.class_weights) != 3:
            raise ValueError(f"class_weights has {len(self.class_weights)} values; it must have 3: Bear, Neutral, Bull")
        for weight in self.class_weights:
            require_between("class_weights", weight, 0.0, 1000.0)
