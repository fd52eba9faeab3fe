"""Dates as features: their parts are the same from any file and from Python, and a model of them is the field's own."""

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import numpy as np
import onnxruntime
import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import gradmill
from command_line import typed
from dated_tables import draw_rows
from documents import ask, inspect, measure, retrain
from gradmill.rows import NO_NUMBER, InputColumn, Part
from prefect_api import use_server
from table_files import written
from tasks.data.io.date_parts import read_dates

if TYPE_CHECKING:
    from prefect.settings import Settings

PARTS: dict[Part, Callable[[datetime.datetime], int]] = {
    "month": lambda moment: moment.month - 1,
    "weekday": lambda moment: moment.weekday(),
    "hour": lambda moment: moment.hour,
    "year": lambda moment: moment.year,
}
FORMATS = {"": "%Y-%m-%d", "31.12.2024": "%d.%m.%Y", "31/12/2024": "%d/%m/%Y", "12/31/2024": "%m/%d/%Y"}
ZONES = ("", "UTC", "Europe/Berlin", "+05:30")


def read_alike(value: Any, array: pa.Array, form: str = "", zone: str = "") -> list[float]:
    """All parts of one value, which are the same alone and in a column."""
    found = [float(read_dates(array, form, zone).take(part)[0]) for part in PARTS]
    columns = (
        InputColumn("when.part", "category", (), source="when", part=part, form=form, zone=zone) for part in PARTS
    )
    np.testing.assert_array_equal(found, [column.encode([value])[0] for column in columns])
    return found


@given(st.datetimes(datetime.datetime(1000, 1, 1)), st.sampled_from([*FORMATS]), st.booleans())
def test_text_gives_the_parts_of_its_date_alone_and_in_a_column(
    moment: datetime.datetime, form: str, has_time: bool
) -> None:
    moment = moment.replace(microsecond=0) if has_time else datetime.datetime.combine(moment.date(), datetime.time())
    text = moment.strftime(FORMATS[form]).rjust(10, "0") + moment.strftime(" %H:%M:%S") * has_time
    text = text.replace(f"{moment.year}".lstrip("0"), f"{moment.year:04}")
    assert read_alike(text, pa.array([text]), form) == [part(moment) for part in PARTS.values()]


@given(st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2100, 1, 1)), st.sampled_from(ZONES))
def test_a_zone_is_as_it_is_written_or_the_one_that_is_fixed(moment: datetime.datetime, zone: str) -> None:
    moment = moment.replace(microsecond=0, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    there = {"": moment.tzinfo, "UTC": datetime.UTC, "+05:30": datetime.timezone(datetime.timedelta(hours=5.5))}
    shown = moment.astimezone(there.get(zone) or ZoneInfo(zone))
    for value, array in (
        (moment, pa.array([moment], pa.timestamp("us", "+02:00"))),
        (moment.isoformat(), pa.array([moment.isoformat()])),
    ):
        assert read_alike(value, array, zone=zone) == [part(shown) for part in PARTS.values()]


NO_DATE = [NO_NUMBER] * 4
TEXTS: list[tuple[str | None, str, list[float]]] = [  # and the zone in which they are read
    *(
        (text, "", NO_DATE)
        for text in (
            *("2024-02-30", "2024-13-01", "2024-01-01 25:00", "x", "31.12.2024", "2024-01-01 10", "0000-01-01"),
            "2024-01-01T10:00:00+99:00",
        )
    ),
    ("9999-12-31T23:59:59-05:00", "UTC", NO_DATE),
    ("0001-01-01T00:00:00+05:00", "UTC", NO_DATE),
    (" ", "", [np.nan] * 4),
]
VALUES: list[tuple[Any, pa.Array, str, list[float]]] = [
    *((text, pa.array([text]), zone, expected) for text, zone, expected in TEXTS),
    (5, pa.array([5]), "", NO_DATE),
    (datetime.timedelta(hours=5), pa.array([datetime.timedelta(hours=5)]), "", NO_DATE),
    ("0001-01-01", pa.array([datetime.date(1, 1, 1)]), "", [0, 0, 0, 1]),
    ("9999-12-31", pa.array([datetime.date(9999, 12, 31)]), "", [11, 4, 0, 9999]),
    ("13:45:00", pa.array([datetime.time(13, 45)]), "", [0, 3, 13, 1970]),
    (np.datetime64("2024-02-29"), pa.array([datetime.date(2024, 2, 29)]), "", [1, 3, 0, 2024]),
    (pd.NaT, pa.array([None], pa.timestamp("us")), "", [np.nan] * 4),
    (None, pa.nulls(1), "", [np.nan] * 4),
]


@pytest.mark.parametrize(("value", "array", "zone", "expected"), VALUES)
def test_what_no_calendar_has_is_no_date_and_the_first_and_the_last_day_are(
    value: Any, array: pa.Array, zone: str, expected: list[float]
) -> None:
    np.testing.assert_array_equal(read_alike(value, array, zone=zone), expected)


# A table with dates, as files have them


def write_csv(path: Path, rows: dict[str, Any], form: str) -> Path:
    """The rows with dates as text."""
    frame = pd.DataFrame(rows)
    frame.assign(when=frame.when.dt.strftime(f"{form} %H:%M")).to_csv(path, index=False)
    return path


def write_workbook(path: Path, rows: dict[str, Any]) -> Path:
    """The rows as cells."""
    pd.DataFrame(rows).to_excel(path, index=False)
    return path


def write_zoned(path: Path, rows: dict[str, Any]) -> Path:
    """The rows with moments, whose clocks in Berlin show the same; the hours that these skip are left as they are."""
    moments = pd.Series(rows["when"]).dt.tz_localize("Europe/Berlin", ambiguous=True, nonexistent="shift_forward")
    return written(path, pa.table(dict(rows) | {"when": pa.array(moments)}))


Write = Callable[[Path, dict[str, Any]], Path]
FILES: dict[str, Write] = {
    **{
        f"{name}.csv": lambda path, rows, form=form: write_csv(path, rows, form)  # type: ignore[misc]
        for name, form in {"iso": "%Y-%m-%d", "german": "%d.%m.%Y", "us": "%m/%d/%Y"}.items()
    },
    "lines.jsonl": written,
    "book.xlsx": write_workbook,
}


def make(file: Path, *options: str | Path) -> Any:
    """Version 1 of a file."""
    return retrain("linear-regression", "sales", file, *options, target="sales")


@pytest.fixture(scope="module")
def store(server_settings: "Settings", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version of the table in Parquet."""
    folder = tmp_path_factory.mktemp("dates")
    with use_server(server_settings):
        make(written(folder / "rows.parquet", draw_rows()), "--artifacts", folder / "artifacts")
    return folder / "artifacts"


def is_unchanged(*options: str | Path) -> bool:
    unchanged: bool = ask("retrain", "sales", *options)["outcome"] == "unchanged"
    return unchanged


def build_reference(rows: dict[str, Any]) -> Any:
    """scikit-learn's regression on pandas' parts, trained on all rows."""
    names = ["month", "weekday", "hour"]
    encode = make_column_transformer((OneHotEncoder(), names), remainder="passthrough")
    return make_pipeline(encode, LinearRegression()).fit(take_parts(rows), rows["sales"])


def take_parts(rows: dict[str, Any]) -> pd.DataFrame:
    when = pd.Series(rows["when"]).dt
    parts = {"month": when.month, "weekday": when.day_of_week, "hour": when.hour, "year": when.year}
    return pd.DataFrame(parts | {"area": rows["area"]})


def test_a_model_of_dates_is_that_of_scikit_learn_on_the_parts_of_pandas(store: Path) -> None:
    manifest = json.loads((store / "models/sales/1/manifest.json").read_text())
    rows = draw_rows()
    expected, model = build_reference(rows).predict(take_parts(rows)), gradmill.load("sales", store)
    assert np.abs(model.predict(pd.DataFrame(rows)) - expected).mean() < 0.3  # which learned from the test rows, too
    assert manifest["metrics"]["test_loss"] == pytest.approx(0.5, rel=0.2)  # half the variance of the noise
    assert [*model.columns] == ["when.month", "when.weekday", "when.hour", "when.year", "area"]
    columns = json.loads((store / "models/sales/1/metadata.json").read_text())["parameters"]["columns"]
    assert [each.get("part") for each in columns] == ["month", "weekday", "hour", "year", None]
    assert [each.get("from") for each in columns] == ["when"] * 4 + [None]
    assert [len(each["levels"]) for each in columns] == [12, 7, 24, 0, 0]


def test_a_year_beyond_the_training_rows_counts_as_the_nearest_of_theirs(store: Path) -> None:
    """In the file itself, from Python, and in what each column adds."""
    model = gradmill.load("sales", store)
    days = ["0007-06-03", "2019-06-02", "2023-06-04", "9999-06-06"]  # Sundays in June
    rows = [{"when": day, "area": 5} for day in days]
    first, low, high, last = model.predict(rows)
    assert (first, high) == (low, last)
    assert high - low > 5
    np.testing.assert_allclose(model.explain(rows).sum(axis=1), [first, low, high, last], rtol=1e-6)
    session = onnxruntime.InferenceSession(store / "models/sales/1/model.onnx")
    features = np.array([[5, 6, 0, year, 5] for year in (7, 2019, 2023, 9999, np.nan)], np.float32)
    *answers, of_missing = session.run(None, {"features": features})[0].tolist()
    assert answers == [first, low, high, last]
    assert low < of_missing < high, "it is the mean"


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
@pytest.mark.usefixtures("prefect_api")
def test_dates_of_any_file_are_the_same_data_and_give_the_same_answers(name: str, store: Path, tmp_path: Path) -> None:
    """A version of the file alone, which then knows the typed rows; and the same figures by both."""
    file, at = FILES[name](tmp_path / name, draw_rows()), ("--artifacts", tmp_path / "artifacts")
    expected = json.loads((store / "models/sales/1/manifest.json").read_text())["metrics"]
    assert make(file, *at)["metrics"]["test_loss"] == pytest.approx(expected["test_loss"], rel=1e-6)
    rows = written(tmp_path / "typed.parquet", draw_rows())
    assert is_unchanged("--data", rows, *at)
    figures = [figure for each in (file, rows) for figure in measure("sales", each, tmp_path / each.suffix, *at)]
    assert figures == pytest.approx([figures[0]] * 4, rel=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_api")
def test_moments_are_read_in_the_zone_that_version_1_fixed(artifacts: Path, tmp_path: Path) -> None:
    """The clock in Berlin decides, also for the same moments in UTC, in Parquet and in text."""
    make(write_zoned(tmp_path / "berlin.parquet", draw_rows()))
    model = gradmill.load("sales")
    assert {each.zone for each in model.columns.values() if each.part} == {"Europe/Berlin"}
    moments = pd.read_parquet(tmp_path / "berlin.parquet").assign(when=lambda each: each.when.dt.tz_convert("UTC"))
    for name in ("utc.parquet", "utc.csv"):
        assert is_unchanged("--data", written(tmp_path / name, pa.Table.from_pandas(moments, preserve_index=False)))
    local, *others = (
        model.predict({"when": when, "area": 5})
        for when in (
            *("2023-07-01 23:30", "2023-07-01T21:30:00Z"),
            datetime.datetime(2023, 7, 1, 21, 30, tzinfo=datetime.UTC),
            "2023-07-01 21:30",
        )
    )
    assert [local == each for each in others] == [True, True, False]


def test_rows_from_python_have_dates_of_every_kind(store: Path) -> None:
    model, moment = gradmill.load("sales", store), datetime.datetime(2022, 3, 4, 17, 5)
    frames: tuple[Any, ...] = (
        *({"when": when, "area": 5} for when in (moment, "2022-03-04T17:05:00", np.datetime64(moment))),
        pd.DataFrame({"when": [pd.Timestamp(moment)], "area": [5]}),
        pl.DataFrame({"when": [moment], "area": [5]}),
        pa.table({"when": pa.array([moment], pa.timestamp("us")), "area": [5]}),
    )
    assert len({model.predict(rows).item() for rows in frames}) == 1
    for fault, found in {"x": "'x', not a date", 5: "5, not a date"}.items():
        with pytest.raises(ValueError, match=f"when is {found}"):
            model.predict({"when": fault, "area": 5})
    with pytest.raises(ValueError, match="column 'when' is missing"):
        model.predict({"when.month": 3, "area": 5})


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_api")
def test_prediction_rejects_what_is_no_date_by_its_name(store: Path, tmp_path: Path) -> None:
    (file := tmp_path / "rows.csv").write_text("when,area\n" + "2022-03-04,5\n" * 200 + "yesterday,5\n")
    ask("predict", file, "--name", "sales", "--output", tmp_path / "out", "--artifacts", store)
    (reject,) = pa.parquet.read_table(tmp_path / "out" / "_rejects.parquet").to_pylist()
    assert (reject["source_row"], reject["reason"]) == (200, "when is 'yesterday', not a date")
    (file := tmp_path / "others.csv").write_text("date,area\n2022-03-04,5\n")
    error = ask("predict", file, "--name", "sales", "--artifacts", store, code=4)["error"]
    assert "when missing" in error["found"]
    assert "when (date)" in error["expected"]


# What cannot be told is asked for

WEEKS = [f"2024-01-{day:02}" for day in range(1, 29)] * 4
MIXED = [f"unknown {at}" for at in range(60)] + [f"{at % 28 + 1:02}.{at % 12 + 1:02}.2024" for at in range(900)]
FAULTS = {
    "words, and then dates": (MIXED, "x is 'unknown"),
    "dates, and then words": (MIXED[::-1], "x is 'unknown"),
    "two orders": (
        [f"{month}/{day}/2024" for month in range(1, 13) for day in range(1, 13)],
        "which 31/12/2024 and 12/31/2024 both fit",
    ),
    "one bad value": ([*WEEKS, "soon"], "x is 'soon' in row 112 of "),
    "one bad day": (["31.12.2023"] * 60 + ["31.11.2023"], "x is '31.11.2023' in row 60 of "),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_dates_that_cannot_be_told_are_named_with_the_options_that_settle_it(
    fault: str, tmp_path: Path, artifacts: Path
) -> None:
    values, found = FAULTS[fault]
    lines = [f"{value},{at % 7},{at}" for at, value in enumerate(values)]
    (file := tmp_path / "rows.csv").write_text("x,z,y\n" + "\n".join(lines) + "\n")
    error = inspect(file, code=4)["error"]
    assert found in error["found"]
    assert "--category x" in error["action"]
    for options in (("--category", "x"), ("--ignore", "x"), ("--no-date-parts",)):
        inspect(file, *options)


def look(path: Path, *options: str) -> dict[str, Any]:
    """What ``inspect`` says of each column."""
    return {each["name"]: each for each in inspect(path, "--target", "sales", *options)["columns"]}


DRAWN = pd.Series(draw_rows(400)["when"])
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
}  # fmt: skip


@pytest.mark.parametrize("case", SHAPES)
def test_parts_are_those_that_can_vary(case: str, tmp_path: Path) -> None:
    """No hour where all times of day are one, no year of fewer than three, of a time of day the hour alone."""
    values, suffix, parts = SHAPES[case]
    file = written(tmp_path / f"rows{suffix}", {**draw_rows(400), "when": values})
    found = look(file)["when"]
    expected = ("feature", "date", parts.split()) if parts else ("left out", found["kind"], [])
    assert (found["role"], found["kind"], found["levels"]) == expected
    if case == "days":
        assert look(file, "--no-date-parts")["when"]["role"] == "left out"
        assert look(file, "--ignore", "when").keys() == {"area", "sales"}


def test_years_of_which_the_training_rows_have_few_are_left_out(tmp_path: Path, artifacts: Path) -> None:
    """The third year begins with the test rows, which come last."""
    days = np.arange("2022-04-01", "2024-04-01", dtype="datetime64[D]")
    rows = {"when": days, "then": days, "area": np.arange(len(days)) % 9.0, "sales": np.sin(np.arange(len(days)))}
    file = written(tmp_path / "rows.parquet", rows)
    assert look(file)["when"]["levels"] == ["month", "weekday", "year"]
    assert look(file, "--time-column", "then")["when"]["levels"] == ["month", "weekday"]


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_api")
def test_a_name_without_parts_stays_so_and_hears_of_them_unless_it_wanted_none(artifacts: Path, tmp_path: Path) -> None:
    file = written(tmp_path / "rows.parquet", draw_rows(400))
    make(file, "--no-date-parts")
    manifest = json.loads((artifacts / "models/sales/1/manifest.json").read_text())
    assert manifest["recipe"]["columns"][0].keys().isdisjoint({"source", "part", "zone", "limits"})
    again = typed("retrain", "sales", "--json")
    assert json.loads(again.stdout)["outcome"] == "unchanged"
    assert "when held dates" not in again.stderr
    told = typed("inspect", file, "--name", "sales")
    assert "when held dates and stayed left out, as in version 1" in told.stdout


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
    report = json.loads((artifacts / "models/sales/2/data-report.json").read_text())
    assert [each["rule"] for each in report["findings"] if each["severity"] != "note"] == []
    model = gradmill.load("sales", version=1)
    unseen = model.predict([{"when": f"2024-{month:02}-15 12:00", "area": 0} for month in (10, 11)])
    assert np.isfinite(unseen).all()
    empty = {"when": pa.nulls(300, pa.timestamp("us")), "area": noise[:300], "sales": area[:300]}
    written(folder / "c.parquet", empty)
    error = ask("retrain", "sales", code=4)["error"]
    assert "when is missing in all of 300 new rows of c.parquet" in error["found"]


# Files side by side, and values at the edges


def write_offsets(path: Path, rows: dict[str, Any]) -> Path:
    """The rows with the offset of a zone behind each time, which is to be read as it is written."""
    when = [f"{text}{'+02:00' if at % 2 else '-05:00'}" for at, text in enumerate(rows["when"].astype(str))]
    return written(path, rows | {"when": when})


SIDE_BY_SIDE: dict[str, dict[str, Write]] = {
    "CSV and Parquet": {"a.csv": FILES["iso.csv"], "b.parquet": written},
    "JSON lines and CSV": {"a.jsonl": written, "b.csv": FILES["iso.csv"]},
    "offsets in JSON lines and Parquet": {"a.jsonl": write_offsets, "b.parquet": written},
    "moments and clocks": {"a.parquet": write_zoned, "b.parquet": written},
}


def split_rows(rows: dict[str, Any]) -> list[dict[str, Any]]:
    half = len(rows["area"]) // 2
    return [{name: values[part] for name, values in rows.items()} for part in (slice(half), slice(half, None))]


@pytest.mark.slow
@pytest.mark.parametrize("name", SIDE_BY_SIDE)
@pytest.mark.usefixtures("prefect_api")
def test_files_that_have_dates_differently_are_one_table(name: str, store: Path, tmp_path: Path) -> None:
    """To a version that another file made, and for a version of their own, which then knows them again."""
    folder, skips_hours = tmp_path / "rows", name == "moments and clocks"
    folder.mkdir()
    for (filename, write), part in zip(SIDE_BY_SIDE[name].items(), split_rows(draw_rows()), strict=True):
        write(folder / filename, part)
    rmse, other = (
        ask("evaluate", "sales", each, "--artifacts", store)["metrics"]["rmse"]
        for each in (written(tmp_path / "one.parquet", draw_rows()), folder)
    )
    assert other == pytest.approx(rmse, rel=0.02 if skips_hours else 1e-6)
    at = ("--artifacts", tmp_path / "artifacts")
    found = make(folder, *at)["metrics"]["rmse"]
    expected = json.loads((store / "models/sales/1/manifest.json").read_text())["metrics"]["rmse"]
    assert skips_hours or found == pytest.approx(expected, rel=1e-6)
    assert is_unchanged("--force", "--no-predict", *at)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_api")
def test_a_file_without_dates_takes_none_from_the_file_beside_it(store: Path, tmp_path: Path) -> None:
    first, second = split_rows(draw_rows())
    for folder, kind in (("rows", pa.string()), ("typed", pa.timestamp("s"))):
        blank = pa.table(first).set_column(0, "when", pa.nulls(len(first["area"]), kind))
        written(tmp_path / folder / ("a.csv" if folder == "rows" else "a.parquet"), blank)
        written(tmp_path / folder / "b.parquet", second)
    figures = [
        ask("evaluate", "sales", tmp_path / folder, "--artifacts", store)["metrics"]["rmse"]
        for folder in ("rows", "typed")
    ]
    assert figures[0] == pytest.approx(figures[1], rel=1e-6)
    for name, values in {"nan": pa.array([np.nan] * 20), "null": pa.nulls(20, pa.float64())}.items():
        file = written(tmp_path / f"{name}.parquet", {"when": values, "area": [5.0] * 20})
        assert ask("predict", file, "--name", "sales", "--unknown", "average", "--artifacts", store)["rejects"] == 0


def test_a_zone_that_nobody_knows_is_named(tmp_path: Path) -> None:
    rows = draw_rows(300)
    moments = pa.array(rows["when"].astype(np.int64), pa.timestamp("s", "Foo/Bar"))
    file = written(tmp_path / "rows.parquet", {**rows, "when": moments})
    assert "Foo/Bar" in inspect(file, "--target", "sales", code=4)["error"]["found"]


def test_equal_moments_of_two_zones_are_each_as_they_are_written(store: Path) -> None:
    model, zones = gradmill.load("sales", store), (datetime.UTC, datetime.timezone(datetime.timedelta(hours=5)))
    rows = [
        {"when": datetime.datetime(2022, 3, 4, 12, tzinfo=datetime.UTC).astimezone(zone), "area": 5} for zone in zones
    ]
    together = model.predict(rows).tolist()
    assert together == [model.predict(row)[0] for row in rows]
    assert together[0] != together[1]


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_api")
def test_a_date_that_stands_for_a_missing_one_does_so_in_every_format_and_from_python(
    artifacts: Path, tmp_path: Path
) -> None:
    rows = draw_rows(600)
    rows["when"][::5] = np.datetime64("1900-01-01")
    make(written(tmp_path / "rows.parquet", rows), "--missing", "1900-01-01")
    for name in ("iso.csv", "lines.jsonl"):
        assert is_unchanged("--data", FILES[name](tmp_path / name, rows))
    model = gradmill.load("sales")
    missing = model.predict([{"when": each, "area": 5} for each in (None, "1900-01-01", datetime.date(1900, 1, 1))])
    assert len(set(missing.tolist())) == 1
    spans = [datetime.timedelta(hours=at) for at in range(600)]
    file = written(tmp_path / "spans.parquet", {**rows, "when": pa.array(spans)})
    assert "a date" in ask("retrain", "sales", "--data", file, code=4)["error"]["expected"]
