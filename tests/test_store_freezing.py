"""Frozen names, models that are judged only, and the history of who changed what."""

import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from candidate import Candidate
from flows.cli import app, train
from flows.pages import run_names
from flows.pages.report import Outcome, RetrainReport
from flows.pages.run_pages import name_retrain, retrain_page
from store_state import age_demotions, champion
from tasks.errors import GateFailed
from tasks.store import artifact_paths, atomic, history, housekeeping, pointer, reading, verification
from tasks.store.page import render_markdown
from victims import fork

NAME = "linear-regression"


@pytest.fixture
def candidate(candidates: list[Candidate]) -> Iterator[Candidate]:
    """The third, which a test may ask for otherwise."""
    parameters = candidates[2].parameters
    yield candidates[2]
    candidates[2].parameters = parameters


def strictly(candidate: Candidate) -> None:
    """Ask for what no candidate keeps."""
    bounds = candidate.parameters.gates.model_copy(update={"max_loss_rise": 1e-6})
    candidate.parameters = candidate.parameters.model_copy(update={"gates": bounds})


def is_frozen() -> bool:
    return json.loads(artifact_paths.champion(NAME).read_text())["frozen"] is True


def report(candidate: Candidate) -> RetrainReport:
    made = Outcome(candidate.run, candidate.parameters, candidate.trained, candidate.evaluated, candidate.exported)
    made.published = candidate.publish()
    return made.report()


def test_a_frozen_name_is_judged_and_nothing_is_published_until_it_is_unfrozen(
    candidate: Candidate, two_versions: None
) -> None:
    assert pointer.freeze(NAME) == (2, True)
    assert pointer.freeze(NAME) == (2, False)
    judged = candidate.publish()
    assert (judged.outcome, judged.version) == ("judged", None)
    assert [gate.name for gate in judged.gates] == ["champion_signature", "champion_loss"]
    assert (reading.versions(NAME), champion()) == ([1, 2], (2, 1, []))
    assert pointer.freeze(NAME, frozen=False) == (2, True)
    assert candidate.publish().version == 3


def test_a_frozen_name_s_worse_candidate_is_refused(candidate: Candidate, two_versions: None) -> None:
    pointer.freeze(NAME)
    strictly(candidate)
    with pytest.raises(GateFailed, match="champion_loss"):
        candidate.publish()


def test_a_frozen_name_s_champion_made_anew_is_unchanged(candidates: list[Candidate], two_versions: None) -> None:
    pointer.freeze(NAME)
    assert candidates[1].publish().outcome == "unchanged"


def test_a_rollback_freezes_unless_told_otherwise_and_a_promotion_changes_nothing_of_that(two_versions: None) -> None:
    pointer.rollback(NAME, freeze=False)
    assert not is_frozen()
    pointer.promote(NAME, 2)
    assert not is_frozen()
    pointer.rollback(NAME)
    assert is_frozen()
    pointer.promote(NAME, 2)
    assert is_frozen()
    artifact_paths.champion(NAME).write_text("{")
    pointer.promote(NAME, 2)
    assert is_frozen(), "the history knows it where the pointer is lost"


def test_without_publication_the_store_stays_as_it_is_byte_for_byte(candidate: Candidate, two_versions: None) -> None:
    (artifact_paths.model(NAME) / ".staging-0123456789abcdef").mkdir()
    before = {path: path.is_file() and path.read_bytes() for path in artifact_paths.models().rglob("*")}
    candidate.parameters = candidate.parameters.model_copy(update={"publish": False})
    judged = candidate.publish()
    assert (judged.outcome, judged.version) == ("judged", None)
    assert [gate.name for gate in judged.gates] == ["champion_signature", "champion_loss"]
    assert {path: path.is_file() and path.read_bytes() for path in artifact_paths.models().rglob("*")} == before
    candidate.parameters = candidate.parameters.model_copy(update={"name": "never-kept"})
    assert candidate.publish().outcome == "judged"
    assert not artifact_paths.model("never-kept").exists()
    strictly(candidate)
    candidate.parameters = candidate.parameters.model_copy(update={"name": NAME})
    with pytest.raises(GateFailed):
        candidate.publish()


def test_a_verdict_has_the_figures_of_the_champion_before_and_says_what_is_held(
    candidates: list[Candidate], two_versions: None
) -> None:
    before = candidates[1].evaluated.metrics["test_loss"]
    found = report(candidates[2])
    mine = found.metrics["test_loss"]
    assert f"| test loss | {mine:.4g} | {before:.4g} |" in render_markdown(retrain_page(found))
    assert "| figure | version 3 | version 2, the champion before, when published |" in render_markdown(
        retrain_page(found)
    )
    assert name_retrain(found) == (f"published version 3, loss {mine:.4g}", f"{mine:.4g} published")
    pointer.rollback(NAME)
    assert "Held, for they were rolled back from: 3." in render_markdown(retrain_page(found))


def test_a_retry_s_verdict_takes_the_place_of_the_first_one_s() -> None:
    begun = "houses concise 2026-11-24T03:00"
    refused = run_names.with_verdict(begun, "refused by test_loss 0.5")
    assert run_names.with_verdict(refused, "published version 2") == f"{begun}: published version 2"
    verdicts = ["0.844 published", "-1.2e-05 refused", "inf refused", "verdict:refused", "drift:drift", "0.31 drift"]
    others = ["gradmill", "model:houses", "2 weeks", "published"]
    assert [tag for tag in [*verdicts, *others] if run_names.OF_VERDICT.match(tag)] == verdicts


def test_every_summary_says_that_a_name_is_frozen(
    candidates: list[Candidate], two_versions: None, capsys: pytest.CaptureFixture[str]
) -> None:
    pointer.freeze(NAME)
    for made, outcome in ((candidates[2], "judged"), (candidates[1], "unchanged")):
        found = report(made)
        assert (found.outcome, found.frozen, found.champion) == (outcome, True, 2)
        assert (found.version, found.model_path is None) == ((None, True) if outcome == "judged" else (2, False))
        assert f"gradmill unfreeze {NAME}" in render_markdown(retrain_page(found))
        train.show_retrain(found, owes_predictions=False)
        told = capsys.readouterr().out
        assert f"\n{outcome}" in told
        assert f"\nfrozen      version 2 stays the champion of {NAME} until gradmill unfreeze {NAME}\n" in told
    assert app.run(["models"]) == 0
    listed = capsys.readouterr().out
    assert "2 * f" in listed
    assert "gradmill unfreeze" in listed


# The history


def told() -> list[tuple[str, tuple[int, ...], int | None, bool, str]]:
    return [(each.what, each.versions, each.champion, each.frozen, each.reason) for each in history.changes(NAME)]


def test_the_history_tells_who_changed_what_and_why(
    candidate: Candidate, two_versions: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOGNAME", "ada")
    monkeypatch.setattr("flows.server.connection.announce", print)
    assert app.run(["rollback", NAME, "--reason", "[red]a bad day\x1b[2J"]) == 0
    assert app.run(["unfreeze", NAME]) == 0
    assert app.run(["rollback", NAME]) == 2, "nothing was done"
    candidate.publish()
    age_demotions()
    assert app.run(["prune", NAME, "--keep", "1"]) == 0
    assert told() == [
        ("published", (1,), 1, False, ""),
        ("published", (2,), 2, False, ""),
        ("rolled back", (2,), 1, True, "[red]a bad day\x1b[2J"),
        ("unfrozen", (1,), 1, False, ""),
        ("published", (3,), 3, False, ""),
        ("pruned", (2,), 3, False, ""),
    ]
    ada = f"ada@{socket.gethostname()}"
    by = [each.by for each in history.changes(NAME)]
    assert by == ["candidate-0", "candidate-1", ada, ada, "candidate-2", ada]
    capsys.readouterr()
    assert app.run(["history", NAME]) == 0
    assert "[red]a bad day\\x1b[2J" in capsys.readouterr().out, "neither markup nor an order to the terminal"
    assert app.run(["history", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)["history"][NAME]
    assert [each["what"] for each in document] == [what for what, *_ in told()]
    for command in (["freeze", NAME, "--reason", "x" * 501], ["history", "no-such-name"]):
        assert app.run(command) == 2


def test_what_was_noted_and_not_done_is_told_as_interrupted(two_versions: None) -> None:
    """As if a kill had come between history and pointer."""
    path = artifact_paths.champion(NAME)
    before = path.read_bytes()
    pointer.promote(NAME, 1)
    path.write_bytes(before)
    assert [each.interrupted for each in history.changes(NAME)] == [False, False, True]
    pointer.freeze(NAME)
    assert [each.interrupted for each in history.changes(NAME)] == [False, False, True, False]
    assert champion() == (2, 1, [])


# Kills


ACTIONS: dict[str, Callable[[], Any]] = {
    "promote": lambda: pointer.promote(NAME, 1),
    "rollback": lambda: pointer.rollback(NAME),
    "freeze": lambda: pointer.freeze(NAME),
    "prune": lambda: housekeeping.prune(NAME, 1),
}


def killed_before_a_rename(artifacts: str, action: str, number: int) -> None:
    """The body of a victim that does ``action`` and kills itself before it renames for the ``number``-th time."""
    os.environ["GRADMILL_ARTIFACTS"] = artifacts
    renames = iter(range(number))

    def dying(rename: Callable[..., None]) -> Callable[..., None]:
        def renamed(*arguments: Any, **options: Any) -> None:
            if next(renames, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(*arguments, **options)

        return renamed

    os.replace, os.rename = dying(os.replace), dying(os.rename)
    ACTIONS[action]()


def state() -> tuple[object, ...]:
    return *champion(), is_frozen(), reading.versions(NAME)


@pytest.mark.slow  # every victim is a process
@pytest.mark.parametrize("action", ACTIONS)
def test_a_kill_before_any_rename_leaves_a_whole_store_and_a_history_that_does_not_lie(
    action: str, candidate: Candidate, two_versions: None, artifacts: Path, tmp_path: Path
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
        victim = fork(killed_before_a_rename, str(artifacts), action, kills)
        victim.join()
        if victim.exitcode == 0:
            break
        kills += 1
        now = reading.champion(NAME)
        assert now is not None
        verification.verify_pointer(NAME, now)
        for number in reading.versions(NAME):
            verification.verify_version(NAME, number)
        assert state() in (at_first, done)
        states.add(str(state()))
        *_, last = [each for each in history.changes(NAME) if not each.interrupted]
        assert (last.champion, last.frozen) == (now.version, now.frozen)
        assert last.what != "pruned" or state() == done
        if state() != done:
            ACTIONS[action]()
        assert state() == done
        atomic.sweep(artifacts)
        assert not [path for path in artifacts.rglob(".*") if path.name.startswith((".gradmill-", ".pruned"))]
    assert kills >= 1, "the history is no rename: test_store_history.py kills there"
    assert str(at_first) in states
