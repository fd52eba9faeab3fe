"""``history.jsonl``: one line a change, appended before the change is made; what is lost, cut or damaged, kills."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from candidate import Candidate
from command_line import assert_clear, typed
from tasks.errors import DataError
from tasks.store import artifact_paths, folders, history, pointer, reading, verification
from victims import fork

pytestmark = pytest.mark.usefixtures("two_versions")
NAME = "linear-regression"


def lines() -> list[bytes]:
    return artifact_paths.history(NAME).read_bytes().splitlines()


def told() -> list[str]:
    return [each.what + " (interrupted)" * each.interrupted for each in history.changes(NAME)]


def test_every_line_says_when_who_what_from_and_to_and_only_lines_are_added() -> None:
    before = lines()
    pointer.rollback(NAME, "a bad day")
    assert lines()[:-1] == before
    last = json.loads(lines()[-1])
    expected = {"what": "rolled back", "before": 2, "champion": 1, "versions": [2], "reason": "a bad day"}
    assert expected.items() <= last.items()
    assert "@" in last["by"]
    assert last["at"].endswith("+00:00")
    assert "2 → 1 f" in typed("history", NAME).stdout
    *_, listed = json.loads(typed("history", "--json").stdout)["history"][NAME]
    assert (listed["before"], listed["champion"]) == (2, 1)
    assert [path.name for path in artifact_paths.model(NAME).glob("*history*")] == ["history.jsonl"]


def test_what_was_replaced_and_the_highest_number_are_derived(candidates: list[Candidate]) -> None:
    candidates[2].publish()
    pointer.rollback(NAME)
    pointer.promote(NAME, 1)
    assert list(history.list_demotions(NAME)) == [1, 3, 2]
    for number in (2, 3):
        folders.remove(artifact_paths.version(NAME, number))
    assert history.highest_number(NAME, history.changes(NAME)) == 3


@pytest.mark.parametrize("lost", ["history", "pointer", "both"])
def test_no_number_comes_back_whatever_else_is_lost(candidates: list[Candidate], lost: str) -> None:
    candidates[2].publish()
    pointer.rollback(NAME, freeze=False)
    if lost != "both":  # else the folder alone tells it
        folders.remove(artifact_paths.version(NAME, 3))
    if lost != "pointer":
        artifact_paths.history(NAME).unlink()
    if lost != "history":
        artifact_paths.champion(NAME).unlink()
        pointer.promote(NAME, 2)
    assert history.highest_number(NAME, history.changes(NAME)) == 3


def test_where_no_number_is_left_the_history_is_named(candidates: list[Candidate]) -> None:
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
    assert told() == ["frozen"]


DAMAGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "cut in between": lambda there: [there[0][:40], there[1]],
    "no line of ours": lambda there: [b"{}", *there],
    "two in one": lambda there: [there[0] + there[1]],
    "a flipped bit": lambda there: [there[0].replace(b'"what"', b'"wh`t"'), there[1]],
    "no number": lambda there: [there[0], there[1].replace(b'"champion":2', b'"champion":1e300')],
    "no number that a version can have": lambda there: [there[0].replace(b"[1]", b"[10000000000000000000000]")],
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_is_named_by_file_and_line_and_no_change_is_made(candidates: list[Candidate], kind: str) -> None:
    path, before = artifact_paths.history(NAME), artifact_paths.champion(NAME).read_bytes()
    path.write_bytes(b"".join(line + b"\n" for line in DAMAGES[kind](lines())))
    written = path.read_bytes()
    for command in (("verify", NAME), ("history", NAME), ("rollback", NAME), ("prune", NAME, "--keep", "1")):
        done = typed(*command)
        assert_clear(done, 4)
        assert f"{path}, line " in done.stderr
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
    assert told() == ["published", "published", "frozen"]
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
    history.note(NAME, history.of_user("pruned"), (1, 2), reading.pointer(NAME))
    assert told()[-1] == "pruned (interrupted)"
    folders.remove(artifact_paths.version(NAME, 1))
    assert told()[-1] == "pruned"


def test_a_change_that_was_made_is_not_told_as_interrupted_where_the_lines_after_it_are_lost(
    candidates: list[Candidate],
) -> None:
    candidates[2].publish()
    artifact_paths.history(NAME).write_bytes(b"".join(line + b"\n" for line in lines()[:-1]))  # as from an older copy
    assert told() == ["published", "published"]
    pointer.freeze(NAME)
    assert told() == ["published", "published", "frozen"]
    assert list(history.list_demotions(NAME)) == [1]


# Kills

CALLS = ("write", "fsync", "replace")


def killed_before(artifacts: str, action: str, number: int) -> None:
    """The body of a victim that does ``action`` and kills itself before its ``number``-th write, sync or rename."""
    os.environ["GRADMILL_ARTIFACTS"] = artifacts
    left = iter(range(number))

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return called

    for name in CALLS:
        setattr(os, name, dying(getattr(os, name)))
    ACTIONS[action]()


ACTIONS: dict[str, Callable[[], Any]] = {
    "freeze": lambda: pointer.freeze(NAME),
    "rollback": lambda: pointer.rollback(NAME),
}


def state() -> tuple[object, ...]:
    now = reading.champion(NAME)
    assert now is not None
    return now.version, now.frozen


@pytest.mark.slow  # every victim is a process
@pytest.mark.parametrize("action", ACTIONS)
def test_a_kill_at_any_moment_leaves_a_history_that_verifies_and_does_not_lie(action: str) -> None:
    kills, seen = 0, set()
    while True:
        pointer.promote(NAME, 2)
        pointer.freeze(NAME, frozen=False)
        before, length = state(), len(told())
        victim = fork(killed_before, str(artifact_paths.root()), action, kills)
        victim.join()
        if victim.exitcode == 0:
            break
        kills += 1
        history.verify(NAME)
        *_, last = [each for each in history.changes(NAME) if not each.interrupted]
        assert (last.champion, last.frozen) == state()
        seen.add((state() != before, len(told()) - length))
        now = told()
        if state() == before:
            ACTIONS[action]()
        assert told()[: len(now)] == now, "what was told stays told"
    assert {(False, 0), (False, 1), (True, 1)} <= seen
