"""The published file, unchanged, in other runtimes: the same labels, probabilities within 2e-5, on 1000 test images."""

import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import safetensors.numpy

from conftest import REPOSITORY, Pipeline

pytestmark = pytest.mark.consumers

ROWS = 1000
TOLERANCE = 2e-5
JAVASCRIPT = REPOSITORY / "tests" / "javascript"


class Published:
    """The champion's file and what onnxruntime for Python says of the first test images."""

    def __init__(self, model: Path, images: np.ndarray) -> None:
        self.model, self.images = model, images
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        self.probabilities, self.label = session.run(None, {"images": images})

    def assert_same(self, probabilities: object, label: object | None) -> None:
        found = np.asarray(probabilities, np.float64).reshape(ROWS, 10)
        np.testing.assert_allclose(found, self.probabilities, rtol=0, atol=TOLERANCE)
        np.testing.assert_array_equal(found.argmax(axis=1), self.label)
        if label is not None:
            np.testing.assert_array_equal(np.asarray(label).astype(np.int64).reshape(ROWS), self.label)


@pytest.fixture(scope="module")
def published(pipeline: Pipeline) -> Published:
    report = pipeline.report("softmax-regression")
    images = safetensors.numpy.load_file(pipeline.prepared(report).test.path)["images"][:ROWS]
    return Published(Path(report.model_path or ""), images)


def test_onnx_reference_evaluator(published: Published) -> None:
    from onnx.reference import ReferenceEvaluator

    published.assert_same(*ReferenceEvaluator(str(published.model)).run(None, {"images": published.images}))


def test_tract(published: Published) -> None:
    tract = pytest.importorskip("tract", reason="the package tract is not installed (extra: consumers)")
    model = tract.onnx().load(str(published.model))
    runnable = model.into_model().into_runnable()
    probabilities, label = (each.to_numpy() for each in runnable.run([published.images]))
    published.assert_same(probabilities, label)


def test_opencv(published: Published) -> None:
    """Probabilities only: OpenCV 4 computes garbage labels, silently (README, "Other runtimes")."""
    cv2 = pytest.importorskip("cv2", reason="the package opencv-python-headless is not installed (extra: consumers)")
    net = cv2.dnn.readNetFromONNX(str(published.model))
    net.setInput(published.images)
    published.assert_same(net.forward("probabilities"), None)


@pytest.fixture(scope="module")
def node_modules() -> Path:
    """Onnxruntime for Node and the browser, from npm, installed once beside the virtual environment."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = REPOSITORY / ".venv" / "javascript"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(JAVASCRIPT / "package.json", folder / "package.json")
    installed = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"],
        cwd=folder,
        env=os.environ | {"ONNXRUNTIME_NODE_INSTALL": "skip"},  # its postinstall would download CUDA libraries
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if installed.returncode:
        pytest.skip(f"npm cannot install onnxruntime here: {installed.stderr.strip()[-300:]}")
    return folder / "node_modules"


@pytest.fixture
def served(published: Published, tmp_path: Path) -> Path:
    """A folder with the model and the images as raw bytes."""
    shutil.copyfile(published.model, tmp_path / "model.onnx")
    (tmp_path / "images.bin").write_bytes(published.images.tobytes())
    return tmp_path


def test_node(published: Published, node_modules: Path, served: Path) -> None:
    shutil.copyfile(JAVASCRIPT / "consume.mjs", node_modules.parent / "consume.mjs")
    done = subprocess.run(
        ["node", "consume.mjs", served],
        cwd=node_modules.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    answer = json.loads(done.stdout)
    published.assert_same(answer["probabilities"], answer["label"])


class Page(http.server.SimpleHTTPRequestHandler):
    """Serves a folder on loopback and keeps what the page posts back."""

    answers: list[dict[str, object]]

    def do_POST(self) -> None:
        self.answers.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()
        self.answered.set()

    answered: threading.Event

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def page(node_modules: Path, served: Path) -> Iterator[tuple[str, type[Page]]]:
    shutil.copyfile(JAVASCRIPT / "consume.html", served / "index.html")
    shutil.copytree(node_modules / "onnxruntime-web" / "dist", served / "dist")

    class Handler(Page):
        answers: list[dict[str, object]] = []  # noqa: RUF012  (one list for all requests is the point)
        answered = threading.Event()

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(served)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", Handler
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.browser
def test_browser(published: Published, page: tuple[str, type[Page]], tmp_path: Path) -> None:
    """Real headless Chromium, onnxruntime-web in WebAssembly, everything served from loopback."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    url, handler = page
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    options += ["--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0"]
    with subprocess.Popen(
        [chromium, *options, f"--user-data-dir={tmp_path / 'profile'}", url],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as browser:
        try:
            assert handler.answered.wait(90), "the page did not answer"
        finally:
            browser.terminate()
    (answer,) = handler.answers
    assert "error" not in answer, answer
    published.assert_same(answer["probabilities"], answer["label"])
