"""Checks that look at a symbol's history: closes that do not move, dividends that stay away, events that cannot be."""

from __future__ import annotations

import polars as pl

from trading_core.market.quality.rows import Subject, finding
from trading_core.schema import SESSION, SYMBOL, TS, ActionKind

REGULAR = 4  # intervals between dividends that make a rhythm
LOOSE = 0.35  # relative spread of the intervals that is still a rhythm: quarterly dates wander by weeks
OVERDUE = 1.6  # times the usual interval; two dividends in a row that are one late pay date apart are no hole


def stale_close(subject: Subject) -> pl.DataFrame:
    """The n-th equal close in a row (n = `stale_closes`) of bars with volume: a series that is no longer fed.

    Known at the n-th; one finding per run of equal closes.
    """
    rows = subject.sane.filter(pl.col("volume") > 0).sort(SYMBOL, TS)
    moved = (pl.col("close") != pl.col("close").shift(1).over(SYMBOL)).fill_null(True)
    rows = rows.with_columns(moved.cum_sum().over(SYMBOL).alias("run"))
    rows = rows.with_columns(pl.int_range(1, pl.len() + 1).over(SYMBOL, "run").alias("count"))
    stale = rows.filter((pl.col("count") == subject.rules.stale_closes) & (pl.col(SESSION) >= subject.first))
    return finding(stale, pl.format("close {} for the {}th time in a row, with volume", "close", "count"))


def missing_dividend(subject: Subject) -> pl.DataFrame:
    """A regular payer that has not paid for `OVERDUE` times its usual interval, while it still trades.

    The other series that can tell is the symbol's own row of dividend events: after REGULAR intervals that differ by
    less than LOOSE, a hole of OVERDUE median intervals is a missing event or a cut dividend. Where the source gives
    no events there is no such series, and prices alone cannot show an ordinary dividend. Known on the first session
    after the hole has grown that long.
    """
    paid = subject.actions.filter(pl.col("kind") == ActionKind.DIVIDEND.value)
    paid = paid.select(SYMBOL, pl.col(SESSION).alias("paid")).unique().sort(SYMBOL, "paid")
    gap = (pl.col("paid") - pl.col("paid").shift(1).over(SYMBOL)).dt.total_days()
    paid = paid.with_columns(gap.alias("gap"))
    lags = [pl.col("gap").shift(k).over(SYMBOL) for k in range(REGULAR)]
    usual = pl.concat_list(lags).list.drop_nulls()
    paid = paid.with_columns(usual.list.median().alias("usual"), usual.list.len().alias("known"))
    spread = (usual.list.max() - usual.list.min()) / pl.col("usual")
    paid = paid.with_columns(spread.alias("spread"), pl.col("paid").shift(-1).over(SYMBOL).alias("next"))
    steady = paid.filter((pl.col("known") == REGULAR) & (pl.col("spread") <= LOOSE))
    due = steady.with_columns(
        (pl.col("paid") + pl.duration(days=(OVERDUE * pl.col("usual")).round().cast(pl.Int64))).alias("due")
    )
    due = due.filter(pl.col("next").is_null() | (pl.col("next") > pl.col("due"))).sort("due")
    traded = subject.judged.select(SYMBOL, SESSION).unique().sort(SESSION)
    late = due.join_asof(
        traded, left_on="due", right_on=SESSION, by=SYMBOL, strategy="forward", check_sortedness=False
    ).drop_nulls(SESSION)
    # Only when the wait ends inside what is judged: a day-by-day run reports it once.
    late = late.filter(pl.col(SESSION) - pl.col("due") < pl.duration(days=5)).sort(SYMBOL, SESSION)
    return finding(late, pl.format("no dividend since {}, usually every {} days", "paid", pl.col("usual").round(0)))


def event_value(subject: Subject) -> pl.DataFrame:
    """A split or dividend that is not above zero, or cash of at least the close before: prices are left as they are.

    Cash on the day of a split is counted in new shares and is not compared.
    """
    value, kind = pl.col("value"), pl.col("kind")
    asked = subject.actions.filter(kind.is_in([ActionKind.SPLIT.value, ActionKind.DIVIDEND.value]))
    asked = asked.filter(pl.col(SESSION) >= subject.first, pl.col(SESSION) <= subject.last_closed).sort(SESSION)
    asked = asked.join(subject.judged.select(SYMBOL, SESSION).unique(), on=[SYMBOL, SESSION], how="semi")
    closes = subject.sane.select(SYMBOL, SESSION, "close").sort(SESSION)
    known = asked.join_asof(
        closes, on=SESSION, by=SYMBOL, strategy="backward", allow_exact_matches=False, check_sortedness=False
    )
    alone = (kind == ActionKind.DIVIDEND.value) & (pl.len().over(SYMBOL, SESSION) == 1)
    impossible = ~value.is_finite() | (value <= 0) | (alone & (value >= pl.col("close")).fill_null(False))
    before = pl.col("close").cast(pl.String).fill_null("unknown")
    return finding(
        known.filter(impossible.fill_null(True)), pl.format("{} of {}, close before {}", "kind", value, before)
    )
