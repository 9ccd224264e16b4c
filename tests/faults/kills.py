"""kill -9 before and after every external call of a session with two sells and two buys, then pairs of kills."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from calls import AFTER, BEFORE, Calls, die, has_effect
from invariants import comparable
from processes import Scenario, Template, in_child, spread
from worker import ACCOUNT

from trading_core.execution.store_sqlite import SqliteStore

Kill = tuple[int, str]  # which call, and BEFORE or AFTER


@dataclass(slots=True)
class Killed:
    """`runs` scenarios with `kills` kills that struck; `found`: violations, each with what it takes to see it again."""

    runs: int = 0
    kills: int = 0
    found: list[str] = field(default_factory=list)

    def add(self, other: Killed) -> None:
        self.runs += other.runs
        self.kills += other.kills
        self.found += other.found


@dataclass(frozen=True, slots=True)
class Undisturbed:
    """A run that nothing happened to: its calls, and what it ended with."""

    calls: tuple[str, ...]
    ended: dict[str, object]
    orders: int
    found: tuple[str, ...]


def undisturbed(template: Template, folder: Path) -> Undisturbed:
    def work() -> Undisturbed:
        scenario = template.scenario(folder)
        scenario.run(template.day)
        store = SqliteStore(str(scenario.path))
        ended = comparable(store, ACCOUNT)
        store.close()
        orders = sum(held.order.session == template.day for held in scenario.exchange.view.orders.values())
        found = tuple(scenario.judged(template.day, ended))
        clean(scenario.path)
        return Undisturbed(scenario.reports[-1].calls, ended, orders, found)

    return in_child(work)


def single(template: Template, plain: Undisturbed, folder: Path, kills: list[Kill], lanes: int) -> Killed:
    """Each kill alone, then the session is run again to its end."""

    def one(kill: Kill) -> Killed:
        return in_child(lambda: _kill_then_finish(template.scenario(folder), template, plain, [kill]))

    total = Killed()
    for made in spread(kills, one, lanes):
        total.add(made)
    return total


def pairs(template: Template, plain: Undisturbed, folder: Path, firsts: list[Kill], lanes: int) -> Killed:
    """The first run killed at each of `firsts`, and then the second in every state that it can leave behind."""

    def all_of(first: Kill) -> Killed:
        return in_child(lambda: _all_seconds(template, plain, folder, first))

    total = Killed()
    for made in spread(firsts, all_of, lanes):
        total.add(made)
    return total


def _all_seconds(template: Template, plain: Undisturbed, folder: Path, first: Kill) -> Killed:
    scenario = template.scenario(folder)
    scenario.run(template.day, Calls(*first, act=die))
    after_first = Template(template.flavour, scenario.exchange, scenario.path, template.day)

    def names() -> tuple[str, ...]:
        again = after_first.scenario(folder)
        again.run(template.day)
        clean(again.path)
        return again.reports[-1].calls

    total = Killed()
    for second in states(in_child(names)):

        def one(second: Kill = second) -> Killed:
            return _kill_then_finish(after_first.scenario(folder), template, plain, [second], (first,))

        total.add(in_child(one))
    clean(scenario.path)
    return total


def _kill_then_finish(
    scenario: Scenario, template: Template, plain: Undisturbed, kills: list[Kill], before: tuple[Kill, ...] = ()
) -> Killed:
    died = sum(scenario.run(template.day, Calls(*kill, act=die)) != 0 for kill in kills)
    status = scenario.run(template.day)
    found = scenario.judged(template.day, plain.ended)
    if status:
        found.append(f"the run after it ended with status {status}")
    clean(scenario.path)
    where = " and ".join(f"{when} call {number}" for number, when in (*before, *kills))
    return Killed(1, died + len(before), [f"{template.flavour.name}, killed {where}: {what}" for what in found])


def points(names: tuple[str, ...], effects_only: bool = False) -> list[Kill]:
    """Before and after each call; `effects_only`: of those that can leave something behind."""
    numbers = [n for n, name in enumerate(names, 1) if has_effect(name) or not effects_only]
    return [(number, when) for number in numbers for when in (BEFORE, AFTER)]


def states(names: tuple[str, ...]) -> list[Kill]:
    """One kill for each state that can be left behind: before the first call with an effect, and after each one."""
    numbers = [number for number, name in enumerate(names, 1) if has_effect(name)]
    return [(numbers[0], BEFORE), *((number, AFTER) for number in numbers)]


def clean(path: Path) -> None:
    for name in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        name.unlink(missing_ok=True)
