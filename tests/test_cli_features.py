"""`trading features list` and `trading features plot`, as a person or a script meets them, and docs/features.md."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from trading_core import cli

REPOSITORY = Path(__file__).resolve().parents[1]
MARKET = {
    "id": "small",
    "source": "simulated",
    "history_start": "2023-01-03",
    "history_end": "2024-06-28",
    "test_sessions": 60,
    "options": {"symbols": 4, "start": "2023-01-03", "seed": 5},
}


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(scope="module")
def var(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small simulated market, backfilled."""
    var = tmp_path_factory.mktemp("cli_features") / "var"
    folder = var / "configs" / "markets"
    folder.mkdir(parents=True)
    (folder / "small.yaml").write_text(yaml.safe_dump(MARKET))
    with pytest.MonkeyPatch.context() as patch:
        _clean(patch, var)
        patch.setattr(sys, "argv", ["trading", "backfill", "--market", "small"])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
    assert stopped.value.code in (0, None)
    return var


def _clean(patch: pytest.MonkeyPatch, var: Path) -> None:
    for name in [key for key in os.environ if key.startswith("TRADING_")]:
        patch.delenv(name)
    patch.setenv("TRADING_VAR_DIR", str(var))
    patch.setenv("TRADING_MARKET", "small")
    patch.setenv("COLUMNS", "200")


@pytest.fixture
def trading(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Runs the entry point itself; `var=` for another folder than an empty one."""

    def run(*arguments: str, var: Path = Path("nowhere")) -> Answer:
        _clean(monkeypatch, var)
        monkeypatch.setattr(sys, "argv", ["trading", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        code = stopped.value.code
        return Answer(code if isinstance(code, int) else 0, printed.out, printed.err)

    return run


def refused(answer: Answer, *texts: str) -> None:
    """Exit code 2, nothing on stdout, the texts on stderr, no traceback."""
    assert answer.code == 2
    assert answer.out == ""
    assert "Traceback" not in answer.err
    assert [text for text in texts if text not in answer.err] == []


# --- list -------------------------------------------------------------------------------------------------------------


def test_list_as_json(trading: Callable[..., Answer]) -> None:
    rows = trading("features", "list", "--json").json()
    keys = {"name", "family", "inputs", "lookback", "unit", "description", "fingerprint"}
    assert all(set(row) == keys for row in rows)
    assert len({row["name"] for row in rows}) == len(rows) >= 120
    assert all(re.fullmatch("[0-9a-f]{16}", row["fingerprint"]) for row in rows)
    beta = {row["name"]: row for row in rows}["beta_63"]
    assert beta["inputs"] == ["close", "market_ret"]
    assert (beta["lookback"], beta["unit"], beta["family"]) == (63, "slope", "cross_section")


def test_list_of_one_family(trading: Callable[..., Answer]) -> None:
    rows = trading("features", "list", "--family", "regime", "--json").json()
    assert {row["family"] for row in rows} == {"regime"}
    assert "market_vol_state" in {row["name"] for row in rows}
    refused(trading("features", "list", "--family", "regimes"), "feature family 'regimes'", "Did you mean 'regime'?")


def test_list_as_a_table_by_family(trading: Callable[..., Answer]) -> None:
    lines = trading("features", "list").out.splitlines()
    assert lines[0].split() == ["family", "name", "unit", "lookback", "inputs", "description"]
    families = [line.split()[0] for line in lines[1:]]
    assert families == sorted(families)


def test_the_document_is_up_to_date(trading: Callable[..., Answer]) -> None:
    """docs/features.md is what the command prints: `trading features list --markdown > docs/features.md`."""
    written = (REPOSITORY / "docs" / "features.md").read_text(encoding="utf-8")
    assert trading("features", "list", "--markdown").out == written


def test_the_document_says_everything_of_every_feature(trading: Callable[..., Answer]) -> None:
    rows = trading("features", "list", "--json").json()
    text = trading("features", "list", "--markdown").out
    for row in rows:
        (line,) = (line for line in text.splitlines() if line.startswith(f"| `{row['name']}` |"))
        cells = re.split(r"(?<!\\) \| ", line.strip("| "))
        assert len(cells) == 7, line
        assert all(cells), line
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == sorted({r["family"] for r in rows})


# --- plot -------------------------------------------------------------------------------------------------------------


def _symbols(var: Path) -> list[str]:
    from trading_core.config import Settings
    from trading_core.pipelines.workspace import open_workspace

    ws = open_workspace("small", Settings(var_dir=var))
    return sorted(ws.tables.read("instruments", columns=["symbol"])["symbol"].to_list())


def _traces(path: str) -> dict[str, dict[str, Any]]:
    text = Path(path).read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" data-chart="bars">(.*?)</script>', text, re.S)
    return {trace["name"]: trace for trace in json.loads(data)["data"]}


def _numbers(values: Any) -> list[float | None]:
    """What plotly wrote of an array: a list, or its bytes as base64."""
    import base64

    import numpy as np

    if isinstance(values, dict):
        values = np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"]).tolist()
    return [None if value is None or value != value else float(value) for value in values]


def test_plot_draws_what_is_stored(trading: Callable[..., Answer], var: Path, tmp_path: Path) -> None:
    """The values of the page are those of the tables, of exactly the sessions that were asked for."""
    from trading_core.config import Settings
    from trading_core.pipelines.workspace import open_workspace
    from trading_core.storage.tables import Predicate

    symbol, out = _symbols(var)[0], tmp_path / "deep" / "page.html"
    span = ("--start", "2024-03-01", "--end", "2024-05-31")
    made = trading("features", "plot", symbol, "rsi_14", "macd", *span, "--out", str(out), "--json", var=var).json()
    assert made["path"] == str(out)
    assert (made["start"], made["end"], made["features"]) == ("2024-03-01", "2024-05-31", ["rsi_14", "macd"])
    traces = _traces(made["path"])
    assert list(traces) == ["price", "volume", "rsi_14", "macd"]
    tables = open_workspace("small", Settings(var_dir=var)).tables
    assert made["bars"] == len(traces["price"]["x"]) == 64  # NYSE sessions from March to May 2024
    for name, table in (("rsi_14", "features_momentum"), ("macd", "features_trend")):
        stored = tables.read(table, columns=["symbol", "session", name], where=Predicate()).sort("session")
        stored = stored.filter(symbol=symbol).filter(stored.filter(symbol=symbol)["session"].is_between(*_days(span)))
        assert [day.isoformat() for day in stored["session"]] == traces[name]["x"]
        assert _numbers(traces[name]["y"]) == stored[name].to_list()


def _days(span: tuple[str, ...]) -> tuple[Any, Any]:
    from datetime import date

    return date.fromisoformat(span[1]), date.fromisoformat(span[3])


def test_plot_shows_the_last_year_by_default_and_says_where(trading: Callable[..., Answer], var: Path) -> None:
    symbol = _symbols(var)[1]
    answer = trading("features", "plot", symbol.lower(), "beta_63", "market_vol_20", var=var)
    assert answer.code == 0
    path = var / "plots" / f"small-{symbol}.html"
    assert str(path) in answer.out
    traces = _traces(str(path))
    assert len(traces["beta_63"]["x"]) == 252
    assert traces["beta_63"]["x"][-1] == "2024-06-28"
    assert "Made of other symbols too: beta_63, market_vol_20." in path.read_text(encoding="utf-8")


def test_plot_names_what_it_does_not_know(trading: Callable[..., Answer], var: Path) -> None:
    symbol = _symbols(var)[0]
    refused(trading("features", "plot", symbol + "X", "rsi_14", var=var), f"Did you mean '{symbol}'?", "market 'small'")
    refused(
        trading("features", "plot", symbol, "rsi_15", var=var), "Unknown feature 'rsi_15'", "Did you mean 'rsi_14'?"
    )
    refused(trading("features", "plot", symbol, var=var), "features")
    for arguments in (
        ("--start", "2030-01-01"),
        ("--end", "2020-01-01"),
        ("--start", "2023-12-25", "--end", "2023-12-25"),
    ):
        answer = trading("features", "plot", symbol, "rsi_14", *arguments, var=var)
        refused(answer, "InvalidDateRangeError", "2023-01-03", "2024-06-28", symbol)
    backwards = trading("features", "plot", symbol, "rsi_14", "--start", "2024-02-01", "--end", "2024-01-02", var=var)
    refused(backwards, "the start lies after the end")
    refused(trading("features", "plot", symbol, "rsi_14", "--start", "soon", var=var), "'soon' is not a date")
    refused(trading("features", "plot", symbol, "rsi_14", "--out", "x.png", var=var), "'x.png'", ".html or .htm")


def test_plot_before_any_backfill(trading: Callable[..., Answer], var: Path, tmp_path: Path) -> None:
    folder = tmp_path / "configs" / "markets"
    folder.mkdir(parents=True)
    (folder / "small.yaml").write_text(yaml.safe_dump(MARKET))
    refused(trading("features", "plot", "AAPL", "rsi_14", var=tmp_path), "NoDataError", "trading backfill")
