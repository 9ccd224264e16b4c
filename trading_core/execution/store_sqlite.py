"""DocumentStore on one SQLite file: for one machine, any number of threads and processes, safe against kill -9."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from trading_core.errors import LedgerUnreachableError
from trading_core.execution.codec import Document
from trading_core.execution.store import LAST_CHARACTER, Key, NewDocument, Stored, checked, checked_all, parsed

BUSY_TIMEOUT_MS = 20_000  # how long a writer waits for another process's commit
_TABLE = (
    "CREATE TABLE IF NOT EXISTS documents ("
    "pk TEXT NOT NULL, sk TEXT NOT NULL, version INTEGER NOT NULL, doc TEXT NOT NULL, "
    "PRIMARY KEY (pk, sk)) WITHOUT ROWID"
)
_EXISTS = "SELECT 1 FROM documents WHERE pk = ? AND sk = ?"
_INSERT = "INSERT INTO documents (pk, sk, version, doc) VALUES (?, ?, 1, ?) ON CONFLICT DO NOTHING"


class SqliteStore:
    """See `DocumentStore`. WAL with synchronous=FULL: a True has reached the disk. `path` must be on a local disk."""

    def __init__(self, path: str) -> None:
        self.url = f"sqlite:///{path}"
        self._path = Path(path)
        self._local = threading.local()
        self._inherited: list[sqlite3.Connection] = []

    def get(self, pk: str, sk: str) -> Document | None:
        found = self.find(pk, sk)
        return found.doc if found else None

    def find(self, pk: str, sk: str) -> Stored | None:
        with self._connection() as connection:
            row = connection.execute("SELECT doc, version FROM documents WHERE pk = ? AND sk = ?", (pk, sk)).fetchone()
        return Stored(sk, parsed(self.url, pk, sk, row[0]), row[1]) if row else None

    def put_new(self, pk: str, sk: str, doc: Document) -> bool:
        text = checked(NewDocument(pk, sk, doc))
        with self._connection() as connection:
            return connection.execute(_INSERT, (pk, sk, text)).rowcount == 1

    def replace(self, pk: str, sk: str, doc: Document, expected_version: int) -> bool:
        text = checked(NewDocument(pk, sk, doc))
        update = "UPDATE documents SET doc = ?, version = version + 1 WHERE pk = ? AND sk = ? AND version = ?"
        with self._connection() as connection:
            return connection.execute(update, (text, pk, sk, expected_version)).rowcount == 1

    def query(self, pk: str, sk_prefix: str = "", limit: int | None = None, newest_first: bool = False) -> list[Stored]:
        select = (
            "SELECT sk, doc, version FROM documents WHERE pk = ? AND sk >= ? AND sk < ? "
            f"ORDER BY sk {'DESC' if newest_first else 'ASC'} LIMIT ?"
        )
        bounds = (pk, sk_prefix, sk_prefix + LAST_CHARACTER, -1 if limit is None else limit)
        with self._connection() as connection:
            rows = connection.execute(select, bounds).fetchall()
        return [Stored(sk, parsed(self.url, pk, sk, text), version) for sk, text, version in rows]

    def transact_new(self, items: Sequence[NewDocument], absent: Sequence[Key] = ()) -> bool:
        texts = checked_all(items, absent)
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                if any(connection.execute(_EXISTS, key).fetchone() for key in absent):
                    return False
                for item, text in zip(items, texts, strict=True):
                    if connection.execute(_INSERT, (item.pk, item.sk, text)).rowcount != 1:
                        return False
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        return True

    def close(self) -> None:
        connection = getattr(self._local, "connection", None)
        self._local.connection = None
        if connection is not None and self._local.pid == os.getpid():
            connection.close()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection, opened on first use; SQLite's errors become LedgerUnreachableError."""
        try:
            connection = getattr(self._local, "connection", None)
            if connection is not None and self._local.pid != os.getpid():
                # A connection must not be used, nor closed, in a forked child: keep it from the garbage collector.
                self._inherited.append(connection)
                connection = None
            if connection is None:
                connection = self._open()
                self._local.connection, self._local.pid = connection, os.getpid()
            yield connection
        except (sqlite3.Error, OSError) as error:
            raise LedgerUnreachableError(self.url, _reason(error)) from error

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None)
        try:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            _use_wal(connection)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(_TABLE)
        except BaseException:
            connection.close()
            raise
        return connection


def _use_wal(connection: sqlite3.Connection, attempts: int = 100) -> None:
    # Two processes that open a new file at once may collide here without SQLite's busy handler being asked.
    for attempt in range(attempts):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or attempt == attempts - 1:
                raise
            time.sleep(0.05)


def _reason(error: Exception) -> str:
    text = str(error)
    if "malformed" in text or "not a database" in text:
        return f"the file is damaged ({text}); restore it from a backup, do not delete it"
    if "locked" in text or "busy" in text:
        return f"another process kept it locked for {BUSY_TIMEOUT_MS // 1000} s ({text})"
    return text
