"""Which device a training takes."""

from __future__ import annotations

from typing import Literal

import torch

Device = Literal["cuda", "mps", "cpu"]


def choose_device() -> Device:
    """CUDA where there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
