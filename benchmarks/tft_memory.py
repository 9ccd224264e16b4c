"""What dense inference holds beside the panel and its own forecasts, by the number of windows.

Counted are the bytes of all tensors that are alive at once. The process's own size says less: what the allocator keeps and
what the kernel takes back from an idle process are of the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.tft_problem import Problem, Sizes
from trading_core.models.forward import forward_samples

MIB = 2**20


class LiveTensors(TorchDispatchMode):
    """While it is entered, `peak` is the most bytes that tensors made inside held at any one time."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._held: dict[int, tuple[StorageWeakRef, int]] = {}  # by the storage's address

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {tensor.untyped_storage()._cdata for tensor in _tensors((args, kwargs))}
        made = func(*args, **(kwargs or {}))
        self._held = {key: held for key, held in self._held.items() if not held[0].expired()}
        for storage in (tensor.untyped_storage() for tensor in _tensors(made)):
            if storage._cdata not in given:  # a view of what was given is not new
                self._held[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.peak = max(self.peak, sum(size for _, size in self._held.values()))
        return made


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    return (leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor))


def peak_bytes(problem: Problem, days: int) -> int:
    """Of tensors, in a dense forecast of all symbols on `days` days."""
    windows = problem.windows(days)
    with LiveTensors() as live:
        forward_samples(problem.ours, windows)
    return live.peak


def lines(sizes: Sizes, features: int) -> Iterator[str]:
    problem = Problem(features, sizes)
    panel = problem.scaled.channels.nbytes / MIB
    yield f"memory of dense inference, F={features}, beside the panel ({panel:,.0f} MiB) and the forecasts"
    for days in (max(1, sizes.days // 10), sizes.days // 2, sizes.days):
        yield f"  {sizes.symbols * days:>9,} windows{peak_bytes(problem, days) / MIB:>10,.1f} MiB"
