"""Compiling ahead: what a build needs later is on disk, and for the very types that a build has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CODE = """
from datetime import date
import polars as pl
from trading_core.features import compile as ahead
from trading_core.features.build import build
from trading_core.features.registry import FEATURES
bars = ahead.any_bars().sample(fraction=1.0, shuffle=True, seed=1)
build(bars, sorted(FEATURES), date(2024, 1, 20), date(2024, 2, 1))
"""


def test_a_later_process_compiles_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}

    def run(*arguments: str) -> int:
        subprocess.run([sys.executable, *arguments], env=environment, check=True)
        return len(list(tmp_path.rglob("*.nbc")))

    compiled = run("-m", "trading_core.features.compile")
    assert compiled > 30
    assert run("-c", CODE) == compiled
