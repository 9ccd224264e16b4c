"""How a kernel is compiled, and how the machine code on disk is kept from outliving its source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

KernelT = TypeVar("KernelT", bound=Callable[..., object])
FOLDER = Path(__file__).parent


def source_stamp(folder: Path, *others: Path) -> str:
    """The SHA-256 of every Python file of `folder` and of the `others`, names included."""
    digest = hashlib.sha256()
    for path in (*sorted(folder.glob("*.py")), *others):
        digest.update(f"{path.name}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


_STAMP = source_stamp(FOLDER, FOLDER.parents[1] / "costs.py")


def compiled(function: KernelT) -> KernelT:
    """Machine code on first use, kept on disk. No fast math and one thread: the bits are those of the source.

    Numba looks at the file of a function alone to see whether its code on disk is stale (manual, "Caching limitations"),
    and kernels call each other across the files of this folder. So the stamp that numba compares is that of all of them.
    """
    return cast(KernelT, stamped(njit(nogil=True, cache=True, error_model="numpy")(function), _STAMP))


def stamped(dispatcher: Any, stamp: str) -> Any:
    """`dispatcher` with its cache on disk bound to `stamp`. AttributeError where a later numba keeps it elsewhere."""
    cache_file = dispatcher._cache._cache_file
    if not hasattr(cache_file, "_source_stamp"):
        raise AttributeError("numba's cache has no source stamp any more: machine code of old sources would be run")
    cache_file._source_stamp = stamp
    return dispatcher
