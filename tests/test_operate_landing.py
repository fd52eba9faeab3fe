"""Gradmill's own page beside Prefect's UI: whom its link lets in, where to, and what it shows of any store."""

import asyncio
import base64
import hashlib
import hmac
import http.client
import http.server
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.responses import PlainTextResponse

from browsing import CHROMIUM, MARKS, TIMEOUT, keep
from command_line import assert_clear
from conftest import REPOSITORY
from duty import Duty
from flows.server import prefect_server, session, supervisor, up
from node_packages import node_modules
from prefect_api import own_database
from tasks.store import folders

if TYPE_CHECKING:
    from playwright.sync_api import Browser as Chromium

STORE = REPOSITORY / "tests" / "store_of_c692a25"
KEY = "me:a-secret-of-these-tests"
NAME, SOFTMAX = "linear-regression", "softmax-regression"
LINK = re.compile(r"http://127\.0\.0\.1:\d+/gradmill\?ticket=[0-9a-f]{32}\b")
PLACES = ("/gradmill", f"/gradmill/{NAME}", f"/gradmill/{NAME}/1", f"/gradmill/{SOFTMAX}/1")


def in_browser(test: Any) -> Any:
    """What browsing.py says of every test with a browser."""
    return reduce(lambda marked, mark: mark(marked), MARKS, test)


class UpPage(NamedTuple):
    """A server as ``gradmill up`` starts it, of a store with two names."""

    ui: str
    artifacts: Path
    log: Path

    def link(self) -> str:
        """Another link, as ``up`` makes it."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GRADMILL_ARTIFACTS", str(self.artifacts))
            return session.make_link(self.ui)

    def get(self, place: str, **headers: str) -> httpx.Response:
        """What a browser gets that has never been here."""
        return httpx.get(f"{self.ui}{place}", headers=headers, timeout=60)


class Browser(NamedTuple):
    """A browser that has used a link, and what Prefect's UI then adds to its requests."""

    client: httpx.Client
    stored: dict[str, str]


@pytest.fixture
def browser(server: UpPage) -> Iterator[Browser]:
    with httpx.Client(base_url=server.ui, timeout=60) as client:
        welcome = client.get(server.link()).text
        (stored,) = re.findall(r'localStorage.setItem\("prefect-password", "(\w+)"\)', welcome)
        yield Browser(client, {"Authorization": f"Basic {stored}"})


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpPage]:
    folder = tmp_path_factory.mktemp("landing")
    artifacts, home = folder / "artifacts", folder / "artifacts" / ".prefect"
    shutil.copytree(STORE, artifacts)
    home.mkdir(mode=0o700)
    with prefect_server.listen(0) as listener, (folder / "server.log").open("wb") as log:
        ui = prefect_server.address(listener)
        ours = {"GRADMILL_ARTIFACTS": str(artifacts), "PREFECT_HOME": str(home), "PREFECT_API_URL": f"{ui}/api"}
        ours |= {"PREFECT_API_AUTH_STRING": KEY, "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "true"}
        environment = up.SERVER_ENVIRONMENT | own_database() | dict(os.environ) | ours
        process = prefect_server.start(listener, KEY, environment, log)
        until = time.monotonic() + prefect_server.START_SECONDS
        assert prefect_server.wait_for_answer(f"{ui}/api", lambda: process.poll() is not None, until)
        yield UpPage(ui, artifacts, folder / "server.log")
        supervisor.stop(process)


@pytest.mark.slow
def test_a_link_works_once_and_lets_in_the_browser_that_has_used_it(server: UpPage) -> None:
    link = server.link()
    assert LINK.fullmatch(link)
    with httpx.Client(base_url=server.ui, timeout=60) as browser:
        for place in PLACES:
            assert browser.get(place).status_code == 401
        entered = browser.get(link)
        pages = [browser.get(place) for place in PLACES]
        assert browser.get(link).status_code == 200, "who is in already sees the page"
    assert entered.status_code == 200
    (cookie,) = entered.headers.get_list("set-cookie")
    assert {"HttpOnly", "Path=/", "SameSite=strict"} <= set(cookie.split("; "))
    assert entered.headers["referrer-policy"] == "no-referrer"
    assert 'http-equiv="refresh" content="0; url=/gradmill"' in entered.text
    for shown in pages:
        assert shown.status_code == 200
        assert shown.headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in shown.headers["content-security-policy"]
    refused = httpx.get(link)
    assert refused.status_code == 401
    assert "This link does not work any more: it works once, within ten minutes." in refused.text
    assert "gradmill up" in refused.text
    assert "set-cookie" not in refused.headers


@pytest.mark.slow
def test_of_many_who_use_a_link_at_once_one_is_let_in(server: UpPage) -> None:
    link = server.link()
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: httpx.get(link, timeout=60), range(32)))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 31


@pytest.mark.parametrize("age", [601, -60])
def test_a_link_ends_after_ten_minutes_and_a_clock_that_was_set_back_makes_none_last(age: int, artifacts: Path) -> None:
    def make() -> tuple[str, Path]:
        ticket = session.make_link("").rpartition("=")[2]
        return ticket, tickets / hashlib.sha256(ticket.encode()).hexdigest()

    tickets = artifacts / ".prefect" / "tickets"
    tickets.parent.mkdir(parents=True)
    ticket, kept = make()
    assert [*tickets.iterdir()] == [kept]
    assert (kept.stat().st_mode & 0o777, tickets.stat().st_mode & 0o777, kept.read_bytes()) == (0o600, 0o700, b"")
    os.utime(kept, (time.time() - age,) * 2)
    assert not session.use_ticket(ticket)
    _, old = make()
    os.utime(old, (time.time() - age,) * 2)
    fresh, kept = make()
    assert [*tickets.iterdir()] == [kept], "those that are too old are removed"
    assert session.use_ticket(fresh)


@pytest.mark.slow
def test_prefects_api_takes_both_keys_of_the_browser_and_neither_alone(server: UpPage, browser: Browser) -> None:
    client, stored = browser
    version = "/api/admin/version"
    assert client.get(version, headers=stored).status_code == 200
    assert client.get(version).status_code == 401, "the page of another local server has the cookie sent, too"
    assert server.get(version, **stored).status_code == 401
    (cookie,) = client.cookies.jar
    other = hmac.digest(b"me:another", b"cookie", "sha256").hex()
    for name, value in ((cookie.name, other), (cookie.name, ""), (cookie.name, "é"), ("gradmill", str(cookie.value))):
        headers = {b"Cookie": f"{name}={value}".encode(), b"Authorization": stored["Authorization"].encode()}
        for place in (version, "/gradmill"):
            assert httpx.get(f"{server.ui}{place}", headers=headers).status_code == 401
    assert client.get(version, headers={b"Authorization": "Basic é".encode()}).status_code == 401
    known = base64.b64encode(KEY.encode()).decode()
    assert server.get(version, Authorization=f"Basic {known}").status_code == 200


@pytest.mark.slow
def test_a_page_of_another_origin_gets_nothing_with_the_cookie(server: UpPage, browser: Browser) -> None:
    client, stored = browser

    def create(**headers: str) -> int:
        return client.post("/api/variables/", json={"name": "x", "value": "y"}, headers=headers).status_code

    port = urlsplit(server.ui).port or 0
    for origin in ("http://evil.example", f"http://127.0.0.1:{port + 1}", "null", f"https://127.0.0.1:{port}"):
        for headers in ({"Origin": origin}, {"Origin": origin} | stored):
            for place in ("/api/admin/version", "/gradmill"):
                assert client.get(place, headers=headers).status_code == 403
            assert create(**headers) == 403
    assert create() in (401, 403), "a form of another page, without Origin"
    assert client.get("/gradmill", headers={"Host": "evil.example"}).status_code == 400
    assert client.post("/gradmill", headers={"Origin": server.ui}).status_code == 405
    own = {"Origin": server.ui} | stored
    assert create(**own) == 403, "Prefect wants its own token"
    token = client.get("/api/csrf-token", params={"client": "x"}, headers=own).json()["token"]
    assert create(**own, **{"Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "x"}) == 201


@pytest.mark.slow
def test_the_credential_is_in_no_answer_and_in_no_log(server: UpPage, browser: Browser) -> None:
    client, stored = browser
    answers = [client.get(place) for place in (*PLACES, "/", "/ui-settings", "/gradmill/nothing", server.link())]
    answers += [client.get("/api/admin/settings", headers=stored), server.get("/gradmill")]
    secrets = KEY, KEY.partition(":")[2], base64.b64encode(KEY.encode()).decode()
    for answer in answers:
        said = f"{answer.url} {answer.headers} {answer.text}"
        assert not [secret for secret in secrets if secret in said], answer.url
    files = [server.log, *(path for path in (server.artifacts / ".prefect").rglob("*.log"))]
    assert not [path for path in files for secret in secrets if secret in path.read_text()]


@pytest.mark.slow
def test_no_path_leads_to_a_file(server: UpPage, browser: Browser) -> None:
    client = browser.client
    cookie = "; ".join(f"{each.name}={each.value}" for each in client.cookies.jar)
    connection = http.client.HTTPConnection(urlsplit(server.ui).netloc, timeout=30)
    for path in (
        f"/gradmill/{NAME}/../../../.prefect/prefect.db", f"/gradmill/{NAME}/1/../champion.json", "/gradmill/..",
        f"/gradmill/{NAME}/%2e%2e", "/gradmill/%2e%2e%2f%2e%2e%2fetc%2fpasswd", f"/gradmill/{NAME}/1/model.onnx",
        "/gradmill//etc/passwd", f"/gradmill/{NAME}/9", f"/gradmill/{NAME}/-1", "/gradmill/nothing", "/gradmill/a%00b",
        f"/gradmill/{NAME}/{'9' * 5000}",
    ):  # fmt: skip
        connection.request("GET", path, headers={"Cookie": cookie})
        answer = connection.getresponse()
        said = answer.read()
        assert (answer.status, b"There is no such page." in said) == (404, True), path
    connection.close()


@pytest.mark.slow
def test_the_page_says_what_is_live_and_leads_to_overviews_versions_and_prefects_ui(
    server: UpPage, browser: Browser
) -> None:
    live = json.loads((server.artifacts / "models" / NAME / "champion.json").read_text())
    page, overview, card = (browser.client.get(f"/gradmill{place}").text for place in ("", f"/{NAME}", f"/{SOFTMAX}/1"))
    champion = f'href="/gradmill/{NAME}/{live["version"]}"'
    leads = [f'href="{place}"' for place in (f"/gradmill/{NAME}", "/runs", "/deployments", "/automations")]
    since = live["promoted_at"][:16].replace("T", " ")
    assert [words for words in (champion, *leads, since, "no worker is online") if words not in page] == []
    assert champion in overview
    assert "live since" in overview
    assert "data:image/png" in card, "its pictures are in the page"


def test_a_server_without_a_credential_shows_everybody_the_page_and_one_without_artifacts_has_one(
    artifacts: Path,
) -> None:
    assert "There is no model yet" in ask("/gradmill").text
    assert ask("/gradmill", KEY).status_code == ask("/gradmill?ticket=a", KEY).status_code == 401
    assert not artifacts.exists()
    shutil.copytree(STORE, artifacts)
    assert session.make_link("http://127.0.0.1:4200", asks=False) == "http://127.0.0.1:4200/gradmill"
    for place in (*PLACES, "/gradmill?ticket=any"):
        assert ask(place).status_code == 200
    assert ask("/api/admin/version").text == ask("/gradmillx").text == "Prefect"


def ask(place: str, credential: str | None = None) -> httpx.Response:
    """The answer of a server that has no API of Prefect's."""

    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(prefect_server.guard(session.let_in(PlainTextResponse("Prefect"), credential)))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:4200") as client:
            return await client.get(place)

    return asyncio.run(get())


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
    assert duty.lines[0].endswith("  (works once, within ten minutes)\n")
    (first,) = LINK.findall(duty.lines[0])
    second = duty.gradmill("up", PREFECT_API_URL="")
    assert_clear(second, 2)
    (link,) = LINK.findall(second.stderr)
    assert link != first
    with httpx.Client(timeout=60) as browser:
        assert browser.get(link).status_code == 200
        page = browser.get(f"{duty.ui}/gradmill").text
        assert "softmax-nightly" in page, "with what the server knows"
        assert re.search(r"<th scope=\"row\"[^>]*>worker</th>", page)
    assert duty.credential.partition(":")[2] not in page
    document = json.loads(duty.gradmill("up", "--json", PREFECT_API_URL="").stdout)
    assert LINK.search(document["error"]["action"])


@pytest.fixture
def chromium() -> "Iterator[Chromium]":
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: test)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # root in CI
        yield browser
        browser.close()


@in_browser
def test_the_link_leads_to_our_page_and_on_into_prefects_ui_without_a_password(
    server: UpPage, chromium: "Chromium"
) -> None:
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, timezone_id="UTC")
    context.set_default_timeout(TIMEOUT)
    tab = context.new_page()
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
    tab.get_by_role("heading", name="Models").wait_for()
    assert refused == []
    keep(tab, "landing")
    tab.get_by_role("link", name=NAME, exact=True).click()
    tab.get_by_role("link", name="version 1", exact=True).click()
    tab.get_by_role("heading", name=f"{NAME}, version 1").wait_for()
    tab.get_by_role("link", name="All models").click()
    tab.get_by_role("link", name="Deployments", exact=True).click()
    tab.wait_for_url("**/deployments")
    tab.get_by_text(re.compile("Add a deployment|Deployments")).first.wait_for()
    tab.wait_for_load_state("networkidle")
    assert not tab.get_by_text(re.compile("Login|Authentication failed")).count()
    tab.goto(f"{server.ui}/v2/dashboard")
    tab.get_by_text("Work Pools").first.wait_for()
    assert not tab.get_by_role("button", name="Login").count()
    found = json.dumps([tab.evaluate("({...localStorage})"), tab.evaluate("document.cookie"), context.storage_state()])
    assert [secret for secret in (KEY, base64.b64encode(KEY.encode()).decode()) if secret in found] == []
    follow(f"{server.ui}/gradmill", "This browser is not signed in")
    tab.get_by_role("link", name="Try again").click()
    tab.get_by_role("heading", name="Models").wait_for()
    context.close()


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_are_for_everybody(server: UpPage, chromium: "Chromium", scheme: Any) -> None:
    """axe-core has nothing to say; a phone's width is enough."""
    context = chromium.new_context(color_scheme=scheme, viewport={"width": 390, "height": 800}, bypass_csp=True)
    tab = context.new_page()
    for place in ("/gradmill", server.link().removeprefix(server.ui), *PLACES):
        tab.goto(f"{server.ui}{place}")
        tab.wait_for_load_state("networkidle")
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        keep(tab, f"landing{place.split('?')[0].replace('/', '-')}-{scheme}")
        tab.evaluate((node_modules() / "axe-core" / "axe.min.js").read_text())
        assert tab.evaluate("axe.run()")["violations"] == []
    context.close()
