"""DynamoDB under what only a network meets: a lost answer, throttling, garbage, a table of somebody else."""

from __future__ import annotations

import http.client
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse

import boto3
import pytest
from ledger_samples import dynamodb_options

from trading_core.errors import LedgerUnreachableError
from trading_core.execution.store import DocumentStore, NewDocument, open_store
from trading_core.execution.store_dynamodb import _connect

JSON_1_0 = "application/x-amz-json-1.0"


def new_store(endpoint: str) -> DocumentStore:
    return open_store(f"dynamodb://t-{uuid.uuid4().hex[:12]}", dynamodb_options(endpoint))


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler, bytes], None]) -> Iterator[str]:
    """A local HTTP server that lets `answer` speak for DynamoDB."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            answer(self, self.rfile.read(int(self.headers["Content-Length"])))

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes, request_id: str = "") -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", JSON_1_0)
    if request_id:
        handler.send_header("x-amzn-RequestId", request_id)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


@contextmanager
def losing_first_answer(endpoint: str, operation: str) -> Iterator[tuple[str, list[str]]]:
    """A proxy that carries out the first call of an operation, but drops the connection instead of answering it."""
    calls: list[str] = []

    def forward(handler: BaseHTTPRequestHandler, body: bytes) -> None:
        target = handler.headers["X-Amz-Target"].split(".")[1]
        calls.append(target)
        upstream = http.client.HTTPConnection(urlparse(endpoint).netloc)
        upstream.request("POST", "/", body, dict(handler.headers))
        answer = upstream.getresponse()
        content = answer.read()
        if target == operation and calls.count(operation) == 1:
            handler.connection.close()
            return
        reply(handler, answer.status, content, answer.headers["x-amzn-RequestId"])

    with serving(forward) as url:
        yield url, calls


def test_a_put_whose_answer_was_lost_is_still_known_as_ours(dynamodb_endpoint: str) -> None:
    with losing_first_answer(dynamodb_endpoint, "PutItem") as (url, calls):
        store = new_store(url)
        assert store.put_new("a", "x", {"value": 1})  # the retry met our own document
        assert calls.count("PutItem") == 2
        assert not store.put_new("a", "x", {"value": 2})
        assert store.find("a", "x") == ("x", {"value": 1}, 1)


def test_a_swap_whose_answer_was_lost_is_still_known_as_ours(dynamodb_endpoint: str) -> None:
    direct = new_store(dynamodb_endpoint)
    direct.put_new("a", "x", {"value": 1})
    with losing_first_answer(dynamodb_endpoint, "PutItem") as (url, calls):
        store = open_store(direct.url, dynamodb_options(url))
        assert store.replace("a", "x", {"value": 2}, expected_version=1)
        assert calls.count("PutItem") == 2
    assert direct.find("a", "x") == ("x", {"value": 2}, 2)


def test_a_transaction_whose_answer_was_lost_is_still_known_as_ours(dynamodb_endpoint: str) -> None:
    with losing_first_answer(dynamodb_endpoint, "TransactWriteItems") as (url, calls):
        store = new_store(url)
        assert store.transact_new([NewDocument("a", "x", {}), NewDocument("a", "y", {})])
        assert calls.count("TransactWriteItems") == 2
        assert not store.transact_new([NewDocument("a", "y", {}), NewDocument("a", "z", {})])


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (400, b'{"__type":"com.amazonaws.dynamodb#ThrottlingException","message":"Rate exceeded"}', "Rate exceeded"),
        (400, b'{"__type":"com.amazonaws#UnrecognizedClientException","message":"bad token"}', "bad token"),
        (500, b'{"__type":"InternalServerError","message":"try later"}', "try later"),
        (200, b"<html>a captive portal</html>", "not DynamoDB"),
    ],
)
def test_refusals_and_garbage_become_one_error(status: int, body: bytes, reason: str) -> None:
    with serving(lambda handler, _: reply(handler, status, body)) as url:
        with pytest.raises(LedgerUnreachableError) as caught:
            new_store(url).put_new("a", "x", {})
        assert reason in str(caught.value)


def test_a_page_in_place_of_an_answer_is_not_read_as_an_empty_ledger(dynamodb_endpoint: str) -> None:
    store = new_store(dynamodb_endpoint)
    store.put_new("a", "x", {})
    with serving(lambda handler, _: reply(handler, 200, b"<html>a captive portal</html>")) as url:
        portal = open_store(store.url, dynamodb_options(url))
        portal._ready = _connect(dynamodb_options(url))  # the table was found before the portal came
        for call in (lambda: portal.get("a", "x"), lambda: portal.put_new("a", "y", {}), lambda: portal.query("a")):
            with pytest.raises(LedgerUnreachableError, match="not DynamoDB"):
                call()


def test_it_pages_with_consistent_reads(dynamodb_endpoint: str) -> None:
    store = new_store(dynamodb_endpoint)
    for number in range(10):
        store.put_new("big", f"{number}", {"padding": "x" * 150_000})
    requests: list[dict] = []
    store._ready.meta.events.register(
        "provide-client-params.dynamodb.Query", lambda params, **_: requests.append(dict(params))
    )
    assert len(store.query("big")) == 10
    assert len(requests) >= 2  # 1.5 MB: more than the 1 MB that one answer may hold
    assert all(request["ConsistentRead"] is True for request in requests)


def test_the_table_is_made_for_it_and_shows_people_what_it_holds(dynamodb_endpoint: str) -> None:
    store = new_store(dynamodb_endpoint)
    store.put_new("a", "x", {"symbol": "AAA", "side": "buy", "quantity": 0.1})
    client = boto3.session.Session("testing", "testing").client("dynamodb", "us-east-1", endpoint_url=dynamodb_endpoint)
    name = store.url.removeprefix("dynamodb://")
    table = client.describe_table(TableName=name)["Table"]
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert [(key["AttributeName"], key["KeyType"]) for key in table["KeySchema"]] == [("pk", "HASH"), ("sk", "RANGE")]
    item = client.scan(TableName=name)["Items"][0]
    assert item["symbol"] == {"S": "AAA"}
    assert item["side"] == {"S": "buy"}
    assert item["doc"] == {"S": '{"quantity":0.1,"side":"buy","symbol":"AAA"}'}


def test_a_table_of_somebody_else_is_refused(dynamodb_endpoint: str) -> None:
    client = boto3.session.Session("testing", "testing").client("dynamodb", "us-east-1", endpoint_url=dynamodb_endpoint)
    client.create_table(
        TableName="foreign",
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    )
    with pytest.raises(LedgerUnreachableError, match="name another table"):
        open_store("dynamodb://foreign", dynamodb_options(dynamodb_endpoint)).get("a", "x")
