"""What each input and option of a model is worth: the config trained without it, or with another value, beside itself.

docs/ablation.md explains the protocol. Every training is a cell (variant, seed) that is kept by the hash of all that determines
it, so an interrupted ablation goes on, and one that asks for more variants trains the new ones only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, get_args

from trading_core import config
from trading_core.config import ModelConfig
from trading_core.dataset.scaling import ScalerKind
from trading_core.errors import InvalidConfigError, UnknownNameError
from trading_core.features import build as features
from trading_core.pipelines import requests
from trading_core.pipelines.ablation_table import METRICS, as_csv, as_markdown, rows_of
from trading_core.pipelines.markets import require_daily
from trading_core.pipelines.panels import current_versions
from trading_core.pipelines.train import check_model_config, default_test_start
from trading_core.pipelines.workspace import Workspace
from trading_core.plots.ablation import AblationRow, ablation_page

BASE = "as it stands"
MAX_SEEDS = 100
FOLD_SESSIONS = 63  # a quarter


@dataclass(frozen=True, slots=True)
class Variants:
    """What is to be varied, one thing at a time. All empty: every feature family, and the instrument columns, left out.

    drop_families: names of families; drop: groups of features or instrument columns that are left out together. The rest:
    further values of the config's fields of these names.
    """

    drop_families: tuple[str, ...] = ()
    drop: tuple[tuple[str, ...], ...] = ()
    encoder_length: tuple[int, ...] = ()
    horizons: tuple[tuple[int, ...], ...] = ()
    target_scale: tuple[str, ...] = ()
    mask_above: tuple[float, ...] = ()
    scaler: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Variant:
    """One of the configs that are compared. `change`: the fields that differ from the config as it stands."""

    name: str
    change: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AblateRequest:
    """Everything an ablation needs. folds: 0 judges on the validation part, else on so many walk-forward blocks of
    `fold_sessions` before `test_start`, the first session that nothing is read of."""

    market: dict[str, Any]
    model_name: str
    model: dict[str, Any]
    variants: tuple[Variant, ...]  # the first one changes nothing
    seeds: tuple[int, ...]
    folds: int
    fold_sessions: int
    start: date
    test_start: date
    versions: dict[str, int]
    fingerprints: dict[str, str]
    requested_at: datetime

    def hash(self) -> str:
        """Of what determines the table."""
        parts = {**self._data(), "model": self.model, "variants": self.variants, "seeds": self.seeds}
        return config.config_hash(parts, 16)

    def cell_hash(self, model: ModelConfig) -> str:
        """Of what determines one training: its config with its seed, the data, and the decisions it is judged on."""
        return config.config_hash({**self._data(), "model": model, "horizon": self.longest_horizon}, 16)

    def _data(self) -> dict[str, Any]:
        return {
            "market": self.market["id"],
            "features": self.model["features"],  # samples are those that have any of them, in every variant
            "range": [str(self.start), str(self.test_start)],
            "folds": [self.folds, self.fold_sessions if self.folds else 0],
            "versions": self.versions,
            "fingerprints": self.fingerprints,
        }

    @property
    def base(self) -> ModelConfig:
        return config.validate(ModelConfig, self.model, f"model '{self.model_name}'")

    @property
    def longest_horizon(self) -> int:
        """Over all variants: it purges all of them, so that they learn from and are judged on the same decisions."""
        return max(max(variant.change.get("horizons", self.model["horizons"])) for variant in self.variants)


@dataclass(frozen=True, slots=True)
class AblationResult:
    """What an ablation found. Tables lie in the artifact store under these paths."""

    market: str
    model: str
    metric: str
    seeds: int
    judged_on: str
    start: date
    end: date
    csv: str
    markdown: str
    report: str
    rows: tuple[AblationRow, ...]


def prepare(
    ws: Workspace,
    *,
    model: str,
    variants: Variants,
    seeds: int,
    test_start: date | None,
    now: datetime,
    folds: int = 0,
    fold_sessions: int = FOLD_SESSIONS,
) -> AblateRequest:
    """Writes the request. seeds: how many, from the config's own on.

    Errors: ConfigError (names, values, seeds, folds), NoDataError, TooShortHistoryError.
    """
    require_daily(ws.market)
    problems = [] if 1 <= seeds <= MAX_SEEDS else [f"seeds: {seeds} is not allowed; give 1 to {MAX_SEEDS}"]
    if folds and not (2 <= folds <= 50 and fold_sessions >= 5):
        problems.append(f"{folds} folds of {fold_sessions} sessions; give 2 to 50 of at least 5, or none")
    if problems:
        raise InvalidConfigError("The ablation", problems)
    chosen = config.load_model(model, ws.settings)
    check_model_config(chosen, f"model '{model}'")
    request = AblateRequest(
        market=ws.market.model_dump(mode="json"),
        model_name=model,
        model=chosen.model_dump(mode="json"),
        variants=variants_of(chosen, variants),
        # Members of an ensemble take the seeds that follow: none is in two of them.
        seeds=tuple(range(chosen.seed, chosen.seed + seeds * chosen.ensemble, chosen.ensemble)),
        folds=folds,
        fold_sessions=fold_sessions,
        start=ws.market.history_start,
        test_start=test_start or default_test_start(ws, now),
        versions=current_versions(ws, chosen.features),
        fingerprints=features.fingerprints(chosen.features),
        requested_at=now,
    )
    requests.write_request(ws, "ablations", request)
    return request


def run(
    ws: Workspace, request: AblateRequest, now: datetime, metric: str = "rank_ic", horizon: int | None = None
) -> AblationResult:
    """Trains what is not there yet and writes the table. metric: of METRICS; horizon: default the config's shortest.

    Errors: UnknownNameError (metric), InvalidConfigError (horizon), TrainingFailedError (interrupted; cells are kept).
    """
    from trading_core.pipelines.ablate_cells import train_cells  # torch only from here on

    base = request.base
    if metric not in METRICS:
        raise UnknownNameError("metric", metric, list(METRICS))
    judged = min(base.horizons) if horizon is None else horizon
    if judged not in base.horizons:
        raise InvalidConfigError("The ablation", [f"horizon: {judged} is none of the config's {base.horizons}"])
    cells = train_cells(ws, request, now)
    rows = rows_of(cells, metric, judged)
    known = [cell for _, found, _ in cells for cell in found]
    start, end = min(cell.sessions[0] for cell in known), max(cell.sessions[-1] for cell in known)
    place = f"{request.folds} walk-forward folds" if request.folds else "the validation part"
    facts = (
        ("Market", request.market["id"]),
        ("Model", request.model_name),
        ("Metric", f"{metric}, horizon {judged}, {METRICS[metric]} is better"),
        ("Judged on", f"{place}, {start} to {end}"),
        ("Seeds", ", ".join(map(str, request.seeds))),
        ("Code", ", ".join(sorted({cell.code_version for cell in known}))),
    )
    prefix = ws.path("ablations", request.hash(), f"{metric}-{judged}")
    ws.store.write_bytes(f"{prefix}.csv", as_csv(rows).encode())
    ws.store.write_bytes(f"{prefix}.md", as_markdown(rows, facts).encode())
    ws.store.write_bytes(f"{prefix}.html", ablation_page(rows, facts))
    return AblationResult(
        market=request.market["id"],
        model=request.model_name,
        metric=metric,
        seeds=len(request.seeds),
        judged_on=place,
        start=start,
        end=end,
        csv=f"{prefix}.csv",
        markdown=f"{prefix}.md",
        report=f"{prefix}.html",
        rows=rows,
    )


# --- variants ---------------------------------------------------------------------------------------------------------


def variants_of(model: ModelConfig, wanted: Variants) -> tuple[Variant, ...]:
    """The config as it stands, then one variant for each thing that differs from it.

    Errors: UnknownNameError (a family or feature that the config does not have), InvalidConfigError (a value that is not
    allowed, or nothing left to learn from).
    """
    asked = wanted if wanted != Variants() else _everything(model)
    found = [Variant(BASE, {}), *_without(model, asked), *_with(asked)]
    kept: dict[str, Variant] = {}
    for variant in found:
        kept.setdefault(config.config_hash(with_change(model, variant.change)), variant)
    if len(kept) < 2:
        raise InvalidConfigError("The ablation", ["no variant differs from the config as it stands"])
    return tuple(kept.values())


def with_change(model: ModelConfig, change: Mapping[str, Any]) -> ModelConfig:
    """The config with other fields; what describes an input that is gone goes with it. Errors: InvalidConfigError."""
    values = {**model.model_dump(), **change}
    inputs = {*values["features"], *values["instrument_columns"]}
    values["context"] = [name for name in values["context"] if name in inputs]
    return config.validate(ModelConfig, values, "The variant")


def _everything(model: ModelConfig) -> Variants:
    families = tuple(features.families(model.features))
    columns = tuple(model.instrument_columns)
    return Variants(drop_families=families if len(families) > 1 else (), drop=(columns,) if columns else ())


def _without(model: ModelConfig, wanted: Variants) -> Iterator[Variant]:
    families = features.families(model.features)
    groups: list[tuple[str, Sequence[str]]] = []
    for family in wanted.drop_families:
        if family not in families:
            raise UnknownNameError("family of the config's features", family, sorted(families))
        groups.append((f"without {family}", families[family]))
    groups += [(f"without {', '.join(names)}", names) for names in wanted.drop]
    for title, names in groups:
        if unknown := [name for name in names if name not in model.inputs]:
            raise UnknownNameError("feature or instrument column of the config", unknown[0], model.inputs)
        kept = [name for name in model.features if name not in names]
        if not kept:
            raise InvalidConfigError("The ablation", [f"{title}: no feature is left; leave out fewer"])
        columns = [name for name in model.instrument_columns if name not in names]
        yield Variant(title, {"features": kept, "instrument_columns": columns})


def _with(wanted: Variants) -> Iterator[Variant]:
    if unknown := sorted(set(wanted.scaler) - set(get_args(ScalerKind))):
        raise UnknownNameError("scaler", unknown[0], get_args(ScalerKind))
    for field in ("encoder_length", "horizons", "target_scale", "mask_above", "scaler"):
        for value in getattr(wanted, field):
            shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
            yield Variant(f"{field} {shown}", {field: list(value) if isinstance(value, tuple) else value})
