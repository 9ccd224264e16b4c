"""What the quality gate has set aside: reading history as it was known then, reports, and a person's answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import polars as pl

from trading_core.config import Settings
from trading_core.errors import InvalidConfigError, NoDataError
from trading_core.market import quality
from trading_core.market.parquet import ParquetOptions, read_as_delivered
from trading_core.market.source import ACTION_SCHEMA, BAR_SCHEMA, empty_actions
from trading_core.pipelines import backfill_merge as merge
from trading_core.pipelines.quality_gate import read_answers, rules_of
from trading_core.pipelines.refs import DateRange
from trading_core.pipelines.workspace import Workspace, open_workspace
from trading_core.plots.quality import CheckRow, HeldRow, QualitySection
from trading_core.schema import (
    BARS,
    CORPORATE_ACTIONS,
    DAILY,
    KNOWN_AT,
    QUALITY_ANSWERS,
    QUARANTINE,
    SESSION,
    SYMBOL,
    TS,
    PriceBasis,
)
from trading_core.sessions import Sessions
from trading_core.storage.tables import Predicate

Versions = Mapping[str, int | None]
ANSWERS = ("genuine", "bad", "split")
HELD: dict[str, pl.DataType | type[pl.DataType]] = {
    name: QUARANTINE.columns[name] for name in (SYMBOL, TS, SESSION, KNOWN_AT, "released_at")
}
CANNOT_TELL = (
    "Price and volume alone cannot always tell a distribution (spin-off, special dividend) from a crash before the open on "
    "little volume: such rows wait for a person (`trading quality resolve`) or an event, and labels across them are masked.",
    "A bad tick that the next bar confirms, or one on many times the usual volume, looks like news and passes.",
)
NO_EVENTS = (
    "The source gives no events: an ordinary dividend that was not adjusted for (a fall of a few percent) cannot be seen, "
    "and that regular payments are missing cannot be either."
)
NO_VOLUME = "Bars without volume: a jump of these symbols is held whatever was traded, since nothing shows that it was."


# --- history as it was known -----------------------------------------------------------------------------------------


def held_rows(ws: Workspace, start: date, end: date, versions: Versions) -> pl.DataFrame:
    """Bars that are there now and were held out on some session of start..end; columns as HELD.

    As known at the close of t, the row is left out where known_at <= t < released_at. `versions`: of the tables to read;
    without the quarantine's in it the newest is read.
    """
    records = _quarantine(ws, versions, Predicate(None, end))
    was_held = (pl.col(KNOWN_AT) < pl.col("released_at")) & (pl.col("released_at") > start)
    found = records.filter(was_held).select(list(HELD))
    return found.unique([SYMBOL, TS], keep="first", maintain_order=True).sort(SYMBOL, TS)


def as_known_then(
    bars: pl.DataFrame,
    held: pl.DataFrame,
    sessions: Sequence[date],
    build: Callable[[pl.DataFrame, date, date], pl.DataFrame],
    symbol: pl.Expr | None = None,
) -> pl.DataFrame:
    """`build(bars, first, last)` for all `sessions` (ascending), each with the bars that were not held out at its close.

    `build` returns rows of the sessions first..last with columns symbol, ts, session ...; sessions with different held
    bars are built apart. `held`: columns as HELD. `symbol`: the symbol of a row of `bars`, where the column says it
    otherwise.
    """
    if not sessions:
        return build(bars, date.max, date.max)
    made = build(bars, sessions[0], sessions[-1])
    for span, keys in _held_spans(held, sessions):
        named = bars.with_columns((pl.col(SYMBOL) if symbol is None else symbol).alias("_held"))
        kept = named.join(keys, left_on=["_held", TS], right_on=[SYMBOL, TS], how="anti", maintain_order="left")
        part = build(kept.drop("_held"), span.start, span.end)
        made = pl.concat([made.filter(~pl.col(SESSION).is_between(span.start, span.end)), part])
    return made.sort(SYMBOL, TS)


def _held_spans(held: pl.DataFrame, sessions: Sequence[date]) -> list[tuple[DateRange, pl.DataFrame]]:
    """Runs of sessions on which the same bars, at least one, were held; with the keys of those bars."""
    spans: list[tuple[DateRange, pl.DataFrame]] = []
    before: pl.DataFrame | None = None
    touched = {
        day for row in held.iter_rows(named=True) for day in sessions if row[KNOWN_AT] <= day < row["released_at"]
    }
    for day in sessions:
        if day not in touched:
            before = None
            continue
        keys = held.filter(pl.col(KNOWN_AT) <= day, pl.col("released_at") > day).select(SYMBOL, TS)
        if before is not None and keys.equals(before):
            spans[-1] = (DateRange(spans[-1][0].start, day), keys)
        else:
            spans.append((DateRange(day, day), keys))
        before = keys
    return spans


def seen_that_day(ws: Workspace, bars: pl.DataFrame, versions: Versions | None = None) -> pl.DataFrame:
    """`bars` (with symbol, session) as the evenings of their own sessions saw them: without those held out then.

    What a live session could neither value nor fill at is not there for a backtest or a replay either. After a mix-up of
    units that nobody has answered the symbol has no price: an account must not be worth 100 times as much by it.
    """
    if bars.is_empty():
        return bars
    records = _quarantine(ws, versions or {}, Predicate(None, bars[SESSION].max()))  # type: ignore[arg-type]
    bars = bars.join(_in_other_units(bars, records), on=[SYMBOL, SESSION], how="anti", maintain_order="left")
    hidden = records.filter(pl.col("released_at") > pl.col(SESSION), pl.col(KNOWN_AT) <= pl.col(SESSION))
    key = [name for name in (SYMBOL, TS, SESSION) if name in bars.columns]
    return bars.join(hidden.select(key).unique(), on=key, how="anti", maintain_order="left")


def _in_other_units(bars: pl.DataFrame, records: pl.DataFrame) -> pl.DataFrame:
    """symbol, session of rows behind a mix-up of units that was open then, and before another one that undoes it."""
    mixups = records.filter(pl.col("check") == quality.jumps.UNITS)
    mixups = mixups.select(SYMBOL, pl.col(SESSION).alias("since"), "released_at")
    rows = bars.select(SYMBOL, SESSION).unique().join(mixups, on=SYMBOL)
    answered = (pl.col("released_at") <= pl.col(SESSION)).fill_null(False)
    counts = rows.filter(pl.col("since") < pl.col(SESSION), ~answered).group_by(SYMBOL, SESSION).len()
    return counts.filter(pl.col("len") % 2 == 1).select(SYMBOL, SESSION)


def suspected_actions(ws: Workspace, versions: Versions, as_of: date) -> pl.DataFrame:
    """symbol, session of levels that may have changed for no reason of the market, as known at the close of `as_of`.

    Suspected splits, distributions and mix-ups of units that nobody had answered, and suspects whose next bar was not
    there yet. A label that spans such a session says nothing about the market.
    """
    records = _quarantine(ws, versions, Predicate(None, as_of)).filter(pl.col("check").is_in(quality.JUMP_CHECKS))
    known = pl.col("resolved_at").is_not_null() & (pl.col("resolved_at") <= as_of)
    # What a person has said since does not count before its session: the check keeps what the row looked like.
    is_bad = pl.col("verdict").eq_missing(quality.Verdict.BAD.value)
    waiting = pl.col("check").is_in(quality.WAITING_CHECKS) & ~is_bad
    held = pl.col("released_at").is_null() | (pl.col("released_at") > as_of)
    return records.filter(held & (waiting | ~known)).select(SYMBOL, SESSION).unique().sort(SYMBOL, SESSION)


def _quarantine(ws: Workspace, versions: Versions, where: Predicate) -> pl.DataFrame:
    version = versions.get(QUARANTINE.name, ws.tables.version(QUARANTINE.name))
    return merge.read_or_empty(ws, QUARANTINE, where, version)


# --- a person's answer -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AnswerRef:
    """What was written down; the next backfill that reaches the session acts on it."""

    market: str
    symbol: str
    session: date
    answer: str
    ratio: float | None
    dividend: float | None
    known_at: date


def resolve(
    ws: Workspace,
    symbol: str,
    session: date,
    *,
    answer: str,
    ratio: float | None = None,
    dividend: float | None = None,
    now: datetime,
) -> AnswerRef:
    """Writes down what a person says of a quarantined jump: `genuine`, `bad`, or `split` with its event.

    `ratio`: new shares per old; `dividend`: cash per new share, or the value of what was distributed. It is known at the
    next close: what was decided since the last one did not know it. Another answer replaces the one before.
    Errors: InvalidConfigError, NoDataError when no jump of the symbol was held that day.
    """
    problems = _answer_problems(answer, ratio, dividend)
    if problems:
        raise InvalidConfigError("The answer", problems)
    there = _quarantine(ws, {}, Predicate(session, session, {SYMBOL: symbol}))
    if there.filter(pl.col("check").is_in(quality.JUMP_CHECKS)).is_empty():
        raise NoDataError(
            f"Market '{ws.market.id}' holds no jump of {symbol} on {session} in quarantine",
            "`trading quality --market` lists what waits for an answer.",
        )
    known = ws.sessions.next(ws.sessions.last_closed(now))
    made = AnswerRef(ws.market.id, symbol, session, answer, ratio, dividend, known)
    row = {
        SYMBOL: [symbol], SESSION: [session], "answer": [answer], "ratio": [ratio], "dividend": [dividend], KNOWN_AT: [known],
    }  # fmt: skip
    frame = pl.DataFrame(
        row, schema={name: dtype for name, dtype in QUALITY_ANSWERS.columns.items() if name != "month"}
    )
    ws.tables.replace(
        QUALITY_ANSWERS.name, frame, Predicate(session, session, {SYMBOL: symbol}), schema=QUALITY_ANSWERS
    )
    return made


def _answer_problems(answer: str, ratio: float | None, dividend: float | None) -> list[str]:
    if answer not in ANSWERS:
        return [f"--as {answer}: allowed: {', '.join(ANSWERS)}"]
    stated = [value for value in (ratio, dividend) if value is not None]
    problems = [f"{value:g}: a ratio or dividend must be above 0" for value in stated if not 0 < value < math.inf]
    if answer == "split" and not stated:
        problems.append(
            "--as split needs its event: --ratio (new shares per old), --dividend (cash per share), or both"
        )
    if answer != "split" and stated:
        problems.append(f"--as {answer} takes no --ratio and no --dividend")
    return problems


# --- reports ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class QualityOverview:
    """The gate's verdict on a market's stored bars, or on a panel file.

    `waiting`: rows that wait for a person or an event; `suspects`: held rows whose next bar is not there yet.
    """

    market: str
    source: str
    price_basis: str
    start: date
    end: date
    symbols: int
    rows: int
    blocks: tuple[str, ...]
    summary: list[dict[str, object]]
    findings: list[dict[str, object]]
    quarantined: list[dict[str, object]]
    waiting: list[dict[str, object]]
    suspects: list[dict[str, object]]
    cannot_tell: tuple[str, ...]


def overview(
    market: str, settings: Settings, now: datetime, *, calendar: str = "XNYS", interval: str = DAILY
) -> QualityOverview:
    """The report of a configured market's stored bars, or of a panel file (a path). Stores nothing.

    `calendar`, `interval`: of a panel file. Errors: those of the file; NoDataError when nothing is stored yet.
    """
    if "/" in market or Path(market).is_file():
        path = str(Path(market).expanduser())
        options = ParquetOptions(path)
        bars = read_as_delivered(options, calendar, interval)
        basis = PriceBasis(options.price_basis)
        return _overview(
            market, "parquet", basis, bars, empty_actions(), Sessions(calendar), now, quality.QualityRules()
        )
    ws = open_workspace(market, settings)
    bars, actions = _stored(ws)
    answers = read_answers(ws)
    rules = rules_of(ws.market)
    basis = ws.source().price_basis
    return _overview(ws.market.id, ws.market.source, basis, bars, actions, ws.sessions, now, rules, answers)


def section(ws: Workspace, bars: pl.DataFrame, as_of: date) -> QualitySection:
    """The report's section on the `bars` of a market and what was set aside of them up to `as_of`."""
    records = _quarantine(ws, {}, Predicate(None, as_of)).sort(SYMBOL, TS)
    open_rows = pl.col("verdict").is_null() | (pl.col("verdict") == quality.Verdict.WAITING.value)
    counts = records.group_by("check").agg(
        pl.len(), pl.col("released_at").is_not_null().sum().alias("released"), open_rows.sum().alias("open")
    )
    held = records.filter(open_rows).select(SYMBOL, SESSION, "check", "reason")
    return QualitySection(
        bars=bars.height,
        checks=tuple(CheckRow(*row) for row in counts.sort("check").iter_rows()),
        held=tuple(HeldRow(*row) for row in held.iter_rows()),
        notes=CANNOT_TELL,
    )


def brief(made: QualityOverview) -> list[dict[str, object]]:
    """The quarantined rows with what a person reads first."""
    names = (SYMBOL, SESSION, "check", "verdict", KNOWN_AT, "resolved_at", "released_at", "reason")
    return [{name: row[name] for name in names} for row in made.quarantined]


def _stored(ws: Workspace) -> tuple[pl.DataFrame, pl.DataFrame]:
    """All bars, the quarantined ones among them, and all events but those that persons have stated."""
    if not ws.tables.exists(BARS.name):
        raise NoDataError(
            f"Market '{ws.market.id}' has no bars yet", "Run feature_backfill (or `trading backfill`) first."
        )
    bars = ws.tables.read(BARS.name).select(list(BAR_SCHEMA))
    aside = _quarantine(ws, {}, Predicate()).select(list(BAR_SCHEMA)).unique([SYMBOL, TS], keep="first")
    bars = pl.concat([bars, aside.join(bars, on=[SYMBOL, TS], how="anti")]).sort(SYMBOL, TS)
    events = merge.read_or_empty(ws, CORPORATE_ACTIONS, Predicate(), ws.tables.version(CORPORATE_ACTIONS.name))
    said = read_answers(ws).select(SYMBOL, SESSION)
    return bars, events.select(list(ACTION_SCHEMA)).join(said, on=[SYMBOL, SESSION], how="anti")


def _overview(
    market: str,
    source: str,
    basis: PriceBasis,
    bars: pl.DataFrame,
    actions: pl.DataFrame,
    sessions: Sessions,
    now: datetime,
    rules: quality.QualityRules,
    answers: pl.DataFrame | None = None,
) -> QualityOverview:
    if bars.is_empty():
        raise NoDataError(f"'{market}' holds no bar", "Name a market or a panel with bars.")
    report = quality.check_bars(bars, actions, sessions, now, rules=rules, answers=answers)
    held = report.quarantined
    notes = [*CANNOT_TELL]
    notes += [NO_EVENTS] if actions.is_empty() else []
    notes += [NO_VOLUME] if bars.filter(pl.col("volume").fill_null(0.0) > 0).is_empty() else []
    return QualityOverview(
        market=market,
        source=source,
        price_basis=basis.value,
        start=bars[SESSION].min(),  # type: ignore[arg-type]
        end=bars[SESSION].max(),  # type: ignore[arg-type]
        symbols=bars[SYMBOL].n_unique(),
        rows=bars.height,
        blocks=report.blocks,
        summary=report.summary().to_dicts(),
        findings=report.findings.to_dicts(),
        quarantined=held.drop(TS).to_dicts(),
        waiting=held.filter(pl.col("verdict") == quality.Verdict.WAITING.value).drop(TS).to_dicts(),
        suspects=held.filter(pl.col("verdict").is_null()).drop(TS).to_dicts(),
        cannot_tell=tuple(notes),
    )
