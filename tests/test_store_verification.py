"""``gradmill verify``: a change in a version, in the pointer or in Triton's configuration is found and named."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from store_state import damage
from tasks.errors import DataError
from tasks.store import artifact_paths, verification

pytestmark = pytest.mark.usefixtures("two_versions")
NAME = "linear-regression"
# Bytes are compared: one bit of each finds what all eight find. Every seventh is at least one of each byte.
BIT_STEPS = pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.slow)])


def test_a_flipped_bit_anywhere_is_found_and_its_file_named() -> None:
    rng = np.random.default_rng(0)
    folder = artifact_paths.version(NAME, 2)
    for path in sorted(folder.iterdir()):
        for _ in range(12):
            before = damage(path, int(rng.integers(path.stat().st_size)), 1 << int(rng.integers(8)))
            with pytest.raises(DataError) as caught:
                verification.verify(NAME, 2)
            assert path.name in caught.value.found, caught.value.found
            assert caught.value.exit_code == 4
            path.write_bytes(before)
    verification.verify(NAME, 2)


def what_is_found_of(path: Path, content: bytes) -> str:
    """What verification says when ``content`` stands in a file of version 2."""
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        verification.verify_version(NAME, 2)
    return caught.value.found


def flipped(content: bytes, bit: int) -> bytes:
    after = bytearray(content)
    after[bit // 8] ^= 1 << bit % 8
    return bytes(after)


@BIT_STEPS
def test_every_bit_of_the_list_of_files_in_the_manifest_names_the_manifest(step: int) -> None:
    """There a changed name looks like one file missing and another one too many."""
    path = artifact_paths.version(NAME, 2) / "manifest.json"
    path.chmod(0o644)
    content = path.read_bytes()
    start = content.index(b'"files"')
    listed = range(start * 8, (content.index(b"}", start) + 1) * 8, step)
    elsewhere = np.random.default_rng(0).choice(len(content) * 8, 1500 // step, replace=False)
    for bit in (*listed, *elsewhere.tolist()):
        assert what_is_found_of(path, flipped(content, bit)).startswith(f"{path}, or its line in SHA256SUMS, has"), bit
    path.write_bytes(content)
    verification.verify_version(NAME, 2)


@BIT_STEPS
def test_every_bit_of_the_checksums_names_them(step: int) -> None:
    """A bit in the manifest's own line may be the manifest's fault as well, so there both are named."""
    path = artifact_paths.version(NAME, 2) / "SHA256SUMS"
    path.chmod(0o644)
    content = path.read_bytes()
    for bit in range(0, len(content) * 8, step):
        found = what_is_found_of(path, flipped(content, bit))
        assert found == f"{path} has changed" or "manifest.json, or its line in SHA256SUMS," in found, bit
    path.write_bytes(content)
    verification.verify_version(NAME, 2)


def test_upper_case_digests_surplus_and_missing_files_are_found() -> None:
    folder = artifact_paths.version(NAME, 2)
    folder.chmod(0o755)
    sums = folder / "SHA256SUMS"
    text = sums.read_text()
    sums.chmod(0o644)
    sums.write_text(text.replace(text[:64], text[:64].upper()))
    subprocess.run(["sha256sum", "--check", "--status", "SHA256SUMS"], cwd=folder, check=True)
    with pytest.raises(DataError, match="SHA256SUMS"):
        verification.verify(NAME, 2)
    sums.write_text(text)
    (folder / "extra").touch()
    with pytest.raises(DataError, match="extra is not listed"):
        verification.verify(NAME, 2)
    (folder / "extra").unlink()
    (folder / "extra").mkdir()
    with pytest.raises(DataError, match="extra is not listed"):
        verification.verify(NAME, 2)
    (folder / "extra").rmdir()
    for filename in ("sample.npz", "manifest.json", "SHA256SUMS"):
        content = (folder / filename).read_bytes()
        (folder / filename).unlink()
        with pytest.raises(DataError, match=rf"{filename} is missing"):
            verification.verify(NAME, 2)
        (folder / filename).write_bytes(content)
    verification.verify(NAME, 2)


def test_a_version_under_the_name_of_another_is_found() -> None:
    """Every file of it is whole."""
    artifact_paths.version(NAME, 1).rename(artifact_paths.version(NAME, 3))
    with pytest.raises(DataError, match=r"manifest\.json is of linear-regression 1"):
        verification.verify(NAME, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 1},
        {"version": 7},
        {"version": "x"},
        {"version": True},
        {"model_sha256": "0" * 64},
        {"model_sha256": None},
        {"manifest_sha256": "0" * 64},
        {"promoted_at": None},
        {"previous": 0},
        {"previous": 2},
        {"previous": 7},
        {"previous": "1"},
        {"previous": False},
        {"held": 3},
        {"held": "1"},
        {"held": ""},
        {"held": {}},
        {"held": ["1"]},
        {"held": [2]},
    ],
)
def test_a_pointer_that_does_not_fit_is_found(change: dict[str, object]) -> None:
    path = artifact_paths.champion(NAME)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=r"champion\.json"):
        verification.verify(NAME, 2)


@pytest.mark.parametrize("field", ["version", "model_sha256", "manifest_sha256", "promoted_at", "previous", "held"])
def test_a_pointer_that_lacks_a_field_is_found(field: str) -> None:
    path = artifact_paths.champion(NAME)
    document = json.loads(path.read_text())
    del document[field]
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"champion\.json"):
        verification.verify(NAME, 2)


@pytest.mark.parametrize("parts", [[1], pytest.param([0, 1, 2], marks=pytest.mark.slow)])  # four hundred verifications
def test_every_byte_that_is_not_utf_8_in_tritons_configuration_is_found(parts: list[int]) -> None:
    """Lone and truncated, overlong, surrogate, too large: in UTF-8 no byte above 127 stands alone."""
    path = artifact_paths.triton_config(NAME)
    good = path.read_bytes()
    longer = [b"\xc0\xaf", b"\xe2\x82", b"\xed\xa0\x80", b"\xf0\x82\x82\xac", b"\xf4\x90\x80\x80", b"\xff\xfe"]
    for odd in (*(bytes([value]) for value in range(128, 256)), *longer):
        for place in [len(good) * part // 2 for part in parts]:
            path.write_bytes(good[:place] + odd + good[place:])
            with pytest.raises(DataError, match=r"config\.pbtxt is not the champion's"):
                verification.verify(NAME, 2)
    path.write_bytes(good)
    verification.verify(NAME, 2)


def test_tritons_own_schema_parses_the_configuration() -> None:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    config = text_format.Parse(artifact_paths.triton_config(NAME).read_text(), model_config_pb2.ModelConfig())
    assert (config.name, config.platform, config.max_batch_size) == (NAME, "onnxruntime_onnx", 0)
    assert [(each.name, list(each.dims)) for each in (*config.input, *config.output)] == [
        ("features", [-1, 2]), ("prediction", [-1]),
    ]  # fmt: skip
    assert config.input[0].data_type == model_config_pb2.DataType.TYPE_FP32
    assert list(config.version_policy.specific.versions) == [2]
