"""docker/compose.yaml as it is written: what holds for every service, those of a machine with a GPU included."""

import json
import re
from typing import Any

import pytest
import yaml

from conftest import REPOSITORY
from flows.server.registration import SILENT_SECONDS

COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker" / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_the_services_are_those_of_the_readme_and_the_gpu_worker_is_behind_a_profile() -> None:
    assert SERVICES.keys() == {"postgres", "server", "register", "worker", "worker-cuda"}
    assert {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service} == {
        "worker-cuda": ["cuda"]
    }
    (gpu,) = SERVICES["worker-cuda"]["deploy"]["resources"]["reservations"]["devices"]
    assert gpu == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}


@pytest.mark.parametrize("name", sorted(name for name, service in SERVICES.items() if "build" in service))
def test_what_a_service_builds_is_a_target_of_the_dockerfile_tagged_by_its_name(name: str) -> None:
    built = SERVICES[name]["build"]
    folder = REPOSITORY / "docker" / built["context"]
    dockerfile = (folder / built["dockerfile"]).read_text()
    assert folder.resolve() == REPOSITORY
    assert re.search(rf"(?m)^FROM \S+ AS {built['target']}$", dockerfile)
    assert SERVICES[name]["image"] == f"gradmill:{built['target']}"
    assert all(re.search(rf"(?m)^ARG {argument}\b", dockerfile) for argument in built.get("args", {}))


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_service_is_limited_hardened_and_restarted(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["mem_limit"]
    assert service["cpus"]
    assert service["pids_limit"]
    assert service["restart"] == ("on-failure" if name == "register" else "unless-stopped")
    assert not service.keys() & {"cap_add", "privileged", "network_mode", "pid", "env_file"}
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_secrets_have_no_default_and_only_the_database_network_reaches_postgres() -> None:
    secrets = ("POSTGRES_PASSWORD", "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING")
    values = [s["environment"][key] for s in SERVICES.values() for key in secrets if key in s["environment"]]
    assert len(values) >= len(secrets)
    assert all(value.startswith("${GRADMILL_") and ":-" not in value for value in values)
    assert {name for name, service in SERVICES.items() if "database" in service.get("networks", [])} == {
        "postgres",
        "server",
    }
    assert COMPOSE["networks"]["database"] == {"internal": True}
    example = (REPOSITORY / "docker" / ".env.example").read_text().splitlines()
    assert {"GRADMILL_DATABASE_PASSWORD=", "GRADMILL_AUTH="} <= set(example)


def test_runs_in_containers_beat_as_often_as_the_automation_expects() -> None:
    declared = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["definitions"]["pool"]["job_variables"]
    environments = [SERVICES["worker"]["environment"], SERVICES["worker-cuda"]["environment"]]
    for pool in ("docker", "kubernetes"):
        template = json.loads((REPOSITORY / "docker" / "work-pools" / f"{pool}.json").read_text())
        environments.append(template["variables"]["properties"]["env"]["default"])
    beats = {each["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] for each in (declared["env"], *environments)}
    assert len(beats) == 1
    assert 2 * int(beats.pop()) < SILENT_SECONDS
