"""The store's commands from outside: what they print, how they exit, and that they need neither torch nor a server."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import flows.__main__
import flows.cli.app
from candidate import Contender
from command_line import GRADMILL, answer, output, refused
from conftest import REPOSITORY
from documents import load
from fenced_blocks import blocks
from store_state import champion, damage, seal_all
from table_files import written
from tasks.store import artifact_paths, locks, model_folder, pointer
from tasks.store.history import Cause

pytestmark = pytest.mark.usefixtures("two_versions")
NAME = "linear-regression"


def test_rollback_holds_and_freezes_and_promote_lifts_the_hold(candidates: list[Contender]) -> None:
    def moves(command: str, is_frozen: bool, *pointed: object, **told: object) -> None:
        word, *more = command.split()
        found = answer(" ".join([word, NAME, *more]))
        assert found.items() >= (told | {"schema_version": 1, "name": NAME, "champion": pointed[0]}).items(), command
        assert (champion(), pointer.is_frozen(NAME)) == (pointed, is_frozen), command
        assert f"versions: [ {pointed[0]} ]" in artifact_paths.triton_config(NAME).read_text()

    candidates[2].publish()
    moves("promote 3", False, 3, 2, [], changed=False)
    moves("promote 1", False, 1, 3, [], changed=True, before=3)
    moves("rollback --no-freeze", False, 3, 2, [1], before=1, held=1, frozen=False)
    moves("rollback", True, 2, None, [1, 3], before=3, held=3, frozen=True)
    refused(2, f"rollback {NAME}", "no version before its champion")
    page = output("models")
    assert ("1 h" in page, NAME in page) == (True, True), "whole names, though a pipe has no width"
    moves("promote 3", True, 3, 2, [1], changed=True, before=2)
    artifact_paths.champion(NAME).write_text("{")
    moves("promote 2", True, 2, 3, [1], changed=True)  # the history knows that it is frozen, and what is held
    damage(artifact_paths.version(NAME, 3) / "model.onnx", 100)
    for move in (f"promote {NAME} 3", f"rollback {NAME}"):
        refused(4, move, "model.onnx has changed")
    assert champion() == (2, 3, [1])


@pytest.mark.parametrize(
    "command",
    [
        f"promote {NAME} 9", f"verify {NAME} 9", "verify ../models", f"prune {NAME}", f"compare {NAME} 1 3",
        "verify", f"verify {NAME} --all", "status nothing", "status ../models", "status ..",
        "remove houses --yes", "remove ../models --yes", "remove .. --yes", "remove . --yes", "remove houses/.. --yes",
        "remove / --yes", f"remove {NAME}", "remove typo", "models /tmp --runs", "models ** --runs",
    ],
)  # fmt: skip
def test_what_does_not_exist_or_is_left_out_is_exit_2(command: str, artifacts: Path) -> None:
    before = {*artifacts.rglob("*")}
    refused(2, command)
    assert {*artifacts.rglob("*")} >= before


@pytest.mark.slow
@pytest.mark.usefixtures("on_server")
def test_a_dataset_shares_its_name_with_no_new_model_and_outlives_the_removal_of_an_old_one(artifacts: Path) -> None:
    data = artifact_paths.dataset("synthetic-linear")
    before = {*data.rglob("*")}
    refused(2, "retrain linear-regression --name synthetic-linear", "the name of the book's data")
    refused(2, "remove synthetic-linear --yes", "no model named synthetic-linear")
    artifact_paths.model(NAME).rename(artifact_paths.model("synthetic-linear"))
    assert answer("remove synthetic-linear --yes")["versions"] == [1, 2]
    assert {*data.rglob("*")} >= before != set()


def test_verify_says_what_it_checked_and_what_is_not_here_and_a_damaged_version_is_exit_4() -> None:
    found = answer(f"verify {NAME}")
    assert (found["version"], "stored sample" in found["checked"], found["missing"]) == (2, True, [])
    folder = artifact_paths.version(NAME, 2)
    rows = {"path": "datasets/synthetic-linear/0000.rows", "sha256": "0" * 64}
    seal_all(folder, dataset=load(folder / "manifest.json")["dataset"] | {"rows": rows})
    pointer.promote(NAME, 2)
    artifact_paths.history(NAME).unlink()
    assert answer(f"verify {NAME}")["missing"] == ["history", "row digests"]
    assert output(f"verify {NAME}").endswith("stored sample; not here: history, row digests\n")
    damage(folder / "manifest.json", 100)
    refused(4, f"verify {NAME}", "manifest.json")


def test_compare_puts_two_versions_side_by_side_and_judges_the_second() -> None:
    both = [model_folder.find_manifest(NAME, number) for number in (1, 2)]
    losses = [each.metrics.test_loss for each in both]
    told = answer(f"compare {NAME} 1 2")
    assert (told["versions"], told["figures"]["test_loss"], told["not_judged"]) == ([1, 2], losses, None)
    assert told["data"]["test_rows"] == [each.dataset.num_test for each in both]
    (gate,) = (gate for gate in told["gates"] if gate["name"] == "champion_loss")
    assert (gate["value"], "of version 1" in gate["detail"]) == (pytest.approx(losses[1], rel=1e-5), True)
    before, after = (each.metrics.model_dump()["weights"] for each in both)
    moved = {each["name"]: each["value"] for each in told["weights"]}
    assert moved == {"x1": after[0] - before[0], "x2": after[1] - before[1]}
    assert "no weight differs" in output(f"compare {NAME} 2 2")
    both[1].dataset.test.path.unlink()
    shown = output(f"compare {NAME} 1 2")
    assert f"version 2 is not judged beside version 1: {both[1].dataset.test.path}" in shown


# A mirror


def test_the_result_is_told_before_the_announcement_which_fails_no_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    told: list[str] = []

    def fail(**options: object) -> None:
        told.append(capsys.readouterr().out)
        raise RuntimeError("an event\nthat nobody takes")

    monkeypatch.setattr("flows.server.connection.connect", fail)
    monkeypatch.setenv("GRADMILL_MIRROR", str(share := tmp_path / "share"))
    assert flows.cli.app.run(["rollback", NAME]) == 0
    assert told[0].startswith(f"{NAME}: 2 → 1, version 2 is held, mirror: up to date, frozen\n")
    assert f"held: no retrain publishes version 2 again; only gradmill promote {NAME} 2 does\n" in told[0]
    assert f"until gradmill unfreeze {NAME}\n" in told[0]
    said = "gradmill.model.rolled-back was not sent (RuntimeError: an event that nobody takes)"
    assert said in capsys.readouterr().err
    share.rename(tmp_path / "away")
    share.write_text("no folder")
    assert flows.cli.app.run(["promote", NAME, "2", "--json"]) == 1
    document = json.loads(told[1])
    assert (document["champion"], "was not updated" in document["error"]["found"]) == (2, True)


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ("flows.server.connection.connect", "is held"),
        ("tasks.store.mirror_sync.copy_champion", "was not updated; to do: gradmill"),
    ],
)
def test_ctrl_c_after_the_pointer_moved_tells_so(
    at: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    module, _, function = at.rpartition(".")
    press = f"module.{function} = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)"
    script = f"import os, signal; import {module} as module; from flows.__main__ import main\n{press}\nmain()"
    monkeypatch.setenv("GRADMILL_MIRROR", str(tmp_path / "share"))
    command = [sys.executable, "-c", script, "rollback", NAME]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 130
    told = (f"interrupted; {NAME}: 2 → 1, version 2 is held", words, "another rollback would go one further back")
    assert [each for each in told if each not in done.stderr] == []


# Strange names


LINKS = ("3", ".staging-0123456789abcdef", ".pruned-1-0123abcd")


@pytest.mark.slow
def test_nothing_outside_the_store_is_touched_through_planted_names(
    candidates: list[Contender], tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o775)
    outside.chmod(0o775)
    (outside / "file").write_text("precious")
    model = artifact_paths.model(NAME)
    for name in LINKS:
        (model / name).symlink_to(outside)
    (model / "\u0663").mkdir()
    (model / "5").touch()
    planted = {*model.iterdir()}
    for command in (f"prune {NAME} --keep 1", f"models {NAME}"):
        answer(command)
    assert candidates[2].publish().version == 4, "3 is taken by something else"
    assert model_folder.list_versions(NAME) == [1, 2, 4]
    assert stat.S_IMODE(outside.stat().st_mode) == 0o775
    assert (outside / "file").read_text() == "precious"
    assert {*model.iterdir()} >= planted


def test_behind_a_link_in_place_of_a_models_folder_nothing_is_changed(tmp_path: Path) -> None:
    def everything() -> list[tuple[Path, int]]:
        return sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "elsewhere").rglob("*"))

    model = artifact_paths.model(NAME)
    model.rename(tmp_path / "elsewhere")
    model.symlink_to(tmp_path / "elsewhere")
    before = everything()
    for command in (f"prune {NAME} --keep 1", f"promote {NAME} 1", f"mirror {NAME} {tmp_path}/share"):
        refused(1, command, "is a link")
    assert answer(f"verify {NAME}")["version"] == 2, "it may be read"
    assert everything() == before


# Waiting


@pytest.mark.slow
@pytest.mark.parametrize("end", ["released", "interrupted"])
def test_a_command_that_waits_for_the_lock_says_for_whom_without_secrets_and_gives_one_document(
    end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["/bin/gradmill", "retrain", "https://user:secret@host/"])
    with locks.hold_model(NAME):
        process = subprocess.Popen(
            [GRADMILL, "promote", NAME, "1", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        said = process.stderr.readline()
        if end == "interrupted":
            process.send_signal(signal.SIGINT)
            assert process.wait(180) == 130
    holder = rf"process {os.getpid()} on {socket.gethostname()} since 20\S+ \S+ UTC, gradmill retrain https://host/"
    assert re.match(f"another process is changing {NAME}; waiting for it: {holder}", said), said
    output, _ = process.communicate(timeout=180)
    assert artifact_paths.lock(artifact_paths.model(NAME)).read_text() == "", "whoever has it no more is not named"
    document = json.loads(output)
    assert document["error"]["exit_code"] == 130 if end == "interrupted" else document["champion"] == 1


@pytest.mark.slow
def test_a_rollback_that_waited_undoes_no_champion_that_its_user_has_not_seen() -> None:
    with locks.hold_model(NAME):
        process = subprocess.Popen([GRADMILL, "rollback", NAME], stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        assert "waiting for it" in process.stderr.readline()
        pointer.point_to(NAME, 1, Cause("promoted", by="another"))
    _, said = process.communicate(timeout=180)
    assert (process.returncode, champion()) == (2, (1, 2, [])), said
    assert "became version 1 while this command waited\nexpected: version 2" in said


@pytest.mark.slow
def test_the_documented_attestation_binds_every_file_of_a_version_to_the_key(artifacts: Path) -> None:
    """As docs/models.md has it, with this model's version."""
    (block,) = [each for each in blocks(REPOSITORY / "docs" / "models.md") if "model_signing" in each.text]
    lines = block.text.replace("softmax-regression", NAME).splitlines()
    verify = lines[-1]
    here = os.environ | {"PATH": f"{Path(GRADMILL).parent}:{os.environ['PATH']}"}

    def succeeds(line: str) -> bool:
        done = subprocess.run(["bash", "-c", line], cwd=artifacts.parent, env=here, capture_output=True, check=False)
        return done.returncode == 0

    assert all(succeeds(line) for line in lines if not line.startswith("pip"))
    for file in artifact_paths.version(NAME, 1).iterdir():
        before = damage(file, 100)
        assert not succeeds(verify), file
        file.write_bytes(before)
    assert succeeds(verify)


@pytest.mark.slow
@pytest.mark.usefixtures("on_server")
def test_remove_deletes_a_name_with_its_runs_and_data_once_it_was_asked(artifacts: Path, tmp_path: Path) -> None:
    """Without a terminal it needs --yes; other names, predictions and what a schedule needs stay as they are."""
    file = written(tmp_path / "rows.csv", {"area": list(range(300)), "price": [3.5 * each for each in range(300)]})
    for name in ("houses", "predict-houses"):  # as runs of predictions of the first begin
        output(f"retrain {NAME} --name {name} --data {file} --target price")
    others = [path for path in artifacts.rglob("*") if {NAME, "predictions"} & {*path.parts}]
    others += artifacts.rglob("*predict-houses*")
    refused(2, "remove houses", "houses: history, data, runs and 1 version")
    assert model_folder.list_versions("houses") == [1]
    assert answer("remove houses --yes")["versions"] == [1]
    assert [path for path in artifacts.rglob("*houses*") if "predict-houses" not in str(path)] == []
    assert all(path.exists() for path in others)
