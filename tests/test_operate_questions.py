"""On duty: each question is answered by one command, and by a page at most three clicks from our own."""

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from browsing import in_browser, signed_in
from documents import load
from duty import Duty

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAME, RETRAINS = "asked", "linear-weekly"
REASON, UNTIL = "the prices were net", "until the prices are gross"
CLICKS = 3
pytestmark = pytest.mark.slow  # a running gradmill up
# The command, and what it says; {live} and {since} are of the champion's documents.
QUESTIONS = {
    "what is live, and since when": ("status", rf"{NAME} +1 +{{live}} +{{since}}"),
    "why the last judged run was refused": ("status", rf"(?m)^! {RETRAINS}: Refused at .*: refused by test_loss"),
    "when the next run is": ("status", rf"(?m)^{RETRAINS} .* \d\d-\d\d 03:30 *$"),
    "whether tonight's run changes the champion": ("status", f"{NAME} is frozen: no .* until gradmill unfreeze {NAME}"),
    "whether it undoes a rollback": ("status", f"{NAME} version 2 is held until gradmill promote {NAME} 2"),
    "how the metric has developed, refusals included": (
        f"models {NAME} --runs", r"(?s)refused by test_loss.*published version 2.*published version 1 +{live}"
    ),
    "who has changed the champion, from what to what and why": (
        f"history {NAME}", rf"\d\d-\d\d \d\d:\d\d +rolled back .*2 → 1 .*@.*{REASON}"
    ),
    "where predictions have drifted": ("metrics", rf'gradmill_last_prediction_drift{{name="{NAME}"}} 1\.0'),
    "how many rows were rejected": ("metrics", rf'gradmill_last_prediction_rejected_rows{{name="{NAME}"}} 5\.0'),
}  # fmt: skip


@pytest.fixture(scope="module")
def walk(duty: Duty, tmp_path_factory: pytest.TempPathFactory) -> Duty:
    """Version 2 was rolled back from, a run was refused, and a prediction has drifted."""
    for training, end in (({"seed": 0}, "COMPLETED"), ({"seed": 7}, "COMPLETED"), ({"num_epochs": 1}, "FAILED")):
        run = duty.trigger(RETRAINS, name=NAME, training={"model": "linear-regression", **training})
        assert duty.ended(run)["state_type"] == end
    features = np.random.default_rng(0).standard_normal((2000, 2)).astype(np.float32) + 3
    features[:5] = np.nan
    np.save(rows := tmp_path_factory.mktemp("questions") / "rows.npy", features)
    duty.does("predict", str(rows), "--name", NAME, "--max-rejects", "5")
    duty.does("rollback", NAME, "--no-freeze", "--reason", REASON)
    duty.does("freeze", NAME, "--reason", UNTIL)
    return duty


@pytest.mark.parametrize("question", QUESTIONS)
def test_each_question_is_answered_by_one_command(question: str, walk: Duty) -> None:
    command, pattern = QUESTIONS[question]
    model = walk.artifacts / "models" / NAME
    pointer, manifest = (load(model / name) for name in ("champion.json", "1/manifest.json"))
    live, since = f"{(2 * manifest['metrics']['test_loss']) ** 0.5:.4g}", pointer["promoted_at"][:16]
    said = walk.does(*command.split())
    assert re.search(pattern.replace("{live}", live).replace("{since}", since), said), said


def follow(page: "Page", *links: str) -> "Page":
    """Click one link after the other; return where they lead, which may be another tab."""
    assert len(links) <= CLICKS
    for words in links:
        there = page.locator("a, button, li").filter(has_text=re.compile(rf"^\s*{re.escape(words)}\s*$"))
        link = there.locator("visible=true").first
        link.wait_for()
        if link.get_attribute("target") == "_blank":
            with page.context.expect_page() as opened:
                link.click()
            page = opened.value
        else:
            link.click()
    return page


def shows(page: "Page", *words: "str | re.Pattern[str]") -> None:
    """All of the words are there, as they stand, each within one element."""
    for each in words:
        page.get_by_text(each).locator("visible=true").first.wait_for()


def row(page: "Page", *cells: "str | re.Pattern[str]") -> None:
    """A row of a table has cells with each of these words."""
    found = page.locator("tr")
    for cell in cells:
        found = found.filter(has=page.locator("td", has_text=cell))
    found.first.wait_for()


@in_browser
def test_each_question_is_answered_at_most_three_clicks_from_our_own_page(walk: Duty) -> None:
    with signed_in(walk) as tab:
        (link,) = re.findall(r"http\S+/gradmill\?ticket=\w+", walk.gradmill("up", PREFECT_API_URL="").stdout)

        def enter() -> "Page":
            tab.goto(f"{walk.ui}/gradmill")
            return tab

        tab.goto(link)
        tab.get_by_role("heading", name="Models").wait_for()
        row(tab, "version 1", "frozen; version 2 held; DRIFT")
        shows(tab, re.compile(": online, last seen"), "GRADMILL_NOTIFY=TYPE/NAME gradmill register")
        overview = follow(enter(), NAME)
        row(overview, "rolled back", "2 → 1", REASON)
        row(overview, "frozen", "1, frozen", UNTIL)
        row(overview, "rows.npy", "1,995", "5", "drift")
        shows(overview, f"gradmill unfreeze {NAME}", f"gradmill promote {NAME} 2")
        row(follow(enter(), NAME, "verdict"), "test_loss", "refused")
        rejects = follow(enter(), NAME, "predictions")
        for rejected in range(1, 6):
            row(rejects, "rows.npy", re.compile(rf"^\s*row {rejected}\s*$"), " is missing")
        shows(follow(enter(), "Deployments", RETRAINS, "Upcoming"), "Scheduled for ")
        shows(follow(enter(), "Runs"), "refused by test_loss")
