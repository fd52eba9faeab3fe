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
    r"duration|\w*_seconds|latency\w*|memory\w*|throughput\w*"
)
MEASURED = re.compile("latency.*|memory.*|parity.*")  # gates whose value is another each time, or rounding
SAID_ELSEWHERE = re.compile(
    r"predict +([\d,]+ (rows|images|pictures)? ?(in|predicted|through)|by the )|judge +[\d,]+ rows"
)
CONTRACT = {"model.onnx", "manifest.json", "metadata.json", "sample.npz", "README.md", "SHA256SUMS"}  # of every version
OF_TABLES = {"weights.npz"}  # which c692a25 did not keep
OF_DATA = (
    "num_train",
    "num_test",
    "class_counts",
    "split",
    "has_dates",
    "ignored",
    "left_out",
    "accepted",
    "brightness",
)
SAID_TWICE = ("objective_loss", "baseline_loss", "reference_loss", "confusion_matrix")
DEFAULTS: tuple[Any, ...] = (
    None,
    "",
    [],
    "concise",
    "constant",
    "none",
    42,
    "auto",
    0.2,
    0.01,
    1000,
    4.2,
    [2.0, -3.4],
    0,
    0.0,
    False,
)
MOST_NUMBERS, MOST_TEXTS, LONGEST, MOST_NAMED = 4, 8, 900, 12
TOLERANCE = 1e-6


OF_MANIFEST = ("metrics", "gates", "parameters", "model", "name", "implementation")


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
        else:
            before, brace, document = done.stdout.partition("{")  # what stands before it is a fault
            told |= {"stdout": self._plain_text(before).splitlines()} if before else {}
            try:
                told |= self._document(json.loads(brace + document)) if brace else {}
            except ValueError:
                told["stdout"] = self._plain_text(done.stdout).splitlines()[:3]
        return {"exit": done.code, **self.plain(told)}

    def _document(self, document: dict[str, Any]) -> dict[str, Any]:
        written = Path(document["path"]) if command_path(document) else None
        if error := document.pop("error", None):
            document["error"] = [error["exit_code"], error["found"], error["expected"], error["action"]]
        if document.get("outcome") in ("published", "unchanged"):  # manifests have them
            document = {name: value for name, value in document.items() if name not in OF_MANIFEST}
        elif isinstance(document.get("gates"), list):
            document["gates"] = {each["name"]: self._gate(each) for each in document["gates"]}
        if "columns" in document and "findings" in document:
            document["columns"] = {each.pop("name"): _words(each) for each in document["columns"]}
        if written and (written / "_job.json").is_file():
            document["written"] = self._prediction(written)
        return document

    def _prediction(self, folder: Path) -> dict[str, Any]:
        """Columns of all parts: a digest of what is counted, four figures of what is computed."""
        parts = sorted(folder.glob("part-*.parquet"))
        rejects = (
            pq.read_table(folder / "_rejects.parquet").to_pylist() if (folder / "_rejects.parquet").is_file() else []
        )
        files = {re.sub(r"\d{5}", "N", path.name) for path in folder.iterdir() if path.name[0] != "."}
        job = json.loads((folder / "_job.json").read_text())
        told: dict[str, Any] = {
            "files": " ".join(sorted(files - {"_job.json", "_rejects.parquet", "part-N.parquet"})),
            "rejected": [self._plain_text(" ".join(map(str, each.values()))) for each in rejects],
            "job": {
                name: job.get(name)
                for name in ("status", "unknown", "written", "id_columns", "columns", "notes", "rejects")
            },
        }
        if not parts:
            return told
        table = pa.dataset.dataset([str(path) for path in parts]).to_table()
        for name, column in zip(table.column_names, table.columns, strict=True):
            values = column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
            kind = str(column.type).replace("dictionary<values=string, indices=", "").replace(", ordered=0>", "")
            if pa.types.is_floating(values.type):
                ends = (pc.min_max(values)[each].as_py() for each in ("min", "max"))
                told[f"column {name}"] = [kind, len(values), *_sums(values.to_pylist()), *ends]
            else:
                text = self._plain_text(json.dumps(values.to_pylist(), default=str))
                told[f"column {name}"] = f"{kind} {len(values)} {_digest(text)}"
        return told

    def of_store(self, but: set[str]) -> dict[str, Any]:
        """Pointers, and every version whose folder is not among ``but``."""
        told: dict[str, Any] = {}
        for model in sorted((self.folder / "artifacts" / "models").glob("*/")):
            numbers = sorted(int(path.name) for path in model.iterdir() if path.name.isdigit())
            try:
                champion = json.loads((model / "champion.json").read_bytes())
            except (OSError, ValueError) as error:
                champion = type(error).__name__
            told[model.name] = {"versions": numbers, "champion": champion}
            for number in numbers:
                if f"{model.name}/{number}" not in but:
                    told[f"{model.name}/{number}"] = self._version(model / str(number))
        return {f"store {name}": self.plain(value) for name, value in told.items()}

    def _version(self, folder: Path) -> dict[str, Any]:
        manifest, metadata = (json.loads((folder / f"{name}.json").read_bytes()) for name in ("manifest", "metadata"))
        dataset, parameters, recipe = manifest["dataset"], manifest["parameters"], manifest["recipe"]
        digests = {"dataset": dataset["digest"][:12], "rows": ((dataset.get("rows") or {}).get("sha256") or "")[:12]}
        digests |= {
            part: ((dataset.get(part) or {}).get("sha256") or "")[:12] for part in ("train", "validation", "test")
        }
        report, labels = folder / "data-report.json", folder / "labels.txt"
        findings = json.loads(report.read_bytes())["findings"] if report.is_file() else []
        files = {path.name for path in folder.iterdir()}
        contract = CONTRACT | (OF_TABLES if recipe["kind"] == "columns" else set())
        options = parameters["training"] | {
            name: value for name, value in parameters["data"].items() if name != "target"
        }
        return {
            "files": " ".join(["all of design 4.2"] * (files >= contract) + sorted(files - contract)),
            "data": {name: dataset.get(name) for name in OF_DATA}, "profiles": _numbers(dataset.get("profiles")),
            "digests": digests, "target": recipe.pop("target", None),
            "columns": {each["name"]: self._column(each) for each in recipe.pop("columns", [])}, "recipe": recipe,
            "metrics": {name: value for name, value in manifest["metrics"].items() if name not in SAID_TWICE},
            "gates": {each["name"]: self._gate(each) for each in manifest["gates"]},
            "options": {name: value for name, value in options.items() if value not in DEFAULTS},
            "trained": manifest.get("trained"),
            "findings": [f"{each['severity']} {each['rule']} {each['column'] or ''}".strip() for each in findings],
            "signature": [" ".join(map(str, each.values())) for each in metadata["inputs"] + metadata["outputs"]],
            "metadata": _digest(json.dumps(metadata.get("parameters"))),
            "labels": labels.read_text().split("\n") if labels.exists() else None,
            "exact": {"model.onnx": hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()[:12]},
        }  # fmt: skip

    @staticmethod
    def _gate(gate: dict[str, Any]) -> Any:
        if MEASURED.fullmatch(gate["name"]) or not gate["value"]:
            return gate["passed"]
        return [gate["value"], gate["minimum"] if gate["maximum"] is None else gate["maximum"], gate["passed"]]

    @staticmethod
    def _column(column: dict[str, Any]) -> list[Any]:
        """Its kind, then levels and their counts, or mean and scale, and how many are missing."""
        of_levels = ["|".join(column["levels"])[:200], *_sums(column.get("counts") or [0])] if column["levels"] else []
        return [column["kind"], *(of_levels or [column.get("mean"), column.get("scale")]), column.get("num_missing")]

    def _plain_text(self, text: str) -> str:
        for place, word in self._places.items():
            text = text.replace(place, word)
        text = re.sub(r"\d{8}T\d{6}-[\w-]+?-[0-9a-f]{8}", "RUN", text)
        text = re.sub(r"\b20\d\d-\d\d-\d\d\b(?=  )", "TODAY", text)  # of a column in a list of versions
        return re.sub(r"(?=\d*[a-f])[0-9a-f]{16,64}", "HEX", text)

    def plain(self, value: Any) -> Any:
        """A document as it is kept."""
        if isinstance(value, dict):
            kept = {name: self.plain(each) for name, each in value.items() if not LEFT_OUT.fullmatch(name)}
            return shortened({name: each for name, each in kept.items() if each not in (None, "", [], {}, 0)})
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


def _words(column: dict[str, Any]) -> str:
    """A column's report in a line."""
    ends = [f"{column['minimum']:.9g} … {column['maximum']:.9g}"] if column.get("minimum") is not None else []
    levels = (
        [f"{column['num_levels']} levels {'|'.join(map(str, column['levels']))[:200]}"]
        if column.get("num_levels")
        else []
    )
    missing = [f"{column['missing']} missing"] if column.get("missing") else []
    return ", ".join([f"{column['role']} {column['kind']}", *missing, *ends, *levels])


def _numbers(document: Any) -> list[Any]:
    """All numbers of a document, one after the other."""
    if isinstance(document, dict | list):
        parts = document.values() if isinstance(document, dict) else document
        return [each for part in parts for each in _numbers(part)]
    return [document] if isinstance(document, int | float) and math.isfinite(document) else []


def shortened(document: dict[str, Any]) -> dict[str, Any]:
    """A document whose long names end in a digest, and in which many numbers are told by sums."""
    named = {name if len(name) <= 60 else f"{name[:30]}… {_digest(name)}": each for name, each in document.items()}
    if len(named) > MOST_NAMED and all(isinstance(each, int | float) for each in named.values()):
        return {"names": _digest("|".join(named)), "values": [f"{len(named)} numbers", *_sums([*named.values()])]}
    return named


def fold(answers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The answers of all cases, in which what is long stands once; elsewhere it says in which case, step and field."""
    said: dict[str, str] = {}

    def first(place: str, value: Any) -> Any:
        text = json.dumps(value, ensure_ascii=False)
        found = said.setdefault(text, place) if len(text) > len(place) + 8 else place
        return value if found == place else f"= {found}"

    folded: dict[str, Any] = {}
    for case, steps in answers.items():
        folded[case] = {}
        for at, (step, answer) in enumerate(steps.items()):
            whole = first(f"{case} {at}", answer)
            fields = whole if isinstance(whole, dict) else {}
            told = {name: first(f"{case} {at} {name}", value) for name, value in fields.items()}
            folded[case][step] = told or whole
    return folded


def unfold(folded: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every answer in full again."""

    def full(value: Any) -> Any:
        while isinstance(value, str) and value.startswith("= "):
            case, at, *name = value[2:].split(" ", 2)
            found = full([*folded[case].values()][int(at)])
            value = found[name[0]] if name else {field: full(each) for field, each in found.items()}
        return value

    answers = {case: {step: full(answer) for step, answer in steps.items()} for case, steps in folded.items()}
    for steps in answers.values():
        for step, answer in steps.items():
            steps[step] = {name: full(value) for name, value in answer.items()}
    return answers


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
