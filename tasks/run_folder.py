"""``artifacts/runs/<run>/``: the evidence of one run, whatever became of it."""

import json
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tasks import artifact_paths, atomic, waiting
from tasks.records import Record


class RunFolder(Record):
    """A run's folder; ``run.json`` in it grows with every stage."""

    path: Path
    force: bool = False

    @classmethod
    def open(cls, run: str, parameters: dict[str, Any]) -> "RunFolder":
        """Make the folder of ``run`` and note its parameters; a retried run finds its folder again.

        What killed runs left half-written anywhere in ``artifacts/`` is swept first.
        ``force`` among the parameters keeps stages from being reused.
        """
        folder = cls(path=artifact_paths.runs() / run, force=parameters.get("force", False))
        atomic.sweep(artifact_paths.make_root())
        with folder.in_use():
            if folder._file.exists():
                os.utime(folder._file)  # to housekeeping it is young again
            else:
                atomic.write_json(
                    folder._file,
                    {"schema_version": 1, "run": run, "parameters": parameters, "seconds": {}, "stages": {}},
                )
        return folder

    def in_use(self) -> AbstractContextManager[None]:
        """While the block runs, housekeeping leaves the folder alone, however long ago something was noted in it."""
        return waiting.locked(
            artifact_paths.run_lock(self.path), f"another process is at work on {self.path}; waiting for it"
        )

    @property
    def _file(self) -> Path:
        return self.path / artifact_paths.RUN

    def read(self) -> dict[str, Any]:
        """Everything noted so far."""
        document: dict[str, Any] = json.loads(self._file.read_text())
        return document

    def note(self, section: str, key: str, value: Any) -> None:
        """Set ``document[section][key]`` and write the whole document atomically."""
        document = self.read()
        document[section][key] = value
        atomic.write_json(self._file, document)

    def file(self, name: str) -> Path:
        """The path of an evidence file."""
        return self.path / name
