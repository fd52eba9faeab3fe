"""Registration that cannot go on: what is killed half way loses nothing, what is not taken or will not run is named."""

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.utilities.callables import parameter_schema

from conftest import REPOSITORY
from flows.server import deployments, registration
from flows.server.declared import declared, schema
from flows.server.kept import Kept
from flows.server.registered import digest, writable
from flows.server.status import status
from prefect_ui import NAMES, Server, command, edit
from tasks.errors import EnvironmentProblem, UsageError


class Killed(BaseException):
    """Where a kill would end the process."""


@pytest.mark.slow  # a registration for every request of one
def test_an_end_after_any_request_loses_nothing_and_the_next_registration_completes_it(
    ui: Server, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registration.register()
    ui.add_schedule("softmax-nightly")
    ui.set("predict-daily", parameters={"parameters": {"name": "mine"}})
    request = SyncPrefectClient.request
    left = 0

    def until_killed(self: SyncPrefectClient, method: Any, *arguments: Any, **options: Any) -> httpx.Response:
        nonlocal left
        answer = request(self, method, *arguments, **options)
        left -= method in ("PATCH", "DELETE") or "/schedules" in arguments[0]
        if left < 0:
            raise Killed
        return answer

    monkeypatch.setattr(SyncPrefectClient, "request", until_killed)
    for requests in range(20):
        hour, left = requests, requests
        schedules = [{"cron": f"{hour} 3 * * *", "timezone": "UTC", "slug": "nightly"}]
        edit(home, "softmax-nightly", description=f"Take {requests}.", schedules=schedules)
        edit(
            home, "predict-daily", description=f"Take {requests}.", parameters={"parameters": {"batch_size": hour + 1}}
        )
        try:
            registration.register()
        except Killed:
            pass
        else:
            break
        assert {"15 12 24 12 *"} < set(ui.crons("softmax-nightly"))
        assert ui.deployment("predict-daily")["parameters"] == {"parameters": {"name": "mine"}}
        left = 1000
        registration.register()
        assert ui.crons("softmax-nightly") == {f"{hour} 3 * * *": True, "15 12 24 12 *": True}
        assert ui.deployment("softmax-nightly")["description"] == f"Take {requests}."
        assert [each["schedule"]["cron"] for each in Kept.of("softmax-nightly").added] == ["15 12 24 12 *"]
        assert Kept.of("predict-daily").items == {"parameters": {"parameters": {"name": "mine"}}}
    assert 2 < requests < 19, "it has been ended at every one of its requests"


@contextmanager
def killing(server: Server, child: "list[subprocess.Popen[str]]") -> Iterator[str]:
    """The address of a proxy to ``server`` that lets the first change of a deployment through and kills ``child``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.removeprefix("/api")
            json_only = {"Content-Type": "application/json"}
            answer = server.api.request(self.command, path, content=body, headers=json_only)
            if self.command == "PATCH" and path.startswith("/deployments/"):
                child[0].kill()
            self.send_response(answer.status_code)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            self.wfile.write(answer.content)

        def do_POST(self) -> None:
            self.do_GET()

        def do_PATCH(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_port}/api"
        proxy.shutdown()


@pytest.mark.slow  # several registrations by the command line
def test_a_killed_register_of_a_file_without_one_of_ours_loses_no_schedule(ui: Server, home: Path) -> None:
    registration.register()
    ui.add_schedule("softmax-nightly")
    for name in ("flows", "tasks"):
        (home / name).symlink_to(REPOSITORY / name)
    edit(home, "softmax-nightly", description="Another.")
    document = yaml.safe_load((home / "prefect.yaml").read_text())
    document["deployments"] = [each for each in document["deployments"] if each["name"] != "linear-weekly"]
    (home / "prefect.yaml").write_text(yaml.safe_dump(document))
    ui.api.delete(f"/deployments/{ui.deployment('linear-weekly')['id']}").raise_for_status()
    children: list[subprocess.Popen[str]] = []
    with killing(ui, children) as proxied:
        children.append(command(ui, cwd=home, PREFECT_API_URL=proxied))
        children[0].communicate(timeout=120)
    assert children[0].returncode == -signal.SIGKILL
    assert ui.deployment("softmax-nightly")["description"] == "Another."
    assert ui.crons("softmax-nightly") == {"0 3 * * *": True, "15 12 24 12 *": True}
    _, said = (done := command(ui, cwd=home)).communicate(timeout=120)
    assert done.returncode == 0, said
    assert "no deployment linear-weekly: drift of linear-regression's input will start no retrain" in said
    assert ui.crons("softmax-nightly") == {"0 3 * * *": True, "15 12 24 12 *": True}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"schedules": [{"cron": "0 3 * * *"}]}, "slug: Field required"),
        ({"schedules": [{"cron": "nonsense", "slug": "x"}]}, "nonsense"),
        ({"build": [{"x": {}}]}, "build: Extra inputs are not permitted"),
        ({"entrypoint": "flows/retrain.py:retrain"}, "entrypoint flows/retrain.py:retrain is none of"),
        ({"description": "{{ $NO_SUCH }}"}, "NO_SUCH is not set"),
        ({"work_pool": None}, "work_pool"),
    ],
)
def test_what_register_does_not_take_is_named(fields: dict[str, Any], words: str, home: Path) -> None:
    edit(home, "softmax-nightly", **fields)
    with pytest.raises(UsageError, match=words):
        declared(home)


def test_a_file_that_is_no_yaml_is_named(home: Path) -> None:
    for text in (b"deployments: {", b"\xff\xfe\x00", b"[]"):
        (home / "prefect.yaml").write_bytes(text)
        with pytest.raises(UsageError, match=r"prefect\.yaml is not as gradmill register takes it"):
            declared(home)


def test_what_the_server_does_not_take_is_named(ui: Server, home: Path) -> None:
    edit(home, "predict-daily", parameters={"parameters": {"batch_size": -1}})
    with pytest.raises(EnvironmentProblem, match="deployment predict-daily is not accepted"):
        registration.register()
    edit(home, "predict-daily", parameters={}, work_pool={"name": "no-such"})
    with pytest.raises(EnvironmentProblem, match="no-such"):
        registration.register()


def test_forms_are_those_of_the_flows() -> None:
    from flows.evaluate import evaluate
    from flows.maintain import maintain
    from flows.predict import predict
    from flows.retrain import retrain

    for flow in (retrain, predict, evaluate, maintain):
        form = deployments.FORMS[f"flows.{flow.name}.{flow.fn.__name__}"]
        assert schema(form) == parameter_schema(flow).model_dump(exclude_unset=True)


def test_an_item_is_ours_only_while_it_is_as_we_registered_it() -> None:
    registered = {name: digest(name) for name in ("equal", "ours", "theirs", "deleted")}
    wanted = {"equal": "equal", "ours": "new", "theirs": "new", "deleted": "new", "added": "new"}
    there = {"equal": "equal", "ours": "ours", "theirs": "set", "more": "set"}
    assert writable(wanted, there, registered) == ({"ours": "new", "added": "new"}, ["theirs", "deleted"])
    assert writable(wanted, there, None) == ({}, ["ours", "theirs", "deleted", "added"])


@pytest.mark.slow
def test_what_will_not_run_is_said_at_once(ui: Server, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registration.register()
    for name in NAMES[2:]:
        ui.set(name, paused=True)
    ui.set_schedule("linear-weekly", active=False)
    ui.api.patch("/work_pools/gradmill", json={"is_paused": True}).raise_for_status()
    monkeypatch.setattr(deployments, "SCHEDULER_SECONDS", 600)  # what it would wait for plans of the server
    begun = time.monotonic()
    try:
        idle = deployments.idle(registration.POOL)
        assert status().pool_paused
    finally:
        ui.api.patch("/work_pools/gradmill", json={"is_paused": False}).raise_for_status()
    assert idle == [
        ("work pool gradmill", "paused, so no run begins"),
        ("linear-weekly", "no active schedule"),
        *((name, "paused") for name in NAMES[2:]),
    ]
    assert deployments.next_runs() == []
    assert time.monotonic() - begun < 300


@pytest.mark.slow
def test_a_run_that_never_began_gives_its_place_back(ui: Server, home: Path) -> None:
    """As after Ctrl-C while a worker was submitting it; a server that starts anew has forgotten the lease."""
    registration.register()
    weekly = f"/deployments/{ui.deployment('linear-weekly')['id']}/create_flow_run"
    first, second = (ui.api.post(weekly, json={}).raise_for_status().json()["id"] for _ in range(2))

    def submit(run: str) -> str:
        answer = ui.api.post(f"/flow_runs/{run}/set_state", json={"state": {"type": "PENDING", "name": "Submitting"}})
        return str(answer.raise_for_status().json()["state"]["name"])

    assert (submit(first), submit(second)) == ("Submitting", "AwaitingConcurrencySlot")
    deployments.give_up_what_never_began(registration.POOL)
    assert ui.api.get(f"/flow_runs/{first}").json()["state_type"] == "CRASHED"
    assert submit(second) == "Submitting"
