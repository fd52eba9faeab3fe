"""docker/compose.yaml against what it is made for: the commands, settings, ports and folders that it names exist."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
from typing import Any

import prefect.settings
import pytest
import yaml

from conftest import REPOSITORY
from flows.cli.app import run
from flows.server.alerts import SILENT_SECONDS
from flows.server.registration import POOL

FOLDER = REPOSITORY / "docker"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
BUILT = sorted(name for name, service in SERVICES.items() if "build" in service)
DOCKERFILE = (FOLDER / "Dockerfile").read_text()


def commands(name: str) -> list[list[str]]:
    """The commands of a service, those that a shell of it starts included."""
    words = SERVICES[name]["command"]
    if words[:2] != ["sh", "-c"]:
        return [words]
    return [[word for word in shlex.split(each) if word not in ("exec", "do")] for each in re.split("[;&]", words[2])]


def option(arguments: list[str], name: str) -> str:
    return arguments[arguments.index(name) + 1]


@pytest.mark.parametrize("name", BUILT)
def test_every_command_of_ours_that_a_service_starts_is_one_that_we_have(name: str) -> None:
    for program, *arguments in commands(name):
        if program == "gradmill":
            assert run([*arguments, "--help"]) == 0, "an unknown option is an error even so"


def test_clients_workers_and_health_checks_ask_where_the_server_and_the_worker_listen() -> None:
    ((*_, place),) = commands("server")
    port = place.rpartition(":")[2]
    (published,) = SERVICES["server"]["ports"]
    assert published.rpartition(":")[2] == port
    assert SERVICES["server"]["environment"]["GRADMILL_HEALTH_URL"] == f"http://127.0.0.1:{port}/api/ready"
    for name in ("register", "worker", "worker-cuda"):
        environment = SERVICES[name]["environment"]
        assert environment["PREFECT_API_URL"] == f"http://server:{port}/api"
        assert "server" in environment["NO_PROXY"].split(",")
    for name in ("worker", "worker-cuda"):
        (worker,) = (each for each in commands(name) if each[0] == "prefect")
        (figures,) = (each for each in commands(name) if each[:2] == ["gradmill", "metrics"])
        environment = SERVICES[name]["environment"]
        assert environment["GRADMILL_HEALTH_URL"] == f"http://127.0.0.1:{option(figures, '--port')}/health"
        own = [environment[f"PREFECT_WORKER_WEBSERVER_{each}"] for each in ("HOST", "PORT")]
        assert option(figures, "--health") == f"http://{':'.join(own)}/health", "of the worker, for this container only"
        assert option(worker, "--pool") == POOL
    (module,) = re.findall(r'HEALTHCHECK .* CMD \["python", "-m", "([\w.]+)"\]', DOCKERFILE)
    assert importlib.util.find_spec(module), "the images' health check"


@pytest.mark.parametrize("name", BUILT)
def test_every_variable_that_a_service_sets_is_read_by_somebody(name: str) -> None:
    """A setting with a wrong name is silently without effect."""
    ours = "".join(
        path.read_text() for folder in ("flows", "tasks") for path in (REPOSITORY / folder).rglob("*.py")
    ).lower()
    for variable in SERVICES[name]["environment"]:
        if variable.startswith("PREFECT_"):
            assert hasattr(prefect.settings, variable)
        elif variable.startswith("GRADMILL_"):
            assert variable.lower() in ours


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_no_service_may_do_more_than_it_needs_or_take_all_of_the_machine(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["cpus"]
    assert service["pids_limit"]
    assert not service.keys() & {"cap_add", "privileged", "network_mode", "pid", "env_file"}
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    ends = any(
        each.get("depends_on", {}).get(name) == {"condition": "service_completed_successfully"}
        for each in SERVICES.values()
    )
    assert service["restart"] == ("on-failure" if ends else "unless-stopped")


def test_without_its_profile_nothing_asks_for_a_gpu() -> None:
    devices = {
        name: service["deploy"]["resources"]["reservations"]["devices"]
        for name, service in SERVICES.items()
        if "deploy" in service
    }
    assert devices == {"worker-cuda": [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]}
    assert {name for name, service in SERVICES.items() if service.get("profiles")} == devices.keys()


def test_only_the_server_reaches_the_database_and_the_database_reaches_nobody() -> None:
    networks = {name: set(service.get("networks", ["default"])) for name, service in SERVICES.items()}
    reached = {name for name, joined in networks.items() if name != "postgres" and joined & networks["postgres"]}
    assert reached == {"server"}
    assert all(COMPOSE["networks"][each]["internal"] for each in networks["postgres"])


def test_secrets_have_no_default_and_are_in_no_image_and_in_no_build() -> None:
    text = (FOLDER / "compose.yaml").read_text()
    example = (FOLDER / ".env.example").read_text()
    empty = set(re.findall(r"(?m)^(\w+)=$", example))
    assert empty == {"GRADMILL_DATABASE_PASSWORD", "GRADMILL_AUTH"}
    for secret in empty:
        assert set(re.findall(rf"\$\{{{secret}(:?[-+?]?)", text)) <= {"", ":?"}
        assert f"${{{secret}:?" in text, "up without it is refused"
        assert secret not in DOCKERFILE
    values = [value for service in SERVICES.values() for value in service["environment"].items()]
    named = [value for name, value in values if re.search(r"PASSWORD|AUTH|SECRET|CONNECTION_URL", name)]
    assert len(named) >= 5
    assert all("${" in value for value in named), "taken from the environment"
    known = set(re.findall(r"(?m)^#? ?(\w+)=", example)) | {"PYTORCH_INDEX", "AWS_DEFAULT_REGION"}
    assert set(re.findall(r"\$\{(\w+)", text)) <= known, "what may be set is in .env.example"
    ignored = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    assert not [line for line in ignored if (line.startswith("!docker") and ".env" in line) or line == "!docker"]


@pytest.mark.skipif(shutil.which("docker-compose") is None, reason="docker-compose is not installed")
def test_compose_itself_takes_the_file_and_refuses_to_go_on_without_secrets() -> None:
    command = ["docker-compose", "-f", "docker/compose.yaml", "--env-file", "/dev/null", "--profile", "cuda", "config"]
    path = {"PATH": os.environ["PATH"]}
    bare = subprocess.run(command, env=path, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert bare.returncode != 0
    assert re.search(r"GRADMILL_\w+", bare.stderr)
    secrets = {"GRADMILL_DATABASE_PASSWORD": "pass", "GRADMILL_AUTH": "me:word"}
    done = subprocess.run(
        [*command, "--format", "json"], env=path | secrets, cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    services = json.loads(done.stdout)["services"]
    assert services.keys() == SERVICES.keys()
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert [(port["host_ip"], port["published"], port["target"]) for port in ports] == [("127.0.0.1", "4200", 4200)]
    assert services["worker"]["environment"]["PREFECT_API_AUTH_STRING"] == "me:word"


def test_runs_in_containers_beat_as_often_as_the_automation_expects() -> None:
    declared = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["definitions"]["pool"]["job_variables"]
    environments = [SERVICES["worker"]["environment"], SERVICES["worker-cuda"]["environment"]]
    for pool in ("docker", "kubernetes"):
        template = json.loads((REPOSITORY / "docker" / "work-pools" / f"{pool}.json").read_text())
        environments.append(template["variables"]["properties"]["env"]["default"])
    beats = {each["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] for each in (declared["env"], *environments)}
    assert len(beats) == 1
    assert 2 * int(beats.pop()) < SILENT_SECONDS
