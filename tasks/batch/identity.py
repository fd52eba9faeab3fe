"""What identifies a job: its input, its parameters and the model's bytes."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from tasks.errors import DataError
from tasks.parameters import PredictParameters
from tasks.store import atomic
from tasks.store.predictions import JobInput

SAMPLED_BLOCKS = 16
BLOCK_BYTES = 64 * 1024
ID_CHARACTERS = 16


class Fingerprint(NamedTuple):
    """What tells one state of a file from another."""

    path: str
    bytes: int
    mtime_ns: int
    digest: str


def fingerprints(files: list[Path], full_digest: bool) -> list[Fingerprint]:
    """Fingerprint every file, large ones by sampled blocks unless ``full_digest``.

    Raises:
        DataError: a file cannot be read.
    """
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda file: _fingerprint(file, full_digest), files))


def _fingerprint(path: Path, full_digest: bool) -> Fingerprint:
    try:
        facts = path.stat()
        whole = full_digest or facts.st_size <= SAMPLED_BLOCKS * BLOCK_BYTES
        digest = atomic.file_digest(path) if whole else _sampled_digest(path, facts.st_size)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", "a readable file", "see its permissions") from error
    return Fingerprint(str(path), facts.st_size, facts.st_mtime_ns, digest)


def _sampled_digest(path: Path, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for index in range(SAMPLED_BLOCKS):
            stream.seek((size - BLOCK_BYTES) * index // (SAMPLED_BLOCKS - 1))
            digest.update(stream.read(BLOCK_BYTES))
    return digest.hexdigest()


def describe(path: str, prints: list[Fingerprint]) -> JobInput:
    """What _job.json says of the input."""
    return JobInput(path=path, digest=_digest(prints), files=len(prints), bytes=sum(each.bytes for each in prints))


def _digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def request_id(source: JobInput, parameters: PredictParameters, provider: str, batch_size: int) -> str:
    """What was asked for, whichever version answers: input, name and all parameters that decide the output."""
    document = {
        "input": source.digest,
        "name": parameters.name,
        "version": parameters.version,
        "columns": parameters.columns,
        "shard_rows": parameters.shard_rows,
        "batch_size": batch_size,
        "provider": provider,
    }
    return _digest(document)[:ID_CHARACTERS]


def job_id(request: str, model_sha256: str) -> str:
    """The first 16 hex digits of the SHA-256 of everything that decides a job's output."""
    return _digest({"request": request, "model": model_sha256})[:ID_CHARACTERS]
