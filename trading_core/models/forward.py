"""Running a trained module over many samples: the one way forecasts are computed, in validation and in inference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from trading_core.schema import Float32Array, IntArray


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Torch on `count` CPU threads. A fixed number keeps the order of sums, and so the bits, equal on any machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def forward_in_batches(module: nn.Module, batches: Iterable[tuple[Float32Array, IntArray]]) -> Float32Array:
    """[N,H,Q] quantiles of the scaled label for batches of (x [B,E,C], static [B,K]), in their order.

    Runs in eval mode on the device the module's weights are on. No batch at all gives an array of shape [0,0,0].
    """
    weight = next(iter(module.state_dict().values()), torch.zeros(()))  # a model of trees has none: the CPU
    module.eval()
    parts = []
    with torch.inference_mode():
        for x, static in batches:
            quantiles = module(torch.from_numpy(x).to(weight.device), torch.from_numpy(static).to(weight.device))
            parts.append(quantiles.cpu().numpy())
    return np.concatenate(parts) if parts else np.zeros((0, 0, 0), dtype=np.float32)
