"""``gradmill demo``: the published file, tried on a page in a real browser; the page is for this machine alone."""

import base64
import http.client
import io
import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import scipy.special
from PIL import Image

from browsing import CHROMIUM, MARKS, keep
from command_line import GRADMILL, assert_clear, gradmill
from conftest import REPOSITORY
from flows.server import prefect_server
from flows.server.demo import describe, load, make_server
from node_packages import node_modules
from own_tables import CLASSES, RECIPE, Array, by_hand, drawn_rows, drawn_weights
from tasks.data.io import pictures
from tasks.data.recipe import Columns
from tasks.serving import onnx_graph
from tasks.serving.contract import Signature
from tasks.serving.task import TASKS, TaskName

if TYPE_CHECKING:
    from playwright.sync_api import Page

SOFTMAX = "softmax-regression"
Tried = tuple[bytes, dict[str, Any]]  # the file, and what the page knows of it


@pytest.fixture
def images(artifacts: Path) -> Tried:
    """A classifier of grey images."""
    shutil.copytree(REPOSITORY / "tests" / "store_of_c692a25", artifacts)
    return load(SOFTMAX, None)


def table(recipe: Columns, task: TaskName, num_classes: int) -> tuple[Tried, dict[str, Array]]:
    """A model of a table, and the weights that it was made of."""
    signature = Signature(inputs=(recipe.input,), outputs=TASKS[task].outputs(num_classes))
    weights = drawn_weights(recipe, num_classes or 1)
    with io.BytesIO() as sample:
        np.savez(sample, features=drawn_rows(recipe, 8, odd=0.2))
        described = describe(recipe, [f"class {each}" for each in range(num_classes)], sample.getvalue())
    model = onnx_graph.write_model(weights, recipe, signature, {})
    return (model, {"name": "table", "version": 1, **described}), weights


@contextmanager
def serving(tried: Tried) -> Iterator[str]:
    """The page's ``127.0.0.1:port``."""
    server = make_server(*tried)
    with prefect_server.listening(0) as listener:
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


def test_only_this_machine_is_served_and_only_under_its_own_name(images: Tried) -> None:
    with serving(images) as here:
        port = here.partition(":")[2]
        assert json.loads(asked(here, "/model.json")[1])["version"] == 1
        assert asked(here, "/", Host=f"localhost:{port}")[0] == 200
        for host in (f"evil.example:{port}", "evil.example", "", "127.0.0.1.evil.example:80"):
            assert asked(here, "/model.json", Host=host)[0] == 400, host
        row = base64.b64decode(images[1]["samples"])[: 28 * 28]
        for origin in ("http://evil.example", "null", f"https://{here}"):
            assert asked(here, "/predict", row, Host=here, Origin=origin)[0] == 403, origin
        assert asked(here, "/predict", row, Host=here, Origin=f"http://{here}")[0] == 200
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", int(port)), timeout=5)


def test_no_path_leads_to_another_file(images: Tried) -> None:
    with serving(images) as demo:
        for path in (
            "/../demo.py", "/../../../pyproject.toml", "/%2e%2e/demo.py", "//etc/passwd", "/manifest.json",
            "/..%2fdemo.py", "/model.json/../../champion.json", "/demo_page/demo.js",
        ):  # fmt: skip
            assert asked(demo, path)[0] == 404, path


def test_no_script_but_its_own_runs_on_the_page(images: Tried) -> None:
    with serving(images) as demo:
        page = asked(demo, "/")
        policy = page[2]["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert page[1].endswith(b"</html>\n"), "nothing is added"


def test_the_local_server_answers_by_the_same_file_and_takes_one_row(images: Tried) -> None:
    rows = np.frombuffer(base64.b64decode(images[1]["samples"]), np.uint8).reshape(-1, 28, 28)
    expected = onnxruntime.InferenceSession(images[0]).run(None, {"images": rows})
    with serving(images) as demo:
        for at, row in enumerate(rows):
            status, content, _ = asked(demo, "/predict", row.tobytes())
            answer = json.loads(content)
            assert (status, answer["label"]) == (200, [expected[1][at]])
            np.testing.assert_allclose(answer["probabilities"], expected[0][at], atol=2e-5)
        for wrong in (b"", rows.tobytes(), b"x"):
            assert asked(demo, "/predict", wrong)[0] == 400
        for length in ("1" + "0" * 5000, "-1", str(2**40)):  # nothing is read of what is no row, by us or the server
            with suppress(ConnectionResetError):  # what was sent meanwhile is not read either
                assert asked(demo, "/predict", b"x", **{"Content-Length": length})[0] == 400
        assert asked(demo, "/model.json", b"x")[0] == 405


def test_an_answer_that_is_no_number_is_still_json() -> None:
    tried, _ = table(RECIPE, "regression", 0)
    row = np.array([0, np.finfo(np.float32).max, 1, 1, np.finfo(np.float32).max], np.float32)
    expected = onnxruntime.InferenceSession(tried[0]).run(None, {"features": row[None]})[0].ravel()
    assert not np.isfinite(expected).any()
    with serving(tried) as demo:
        content = asked(demo, "/predict", row.tobytes())[1]
    (answer,) = json.loads(content, parse_constant=lambda word: pytest.fail(word)).values()
    assert list(map(float, answer)) == list(expected)


def test_a_picture_is_read_as_predictions_read_it_its_transparency_ignored(images: Tried, tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).integers(1, 256, (28, 28, 4), np.uint8)
    drawn[:14, :, 3] = 0  # nothing of it would be left on a canvas
    path = tmp_path / "clear.png"
    Image.fromarray(drawn).save(path)
    with serving(images) as demo:
        status, content, _ = asked(demo, "/pixels", path.read_bytes())
        assert status == 200
        assert content == pictures.decode(path, (28, 28))[0].tobytes()
        assert content == Image.fromarray(drawn[..., :3]).convert("L").tobytes()
        assert asked(demo, "/pixels", b"GIF89a")[:2] == (
            400,
            b"the file is no picture: none of PNG, JPEG, WEBP, BMP, GIF",
        )
    with serving(table(CLASSES, "classification", 3)[0]) as demo:
        assert asked(demo, "/pixels", path.read_bytes())[:2] == (400, b"the model is of a table")


@pytest.mark.usefixtures("images")
def test_the_command_says_where_the_page_is_refuses_a_taken_port_and_ends_by_ctrl_c() -> None:
    command: list[str | Path] = [GRADMILL, "demo", SOFTMAX, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        document = json.loads("".join(demo.stdout.readline() for _ in range(6)))
        assert {"name": SOFTMAX, "version": 1}.items() <= document.items()
        address = document["url"].split("/")[2]
        for _ in range(100):
            if asked(address, "/model.json")[0] == 200:
                break
        again = gradmill("demo", SOFTMAX, "--port", address.partition(":")[2])
        assert_clear(again, 2)
        assert "is taken" in again.stderr
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=30)
    assert demo.returncode == 130


# In a browser


@pytest.fixture
def tab() -> "Iterator[Page]":
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: test)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # root in CI
        yield browser.new_context(viewport={"width": 390, "height": 800}, bypass_csp=False).new_page()
        browser.close()


def opened(tab: "Page", address: str) -> None:
    tab.goto(f"http://{address}/")
    tab.locator("body[data-ready]").wait_for(timeout=60_000)


def probabilities(tab: "Page") -> list[float]:
    """As the page shows them."""
    found: list[float] = tab.evaluate("[...document.querySelectorAll('progress')].map(bar => bar.value)")
    return found


def seen(tab: "Page") -> Array:
    """The pixels that the page says the model sees, ``(28, 28)``."""
    script = "Array.from(document.getElementById('seen').getContext('2d').getImageData(0, 0, 28, 28).data)"
    return np.array(tab.evaluate(script)).reshape(28, 28, 4)[..., 0]


def eventually_close(
    tab: "Page", find: Callable[[], list[float] | Array], expected: Array, tolerance: float = 2e-5
) -> None:
    for _ in range(100):
        found = np.array(find())
        if found.shape == expected.shape and np.allclose(found, expected, rtol=0, atol=tolerance):
            return
        tab.wait_for_timeout(50)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


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


def browser(test: Any) -> Any:
    for mark in MARKS:
        test = mark(test)
    return test


@browser
def test_an_image_dropped_gives_what_python_says_of_it(images: Tried, tab: "Page", tmp_path: Path) -> None:
    """Test images as they are, and photographs of other sizes, in colour and transparent as predictions read them."""
    rng = np.random.default_rng(0)
    rows = np.frombuffer(base64.b64decode(images[1]["samples"]), np.uint8).reshape(-1, 28, 28)
    drawn = [rng.integers(0, 256, shape, np.uint8) for shape in ((90, 61, 3), (20, 30), (28, 140, 3), (33, 28, 4))]
    session = onnxruntime.InferenceSession(images[0])
    with serving(images) as demo:
        opened(tab, demo)
        assert "by the published model.onnx" in tab.locator("#where").inner_text()
        for number, array in enumerate([*rows[:3], *drawn]):
            path = tmp_path / f"{number}.png"
            Image.fromarray(array).save(path)
            read, _ = pictures.decode(path, (28, 28))
            expected, (label,) = session.run(None, {"images": read[None]})
            drop(tab, path)
            eventually_close(tab, lambda: probabilities(tab), expected[0])
            best = images[1]["class_names"][label]
            assert tab.locator("#answer").inner_text().startswith(f"{best}, ")
            eventually_close(tab, lambda: seen(tab), read, 1)  # of 255; the answer may stand there a little earlier


@browser
def test_of_an_empty_paper_nothing_is_said_and_of_what_is_drawn_what_the_model_says_of_the_pixels_seen(
    images: Tried, tab: "Page"
) -> None:
    session = onnxruntime.InferenceSession(images[0])
    with serving(images) as demo:
        opened(tab, demo)
        tab.get_by_text("Draw something").wait_for()
        assert probabilities(tab) == []
        paper = tab.locator("#paper").bounding_box()
        assert paper is not None
        tab.mouse.move(paper["x"] + 100, paper["y"] + 60)
        tab.mouse.down()
        tab.mouse.move(paper["x"] + 180, paper["y"] + 260, steps=5)
        tab.mouse.up()
        tab.locator("progress").first.wait_for(state="attached")
        tab.wait_for_timeout(500)  # what was drawn last is read
        assert seen(tab).max() > 200
        drawn = session.run(None, {"images": seen(tab).astype(np.uint8)[None]})[0][0]
        eventually_close(tab, lambda: probabilities(tab), drawn)
        keep(tab, "demo")
        tab.get_by_role("button", name="Clear").click()
        tab.get_by_text("Draw something").wait_for()
        assert (probabilities(tab), seen(tab).max()) == ([], 0)


@browser
@pytest.mark.parametrize(("recipe", "task", "num_classes"), [(CLASSES, "classification", 3), (RECIPE, "regression", 0)])
def test_a_row_typed_gives_its_prediction(tab: "Page", recipe: Columns, task: TaskName, num_classes: int) -> None:
    tried, weights = table(recipe, task, num_classes)
    with serving(tried) as demo:
        opened(tab, demo)
        for city, area, garden, year in (
            ("city-3", "98.5", "yes", "1974"),
            ("(another)", "", "no", "2001"),
            ("(missing)", "300", "(missing)", ""),
        ):
            codes = {"city-3": 3.0, "(another)": 5.0, "(missing)": np.nan, "yes": 1.0, "no": 0.0}
            tab.get_by_label("city").select_option(label=city)
            tab.get_by_label("area").fill(area)
            tab.get_by_label("garden").select_option(label=garden)
            tab.get_by_label("heating").select_option(label="heating-1")
            tab.get_by_label("year").fill(year)
            row = np.array([[codes[city], float(area or "nan"), codes[garden], 1, float(year or "nan")]])
            scores = by_hand(weights, recipe, row)[0]
            if num_classes:
                eventually_close(tab, lambda: probabilities(tab), scipy.special.softmax(scores))
            else:
                number = lambda: [float(tab.locator("#answer").inner_text().split(": ")[1].replace(",", ""))]  # noqa: E731
                eventually_close(tab, number, scores, 5)  # of 250,000: six digits are shown


@browser
@pytest.mark.parametrize("of", ["images", "table"])
def test_the_page_is_for_everybody(request: pytest.FixtureRequest, tab: "Page", of: str) -> None:
    """axe-core has nothing to say; a phone's width is enough."""
    tried = request.getfixturevalue("images") if of == "images" else table(CLASSES, "classification", 3)[0]
    axe = (node_modules() / "axe-core" / "axe.min.js").read_text()
    with serving(tried) as demo:
        opened(tab, demo)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert tab.evaluate(f"{axe}; axe.run()")["violations"] == []
