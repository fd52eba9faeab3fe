"""The history as a file that only grows: what older versions of Gradmill add, what is lost or changed, kills."""

import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from candidate import Candidate
from flows.cli import app
from tasks.errors import DataError
from tasks.store import artifact_paths, folders, history, journal, pointer, reading, verification
from tasks.store.changed import Change
from victims import fork

pytestmark = pytest.mark.usefixtures("two_versions")
NAME = "linear-regression"


def lines() -> list[bytes]:
    return artifact_paths.journal(NAME).read_bytes().splitlines()


def what() -> list[str]:
    return [each.what + " (interrupted)" * each.interrupted for each in history.changes(NAME)]


def test_every_line_says_when_who_what_from_and_to_and_names_the_line_before() -> None:
    before = lines()
    pointer.rollback(NAME, "a bad day")
    assert lines()[:-1] == before, "it only grows"
    last = json.loads(lines()[-1])
    assert {
        "what": "rolled back",
        "before": 2,
        "champion": 1,
        "versions": [2],
        "reason": "a bad day",
    }.items() <= last.items()
    assert "@" in last["by"]
    assert last["at"].endswith("+00:00")
    chain = ["", *(hashlib.sha256(line).hexdigest() for line in lines())]
    assert [json.loads(line)["past"] for line in lines()] == chain[:-1]
    assert reading.history(NAME).journal == chain[-1]


def test_the_listing_has_the_champion_from_what_to_what(capsys: pytest.CaptureFixture[str]) -> None:
    pointer.rollback(NAME)
    assert app.run(["history", NAME]) == 0
    assert "2 → 1 f" in capsys.readouterr().out
    assert app.run(["history", "--json"]) == 0
    *_, last = json.loads(capsys.readouterr().out)["history"][NAME]
    assert (last["before"], last["champion"]) == (2, 1)


def test_what_an_older_version_notes_is_told_and_taken_into_the_file() -> None:
    """It knows only ``.history.json``, and keeps there what it does not know."""
    path = artifact_paths.history(NAME)
    document = json.loads(path.read_text())
    theirs = {
        "at": "2026-11-26T12:00:00+00:00", "what": "frozen", "versions": [2], "champion": 2, "frozen": True,
        "by": "bob", "reason": "", "interrupted": False,
    }  # fmt: skip
    path.write_text(json.dumps(document | {"changes": [*document["changes"], theirs]}))
    edited = json.loads(artifact_paths.champion(NAME).read_text()) | {"frozen": True}
    artifact_paths.champion(NAME).write_text(json.dumps(edited))
    assert what() == ["published", "published", "frozen"]
    assert len(lines()) == 2
    journal.verify(NAME)
    pointer.freeze(NAME, frozen=False)
    assert what() == ["published", "published", "frozen", "unfrozen"]
    assert [json.loads(line)["by"] for line in lines()][2] == "bob"
    assert len(lines()) == len(reading.history(NAME).changes) == 4


def test_a_file_that_is_moved_away_is_begun_anew_with_what_is_known_beside_it() -> None:
    artifact_paths.journal(NAME).unlink()
    with pytest.raises(DataError, match="lacks the line"):
        journal.verify(NAME)
    pointer.freeze(NAME)
    assert what() == ["published", "published", "frozen"]
    assert len(lines()) == 3
    journal.verify(NAME)


@pytest.mark.parametrize(
    "harm",
    [
        lambda there: there[:-1],
        lambda there: there[1:],
        lambda there: [there[1], there[0]],
        lambda there: [there[0].replace(b"published", b"forgotten"), there[1]],
        lambda there: [there[0], there[1].replace(b"candidate-1", b"candidate-9")],
        lambda there: [b"{}", *there],
    ],
    ids=["no last", "no first", "swapped", "first changed", "last changed", "one more"],
)
def test_verify_finds_what_is_lost_or_changed(
    harm: Callable[[list[bytes]], list[bytes]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["verify", NAME]) == 0
    assert "history" in capsys.readouterr().out
    path = artifact_paths.journal(NAME)
    path.write_bytes(b"".join(line + b"\n" for line in harm(lines())))
    assert app.run(["verify", NAME]) == 4
    assert str(path) in capsys.readouterr().err


def test_half_a_line_is_not_read_and_the_next_takes_its_place() -> None:
    path = artifact_paths.journal(NAME)
    with path.open("ab") as stream:
        stream.write(b'{"at": "2026-11-26T12:0')
    assert what() == ["published", "published"]
    verification.verify(NAME, 2)
    pointer.freeze(NAME)
    assert what() == ["published", "published", "frozen"]
    journal.verify(NAME)


def test_a_full_disk_leaves_the_file_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    before, write = lines(), os.pwrite
    room = iter([10])

    def full(descriptor: int, content: bytes, offset: int) -> int:
        if (left := next(room, None)) is None:
            raise OSError(28, "No space left on device")
        return write(descriptor, content[:left], offset)

    change = Change.model_validate(json.loads(before[-1]) | {"versions": (2,)})
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            journal.append(NAME, [change])
    assert lines() == before
    journal.verify(NAME)


@pytest.mark.parametrize("most", [0, 7])
def test_a_disk_that_takes_only_a_part_of_a_line_at_a_time_gets_all_of_it_or_nothing(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, write = lines(), os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda descriptor, content, offset: write(descriptor, content[:most], offset) if most else 0
    )
    change = Change.model_validate(json.loads(before[-1]) | {"versions": (2,)})
    if most:
        journal.append(NAME, [change])
        assert len(lines()) == len(before) + 1
    else:
        with pytest.raises(OSError, match="No space"):
            journal.append(NAME, [change])
        assert lines() == before
    assert len(journal.read(NAME)) == len(lines())


def test_a_pruning_of_which_some_was_done_is_not_told_as_interrupted() -> None:
    history.note(NAME, history.of_user("pruned"), (1, 2), reading.pointer(NAME))
    assert what()[-1] == "pruned (interrupted)"
    folders.remove(artifact_paths.version(NAME, 1))
    assert what()[-1] == "pruned"


# Kills

CALLS = ("pwrite", "fsync", "replace")


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
def test_a_kill_at_any_moment_leaves_a_history_that_verifies_and_does_not_lie(
    action: str, candidates: list[Candidate], artifacts: Path
) -> None:
    kills, seen = 0, set()
    while True:
        pointer.promote(NAME, 2)
        pointer.freeze(NAME, frozen=False)
        before, length = state(), len(what())
        victim = fork(killed_before, str(artifacts), action, kills)
        victim.join()
        if victim.exitcode == 0:
            break
        kills += 1
        journal.verify(NAME)
        *_, last = [each for each in history.changes(NAME) if not each.interrupted]
        assert (last.champion, last.frozen) == state()
        seen.add((state() != before, len(what()) - length))
        told = what()
        if state() == before:
            ACTIONS[action]()
        assert what()[: len(told)] == told, "what was told stays told"
        journal.verify(NAME)
    assert {(False, 0), (False, 1), (True, 1)} <= seen
