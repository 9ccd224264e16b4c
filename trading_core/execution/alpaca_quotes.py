"""The last trades of symbols, from Alpaca's market data API (v2): what a price collar compares an order with.

The feed is left to Alpaca, which takes the best one that the subscription holds: all exchanges, or IEX alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from trading_core.execution.alpaca_calls import THIS_MACHINE, AlpacaAccess, Calls, Reply, Timeouts, checked_url
from trading_core.execution.alpaca_json import last_trades_of
from trading_core.execution.broker import LastTrade

DATA_URL = "https://data.alpaca.markets"
PER_REQUEST = 100  # symbols: the address of a request stays short
# What a question gets that names a symbol Alpaca does not know.
NO_SUCH_SYMBOL = frozenset({400, 404, 422})


def data_endpoint(access: AlpacaAccess, trading_url: str) -> str:
    """Where to ask. A stand-in of the trading API on this machine is asked for trades, too, unless another is named.

    Errors: InvalidConfigError for a URL that is neither https nor on this machine.
    """
    here = trading_url if f"//{THIS_MACHINE}" in trading_url else DATA_URL
    return checked_url("TRADING_ALPACA_DATA_URL", access.data_url or here)[0]


class AlpacaQuotes:
    """Constructing does no I/O. Errors of `last_trades`: those that `read` makes of a reply that is no answer."""

    def __init__(self, access: AlpacaAccess, url: str, timeouts: Timeouts) -> None:
        self._calls = Calls(access, url, timeouts)

    def last_trades(self, symbols: Sequence[str], read: Callable[[str, Reply, Any], Any]) -> dict[str, LastTrade]:
        """By symbol; one that Alpaca does not know, or that has no trade, is missing."""
        found: dict[str, LastTrade] = {}
        wanted = sorted(set(symbols))
        for first in range(0, len(wanted), PER_REQUEST):
            found |= self._batch(wanted[first : first + PER_REQUEST], read)
        return found

    def _batch(self, symbols: Sequence[str], read: Callable[[str, Reply, Any], Any]) -> dict[str, LastTrade]:
        reply = self._calls.ask("GET", "/stocks/trades/latest", {"symbols": ",".join(symbols)})
        if reply.status in NO_SUCH_SYMBOL:
            # One symbol that it does not know spoils the question for all: each by itself, and that one stays unknown.
            alone = symbols if len(symbols) > 1 else ()
            return {name: trade for symbol in alone for name, trade in self._batch([symbol], read).items()}
        trades = read("the question for the last trades", reply, last_trades_of)
        return {symbol: trade for symbol, trade in trades.items() if symbol in symbols}
