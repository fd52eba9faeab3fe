"""Values as people write them: what a careful person means is read alike everywhere, or a finding names an option."""

import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from documents import inspect
from gradmill.rows import find_columns
from tasks.data.io.batches import InputFile, ReadSpec, table_batches
from tasks.data.io.discovery import find_table
from tasks.data.io.inputs import encode, select_columns
from written_tables import examined, recipe, rows

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
    "whole numbers divided by tabs": ("\t", [*map(case, (
        "1'234 | 5 = 1234 | 5",
        "$ 1'234 | $ 5 = 1234 | 5",
        "5 | 7 = 5 | 7",
    ))]),
}  # fmt: skip


def write_file(folder: Path, delimiter: str, cases: Sequence[Case], rows: int = NUM_ROWS) -> Path:
    columns = [[f'"{one.texts[row % len(one.texts)]}"' for row in range(rows)] for one in cases]
    header = [*(f"c{at}" for at in range(len(cases))), "y"]
    lines = (delimiter.join(line) for line in zip(*columns, map(str, np.arange(rows) * 7 % 13), strict=True))
    file = folder / "t.csv"
    file.write_text("\n".join([delimiter.join(header), *lines, ""]), encoding="utf-8")
    return file


@pytest.mark.parametrize("name", FILES)
def test_what_a_careful_person_means_is_read_by_training_prediction_and_from_python(name: str, tmp_path: Path) -> None:
    delimiter, cases = FILES[name]
    file = write_file(tmp_path, delimiter, cases)
    found = examined(file)
    schema, features = recipe(found), rows(found).features
    spec = ReadSpec(schema.recipe)
    batches = (batch for batch in table_batches(find_table(str(file)).files[0], select_columns(spec)) if len(batch))
    predicted = np.concatenate(
        [encode(InputFile("t", "table", "t", 0, NUM_ROWS, 0, 0), 0, each, spec).X for each in batches]
    )
    columns = find_columns(schema.recipe.model_dump())
    places = {column.name: at for at, column in enumerate(schema.columns)}
    wrong = dict[str, Any]()
    for at, one in enumerate(cases):
        if (place := places.get(f"c{at}")) is None:
            wrong[one.texts[-1]] = "no feature"
            continue
        expected = np.resize(one.numbers, NUM_ROWS).astype(np.float32)
        from_python = np.array(columns[f"c{at}"].encode([*np.resize(one.texts, NUM_ROWS).tolist()]), np.float32)
        for values in (features[place], predicted[:, place], from_python):
            if not np.array_equal(values, expected):
                wrong[one.texts[-1]] = dict(zip(one.texts, values.tolist(), strict=False))
    assert not wrong


def test_points_that_may_set_thousands_apart_are_asked_for_and_later_ones_are_no_number(tmp_path: Path) -> None:
    """In a file not divided by commas; the first rows may have had whole numbers below a thousand alone."""
    for delimiter in ";\t|":
        file = write_file(tmp_path, delimiter, [case("213.069 | 6.452 | 791 = 0")])
        error = inspect(file, code=4)["error"]
        assert "written like 1.234,5 or 1,234.5; expected one way to read them; use --decimal" in error["found"]
        for decimal, largest in ((",", 213069), (".", 791)):
            (fee, _) = inspect(file, "--decimal", decimal)["columns"]
            assert fee["maximum"] == largest
    kept = recipe(examined(write_file(tmp_path, ";", [case("791 | 5 = 0")])))
    (column,) = find_columns(kept.recipe.model_dump()).values()
    assert column.encode(["7", "1.5", "1,5", "1.234", 1.234]).tolist() == [7, 1.5, 1.5, math.inf, 1.234]
    for text, words in (("1.234", "c0 is '1.234' in row 1"), ("12.5", "")):
        later = examined(write_file(tmp_path, ";", [case(f"791 | {text} = 0")]), kept=kept).report
        assert [words for each in later.findings if each.is_error and words in each.found] == [words] * bool(words)
