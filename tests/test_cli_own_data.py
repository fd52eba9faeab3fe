"""Own data at the command line: what is said of good and bad tables and images before anything is trained."""

import io
import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest

import flows.cli.app
from image_folders import write

HEADER = "area,city,price\n"


def houses(rows: int = 200, seed: int = 0) -> str:
    """A table whose prices follow from areas and cities, nearly."""
    rng = np.random.default_rng(seed)
    worth = {"Köln": 10_000, "Berlin": 0, "München": 90_000}
    lines = []
    for _ in range(rows):
        area, city = rng.uniform(40, 200), rng.choice(list(worth))
        lines.append(f"{area:.2f},{city},{3000 * area + worth[city] + rng.normal(0, 9000):.0f}\n")
    return HEADER + "".join(lines)


@pytest.fixture
def folder(artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def inspected(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = flows.cli.app.run(["inspect", *arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def test_inspect_says_what_a_table_is_like(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "houses.csv").write_text(houses())
    code, out, _ = inspected(capsys, "houses.csv", "--target", "price", "--json")
    found = json.loads(out)
    assert code == 0
    assert {each["name"]: (each["role"], each["kind"]) for each in found["columns"]} == {
        "area": ("feature", "number"), "city": ("feature", "category"), "price": ("target", "number")
    }  # fmt: skip
    assert (found["rows"], found["num_train"] + found["num_test"]) == (200, 200)
    assert found["command"].endswith(
        f"retrain linear-regression --name houses --data {folder}/houses.csv --target price"
    )


def test_inspect_says_how_rows_are_split_and_how_many_have_no_target(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "area_of_all_floors_and_of_the_garden_house_in_square_metres_as_the_register_of_2024_has_it"
    lines = houses().replace("area", name, 1).splitlines()
    unpriced = [f"{each.rpartition(',')[0]}," for each in lines[-3:]]
    (folder / "houses.csv").write_text("\n".join([*lines[:-3], *unpriced]))
    code, out, _ = inspected(capsys, "houses.csv", "--target", "price")
    assert code == 0
    assert "by a hash of their features); 3 rows without a target left out" in " ".join(out.split())
    assert name in "".join(line.split("  ")[0] for line in out.splitlines()), "the whole name, to copy"


def test_inspect_trains_and_keeps_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "houses.csv").write_text(houses())
    write(folder / "pets", COUNTS)
    before = {path for path in folder.rglob("*") if path.is_file()}
    assert inspected(capsys, "houses.csv", "--target", "price")[0] == 0
    assert inspected(capsys, "pets")[0] == 0
    assert {path for path in folder.rglob("*") if path.is_file()} == before


def test_names_that_look_like_markup_are_shown_as_they_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = houses().replace("area", "area [sqm]").replace("Berlin", "B[/b]")
    (folder / "h[1].csv").write_text(text)
    code, out, _ = inspected(capsys, "h[1].csv", "--target", "price")
    assert code == 0
    assert all(each in out for each in ("area [sqm]", "B[/b]", "h[1].csv"))


@pytest.mark.parametrize("target", ["price", "pri\x1b[2Jce"])
def test_a_terminal_obeys_nothing_that_stands_in_data(
    target: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = houses().replace("area", "\x1b]0;name\x07area").replace("Berlin", "\x1b[31mBerlin\x9b2J")
    (folder / "t.csv").write_text(text + "\x1b[2Jbig,Berlin,1e400\n")
    _, out, err = inspected(capsys, "t.csv", "--target", target, "--category", "\x1b]0;name\x07area")
    assert "\\x1b]0;name\\x07area" in out
    assert not set("\x07\x1b\x9b") & set(out + err)


@pytest.mark.parametrize(
    ("kind", "options", "model", "ignore"),
    [
        (lambda n: n % 2, [], "softmax-regression", "id"),
        (lambda n: n % 5 + 1, [], "softmax-regression", "id"),
        (lambda n: n % 2, ["--ignore", "area"], "softmax-regression", "area,id"),
        (lambda n: n % 2, ["--features", "id,area"], "softmax-regression", None),
        (lambda n: 9 if n == 7 else n % 2, [], "linear-regression", "id"),  # which has no training rows as a class
        (lambda n: n % 40, [], "linear-regression", "id"),
    ],
)
def test_the_command_offered_is_what_the_findings_advise(
    kind: Callable[[int], int],
    options: list[str],
    model: str,
    ignore: str | None,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = (f"{n + 1000},{n % 17},{n * n % 11 / 8},{kind(n)}\n" for n in range(400))
    (folder / "t.csv").write_text("id,area,rooms,kind\n" + "".join(rows))
    code, out, _ = inspected(capsys, "t.csv", "--target", "kind", *options, "--json")
    document = json.loads(out)
    command = document["command"].split()
    assert code == 0
    assert command[command.index("retrain") + 1] == model
    assert bool(document["classes"]) == (model == "softmax-regression"), "the losses are those of the model"
    assert (command[command.index("--ignore") + 1] if "--ignore" in command else None) == ignore


BAD: dict[str, tuple[bytes, list[str], int, str]] = {
    "empty": (b"", [], 4, "empty"),
    "header only": (HEADER.encode(), [], 4, "no rows"),
    "one row": ((HEADER + "1,Rom,2\n").encode(), [], 4, "at least 10 and 20"),
    "no such target": (houses().encode(), ["--target", "cost"], 4, "cost"),
    "no such feature": (houses().encode(), ["--features", "size"], 4, "size"),
    "constant target": ((HEADER + "1.5,Rom,7\n" * 99).encode(), [], 4, "price is 7"),
    "infinite target": ((houses() + "1,Berlin,1e400\n").encode(), [], 4, "inf"),
    "no target at all": ((HEADER + "1.5,Rom,\n" * 99).encode(), [], 4, "price"),
    "a target with a word in it": ((houses() + "50,Berlin,n/a\n").encode(), [], 4, "text, as 'n/a' in row 200"),
    "a target written otherwise": (
        (HEADER + "".join(f"{n},Rom,{'€$'[n % 2]} {n}\n" for n in range(99))).encode(),
        [],
        4,
        "numbers are written as 1234.5",
    ),
    "a page of the web": (b"<!DOCTYPE html>\n<p>Sign in, please</p>\n", [], 4, "a page of the web"),
    "a workbook": (b"PK\x03\x04" + houses().encode(), [], 4, "Excel"),
    "a title above the header": (b"Houses of 2024\n" + houses().encode(), [], 4, "remove what stands above"),
    "text in a number column": ((houses() + "big,Berlin,7\n").encode(), [], 4, "'big'"),
    "ragged rows": ((houses() + "1,2\n").encode(), [], 4, "row 200, with 2"),
    "duplicate columns": (b"area,area,price\n1,2,3\n", [], 4, "'area'"),
    "an empty column name": (b"area,,price\n1,2,3\n", [], 4, "name"),
    "UTF-16": (houses().encode("utf-16"), [], 4, "UTF-16"),
    "NUL bytes": (houses().encode() + b"\0\0\0,Berlin,7\n", [], 4, "NUL"),
    "a binary file": (bytes(range(256)) * 40, [], 4, "cannot be read"),
    "two ways of splitting": (houses().encode(), ["--split-by", "city", "--time-column", "area"], 2, "one of"),
    "a share of more than all": (houses().encode(), ["--test", "1.5"], 2, "--test 1.5"),
    "2001 columns": (
        (",".join(f"c{i}" for i in range(2001)) + "\n" + ",".join(["1"] * 2001) + "\n").encode(),
        ["--target", "c0"],
        4,
        "2,000",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_table_that_is_not_fit_says_why(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, options, expected, words = BAD[case]
    (folder / "houses.csv").write_bytes(content)
    target = [] if "--target" in options else ["--target", "price"]
    code, _, err = inspected(capsys, "houses.csv", *target, *options)
    assert (code, words in err) == (expected, True), err
    assert "expected: " in err
    assert "to do: " in err


def _write_row_names(folder: Path, form: str) -> str:
    """The table of houses with names of its rows, as pandas and R write them; returns the file's name."""
    frame = pd.read_csv(io.StringIO(houses()))
    if form.endswith("names"):
        frame.index = pd.Index([f"house {n}" for n in frame.index])
    if form.startswith("parquet"):
        frame.to_parquet(folder / "rows.parquet", index=True)
        return "rows.parquet"
    text = frame.to_csv()
    (folder / "rows.csv").write_text(text[1:] if form == "R names" else text)  # R's header is one name shorter
    return "rows.csv"


@pytest.mark.parametrize("form", ["csv numbers", "csv names", "R names", "parquet numbers", "parquet names"])
def test_row_names_of_pandas_and_r_are_left_out_and_said_aloud(
    form: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = inspected(capsys, _write_row_names(folder, form), "--target", "price", "--json")
    document = json.loads(out)
    assert code == 0
    roles = {each["name"]: each["role"] for each in document["columns"]}
    (index,) = {*roles} - {"area", "city", "price"}
    assert (roles.pop(index), roles) == ("left out", {"area": "feature", "city": "feature", "price": "target"})
    assert [each["column"] for each in document["findings"] if each["rule"] == "index"] == [index]


def test_a_first_column_without_a_name_that_names_no_rows_is_a_column(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (f"{n % 7},{line}" for n, line in enumerate(houses().splitlines()[1:]))
    (folder / "t.csv").write_text("\n".join([",area,city,price", *lines]))
    code, out, _ = inspected(capsys, "t.csv", "--target", "price", "--json")
    assert code == 0
    assert ("Unnamed: 0", "feature") in [(each["name"], each["role"]) for each in json.loads(out)["columns"]]


@pytest.mark.parametrize("values", [("€ 3", "$ 1,250.50"), ("1/2/2024", "31.12.24")])
def test_numbers_and_dates_that_are_not_written_as_such_are_named(
    values: tuple[str, str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (f'{n},"{values[n % 2]}",{n % 7 + n}\n' for n in range(99))
    (folder / "houses.csv").write_text("area,fee,price\n" + "".join(lines))
    code, out, _ = inspected(capsys, "houses.csv", "--target", "price", "--json")
    (found,) = [each for each in json.loads(out)["findings"] if each["rule"] == "looks-like"]
    assert code == 0
    assert f"as '{values[0]}' in row 0" in found["found"]


@pytest.mark.parametrize("model", ["linear-regression", "softmax-regression"])
@pytest.mark.parametrize("command", ["retrain", "tune"])
def test_whoever_forgets_the_target_is_told_of_it_before_any_work(
    command: str, model: str, folder: Path, artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "houses.csv").write_text("area,price\n" + "1,2\n" * 30)
    code = flows.cli.app.run([command, model, "--name", "houses", "--data", str(folder / "houses.csv")])
    said = capsys.readouterr().err
    assert (code, f"no --target for {folder}/houses.csv" in said, "name it with --target" in said) == (2, True, True)
    assert not list(artifacts.glob("models/*"))


def test_all_that_is_wrong_is_said_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "houses.csv").write_text(houses(rows=99) + "big,Berlin,1e400\n")
    code, _, err = inspected(capsys, "houses.csv", "--target", "price", "--features", "area,size")
    assert code == 4
    assert all(word in err for word in ("'big'", "inf", "size"))


@pytest.mark.parametrize(
    "options", [["--ignore", "area,garden"], ["--ignore", "area, garden"], ["--ignore", "area", "--ignore", "garden"]]
)
def test_no_name_of_a_list_is_lost(options: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"{n},{n % 2},{n % 7},{n % 5}\n" for n in range(99))
    (folder / "houses.csv").write_text("area,garden,rooms,price\n" + rows)
    code, out, _ = inspected(capsys, "houses.csv", "--target", "price", *options, "--json")
    found = json.loads(out)
    assert code == 0
    assert {each["name"] for each in found["columns"]} == {"rooms", "price"}
    assert found["command"].endswith("--ignore area,garden")


@pytest.mark.parametrize(
    ("file", "name"), [("houses.csv", "houses"), ("My Data 2.csv", "my-data-2"), ("價.csv", "NAME")]
)
def test_own_data_without_a_name_are_answered_with_one(
    file: str, name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / file).write_text(houses())
    capsys.readouterr()
    command = ["retrain", "linear-regression", "--data", file, "--target", "price", "--json"]
    assert flows.cli.app.run(command) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["found"] == f"no --name for {file}"
    assert error["action"] == f"add --name {name}"


@pytest.mark.parametrize("command", ["retrain", "tune"])
def test_data_in_the_place_of_a_name_are_answered_with_what_to_type(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "my houses.csv").write_text(houses())
    capsys.readouterr()
    assert flows.cli.app.run([command, "my houses.csv", "--target", "price", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["found"] == "my houses.csv, which is data"
    typed = shlex.split(error["action"].partition(" shows ")[0])
    assert flows.cli.app.run(typed[typed.index("inspect") :]) == 0
    assert "retrain linear-regression --name my-houses" in capsys.readouterr().out


@pytest.mark.parametrize("options", ["", "--target price", "--name houses", "--name houses --target price"])
@pytest.mark.parametrize("model", ["linear-regression", "softmax-regression"])
def test_data_that_are_not_there_are_told_before_what_else_is_missing(
    model: str, options: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flows.cli.app.run(["retrain", model, "--data", "nofile.csv", *options.split()]) == 4
    assert f"no file {folder}/nofile.csv" in capsys.readouterr().err
    assert flows.cli.app.run(["retrain", "houses", "--data", "gone", *options.split()]) == 4
    assert f"no file {folder}/gone" in capsys.readouterr().err, "nor a folder of images: the name may keep a table"


@pytest.mark.parametrize(
    "command",
    ["retrain", "models", "show", "verify", "history", "report", "rollback", "freeze", "evaluate", "tune", "predict"],
)
def test_a_mistyped_name_is_answered_with_the_nearest(
    command: str, artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (artifacts / "models" / "houses" / "1").mkdir(parents=True)
    (artifacts / "models" / "flowers" / "1").mkdir(parents=True)
    option = ["--name"] if command == "predict" else []
    for typed, answer in (("huses", "did you mean houses?"), ("zzz", "name ")):
        data = ["x.csv"] if command == "evaluate" else []
        assert flows.cli.app.run([command, *option, typed, *data]) == 2
        assert f"to do: {answer}" in capsys.readouterr().err


def test_a_mistyped_column_to_ignore_is_answered_with_the_nearest(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "houses.csv").write_text(houses())
    capsys.readouterr()
    assert flows.cli.app.run(["inspect", "houses.csv", "--target", "price", "--ignore", "aera"]) == 0
    assert "warning: no column aera (--ignore)" in (said := " ".join(capsys.readouterr().out.split()))
    assert "did you mean area?" in said


def test_a_mistyped_model_is_answered_with_the_nearest_though_a_name_is_given(
    artifacts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flows.cli.app.run(["retrain", "linear-regresion", "--name", "houses"]) == 2
    assert "to do: did you mean linear-regression?" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--ignore", "--features", "--category"])
def test_a_line_break_in_a_list_of_columns_needs_quotes(
    option: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "t.csv").write_text(houses().replace("city", '"ci\nty"', 1))
    code, out, err = inspected(capsys, "t.csv", "--target", "price", option, "ci\nty")
    assert (code, out) == (2, "")
    assert err.splitlines()[1:] == [
        "expected: values by commas, one with a line break in double quotes",
        "to do: quote it",
    ]
    assert inspected(capsys, "t.csv", "--target", "price", option, '"ci\nty"')[0] == 0


# Images


COUNTS = {"cat": 40, "dog [b]": 30, "owl": 20}


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = flows.cli.app.run([*arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out, err


def test_inspect_says_what_images_are_like_and_how_to_train_on_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / "pets", COUNTS, channels=3)
    code, out, _ = said(capsys, "inspect", "pets", "--side", "5", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["classes"] == {"cat": 40, "dog [b]": 30, "owl": 20}
    assert found["images"]["shape"] == [5, 5, 3]
    assert found["num_train"] + found["num_test"] == 90
    assert found["command"].endswith(f"retrain softmax-regression --name pets --data {folder}/pets --side 5")
    code, out, _ = said(capsys, "inspect", "pets")
    assert code == 0
    assert all(each in out for each in ("90 images of 3 classes, as 8 by 8 colour", "dog [b]", "--data"))
    assert re.search(r"validation loss \(.*\): 1\.\d+ by the best constant, 0\.\d+ by a fit$", out, re.MULTILINE)


def test_faults_are_shown_together_and_are_exit_code_4(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "pets", COUNTS | {"a\nb": 1})
    (folder / "pets" / "cat" / "0001.png").write_text("no picture")
    code, _, err = said(capsys, "inspect", "pets")
    assert code == 4
    assert all(each in err for each in ("cat/0001.png: none of PNG", "names of one line", "3 faults"))


RETRAIN = ("retrain", "softmax-regression", "--name", "pets", "--data")
MISUSED = {
    "a column of images": ([*RETRAIN, "pets", "--ignore", "x"], 2, "for tables"),
    "a column of images to inspect": (["inspect", "pets", "--split-by", "x"], 2, "--split-by and images"),
    "a side of a table": ([*RETRAIN, "houses.csv", "--target", "y", "--side", "8"], 2, "for images"),
    "a table to predict nothing of": ([*RETRAIN, "houses.csv"], 2, "name it with --target"),
    "a folder of tables": ([*RETRAIN, "tables"], 2, "name it with --target"),
    "a URL": ([*RETRAIN, "https://example.org/pets"], 2, "--target"),
    "nothing": ([*RETRAIN, "nowhere"], 4, "no folder"),
    "no name": ([*RETRAIN, ""], 2, "--data"),
    "a glob": ([*RETRAIN, "pets/*"], 4, "no glob"),
    "a glob to inspect": (["inspect", "p*s"], 4, "no glob"),
    "an empty folder to inspect": (["inspect", "empty"], 4, "no classes of images"),
    "a picture to inspect": (["inspect", "pets/cat/0000.png"], 4, "no classes of images"),
    "one folder too low": (["inspect", "pets/cat"], 4, "no classes of images"),
    "an empty folder": ([*RETRAIN, "empty"], 4, "no classes"),
    "numbers": (["retrain", "linear-regression", "--name", "pets", "--data", "pets"], 2, "softmax-regression learns"),
    "a side beyond all": ([*RETRAIN, "pets", "--side", "257"], 2, "256"),
    "odd channels": ([*RETRAIN, "pets", "--channels", "cmyk"], 2, "grey"),
}


@pytest.mark.parametrize("case", MISUSED)
def test_what_cannot_be_meant_is_said_before_a_server_starts(
    case: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(folder / "pets", {"cat": 2, "dog": 2})
    (folder / "houses.csv").write_text("x,y\n1,2\n")
    (folder / "tables").mkdir()
    shutil.copy(folder / "houses.csv", folder / "tables" / "a.csv")
    (folder / "empty").mkdir()
    arguments, expected, words = MISUSED[case]
    code, _, err = said(capsys, *arguments)
    assert (code, words in err) == (expected, True), err
