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
WORKERS = {"docker": "DockerWorker", "kubernetes": "KubernetesWorker"}
GPU = {"driver": "nvidia", "count": 1, "capabilities": [["gpu"]]}


def template(pool: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((REPOSITORY / "docker" / "work-pools" / f"{pool}.json").read_text())
    return read


def worker_of(pool: str, suffix: str = "") -> Any:
    """Prefect's class for a kind of worker, or for what one is configured by; importing it takes two seconds."""
    return getattr(importlib.import_module(f"prefect_{pool}.worker"), WORKERS[pool] + suffix)


def job_configuration(pool: str, values: dict[str, Any]) -> Any:
    """What Prefect's worker makes of its settings for a run."""
    made = asyncio.run(worker_of(pool, "JobConfiguration").from_template_and_values(template(pool), values))
    made.prepare_for_flow_run(FlowRun(id=uuid4(), flow_id=uuid4(), name="a-run"))
    return made


def docker_container(**values: Any) -> dict[str, Any]:
    """What Docker's SDK would send to the engine for a run."""
    worker = worker_of("docker")(work_pool_name="gradmill", create_pool_if_not_found=False)
    settings = worker._build_container_settings(None, job_configuration("docker", values))
    return dict(_create_container_args({**settings, "version": "1.44"}))


@pytest.mark.parametrize("pool", WORKERS)
def test_a_template_sets_only_what_the_worker_knows_from_variables_that_are_each_used(pool: str) -> None:
    variables, job = template(pool)["variables"], template(pool)["job_configuration"]
    assert job.keys() <= worker_of(pool).get_default_base_job_template()["job_configuration"].keys()
    Draft202012Validator.check_schema(variables)
    used = re.findall(r"\{\{ (\w+) \}\}", json.dumps(job))
    assert {*used} == variables["properties"].keys()


@pytest.mark.slow  # Prefect's own commands
def test_a_server_takes_the_templates_by_the_published_commands(prefect_api: str, tmp_path: Path) -> None:
    commands = re.findall(r"(?m)^prefect work-pool create .*$", (REPOSITORY / "docs/containers.md").read_text())
    here = os.environ | {"PREFECT_API_URL": prefect_api, "PREFECT_HOME": str(tmp_path)}
    for command in commands:
        subprocess.run([sys.executable, "-m", *shlex.split(command)], env=here, cwd=REPOSITORY, check=True)
    with api_client(prefect_api) as client:
        for pool in WORKERS:
            created = client.get(f"/work_pools/gradmill-{pool}").raise_for_status().json()
            assert (created["type"], created["base_job_template"]) == (pool, template(pool))


def test_docker_containers_are_unprivileged_limited_and_keep_artifacts() -> None:
    made = docker_container()
    host = made["host_config"]
    assert (made["image"], made["user"]) == ("gradmill:train", f"{UID}:{UID}")
    assert made["environment"]["PREFECT_HOME"] == "/prefect"
    wanted = {
        "ReadonlyRootfs": True, "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges:true"], "Memory": 4 * 2**30,
        "MemorySwap": 4 * 2**30, "NanoCpus": 2 * 10**9, "PidsLimit": 512, "Binds": ["gradmill_artifacts:/artifacts"],
    }  # fmt: skip
    assert host | wanted == host
    assert set(host["Tmpfs"]) == {"/tmp", "/prefect"}  # noqa: S108  (inside the container)
    assert not host.get("DeviceRequests")
    (asked,) = docker_container(device_requests=[GPU])["host_config"]["DeviceRequests"]
    assert (asked["Driver"], asked["Count"], asked["Capabilities"]) == tuple(GPU.values()), "a GPU where one is wanted"


@pytest.mark.parametrize("values", [{}, {"gpus": "1"}])
def test_kubernetes_jobs_pass_its_strict_schema_and_its_pods_the_restricted_standard(values: dict[str, str]) -> None:
    job = copy.deepcopy(dict(job_configuration("kubernetes", values).job_manifest))
    pod = job["spec"]["template"]["spec"]
    for misplaced in ("completions", "parallelism"):
        del pod[misplaced]  # Prefect demands them there too; the API server ignores them
    kubernetes_validate.validate(job, "1.33", strict=True)
    (container,) = pod["containers"]
    limits = container["resources"]["limits"]
    assert (limits.get("nvidia.com/gpu"), limits["memory"]) == (values.get("gpus"), "4Gi")
    wanted = {"runAsNonRoot": True, "runAsUser": UID, "seccompProfile": {"type": "RuntimeDefault"}}
    assert pod["securityContext"] | wanted == pod["securityContext"]
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True,
    }  # fmt: skip
    assert {"name": "PREFECT_HOME", "value": "/prefect"} in container["env"]
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    claims = {volume["name"]: volume.get("persistentVolumeClaim") for volume in pod["volumes"]}
    assert claims[mounted["/artifacts"]] == {"claimName": "gradmill-artifacts"}
    assert {"/prefect", "/tmp"} <= mounted.keys()  # noqa: S108
