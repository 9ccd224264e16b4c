"""Who may write to an account: one holder at a time, with a fencing token.

Every acquisition, renewal and release is a document of its own, `lease#<number>`; the newest one counts, and its number is
the fencing token. A holder's writes are made on the condition that no newer document exists (`Lease.fence`), in the same
transaction: a process that was paused, and another took over meanwhile, cannot write any more, whatever its clock says.
(M. Kleppmann, "How to do distributed locking", 2016, describes fencing tokens.)

Expiry therefore decides about waiting only, never about safety. What a late process could still do is send an order: that is
stopped by the broker's refusal of an id it knows.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from trading_core.errors import LeaseHeldError, LeaseLostError
from trading_core.execution.codec import Document, from_document, to_document
from trading_core.execution.store import DocumentStore, Key, NewDocument

LEASE_SECONDS = 120


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """One change of an account's lease. `released`: nobody holds it from `at` on."""

    number: int
    holder: str
    at: datetime
    expires_at: datetime
    released: bool = False


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write to `account`, until somebody acquires a newer one. `token` is the number of its record."""

    account: str
    holder: str
    token: int

    @property
    def fence(self) -> Key:
        """The document that must not exist when this lease's holder writes."""
        return _key(self.account, self.token + 1)


def this_process(label: str) -> str:
    """A holder's name: what it does, and which process of which machine it is, so that its death can be noticed."""
    return f"{label} @{socket.gethostname()}:{os.getpid()}:{_started(os.getpid())}:{secrets.token_hex(4)}"


def is_dead(holder: str) -> bool:
    """Whether `holder` is a process of this machine that has ended. False when that cannot be known."""
    host, _, rest = holder.rpartition("@")[2].partition(":")
    parts = rest.split(":")
    if host != socket.gethostname() or len(parts) < 2 or not parts[0].isdigit() or not Path("/proc/self/stat").exists():
        return False
    return _started(int(parts[0])) != parts[1]


def _started(pid: int) -> str:
    """When a process started, in clock ticks since boot; empty when there is none, or only its exit code is left to be read
    (a zombie). Tells a reused pid from the old one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in ("Z", "X") else fields[19]
    except (OSError, IndexError):
        return ""


class Leases:
    """The leases of one store. Constructing does no I/O."""

    def __init__(self, store: DocumentStore, seconds: float = LEASE_SECONDS) -> None:
        self._store = store
        self._seconds = seconds

    def acquire(self, account: str, holder: str, now: datetime) -> Lease:
        """Takes the lease. Errors: LeaseHeldError while another holder's has not expired and its process is not dead."""
        while True:
            last = self.newest(account)
            free = last is None or last.released or last.holder == holder or is_dead(last.holder)
            if last is not None and not free and now < last.expires_at:
                raise LeaseHeldError(account, last.holder, last.expires_at)
            number = last.number + 1 if last else 1
            if self._write(account, LeaseRecord(number, holder, now, now + timedelta(seconds=self._seconds))):
                return Lease(account, holder, number)
            # Another process was faster: judge again.

    def renew(self, lease: Lease, now: datetime) -> Lease:
        """A newer lease of the same holder. LeaseLostError when another one has it."""
        record = LeaseRecord(lease.token + 1, lease.holder, now, now + timedelta(seconds=self._seconds))
        if not self._write(lease.account, record):
            self.require(lease)
        return Lease(lease.account, lease.holder, record.number)

    def release(self, lease: Lease, now: datetime) -> None:
        """Lets the account go; nothing when another holder has it by now."""
        self._write(lease.account, LeaseRecord(lease.token + 1, lease.holder, now, now, released=True))

    def require(self, lease: Lease) -> None:
        """LeaseLostError unless this lease is the newest."""
        last = self.newest(lease.account)
        if last is None or last.number != lease.token:
            taken = "is gone" if last is None else f"was followed by {last.number} of {last.holder}"
            raise LeaseLostError(lease.account, lease.token, taken)

    def newest(self, account: str) -> LeaseRecord | None:
        found = self._store.query(f"account#{account}", "lease#", limit=1, newest_first=True)
        return from_document(LeaseRecord, found[0].doc) if found else None

    def history(self, account: str) -> list[LeaseRecord]:
        """All records, oldest first."""
        return [from_document(LeaseRecord, item.doc) for item in self._store.query(f"account#{account}", "lease#")]

    def _write(self, account: str, record: LeaseRecord) -> bool:
        return self._store.put_new(*_key(account, record.number), to_document(record))


class FencedStore:
    """A DocumentStore whose creations in the lease's account happen only while the lease is the newest.

    Reads and documents of other partitions pass through.
    """

    def __init__(self, store: DocumentStore, leases: Leases, lease: Lease) -> None:
        self.url = store.url
        self.lease = lease
        self._store = store
        self._leases = leases
        self._fenced = f"account#{lease.account}"
        self.get, self.find, self.query, self.close = store.get, store.find, store.query, store.close

    def put_new(self, pk: str, sk: str, doc: Document) -> bool:
        if pk != self._fenced:
            return self._store.put_new(pk, sk, doc)
        return self.transact_new([NewDocument(pk, sk, doc)])

    def replace(self, pk: str, sk: str, doc: Document, expected_version: int) -> bool:
        if pk == self._fenced:
            raise LeaseLostError(
                self.lease.account, self.lease.token, "covers no replacing: its records are append-only"
            )
        return self._store.replace(pk, sk, doc, expected_version)

    def transact_new(self, items: Sequence[NewDocument], absent: Sequence[Key] = ()) -> bool:
        """As the store's. Errors: LeaseLostError, and then nothing was written."""
        if not any(item.pk == self._fenced for item in items):
            return self._store.transact_new(items, absent)
        if self._store.transact_new(items, [*absent, self.lease.fence]):
            return True
        self._leases.require(self.lease)
        return False


def _key(account: str, number: int) -> Key:
    return Key(f"account#{account}", f"lease#{number:010d}")
