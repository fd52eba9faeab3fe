"""``artifacts/runs/<run>/``: the evidence of one run, whatever became of it."""

import json
from pathlib import Path
from typing import Any

from tasks import artifact_paths, atomic
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
        if not folder._file.exists():
            atomic.write_json(
                folder._file,
                {"schema_version": 1, "run": run, "parameters": parameters, "seconds": {}, "stages": {}},
            )
        return folder

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
