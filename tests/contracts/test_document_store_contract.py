"""What every DocumentStore must do: SQLite and DynamoDB (moto over HTTP) obey the same rules."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from ledger_samples import STORE_KINDS, opened_store, reopened

from trading_core.errors import InvalidConfigError, LedgerUnreachableError
from trading_core.execution.codec import LedgerRecordError
from trading_core.execution.store import DocumentStore, Key, LedgerOptions, NewDocument, open_store

THREADS = 8


@pytest.fixture(params=STORE_KINDS)
def documents(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DocumentStore]:
    with opened_store(request.param, request, tmp_path) as store:
        yield store


def test_an_unknown_key_is_none(documents: DocumentStore) -> None:
    assert documents.get("a", "x") is None
    assert documents.find("a", "x") is None
    assert documents.query("a") == []


def test_put_new_never_overwrites(documents: DocumentStore) -> None:
    assert documents.put_new("a", "x", {"value": 1})
    assert not documents.put_new("a", "x", {"value": 2})
    assert documents.get("a", "x") == {"value": 1}
    assert documents.find("a", "x") == ("x", {"value": 1}, 1)


def test_of_eight_racing_puts_exactly_one_wins_every_time(documents: DocumentStore) -> None:
    barrier = Barrier(THREADS)

    def race(thread: int) -> list[bool]:
        wins = []
        for key in range(5):
            barrier.wait()
            wins.append(documents.put_new("race", f"k{key}", {"winner": thread}))
        return wins

    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(race, range(THREADS)))
    for key in range(5):
        winners = [thread for thread in range(THREADS) if results[thread][key]]
        assert len(winners) == 1
        assert documents.get("race", f"k{key}") == {"winner": winners[0]}


def test_of_eight_racing_transactions_exactly_one_wins_whole(documents: DocumentStore) -> None:
    barrier = Barrier(THREADS)

    def race(thread: int) -> bool:
        items = [NewDocument("race", f"t{thread}", {"by": thread}), NewDocument("race", "shared", {"by": thread})]
        barrier.wait()
        return documents.transact_new(items)

    with ThreadPoolExecutor(THREADS) as pool:
        wins = list(pool.map(race, range(THREADS)))
    winner = wins.index(True)
    assert wins.count(True) == 1
    assert [item.sk for item in documents.query("race")] == ["shared", f"t{winner}"]


def test_replace_swaps_only_the_expected_version(documents: DocumentStore) -> None:
    documents.put_new("a", "x", {"value": 1})
    assert documents.replace("a", "x", {"value": 2}, expected_version=1)
    assert not documents.replace("a", "x", {"value": 3}, expected_version=1)
    assert documents.find("a", "x") == ("x", {"value": 2}, 2)
    assert not documents.put_new("a", "x", {"value": 4})
    assert not documents.replace("a", "absent", {"value": 1}, expected_version=1)
    assert documents.get("a", "absent") is None


def test_racing_swaps_lose_no_update(documents: DocumentStore) -> None:
    documents.put_new("a", "counter", {"n": 0})

    def add(_: int) -> None:
        while True:
            found = documents.find("a", "counter")
            assert found is not None
            if documents.replace("a", "counter", {"n": found.doc["n"] + 1}, found.version):
                return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(12)))
    assert documents.find("a", "counter") == ("counter", {"n": 12}, 13)


def test_json_values_come_back_bit_for_bit(documents: DocumentStore, request: pytest.FixtureRequest) -> None:
    floats = [
        0.1 + 0.2,
        1 / 3,
        5e-324,
        1.7976931348623157e308,
        -0.0,
        math.nextafter(100.0, 200.0),
        1e22,
        123456789.123456789,
    ]
    doc = {
        "floats": floats,
        "text": "Zürich 😀 \x00",
        "int": 2**70,
        "flag": True,
        "none": None,
        "deep": {"list": [[1, "a"], {}]},
    }
    assert documents.put_new("a", "x", doc)
    again = reopened(documents, request).get("a", "x")
    assert again == doc
    assert [value.hex() for value in again["floats"]] == [value.hex() for value in floats]
    assert type(again["flag"]) is bool


@pytest.mark.parametrize("bad", [math.nan, math.inf, object(), b"bytes"])
def test_what_json_cannot_carry_is_refused(documents: DocumentStore, bad: object) -> None:
    with pytest.raises(LedgerRecordError, match="Nothing was written"):
        documents.put_new("a", "x", {"value": bad})
    assert documents.get("a", "x") is None


def test_query_is_ordered_by_the_bytes_of_the_key(documents: DocumentStore) -> None:
    # UTF-8 byte order, written out by hand: digits < upper < lower < two-byte < four-byte characters.
    expected = ["k#10", "k#2", "k#A", "k#a", "k#é", "k#😀"]
    for key in reversed(expected):
        documents.put_new("a", key, {})
    documents.put_new("a", "k", {})
    documents.put_new("a", "l#1", {})
    documents.put_new("b", "k#3", {})
    assert [item.sk for item in documents.query("a", "k#")] == expected
    assert [item.sk for item in documents.query("a", "k#", newest_first=True)] == expected[::-1]
    assert [item.sk for item in documents.query("a", "k#", limit=2, newest_first=True)] == ["k#😀", "k#é"]
    assert [item.sk for item in documents.query("a")] == ["k", *expected, "l#1"]
    assert documents.query("a", "k#", limit=0) == []


def test_query_goes_past_one_page_of_a_megabyte(documents: DocumentStore) -> None:
    for number in range(12):
        documents.put_new("big", f"{number:02d}", {"number": number, "padding": "x" * 120_000})
    found = documents.query("big")
    assert [item.doc["number"] for item in found] == list(range(12))
    assert [item.doc["number"] for item in documents.query("big", limit=10, newest_first=True)] == list(
        range(11, 1, -1)
    )


def test_a_document_longer_than_one_item_fits(documents: DocumentStore) -> None:
    rows = [{"symbol": f"S{n:04d}", "quantity": n / 7, "price": 100.0 + n / 3, "id": f"{n:048x}"} for n in range(4_000)]
    assert documents.put_new("a", "book", {"rows": rows})
    assert documents.get("a", "book") == {"rows": rows}
    assert documents.replace("a", "book", {"rows": rows[:1]}, 1)
    assert documents.get("a", "book") == {"rows": rows[:1]}


def test_a_transaction_writes_all_or_nothing(documents: DocumentStore) -> None:
    documents.put_new("a", "2", {"old": True})
    assert not documents.transact_new([NewDocument("a", str(n), {"n": n}) for n in range(4)])
    assert [item.sk for item in documents.query("a")] == ["2"]
    assert documents.transact_new([NewDocument(pk, "3", {"pk": pk}) for pk in ("a", "b")])
    assert documents.get("b", "3") == {"pk": "b"}


def test_a_transaction_writes_nothing_when_what_must_be_absent_is_there(documents: DocumentStore) -> None:
    documents.put_new("a", "k1", {})
    wanted = [NewDocument("a", "x", {"n": 1}), NewDocument("b", "y", {"n": 2})]
    assert not documents.transact_new(wanted, absent=[Key("a", "k0"), Key("a", "k1")])
    assert not documents.transact_new(wanted[:1], absent=[Key("a", "k1")])
    assert documents.get("a", "x") is None
    assert documents.get("b", "y") is None
    assert documents.transact_new(wanted, absent=[Key("a", "k0"), Key("c", "k1")])  # k1 of another partition
    assert (documents.get("a", "x"), documents.get("b", "y")) == ({"n": 1}, {"n": 2})
    assert documents.get("a", "k0") is None  # to ask for its absence does not create it
    assert documents.query("c") == []


def test_what_must_be_absent_counts_towards_the_hundred_and_is_no_document_of_the_transaction(
    documents: DocumentStore,
) -> None:
    absent = [Key("a", f"absent{n}") for n in range(60)]
    items = [NewDocument("a", f"new{n:03d}", {}) for n in range(41)]
    with pytest.raises(LedgerRecordError, match=r"101 documents: 1 to 100"):
        documents.transact_new(items, absent)
    with pytest.raises(LedgerRecordError, match="twice"):
        documents.transact_new(items[:1], [Key("a", "new000")])
    with pytest.raises(LedgerRecordError, match="twice"):
        documents.transact_new(items[:1], [absent[0], absent[0]])
    with pytest.raises(LedgerRecordError, match="1 to 100"):
        documents.transact_new([], absent)
    assert documents.query("a") == []
    assert documents.transact_new(items[:40], absent)
    assert [item.sk for item in documents.query("a")] == [f"new{n:03d}" for n in range(40)]


def test_nothing_is_written_on_an_absence_that_had_ended_before(documents: DocumentStore) -> None:
    """Seven threads append on the condition that "closed" is absent, one creates it: after it, no append succeeds."""
    barrier = Barrier(THREADS)

    def race(thread: int) -> list[tuple[bool, bool]]:
        outcomes = []
        for step in range(3):
            barrier.wait()
            if thread == 0:
                documents.put_new("race", f"closed{step}", {})
                outcomes.append((False, True))
                continue
            item = [NewDocument("race", f"append{step}-{thread}", {})]
            written = documents.transact_new(item, absent=[Key("race", f"closed{step}")])
            # Whatever the first call was told: by now "closed" is there, or comes later than this second call.
            closed = documents.get("race", f"closed{step}") is not None
            again = [NewDocument("race", f"again{step}-{thread}", {})]
            outcomes.append((documents.transact_new(again, absent=[Key("race", f"closed{step}")]), closed))
            assert written == (documents.get("race", f"append{step}-{thread}") is not None)
        return outcomes

    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(race, range(THREADS)))
    for step in range(3):
        assert documents.get("race", f"closed{step}") == {}
        assert not any(again and closed for again, closed in (result[step] for result in results))


def test_of_two_transactions_that_forbid_each_other_one_is_written(documents: DocumentStore) -> None:
    """Each of two threads creates its key on the condition that the other's is absent: never both."""
    barrier, rounds = Barrier(2), 6

    def race(me: int) -> list[bool]:
        wins = []
        for step in range(rounds):
            barrier.wait()
            item = [NewDocument("race", f"{step}-{me}", {})]
            wins.append(documents.transact_new(item, absent=[Key("race", f"{step}-{1 - me}")]))
        return wins

    with ThreadPoolExecutor(2) as pool:
        left, right = pool.map(race, range(2))
    assert [a + b for a, b in zip(left, right, strict=True)] == [1] * rounds
    assert len(documents.query("race")) == rounds


def test_what_dynamodb_could_not_hold_is_refused_by_both(documents: DocumentStore) -> None:
    noise = random.Random(1).randbytes(400_000).hex()
    with pytest.raises(LedgerRecordError, match="at most 380,000 are allowed"):
        documents.put_new("a", "x", {"padding": noise})
    with pytest.raises(LedgerRecordError, match="empty"):
        documents.put_new("a", "", {})
    with pytest.raises(LedgerRecordError, match="1 to 100"):
        documents.transact_new([NewDocument("a", str(n), {}) for n in range(101)])
    with pytest.raises(LedgerRecordError, match="twice"):
        documents.transact_new([NewDocument("a", "x", {}), NewDocument("a", "x", {})])
    assert documents.query("a") == []


def test_an_unreachable_store_says_so(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a file, not a folder")
    # Port 9 (discard) of this machine: nothing listens there.
    options = LedgerOptions("http://127.0.0.1:9", "us-east-1", "canary-id", "canary-secret")
    for store in (open_store(f"sqlite:///{blocked}/ledger.sqlite"), open_store("dynamodb://trading", options)):
        for call in (lambda s: s.get("a", "x"), lambda s: s.put_new("a", "x", {}), lambda s: s.query("a")):
            with pytest.raises(LedgerUnreachableError, match="No order is sent without it") as caught:
                call(store)
            assert caught.value.url == store.url
            assert "canary" not in str(caught.value)
    assert "canary" not in repr(options)


@pytest.mark.parametrize(
    "url", ["", "sqlite:///", "sqlite://memory", "dynamodb://", "dynamodb://a b", "postgres://user:canary@host/db"]
)
def test_other_urls_are_refused_without_showing_their_password(url: str) -> None:
    with pytest.raises(InvalidConfigError, match="dynamodb://table") as caught:
        open_store(url)
    assert "canary" not in str(caught.value)
