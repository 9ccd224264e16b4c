"""End-to-end tests: the platform as a user meets it, nothing replaced.

Real here: the launcher's commands as processes (`run`, `up`, `down`), Airflow's scheduler, API server, DAG processor and
triggerer with LocalExecutor and SQLite, the exchange's calendar and the machine's clock, the artifact folder, the Delta
tables, MLflow and its registry, the training process, the SQLite ledger, the paper broker, `airflow backfill create`, the
REST API, the web UI in headless Chromium. Chosen for speed only: a market of 36 simulated symbols, the linear model.

One installation serves the whole folder, in a temporary folder with ports of its own: a main job that is cut off by Ctrl-C,
one that is let through (with services of its own, as on a fresh checkout), one that is cut off by kill -9, then `up`; every
test works on that. The services are stopped at the end, also when a test fails, on Ctrl-C, and when this process itself is
killed (`guarded`). Under pytest-xdist all of it runs on one worker.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platform_harness as harness
import pytest
from platform_harness import CutOff, Pass, Platform, Schedule, Site, finished, launcher, survivors

from launcher.airflow_api import AirflowApi

# The settings put the scheduler's own runs into these minutes. What they need is there before their clock is set: the first
# main job runs under one by which nothing falls due, and only then do the services start under the other.
NOT_DUE_IN_MINUTES = 12 * 60
DUE_IN_MINUTES = 5  # the services are up by then
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.services)
            item.add_marker(pytest.mark.timeout(harness.TEST_S))


@dataclass(frozen=True)
class Fresh:
    """An installation that has nothing but its market and what an interrupted main job left."""

    site: Site
    interrupted: CutOff


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fresh]:
    var_dir = tmp_path_factory.mktemp("e2e") / "var"
    harness.write_market(var_dir)
    later = Schedule.after(harness.utc_now(), NOT_DUE_IN_MINUTES)
    with harness.guarded(var_dir):
        site = Site.of({**harness.variables(var_dir), **later.variables()})
        yield Fresh(site, site.cut_off(signal.SIGINT))


@pytest.fixture(scope="session")
def first_pass(fresh: Fresh) -> Pass:
    """The main job on the fresh market."""
    return fresh.site.make_run()


@pytest.fixture(scope="session")
def platform(fresh: Fresh, first_pass: Pass) -> Iterator[Platform]:
    """The installation with its services up (`launcher up`), DAGs unpaused, schedules on."""
    var_dir = fresh.site.home.var_dir
    killed = fresh.site.cut_off(signal.SIGKILL)
    schedule = Schedule.after(harness.utc_now(), DUE_IN_MINUTES)
    site = Site.of({**fresh.site.variables, **schedule.variables()})
    code, output = finished(launcher(site.variables, "up"), harness.START_S)
    if code:
        pytest.fail(f"`launcher up` ended with code {code}:\n{output}")
    after_up = sorted(set(killed.left) & set(survivors(var_dir)))
    yield Platform(
        site.home, site.market, site.variables, site.environment,
        AirflowApi(site.home), schedule, fresh.interrupted, killed, after_up, output,
    )  # fmt: skip
    code, output = finished(launcher(site.variables, "down"), harness.START_S)
    assert (code, survivors(var_dir)) == (0, []), output


@pytest.fixture(scope="session")
def second_pass(platform: Platform) -> Pass:
    """The main job again, beside the running services."""
    return platform.make_run()
