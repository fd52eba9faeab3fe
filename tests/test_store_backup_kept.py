"""A good backup outlives the wrong folder, strangers' files and rot; half a store is neither used nor backed up."""

import json
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from candidate import Candidate, seal
from flows.cli import app
from tasks.errors import DataError, EnvironmentProblem, UsageError
from tasks.store import artifact_paths, atomic, backup, backup_restore, names, pointer, reading, remote, verified
from tasks.store.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("two_versions")
NAME = "linear-regression"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "backup"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# Whose backup it is


def test_a_backup_from_an_empty_folder_leaves_the_good_one_and_nothing_here(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    backup.make(str(place))
    before = contents(place)
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(tmp_path / "elsewhere"))
    for replace in ([], ["--replace"]):
        assert app.run(["backup", str(place), *replace]) == 2
        assert f"{tmp_path / 'elsewhere'} has nothing to back up" in capsys.readouterr().err
    assert contents(place) == before
    assert not (tmp_path / "elsewhere").exists()


def test_another_store_replaces_a_backup_only_when_told_to(
    place: Path, tmp_path: Path, candidates: list[Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    backup.make(str(place))
    before = contents(place)
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(tmp_path / "another"))
    candidates[0].publish()
    with pytest.raises(UsageError, match=f"is of another store than {tmp_path / 'another'}"):
        backup.make(str(place))
    assert contents(place) == before
    backup.make(str(place), replace=True)
    assert backup.make(str(place)).copied == [], "it is this store's from then on"


def test_a_store_that_has_lost_a_model_replaces_its_backup_only_when_told_to(place: Path, tmp_path: Path) -> None:
    backup.make(str(place))
    artifact_paths.model(NAME).rename(tmp_path / "away")
    artifact_paths.schedules().parent.mkdir(parents=True)
    artifact_paths.schedules().write_text("{}")
    with pytest.raises(UsageError, match=f"has '{NAME}', of which"):
        backup.make(str(place))
    assert set(backup.make(str(place), replace=True).backup.files) == {"schedules/schedules.json"}


def test_a_restored_store_goes_on_with_its_backup_and_one_of_before_stores_had_an_id_is_taken_up(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup.make(str(place))
    document = json.loads((place / "backup.json").read_text())
    (place / "backup.json").write_text(json.dumps({key: document[key] for key in document if key != "store"}))
    assert backup.make(str(place)).backup.store == document["store"]
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(tmp_path / "elsewhere"))
    backup_restore.restore(str(place))
    assert backup.make(str(place)).copied == []


def test_what_others_have_put_beside_a_backup_stays_and_their_folder_is_none(place: Path) -> None:
    (place / "content").mkdir(parents=True)
    (place / "photos").mkdir()
    with pytest.raises(UsageError, match="has 'photos' in it"):
        backup.make(str(place))
    (place / "photos").rmdir()
    (place / "content" / "index.html").write_text("theirs")
    (place / "content" / ("0" * 64)).write_text("nobody names it any more")
    backup.make(str(place))
    assert (place / "content" / "index.html").exists()
    assert not (place / "content" / ("0" * 64)).exists()


# Half a store


def test_nothing_begins_in_a_store_that_is_half_restored(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = place / "content" / backup.make(str(place)).backup.files[f"models/{NAME}/champion.json"].sha256
    before = contents(place)
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(tmp_path / "elsewhere"))
    last.rename(tmp_path / "away")
    with pytest.raises(DataError):
        backup_restore.restore(str(place))
    (tmp_path / "away").rename(last)
    assert artifact_paths.restoring().exists()
    with pytest.raises(EnvironmentProblem, match="was begun and not finished"):
        RunFolder.open("a-run", {"name": NAME})
    with pytest.raises(EnvironmentProblem, match="gradmill restore URL again"):
        pointer.promote(NAME, 1)
    artifact_paths.schedules().parent.mkdir(parents=True)
    artifact_paths.schedules().write_text("{}")
    with pytest.raises(UsageError, match="was begun and not finished"):
        backup.make(str(place))
    assert contents(place) == before
    backup_restore.restore(str(place))
    RunFolder.open("a-run", {"name": NAME})
    pointer.promote(NAME, 1)


def test_only_what_lies_where_a_restore_writes_makes_a_folder_occupied(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup.make(str(place))
    there = tmp_path / "elsewhere"
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(there))
    atomic.write_bytes(there / "tuned" / "houses.json", b"{}")
    with pytest.raises(UsageError, match=r"houses\.json is there"):
        backup_restore.restore(str(place))
    (there / "tuned" / "houses.json").rename(there / "notes.json")
    backup_restore.restore(str(place))
    assert reading.versions(NAME) == [1, 2]
    assert (there / "notes.json").exists()


# What is damaged


def test_what_has_rotted_in_a_backup_is_written_anew(place: Path) -> None:
    made = backup.make(str(place)).backup
    path = f"models/{NAME}/2/model.onnx"
    kept = place / "content" / made.files[path].sha256
    right = kept.read_bytes()
    kept.write_bytes(right[:-1] + bytes([right[-1] ^ 1]))
    assert backup.make(str(place)).copied == [path]
    assert kept.read_bytes() == right


@pytest.mark.parametrize("field", ["rows", "test"])
def test_damaged_row_digests_and_test_rows_stop_a_backup_and_so_do_missing_digests(field: str, place: Path) -> None:
    folder = artifact_paths.version(NAME, 2)
    document = json.loads((folder / "manifest.json").read_text())
    path = artifact_paths.dataset("synthetic-linear") / f"0000.{field}"
    atomic.write_bytes(path, b"as published")
    relative = artifact_paths.relative(path)
    document["dataset"][field] = {"path": relative, "sha256": verified.sha256(b"as published")}
    seal_all(folder, document)
    assert relative in backup.make(str(place)).backup.files
    before = contents(place)
    path.write_bytes(b"as damaged..")
    with pytest.raises(DataError, match=f"{path} has changed"):
        backup.make(str(place))
    assert contents(place)["backup.json"] == before["backup.json"]
    path.unlink()
    if field == "rows":
        with pytest.raises(DataError, match=f"{path}"):
            backup.make(str(place))
    else:
        assert relative not in backup.make(str(place)).backup.files, "it can be made again from the data"


def seal_all(folder: Path, document: dict[str, object]) -> None:
    """A version with another manifest, whole in itself, to which the pointer points."""
    seal(folder, document)
    manifest = (folder / "manifest.json").read_bytes()
    digests = json.loads(manifest)["files"] | {"manifest.json": verified.sha256(manifest)}
    (folder / "SHA256SUMS").write_bytes(verified.checksums(digests))
    path = artifact_paths.champion(NAME)
    champion = json.loads(path.read_text()) | {"manifest_sha256": verified.sha256(manifest)}
    path.write_text(json.dumps(champion))


# Secrets in the database


def test_nobody_else_can_read_the_database_in_a_backup_or_while_it_is_copied(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = artifact_paths.database()
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as made:
        made.executescript("CREATE TABLE one (n INTEGER)")
    (place / "content").mkdir(parents=True, mode=0o755)
    get, one = remote.Folder.get, backup._Copying.one
    seen: list[tuple[int, bool | int]] = []

    def looking(self: backup._Copying, file: Path, path: Path) -> None:
        if path == artifact_paths.database():
            seen.append((mode(file), names.TEMPORARY.fullmatch(file.name) is not None))
        one(self, file, path)

    def getting(self: remote.Folder, name: str, file: Path) -> bool:
        if file.parent == artifact_paths.prefect_home():
            seen.append((mode(file), mode(file.parent)))
        return get(self, name, file)

    monkeypatch.setattr(backup._Copying, "one", looking)
    monkeypatch.setattr(remote.Folder, "get", getting)
    backup.make(str(place))
    assert mode(place / "content") == 0o700
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(tmp_path / "elsewhere"))
    backup_restore.restore(str(place))
    assert seen == [(0o600, True), (0o600, 0o700)]
    assert [each.name for each in path.parent.iterdir()] == ["prefect.db"]
