"""Closes that jump without volume: suspects, held on their day, and judged by the symbol's next bar.

On the day of a jump only the past is known. News trades: on the 619,040 real bars that the thresholds were set on, a
genuine move of z standard deviations came with more than z / 8 times the usual volume (z / 6 if large). A jump that is
large, far outside the symbol's own volatility and on less volume than that is a *suspect*: it is held out at its close.
The next bar says:

    the jump is undone                          a bad tick, held for ever
    no jump but for the event of that day       an event that the price does not show; waits for a person
    100 or 1,000 times the level, and it stays  a mix-up of units; waits for a person
    a simple ratio at the open, and it stays    an unadjusted split; waits for a person or an event
    a fall that was there at the open           an unadjusted distribution (spin-off, special dividend); waits too
    it takes back the jump before it            genuine: that one was let pass, it had traded; released
    anything else                               genuine; released at the close of the next bar

Price and volume alone cannot tell a distribution from a crash before the open on little volume: that is why it waits.

With c the close, o the open, r the log return beyond the market's median of that time, ref the close before with the
events since (ref = c_before / split - dividend), W the `window` bars before:

    sigma   1.4826 * median |log return| over W, at least the same over today's cross-section and MIN_SIGMA
    volume  volume * min(c, ref) / median(volume * close over W): in currency, so that no split changes it, and at the
            lower of the two prices, so that neither a fall nor a rise of the price looks like trading
    suspect |r| > jump, |r| > jump_sigmas * sigma, |r| / sigma > sigmas_per_volume * volume
            (LARGE_SHARE of sigmas_per_volume where |r| > LARGE_JUMP)

A row's verdict depends on the rows of its symbol in the MAX_AGE days before it, on the next one, and on the bars of the
same time: day by day and all at once give the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum

import numpy as np
import polars as pl

from trading_core.market.quality.report import QUARANTINE_SCHEMA
from trading_core.market.quality.rules import QualityRules
from trading_core.schema import (
    KNOWN_AT,
    MONTH,
    QUALITY_ANSWERS,
    SESSION,
    SYMBOL,
    TS,
    ActionKind,
    FloatArray,
    IntArray,
)

UNEXPLAINED, SPIKE, UNITS = "unexplained_jump", "reverting_spike", "unit_mixup"
SPLIT, DISTRIBUTION, EVENT = "unadjusted_split", "missing_action", "unmatched_event"
JUMP_CHECKS = (UNEXPLAINED, SPIKE, UNITS, SPLIT, DISTRIBUTION, EVENT)
# A level that stays: a label must not span it before it is answered.
WAITING_CHECKS = (UNITS, SPLIT, DISTRIBUTION, EVENT)
ANSWER_SCHEMA = {name: dtype for name, dtype in QUALITY_ANSWERS.columns.items() if name != MONTH}

MAX_AGE = timedelta(days=92)  # calendar days, about 63 sessions: no row depends on one that is older
CROSS_SECTION = 20  # symbols with a return that make a market
MIN_RETURNS, MIN_VOLUMES = 20, 5  # fewer in the window say nothing
UNKNOWN_SIGMA = 0.04  # a day, of a symbol with less history: what a volatile stock has
MIN_SIGMA = 0.005  # a pegged price must not make a suspect of every move
# The larger a genuine jump, the more it trades for each sigma: a fall of 35 % on 5.6 sigma per volume was the lowest seen.
LARGE_JUMP, LARGE_SHARE = 0.2, 0.75
GROSS = 0.75  # a jump larger than this counts as this when it is asked whether it was undone
RATIO_TOLERANCE = 0.03, 0.06  # log: of a ratio, whatever the symbol's volatility; and at most
WIDE_TOLERANCE = 0.15  # log: half the way from one ratio to the next
UNIT_TOLERANCE = 0.22  # log: 25 %
# Splits as they are made, new shares per old; reverse splits are integers the other way. 5:4 and 4:3 are left out:
# falls of 20 and 25 % are common among distributions.
RATIOS = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0)
REVERSE = tuple(1.0 / n for n in (2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 35, 40, 50))
UNIT_STEPS = (100.0, 1000.0)


class Verdict(StrEnum):
    """What a quarantined row was found to be; null in the table while nothing is known."""

    BAD = "bad"  # stays in quarantine
    WAITING = "waiting"  # a level that stays: for a person or an event
    CLEARED = "cleared"  # genuine: in `bars` from `released_at` on


@dataclass(frozen=True, slots=True)
class _Rows:
    """Sane rows, sorted by symbol and ts, as arrays [N]; returns are logs, NaN where there is no row before."""

    close: FloatArray
    volume: FloatArray
    first: IntArray  # the position of the symbol's first row
    day: IntArray  # days since 1970
    reference: FloatArray  # the close before, with the events since
    change: FloatArray  # log(close / reference)
    opening: FloatArray  # log(open / reference)
    market: FloatArray  # the median change of the cross-section
    spread: FloatArray  # its 1.4826 * median absolute deviation
    split: FloatArray  # since the row before: shares now per share then
    cash: FloatArray  # since the row before, per share now


@dataclass(frozen=True, slots=True)
class _Suspect:
    """A suspect row and what is known of it. `next`: the position of the next bar, -1 while there is none."""

    at: int
    jump: float
    sigma: float
    volume: float
    next: int
    check: str
    verdict: Verdict | None
    what: str


def judge_jumps(
    rows: pl.DataFrame, actions: pl.DataFrame, rules: QualityRules, answers: pl.DataFrame | None = None
) -> pl.DataFrame:
    """The suspects among `rows`, as records of QUARANTINE_SCHEMA, sorted by symbol and ts.

    `rows`: BAR_SCHEMA, any order, sane (prices positive and in order, one row per symbol and ts), of all symbols; those
    of the MAX_AGE * 2 days before what is asked for must be among them, and what is there after it. `actions`:
    ACTION_SCHEMA. `answers`: ANSWER_SCHEMA, what persons said.
    """
    rows = rows.sort(SYMBOL, TS)
    prepared = _prepared(rows, actions)
    suspects = _suspects(prepared, rules)
    records = _records(rows, suspects)
    return records if answers is None or answers.is_empty() else _answered(records, answers)


# --- what is usual ---------------------------------------------------------------------------------------------------


def _prepared(rows: pl.DataFrame, actions: pl.DataFrame) -> _Rows:
    code = rows[SYMBOL].rle_id().to_numpy().astype(np.int64)
    starts = np.flatnonzero(np.diff(code, prepend=-1))
    first = starts[code] if len(code) else code
    day = rows[SESSION].cast(pl.Int32).to_numpy().astype(np.int64)
    opening, close = (rows[name].to_numpy() for name in ("open", "close"))
    volume = rows["volume"].fill_null(np.nan).to_numpy()
    split, cash = _events(rows, actions)
    place = np.arange(len(code))
    before = np.maximum(place - 1, 0)
    linked = (place > first) & (day - day[before] <= MAX_AGE.days)
    with np.errstate(invalid="ignore", divide="ignore"):
        reference = np.where(linked, close[before] / split - cash, np.nan)
        reference = np.where(reference > 0.0, reference, np.nan)
        change, opened = np.log(close / reference), np.log(opening / reference)
    market, spread = _cross_section(rows, change)
    return _Rows(close, volume, first, day, reference, change, opened, market, spread, split, cash)


def _events(rows: pl.DataFrame, actions: pl.DataFrame) -> tuple[FloatArray, FloatArray]:
    """Splits and cash since the row before, [N] each. An event takes effect at the first bar at or after its ex-date."""
    split, cash = np.ones(len(rows)), np.zeros(len(rows))
    kinds = [ActionKind.SPLIT.value, ActionKind.DIVIDEND.value]
    usable = actions.filter(pl.col("kind").is_in(kinds), pl.col("value").is_finite(), pl.col("value") > 0.0)
    if usable.is_empty() or rows.is_empty():
        return split, cash
    bars = rows.select(SYMBOL, SESSION).with_row_index("at").unique([SYMBOL, SESSION], keep="first").sort(SESSION)
    found = usable.select(SYMBOL, pl.col(SESSION).alias("ex"), "kind", "value").sort("ex", SYMBOL, "kind", "value")
    found = found.join_asof(
        bars, left_on="ex", right_on=SESSION, by=SYMBOL, strategy="forward", check_sortedness=False
    ).drop_nulls("at")
    at, value = found["at"].to_numpy().astype(np.int64), found["value"].to_numpy()
    is_split = (found["kind"] == ActionKind.SPLIT.value).to_numpy()
    np.multiply.at(split, at[is_split], value[is_split])
    np.add.at(cash, at[~is_split], value[~is_split])
    return split, cash


def _cross_section(rows: pl.DataFrame, change: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The median change of all symbols at the row's time, and 1.4826 times the median distance from it; 0 for few."""
    known = rows.select(TS).with_columns(pl.Series("change", change).fill_nan(None))
    middle = known.group_by(TS).agg(pl.col("change").median().alias("market"), pl.col("change").count().alias("count"))
    known = known.join(middle, on=TS, how="left", maintain_order="left")
    distance = (pl.col("change") - pl.col("market")).abs().alias("distance")
    spread = known.with_columns(distance).group_by(TS).agg(pl.col("distance").median().alias("spread"))
    known = known.join(spread, on=TS, how="left", maintain_order="left")
    enough = pl.col("count") >= CROSS_SECTION
    both = known.select(
        pl.when(enough).then(pl.col("market")).fill_null(0.0).alias("market"),
        pl.when(enough).then(1.4826 * pl.col("spread")).fill_null(0.0).alias("spread"),
    )
    return both["market"].to_numpy(), both["spread"].to_numpy()


def _usual(rows: _Rows, at: IntArray, rules: QualityRules) -> tuple[FloatArray, FloatArray]:
    """[K] sigma of the suspects `at`, and their volume in multiples of the usual one (1.0 where none is known)."""
    before = at[:, None] - np.arange(1, rules.window + 1)[None, :]  # [K, W]
    inside = before >= rows.first[at][:, None]
    before = np.maximum(before, 0)
    inside &= rows.day[at][:, None] - rows.day[before] <= MAX_AGE.days
    changes = np.where(inside, np.abs(rows.change[before]), np.nan)
    dollars = np.where(inside & (rows.volume[before] > 0), rows.volume[before] * rows.close[before], np.nan)
    sigma = 1.4826 * _median(changes)
    sigma = np.where(np.isfinite(changes).sum(axis=1) >= MIN_RETURNS, sigma, UNKNOWN_SIGMA)
    sigma = np.maximum(np.maximum(sigma, rows.spread[at]), MIN_SIGMA)
    own = np.nan_to_num(rows.volume[at]) * np.minimum(rows.close[at], rows.reference[at])
    usual = np.where(np.isfinite(dollars).sum(axis=1) >= MIN_VOLUMES, _median(dollars), np.nan)
    return sigma, np.where(np.isfinite(usual), own / usual, 1.0)


def _median(values: FloatArray) -> FloatArray:
    """The median of every row [K, W] without its NaN; NaN for a row that has nothing else."""
    ordered = np.sort(values, axis=1)  # NaN last
    count = np.isfinite(values).sum(axis=1)
    rows = np.arange(len(values))
    middle = 0.5 * (ordered[rows, np.maximum(count - 1, 0) // 2] + ordered[rows, count // 2])
    return np.where(count > 0, middle, np.nan)


# --- suspects and their verdicts -------------------------------------------------------------------------------------


def _suspects(rows: _Rows, rules: QualityRules) -> list[_Suspect]:
    """Every suspect in order. One that undoes the suspect before it is none: the one before was the bad tick."""
    jump = rows.change - rows.market
    with np.errstate(invalid="ignore"):
        large = np.flatnonzero(np.abs(jump) > rules.jump)
    sigma, volume = _usual(rows, large, rules)
    size = np.abs(jump[large]) / sigma
    per_volume = rules.sigmas_per_volume * np.where(np.abs(jump[large]) > LARGE_JUMP, LARGE_SHARE, 1.0)
    is_suspect = (size > rules.jump_sigmas) & (size > per_volume * volume)
    found: list[_Suspect] = []
    undone = -1  # the position of the row that has undone the suspect before
    for k in np.flatnonzero(is_suspect):
        at = int(large[k])
        if at == undone:
            continue
        suspect = _judged(rows, at, jump, float(sigma[k]), float(volume[k]), rules)
        undone = suspect.next if suspect.check == SPIKE else undone
        found.append(suspect)
    return found


def _takes_back(rows: _Rows, jump: FloatArray, at: int, rules: QualityRules) -> bool:
    """Whether the row is back at the level before a jump of the bar before it, which was let pass as traded."""
    if at - 1 <= rows.first[at]:
        return False
    before = float(jump[at - 1])
    return abs(before) > rules.jump and _is_undone(before, before + float(jump[at]), rules)


def _is_undone(jump: float, rest: float, rules: QualityRules) -> bool:
    """Whether `rest` is all that is left of a jump after the next bar (log returns)."""
    return abs(rest) <= rules.reverted * min(abs(jump), GROSS)


def _judged(rows: _Rows, at: int, jumps: FloatArray, sigma: float, volume: float, rules: QualityRules) -> _Suspect:
    jump, after = float(jumps[at]), at + 1
    known = after < len(rows.day) and rows.first[after] == rows.first[at] and np.isfinite(rows.change[after])
    if not known:
        return _Suspect(at, jump, sigma, volume, -1, UNEXPLAINED, None, "the next bar will tell")
    rest = float(jump + rows.change[after] - rows.market[after])
    if _is_undone(jump, rest, rules):
        return _Suspect(at, jump, sigma, volume, after, SPIKE, Verdict.BAD, "undone by the next bar")
    if _takes_back(rows, jumps, at, rules):
        what = "it takes back the jump of the bar before, which was traded or a bad tick on a busy day"
        return _Suspect(at, jump, sigma, volume, after, UNEXPLAINED, Verdict.CLEARED, what)
    check, what = _level(rows, at, jump, sigma, rules)
    verdict = Verdict.CLEARED if check == UNEXPLAINED else Verdict.WAITING
    return _Suspect(at, jump, sigma, volume, after, check, verdict, what)


def _level(rows: _Rows, at: int, jump: float, sigma: float, rules: QualityRules) -> tuple[str, str]:
    """What a jump that stays looks like, as the name of a check and in words."""
    plain = float(rows.change[at])
    traded = float(np.log(rows.close[at] / rows.close[at - 1]))
    if (rows.split[at] != 1.0 or rows.cash[at] > 0.0) and abs(traded - rows.market[at]) <= rules.jump:
        return EVENT, "only the day's event makes it a jump: the price does not show the event, its value may be wrong"
    for step in UNIT_STEPS:
        if abs(abs(plain) - np.log(step)) <= UNIT_TOLERANCE:
            return UNITS, f"about {step:g} times {'higher' if plain > 0 else 'lower'}, and it stays: other units"
    at_open = float(rows.opening[at] / plain) >= rules.gap_share
    ratio = _simple_ratio(plain, sigma)
    if at_open and ratio is not None:
        new, old = (ratio, 1.0) if ratio >= 1.0 else (1.0, 1.0 / ratio)
        new, old = (3.0, 2.0) if ratio == 1.5 else (5.0, 2.0) if ratio == 2.5 else (new, old)
        return SPLIT, f"like a split {new:.0f}:{old:.0f} without its event"
    if at_open and jump < 0.0:
        return DISTRIBUTION, "lower from the open on, and it stays: a distribution without its event, or a crash"
    return UNEXPLAINED, "it stays"


def _simple_ratio(change: float, sigma: float) -> float | None:
    """The split that would explain the change: within RATIO_TOLERANCE, wider for a volatile symbol.

    A price that more than doubles before the open and stays is no news on little volume: the nearest ratio is taken.
    """
    tolerance = WIDE_TOLERANCE if change > GROSS else min(max(RATIO_TOLERANCE[0], 1.5 * sigma), RATIO_TOLERANCE[1])
    candidates = RATIOS if change < 0.0 else REVERSE
    nearest = min(candidates, key=lambda ratio: abs(change + np.log(ratio)))
    return nearest if abs(change + np.log(nearest)) <= tolerance else None


# --- records ---------------------------------------------------------------------------------------------------------


def _records(rows: pl.DataFrame, suspects: list[_Suspect]) -> pl.DataFrame:
    """One record of QUARANTINE_SCHEMA per suspect."""
    at = pl.Series([s.at for s in suspects], dtype=pl.UInt32)
    sessions = rows[SESSION]
    resolved: list[date | None] = [sessions[s.next] if s.next >= 0 else None for s in suspects]
    released = [day if s.verdict is Verdict.CLEARED else None for s, day in zip(suspects, resolved, strict=True)]
    found = rows[at].with_columns(
        pl.Series("check", [s.check for s in suspects], dtype=pl.String),
        pl.Series("reason", [_reason(s) for s in suspects], dtype=pl.String),
        pl.col(SESSION).alias(KNOWN_AT),
        pl.Series("verdict", [s.verdict.value if s.verdict else None for s in suspects], dtype=pl.String),
        pl.Series("resolved_at", resolved, dtype=pl.Date),
        pl.Series("released_at", released, dtype=pl.Date),
    )
    return found.select(pl.col(name).cast(dtype) for name, dtype in QUARANTINE_SCHEMA.items())


def _reason(s: _Suspect) -> str:
    return (
        f"{100.0 * np.expm1(s.jump):+.1f} % beyond the market, {abs(s.jump) / s.sigma:.1f} sigma, "
        f"on {s.volume:.2f} times the usual volume; {s.what}"
    )


def person_said() -> pl.Expr:
    """What the reason of a record ends with when a row of ANSWER_SCHEMA has been acted on."""
    event = pl.concat_str(pl.format(" (ratio {})", "ratio"), pl.format(" (dividend {})", "dividend"), ignore_nulls=True)
    return pl.format("a person said {}{}, known at {}", "answer", event, KNOWN_AT)


def _answered(records: pl.DataFrame, answers: pl.DataFrame) -> pl.DataFrame:
    """The records with what persons said: `bad` stays for ever, `genuine` and `split` release at the answer's session."""
    said = answers.select(SYMBOL, SESSION, "answer", pl.col(KNOWN_AT).alias("answered"), person_said().alias("said"))
    joined = records.join(said, on=[SYMBOL, SESSION], how="left", maintain_order="left")
    answer, spoken = pl.col("answer"), pl.col("answer").is_not_null()
    is_bad = answer == "bad"
    released = pl.when(is_bad).then(None).when(spoken).then(pl.min_horizontal("released_at", "answered"))
    verdict = pl.when(is_bad).then(pl.lit(Verdict.BAD.value)).when(spoken).then(pl.lit(Verdict.CLEARED.value))
    note = pl.format("{}; {}", "reason", "said")
    return joined.with_columns(
        released.otherwise(pl.col("released_at")).alias("released_at"),
        verdict.otherwise(pl.col("verdict")).alias("verdict"),
        pl.when(spoken).then(note).otherwise(pl.col("reason")).alias("reason"),
        pl.when(spoken)
        .then(pl.coalesce("resolved_at", "answered"))
        .otherwise(pl.col("resolved_at"))
        .alias("resolved_at"),
    ).select(list(QUARANTINE_SCHEMA))
