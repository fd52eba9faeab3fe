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
from command_line import assert_clear, typed
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
    "german Excel": lambda rows: write_text(rows, GERMAN, ";").replace(" €", "").encode("cp1252"),
    "swiss": lambda rows: write_text(rows, {"price": "1'234.5"}, "\t").encode(),
}


@pytest.fixture(scope="module")
def store(server_settings: "Settings", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version of each table in text, and one of the numbers."""
    folder = tmp_path_factory.mktemp("forms")
    with use_server(server_settings):
        for name, to_text in {**TEXTS, "plain": lambda rows: write_text(rows, {}).encode()}.items():
            (file := folder / f"{name}.csv").write_bytes(to_text(draw_rows()))
            done = typed(
                *("retrain", "linear-regression", "--name", name.lower().replace(" ", "-"), "--data", file),
                *("--target", "price", "--no-predict", "--artifacts", folder / "artifacts", "--json"),
            )
            assert done.returncode == 0, done.stderr
    return folder / "artifacts"


@pytest.mark.slow
@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.usefixtures("prefect_api")
def test_a_table_in_text_is_the_table_of_its_numbers(name: str, store: Path, tmp_path: Path) -> None:
    """The same figures from it, and from Parquet of its numbers, which is unchanged data; and the same predictions."""
    kept, at = name.lower().replace(" ", "-"), ("--artifacts", store, "--json")
    manifests = [json.loads((store / "models" / each / "1/manifest.json").read_text()) for each in (kept, "plain")]
    figures = [[each["metrics"][figure] for figure in ("train_loss", "test_loss", "r2")] for each in manifests]
    assert figures[0] == pytest.approx(figures[1], rel=1e-6)
    typed_rows = written(tmp_path / "rows.parquet", draw_rows())
    again = typed("retrain", kept, "--data", typed_rows, *at)
    assert json.loads(again.stdout)["outcome"] == "unchanged", again.stderr
    (text_rows := tmp_path / "rows.csv").write_bytes(TEXTS[name](draw_rows()))
    metrics = list[Any]()
    for file in (text_rows, typed_rows):
        judged = typed("evaluate", kept, file, *at)
        job = typed("predict", file, "--name", kept, "--output", tmp_path / file.suffix, *at)
        assert (judged.returncode, job.returncode) == (0, 0), judged.stderr + job.stderr
        metrics += [json.loads(judged.stdout)["metrics"]["rmse"]]
        metrics += [json.loads((tmp_path / file.suffix / "_job.json").read_text())["metrics"]["rmse"]]
    assert metrics == pytest.approx([metrics[0]] * 4, rel=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_api")
def test_text_in_another_form_than_version_1_had_is_the_one_fault_that_is_told(store: Path, tmp_path: Path) -> None:
    """Of a feature, and of the target; nothing follows from it, such as that the column were missing."""
    rows = write_text(draw_rows(), AMERICAN)
    for name, text in {"rate": rows.replace(" %", ""), "price": rows.replace("$", "")}.items():
        (tmp_path / "rows.csv").write_text(text)
        done = typed("evaluate", "american", tmp_path / "rows.csv", "--artifacts", store)
        assert_clear(done, 4)
        assert f"gradmill: {name} is '" in done.stderr


@pytest.mark.slow
def test_from_python_text_is_read_in_the_form_of_version_1_and_numbers_always_fit(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(store))
    model, row = gradmill.load("american"), {"area": 98.5, "city": "Ulm"}
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
def test_numbers_that_cannot_be_told_are_named(fault: str, tmp_path: Path, artifacts: Path) -> None:
    values, delimiter, found, action = FAULTS[fault]
    done = typed("inspect", write_column(tmp_path / "t.csv", values, delimiter), "--target", "price")
    assert_clear(done, 4)
    assert found in done.stderr
    assert f"to do: {action}" in done.stderr


@pytest.mark.parametrize(("decimal", "largest"), [(",", 9.098), (".", 9098.0)])
def test_decimal_says_which(decimal: str, largest: float, tmp_path: Path, artifacts: Path) -> None:
    file = write_column(tmp_path / "t.csv", FEES, ";")
    done = typed("inspect", file, "--target", "price", "--decimal", decimal, "--json")
    (fee,) = [each for each in json.loads(done.stdout)["columns"] if each["name"] == "fee"]
    assert (fee["kind"], fee["maximum"]) == ("number", largest)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize(
    ("form", "largest"),
    [("{} %", 0.99), ("{}\u00a0€", 99.0), ("$ {}", 99.0), ("1'{:03}", 1099.0), ("1\u202f{:03}", 1099.0)],
)
def test_whole_numbers_are_the_same_whatever_the_decimal(
    form: str, largest: float, delimiter: str, tmp_path: Path, artifacts: Path
) -> None:
    file = write_column(tmp_path / "t.csv", [form.format(place) for place in range(100)], delimiter)
    done = typed("inspect", file, "--target", "price", "--json")
    (fee,) = [each for each in json.loads(done.stdout)["columns"] if each["name"] == "fee"]
    assert (fee["kind"], fee["maximum"]) == ("number", largest)


def test_files_of_one_form_are_one_table_though_some_have_whole_numbers_alone(tmp_path: Path, artifacts: Path) -> None:
    write_column(tmp_path / "days" / "1.csv", ["0,5", "1,25"] * 50, ";")
    write_column(tmp_path / "days" / "2.csv", [f"{place}" for place in range(100)], ";")
    done = typed("inspect", tmp_path / "days", "--target", "price", "--json")
    (fee,) = [each for each in json.loads(done.stdout)["columns"] if each["name"] == "fee"]
    assert (done.returncode, fee["kind"], fee["minimum"], fee["maximum"]) == (0, "number", 0, 99)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_api")
def test_columns_that_a_kept_name_has_left_out_stay_so_whatever_they_look_like(artifacts: Path, tmp_path: Path) -> None:
    """Of a name from before there were forms, whose references were ids."""

    def write(path: Path, first: str) -> Path:
        lines = (f"{first}{place:03};{place};{2 * place + place % 3}\n" for place in range(100))
        path.write_text("ref;other;price\n" + "".join(lines))
        return path

    new = ("retrain", "linear-regression", "--name", "sold", "--target", "price", "--no-predict", "--json", "--data")
    assert typed(*new, write(tmp_path / "1.csv", "R,")).returncode == 0
    done = typed("retrain", "sold", "--data", write(tmp_path / "2.csv", "1,"), "--no-predict", "--json")
    assert json.loads(done.stdout)["outcome"] == "unchanged", done.stderr


def test_in_a_file_of_decimal_commas_a_point_sets_thousands_apart_where_it_can(tmp_path: Path, artifacts: Path) -> None:
    lines = "".join(f"{place},5;{place % 9 + 1}.500;{place}.2575;{place}\n" for place in range(100))
    (tmp_path / "t.csv").write_text("a;b;c;price\n" + lines)
    done = typed("inspect", tmp_path / "t.csv", "--target", "price", "--json")
    largest = {each["name"]: each["maximum"] for each in json.loads(done.stdout)["columns"]}
    assert largest == {"a": 99.5, "b": 9500, "c": 99.2575, "price": 99}


# --missing


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_api")
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_what_stands_for_missing_is_kept_with_the_name_and_means_the_same_everywhere(
    suffix: str, artifacts: Path, tmp_path: Path
) -> None:
    rows = draw_rows()
    there = np.arange(300) % 7 > 0
    gaps = {
        "area": pa.array(rows["area"], mask=~there),
        "city": pa.array(rows["city"].tolist(), mask=~there),
    }
    marked = {"area": np.where(there, rows["area"], -999), "city": np.where(there, rows["city"], "unknown")}
    with_gaps = written(tmp_path / "gaps.parquet", rows | gaps)
    with_marks = written(tmp_path / f"marks{suffix}", rows | marked)
    at = ("--target", "price", "--no-predict", "--json")
    new = typed(
        *("retrain", "linear-regression", "--name", "houses", "--data", with_marks, *at),
        *("--missing", "-999", "--missing", "unknown"),
    )
    assert new.returncode == 0, new.stderr
    again = typed("retrain", "houses", "--data", with_gaps, "--json")
    assert json.loads(again.stdout)["outcome"] == "unchanged", again.stderr
    for file in (with_marks, with_gaps):
        done = typed("predict", file, "--name", "houses", "--output", tmp_path / file.stem, "--json")
        assert done.returncode == 0, done.stderr
    figures = [json.loads((tmp_path / each / "_job.json").read_text())["metrics"] for each in ("marks", "gaps")]
    assert figures[0] == pytest.approx(figures[1])
    model = gradmill.load("houses")
    row: dict[str, Any] = {"area": None, "city": None, "rate": 0.04}
    assert model.predict(row) == model.predict(row | {"area": -999, "city": "unknown"})
