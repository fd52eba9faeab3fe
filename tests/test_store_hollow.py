"""``models/`` is a Triton repository at any time: no folder without a version stays in it, which Triton refuses."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from candidate import Candidate
from tasks.store import artifact_paths, locks, publishing, reading
from tasks.store.run_folder import RunFolder
from victims import fork

NAME = "linear-regression"


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_publication_that_is_cut_off_leaves_nothing_half_done(
    candidates: list[Candidate], fault: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(folder: Path, *_: Any, **__: Any) -> None:
        (folder / "model.onnx").write_bytes(b"half of it")
        raise fault

    def cut_off(candidate: Candidate) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(publishing, "fill", half)
            with pytest.raises(type(fault)):
                candidate.publish()

    cut_off(candidates[0])
    assert not list(artifact_paths.models().iterdir()), "nor a folder without a version"
    assert candidates[0].publish().version == 1
    before = {*artifact_paths.model(NAME).iterdir()}
    cut_off(candidates[1])
    assert {*artifact_paths.model(NAME).iterdir()} == before


def test_whoever_waits_for_the_lock_of_a_folder_that_goes_publishes_into_a_new_one(candidates: list[Candidate]) -> None:
    published: list[int | None] = []
    waiting = threading.Thread(target=lambda: published.append(candidates[0].publish().version))
    with publishing.turn(NAME, to_publish=True):
        waiting.start()
        waiting.join(0.3)
        assert published == []
    waiting.join(60)
    assert published == [1]
    assert reading.versions(NAME) == [1]


def killed_in_its_turn(artifacts: str) -> None:
    """The body of a victim: the first candidate of a name, killed while it is staged."""
    os.environ["GRADMILL_ARTIFACTS"] = artifacts
    with publishing.turn("new", to_publish=True):
        (artifact_paths.model("new") / ".staging-0123456789abcdef").mkdir()
        os.kill(os.getpid(), signal.SIGKILL)


def test_the_next_run_of_any_name_removes_what_others_have_left(two_versions: None, artifacts: Path) -> None:
    victim = fork(killed_in_its_turn, str(artifacts))
    victim.join()
    assert artifact_paths.model("new").is_dir()
    for name in ("empty", "theirs", "busy", "lost+found", f"{NAME}/.staging-0123456789abcdef"):
        artifact_paths.model(name).mkdir()
    (artifact_paths.model("theirs") / "notes.txt").touch()
    with locks.locked(artifact_paths.lock(artifact_paths.model("busy")), "busy"):
        RunFolder.open("a-run", {})
        assert {path.name for path in artifact_paths.models().iterdir()} == {"busy", NAME, "lost+found", "theirs"}
        assert reading.names() == ["busy", NAME, "theirs"], "a model cannot have the other one's name"
    assert not [*artifact_paths.model(NAME).glob(".staging-*")]
