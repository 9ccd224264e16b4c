"""An HTTP session that behaves: a timeout on every request, a rate limit, and retries that wait as long as they are told.

For SDKs that set no timeout and retry blindly. One request is one try at the limit, page by page, so a long download
goes on where a page failed. For requests that may be repeated only (GET).
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

RETRIED = frozenset({429, 500, 502, 503, 504})
MAX_WAIT_S = 120.0  # a server that asks for more is not waited for: the caller hears of it at once


@dataclass(frozen=True, slots=True)
class Manners:
    """`requests_per_minute`: at most, evenly spread. `timeout_s`: to connect, and between two packets of an answer.

    A request that fails is repeated up to `max_retries` times: after what `Retry-After` says, else after `backoff_s`,
    then twice that and so on, MAX_WAIT_S at most.
    """

    requests_per_minute: int
    timeout_s: float
    max_retries: int
    backoff_s: float


class Pace:
    """Lets requests pass at even distances."""

    def __init__(self, requests_per_minute: int) -> None:
        self._distance_s = 60.0 / requests_per_minute
        self._next = 0.0
        self._turn = threading.Lock()

    def wait(self) -> None:
        """Sleeps until the next request may be sent."""
        with self._turn:
            now = time.monotonic()
            if self._next > now:
                time.sleep(self._next - now)
            self._next = max(now, self._next) + self._distance_s


@lru_cache(maxsize=16)
def _pace(server: str, requests_per_minute: int) -> Pace:
    """One for all sessions of this process: a limit counts requests, not downloads."""
    return Pace(requests_per_minute)


def polite_session(server: str, manners: Manners, use_environment: bool = True) -> Any:
    """A `requests.Session` with these manners. `use_environment`: whether proxies and netrc of the machine count.

    `server`: whom it talks to; all sessions of this process that talk to it at one rate share the limit.

    After the last try the answer is returned as it is, whatever its status, or the connection's own error is raised.
    """
    import requests
    from requests.adapters import HTTPAdapter

    pace = _pace(server, manners.requests_per_minute)

    class Polite(HTTPAdapter):
        def send(self, request, stream=False, timeout=None, verify=True, cert=None, proxies=None):  # type: ignore[no-untyped-def, override]
            for tries_left in range(manners.max_retries, -1, -1):
                pace.wait()
                failure: Exception | None = None
                response = None
                try:
                    response = super().send(request, stream, manners.timeout_s, verify, cert, proxies)
                    response.content  # noqa: B018 - read here, where an answer that breaks off can be asked for again
                except requests.RequestException as error:
                    failure = error
                wait = _wait_s(manners, manners.max_retries - tries_left, response)
                retried = failure is not None or (response is not None and response.status_code in RETRIED)
                if not retried or not tries_left or wait > MAX_WAIT_S:
                    break
                time.sleep(wait)
            if failure is not None:
                raise failure
            return response

    session = requests.Session()
    session.trust_env = use_environment
    for scheme in ("https://", "http://"):
        session.mount(scheme, Polite())
    return session


def _wait_s(manners: Manners, attempt: int, response: Any) -> float:
    """How long to wait after try number `attempt` (from 0); a `Retry-After` in seconds may say more than MAX_WAIT_S."""
    asked = response.headers.get("Retry-After", "") if response is not None else ""
    if asked.strip().isdigit():
        return float(asked)
    return float(min(manners.backoff_s * 2.0**attempt, MAX_WAIT_S))
