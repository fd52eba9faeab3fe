"""A name's overview: every figure on it is the store's, whatever has happened to the name."""

import json
import re
import signal
import time
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flows.cli.app
from candidate import Candidate, job_document
from command_line import gradmill
from flows.pages import overview as pages
from flows.predict import predict
from flows.retrain import retrain
from flows.server import status
from flows.server.overviews import publish_at_end, write
from prefect_api import post
from tasks.data.report import DataReport, Finding
from tasks.errors import GateFailed, TrainingDiverged, UsageError
from tasks.judging import plots
from tasks.parameters import PredictParameters, RetrainParameters
from tasks.records import GateVerdict, PublishedModel
from tasks.serving.drift import Drift
from tasks.store import artifact_paths, pointer, reading, schedules, state
from tasks.store.history import Change
from tasks.store.page import Code, PageTable
from tasks.store.run_folder import RunFolder, RunNotes
from tasks.store.state import NameState
from victims import fork, run_until

NAME = "linear-regression"
REASON = "it was <b>off</b> | by *miles*"


def gate(name: str, value: float, maximum: float = 1.0) -> GateVerdict:
    return GateVerdict(name=name, value=value, maximum=maximum, passed=value < maximum, detail=f"at most {maximum}")


def run(candidate: Candidate, day: int, loss: float | None, **stages: Any) -> RunFolder:
    """A run of a day, as far as it has come."""
    asked = candidate.parameters.model_dump(mode="json") | {"name": NAME}
    made = RunFolder.open(f"202611{day:02}T030000-{NAME}-0000000{day}", asked)
    if loss is not None:
        made.note(stages={"train": candidate.trained.model_dump(mode="json")})
        gates = [gate("test_loss", loss).model_dump(mode="json")]
        metrics = candidate.evaluated.metrics | {"test_loss": loss}
        made.note(stages={"evaluate": {"metrics": metrics, "gates": gates, "pictures": []}})
    for stage, record in stages.items():
        made.note(stages={stage: record})
    return made


def decided(candidate: Candidate, outcome: Any, version: int | None = None) -> dict[str, Any]:
    record = PublishedModel(outcome=outcome, name=NAME, version=version, model=candidate.exported.onnx)
    return record.model_dump(mode="json")


def changed(day: int, what: str, champion: int, **more: Any) -> Change:
    facts = {"what": what, "champion": champion, "versions": (champion,), "frozen": False, "by": "mia"} | more
    return Change.model_validate({"at": f"2026-11-{day:02}T12:00:00+00:00", **facts})


@pytest.fixture
def walk(candidates: list[Candidate], two_versions: None) -> None:
    """Eight days on which everything happens: 2 is published and rolled back from."""
    one = candidates[0]
    run(one, 1, 0.5, publish=decided(one, "published", 1))
    run(one, 2, 2.0)
    run(one, 3, 0.4, publish=decided(one, "published", 2))
    diverged = run(one, 4, None)
    diverged.note(seconds={"train": 1.0})
    diverged.failed(3)
    run(one, 5, None)  # killed
    unfit = run(one, 6, None)
    unfit.note(seconds={"validate": 0.1})
    finding = Finding(severity="error", rule="other-scale", column="x", found="x is 1000 times as large", action="mend")
    DataReport(name=NAME, summary="", findings=(finding,)).write(unfit.file("data-report.json"))
    unfit.failed(4)
    run(one, 7, None, unchanged={"outcome": "unchanged", "version": 2, "detail": "of these rows"})
    run(one, 8, 0.45, publish=decided(one, "judged"))
    pointer.rollback(NAME, REASON)
    for day in range(1, 9):  # the seventh began at 3 as all did, and ended after the rollback
        ended = f"2026-11-{day:02}T{13 if day == 7 else 4:02}:30:00+00:00"
        notes = artifact_paths.runs() / f"202611{day:02}T030000-{NAME}-0000000{day}" / "run.json"
        RunNotes.read(notes).model_copy(update={"noted_at": ended}).write(notes)
    changes = (
        changed(1, "published", 1, by=f"20261101T030000-{NAME}-00000001"),
        changed(3, "published", 2, by=f"20261103T030000-{NAME}-00000003"),
        changed(7, "rolled back", 1, frozen=True, reason=REASON)
    )  # fmt: skip
    artifact_paths.history(NAME).write_text("".join(f"{each.model_dump_json()}\n" for each in changes))
    for day, verdict in ((7, "stable"), (8, "drift")):
        drift = Drift(index={"prediction": 0.05 * day}, maximum=0.2, verdict=verdict).model_dump(mode="json")
        of_day = {"finished_at": f"2026-11-{day:02}T06:00:00.000+00:00", "drift": drift, "rejects": day}
        rows = {"rows": 1200, "shards": [[0, 0, 1200]], "input": {"path": "/in/a.csv", "digest": "0" * 64}}
        rows["input"] |= {"files": 1, "bytes": 9}  # type: ignore[operator]
        folder = artifact_paths.predictions(f"{day:016x}")
        folder.mkdir(parents=True)
        document = job_document(NAME, 2, "done") | of_day | rows
        (folder / "_job.json").write_text(json.dumps(document))


def lines_and_rows(facts: NameState) -> dict[str, tuple[tuple[str, ...], list[tuple[str, ...]]]]:
    """What the sections of the page say that are not empty, code between backticks."""
    told = {}
    for title, blocks in pages.list_sections(facts, None):
        lines = tuple(spelt(block) for block in blocks if block and not isinstance(block, PageTable))
        rows = [tuple(map(spelt, row)) for block in blocks if isinstance(block, PageTable) for row in block.rows]
        if lines or rows:
            told[title] = lines, rows
    return told


def spelt(text: Any) -> str:
    parts = (text,) if isinstance(text, str) else text
    return "".join(f"`{part}`" if isinstance(part, Code) else part for part in parts)


def bytes_below(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


class Text(HTMLParser):
    """What a browser shows, and which elements it finds."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.elements: set[str] = set()
        self.sources: list[str] = []
        self.feed(page.partition("</head>")[2])
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "srcset", "href")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.mark.usefixtures("walk")
def test_the_trend_has_every_run_at_its_figure_beside_the_version_live_then() -> None:
    found = state.find_trend(state.read_name(NAME))
    assert found is not None
    assert (found.figure, found.is_loss) == ("test loss", True)
    assert [(point.outcome, point.value, point.bound) for point in found.points] == [
        ("published", 0.5, 1.0), ("refused", 2.0, 1.0), ("published", 0.4, 1.0), ("failed", None, None),
        ("unfinished", None, None), ("failed", None, None), ("unchanged", None, None), ("judged", 0.45, 1.0),
    ]  # fmt: skip
    assert [point.live for point in found.points] == [1, 1, 2, 2, 2, 2, 1, 1], "rolled back during the seventh"
    losses = {number: reading.manifest(NAME, number).metrics.test_loss for number in (1, 2)}
    assert [point.live_value for point in found.points] == [losses[point.live or 0] for point in found.points]


def test_the_bound_on_an_accuracy_is_the_champions_less_the_drop_that_is_allowed_where_that_is_more() -> None:
    least = GateVerdict(name="test_accuracy", value=0.8405, minimum=0.7, passed=True, detail="")
    for drop, bound in ((0.8441 - 0.8405, 0.8441 - 0.005), (0.6 - 0.8405, 0.7)):
        against = GateVerdict(name="champion_accuracy", value=drop, maximum=0.005, passed=True, detail="")
        assert state._find_bound(
            {"test_accuracy": least, "champion_accuracy": against}, "test_accuracy"
        ) == pytest.approx(bound)


@pytest.mark.usefixtures("walk")
def test_the_page_tells_what_is_live_what_runs_came_to_and_how_to_go_on() -> None:
    facts = state.read_name(NAME)
    told = pages.headline(facts)
    assert told.startswith("version 1 live since ")
    assert f"loss {reading.manifest(NAME, 1).metrics.test_loss:.4g}, frozen; " in told
    assert told.endswith("last run passed every gate and published nothing; DRIFT in the last prediction")
    sections = lines_and_rows(facts)
    assert sections["Held and frozen"][0] == (
        f"Frozen: retrains are judged and none is published, until `gradmill unfreeze {NAME}`",
        f"Version 2 is held: no retrain brings it back, `gradmill promote {NAME} 2` does",
    )
    first, second = sections["Predictions"][1]
    assert first == ("2026-11-08 06:00", "2", "a.csv", "1,192", "8", "drift", "prediction 0.400", "")
    assert second[4:7] == ("7", "stable", "prediction 0.350")
    assert [(row[0], row[-1]) for row in sections["Versions"][1]] == [("2", "held"), ("1", "champion")]
    assert sections["Changes"][1][0] == (
        "2026-11-07 12:00", "rolled back", "1, frozen", REASON, "mia", "1"
    )  # fmt: skip
    assert facts.disk["versions"] == bytes_below(artifact_paths.model(NAME))
    assert ("leave out the next run", f"`gradmill skip {NAME}`") in sections["By command"][1]
    assert status.describe_store(state.read()).models[0].held == [2]


def test_a_name_that_nothing_retrains_is_told_how_to_schedule_it_and_not_what_its_schedule_would_take(
    artifacts: Path,
) -> None:
    def commands() -> str:
        return " ".join(command for _, command in lines_and_rows(state.read_name("houses"))["By command"][1])

    assert "gradmill schedule houses --cron" in commands()
    assert "gradmill skip" not in commands()
    schedules.write(
        schedules.Schedules().having(schedules.Schedule(flow="retrain", name="houses", cron="0 3 * * *", parameters={}))
    )
    assert "gradmill skip houses" in commands()


@pytest.mark.usefixtures("walk")
def test_a_retrains_prediction_of_its_own_test_split_hides_no_drift() -> None:
    note = artifact_paths.predictions(f"{7:016x}") / "_job.json"
    document = json.loads(note.read_text()) | {"finished_at": "2026-11-09T03:00:00.000+00:00"}
    for path, drift in {
        "datasets/linear-regression/test.npy": "; DRIFT in the prediction of 8 Nov",
        "/in/b.csv": "",
    }.items():
        note.write_text(json.dumps(document | {"input": document["input"] | {"path": path}}))
        told = pages.headline(state.read_name(NAME))
        assert told.endswith(drift or "published nothing")


@pytest.mark.parametrize(
    ("last", "headline", "lines"),
    [
        (2, "last run refused by test_loss", ("refused by test_loss",)),
        (4, "last run diverged in train", ("diverged in train",)),
        (5, "last run was killed, the one judged before, on 4 Nov, diverged in train", ("killed", "diverged in train")),
        (6, "last run was stopped by its data in validate, the one", ("in validate", "x is 1000 times as", "diverged")),
    ],
)
@pytest.mark.usefixtures("walk")
def test_why_a_run_has_failed_stays_on_the_page_whatever_came_after_it(
    last: int, headline: str, lines: tuple[str, ...]
) -> None:
    for day in range(last + 1, 9):
        (artifact_paths.runs() / f"202611{day:02}T030000-{NAME}-0000000{day}" / "run.json").unlink()
    facts = state.read_name(NAME)
    assert headline in pages.headline(facts)
    found, _ = lines_and_rows(facts)["Last run"]
    assert all(words in " ".join(found) for words in lines)
    assert [line for line in found if "at most" in line] == (["test_loss 2: at most 1.0"] if last == 2 else [])


@pytest.mark.slow
@pytest.mark.usefixtures("walk")
def test_the_report_is_one_file_that_needs_no_other_and_runs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "there" / "page.html"
    assert flows.cli.app.run(["report", NAME, "--output", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["path"] == str(file)
    page = Text(file.read_text())
    assert told["headline"] in page.text
    assert REASON in page.text, "as it was written, and no element"
    assert not {"b", "script", "link", "iframe"} & page.elements
    (picture,) = (source for source in page.sources if not source.startswith("#"))
    assert picture.startswith("data:image/png;base64,iVBOR")


@pytest.mark.slow
def test_of_nothing_known_there_is_no_report_and_of_a_refused_first_run_there_is(
    candidates: list[Candidate], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flows.cli.app.run(["report", NAME]) == 2
    assert "no model named linear-regression" in capsys.readouterr().err
    run(candidates[0], 2, 2.0)
    assert flows.cli.app.run(["report", NAME, "--output", str(tmp_path / "page.html")]) == 0
    assert "no version is live; last run refused by test_loss" in Text((tmp_path / "page.html").read_text()).text


@pytest.mark.usefixtures("walk")
def test_runs_of_every_kind_count_and_versions_that_are_not_shown_are_not_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for kind, name in (("predict", NAME), ("tune", NAME), ("predict", "other"), ("other", NAME)):
        RunFolder.open(f"20261109T030000-{kind}-{name}-00000009", {"name": name if kind != "other" else kind})
    monkeypatch.setattr(pages, "SHOWN", 1)
    facts = state.read_name(NAME)
    others = [*artifact_paths.runs().glob("*-predict-other-*"), *artifact_paths.runs().glob("*-other-linear-*")]
    assert facts.disk["runs"] == bytes_below(artifact_paths.runs()) - sum(map(bytes_below, others))
    assert state.read().names[NAME] == state.read_name(NAME), "read for all names at once"
    assert [row[0] for row in pages.tabulate_versions(facts).rows] == ["2", "1"], "champion and newest"
    pointer.promote(NAME, 2)
    facts = state.read_name(NAME)
    assert [row[0] for row in pages.tabulate_versions(facts).rows] == ["2"]


@pytest.mark.usefixtures("walk")
def test_of_much_that_cannot_be_read_the_first_and_their_number_are_told() -> None:
    for number in range(13):
        folder = artifact_paths.predictions(f"{number:016x}")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "_job.json").write_text("{")
    lines, _ = lines_and_rows(state.read_name(NAME))["What could not be read"]
    assert len(lines) == 11
    assert lines[-1] == "and 3 more"


@pytest.mark.slow
@pytest.mark.usefixtures("walk", "prefect_api")
def test_a_picture_is_drawn_before_the_seconds_of_the_talk_with_the_server_run(monkeypatch: pytest.MonkeyPatch) -> None:
    draws, left = plots.draw_trend, []

    def watched(*what: Any) -> Any:
        left.append(signal.getitimer(signal.ITIMER_REAL)[0])
        return draws(*what)

    monkeypatch.setattr(plots, "draw_trend", watched)
    assert write(NAME) == [], "nothing has failed"
    assert left == [0.0], "no alarm is set"


def test_a_misspelt_name_gets_no_page(prefect_api: str, artifacts: Path) -> None:
    with suppress(UsageError), publish_at_end("linear-regresion"):
        raise UsageError("no such model", "one that is kept", "correct it")
    wanted = {"artifacts": {"key": {"any_": ["linear-regresion-overview"]}}}
    assert post(prefect_api, "artifacts/filter", wanted) == []


def on_server(api: str) -> dict[str, Any]:
    """The newest page of the walk as the server has it."""
    wanted = {"artifacts": {"key": {"any_": ["walk-overview"]}}, "sort": "CREATED_DESC"}
    return dict(post(api, "artifacts/filter", wanted)[0])


def table(page: str, title: str) -> list[list[str]]:
    """The cells of a table in Markdown, as they are read."""
    part = page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().replace("\\", "") for cell in line.strip("|").split(" | ")] for line in lines]


@pytest.mark.slow  # eight real runs
@pytest.mark.usefixtures("on_server")
def test_after_each_of_many_real_runs_the_page_on_the_server_is_right(
    prefect_api: str, artifacts: Path, tmp_path: Path
) -> None:
    def asked(training: dict[str, Any], **more: Any) -> RetrainParameters:
        document = {"name": "walk", "training": {"model": NAME} | training, "predict": False} | more
        return RetrainParameters.model_validate(document)

    first = retrain(asked({}))
    told = on_server(prefect_api)
    assert told["description"].endswith(f"loss {first.metrics['test_loss']:.4g}; last run published version 1")
    with pytest.raises(GateFailed):
        retrain(asked({"num_epochs": 1}))
    told = on_server(prefect_api)
    assert told["description"].endswith("; last run refused by test_loss")
    assert "\ntest_loss 0" in told["data"].replace("\\", "").partition("## Last run")[2], "and why"
    time.sleep(1)  # runs of one second have no order
    with pytest.raises(TrainingDiverged):
        retrain(asked({"lr": 1e6}))
    assert on_server(prefect_api)["description"].endswith("; last run diverged in train")
    time.sleep(1)
    victim = fork(
        run_until,
        "tasks.fitting.progress:find_kept_epoch",
        ["retrain", NAME, "--name", "walk", "--seed", "9", "--artifacts", str(artifacts)],
    )
    victim.join()
    assert victim.exitcode == -signal.SIGKILL
    time.sleep(1)
    second = retrain(asked({"seed": 7}))
    rows = np.random.default_rng(0).standard_normal((2000, 2)).astype(np.float32) + 3
    rows[:5] = np.nan
    np.save(tmp_path / "rows.npy", rows)
    predict(PredictParameters.model_validate({"name": "walk", "input": str(tmp_path / "rows.npy"), "max_rejects": 5}))
    assert re.search(r"; DRIFT in the last prediction: \w", on_server(prefect_api)["description"]), "and of what"
    assert gradmill("rollback", "walk", "--reason", "it drifts", "--artifacts", str(artifacts)).returncode == 0
    told = on_server(prefect_api)
    assert f"loss {first.metrics['test_loss']:.4g}, frozen; last run published version 2; DRIFT" in told["description"]
    data = told["data"]
    assert [row[0] for row in table(data, "Versions")] == ["2", "1"]
    assert table(data, "Versions")[0][2:5] == [f"loss {second.metrics['test_loss']:.4g}", "concise", "7"]
    ((finished, version, file, count, rejected, verdict, *_),) = table(data, "Predictions")
    assert (version, file, count, rejected, verdict) == ("2", "rows.npy", "1,995", "5", "drift")
    assert finished.startswith(second.run.rpartition("/")[2][:4])
    assert [(row[1], row[-1], row[3]) for row in table(data, "Changes")] == [
        ("rolled back", "2", "it drifts"), ("published", "2", ""), ("published", "1", "")
    ]  # fmt: skip
    found = state.find_trend(state.read_name("walk"))
    assert found is not None
    outcomes = [point.outcome for point in found.points]
    assert outcomes == ["published", "refused", "failed", "unfinished", "published"]
    killed = state.read_name("walk").runs[1]
    assert (killed.exit_code, killed.in_words) == (None, "was killed")


def test_a_run_that_has_reached_its_time_limit_says_so_and_a_retry_of_it_no_more() -> None:
    run = f"20261104T030000-{NAME}-0badcafe"
    folder = RunFolder.open(run, RetrainParameters(name=NAME).model_dump(mode="json"))
    folder.note(seconds={"train": 43_200.0})
    folder.failed(1, 43_200.0)
    facts = state.read_name(NAME)
    assert pages.headline(facts).endswith("last run reached its time limit of 12:00:00 in train")
    lines, _ = lines_and_rows(facts)["Last run"]
    assert "GRADMILL_TIME_LIMIT" in lines[1], "what to do"
    RunFolder.open(run, {})
    assert "time limit" not in pages.headline(state.read_name(NAME))
