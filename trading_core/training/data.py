"""Batches of whole cross-sections out of window sets."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from trading_core.dataset.windows import WindowSet
from trading_core.schema import InputSpec, IntArray
from trading_core.training.config import TrainingConfig

ROWS_PER_CHUNK = 4096  # samples per batch where no gradient is needed


class Batch(NamedTuple):
    """x [B,E,C] float32, static [B,K] int64, y [B,H] float32 scaled return, labels [B,H,L] float32 of each target.

    date [B] int64: 0 for the batch's first session, 1 ...; symbol, column [B] int64: the sample's place in the panel.
    """

    x: Tensor
    static: Tensor
    y: Tensor
    labels: Tensor
    date: Tensor
    symbol: Tensor
    column: Tensor


def input_spec(windows: WindowSet) -> InputSpec:
    """The shapes of the model that reads `windows`."""
    return InputSpec(
        channels=windows.scaled.names,
        encoder_length=windows.spec.encoder_length,
        horizons=windows.spec.horizons,
        static_cardinalities=windows.cardinalities,
        targets=windows.spec.targets,
        score=windows.spec.score,
        context=windows.spec.context,
    )


def chunks(windows: WindowSet, size: int = ROWS_PER_CHUNK) -> Iterator[IntArray]:
    """All rows of `windows` in order, `size` at a time."""
    for start in range(0, len(windows), size):
        yield np.arange(start, min(start + size, len(windows)), dtype=np.int64)


class Samples(Dataset[Batch]):
    """Indexed by an array of rows: a whole batch is one gather. Without `encode`, x is left out: [B,0,C]."""

    def __init__(self, windows: WindowSet, encode: bool) -> None:
        self.windows, self.encode = windows, encode

    def __getitem__(self, rows: IntArray) -> Batch:
        batch = self.windows.gather(rows, self.encode)
        date = np.unique(batch.column, return_inverse=True)[1].astype(np.int64)
        parts = (batch.x, batch.static, batch.y, batch.labels, date, batch.symbol, batch.column)
        return Batch(*(torch.from_numpy(part) for part in parts))


class DateBatches(Sampler[IntArray]):
    """Row arrays of `dates_per_batch` whole sessions each, in a new order every epoch, drawn from (seed, epoch).

    `first_epoch`: how many epochs an interrupted run has done; epochs are counted on from there.
    """

    def __init__(self, windows: WindowSet, config: TrainingConfig, seed: int) -> None:
        self.windows, self.config, self.seed = windows, config, seed
        self.epoch = self.first_epoch = 0
        self.columns = windows.decision_columns
        batches = -(-len(self.columns) // config.dates_per_batch)
        self.batches = min(batches, config.batches_per_epoch or batches)
        self.rank, self.ranks = 0, 1

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before every epoch."""
        self.epoch = epoch

    def share(self, rank: int, ranks: int) -> None:
        """From now on only every `ranks`-th batch, from batch `rank` on: what one of several processes takes."""
        self.rank, self.ranks = rank, ranks

    def __len__(self) -> int:
        return -(-self.batches // self.ranks)

    def __iter__(self) -> Iterator[IntArray]:
        random = np.random.default_rng((self.seed, self.first_epoch + self.epoch))
        rows = (self._rows(dates, random) for dates in self._dates(random))
        # Every process draws all batches, so that all draw alike; the first ones come twice where they do not divide.
        batches = list(islice(rows, self.batches)) if self.ranks > 1 else islice(rows, self.batches)
        if isinstance(batches, list):
            batches = (batches + batches[: -len(batches) % self.ranks])[self.rank :: self.ranks]
        yield from batches

    def _dates(self, random: np.random.Generator) -> list[IntArray]:
        """The sessions of each batch, ascending; every session is in one batch."""
        size = self.config.dates_per_batch
        if not self.config.consecutive_dates:
            order = random.permutation(self.columns)
            return [np.sort(order[start : start + size]) for start in range(0, len(order), size)]
        # Rotated, so that the borders between batches move from epoch to epoch; a batch over the seam is still whole.
        turned = np.roll(self.columns, -int(random.integers(len(self.columns))))
        runs = [np.sort(turned[start : start + size]) for start in range(0, len(turned), size)]
        return [runs[i] for i in random.permutation(len(runs))]

    def _rows(self, dates: IntArray, random: np.random.Generator) -> IntArray:
        """The rows of one batch, session by session.

        Sessions that follow each other have the same symbols: with others in each, no two windows would overlap.
        """
        parts = [self.windows.rows_of_column(int(column)) for column in dates]
        limit = self.config.symbols_per_date
        if limit is None:
            return np.concatenate(parts)
        if not self.config.consecutive_dates:
            return np.concatenate([_drawn(rows, limit, random) for rows in parts])
        rows = np.concatenate(parts)
        symbol = self.windows.symbol[rows]
        return rows[np.isin(symbol, _drawn(np.unique(symbol), limit, random))]


def _drawn(values: IntArray, limit: int, random: np.random.Generator) -> IntArray:
    """`limit` of the ascending values [N], ascending too; all of them where there are no more."""
    return values if len(values) <= limit else np.sort(random.choice(values, limit, replace=False))
