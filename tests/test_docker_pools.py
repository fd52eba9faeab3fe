"""The work-pool templates, judged by what uses them: Prefect's workers, Docker's SDK and Kubernetes' schema."""

import asyncio
import copy
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import kubernetes_validate
import pytest
from docker.models.containers import _create_container_args
from jsonschema import Draft202012Validator
from prefect.client.schemas.objects import FlowRun

from conftest import REPOSITORY
from prefect_api import api_client

pytestmark = pytest.mark.usefixtures("prefect_api")
UID = 10001
KUBERNETES = "1.33"
GPU = {"driver": "nvidia", "count": 1, "capabilities": [["gpu"]]}


def template(pool: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((REPOSITORY / "docker" / "work-pools" / f"{pool}.json").read_text())
    return read


def docker_container(**values: Any) -> dict[str, Any]:
    """What Docker's SDK would send to the engine for a run, after Prefect's worker has made its settings."""
    from prefect_docker.worker import DockerWorker, DockerWorkerJobConfiguration

    pool = template("docker")
    configuration = asyncio.run(DockerWorkerJobConfiguration.from_template_and_values(pool, values))
    configuration.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="a-run"))
    worker = DockerWorker(work_pool_name="gradmill", create_pool_if_not_found=False)
    settings = worker._build_container_settings(None, configuration)
    return dict(_create_container_args({**settings, "version": "1.44"}))


def kubernetes_job(**values: Any) -> dict[str, Any]:
    """The Job that Prefect's worker would create for a run."""
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration  # takes two seconds

    configuration = asyncio.run(
        KubernetesWorkerJobConfiguration.from_template_and_values(template("kubernetes"), values)
    )
    configuration.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="a-run"))
    return dict(configuration.job_manifest)


def pod_of(job: dict[str, Any]) -> dict[str, Any]:
    pod: dict[str, Any] = job["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize("pool", ["docker", "kubernetes"])
def test_variables_are_a_json_schema_and_each_one_is_used(pool: str) -> None:
    variables, configuration = template(pool)["variables"], json.dumps(template(pool)["job_configuration"])
    Draft202012Validator.check_schema(variables)
    used = [configuration.count(f"{{{{ {name} }}}}") for name in variables["properties"]]
    assert all(used)
    assert configuration.count("{{") == sum(used)


@pytest.mark.parametrize(("pool", "worker"), [("docker", "DockerWorker"), ("kubernetes", "KubernetesWorker")])
def test_templates_set_only_what_the_worker_knows(pool: str, worker: str) -> None:
    known = getattr(importlib.import_module(f"prefect_{pool}.worker"), worker).get_default_base_job_template()[
        "job_configuration"
    ]
    assert template(pool)["job_configuration"].keys() <= known.keys()


@pytest.mark.slow  # Prefect's own commands
def test_a_server_takes_the_templates_by_the_published_commands(prefect_api: str, tmp_path: Path) -> None:
    section = (REPOSITORY / "docs/containers.md").read_text()
    commands = re.findall(r"(?m)^prefect work-pool create .*$", section)
    assert len(commands) == 2
    environment = {"PREFECT_API_URL": prefect_api, "PREFECT_HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    credentials = {name: value for name, value in os.environ.items() if name == "PREFECT_API_AUTH_STRING"}
    for command in commands:
        words = [sys.executable, "-m", *shlex.split(command)]
        subprocess.run(words, env=environment | credentials, cwd=REPOSITORY, check=True, capture_output=True)
    with api_client(prefect_api) as client:
        for pool in ("docker", "kubernetes"):
            created = client.get(f"/work_pools/gradmill-{pool}").raise_for_status().json()
            assert created["type"] == pool
            assert created["base_job_template"] == template(pool)


def test_docker_containers_are_unprivileged_limited_and_keep_artifacts() -> None:
    made = docker_container()
    host = made["host_config"]
    assert (made["image"], made["user"]) == ("gradmill:train", f"{UID}:{UID}")
    assert made["environment"]["PREFECT_HOME"] == "/prefect"
    wanted = {
        "ReadonlyRootfs": True, "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges:true"], "Memory": 4 * 2**30,
        "MemorySwap": 4 * 2**30, "NanoCpus": 2 * 10**9, "PidsLimit": 512, "Binds": ["gradmill_artifacts:/artifacts"],
    }  # fmt: skip
    assert {name: host[name] for name in wanted} == wanted
    assert set(host["Tmpfs"]) == {"/tmp", "/prefect"}  # noqa: S108  (inside the container)
    assert not host.get("DeviceRequests")


def test_docker_containers_get_the_gpu_they_ask_for() -> None:
    host = docker_container(image="gradmill:train-cuda", device_requests=[GPU])["host_config"]
    (request,) = host["DeviceRequests"]
    assert (request["Driver"], request["Count"], request["Capabilities"]) == ("nvidia", 1, [["gpu"]])


@pytest.mark.parametrize("gpus", [None, "1"])
def test_kubernetes_jobs_pass_the_strict_schema_of_kubernetes(gpus: str | None) -> None:
    job = copy.deepcopy(kubernetes_job(**({"gpus": gpus} if gpus else {})))
    for misplaced in ("completions", "parallelism"):
        del pod_of(job)[misplaced]  # Prefect demands them there too; the API server ignores them
    kubernetes_validate.validate(job, KUBERNETES, strict=True)
    limits = pod_of(job)["containers"][0]["resources"]["limits"]
    assert limits.get("nvidia.com/gpu") == gpus
    assert limits["memory"] == "4Gi"


def test_kubernetes_pods_meet_the_restricted_security_standard() -> None:
    pod = pod_of(kubernetes_job())
    (container,) = pod["containers"]
    wanted = {"runAsNonRoot": True, "runAsUser": UID, "seccompProfile": {"type": "RuntimeDefault"}}
    assert {name: pod["securityContext"][name] for name in wanted} == wanted
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert {"name": "PREFECT_HOME", "value": "/prefect"} in container["env"]
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    claims = {volume["name"]: volume.get("persistentVolumeClaim") for volume in pod["volumes"]}
    assert claims[mounted["/artifacts"]] == {"claimName": "gradmill-artifacts"}
    assert {"/prefect", "/tmp"} <= mounted.keys()  # noqa: S108
