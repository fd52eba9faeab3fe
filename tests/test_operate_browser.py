"""What a person sees in the Prefect UI: a real headless Chromium on the real server of ``gradmill up``."""

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from browsing import MARKS, TIMEOUT, keep, latest, signed_in
from duty import Duty
from prefect_api import eventually

if TYPE_CHECKING:
    from playwright.sync_api import Page, Request

NAME = "linear-regression"
STAGES = {"download", "validate", "preprocess", "train", "evaluate", "export", "publish", "predict"}
pytestmark = MARKS


@pytest.fixture(scope="module")
def page(duty: Duty) -> "Iterator[Page]":
    with signed_in(duty) as page:
        yield page


def test_no_page_asks_anybody_but_the_server(duty: Duty, page: "Page") -> None:
    requests: list[Request] = []
    assert page.context.browser is not None
    apart = page.context.browser.new_context(storage_state=page.context.storage_state())
    apart.set_default_timeout(TIMEOUT)
    tab = apart.new_page()  # signed in by itself: who leaves a page of v2 while it asks for the version is signed out
    tab.on("request", lambda request: requests.append(request))  # Playwright takes no built-in
    for place in ("dashboard", "runs", "deployments", "automations", "blocks", "settings", "v2/dashboard", "v2/runs"):
        tab.goto(f"{duty.ui}/{place}")
        tab.wait_for_load_state("networkidle")
    apart.close()
    asked = {urlsplit(each.url).netloc for each in requests if each.failure != "csp"}  # those that the browser refuses
    assert asked <= {f"127.0.0.1:{duty.port}", ""}, "blobs have no host"
    page.goto(duty.ui)
    page.get_by_text("Dashboard").first.wait_for()
    assert not page.get_by_text(re.compile("upgrade|cloud", re.IGNORECASE)).count(), "no adverts"


def test_the_deployments_are_listed(duty: Duty, page: "Page") -> None:
    page.goto(f"{duty.ui}/deployments")
    for name in ("softmax-nightly", "linear-weekly", "predict-daily", "maintenance-weekly"):
        page.get_by_role("link", name=name).first.wait_for()
    keep(page, "deployments")


def test_the_form_refuses_a_bad_value_and_starts_a_run_with_a_good_one(duty: Duty, page: "Page") -> None:
    from playwright import sync_api

    deployment = duty.deployment("linear-weekly")["id"]
    before = duty.triggered()
    page.goto(f"{duty.ui}/deployments/deployment/{deployment}/run")
    fields = ["Model", "Epochs", "Learning rate", "Seed", "Device"]

    def shown() -> list[str]:
        labels = page.locator("label").filter(has_text="(Optional)").all_inner_texts()
        return [text for label in labels if (text := label.removesuffix(" (Optional)")) in fields]

    eventually(lambda: len(shown()) == len(fields), 60, "the whole form is there")
    assert shown() == fields, "in the order of the parameters, not of the alphabet"
    epochs = page.locator("//label[starts-with(normalize-space(.), 'Epochs')]/following::input[1]")
    assert epochs.input_value() == "", "the book's value depends on the model"
    epochs.fill("0")
    page.get_by_role("button", name="Submit").click()
    page.get_by_text("less than the minimum").first.wait_for()
    keep(page, "form")
    assert duty.triggered() == before, "nothing has started"
    epochs.fill("4")
    page.get_by_text("less than the minimum").first.wait_for(state="hidden")  # the form asks the server about it

    def submitted() -> bool:
        page.get_by_role("button", name="Submit").click()
        with suppress(sync_api.TimeoutError):  # a busy server has said 503, which the page shows: a person clicks again
            page.wait_for_url("**/deployments/deployment/**?tab=Runs", timeout=40_000)
            return True
        return False

    eventually(submitted, 180, "the form is taken")
    started = [duty.ended(run) for run in duty.triggered() - before]
    assert started, "a run has started"
    for run in started:
        assert run["parameters"]["parameters"]["training"]["num_epochs"] == 4
        assert run["state_type"] == "COMPLETED"


def test_a_run_shows_its_stages_and_artifacts(duty: Duty, page: "Page") -> None:
    run = duty.ended(duty.trigger("softmax-nightly", name="fashion", force=True), 300)  # reused stages draw no curve
    assert run["state_type"] == "COMPLETED"
    ours = {"flow_runs": {"id": {"any_": [run["id"]]}}}

    def recorded() -> set[str]:
        return {each["name"] for each in duty.post("/task_runs/filter", ours)}

    eventually(lambda: recorded() >= STAGES, 60, "all task runs are recorded, a little late")
    page.goto(f"{duty.ui}/runs/flow-run/{run['id']}")
    page.get_by_text(run["name"]).first.wait_for()
    page.get_by_text("verdict:published").first.wait_for()
    keep(page, "run")
    page.get_by_text("Task Runs", exact=True).click()
    for stage in STAGES:
        page.get_by_role("link", name=stage, exact=True).first.wait_for()
    page.get_by_text("Artifacts", exact=True).click()
    for artifact in ("verdict", "pictures", "card", "predictions"):
        page.get_by_text(f"fashion-{artifact}").first.wait_for()
    page.goto(f"{duty.ui}/artifacts")  # which shows no more than fit the screen
    page.get_by_placeholder(re.compile("search", re.IGNORECASE)).first.fill("fashion-learning-curve")
    page.get_by_text("fashion-learning-curve").first.wait_for()


def test_a_refused_run_says_by_which_gate(duty: Duty, page: "Page") -> None:
    run = duty.ended(duty.trigger("linear-weekly", name="hopeless", training={"model": NAME, "num_epochs": 1}))
    assert (run["state_type"], run["state_name"]) == ("FAILED", "Refused")
    page.goto(f"{duty.ui}/runs")
    page.get_by_text("Refused", exact=True).first.wait_for()
    page.get_by_text(re.compile(r"hopeless concise .*: refused by test_loss")).first.wait_for()
    keep(page, "runs")
    page.goto(f"{duty.ui}/artifacts/artifact/{latest(duty, 'hopeless-verdict')}")
    page.get_by_text("hopeless: refused by test_loss").first.wait_for()
    page.locator("td").filter(has_text="refused").first.wait_for()
    keep(page, "verdict")
    page.goto(f"{duty.ui}/artifacts/artifact/{latest(duty, 'hopeless-pictures')}")
    picture = page.locator("img[alt='Learning curve']")
    picture.wait_for()
    eventually(lambda: picture.evaluate("image => image.naturalWidth") > 300, 60, "the picture is drawn")


def test_the_form_of_a_prediction_has_a_plain_field_for_its_input(duty: Duty, page: "Page") -> None:
    deployment = duty.deployment("predict-daily")["id"]
    page.goto(f"{duty.ui}/deployments/deployment/{deployment}/run")
    field = page.locator("//label[starts-with(normalize-space(.), 'Input')]/following::textarea[1]")
    field.wait_for()
    assert field.input_value() == "", "and no choice between text and nothing"
    keep(page, "form-of-predictions")


def test_the_overview_says_what_is_live_and_leads_to_the_verdict_by_one_click(duty: Duty, page: "Page") -> None:
    duty.published(NAME)
    page.goto(f"{duty.ui}/artifacts/artifact/{latest(duty, f'{NAME}-overview')}")
    page.get_by_text(re.compile(r"^version \d+ live since .*; last run ")).first.wait_for()
    keep(page, "overview")
    leads_to = page.get_by_role("link", name="verdict", exact=True).first.get_attribute("href")  # in a tab of its own
    assert leads_to == f"/artifacts/artifact/{latest(duty, f'{NAME}-verdict')}"
    page.goto(f"{duty.ui}{leads_to}")
    page.get_by_text(re.compile(f"{NAME}: (published|unchanged)")).first.wait_for()
