"""Own data at the command line: what is said of good and bad tables and images before anything is trained."""

import io
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest

from command_line import assert_clear, typed
from documents import ask, inspect, rules
from image_folders import write

HEADER = "area,city,price\n"
COUNTS = {"cat": 40, "dog [b]": 30, "owl": 20}
PRICE = ("--target", "price")


def houses(rows: int = 200, seed: int = 0) -> str:
    """A table whose prices follow from areas and cities, nearly."""
    rng = np.random.default_rng(seed)
    worth = {"Köln": 10_000, "Berlin": 0, "München": 90_000}
    lines = []
    for _ in range(rows):
        area, city = rng.uniform(40, 200), rng.choice(list(worth))
        lines.append(f"{area:.2f},{city},{3000 * area + worth[city] + rng.normal(0, 9000):.0f}\n")
    return HEADER + "".join(lines)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where commands are typed, with a table."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "houses.csv").write_text(houses())
    return tmp_path


def shown(*command: str) -> str:
    """What a command shows, its lines joined."""
    done = typed(*command)
    assert done.returncode == 0, done.stderr
    return " ".join(done.stdout.split())


def test_inspect_says_what_a_table_is_like(folder: Path) -> None:
    found = inspect("houses.csv", *PRICE)
    assert {each["name"]: (each["role"], each["kind"]) for each in found["columns"]} == {
        "area": ("feature", "number"), "city": ("feature", "category"), "price": ("target", "number")
    }  # fmt: skip
    assert (found["rows"], found["num_train"] + found["num_test"]) == (200, 200)
    assert found["command"].endswith(
        f"retrain linear-regression --name houses --data {folder}/houses.csv --target price"
    )


def test_inspect_says_how_rows_are_split_and_how_many_have_no_target(folder: Path) -> None:
    name = "area_of_all_floors_and_of_the_garden_house_in_square_metres_as_the_register_of_2024_has_it"
    lines = houses().replace("area", name, 1).splitlines()
    unpriced = [f"{each.rpartition(',')[0]}," for each in lines[-3:]]
    (folder / "houses.csv").write_text("\n".join([*lines[:-3], *unpriced]))
    out = typed("inspect", "houses.csv", *PRICE).stdout
    assert "by a hash of their features); 3 rows without a target left out" in " ".join(out.split())
    assert name in "".join(line.split("  ")[0] for line in out.splitlines()), "the whole name, to copy"


def test_inspect_trains_and_keeps_nothing(folder: Path) -> None:
    write(folder / "pets", COUNTS)
    before = {path for path in folder.rglob("*") if path.is_file()}
    shown("inspect", "houses.csv", *PRICE)
    shown("inspect", "pets")
    assert {path for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("target", ["price", "pri\x1b[2Jce"])
def test_names_that_look_like_markup_are_shown_as_they_are_and_a_terminal_obeys_none(target: str, folder: Path) -> None:
    text = houses().replace("area", "\x1b]0;name\x07area [sqm]").replace("Berlin", "\x1b[31mB[/b]\x9b2J")
    (folder / "h[1].csv").write_text(text + "\x1b[2Jbig,Bonn,1e400\n")
    done = typed("inspect", "h[1].csv", "--target", target, "--category", "\x1b]0;name\x07area [sqm]")
    said = done.stdout + done.stderr
    names = ("\\x1b]0;name\\x07area [sqm]", "B[/b]", "h[1].csv")
    assert target != "price" or all(each in said for each in names)
    assert not set("\x07\x1b\x9b") & set(said)


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
    kind: Callable[[int], int], options: list[str], model: str, ignore: str | None, folder: Path
) -> None:
    rows = (f"{n + 1000},{n % 17},{n * n % 11 / 8},{kind(n)}\n" for n in range(400))
    (folder / "t.csv").write_text("id,area,rooms,y\n" + "".join(rows))
    document = inspect("t.csv", *options)
    command = document["command"].split()
    assert command[command.index("retrain") + 1] == model
    assert bool(document["classes"]) == (model == "softmax-regression"), "the losses are those of the model"
    assert (command[command.index("--ignore") + 1] if "--ignore" in command else None) == ignore


def write_row_names(folder: Path, form: str) -> str:
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
def test_row_names_of_pandas_and_r_are_left_out_and_said_aloud(form: str, folder: Path) -> None:
    found = inspect(write_row_names(folder, form), *PRICE)
    roles = {each["name"]: each["role"] for each in found["columns"]}
    (index,) = {*roles} - {"area", "city", "price"}
    assert roles == {index: "left out", "area": "feature", "city": "feature", "price": "target"}
    assert f"index {index}" in {key for each in ("note", "warning") for key in rules(found, each)}


def test_a_first_column_without_a_name_that_names_no_rows_is_a_column(folder: Path) -> None:
    lines = (f"{n % 7},{line}" for n, line in enumerate(houses().splitlines()[1:]))
    (folder / "t.csv").write_text("\n".join([",area,city,price", *lines]))
    assert ("Unnamed: 0", "feature") in [(each["name"], each["role"]) for each in inspect("t.csv", *PRICE)["columns"]]


@pytest.mark.parametrize("values", [("€ 3", "$ 1,250.50"), ("1/2/2024", "31.12.24")])
def test_numbers_and_dates_that_are_not_written_as_such_are_named(values: tuple[str, str], folder: Path) -> None:
    lines = (f'{n},"{values[n % 2]}",{n % 7 + n}\n' for n in range(99))
    (folder / "t.csv").write_text("area,fee,price\n" + "".join(lines))
    (found,) = [each for each in inspect("t.csv", *PRICE)["findings"] if each["rule"] == "looks-like"]
    assert f"as '{values[0]}' in row 0" in found["found"]


def test_all_that_is_wrong_is_said_at_once(folder: Path) -> None:
    (folder / "t.csv").write_text(houses(rows=99) + "big,Berlin,1e400\n")
    done = typed("inspect", "t.csv", *PRICE, "--features", "area,size")
    assert done.returncode == 4
    assert all(word in done.stderr for word in ("'big'", "inf", "size", "3 faults"))
    write(folder / "pets", COUNTS | {"a\nb": 1})
    (folder / "pets" / "cat" / "0001.png").write_text("no picture")
    done = typed("inspect", "pets")
    assert done.returncode == 4
    assert all(each in done.stderr for each in ("cat/0001.png: none of PNG", "names of one line", "3 faults"))


@pytest.mark.parametrize(
    "options", [["--ignore", "area,garden"], ["--ignore", "area, garden"], ["--ignore", "area", "--ignore", "garden"]]
)
def test_no_name_of_a_list_is_lost(options: list[str], folder: Path) -> None:
    rows = "".join(f"{n},{n % 2},{n % 7},{n % 5}\n" for n in range(99))
    (folder / "t.csv").write_text("area,garden,rooms,price\n" + rows)
    found = inspect("t.csv", *PRICE, *options)
    assert {each["name"] for each in found["columns"]} == {"rooms", "price"}
    assert found["command"].endswith("--ignore area,garden")


@pytest.mark.parametrize("option", ["--ignore", "--features", "--category"])
def test_a_line_break_in_a_list_of_columns_needs_quotes(option: str, folder: Path) -> None:
    (folder / "t.csv").write_text(houses().replace("city", '"ci\nty"', 1))
    done = typed("inspect", "t.csv", *PRICE, option, "ci\nty")
    assert_clear(done, 2)
    assert "values separated by commas, in double quotes if they have a line break\nto do: quote it" in done.stderr
    inspect("t.csv", *PRICE, option, '"ci\nty"')


@pytest.mark.parametrize(
    ("file", "name"), [("houses.csv", "houses"), ("My Data 2.csv", "my-data-2"), ("價.csv", "NAME")]
)
def test_own_data_without_a_name_are_answered_with_one(file: str, name: str, folder: Path) -> None:
    (folder / file).write_text(houses())
    error = ask("retrain", "linear-regression", "--data", file, *PRICE, code=2)["error"]
    assert (error["found"], error["action"]) == (f"no --name for {file}", f"add --name {name}")


@pytest.mark.parametrize("command", ["retrain", "tune"])
def test_data_in_the_place_of_a_name_are_answered_with_what_to_type(command: str, folder: Path) -> None:
    (folder / "my houses.csv").write_text(houses())
    error = ask(command, "my houses.csv", *PRICE, code=2)["error"]
    assert error["found"] == "my houses.csv, which is data"
    to_type = shlex.split(error["action"].partition(" shows ")[0])
    assert "retrain linear-regression --name my-houses" in shown(*to_type[to_type.index("inspect") :])


@pytest.mark.parametrize(
    "command",
    ["retrain", "models", "show", "verify", "history", "report", "rollback", "freeze", "evaluate", "tune", "predict"],
)
def test_a_mistyped_name_is_answered_with_the_nearest(command: str, artifacts: Path) -> None:
    for name in ("houses", "flowers"):
        (artifacts / "models" / name / "1").mkdir(parents=True)
    before, behind = ["--name"] if command == "predict" else [], ["x.csv"] if command == "evaluate" else []
    for given, answer in (("huses", "did you mean houses?"), ("zzz", "name ")):
        done = typed(command, *before, given, *behind)
        assert (done.returncode, f"to do: {answer}" in done.stderr) == (2, True)


def test_a_mistyped_column_to_ignore_is_answered_with_the_nearest() -> None:
    said = shown("inspect", "houses.csv", *PRICE, "--ignore", "aera")
    assert "warning: no column aera (--ignore)" in said
    assert "did you mean area?" in said


def test_inspect_says_what_images_are_like_and_how_to_train_on_them(folder: Path) -> None:
    write(folder / "pets", COUNTS, channels=3)
    found = ask("inspect", "pets", "--side", "5")
    assert found["classes"] == COUNTS
    assert (found["images"]["shape"], found["num_train"] + found["num_test"]) == ([5, 5, 3], 90)
    assert found["command"].endswith(f"retrain softmax-regression --name pets --data {folder}/pets --side 5")
    out = shown("inspect", "pets")
    assert all(each in out for each in ("90 images of 3 classes, as 8 by 8 colour", "dog [b]", "--data"))
    assert re.search(r"validation loss \(.*\): 1\.\d+ by the best constant, 0\.\d+ by a fit", out)


RETRAIN = "retrain softmax-regression --name pets --data"
ABSENT = {
    f"{command} --data {given}{options}": (4, f"/{given}")
    for command, given in (("retrain linear-regression", "no.csv"), ("retrain houses", "gone"))
    for options in ("", " --target price", " --name houses", " --name houses --target price")
}
MISUSED: dict[str, tuple[int, str]] = {
    **{
        f"{command} {model} --name houses --data {{folder}}/houses.csv": (2, "no --target for {folder}/houses.csv")
        for command in ("retrain", "tune")
        for model in ("linear-regression", "softmax-regression")
    },
    **{command: (code, f"no file {{folder}}{found}") for command, (code, found) in ABSENT.items()},
    "retrain linear-regresion --name houses": (2, "to do: did you mean linear-regression?"),
    f"{RETRAIN} pets --ignore x": (2, "for tables"),
    "inspect pets --split-by x": (2, "--split-by and images"),
    f"{RETRAIN} houses.csv --target y --side 8": (2, "for images"),
    f"{RETRAIN} tables": (2, "name it with --target"),
    f"{RETRAIN} https://example.org/pets": (2, "--target"),
    f"{RETRAIN} nowhere": (4, "no folder"),
    f"{RETRAIN} ''": (2, "--data"),
    f"{RETRAIN} pets/*": (4, "no glob"),
    "inspect p*s": (4, "no glob"),
    "inspect empty": (4, "no classes of images"),
    "inspect pets/cat/0000.png": (4, "no classes of images"),
    "inspect pets/cat": (4, "no classes of images"),
    f"{RETRAIN} empty": (4, "no classes"),
    "retrain linear-regression --name pets --data pets": (2, "softmax-regression learns"),
    f"{RETRAIN} pets --side 257": (2, "256"),
    f"{RETRAIN} pets --channels cmyk": (2, "grey"),
}


@pytest.mark.parametrize("command", MISUSED)
def test_what_cannot_be_meant_is_said_before_a_server_starts(command: str, folder: Path, artifacts: Path) -> None:
    write(folder / "pets", {"cat": 2, "dog": 2})
    for name in ("tables", "empty"):
        (folder / name).mkdir()
    shutil.copy(folder / "houses.csv", folder / "tables" / "a.csv")
    code, words = MISUSED[command]
    done = typed(*shlex.split(command.format(folder=folder)))
    assert (done.returncode, words.format(folder=folder) in done.stderr) == (code, True), done.stderr
    assert not list(artifacts.glob("models/*"))
