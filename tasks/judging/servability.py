"""The servability gate: a fresh process without anything of ours can load the file and gets the right answers."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from tasks.errors import DataError
from tasks.judging import gates
from tasks.parameters import Gates
from tasks.records import GateVerdict
from tasks.serving.sample import TOLERANCE
from tasks.store.record import FileRef

# Its code as this process knows it: a newer one, written there under a run, might wait for what is never sent.
PROBE = Path(__file__).with_name("probe.py").read_text()
TIMEOUT_SECONDS = 120


@contextmanager
def fresh_process() -> Iterator["subprocess.Popen[str]"]:
    """What will serve the file: it imports onnxruntime beside the block, and has ended when the block has."""
    command = [sys.executable, "-I", "-c", PROBE]  # -I: neither this folder nor PYTHON* variables
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def servability(
    model: FileRef,
    metadata: Path,
    sample: Path,
    bounds: Gates,
    tolerance: float = TOLERANCE,
    begun: "subprocess.Popen[str] | None" = None,
) -> tuple[GateVerdict, ...]:
    """Run the probe; any fault refuses, latency and memory only where a limit is set.

    ``tolerance`` is what answers may differ by from the sample's; ``begun`` is a fresh process of before.

    Raises:
        DataError: what the probe found in the file are not the bytes that were exported.
    """
    asked = json.dumps([str(model.path), model.sha256, str(metadata), str(sample), tolerance])
    with nullcontext(begun) if begun else fresh_process() as process:
        try:
            answer, said = process.communicate(asked, timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            return (_faults([f"no answer within {TIMEOUT_SECONDS} s"]),)
    if process.returncode:
        last = said.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
        return (_faults(last),)
    found = json.loads(answer)
    if found["sha256"] != model.sha256:
        raise DataError(f"{model.path} has changed: {found['sha256']}", f"SHA-256 {model.sha256}", "gradmill retrain")
    return (
        _faults(found["faults"]),
        gates.judge(
            "latency_ms", found["latency_ms"], maximum=bounds.max_latency_ms, detail="95th percentile, one row"
        ),
        gates.judge("memory_mb", found["peak_mb"], maximum=bounds.max_memory_mb, detail="peak of the serving process"),
    )


def _faults(faults: list[str]) -> GateVerdict:
    checked = "signature, stored sample, batches of 1 and 1,000 in a fresh process"
    return gates.judge("servability", len(faults), maximum=0, detail="; ".join(faults) or checked)
