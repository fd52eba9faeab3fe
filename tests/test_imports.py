"""The layers of the design, read from the source: flows → stages → networks, and leaves below."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY

STAGES = {"download", "preprocess", "train", "evaluate", "export", "publish", "mirror", "predict"}
MODULES = [
    path.relative_to(REPOSITORY) for folder in ("flows", "tasks") for path in (REPOSITORY / folder).rglob("*.py")
]


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse((REPOSITORY / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def stage_of(path: Path) -> str | None:
    """The stage that a file is."""
    return path.stem if path.parts[0] == "tasks" and len(path.parts) == 2 and path.stem in STAGES else None


def uses(path: Path, package: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for name in imported(path))


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_dependencies_point_one_way(path: Path) -> None:
    if path.parts[0] == "tasks":
        assert not uses(path, "flows")
        others = STAGES - {stage_of(path)}
        assert not [stage for stage in others if uses(path, f"tasks.{stage}")], "stages never import each other"
    if path.parts[:2] == ("tasks", "networks"):
        ours = {name for name in imported(path) if name.startswith("tasks")}
        assert all(name.startswith("tasks.networks") for name in ours)
        assert not uses(path, "pathlib")


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_prefect_appears_only_in_flows_and_in_what_makes_a_stage(path: Path) -> None:
    if path.parts[0] == "tasks" and path.parts[1] != "stage":
        assert stage_of(path) or not uses(path, "prefect")


def modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    return set(done.stdout.split())


def test_the_command_line_starts_without_torch_and_prefect() -> None:
    assert not {"torch", "prefect", "onnxruntime", "pyarrow", "fsspec"} & modules_after("from flows.cli import app")


def test_batch_prediction_imports_no_torch() -> None:
    assert "torch" not in modules_after("import flows.predict")


def test_onnxruntime_keeps_no_usage_data_in_the_home_folder(tmp_path: Path) -> None:
    code = "from tasks.serving import sessions; assert sessions.fault(sessions.CPU) is None"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    here = environment | {"HOME": str(tmp_path), "XDG_CACHE_HOME": ""}
    subprocess.run([sys.executable, "-c", code], env=here, check=True, cwd=REPOSITORY)
    assert not list(tmp_path.rglob("*nnxruntime*"))


def test_nothing_hides_the_docker_package_that_prefect_needs() -> None:
    assert not (REPOSITORY / "docker" / "__init__.py").exists()
