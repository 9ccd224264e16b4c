"""What a parameter of a strategy may be."""

from __future__ import annotations


def require_between(name: str, value: float, low: float, high: float) -> None:
    """ValueError naming the parameter, its value and what is allowed, unless low <= value <= high (NaN is not)."""
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; it must lie between {low} and {high}")


def require_above(name: str, value: float, low: float, high: float) -> None:
    """The same where `low` itself is not allowed: low < value <= high."""
    if not low < value <= high:
        raise ValueError(f"{name} is {value}; it must lie above {low} and be at most {high}")
