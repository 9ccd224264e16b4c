"""SQLite under what only files meet: kill -9 in the middle, several processes, damage, a fork."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trading_core.errors import LedgerUnreachableError
from trading_core.execution.store import open_store

# Each child writes a first transaction of 40 documents, then is killed inside its second one: at the first, a middle
# and the last INSERT, and at the COMMIT itself (SQLite calls the trace before it executes the statement).
KILLED = """
import itertools, os, sys
from trading_core.execution.store import NewDocument, open_store

path = sys.argv[1]
kills = [("first", "INSERT", 1), ("middle", "INSERT", 20), ("last", "INSERT", 40), ("commit", "COMMIT", 1)]
for where, statement, count in kills:
    child = os.fork()
    if child == 0:
        store = open_store("sqlite:///" + path)
        assert store.transact_new([NewDocument(where, f"a{n:02d}", {"n": n}) for n in range(40)])
        seen = itertools.count(1)
        def trace(sql):
            if sql.startswith(statement) and next(seen) == count:
                os.kill(os.getpid(), 9)
        store._local.connection.set_trace_callback(trace)
        store.transact_new([NewDocument(where, f"b{n:02d}", {"n": n}) for n in range(40)])
        os._exit(3)
    print(where, os.waitpid(child, 0)[1])
"""

RACING = """
import sys
from trading_core.execution.store import open_store

store = open_store("sqlite:///" + sys.argv[1])
print(sum(store.put_new("race", str(n), {"by": sys.argv[2]}) for n in range(50)))
"""


def test_kill_9_inside_a_transaction_leaves_all_or_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger.sqlite")
    run = subprocess.run([sys.executable, "-c", KILLED, path], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["first", "9", "middle", "9", "last", "9", "commit", "9"]
    store = open_store(f"sqlite:///{path}")
    for where in ("first", "middle", "last", "commit"):
        assert [item.sk for item in store.query(where)] == [f"a{n:02d}" for n in range(40)]
        assert store.put_new(where, "b00", {})  # the file is usable, no lock is left


def test_processes_racing_on_a_new_file_share_the_wins(tmp_path: Path) -> None:
    path = str(tmp_path / "new" / "ledger.sqlite")
    command = [sys.executable, "-c", RACING, path]
    processes = [subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, text=True) for n in range(4)]
    wins = [int(process.communicate()[0]) for process in processes]
    assert sum(wins) == 50
    assert len(open_store(f"sqlite:///{path}").query("race")) == 50


@pytest.mark.parametrize("damage", ["text", "pages"])
def test_a_damaged_file_is_named_and_kept(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "ledger.sqlite"
    store = open_store(f"sqlite:///{path}")
    for number in range(200):
        store.put_new("a", f"{number:04d}", {"padding": "x" * 500})
    store.close()  # the last connection folds the WAL into the file
    content = path.read_bytes()
    broken = b"not a database at all" * 500 if damage == "text" else content[:4096] + b"\xff" * (len(content) - 4096)
    path.write_bytes(broken)
    with pytest.raises(LedgerUnreachableError, match="the file is damaged") as caught:
        open_store(f"sqlite:///{path}").query("a")
    assert str(path) in str(caught.value)
    assert path.read_bytes() == broken


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    store.put_new("a", "x", {"value": 1})
    store._local.connection.execute("UPDATE documents SET doc = '{\"value\": '")
    with pytest.raises(LedgerUnreachableError, match="the record a x is damaged"):
        store.get("a", "x")


def test_a_forked_child_opens_a_connection_of_its_own(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    store.put_new("a", "parent", {})
    child = os.fork()
    if child == 0:
        os._exit(0 if store.put_new("a", "child", {}) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert [item.sk for item in store.query("a")] == ["child", "parent"]
    assert store.put_new("a", "parent-2", {})


def test_a_true_is_on_the_disk(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    store.put_new("a", "x", {})
    connection = store._local.connection
    # https://www.sqlite.org/pragma.html#pragma_synchronous: 2 is FULL
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA busy_timeout").fetchone() == (20_000,)
