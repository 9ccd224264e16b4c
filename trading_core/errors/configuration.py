"""What a person wrote is wrong: a file, a form, an environment variable, a name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from difflib import get_close_matches

from trading_core.errors.base import TradingError, some


class ConfigError(TradingError):
    """A configuration file, form or environment variable is wrong."""


@dataclass(eq=False)
class InvalidConfigError(ConfigError):
    """Values that a configuration schema refused."""

    where: str
    problems: Sequence[str]

    def __str__(self) -> str:
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        return f"{self.where} is not valid:\n{lines}\nCorrect the keys named above; `trading config check` validates every file."


@dataclass(eq=False)
class UnknownNameError(ConfigError):
    """A name that no registry or folder holds (a model, feature, strategy, market, source, broker ...)."""

    kind: str
    name: str
    allowed: Sequence[str]
    listed_by: str = ""  # the command that prints all, where they are many

    def __str__(self) -> str:
        close = get_close_matches(self.name, list(self.allowed), n=5, cutoff=0.5)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        if self.listed_by:
            others = f" Close to it: {', '.join(close)}." if len(close) > 1 else ""
            return f"Unknown {self.kind} '{self.name}'.{hint}{others} `{self.listed_by}` prints all {len(self.allowed)} allowed."
        return f"Unknown {self.kind} '{self.name}'.{hint} Allowed: {some(sorted(self.allowed), 60)}."


@dataclass(eq=False)
class InvalidDateRangeError(ConfigError):
    """A start after its end, or a range without a session."""

    start: date
    end: date
    reason: str

    def __str__(self) -> str:
        return f"The range {self.start} .. {self.end} cannot be used: {self.reason}. Give a start and an end that hold at least one session."
