"""Values as people write them: what a careful person means is read alike everywhere, or a finding names an option."""

import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest

import documents
from documents import inspect
from gradmill.rows import find_columns
from tasks.data.io.batches import InputFile, ReadSpec, table_batches
from tasks.data.io.discovery import find_table
from tasks.data.io.inputs import encode, select_columns
from written_tables import examined, recipe, rows, rules

NUM_ROWS = 90


class Case(NamedTuple):
    """The texts of a column, repeated, and the number that each means."""

    texts: Sequence[str]
    numbers: Sequence[float]


def case(line: str) -> Case:
    """A case written as ``1,5 | 2 = 1.5 | 2``."""
    texts, numbers = line.split(" = ")
    return Case(texts.split(" | "), [float(number) for number in numbers.split(" | ")])


SEPARATORS = {  # thousands and decimals
    "English": (",", "."),
    "German": (".", ","),
    "Swiss": ("'", "."),
    "Swiss of typographers": ("\u2019", "."),
    "French": (" ", ","),
    "with no-break spaces": ("\u00a0", ","),
    "with thin spaces": ("\u2009", ","),
    "with narrow spaces": ("\u202f", "."),
}
AFFIXES = ("{}", "${}", "{} €", "EUR {}", "{} CHF", "Rs. {}", "R${}", "{} zł", "{}%", "{} %")
NEGATIVES = ("-{}", "\u2212{}", "- {}", "{}-", "({})")


def write(number: float, separators: tuple[str, str]) -> str:
    return f"{number:,.2f}".translate({ord(","): separators[0], ord("."): separators[1]})


def list_written(separators: tuple[str, str]) -> Iterable[Case]:
    """Three numbers, one of them negative, in each affix with each way to write a sign."""
    for affix, negative in itertools.product(AFFIXES, NEGATIVES):
        texts = [affix.format(write(number, separators)) for number in (1234.5, 0.25)]
        divisor = 100 if "%" in affix else 1
        yield Case(
            [*texts, negative.format(affix.format(write(1_234_567.89, separators)))],
            [1234.5 / divisor, 0.25 / divisor, -1_234_567.89 / divisor],
        )


# Texts of a column of dates, and what each means.
DATES = """
2014-7-1 | 2015-10-12 = 2014-07-01 | 2015-10-12
2024-02-29 23:30 | 2023-12-31 01:05:59 = 2024-02-29T23:30 | 2023-12-31T01:05:59
2024-02-29 23 | 2023-12-31T01 | 2024-01-05 7 = 2024-02-29T23 | 2023-12-31T01 | 2024-01-05T07
2024-02-29 23 | 2023-12-31 01 = 2024-02-29T23 | 2023-12-31T01
2024-02-29T23:30:00.123Z | 2023-12-31T01:05:00+00:00 = 2024-02-29T23:30 | 2023-12-31T01:05
2024-02-29 23:30:00,5 | 2023-12-31 01:05:00,5 = 2024-02-29T23:30 | 2023-12-31T01:05
2024-02-29 23:30 UTC | 2023-12-31 01:05 GMT = 2024-02-29T23:30 | 2023-12-31T01:05
2024-02-29 23:30+0200 | 2023-12-31 01:05 +02:00 = 2024-02-29T23:30 | 2023-12-31T01:05
2024-02-29 5:30 PM | 2023-12-31 12:05 am = 2024-02-29T17:30 | 2023-12-31T00:05
2024-02-29 12:30 p.m. | 2023-12-31 11:05 A.M. = 2024-02-29T12:30 | 2023-12-31T11:05
2024-02-29 | 2023-12-31 | NA = 2024-02-29 | 2023-12-31 | missing
31.12.2024 | 1.2.2023 = 2024-12-31 | 2023-02-01
27. 02. 2024 | 3. 11. 2023 = 2024-02-27 | 2023-11-03
31.12.2024 17:30 | 1.2.2023 8:05 = 2024-12-31T17:30 | 2023-02-01T08:05
31/12/2024 | 1/2/2023 = 2024-12-31 | 2023-02-01
12/31/2024 | 1/2/2023 = 2024-12-31 | 2023-01-02
12/31/2024, 5:30 PM | 1/2/2023, 8:05 AM = 2024-12-31T17:30 | 2023-01-02T08:05
31-12-2024 | 1-2-2023 = 2024-12-31 | 2023-02-01
12-31-2024 | 1-2-2023 = 2024-12-31 | 2023-01-02
2024/12/31 | 2023/2/1 = 2024-12-31 | 2023-02-01
2024.12.31 | 2023.2.1 = 2024-12-31 | 2023-02-01
2024. 12. 31. | 2023. 2. 1. = 2024-12-31 | 2023-02-01
2024年2月27日 | 2023年12月1日 = 2024-02-27 | 2023-12-01
20241231 | 20230201 = 2024-12-31 | 2023-02-01
20241231.0 | 20230201.0 | NA = 2024-12-31 | 2023-02-01 | missing
31 December 2024 | 1 February 2023 = 2024-12-31 | 2023-02-01
31. Dezember 2024 | 1. März 2023 = 2024-12-31 | 2023-03-01
31-Dec-2024 | 01-MAY-2023 = 2024-12-31 | 2023-05-01
31 Okt 2024 | 1 Mai 2023 = 2024-10-31 | 2023-05-01
31OCT2024 | 01MAY2023 = 2024-10-31 | 2023-05-01
31/Oct/2024 | 01/Sept/2023 = 2024-10-31 | 2023-09-01
Tue, 31 Dec 2024 23:30:00 GMT | Wed, 01 Feb 2023 08:00:00 GMT = 2024-12-31T23:30 | 2023-02-01T08:00
Dienstag, 31. Dezember 2024 | Mittwoch, 1. Februar 2023 = 2024-12-31 | 2023-02-01
December 31, 2024 | Feb. 1, 2023 = 2024-12-31 | 2023-02-01
Dec 31st, 2024 | March 3rd, 2023 = 2024-12-31 | 2023-03-03
Tuesday, December 31, 2024 5:30 PM | Wednesday, February 1, 2023 8:05 AM = 2024-12-31T17:30 | 2023-02-01T08:05
31-Dec-24 | 1-Feb-99 = 2024-12-31 | 1999-02-01
31.12.68 | 1.2.69 = 2068-12-31 | 1969-02-01
31/12/24 | 1/2/99 = 2024-12-31 | 1999-02-01
12/31/24 | 1/2/99 = 2024-12-31 | 1999-01-02
99/12/31 | 98/2/28 = 1999-12-31 | 1998-02-28
31-12-99 | 28-2-98 = 1999-12-31 | 1998-02-28
12-31-99 | 2-28-98 = 1999-12-31 | 1998-02-28
99-12-31 | 98-2-28 = 1999-12-31 | 1998-02-28
1749-01 | 1750-12 = 1749-01-01 | 1750-12-01
2024/1 | 2023/12 = 2024-01-01 | 2023-12-01
01.2019 | 12.2020 | 10.2021 = 2019-01-01 | 2020-12-01 | 2021-10-01
1.2019 | 12.2020 | 3.2021 = 2019-01-01 | 2020-12-01 | 2021-03-01
01/2019 | 12/2020 = 2019-01-01 | 2020-12-01
Jan 2019 | Dec 2020 = 2019-01-01 | 2020-12-01
Januar 2019 | Dezember 2020 = 2019-01-01 | 2020-12-01
Mrz-2019 | Sept. 2020 = 2019-03-01 | 2020-09-01
2024年2月 | 2023年12月 = 2024-02-01 | 2023-12-01
12:30 | 7:05:10 = T12:30 | T07:05:10
12:30 PM | 7:05 pm = T12:30 | T19:05
""".strip()

# What --missing names, and texts of a column, the first of which it means.
MISSING = """
-999 = -999,00 | 1,5
-999 = -999,0 | 1.234,5
-999 = -999.00 | 1.5
-999 = $-999.00 | $1,234.5
-999 = -$999 | $5.5
-999 = (999) | 5.5
-999 = -999,00 € | 5,5 €
-999 = -999 % | 12.5 %
-999,0 = -999,00 | 1,5
1500 = 1,500 | 12.5
1500 = 1.500 | 12,5
1500 = 1'500 | 12.5
1500 = 1 500 Kč | 12,5 Kč
1.500 = 1.500,00 EUR | 12,5 EUR
1500.0 = 1,500 | 7
1900-01-01 = 1900-1-1 | 2024-12-31 | 2023-2-1 | 2022-3-1
01.01.1900 = 1.1.1900 | 31.12.2024 | 1.2.2023 | 1.3.2022
""".strip()

# A file each: the delimiter, and columns.
FILES: dict[str, tuple[str, list[Case]]] = {
    **{name: ("," if point == "." else ";", [*list_written((thousands, point))])
       for name, (thousands, point) in SEPARATORS.items()},
    "commas divide": (",", [*map(case, (
        "12,34,567.5 | 1,00,000 | 7 = 1234567.5 | 100000 | 7",
        "₹12,34,567 | ₹5 = 1234567 | 5",
        "213.069 | 6.452 | 791 = 213.069 | 6.452 | 791",
        "1,234 | 999 = 1234 | 999",
        ".5 | +.25 | 5. = 0.5 | 0.25 | 5",
        "1e3 | 1E-2 | +5 = 1000 | 0.01 | 5",
        "1,234.5e2 | 7 = 123450 | 7",
        " 5 | 7  = 5 | 7",
        "(5) | 7 = -5 | 7",
        "$(5) | $7 = -5 | 7",
        "5- | 7 = -5 | 7",
        "kr 5 | kr 7 = 5 | 7",
        "5 Kč | 1 000 Kč = 5 | 1000",
        "¥1,234 | ¥5 = 1234 | 5",
        "US$5 | US$1,000 = 5 | 1000",
        "5 Ft | 7 Ft = 5 | 7",
        "INR 5.25 | INR 1,00,000 = 5.25 | 100000",
    ))]),
    "semicolons divide": (";", [*map(case, (
        "1,5 | 7 = 1.5 | 7",
        "1.234 | 7 = 1234 | 7",
        "213.069 | 6.452 | 791 = 213069 | 6452 | 791",
        "1.234.567 | 5 = 1234567 | 5",
        "1,23E+05 | 7,0E-01 = 123000 | 0.7",
        ",5 | -,25 = 0.5 | -0.25",
        "1234,5 | 1.234,5 = 1234.5 | 1234.5",
        "1.234,5- | 7 = -1234.5 | 7",
        "5,00 EUR | 1.000 EUR = 5 | 1000",
        "12,5% | 1% = 0.125 | 0.01",
    ))]),
    "decimals divided by semicolons": (";", [*map(case, (
        "63.2 | 5 = 63.2 | 5",
        "1.234 | 5 = 1.234 | 5",
        "0.125 | 5 = 0.125 | 5",
    ))]),
    "decimals of at most three digits": ("\t", [*map(case, (
        "1.823 | 1.75 | 1.567 = 1.823 | 1.75 | 1.567",
        "63.25 | 71.125 | 80 = 63.25 | 71.125 | 80",
        "5.125 | 7.5 | nan = 5.125 | 7.5 | nan",
        "5 | 7 = 5 | 7",
    ))]),
    "a point at the end": ("|", [*map(case, (
        "1.823 | 1.567 = 1.823 | 1.567",
        "5. | 7 = 5 | 7",
    ))]),
    "whole numbers divided by tabs": ("\t", [*map(case, (
        "nan | 5 = nan | 5",
        "0x2 | 10 = 2 | 10",
        "1'234 | 5 = 1234 | 5",
        "$ 1'234 | $ 5 = 1234 | 5",
        "5 | 7 = 5 | 7",
    ))]),
}  # fmt: skip


def write_file(folder: Path, delimiter: str, cases: Sequence[Sequence[str]]) -> Path:
    columns = [[f'"{text}"' for text in np.resize(texts, NUM_ROWS)] for texts in cases]
    header = [*(f"c{at}" for at in range(len(cases))), "y"]
    lines = (delimiter.join(line) for line in zip(*columns, map(str, np.arange(NUM_ROWS) * 7 % 13 + 1), strict=True))
    file = folder / "t.csv"
    file.write_text("\n".join([delimiter.join(header), *lines, ""]), encoding="utf-8")
    return file


def read_everywhere(
    file: Path, texts: Mapping[str, Sequence[str]], *missing: str
) -> Iterator[tuple[str, list[float], list[Any]]]:
    """What training, prediction and the package read of each feature, and its texts, row by row."""
    found = examined(file, missing=missing)
    schema, features = recipe(found), rows(found).features
    spec = ReadSpec(schema.recipe)
    batches = (batch for batch in table_batches(find_table(str(file)).files[0], select_columns(spec)) if len(batch))
    file_read = InputFile("t", "table", "t", 0, NUM_ROWS, 0, 0)
    predicted = np.concatenate([encode(file_read, 0, each, spec).X for each in batches])
    for place, (name, column) in enumerate(find_columns(schema.recipe.model_dump()).items()):
        of_column = [None if text == "NA" else text for text in texts[column.input_name]]
        from_python = np.array(column.encode(of_column), np.float32)
        for values in (features[place], predicted[:, place], from_python):
            yield name, values.tolist(), of_column


@pytest.mark.parametrize("name", FILES)
def test_numbers_are_read_by_training_prediction_and_from_python(name: str, tmp_path: Path) -> None:
    delimiter, cases = FILES[name]
    file = write_file(tmp_path, delimiter, [one.texts for one in cases])
    texts = {f"c{at}": np.resize(one.texts, NUM_ROWS).tolist() for at, one in enumerate(cases)}
    numbers = {f"c{at}": np.resize(one.numbers, NUM_ROWS).astype(np.float32).tolist() for at, one in enumerate(cases)}
    values = [*read_everywhere(file, texts)]
    assert {name for name, *_ in values} == {*numbers}
    assert [found for found in values if not np.array_equal(found[1], numbers[found[0]], equal_nan=True)] == []


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_dates_are_read_by_training_prediction_and_from_python(delimiter: str, tmp_path: Path) -> None:
    texts, moments = dict[str, list[str]](), dict[str, list[str]]()
    for at, line in enumerate(DATES.splitlines()):
        texts[f"c{at}"], moments[f"c{at}"] = (
            np.resize(half.split(" | "), NUM_ROWS).tolist() for half in line.split(" = ")
        )
    wrong, parts = list[Any](), defaultdict[str, set[str]](set)
    for name, values, of_column in read_everywhere(write_file(tmp_path, delimiter, [*texts.values()]), texts):
        column, _, part = name.partition(".")
        parts[column].add(part)
        expected = [take_part(moment, part) for moment in moments[column]]
        if not np.array_equal(values, expected, equal_nan=True):
            wrong.append((name, of_column[:3], values[:3], expected[:3]))
    assert wrong == []
    for column, (moment, *_) in moments.items():
        assert ("month" in parts[column]) == (not moment.startswith("T")), texts[column][:3]
        assert ("hour" in parts[column]) == ("T" in moment), texts[column][:3]


def take_part(moment: str, part: str) -> float:
    """The code of a part of a moment in ISO 8601, or its year."""
    if moment == "missing":
        return math.nan
    at = datetime.fromisoformat("1970-01-01" * moment.startswith("T") + moment)
    return {"month": at.month - 1, "weekday": at.weekday(), "hour": at.hour, "year": at.year}[part]


def test_points_that_may_set_thousands_apart_are_asked_for_and_later_ones_are_no_number(tmp_path: Path) -> None:
    """In a file not divided by commas; the first rows may have had whole numbers below a thousand alone."""
    for delimiter in ";\t|":
        file = write_file(tmp_path, delimiter, [["213.069", "6.452", "791", "nan"]])
        error = inspect(file, code=4)["error"]
        assert "written like 1.234,5 or 1,234.5; expected one way to read them; use --decimal" in error["found"]
        for decimal, largest in ((",", 213069), (".", 791)):
            (fee, _) = inspect(file, "--decimal", decimal)["columns"]
            assert fee["maximum"] == largest
    kept = recipe(examined(write_file(tmp_path, ";", [["791", "5"]])))
    (column,) = find_columns(kept.recipe.model_dump()).values()
    assert column.encode(["7", "1.5", "1,5", "5.", "1.234", 1.234]).tolist() == [7, 1.5, 1.5, 5, math.inf, 1.234]
    for text, words in (("1.234", "c0 is '1.234' in line 3"), ("12.5", "")):
        later = examined(write_file(tmp_path, ";", [["791", text]]), kept=kept).report
        assert [words for each in later.findings if each.is_error and words in each.found] == [words] * bool(words)


@pytest.mark.parametrize("line", MISSING.splitlines())
def test_what_stands_for_missing_means_a_number_or_a_date_however_a_column_writes_it(line: str, tmp_path: Path) -> None:
    missing, _, column = line.partition(" = ")
    texts = column.split(" | ")
    file = write_file(tmp_path, ";" if "," in texts[1] else ",", [texts])
    is_missing = np.resize([True] + [False] * (len(texts) - 1), NUM_ROWS).tolist()
    for _, values, _ in read_everywhere(file, {"c0": np.resize(texts, NUM_ROWS).tolist()}, missing):
        assert np.isnan(values).tolist() == is_missing
    for also, named in ("-998", ["-998"]), (texts[1], []):
        warnings = documents.rules(inspect(file, "--missing", missing, "--missing", also), "warning")
        unmatched = [each for each in ("-998", missing, texts[1]) if each in warnings.get("unmatched-missing", "")]
        assert unmatched == named


# The delimiter, what --missing names, the texts of a column, how it is read, and the values in other formats.
MISSING_EVERYWHERE = [
    (";", "-999,00", ["-999,00", "5,5", "7,5"], {}, [-999.0, 5.5, 7.5]),
    (";", "1.500", ["1.500", "5,5", "1,5"], {}, [1500.0, 5.5, 1.5]),
    (",", "$0", ["$0", "$5.5", "$1,234.5"], {}, [0.0, 5.5, 1234.5]),
    (",", "1,000", ["1,000", "5.5", "2,000"], {}, [1000.0, 5.5, 2000.0]),
    (",", "99", ["99%", "5%", "7%"], {}, [0.99, 0.05, 0.07]),
    (",", "NA", ["-nan", "5.5", "7.5"], {}, [np.nan, 5.5, 7.5]),
    (",", "0", ["-0.0", "5.5", "7.5"], {}, [-0.0, 5.5, 7.5]),
    (",", "-999", ["-999.0", "1.0", "2.0"], {"category": ("c0",)}, [-999.0, 1.0, 2.0]),
    (",", "-999", ["-999.0", "Ulm", "Bonn"], {}, ["-999.0", "Ulm", "Bonn"]),
]


@pytest.mark.parametrize(("delimiter", "missing", "texts", "options", "typed"), MISSING_EVERYWHERE)
def test_what_stands_for_missing_is_missing_in_files_of_every_format_and_in_rows_from_python(
    delimiter: str, missing: str, texts: list[str], options: dict[str, Any], typed: list[Any], tmp_path: Path
) -> None:
    file = write_file(tmp_path, delimiter, [texts])
    found = examined(file, missing=(missing,), **options)
    schema = recipe(found)
    (column,) = find_columns(schema.recipe.model_dump()).values()
    is_missing = np.resize([True, False, False], NUM_ROWS).tolist()
    assert np.isnan(rows(found).features[0]).tolist() == is_missing
    assert "unmatched-missing" not in rules(found, "warning") or missing == "NA"
    frame = pd.DataFrame({"c0": np.resize(np.array(typed, object), NUM_ROWS), "y": np.arange(NUM_ROWS) * 7 % 13 + 1})
    frame = frame.infer_objects()
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    frame.to_excel(tmp_path / "t.xlsx", index=False)
    spec = ReadSpec(schema.recipe)
    for name in "t.csv", "t.parquet", "t.jsonl", "t.xlsx":
        batches = (each for each in table_batches(find_table(str(tmp_path / name)).files[0], select_columns(spec)))
        file_read = InputFile("t", "table", "t", 0, NUM_ROWS, 0, 0)
        predicted = np.concatenate([encode(file_read, 0, each, spec).X for each in batches if len(each)])
        assert np.isnan(predicted[:, 0]).tolist() == is_missing, name
        later = rows(examined(tmp_path / name, kept=schema)).features[0]
        assert np.isnan(later).tolist() == is_missing, name
    for values in texts, typed, np.array(typed):
        assert np.isnan(column.encode(values)).tolist() == [True, False, False]
