"""A model trained anew by schedule, and each version's forecasts of the sessions up to the next one: a history as it was lived.

Sessions of the exchange are cut into blocks of `every` from the first one on. For each block the model is trained on a
panel that ends before it (`pipelines.train`), and forecasts its sessions and no others (`pipelines.infer`). Which version
speaks for which sessions lies in the artifact store as `<market>/walk-forward/<id>.json`, written again after each block:
a walk-forward that was interrupted, or whose `end` has grown, takes the blocks it has and goes on with the next one.

The versions are registered, since replays decide with the version of their day, but no alias ever moves to one of them:
what trades live is another person's decision (`trading models promote`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl

from trading_core import config
from trading_core.config import ModelConfig
from trading_core.dataset.splits import chronological
from trading_core.errors import (
    InvalidConfigError,
    InvalidDateRangeError,
    LookAheadError,
    NoDataError,
    NoModelError,
    StaleDataError,
    TooShortHistoryError,
    UnknownNameError,
    UnreadableFileError,
)
from trading_core.features import build as features
from trading_core.pipelines import infer, refs, train
from trading_core.pipelines.markets import require_daily
from trading_core.pipelines.models import bundle_is_whole
from trading_core.pipelines.refs import Segment, WalkForwardRef
from trading_core.pipelines.workspace import Workspace
from trading_core.registry.mlflow_registry import ModelVersion, Registry
from trading_core.schema import FORECASTS, SESSION, SYMBOL
from trading_core.storage.tables import Predicate

EVERY = 63  # sessions between two trainings: a quarter
MIN_EVERY = 5
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class WalkForward:
    """Which version speaks for which sessions. segments: one per block, in order, without a block left out.

    id: of what makes it (market, costs, history's start, model, its config and formulas, first session, `every`), not of
    how far it goes. config_hash: of the config with `seed` and epochs as they were asked for.
    Errors: LookAheadError (a segment's cut-off is not before its first decision), InvalidConfigError (sessions that two
    segments share).
    """

    id: str
    market: str
    model: str
    config_hash: str
    seed: int
    every: int
    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        for segment in self.segments:
            if segment.cutoff >= segment.first_decision:
                raise LookAheadError(str(segment.version), segment.cutoff, segment.first_decision)
        if any(before.last_decision >= after.first_decision for before, after in pairwise(self.segments)):
            problem = "segments: their sessions overlap; delete its file and run `trading walk-forward` again"
            raise InvalidConfigError(f"The walk-forward '{self.id}'", [problem])

    @property
    def start(self) -> date | None:
        """The first decision session, None before the first block is done."""
        return self.segments[0].first_decision if self.segments else None

    @property
    def end(self) -> date | None:
        """The last decision session, None before the first block is done."""
        return self.segments[-1].last_decision if self.segments else None


def walk_forward(
    ws: Workspace,
    *,
    model: str,
    start: date,
    end: date | None,
    run_id: str,
    now: datetime,
    given: ModelConfig | None = None,
    every: int = EVERY,
    seed: int | None = None,
    epochs: int | None = None,
    progress: Progress = lambda line: None,
    own_process: bool = False,
) -> WalkForwardRef:
    """Trains `model` every `every` sessions from the session `start` on and forecasts each block by its own version.

    start, end: days; the first and last sessions they hold are meant. end: default the last session with features; an
    earlier one than was reached before changes nothing. given: the config, where it is not one that `model` names.
    progress: gets a line per block. own_process: each training in a process of its own, which a task of Airflow needs
    (see `requests.run_in_process`).
    Errors: ConfigError (model, options, `every`, dates), StaleDataError (no features up to `end`), NoDataError (a block
    without any), TooShortHistoryError (nothing to learn from before `start`), TrainingFailedError, and those of `infer`.
    """
    require_daily(ws.market)
    chosen = _checked(ws, model, given, seed, epochs, every)
    stored = infer.feature_sessions(ws)
    first = _first_session(ws, model, chosen, start, stored)
    walk = _known(ws, _new(ws, model, chosen, first, every))
    last = max(_last_session(ws, first, end, stored), walk.end or first)
    blocks = _blocks(ws, first, last, every, stored)
    work = _Work(ws.registry(), model, chosen, run_id, now, own_process)
    trained = added = 0
    for number, block in enumerate(blocks):
        known = walk.segments[number] if number < len(walk.segments) else None
        done = _done(ws, work, block, known)
        if done.segment != known:
            walk = replace(walk, segments=(*walk.segments[:number], done.segment, *walk.segments[number + 1 :]))
            ws.store.write_json(_path(ws, walk.id), refs.dump(walk))
        trained, added = trained + done.trained, added + done.added
        progress(_line(number + 1, len(blocks), done))
    return _ref(ws, walk, trained, added)


def load(ws: Workspace, walk_id: str) -> WalkForward:
    """The walk-forward of that id, as far as it has come.

    Errors: UnknownNameError, NoDataError (the market has none), UnreadableFileError, ArtifactCorruptedError (no JSON),
    and those of `WalkForward`.
    """
    known = [path.rsplit("/", 1)[1].removesuffix(".json") for path in ws.store.list(ws.path("walk-forward"))]
    if not known:
        raise NoDataError(f"Market '{ws.market.id}' has no walk-forward yet", "Run `trading walk-forward` first.")
    if walk_id not in known:
        raise UnknownNameError(f"walk-forward of market '{ws.market.id}'", walk_id, known)
    path = _path(ws, walk_id)
    raw = ws.store.read_json(path)
    try:
        return refs.load(WalkForward, raw)
    except ValueError as error:
        raise UnreadableFileError(ws.store.uri(path), "a walk-forward", str(error).splitlines()[0]) from error


def stitched(ws: Workspace, walk: WalkForward, start: date | None = None, end: date | None = None) -> pl.DataFrame:
    """Rows of schema.FORECASTS for the decision sessions start..end (default: all), by session, symbol and horizon.

    Each session's rows are those of its own segment's version; what other versions have forecast of it is not read.
    Errors: NoDataError (no segment lies in these dates, or one of them has no stored forecast there).
    """
    table_version = ws.tables.version(FORECASTS.name)
    parts = []
    for segment in walk.segments:
        first, last = max(segment.first_decision, start or date.min), min(segment.last_decision, end or date.max)
        if first > last:
            continue
        where = Predicate(first, last, {"model_version": str(segment.version)})
        parts.append(ws.tables.read(FORECASTS.name, where=where, version=table_version))
        if parts[-1].is_empty():
            what = (
                f"Version {segment.version} of walk-forward '{walk.id}' has no stored forecast from {first} to {last}"
            )
            raise NoDataError(what, "Run `trading walk-forward` with its options again: it stores what is missing.")
    if not parts:
        asked = f"from {start or 'its start'} to {end or 'its end'}"
        raise NoDataError(
            f"Walk-forward '{walk.id}' has no segment {asked}",
            f"It reaches from {walk.start} to {walk.end}: choose dates in it, or run `trading walk-forward` further.",
        )
    return pl.concat(parts).sort(SESSION, SYMBOL, "horizon")


# --- what is to be walked ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Block:
    """One training and what it forecasts. start: the exchange's first session of the block, of which nothing is learned.
    sessions: those of its sessions that have features."""

    start: date
    sessions: tuple[date, ...]


def _checked(
    ws: Workspace, model: str, given: ModelConfig | None, seed: int | None, epochs: int | None, every: int
) -> ModelConfig:
    """The config with its overrides, validated. Errors: ConfigError."""
    if every < MIN_EVERY:
        problem = f"every: {every} is not allowed; give at least {MIN_EVERY} sessions between two trainings"
        raise InvalidConfigError("The walk-forward", [problem])
    found = config.load_model(model, ws.settings) if given is None else given
    chosen = train.with_overrides(found, seed, epochs, None)
    train.check_model_config(chosen, f"model '{model}'")
    return chosen


def _first_session(ws: Workspace, model: str, chosen: ModelConfig, start: date, stored: Sequence[date]) -> date:
    """The session at or after `start`, when something can be learned before it. stored: sessions with features.

    Errors: InvalidConfigError (labels up to it have chosen the config's options), TooShortHistoryError.
    """
    first = ws.sessions.next(start - timedelta(days=1))
    if chosen.selected_until is not None and chosen.selected_until >= first:
        problem = (
            f"selected_until: the options of '{model}' were chosen by labels up to {chosen.selected_until}; start later"
        )
        raise InvalidConfigError(f"A walk-forward from {first}", [problem])
    before = np.array([day for day in stored if day < first], dtype="datetime64[D]")
    share, embargo = chosen.split.validation_fraction, chosen.split.embargo
    try:
        chronological(before, first, max(chosen.horizons), share, embargo, require_test=False)
    except TooShortHistoryError as error:
        what = f"The first training of a walk-forward from {first} (a later start leaves it more)"
        raise TooShortHistoryError(what, error.have, error.need) from error
    return first


def _last_session(ws: Workspace, first: date, end: date | None, stored: Sequence[date]) -> date:
    """The last session to be forecast. Errors: InvalidDateRangeError, StaleDataError."""
    last = max(stored[-1], first) if end is None else ws.sessions.previous(end + timedelta(days=1))
    if first > last:
        raise InvalidDateRangeError(first, last, "the start lies after the end")
    if last > stored[-1]:
        raise StaleDataError(ws.market.id, last, stored[-1])
    return last


def _blocks(ws: Workspace, first: date, last: date, every: int, stored: Sequence[date]) -> list[_Block]:
    """Blocks of `every` sessions; the last one may be shorter. Errors: NoDataError (one without any features)."""
    days, ready = ws.sessions.between(first, last), set(stored)
    blocks = []
    for at in range(0, len(days), every):
        part = days[at : at + every]
        blocks.append(_Block(part[0], tuple(day for day in part if day in ready)))
        if not blocks[-1].sessions:
            what = f"Market '{ws.market.id}' has features of no session from {part[0]} to {part[-1]}"
            raise NoDataError(what, "Run feature_backfill (or `trading backfill`) for them, or start later.")
    return blocks


def _new(ws: Workspace, model: str, chosen: ModelConfig, first: date, every: int) -> WalkForward:
    """A walk-forward without a block."""
    market, made_by = ws.market, config.config_hash(chosen)
    formulas = features.fingerprints(chosen.features)  # with others it is another model: its blocks would not compare
    parts = [market.id, market.costs, str(market.history_start), model, made_by, formulas, str(first), every]
    return WalkForward(config.config_hash(parts, 16), market.id, model, made_by, chosen.seed, every, ())


def _known(ws: Workspace, new: WalkForward) -> WalkForward:
    """What an earlier run has left of it, else `new`."""
    return load(ws, new.id) if ws.store.exists(_path(ws, new.id)) else new


# --- one block --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Work:
    """What every block needs."""

    registry: Registry
    model: str
    chosen: ModelConfig
    run_id: str
    now: datetime
    own_process: bool


@dataclass(frozen=True, slots=True)
class _Done:
    """trained: whether the segment's version was made just now. added: forecasts that were not stored before."""

    segment: Segment
    trained: bool
    added: int


def _done(ws: Workspace, work: _Work, block: _Block, known: Segment | None) -> _Done:
    """One block, trained and forecast as far as that was not done before."""
    version = _registered(ws, work.registry, known) if known else None
    trained, added = False, 0
    if version is None or set(block.sessions) - infer.forecast_sessions(ws, str(version.version)):
        if version is None or not bundle_is_whole(ws, version):
            version, trained = _trained(ws, work, block)
        first, last = block.sessions[0], block.sessions[-1]
        added = infer.infer_with(ws, version, start=first, end=last, run_id=work.run_id).added
    segment = Segment(version.version, version.digest, version.cutoff, block.sessions[0], block.sessions[-1])
    return _Done(segment, trained, added)


def _registered(ws: Workspace, registry: Registry, known: Segment) -> ModelVersion | None:
    """The version of a recorded segment; None when the registry has no such version, or another model of that number."""
    try:
        version = registry.version(ws.market.id, known.version)
    except NoModelError:
        return None
    return version if version.digest == known.digest else None


def _trained(ws: Workspace, work: _Work, block: _Block) -> tuple[ModelVersion, bool]:
    """The version of a block's own training, and whether it was made just now: a run that was cut off may have left it."""
    request = train.prepare(
        ws, model=work.model, given=work.chosen, test_start=block.start, now=work.now, reuse=True, candidate=False
    )
    before = work.registry.find(ws.market.id, train.REQUEST_TAG, request.request_hash)
    if work.own_process:
        train.run_in_process(request, ws.settings)
        made = train.outcome(ws, request)
    else:
        made = train.run(request.request_uri, ws.settings, work.now)
    version = work.registry.version(ws.market.id, made.version)
    return version, before is None or before.version != version.version


# --- what is kept and said --------------------------------------------------------------------------------------------


def _path(ws: Workspace, walk_id: str) -> str:
    return ws.path("walk-forward", f"{walk_id}.json")


def _line(number: int, total: int, done: _Done) -> str:
    segment, how = done.segment, "trained" if done.trained else "taken"
    return (
        f"block {number} of {total}  {segment.first_decision} .. {segment.last_decision}  "
        f"version {segment.version} {how}, cut-off {segment.cutoff}, {done.added} new forecasts"
    )


def _ref(ws: Workspace, walk: WalkForward, trained: int, added: int) -> WalkForwardRef:
    return WalkForwardRef(
        market=walk.market,
        id=walk.id,
        model=walk.model,
        config_hash=walk.config_hash,
        seed=walk.seed,
        every=walk.every,
        start=walk.segments[0].first_decision,
        end=walk.segments[-1].last_decision,
        trained=trained,
        added=added,
        path=_path(ws, walk.id),
        segments=walk.segments,
    )
