"""What a person sees in the Prefect UI: a real headless Chromium on the real server of ``gradmill up``."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from browsing import MARKS, TIMEOUT, signed_in
from duty import Duty
from prefect_api import eventually
from prefect_ui import NAMES

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page, Request, StorageState


ADVERTS = re.compile("upgrade|cloud", re.IGNORECASE)
UIS = {"v1": "", "v2": "/v2"}
pytestmark = MARKS


@pytest.fixture(scope="module")
def signed(duty: Duty) -> "Iterator[tuple[Page, StorageState]]":
    """A tab, and by what another browser would be signed in."""
    with signed_in(duty) as page:
        yield page, page.context.storage_state()


@pytest.fixture(scope="module")
def page(signed: "tuple[Page, StorageState]") -> "Page":
    return signed[0]


def another(page: "Page", **options: Any) -> "BrowserContext":
    """Another visitor: who leaves a page of v2 while it asks for the version is signed out."""
    assert page.context.browser is not None
    context = page.context.browser.new_context(**options)
    context.set_default_timeout(TIMEOUT)
    return context


def test_no_page_asks_anybody_but_the_server_or_advertises(duty: Duty, page: "Page") -> None:
    requests: list[Request] = []
    apart = another(page, storage_state=page.context.storage_state())
    tab = apart.new_page()
    tab.on("request", lambda request: requests.append(request))  # Playwright takes no built-in
    for place in ("dashboard", "runs", "deployments", "automations", "blocks", "settings", "v2/dashboard", "v2/runs"):
        tab.goto(f"{duty.ui}/{place}")
        tab.wait_for_load_state("networkidle")
    asked = {urlsplit(each.url).netloc for each in requests if each.failure != "csp"}  # those that the browser refuses
    assert asked <= {f"127.0.0.1:{duty.port}", ""}, "blobs have no host"
    page.goto(duty.ui)
    page.get_by_text("Dashboard").first.wait_for()
    assert not page.get_by_text(ADVERTS).count()
    apart.close()


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
    (run,) = (duty.ended(run) for run in duty.triggered() - before)
    assert (run["parameters"]["parameters"]["training"]["num_epochs"], run["state_type"]) == (4, "COMPLETED")


BUTTONS = {"run": "Submit", "edit": "Save"}
# Of both forms in both UIs, of every deployment one in one UI and the other in the other; what is typed in both.
FORMS = [(name, form, [*UIS][(at + (form == "edit")) % 2]) for at, name in enumerate(NAMES) for form in BUTTONS]
FORMS += [("linear-weekly", "run", ui) for ui in UIS if ("linear-weekly", "run", ui) not in FORMS]


def leave_out_switches(parameters: Any) -> Any:
    """Both UIs send what a switch says, touched or not."""
    if not isinstance(parameters, dict):
        return parameters
    left = {name: leave_out_switches(each) for name, each in parameters.items() if not isinstance(each, bool)}
    return {name: each for name, each in left.items() if each != {}}


def is_sent(request: "Request") -> bool:
    return request.method == "PATCH" or request.url.endswith("/create_flow_run")


@pytest.mark.parametrize(("name", "form", "ui"), FORMS)
def test_a_form_sends_what_the_deployment_has_and_what_was_typed_and_no_default(
    name: str, form: str, ui: str, duty: Duty, signed: "tuple[Page, StorageState]"
) -> None:
    from playwright.sync_api import Error

    deployment = duty.deployment(name)
    expected = leave_out_switches(deployment["parameters"])

    def press() -> Any:
        """Nothing reaches the server. A busy one says 503 to some request, the page stays empty: one begins again."""
        with another(signed[0], storage_state=signed[1]) as context, suppress(Error):
            tab = context.new_page()
            tab.goto(f"{duty.ui}{UIS[ui]}/deployments/deployment/{deployment['id']}/{form}")
            if (form, name) == ("run", "linear-weekly"):
                expected["parameters"]["training"]["lr"] = 0.001
                label = "//label[starts-with(normalize-space(.), 'Learning rate')]/following::input[1]"
                tab.locator(label).fill("0.001")
            button = tab.get_by_role("button", name=BUTTONS[form]).last
            button.wait_for()
            tab.wait_for_load_state("networkidle")
            pattern = "**/api/deployments/**"
            tab.route(pattern, lambda route: route.abort() if is_sent(route.request) else route.continue_())
            with tab.expect_request(is_sent, timeout=40_000) as sent:
                button.click()
            return json.loads(sent.value.post_data or "")
        return None

    sent = eventually(press, 120, "the form is taken")
    assert leave_out_switches(sent["parameters"]) == expected
    path = f"/deployments/{deployment['id']}"
    if form == "run":  # in another century, so that nothing works beside this test
        sent["state"]["state_details"]["scheduled_time"] = "2090-01-01T00:00:00Z"
        run = duty.post(f"{path}/create_flow_run", sent)
        duty.api.delete(f"/flow_runs/{run['id']}").raise_for_status()
    else:
        duty.api.patch(path, json=sent).raise_for_status()
