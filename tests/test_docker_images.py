"""The images of docker/Dockerfile, built as it stands on stand-ins of its base image, and run without any privilege."""

import json
import math
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import stand_ins
from conftest import REPOSITORY
from container_engine import Engine
from stand_ins import LIBRARY

LIMITS = {"predict": 700e6, "train": 1600e6}
TARGETS = (*LIMITS, "predict-cuda", "train-cuda")
UNPRIVILEGED = (
    *("--rm", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none"),
    *("--memory", "2g", "--cpus", "1", "--tmpfs", "/tmp:mode=1777"),  # noqa: S108  (inside the container)
    *("--volume", "between:/artifacts", "--volume", "home:/prefect"),
)

docker = pytest.mark.docker


def requirements(target: str) -> str:
    return (REPOSITORY / "docker" / "requirements" / f"{target}.txt").read_text()


def pins(target: str) -> dict[str, str]:
    """Name to version of all that a target installs."""
    return dict(re.findall(r"(?m)^([\w.-]+)==(\S+) \\$", requirements(target)))


@pytest.mark.parametrize("target", ["build", *TARGETS])
def test_requirements_are_names_versions_and_hashes_and_nothing_else(target: str) -> None:
    lines = requirements(target).splitlines()
    entry = re.compile(r"#.*|[a-z0-9][a-z0-9.-]*==[\w.+!]+ \\|    --hash=sha256:[0-9a-f]{64}( \\)?")
    assert [line for line in lines if not entry.fullmatch(line)] == []
    assert "make requirements" in lines[1]


@pytest.mark.parametrize("target", TARGETS)
def test_requirements_pin_all_that_the_package_needs_one_onnxruntime_and_torch_only_to_train(target: str) -> None:
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    found, cuda = pins(target), target.endswith("-cuda")
    assert {re.split(r"[^\w-]", each)[0] for each in declared} <= found.keys()
    assert {"onnxruntime", "onnxruntime-gpu"} & found.keys() == {"onnxruntime-gpu" if cuda else "onnxruntime"}
    assert {"torch", "torchvision"} & found.keys() == ({"torch", "torchvision"} if "train" in target else set())
    assert any(name.startswith("nvidia-") for name in found) == cuda
    assert ({"nvidia-cublas", "nvidia-cudnn-cu13"} <= found.keys()) == cuda
    assert target != "train" or found["torch"] == f"{pins('train-cuda')['torch']}+cpu"
    stands_on = pins(target.replace("train", "predict"))
    assert stands_on.items() <= found.items(), "every version of the image below is kept"


def test_the_dockerfile_passes_hadolint() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "docker/Dockerfile"], cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.fixture(scope="session", params=TARGETS)
def image(request: pytest.FixtureRequest, engine: Engine) -> str:
    return stand_ins.image(engine, request.param)


def run(engine: Engine, image: str, *command: str) -> str:
    """What a command prints in a container of an image that may do nothing."""
    return engine.podman("run", *UNPRIVILEGED, image, *command).strip()


@docker
def test_an_image_is_small_says_what_the_engine_needs_and_keeps_nothing_of_the_build(
    engine: Engine, image: str
) -> None:
    base, found = (
        json.loads(engine.podman("image", "inspect", each))[0] for each in (f"{LIBRARY}/python:3.11-slim-trixie", image)
    )
    assert 50e6 < found["Size"] - base["Size"] < LIMITS.get(image.rpartition(":")[2], math.inf)
    config = found["Config"]
    assert (config["User"], config["StopSignal"]) == ("10001:10001", "SIGTERM")
    assert config["Labels"]["org.opencontainers.image.title"] == "gradmill"
    health = found["HealthCheck" if "HealthCheck" in found else "Healthcheck"]
    assert health["Test"][-2:] == ["-m", "flows.server.healthcheck"]
    assert not config.get("Volumes")
    assert not [entry for entry in config["Env"] if re.match(r"(?i)pip_|.*(proxy|cert|token|password)", entry)]
    left = "cat /etc/pip.conf /requirements.txt 2>/dev/null; find /wheels /package -type f 2>/dev/null; true"
    assert run(engine, image, "sh", "-c", left) == ""


@docker
def test_an_image_runs_with_no_privilege_at_all_and_its_doctor_sees_its_limits(engine: Engine, image: str) -> None:
    run(engine, image, "python", "-m", "flows.server.healthcheck")
    # Its exit code is 4 where the network is off: no source of the data.
    page = run(engine, image, "sh", "-c", "gradmill doctor --json || test $? -eq 4")
    checks = {check["name"]: check for check in json.loads(page)["checks"]}
    assert (checks["memory"]["facts"]["cores"], checks["memory"]["facts"]["limit"]) == (1, 2 * 2**30)
    assert {checks[name]["status"] for name in ("onnxruntime", "folders")} == {"ok"}
    assert (checks["torch"]["status"] == "ok") == ("train" in image)
    assert "NVIDIA driver" in checks["gpu"]["found"]


@pytest.fixture(scope="session")
def trained(engine: Engine) -> str:
    """The name of a model that the image ``train`` has published on the volume."""
    command = ("gradmill", "retrain", "linear-regression", "--no-predict", "--json")
    done = json.loads(run(engine, stand_ins.image(engine, "train"), *command))
    assert done["outcome"] == "published"
    return str(done["name"])


@docker
@pytest.mark.parametrize("target", ["predict", "predict-cuda"])
def test_what_one_image_trains_the_others_label_and_say_where(engine: Engine, trained: str, target: str) -> None:
    command = ("gradmill", "predict", "--name", trained, "--json")
    labelled = json.loads(run(engine, stand_ins.image(engine, target), *command))
    assert (labelled["rows"], labelled["provider"]) == (1000, "CPUExecutionProvider")


@docker
def test_a_gpu_that_is_asked_for_and_not_there_is_exit_5_with_the_reason(
    engine: Engine, trained: str, image: str
) -> None:
    command = ("retrain", "linear-regression") if "train" in image else ("predict", "--name", trained)
    with pytest.raises(AssertionError, match=r'(?s): 5\n.*"exit_code": 5,.*NVIDIA driver'):
        run(engine, image, "gradmill", *command, "--json", "--device", "cuda")
