"""The images of docker/Dockerfile, built as it stands on stand-ins of its base image, and run without any privilege."""

import json
import math
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from conftest import REPOSITORY
from container_engine import Engine
from stand_ins import LIBRARY, build

REQUIREMENTS = REPOSITORY / "docker" / "requirements"
MEGABYTE = 10**6
LIMITS = {"predict": 700, "train": 1600}
TARGETS = (*LIMITS, "predict-cuda", "train-cuda")
UNPRIVILEGED = (
    *("--rm", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none"),
    *("--memory", "2g", "--cpus", "1", "--tmpfs", "/tmp:mode=1777"),  # noqa: S108  (inside the container)
    *("--volume", "between:/artifacts", "--volume", "home:/prefect"),
)

docker = pytest.mark.docker


def pins(target: str) -> dict[str, str]:
    """Name to version of all that a target installs."""
    text = (REQUIREMENTS / f"{target}.txt").read_text()
    return dict(re.findall(r"^([\w.-]+)==(\S+) \\$", text, re.MULTILINE))


@pytest.mark.parametrize("target", ["build", *TARGETS])
def test_requirements_are_names_versions_and_hashes_and_nothing_else(target: str) -> None:
    lines = (REQUIREMENTS / f"{target}.txt").read_text().splitlines()
    entry = re.compile(r"#.*|[a-z0-9][a-z0-9.-]*==[\w.+!]+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
    assert [line for line in lines if not entry.fullmatch(line)] == []
    assert "make requirements" in lines[1]


def test_requirements_hold_one_onnxruntime_each_and_torch_only_to_train() -> None:
    runtimes = {target: {"onnxruntime", "onnxruntime-gpu"} & pins(target).keys() for target in TARGETS}
    assert runtimes == {
        target: {"onnxruntime-gpu" if target.endswith("-cuda") else "onnxruntime"} for target in TARGETS
    }
    assert not {"torch", "torchvision", "triton"} & (pins("predict").keys() | pins("predict-cuda").keys())
    assert pins("train")["torch"] == f"{pins('train-cuda')['torch']}+cpu"
    assert not any(name.startswith(("nvidia-", "cuda-")) for name in pins("train"))
    assert {"nvidia-cublas", "nvidia-cudnn-cu13"} <= pins("predict-cuda").keys()


@pytest.mark.parametrize(("small", "large"), [("predict", "train"), ("predict-cuda", "train-cuda")])
def test_an_image_that_stands_on_another_keeps_every_version_of_it(small: str, large: str) -> None:
    assert pins(small).items() <= pins(large).items()


@pytest.mark.parametrize("target", TARGETS)
def test_requirements_pin_all_that_the_package_itself_needs(target: str) -> None:
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.split(r"[^\w-]", each)[0] for each in declared} <= pins(target).keys()


def test_the_dockerfile_passes_hadolint() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "docker/Dockerfile"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.fixture(scope="session", params=TARGETS)
def image(request: pytest.FixtureRequest, engine: Engine) -> str:
    build(engine, request.param)
    return f"{LIBRARY}/gradmill:{request.param}"


def inspect(engine: Engine, image: str) -> dict[str, Any]:
    (found,) = json.loads(engine.podman("image", "inspect", image))
    return dict(found)


@docker
def test_an_image_adds_no_more_to_its_base_than_its_limit(
    engine: Engine, image: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = inspect(engine, f"{LIBRARY}/python:3.11-slim-trixie")["Size"]
    added = (inspect(engine, image)["Size"] - base) / MEGABYTE
    with capsys.disabled():
        print(f"\n{image}: {added:.0f} MB added to a base of {base / MEGABYTE:.0f} MB")
    assert 50 < added < LIMITS.get(image.rpartition(":")[2], math.inf)


@docker
def test_an_image_declares_what_the_engine_needs_and_keeps_nothing_of_the_build(engine: Engine, image: str) -> None:
    found = inspect(engine, image)
    config = found["Config"]
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] == "SIGTERM"
    assert config["Labels"]["org.opencontainers.image.title"] == "gradmill"
    assert found["HealthCheck" if "HealthCheck" in found else "Healthcheck"]["Test"][-2:] == [
        "-m",
        "flows.server.healthcheck",
    ]
    assert not config.get("Volumes")
    assert not [entry for entry in config["Env"] if re.match(r"(?i)pip_|.*(proxy|cert|token|password)", entry)]
    left = "cat /etc/pip.conf /requirements.txt 2>/dev/null; find /wheels /package -type f 2>/dev/null; true"
    assert engine.podman("run", *UNPRIVILEGED, image, "sh", "-c", left).strip() == ""


@docker
def test_an_image_runs_with_no_privilege_at_all(engine: Engine, image: str) -> None:
    engine.podman("run", *UNPRIVILEGED, image, "gradmill", "--help")
    engine.podman("run", *UNPRIVILEGED, image, "python", "-m", "flows.server.healthcheck")
    status = engine.podman("run", *UNPRIVILEGED, image, "cat", "/proc/self/status")
    assert re.search(r"^Uid:\s+10001\s", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    with pytest.raises(AssertionError, match="Read-only file system"):
        engine.podman("run", *UNPRIVILEGED, "--user", "0", image, "touch", "/written")


@docker
def test_the_doctor_sees_the_limits_of_its_container_and_what_an_image_can_do(engine: Engine, image: str) -> None:
    # Its exit code is 4 where the network is off: no source of the data.
    page = engine.podman("run", *UNPRIVILEGED, image, "sh", "-c", "gradmill doctor --json || test $? -eq 4")
    checks = {check["name"]: check for check in json.loads(page)["checks"]}
    assert checks["cpu"]["facts"]["used"] == 1
    assert checks["memory"]["facts"]["limit"] == 2 * 2**30
    assert checks["onnxruntime"]["status"] == "ok"
    assert (checks["training"]["status"] == "ok") == ("train" in image)
    assert "NVIDIA driver" in checks["gpu"]["found"]
    assert {checks[name]["status"] for name in ("artifacts", "prefect_home")} == {"ok"}


@pytest.fixture(scope="session")
def trained(engine: Engine) -> str:
    """The name of a model that the image ``train`` has published on the volume."""
    build(engine, "train")
    command = ("gradmill", "retrain", "linear-regression", "--no-predict", "--json")
    done = json.loads(engine.podman("run", *UNPRIVILEGED, f"{LIBRARY}/gradmill:train", *command))
    assert done["outcome"] == "published"
    return str(done["name"])


@docker
@pytest.mark.parametrize("target", ["predict", "predict-cuda"])
def test_what_one_image_trains_the_others_label_and_say_where(engine: Engine, trained: str, target: str) -> None:
    build(engine, target)
    image = f"{LIBRARY}/gradmill:{target}"
    command = ("gradmill", "predict", "--name", trained, "--json")
    labelled = json.loads(engine.podman("run", *UNPRIVILEGED, image, *command))
    assert (labelled["rows"], labelled["provider"]) == (1000, "CPUExecutionProvider")
    assert_no_gpu(engine, image, *command)
    torch = "import importlib.util as u; print(u.find_spec('torch'))"
    assert engine.podman("run", *UNPRIVILEGED, image, "python", "-c", torch).strip() == "None"


@docker
@pytest.mark.parametrize("target", ["train", "train-cuda"])
def test_training_on_a_gpu_that_is_not_there_ends_with_5_and_the_reason(engine: Engine, target: str) -> None:
    build(engine, target)
    assert_no_gpu(engine, f"{LIBRARY}/gradmill:{target}", "gradmill", "retrain", "linear-regression", "--json")


def assert_no_gpu(engine: Engine, image: str, *command: str) -> None:
    with pytest.raises(AssertionError, match=r'(?s): 5\n.*"exit_code": 5,.*NVIDIA driver'):
        engine.podman("run", *UNPRIVILEGED, image, *command, "--device", "cuda")
