"""A name's overview: every figure on it is the store's, whatever has happened to the name."""

import html
import json
import os
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.states import Pending, Running

from candidate import Contender, write_job
from command_line import answer, output, refused
from flows.pages import overview as pages
from flows.server import deployments, status, up
from prefect_api import post
from store_state import seal_all
from tasks.data.report import DataReport, Finding
from tasks.parameters import RetrainParameters
from tasks.records import GateVerdict, PublishedModel
from tasks.store import artifact_paths, housekeeping, identity, locks, model_folder, pointer, state
from tasks.store.page_rendering import Page, render_markdown
from tasks.store.run_folder import RunFolder

NAME = "linear-regression"
REASON = "it was <b>off</b> | by *miles*"
HISTORY = f"""\
{{"at": "2026-11-01T12:00:00+00:00", "what": "published", "champion": 1, "versions": [1], "frozen": false, \
"by": "20261101T030000-{NAME}-00000001"}}
{{"at": "2026-11-02T12:00:00+00:00", "what": "published", "champion": 2, "versions": [2], "frozen": false, \
"by": "20261102T030000-{NAME}-00000002"}}
{{"at": "2026-11-06T12:00:00+00:00", "what": "rolled back", "champion": 1, "versions": [1], "frozen": true, \
"by": "mia", "reason": "{REASON}"}}
"""


def run(candidate: Contender, day: int, loss: float | None = None, **stages: Any) -> RunFolder:
    """A run of a day, as far as it has come."""
    asked = candidate.parameters.model_dump(mode="json") | {"name": NAME}
    made = RunFolder.open(f"202611{day:02}T030000-{NAME}-0000000{day}", asked)
    if loss is not None:
        gate = GateVerdict(name="test_loss", value=loss, maximum=1.0, passed=loss < 1, detail="at most 1.0")
        metrics = candidate.evaluated.metrics | {"test_loss": loss}
        evaluated = {"metrics": metrics, "gates": [gate.model_dump(mode="json")], "pictures": []}
        made.note(stages={"train": candidate.trained.model_dump(mode="json"), "evaluate": evaluated})
    made.note(stages=stages)
    return made


@pytest.fixture
def walk(candidates: list[Contender], two_versions: None) -> None:
    """A week in which everything happens: 2 is published and rolled back from."""
    one = candidates[0]

    def decided(outcome: Any, version: int | None = None) -> Any:
        return PublishedModel(outcome=outcome, name=NAME, version=version, model=one.exported.onnx).model_dump(
            mode="json"
        )

    run(one, 1, 0.5, publish=decided("published", 1))
    run(one, 2, 0.4, publish=decided("published", 2))
    run(one, 3, 2.0)
    unfit = run(one, 4)
    unfit.note(seconds={"validate": 0.1})
    finding = Finding(severity="error", rule="other-scale", column="x", found="x is 1000 times as large", action="mend")
    DataReport(name=NAME, summary="", findings=(finding,)).write(unfit.file("data-report.json"))
    unfit.note_failure(4)
    run(one, 5)  # killed
    run(one, 6, unchanged={"outcome": "unchanged", "version": 2, "detail": "of these rows"})
    run(one, 7, 0.45, publish=decided("judged"))
    pointer.rollback(NAME, REASON)
    for notes in artifact_paths.runs().glob("*/run.json"):  # the sixth began at 3 as all did, and ended after 12
        day = notes.parent.name[6:8]
        ended = {"noted_at": f"2026-11-{day}T{'13' if day == '06' else '04'}:30:00+00:00"}
        notes.write_text(json.dumps(json.loads(notes.read_text()) | ended))
    artifact_paths.history(NAME).write_text(HISTORY)
    write_job(
        artifact_paths.predictions("7" * 16), NAME, 2,
        finished_at="2026-11-07T06:00:00.000+00:00", rejects=7, rows=1200, shards=[[0, 0, 1200]],
        drift={"index": {"prediction": 0.35}, "maximum": 0.2, "verdict": "drift"},
        input={"path": "/in/a.csv", "digest": "0" * 64, "files": 1, "bytes": 9},
        accuracy=0.75,  # as jobs had it before they had metrics
    )  # fmt: skip


def shown(name: str = NAME) -> str:
    """The page in Markdown, without its picture and backslashes."""
    facts = state.read_name(name)
    return render_markdown(Page(name, pages.format_headline(facts), pages.list_sections(facts, None))).replace("\\", "")


def section(page: str, title: str) -> str:
    return page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.usefixtures("walk")
def test_the_trend_has_every_run_at_its_figure_beside_the_version_live_then() -> None:
    found = state.find_trend(state.read_name(NAME))
    assert found is not None
    assert (found.figure, found.is_loss) == ("test loss", True)
    assert [(point.outcome, point.value, point.bound, point.live) for point in found.points] == [
        ("published", 0.5, 1.0, 1), ("published", 0.4, 1.0, 2), ("refused", 2.0, 1.0, 2), ("failed", None, None, 2),
        ("unfinished", None, None, 2), ("unchanged", None, None, 1), ("judged", 0.45, 1.0, 1),
    ]  # fmt: skip
    losses = {number: model_folder.find_manifest(NAME, number).metrics.test_loss for number in (1, 2)}
    assert [point.live_value for point in found.points] == [losses[point.live or 0] for point in found.points]


def test_the_bound_on_an_accuracy_is_the_champions_less_the_drop_that_is_allowed_where_that_is_more() -> None:
    least = GateVerdict(name="test_accuracy", value=0.8405, minimum=0.7, passed=True, detail="")
    for drop, bound in ((0.8441 - 0.8405, 0.8441 - 0.005), (0.6 - 0.8405, 0.7)):
        against = GateVerdict(name="champion_accuracy", value=drop, maximum=0.005, passed=True, detail="")
        gates = {each.name: each for each in (least, against)}
        assert state._find_bound(gates, "test_accuracy") == pytest.approx(bound)


@pytest.mark.usefixtures("walk")
def test_the_page_tells_what_is_live_what_runs_came_to_and_how_to_go_on() -> None:
    page = shown()
    assert f"loss {model_folder.find_manifest(NAME, 1).metrics.test_loss:.4g}, frozen; " in page
    assert "last run passed every gate and published nothing; DRIFT in the last prediction" in page
    assert f"Frozen: retrains are judged and none is published, until `gradmill unfreeze {NAME}`" in page
    assert f"Version 2 is held: no retrain brings it back, `gradmill promote {NAME} 2` does" in page
    assert "| 2026-11-07 06:00 | 2 | a.csv | 1,193 | 7 | drift | prediction 0.350 | accuracy 0.75 |" in page
    assert re.search(r"(?m)^\| 2 \| .* \| held \|\n\| 1 \| .* \| champion \|$", section(page, "Versions"))
    assert "| 2026-11-06 12:00 | rolled back | 1 | 1, frozen |" in page
    assert f"`gradmill skip {NAME}`" in section(page, "By command")
    assert status.describe_store(state.read()).models[0].held == [2]
    assert state.read().names[NAME] == state.read_name(NAME), "read for all names at once"


def test_a_name_that_nothing_retrains_is_told_how_to_schedule_it_and_not_what_its_schedule_would_take(
    artifacts: Path,
) -> None:
    assert "gradmill schedule houses --cron" in shown("houses")
    assert "gradmill skip" not in shown("houses")
    housekeeping.Retention().write(artifact_paths.retention("houses"))
    assert "gradmill skip houses" in shown("houses")


@pytest.mark.parametrize(
    ("last", "words"),
    [
        (3, ("last run refused by test_loss", "test_loss 2: at most 1.0")),
        (4, ("last run was stopped by its data in validate, the one judged before", "x is 1000 times as large")),
        (5, ("last run was killed, the one judged before, on 3 Nov, refused by test_loss", "at most 1.0")),
    ],
)
@pytest.mark.usefixtures("walk")
def test_why_a_run_has_failed_stays_on_the_page_whatever_came_after_it(last: int, words: tuple[str, ...]) -> None:
    for day in range(last + 1, 8):
        (artifact_paths.runs() / f"202611{day:02}T030000-{NAME}-0000000{day}" / "run.json").unlink()
    page = shown()
    assert [each for each in words if each not in page] == []


@pytest.mark.slow
@pytest.mark.usefixtures("walk")
def test_the_report_is_one_file_that_needs_no_other_and_runs_nothing(tmp_path: Path) -> None:
    file = tmp_path / "there" / "page.html"
    told = answer(f"report {NAME} --output {file}")
    body = file.read_text().partition("</head>")[2]
    words = html.unescape(re.sub(r"\s+", " ", re.sub("<[^>]*>", "", body)))
    assert told["path"] == str(file)
    assert told["headline"] in words
    assert REASON in words, "as it was written, and no element"
    assert not re.search(r"<(b|script|link|iframe)\b", body)
    (picture,) = re.findall(r'\b(?:src|srcset|href)="([^#"].{29})', body)
    assert picture.startswith("data:image/png;base64,iVBOR")


@pytest.mark.slow
def test_of_nothing_known_there_is_no_report_and_of_a_refused_first_run_there_is(
    candidates: list[Contender], tmp_path: Path
) -> None:
    refused(2, f"report {NAME}", "no model named linear-regression")
    run(candidates[0], 2, 2.0)
    output(f"report {NAME} --output {tmp_path}/page.html")
    assert "no version is live; last run refused by test_loss" in (tmp_path / "page.html").read_text()


@pytest.mark.usefixtures("walk")
def test_of_much_that_cannot_be_read_the_first_and_their_number_are_told() -> None:
    for number in range(13):
        folder = artifact_paths.predictions(f"{number:016x}")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "_job.json").write_text("{")
    faults = section(shown(), "What could not be read")
    assert faults.count("_job.json") == 10
    assert "and 3 more" in faults


def test_a_run_that_has_reached_its_time_limit_says_so_and_a_retry_of_it_no_more() -> None:
    run = f"20261104T030000-{NAME}-0badcafe"
    asked = RetrainParameters(name=NAME).model_dump(mode="json")
    folder = RunFolder.open(run, asked)
    folder.note(seconds={"train": 43_200.0})
    folder.note_failure(1, 43_200.0)
    page = shown()
    assert "last run reached its time limit of 12:00:00 in train" in page
    assert "GRADMILL_TIME_LIMIT" in section(page, "Last run"), "what to do"
    RunFolder.open(run, asked)
    assert "last run was killed" in shown()


@pytest.mark.usefixtures("two_versions")
def test_a_figure_that_is_text_and_a_run_of_what_is_no_name_hide_nothing_else(tmp_path: Path) -> None:
    metrics = model_folder.find_manifest(NAME, 1).metrics.model_dump(mode="json")
    seal_all(artifact_paths.version(NAME, 1), metrics=metrics | {"rmse": "low"})
    RunFolder.open("20261104T030000-x-0badcafe", {"name": "../x", "gates": {}, "training": {"model": NAME}})
    output(f"report {NAME} --output {tmp_path}/page.html")
    assert "RMSE" not in (tmp_path / "page.html").read_text()
    found = state.read()
    assert ([*found.names], [fault.kind for fault in found.faults]) == ([NAME], ["run"])


def test_a_retry_has_the_verdict_of_its_own_try(candidates: list[Contender]) -> None:
    first = run(candidates[0], 1, 2.0)
    first.note(seconds={"train": 1.0, "evaluate": 1.0})
    assert first.read().refused_by == ["test_loss"]
    again = run(candidates[0], 1)
    assert (again.read().stages, again.read().seconds) == ({}, {})
    assert "last run was killed" in shown()


# What whoever is up looks at: runs that cannot tell their own end, and the page of their name


@flow(name="retrain")
def of_a_command() -> None:
    """Stands for a retrain: its process is none of ours."""


@pytest.mark.slow
def test_a_run_of_a_command_is_crashed_once_nobody_holds_its_folder_and_not_before(
    candidates: list[Contender], prefect_api: str, two_versions: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(of_a_command, state=Running())
    parameters = candidates[0].parameters.model_dump(mode="json")
    folder = RunFolder.open(f"20261126T030000-{NAME}-{str(run.id)[:8]}", parameters)
    folder.note(seconds={"train": 1.0})
    os.utime(folder.path / artifact_paths.RUN, (time.time() - 120,) * 2)

    def state() -> Any:
        up.PeriodicChecks().run_due_checks()
        return post(prefect_api, "flow_runs/filter", {"flow_runs": {"id": {"any_": [str(run.id)]}}})[0]["state_type"]

    assert state() == "RUNNING", "it has begun just now"
    monkeypatch.setattr(up, "QUIET", timedelta(0))
    with locks.hold_lock(artifact_paths.lock(folder.path), "held"):
        assert state() == "RUNNING"
    assert state() == "CRASHED"


def test_of_the_due_runs_of_a_deployment_the_newest_stays_and_the_others_are_named(
    prefect_api: str, capsys: pytest.CaptureFixture[str]
) -> None:
    now = datetime.now(UTC)
    between = (now - timedelta(seconds=30)).isoformat()  # so that no run falls due during the test
    timing = [{"schedule": {"interval": 60, "anchor_date": between}, "active": True}]
    facts = {"flow_id": post(prefect_api, "flows/", {"name": "superseded"})["id"], "tags": ["gradmill"]}
    deployment = post(prefect_api, "deployments/", facts | {"name": "minutely", "schedules": timing})["id"]
    start, end = ((now + timedelta(minutes=minutes)).isoformat() for minutes in (-3, 2))
    with get_client(sync_client=True) as client:
        post(prefect_api, f"deployments/{deployment}/schedule", {"start_time": start, "end_time": end, "min_runs": 5})
        post(prefect_api, f"deployments/{deployment}/create_flow_run", {"name": "asked for by hand"})
        up.leave_out_superseded(client)
        found = post(prefect_api, "flow_runs/filter", {"flow_runs": {"deployment_id": {"any_": [deployment]}}})
        by_hand = client.read_flow_run(next(run["id"] for run in found if not run["auto_scheduled"]))
        begun: State
        for begun in (Pending(), Running()):  # after it was listed
            client.set_flow_run_state(by_hand.id, begun)
            assert not deployments.leave_out(client, by_hand, "late")
            assert client.read_flow_run(by_hand.id).state_type == begun.type
        client.delete_deployment(deployment)
    found.sort(key=lambda run: run["expected_start_time"])
    *skipped, newest = [
        run["state_name"] == "Skipped"
        for run in found
        if run["auto_scheduled"] and datetime.fromisoformat(run["expected_start_time"]) <= now
    ]
    assert (len(skipped) >= 2, all(skipped), newest) == (True, True, False)
    assert [run["state_name"] for run in found].count("Skipped") == len(skipped), "a run by hand replaces none"
    assert capsys.readouterr().err.count("skipped     ") == len(skipped)


# Beside a server that somebody else runs


@pytest.mark.usefixtures("walk", "prefect_api")
def test_beside_a_joined_server_the_reports_follow_the_store(artifacts: Path) -> None:
    checks = up.PeriodicChecks(is_joined=True)
    report = artifacts / "reports" / f"{NAME}.html"

    def look() -> str:
        checks._next = 0.0
        checks.run_due_checks()
        return report.read_text()

    assert "version 1 live since" in look()
    before = report.stat().st_ino
    assert look()
    assert report.stat().st_ino == before, "it is written once"
    output(f"promote {NAME} 2")
    assert "version 2 live since" in look()
    (gone := report.with_name("houses.html")).touch()
    look()
    assert not gone.exists()
    up.PeriodicChecks().run_due_checks()
    assert [*report.parent.iterdir()] == [report]


@pytest.mark.parametrize("is_joined", [True, False])
def test_of_the_runs_on_a_joined_server_only_those_of_this_store_are_told(
    is_joined: bool, prefect_api: str, capsys: pytest.CaptureFixture[str]
) -> None:
    checks, flow_id = up.PeriodicChecks(is_joined), post(prefect_api, "flows/", {"name": "shared"})["id"]
    for name, tags in {
        "foreign": ["gradmill", "store:another"],
        "of nobody": [],
        "own": [identity.require().tag],
    }.items():
        ended = {"flow_id": flow_id, "name": f"{name} {is_joined}", "tags": tags, "state": {"type": "COMPLETED"}}
        post(prefect_api, "flow_runs/", ended)
    checks.run_due_checks()
    told = [line.split()[1] for line in capsys.readouterr().err.splitlines() if f" {is_joined}: completed" in line]
    assert sorted(told) == (["own"] if is_joined else ["foreign", "of", "own"])
