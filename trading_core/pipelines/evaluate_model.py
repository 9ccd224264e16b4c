"""One registered version judged as a forecaster: its forecasts of sessions after its cut-off against what came."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date, datetime

import polars as pl

from trading_core import config
from trading_core.config import ModelConfig
from trading_core.errors import InvalidConfigError, NoDataError, NoModelError
from trading_core.market.source import ACTION_SCHEMA, BAR_SCHEMA
from trading_core.pipelines import evaluations, quality, trials
from trading_core.pipelines.infer import find_version, infer_with
from trading_core.pipelines.skill import HorizonSkill, horizon_skill, realised_returns
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


@dataclass(frozen=True, slots=True)
class ModelEvaluation:
    """`start` .. `end`: decision sessions, all after `cutoff`. computed: of `forecasts`, those that were not stored before."""

    market: str
    model: str
    version: int
    cutoff: date
    start: date
    end: date
    forecasts: int
    computed: int
    horizons: tuple[HorizonSkill, ...]


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

    model, given: see `choose_version`. Stored forecasts are read, missing ones computed and stored. The figures go to the
    `evaluations` table (again when run again), and the shortest horizon's rank IC to the trials.
    Errors: those of `choose_version` and `infer.infer_with`, LookAheadError for a session that is not after the cut-off,
    NoDataError when nothing that was forecast has come yet.
    """
    chosen = choose_version(ws, model, given)
    ref = infer_with(ws, chosen, start=start, end=end, run_id=run_id)
    where = Predicate(ref.start, ref.end, {"model_version": str(chosen.version)})
    found = ws.tables.read(FORECASTS.name, where=where, version=ref.table_version)
    made = ModelEvaluation(
        market=ws.market.id,
        model=chosen.model,
        version=chosen.version,
        cutoff=chosen.cutoff,
        start=ref.start,
        end=ref.end,
        forecasts=ref.rows,
        computed=ref.added,
        horizons=_judged(ws, found),
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


def _judged(ws: Workspace, found: pl.DataFrame) -> tuple[HorizonSkill, ...]:
    """Per horizon, against the prices that are stored now."""
    horizons = sorted(found["horizon"].unique().to_list())
    bars = ws.tables.read(BARS.name).select(*BAR_SCHEMA)
    actions = ws.tables.read(CORPORATE_ACTIONS.name).select(*ACTION_SCHEMA)
    last = ws.tables.last_session(BARS.name)
    suspected = quality.suspected_actions(ws, {}, last) if last else bars.select(SYMBOL, SESSION).clear()
    labels = realised_returns(bars, actions, horizons, suspected)
    joined = found.join(labels, on=[SYMBOL, SESSION, "horizon"], how="inner").sort(SESSION, SYMBOL)
    if joined.is_empty():
        way_out = "Backfill later sessions, or choose earlier ones."
        raise NoDataError("What these forecasts are about has not come yet: no label is known", way_out)
    return tuple(_skill(horizon, joined.filter(pl.col("horizon") == horizon)) for horizon in horizons)


def _skill(horizon: int, rows: pl.DataFrame) -> HorizonSkill:
    score, p_up, label = (rows[name].to_numpy() for name in ("score", "p_up", "label"))
    day = rows[SESSION].to_numpy().astype("datetime64[D]")
    return horizon_skill(horizon, score, rows.select(QUANTILE_COLUMNS).to_numpy(), p_up, label, day)


def _record(ws: Workspace, made: ModelEvaluation, now: datetime) -> None:
    evaluation_id = config.config_hash([made.market, made.version, str(made.start), str(made.end), "model"], 16)
    lines = [
        (f"forecasts h{row.horizon}", metric, float(value))
        for row in made.horizons
        for metric, value in asdict(row).items()
        if metric != "horizon"
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
