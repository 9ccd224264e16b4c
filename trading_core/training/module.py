"""The one LightningModule: it trains every network of the zoo."""

from __future__ import annotations

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from trading_core.models.auxiliary import HasAuxiliary
from trading_core.schema import Float32Array
from trading_core.training.config import TrainingConfig
from trading_core.training.data import Batch
from trading_core.training.loss import Objective
from trading_core.training.schedule import learning_rate, plateau_reductions
from trading_core.training.watch import Watch


class ForecastModule(L.LightningModule):
    """Trains `network` by AdamW. After an epoch, `train_loss()` and `validation_output()` tell how it went.

    `watch` knows the epochs that went before, also those of an interrupted run; the learning rate follows from them.
    """

    def __init__(
        self, network: nn.Module, objective: Objective, config: TrainingConfig, watch: Watch, seed: int
    ) -> None:
        super().__init__()
        self.network, self.objective, self.config, self.watch, self.seed = network, objective, config, watch, seed
        self._losses: list[Tensor] = []  # on the device: reading each one would wait for the GPU
        self._outputs: list[Tensor] = []

    def on_fit_start(self) -> None:
        self.objective = self.objective.to(next(self.network.parameters()).detach())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        output = self.network(batch.x, batch.static)  # [B,H,O]
        loss = self.objective(output.float(), batch.y, batch.labels, batch.date)
        self._losses.append(loss.detach())
        if isinstance(self.network, HasAuxiliary):
            loss = loss + self.config.losses.auxiliary * self.network.auxiliary_loss()
        return loss

    def on_train_epoch_start(self) -> None:
        self._losses.clear()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        if batch_idx == 0:
            # Dropout of an epoch is drawn from (seed, epoch), so that a training that goes on after any of them has the
            # same bits. Not earlier: Lightning draws a number for its loaders at the start of some epochs only.
            parts = (self.seed, len(self.watch.history), self.global_rank)
            torch.manual_seed(int(np.random.SeedSequence(parts).generate_state(1)[0]))
        steps = int(self.trainer.num_training_batches)
        step = len(self.watch.history) * steps + batch_idx
        lowered = plateau_reductions([r.monitored for r in self.watch.history], self.config.plateau_patience)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = learning_rate(self.config, step, steps, lowered)

    def on_validation_epoch_start(self) -> None:
        self._outputs.clear()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._outputs.append(self.network(batch.x, batch.static))  # [B,H,O]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        config = self.config
        return torch.optim.AdamW(self.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)

    def train_loss(self) -> float:
        """Mean of the epoch's batch losses, of all processes, without what the network asks for itself."""
        mean: Tensor = self.trainer.strategy.reduce(torch.stack(self._losses).mean(), reduce_op="mean")  # type: ignore[assignment]
        return float(mean)

    def validation_output(self) -> Float32Array:
        """[N,H,O] of the last validation, in the order of its rows."""
        return np.concatenate([part.float().cpu().numpy() for part in self._outputs])

    def figures(self) -> dict[str, float]:
        """What the network tells of itself; empty for most."""
        return self.network.figures() if isinstance(self.network, HasAuxiliary) else {}
