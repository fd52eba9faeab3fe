"""A backup is made while others work, adds a snapshot or leaves all as it was, and is restored elsewhere whole."""

import json
import signal
import sqlite3
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from candidate import Contender
from command_line import answer, assert_clear, plant, refused, typed
from documents import load
from duty import Duty
from prefect_api import own_database
from store_state import champion, damage, keep_settings, leftovers, point, point_to_what_is_there, seal_all, whole_files
from table_files import houses, written
from tasks.errors import EnvironmentProblem
from tasks.store import artifact_paths, atomic, backup, model_folder, pointer, verification, verified_files
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


def later(place: Path, made: backup.BackupResult) -> str:
    """A snapshot as if it were the newest: those of one second are in the order of their digests."""
    renamed = f"2999{made.name[4:]}"
    (place / "snapshots" / made.name).rename(place / "snapshots" / renamed)
    return renamed


def content(place: Path, made: backup.BackupResult, path: str) -> Path:
    """Where a backup has a file."""
    return place / "content" / made.snapshot.files[f"models/{NAME}/{path}"].sha256


def test_a_restored_store_is_the_same_verifies_and_is_unchanged_by_the_same_candidate(
    candidates: list[Contender], artifacts: Path, place: Path, elsewhere: Move
) -> None:
    keep_settings()
    for path in (artifact_paths.schedules(), artifact_paths.mirror()):
        atomic.write_bytes(path, b"{}")
    pointer.rollback(NAME, "a bad day")
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
    assert candidates[1].publish().outcome == "unchanged"
    assert pointer.is_frozen(NAME)


# Snapshots


def test_a_second_backup_copies_what_is_new_or_has_rotted_and_replaces_nothing(place: Path) -> None:
    first = backup.make(str(place))
    before = files(place)
    (place / "content").chmod(0o755)  # as whoever copies a backup leaves it
    pointer.freeze(NAME)
    again = backup.make(f"file://{place}")
    assert {Path(path).name for path in again.copied_files} == {"champion.json", "history.jsonl"}
    assert files(place).items() >= before.items()
    assert mode(place / "content") == 0o700
    assert snapshots(place) == sorted([first.name, again.name])
    right = damage(model := content(place, first, "2/model.onnx"), -1)
    assert backup.make(str(place)).copied_files == [f"models/{NAME}/2/model.onnx"]
    assert model.read_bytes() == right


def test_keep_removes_this_stores_older_snapshots_and_content_that_no_snapshot_names(
    place: Path, elsewhere: Move
) -> None:
    first = backup.make(str(place))
    (place / "content" / ("0" * 64)).write_text("of a backup that was killed")
    (place / "content" / "index.html").write_text("somebody else's")
    elsewhere("a drill")
    backup.restore(str(place))
    drills = list[backup.BackupResult]()
    for frozen in (True, False, True):  # another content, and so another name
        pointer.freeze(NAME, frozen=frozen)
        drills.append(backup.make(str(place), keep=2))
    assert [len(each.removed_snapshots) for each in drills] == [0, 0, 1]
    elsewhere(".")
    pointer.freeze(NAME)
    kept = backup.make(str(place), keep=1)
    assert kept.removed_snapshots == [first.name], "neither store takes the other's"
    assert not (place / "content" / ("0" * 64)).exists()
    assert (place / "content" / "index.html").exists()
    for name in snapshots(place):
        elsewhere(f"of {name}")
        backup.restore(str(place), name)
    newest = later(place, kept)
    elsewhere("the newest")
    done = typed("restore", place, "--json")
    assert json.loads(done.stdout)["snapshot"] == newest
    other = max(name for name in snapshots(place) if name != newest)
    assert f"other stores; the newest of each: {other} ({NAME})" in done.stderr


def test_a_backup_that_c692a25_made_is_restored_and_its_content_is_kept(place: Path, elsewhere: Move) -> None:
    """It has one document, ``backup.json``, with the same fields and two more, and the same content."""
    snapshot = place / "snapshots" / backup.make(str(place)).name
    document = load(snapshot) | {"store": "0" * 32, "champions": {NAME: 2}}
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
    before = files(place)
    refused(2, f"restore {place}", "an empty artifacts folder")
    refused(2, f"restore {place} --snapshot 2026-01-01T00-00-00Z-01234567.json", snapshots(place)[0])
    damage(path := artifact_paths.version(NAME, 1) / "model.onnx", 100)
    refused(4, f"backup {place}", path)
    there = elsewhere()
    refused(2, f"backup {place}")
    assert files(place) == before, "no snapshot is added"
    assert not there.exists()
    for name in ("README.md", ".gitignore", ".locks/backup", "notes.json", "tuned/houses.json"):
        atomic.write_bytes(there / name, b"{}")
    refused(2, f"restore {place}", "houses.json already exists")
    (there / "tuned" / "houses.json").unlink()
    backup.restore(str(place))
    assert model_folder.list_versions(NAME) == [1, 2], "what no restore writes occupies no folder"


def test_a_damaged_backup_is_found_out_and_the_same_restore_goes_on_beside_a_newer_snapshot_once_it_is_mended(
    place: Path, elsewhere: Move, tmp_path: Path
) -> None:
    first = backup.make(str(place))
    broken = content(place, first, "2/model.onnx")
    right = broken.read_bytes()
    (tmp_path / "right").write_bytes(right)
    elsewhere()
    harms: list[Callable[[], object]] = [
        lambda: broken.write_bytes(right[:-1] + b"x"),
        lambda: broken.write_bytes(right[:-1]),
        lambda: plant(broken, "fifo"),
        lambda: broken.symlink_to(tmp_path / "right"),
        lambda: None,
    ]
    for harm in harms:
        broken.unlink(missing_ok=True)
        harm()
        refused(4, f"restore {place}", broken.name)
        assert not artifact_paths.champion(NAME).exists(), "no pointer to what is not there"
    for begin in (lambda: RunFolder.open("a-run", {"name": NAME}), lambda: backup.make(str(place))):
        with pytest.raises(EnvironmentProblem, match=r"begun and not finished[\s\S]*gradmill restore URL again"):
            begin()
    broken.write_bytes(right)
    elsewhere(".")
    pointer.promote(NAME, 1)
    newer = later(place, backup.make(str(place)))
    there = elsewhere()
    refused(2, f"restore {place} --snapshot {newer}", f"--snapshot {first.name}")
    refused(2, f"restore {place} --snapshot ''")
    assert typed("restore", place).returncode == 0
    verification.verify(NAME, 2)
    assert champion()[0] == 2
    assert not (there / ".restoring").exists()
    elsewhere("another host")
    backup.restore(str(place))
    assert champion()[0] == 1, "of the newest"


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
    sha256 = atomic.write_bytes(place / "content" / verified_files.sha256(added), added).sha256
    document = made.snapshot.model_dump(mode="json")
    document["files"][path] = {"sha256": sha256, "bytes": len(added)}
    forged = json.dumps(document).encode()
    (place / "snapshots" / f"2999-01-01T00-00-00Z-{verified_files.sha256(forged)[:8]}.json").write_bytes(forged)
    there = elsewhere()
    done = typed("restore", place)
    assert_clear(done, exit_code, words)
    assert "hunter2" not in done.stderr
    assert not [*tmp_path.rglob("stolen"), *there.rglob("source.json")]
    assert path not in HOSTILE or not [*there.rglob("*")]


def test_a_damaged_snapshot_is_named_and_the_ones_beside_it_are_restored(place: Path, elsewhere: Move) -> None:
    made = backup.make(str(place))
    good = place / "snapshots" / made.name
    whole = good.read_bytes()
    bad = later(place, made)
    good.write_bytes(whole)
    good.with_name(bad).write_bytes(whole[:-9])
    plant(good.with_name(f"2998{made.name[4:]}"), "fifo")
    elsewhere()
    refused(4, f"restore {place}", f"{bad} has changed", "--snapshot")
    backup.restore(str(place), made.name)
    refused(4, f"backup {place} --keep 1")
    assert good.exists(), "what a damaged one names is not known, so nothing is removed"


def test_what_restore_would_refuse_or_miss_stops_a_backup(place: Path, tmp_path: Path) -> None:
    model = artifact_paths.model(NAME)
    model.joinpath("1").chmod(0o755)
    for path in (model / "champion.json", model / "history.jsonl", model / "1" / "README.md"):
        moved = path.rename(tmp_path / path.name)
        path.symlink_to(moved)
        refused(4, f"backup {place}", f"{path} is a link")
        moved.replace(path)
    point(model_sha256="0" * 64)
    refused(4, f"backup {place}", f"{artifact_paths.champion(NAME)} does not fit")
    assert snapshots(place) == []


def test_nothing_is_restored_or_backed_up_behind_a_link(place: Path, elsewhere: Move, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    backup.make(str(place))
    there, other = elsewhere(), tmp_path / "other"
    links = [(other / name, f"{word} {other}") for name in ("content", "snapshots") for word in ("backup", "restore")]
    links += [(there / name, f"restore {place}") for name in ("models", f"models/{NAME}", f"models/{NAME}/1")]
    for link, command in links:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(outside)
        refused(2, command, f"{link} is a link")
        link.unlink()
    assert (mode(outside), [*outside.iterdir(), *there.glob(".restoring")]) == (0o755, [])


@pytest.mark.parametrize("field", ["rows", "test"])
def test_damaged_row_digests_and_test_rows_stop_a_backup_and_so_do_missing_digests(field: str, place: Path) -> None:
    folder = artifact_paths.version(NAME, 2)
    file = atomic.write_bytes(artifact_paths.dataset("synthetic-linear") / f"0000.{field}", b"as published")
    dataset = load(folder / "manifest.json")["dataset"]
    relative = artifact_paths.relative(file.path)
    seal_all(folder, dataset=dataset | {field: {"path": relative, "sha256": file.sha256}})
    point_to_what_is_there(folder)
    assert relative in backup.make(str(place)).snapshot.files
    file.path.write_bytes(b"as damaged..")
    refused(4, f"backup {place}", f"{file.path} has changed")
    file.path.unlink()
    if field == "rows":
        refused(4, f"backup {place}", file.path)
        assert len(snapshots(place)) == 1
    else:
        assert relative not in backup.make(str(place)).snapshot.files, "it can be made again from the data"


@pytest.mark.slow  # every victim is a process
def test_a_killed_backup_leaves_no_snapshot_and_a_killed_restore_goes_on(
    candidates: list[Contender], artifacts: Path, place: Path, elsewhere: Move
) -> None:
    def kill(command: str, store: Path, number: int) -> None:
        victim = fork(run_until_rename, number, [command, str(place), "--artifacts", str(store)])
        victim.join()
        assert victim.exitcode == -signal.SIGKILL

    for number in (0, 3, 7):
        kill("backup", artifacts, number)
        assert snapshots(place) == []
    left = {path.name for path in (place / "content").iterdir()}
    whole = backup.make(str(place))
    assert left
    assert not left & {whole.snapshot.files[path].sha256 for path in whole.copied_files}, "the next goes on with it"
    candidates[2].publish()
    for number in (0, 2, 5):
        kill("backup", artifacts, number)
        assert snapshots(place) == [whole.name]
    elsewhere()
    for number in (1, 4, 6):
        kill("restore", artifact_paths.root(), number)
        assert model_folder.find_champion(NAME) is None
    backup.restore(str(place))
    assert {number for number, _ in whole_files()} == {1, 2}
    assert [*leftovers(), *artifact_paths.root().glob(".restoring")] == []


# Prefect's database


def test_the_database_is_copied_as_of_one_moment_while_it_is_written_and_nobody_else_can_read_it(
    place: Path, elsewhere: Move
) -> None:
    path = artifact_paths.database()
    path.parent.mkdir(parents=True)
    artifact_paths.credential().write_text("gradmill:secret-of-this-host")
    with closing(sqlite3.connect(path)) as live:
        live.execute("PRAGMA journal_mode=WAL")
        live.execute("CREATE TABLE one (n INTEGER)")
        live.execute("INSERT INTO one VALUES (1)")
        live.commit()  # into another file than the database
        live.execute("INSERT INTO one VALUES (2)")
        backup.make(str(place))
    assert b"secret-of-this-host" not in b"".join(found for found, _ in files(place).values())
    elsewhere()
    backup.restore(str(place))
    assert mode(artifact_paths.database()) == 0o600
    with closing(sqlite3.connect(artifact_paths.database())) as restored:
        assert restored.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert restored.execute("SELECT n FROM one").fetchall() == [(1,)]


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
    assert (done.returncode, "secret" in done.stdout, "back it up there" in done.stdout) == (0, False, True)
    assert ("pg_dump --format=custom" in done.stdout) == url.startswith("postgresql")
    assert "prefect.db" not in (place / "snapshots" / snapshots(place)[0]).read_text()


# Real runs; a backup in an object store is in test_store_mirror.py


@contextmanager
def operated(store: Path, **settings: str) -> Iterator[Duty]:
    duty = Duty(store, own_database() | settings)
    try:
        yield duty
    finally:
        duty.kill()
        duty.api.close()


@pytest.mark.slow  # six runs of flows, and two servers
def test_a_backup_made_during_a_run_is_restored_elsewhere_and_used_and_operated_as_before_without_the_mirror(
    artifacts: Path, tmp_path: Path, place: Path, elsewhere: Move
) -> None:
    def listed() -> list[dict[str, Any]]:
        return [row | {"path": ""} for row in answer("models houses")["models"]["houses"]]

    def told(*words: object) -> Any:
        return json.loads(duty.does(*map(str, words), "--json"))

    mirror, first = tmp_path / "mirror", written(tmp_path / "days" / "1.csv", houses())
    named = ("--data", first.parent, "--target", "price", "--name", "houses", "--no-predict")
    with operated(artifacts, GRADMILL_MIRROR=str(mirror)) as duty:
        told("retrain", "linear-regression", *named)
        told("schedule", "houses", "--cron", "0 3 * * *")
        written(first.with_name("2.csv"), houses(300, seed=1))
        with ThreadPoolExecutor() as pool:
            retraining = pool.submit(told, "retrain", "houses")
            while not retraining.done():
                backup.make(str(place), keep=2)
            assert retraining.result()["version"] == 2
        here = told("retrain", "houses")
        later(place, backup.make(str(place)))
    before, mirrored = listed(), files(mirror)
    artifacts.rename(tmp_path / "gone")
    there = elsewhere()
    answer(f"restore {place}")
    for number in (1, 2):
        answer(f"verify houses {number}")
    assert listed() == before
    with operated(there) as duty:
        found = json.loads(duty.gradmill("status", "houses", "--json").stdout)
        (model,) = found["models"]  # and no other name's
        assert (model["version"], model["is_mirrored"]) == (2, None)
        (own,) = (each for each in found["deployments"] if each["name"] == "retrain-houses")
        assert not own["paused"]
        predicted = told("predict", first, "--name", "houses")
        assert (predicted["rows"], predicted["version"]) == (400, 2)
        again = told("retrain", "houses")
        assert (again["outcome"], again["version"]) == (here["outcome"], here["version"]) == ("unchanged", 2)
        assert again["prediction"]["rows"] == here["prediction"]["rows"]
        assert str(there) in again["model_path"]
        written(first.with_name("3.csv"), houses(300, seed=2))
        assert duty.ended(told("trigger", "retrain-houses")["id"])["state_type"] == "COMPLETED"
    gates = {gate.name for gate in model_folder.find_manifest("houses", 3).gates}
    assert "champion_loss" in gates, "compared on rows that neither has seen"
    assert mirrored
    assert files(mirror) == mirrored
