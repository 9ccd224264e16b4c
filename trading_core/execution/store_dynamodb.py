"""DocumentStore on one DynamoDB table: for workers on many machines.

Keys `pk`, `sk` (strings), pay per request, created when absent. A document is one JSON text, compressed when long
(DynamoDB's numbers are decimals and would not keep floats bit for bit); a few of its top-level texts are repeated as
attributes for people who look at the table. All reads are strongly consistent.

Every write carries a random token: when an answer is lost and the retry finds the key taken, the token tells whether
it was taken by this very write (https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_PutItem.html
promises no idempotency for conditional puts).
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trading_core.errors import LedgerUnreachableError
from trading_core.execution.codec import Document
from trading_core.execution.store import (
    INLINE_BYTES,
    Key,
    LedgerOptions,
    NewDocument,
    Stored,
    checked,
    checked_all,
    packed,
    parsed,
    without_secrets,
)

CONNECT_TIMEOUT_S = 3
READ_TIMEOUT_S = 5
ATTEMPTS = 3  # of one call inside boto3: throttling and server errors, with its own backoff
CONFLICT_ATTEMPTS = 8  # of a write that met another transaction on the same key
CREATION_WAIT_S = 60
NOT_DYNAMODB = "something that is not DynamoDB answered; check the endpoint URL"
SHOWN = ("account", "kind", "market", "side", "status", "strategy", "symbol")
_CONFLICTS = ("TransactionConflict", "TransactionConflictException", "TransactionInProgressException")
_KEYS = [("pk", "HASH"), ("sk", "RANGE")]


class DynamoStore:
    """See `DocumentStore`. Constructing does no I/O."""

    def __init__(self, table: str, options: LedgerOptions) -> None:
        self.url = f"dynamodb://{table}"
        self._table = table
        self._options = options
        self._lock = threading.Lock()
        self._ready: Any = None  # the client, once the table is known to exist; boto3 clients are thread-safe

    def get(self, pk: str, sk: str) -> Document | None:
        found = self.find(pk, sk)
        return found.doc if found else None

    def find(self, pk: str, sk: str) -> Stored | None:
        item = self._item(pk, sk)
        return self._stored(pk, item) if item else None

    def put_new(self, pk: str, sk: str, doc: Document) -> bool:
        token = secrets.token_hex(16)
        item = _item(NewDocument(pk, sk, doc), checked(NewDocument(pk, sk, doc)), token)
        written = self._write(
            lambda client: client.put_item(
                TableName=self._table, Item=item, ConditionExpression="attribute_not_exists(pk)"
            )
        )
        return written or self._was_mine(pk, sk, "created_by", token)

    def replace(self, pk: str, sk: str, doc: Document, expected_version: int) -> bool:
        token = secrets.token_hex(16)
        old = self._item(pk, sk)
        if old is None:
            return False
        item = _item(NewDocument(pk, sk, doc), checked(NewDocument(pk, sk, doc)), token)
        item |= {"version": {"N": str(expected_version + 1)}, "created_by": old["created_by"]}
        written = self._write(
            lambda client: client.put_item(
                TableName=self._table,
                Item=item,
                ConditionExpression="#v = :expected",
                ExpressionAttributeNames={"#v": "version"},
                ExpressionAttributeValues={":expected": {"N": str(expected_version)}},
            )
        )
        return written or self._was_mine(pk, sk, "written_by", token)

    def query(self, pk: str, sk_prefix: str = "", limit: int | None = None, newest_first: bool = False) -> list[Stored]:
        arguments: dict[str, Any] = {
            "TableName": self._table,
            "ConsistentRead": True,
            "ScanIndexForward": not newest_first,
            "KeyConditionExpression": "pk = :pk" + (" AND begins_with(sk, :sk)" if sk_prefix else ""),
            "ExpressionAttributeValues": {":pk": {"S": pk}} | ({":sk": {"S": sk_prefix}} if sk_prefix else {}),
        }
        found: list[Stored] = []
        while limit is None or len(found) < limit:
            if limit is not None:
                arguments["Limit"] = limit - len(found)
            page = self._call(lambda client: client.query(**arguments))
            found += [self._stored(pk, item) for item in page["Items"]]
            if "LastEvaluatedKey" not in page:
                break
            arguments["ExclusiveStartKey"] = page["LastEvaluatedKey"]
        return found

    def transact_new(self, items: Sequence[NewDocument], absent: Sequence[Key] = ()) -> bool:
        token, request = secrets.token_hex(16), secrets.token_hex(16)
        puts = [
            {
                "Put": {
                    "TableName": self._table,
                    "Item": _item(item, text, token),
                    "ConditionExpression": "attribute_not_exists(pk)",
                }
            }
            for item, text in zip(items, checked_all(items, absent), strict=True)
        ]
        checks = [
            {
                "ConditionCheck": {
                    "TableName": self._table,
                    "Key": {"pk": {"S": key.pk}, "sk": {"S": key.sk}},
                    "ConditionExpression": "attribute_not_exists(pk)",
                }
            }
            for key in absent
        ]
        # The request token makes boto3's own retries of this call idempotent at the server.
        written = self._write(
            lambda client: client.transact_write_items(TransactItems=[*puts, *checks], ClientRequestToken=request)
        )
        return written or self._was_mine(items[0].pk, items[0].sk, "created_by", token)

    def close(self) -> None:
        with self._lock:
            if self._ready is not None:
                self._ready.close()
            self._ready = None

    # --- calls --------------------------------------------------------------------------------------------------------

    def _item(self, pk: str, sk: str) -> dict[str, Any] | None:
        key = {"pk": {"S": pk}, "sk": {"S": sk}}
        answer = self._call(lambda client: client.get_item(TableName=self._table, Key=key, ConsistentRead=True))
        return answer.get("Item")

    def _stored(self, pk: str, item: Mapping[str, Any]) -> Stored:
        try:
            sk, version = item["sk"]["S"], int(item["version"]["N"])
            text = item["doc"]["S"] if "doc" in item else zlib.decompress(item["doc_zlib"]["B"]).decode()
        except (KeyError, ValueError, zlib.error) as error:
            reason = f"an item of {pk} was not written by this platform ({error!r}); restore a backup"
            raise LedgerUnreachableError(self.url, reason) from error
        return Stored(sk, parsed(self.url, pk, sk, text), version)

    def _was_mine(self, pk: str, sk: str, attribute: str, token: str) -> bool:
        item = self._item(pk, sk)
        return item is not None and item.get(attribute, {}).get("S") == token

    def _write(self, call: Callable[[Any], Any]) -> bool:
        """False when the write's condition failed. Meeting another transaction on a key is retried, then an error."""
        from botocore.exceptions import ClientError

        for attempt in itertools.count(1):
            try:
                self._call(call)
                return True
            except LedgerUnreachableError as error:
                codes = _codes(error.__cause__) if isinstance(error.__cause__, ClientError) else set()
                if "ConditionalCheckFailed" in codes or "ConditionalCheckFailedException" in codes:
                    return False
                if not codes.intersection(_CONFLICTS) or attempt == CONFLICT_ATTEMPTS:
                    raise
                time.sleep(0.01 * 2**attempt)
        return False

    def _call(self, call: Callable[[Any], Any]) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return self._genuine(call(self._client()))
        except (ClientError, BotoCoreError, OSError, ValueError) as error:
            raise LedgerUnreachableError(self.url, without_secrets(str(error))) from error

    def _genuine(self, answer: dict[str, Any]) -> dict[str, Any]:
        # boto3 reads any 200 that is not JSON (a proxy's page) as an empty answer, which would mean "no such item".
        if not answer.get("ResponseMetadata", {}).get("RequestId"):
            raise LedgerUnreachableError(self.url, NOT_DYNAMODB)
        return answer

    def _client(self) -> Any:
        with self._lock:
            if self._ready is None:
                client = _connect(self._options)
                _ensure_table(client, self._table, self.url)
                self._ready = client
            return self._ready


def _connect(options: LedgerOptions) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        max_pool_connections=32,
    )
    # A session of its own: boto3's default session is not safe to build clients from in several threads.
    return boto3.session.Session().client(
        "dynamodb",
        endpoint_url=options.endpoint_url or None,
        region_name=options.region,
        aws_access_key_id=options.access_key_id or None,
        aws_secret_access_key=options.secret_access_key or None,
        config=config,
    )


def _ensure_table(client: Any, table: str, url: str) -> None:
    """Creates the table when absent, waits until it is active, and refuses one with other keys."""
    deadline = time.monotonic() + CREATION_WAIT_S
    while True:
        try:
            found = client.describe_table(TableName=table).get("Table")
            if found is None:
                raise LedgerUnreachableError(url, NOT_DYNAMODB)
            keys = [(key["AttributeName"], key["KeyType"]) for key in found["KeySchema"]]
            if sorted(keys) != _KEYS:
                raise LedgerUnreachableError(
                    url, f"the table exists with the keys {keys}, not {_KEYS}; name another table"
                )
            if found["TableStatus"] in ("ACTIVE", "UPDATING"):
                return
        except client.exceptions.ResourceNotFoundException:
            _create_table(client, table)
            continue
        if time.monotonic() > deadline:
            raise LedgerUnreachableError(url, f"the table is not active after {CREATION_WAIT_S} s")
        time.sleep(0.5)


def _create_table(client: Any, table: str) -> None:
    try:
        client.create_table(
            TableName=table,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": name, "KeyType": kind} for name, kind in _KEYS],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name, _ in _KEYS],
        )
    except client.exceptions.ResourceInUseException:
        return  # another worker is creating it


def _item(item: NewDocument, text: str, token: str) -> dict[str, Any]:
    shown = {name: {"S": item.doc[name]} for name in SHOWN if isinstance(item.doc.get(name), str)}
    inline = len(text.encode()) <= INLINE_BYTES
    return shown | {
        "doc" if inline else "doc_zlib": {"S": text} if inline else {"B": packed(text)},
        "pk": {"S": item.pk},
        "sk": {"S": item.sk},
        "version": {"N": "1"},
        "created_by": {"S": token},
        "written_by": {"S": token},
    }


def _codes(error: Any) -> set[str]:
    """All error codes in a ClientError: its own, and those of a canceled transaction's items."""
    reasons = error.response.get("CancellationReasons", [])
    return {error.response["Error"]["Code"], *(str(reason.get("Code")) for reason in reasons)}
