"""A headless Chromium, signed in to the Prefect UI of a ``gradmill up``."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from duty import Duty
from prefect_api import eventually

if TYPE_CHECKING:
    from playwright.sync_api import Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}, "timezone_id": "UTC"}
TIMEOUT = 120_000  # milliseconds: CI has two such browsers, and more, on two cores
MARKS = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium"),
]


def in_browser(test: Any) -> Any:
    """Mark a test as one with a browser."""
    for mark in MARKS:
        test = mark(test)
    return test


@contextmanager
def open_tab(**options: Any) -> "Iterator[Page]":
    """An empty tab of a browser of its own."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: test)")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # root in CI
        context = browser.new_context(**options)
        context.set_default_timeout(TIMEOUT)
        yield context.new_page()
        browser.close()


@contextmanager
def signed_in(duty: Duty) -> "Iterator[Page]":
    """A tab that shows the dashboard; others of its browser are signed in, too."""
    with open_tab(**DESKTOP) as page:
        eventually(lambda: asks_for_the_password(page, duty.ui), 240, "the UI asks for its password")
        page.get_by_role("textbox").fill(duty.credential)
        page.keyboard.press("Enter")
        page.get_by_text("Dashboard").first.wait_for()
        yield page


def asks_for_the_password(page: "Page", ui: str) -> bool:
    """Prefect's page asks its server once, when it is loaded, and stays empty if that fails, as on a loaded machine."""
    from playwright.sync_api import TimeoutError as NotThere

    try:
        page.goto(ui)
        page.get_by_role("textbox").wait_for(timeout=40_000)
    except NotThere:
        return False
    return True
