"""``gradmill verify``: a change in a version, in the pointer or in Triton's configuration is found and named."""

import subprocess

import numpy as np
import pytest

from store_state import damage
from tasks.errors import DataError
from tasks.store import artifact_paths, verification

pytestmark = pytest.mark.usefixtures("two_versions")
NAME = "linear-regression"


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
