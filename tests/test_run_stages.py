"""Single stages at their edges, without Prefect."""

import json
import re
import subprocess
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch

from candidate import Candidate, plain, synthetic
from tasks.errors import GateFailed, TrainingDiverged, UsageError
from tasks.evaluate import evaluate
from tasks.fitting import splits
from tasks.fitting.progress import Watch
from tasks.judging import gates
from tasks.judging.parity import judge_parity
from tasks.networks.training import EpochMetrics
from tasks.parameters import Gates, Training
from tasks.records import PreparedDataset
from tasks.store import artifact_paths, reading
from tasks.store.run_folder import RunFolder
from tasks.train import train


@pytest.fixture
def run() -> RunFolder:
    return RunFolder.open("test-run", {})


@pytest.fixture
def prepared(run: RunFolder) -> PreparedDataset:
    return synthetic(run)


def linear(**options: Any) -> Training:
    return Training.model_validate({"model": "linear-regression"} | options)


# Train


@pytest.mark.parametrize("loss", [np.inf, np.nan])
def test_a_validation_loss_that_is_no_number_is_divergence_too(run: RunFolder, loss: float) -> None:
    measured = EpochMetrics(train={"loss": 1.0}, test={"loss": 1.0}, validation={"loss": loss})
    with pytest.raises(TrainingDiverged, match=rf"validation loss {loss} in epoch 1"):
        Watch(linear(validation=0.5, patience=3), run).to_the_end(iter([measured]))


def test_early_stopping_keeps_the_best_epoch_and_the_gates_judge_that_one(run: RunFolder) -> None:
    """From a learning rate at which the loss soon rises again; half the examples are held out."""
    prepared = synthetic(run, synthetic_noise=1.0, num_examples=60)
    training = Training.model_validate(
        {"model": "linear-regression", "num_epochs": 200, "lr": 0.1, "validation": 0.5, "patience": 3}
    )
    trained = plain(train)(run, prepared, training)
    losses = [point.validation_loss for point in trained.learning_curve]
    assert len(losses) < 200
    assert trained.kept_epoch == 1 + losses.index(min(losses)) == len(losses) - 3
    again = plain(train)(
        run, prepared, training.model_copy(update={"num_epochs": trained.kept_epoch, "patience": None})
    )
    kept, expected = (safetensors.numpy.load_file(each.weights.path) for each in (trained, again))
    np.testing.assert_array_equal(kept["W"], expected["W"])


@pytest.mark.parametrize("options", [{}, {"patience": 2}])
@pytest.mark.parametrize(("share", "held_out", "left"), [(0.0001, 0, 1000), (0.009, 9, 991), (0.999, 999, 1)])
def test_a_validation_share_that_leaves_too_few_examples_is_exit_2_and_says_how_many(
    run: RunFolder, prepared: PreparedDataset, share: float, held_out: int, left: int, options: dict[str, int]
) -> None:
    with pytest.raises(UsageError) as caught:
        plain(train)(run, prepared, linear(validation=share, **options))
    assert f"of 1000 training examples holds out {held_out} and leaves {left}" in caught.value.found
    assert caught.value.expected == "at least 10 of each"
    assert "a share such as 0.1" in caught.value.action


# Gates


@pytest.mark.parametrize(
    ("value", "bounds", "passes"),
    [
        (0.7, {"above": 0.7}, False),
        (0.7001, {"above": 0.7, "maximum": 1.0}, True),
        (1.0, {"above": 0.7, "maximum": 1.0}, True),
        (0.5, {"below": 0.5}, False),
        (0.4999, {"below": 0.5}, True),
        (float("nan"), {"maximum": 1.0}, False),
        (float("inf"), {"above": 0.0}, False),
    ],
)
def test_gates_have_the_books_strict_and_inclusive_bounds(value: float, bounds: Any, passes: bool) -> None:
    assert gates.judge("gate", value, **bounds).passed is passes


def test_a_refused_candidate_leaves_its_evidence(run: RunFolder, prepared: PreparedDataset) -> None:
    trained = plain(train)(run, prepared, linear(num_epochs=1, lr=0.001))
    with pytest.raises(GateFailed, match="test_loss") as caught:
        plain(evaluate)(run, prepared, trained, linear(), Gates())
    assert isinstance(caught.value, AssertionError)
    evidence = json.loads(run.file("evaluation.json").read_text())
    assert [gate["name"] for gate in evidence["gates"] if not gate["passed"]] == ["test_loss", "parameter_error"]
    assert run.file("regression.png").is_file()


def test_parity_gate_refuses_a_model_with_one_wrong_weight(candidates: list[Candidate]) -> None:
    candidate = candidates[0]
    from tasks.parameters import Device
    from tasks.serving.runtime import open_session, run_model

    weights = safetensors.torch.load_file(candidate.trained.weights.path)
    weights["W"][0] += 1e-4
    test = splits.load_split(candidate.prepared, "test")
    session = open_session(candidate.exported.onnx.path.read_bytes(), Device.CPU)
    found, expected = run_model(session, test.X.numpy()), (test.X @ weights["W"] + weights["b"]).numpy()
    (verdict,) = judge_parity("parity", [(found, expected)], Gates().max_parity_error, float(test.y.std()))
    assert not verdict.passed


@pytest.mark.parametrize(("error", "passes"), [(0.0, True), (5e-7, True), (2e-6, False)])
def test_parity_of_a_target_that_never_changes_allows_for_rounding(error: float, passes: bool) -> None:
    truth = np.full(20, 4.2, np.float32)
    found = {"prediction": np.full(20, 4.2 + error, np.float32)}
    (verdict,) = judge_parity(
        "parity", [(found, truth[:, None])], Gates().max_parity_error, float(truth.std(dtype=np.float64))
    )
    assert verdict.passed is passes


# Export


# Publish


@pytest.mark.slow
def test_the_card_and_the_manifest_of_an_early_stopped_run_say_what_was_used(run: RunFolder) -> None:
    """Its name holds what looks like the end of the front matter."""
    prepared = synthetic(run, num_examples=2000)
    candidate = Candidate(run, prepared, 0, "a---b", num_epochs=200, validation=0.1, patience=3, schedule="cosine")
    folder = candidate.publish().model.path.parent
    trained, losses = candidate.trained, [point.validation_loss or 0.0 for point in candidate.trained.learning_curve]
    assert len(losses) < 200
    shown = (folder / "README.md").read_text()
    assert re.search("^# a---b, version 1$", shown, re.MULTILINE)
    for row in (
        "| training examples | 1800, and 200 held out to watch |",
        "| test examples | 2000 |",
        f"| epochs | {len(losses)} of at most 200, with patience 3 |",
        f"| weights | of epoch {trained.kept_epoch}, whose validation loss was the smallest |",
        f"| validation loss | {min(losses):.4g} |",
        "| lr | 0.03, cosine |",
    ):
        assert row in shown
    assert "the newest version that passed every gate" in shown
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["metrics"]["validation_loss"] == min(losses)
    used = {"num_examples": 1800, "num_validation": 200, "num_epochs": len(losses), "kept_epoch": trained.kept_epoch}
    assert manifest["trained"] == used | {"steps": None, "collinear": []}  # which only own data have


def test_a_whole_version_that_a_kill_kept_from_becoming_champion_is_promoted(candidates: list[Candidate]) -> None:
    candidate = candidates[0]
    candidate.publish()
    artifact_paths.champion("linear-regression").unlink()  # as if killed between the rename and the pointer
    published = candidate.publish()
    assert (published.outcome, published.version) == ("published", 1)
    pointer = reading.champion("linear-regression")
    assert pointer is not None
    assert pointer.version == 1


def test_a_version_folder_verifies_with_sha256sum_and_is_read_only(candidates: list[Candidate]) -> None:
    published = candidates[0].publish()
    folder = published.model.path.parent
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)
    listed = {line.split()[1] for line in (folder / "SHA256SUMS").read_text().splitlines()}
    assert listed == {path.name for path in folder.iterdir()} - {"SHA256SUMS"}
    assert all(path.stat().st_mode & 0o222 == 0 for path in (folder, *folder.iterdir()))


def test_what_a_killed_publication_left_is_swept(candidates: list[Candidate]) -> None:
    leftover = artifact_paths.model("linear-regression") / ".staging-0123456789abcdef"
    leftover.mkdir(parents=True)
    (leftover / "model.onnx").write_bytes(b"half")
    candidates[0].publish()
    assert not leftover.exists()
