"""Numbers as people write them in text: understood, fixed by version 1, and read alike wherever rows come from."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gradmill
from documents import ask, column, inspect, measure, retrain
from gradmill.rows import NO_NUMBER, parse_number
from prefect_api import use_server
from table_files import written
from tasks.data.io.tabular import parse_form

if TYPE_CHECKING:
    from prefect.settings import Settings

FORMS = {  # and the separators of Python's own format that they have
    "$1,234.5": (",", "."),
    "1.234,5 €": (".", ","),
    "1 234,5": ("\u202f", ","),
    "1'234.5": ("'", "."),
    "1,234.5 %": (",", "."),
    "1.234,5 %": (".", ","),
}


def write_number(value: float, form: str) -> str:
    """As a spreadsheet shows it: thousands set apart, the sign in front of everything."""
    separator, point = FORMS[form]
    digits = f"{abs(value) * (100 if form.endswith('%') else 1):,.2f}"
    digits = digits.translate({ord(","): separator, ord("."): point})
    return "-" * bool(value < 0) + re.sub(r"1.234.5", digits, form)


@given(st.sampled_from([*FORMS]), st.integers(-(10**11), 10**11))
def test_what_is_written_in_a_form_reads_as_its_number_alone_and_in_a_column(form: str, cents: int) -> None:
    text = write_number(cents / 100, form)
    assert parse_number(text, form) == pytest.approx(cents / 100, rel=1e-12)
    assert parse_form(pa.array([text, None]), form).to_pylist() == [parse_number(text, form), None]


@pytest.mark.parametrize(
    "text", ["", "x", "5", "$", "$-", "-$-5", "$1,23", "$0,123", "$1.2.3", "€5", "$5 %", "$1,2345"]
)
def test_text_in_no_such_form_is_no_number(text: str) -> None:
    assert parse_number(text, "$1,234.5") == NO_NUMBER
    assert parse_form(pa.array([text]), "$1,234.5").to_pylist() == [None]


# A table as it is, and as people have it


def draw_rows(rows: int = 300) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    area, rate = np.round(rng.uniform(-20, 250, rows), 2), np.round(rng.uniform(0.01, 0.08, rows), 4)
    price = np.round(3_000 * area + 1e6 * rate + rng.normal(0, 5_000, rows), 2)
    return {"area": area, "city": rng.choice(["Köln", "Ulm"], rows), "rate": rate, "price": price}


def write_text(rows: dict[str, Any], forms: dict[str, str], delimiter: str = ",") -> str:
    columns = [
        [write_number(value, forms[name]) if name in forms else str(value) for value in rows[name]] for name in rows
    ]
    quoted = ([f'"{text}"' if delimiter in text else text for text in column] for column in columns)
    lines = [delimiter.join(rows), *(delimiter.join(fields) for fields in zip(*quoted, strict=True))]
    return "\n".join(lines) + "\n"


AMERICAN = {"rate": "1,234.5 %", "price": "$1,234.5"}
GERMAN = {"area": "1.234,5 €", "rate": "1.234,5 %", "price": "1.234,5 €"}
TEXTS: dict[str, Callable[[dict[str, Any]], bytes]] = {
    "american": lambda rows: write_text(rows, AMERICAN).encode(),
    "german": lambda rows: write_text(rows, GERMAN, ";").replace(" €", "").encode("cp1252"),
}


def make(name: str, file: Path, *options: str | Path) -> Any:
    return retrain("linear-regression", name, file, *options, target="price")


@pytest.fixture(scope="module")
def store(server_settings: "Settings", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version of each table in text, and one of the numbers."""
    folder = tmp_path_factory.mktemp("forms")
    with use_server(server_settings):
        for name, to_text in {**TEXTS, "plain": lambda rows: write_text(rows, {}).encode()}.items():
            (file := folder / f"{name}.csv").write_bytes(to_text(draw_rows()))
            make(name, file, "--artifacts", folder / "artifacts")
    return folder / "artifacts"


@pytest.mark.slow
@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.usefixtures("prefect_api")
def test_a_table_in_text_is_the_table_of_its_numbers(name: str, store: Path, tmp_path: Path) -> None:
    """The same figures from it, and from Parquet of its numbers, which is unchanged data; and the same predictions."""
    at = ("--artifacts", store)
    manifests = [json.loads((store / "models" / each / "1/manifest.json").read_text()) for each in (name, "plain")]
    figures = [[each["metrics"][figure] for figure in ("train_loss", "test_loss", "r2")] for each in manifests]
    assert figures[0] == pytest.approx(figures[1], rel=1e-6)
    typed_rows = written(tmp_path / "rows.parquet", draw_rows())
    assert ask("retrain", name, "--data", typed_rows, *at)["outcome"] == "unchanged"
    (text_rows := tmp_path / "rows.csv").write_bytes(TEXTS[name](draw_rows()))
    metrics = [each for file in (text_rows, typed_rows) for each in measure(name, file, tmp_path / file.suffix, *at)]
    assert metrics == pytest.approx([metrics[0]] * 4, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("column", "sign"), [("rate", " %"), ("price", "$")])
@pytest.mark.usefixtures("prefect_api")
def test_text_in_another_form_than_version_1_had_is_the_one_fault_that_is_told(
    column: str, sign: str, store: Path, tmp_path: Path
) -> None:
    """Of a feature, and of the target; nothing follows from it, such as that the column were missing."""
    (tmp_path / "rows.csv").write_text(write_text(draw_rows(), AMERICAN).replace(sign, ""))
    error = ask("evaluate", "american", tmp_path / "rows.csv", "--artifacts", store, code=4)["error"]
    assert error["found"].startswith(f"{column} is '")


@pytest.mark.slow
def test_from_python_text_is_read_in_the_form_of_version_1_and_numbers_always_fit(store: Path) -> None:
    model, row = gradmill.load("american", store), {"area": 98.5, "city": "Ulm"}
    by_text, by_number = model.predict([row | {"rate": "4 %"}, row | {"rate": 0.04}])
    assert by_text == by_number
    with pytest.raises(ValueError, match=r"rate is '4', not a number written like 1,234\.5 %"):
        model.predict(row | {"rate": "4"})


# What is ambiguous is asked for, and what is in no form is named


def write_column(path: Path, values: list[str], delimiter: str = ",") -> Path:
    path.parent.mkdir(exist_ok=True)
    lines = (f'"{value}"{delimiter}{place % 7}{delimiter}{place}\n' for place, value in enumerate(values))
    path.write_text(delimiter.join(["fee", "other", "price"]) + "\n" + "".join(lines))
    return path


FEES = [f"{place % 9 + 1},{place:03}" for place in range(100)]
FAULTS: dict[str, tuple[list[str], str, str, str]] = {
    "a point or a comma": (FEES, ";", "fee could be read as numbers written like 1.234,5 or 1,234.5", "say --decimal"),
    "a comma among commas": (["0,5", *FEES], ",", "fee has numbers written like 1.234,5", "say --decimal ,"),
    "a percent without its sign": (
        [f"{place} %" for place in range(99)] + ["7"], ",", "fee is '7' in row 99", "mend the value",
    ),
    "decimal commas beside points": (
        ["1,5", "2,25", "1.234,5"] * 33 + ["1.5"], ";", "fee is '1.5' in row 99", "mend the value",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_numbers_that_cannot_be_told_are_named(fault: str, tmp_path: Path) -> None:
    values, delimiter, found, action = FAULTS[fault]
    error = inspect(write_column(tmp_path / "t.csv", values, delimiter), "--target", "price", code=4)["error"]
    assert found in error["found"]
    assert action in error["action"]


WHOLE: dict[str, float] = {"{} %": 0.99, "{}\u00a0€": 99.0, "$ {}": 99.0, "1'{:03}": 1099.0, "1\u202f{:03}": 1099.0}
NUMBERS: list[tuple[list[str], str, list[str], float]] = [
    (FEES, ";", ["--decimal", ","], 9.098),
    (FEES, ";", ["--decimal", "."], 9098.0),
    *(
        ([form.format(place) for place in range(100)], delimiter, [], largest)
        for form, largest in WHOLE.items()
        for delimiter in ",;\t"
    ),
]


@pytest.mark.parametrize(("values", "delimiter", "options", "largest"), NUMBERS)
def test_decimal_says_which_and_whole_numbers_are_the_same_whatever_it_is(
    values: list[str], delimiter: str, options: list[str], largest: float, tmp_path: Path
) -> None:
    file = write_column(tmp_path / "t.csv", values, delimiter)
    fee = column(inspect(file, "--target", "price", *options), "fee")
    assert (fee["kind"], fee["maximum"]) == ("number", largest)


def test_files_of_one_form_are_one_table_though_some_have_whole_numbers_alone(tmp_path: Path) -> None:
    write_column(tmp_path / "days" / "1.csv", ["0,5", "1,25"] * 50, ";")
    write_column(tmp_path / "days" / "2.csv", [f"{place}" for place in range(100)], ";")
    fee = column(inspect(tmp_path / "days", "--target", "price"), "fee")
    assert (fee["kind"], fee["minimum"], fee["maximum"]) == ("number", 0, 99)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_api")
def test_columns_that_a_kept_name_has_left_out_stay_so_whatever_they_look_like(artifacts: Path, tmp_path: Path) -> None:
    """Of a name from before there were forms, whose references were ids."""

    def write(path: Path, first: str) -> Path:
        lines = (f"{first}{place:03};{place};{2 * place + place % 3}\n" for place in range(100))
        path.write_text("ref;other;price\n" + "".join(lines))
        return path

    make("sold", write(tmp_path / "1.csv", "R,"))
    assert ask("retrain", "sold", "--data", write(tmp_path / "2.csv", "1,"))["outcome"] == "unchanged"


def test_in_a_file_of_decimal_commas_a_point_sets_thousands_apart_where_it_can(tmp_path: Path) -> None:
    lines = "".join(f"{place},5;{place % 9 + 1}.500;{place}.2575;{place}\n" for place in range(100))
    (tmp_path / "t.csv").write_text("a;b;c;price\n" + lines)
    found = inspect(tmp_path / "t.csv", "--target", "price")["columns"]
    assert {each["name"]: each["maximum"] for each in found} == {"a": 99.5, "b": 9500, "c": 99.2575, "price": 99}


# --missing


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_api")
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_what_stands_for_missing_is_kept_with_the_name_and_means_the_same_everywhere(
    suffix: str, artifacts: Path, tmp_path: Path
) -> None:
    rows, is_gap = draw_rows(), np.arange(300) % 7 == 0
    gaps = {name: pa.array(rows[name].tolist(), mask=is_gap) for name in ("area", "city")}
    marks = {name: np.where(is_gap, mark, rows[name]) for name, mark in (("area", -999), ("city", "unknown"))}
    with_gaps, with_marks = (
        written(tmp_path / "gaps.parquet", rows | gaps),
        written(tmp_path / f"marks{suffix}", rows | marks),
    )
    make("houses", with_marks, "--missing", "-999", "--missing", "unknown")
    assert ask("retrain", "houses", "--data", with_gaps)["outcome"] == "unchanged"
    by_marks, by_gaps = (measure("houses", file, tmp_path / file.stem) for file in (with_marks, with_gaps))
    assert by_marks == pytest.approx(by_gaps)
    model, row = gradmill.load("houses"), {"area": None, "city": None, "rate": 0.04}
    assert model.predict(row) == model.predict(row | {"area": -999, "city": "unknown"})
