"""Processes that get in each other's way: one that was stopped and wakes up late, and sixteen that do the same at once."""

from __future__ import annotations

import os
import signal
from collections import Counter
from datetime import timedelta
from pathlib import Path

from calls import Calls, stop
from kills import Kill, Killed, Undisturbed, clean
from processes import Template, in_child, spread

from trading_core.execution.lease import LEASE_SECONDS
from trading_core.execution.store_sqlite import SqliteStore

SIXTEEN = 16


def stopped(
    template: Template, plain: Undisturbed, folder: Path, stops: list[Kill], lanes: int
) -> tuple[Killed, Counter[str]]:
    """A worker stopped (SIGSTOP) at each of `stops`; once its lease has run out another one trades the session to its end;
    then the first goes on. What became of it is counted: LeaseLostError, duplicates refused by the broker."""

    def one(where: Kill) -> tuple[Killed, Counter[str]]:
        return in_child(lambda: _stop_trade_resume(template, plain, folder, where))

    total, ends = Killed(), Counter[str]()
    for made, counted in spread(stops, one, lanes):
        total.add(made)
        ends += counted
    return total, ends


def _stop_trade_resume(
    template: Template, plain: Undisturbed, folder: Path, where: Kill
) -> tuple[Killed, Counter[str]]:
    scenario = template.scenario(folder)
    pid, pipe = scenario.start(template.day, Calls(*where, act=stop))
    while not _is_stopped(pid):
        if pipe.poll(0.001) and not scenario.answer(pipe):
            break
    scenario.exchange.advance(scenario.exchange.now + timedelta(seconds=LEASE_SECONDS + 1))
    status = scenario.run(template.day)
    scenario.witness.sent_late = True  # what the first one sends now may be out of its window: the broker refuses it
    before = len(scenario.exchange.view.orders)
    written = _keys(scenario.path)
    os.kill(pid, signal.SIGCONT)
    scenario.serve(pipe)
    os.waitpid(pid, 0)
    found = scenario.judged(template.day, plain.ended)
    if status:
        found.append(f"the second run ended with status {status}")
    if len(scenario.exchange.view.orders) != before:
        found.append("the process that woke up brought another order to the broker")
    report = scenario.reports[-1]
    if report.error == "LeaseLostError" and (more := _keys(scenario.path) - written):
        found.append(f"the process that woke up wrote {sorted(more)[:3]}")
    counted = Counter({report.error or "nothing left to do": 1})
    counted["late sends refused"] = sum(s.outcome in ("duplicate", "late") for s in scenario.exchange.submissions)
    clean(scenario.path)
    text = f"{template.flavour.name}, stopped {where[1]} call {where[0]}"
    return Killed(1, 1, [f"{text}: {what}" for what in found]), counted


def _is_stopped(pid: int) -> bool:
    found, status = os.waitpid(pid, os.WUNTRACED | os.WNOHANG)
    return found == pid and os.WIFSTOPPED(status)


def _keys(path: Path) -> set[tuple[str, str]]:
    import sqlite3

    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT pk, sk FROM documents").fetchall()
    connection.close()
    return {(pk, sk) for pk, sk in rows}


def at_once(template: Template, plain: Undisturbed, folder: Path, processes: int = SIXTEEN) -> Killed:
    """That many processes take every step of the session at the same time."""

    def work() -> Killed:
        scenario = template.scenario(folder)
        started = [scenario.start(template.day, Calls()) for _ in range(processes)]
        scenario.serve_all([pipe for _, pipe in started])
        bad = sum(os.waitpid(pid, 0)[1] != 0 for pid, _ in started)
        found = scenario.judged(template.day, plain.ended)
        orders = sum(held.order.session == template.day for held in scenario.exchange.view.orders.values())
        if orders != plain.orders or bad:
            found.append(f"{orders} orders of {plain.orders}, and {bad} processes failed")
        store = SqliteStore(str(scenario.path))
        store.close()
        clean(scenario.path)
        return Killed(1, 0, [f"{template.flavour.name}, {processes} at once: {what}" for what in found])

    return in_child(work)
