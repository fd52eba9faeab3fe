"""Own data at the command line: what is said of good and bad tables and images before anything is trained."""

import re
from pathlib import Path

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest

from command_line import typed
from documents import ask, inspect
from image_folders import write

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
