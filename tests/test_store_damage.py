"""A store that somebody or something has damaged: nobody believes it, what is damaged is named, promote repairs."""

import copy
import json
import re
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from candidate import Contender
from command_line import assert_clear, gradmill, plant, refused
from documents import load
from store_state import champion, damage, forget_changes, point, seal_all
from tasks.batch.plan import read_version
from tasks.errors import DataError
from tasks.judging.parity import judge_servability, start_fresh_process
from tasks.parameters import Gates
from tasks.serving.runtime import TOLERANCE
from tasks.store import artifact_paths, folders, model_folder, pointer, verification
from tasks.store.documents import Document

pytestmark = pytest.mark.usefixtures("two_versions")
NAME = "linear-regression"


def file(name: str, number: int = 2) -> Path:
    """A file of a version, writable."""
    path = artifact_paths.version(NAME, number) / name
    path.parent.chmod(0o755)
    path.chmod(0o644)
    return path


def manifest() -> Any:
    return load(file("manifest.json"))


# The model


def become_another(path: Path) -> None:
    """A model that onnxruntime runs: that of version 1."""
    path.write_bytes(file(path.name, 1).read_bytes())


@pytest.mark.parametrize(
    "harm", [become_another, Path.unlink, *(partial(plant, kind=kind) for kind in ("folder", "fifo"))]
)
def test_predict_never_uses_a_damaged_champion(harm: Callable[[Path], object]) -> None:
    path = file("model.onnx")
    harm(path)
    assert_clear(gradmill("predict", "--name", NAME), 4, path, f"gradmill verify {NAME}")


def test_a_model_that_was_replaced_with_its_checksums_does_not_fit_the_pointer() -> None:
    become_another(path := file("model.onnx"))
    seal_all(path.parent)
    with pytest.raises(DataError, match=r"champion\.json does not fit .*model\.onnx"):
        model_folder.load_model(NAME, None)


@pytest.mark.slow
@pytest.mark.usefixtures("on_server")
@pytest.mark.parametrize(
    ("filename", "commands"),
    [("model.onnx", ["verify", "demo", "predict --name", "evaluate"]), ("sample.npz", ["verify", "demo"])],
)
def test_what_does_not_load_though_every_digest_fits_is_exit_4(filename: str, commands: list[str]) -> None:
    path = file(filename)
    path.write_bytes(b"replaced with its checksums")
    seal_all(path.parent)
    pointer.promote(NAME, 2)  # which takes what fits its checksums
    for command in commands:
        assert_clear(gradmill(*command.split(), NAME), 4, path)


def test_no_candidate_is_judged_that_has_changed_since_it_was_exported(
    candidates: list[Contender], tmp_path: Path
) -> None:
    exported, made = candidates[2].exported, copy.copy(candidates[2])
    changed = exported.onnx.model_copy(update={"path": tmp_path / "model.onnx"})
    changed.path.write_bytes(exported.onnx.path.read_bytes() + b"\0")
    made.exported = exported.model_copy(update={"onnx": changed})
    with pytest.raises(DataError, match=r"model\.onnx has changed"):
        made.publish()
    with pytest.raises(DataError, match=r"model\.onnx has changed"), start_fresh_process() as process:
        judge_servability(process, changed, exported.metadata.path, exported.sample.path, Gates(), TOLERANCE)


# Labels, as a classifier has them


@pytest.mark.parametrize(
    "content", [b"dog\ncat\nowl\n", b"cat\ndog\n", b"cat\ndog\nowl\nemu\n", b"", b"c\xe4t\ndog\nowl\n", None]
)
def test_damaged_labels_name_nothing(content: bytes | None) -> None:
    """Not even with checksums that fit: the manifest knows the names too."""
    labels = file("manifest.json").with_name("labels.txt")
    labels.write_text("cat\ndog\nowl\n")
    seal_all(labels.parent, dataset=manifest()["dataset"] | {"class_names": ["cat", "dog", "owl"]})
    assert read_version(labels.parent).labels == ["cat", "dog", "owl"]
    labels.unlink()
    if content is not None:
        labels.write_bytes(content)
    seal_all(labels.parent)
    with pytest.raises(DataError, match=rf"{labels.parent}.*labels\.txt"):
        read_version(labels.parent)


# Manifests, with checksums that fit


def columns(*names: str) -> dict[str, Any]:
    return {"kind": "columns", "columns": [{"name": name} for name in names]}


FORGED: dict[str, dict[str, Any]] = {
    "another column": {"recipe": columns("x1", "x2", "x3")},
    "a column twice": {"recipe": columns("x1", "x1")},
    "pixels": {"recipe": {"kind": "pixels", "shape": [28, 28], "scale": 1 / 255}},
    "pixels of no scale": {"recipe": {"kind": "pixels", "shape": [28, 28], "scale": 0.0}},
    "another task": {"dataset": {"task": "classification", "class_names": ["cat", "dog"]}},
    "another version": {"version": 1},
    "a run out of the folder": {"run": "../../x"},
    "no metrics": {"metrics": None},
    "no loss": {"metrics": {}},
    "a loss below zero": {"metrics": {"test_loss": -1.0}},
    "a figure that is text": {"metrics": {"test_loss": 1.0, "weights": [1.0, 2.0], "bias": "low"}},
    "a figure too few": {"metrics": {"test_loss": 1.0, "r2": 0.5}},
    "parameters without data": {"parameters": {"training": {"model": NAME, "implementation": "concise"}}},
    "no split": {"dataset": {"test": None}},
    "no model": {"files": {}},
    **{
        f"a split at {path}": {"dataset": {"test": {"path": path, "sha256": "0" * 64}}}
        for path in ("/etc/passwd", "../elsewhere", "datasets/../../elsewhere")
    },
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_manifest_that_is_none_or_not_of_the_model_is_named_though_its_checksums_fit(kind: str) -> None:
    """Another recipe makes other inputs, and another task other outputs, than the model's own signature has."""
    folder, forged = artifact_paths.version(NAME, 2), dict(FORGED[kind])
    if "dataset" in forged:
        (folder / "labels.txt").write_text("cat\ndog\n")
        forged["dataset"] = manifest()["dataset"] | forged["dataset"]
    seal_all(folder, **forged)
    for action in (lambda: verification.verify_version(NAME, 2), lambda: read_version(folder)):
        with pytest.raises(DataError, match=rf"{folder}/(metadata|manifest)\.json"):
            action()


def test_what_a_newer_version_has_noted_in_pointer_and_history_is_kept() -> None:
    point(frozen=True, note={"by": "a newer version"})
    path = artifact_paths.history(NAME)
    newer = json.dumps(json.loads(path.read_text().splitlines()[-1]) | {"what": "blessed", "frozen": True, "x": 1})
    path.write_text(f"{path.read_text()}{newer}\n")
    pointer.rollback(NAME)
    pointer.promote(NAME, 2)
    written = load(artifact_paths.champion(NAME))
    assert (written["version"], written["frozen"], written["note"]) == (2, True, {"by": "a newer version"})
    assert newer in path.read_text().splitlines()
    point(without="frozen")
    assert champion() == (2, 1, [])


# gradmill verify


def test_a_flipped_bit_anywhere_is_found_and_its_file_named() -> None:
    rng = np.random.default_rng(0)
    folder = artifact_paths.version(NAME, 2)
    for path in sorted(folder.iterdir()):
        for _ in range(12):
            before = damage(path, int(rng.integers(path.stat().st_size)), 1 << int(rng.integers(8)))
            with pytest.raises(DataError, match=path.name):
                verification.verify(NAME, 2)
            path.write_bytes(before)
    verification.verify(NAME, 2)


def upper_case(path: Path) -> None:
    """Which ``sha256sum --check`` takes."""
    text = path.read_text()
    path.write_text(text[:64].upper() + text[64:])
    subprocess.run(["sha256sum", "--check", "--status", path.name], cwd=path.parent, check=True)


@pytest.mark.parametrize(
    ("name", "harm", "said"),
    [
        ("SHA256SUMS", upper_case, "SHA256SUMS"),
        ("extra", Path.touch, "extra is not listed"),
        ("extra", Path.mkdir, "extra is not listed"),
        *((name, Path.unlink, f"{name} is missing") for name in ("sample.npz", "manifest.json", "SHA256SUMS")),
    ],
)
def test_upper_case_digests_surplus_and_missing_files_are_found(
    name: str, harm: Callable[[Path], object], said: str
) -> None:
    file("SHA256SUMS")
    harm(artifact_paths.version(NAME, 2) / name)
    refused(4, f"verify {NAME} 2", said)


def test_a_version_under_the_name_of_another_is_found() -> None:
    """Every file of it is whole."""
    artifact_paths.version(NAME, 1).rename(artifact_paths.version(NAME, 3))
    refused(4, f"verify {NAME} 3", "manifest.json is of linear-regression 1")


def test_tritons_own_schema_parses_the_configuration() -> None:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    expected = """
        name: "linear-regression" platform: "onnxruntime_onnx"
        input { name: "features" data_type: TYPE_FP32 dims: [-1, 2] }
        output { name: "prediction" data_type: TYPE_FP32 dims: [-1] }
        version_policy { specific { versions: [2] } }
    """
    texts = artifact_paths.triton_config(NAME).read_text(), expected
    found, wanted = (text_format.Parse(text, model_config_pb2.ModelConfig()) for text in texts)
    assert found == wanted


# Damaged versions

DAMAGED = ["model.onnx", "sample.npz", "README.md", "SHA256SUMS", "metadata.json", "manifest.json"]


@pytest.mark.parametrize("filename", DAMAGED)
@pytest.mark.parametrize(("number", "made"), [(1, 2), (2, 2), (2, 1), (1, 0)])
def test_a_candidate_is_judged_beside_no_damaged_version_nor_published_in_its_place(
    candidates: list[Contender], number: int, made: int, filename: str
) -> None:
    """A new one, one that is the champion, and one whose version a kill seems to have kept from being champion."""
    if made == 0:
        forget_changes(0)
        point(previous=None)
    damage(path := artifact_paths.version(NAME, number) / filename, 100)
    refuse(candidates[made], path)
    assert model_folder.list_versions(NAME) == [1, 2]


def refuse(candidate: Contender, path: Path) -> None:
    """It is not published, what is damaged is named, and neither pointer nor Triton's configuration change."""
    files = (artifact_paths.champion(NAME), artifact_paths.triton_config(NAME))
    before = [each.read_bytes() for each in files]
    with pytest.raises(DataError, match=re.escape(str(path))) as caught:
        candidate.publish()
    assert caught.value.exit_code == 4
    assert [each.read_bytes() for each in files] == before


def test_a_missing_champion_is_named(candidates: list[Contender]) -> None:
    folders.remove(artifact_paths.version(NAME, 2))
    for candidate in candidates:
        refuse(candidate, artifact_paths.version(NAME, 2))


# The lost pointer


def test_without_a_pointer_a_candidate_is_gated_against_the_kept_version(candidates: list[Contender]) -> None:
    """As if the very first publication had died between the rename and the pointer."""
    folders.remove(artifact_paths.version(NAME, 2))
    for path in (artifact_paths.champion(NAME), artifact_paths.history(NAME), artifact_paths.triton_config(NAME)):
        path.unlink()
    published = candidates[1].publish()
    assert (published.outcome, published.version) == ("published", 2)
    assert [gate.name for gate in published.gates] == ["champion_signature", "champion_loss"]
    assert "of version 1" in published.gates[1].detail
    verification.verify(NAME, 2)


# What promote repairs


def stale_configuration() -> None:
    path = artifact_paths.triton_config(NAME)
    path.write_text(path.read_text().replace("versions: [ 2 ]", "versions: [ 1 ]"))


UNFIT: list[tuple[str, Any]] = [
    ("version", 1), ("version", 7), ("version", 0),
    ("model_sha256", "0"), ("model_sha256", "0" * 64), ("manifest_sha256", "0" * 64), ("promoted_at", None),
    ("previous", 0), ("previous", 2), ("previous", 7), ("held", 3), ("held", [2]), ("held", [0]), ("frozen", "no"),
]  # fmt: skip
FIELDS = ["version", "model_sha256", "manifest_sha256", "promoted_at", "previous", "held"]
BYTES = [b"\xffnot JSON", b"[]", b""]


@pytest.mark.parametrize(
    ("harm", "previous", "held"),
    [
        (stale_configuration, 1, []),
        (lambda: artifact_paths.triton_config(NAME).unlink(), 1, []),
        (lambda: artifact_paths.triton_config(NAME).write_bytes(b"\xff"), 1, []),
        *((partial(point, **{field: value}), 1, []) for field, value in UNFIT),
        *((partial(point, without=field), 1, []) for field in FIELDS),
        (partial(point, manifest_sha256="0" * 64, held=[1]), None, [1]),
        *((lambda each=each: artifact_paths.champion(NAME).write_bytes(each), 1, []) for each in BYTES),
        (lambda: artifact_paths.champion(NAME).unlink(), 1, []),
    ],
)
def test_promote_of_the_champion_repairs_pointer_and_configuration(
    harm: Callable[[], object], previous: int | None, held: list[int]
) -> None:
    """What could be read of the pointer is kept; of versions to go back to the history knows."""
    harm()
    with pytest.raises(DataError):
        verification.verify(NAME, 2)
    pointer.promote(NAME, 2)
    verification.verify(NAME, 2)
    assert champion() == (2, previous, held)


def test_a_stale_triton_configuration_is_found_and_repaired_by_the_sweep() -> None:
    good = artifact_paths.triton_config(NAME).read_text()
    stale_configuration()
    refused(4, f"verify {NAME}", "config.pbtxt")
    pointer.sweep(NAME)
    assert artifact_paths.triton_config(NAME).read_text() == good


# Documents of any kind


class SmallDocument(Document):
    """A document."""

    version: int
    held: tuple[int, ...] = ()
    loss: float | None = None


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"null", b"{}", b'{"version": "1"}', b'{"version": 1.0}', b'{"version": true}',
        b'{"version": 1, "version": 2}', b'{"version": 1, "x": {"a": 1, "a": 1}}', b'{"version": 1, "loss": NaN}',
        b'{"version": 1, "loss": 1e999}', b'{"version": 1, "loss": 1' + 400 * b"0" + b"}",
        b'{"version": 1, "held": [1, null]}', b'{"version": 1, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"version": 1, "x": ' + b"[" * 500 + b"]" * 500 + b"}", b'{"version": 1', b'\xff\xfe{"version": 1}',
    ],
    ids=lambda content: repr(content[:24]),
)  # fmt: skip
def test_what_is_not_such_a_document_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"small\.json"):
        SmallDocument.read(path)
