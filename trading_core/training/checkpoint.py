"""A training that was killed goes on after its last whole epoch, with the bits it would have had.

One checkpoint is one safetensors file, so it is there whole or not at all: the network's, the best epoch's and the
optimiser's tensors, and in its header the history as JSON. Random numbers need no keeping: those of an epoch are drawn
from the seed and the epoch's number. No pickle: torch.save is not used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from trading_core.training.progress import EpochRecord
from trading_core.training.watch import Watch

_HEADER = "training"


class Checkpoints(Protocol):
    """Where checkpoints lie. `save` replaces whole; `load` gives what was saved last under `name`, None if nothing was."""

    def load(self, name: str) -> bytes | None: ...

    def save(self, name: str, data: bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Slot:
    """The checkpoint of one member's training. `key`: of what is trained; a checkpoint of anything else is not taken."""

    checkpoints: Checkpoints
    name: str
    key: str

    def save(self, network: nn.Module, optimizer: torch.optim.Optimizer, watch: Watch) -> None:
        """Everything the next epoch depends on."""
        tensors = _prefixed("network", network.state_dict()) | _prefixed("best", watch.best_weights)
        tensors |= _optimizer_tensors(optimizer)
        header = {
            "key": self.key,
            "history": [asdict(record) for record in watch.history],
            "best_epoch": watch.best_epoch,
            "best_value": watch.best_value,
            "seconds": watch.seconds,
        }
        # A copy of each: modules may share storage, which safetensors refuses.
        plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
        self.checkpoints.save(self.name, safetensors.torch.save(plain, {_HEADER: json.dumps(header)}))

    def resume(self, network: nn.Module, optimizer: torch.optim.Optimizer, watch: Watch) -> bool:
        """Puts everything back as `save` saw it; False, with nothing touched, where there is no checkpoint of this training.

        One that cannot be read is as good as none: training starts anew.
        """
        found = _read(self.checkpoints.load(self.name), self.key)
        if found is None:
            return False
        header, tensors = found
        try:
            _load(network, _under("network", tensors))
            _load_optimizer(optimizer, tensors)
        except (KeyError, RuntimeError):
            return False
        watch.history[:] = [EpochRecord(**record) for record in header["history"]]
        watch.best_epoch, watch.best_value = header["best_epoch"], header["best_value"]
        watch.spent = header["seconds"]
        watch.best_weights = _under("best", tensors)
        return True


def _read(data: bytes | None, key: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    if data is None:
        return None
    try:
        tensors = safetensors.torch.load(data)
        length = int.from_bytes(data[:8], "little")
        header = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][_HEADER])
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError):
        return None
    return (header, tensors) if header.get("key") == key else None


def _prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


def _load(network: nn.Module, state: Mapping[str, Tensor]) -> None:
    own = network.state_dict()
    if own.keys() != state.keys() or any(own[name].shape != state[name].shape for name in own):
        raise KeyError("the checkpoint is of another network")
    network.load_state_dict(dict(state))


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """`optimizer.<parameter>.<name>`: the state of each parameter; AdamW's is tensors only."""
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{i}.{name}": value for i, entry in state.items() for name, value in entry.items()}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    current = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _under("optimizer", tensors).items():
        position, _, field = name.partition(".")
        state.setdefault(int(position), {})[field] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": current["param_groups"]})
