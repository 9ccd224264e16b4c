"""Fixtures of the pipelines' tests: one prepared workspace for all, copied where a test changes it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_market import copy_of, prepare

from trading_core.pipelines.workspace import Workspace


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No TRADING_* variable of the machine decides what a test sees."""
    import os

    for name in [name for name in os.environ if name.startswith("TRADING_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Backfilled, trained and forecast up to tiny_market.NOW. Only to be read."""
    return prepare(tmp_path_factory.mktemp("prepared") / "var")


@pytest.fixture
def copied(prepared: Workspace, tmp_path: Path) -> Callable[..., Workspace]:
    """`copied(name="var", **settings)`: a copy of the prepared workspace that may be changed."""

    def copy(name: str = "var", **changes: Any) -> Workspace:
        return copy_of(prepared.settings.var_dir, tmp_path / name, **changes)

    return copy


@pytest.fixture
def ws(copied: Callable[..., Workspace]) -> Workspace:
    return copied()
