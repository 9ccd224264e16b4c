"""Fixtures of the pipelines' tests: one prepared workspace for all, copied where a test changes it."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_market import MARKET, NOW, Contents, all_contents, copy_of, prepare, settings_of, tree

from trading_core import cli
from trading_core.pipelines.workspace import Workspace, open_workspace

Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No TRADING_* variable of the machine decides what a test sees."""
    for name in [name for name in os.environ if name.startswith("TRADING_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Backfilled, trained and forecast up to tiny_market.NOW. Only to be read: the workers of a run share it."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "prepared"
    folder.mkdir(exist_ok=True)
    var, done = folder / "var", folder / "done"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the first makes it, the others wait
        if done.is_file():
            return open_workspace(MARKET, settings_of(var))
        shutil.rmtree(var, ignore_errors=True)  # of one that failed
        made = prepare(var)
        done.touch()
        return made


@pytest.fixture(scope="session")
def prepared_tables(prepared: Workspace) -> Contents:
    """The contents of every table of the prepared workspace."""
    return all_contents(prepared)


@pytest.fixture
def copied(prepared: Workspace, tmp_path: Path) -> Callable[..., Workspace]:
    """`copied(name="var", **settings)`: a copy of the prepared workspace that may be changed."""

    def copy(name: str = "var", **changes: Any) -> Workspace:
        return copy_of(prepared.settings.var_dir, tmp_path / name, **changes)

    return copy


@pytest.fixture
def ws(copied: Callable[..., Workspace]) -> Workspace:
    return copied()


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """`refused(var, error, fragments, *arguments)`: the command fails with that error and text, and changes no file."""
    monkeypatch.setattr(cli, "_now", lambda: NOW)

    def run(var: Path, error: str, fragments: Sequence[str], *arguments: str) -> str:
        monkeypatch.setenv("TRADING_VAR_DIR", str(var))
        monkeypatch.setattr(sys, "argv", ["trading", *arguments])
        before = tree(var)
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        assert stopped.value.code == 2, printed
        assert printed.out == ""
        assert "Traceback" not in printed.err
        assert printed.err.startswith(f"Error ({error}): " if error else "Error: "), printed.err
        for fragment in fragments:
            assert re.search(fragment, printed.err, re.IGNORECASE), f"{fragment!r} is not in {printed.err!r}"
        assert tree(var) == before
        return printed.err

    return run
