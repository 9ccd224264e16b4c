"""The root of the error tree, and what its members share."""

from __future__ import annotations

from collections.abc import Sequence


def some(items: Sequence[object], limit: int = 10) -> str:
    """The first `limit` items, and how many more there are."""
    head = ", ".join(str(item) for item in items[:limit])
    return head if len(items) <= limit else f"{head} and {len(items) - limit} more"


def _rebuild(cls: type[TradingError], state: dict[str, object]) -> TradingError:
    error = cls.__new__(cls)
    error.__dict__.update(state)
    return error


class TradingError(Exception):
    """Base of all errors this platform raises on purpose. The CLI prints it without a traceback and exits with 2."""

    def __reduce__(self) -> tuple[object, ...]:
        # A dataclass exception leaves `args` empty, so the default reduction cannot rebuild it in another process.
        return (_rebuild, (type(self), dict(self.__dict__)))
