"""Optional proof of who published a version: OpenSSF model signing with a key of one's own, offline.

The signature covers every file of the version folder, ``manifest.json`` among them: gates, metrics and lineage are
bound to the model's bytes.
"""

import importlib.util
from pathlib import Path

from tasks.errors import DataError, UsageError
from tasks.machine.installing import pip_install
from tasks.store.artifact_paths import ATTESTATION


def require(key: Path) -> None:
    """Fail before any work when signing or verifying cannot succeed.

    Raises:
        UsageError: the key file or the package ``model-signing`` is missing.
    """
    if not key.is_file():
        raise UsageError(f"no key file {key}", "an elliptic-curve key in PEM", "see docs/models.md, Attestation")
    if importlib.util.find_spec("model_signing") is None:
        raise UsageError(
            "model-signing is not installed",
            "the extra attestation",
            pip_install("model-signing>=1.1", "pyOpenSSL>=24"),
        )


def sign(folder: Path, private_key: Path) -> None:
    """Write the attestation of a staged version into its folder.

    Raises:
        UsageError: the key is not one that can sign.
    """
    from model_signing import hashing, signing

    ignored = hashing.Config().set_ignored_paths(paths=[folder / ATTESTATION])
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=private_key).set_hashing_config(ignored)
        config.sign(folder, folder / ATTESTATION)
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{private_key}: {error}", "an elliptic-curve private key in PEM", "use another key"
        ) from error


def verify(folder: Path, public_key: Path) -> None:
    """Check a version's attestation.

    Raises:
        DataError: there is none, it was made with another key, or a file has changed since.
    """
    from model_signing import hashing, verifying

    action = "verify with the key that belongs to it; only versions published with --sign-key have one"
    if not (folder / ATTESTATION).is_file():
        raise DataError(f"{folder} has no attestation", f"a file {ATTESTATION}", action)
    ignored = hashing.Config().set_ignored_paths(paths=[folder / ATTESTATION])
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key).set_hashing_config(ignored)
        config.verify(folder, folder / ATTESTATION)
    except Exception as error:  # the package raises ValueError, KeyError and cryptography's own types
        reason = str(error) or type(error).__name__
        raise DataError(f"{folder / ATTESTATION}: {reason}", f"a signature by {public_key}", action) from error
