"""Compiling ahead: what a build needs later is on disk, and for the very types that a build has."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = """
from datetime import date
from trading_core.features import compile as ahead
from trading_core.features.build import build
from trading_core.features.registry import FEATURES
bars = ahead.any_bars().sample(fraction=1.0, shuffle=True, seed=1)
build(bars, sorted(FEATURES), date(2024, 1, 20), date(2024, 2, 1))
"""


def _cache_notes(*arguments: str) -> str:
    """What numba says of its cache while a process runs: a line for each kernel that it loads or saves."""
    environment = {**os.environ, "NUMBA_DEBUG_CACHE": "1"}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.thorough
def test_a_later_process_compiles_nothing() -> None:
    _cache_notes("-m", "trading_core.features.compile")
    later = _cache_notes("-c", CODE)
    assert later.count("data loaded from") > 30
    assert "data saved to" not in later
