"""The quality gate of a backfill: fetched bars judged within stored history, suspects held, and released when they clear.

A bar that was held out yesterday is judged by today's bar, so a run also changes what other runs have stored: `settle`
compares, after a run's commits, what is stored around its sessions with what the gate says of it now, and repeats until
both agree. Whoever commits last sees all; so runs over different days end with the same tables in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from trading_core.config import MarketConfig
from trading_core.errors import CommitConflictError
from trading_core.market import quality
from trading_core.market.quality.gate import held_out, severities
from trading_core.market.quality.jumps import ANSWER_SCHEMA, MAX_AGE, person_said
from trading_core.market.quality.rows import PRICES
from trading_core.market.source import ACTION_SCHEMA, BAR_SCHEMA
from trading_core.pipelines import backfill_merge as merge
from trading_core.pipelines import backfill_notes as notes
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import (
    BARS,
    CORPORATE_ACTIONS,
    KNOWN_AT,
    QUALITY_ANSWERS,
    QUARANTINE,
    SESSION,
    SYMBOL,
    TS,
    ActionKind,
    TableSchema,
)
from trading_core.storage.tables import Predicate

SETTLE_ATTEMPTS = 20  # each is lost only to another run that has changed the same sessions meanwhile
CONTEXT = 2 * MAX_AGE  # a row's window, and the return of the window's first row
KEY = [SYMBOL, TS]


def rules_of(market: MarketConfig) -> quality.QualityRules:
    """The rules of a market. Errors: UnknownNameError for a check there is no such, InvalidConfigError."""
    chosen = market.quality
    rules = quality.QualityRules(
        severities=chosen.checks,
        jump=chosen.jump,
        jump_sigmas=chosen.jump_sigmas,
        sigmas_per_volume=chosen.sigmas_per_volume,
        window=chosen.window,
        reverted=chosen.reverted,
        gap_share=chosen.gap_share,
        stale_closes=chosen.stale_closes,
        universe_loss=chosen.universe_loss,
    )
    severities(rules)
    return rules


def judged(
    ws: Workspace, bars: pl.DataFrame, actions: pl.DataFrame, region: merge.Region, now: datetime
) -> quality.QualityReport:
    """The quality report of the bars that a fetch brought for `region`, judged within what is stored around them."""
    stored = _Stored.read(ws, region.start, region.end)
    around = stored.sane.filter(~region.inside())
    first = min([region.start, *(day for day in (bars[SESSION].min(),) if isinstance(day, date))])
    events = pl.concat([stored.actions.filter(~region.inside()), actions.select(list(ACTION_SCHEMA))])
    events = events.join(stored.answered_events, on=[SYMBOL, SESSION, "kind"], how="anti")
    near = around.filter(pl.col(SESSION) >= first - CONTEXT)
    return quality.check_bars(
        bars, events, ws.sessions, now, rules=rules_of(ws.market), context=near, answers=stored.answers
    )


def with_answers(ws: Workspace, actions: pl.DataFrame, region: merge.Region) -> pl.DataFrame:
    """`actions` (ACTION_SCHEMA) and the splits and dividends that persons have stated for the region."""
    said = _answer_events(read_answers(ws)).filter(region.inside())
    return pl.concat([said, actions.select(list(ACTION_SCHEMA)).join(said, on=[SYMBOL, SESSION, "kind"], how="anti")])


def settle(ws: Workspace, run_id: str, start: date, end: date) -> None:
    """Makes quarantine and bars around the sessions start..end agree with what the gate says of them now.

    Looked at is what a change of these sessions can alter: MAX_AGE after each end of the range, and suspects of up to
    MAX_AGE before it that still wait for their next bar; and rows, wherever they lie, that a person has answered since.
    Sessions whose bars change are marked before they do. Errors: CommitConflictError when other runs keep changing them.
    """
    unheard = _unheard(ws)
    _state_events(ws, run_id)
    days = unheard[SESSION].unique().sort().to_list()
    for first, last in [*((day, day) for day in days), *_edges(start, end)]:
        for _ in range(SETTLE_ATTEMPTS):
            stored = _Stored.read(ws, first - MAX_AGE, last)
            change = _Change.of(stored, rules_of(ws.market), first, last)
            if not change.sessions:
                break
            change.commit(ws, run_id)
        else:
            raise CommitConflictError(f"{ws.market.id}/{QUARANTINE.name}", SETTLE_ATTEMPTS)


def _unheard(ws: Workspace) -> pl.DataFrame:
    """Answers (ANSWER_SCHEMA) that no run has acted on yet."""
    answers = read_answers(ws)
    if answers.is_empty():
        return answers
    span = Predicate(answers[SESSION].min(), answers[SESSION].max())  # type: ignore[arg-type]
    records = _all(ws, QUARANTINE, span).filter(pl.col("check").is_in(quality.JUMP_CHECKS))
    said = answers.select(SYMBOL, SESSION, person_said().alias("said"))
    open_ones = records.join(said, on=[SYMBOL, SESSION]).filter(~pl.col("reason").str.ends_with(pl.col("said")))
    return answers.join(open_ones, on=[SYMBOL, SESSION], how="semi")


def _state_events(ws: Workspace, run_id: str) -> None:
    """Stores the splits and dividends of answers, before the rows that they release; takes away what is said no more.

    At a session that a person has answered, an event that was known only later is a person's: sources know theirs then.
    """
    answers = read_answers(ws)
    if answers.is_empty():
        return
    said, event = _answer_events(answers), [SYMBOL, SESSION, "kind"]
    span = Predicate(answers[SESSION].min(), answers[SESSION].max())  # type: ignore[arg-type]

    def put(stored: pl.DataFrame) -> pl.DataFrame:
        at_answers = stored.join(answers.select(SYMBOL, SESSION), on=[SYMBOL, SESSION], how="semi")
        withdrawn = at_answers.filter(pl.col(KNOWN_AT) > pl.col(SESSION)).join(said, on=event, how="anti")
        others = stored.join(pl.concat([said, withdrawn.select(said.columns)]), on=event, how="anti")
        made = pl.concat([others, said.select(stored.columns)])
        if first := merge.first_difference(stored, made):
            notes.mark_changed(ws, run_id, first)
        return made

    merge.rewrite(ws, CORPORATE_ACTIONS, span, put)


def read_answers(ws: Workspace) -> pl.DataFrame:
    """Everything persons have said, columns as ANSWER_SCHEMA."""
    return _all(ws, QUALITY_ANSWERS, Predicate()).select(list(ANSWER_SCHEMA))


# --- what is stored --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Stored:
    """Sessions and what is around them, as stored. `sane`: BAR_SCHEMA, the bars and the suspects that are held.

    `bars`: their keys and sessions that are in `bars`. `held`: the records of the suspects. `actions`: without those
    that persons have stated (`answered_events`, their keys): what was held before the answer stays on record.
    """

    sane: pl.DataFrame
    bars: pl.DataFrame
    held: pl.DataFrame
    actions: pl.DataFrame
    answers: pl.DataFrame
    answered_events: pl.DataFrame

    @classmethod
    def read(cls, ws: Workspace, start: date, end: date) -> _Stored:
        span = Predicate(start - CONTEXT, end + MAX_AGE)
        # Bars last: a row on its way from quarantine to bars is then seen twice rather than not at all.
        records = _all(ws, QUARANTINE, span).drop("month")
        held = records.filter(pl.col("check").is_in(quality.JUMP_CHECKS))
        answers = read_answers(ws)
        said = _answer_events(answers).select(SYMBOL, SESSION, "kind")
        actions = _all(ws, CORPORATE_ACTIONS, Predicate(None, end + MAX_AGE)).select(list(ACTION_SCHEMA))
        bars = _all(ws, BARS, span).select(list(BAR_SCHEMA))
        others = held.select(list(BAR_SCHEMA)).unique(KEY).join(bars, on=KEY, how="anti")
        actions = actions.join(said, on=[SYMBOL, SESSION, "kind"], how="anti")
        # A market may let rows pass that have no usable price: no return is taken from those.
        sane = pl.concat([bars, others]).filter(pl.min_horizontal(PRICES) > 0).sort(SYMBOL, TS)
        return cls(sane, bars.select(*KEY, SESSION), held, actions, answers, said)


@dataclass(frozen=True, slots=True)
class _Change:
    """What has to be done for the stored tables to agree with the gate. Frames with a session column each."""

    upserts: pl.DataFrame  # records as they should be, that are not stored so
    drops: pl.DataFrame  # keys (symbol, ts, check) of records that should not be
    adds: pl.DataFrame  # rows for bars
    removals: pl.DataFrame  # keys of bars that are held

    @classmethod
    def of(cls, stored: _Stored, rules: quality.QualityRules, first: date, last: date) -> _Change:
        """Of the sessions first..last and MAX_AGE after; before them only of suspects that nobody has resolved."""
        records = quality.judge_jumps(stored.sane, stored.actions, rules, stored.answers)
        wanted = held_out(records, severities(rules))
        pending = stored.held.filter(pl.col("resolved_at").is_null() & (pl.col(SESSION) < first)).select(KEY).unique()
        # Persons may answer at any time: their rows are looked at wherever they lie.
        answered = stored.answers.select(SYMBOL, SESSION, pl.lit(True).alias("answered"))
        scope = stored.sane.join(answered, on=[SYMBOL, SESSION], how="left")
        scope = scope.join(pending.with_columns(pl.lit(True).alias("pending")), on=KEY, how="left")
        inside = pl.col(SESSION) >= first
        scope = scope.filter(inside | pl.col("answered").fill_null(False) | pl.col("pending").fill_null(False))
        scope = scope.filter(pl.col(SESSION) <= last + MAX_AGE).select(list(BAR_SCHEMA))
        wanted, now = (frame.join(scope.select(KEY), on=KEY, how="semi") for frame in (wanted, stored.held))
        out = wanted.filter(pl.col("released_at").is_null()).select(KEY)
        inside_bars = stored.bars.join(scope.select(KEY), on=KEY, how="semi")
        visible = scope.join(out, on=KEY, how="anti")
        return cls(
            upserts=wanted.join(now, on=wanted.columns, how="anti", nulls_equal=True),
            drops=now.join(wanted, on=[*KEY, "check"], how="anti").select(*KEY, SESSION, "check"),
            adds=visible.join(inside_bars, on=KEY, how="anti"),
            removals=inside_bars.join(out, on=KEY, how="semi"),
        )

    @property
    def sessions(self) -> list[date]:
        """The sessions that change, ascending."""
        parts = [frame.select(SESSION) for frame in (self.upserts, self.drops, self.adds, self.removals)]
        return pl.concat(parts)[SESSION].unique().sort().to_list()

    def commit(self, ws: Workspace, run_id: str) -> None:
        """A row is at every moment in one of the tables: held before it leaves bars, back there before its record goes."""
        first, last = self.sessions[0], self.sessions[-1]
        notes.mark_changed(ws, run_id, first)
        span, record = Predicate(first, last), [*KEY, "check"]

        def put(stored: pl.DataFrame) -> pl.DataFrame:
            new = self.upserts.select(stored.columns)
            return pl.concat([stored.join(new, on=record, how="anti"), new])

        def move(stored: pl.DataFrame) -> pl.DataFrame:
            kept = stored.join(self.removals, on=KEY, how="anti")
            return pl.concat([kept, self.adds.select(kept.columns).join(kept, on=KEY, how="anti")])

        merge.rewrite(ws, QUARANTINE, span, put)
        merge.rewrite(ws, BARS, span, move)
        merge.rewrite(ws, QUARANTINE, span, lambda stored: stored.join(self.drops, on=record, how="anti"))


def _edges(start: date, end: date) -> Sequence[tuple[date, date]]:
    """The parts of start..end that touch what was stored before. Its inside was judged as a whole when it was fetched."""
    if end - start <= 2 * MAX_AGE:
        return [(start, end)]
    return [(start, start + MAX_AGE), (end - MAX_AGE, end)]


def _all(ws: Workspace, table: TableSchema, where: Predicate) -> pl.DataFrame:
    return merge.read_or_empty(ws, table, where, ws.tables.version(table.name))


def _answer_events(answers: pl.DataFrame) -> pl.DataFrame:
    """The splits and dividends in what persons said, columns as ACTION_SCHEMA."""
    parts = [
        answers.filter(pl.col(column).is_not_null()).select(
            SYMBOL, SESSION, pl.lit(kind.value).alias("kind"), pl.col(column).alias("value"), KNOWN_AT
        )
        for kind, column in ((ActionKind.SPLIT, "ratio"), (ActionKind.DIVIDEND, "dividend"))
    ]
    return pl.concat(parts)
