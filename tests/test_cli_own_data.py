"""Own data at the command line: what is said of good and bad tables and images before anything is trained."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest

from command_line import assert_clear, typed
from documents import ask, column, inspect, rules
from image_folders import write
from written_tables import written

COUNTS = {"cat": 40, "dog [b]": 30, "owl": 20}
PRICE = ("--target", "price")


def houses() -> str:
    """A table whose prices follow from areas and cities, nearly."""
    rng = np.random.default_rng(0)
    area, city = rng.uniform(40, 200, 200), rng.choice(["Köln", "Berlin", "München"], 200)
    price = 3000 * area + 90_000 * (city == "München") + rng.normal(0, 9000, 200)
    return str(pd.DataFrame({"area": area, "city": city, "price": price}).round(2).to_csv(index=False))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where commands are typed, with a table."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "houses.csv").write_text(houses())
    return tmp_path


def test_inspect_says_what_a_table_is_like_and_how_to_train_on_it_and_keeps_nothing(folder: Path) -> None:
    name = "area_of_all_floors_and_of_the_garden_house_in_square_metres_as_the_register_of_2024_has_it"
    lines = houses().replace("area", name, 1).splitlines()
    unpriced = [f"{each.rpartition(',')[0]}," for each in lines[-3:]]
    (folder / "houses.csv").write_text("\n".join([*lines[:-3], *unpriced]))
    before = {*folder.rglob("*")}
    found = inspect("houses.csv", *PRICE)
    assert [(each["name"], each["role"], each["kind"]) for each in found["columns"]] == [
        (name, "feature", "number"), ("city", "feature", "category"), ("price", "target", "number")
    ]  # fmt: skip
    assert (found["rows"], found["num_train"] + found["num_test"]) == (200, 197)
    assert found["command"].endswith(
        f"retrain linear-regression --name houses --data {folder}/houses.csv --target price"
    )
    out = typed("inspect", "houses.csv", *PRICE).stdout
    assert "by a hash of their features); 3 rows without a target left out" in " ".join(out.split())
    assert name in "".join(line.split("  ")[0] for line in out.splitlines()), "the whole name, to copy"
    assert {*folder.rglob("*")} == before


@pytest.mark.parametrize("target", ["price", "pri\x1b[2Jce"])
def test_names_that_look_like_markup_are_shown_as_they_are_and_a_terminal_obeys_none(target: str, folder: Path) -> None:
    text = houses().replace("area", "\x1b]0;name\x07area [sqm]").replace("Berlin", "\x1b[31mB[/b]\x9b2J")
    (folder / "h[1].csv").write_text(text + "\x1b[2Jbig,Bonn,1e400\n")
    done = typed("inspect", "h[1].csv", "--target", target, "--category", "\x1b]0;name\x07area [sqm]")
    said = done.stdout + done.stderr
    assert target != "price" or all(each in said for each in ("\\x1b]0;name\\x07area [sqm]", "B[/b]", "h[1].csv"))
    assert not {*"\x07\x1b\x9b"} & {*said}


@pytest.mark.parametrize(
    ("kind", "options", "model", "ignored"),
    [
        (lambda n: n % 2, [], "softmax-regression", "id"),
        (lambda n: n % 5 + 1, [], "softmax-regression", "id"),
        (lambda n: n % 2, ["--ignore", "area"], "softmax-regression", "area,id"),
        (lambda n: n % 2, ["--features", "id,area"], "softmax-regression", ""),
        (lambda n: 9 if n == 7 else n % 2, [], "linear-regression", "id"),  # which has no training rows as a class
        (lambda n: n % 40, [], "linear-regression", "id"),
    ],
)
def test_the_command_offered_is_what_the_findings_advise(
    kind: Callable[[int], int], options: list[str], model: str, ignored: str, folder: Path
) -> None:
    rows = (f"{n + 1000},{n % 17},{n * n % 11 / 8},{kind(n)}\n" for n in range(400))
    (folder / "t.csv").write_text("id,area,rooms,y\n" + "".join(rows))
    document = inspect("t.csv", *options)
    assert f"retrain {model} " in document["command"]
    assert bool(document["classes"]) == (model == "softmax-regression"), "the losses are those of the model"
    assert document["command"].partition("--ignore ")[2].partition(" ")[0] == ignored


ROW_NAMES: dict[str, Callable[[pd.DataFrame], object]] = {
    "numbers.csv": lambda frame: frame.to_csv("numbers.csv"),
    "names.csv": lambda frame: named(frame).to_csv("names.csv"),
    "of R.csv": lambda frame: Path("of R.csv").write_text(named(frame).to_csv()[1:]),  # a header of one name less
    "numbers.parquet": lambda frame: frame.to_parquet("numbers.parquet", index=True),
    "names.parquet": lambda frame: named(frame).to_parquet("names.parquet"),
}


def named(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.rename(index="house {}".format)


@pytest.mark.parametrize("file", ROW_NAMES)
def test_row_names_of_pandas_and_r_are_left_out_and_said_aloud(file: str) -> None:
    ROW_NAMES[file](pd.read_csv("houses.csv"))
    found = inspect(file, *PRICE)
    roles = {each["name"]: each["role"] for each in found["columns"]}
    (index,) = {*roles} - {"area", "city", "price"}
    assert roles == {index: "left out", "area": "feature", "city": "feature", "price": "target"}
    assert f"index {index}" in {*rules(found, "note"), *rules(found, "warning")}


def test_a_first_column_without_a_name_that_names_no_rows_is_a_column(folder: Path) -> None:
    frame = pd.read_csv("houses.csv")
    frame.set_index(frame.index % 7).to_csv("t.csv")
    assert column(inspect("t.csv", *PRICE), "Unnamed: 0")["role"] == "feature"


@pytest.mark.parametrize("values", [("€ 3", "$ 1,250.50"), ("1/2/2024", "31.12.24")])
def test_numbers_and_dates_that_are_not_written_as_such_are_named(values: tuple[str, str], folder: Path) -> None:
    written(folder / "t.csv", {"fee": values * 50, "price": [n % 7 + n for n in range(100)]})
    said = rules(inspect("t.csv", *PRICE), "warning") | rules(inspect("t.csv", *PRICE), "note")
    assert f"as '{values[0]}' in row 0" in said["looks-like fee"]


def test_all_that_is_wrong_is_said_at_once(folder: Path) -> None:
    (folder / "t.csv").write_text(houses() + "big,Berlin,1e400\n")
    write(folder / "pets", COUNTS | {"a\nb": 1})
    (folder / "pets" / "cat" / "0001.png").write_text("no picture")
    for command, words in (
        (("inspect", "t.csv", *PRICE, "--features", "area,size"), ("'big'", "inf", "size", "3 faults")),
        (("inspect", "pets"), ("cat/0001.png: none of PNG", "names of one line", "3 faults")),
    ):
        done = typed(*command)
        assert done.returncode == 4
        assert all(word in done.stderr for word in words)


@pytest.mark.parametrize(
    "options", [["--ignore", "area,garden"], ["--ignore", "area, garden"], ["--ignore", "area", "--ignore", "garden"]]
)
def test_no_name_of_a_list_is_lost(options: list[str], folder: Path) -> None:
    written(folder / "t.csv", {name: range(99) for name in ("area", "garden", "rooms", "price")})
    found = inspect("t.csv", *PRICE, *options)
    assert {each["name"] for each in found["columns"]} == {"rooms", "price"}
    assert found["command"].endswith("--ignore area,garden")


@pytest.mark.parametrize("option", ["--ignore", "--features", "--category"])
def test_a_line_break_in_a_list_of_columns_needs_quotes(option: str, folder: Path) -> None:
    (folder / "t.csv").write_text(houses().replace("city", '"ci\nty"', 1))
    done = typed("inspect", "t.csv", *PRICE, option, "ci\nty")
    assert_clear(done, 2, "values separated by commas, in double quotes if they have a line break\nto do: quote it")
    inspect("t.csv", *PRICE, option, '"ci\nty"')


def test_inspect_says_what_images_are_like_and_how_to_train_on_them(folder: Path) -> None:
    before = {*write(folder / "pets", COUNTS, channels=3).rglob("*")}
    found = ask("inspect", "pets", "--side", "5")
    assert found["classes"] == COUNTS
    assert (found["images"]["shape"], found["num_train"] + found["num_test"]) == ([5, 5, 3], 90)
    assert found["command"].endswith(f"retrain softmax-regression --name pets --data {folder}/pets --side 5")
    out = " ".join(typed("inspect", "pets").stdout.split())
    assert all(each in out for each in ("90 images of 3 classes, as 8 by 8 colour", "dog [b]", "--data"))
    assert re.search(r"validation loss \(.*\): 1\.\d+ by the best constant, 0\.\d+ by a fit", out)
    assert {*(folder / "pets").rglob("*")} == before
