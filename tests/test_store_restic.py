"""What docs/backup.md has a person type is typed while versions are published; then the machine is lost, and restored.

The commands are those of the page's own blocks, with folders of this test in place of the page's.
"""

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import safetensors.numpy

from candidate import write_job
from command_line import GRADMILL, answer, output, refused, run
from conftest import REPOSITORY
from documents import load
from fenced_blocks import blocks
from prefect_api import eventually
from store_state import damage
from table_files import houses, written
from tasks.data import own_rows
from tasks.records import ExportedModel
from tasks.store import artifact_paths, atomic, model_folder, pointer, publication
from tasks.store.history import Cause
from tasks.store.model_folder import Lineage
from tasks.store.record_base import FileRef
from victims import KILLS, fork

pytestmark = pytest.mark.skipif(
    not (shutil.which("restic") and shutil.which("sqlite3")), reason="restic or sqlite3 is not installed"
)
NAME = "houses"
ONCE, NIGHTLY, RESTORE = [block.text for block in blocks(REPOSITORY / "docs" / "backup.md") if block.language == "sh"]
VERIFY = "gradmill verify --all --artifacts artifacts\n"
SLOW = ("restic forget", "restic snapshots")  # lines that need not be typed in every round


class Machine(NamedTuple):
    """What the page calls /srv/gradmill, /mnt/backup and /etc/gradmill."""

    home: Path
    disk: Path
    settings: Path

    def type(self, script: str) -> "subprocess.CompletedProcess[str]":
        """Run a block of the page."""
        documented = {"/srv/gradmill": self.home, "/mnt/backup": self.disk, "/etc/gradmill": self.settings}
        for path, place in documented.items():
            script = script.replace(path, str(place))
        here = {"PATH": f"{Path(GRADMILL).parent}:{os.environ['PATH']}", "RESTIC_CACHE_DIR": f"{self.disk}-cache"}
        return subprocess.run(
            ["bash", "-c", script], env=os.environ | here, capture_output=True, text=True, timeout=300, check=False
        )

    def types(self, script: str) -> None:
        """The same, without a failure."""
        done = self.type(script)
        assert done.returncode == 0, done.stdout + done.stderr


def shorten(script: str) -> str:
    """A block without its slow lines, and without its end, which is typed in this process."""
    return "".join(line for line in script.splitlines(keepends=True) if not line.startswith(SLOW) and line != VERIFY)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_server: None) -> Machine:
    """A machine with a repository, a version of houses, and a database like that of ``gradmill up``."""
    one = Machine(tmp_path / "srv", tmp_path / "mnt", tmp_path / "etc")
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(one.home / "artifacts"))
    one.types(ONCE)
    table = written(tmp_path / "houses.csv", houses(300))
    command = f"retrain linear-regression --name {NAME} --data {table} --target price --no-predict"
    assert run(*command.split())["version"] == 1
    path = artifact_paths.database()
    path.parent.mkdir(exist_ok=True)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE changes (number INTEGER)")
    return one


def publish_without_end(artifacts: str) -> None:
    """The body of a process that publishes versions, goes back now and then, and writes to the database."""
    os.environ["GRADMILL_ARTIFACTS"] = artifacts  # since a fork server keeps its first environment
    number = 1
    while True:
        number = publish_another(number)
        with closing(sqlite3.connect(artifact_paths.database())) as database, database:
            database.execute("INSERT INTO changes VALUES (?)", (number,))
        if number % 4 == 0:
            pointer.rollback(NAME, and_freeze=False)
        time.sleep(0.05)


def publish_another(number: int) -> int:
    """What a retrain on other rows writes, in its order: row digests, the version, the pointer."""
    before = model_folder.find_manifest(NAME, number)
    assert before.dataset.rows is not None
    digests = safetensors.numpy.load(before.dataset.rows.path.read_bytes())
    digests["train"] = digests["train"] + np.uint64(1)
    with own_rows.scratch_folder(NAME) as scratch:
        rows = own_rows.write_digests(NAME, digests, scratch)
    facts = {field: getattr(before, field) for field in Lineage.model_fields}
    facts["dataset"] = before.dataset.model_copy(update={"rows": rows})
    folder = artifact_paths.version(NAME, number)
    model, metadata, sample, weights = (
        FileRef(path=folder / name, sha256=before.files[name])
        for name in ("model.onnx", "metadata.json", "sample.npz", "weights.npz")
    )
    exported = ExportedModel(
        onnx=model, metadata=metadata, sample=sample, weights=weights, profile=before.profile, gates=()
    )
    with publication.take_turn(NAME, to_publish=True):
        number = publication.publish(Lineage(**facts), exported, ())
        pointer.point_to(NAME, number, Cause("published", by=before.run))
    return number


def list_named() -> set[Path]:
    """What pointer and manifests name, found without the store's own checks."""
    model = artifact_paths.model(NAME)
    current = load(model / "champion.json")
    named = {model / str(number) for number in (current["version"], current["previous"]) if number}
    for manifest in model.glob("[1-9]*/manifest.json"):
        document = load(manifest)
        named |= {manifest.parent / filename for filename in (*document["files"], "manifest.json", "SHA256SUMS")}
        named.add(artifact_paths.root() / document["dataset"]["rows"]["path"])
    return named


def list_published() -> dict[Path, str]:
    """The SHA-256 of every file of every version, and of its row digests."""
    return {path: atomic.file_digest(path) for path in list_named() if path.is_file()}


def find_dangling() -> set[str]:
    """What is named and not there, and Triton's configuration if it is that of another version than the pointer."""
    dangling = {str(path) for path in list_named() if not path.exists()}
    version, configuration = load(artifact_paths.champion(NAME))["version"], artifact_paths.triton_config(NAME)
    if f"versions: [ {version} ]" not in configuration.read_text():
        dangling.add(str(configuration))
    return dangling


def count_changes() -> int:
    with closing(sqlite3.connect(artifact_paths.database())) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return int(database.execute("SELECT count(*) FROM changes").fetchone()[0])


@pytest.mark.slow
def test_nothing_published_before_a_backup_is_lost_with_the_machine_and_nothing_dangles_unsaid(
    machine: Machine, tmp_path: Path
) -> None:
    """Backups begin at random moments while versions are published and rolled back; each is restored."""
    rng, first_day = np.random.default_rng(47), tmp_path / "first-day"
    shutil.copytree(machine.home, first_day)
    num_published = 0
    for number in range(KILLS):
        is_whole = number in (0, KILLS - 1)  # with every line of the page
        publisher = fork(publish_without_end, str(artifact_paths.root()))
        eventually(lambda: len(model_folder.list_versions(NAME)) > 1, 60, "the first version is published")
        time.sleep(rng.uniform(0, 1))
        before, changes = list_published(), count_changes()
        machine.types(NIGHTLY if is_whole else shorten(NIGHTLY))
        os.kill(publisher.pid or 0, signal.SIGKILL)
        publisher.join()
        num_published += len(model_folder.list_versions(NAME)) - 1
        shutil.rmtree(machine.home)

        if is_whole:
            done = machine.type(RESTORE)
            assert done.returncode == (4 if find_dangling() else 0), done.stdout + done.stderr
        else:
            machine.types(shorten(RESTORE))
        assert before.items() <= list_published().items()
        assert count_changes() >= changes
        dangling = find_dangling()
        found = answer("verify --all", 4 if dangling else 0)["faults"]
        assert all(path.endswith((".rows", ".pbtxt")) for path in dangling), (
            "the pointer, copied first, names what is there"
        )
        assert {path for path in dangling if not any(path in fault["found"] for fault in found)} == set()
        assert len(found) == len(dangling)
        highest = max(model_folder.list_versions(NAME))
        if is_whole:
            written(tmp_path / "houses.csv", houses(500, seed=number + 1))
            retrained = run("retrain", NAME, "--no-predict")
            assert (retrained["outcome"], retrained["version"]) == ("published", highest + 1)
        shutil.rmtree(machine.home)
        shutil.copytree(first_day, machine.home)
    assert num_published > KILLS, "they were published beside the backups"


@pytest.mark.slow
def test_verify_all_names_a_pointer_without_its_version_and_lost_row_digests_with_what_mends_them(
    machine: Machine, tmp_path: Path
) -> None:
    publish_another(1)
    path = artifact_paths.version(NAME, 2)
    path.rename(tmp_path / "2")
    (fault,) = answer("verify --all", 4)["faults"]
    assert f"names version 2, and there is no {path}" in fault["found"]
    mend = fault["action"].partition(", or ")[0]
    assert mend == f"gradmill promote {NAME} 1"
    refused(4, "verify --all", "1 fault", "run gradmill verify --all again")
    output(mend.removeprefix("gradmill "))
    assert answer("verify --all")["whole"] == [{"name": NAME, "version": 1}]

    rows = model_folder.find_manifest(NAME, 1).dataset.rows
    assert rows is not None
    rows.path.unlink()
    (fault,) = answer("verify --all", 4)["faults"]
    assert f"{rows.path} is missing" in fault["found"]
    assert run("retrain", NAME, "--no-predict")["outcome"] == "unchanged"
    assert answer("verify --all")["faults"] == []


@pytest.mark.usefixtures("two_versions")
def test_verify_all_tries_every_version_and_the_parts_of_jobs() -> None:
    assert answer("verify --all")["whole"] == [{"name": "linear-regression", "version": number} for number in (1, 2)]
    damage(artifact_paths.version("linear-regression", 1) / "sample.npz", 100)
    write_job(artifact_paths.predictions("0123456789abcdef"), "linear-regression", 2, rows=1, shards=[[0, 0, 1]])
    document = answer("verify --all", 4)
    sample, part = (fault["found"] for fault in document["faults"])
    assert ("1/sample.npz" in sample, "part-00000.parquet is missing" in part) == (True, True)
    assert document["whole"] == [{"name": "linear-regression", "version": 2}]
