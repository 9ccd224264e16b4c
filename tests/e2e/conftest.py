"""End-to-end tests: the platform as a user meets it, nothing replaced.

Real here: the launcher's commands as processes (`run`, `up`, `down`), Airflow's scheduler, API server, DAG processor and
triggerer with LocalExecutor and SQLite, the exchange's calendar and the machine's clock, the artifact folder, the Delta
tables, MLflow and its registry, the training process, the SQLite ledger, the paper broker, `airflow backfill create`, the
REST API, the web UI in headless Chromium. Chosen for speed only: a market of 36 simulated symbols, the linear model.

The services start once for the whole folder, in a temporary folder with ports of their own, after two starts that were cut
off (SIGINT, kill -9); every test works on that one installation. They are stopped at the end, also when a test fails, on
Ctrl-C, and when this process itself is killed (`guarded`). Under pytest-xdist all of it runs on one worker.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import platform_harness as harness
import pytest
from platform_harness import Pass, Platform, RoughStart, Schedule, launcher, survivors, until

from launcher.airflow_api import AirflowApi
from launcher.environment import installation
from trading_core.config import Settings

DUE_IN_MINUTES = 4  # when the scheduler's own runs fall due: the main job has stored bars and a model by then
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.services)
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The installation with its services up (`launcher up`), DAGs unpaused, schedules on."""
    var_dir = tmp_path_factory.mktemp("e2e") / "var"
    harness.write_market(var_dir)
    schedule = Schedule.after(harness.utc_now(), DUE_IN_MINUTES)
    variables = harness.variables(
        var_dir,
        TRADING_MARKET=harness.MARKET,
        TRADING_MODEL=harness.MODEL,
        TRADING_STRATEGY=harness.SCHEDULED_STRATEGY,
        TRADING_OPEN_LEAD_MINUTES=str(schedule.open_lead_minutes),
        TRADING_CLOSE_DELAY_MINUTES=str(schedule.close_delay_minutes),
    )
    with harness.guarded(var_dir):
        start = _rough_start(var_dir, variables)
        with harness.environment(variables):
            settings = Settings()
            home = installation(settings)
            environment = home.environment()
        yield Platform(home, AirflowApi(home), harness.market_of(settings), schedule, variables, environment, start)
        down = launcher(variables, "down")
        output, _ = down.communicate(timeout=60)
        assert (down.returncode, survivors(var_dir)) == (0, []), output


def _rough_start(var_dir: Path, variables: dict[str, str]) -> RoughStart:
    """Two starts that are cut off, then one that stays."""

    def cut_off(by: signal.Signals) -> tuple[int, str]:
        state = var_dir / "airflow" / "services.json"
        process = launcher(variables, "run")

        def started() -> bool:  # the note alone could be that of the command before
            return state.is_file() and len(survivors(var_dir)) >= 4

        until(lambda: started() or process.poll() is not None, 120, lambda: "no service was started")
        if process.poll() is not None:
            pytest.fail(f"`launcher run` ended by itself with code {process.returncode}:\n{process.communicate()[0]}")
        os.kill(process.pid, by)
        output, _ = process.communicate(timeout=60)
        return process.returncode, output

    code, output = cut_off(signal.SIGINT)
    after_interrupt = survivors(var_dir)
    _, killed_output = cut_off(signal.SIGKILL)
    strays = survivors(var_dir)
    up = launcher(variables, "up")
    up_output, _ = up.communicate(timeout=240)
    if up.returncode:
        pytest.fail(f"`launcher up` ended with code {up.returncode}:\n{up_output}")
    after_up = sorted(set(strays) & set(survivors(var_dir)))
    return RoughStart(code, output, after_interrupt, killed_output, strays, after_up, up_output)


@pytest.fixture(scope="session")
def first_pass(platform: Platform) -> Pass:
    """The main job on the fresh market."""
    return platform.make_run()


@pytest.fixture(scope="session")
def second_pass(platform: Platform, first_pass: Pass) -> Pass:
    """The main job again, right after the first."""
    return platform.make_run()
