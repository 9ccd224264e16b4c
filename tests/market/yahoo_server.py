"""A stand-in for Yahoo's chart API on 127.0.0.1, answering what yfinance 1.7 asks for.

Any symbol of 1 to 5 letters has deterministic daily prices on XNYS sessions from 2018 to the server's present; AAPL has
a 4:1 split and quarterly dividends. As Yahoo does, everything is served adjusted for all splits up to that present, and
the session that is trading has a bar already. Names with a meaning of their own: see RESERVED.

Run it beside the program: `python tests/market/yahoo_server.py --port 0` prints its URL for TRADING_YAHOO_URL.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from urllib.parse import parse_qs, urlsplit

import numpy as np

from trading_core.sessions import Sessions

RESERVED = {
    "NOPE": "404: no such symbol",
    "EMPTY": "an answer without rows",
    "NULLS": "rows, every price null",
    "BROKEN": "500 on every request",
    "GARBLE": "200 with a page that is no JSON",
    "LIMITED": "429 on every request",
    "BUSY": "429 on the first `busy_requests` requests, prices afterwards",
    "HOLEY": "prices, with one price missing on every 10th row and all missing on every 25th",
}
CRUMB = "stand.in.crumb"
FIRST = date(2018, 1, 2)
SPLIT_DAY, SPLIT_RATIO = date(2020, 8, 31), 4.0  # Apple's own
DIVIDEND_MONTHS, DIVIDEND = (2, 5, 8, 11), 0.82  # per share as paid before the split


@dataclass(frozen=True)
class Series:
    """What Yahoo knows of one symbol: raw prices as traded, [N] each, and its events on raw terms."""

    sessions: list[date]
    open: list[float | None]
    high: list[float | None]
    low: list[float | None]
    close: list[float | None]
    volume: list[float | None]
    splits: dict[date, float] = field(default_factory=dict)
    dividends: dict[date, float] = field(default_factory=dict)
    always_open: bool = False  # a bar begins at midnight UTC, every day

    def later_splits(self, day: date, present: date) -> float:
        """The product of the splits after `day`, up to the server's present."""
        return float(np.prod([ratio for ex, ratio in self.splits.items() if day < ex <= present]))


@lru_cache(maxsize=1)
def _calendar(present: date) -> tuple[list[date], dict[date, datetime]]:
    sessions = Sessions("XNYS")
    days = sessions.between(FIRST, present)
    frame = sessions._cal.opens.loc[[day.isoformat() for day in days]]
    opens = dict(zip(days, (stamp.to_pydatetime() for stamp in frame), strict=True))
    return days, opens


@lru_cache(maxsize=512)
def synthetic(symbol: str, present: date) -> Series:
    """A random walk seeded by the symbol. Rows are drawn one after the other: a later present only adds rows."""
    days = _calendar(present)[0]
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(symbol.encode()).digest()[:8], "big"))
    start = float(rng.uniform(40, 400))
    draws = rng.standard_normal((len(days), 5))
    close = start * np.exp(np.cumsum(0.0003 + 0.015 * draws[:, 0]))
    splits = {SPLIT_DAY: SPLIT_RATIO} if symbol == "AAPL" else {}
    shares = np.array([SPLIT_RATIO if splits and day >= SPLIT_DAY else 1.0 for day in days])
    opened = np.concatenate([[start], close[:-1]]) * np.exp(0.005 * draws[:, 1])
    high = np.maximum(opened, close) * np.exp(0.004 * np.abs(draws[:, 2]))
    low = np.minimum(opened, close) * np.exp(-0.004 * np.abs(draws[:, 3]))
    prices = [np.round(row / shares, 2).tolist() for row in (opened, high, low, close)]
    volume = np.round(2e6 * np.exp(0.3 * draws[:, 4]) * shares).tolist()
    dividends = _quarterly(days) if symbol == "AAPL" else {}
    series = Series(days, *prices, volume, splits, dividends)
    return _with_holes(series) if symbol == "HOLEY" else series


def _quarterly(days: list[date]) -> dict[date, float]:
    """A dividend on the first session on or after the 7th of each dividend month; a quarter of it after the split."""
    firsts: dict[tuple[int, int], date] = {}
    for day in days:
        if day.month in DIVIDEND_MONTHS and day.day >= 7:
            firsts.setdefault((day.year, day.month), day)
    return {day: DIVIDEND / (SPLIT_RATIO if day >= SPLIT_DAY else 1.0) for day in firsts.values()}


def _with_holes(series: Series) -> Series:
    for row in range(len(series.sessions)):
        if row % 25 == 24:
            for column in (series.open, series.high, series.low, series.close, series.volume):
                column[row] = None
        elif row % 10 == 9:
            series.open[row] = None
    return series


class YahooServer:
    """`with YahooServer(now=...) as server: server.url`. `requests` holds (path, query) of everything that was asked.

    `series`: further symbols, or other prices for a symbol. `now`: the server's present, by default the clock.
    """

    def __init__(
        self,
        now: datetime | None = None,
        series: dict[str, Series] | None = None,
        port: int = 0,
        busy_requests: int = 4,
    ) -> None:
        self.now = now
        self.series = series or {}
        self.busy_requests = busy_requests
        self.requests: list[tuple[str, dict[str, str]]] = []
        self._counts: Counter[str] = Counter()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> YahooServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.shutdown()
        self._http.server_close()

    def serve_forever(self) -> None:
        self._http.serve_forever()

    def charts(self, symbol: str) -> list[dict[str, str]]:
        """The queries of all chart requests for a symbol."""
        return [query for path, query in self.requests if path == f"/v8/finance/chart/{symbol}"]

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, str, str]:
        """(status, content type, body) of one request."""
        self.requests.append((path, query))
        if path == "/v1/test/getcrumb":
            return 200, "text/plain", CRUMB
        if path == "/consent":
            return 200, "text/html", "<html><body>no consent needed</body></html>"
        if path.startswith("/v8/finance/chart/"):
            return self._chart(path.rsplit("/", 1)[1], query)
        if path.startswith("/v10/finance/quoteSummary/"):
            error = {"code": "Not Found", "description": "Quote not found for symbol"}
            return 404, "application/json", json.dumps({"quoteSummary": {"result": None, "error": error}})
        return 404, "text/html", "<html>not found</html>"

    def _chart(self, symbol: str, query: dict[str, str]) -> tuple[int, str, str]:
        self._counts[symbol] += 1
        if symbol == "LIMITED" or (symbol == "BUSY" and self._counts[symbol] <= self.busy_requests):
            return 429, "text/html", "Too Many Requests"
        if symbol == "BROKEN":
            return 500, "text/html", "<html>Internal Server Error</html>"
        if symbol == "GARBLE":
            return 200, "text/html", "<html>please accept our cookies</html>"
        if symbol == "NOPE" or not (symbol in self.series or symbol in RESERVED or re.fullmatch("[A-Z]{1,5}", symbol)):
            error = {"code": "Not Found", "description": "No data found, symbol may be delisted"}
            return 404, "application/json", json.dumps({"chart": {"result": None, "error": error}})
        now = self.now or datetime.now(UTC)
        return 200, "application/json", json.dumps(_payload(symbol, self.series.get(symbol), query, now))


def _payload(symbol: str, series: Series | None, query: dict[str, str], now: datetime) -> dict[str, object]:
    present = now.date()
    series = series or synthetic(symbol, present)
    if query.get("interval", "1d") != "1d":
        return _intraday_payload(symbol, series, query, now)
    opens = _calendar(present)[1]
    begin, end = int(query.get("period1", 0)), int(query.get("period2", 2**40))

    def stamp(day: date) -> int:
        if series.always_open:
            return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
        # A day without a session (tests send some) stands at 14:30 UTC.
        return int(opens.get(day, datetime(day.year, day.month, day.day, 14, 30, tzinfo=UTC)).timestamp())

    inside = [stamp(day) for day in series.sessions]
    rows = [i for i, at in enumerate(inside) if begin <= at < end and at <= now.timestamp()]
    if "range" in query:
        rows = rows[-1:] if query["range"] == "1d" else rows
    if symbol == "EMPTY":
        rows = []
    factor = [series.later_splits(series.sessions[i], present) for i in rows]

    def prices(column: list[float | None]) -> list[float | None]:
        values = [column[i] for i in rows]
        return [None if v is None or symbol == "NULLS" else v / f for v, f in zip(values, factor, strict=True)]

    quote = {name: prices(getattr(series, name)) for name in ("open", "high", "low", "close")}
    volumes = [series.volume[i] for i in rows]
    quote["volume"] = [
        None if v is None or symbol == "NULLS" else round(v * f) for v, f in zip(volumes, factor, strict=True)
    ]
    meta = _meta(symbol, now) | ({"exchangeTimezoneName": "UTC", "timezone": "UTC"} if series.always_open else {})
    result: dict[str, object] = {"meta": meta, "indicators": {"quote": [quote if rows else {}]}}
    if rows:
        result["timestamp"] = [inside[i] for i in rows]
        result["indicators"] = {"quote": [quote], "adjclose": [{"adjclose": quote["close"]}]}
        result["events"] = _events(series, begin, min(end, now.timestamp()), present, stamp)
    return {"chart": {"error": None, "result": [result]}}


def _intraday_payload(symbol: str, series: Series, query: dict[str, str], now: datetime) -> dict[str, object]:
    """Bars on a straight line from each day's open to its close, and one more at the close, as Yahoo sends it.

    One bar in the middle of each day has no prices: nothing was traded.
    """
    opens, hours = _calendar(now.date())[1], Sessions("XNYS")
    begin, end = int(query["period1"]), min(int(query["period2"]), int(now.timestamp()))
    step = timedelta(minutes={"1m": 1, "5m": 5, "15m": 15, "1h": 60}[query["interval"]])
    quote: dict[str, list[float | None]] = {name: [] for name in ("open", "high", "low", "close", "volume")}
    stamps, periods = [], []
    for i, day in enumerate(series.sessions):
        opened, closed = opens[day], hours.close(day)
        if not begin <= opened.timestamp() <= end:
            continue
        periods.append(
            [{"timezone": "EST", "start": int(opened.timestamp()), "end": int(closed.timestamp()), "gmtoffset": 0}]
        )
        count = -((opened - closed) // step)
        first, last = float(series.open[i] or 0.0), float(series.close[i] or 0.0)
        factor = series.later_splits(day, now.date())
        line = [(first + (last - first) * k / count) / factor for k in range(count + 1)] + [last / factor]
        for k in range(count + 1):
            traded = k != count // 2
            row = (
                line[k],
                max(line[k : k + 2]),
                min(line[k : k + 2]),
                line[k + 1],
                round(1000 * factor) if k < count else 0,
            )
            for name, value in zip(quote, row, strict=True):
                quote[name].append(value if traded else None)
            stamps.append(int(opened.timestamp() + k * step.total_seconds()) if k < count else int(closed.timestamp()))
    meta = _meta(symbol, now) | {"dataGranularity": query["interval"], "tradingPeriods": periods}
    result: dict[str, object] = {"meta": meta, "indicators": {"quote": [quote if stamps else {}]}}
    if stamps:
        result["timestamp"] = stamps
        result["events"] = _events(series, begin, end, now.date(), lambda day: int(opens[day].timestamp()))
    return {"chart": {"error": None, "result": [result]}}


def _events(series: Series, begin: float, end: float, present: date, stamp) -> dict[str, object]:  # type: ignore[no-untyped-def]
    """Dividends of begin..end, adjusted for later splits as Yahoo's are; splits, listed from their day's midnight."""
    dividends = {
        str(stamp(day)): {"amount": cash / series.later_splits(day, present), "date": stamp(day)}
        for day, cash in series.dividends.items()
        if begin <= stamp(day) <= end
    }
    splits = {
        str(stamp(day)): {"date": stamp(day), "numerator": ratio, "denominator": 1.0, "splitRatio": f"{ratio:g}:1"}
        for day, ratio in series.splits.items()
        if begin <= stamp(day) and day <= present
    }
    return {name: events for name, events in (("dividends", dividends), ("splits", splits)) if events}


def _meta(symbol: str, now: datetime) -> dict[str, object]:
    period = {"timezone": "EST", "start": 0, "end": 0, "gmtoffset": -18000}
    return {
        "currency": "USD",
        "symbol": symbol,
        "exchangeName": "NMS",
        "fullExchangeName": "NasdaqGS",
        "instrumentType": "EQUITY",
        "firstTradeDate": int(datetime(FIRST.year, FIRST.month, FIRST.day, 14, 30, tzinfo=UTC).timestamp()),
        "regularMarketTime": int(now.timestamp()),
        "gmtoffset": -18000,
        "timezone": "EST",
        "exchangeTimezoneName": "America/New_York",
        "regularMarketPrice": 100.0,
        "priceHint": 2,
        "currentTradingPeriod": {"pre": period, "regular": period, "post": period},
        "dataGranularity": "1d",
        "range": "",
        "validRanges": ["1d", "5d", "1mo", "3mo", "6mo", "1y", "2y", "5y", "10y", "ytd", "max"],
    }


def _handler(server: YahooServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
            status, kind, body = server.answer(parts.path or "/", query)
            data = body.encode()
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            if parts.path in ("", "/"):  # fc.yahoo.com: a 404 whose only use is its cookie
                self.send_header("Set-Cookie", "A3=d=stand-in; Domain=.yahoo.com; Path=/; Max-Age=31557600; Secure")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet: the tests read `server.requests`."""

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--now", type=datetime.fromisoformat, default=None, help="the server's present, ISO with zone")
    arguments = parser.parse_args()
    server = YahooServer(now=arguments.now, port=arguments.port)
    print(server.url, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


if __name__ == "__main__":
    main()
