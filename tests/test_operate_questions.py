"""On duty: each question is answered by a page, at most three clicks from dashboard or overview, and by one command.

One short walk of real runs on a server of its own, then a browser and a shell that change nothing.
"""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from browsing import MARKS, keep, signed_in
from duty import Duty
from prefect_api import eventually, own_database

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAME, RETRAINS = "linear-regression", "linear-weekly"
REASON, UNTIL = "the prices were net", "until the prices are gross"
CLICKS = 3
pytestmark = MARKS


class Walk(NamedTuple):
    """What has been done, and what the commands have said of it."""

    duty: Duty
    rolled_back: str
    frozen: str
    overview: str  # the address of its page, as ``gradmill status`` has it
    loss: dict[int, str]  # of each version, by its manifest
    rmse: dict[int, str]  # the root of twice that

    def says(self, *words: str) -> str:
        """What a command answers."""
        return self.duty.does(*words)

    def manifest(self, version: int) -> dict[str, Any]:
        path = self.duty.artifacts / "models" / NAME / str(version) / "manifest.json"
        return dict(json.loads(path.read_text()))


@pytest.fixture(scope="module")
def walk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walk]:
    folder = tmp_path_factory.mktemp("questions")
    plans = {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5"}  # it plans once a minute unless told
    duty = Duty(folder / "artifacts", own_database() | plans | {"GRADMILL_MIRROR": str(folder / "mirror")})
    try:
        yield _walked(duty, folder / "rows.npy")
    finally:
        duty.kill()
        duty.api.close()


def _walked(duty: Duty, rows: Path) -> Walk:
    assert _retrained(duty, "training.seed=0") == "COMPLETED"
    assert _retrained(duty, "training.seed=7") == "COMPLETED"
    assert _retrained(duty, "training.seed=7") == "COMPLETED", "unchanged"
    assert _retrained(duty, "training.num_epochs=1") == "FAILED", "refused"
    assert _retrained(duty, "training.num_epochs=10000", "training.seed=5", cancelled=True) == "CANCELLED"
    features = np.random.default_rng(0).standard_normal((2000, 2)).astype(np.float32) + 3
    features[:5] = np.nan
    np.save(rows, features)
    duty.does("predict", str(rows), "--name", NAME, "--max-rejects", "5")
    rolled_back = duty.does("rollback", NAME, "--no-freeze", "--reason", REASON)
    frozen = duty.does("freeze", NAME, "--reason", UNTIL)

    def overview() -> str:  # the first is written a little after the run
        (model,) = json.loads(duty.does("status", "--json"))["models"]
        return str(model["overview"] or "")

    page = eventually(overview, 120, "the overview is written")
    walk = Walk(duty, rolled_back, frozen, page, {}, {})
    for version in (1, 2):
        loss = walk.manifest(version)["metrics"]["test_loss"]
        walk.loss[version], walk.rmse[version] = f"{loss:.4g}", f"{(2 * loss) ** 0.5:.4g}"
    return walk


def _retrained(duty: Duty, *settings: str, cancelled: bool = False) -> str:
    """How a run that is triggered has ended; one that trains for long may be cancelled, as in the UI."""
    options = [word for setting in settings for word in ("--param", setting)]
    run = json.loads(duty.does("trigger", RETRAINS, *options, "--json"))["id"]
    if cancelled:
        eventually(lambda: "preprocess" in duty.stages(run), 240, "the run trains")
        duty.post(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    return str(duty.ended(run)["state_type"])


@pytest.fixture(scope="module")
def tab(walk: Walk) -> "Iterator[Page]":
    with signed_in(walk.duty) as page:
        yield page


@pytest.fixture
def dashboard(walk: Walk, tab: "Page") -> "Page":
    tab.goto(f"{walk.duty.ui}/dashboard")
    tab.get_by_text("Work Pools").first.wait_for()
    return tab


@pytest.fixture
def overview(walk: Walk, tab: "Page") -> "Page":
    tab.goto(walk.overview)
    tab.get_by_text(re.compile("live since")).first.wait_for()
    return tab


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


def test_what_is_live_since_when_and_of_which_data(walk: Walk, overview: "Page") -> None:
    pointer = json.loads((walk.duty.artifacts / "models" / NAME / "champion.json").read_text())
    since, data = pointer["promoted_at"][:16].replace("T", " "), walk.manifest(1)["dataset"]
    rows, digest = f"{data['num_train']:,} training rows", f"digest {data['digest'][:8]}"
    trained = walk.manifest(1)["created_at"][:16].replace("T", " ")
    row(overview, "version", "1")
    row(overview, "since", since)
    row(overview, "data", rows)
    row(overview, "data", digest)
    row(overview, "trained", trained)
    keep(overview, "overview-of-the-walk")
    assert re.search(rf"{NAME} +1 +{walk.rmse[1]} +{since.replace(' ', 'T')}", walk.says("status"))


def test_why_the_last_judged_run_was_refused_though_a_newer_one_was_cancelled(walk: Walk, overview: "Page") -> None:
    shows(overview, "refused by test_loss")
    verdict = follow(overview, "verdict")
    shows(verdict, f"{NAME}: refused by test_loss")
    row(verdict, "test_loss", "refused")
    (told,) = (line for line in walk.says("status").splitlines() if line.startswith(f"{RETRAINS}: "))
    assert told.startswith(f"{RETRAINS}: refused: ")
    assert "test_loss" in told


def test_how_the_metric_has_developed_refusals_included(walk: Walk, overview: "Page") -> None:
    picture = overview.locator("img[alt='test loss of the last runs']")
    picture.wait_for()
    eventually(lambda: picture.evaluate("image => image.naturalWidth") > 300, 60, "the picture is drawn")
    keep(overview, "trend-of-the-walk")
    runs = [line for line in walk.says("models", NAME, "--runs").splitlines() if line.startswith(NAME)]
    outcomes = ["published version 1", "published version 2", "unchanged: version 2", "refused by test_loss"]
    told = [line for outcome in outcomes for line in runs[::-1] if outcome in line]
    assert len(told) == 4
    assert [walk.rmse[version] in told[version - 1] for version in (1, 2)] == [True, True]


def test_who_has_changed_the_champion_when_from_what_to_what_and_why(walk: Walk, overview: "Page") -> None:
    (rolled,) = [
        each for each in json.loads(walk.says("history", NAME, "--json"))["history"][NAME] if each["reason"] == REASON
    ]
    row(overview, rolled["at"][:16].replace("T", " "), "rolled back", "2 → 1", rolled["by"], REASON)
    row(overview, "frozen", "1, frozen", UNTIL)
    line = next(line for line in walk.says("history", NAME).splitlines() if REASON in line)
    for words in (rolled["at"][:19].replace("T", " "), "rolled back", "2 → 1", "@"):
        assert words in line


def test_whether_a_rollback_is_done_everywhere_and_whether_tonights_run_undoes_it(walk: Walk, overview: "Page") -> None:
    assert walk.rolled_back.startswith(f"{NAME}: 2 → 1, version 2 is held, mirror: up to date, not frozen")
    frozen = f"frozen: candidates are judged, and nothing is published until gradmill unfreeze {NAME}"
    assert f"mirror: up to date, frozen\n{frozen}" in walk.frozen
    shows(overview, "Frozen: retrains are judged and none is published", f"gradmill unfreeze {NAME}")
    shows(overview, "Version 2 is held", f"gradmill promote {NAME} 2")
    status = walk.says("status")
    assert f"{NAME} is frozen: no retrain changes it until gradmill unfreeze {NAME}" in status
    assert f"{NAME} version 2 is held until gradmill promote {NAME} 2" in status


def test_where_predictions_have_drifted_and_which_rows_were_rejected_and_why(walk: Walk, overview: "Page") -> None:
    row(overview, "rows.npy", "1,995", "5", "drift")
    page = follow(overview, "predictions")
    shows(page, "DRIFT: ", "of rows")
    for rejected in range(5):
        row(page, "rows.npy", re.compile(rf"^\s*{rejected}\s*$"), "not a finite number")
    keep(page, "predictions-of-the-walk")
    figures = walk.says("metrics")
    assert re.search(rf'^gradmill_last_prediction_drift{{.*"{NAME}".*}} 1\.0$', figures, re.MULTILINE)
    assert re.search(rf'^gradmill_last_prediction_rejected_rows{{.*"{NAME}".*}} 5\.0$', figures, re.MULTILINE)


def test_from_our_own_page_each_of_them_is_at_most_three_clicks_away(walk: Walk, tab: "Page") -> None:
    """What its overview and dashboard have is one or two clicks away from it."""
    refused = walk.duty.gradmill("up", PREFECT_API_URL="").stderr
    (link,) = re.findall(r"http\S+/gradmill\?ticket=\w+", refused)

    def enter() -> "Page":
        tab.goto(f"{walk.duty.ui}/gradmill")
        return tab

    tab.goto(link)
    tab.get_by_role("heading", name="Models").wait_for()
    row(tab, "version 1", "frozen; version 2 held; DRIFT")
    shows(tab, re.compile(": online, last seen"), "gradmill notify")
    keep(tab, "landing-of-the-walk")
    overview = follow(enter(), NAME)
    row(overview, "rolled back", "2 → 1", REASON)
    shows(overview, f"gradmill unfreeze {NAME}", f"gradmill promote {NAME} 2")
    row(follow(enter(), NAME, "verdict"), "test_loss", "refused")
    shows(follow(enter(), NAME, f"deployment {RETRAINS}", "Upcoming"), "Scheduled for ")
    shows(follow(enter(), "Runs"), "refused by test_loss")


def test_when_the_next_run_is(walk: Walk, dashboard: "Page") -> None:
    due = next(each for each in json.loads(walk.says("status", "--json"))["deployments"] if each["name"] == RETRAINS)
    page = follow(dashboard, "Deployments", RETRAINS, "Upcoming")
    shows(page, f"Scheduled for {datetime.fromisoformat(due['next_start']):%Y/%m/%d} 03:30:00 AM")
    keep(page, "upcoming-of-the-walk")
    (line,) = (line for line in walk.says("status").splitlines() if line.startswith(f"{RETRAINS} "))
    assert line.rstrip().endswith(due["next_start"][5:16].replace("T", " "))
