"""How a kernel is compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

from trading_core.schema import FloatArray

KernelT = TypeVar("KernelT", bound=Callable[..., object])


def compiled(function: KernelT) -> KernelT:
    """Machine code on first use, kept on disk beside the source (or in the user's cache where that is read-only).

    No fast math and one thread: the order of operations, and so every bit, is that of the source. The lock of Python is
    given up, so that blocks of symbols can be computed side by side.
    What is kept is made anew when the function's own file changes, and only then: a compiled function calls compiled ones
    of its own file only, or the old machine code of the others would live on in it (numba's manual, "Caching limitations").
    """
    return cast(KernelT, njit(nogil=True, cache=True, error_model="numpy")(function))


def fixed(x: FloatArray) -> FloatArray:
    """A view of `x` that cannot be written to.

    A frame's column is one or is not, by its history in memory, and a kernel is compiled anew for the other kind.
    """
    view = x.view()
    view.flags.writeable = False
    return view
