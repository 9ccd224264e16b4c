"""A slice of the fault matrix that takes seconds; `make faults` is the whole, with every call, pair, flavour and planted bug."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import kills
import mutants
import processes
import pytest
import races
from calls import BEFORE
from processes import FLAVOURS, Template, fast_folder
from world import World

LANES = 2
SEEDS = range(1, 41)  # worlds of five sessions: 200 days


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with fast_folder() as name:
        yield Path(name)


@pytest.fixture(scope="module")
def template(folder: Path) -> Template:
    return processes.template(FLAVOURS[0], folder)


@pytest.fixture(scope="module")
def plain(template: Template, folder: Path) -> kills.Undisturbed:
    return kills.undisturbed(template, folder)


def test_two_hundred_wild_days_violate_nothing() -> None:
    outcomes = processes.spread(list(SEEDS), lambda seed: World(seed).run(), LANES)
    assert [(outcome.seed, what) for outcome in outcomes for what in outcome.found] == []
    assert sum(outcome.met["kill"] for outcome in outcomes) > 40
    assert sum(outcome.ends["settled"] for outcome in outcomes) > 100


def test_a_template_that_is_made_again_is_the_same(plain: kills.Undisturbed, folder: Path) -> None:
    again = kills.undisturbed(processes.template(FLAVOURS[0], folder), folder)
    assert (again.calls, again.orders, again.found) == (plain.calls, 4, ())


def test_a_killed_session_ends_as_an_undisturbed_one(
    template: Template, plain: kills.Undisturbed, folder: Path
) -> None:
    assert (plain.found, plain.orders) == ((), 4)
    effects = kills.points(plain.calls, effects_only=True)
    made = kills.single(template, plain, folder, effects[::9], LANES)
    assert made.found == []
    assert made.kills == made.runs >= 10


def test_a_stopped_process_writes_nothing_after_its_retry_has_traded(
    template: Template, plain: kills.Undisturbed, folder: Path
) -> None:
    """Stopped right before it sends, the broker knows the id already and nothing is left to write; stopped right before it
    writes that it is about to send, it finds its lease lost and sends nothing."""
    sends = [number for number, name in enumerate(plain.calls, 1) if name == "broker.submit"]
    writes = [number for number, name in enumerate(plain.calls, 1) if name.endswith("transact_new")]
    last_write = max(number for number in writes if number < sends[0])
    made, ends = races.stopped(template, plain, folder, [(sends[0], BEFORE), (sends[-1], BEFORE)], LANES)
    assert made.found == []
    assert ends == {"nothing left to do": 2, "late sends refused": 2}
    made, ends = races.stopped(template, plain, folder, [(last_write, BEFORE)], LANES)
    assert made.found == []
    assert ends["LeaseLostError"] == 1
    assert ends["late sends refused"] == 0


def test_sixteen_processes_at_once_send_one_set_of_orders(
    template: Template, plain: kills.Undisturbed, folder: Path
) -> None:
    assert races.at_once(template, plain, folder).found == []


@pytest.mark.parametrize("name", ["sent before its intent is written", "writes without the fence", "window not asked"])
def test_a_planted_bug_is_seen(name: str) -> None:
    made, seen = mutants.planted(1, 1, [name])
    assert made.found == []
    assert list(seen) == [name]
