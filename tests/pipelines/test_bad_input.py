"""What goes wrong is said once and clearly, through the command a person types, and leaves nothing half-written."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml
from tiny_market import (
    MARKET,
    NOW,
    backfilled,
    forecast,
    new_market,
    rewritten,
    settings_of,
    traded,
    trained,
    tree,
    versions,
    write_market,
)

from trading_core import cli
from trading_core.errors import (
    ArtifactCorruptedError,
    InvalidConfigError,
    InvalidDateRangeError,
    LedgerUnreachableError,
    MissingFileError,
    StoreUnreachableError,
    TradingError,
    TrainingFailedError,
)
from trading_core.execution.ledger import Ledger
from trading_core.execution.paper import PaperBroker
from trading_core.pipelines import backfill, evaluate, markets, refs, train
from trading_core.pipelines.models import reusable_version
from trading_core.pipelines.refs import EvaluationRef
from trading_core.pipelines.workspace import Workspace, open_workspace
from trading_core.sessions import Sessions

Refused = Callable[..., str]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """`refused(var, error, fragments, *arguments)`: the command fails with that error and text, and changes no file."""
    monkeypatch.setattr(cli, "_now", lambda: NOW)

    def run(var: Path, error: str, fragments: Sequence[str], *arguments: str) -> str:
        monkeypatch.setenv("TRADING_VAR_DIR", str(var))
        monkeypatch.setattr(sys, "argv", ["trading", *arguments])
        before = tree(var)
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        assert stopped.value.code == 2, printed
        assert printed.out == ""
        assert "Traceback" not in printed.err
        assert printed.err.startswith(f"Error ({error}): " if error else "Error: "), printed.err
        for fragment in fragments:
            assert re.search(fragment, printed.err, re.IGNORECASE), f"{fragment!r} is not in {printed.err!r}"
        assert tree(var) == before
        return printed.err

    return run


# --- panels -----------------------------------------------------------------------------------------------------------


def panel(sessions: int = 450, symbols: Sequence[str] = ("AAA", "BBB", "CCC")) -> pl.DataFrame:
    """A clean panel: prices that walk slowly, volumes above 0."""
    days = Sessions("XNYS").between(date(2022, 1, 3), date(2024, 12, 31))[:sessions]
    frames = []
    for place, symbol in enumerate(symbols):
        closes = [50.0 + 10 * place + (number * (7 + place)) % 23 / 10 for number in range(len(days))]
        frames.append(
            pl.DataFrame(
                {
                    "symbol": [symbol] * len(days),
                    "date": days,
                    "open": [close - 0.1 for close in closes],
                    "high": [close + 0.5 for close in closes],
                    "low": [close - 0.5 for close in closes],
                    "close": closes,
                    "volume": [1_000_000 + 1_000 * (number % 11) for number in range(len(days))],
                }
            )
        )
    return pl.concat(frames)


def repeated(frame: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([frame, frame.head(2)])


def dated(frame: pl.DataFrame, day: date) -> pl.DataFrame:
    return pl.concat([frame, frame.tail(1).with_columns(pl.lit(day).alias("date"))])


BAD_PANELS: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], str, list[str]]] = {
    "a missing column": (
        lambda f: f.drop("open", "volume"),
        "MissingColumnsError",
        [
            r"lacks the columns open, volume",
            r"It has: symbol, date, high, low, close",
            r"Rename or add",
            "nothing was stored",
        ],
    ),
    "duplicate keys": (
        repeated,
        "DuplicateKeysError",
        [r"2 duplicated keys \(symbol, date\)", "AAA 2022-01-03", "Keep one row per key", "nothing was stored"],
    ),
    "dates in the future": (
        lambda f: dated(f, date(2025, 6, 16)),
        "FutureDataError",
        [
            r"bars up to 2025-06-16, later than now \(2025-06-13 22:00 UTC\)",
            "check the dates and the clock",
            "Nothing was stored",
        ],
    ),
    "no row": (lambda f: f.clear(), "EmptyUniverseError", ["no symbol left", "holds no row", "Widen the universe"]),
    "a text for a price": (
        lambda f: f.with_columns(pl.col("close").cast(pl.String)),
        "WrongTypeError",
        ["column 'close' is String, expected a number", "Nothing was stored"],
    ),
    "a date that is none": (
        lambda f: f.with_columns(pl.lit("yesterday").alias("date")),
        "WrongTypeError",
        ["'date'", "no ISO date", "Nothing was stored"],
    ),
    "years that the calendar does not know": (
        lambda f: pl.concat([f, f.head(1).with_columns(pl.lit(date(1985, 1, 2)).alias("date"))]),
        "InvalidDateRangeError",
        ["begins before the sessions that are known of XNYS", "drop its rows before 1990-01-02"],
    ),
    "too short a history": (
        lambda f: f.filter(pl.col("date") < date(2022, 6, 1)),
        "TooShortHistoryError",
        [r"needs at least 400 sessions of history but has 103", "Backfill an earlier start"],
    ),
}


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
@pytest.mark.parametrize("case", BAD_PANELS)
def test_a_bad_panel_never_becomes_a_market(tmp_path: Path, refused: Refused, case: str, suffix: str) -> None:
    change, error, fragments = BAD_PANELS[case]
    if case == "a text for a price" and suffix == "csv":
        fragments = ["'close' is text such as 'n/a', expected a number"]
        change = lambda f: f.with_columns(pl.lit("n/a").alias("close"))  # noqa: E731
    path = tmp_path / f"bars.{suffix}"
    frame = change(panel())
    frame.write_parquet(path) if suffix == "parquet" else frame.write_csv(path)
    var = tmp_path / "var"
    refused(var, error, ["bars." + suffix, *fragments], "market", "add", str(path))
    assert not var.exists()


def test_a_panel_that_is_not_there_or_not_a_table_is_refused(tmp_path: Path, refused: Refused) -> None:
    var = tmp_path / "var"
    refused(
        var,
        "MissingFileError",
        ["no panel of bars", "nowhere.parquet", "Check the path"],
        "market",
        "add",
        "nowhere.parquet",
    )
    (tmp_path / "noise.parquet").write_bytes(b"PAR1 this is no parquet file")
    refused(
        var,
        "UnreadableFileError",
        ["noise.parquet", "cannot be read"],
        "market",
        "add",
        str(tmp_path / "noise.parquet"),
    )
    (tmp_path / "empty.csv").write_bytes(b"")
    refused(var, "EmptyUniverseError", ["the file is empty"], "market", "add", str(tmp_path / "empty.csv"))
    panel().write_parquet(tmp_path / "bars.parquet")
    missing = str(tmp_path / "sectors.csv")
    arguments = ("market", "add", str(tmp_path / "bars.parquet"), "--sectors", missing)
    refused(var, "MissingFileError", ["no file of sectors", "sectors.csv"], *arguments)
    assert not var.exists()


def test_a_panel_that_changes_for_the_worse_is_refused_by_the_backfill(tmp_path: Path, refused: Refused) -> None:
    """The market was added when the file was good; the file is checked again each time it is read."""
    var, path = tmp_path / "var", tmp_path / "bars.parquet"
    panel().write_parquet(path)
    market = markets.add_panel(str(path), settings_of(var), NOW)
    ws = open_workspace(market, settings_of(var, market=market.id))
    backfilled(ws)
    before = versions(ws)
    cases: list[tuple[pl.DataFrame | None, str, str]] = [
        (panel().drop("low"), "MissingColumnsError", "lacks the column low"),
        (repeated(panel()), "DuplicateKeysError", "2 duplicated keys"),
        (dated(panel(), date(2025, 6, 16)), "FutureDataError", "up to 2025-06-16"),
        (panel().clear(), "EmptyUniverseError", "holds no row"),
        (None, "MissingFileError", "Check the path"),
    ]
    for frame, error, text in cases:
        path.unlink()
        if frame is not None:
            frame.write_parquet(path)
        refused(var, error, [text], "backfill", "--market", market.id, "--refresh")
        assert versions(ws) == before


def test_two_panels_of_one_name_are_two_markets(tmp_path: Path) -> None:
    var = tmp_path / "var"
    ids = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        panel().write_parquet(tmp_path / folder / "bars.parquet")
        ids.append(markets.add_panel(str(tmp_path / folder / "bars.parquet"), settings_of(var), NOW).id)
    assert ids[0] != ids[1]
    assert all(re.fullmatch(r"bars-[0-9a-f]{6}", found) for found in ids)
    again = markets.add_panel(str(tmp_path / "one" / "bars.parquet"), settings_of(var), NOW)
    assert again.id == ids[0]
    one, two = (open_workspace(found, settings_of(var)) for found in ids)
    backfilled(one)
    assert one.tables.names() != []
    assert two.tables.names() == []


def test_a_panel_with_a_session_that_nobody_traded_is_stored_once(tmp_path: Path) -> None:
    """A day without any bar in the middle of a panel is no reason to ask for it again, or to fail."""
    var, path = tmp_path / "var", tmp_path / "bars.parquet"
    panel().filter(pl.col("date") != date(2022, 8, 10)).write_parquet(path)
    ws = open_workspace(markets.add_panel(str(path), settings_of(var), NOW), settings_of(var))
    backfilled(ws)
    before = versions(ws)
    assert backfilled(ws, run_id="again").rows == 0
    assert versions(ws) == before


def test_yahoo_needs_symbols(tmp_path: Path) -> None:
    with pytest.raises(TradingError, match=r"'yahoo' has no symbol left.*SYMBOLS=AAPL"):
        markets.resolve("yahoo", [" ", ""], settings_of(tmp_path / "var"), NOW)
    write_market(tmp_path / "var", "us", source="yahoo", options={"symbols": []})
    with pytest.raises(TradingError, match="symbols"):
        backfilled(open_workspace("us", settings_of(tmp_path / "var")))
    assert not (tmp_path / "var" / "artifacts").exists()


# --- names and values -------------------------------------------------------------------------------------------------


def test_unknown_names_are_answered_with_the_known_ones(ws: Workspace, refused: Refused) -> None:
    var = ws.settings.var_dir
    at = ("--market", MARKET)
    refused(
        var, "", ["Unknown market config 'tinny'.", "Did you mean 'tiny'", "simulated"], "backfill", "--market", "tinny"
    )
    refused(
        var,
        "",
        ["Unknown model config 'linaer'.", "Did you mean 'linear'", "lstm, tft"],
        "train",
        *at,
        "--model",
        "linaer",
    )
    refused(var, "", ["Unknown strategy config 'top11'.", "Did you mean 'top10'"], "trade", *at, "--strategy", "top11")
    refused(var, "", ["Unknown strategy config 'best'"], "evaluate", *at, "--strategy", "best")
    refused(var, "NoModelError", ["no model version 7", "Train one"], "predict", *at, "--version", "7")
    refused(var, "NoModelError", ["alias 'best'", "Train one"], "predict", *at, "--version", "best")
    refused(var, "", ["Unknown account 'nobody'", "Allowed"], "flatten", *at, "--account", "nobody")


@pytest.mark.parametrize(
    ("change", "error", "fragments"),
    [
        (
            {"features": ["log_ret", "rsi_15"]},
            "",
            ["Unknown feature 'rsi_15'", "Did you mean 'rsi_14'", "`trading features list` prints all"],
        ),
        ({"model": "lstn"}, "", ["Unknown model 'lstn'", "Did you mean 'lstm'", "tft"]),
        ({"architecture": {"rigde": 1.0}}, "InvalidConfigError", ["rigde: unknown key; allowed: .*ridge"]),
        ({"horizons": [0]}, "InvalidConfigError", ["horizons.0", "greater than or equal to 1", "given: 0"]),
        ({"training": {"epoch": 3}}, "InvalidConfigError", ["epoch: unknown key; allowed: .*epochs"]),
        ({"featurse": []}, "InvalidConfigError", ["featurse: unknown key; allowed: .*features"]),
    ],
    ids=["a feature", "an architecture", "an option", "a horizon", "a training option", "a key"],
)
def test_a_wrong_model_config_is_refused_before_a_request_is_written(
    ws: Workspace, refused: Refused, change: dict[str, Any], error: str, fragments: list[str]
) -> None:
    values = yaml.safe_load((ws.settings.config_dir / "models" / "linear.yaml").read_text())
    folder = ws.settings.var_dir / "configs" / "models"
    folder.mkdir()
    (folder / "mine.yaml").write_text(yaml.safe_dump({**values, **change}))
    refused(ws.settings.var_dir, error, fragments, "train", "--market", MARKET, "--model", "mine")


def test_a_market_with_too_short_a_history_is_not_trained_on(tmp_path: Path, refused: Refused) -> None:
    ws = new_market(tmp_path / "var")
    refused(
        tmp_path / "var",
        "NoDataError",
        ["'tiny' has no table", "trading backfill"],
        "train",
        "--market",
        MARKET,
        "--model",
        "linear",
    )
    backfilled(ws, None, date(2024, 6, 28))
    text = [
        r"Training on market 'tiny' needs at least 160 sessions of history but has 124",
        "Backfill an earlier start",
    ]
    refused(tmp_path / "var", "TooShortHistoryError", text, "train", "--market", MARKET, "--model", "linear")
    assert list((tmp_path / "var").rglob("request.json")) == []


def test_a_test_start_that_leaves_too_little_is_refused_without_a_version(ws: Workspace, refused: Refused) -> None:
    request = train.prepare(ws, model="linear", test_start=date(2024, 1, 22), now=NOW)
    text = [r"needs at least \d+ sessions of history but has \d+"]
    refused(ws.settings.var_dir, "TooShortHistoryError", text, "train", "--request", request.request_uri)
    assert len(ws.registry().list(MARKET)) == 1


def test_dates_that_cannot_be_are_refused(ws: Workspace, refused: Refused) -> None:
    var, at = ws.settings.var_dir, ("--market", MARKET)
    text = ["2025-06-13 .. 2025-06-02", "start lies after the end", "Give a start and an end"]
    refused(var, "InvalidDateRangeError", text, "backfill", *at, "--start", "2025-06-13", "--end", "2025-06-02")
    text = ["last closed session is 2025-06-13"]
    refused(var, "InvalidDateRangeError", text, "backfill", *at, "--end", "2025-06-16")
    refused(
        var,
        "InvalidDateRangeError",
        ["no session in it"],
        "backfill",
        *at,
        "--start",
        "2025-06-07",
        "--end",
        "2025-06-08",
    )
    refused(var, "NotASessionError", ["2025-06-15 is not a trading session"], "trade", *at, "--session", "2025-06-15")
    refused(
        var,
        "StaleDataError",
        ["2025-06-16", "end at 2025-06-13", "feature_backfill"],
        "predict",
        *at,
        "--end",
        "2025-06-16",
    )
    text = ["labels known at", "may not forecast session 2024-03-01", "after its cut-off"]
    refused(var, "LookAheadError", text, "predict", *at, "--start", "2024-03-01")
    with pytest.raises(InvalidDateRangeError, match="no session after the first forecast"):
        _evaluated(ws, date(2025, 6, 13))


def _evaluated(ws: Workspace, start: date) -> EvaluationRef:
    return evaluate.evaluate(
        ws, version="champion", strategies=["top10"], start=start, end=None, capital=1e6, run_id="e", now=NOW
    )


def test_forecasts_whose_labels_are_not_known_yet_are_no_reason_to_crash(ws: Workspace) -> None:
    """A decision of Thursday is filled on Friday; its label needs Monday's open: no skill is known, which is not zero."""
    made = _evaluated(ws, date(2025, 6, 12))
    assert math.isnan(made.mean_rank_ic)
    assert len(made.strategies) == 1
    written = refs.load(EvaluationRef, ws.store.read_json("tiny/evaluations/latest-v1.json"))
    assert refs.dump(written) == refs.dump(made)
    assert ws.store.exists(made.report)


def test_operations_in_the_wrong_order_name_the_one_that_is_missing(tmp_path: Path, refused: Refused) -> None:
    ws = new_market(tmp_path / "var")
    var, at = tmp_path / "var", ("--market", MARKET)
    refused(var, "StaleDataError", ["needs features of session", "are empty", "Run feature_backfill"], "trade", *at)
    backfilled(ws)
    ws.registry().list(MARKET)  # creates the registry's file
    refused(var, "NoModelError", ["'tiny' has no model", "Train one"], "predict", *at)
    refused(var, "NoModelError", ["'tiny' has no model", "Train one"], "evaluate", *at)
    trained(ws)
    refused(var, "NoDataError", ["has no forecasts yet", "trading predict"], "evaluate", *at)


# --- damaged files ----------------------------------------------------------------------------------------------------


def flipped(path: Path) -> None:
    """Turns one byte in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def without_forecasts(ws: Workspace) -> None:
    rewritten(ws, "forecasts", lambda frame: frame.clear(), None)


@pytest.mark.parametrize("name", ["weights.safetensors", "config.json", "MANIFEST.json"])
def test_a_damaged_bundle_is_refused_by_inference_and_by_trading(ws: Workspace, refused: Refused, name: str) -> None:
    without_forecasts(ws)
    (bundle,) = (ws.settings.var_dir / "artifacts" / MARKET / "models" / "linear").iterdir()
    flipped(bundle / name)
    text = [name, "is corrupted", "was refused and not used", "run the step that makes it again"]
    refused(ws.settings.var_dir, "ArtifactCorruptedError", text, "predict", "--market", MARKET)
    before = versions(ws)
    with pytest.raises(ArtifactCorruptedError):
        traded(ws, date(2025, 6, 13))
    assert versions(ws) == before
    ledger = Ledger(ws.ledger_store())
    for record in ledger.accounts():
        assert ledger.get_decision(record.account, date(2025, 6, 13)) is None
        assert ledger.orders(record.account, date(2025, 6, 13)) == []


def test_training_again_restores_a_damaged_bundle(ws: Workspace) -> None:
    """What the message advises: the same request gives the same bytes, so the version that cites them is whole again."""
    made = trained(ws, test_start=date(2025, 5, 1))
    ws.registry().promote(MARKET, made.version)
    flipped(Path(ws.store.uri(made.bundle)) / "weights.safetensors")
    other = reusable_version(ws, "linear", NOW)  # the undamaged version before it
    assert other is not None
    assert other.version != made.version
    with pytest.raises(ArtifactCorruptedError):
        forecast(ws)
    assert trained(ws, test_start=date(2025, 5, 1)).digest == made.digest
    assert forecast(ws).added > 0
    again = reusable_version(ws, "linear", NOW)
    assert again is not None
    assert again.version >= made.version
    assert traded(ws, date(2025, 6, 13)).status == "settled"


def test_a_bundle_that_is_gone_is_refused(ws: Workspace, refused: Refused) -> None:
    without_forecasts(ws)
    (Path(ws.store.uri(ws.registry().get(MARKET).bundle_uri)) / "MANIFEST.json").unlink()
    text = ["no artifact at", "MANIFEST.json", "run that step again"]
    refused(ws.settings.var_dir, "ArtifactMissingError", text, "predict", "--market", MARKET)


def test_other_formulas_than_the_models_are_refused(
    ws: Workspace, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trading_core.features import build

    without_forecasts(ws)
    now = build.fingerprints

    def other_rsi(names: Sequence[str]) -> dict[str, str]:
        return {**now(names), "rsi_14": "0" * 16}

    monkeypatch.setattr(build, "fingerprints", other_rsi)
    text = ["other formulas of: rsi_14", "Train a new version"]
    refused(ws.settings.var_dir, "FormulaMismatchError", text, "predict", "--market", MARKET)


@pytest.mark.parametrize("stage", ["bars", "features"])
def test_a_damaged_staged_file_is_refused_and_no_table_changes(ws: Workspace, stage: str) -> None:
    last = date(2025, 6, 13)
    plan = backfill.plan(ws, start=last, end=last, refresh=True, fill_gap=False, run_id="damaged", now=NOW)
    before = versions(ws)
    staged = [backfill.fetch(ws, plan, chunk, NOW) for chunk in plan.chunks]
    if stage == "features":
        staged = [backfill.compute(ws, plan, span, NOW) for span in plan.ranges]
    folder = ws.settings.var_dir / "artifacts" / staged[0].prefix
    flipped(sorted(folder.glob("*.parquet"))[0])
    step = backfill.check_and_store if stage == "bars" else backfill.publish
    with pytest.raises(
        ArtifactCorruptedError, match=r"\.parquet' is corrupted: .*SHA-256.*run the step that makes it again"
    ):
        step(ws, plan, staged, NOW)
    assert versions(ws) == before


def test_a_damaged_request_is_refused(ws: Workspace, refused: Refused) -> None:
    request = train.prepare(ws, model="linear", test_start=date(2025, 5, 1), now=NOW)
    path = Path(request.request_uri)
    path.write_text(path.read_text()[:-20])
    refused(
        ws.settings.var_dir,
        "ArtifactCorruptedError",
        ["request.json", "it is not JSON"],
        "train",
        "--request",
        str(path),
    )
    path.write_text(json.dumps({"market": {}}))
    refused(
        ws.settings.var_dir,
        "InvalidConfigError",
        ["request.json' ?is not valid|request.json is not valid"],
        "train",
        "--request",
        str(path),
    )
    outside = str(ws.settings.var_dir.parent / "request.json")
    refused(ws.settings.var_dir, "UriEscapeError", ["lies outside the artifact store"], "train", "--request", outside)


# --- what cannot be reached -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def closed() -> str:
    """The URL of a port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_an_s3_that_does_not_answer_is_named(
    tmp_path: Path, refused: Refused, closed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    var = tmp_path / "var"
    write_market(var)
    for name, value in {
        "ARTIFACTS_URL": "s3://nowhere/trading",
        "S3_ENDPOINT_URL": closed,
        "S3_ACCESS_KEY_ID": "testing",
        "S3_SECRET_ACCESS_KEY": "a-secret-key",
    }.items():
        monkeypatch.setenv(f"TRADING_{name}", value)
    text = ["s3://nowhere/trading", "cannot be reached", "Check the URL, endpoint, credentials and network"]
    printed = refused(var, "StoreUnreachableError", text, "backfill", "--market", MARKET)
    assert "a-secret-key" not in printed


def test_no_order_is_sent_when_the_artifacts_cannot_be_reached(
    copied: Callable[..., Workspace], closed: str, sent: list[str]
) -> None:
    keys = {"s3_access_key_id": "testing", "s3_secret_access_key": "testing"}
    ws = copied(artifacts_url="s3://nowhere/trading", s3_endpoint_url=closed, **keys)
    with pytest.raises(StoreUnreachableError, match=r"'s3://nowhere/trading' cannot be reached"):
        traded(ws, date(2025, 6, 13))
    assert sent == []


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The symbols of all orders that reached a broker."""
    symbols: list[str] = []
    submit = PaperBroker.submit

    def noted(self: PaperBroker, order: Any) -> Any:
        symbols.append(order.symbol)
        return submit(self, order)

    monkeypatch.setattr(PaperBroker, "submit", noted)
    return symbols


def test_no_order_is_sent_when_the_ledger_cannot_be_reached(
    copied: Callable[..., Workspace], closed: str, sent: list[str], refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {"s3_access_key_id": "testing", "s3_secret_access_key": "testing"}
    ws = copied(ledger_url="dynamodb://trading-ledger", dynamodb_endpoint_url=closed, **keys)
    with pytest.raises(
        LedgerUnreachableError, match=r"'dynamodb://trading-ledger' cannot be reached.*No order is sent"
    ):
        traded(ws, date(2025, 6, 13))
    for name, value in {"LEDGER_URL": "dynamodb://trading-ledger", "DYNAMODB_ENDPOINT_URL": closed}.items():
        monkeypatch.setenv(f"TRADING_{name}", value)
    monkeypatch.setenv("TRADING_S3_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("TRADING_S3_SECRET_ACCESS_KEY", "testing")
    text = ["No order is sent without it", "run the session again"]
    refused(ws.settings.var_dir, "LedgerUnreachableError", text, "trade", "--market", MARKET)
    assert sent == []


def test_a_ledger_that_is_lost_while_orders_are_sent_stops_the_session(
    ws: Workspace, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The intent of the fourth order cannot be written, so the fourth order is not sent; the next run completes."""
    record = Ledger.record_intent

    def fail_at_the_fourth(self: Ledger, intent: Any) -> bool:
        if len(sent) == 3:
            raise LedgerUnreachableError("sqlite:///ledger", "disk I/O error")
        return record(self, intent)

    monkeypatch.setattr(Ledger, "record_intent", fail_at_the_fourth)
    with pytest.raises(LedgerUnreachableError):
        traded(ws, date(2025, 6, 13))
    assert len(sent) == 3
    monkeypatch.setattr(Ledger, "record_intent", record)
    result = traded(ws, date(2025, 6, 13))
    assert (result.status, result.orders, result.fills) == ("settled", 10, 10)
    assert len(sent) == len(set(sent)) == 10


def test_a_ledger_that_is_no_database_is_refused(ws: Workspace, sent: list[str], refused: Refused) -> None:
    (ws.settings.var_dir / "ledger.sqlite").write_bytes(b"this is no database" * 100)
    text = ["ledger.sqlite", "cannot be reached", "No order is sent"]
    refused(ws.settings.var_dir, "LedgerUnreachableError", text, "trade", "--market", MARKET, "--session", "2025-06-13")
    assert sent == []


def test_a_store_url_that_is_none_is_refused(tmp_path: Path) -> None:
    for url in ("ftp://host/folder", "s3://"):
        with pytest.raises(InvalidConfigError, match=r"neither a folder nor s3://bucket/prefix"):
            open_workspace("simulated", settings_of(tmp_path, artifacts_url=url))
    with pytest.raises(InvalidConfigError, match=r"sqlite:///path/of/file or dynamodb://table"):
        open_workspace("simulated", settings_of(tmp_path, ledger_url="postgres://x")).ledger_store()


# --- training that is interrupted -------------------------------------------------------------------------------------


@pytest.fixture
def lstm(ws: Workspace) -> str:
    """A small LSTM as a model config of the workspace."""
    values = yaml.safe_load((ws.settings.config_dir / "models" / "lstm.yaml").read_text())
    values |= {
        "architecture": {"hidden_size": 8, "layers": 1},
        "training": {"epochs": 2, "batches_per_epoch": 4, "dates_per_batch": 2},
        "encoder_length": 4,
    }
    folder = ws.settings.var_dir / "configs" / "models"
    folder.mkdir()
    (folder / "small-lstm.yaml").write_text(yaml.safe_dump(values))
    return "small-lstm"


def training_process(ws: Workspace, uri: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "trading_core.cli", "train", "--request", uri]
    variables = {**os.environ, "TRADING_VAR_DIR": str(ws.settings.var_dir), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_an_interrupted_training_registers_nothing_and_can_be_started_again(ws: Workspace, lstm: str) -> None:
    request = train.prepare(ws, model=lstm, test_start=None, now=NOW)
    before = tree(ws.settings.var_dir)
    process = training_process(ws, request.request_uri)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("epoch 1/2"):
            process.send_signal(signal.SIGTERM)
    assert process.wait(60) != 0
    assert any(line.startswith("epoch 1/2") for line in lines), lines
    assert [version.version for version in ws.registry().list(MARKET)] == [1]
    assert tree(ws.settings.var_dir) == before
    with pytest.raises(TrainingFailedError, match=r"left no result.*start it again with the same request"):
        train.outcome(ws, request)

    made = train.run(request.request_uri, ws.settings, NOW)
    assert (made.version, made.model, made.aliases) == (2, lstm, ("challenger",))
    assert forecast(ws, version="2", start=date(2025, 6, 13)).added > 0


def test_a_training_process_that_fails_says_why(ws: Workspace) -> None:
    request = train.prepare(ws, model="linear", test_start=date(2025, 5, 1), now=NOW)
    Path(request.request_uri).unlink()
    reason = r"(?s)ended with code 2.*ArtifactMissingError.*request\.json.*No model version was registered"
    with pytest.raises(TrainingFailedError, match=reason):
        train.run_in_process(request, ws.settings)


def test_a_training_that_dies_before_it_registers_leaves_the_champion_alone(
    ws: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trading_core.registry.mlflow_registry import Registry

    def fail(*_: object, **__: object) -> None:
        raise StoreUnreachableError("sqlite:///mlflow.db", "disk full")

    monkeypatch.setattr(Registry, "register", fail)
    with pytest.raises(StoreUnreachableError):
        trained(ws, test_start=date(2025, 5, 1))
    monkeypatch.undo()
    assert [v.version for v in ws.registry().list(MARKET)] == [1]
    forecast(ws, start=date(2025, 6, 13))
    made = trained(ws, test_start=date(2025, 5, 1))
    assert (made.version, made.reused) == (2, False)


def test_a_missing_config_folder_is_no_traceback(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "var", config_dir=tmp_path / "nothing")
    with pytest.raises(TradingError, match="Unknown market config 'tiny'"):
        open_workspace(MARKET, settings)
    with pytest.raises(MissingFileError, match="no panel of bars"):
        markets.resolve("missing/bars.parquet", [], settings, NOW)
