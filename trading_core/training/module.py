"""The one LightningModule: it trains every network of the zoo."""

from __future__ import annotations

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from trading_core.schema import Float32Array, InputSpec
from trading_core.training.config import TrainingConfig
from trading_core.training.data import Batch
from trading_core.training.loss import objective


class ForecastModule(L.LightningModule):
    """Trains `network` by AdamW. After an epoch, `train_loss()` and `validation_quantiles()` tell how it went."""

    levels: Tensor  # [Q]

    def __init__(self, network: nn.Module, spec: InputSpec, config: TrainingConfig) -> None:
        super().__init__()
        self.network, self.config = network, config
        self.register_buffer("levels", torch.tensor(spec.quantiles, dtype=torch.float32))
        self._losses: list[Tensor] = []  # on the device: reading each one would wait for the GPU
        self._quantiles: list[Tensor] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        quantiles = self.network(batch.x, batch.static)  # [B,H,Q]
        loss = objective(quantiles, batch.y, batch.date, self.levels, self.config.ic_weight)
        self._losses.append(loss.detach())
        return loss

    def on_train_epoch_start(self) -> None:
        self._losses.clear()

    def on_validation_epoch_start(self) -> None:
        self._quantiles.clear()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._quantiles.append(self.network(batch.x, batch.static))  # [B,H,Q]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        config = self.config
        return torch.optim.AdamW(self.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)

    def train_loss(self) -> float:
        """Mean of the epoch's batch losses."""
        return float(torch.stack(self._losses).mean())

    def validation_quantiles(self) -> Float32Array:
        """[N,H,Q] of the last validation, in the order of its rows."""
        return np.concatenate([part.float().cpu().numpy() for part in self._quantiles])
