"""Sixteen runs of daily_trade at the same time, of every kind, with Airflow's database on PostgreSQL where it is installed.

`make concurrent-runs` installs a platform of its own in a temporary folder and lets go at once: eight runs of the coming
session on the live paper account (the scheduled one, by `airflow dags trigger`, as the form does, through the API), and eight
of the last session on one replay account (a backfill, and the same). The DAG's max_active_runs of 1 and the pool's one slot
would run them one after the other: a policy in this installation's Airflow home, and a larger pool, lift both, here only.
Then the ledger is compared with the paper broker's books. Exit code 1 when anything is violated.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import platform_harness as harness
from crash_run import prepared, say
from platform_harness import MARKET, SCHEDULED_STRATEGY, CutOff, Platform, Schedule, Site
from postgres_cluster import cluster

from launcher import supervisor
from launcher.airflow_api import DONE, AirflowApi
from launcher.environment import DATABASE, PARALLELISM
from launcher.job import POOLS
from trading_core import config, errors
from trading_core.execution.paper import PaperBroker
from trading_core.execution.records import Decision, OrderRecord
from trading_core.pipelines.account import open_account
from trading_core.schema import Fill, OrderState, OrderStatus, Side

RUNS, REPLAY = 16, "together"
LIVE_ACCOUNT, REPLAY_ACCOUNT = f"paper-{MARKET}-{SCHEDULED_STRATEGY}", f"replay-{MARKET}-{REPLAY}"
WITHIN_S = 3600
DUE_IN_MINUTES = 8  # the services are up by then, and the runs wait; a due time that has passed is not made up for
POLICY = f'''"""Airflow reads this file from its home."""


def dag_policy(dag):
    if dag.dag_id == "daily_trade":
        dag.max_active_runs = {RUNS}
'''
HALF_A_CENT = Decimal("0.005")


@dataclass(frozen=True)
class Ended:
    """A run that has ended. `error`: of the project's, that a failed one named last; "" when it named none."""

    kind: str
    state: str
    error: str
    start: datetime
    end: datetime


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="concurrent-runs-") as folder, cluster() as server:
        var_dir = Path(folder) / "var"
        harness.write_market(var_dir)
        policy = var_dir / "airflow" / "config" / "airflow_local_settings.py"
        policy.parent.mkdir(parents=True)
        policy.write_text(POLICY)
        due = Schedule.after(harness.utc_now(), DUE_IN_MINUTES)
        chosen = {PARALLELISM: str(RUNS), **({DATABASE: server.url} if server else {})}
        database = server.version if server else "SQLite (PostgreSQL is not installed here)"
        say(f"Airflow's database: {database}")
        with harness.guarded(var_dir):
            site = Site.of({**harness.variables(var_dir), **due.variables(), **chosen})
            (last,) = prepared(site, 1)
            platform = started(site, due)
            kinds = let_go(platform, last, due.trade)
            runs = ended(platform, kinds)
            wrong = [*judged(platform, LIVE_ACCOUNT, due.trade), *judged(platform, REPLAY_ACCOUNT, last)]
            return verdict(platform, runs, wrong, database)


def started(site: Site, due: Schedule) -> Platform:
    """The services, with every DAG still paused: what is triggered waits."""
    with harness.environment(site.variables):
        supervisor.prepare(site.home)
        supervisor.start(site.home)
    api, never = AirflowApi(site.home), CutOff(0, "", [])
    api.wait_for_dags(["daily_trade"])
    for name, (_, description) in POOLS.items():
        api.ensure_pool(name, RUNS, description)
    return Platform(site.home, site.market, site.variables, site.environment, api, due, never, never, [], "")


def let_go(platform: Platform, last: date, coming: date) -> dict[str, str]:
    """Fifteen runs that wait for the DAG to be unpaused, which brings the scheduled one; kind by run id, of those known."""
    kinds: dict[str, str] = {}
    # First: a backfill leaves out a session that has a run.
    platform.start_backfill("daily_trade", last, last, max_active_runs=RUNS, dag_run_conf={"replay": REPLAY})
    for day, replay, through_api in ((coming, None, 4), (last, REPLAY, 4)):
        conf = {"replay": replay} if replay else {}
        form = {**conf, "session": day.isoformat(), "market": MARKET, "strategy": SCHEDULED_STRATEGY, "approval": False}
        for _ in range(through_api):
            kinds[platform.api.trigger("daily_trade", conf, partition_key=day.isoformat())] = "API"
        for _ in range(2):
            kinds[platform.api.trigger("daily_trade", form)] = "form"
        run_id = f"by-hand-{day}"
        command = [sys.executable, "-m", "airflow", "dags", "trigger", "daily_trade", "--run-id", run_id]
        command += ["--conf", json.dumps(form)]
        subprocess.run(command, env=platform.environment, check=True, capture_output=True, cwd=harness.REPOSITORY)
        kinds[run_id] = "command line"
    time.sleep(max(0.0, (platform.schedule.due - harness.utc_now()).total_seconds() - 5))
    platform.api.pause("daily_trade", False)
    return kinds


def ended(platform: Platform, kinds: dict[str, str]) -> list[Ended]:
    def look() -> list[dict[str, Any]]:
        found = platform.runs("daily_trade")
        return found if len(found) >= RUNS and all(run["state"] in DONE for run in found) else []

    runs = harness.until(look, WITHIN_S, lambda: "the runs have not ended", every_s=2.0)
    return [
        Ended(
            kinds.get(run["dag_run_id"], run["run_type"]),
            run["state"],
            _error(platform, run["dag_run_id"]) if run["state"] == "failed" else "",
            datetime.fromisoformat(run["start_date"]),
            datetime.fromisoformat(run["end_date"]),
        )
        for run in runs
    ]


def _error(platform: Platform, run_id: str) -> str:
    failed = [task["task_id"] for task in platform.api.tasks("daily_trade", run_id) if task["state"] == "failed"]
    text = " ".join(platform.failure("daily_trade", run_id, task) for task in failed)
    named = [name for name in re.findall(r"\b[A-Z]\w+Error\b", text) if hasattr(errors, name)]
    return named[-1] if named else ""


def judged(platform: Platform, account: str, day: date) -> Iterator[str]:
    """What is wrong with an account that traded one session."""
    ws, ledger = platform.workspace(), platform.ledger()
    if [record.session for record in ledger.sessions(account)] != [day]:
        yield f"{account} has not the one session {day}"
        return
    broker = open_account(ws, account, "paper", config.load_strategy(SCHEDULED_STRATEGY, ws.settings)).broker
    assert isinstance(broker, PaperBroker)
    orders, fills = ledger.orders(account, day), ledger.fills(account, day)
    wrong = [*_orders_wrong(ledger.get_decision(account, day), orders, broker.orders(day))]
    wrong += [*_fills_wrong(orders, fills, broker.fills(day)), *_holdings_wrong(broker, fills, day)]
    yield from (f"{account}: {what}" for what in wrong)


def _orders_wrong(
    decision: Decision | None, orders: Sequence[OrderRecord], there: Sequence[OrderState]
) -> Iterator[str]:
    meant = Counter((o.symbol, o.side, o.quantity) for o in decision.orders) if decision else None
    if Counter((o.intent.symbol, o.intent.side, o.intent.quantity) for o in orders) != meant:
        yield "the intents are not those of one frozen decision"
    sent = Counter(o.intent.client_order_id for o in orders if o.status is not OrderStatus.REJECTED)
    if Counter(state.order.client_order_id for state in there) != sent:
        yield "the broker's orders are not one for each intent"


def _fills_wrong(orders: Sequence[OrderRecord], fills: Sequence[Fill], there: Sequence[Fill]) -> Iterator[str]:
    told, known = ({(f.fill_id, f.quantity, f.price) for f in found} for found in (fills, there))
    if told != known:
        yield "the fills differ from the broker's"
    for order in orders:
        key = order.intent.client_order_id
        filled = sum((_exact(f.quantity) for f in fills if f.client_order_id == key), Decimal(0))
        if filled != _exact(order.filled_quantity):
            yield f"the fills of {order.intent.symbol} do not sum to its filled quantity"


def _holdings_wrong(broker: PaperBroker, fills: Sequence[Fill], day: date) -> Iterator[str]:
    held, cash, moved = broker.account(), _exact(broker.opening_cash()), dict[str, Decimal]()
    for fill in fills:
        signed = _exact(fill.quantity) * (1 if fill.side is Side.BUY else -1)
        moved[fill.symbol] = moved.get(fill.symbol, Decimal(0)) + signed
        cash -= signed * _exact(fill.price) + _exact(fill.commission)
    cash += sum((_exact(flow.amount) for flow in broker.cash_flows(day)), Decimal(0))
    if {p.symbol: _exact(p.quantity) for p in held.positions} != {symbol: q for symbol, q in moved.items() if q}:
        yield "the ledger's fills do not give the broker's positions"
    if abs(cash - _exact(held.cash)) >= HALF_A_CENT:
        yield f"the ledger's fills leave {cash} in cash, the broker has {held.cash}"


def _exact(value: float) -> Decimal:
    return Decimal(repr(value))


def verdict(platform: Platform, runs: list[Ended], wrong: list[str], database: str) -> int:
    wrong += [
        f"a run ({run.kind}) failed without an error of ours" for run in runs if run.state == "failed" and not run.error
    ]
    wrong += [f"there are {len(runs)} runs instead of {RUNS}"] if len(runs) != RUNS else []
    missing = {"scheduled", "backfill", "API", "form", "command line"} - {run.kind for run in runs}
    wrong += [f"no run of the kind {kind}" for kind in sorted(missing)]
    say(f"\n{'kind of run':<14}{'runs':>6}{'succeeded':>11}{'failed':>8}  errors")
    for kind in sorted({run.kind for run in runs}):
        of_kind = [run for run in runs if run.kind == kind]
        named = Counter(run.error or "unnamed" for run in of_kind if run.state == "failed")
        good = sum(run.state == "success" for run in of_kind)
        told = ", ".join(f"{count} x {name}" for name, count in named.items())
        say(f"{kind:<14}{len(of_kind):>6}{good:>11}{sum(named.values()):>8}  {told}")
    at_once = max(sum(other.start <= run.start < other.end for other in runs) for run in runs)
    say(f"running at the same time: {at_once} at most")
    for account, days in sorted(platform.ledger_state().items()):
        orders, fills = sum(len(found[2]) for found in days), sum(len(found[3]) for found in days)
        say(f"{account}: {len(days)} session(s), {orders} orders, {fills} fills")
    for sentence in wrong:
        say(f"VIOLATION {sentence}")
    say(f"{len(wrong)} violations; Airflow's database: {database}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
