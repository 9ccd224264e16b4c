"""The last trades that Alpaca's market data API tells, at the local stand-in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from ledger_samples import ACCOUNT, NOW

sys.path.insert(0, str(Path(__file__).resolve().parent))  # alpaca_trading_server is a program beside the tests

from alpaca_samples import HANGING, KEYS, SESSIONS, SHORT, broker_at, said
from alpaca_trading_server import FAULTS, AlpacaTradingServer

from trading_core.errors import BrokerAccessError, BrokerBusyError, BrokerUnreachableError, InvalidConfigError
from trading_core.execution import alpaca_json, alpaca_quotes
from trading_core.execution.alpaca import AlpacaBroker
from trading_core.execution.alpaca_calls import AlpacaAccess
from trading_core.execution.broker import LastTrade, QuotingBroker


@pytest.fixture
def server() -> Iterator[AlpacaTradingServer]:
    with AlpacaTradingServer(NOW, cash="10000", hang_s=2.0) as running:
        yield running


def test_a_symbol_without_a_trade_is_missing(server: AlpacaTradingServer) -> None:
    server.quote("AAA", 101.25, NOW - timedelta(minutes=3))
    server.quote("BRK.B", 480.5)
    broker = broker_at(server)
    assert isinstance(broker, QuotingBroker)
    assert broker.last_trades(["AAA", "CCC", "BRK.B", "AAA"]) == {
        "AAA": LastTrade(101.25, NOW - timedelta(minutes=3)),
        "BRK.B": LastTrade(480.5, NOW),
    }
    assert broker.last_trades([]) == {}
    assert [query["symbols"] for query in server.asked("last trades")] == ["AAA,BRK.B,CCC"]


def test_a_symbol_that_alpaca_does_not_know_hides_no_other(server: AlpacaTradingServer) -> None:
    server.quote("AAA", 101.25)
    assert set(broker_at(server).last_trades(["NOPE", "AAA"])) == {"AAA"}
    assert broker_at(server).last_trades(["NOPE"]) == {}


def test_many_symbols_are_asked_for_in_batches(server: AlpacaTradingServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alpaca_quotes, "PER_REQUEST", 2)
    for symbol in ("A", "B", "C"):
        server.quote(symbol, 10.0)
    assert sorted(broker_at(server).last_trades(["C", "B", "A"])) == ["A", "B", "C"]
    assert [query["symbols"] for query in server.asked("last trades")] == ["A,B", "C"]


NO_ANSWER = sorted(
    set(FAULTS) - {"lost answer", "late answer", "closing", "other id", "other quantity", "unknown status", "no number"}
    - {"404", "404 page", "404 endpoint", "422", "422 duplicate", "422 old duplicate", "echo", "no funds"}
)  # fmt: skip


@pytest.mark.parametrize("fault", [*NO_ANSWER, "lost answer"])
def test_a_question_without_an_answer_is_not_no_trade(server: AlpacaTradingServer, fault: str) -> None:
    server.quote("AAA", 101.25)
    server.inject("last trades", fault)
    broker = broker_at(server, SHORT if fault in HANGING else None)
    with pytest.raises((BrokerUnreachableError, BrokerBusyError, BrokerAccessError)) as caught:
        broker.last_trades(["AAA"])
    assert "the question for the last trades" in said(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([], "no JSON object"),
        ({}, "no 'trades'"),
        ({"trades": {"AAA": {"p": 0, "t": "2024-01-09T14:00:00Z"}}}, "the price 0"),
        ({"trades": {"AAA": {"p": "ten", "t": "2024-01-09T14:00:00Z"}}}, "'p' is no number"),
        ({"trades": {"AAA": {"p": 10, "t": "2024-01-09T14:00:00"}}}, "'t' has no zone"),
        ({"trades": {"AAA": {"p": 10}}}, "no 't'"),
    ],
)
def test_an_answer_that_is_none_is_told(content: object, reason: str) -> None:
    with pytest.raises(alpaca_json.Malformed, match=reason):
        alpaca_json.last_trades_of(content)


def test_keys_go_to_alpaca_or_this_machine_only() -> None:
    def url(trading: str, data: str = "") -> str:
        return alpaca_quotes.data_endpoint(AlpacaAccess(*KEYS, trading, data), trading)

    assert url("https://paper-api.alpaca.markets") == url("https://api.alpaca.markets") == alpaca_quotes.DATA_URL
    assert url("http://127.0.0.1:7000") == "http://127.0.0.1:7000"  # a stand-in never sends its keys out
    assert url("http://127.0.0.1:7000", "http://127.0.0.1:8000/") == "http://127.0.0.1:8000"
    with pytest.raises(InvalidConfigError, match="TRADING_ALPACA_DATA_URL: only https is spoken"):
        AlpacaBroker(ACCOUNT, AlpacaAccess(*KEYS, data_url="http://example.org"), SESSIONS)
