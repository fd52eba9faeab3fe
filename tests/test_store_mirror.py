"""Champions on other hosts: a real S3 server on loopback, a folder, kills in mid-copy, damage there."""

import hashlib
import json
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
from werkzeug.serving import WSGIRequestHandler, make_server

from candidate import Candidate
from command_line import GRADMILL, assert_clear, gradmill, typed
from duty import Duty
from flows.retrain import retrain
from prefect_api import eventually, own_database
from store_state import age_demotions, damage
from tasks.errors import DataError, EnvironmentProblem, UsageError
from tasks.parameters import RetrainParameters
from tasks.store import artifact_paths, folders, mirroring, pointer, reading, verification

NAME = "linear-regression"
BUCKET = "consumers"
URL = f"s3://{BUCKET}/models"
CONTENTS = (  # in the order of their copying
    "{}/SHA256SUMS", "{}/manifest.json", "{}/README.md", "{}/index.html", "{}/learning-curve.png", "{}/metadata.json",
    "{}/model.onnx", "{}/regression.png", "{}/sample.npz", "{}/weights.npz",
    "champion.json", "config.pbtxt", "history.jsonl",
)  # fmt: skip


class Quiet(WSGIRequestHandler):
    """No line a request on stderr."""

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002  (the signature of werkzeug)
        pass


class S3:
    """moto's S3 behind a gate, which can hold back the PUT of one key until its client is dead."""

    def __init__(self) -> None:
        self._moto = DomainDispatcherApplication(create_backend_app)
        self.puts: list[str] = []
        self._held, self.stopped, self._released = "", threading.Event(), threading.Event()
        self.garbles = ""  # other bytes stand under a key that ends so as soon as something is put there
        self._server = make_server("127.0.0.1", 0, self._gate, threaded=True, request_handler=Quiet)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def _gate(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        if environ["REQUEST_METHOD"] == "PUT":
            self.puts.append(environ["PATH_INFO"])
            if self._held and environ["PATH_INFO"].endswith(self._held):
                self.stopped.set()
                self._released.wait(60)
                start_response("503 Slow Down", [])
                return []
        answer = self._moto(environ, start_response)
        if environ["REQUEST_METHOD"] == "PUT" and self.garbles and environ["PATH_INFO"].endswith(self.garbles):
            self.garbles = ""
            client().put_object(Bucket=BUCKET, Key=environ["PATH_INFO"].removeprefix(f"/{BUCKET}/"), Body=b"other")
        return answer

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
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-a-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.address)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    client().create_bucket(Bucket=BUCKET)
    s3_server.puts.clear()
    yield s3_server
    for key in keys():
        client().delete_object(Bucket=BUCKET, Key=key)
    client().delete_bucket(Bucket=BUCKET)


# A consumer with nothing of ours: boto3, hashlib, onnxruntime


@cache
def client() -> Any:
    return boto3.client("s3")


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


def consume(read: Callable[[str], bytes | None]) -> int | None:
    """The version that a consumer finds, having checked everything it can; None where there is no pointer yet."""
    found = read("champion.json")
    if found is None:
        return None
    champion = json.loads(found)
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


def contents(*versions: int) -> set[str]:
    return {path.format(number) for path in CONTENTS for number in versions}


# Copying


def test_a_consumer_finds_on_s3_what_the_store_holds(s3: S3, two_versions: None) -> None:
    done = mirroring.mirror(NAME, URL)
    assert (done.outcome, done.version, done.url) == ("copied", 2, URL)
    assert done.written == tuple(path.format(2) for path in CONTENTS)
    assert s3.puts == [f"/{BUCKET}/models/{NAME}/{path}" for path in done.written], "pointer after version"
    assert consume(from_s3) == 2
    assert keys() == {f"models/{NAME}/{path}" for path in contents(2)}
    for path in contents(2):
        assert from_s3(path) == (artifact_paths.model(NAME) / path).read_bytes(), path


@pytest.mark.slow
@pytest.mark.parametrize("left", [None, b"", b"half"], ids=["deleted", "empty", "changed"])
def test_what_is_damaged_or_missing_there_is_repaired_whichever_file_it_is(
    s3: S3, two_versions: None, left: bytes | None
) -> None:
    """Every other file at once, then the others: manifest or list of checksums must tell whose version it is."""
    mirroring.mirror(NAME, URL)
    paths = [path.format(2) for path in CONTENTS]
    for broken in (paths[::2], paths[1::2]):
        for path in broken:
            client().delete_object(Bucket=BUCKET, Key=f"models/{NAME}/{path}")
            if left is not None:
                client().put_object(Bucket=BUCKET, Key=f"models/{NAME}/{path}", Body=left)
        repaired = mirroring.mirror(NAME, URL)
        assert list(repaired.written) == broken
        assert repaired.outcome == ("copied" if "champion.json" in broken else "repaired")
        assert consume(from_s3) == 2


@pytest.mark.parametrize("found", [("SHA256SUMS", "manifest.json", "model.onnx"), ("model.onnx",)])
def test_another_version_with_the_same_number_is_refused_and_left_alone(
    candidates: list[Candidate], s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: tuple[str, ...]
) -> None:
    """Two stores of different hosts, one URL."""
    candidates[1].publish()
    theirs = {f"1/{name}": (artifact_paths.version(NAME, 1) / name).read_bytes() for name in found}
    for path, content in theirs.items():
        client().put_object(Bucket=BUCKET, Key=f"models/{NAME}/{path}", Body=content)
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(tmp_path / "another"))
    candidates[0].publish()
    s3.puts.clear()
    with pytest.raises(DataError, match="is not of linear-regression version 1"):
        mirroring.mirror(NAME, URL)
    assert s3.puts == []
    assert {path: from_s3(path) for path in theirs} == theirs


def test_a_damaged_champion_is_never_mirrored(s3: S3, two_versions: None) -> None:
    damage(artifact_paths.version(NAME, 2) / "sample.npz", 50)
    done = typed("mirror", NAME, URL)
    assert_clear(done, 4)
    assert "sample.npz has changed" in done.stderr
    assert keys() == set()


def test_a_store_that_gives_back_other_bytes_is_found_out_before_the_pointer_moves(
    candidates: list[Candidate], s3: S3, two_versions: None
) -> None:
    mirroring.mirror(NAME, URL)
    candidates[2].publish()
    s3.garbles = "3/sample.npz"
    with pytest.raises(DataError, match=r"3/sample\.npz"):
        mirroring.mirror(NAME, URL)
    assert consume(from_s3) == 2


def test_a_champion_pruned_between_pointer_and_files_is_looked_up_once_more(
    s3: S3, candidates: list[Candidate], two_versions: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify, seen = verification.verify_version, []

    def pruned_meanwhile(name: str, number: int) -> dict[str, bytes]:
        seen.append(number)
        if len(seen) == 1:
            candidates[2].publish()
            folders.remove(artifact_paths.version(NAME, 2))
        return verify(name, number)

    monkeypatch.setattr(verification, "verify_version", pruned_meanwhile)
    assert mirroring.mirror(NAME, URL).version == 3
    assert seen[0] == 2
    assert consume(from_s3) == 3


def test_a_champion_whose_folder_is_gone_for_good_is_exit_4(s3: S3, two_versions: None) -> None:
    age_demotions()
    folders.remove(artifact_paths.version(NAME, 2))
    with pytest.raises(DataError, match=r"champion\.json names version 2, and there is no .*/2\n"):
        mirroring.mirror(NAME, URL)


# Kills


@pytest.mark.slow
def test_a_kill_leaves_the_old_champion_or_the_new_and_the_next_call_completes(s3: S3, two_versions: None) -> None:
    """SIGKILL while the server holds a PUT back: at the first file, the model, the pointer, and what follows it."""
    places = {path: f"killed-at-{path.replace('/', '-')}" for path in ("2/SHA256SUMS", "2/model.onnx", *CONTENTS[-3:])}
    pointer.rollback(NAME)
    for folder in places.values():
        mirroring.mirror(NAME, f"s3://{BUCKET}/{folder}")
    pointer.promote(NAME, 2)
    for path, folder in places.items():
        s3.stop_at(f"/{folder}/{NAME}/{path}")
        victim = subprocess.Popen([GRADMILL, "mirror", NAME, f"s3://{BUCKET}/{folder}"])
        assert s3.stopped.wait(60), "the victim has reached the file"
        victim.kill()
        assert victim.wait() == -9
        s3.go_on()
        read = partial(from_s3, folder=folder)
        assert consume(read) == (2 if path in CONTENTS[-2:] else 1)
        done = mirroring.mirror(NAME, f"s3://{BUCKET}/{folder}")
        first = [each.format(2) for each in CONTENTS].index(path)
        assert list(done.written) == [each.format(2) for each in CONTENTS[first:]], (
            "what was copied is not copied again"
        )
        assert consume(read) == 2


# Shares


def test_a_folder_is_a_mirror_too_and_what_killed_writers_left_is_swept(tmp_path: Path, two_versions: None) -> None:
    share = tmp_path / "share"
    (share / NAME / "2").mkdir(parents=True)
    (share / NAME / "2" / ".gradmill-0123456789abcdef.partial").write_bytes(b"half")
    assert mirroring.mirror(NAME, f"file://{share}").outcome == "copied"
    found = {str(path.relative_to(share / NAME)) for path in (share / NAME).rglob("*") if path.is_file()}
    assert found == contents(2)
    assert consume(lambda path: (share / NAME / path).read_bytes()) == 2
    assert mirroring.mirror(NAME, str(share)).outcome == "unchanged", "a path is a URL"
    (share / NAME / "2" / "model.onnx").write_bytes(b"")
    assert mirroring.mirror(NAME, str(share)).written == ("2/model.onnx",)


def test_a_longer_history_in_the_mirror_is_left_by_one_that_was_begun_anew(
    tmp_path: Path, two_versions: None, capsys: pytest.CaptureFixture[str]
) -> None:
    share, here = tmp_path / "share", artifact_paths.history(NAME)
    mirroring.mirror(NAME, str(share))
    there = share / NAME / "history.jsonl"
    before = there.read_bytes()
    here.unlink()
    pointer.rollback(NAME)
    assert mirroring.mirror(NAME, str(share)).written[-1] == "config.pbtxt"
    assert there.read_bytes() == before
    assert f"left: {share}/{NAME}/history.jsonl" in capsys.readouterr().err
    there.unlink()
    assert mirroring.mirror(NAME, str(share)).written == ("history.jsonl",)
    assert there.read_bytes() == here.read_bytes()


def test_a_reader_of_a_share_never_meets_a_dangling_pointer_or_half_a_file(tmp_path: Path, two_versions: None) -> None:
    share = tmp_path / "share"
    mirroring.mirror(NAME, str(share))
    stop, failures, reads = threading.Event(), [], []

    def read_in_a_loop() -> None:
        try:
            while not stop.is_set():
                reads.append(consume(lambda path: (share / NAME / path).read_bytes()))
        except Exception as error:
            failures.append(error)

    reader = threading.Thread(target=read_in_a_loop)
    reader.start()
    for number in [1, 2] * 5:
        pointer.promote(NAME, number)
        mirroring.mirror(NAME, str(share))
        enough = len(reads) + 2  # the second of them began after the copy
        while len(reads) < enough and reader.is_alive():
            stop.wait(0.005)
    stop.set()
    reader.join()
    assert failures == []
    assert set(reads) == {1, 2}


def test_the_store_is_no_mirror_of_itself(two_versions: None, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the artifacts folder itself"):
        mirroring.mirror(NAME, f"file://{artifact_paths.models()}/")
    artifact_paths.models().rename(tmp_path / "disk")
    artifact_paths.models().symlink_to(tmp_path / "disk")
    before = set((tmp_path / "disk").rglob("*"))
    for place in (tmp_path / "disk", tmp_path / "disk" / "deep", artifact_paths.models()):
        with pytest.raises(UsageError, match="the artifacts folder itself"):
            mirroring.mirror(NAME, str(place))
    assert set((tmp_path / "disk").rglob("*")) == before


# The command


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("no-such-model", URL),
        ("../models", URL),
        (NAME, "s33://consumers"),
        (NAME, "ftp://host/folder"),
        (NAME, "simplecache::s3://consumers"),
        (NAME, "s3://"),
        (NAME, "file:///"),
        (NAME, "~no-such-user/mirror"),
        (NAME, ""),
        (NAME, " "),
        (NAME, "file://"),
    ],
)
def test_what_cannot_be_mirrored_is_exit_2_and_leaves_nothing(
    name: str, url: str, two_versions: None, artifacts: Path
) -> None:
    before = set(artifacts.rglob("*"))
    assert_clear(typed("mirror", name, url), 2)
    assert set(artifacts.rglob("*")) == before


@pytest.mark.parametrize("url", ["s3://user:hunter/2@consumers/m", "ftp://user:hunter/2@host", "az://c/m?sig=hunter/2"])
def test_a_url_with_a_secret_is_refused_and_the_secret_not_repeated(url: str, two_versions: None) -> None:
    for done in (typed("mirror", NAME, url), typed("mirror", NAME, url, "--json")):
        assert done.returncode == 2
        assert "hunter" not in done.stdout + done.stderr


def test_a_missing_package_is_exit_2_and_says_what_to_install(two_versions: None) -> None:
    code = "import sys; sys.modules['s3fs'] = None; from flows.cli import app; sys.exit(app.run(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, "mirror", NAME, URL], capture_output=True, text=True)
    assert_clear(done, 2)
    assert f"{sys.executable} -m pip install s3fs" in done.stderr


def test_no_bucket_no_credentials_and_no_writable_share_are_exit_1(
    s3: S3, two_versions: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = gradmill("mirror", NAME, "s3://no-such-bucket/models")
    assert_clear(done, 1)
    assert "bucket does not exist" in done.stderr
    assert_clear(gradmill("mirror", NAME, "/proc/nowhere"), 1)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    done = gradmill("mirror", NAME, URL)
    assert_clear(done, 1)
    assert "credentials" in done.stderr


# Retrain


@pytest.mark.slow
def test_a_retrain_mirrors_its_champion_and_one_with_nothing_new_catches_up_a_failed_copy(
    s3: S3, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = RetrainParameters.model_validate({"training": {"model": NAME}, "predict": False})
    (artifact_paths.make_root() / "mirror.json").write_text("{")
    with pytest.raises(DataError, match=r"mirror\.json is not JSON"):
        retrain(parameters)
    assert reading.resolve(NAME, None) == 1, "what was published stays published"
    monkeypatch.setenv("GRADMILL_MIRROR", "s3://not-made-yet/models")
    with pytest.raises(EnvironmentProblem, match="bucket does not exist"):
        retrain(parameters)
    monkeypatch.setenv("GRADMILL_MIRROR", URL)
    report = retrain(parameters)
    assert report.outcome == "unchanged"
    assert report.mirror is not None
    assert (report.mirror.outcome, report.mirror.version, report.mirror.url) == ("copied", 1, URL)
    assert list(report.seconds)[-2:] == ["publish", "mirror"]
    assert consume(from_s3) == 1
    third = retrain(parameters).mirror
    assert third is not None
    assert third.outcome == "unchanged"


def test_a_retrain_checks_its_mirror_before_any_work(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADMILL_MIRROR", "ftp://host/folder")
    assert_clear(gradmill("retrain", NAME), 2)
    assert not (artifacts / "runs").exists()


# The mirror of a store


def attention() -> tuple[list[str], list[bool | None]]:
    """What ``gradmill status`` says of the mirror, and whether each champion has reached it."""
    found = json.loads(gradmill("status", "--json").stdout)
    return [each for each in found["attention"] if "mirror" in each], [each["is_mirrored"] for each in found["models"]]


@pytest.mark.slow
def test_the_mirror_is_kept_with_the_store_and_every_change_from_any_shell_brings_it_along_or_says_that_it_did_not(
    tmp_path: Path, artifacts: Path, two_versions: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert attention() == ([], [None])
    share, mirrored = tmp_path / "share", lambda: json.loads((share / NAME / "champion.json").read_text())
    monkeypatch.setenv("GRADMILL_MIRROR", str(share))
    assert "mirror: done" in gradmill("promote", NAME, "2").stdout
    monkeypatch.delenv("GRADMILL_MIRROR")
    assert "mirror: done" in gradmill("rollback", NAME).stdout, "another shell"
    assert mirrored()["version"] == 1
    assert attention() == ([], [True])
    share.rename(tmp_path / "away")
    share.write_text("no folder")
    done = gradmill("unfreeze", NAME)
    assert_clear(done, 1)
    assert "has not followed" in done.stderr
    behind = f"what is said of {NAME} version 1 has changed since: gradmill mirror {NAME} {share}"
    assert attention() == ([f"the mirror is behind: {behind}"], [False])
    assert gradmill("status", "--check").returncode == 1
    assert f'gradmill_mirror_behind{{name="{NAME}"}} 1.0' in gradmill("metrics").stdout
    share.unlink()
    (tmp_path / "away").rename(share)
    assert gradmill("mirror", NAME, str(share)).returncode == 0
    assert (attention(), mirrored()["frozen"]) == (([], [True]), False)
    monkeypatch.setenv("GRADMILL_MIRROR", "none")
    assert "mirror" not in gradmill("promote", NAME, "2").stdout
    monkeypatch.delenv("GRADMILL_MIRROR")
    assert attention() == ([], [None])


def mirrored_store(share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name the mirror of this store as a user does, with version 2 as its champion."""
    monkeypatch.setenv("GRADMILL_MIRROR", str(share))
    assert gradmill("promote", NAME, "2").returncode == 0
    monkeypatch.delenv("GRADMILL_MIRROR")


@pytest.mark.slow
def test_a_copied_or_moved_store_never_writes_to_the_mirror_that_it_came_with_and_status_says_what_to_do(
    tmp_path: Path, artifacts: Path, two_versions: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    share, original, kept = tmp_path / "share", tmp_path / "original", artifacts / "mirror.json"
    mirrored_store(share, monkeypatch)
    before = (share / NAME / "champion.json").read_bytes()
    artifacts.rename(original)
    done = gradmill("rollback", NAME, "--artifacts", str(original))
    assert (done.returncode, "nothing is mirrored" in done.stderr) == (0, True), "it lies elsewhere"
    assert gradmill("promote", NAME, "2", "--artifacts", str(original)).returncode == 0
    shutil.copytree(original, artifacts)
    # As where the system gives a number anew, or a volume has but one of its root.
    claim = artifacts / ".store" if (artifacts / ".store").exists() else artifacts
    kept.write_text(json.dumps(json.loads(kept.read_text()) | {"inode": claim.stat().st_ino}))
    assert "nothing is mirrored" in gradmill("rollback", NAME).stderr, "a copy in the place of the original"
    assert (share / NAME / "champion.json").read_bytes() == before
    ((said,), reached) = attention()
    assert f"{kept} names {share}, the mirror of another store" in said
    assert "GRADMILL_MIRROR=URL" in said
    assert "GRADMILL_MIRROR=none" in said
    assert reached == [False]
    monkeypatch.setenv("GRADMILL_MIRROR", "none")
    gradmill("freeze", NAME)
    monkeypatch.delenv("GRADMILL_MIRROR")
    assert attention() == ([], [None])
    shutil.rmtree(artifacts)
    original.rename(artifacts)
    assert "mirror: done" in gradmill("unfreeze", NAME).stdout, "the original is where it was"


@pytest.mark.slow
def test_a_damaged_mirror_json_stops_nothing_and_is_told_until_the_mirror_is_named_anew(
    tmp_path: Path, artifacts: Path, two_versions: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    share, kept = tmp_path / "share", artifacts / "mirror.json"
    mirrored_store(share, monkeypatch)
    kept.write_text("{")
    for command, version in (("rollback",), 1), (("promote", "2"), 2), (("freeze",), 2):
        done = gradmill(command[0], NAME, *command[1:])
        assert_clear(done, 1)
        assert "mirror: NOT DONE" in done.stdout
        assert f"{kept} is not JSON" in done.stderr
        assert "GRADMILL_MIRROR=URL" in done.stderr
        assert pointer.is_frozen(NAME)
        assert reading.resolve(NAME, None) == version
    ((said,), reached) = attention()
    assert (f"{kept} is not JSON" in said, reached) == (True, [False])
    done = gradmill("metrics")
    assert "gradmill_damaged_documents 1.0" in done.stdout
    assert f"{kept} is not JSON" in done.stderr
    assert gradmill("mirror", NAME, str(share)).returncode == 0
    mirrored_store(share, monkeypatch)
    assert attention() == ([], [True])
    kept.write_text("{")
    monkeypatch.setenv("GRADMILL_MIRROR", "none")
    assert gradmill("unfreeze", NAME).returncode == 0
    assert not kept.exists()


def test_a_url_in_another_spelling_is_the_same_mirror_and_keeps_what_is_noted(
    tmp_path: Path, artifacts: Path, two_versions: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    share, kept = tmp_path / "share", artifacts / "mirror.json"
    mirrored_store(share, monkeypatch)
    noted = kept.read_bytes()
    monkeypatch.chdir(tmp_path)
    for url in ("share", "./share/", f"file://{share}/", f"{share}/../share"):
        monkeypatch.setenv("GRADMILL_MIRROR", url)
        assert gradmill("promote", NAME, "2").returncode == 0
        assert kept.read_bytes() == noted, url
    monkeypatch.delenv("GRADMILL_MIRROR")
    pointer.rollback(NAME)
    assert gradmill("mirror", NAME, "./share").returncode == 0
    assert attention() == ([], [True])


@pytest.mark.slow
def test_up_waits_for_no_mirror_tells_what_fails_and_its_worker_does_not_name_the_mirror_again(
    s3: S3, artifacts: Path, two_versions: None
) -> None:
    s3.stop_at("2/SHA256SUMS")
    duty = Duty(artifacts, own_database() | {"GRADMILL_MIRROR": URL})
    try:
        assert s3.stopped.wait(60)
        assert len(s3.puts) == 1, "it is up, and the mirror has not yet answered its first request"
        children = psutil.Process(duty.process.pid).children(recursive=True)
        assert not [each for each in children if "GRADMILL_MIRROR" in each.environ()]
        s3.go_on()
        eventually(lambda: consume(from_s3) == 2, 60, "the mirror follows")
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
