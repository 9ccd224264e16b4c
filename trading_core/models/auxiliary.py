"""What a network may hand to its training beside its output: an auxiliary loss, and figures to log."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class HasAuxiliary(Protocol):
    """A network with a loss of its own, such as the load balance of a mixture of experts.

    Training adds a weight times `auxiliary_loss()` to its objective right after the forward pass that made it.
    """

    def auxiliary_loss(self) -> Tensor:
        """Scalar of the last forward pass in training mode, with its gradient; 0 before the first."""
        ...

    def figures(self) -> dict[str, float]:
        """Named numbers of the last forward passes, all in one mode (training or eval); empty before the first."""
        ...
