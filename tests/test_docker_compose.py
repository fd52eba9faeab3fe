"""docker/compose.yaml against what it is made for; what the composed stack does is in test_docker_stack.py."""

import json
import os
import re
import shutil
import subprocess
from typing import Any

import prefect.settings
import pytest
import yaml

from conftest import REPOSITORY
from flows.server import alerts

FOLDER = REPOSITORY / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


@pytest.mark.parametrize("name", SERVICES)
def test_every_variable_that_a_service_sets_is_read_by_somebody(name: str) -> None:
    """A setting with a wrong name is silently without effect."""
    ours = "".join(path.read_text() for folder in ("flows", "tasks") for path in (REPOSITORY / folder).rglob("*.py"))
    for variable in SERVICES[name]["environment"]:
        assert not variable.startswith("PREFECT_") or hasattr(prefect.settings, variable)
        assert not variable.startswith("GRADMILL_") or variable.lower() in ours.lower()


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_may_do_more_than_it_needs_or_take_all_of_the_machine(name: str) -> None:
    service = SERVICES[name]
    wanted = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"]}
    assert service | wanted == service
    assert all(service[limit] for limit in ("mem_limit", "cpus", "pids_limit"))
    assert not service.keys() & {"cap_add", "privileged", "network_mode", "pid", "env_file"}
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert service["restart"] == ("on-failure" if name == "register" else "unless-stopped"), "it alone ends"


def test_the_worker_with_a_gpu_is_the_other_one_and_without_its_profile_nothing_asks_for_one() -> None:
    plain, cuda = SERVICES["worker"], SERVICES["worker-cuda"]
    other = {field for field in {*plain, *cuda} if plain.get(field) != cuda.get(field)}
    assert other == {"build", "command", "deploy", "image", "profiles", "scale"}
    assert cuda["command"][2] == plain["command"][2].replace("doctor;", "doctor --device cuda;")
    assert [name for name, each in SERVICES.items() if {"deploy", "profiles"} & {*each}] == ["worker-cuda"]
    (device,) = cuda["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


def test_every_image_that_is_built_is_called_as_its_target() -> None:
    for service in SERVICES.values():
        if built := service.get("build"):
            assert service["image"] == f"gradmill:{built['target']}"
            assert (built["context"], built["dockerfile"]) == ("..", "docker/Dockerfile")


def test_only_the_server_reaches_the_database_and_the_database_reaches_nobody() -> None:
    networks = {name: {*service.get("networks", ["default"])} for name, service in SERVICES.items()}
    assert {name for name, joined in networks.items() if joined & networks["postgres"]} == {"postgres", "server"}
    assert all(COMPOSE["networks"][each]["internal"] for each in networks["postgres"])


SECRETS = {"GRADMILL_DATABASE_PASSWORD": "pass", "GRADMILL_AUTH": "me:word"}


def test_secrets_have_no_default_and_are_in_no_image_and_in_no_build() -> None:
    text, example = ((FOLDER / name).read_text() for name in ("compose.yaml", ".env.example"))
    assert {*re.findall(r"(?m)^(\w+)=$", example)} == SECRETS.keys()
    assert not [secret for secret in SECRETS if secret in (FOLDER / "Dockerfile").read_text()]
    values = [value for service in SERVICES.values() for value in service["environment"].items()]
    named = [value for name, value in values if re.search(r"PASSWORD|AUTH|SECRET|CONNECTION_URL", name)]
    assert len(named) >= 5
    assert all("${" in value for value in named), "taken from the environment"
    known = {*re.findall(r"(?m)^#? ?(\w+)=", example), "PYTORCH_INDEX", "AWS_DEFAULT_REGION"}
    assert {*re.findall(r"\$\{(\w+)", text)} <= known, "what may be set is in .env.example"
    everything, *sent = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert everything == "*"
    assert not [line for line in sent if ".env" in line or line == "!docker"]


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed")
@pytest.mark.parametrize("left_out", [None, *SECRETS])
def test_compose_itself_takes_the_file_and_refuses_to_go_on_without_secrets(left_out: str | None) -> None:
    command = "docker-compose -f docker/compose.yaml --env-file /dev/null --profile cuda config --quiet"
    given = {name: value for name, value in SECRETS.items() if name != left_out} | {"PATH": os.environ["PATH"]}
    done = subprocess.run(command.split(), env=given, cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode == 0, (left_out or "") in done.stderr) == (left_out is None, True)


def test_runs_in_containers_beat_as_often_as_the_automation_expects() -> None:
    declared = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["definitions"]["pool"]["job_variables"]
    pools = [json.loads(path.read_text())["variables"]["properties"] for path in (FOLDER / "work-pools").iterdir()]
    environments = [declared["env"], SERVICES["worker"]["environment"], *(pool["env"]["default"] for pool in pools)]
    (seconds,) = {each["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] for each in environments}
    crash = yaml.safe_load(alerts.FILE.read_text())["crash"]
    assert 2 * int(seconds) < crash["trigger"]["within"]
