"""The layers of the design, read from the source: flows → stages → networks, and leaves below."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

from conftest import REPOSITORY, Pipeline

STAGES = {
    "download", "validate", "preprocess", "train", "evaluate", "export", "publish", "mirror", "predict", "judge",
    "tune",
}  # fmt: skip
PACKAGES = ("flows", "gradmill", "tasks")
MODULES = [path.relative_to(REPOSITORY) for folder in PACKAGES for path in (REPOSITORY / folder).rglob("*.py")]
OF_TASKS = [path for path in MODULES if path.parts[0] == "tasks"]


@cache
def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse((REPOSITORY / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def uses(path: Path, package: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for name in imported(path))


LAYOUT = {
    "tasks": STAGES
    | {"__init__", "errors", "parameters", "records"}
    | {"batch", "data", "fitting", "judging", "machine", "networks", "serving", "stage", "store"},
    "gradmill": {"__init__", "errors", "model", "pictures", "rows", "training"},
    "flows": {"__init__", "__main__", "evaluate", "interrupt", "maintain", "predict", "retrain", "tags", "tune"}
    | {"cli", "doctor", "pages", "server"},
}
LAYERS: list[set[str]] = [  # each may import itself and what stands before it
    {"networks"},
    {"errors", "machine", "parameters"},
    {"records", "data", "serving", "store"},
    {"batch", "fitting", "judging", "stage"},
    STAGES,
]
LAYER = {name: position for position, names in enumerate(LAYERS) for name in names}


@pytest.mark.parametrize("folder", LAYOUT)
def test_only_what_the_design_names_lies_at_the_top(folder: str) -> None:
    found = {path.stem for path in (REPOSITORY / folder).iterdir() if path.suffix == ".py"}
    found |= {path.parent.name for path in (REPOSITORY / folder).glob("*/__init__.py")}
    assert found == LAYOUT[folder]
    assert {path.suffix for path in (REPOSITORY / folder).iterdir() if path.is_file()} == {".py"}


@pytest.mark.parametrize("path", [path for path in OF_TASKS if path != Path("tasks/__init__.py")], ids=str)
def test_dependencies_point_one_way(path: Path) -> None:
    assert not uses(path, "flows")
    own = path.with_suffix("").parts[1]
    ours = {name.split(".")[1] for name in imported(path) if name.startswith("tasks.")}
    assert not {name for name in ours if LAYER[name] > LAYER[own]}
    assert own != "networks" or not uses(path, "pathlib")
    assert not ours & STAGES - {own}, "stages never import each other"


@pytest.mark.parametrize("path", [path for path in MODULES if path.parts[0] == "gradmill"], ids=str)
def test_programs_of_others_need_numpy_and_onnxruntime_alone(path: Path) -> None:
    needed = {name.split(".")[0] for name in imported(path)} - sys.stdlib_module_names - {"gradmill"}
    of_some = {"pictures": {"PIL"}, "training": {"pyarrow", "IPython"}}  # rows of Arrow, and a notebook
    assert needed <= {"numpy", "onnxruntime"} | of_some.get(path.stem, set())


def reached(path: Path) -> set[Path]:
    """The modules of ours that a file imports, at its top or inside functions, and all that these import."""
    found, waiting = {path}, [path]
    while waiting:
        names = [name.split(".") for name in imported(waiting.pop()) if name.startswith(("tasks", "flows", "gradmill"))]
        modules = {Path(*name[:end]) for name in names for end in range(1, len(name) + 1)}
        files = {file for each in modules for file in (each.with_suffix(".py"), each / "__init__.py")} & set(MODULES)
        waiting += files - found
        found |= files
    return found


INSPECT = ("judging/baselines", "data/table_dataset")


@pytest.mark.parametrize(
    ("path", "through"),
    [
        ("predict", "batch/shard"), ("judge", "judging/metrics"),
        *zip(INSPECT, ("serving/raw_units", "data/row_hash"), strict=True),
    ],
)  # fmt: skip
def test_prediction_judging_and_inspect_reach_no_torch_however_late(path: str, through: str) -> None:
    found = reached(Path(f"tasks/{path}.py"))
    assert Path(f"tasks/{through}.py") in found
    assert not [each for each in found if uses(each, "torch")]


def test_inspect_needs_only_what_every_installation_has_and_what_urls_workbooks_and_databases_need() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    declared = [*project["dependencies"], *(each for extra in ("excel", "remote", "sql") for each in optional[extra])]
    installed = {re.split(r"[^\w-]", each)[0].replace("-", "_") for each in declared}
    through = set[Path]().union(*(reached(Path(f"tasks/{each}.py")) for each in INSPECT))
    # Fonts of a sheet that inspect does not draw; models that it neither loads nor trains.
    through -= {*map(Path, ("tasks/machine/fonts.py", "gradmill/model.py", "gradmill/training.py"))}
    needed = {name.split(".")[0] for path in through for name in imported(path)} - sys.stdlib_module_names
    assert "scipy" in needed
    assert needed - {*PACKAGES} <= installed | {"PIL", "pydantic_core"}, "these two are of pillow and pydantic"


@pytest.mark.parametrize(
    "path", [path for path in OF_TASKS if path.with_suffix("").parts[1] not in STAGES | {"stage"}], ids=str
)
def test_prefect_appears_only_in_flows_and_in_what_makes_a_stage(path: Path) -> None:
    assert not uses(path, "prefect")


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    return set(done.stdout.split())


LEARNING = "from tasks.networks import training; training.ConciseSGD([], 0.1).step()"
STORE = "model_folder, verification, mirror_sync, housekeeping, pointer"


@pytest.mark.parametrize(
    ("statement", "without"),
    [
        ("from flows.cli import app", "torch prefect onnxruntime pyarrow fsspec numpy PIL"),
        (f"from tasks.store import {STORE}", "numpy PIL"),
        ("import flows.doctor", "numpy torch onnxruntime"),
        (f"import tasks.judging.task; {LEARNING}", "torch._dynamo torchmetrics scipy"),
        pytest.param("import flows.predict", "torch", marks=pytest.mark.slow),
        pytest.param(
            "import flows.retrain", "torch matplotlib onnx onnxruntime scipy jinja2 pandas", marks=pytest.mark.slow
        ),
    ],
)
def test_nothing_is_imported_that_is_not_needed_yet(statement: str, without: str) -> None:
    assert not {*without.split()} & modules_after(statement)


@pytest.mark.slow  # a real prediction by the command
def test_a_prediction_imports_nothing_that_trains_or_serves_tables_of_others(
    pipeline: Pipeline, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = pipeline.report("softmax-regression")
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(pipeline.artifacts))
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    arguments = ["predict", "--name", published.name, "--restart"]
    modules = modules_after(f"from flows.cli import app\nassert app.run({arguments}) == 0")
    assert {"onnxruntime", "pyarrow.parquet", "prefect.flow_engine"} <= modules
    assert not {"torch", "onnx", "scipy", "sqlalchemy"} & modules


def test_onnxruntime_keeps_no_usage_data_in_the_home_folder(tmp_path: Path) -> None:
    code = "from tasks.serving import runtime; assert runtime.find_fault(runtime.CPU) is None"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    here = environment | {"HOME": str(tmp_path), "XDG_CACHE_HOME": ""}
    subprocess.run([sys.executable, "-c", code], env=here, check=True, cwd=REPOSITORY)
    assert not list(tmp_path.rglob("*nnxruntime*"))


def test_nothing_hides_the_docker_package_that_prefect_needs() -> None:
    assert not (REPOSITORY / "docker" / "__init__.py").exists()


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.glob("*.py")), ids=lambda path: path.stem)
def test_no_module_of_tests_imports_a_test_module(path: Path) -> None:
    assert not [name for name in imported(path) if re.search(r"(^|\.)test_", name)]
