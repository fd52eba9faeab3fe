"""What readers believe of a damaged store: nothing. Exit 4, the file's name, and what to do."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import load_model_from_string, numpy_helper

from candidate import Candidate, seal
from command_line import assert_clear, gradmill
from tasks.batch.plan import read_version
from tasks.errors import DataError
from tasks.fitting import splits
from tasks.judging.champion import compare_with_published
from tasks.judging.parity import judge_servability
from tasks.parameters import Gates
from tasks.store import artifact_paths, pointer, reading, verification
from tasks.store.reading import Tolerances, Trained
from tasks.store.record import FileRef

pytestmark = pytest.mark.usefixtures("two_versions")
NAME = "linear-regression"


def file(name: str, number: int = 2) -> Path:
    """A file of a version, writable."""
    path = artifact_paths.version(NAME, number) / name
    path.parent.chmod(0o755)
    path.chmod(0o644)
    return path


def seal_all(folder: Path, **changes: Any) -> None:
    """Write the manifest with ``changes``, and digests that fit whatever lies in the folder."""
    manifest = json.loads((folder / "manifest.json").read_text()) | changes
    names = [path.name for path in sorted(folder.iterdir()) if path.name not in ("manifest.json", "SHA256SUMS")]
    manifest["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    seal(folder, manifest)
    digests = manifest["files"] | {"manifest.json": hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()}
    sums = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    (folder / "SHA256SUMS").write_text(sums)


# The model


def flip_signs(path: Path) -> None:
    """As if the sign bits of the weights had been flipped: still a model that onnxruntime runs."""
    proto = load_model_from_string(path.read_bytes())
    for weights in proto.graph.initializer:
        array = numpy_helper.to_array(weights)
        if array.dtype == np.float32:
            weights.raw_data = (-array).tobytes()
    path.write_bytes(proto.SerializeToString())


def append_a_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize("harm", [flip_signs, append_a_byte, Path.unlink, make_a_folder, make_a_fifo])
def test_predict_never_uses_a_damaged_champion(harm: Callable[[Path], None]) -> None:
    path = file("model.onnx")
    harm(path)
    done = gradmill("predict", "--name", NAME)
    assert_clear(done, 4)
    assert str(path) in done.stderr
    assert f"gradmill verify {NAME}" in done.stderr


def test_a_model_that_was_replaced_with_its_checksums_does_not_fit_the_pointer(candidates: list[Candidate]) -> None:
    file("model.onnx").write_bytes(candidates[2].exported.onnx.path.read_bytes())
    seal_all(artifact_paths.version(NAME, 2))
    with pytest.raises(DataError, match=r"champion\.json does not fit .*model\.onnx"):
        reading.load(NAME, None)


@pytest.mark.slow
@pytest.mark.usefixtures("on_server")
@pytest.mark.parametrize("filename", ["model.onnx", "sample.npz"])
def test_what_does_not_load_though_every_digest_fits_is_exit_4(filename: str, candidates: list[Candidate]) -> None:
    path = file(filename)
    path.write_bytes(b"replaced with its checksums")
    seal_all(path.parent)
    digests = {
        f"{key}_sha256": hashlib.sha256((path.parent / name).read_bytes()).hexdigest()
        for key, name in (("model", "model.onnx"), ("manifest", "manifest.json"))
    }
    edit_pointer(**digests)
    commands: list[tuple[str, ...]] = [("verify", NAME), ("demo", NAME)]
    if filename == "model.onnx":
        commands += [("predict", "--name", NAME), ("evaluate", NAME), ("retrain", NAME, "--seed", "7", "--no-predict")]
    for command in commands:
        done = gradmill(*command)
        assert_clear(done, 4)
        assert str(path) in done.stderr
    assert reading.versions(NAME) == [1, 2]


def test_no_candidate_is_judged_that_has_changed_since_it_was_exported(
    candidates: list[Candidate], tmp_path: Path
) -> None:
    exported = candidates[2].exported
    changed = FileRef(path=tmp_path / "model.onnx", sha256=exported.onnx.sha256)
    changed.path.write_bytes(exported.onnx.path.read_bytes() + b"\0")
    with pytest.raises(DataError, match=r"model\.onnx has changed"):
        judge_servability(changed, exported.metadata.path, exported.sample.path, Gates())
    with pytest.raises(DataError, match=r"model\.onnx has changed"):
        compare_with_published(NAME, changed, candidates[2].prepared, Gates(), candidates[2].parameters.training)


# The data


@pytest.mark.slow
def test_a_flipped_bit_in_the_stored_test_split_is_named_and_nothing_is_predicted(
    candidates: list[Candidate], server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", server)
    path = next(artifact_paths.dataset("synthetic-linear").glob("test.*"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 0x80
    path.write_bytes(content)
    done = gradmill("predict", "--name", NAME)
    assert_clear(done, 4)
    assert str(path) in done.stderr
    prepared = candidates[0].prepared
    damaged = prepared.model_copy(update={"test": FileRef(path=path, sha256=prepared.test.sha256)})
    with pytest.raises(DataError, match=str(path)):
        splits.load_split(damaged, "test")


# Labels, as a classifier has them

LABELS = ["cat", "dog", "owl"]


@pytest.fixture
def labels() -> Path:
    """The labels of version 2, as if it were a classifier."""
    folder = file("manifest.json").parent
    (folder / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
    dataset = json.loads((folder / "manifest.json").read_text())["dataset"]
    seal_all(folder, dataset=dataset | {"class_names": LABELS})
    assert read_version(folder).labels == LABELS
    return folder / "labels.txt"


@pytest.mark.parametrize(
    "content",
    [b"cbt\ndog\nowl\n", b"dog\ncat\nowl\n", b"cat\ndog\n", b"cat\ndog\nowl\nemu\n", b"", b"c\xe4t\ndog\nowl\n",
     b"cat\ncat\nowl\n", None],
)  # fmt: skip
@pytest.mark.parametrize("sealed", [False, True])
def test_damaged_labels_name_nothing(labels: Path, content: bytes | None, sealed: bool) -> None:
    """Not even with checksums that fit: the manifest knows the names too."""
    if content is None:
        labels.unlink()
    else:
        labels.write_bytes(content)
    if sealed:
        seal_all(labels.parent)
    with pytest.raises(DataError, match=r"labels\.txt") as caught:
        read_version(labels.parent)
    assert str(labels.parent) in caught.value.found


# The recipe

FORGED: dict[str, dict[str, Any]] = {
    "another column": {"recipe": {"kind": "columns", "columns": [{"name": name} for name in ("x1", "x2", "x3")]}},
    "pixels": {"recipe": {"kind": "pixels", "shape": [28, 28], "scale": 1 / 255}},
    "another task": {"dataset": {"task": "classification", "class_names": ["cat", "dog"]}},
    "another version": {"version": 1},
}


@pytest.mark.slow
@pytest.mark.usefixtures("on_server")  # it is found once the run has begun, which would start a server each
@pytest.mark.parametrize("kind", FORGED)
def test_a_manifest_that_is_not_of_the_model_is_named_though_its_checksums_fit(kind: str) -> None:
    """A recipe that makes other inputs, or a task of other outputs, than the model's own signature has."""
    folder = file("manifest.json").parent
    manifest = json.loads((folder / "manifest.json").read_text())
    forged = FORGED[kind]
    if "dataset" in forged:
        forged = {"dataset": manifest["dataset"] | forged["dataset"]}
        (folder / "labels.txt").write_text("cat\ndog\n")
    seal_all(folder, **forged)
    for action in (lambda: verification.verify_version(NAME, 2), lambda: read_version(folder)):
        with pytest.raises(DataError, match=rf"{folder}/(metadata|manifest)\.json"):
            action()
    done = gradmill("predict", "--name", NAME)
    assert_clear(done, 4)
    assert str(folder) in done.stderr


@pytest.mark.parametrize(
    "recipe",
    [
        {"kind": "columns", "columns": [{"name": "x1"}, {"name": "x1"}]},
        {"kind": "columns", "columns": [{"name": "x1"}, {"name": ""}]},
        {"kind": "pixels", "shape": [28, 0], "scale": 1.0},
        {"kind": "pixels", "shape": [28, -28], "scale": 1.0},
        {"kind": "pixels", "shape": [28, 28], "scale": 0.0},
    ],
)
def test_a_recipe_that_cannot_be_is_named(recipe: dict[str, Any]) -> None:
    folder = file("manifest.json").parent
    seal_all(folder, recipe=recipe)
    with pytest.raises(DataError, match=rf"{folder}/manifest\.json is not as gradmill writes it: recipe"):
        reading.manifest(NAME, 2)


# Documents


def without(*fields: str) -> Callable[[dict[str, Any]], str]:
    def edited(manifest: dict[str, Any]) -> str:
        inner = manifest
        for field in fields[:-1]:
            inner = inner[field]
        del inner[fields[-1]]
        return json.dumps(manifest)

    return edited


MANIFESTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "no metrics": without("metrics"),
    "no loss": without("metrics", "test_loss"),
    "no split": without("dataset", "test"),
    "no model": without("files", "model.onnx"),
    "a text for a number": lambda manifest: json.dumps(manifest | {"version": "2"}),
    "a fraction for a number": lambda manifest: json.dumps(manifest | {"version": 2.0}),
    "a negative number": lambda manifest: json.dumps(manifest | {"version": -2}),
    "a path for a number": lambda manifest: json.dumps(manifest | {"version": "../x"}),
    "a run out of the folder": lambda manifest: json.dumps(manifest | {"run": "../../x"}),
    "deeply nested": lambda manifest: json.dumps(manifest)[:-1] + ',"x":' + "[" * 100_000 + "]" * 100_000 + "}",
    "a key twice": lambda manifest: json.dumps(manifest)[:-1] + ',"version":2}',
    "a list": lambda manifest: json.dumps([manifest]),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_that_is_none_is_named(kind: str) -> None:
    """Even with checksums that fit."""
    path = file("manifest.json")
    seal(path.parent, MANIFESTS[kind](json.loads(path.read_text())))
    for action in (lambda: reading.manifest(NAME, 2), lambda: reading.load(NAME, 2), lambda: read_version(path.parent)):
        with pytest.raises(DataError) as caught:
            action()
        assert str(path) in caught.value.found
    if kind in ("no metrics", "deeply nested"):
        assert_clear(gradmill("models"), 4)


def test_nested_facts_that_another_version_of_gradmill_does_not_note_are_none() -> None:
    path = file("manifest.json")
    noted = json.loads(path.read_text())
    seal(path.parent, noted | {"trained": {"num_examples": 7}, "tolerances": {}})
    read = reading.manifest(NAME, 2)
    assert (read.trained, read.tolerances) == (Trained(num_examples=7), Tolerances())


def test_a_manifest_keeps_every_parameter_and_figure_that_it_was_given(candidates: list[Candidate]) -> None:
    manifest = reading.manifest(NAME, 2)
    places: dict[str, Any] = {
        "sign_key": True,
        "data": {"source", "new_recipe", "accept_data"},
    }  # and what is done once: in no document
    written = candidates[1].parameters.model_dump(mode="json", exclude=places)
    assert manifest.parameters.model_dump(mode="json") == written
    assert manifest.metrics.model_dump(mode="json") == candidates[1].evaluated.metrics


def edit_pointer(**change: object) -> None:
    path = artifact_paths.champion(NAME)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


@pytest.mark.parametrize("number", [-1, 0, 99, 1.0, True, "2", "../x"])
def test_a_pointer_to_no_version_is_exit_4(number: object) -> None:
    edit_pointer(version=number)
    before = artifact_paths.champion(NAME).read_bytes()
    for action in (
        lambda: reading.champion(NAME),
        lambda: reading.load(NAME, None),
        lambda: pointer.rollback(NAME),
    ):
        with pytest.raises(DataError, match=r"champion\.json") as caught:
            action()
        assert caught.value.exit_code == 4
    for command in ("models", "rollback", "verify") if number == 99 else ("models",):
        assert_clear(gradmill(command, NAME), 4)
    assert artifact_paths.champion(NAME).read_bytes() == before
    assert pointer.promote(NAME, 2)
    assert reading.load(NAME, None)[0] == 2


def test_what_a_newer_version_has_noted_in_pointer_and_history_is_kept() -> None:
    edit_pointer(frozen=True, note={"by": "a newer version"})
    path = artifact_paths.history(NAME)
    newer = json.dumps(json.loads(path.read_text().splitlines()[-1]) | {"what": "blessed", "frozen": True, "x": 1})
    path.write_text(f"{path.read_text()}{newer}\n")
    pointer.rollback(NAME)
    pointer.promote(NAME, 2)
    written = json.loads(artifact_paths.champion(NAME).read_text())
    assert (written["version"], written["frozen"], written["note"]) == (2, True, {"by": "a newer version"})
    assert newer in path.read_text().splitlines()
