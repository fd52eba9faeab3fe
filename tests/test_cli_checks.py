"""What the command line, the path, the header or the store shows to be wrong: said before any server is started."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import flows.cli.app
from command_line import gradmill
from conftest import REPOSITORY

PRIVATE = [
    *(f"https://host/t.csv?{key}=secret" for key in ("jwt", "code", "auth", "pass", "bearer", "hmac", "sas")),
    "https://host/t.csv#token=secret",
    "https://host/t.csv;token=secret",
    "https://host/t.csv?url=http://u:secret@h/",
    "https://host/t.csv?raw=1;sas=secret",
    "https://host:port/t.csv?jwt=secret",
    "https://me:sec?ret@host/t.csv",
]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The exit code, and all that was printed."""
    code = flows.cli.app.run(list(arguments))
    return code, "".join(capsys.readouterr())


SECRETS = [
    *(("retrain linear-regression --name x --data URL --target y", url) for url in PRIVATE),
    ("retrain linear-regression --data URL --debug", PRIVATE[0]),
    ("retrain linear-regression --name x --data URL", PRIVATE[0]),
    ("tune linear-regression --name x --data URL --target y --json", PRIVATE[0]),
    ("inspect URL --target y", PRIVATE[0]),
    ("predict URL --name x", PRIVATE[0]),
    ("evaluate x URL", PRIVATE[0]),
    ("schedule predict-daily --param input=URL", PRIVATE[0]),
]


@pytest.mark.parametrize(("command", "url"), SECRETS)
def test_a_url_with_what_may_be_a_secret_is_neither_printed_nor_written(
    command: str, url: str, artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed = run(capsys, *command.replace("URL", url).split())
    assert code == 2
    assert "credentials" in printed
    assert not any(part in printed for part in ("secret", "sec?ret", "sec"))
    assert not artifacts.exists()


TRAIN = "linear-regression --name new --data t.csv --target price"
MISTAKES: dict[str, tuple[int, str]] = {
    f"retrain {TRAIN} --ignroe age": (2, "No such option: --ignroe"),
    "retrain linear-regression --name new --data t.csv --target prise": (4, "no column prise (--target)"),
    "retrain linear-regression --name new --data no.csv --target price": (4, "no file"),
    "retrain linear-regression --name new --data header.csv --target prise": (4, "no column prise (--target)"),
    f"retrain {TRAIN.replace('t.csv', 'header.csv')}": (4, "holds no rows"),
    f"retrain {TRAIN.replace('t.csv', 'deep.jsonl')}": (4, "one array"),
    f"tune {TRAIN.replace('t.csv', 'null.jsonl')}": (4, "row 0 is null"),
    "retrain linear-regression --name new --data empty.csv --target price": (4, "empty.csv is empty"),
    "retrain linear-regression --name new --data empty --target price": (4, "holds nothing that can be read"),
    "retrain linear-regression --name new --data two --target prise": (4, "no column prise (--target)"),
    f"retrain {TRAIN} --features area,aeg": (4, "no column aeg (--features)"),
    f"retrain {TRAIN} --category knid": (4, "no column knid (--category)"),
    f"retrain {TRAIN} --split-by cutsomer": (4, "no column cutsomer (to split by)"),
    f"retrain {TRAIN} --time-column dya": (4, "no column dya (to split by)"),
    f"retrain {TRAIN} --split-column pasrt": (4, "no column pasrt (to split by)"),
    f"retrain {TRAIN} --ignore price": (2, "price is the target and is to be ignored"),
    "retrain hosues": (2, "no model hosues"),
    "bench train": (2, "run python -m benchmarks"),  # as of commands and options of before
    "backup copy --replace": (2, "leave it out"),
    "retrain houses --data less.csv": (4, "column kind is missing"),
    "retrain houses --data more.csv": (4, "column pool is new"),
    "retrain houses --target area": (2, "houses as linear-regression, own data, area"),
    "retrain houses --category area": (2, "area as a category"),
    "retrain houses --split-by kind": (2, "a split by kind"),
    "tune hosues": (2, "no model hosues"),
    "tune houses --data less.csv": (4, "column kind is missing"),
    "tune houses --space lrr=0.1:1": (2, "--space lrr=0.1:1"),
    f"tune {TRAIN} --time-column dya": (4, "no column dya (to split by)"),
    "predict t.csv --name hosues": (2, "no model named hosues"),
    "predict t.csv --name houses --version 9": (2, "houses has no version 9"),
    "predict no.csv --name houses": (2, "no file"),
    "predict less.csv --name houses": (4, "kind missing"),
    "predict t.csv --name houses --id-column nmuber": (4, "nmuber missing"),
    "predict header.csv --name houses": (4, "holds no rows"),
    "predict deep.jsonl --name houses": (4, "one array"),
    "predict x.npy --name houses --id-column number": (2, "--id-column number"),
    "predict --name houses --id-column number": (2, "--id-column number"),
    "predict t.csv --name houses --columns area,age": (2, "--columns"),
    "predict t.csv --name houses --output ARTIFACTS/models/houses": (2, "is inside the artifacts folder"),
    "evaluate hosues t.csv": (2, "no model named hosues"),
    "evaluate houses t.csv --version 9": (2, "houses has no version 9"),
    "evaluate houses no.csv": (4, "no file"),
    "evaluate houses less.csv": (4, "column kind is missing"),
    "evaluate houses header.csv": (4, "holds no rows"),
    "evaluate houses null.jsonl": (4, "row 0 is null"),
    "evaluate houses unknown.csv": (4, "no column price (--target)"),
    "evaluate houses t.csv --time-column dya": (4, "no column dya (--time-column)"),
    "evaluate houses --time-column day": (2, "--time-column day"),
    "evaluate houses ''": (2, "DATA is missing"),
}
# Commands one after the other in a process in which a flow cannot be imported, and so none gets as far as a server.
WITHOUT_FLOWS = """
import contextlib, io, json, sys, time
sys.modules |= {"prefect": None, "torch": None}
from flows.cli import app
def run(arguments):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        began = time.process_time()
        code = app.run(arguments)
    return code, out.getvalue(), time.process_time() - began
print(json.dumps([run(each) for each in json.load(sys.stdin)]))
"""


@pytest.fixture(scope="module")
def answers(server: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, float]]:
    """What each mistake is answered, and the seconds of a core that it took, beside a store with one version."""
    folder = tmp_path_factory.mktemp("checks")
    rng = np.random.default_rng(0)
    area, age, kind = rng.uniform(40, 200, 300), rng.integers(0, 99, 300), rng.choice(["flat", "house"], 300)
    rows = [f"{a:.1f},{b},{c},{3 * a - b + 50 * (c == 'flat'):.1f}" for a, b, c in zip(area, age, kind, strict=True)]
    for name, header, lines in [
        ("t.csv", "area,age,kind,price", rows),
        ("header.csv", "area,age,kind,price", []),
        ("less.csv", "area,age,price", ["1,2,3"]),
        ("more.csv", "area,age,kind,price,pool", [f"{each},yes" for each in rows]),
        ("unknown.csv", "area,age,kind", ["1,2,flat"]),
        ("two/1.csv", "area,age,kind,price", rows),
        ("two/2.csv", "area,age,kind,cost", rows),
    ]:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("\n".join([header, *lines, ""]))
    (folder / "empty.csv").touch()
    (folder / "deep.jsonl").write_text("[" * 10_000)
    (folder / "null.jsonl").write_text("null\n")
    (folder / "empty").mkdir()
    np.save(folder / "x.npy", np.ones((2, 3), np.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("GRADMILL_ARTIFACTS", str(folder / "artifacts"))
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        patch.setenv("PREFECT_API_URL", server)
        made = gradmill("retrain", *TRAIN.replace("new", "houses").split(), "--no-predict")
        assert made.returncode == 0, made.stderr
        typed = [shlex.split(each.replace("ARTIFACTS", str(folder / "artifacts"))) for each in MISTAKES]
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_FLOWS], input=json.dumps(typed), capture_output=True, text=True, timeout=300
        )
    assert done.returncode == 0, done.stderr
    return dict(zip(MISTAKES, json.loads(done.stdout), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_is_said_before_prefect_and_torch_are_imported(
    command: str, answers: dict[str, tuple[int, str, float]]
) -> None:
    code, printed, seconds = answers[command]
    assert (code, MISTAKES[command][1] in printed) == (MISTAKES[command][0], True), printed
    assert seconds < 1
