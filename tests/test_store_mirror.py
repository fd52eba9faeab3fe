"""Champions on other hosts: a real S3 server on loopback, a folder, kills in mid-copy, damage there."""

import hashlib
import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import boto3
import httpx
import onnxruntime
import psutil
import pytest
from moto.server import ThreadedMotoServer

from candidate import Contender
from command_line import assert_clear, gradmill, plant_strangers, refused, typed
from documents import load
from duty import Duty
from flows.retrain import retrain
from http_stand_ins import answered, played
from prefect_api import eventually, own_database
from store_state import damage
from tasks.errors import DataError
from tasks.parameters import RetrainParameters
from tasks.store import artifact_paths, folders, mirror_sync, model_folder, pointer, remote, verification
from victims import fork, run_until_rename

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


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server with one empty bucket, named to clients as a user would: by the environment."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # or it would write a line a request
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    for name, value in {
        "AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "not-a-secret", "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": address, "NO_PROXY": "127.0.0.1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    yield address
    httpx.post(f"{address}/moto-api/reset")
    server.stop()


@pytest.fixture
def share(tmp_path: Path) -> Path:
    """Where the champion of this test's two versions may be copied."""
    return tmp_path / "share"


def consume(share: Path, name: str = NAME) -> int:
    """The version that a consumer finds in a folder, with hashlib and onnxruntime, having checked all that it can."""
    pointer = load(share / name / "champion.json")
    folder = share / name / str(pointer["version"])
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, filename = line.split("  ")
        assert hashlib.sha256((folder / filename).read_bytes()).hexdigest() == digest, filename
    model = (folder / "model.onnx").read_bytes()
    assert hashlib.sha256(model).hexdigest() == pointer["model_sha256"]
    onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return int(pointer["version"])


# Copying


def test_a_consumer_finds_on_s3_what_the_store_holds(s3: str) -> None:
    done = mirror_sync.copy_champion(NAME, URL)
    assert (done.outcome, done.version, done.url) == ("copied", 2, URL)
    assert list(done.written) == PATHS, "pointer after version"
    copied = {each.key: each.get()["Body"].read() for each in boto3.resource("s3").Bucket(BUCKET).objects.all()}
    assert copied == {f"models/{NAME}/{path}": (artifact_paths.model(NAME) / path).read_bytes() for path in PATHS}


@pytest.mark.parametrize("left", [None, b"", b"half"], ids=["deleted", "empty", "changed"])
def test_what_is_damaged_or_missing_there_is_repaired_whichever_file_it_is(share: Path, left: bytes | None) -> None:
    """Every other file at once, then the others: manifest or list of checksums must tell whose version it is."""
    mirror_sync.copy_champion(NAME, str(share))
    for broken in (PATHS[::2], PATHS[1::2]):
        for path in broken:
            (share / NAME / path).unlink()
            if left is not None:
                (share / NAME / path).write_bytes(left)
        repaired = mirror_sync.copy_champion(NAME, str(share))
        assert list(repaired.written) == broken
        assert repaired.outcome == ("copied" if "champion.json" in broken else "repaired")
        assert consume(share) == 2


@pytest.mark.parametrize("found", [("SHA256SUMS", "manifest.json", "model.onnx"), ("model.onnx",)])
def test_another_version_with_the_same_number_is_refused_and_left_alone(
    candidates: list[Contender], share: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: tuple[str, ...]
) -> None:
    """Two stores of different hosts, one URL."""
    (theirs := share / NAME / "1").mkdir(parents=True)
    for name in found:
        shutil.copy2(artifact_paths.version(NAME, 1) / name, theirs)
    before = {path: path.stat().st_mtime_ns for path in share.rglob("*")}
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(tmp_path / "another"))
    candidates[1].publish()
    refused(4, f"mirror {NAME} {share}", "does not belong to linear-regression version 1")
    assert {path: path.stat().st_mtime_ns for path in share.rglob("*")} == before


def test_a_damaged_champion_is_never_mirrored(share: Path) -> None:
    damage(artifact_paths.version(NAME, 2) / "sample.npz", 50)
    refused(4, f"mirror {NAME} {share}", "sample.npz has changed")
    folders.remove(artifact_paths.version(NAME, 2))
    refused(4, f"mirror {NAME} {share}", "champion.json names version 2, and there is no ")
    assert not share.exists()


def test_a_store_that_gives_back_other_bytes_is_found_out_before_the_pointer_moves(
    candidates: list[Contender], share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror_sync.copy_champion(NAME, str(share))
    candidates[2].publish()
    write = remote.RemoteFolder.write
    monkeypatch.setattr(remote.RemoteFolder, "write", lambda self, path, content: write(self, path, content[:-1]))
    refused(4, f"mirror {NAME} {share}", "3/SHA256SUMS")
    monkeypatch.setattr(remote.RemoteFolder, "write", write)
    assert consume(share) == 2


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
    assert mirror_sync.copy_champion(NAME, str(share)).version == consume(share) == 3


@pytest.mark.slow
def test_a_kill_leaves_the_old_champion_or_the_new_and_the_next_call_completes(
    artifacts: Path, share: Path, tmp_path: Path
) -> None:
    """SIGKILL before each of the files is put in its place."""
    pointer.rollback(NAME)
    mirror_sync.copy_champion(NAME, str(share))
    pointer.promote(NAME, 2)
    for at in range(len(PATHS)):
        there = Path(shutil.copytree(share, tmp_path / str(at)))
        victim = fork(run_until_rename, at, ["mirror", NAME, str(there), "--artifacts", str(artifacts)])
        victim.join()
        assert victim.exitcode == -signal.SIGKILL
        assert consume(there) == (2 if at > PATHS.index("champion.json") else 1)
        assert list(mirror_sync.copy_champion(NAME, str(there)).written) == PATHS[at:], "nothing is copied again"
        assert consume(there) == 2


# Shares


def test_a_folder_is_a_mirror_too_and_what_killed_writers_left_is_swept_and_nothing_else(share: Path) -> None:
    strangers = plant_strangers(share / NAME / "2")
    (share / NAME / "2" / ".gradmill-0123456789abcdec.partial").write_bytes(b"half")
    assert mirror_sync.copy_champion(NAME, f"file://{share}").outcome == "copied"
    there = {*(share / NAME).rglob("*")} - {share / NAME / "2"}
    assert there == {*(share / NAME / path for path in PATHS), *strangers}
    assert consume(share) == 2
    assert mirror_sync.copy_champion(NAME, str(share)).outcome == "unchanged", "a path is a URL"


def test_a_longer_history_in_the_mirror_is_left_by_one_that_was_begun_anew(share: Path) -> None:
    here = artifact_paths.history(NAME)
    mirror_sync.copy_champion(NAME, str(share))
    there = share / NAME / "history.jsonl"
    before = there.read_bytes()
    here.unlink()
    pointer.rollback(NAME)
    assert f"not overwritten: {there}" in typed("mirror", NAME, share).stderr
    assert (consume(share), there.read_bytes()) == (1, before)
    there.unlink()
    assert mirror_sync.copy_champion(NAME, str(share)).written == ("history.jsonl",)
    assert there.read_bytes() == here.read_bytes()


def test_the_store_is_no_mirror_of_itself(tmp_path: Path) -> None:
    models = artifact_paths.models()
    disk = models.rename(tmp_path / "disk")
    models.symlink_to(disk)
    before = set(disk.rglob("*"))
    for place in (f"file://{models}/", models, disk, disk / "deep"):
        refused(2, f"mirror {NAME} {place}", "the artifacts folder itself")
    assert set(disk.rglob("*")) == before


# The command

REFUSED = [
    f"no-such-model {URL}", f"../models {URL}",
    *(
        f"{NAME} '{url}'"
        for url in (
            "s33://consumers", "ftp://host/folder", "simplecache::s3://consumers", "s3://", "file:///",
            "/x/../..", "file:/x/../..", "~/../../..",
            "~no-such-user/mirror", "", " ", "file://", "s3://user:hunter/2@consumers/m", "ftp://user:hunter/2@host",
            "az://c/m?sig=hunter/2",
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("words", REFUSED)
def test_what_cannot_be_mirrored_is_exit_2_repeats_no_secret_and_leaves_nothing(words: str, artifacts: Path) -> None:
    before = set(artifacts.rglob("*"))
    for option in ("", " --json"):
        done = typed(*shlex.split(f"mirror {words}{option}"))
        assert (done.returncode, "hunter" in done.stdout + done.stderr) == (2, False)
    assert set(artifacts.rglob("*")) == before


def test_a_missing_package_is_exit_2_and_says_what_to_install() -> None:
    code = "import sys; sys.modules['s3fs'] = None; from flows.cli import app; sys.exit(app.run(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, "mirror", NAME, URL], capture_output=True, text=True)
    assert_clear(done, 2, f"{sys.executable} -m pip install s3fs")


def test_no_bucket_no_credentials_and_no_writable_share_are_exit_1(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(1, f"mirror {NAME} s3://no-such-bucket/models", "bucket does not exist")
    refused(1, f"mirror {NAME} /proc/nowhere")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert_clear(gradmill("mirror", NAME, URL), 1, "credentials")


# Retrain


@pytest.mark.slow
def test_a_retrain_mirrors_its_champion_and_one_with_nothing_new_catches_up_a_failed_copy(
    prefect_api: str, artifacts: Path, share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = RetrainParameters.model_validate({"name": "new", "training": {"model": NAME}, "predict": False})
    (artifacts / "mirror.json").write_text("{")
    with pytest.raises(DataError, match=r"mirror\.json is not JSON"):
        retrain(parameters)
    assert model_folder.resolve_version("new", None) == 1, "what was published stays published"
    monkeypatch.setenv("GRADMILL_MIRROR", str(share))
    for mirrored in ("copied", "unchanged"):
        report = retrain(parameters)
        assert report.mirror is not None
        assert (report.outcome, report.mirror.outcome, report.mirror.url) == ("unchanged", mirrored, str(share))
        assert list(report.seconds)[-2:] == ["preprocess", "mirror"]
    assert consume(share, "new") == 1


def test_a_retrain_checks_its_mirror_before_any_work(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADMILL_MIRROR", "ftp://host/folder")
    refused(2, f"retrain {NAME}")
    assert not (artifacts / "runs").exists()


# The mirror of a store


def attention() -> tuple[str, bool | None]:
    """What ``gradmill status`` says of the mirror, and whether the champion has reached it."""
    found = json.loads(gradmill("status", "--json").stdout)
    (model,) = found["models"]
    return "; ".join(each for each in found["attention"] if "mirror" in each), model["is_mirrored"]


def change(command: str, *said: str, mirror: Path | str | None = None, code: int = 0) -> None:
    """Change the champion from a shell in which ``GRADMILL_MIRROR`` is set or not."""
    with pytest.MonkeyPatch.context() as patch:
        if mirror is not None:
            patch.setenv("GRADMILL_MIRROR", str(mirror))
        word, *more = command.split()
        done = gradmill(word, NAME, *more)
    assert done.returncode == code, done.stderr
    assert not [words for words in said if words not in done.stdout + done.stderr]


UP_TO_DATE = "mirror: up to date"


@pytest.mark.slow
def test_the_mirror_is_kept_with_the_store_and_every_change_brings_it_along_or_says_that_it_did_not(
    tmp_path: Path, artifacts: Path, share: Path
) -> None:
    assert attention() == ("", None)
    change("promote 2", UP_TO_DATE, mirror=share)
    noted = (kept := artifacts / "mirror.json").read_bytes()
    for url in (f"file://{share}/", f"{share}/../share", os.path.relpath(share)):
        change("promote 2", mirror=url)
        assert kept.read_bytes() == noted, url
    change("rollback", UP_TO_DATE)  # from another shell
    assert (consume(share), attention()) == (1, ("", True))
    share.rename(tmp_path / "away")
    share.write_text("no folder")
    change("unfreeze", "was not updated", code=1)
    behind = f"the pointer to {NAME} version 1 has changed since: gradmill mirror {NAME} {share}"
    assert attention() == (f"the mirror is behind: {behind}", False)
    assert gradmill("status", "--check").returncode == 1
    assert f'gradmill_mirror_behind{{name="{NAME}"}} 1.0' in gradmill("metrics").stdout
    share.unlink()
    (tmp_path / "away").rename(share)
    assert gradmill("mirror", NAME, str(share)).returncode == 0
    assert attention() == ("", True)
    kept.write_text("{")
    damaged = f"{kept} is not JSON"
    for command, version in {"promote 2": 2, "rollback": 1, "freeze": 1}.items():
        change(command, damaged, "GRADMILL_MIRROR=URL", "mirror: FAILED", code=1)
        assert (model_folder.resolve_version(NAME, None), consume(share)) == (version, 1)
    said, reached = attention()
    assert (damaged in said, reached) == (True, False)
    assert f'gradmill_mirror_behind{{name="{NAME}"}} 1.0' in gradmill("metrics").stdout
    change("promote 2", UP_TO_DATE, mirror=share)
    assert attention() == ("", True)
    kept.write_text("{")
    change("unfreeze", mirror="none")
    assert (attention(), kept.exists()) == (("", None), False)


@pytest.mark.slow
def test_a_copied_or_moved_store_never_writes_to_the_mirror_that_it_came_with_and_status_says_what_to_do(
    tmp_path: Path, artifacts: Path, share: Path
) -> None:
    original, kept = tmp_path / "original", artifacts / "mirror.json"
    change("promote 2", UP_TO_DATE, mirror=share)
    before = (share / NAME / "champion.json").read_bytes()
    artifacts.rename(original)
    for command in ("rollback", "promote 2"):
        change(f"{command} --artifacts {original}", "nothing is mirrored")  # it lies elsewhere
    shutil.copytree(original, artifacts)
    # As where the system gives a number anew, or a volume has but one of its root.
    claim = artifacts / ".store" if (artifacts / ".store").exists() else artifacts
    kept.write_text(json.dumps(load(kept) | {"inode": claim.stat().st_ino}))
    change("rollback", "nothing is mirrored")  # a copy in the place of the original
    assert (share / NAME / "champion.json").read_bytes() == before
    said, reached = attention()
    for words in (f"{kept} names {share}, the mirror of another store", "GRADMILL_MIRROR=URL", "GRADMILL_MIRROR=none"):
        assert words in said
    assert reached is False
    change("freeze", mirror="none")
    assert attention() == ("", None)
    shutil.rmtree(artifacts)
    original.rename(artifacts)
    change("unfreeze", UP_TO_DATE)  # the original is where it was


@pytest.mark.slow
@pytest.mark.usefixtures("s3")
def test_up_waits_for_no_mirror_tells_what_fails_and_its_worker_does_not_name_the_mirror_again(
    artifacts: Path, share: Path
) -> None:
    asked, may_answer = threading.Event(), threading.Event()

    def hesitate(handler: BaseHTTPRequestHandler) -> None:
        asked.set()
        may_answer.wait(60)
        answered(403)(handler)

    with played(hesitate) as address:
        duty = Duty(artifacts, own_database() | {"GRADMILL_MIRROR": URL, "AWS_ENDPOINT_URL": address})
        try:
            assert asked.wait(60), "it is up, and the mirror has not yet answered its first request"
            children = psutil.Process(duty.process.pid).children(recursive=True)
            assert not [each for each in children if "GRADMILL_MIRROR" in each.environ()]
            may_answer.set()
            log = artifacts.parent / "up.log"
            eventually(lambda: "was not updated" in log.read_text(), 60, "it is told")
            assert duty.process.poll() is None
        finally:
            may_answer.set()
            duty.kill()
    duty.environment["GRADMILL_MIRROR"] = str(share)
    duty.up()
    try:
        eventually(lambda: (share / NAME / "champion.json").exists() and consume(share) == 2, 60, "it follows")
    finally:
        duty.kill()
        duty.api.close()
