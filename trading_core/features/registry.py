"""The features and how one is added: one function under `@feature`, in the module of its family.

    @feature(family="returns", inputs=("close",), lookback=5, unit="simple return")
    def ret_5(bars: BarBlock) -> FloatArray:
        \"\"\"Return over five sessions.

        Formula: close[t] / close[t-5] - 1.
        NaN: the first 5 rows.
        Reference: definition.
        \"\"\"
        return change(bars.close, 5)

The function's name is the feature's name and the first line of its docstring the description. It gets a `BarBlock` of
[symbols, bars] arrays (a bar is a row of its symbol: sessions without a bar are not there) and returns the same shape,
made of `kernels`, which keep the value at t a function of exactly its last bars. What several features of a block need is
computed once under `@shared`. Three further kinds:

- `across=` (rank_across, zscore_across, excess_in_sector ...): the value is then compared with those of all symbols at the
  same `ts`.
- an input of DERIVED_INPUTS: what the build knows besides the symbol's own bars (the market's return, the calendar).
- `on="market"`: the function gets the market as the only symbol of the block (MARKET_INPUTS over all `ts`), and every symbol
  gets its value.

A new family is a module named in `trading_core/features/__init__.py`.

Features are array kernels and not polars expressions: rolling expressions keep running sums, whose last bits depend on
where the frame begins, while features must be equal to the bit however their history was cut.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import linecache
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any, Literal, TypeAlias, TypeVar

from trading_core.errors import InvalidConfigError, MissingColumnsError, UnknownNameError
from trading_core.features.kernels import Section
from trading_core.schema import DateArray, FloatArray

BAR_INPUTS: tuple[str, ...] = ("open", "high", "low", "close", "volume")
# One value per bar of the market, over all symbols with a bar there and at the market's bar before.
MARKET_INPUTS: dict[str, str] = {
    "market_ret": "equal-weight mean of the simple returns since the market's bar before",
    "market_up_share": "share of the symbols with a positive return",
    "market_dispersion": "population standard deviation of those returns",
}
CALENDAR_INPUTS: dict[str, str] = {
    "local_minute": "minutes since midnight at the end of the bar, in the exchange's time",
    "days_since_last": "calendar days since the exchange's session before",
    "days_to_next": "calendar days to the exchange's next session",
}
SECTOR = "sector"  # read by `across` functions; the bars' column, one sector for all where there is none
DERIVED_INPUTS: tuple[str, ...] = (*MARKET_INPUTS, *CALENDAR_INPUTS, SECTOR)
_HOUSE = __name__.rpartition(".")[0]  # the package whose functions belong to a formula


@dataclass(frozen=True, slots=True)
class BarBlock:
    """Adjusted bars of some symbols, [S, R]: oldest first, symbols with fewer bars padded at the end.

    Only the declared inputs of the features at hand are filled; another one raises `MissingColumnsError`.
    """

    sessions: DateArray  # the exchange's date of each bar, NaT in the padding
    columns: dict[str, FloatArray]
    memo: dict[Any, FloatArray] = field(default_factory=dict)  # results of `@shared` functions

    def column(self, name: str) -> FloatArray:
        """An input by its name."""
        if name not in self.columns:
            raise MissingColumnsError("The block of a feature", [name], sorted(self.columns))
        return self.columns[name]

    @property
    def open(self) -> FloatArray:
        return self.column("open")

    @property
    def high(self) -> FloatArray:
        return self.column("high")

    @property
    def low(self) -> FloatArray:
        return self.column("low")

    @property
    def close(self) -> FloatArray:
        return self.column("close")

    @property
    def volume(self) -> FloatArray:
        return self.column("volume")

    @property
    def market_ret(self) -> FloatArray:
        return self.column("market_ret")


Compute: TypeAlias = Callable[[BarBlock], FloatArray]
Across: TypeAlias = Callable[[FloatArray, Section], FloatArray]
SeriesT = TypeVar("SeriesT", bound=Callable[..., dict[str, FloatArray]])


def shared(function: Compute) -> Compute:
    """Computes `function` once per block, for all features that call it. Its result must not be changed in place."""

    @functools.wraps(function)
    def once(bars: BarBlock) -> FloatArray:
        if function not in bars.memo:
            bars.memo[function] = function(bars)
        return bars.memo[function]

    return once


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature. `lookback`: rows before t that row t may depend on (bars of the market, for `on="market"`)."""

    name: str
    family: str
    inputs: tuple[str, ...]
    lookback: int
    unit: str
    description: str
    compute: Compute
    across: Across | None = None
    on: Literal["symbol", "market"] = "symbol"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of bars that are needed, the sector aside: the market's return is made of closes."""
        needed = ["close" if name in MARKET_INPUTS else name for name in self.inputs]
        return tuple(dict.fromkeys(name for name in needed if name in BAR_INPUTS))

    @property
    def needs_market(self) -> bool:
        """Whether it depends on other symbols' bars before t."""
        return any(name in MARKET_INPUTS for name in self.inputs)

    @property
    def fingerprint(self) -> str:
        """16 hex digits over the formula: name, inputs, lookback and the code that runs, comments left out.

        That of its derived inputs counts too: what else the market's return were made of, another beta would follow.
        """
        parts = [self.name, repr(self.inputs), repr(self.lookback), self.on, _code_of(self.compute)]
        parts.append(_code_of(self.across) if self.across else "")
        parts += [_code_of(_MADE_BY[name]) for name in self.inputs if name in _MADE_BY]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


FEATURES: dict[str, Feature] = {}
_MADE_BY: dict[str, Callable[..., dict[str, FloatArray]]] = {}  # derived inputs, and the function that computes each


def makes(names: Iterable[str]) -> Callable[[SeriesT], SeriesT]:
    """Marks the function below it as what computes these derived inputs: it becomes part of the formulas that read them."""

    def register(function: SeriesT) -> SeriesT:
        _MADE_BY.update(dict.fromkeys(names, function))
        return function

    return register


def feature(
    *,
    family: str,
    inputs: tuple[str, ...],
    lookback: int,
    unit: str,
    across: Across | None = None,
    on: Literal["symbol", "market"] = "symbol",
) -> Callable[[Compute], Compute]:
    """Registers the function below it. `inputs`: columns of adjusted bars, or derived ones. Errors: InvalidConfigError."""
    allowed = (*BAR_INPUTS, *DERIVED_INPUTS) if on == "symbol" else tuple(MARKET_INPUTS)

    def register(compute: Compute) -> Compute:
        name = compute.__name__
        description = (inspect.getdoc(compute) or "").partition("\n")[0].rstrip(".")
        problems = [f"inputs: '{c}' is no column of bars {allowed}" for c in inputs if c not in allowed]
        if name in FEATURES:
            problems.append(f"name: taken by the feature of family '{FEATURES[name].family}'; choose another")
        if lookback < 0:
            problems.append(f"lookback: {lookback} rows; it cannot be negative")
        if not description:
            problems.append("docstring: missing; its first line is the description")
        if problems:
            raise InvalidConfigError(f"Feature '{name}'", problems)
        FEATURES[name] = Feature(name, family, inputs, lookback, unit, description, compute, across, on)
        return compute

    return register


def get(name: str) -> Feature:
    """The feature of that name; `UnknownNameError` with the allowed ones."""
    if name not in FEATURES:
        raise UnknownNameError("feature", name, sorted(FEATURES), "trading features list")
    return FEATURES[name]


# --- what a formula is made of ----------------------------------------------------------------------------------------


@cache
def _code_of(function: Callable[..., object]) -> str:
    """The syntax trees of a function and of everything of this package that it reaches, with the constants it reads."""
    reached: dict[str, str] = {}
    _reach(function, "formula", reached)  # not its module: a formula that moves is the same formula
    return "\n".join(f"{name}={code}" for name, code in sorted(reached.items()))


def _reach(function: Callable[..., object], name: str, reached: dict[str, str]) -> None:
    function = _plain(function)
    if name in reached or not isinstance(function, FunctionType):
        return
    reached[name] = _written(function.__code__)
    for used in sorted(set(_names(function.__code__))):
        value = _plain(function.__globals__.get(used))
        if isinstance(value, FunctionType) and value.__module__.startswith(_HOUSE):
            _reach(value, f"{value.__module__}.{value.__qualname__}", reached)
        elif isinstance(value, ModuleType) and value.__name__.startswith(_HOUSE):
            reached[value.__name__] = _tree(inspect.getsource(value))
        elif isinstance(value, bool | int | float | str | tuple):
            reached[f"{function.__module__}.{used}"] = repr(value)


def _plain(value: Any) -> Any:
    """The function as it was written, beneath `@shared` and `@compiled`."""
    value = getattr(value, "py_func", value)  # numba's
    return inspect.unwrap(value) if isinstance(value, FunctionType) else value


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


@cache
def _written(code: CodeType) -> str:
    """The syntax tree of a function as text: no comments, docstring, decorators, layout."""
    return "\n".join(map(ast.dump, _functions(code.co_filename)[code.co_firstlineno]))


@cache
def _functions(path: str) -> dict[int, list[ast.AST]]:
    """The functions that begin on each line of a file, decorators included: one parse for all formulas in it."""
    tree = ast.parse("".join(linecache.getlines(path)))
    found: dict[int, list[ast.AST]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else []
            found.setdefault(min([node.lineno, *(one.lineno for one in decorators)]), []).append(node)
    _strip(tree)
    return found


def _tree(source: str) -> str:
    """The syntax tree of a module as text, as bare as that of a function."""
    tree = ast.parse(source)
    _strip(tree)
    return ast.dump(tree)


def _strip(tree: ast.Module) -> None:
    """Takes docstrings and decorators out of a tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
            if isinstance(node, ast.FunctionDef):
                node.decorator_list = []
