"""Configuration: YAML files under `configs/` plus environment variables, validated, with wrong keys refused.

Four kinds of file: markets, models, strategies, and comparisons of models. A file's envelope is a pydantic model here;
the options of a source, architecture or strategy are validated by the frozen dataclass in that member's own file
(`parse_options`), so that a new member never touches this module. This module imports nothing heavy: DAG files read the
names of configs from it.

A config is named after its file. `configs/zoo` holds further models, one of each architecture, named with their folder
(`zoo/gru`), and comparisons, which are known by their key `models` and have no name: they are given as a file.

Environment: every field of `Settings` as `TRADING_<FIELD>` (for example `TRADING_ARTIFACTS_URL`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from trading_core.errors import InvalidConfigError, MissingFileError, UnknownNameError, UnreadableFileError

PROJECT_ROOT = Path(os.environ.get("TRADING_PROJECT_ROOT") or Path(__file__).resolve().parents[1])
Kind = Literal["markets", "models", "strategies"]
OptionsT = TypeVar("OptionsT")
ModelT = TypeVar("ModelT", bound=BaseModel)
NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
ZOO = "zoo"  # the folder of further model configs, and the first part of their names


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Settings(BaseSettings):
    """Where things live and who trades. Read from `TRADING_*` variables; an empty value means the default."""

    model_config = SettingsConfigDict(env_prefix="TRADING_", extra="ignore", frozen=True, env_ignore_empty=True)

    var_dir: Path = PROJECT_ROOT / "var"
    config_dir: Path = PROJECT_ROOT / "configs"
    artifacts_url: str = ""  # a folder or s3://bucket/prefix; default <var_dir>/artifacts
    ledger_url: str = ""  # sqlite:///path or dynamodb://table; default sqlite:///<var_dir>/ledger.sqlite
    tuning_url: str = ""  # where searches are kept: any URL of SQLAlchemy; default sqlite:///<var_dir>/tuning.sqlite
    mlflow_tracking_uri: str = ""  # default sqlite:///<var_dir>/mlflow/mlflow.db
    mlflow_artifacts_url: str = ""  # where MLflow keeps run artifacts; default <var_dir>/mlflow/artifacts
    market: str = "simulated"  # the market the schedules run for
    strategy: str = "top10"  # the strategy the scheduled daily trade runs
    model: str = "tft"  # the model config the training form proposes
    broker: str = "paper"
    trade_mode: Literal["", "dry", "shadow", "live"] = ""  # default: live for the paper broker, dry for a real one
    approval: bool = False  # whether the form of daily_trade proposes to ask a person before anything is sent
    trade_deadline_minutes: Annotated[int, Field(ge=1)] = 90  # an alert is sent when daily_trade takes longer
    train_where: Literal["local", "gpu_queue", "kubernetes"] = "local"
    close_delay_minutes: Annotated[int, Field(ge=0)] = 30  # feature_backfill is due this long after a session's close
    open_lead_minutes: Annotated[int, Field(ge=1)] = 30  # daily_trade is due this long before a session's open

    s3_endpoint_url: str = ""
    s3_region: str = "us-east-1"
    s3_access_key_id: SecretStr | None = None
    s3_secret_access_key: SecretStr | None = None
    dynamodb_endpoint_url: str = ""
    dynamodb_region: str = "us-east-1"

    alpaca_key_id: SecretStr | None = None
    alpaca_secret_key: SecretStr | None = None
    alpaca_url: str = ""  # in place of Alpaca's trading endpoint; see execution.alpaca_calls
    real_money: str = ""  # the name of the broker that may trade real money
    paper_faults: str = ""  # faults on purpose at the paper broker, for rehearsals; see execution.faulty

    @property
    def artifacts(self) -> str:
        return self.artifacts_url or str(self.var_dir / "artifacts")

    @property
    def ledger(self) -> str:
        return self.ledger_url or f"sqlite:///{self.var_dir / 'ledger.sqlite'}"

    @property
    def tuning(self) -> str:
        return self.tuning_url or f"sqlite:///{self.var_dir / 'tuning.sqlite'}"

    @property
    def mlflow_uri(self) -> str:
        return self.mlflow_tracking_uri or f"sqlite:///{self.var_dir / 'mlflow' / 'mlflow.db'}"

    @property
    def mlflow_artifacts(self) -> str:
        return self.mlflow_artifacts_url or str(self.var_dir / "mlflow" / "artifacts")


def read_settings() -> Settings:
    """The settings of this environment. `InvalidConfigError` names every variable that is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        problems = [
            f"TRADING_{'.'.join(map(str, e['loc'])).upper()}: {e['msg']} (given: {e['input']!r})"
            for e in error.errors()
        ]
        raise InvalidConfigError("The environment", problems) from error


class CostConfig(_Strict):
    """What trading costs in a market; see trading_core.costs.CostModel. The defaults suit liquid US shares."""

    commission_bps: Annotated[float, Field(ge=0, le=1000)] = 1.0  # of a side's notional, like the next two
    half_spread_bps: Annotated[float, Field(ge=0, le=1000)] = 2.0
    slippage_bps: Annotated[float, Field(ge=0, le=1000)] = 2.0
    impact_coefficient: Annotated[float, Field(ge=0, le=10)] = 1.0  # of the square-root law; 0: no impact
    max_participation: Annotated[float, Field(gt=0, le=1)] | None = 0.1  # of a session's volume that an order may fill
    borrow_bps_annual: Annotated[float, Field(ge=0, le=10_000)] = 50.0  # of the value of shares sold short
    interest_bps_annual: Annotated[float, Field(ge=0, le=10_000)] = 0.0  # earned on cash


class UniverseConfig(_Strict):
    """Which symbols may be forecast and traded on a session, judged with that session's past only."""

    min_history: Annotated[int, Field(ge=1)] = 60  # sessions with a bar, up to and including the decision session
    min_dollar_volume: Annotated[float, Field(ge=0)] = 0.0  # median of 20 sessions; refused unless prices are raw
    min_price: Annotated[float, Field(ge=0)] = 0.0  # of the decision session's close; refused unless prices are raw
    membership: str | None = None  # a CSV or Parquet file with symbol, from, to: who belongs to the universe when


class QualityConfig(_Strict):
    """The quality gate of a market. `checks`: severities that differ from the default (`trading quality` lists them).

    The thresholds are explained in trading_core.market.quality.rules.
    """

    checks: dict[str, Literal["block", "quarantine", "warn", "off"]] = {}
    jump: Annotated[float, Field(gt=0, le=5)] = 0.13  # log return
    jump_sigmas: Annotated[float, Field(ge=1, le=100)] = 9.0
    sigmas_per_volume: Annotated[float, Field(gt=0, le=1000)] = 8.0
    window: Annotated[int, Field(ge=20, le=60)] = 60  # bars
    reverted: Annotated[float, Field(gt=0, lt=1)] = 0.4
    gap_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    stale_closes: Annotated[int, Field(ge=2)] = 5
    universe_loss: Annotated[float, Field(gt=0, lt=1)] = 0.2


class MarketConfig(_Strict):
    """One market: it scopes every table, model name, trial and account."""

    id: Annotated[str, Field(pattern=NAME_PATTERN)]
    description: str = ""
    source: str
    calendar: str = "XNYS"
    interval: Literal["1m", "5m", "15m", "30m", "1h", "1d"] = "1d"  # only "1d" can be trained and traded
    history_start: date
    history_end: date | None = None  # set for panels that end; None: the market grows with the calendar
    fetch_symbols: Annotated[int, Field(ge=1)] = 250  # symbols that one fetch task downloads
    overlap_sessions: Annotated[int, Field(ge=0)] = 3  # stored sessions fetched again with new ones: shows corrections
    compute_sessions: Annotated[int, Field(ge=1)] = 750  # sessions that one feature task computes
    instruments: str | None = None  # a CSV or Parquet file: symbol, from, to, sector and any other column
    test_sessions: Annotated[int, Field(ge=20)] = 252  # the last ones, which no model trained by `make run` has seen
    costs: CostConfig = CostConfig()
    universe: UniverseConfig = UniverseConfig()
    quality: QualityConfig = QualityConfig()
    options: dict[str, Any] = Field(default_factory=dict)  # validated by the source's own options class


class SplitConfig(_Strict):
    """Chronological split: train | validation | test, with a purge of (longest horizon + 1) sessions at each border."""

    validation_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    embargo: Annotated[int, Field(ge=0)] = 0  # further sessions dropped after the purge
    skip_first: Annotated[int, Field(ge=0)] = 63  # first sessions of history not learned from: features still warm up


TargetName = Literal["quantiles", "direction", "classes", "volatility", "barrier", "rank"]


class ModelConfig(_Strict):
    """What is trained: features, horizons, the architecture's and the training's options."""

    model: str
    description: str = ""
    features: Annotated[list[str], Field(min_length=1)]
    horizons: Annotated[list[Annotated[int, Field(ge=1, le=63)]], Field(min_length=1)] = [1]
    encoder_length: Annotated[int, Field(ge=1, le=512)] = 20
    target_scale: Literal["volatility", "none"] = "volatility"  # label / trailing volatility known at the decision
    scaler: Literal["zscore", "robust"] = "zscore"  # mean and standard deviation, or median and interquartile range
    mask_above: Annotated[float, Field(ge=0, lt=1)] = 0.01  # missing in more of the training rows: gets a mask channel
    static: list[Literal["sector", "symbol"]] = []
    # Numeric columns of the market's instruments file, as of the session (strike distance, moneyness): read like features.
    instrument_columns: list[str] = []
    # Features and instrument columns that describe the sample rather than its path; see schema.InputSpec.
    context: list[str] = []
    targets: Annotated[list[TargetName], Field(min_length=1)] = ["quantiles"]  # see schema.Target
    score: Literal["quantiles", "direction", "rank"] = "quantiles"  # the target that strategies rank by
    class_threshold: Annotated[float, Field(ge=0, le=10)] = 0.5  # of Bear and Bull, in volatilities of the horizon
    barrier_width: Annotated[float, Field(gt=0, le=10)] = 1.0  # of the two barriers, in volatilities of the horizon
    calibration: Literal["platt", "isotonic"] = "platt"  # of the probability of a rise, on the validation part
    scope: Literal["pooled", "symbol"] = "pooled"  # symbol: a network of its own for each symbol, pooled for new ones
    ensemble: Annotated[int, Field(ge=1, le=64)] = 1  # networks trained with seed, seed + 1, ..., averaged
    # The last label that its options were chosen by (`trading tune` writes it): no session up to it is ever judged.
    selected_until: date | None = None
    split: SplitConfig = SplitConfig()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 7
    architecture: dict[str, Any] = Field(default_factory=dict)  # validated by the model's own config class
    training: dict[str, Any] = Field(default_factory=dict)  # validated by trading_core.training's TrainingConfig

    @property
    def inputs(self) -> list[str]:
        """All that is read per symbol and session: features, then instrument columns."""
        return [*self.features, *self.instrument_columns]

    @model_validator(mode="after")
    def _fits_together(self) -> ModelConfig:
        if "quantiles" not in self.targets:
            raise ValueError(
                "targets: 'quantiles' is missing; the forecasts table needs it (give it little weight in training.losses)"
            )
        if self.score not in self.targets:
            raise ValueError(f"score: '{self.score}' is none of the targets {self.targets}")
        if unknown := [name for name in self.context if name not in self.inputs]:
            raise ValueError(f"context: {unknown} are none of the features and instrument columns")
        if self.scope == "symbol" and "symbol" not in self.static:
            raise ValueError("scope: 'symbol' needs 'symbol' among the static columns")
        if both := set(self.features) & set(self.instrument_columns):
            raise ValueError(f"instrument_columns: {sorted(both)} are features too")
        return self

    @field_validator("features", "horizons", "targets", "context", "instrument_columns")
    @classmethod
    def _no_repeats(cls, value: list[Any]) -> list[Any]:
        if len(set(value)) != len(value):
            raise ValueError(f"holds repeated entries: {value}")
        return value

    @field_validator("horizons")
    @classmethod
    def _ascending(cls, value: list[int]) -> list[int]:
        return sorted(value)


class RiskConfig(_Strict):
    """Limits of portfolio.risk, then of execution.gates (asked again before each order is sent), as fractions of equity
    unless named otherwise. None: no limit; an infinite one is refused."""

    max_position: Annotated[float, Field(gt=0, le=1)] = 0.25
    max_gross: Annotated[float, Field(gt=0, le=10)] = 1.0
    max_order_notional: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e7  # in the market's currency
    restricted: list[str] = []
    max_net: Annotated[float, Field(gt=0, le=10)] | None = None  # of |long - short|
    max_names: Annotated[int, Field(ge=1)] | None = None  # positions
    max_turnover: Annotated[float, Field(gt=0, le=100)] | None = None  # sum of |notional| of a session's orders
    max_volume_share: Annotated[float, Field(gt=0, le=1)] | None = None  # of the average daily volume, for one order
    price_collar_bps: Annotated[float, Field(gt=0, le=10_000)] = 1_000.0
    max_orders_per_session: Annotated[int, Field(ge=1)] = 1_000
    max_orders_per_minute: Annotated[int, Field(ge=1)] = 600
    duplicate_window_seconds: Annotated[float, Field(gt=0, le=86_400)] = 30.0
    max_daily_loss: Annotated[float, Field(gt=0, le=1)] = 0.10
    max_drawdown: Annotated[float, Field(gt=0, le=1)] | None = None  # from the account's highest settled equity
    max_model_age_sessions: Annotated[int, Field(ge=1)] = 504  # two years since its information cut-off
    max_price_age_sessions: Annotated[int, Field(ge=0)] = 0
    max_closing_price_age_sessions: Annotated[int, Field(ge=0)] = 5


class ExecutionConfig(_Strict):
    """How a strategy's orders are sent; see execution.session.SessionPolicy."""

    order: Literal["opening", "market", "limit", "closing"] = "opening"  # what its broker offers of these
    collar_bps: Annotated[float, Field(gt=0, le=10_000)] = 100.0  # of a limit order, from its reference price
    cash_margin_bps: Annotated[float, Field(ge=0, le=10_000)] = 50.0  # of cash, kept back where buys follow the sells
    leftovers: Literal["cancel", "wait"] = "cancel"  # what is still open when a session ends


class StrategyConfig(_Strict):
    """One strategy with its parameters, horizon, capital and limits."""

    strategy: str
    description: str = ""
    horizon: Annotated[int, Field(ge=1)] = 1  # the forecast horizon it ranks by, in sessions
    capital: Annotated[float, Field(gt=0)] = 1_000_000.0  # of a new paper account, in the market's currency
    fractional: bool = True
    min_order_notional: Annotated[float, Field(ge=0)] = 1.0
    risk: RiskConfig = RiskConfig()
    execution: ExecutionConfig = ExecutionConfig()
    params: dict[str, Any] = Field(default_factory=dict)  # validated by the strategy's own parameter class


class ComparisonConfig(_Strict):
    """Several models trained, calibrated and traded alike on the same sessions of one panel file (`trading compare`)."""

    description: str = ""
    calendar: str = "XNYS"  # "24/7" for a market that never closes
    symbol: str | None = None  # the name of the only symbol of a panel without such a column
    start: date  # the first session that is learned from
    test_start: date  # the first session that is decided on without having been learned from
    costs: CostConfig = CostConfig()
    threshold: Literal["f1", "net_sharpe_annual"] = "net_sharpe_annual"  # what the traded threshold is searched for
    shared: dict[str, Any]  # keys of a model config that all models have in common
    # Further keys of each one, which win; of `architecture` and `training` key by key.
    models: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")], dict[str, Any]], Field(min_length=1)
    ]

    @model_validator(mode="after")
    def _comparable(self) -> ComparisonConfig:
        if self.start >= self.test_start:
            raise ValueError(f"start: {self.start} must lie before test_start, {self.test_start}")
        for name, own in self.models.items():
            if moved := sorted(_SAME_SAMPLES & set(own)):
                raise ValueError(
                    f"models.{name}: {', '.join(moved)}: models are compared on the same samples; see `shared`"
                )
            for key in _GROUPS:
                if any(not isinstance(values.get(key, {}), Mapping) for values in (self.shared, own)):
                    raise ValueError(f"models.{name}: {key}: it holds options, or is left out")
        self.variants()
        return self

    def variants(self) -> dict[str, ModelConfig]:
        """The config of each model. Errors: InvalidConfigError."""
        return {
            name: validate(ModelConfig, _over(self.shared, own), f"models.{name}") for name, own in self.models.items()
        }


_GROUPS = ("architecture", "training")
_SAME_SAMPLES = {"encoder_length", "horizons", "instrument_columns", "split"}


def _over(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    nested = {key: {**shared.get(key, {}), **own.get(key, {})} for key in _GROUPS}
    return {**shared, **own, **nested}


_FILES: dict[Kind, type[BaseModel]] = {"markets": MarketConfig, "models": ModelConfig, "strategies": StrategyConfig}


def _folders(kind: Kind, settings: Settings) -> list[Path]:
    """Where configs of a kind live; markets added at run time (`trading market add`) lie under var/."""
    return [settings.config_dir / kind, settings.var_dir / "configs" / kind]


def _files(kind: Kind, settings: Settings) -> dict[str, Path]:
    """Every config of a kind by name; of two files of one name the repository's counts."""
    found: dict[str, Path] = {}
    for folder in _folders(kind, settings):
        found = {path.stem: path for path in folder.glob("*.yaml")} | found
    if kind == "models":
        zoo = (settings.config_dir / ZOO).glob("*.yaml")
        found |= {f"{ZOO}/{path.stem}": path for path in zoo if not is_comparison(path)}
    return found


def is_comparison(path: Path) -> bool:
    """Whether a file compares models: whether `models` is one of its keys. It is not parsed: DAG files ask at every parse."""
    return any(line.startswith("models:") for line in path.read_text(encoding="utf-8", errors="replace").splitlines())


def names(kind: Kind, settings: Settings | None = None) -> list[str]:
    """The names of the configs of one kind, sorted: file names without `.yaml`; those of the zoo begin with `zoo/`."""
    return sorted(_files(kind, settings or read_settings()))


def path_of(kind: Kind, name: str, settings: Settings | None = None) -> Path:
    """The file of a config; `UnknownNameError` with the allowed names when there is none."""
    found = _files(kind, settings or read_settings())
    if name not in found:
        raise UnknownNameError(f"{kind[:-1] if kind != 'strategies' else 'strategy'} config", name, sorted(found))
    return found[name]


def load(kind: Kind, name: str, settings: Settings | None = None) -> Any:
    """The validated config of a kind by name: MarketConfig, ModelConfig or StrategyConfig."""
    return load_file(path_of(kind, name, settings), _FILES[kind])


def load_market(name: str, settings: Settings | None = None) -> MarketConfig:
    """A market by name. Its id is its file's name: two files with one id would share tables, models and accounts."""
    loaded: MarketConfig = load("markets", name, settings)
    require_own_id(loaded, name)
    return loaded


def require_own_id(market: MarketConfig, name: str) -> None:
    if market.id != name:
        raise InvalidConfigError(f"markets/{name}.yaml", [f"id: '{market.id}' must be the file's name, '{name}'"])


def load_model(name: str, settings: Settings | None = None) -> ModelConfig:
    return load("models", name, settings)


def load_model_file(path: Path, variant: str = "", settings: Settings | None = None) -> tuple[str, ModelConfig]:
    """A model config given as a file, and its name: that under which it is known, else its file's.

    `variant`: of a comparison, one of its models, which is named `<file>-<variant>`.
    Errors: those of `load_file`, UnknownNameError (variant), InvalidConfigError (a file name that is no name).
    """
    known = {file.resolve(): name for name, file in _files("models", settings or read_settings()).items()}
    name = known.get(path.resolve(), path.stem)
    if not re.fullmatch(r"(zoo/)?[a-z0-9][a-z0-9_-]{0,62}", name):
        allowed = "small letters, digits, - and _; the model is registered under it"
        raise InvalidConfigError(str(path), [f"the file's name '{name}' names the model: it may hold {allowed}"])
    if not path.is_file() or not is_comparison(path):
        if variant:
            raise InvalidConfigError(str(path), [f"variant: '{variant}' is asked for, but the file compares no models"])
        return name, load_file(path, ModelConfig)
    variants = load_file(path, ComparisonConfig).variants()
    if variant not in variants:
        raise UnknownNameError(f"model of the comparison '{name}'", variant, list(variants))
    return f"{name}-{variant}", variants[variant]


def load_strategy(name: str, settings: Settings | None = None) -> StrategyConfig:
    return load("strategies", name, settings)


def load_file(path: Path, model: type[ModelT]) -> ModelT:
    """Reads one YAML file into `model`. Errors: MissingFileError, UnreadableFileError, InvalidConfigError."""
    return validate(model, read_yaml(path), str(path))


def read_yaml(path: Path) -> Mapping[str, Any]:
    """The keys and values of one YAML file. Errors: MissingFileError, UnreadableFileError."""
    if not path.is_file():
        raise MissingFileError(str(path), "configuration file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UnreadableFileError(str(path), "YAML", str(error).replace("\n", " ")) from error
    if not isinstance(content, Mapping):
        raise UnreadableFileError(str(path), "a configuration", "it must be a mapping of keys to values")
    return content


def validate(model: type[ModelT], values: Mapping[str, Any], where: str) -> ModelT:
    """`values` as `model`; `InvalidConfigError` names every wrong key and value, and the allowed keys."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise InvalidConfigError(where, _problems(error, tuple(model.model_fields))) from error


def parse_options(options_type: type[OptionsT], values: Mapping[str, Any], where: str) -> OptionsT:
    """`values` as the frozen dataclass `options_type`. Unknown keys are refused with the allowed ones named.

    Values are coerced as pydantic does (YAML's `1` is a float's 1.0); a dataclass that raises ValueError in
    `__post_init__` states its own bounds.
    """
    allowed = [f.name for f in dataclasses.fields(options_type)]  # type: ignore[arg-type]
    if problems := _unknown_keys(options_type, values):
        raise InvalidConfigError(where, problems)
    try:
        return TypeAdapter(options_type).validate_python(dict(values))
    except ValidationError as error:
        raise InvalidConfigError(where, _problems(error, tuple(allowed))) from error


def _unknown_keys(options_type: Any, values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Keys that are no field, also inside fields that are dataclasses: pydantic skips them there without a word."""
    allowed = [f.name for f in dataclasses.fields(options_type)]
    known = ", ".join(allowed) or "(none)"
    problems = [f"{prefix}{key}: unknown key; allowed: {known}" for key in sorted(set(values) - set(allowed))]
    for name, kind in get_type_hints(options_type).items():
        if dataclasses.is_dataclass(kind) and isinstance(values.get(name), Mapping):
            problems += _unknown_keys(kind, values[name], f"{prefix}{name}.")
    return problems


def _problems(error: ValidationError, allowed: tuple[str, ...]) -> list[str]:
    lines = []
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"]) or "(whole)"
        if item["type"] == "extra_forbidden":
            known = f"; allowed: {', '.join(allowed)}" if len(item["loc"]) == 1 else ""
            lines.append(f"{key}: unknown key{known}")
        else:
            given = "" if item["type"] in ("missing", "dataclass_type") else f" (given: {item['input']!r})"
            lines.append(f"{key}: {item['msg']}{given}")
    return lines


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces; dataclasses, pydantic models, dates and paths are written plainly."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"))


def config_hash(value: Any, length: int = 12) -> str:
    """The first `length` hex digits of the SHA-256 of `canonical_json(value)`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return _plain(value.model_dump())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, date | Path):
        return str(value)
    return value
