"""A store that somebody or something has damaged: a retrain says which file, the pointer stays, and promote repairs."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from candidate import Candidate
from command_line import assert_clear, gradmill
from store_state import champion, damage, forget_changes
from tasks.errors import DataError
from tasks.store import artifact_paths, folders, pointer, reading, verification

pytestmark = pytest.mark.usefixtures("two_versions")
NAME = "linear-regression"


def forget_that_others_were_champion() -> None:
    """As if the process had died between the rename of version 1 and the pointer."""
    forget_changes(0)
    path = artifact_paths.champion(NAME)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"previous": None}))


# Damaged versions

DAMAGES: dict[str, tuple[str, bytes, bytes]] = {
    "weights": ("model.onnx", b"", b""),
    "sample": ("sample.npz", b"", b""),
    "card": ("README.md", b"", b""),
    "checksums": ("SHA256SUMS", b"", b""),
    "the metadata's names": ("metadata.json", b'"inputs"', b'"iNputs"'),
    "the metadata's types": ("metadata.json", b'"FP32"', b'"FP33"'),
    "the metadata's tensors": ("metadata.json", b'"features"', b'"fEatures"'),
    "no metadata": ("metadata.json", b"{", b"["),
    "the manifest's files": ("manifest.json", b'"files"', b'"fIles"'),
    "the manifest's model": ("manifest.json", b'"model.onnx"', b'"model.onny"'),
    "the manifest's metrics": ("manifest.json", b'"metrics"', b'"mEtrics"'),
    "no manifest": ("manifest.json", b"{", b"["),
}
FEW = ["weights", "checksums", "no manifest"]


def break_version(number: int, kind: str) -> Path:
    filename, old, new = DAMAGES[kind]
    path = artifact_paths.version(NAME, number) / filename
    before = damage(path, 100)
    if old:
        assert old in before
        path.write_bytes(before.replace(old, new, 1))
    return path


def assert_names(path: Path, action: Callable[[], object]) -> None:
    """The action ends in exit 4 and says which file it is; pointer and Triton's configuration stay as they were."""
    files = (artifact_paths.champion(NAME), artifact_paths.triton_config(NAME))
    before = [each.read_bytes() for each in files]
    with pytest.raises(DataError) as caught:
        action()
    assert str(path) in caught.value.found, caught.value.found
    assert caught.value.exit_code == 4
    assert [each.read_bytes() for each in files] == before
    assert reading.versions(NAME) == [1, 2]


@pytest.mark.parametrize("kind", DAMAGES)
@pytest.mark.parametrize("number", [1, 2])
def test_a_candidate_is_compared_with_no_damaged_version(candidates: list[Candidate], number: int, kind: str) -> None:
    assert_names(break_version(number, kind), candidates[2].publish)


@pytest.mark.parametrize("kind", FEW)
def test_a_candidate_identical_to_a_damaged_champion_says_so(candidates: list[Candidate], kind: str) -> None:
    assert_names(break_version(2, kind), candidates[1].publish)


@pytest.mark.parametrize("kind", FEW)
def test_a_candidate_identical_to_a_damaged_version_that_never_was_champion_does_not_promote_it(
    candidates: list[Candidate], kind: str
) -> None:
    forget_that_others_were_champion()
    assert_names(break_version(1, kind), candidates[0].publish)


def test_a_missing_champion_is_named(candidates: list[Candidate]) -> None:
    folders.remove(artifact_paths.version(NAME, 2))
    before = artifact_paths.champion(NAME).read_bytes()
    for candidate in candidates:
        with pytest.raises(DataError, match=str(artifact_paths.version(NAME, 2))):
            candidate.publish()
    assert artifact_paths.champion(NAME).read_bytes() == before


# Numbers


def test_the_number_of_a_version_whose_folder_was_deleted_never_comes_back(candidates: list[Candidate]) -> None:
    candidates[2].publish()
    pointer.promote(NAME, 2)
    folders.remove(artifact_paths.version(NAME, 3))
    assert candidates[2].publish().version == 4


def test_the_number_of_a_deleted_champion_never_comes_back_once_another_is_promoted(
    candidates: list[Candidate],
) -> None:
    folders.remove(artifact_paths.version(NAME, 2))
    assert pointer.promote(NAME, 1)
    assert champion() == (1, None, [])
    verification.verify(NAME, 1)
    assert candidates[1].publish().version == 3


# The lost history, the lost pointer


def test_a_held_version_stays_unchanged_though_the_history_is_lost(candidates: list[Candidate]) -> None:
    pointer.rollback(NAME)
    artifact_paths.history(NAME).unlink()
    assert candidates[1].publish().outcome == "unchanged"
    assert champion() == (1, None, [2])


def test_without_a_pointer_a_candidate_is_gated_against_the_kept_version(
    candidates: list[Candidate], artifacts: Path
) -> None:
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


def edit(**change: object) -> Callable[[], object]:
    def apply() -> None:
        path = artifact_paths.champion(NAME)
        path.write_text(json.dumps(json.loads(path.read_text()) | change))

    return apply


def without(field: str) -> Callable[[], object]:
    def apply() -> None:
        path = artifact_paths.champion(NAME)
        document = json.loads(path.read_text())
        del document[field]
        path.write_text(json.dumps(document))

    return apply


def stale_configuration() -> None:
    path = artifact_paths.triton_config(NAME)
    path.write_text(path.read_text().replace("versions: [ 2 ]", "versions: [ 1 ]"))


UNFIT: list[tuple[str, object]] = [
    ("version", 1), ("version", "x"), ("version", True), ("model_sha256", "0"),
    ("model_sha256", "0" * 64), ("model_sha256", None), ("manifest_sha256", "0" * 64), ("promoted_at", None),
    ("previous", 0), ("previous", -1), ("previous", 2), ("previous", 7), ("previous", "1"), ("previous", False),
    ("held", 3), ("held", "1"), ("held", {}), ("held", ["1"]), ("held", [2]), ("held", [0]), ("held", [10**22]),
]  # fmt: skip
FIELDS = ["version", "model_sha256", "manifest_sha256", "promoted_at", "previous", "held"]


@pytest.mark.parametrize(
    ("harm", "after"),
    [
        (stale_configuration, (2, 1, [])),
        (lambda: artifact_paths.triton_config(NAME).unlink(), (2, 1, [])),
        (lambda: artifact_paths.triton_config(NAME).write_bytes(b"\xff"), (2, 1, [])),
        *((edit(**{field: value}), (2, 1, [])) for field, value in UNFIT),
        (edit(version=7), (2, 1, [])),
        *((without(field), (2, 1, [])) for field in FIELDS),
        (edit(manifest_sha256="0" * 64, held=[1]), (2, None, [1])),
        (lambda: artifact_paths.champion(NAME).write_bytes(b"\xffnot JSON"), (2, 1, [])),
        (lambda: artifact_paths.champion(NAME).write_text("[]"), (2, 1, [])),
        (lambda: artifact_paths.champion(NAME).write_text(""), (2, 1, [])),
        (lambda: artifact_paths.champion(NAME).unlink(), (2, 1, [])),
    ],
)
def test_promote_of_the_champion_repairs_pointer_and_configuration(
    harm: Callable[[], object], after: tuple[int, int | None, list[int]]
) -> None:
    """What could be read of the pointer is kept; of versions to go back to the history knows."""
    harm()
    with pytest.raises(DataError):
        verification.verify(NAME, 2)
    pointer.promote(NAME, 2)
    verification.verify(NAME, 2)
    assert champion() == after


def test_promote_of_another_version_repairs_a_pointer_that_cannot_be_read() -> None:
    artifact_paths.champion(NAME).write_text("{")
    assert pointer.promote(NAME, 1)
    verification.verify(NAME, 1)
    assert champion() == (1, None, [])


@pytest.mark.parametrize("harm", [lambda: artifact_paths.champion(NAME).write_bytes(b"\xff{"), without("held")])
def test_every_command_on_a_broken_pointer_is_exit_4_until_promote(harm: Callable[[], object]) -> None:
    harm()
    for command in (("models", NAME), ("models",), ("verify", NAME), ("verify", NAME, "1"), ("rollback", NAME)):
        done = gradmill(*command)
        assert_clear(done, 4)
        assert str(artifact_paths.champion(NAME)) in done.stderr
        assert f"gradmill promote {NAME}" in done.stderr
    assert gradmill("promote", NAME, "2").returncode == 0
    assert gradmill("verify", NAME).returncode == 0


@pytest.mark.parametrize("odd", [b"\x80", b"\xc0\xaf", b"\xe2\x82", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff\xfe"])
def test_the_next_start_repairs_a_triton_configuration_that_is_not_utf_8(
    candidates: list[Candidate], odd: bytes
) -> None:
    path = artifact_paths.triton_config(NAME)
    good = path.read_bytes()
    path.write_bytes(good.replace(b"2", odd))
    if odd == b"\x80":  # one process is enough
        assert_clear(gradmill("verify", NAME), 4)
    assert candidates[1].publish().outcome == "unchanged"
    assert path.read_bytes() == good


def test_a_stale_triton_configuration_is_found_and_repaired_by_the_sweep() -> None:
    good = artifact_paths.triton_config(NAME).read_text()
    stale_configuration()
    with pytest.raises(DataError, match=r"config\.pbtxt"):
        verification.verify(NAME, 2)
    pointer.sweep(NAME)
    assert artifact_paths.triton_config(NAME).read_text() == good
