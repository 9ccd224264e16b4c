"""A training started by hand, in the Airflow UI, in a real browser; its model is then used by inference."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from platform_harness import MARKET, START_S, Pass, Platform, until

from launcher.environment import USER

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = Path(os.environ.get("CHROMIUM") or "/usr/bin/chromium")
FIELDS = {
    "Market": "Scopes tables, models and accounts.",
    "Model": "A file of configs/models, or of configs/zoo.",
    "Where to train": "gpu_queue: a worker on queue 'gpu'",
    "First session the model must not know": "Every label it uses was known before this session.",
    "Seed": "Default: the config's.",
    "Epochs": "Default: the config's.",
    "Learning rate": "Default: the config's.",
    "Reuse an identical model": "take it instead of training again",
}


@pytest.fixture
def page() -> Iterator[Page]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    if not CHROMIUM.is_file():
        pytest.skip(f"there is no browser at {CHROMIUM}; set CHROMIUM to the path of one")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1600})
        page.set_default_timeout(START_S * 1000)
        yield page
        browser.close()


def shoot(page: Page, name: str) -> None:
    """A screenshot into the folder E2E_SCREENSHOTS, where that is set."""
    folder = os.environ.get("E2E_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def choose(page: Page, field: str, value: str) -> None:
    """Opens a drop-down of the form and takes one of its entries."""
    page.locator(f"#element_{field}").get_by_role("combobox").click()
    page.get_by_role("option", name=value, exact=True).click()


def test_a_training_from_the_form_makes_a_model_that_inference_uses(
    platform: Platform, first_pass: Pass, page: Page
) -> None:
    known = {run["dag_run_id"] for run in platform.runs("train_model")}
    page.goto(f"{platform.home.base_url}/dags/train_model")
    page.get_by_label("Username").fill(USER)
    page.locator("input[type=password]").fill(platform.home.password)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Trigger").first.click()
    form = page.locator("[role=dialog][data-state=open]")
    form.get_by_text("Run Parameters").wait_for()
    form.get_by_text("Reuse an identical model").wait_for()
    shown = form.inner_text()
    for title, help_text in FIELDS.items():
        assert title in shown
        assert help_text in shown
    choose(page, "model", "tft")  # another one first, so that the choice that counts is made here
    page.get_by_role("option", name="tft", exact=True).wait_for(state="hidden")
    choose(page, "model", "linear")
    page.locator("[id='number-input:element_seed'] input").fill("11")
    shoot(page, "train_model_form")
    form.get_by_role("button", name="Trigger", exact=True).click()
    form.wait_for(state="hidden")

    (run_id,) = until(
        lambda: {run["dag_run_id"] for run in platform.runs("train_model")} - known, START_S, lambda: "no run was made"
    )
    conf = platform.api.run("train_model", run_id)["conf"]
    assert (conf["market"], conf["model"], conf["where"], conf["seed"]) == (MARKET, "linear", "local", 11)
    assert platform.wait("train_model", [run_id]) == {run_id: "success"}
    page.goto(f"{platform.home.base_url}/dags/train_model/runs/{run_id}")
    page.get_by_text("register").first.wait_for()
    shoot(page, "train_model_run")

    made = platform.api.xcom("train_model", run_id, "register")
    version = platform.workspace().registry().version(MARKET, made["version"])
    assert made["version"] > first_pass.versions[-1]
    assert "champion" not in version.aliases  # promoted by hand only
    inferring = platform.api.run_started_by("batch_inference", run_id)
    assert platform.wait("batch_inference", [inferring]) == {inferring: "success"}
    (forecasts,) = platform.api.xcom("batch_inference", inferring, "publish")
    assert forecasts["model_version"] == str(made["version"])
    assert forecasts["added"] == forecasts["rows"] > 0
    stored = platform.workspace().tables.read("forecasts", columns=["model_version", "session"])
    assert str(made["version"]) in set(stored["model_version"])
    assert stored["session"].min() > version.cutoff
