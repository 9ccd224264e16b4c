"""What a model's options may be when they are searched for: each model's file declares its own ranges as `SEARCH`.

The ranges lie inside the bounds of the model's config, and every combination of them is a valid config, so that no trial
is lost to a constraint between two fields. Whoever searches (training) turns them into its library's distributions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

Value: TypeAlias = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Choice:
    """One of `values`, which have no order. ValueError when there is none or one is named twice."""

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("values is empty; name at least one")
        if len(set(self.values)) < len(self.values):
            raise ValueError(f"values {self.values} name one twice; each must differ from the others")


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number from `low` to `high`, both included; `log`: doubling is as likely anywhere in the range."""

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, self.log)


@dataclass(frozen=True, slots=True)
class Real:
    """A real number from `low` to `high`, both included; `log`: doubling is as likely anywhere in the range."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, self.log)


SearchSpace: TypeAlias = Mapping[str, Choice | Whole | Real]  # field of the model's config -> its range


def _check_range(low: float, high: float, log: bool) -> None:
    if not low < high:
        raise ValueError(f"low is {low} and high {high}; low must lie below high")
    if log and low <= 0:
        raise ValueError(f"low is {low}; a logarithmic range must begin above 0")
