"""Bounds of configuration values: the sentences that every frozen config raises."""

from __future__ import annotations

from collections.abc import Sequence


def require_between(name: str, value: float, low: float, high: float) -> None:
    """ValueError unless low <= value <= high (NaN is refused too)."""
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; it must lie between {low} and {high}")


def require_one_of(name: str, value: object, allowed: Sequence[object]) -> None:
    """ValueError unless `value` is one of `allowed` and of its type (1 is not True)."""
    if not any(value == option and type(value) is type(option) for option in allowed):
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, allowed))}")


def require_multiple(name: str, value: int, divisor_name: str, divisor: int) -> None:
    """ValueError unless `value` is a whole multiple of `divisor`."""
    if value % divisor:
        raise ValueError(f"{name} {value} must be a multiple of {divisor_name} {divisor}")
