"""What every artifact store and the tables on it promise, checked on a folder and on S3 over HTTP."""

from __future__ import annotations

import hashlib
import json
import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path

import polars as pl
import pytest

from trading_core.errors import (
    ArtifactCorruptedError,
    ArtifactMissingError,
    CommitConflictError,
    DuplicateKeysError,
    InvalidConfigError,
    MissingColumnsError,
    MissingFileError,
    NoDataError,
    TableMissingError,
    UriEscapeError,
    WrongTypeError,
)
from trading_core.schema import BARS, TRIALS, UTC_TS, TableSchema
from trading_core.storage.artifacts import Artifact, ArtifactStore
from trading_core.storage.tables import Predicate, Tables

NOW = datetime(2024, 1, 5, 22, 0, tzinfo=UTC)
# From the SHA-256 standard's example: the digest of the three bytes "abc".
ABC_SHA256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
D1, D2, D3, FEB = date(2024, 1, 2), date(2024, 1, 3), date(2024, 1, 4), date(2024, 2, 1)
ESCAPES = ["../x", "a/../../x", "/etc/passwd", "a//b", "", ".", "a/./b", "a/", "a\\b", "a\nb", "a\0b", "..", "a/\ud800"]


def day(session: date, value: float, symbols: Sequence[str] = ("A", "B"), version: str = "v1") -> pl.DataFrame:
    closed = datetime(session.year, session.month, session.day, 21, tzinfo=UTC)
    return pl.DataFrame(
        {
            "symbol": list(symbols),
            "ts": [closed] * len(symbols),
            "session": [session] * len(symbols),
            "value": [value] * len(symbols),
            "horizon": [1] * len(symbols),
            "model_version": [version] * len(symbols),
        },
        schema_overrides={"ts": UTC_TS, "value": pl.Float32, "horizon": pl.Int32},
    )


def rows(frame: pl.DataFrame) -> list[tuple[date, str, float]]:
    return sorted((row["session"], row["symbol"], row["value"]) for row in frame.iter_rows(named=True))


@pytest.fixture
def tables(store: ArtifactStore) -> Tables:
    return Tables(store, "simulated")


# --- files ------------------------------------------------------------------------------------------------------------


def test_bytes_and_json_come_back_as_written(store: ArtifactStore) -> None:
    assert store.write_bytes("a/b.bin", b"abc") == Artifact("a/b.bin", ABC_SHA256, 3)
    assert store.read_bytes("a/b.bin", ABC_SHA256) == b"abc"
    value = {"b": [1, 2.5, None, True], "a": "Ünï\n"}
    artifact = store.write_json("a/c.json", value)
    assert store.read_json("a/c.json", artifact.sha256) == value
    store.write_bytes("a/b.bin", b"")
    assert store.read_bytes("a/b.bin") == b""
    again: ArtifactStore = pickle.loads(pickle.dumps(store))
    assert again.read_json("a/c.json") == value


def test_names_with_spaces_and_umlauts_work(store: ArtifactStore) -> None:
    store.write_bytes("o o/ä+%20?#.bin", b"abc")
    assert store.list() == ["o o/ä+%20?#.bin"]
    assert store.read_bytes("o o/ä+%20?#.bin") == b"abc"


def test_missing_and_changed_files_are_refused(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactMissingError, match="nothing/here"):
        store.read_bytes("nothing/here")
    store.write_bytes("x", b"abd")
    with pytest.raises(ArtifactCorruptedError, match="SHA-256"):
        store.read_bytes("x", ABC_SHA256)
    store.write_bytes("y.json", b"{not json")
    with pytest.raises(ArtifactCorruptedError, match="not JSON"):
        store.read_json("y.json")


def test_exists_list_folders_and_delete(store: ArtifactStore) -> None:
    assert store.list() == []
    assert store.folders("m") == []
    for path in ("m/one/a", "m/one/b/c", "m/two/a", "m/onely", "z"):
        store.write_bytes(path, b"abc")
    assert store.exists("m/one/a")
    assert not store.exists("m/one")
    assert store.list("m/one") == ["m/one/a", "m/one/b/c"]
    assert store.list() == ["m/one/a", "m/one/b/c", "m/onely", "m/two/a", "z"]
    assert store.folders("m") == ["one", "two"]
    store.delete("m/one")
    assert store.list() == ["m/onely", "m/two/a", "z"]
    store.delete("z")
    store.delete("never/was")
    assert store.list() == ["m/onely", "m/two/a"]


@pytest.mark.parametrize("path", ESCAPES, ids=ascii)
def test_paths_that_leave_the_store_are_refused(store: ArtifactStore, path: str) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: store.write_bytes(path, b""),
        lambda: store.read_bytes(path),
        lambda: store.create(path, b""),
        lambda: store.exists(path),
        lambda: store.delete(path),
        lambda: store.uri(path),
        lambda: store.publish("p", {path: b""}, NOW),
        lambda: store.path_of(f"{store.url}/{path}"),
    ]
    for attempt in attempts:
        with pytest.raises(UriEscapeError):
            attempt()
    assert store.list() == []


def test_uris_and_paths_are_inverse(store: ArtifactStore) -> None:
    assert store.uri("a/b") == f"{store.url}/a/b"
    assert store.path_of(store.uri("a/b")) == "a/b"
    assert store.path_of("a/b") == "a/b"
    for foreign in (
        "s3://other/artifacts/a",
        f"{store.url}x/a",
        "/other/a",
        f"{store.url}/../a",
        store.url,
        "gs://b/a",
    ):
        with pytest.raises(UriEscapeError):
            store.path_of(foreign)


def test_create_never_overwrites(store: ArtifactStore) -> None:
    assert store.create("decisions/2024-01-02.json", b"first") is True
    assert store.create("decisions/2024-01-02.json", b"second") is False
    assert store.read_bytes("decisions/2024-01-02.json") == b"first"
    assert store.list() == ["decisions/2024-01-02.json"]


def test_of_many_creators_exactly_one_wins(store: ArtifactStore) -> None:
    bodies = [bytes([65 + index]) * 1000 for index in range(8)]
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda body: store.create("lock", body), bodies))
    assert sum(won) == 1
    assert store.read_bytes("lock") == bodies[won.index(True)]


# --- publications -----------------------------------------------------------------------------------------------------


def test_a_publication_comes_back_whole(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"abc")
    digest = store.publish("models/7", {"w.bin": tmp_path / "weights", "sub/config.json": b"{}"}, NOW)
    manifest = store.read_bytes("models/7/MANIFEST.json")
    assert hashlib.sha256(manifest).hexdigest() == digest
    assert json.loads(manifest)["files"]["w.bin"] == {"sha256": ABC_SHA256, "size": 3}
    published = store.open_published("models/7", digest)
    assert published.names == ("sub/config.json", "w.bin")
    assert published.read("w.bin") == b"abc"
    assert published.digest == digest == store.open_published("models/7").digest
    assert published.created_at == NOW
    folder = published.download(tmp_path / "copy")
    assert (folder / "w.bin").read_bytes() == b"abc"
    assert (folder / "sub" / "config.json").read_bytes() == b"{}"
    assert store.publish("models/8", {"w.bin": b"abc", "sub/config.json": b"{}"}, NOW) == digest
    with pytest.raises(ArtifactMissingError):
        published.read("../other")


def test_a_publication_needs_files_and_cannot_name_its_manifest(store: ArtifactStore, tmp_path: Path) -> None:
    for files in ({}, {"MANIFEST.json": b""}):
        with pytest.raises(InvalidConfigError, match=r"MANIFEST\.json"):
            store.publish("p", files, NOW)
    with pytest.raises(InvalidConfigError, match="aware"):
        store.publish("p", {"a": b""}, NOW.replace(tzinfo=None))
    with pytest.raises(MissingFileError, match="no-such-file"):
        store.publish("p", {"a": tmp_path / "no-such-file"}, NOW)
    with pytest.raises(ArtifactMissingError):
        store.open_published("p")


def test_publishing_again_replaces_and_a_broken_second_time_reads_as_missing(
    store: ArtifactStore, tmp_path: Path
) -> None:
    first = store.publish("p", {"a": b"1"}, NOW)
    second = store.publish("p", {"a": b"2"}, NOW)
    assert store.open_published("p").read("a") == b"2"
    with pytest.raises(ArtifactCorruptedError, match=first):
        store.open_published("p", first)
    assert second != first
    with pytest.raises(MissingFileError):
        store.publish("p", {"a": b"3", "b": tmp_path / "no-such-file"}, NOW)
    with pytest.raises(ArtifactMissingError):
        store.open_published("p", second)


@pytest.mark.parametrize("position", [0.0, 0.3, 0.7, 1.0])
def test_a_flipped_bit_is_found_wherever_it_is(store: ArtifactStore, position: float) -> None:
    content = bytes(range(256)) * 40
    digest = store.publish("p", {"w.bin": content}, NOW)
    for name in ("w.bin", "MANIFEST.json"):
        good = store.read_bytes(f"p/{name}")
        bad = bytearray(good)
        bad[round(position * (len(bad) - 1))] ^= 1
        store.write_bytes(f"p/{name}", bytes(bad))
        with pytest.raises(ArtifactCorruptedError):
            store.open_published("p", digest).read("w.bin")
        store.write_bytes(f"p/{name}", good)
    assert store.open_published("p", digest).read("w.bin") == content
    for other in (content[:-1], content + b"\0", b""):
        store.write_bytes("p/w.bin", other)
        with pytest.raises(ArtifactCorruptedError, match=r"w\.bin"):
            store.open_published("p", digest).read("w.bin")
    store.delete("p/w.bin")
    with pytest.raises(ArtifactCorruptedError, match="missing"):
        store.open_published("p", digest).read("w.bin")


ENTRY = {"sha256": ABC_SHA256, "size": 3}
MANIFEST = {"format_version": 1, "created_at": NOW.isoformat(), "files": {"a": ENTRY}}


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "[]",
        "\xff",
        "[" * 20_000,
        json.dumps(MANIFEST)[:-1],
        json.dumps({**MANIFEST, "extra": 1}),
        json.dumps({**MANIFEST, "format_version": 2}),
        json.dumps({**MANIFEST, "format_version": True}),
        json.dumps({**MANIFEST, "created_at": 5}),
        json.dumps({**MANIFEST, "created_at": "2024-01-05"}),
        json.dumps({**MANIFEST, "files": []}),
        json.dumps({**MANIFEST, "files": {}}),
        json.dumps({**MANIFEST, "files": {"a": 5}}),
        json.dumps({**MANIFEST, "files": {"a": {**ENTRY, "mode": "x"}}}),
        json.dumps({**MANIFEST, "files": {"a": {**ENTRY, "size": "3"}}}),
        json.dumps({**MANIFEST, "files": {"a": {**ENTRY, "size": -3}}}),
        json.dumps({**MANIFEST, "files": {"a": {**ENTRY, "sha256": ABC_SHA256.upper()}}}),
        json.dumps({**MANIFEST, "files": {"../a": ENTRY}}),
        json.dumps({**MANIFEST, "files": {"/etc/passwd": ENTRY}}),
        json.dumps(MANIFEST).replace('"format_version": 1', '"format_version": 1, "format_version": 1'),
    ],
    ids=range(20),
)
def test_a_manifest_that_is_not_what_publish_writes_is_refused(store: ArtifactStore, manifest: str) -> None:
    store.write_bytes("p/a", b"abc")
    store.write_bytes("p/MANIFEST.json", json.dumps(MANIFEST).encode())
    assert store.open_published("p").read("a") == b"abc"
    store.write_bytes("p/MANIFEST.json", manifest.encode("latin-1"))
    with pytest.raises(ArtifactCorruptedError, match=r"MANIFEST\.json"):
        store.open_published("p")


def test_a_wrong_size_in_the_manifest_is_found(store: ArtifactStore) -> None:
    store.write_bytes("p/a", b"abc")
    store.write_json("p/MANIFEST.json", {**MANIFEST, "files": {"a": {**ENTRY, "size": 4}}})
    with pytest.raises(ArtifactCorruptedError, match="3 bytes"):
        store.open_published("p").read("a")


# --- tables -----------------------------------------------------------------------------------------------------------


def test_a_table_comes_back_as_written(tables: Tables) -> None:
    frame = day(D1, 1.5)
    assert tables.version("t") is None
    assert not tables.exists("t")
    assert tables.names() == []
    assert tables.replace("t", frame, Predicate(D1, D1)) == 0
    back = tables.read("t").sort("symbol")
    assert back.drop("month").equals(frame)
    assert back.drop("month").schema == frame.schema
    assert back["month"].unique().to_list() == ["2024-01"]
    assert tables.names() == ["t"]
    assert tables.read("t", columns=["value", "symbol"]).columns == ["value", "symbol"]


def test_replace_touches_exactly_its_own_rows(tables: Tables) -> None:
    for session, value in ((D1, 1.0), (D2, 2.0), (D3, 3.0), (FEB, 4.0)):
        tables.replace("t", day(session, value), Predicate(session, session))
    tables.replace("t", day(D2, 20.0, ["C"]), Predicate(D2, D2))
    kept = [(D1, "A", 1.0), (D1, "B", 1.0), (D3, "A", 3.0), (D3, "B", 3.0), (FEB, "A", 4.0), (FEB, "B", 4.0)]
    assert rows(tables.read("t")) == sorted([*kept, (D2, "C", 20.0)])
    both = pl.concat([day(D3, 30.0), day(FEB, 40.0)])
    tables.replace("t", both, Predicate(D3, FEB))
    assert rows(tables.read("t", where=Predicate(D3))) == [
        (D3, "A", 30.0),
        (D3, "B", 30.0),
        (FEB, "A", 40.0),
        (FEB, "B", 40.0),
    ]
    assert rows(tables.read("t", where=Predicate(end=D1))) == kept[:2]


def test_running_a_write_again_gives_the_same_rows(tables: Tables) -> None:
    month = pl.concat([day(D1, 1.0), day(D2, 2.0)])
    tables.replace("t", month, Predicate(D1, D2))
    before = rows(tables.read("t"))
    tables.replace("t", month, Predicate(D1, D2))
    for session in (D1, D2):
        tables.replace("t", month.filter(pl.col("session") == session), Predicate(session, session))
    assert rows(tables.read("t")) == before


def test_further_columns_narrow_what_is_owned(tables: Tables) -> None:
    for version in ("v1", "it's; \\' \"x\" -- ä"):
        owned = Predicate(D1, D1, {"model_version": version, "horizon": 1})
        for value in (1.0, 2.0):
            tables.replace("forecasts", day(D1, value, version=version), owned)
        assert rows(tables.read("forecasts", where=owned)) == [(D1, "A", 2.0), (D1, "B", 2.0)]
    assert tables.read("forecasts").height == 4
    assert tables.read("forecasts", where=Predicate(equals={"horizon": 2})).is_empty()
    assert tables.read("forecasts", where=Predicate(equals={"model_version": "' OR 1=1 --"})).is_empty()


def test_an_empty_frame_deletes_the_rows(tables: Tables) -> None:
    tables.replace("t", pl.concat([day(D1, 1.0), day(D2, 2.0)]), Predicate(D1, D2))
    version = tables.replace("t", day(D1, 0.0).clear(), Predicate(D1, D1))
    assert rows(tables.read("t")) == [(D2, "A", 2.0), (D2, "B", 2.0)]
    assert version == tables.version("t") == 1
    tables.replace("t", pl.DataFrame(), Predicate())
    assert tables.read("t").is_empty()
    assert tables.read("t").schema["ts"] == UTC_TS


def test_an_empty_first_write_makes_an_empty_table(tables: Tables) -> None:
    assert tables.replace("t", day(D1, 0.0).clear(), Predicate(D1, D1)) == 0
    assert tables.read("t").is_empty()
    assert tables.last_session("t") is None
    assert tables.sessions("t") == []
    with pytest.raises(TableMissingError):
        tables.replace("other", pl.DataFrame(), Predicate())


def test_old_versions_never_change(tables: Tables) -> None:
    first = tables.replace("t", day(D1, 1.0), Predicate(D1, D1))
    second = tables.replace("t", day(D1, 2.0), Predicate(D1, D1))
    third = tables.append("t", day(D2, 3.0))
    assert (first, second, third) == (0, 1, 2)
    for version, value in ((first, 1.0), (second, 2.0)):
        assert rows(tables.read("t", version=version)) == [(D1, "A", value), (D1, "B", value)]
    assert tables.read("t", version=third).height == tables.read("t").height == 4
    for wrong in (3, -1):
        with pytest.raises(NoDataError, match=r"0 \.\. 2"):
            tables.read("t", version=wrong)


def test_versions_stay_readable_past_checkpoints(tables: Tables, store: ArtifactStore) -> None:
    """delta-rs folds the log into a checkpoint every ten commits; old versions must survive it."""
    for value in range(12):
        tables.replace("t", day(D1, float(value), ["A"]), Predicate(D1, D1))
    assert any(path.endswith("checkpoint.parquet") for path in store.list("simulated/tables/t/_delta_log"))
    assert [tables.read("t", version=version)["value"].to_list() for version in (0, 5, 11)] == [[0.0], [5.0], [11.0]]


def test_a_feature_added_later_is_null_in_older_rows(tables: Tables) -> None:
    tables.replace("t", day(D1, 1.0), Predicate(D1, D1))
    grown = day(D2, 2.0).with_columns(pl.lit(0.5, pl.Float32).alias("rsi_14"))
    tables.replace("t", grown, Predicate(D2, D2))
    frame = tables.read("t", columns=["session", "rsi_14"]).sort("session")
    assert frame["rsi_14"].to_list() == [None, None, 0.5, 0.5]
    assert frame.schema["rsi_14"] == pl.Float32
    tables.replace("t", day(D3, 3.0), Predicate(D3, D3))
    assert tables.read("t", where=Predicate(D3))["rsi_14"].to_list() == [None, None]
    assert "rsi_14" not in tables.read("t", version=0).columns


def test_tables_without_sessions_bring_their_month(tables: Tables) -> None:
    trial = TRIALS.empty().clear(1).with_columns(trial_id=pl.lit("x"), month=pl.lit("2024-01"))
    tables.replace("trials", trial, Predicate(equals={"trial_id": "x"}), schema=TRIALS)
    tables.replace("trials", trial, Predicate(equals={"trial_id": "x"}), schema=TRIALS)
    assert tables.read("trials").height == 1
    assert tables.read("trials").schema == dict(TRIALS.columns)
    with pytest.raises(MissingColumnsError, match="month"):
        tables.append("other", trial.drop("month"))
    with pytest.raises(MissingColumnsError, match="session"):
        tables.read("trials", where=Predicate(D1))
    with pytest.raises(MissingColumnsError, match="session"):
        tables.replace("trials", pl.DataFrame(), Predicate(D1))


def bars(session: date) -> pl.DataFrame:
    prices = [pl.lit(1.0).alias(column) for column in ("open", "high", "low", "close", "volume")]
    return day(session, 1.0).select("symbol", "ts", "session", *prices)


def test_a_schema_is_enforced_before_anything_is_written(tables: Tables) -> None:
    good, own = bars(D1), Predicate(D1, D1)
    for error, message, bad in (
        (MissingColumnsError, "volume", good.drop("volume")),
        (WrongTypeError, "extra", good.with_columns(extra=pl.lit(1.0))),
        (WrongTypeError, "Float32", good.with_columns(pl.col("close").cast(pl.Float32))),
        (WrongTypeError, "'ts'", good.with_columns(pl.col("ts").dt.replace_time_zone(None))),
        (WrongTypeError, "null in 1", good.with_columns(pl.when(pl.col("symbol") == "A").then("symbol"))),
        (WrongTypeError, "null in 2", good.with_columns(pl.lit(None, pl.Date).alias("session"))),
        (DuplicateKeysError, "A 2024-01-02", pl.concat([good, good.head(1)])),
    ):
        with pytest.raises(error, match=message):
            tables.replace("bars", bad, own, schema=BARS)
        with pytest.raises(error, match=message):
            tables.append("bars", bad, schema=BARS)
    assert tables.version("bars") is None
    assert tables.replace("bars", good.select(sorted(good.columns)), own, schema=BARS) == 0
    assert tables.read("bars").schema == dict(BARS.columns)


def test_types_that_would_come_back_changed_are_refused(tables: Tables) -> None:
    tables.replace("t", day(D1, 1.0), Predicate(D1, D1))
    own = Predicate(D2, D2)
    for name, column in (
        ("t", pl.col("value").cast(pl.Float64)),
        ("t", pl.col("horizon").cast(pl.Int64)),
        ("new", pl.col("horizon").cast(pl.UInt32)),
        ("new", pl.col("ts").dt.cast_time_unit("ns")),
        ("new", pl.lit(None).alias("value")),
        ("new", pl.col("session").cast(pl.Datetime("us"))),
    ):
        with pytest.raises(WrongTypeError, match="Nothing was stored"):
            tables.replace(name, day(D2, 1.0).with_columns(column), own)
    assert tables.version("t") == 0
    assert not tables.exists("new")


def test_rows_that_the_write_does_not_own_are_refused(tables: Tables) -> None:
    for where in (Predicate(D2, D3), Predicate(end=date(2024, 1, 1)), Predicate(D1, D1, {"model_version": "v2"})):
        with pytest.raises(WrongTypeError, match="outside those being replaced"):
            tables.replace("t", day(D1, 1.0), where)
    assert not tables.exists("t")


def test_reading_what_is_not_there(tables: Tables) -> None:
    with pytest.raises(TableMissingError, match="t"):
        tables.read("t")
    assert tables.last_session("t") is None
    assert tables.sessions("t") == []
    tables.replace("t", day(D1, 1.0), Predicate(D1, D1))
    with pytest.raises(MissingColumnsError, match="nope"):
        tables.read("t", columns=["nope"])
    with pytest.raises(MissingColumnsError, match="nope"):
        tables.read("t", where=Predicate(equals={"nope": "x"}))
    with pytest.raises(WrongTypeError, match="horizon"):
        tables.read("t", where=Predicate(equals={"horizon": "1"}))
    with pytest.raises(UriEscapeError):
        tables.read("../t")


def test_sessions_and_the_last_of_them(tables: Tables) -> None:
    tables.replace("t", pl.concat([day(D2, 1.0), day(D1, 1.0), day(FEB, 1.0, version="v2")]), Predicate())
    assert tables.sessions("t") == [D1, D2, FEB]
    assert tables.sessions("t", Predicate(D2)) == [D2, FEB]
    assert tables.last_session("t") == FEB
    assert tables.last_session("t", Predicate(equals={"model_version": "v1"})) == D2
    assert tables.last_session("t", Predicate(end=D1)) == D1
    assert tables.last_session("t", Predicate(equals={"model_version": "v9"})) is None


# --- writers at the same time -----------------------------------------------------------------------------------------


def together(writes: Sequence[Callable[[], object]]) -> None:
    """Runs all writes in threads that start at the same moment; raises the first error."""
    barrier = threading.Barrier(len(writes))

    def run(write: Callable[[], object]) -> None:
        barrier.wait()
        write()

    with ThreadPoolExecutor(len(writes)) as pool:
        list(pool.map(run, writes))


def write_of(tables: Tables, session: date, value: float) -> Callable[[], object]:
    return lambda: tables.replace("t", day(session, value), Predicate(session, session))


def test_concurrent_first_writers_of_one_month_all_survive(tables: Tables) -> None:
    together([write_of(tables, session, float(session.day)) for session in (D1, D2, D3, FEB)])
    expected = [(session, symbol, float(session.day)) for session in (D1, D2, D3, FEB) for symbol in ("A", "B")]
    assert rows(tables.read("t")) == sorted(expected)


def test_concurrent_writers_in_one_file_all_survive(tables: Tables) -> None:
    tables.replace("t", pl.concat([day(D1, 0.0), day(D2, 0.0), day(D3, 0.0)]), Predicate(D1, D3))
    together([write_of(tables, session, 1.0) for session in (D1, D2, D3)])
    assert rows(tables.read("t")) == [(session, symbol, 1.0) for session in (D1, D2, D3) for symbol in ("A", "B")]


@pytest.mark.parametrize("first", [True, False], ids=["first-write", "later-write"])
@pytest.mark.parametrize("where", [Predicate(D1, D1), Predicate()], ids=["day", "whole"])
def test_concurrent_writers_of_the_same_rows_leave_one_copy(tables: Tables, first: bool, where: Predicate) -> None:
    if not first:
        tables.replace("t", day(D2, 0.0), Predicate(D2, D2))
    together([lambda value=float(value): tables.replace("t", day(D1, value), where) for value in range(3)])  # type: ignore[misc]
    found = rows(tables.read("t", where=Predicate(D1, D1)))
    assert found in [[(D1, "A", float(value)), (D1, "B", float(value))] for value in range(3)]


def test_concurrent_appends_all_survive(tables: Tables) -> None:
    together([lambda value=float(value): tables.append("t", day(D1, value, ["A"])) for value in range(4)])  # type: ignore[misc]
    assert rows(tables.read("t")) == [(D1, "A", float(value)) for value in range(4)]


def test_a_writer_that_always_loses_says_so(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rival commits between this writer's snapshot and its commit, every time."""
    tables.replace("t", day(D1, 0.0), Predicate(D1, D1))
    rival = Tables(tables._store, tables.market)
    real, count = Tables._open, iter(range(1000))

    def overtaken(self: Tables, name: str, version: int | None = None) -> object:
        table = real(self, name, version)
        if self is tables:
            rival.replace(name, day(D1, float(next(count))), Predicate(D1, D1))
        return table

    monkeypatch.setattr(Tables, "_open", overtaken)
    monkeypatch.setattr("trading_core.storage.tables.COMMIT_ATTEMPTS", 3)
    with pytest.raises(CommitConflictError, match="3 attempts"):
        tables.replace("t", day(D1, -1.0), Predicate(D1, D1))
    monkeypatch.undo()
    assert rows(tables.read("t")) == [(D1, "A", 2.0), (D1, "B", 2.0)]


def test_the_layout_of_every_schema_can_be_stored(tables: Tables) -> None:
    import trading_core.schema as schema

    layouts = [value for value in vars(schema).values() if isinstance(value, TableSchema)]
    assert len(layouts) >= 7
    for layout in layouts:
        tables.replace(layout.name, layout.empty(), Predicate(), schema=layout)
        assert tables.read(layout.name).schema == dict(layout.columns)
    assert tables.names() == sorted(layout.name for layout in layouts)
