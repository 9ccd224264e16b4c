"""Who may write to an account: the newest token writes, on both stores, whatever any clock says."""

from __future__ import annotations

import inspect
import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from threading import Barrier

import pytest
from ledger_samples import (
    ACCOUNT,
    MARKET,
    NOW,
    STORE_KINDS,
    STRATEGY,
    TUE,
    WED,
    decided_ledger,
    make_decision,
    make_fill,
    make_intent,
    opened_store,
)

from trading_core.errors import LeaseHeldError, LeaseLostError
from trading_core.execution.lease import FencedStore, Lease, Leases, is_dead, this_process
from trading_core.execution.ledger import Ledger
from trading_core.execution.records import (
    AdoptionRecord,
    ApprovalRecord,
    EventLevel,
    GateRecord,
    LedgerEvent,
    RuleVerdict,
    SessionSummary,
)
from trading_core.execution.store import DocumentStore, Key, NewDocument
from trading_core.schema import CashFlow, CashFlowKind, OrderStatus

HOUR, LONG = timedelta(hours=1), timedelta(seconds=120)
A, B = (
    "sell @elsewhere:1:2:aa",
    "sell @elsewhere:3:4:bb",
)  # processes of another machine: nobody can see whether they live
SUMMARY = SessionSummary(1.0, 1.0, (), 0, 0, 0.0, NOW)


@pytest.fixture(params=STORE_KINDS)
def documents(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DocumentStore]:
    with opened_store(request.param, request, tmp_path) as store:
        yield store


@pytest.fixture
def sqlite(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DocumentStore]:
    with opened_store("sqlite", request, tmp_path) as store:
        yield store


# --- acquiring, renewing, releasing -----------------------------------------------------------------------------------


def test_tokens_count_up_and_only_one_holds(documents: DocumentStore) -> None:
    leases = Leases(documents)
    assert leases.newest(ACCOUNT) is None
    first = leases.acquire(ACCOUNT, A, NOW)
    assert first == Lease(ACCOUNT, A, 1)
    with pytest.raises(LeaseHeldError, match=r"worked on by sell @elsewhere.* until 13:02:00 UTC") as caught:
        leases.acquire(ACCOUNT, B, NOW + LONG - timedelta(seconds=1))
    assert (caught.value.holder, caught.value.until) == (A, NOW + LONG)
    assert leases.acquire("another", B, NOW).token == 1  # each account has its own
    leases.require(first)
    leases.release(first, NOW)
    second = leases.acquire(ACCOUNT, B, NOW - HOUR)  # released is released, also for a clock that is behind
    assert second.token == 3
    assert [(r.number, r.holder, r.released) for r in leases.history(ACCOUNT)] == [
        (1, A, False),
        (2, A, True),
        (3, B, False),
    ]


def test_an_expired_lease_is_taken_and_its_holder_is_told(documents: DocumentStore) -> None:
    leases = Leases(documents)
    old = leases.acquire(ACCOUNT, A, NOW)
    new = leases.acquire(ACCOUNT, B, NOW + LONG)  # from this moment on
    with pytest.raises(LeaseLostError, match=r"its lease 1 was followed by 2 of sell @elsewhere:3"):
        leases.require(old)
    with pytest.raises(LeaseLostError):
        leases.renew(old, NOW)
    leases.release(old, NOW)  # what it no longer has it cannot give back
    leases.require(new)
    assert len(leases.history(ACCOUNT)) == 2


def test_a_renewed_lease_lasts_longer_under_a_new_token(documents: DocumentStore) -> None:
    leases = Leases(documents)
    old = leases.acquire(ACCOUNT, A, NOW)
    new = leases.renew(old, NOW + LONG / 2)
    assert new.token == 2
    with pytest.raises(LeaseHeldError):
        leases.acquire(ACCOUNT, B, NOW + LONG)
    with pytest.raises(LeaseLostError):
        leases.require(old)
    leases.require(new)
    assert leases.acquire(ACCOUNT, A, NOW).token == 3  # the holder itself need not wait


def test_a_lease_that_expired_still_counts_while_nobody_took_it(documents: DocumentStore) -> None:
    leases = Leases(documents)
    lease = leases.acquire(ACCOUNT, A, NOW)
    assert FencedStore(documents, leases, lease).put_new(f"account#{ACCOUNT}", "late", {})  # no clock is asked
    assert leases.renew(lease, NOW + HOUR).token == 2


def test_of_eight_racing_acquirers_every_one_has_a_token_of_its_own(documents: DocumentStore) -> None:
    leases, barrier = Leases(documents), Barrier(8)

    def race(number: int) -> tuple[int | None, int | None]:
        """The token of a free account, and of one whose lease each finds expired."""
        barrier.wait()
        tokens: list[int | None] = []
        for account, now in (("free", NOW), ("expired", NOW + number * HOUR)):
            try:
                tokens.append(leases.acquire(account, f"h{number} @elsewhere:{number}:1:x", now).token)
            except LeaseHeldError:
                tokens.append(None)
        return tokens[0], tokens[1]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(race, range(8)))
    assert [token for token, _ in results if token is not None] == [1]  # it is free once
    taken = [token for _, token in results if token is not None]
    assert sorted(taken) == list(range(1, len(taken) + 1))
    assert [r.number for r in leases.history("expired")] == sorted(taken)


# --- fencing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Two:
    """Two processes of one account: `late` held the lease first, `new` has taken it over."""

    late: Ledger
    new: Ledger


def two_holders(documents: DocumentStore, takeover: timedelta = LONG) -> _Two:
    leases = Leases(documents)
    first = FencedStore(documents, leases, leases.acquire(ACCOUNT, A, NOW))
    late = decided_ledger(first)
    late.record_intent(make_intent())
    late.record_fill(ACCOUNT, make_fill(make_intent(), 4.0, 100.0))
    late.record_order_state(ACCOUNT, TUE, make_intent().client_order_id, OrderStatus.ACCEPTED, NOW)
    second = leases.acquire(ACCOUNT, B, NOW + takeover)
    return _Two(late, Ledger(FencedStore(documents, leases, second)))


KEY = (ACCOUNT, TUE, make_intent().client_order_id)
GATES = GateRecord(ACCOUNT, TUE, KEY[2], "AAA", (RuleVerdict("restricted", "approve", ""),), NOW)
SAID = ApprovalRecord(ACCOUNT, TUE, make_decision().decision_id, True, "ann", "", NOW)
EVENT = LedgerEvent(ACCOUNT, TUE, "note", EventLevel.INFO, "x", NOW)

# Every method of the ledger that writes to an account, each with something new to write.
WRITES: dict[str, Callable[[Ledger], object]] = {
    "open_session": lambda ledger: ledger.open_session(ACCOUNT, WED, TUE, TUE, NOW, "run-2"),
    "record_intent": lambda ledger: ledger.record_intent(make_intent("CCC")),
    "record_order_state": lambda ledger: ledger.record_order_state(*KEY, OrderStatus.CANCELED, NOW, 5.0, 100.0),
    "record_fill": lambda ledger: ledger.record_fill(ACCOUNT, make_fill(make_intent(), 1.0, 100.0, number=9)),
    "record_fill, a correction": lambda ledger: ledger.record_fill(ACCOUNT, make_fill(make_intent(), 3.0, 100.0)),
    "record_gates": lambda ledger: ledger.record_gates(GATES),
    "record_cash_flow": lambda ledger: ledger.record_cash_flow(
        ACCOUNT, CashFlow("f1", TUE, CashFlowKind.FEE, "", -1.0)
    ),
    "record_approval": lambda ledger: ledger.record_approval(SAID),
    "record_event": lambda ledger: ledger.record_event(EVENT),
    "adopt": lambda ledger: ledger.adopt(AdoptionRecord(ACCOUNT, TUE, (), 1.0, "ann", "why", NOW)),
    "freeze_decision": lambda ledger: ledger.freeze_decision(replace(make_decision(), cash=1.0)),
    "settle_session": lambda ledger: ledger.settle_session(ACCOUNT, TUE, SUMMARY),
}
# By design without a lease: who owns what is settled before there is one; a halt must never wait.
UNFENCED = {"claim_account", "claim_identity", "halt", "resume"}
READS = {
    "accounts", "adoptions", "approval", "cash_flows", "corrections", "events", "executions", "fills", "gates",
    "get_decision", "halt_history", "halted", "intents", "last_session", "order", "order_history", "orders",
    "session_state", "sessions", "summaries",
}  # fmt: skip


def test_every_method_of_the_ledger_is_in_one_of_the_lists() -> None:
    methods = {name for name, _ in inspect.getmembers(Ledger, inspect.isfunction) if not name.startswith("_")}
    assert methods == {name.partition(",")[0] for name in WRITES} | UNFENCED | READS


def _contents(documents: DocumentStore) -> list[tuple[str, object]]:
    return [(item.sk, item.doc) for item in documents.query(f"account#{ACCOUNT}")]


def test_a_holder_that_was_followed_can_read_and_write_nothing(documents: DocumentStore) -> None:
    both = two_holders(documents)
    # open_session and settle_session ask first whether the orders have ended: let them have.
    both.new.record_order_state(*KEY, OrderStatus.CANCELED, NOW, 4.0, 100.0)
    before = _contents(documents)
    for write in WRITES.values():
        with pytest.raises(LeaseLostError, match=r"its lease 1 was followed by 2 of sell @elsewhere:3"):
            write(both.late)
    assert _contents(documents) == before
    assert both.late.orders(ACCOUNT, TUE) == both.new.orders(ACCOUNT, TUE)
    assert both.late.get_decision(ACCOUNT, TUE) == make_decision()
    # What it wrote before it was followed stands, and the new holder writes on.
    for name, write in WRITES.items():
        if name == "settle_session":  # of the intent above nothing is known: settling would be refused
            both.new.record_order_state(ACCOUNT, TUE, make_intent("CCC").client_order_id, OrderStatus.EXPIRED, NOW)
        count = len(_contents(documents))
        write(both.new)
        assert len(_contents(documents)) > count or name == "freeze_decision"  # the first decision stands


def test_the_attempt_to_send_fails_even_where_another_has_written_the_same_one(documents: DocumentStore) -> None:
    """The last write before an order goes out must meet the fence, also where it would say nothing new."""
    leases = Leases(documents)
    late = decided_ledger(FencedStore(documents, leases, leases.acquire(ACCOUNT, A, NOW)))
    late.record_intent(make_intent())
    new = Ledger(FencedStore(documents, leases, leases.acquire(ACCOUNT, B, NOW + LONG)))
    new.record_order_state(*KEY, OrderStatus.SUBMITTING, NOW)
    with pytest.raises(LeaseLostError):
        late.record_order_state(*KEY, OrderStatus.SUBMITTING, NOW)


def test_halts_and_claims_need_no_lease(sqlite: DocumentStore) -> None:
    both = two_holders(sqlite)
    both.late.halt(ACCOUNT, "odd", "ann", NOW)
    assert both.new.halted(ACCOUNT) == "odd"
    both.late.resume(ACCOUNT, "ann", NOW)
    both.late.claim_account("another", STRATEGY, MARKET, NOW)
    both.late.claim_identity("broker:1", "another")


def test_the_accounts_partition_is_fenced_and_others_are_not(sqlite: DocumentStore) -> None:
    leases = Leases(sqlite)
    lease = leases.acquire(ACCOUNT, A, NOW)
    store, mine = FencedStore(sqlite, leases, lease), f"account#{ACCOUNT}"
    assert store.transact_new([NewDocument(mine, "x", {}), NewDocument("free", "x", {})])
    assert not store.put_new(mine, "x", {})  # taken, and the lease is fine
    assert not store.transact_new([NewDocument(mine, "y", {})], absent=[Key("free", "x")])
    leases.acquire(ACCOUNT, B, NOW + LONG)
    with pytest.raises(LeaseLostError):
        store.put_new(mine, "z", {})
    with pytest.raises(LeaseLostError):
        store.transact_new([NewDocument("free", "z", {}), NewDocument(mine, "z", {})])
    with pytest.raises(LeaseLostError, match="append-only"):
        store.replace(mine, "x", {"n": 1}, 1)
    assert store.get("free", "z") is None
    assert store.put_new("free", "z", {})
    assert store.replace("free", "z", {"n": 1}, 1)
    assert store.transact_new([NewDocument("free", "w", {})])
    assert [item.sk for item in store.query("free")] == ["w", "x", "z"]
    found = store.find("free", "z")
    assert found is not None
    assert found.version == 2


@pytest.mark.parametrize("skew", [-HOUR, HOUR])
def test_a_clock_that_is_wrong_by_an_hour_never_lets_two_write(sqlite: DocumentStore, skew: timedelta) -> None:
    """Two processes take turns; one's clock is wrong. It may take too early or wait too long, but one alone writes."""
    leases = Leases(sqlite)
    held: dict[str, FencedStore] = {}
    writers: list[str] = []
    for step in range(12):
        holder, wrong = ((A, skew), (B, timedelta(0)))[step % 2]
        now = NOW + step * timedelta(seconds=50) + wrong
        with suppress(LeaseHeldError):
            held[holder] = FencedStore(sqlite, leases, leases.acquire(ACCOUNT, holder, now))
        able = []
        for name, store in held.items():
            with suppress(LeaseLostError):
                store.put_new(f"account#{ACCOUNT}", f"{step}-{name}", {})
                able.append(name)
        assert len(able) == 1
        writers += able
    assert A in writers
    tokens = [record.number for record in leases.history(ACCOUNT)]
    assert tokens == list(range(1, len(tokens) + 1))


def test_racing_writes_of_two_holders_are_all_from_before_or_after_the_takeover(documents: DocumentStore) -> None:
    leases = Leases(documents)
    late = FencedStore(documents, leases, leases.acquire(ACCOUNT, A, NOW))
    barrier = Barrier(2)
    pk = f"account#{ACCOUNT}"

    def write() -> int:
        barrier.wait()
        for number in range(200):
            try:
                late.put_new(pk, f"w{number:03d}", {})
            except LeaseLostError:
                return number
        return 200

    def take() -> int:
        barrier.wait()
        leases.acquire(ACCOUNT, B, NOW + LONG)
        return len(documents.query(pk, "w"))

    with ThreadPoolExecutor(2) as pool:
        written, seen = pool.submit(write), pool.submit(take)
    assert written.result() == seen.result() == len(documents.query(pk, "w"))


# --- dead processes ---------------------------------------------------------------------------------------------------


def _child() -> tuple[int, str]:
    """A process that waits to be killed, and the name it gave itself as a holder."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, this_process("sell of 2024-01-09").encode())
        os.close(write)
        signal.pause()
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        return pid, pipe.read()


def test_a_killed_process_of_this_machine_is_not_waited_for(sqlite: DocumentStore) -> None:
    pid, holder = _child()
    leases = Leases(sqlite)
    try:
        lease = leases.acquire(ACCOUNT, holder, NOW)
        assert f"sell of 2024-01-09 @{socket.gethostname()}:{pid}:" in holder
        with pytest.raises(LeaseHeldError):
            leases.acquire(ACCOUNT, B, NOW)
        os.kill(pid, signal.SIGSTOP)  # stopped is not dead: it may go on
        with pytest.raises(LeaseHeldError):
            leases.acquire(ACCOUNT, B, NOW)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert is_dead(holder)  # though its parent has not collected its exit code yet
    os.waitpid(pid, 0)
    assert is_dead(holder)
    assert leases.acquire(ACCOUNT, B, NOW).token == lease.token + 1


def test_a_process_that_got_the_number_of_a_dead_one_is_another() -> None:
    mine = this_process("sell")
    assert not is_dead(mine)
    before, _, nonce = mine.rpartition(":")
    host_and_pid, _, started = before.rpartition(":")
    assert is_dead(f"{host_and_pid}:{int(started) - 1}:{nonce}")


@pytest.mark.parametrize(
    "holder",
    [
        "",
        "ann",
        "sell @",
        "sell @{host}",
        "sell @{host}:",
        "sell @{host}:x:1:a",
        "sell @{host}:1",
        "sell @other:999999:1:a",
    ],
)
def test_a_holder_that_names_no_process_of_this_machine_is_not_called_dead(holder: str) -> None:
    assert not is_dead(holder.replace("{host}", socket.gethostname()))


def test_two_holders_never_have_one_name() -> None:
    assert this_process("sell") != this_process("sell")


def test_an_account_that_was_never_leased_has_no_lease_to_require(sqlite: DocumentStore) -> None:
    with pytest.raises(LeaseLostError, match="its lease 4 is gone"):
        Leases(sqlite).require(Lease(ACCOUNT, A, 4))
    assert Lease(ACCOUNT, A, 4).fence == Key(f"account#{ACCOUNT}", "lease#0000000005")
