"""Running a trained module over many samples: the one way forecasts are computed, in validation and in inference.

B samples, N of them in all, S symbols, T sessions, E encoder sessions, C channels, K static columns, H horizons, O outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from trading_core.schema import Float32Array, IntArray

WINDOWS_PER_BATCH = 4096
# A block's rows of the panel: what is held at once does not grow with the number of samples.
CPU_ROWS_PER_BLOCK, GPU_ROWS_PER_BLOCK, SESSIONS_PER_BLOCK = 2**14, 2**18, 1024


class PanelSamples(NamedTuple):
    """Samples as places in a panel: channels [S,T,C] float32, static [S,K] int64, symbol [B] and column [B] int64.

    Sample b's window ends at column[b] of symbol[b]. What `PanelForward.forward_panel` takes.
    """

    channels: Tensor
    static: Tensor
    symbol: Tensor
    column: Tensor


@runtime_checkable
class PanelForward(Protocol):
    """A module that computes what depends on a row (symbol and session) once, however many windows cover the row."""

    encoder_length: int

    def forward_panel(self, channels: Tensor, static: Tensor, symbol: Tensor, column: Tensor) -> Tensor:
        """[B,H,O], what `forward` gives of the samples' windows to float32 rounding, and differentiable like it.

        Arguments as in PanelSamples, all on the module's device; every column is at least encoder_length - 1. With
        dropout in training, windows of one call share the masks of what they share: each window by itself sees the
        same distribution as in `forward`, but windows that overlap are not independent of each other.
        """
        ...


class _Channels(Protocol):
    @property
    def channels(self) -> Float32Array: ...


class _Gathered(Protocol):
    @property
    def x(self) -> Float32Array: ...
    @property
    def static(self) -> IntArray: ...


class Samples(Protocol):
    """What is read of a dataset.windows.WindowSet."""

    symbol: IntArray
    columns: IntArray
    static_codes: IntArray

    @property
    def scaled(self) -> _Channels: ...
    def gather(self, rows: IntArray) -> _Gathered: ...


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Torch on `count` CPU threads. A fixed number keeps the order of sums, and so the bits, equal on any machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def forward_samples(module: nn.Module, samples: Samples, batch_size: int = WINDOWS_PER_BATCH) -> Float32Array:
    """[N,H,O] outputs of all samples, in their order, in eval mode on the module's device.

    A sample does not depend on which others there are, to float32 rounding; the same call gives the same bits. Working
    memory does not grow with N. No sample at all gives an array of shape [0,0,0].
    """
    if isinstance(module, PanelForward):
        return _forward_in_blocks(module, samples)
    total = len(samples.symbol)
    chunks = (np.arange(at, min(at + batch_size, total), dtype=np.int64) for at in range(0, total, batch_size))
    batches = (samples.gather(rows) for rows in chunks)
    return forward_in_batches(module, ((batch.x, batch.static) for batch in batches))


def forward_in_batches(module: nn.Module, batches: Iterable[tuple[Float32Array, IntArray]]) -> Float32Array:
    """[N,H,O] outputs for batches of (x [B,E,C], static [B,K]), in their order.

    Runs in eval mode on the device the module's weights are on. No batch at all gives an array of shape [0,0,0].
    """
    device = _device(module)
    module.eval()
    parts = []
    with torch.inference_mode():
        for x, static in batches:
            output = module(torch.from_numpy(x).to(device), torch.from_numpy(static).to(device))
            parts.append(output.float().cpu().numpy())
    return np.concatenate(parts) if parts else np.zeros((0, 0, 0), dtype=np.float32)


def panel_samples(
    channels: Float32Array, static: IntArray, symbol: IntArray, column: IntArray, encoder_length: int
) -> PanelSamples:
    """The samples (symbol, column) [B] in the smallest part of the panel that holds their windows; nothing is copied."""
    s, t = int(symbol.min()), int(column.min()) - encoder_length + 1
    part = channels[s : int(symbol.max()) + 1, t : int(column.max()) + 1]
    codes = static[s : int(symbol.max()) + 1]
    return PanelSamples(*map(torch.from_numpy, (part, codes, symbol - s, column - t)))


def _forward_in_blocks(module: PanelForward, samples: Samples) -> Float32Array:
    if not isinstance(module, nn.Module):
        raise TypeError(f"expected a torch module, not {type(module).__name__}")
    device, length = _device(module), module.encoder_length
    module.eval()
    output = np.zeros((0, 0, 0), dtype=np.float32)
    with torch.inference_mode():
        for rows in _blocks(samples.symbol, samples.columns, length, device):
            places = samples.symbol[rows], samples.columns[rows]
            block = panel_samples(samples.scaled.channels, samples.static_codes, *places, length)
            part = module.forward_panel(*(tensor.to(device) for tensor in block)).float().cpu().numpy()
            if not len(output):
                output = np.empty((len(samples.symbol), *part.shape[1:]), dtype=np.float32)
            output[rows] = part
    return output


def _blocks(symbol: IntArray, column: IntArray, length: int, device: torch.device) -> Iterator[IntArray]:
    """The samples in blocks of neighbouring symbols and sessions that cover so many rows or fewer, or one symbol's."""
    if not len(symbol):
        return
    first = int(column.min())
    sessions = min(int(column.max()) - first + 1, SESSIONS_PER_BLOCK)
    rows = CPU_ROWS_PER_BLOCK if device.type == "cpu" else GPU_ROWS_PER_BLOCK
    symbols = max(1, rows // (sessions + length - 1))
    # Blocks in the order of their first session, then symbol.
    block = (column - first) // sessions * (int(symbol.max()) // symbols + 1) + symbol // symbols
    order = np.argsort(block, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(block[order])) + 1)


def _device(module: nn.Module) -> torch.device:
    weight = next(iter(module.state_dict().values()), torch.zeros(()))  # a model of trees has none: the CPU
    return weight.device
