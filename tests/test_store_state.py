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

from candidate import Contender, seal, write_job
from command_line import answer, output, plant, refused, typed
from documents import load
from flows.pages.overview import list_sections
from flows.server import metrics
from store_state import damage, keep_settings
from tasks.records import ChampionGates, GateVerdict
from tasks.store import artifact_paths, atomic, folders, housekeeping, own_data, run_folder, state
from tasks.store.run_folder import RunFolder

NAME = "linear-regression"
COMMANDS = {  # and what of the rest each shows, whatever is damaged
    "status": ("status --json", '"version": 2'),
    "models": ("models --json", '"version": 2'),
    "history": ("history --json", '"published"'),
    "report": (f"report {NAME} --output page.html", "By command"),
    "metrics": ("metrics", "gradmill_last_success_timestamp_seconds{"),
    "prune": (f"prune {NAME} --keep 1 --json", '"kept"'),
    "maintain": ("maintain --json", '"datasets"'),
    "verify": ("verify --all --json", '"version": 2'),
}
EXIT_4 = {  # where something is missing in what was asked for; metrics and verify say so of every document
    "champion": {"status", "models", "prune"},
    "manifest": {"status", "models", "maintain"},
    "history": {"history", "prune"},
    "job": set[str](),
    "run": set[str](),
    "tuned": {"maintain"},
}
Documents = dict[str, Path]


def noted(candidate: Contender, day: int, name: str = NAME, loss: float | None = 0.5, **training: Any) -> RunFolder:
    """A run up to its last gates."""
    asked = candidate.parameters.model_dump(mode="json")
    asked |= {"name": name, "training": asked["training"] | training}
    run = RunFolder.open(f"202611{day:02}T030000-{name}-0000000{day % 10}", asked)
    run.note(stages={"download": {"name": "synthetic-linear"}}, seconds={"train": 1.5})
    if loss is not None:
        metrics = candidate.evaluated.metrics | {"test_loss": loss}
        evaluated = {"metrics": metrics, "gates": [], "pictures": []}
        run.note(stages={"train": candidate.trained.model_dump(mode="json"), "evaluate": evaluated})
    return run


def decide(run: RunFolder, outcome: str, version: int | None = None, detail: str = "") -> Path:
    stage = "unchanged" if outcome == "unchanged" else "publish"
    run.note(stages={stage: {"outcome": outcome, "version": version, "detail": detail}})
    return run.file("run.json")


@pytest.fixture
def candidate(candidates: list[Contender]) -> Contender:
    return candidates[0]


@pytest.fixture
def documents(two_versions: None, candidate: Contender) -> Documents:
    """One of each kind, beside others that stay whole."""
    runs = [decide(noted(candidate, day, name), "unchanged", 2) for day, name in ((1, NAME), (2, "other"), (2, NAME))]
    jobs = [
        write_job(artifact_paths.predictions(f"{number:016}"), NAME, 2, finished_at=f"2026-11-20T06:00:0{number}+00:00")
        for number in (1, 2)
    ]
    keep_settings()
    return {
        "champion": artifact_paths.champion(NAME),
        "manifest": artifact_paths.version(NAME, 1) / "manifest.json",
        "history": artifact_paths.history(NAME),
        "job": jobs[-1],
        "run": runs[-1],
        "tuned": artifact_paths.tuned(NAME),
    }


@pytest.mark.slow  # a server
@pytest.mark.usefixtures("prefect_api")
@pytest.mark.parametrize("document", EXIT_4)
def test_a_damaged_document_is_named_by_every_command_and_hides_nothing_else(
    document: str, documents: Documents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    damage(documents[document], 0, 0x40)
    for command, (words, shown) in COMMANDS.items():
        done = typed(*words.split())
        told = done.stdout + done.stderr
        told += html.unescape(Path("page.html").read_text()) if command == "report" else ""
        if command == document or command != "history":  # which reads no other document
            assert re.search(rf"{documents[document].parent}\b", told), command
        is_missed = command in EXIT_4[document] | {"metrics", "verify"}
        assert done.returncode == (4 if is_missed else 0), (command, done.stderr)
        assert "Traceback" not in told
        if document == "champion" and done.returncode == 4:
            assert f"gradmill promote {NAME}" in told, command
        assert (document, command) != ("champion", "report") or "the live version is unknown" in told
        hides_all = command == document or (document == "champion" and command == "status")
        assert shown in told or hides_all or (done.returncode == 4 and command == "prune"), command
    done = typed("status", "--check")
    assert done.returncode in (1, 4)
    assert "no champion yet" not in done.stdout


def test_a_scrape_measures_no_folder_and_a_quiet_name_keeps_its_last_success(
    documents: Documents, candidate: Contender, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = candidate.parameters.model_dump(mode="json") | {"name": NAME}
    for number in range(metrics.RUNS + 1):
        RunFolder.open(f"20261103T03{number // 60:02}{number % 60:02}-{NAME}-{number:08x}", asked).note_failure(1)
    collector = metrics.StoreCollector()
    generate_latest(collector)
    monkeypatch.setattr(folders, "size", None)
    text = generate_latest(collector).decode()
    for name in (NAME, "other"):
        assert f'gradmill_last_success_timestamp_seconds{{name="{name}"}}' in text


def test_what_a_damaged_document_may_protect_stays(documents: Documents) -> None:
    artifact_paths.champion(NAME).unlink()  # which protects both
    assert [*housekeeping.find_protected(NAME)] == [1]
    damage(artifact_paths.version(NAME, 2) / "manifest.json", 0, 0x40)  # the newest tells which was the best
    assert {*housekeeping.find_protected(NAME)} == {1, 2}


def edit(**facts: Any) -> Callable[[Path], object]:
    return lambda path: path.write_text(json.dumps(load(path) | facts))


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
        ("run", edit(stages={"train": {"learning_curve": [3]}})),
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
    refused(4, f"models {NAME} --runs", documents["run"])


def test_an_unknown_kind_of_model_ends_neither_report_nor_comparison(documents: Documents, tmp_path: Path) -> None:
    manifest = load(documents["manifest"])
    manifest["parameters"]["training"]["model"] = "decision-tree"
    seal(documents["manifest"].parent, manifest)
    output(f"report {NAME} --output {tmp_path}/page.html")
    number = manifest["version"]
    assert "settings that this release does not have" in output(f"compare {NAME} {number} {number}")


def test_files_that_a_version_was_trained_on_are_told(documents: Documents) -> None:
    note = artifact_paths.trained_files(NAME, load(documents["manifest"])["dataset"]["digest"])
    note.parent.mkdir(parents=True, exist_ok=True)
    own_data.TrainedFiles(files=tuple(f"/data/{number}.csv" for number in range(12))).write(note)
    told = output(f"history {NAME}")
    assert re.search("(?m)^ +1 +/data/0.csv, .* and 2 more", told)
    assert answer(f"history {NAME}")["files"][NAME]["1"][11] == "/data/11.csv"
    (files,) = (section for section in list_sections(state.read_name(NAME), None) if section.title == "Files")
    assert "/data/0.csv" in str(files)
    note.write_text("{")
    (fault,) = state.read().faults
    assert (fault.kind, str(note) in fault.found) == ("source", True)


def test_names_that_are_none_or_of_others_end_no_listing(documents: Documents, candidate: Contender) -> None:
    for odd in ("Not Ours", "\udcff"):
        (artifact_paths.models() / odd / "1").mkdir(parents=True)
    atomic.write_bytes(artifact_paths.runs() / f"20261104T030000-tune-{NAME}-00000009" / "run.json", b"{")
    RunFolder.open(f"20261101T020000-tune-{NAME}-00000010", {"name": NAME})
    decide(noted(candidate, 1, f"tune-{NAME}"), "unchanged", 2)
    artifact_paths.version("new-other", 1).mkdir(parents=True)
    found = state.read().names
    runs = {name: len(each.runs) for name, each in found.items()}
    assert runs == {NAME: 2, "new-other": 0, "other": 1, f"tune-{NAME}": 1}, "a search is no retrain"
    assert [fault.kind for fault in found["new-other"].faults] == ["champion", "version"]
    assert not found["other"].faults
    assert f'gradmill_champion_version{{name="{NAME}"}}' in typed("metrics").stdout


# ``gradmill models --runs``: whether published, refused, judged only or never ended


def listed(options: str = "") -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = answer(f"models --runs {options}")["runs"]
    return runs


def test_every_outcome_of_a_run_is_told(candidate: Contender) -> None:
    decide(noted(candidate, 1), "published", 1)
    refused_by = GateVerdict(name="champion_loss", value=2.0, maximum=1.0, passed=False, detail="")
    verdicts = ChampionGates(gates=(refused_by,)).model_dump(mode="json")
    noted(candidate, 2, lr=0.5).note(stages={"publish": verdicts})
    decide(noted(candidate, 3), "judged")
    noted(candidate, 4, loss=None)
    going = noted(candidate, 5, name="other", seed=42)
    decide(noted(candidate, 6), "unchanged", 1, "of these rows")
    with going.in_use():
        found = [f"{each['name']} {each['outcome']} {each['detail']} {each['version']}" for each in listed()]
        page, by_default = (output(f"models {name} --runs") for name in (NAME, "other"))
    assert found == [
        f"{NAME} unchanged of these rows 1",
        "other running  None",
        f"{NAME} unfinished train None",
        f"{NAME} judged  None",
        f"{NAME} refused champion_loss None",
        f"{NAME} published  1",
    ]
    words = "published version 1", "unchanged: version 1", "refused by champion_loss", "lr 0.5, seed 0"
    assert not [each for each in (*words, "interrupted in train") if each not in page]
    assert "other" not in page
    assert ["only settings that differ" in each for each in (page, by_default)] == [True, False]


def test_the_best_come_first_and_those_without_the_figure_last(candidate: Contender) -> None:
    for day, loss in enumerate((0.3, None, 0.1, 0.2), 1):
        noted(candidate, day, loss=loss)
    assert [each["test_loss"] for each in listed("--sort loss")] == [0.1, 0.2, 0.3, None]
    assert [each["test_loss"] for each in listed("--sort accuracy")] == [0.2, 0.1, None, 0.3], "as they came"
    noted(candidate, 5, name="another", loss=9.0)
    assert listed("--sort loss")[0]["name"] == "another", "losses of other data are no better"
    for wrong in ("models --sort loss", "models --runs --sort beauty"):
        refused(2, wrong)


def test_of_each_name_the_newest_retrains_are_read_as_far_as_one_that_was_judged(
    candidate: Contender, monkeypatch: pytest.MonkeyPatch
) -> None:
    def days(newest: int, name: str = NAME) -> str:
        return " ".join(run.run[6:8] for run in state.read(newest=newest).names[name].runs)

    decide(noted(candidate, 1, name="quiet"), "published", 1)
    decide(noted(candidate, 2), "published", 1)
    for day in (3, 4, 5):
        noted(candidate, day)
    RunFolder.open(f"20261106T030000-predict-{NAME}-00000004", {"name": NAME, "batch_size": 4})
    assert (days(1, "quiet"), days(1), days(9)) == ("01", "05 04 03 02", "05 04 03 02")
    decide(noted(candidate, 7), "judged")
    assert days(1) == "07"
    monkeypatch.setattr(run_folder, "LARGEST", 100)
    found = state.read()
    assert not [run for each in found.names.values() for run in each.runs]
    assert "has over 100 bytes" in found.faults[0].found


def test_a_name_without_a_run_is_exit_2() -> None:
    refused(2, "models nobody --runs", "no run of nobody")
    assert "--no-publish" in output("models --runs")
