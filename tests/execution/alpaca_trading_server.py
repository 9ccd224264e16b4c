"""A stand-in for Alpaca's Trading API (v2) on 127.0.0.1: account, positions, orders, activities, and their troubles.

It keeps one account in decimals: orders live as Alpaca's do (accepted, filled in the auction or from the open on, filled in
part, cancelled, expired, a second order of one client id refused), and move cash and positions. Time and market stand still
until a test moves them: `now`, `open_market`, `trade`, `close_market`, `pay`. `inject` makes the next requests of an
endpoint fail in one of the ways of FAULTS.

Run it beside the program: `python tests/execution/alpaca_trading_server.py` prints its URL for TRADING_ALPACA_URL.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import struct
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from zoneinfo import ZoneInfo

from trading_core.sessions import Sessions

KEY_ID, SECRET_KEY = "PKCANARYKEY000000001", "canary/secret+0123456789abcdefABCDEF"
NEW_YORK = ZoneInfo("America/New_York")
ENDED = {"filled", "canceled", "expired", "rejected", "replaced"}
PLAIN = {"Content-Type": "text/html"}
Row = dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """`cut`: send only half of the body. `silent`: close without a word. `reset`: break the connection off."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] | None = None
    cut: bool = False
    silent: bool = False
    reset: bool = False


def as_json(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})


def refusal(status: int, code: int, message: str, **more: object) -> Reply:
    return as_json({"code": code, "message": message, **more}, status)


@dataclass(frozen=True)
class Fault:
    """`taken`: the request is carried out all the same. `spoil`: what is answered instead of its answer."""

    taken: bool
    spoil: Callable[[Reply], Reply]
    hangs: bool = False


def _changed(reply: Reply, key: str, value: object) -> Reply:
    return replace(reply, body=json.dumps({**json.loads(reply.body), key: value}).encode())


def _always(reply: Reply) -> Callable[[Reply], Reply]:
    return lambda _: reply


def _closing(reply: Reply) -> Reply:
    return replace(reply, headers={**(reply.headers or {}), "Connection": "close"})


SILENT, MAINTENANCE = Reply(0, silent=True), Reply(503, b"<html>Service Unavailable</html>", PLAIN)
BUSY = as_json({"code": 42910000, "message": "too many requests."}, 429, {"Retry-After": "7"})
FAULTS: dict[str, Fault] = {
    "lost answer": Fault(True, _always(SILENT)),
    "late answer": Fault(True, lambda reply: reply, hangs=True),
    "closing": Fault(True, _closing),  # a good answer, after which the connection is gone
    "cut": Fault(True, lambda reply: replace(reply, cut=True)),
    "garbage": Fault(True, lambda reply: replace(reply, body=reply.body[: len(reply.body) // 2])),
    "empty": Fault(True, lambda reply: replace(reply, body=b"")),
    "a list": Fault(True, lambda reply: replace(reply, body=b"[1, 2]")),
    "other id": Fault(True, lambda reply: _changed(reply, "client_order_id", "of-somebody-else")),
    "other quantity": Fault(True, lambda reply: _changed(reply, "qty", "11")),
    "unknown status": Fault(True, lambda reply: _changed(reply, "status", "levitating")),
    "no number": Fault(True, lambda reply: _changed(reply, "filled_qty", "ten")),
    "504 taken": Fault(True, _always(Reply(504, b"<html>Gateway Time-out</html>", PLAIN))),
    "500 taken": Fault(True, _always(as_json({"code": 50010000, "message": "internal server error"}, 500))),
    "reset": Fault(False, _always(Reply(0, reset=True))),
    "hang": Fault(False, _always(SILENT), hangs=True),
    "html": Fault(False, _always(Reply(200, b"<html>please log in</html>", PLAIN))),
    "redirect": Fault(False, _always(Reply(307, b"", {"Location": "http://127.0.0.1:9/v2/orders"}))),
    "401": Fault(False, _always(refusal(401, 40110000, "request is not authorized"))),
    "403": Fault(False, _always(as_json({"message": "forbidden."}, 403))),
    "404 page": Fault(False, _always(Reply(404, b"404 page not found", PLAIN))),
    "404 endpoint": Fault(False, _always(refusal(404, 40410000, "endpoint not found."))),
    "404": Fault(False, _always(refusal(404, 40410000, "not found"))),
    "422": Fault(False, _always(refusal(422, 42210000, "stop price must be less than the current price"))),
    "422 duplicate": Fault(False, _always(refusal(422, 40010001, "client_order_id must be unique"))),
    "422 old duplicate": Fault(False, _always(refusal(422, 40010001, "client order id must be unique"))),
    "no funds": Fault(False, _always(refusal(403, 40310000, "insufficient buying power", buying_power="1.5"))),
    "429": Fault(False, _always(BUSY)),
    "500": Fault(False, _always(as_json({"code": 50010000, "message": "internal server error"}, 500))),
    "503": Fault(False, _always(MAINTENANCE)),
    "504": Fault(False, _always(Reply(504, b"", PLAIN))),
    "echo": Fault(False, _always(refusal(400, 40010000, f"bad header {SECRET_KEY} of {KEY_ID}"))),
}


class AlpacaTradingServer:
    """`with AlpacaTradingServer(now, cash="10000") as server: server.url`. `now`: None follows the real clock.

    `posts`: the bodies of all orders that were sent; `requests`: (endpoint, query) of everything; `account`: what GET
    /account says besides money. `duplicates_last`: a known client id is looked for only after everything else is right.
    """

    def __init__(self, now: datetime | None, cash: str = "100000", port: int = 0, hang_s: float = 5.0) -> None:
        self._now, self.hang_s = now, hang_s
        self.cash, self.shorting, self.duplicates_last = Decimal(cash), False, False
        self.largest_page = 500  # of orders; a smaller one is obeyed without a word
        self.prices: dict[str, Decimal] = {}  # last ones; without one nothing is checked against the cash
        self.trades: dict[str, Row] = {}  # the market data API's last ones, see `quote`
        self.positions: dict[str, list[Decimal]] = {}  # quantity (below 0 for shorts) and average price
        self.orders: dict[str, Row] = {}
        self.activities: list[Row] = []  # as they are answered, with the instant of their posting under "_posted"
        self.closures: set[date] = set()  # sessions that the exchange has called off
        self.posts: list[Row] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.account: Row = {
            "id": "0", "account_number": "PA3CANARY", "status": "ACTIVE", "currency": "USD", "trading_blocked": False,
            "transfers_blocked": False, "account_blocked": False, "trade_suspended_by_user": False,
        }  # fmt: skip
        self._sessions = Sessions("XNYS")
        self._faults: defaultdict[str, list[Fault]] = defaultdict(list)
        self._counts: Counter[str] = Counter()
        self._state = threading.RLock()
        self._stopping = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    # --- what a test does ---------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def now(self) -> datetime:
        return self._now or datetime.now(UTC)

    @now.setter
    def now(self, value: datetime) -> None:
        self._now = value

    def __enter__(self) -> AlpacaTradingServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._http.server_close()

    def inject(self, endpoint: str, fault: str, times: int = 1) -> None:
        """The next requests of an endpoint (see `_route`) fail that way."""
        self._faults[endpoint] += [FAULTS[fault]] * times

    def heal(self) -> None:
        self._faults.clear()

    def of(self, client_order_id: str) -> list[Row]:
        """The orders of one client id: never more than one."""
        return [row for row in self.orders.values() if row["client_order_id"] == client_order_id]

    def asked(self, endpoint: str) -> list[dict[str, str]]:
        return [query for found, query in self.requests if found == endpoint]

    def open_market(
        self, session: date, prices: Mapping[str, float], liquidity: Mapping[str, float] | None = None
    ) -> None:
        """The open of a session: auction and day orders fill, an auction order's rest is cancelled.

        `liquidity`: shares that can be had of a symbol; without it all.
        """
        with self._state:
            self.now = self._sessions.open(session) + timedelta(seconds=1)
            self._trade(("opg", "day"), prices, liquidity or {})
            self._end("opg", "canceled")

    def quote(self, symbol: str, price: float, at: datetime | None = None) -> None:
        """A trade that the market data API tells as the last one; nothing fills by it."""
        self.trades[symbol] = {"t": _stamp(at or self.now), "x": "V", "p": price, "s": 100, "z": "C"}

    def trade(self, prices: Mapping[str, float], liquidity: Mapping[str, float] | None = None) -> None:
        """Day orders fill at these prices, as far as there are shares."""
        with self._state:
            self._trade(("day",), prices, liquidity or {})

    def close_market(self, session: date, prices: Mapping[str, float]) -> None:
        """The closing auction prints after the close; day orders expire."""
        with self._state:
            self.now = self._sessions.close(session) + timedelta(seconds=2)
            self._trade(("cls",), prices, {})
            self._end("cls", "canceled")
            self._end("day", "expired")

    def pay(self, kind: str, amount: str, day: date, symbol: str = "", status: str = "executed") -> str:
        """An activity that is no trade, posted now; returns its id."""
        row: Row = {"activity_type": kind, "date": day.isoformat(), "net_amount": amount, "status": status}
        if status != "canceled":
            self.cash += Decimal(amount)
        return self._post({**row, **({"symbol": symbol} if symbol else {})})

    def restate(self, fill_id: str, price: str) -> None:
        """The broker corrects the price of an execution."""
        row = next(row for row in self.activities if row["id"] == fill_id)
        order, old = self.orders[row["order_id"]], Decimal(row["price"])
        worth = (Decimal(price) - old) * Decimal(row["qty"])
        self.cash -= worth if row["side"] == "buy" else -worth
        filled = Decimal(order["filled_qty"])
        order["filled_avg_price"] = _plain(Decimal(order["filled_avg_price"]) + worth / filled)
        row["price"] = price

    def add_order(self, body: Row) -> Row:
        """An order as it stands in the book once it is taken, without any check."""
        self._counts["order"] += 1
        stamp = _stamp(self.now)
        row: Row = {
            "id": f"{self._counts['order']:08x}-0000-4000-8000-000000000000", "created_at": stamp,
            "submitted_at": stamp, "updated_at": stamp, "asset_class": "us_equity", "notional": None, "qty": None,
            "filled_qty": "0", "filled_avg_price": None, "order_class": "", "limit_price": None, "legs": None,
            "extended_hours": False, "status": "accepted", **body, "order_type": body["type"],
        }  # fmt: skip
        self.orders[row["id"]] = row
        return row

    # --- the market ---------------------------------------------------------------------------------------------------

    def _living(self, in_force: str) -> list[Row]:
        found = [row for row in self.orders.values() if row["status"] not in ENDED]
        return [row for row in found if row["time_in_force"] == in_force]

    def _trade(self, kinds: tuple[str, ...], prices: Mapping[str, float], liquidity: Mapping[str, float]) -> None:
        left = {symbol: Decimal(repr(shares)) for symbol, shares in liquidity.items()}
        self.prices |= {symbol: Decimal(repr(price)) for symbol, price in prices.items()}
        living = [row for kind in kinds for row in self._living(kind) if row["symbol"] in prices]
        for row in sorted(living, key=lambda row: row["side"] == "buy"):
            symbol, price, limit = row["symbol"], self.prices[row["symbol"]], row["limit_price"]
            if limit is not None and (price > Decimal(limit) if row["side"] == "buy" else price < Decimal(limit)):
                continue
            wanted = _rest(row)
            shares = min(wanted, left.get(symbol, wanted))
            if symbol in left:
                left[symbol] -= shares
            if shares > 0:
                self._fill(row, shares, price)

    def _fill(self, row: Row, shares: Decimal, price: Decimal) -> None:
        before, sign = Decimal(row["filled_qty"]), 1 if row["side"] == "buy" else -1
        filled = before + shares
        average = (before * Decimal(row["filled_avg_price"] or 0) + shares * price) / filled
        whole = filled == Decimal(row["qty"])
        row |= {"filled_qty": _plain(filled), "filled_avg_price": _plain(average), "updated_at": _stamp(self.now)}
        row["status"] = "filled" if whole else "partially_filled"
        self.cash -= sign * shares * price
        held, paid = self.positions.get(row["symbol"], [Decimal(0), Decimal(0)])
        after = held + sign * shares
        if held * sign >= 0:
            paid = (abs(held) * paid + shares * price) / abs(after)
        self.positions[row["symbol"]] = [after, paid if held * after >= 0 else price]
        if after == 0:
            del self.positions[row["symbol"]]
        kind = "fill" if whole else "partial_fill"
        self._post(
            {"activity_type": "FILL", "type": kind, "order_id": row["id"], "symbol": row["symbol"], "side": row["side"],
             "qty": _plain(shares), "price": _plain(price), "cum_qty": _plain(filled),
             "leaves_qty": _plain(Decimal(row["qty"]) - filled), "transaction_time": _stamp(self.now)}
        )  # fmt: skip

    def _end(self, in_force: str, status: str) -> None:
        for row in self._living(in_force):
            row["status"] = status

    def _post(self, row: Row) -> str:
        self._counts["activity"] += 1
        key = f"{self.now.astimezone(NEW_YORK):%Y%m%d%H%M%S}000::{self._counts['activity']:012x}"
        self.activities.append({"id": key, **row, "_posted": self.now})
        return key

    # --- requests -----------------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: dict[str, str], headers: Mapping[str, str], body: bytes) -> Reply:
        endpoint, carry_out = self._route(method, path, query, body)
        with self._state:
            self.requests.append((endpoint, query))
            if endpoint == "submit":
                self.posts.append(json.loads(body))
            faults = self._faults[endpoint]
            fault = faults.pop(0) if faults else None
        if fault is not None and fault.hangs:
            reply = self._carried(carry_out, headers) if fault.taken else SILENT
            self._stopping.wait(self.hang_s)
            return fault.spoil(reply)
        if fault is not None:
            return fault.spoil(self._carried(carry_out, headers) if fault.taken else SILENT)
        return self._carried(carry_out, headers)

    def _carried(self, carry_out: Callable[[], Reply], headers: Mapping[str, str]) -> Reply:
        if (headers.get("apca-api-key-id"), headers.get("apca-api-secret-key")) != (KEY_ID, SECRET_KEY):
            return as_json({"message": "forbidden."}, 403)
        with self._state:
            return carry_out()

    def _route(self, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[str, Callable[[], Reply]]:
        """The endpoint's name, by which faults are injected, and what answers it."""
        last = unquote(path.rsplit("/", 1)[-1])
        if (method, path) == ("POST", "/v2/orders"):
            return "submit", lambda: self._submit(json.loads(body))
        routes: dict[tuple[str, str], tuple[str, Callable[[], Reply]]] = {
            ("GET", "/v2/account"): ("account", lambda: as_json({**self.account, "cash": _plain(self.cash)})),
            ("GET", "/v2/positions"): ("positions", self._positions),
            ("GET", "/v2/calendar"): ("calendar", lambda: self._calendar(query)),
            ("GET", "/v2/stocks/trades/latest"): ("last trades", lambda: self._last_trades(query)),
            ("GET", "/v2/orders"): ("orders", lambda: self._listed(query)),
            ("GET", "/v2/orders:by_client_order_id"): ("order", lambda: self._by_client_id(query)),
            ("GET", "/v2/account/activities"): ("activities", lambda: self._activity_page(None, query)),
            ("GET", f"/v2/account/activities/{last}"): ("fills", lambda: self._activity_page(last, query)),
            ("GET", f"/v2/orders/{last}"): ("order by id", lambda: self._by_id(last)),
            ("DELETE", f"/v2/orders/{last}"): ("cancel", lambda: self._cancel(last)),
        }
        return routes.get((method, path), ("?", lambda: refusal(404, 40410000, "endpoint not found.")))

    def _calendar(self, query: dict[str, str]) -> Reply:
        days = self._sessions.between(date.fromisoformat(query["start"]), date.fromisoformat(query["end"]))
        return as_json([{"date": str(d), "open": "09:30", "close": "16:00"} for d in days if d not in self.closures])

    def _last_trades(self, query: dict[str, str]) -> Reply:
        symbols = query["symbols"].split(",")
        if "NOPE" in symbols:
            return as_json({"message": "invalid symbol: NOPE"}, 400)
        return as_json({"trades": {symbol: self.trades[symbol] for symbol in symbols if symbol in self.trades}})

    def _positions(self) -> Reply:
        rows = []
        for symbol, (shares, price) in self.positions.items():
            side = "short" if shares < 0 else "long"
            rows.append({"symbol": symbol, "qty": _plain(shares), "avg_entry_price": _plain(price), "side": side})
        return as_json(rows)

    def _submit(self, body: Row) -> Reply:
        unique = not self.of(body["client_order_id"])
        duplicate = refusal(422, 40010001, "client_order_id must be unique")
        if not unique and not self.duplicates_last:
            return duplicate
        trouble = self._trouble(body) or (None if unique else duplicate)
        return trouble or as_json(self.add_order(body))

    def _trouble(self, body: Row) -> Reply | None:
        quantity, symbol, clock = Decimal(body["qty"]), body["symbol"], self.now.astimezone(NEW_YORK).time()
        if symbol == "NOPE":
            return refusal(404, 40410000, f'asset "{symbol}" not found')
        if quantity != int(quantity) and body["time_in_force"] != "day":
            return refusal(422, 42210000, "fractional orders must be DAY orders")
        if body["time_in_force"] == "opg" and time(9, 28) <= clock < time(19, 0):
            return refusal(422, 42210000, "opg orders must be submitted after 7:00pm and before 9:28am")
        if body["time_in_force"] == "cls" and time(15, 50) <= clock < time(19, 0):
            return refusal(422, 42210000, "cls orders must be submitted after 7:00pm and before 3:50pm")
        if "limit_price" in body and len(body["limit_price"].partition(".")[2]) > 2:
            return refusal(422, 42210000, "sub-penny increment does not fulfill minimum pricing criteria")
        price = Decimal(body["limit_price"]) if "limit_price" in body else self.prices.get(symbol)
        living = [row for row in self.orders.values() if row["status"] not in ENDED]
        if body["side"] == "buy" and price is not None:
            buying = [row for row in living if row["side"] == "buy"]
            held = sum(_rest(row) * self.prices.get(row["symbol"], price) for row in buying)
            if quantity * price + held > self.cash:
                return refusal(403, 40310000, "insufficient buying power", cost_basis=_plain(quantity * price))
        if body["side"] == "sell" and not self.shorting:
            selling = sum(_rest(r) for r in living if (r["symbol"], r["side"]) == (symbol, "sell"))
            free = self.positions.get(symbol, [Decimal(0)])[0] - selling
            if quantity > free:
                said = (
                    f"insufficient qty available for order (requested: {_plain(quantity)}, available: {_plain(free)})"
                )
                return refusal(403, 40310000, said, symbol=symbol)
        return None

    def _listed(self, query: dict[str, str]) -> Reply:
        limit = int(query.get("limit", 50))
        if limit > 500:
            return refusal(422, 40010001, "limit must be at most 500")
        rows = list(self.orders.values())
        if query.get("status", "open") == "open":
            rows = [row for row in rows if row["status"] not in ENDED]
        if "after" in query:
            rows = [row for row in rows if _instant(row["submitted_at"]) > _instant(query["after"])]
        if "until" in query:
            rows = [row for row in rows if _instant(row["submitted_at"]) < _instant(query["until"])]
        rows.sort(key=lambda row: _instant(row["submitted_at"]), reverse=query.get("direction", "desc") == "desc")
        return as_json(rows[: min(limit, self.largest_page)])

    def _by_client_id(self, query: dict[str, str]) -> Reply:
        found = self.of(query["client_order_id"])
        return as_json(found[0]) if found else refusal(404, 40410000, "order not found for that client order id")

    def _by_id(self, order_id: str) -> Reply:
        found = self.orders.get(order_id)
        return as_json(found) if found else refusal(404, 40410000, f"order not found for {order_id}")

    def _cancel(self, order_id: str) -> Reply:
        row = self.orders.get(order_id)
        if row is None:
            return refusal(404, 40410000, f"order not found for {order_id}")
        if row["status"] in ENDED:
            return refusal(422, 42210000, f'order is already in "{row["status"]}" state')
        row["status"] = "canceled"
        return Reply(204)

    def _activity_page(self, kind: str | None, query: dict[str, str]) -> Reply:
        rows = [row for row in self.activities if kind in (None, row["activity_type"])]
        if query.get("category") == "non_trade_activity":
            rows = [row for row in rows if row["activity_type"] != "FILL"]
        if "date" in query:
            rows = [row for row in rows if _day_of(row) == query["date"]]
        if "after" in query:
            rows = [row for row in rows if row["_posted"] > _instant(query["after"])]
        if "until" in query:
            rows = [row for row in rows if row["_posted"] < _instant(query["until"])]
        rows = rows if query.get("direction", "desc") == "asc" else rows[::-1]
        if "page_token" in query:
            ids = [row["id"] for row in rows]
            if query["page_token"] not in ids:
                return refusal(422, 40010001, "invalid page token")
            rows = rows[ids.index(query["page_token"]) + 1 :]
        page = rows[: int(query.get("page_size", 100))]
        return as_json([{key: value for key, value in row.items() if key != "_posted"} for row in page])


def _plain(value: Decimal) -> str:
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _rest(row: Row) -> Decimal:
    return Decimal(row["qty"]) - Decimal(row["filled_qty"])


def _stamp(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}678Z"  # nanoseconds, as Alpaca's


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _day_of(row: Row) -> str:
    return row["date"] if "date" in row else _instant(row["transaction_time"]).astimezone(NEW_YORK).date().isoformat()


def _handler(server: AlpacaTradingServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {key.lower(): value for key, value in self.headers.items()}
            reply = server.answer(self.command, parts.path, query, headers, body)
            if reply.silent or reply.reset:
                if reply.reset:  # no farewell: the other side sees a reset connection
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self.connection.close() if reply.reset else self.connection.shutdown(socket.SHUT_RDWR)
                return
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # who hangs up does not wait for it
                self.send_response(reply.status)
                for name, value in {**(reply.headers or {}), "Content-Length": str(len(reply.body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body[: len(reply.body) // 2] if reply.cut else reply.body)
            self.close_connection = self.close_connection or reply.cut

        do_GET = do_POST = do_DELETE = _serve

        def log_message(self, format: str, *args: object) -> None:
            """Quiet: the tests read `server.requests`."""

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--cash", default="100000")
    arguments = parser.parse_args()
    with AlpacaTradingServer(None, arguments.cash, arguments.port) as server:
        print(server.url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
