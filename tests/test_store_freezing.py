"""Frozen names, models that are judged only, and the history of who changed what: ``history.jsonl``."""

import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from candidate import Contender
from command_line import answer, refused, typed
from flows.cli import train
from flows.pages.report import Outcome
from flows.pages.run_pages import retrain_page
from store_state import age_demotions, champion
from tasks.errors import DataError, GateFailed
from tasks.store import artifact_paths, atomic, folders, history, housekeeping, model_folder, pointer, verification
from tasks.store.page import render_markdown
from victims import die_before, fork

pytestmark = pytest.mark.usefixtures("two_versions")
NAME = "linear-regression"


@pytest.fixture
def candidate(candidates: list[Contender]) -> Iterator[Contender]:
    """The third, which a test may ask for otherwise."""
    parameters = candidates[2].parameters
    yield candidates[2]
    candidates[2].parameters = parameters


def strictly(candidate: Contender) -> None:
    """Ask for what no candidate keeps."""
    bounds = candidate.parameters.gates.model_copy(update={"max_loss_rise": 1e-6})
    candidate.parameters = candidate.parameters.model_copy(update={"gates": bounds})


JUDGED = ("judged", None, ["champion_signature", "champion_loss"])


def outcome(candidate: Contender) -> tuple[str, int | None, list[str]]:
    made = candidate.publish()
    return made.outcome, made.version, [gate.name for gate in made.gates]


def test_a_frozen_name_is_judged_and_nothing_is_published_until_it_is_unfrozen(candidate: Contender) -> None:
    assert [pointer.freeze(NAME) for _ in range(2)] == [(2, True), (2, False)]
    assert outcome(candidate) == JUDGED
    assert (model_folder.list_versions(NAME), champion()) == ([1, 2], (2, 1, []))
    asked = candidate.parameters
    strictly(candidate)
    with pytest.raises(GateFailed, match="champion_loss"):
        candidate.publish()
    candidate.parameters = asked
    assert pointer.freeze(NAME, frozen=False) == (2, True)
    assert candidate.publish().version == 3


def test_a_rollback_freezes_unless_told_otherwise_and_a_promotion_changes_nothing_of_that() -> None:
    for freeze in (False, True):
        pointer.rollback(NAME, and_freeze=freeze)
        assert json.loads(artifact_paths.champion(NAME).read_text())["frozen"] is freeze
        pointer.promote(NAME, 2)
        assert pointer.is_frozen(NAME) is freeze
    artifact_paths.champion(NAME).write_text("{")
    pointer.promote(NAME, 2)
    assert pointer.is_frozen(NAME), "the history knows it where the pointer is lost"


def test_without_publication_the_store_stays_as_it_is_byte_for_byte(candidate: Contender) -> None:
    def everything() -> dict[Path, bytes | bool]:
        return {path: path.is_file() and path.read_bytes() for path in artifact_paths.models().rglob("*")}

    (artifact_paths.model(NAME) / ".staging-0123456789abcdef").mkdir()
    before, asked = everything(), candidate.parameters.model_copy(update={"publish": False})
    candidate.parameters = asked
    assert outcome(candidate) == JUDGED
    candidate.parameters = asked.model_copy(update={"name": "never-kept"})
    assert candidate.publish().outcome == "judged"
    candidate.parameters = asked
    strictly(candidate)
    with pytest.raises(GateFailed):
        candidate.publish()
    assert everything() == before


def test_every_summary_says_that_a_name_is_frozen(
    candidates: list[Contender], capsys: pytest.CaptureFixture[str]
) -> None:
    pointer.freeze(NAME)
    for each, outcome, version in ((candidates[2], "judged", None), (candidates[1], "unchanged", 2)):
        made = Outcome(each.run, each.parameters, each.trained, each.evaluated, each.exported)
        made.published = each.publish()
        found = made.report()
        assert (found.outcome, found.frozen, found.champion, found.version) == (outcome, True, 2, version)
        assert (found.model_path is None) == (version is None)
        assert f"gradmill unfreeze {NAME}" in render_markdown(retrain_page(found))
        train.show_retrain(found, owes_predictions=False)
        told = capsys.readouterr().out
        assert f"\n{outcome}" in told
        assert f"\nfrozen      version 2 stays the champion of {NAME} until gradmill unfreeze {NAME}\n" in told
    listed = typed("models").stdout
    assert "2 * f" in listed
    assert "gradmill unfreeze" in listed


def test_a_version_that_was_rolled_back_from_and_is_made_again_names_the_way_back(
    candidates: list[Contender], capsys: pytest.CaptureFixture[str]
) -> None:
    pointer.rollback(NAME, and_freeze=False)
    each = candidates[1]
    made = Outcome(each.run, each.parameters, each.trained, each.evaluated, each.exported)
    made.published = each.publish()
    train.show_retrain(made.report(), owes_predictions=False)
    told = capsys.readouterr().out
    assert "held after a rollback: version 1 is the champion" in " ".join(told.split())
    assert told.count(f"promote {NAME} 2") == 2  # why, and as the command to type
    assert "--force" not in told


# The history


def test_the_history_tells_who_changed_what_and_why(candidate: Contender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    monkeypatch.setattr("flows.server.connection.announce", print)
    reason = "[red]a bad day\x1b[2J"
    assert typed("rollback", NAME, "--reason", reason).returncode == 0
    assert typed("unfreeze", NAME).returncode == 0
    refused(2, f"rollback {NAME}")  # nothing was done
    candidate.publish()
    age_demotions()
    assert typed("prune", NAME, "--keep", "1").returncode == 0
    ada = f"ada@{socket.gethostname()}"
    assert [
        (each.what, each.versions, each.champion, each.frozen, each.reason, each.by)
        for each in history.list_changes(NAME)
    ] == [
        ("published", (1,), 1, False, "", "candidate-0"),
        ("published", (2,), 2, False, "", "candidate-1"),
        ("rolled back", (2,), 1, True, reason, ada),
        ("unfrozen", (1,), 1, False, "", ada),
        ("published", (3,), 3, False, "", "candidate-2"),
        ("pruned", (2,), 3, False, "", ada),
    ]
    assert "[red]a bad day\\x1b[2J" in typed("history", NAME).stdout, "neither markup nor an order to the terminal"
    told = [each["what"] for each in answer("history")["history"][NAME]]
    assert told == [each.what for each in history.list_changes(NAME)]
    for command in (f"freeze {NAME} --reason {'x' * 501}", "history no-such-name"):
        refused(2, command)


def test_what_was_noted_and_not_done_is_told_as_interrupted() -> None:
    """As if a kill had come between history and pointer."""
    path = artifact_paths.champion(NAME)
    before = path.read_bytes()
    pointer.promote(NAME, 1)
    path.write_bytes(before)
    assert [each.interrupted for each in history.list_changes(NAME)] == [False, False, True]
    pointer.freeze(NAME)
    assert [each.interrupted for each in history.list_changes(NAME)] == [False, False, True, False]
    assert champion() == (2, 1, [])


# Kills


ACTIONS: dict[str, Callable[[], Any]] = {
    "promote": lambda: pointer.promote(NAME, 1),
    "rollback": lambda: pointer.rollback(NAME),
    "freeze": lambda: pointer.freeze(NAME),
    "prune": lambda: housekeeping.prune(NAME, 1),
}


def do_until(artifacts: str, action: str, number: int) -> None:
    """The body of a victim, killed before its ``number``-th write, sync or rename."""
    os.environ["GRADMILL_ARTIFACTS"] = artifacts
    die_before(number, "write", "fsync", "replace", "rename")
    ACTIONS[action]()


def state() -> tuple[object, ...]:
    return *champion(), pointer.is_frozen(NAME), model_folder.list_versions(NAME)


@pytest.mark.slow  # every victim is a process
@pytest.mark.parametrize("action", ACTIONS)
def test_a_kill_at_any_moment_leaves_a_whole_store_and_a_history_that_does_not_lie(
    action: str, candidate: Contender, artifacts: Path, tmp_path: Path
) -> None:
    candidate.publish()
    pointer.promote(NAME, 2)
    pointer.promote(NAME, 3)
    age_demotions()
    before, at_first = tmp_path / "before", state()
    shutil.copytree(artifacts, before)
    ACTIONS[action]()
    done, kills, states = state(), 0, set()
    while True:
        shutil.rmtree(artifacts)
        shutil.copytree(before, artifacts)
        victim = fork(do_until, str(artifacts), action, kills)
        victim.join()
        if victim.exitcode == 0:
            break
        kills += 1
        now = model_folder.find_champion(NAME)
        assert now is not None
        verification.verify_pointer(NAME, now)
        for number in model_folder.list_versions(NAME):
            verification.verify_version(NAME, number)
        assert state() in (at_first, done)
        states.add(str(state()))
        history.verify(NAME)
        *_, last = [each for each in history.list_changes(NAME) if not each.interrupted]
        assert (last.champion, last.frozen) == (now.version, now.frozen)
        assert last.what != "pruned" or state() == done
        if state() != done:
            ACTIONS[action]()
        assert state() == done
        atomic.sweep(artifacts)
        assert not [path for path in artifacts.rglob(".*") if path.name.startswith((".gradmill-", ".pruned"))]
    assert {str(at_first), str(done)} <= states or action == "prune"
    assert kills >= 3


# The file of the history: a line a change, lost, cut, damaged, on a full disk


def lines() -> list[bytes]:
    return artifact_paths.history(NAME).read_bytes().splitlines()


def words_of_changes() -> list[str]:
    return [each.what + " (interrupted)" * each.interrupted for each in history.list_changes(NAME)]


@pytest.mark.parametrize("lost", ["version", "version and history", "version and pointer", "history and pointer"])
def test_no_number_comes_back_whatever_else_is_lost(candidates: list[Contender], lost: str) -> None:
    candidates[2].publish()
    pointer.rollback(NAME, and_freeze=False)
    if "version" in lost:
        folders.remove(artifact_paths.version(NAME, 3))
    if "history" in lost:
        artifact_paths.history(NAME).unlink()
    if "pointer" in lost:
        artifact_paths.champion(NAME).unlink()
        pointer.promote(NAME, 2)
    if "version" in lost:  # else there is one with these bytes
        assert candidates[2].publish().version == 4
    assert history.highest_number(NAME, history.list_changes(NAME)) == 3 + ("version" in lost)


def test_where_no_number_is_left_the_history_is_named(candidates: list[Contender]) -> None:
    path = artifact_paths.history(NAME)
    path.write_bytes(path.read_bytes().replace(b'"versions":[1]', b'"versions":[999999999]'))
    with pytest.raises(DataError, match="has a version 999999999"):
        candidates[2].publish()
    assert not [*path.parent.glob(".staging-*")]


def test_a_file_that_is_moved_away_is_begun_anew_and_verify_does_not_say_that_it_checked_one() -> None:
    assert "history" in verification.verify(NAME, 2)
    artifact_paths.history(NAME).unlink()
    assert "history" not in verification.verify(NAME, 2)
    pointer.freeze(NAME)
    assert words_of_changes() == ["frozen"]


DAMAGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "cut in between": lambda there: [there[0][:40], there[1]],
    "no line of ours": lambda there: [b"{}", *there],
    "two in one": lambda there: [there[0] + there[1]],
    "a flipped bit": lambda there: [there[0].replace(b'"what"', b'"wh`t"'), there[1]],
    "no number": lambda there: [there[0], there[1].replace(b'"champion":2', b'"champion":1e300')],
    "no number that a version can have": lambda there: [there[0].replace(b"[1]", b"[10000000000000000000000]")],
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_named_by_file_and_line_and_no_change_is_made(candidates: list[Contender], kind: str) -> None:
    path, before = artifact_paths.history(NAME), artifact_paths.champion(NAME).read_bytes()
    path.write_bytes(b"".join(line + b"\n" for line in DAMAGES[kind](lines())))
    written = path.read_bytes()
    for command in (f"verify {NAME}", f"history {NAME}", f"rollback {NAME}", f"prune {NAME} --keep 1"):
        refused(4, command, f"{path}, line ")
    with pytest.raises(DataError):
        candidates[2].publish()
    assert (artifact_paths.champion(NAME).read_bytes(), path.read_bytes()) == (before, written)
    path.unlink()
    assert candidates[2].publish().version == 3


def test_a_last_line_that_was_never_finished_is_said_and_not_read_and_the_next_takes_its_place() -> None:
    path = artifact_paths.history(NAME)
    with path.open("ab") as stream:
        stream.write(b'{"at": "2026-11-26T12:0')
    for command in ("history", "verify"):
        done = typed(command, NAME)
        assert done.returncode == 0
        assert f"the last line of {path} was never finished" in done.stderr
    pointer.freeze(NAME)
    assert words_of_changes() == ["published", "published", "frozen"]
    assert "never finished" not in typed("verify", NAME).stderr


@pytest.mark.parametrize("room", [0, 10])
def test_a_full_disk_leaves_history_and_pointer_as_they_were_and_names_the_file(
    room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is nearly full takes a part, and says only at the next call why."""
    path, write = artifact_paths.history(NAME), os.write
    before, left = (path.read_bytes(), artifact_paths.champion(NAME).read_bytes()), iter([room] if room else [])

    def full(descriptor: int, content: bytes) -> int:
        if str(Path(f"/proc/self/fd/{descriptor}").readlink()) != str(path):
            return write(descriptor, content)
        if (some := next(left, None)) is None:
            raise OSError(28, "No space left on device")
        return write(descriptor, content[:some])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        done = typed("freeze", NAME)
    assert done.returncode == 1
    assert str(path) in done.stderr
    assert (path.read_bytes(), artifact_paths.champion(NAME).read_bytes()) == before


def test_a_pruning_of_which_some_was_done_is_not_told_as_interrupted() -> None:
    history.append_change(NAME, history.of_user("pruned"), (1, 2), model_folder.read_pointer(NAME))
    assert words_of_changes()[-1] == "pruned (interrupted)"
    folders.remove(artifact_paths.version(NAME, 1))
    assert words_of_changes()[-1] == "pruned"


def test_a_change_that_was_made_is_not_told_as_interrupted_where_the_lines_after_it_are_lost(
    candidates: list[Contender],
) -> None:
    candidates[2].publish()
    artifact_paths.history(NAME).write_bytes(b"".join(line + b"\n" for line in lines()[:-1]))  # as from an older copy
    assert words_of_changes() == ["published", "published"]
    pointer.freeze(NAME)
    assert words_of_changes() == ["published", "published", "frozen"]
    assert list(history.list_demotions(NAME)) == [1]
