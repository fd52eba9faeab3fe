"""What a person sees in the Prefect UI: a real headless Chromium on the real server of ``gradmill up``."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from browsing import MARKS, TIMEOUT, keep, signed_in
from duty import Duty
from prefect_api import eventually
from prefect_ui import NAMES

if TYPE_CHECKING:
    from playwright.sync_api import Page, Request, Route, StorageState


STAGES = {"download", "validate", "preprocess", "train", "evaluate", "export", "publish", "predict"}
pytestmark = MARKS


@pytest.fixture(scope="module")
def signed(duty: Duty) -> "Iterator[tuple[Page, StorageState]]":
    """A tab, and by what another browser would be signed in."""
    with signed_in(duty) as page:
        yield page, page.context.storage_state()


@pytest.fixture(scope="module")
def page(signed: "tuple[Page, StorageState]") -> "Page":
    return signed[0]


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


# Forms: both UIs submit them, and send only what was set


UIS = {"v1": "", "v2": "/v2"}
TRIES, FORM_TIMEOUT = 4, 60_000  # milliseconds
BUTTONS = {"run": "Submit", "edit": "Save"}


def leave_out_switches(parameters: Any) -> Any:
    """Both UIs send what a switch says, touched or not."""
    if not isinstance(parameters, dict):
        return parameters
    left = {name: leave_out_switches(each) for name, each in parameters.items() if not isinstance(each, bool)}
    return {name: each for name, each in left.items() if each != {}}


@pytest.fixture(scope="module")
def visit(signed: "tuple[Page, StorageState]") -> "Callable[[], Page]":
    """A tab of a visitor of its own, signed in: who leaves a page of v2 while it asks for the version is signed out."""
    page, state = signed

    def open_tab() -> "Page":
        assert page.context.browser is not None
        context = page.context.browser.new_context(storage_state=state)
        context.set_default_timeout(FORM_TIMEOUT)
        return context.new_page()

    return open_tab


def submit(visit: "Callable[[], Page]", duty: Duty, address: str, form: str, learning_rate: str = "") -> dict[str, Any]:
    """Press a form's button, after filling in a learning rate if there is one; what the server was sent, and took.

    A busy server says 503 to some request, and the page stays empty: a person begins again.
    """
    from playwright.sync_api import Error as NotThere

    for left in reversed(range(TRIES)):
        tab = visit()
        try:
            return press(tab, duty, address, form, learning_rate)
        except (NotThere, AssertionError):
            if not left:
                raise
        finally:
            tab.context.close()
    raise AssertionError("no try")


def press(page: "Page", duty: Duty, address: str, form: str, learning_rate: str) -> dict[str, Any]:
    """The same, once."""
    from playwright.sync_api import TimeoutError as NotThere

    taken: list[dict[str, Any]] = []

    def postpone(route: "Route") -> None:
        """Let the request pass; a run is to begin in another century, so that nothing works beside this test."""
        document = json.loads(route.request.post_data or "{}")
        if form == "run":
            document["state"]["state_details"]["scheduled_time"] = "2090-01-01T00:00:00Z"
        answer = route.fetch(post_data=json.dumps(document))
        if answer.ok:
            taken.append(document["parameters"])
            if form == "run":  # other tests share this server
                duty.api.delete(f"/flow_runs/{answer.json()['id']}").raise_for_status()
        route.fulfill(response=answer)

    page.goto(f"{address}/{form}")
    if learning_rate:
        page.locator("//label[starts-with(normalize-space(.), 'Learning rate')]/following::input[1]").fill(
            learning_rate
        )
    button = page.get_by_role("button", name=BUTTONS[form]).last
    button.wait_for()
    page.wait_for_load_state("networkidle")
    pattern = "**/api/deployments/**"
    page.route(
        pattern,
        lambda route: (
            postpone(route)
            if route.request.method in ("POST", "PATCH")
            and (route.request.url.endswith("/create_flow_run") or route.request.method == "PATCH")
            else route.continue_()
        ),
    )

    def is_taken() -> bool:
        with suppress(NotThere):
            button.click(timeout=10_000)
        page.wait_for_timeout(1_000)
        return bool(taken)

    eventually(is_taken, 60, "the form is taken")
    page.unroute_all(behavior="ignoreErrors")  # of a second click, whose request is still under way
    return taken[0]


@pytest.mark.parametrize("ui", UIS)
@pytest.mark.parametrize("name", NAMES)
def test_a_form_that_nobody_has_touched_sends_what_the_deployment_has_and_no_default(
    name: str, ui: str, duty: Duty, visit: "Callable[[], Page]"
) -> None:
    before = duty.deployment(name)
    address = f"{duty.ui}{UIS[ui]}/deployments/deployment/{before['id']}"
    for form in BUTTONS:
        sent = submit(visit, duty, address, form)
        assert leave_out_switches(sent) == leave_out_switches(before["parameters"])
    assert leave_out_switches(duty.deployment(name)["parameters"]) == leave_out_switches(before["parameters"])


@pytest.mark.parametrize("ui", UIS)
def test_a_small_learning_rate_can_be_typed(ui: str, duty: Duty, visit: "Callable[[], Page]") -> None:
    address = f"{duty.ui}{UIS[ui]}/deployments/deployment/{duty.deployment('linear-weekly')['id']}"
    sent = submit(visit, duty, address, "run", "0.001")
    assert sent["parameters"]["training"]["lr"] == 0.001


@pytest.mark.parametrize("ui", UIS)
def test_the_page_that_asks_for_the_password_advertises_nothing(ui: str, duty: Duty, page: "Page") -> None:
    assert page.context.browser is not None
    stranger = page.context.browser.new_context()
    tab = stranger.new_page()

    def asks() -> bool:
        tab.goto(f"{duty.ui}{UIS[ui]}/")
        with suppress(sync_api.TimeoutError):
            tab.get_by_role("button", name="Login").wait_for(timeout=20_000)
            return True
        return False

    sync_api = pytest.importorskip("playwright.sync_api")
    eventually(asks, 120, "the page asks for the password")
    tab.wait_for_load_state("networkidle")
    assert not tab.get_by_text(re.compile("upgrade|cloud", re.IGNORECASE)).count()
    stranger.close()
