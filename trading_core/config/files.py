"""What a config file may say: markets, models, strategies, and comparisons of models."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from trading_core.config.validation import Strict, validate

NAME_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"


class CostConfig(Strict):
    """What trading costs in a market; see trading_core.costs.CostModel. The defaults suit liquid US shares."""

    commission_bps: Annotated[float, Field(ge=0, le=1000)] = 1.0  # of a side's notional, like the next two
    half_spread_bps: Annotated[float, Field(ge=0, le=1000)] = 2.0
    slippage_bps: Annotated[float, Field(ge=0, le=1000)] = 2.0
    impact_coefficient: Annotated[float, Field(ge=0, le=10)] = 1.0  # of the square-root law; 0: no impact
    max_participation: Annotated[float, Field(gt=0, le=1)] | None = 0.1  # of a session's volume that an order may fill
    borrow_bps_annual: Annotated[float, Field(ge=0, le=10_000)] = 50.0  # of the value of shares sold short
    interest_bps_annual: Annotated[float, Field(ge=0, le=10_000)] = 0.0  # earned on cash


class UniverseConfig(Strict):
    """Which symbols may be forecast and traded on a session, judged with that session's past only."""

    min_history: Annotated[int, Field(ge=1)] = 60  # sessions with a bar, up to and including the decision session
    min_dollar_volume: Annotated[float, Field(ge=0)] = 0.0  # median of 20 sessions; refused unless prices are raw
    min_price: Annotated[float, Field(ge=0)] = 0.0  # of the decision session's close; refused unless prices are raw
    membership: str | None = None  # a CSV or Parquet file with symbol, from, to: who belongs to the universe when


class QualityConfig(Strict):
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


class MarketConfig(Strict):
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


class SplitConfig(Strict):
    """Chronological split: train | validation | test, with a purge of (longest horizon + 1) sessions at each border."""

    validation_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    embargo: Annotated[int, Field(ge=0)] = 0  # further sessions dropped after the purge
    skip_first: Annotated[int, Field(ge=0)] = 63  # first sessions of history not learned from: features still warm up


TargetName = Literal["quantiles", "direction", "classes", "volatility", "barrier", "rank"]


class ModelConfig(Strict):
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


class RiskConfig(Strict):
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


class ExecutionConfig(Strict):
    """How a strategy's orders are sent; see execution.session.SessionPolicy."""

    order: Literal["opening", "market", "limit", "closing"] = "opening"  # what its broker offers of these
    collar_bps: Annotated[float, Field(gt=0, le=10_000)] = 100.0  # of a limit order, from its reference price
    cash_margin_bps: Annotated[float, Field(ge=0, le=10_000)] = 50.0  # of cash, kept back where buys follow the sells
    leftovers: Literal["cancel", "wait"] = "cancel"  # what is still open when a session ends


class StrategyConfig(Strict):
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


class ComparisonConfig(Strict):
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
