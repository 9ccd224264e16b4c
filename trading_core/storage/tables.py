"""Tables: Delta Lake under `<store>/<market>/tables/<name>`, partitioned by month, written by replacing owned rows.

A write is one Delta commit that replaces exactly the rows its predicate names and is rerun when another writer commits
first; nobody reads a month to write it back. Versions are immutable and kept (no log clean-up, no vacuum here), because
models and orders cite them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING, Protocol

import polars as pl
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from trading_core.errors import (
    ArtifactCorruptedError,
    CommitConflictError,
    DuplicateKeysError,
    MissingColumnsError,
    NoDataError,
    StoreUnreachableError,
    TableMissingError,
    TradingError,
    WrongTypeError,
)
from trading_core.storage.artifacts import ArtifactStore
from trading_core.storage.predicate import MONTH, SESSION, Predicate

if TYPE_CHECKING:
    import pyarrow.compute as pc
    import pyarrow.dataset as pads

__all__ = ["Predicate", "TableLayout", "Tables"]

COMMIT_ATTEMPTS = 20
LONGEST_WAIT_S = 2.0
_UTC = pl.Datetime("us", "UTC")
# What Delta gives back as it was written; unsigned integers, other time units and naive times would come back changed.
_STORABLE: tuple[pl.DataType, ...] = (
    *(pl.String(), pl.Boolean(), pl.Date(), _UTC, pl.Float32(), pl.Float64()),
    *(pl.Int8(), pl.Int16(), pl.Int32(), pl.Int64(), pl.Binary()),
)
# 10 years: a version must stay readable as long as anything cites it.
_CONFIGURATION: dict[str, str | None] = {
    "delta.logRetentionDuration": "interval 3650 days",
    "delta.deletedFileRetentionDuration": "interval 3650 days",
    "delta.enableExpiredLogCleanup": "false",
    "delta.checkpointInterval": "10",  # opening a table reads at most so many commit files
}
_HOOKS = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)
# delta-rs checks a predicate against the commits that came in between, but lets two creators, and two overwrites of a
# whole table, both through (their rows add up): those commit at the version they saw, or are rerun.
_NO_REBASE = CommitProperties(max_commit_retries=0)


class TableLayout(Protocol):
    """What a table must look like; `trading_core.schema.TableSchema` is one."""

    @property
    def columns(self) -> Mapping[str, pl.DataType | type[pl.DataType]]: ...
    @property
    def key(self) -> tuple[str, ...]: ...


class Tables:
    """The tables of one market in a store. Constructing does no I/O.

    Methods may raise StoreUnreachableError, and ArtifactCorruptedError when stored files cannot be understood.
    """

    def __init__(self, store: ArtifactStore, market: str) -> None:
        self._store = store
        self.market = market
        self._folder = f"{market}/tables"

    def uri(self, name: str) -> str:
        return self._store.uri(f"{self._folder}/{name}")

    def replace(
        self,
        name: str,
        frame: pl.DataFrame,
        where: Predicate,
        *,
        schema: TableLayout | None = None,
        expected: int | None = None,
    ) -> int:
        """Replaces exactly the rows of `where` by `frame`, in one commit; returns the new version.

        The first write creates the table; an empty frame deletes the rows. `month` is added from `session`. Columns
        the table does not have yet are added to it (null in older rows), columns the frame lacks are stored as null.
        `expected`: the version that `frame` was made from; another one by now is a CommitConflictError, so that a writer
        that has read rows to write them back loses nobody's commit in between.
        Errors, before anything is written: MissingColumnsError, WrongTypeError (also for rows outside `where`),
        DuplicateKeysError (with `schema`). CommitConflictError after COMMIT_ATTEMPTS lost races.
        """
        rows = _prepared(f"Table '{name}'", frame, where, schema)
        rebase = None if where.terms() and expected is None else _NO_REBASE

        def write(table: DeltaTable) -> None:
            if expected is not None and table.version() != expected:
                raise CommitConflictError(f"{self.market}/{name}", 1)
            if rows.is_empty():
                table.delete(where.sql(), commit_properties=rebase, post_commithook_properties=_HOOKS)
            else:
                write_deltalake(
                    table,
                    rows,
                    mode="overwrite",
                    predicate=where.sql(),
                    schema_mode="merge",
                    commit_properties=rebase,
                    post_commithook_properties=_HOOKS,
                )

        return self._commit(name, rows, where, write)

    def append(self, name: str, frame: pl.DataFrame, *, schema: TableLayout | None = None) -> int:
        """Adds rows; returns the new version. A step that may be run again should `replace` its own rows instead."""
        rows = _prepared(f"Table '{name}'", frame, Predicate(), schema)

        def write(table: DeltaTable) -> None:
            write_deltalake(table, rows, mode="append", schema_mode="merge", post_commithook_properties=_HOOKS)

        return self._commit(name, rows, Predicate(), write)

    def read(
        self,
        name: str,
        *,
        columns: Sequence[str] | None = None,
        where: Predicate | None = None,
        version: int | None = None,
    ) -> pl.DataFrame:
        """The rows of `where` (default all) at `version` (default the newest), in no particular order.

        TableMissingError when never written, NoDataError for a version that does not exist, MissingColumnsError.
        """
        where = where or Predicate()
        with self._reaching(name):
            table = self._open(name, version)
            self._check_columns(name, table, [*(columns or ()), *where.columns])
            _check_equals(f"Table '{name}'", where, _dtypes(table))
            return _collect(_dataset(table, where), list(columns) if columns else None, where.arrow())

    def version(self, name: str) -> int | None:
        """The newest version, None when the table was never written."""
        with self._reaching(name):
            try:
                return self._open(name).version()
            except TableMissingError:
                return None

    def exists(self, name: str) -> bool:
        return self.version(name) is not None

    def names(self) -> list[str]:
        """The tables that exist, sorted."""
        return [name for name in self._store.folders(self._folder) if self.exists(name)]

    def sessions(self, name: str, where: Predicate | None = None, version: int | None = None) -> list[date]:
        """The sessions that have rows, ascending; [] when none or when the table does not exist.

        Read in batches, so that the memory it takes does not grow with the table.
        """
        if not self.exists(name):
            return []
        where, found = where or Predicate(), set()
        with self._reaching(name):
            table = self._open(name, version)
            self._check_columns(name, table, [SESSION, *where.columns])
            _check_equals(f"Table '{name}'", where, _dtypes(table))
            for batch in _dataset(table, where).to_batches(columns=[SESSION], filter=where.arrow()):
                found.update(batch.column(0).unique().to_pylist())
        return sorted(found - {None})

    def changed_months(self, name: str, old: int | None, new: int | None) -> list[str]:
        """The months whose data files differ between two versions, ascending; None stands for no table.

        Rows of other months are the same in both: data files are never changed, only added and removed.
        """
        with self._reaching(name):
            before, after = (self._files(name, version) for version in (old, new))
        return sorted({month for month, _ in before ^ after})

    def _files(self, name: str, version: int | None) -> set[tuple[str, str]]:
        """(month, path) of every data file at a version."""
        if version is None:
            return set()
        actions = pl.DataFrame(self._open(name, version).get_add_actions(flatten=True))
        return set(actions.select(f"partition.{MONTH}", "path").iter_rows())

    def last_session(self, name: str, where: Predicate | None = None) -> date | None:
        """The newest session that has rows (of `where`), None when there is none. Reads the newest months first."""
        return self._end(name, where or Predicate(), newest=True)

    def first_session(self, name: str, where: Predicate | None = None) -> date | None:
        """The oldest session that has rows (of `where`), None when there is none. Reads the oldest months first."""
        return self._end(name, where or Predicate(), newest=False)

    # --- inside -------------------------------------------------------------------------------------------------------

    def _end(self, name: str, where: Predicate, *, newest: bool) -> date | None:
        """The newest or oldest session of `where`."""
        with self._reaching(name):
            try:
                table = self._open(name)
            except TableMissingError:
                return None
            self._check_columns(name, table, [SESSION, MONTH, *where.columns])
            _check_equals(f"Table '{name}'", where, _dtypes(table))
            months = {row[MONTH] for row in table.partitions()}
            for month in sorted(months, reverse=newest):
                dataset = _dataset(table, Predicate(equals={MONTH: month}))
                sessions = _collect(dataset, [SESSION], where.arrow())[SESSION]
                found = sessions.max() if newest else sessions.min()
                if isinstance(found, date):
                    return found
        return None

    def _open(self, name: str, version: int | None = None) -> DeltaTable:
        """The table at a version; TableMissingError, or NoDataError when only that version is missing."""
        uri, options = self.uri(name), self._store.delta_options()
        try:
            table = DeltaTable(uri, storage_options=options)
        except TableNotFoundError as error:
            raise TableMissingError(name, uri) from error
        if version is None or version == table.version():
            return table
        if not 0 <= version < table.version():
            raise NoDataError(
                f"Table '{name}' at '{uri}' has no version {version}",
                f"Its versions are 0 .. {table.version()}; choose one of them, or run the step that made it again",
            )
        return DeltaTable(uri, version=version, storage_options=options)

    def _commit(self, name: str, rows: pl.DataFrame, where: Predicate, write: Callable[[DeltaTable], None]) -> int:
        """Opens or creates the table and writes, again and again while other writers commit first."""
        with self._reaching(name):
            for attempt in range(COMMIT_ATTEMPTS):
                try:
                    return self._write_once(name, rows, where, write)
                except CommitFailedError as error:
                    if _is_network(error):
                        raise
                # Jitter keeps writers that collided once from colliding again; it decides no result.
                time.sleep(random.uniform(0.0, min(LONGEST_WAIT_S, 0.02 * 2**attempt)))
        raise CommitConflictError(f"{self.market}/{name}", COMMIT_ATTEMPTS)

    def _write_once(self, name: str, rows: pl.DataFrame, where: Predicate, write: Callable[[DeltaTable], None]) -> int:
        try:
            table = self._open(name)
        except TableMissingError:
            if not rows.columns:
                raise
            return self._create(name, rows)
        known = _dtypes(table)
        _check_same_types(f"Table '{name}'", rows, known)
        _check_known(f"Table '{name}'", where.columns, (*known, *rows.columns))
        write(table)
        return table.version()

    def _create(self, name: str, rows: pl.DataFrame) -> int:
        """The first commit. Of concurrent creators one wins; delta-rs may not rebase the others (it would append)."""
        try:
            write_deltalake(
                self.uri(name),
                rows,
                mode="error",
                partition_by=[MONTH],
                configuration=_CONFIGURATION,
                storage_options=self._store.delta_options(),
                commit_properties=_NO_REBASE,
                post_commithook_properties=_HOOKS,
            )
        except DeltaError as error:
            if isinstance(error, CommitFailedError) or "already exists" not in str(error):
                raise
            raise CommitFailedError(str(error)) from error
        return 0

    def _check_columns(self, name: str, table: DeltaTable, wanted: Sequence[str]) -> None:
        _check_known(f"Table '{name}' of market '{self.market}'", wanted, tuple(_dtypes(table)))

    @contextmanager
    def _reaching(self, name: str) -> Iterator[None]:
        """Errors of delta-rs and pyarrow as ours."""
        import pyarrow as pa

        try:
            yield
        except TradingError:
            raise
        except FileNotFoundError as error:
            raise ArtifactCorruptedError(
                self.uri(name), f"a file is missing: {self._store.options.redact(str(error))}"
            ) from error
        except (OSError, DeltaError, pa.ArrowException) as error:
            reason = self._store.options.redact(str(error))
            if _is_network(error):
                self._store.probe()  # S3's own words say more than delta-rs does
            elif not isinstance(error, OSError) or error.errno is None:
                raise ArtifactCorruptedError(self.uri(name), reason) from error
            raise StoreUnreachableError(self._store.url, reason) from error


def _is_network(error: Exception) -> bool:
    text = str(error)
    return any(sign in text for sign in ("Generic S3 error", "error sending request", "Permission", "timed out"))


def _dtypes(table: DeltaTable) -> dict[str, pl.DataType]:
    import pyarrow as pa

    empty = pl.from_arrow(pa.schema(table.schema().to_arrow()).empty_table())
    return dict(empty.schema) if isinstance(empty, pl.DataFrame) else {}


def _dataset(table: DeltaTable, where: Predicate) -> pads.Dataset:
    """The files of the months of `where`: describing a file costs about a millisecond, and a day lies in one of many."""
    months = [(column, operator, str(value)) for column, operator, value in where.terms() if column == MONTH]
    return table.to_pyarrow_dataset(file_pruning_predicate=months or None)


def _collect(dataset: pads.Dataset, columns: list[str] | None, where: pc.Expression | None) -> pl.DataFrame:
    frame = pl.from_arrow(dataset.to_table(columns=columns, filter=where))
    return frame if isinstance(frame, pl.DataFrame) else frame.to_frame()


def _check_known(where: str, wanted: Sequence[str], known: Sequence[str]) -> None:
    missing = [column for column in dict.fromkeys(wanted) if column not in known]
    if missing:
        raise MissingColumnsError(where, missing, list(known))


def _check_equals(where: str, predicate: Predicate, known: Mapping[str, pl.DataType]) -> None:
    for column, value in predicate.equals.items():
        fits = known[column].is_integer() if isinstance(value, int) else known[column] == pl.String
        if not fits:
            raise WrongTypeError(where, column, str(known[column]), f"a column that can equal {value!r}")


def _check_same_types(where: str, rows: pl.DataFrame, known: Mapping[str, pl.DataType]) -> None:
    for column, dtype in rows.schema.items():
        if column in known and known[column] != dtype:
            raise WrongTypeError(where, column, str(dtype), f"{known[column]} as in the stored table")


def _prepared(where: str, frame: pl.DataFrame, predicate: Predicate, schema: TableLayout | None) -> pl.DataFrame:
    """`frame` with its month, checked; nothing has been written when one of the checks raises."""
    if not frame.columns:
        return frame
    if SESSION in frame.columns:
        _check_storable(where, frame.select(SESSION), {SESSION: pl.Date()})
        frame = frame.with_columns(pl.col(SESSION).dt.strftime("%Y-%m").alias(MONTH))
    _check_known(where, [*(schema.columns if schema else ()), MONTH, *predicate.columns], frame.columns)
    if schema is not None:
        extra = [column for column in frame.columns if column not in schema.columns]
        if extra:
            raise WrongTypeError(where, extra[0], "no column of this table", f"only {', '.join(schema.columns)}")
        frame = frame.select(list(schema.columns))
    _check_storable(where, frame, schema.columns if schema else {MONTH: pl.String()})
    _check_equals(where, predicate, frame.schema)
    _check_values(where, frame, [MONTH, *(schema.key if schema else ())])
    if schema is not None:
        _check_unique(where, frame, schema.key)
    _check_owned(where, frame, predicate)
    return frame


def _check_storable(where: str, frame: pl.DataFrame, expected: Mapping[str, pl.DataType | type[pl.DataType]]) -> None:
    for column, dtype in frame.schema.items():
        if column in expected and dtype != expected[column]:
            raise WrongTypeError(where, column, str(dtype), str(expected[column]))
        if dtype not in _STORABLE:
            raise WrongTypeError(where, column, str(dtype), f"one of {', '.join(str(known) for known in _STORABLE)}")


def _check_values(where: str, frame: pl.DataFrame, columns: Sequence[str]) -> None:
    for column in columns:
        if frame[column].null_count():
            raise WrongTypeError(where, column, f"null in {frame[column].null_count()} row(s)", "a value in every row")


def _check_unique(where: str, frame: pl.DataFrame, key: Sequence[str]) -> None:
    repeated = frame.select(key).filter(pl.struct(key).is_duplicated()).unique().sort(key)
    if not repeated.is_empty():
        sample = [" ".join(str(value) for value in row) for row in repeated.head(3).iter_rows()]
        raise DuplicateKeysError(where, key, repeated.height, sample)


def _check_owned(where: str, frame: pl.DataFrame, predicate: Predicate) -> None:
    """A row outside the replaced rows would be added again by every re-run."""
    if not predicate.terms():
        return
    outside = frame.filter(~predicate.polars().fill_null(False))
    if not outside.is_empty():
        column = predicate.columns[0]
        raise WrongTypeError(
            where,
            column,
            f"{outside[column][0]} in a row outside those being replaced ({outside.height} such row(s))",
            f"only rows with {predicate.sql()}",
        )
