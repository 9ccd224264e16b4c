"""One HTTP call to Alpaca's Trading API through alpaca-py: sent once, answered in bounded time, judged by nobody.

The SDK sets no timeout and sends again after a 429 or 504, orders too; here it does neither. No call raises: what came,
or why nothing did, is a `Reply`, so that no chain of exceptions carries the request's headers, which hold the keys, into
a log. Texts of the server are cleared of the keys before anything else reads them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import SecretStr

from trading_core.errors import InvalidConfigError

if TYPE_CHECKING:
    import requests
    from alpaca.trading.client import TradingClient

PAPER_URL, LIVE_URL = "https://paper-api.alpaca.markets", "https://api.alpaca.markets"
THIS_MACHINE = "127.0.0.1"
KEY_VARIABLES = ("TRADING_ALPACA_KEY_ID", "TRADING_ALPACA_SECRET_KEY")
_PRINTABLE = re.compile(r"[!-~]{1,200}")
_LONGEST = 200  # characters of the server's words that are shown


@dataclass(frozen=True, slots=True)
class AlpacaAccess:
    """Whom to ask, with what keys. `url`, `data_url`: in place of the broker's own endpoints for trading and for market
    data; empty: those. Shows no key."""

    key_id: SecretStr | None = None
    secret_key: SecretStr | None = None
    url: str = ""
    data_url: str = ""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: until the connection stands, and between two packets of an answer."""

    connect_s: float = 3.0
    read_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of one call. Without `trouble`, `content` is the JSON of the answer.

    `status`: HTTP's, 0 where there was no answer. `code`: Alpaca's own number of an error, None where it gave none.
    `retry_after_s`: what a 429 asks for, None where it does not say. `sent`: False when the request certainly never left.
    """

    content: Any = None
    trouble: str = ""
    status: int = 200
    code: int | None = None
    retry_after_s: float | None = None
    sent: bool = True


def endpoint(url: str, live: bool) -> str:
    """The endpoint to speak to. Without `live` only the paper endpoint or this machine: no setting reaches real money.

    Errors: InvalidConfigError.
    """
    checked, host = checked_url("TRADING_ALPACA_URL", url or (LIVE_URL if live else PAPER_URL))
    if not live and checked != PAPER_URL and host != THIS_MACHINE:
        problem = f"broker 'alpaca' speaks to {PAPER_URL} or to {THIS_MACHINE} only; real money is broker 'alpaca-live'"
        raise InvalidConfigError("The environment", [f"TRADING_ALPACA_URL: {problem}"])
    return checked


def checked_url(variable: str, url: str) -> tuple[str, str]:
    """A URL to which keys may be sent, without a slash at its end, and its host. Errors: InvalidConfigError."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise InvalidConfigError("The environment", [f"{variable}: it is no URL"]) from None
    problem = ""
    if parts.username or parts.password or parts.path not in ("", "/") or parts.query or parts.fragment:
        problem = "give scheme, host and port only"
    elif parts.scheme != "https" and not (parts.scheme == "http" and host == THIS_MACHINE):
        problem = f"only https is spoken, or http to {THIS_MACHINE}"
    if problem:
        raise InvalidConfigError("The environment", [f"{variable}: {problem}"])
    return f"{parts.scheme}://{parts.netloc}", host


class Calls:
    """See the module's text. `url` as `endpoint` gives it. Constructing does no I/O and needs no keys yet."""

    def __init__(self, access: AlpacaAccess, url: str, timeouts: Timeouts) -> None:
        self._access, self._url, self._timeouts = access, url, timeouts

    def ask(self, method: str, path: str, data: Mapping[str, Any] | None = None) -> Reply:
        """Sends one request (GET, POST or DELETE), once. Errors: InvalidConfigError for keys that are not set."""
        import requests
        from alpaca.common.exceptions import APIError

        client = self._client
        send = getattr(client, method.lower())
        try:
            content = send(path, dict(data) if data is not None else None)
        except APIError as error:
            return self._refusal(error)
        except (requests.JSONDecodeError, RecursionError):
            return Reply(trouble="the answer is no JSON")
        except requests.RequestException as error:
            return self._silence(error)
        if content is None and method != "DELETE":
            return Reply(trouble="the answer is empty")
        return Reply(content)

    def cleared(self, text: str) -> str:
        """`text` in one short line, without the keys, should a server have sent them back."""
        for secret in (self._access.key_id, self._access.secret_key):
            if secret is not None and secret.get_secret_value():
                text = text.replace(secret.get_secret_value(), "***")
        return " ".join(text.split())[:_LONGEST]

    @cached_property
    def _client(self) -> TradingClient:
        from alpaca.trading.client import TradingClient

        client = TradingClient(*self._keys(), raw_data=True, url_override=self._url)
        # The SDK's own: three more tries after three seconds each, of an order too.
        client._retry = 0
        client._session = _session(self._timeouts, use_environment=urlsplit(self._url).hostname != THIS_MACHINE)
        return client

    def _keys(self) -> tuple[str, str]:
        """Key id and secret. Errors: InvalidConfigError, which names the variable and never its value."""
        secrets = (self._access.key_id, self._access.secret_key)
        values = [secret.get_secret_value() if secret is not None else "" for secret in secrets]
        problems = []
        for name, value in zip(KEY_VARIABLES, values, strict=True):
            if not value:
                problems.append(f"{name}: is not set; broker 'alpaca' needs the key of an Alpaca account")
            elif not _PRINTABLE.fullmatch(value):
                problems.append(f"{name}: holds a character that no key has")
        if problems:
            raise InvalidConfigError("The environment", problems)
        return values[0], values[1]

    def _refusal(self, error: Any) -> Reply:
        """An answer with an HTTP status of failure."""
        status, headers = error.status_code, error.response.headers
        code, message = None, str(error)
        try:
            body = json.loads(message)
        except (ValueError, RecursionError):
            body = None
        if isinstance(body, dict) and isinstance(body.get("message"), str):
            message = body["message"]
            code = body["code"] if type(body.get("code")) is int else None
        asked = headers.get("Retry-After", "").strip()
        wait = float(asked) if re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", asked) else None
        words = self.cleared(message)
        return Reply(None, f"HTTP {status}: {words}" if words else f"HTTP {status}", status, code, wait)

    def _silence(self, error: requests.RequestException) -> Reply:
        """No answer, or none to its end. Only an error of the connection's making proves that nothing was sent."""
        import requests

        timeouts = self._timeouts
        if isinstance(error, requests.ConnectTimeout):
            return Reply(trouble=f"no connection within {timeouts.connect_s:g} s", status=0, sent=False)
        if isinstance(error, requests.Timeout):
            return Reply(trouble=f"no answer within {timeouts.read_s:g} s", status=0)
        if isinstance(error, requests.TooManyRedirects):
            return Reply(trouble="it points to another address, which is not followed", status=0)
        unmade = _never_connected(error)
        name = type(error).__name__
        return Reply(
            trouble=f"no connection ({name})" if unmade else f"the connection broke ({name})", status=0, sent=not unmade
        )


_REDIRECTED = "RedirectedError"


def _never_connected(error: Exception) -> bool:
    """Whether the connection was refused, or the name was not found: then no byte of the request was sent."""
    from urllib3.exceptions import MaxRetryError, NewConnectionError

    cause = error.args[0] if error.args else None
    return isinstance(cause, MaxRetryError) and isinstance(cause.reason, NewConnectionError)


def _session(timeouts: Timeouts, use_environment: bool) -> requests.Session:
    """A session with a timeout on every request, that repeats nothing and follows nobody.

    `use_environment`: whether proxies of the machine count.
    """
    import requests
    from requests.adapters import HTTPAdapter

    class Bounded(HTTPAdapter):
        def send(self, request, stream=False, timeout=None, verify=True, cert=None, proxies=None):  # type: ignore[no-untyped-def, override]
            bounds = (timeouts.connect_s, timeouts.read_s)
            response = super().send(request, stream, bounds, verify, cert, proxies)
            if 300 <= response.status_code < 400:
                raise requests.TooManyRedirects
            return response

    session = requests.Session()
    session.trust_env = use_environment
    for scheme in ("https://", "http://"):
        session.mount(scheme, Bounded(max_retries=0))
    return session
