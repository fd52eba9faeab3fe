"""A backup is made while others work, adds a snapshot or leaves all as it was, and is restored elsewhere whole."""

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

from candidate import Candidate, seal
from command_line import assert_clear, gradmill, typed
from duty import Duty
from flows.cli import app
from prefect_api import own_database
from tasks.errors import DataError, EnvironmentProblem, UsageError
from tasks.store import (
    artifact_paths,
    atomic,
    backup,
    history,
    mirroring,
    own_data,
    pointer,
    reading,
    tuned,
    verification,
    verified,
)
from tasks.store.run_folder import RunFolder
from tasks.store.tuned import Tuned
from victims import fork

NAME = "linear-regression"
Move = Callable[[str], Path]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "backup"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Move:
    """From then on artifacts/ is an empty folder of another machine."""

    def move(name: str = "elsewhere") -> Path:
        folder = tmp_path / name / "artifacts"
        monkeypatch.setenv("GRADMILL_ARTIFACTS", str(folder))
        return folder

    return move


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file with its mode, save locks."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name not in (".lock", "backup"))
    return {str(path.relative_to(folder)): (path.read_bytes(), mode(path)) for path in found}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def some_settings() -> None:
    facts: dict[str, Any] = {"model": NAME, "dataset_digest": "0" * 64, "settings": {"lr": 0.1}, "num_trials": 1}
    facts |= {"validation_losses": (0.1,), "default_settings": {}, "default_losses": (), "num_validation": 1}
    tuned.keep(NAME, Tuned(**facts, seed=0, run="a-search"))
    artifact_paths.schedules().parent.mkdir(parents=True)
    artifact_paths.schedules().write_text("{}")


def test_a_restored_store_is_the_same_verifies_and_is_unchanged_by_the_same_candidate(
    candidates: list[Candidate],
    two_versions: None,
    artifacts: Path,
    place: Path,
    elsewhere: Move,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    some_settings()
    pointer.rollback(NAME, "a bad day")
    told = history.changes(NAME)
    monkeypatch.setenv("GRADMILL_MIRROR", str(tmp_path / "mirror"))
    assert mirroring.destination()
    monkeypatch.delenv("GRADMILL_MIRROR")
    backup.make(str(place))
    assert mode(place) == mode(place / "content") == 0o700
    there = elsewhere("elsewhere")
    backup.restore(str(place))
    for folder in ("models", "tuned", "schedules"):
        assert files(there / folder) == files(artifacts / folder)
    assert mode(there / "models" / NAME / "1") == 0o555
    assert not artifact_paths.mirror().exists(), "a store elsewhere never writes to this one's mirror"
    for number in (1, 2):
        verification.verify(NAME, number)
    assert history.changes(NAME) == told
    assert candidates[1].publish().outcome == "unchanged"
    assert pointer.is_frozen(NAME)


# Snapshots


def test_a_second_backup_copies_what_is_new_and_replaces_nothing(two_versions: None, place: Path) -> None:
    first = backup.make(str(place))
    assert first.copied
    before = files(place)
    (place / "content").chmod(0o755)  # as whoever copies a backup leaves it
    pointer.freeze(NAME)
    again = backup.make(f"file://{place}")
    assert {Path(path).name for path in again.copied} == {"champion.json", "history.jsonl"}
    assert files(place).items() >= before.items()
    assert mode(place / "content") == 0o700
    assert sorted(path.name for path in (place / "snapshots").iterdir()) == sorted([first.name, again.name])


def test_the_newest_snapshot_is_restored_unless_another_is_named(
    two_versions: None, place: Path, elsewhere: Move
) -> None:
    first = backup.make(str(place))
    pointer.promote(NAME, 1)
    rename_to_an_hour_later(place, backup.make(str(place)).name)
    for name, champion in ((None, 1), (first.name, 2)):
        elsewhere(f"with {name}")
        backup.restore(str(place), name)
        assert reading.resolve(NAME, None) == champion
    done = typed("restore", str(place), "--snapshot", "2026-01-01T00-00-00Z-01234567.json")
    assert_clear(done, 2)
    assert first.name in done.stderr


def rename_to_an_hour_later(place: Path, name: str) -> str:
    """Backups of the same second are in the order of their digests."""
    later = f"2999{name[4:]}"
    (place / "snapshots" / name).rename(place / "snapshots" / later)
    return later


def test_keep_removes_this_stores_older_snapshots_and_content_that_no_snapshot_names(
    two_versions: None, place: Path, elsewhere: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = backup.make(str(place))
    pointer.freeze(NAME)
    rename_to_an_hour_later(place, backup.make(str(place)).name)
    (place / "content" / ("0" * 64)).write_text("of a backup that was killed")
    (place / "content" / "index.html").write_text("somebody else's")
    here = artifact_paths.root()
    elsewhere("a drill")
    backup.restore(str(place), first.name)
    pointer.rollback(NAME)
    made = [backup.make(str(place), keep=1) for _ in range(3)]
    assert {path.name for path in (place / "snapshots").iterdir()} >= {first.name, made[-1].name}, "not the original's"
    assert not (place / "content" / ("0" * 64)).exists()
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(here))
    kept = backup.make(str(place), keep=1)
    assert first.name in kept.removed
    assert (place / "content" / "index.html").exists()
    for number, name in enumerate([*(path.name for path in (place / "snapshots").iterdir())]):
        elsewhere(f"of snapshot {number}")
        backup.restore(str(place), name)
    elsewhere("the newest")
    done = typed("restore", str(place), "--json")
    (other,) = {kept.name, made[-1].name} - {json.loads(done.stdout)["snapshot"]}
    assert f"other stores; the newest of each: {other} ({NAME})" in done.stderr


def test_a_backup_that_c692a25_made_is_restored_and_its_content_is_kept(
    two_versions: None, place: Path, elsewhere: Move
) -> None:
    """It has one document, ``backup.json``, with the same fields and two more, and the same content."""
    name = backup.make(str(place)).name
    document = json.loads((place / "snapshots" / name).read_text()) | {"store": "0" * 32, "champions": {NAME: 2}}
    (place / "backup.json").write_text(json.dumps(document))
    (place / "snapshots" / name).unlink()
    pointer.freeze(NAME)
    backup.make(str(place), keep=1)
    for snapshot, frozen in ((None, True), ("backup.json", False)):
        elsewhere(f"of {snapshot}")
        backup.restore(str(place), snapshot)
        assert pointer.is_frozen(NAME) is frozen


# What is refused, what is damaged


def test_what_cannot_be_backed_up_or_restored_is_said(two_versions: None, place: Path, elsewhere: Move) -> None:
    assert_clear(typed("backup", str(artifact_paths.root() / "backup")), 2)
    assert_clear(typed("backup", str(place), "--keep", "0"), 2)
    assert_clear(typed("restore", str(place)), 2)
    backup.make(str(place))
    done = typed("restore", str(place))
    assert_clear(done, 2)
    assert "an empty artifacts folder" in done.stderr
    path = artifact_paths.version(NAME, 1) / "model.onnx"
    path.chmod(0o644)
    path.write_bytes(b"other")
    before = files(place)
    done = typed("backup", str(place))
    assert_clear(done, 4)
    assert str(path) in done.stderr
    there = elsewhere("empty")
    assert_clear(typed("backup", str(place)), 2)
    assert files(place) == before, "no snapshot is added"
    assert not there.exists()


def test_only_what_a_restore_would_write_makes_a_folder_occupied(
    two_versions: None, place: Path, elsewhere: Move
) -> None:
    backup.make(str(place))
    there = elsewhere("a checkout")
    for name in ("README.md", ".gitignore", ".locks/backup", "notes.json"):
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).touch()
    atomic.write_bytes(there / "tuned" / "houses.json", b"{}")
    with pytest.raises(UsageError, match=r"houses\.json is there"):
        backup.restore(str(place))
    (there / "tuned" / "houses.json").unlink()
    backup.restore(str(place))
    assert reading.versions(NAME) == [1, 2]


def test_a_damaged_backup_is_found_out_and_the_same_restore_goes_on_once_it_is_mended(
    two_versions: None, place: Path, elsewhere: Move
) -> None:
    made = backup.make(str(place)).snapshot
    broken = place / "content" / made.files[f"models/{NAME}/2/model.onnx"].sha256
    right = broken.read_bytes()
    there = elsewhere("elsewhere")
    for wrong in (right[:-1] + b"x", right[:-1], None, "fifo", "link"):
        broken.unlink()
        if isinstance(wrong, bytes):
            broken.write_bytes(wrong)
        elif wrong == "fifo":
            os.mkfifo(broken)
        elif wrong == "link":
            (place / "right").write_bytes(right)
            broken.symlink_to(place / "right")
        done = typed("restore", str(place))
        assert_clear(done, 4)
        assert broken.name in done.stderr
        assert not artifact_paths.champion(NAME).exists(), "no pointer to what is not there"
        broken.touch()
    with pytest.raises(EnvironmentProblem, match="was begun and not finished"):
        RunFolder.open("a-run", {"name": NAME})
    with pytest.raises(EnvironmentProblem, match="gradmill restore URL again"):
        backup.make(str(place))
    broken.unlink()
    broken.write_bytes(right)
    assert app.run(["restore", str(place)]) == 0
    verification.verify(NAME, 2)
    assert not (there / ".restoring").exists()
    pointer.promote(NAME, 1)


HOSTILE = [
    "../stolen", "/etc/stolen", "models/../../stolen", ".ssh/stolen", "models", "models/houses/1/../stolen",
    "models/Houses/1/stolen", "models/houses/01/stolen", "models/houses/stolen", "models/houses/1/sub/stolen",
    "models/houses/1/.stolen", "models/houses/1/sto\0len", "models/houses/1/sto\nlen", "datasets/houses/raw/stolen",
    ".prefect/credential", "mirror.json", ".store", ".locks/stolen", "tuned/stolen", "predictions/stolen/part",
]  # fmt: skip


@pytest.mark.parametrize("path", HOSTILE)
def test_a_name_that_no_store_has_is_restored_nowhere(
    path: str, two_versions: None, place: Path, elsewhere: Move, tmp_path: Path
) -> None:
    there = forged(place, elsewhere, {path: b"stolen"})
    done = typed("restore", str(place))
    assert_clear(done, 4)
    assert "snapshots" in done.stderr
    assert not [*there.rglob("*")]
    assert not [*tmp_path.rglob("stolen")]


def forged(place: Path, elsewhere: Move, more: dict[str, bytes]) -> Path:
    """A snapshot to which somebody has added files, with digests that fit."""
    made = backup.make(str(place))
    document = json.loads((place / "snapshots" / made.name).read_text())
    for path, content in more.items():
        sha256 = atomic.write_bytes(place / "content" / verified.sha256(content), content).sha256
        document["files"][path] = {"sha256": sha256, "bytes": len(content)}
    content = json.dumps(document).encode()
    (place / "snapshots" / made.name).unlink()
    (place / "snapshots" / f"2999-01-01T00-00-00Z-{verified.sha256(content)[:8]}.json").write_bytes(content)
    return elsewhere("elsewhere")


def test_what_somebody_has_added_is_refused_as_the_store_refuses_it(
    two_versions: None, place: Path, elsewhere: Move
) -> None:
    there = forged(place, elsewhere, {"models/houses/1/model.onnx": b"a model alone"})
    done = typed("restore", str(place))
    assert_clear(done, 4)
    assert str(there / "models/houses/1") in done.stderr


def test_a_source_with_a_credential_is_refused_and_not_said(two_versions: None, place: Path, elsewhere: Move) -> None:
    source = json.dumps({"schema_version": 1, "source": "postgresql://ann:hunter2@db/houses"}).encode()
    there = forged(place, elsewhere, {"datasets/houses/source.json": source})
    done = typed("restore", str(place))
    assert_clear(done, 2)
    assert "hunter2" not in done.stderr
    assert not [*there.rglob("source.json")]


def test_a_damaged_snapshot_is_named_and_the_ones_beside_it_are_restored(
    two_versions: None, place: Path, elsewhere: Move
) -> None:
    good = backup.make(str(place)).name
    bad = rename_to_an_hour_later(place, good)
    (place / "snapshots" / good).write_bytes((place / "snapshots" / bad).read_bytes())
    (place / "snapshots" / bad).write_bytes((place / "snapshots" / bad).read_bytes()[:-9])
    os.mkfifo(place / "snapshots" / f"2998{good[4:]}")
    elsewhere("elsewhere")
    done = typed("restore", str(place))
    assert_clear(done, 4)
    assert f"{bad} has changed" in done.stderr
    assert "--snapshot" in done.stderr
    backup.restore(str(place), good)
    done = typed("backup", str(place), "--keep", "1")
    assert_clear(done, 4)
    assert (place / "snapshots" / good).exists(), "what a damaged one names is not known, so nothing is removed"


def test_what_restore_would_refuse_or_miss_stops_a_backup(two_versions: None, place: Path, tmp_path: Path) -> None:
    model = artifact_paths.model(NAME)
    model.joinpath("1").chmod(0o755)
    for path in (model / "champion.json", model / "history.jsonl", model / "1" / "README.md"):
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
        done = typed("backup", str(place))
        assert_clear(done, 4)
        assert f"{path} is a link" in done.stderr
        path.unlink()
        (tmp_path / path.name).rename(path)
    unfit = reading.pointer(NAME)
    assert unfit
    unfit.model_copy(update={"model_sha256": "0" * 64}).write(artifact_paths.champion(NAME))
    done = typed("backup", str(place))
    assert_clear(done, 4)
    assert f"{artifact_paths.champion(NAME)} does not fit" in done.stderr
    assert not [*(place / "snapshots").iterdir()]


def test_nothing_is_restored_behind_a_link(two_versions: None, place: Path, elsewhere: Move, tmp_path: Path) -> None:
    backup.make(str(place))
    there, outside = elsewhere("elsewhere"), tmp_path / "outside"
    outside.mkdir()
    for link in (there / "models", there / "models" / NAME, there / "models" / NAME / "1"):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(outside)
        done = typed("restore", str(place))
        assert_clear(done, 2)
        assert f"{link} is a link" in done.stderr
        link.unlink()
    assert not [*outside.iterdir(), *there.glob(".restoring")]


def test_an_interrupted_restore_goes_on_beside_a_newer_snapshot(
    two_versions: None, place: Path, elsewhere: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = backup.make(str(place))
    broken = place / "content" / first.snapshot.files[f"models/{NAME}/champion.json"].sha256
    right, here, there = broken.read_bytes(), artifact_paths.root(), elsewhere("elsewhere")
    broken.write_bytes(b"")
    assert_clear(typed("restore", str(place)), 4)
    broken.write_bytes(right)
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(here))
    pointer.promote(NAME, 1)
    newer = rename_to_an_hour_later(place, backup.make(str(place)).name)
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(there))
    done = typed("restore", str(place), "--snapshot", newer)
    assert_clear(done, 2)
    assert f"--snapshot {first.name}" in done.stderr
    assert_clear(typed("restore", str(place), "--snapshot", ""), 2)
    assert typed("restore", str(place)).returncode == 0
    assert reading.resolve(NAME, None) == 2


def test_links_in_a_backups_place_are_not_followed(two_versions: None, place: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    outside.chmod(0o755)
    place.mkdir()
    for name in ("content", "snapshots"):
        (place / name).symlink_to(outside)
        for command in ("backup", "restore"):
            done = typed(command, str(place))
            assert_clear(done, 2)
            assert f"{place / name} is a link" in done.stderr
        (place / name).unlink()
    assert (mode(outside), [*outside.iterdir()]) == (0o755, [])


def test_what_has_rotted_in_a_backup_is_written_anew(two_versions: None, place: Path) -> None:
    made = backup.make(str(place)).snapshot
    path = f"models/{NAME}/2/model.onnx"
    kept = place / "content" / made.files[path].sha256
    right = kept.read_bytes()
    kept.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    assert backup.make(str(place)).copied == [path]
    assert kept.read_bytes() == right


@pytest.mark.parametrize("field", ["rows", "test"])
def test_damaged_row_digests_and_test_rows_stop_a_backup_and_so_do_missing_digests(
    field: str, two_versions: None, place: Path
) -> None:
    folder = artifact_paths.version(NAME, 2)
    document = json.loads((folder / "manifest.json").read_text())
    path = artifact_paths.dataset("synthetic-linear") / f"0000.{field}"
    atomic.write_bytes(path, b"as published")
    relative = artifact_paths.relative(path)
    document["dataset"][field] = {"path": relative, "sha256": verified.sha256(b"as published")}
    seal_all(folder, document)
    assert relative in backup.make(str(place)).snapshot.files
    before = files(place)
    path.write_bytes(b"as damaged..")
    with pytest.raises(DataError, match=f"{path} has changed"):
        backup.make(str(place))
    path.unlink()
    if field == "rows":
        with pytest.raises(DataError, match=f"{path}"):
            backup.make(str(place))
        assert files(place) == before
    else:
        assert relative not in backup.make(str(place)).snapshot.files, "it can be made again from the data"


def seal_all(folder: Path, document: dict[str, object]) -> None:
    """A version with another manifest, whole in itself, to which the pointer points."""
    seal(folder, document)
    manifest = (folder / "manifest.json").read_bytes()
    digests = json.loads(manifest)["files"] | {"manifest.json": verified.sha256(manifest)}
    (folder / "SHA256SUMS").write_bytes(verified.checksums(digests))
    path = artifact_paths.champion(NAME)
    champion = json.loads(path.read_text()) | {"manifest_sha256": verified.sha256(manifest)}
    path.write_text(json.dumps(champion))


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
def test_a_killed_backup_leaves_no_snapshot_and_a_killed_restore_goes_on(
    candidates: list[Candidate], two_versions: None, artifacts: Path, place: Path, elsewhere: Move
) -> None:
    for number in (0, 3, 7):
        fork(killed_before_a_rename, str(artifacts), ["backup", str(place)], number).join()
        assert not [*(place / "snapshots").iterdir()]
    left = {path.name for path in (place / "content").iterdir()}
    made = backup.make(str(place))
    assert left
    assert not left & {made.snapshot.files[path].sha256 for path in made.copied}, "the next goes on with what is there"
    candidates[2].publish()
    for number in (0, 2, 5):
        fork(killed_before_a_rename, str(artifacts), ["backup", str(place)], number).join()
    there = elsewhere("elsewhere")
    for number in (1, 4, 6):
        fork(killed_before_a_rename, str(there), ["restore", str(place)], number).join()
        assert reading.champion(NAME) is None
    backup.restore(str(place))
    verification.verify(NAME, 2)
    assert reading.versions(NAME) == [1, 2]
    assert not [*there.rglob("*.partial"), *there.glob(".restoring")]


# Prefect's database


def test_the_database_is_copied_as_of_one_moment_while_it_is_written_and_nobody_else_can_read_it(
    two_versions: None, place: Path, elsewhere: Move
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
        made_of = backup.make(str(place)).snapshot
    finally:
        stop.set()
        writing.join()
    assert not [each for each in made_of.files if "credential" in each]
    assert b"secret-of-this-host" not in b"".join(content for content, _ in files(place).values())
    elsewhere("elsewhere")
    backup.restore(str(place))
    copy = artifact_paths.database()
    assert mode(copy) == 0o600
    with closing(sqlite3.connect(copy)) as restored:
        assert restored.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        one = restored.execute("SELECT max(n), count(n) FROM one").fetchone()
        assert restored.execute("SELECT max(n), count(n) FROM other").fetchone() == one


def test_a_database_that_is_none_is_named(two_versions: None, place: Path) -> None:
    atomic.write_bytes(artifact_paths.database(), b"no database" * 1000)
    done = typed("backup", str(place))
    assert_clear(done, 4)
    assert str(artifact_paths.database()) in done.stderr
    assert [path.name for path in artifact_paths.prefect_home().iterdir()] == ["prefect.db"]


@pytest.mark.parametrize("url", ["postgresql+asyncpg://duty:secret@db/prefect", "sqlite+aiosqlite:////data/prefect.db"])
def test_of_a_database_elsewhere_the_command_is_said_and_nothing_old_is_backed_up_in_its_place(
    url: str, two_versions: None, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact_paths.database().parent.mkdir(parents=True, exist_ok=True)
    sqlite3.connect(artifact_paths.database()).close()
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", url)
    done = typed("backup", str(place))
    assert done.returncode == 0
    assert "to be backed up there" in done.stdout
    assert ("pg_dump --format=custom" in done.stdout) == url.startswith("postgresql")
    assert "secret" not in done.stdout
    assert "prefect.db" not in next((place / "snapshots").iterdir()).read_text()


# Object stores, real runs


@pytest.mark.slow  # a server
def test_a_backup_in_s3_is_incremental_and_restored(
    two_versions: None, artifacts: Path, elsewhere: Move, monkeypatch: pytest.MonkeyPatch
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
        made = backup.make(url, keep=2)
        assert len(made.copied) == 2
        assert made.removed == []
        keys = {each["Key"] for each in client.list_objects_v2(Bucket="backups")["Contents"]}
        client.close()
        assert {f"gradmill/content/{each.sha256}" for each in made.snapshot.files.values()} <= keys
        assert len(keys) == 2 + len({each.sha256 for each in made.snapshot.files.values()}) + 2
        pointer.freeze(NAME, frozen=False)  # of the same second and the same store there is one snapshot
        assert len(backup.make(url, keep=1).removed) == 2
        there = elsewhere("elsewhere")
        backup.restore(url)
        assert files(there / "models") == files(artifacts / "models")
    finally:
        server.stop()


def houses(rows: int, seed: int) -> pd.DataFrame:
    area = pd.Series(range(rows)) * 7 % 163 + 40.0 + seed
    return pd.DataFrame({"area": area, "price": 3000 * area + (area * 31 % 17 - 8) * 500})


def figures_of_houses() -> list[tuple[Any, ...]]:
    listed = json.loads(gradmill("models", "houses", "--json").stdout)["models"]["houses"]
    return [(row["version"], row["champion"], row["test_loss"], row["model_sha256"]) for row in listed]


@pytest.mark.slow  # six runs of flows
def test_a_backup_made_during_a_run_is_restored_elsewhere_and_used_as_before(
    artifacts: Path, tmp_path: Path, place: Path, elsewhere: Move, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        backup.make(str(place), keep=2)
    retraining.join()
    assert reading.versions("houses") == [1, 2]
    rename_to_an_hour_later(place, backup.make(str(place)).name)
    here = json.loads(gradmill("retrain", "houses", "--json").stdout)
    listed = figures_of_houses()
    artifacts.rename(tmp_path / "gone")
    there = elsewhere("elsewhere")
    assert gradmill("restore", str(place)).returncode == 0
    for number in ("1", "2"):
        assert gradmill("verify", "houses", number).returncode == 0
    assert figures_of_houses() == listed
    predicted = json.loads(gradmill("predict", str(days / "1.csv"), "--name", "houses", "--json").stdout)
    assert (predicted["rows"], predicted["version"]) == (400, 2)
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


@pytest.mark.slow
def test_a_restored_store_is_operated_elsewhere_and_the_mirror_of_the_original_stays_as_it_is(
    artifacts: Path, tmp_path: Path, place: Path
) -> None:
    mirror, there = tmp_path / "mirror", tmp_path / "there" / "artifacts"
    there.parent.mkdir()
    houses(400, 0).to_csv(tmp_path / "houses.csv", index=False)
    one = Duty(artifacts, own_database() | {"GRADMILL_MIRROR": str(mirror)})
    try:
        asked = ["linear-regression", "--name", "houses", "--data", str(tmp_path / "houses.csv"), "--target", "price"]
        assert one.gradmill("retrain", *asked, "--no-predict").returncode == 0
        assert one.gradmill("schedule", "houses", "--cron", "0 3 * * *").returncode == 0
        assert one.gradmill("backup", str(place)).returncode == 0
    finally:
        one.kill()
        one.api.close()
    assert gradmill("restore", str(place), "--artifacts", str(there)).returncode == 0
    before = files(mirror)
    other = Duty(there, own_database())
    try:
        found = json.loads(other.gradmill("status", "--json").stdout)
        assert [(each["name"], each["version"], each["is_mirrored"]) for each in found["models"]] == [
            ("houses", 1, None)
        ]
        (own,) = (each for each in found["deployments"] if each["name"] == "retrain-houses")
        assert not own["paused"]
        houses(600, 1).to_csv(tmp_path / "houses.csv", index=False)
        assert (
            other.ended(json.loads(other.gradmill("trigger", "retrain-houses", "--json").stdout)["id"])["state_type"]
            == "COMPLETED"
        )
        assert json.loads(other.gradmill("status", "--json").stdout)["models"][0]["version"] == 2
    finally:
        other.kill()
        other.api.close()
    assert before
    assert files(mirror) == before
