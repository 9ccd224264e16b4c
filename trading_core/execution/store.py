"""The one small protocol under ledger and paper broker: JSON documents with conditional writes.

A document lives at (pk, sk). It is created once by `put_new`, may be swapped by `replace`, and is never deleted. All
rules of the ledger are written on top of these calls, so SQLite and DynamoDB obey the same ones.

Every call raises `LedgerUnreachableError` (URL without secrets, reason) when the store does not answer, is throttled or
is damaged; then nothing may be assumed, and no order is sent.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from trading_core.errors import InvalidConfigError, LedgerUnreachableError
from trading_core.execution.codec import Document, LedgerRecordError, to_json

INLINE_BYTES = 300_000  # longer JSON texts are kept compressed on DynamoDB, which refuses items above 400 KB
MAX_STORED_BYTES = 380_000  # of a document as stored there; one limit for both stores
MAX_TRANSACTION = 100  # documents; DynamoDB's limit
LAST_CHARACTER = "\U0010ffff"  # sorts after every key: keys are ordered by their UTF-8 bytes


class Stored(NamedTuple):
    """A document as the store holds it. `version` is 1 when created and grows by 1 with each `replace`."""

    sk: str
    doc: Document
    version: int


class NewDocument(NamedTuple):
    """A document to create."""

    pk: str
    sk: str
    doc: Document


class Key(NamedTuple):
    """Where a document is, or must not be."""

    pk: str
    sk: str


class DocumentStore(Protocol):
    """JSON documents at (pk, sk), with strongly consistent reads. Safe to share between threads."""

    url: str  # without secrets

    def get(self, pk: str, sk: str) -> Document | None:
        """The document at a key, or None."""
        ...

    def find(self, pk: str, sk: str) -> Stored | None:
        """As `get`, with the version that `replace` asks for."""
        ...

    def put_new(self, pk: str, sk: str, doc: Document) -> bool:
        """Creates the document; False, and nothing written, when the key exists. Of many racing calls one is True."""
        ...

    def replace(self, pk: str, sk: str, doc: Document, expected_version: int) -> bool:
        """Swaps the document if its version is still `expected_version`; else False, and nothing written."""
        ...

    def query(self, pk: str, sk_prefix: str = "", limit: int | None = None, newest_first: bool = False) -> list[Stored]:
        """Documents of a pk whose sk starts with `sk_prefix`, ascending by sk (descending when `newest_first`)."""
        ...

    def transact_new(self, items: Sequence[NewDocument], absent: Sequence[Key] = ()) -> bool:
        """Creates all documents or none; False when any key, or any of `absent`, exists. At most 100 keys, each once."""
        ...

    def close(self) -> None:
        """Releases this thread's connection; the store may be used again."""
        ...


@dataclass(frozen=True, slots=True)
class LedgerOptions:
    """How to reach DynamoDB. Without credentials boto3's own chain is asked (environment, profile, instance role)."""

    endpoint_url: str | None = None
    region: str = "us-east-1"
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)


def open_store(url: str, options: LedgerOptions | None = None) -> DocumentStore:
    """The store at `sqlite:///path` or `dynamodb://table`. Does no I/O: file and table are created on first use.

    Errors: InvalidConfigError for any other URL.
    """
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        from trading_core.execution.store_sqlite import SqliteStore

        return SqliteStore(url.removeprefix("sqlite:///"))
    if re.fullmatch(r"dynamodb://[A-Za-z0-9_.-]{3,255}", url):
        from trading_core.execution.store_dynamodb import DynamoStore

        return DynamoStore(url.removeprefix("dynamodb://"), options or LedgerOptions())
    allowed = "allowed: sqlite:///path/of/file or dynamodb://table (credentials come from the environment, not the URL)"
    raise InvalidConfigError("The ledger URL", [f"ledger_url: '{without_secrets(url)}' is not a ledger; {allowed}"])


def without_secrets(text: str) -> str:
    """`text` with the user and password of any URL in it blanked."""
    return re.sub(r"//[^/@\s]+@", "//***@", text)


# --- shared by the implementations ------------------------------------------------------------------------------------


def checked(item: NewDocument) -> str:
    """The JSON text of a document, its keys and size checked. Errors: LedgerRecordError."""
    if not item.pk or not item.sk:
        raise LedgerRecordError("a document", "its key is empty")
    text = to_json(item.doc)
    size = len(text.encode())
    if size > INLINE_BYTES and (size := len(packed(text))) > MAX_STORED_BYTES:
        reason = f"it has {size:,} bytes compressed, at most {MAX_STORED_BYTES:,} are allowed"
        raise LedgerRecordError(f"document {item.sk}", reason)
    return text


def packed(text: str) -> bytes:
    """A JSON text, compressed (zlib)."""
    return zlib.compress(text.encode(), 6)


def checked_all(items: Sequence[NewDocument], absent: Sequence[Key] = ()) -> list[str]:
    """The JSON texts of a transaction. Errors: LedgerRecordError for too many items or a key that occurs twice."""
    count = len(items) + len(absent)
    if not items or count > MAX_TRANSACTION:
        raise LedgerRecordError(f"a transaction of {count} documents", f"1 to {MAX_TRANSACTION} are allowed")
    if len({*((item.pk, item.sk) for item in items), *absent}) != count:
        raise LedgerRecordError("a transaction", "a key occurs twice in it")
    return [checked(item) for item in items]


def parsed(url: str, pk: str, sk: str, text: str) -> Document:
    """The document in a stored text; LedgerUnreachableError when the store gives back something else."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise LedgerUnreachableError(url, f"the record {pk} {sk} is damaged ({error}); restore a backup") from error
    if not isinstance(document, dict):
        raise LedgerUnreachableError(url, f"the record {pk} {sk} is damaged (not an object); restore a backup")
    return document
