"""What is typed beside a store with one version: mistakes are said before any work, ``--json`` gives one document."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest

import image_folders
from command_line import assert_clear, gradmill, plant_strangers, typed
from conftest import REPOSITORY
from flows.cli.app import PANELS

PRIVATE = [
    *(f"https://host/t.csv?{key}=secret" for key in ("jwt", "code", "auth", "pass", "bearer", "hmac", "sas")),
    "https://host/t.csv#token=secret",
    "https://host/t.csv;token=secret",
    "https://host/t.csv?url=http://u:secret@h/",
    "https://host/t.csv?raw=1;sas=secret",
    "https://host:port/t.csv?jwt=secret",
    "https://me:sec?ret@host/t.csv",
    "https://me:secret@host/t.csv",
    "https://me:sec/secret@host/t.csv",
    "https://secret@host/t.csv",
    "https://host/t.csv?a=1&X-Amz-Credential=secret",
    "HTTPS://host/t.csv?apiKey=secret",
    "abfs://c@account/t.csv?sig=secret",
    "s3://k:secret@b/t",
    "simplecache::https://host/t.csv?token=secret",
    "zip://t.csv::simplecache::https://me:secret@host/t.zip",
    "https://host/t.csv?secret",
    "https://host/t.csv?raw=1%26sas=secret",
    "https://host/t.csv?download=http://u:secret@h/",
    "https://host/t.csv;token=secret?raw=1",
    "https://host?jwt=secret",
]
TAKE_URLS = [
    "retrain linear-regression --data URL --debug",
    "retrain linear-regression --name x --data URL",
    "tune linear-regression --name x --data URL --target y --json",
    "inspect URL --target y",
    "predict URL --name x",
    "evaluate x URL",
    "schedule predict-daily --param input=URL",
]


@pytest.mark.parametrize(
    "command",
    [
        *(f"retrain linear-regression --name x --data {url} --target y" for url in PRIVATE),
        *(command.replace("URL", PRIVATE[0]) for command in TAKE_URLS),
    ],
)
def test_a_url_with_what_may_be_a_secret_is_neither_printed_nor_written(command: str, artifacts: Path) -> None:
    done = typed(*command.split())
    printed = done.stdout + done.stderr
    assert (done.returncode, "credentials" in printed, "sec" in printed) == (2, True, False)
    assert not artifacts.exists()


ROW_NAMES: dict[str, Callable[[pd.DataFrame, Path], object]] = {  # as pandas writes them
    "numbers.csv": lambda table, path: table.to_csv(path),
    "names.csv": lambda table, path: with_row_names(table).to_csv(path),
    "numbers.parquet": lambda table, path: table.to_parquet(path, index=True),
    "names.parquet": lambda table, path: with_row_names(table).to_parquet(path),
}


def with_row_names(table: pd.DataFrame) -> pd.DataFrame:
    return table.rename(index="house {}".format)


@pytest.fixture(scope="module")
def store_and_data(server: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one version, and tables and pictures of every kind that commands are given."""
    folder = tmp_path_factory.mktemp("whole")
    rng, n = np.random.default_rng(0), np.arange(400)
    area, age, kind = rng.uniform(40, 200, 400).round(1), rng.integers(0, 99, 400), rng.choice(["flat", "house"], 400)
    good = pd.DataFrame({"area": area, "age": age, "kind": kind, "price": 3 * area - age + 50 * (kind == "flat")})
    counted = pd.DataFrame({"id": n + 1000, "area": n % 17, "rooms": n * n % 11 / 8})
    for name in ("odd", "two", "strange", "empty"):
        (folder / name).mkdir()
    for name, table in {
        "t.csv": good,
        "My Data 2.csv": good,
        "價.csv": good,
        "odd/t.csv": good,
        "two/1.csv": good,
        "two/2.csv": good.rename(columns={"price": "cost"}),
        "more.csv": good.assign(pool=kind),
        "less.csv": good.drop(columns="kind"),
        "unknown.csv": good.drop(columns="price"),
        "unpriced.csv": good.assign(price=good["price"].where(n < 397)),
        "h[1].csv": good.rename(columns={"area": "\x1b]0;name\x07area [sqm]"}).replace("flat", "\x1b[31mB[/b]\x9b2J"),
        "houses.csv": good,  # with the name of a kept model
        "header.csv": good[:0],
        "forms.csv": good.assign(fee=["€ 3", "$ 1,250.50"] * 200, day=["1/2/2024", "31.12.24"] * 200),
        "binary.csv": counted.assign(price=n % 2),
        "fives.csv": counted.assign(price=n % 5 + 1),
        "rare.csv": counted.assign(price=np.where(n == 7, 9, n % 2)),  # which has no training rows as a class
        "many.csv": counted.assign(price=n % 40),
    }.items():
        table.to_csv(folder / name, index=False)
    for name, write in ROW_NAMES.items():
        write(good, folder / name)
    good.set_index(age % 7).to_csv(folder / "unnamed.csv")
    (folder / "wrong.csv").write_text(good.to_csv(index=False) + "big,1,flat,1e400\n")
    for name, text in {"empty.csv": "", "deep.jsonl": "[" * 10_000, "null.jsonl": "null\n"}.items():
        (folder / name).write_text(text)
    good.assign(**{" ": n}).to_parquet(folder / "nameless.parquet")
    np.save(folder / "x.npy", np.ones((2, 3), np.float32))
    image_folders.write(folder / "pictures", {"dark": 40, "light [b]": 40}, channels=3)
    image_folders.write(folder / "pets", {"cat": 50, "owl": 40, "a\nb": 1})
    (folder / "pets/cat/0001.png").write_text("no picture")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("GRADMILL_ARTIFACTS", str(folder / "artifacts"))
        patch.setenv("PREFECT_API_URL", server)
        made = gradmill("retrain", *TRAIN.replace("new", "houses").split(), "--no-predict")
        assert made.returncode == 0, made.stderr
    return folder


TRAIN = "linear-regression --name new --data t.csv --target price"
PICTURES = "retrain softmax-regression --name pets --data"
CONVERGED = "tables are fitted to convergence; their settings are cross-validated in every retrain"
NO_SEARCH = f"2: gradmill tune with a table | expected: {CONVERGED} | to do: train it: gradmill retrain "
EPOCH_OPTIONS = (
    "--lr 0.1", "--epochs 5", "--batch-size 9", "--patience 3", "--validation 0.1", "--schedule constant",
    "--implementation concise",
)  # fmt: skip
NAMED = (
    "retrain NAME,models NAME,show NAME,verify NAME,history NAME,report NAME,tune NAME,"
    "promote NAME 1,rollback NAME,freeze NAME,unfreeze NAME"
)
WRONG = [
    "retrain nonsense",
    "retrain --implementation magic",
    "retrain --name ../x",
    "retrain --name UPPER",
    "retrain --epochs 0",
    "retrain --epochs -1",
    "retrain --epochs abc",
    "retrain --epochs 1e99",
    "retrain --lr nan",
    "retrain --lr inf",
    "retrain linear-regression --max-loss-ratio inf",
    "retrain linear-regression --synthetic-w nan,1",
    "retrain linear-regression --min-test-accuracy 0.9",
    "retrain --num-examples 100",
    "retrain --lr 0",
    "retrain --batch-size 0",
    "retrain --seed x",
    "retrain --seed=--5",
    "retrain --seed=-1",
    f"retrain --seed={'9' * 5000}",
    "retrain --loss huber",
    "retrain --schedule magic",
    "retrain --weight-decay -1",
    "retrain --patience 3",
    "retrain --validation 1",
    "retrain --nonsense",
    "predict",
    "predict --name ../x",
    "predict --version 0",
    "predict ~no-such-user/x.csv",
    "predict --shard-rows 0",
    "predict --max-rejects -1",
    "predict --runner magic",
    "predict --dask-address tcp://127.0.0.1:1",
    "predict https://me:secret@host/x.csv",
    "metrics --host 0.0.0.0",
    "metrics --health http://127.0.0.1:8081/health",
    "models no-such-model",
    "maintain --keep 0",
    "retrain --target y",
    "retrain --class-weight balanced",
    "retrain --weight-decay auto",
    "nonsense",
]
NOT_UTF_8 = os.fsdecode(b"caf\xe9.npy")
NO_FOLDERS = ("s3://bucket/out.csv", "file:///tmp/out", "https://host/out.parquet")
NO_NAMES = ("x" * 300, "x" * 300 + "/*", "/" + "y/" * 3000, "*" * 300, "~nobody-here/x")
LOOK = "inspect t.csv --target price"
QUOTED = "in double quotes if they have a line break"
SAID = {  # the exit code, and what is printed
    "--version": f"0: gradmill {metadata.version('gradmill')}",
    "retrain --epochs 0 --json": '2: "exit_code": 2 | "found": "--epochs 0" | "expected" | "action"',
    **dict.fromkeys(WRONG, "2: gradmill: | expected: | to do: "),
    f"{LOOK} --json": '0: "rows": 400, | /t.csv --target price" | retrain --name t --data ',
    "inspect more.csv --target price --json": '0: "name": "pool", "role": "feature", "kind": "category", ',
    "inspect unpriced.csv --target price": "0: by a hash of their features); 3 rows without a target left out",
    "inspect h[1].csv --target price": "0: \\x1b]0;name\\x07area [sqm] | B[/b] | h[1].csv",
    "inspect h[1].csv --target pri\x1b[2Jce": "4: no column ",
    "inspect pictures": "0: 80 images of 2 classes, as 8 by 8 colour | light [b] | by the best constant, | by a fit",
    "inspect pictures --side 5 --json": '0: "light [b]": 40 | "shape": [ 5, 5, 3 ] | /pictures --side 5"',
    "inspect houses.csv --target price": "0: retrain --name houses ",
    "inspect houses.csv --target area": "0: retrain --name NAME ",
    "inspect t.csv --target kind": "0: cross-validated loss (cross-entropy in nats): ",
    "inspect t.csv --target kind --class-weight balanced": "0: cross-validated loss (class-weighted cross-entropy in ",
    f"{LOOK} --ignore aera": "0: no column aera (--ignore) | did you mean area?",
    f"{LOOK} --ignore age,kind --json": '0: --ignore age,kind"',
    f"{LOOK} --ignore 'age, kind' --json": '0: --ignore age,kind"',
    f"{LOOK} --ignore age --ignore kind --json": '0: --ignore age,kind"',
    f"{LOOK} --ignore 'a\nb'": f"2: {QUOTED}",
    f"{LOOK} --features 'a\nb'": f"2: {QUOTED}",
    f"{LOOK} --category 'a\nb'": f"2: {QUOTED}",
    f"{LOOK} --ignore '\"a\nb\"'": "0: no column ",
    "inspect wrong.csv --target price --features area,size": "4: 'big' | inf | size | 3 faults",
    "inspect pets": "4: cat/0001.png: none of PNG | names of one line | 3 faults",
    "inspect forms.csv --target price --json": "0: as such: '\\u20ac 3' in line 2 | as such: '1/2/2024' in line 2",
    **{
        f"inspect {file} --target price {missing}--json": '0: "role": "left out" | "rule": "index"'
        for file in ROW_NAMES
        for missing in ("", "--missing 7,'house 7' ")
    },
    "inspect unnamed.csv --target price --json": '0: "name": "Unnamed: 0", "role": "feature"',
    "inspect binary.csv --target price --json": '0: "classes": { " | retrain --name | --ignore id"',
    "inspect fives.csv --target price --json": '0: "classes": { " | retrain --name | --ignore id"',
    "inspect rare.csv --target price --json": '0: "classes": {} | retrain --name | --ignore id"',
    "inspect many.csv --target price --json": '0: "classes": {} | retrain --name | --ignore id"',
    "inspect many.csv --target price --missing 1007 --json": '0: "rule": "counts-rows" | --ignore id --missing 1007"',
    "inspect binary.csv --target price --ignore area --json": '0: retrain --name | --ignore area,id"',
    "inspect binary.csv --target price --features id,area --json": '0: --features id,area"',
    **{
        command.replace("NAME", name): f"2: to do: {answer}"
        for command in (*NAMED.split(","), "evaluate NAME t.csv", "predict --name NAME")
        for name, answer in (("hosues", "did you mean houses?"), ("zzz", "name "))
    },
    "retrain linear-regresion --name other": "2: to do: did you mean linear-regression?",
    f"retrain {TRAIN} --ignroe age": "2: No such option: --ignroe",
    "retrain linear-regression --data t.csv --target price": "2: add --name t",
    "retrain linear-regression --data 'My Data 2.csv' --target price": "2: add --name my-data-2",
    "retrain linear-regression --data 價.csv --target price": "2: add --name NAME",
    "retrain 'My Data 2.csv' --target price": "2: inspect 'My Data 2.csv' --target price",
    "tune 'My Data 2.csv' --target price": "2: My Data 2.csv is data",
    "retrain linear-regression --name new --data t.csv": "2: no --target for ",
    "retrain --name new --data t.csv": "2: no --target for ",
    "retrain --name new --data t.csv --target prise": "4: no column prise (--target)",
    "retrain --data t.csv --target price": "2: add --name t",
    **{
        f"retrain --name new --data {data} --target {target} --lr 1": f"2: {task}: {target} has | --lr with a table"
        for data, target, task in (
            ("t.csv", "price", "regression"),
            ("t.csv", "kind", "classification"),
            ("fives.csv", "price", "classification"),
            ("rare.csv", "price", "regression"),
        )
    },
    "retrain --task regression": "2: --task regression | --data and --target",
    "retrain --task classification --name new --data t.csv": "2: --task classification without --target",
    "retrain houses --task classification": "2: --task classification with houses | regression, the task of houses",
    "retrain --name houses --data t.csv --task classification": "2: --task classification with houses",
    f"retrain {TRAIN} --task classification": "2: --task classification with linear-regression | regression, the",
    **{
        f"tune softmax-regression --name new --data {data}": f"{NO_SEARCH}new"
        for data in ("t.csv", "two", "names.parquet")
    },
    "retrain linear-regression --name new --data t.csv --target prise": "4: no column prise (--target)",
    "retrain linear-regression --data no.csv": "4: no file ",
    "retrain linear-regression --name new --data no.csv --target price": "4: no file ",
    "retrain cottages --data gone": "4: no file ",
    "retrain cottages --data gone --name houses": "4: no file ",
    "retrain linear-regression --name new --data header.csv --target prise": "4: no column prise (--target)",
    f"retrain {TRAIN.replace('t.csv', 'header.csv')}": "4: holds no rows",
    f"retrain {TRAIN.replace('t.csv', 'deep.jsonl')}": "4: one array",
    f"tune {TRAIN} --trials 2 --space lr=0.1:1": f"{NO_SEARCH}new",
    f"retrain {TRAIN.replace('t.csv', 'null.jsonl')}": "4: row 1 is null",
    f"retrain {TRAIN.replace('t.csv', 'empty.csv')}": "4: empty.csv is empty",
    f"retrain {TRAIN.replace('t.csv', 'empty')}": "4: holds nothing that can be read",
    "retrain linear-regression --name new --data two --target prise": "4: no column prise (--target)",
    f"retrain {TRAIN} --features area,aeg": "4: no column aeg (--features)",
    f"retrain {TRAIN} --category knid": "4: no column knid (--category)",
    f"retrain {TRAIN} --split-by cutsomer": "4: no column cutsomer (to split by)",
    f"retrain {TRAIN} --time-column dya": "4: no column dya (to split by)",
    f"retrain {TRAIN} --split-column pasrt": "4: no column pasrt (to split by)",
    f"retrain {TRAIN} --ignore price": "2: price is the target and is to be ignored",
    f"retrain {TRAIN} --side 8": "2: for images",
    f"{PICTURES} pictures --ignore x": "2: for tables",
    "inspect pictures --split-by x": "2: --split-by and images",
    f"{PICTURES} two": "2: name it with --target",
    f"{PICTURES} numbers.parquet": "2: name it with --target",
    f"{PICTURES} https://example.org/pets": "2: --target",
    f"{PICTURES} nowhere": "4: no folder",
    f"{PICTURES} ''": "2: --data",
    f"{PICTURES} pictures/*": "4: no glob",
    "inspect p*s": "4: no glob",
    "inspect empty": "4: no classes of images",
    "inspect pictures/dark/0000.png": "4: no classes of images",
    "inspect pictures/dark": "4: no classes of images",
    f"{PICTURES} empty": "4: no classes",
    "retrain linear-regression --name pets --data pictures": "2: softmax-regression learns",
    f"{PICTURES} pictures --side 257": "2: 256",
    f"{PICTURES} pictures --channels cmyk": "2: grey",
    "bench train": "2: run python -m benchmarks",  # as of commands and options of before
    "predict --replace": "2: to do: run it again with --help",
    "retrain houses --data less.csv": "4: column kind is missing",
    "retrain houses --data more.csv": "4: column pool is new",
    "retrain houses --target area": "2: houses as linear-regression, your own data, area",
    "retrain houses --category area": "2: area as a category",
    "retrain houses --split-by kind": "2: a split by kind",
    **dict.fromkeys(("tune houses", "tune houses --data less.csv --then-retrain"), f"{NO_SEARCH}houses"),
    "predict --name horse": "2: to do: name one",  # with houses it has few letters in common
    f"{PICTURES.replace('retrain', 'tune')} pictures --space lrr=0.1:1": "2: --space lrr=0.1:1",
    f"{PICTURES.replace('retrain', 'tune')} pictures --split-by x": "2: for tables",
    **{
        f"retrain {name} {options}": f"2: {options.split()[0]} with a table | expected: {CONVERGED} | to do: leave"
        for name in (TRAIN, "houses")
        for options in (*EPOCH_OPTIONS, "--tuned")
    },
    "retrain houses --device cuda": "2: --device cuda with a table | tables need no GPU",
    f"{PICTURES} pictures --shape curves": "2: --shape with pets | your own tables",
    "retrain --shape curves": "2: your own tables",
    f"{PICTURES} pictures --refit": "2: --refit with pets | your own tables",
    "retrain --refit": "2: your own tables",
    f"retrain {TRAIN} --shape steps": "2: --shape steps | 'linear', 'curves', 'pairs' or 'auto'",
    "promote houses 9": "2: houses has no version 9",
    "predict t.csv --name houses --version 9": "2: houses has no version 9",
    "predict no.csv --name houses": "2: no file",
    "predict less.csv --name houses": "4: kind missing",
    "predict t.csv --name houses --id-column nmuber": "4: nmuber missing",
    "predict header.csv --name houses": "4: holds no rows",
    "predict deep.jsonl --name houses": "4: one array",
    "predict '' --name houses": "2: an empty input",
    f"predict {NOT_UTF_8} --name houses": "2: not UTF-8",
    f"predict t.csv --name houses --output {NOT_UTF_8}": "2: caf\ufffd.npy is not UTF-8",
    "predict 'a\0b' --name houses": "2: embedded null",
    **{f"predict t.csv --name houses --output {place}": f"2: --output {place}" for place in NO_FOLDERS},
    **{f"predict '{name}' --name houses": f"2: the input {name[:60]}" for name in NO_NAMES},
    "predict x.npy --name houses --id-column number": "2: --id-column number",
    "predict --name houses --id-column number": "2: --id-column number",
    "predict t.csv --name houses --columns area,age": "2: --columns",
    "predict t.csv --name houses --output out.txt": "2: out.txt has the suffix of a file | ends in .csv or .parquet",
    "predict t.csv --name houses --output artifacts/models/houses": "2: is inside the artifacts folder",
    "evaluate houses t.csv --version 9": "2: houses has no version 9",
    "evaluate houses no.csv": "4: no file",
    "evaluate houses less.csv": "4: column kind is missing | to do: restore it",
    "evaluate houses header.csv": "4: holds no rows",
    "evaluate houses null.jsonl": "4: row 1 is null",
    "retrain houses --data nameless.parquet": "4: column 5 has no name",
    "evaluate houses unknown.csv": "4: no column price (the target) | add it, or correct its name in the data",
    "evaluate houses t.csv --time-column dya": "4: no column dya (--time-column)",
    "evaluate houses --time-column day": "2: --time-column day",
    "evaluate houses ''": "2: DATA is missing",
}
# Commands one after the other in a process in which a flow cannot be imported, and so none gets as far as a server.
WITHOUT_FLOWS = """
import contextlib, io, json, sys
sys.modules |= dict.fromkeys(["prefect", "torch", "torchvision", "onnx", "onnxruntime", "matplotlib"])
from flows.cli import app
def run(arguments):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        return app.run(arguments), out.getvalue()
print(json.dumps([run(each) for each in json.load(sys.stdin)]))
"""


@pytest.fixture(scope="module")
def answers(store_and_data: Path) -> dict[str, tuple[int, str]]:
    """What each command is answered."""
    commands = json.dumps([shlex.split(each) for each in SAID])
    command, before = [sys.executable, "-c", WITHOUT_FLOWS], {*store_and_data.rglob("*")}
    here = os.environ | {"GRADMILL_ARTIFACTS": str(store_and_data / "artifacts"), "PYTHONPATH": str(REPOSITORY)}
    given: dict[str, Any] = {"input": commands, "cwd": store_and_data, "env": here}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, **given)
    assert done.returncode == 0, done.stderr
    assert {*store_and_data.rglob("*")} == before, "none trains or keeps anything"
    return dict(zip(SAID, json.loads(done.stdout), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("command", SAID)
def test_what_is_wrong_or_odd_is_said_before_prefect_and_torch_are_imported(
    command: str, answers: dict[str, tuple[int, str]]
) -> None:
    code, printed = answers[command]
    wanted, _, words = SAID[command].partition(": ")
    shown = " ".join(printed.split())
    assert (str(code), [each for each in words.split(" | ") if each not in shown]) == (wanted, []), printed
    assert not {*"\x07\x1b\x9b"} & {*printed}, "which a terminal would obey"
    if code and "--json" not in command and not command.startswith("inspect"):  # which names all that it finds
        assert_clear(subprocess.CompletedProcess(command, code, "", printed), code)
    elif code and "--json" in command:
        assert json.loads(printed)["error"].keys() == {"exit_code", "found", "expected", "action"}


# ``--json``: standard output is one document, whatever lies beside the data and in the store

COMMANDS = [
    "retrain houses --data odd",
    "retrain linear-regression --name other --data strange --target price",
    "retrain --name digits --data pictures",
    "inspect odd --target price",
    "inspect strange --target price",
    "inspect pictures",
    "tune --name digits --data pictures --trials 1 --epochs 2",
    "predict odd --name houses",
    "predict strange --name houses",
    "evaluate houses odd",
    "evaluate houses strange",
    "models",
    "show houses",
    "verify houses",
    "compare houses 1 1",
    "history",
    "report houses --output report.html",
    "promote houses 1",
    "rollback houses",
    "freeze houses",
    "unfreeze houses",
    "prune houses --keep 1",
    "schedule houses --cron '0 3 * * *'",
    "unschedule houses",
    "status",
    "trigger no-such-deployment",
    "skip no-such-deployment",
    "pause no-such-deployment",
    "resume no-such-deployment",
    "metrics",
    "register",
    "doctor",
    "maintain",
    "mirror houses odd/README",
    "remove houses --yes",
    "demo no-such-model",
    "up --port 0",
]
WITH_A_RUN = ("retrain", "tune", "predict", "evaluate")


@pytest.fixture
def strangers(store_and_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The same with what is neither data nor a version in all of them, and some where temporary files may lie."""
    shutil.copytree(store_and_data, folder := tmp_path / "all")
    for data in (folder / "odd", folder / "strange", folder / "pictures"):
        (data / "README").write_text("what this is")
        (data / "again").symlink_to(data)
        (data / "nowhere").symlink_to("no-such-file")
        os.mkfifo(data / "later.csv")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(folder / "artifacts"))
    places = (".", "datasets", "models", "models/houses", "models/a name", "predictions", "runs")
    return [each for name in places for each in plant_strangers(folder / "artifacts" / name)]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_standard_output_is_one_document(
    command: str, strangers: list[Path], server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None of the strangers is opened, waited for or, but with the name that they lie under, removed."""
    if command.startswith(WITH_A_RUN):
        monkeypatch.setenv("PREFECT_API_URL", server)
    done = gradmill(*shlex.split(command), "--json")
    assert isinstance(json.loads(done.stdout), dict), done.stdout
    assert "Traceback" not in done.stderr
    assert command != "inspect odd --target price" or "ignored" in done.stderr, "what is left out is told there"
    assert command.startswith("remove") or all(map(os.path.lexists, strangers))


@pytest.mark.parametrize(("platform", "name"), [("darwin", "macOS"), ("win32", "Windows"), ("freebsd15", "freebsd15")])
def test_another_system_than_linux_is_refused_at_once(platform: str, name: str) -> None:
    code = f"import sys; sys.platform = {platform!r}; from flows.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "models"], capture_output=True, text=True, check=False)
    assert_clear(done, 1, f"this is {name}", "expected: Linux", "container")


def test_every_command_is_tried() -> None:
    every = {command.__name__ for commands in PANELS.values() for command in commands}
    assert every == {command.split()[0] for command in COMMANDS}
