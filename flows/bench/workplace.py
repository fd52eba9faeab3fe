"""Where commands are measured: an artifacts folder of their own, with a Prefect of its own."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.parameters import FASHION_MNIST
from tasks.store import artifact_paths

UP_SECONDS = 120.0


def run(command: list[str], folder: Path) -> None:
    """Run a command there.

    Raises:
        RuntimeError: it fails.
    """
    done = subprocess.run(command, env=environment(folder), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr}")


def environment(folder: Path) -> dict[str, str]:
    """Of a command there: nothing of the user's own Prefect, and no mirror."""
    ours = {"GRADMILL_ARTIFACTS": str(folder), "PREFECT_HOME": str(folder / "prefect")}
    return {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "GRADMILL_"))} | ours


@contextmanager
def made() -> Iterator[Path]:
    """An artifacts folder with the book's raw files, and a Prefect of its own."""
    with tempfile.TemporaryDirectory(prefix=".bench-start-", dir=artifact_paths.root()) as name:
        raw = artifact_paths.dataset(FASHION_MNIST) / "raw"
        shutil.copytree(raw, Path(name) / "datasets" / FASHION_MNIST / "raw", copy_function=os.link)
        yield Path(name)


def empty(folder: Path) -> None:
    """Leave as little as a first run finds: raw files, and the server's history."""
    for each in ("models", "runs", "predictions", ".stages", "datasets/synthetic-linear"):
        for path in (folder / each).glob("**/"):
            path.chmod(0o755)  # versions are read-only
        shutil.rmtree(folder / each, ignore_errors=True)
    for split in folder.glob("datasets/*/*.safetensors"):
        split.unlink()


@contextmanager
def up(folder: Path) -> Iterator[None]:
    """``gradmill up`` at work on the folder, its server at a port of its own."""
    with tempfile.TemporaryFile() as log:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "flows", "up", "--port", str(port)]
        process = subprocess.Popen(command, env=environment(folder), stdout=log, stderr=log)
        try:
            until = time.monotonic() + UP_SECONDS
            while not (folder / ".prefect" / "service.json").exists():
                if process.poll() is not None or time.monotonic() > until:
                    log.seek(0)
                    raise RuntimeError(f"gradmill up: {log.read().decode(errors='replace')}")
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait()
