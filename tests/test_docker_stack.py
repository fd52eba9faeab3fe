"""The composed stack, brought up by the commands of docs/containers.md and treated badly."""

import json
import os
import re
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
from fenced_blocks import blocks
from prefect_api import api_client, eventually
from prefect_ui import NAMES
from stand_ins import LIBRARY, build, copy_checkout, image
from tasks.data import book_datasets
from tasks.parameters import FASHION_MNIST
from tasks.store import artifact_paths
from written_tables import written

pytestmark = pytest.mark.docker
SERVICES = ("postgres", "server", "worker")
TARGETS = ("predict", "train")
OUTAGE_SECONDS = 20
DOCKER = """#!/bin/sh
[ "$1" = compose ] && shift && exec docker-compose "$@"
exec podman "$@"
"""


def published_command(pattern: str) -> str:
    """The one of docs/containers.md that this is found in, without its comment."""
    blocks = "".join((REPOSITORY / "docs/containers.md").read_text().split("```")[1::2])
    lines = [line.partition(" # ")[0].strip() for line in blocks.splitlines()]
    (found,) = (line for line in lines if re.search(pattern, line))
    return found


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

    def run(self, command: str) -> str:
        """Run a line of shell in the checkout; return its stdout."""
        return self.engine.command(["bash", "-euc", command], timeout=600, cwd=self.folder)

    def run_on_host(self, script: str) -> str:
        """Run lines of docs/backup.md, with folders of this checkout in place of the host's."""
        for place in ("/srv/gradmill", "/mnt/backup", "/etc/gradmill"):
            script = script.replace(place, f"{self.folder}/host{place}")
        return self.run(script)

    def published(self, pattern: str, more: str = "") -> str:
        """Run the one published command that this is found in, with more words behind it.

        Compose builds in BuildKit, an image of a registry: here Podman builds the images.
        """
        command = published_command(pattern) + more
        for target in TARGETS if "--build" in command else ():
            build(self.engine, target, self.folder)
        return self.run(command.replace("--build", ""))

    def secrets(self) -> list[str]:
        """The passwords of database and API, from the env file."""
        text = (self.folder / "docker" / ".env").read_text()
        return list(dict.fromkeys(re.findall(r"=(?:admin:)?([0-9a-f]+)$", text, re.MULTILINE)))

    def client(self) -> httpx.Client:
        """One with credentials, and a token once it has asked for something to be done."""
        return api_client(f"{self.server}/api", f"admin:{self.secrets()[1]}")

    def post(self, route: str, **body: Any) -> Any:
        """Ask the API, with credentials."""
        with self.client() as client:
            return client.post(route, json=body).raise_for_status().json()

    def trigger(self, deployment: str, *parameters: str) -> dict[str, Any]:
        """Start a run, as the published command does; return it as the API has it."""
        words = [deployment, "--json", *(f"--param {parameter}" for parameter in parameters)]
        command = published_command("gradmill trigger").replace("softmax-nightly --wait", " ".join(words))
        name = json.loads(self.run(command))["run"]
        (run,) = self.post("/flow_runs/filter", flow_runs={"name": {"any_": [name]}})
        return dict(run)

    def ended(self, run: dict[str, Any]) -> str:
        """Wait for the end of a run; return its state type."""
        final, this = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}, {"id": {"any_": [run["id"]]}}

        def state() -> str:
            (found,) = self.post("/flow_runs/filter", flow_runs=this)
            return str(found["state_type"])

        return str(eventually(lambda: (found := state()) in final and found, 240, "the run ends"))

    def assert_completes(self, run: dict[str, Any]) -> None:
        """See that a run comes to a good end."""
        assert self.ended(run) == "COMPLETED", self.logs(run)

    def stages(self, run: dict[str, Any], state: str) -> set[str]:
        """The stages of a run whose task runs are in this state; the server records them a little late."""
        tasks = self.post("/task_runs/filter", flow_runs={"id": {"any_": [run["id"]]}})
        return {task["name"] for task in tasks if task["state_type"] == state}

    def logs(self, run: dict[str, Any]) -> str:
        """What a run has logged at the server."""
        wanted = {"flow_run_id": {"any_": [run["id"]]}}
        return "\n".join(line["message"] for line in self.post("/logs/filter", logs=wanted, sort="TIMESTAMP_ASC"))

    def execute(self, service: str, *command: str) -> str:
        """Run a command in a service's container; return its stdout."""
        return self.engine.podman("exec", f"gradmill-{service}-1", *command).strip()

    def sql(self, query: str) -> str:
        """Ask PostgreSQL itself."""
        psql = ("psql", "--username=gradmill", "--tuples-only", "--no-align", "--command")
        return self.execute("postgres", *psql, query)

    def completed(self) -> int:
        """How many runs that somebody started have come to a good end; schedules may fire meanwhile."""
        return int(self.sql("select count(*) from flow_run where state_type = 'COMPLETED' and not auto_scheduled"))

    def run_predict_image(self, *command: str, mounts: tuple[str, ...] = ()) -> str:
        """Run a command of the other image on the volume of artifacts."""
        volumes = ("--volume=gradmill_artifacts:/artifacts", *mounts)
        return self.engine.podman("run", "--rm", *volumes, f"{LIBRARY}/gradmill:predict", *command)

    def champion(self, name: str) -> dict[str, Any]:
        """A model's pointer, read from the volume by the other image."""
        return dict(json.loads(self.run_predict_image("cat", f"/artifacts/models/{name}/champion.json")))

    def process(self, service: str) -> int:
        """The process id of a service's container, on this machine; 0 while it does not run."""
        return int(self.engine.podman("inspect", "--format", "{{.State.Pid}}", f"gradmill-{service}-1"))


@pytest.fixture(scope="module")
def stack(engine: Engine, fashion_mnist_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    for target in TARGETS:
        image(engine, target)
    running = Stack(engine, tmp_path_factory.mktemp("stack"))
    running.published("printf")
    data = written(running.folder / "data" / "houses.csv", {"area": range(200), "price": [3.0 * x for x in range(200)]})
    with (running.folder / "docker" / ".env").open("a") as settings:
        settings.write(f"GRADMILL_DATA={data.parent}\nPGPASSWORD={running.secrets()[0]}\n")
    running.published("up --detach$")
    fill_cache(running, fashion_mnist_files)
    yield running
    running.published(" down$", " --volumes")


def fill_cache(stack: Stack, files: Path) -> None:
    """The containers reach no mirror of Fashion-MNIST here; a filled cache touches no network."""
    copies = []
    for file in book_datasets.FILES:
        target = artifact_paths.raw_file(FASHION_MNIST, file.name, file.sha256).relative_to(artifact_paths.root())
        copies.append(f"install -D -m 644 /files/{file.name} /artifacts/{target}")
    mounts = (f"--volume={(files / file.name).resolve()}:/files/{file.name}:ro" for file in book_datasets.FILES)
    stack.run_predict_image("sh", "-c", " && ".join(copies), mounts=(*mounts,))


def test_every_container_is_unprivileged_and_on_loopback_only(stack: Stack) -> None:
    """Its limits are in test_docker_compose.py."""
    for service in SERVICES:
        (found,) = json.loads(stack.engine.podman("inspect", f"gradmill-{service}-1"))
        ports = found["HostConfig"]["PortBindings"].values()
        bound = [binding["HostIp"] for bindings in ports for binding in bindings or []]
        assert bound == (["127.0.0.1"] if service == "server" else [])
        status = stack.execute(service, "cat", "/proc/1/status")
        for line in (r"Uid:\s+(999|10001)\s", r"CapBnd:\s+0+$", r"NoNewPrivs:\s+1$"):
            assert re.search(f"(?m)^{line}", status), service


def test_without_credentials_every_route_but_health_and_readiness_answers_401(stack: Stack) -> None:
    paths = httpx.get(f"{stack.server}/openapi.json", timeout=120).raise_for_status().json()["paths"]
    assert len(paths) > 50
    with stack.client() as known:  # a token alone is no credential; without it nothing else is looked at
        known.post("/flows/count").raise_for_status()
        token = {name: value for name, value in known.headers.items() if "csrf" in name}
    assert token
    asked = [(verb, re.sub(r"\{[^}]*\}", "x", path), None) for path, verbs in paths.items() for verb in verbs]
    with httpx.Client(base_url=f"{stack.server}/api", headers=token, timeout=120) as client:
        answered = {
            path
            for verb, path, auth in (*asked, ("post", "/flows/count", ("admin", "wrong")))
            if client.request(verb, path, auth=auth).status_code != 401
        }
    assert answered == {"/health", "/ready"}


def test_schedules_and_automations_are_registered(stack: Stack) -> None:
    active = {each["name"]: [it["active"] for it in each["schedules"]] for each in stack.post("/deployments/filter")}
    assert active == {name: [True] for name in NAMES} | {"evaluate": [], "tune-monthly": [False]}
    enabled = {each["name"]: each["enabled"] for each in stack.post("/automations/filter")}
    assert enabled.pop("gradmill: crash runs whose heartbeats stop")
    assert list(enabled.values()) == [False, False], "those that retrain on drift"


def test_both_models_are_retrained_inside_and_the_other_image_labels_with_them(stack: Stack) -> None:
    stack.published("gradmill trigger")
    nightly = {"deployments": {"name": {"any_": ["softmax-nightly"]}}}
    (ours,) = [run for run in stack.post("/flow_runs/filter", **nightly) if not run["auto_scheduled"]]
    for name, run in (("softmax-regression", ours), ("linear-regression", stack.trigger("linear-weekly"))):
        stack.assert_completes(run)
        assert stack.champion(name)["version"] == 1
    assert "10,000 rows" in stack.published("docker run")


def test_a_table_of_the_host_is_retrained_on_schedule_and_its_model_copied_to_the_host(stack: Stack) -> None:
    stack.published("gradmill retrain")
    stack.published("gradmill schedule")
    stack.assert_completes(stack.trigger("retrain-houses"))
    stack.published(" cp ")
    assert json.loads((stack.folder / "models" / "houses" / "champion.json").read_bytes()) == stack.champion("houses")


def test_a_table_in_postgresql_is_retrained_on_schedule_whenever_a_row_was_added(stack: Stack) -> None:
    """Its password is in no document; unchanged rows publish nothing."""
    stack.engine.podman("network", "connect", "gradmill_default", "gradmill-postgres-1")  # as a database of the user's
    stack.sql("create table sold as select x as area, 3.0 * x + x % 7 as price from generate_series(1, 400) as x")
    place, query = "postgresql://gradmill@gradmill-postgres-1/gradmill", "select area, price from sold"
    options = ("--name", "sold", "--data", place, "--query", query, "--target", "price", "--no-predict")
    stack.execute("worker", "gradmill", "retrain", "linear-regression", *options)
    assert stack.champion("sold")["version"] == 1
    stack.execute("worker", "gradmill", "schedule", "sold", "--cron", "* * * * *")

    def comes_to(verdict: str) -> None:
        wanted = {"deployments": {"name": {"any_": ["retrain-sold"]}}, "flow_runs": {"tags": {"all_": [verdict]}}}
        eventually(lambda: stack.post("/flow_runs/filter", **wanted), 180, f"a scheduled run has {verdict}")

    comes_to("verdict:unchanged")
    stack.sql("insert into sold values (401, 1203.5)")
    comes_to("verdict:published")
    stack.execute("worker", "gradmill", "unschedule", "sold")
    assert stack.champion("sold")["version"] == 2
    search = f"grep -rl {stack.secrets()[0]} /artifacts /prefect || true"
    assert stack.execute("worker", "sh", "-c", search) == ""


def test_who_scrapes_the_workers_health_port_gets_figures_of_the_store(stack: Stack) -> None:
    opened = "urllib.request.build_opener(urllib.request.ProxyHandler({})).open('http://worker:8080/metrics')"
    told = stack.execute("server", "python", "-c", f"import urllib.request; print({opened}.read().decode())")
    assert 'gradmill_champion_version{name="softmax-regression"} 1.0' in told
    assert "gradmill_damaged_documents 0.0" in told
    stack.execute("worker", "python", "-m", "flows.server.healthcheck")


def test_the_server_shows_our_pages_behind_its_sign_in(stack: Stack) -> None:
    with httpx.Client(base_url=stack.server, timeout=120) as browser:
        assert browser.get("/gradmill").status_code == 401
        browser.get("/gradmill?sign-in", auth=("admin", stack.secrets()[1])).raise_for_status()
        page = browser.get("/gradmill").raise_for_status().text
        assert [words for words in ("softmax-nightly", "version 1", ": online") if words not in page] == []
        assert "data:image/png" in browser.get("/gradmill/softmax-regression").text, "with the trend"
    refusal = stack.execute("server", "sh", "-c", "touch /artifacts/x 2>&1 || true")
    assert "Read-only" in refusal


def test_down_an_upgrade_of_the_checkout_and_up_keep_history_and_models(stack: Stack) -> None:
    before = history_and_models(stack)
    stack.published(" down$")
    assert stack.engine.podman("ps", "--all", "--quiet") == ""
    pyproject = stack.folder / "pyproject.toml"
    pyproject.write_text(re.sub('(?m)^version = ".*"$', 'version = "99.0"', pyproject.read_text()))
    stack.published("up --detach --build$")
    version = ("python", "-c", "from importlib.metadata import version; print(version('gradmill'))")
    assert stack.execute("server", *version) == stack.execute("worker", *version) == "99.0"
    assert history_and_models(stack) == before
    stack.assert_completes(stack.trigger("linear-weekly", "force=true"))


def history_and_models(stack: Stack) -> tuple[int, dict[str, Any], int, set[str]]:
    """What no ``down`` and no upgrade may lose: finished runs, a champion, automations, deployments."""
    runs, champion = stack.completed(), stack.champion("softmax-regression")
    automations, deployments = stack.post("/automations/filter"), stack.post("/deployments/filter")
    assert runs >= 2
    return runs, champion, len(automations), {each["id"] for each in deployments}


@pytest.fixture(scope="module")
def killed_worker(stack: Stack) -> tuple[dict[str, Any], int]:
    """A run whose worker was killed in the middle of it, and that worker's process; it is known as dead much later."""
    run = stack.trigger("softmax-nightly", "training.num_epochs=5000")
    eventually(lambda: "train" in stack.stages(run, "RUNNING"), 120, "training has begun")
    worker = stack.process("worker")
    os.kill(worker, signal.SIGKILL)
    return run, worker


def test_a_worker_killed_in_mid_run_is_replaced(stack: Stack, killed_worker: tuple[dict[str, Any], int]) -> None:
    eventually(lambda: stack.process("worker") not in {0, killed_worker[1]}, 120, "a new worker runs")
    stack.assert_completes(stack.trigger("linear-weekly"))


def test_a_run_outlasts_twenty_seconds_without_postgresql_and_loses_nothing(stack: Stack) -> None:
    before = stack.completed()
    run = stack.trigger("softmax-nightly", "name=outage", "training.num_epochs=100")
    eventually(lambda: "epoch 10/100" in stack.logs(run), 120, "training has begun")
    stack.engine.podman("stop", "gradmill-postgres-1")
    time.sleep(OUTAGE_SECONDS)
    stack.engine.podman("start", "gradmill-postgres-1")
    eventually(lambda: httpx.get(f"{stack.server}/api/ready", timeout=120).is_success, 120, "the server is ready")
    stack.assert_completes(run)
    assert stack.completed() == before + 1
    stages = {"download", "validate", "preprocess", "train", "evaluate", "export", "publish", "predict"}
    eventually(lambda: stages <= stack.stages(run, "COMPLETED"), 120, "every stage is recorded as completed")
    told = {*(f"epoch {epoch}/100:" for epoch in range(10, 100, 10)), "100 epochs:"}
    log = re.compile(r"epoch \d+/100:|100 epochs:")
    eventually(lambda: {*log.findall(stack.logs(run))} == told, 60, "every line of the log")
    assert stack.champion("outage")["version"] == 1


def test_the_run_of_a_killed_worker_is_told_as_crashed(stack: Stack, killed_worker: tuple[dict[str, Any], int]) -> None:
    assert stack.ended(killed_worker[0]) == "CRASHED"


def test_nothing_secret_is_in_a_log_and_a_workers_begins_with_what_its_container_sees(stack: Stack) -> None:
    logs = {service: stack.engine.logs(f"gradmill-{service}-1") for service in (*SERVICES, "register")}
    assert all(logs.values())
    password, credential = stack.secrets()
    assert not [service for service, log in logs.items() if password in log or credential in log]
    assert re.search(r"(?m)^onnxruntime ok: onnxruntime \S+ runs CPUExecutionProvider$", logs["worker"])
    assert re.search(r"(?m)^gpu +note: the NVIDIA driver .* is not on this machine", logs["worker"])
    assert re.search(r"(?m)^server +ok: ", logs["worker"])


def test_a_backup_brings_history_and_models_back_to_a_machine_that_has_neither(stack: Stack) -> None:
    before, version = history_and_models(stack), stack.champion("linear-regression")["version"]
    once, nightly, restore = (block.text for block in blocks(REPOSITORY / "docs/backup.md") if block.language == "sh")
    dump = published_command("pg_dump")
    stack.run_on_host(once)
    stack.run_on_host(published_command("mount --bind"))
    stack.run_on_host(re.sub(r"(?m)^sqlite3 .*$", lambda _: f"(cd {stack.folder} && {dump})", nightly))
    stack.run_on_host("umount /srv/gradmill/artifacts")
    stack.published(" down$", " --volumes")
    stack.published("worker true$")
    stack.run_on_host(published_command("mount --bind"))
    stack.run_on_host(restore.replace("gradmill verify --all --artifacts artifacts\n", ""))
    stack.run_on_host("umount /srv/gradmill/artifacts")
    for command in ("gradmill verify", "--wait postgres"):
        stack.published(command)
    stack.run_on_host(published_command("pg_restore"))
    stack.published("register --adopt")
    stack.published("up --detach$")
    assert history_and_models(stack) == before
    stack.assert_completes(stack.trigger("linear-weekly"))
    assert stack.champion("linear-regression")["version"] == version, "the same data: unchanged"
