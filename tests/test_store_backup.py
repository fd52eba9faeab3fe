"""A backup is made while others work, is whole or is the one before, and a restore gives the same store elsewhere."""

import json
import os
import signal
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import pytest
from moto.server import ThreadedMotoServer

from candidate import Candidate
from command_line import assert_clear, gradmill
from flows.cli import app
from tasks.errors import DataError, UsageError
from tasks.store import (
    artifact_paths,
    backup,
    backup_place,
    backup_restore,
    history,
    locks,
    own_data,
    pointer,
    reading,
    tuned,
    verification,
)
from tasks.store.tuned import Tuned
from victims import fork

NAME = "linear-regression"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "backup"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """From then on artifacts/ is an empty folder of another machine."""

    def move() -> Path:
        folder = tmp_path / "elsewhere" / "artifacts"
        monkeypatch.setenv("GRADMILL_ARTIFACTS", str(folder))
        return folder

    return move


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with its mode, save locks."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name not in (".lock", "backup"))
    return {str(path.relative_to(folder)): (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) for path in found}


def some_settings() -> None:
    facts: dict[str, Any] = {"model": NAME, "dataset_digest": "0" * 64, "settings": {"lr": 0.1}, "num_trials": 1}
    facts |= {"validation_losses": (0.1,), "default_settings": {}, "default_losses": (), "num_validation": 1}
    tuned.keep(NAME, Tuned(**facts, seed=0, run="a-search"))
    artifact_paths.schedules().parent.mkdir(parents=True)
    artifact_paths.schedules().write_text("{}")


def test_a_restored_store_is_the_same_verifies_and_is_unchanged_by_the_same_candidate(
    candidates: list[Candidate], two_versions: None, artifacts: Path, place: Path, elsewhere: Callable[[], Path]
) -> None:
    some_settings()
    pointer.rollback(NAME, "a bad day")
    told = history.changes(NAME)
    backup.make(str(place))
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    there = elsewhere()
    backup_restore.restore(str(place))
    for folder in ("models", "tuned", "schedules"):
        assert files(there / folder) == files(artifacts / folder)
    assert stat.S_IMODE((there / "models" / NAME / "1").stat().st_mode) == 0o555
    for number in (1, 2):
        verification.verify(NAME, number)
    assert history.changes(NAME) == told
    assert candidates[1].publish().outcome == "unchanged"
    assert pointer.is_frozen(NAME)


def test_a_second_backup_copies_what_is_new_and_removes_what_nothing_names(two_versions: None, place: Path) -> None:
    first = backup.make(str(place))
    assert first.copied
    assert backup.make(str(place)).copied == []
    pointer.freeze(NAME)
    again = backup.make(f"file://{place}")
    assert {Path(path).name for path in again.copied} == {"champion.json", ".history.json", "history.jsonl"}
    assert {path.name for path in (place / "content").iterdir()} == {
        each.sha256 for each in again.backup.files.values()
    }


def test_a_name_is_locked_only_while_its_files_are_copied(
    two_versions: None, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: dict[str, bool] = {}
    one = backup._Copying.one

    def looking(self: Any, file: Path, path: Path) -> None:
        held[path.parts[-2] if path.parent.name == "1" else path.name] = locks.is_held(
            artifact_paths.lock(artifact_paths.model(NAME))
        )
        one(self, file, path)

    monkeypatch.setattr(backup._Copying, "one", looking)
    some_settings()
    backup.make(str(place))
    assert held["champion.json"]
    assert held["1"]
    assert not held["schedules.json"]


# What is refused, what is damaged


def test_what_cannot_be_backed_up_or_restored_is_said(two_versions: None, place: Path, tmp_path: Path) -> None:
    assert_clear(gradmill("backup", str(artifact_paths.root() / "backup")), 2)
    assert_clear(gradmill("restore", str(place), "--artifacts", str(tmp_path / "new")), 2)
    assert gradmill("backup", str(place)).returncode == 0
    done = gradmill("restore", str(place))
    assert_clear(done, 2)
    assert "an empty artifacts folder" in done.stderr
    path = artifact_paths.version(NAME, 1) / "model.onnx"
    path.chmod(0o644)
    path.write_bytes(b"other")
    before = files(place)
    done = gradmill("backup", str(place))
    assert_clear(done, 4)
    assert str(path) in done.stderr
    assert files(place) == before, "the backup is as it was"


def test_an_artifacts_folder_as_a_checkout_brings_it_is_empty(
    two_versions: None, place: Path, elsewhere: Callable[[], Path]
) -> None:
    backup.make(str(place))
    there = elsewhere()
    (there / ".locks").mkdir(parents=True)
    for name in ("README.md", ".gitignore", ".locks/backup"):
        (there / name).touch()
    backup_restore.restore(str(place))
    with pytest.raises(UsageError):
        backup_restore.restore(str(place))


def test_a_damaged_backup_is_found_out_and_the_same_restore_goes_on_once_it_is_mended(
    two_versions: None, place: Path, elsewhere: Callable[[], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    made = backup.make(str(place)).backup
    broken = place / "content" / made.files[f"models/{NAME}/2/model.onnx"].sha256
    right = broken.read_bytes()
    there = elsewhere()
    for wrong in (right[:-1] + b"x", right[:-1], None):
        broken.unlink()
        if wrong is not None:
            broken.write_bytes(wrong)
        assert app.run(["restore", str(place)]) == 4
        assert "2/model.onnx" in capsys.readouterr().err
        assert not artifact_paths.champion(NAME).exists(), "no pointer to what is not there"
        broken.touch()
    broken.write_bytes(right)
    assert app.run(["restore", str(place)]) == 0
    verification.verify(NAME, 2)
    assert not (there / ".restoring").exists()


@pytest.mark.parametrize("path", ["../stolen", "/etc/stolen", "models/../../stolen", ".ssh/stolen", "models"])
def test_a_path_that_leads_out_of_artifacts_is_no_backup(
    path: str, two_versions: None, place: Path, elsewhere: Callable[[], Path], tmp_path: Path
) -> None:
    backup.make(str(place))
    document = json.loads((place / "backup.json").read_text())
    document["files"][path] = next(iter(document["files"].values()))
    (place / "backup.json").write_text(json.dumps(document))
    elsewhere()
    with pytest.raises(DataError, match=r"backup\.json"):
        backup_restore.restore(str(place))
    assert not [*tmp_path.rglob("stolen")]


# Kills


def killed_before_a_rename(artifacts: str, command: list[str], number: int) -> None:
    """The body of a victim that does a command and kills itself before it renames for the ``number``-th time."""
    os.environ["GRADMILL_ARTIFACTS"] = artifacts
    left = iter(range(number))
    rename = os.replace

    def dying(*arguments: Any, **options: Any) -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        rename(*arguments, **options)

    os.replace = dying
    os._exit(app.run(command))


@pytest.mark.slow  # every victim is a process
def test_a_killed_backup_is_the_one_before_and_a_killed_restore_goes_on(
    candidates: list[Candidate], two_versions: None, artifacts: Path, place: Path, elsewhere: Callable[[], Path]
) -> None:
    for number in (0, 3, 7):
        fork(killed_before_a_rename, str(artifacts), ["backup", str(place)], number).join()
        assert not (place / "backup.json").exists()
    backup.make(str(place))
    candidates[2].publish()
    for number in (0, 2, 5):
        fork(killed_before_a_rename, str(artifacts), ["backup", str(place)], number).join()
    there = elsewhere()
    for number in (1, 4, 6):
        fork(killed_before_a_rename, str(there), ["restore", str(place)], number).join()
        current = reading.champion(NAME)
        assert current is None
    backup_restore.restore(str(place))
    verification.verify(NAME, 2)
    assert reading.versions(NAME) == [1, 2]
    assert not [*there.rglob("*.partial"), *there.glob(".restoring")]


# Prefect's database


def test_the_database_is_copied_as_of_one_moment_while_it_is_written(
    two_versions: None, place: Path, elsewhere: Callable[[], Path]
) -> None:
    path = artifact_paths.database()
    path.parent.mkdir(parents=True)
    artifact_paths.credential().write_text("gradmill:secret-of-this-host")
    with closing(sqlite3.connect(path)) as made:
        made.execute("PRAGMA journal_mode=WAL")
        made.executescript("CREATE TABLE one (n INTEGER); CREATE TABLE other (n INTEGER);")
    stop = threading.Event()

    def write() -> None:
        connection, number = sqlite3.connect(path), 0
        while not stop.is_set():
            number += 1
            with connection:
                connection.execute("INSERT INTO one VALUES (?)", (number,))
                connection.execute("INSERT INTO other VALUES (?)", (number,))
        connection.close()

    writing = threading.Thread(target=write)
    writing.start()
    try:
        made_of = backup.make(str(place)).backup
    finally:
        stop.set()
        writing.join()
    assert not [each for each in made_of.files if "credential" in each]
    assert b"secret-of-this-host" not in b"".join(content for content, _ in files(place).values())
    elsewhere()
    backup_restore.restore(str(place))
    copy = artifact_paths.database()
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(sqlite3.connect(copy)) as restored:
        assert restored.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        one = restored.execute("SELECT max(n), count(n) FROM one").fetchone()
        assert restored.execute("SELECT max(n), count(n) FROM other").fetchone() == one
    assert not path.with_name("backup.db").exists()


def test_of_a_postgresql_the_command_is_said_and_no_password(
    two_versions: None, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", "postgresql+asyncpg://duty:secret@db/prefect")
    assert app.run(["backup", str(place)]) == 0
    said = capsys.readouterr().out
    assert "pg_dump --format=custom" in said
    assert "secret" not in said


def test_of_a_database_elsewhere_nothing_old_is_backed_up_in_its_place(
    two_versions: None, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact_paths.database().parent.mkdir(parents=True, exist_ok=True)
    sqlite3.connect(artifact_paths.database()).close()
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", "sqlite+aiosqlite:////data/prefect.db")
    assert app.run(["backup", str(place)]) == 0
    said = capsys.readouterr().out
    assert "to be backed up there" in said
    assert "pg_dump" not in said
    assert not [path for path in backup_place.Backup.read(place / backup_place.MANIFEST).files if path.endswith(".db")]


# Object stores, real runs


@pytest.mark.slow  # a server
def test_a_backup_in_s3_is_incremental_and_restored(
    two_versions: None, artifacts: Path, elsewhere: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "ACCESS_KEY_ID": "somebody", "SECRET_ACCESS_KEY": "x", "DEFAULT_REGION": "us-east-1",
        "ENDPOINT_URL": f"http://{host}:{port}",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    try:
        client = boto3.client("s3")
        client.create_bucket(Bucket="backups")
        url = "s3://backups/gradmill"
        assert backup.make(url).copied
        pointer.freeze(NAME)
        assert len(backup.make(url).copied) == 3
        keys = client.list_objects_v2(Bucket="backups")["Contents"]
        client.close()
        assert len(keys) == 1 + len({each.sha256 for each in backup.make(url).backup.files.values()})
        there = elsewhere()
        backup_restore.restore(url)
        assert files(there / "models") == files(artifacts / "models")
    finally:
        server.stop()


def houses(rows: int, seed: int) -> pd.DataFrame:
    area = pd.Series(range(rows)) * 7 % 163 + 40.0 + seed
    return pd.DataFrame({"area": area, "price": 3000 * area + (area * 31 % 17 - 8) * 500})


@pytest.mark.slow  # four runs of the flow
def test_a_backup_made_during_a_run_is_restored_elsewhere_and_the_next_run_is_the_same(
    artifacts: Path, tmp_path: Path, place: Path, elsewhere: Callable[[], Path], server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("PREFECT_API_URL", server)
    days = tmp_path / "days"
    days.mkdir()
    houses(400, 0).to_csv(days / "1.csv", index=False)
    first = ["retrain", "--data", str(days), "--target", "price", "--name", "houses"]
    assert gradmill(*first, "linear-regression", "--no-predict").returncode == 0
    houses(300, 1).to_csv(days / "2.csv", index=False)
    retraining = threading.Thread(target=gradmill, args=("retrain", "houses"))
    retraining.start()
    while retraining.is_alive():
        backup.make(str(place))
    retraining.join()
    assert reading.versions("houses") == [1, 2]
    backup.make(str(place))
    here = json.loads(gradmill("retrain", "houses", "--json").stdout)
    artifacts.rename(tmp_path / "gone")
    there = elsewhere()
    assert gradmill("restore", str(place)).returncode == 0
    for number in ("1", "2"):
        assert gradmill("verify", "houses", number).returncode == 0
    done = gradmill("retrain", "houses", "--json")
    document = json.loads(done.stdout)
    assert (document["outcome"], document["version"]) == (here["outcome"], here["version"]) == ("unchanged", 2)
    assert document["prediction"]["rows"] == here["prediction"]["rows"]
    assert own_data.Source.read(artifact_paths.source("houses")).source == str(days)
    assert str(there) in document["model_path"]
    houses(300, 2).to_csv(days / "3.csv", index=False)
    grown = json.loads(gradmill("retrain", "houses", "--json").stdout)
    assert (grown["outcome"], grown["version"]) == ("published", 3)
    assert {"champion_loss"} <= {gate["name"] for gate in grown["gates"]}, "compared on rows that neither has seen"
