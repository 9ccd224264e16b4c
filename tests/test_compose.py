"""docker-compose.yaml, Dockerfile and .env.example, checked as far as that goes without a Docker engine.

What the containers would run is held against the programs themselves: every Airflow variable against Airflow's own list of
options, every command against Airflow's and MLflow's own parsers. The init script and the MLflow server are really run, with
SQLite and a moto S3 server in place of PostgreSQL and MinIO.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
REFERENCE = re.compile(r"(?<!\$)\$\{([A-Z_]+)(?:(:[-?])([^}]*))?\}")  # $${X} is a plain ${X} for the shell inside
SERVICES = {
    *("airflow-apiserver", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer", "airflow-worker"),
    *("airflow-worker-gpu", "airflow-init", "mlflow", "postgres", "redis", "minio", "dynamodb"),
}
OURS = {name for name in SERVICES if name.startswith("airflow")} | {"mlflow"}
# Of the Compose specification, what this file uses; a misspelt key fails here as it would in Docker Compose.
SERVICE_KEYS = {
    *(
        "image",
        "build",
        "pull_policy",
        "init",
        "restart",
        "security_opt",
        "environment",
        "volumes",
        "depends_on",
        "command",
    ),
    *("ports", "healthcheck", "stop_grace_period", "profiles", "shm_size", "deploy", "configs", "user"),
}
HEALTH_KEYS = {"test", "interval", "timeout", "retries", "start_period"}
SECRET_NAME = re.compile(r"PASSWORD|SECRET|FERNET|JWT|_KEY|ACCESS_KEY|AUTH$")
NO_SECRETS = {
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",  # a path
    "AIRFLOW__EXECUTION_API__JWT_EXPIRATION_TIME",  # a number
}


@pytest.fixture(scope="module")
def text() -> str:
    return (REPOSITORY / "docker-compose.yaml").read_text()


@pytest.fixture(scope="module")
def compose(text: str) -> dict[str, Any]:
    return yaml.safe_load(text)


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return compose["services"]


def filled(text: str, values: Mapping[str, str]) -> str:
    """`text` as Compose would interpolate it with `values` in .env."""

    def value(found: re.Match[str]) -> str:
        name, operator, rest = found.groups()
        if values.get(name):
            return values[name]
        assert operator == ":-", f"{name} is required"
        return rest

    return REFERENCE.sub(value, text.replace("$$", "\0")).replace("\0", "$")


def as_list(command: str | list[str]) -> list[str]:
    return command.split() if isinstance(command, str) else command


def script(services: dict[str, dict[str, Any]]) -> str:
    """The shell script of airflow-init, as bash gets it."""
    return services["airflow-init"]["command"][-1].replace("$$", "$")


def environments(services: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Every variable of every service; one value each, or the services would disagree."""
    found: dict[str, str] = {}
    for service in services.values():
        for name, value in service.get("environment", {}).items():
            if name.startswith(("AIRFLOW__", "TRADING_")):
                assert found.setdefault(name, value) == value, name
    return found


# --- shape ------------------------------------------------------------------------------------------------------------


def test_services_and_their_keys(compose: dict[str, Any], services: dict[str, dict[str, Any]]) -> None:
    assert set(services) == SERVICES
    assert {key for key in compose if not key.startswith("x-")} == {"name", "services", "configs", "volumes"}
    for name, service in services.items():
        assert set(service) <= SERVICE_KEYS, name
        assert set(service.get("healthcheck", {})) <= HEALTH_KEYS, name
        for volume in service.get("volumes", []):
            assert volume.split(":")[0] in compose["volumes"], (name, volume)
        for config in service.get("configs", []):
            assert config["source"] in compose["configs"], (name, config)
    used = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    assert used == set(compose["volumes"])


def test_docker_compose_accepts_the_file(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if (
        docker is None
        or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode != 0
    ):
        pytest.skip("`docker compose` is not installed on this machine")
    env_file = tmp_path / "env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in secrets_for_tests().items()))
    command = [docker, "compose", "--env-file", str(env_file), "--profile", "gpu", "config", "--quiet"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_only_the_loopback_address_is_published(services: dict[str, dict[str, Any]]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(published) == {"airflow-apiserver", "mlflow", "minio"}
    for ports in published.values():
        assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)
    assert not [name for name, service in services.items() if service.get("network_mode")]


def test_dependencies_can_be_met(services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for other, needed in service.get("depends_on", {}).items():
            target = services[other]
            assert not target.get("profiles"), f"{name} waits for {other}, which starts only with a profile"
            condition = needed["condition"]
            if condition == "service_healthy":
                assert "healthcheck" in target, (name, other)
            elif condition == "service_completed_successfully":
                assert target["restart"] == "no", (name, other)
            else:
                assert condition == "service_started", (name, other)
    assert all("airflow-init" in services[name]["depends_on"] for name in OURS - {"airflow-init"})


def test_gpu_worker_listens_on_the_queue_of_the_training_task(services: dict[str, dict[str, Any]]) -> None:
    gpu = services["airflow-worker-gpu"]
    assert gpu["profiles"] == ["gpu"]
    assert gpu["command"][gpu["command"].index("-q") + 1] == "gpu"
    [device] = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert 'queue="gpu"' in (REPOSITORY / "dags" / "train_model.py").read_text()


# --- secrets ----------------------------------------------------------------------------------------------------------


def env_example() -> tuple[dict[str, str], set[str]]:
    """.env.example: the variables it sets, and those it shows as comments."""
    lines = (REPOSITORY / ".env.example").read_text().splitlines()
    assigned = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z_]+=", line))
    return assigned, {line[1:].split("=")[0] for line in lines if re.match(r"#[A-Z_]+=", line)}


def secrets_for_tests() -> dict[str, str]:
    from cryptography.fernet import Fernet

    assigned, _ = env_example()
    values = {name: value or f"{name.lower().replace('_', '')}0123456789" for name, value in assigned.items()}
    return {**values, "AIRFLOW_FERNET_KEY": Fernet.generate_key().decode(), "AIRFLOW_JWT_SECRET": "j" * 64}


def test_env_example_names_every_variable_and_holds_no_password(text: str) -> None:
    required = {name for name, operator, _ in REFERENCE.findall(text) if operator == ":?"}
    optional = {name for name, operator, _ in REFERENCE.findall(text) if operator == ":-"}
    assert len(REFERENCE.findall(text)) == text.count("${") - text.count("$${"), "a reference this test cannot read"
    assert not [name for name, operator, _ in REFERENCE.findall(text) if not operator], (
        "neither required nor with a default"
    )
    assigned, shown = env_example()
    assert set(assigned) == required
    assert shown == optional
    assert {name for name, value in assigned.items() if value} == {"MINIO_ROOT_USER"}
    assert {"AIRFLOW_FERNET_KEY", "AIRFLOW_JWT_SECRET", "AIRFLOW_SESSION_SECRET", "AIRFLOW_ADMIN_PASSWORD"} <= required
    assert {"MINIO_ROOT_PASSWORD", "POSTGRES_PASSWORD", "REDIS_PASSWORD", "MLFLOW_ADMIN_PASSWORD"} <= required


def test_no_secret_is_written_in_the_file(text: str, services: dict[str, dict[str, Any]]) -> None:
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            if SECRET_NAME.search(variable) and variable not in NO_SECRETS:
                # Asked for, or left empty: an optional key has no default.
                assert re.fullmatch(r"\$\{[A-Z_]+(:\?[^}]+|:-)\}", value), (name, variable)
    passwords = re.findall(r"://\w*:(\$\{[^}]*\}|[^\s@]+)@", text)
    assert passwords
    assert all(re.fullmatch(r"\$\{[A-Z_]+:\?[^}]+\}", password) for password in passwords)
    assert ".env" not in (REPOSITORY / "Dockerfile").read_text()
    assert (REPOSITORY / ".dockerignore").read_text().splitlines()[
        1
    ] == "*"  # what is not named stays outside, .env too


def test_the_command_in_env_example_makes_a_complete_env(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed on this machine")
    example = (REPOSITORY / ".env.example").read_text()
    command = re.search(r"^#   (umask .*?) \\\n#     (.*)$", example, re.MULTILINE)
    assert command, "the command is not there"
    (tmp_path / ".env.example").write_text(example)
    subprocess.run(["bash", "-ec", f"{command[1]} {command[2]}"], cwd=tmp_path, check=True)
    made = dict(line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines() if re.match("[A-Z]", line))
    from cryptography.fernet import Fernet

    Fernet(made["AIRFLOW_FERNET_KEY"])
    assert all(
        len(value) == 64 for name, value in made.items() if name not in ("AIRFLOW_FERNET_KEY", "MINIO_ROOT_USER")
    )
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0


# --- against the programs ---------------------------------------------------------------------------------------------

ASK_AIRFLOW = """
import json, sys
from airflow.cli.cli_parser import get_parser
from airflow.configuration import conf
from airflow.providers_manager import ProvidersManager
ProvidersManager().initialize_providers_configuration()
parser, options = get_parser(), conf.configuration_description
asked = json.load(sys.stdin)
unknown = []
for name in asked["variables"]:
    section, key = name.removeprefix("AIRFLOW__").lower().split("__")
    if key not in options.get(section, {}).get("options", {}):
        unknown.append(name)
for command in asked["commands"]:
    try:
        parser.parse_args(command)
    except SystemExit:
        unknown.append(" ".join(command))
print("UNKNOWN " + json.dumps(unknown))
"""


def airflow_commands(services: dict[str, dict[str, Any]]) -> list[list[str]]:
    """The arguments of every `airflow ...` in commands, health checks and the init script."""
    found = [service["command"][1:] for service in services.values() if service.get("command", [""])[0] == "airflow"]
    texts = [
        script(services),
        *(" ".join(service.get("healthcheck", {}).get("test", [])) for service in services.values()),
    ]
    for line in "\n".join(texts).splitlines():
        for part in re.findall(r"airflow ((?:db|pools|jobs) [^)|;\n]*)", line):
            found.append([word.strip('"') for word in part.replace('"$2"', "1").split()])
    return found + documented_commands()


def documented_commands() -> list[list[str]]:
    """The arguments of every `airflow ...` that docs/operations.md tells people to type."""
    text = (REPOSITORY / "docs" / "operations.md").read_text()
    lines = re.findall(
        r"(?:^|airflow-scheduler |`)airflow ((?:backfill|dags|pools|rotate-fernet-key)[^;`\n]*)", text, re.M
    )
    return [[word.strip('"') for word in line.replace('"$dag"', "x").split()] for line in lines]


def bare(more: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without the settings of any installation."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("TRADING_", "AIRFLOW", "AWS_", "MLFLOW_"))
    }
    return {**kept, "PATH": f"{Path(sys.executable).parent}:{kept.get('PATH', '')}", **more}


@pytest.mark.thorough
def test_airflow_knows_every_variable_and_command(services: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    commands = airflow_commands(services)
    assert ["api-server"] in commands
    assert ["db", "migrate"] in commands
    assert len([command for command in commands if command[:2] == ["celery", "worker"]]) == 2
    assert len([command for command in commands if command[:2] == ["jobs", "check"]]) == 2
    assert len([command for command in commands if command[0] == "pools"]) == 3
    assert ["rotate-fernet-key"] in commands
    variables = [name for name in environments(services) if name.startswith("AIRFLOW__")]
    asked = json.dumps({"variables": [*variables, "AIRFLOW__CORE__NO_SUCH"], "commands": [*commands, ["no-such"]]})
    environment = bare({"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor"})
    command = [sys.executable, "-W", "ignore", "-c", ASK_AIRFLOW]
    done = subprocess.run(
        command, env=environment, input=asked, capture_output=True, text=True, timeout=120, check=False
    )
    answers = [line.removeprefix("UNKNOWN ") for line in done.stdout.splitlines() if line.startswith("UNKNOWN ")]
    assert answers, done.stderr[-3000:]
    assert json.loads(answers[0]) == ["AIRFLOW__CORE__NO_SUCH", "no-such"]


def test_trading_variables_are_settings_or_read_by_the_dags(services: dict[str, dict[str, Any]]) -> None:
    from trading_core.config import Settings
    from trading_core.market.alpaca import KEY_VARIABLES

    programs = [*(REPOSITORY / "dags").glob("*.py"), REPOSITORY / "plugins" / "alerts.py"]
    dags = "\n".join(path.read_text() for path in programs)
    read_by_dags = set(re.findall(r'(?:_variable|environ\.get)\("(TRADING_[A-Z_]+)"', dags))
    fields = {f"TRADING_{name.upper()}" for name in Settings.model_fields}
    found = {name for name in environments(services) if name.startswith("TRADING_")}
    assert found <= fields | read_by_dags | set(KEY_VARIABLES)
    assert read_by_dags | set(KEY_VARIABLES) <= found  # whatever a pod can be asked for can be set in .env
    # Only where files lie inside the image is left to its defaults.
    assert fields - found == {"TRADING_VAR_DIR", "TRADING_CONFIG_DIR"}


def test_settings_of_the_cluster_are_read_as_meant(
    services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from trading_core.config import Settings

    for name in [name for name in os.environ if name.startswith("TRADING_")]:
        monkeypatch.delenv(name)
    values = secrets_for_tests()
    for name, value in environments(services).items():
        if name.startswith("TRADING_"):
            monkeypatch.setenv(name, filled(value, values))
    settings = Settings()
    assert (settings.artifacts, settings.ledger) == ("s3://trading/artifacts", "dynamodb://trading-ledger")
    assert settings.mlflow_uri == "http://mlflow:5000"
    assert settings.s3_secret_access_key is not None
    assert settings.s3_secret_access_key.get_secret_value() == values["MINIO_ROOT_PASSWORD"]
    assert (settings.market, settings.broker, settings.train_where) == ("simulated", "paper", "local")


def test_operations_lists_every_setting_with_its_default() -> None:
    from trading_core.config import Settings

    text = (REPOSITORY / "docs" / "operations.md").read_text()
    rows = dict(re.findall(r"^\| `(TRADING_[A-Z0-9_]+)`[^|]*\| ([^|]*) \|", text, re.MULTILINE))
    for name, field in Settings.model_fields.items():
        variable = f"TRADING_{name.upper()}"
        assert f"`{variable}`" in text, f"docs/operations.md does not name {variable}"
        if isinstance(field.default, str | int) and field.default != "":
            default = str(field.default).lower() if isinstance(field.default, bool) else field.default
            assert rows[variable] == f"`{default}`", variable


def test_hosts_in_urls_are_services(services: dict[str, dict[str, Any]]) -> None:
    for variable, value in environments(services).items():
        for host in re.findall(
            r"(?:http|redis|postgresql\+psycopg2)://(?:[^@/\s]*@)?([a-z-]+)", re.sub(REFERENCE, "x", value)
        ):
            assert host in {*services, "localhost"}, (variable, value)


def test_waits_outlast_the_longest_training(services: dict[str, dict[str, Any]]) -> None:
    source = (REPOSITORY / "dags" / "train_model.py").read_text()
    hours = re.search(r"TRAINING_TIMEOUT = timedelta\(hours=(\d+)\)", source)
    assert hours, "dags/train_model.py no longer says TRAINING_TIMEOUT = timedelta(hours=...)"
    found = environments(services)
    for name in ("CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT", "EXECUTION_API__JWT_EXPIRATION_TIME"):
        assert int(found[f"AIRFLOW__{name}"]) > int(hours[1]) * 3600


def test_pools_are_those_of_the_launcher(services: dict[str, dict[str, Any]]) -> None:
    module = ast.parse((REPOSITORY / "launcher" / "job.py").read_text())
    [pools] = [
        ast.literal_eval(node.value)
        for node in module.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "POOLS"
    ]
    made = re.findall(r'^pool (\w+) (\d+) "(.*)"$', script(services), re.MULTILINE)
    assert {name: (int(slots), description) for name, slots, description in made} == pools


ASK_MLFLOW = """
import json, sys
import mlflow.environment_variables as known
from mlflow.cli import cli
asked = json.load(sys.stdin)
server = cli.commands["server"]
parser = server.make_parser(server.make_context("server", [], resilient_parsing=True))
values, rest, _ = parser.parse_args(list(asked["arguments"]))
names = {option.envvar for option in server.params} | set(vars(known))
print("ANSWER " + json.dumps({"values": values, "rest": rest, "unknown": sorted(set(asked["variables"]) - names)}))
"""


@pytest.mark.thorough
def test_mlflow_knows_its_flags_and_variables(services: dict[str, dict[str, Any]]) -> None:
    command = services["mlflow"]["command"]
    assert command[:2] == ["mlflow", "server"]
    every = {name for service in services.values() for name in service.get("environment", {})}
    asked = json.dumps({"arguments": command[2:], "variables": [name for name in every if name.startswith("MLFLOW_")]})
    run = [sys.executable, "-W", "ignore", "-c", ASK_MLFLOW]
    done = subprocess.run(run, env=bare({}), input=asked, capture_output=True, text=True, timeout=120, check=False)
    answers = [line.removeprefix("ANSWER ") for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    assert answers, done.stderr[-3000:]
    answer = json.loads(answers[0])
    assert (answer["rest"], answer["unknown"]) == ([], [])
    assert answer["values"]["app_name"] == "basic-auth"


# --- the image --------------------------------------------------------------------------------------------------------


def test_dockerfile_copies_what_exists_and_is_not_ignored() -> None:
    lines = (REPOSITORY / "Dockerfile").read_text().splitlines()
    sources = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    kept = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert set(sources) == kept
    assert not [source for source in sources if not (REPOSITORY / source).exists()]
    assert re.search(r"^USER (?!root)", "\n".join(lines), re.MULTILINE)
    assert "FROM python:3.11-slim-bookworm" in lines
    makefile = (REPOSITORY / "Makefile").read_text()
    assert re.search(r"uv==[\d.]+", "\n".join(lines))[0] == re.search(r"uv==[\d.]+", makefile)[0]  # type: ignore[index]


def test_one_image_for_all_our_services_and_pods(services: dict[str, dict[str, Any]]) -> None:
    images = {services[name]["image"] for name in OURS}
    assert images == {"${TRADING_TRAIN_IMAGE:-trading-platform:latest}"}
    assert services["airflow-worker"]["environment"]["TRADING_TRAIN_IMAGE"] in images
    assert [name for name in services if "build" in services[name]] == ["airflow-init"]
    assert '"trading-platform:latest"' in (REPOSITORY / "dags" / "train_model.py").read_text()
    others = [services[name]["image"] for name in SERVICES - OURS]
    assert all(re.search(r":[\w.-]*\d", image) for image in others), "an image without a version"


# --- really run -------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.airflow
def test_init_script_makes_schema_pools_password_and_bucket(
    services: dict[str, dict[str, Any]], tmp_path: Path, s3_server: str, s3_client: Any
) -> None:
    values, bucket = secrets_for_tests(), f"test-{uuid.uuid4().hex}"
    passwords = tmp_path / "passwords.json"
    environment = {name: filled(value, values) for name, value in services["airflow-init"]["environment"].items()}
    replaced = {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(tmp_path / "plugins"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path / 'airflow.db'}",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",  # CeleryExecutor refuses SQLite
        "TRADING_ARTIFACTS_URL": f"s3://{bucket}/artifacts",
        "TRADING_S3_ENDPOINT_URL": s3_server,
    }
    assert set(replaced) - {"AIRFLOW_HOME"} <= set(environment)
    assert services["airflow-init"]["command"][:4] == ["bash", "-euo", "pipefail", "-c"]
    command = ["bash", "-euo", "pipefail", "-c", script(services)]
    done = subprocess.run(
        command, env=bare({**environment, **replaced}), capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    import sqlite3

    with sqlite3.connect(tmp_path / "airflow.db") as database:
        pools = dict(database.execute("select pool, slots from slot_pool where pool != 'default_pool'").fetchall())
    assert pools == {"market_data": 2, "training": 1, "trading": 1}
    assert json.loads(passwords.read_text()) == {"admin": values["AIRFLOW_ADMIN_PASSWORD"]}
    assert passwords.stat().st_mode & 0o777 == 0o600
    assert bucket in [found["Name"] for found in s3_client.list_buckets()["Buckets"]]
    assert values["AIRFLOW_ADMIN_PASSWORD"] not in done.stdout + done.stderr


@pytest.fixture
def mlflow_server(
    compose: dict[str, Any], tmp_path: Path, s3_server: str, s3_client: Any
) -> Iterator[tuple[int, str, dict[str, str]]]:
    """MLflow started with compose's own flags, variables and auth.ini: its port, its bucket and the values of .env."""
    values, bucket, port = secrets_for_tests(), f"test-{uuid.uuid4().hex}", free_port()
    s3_client.create_bucket(Bucket=bucket)
    service = compose["services"]["mlflow"]
    auth = tmp_path / "auth.ini"
    auth.write_text(compose["configs"]["mlflow-auth"]["content"].replace("/opt/mlflow/data", str(tmp_path)))
    environment = {name: filled(str(value), values) for name, value in service["environment"].items()}
    environment |= {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "MLFLOW_AUTH_CONFIG_PATH": str(auth),
        "MLFLOW_S3_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
    }
    swaps = {
        "5000": str(port),
        "0.0.0.0": "127.0.0.1",
        "s3://trading/": f"s3://{bucket}/",
        "--workers=2": "--workers=1",
    }
    command = [re.sub("|".join(map(re.escape, swaps)), lambda m: swaps[m[0]], part) for part in service["command"]]
    log = tmp_path / "mlflow.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], env=bare(environment), stdout=out, stderr=out, start_new_session=True
        )
    try:
        wait_for_health(port, process, log)
        yield port, bucket, values
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_health(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    import httpx

    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health", timeout=30).status_code == 200:
                return
        except httpx.HTTPError:
            time.sleep(0.3)
    pytest.fail(f"MLflow did not start:\n{log.read_text()[-4000:]}")


@pytest.mark.thorough
def test_mlflow_server_asks_for_the_password_and_keeps_models(
    mlflow_server: tuple[int, str, dict[str, str]],
    services: dict[str, dict[str, Any]],
    s3_client: Any,
    monkeypatch: Any,
) -> None:
    import httpx

    from trading_core.errors import StoreUnreachableError
    from trading_core.registry.mlflow_registry import Registry

    port, bucket, values = mlflow_server
    url, api = f"http://127.0.0.1:{port}", "/api/2.0/mlflow/experiments/search?max_results=1"
    login = ("admin", values["MLFLOW_ADMIN_PASSWORD"])
    with httpx.Client(base_url=url, timeout=60) as client:
        assert client.get(api).status_code == 401
        assert client.get(api, auth=login).status_code == 200
        assert client.get(api, auth=login, headers={"Host": f"mlflow:{port}"}).status_code == 200  # as the workers say
        assert client.get(api, auth=login, headers={"Host": "attacker.example"}).status_code == 403

    worker = services["airflow-worker"]["environment"]
    registry = Registry(url, worker["TRADING_MLFLOW_ARTIFACTS_URL"])
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", worker["MLFLOW_TRACKING_USERNAME"])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "wrong-password")
    with pytest.raises(StoreUnreachableError):
        registry.list("tiny")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", filled(worker["MLFLOW_TRACKING_PASSWORD"], values))
    run = registry.log_run("tiny", "a run", {"a": 1}, {"m": 0.5}, {"loss": [2.0, 1.0]}, {"notes/a.txt": b"kept"}, {})
    made = registry.register("tiny", run, "linear", f"s3://{bucket}/artifacts/x", "0" * 64, date(2024, 4, 3), {})
    assert (made.version, made.aliases) == (1, ("challenger", "champion"))
    keys = [item["Key"] for item in s3_client.list_objects_v2(Bucket=bucket)["Contents"]]
    [key] = [key for key in keys if key.endswith("notes/a.txt")]
    assert key.startswith("mlflow/trading/tiny/")
    assert s3_client.get_object(Bucket=bucket, Key=key)["Body"].read() == b"kept"
