"""A range is computed from its own bars and its warm-up, and has the bits of a computation from everything."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tiny_market import LAST, NOW, all_contents, assert_same, backfilled, in_process, new_market, versions

from trading_core.features import build as features
from trading_core.features.registry import FEATURES
from trading_core.market import adjust
from trading_core.market.source import ACTION_SCHEMA, BAR_SCHEMA
from trading_core.pipelines import backfill, backfill_inputs, backfill_notes
from trading_core.pipelines.backfill_inputs import LONGEST_HOLE, SPARE
from trading_core.pipelines.backfill_plan import all_families
from trading_core.pipelines.refs import BackfillPlan, FeatureRange
from trading_core.pipelines.workspace import Workspace
from trading_core.schema import BARS, CORPORATE_ACTIONS
from trading_core.storage.tables import Predicate, Tables

NAMES = sorted(FEATURES)
FIRST = date(2018, 1, 2)
RETURNS = date(2020, 6, 1)  # when RELISTED trades again


@pytest.fixture(scope="module")
def bars(tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """Walks of 9 symbols over two and a half warm-ups: holes, a late one, one that goes, one that comes back after a year."""
    ws = new_market(tmp_path_factory.mktemp("calendar"))
    count = int(2.5 * features.warm_up(NAMES)) + 2 * LONGEST_HOLE
    days = ws.sessions.between(FIRST, ws.sessions.offset(FIRST, count))
    closes = dict(zip(days, ws.sessions.closes(days), strict=True))
    rng = np.random.default_rng(4)
    rows = []
    for number, symbol in enumerate(["AAA", "BBB", "CCC", "DDD", "HOLES", "THIN", "LATE", "GONE", "RELISTED"]):
        price = 20.0 + 10 * number
        for i, day in enumerate(days):
            price *= float(np.exp(0.02 * rng.standard_normal()))
            low, high = (price * float(np.exp(sign * 0.01 * abs(rng.standard_normal()))) for sign in (-1, 1))
            if _trades(symbol, i, day, count, rng):
                opened = float(rng.uniform(low, high))
                rows.append((symbol, closes[day], day, opened, high, low, price, float(rng.uniform(1e5, 1e6))))
    return pl.DataFrame(rows, schema=BAR_SCHEMA, orient="row")


def _trades(symbol: str, i: int, day: date, count: int, rng: np.random.Generator) -> bool:
    return {
        "HOLES": not (200 < i % 300 < 290),  # a hole of 89 sessions in every 300
        "THIN": bool(rng.random() < 0.4),
        "LATE": i > count // 2,
        "GONE": i < count // 3,
        "RELISTED": day < date(2019, 3, 1) or day >= RETURNS,
    }.get(symbol, True)


@pytest.fixture(scope="module")
def actions(bars: pl.DataFrame) -> pl.DataFrame:
    days = bars["session"].unique().sort().to_list()
    found = [("AAA", days[n], "dividend", 0.3, days[n - 1]) for n in range(40, len(days), 63)]
    found += [("HOLES", days[n], "dividend", 0.5, days[n - 1]) for n in range(30, len(days), 111)]
    found += [("BBB", days[333], "split", 2.0, days[332]), ("RELISTED", RETURNS, "split", 0.1, days[5])]
    return pl.DataFrame(found, schema=ACTION_SCHEMA, orient="row")


@pytest.fixture(scope="module")
def expected(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    """All features from everything at once; RELISTED is by hand a company of its own before its hole."""
    adjusted = adjust.adjusted(bars, actions)
    old = (pl.col("symbol") == "RELISTED") & (pl.col("session") < RETURNS)
    named = adjusted.with_columns(pl.when(old).then(pl.lit("RELISTED (old)")).otherwise("symbol").alias("symbol"))
    made = features.build(named, NAMES, FIRST, bars["session"].max())  # type: ignore[arg-type]
    return made.with_columns(pl.col("symbol").str.replace(" (old)", "", literal=True)).sort("symbol", "ts")


def stored_market(folder: Path, bars: pl.DataFrame, actions: pl.DataFrame, **changes: Any) -> Workspace:
    """A market whose tables were filled directly."""
    ws = new_market(folder, history_start=FIRST.isoformat(), **changes)
    ws.tables.replace(CORPORATE_ACTIONS.name, actions, Predicate())
    ws.tables.replace(BARS.name, bars, Predicate())
    return ws


def planned(ws: Workspace, *ranges: FeatureRange) -> BackfillPlan:
    return BackfillPlan(ws.market.id, "direct", ranges[0].start, ranges[-1].end, (), ranges)


def computed(ws: Workspace, start: date, end: date) -> pl.DataFrame:
    """The staged features of a range, all families in one frame."""
    span = FeatureRange(start, end)
    ref = backfill.compute(ws, planned(ws, span), span, NOW)
    opened, frame = ws.store.open_published(ref.prefix, ref.digest), None
    for family in features.families(NAMES):
        part = pl.read_parquet(opened.read(f"{family}.parquet"))
        frame = part if frame is None else frame.join(part.drop("session"), on=["symbol", "ts"], validate="1:1")
    assert frame is not None
    return frame.select("symbol", "ts", "session", *NAMES).sort("symbol", "ts")


def between(frame: pl.DataFrame, start: date, end: date) -> pl.DataFrame:
    return frame.filter(pl.col("session").is_between(start, end))


def test_ranges_of_any_length_have_the_bits_of_everything(
    tmp_path: Path, bars: pl.DataFrame, actions: pl.DataFrame, expected: pl.DataFrame
) -> None:
    ws = stored_market(tmp_path / "var", bars, actions)
    days = bars["session"].unique().sort().to_list()
    spans = [(days[n], days[n]) for n in (0, 1, 250, 331, 333, len(days) // 2 + 1, len(days) - 1)]
    spans += [(RETURNS, RETURNS), (days[days.index(RETURNS) - 10], days[days.index(RETURNS) + 10])]
    spans += [(days[n], days[n + 20]) for n in (280, 600)] + [(days[0], days[-1])]
    for start, end in spans:
        found = computed(ws, start, end)
        assert found.equals(between(expected, start, end)), f"{start} .. {end}"


def test_a_range_reads_the_bars_of_its_warm_up_and_no_older_ones(
    tmp_path: Path, bars: pl.DataFrame, actions: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Symbols without holes here: prices and volumes are read for the range, the warm-up and a few spare sessions."""
    whole = bars.filter(pl.col("symbol").is_in(["AAA", "BBB", "CCC", "DDD", "LATE", "GONE"]))
    ws = stored_market(tmp_path / "var", whole, actions)
    days = whole["session"].unique().sort().to_list()
    rows = read_whole_bars(monkeypatch)
    computed(ws, days[-20], days[-1])
    assert rows == [between(whole, days[-20 - features.warm_up(NAMES) - SPARE], days[-1]).height]


def read_whole_bars(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of every read of bars with all their columns."""
    read, rows = Tables.read, []

    def counting(self: Tables, name: str, *, columns: Sequence[str] | None = None, **given: Any) -> pl.DataFrame:
        found = read(self, name, columns=columns, **given)
        if name == BARS.name and (columns is None or "open" in columns):
            rows.append(found.height)
        return found

    monkeypatch.setattr(Tables, "read", counting)
    return rows


def test_publish_alone_streams_a_market_whose_bars_were_there(
    tmp_path: Path,
    bars: pl.DataFrame,
    actions: pl.DataFrame,
    expected: pl.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing was fetched and nothing is staged: range by range, some families at a time, it computes, commits, lets go."""
    monkeypatch.setattr(backfill_inputs, "CELLS_AT_ONCE", 100_000)
    ws = stored_market(tmp_path / "var", bars, actions, compute_sessions=400)
    days = bars["session"].unique().sort().to_list()
    now = ws.sessions.close(days[-1])
    plan = filling(ws, days[-1], now)
    assert [span.start for span in plan.ranges] == days[::400]
    made = backfill.publish(ws, plan, (), now)
    assert (made.rows, made.start, made.end) == (bars.height, FIRST, days[-1])
    for family, names in features.families(NAMES).items():
        stored = ws.tables.read(features.table_name(family)).sort("symbol", "ts")
        assert stored.select(names).equals(expected.select(names)), family
    assert ws.store.list("tiny/staging") == []


def filling(ws: Workspace, end: date, now: datetime) -> BackfillPlan:
    """Families are named, so that nothing is fetched."""
    made = backfill.plan(
        ws, start=None, end=end, refresh=False, fill_gap=False, run_id="bulk", now=now, families=all_families()
    )
    assert made.chunks == ()
    return made


def test_a_bar_that_changes_while_ranges_are_committed_is_seen(
    tmp_path: Path, bars: pl.DataFrame, actions: pl.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run corrects a bar of the first range after that was committed: it and all later ones are made again."""
    days = bars["session"].unique().sort().to_list()[:240]
    few = bars.filter(pl.col("symbol").is_in(["AAA", "BBB", "CCC"]) & (pl.col("session") <= days[-1]))
    one, two = (stored_market(tmp_path / name, few, actions, compute_sessions=80) for name in ("one", "two"))
    wrong = pl.when((pl.col("symbol") == "AAA") & (pl.col("session") == days[50])).then(pl.col("close") * 1.001)
    corrected = few.with_columns(wrong.otherwise(pl.col("close")).alias("close"))
    two.tables.replace(BARS.name, corrected, Predicate())
    plans = [filling(ws, days[-1], NOW) for ws in (one, two)]
    replace, once = Tables.replace, []

    def disturbed(self: Tables, name: str, *args: Any, **options: Any) -> int:
        made = replace(self, name, *args, **options)
        if name == "features_returns" and not once:
            once.append(name)
            replace(one.tables, BARS.name, corrected, Predicate())
        return made

    with monkeypatch.context() as patch:
        patch.setattr(Tables, "replace", disturbed)
        backfill.publish(one, plans[0], (), NOW)
    backfill.publish(two, plans[1], (), NOW)
    assert once
    assert_same(all_contents(one, "features_"), all_contents(two, "features_"))


# --- kill -9 ----------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_a_process_that_is_killed_again_and_again_ends_with_the_same_tables(tmp_path: Path) -> None:
    """SIGKILL when a random number of files has been written: staging, commits, notes, versions; then a run to the end."""
    start = date(2025, 4, 1)
    whole = new_market(tmp_path / "whole", history_start=start.isoformat(), compute_sessions=15)
    backfilled(whole, start, LAST, refresh=True, run_id=f"process-{start}")
    files = len(list(whole.settings.var_dir.rglob("*")))
    ws = new_market(tmp_path / "killed", history_start=start.isoformat(), compute_sessions=15)
    chance, killed = random.Random(17), 0
    for _ in range(3):
        process = subprocess.Popen(in_process("backfill", str(ws.settings.var_dir), str(start), str(LAST)))
        limit = len(list(ws.settings.var_dir.rglob("*"))) + chance.randint(1, files // 3)
        while process.poll() is None and len(list(ws.settings.var_dir.rglob("*"))) < limit:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        killed += process.wait(60) == -signal.SIGKILL
        assert_whole_sessions(ws)
    assert killed >= 2
    backfilled(ws, run_id="to the end")
    assert_same(all_contents(ws), all_contents(whole))
    assert backfill_notes.unfinished(ws) == {}
    assert backfill_notes.rewriting(ws) == {}
    # A kill between a commit and its record may cost the next default run a computation; it must change no value.
    backfilled(ws, run_id="once more")
    assert_same(all_contents(ws), all_contents(whole))
    before = versions(ws)
    assert backfilled(ws, run_id="again").rows == 0
    assert versions(ws) == before


def assert_whole_sessions(ws: Workspace) -> None:
    """A session that the marker shows has features of all families for all its bars."""
    if not ws.tables.exists("features_returns"):
        return
    for session in ws.tables.sessions("features_returns")[-30:]:
        where = Predicate(session, session)
        symbols = {
            name: frozenset(ws.tables.read(name, columns=["symbol"], where=where)["symbol"])
            for name in (BARS.name, *map(features.table_name, features.families(NAMES)))
        }
        assert len(set(symbols.values())) == 1, f"{session} is not whole"
