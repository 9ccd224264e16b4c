"""A small simulated market for the tests of the pipelines, a prepared workspace of it, and what compares two of them.

Run as a program (`python tiny_market.py backfill <var> <start> <end> [<n>]`) it is a process that backfills; with <n> it
is killed (SIGKILL) when it has committed n tables.
"""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from trading_core import config
from trading_core.config import Settings
from trading_core.pipelines import backfill, evaluate, infer, refs, train
from trading_core.pipelines.evaluation_inputs import Wanted
from trading_core.pipelines.refs import EvaluationRef, ModelRef, SessionResult
from trading_core.pipelines.workspace import Workspace, open_workspace
from trading_core.storage.tables import Predicate

Contents = dict[str, pl.DataFrame]  # of tables, by name

MARKET = "tiny"
NOW = datetime(2025, 6, 13, 22, 0, tzinfo=UTC)  # a Friday, two hours after the close
LAST = date(2025, 6, 13)
START = date(2024, 7, 1)
OPTIONS: dict[str, Any] = {
    "symbols": 30, "start": START.isoformat(), "seed": 11, "signal_ic": 0.1,
    # More events than a real market has, so that a few sessions meet some.
    "splits_per_year": 0.5, "delistings_per_year": 0.05,
}  # fmt: skip


def write_market(var: Path, name: str = MARKET, **changes: Any) -> None:
    """The market's file under `var/configs/markets`; `changes` of its keys."""
    values = {
        "id": name,
        "source": "simulated",
        "history_start": START.isoformat(),
        "test_sessions": 60,
        "options": OPTIONS,
    }
    folder = var / "configs" / "markets"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.yaml").write_text(yaml.safe_dump({**values, **changes}))


def settings_of(var: Path, **changes: Any) -> Settings:
    """Settings of a test: everything under `var`, whatever the environment says."""
    return Settings(var_dir=var, **{"market": MARKET, "model": "linear", **changes})


def new_market(var: Path, **changes: Any) -> Workspace:
    """An empty workspace of the market on a folder and SQLite."""
    write_market(var, **changes)
    return open_workspace(MARKET, settings_of(var))


def backfilled(ws: Workspace, start: date | None = None, end: date | None = None, **changes: Any) -> Any:
    """One backfill. `changes`: refresh, run_id, now."""
    given = {"refresh": False, "run_id": "fill", "now": NOW, **changes}
    return backfill.run(ws, start=start, end=end, **given)


def trained(ws: Workspace, now: datetime = NOW, **changes: Any) -> ModelRef:
    """One training of the linear model. `changes`: those of `train.prepare`."""
    request = train.prepare(ws, now=now, **{"model": "linear", "test_start": None, **changes})
    return train.run(request.request_uri, ws.settings, now)


def evaluated(
    ws: Workspace, strategies: Sequence[str] = (), version: str = "champion", **changes: Any
) -> EvaluationRef:
    """One evaluation of all strategies, or some, with little bootstrap. `changes`: those of `Wanted`, run_id."""
    run_id, now = changes.pop("run_id", "evaluate"), changes.pop("now", NOW)
    names = tuple(strategies) or tuple(config.names("strategies", ws.settings))
    given = {"versions": (version,), "strategies": names, "resamples": 200, "random_portfolios": 3, **changes}
    return evaluate.evaluate(ws, Wanted(**given), run_id=run_id, now=now)


def without_run(made: EvaluationRef) -> dict[str, Any]:
    """All an evaluation says but its run in MLflow: a later one takes the place of the earlier and has a new id."""
    return {key: value for key, value in refs.dump(made).items() if key != "mlflow_run"}


def paid_for(ws: Workspace, symbol: str, session: date, quantity: float) -> float:
    """The price of a purchase of `quantity` at the open of `session`, worked out by hand from the documented costs: 4 bps of
    spread and slippage and the square-root impact with coefficient 1, from the 20 sessions before."""
    bars = ws.tables.read("bars").filter((pl.col("symbol") == symbol) & (pl.col("session") <= session)).sort("session")
    events = ws.tables.read("corporate_actions").filter((pl.col("symbol") == symbol) & (pl.col("kind") == "split"))
    rows = bars.tail(22).to_dicts()
    ratio = dict(events.select("session", "value").iter_rows())
    before, volumes = rows[:-1], []
    for number, row in enumerate(before):
        later = [value for day, value in ratio.items() if row["session"] < day <= session]
        row["close"] /= math.prod(later)
        volumes += [row["volume"] * math.prod(later)] if number > 0 else []
    moves = [math.log(b["close"] / a["close"]) ** 2 for a, b in pairwise(before)]
    sigma, adv = math.sqrt(sum(moves) / len(moves)), sum(volumes) / len(volumes)
    return float(rows[-1]["open"] * (1.0 + 4e-4 + sigma * math.sqrt(quantity / adv)))


def forecast(ws: Workspace, version: str = "champion", **changes: Any) -> Any:
    given = {"start": None, "end": None, "run_id": "infer", "now": NOW, **changes}
    return infer.infer(ws, version=version, **given)


def traded(ws: Workspace, session: date | None, now: datetime = NOW, **changes: Any) -> SessionResult:
    """One session. `changes`: strategy, is_backfill, replay, run_id."""
    from trading_core.pipelines import trade

    given = {"strategy": "top10", "is_backfill": False, "replay": None, "run_id": "trade", **changes}
    return trade.run(ws, session=session, now=now, **given)


def prepare(var: Path) -> Workspace:
    """Backfilled, trained and forecast, on a folder and SQLite."""
    ws = new_market(var)
    backfilled(ws)
    trained(ws)
    forecast(ws)
    return ws


def copy_of(prepared: Path, target: Path, **changes: Any) -> Workspace:
    """A copy of a prepared folder that can be changed. Model versions cite their bundle by its full path."""
    shutil.copytree(prepared, target)
    database = target / "mlflow" / "mlflow.db"
    if database.is_file():
        with sqlite3.connect(database) as connection:
            for table, column in (("model_version_tags", "value"), ("experiments", "artifact_location")):
                connection.execute(
                    f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (f"{prepared}/", f"{target}/")
                )
        connection.close()
    return open_workspace(MARKET, settings_of(target, **changes))


# --- comparing --------------------------------------------------------------------------------------------------------


def contents(ws: Workspace, name: str) -> pl.DataFrame:
    """A table without its month, columns and rows in one order."""
    frame = ws.tables.read(name)
    frame = frame.select(sorted(column for column in frame.columns if column != "month"))
    # Features are unique by symbol and time; sorting by hundreds of columns costs more than reading them.
    return frame.sort("symbol", "ts") if name.startswith("features_") else frame.sort(pl.all())


def all_contents(ws: Workspace, prefix: str = "") -> Contents:
    return {name: contents(ws, name) for name in ws.tables.names() if name.startswith(prefix)}


def assert_same(left: Contents, right: Contents) -> None:
    """The same tables, bit for bit (NaN equals NaN)."""
    assert sorted(left) == sorted(right)
    for name, frame in left.items():
        assert frame.equals(right[name]), f"table {name} differs"


def versions(ws: Workspace) -> dict[str, int | None]:
    return {name: ws.tables.version(name) for name in ws.tables.names()}


def tree(folder: Path) -> dict[str, str]:
    """Every file under a folder with the SHA-256 of its content, MLflow's and SQLite's own files aside."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix not in (".lock", ".db", ".sqlite", ".sqlite-wal", ".sqlite-shm")
    }


def rewritten(ws: Workspace, name: str, change: Callable[[pl.DataFrame], pl.DataFrame], start: date | None) -> None:
    """Changes the rows of a table from session `start` on."""
    where = Predicate(start, None) if start else Predicate()
    ws.tables.replace(name, change(ws.tables.read(name, where=where)), where)


def cleared(ws: Workspace, name: str, start: date) -> None:
    """Deletes the rows of a table from session `start` on."""
    ws.tables.replace(name, pl.DataFrame(), Predicate(start, None))


def in_process(*arguments: str) -> list[str]:
    """The command of this module as a program."""
    return [sys.executable, __file__, *arguments]


def main() -> None:
    what, var, start, end, *kill_after = sys.argv[1:]
    assert what == "backfill"
    ws = open_workspace(MARKET, settings_of(Path(var)))
    if kill_after:
        from trading_core.storage.tables import Tables

        commits, replace = [0], Tables.replace

        def replace_or_die(self: Tables, *args: Any, **options: Any) -> int:
            if commits[0] == int(kill_after[0]):
                os.kill(os.getpid(), signal.SIGKILL)
            commits[0] += 1
            return replace(self, *args, **options)

        Tables.replace = replace_or_die  # type: ignore[method-assign]
    backfilled(ws, date.fromisoformat(start), date.fromisoformat(end), refresh=True, run_id=f"process-{start}")


if __name__ == "__main__":
    main()
