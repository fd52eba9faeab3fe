"""Gradmill's own page beside Prefect's UI: whom its link lets in, where to, and what it shows of any store."""

import asyncio
import base64
import hashlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.responses import PlainTextResponse

from browsing import DESKTOP, in_browser, open_tab
from command_line import in_own_mounts
from conftest import REPOSITORY
from duty import Duty
from flows.server import connection, prefect_server, session, supervisor
from node_packages import node_modules
from prefect_api import own_database
from tasks.store import folders
from tasks.store.run_folder import RunFolder

STORE = REPOSITORY / "tests" / "store_of_c692a25"
KEY = "me:a-secret-of-these-tests"
SECRETS = KEY, KEY.partition(":")[2], base64.b64encode(KEY.encode()).decode()
NAME, SOFTMAX = "linear-regression", "softmax-regression"
LINK = re.compile(r"http://127\.0\.0\.1:\d+/gradmill\?ticket=[0-9a-f]{32}\b")
PLACES = ("/gradmill", f"/gradmill/{NAME}", f"/gradmill/{NAME}/1", f"/gradmill/{SOFTMAX}/1")
VERSION = "/api/admin/version"
WEBSOCKET = {
    "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}  # fmt: skip


class UpServer(NamedTuple):
    """A server as ``gradmill up`` starts it, of a store with two names."""

    ui: str
    artifacts: Path
    log: Path

    def link(self) -> str:
        """Another link, as ``up`` makes it."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GRADMILL_ARTIFACTS", str(self.artifacts))
            return session.make_link(self.ui)


class Browser(NamedTuple):
    """A browser that has used a link, and what Prefect's UI then adds to its requests."""

    client: httpx.Client
    stored: dict[str, str]


@pytest.fixture
def browser(server: UpServer) -> Iterator[Browser]:
    with httpx.Client(base_url=server.ui, timeout=60) as client:
        welcome = client.get(server.link()).text
        (stored,) = re.findall(r'localStorage.setItem\("prefect-password", "(\w+)"\)', welcome)
        yield Browser(client, {"Authorization": f"Basic {stored}"})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpServer]:
    folder = tmp_path_factory.mktemp("landing")
    artifacts, home = folder / "artifacts", folder / "artifacts" / ".prefect"
    shutil.copytree(STORE, artifacts)
    home.mkdir(mode=0o700)
    with prefect_server.listen(0) as listener, (folder / "server.log").open("wb") as log:
        ui = prefect_server.address(listener)
        ours = {"GRADMILL_ARTIFACTS": str(artifacts), "PREFECT_HOME": str(home), "PREFECT_API_URL": f"{ui}/api"}
        ours |= {"PREFECT_API_AUTH_STRING": KEY, "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true"}
        environment = connection.SERVER_ENVIRONMENT | own_database() | dict(os.environ) | ours
        process = prefect_server.start(listener, KEY, environment, log)
        prefect_server.require_answer(f"{ui}/api", process, folder)
        yield UpServer(ui, artifacts, folder / "server.log")
        supervisor.stop(process)


@pytest.mark.slow
def test_a_link_works_once_and_lets_in_the_browser_that_has_used_it(server: UpServer) -> None:
    link = server.link()
    assert LINK.fullmatch(link)
    with httpx.Client(base_url=server.ui, timeout=60) as browser:
        assert [browser.get(place).status_code for place in PLACES] == [401] * 4
        entered = browser.get(link)
        pages = [browser.get(place) for place in PLACES]
        assert browser.get(link).status_code == 200, "who is in already sees the page"
    (cookie,) = entered.headers.get_list("set-cookie")
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
    assert entered.headers["referrer-policy"] == "no-referrer"
    assert 'http-equiv="refresh" content="0; url=/gradmill"' in entered.text
    for shown in pages:
        assert (shown.status_code, shown.headers["cache-control"]) == (200, "no-store")
        assert "frame-ancestors 'none'" in shown.headers["content-security-policy"]
    refused = httpx.get(link, timeout=60)
    assert (refused.status_code, "set-cookie" in refused.headers) == (401, False)
    for words in ("This link does not work any more: it works once, within ten minutes.", "gradmill up"):
        assert words in refused.text
    link = server.link()
    with ThreadPoolExecutor(16) as threads:
        answers = threads.map(lambda _: httpx.get(link, timeout=60).status_code, range(32))
    assert sorted(answers) == [200] + [401] * 31, "of many who use it at once one is let in"


@pytest.mark.parametrize("age", [601, -60])
def test_a_link_ends_after_ten_minutes_and_a_clock_that_was_set_back_makes_none_last(age: int, artifacts: Path) -> None:
    def make(age: int = 0) -> tuple[str, Path]:
        ticket = session.make_link("").rpartition("=")[2]
        kept = tickets / hashlib.sha256(ticket.encode()).hexdigest()
        os.utime(kept, (time.time() - age,) * 2)
        return ticket, kept

    tickets = artifacts / ".prefect" / "tickets"
    tickets.parent.mkdir(parents=True)
    assert not session.use_ticket(make(age)[0])
    make(age)
    fresh, kept = make()
    assert [*tickets.iterdir()] == [kept], "those that are too old are removed"
    assert (kept.stat().st_mode & 0o777, tickets.stat().st_mode & 0o777, kept.read_bytes()) == (0o600, 0o700, b"")
    assert session.use_ticket(fresh)


@pytest.mark.slow
def test_prefects_api_takes_both_keys_of_the_browser_and_neither_alone(server: UpServer, browser: Browser) -> None:
    client, stored = browser
    assert client.get(VERSION, headers=stored).status_code == 200
    assert client.get(VERSION).status_code == 401, "the page of another local server has the cookie sent, too"
    assert httpx.get(server.ui + VERSION, headers=stored).status_code == 401
    assert httpx.get(server.ui + VERSION, headers={"Authorization": f"Basic {SECRETS[2]}"}).status_code == 200
    (cookie,) = client.cookies.jar
    for name, value in ((cookie.name, "0" * 64), (cookie.name, ""), (cookie.name, "é"), ("gradmill", cookie.value)):
        headers = {b"Cookie": f"{name}={value}".encode(), b"Authorization": stored["Authorization"].encode()}
        for place in (VERSION, "/gradmill"):
            assert httpx.get(server.ui + place, headers=headers).status_code == 401
    assert client.get(VERSION, headers={b"Authorization": "Basic é".encode()}).status_code == 401


@pytest.mark.slow
def test_who_has_no_link_signs_in_with_user_and_password(server: UpServer) -> None:
    sign_in = f"{server.ui}/gradmill?sign-in"
    user, password = KEY.split(":")
    for wrong in (None, (user, "word"), ("you", password)):
        refused = httpx.get(sign_in, auth=wrong and httpx.BasicAuth(*wrong), timeout=60)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Basic realm="Gradmill"')
    with httpx.Client(base_url=server.ui, timeout=60) as browser:
        assert "?sign-in" in (first := browser.get("/gradmill")).text
        assert "www-authenticate" not in first.headers, "no browser asks before its user wants it"
        (stored,) = re.findall(r'"prefect-password", "(\w+)"', browser.get(sign_in, auth=(user, password)).text)
        assert [browser.get(place).status_code for place in PLACES] == [200] * 4
        assert browser.get(VERSION, headers={"Authorization": f"Basic {stored}"}).status_code == 200


@pytest.mark.slow
def test_a_server_answers_to_its_own_names_and_pages_only(server: UpServer, browser: Browser) -> None:
    client, stored = browser

    def create(**headers: str) -> int:
        return client.post("/api/variables/", json={"name": "x", "value": "y"}, headers=headers).status_code

    def get(place: str = VERSION, **headers: str) -> int:
        return client.get(place, headers=headers).status_code

    for host in ("localhost:4200", "LOCALHOST:1", "127.0.0.1"):  # near the end of a tunnel the port is another
        assert get(Host=host, Origin=f"http://{host}", **stored) == 200
    for host in ("evil.example", "evil.example:4200", "127.0.0.1.evil.example", "127.0.0.1@evil.example", "[", ":"):
        assert get(Host=host, Origin=f"http://{host}", **stored) == get("/gradmill", Host=host) == 400
    port = urlsplit(server.ui).port or 0
    for origin in ("http://evil.example", f"http://127.0.0.1:{port + 1}", "null", f"https://127.0.0.1:{port}", ""):
        assert get(Origin=origin) == get("/gradmill", Origin=origin) == create(Origin=origin) == 403
        assert get(Origin=origin, **stored) == create(Origin=origin, **stored) == 403
        assert get("/api/events/in", Origin=origin, **WEBSOCKET) == 403, "before it opens"
    assert create() in (401, 403), "a form of another page, without Origin"
    assert client.post("/gradmill", headers={"Origin": server.ui}).status_code == 405
    own = {"Origin": server.ui} | stored
    assert create(**own) == 403, "Prefect wants its own token"
    token = client.get("/api/csrf-token", params={"client": "x"}, headers=own).json()["token"]
    assert create(**own, **{"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "x"}) == 201


@pytest.mark.parametrize(
    ("origins", "host", "origin", "status"),
    [
        (["https://models.example"], "models.example", "https://models.example", 200),
        (["https://models.example"], "evil.example", "https://models.example", 400),
        (["*"], "127.0.0.1", "http://evil.example", 200),
        (["*"], "evil.example", "http://evil.example", 400),
    ],
)
def test_a_proxy_that_the_user_names_may_stand_before_it(
    origins: list[str], host: str, origin: str, status: int
) -> None:
    assert ask("/", None, origins, host=host, origin=origin).status_code == status


@pytest.mark.slow
def test_prefects_pages_load_nothing_from_elsewhere(browser: Browser) -> None:
    page = browser.client.get("/", headers={"Accept": "text/html"})
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'self' ")
    assert policy.endswith("; frame-ancestors 'self'"), "nor are they shown within pages of others"
    assert not re.search("http|[*]", policy)


@pytest.mark.slow
def test_the_credential_is_in_no_answer_and_in_no_log(server: UpServer, browser: Browser) -> None:
    client, stored = browser
    answers = [client.get(place) for place in (*PLACES, "/", "/ui-settings", "/gradmill/nothing", server.link())]
    answers += [client.get("/api/admin/settings", headers=stored), httpx.get(f"{server.ui}/gradmill")]
    said = [f"{answer.url} {answer.headers} {answer.text}" for answer in answers]
    said += [path.read_text() for path in (server.log, *(server.artifacts / ".prefect").rglob("*.log"))]
    assert not [each for each in said for secret in SECRETS if secret in each]


@pytest.mark.slow
def test_no_path_leads_to_a_file(server: UpServer, browser: Browser) -> None:
    (cookie,) = browser.client.cookies.jar
    connection = http.client.HTTPConnection(urlsplit(server.ui).netloc, timeout=30)
    for path in (
        f"/gradmill/{NAME}/../../../.prefect/prefect.db", f"/gradmill/{NAME}/1/../champion.json", "/gradmill/..",
        f"/gradmill/{NAME}/%2e%2e", "/gradmill/%2e%2e%2f%2e%2e%2fetc%2fpasswd", f"/gradmill/{NAME}/1/model.onnx",
        "/gradmill//etc/passwd", f"/gradmill/{NAME}/9", f"/gradmill/{NAME}/-1", "/gradmill/nothing", "/gradmill/a%00b",
        f"/gradmill/{NAME}/{'9' * 5000}",
    ):  # fmt: skip
        connection.request("GET", path, headers={"Cookie": f"{cookie.name}={cookie.value}"})
        answer = connection.getresponse()
        said = answer.read()
        assert (answer.status, b"There is no such page." in said) == (404, True), path
    connection.close()


def test_a_server_without_a_credential_shows_everybody_the_page_and_one_without_artifacts_has_one(
    artifacts: Path,
) -> None:
    assert "There is no model yet" in ask("/gradmill").text
    assert ask("/gradmill", KEY).status_code == ask("/gradmill?ticket=a", KEY).status_code == 401
    assert not artifacts.exists()
    shutil.copytree(STORE, artifacts)
    assert session.make_link("http://127.0.0.1:4200", asks=False) == "http://127.0.0.1:4200/gradmill"
    assert {ask(place).status_code for place in (*PLACES, "/gradmill?ticket=any")} == {200}
    assert ask(VERSION).text == ask("/gradmillx").text == "Prefect"


def ask(place: str, credential: str | None = None, origins: Sequence[str] = (), **headers: str) -> httpx.Response:
    """The answer of a server that has no API of Prefect's."""
    app = prefect_server.guard(session.let_in(PlainTextResponse("Prefect"), credential), origins)

    async def get() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:4200") as client:
            return await client.get(place, headers=headers)

    return asyncio.run(get())


def test_a_server_that_cannot_write_the_artifacts_shows_them_all_the_same(artifacts: Path) -> None:
    shutil.copytree(STORE, artifacts)
    run = RunFolder.open(f"20991101T030000-{NAME}-00000001", {"name": NAME, "gates": {}, "training": {"model": NAME}})
    code = "import sys; from test_operate_landing import ask; print(*(ask(place).text for place in sys.argv[1:]))"
    mounted = in_own_mounts(f'mount --bind "{artifacts}" "{artifacts}" && mount -o remount,ro,bind "{artifacts}"')
    with run.in_use():
        shown = subprocess.check_output(
            [*mounted, sys.executable, "-c", code, *PLACES], cwd=REPOSITORY / "tests", text=True, timeout=120
        )
    assert shown.count("<h1") == len(PLACES)
    assert "is going on" in shown, "which its lock tells"


@pytest.mark.parametrize("damage", ["champion.json", "1/manifest.json", "history.jsonl"])
def test_a_damaged_store_is_shown_with_its_fault(artifacts: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "LITTLE", 0)  # a disk that is nearly full would be another thing
    shutil.copytree(STORE, artifacts)
    (artifacts / "models" / NAME / damage).write_text("{\n{}\n")
    page, version = ask("/gradmill"), ask(f"/gradmill/{NAME}/1")
    assert [words for words in (damage, "1 thing needs attention", SOFTMAX) if words not in page.text] == []
    assert damage in ask(f"/gradmill/{NAME}").text
    is_its_own = damage == "1/manifest.json"
    assert (page.status_code, version.status_code) == (200, 500 if is_its_own else 200)
    assert ("to do: see gradmill verify linear-regression 1" in version.text) == is_its_own


@pytest.mark.slow  # a running gradmill up
def test_up_prints_the_link_first_and_a_second_up_another_one(duty: Duty) -> None:
    assert duty.lines[0].startswith("open        ")
    assert duty.lines[0].endswith(" (works once, within ten minutes)\n")
    (first,) = LINK.findall(duty.lines[0])
    second = duty.gradmill("up", PREFECT_API_URL="")
    assert second.returncode == 0
    (link,) = LINK.findall(second.stdout)
    assert link != first
    with httpx.Client(timeout=60) as browser:
        assert browser.get(link).status_code == 200
        page = browser.get(f"{duty.ui}/gradmill").text
    assert "softmax-nightly" in page, "with what the server knows"
    assert re.search(r"<th scope=\"row\"[^>]*>worker</th>", page)
    assert duty.credential.partition(":")[2] not in page


@in_browser
def test_the_link_leads_to_our_page_and_on_into_prefects_ui_without_a_password(server: UpServer) -> None:
    with open_tab(**DESKTOP) as tab:
        refused: list[str] = []
        tab.on("console", lambda message: refused.append(message.text) if "Content Security" in message.text else None)

        def follow(address: str, words: str) -> None:
            """As on a page of another site."""
            tab.goto(f"data:text/html,<a href='{address}'>open</a>")
            tab.get_by_role("link", name="open").click()
            tab.get_by_text(words).first.wait_for()

        follow(server.link(), "Models")
        tab.wait_for_url(f"{server.ui}/gradmill")  # the ticket is gone from the address
        tab.go_back()
        assert tab.url.startswith("data:"), "and from the way back"
        tab.go_forward()
        for link in (NAME, "version 1", "All models", "Deployments"):
            tab.get_by_role("link", name=link, exact=True).click()
        assert refused == []
        tab.wait_for_url("**/deployments")
        tab.get_by_text(re.compile("Add a deployment|Deployments")).first.wait_for()
        tab.wait_for_load_state("networkidle")
        assert not tab.get_by_text(re.compile("Login|Authentication failed")).count()
        tab.goto(f"{server.ui}/v2/dashboard")
        tab.get_by_text("Work Pools").first.wait_for()
        assert not tab.get_by_role("button", name="Login").count()
        kept = tab.evaluate("({...localStorage})"), tab.evaluate("document.cookie"), tab.context.storage_state()
        assert [secret for secret in SECRETS if secret in json.dumps(kept)] == []
        follow(f"{server.ui}/gradmill", "This browser is not signed in")
        tab.get_by_role("link", name="Try again").click()
        tab.get_by_role("heading", name="Models").wait_for()


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_are_for_everybody(server: UpServer, scheme: str) -> None:
    """axe-core has nothing to say; a phone's width is enough; every picture is drawn, and nobody else is asked."""
    with open_tab(color_scheme=scheme, viewport={"width": 390, "height": 800}, bypass_csp=True) as tab:
        asked: set[str] = set()
        tab.on("request", lambda request: asked.add(urlsplit(request.url).netloc))
        for place in ("/gradmill", server.link().removeprefix(server.ui), *PLACES):
            tab.goto(f"{server.ui}{place}")
            tab.wait_for_load_state("networkidle")
            assert tab.evaluate("document.documentElement.scrollWidth") <= 390
            assert all(tab.evaluate("[...document.images].map(image => image.naturalWidth)"))
            tab.evaluate((node_modules() / "axe-core" / "axe.min.js").read_text())
            assert tab.evaluate("axe.run()")["violations"] == []
        assert asked <= {urlsplit(server.ui).netloc, ""}, "what is in the page has no host"
