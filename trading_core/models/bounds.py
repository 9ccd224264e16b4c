"""Bounds of configuration values: the one sentence every frozen config raises."""

from __future__ import annotations


def require_between(name: str, value: float, low: float, high: float) -> None:
    """ValueError unless low <= value <= high (NaN is refused too)."""
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; it must lie between {low} and {high}")
