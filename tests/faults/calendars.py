"""Days that are no usual days: holidays and half days, clocks that are off, hosts elsewhere, the end of the calendar."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta

from invariants import comparable, violations
from kills import Killed
from processes import in_child, spread
from worker import ACCOUNT
from world import NYSE, Dangers, World

from trading_core.errors import NotASessionError, TradingError
from trading_core.execution.ledger import Ledger
from trading_core.schema import Side
from trading_core.sessions import Sessions

# Sessions before which, or on which, the exchange keeps other hours: the world begins there.
SPECIAL = (
    date(2019, 7, 2),  # a half day before Independence Day
    date(2019, 11, 26),  # Thanksgiving, and a half day after it
    date(2019, 12, 23),  # a half day on Christmas Eve
    date(2020, 3, 6),  # the clocks of New York go forward, Europe's three weeks later
    date(2020, 10, 30),  # and back, a week after Europe's
    date(2021, 12, 30),  # no holiday for New Year's Day on a Saturday
    date(2022, 6, 16),  # the first Juneteenth
    date(2018, 12, 3),  # a day of mourning
)
ZONES = ("UTC", "America/New_York", "Asia/Tokyo", "Pacific/Kiritimati", "America/Los_Angeles", "Asia/Kolkata")
WORLDS = 10  # per special date and per size of error


def scenarios(seed: int, lanes: int) -> Iterator[tuple[str, Killed]]:
    yield "holidays, half days, changes of the clock", _special(seed, lanes)
    for minutes in (1, 10):
        yield f"clocks of workers off by up to {minutes} min", _skewed(seed, lanes, timedelta(minutes=minutes))
    yield f"hosts in {len(ZONES)} time zones end alike", _zones(seed)
    yield "days that are no session are refused", _no_sessions()
    yield "the end of the exchange calendar", _end_of_calendar(seed)


def _ran(name: str, world: World) -> Killed:
    outcome = world.run()
    faults = sum(count for fault, count in outcome.met.items() if fault[0].islower())
    return Killed(world.days, faults, [f"{name}, seed {world.seed}: {what}" for what in outcome.found])


def _sum(parts: list[Killed]) -> Killed:
    total = Killed()
    for part in parts:
        total.add(part)
    return total


def _special(seed: int, lanes: int) -> Killed:
    items = [(first, seed + number) for first in SPECIAL for number in range(WORLDS)]
    return _sum(spread(items, lambda item: _ran(f"from {item[0]}", World(item[1], first=item[0])), lanes))


def _skewed(seed: int, lanes: int, skew: timedelta) -> Killed:
    calm = Dangers()
    # Nothing that is booked later than a session is settled: what was settled when could not be told with such clocks.
    dangers = replace(calm, skew=skew, habits=replace(calm.habits, late_fill=0.0, corrected=0.0))
    seeds = list(range(seed, seed + 4 * WORLDS))
    return _sum(spread(seeds, lambda s: _ran(f"clocks off by {skew}", World(s, dangers=dangers)), lanes))


def _zones(seed: int) -> Killed:
    def under(zone: str) -> dict[str, object]:
        def work() -> dict[str, object]:
            os.environ["TZ"] = zone
            time.tzset()
            world = World(seed)
            world.run()
            return comparable(world.store, ACCOUNT)

        return in_child(work)

    ended = {zone: under(zone) for zone in ZONES}
    bad = [f"a host in {zone} ended otherwise" for zone in ZONES if ended[zone] != ended["UTC"]]
    return Killed(len(ZONES), len(ZONES), bad)


def _no_sessions() -> Killed:
    """Every weekend day and holiday of a year: a worker that tries all its steps sends and opens nothing."""
    world = World(1, dangers=Dangers(storage=0.0, kills=0.0), first=date(2023, 1, 3))
    known, made = world.known(world.first), Killed()
    for number in range(365):
        day = date(2023, 1, 1) + timedelta(days=number)
        if NYSE.is_session(day):
            continue
        made.runs += 1
        made.kills += 1
        worker, now = world.calm_worker(), world.exchange.now
        try:
            worker.send(day, Side.BUY, known, now)
            worker.sessions.require(day)
            made.found.append(f"{day} was taken for a session")
        except NotASessionError:
            continue
    if world.witness.sent or Ledger(world.store).sessions(ACCOUNT):
        made.found.append("something was sent or opened on a day that is no session")
    return made


def _end_of_calendar(seed: int) -> Killed:
    """The calendar that the workers know ends with 2022: the last session is traded and settled, the next one refused."""
    short = Sessions("XNYS", horizon_year=2022)
    calm = Dangers(storage=0.0, kills=0.0, halts=0.0, missed=0.0)
    world = World(seed, 2, calm, first=date(2022, 12, 29), sessions=short)
    outcome = world.run()
    found = [what for what in outcome.found if "was not settled" not in what]
    before = len(world.witness.sent)
    after = date(2023, 1, 3)
    try:
        world.calm_worker().open(after, world.known(after), world.exchange.now)
        found.append(f"{after} was opened, though the calendar does not know it")
    except TradingError:
        pass
    if len(world.witness.sent) != before or violations(world.store, world.exchange, ACCOUNT) != []:
        found.append("something was sent, or is not as it was")
    return Killed(1, 1, [f"end of the calendar: {what}" for what in found])
