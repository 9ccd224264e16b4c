"""Checks that look at one row, or at which rows are there. Each is a function `Subject -> columns symbol, ts, session, detail`.

Those of severity `block` and `quarantine` look at each row alone, so a row is judged the same whatever is fetched with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from trading_core.market.quality.rules import QualityRules
from trading_core.schema import SESSION, SYMBOL, TS, UTC_TS

PRICES = ("open", "high", "low", "close")
ORDER_TOLERANCE = 1e-6  # relative; adjusted prices carry rounding
MIN_UNIVERSE = 5  # fewer symbols than this are no universe whose loss could be sudden


@dataclass(frozen=True, slots=True)
class Subject:
    """What a check sees.

    `delivered`: the bars in the order they came. `bars`: the same sorted by symbol and ts, NaN already null, in the
    columns of BAR_SCHEMA. `sane`: those of them that no row check has set aside, and the stored rows around them that
    were handed in as context; `judged`: only those that are not context. `actions`: events of all these sessions.
    `days`: the sessions of the calendar from the first row to the last one closed by `now`, ascending, one column.
    """

    delivered: pl.DataFrame
    bars: pl.DataFrame
    sane: pl.DataFrame
    judged: pl.DataFrame
    actions: pl.DataFrame
    days: pl.DataFrame
    first: date  # the first session of `bars`
    last_closed: date
    now: datetime
    rules: QualityRules


def finding(rows: pl.DataFrame, detail: pl.Expr) -> pl.DataFrame:
    """Columns symbol, ts, session, detail of `rows`; ts is null where the finding is about no single bar."""
    stamp = pl.col(TS) if TS in rows.columns else pl.lit(None, UTC_TS).alias(TS)
    # polars 2.1 panics in pl.format when a column's first chunk is empty, as a filter after a shift can leave it.
    return rows.rechunk().select(SYMBOL, stamp, SESSION, detail.alias("detail"))


def duplicate_key(subject: Subject) -> pl.DataFrame:
    """Two bars of one symbol that end at one time: nobody can say which is right."""
    repeated = subject.bars.filter(pl.struct(SYMBOL, TS).is_duplicated())
    groups = repeated.group_by(SYMBOL, TS, SESSION, maintain_order=True).agg(pl.len(), pl.col("close"))
    closes = pl.col("close").list.eval(pl.element().cast(pl.String).fill_null("missing")).list.join(", ")
    return finding(groups, pl.format("{} bars for one time, closes {}", "len", closes))


def future_bar(subject: Subject) -> pl.DataFrame:
    """A bar of a session that has not closed by `now`: its prices are not final, or invented."""
    later = (pl.col(SESSION) > subject.last_closed) | (pl.col(TS) > subject.now)
    moment = pl.lit(f"{subject.now:%Y-%m-%d %H:%M} UTC")
    return finding(subject.bars.filter(later), pl.format("not closed at {}", moment))


def time_order(subject: Subject) -> pl.DataFrame:
    """Bars that were delivered after a later bar of their symbol: one finding per symbol, at the first of them.

    The gate sorts; the vendor's file is to be looked at. A file that runs backwards has as many of them as bars.
    """
    before = pl.col(TS).cum_max().shift(1).over(SYMBOL)
    rows = subject.delivered.with_columns(before.alias("before")).filter(pl.col(TS) < pl.col("before"))
    rows = rows.group_by(SYMBOL, maintain_order=True).agg(pl.col(TS, SESSION, "before").first(), pl.len())
    stamp = pl.col("before").dt.strftime("%Y-%m-%d %H:%M")
    return finding(rows, pl.format("{} bar(s) after a later one, this one after that of {}", "len", stamp))


def not_a_session(subject: Subject) -> pl.DataFrame:
    """A bar on a day the exchange was closed (days after the last closed session are `future_bar`'s)."""
    known = subject.bars.filter(pl.col(SESSION) <= subject.last_closed)
    return finding(
        known.join(subject.days, on=SESSION, how="anti"), pl.lit("no session of the exchange's calendar on this day")
    )


def missing_price(subject: Subject) -> pl.DataFrame:
    """An open, high, low or close that is null, NaN or infinite."""
    names = [pl.when(pl.col(name).is_null()).then(pl.lit(name)) for name in PRICES]
    rows = subject.bars.filter(pl.any_horizontal(pl.col(PRICES).is_null()))
    return finding(rows, pl.format("no {}", pl.concat_str(names, separator=", ", ignore_nulls=True)))


def non_positive_price(subject: Subject) -> pl.DataFrame:
    """A price of zero or less: no return can be taken from it."""
    rows = subject.bars.filter(pl.min_horizontal(PRICES) <= 0)
    return finding(rows, pl.format("lowest price {}", pl.min_horizontal(PRICES)))


def ohlc_order(subject: Subject) -> pl.DataFrame:
    """A high below, or a low above, another price of the bar by over ORDER_TOLERANCE. Missing prices are skipped."""
    top = pl.max_horizontal("open", "close", "low")
    bottom = pl.min_horizontal("open", "close", "high")
    low_high = pl.col("high") < top - ORDER_TOLERANCE * top.abs()
    high_low = pl.col("low") > bottom + ORDER_TOLERANCE * bottom.abs()
    rows = subject.bars.filter(low_high.fill_null(False) | high_low.fill_null(False))
    return finding(rows, pl.format("open {}, high {}, low {}, close {}", *PRICES))


def zero_volume(subject: Subject) -> pl.DataFrame:
    """A clean bar without volume: nothing was traded at these prices."""
    rows = subject.judged.filter(pl.col("volume").fill_null(0.0) <= 0)
    return finding(rows, pl.format("volume {}", pl.col("volume").cast(pl.String).fill_null("missing")))


def missing_session(subject: Subject) -> pl.DataFrame:
    """A session between a symbol's first and last bar that has no bar of it, quarantined ones included.

    A hole that began in the stored context is found when the symbol is back.
    """
    days = subject.days.with_row_index("day").with_columns(pl.col("day").cast(pl.Int64))
    there = pl.concat([subject.bars.select(SYMBOL, SESSION), subject.sane.select(SYMBOL, SESSION)]).unique()
    held = there.join(days, on=SESSION).sort(SYMBOL, "day")
    held = held.with_columns(pl.col("day").shift(1).over(SYMBOL).alias("before"))
    gaps = held.filter((pl.col("day") - pl.col("before") > 1) & (pl.col(SESSION) >= subject.first))
    lost = gaps.select(SYMBOL, pl.int_ranges(pl.col("before") + 1, "day").alias("day")).explode("day")
    return finding(lost.join(days, on="day"), pl.lit("no bar between the symbol's first and last"))


def universe_loss(subject: Subject) -> pl.DataFrame:
    """A session with over `universe_loss` fewer symbols with a sane bar than the session before."""
    counts = subject.sane.group_by(SESSION).agg(pl.col(SYMBOL).n_unique().cast(pl.Int64).alias("count"))
    counts = subject.days.join(counts, on=SESSION, how="left", maintain_order="left")
    counts = counts.with_columns(pl.col("count").fill_null(0), before=pl.col("count").fill_null(0).shift(1))
    few = pl.col("count") < (1 - subject.rules.universe_loss) * pl.col("before")
    lost = counts.filter(few & (pl.col("before") >= MIN_UNIVERSE), pl.col(SESSION) >= subject.first)
    lost = lost.with_columns(pl.lit(None, pl.String).alias(SYMBOL))
    return finding(lost, pl.format("{} symbols after {}", "count", "before"))
