"""Where things live and who trades: the environment, validated."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from trading_core.errors import InvalidConfigError

PROJECT_ROOT = Path(os.environ.get("TRADING_PROJECT_ROOT") or Path(__file__).resolve().parents[2])


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
    alpaca_data_url: str = ""  # in place of Alpaca's market data endpoint
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
