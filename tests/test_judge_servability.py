"""The servability gate: a stranger's process finds what a consumer would trip over, and limits refuse where set."""

import ast
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from candidate import Contender, plain
from tasks.errors import GateFailed
from tasks.export import export
from tasks.judging.parity import judge_servability, start_fresh_process
from tasks.parameters import Gates
from tasks.serving.runtime import TOLERANCE
from tasks.store import atomic
from tasks.store.atomic import file_digest
from tasks.store.record_base import FileRef
from tasks.store.run_folder import RunFolder


class Files:
    """What ``export`` hands to the gate, to be spoilt in a folder of its own."""

    def __init__(self, candidate: Contender, folder: Path) -> None:
        exported = candidate.exported
        self.model, self.metadata, self.sample = (folder / name for name in ("model.onnx", "metadata.json", "x.npz"))
        for path, file in (
            (self.model, exported.onnx),
            (self.metadata, exported.metadata),
            (self.sample, exported.sample),
        ):
            path.write_bytes(file.path.read_bytes())

    def verdicts(self, **bounds: float) -> dict[str, tuple[bool, str]]:
        model = FileRef(path=self.model, sha256=file_digest(self.model) if self.model.exists() else "")
        with start_fresh_process() as process:
            asked = model, self.metadata, self.sample, Gates.model_validate(bounds), TOLERANCE
            found = judge_servability(process, *asked)
        return {verdict.name: (verdict.passed, verdict.detail) for verdict in found}


@pytest.fixture
def files(candidates: list[Contender], tmp_path: Path) -> Files:
    return Files(candidates[0], tmp_path)


def add_to_prediction(path: Path, operation: str, *inputs: str) -> None:
    """Let the model add to its prediction what an ``operation`` says of a row's ``index``, or the ``count`` of rows."""
    proto = onnx.load(path)
    for node in proto.graph.node:
        node.output[:] = ["exact" if name == "prediction" else name for name in node.output]
    constants: dict[str, Any] = {"zero": 0, "one": 1, "at": [0], "rows": 8}
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.array(value, np.int64), name) for name, value in constants.items()
    )
    proto.graph.node.extend(
        [
            helper.make_node("Shape", ["exact"], ["shape"]),
            helper.make_node("Squeeze", ["shape", "at"], ["count"]),
            helper.make_node("Range", ["zero", "count", "one"], ["index"]),
            helper.make_node(operation, inputs, ["wrong"]),
            helper.make_node("Cast", ["wrong"], ["error"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["exact", "error"], ["prediction"]),
        ]
    )
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


def multiply_by_nan(path: Path) -> None:
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32("nan"), tensor.name))
    onnx.save(proto, path)


def test_a_whole_model_passes_and_its_latency_and_memory_are_recorded(files: Files) -> None:
    verdicts = files.verdicts()
    assert [(name, passed) for name, (passed, _) in verdicts.items()] == [
        ("servability", True), ("latency_ms", True), ("memory_mb", True),
    ]  # fmt: skip
    assert "no bound" in verdicts["latency_ms"][1]


# What is done to the files, and what is said; nothing where a stranger cannot even open them.
SPOILT: dict[str, tuple[Callable[[Files], object], str]] = {
    "values beyond the 8 rows of the sample": (
        lambda files: add_to_prediction(files.model, "GreaterOrEqual", "index", "rows"),
        "prediction of a batch of 1000 differs from the sample's by 1",
    ),
    "a batch of one": (
        lambda files: add_to_prediction(files.model, "Equal", "count", "one"),
        "prediction of a batch of 1 differs",
    ),
    "no numbers": (lambda files: multiply_by_nan(files.model), "differs from the sample's by nan"),
    "other metadata": (
        lambda files: files.metadata.write_text(files.metadata.read_text().replace("2", "3")),
        "metadata.json says",
    ),
    "no ONNX": (lambda files: files.model.write_bytes(b"this is not ONNX"), ""),
    "a cut model": (lambda files: files.model.write_bytes(files.model.read_bytes()[:-40]), ""),
    "no model": (lambda files: files.model.unlink(), ""),
    "a cut sample": (lambda files: files.sample.write_bytes(b"PK"), ""),
    "no metadata": (lambda files: files.metadata.write_text("{}"), ""),
}


CASES = [pytest.param(case, marks=() if words else pytest.mark.slow) for case, (_, words) in SPOILT.items()]


@pytest.mark.parametrize("case", CASES)
def test_what_a_consumer_would_trip_over_is_refused_and_never_an_error(case: str, files: Files) -> None:
    spoil, words = SPOILT[case]
    spoil(files)
    verdicts = files.verdicts()
    passed, detail = verdicts["servability"]
    assert not passed
    assert words in detail
    assert words or list(verdicts) == ["servability"]
    assert "batch" not in words or detail.count("differs") == 1


def test_a_process_begun_before_there_is_a_file_serves_it_and_none_outlives_its_block(files: Files) -> None:
    content = files.model.read_bytes()
    files.model.unlink()
    with start_fresh_process() as begun:
        model = atomic.write_bytes(files.model, content)
        served = judge_servability(begun, model, files.metadata, files.sample, Gates(), TOLERANCE)
        assert [gate.passed for gate in served] == [True, True, True]
    with pytest.raises(KeyError), start_fresh_process() as left:
        raise KeyError
    assert [each.poll() is None for each in (begun, left)] == [False, False]


def test_a_fresh_process_runs_the_code_of_this_one_whatever_is_written_there_under_a_run() -> None:
    with start_fresh_process() as begun:
        probe = Path(sys.modules[judge_servability.__module__].__file__ or "").with_name("probe.py")
        assert begun.args == [sys.executable, "-I", "-c", probe.read_text()]


def test_no_answer_in_time_is_refused(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[judge_servability.__module__], "TIMEOUT_SECONDS", 0.01)
    assert "no answer within 0.01 s" in files.verdicts()["servability"][1]


def test_a_limit_stops_the_export_and_leaves_the_verdicts(candidates: list[Contender]) -> None:
    candidate, run = candidates[0], RunFolder.open("too slow", {})
    bounds = Gates(max_latency_ms=1e-6, max_memory_mb=1e-6)
    with pytest.raises(GateFailed, match="latency_ms") as caught:
        plain(export)(run, candidate.prepared, candidate.trained, candidate.parameters.training, bounds)
    assert caught.value.exit_code == 3
    assert [gate.name for gate in caught.value.record.gates if not gate.passed] == ["latency_ms", "memory_mb"]


def test_the_probe_imports_onnxruntime_and_numpy_and_nothing_of_ours() -> None:
    probe = Path(sys.modules[judge_servability.__module__].__file__ or "").with_name("probe.py")
    imported = set()
    for node in ast.walk(ast.parse(probe.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
    assert {name for name in imported if name not in sys.stdlib_module_names} == {"numpy", "onnxruntime"}
