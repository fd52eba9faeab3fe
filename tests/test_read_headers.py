"""Names of columns: in a header, below a title, from the user, or nowhere."""

import io
from pathlib import Path

import pandas as pd  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from documents import ask, column, inspect, measure, retrain, rules
from tasks.data.io.headers import name_columns

pytestmark = pytest.mark.usefixtures("prefect_api")
NAMES = ["rooms", "city", "area", "price"]
ROWS = [[str(at % 5 + 1), "UK"[at % 2] + "lm", f"{at % 83 + 20.5}", str(at % 83 * 3 + at % 5)] for at in range(300)]
GIVEN = "--names", ",".join(NAMES)


def write(path: Path, *rows: list[str]) -> Path:
    """A table as text or as a workbook, whose cells are numbers where they can be."""
    if path.suffix == ".xlsx":
        cells = [[float(field) if field[:1].isdigit() else field for field in row] for row in rows]
        pd.DataFrame(cells).to_excel(path, header=False, index=False)
    else:
        delimiter = {".csv": ",", ".tsv": "\t"}[path.suffix]
        path.write_text("".join(f"{delimiter.join(row)}\n" for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".xlsx"])
def test_a_table_without_a_header_stops_until_its_names_are_given(suffix: str, tmp_path: Path) -> None:
    file = write(tmp_path / f"t{suffix}", *ROWS)
    faults = [each for each in inspect(file, "--target", "c4", code=4)["findings"] if each["rule"] == "no-header"]
    assert ["--header none" in each["action"] for each in faults] == [True]
    error = ask("retrain", "linear-regression", "--name", "t", "--data", file, "--target", "price", code=4)["error"]
    assert "--header none" in error["action"]
    frame = pd.DataFrame(ROWS, columns=NAMES).astype({"area": float})
    for options, names in (GIVEN, NAMES), (("--header", "none"), ["c1", "c2", "c3", "c4"]):
        shown = inspect(file, "--target", names[-1], *options)
        assert (shown["rows"], [each["name"] for each in shown["columns"]]) == (len(frame), names)
        area = column(shown, names[2])
        assert (area["minimum"], area["maximum"]) == (frame.area.min(), frame.area.max())
    for line, code, words in ("999", 4, "no "), ("0", 2, "--header 0"):
        error = inspect(file, "--target", "price", "--header", line, code=code)["error"]
        assert words in error["found"]
        assert "^" not in error["expected"]
    for option, text in ("--names", "a,,b,c"), ("--missing", '"'):
        error = inspect(file, "--target", "c", option, text, code=2)["error"]
        assert error["found"] == f"{option} has an empty value"
    assert "3 names" in inspect(file, "--target", "a", "--names", "a,b,c", code=4)["error"]["found"]


WITHOUT_HEADER = {
    "a number over numbers": [["7", "x"], *[[str(at), "xyz"[at % 3]] for at in range(100)]],
    "a date over dates": [["2024-03-01", "x"], *[[f"2024-01-{at % 28 + 1:02}", "xyz"[at % 3]] for at in range(100)]],
    "an amount over amounts": [["$7.50", "x"], *[[f"${at}.25", "xyz"[at % 3]] for at in range(100)]],
    "letters that repeat as they do below": [
        ["p", "x", "p"],
        *[["xe"[at % 2], "x", "xs"[at // 2 % 2]] for at in range(100)],
    ],
}
WITH_HEADER = {
    "years": [["country", "2019", "2020"], *[["abc"[at % 3], str(at), str(at % 7)] for at in range(100)]],
    "numbers of columns": [["0", "1", "2"], *[[str(at % 9), str(at), str(at % 7)] for at in range(100)]],
    "words over words": [["kind", "taste"], *[["abc"[at % 3], "de"[at % 2]] for at in range(100)]],
    "one number among words": [["2", "size"], *[[str(at), str(at % 7)] for at in range(100)]],
    "a code that repeats in no row": [["a", "b", "a"], *[["xv"[at % 2], "yw"[at // 2 % 2], "z"] for at in range(100)]],
}


@pytest.mark.parametrize("rows", WITHOUT_HEADER)
def test_a_first_row_that_reads_as_data_is_no_header_unless_the_user_says_so(rows: str, tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", *WITHOUT_HEADER[rows])
    target = WITHOUT_HEADER[rows][0][-1]
    assert "no-header" in {each["rule"] for each in inspect(file, "--target", target, code=4)["findings"]}
    shown = ask("inspect", file, "--target", name_columns(WITHOUT_HEADER[rows][0])[-1], "--header", "1")
    assert shown["rows"] == 100


@pytest.mark.parametrize("rows", WITH_HEADER)
def test_names_that_are_numbers_or_repeat_are_names_where_the_rows_are_unlike_them(rows: str, tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", *WITH_HEADER[rows])
    shown = inspect(file, "--target", WITH_HEADER[rows][0][1])
    assert "no-header" not in {each["rule"] for each in shown["findings"]}
    assert shown["rows"] == 100


def test_a_header_below_a_title_is_named_by_its_line_and_the_line_is_kept_with_the_name(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    table = write(tmp_path / "plain.csv", NAMES, *ROWS).read_text()
    file.write_text(f"Flats of 2024\n\n{table}")
    assert "--header 3" in inspect(file, "--target", "price", code=4)["error"]["action"]
    assert "no line 900" in inspect(file, "--target", "price", "--header", "900", code=4)["error"]["found"]
    retrain("linear-regression", "flats", file, "--header", "3", target="price")
    by_evaluate, by_predict = measure("flats", file, tmp_path / "out")
    assert by_evaluate == pytest.approx(by_predict, rel=1e-6)
    file.write_text(f"Flats of 2025\n\n{table}9,Ulm,20.5,30\n")
    assert ask("retrain", "flats", "--no-predict")["outcome"] == "published"


def test_a_name_without_a_header_reads_files_with_and_without_one_and_other_names_say_that_it_is_missing(
    tmp_path: Path,
) -> None:
    without, plain = write(tmp_path / "t.csv", *ROWS), write(tmp_path / "plain.csv", NAMES, *ROWS)
    retrain("linear-regression", "flats", without, *GIVEN, target="price")
    errors = {error for file in (without, plain) for error in measure("flats", file, tmp_path / file.stem)}
    assert len({round(error, 9) for error in errors}) == 1
    assert ask("retrain", "flats", "--no-predict")["outcome"] == "unchanged"
    retrain("linear-regression", "named", plain, target="price")
    for command in (("predict", without, "--name", "named"), ("evaluate", "named", without)):
        error = ask(*command, code=4)["error"]
        assert "has no header: its first row reads as data (1, Ulm, 20.5, 0)" in error["found"]
        assert "--header" not in error["action"]


@pytest.mark.parametrize(("first", "num_rows"), [(["b", "a"], 101), (["a", "a"], 101), (["a", "b"], 100)])
def test_without_a_header_the_first_row_is_data_unless_it_has_the_names_in_order(
    first: list[str], num_rows: int, tmp_path: Path
) -> None:
    file = write(tmp_path / "t.csv", first, *(["abc"[at % 3], "ab"[at % 2]] for at in range(100)))
    shown = inspect(file, "--target", "b", "--header", "none", "--names", "a,b")
    assert (shown["rows"], [each["name"] for each in shown["columns"]]) == (num_rows, ["a", "b"])
    assert sorted(column(shown, "a")["levels"]) == ["a", "b", "c"]


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_a_name_that_names_repeats_is_a_column_of_its_own(suffix: str, tmp_path: Path) -> None:
    file = write(tmp_path / f"t{suffix}", *ROWS)
    shown = inspect(file, "--target", "y", "--names", "p,city,p,y")
    assert [each["name"] for each in shown["columns"]] == ["p", "city", "p.1", "y"]
    assert "p.1" in rules(shown, "note")["renamed-columns"]
    retrain("linear-regression", "flats", file, "--names", "p,city,p,y", target="y")
    by_evaluate, by_predict = measure("flats", file, tmp_path / "out")
    assert by_evaluate == pytest.approx(by_predict, rel=1e-6)


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_a_title_that_a_spreadsheet_pads_with_empty_fields_is_no_header(suffix: str, tmp_path: Path) -> None:
    file = write(tmp_path / f"t{suffix}", ["Flats", "", "", ""], ["", "", "", ""], NAMES, *ROWS)
    found = inspect(file, "--target", "Flats", code=4)["findings"]
    assert ["use --header 3" in each["action"] for each in found if each["rule"] == "no-header"] == [True]
    assert inspect(file, "--target", "price", "--header", "3")["rows"] == len(ROWS)


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_columns_without_a_name_of_their_own_are_called_as_pandas_calls_them_and_that_is_said(
    suffix: str, tmp_path: Path
) -> None:
    file = write(tmp_path / f"t{suffix}", ["city", "", "city", "price"], *([row[1], row[0], *row[2:]] for row in ROWS))
    shown = inspect(file, "--target", "price")
    assert [each["name"] for each in shown["columns"]] == ["city", "Unnamed: 1", "city.1", "price"]
    assert "Unnamed: 1, city.1" in rules(shown, "note")["renamed-columns"]


@given(st.lists(st.sampled_from(["", "a", "b", "a.1", "a.2", "b.1"]), min_size=2, max_size=8))
def test_names_are_those_of_pandas(header: list[str]) -> None:
    assert name_columns(header) == [*pd.read_csv(io.StringIO(",".join(header) + "\n")).columns]
