"""The rows of the fault matrix: each makes its scenarios, and says how many runs, faults and violations there were."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import calendars
import kills
import mutants
import one_fault
import processes
import races
from kills import Killed
from processes import FLAVOURS, spread
from world import DAYS, World

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Setting:
    """`days`: simulated sessions. `lanes`: processes at once. `folder`: for ledgers, best in memory. `every`: which first
    kills of the pairs, each n-th (EVERY=n). `thorough`: also the enumerations that take an hour (ALL=1)."""

    seed: int
    days: int
    lanes: int
    folder: Path
    every: int = 1
    thorough: bool = False


@dataclass(slots=True)
class Row:
    """One line of the table. `faults`: kills, stops or faults that struck. `seed`: None where nothing is random."""

    scenario: str
    runs: int
    faults: int
    violations: list[str]
    seed: int | None = None
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def row(scenario: str, made: Killed, notes: list[str] | None = None) -> Row:
    return Row(scenario, made.runs, made.kills, made.found, notes=notes or [])


# --- kills ------------------------------------------------------------------------------------------------------------


def single_kills(setting: Setting) -> Iterator[Row]:
    """kill -9 before and after every external call, then run again"""
    for flavour in FLAVOURS:
        template = processes.template(flavour, setting.folder)
        plain = kills.undisturbed(template, setting.folder)
        points = kills.points(plain.calls)
        made = kills.single(template, plain, setting.folder, points, setting.lanes)
        made.found += [f"undisturbed: {what}" for what in plain.found]
        note = f"{plain.orders} orders, {len(plain.calls)} calls, {len(points) // 2} of them tried before and after"
        yield row(f"kill -9 at every call: {flavour.name}", made, [note])


def kill_pairs(setting: Setting) -> Iterator[Row]:
    """a second kill -9 in the run after the first one"""
    for flavour in FLAVOURS if setting.thorough else FLAVOURS[:1]:
        template = processes.template(flavour, setting.folder)
        plain = kills.undisturbed(template, setting.folder)
        states = kills.states(plain.calls)
        firsts = states[:: setting.every]
        made = kills.pairs(template, plain, setting.folder, firsts, setting.lanes)
        note = f"{len(firsts)} of {len(states)} states that a first kill leaves, times those that a second one leaves"
        yield row(f"pairs of kills: {flavour.name}", made, [note])


def stopped(setting: Setting) -> Iterator[Row]:
    """SIGSTOP at every call with an effect; SIGCONT once another process has traded"""
    for flavour in FLAVOURS:
        template = processes.template(flavour, setting.folder)
        plain = kills.undisturbed(template, setting.folder)
        points = kills.points(plain.calls, effects_only=True)
        made, ends = races.stopped(template, plain, setting.folder, points, setting.lanes)
        late, lost = ends.pop("late sends refused"), ends["LeaseLostError"]
        if not lost or not late:
            made.found.append(f"nobody lost a lease ({lost}), or no late send was tried ({late}): nothing is shown")
        note = f"{lost} lost their lease and wrote nothing; {late} late sends were refused by the broker"
        yield row(f"stopped, wakes up after its retry: {flavour.name}", made, [note])


def together(setting: Setting) -> Iterator[Row]:
    """sixteen processes of one session at once"""
    for flavour in FLAVOURS:
        template = processes.template(flavour, setting.folder)
        plain = kills.undisturbed(template, setting.folder)
        made = Killed()
        for _ in range(10):
            made.add(races.at_once(template, plain, setting.folder))
        yield row(f"{races.SIXTEEN} processes at once: {flavour.name}", made)


def pipeline(setting: Setting) -> Iterator[Row]:
    """kill -9 in the whole trading pipeline on a small market"""
    import whole_pipeline

    prepared = setting.folder / "prepared"
    whole_pipeline.prepare(prepared)
    plain = whole_pipeline.undisturbed(prepared, setting.folder)
    made = whole_pipeline.kills(prepared, setting.folder, plain, setting.lanes, setting.thorough)
    sides = Counter(plain.orders)
    if sides != {"sell": 2, "buy": 2}:
        made.found.append(f"the session has {dict(sides)}, not two sells and two buys")
    which = "every call" if setting.thorough else "every call with an effect"
    yield row(
        f"kill -9 in trade.run, paper broker: {which}", made, [f"{len(plain.calls)} calls, {sides.total()} orders"]
    )


# --- faults -----------------------------------------------------------------------------------------------------------


def storage(setting: Setting) -> Iterator[Row]:
    """every call to the ledger's storage fails, once or for the rest of the day"""
    processes.warm_up()
    for flavour in FLAVOURS:
        stage = one_fault.Stage(flavour)
        yield row(f"storage fails once, before or after: {flavour.name}", one_fault.storage_once(stage, setting.lanes))
        gone = one_fault.storage_gone(stage, setting.lanes)
        yield row(f"storage gone for the day, nothing is sent: {flavour.name}", gone)


def broker(setting: Setting) -> Iterator[Row]:
    """every question to the broker meets every fault, once"""
    processes.warm_up()
    for flavour in FLAVOURS:
        made = one_fault.broker_once(one_fault.Stage(flavour), setting.lanes)
        yield row(f"broker: each fault at each question: {flavour.name}", made)


def days(setting: Setting) -> Iterator[Row]:
    """seeded days with everything at random: faults, fills, kills, halts, missed sessions"""
    processes.warm_up()
    seeds = list(range(setting.seed, setting.seed + max(1, -(-setting.days // DAYS))))
    outcomes = spread(seeds, lambda seed: World(seed).run(), setting.lanes)
    met, ends = Counter[str](), Counter[str]()
    for outcome in outcomes:
        met += outcome.met
        ends += outcome.ends
    bad = [
        f"{what} [make faults ONLY=days SEED={outcome.seed} DAYS=1]" for outcome in outcomes for what in outcome.found
    ]
    faults = sum(count for name, count in met.items() if name[0].islower())
    told = ", ".join(f"{count:,} {name}" for name, count in sorted(met.items()) if name[0].islower())
    closed = ", ".join(f"{count:,} {name}" for name, count in sorted(ends.items()))
    scenario = f"{len(seeds):,} accounts through {DAYS} sessions each"
    yield Row(scenario, len(seeds) * DAYS, faults, bad, setting.seed, [f"sessions: {closed}", f"faults: {told}"])


def planted(setting: Setting) -> Iterator[Row]:
    """bugs planted in the session core: each must be seen"""
    processes.warm_up()
    made, seen = mutants.planted(setting.seed, setting.lanes)
    yield Row(f"{len(mutants.MUTANTS)} planted bugs, {len(seen)} seen", made.runs, made.kills, made.found, setting.seed)


# --- time -------------------------------------------------------------------------------------------------------------


def clocks(setting: Setting) -> Iterator[Row]:
    """holidays, half days, clocks that are off, other time zones, the end of the calendar"""
    processes.warm_up()
    for scenario, made in calendars.scenarios(setting.seed, setting.lanes):
        yield Row(scenario, made.runs, made.kills, made.found, setting.seed)


# --- tests that stand elsewhere ---------------------------------------------------------------------------------------

DATA = {
    "bars: NaN, disorder, duplicates, future, gaps": ["tests/market/test_quality.py"],
    "bars: split-unadjusted, x100, bad ticks, distributions": ["tests/market/test_quality_jumps.py"],
    "bars through the pipelines: held, cleared, confirmed": ["tests/pipelines/test_quality_known_then.py"],
    "panels: stale, broken, changed for the worse": ["tests/pipelines/test_bad_panels.py"],
    "late, twice, missing features, halts, flatten": [
        "tests/pipelines/test_late_and_twice.py",
        "tests/pipelines/test_trading_sessions.py",
    ],
}
ALPACA = {
    "alpaca over HTTP: resets, 4xx, 429, 5xx, garbage, hangs": [
        "tests/execution/test_alpaca_broker.py",
        "tests/execution/test_alpaca_answers.py",
        "tests/execution/test_alpaca_access.py",
    ],
    "dynamodb over HTTP: throttled, lost answers, garbage": ["tests/execution/test_store_dynamodb.py"],
    "paper broker with faults injected": ["tests/execution/test_faulty.py"],
}


def data(setting: Setting) -> Iterator[Row]:
    """bad bars and late runs: the tests that stand elsewhere, run here"""
    yield from _tests(DATA, setting)


def adapters(setting: Setting) -> Iterator[Row]:
    """brokers and stores over HTTP: the tests that stand elsewhere, run here"""
    yield from _tests(ALPACA, setting)


def _tests(named: dict[str, list[str]], setting: Setting) -> Iterator[Row]:
    for scenario, files in named.items():
        report = setting.folder / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-n", "0", "-q", f"--junitxml={report}", *files]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TRADING_")}
        done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
        cases = list(ElementTree.parse(report).iter("testcase")) if report.is_file() else []
        bad = [
            f"{c.get('classname')}::{c.get('name')}"
            for c in cases
            if c.find("failure") is not None or c.find("error") is not None
        ]
        if done.returncode not in (0, 1) or not cases:
            bad.append(f"pytest ended with {done.returncode}: {done.stdout[-300:]}")
        skipped = sum(case.find("skipped") is not None for case in cases)
        report.unlink(missing_ok=True)
        yield Row(scenario, len(cases) - skipped, len(cases) - skipped, bad)


ROWS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    "kills": single_kills,
    "pairs": kill_pairs,
    "stopped": stopped,
    "together": together,
    "pipeline": pipeline,
    "storage": storage,
    "broker": broker,
    "days": days,
    "planted": planted,
    "clocks": clocks,
    "data": data,
    "adapters": adapters,
}
