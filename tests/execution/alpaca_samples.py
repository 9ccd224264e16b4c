"""What the tests of the Alpaca broker share: a broker at the stand-in, orders, and a look for keys in errors."""

from __future__ import annotations

import dataclasses
import sys
import traceback
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from ledger_samples import ACCOUNT, STRATEGY, TUE
from pydantic import SecretStr

sys.path.insert(0, str(Path(__file__).resolve().parent))  # alpaca_trading_server is a program beside the tests

from alpaca_trading_server import KEY_ID, SECRET_KEY, AlpacaTradingServer

from trading_core.execution.alpaca import AlpacaBroker
from trading_core.execution.alpaca_calls import AlpacaAccess, Timeouts
from trading_core.execution.ids import client_order_id
from trading_core.schema import Order, OrderKind, Side
from trading_core.sessions import Sessions

SESSIONS = Sessions("XNYS")
KEYS = (SecretStr(KEY_ID), SecretStr(SECRET_KEY))
DURING = datetime(2024, 1, 9, 15, 0, tzinfo=UTC)  # ten o'clock in New York
SHORT = Timeouts(connect_s=0.5, read_s=0.5)
HANGING = {"hang", "late answer"}  # faults that a request waits for


def broker_at(server: AlpacaTradingServer, timeouts: Timeouts | None = None, **changes: Any) -> AlpacaBroker:
    return AlpacaBroker(ACCOUNT, AlpacaAccess(*KEYS, server.url), SESSIONS, timeouts=timeouts or Timeouts(), **changes)


def order(
    symbol: str = "AAA", side: Side = Side.BUY, quantity: float = 10.0, session: date = TUE, **changes: Any
) -> Order:
    key = client_order_id(ACCOUNT, STRATEGY, session, symbol, side)
    return dataclasses.replace(Order(key, symbol, side, quantity, session, 100.0), **changes)


def at_market(*arguments: Any, **changes: Any) -> Order:
    return order(*arguments, **changes, kind=OrderKind.MARKET)


def said(error: BaseException) -> str:
    """An error's text, after a look for the keys in all that a log could show of it."""
    shown = "".join(traceback.format_exception(error)) + repr(error) + repr(error.__dict__)
    assert error.__context__ is None or error.__suppress_context__
    assert KEY_ID not in shown
    assert SECRET_KEY not in shown
    return str(error)


KEY = order().client_order_id
