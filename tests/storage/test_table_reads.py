"""What a backfill asks of tables besides rows: their ends, what changed between versions, writes that expect a version."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from trading_core.errors import CommitConflictError
from trading_core.storage.artifacts import ArtifactStore
from trading_core.storage.tables import Predicate, Tables

JAN, FEB, MAR = date(2024, 1, 30), date(2024, 2, 1), date(2024, 3, 5)


@pytest.fixture
def tables(tmp_path: Path) -> Tables:
    return Tables(ArtifactStore.open(str(tmp_path)), "m")


def rows(*days: date, value: float = 1.0) -> pl.DataFrame:
    return pl.DataFrame({"symbol": ["A"] * len(days), "session": list(days), "value": [value] * len(days)})


def test_the_ends_and_the_sessions_of_a_version(tables: Tables) -> None:
    assert (tables.first_session("t"), tables.last_session("t"), tables.sessions("t")) == (None, None, [])
    tables.replace("t", rows(FEB, FEB + timedelta(1)), Predicate(FEB, FEB + timedelta(1)))
    tables.replace("t", rows(JAN, MAR), Predicate(JAN, MAR))
    assert (tables.first_session("t"), tables.last_session("t")) == (JAN, MAR)
    assert tables.first_session("t", Predicate(FEB)) == MAR
    assert tables.sessions("t") == [JAN, MAR]
    assert tables.sessions("t", version=0) == [FEB, FEB + timedelta(1)]
    assert tables.sessions("t", Predicate(FEB), version=0) == [FEB, FEB + timedelta(1)]


def test_months_that_differ_between_two_versions(tables: Tables) -> None:
    first = tables.replace("t", rows(JAN, FEB, MAR), Predicate())
    second = tables.replace("t", rows(FEB, value=2.0), Predicate(FEB, FEB))
    third = tables.replace("t", rows(MAR), Predicate(MAR, MAR))
    assert tables.changed_months("t", first, second) == ["2024-02"]
    assert tables.changed_months("t", second, first) == ["2024-02"]
    assert tables.changed_months("t", first, third) == ["2024-02", "2024-03"]
    assert tables.changed_months("t", third, third) == []
    assert tables.changed_months("t", None, first) == ["2024-01", "2024-02", "2024-03"]
    assert tables.changed_months("t", None, None) == []


@pytest.mark.parametrize("frame", [rows(FEB, value=9.0), rows(FEB).clear()], ids=["rows", "none"])
def test_a_write_that_expects_another_version_is_refused_and_changes_nothing(
    tables: Tables, frame: pl.DataFrame
) -> None:
    read = tables.replace("t", rows(JAN, FEB), Predicate())
    now = tables.replace("t", rows(JAN, value=5.0), Predicate(JAN, JAN))
    with pytest.raises(CommitConflictError):
        tables.replace("t", frame, Predicate(FEB, FEB), expected=read)
    assert tables.version("t") == now
    assert tables.replace("t", frame, Predicate(FEB, FEB), expected=now) == now + 1


def test_a_commit_between_the_look_and_the_write_is_noticed(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other writer touches another month: delta-rs would let both through, and what was read would be lost."""
    read = tables.replace("t", rows(JAN, FEB), Predicate())
    other, opened = Tables(tables._store, "m"), Tables._open

    def open_then_lose(self: Tables, name: str, version: int | None = None) -> object:
        found = opened(self, name, version)
        if self is tables:
            monkeypatch.setattr(Tables, "_open", opened)
            other.replace("t", rows(JAN, value=7.0), Predicate(JAN, JAN))
        return found

    monkeypatch.setattr(Tables, "_open", open_then_lose)
    with pytest.raises(CommitConflictError):
        tables.replace("t", rows(FEB, value=9.0), Predicate(FEB, FEB), expected=read)
    assert tables.read("t").sort("session")["value"].to_list() == [7.0, 1.0]
