"""A backup is made while others work, adds a snapshot or leaves all as it was, and is restored elsewhere whole."""

import json
import sqlite3
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import pytest

from candidate import Contender
from command_line import answer, assert_clear, gradmill, plant, refused, typed
from duty import Duty
from prefect_api import own_database
from store_state import damage, keep_settings, point, point_to_what_is_there, seal_all
from tasks.errors import EnvironmentProblem
from tasks.store import (
    artifact_paths,
    atomic,
    backup,
    history,
    model_folder,
    own_data,
    pointer,
    verification,
    verified_files,
)
from tasks.store.run_folder import RunFolder
from victims import fork, run_until_rename

pytestmark = pytest.mark.usefixtures("two_versions")
NAME = "linear-regression"
Move = Callable[..., Path]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "backup"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Move:
    """From then on artifacts/ is a folder of another machine, at first an empty one; "." is where it was."""

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


def snapshots(place: Path) -> list[str]:
    return sorted(path.name for path in (place / "snapshots").iterdir())


def later(place: Path, name: str) -> str:
    """A snapshot as if it were the newest: those of one second are in the order of their digests."""
    renamed = f"2999{name[4:]}"
    (place / "snapshots" / name).rename(place / "snapshots" / renamed)
    return renamed


def content(place: Path, made: backup.BackupResult, path: str) -> Path:
    """Where a backup has a file."""
    return place / "content" / made.snapshot.files[f"models/{NAME}/{path}"].sha256


def test_a_restored_store_is_the_same_verifies_and_is_unchanged_by_the_same_candidate(
    candidates: list[Contender], artifacts: Path, place: Path, elsewhere: Move
) -> None:
    keep_settings()
    atomic.write_bytes(artifact_paths.schedules(), b"{}")
    atomic.write_bytes(artifact_paths.mirror(), b"{}")
    pointer.rollback(NAME, "a bad day")
    told = history.list_changes(NAME)
    backup.make(str(place))
    assert mode(place) == mode(place / "content") == 0o700
    there = elsewhere()
    backup.restore(str(place))
    for folder in ("models", "tuned", "schedules"):
        assert files(there / folder) == files(artifacts / folder)
    assert mode(there / "models" / NAME / "1") == 0o555
    assert not artifact_paths.mirror().exists(), "a store elsewhere never writes to this one's mirror"
    for number in (1, 2):
        verification.verify(NAME, number)
    assert history.list_changes(NAME) == told
    assert candidates[1].publish().outcome == "unchanged"
    assert pointer.is_frozen(NAME)


# Snapshots


def test_a_second_backup_copies_what_is_new_or_has_rotted_and_replaces_nothing(place: Path) -> None:
    first = backup.make(str(place))
    before = files(place)
    (place / "content").chmod(0o755)  # as whoever copies a backup leaves it
    pointer.freeze(NAME)
    again = backup.make(f"file://{place}")
    assert {Path(path).name for path in again.copied} == {"champion.json", "history.jsonl"}
    assert files(place).items() >= before.items()
    assert mode(place / "content") == 0o700
    assert snapshots(place) == sorted([first.name, again.name])
    model = content(place, first, "2/model.onnx")
    right = damage(model, -1)
    assert backup.make(str(place)).copied == [f"models/{NAME}/2/model.onnx"]
    assert model.read_bytes() == right


def test_the_newest_snapshot_is_restored_unless_another_is_named(place: Path, elsewhere: Move) -> None:
    first = backup.make(str(place))
    pointer.promote(NAME, 1)
    later(place, backup.make(str(place)).name)
    for name, champion in ((None, 1), (first.name, 2)):
        elsewhere(f"with {name}")
        backup.restore(str(place), name)
        assert model_folder.resolve_version(NAME, None) == champion
    refused(2, f"restore {place} --snapshot 2026-01-01T00-00-00Z-01234567.json", first.name)


def test_keep_removes_this_stores_older_snapshots_and_content_that_no_snapshot_names(
    place: Path, elsewhere: Move
) -> None:
    first = backup.make(str(place))
    pointer.freeze(NAME)
    later(place, backup.make(str(place)).name)
    (place / "content" / ("0" * 64)).write_text("of a backup that was killed")
    (place / "content" / "index.html").write_text("somebody else's")
    elsewhere("a drill")
    backup.restore(str(place), first.name)
    pointer.rollback(NAME)
    made = list[backup.BackupResult]()
    for keep in (2, 2, 2, 1):
        pointer.freeze(NAME, frozen=len(made) % 2 == 1)  # another content, and so another name
        made.append(backup.make(str(place), keep=keep))
    assert [len(each.removed) for each in made] == [0, 0, 1, 2]
    assert {*snapshots(place)} >= {first.name, made[-1].name}, "not the original's"
    assert not (place / "content" / ("0" * 64)).exists()
    elsewhere(".")
    kept = backup.make(str(place), keep=1)
    assert first.name in kept.removed
    assert (place / "content" / "index.html").exists()
    for name in snapshots(place):
        elsewhere(f"of {name}")
        backup.restore(str(place), name)
    elsewhere("the newest")
    done = typed("restore", place, "--json")
    (other,) = {kept.name, made[-1].name} - {json.loads(done.stdout)["snapshot"]}
    assert f"other stores; the newest of each: {other} ({NAME})" in done.stderr


def test_a_backup_that_c692a25_made_is_restored_and_its_content_is_kept(place: Path, elsewhere: Move) -> None:
    """It has one document, ``backup.json``, with the same fields and two more, and the same content."""
    snapshot = place / "snapshots" / backup.make(str(place)).name
    document = json.loads(snapshot.read_text()) | {"store": "0" * 32, "champions": {NAME: 2}}
    (place / "backup.json").write_text(json.dumps(document))
    snapshot.unlink()
    pointer.freeze(NAME)
    backup.make(str(place), keep=1)
    for name, frozen in ((None, True), ("backup.json", False)):
        elsewhere(f"of {name}")
        backup.restore(str(place), name)
        assert pointer.is_frozen(NAME) is frozen


# What is refused, what is damaged


def test_what_cannot_be_backed_up_or_restored_is_said(place: Path, elsewhere: Move) -> None:
    for command in (f"backup {artifact_paths.root()}/backup", f"backup {place} --keep 0", f"restore {place}"):
        refused(2, command)
    backup.make(str(place))
    refused(2, f"restore {place}", "an empty artifacts folder")
    path = artifact_paths.version(NAME, 1) / "model.onnx"
    damage(path, 100)
    before = files(place)
    refused(4, f"backup {place}", path)
    there = elsewhere()
    refused(2, f"backup {place}")
    assert files(place) == before, "no snapshot is added"
    assert not there.exists()
    for name in ("README.md", ".gitignore", ".locks/backup", "notes.json", "tuned/houses.json"):
        atomic.write_bytes(there / name, b"{}")
    refused(2, f"restore {place}", "houses.json is there")
    (there / "tuned" / "houses.json").unlink()
    backup.restore(str(place))
    assert model_folder.list_versions(NAME) == [1, 2], "what no restore writes occupies no folder"


def test_a_damaged_backup_is_found_out_and_the_same_restore_goes_on_once_it_is_mended(
    place: Path, elsewhere: Move
) -> None:
    broken = content(place, backup.make(str(place)), "2/model.onnx")
    right, link = broken.read_bytes(), place / "link"
    link.with_name("right").write_bytes(right)
    link.symlink_to(link.with_name("right"))
    there = elsewhere()
    harms: list[Callable[[], object]] = [
        lambda: broken.write_bytes(right[:-1] + b"x"),
        lambda: broken.write_bytes(right[:-1]),
        lambda: plant(broken, "fifo"),
        lambda: link.rename(broken),
        broken.unlink,
    ]
    for harm in harms:
        harm()
        refused(4, f"restore {place}", broken.name)
        assert not artifact_paths.champion(NAME).exists(), "no pointer to what is not there"
        broken.unlink(missing_ok=True)
        broken.touch()
    with pytest.raises(EnvironmentProblem, match="was begun and not finished"):
        RunFolder.open("a-run", {"name": NAME})
    with pytest.raises(EnvironmentProblem, match="gradmill restore URL again"):
        backup.make(str(place))
    broken.write_bytes(right)
    assert typed("restore", place).returncode == 0
    verification.verify(NAME, 2)
    assert not (there / ".restoring").exists()
    pointer.promote(NAME, 1)


HOSTILE = [
    "../stolen", "/etc/stolen", "models/../../stolen", ".ssh/stolen", "models", "models/houses/1/../stolen",
    "models/Houses/1/stolen", "models/houses/01/stolen", "models/houses/stolen", "models/houses/1/sub/stolen",
    "models/houses/1/.stolen", "models/houses/1/sto\0len", "models/houses/1/sto\nlen", "datasets/houses/raw/stolen",
    ".prefect/credential", "mirror.json", ".store", ".locks/stolen", "tuned/stolen", "predictions/stolen/part",
]  # fmt: skip
SOURCE = json.dumps({"schema_version": 1, "source": "postgresql://ann:hunter2@db/houses"}).encode()
FORGED = dict.fromkeys(HOSTILE, (b"stolen", 4, "snapshots")) | {
    "models/houses/1/model.onnx": (b"a model alone", 4, "elsewhere/artifacts/models/houses/1"),
    "datasets/houses/source.json": (SOURCE, 2, "credential"),
}


@pytest.mark.parametrize("path", FORGED)
def test_what_somebody_has_added_with_digests_that_fit_is_refused_and_its_secrets_are_not_said(
    path: str, place: Path, elsewhere: Move, tmp_path: Path
) -> None:
    added, exit_code, words = FORGED[path]
    made = backup.make(str(place))
    document = json.loads((place / "snapshots" / made.name).read_text())
    sha256 = atomic.write_bytes(place / "content" / verified_files.sha256(added), added).sha256
    document["files"][path] = {"sha256": sha256, "bytes": len(added)}
    forged = json.dumps(document).encode()
    (place / "snapshots" / made.name).unlink()
    (place / "snapshots" / f"2999-01-01T00-00-00Z-{verified_files.sha256(forged)[:8]}.json").write_bytes(forged)
    there = elsewhere()
    done = typed("restore", place)
    assert_clear(done, exit_code, words)
    assert "hunter2" not in done.stderr
    assert not [*tmp_path.rglob("stolen"), *there.rglob("source.json")]
    assert path not in HOSTILE or not [*there.rglob("*")]


def test_a_damaged_snapshot_is_named_and_the_ones_beside_it_are_restored(place: Path, elsewhere: Move) -> None:
    good = backup.make(str(place)).name
    whole = (place / "snapshots" / good).read_bytes()
    bad = later(place, good)
    (place / "snapshots" / good).write_bytes(whole)
    (place / "snapshots" / bad).write_bytes(whole[:-9])
    plant(place / "snapshots" / f"2998{good[4:]}", "fifo")
    elsewhere()
    refused(4, f"restore {place}", f"{bad} has changed", "--snapshot")
    backup.restore(str(place), good)
    refused(4, f"backup {place} --keep 1")
    assert good in snapshots(place), "what a damaged one names is not known, so nothing is removed"


def test_what_restore_would_refuse_or_miss_stops_a_backup(place: Path, tmp_path: Path) -> None:
    model = artifact_paths.model(NAME)
    model.joinpath("1").chmod(0o755)
    for path in (model / "champion.json", model / "history.jsonl", model / "1" / "README.md"):
        path.rename(tmp_path / path.name)
        path.symlink_to(tmp_path / path.name)
        refused(4, f"backup {place}", f"{path} is a link")
        (tmp_path / path.name).replace(path)
    point(model_sha256="0" * 64)
    refused(4, f"backup {place}", f"{artifact_paths.champion(NAME)} does not fit")
    assert snapshots(place) == []


def test_nothing_is_restored_or_backed_up_behind_a_link(place: Path, elsewhere: Move, tmp_path: Path) -> None:
    (outside := tmp_path / "outside").mkdir()
    outside.chmod(0o755)
    for name in ("content", "snapshots"):
        place.mkdir(exist_ok=True)
        (place / name).symlink_to(outside)
        for command in ("backup", "restore"):
            refused(2, f"{command} {place}", f"{place / name} is a link")
        (place / name).unlink()
    backup.make(str(place))
    there = elsewhere()
    for link in (there / "models", there / "models" / NAME, there / "models" / NAME / "1"):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(outside)
        refused(2, f"restore {place}", f"{link} is a link")
        link.unlink()
    assert (mode(outside), [*outside.iterdir(), *there.glob(".restoring")]) == (0o755, [])


def test_an_interrupted_restore_goes_on_beside_a_newer_snapshot(place: Path, elsewhere: Move) -> None:
    first = backup.make(str(place))
    broken = content(place, first, "champion.json")
    right = broken.read_bytes()
    broken.write_bytes(b"")
    elsewhere()
    refused(4, f"restore {place}")
    broken.write_bytes(right)
    elsewhere(".")
    pointer.promote(NAME, 1)
    newer = later(place, backup.make(str(place)).name)
    elsewhere()
    refused(2, f"restore {place} --snapshot {newer}", f"--snapshot {first.name}")
    refused(2, f"restore {place} --snapshot ''")
    assert typed("restore", place).returncode == 0
    assert model_folder.resolve_version(NAME, None) == 2


@pytest.mark.parametrize("field", ["rows", "test"])
def test_damaged_row_digests_and_test_rows_stop_a_backup_and_so_do_missing_digests(field: str, place: Path) -> None:
    folder = artifact_paths.version(NAME, 2)
    path = artifact_paths.dataset("synthetic-linear") / f"0000.{field}"
    atomic.write_bytes(path, b"as published")
    relative = artifact_paths.relative(path)
    dataset = json.loads((folder / "manifest.json").read_text())["dataset"]
    seal_all(folder, dataset=dataset | {field: {"path": relative, "sha256": verified_files.sha256(b"as published")}})
    point_to_what_is_there(folder)
    assert relative in backup.make(str(place)).snapshot.files
    before = files(place)
    path.write_bytes(b"as damaged..")
    refused(4, f"backup {place}", f"{path} has changed")
    path.unlink()
    if field == "rows":
        refused(4, f"backup {place}", path)
        assert files(place) == before
    else:
        assert relative not in backup.make(str(place)).snapshot.files, "it can be made again from the data"


@pytest.mark.slow  # every victim is a process
def test_a_killed_backup_leaves_no_snapshot_and_a_killed_restore_goes_on(
    candidates: list[Contender], artifacts: Path, place: Path, elsewhere: Move
) -> None:
    def kill(command: str, store: Path, *numbers: int) -> None:
        for number in numbers:
            fork(run_until_rename, number, [command, str(place), "--artifacts", str(store)]).join()
            assert command == "restore" or snapshots(place) == made
            assert command == "backup" or model_folder.find_champion(NAME) is None

    made: list[str] = []
    kill("backup", artifacts, 0, 3, 7)
    left = {path.name for path in (place / "content").iterdir()}
    whole = backup.make(str(place))
    assert left
    assert not left & {whole.snapshot.files[path].sha256 for path in whole.copied}, "the next goes on with it"
    made.append(whole.name)
    candidates[2].publish()
    kill("backup", artifacts, 0, 2, 5)
    there = elsewhere()
    kill("restore", there, 1, 4, 6)
    backup.restore(str(place))
    verification.verify(NAME, 2)
    assert model_folder.list_versions(NAME) == [1, 2]
    assert not [*there.rglob("*.partial"), *there.glob(".restoring")]


# Prefect's database


def test_the_database_is_copied_as_of_one_moment_while_it_is_written_and_nobody_else_can_read_it(
    place: Path, elsewhere: Move
) -> None:
    path, stop = artifact_paths.database(), threading.Event()
    path.parent.mkdir(parents=True)
    artifact_paths.credential().write_text("gradmill:secret-of-this-host")
    with closing(sqlite3.connect(path)) as made:
        made.execute("PRAGMA journal_mode=WAL")
        made.executescript("CREATE TABLE one (n INTEGER); CREATE TABLE other (n INTEGER);")

    def write() -> None:
        with closing(sqlite3.connect(path)) as connection:
            while not stop.is_set():
                with connection:
                    for table in ("one", "other"):
                        connection.execute(f"INSERT INTO {table} SELECT count(*) FROM {table}")  # noqa: S608

    writing = threading.Thread(target=write)
    writing.start()
    try:
        taken = backup.make(str(place)).snapshot.files
    finally:
        stop.set()
        writing.join()
    assert not [each for each in taken if "credential" in each]
    assert b"secret-of-this-host" not in b"".join(found for found, _ in files(place).values())
    elsewhere()
    backup.restore(str(place))
    copy = artifact_paths.database()
    assert mode(copy) == 0o600
    with closing(sqlite3.connect(copy)) as restored:
        assert restored.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        one, other = (restored.execute(f"SELECT max(n), count(n) FROM {each}").fetchone() for each in ("one", "other"))  # noqa: S608
        assert one == other


def test_a_database_that_is_none_is_named(place: Path) -> None:
    atomic.write_bytes(artifact_paths.database(), b"no database" * 1000)
    refused(4, f"backup {place}", artifact_paths.database())
    assert [path.name for path in artifact_paths.prefect_home().iterdir()] == ["prefect.db"]


@pytest.mark.parametrize("url", ["postgresql+asyncpg://duty:secret@db/prefect", "sqlite+aiosqlite:////data/prefect.db"])
def test_of_a_database_elsewhere_the_command_is_said_and_nothing_old_is_backed_up_in_its_place(
    url: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact_paths.database().parent.mkdir(parents=True)
    sqlite3.connect(artifact_paths.database()).close()
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", url)
    done = typed("backup", place)
    assert (done.returncode, "secret" in done.stdout, "to be backed up there" in done.stdout) == (0, False, True)
    assert ("pg_dump --format=custom" in done.stdout) == url.startswith("postgresql")
    assert "prefect.db" not in (place / "snapshots" / snapshots(place)[0]).read_text()


# Real runs; one in an object store is in test_store_mirror.py


def write_houses(path: Path, rows: int, seed: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    area = pd.Series(range(rows)) * 7 % 163 + 40.0 + seed
    pd.DataFrame({"area": area, "price": 3000 * area + (area * 31 % 17 - 8) * 500}).to_csv(path, index=False)
    return path


def run(*words: object) -> Any:
    """The document of a command, as a process of its own."""
    done = gradmill(*map(str, words), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow  # six runs of flows
@pytest.mark.usefixtures("on_server")
def test_a_backup_made_during_a_run_is_restored_elsewhere_and_used_as_before(
    artifacts: Path, tmp_path: Path, place: Path, elsewhere: Move
) -> None:
    def listed() -> list[tuple[Any, ...]]:
        rows = answer("models houses")["models"]["houses"]
        return [(row["version"], row["champion"], row["test_loss"], row["model_sha256"]) for row in rows]

    first = write_houses(tmp_path / "days" / "1.csv", 400, 0)
    named = ("--data", first.parent, "--target", "price", "--name", "houses", "--no-predict")
    run("retrain", "linear-regression", *named)
    write_houses(first.with_name("2.csv"), 300, 1)
    retraining = threading.Thread(target=gradmill, args=("retrain", "houses"))
    retraining.start()
    while retraining.is_alive():
        backup.make(str(place), keep=2)
    retraining.join()
    assert model_folder.list_versions("houses") == [1, 2]
    later(place, backup.make(str(place)).name)
    here, before = run("retrain", "houses"), listed()
    artifacts.rename(tmp_path / "gone")
    there = elsewhere()
    run("restore", place)
    for number in (1, 2):
        run("verify", "houses", number)
    assert listed() == before
    predicted = run("predict", first, "--name", "houses")
    assert (predicted["rows"], predicted["version"]) == (400, 2)
    document = run("retrain", "houses")
    assert (document["outcome"], document["version"]) == (here["outcome"], here["version"]) == ("unchanged", 2)
    assert document["prediction"]["rows"] == here["prediction"]["rows"]
    assert own_data.Source.read(artifact_paths.source("houses")).source == str(first.parent)
    assert str(there) in document["model_path"]
    write_houses(first.with_name("3.csv"), 300, 2)
    grown = run("retrain", "houses")
    assert (grown["outcome"], grown["version"]) == ("published", 3)
    assert "champion_loss" in {gate["name"] for gate in grown["gates"]}, "compared on rows that neither has seen"


@pytest.mark.slow
def test_a_restored_store_is_operated_elsewhere_and_the_mirror_of_the_original_stays_as_it_is(
    artifacts: Path, tmp_path: Path, place: Path
) -> None:
    mirror, there = tmp_path / "mirror", tmp_path / "there" / "artifacts"
    there.parent.mkdir()
    table = write_houses(tmp_path / "houses.csv", 400, 0)
    one = Duty(artifacts, own_database() | {"GRADMILL_MIRROR": str(mirror)})
    try:
        asked = ("linear-regression", "--name", "houses", "--data", str(table), "--target", "price", "--no-predict")
        for command in (("retrain", *asked), ("schedule", "houses", "--cron", "0 3 * * *"), ("backup", str(place))):
            assert one.gradmill(*command).returncode == 0
    finally:
        one.kill()
        one.api.close()
    run("restore", place, "--artifacts", there)
    before = files(mirror)
    other = Duty(there, own_database())

    def ask(*words: str) -> Any:
        return json.loads(other.gradmill(*words, "--json").stdout)

    try:
        found = ask("status")
        (model,) = (each for each in found["models"] if each["name"] == "houses")
        assert (model["version"], model["is_mirrored"]) == (1, None)
        (own,) = (each for each in found["deployments"] if each["name"] == "retrain-houses")
        assert not own["paused"]
        write_houses(table, 600, 1)
        assert other.ended(ask("trigger", "retrain-houses")["id"])["state_type"] == "COMPLETED"
        assert ask("status", "houses")["models"][0]["version"] == 2
    finally:
        other.kill()
        other.api.close()
    assert before
    assert files(mirror) == before
