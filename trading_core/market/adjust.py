"""Corporate actions on prices, forward: the factor of a session is the product of the events up to that session.

Because a factor looks only back, a later event or bar changes no earlier row (backward adjustment, as vendors print
it, rewrites the whole past with every dividend). The level of an adjusted price means nothing; its ratios are returns:

    adjusted price  = raw price  * price_factor      total return: splits and reinvested dividends
    adjusted volume = raw volume * volume_factor     splits only; volume_factor = 1 / (new shares per old share so far)

Events of ex-date t multiply the factors from the first bar at or after t on. With c the last raw close before that bar:

    split of S new shares per old   price_factor *= S,              volume_factor /= S
    dividend of d per share         price_factor *= c / (c - d)     (CRSP total return: the cash buys shares at c - d)
    both on one day                 d is cash per share as traded on the ex-date, that is per *new* share, so it is
                                    d * S per old share:            price_factor *= S * c / (c - d * S)

Left out with care: events at or before a symbol's first bar (no earlier row to join with), dividends that are not
smaller than c (the ratio would be negative or infinite), values that are not positive and finite (the quality check
`event_value` reports both), and delistings (they change holdings, not prices). `known_at` is not looked at: an event that
was learned of late adjusts all sessions from its ex-date on.
"""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

from trading_core.schema import SESSION, SYMBOL, TS, ActionKind

PRICE_FACTOR = "price_factor"
VOLUME_FACTOR = "volume_factor"
_KEY = [SYMBOL, SESSION]
_SPLIT = "split_so_far"
_CARRIED = [*_KEY, "close", PRICE_FACTOR, _SPLIT]
_NO_STEPS = pl.DataFrame(
    schema={SYMBOL: pl.String, SESSION: pl.Date, PRICE_FACTOR: pl.Float64, VOLUME_FACTOR: pl.Float64}
)


def forward_factors(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    """symbol, session, price_factor, volume_factor: a row per symbol and session of `bars`, sorted; 1.0 at the first.

    `bars`: symbol, ts, session, close (raw). `actions`: symbol, session (ex-date), kind, value, as in
    schema.CORPORATE_ACTIONS.
    """
    return _walked(bars, actions, None).select(*_KEY, PRICE_FACTOR, VOLUME_FACTOR)


def factor_steps(parts: Iterable[pl.DataFrame], actions: pl.DataFrame) -> pl.DataFrame:
    """`forward_factors` where they change, and at each symbol's first bar, of bars that come in parts.

    `parts`: bars as for `forward_factors`, in whole sessions, each part later than the one before. Only one part and a row
    per symbol are held at a time, and the factors are those of all parts together to the bit: the running products go on
    where they stopped. `with_factors` applies the result.
    """
    steps, carry = [_NO_STEPS], None
    for part in parts:
        walked = _walked(part, actions, carry)
        changed = pl.any_horizontal(
            pl.col(name) != pl.col(name).shift().over(SYMBOL) for name in (PRICE_FACTOR, VOLUME_FACTOR)
        )
        fresh = (
            walked if carry is None else walked.join(carry.select(*_KEY), on=_KEY, how="anti", maintain_order="left")
        )
        first = pl.col(SYMBOL).is_first_distinct()
        begins = walked.filter(first).join(fresh, on=_KEY, how="semi")
        later = walked.filter(changed.fill_null(False) & ~first)
        steps.append(pl.concat([begins, later]).select(list(_NO_STEPS.columns)))
        last = walked.group_by(SYMBOL, maintain_order=True).last()
        # Symbols without a bar in this part are in `walked` by their carried row.
        carry = last.select(_CARRIED)
    return pl.concat(steps).sort(_KEY)


def with_factors(bars: pl.DataFrame, steps: pl.DataFrame) -> pl.DataFrame:
    """`adjusted(all bars, actions)` for some of the bars, with the `factor_steps` of all; same columns, same bits."""
    known = steps.sort(SESSION)
    rows = bars.sort(SESSION).join_asof(known, on=SESSION, by=SYMBOL, check_sortedness=False)
    return _applied(rows).select(bars.columns).sort(SYMBOL, TS)


def adjusted(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    """`bars` with open, high, low, close and volume adjusted forward; same columns, sorted by symbol and ts."""
    factors = forward_factors(bars, actions)
    joined = bars.sort(SYMBOL, TS).join(factors, on=_KEY, how="left", maintain_order="left")
    return _applied(joined).select(bars.columns)


def _applied(rows: pl.DataFrame) -> pl.DataFrame:
    prices = [pl.col(name) * pl.col(PRICE_FACTOR) for name in ("open", "high", "low", "close") if name in rows.columns]
    volumes = [pl.col(name) * pl.col(VOLUME_FACTOR) for name in ("volume",) if name in rows.columns]
    return rows.with_columns(*prices, *volumes)


def _walked(bars: pl.DataFrame, actions: pl.DataFrame, carry: pl.DataFrame | None) -> pl.DataFrame:
    """_CARRIED and volume_factor: a row per symbol and session of `bars`, behind those of `carry` (the last of earlier bars).

    A carried row keeps its own products, and events up to it are not applied a second time.
    """
    days = bars.select(SYMBOL, TS, SESSION, pl.col("close").fill_nan(None)).sort(SYMBOL, TS)
    days = days.group_by(_KEY, maintain_order=True).agg(pl.col("close").drop_nulls().last())
    days = days.with_columns(pl.lit(None, pl.Float64).alias(name) for name in (PRICE_FACTOR, _SPLIT))
    if carry is not None:
        days = pl.concat([carry.select(days.columns), days]).sort(_KEY)
    days = days.with_columns(pl.col("close").forward_fill().over(SYMBOL))
    days = days.with_columns(pl.col("close").shift(1).over(SYMBOL).alias("before"))
    steps = days.join(_events_per_bar(days, actions), on=_KEY, how="left", maintain_order="left")
    ratio = pl.col("before") / (pl.col("before") - pl.col("cash"))
    usable = pl.col("before").is_not_null() & pl.col("split").is_not_null()
    payable = usable & (pl.col("cash") < pl.col("before"))
    split = pl.when(usable).then(pl.col("split")).otherwise(1.0)
    dividend = pl.when(payable).then(ratio).otherwise(1.0)
    return steps.select(
        *_KEY,
        "close",
        pl.coalesce(PRICE_FACTOR, split * dividend).cum_prod().over(SYMBOL).alias(PRICE_FACTOR),
        pl.coalesce(_SPLIT, split).cum_prod().over(SYMBOL).alias(_SPLIT),
    ).with_columns((1.0 / pl.col(_SPLIT)).alias(VOLUME_FACTOR))


def _events_per_bar(days: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    """Events gathered at the bar where they take effect: symbol, session, split (S), cash (per share before S)."""
    value = pl.col("value")
    known_kinds = [ActionKind.SPLIT.value, ActionKind.DIVIDEND.value]
    events = actions.filter(pl.col("kind").is_in(known_kinds), value.is_finite(), value > 0.0)
    # A session without a bar (a halt) hands its events to the next bar; an event after the last bar waits for one.
    events = events.select(SYMBOL, pl.col(SESSION).alias("ex_date"), "kind", "value").sort("ex_date")
    bars = days.select(*_KEY).sort(SESSION)
    events = events.join_asof(
        bars, left_on="ex_date", right_on=SESSION, by=SYMBOL, strategy="forward", check_sortedness=False
    ).drop_nulls(SESSION)
    is_split = pl.col("kind") == ActionKind.SPLIT.value
    # "split" sorts after "dividend": descending puts a day's split first, so its dividend is per new share.
    events = events.sort([*_KEY, "ex_date", "kind"], descending=[False, False, False, True])
    factor = pl.when(is_split).then(value).otherwise(1.0)
    cash = pl.when(is_split).then(0.0).otherwise(value)
    events = events.with_columns(factor.alias("factor"), (cash * factor.cum_prod().over(_KEY)).alias("cash"))
    return events.group_by(_KEY, maintain_order=True).agg(
        pl.col("factor").product().alias("split"), pl.col("cash").sum()
    )
