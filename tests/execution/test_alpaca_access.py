"""Keys, endpoints and the second switch of the Alpaca broker."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ledger_samples import ACCOUNT, NOW
from pydantic import SecretStr

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # alpaca_trading_server is a program beside the tests, not a package

from alpaca_samples import (  # noqa: E402
    KEYS,
    SESSIONS,
    broker_at,
    order,
    said,
)
from alpaca_trading_server import KEY_ID, SECRET_KEY, AlpacaTradingServer  # noqa: E402

from trading_core.costs import FREE  # noqa: E402
from trading_core.errors import (  # noqa: E402
    BrokerAccessError,
    InvalidConfigError,
)
from trading_core.execution.alpaca import AlpacaBroker  # noqa: E402
from trading_core.execution.alpaca_calls import AlpacaAccess, endpoint  # noqa: E402
from trading_core.execution.registry import BrokerRequest, broker_entry  # noqa: E402


@pytest.fixture
def server() -> Iterator[AlpacaTradingServer]:
    with AlpacaTradingServer(NOW, cash="10000") as running:
        yield running


def test_an_account_is_told_apart_by_its_number(server: AlpacaTradingServer) -> None:
    assert broker_at(server).identity() == "alpaca:PA3CANARY"


def test_wrong_keys_are_denied_and_no_key_is_shown(server: AlpacaTradingServer) -> None:
    wrong = AlpacaAccess(SecretStr(KEY_ID), SecretStr("wrong"), server.url)
    broker = AlpacaBroker(ACCOUNT, wrong, SESSIONS)
    with pytest.raises(BrokerAccessError) as caught:
        broker.submit(order())
    assert "Check the account's keys" in said(caught.value)
    shown = [repr(broker_at(server)), repr(AlpacaAccess(*KEYS, server.url)), repr(vars(broker_at(server)))]
    assert not any(secret in text for text in shown for secret in (KEY_ID, SECRET_KEY))


def test_keys_that_are_missing_or_no_keys_are_named_by_their_variable() -> None:
    with pytest.raises(InvalidConfigError, match="TRADING_ALPACA_KEY_ID: is not set"):
        AlpacaBroker(ACCOUNT, AlpacaAccess(), SESSIONS).identity()
    split = AlpacaAccess(SecretStr(KEY_ID), SecretStr(f"{SECRET_KEY}\n"))
    with pytest.raises(InvalidConfigError) as caught:
        AlpacaBroker(ACCOUNT, split, SESSIONS).identity()
    assert "TRADING_ALPACA_SECRET_KEY: holds a character that no key has" in said(caught.value)


URLS: list[tuple[str, bool, str]] = [
    ("", False, "https://paper-api.alpaca.markets"),
    ("", True, "https://api.alpaca.markets"),
    ("http://127.0.0.1:8000", False, "http://127.0.0.1:8000"),
    ("http://127.0.0.1:8000/", True, "http://127.0.0.1:8000"),
    ("https://paper-api.alpaca.markets", False, "https://paper-api.alpaca.markets"),
    ("https://proxy.example:8443", True, "https://proxy.example:8443"),
]
NO_URLS: list[tuple[str, bool, str]] = [
    ("https://api.alpaca.markets", False, "real money is broker 'alpaca-live'"),
    ("https://API.alpaca.markets.", False, "real money is broker 'alpaca-live'"),
    ("https://proxy.example", False, "speaks to https://paper-api.alpaca.markets or to 127.0.0.1 only"),
    ("http://paper-api.alpaca.markets", False, "only https is spoken, or http to 127.0.0.1"),
    ("http://127.0.0.1.example", True, "only https is spoken"),
    ("https://key:secret@127.0.0.1", False, "give scheme, host and port only"),
    ("https://127.0.0.1/v2", False, "give scheme, host and port only"),
    ("ftp://127.0.0.1", True, "only https is spoken"),
    ("http://127.0.0.1:port", False, "it is no URL"),
    ("https://[127.0.0.1", False, "it is no URL"),
]


@pytest.mark.parametrize(("url", "live", "spoken"), URLS)
def test_the_endpoint_of_a_broker(url: str, live: bool, spoken: str) -> None:
    assert endpoint(url, live) == spoken


@pytest.mark.parametrize(("url", "live", "words"), NO_URLS)
def test_an_endpoint_that_is_not_spoken_to(url: str, live: bool, words: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        endpoint(url, live)
    assert "TRADING_ALPACA_URL: " in said(caught.value)
    assert words in str(caught.value)
    assert "secret@" not in str(caught.value)


def request(real_money: str = "", calendar: str = "XNYS") -> BrokerRequest:
    return BrokerRequest(None, ACCOUNT, 1.0, FREE, calendar=calendar, alpaca=AlpacaAccess(*KEYS), real_money=real_money)  # type: ignore[arg-type]


@pytest.mark.parametrize("switch", ["", "alpaca", "yes", "ALPACA-LIVE", " alpaca-live"])
def test_real_money_needs_its_own_switch(switch: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        broker_entry("alpaca-live").build(request(switch))
    assert "TRADING_REAL_MONEY: broker 'alpaca-live' trades real money only where this is 'alpaca-live'" in said(
        caught.value
    )


def test_the_switch_changes_nothing_but_the_live_broker() -> None:
    live = broker_entry("alpaca-live").build(request("alpaca-live"))
    assert (repr(live), live.name, live.real) == (
        f"AlpacaBroker('alpaca-live', '{ACCOUNT}', 'https://api.alpaca.markets')", "alpaca-live", True,
    )  # fmt: skip
    paper = broker_entry("alpaca").build(request("alpaca-live"))
    assert "https://paper-api.alpaca.markets" in repr(paper)
    with pytest.raises(InvalidConfigError, match="it trades shares, whose market has sessions"):
        broker_entry("alpaca").build(request(calendar="24/7"))


def test_an_account_is_opened_with_the_keys_of_the_environment(
    server: AlpacaTradingServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from trading_core.config import load_strategy, read_settings
    from trading_core.pipelines.account import open_account
    from trading_core.pipelines.workspace import open_workspace

    values = {
        "ALPACA_KEY_ID": KEY_ID,
        "ALPACA_SECRET_KEY": SECRET_KEY,
        "ALPACA_URL": server.url,
        "VAR_DIR": str(tmp_path),
    }
    for name, value in values.items():
        monkeypatch.setenv(f"TRADING_{name}", value)
    settings = read_settings()
    assert SECRET_KEY not in repr(settings) + str(settings.model_dump())
    ws = open_workspace("simulated", settings)
    account = open_account(ws, "alpaca-simulated-top10", "alpaca", load_strategy("top10", settings))
    assert account.broker.identity() == "alpaca:PA3CANARY"
    with pytest.raises(InvalidConfigError, match="TRADING_REAL_MONEY"):
        open_account(ws, "alpaca-live-simulated-top10", "alpaca-live", load_strategy("top10", settings))
