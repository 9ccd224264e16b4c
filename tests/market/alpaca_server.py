"""A stand-in for Alpaca's market data API on 127.0.0.1: /v2/stocks/bars and /v1/corporate-actions, with their errors.

Any symbol of 1 to 7 letters (and a dot) has deterministic raw bars on XNYS sessions from 2019 to the server's present: daily
ones stamped with midnight in New York, intraday ones with their start, also an hour before the open and after the close.
AAPL has Apple's 4:1 split of 2020 and quarterly dividends, GE a 1:8 reverse split. Names with a meaning of their own: see
RESERVED. Answers come in pages of `page_size` rows, symbol after symbol, as Alpaca's do.

Run it beside the program: `python tests/market/alpaca_server.py --port 0` prints its URL for TRADING_ALPACA_DATA_URL.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

import numpy as np

from trading_core.sessions import Sessions

KEY_ID, SECRET_KEY = "PKSTANDIN0000000000", "stand-in/secret+key0123456789"
RESERVED = {
    "NOPE": "422 invalid symbol, for the whole request",
    "EMPTY": "no bars",
    "LOST": "404 on every request",
    "BROKEN": "500 on every request",
    "GARBLE": "200 with a page that is no JSON",
    "BLANK": "200 without a body",
    "ODD": "200 with JSON of another shape",
    "RESET": "the connection is closed before the answer",
    "HANG": "no answer for `hang_s` seconds",
    "LIMITED": "429 on every request, Retry-After: 0",
    "BUSY": "429 with Retry-After on the first `busy_requests` requests, bars afterwards",
    "ECHO": "400 whose message holds the secret key",
    "CUT": "the first answer breaks off in its middle, later ones are whole",
}
FIRST = date(2019, 1, 2)
SPLITS = {"AAPL": (date(2020, 8, 31), 4.0, 1.0), "GE": (date(2020, 8, 3), 1.0, 8.0)}  # ex-date, new, old
DIVIDEND_MONTHS, DIVIDEND = (
    (2, 5, 8, 11),
    0.82,
)  # of AAPL, per share before the split; paid three weeks after its ex-date
NEW_YORK = ZoneInfo("America/New_York")
STEPS = {"1Min": 1, "5Min": 5, "15Min": 15, "30Min": 30}


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes
    headers: dict[str, str]
    cut: int | None = None  # send only so many bytes of the body, then close


def _json(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    return Reply(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})


def _draws(symbol: str, stream: str, size: int) -> np.ndarray:
    seed = hashlib.sha256(f"{symbol}/{stream}".encode()).digest()[:8]
    return np.random.default_rng(int.from_bytes(seed, "big")).standard_normal((size, 4))


@lru_cache(maxsize=64)
def daily(symbol: str, present: date) -> tuple[list[date], np.ndarray]:
    """Sessions, and [N, 5] raw open, high, low, close, volume. A later present only adds rows."""
    days = Sessions("XNYS").between(FIRST, present)
    draws = _draws(symbol, "daily", 4000)[: len(days)]
    close = 100.0 * np.exp(np.cumsum(0.0003 + 0.015 * draws[:, 0]))
    ex_date, new, old = SPLITS.get(symbol, (date.max, 1.0, 1.0))
    close = close / np.array([new / old if day >= ex_date else 1.0 for day in days])
    opened = close * np.exp(0.008 * draws[:, 1])
    high = np.maximum(opened, close) * np.exp(0.004 * np.abs(draws[:, 2]))
    low = np.minimum(opened, close) * np.exp(-0.004 * np.abs(draws[:, 2]))
    volume = np.round(1e6 * np.exp(0.3 * draws[:, 3]))
    return days, np.column_stack([np.round(np.column_stack([opened, high, low, close]), 4), volume])


def intraday(symbol: str, day: date, minutes: int) -> list[dict[str, object]]:
    """Bars of one session from an hour before its open to an hour after its close, on full multiples of the hour."""
    sessions = Sessions("XNYS")
    begin, end = sessions.open(day) - timedelta(hours=1), sessions.close(day) + timedelta(hours=1)
    count = int((end - begin) / timedelta(minutes=minutes))
    draws = _draws(symbol, f"{day}/{minutes}", count)
    close = np.round(100.0 * np.exp(np.cumsum(0.001 * draws[:, 0])), 4)
    opened = np.round(np.concatenate([[100.0], close[:-1]]), 4)
    rows = []
    for i in range(count):
        at = begin + i * timedelta(minutes=minutes)
        high, low = round(max(opened[i], close[i]) + 0.01, 4), round(min(opened[i], close[i]) - 0.01, 4)
        rows.append(_row(at, float(opened[i]), high, low, float(close[i]), 1000.0 + i))
    return rows


def _row(at: datetime, opened: float, high: float, low: float, close: float, volume: float) -> dict[str, object]:
    stamp = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    average = round((high + low + close) / 3, 4)
    return {"t": stamp, "o": opened, "h": high, "l": low, "c": close, "v": volume, "n": 100, "vw": average}


def dividends(present: date) -> dict[date, float]:
    """AAPL's: on the first session on or after the 7th of its months; a quarter of it after the split."""
    found: dict[tuple[int, int], date] = {}
    for day in Sessions("XNYS").between(FIRST, present):
        if day.month in DIVIDEND_MONTHS and day.day >= 7:
            found.setdefault((day.year, day.month), day)
    return {day: DIVIDEND / (4.0 if day >= SPLITS["AAPL"][0] else 1.0) for day in found.values()}


class AlpacaServer:
    """`with AlpacaServer(now=...) as server: server.url`. `requests` holds (path, query) of everything that was asked.

    `times`: when each came (monotonic seconds). `subscription`: False refuses feed=sip, as the free plan does for recent
    bars. `down`: every answer is a 503.
    """

    def __init__(
        self,
        now: datetime,
        port: int = 0,
        page_size: int = 10_000,
        busy_requests: int = 2,
        retry_after: str = "0",
        hang_s: float = 5.0,
        subscription: bool = True,
        down: bool = False,
    ) -> None:
        self.now, self.page_size, self.busy_requests, self.retry_after = now, page_size, busy_requests, retry_after
        self.hang_s, self.subscription, self.down = hang_s, subscription, down
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.times: list[float] = []
        self._counts: Counter[str] = Counter()
        self._stopping = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> AlpacaServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._http.server_close()

    def serve_forever(self) -> None:
        self._http.serve_forever()

    def asked(self, path: str) -> list[list[str]]:
        """The symbols of each request of a path, in order."""
        return [query["symbols"].split(",") for found, query in self.requests if found == path]

    def answer(self, path: str, query: dict[str, str], headers: dict[str, str]) -> Reply | None:
        """None: close the connection without a word."""
        self.requests.append((path, query))
        self.times.append(time.monotonic())
        if self.down:
            return _json({"message": "service unavailable"}, 503)
        if (headers.get("apca-api-key-id"), headers.get("apca-api-secret-key")) != (KEY_ID, SECRET_KEY):
            return _json({"message": "forbidden."}, 403)
        if path not in ("/v2/stocks/bars", "/v1/corporate-actions"):
            return Reply(404, b"page not found", {"Content-Type": "text/plain"})
        symbols = query.get("symbols", "").split(",")
        if path == "/v1/corporate-actions":
            return self._events(symbols, query)
        if query.get("feed") == "sip" and not self.subscription:
            return _json({"message": "subscription does not permit querying recent SIP data"}, 403)
        return self._trouble(symbols) or (None if "RESET" in symbols else self._bars(symbols, query))

    def _trouble(self, symbols: list[str]) -> Reply | None:
        unknown = [
            symbol for symbol in symbols if symbol == "NOPE" or not re.fullmatch(r"[A-Z]{1,7}(\.[A-Z])?", symbol)
        ]
        if unknown:
            return _json({"code": 42210000, "message": f"invalid symbol: {unknown[0]}"}, 422)
        plain = {"Content-Type": "text/html"}
        replies = {
            "LOST": _json({"code": 40410000, "message": "endpoint not found."}, 404),
            "BROKEN": Reply(500, b"<html>Internal Server Error</html>", plain),
            "GARBLE": Reply(200, b"<html>please log in</html>", plain),
            "BLANK": Reply(200, b"", plain),
            "ODD": _json({"bars": {"ODD": [{"t": "soon", "o": "1"}]}, "next_page_token": None}),
            "LIMITED": _json({"code": 42910000, "message": "too many requests."}, 429, {"Retry-After": "0"}),
            "ECHO": _json({"code": 40010000, "message": f"bad header {SECRET_KEY}"}, 400),
        }
        if "HANG" in symbols:
            self._stopping.wait(self.hang_s)
        if "BUSY" in symbols:
            self._counts["BUSY"] += 1
            if self._counts["BUSY"] <= self.busy_requests:
                return _json({"message": "too many requests."}, 429, {"Retry-After": self.retry_after})
        return next((replies[symbol] for symbol in symbols if symbol in replies), None)

    def _bars(self, symbols: list[str], query: dict[str, str]) -> Reply:
        begin, end = (datetime.fromisoformat(query[name]) for name in ("start", "end"))
        rows: list[tuple[str, dict[str, object]]] = []
        for symbol in sorted(symbols):
            if symbol != "EMPTY":
                rows += [(symbol, row) for row in self._rows(symbol, query["timeframe"], begin, end)]
        offset = int(query.get("page_token") or 0)
        page = rows[offset : offset + min(self.page_size, int(query.get("limit", 1000)))]
        token = str(offset + len(page)) if offset + len(page) < len(rows) else None
        bars: dict[str, list[dict[str, object]]] = {}
        for symbol, row in page:
            bars.setdefault(symbol, []).append(row)
        reply = _json({"bars": bars, "next_page_token": token})
        self._counts["CUT"] += "CUT" in symbols
        if "CUT" in symbols and self._counts["CUT"] == 1:
            return Reply(200, reply.body, reply.headers, cut=len(reply.body) // 2)
        return reply

    def _rows(self, symbol: str, timeframe: str, begin: datetime, end: datetime) -> list[dict[str, object]]:
        """Bars whose stamp lies in [begin, end]; the session that is trading has its daily bar already."""
        days, values = daily(symbol, self.now.date())
        if timeframe == "1Day":
            stamped = [
                (datetime(d.year, d.month, d.day, tzinfo=NEW_YORK), v.tolist())
                for d, v in zip(days, values, strict=True)
            ]
            return [_row(at, *v) for at, v in stamped if begin <= at <= min(end, self.now)]
        inside = [day for day in days if begin.date() <= day <= end.date()]
        rows = [row for day in inside for row in intraday(symbol, day, STEPS[timeframe])]
        last = min(end, self.now)
        return [row for row in rows if begin <= datetime.fromisoformat(str(row["t"])) <= last]

    def _events(self, symbols: list[str], query: dict[str, str]) -> Reply:
        """By the date they are processed: splits on their ex-date, dividends when they are paid."""
        begin, end = (date.fromisoformat(query[name]) for name in ("start", "end"))
        types, present = query["types"].split(","), self.now.date()
        found: dict[str, list[dict[str, object]]] = {}
        for symbol, (ex_date, new, old) in SPLITS.items():
            kind = "forward_split" if new > old else "reverse_split"
            if symbol in symbols and kind in types and begin <= ex_date <= min(end, present):
                row = {"symbol": symbol, "new_rate": new, "old_rate": old, "ex_date": ex_date.isoformat()}
                found.setdefault(f"{kind}s", []).append(
                    {**row, "process_date": ex_date.isoformat(), "cusip": "037833100"}
                )
        for ex_date, rate in dividends(present).items() if "AAPL" in symbols and "cash_dividend" in types else ():
            paid = ex_date + timedelta(days=21)
            if begin <= paid <= end:
                row = {"symbol": "AAPL", "rate": rate, "special": False, "foreign": False, "cusip": "037833100"}
                dates = {"ex_date": ex_date.isoformat(), "process_date": paid.isoformat()}
                found.setdefault("cash_dividends", []).append({**row, **dates})
        return _json({"corporate_actions": found, "next_page_token": None})


def _handler(server: AlpacaServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
            reply = server.answer(parts.path, query, {key.lower(): value for key, value in self.headers.items()})
            if reply is None:
                self.close_connection = True
                self.connection.shutdown(2)
                return
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # who hangs up does not wait for it
                self.send_response(reply.status)
                for name, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body if reply.cut is None else reply.body[: reply.cut])
            self.close_connection = self.close_connection or reply.cut is not None

        def log_message(self, format: str, *args: object) -> None:
            """Quiet: the tests read `server.requests`."""

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--now", type=datetime.fromisoformat, default=None, help="the server's present, ISO with zone")
    arguments = parser.parse_args()
    server = AlpacaServer(now=arguments.now or datetime.now(UTC), port=arguments.port)
    print(server.url, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main()
