"""The quality gate: what is wrong with bars before they are stored.

One check is one small function and its line in CHECKS. A check of severity `block` shuts the gate (the pipeline raises
QualityGateError), `quarantine` sets the row aside with its reason, `warn` is reported and the row stays.
Blocking and quarantining checks look at each row alone, so a row is judged the same whatever else is fetched with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

import polars as pl

from trading_core.market.source import BAR_SCHEMA
from trading_core.schema import KNOWN_AT, MONTH, QUARANTINE, SESSION, SYMBOL, TS, PriceBasis
from trading_core.sessions import EARLIEST, Sessions

Severity = Literal["block", "quarantine", "warn"]

PRICES = ("open", "high", "low", "close")
ORDER_TOLERANCE = 1e-6  # relative; adjusted prices carry rounding
JUMP_RATIO = 1.4  # a close this many times (or this fraction of) the one before needs an event to explain it
UNIVERSE_LOSS = 0.20  # fraction of the symbols lost from one session to the next

FINDINGS: dict[str, pl.DataType | type[pl.DataType]] = {
    "check": pl.String,
    "severity": pl.String,
    SYMBOL: pl.String,  # null: a finding about the whole session
    SESSION: pl.Date,
    "detail": pl.String,
}
# Without the month, which storage derives.
QUARANTINE_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    name: dtype for name, dtype in QUARANTINE.columns.items() if name != MONTH
}


@dataclass(frozen=True, slots=True)
class Subject:
    """What a check sees. `bars`: columns as BAR_SCHEMA, sorted by symbol and session, NaN already null.

    `clean`: the bars that no earlier check set aside. `days`: the sessions of the calendar from the first bar to the
    last one closed by `now`, ascending, one column.
    """

    bars: pl.DataFrame
    clean: pl.DataFrame
    actions: pl.DataFrame
    days: pl.DataFrame
    last_closed: date
    now: datetime
    price_basis: PriceBasis


@dataclass(frozen=True, slots=True)
class Check:
    """`find(subject)` -> columns symbol, session, detail: one row per finding."""

    name: str
    severity: Severity
    find: Callable[[Subject], pl.DataFrame]


@dataclass(frozen=True, slots=True)
class QualityReport:
    """`clean`: bars that passed, columns as BAR_SCHEMA. `quarantined`: columns as QUARANTINE_SCHEMA, one row per bar
    and check, known at the bar's own session. `findings`: columns as FINDINGS, sorted by severity, check, session and
    symbol.

    With a blocking finding `clean` still holds the blocked rows: such bars must not be stored at all.
    """

    clean: pl.DataFrame
    quarantined: pl.DataFrame
    findings: pl.DataFrame

    @property
    def blocks(self) -> tuple[str, ...]:
        """One sentence per check that shuts the gate; empty when the bars may be stored."""
        blocking = self.findings.filter(pl.col("severity") == "block")
        groups = blocking.group_by("check", maintain_order=True).agg(
            pl.len(), pl.col(SYMBOL, SESSION, "detail").first()
        )
        return tuple(
            f"{check}: {count} finding(s), first {symbol} on {session} ({detail})"
            for check, count, symbol, session, detail in groups.iter_rows()
        )

    def summary(self) -> pl.DataFrame:
        """Columns check, severity, count: one row per check in CHECKS, those that found nothing with 0."""
        counts = self.findings.group_by("check").agg(pl.len().cast(pl.Int64).alias("count"))
        names = pl.DataFrame({"check": [c.name for c in CHECKS], "severity": [c.severity for c in CHECKS]})
        return names.join(counts, on="check", how="left", maintain_order="left").with_columns(
            pl.col("count").fill_null(0)
        )


def check_bars(
    bars: pl.DataFrame, actions: pl.DataFrame, sessions: Sessions, now: datetime, price_basis: PriceBasis
) -> QualityReport:
    """Judges the bars of all symbols over one range of sessions.

    `bars`, `actions`: columns as BAR_SCHEMA and ACTION_SCHEMA. Prices that are NaN or infinite count as missing.
    Errors: InvalidDateRangeError when `now` lies outside the calendar's years.
    """
    numbers = (*PRICES, "volume")
    finite = [pl.when(pl.col(name).is_finite()).then(pl.col(name)).alias(name) for name in numbers]
    bars = bars.select(list(BAR_SCHEMA)).with_columns(finite).sort(SYMBOL, SESSION, TS)
    last_closed = sessions.last_closed(now)
    days = _days(bars, sessions, last_closed)
    subject = Subject(bars, bars, actions, days, last_closed, now, price_basis)
    found = {check.name: check.find(subject) for check in CHECKS if check.severity != "warn"}
    quarantined = _quarantined(bars, found)
    clean = bars.join(quarantined, on=[SYMBOL, TS], how="anti", maintain_order="left")
    subject = Subject(bars, clean, actions, days, last_closed, now, price_basis)
    found |= {check.name: check.find(subject) for check in CHECKS if check.severity == "warn"}
    return QualityReport(clean, quarantined, _findings(found))


def _days(bars: pl.DataFrame, sessions: Sessions, last_closed: date) -> pl.DataFrame:
    first, last = bars[SESSION].min(), bars[SESSION].max()
    days: list[date] = []
    if first is not None and last is not None:
        begin, end = max(first, EARLIEST), min(last, last_closed)  # type: ignore[type-var]
        days = sessions.between(begin, end) if begin <= end else []  # type: ignore[arg-type, operator]
    return pl.DataFrame({SESSION: days}, schema={SESSION: pl.Date})


def _quarantined(bars: pl.DataFrame, found: dict[str, pl.DataFrame]) -> pl.DataFrame:
    parts = [
        bars.join(found[check.name].unique([SYMBOL, SESSION]), on=[SYMBOL, SESSION], how="inner").with_columns(
            pl.lit(check.name).alias("check"), pl.col("detail").alias("reason"), pl.col(SESSION).alias(KNOWN_AT)
        )
        for check in CHECKS
        if check.severity == "quarantine"
    ]
    return pl.concat(parts).select(list(QUARANTINE_SCHEMA)).sort(SYMBOL, TS, "check")


def _findings(found: dict[str, pl.DataFrame]) -> pl.DataFrame:
    parts = []
    for check in CHECKS:
        labels = [pl.lit(check.name).alias("check"), pl.lit(check.severity).alias("severity")]
        parts.append(found[check.name].with_columns(labels).select(pl.col(n).cast(t) for n, t in FINDINGS.items()))
    # "block" < "quarantine" < "warn": the alphabet happens to be the order of gravity.
    return pl.concat(parts).sort("severity", "check", SESSION, SYMBOL)


def _finding(rows: pl.DataFrame, detail: pl.Expr) -> pl.DataFrame:
    # polars 2.1 panics in pl.format when a column's first chunk is empty, as a filter after a shift can leave it.
    return rows.rechunk().select(SYMBOL, SESSION, detail.alias("detail"))


# --- the checks ------------------------------------------------------------------------------------------------------


def duplicate_key(subject: Subject) -> pl.DataFrame:
    """Two bars of one symbol for one session: nobody can say which is right."""
    repeated = subject.bars.group_by(SYMBOL, SESSION, maintain_order=True).len().filter(pl.col("len") > 1)
    return _finding(repeated, pl.format("{} bars for one session", "len"))


def future_bar(subject: Subject) -> pl.DataFrame:
    """A bar of a session that has not closed by `now`: its prices are not final, or invented."""
    later = (pl.col(SESSION) > subject.last_closed) | (pl.col(TS) > subject.now)
    return _finding(
        subject.bars.filter(later), pl.format("not closed at {}", pl.lit(f"{subject.now:%Y-%m-%d %H:%M} UTC"))
    )


def not_a_session(subject: Subject) -> pl.DataFrame:
    """A bar on a day the exchange was closed (days after the last closed session are `future_bar`'s)."""
    known = subject.bars.filter(pl.col(SESSION) <= subject.last_closed)
    return _finding(known.join(subject.days, on=SESSION, how="anti"), pl.lit("the exchange was closed on this day"))


def missing_price(subject: Subject) -> pl.DataFrame:
    """An open, high, low or close that is null, NaN or infinite."""
    names = [pl.when(pl.col(name).is_null()).then(pl.lit(name)) for name in PRICES]
    rows = subject.bars.filter(pl.any_horizontal(pl.col(PRICES).is_null()))
    return _finding(rows, pl.format("no {}", pl.concat_str(names, separator=", ", ignore_nulls=True)))


def non_positive_price(subject: Subject) -> pl.DataFrame:
    """A price of zero or less: no return can be taken from it."""
    rows = subject.bars.filter(pl.min_horizontal(PRICES) <= 0)
    return _finding(rows, pl.format("lowest price {}", pl.min_horizontal(PRICES)))


def ohlc_order(subject: Subject) -> pl.DataFrame:
    """A high below, or a low above, another price of the bar by over ORDER_TOLERANCE. Missing prices are skipped."""
    top = pl.max_horizontal("open", "close", "low")
    bottom = pl.min_horizontal("open", "close", "high")
    low_high = pl.col("high") < top - ORDER_TOLERANCE * top.abs()
    high_low = pl.col("low") > bottom + ORDER_TOLERANCE * bottom.abs()
    rows = subject.bars.filter(low_high.fill_null(False) | high_low.fill_null(False))
    return _finding(rows, pl.format("open {}, high {}, low {}, close {}", *PRICES))


def zero_volume(subject: Subject) -> pl.DataFrame:
    """A clean bar without volume: nothing was traded at these prices."""
    rows = subject.clean.filter(pl.col("volume").fill_null(0.0) <= 0)
    return _finding(rows, pl.format("volume {}", pl.col("volume").cast(pl.String).fill_null("missing")))


def missing_session(subject: Subject) -> pl.DataFrame:
    """A session between a symbol's first and last bar that has no bar of it, quarantined ones included."""
    days = subject.days.with_row_index("day").with_columns(pl.col("day").cast(pl.Int64))
    held = subject.bars.select(SYMBOL, SESSION).unique().join(days, on=SESSION).sort(SYMBOL, "day")
    held = held.with_columns(pl.col("day").shift(1).over(SYMBOL).alias("before"))
    gaps = held.filter(pl.col("day") - pl.col("before") > 1)
    lost = gaps.select(SYMBOL, pl.int_ranges(pl.col("before") + 1, "day").alias("day")).explode("day")
    return _finding(lost.join(days, on="day"), pl.lit("no bar between the symbol's first and last"))


def unexplained_jump(subject: Subject) -> pl.DataFrame:
    """A close beyond JUMP_RATIO times (or below its inverse of) the clean close before, and no event since then.

    A suspect only: whether it reverts is known later, so the row stays.
    """
    rows = subject.clean.filter(pl.min_horizontal(PRICES) > 0).sort(SYMBOL, SESSION)
    before = [pl.col(name).shift(1).over(SYMBOL).alias(f"{name}_before") for name in ("close", SESSION)]
    change = (pl.col("close") / pl.col("close_before")).log().abs()
    jumps = rows.with_columns(before).filter(change > math.log(JUMP_RATIO)).sort(SESSION)
    events = subject.actions.select(SYMBOL, SESSION, pl.col(SESSION).alias("event")).sort(SESSION)
    jumps = jumps.join_asof(events, on=SESSION, by=SYMBOL, check_sortedness=False)
    explained = (pl.col("event") > pl.col("session_before")).fill_null(False)
    ratio = (pl.col("close") / pl.col("close_before")).round(4)
    basis = pl.lit(subject.price_basis.value)
    return _finding(
        jumps.filter(~explained), pl.format("close {} times the one before, no event ({} prices)", ratio, basis)
    )


def universe_loss(subject: Subject) -> pl.DataFrame:
    """A session with over UNIVERSE_LOSS fewer symbols with a clean bar than the session before."""
    counts = subject.clean.group_by(SESSION).agg(pl.col(SYMBOL).n_unique().cast(pl.Int64).alias("count"))
    held = subject.days.join(counts, on=SESSION, how="left", maintain_order="left").with_columns(
        pl.col("count").fill_null(0), before=pl.col("count").fill_null(0).shift(1)
    )
    lost = held.filter(pl.col("count") < (1 - UNIVERSE_LOSS) * pl.col("before"))
    lost = lost.with_columns(pl.lit(None, pl.String).alias(SYMBOL))
    return _finding(lost, pl.format("{} symbols after {}", "count", "before"))


CHECKS: tuple[Check, ...] = (
    Check("duplicate_key", "block", duplicate_key),
    Check("future_bar", "block", future_bar),
    Check("not_a_session", "quarantine", not_a_session),
    Check("missing_price", "quarantine", missing_price),
    Check("non_positive_price", "quarantine", non_positive_price),
    Check("ohlc_order", "quarantine", ohlc_order),
    Check("zero_volume", "warn", zero_volume),
    Check("missing_session", "warn", missing_session),
    Check("unexplained_jump", "warn", unexplained_jump),
    Check("universe_loss", "warn", universe_loss),
)
