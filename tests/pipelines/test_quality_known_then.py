"""Suspects through the real pipeline: held on their day, judged by the next bar, and read later as they were known then."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tiny_market import all_contents, assert_same, backfilled, contents, new_market

from trading_core.errors import InvalidConfigError, NoDataError, QualityGateError, UnknownNameError
from trading_core.market.source import BAR_SCHEMA
from trading_core.pipelines import market_data, quality, quality_gate
from trading_core.pipelines.panels import current_versions, load_panel
from trading_core.pipelines.workspace import Workspace
from trading_core.sessions import Sessions

NOW = datetime(2024, 12, 31, 22, 0, tzinfo=UTC)
ANSWERED = date(2025, 1, 2)  # the first close after NOW
SESSIONS = Sessions("XNYS")
DAYS = SESSIONS.between(date(2024, 1, 2), date(2024, 7, 15))
SYMBOLS = [f"S{number:02d}" for number in range(22)]
LAST = len(DAYS) - 1
RISE, SPIKE, SPLIT, UNITS = LAST - 5, LAST - 4, LAST - 3, LAST - 2  # rows of four symbols, one after the other
RISEN, TICKED, HALVED, SCALED = "S03", "S07", "S11", "S15"
SPOILED = {
    RISEN: (RISE, 1.3, True),
    TICKED: (SPIKE, 1.3, False),
    HALVED: (SPLIT, 0.5, True),
    SCALED: (UNITS, 100.0, False),
}


def panel(spoiled: bool = True) -> pl.DataFrame:
    """Random walks with ordinary volume, and a fault in each of four symbols."""
    rng, n, t = np.random.default_rng(4), len(SYMBOLS), len(DAYS)
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.007, t)[None, :] + rng.normal(0, 0.012, (n, t)), axis=1))
    opening = np.concatenate([close[:, :1], close[:, :-1]], axis=1) * np.exp(rng.normal(0, 0.003, (n, t)))
    volume = np.round(1e6 * np.exp(rng.normal(0, 0.2, (n, t))))
    for symbol, (at, factor, stays) in (SPOILED if spoiled else {}).items():
        row, rows = SYMBOLS.index(symbol), slice(at, None if stays else at + 1)
        close[row, rows] *= factor
        opening[row, rows] *= factor
    high, low = np.maximum(opening, close) * 1.004, np.minimum(opening, close) * 0.996
    values = {"open": opening, "high": high, "low": low, "close": close, "volume": volume}
    names = {"symbol": np.repeat(SYMBOLS, t), "date": DAYS * n}
    return pl.DataFrame({**names, **{name: value.ravel() for name, value in values.items()}})


def opened(folder: Path, frame: pl.DataFrame | None = None, **changes: object) -> Workspace:
    """An empty market of a panel file."""
    folder.mkdir(parents=True, exist_ok=True)
    (panel() if frame is None else frame).write_parquet(folder / "panel.parquet")
    return new_market(
        folder / "var",
        source="parquet",
        history_start=DAYS[0].isoformat(),
        history_end=DAYS[-1].isoformat(),
        options={"path": str(folder / "panel.parquet")},
        **changes,
    )


@pytest.fixture(scope="module")
def daily(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, dict[int, dict[str, pl.DataFrame]]]:
    """Filled up to the first fault, then a session at a time; and all tables as they stood after each of those runs."""
    ws = opened(tmp_path_factory.mktemp("daily"))
    backfilled(ws, DAYS[0], DAYS[RISE - 1], now=NOW, run_id="bulk")
    seen = {}
    for number in range(RISE, LAST + 1):
        backfilled(ws, DAYS[number], DAYS[number], now=NOW, run_id=f"day-{number}")
        seen[number] = all_contents(ws)
    return ws, seen


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    ws = opened(tmp_path_factory.mktemp("at-once"))
    backfilled(ws, now=NOW)
    return ws


def records(tables: dict[str, pl.DataFrame]) -> list[tuple[object, ...]]:
    columns = ("symbol", "session", "check", "verdict", "known_at", "resolved_at", "released_at")
    return tables["quarantine"].select(columns).sort("session", "symbol").rows()


def there(tables: dict[str, pl.DataFrame], name: str, symbol: str, at: int) -> bool:
    return not tables[name].filter((pl.col("symbol") == symbol) & (pl.col("session") == DAYS[at])).is_empty()


def test_a_suspect_is_held_on_its_day_and_judged_by_the_next_bar(
    daily: tuple[Workspace, dict[int, dict[str, pl.DataFrame]]],
) -> None:
    _, seen = daily
    rise, spike, split, units = DAYS[RISE], DAYS[SPIKE], DAYS[SPLIT], DAYS[UNITS]
    held = (RISEN, rise, "unexplained_jump", None, rise, None, None)
    risen = (RISEN, rise, "unexplained_jump", "cleared", rise, spike, spike)
    ticked = (TICKED, spike, "reverting_spike", "bad", spike, split, None)
    halved = (HALVED, split, "unadjusted_split", "waiting", split, units, None)
    scaled = (SCALED, units, "reverting_spike", "bad", units, DAYS[UNITS + 1], None)
    assert records(seen[RISE]) == [held]
    assert records(seen[SPIKE]) == [risen, (TICKED, spike, "unexplained_jump", None, spike, None, None)]
    assert records(seen[SPLIT]) == [risen, ticked, (HALVED, split, "unexplained_jump", None, split, None, None)]
    assert records(seen[UNITS])[:3] == [risen, ticked, halved]
    assert records(seen[LAST]) == [risen, ticked, halved, scaled]
    assert [there(seen[day], "bars", RISEN, RISE) for day in (RISE, SPIKE, LAST)] == [False, True, True]
    for symbol, at in ((TICKED, SPIKE), (HALVED, SPLIT), (SCALED, UNITS)):
        assert [there(seen[day], "bars", symbol, at) for day in range(at, LAST + 1)] == [False] * (LAST + 1 - at)
        assert there(seen[LAST], "bars", symbol, at + 1)


def test_day_by_day_and_all_at_once_end_with_the_same_tables(
    daily: tuple[Workspace, dict[int, dict[str, pl.DataFrame]]], at_once: Workspace
) -> None:
    _, seen = daily
    by_day, whole = (
        {name: frame for name, frame in tables.items() if "session" in frame.columns}
        for tables in (seen[LAST], all_contents(at_once))
    )
    assert {"bars", "quarantine"} <= set(by_day)
    assert_same(by_day, whole)


@pytest.mark.thorough
def test_days_in_another_order_end_with_the_same_tables(at_once: Workspace, tmp_path: Path) -> None:
    """The session that judges a suspect is stored before the suspect is."""
    ws = opened(tmp_path)
    backfilled(ws, DAYS[0], DAYS[RISE - 1], now=NOW, run_id="bulk")
    for number in (SPIKE, LAST, RISE, UNITS, SPLIT, LAST - 1):
        backfilled(ws, DAYS[number], DAYS[number], now=NOW, run_id=f"day-{number}")
    for name in ("bars", "quarantine", "features_returns"):
        assert contents(ws, name).equals(contents(at_once, name))
    assert quality_gate.notes.unfinished(ws) == {}


def test_features_of_a_session_stay_what_the_live_run_saw(
    daily: tuple[Workspace, dict[int, dict[str, pl.DataFrame]]], at_once: Workspace
) -> None:
    """The cleared bar is in no feature of its own day, the market's included, and in those of all later days."""
    _, seen = daily
    names = [name for name in at_once.tables.names() if name.startswith("features_")]
    assert names
    for number, tables in seen.items():
        for name in names:
            that_day = tables[name].filter(pl.col("session") == DAYS[number])
            assert that_day.equals(contents(at_once, name).filter(pl.col("session") == DAYS[number])), (name, number)
    assert not there(seen[LAST], "features_returns", RISEN, RISE)
    assert there(seen[LAST], "features_returns", RISEN, RISE + 1)
    later = contents(at_once, "features_returns").filter(pl.col("symbol") == RISEN, pl.col("session") == DAYS[RISE + 1])
    bars = contents(at_once, "bars").filter(pl.col("symbol") == RISEN).sort("session")
    closes = dict(bars.select("session", "close").iter_rows())
    assert later["log_ret"][0] == pytest.approx(np.log(closes[DAYS[RISE + 1]] / closes[DAYS[RISE]]), abs=1e-6)


def test_what_a_backtest_reads_is_what_the_live_session_could_use(at_once: Workspace) -> None:
    data, bars, _ = market_data.load_market_data(at_once, DAYS[-1])
    column, row = data.symbols.index(RISEN), data.sessions.index(DAYS[RISE])
    assert np.isnan(data.closes[row, column])
    assert np.isfinite(data.closes[row + 1, column])
    assert not bars.filter((pl.col("symbol") == RISEN) & (pl.col("session") == DAYS[RISE])).is_empty()


def test_nothing_is_valued_in_other_units(tmp_path: Path) -> None:
    """100 times the price from one bar on, and back eight bars later: an account keeps the last price that made sense."""
    first, back = LAST - 20, LAST - 12
    days = pl.col("date").is_between(DAYS[first], DAYS[back - 1])
    wrong = (pl.col("symbol") == "S05") & days
    spoiled = panel(spoiled=False).with_columns(
        pl.when(wrong).then(pl.col(name) * 100.0).otherwise(pl.col(name)).alias(name)
        for name in ("open", "high", "low", "close")
    )
    ws = opened(tmp_path, spoiled)
    backfilled(ws, now=NOW)
    assert [row[1:3] for row in records(all_contents(ws))] == [
        (DAYS[first], "unit_mixup"),
        (DAYS[back], "unit_mixup"),
    ]
    data, _, _ = market_data.load_market_data(ws, DAYS[-1])
    column = data.symbols.index("S05")
    start, end = data.sessions.index(DAYS[first]), data.sessions.index(DAYS[back])
    assert np.isnan(data.closes[start : end + 1, column]).all()
    assert np.isfinite(data.closes[end + 1 :, column]).all()
    assert np.allclose(data.marks[start : end + 1, column], data.closes[start - 1, column])
    # An answer gives the prices back from then on; here it is younger than all sessions.
    quality.resolve(ws, "S05", DAYS[first], answer="split", ratio=0.01, now=NOW)
    backfilled(ws, DAYS[LAST], DAYS[LAST], refresh=True, now=NOW, run_id="answer")
    row = pl.DataFrame({"symbol": ["S05"], "session": [ANSWERED]})
    assert quality.seen_that_day(ws, row).is_empty()  # one mix-up is left that nobody has explained


def test_held_rows_and_the_sessions_they_were_held_on(at_once: Workspace) -> None:
    row = (RISEN, DAYS[RISE])
    for start, end, expected in ((RISE, RISE, [row]), (0, LAST, [row]), (SPIKE, LAST, []), (0, RISE - 1, [])):
        found = quality.held_rows(at_once, DAYS[start], DAYS[end], {})
        assert found.select("symbol", "session").rows() == expected


def test_no_label_spans_a_suspected_action(at_once: Workspace) -> None:
    from trading_core.dataset.labels import forward_returns

    versions = current_versions(at_once)
    loaded = load_panel(at_once, ["log_ret"], DAYS[0], DAYS[LAST], versions)
    assert loaded.breaks is not None
    assert [(loaded.symbols[s], loaded.sessions[t]) for s, t in np.argwhere(loaded.breaks)] == [
        (HALVED, np.datetime64(DAYS[SPLIT]))
    ]
    masked, plain = (forward_returns(loaded.opens, [1, 3], breaks) for breaks in (loaded.breaks, None))
    row = loaded.symbols.index(HALVED)
    differ = np.argwhere(np.isfinite(plain[row]) & np.isnan(masked[row]))
    # Opened before the split's session and closed on it or later: one session has no bar, so the one-session label is
    # missing anyway; of three sessions, those opened at SPLIT - 2 and SPLIT - 1 (decided a session earlier).
    assert differ.tolist() == [[SPLIT - 3, 1], [SPLIT - 2, 1]]
    assert np.array_equal(masked[row + 1 :], plain[row + 1 :], equal_nan=True)


def test_what_waits_is_asked_as_of_a_day(at_once: Workspace) -> None:
    def waiting(at: int) -> list[tuple[str, date]]:
        return quality.suspected_actions(at_once, {}, DAYS[at]).rows()

    assert waiting(RISE) == [(RISEN, DAYS[RISE])]  # its next bar is not there yet
    assert waiting(SPIKE) == [(TICKED, DAYS[SPIKE])]
    assert waiting(SPLIT) == [(HALVED, DAYS[SPLIT])]
    assert waiting(LAST) == [(HALVED, DAYS[SPLIT])]


# --- a person's answer -----------------------------------------------------------------------------------------------


@pytest.fixture
def answered(tmp_path: Path) -> Workspace:
    ws = opened(tmp_path)
    backfilled(ws, now=NOW, run_id="bulk")
    return ws


def refreshed(ws: Workspace, at: int, run_id: str) -> None:
    backfilled(ws, DAYS[at], DAYS[at], refresh=True, now=NOW, run_id=run_id)


def test_a_split_that_a_person_states_becomes_an_event(answered: Workspace, tmp_path: Path) -> None:
    made = quality.resolve(answered, HALVED, DAYS[SPLIT], answer="split", ratio=2.0, now=NOW)
    assert made.known_at == ANSWERED  # nobody knew it at the close of 12-31, an hour before
    # Any backfill that fetches acts on it, here one of another session.
    refreshed(answered, LAST, "again")
    events = contents(answered, "corporate_actions").select("symbol", "session", "kind", "value", "known_at").rows()
    assert events == [(HALVED, DAYS[SPLIT], "split", 2.0, ANSWERED)]
    assert there(all_contents(answered), "bars", HALVED, SPLIT)
    assert quality.suspected_actions(answered, {}, DAYS[-1]).rows() == [(HALVED, DAYS[SPLIT])]  # as it was known then
    assert quality.suspected_actions(answered, {}, date(2024, 12, 31)).rows() == [(HALVED, DAYS[SPLIT])]
    assert quality.suspected_actions(answered, {}, ANSWERED).is_empty()
    returns = contents(answered, "features_returns").filter(
        pl.col("symbol") == HALVED, pl.col("session") > DAYS[SPLIT - 3]
    )
    assert returns["log_ret"].abs().max() < 0.1
    # The session's own refresh keeps the event, and changes nothing more.
    before = all_contents(answered)
    refreshed(answered, SPLIT, "once more")
    assert_same(all_contents(answered), before)


def test_genuine_releases_and_bad_keeps(answered: Workspace) -> None:
    quality.resolve(answered, HALVED, DAYS[SPLIT], answer="genuine", now=NOW)
    quality.resolve(answered, RISEN, DAYS[RISE], answer="bad", now=NOW)
    refreshed(answered, SPLIT, "first")
    refreshed(answered, RISE, "second")
    tables = all_contents(answered)
    assert there(tables, "bars", HALVED, SPLIT)
    assert not there(tables, "bars", RISEN, RISE)
    found = {row[0]: row[3:] for row in records(tables)}
    assert found[HALVED] == ("cleared", DAYS[SPLIT], DAYS[UNITS], ANSWERED)
    assert found[RISEN][0] == "bad"
    assert found[RISEN][-1] is None
    # Another answer replaces the first.
    quality.resolve(answered, RISEN, DAYS[RISE], answer="genuine", now=NOW)
    refreshed(answered, RISE, "third")
    assert there(all_contents(answered), "bars", RISEN, RISE)


def test_an_answer_that_is_taken_back_takes_its_event_along(answered: Workspace) -> None:
    """A wrong ratio, or a split that was none, must not go on adjusting prices; nobody has to know which day to refresh."""

    def events() -> list[tuple[object, ...]]:
        return contents(answered, "corporate_actions").select("symbol", "session", "kind", "value").rows()

    plain = contents(answered, "features_returns")
    quality.resolve(answered, HALVED, DAYS[SPLIT], answer="split", ratio=3.0, now=NOW)
    refreshed(answered, LAST, "wrong")
    assert events() == [(HALVED, DAYS[SPLIT], "split", 3.0)]
    quality.resolve(answered, HALVED, DAYS[SPLIT], answer="split", ratio=2.0, now=NOW)
    refreshed(answered, LAST, "right")
    assert events() == [(HALVED, DAYS[SPLIT], "split", 2.0)]
    quality.resolve(answered, HALVED, DAYS[SPLIT], answer="bad", now=NOW)
    refreshed(answered, LAST, "bad")
    assert events() == []
    assert not there(all_contents(answered), "bars", HALVED, SPLIT)
    assert contents(answered, "features_returns").equals(plain)


def test_answers_that_make_no_sense_are_refused(at_once: Workspace) -> None:
    ask = [
        ({"answer": "perhaps"}, "--as perhaps: allowed: genuine, bad, split"),
        ({"answer": "split"}, "needs its event"),
        ({"answer": "split", "ratio": -2.0}, "must be above 0"),
        ({"answer": "split", "dividend": float("inf")}, "must be above 0"),
        ({"answer": "bad", "ratio": 2.0}, "takes no --ratio"),
    ]
    for values, text in ask:
        with pytest.raises(InvalidConfigError, match=text):
            quality.resolve(at_once, HALVED, DAYS[SPLIT], **values, now=NOW)  # type: ignore[arg-type]
    with pytest.raises(NoDataError, match="holds no jump of S01"):
        quality.resolve(at_once, "S01", DAYS[SPLIT], answer="bad", now=NOW)


# --- configuration ---------------------------------------------------------------------------------------------------


def test_a_market_says_how_grave_a_check_is(tmp_path: Path) -> None:
    off = opened(tmp_path / "off", quality={"checks": {"unexplained_jump": "off"}})
    backfilled(off, now=NOW)
    assert contents(off, "quarantine").is_empty() if off.tables.exists("quarantine") else True
    assert contents(off, "bars").height == len(SYMBOLS) * len(DAYS)


def test_a_check_that_blocks_shuts_the_gate(tmp_path: Path) -> None:
    broken = panel(spoiled=False).with_columns(
        pl.when((pl.col("symbol") == "S02") & (pl.col("date") == DAYS[9]))
        .then(-1.0)
        .otherwise(pl.col("low"))
        .alias("low")
    )
    ws = opened(tmp_path / "shut", broken, quality={"checks": {"non_positive_price": "block"}})
    with pytest.raises(QualityGateError, match="non_positive_price: 1 finding"):
        backfilled(ws, now=NOW)
    assert ws.tables.names() == []


def test_wrong_checks_and_severities_are_refused_with_the_allowed_ones(tmp_path: Path) -> None:
    ws = opened(tmp_path / "unknown", quality={"checks": {"unexplained_jmp": "off"}})
    with pytest.raises(UnknownNameError, match=r"quality check 'unexplained_jmp'. Did you mean 'unexplained_jump'"):
        backfilled(ws, now=NOW)
    ws = opened(tmp_path / "severity", quality={"checks": {"universe_loss": "quarantine"}})
    with pytest.raises(
        InvalidConfigError, match=r"universe_loss: it cannot be 'quarantine'; allowed: block, warn, off"
    ):
        backfilled(ws, now=NOW)


# --- the report ------------------------------------------------------------------------------------------------------


def test_a_panel_file_is_judged_as_it_was_delivered(tmp_path: Path) -> None:
    """Duplicated, shuffled, with holes and a lost universe: what a market would refuse to read is reported here."""
    frame = panel()
    gone = (pl.col("symbol").is_in(SYMBOLS[12:])) & (pl.col("date") == DAYS[40])
    hole = (pl.col("symbol") == "S01") & pl.col("date").is_between(DAYS[20], DAYS[22])
    stale = (pl.col("symbol") == "S02") & pl.col("date").is_between(DAYS[60], DAYS[66])
    frozen = pl.when(stale).then(pl.lit(50.0))
    frame = frame.filter(~gone & ~hole).with_columns(
        frozen.otherwise(pl.col(name)).alias(name) for name in ("open", "high", "low", "close")
    )
    shuffled = pl.concat([frame, frame.filter(pl.col("symbol") == "S04").head(3)]).sample(
        fraction=1.0, shuffle=True, seed=5
    )
    path = tmp_path / "faulty.parquet"
    shuffled.write_parquet(path)
    from trading_core.config import Settings

    made = quality.overview(str(path), Settings(var_dir=tmp_path / "var"), NOW)
    counts = {row["check"]: row["count"] for row in made.summary}
    assert counts["duplicate_key"] == 3
    assert counts["time_order"] == len(SYMBOLS)
    assert counts["missing_session"] == 3 + 10
    assert counts["universe_loss"] == 1
    assert counts["stale_close"] == 1
    assert made.blocks == tuple(block for block in made.blocks if block.startswith("duplicate_key: 3 finding(s)"))
    assert {(row["symbol"], row["session"]) for row in made.waiting} >= {(HALVED, DAYS[SPLIT])}
    assert any("Price and volume alone cannot always tell" in note for note in made.cannot_tell)
    assert any("gives no events" in note for note in made.cannot_tell)
    assert not (tmp_path / "var").exists()


def test_the_report_of_a_market_is_that_of_its_tables(at_once: Workspace) -> None:
    made = quality.overview("tiny", at_once.settings, NOW)
    stored = contents(at_once, "quarantine").select("symbol", "session", "check", "verdict").sort("symbol").rows()
    told = [(row["symbol"], row["session"], row["check"], row["verdict"]) for row in made.quarantined]
    assert told == stored
    assert made.rows == len(SYMBOLS) * len(DAYS)
    assert set(BAR_SCHEMA) - {"ts"} <= set(made.quarantined[0])


def test_the_command_prints_the_report_and_takes_an_answer(
    at_once: Workspace, answered: Workspace, tmp_path: Path
) -> None:
    import json

    from typer.testing import CliRunner

    from trading_core import cli

    path = tmp_path / "panel.parquet"
    told = CliRunner().invoke(cli.app, ["quality", "--market", str(path), "--json"])
    assert told.exit_code == 0, told.output
    report = json.loads(told.stdout)
    assert report["rows"] == len(SYMBOLS) * len(DAYS)
    assert [(row["symbol"], row["session"], row["check"]) for row in report["waiting"]] == [
        (HALVED, DAYS[SPLIT].isoformat(), "unadjusted_split")
    ]
    table = CliRunner().invoke(cli.app, ["quality", "--market", str(path)])
    assert f"{HALVED}     {DAYS[SPLIT]}" in table.stdout
    assert "- Price and volume alone cannot always tell" in table.stdout

    where = {"TRADING_VAR_DIR": str(answered.settings.var_dir)}
    asked = [
        "quality",
        "resolve",
        HALVED,
        DAYS[SPLIT].isoformat(),
        "--as",
        "split",
        "--ratio",
        "2",
        "-m",
        "tiny",
        "--json",
    ]
    said = CliRunner().invoke(cli.app, asked, env=where)
    assert said.exit_code == 0, said.output
    assert (json.loads(said.stdout)["ratio"], json.loads(said.stdout)["answer"]) == (2.0, "split")
    assert quality_gate.read_answers(answered).select("symbol", "session", "ratio").rows() == [
        (HALVED, DAYS[SPLIT], 2.0)
    ]
