"""One model of the store: whatever is damaged, every command names it and shows the rest; what runs came to."""

import html
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from candidate import Contender, job_document, seal
from command_line import answer, plant, refused, typed
from flows.cli.display import print_fact, print_line
from flows.pages.overview import format_headline, list_sections
from flows.server import metrics
from flows.server import status as server_status
from store_state import damage, keep_settings
from tasks.records import ChampionGates, GateVerdict, PublishedModel
from tasks.store import artifact_paths, atomic, folders, housekeeping, own_data, run_folder, state
from tasks.store.run_folder import RunFolder, read_learning_curve

NAME = "linear-regression"
COMMANDS = {
    "status": "status --json", "models": "models --json", "history": "history --json",
    "report": f"report {NAME} --output page.html", "metrics": "metrics",
    "prune": f"prune {NAME} --keep 1 --json", "maintain": "maintain --json",
}  # fmt: skip
EXIT_4 = {  # where something is missing in what was asked for; metrics say so of every document
    "champion": {"status", "models", "prune"},
    "manifest": {"status", "models", "maintain"},
    "history": {"history", "prune"},
    "job": set[str](),
    "run": set[str](),
    "schedules": set[str](),
    "tuned": {"maintain"},
}
Documents = dict[str, Path]


def make_run(number: int, name: str, asked: dict[str, Any]) -> RunFolder:
    run = RunFolder.open(f"202611{number:02}T030000-{name}-0000000{number}", asked | {"name": name})
    run.note(stages={"unchanged": {"outcome": "unchanged", "version": 2}})
    return run


def job(number: int, **changes: Any) -> Path:
    path = artifact_paths.predictions(f"{number:016x}") / "_job.json"
    document = job_document(NAME, 2, "done") | {"finished_at": f"2026-11-20T06:00:{number:02}+00:00"} | changes
    atomic.write_bytes(path, json.dumps(document).encode())
    return path


@pytest.fixture
def documents(two_versions: None, candidates: list[Contender]) -> Documents:
    """One of each kind, beside others that stay whole."""
    asked = candidates[0].parameters.model_dump(mode="json")
    _, run, _ = (make_run(day, name, asked) for day, name in ((1, NAME), (2, NAME), (2, "other")))
    jobs = [job(number) for number in (1, 2)]
    keep_settings()
    atomic.write_bytes(artifact_paths.schedules(), b'{"schema_version": 1}')
    return {
        "champion": artifact_paths.champion(NAME),
        "manifest": artifact_paths.version(NAME, 1) / "manifest.json",
        "history": artifact_paths.history(NAME),
        "job": jobs[1],
        "run": run.file("run.json"),
        "schedules": artifact_paths.schedules(),
        "tuned": artifact_paths.tuned(NAME),
    }


def figures() -> str:
    return generate_latest(metrics.StoreCollector()).decode()


def page_of(command: str) -> str:
    return html.unescape(Path("page.html").read_text()) if command == "report" else ""


def shows_the_rest(command: str, document: str, output: str) -> bool:
    """Whether what other documents tell is there."""
    if command == "metrics":
        figures = {"champion": "kept_versions", "history": "champion_version"}
        return f"gradmill_{figures.get(document, 'champion_metric')}{{" in output
    if page := page_of(command):
        return "By command" in page and (document == "champion" or "version 2 live since" in page)
    told = json.loads(output)
    if command == "status":
        return [each["name"] for each in told["models"]] == [NAME] * (document != "champion") and bool(told["free"])
    if command == "models":
        return [row["version"] for row in told["models"][NAME]] == ([2] if document == "manifest" else [1, 2])
    if command == "history":
        return bool(told["history"][NAME]) == (document != "history")
    return command == "prune" or {"runs", "predictions", "versions", "datasets"} <= told.keys()


@pytest.mark.slow  # a server
@pytest.mark.usefixtures("prefect_api")
@pytest.mark.parametrize("document", EXIT_4)
def test_a_damaged_document_is_named_by_every_command_and_hides_nothing_else(
    document: str, documents: Documents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    damage(documents[document], 0, 0x40)
    for command, words in COMMANDS.items():
        done = typed(*words.split())
        if command == document or command != "history":  # which reads no other document
            told = done.stdout + done.stderr + page_of(command)
            assert re.search(rf"{documents[document].parent}\b", told), command
        is_missed = command in EXIT_4[document] or command == "metrics"
        assert done.returncode == (4 if is_missed else 0), (command, done.stderr)
        assert "Traceback" not in done.stderr
        assert shows_the_rest(command, document, done.stdout), command
    done = typed("status", "--check")
    assert done.returncode in (1, 4)
    assert "no champion yet" not in done.stdout


def test_the_state_of_one_name_is_that_of_all_and_of_none_known_there_is_nothing(documents: Documents) -> None:
    found = state.read()
    assert found.names[NAME] == state.read_name(NAME)
    assert not found.faults
    assert not state.read_name("nobody").is_known
    models = {each.name: each.version for each in server_status.describe_store(found).models}
    assert models == {NAME: 2}


def test_a_scrape_measures_no_folder_and_a_quiet_name_keeps_its_last_success(
    documents: Documents, candidates: list[Contender], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = candidates[0].parameters.model_dump(mode="json")
    for number in range(metrics.RUNS + 1):
        RunFolder.open(f"20261103T{number:06}-{NAME}-{number:08x}", asked | {"name": NAME}).note_failure(1)
    collector = metrics.StoreCollector()
    collector.measure()
    generate_latest(collector)
    measured: list[Path] = []
    monkeypatch.setattr(folders, "size", measured.append)
    text = generate_latest(collector).decode()
    assert measured == []
    assert f'gradmill_model_bytes{{name="{NAME}"}}' in text
    for name in (NAME, "other"):
        assert f'gradmill_last_success_timestamp_seconds{{name="{name}"}}' in text


def test_what_a_damaged_document_may_protect_stays(documents: Documents) -> None:
    artifact_paths.champion(NAME).unlink()  # which protects both
    assert [*housekeeping.find_protected(NAME)] == [1]
    damage(artifact_paths.version(NAME, 2) / "manifest.json", 0, 0x40)  # the newest tells which was the best
    assert {*housekeeping.find_protected(NAME)} == {1, 2}


def edit(**facts: Any) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def write_again(path: Path) -> None:
    """At the same moment."""
    noted = path.stat()
    damage(path, 0, 0x40)
    os.utime(path, ns=(noted.st_atime_ns, noted.st_mtime_ns))


@pytest.mark.parametrize(
    ("kind", "harm"),
    [
        ("job", edit(finished_at="yesterday")),
        ("run", edit(stages={}, exit_code=1, time_limit=1e300)),
        ("run", edit(stages={}, noted_at="yesterday")),
        ("run", edit(stages={}, noted_at="2026-11-02T03:00:09")),
        ("job", lambda path: plant(path, "dangling link")),
        ("run", lambda path: plant(path, "dangling link")),
        ("tuned", lambda path: plant(path, "dangling link")),
        ("manifest", write_again),
    ],
)
def test_values_that_cannot_be_and_links_to_nothing_are_a_fault_of_their_document(
    kind: str, harm: Callable[[Path], object], documents: Documents
) -> None:
    assert not state.read().faults
    harm(documents[kind])
    (fault,) = state.read().faults
    assert fault.kind == ("version" if kind == "manifest" else kind)
    assert str(documents[kind].parent) in fault.found
    assert typed("metrics").returncode == 4
    done = typed("models", "--runs")
    assert (done.returncode, "raceback" in done.stderr) == (0, False)


def test_where_every_run_is_damaged_the_damage_is_what_is_said(documents: Documents) -> None:
    for path in artifact_paths.runs().glob(f"*-{NAME}-*/run.json"):
        path.write_text("{")
    done = typed("models", NAME, "--runs")
    assert (done.returncode, str(documents["run"]) in done.stderr) == (4, True)


def test_history_reads_no_manifest_run_or_job(documents: Documents) -> None:
    for kind in ("manifest", "run", "job"):
        documents[kind].write_text("{")
    done = typed("history")
    assert (done.returncode, "left out" in done.stderr) == (0, False)


def test_a_kind_of_model_that_is_not_known_yet_ends_no_report(documents: Documents, tmp_path: Path) -> None:
    manifest = json.loads(documents["manifest"].read_text())
    manifest["parameters"]["training"]["model"] = "decision-tree"
    seal(documents["manifest"].parent, manifest)
    assert typed("report", NAME, "--output", tmp_path / "page.html").returncode == 0


def test_files_that_a_version_was_trained_on_are_told(documents: Documents) -> None:
    note = artifact_paths.trained_files(NAME, json.loads(documents["manifest"].read_text())["dataset"]["digest"])
    note.parent.mkdir(parents=True, exist_ok=True)
    own_data.TrainedFiles(files=tuple(f"/data/{number}.csv" for number in range(12))).write(note)
    told = typed("history", NAME).stdout
    assert "version 1 was trained on /data/0.csv, " in told
    assert "and 7 more" in told
    assert answer(f"history {NAME}")["files"][NAME]["1"][11] == "/data/11.csv"
    (files,) = (section for section in list_sections(state.read_name(NAME), None) if section.title == "Files")
    assert "/data/0.csv" in str(files)
    note.write_text("{")
    (fault,) = state.read().faults
    assert (fault.kind, str(note) in fault.found) == ("source", True)


def test_a_store_that_is_half_restored_says_so(documents: Documents) -> None:
    documents["champion"].unlink()
    artifact_paths.restoring().write_text("a snapshot")
    for command in (f"rollback {NAME}", f"promote {NAME} 9", "models new"):
        done = typed(*command.split())
        assert (done.returncode, "was begun and not finished" in done.stderr) == (1, True), command


@pytest.mark.usefixtures("documents")
def test_names_that_are_none_or_of_others_end_no_listing_and_no_backup(
    candidates: list[Contender], tmp_path: Path
) -> None:
    (artifact_paths.models() / "Not Ours" / "1").mkdir(parents=True)
    (artifact_paths.models() / "\udcff").mkdir()
    assert typed("backup", tmp_path / "backup").returncode == 0
    atomic.write_bytes(artifact_paths.runs() / f"20261104T030000-tune-{NAME}-00000009" / "run.json", b"{")
    assert f'gradmill_champion_version{{name="{NAME}"}}' in figures()
    assert list(state.read().names) == [NAME, "other"]
    asked = candidates[0].parameters.model_dump(mode="json")
    searched = RunFolder.open(f"20261101T020000-tune-{NAME}-00000010", {"name": NAME})
    searched.note_failure(1)
    trained = make_run(1, f"tune-{NAME}", asked)
    artifact_paths.version("new-other", 1).mkdir(parents=True)
    found = state.read().names
    assert searched.path.name not in {run.run for each in found.values() for run in each.runs}
    assert [run.run for run in found[f"tune-{NAME}"].runs] == [trained.path.name]
    assert [fault.kind for fault in found["new-other"].faults] == ["version"]
    assert not found["other"].faults
    assert [run.name for run in found[NAME].runs] == [NAME] * 2


def test_a_job_of_the_test_split_hides_no_drift_of_somebodys_input(documents: Documents) -> None:
    drifted = {"index": {"label": 0.5}, "maximum": 0.2, "verdict": "drift"}
    split = json.loads(documents["job"].read_text())["input"] | {"path": "datasets/synthetic-linear/test.0.safetensors"}
    job(2, finished_at="2026-11-21T06:00:00Z", drift=drifted)
    stable = drifted | {"index": {"label": 0.0}, "verdict": "stable"}
    for number in range(3, 15):  # more than are listed
        job(number, finished_at=f"2026-11-22T06:00:{number:02}Z", input=split, drift=stable)
    assert f'gradmill_last_prediction_drift{{name="{NAME}"}} 1.0' in figures()
    assert "DRIFT in the prediction of 21 Nov" in format_headline(state.read_name(NAME))


def test_a_mirror_that_cannot_be_read_is_behind(documents: Documents) -> None:
    assert "gradmill_mirror_behind" not in figures()
    artifact_paths.mirror().write_text("{")
    told = re.findall(r"(?m)^gradmill_mirror_behind.*$", figures())
    assert told == [f'gradmill_mirror_behind{{name="{NAME}"}} 1.0'], "of the other there is no champion"


def test_a_learning_curve_of_something_else_is_none(documents: Documents) -> None:
    for curve in ([3], "text", [{"train_loss": "low", "epoch": 1}]):
        edit(stages={"train": {"learning_curve": curve}})(documents["run"])
        assert all(set(point) <= {"epoch"} for point in read_learning_curve(documents["run"].parent.name))


def test_orders_to_a_terminal_are_spelt_out(capsys: pytest.CaptureFixture[str]) -> None:
    print_line("a\x1b[2Jb\nc")
    print_fact("fact", "\x1b[2J")
    assert "\x1b" not in (shown := capsys.readouterr().out)
    assert shown.startswith("a\\x1b[2Jb\nc\n")


# ``gradmill models --runs``: whether published, refused, judged only or never ended


REFUSED = GateVerdict(name="champion_loss", value=2.0, maximum=1.0, passed=False, detail="")


def noted(candidate: Contender, day: int, name: str = NAME, loss: float | None = 0.5, **training: Any) -> RunFolder:
    """A run up to its last gates."""
    asked = candidate.parameters.model_dump(mode="json")
    asked |= {"name": name, "training": asked["training"] | training}
    run = RunFolder.open(f"202611{day:02}T030000-{name}-0000000{day % 10}", asked)
    run.note(stages={"download": {"name": "synthetic-linear"}})
    run.note(seconds={"train": 1.5})
    if loss is not None:
        run.note(stages={"train": candidate.trained.model_dump(mode="json")})
        metrics = candidate.evaluated.metrics | {"test_loss": loss}
        run.note(stages={"evaluate": {"metrics": metrics, "gates": [], "pictures": []}})
    return run


def decided(run: RunFolder, candidate: Contender, outcome: Any, version: int | None) -> None:
    record = PublishedModel(outcome=outcome, name=NAME, version=version, model=candidate.exported.onnx)
    run.note(stages={"publish": record.model_dump(mode="json")})


@pytest.fixture
def candidate(candidates: list[Contender]) -> Contender:
    return candidates[0]


def listed(options: str = "") -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = answer(f"models --runs {options}")["runs"]
    return runs


def test_every_outcome_of_a_run_is_told(candidate: Contender) -> None:
    decided(noted(candidate, 1), candidate, "published", 1)
    noted(candidate, 2, lr=0.5).note(stages={"publish": ChampionGates(gates=(REFUSED,)).model_dump(mode="json")})
    decided(noted(candidate, 3), candidate, "judged", None)
    noted(candidate, 4, loss=None)
    going = noted(candidate, 5, name="other")
    noted(candidate, 6).note(stages={"unchanged": {"outcome": "unchanged", "version": 1, "detail": "of these rows"}})
    with going.in_use():
        found = [(each["name"], each["outcome"], each["detail"], each["version"]) for each in listed()]
        page = typed("models", NAME, "--runs").stdout
    assert found == [
        (NAME, "unchanged", "of these rows", 1), ("other", "running", "", None), (NAME, "unfinished", "train", None),
        (NAME, "judged", "", None), (NAME, "refused", "champion_loss", None), (NAME, "published", "", 1),
    ]  # fmt: skip
    words = "published version 1", "unchanged: version 1", "refused by champion_loss", "lr 0.5, seed 0"
    assert not [each for each in (*words, "interrupted in train") if each not in page]
    assert "other" not in page


def test_the_best_come_first_and_those_without_the_figure_last(candidate: Contender) -> None:
    for day, loss in enumerate((0.3, None, 0.1, 0.2), 1):
        noted(candidate, day, loss=loss)
    assert [each["test_loss"] for each in listed("--sort loss")] == [0.1, 0.2, 0.3, None]
    assert [each["test_loss"] for each in listed("--sort accuracy")] == [0.2, 0.1, None, 0.3], "as they came"
    noted(candidate, 5, name="another", loss=9.0)
    names = [each["name"] for each in listed("--sort loss")]
    assert names == ["another", NAME, NAME, NAME, NAME], "losses of other data are no better"
    for wrong in ("models --sort loss", "models --runs --sort beauty"):
        refused(2, wrong)


def test_of_each_name_the_newest_retrains_are_read_as_far_as_one_that_was_judged(
    candidate: Contender, monkeypatch: pytest.MonkeyPatch
) -> None:
    def days(newest: int, name: str = NAME) -> str:
        return " ".join(run.run[6:8] for run in state.read(newest=newest).names[name].runs)

    decided(noted(candidate, 1, name="quiet"), candidate, "published", 1)
    decided(noted(candidate, 2), candidate, "published", 1)
    for day in (3, 4, 5):
        noted(candidate, day)
    RunFolder.open("20261106T030000-predict-linear-regression-00000004", {"name": NAME, "batch_size": 4})
    assert (days(1, "quiet"), days(1), days(9)) == ("01", "05 04 03 02", "05 04 03 02")
    decided(noted(candidate, 7), candidate, "judged", None)
    assert days(1) == "07"
    monkeypatch.setattr(run_folder, "LARGEST", 100)
    found = state.read()
    assert not [run for each in found.names.values() for run in each.runs]
    assert "has over 100 bytes" in found.faults[0].found


def test_a_name_without_a_run_is_exit_2() -> None:
    refused(2, "models nobody --runs", "no run of nobody")
    assert "--no-publish" in typed("models", "--runs").stdout
