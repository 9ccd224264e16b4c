"""Which symbols may be worked with on a session, judged by what was known at its close."""

from __future__ import annotations

from datetime import date

import polars as pl

from trading_core.schema import SESSION, SYMBOL, TS

LIQUIDITY_BARS = 20  # bars in the median of traded value: one month, so that a single busy day decides nothing


def eligible(bars: pl.DataFrame, session: date, min_history: int, min_dollar_volume: float = 0.0) -> list[str]:
    """Symbols that can be worked with on `session`, sorted.

    A symbol is eligible when it has a bar on `session`, at least `min_history` bars up to and with it, and a median
    of close * volume (in the market's currency) over its last 20 bars of at least `min_dollar_volume`. Rows after
    `session` are never read. `bars` may be raw or adjusted for splits (close * volume is the same); traded value means
    nothing on prices that were adjusted backwards for dividends, so give no floor there (see PriceBasis).
    """
    past = bars.lazy().filter(pl.col(SESSION) <= session).sort(SYMBOL, TS)
    value = (pl.col("close") * pl.col("volume")).tail(LIQUIDITY_BARS).median()
    found = (
        past.group_by(SYMBOL)
        .agg(pl.len().alias("bars"), pl.col(SESSION).last().alias("last"), value.alias("value"))
        .filter(pl.col("last") == session, pl.col("bars") >= min_history)
    )
    if min_dollar_volume > 0.0:  # a floor of zero asks nothing, not even that volumes are given
        found = found.filter(pl.col("value").is_not_nan(), pl.col("value") >= min_dollar_volume)
    return found.select(SYMBOL).collect().get_column(SYMBOL).sort().to_list()


def eligible_rows(
    bars: pl.DataFrame, start: date, end: date, min_history: int, min_dollar_volume: float = 0.0
) -> pl.DataFrame:
    """(symbol, session) pairs of start..end that `eligible` would name session by session, computed in one pass."""
    counted = (
        bars.lazy()
        .filter(pl.col(SESSION) <= end)
        .sort(SYMBOL, TS)
        .with_columns(
            pl.int_range(1, pl.len() + 1).over(SYMBOL).alias("bars"),
            (pl.col("close") * pl.col("volume"))
            .rolling_median(LIQUIDITY_BARS, min_samples=1)
            .over(SYMBOL)
            .alias("value"),
        )
        .filter(pl.col(SESSION) >= start, pl.col("bars") >= min_history)
    )
    if min_dollar_volume > 0.0:
        counted = counted.filter(pl.col("value").is_not_nan(), pl.col("value") >= min_dollar_volume)
    return counted.select(SYMBOL, SESSION).collect()
