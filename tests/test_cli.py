"""The `trading` command as a person or a script meets it: output, exit codes, and the text of what goes wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from trading_core import cli, config

REPOSITORY = Path(__file__).resolve().parents[1]
OPERATIONS = [
    "backfill",
    "train",
    "tune",
    "ablate",
    "predict",
    "evaluate",
    "sweep",
    "parity",
    "evaluate-model",
    "cross-validate",
    "walk-forward",
    "compare",
    "trade",
    "halt",
    "resume",
    "flatten",
    "settle",
    "adopt",
    "resolve",
    "status",
    "explain",
]
GROUPS = {
    "models": ["list", "zoo", "promote"],
    "features": ["list", "plot", "tables"],
    "executions": ["list"],
    "config": ["check"],
    "market": ["list", "add"],
    "quality": ["resolve"],
}


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def _own_installation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [key for key in os.environ if key.startswith("TRADING_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TRADING_VAR_DIR", str(tmp_path / "var"))
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def trading(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Runs the entry point itself, which turns errors into messages and exit codes."""

    def run(*arguments: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["trading", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        code = stopped.value.code
        return Answer(code if isinstance(code, int) else 0, printed.out, printed.err)

    return run


@pytest.fixture(scope="module")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One MLflow store for all tests that only look into it: its making takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


def refused(answer: Answer, *texts: str) -> None:
    """Exit code 2, nothing on stdout, the texts on stderr, no traceback."""
    assert answer.code == 2
    assert answer.out == ""
    assert "Traceback" not in answer.err
    assert [text for text in texts if text not in answer.err] == []


# --- help -------------------------------------------------------------------------------------------------------------


def _commands(*path: str) -> list[str]:
    import typer

    found = typer.main.get_command(cli.app)
    for name in path:
        found = found.commands[name]  # type: ignore[attr-defined]
    return sorted(found.commands)  # type: ignore[attr-defined]


def test_help_lists_every_command() -> None:
    assert _commands() == sorted([*OPERATIONS, *GROUPS])
    answer = CliRunner().invoke(cli.app, ["--help"], env={"COLUMNS": "200"})
    assert answer.exit_code == 0
    assert [name for name in [*OPERATIONS, *GROUPS] if name not in answer.output] == []


@pytest.mark.parametrize("group", GROUPS)
def test_help_of_a_group_lists_its_commands(group: str) -> None:
    assert _commands(group) == sorted(GROUPS[group])
    assert CliRunner().invoke(cli.app, [group, "--help"]).exit_code == 0


@pytest.mark.parametrize(
    "path", [[name] for name in OPERATIONS] + [[g, n] for g, names in GROUPS.items() for n in names], ids=" ".join
)
def test_every_command_explains_itself_and_prints_json(path: list[str]) -> None:
    answer = CliRunner().invoke(cli.app, [*path, "--help"], env={"COLUMNS": "200"})
    assert answer.exit_code == 0
    assert "--json" in answer.output


def test_every_option_and_argument_says_what_it_is() -> None:
    import typer

    def silent(command: object, path: str) -> list[str]:
        found = [f"{path} {name}" for name, text in _texts(command) if not text]
        for name, child in getattr(command, "commands", {}).items():
            found += silent(child, f"{path} {name}")
        return found

    assert silent(typer.main.get_command(cli.app), "trading") == []


def _texts(command: object) -> list[tuple[str, str | None]]:
    """Name and help of every parameter that a command has of its own."""
    own = [param for param in command.params if "completion" not in (param.name or "")]  # type: ignore[attr-defined]
    return [(param.name, param.help) for param in own]


def _written() -> list[tuple[str, str]]:
    """(place, what follows the word `trading`) of every command in the README, the documents and the templates."""
    files = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
    files += sorted((REPOSITORY / "configs" / "templates").glob("*.yaml"))
    found = []
    for file in files:
        text = file.read_text().replace("\\\n", " ")
        blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
        spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        for line in [*spans, *(line for block in blocks for line in block.splitlines())]:
            command = re.search(r"(?:^|\s)(?:\.venv/bin/)?trading ((?:[a-z-]).*)", line.split(" # ")[0])
            if command:
                found.append((file.name, command[1]))
    return found


def test_every_command_in_the_documents_exists_with_its_options() -> None:
    import typer

    wrong, program = [], typer.main.get_command(cli.app)
    for place, text in _written():
        command, words = program, text.split()
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]  # type: ignore[attr-defined]
        known = {option for param in command.params for option in [*param.opts, *param.secondary_opts]}
        unknown = [word for word in words if word.startswith("-") and word.rstrip(",)") not in {*known, "--help"}]
        stray = hasattr(command, "commands") and words and not words[0].startswith("-")  # no command of that group
        if unknown or stray:
            wrong.append(f"{place}: trading {text}")
    assert wrong == []
    assert len(_written()) > 40


def test_the_installed_command_works_and_needs_nothing_heavy_for_help(tmp_path: Path) -> None:
    heavy = ["torch", "polars", "pandas", "mlflow", "exchange_calendars", "lightning", "plotly"]
    code = (
        "import sys; sys.argv = ['trading', '--help']\n"
        "from trading_core.cli import main\n"
        "try: main()\n"
        f"finally: print([n for n in {heavy!r} if n in sys.modules], file=sys.stderr)\n"
    )
    environment = {**os.environ, "TRADING_VAR_DIR": str(tmp_path / "var"), "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "backfill" in done.stdout
    assert done.stderr.strip() == "[]"
    assert not (tmp_path / "var").exists()


# --- lists ------------------------------------------------------------------------------------------------------------


def test_features_list(trading: Callable[..., Answer]) -> None:
    rows = trading("features", "list", "--json").json()
    assert len(rows) >= 30
    keys = {"name", "family", "inputs", "lookback", "unit", "description", "fingerprint"}
    assert all(set(row) == keys for row in rows)
    by_name = {row["name"]: row for row in rows}
    assert len(by_name) == len(rows)
    assert by_name["log_ret"]["lookback"] == 1  # log(close / close of the session before)
    assert by_name["log_ret"]["inputs"] == ["close"]
    table = trading("features", "list").out
    assert "log_ret" in table
    assert "lookback" in table.splitlines()[0]


def test_models_zoo_names_the_configs_of_each_architecture(trading: Callable[..., Answer]) -> None:
    rows = {row["model"]: row for row in trading("models", "zoo", "--json").json()}
    assert {"tft", "lstm", "linear"} <= set(rows)
    assert "tft" in rows["tft"]["configs"]
    listed = sorted(name for row in rows.values() for name in row["configs"])
    zoo = [f"zoo/{name}" for name in rows]
    assert listed == sorted([*(path.stem for path in (REPOSITORY / "configs" / "models").glob("*.yaml")), *zoo])
    assert [name for name, row in rows.items() if f"zoo/{name}" not in row["configs"]] == []


def test_market_list(trading: Callable[..., Answer]) -> None:
    rows = trading("market", "list", "--json").json()
    assert [row["market"] for row in rows] == config.names("markets")
    assert next(row for row in rows if row["market"] == "simulated")["start"] == "2022-01-03"


def test_an_empty_ledger_is_an_empty_list(trading: Callable[..., Answer]) -> None:
    answer = trading("executions", "list", "--json")
    assert (answer.code, answer.json()) == (0, [])
    assert "Nothing was executed yet. Trade a session with `trading trade`." in trading("executions", "list").out


def test_an_empty_ledger_has_no_account_and_no_order(trading: Callable[..., Answer]) -> None:
    assert trading("status", "--json").json() == []
    assert "No account yet. Trade a session with `trading trade`." in trading("status").out
    refused(
        trading("explain", "t123456"), "Market 'simulated' has no order yet", "Trade a session with `trading trade`"
    )


def test_a_market_without_models_is_an_empty_list(
    trading: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, empty_mlflow: str
) -> None:
    monkeypatch.setenv("TRADING_MLFLOW_TRACKING_URI", empty_mlflow)
    answer = trading("models", "list", "--json")
    assert (answer.code, answer.json()) == (0, [])
    assert "Train one with `trading train`." in trading("models", "list").out


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["backfill"],
        ["train"],
        ["predict"],
        ["evaluate"],
        ["evaluate-model", "--model", "tft@champion"],
        ["trade"],
        ["halt"],
        ["settle", "--account", "a"],
        ["models", "list"],
        ["executions", "list"],
        ["status"],
        ["explain", "t123456"],
    ],
    ids=" ".join,
)
def test_an_unknown_market_is_refused_everywhere(trading: Callable[..., Answer], arguments: list[str]) -> None:
    refused(
        trading(*arguments, "--market", "simulatd"),
        "Unknown market config 'simulatd'. Did you mean 'simulated'?",
        "Allowed: ",
    )


def test_an_unknown_market_in_the_environment_is_refused(
    trading: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRADING_MARKET", "nowhere")
    refused(trading("models", "list"), "Unknown market config 'nowhere'")


def test_a_wrong_setting_in_the_environment_is_a_message(
    trading: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRADING_OPEN_LEAD_MINUTES", "soon")
    refused(trading("market", "list"), "TRADING_OPEN_LEAD_MINUTES", "soon")


def test_an_unknown_model_is_refused(trading: Callable[..., Answer]) -> None:
    refused(trading("train", "--model", "tftt"), "Unknown model config 'tftt'. Did you mean 'tft'?")


def test_a_model_config_may_be_a_file_but_not_beside_a_name(trading: Callable[..., Answer], tmp_path: Path) -> None:
    zoo = REPOSITORY / "configs" / "zoo"
    refused(trading("train", "--config", str(tmp_path / "nowhere.yaml")), "nowhere.yaml")
    refused(trading("train", "--config", str(zoo / "btc_direction.yaml")), "Unknown model of the comparison", "lstm")
    assert "not both" in trading("train", "--config", str(zoo / "gru.yaml"), "--model", "tft").err
    # A name, and a file that is it, are the same request: both come as far as the market's data, which are not there.
    for given in (["--model", "zoo/gru"], ["--config", str(zoo / "gru.yaml")]):
        refused(trading("train", *given), "Market 'simulated' has no table")


def test_a_comparison_names_its_models_and_needs_a_panel(trading: Callable[..., Answer], tmp_path: Path) -> None:
    given = ["compare", "--config", str(REPOSITORY / "configs" / "zoo" / "btc_direction.yaml"), "--data"]
    refused(trading(*given, str(tmp_path / "nowhere.csv")), "nowhere.csv")
    refused(trading(*given, "x.csv", "--only", "lstn"), "Did you mean 'lstm'?")
    refused(
        trading("compare", "--config", str(REPOSITORY / "configs" / "zoo" / "gru.yaml"), "--data", "x.csv"),
        "start",
        "models",
    )


def test_a_model_to_be_judged_has_to_be_named(
    trading: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, empty_mlflow: str
) -> None:
    monkeypatch.setenv("TRADING_MLFLOW_TRACKING_URI", empty_mlflow)
    refused(trading("evaluate-model"), "say NAME@ALIAS, NAME@NUMBER or NAME, or give a config")
    refused(trading("evaluate-model", "--model", "tft@champion"), "has no model", "champion")
    gru = str(REPOSITORY / "configs" / "zoo" / "gru.yaml")
    refused(trading("evaluate-model", "--config", gru), "has no model that was trained with the config given")


def test_an_unknown_strategy_is_refused(trading: Callable[..., Answer]) -> None:
    refused(trading("trade", "--strategy", "top11"), "Unknown strategy config 'top11'. Did you mean 'top10'?")


def test_a_session_that_is_none_is_refused(trading: Callable[..., Answer]) -> None:
    refused(trading("trade", "--session", "2026-11-26"), "2026-11-26 is not a trading session of XNYS")


@pytest.mark.parametrize("text", ["2026-13-01", "tomorrow", "27.11.2026"])
def test_a_date_that_is_none_is_refused(trading: Callable[..., Answer], text: str) -> None:
    refused(trading("backfill", "--start", text), f"'{text}' is not a date; write YYYY-MM-DD")


def test_a_range_that_ends_before_it_starts_is_refused(trading: Callable[..., Answer]) -> None:
    refused(
        trading("backfill", "--start", "2024-02-01", "--end", "2024-01-02"), "2024-02-01 .. 2024-01-02 cannot be used"
    )


def test_a_panel_that_is_not_there_is_refused(trading: Callable[..., Answer]) -> None:
    refused(trading("market", "add", "nowhere.parquet"), "nowhere.parquet")


def test_promoting_a_version_that_is_not_there_is_refused(
    trading: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, empty_mlflow: str
) -> None:
    monkeypatch.setenv("TRADING_MLFLOW_TRACKING_URI", empty_mlflow)
    refused(trading("models", "promote", "7"), "Market 'simulated' has no model", "7")


def test_an_unknown_command_and_an_unknown_option_are_refused(trading: Callable[..., Answer]) -> None:
    assert trading("explode").code == 2
    assert trading("backfill", "--fast").code == 2


# --- config check -----------------------------------------------------------------------------------------------------


def test_config_check_passes_on_the_repository(trading: Callable[..., Answer]) -> None:
    answer = trading("config", "check", "--json")
    assert answer.code == 0
    assert all(row["valid"] and not row["problem"] for row in answer.json())


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        ("strategies", "strategy: top_k\ncolour: red\n", "colour: unknown key; allowed: "),
        ("strategies", "strategy: top_k\nparams: {n: 3}\n", "n: unknown key; allowed: k"),
        ("strategies", "strategy: topk\n", "Unknown strategy 'topk'. Did you mean 'top_k'?"),
        ("models", "model: lstm\nfeatures: [rsi_15]\n", "rsi_15"),
        ("models", "model: lstm\nfeatures: [rsi_14]\narchitecture: {hidden: 3}\n", "hidden: unknown key"),
        ("models", "model: lstm\nfeatures: [rsi_14]\ntraining: {epochs: 0}\n", "epochs"),
        ("markets", "id: wrong\nsource: simulatd\nhistory_start: 2020-01-02\n", "Did you mean 'simulated'?"),
        ("markets", "id: wrong\nsource: simulated\nhistory_start: 2020-01-02\ncalendar: XNYSE\n", "XNYSE"),
        ("markets", "id: [", "cannot be read as YAML"),
    ],
)
def test_config_check_finds_a_wrong_file(
    trading: Callable[..., Answer], tmp_path: Path, kind: str, text: str, problem: str
) -> None:
    path = tmp_path / kind / "wrong.yaml"
    path.parent.mkdir()
    path.write_text(text)
    answer = trading("config", "check", str(path), "--json")
    assert answer.code == 2
    (row,) = answer.json()
    assert row["valid"] is False
    assert problem in row["problem"]


@pytest.mark.parametrize("kind", ["market", "model", "strategy", "comparison"])
def test_config_check_knows_a_file_anywhere_by_its_keys(
    trading: Callable[..., Answer], tmp_path: Path, kind: str
) -> None:
    path = tmp_path / f"{kind}.yaml"
    text = (REPOSITORY / "configs" / "templates" / path.name).read_text()
    path.write_text(text)
    assert trading("config", "check", str(path), "--json").json()[0] == {
        "kind": kind, "file": str(path), "valid": True, "problem": ""
    }  # fmt: skip
    path.write_text(text + "\ncolour: red\n")
    answer = trading("config", "check", str(path), "--json")
    assert (answer.code, answer.json()[0]["kind"]) == (2, kind)
    assert "colour: unknown key" in answer.json()[0]["problem"]


@pytest.mark.parametrize(("text", "count"), [("colour: red\n", 0), ("model: lstm\nstrategy: top_k\n", 2)])
def test_config_check_refuses_a_file_that_does_not_say_what_it_is(
    trading: Callable[..., Answer], tmp_path: Path, text: str, count: int
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    answer = trading("config", "check", str(path), "--json")
    assert answer.code == 2
    problem = answer.json()[0]["problem"]
    assert (
        f"`source` (a market), `model` (a model), `strategy` (a strategy), `models` (a comparison); this has {count}"
        in problem
    )


def test_config_check_finds_a_wrong_file_among_all(trading: Callable[..., Answer], tmp_path: Path) -> None:
    folder = tmp_path / "var" / "configs" / "strategies"
    folder.mkdir(parents=True)
    (folder / "broken.yaml").write_text("strategy: top_k\nparams: {k: 0}\n")
    answer = trading("config", "check", "--json")
    assert answer.code == 2
    assert [Path(row["file"]).name for row in answer.json() if not row["valid"]] == ["broken.yaml"]


def test_config_check_of_a_file_that_is_not_there_says_so(trading: Callable[..., Answer], tmp_path: Path) -> None:
    answer = trading("config", "check", str(tmp_path / "elsewhere" / "x.yaml"), "--json")
    assert answer.code == 2
    assert "There is no configuration file at" in answer.json()[0]["problem"]
