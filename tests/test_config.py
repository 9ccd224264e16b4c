"""Configuration: what is taken, what is refused, and in which words."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from trading_core import config
from trading_core.config import ComparisonConfig, CostConfig, MarketConfig, ModelConfig, Settings, StrategyConfig
from trading_core.errors import (
    ConfigError,
    InvalidConfigError,
    MissingFileError,
    UnknownNameError,
    UnreadableFileError,
)

REPOSITORY = Path(__file__).resolve().parents[1]
MARKET = {"id": "m", "source": "simulated", "history_start": "2020-01-02"}
MODEL = {"model": "lstm", "features": ["log_ret", "rsi_14"]}
STRATEGY = {"strategy": "top_k"}
KINDS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "market": (MarketConfig, MARKET),
    "model": (ModelConfig, MODEL),
    "strategy": (StrategyConfig, STRATEGY),
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [key for key in os.environ if key.startswith("TRADING_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TRADING_VAR_DIR", str(tmp_path / "var"))


def problems(model: type[Any], values: dict[str, Any]) -> str:
    with pytest.raises(InvalidConfigError) as caught:
        config.validate(model, values, "the test")
    assert str(caught.value).startswith("the test is not valid:")
    return "\n".join(caught.value.problems)


# --- files ------------------------------------------------------------------------------------------------------------


def test_every_file_in_configs_is_valid_to_its_last_option() -> None:
    from trading_core.pipelines.check import check_all

    rows = check_all(Settings())
    files = sorted(str(path) for path in (REPOSITORY / "configs").glob("*/*.yaml"))
    assert sorted(row["file"] for row in rows) == files
    assert {row["kind"] for row in rows} == {"market", "model", "strategy", "comparison"}
    assert [f"{row['file']}: {row['problem']}" for row in rows if not row["valid"]] == []


def test_no_yaml_file_lies_where_it_is_not_checked() -> None:
    stray = [
        path
        for path in (REPOSITORY / "configs").rglob("*.y*ml")
        if path.parent.name not in ("markets", "models", "strategies", "zoo", "templates")
    ]
    assert stray == []
    assert list((REPOSITORY / "configs").rglob("*.yml")) == []


def test_the_zoo_has_one_file_of_each_architecture_that_fits_what_it_reads() -> None:
    """All read the same thirty features of the same windows, so that they can be compared; each builds its network."""
    from trading_core.models.registry import MODELS
    from trading_core.schema import InputSpec, Target

    loaded = {name: config.load_model(name) for name in config.names("models") if name.startswith("zoo/")}
    assert sorted(loaded) == sorted(f"zoo/{name}" for name in MODELS)
    assert all(name == f"zoo/{model.model}" for name, model in loaded.items())
    shared = {
        (tuple(model.features), tuple(model.horizons), model.encoder_length, model.seed) for model in loaded.values()
    }
    assert len(shared) == 1
    assert len(next(iter(shared))[0]) == 30
    for model in loaded.values():
        entry = MODELS[model.model]
        options = config.parse_options(entry.config, model.architecture, model.model)
        targets, score = tuple(Target(name) for name in model.targets), Target(model.score)
        cardinalities = tuple(5 for _ in model.static)
        inputs = (tuple(model.features), model.encoder_length, tuple(model.horizons), cardinalities)
        entry.build(options, InputSpec(*inputs, targets=targets, score=score, context=tuple(model.context)))


def test_a_name_of_the_zoo_begins_with_its_folder_and_a_comparison_has_none() -> None:
    assert config.path_of("models", "zoo/gru") == REPOSITORY / "configs" / "zoo" / "gru.yaml"
    assert config.path_of("models", "tft") == REPOSITORY / "configs" / "models" / "tft.yaml"
    assert config.load_model("zoo/tft") != config.load_model("tft")
    assert "zoo/btc_direction" not in config.names("models")
    assert [name for kind in ("markets", "strategies") for name in config.names(kind) if "/" in name] == []  # type: ignore[arg-type]
    for name in ("zoo/../models/tft", "zoo/", "gru", "zoo/btc_direction"):
        with pytest.raises(UnknownNameError):
            config.path_of("models", name)


def test_a_model_given_as_a_file_is_named_as_it_is_known_or_after_its_file(tmp_path: Path) -> None:
    zoo, own = REPOSITORY / "configs" / "zoo", tmp_path / "my_lstm.yaml"
    own.write_text("model: lstm\nfeatures: [log_ret]\n")
    assert config.load_model_file(zoo / "gru.yaml") == ("zoo/gru", config.load_model("zoo/gru"))
    assert config.load_model_file(zoo / ".." / "models" / "tft.yaml") == ("tft", config.load_model("tft"))
    assert config.load_model_file(own) == ("my_lstm", config.load_file(own, ModelConfig))
    name, model = config.load_model_file(zoo / "btc_direction.yaml", "transformer-cls")
    assert (name, model.model, model.architecture["pooling"]) == ("btc_direction-transformer-cls", "transformer", "cls")
    with pytest.raises(UnknownNameError, match=r"model of the comparison 'btc_direction' 'lstn'\. Did you mean 'lstm'"):
        config.load_model_file(zoo / "btc_direction.yaml", "lstn")
    with pytest.raises(MissingFileError):
        config.load_model_file(tmp_path / "nowhere.yaml")
    spaced = tmp_path / "My LSTM.yaml"
    spaced.write_text(own.read_text())
    with pytest.raises(InvalidConfigError, match="the file's name 'My LSTM' names the model"):
        config.load_model_file(spaced)


def test_a_market_file_is_named_after_its_id() -> None:
    for name in config.names("markets"):
        assert config.load_market(name).id == name


def test_names_are_the_files_of_both_folders_sorted(tmp_path: Path) -> None:
    added = tmp_path / "var" / "configs" / "strategies"
    added.mkdir(parents=True)
    (added / "a-new-one.yaml").write_text("strategy: top_k\n")
    (added / "notes.txt").write_text("not a config")
    in_repository = sorted(path.stem for path in (REPOSITORY / "configs" / "strategies").glob("*.yaml"))
    assert config.names("strategies") == ["a-new-one", *in_repository]
    assert config.load_strategy("a-new-one").strategy == "top_k"


def test_the_repository_wins_over_a_file_added_later(tmp_path: Path) -> None:
    added = tmp_path / "var" / "configs" / "strategies"
    added.mkdir(parents=True)
    (added / "top10.yaml").write_text("strategy: something_else\n")
    assert config.load_strategy("top10").strategy == "top_k"
    assert config.names("strategies").count("top10") == 1


@pytest.mark.parametrize(("kind", "word"), [("markets", "market"), ("models", "model"), ("strategies", "strategy")])
def test_an_unknown_name_is_answered_with_the_allowed_ones(kind: Any, word: str) -> None:
    allowed = config.names(kind)
    with pytest.raises(UnknownNameError) as caught:
        config.load(kind, allowed[0] + "x")
    assert f"Unknown {word} config '{allowed[0]}x'. Did you mean '{allowed[0]}'?" in str(caught.value)
    assert all(name in str(caught.value) for name in allowed)


@pytest.mark.parametrize("name", ["../models/tft", "/etc/passwd", "..", ""])
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(UnknownNameError):
        config.load("strategies", name)


@pytest.mark.parametrize(
    ("content", "message"),
    [("a: [1", "cannot be read as YAML"), ("- a\n- b\n", "must be a mapping"), ("", "must be a mapping")],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(content)
    with pytest.raises(UnreadableFileError, match=message):
        config.load_file(path, StrategyConfig)


def test_yaml_cannot_make_objects(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("strategy: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(UnreadableFileError):
        config.load_file(path, StrategyConfig)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"nowhere\.yaml"):
        config.load_file(tmp_path / "nowhere.yaml", StrategyConfig)


# --- wrong keys and values --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_least_of_each_kind_is_valid_and_frozen(kind: str) -> None:
    model, values = KINDS[kind]
    loaded = config.validate(model, values, "the test")
    with pytest.raises(ValueError, match="frozen"):
        loaded.description = "changed"


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_key_is_refused_with_the_allowed_ones(kind: str) -> None:
    model, values = KINDS[kind]
    text = problems(model, {**values, "colour": "red"})
    assert "colour: unknown key; allowed: " in text
    assert all(name in text for name in model.model_fields)


def test_a_wrong_key_further_down_is_named_with_its_path() -> None:
    assert "costs.comission_bps: unknown key" in problems(MarketConfig, {**MARKET, "costs": {"comission_bps": 1}})
    assert "risk.max_leverage: unknown key" in problems(StrategyConfig, {**STRATEGY, "risk": {"max_leverage": 2}})


def test_all_problems_are_told_at_once() -> None:
    text = problems(ModelConfig, {"features": [], "seed": -1, "colour": 1})
    assert [word for word in ("model:", "features:", "seed:", "colour:") if word not in text] == []


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("market", "id", "Has Capitals"),
        ("market", "id", "../escape"),
        ("market", "history_start", "someday"),
        ("market", "interval", "2m"),
        ("market", "test_sessions", 5),
        ("market", "fetch_symbols", 0),
        ("market", "costs", {"commission_bps": -1}),
        ("market", "universe", {"min_history": 0}),
        ("model", "features", []),
        ("model", "features", ["rsi_14", "rsi_14"]),
        ("model", "horizons", [0]),
        ("model", "horizons", [1, 1]),
        ("model", "horizons", [64]),
        ("model", "encoder_length", 0),
        ("model", "target_scale", "log"),
        ("model", "static", ["country"]),
        ("model", "seed", 2**31),
        ("model", "split", {"validation_fraction": 0.5}),
        ("strategy", "horizon", 0),
        ("strategy", "capital", 0),
        ("strategy", "capital", "plenty"),
        ("strategy", "risk", {"max_position": 1.5}),
        ("strategy", "risk", {"max_gross": 0}),
        ("strategy", "risk", {"max_names": 0}),
        ("strategy", "risk", {"max_order_notional": float("inf")}),
        ("strategy", "risk", {"max_daily_loss": 0}),
        ("strategy", "min_order_notional", -1),
    ],
)
def test_a_wrong_value_is_refused_with_its_key_and_what_was_given(kind: str, key: str, value: Any) -> None:
    model, values = KINDS[kind]
    text = problems(model, {**values, key: value})
    assert text.startswith(key)
    assert "(given: " in text


# --- comparisons ------------------------------------------------------------------------------------------------------

COMPARISON: dict[str, Any] = {
    "start": "2018-01-01",
    "test_start": "2023-01-01",
    "shared": {"features": ["log_ret"], "seed": 3, "training": {"epochs": 5, "patience": 2}},
    "models": {
        "one": {"model": "lstm", "training": {"epochs": 9}, "architecture": {"layers": 2}},
        "two": {"model": "linear", "features": ["log_ret", "rsi_14"]},
    },
}


def test_the_models_of_a_comparison_have_what_is_shared_and_what_is_theirs() -> None:
    one, two = config.validate(ComparisonConfig, COMPARISON, "the test").variants().values()
    assert (one.model, one.features, one.seed) == ("lstm", ["log_ret"], 3)
    assert one.training == {"epochs": 9, "patience": 2}
    assert one.architecture == {"layers": 2}
    assert (two.model, two.features) == ("linear", ["log_ret", "rsi_14"])
    assert two.training == {"epochs": 5, "patience": 2}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"start": "2023-01-01"}, "start: 2023-01-01 must lie before test_start"),
        ({"models": {}}, "models: "),
        ({"models": {"One": {"model": "lstm"}}}, "models.One"),
        (
            {"models": {"one": {"model": "lstm", "encoder_length": 3}}},
            "models.one: encoder_length: models are compared",
        ),
        ({"models": {"one": {"model": "lstm", "colour": 3}}}, "colour: unknown key"),
        (
            {"models": {"one": {"model": "lstm", "training": None}}},
            "models.one: training: it holds options, or is left",
        ),
        ({"threshold": "luck"}, "threshold: "),
    ],
)
def test_a_comparison_that_compares_unlike_things_is_refused(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidConfigError) as caught:
        config.validate(ComparisonConfig, {**COMPARISON, **changes}, "the test")
    assert text in str(caught.value)


def test_a_variant_of_a_file_that_compares_nothing_is_refused() -> None:
    with pytest.raises(InvalidConfigError, match="variant: 'lstm' is asked for, but the file compares no models"):
        config.load_model_file(REPOSITORY / "configs" / "zoo" / "lstm.yaml", "lstm")


def test_the_bitcoin_comparison_asks_what_was_asked_for() -> None:
    found = config.load_file(REPOSITORY / "configs" / "zoo" / "btc_direction.yaml", ComparisonConfig)
    thirteen = "log_ret vol_20 rsi_14 macd macd_signal macd_hist ret_1 ret_3 ret_7 ret_14 dow dow_sin dow_cos"
    assert found.shared["features"] == thirteen.split()
    assert (found.calendar, found.start, found.test_start) == ("24/7", date(2018, 1, 1), date(2023, 1, 1))
    costs = {name: value for name, value in found.costs.model_dump().items() if value}
    assert costs == {"commission_bps": 10.0}
    variants = found.variants()
    assert [model.model for model in variants.values()] == [
        "base_rate", "sma_cross", "logistic", "lightgbm", "lstm", "transformer", "transformer",
    ]  # fmt: skip
    assert {v.architecture.get("pooling") for v in variants.values()} == {None, "mean", "cls"}
    for model in variants.values():
        assert (model.encoder_length, model.horizons, model.score) == (64, [1], "direction")
        assert model.split.validation_fraction == 0.1


def test_horizons_are_sorted() -> None:
    assert config.validate(ModelConfig, {**MODEL, "horizons": [5, 1]}, "the test").horizons == [1, 5]


# --- options of a member ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    size: int = 4
    rate: float = 0.5
    start: date = date(2020, 1, 2)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size is {self.size}; it must be at least 1")


def test_options_are_coerced_as_yaml_means_them() -> None:
    made = config.parse_options(Options, {"rate": 1, "start": "2021-01-04"}, "options")
    assert made == Options(4, 1.0, date(2021, 1, 4))
    assert isinstance(made.rate, float)
    assert config.parse_options(Options, {}, "options") == Options()


def test_unknown_options_are_refused_with_the_allowed_ones() -> None:
    with pytest.raises(InvalidConfigError) as caught:
        config.parse_options(Options, {"sise": 3, "rat": 1}, "options of x")
    assert list(caught.value.problems) == [
        "rat: unknown key; allowed: size, rate, start",
        "sise: unknown key; allowed: size, rate, start",
    ]
    assert caught.value.where == "options of x"


def test_the_bounds_of_an_options_class_are_told() -> None:
    with pytest.raises(InvalidConfigError, match="size is 0; it must be at least 1"):
        config.parse_options(Options, {"size": 0}, "options")
    with pytest.raises(InvalidConfigError, match=r"rate: .*\(given: 'fast'\)"):
        config.parse_options(Options, {"rate": "fast"}, "options")


# --- environment ------------------------------------------------------------------------------------------------------


def test_defaults_lie_under_the_var_folder(tmp_path: Path) -> None:
    var, settings = tmp_path / "var", Settings()
    assert settings.config_dir == REPOSITORY / "configs"
    assert settings.artifacts == str(var / "artifacts")
    assert settings.ledger == f"sqlite:///{var / 'ledger.sqlite'}"
    assert settings.mlflow_uri == f"sqlite:///{var / 'mlflow' / 'mlflow.db'}"
    assert settings.mlflow_artifacts == str(var / "mlflow" / "artifacts")
    assert settings.broker == "paper"
    assert settings.market in config.names("markets", settings)
    assert settings.model in config.names("models", settings)
    assert settings.strategy in config.names("strategies", settings)


def test_the_environment_sets_every_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADING_ARTIFACTS_URL", "s3://bucket/prefix")
    monkeypatch.setenv("TRADING_LEDGER_URL", "dynamodb://table")
    monkeypatch.setenv("TRADING_OPEN_LEAD_MINUTES", "5")
    monkeypatch.setenv("TRADING_TRAIN_WHERE", "kubernetes")
    settings = Settings()
    assert settings.artifacts == "s3://bucket/prefix"
    assert settings.ledger == "dynamodb://table"
    assert settings.open_lead_minutes == 5
    assert settings.train_where == "kubernetes"


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name != "var_dir"])
def test_an_empty_variable_means_the_default(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before = Settings()
    monkeypatch.setenv(f"TRADING_{name.upper()}", "")
    assert getattr(Settings(), name) == getattr(before, name)


def test_secrets_are_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRADING_S3_SECRET_ACCESS_KEY", "hush-hush")
    settings = Settings()
    assert settings.s3_secret_access_key is not None
    assert settings.s3_secret_access_key.get_secret_value() == "hush-hush"
    assert "hush" not in repr(settings)
    assert "hush" not in str(settings.model_dump())


@pytest.mark.parametrize(
    ("name", "value"), [("OPEN_LEAD_MINUTES", "0"), ("OPEN_LEAD_MINUTES", "soon"), ("TRAIN_WHERE", "moon")]
)
def test_a_wrong_variable_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"TRADING_{name}", value)
    with pytest.raises((ValueError, ConfigError), match=name.lower()):
        Settings()


# --- hashes -----------------------------------------------------------------------------------------------------------


def test_canonical_json_is_plain_and_sorted() -> None:
    value = {"b": Options(), "a": (1, 2.5, None), "c": CostConfig(), "d": date(2026, 11, 27), "e": Path("x/y")}
    assert config.canonical_json(value) == (
        '{"a":[1,2.5,null],"b":{"rate":0.5,"size":4,"start":"2020-01-02"},'
        '"c":{"borrow_bps_annual":50.0,"commission_bps":1.0,"half_spread_bps":2.0,"impact_coefficient":1.0,'
        '"interest_bps_annual":0.0,"max_participation":0.1,"slippage_bps":2.0},"d":"2026-11-27","e":"x/y"}'
    )


def test_the_hash_is_that_of_the_canonical_json() -> None:
    # printf '{"a":1}' | sha256sum
    assert config.config_hash({"a": 1}) == "015abd7f5cc5"
    assert config.config_hash({"b": 1, "a": 2}) == config.config_hash({"a": 2, "b": 1})
    assert config.config_hash({"a": 1}) != config.config_hash({"a": 2})
    assert len(config.config_hash("x", 20)) == 20


def test_an_unknown_key_inside_an_option_is_named() -> None:
    from trading_core.training.config import TrainingConfig

    given = {"epochs": 3, "losses": {"quantile": 1.0, "quantiles": 5.0}}
    with pytest.raises(InvalidConfigError, match=r"losses\.quantiles: unknown key; allowed: quantile, ic, direction"):
        config.parse_options(TrainingConfig, given, "training of 'x'")
