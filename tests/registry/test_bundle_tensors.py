"""Tensors that are not the architecture's, and files of tensors that lie: refused with the reason."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable

import pytest
import safetensors.torch
import torch
from bundle_files import load, republished
from test_bundle import module

from trading_core.errors import BundleError
from trading_core.registry.bundle import WEIGHTS


def state() -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module().state_dict().items()}


def with_first(change: Callable[[torch.Tensor], torch.Tensor]) -> bytes:
    tensors = state()
    name = next(iter(tensors))
    return safetensors.torch.save(tensors | {name: change(tensors[name]).contiguous()})


def one_infinite(tensor: torch.Tensor) -> torch.Tensor:
    tensor.view(-1)[-1] = torch.inf
    return tensor


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (with_first(lambda t: t.T), r"the architecture has \["),
        (with_first(lambda t: t.reshape(-1)), r"the architecture has \["),
        (with_first(lambda t: t[:-1]), r"the architecture has \["),
        (with_first(torch.Tensor.half), r"torch\.float16, the architecture has"),
        (with_first(torch.Tensor.long), r"torch\.int64, the architecture has"),
        (with_first(torch.Tensor.bool), r"torch\.bool, the architecture has"),
        (with_first(one_infinite), "holds values that are not finite numbers"),
        (safetensors.torch.save(dict(list(state().items())[1:])), "name different tensors"),
        (safetensors.torch.save(state() | {"__class__": torch.zeros(1)}), "name different tensors: __class__"),
        (safetensors.torch.save({}), "name different tensors"),
    ],
)
def test_tensors_that_are_not_the_architectures_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(BundleError, match=rf"{WEIGHTS}.*{reason}"):
        load(republished("lstm", {WEIGHTS: data}))


def test_tensors_for_a_model_that_has_none_are_refused() -> None:
    with pytest.raises(BundleError, match="name different tensors: w"):
        load(republished("lightgbm", {WEIGHTS: safetensors.torch.save({"w": torch.zeros(2)})}))


def written(header: object, data: bytes = b"\0" * 8, length: int | None = None) -> bytes:
    """A safetensors file by hand: 8 bytes with the header's length, the header, the tensors."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


LYING_HEADERS = {
    "a header longer than the file": written({}, length=10_000),
    "a header of 2^63 bytes": written({}, length=2**63),
    "a header that is not JSON": written(b"\x80\x04."),
    "a header without end": written(b'{"a":' * 50_000),
    "a header that is a list": written([]),
    "a tensor beyond the file": written({"w": entry([1000], 0, 4000)}),
    "a tensor of 2^60 elements": written({"w": entry([2**60], 0, 2**62)}),
    "a shape that overflows": written({"w": entry([2**33, 2**33], 0, 8)}),
    "a shape larger than its bytes": written({"w": entry([100], 0, 8)}),
    "a shape smaller than its bytes": written({"w": entry([1], 0, 8)}),
    "a negative shape": written({"w": entry([-2], 0, 8)}),
    "offsets the wrong way round": written({"w": entry([2], 8, 0)}),
    "offsets below zero": written({"w": entry([2], -8, 0)}),
    "tensors over one another": written({"v": entry([2], 0, 8), "w": entry([1], 4, 8)}),
    "bytes between tensors": written({"v": entry([1], 0, 4), "w": entry([1], 8, 12)}, b"\0" * 12),
    "bytes after the tensors": written({"w": entry([2], 0, 8)}, b"\0" * 9),
    "a type that does not exist": written({"w": entry([2], 0, 8, "OBJECT")}),
    "an entry without a shape": written({"w": {"dtype": "F32", "data_offsets": [0, 8]}}),
}


@pytest.mark.parametrize("case", LYING_HEADERS)
def test_a_safetensors_header_that_lies_is_refused(case: str) -> None:
    with pytest.raises(BundleError, match=f"{WEIGHTS} cannot be read"):
        load(republished("lstm", {WEIGHTS: LYING_HEADERS[case]}))
