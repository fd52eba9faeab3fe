"""``gradmill demo``: the published file, tried on a page in a real browser; the page is for this machine alone."""

import base64
import http.client
import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import gradmill
import small_models
from browsing import in_browser, open_tab
from command_line import GRADMILL, assert_clear
from command_line import gradmill as run_gradmill
from conftest import REPOSITORY
from flows.server import prefect_server
from flows.server.demo_server import load, make_server
from node_packages import node_modules
from prefect_api import eventually
from small_models import CITIES, COLUMNS, MODELS
from tasks.data.io import pictures
from tasks.machine.arrays import Array

if TYPE_CHECKING:
    from playwright.sync_api import Page

SOFTMAX = "softmax-regression"
Tried = tuple[gradmill.Model, dict[str, Any]]  # and what the page knows of it


@pytest.fixture
def images(artifacts: Path) -> Tried:
    """A classifier of grey images."""
    shutil.copytree(REPOSITORY / "tests" / "store_of_c692a25", artifacts)
    return load(SOFTMAX, None)


@contextmanager
def serving(tried: Tried) -> Iterator[str]:
    """The page's ``127.0.0.1:port``."""
    server = make_server(*tried)
    with prefect_server.listen(0) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield prefect_server.address(listener).removeprefix("http://")
        finally:
            server.should_exit = server.force_exit = True  # also where a test has failed and left a connection
            thread.join()


def asked(address: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """Status, content and headers of an answer to exactly this path."""
    connection = http.client.HTTPConnection(address, timeout=30)
    connection.request("GET" if body is None else "POST", path, body, headers)
    response = connection.getresponse()
    found = response.status, response.read(), {name.lower(): value for name, value in response.getheaders()}
    connection.close()
    return found


# Who is served what


def test_only_this_machine_is_served_only_under_its_own_name_and_no_script_but_ours_runs(images: Tried) -> None:
    """Other names and origins are in test_operate_landing.py."""
    row = base64.b64decode(images[1]["samples"])[: 28 * 28]
    with serving(images) as here:
        port = here.partition(":")[2]
        assert json.loads(asked(here, "/model.json")[1])["version"] == 1
        assert asked(here, "/", Host=f"localhost:{port}")[0] == 200
        assert asked(here, "/model.json", Host=f"evil.example:{port}")[0] == 400
        for origin, status in (("http://evil.example", 403), (f"http://{here}", 200)):
            assert asked(here, "/predict", row, Host=here, Origin=origin)[0] == status, origin
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", int(port)), timeout=5)
        for path in (
            "/../demo_server.py", "/../../../pyproject.toml", "/%2e%2e/demo_server.py", "//etc/passwd",
            "/manifest.json", "/..%2fdemo_server.py", "/model.json/../../champion.json", "/demo_page/demo.js",
        ):  # fmt: skip
            assert asked(here, path)[0] == 404, path
        headers = asked(here, "/")[2]
    policy = headers["content-security-policy"]
    assert [each in policy for each in ("default-src 'none'", "script-src 'self';", "unsafe")] == [True, True, False]


# What is drawn, dropped or typed is answered below, in a browser.


def test_a_picture_is_answered_and_of_what_is_none_of_the_models_nothing_is_read(images: Tried) -> None:
    row = base64.b64decode(images[1]["samples"])[: 28 * 28]
    with serving(images) as demo:
        expected = images[0].predict_proba(np.frombuffer(row, np.uint8).reshape(1, 28, 28))[0]
        np.testing.assert_array_equal(json.loads(asked(demo, "/predict", row)[1])["probabilities"], expected)
        for wrong in (b"", row * 2, b"x"):
            assert asked(demo, "/predict", wrong)[0] == 400
        for length in ("1" + "0" * 5000, "-1", str(2**40)):  # nothing is read of what is no row, by us or the server
            with suppress(ConnectionResetError):  # what was sent meanwhile is not read either
                assert asked(demo, "/predict", b"x", **{"Content-Length": length})[0] == 400
        assert asked(demo, "/model.json", b"x")[0] == 405
        status, content, _ = asked(demo, "/pixels", b"GIF89a")
        assert (status, b"the file cannot be used: none of PNG" in content) == (400, True)


def test_a_row_of_a_table_is_answered_as_gradmill_load_does_or_refused() -> None:
    """The answers are those to the rows that a form begins with."""
    small_models.publish("houses")
    model, described = load("houses", None)
    odd = {"area": 98.5, "city": "Ulm", "garden": True, "rooms": 3}
    with serving((model, described)) as demo:
        for row in described["samples"]:
            answer = json.loads(asked(demo, "/predict", json.dumps(row).encode())[1])
            assert answer["prediction"] == model.predict(row, "average")
        for path, wrong, said in (
            ("/predict", b"[1]", b"no object"),
            ("/predict", b"{}", b"column 'area', 'city', 'garden', 'rooms' is missing"),
            ("/predict", json.dumps(odd | {"area": 1e300}).encode(), b"area is 1e+300, not a finite number"),
            ("/predict", json.dumps(odd | {"area": 3.4e38}).encode(), b"its prediction is not a finite number"),
            ("/predict", b"[" * 100_000, b""),
            ("/pixels", b"GIF89a", b"the model is of a table"),
        ):
            status, content, _ = asked(demo, path, wrong)
            assert (status, content[: len(said)]) == (400, said)


@pytest.mark.usefixtures("images")
def test_the_command_says_where_the_page_is_refuses_a_taken_port_and_ends_by_ctrl_c() -> None:
    command: list[str | Path] = [GRADMILL, "demo", SOFTMAX, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        document = json.loads("".join(demo.stdout.readline() for _ in range(6)))
        assert {"name": SOFTMAX, "version": 1}.items() <= document.items()
        address = document["url"].split("/")[2]
        assert asked(address, "/model.json")[0] == 200
        again = run_gradmill("demo", SOFTMAX, "--port", address.partition(":")[2])
        assert_clear(again, 2, "is taken")
        assert "PREFECT" not in again.stderr.upper()
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=30)
    assert demo.returncode == 130


# In a browser


@pytest.fixture
def tab() -> "Iterator[Page]":
    with open_tab(viewport={"width": 390, "height": 800}, bypass_csp=False) as page:
        yield page


def opened(tab: "Page", address: str) -> None:
    """The page, of which axe-core has nothing to say and for which a phone's width is enough."""
    tab.goto(f"http://{address}/")
    tab.locator("body[data-ready]").wait_for(timeout=60_000)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    axe = (node_modules() / "axe-core" / "axe.min.js").read_text()
    assert tab.evaluate(f"{axe}; axe.run()")["violations"] == []


PROBABILITIES = "[...document.querySelectorAll('progress')].map(bar => bar.value)"
SEEN = "Array.from(document.getElementById('seen').getContext('2d').getImageData(0, 0, 28, 28).data)"
NUMBER = "[Number(document.getElementById('answer').innerText.split(': ')[1]?.replaceAll(',', '') ?? NaN)]"


def read(tab: "Page", script: str) -> Array:
    """What the page shows: probabilities, the pixels ``(28, 28)`` that the model sees, or the number predicted."""
    found = np.array(tab.evaluate(script), float)
    return found.reshape(28, 28, 4)[..., 0] if script == SEEN else found


def eventually_close(tab: "Page", script: str, expected: Array, tolerance: float = 2e-5) -> None:
    def is_close() -> bool:
        found = read(tab, script)
        return found.shape == expected.shape and np.allclose(found, expected, rtol=0, atol=tolerance)

    eventually(is_close, 5, script)


def drop(tab: "Page", path: Path) -> None:
    """Drop a file as a person does."""
    script = """([content, name]) => {
        const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], name, { type: "image/png" }));
        return transfer;
    }"""
    transfer = tab.evaluate_handle(script, [base64.b64encode(path.read_bytes()).decode(), path.name])
    tab.dispatch_event("#paper", "drop", {"dataTransfer": transfer})


@in_browser
def test_of_an_empty_paper_nothing_is_said_and_of_what_is_drawn_or_dropped_what_the_model_says_of_the_pixels_seen(
    images: Tried, tab: "Page", tmp_path: Path
) -> None:
    """Photographs of other sizes, in colour and transparent, are read as predictions read them."""
    with serving(images) as demo:
        opened(tab, demo)
        assert "by the published model.onnx" in tab.locator("#where").inner_text()
        tab.get_by_text("Draw something").wait_for()
        assert not len(read(tab, PROBABILITIES))
        paper = tab.locator("#paper").bounding_box()
        assert paper is not None
        tab.mouse.move(paper["x"] + 100, paper["y"] + 60)
        tab.mouse.down()
        tab.mouse.move(paper["x"] + 180, paper["y"] + 260, steps=5)
        tab.mouse.up()
        tab.locator("progress").first.wait_for(state="attached")
        tab.wait_for_timeout(500)  # what was drawn last is read
        pixels = read(tab, SEEN)
        assert pixels.max() > 200
        eventually_close(tab, PROBABILITIES, images[0].predict_proba(pixels.astype(np.uint8))[0])
        tab.get_by_role("button", name="Clear").click()
        tab.get_by_text("Draw something").wait_for()
        assert (len(read(tab, PROBABILITIES)), read(tab, SEEN).max()) == (0, 0)
        for shape in ((28, 28), (90, 61, 3), (28, 140, 3), (33, 28, 4)):
            path = tmp_path / "dropped.png"
            Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8)).save(path)
            pixels, _ = pictures.decode(path, (28, 28))
            drop(tab, path)
            eventually_close(tab, PROBABILITIES, images[0].predict_proba(pixels)[0])
            assert tab.locator("#answer").inner_text().startswith(f"{images[0].predict(pixels)[0]}, ")
            eventually_close(tab, SEEN, pixels, 1)  # of 255; the answer may stand there a little earlier


def read_added(tab: "Page") -> dict[str, float]:
    """What each column adds, as it is shown."""
    script = "[...document.querySelectorAll('#added tr')].map((row) => [...row.cells].map((cell) => cell.textContent))"
    return {name: float(value.replace(",", "")) for name, value in tab.evaluate(script)}  # at one moment


WORDS = {True: "yes", False: "no", None: "(missing)"}
TYPED: list[dict[str, Any]] = [
    {"area": 98.5, "city": CITIES[1], "garden": True, "rooms": "3"},
    {"area": None, "city": "(another)", "garden": False, "rooms": "1"},
    {"area": 200, "city": None, "garden": None, "rooms": None},
]


@in_browser
@pytest.mark.parametrize("name", MODELS)
def test_a_row_typed_gives_its_prediction_and_what_each_column_adds(tab: "Page", name: str) -> None:
    small_models.publish(name, MODELS[name])
    model, described = load(name, None)
    with serving((model, described)) as demo:
        opened(tab, demo)
        for row in TYPED:
            for label, value in row.items():
                field = tab.get_by_label(label)
                field.fill(str(value or "")) if label == "area" else field.select_option(label=WORDS.get(value, value))
            (explained,) = model.explain(row, "average")
            if model.classes:
                (expected,) = model.predict_proba(row, "average")
                eventually_close(tab, PROBABILITIES, expected)
                explained = explained[int(np.argmax(expected))] if explained.ndim == 2 else explained
            else:  # of 250,000: six digits are shown
                eventually_close(tab, NUMBER, model.predict(row, "average"), 5)
            expected_added = explained[: len(COLUMNS)]  # the row before may have the same probabilities, not these

            def is_explained(wanted: Array = expected_added) -> bool:
                shown = read_added(tab)
                return np.allclose([shown[name] for name in COLUMNS], wanted, rtol=1e-5, atol=1e-12)

            eventually(is_explained, 5, "what each column adds")
            added = read_added(tab)
            sizes = [abs(value) for value in added.values()][:-1]
            assert sizes == sorted(sizes, reverse=True)
