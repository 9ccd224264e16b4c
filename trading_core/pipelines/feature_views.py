"""Looking at features: the list of what there is, as rows or as a document, and one symbol's bars and features as a page."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import polars as pl

from trading_core.errors import InvalidConfigError, InvalidDateRangeError, NoDataError, UnknownNameError
from trading_core.features import build as features
from trading_core.features.registry import FEATURES, Feature, get
from trading_core.market import adjust
from trading_core.market.source import ACTION_SCHEMA, BAR_SCHEMA
from trading_core.pipelines import panels
from trading_core.pipelines.instruments import instruments_as_of
from trading_core.pipelines.workspace import Workspace
from trading_core.plots.feature_page import FeatureSeries, SymbolChart, feature_page
from trading_core.schema import BARS, CORPORATE_ACTIONS, DAILY, INSTRUMENTS, SESSION, SYMBOL, TS
from trading_core.storage.tables import Predicate

SHOWN_BARS = 252  # about a year of daily bars, when no start is given
PAGE_SUFFIXES = (".html", ".htm")
COMMAND = "trading features list --markdown"


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """One feature as it is listed. `lookback`: rows before t that its value at t may depend on."""

    name: str
    family: str
    inputs: tuple[str, ...]
    lookback: int
    unit: str
    description: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class PlotRef:
    """A page that was written."""

    path: str
    symbol: str
    start: date
    end: date
    bars: int
    features: tuple[str, ...]


def listed(family: str | None = None) -> list[FeatureRow]:
    """All features, or those of one family, by family and name. Errors: UnknownNameError."""
    return [
        FeatureRow(f.name, f.family, f.inputs, f.lookback, f.unit, f.description, f.fingerprint)
        for f in _chosen(family)
    ]


def _chosen(family: str | None) -> list[Feature]:
    known = {f.family for f in FEATURES.values()}
    if family is not None and family not in known:
        raise UnknownNameError("feature family", family, sorted(known))
    return [f for f in features.describe() if family in (None, f.family)]


# --- as a document ----------------------------------------------------------------------------------------------------


def as_markdown(family: str | None = None) -> str:
    """The features with formula, NaN rule and reference, as docs/features.md. Errors: UnknownNameError."""
    chosen = _chosen(family)
    groups = features.families([f.name for f in chosen])
    parts = [
        "# Features",
        f"Written by `{COMMAND}`; a test compares. {len(chosen)} features in {len(groups)} families, one table per family. "
        "Prices and volumes are the adjusted ones; t counts the symbol's own bars (the market's, in the family regime), "
        "and a session in a text is such a bar: the names are those of daily bars. "
        "*Rows*: how many rows before t the value at t may depend on.",
        *(_section(name, [FEATURES[member] for member in members]) for name, members in groups.items()),
    ]
    return "\n\n".join(parts) + "\n"


def _section(family: str, members: Sequence[Feature]) -> str:
    lines = [f"## {family}", "", _about(family, members), ""]
    lines += ["| feature | value | unit | made of | rows | NaN | reference |", "|---|---|---|---|---|---|---|"]
    for f in members:
        said = parts_of(f)
        value = f"{_cell(f.description)}.<br>{_cell(said.formula)}"
        inputs = ", ".join(f.inputs) or "the date"
        cells = (f"`{f.name}`", value, _cell(f.unit), inputs, str(f.lookback), _cell(said.nan), _cell(said.reference))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _about(family: str, members: Sequence[Feature]) -> str:
    """The first sentence of the family's modules."""
    modules = sorted({f.compute.__module__ for f in members}, key=lambda name: (not name.endswith(family), name))
    docs = [(inspect.getdoc(sys.modules[name]) or "").partition("Feature contract:")[0].strip() for name in modules]
    return " ".join(" ".join(doc.split()) for doc in docs if doc)


@dataclass(frozen=True, slots=True)
class DocParts:
    """What a feature's docstring says, each on one line."""

    formula: str
    nan: str
    reference: str


def parts_of(f: Feature) -> DocParts:
    """The parts `Formula:`, `NaN:` and `Reference:` of a feature's docstring."""
    doc = inspect.getdoc(f.compute) or ""
    found = dict(re.findall(r"^(Formula|NaN|Reference): (.*?)(?=^\w+: |\Z)", doc, re.M | re.S))
    line = {key: " ".join(text.split()) for key, text in found.items()}
    return DocParts(line.get("Formula", ""), line.get("NaN", ""), line.get("Reference", ""))


def _cell(text: str) -> str:
    """Text as a cell of a Markdown table."""
    for mark in ("\\", "|", "*", "<"):
        text = text.replace(mark, "\\" + mark)
    return text


# --- one symbol as a page ---------------------------------------------------------------------------------------------


def plot(
    ws: Workspace,
    symbol: str,
    names: Sequence[str],
    *,
    start: date | None = None,
    end: date | None = None,
    out: str | None = None,
) -> PlotRef:
    """Draws the stored bars and features of one symbol into an HTML file, and says where it lies.

    start, end: sessions, both included; default: the last SHOWN_BARS bars (up to `end`). out: the file (default:
    `plots/<market>-<symbol>.html` in the var folder); its folder is made, an older file replaced.
    Errors: UnknownNameError (symbol, feature), InvalidDateRangeError (no bar in the range), InvalidConfigError (`out` is no
    HTML file), NoDataError, StaleFormulasError (the features are not stored, or by other formulas: run a backfill).
    """
    chosen = [get(name) for name in dict.fromkeys(names)]
    versions = panels.current_versions(ws, [f.name for f in chosen])
    symbol = _known_symbol(ws, symbol, versions)
    target = _target(ws, symbol, out)
    bars = _bars(ws, symbol, start, end, versions)
    chart = _chart(ws, symbol, bars, _with_values(ws, bars, chosen, versions), chosen, versions)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(feature_page(chart))
    first, last = bars[SESSION][0], bars[SESSION][-1]
    return PlotRef(str(target), symbol, first, last, len(bars), tuple(f.name for f in chosen))


def _target(ws: Workspace, symbol: str, out: str | None) -> Path:
    if out is None:
        safe = re.sub(r"[^A-Za-z0-9._-]", "_", symbol)
        return ws.settings.var_dir / "plots" / f"{ws.market.id}-{safe}.html"
    path = Path(out).expanduser()
    if path.suffix.lower() not in PAGE_SUFFIXES or path.is_dir():
        problem = f"'{out}' is no HTML file; allowed: a name that ends in {' or '.join(PAGE_SUFFIXES)}"
        raise InvalidConfigError("--out", [problem])
    return path


def _known_symbol(ws: Workspace, symbol: str, versions: panels.Versions) -> str:
    """The symbol as the market writes it: a name typed in small letters is taken where only one can be meant."""
    listed = ws.tables.read(INSTRUMENTS.name, columns=[SYMBOL], version=versions[INSTRUMENTS.name])[SYMBOL].to_list()
    if symbol in listed:
        return symbol
    meant = [name for name in listed if name.upper() == symbol.upper()]
    if len(meant) != 1:
        raise UnknownNameError(f"symbol of market '{ws.market.id}'", symbol.upper(), listed)
    return meant[0]


def _bars(ws: Workspace, symbol: str, start: date | None, end: date | None, versions: panels.Versions) -> pl.DataFrame:
    """The adjusted bars to show, in the order of time; adjusted from the first stored bar on, as features are."""
    if start and end and start > end:
        raise InvalidDateRangeError(start, end, "the start lies after the end")
    where = Predicate(equals={SYMBOL: symbol})
    raw = ws.tables.read(BARS.name, where=where, version=versions[BARS.name]).select(*BAR_SCHEMA)
    if raw.is_empty():
        raise NoDataError(f"'{symbol}' has no bar in market '{ws.market.id}'", "Run feature_backfill for it.")
    table = CORPORATE_ACTIONS.name
    actions = ws.tables.read(table, where=where, version=versions[table]).select(*ACTION_SCHEMA)
    adjusted = adjust.adjusted(raw, actions)  # in the order of time
    first, last = adjusted[SESSION][0], adjusted[SESSION][-1]
    upto = adjusted.filter(pl.col(SESSION) <= (end or last))
    shown = upto.filter(pl.col(SESSION) >= start) if start else upto.tail(SHOWN_BARS)
    if shown.is_empty():
        reason = f"'{symbol}' has bars from {first} to {last} only"
        raise InvalidDateRangeError(start or first, end or last, reason)
    return shown


def _with_values(
    ws: Workspace, bars: pl.DataFrame, chosen: Sequence[Feature], versions: panels.Versions
) -> pl.DataFrame:
    """`bars` with a column per feature, NaN where the table has no row for a bar."""
    where = Predicate(bars[SESSION][0], bars[SESSION][-1], {SYMBOL: bars[SYMBOL][0]})
    for family, members in features.families([f.name for f in chosen]).items():
        table = features.table_name(family)
        part = ws.tables.read(table, columns=[TS, *members], where=where, version=versions[table])
        bars = bars.join(part, on=TS, how="left", maintain_order="left")
    return bars.with_columns(pl.col(f.name).fill_null(float("nan")) for f in chosen)


def _chart(
    ws: Workspace,
    symbol: str,
    bars: pl.DataFrame,
    values: pl.DataFrame,
    chosen: Sequence[Feature],
    versions: panels.Versions,
) -> SymbolChart:
    daily = ws.market.interval == DAILY
    local = bars[TS].dt.convert_time_zone(ws.sessions.timezone).dt.replace_time_zone(None)
    times: list[date] | list[datetime] = bars[SESSION].to_list() if daily else local.to_list()
    prices = {name: bars[name].to_numpy() for name in ("open", "high", "low", "close", "volume")}
    series = tuple(
        FeatureSeries(
            f.name, f.family, f.description, f.unit, f.lookback, parts_of(f).formula, values[f.name].to_numpy()
        )
        for f in chosen
    )
    families = features.families([f.name for f in chosen])
    read = {BARS.name: BARS.name} | {family: features.table_name(family) for family in families}
    facts = (
        ("Market", ws.market.id),
        ("Sector", _sector(ws, symbol, bars[SESSION][-1], versions)),
        ("Sessions", f"{bars[SESSION][0]} to {bars[SESSION][-1]}"),
        ("Bars", f"{len(bars)} of {ws.market.interval}"),
        ("Table versions", ", ".join(f"{name} {versions[table]}" for name, table in read.items())),
    )
    return SymbolChart(
        f"{symbol}: bars and features", facts, times, **prices, features=series, notes=_notes(ws, chosen)
    )


def _sector(ws: Workspace, symbol: str, day: date, versions: panels.Versions) -> str:
    row = instruments_as_of(ws, day, versions).filter(pl.col(SYMBOL) == symbol)
    return str(row["sector"][0] or "not known") if len(row) else "not known"


def _notes(ws: Workspace, chosen: Sequence[Feature]) -> tuple[str, ...]:
    around = [f.name for f in chosen if f.across or f.needs_market]
    notes = [
        "Prices and volumes are the adjusted ones that features are made of: adjusted forward, from the first stored bar on, "
        "so that their level may differ from the quoted one. Features do not depend on the level.",
        "A gap in a line is a bar at which the feature is not defined; its docstring says when that is.",
        "A feature at a bar is known at the bar's end and uses nothing later.",
    ]
    if ws.market.interval != DAILY:
        notes.append(f"Times are the ends of the bars, in {ws.sessions.timezone}.")
    if around:
        notes.append(f"Made of other symbols too: {', '.join(around)}.")
    return tuple(notes)
