"""A published model: read from the store, checked against its digests, run by onnxruntime, explained by its weights."""

import base64
import hashlib
import html
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradmill.errors import DataError
from gradmill.rows import InputColumn, Unknown, Weights, encode_rows, explain_rows, find_columns, name_terms

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import below; it ignores DO_NOT_TRACK
import onnxruntime

CHAMPION = "champion.json"
POINTER = {"version": int, "model_sha256": str, "manifest_sha256": str}  # the fields used here
MANIFEST = "manifest.json"
ONNX = "model.onnx"
WEIGHTS = "weights.npz"
PICTURES = "effects.png", "coefficients.png"  # of a table; older versions have the second
MISSING = "(missing)"  # stands for a missing value among the levels in the manifest
SHOWN = 20  # columns and classes
BATCH = 1024  # rows that fit into the cache


def load(name: str, artifacts: str | Path | None = None, version: int | None = None) -> "Model":
    """The champion of a name, or another version; its bytes are checked against their digests before they are used.

    ``artifacts`` is the folder that ``gradmill`` writes (by default ``GRADMILL_ARTIFACTS``, or ``artifacts``) or a
    mirror of its models.

    Raises:
        DataError: there is no such model or version, or it is not as it was published.
    """
    root, name = find_root(artifacts), str(name)  # may be None, from a variable that is not set
    folder = next((each for each in (root / "models" / name, root / name) if (each / CHAMPION).is_file()), None)
    if folder is None or Path(name).name != name:
        found = f"there is no model {name!r} in {root}"
        raise DataError(found, "a folder of artifacts with a published model", "name another, or train it")
    number = read_pointer(folder)["version"] if version is None else version
    if version is not None and not (folder / str(version)).is_dir():
        kept = sorted(int(each.name) for each in folder.iterdir() if each.name.isdecimal())
        raise DataError(f"{name} has no version {version}", f"one of {', '.join(map(str, kept))}", "name another")
    try:
        return Model(folder, number)
    except DataError:
        current = read_pointer(folder)["version"]
        if version is not None or current == number:
            raise
        return Model(folder, current)  # a new version was published, and this one removed, after the pointer was read


def find_root(artifacts: str | Path | None) -> Path:
    """The absolute path of the artifacts folder."""
    return Path(artifacts or os.environ.get("GRADMILL_ARTIFACTS") or "artifacts").expanduser().absolute()


def read_pointer(folder: Path) -> dict[str, Any]:
    """``champion.json``: the version that consumers should use.

    Raises:
        DataError: it is missing or invalid.
    """
    return _parse(folder / CHAMPION, _read(folder / CHAMPION), POINTER)


def _read(path: Path, sha256: str | None = None) -> bytes:
    """The content of a file, which is compared with its digest if that is known."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", "a published version", "name another") from error
    if sha256 not in (None, hashlib.sha256(content).hexdigest()):
        raise DataError(f"{path} has changed", f"SHA-256 {sha256}", "restore it from a copy, or use another version")
    return content


def _parse(path: Path, content: bytes, fields: Mapping[str, type]) -> dict[str, Any]:
    try:
        document = json.loads(content)
        wrong = [field for field, kind in fields.items() if type(document[field]) is not kind]
    except (ValueError, KeyError, TypeError) as error:
        wrong = [repr(error)]
    if wrong:
        raise DataError(f"{path} is damaged: {wrong[0]}", "a document as gradmill writes it", "restore it from a copy")
    found: dict[str, Any] = document
    return found


class Model:
    """A version of a model.

    ``columns`` are the input columns of a table's model, by name and in order; ``classes`` the classes in the type of
    the target, as numbers, booleans or text (empty if the model predicts numbers); ``metrics`` the figures at
    publication.
    """

    name: str
    version: int
    columns: dict[str, InputColumn]
    classes: tuple[Any, ...]
    metrics: dict[str, Any]
    outcome: str | None = None  # set by ``gradmill.fit``

    def __init__(self, folder: Path, version: int) -> None:
        """Load a version: the pointer or ``SHA256SUMS`` verifies its manifest, and this the other files.

        Raises:
            DataError: the version is missing, or not as it was published.
        """
        self._folder, path, pointer = folder, folder / str(version), read_pointer(folder)
        is_champion = pointer["version"] == version
        lines = "" if is_champion else _read(path / "SHA256SUMS").decode(errors="replace")
        sums = {filename: digest for digest, _, filename in (line.partition("  ") for line in lines.splitlines())}
        content = _read(path / MANIFEST, pointer["manifest_sha256"] if is_champion else sums.get(MANIFEST, ""))
        fields = {"name": str, "version": int, "recipe": dict, "dataset": dict, "metrics": dict, "files": dict}
        manifest = _parse(path / MANIFEST, content, fields)
        files = manifest["files"]
        model = _read(path / ONNX, pointer["model_sha256"] if is_champion else files[ONNX])
        self.name, self.version, self.metrics = manifest["name"], version, manifest["metrics"]
        target = manifest["recipe"].get("target") or {}
        self.classes = read_classes(manifest["dataset"].get("class_names", ()), target.get("kind", ""))
        self.columns = find_columns(manifest["recipe"])
        self._manifest = manifest
        self._session = _start_session(model, path / ONNX)
        self._weights: Weights | None = None
        if WEIGHTS in files:
            with np.load(io.BytesIO(_read(path / WEIGHTS, files[WEIGHTS])), allow_pickle=False) as arrays:
                self._weights = dict(arrays)

    @property
    def terms(self) -> tuple[str, ...]:
        """What ``explain`` has one contribution for: the columns' names, and those of pairs, such as ``a × b``."""
        return name_terms([*self.columns], self._manifest["recipe"])

    def is_current(self) -> bool:
        """Whether ``champion.json`` still names this version."""
        return bool(read_pointer(self._folder)["version"] == self.version)

    def predict(self, rows: Any, unknown: Unknown = "warn") -> NDArray[Any]:
        """The classes, in the type of the target, or numbers ``(n,)`` predicted for rows.

        ``rows`` of a table are a mapping (or a pandas Series, such as ``df.iloc[0]``), a list of these, a pandas or
        polars DataFrame, or an Arrow table. A missing value is None, NaN, NaT or ``pandas.NA``, or empty text except in
        a category. A level that the model has not seen has the average effect, and a warning counts such rows; with
        ``unknown`` "average" there is no warning, and "reject" raises. Pictures are a uint8 array
        ``(n, height, width)`` or ``(n, height, width, 3)``, a list of such pictures, or paths.

        Raises:
            ValueError: a column is missing, or a value does not fit its column or is too large to predict from.
        """
        outputs = self._run(self._encode(rows, unknown))
        return np.array(self.classes)[outputs["label"]] if self.classes else outputs["prediction"]

    def predict_proba(self, rows: Any, unknown: Unknown = "warn") -> NDArray[np.float32]:
        """The probability of each class ``(n, classes)``; it accepts and raises what ``predict`` does.

        Raises:
            ValueError: the model predicts numbers.
        """
        if not self.classes:
            raise ValueError(f"{self.name} predicts numbers: it has no classes")
        return self._run(self._encode(rows, unknown))["probabilities"]

    def explain(self, rows: Any, unknown: Unknown = "warn") -> NDArray[np.float64]:
        """Each term's contribution to the prediction, relative to its training mean; the intercept is last.

        The ``terms`` are the columns, and then pairs of columns whose effects depend on one another. The shape is
        ``(n, terms + 1)``. Rows sum to the prediction in the target's units or, for two classes, to the
        log odds of the second. For more classes it is ``(n, classes, terms + 1)``: scores centred over the classes,
        whose softmax is the result of ``predict_proba``.

        Raises:
            ValueError: as for ``predict``, or the model takes pictures.
            DataError: the version was published without weights.
        """
        if not self.columns:
            raise ValueError(f"{self.name} is a model of pictures: explain works only for tables")
        weights = self._weights or read_weights(self._manifest)
        return explain_rows(self._encode(rows, unknown), [*self.columns.values()], weights)

    def _encode(self, rows: Any, unknown: Unknown) -> NDArray[Any]:
        if self.columns:
            return encode_rows(rows, self.columns, unknown)
        shape = tuple(self._session.get_inputs()[0].shape[1:])
        if isinstance(rows, list | tuple) and any(isinstance(row, np.ndarray) for row in rows):
            if wrong := [np.shape(row) for row in rows if np.shape(row) != np.shape(rows[0])]:
                raise ValueError(f"pictures of shapes {np.shape(rows[0])} and {wrong[0]}, not all of {shape}, or paths")
            rows = np.stack(rows)
        if not isinstance(rows, np.ndarray):
            from gradmill.pictures import read_pictures  # not at the top, because arrays do not need Pillow

            return read_pictures(rows, shape)
        if rows.dtype != np.uint8 or rows.shape[-len(shape) :] != shape or rows.ndim - len(shape) not in (0, 1):
            raise ValueError(f"{rows.dtype} of shape {rows.shape}, not uint8 of shape {('n', *shape)}, or paths")
        return rows.reshape(-1, *shape)

    def _run(self, rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
        (source,), names = self._session.get_inputs(), [each.name for each in self._session.get_outputs()]
        starts = range(0, max(1, len(rows)), BATCH)
        outputs = [self._session.run(names, {source.name: rows[start : start + BATCH]}) for start in starts]
        found = {name: np.concatenate(parts) for name, parts in zip(names, zip(*outputs, strict=True), strict=True)}
        if faults := [row for values in found.values() for row in np.argwhere(~np.isfinite(values))[:1, 0]]:
            why = "its prediction is not a finite number, because a value is too large"
            raise ValueError(f"{why} (row {faults[0]}, counted from 0)")
        return found

    def __repr__(self) -> str:
        return f"<gradmill.Model {self.name} version {self.version}>"

    def _repr_html_(self) -> str:
        """An HTML table of the model for a notebook, with the first of many columns and classes, and a picture."""
        facts = {
            "metrics": [f"{key} {each:.4g}" for key, each in self.metrics.items() if isinstance(each, int | float)],
            "columns": [f"{each.name} ({each.kind})" for each in self.columns.values()],
            "classes": [*map(str, self.classes)],
        }
        lines = [
            f"<tr><th>{key}</th><td>{html.escape(', '.join(texts[:SHOWN]))}{', …' * (len(texts) > SHOWN)}</td></tr>"
            for key, texts in facts.items()
            if texts
        ]
        table = f"<table><caption>{self.name} version {self.version}</caption>{''.join(lines)}</table>"
        files, folder = self._manifest["files"], self._folder / str(self.version)
        shown = [name for name in PICTURES if name in files and (folder / name).is_file()]
        for name in shown:
            encoded = base64.b64encode(_read(folder / name, files[name])).decode()
            table += f'<img src="data:image/png;base64,{encoded}" alt="{name.removesuffix(".png")}">'
        return table


def _start_session(content: bytes, path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # these graphs are too small to split one batch among cores
    options.log_severity_level = 4  # errors are raised as exceptions
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own types, RuntimeError and ValueError here
        found = f"{path} does not load: {str(error).splitlines()[0]}"
        raise DataError(found, "a model that onnxruntime runs", "restore it from a copy") from error


def read_classes(names: Sequence[str], kind: str) -> tuple[Any, ...]:
    """Classes in the type of the target, whose ``kind`` is number or boolean; otherwise they are text."""
    if kind == "number":
        return tuple(int(name) if name.lstrip("+-").isdecimal() else float(name) for name in names)
    return tuple(name == "true" for name in names) if kind == "boolean" else tuple(names)


def read_weights(manifest: Mapping[str, Any]) -> Weights:
    """The weights among the metrics in an older version's manifest, in the form that ``explain_rows`` takes.

    Raises:
        DataError: the manifest has none.
    """
    metrics, columns = manifest["metrics"], manifest["recipe"]["columns"]
    named, names = metrics.get("weights"), manifest["dataset"].get("class_names")
    has_more = manifest["recipe"].get("shape", "linear") != "linear"  # curves and pairs are only in the file
    if not named or has_more:
        found = f"version {manifest['version']} of {manifest['name']} has no {WEIGHTS}"
        raise DataError(found, "the weights, to say what each column adds", "train it again")
    outputs = [named[name] for name in names] if names else [named]
    if isinstance(named, list):  # of the book's linear regression
        outputs = [dict(zip((each["name"] for each in columns), named, strict=True))]
    bias = np.array([metrics["bias"][name] for name in names] if names else [metrics["bias"]], np.float64)
    numbers = [each for each in columns if each["kind"] != "category"]
    mean = np.array([each["mean"] or 0.0 for each in numbers], np.float64)
    weights = np.array([[output[each["name"]] for output in outputs] for each in numbers], np.float64)
    effects = [
        [output[each["name"]].get(level, 0.0) for output in outputs]
        for each in columns
        if each["kind"] == "category"
        for level in (*each["levels"], MISSING, None)
    ]
    weights = weights.reshape(len(numbers), len(outputs))
    return {
        "mean": mean,
        "weights": weights,
        "effects": np.array(effects, np.float64),
        "intercept": bias + mean @ weights,
    }
