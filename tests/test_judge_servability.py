"""The servability gate: a stranger's process finds what a consumer would trip over, and limits refuse where set."""

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import onnx.parser
import pytest

from candidate import Contender, plain
from tasks.errors import GateFailed
from tasks.export import export
from tasks.judging import parity
from tasks.judging.parity import judge_servability, start_fresh_process
from tasks.parameters import Gates
from tasks.records import ExportedModel
from tasks.serving.runtime import TOLERANCE
from tasks.store import atomic
from tasks.store.atomic import file_digest
from tasks.store.record_base import FileRef
from tasks.store.run_folder import RunFolder


class Files:
    """What ``export`` hands to the gate, to be spoilt in a folder of its own."""

    def __init__(self, exported: ExportedModel, folder: Path) -> None:
        self.model, self.metadata, self.sample = (
            Path(shutil.copy(file.path, folder)) for file in (exported.onnx, exported.metadata, exported.sample)
        )

    def verdicts(self) -> dict[str, tuple[bool, str]]:
        model = FileRef(path=self.model, sha256=file_digest(self.model) if self.model.exists() else "")
        with start_fresh_process() as process:
            found = judge_servability(process, model, self.metadata, self.sample, Gates(), TOLERANCE)
        return {verdict.name: (verdict.passed, verdict.detail) for verdict in found}


@pytest.fixture
def files(candidates: list[Contender], tmp_path: Path) -> Files:
    return Files(candidates[0].exported, tmp_path)


def add_to_prediction(path: Path, operation: str) -> None:
    """Let the model add to its prediction what an ``operation`` says of a row's ``index``, or the ``count`` of rows."""
    proto = onnx.load(path)
    proto.graph.node[-1].output[:] = ["exact"]
    nodes = (
        *("zero = Constant<value_int = 0>()", "one = Constant<value_int = 1>()", "rows = Constant<value_int = 8>()"),
        *("shape = Shape(exact)", "count = Squeeze(shape)", "index = Range(zero, count, one)"),
        *("zeros = Sub(exact, exact)", f"wrong = {operation}", "error = Cast<to = 1>(wrong)"),
        "prediction = Add(exact, error)",
    )
    proto.graph.node.extend(map(onnx.parser.parse_node, nodes))
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)


# What is done to the files, and what is said; nothing where a stranger cannot even open them.
SPOILT: dict[str, tuple[Callable[[Files], object], str]] = {
    "values beyond the 8 rows of the sample": (
        lambda files: add_to_prediction(files.model, "GreaterOrEqual(index, rows)"),
        "prediction of a batch of 1000 differs from the sample's by 1",
    ),
    "a batch of one": (
        lambda files: add_to_prediction(files.model, "Equal(count, one)"),
        "prediction of a batch of 1 differs",
    ),
    "no numbers": (
        lambda files: add_to_prediction(files.model, "Div(zeros, zeros)"), "differs from the sample's by nan"
    ),
    "other metadata": (
        lambda files: files.metadata.write_text(files.metadata.read_text().replace("2", "3")), "metadata.json says"
    ),
    "a cut model": (lambda files: files.model.write_bytes(files.model.read_bytes()[:-40]), ""),
    "no model": (lambda files: files.model.unlink(), ""),
    "a cut sample": (lambda files: files.sample.write_bytes(b"PK"), ""),
    "no metadata": (lambda files: files.metadata.write_text("{}"), ""),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILT)
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
        verdicts = judge_servability(begun, model, files.metadata, files.sample, Gates(), TOLERANCE)
    recorded = [(name, "recorded") for name in ("latency_ms", "memory_mb")]
    assert [(gate.name, gate.verdict) for gate in verdicts] == [("servability", "passed"), *recorded]
    with pytest.raises(KeyError), start_fresh_process() as left:
        raise KeyError
    assert [each.poll() is None for each in (begun, left)] == [False, False]


def test_the_probe_imports_onnxruntime_and_numpy_and_nothing_of_ours() -> None:
    """A process runs its code as this one knows it, whatever is written there under a run."""
    probe = Path(parity.__file__).with_name("probe.py").read_text()
    with start_fresh_process() as begun:
        assert begun.args == [sys.executable, "-I", "-c", probe]
    imported = set(re.findall(r"(?m)^\s*(?:import|from) (\w+)", probe))
    assert imported - sys.stdlib_module_names == {"numpy", "onnxruntime"}


def test_no_answer_in_time_is_refused(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "TIMEOUT_SECONDS", 0.01)
    assert "no answer within 0.01 s" in files.verdicts()["servability"][1]


def test_a_limit_stops_the_export_and_leaves_the_verdicts(candidates: list[Contender]) -> None:
    candidate, bounds = candidates[0], Gates(max_latency_ms=1e-6, max_memory_mb=1e-6)
    with pytest.raises(GateFailed, match="latency_ms") as caught:
        plain(export)(
            RunFolder.open("too slow", {}), candidate.prepared, candidate.trained, candidate.parameters.training, bounds
        )
    assert caught.value.exit_code == 3
    assert [gate.name for gate in caught.value.record.gates if not gate.passed] == ["latency_ms", "memory_mb"]
