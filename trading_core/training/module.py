"""The one LightningModule: it trains every network of the zoo, on the batches of the one LightningDataModule."""

from __future__ import annotations

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from trading_core.dataset.windows import WindowSet
from trading_core.models.auxiliary import HasAuxiliary
from trading_core.models.forward import PanelForward, forward_samples
from trading_core.schema import Float32Array
from trading_core.training.config import TrainingConfig
from trading_core.training.data import Batch, DateBatches, Samples
from trading_core.training.loss import Objective
from trading_core.training.schedule import learning_rate, plateau_reductions
from trading_core.training.watch import Watch

UNKNOWN_SHARE = 0.05


def with_unknown(static: Tensor) -> Tensor:
    """static [B,K] codes with a share of each column's set to 0, the code of names that the model has not met.

    Every training sample has a name, so without this the embedding of "unknown" would stay as it was drawn, and a new
    symbol would be ranked by chance.
    """
    return static.masked_fill(torch.rand(static.shape, device=static.device) < UNKNOWN_SHARE, 0)


class TrainingDataModule(L.LightningDataModule):
    """Training batches by DateBatches. `shares_rows`: the network reads them out of the panel itself.

    Gathering is far faster than any model here (over 50,000 windows/s), so loading stays in the process.
    """

    def __init__(
        self, train: WindowSet, validation: WindowSet, config: TrainingConfig, seed: int, shares_rows: bool = False
    ) -> None:
        super().__init__()
        self.train, self.validation, self.config = train, validation, config
        self.shares_rows = shares_rows
        self.batches = DateBatches(train, config, seed)

    def train_dataloader(self) -> DataLoader[Batch]:
        if self.trainer is not None:  # before Lightning counts the batches
            self.batches.share(self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(Samples(self.train, not self.shares_rows), sampler=self.batches, batch_size=None)


class ForecastModule(L.LightningModule):
    """Trains `network` by AdamW. After an epoch, `train_loss()` and `validation_output()` tell how it went.

    `watch` knows the epochs that went before, also those of an interrupted run; the learning rate follows from them.
    """

    def __init__(self, network: nn.Module, objective: Objective, data: TrainingDataModule, watch: Watch) -> None:
        super().__init__()
        self.network, self.objective, self.watch = network, objective, watch
        self.config, self.seed = data.config, data.batches.seed
        self.train_windows, self.validation = data.train, data.validation
        self.shares_rows = data.shares_rows
        self._losses: list[Tensor] = []  # on the device: reading each one would wait for the GPU

    def on_fit_start(self) -> None:
        weight = next(self.network.parameters()).detach()
        self.objective = self.objective.to(weight)
        if self.shares_rows:
            parts = (self.train_windows.scaled.channels, self.train_windows.static_codes)
            self.channels, self.codes = (torch.from_numpy(part).to(weight.device) for part in parts)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        output = self._forward(batch)  # [B,H,O]
        loss = self.objective(output.float(), batch.y, batch.labels, batch.date)
        self._losses.append(loss.detach())
        if isinstance(self.network, HasAuxiliary):
            loss = loss + self.config.losses.auxiliary * self.network.auxiliary_loss()
        return loss

    def _forward(self, batch: Batch) -> Tensor:
        if not self.shares_rows:
            output: Tensor = self.network(batch.x, with_unknown(batch.static))
            return output
        if not isinstance(self.network, PanelForward):
            raise TypeError(f"{type(self.network).__name__} cannot share the rows of a panel")
        # Only what the batch's windows cover is handed over: what is looked at does not grow with the panel.
        begin, end = int(batch.column.min()) - self.network.encoder_length + 1, int(batch.column.max()) + 1
        return self.network.forward_panel(
            self.channels[:, begin:end], with_unknown(self.codes), batch.symbol, batch.column - begin
        )

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

    def configure_optimizers(self) -> torch.optim.Optimizer:
        config = self.config
        return torch.optim.AdamW(self.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)

    def train_loss(self) -> float:
        """Mean of the epoch's batch losses, of all processes, without what the network asks for itself."""
        mean: Tensor = self.trainer.strategy.reduce(torch.stack(self._losses).mean(), reduce_op="mean")  # type: ignore[assignment]
        return float(mean)

    def validation_output(self) -> Float32Array:
        """[N,H,O] of the validation rows, in their order, by the weights of this moment."""
        with self.trainer.precision_plugin.forward_context():
            output = forward_samples(self.network, self.validation)
        self.network.train()
        return output

    def figures(self) -> dict[str, float]:
        """What the network tells of itself; empty for most."""
        return self.network.figures() if isinstance(self.network, HasAuxiliary) else {}
