"""Frozen names, models that are judged only, and the history of who changed what: ``history.jsonl``."""

import copy
import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from candidate import Contender
from command_line import answer, gradmill, output, refused, run, typed
from store_state import age_demotions, champion, forget_changes, leftovers, whole_files
from tasks.errors import DataError, GateFailed
from tasks.store import artifact_paths, atomic, folders, history, housekeeping, model_folder, pointer
from tasks.store.history import Cause
from victims import die_before, fork

pytestmark = pytest.mark.usefixtures("two_versions")
NAME = "linear-regression"


@pytest.fixture
def candidate(candidates: list[Contender]) -> Contender:
    return candidates[2]


def asking(candidate: Contender, **parameters: object) -> Contender:
    """The same, asked for otherwise."""
    made = copy.copy(candidate)
    made.parameters = candidate.parameters.model_copy(update=parameters)
    return made


def refuse(candidate: Contender) -> None:
    """Ask for what no candidate keeps."""
    bounds = candidate.parameters.gates.model_copy(update={"max_loss_rise": 1e-6})
    with pytest.raises(GateFailed, match="champion_loss"):
        asking(candidate, gates=bounds).publish()


def judge(candidate: Contender) -> None:
    made = candidate.publish()
    assert (made.outcome, made.version) == ("judged", None)
    assert [gate.name for gate in made.gates] == ["champion_signature", "champion_loss"]


def test_a_frozen_name_is_judged_and_nothing_is_published_until_it_is_unfrozen(candidate: Contender) -> None:
    assert [pointer.freeze(NAME) for _ in range(2)] == [(2, True), (2, False)]
    judge(candidate)
    refuse(candidate)
    assert (model_folder.list_versions(NAME), champion()) == ([1, 2], (2, 1, []))
    assert pointer.freeze(NAME, frozen=False) == (2, True)
    assert candidate.publish().version == 3


def test_without_publication_the_store_stays_as_it_is_byte_for_byte(candidate: Contender) -> None:
    def everything() -> dict[Path, bytes | bool]:
        return {path: path.is_file() and path.read_bytes() for path in artifact_paths.models().rglob("*")}

    (artifact_paths.model(NAME) / ".staging-0123456789abcdef").mkdir()
    before, asked = everything(), asking(candidate, publish=False)
    judge(asked)
    refuse(asked)
    assert asking(asked, name="never-kept").publish().outcome == "judged"
    assert everything() == before


@pytest.mark.slow  # three retrains
def test_every_summary_says_that_a_name_is_frozen_or_a_version_held(on_server: None) -> None:
    def retrain(seed: int) -> str:
        return gradmill("retrain", NAME, "--no-predict", "--seed", str(seed)).stdout

    output(f"freeze {NAME}")
    document = run("retrain", NAME, "--no-predict", "--seed", 7)
    told = {field: document[field] for field in ("outcome", "frozen", "champion", "version", "model_path")}
    assert told == {"outcome": "judged", "frozen": True, "champion": 2, "version": None, "model_path": None}
    frozen, promote = f"Frozen: version 2 stays until gradmill unfreeze {NAME}", f"gradmill promote {NAME}"
    unchanged = retrain(seed=0)  # as version 1 was
    for words in ("not the champion: that is version 2", frozen, f"{promote} 1"):
        assert words in unchanged
    assert "2 * f" in output("models")
    pointer.promote(NAME, 1)
    pointer.rollback(NAME)
    output(f"unfreeze {NAME}")
    assert f"Held because of a rollback: 1. {promote} VERSION ends the hold" in retrain(seed=0)
    folders.remove(artifact_paths.version(NAME, 1))
    again = run("retrain", NAME, "--no-predict", "--seed", 0)
    assert {field: again[field] for field in ("outcome", "champion", "version", "detail")} == {
        "outcome": "judged",
        "champion": 2,
        "version": None,
        "detail": "equal to version 1, which was rolled back from and is gone",
    }


# The history


def words_of_changes() -> list[str]:
    return [each.what + " (interrupted)" * each.interrupted for each in history.list_changes(NAME)]


def test_the_history_tells_who_changed_what_and_why(candidate: Contender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    monkeypatch.setattr("flows.server.connection.send_model_event", print)
    reason = "[red]a bad day\x1b[2J"
    output(f"rollback {NAME} --reason '{reason}'")
    output(f"unfreeze {NAME}")
    for wrong in (f"rollback {NAME}", f"freeze {NAME} --reason {'x' * 501}", "history no-such-name"):
        refused(2, wrong)  # nothing was done
    output(f"promote {NAME} 2")  # held versions are not pruned
    candidate.publish()
    age_demotions()
    output(f"prune {NAME} --keep 1")
    told = [
        f"{each.what} {each.versions[0]} by {each.by}{each.reason}: {each.champion}{' frozen' * each.frozen}"
        for each in history.list_changes(NAME)
    ]
    ada = f"ada@{socket.gethostname()}"
    assert told == [
        "published 1 by candidate-0: 1",
        "published 2 by candidate-1: 2",
        f"rolled back 2 by {ada}{reason}: 1 frozen",
        f"unfrozen 1 by {ada}: 1",
        f"promoted 2 by {ada}: 2",
        "published 3 by candidate-2: 3",
        f"pruned 1 by {ada}: 3",
    ]
    assert "[red]a bad day\\x1b[2J" in output(f"history {NAME}"), "neither markup nor an order to the terminal"
    assert [each["what"] for each in answer("history")["history"][NAME]] == words_of_changes()


def test_what_was_noted_and_not_done_is_told_as_interrupted() -> None:
    """As if a kill had come between history and pointer."""
    path, told = artifact_paths.champion(NAME), ["published", "published", "promoted (interrupted)"]
    before = path.read_bytes()
    pointer.promote(NAME, 1)
    path.write_bytes(before)
    assert words_of_changes() == told
    pointer.freeze(NAME)
    assert words_of_changes() == [*told, "frozen"]
    assert champion() == (2, 1, [])


def test_a_pruning_of_which_some_was_done_is_not_told_as_interrupted() -> None:
    history.append_change(NAME, Cause("pruned", "me@here"), (1, 2), model_folder.read_pointer(NAME))
    assert words_of_changes()[-1] == "pruned (interrupted)"
    folders.remove(artifact_paths.version(NAME, 1))
    assert words_of_changes()[-1] == "pruned"


def test_a_change_that_was_made_is_not_told_as_interrupted_where_the_lines_after_it_are_lost(
    candidate: Contender,
) -> None:
    candidate.publish()
    forget_changes(2)  # as in an older copy
    assert words_of_changes() == ["published", "published"]
    pointer.freeze(NAME)
    assert words_of_changes() == ["published", "published", "frozen"]
    assert list(history.list_demotions(NAME)) == [1]


# Kills


ACTIONS: dict[str, Callable[[Contender], Any]] = {
    "publish": Contender.publish,
    "promote": lambda _: pointer.promote(NAME, 1),
    "rollback": lambda _: pointer.rollback(NAME),
    "freeze": lambda _: pointer.freeze(NAME),
    "prune": lambda _: housekeeping.prune(NAME, 1),
}


def do_until(artifacts: str, action: str, candidate: Contender, number: int) -> None:
    """The body of a victim, killed before its ``number``-th write, sync or rename."""
    os.environ["GRADMILL_ARTIFACTS"] = artifacts
    die_before(number, "write", "fsync", "replace", "rename")
    ACTIONS[action](candidate)


def state() -> tuple[object, ...]:
    number, previous, held = champion()
    return number, previous, tuple(held), pointer.is_frozen(NAME), tuple(model_folder.list_versions(NAME))


@pytest.mark.slow  # every victim is a process
@pytest.mark.parametrize("action", ACTIONS)
def test_a_kill_at_any_moment_leaves_a_whole_store_and_a_history_that_does_not_lie(
    action: str, candidate: Contender, artifacts: Path, tmp_path: Path
) -> None:
    if action != "publish":
        candidate.publish()
        pointer.promote(NAME, 2)
        pointer.promote(NAME, 3)
    age_demotions()
    before, at_first = tmp_path / "before", state()
    shutil.copytree(artifacts, before)
    ACTIONS[action](candidate)
    done, kills, states = state(), 0, set()
    while True:
        shutil.rmtree(artifacts)
        shutil.copytree(before, artifacts)
        victim = fork(do_until, str(artifacts), action, candidate, kills)
        victim.join()
        if victim.exitcode == 0:
            break
        assert victim.exitcode == -signal.SIGKILL
        kills += 1
        assert whole_files()
        states.add(now := state())
        history.verify(NAME)
        *_, last = [each for each in history.list_changes(NAME) if not each.interrupted]
        assert (last.champion, last.frozen) == (now[0], now[3])
        assert last.what != "pruned" or now == done
        if now != done:
            ACTIONS[action](candidate)
        assert state() == done
        atomic.sweep(artifacts)
        assert leftovers() == []
    renamed = (*at_first[:4], done[4])  # a version that is there or gone, and the pointer as it was
    assert states <= {at_first, renamed, done}
    assert states >= {at_first, done} or action == "prune"
    assert kills >= 3


# The file of the history: a line a change, lost, cut, damaged, on a full disk


@pytest.mark.parametrize("lost", ["version", "version and history", "version and pointer", "history and pointer"])
def test_no_number_comes_back_whatever_else_is_lost(candidate: Contender, lost: str) -> None:
    candidate.publish()
    pointer.rollback(NAME, and_freeze=False)
    if "version" in lost:
        folders.remove(artifact_paths.version(NAME, 3))
    if "history" in lost:
        artifact_paths.history(NAME).unlink()
    if "pointer" in lost:
        artifact_paths.champion(NAME).unlink()
        pointer.promote(NAME, 2)
    again = candidate.publish()
    if lost == "version and history":  # else there is one with these bytes, or its hold is known
        assert again.version == 4
    assert champion()[0] == (again.version or 2)
    assert history.highest_number(NAME, history.list_changes(NAME)) == 3 + (lost == "version and history")


def test_where_no_number_is_left_the_history_is_named(candidate: Contender) -> None:
    path = artifact_paths.history(NAME)
    path.write_bytes(path.read_bytes().replace(b'"versions":[1]', b'"versions":[999999999]'))
    with pytest.raises(DataError, match="has a version 999999999"):
        candidate.publish()
    assert leftovers() == []


def test_a_file_that_is_moved_away_is_begun_anew() -> None:
    artifact_paths.history(NAME).unlink()
    pointer.freeze(NAME)
    assert words_of_changes() == ["frozen"]


DAMAGES = {
    "cut in between": (b"}\n{", b"\n{"),
    "no line of ours": (b"{", b"{}\n{"),
    "two in one": (b"}\n{", b"}{"),
    "a flipped bit": (b'"what"', b'"wh`t"'),
    "no number": (b'"champion":2', b'"champion":1e300'),
    "no number that a version can have": (b"[1]", b"[10000000000000000000000]"),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_named_by_file_and_line_and_no_change_is_made(candidate: Contender, kind: str) -> None:
    path, before = artifact_paths.history(NAME), artifact_paths.champion(NAME).read_bytes()
    path.write_bytes(path.read_bytes().replace(*DAMAGES[kind], 1))
    written = path.read_bytes()
    for command in (f"verify {NAME}", f"history {NAME}", f"rollback {NAME}", f"prune {NAME} --keep 1"):
        refused(4, command, f"{path}, line ")
    with pytest.raises(DataError):
        candidate.publish()
    assert (artifact_paths.champion(NAME).read_bytes(), path.read_bytes()) == (before, written)


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


@pytest.mark.parametrize("room", [(), (10,)])
def test_a_full_disk_leaves_history_and_pointer_as_they_were_and_names_the_file(
    room: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is nearly full takes a part, and says only at the next call why."""
    path, write, left = artifact_paths.history(NAME), os.write, [*room]
    before = path.read_bytes(), artifact_paths.champion(NAME).read_bytes()

    def full(descriptor: int, content: bytes) -> int:
        if not left:
            raise OSError(28, "No space left on device")
        return write(descriptor, content[: left.pop()])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        refused(1, f"freeze {NAME}", path)
    assert (path.read_bytes(), artifact_paths.champion(NAME).read_bytes()) == before
