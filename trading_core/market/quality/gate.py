"""The registry of the quality checks, and the gate that runs them.

One check is one small function and its line in CHECKS. Severity `block` shuts the gate (the pipeline raises
QualityGateError), `quarantine` sets the row aside with its reason and the session at which it was known, `warn` is
reported and the row stays, `off` is not looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from enum import StrEnum

import polars as pl

from trading_core.errors import InvalidConfigError, UnknownNameError
from trading_core.market.quality import jumps, rows, series
from trading_core.market.quality.jumps import JUMP_CHECKS, UNEXPLAINED, Verdict, judge_jumps
from trading_core.market.quality.report import FINDINGS, QUARANTINE_SCHEMA, QualityReport
from trading_core.market.quality.rows import PRICES, Subject
from trading_core.market.quality.rules import QualityRules, Severity
from trading_core.market.source import BAR_SCHEMA, empty_bars
from trading_core.schema import KNOWN_AT, SESSION, SYMBOL, TS
from trading_core.sessions import EARLIEST, Sessions


class Scope(StrEnum):
    """What a finding of a check is about, which decides the severities it may have."""

    ROW = "row"  # one bar, judged alone: any severity
    KEY = "key"  # bars that one table cannot hold together: block or quarantine
    HISTORY = "history"  # a symbol's or the market's history, no single bar: block, warn or off
    JUMP = "jump"  # a suspect of `jumps`: quarantine, warn or off


_ALLOWED: dict[Scope, tuple[Severity, ...]] = {
    Scope.ROW: ("block", "quarantine", "warn", "off"),
    Scope.KEY: ("block", "quarantine"),
    Scope.HISTORY: ("block", "warn", "off"),
    Scope.JUMP: ("quarantine", "warn", "off"),
}


@dataclass(frozen=True, slots=True)
class Check:
    """`find(subject)` -> columns symbol, ts, session, detail, one row per finding; None: `judge_jumps` finds it."""

    name: str
    severity: Severity  # unless a market's rules say otherwise
    scope: Scope
    find: Callable[[Subject], pl.DataFrame] | None
    description: str


CHECKS: tuple[Check, ...] = (
    Check("duplicate_key", "block", Scope.KEY, rows.duplicate_key, "two bars of a symbol for one time"),
    Check("future_bar", "block", Scope.KEY, rows.future_bar, "a bar that has not closed yet"),
    Check("not_a_session", "quarantine", Scope.ROW, rows.not_a_session, "a bar on a day the exchange was closed"),
    Check("missing_price", "quarantine", Scope.ROW, rows.missing_price, "no open, high, low or close"),
    Check("non_positive_price", "quarantine", Scope.ROW, rows.non_positive_price, "a price of zero or less"),
    Check("ohlc_order", "quarantine", Scope.ROW, rows.ohlc_order, "a price outside the bar's own low and high"),
    Check(UNEXPLAINED, "quarantine", Scope.JUMP, None, "a jump without the volume of news: held until the next bar"),
    Check(jumps.SPIKE, "quarantine", Scope.JUMP, None, "such a jump that the next bar has undone: a bad tick"),
    Check(jumps.UNITS, "quarantine", Scope.JUMP, None, "100 or 1,000 times the level from one bar on"),
    Check(jumps.SPLIT, "quarantine", Scope.JUMP, None, "a jump like a split that has no event"),
    Check(jumps.DISTRIBUTION, "quarantine", Scope.JUMP, None, "a fall at the open like a distribution without event"),
    Check(jumps.EVENT, "quarantine", Scope.JUMP, None, "a split or dividend that the price does not show"),
    Check(
        "event_value", "warn", Scope.HISTORY, series.event_value, "a split or dividend that nothing can be adjusted by"
    ),
    Check("stale_close", "warn", Scope.HISTORY, series.stale_close, "the same close many times in a row, with volume"),
    Check("zero_volume", "warn", Scope.HISTORY, rows.zero_volume, "a bar without volume"),
    Check("missing_session", "warn", Scope.HISTORY, rows.missing_session, "a hole in a symbol's history"),
    Check("missing_dividend", "warn", Scope.HISTORY, series.missing_dividend, "a regular payer has stopped paying"),
    Check("time_order", "warn", Scope.HISTORY, rows.time_order, "bars that were not delivered in order of time"),
    Check("universe_loss", "warn", Scope.HISTORY, rows.universe_loss, "many symbols gone from one session to the next"),
)


def severities(rules: QualityRules) -> dict[str, Severity]:
    """The severity of every check under `rules`.

    Errors: UnknownNameError for a check there is no such; InvalidConfigError for a severity the check cannot have.
    """
    known = {check.name: check for check in CHECKS}
    problems = []
    for name, severity in rules.severities.items():
        if name not in known:
            raise UnknownNameError("quality check", name, list(known))
        allowed = _ALLOWED[known[name].scope]
        if severity not in allowed:
            problems.append(f"{name}: it cannot be '{severity}'; allowed: {', '.join(allowed)}")
    if problems:
        raise InvalidConfigError("The severities of the quality checks", problems)
    return {check.name: rules.severities.get(check.name, check.severity) for check in CHECKS}


def check_bars(
    bars: pl.DataFrame,
    actions: pl.DataFrame,
    sessions: Sessions,
    now: datetime,
    *,
    rules: QualityRules | None = None,
    context: pl.DataFrame | None = None,
    answers: pl.DataFrame | None = None,
) -> QualityReport:
    """Judges bars as a source has delivered them.

    `bars`: columns as BAR_SCHEMA, in the order they came; prices that are NaN or infinite count as missing. `actions`:
    columns as ACTION_SCHEMA, of the same sessions and of the context's. `context`: stored sane bars (held ones
    included) of all symbols, in the `jumps.MAX_AGE` * 2 before `bars` and after them, so that a day is judged as it
    would be within its whole history; only `bars` are reported on. `answers`: what persons said (ANSWER_SCHEMA).
    Errors: InvalidDateRangeError when `now` lies outside the calendar's years; those of `severities`.
    """
    rules = rules or QualityRules()
    grave = severities(rules)
    subject = _subject(bars, actions, sessions, now, rules, context)
    found = {
        check.name: check.find(subject)
        for check in CHECKS
        if check.find is not None and check.scope in (Scope.ROW, Scope.KEY) and grave[check.name] != "off"
    }
    aside = _set_aside(subject.bars, found, grave)
    # Rows that only block or warn are judged on: the report is to show everything that is wrong.
    sane = subject.bars.join(aside, on=[SYMBOL, TS], how="anti", maintain_order="left")
    around = subject.sane.join(subject.bars.select(SYMBOL, TS), on=[SYMBOL, TS], how="anti")
    subject = replace(subject, sane=pl.concat([around, sane]).sort(SYMBOL, TS), judged=sane)
    for check in CHECKS:
        if check.find is not None and check.scope is Scope.HISTORY and grave[check.name] != "off":
            found[check.name] = check.find(subject)
    held = _jumps(subject, grave, answers)
    found |= {name: _jump_findings(held, name, grave) for name in JUMP_CHECKS}
    kept = held_out(held, grave)
    out = kept.filter(pl.col("released_at").is_null())
    clean = sane.join(out, on=[SYMBOL, TS], how="anti", maintain_order="left")
    quarantined = pl.concat([aside, kept]).sort(SYMBOL, TS, "check")
    return QualityReport(clean, quarantined, _findings(found, grave), grave)


def held_out(records: pl.DataFrame, grave: Mapping[str, Severity]) -> pl.DataFrame:
    """Records of `judge_jumps` as they are stored under these severities.

    Nothing is held where `unexplained_jump` is not `quarantine`. A row whose final check is not is released when that
    is known.
    """
    if grave[UNEXPLAINED] != "quarantine":
        return records.clear()
    keep = [name for name in JUMP_CHECKS if grave[name] == "quarantine"]
    let_go = ~pl.col("check").is_in(keep) & pl.col("verdict").is_in([Verdict.BAD.value, Verdict.WAITING.value])
    released = pl.when(let_go).then(pl.col("resolved_at")).otherwise(pl.col("released_at"))
    return records.with_columns(released.alias("released_at"))


# --- inside ----------------------------------------------------------------------------------------------------------


def _subject(
    bars: pl.DataFrame,
    actions: pl.DataFrame,
    sessions: Sessions,
    now: datetime,
    rules: QualityRules,
    context: pl.DataFrame | None,
) -> Subject:
    finite = [pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name) for name in (*PRICES, "volume")]
    delivered = bars.select(list(BAR_SCHEMA)).with_columns(finite)
    ordered = delivered.sort(SYMBOL, TS, *PRICES, "volume")
    around = (empty_bars() if context is None else context).select(list(BAR_SCHEMA))
    last_closed = sessions.last_closed(now)
    days = _days(pl.concat([ordered.select(SESSION), around.select(SESSION)]), sessions, last_closed)
    first = ordered[SESSION].min()
    return Subject(
        delivered=delivered,
        bars=ordered,
        sane=around,
        judged=ordered,
        actions=actions,
        days=days,
        first=first if isinstance(first, date) else last_closed,
        last_closed=last_closed,
        now=now,
        rules=rules,
    )


def _days(seen: pl.DataFrame, sessions: Sessions, last_closed: date) -> pl.DataFrame:
    first, last = seen[SESSION].min(), seen[SESSION].max()
    days: list[date] = []
    if first is not None and last is not None:
        begin, end = max(first, EARLIEST), min(last, last_closed)  # type: ignore[type-var]
        days = sessions.between(begin, end) if begin <= end else []  # type: ignore[arg-type, operator]
    return pl.DataFrame({SESSION: days}, schema={SESSION: pl.Date})


def _set_aside(bars: pl.DataFrame, found: Mapping[str, pl.DataFrame], grave: Mapping[str, Severity]) -> pl.DataFrame:
    """Records of the rows that a row check sets aside, known at once and for ever."""
    parts = [
        bars.join(found[name].select(SYMBOL, TS, "detail").unique([SYMBOL, TS], keep="first"), on=[SYMBOL, TS])
        .with_columns(
            pl.lit(name).alias("check"),
            pl.col("detail").alias("reason"),
            pl.col(SESSION).alias(KNOWN_AT),
            pl.lit(Verdict.BAD.value).alias("verdict"),
            pl.col(SESSION).alias("resolved_at"),
            pl.lit(None, pl.Date).alias("released_at"),
        )
        .select(list(QUARANTINE_SCHEMA))
        for name in found
        if grave[name] == "quarantine"
    ]
    empty = pl.DataFrame(schema=QUARANTINE_SCHEMA)
    # One record per key: of duplicates the reason names all closes.
    return pl.concat([empty, *parts]).unique([SYMBOL, TS, "check"], keep="first", maintain_order=True)


def _jumps(subject: Subject, grave: Mapping[str, Severity], answers: pl.DataFrame | None) -> pl.DataFrame:
    """The suspects among the judged rows."""
    if grave[UNEXPLAINED] == "off":
        return pl.DataFrame(schema=QUARANTINE_SCHEMA)
    # Rows that a milder severity has let through must not reach the logarithms; of duplicates the first counts.
    usable = subject.sane.filter(pl.min_horizontal(PRICES) > 0, pl.all_horizontal(pl.col(PRICES).is_not_null()))
    usable = usable.unique([SYMBOL, TS], keep="first", maintain_order=True)
    records = judge_jumps(usable, subject.actions, subject.rules, answers)
    return records.join(subject.judged.select(SYMBOL, TS).unique(), on=[SYMBOL, TS], how="semi", maintain_order="left")


def _jump_findings(records: pl.DataFrame, name: str, grave: Mapping[str, Severity]) -> pl.DataFrame:
    if grave[name] == "off":
        records = records.clear()
    return records.filter(pl.col("check") == name).select(SYMBOL, TS, SESSION, pl.col("reason").alias("detail"))


def _findings(found: Mapping[str, pl.DataFrame], grave: Mapping[str, Severity]) -> pl.DataFrame:
    parts = [pl.DataFrame(schema=FINDINGS)]
    for name, rows_found in found.items():
        labels = [pl.lit(name).alias("check"), pl.lit(grave[name]).alias("severity")]
        parts.append(rows_found.with_columns(labels).select(pl.col(n).cast(t) for n, t in FINDINGS.items()))
    # "block" < "quarantine" < "warn": the alphabet happens to be the order of gravity.
    return pl.concat(parts).sort("severity", "check", SESSION, SYMBOL)
