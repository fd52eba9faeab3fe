"""``gradmill models --runs``: what retrains came to, whether published, refused, judged only or never ended."""

import json
from typing import Any

import pytest

import flows.cli.app
from candidate import Candidate
from tasks.records import ChampionGates, GateVerdict, PublishedModel
from tasks.store import run_folder, state
from tasks.store.run_folder import RunFolder

NAME = "linear-regression"
REFUSED = GateVerdict(name="champion_loss", value=2.0, maximum=1.0, passed=False, detail="")


def noted(candidate: Candidate, day: int, name: str = NAME, loss: float | None = 0.5, **training: Any) -> RunFolder:
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


def decided(run: RunFolder, candidate: Candidate, outcome: Any, version: int | None) -> None:
    record = PublishedModel(outcome=outcome, name=NAME, version=version, model=candidate.exported.onnx)
    run.note(stages={"publish": record.model_dump(mode="json")})


@pytest.fixture
def candidate(candidates: list[Candidate]) -> Candidate:
    return candidates[0]


def listed(capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, Any]]:
    assert flows.cli.app.run(["models", "--runs", "--json", *options]) == 0
    runs: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["runs"]
    return runs


def test_every_outcome_of_a_run_is_told(candidate: Candidate, capsys: pytest.CaptureFixture[str]) -> None:
    decided(noted(candidate, 1), candidate, "published", 1)
    noted(candidate, 2, lr=0.5).note(stages={"publish": ChampionGates(gates=(REFUSED,)).model_dump(mode="json")})
    decided(noted(candidate, 3), candidate, "judged", None)
    noted(candidate, 4, loss=None)
    going = noted(candidate, 5, name="other")
    noted(candidate, 6).note(stages={"unchanged": {"outcome": "unchanged", "version": 1, "detail": "of these rows"}})
    with going.in_use():
        found = [(each["name"], each["outcome"], each["detail"], each["version"]) for each in listed(capsys)]
        assert flows.cli.app.run(["models", NAME, "--runs"]) == 0
    assert found == [
        (NAME, "unchanged", "of these rows", 1), ("other", "running", "", None), (NAME, "unfinished", "train", None),
        (NAME, "judged", "", None), (NAME, "refused", "champion_loss", None), (NAME, "published", "", 1),
    ]  # fmt: skip
    page = capsys.readouterr().out
    for words in (
        "published version 1",
        "unchanged: version 1",
        "refused by champion_loss",
        "lr 0.5, seed 0",
        "interrupted in train",
    ):
        assert words in page
    assert "other" not in page


def test_the_best_come_first_and_those_without_the_figure_last(
    candidate: Candidate, capsys: pytest.CaptureFixture[str]
) -> None:
    for day, loss in enumerate((0.3, None, 0.1, 0.2), 1):
        noted(candidate, day, loss=loss)
    assert [each["test_loss"] for each in listed(capsys, "--sort", "loss")] == [0.1, 0.2, 0.3, None]
    assert [each["test_loss"] for each in listed(capsys, "--sort", "accuracy")] == [0.2, 0.1, None, 0.3], "as they came"
    noted(candidate, 5, name="another", loss=9.0)
    names = [each["name"] for each in listed(capsys, "--sort", "loss")]
    assert names == ["another", NAME, NAME, NAME, NAME], "losses of other data are no better"
    assert flows.cli.app.run(["models", "--sort", "loss"]) == 2
    assert flows.cli.app.run(["models", "--runs", "--sort", "beauty"]) == 2


def test_of_each_name_the_newest_retrains_are_read_as_far_as_one_that_was_judged(
    candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def days(name: str, newest: int) -> list[str]:
        return [run.run[6:8] for run in state.read(newest=newest).names[name].runs]

    decided(noted(candidate, 1, name="quiet"), candidate, "published", 1)
    decided(noted(candidate, 2), candidate, "published", 1)
    for day in (3, 4, 5):
        noted(candidate, day)
    RunFolder.open("20261106T030000-predict-linear-regression-00000004", {"name": NAME, "batch_size": 4})
    assert days("quiet", 1) == ["01"], "however many there are of other names"
    assert (days(NAME, 1), days(NAME, 9)) == (["05", "04", "03", "02"], ["05", "04", "03", "02"])
    decided(noted(candidate, 7), candidate, "judged", None)
    assert days(NAME, 1) == ["07"]
    monkeypatch.setattr(run_folder, "LARGEST", 100)
    found = state.read()
    assert not [run for each in found.names.values() for run in each.runs]
    assert "has over 100 bytes" in found.faults[0].found


def test_a_name_without_a_run_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert flows.cli.app.run(["models", "nobody", "--runs"]) == 2
    assert "no run of nobody" in capsys.readouterr().err
    assert flows.cli.app.run(["models", "--runs"]) == 0
    assert "--no-publish" in capsys.readouterr().out
