"""What identifies a job: its input, its parameters and the model's bytes."""

import hashlib
import json
from typing import Any

from tasks.parameters import PredictParameters
from tasks.serving import sessions
from tasks.store.fingerprints import Fingerprint
from tasks.store.predictions import JobInput

ID_CHARACTERS = 16
USUAL = {sessions.CPU: 1024, sessions.CUDA: 16384}  # a batch size that nobody asked for, as jobs of before call it


def describe(path: str, prints: list[Fingerprint]) -> JobInput:
    """What _job.json says of the input."""
    return JobInput(path=path, digest=_digest(prints), files=len(prints), bytes=sum(each.bytes for each in prints))


def _digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def request_id(source: JobInput, parameters: PredictParameters, provider: str) -> str:
    """What was asked for, whichever version answers: input, name and all parameters that decide the output."""
    document = {
        "input": source.digest,
        "name": parameters.name,
        "version": parameters.version,
        "columns": parameters.columns,
        "shard_rows": parameters.shard_rows,
        "batch_size": parameters.batch_size or USUAL[provider],
        "provider": provider,
    }
    own = {"id_columns": parameters.id_columns, "unknown": parameters.unknown}
    if own != {"id_columns": (), "unknown": "reject"}:  # jobs of before there were these keep their names
        document |= own
    if parameters.write != "all":
        document["write"] = parameters.write
    return _digest(document)[:ID_CHARACTERS]


def job_id(request: str, model_sha256: str) -> str:
    """The first 16 hex digits of the SHA-256 of everything that decides a job's output."""
    return _digest({"request": request, "model": model_sha256})[:ID_CHARACTERS]
