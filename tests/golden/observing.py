"""What a command answered and left on disk, without times, places and hosts; and how two such answers differ.

What is empty is left out; long lists of numbers are told by their count and two sums, long texts by their beginning
and a digest. What hangs on the machine or on library versions stands under ``exact``.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq

from golden.forking import Done

LEFT_OUT = re.compile(
    "schema_version|created_at|started_at|finished_at|promoted_at|at|run|runs|seconds|path|model_path|sha256|packages|"
    "model_sha256|manifest_sha256|platform|code|device|provider|job|request|workers|batch_size|picture|bytes|by|digest|"
    "shards|parts|dataset_digest|column_counts|profile|report|sheet|page|title|identifier|free|url|"
    r"synthetic_\w+|num_examples|duration|\w*_seconds|latency\w*|memory\w*|throughput\w*"
)
MEASURED = re.compile("latency.*|memory.*|parity.*")  # gates whose value is another each time, or rounding
SAID_ELSEWHERE = re.compile(
    r"predict +([\d,]+ (rows|images|pictures)? ?(in|predicted|through)|by the )|judge +[\d,]+ rows"
)
MOST_NUMBERS, MOST_TEXTS, LONGEST = 4, 8, 900
TOLERANCE = 1e-6


class Observer:
    """Takes down what happens in the folder of one case."""

    def __init__(self, folder: Path, tree: Path, scratch: Path) -> None:
        self.folder = folder
        self._places = {str(folder): "CASE", str(tree): "TREE", str(scratch): "SCRATCH"}

    def of_command(self, command: str, done: Done) -> dict[str, Any]:
        """Exit code, document or text, error, and what a prediction has written."""
        told: dict[str, Any] = {}
        text = self._plain_text(done.stderr)
        if "Traceback" in done.stderr:
            told["traceback"] = text.strip().splitlines()[-1]
        elif not re.match("retrain|tune", command):
            told["said"] = [line for line in text.splitlines() if line.strip() and not SAID_ELSEWHERE.match(line)]
        if command.startswith("text "):
            told |= {"stdout": self._plain_text(done.stdout).splitlines(), "said": text.splitlines()[-4:]}
        elif done.stdout or not done.code:
            try:
                told |= self._document(json.loads(done.stdout))
            except ValueError:
                told["stdout"] = self._plain_text(done.stdout).splitlines()[:3]
        return {"exit": done.code, **self.plain(told)}

    def _document(self, document: dict[str, Any]) -> dict[str, Any]:
        written = Path(document["path"]) if command_path(document) else None
        if error := document.pop("error", None):
            document["error"] = [error["exit_code"], error["found"], error["expected"], error["action"]]
        if document.get("outcome") == "published":  # its manifest has them
            document = {
                name: value for name, value in document.items() if name not in ("metrics", "gates", "parameters")
            }
        if written and (written / "_job.json").is_file():
            document["written"] = self._prediction(written)
        return document

    def _prediction(self, folder: Path) -> dict[str, Any]:
        """Columns of all parts: a digest of what is counted, four figures of what is computed."""
        parts = sorted(folder.glob("part-*.parquet"))
        rejects = (
            pq.read_table(folder / "_rejects.parquet").to_pylist() if (folder / "_rejects.parquet").is_file() else []
        )
        told: dict[str, Any] = {
            "files": sorted(re.sub(r"\d{5}", "N", path.name) for path in folder.iterdir() if path.name[0] != "."),
            "rejected": [self._plain_text(" ".join(map(str, each.values()))) for each in rejects],
            "job": json.loads((folder / "_job.json").read_text()),
        }
        if not parts:
            return told
        table = pa.dataset.dataset([str(path) for path in parts]).to_table()
        for name, column in zip(table.column_names, table.columns, strict=True):
            values = column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
            if pa.types.is_floating(values.type):
                figures = [
                    len(values),
                    *_sums(values.to_pylist()),
                    *(pc.min_max(values)[each].as_py() for each in ("min", "max")),
                ]
            else:
                figures = [len(values), _digest(self._plain_text(json.dumps(values.to_pylist(), default=str)))]
            told[f"column {name}"] = [str(column.type), *figures]
        return told

    def of_store(self, but: set[str]) -> dict[str, Any]:
        """Pointers, and every version whose folder is not among ``but``."""
        told: dict[str, Any] = {}
        for pointer in sorted((self.folder / "artifacts" / "models").glob("*")):
            document = pointer / "champion.json"
            numbers = sorted(int(path.name) for path in pointer.iterdir() if path.name.isdigit())
            told[pointer.name] = {
                "versions": numbers,
                "files": sorted(path.name for path in pointer.iterdir() if path.is_file()),
            }
            try:
                told[pointer.name] |= {"champion": json.loads(document.read_bytes())}
            except (OSError, ValueError) as error:
                told[pointer.name] |= {"champion": type(error).__name__}
            for number in numbers:
                if f"{pointer.name}/{number}" not in but:
                    told[f"{pointer.name}/{number}"] = self._version(pointer / str(number))
        return {name: self.plain(value) for name, value in told.items()}

    def _version(self, folder: Path) -> dict[str, Any]:
        manifest, metadata = (json.loads((folder / f"{name}.json").read_bytes()) for name in ("manifest", "metadata"))
        dataset, gates = manifest["dataset"], manifest["gates"]
        parameters = manifest["parameters"]
        digests = {"dataset": dataset["digest"], "rows": (dataset.get("rows") or {}).get("sha256")}
        splits = {part: (dataset.get(part) or {}).get("sha256", "")[:16] for part in ("train", "validation", "test")}
        report = folder / "data-report.json"
        findings = json.loads(report.read_bytes())["findings"] if report.is_file() else []
        return {
            "files": sorted(path.name for path in folder.iterdir()),
            "dataset": dataset, "digests": digests, "splits": splits,
            "recipe": self._recipe(manifest["recipe"]), "metrics": manifest["metrics"],
            "gates": {each["name"]: self._gate(each) for each in gates},
            "training": parameters["training"], "data": parameters["data"], "trained": manifest.get("trained"),
            "findings": [f"{each['severity']} {each['rule']} {each['column'] or ''}".strip() for each in findings],
            "inputs": metadata["inputs"], "outputs": metadata["outputs"], "columns": _digest(str(metadata.get("parameters"))),
            "labels": (folder / "labels.txt").read_text().split("\n") if (folder / "labels.txt").exists() else None,
            "exact": {"model.onnx": hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()[:16]},
        }  # fmt: skip

    @staticmethod
    def _gate(gate: dict[str, Any]) -> list[Any]:
        return [
            None if MEASURED.fullmatch(gate["name"]) else gate["value"],
            gate["minimum"],
            gate["maximum"],
            gate["passed"],
        ]

    @staticmethod
    def _recipe(recipe: dict[str, Any]) -> dict[str, Any]:
        columns = {f"column {each.pop('name')}": each for each in recipe.pop("columns", [])}
        return recipe | columns

    def _plain_text(self, text: str) -> str:
        for place, word in self._places.items():
            text = text.replace(place, word)
        text = re.sub(r"\d{8}T\d{6}-[\w-]+?-[0-9a-f]{8}", "RUN", text)
        return re.sub(r"[0-9a-f]{16,64}", "HEX", text)

    def plain(self, value: Any) -> Any:
        """A document as it is kept."""
        if isinstance(value, dict):
            kept = {name: self.plain(each) for name, each in value.items() if not LEFT_OUT.fullmatch(name)}
            kept = {name: each for name, each in kept.items() if each is not None and each not in ("", [], {}, 0)}
            return kept if len(kept) < 40 else {"names": self.plain([*kept]), "values": self.plain([*kept.values()])}
        if isinstance(value, list):
            return self._plain_list(value)
        if isinstance(value, float):
            return float(f"{value:.9g}") if math.isfinite(value) else str(value)
        if isinstance(value, str):
            text = self._plain_text(value) if not re.fullmatch("[0-9a-f]{64}", value) else value[:16]
            return text if len(text) <= LONGEST else f"{text[:LONGEST]}… {_digest(text)}"
        return value

    def _plain_list(self, values: list[Any]) -> list[Any]:
        if len(values) > MOST_NUMBERS and all(isinstance(each, int | float) for each in values):
            return [f"{len(values)} numbers", *map(self.plain, _sums(values))]
        if len(values) > MOST_TEXTS and all(isinstance(each, str) for each in values):
            return [*map(self.plain, values[:3]), f"{len(values)} texts, {_digest(str(list(map(self.plain, values))))}"]
        if len(values) > 20:
            return [
                *map(self.plain, values[:10]),
                f"{len(values)} in all, {_digest(str(list(map(self.plain, values))))}",
            ]
        if values and all(isinstance(each, dict) and "name" in each for each in values):
            named = {str(each["name"]): {key: item for key, item in each.items() if key != "name"} for each in values}
            return [self.plain(named)]
        return [*map(self.plain, values)]


def command_path(document: dict[str, Any]) -> bool:
    """Whether a document is a prediction's, which says where it has written."""
    return isinstance(document.get("path"), str) and "rejects" in document


def _sums(values: list[Any]) -> tuple[float, float]:
    """Their sum, and one that tells their order."""
    found = [float(each or 0) for each in values]
    return math.fsum(found), math.fsum(at * each for at, each in enumerate(found, 1)) / max(len(found), 1)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:12]


def differences(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two answers differ: the path, what was and what is; None is what is not there."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            yield from differences(old.get(name), new.get(name), f"{path}.{name}" if path else name)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for at, pair in enumerate(zip(old, new, strict=True)):
            yield from differences(*pair, f"{path}[{at}]")
    elif not _are_equal(old, new):
        yield path, old, new


def _are_equal(old: Any, new: Any) -> bool:
    if isinstance(old, int | float) and isinstance(new, int | float) and not isinstance(old, bool):
        return math.isclose(old, new, rel_tol=TOLERANCE, abs_tol=1e-9)
    return bool(old == new)
