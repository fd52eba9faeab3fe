"""Champions on other hosts: a real S3 server on loopback, a folder, kills in mid-copy, damage there."""

import hashlib
import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import boto3
import onnxruntime
import psutil
import pytest
from botocore.exceptions import ClientError
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from candidate import Contender
from command_line import GRADMILL, assert_clear, gradmill, refused, typed
from duty import Duty
from flows.retrain import retrain
from prefect_api import eventually, own_database
from store_state import age_demotions, damage
from tasks.errors import DataError, EnvironmentProblem, UsageError
from tasks.parameters import RetrainParameters
from tasks.store import artifact_paths, backup, folders, mirror_sync, model_folder, pointer, remote, verification

pytestmark = pytest.mark.usefixtures("two_versions")
NAME = "linear-regression"
BUCKET = "consumers"
URL = f"s3://{BUCKET}/models"
CONTENTS = (  # in the order of their copying
    "{}/SHA256SUMS", "{}/manifest.json", "{}/README.md", "{}/index.html", "{}/learning-curve.png", "{}/metadata.json",
    "{}/model.onnx", "{}/regression.png", "{}/sample.npz", "{}/weights.npz",
    "champion.json", "config.pbtxt", "history.jsonl",
)  # fmt: skip
PATHS = [path.format(2) for path in CONTENTS]


class S3:
    """moto's S3 behind a gate, which can hold back the PUT of one key until its client is dead."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # or it would write a line a request
        self._moto = DomainDispatcherApplication(create_backend_app)
        self.puts: list[str] = []
        self._held, self.stopped, self._released = "", threading.Event(), threading.Event()
        self._server = make_server("127.0.0.1", 0, self._gate, threaded=True)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def _gate(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if environ["REQUEST_METHOD"] == "PUT":
            self.puts.append(environ["PATH_INFO"])
            if self._held and self.puts[-1].endswith(self._held):
                self.stopped.set()
                self._released.wait(60)
                start_response("503 Slow Down", [])
                return []
        return self._moto(environ, start_response)

    def stop_at(self, key: str) -> None:
        """Hold back what is put under a key that ends so."""
        self.stopped.clear()
        self._released.clear()
        self._held = key

    def go_on(self) -> None:
        """Answer whoever is held back, and hold nothing more."""
        self._held = ""
        self._released.set()

    def close(self) -> None:
        self.go_on()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3]:
    server = S3()
    yield server
    client().close()
    client.cache_clear()
    server.close()


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    """The server with one empty bucket, named to clients as a user would: by the environment."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "not-a-secret", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_server.address, "NO_PROXY": "127.0.0.1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    client().create_bucket(Bucket=BUCKET)
    s3_server.puts.clear()
    yield s3_server
    for key in keys():
        client().delete_object(Bucket=BUCKET, Key=key)
    client().delete_bucket(Bucket=BUCKET)


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """Where the champion of this test's two versions may be copied."""
    return tmp_path / "share"


# A consumer with nothing of ours: boto3, hashlib, onnxruntime


@cache
def client() -> Any:
    return boto3.client("s3")


def put(key: str, content: bytes) -> None:
    client().put_object(Bucket=BUCKET, Key=key, Body=content)


def keys() -> set[str]:
    return {each["Key"] for each in client().list_objects_v2(Bucket=BUCKET).get("Contents", [])}


def from_s3(path: str, folder: str = "models") -> bytes | None:
    try:
        content: bytes = client().get_object(Bucket=BUCKET, Key=f"{folder}/{NAME}/{path}")["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] == "NoSuchKey":
            return None
        raise
    return content


def consume(read: Callable[[str], bytes | None]) -> int:
    """The version that a consumer finds, having checked everything it can."""
    champion = json.loads(read("champion.json") or b"")
    folder = str(champion["version"])
    sums = read(f"{folder}/SHA256SUMS")
    assert sums is not None, "the pointer dangles"
    for line in sums.decode().splitlines():
        digest, filename = line.split("  ")
        content = read(f"{folder}/{filename}")
        assert content is not None, f"{filename} is missing"
        assert hashlib.sha256(content).hexdigest() == digest, filename
    model = read(f"{folder}/model.onnx") or b""
    assert hashlib.sha256(model).hexdigest() == champion["model_sha256"]
    onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return int(champion["version"])


def on(share: Path) -> int:
    """The version that it finds in a folder."""
    return consume(lambda path: (share / NAME / path).read_bytes())


# Copying


def test_a_consumer_finds_on_s3_what_the_store_holds(s3: S3) -> None:
    done = mirror_sync.copy_champion(NAME, URL)
    assert (done.outcome, done.version, done.url, list(done.written)) == ("copied", 2, URL, PATHS)
    assert s3.puts == [f"/{BUCKET}/models/{NAME}/{path}" for path in PATHS], "pointer after version"
    assert consume(from_s3) == 2
    assert keys() == {f"models/{NAME}/{path}" for path in PATHS}
    for path in PATHS:
        assert from_s3(path) == (artifact_paths.model(NAME) / path).read_bytes(), path


@pytest.mark.slow
@pytest.mark.parametrize("left", [None, b"", b"half"], ids=["deleted", "empty", "changed"])
def test_what_is_damaged_or_missing_there_is_repaired_whichever_file_it_is(s3: S3, left: bytes | None) -> None:
    """Every other file at once, then the others: manifest or list of checksums must tell whose version it is."""
    mirror_sync.copy_champion(NAME, URL)
    for broken in (PATHS[::2], PATHS[1::2]):
        for path in broken:
            client().delete_object(Bucket=BUCKET, Key=f"models/{NAME}/{path}")
            if left is not None:
                put(f"models/{NAME}/{path}", left)
        repaired = mirror_sync.copy_champion(NAME, URL)
        assert list(repaired.written) == broken
        assert repaired.outcome == ("copied" if "champion.json" in broken else "repaired")
        assert consume(from_s3) == 2


@pytest.mark.parametrize("found", [("SHA256SUMS", "manifest.json", "model.onnx"), ("model.onnx",)])
def test_another_version_with_the_same_number_is_refused_and_left_alone(
    candidates: list[Contender], s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: tuple[str, ...]
) -> None:
    """Two stores of different hosts, one URL."""
    theirs = {f"1/{name}": (artifact_paths.version(NAME, 1) / name).read_bytes() for name in found}
    for path, content in theirs.items():
        put(f"models/{NAME}/{path}", content)
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(tmp_path / "another"))
    candidates[1].publish()
    s3.puts.clear()
    refused(4, f"mirror {NAME} {URL}", "is not of linear-regression version 1")
    assert s3.puts == []
    assert {path: from_s3(path) for path in theirs} == theirs


def test_a_damaged_champion_is_never_mirrored(s3: S3) -> None:
    damage(artifact_paths.version(NAME, 2) / "sample.npz", 50)
    refused(4, f"mirror {NAME} {URL}", "sample.npz has changed")
    age_demotions()
    folders.remove(artifact_paths.version(NAME, 2))
    refused(4, f"mirror {NAME} {URL}", "champion.json names version 2, and there is no ")
    assert keys() == set()


def test_a_store_that_gives_back_other_bytes_is_found_out_before_the_pointer_moves(
    candidates: list[Contender], share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror_sync.copy_champion(NAME, str(share))
    candidates[2].publish()
    write = remote.RemoteFolder.write
    monkeypatch.setattr(remote.RemoteFolder, "write", lambda self, path, content: write(self, path, content[:-1]))
    refused(4, f"mirror {NAME} {share}", "3/SHA256SUMS")
    monkeypatch.setattr(remote.RemoteFolder, "write", write)
    assert on(share) == 2


def test_a_champion_pruned_between_pointer_and_files_is_looked_up_once_more(
    share: Path, candidates: list[Contender], monkeypatch: pytest.MonkeyPatch
) -> None:
    verify, newer = verification.verify_version, [candidates[2]]

    def pruned_meanwhile(name: str, number: int) -> dict[str, bytes]:
        if newer:
            newer.pop().publish()
            folders.remove(artifact_paths.version(NAME, number))
        return verify(name, number)

    monkeypatch.setattr(verification, "verify_version", pruned_meanwhile)
    assert mirror_sync.copy_champion(NAME, str(share)).version == on(share) == 3


@pytest.mark.slow
def test_a_kill_leaves_the_old_champion_or_the_new_and_the_next_call_completes(s3: S3) -> None:
    """SIGKILL while the server holds a PUT back: at the first file, the model, the pointer, and what follows it."""
    urls = {f"killed-at-{at}": f"s3://{BUCKET}/killed-at-{at}" for at in (0, 6, 10, 11, 12)}
    pointer.rollback(NAME)
    for url in urls.values():
        mirror_sync.copy_champion(NAME, url)
    pointer.promote(NAME, 2)
    for folder, url in urls.items():
        at = int(folder.rpartition("-")[2])
        s3.stop_at(f"/{folder}/{NAME}/{PATHS[at]}")
        victim = subprocess.Popen([GRADMILL, "mirror", NAME, url])
        assert s3.stopped.wait(60), "the victim has reached the file"
        victim.kill()
        assert victim.wait() == -9
        s3.go_on()
        read = partial(from_s3, folder=folder)
        assert consume(read) == (2 if at > PATHS.index("champion.json") else 1)
        assert list(mirror_sync.copy_champion(NAME, url).written) == PATHS[at:], "what was copied is not copied again"
        assert consume(read) == 2


@pytest.mark.slow
def test_a_backup_in_s3_is_incremental_and_restored(
    s3: S3, artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"s3://{BUCKET}/gradmill"
    assert backup.make(url).copied
    pointer.freeze(NAME)
    made = backup.make(url, keep=2)
    assert (len(made.copied), made.removed) == (2, [])
    contents = {f"gradmill/content/{each.sha256}" for each in made.snapshot.files.values()}
    assert contents <= keys()
    assert len(keys()) == 2 + len(contents) + 2
    pointer.freeze(NAME, frozen=False)  # of the same second and the same store there is one snapshot
    assert len(backup.make(url, keep=1).removed) == 2
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(there := tmp_path / "elsewhere"))
    backup.restore(url)
    for path in (artifacts / "models").rglob("[!.]*"):
        assert path.is_dir() or path.read_bytes() == (there / path.relative_to(artifacts)).read_bytes()


# Shares


def test_a_folder_is_a_mirror_too_and_what_killed_writers_left_is_swept(share: Path) -> None:
    (share / NAME / "2").mkdir(parents=True)
    (share / NAME / "2" / ".gradmill-0123456789abcdef.partial").write_bytes(b"half")
    assert mirror_sync.copy_champion(NAME, f"file://{share}").outcome == "copied"
    found = {str(path.relative_to(share / NAME)) for path in (share / NAME).rglob("*") if path.is_file()}
    assert found == {*PATHS}
    assert on(share) == 2
    assert mirror_sync.copy_champion(NAME, str(share)).outcome == "unchanged", "a path is a URL"
    (share / NAME / "2" / "model.onnx").write_bytes(b"")
    assert mirror_sync.copy_champion(NAME, str(share)).written == ("2/model.onnx",)


def test_a_longer_history_in_the_mirror_is_left_by_one_that_was_begun_anew(share: Path) -> None:
    here = artifact_paths.history(NAME)
    mirror_sync.copy_champion(NAME, str(share))
    there = share / NAME / "history.jsonl"
    before = there.read_bytes()
    here.unlink()
    pointer.rollback(NAME)
    assert f"left: {there}" in typed("mirror", NAME, share).stderr
    assert (on(share), there.read_bytes()) == (1, before)
    there.unlink()
    assert mirror_sync.copy_champion(NAME, str(share)).written == ("history.jsonl",)
    assert there.read_bytes() == here.read_bytes()


def test_the_store_is_no_mirror_of_itself(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the artifacts folder itself"):
        mirror_sync.copy_champion(NAME, f"file://{artifact_paths.models()}/")
    artifact_paths.models().rename(tmp_path / "disk")
    artifact_paths.models().symlink_to(tmp_path / "disk")
    before = set((tmp_path / "disk").rglob("*"))
    for place in (tmp_path / "disk", tmp_path / "disk" / "deep", artifact_paths.models()):
        refused(2, f"mirror {NAME} {place}", "the artifacts folder itself")
    assert set((tmp_path / "disk").rglob("*")) == before


# The command

REFUSED = [
    f"no-such-model {URL}", f"../models {URL}",
    *(
        f"{NAME} '{url}'"
        for url in (
            "s33://consumers", "ftp://host/folder", "simplecache::s3://consumers", "s3://", "file:///",
            "~no-such-user/mirror", "", " ", "file://", "s3://user:hunter/2@consumers/m", "ftp://user:hunter/2@host",
            "az://c/m?sig=hunter/2",
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_mirrored_is_exit_2_repeats_no_secret_and_leaves_nothing(words: str, artifacts: Path) -> None:
    before = set(artifacts.rglob("*"))
    refused(2, f"mirror {words}")
    for option in ("", " --json"):
        done = typed(*shlex.split(f"mirror {words}{option}"))
        assert "hunter" not in done.stdout + done.stderr
    assert set(artifacts.rglob("*")) == before


def test_a_missing_package_is_exit_2_and_says_what_to_install() -> None:
    code = "import sys; sys.modules['s3fs'] = None; from flows.cli import app; sys.exit(app.run(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, "mirror", NAME, URL], capture_output=True, text=True)
    assert_clear(done, 2, f"{sys.executable} -m pip install s3fs")


def test_no_bucket_no_credentials_and_no_writable_share_are_exit_1(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(1, f"mirror {NAME} s3://no-such-bucket/models", "bucket does not exist")
    refused(1, f"mirror {NAME} /proc/nowhere")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert_clear(gradmill("mirror", NAME, URL), 1, "credentials")


# Retrain


@pytest.mark.slow
def test_a_retrain_mirrors_its_champion_and_one_with_nothing_new_catches_up_a_failed_copy(
    s3: S3, prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(tmp_path / "new"))
    parameters = RetrainParameters.model_validate({"training": {"model": NAME}, "predict": False})
    (artifact_paths.make_root() / "mirror.json").write_text("{")
    with pytest.raises(DataError, match=r"mirror\.json is not JSON"):
        retrain(parameters)
    assert model_folder.resolve_version(NAME, None) == 1, "what was published stays published"
    monkeypatch.setenv("GRADMILL_MIRROR", "s3://not-made-yet/models")
    with pytest.raises(EnvironmentProblem, match="bucket does not exist"):
        retrain(parameters)
    monkeypatch.setenv("GRADMILL_MIRROR", URL)
    reports = [retrain(parameters) for _ in range(2)]
    mirrored = [each.mirror and (each.mirror.outcome, each.mirror.version, each.mirror.url) for each in reports]
    assert mirrored == [("copied", 1, URL), ("unchanged", 1, URL)]
    assert reports[0].outcome == "unchanged"
    assert list(reports[0].seconds)[-2:] == ["publish", "mirror"]
    assert consume(from_s3) == 1


def test_a_retrain_checks_its_mirror_before_any_work(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADMILL_MIRROR", "ftp://host/folder")
    refused(2, f"retrain {NAME}")
    assert not (artifacts / "runs").exists()


# The mirror of a store


def attention() -> tuple[list[str], list[bool | None]]:
    """What ``gradmill status`` says of the mirror, and whether each champion has reached it."""
    found = json.loads(gradmill("status", "--json").stdout)
    return [each for each in found["attention"] if "mirror" in each], [each["is_mirrored"] for each in found["models"]]


def change(command: str, mirror: Path | str | None = None) -> "subprocess.CompletedProcess[str]":
    """Change the champion from a shell in which ``GRADMILL_MIRROR`` is set or not."""
    with pytest.MonkeyPatch.context() as patch:
        if mirror is not None:
            patch.setenv("GRADMILL_MIRROR", str(mirror))
        word, *more = command.split()
        return gradmill(word, NAME, *more)


@pytest.mark.slow
def test_the_mirror_is_kept_with_the_store_and_every_change_from_any_shell_brings_it_along_or_says_that_it_did_not(
    tmp_path: Path, artifacts: Path, share: Path
) -> None:
    def mirrored() -> Any:
        return json.loads((share / NAME / "champion.json").read_text())

    assert attention() == ([], [None])
    assert "mirror: up to date" in change("promote 2", mirror=share).stdout
    noted = (artifacts / "mirror.json").read_bytes()
    for url in (f"file://{share}/", f"{share}/../share", os.path.relpath(share)):
        assert change("promote 2", mirror=url).returncode == 0
        assert (artifacts / "mirror.json").read_bytes() == noted, url
    assert "mirror: up to date" in change("rollback").stdout, "another shell"
    assert mirrored()["version"] == 1
    assert attention() == ([], [True])
    share.rename(tmp_path / "away")
    share.write_text("no folder")
    assert_clear(change("unfreeze"), 1, "was not updated")
    behind = f"the pointer to {NAME} version 1 has changed since: gradmill mirror {NAME} {share}"
    assert attention() == ([f"the mirror is behind: {behind}"], [False])
    assert gradmill("status", "--check").returncode == 1
    assert f'gradmill_mirror_behind{{name="{NAME}"}} 1.0' in gradmill("metrics").stdout
    share.unlink()
    (tmp_path / "away").rename(share)
    assert gradmill("mirror", NAME, str(share)).returncode == 0
    assert (attention(), mirrored()["frozen"]) == (([], [True]), False)
    assert "mirror" not in change("promote 2", mirror="none").stdout
    assert attention() == ([], [None])


@pytest.mark.slow
def test_a_copied_or_moved_store_never_writes_to_the_mirror_that_it_came_with_and_status_says_what_to_do(
    tmp_path: Path, artifacts: Path, share: Path
) -> None:
    original, kept = tmp_path / "original", artifacts / "mirror.json"
    change("promote 2", mirror=share)
    before = (share / NAME / "champion.json").read_bytes()
    artifacts.rename(original)
    done = change(f"rollback --artifacts {original}")
    assert (done.returncode, "nothing is mirrored" in done.stderr) == (0, True), "it lies elsewhere"
    assert change(f"promote 2 --artifacts {original}").returncode == 0
    shutil.copytree(original, artifacts)
    # As where the system gives a number anew, or a volume has but one of its root.
    claim = artifacts / ".store" if (artifacts / ".store").exists() else artifacts
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"inode": claim.stat().st_ino}))
    assert "nothing is mirrored" in change("rollback").stderr, "a copy in the place of the original"
    assert (share / NAME / "champion.json").read_bytes() == before
    ((said,), reached) = attention()
    for words in (f"{kept} names {share}, the mirror of another store", "GRADMILL_MIRROR=URL", "GRADMILL_MIRROR=none"):
        assert words in said
    assert reached == [False]
    change("freeze", mirror="none")
    assert attention() == ([], [None])
    shutil.rmtree(artifacts)
    original.rename(artifacts)
    assert "mirror: up to date" in change("unfreeze").stdout, "the original is where it was"


@pytest.mark.slow
def test_a_damaged_mirror_json_stops_nothing_and_is_told_until_the_mirror_is_named_anew(
    artifacts: Path, share: Path
) -> None:
    kept = artifacts / "mirror.json"
    damaged = f"{kept} is not JSON"
    change("promote 2", mirror=share)
    kept.write_text("{")
    for command, version in {"rollback": 1, "promote 2": 2, "freeze": 2}.items():
        done = change(command)
        assert_clear(done, 1, damaged, "GRADMILL_MIRROR=URL")
        assert "mirror: FAILED" in done.stdout
        assert pointer.is_frozen(NAME)
        assert model_folder.resolve_version(NAME, None) == version
    ((said,), reached) = attention()
    assert (damaged in said, reached) == (True, [False])
    done = gradmill("metrics")
    assert "gradmill_damaged_documents 1.0" in done.stdout
    assert damaged in done.stderr
    assert gradmill("mirror", NAME, str(share)).returncode == 0
    change("promote 2", mirror=share)
    assert attention() == ([], [True])
    kept.write_text("{")
    assert change("unfreeze", mirror="none").returncode == 0
    assert not kept.exists()


@pytest.mark.slow
def test_up_waits_for_no_mirror_tells_what_fails_and_its_worker_does_not_name_the_mirror_again(
    s3: S3, artifacts: Path
) -> None:
    s3.stop_at("2/SHA256SUMS")
    duty = Duty(artifacts, own_database() | {"GRADMILL_MIRROR": URL})
    try:
        assert s3.stopped.wait(60)
        assert len(s3.puts) == 1, "it is up, and the mirror has not yet answered its first request"
        children = psutil.Process(duty.process.pid).children(recursive=True)
        assert not [each for each in children if "GRADMILL_MIRROR" in each.environ()]
        s3.go_on()
        eventually(lambda: keys() >= {f"models/{NAME}/champion.json"} and consume(from_s3) == 2, 60, "it follows")
    finally:
        s3.go_on()
        duty.kill()
    (artifacts / "mirror.json").write_text("{")
    del duty.environment["GRADMILL_MIRROR"]
    duty.up()
    try:
        log = artifacts.parent / "up.log"
        eventually(lambda: "mirror.json is not JSON" in log.read_text(), 30, "it is told")
        assert duty.process.poll() is None
    finally:
        duty.kill()
        duty.api.close()
