"""Dates and numbers as people write them: understood, fixed by version 1, and read alike wherever rows come from."""

import datetime
import itertools
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import dated_tables
import gradmill
from documents import ask, column, inspect, load, measure, retrain, rules
from gradmill.rows import NO_NUMBER, PARTS_OF_DAYS, InputColumn, Part, parse_number
from table_files import written
from tasks.data.io.date_parts import read_dates
from tasks.data.io.tabular import DateForm, parse_form
from written_tables import digest, examined, recipe

Rows = dict[str, Any]
NUMBERS = {  # and the separators of Python's own format that they have
    "$1,234.5": (",", "."),
    "1.234,5 €": (".", ","),
    "1 234,5": ("\u202f", ","),
    "1'234.5": ("'", "."),
    "1,234.5 %": (",", "."),
    "1.234,5 %": (".", ","),
}


def write_number(value: float, form: str) -> str:
    """As a spreadsheet shows it: thousands set apart, the sign in front of everything."""
    separator, point = NUMBERS[form]
    digits = f"{abs(value) * (100 if form.endswith('%') else 1):,.2f}"
    digits = digits.translate({ord(","): separator, ord("."): point})
    return "-" * bool(value < 0) + re.sub(r"1.234.5", digits, form)


@given(st.sampled_from([*NUMBERS]), st.integers(-(10**11), 10**11))
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


EAST = datetime.datetime(2024, 2, 29, 23, 30, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
MISSING, NO_DATE = "missing", "no date"
# Text, its form, the zone in which it is read, and the hour that it is in.
TEXTS: list[tuple[str, str, str, str]] = [
    ("2024-02-29", "", "", "2024-02-29"),
    ("1000-01-01 23:59:59", "", "", "1000-01-01T23"),
    ("2024-01-01 10", "", "", "2024-01-01T10"),
    ("29.2.2024", "31.12.2024", "", "2024-02-29"),
    ("31.12.1999 7:05", "31.12.2024", "", "1999-12-31T07"),
    ("03/04/2022 17:05:59", "31/12/2024", "", "2022-04-03T17"),
    ("03/04/2022 17:05:59", "12/31/2024", "", "2022-03-04T17"),
    *((EAST.isoformat(), "", zone, hour) for zone, hour in {
        "": "2024-02-29T23", "UTC": "2024-02-29T21", "Europe/Berlin": "2024-02-29T22", "+05:30": "2024-03-01T03"
    }.items()),
    ("2024-02-29 23:30", "", "+05:30", "2024-02-29T23"),
    *((text, "", "", NO_DATE) for text in (
        *("2024-02-30", "2024-13-01", "2024-01-01 25:00", "x", "31.12.2024", "2024-01-01 24", "10", "0000-01-01"),
        "2024-01-01T10:00:00+99:00",
    )),
    ("29/02/2024", "12/31/2024", "", NO_DATE),
    ("9999-12-31T23:59:59-05:00", "", "UTC", NO_DATE),
    ("0001-01-01T00:00:00+05:00", "", "UTC", NO_DATE),
    (" ", "", "", MISSING),
]  # fmt: skip
VALUES: list[tuple[Any, pa.Array, str, str, str]] = [
    *((text, pa.array([text]), form, zone, hour) for text, form, zone, hour in TEXTS),
    (EAST, pa.array([EAST], pa.timestamp("us", "+02:00")), "", "", "2024-02-29T23"),
    (EAST, pa.array([EAST], pa.timestamp("us", "+02:00")), "", "+05:30", "2024-03-01T03"),
    (5, pa.array([5]), "", "", NO_DATE),
    (datetime.timedelta(hours=5), pa.array([datetime.timedelta(hours=5)]), "", "", NO_DATE),
    ("0001-01-01", pa.array([datetime.date(1, 1, 1)]), "", "", "0001-01-01"),
    ("9999-12-31", pa.array([datetime.date(9999, 12, 31)]), "", "", "9999-12-31"),
    ("13:45:00", pa.array([datetime.time(13, 45)]), "", "", "T13"),
    (datetime.time(13, 45), pa.array(["13:45"]), "", "", "T13"),
    (np.datetime64("2024-02-29"), pa.array([datetime.date(2024, 2, 29)]), "", "", "2024-02-29"),
    (pd.NaT, pa.array([None], pa.timestamp("us")), "", "", MISSING),
    (None, pa.nulls(1), "", "", MISSING),
]


def take_calendar_parts(hour: str) -> dict[Part, float]:
    """The month from 0 on, the weekday from Monday, the hour and the year."""
    if hour in (MISSING, NO_DATE):
        return dict.fromkeys(("month", "weekday", "hour", "year"), np.nan if hour == MISSING else NO_NUMBER)
    if hour.startswith("T"):  # of a time of day alone
        return {"month": NO_NUMBER, "weekday": NO_NUMBER, "hour": int(hour[1:]), "year": NO_NUMBER}
    at = datetime.datetime.fromisoformat(hour)
    return {"month": at.month - 1, "weekday": at.weekday(), "hour": at.hour, "year": at.year}


@pytest.mark.parametrize(("value", "array", "form", "zone", "hour"), VALUES)
def test_a_value_has_the_parts_of_its_date_alone_and_in_a_column_or_is_no_date(
    value: Any, array: pa.Array, form: str, zone: str, hour: str
) -> None:
    for part, expected in take_calendar_parts(hour).items():
        read_as = DateForm(form, zone, needs_date=part in PARTS_OF_DAYS)
        assert_array_equal(read_dates(array, read_as).take(part), [expected])
        alone = InputColumn("x", "category", source="when", part=part, form=form, zone=zone)
        other = EAST.astimezone(datetime.UTC)  # the same moment of another zone may stand beside it
        assert_array_equal(alone.encode([other, value])[1], expected)


# One table, in the forms that files have it in


def draw_rows(rows: int = 1500) -> Rows:
    rng, dated = np.random.default_rng(1), dated_tables.draw_rows(rows)
    fee, rate = np.round(rng.uniform(-20, 2500, rows), 2), np.round(rng.uniform(0.01, 0.08, rows), 4)
    sales = np.round(dated["sales"] + fee / 500 + 50 * rate, 2)
    return dated | {"fee": fee, "rate": rate, "city": rng.choice(["Köln", "Ulm"], rows), "sales": sales}


def write_text(path: Path, rows: Rows, date: str, delimiter: str = ",", **forms: str) -> Path:
    """Dates and numbers in these forms."""
    frame = pd.DataFrame(rows)
    frame["when"] = frame.when.dt.strftime(f"{date} %H:%M")
    for name, form in forms.items():
        frame[name] = [write_number(value, form) for value in frame[name]]
    if path.suffix != ".csv":
        return written(path, pa.Table.from_pandas(frame, preserve_index=False))
    encoding = "utf-8" if delimiter == "," else "cp1252"
    frame.to_csv(path, index=False, sep=delimiter, decimal="," if delimiter == ";" else ".", encoding=encoding)
    return path


def write_zoned(path: Path, rows: Rows) -> Path:
    """The rows with moments, whose clocks in Berlin show the same; the hours that these skip are left as they are."""
    moments = pd.Series(rows["when"]).dt.tz_localize("Europe/Berlin", ambiguous=True, nonexistent="shift_forward")
    return written(path, pa.table(rows | {"when": pa.array(moments)}))


write_iso = partial(write_text, date="%Y-%m-%d")
write_american = partial(write_text, date="%m/%d/%Y", fee="$1,234.5", rate="1,234.5 %", sales="$1,234.5")
write_german = partial(write_text, date="%d.%m.%Y", delimiter=";", fee="1.234,5 €", rate="1.234,5 %")


def write_workbook(path: Path, rows: Rows) -> Path:
    pd.DataFrame(rows).to_excel(path, index=False)
    return path


SOURCES: dict[str, dict[str, Callable[[Path, Rows], Path]]] = {
    "american": {"a.csv": write_american, "b.parquet": write_american},
    "german": {"a.csv": write_german},
    "a workbook and JSON lines": {"a.xlsx": write_workbook, "b.jsonl": written},
    "CSV and Parquet": {"a.csv": write_iso, "b.parquet": written},
    "CSV without a date": {"a.csv": write_iso, "b.parquet": written},
}


def make(file: Path, *options: str | Path) -> Any:
    """Version 1 of a file."""
    return retrain("linear-regression", "sales", file, *options, target="sales")


def is_unchanged(*options: str | Path) -> bool:
    unchanged: bool = ask("retrain", "sales", *options)["outcome"] == "unchanged"
    return unchanged


@pytest.fixture(scope="module")
def store(module_folder: Path) -> Path:
    """A version of the table in Parquet, and one of American text."""
    make(written(module_folder / "rows.parquet", draw_rows()))
    american = write_american(module_folder / "rows.csv", draw_rows())
    retrain("linear-regression", "american", american, target="sales")
    return module_folder / "artifacts"


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.usefixtures("prefect_api")
def test_a_table_is_the_same_data_and_gives_the_same_answers_in_any_form(
    name: str, store: Path, tmp_path: Path
) -> None:
    """A version of the files alone, which then knows the typed rows; and the same figures by both."""
    rows, folder, files = draw_rows(), tmp_path / "rows", SOURCES[name]
    if name == "CSV without a date":
        rows["when"][:750] = np.datetime64("NaT")
    folder.mkdir()
    for number, (filename, write) in enumerate(files.items()):
        half = slice(750 * number, 750 * number + 1500 // len(files))
        write(folder / filename, {each: values[half] for each, values in rows.items()})
    at, whole = ("--artifacts", tmp_path / "artifacts"), written(tmp_path / "typed.parquet", rows)
    rmse, by = make(folder, *at)["metrics"]["rmse"], tmp_path / "by"
    figures = [figure for each in (folder, whole) for figure in measure("sales", each, by / each.stem, *at)]
    assert figures == pytest.approx([figures[0]] * len(figures), rel=1e-6)
    assert is_unchanged("--data", whole, *at)
    if name != "CSV without a date":
        made = load(store / "models/sales/1/manifest.json")["metrics"]
        assert rmse == pytest.approx(made["rmse"], rel=1e-6)
    if name not in ("american", "german", "CSV without a date"):  # whose rows are others to a version of numbers
        judged = ask("evaluate", "sales", folder, "--artifacts", store)["metrics"]["rmse"]
        assert judged == pytest.approx(figures[0], rel=1e-6)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_number_that_float32_does_not_have_stands_for_missing_there(suffix: str, tmp_path: Path) -> None:
    """Numbers of float64 are in test_read_values.py."""
    fee = np.where(np.arange(100) % 10, 1.5, -999.9).astype(np.float32)
    file = written(tmp_path / f"t{suffix}", {"fee": fee, "y": range(100)})
    found = column(inspect(file, "--missing", "-999.9"), "fee")
    assert (found["missing"], found["minimum"]) == (10, 1.5)
    model = InputColumn("fee", "number", missing=("-999.9",))
    for values in (fee, fee.astype(str)):
        assert np.isnan(model.encode(values)).sum() == 10


# What the version says of its dates


def take_parts(rows: Rows) -> pd.DataFrame:
    when = pd.Series(rows["when"]).dt
    parts = {"month": when.month, "weekday": when.day_of_week, "hour": when.hour, "city": rows["city"]}
    return pd.DataFrame(parts | {"year": when.year} | {name: rows[name] for name in ("area", "fee", "rate")})


def test_a_model_of_dates_is_that_of_scikit_learn_on_the_parts_of_pandas(store: Path) -> None:
    manifest, metadata = (load(store / f"models/sales/1/{name}.json") for name in ("manifest", "metadata"))
    rows = draw_rows()
    encode = make_column_transformer((OneHotEncoder(), ["month", "weekday", "hour", "city"]), remainder="passthrough")
    expected = make_pipeline(encode, LinearRegression()).fit(take_parts(rows), rows["sales"]).predict(take_parts(rows))
    found = gradmill.load("sales", store).predict(pd.DataFrame(rows))
    assert np.abs(found - expected).mean() < 0.3  # which learned from the test rows, too
    assert manifest["metrics"]["test_loss"] == pytest.approx(0.5, rel=0.2)  # half the variance of the noise
    described = [
        (each["name"], each.get("from"), each.get("part"), len(each["levels"]))
        for each in metadata["parameters"]["columns"][:5]
    ]
    parts = {"month": 12, "weekday": 7, "hour": 24, "year": 0}
    assert described == [*((f"when.{part}", "when", part, n) for part, n in parts.items()), ("area", None, None, 0)]


def test_a_year_beyond_the_training_rows_counts_as_the_nearest_of_theirs(store: Path) -> None:
    """In the file itself, from Python, and in what each column adds."""
    model, others = gradmill.load("sales", store), {"area": 5, "fee": 9, "rate": 0.04, "city": "Ulm"}
    days = ["0007-06-03", "2019-06-02", "2023-06-04", "9999-06-06"]  # Sundays in June
    rows = [others | {"when": day} for day in days]
    first, low, high, last = model.predict(rows)
    assert (first, high) == (low, last)
    assert high - low > 5
    assert_allclose(model.explain(rows).sum(axis=1), [first, low, high, last], rtol=1e-6)
    session = onnxruntime.InferenceSession(store / "models/sales/1/model.onnx")
    features = np.array([[5, 6, 0, year, 5, 9, 0.04, 1] for year in (7, 2019, 2023, 9999, np.nan)], np.float32)
    *answers, of_missing = session.run(None, {"features": features})[0].tolist()
    assert answers == [first, low, high, last]
    assert low < of_missing < high, "it is the mean"


ZONES: dict[str, tuple[str, bool]] = {  # the offsets of a column's times, in turn, and whether they are several zones
    "none": ("", False),
    "of equal offsets": ("Z +00:00 +00", False),
    "of other offsets": ("+01:00 +02", True),
    "with and without": ("-0530 ", True),
}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("case", ZONES)
def test_times_are_read_as_written_and_several_zones_are_a_warning(case: str, suffix: str, tmp_path: Path) -> None:
    """All are at noon, whatever their zone."""
    offsets, is_mixed = ZONES[case]
    days = np.datetime64("2024-01-01") + np.arange(400)
    texts = [f"{day}T12:00:00{offset}" for day, offset in zip(days, itertools.cycle(offsets.split(" ")), strict=False)]
    found = inspect(written(tmp_path / f"t{suffix}", {"when": texts, "x": np.arange(400) % 9, "y": np.arange(400) % 7}))
    assert column(found, "when")["levels"] == ["month", "weekday"]
    assert ("mixed-zones when" in rules(found, "warning")) == is_mixed


@pytest.mark.parametrize("name", ["utc.parquet", "utc.csv", "utc.jsonl"])
def test_times_are_converted_to_the_zone_that_a_kept_recipe_has(name: str, tmp_path: Path) -> None:
    file = write_zoned(tmp_path / "berlin.parquet", dated_tables.draw_rows())
    kept = recipe(examined(file, "sales"))
    columns = (each.model_copy(update={"zone": "Europe/Berlin" if each.part else ""}) for each in kept.columns)
    kept = kept.model_copy(update={"columns": tuple(columns)})
    moments = pd.read_parquet(file).assign(when=lambda each: each.when.dt.tz_convert("UTC"))
    utc = written(tmp_path / name, pa.Table.from_pandas(moments, preserve_index=False))
    assert digest(examined(utc, "sales", kept=kept)) == digest(examined(file, "sales", kept=kept))


def test_rows_from_python_have_dates_of_every_kind_and_numbers_in_the_form_of_version_1(store: Path) -> None:
    model, moment = gradmill.load("american", store), datetime.datetime(2022, 3, 4, 17, 5)
    row = {"when": moment, "area": 5, "fee": 1250.5, "rate": 0.04, "city": "Ulm"}
    frames: tuple[Any, ...] = (
        *(row | {"when": when} for when in ("03/04/2022 17:05", np.datetime64(moment))),
        row | {"rate": "4 %", "fee": "$1,250.50"},
        pd.DataFrame([row]),
        pl.DataFrame([row]),
        pa.Table.from_pylist([row]),
    )
    assert {model.predict(rows).item() for rows in frames} == {model.predict(row).item()}
    for fault, said in (
        ({"when": "x"}, "when is 'x', not a date"),
        ({"when": 5}, "when is 5, not a date"),
        ({"rate": "4"}, r"rate is '4', not a number written like 1,234\.5 %"),
    ):
        with pytest.raises(ValueError, match=said):
            model.predict(row | fault)
    del row["when"]
    with pytest.raises(ValueError, match="column 'when' is missing"):
        model.predict(row | {"when.month": 3})


def without(sign: str) -> Callable[[Path], object]:
    """The rows of American text, without this sign in any."""
    return lambda path: path.write_text(write_american(path, draw_rows(300)).read_text().replace(sign, ""))


SPANS = [datetime.timedelta(hours=at) for at in range(300)]
LATER: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "a feature without its sign": (without(" %"), "rate is '", ""),
    "a target without its sign": (without("$"), "fee is '", ""),
    "spans": (lambda path: written(path.with_name("t.parquet"), draw_rows(300) | {"when": SPANS}), "when", "a date"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", LATER)
@pytest.mark.usefixtures("prefect_api")
def test_later_text_in_another_form_is_the_one_fault_that_is_told(case: str, store: Path, tmp_path: Path) -> None:
    """Nothing follows from it, such as that the column were missing."""
    write, found, expected = LATER[case]
    (tmp_path / "rows").mkdir()
    write(tmp_path / "rows" / "t.csv")
    error = ask("evaluate", "american", tmp_path / "rows", "--artifacts", store, code=4)["error"]
    assert found in error["found"]
    assert expected in error["expected"]
    findings = ask("inspect", tmp_path / "rows", "--name", "american", "--artifacts", store, code=4)["findings"]
    (action,) = {each["action"] for each in findings if each["rule"].startswith("text-among")}
    assert ("--missing" in action, "--ignore" in action) == (True, False), "version 1 has taken the column"


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_api")
def test_prediction_rejects_what_is_no_date_by_its_name_and_a_column_without_dates_is_missing(
    store: Path, tmp_path: Path
) -> None:
    rest = ",5,9,0.04,Ulm\n"
    (file := tmp_path / "rows.csv").write_text(
        "when,area,fee,rate,city\n" + f"2022-03-04{rest}" * 200 + f"yesterday{rest}"
    )
    job = ask("predict", file, "--name", "sales", "--output", tmp_path / "out", "--artifacts", store)
    assert job["rejects"] == 1
    reasons = pq.read_table(tmp_path / "out")["rejected"].to_pylist()
    assert reasons == [None] * 200 + ["when is 'yesterday', not a date"]
    (other := tmp_path / "others.csv").write_text(file.read_text().replace("when", "date", 1))
    error = ask("predict", other, "--name", "sales", "--artifacts", store, code=4)["error"]
    assert "when missing" in error["found"]
    assert "when (date)" in error["expected"]
    typed_rows = pa.csv.read_csv(file).slice(0, 20)
    for name, values in {"nan": pa.array([np.nan] * 20), "null": pa.nulls(20, pa.float64())}.items():
        blank = written(tmp_path / f"{name}.parquet", typed_rows.set_column(0, "when", values))
        assert ask("predict", blank, "--name", "sales", "--artifacts", store)["rejects"] == 0


# What cannot be told is asked for


def write_column(path: Path, values: list[str], delimiter: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    lines = (f'"{value}"{delimiter}{place % 7}{delimiter}{place}\n' for place, value in enumerate(values))
    path.write_text(delimiter.join(["fee", "other", "y"]) + "\n" + "".join(lines))
    return path


WEEKS = [f"2024-01-{day:02}" for day in range(1, 29)] * 4
MIXED = [f"unknown {at}" for at in range(60)] + [f"{at % 28 + 1:02}.{at % 12 + 1:02}.2024" for at in range(900)]
BOTH_ORDERS = [f"{month}/{day}/2024" for month in range(1, 13) for day in range(1, 13)]
FEES = [f"{place % 9 + 1},{place:03}" for place in range(100)]
FAULTS: dict[str, tuple[list[str], str, str, str]] = {
    "words, and then dates": (MIXED, ",", "fee is 'unknown", "--category fee"),
    "dates, and then words": (MIXED[::-1], ",", "fee is 'unknown", "--category fee"),
    "two orders": (BOTH_ORDERS, ",", "which 31/12/2024 and 12/31/2024 both fit", "--category fee"),
    "one bad date": ([*WEEKS, "soon"], ",", "fee is 'soon' in line 114 of ", "--category fee"),
    "a time of day among dates": ([*WEEKS, "12:30"], ",", "fee is '12:30' in line 114 of ", "--category fee"),
    "dates among times of day": (
        ["2024-01-01"] * 20 + [f"{at % 24}:30" for at in range(100)], ",", "fee holds dates, and", "--category fee"
    ),
    "a sign of a hexadecimal number": (
        [*map(str, range(99)), "-0x10"], ",", "fee is '-0x10' in line 101 of ", "--category fee"
    ),
    "one bad number": ([*map(str, range(99)), "soon"], ",", "fee is 'soon' in line 101 of ", "--category fee"),
    "one bad day": (["31.12.2023"] * 60 + ["31.11.2023"], ",", "fee is '31.11.2023' in line 62 of ", "--category fee"),
    "a point or a comma": (FEES, ";", "fee could be read as numbers written like 1.234,5 or 1,234.5", "use --decimal"),
    "a comma among commas": (["0,5", *FEES], ",", "fee has numbers written like 1.234,5", "use --decimal ,"),
    "a percent without its sign": (
        [f"{place} %" for place in range(99)] + ["7"], ",", "fee is '7' in line 101", "correct the value"
    ),
    "decimal commas beside points": (
        ["1,5", "2,25", "1.234,5"] * 33 + ["1.5"], ";", "fee is '1.5' in line 101", "correct the value"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_told_is_named_with_the_options_that_settle_it(
    fault: str, tmp_path: Path, artifacts: Path
) -> None:
    values, delimiter, found, action = FAULTS[fault]
    file = write_column(tmp_path / "t.csv", values, delimiter)
    error = inspect(file, code=4)["error"]
    assert found in error["found"]
    assert action in error["action"]
    others: list[tuple[str, ...]] = [("--missing", values[-1])] if "line 114" in found or "line 101" in found else []
    others += [("--no-date-parts",)] if action == "--category fee" and "line 101" not in found else []
    for options in (("--category", "fee"), ("--ignore", "fee"), *others):
        inspect(file, *options)
    if action != "--category fee":  # the same is said of a target, which cannot be left out
        findings = inspect(file, "--target", "fee", code=4)["findings"]
        (action,) = [each["action"] for each in findings if each["severity"] == "error"]
        assert "--ignore" not in action


WHOLE: dict[str, float] = {"{} %": 0.99, "{}\u00a0€": 99.0, "$ {}": 99.0, "1'{:03}": 1099.0, "1\u202f{:03}": 1099.0}
LARGEST: list[tuple[list[str], str, list[str], float]] = [
    (FEES, ";", ["--decimal", ","], 9.098),
    (FEES, ";", ["--decimal", "."], 9098.0),
    *(
        ([form.format(place) for place in range(100)], delimiter, [], largest)
        for form, largest in WHOLE.items()
        for delimiter in ",;\t"
    ),
]


@pytest.mark.parametrize(("values", "delimiter", "options", "largest"), LARGEST)
def test_decimal_says_which_and_whole_numbers_are_the_same_whatever_it_is(
    values: list[str], delimiter: str, options: list[str], largest: float, tmp_path: Path
) -> None:
    shown = inspect(write_column(tmp_path / "t.csv", values, delimiter), *options)
    fee = column(shown, "fee")
    assert (fee["kind"], fee["maximum"]) == ("number", largest)
    if not options:
        assert [each["column"] for each in shown["findings"] if each["rule"] == "number-form"] == ["fee"]


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".jsonl", ".xlsx"])
def test_numbers_in_text_are_read_in_typed_files_too(suffix: str, tmp_path: Path) -> None:
    rows, file = {"fee": ["$1,250.50", "$7"] * 50, "y": [*range(100)]}, tmp_path / f"t{suffix}"
    write = write_workbook if suffix == ".xlsx" else written
    fee = column(inspect(write(file, rows)), "fee")
    assert (fee["kind"], fee["minimum"], fee["maximum"]) == ("number", 7, 1250.5)
    rows["fee"][98:] = ["", "soon"]
    place = "row 101" if suffix == ".xlsx" else "row 100"  # of a workbook as Excel shows it
    assert f"fee is 'soon' in {place} of " in inspect(write(file, rows), code=4)["error"]["found"]


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".jsonl", ".xlsx"])
def test_points_in_text_of_typed_files_are_asked_for_or_decided_as_in_csv(suffix: str, tmp_path: Path) -> None:
    rows, file = (
        {"fee": ["1.234", "2.500"] * 50, "typed": [1.234, 2.5] * 50, "y": [*range(100)]},
        tmp_path / f"t{suffix}",
    )
    write = write_workbook if suffix == ".xlsx" else written
    assert "fee could be read as" in inspect(write(file, rows), code=4)["error"]["found"]
    inspect(file, "--category", "fee")
    other = {"comma": ["1,5", "2.500,75"] * 50}, {"point": ["63.2", "5"] * 50}
    for decimal, columns, largest in ((",", other[0], 2500), (".", other[1], 2.5)):
        found = inspect(write(file, rows | columns))
        assert column(found, "fee")["maximum"] == largest
        assert column(found, "typed")["maximum"] == 2.5
        write(file, rows)
        assert column(inspect(file, "--decimal", decimal), "fee")["maximum"] == largest
    told = inspect(write(file, rows | other[1]), "--decimal", ",")
    assert {each for each in rules(told, "warning") if "points" in each} == {"decimal-points point"}


@pytest.mark.parametrize(("fee", "other"), [("{} %", "63.2"), ("$1,0{:02}", "0.125"), ("$ {}", "1.5e-7")])
def test_points_in_other_columns_say_that_the_numbers_of_a_file_have_decimal_points(
    fee: str, other: str, tmp_path: Path
) -> None:
    lines = "".join(f"{fee.format(place)};{other};{place}\n" for place in range(100))
    (tmp_path / "t.csv").write_text("fee;other;y\n" + lines)
    told = rules(inspect(tmp_path / "t.csv"), "note")["number-form fee"]
    assert "1,234.5" in told


def test_files_of_one_form_are_one_table_though_some_have_whole_numbers_alone(tmp_path: Path) -> None:
    write_column(tmp_path / "days" / "1.csv", ["0,5", "1,25"] * 50, ";")
    write_column(tmp_path / "days" / "2.csv", [f"{place}" for place in range(100)], ";")
    fee = column(inspect(tmp_path / "days"), "fee")
    assert (fee["kind"], fee["minimum"], fee["maximum"]) == ("number", 0, 99)


def test_in_a_file_of_decimal_commas_a_point_sets_thousands_apart_where_it_can(tmp_path: Path) -> None:
    lines = "".join(f"{place},5;{place % 9 + 1}.500;{place}.2575;{place}\n" for place in range(100))
    (tmp_path / "t.csv").write_text("a;b;c;y\n" + lines)
    found = inspect(tmp_path / "t.csv")
    assert {each["name"]: each["maximum"] for each in found["columns"]} == {"a": 99.5, "b": 9500, "c": 99.2575, "y": 99}
    assert {each for each in rules(found, "warning") if "points" in each} == {"decimal-points c"}
    assert "decimal-points c" not in rules(inspect(tmp_path / "t.csv", "--category", "c"), "warning")


DRAWN = pd.Series(dated_tables.draw_rows(400)["when"])
CLOCK = [f"{at % 24}:{at % 60:02}" for at in range(400)]
SHAPES: dict[str, tuple[Any, str, str]] = {
    "days": (pa.array(DRAWN.dt.date), ".parquet", "month weekday year"),
    "two years": (
        pa.array(DRAWN.where(DRAWN < "2021", pd.Timestamp("2020-05-05 05:00"))), ".parquet", "month weekday hour"
    ),
    "times": (pa.array(DRAWN.dt.time, pa.time64("us")), ".parquet", "hour"),
    **{f"times in text{suffix}": (CLOCK, suffix, "hour") for suffix in (".csv", ".jsonl", ".parquet")},
    "one day": ([datetime.date(2024, 1, 1)] * 400, ".parquet", ""),
    "spans": ([datetime.timedelta(hours=at) for at in range(400)], ".parquet", ""),
    "noon in Berlin": (pa.array(pd.date_range("2024-01-01 12:00", periods=400, tz="Europe/Berlin")), ".parquet",
        "month weekday"),
}  # fmt: skip


@pytest.mark.parametrize("case", SHAPES)
def test_parts_are_those_that_can_vary(case: str, tmp_path: Path) -> None:
    """No hour where all times of day are one, no year of fewer than three, of a time of day the hour alone."""
    values, suffix, parts = SHAPES[case]
    file = written(tmp_path / f"rows{suffix}", {"when": values, "x": np.arange(400) % 9, "y": np.arange(400) % 7})
    found = column(inspect(file), "when")
    expected = ("feature", "date", parts.split()) if parts else ("left out", found["kind"], [])
    assert (found["role"], found["kind"], found["levels"]) == expected
    if case == "days":
        assert column(inspect(file, "--no-date-parts"), "when")["role"] == "left out"


def test_a_zone_that_nobody_knows_is_named_and_so_is_a_date_before_the_year_1(tmp_path: Path) -> None:
    days = ["2024-01-01", "0000-01-01", "2024-02-02", "2024-03-03"] * 100
    file = written(tmp_path / "days.csv", {"when": days, "y": np.arange(400) % 7})
    assert "when is '0000-01-01' in line 3" in inspect(file, code=4)["error"]["found"]
    zoned = pa.array(np.arange(400) * 10**6, pa.timestamp("s", "Foo/Bar"))
    file = written(tmp_path / "rows.parquet", {"when": zoned, "y": np.arange(400) % 7})
    assert "Foo/Bar" in inspect(file, code=4)["error"]["found"]


def test_years_of_which_the_training_rows_have_few_are_left_out(tmp_path: Path) -> None:
    """The third year begins with the test rows, which come last."""
    days = np.arange("2022-04-01", "2024-04-01", dtype="datetime64[D]")
    file = written(tmp_path / "rows.parquet", {"when": days, "then": days, "y": np.sin(np.arange(len(days)))})
    assert column(inspect(file), "when")["levels"] == ["month", "weekday", "year"]
    assert column(inspect(file, "--time-column", "then"), "when")["levels"] == ["month", "weekday"]


@pytest.mark.usefixtures("prefect_api")
def test_a_time_column_also_gives_its_parts_where_features_names_it(artifacts: Path, tmp_path: Path) -> None:
    """A table of dates and values alone, later with the year to come."""
    days = pd.Series(pd.date_range("2019-01-01", "2024-12-31"))
    values = 10 * np.array(days.dt.month % 5) + days.dt.day_of_week + np.random.default_rng(0).normal(0, 0.1, len(days))
    frame = pd.DataFrame({"Date": days.dt.strftime("%d.%m.%Y"), "value": values.round(3)})
    file, by = tmp_path / "t.csv", ("--time-column", "Date", "--features", "Date")
    frame[days < "2024-07-01"].to_csv(file, index=False, sep=";")
    error = inspect(file, "--target", "value", "--time-column", "Date", code=4)["error"]
    assert error["action"] == "give more columns, or learn from months and weekdays with --features Date"
    retrain("linear-regression", "values", file, *by, target="value")
    frame.to_csv(file, index=False, sep=";")
    again = ask("retrain", "values", "--data", file, *by)
    assert (again["outcome"], again["version"]) == ("published", 2)
    manifest = load(artifacts / "models/values/2/manifest.json")
    assert [each["part"] for each in manifest["recipe"]["columns"]] == ["month", "weekday", "year"]
    assert manifest["dataset"]["split"]["rule"] == "time"
    assert measure("values", file, tmp_path / "out") == pytest.approx([0.1, 0.1], rel=0.1)
    assert gradmill.load("values").predict(frame[-50:]) == pytest.approx(frame["value"][-50:].to_numpy(), abs=0.5)
    assert inspect(file, "--name", "values")["split"]["rule"] == "time"


# What the calendar has not shown yet


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_api")
def test_the_calendar_is_no_drift_and_its_levels_are_never_unknown(artifacts: Path, tmp_path: Path) -> None:
    """Of a first quarter at noon; then comes the rest of the year at all hours, and 300 rows without a date."""
    rng, rows, folder = np.random.default_rng(0), 2400, tmp_path / "rows"
    days = np.sort(rng.integers(0, 365, rows)).astype("m8[D]") + np.datetime64("2023-01-01")
    hours = np.where(np.arange(rows) % 2, 12, rng.integers(0, 24, rows)).astype("m8[h]")
    area, noise = rng.normal(size=(2, rows))
    table = pa.table({"when": (days + hours).astype("M8[s]"), "area": area, "sales": area + 0.1 * noise})
    written(folder / "a.parquet", table.slice(0, 1200))
    make(folder)
    written(folder / "b.parquet", table.slice(1200))
    ask("retrain", "sales")
    report = load(artifacts / "models/sales/2/data-report.json")
    assert [each["rule"] for each in report["findings"] if each["severity"] != "note"] == []
    model = gradmill.load("sales", version=1)
    unseen = model.predict([{"when": f"2024-{month:02}-15 12:00", "area": 0} for month in (10, 11)])
    assert np.isfinite(unseen).all()
    written(folder / "c.parquet", table.slice(0, 300).set_column(0, "when", pa.nulls(300, pa.timestamp("us"))))
    error = ask("retrain", "sales", code=4)["error"]
    assert "when is missing in all of 300 new rows of c.parquet" in error["found"]
