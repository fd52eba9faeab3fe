"""The store's commands from outside: what they print, how they exit, and that they need neither torch nor a server."""

import json
import subprocess
from pathlib import Path

import pytest

from candidate import Candidate
from tasks import artifact_paths
from test_cli import assert_clear, gradmill

NAME = "linear-regression"


@pytest.fixture(autouse=True)
def _two_versions(candidates: list[Candidate]) -> None:
    for candidate in candidates[:2]:
        candidate.publish()


def answer(*arguments: str) -> dict[str, object]:
    done = gradmill(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, object] = json.loads(done.stdout)
    return document


def marks() -> list[tuple[int, bool, bool]]:
    listed = answer("models", NAME)["models"]
    return [(row["version"], row["champion"], row["held"]) for row in listed[NAME]]  # type: ignore[index]


def test_rollback_holds_and_promote_lifts_the_hold() -> None:
    assert answer("rollback", NAME) == {"schema_version": 1, "name": NAME, "champion": 1, "held": 2}
    assert marks() == [(1, True, False), (2, False, True)]
    page = gradmill("models").stdout
    assert "2 h" in page
    assert NAME in page, "whole names, though a pipe has no width"
    assert answer("promote", NAME, "2") == {"schema_version": 1, "name": NAME, "champion": 2, "changed": True}
    assert marks() == [(1, False, False), (2, True, False)]
    assert "champion already" in gradmill("promote", NAME, "2").stdout


def test_a_second_rollback_with_nothing_before_is_exit_2() -> None:
    answer("rollback", NAME)
    assert_clear(gradmill("rollback", NAME), 2)


@pytest.mark.parametrize(
    "command", [("promote", NAME, "9"), ("verify", NAME, "9"), ("verify", "../models"), ("prune", NAME)]
)
def test_what_does_not_exist_or_is_left_out_is_exit_2(command: tuple[str, ...]) -> None:
    assert_clear(gradmill(*command), 2)


def test_verify_says_what_it_checked_and_a_damaged_version_is_exit_4() -> None:
    assert answer("verify", NAME)["version"] == 2
    path = artifact_paths.version(NAME, 2) / "manifest.json"
    path.chmod(0o644)
    path.write_text(path.read_text().replace("linear", "linaer", 1))
    done = gradmill("verify", NAME)
    assert_clear(done, 4)
    assert "manifest.json" in done.stderr


def test_prune_tells_what_it_kept_and_why() -> None:
    assert answer("prune", NAME, "--keep", "1")["kept"] == {"1": "the version that a rollback goes to"}


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    """A private and a public key in PEM, made by openssl as the README says."""
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-out", private],
        check=True,
        capture_output=True,
    )
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True)
    return private, public


def test_an_attestation_binds_the_manifest_to_the_key(
    candidates: list[Candidate], keys: tuple[Path, Path], tmp_path: Path
) -> None:
    pytest.importorskip("model_signing", reason="model-signing is not installed (extra: attestation)")
    private, public = keys
    signed = candidates[2]
    original = signed.parameters
    signed.parameters = original.model_copy(update={"sign_key": private})
    try:
        number = str(signed.publish().version)
    finally:
        signed.parameters = original
    folder = artifact_paths.version(NAME, int(number))
    assert "attestation" in answer("verify", NAME, number, "--public-key", str(public))["checked"]  # type: ignore[operator]
    assert str(private) not in (folder / "manifest.json").read_text()
    assert_clear(gradmill("verify", NAME, "1", "--public-key", str(public)), 4)  # it was published without one
    assert_clear(gradmill("verify", NAME, number, "--public-key", "/no/such/key"), 2)
    forged = folder / "model.sig"
    forged.chmod(0o644)
    whole = forged.read_bytes()
    for forgery in (whole.replace(b'"payload":"', b'"payload":"A'), whole.replace(b"{", b"<", 1), b""):
        assert forgery != whole
        forged.write_bytes(forgery)
        assert_clear(gradmill("verify", NAME, number, "--public-key", str(public)), 4)


def test_a_missing_signing_key_is_exit_2_before_any_work() -> None:
    assert_clear(gradmill("retrain", NAME, "--sign-key", "/no/such/key"), 2)
