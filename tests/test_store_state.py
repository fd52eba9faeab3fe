"""One model of the store: whatever document is damaged, every command names it and shows the rest."""

import html
import json
import os
import re
from pathlib import Path

import pytest
from prometheus_client import generate_latest

import flows.cli.app
from candidate import Candidate, job_document, seal
from flows.cli.display import print_fact, print_line
from flows.pages.overview import headline, list_sections
from flows.server import metrics
from flows.server import status as server_status
from store_state import damage
from tasks.store import artifact_paths, folders, housekeeping, own_data, state, tuned
from tasks.store.run_folder import RunFolder, read_learning_curve
from tasks.store.tuned import Tuned

NAME = "linear-regression"
COMMANDS = {
    "status": ("status", "--json"),
    "models": ("models", "--json"),
    "history": ("history", "--json"),
    "report": ("report", NAME, "--output", "page.html"),
    "metrics": ("metrics",),
    "prune": ("prune", NAME, "--keep", "1", "--json"),
    "maintain": ("maintain", "--json"),
}
EXIT_4 = {  # where something is missing in what was asked for; metrics say so of every document
    "champion": {"status", "models", "prune"},
    "manifest": {"status", "models", "maintain"},
    "history": {"history", "prune"},
    "job": set[str](),
    "run": set[str](),
    "schedules": set[str](),
    "tuned": {"maintain"},
}


@pytest.fixture
def documents(two_versions: None, candidates: list[Candidate]) -> dict[str, Path]:
    """One of each kind, beside others that stay whole."""
    for day, name in ((1, NAME), (2, NAME), (2, "other")):
        asked = candidates[0].parameters.model_dump(mode="json") | {"name": name}
        run = RunFolder.open(f"202611{day:02}T030000-{name}-0000000{day}", asked)
        run.note(stages={"unchanged": {"outcome": "unchanged", "version": 2}})
    for number in (1, 2):
        job = artifact_paths.predictions(f"{number:016x}") / "_job.json"
        job.parent.mkdir(parents=True)
        job.write_text(json.dumps(job_document(NAME, 2, "done") | {"finished_at": "2026-11-20T06:00:00+00:00"}))
    tuned.keep(
        NAME,
        Tuned(
            model=NAME, dataset_digest="0" * 64, settings={"lr": 0.1}, validation_losses=(0.4,), default_settings={},
            default_losses=(0.5,), num_trials=1, num_validation=10, seed=0, run="20261101T030000-tune-x-00000000",
        ),
    )  # fmt: skip
    artifact_paths.schedules().parent.mkdir()
    artifact_paths.schedules().write_text('{"schema_version": 1}')
    return {
        "champion": artifact_paths.champion(NAME),
        "manifest": artifact_paths.version(NAME, 1) / "manifest.json",
        "history": artifact_paths.history(NAME),
        "job": job,
        "run": artifact_paths.runs() / f"20261102T030000-{NAME}-00000002" / "run.json",
        "schedules": artifact_paths.schedules(),
        "tuned": artifact_paths.tuned(NAME),
    }


def page_of(command: str) -> str:
    return html.unescape(Path("page.html").read_text()) if command == "report" else ""


def shows_the_rest(command: str, document: str, output: str) -> bool:
    """Whether what other documents tell is there."""
    if command == "metrics":
        figures = {"champion": "kept_versions", "history": "champion_version"}
        return f"gradmill_{figures.get(document, 'champion_metric')}{{" in output
    if command == "report":
        page = html.unescape(Path("page.html").read_text())
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
    document: str,
    documents: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    damage(documents[document], 0, 0x40)
    capsys.readouterr()
    for command, arguments in COMMANDS.items():
        code = flows.cli.app.run([*arguments])
        output, said = capsys.readouterr()
        if command == document or command != "history":  # which reads no other document
            assert re.search(rf"{documents[document].parent}\b", output + said + page_of(command)), command
        assert code == (4 if command in EXIT_4[document] or command == "metrics" else 0), (command, said)
        assert "Traceback" not in said
        assert shows_the_rest(command, document, output), command
    assert flows.cli.app.run(["status", "--check"]) in (1, 4)


def test_the_state_of_one_name_is_that_of_all_and_of_none_known_there_is_nothing(documents: dict[str, Path]) -> None:
    found = state.read()
    assert found.names[NAME] == state.read_name(NAME)
    assert not found.faults
    assert not state.read_name("nobody").is_known
    models = {each.name: each.version for each in server_status.describe_store(found).models}
    assert models == {NAME: 2}


def test_a_scrape_measures_no_folder_and_a_quiet_name_keeps_its_last_success(
    documents: dict[str, Path], candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = candidates[0].parameters.model_dump(mode="json")
    for number in range(metrics.RUNS + 1):
        folder = RunFolder.open(f"20261103T{number:06}-{NAME}-{number:08x}", asked | {"name": NAME})
        folder.failed(1)
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


def test_what_a_damaged_document_may_protect_stays(documents: dict[str, Path]) -> None:
    artifact_paths.champion(NAME).unlink()  # which protects both
    assert [*housekeeping.find_protected(NAME)] == [1]
    damage(artifact_paths.version(NAME, 2) / "manifest.json", 0, 0x40)  # the newest tells which was the best
    assert {*housekeeping.find_protected(NAME)} == {1, 2}


@pytest.mark.parametrize(
    ("kind", "facts"),
    [
        ("job", {"finished_at": "yesterday"}),
        ("run", {"exit_code": 1, "time_limit": 1e300}),
        ("run", {"noted_at": "yesterday"}),
        ("run", {"noted_at": "2026-11-02T03:00:09"}),
    ],
)
def test_values_that_cannot_be_are_a_fault_of_their_document(
    kind: str, facts: dict[str, object], documents: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(documents[kind].read_text()) | facts
    document |= {"stages": {}} if kind == "run" else {}
    documents[kind].write_text(json.dumps(document))
    assert [fault.kind for fault in state.read().faults] == [kind]
    assert flows.cli.app.run(["metrics"]) == 4
    assert flows.cli.app.run(["models", "--runs"]) == 0
    assert "traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["job", "run", "tuned"])
def test_what_is_a_link_to_nothing_is_a_fault(kind: str, documents: dict[str, Path]) -> None:
    documents[kind].unlink()
    documents[kind].symlink_to("nothing")
    (fault,) = state.read().faults
    assert fault.kind == kind
    assert str(documents[kind]) in fault.found


def test_where_every_run_is_damaged_the_damage_is_what_is_said(
    documents: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    for path in artifact_paths.runs().glob(f"*-{NAME}-*/run.json"):
        path.write_text("{")
    assert flows.cli.app.run(["models", NAME, "--runs"]) == 4
    assert str(documents["run"]) in capsys.readouterr().err


@pytest.mark.slow  # it looks for a server
def test_a_damaged_pointer_is_no_missing_champion(
    documents: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    documents["champion"].write_text("{")
    assert flows.cli.app.run(["status"]) != 0
    said = capsys.readouterr()
    assert str(documents["champion"]) in said.out + said.err
    assert "no champion yet" not in said.out


def test_history_reads_no_manifest_run_or_job(documents: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("manifest", "run", "job"):
        documents[kind].write_text("{")
    assert flows.cli.app.run(["history"]) == 0
    assert "left out" not in capsys.readouterr().err


def test_a_version_that_was_written_again_at_the_same_moment_is_read_again(documents: dict[str, Path]) -> None:
    path = documents["manifest"]
    assert not state.read().faults
    noted = path.stat()
    damage(path, 0, 0x40)
    os.utime(path, ns=(noted.st_atime_ns, noted.st_mtime_ns))
    assert [fault.kind for fault in state.read().faults] == ["version"]


def test_a_kind_of_model_that_is_not_known_yet_ends_no_report(
    documents: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = json.loads(documents["manifest"].read_text())
    manifest["parameters"]["training"]["model"] = "decision-tree"
    seal(documents["manifest"].parent, manifest)
    assert flows.cli.app.run(["report", NAME, "--output", str(tmp_path / "page.html")]) == 0
    assert "traceback" not in capsys.readouterr().err


def test_files_that_a_version_was_trained_on_are_told(
    documents: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    note = artifact_paths.trained_files(NAME, json.loads(documents["manifest"].read_text())["dataset"]["digest"])
    note.parent.mkdir(parents=True, exist_ok=True)
    own_data.TrainedFiles(files=tuple(f"/data/{number}.csv" for number in range(12))).write(note)
    assert flows.cli.app.run(["history", NAME]) == 0
    assert "version 1 was trained on /data/0.csv, " in (told := capsys.readouterr().out)
    assert "and 7 more" in told
    assert flows.cli.app.run(["history", NAME, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"][NAME]["1"][11] == "/data/11.csv"
    (files,) = (section for section in list_sections(state.read_name(NAME), None) if section.title == "Files")
    assert "/data/0.csv" in str(files)
    note.write_text("{")
    assert [fault.kind for fault in state.read().faults] == ["source"]
    assert str(note) in state.read().faults[0].found


def test_a_store_that_is_half_restored_says_so(documents: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    documents["champion"].unlink()
    artifact_paths.restoring().write_text("a snapshot")
    for command in (["rollback", NAME], ["promote", NAME, "9"], ["models", "new"]):
        assert flows.cli.app.run(command) == 1
        assert "was begun and not finished" in capsys.readouterr().err, command


@pytest.mark.usefixtures("documents")
def test_a_folder_of_somebody_else_among_the_models_stops_no_backup(tmp_path: Path) -> None:
    (artifact_paths.models() / "Not Ours" / "1").mkdir(parents=True)
    assert flows.cli.app.run(["backup", str(tmp_path / "backup")]) == 0
    assert list(state.read().names) == [NAME, "other"]


@pytest.mark.usefixtures("documents")
def test_names_that_are_none_end_no_listing() -> None:
    (artifact_paths.models() / "\udcff").mkdir()
    damaged = artifact_paths.runs() / f"20261104T030000-tune-{NAME}-00000009"
    damaged.mkdir()
    (damaged / "run.json").write_text("{")
    assert f'gradmill_champion_version{{name="{NAME}"}}' in generate_latest(metrics.StoreCollector()).decode()
    assert f"tune-{NAME}" not in state.read().names


def test_a_job_of_the_test_split_hides_no_drift_of_somebodys_input(documents: dict[str, Path]) -> None:
    drifted = {"index": {"label": 0.5}, "maximum": 0.2, "verdict": "drift"}
    job = json.loads(documents["job"].read_text()) | {"finished_at": "2026-11-21T06:00:00Z", "drift": drifted}
    documents["job"].write_text(json.dumps(job))
    split = job["input"] | {"path": "datasets/synthetic-linear/test.0.safetensors"}
    for number in range(3, 15):  # more than are listed
        later = job | {"finished_at": f"2026-11-22T06:00:{number:02}Z", "input": split}
        later["drift"] = drifted | {"index": {"label": 0.0}, "verdict": "stable"}
        place = artifact_paths.predictions(f"{number:016x}") / "_job.json"
        place.parent.mkdir()
        place.write_text(json.dumps(later))
    assert f'gradmill_last_prediction_drift{{name="{NAME}"}} 1.0' in generate_latest(metrics.StoreCollector()).decode()
    assert "DRIFT in the prediction of 21 Nov" in headline(state.read_name(NAME))


@pytest.mark.usefixtures("documents")
def test_runs_and_faults_are_those_of_their_own_name(candidates: list[Candidate]) -> None:
    asked = candidates[0].parameters.model_dump(mode="json")
    (searched := RunFolder.open(f"20261101T020000-tune-{NAME}-00000010", {"name": NAME})).failed(1)
    trained = RunFolder.open(f"20261101T030000-tune-{NAME}-00000011", asked | {"name": f"tune-{NAME}"})
    trained.note(stages={"unchanged": {"outcome": "unchanged", "version": 1}})
    (artifact_paths.version("new-other", 1)).mkdir(parents=True)
    found = state.read().names
    assert searched.path.name not in {run.run for each in found.values() for run in each.runs}
    assert [run.run for run in found[f"tune-{NAME}"].runs] == [trained.path.name]
    assert not found["other"].faults
    assert [fault.kind for fault in found["new-other"].faults] == ["version"]
    assert sum(run.name == NAME for run in found[NAME].runs) == len(found[NAME].runs) == 2


def test_a_mirror_that_cannot_be_read_is_behind(documents: dict[str, Path]) -> None:
    assert "gradmill_mirror_behind" not in generate_latest(metrics.StoreCollector()).decode()
    artifact_paths.mirror().write_text("{")
    figures = generate_latest(metrics.StoreCollector()).decode()
    assert f'gradmill_mirror_behind{{name="{NAME}"}} 1.0' in figures
    assert 'gradmill_mirror_behind{name="other"}' not in figures, "of which there is no champion"


def test_a_learning_curve_of_something_else_is_none(documents: dict[str, Path]) -> None:
    run = json.loads(documents["run"].read_text())
    for curve in ([3], "text", [{"train_loss": "low", "epoch": 1}]):
        documents["run"].write_text(json.dumps(run | {"stages": {"train": {"learning_curve": curve}}}))
        assert all(set(point) <= {"epoch"} for point in read_learning_curve(documents["run"].parent.name))


def test_orders_to_a_terminal_are_spelt_out(capsys: pytest.CaptureFixture[str]) -> None:
    print_line("a\x1b[2Jb\nc")
    print_fact("fact", "\x1b[2J")
    assert "\x1b" not in (shown := capsys.readouterr().out)
    assert shown.startswith("a\\x1b[2Jb\nc\n")
