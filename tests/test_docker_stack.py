"""The composed stack, brought up by the commands of docs/containers.md and treated badly."""

import json
import os
import re
import shlex
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from conftest import REPOSITORY
from container_engine import Engine
from duty import free_port
from prefect_api import api_client, eventually
from stand_ins import LIBRARY, build, copy_checkout
from tasks.data import book_datasets
from tasks.parameters import FASHION_MNIST
from tasks.store import artifact_paths
from written_tables import written

pytestmark = pytest.mark.docker
SERVICES = ("postgres", "server", "worker")
DEPLOYMENTS = {"softmax-nightly", "linear-weekly", "predict-daily", "evaluate", "maintenance-weekly", "tune-monthly"}
OPEN_ROUTES = {"/health", "/ready"}
OUTAGE_SECONDS = 20
DOCKER = """#!/bin/sh
[ "$1" = compose ] && shift && exec docker-compose "$@"
exec podman "$@"
"""


def published_commands() -> list[str]:
    """Those of docs/containers.md, without their comments."""
    section = (REPOSITORY / "docs/containers.md").read_text()
    blocks = "".join(section.split("```")[1::2])
    return [line.partition(" # ")[0].strip() for line in blocks.strip().splitlines()]


def published_command(pattern: str) -> str:
    """The one that this is found in."""
    (line,) = (line for line in published_commands() if re.search(pattern, line))
    return line


class Stack:
    """A checkout with what the images are made of, and ``docker`` on the PATH."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.folder = engine, folder
        copy_checkout(REPOSITORY, folder)
        shim = folder / "bin" / "docker"
        shim.parent.mkdir()
        shim.write_text(DOCKER)
        shim.chmod(0o755)
        port = str(free_port())
        engine.environment |= {"PATH": f"{shim.parent}:{os.environ['PATH']}", "GRADMILL_PORT": port}
        self.server = f"http://127.0.0.1:{port}"

    def published(self, pattern: str) -> str:
        """Run the one published command that this is found in.

        Compose builds in BuildKit, an image of a registry: here Podman builds what Compose would have asked for.
        """
        command = published_command(pattern)
        if "--build" in command:
            self._build()
            command = command.replace("--build", "")
        return self.engine.command(["bash", "-euc", command], timeout=300, cwd=self.folder)

    def _build(self) -> None:
        config = ["docker-compose", "-f", "docker/compose.yaml", "config", "--format", "json"]
        services = json.loads(self.engine.command(config, timeout=300, cwd=self.folder))["services"]
        wanted = {each["image"]: each["build"] for each in services.values() if "build" in each}
        assert wanted.keys() == {"gradmill:predict", "gradmill:train"}
        for image, asked in wanted.items():
            checkout = Path(asked["context"])
            assert checkout == self.folder
            assert f"gradmill:{asked['target']}" == image
            build(self.engine, asked["target"], checkout, asked["dockerfile"])

    def auth(self) -> tuple[str, str]:
        """User and password, from the env file."""
        user, password = re.findall(r"GRADMILL_AUTH=(.*):(.*)", (self.folder / "docker" / ".env").read_text())[0]
        return user, password

    def secrets(self) -> list[str]:
        """The passwords of database and API, from the env file."""
        text = (self.folder / "docker" / ".env").read_text()
        return list(dict.fromkeys(re.findall(r"=(?:admin:)?([0-9a-f]+)$", text, re.MULTILINE)))

    def post(self, route: str, **body: Any) -> Any:
        """Ask the API, with credentials."""
        with self.client() as client:
            return client.post(route, json=body).raise_for_status().json()

    def client(self) -> httpx.Client:
        """One with credentials, and a token once it has asked for something to be done."""
        return api_client(f"{self.server}/api", ":".join(self.auth()))

    def trigger(self, deployment: str, *parameters: str) -> dict[str, Any]:
        """Start a run, as the published command does; return it as the API has it."""
        published = published_command("gradmill trigger")
        command = published.replace("softmax-nightly --wait", deployment) + " --json"
        options = [word for parameter in parameters for word in ("--param", parameter)]
        words = shlex.split(command) + options
        name = json.loads(self.engine.command(words, timeout=600, cwd=self.folder))["run"]
        (run,) = self.post("/flow_runs/filter", flow_runs={"name": {"any_": [name]}})
        return dict(run)

    def state(self, run: dict[str, Any]) -> str:
        """The state type of a run."""
        answer = httpx.get(f"{self.server}/api/flow_runs/{run['id']}", auth=self.auth(), timeout=120)
        return str(answer.raise_for_status().json()["state_type"])

    def ended(self, run: dict[str, Any], timeout: float = 240) -> str:
        """Wait for the end of a run; return its state type."""
        final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
        return str(eventually(lambda: (state := self.state(run)) in final and state, timeout, "the run ends"))

    def stages(self, run: dict[str, Any], state: str) -> set[str]:
        """The stages of a run whose task runs are in this state; the server records them a little late."""
        tasks = self.post("/task_runs/filter", flow_runs={"id": {"any_": [run["id"]]}})
        return {task["name"] for task in tasks if task["state_type"] == state}

    def logs(self, run: dict[str, Any]) -> str:
        """What a run has logged at the server."""
        wanted = {"flow_run_id": {"any_": [run["id"]]}}
        return "\n".join(line["message"] for line in self.post("/logs/filter", logs=wanted, sort="TIMESTAMP_ASC"))

    def sql(self, query: str) -> str:
        """Ask PostgreSQL itself."""
        psql = ("psql", "--username=gradmill", "--tuples-only", "--no-align", "--command", query)
        return self.engine.podman("exec", "gradmill-postgres-1", *psql).strip()

    def completed(self) -> int:
        """How many runs that somebody started have come to a good end; schedules may fire meanwhile."""
        return int(self.sql("select count(*) from flow_run where state_type = 'COMPLETED' and not auto_scheduled"))

    def champion(self, name: str) -> dict[str, Any]:
        """A model's pointer, read from the volume by the other image."""
        command = ("cat", f"/artifacts/models/{name}/champion.json")
        volume = ("--volume", "gradmill_artifacts:/artifacts:ro")
        read = self.engine.podman("run", "--rm", *volume, f"{LIBRARY}/gradmill:predict", *command)
        return dict(json.loads(read))

    def process(self, service: str) -> int:
        """The process id of a service's container, on this machine; 0 while it does not run."""
        return int(self.engine.podman("inspect", "--format", "{{.State.Pid}}", f"gradmill-{service}-1"))


@pytest.fixture(scope="module")
def stack(engine: Engine, fashion_mnist_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    for target in ("predict", "train"):
        build(engine, target)
    running = Stack(engine, tmp_path_factory.mktemp("stack"))
    running.published("printf")
    data = written(running.folder / "data" / "houses.csv", {"area": range(200), "price": [3.0 * x for x in range(200)]})
    with (running.folder / "docker" / ".env").open("a") as settings:
        settings.write(f"GRADMILL_DATA={data.parent}\nPGPASSWORD={running.secrets()[0]}\n")
    running.published("up --detach$")
    _fill_cache(running, fashion_mnist_files)
    yield running
    running.engine.command(
        ["docker-compose", "-f", "docker/compose.yaml", "down", "--volumes"], timeout=600, cwd=running.folder
    )


def _fill_cache(stack: Stack, files: Path) -> None:
    # The containers reach no mirror of Fashion-MNIST here; a filled cache touches no network.
    raw = Path("/artifacts/datasets") / FASHION_MNIST / "raw"
    copies = []
    for file in book_datasets.FILES:
        target = raw / artifact_paths.raw_file(FASHION_MNIST, file.name, file.sha256).name
        copies.append(f"cp /files/{file.name} {target}")
    mounts = [f"--volume={(files / file.name).resolve()}:/files/{file.name}:ro" for file in book_datasets.FILES]
    script = " && ".join([f"mkdir -p {raw}", *copies])
    volume = "--volume=gradmill_artifacts:/artifacts"
    stack.engine.podman("run", "--rm", volume, *mounts, f"{LIBRARY}/gradmill:predict", "sh", "-c", script)


def test_every_container_is_unprivileged_limited_and_on_loopback_only(stack: Stack) -> None:
    for service in SERVICES:
        (found,) = json.loads(stack.engine.podman("inspect", f"gradmill-{service}-1"))
        host = found["HostConfig"]
        assert host["ReadonlyRootfs"], service
        assert host["Memory"] > 0, service
        assert host["NanoCpus"] > 0 or host["CpuQuota"] > 0, service
        assert host["PidsLimit"] > 0, service
        assert host["RestartPolicy"]["Name"] == "unless-stopped", service
        bound = [binding["HostIp"] for ports in host["PortBindings"].values() for binding in ports or []]
        assert bound == (["127.0.0.1"] if service == "server" else [])
        status = stack.engine.podman("exec", f"gradmill-{service}-1", "cat", "/proc/1/status")
        assert re.search(r"^Uid:\s+(999|10001)\s", status, re.MULTILINE), service
        assert re.search(r"^CapBnd:\s+0+$", status, re.MULTILINE), service
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE), service


def test_without_credentials_every_route_but_health_and_readiness_answers_401(stack: Stack) -> None:
    described = httpx.get(f"{stack.server}/openapi.json", timeout=120).raise_for_status().json()["paths"]
    routes = [(verb, path) for path, verbs in described.items() for verb in verbs]
    assert len(routes) > 100
    answers: dict[tuple[str, str], int] = {}
    with stack.client() as known:  # a token alone is no credential; without it nothing else is looked at
        known.post("/flows/count").raise_for_status()
        token = {name: value for name, value in known.headers.items() if "csrf" in name}
    assert token
    with httpx.Client(base_url=f"{stack.server}/api", headers=token, timeout=120) as client:
        for verb, path in routes:
            answers[verb, path] = client.request(verb, re.sub(r"\{[^}]*\}", "x", path)).status_code
        wrong = client.post("/flows/count", auth=("admin", "wrong")).status_code
    assert {path for (_, path), status in answers.items() if status != httpx.codes.UNAUTHORIZED} == OPEN_ROUTES
    assert wrong == httpx.codes.UNAUTHORIZED


def test_schedules_limit_and_automations_are_registered(stack: Stack) -> None:
    deployments = stack.post("/deployments/filter")
    assert {each["name"] for each in deployments} == DEPLOYMENTS
    for each in deployments:
        assert all(schedule["active"] == (each["name"] != "tune-monthly") for schedule in each["schedules"]), each[
            "name"
        ]
    limits = {each["name"]: each["limit"] for each in stack.post("/v2/concurrency_limits/filter")}
    assert limits["gpu"] == 1
    crash, *retrain_on_drift = sorted(stack.post("/automations/filter"), key=lambda each: str(each["name"]))
    assert crash["name"] == "gradmill: crash runs whose heartbeats stop"
    assert [each["enabled"] for each in (crash, *retrain_on_drift)] == [True, False, False]


def test_both_models_are_retrained_inside_and_the_other_image_labels_with_them(stack: Stack) -> None:
    stack.published("gradmill trigger")
    runs = {"linear-regression": stack.trigger("linear-weekly")}
    nightly = {"deployments": {"name": {"any_": ["softmax-nightly"]}}, "sort": "START_TIME_DESC"}
    ours = [run for run in stack.post("/flow_runs/filter", **nightly) if not run["auto_scheduled"]]
    (runs["softmax-regression"],) = ours
    for name, run in runs.items():
        assert stack.ended(run) == "COMPLETED", stack.logs(run)
        assert stack.sql(f"select state_type from flow_run where id = '{run['id']}'") == "COMPLETED"  # noqa: S608
        assert stack.champion(name)["version"] == 1
    done = stack.published("docker run")
    assert "10,000 rows" in done


def test_a_table_of_the_host_is_retrained_on_schedule_and_its_model_copied_to_the_host(stack: Stack) -> None:
    stack.published("gradmill retrain")
    stack.published("gradmill schedule")
    run = stack.trigger("retrain-houses")
    assert stack.ended(run) == "COMPLETED", stack.logs(run)
    stack.published(" cp ")
    assert json.loads((stack.folder / "models" / "houses" / "champion.json").read_bytes()) == stack.champion("houses")


def test_a_table_in_postgresql_is_retrained_on_schedule_whenever_a_row_was_added(stack: Stack) -> None:
    """Its password is in no document; unchanged rows publish nothing."""
    stack.engine.podman("network", "connect", "gradmill_default", "gradmill-postgres-1")  # as a database of the user's
    stack.sql("create table sold as select x as area, 3.0 * x + x % 7 as price from generate_series(1, 400) as x")
    worker, place = ("exec", "gradmill-worker-1", "gradmill"), "postgresql://gradmill@gradmill-postgres-1/gradmill"
    data = ("--data", place, "--query", "select area, price from sold", "--target", "price")
    stack.engine.podman(*worker, "retrain", "linear-regression", "--name", "sold", *data, "--no-predict")
    assert stack.champion("sold")["version"] == 1
    stack.engine.podman(*worker, "schedule", "sold", "--cron", "* * * * *")

    def verdicts() -> list[str]:
        runs = stack.post("/flow_runs/filter", deployments={"name": {"any_": ["retrain-sold"]}})
        return [tag for run in runs if run["auto_scheduled"] for tag in run["tags"] if tag.startswith("verdict:")]

    eventually(lambda: "verdict:unchanged" in verdicts(), 180, "a scheduled run finds the rows unchanged")
    stack.sql("insert into sold values (401, 1203.5)")
    eventually(lambda: "verdict:published" in verdicts(), 180, "a scheduled run finds the row that was added")
    stack.engine.podman(*worker, "unschedule", "sold")
    assert stack.champion("sold")["version"] == 2
    search = f"grep -rl {stack.secrets()[0]} /artifacts /prefect || true"
    found = stack.engine.podman("exec", "gradmill-worker-1", "sh", "-c", search)
    assert found == ""


def test_who_scrapes_the_workers_health_port_gets_figures_of_the_store(stack: Stack) -> None:
    opened = "urllib.request.build_opener(urllib.request.ProxyHandler({})).open('http://worker:8080/metrics')"
    ask = f"import urllib.request; print({opened}.read().decode())"
    told = stack.engine.podman("exec", "gradmill-server-1", "python", "-c", ask)
    assert 'gradmill_champion_version{name="softmax-regression"} 1.0' in told
    assert "gradmill_damaged_documents 0.0" in told


def test_down_and_up_keep_history_and_models(stack: Stack) -> None:
    before = kept(stack)
    stack.published(" down$")
    assert stack.engine.podman("ps", "--all", "--quiet") == ""
    stack.published("up --detach$")
    assert kept(stack) == before


def test_an_upgrade_of_the_checkout_keeps_history_and_models(stack: Stack) -> None:
    before = kept(stack)
    pyproject = stack.folder / "pyproject.toml"
    pyproject.write_text(re.sub('(?m)^version = ".*"$', 'version = "99.0"', pyproject.read_text()))
    stack.published("up --detach --build$")
    version = ("python", "-c", "from importlib.metadata import version; print(version('gradmill'))")
    assert {stack.engine.podman("exec", f"gradmill-{each}-1", *version).strip() for each in ("server", "worker")} == {
        "99.0"
    }
    assert kept(stack) == before
    run = stack.trigger("linear-weekly", "force=true")
    assert stack.ended(run) == "COMPLETED", stack.logs(run)


def kept(stack: Stack) -> tuple[int, dict[str, Any], int, set[str]]:
    """What no ``down`` and no upgrade may lose: finished runs, a champion, automations, deployments."""
    runs, champion = stack.completed(), stack.champion("softmax-regression")
    automations, deployments = stack.post("/automations/filter"), stack.post("/deployments/filter")
    assert runs >= 2
    assert champion["version"] == 1
    return runs, champion, len(automations), {each["id"] for each in deployments}


@pytest.fixture(scope="module")
def killed(stack: Stack) -> tuple[dict[str, Any], int]:
    """A run whose worker was killed in the middle of it, and that worker's process; it is known as dead much later."""
    run = stack.trigger("softmax-nightly", "training.num_epochs=5000")
    eventually(lambda: "train" in stack.stages(run, "RUNNING"), 120, "training has begun")
    worker = stack.process("worker")
    os.kill(worker, signal.SIGKILL)
    return run, worker


def test_a_worker_killed_in_mid_run_is_replaced(stack: Stack, killed: tuple[dict[str, Any], int]) -> None:
    eventually(lambda: stack.process("worker") not in {0, killed[1]}, 120, "a new worker runs")
    assert stack.ended(stack.trigger("linear-weekly")) == "COMPLETED"


def test_a_run_outlasts_twenty_seconds_without_postgresql_and_loses_nothing(stack: Stack) -> None:
    before = stack.completed()
    run = stack.trigger("softmax-nightly", "name=outage", "training.num_epochs=100")
    eventually(lambda: "epoch 10/100" in stack.logs(run), 120, "training has begun")
    stack.engine.podman("stop", "gradmill-postgres-1")
    time.sleep(OUTAGE_SECONDS)
    stack.engine.podman("start", "gradmill-postgres-1")
    eventually(lambda: httpx.get(f"{stack.server}/api/ready", timeout=120).is_success, 120, "the server is ready")
    assert stack.ended(run) == "COMPLETED", stack.logs(run)
    assert stack.completed() == before + 1
    stages = {"download", "validate", "preprocess", "train", "evaluate", "export", "publish", "predict"}
    eventually(lambda: stages <= stack.stages(run, "COMPLETED"), 120, "every stage is recorded as completed")
    told = {f"epoch {epoch}/100:" for epoch in range(10, 100, 10)} | {"100 epochs:"}
    eventually(
        lambda: set(re.findall(r"epoch \d+/100:|100 epochs:", stack.logs(run))) == told, 60, "every line of the log"
    )
    assert stack.champion("outage")["version"] == 1


def test_the_run_of_a_killed_worker_is_told_as_crashed(stack: Stack, killed: tuple[dict[str, Any], int]) -> None:
    assert stack.ended(killed[0]) == "CRASHED"


def test_nothing_secret_is_in_a_log(stack: Stack) -> None:
    secrets = stack.secrets()
    assert len(secrets) == 2
    logs = {service: stack.engine.logs(f"gradmill-{service}-1") for service in (*SERVICES, "register")}
    known = {"postgres": "database system", "server": "serving on", "worker": "Worker", "register": "registered:"}
    assert {service for service, words in known.items() if words in logs[service]} == known.keys()
    assert not [secret for secret in secrets if secret in "".join(logs.values())]


def test_a_workers_log_begins_with_what_its_container_sees(stack: Stack) -> None:
    log = stack.engine.logs("gradmill-worker-1")
    assert re.search(r"(?m)^ok +onnxruntime +onnxruntime \S+ runs CPUExecutionProvider$", log)
    assert re.search(r"(?m)^note +gpu +the NVIDIA driver .* is not on this machine", log)
    assert re.search(r"(?m)^ok +prefect api ", log)


def test_a_backup_brings_history_and_models_back_to_a_machine_that_has_neither(stack: Stack) -> None:
    before, version = kept(stack), stack.champion("linear-regression")["version"]
    for command in ("^install", "gradmill backup", "pg_dump"):
        stack.published(command)
    down = ["docker-compose", "-f", "docker/compose.yaml", "down", "--volumes"]
    stack.engine.command(down, timeout=600, cwd=stack.folder)
    for command in ("gradmill restore", "--wait postgres", "pg_restore", "up --detach$"):
        stack.published(command)
    assert kept(stack) == before
    run = stack.trigger("linear-weekly")
    assert stack.ended(run) == "COMPLETED", stack.logs(run)
    assert stack.champion("linear-regression")["version"] == version, "the same data: unchanged"
