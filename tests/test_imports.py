"""The layers of the design, read from the source: flows → stages → networks, and leaves below."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from conftest import REPOSITORY, Pipeline

STAGES = {
    "download", "validate", "preprocess", "train", "evaluate", "export", "publish", "mirror", "predict", "judge", "tune"
}  # fmt: skip
LAYERS: list[set[str]] = [  # of tasks/, each of which may import itself and what stands before it
    {"networks"},
    {"errors", "machine", "parameters"},
    {"records", "data", "serving", "store"},
    {"batch", "fitting", "judging", "stage"},
    STAGES,
]
LAYER = {name: position for position, names in enumerate(LAYERS) for name in names}
TOP = {
    "tasks": {*LAYER},
    "gradmill": {"errors", "model", "pictures", "rows", "training"},
    "flows": {
        "__main__", "evaluate", "interrupt", "maintain", "predict", "retrain", "tags", "tune",
        "cli", "doctor", "pages", "server",
    },
}  # fmt: skip
MODULES = [path.relative_to(REPOSITORY) for folder in TOP for path in (REPOSITORY / folder).rglob("*.py")]
OF_TASKS = [path for path in MODULES if path.parts[0] == "tasks" and path != Path("tasks/__init__.py")]


@cache
def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse((REPOSITORY / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


@pytest.mark.parametrize("folder", TOP)
def test_only_what_the_design_names_lies_at_the_top(folder: str) -> None:
    modules = [path.parts[1:] for path in MODULES if path.parts[0] == folder]
    assert {parts[0].removesuffix(".py") for parts in modules} == TOP[folder] | {"__init__"}
    assert {path.suffix for path in (REPOSITORY / folder).iterdir() if path.is_file()} == {".py"}


@pytest.mark.parametrize("path", OF_TASKS, ids=str)
def test_dependencies_point_one_way_and_prefect_makes_stages_alone(path: Path) -> None:
    own = path.with_suffix("").parts[1]
    ours = {name.split(".")[1] for name in imported(path) if name.startswith("tasks.")}
    assert not {name for name in ours if LAYER[name] > LAYER[own]}
    assert not ours & STAGES - {own}, "stages never import each other"
    forbidden = {"flows"} | ({"pathlib"} if own == "networks" else set())
    assert not packages(path) & (forbidden if own in STAGES | {"stage"} else forbidden | {"prefect"})


@pytest.mark.parametrize("path", [path for path in MODULES if path.parts[0] == "gradmill"], ids=str)
def test_programs_of_others_need_numpy_and_onnxruntime_alone(path: Path) -> None:
    of_some = {"pictures": {"PIL"}, "training": {"pyarrow", "IPython"}}  # rows of Arrow, and a notebook
    needed = packages(path) - sys.stdlib_module_names - {"gradmill"}
    assert needed <= {"numpy", "onnxruntime"} | of_some.get(path.stem, set())


def test_every_package_that_is_installed_to_train_is_imported() -> None:
    project, owners = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"], packages_distributions()
    declared = [*project["dependencies"], *project["optional-dependencies"]["train"]]
    used = {owner for path in MODULES for name in packages(path) for owner in owners.get(name, ())}
    assert {re.split(r"[^\w-]", each)[0] for each in declared} <= {each.lower().replace("_", "-") for each in used}


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True, cwd=REPOSITORY).split())


LEARNING = "from tasks.networks import training; training.ConciseSGD([], 0.1).step()"
NAMED = ["DataError", "GradmillError", "Model", "Refused", "fit", "load"]  # though some are imported later
STORE = "model_folder, verification, mirror_sync, housekeeping, pointer"


@pytest.mark.parametrize(
    ("statement", "without"),
    [
        ("from flows.cli import app", "torch prefect onnxruntime pyarrow fsspec numpy PIL"),
        (f"from tasks.store import {STORE}", "numpy PIL"),
        ("import flows.doctor", "numpy torch onnxruntime"),
        (f"import gradmill; assert dir(gradmill) == {NAMED}; gradmill.GradmillError", "numpy onnxruntime"),
        (f"import tasks.judging.task; {LEARNING}", "torch._dynamo torchmetrics scipy"),
        pytest.param(
            "import flows.retrain", "torch matplotlib onnx onnxruntime scipy jinja2 pandas", marks=pytest.mark.slow
        ),
    ],
)
def test_nothing_is_imported_that_is_not_needed_yet(statement: str, without: str) -> None:
    assert not {*without.split()} & modules_after(statement)


@pytest.mark.slow  # a real prediction and evaluation by the command
def test_prediction_and_evaluation_import_nothing_that_trains_or_serves_tables_of_others(
    pipeline: Pipeline, on_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = pipeline.report("softmax-regression")
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(pipeline.artifacts))
    arguments = ["predict", "--name", published.name, "--restart"]
    modules = modules_after(f"from flows.cli import app\nassert app.run({arguments}) == 0")
    assert {"onnxruntime", "pyarrow.parquet", "prefect.flow_engine"} <= modules
    assert not {"torch", "onnx", "scipy", "sqlalchemy"} & modules
    judging = f"from flows.cli import app\nassert app.run(['evaluate', '{published.name}']) == 0"
    assert not {"torch", "onnx"} & modules_after(judging)


def test_onnxruntime_keeps_no_usage_data_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    modules_after("from tasks.serving import runtime; assert runtime.find_fault(runtime.CPU) is None")
    assert not list(tmp_path.rglob("*nnxruntime*"))
