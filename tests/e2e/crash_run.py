"""Twenty sessions through the real Airflow with a crash in the middle of one, beside the same sessions undisturbed.

`make crash-run SESSIONS=20` installs a platform of its own in a temporary folder, backfills daily_trade over the last sessions
of a simulated market, one run at a time, and kills (SIGKILL) the scheduler and every task process while the middle session is
under way. `launcher up` starts again; nobody clears or repairs anything. Then the same sessions are traded on another replay
account without a disturbance. Both accounts must agree bit for bit in all but ids, names and times. Exit code 1 otherwise.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import platform_harness as harness
import psutil
from platform_harness import MARKET, CutOff, Platform, Schedule, Site, finished, launcher, until

from launcher.airflow_api import AirflowApi
from launcher.environment import read_state
from trading_core.execution.lease import Leases
from trading_core.pipelines import backfill, infer, train

CRASHED, CALM = "crashed", "calm"
NOT_DUE_IN_MINUTES = 12 * 60
# Whoever restarts a scheduler waits up to five minutes until it looks after what the dead one left; here it looks sooner.
IMPATIENT = {
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "20",
}
# What two accounts cannot have in common; and the state of the checkout, in which somebody may work meanwhile.
OWN = {"account", "client_order_id", "fill_id", "decision_id", "run_id", "code_version"}
PER_SESSION_S = 120


@dataclass(frozen=True)
class Crash:
    """`processes`: killed at once, with what they were; `during`: the tasks that were running then."""

    session: date
    processes: list[str]
    during: list[str]


@dataclass(frozen=True)
class Outcome:
    """What is compared of an account: (what, session, position in it) -> the record as text."""

    facts: dict[tuple[str, date, int], str]
    equity: float
    failed: list[str]  # runs that did not end well
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=20)
    count = parser.parse_args().sessions
    with tempfile.TemporaryDirectory(prefix="crash-run-") as folder:
        var_dir = Path(folder) / "var"
        harness.write_market(var_dir)
        later = Schedule.after(harness.utc_now(), NOT_DUE_IN_MINUTES)
        with harness.guarded(var_dir):
            site = Site.of({**harness.variables(var_dir), **later.variables(), **IMPATIENT})
            days = prepared(site, count)
            say(f"{MARKET}: bars, features and model are there; trading {len(days)} sessions, {days[0]} to {days[-1]}")
            return compared(site, days)


def compared(site: Site, days: list[date]) -> int:
    up(site)
    platform = opened(site)
    began = time.monotonic()
    platform.start_backfill("daily_trade", days[0], days[-1], max_active_runs=1, dag_run_conf={"replay": CRASHED})
    crash = crashed(platform, days[len(days) // 2])
    say(f"killed during {crash.session}: {', '.join(crash.processes)}; tasks under way: {', '.join(crash.during)}")
    up(site)
    first = outcome(platform, CRASHED, days, began)
    say(f"the crashed backfill is through after {first.seconds:.0f} s")
    began = time.monotonic()
    again = {"reprocess_behavior": "completed", "max_active_runs": 1, "dag_run_conf": {"replay": CALM}}
    platform.start_backfill("daily_trade", days[0], days[-1], **again)
    second = outcome(platform, CALM, days, began)
    return verdict(platform, crash, first, second)


def prepared(site: Site, count: int) -> list[date]:
    """Bars, features, a model and its forecasts, without Airflow; the last sessions, all after the model's cut-off."""
    ws, now = site.workspace(), harness.utc_now()
    backfill.run(ws, start=None, end=None, refresh=False, run_id="fill", now=now)
    request = train.prepare(ws, now=now, model="linear", test_start=None)
    train.run(request.request_uri, ws.settings, now)
    infer.infer(ws, version="champion", start=None, end=None, run_id="infer", now=now)
    last = ws.last_session(now)
    return ws.sessions.between(ws.sessions.offset(last, 1 - count), last)


def up(site: Site) -> None:
    code, output = finished(launcher(site.variables, "up"), harness.START_S)
    if code:
        raise SystemExit(f"`launcher up` ended with code {code}:\n{output}")


def opened(site: Site) -> Platform:
    never = CutOff(0, "", [])
    schedule = Schedule.after(harness.utc_now(), NOT_DUE_IN_MINUTES)
    return Platform(
        site.home, site.market, site.variables, site.environment,
        AirflowApi(site.home), schedule, never, never, [], "",
    )  # fmt: skip


def account(replay: str) -> str:
    return f"replay-{MARKET}-{replay}"


def crashed(platform: Platform, session: date) -> Crash:
    """Kills the scheduler and all it started while `session` has a decision or orders and is not settled."""
    ledger, name = platform.ledger(), account(CRASHED)

    def under_way() -> bool:
        state = ledger.session_state(name, session)
        return state is not None and state.summary is None and bool(ledger.orders(name, session))

    until(under_way, PER_SESSION_S * 100, lambda: f"{session} was never under way", every_s=0.02)
    scheduler = psutil.Process(read_state(platform.home.airflow_home)["pids"]["scheduler"])
    victims = [scheduler, *scheduler.children(recursive=True)]
    names = [_title(process) for process in victims]
    for process in victims:
        process.kill()
    psutil.wait_procs(victims, timeout=10)
    running = [
        task["task_id"]
        for run in platform.runs("daily_trade", state=["running"])
        for task in platform.api.tasks("daily_trade", run["dag_run_id"])
        if task["state"] in ("running", "queued")
    ]
    return Crash(session, [f"{names.count(n)} x {n}" for n in sorted(set(names))], running)


def _title(process: psutil.Process) -> str:
    """What a process of the scheduler's is, in a word."""
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return "process"
    return "task process" if "airflow worker" in command and "--" in command else "scheduler process"


def outcome(platform: Platform, replay: str, days: list[date], began: float) -> Outcome:
    """What is in the ledger once all sessions are settled or their runs have ended."""
    ledger, name = platform.ledger(), account(replay)

    def through() -> bool:
        found = [ledger.session_state(name, day) for day in days]
        if all(state is not None and state.summary is not None for state in found):
            return True
        return not platform.runs("daily_trade", state=["queued", "running"])

    until(through, PER_SESSION_S * len(days) + 900, lambda: f"{name} is not through", every_s=1.0)
    platform.rest("daily_trade")
    mine = [run for run in platform.runs("daily_trade") if run["conf"].get("replay") == replay]
    failed = [f"{run['partition_key']}: {run['state']}" for run in mine if run["state"] != "success"]
    facts = dict(_facts(platform, name))
    state = ledger.session_state(name, days[-1])
    equity = state.summary.equity if state is not None and state.summary is not None else None
    return Outcome(facts, equity if equity is not None else float("nan"), failed, time.monotonic() - began)


def _facts(platform: Platform, name: str) -> Iterator[tuple[tuple[str, date, int], str]]:
    for state, decision, orders, fills in platform.ledger_state(name)[name]:
        day, summary = state.record.session, state.summary
        records = {
            "decision": [decision],
            "order": sorted(orders, key=lambda o: (o.intent.symbol, o.intent.side)),
            "fill": sorted(fills, key=lambda f: (f.symbol, f.side, f.quantity)),
            "position": sorted(summary.positions, key=lambda p: p.symbol) if summary else [],
            "equity": [(summary.equity, summary.cash, summary.commission) if summary else "not settled"],
        }
        for what, found in records.items():
            for number, record in enumerate(found):
                yield (what, day, number), json.dumps(_plain(record))


def _plain(value: Any) -> Any:
    """A record as JSON: floats as their bits in hexadecimal; ids, names and times left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {key: _plain(found) for key, found in fields.items() if key not in OWN}
    if isinstance(value, datetime):
        return ""
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value.value if isinstance(value, Enum) else value)


def verdict(platform: Platform, crash: Crash, first: Outcome, second: Outcome) -> int:
    different = sorted(k for k in first.facts.keys() | second.facts.keys() if first.facts.get(k) != second.facts.get(k))
    say(f"\n{'':<12}{CRASHED:>10}{CALM:>10}{'different':>12}")
    for what in ("decision", "order", "fill", "position", "equity"):
        counts = [sum(key[0] == what for key in found.facts) for found in (first, second)]
        wrong = sum(key[0] == what for key in different)
        say(f"{what:<12}{counts[0]:>10}{counts[1]:>10}{wrong:>12}")
    say(f"{'seconds':<12}{first.seconds:>10.0f}{second.seconds:>10.0f}")
    say(f"final equity {first.equity!r} and {second.equity!r}; the crash was in {crash.session}")
    leases = Leases(platform.workspace().ledger_store())
    last = {name: leases.newest(account(name)) for name in (CRASHED, CALM)}
    say("lease records: " + ", ".join(f"{name} {lease.number if lease else 0}" for name, lease in last.items()))
    for key in different[:10]:
        what, day, number = key
        say(f"DIFFERENT {what} {number} of {day}: {_difference(first.facts.get(key), second.facts.get(key))}")
    for replay, found in ((CRASHED, first), (CALM, second)):
        for run in found.failed:
            say(f"FAILED run of {replay}, {run}")
    good = not different and not first.failed and not second.failed and bool(first.facts)
    say("The crash left no trace." if good else "The two accounts DIFFER, or runs failed.")
    return 0 if good else 1


def _difference(left: str | None, right: str | None) -> str:
    """The first field that two records differ in."""
    if left is None or right is None:
        return f"only the {CALM if left is None else CRASHED} account has it"
    one, other = json.loads(left), json.loads(right)
    if not isinstance(one, dict):
        return f"{one} and {other}"
    found = [name for name in one if one[name] != other.get(name)]
    return f"{', '.join(found)}; {str(one[found[0]])[:200]} and {str(other.get(found[0]))[:200]}"


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
