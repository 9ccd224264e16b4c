"""Ids that follow from what they name: the same order, asked for again, has the same id, so a broker can refuse it."""

from __future__ import annotations

import hashlib
import json
from datetime import date

from trading_core.errors import UnknownNameError
from trading_core.schema import Side

CLIENT_ORDER_ID_LENGTH = 48  # the shortest limit of the brokers we speak to


def client_order_id(account: str, strategy: str, session: date, symbol: str, side: Side, attempt: int = 1) -> str:
    """The id of one intent: "t" and 47 hex digits of the SHA-256 of its key. `attempt` counts from 1.

    188 bits are kept: two different keys of one account will not meet.
    """
    if attempt < 1:
        raise UnknownNameError("attempt", str(attempt), ["1", "2", "3", "..."])
    digest = _digest(account, strategy, session.isoformat(), symbol, side.value, attempt)
    return f"t{digest}"[:CLIENT_ORDER_ID_LENGTH]


def decision_id(account: str, session: date) -> str:
    """The id of the one decision an account takes for a session: "d" and 31 hex digits."""
    return "d" + _digest(account, session.isoformat())[:31]


def _digest(*key: str | int) -> str:
    # A JSON list keeps the parts apart: ("a", "bc") and ("ab", "c") differ.
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()
