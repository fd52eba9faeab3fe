"""Prefect's forms for a run and for a deployment: both of its UIs submit them, and send only what was set."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from browsing import MARKS, signed_in
from duty import Duty
from prefect_api import eventually
from prefect_ui import NAMES

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

pytestmark = MARKS
UIS = {"v1": "", "v2": "/v2"}
BUTTONS = {"run": "Submit", "edit": "Save"}


@pytest.fixture(scope="module")
def page(duty: Duty) -> "Iterator[Page]":
    with signed_in(duty) as page:
        yield page


def leave_out_switches(parameters: Any) -> Any:
    """Both UIs send what a switch says, touched or not."""
    if not isinstance(parameters, dict):
        return parameters
    left = {name: leave_out_switches(each) for name, each in parameters.items() if not isinstance(each, bool)}
    return {name: each for name, each in left.items() if each != {}}


def submit(page: "Page", duty: Duty, address: str, form: str, learning_rate: str = "") -> dict[str, Any]:
    """Press a form's button, after filling in a learning rate if there is one; what the server was sent, and took."""
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

    def is_wanted(url: str) -> bool:
        path = urlsplit(url).path
        return path.endswith("/create_flow_run") if form == "run" else path == urlsplit(address).path.replace("/v2", "")

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

    eventually(is_taken, 90, "the form is taken")
    page.unroute(pattern)
    return taken[0]


@pytest.mark.parametrize("ui", UIS)
@pytest.mark.parametrize("name", NAMES)
def test_a_form_that_nobody_has_touched_sends_what_the_deployment_has_and_no_default(
    name: str, ui: str, duty: Duty, page: "Page"
) -> None:
    before = duty.deployment(name)
    address = f"{duty.ui}{UIS[ui]}/deployments/deployment/{before['id']}"
    for form in BUTTONS:
        sent = submit(page, duty, address, form)
        assert leave_out_switches(sent) == leave_out_switches(before["parameters"])
    assert leave_out_switches(duty.deployment(name)["parameters"]) == leave_out_switches(before["parameters"])


@pytest.mark.parametrize("ui", UIS)
def test_a_small_learning_rate_can_be_typed(ui: str, duty: Duty, page: "Page") -> None:
    address = f"{duty.ui}{UIS[ui]}/deployments/deployment/{duty.deployment('linear-weekly')['id']}"
    sent = submit(page, duty, address, "run", "0.001")
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
