"""What tests share: an artifacts folder of their own, the real data, and one Prefect server for all.

The folder is flat; a test module's first word says what it tests:

- ``data`` raw files to arrays, ``train`` the networks, ``judge`` the gates, ``store`` what is published and who may
  change it, ``serve`` other runtimes that load it, ``predict`` batch prediction;
- ``run`` whole retrains and what makes a function a stage, ``operate`` server, schedules and registration, ``cli`` the
  command line from outside, ``docker`` images and the composed stack, ``doctor`` this machine;
- ``python`` the package ``gradmill``, which other programs import;
- ``bench`` the benchmarks in benchmarks/;
- ``imports`` who may import whom, ``docs`` what README and docs/ name.

Whatever two of them need lies in a module without the prefix ``test_``; none imports another.
"""

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from prefect.settings import Settings

    from candidate import Contender
    from container_engine import Engine
    from duty import Duty
    from flows.pages.report import RetrainReport
    from prefect_ui import Server

REPOSITORY = Path(__file__).parents[1]

settings.register_profile("shared", deadline=None)  # how long an example takes depends on what else the machine does
settings.load_profile("shared")


def pytest_configure(config: pytest.Config) -> None:
    """Keep the tests out of the user's Prefect, which test modules import before any fixture is set up."""
    home = tempfile.mkdtemp(prefix="gradmill-tests-prefect-")
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    os.environ["PREFECT_HOME"] = home
    os.environ |= {"DO_NOT_TRACK": "1", "ORT_DISABLE_TELEMETRY": "1"}
    # Or each of some hundred children would compile all that it imports of ours, where somebody wants no files of it.
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["OMP_NUM_THREADS"] = "1"  # two workers share two cores; idle threads that spin would cost them minutes
    os.environ["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE"):
        os.environ.pop(name, None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files that need ``gradmill up`` last: once started it takes a sixth of a core until the tests end."""
    files = {item.path for item in items if "duty" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path in files)


@pytest.fixture(autouse=True)
def artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty artifacts folder."""
    folder = tmp_path / "artifacts"
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(folder))
    monkeypatch.delenv("GRADMILL_FASHION_MNIST_DIR", raising=False)
    return folder


@pytest.fixture(scope="session")
def fashion_mnist_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the four real IDX files, downloaded once into the checkout's own cache."""
    from tasks.data import book_datasets

    folder = tmp_path_factory.mktemp("fashion-mnist")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADMILL_ARTIFACTS", str(REPOSITORY / "artifacts"))
        raw = book_datasets.fetch_files(book_datasets.SOURCES)
    for file in book_datasets.FILES:
        (folder / file.name).symlink_to(raw.files[file.name].path)
    return folder


@pytest.fixture
def fashion_mnist(fashion_mnist_files: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder, named as the user's own: nothing in the test touches the network."""
    monkeypatch.setenv("GRADMILL_FASHION_MNIST_DIR", str(fashion_mnist_files))
    return fashion_mnist_files


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real Prefect server, for child processes."""
    from flows.server.connection import temporary_server
    from prefect_api import own_database

    with ExitStack() as running:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GRADMILL_ARTIFACTS", str(tmp_path_factory.mktemp("server")))
            for name, value in own_database().items():
                patch.setenv(name, value)
            api_url, wait = running.enter_context(temporary_server())
        wait()
        yield api_url
        if worker := sys.modules.get("prefect.logging.handlers"):
            worker.APILogWorker.drain_all(timeout=30)  # at exit it would try to reach the server that is gone


@pytest.fixture
def on_server(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let child processes use the tests' server: no start-up of their own."""
    monkeypatch.setenv("PREFECT_API_URL", server)


@pytest.fixture(scope="session")
def duty(fashion_mnist_files: Path, tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Duty]":
    """A running ``gradmill up`` that the tests of one worker share."""
    from duty import Duty
    from prefect_api import own_database

    settings = own_database() | {
        "GRADMILL_FASHION_MNIST_DIR": str(fashion_mnist_files),
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",  # it plans once a minute unless told
    }
    running = Duty(tmp_path_factory.mktemp("duty") / "artifacts", settings)
    yield running
    running.kill()
    running.api.close()


@pytest.fixture(scope="session")
def server_settings(server: str) -> "Settings":
    """Prefect's settings for flows in this process: they take long to make."""
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    with temporary_settings({PREFECT_API_URL: server, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}) as made:
        return made


@pytest.fixture
def prefect_api(server: str, server_settings: "Settings") -> Iterator[str]:
    """The same server, for flows in this process."""
    from prefect_api import use_server

    with use_server(server_settings):
        yield server


@pytest.fixture(scope="module")
def module_folder(server_settings: "Settings", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of the module's own, into whose ``artifacts`` its fixtures retrain once, on the same server."""
    from prefect_api import use_server

    folder = tmp_path_factory.mktemp("module")
    with pytest.MonkeyPatch.context() as patch, use_server(server_settings):
        patch.setenv("GRADMILL_ARTIFACTS", str(folder / "artifacts"))
        yield folder


@pytest.fixture
def ui(server: str, monkeypatch: pytest.MonkeyPatch) -> "Iterator[Server]":
    """The server of all tests without any deployment."""
    from prefect_ui import Server

    for name in ("GRADMILL_HOME", "GRADMILL_NOTIFY"):
        monkeypatch.delenv(name, raising=False)
    found = Server(server)
    found.forget()
    yield found
    found.forget()
    found.api.close()


@pytest.fixture
def home(prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a ``prefect.yaml`` to edit, from which ``register`` in this process reads."""
    from flows.server import registration

    (tmp_path / "prefect.yaml").write_bytes((REPOSITORY / "prefect.yaml").read_bytes())
    monkeypatch.setattr(registration, "find_home", lambda: tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def pipeline(
    server_settings: "Settings", fashion_mnist_files: Path, tmp_path_factory: pytest.TempPathFactory
) -> "Pipeline":
    """Real retrains through the real Prefect engine, each run once however many tests look at it."""
    return Pipeline(server_settings, fashion_mnist_files, tmp_path_factory.mktemp("pipeline"))


class Pipeline:
    """``report(model, implementation)`` of retrains with default parameters, all into one artifacts folder."""

    def __init__(self, server: "Settings", fashion_mnist: Path, artifacts: Path) -> None:
        self.server, self.fashion_mnist, self.artifacts = server, fashion_mnist, artifacts
        self._reports: dict[str, RetrainReport] = {}

    def report(self, model: str, implementation: str = "concise", **training: object) -> "RetrainReport":
        from flows.retrain import retrain
        from prefect_api import use_server
        from tasks.parameters import RetrainParameters

        name = "-".join([model, implementation, *map(str, training.values())])
        if name not in self._reports:
            document = {"name": name, "training": {"model": model, "implementation": implementation, **training}}
            with pytest.MonkeyPatch.context() as patch, use_server(self.server):
                patch.setenv("GRADMILL_ARTIFACTS", str(self.artifacts))
                patch.setenv("GRADMILL_FASHION_MNIST_DIR", str(self.fashion_mnist))
                self._reports[name] = retrain(RetrainParameters.model_validate(document))
        return self._reports[name]

    def load_test(self, report: "RetrainReport") -> dict[str, Any]:
        """The arrays of the test split that a reported run trained on."""
        import safetensors.numpy

        prepared = json.loads((Path(report.run) / "run.json").read_bytes())["stages"]["preprocess"]
        return safetensors.numpy.load_file(self.artifacts / prepared["test"]["path"])


@pytest.fixture(scope="session")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> "list[Contender]":
    """Three candidates that differ in their seed, made once: exporting takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADMILL_ARTIFACTS", str(tmp_path_factory.mktemp("candidates")))
        from candidate import Contender, synthetic
        from tasks.store.run_folder import RunFolder

        made = []
        for seed in range(3):
            run = RunFolder.open(f"candidate-{seed}", {})
            made.append(Contender(run, synthetic(run), seed))
    return made


@pytest.fixture(scope="session")
def two_published(candidates: "list[Contender]", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifacts folder in which two candidates were published."""
    folder = tmp_path_factory.mktemp("two-versions") / "artifacts"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADMILL_ARTIFACTS", str(folder))
        for candidate in candidates[:2]:
            candidate.publish()
    return folder


@pytest.fixture
def two_versions(two_published: Path, artifacts: Path) -> None:
    """Two published versions of linear regression, this test's own; the second is the champion."""
    shutil.copytree(two_published, artifacts)


@pytest.fixture(scope="session")
def engine() -> "Iterator[Engine]":
    """Podman, with the images in its storage that docker/ takes from a registry."""
    import container_engine
    import stand_ins

    if missing := container_engine.what_is_missing():
        pytest.skip(f"containers cannot be run: {missing}")
    running = container_engine.Engine()
    try:
        stand_ins.make(running)
        yield running
    finally:
        running.close()
