"""Which symbols may be worked with on a session, judged by what was known at its close."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import polars as pl

from trading_core.errors import UnreadableFileError
from trading_core.market.instruments import VALID_FROM, VALID_TO, read_periods, with_periods
from trading_core.schema import SESSION, SYMBOL, TS

LIQUIDITY_BARS = 20  # bars in the median of traded value: one month, so that a single busy day decides nothing
_WHAT = "universe membership"


@dataclass(frozen=True, slots=True)
class Membership:
    """Who belongs to a list (an index) when. `periods`: symbol, valid_from, valid_to (both included; null = still).

    A symbol without a period is never a member. Names that left stay: they are members of the sessions that they had.
    """

    periods: pl.DataFrame

    def rows(self, rows: pl.DataFrame) -> pl.DataFrame:
        """The rows (with symbol and session) whose symbol is a member on their session; in order."""
        return with_periods(rows, self.periods).drop_nulls(VALID_FROM).select(rows.columns)


def read_membership(path: str) -> Membership:
    """The membership of a CSV or Parquet file: symbol, from, to (an empty `from` or `to` is open).

    Errors: MissingFileError, UnreadableFileError (also for periods of a symbol that overlap, or without a row),
    MissingColumnsError, WrongTypeError.
    """
    periods = read_periods(path, _WHAT)
    if periods.is_empty():
        raise UnreadableFileError(path, _WHAT, "it names no symbol")
    return Membership(periods.select(SYMBOL, VALID_FROM, VALID_TO))


def eligible(
    bars: pl.DataFrame,
    session: date,
    min_history: int,
    min_dollar_volume: float = 0.0,
    min_price: float = 0.0,
    membership: Membership | None = None,
) -> list[str]:
    """Symbols that can be worked with on `session`, sorted.

    A symbol is eligible when it has a bar on `session`, at least `min_history` bars up to and with it, a median of
    close * volume (in the market's currency) over its last 20 bars of at least `min_dollar_volume`, a close of at least
    `min_price`, and is a member on `session`, if there is a membership. Rows after `session` are never read. A floor
    asks for raw `bars`: prices that were adjusted backwards know of later splits (see PriceBasis).
    """
    found = eligible_rows(bars, session, session, min_history, min_dollar_volume, min_price, membership)
    return found.get_column(SYMBOL).unique().sort().to_list()


def eligible_rows(
    bars: pl.DataFrame,
    start: date,
    end: date,
    min_history: int,
    min_dollar_volume: float = 0.0,
    min_price: float = 0.0,
    membership: Membership | None = None,
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
    if min_dollar_volume > 0.0:  # a floor of zero asks nothing, not even that volumes are given
        counted = counted.filter(pl.col("value").is_not_nan(), pl.col("value") >= min_dollar_volume)
    if min_price > 0.0:
        counted = counted.filter(pl.col("close").is_not_nan(), pl.col("close") >= min_price)
    rows = counted.select(SYMBOL, SESSION).collect()
    return rows if membership is None else membership.rows(rows)
