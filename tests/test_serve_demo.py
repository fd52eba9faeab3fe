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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import gradmill
import small_models
from browsing import CHROMIUM, MARKS, keep
from command_line import GRADMILL, assert_clear
from command_line import gradmill as run_gradmill
from conftest import REPOSITORY
from dated_tables import draw_rows
from flows.server import prefect_server
from flows.server.demo import load, make_server
from node_packages import node_modules
from small_models import CITIES, COLUMNS
from table_files import written
from tasks.data.io import pictures
from tasks.machine.arrays import Array
from tasks.store import artifact_paths

if TYPE_CHECKING:
    from playwright.sync_api import Page

SOFTMAX = "softmax-regression"
Tried = tuple[gradmill.Model, dict[str, Any]]  # and what the page knows of it
CLASSES: dict[str, tuple[str, ...]] = {"houses": (), "gardens": ("no", "yes"), "segments": ("cheap", "fair", "dear")}


@pytest.fixture
def images(artifacts: Path) -> Tried:
    """A classifier of grey images."""
    shutil.copytree(REPOSITORY / "tests" / "store_of_c692a25", artifacts)
    return load(SOFTMAX, None)


@pytest.fixture
def tables(artifacts: Path) -> None:
    """A regression on a table, and classifiers of two classes and of three."""
    for name, class_names in CLASSES.items():
        small_models.publish(name, class_names)


def session(model: gradmill.Model) -> onnxruntime.InferenceSession:
    """The published file."""
    return onnxruntime.InferenceSession(artifact_paths.version(model.name, model.version) / artifact_paths.ONNX)


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
    expected = session(images[0]).run(None, {"images": rows})
    with serving(images) as demo:
        for at, row in enumerate(rows):
            status, content, _ = asked(demo, "/predict", row.tobytes())
            answer = json.loads(content)
            assert (status, np.argmax(answer["probabilities"])) == (200, expected[1][at])
            np.testing.assert_allclose(answer["probabilities"], expected[0][at], atol=2e-5)
        for wrong in (b"", rows.tobytes(), b"x"):
            assert asked(demo, "/predict", wrong)[0] == 400
        for length in ("1" + "0" * 5000, "-1", str(2**40)):  # nothing is read of what is no row, by us or the server
            with suppress(ConnectionResetError):  # what was sent meanwhile is not read either
                assert asked(demo, "/predict", b"x", **{"Content-Length": length})[0] == 400
        assert asked(demo, "/model.json", b"x")[0] == 405


@pytest.mark.parametrize("name", CLASSES)
def test_a_row_of_a_table_is_answered_and_explained_as_gradmill_load_does(name: str, tables: None) -> None:
    """What a form sends: missing values, a level that nobody has seen, and rows to begin with."""
    model, described = load(name, None)
    rows = [*described["samples"], dict.fromkeys(COLUMNS), {"area": 98.5, "city": "Ulm", "garden": True, "rooms": 3}]
    with serving((model, described)) as demo:
        for row in rows:
            status, content, _ = asked(demo, "/predict", json.dumps(row).encode())
            answer, explained = json.loads(content), model.explain(row, "average")[0]
            assert status == 200
            if model.classes:
                np.testing.assert_array_equal(answer["probabilities"], model.predict_proba(row, "average")[0].tolist())
                best = int(np.argmax(answer["probabilities"]))
                explained = explained[best] if explained.ndim == 2 else explained
            else:
                assert answer["prediction"] == model.predict(row, "average")[0]
                assert sum(answer["added"]["values"]) == pytest.approx(answer["prediction"], rel=1e-6)
            assert (answer["added"]["columns"], answer["added"]["values"]) == ([*COLUMNS], explained.tolist())
        for wrong, found in {
            b"[1]": b"no object",
            b"{}": b"column 'area', 'city', 'garden', 'rooms' is missing",
            json.dumps({**rows[-1], "area": 1e300}).encode(): b"area is 1e+300, not a finite number",
            b"x": b"Expecting value",
            b"[" * 100_000: b"",
        }.items():
            status, content, _ = asked(demo, "/predict", wrong)
            assert (status, content[: len(found)]) == (400, found)


def test_samples_of_a_table_are_rows_that_give_what_the_file_gives(tables: None) -> None:
    model, described = load("houses", None)
    with np.load(artifact_paths.version("houses", 1) / "sample.npz") as sample:
        expected = session(model).run(None, {"features": sample["features"]})[0]
    np.testing.assert_allclose(model.predict(described["samples"], "average"), expected, rtol=1e-5)


def test_an_answer_that_is_no_number_is_still_json(tables: None) -> None:
    model, described = load("houses", None)
    largest = float(np.finfo(np.float32).max)
    row = {"area": largest, "city": None, "garden": True, "rooms": None}
    assert not np.isfinite(model.predict(row)).any()
    with serving((model, described)) as demo:
        content = asked(demo, "/predict", json.dumps(row).encode())[1]
    answer = json.loads(content, parse_constant=lambda word: pytest.fail(word))
    assert float(answer["prediction"]) == model.predict(row)[0]


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
    small_models.publish("segments", CLASSES["segments"])
    with serving(load("segments", None)) as demo:
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
        again = run_gradmill("demo", SOFTMAX, "--port", address.partition(":")[2])
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
    file = session(images[0])
    with serving(images) as demo:
        opened(tab, demo)
        assert "by the published model.onnx" in tab.locator("#where").inner_text()
        for number, array in enumerate([*rows[:3], *drawn]):
            path = tmp_path / f"{number}.png"
            Image.fromarray(array).save(path)
            read, _ = pictures.decode(path, (28, 28))
            expected, (label,) = file.run(None, {"images": read[None]})
            drop(tab, path)
            eventually_close(tab, lambda: probabilities(tab), expected[0])
            best = images[1]["class_names"][label]
            assert tab.locator("#answer").inner_text().startswith(f"{best}, ")
            eventually_close(tab, lambda: seen(tab), read, 1)  # of 255; the answer may stand there a little earlier


@browser
def test_of_an_empty_paper_nothing_is_said_and_of_what_is_drawn_what_the_model_says_of_the_pixels_seen(
    images: Tried, tab: "Page"
) -> None:
    file = session(images[0])
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
        drawn = file.run(None, {"images": seen(tab).astype(np.uint8)[None]})[0][0]
        eventually_close(tab, lambda: probabilities(tab), drawn)
        keep(tab, "demo")
        tab.get_by_role("button", name="Clear").click()
        tab.get_by_text("Draw something").wait_for()
        assert (probabilities(tab), seen(tab).max()) == ([], 0)


def read_number(tab: "Page") -> list[float]:
    """The answer that is shown, none as long as there is none."""
    _, _, number = tab.locator("#answer").inner_text().partition(": ")
    return [float(number.replace(",", "") or "nan")]


def read_added(tab: "Page") -> dict[str, float]:
    """What each column adds, as it is shown."""
    script = "[...document.querySelectorAll('#added tr')].map((row) => [...row.cells].map((cell) => cell.textContent))"
    return {name: float(value.replace(",", "")) for name, value in tab.evaluate(script)}  # at one moment


@browser
@pytest.mark.parametrize("name", CLASSES)
def test_a_row_typed_gives_its_prediction_and_what_each_column_adds(tab: "Page", name: str, tables: None) -> None:
    model, described = load(name, None)
    with serving((model, described)) as demo:
        opened(tab, demo)
        for city, area, garden, rooms in (
            (CITIES[1], "98.5", "yes", "3"),
            ("(another)", "", "no", "1"),
            ("(missing)", "200", "(missing)", "(missing)"),
        ):
            tab.get_by_label("city").select_option(label=city)
            tab.get_by_label("area").fill(area)
            tab.get_by_label("garden").select_option(label=garden)
            tab.get_by_label("rooms").select_option(label=rooms)
            row: dict[str, Any] = {"area": float(area) if area else None, "city": city, "rooms": rooms}
            row |= {"garden": {"yes": True, "no": False}.get(garden)}
            row = {key: None if value == "(missing)" else value for key, value in row.items()}
            explained = model.explain(row, "average")[0]
            if model.classes:
                expected = model.predict_proba(row, "average")[0]
                eventually_close(tab, lambda: probabilities(tab), expected)
                explained = explained[int(np.argmax(expected))] if explained.ndim == 2 else explained
            else:
                eventually_close(
                    tab, lambda: read_number(tab), model.predict(row, "average"), 5
                )  # of 250,000: six digits are shown
            shown = read_added(tab)
            sizes = [abs(value) for value in shown.values()][:-1]
            assert sizes == sorted(sizes, reverse=True)
            for column, value in zip(COLUMNS, explained, strict=False):
                assert shown[column] == pytest.approx(value, rel=1e-5)
        keep(tab, f"demo-{name}")


@browser
def test_a_date_is_one_field_of_the_form(tab: "Page", artifacts: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "rows.parquet", draw_rows())
    data = ("--data", str(file), "--target", "sales", "--no-predict")
    assert run_gradmill("retrain", "linear-regression", "--name", "sales", *data).returncode == 0
    model, described = load("sales", None)
    with serving((model, described)) as demo:
        opened(tab, demo)
        eventually_close(tab, lambda: read_number(tab), model.predict(described["samples"][0]), 0.01)
        for moment in ("2021-03-04T17:00", "2039-12-31T23:59"):
            tab.get_by_label("when").fill(moment)
            tab.get_by_label("area").fill("5")
            eventually_close(tab, lambda: read_number(tab), model.predict({"when": moment, "area": 5}), 0.01)
        assert {"when.month", "when.weekday", "when.hour", "when.year", "area"} < read_added(tab).keys()
        keep(tab, "demo-dates")


@browser
@pytest.mark.parametrize("of", ["images", "table"])
def test_the_page_is_for_everybody(request: pytest.FixtureRequest, tab: "Page", of: str) -> None:
    """axe-core has nothing to say; a phone's width is enough."""
    if of == "table":
        request.getfixturevalue("artifacts")
        small_models.publish("segments", CLASSES["segments"])
    tried = request.getfixturevalue("images") if of == "images" else load("segments", None)
    axe = (node_modules() / "axe-core" / "axe.min.js").read_text()
    with serving(tried) as demo:
        opened(tab, demo)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        assert tab.evaluate(f"{axe}; axe.run()")["violations"] == []
