"""One registered version judged as a forecaster: its forecasts of sessions after its cut-off against what came."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING

import polars as pl

from trading_core import config
from trading_core.config import ModelConfig
from trading_core.dataset.panel import Panel
from trading_core.errors import InvalidConfigError, NoDataError, NoModelError
from trading_core.market.source import ACTION_SCHEMA, BAR_SCHEMA
from trading_core.pipelines import evaluations, quality, trials
from trading_core.pipelines.infer import find_version, infer_with
from trading_core.pipelines.refs import Real
from trading_core.pipelines.skill import HorizonSkill, horizon_skill, priced, realised_returns
from trading_core.pipelines.stored_skill import (
    ClassRow,
    IntervalRow,
    OneClassRow,
    class_rows,
    find_break,
    interval_rows,
)
from trading_core.pipelines.workspace import Workspace
from trading_core.registry.mlflow_registry import ModelVersion
from trading_core.schema import (
    BARS,
    CORPORATE_ACTIONS,
    FORECASTS,
    QUANTILE_COLUMNS,
    SESSION,
    SYMBOL,
)
from trading_core.storage.predicate import Predicate

if TYPE_CHECKING:
    from trading_core.registry.bundle import ModelCard


@dataclass(frozen=True, slots=True)
class ModelEvaluation:
    """`start` .. `end`: decision sessions, all after `cutoff`. computed: of `forecasts`, those that were not stored before.

    break_session and the volatilities: see stored_skill.VarianceBreak; null where nothing moved. classes: of each target
    with classes that the model has.
    """

    market: str
    model: str
    version: int
    cutoff: date
    start: date
    end: date
    forecasts: int
    computed: int
    break_session: date | None
    volatility_before: Real
    volatility_after: Real
    horizons: tuple[HorizonSkill, ...]
    intervals: tuple[IntervalRow, ...]
    classes: tuple[ClassRow, ...]
    each_class: tuple[OneClassRow, ...]


def evaluate_model(
    ws: Workspace,
    *,
    model: str,
    given: ModelConfig | None,
    start: date | None,
    end: date | None,
    run_id: str,
    now: datetime,
) -> ModelEvaluation:
    """The skill of one version on the sessions start..end (default: all after its cut-off that have features).

    Of the forecasts, and of the intervals and probabilities that are stored with them.

    model, given: see `choose_version`. Stored forecasts are read, missing ones computed and stored. The figures go to the
    `evaluations` table (again when run again), and the shortest horizon's rank IC to the trials.
    Errors: those of `choose_version` and `infer.infer_with`, LookAheadError for a session that is not after the cut-off,
    NoDataError when nothing that was forecast has come yet.
    """
    chosen = choose_version(ws, model, given)
    ref = infer_with(ws, chosen, start=start, end=end, run_id=run_id)
    where = Predicate(ref.start, ref.end, {"model_version": str(chosen.version)})
    found = ws.tables.read(FORECASTS.name, where=where, version=ref.table_version)
    panel = _panel(ws)
    judged = _labelled(panel, found)
    card = _card(ws, chosen)
    broke = find_break(panel, judged)
    classes, each_class = class_rows(card, panel, judged)
    made = ModelEvaluation(
        market=ws.market.id,
        model=chosen.model,
        version=chosen.version,
        cutoff=chosen.cutoff,
        start=ref.start,
        end=ref.end,
        forecasts=ref.rows,
        computed=ref.added,
        break_session=broke.session if broke else None,
        volatility_before=broke.volatility_before if broke else math.nan,
        volatility_after=broke.volatility_after if broke else math.nan,
        horizons=tuple(_skill(h, judged.filter(pl.col("horizon") == h)) for h in card.spec.horizons),
        intervals=interval_rows(card, panel, judged, broke),
        classes=classes,
        each_class=each_class,
    )
    _record(ws, made, now)
    return made


def choose_version(ws: Workspace, model: str, given: ModelConfig | None) -> ModelVersion:
    """`NAME@ALIAS`, `NAME@NUMBER`, or `NAME` for its newest version; with a config (and perhaps no name) only what was
    trained with it, the newest where the version is not said.

    Errors: NoModelError, InvalidConfigError (the version has another name, or was trained with another config).
    """
    name, at, wanted = model.rpartition("@")
    name = name if at else model
    if at:
        chosen = find_version(ws, wanted)
        if name and chosen.model != name:
            problem = f"version {chosen.version} of market '{ws.market.id}' is a '{chosen.model}'; say {chosen.model}@{wanted}"
            raise InvalidConfigError(f"The model '{model}'", [problem])
        if given is not None and _config_hash(ws, chosen) != config.config_hash(given):
            problem = f"version {chosen.version} was trained with other values than the config given"
            raise InvalidConfigError(f"The model '{model}'", [f"{problem}; train it with `trading train --config`"])
        return chosen
    if not name and given is None:
        raise InvalidConfigError("The model", ["say NAME@ALIAS, NAME@NUMBER or NAME, or give a config"])
    for version in reversed(ws.registry().list(ws.market.id)):
        fits = given is None or _config_hash(ws, version) == config.config_hash(given)
        if fits and name in ("", version.model):
            return version
    raise NoModelError(ws.market.id, f"'{name}'" if name else "that was trained with the config given")


def _config_hash(ws: Workspace, version: ModelVersion) -> str:
    card = ws.store.read_json(f"{ws.store.path_of(version.bundle_uri)}/config.json")
    return str(card["config_hash"])


def _card(ws: Workspace, version: ModelVersion) -> ModelCard:
    from trading_core.registry.bundle import load_card

    return load_card(ws.store, ws.store.path_of(version.bundle_uri), version.digest)


def _panel(ws: Workspace) -> Panel:
    """The prices that are stored now."""
    bars = ws.tables.read(BARS.name).select(*BAR_SCHEMA)
    actions = ws.tables.read(CORPORATE_ACTIONS.name).select(*ACTION_SCHEMA)
    last = ws.tables.last_session(BARS.name)
    suspected = quality.suspected_actions(ws, {}, last) if last else bars.select(SYMBOL, SESSION).clear()
    return priced(bars, actions, suspected)


def _labelled(panel: Panel, found: pl.DataFrame) -> pl.DataFrame:
    """The forecasts whose label is known, with it. Errors: NoDataError when there are none."""
    labels = realised_returns(panel, sorted(found["horizon"].unique().to_list()))
    joined = found.join(labels, on=[SYMBOL, SESSION, "horizon"], how="inner").sort(SESSION, SYMBOL)
    if joined.is_empty():
        way_out = "Backfill later sessions, or choose earlier ones."
        raise NoDataError("What these forecasts are about has not come yet: no label is known", way_out)
    return joined


def _skill(horizon: int, rows: pl.DataFrame) -> HorizonSkill:
    score, p_up, label = (rows[name].to_numpy() for name in ("score", "p_up", "label"))
    day = rows[SESSION].to_numpy().astype("datetime64[D]")
    return horizon_skill(horizon, score, rows.select(QUANTILE_COLUMNS).to_numpy(), p_up, label, day)


def _record(ws: Workspace, made: ModelEvaluation, now: datetime) -> None:
    evaluation_id = config.config_hash([made.market, made.version, str(made.start), str(made.end), "model"], 16)
    subjects: list[tuple[str, HorizonSkill | IntervalRow | ClassRow | OneClassRow]] = [
        *((f"forecasts h{row.horizon}", row) for row in made.horizons),
        *((f"{row.interval} interval h{row.horizon}", row) for row in made.intervals),
        *((f"{row.target} h{row.horizon}", row) for row in made.classes),
        *((f"{one.target} {one.name} h{one.horizon}", one) for one in made.each_class),
    ]
    lines = [
        (subject, metric, float(value))
        for subject, row in subjects
        for metric, value in asdict(row).items()
        if metric != "horizon" and isinstance(value, int | float)
    ]
    evaluations.record(
        ws, evaluation_id, lines, model_version=str(made.version), start=made.start, end=made.end, now=now
    )
    trials.record(
        ws,
        kind="model",
        subject=made.model,
        config_hash=f"v{made.version}",
        metric="rank_ic",
        value=float(made.horizons[0].rank_ic),
        start=made.start,
        end=made.end,
        source=evaluation_id,
        now=now,
    )
