"""The commands that read files read alike: one value means the same to all, and no bad file ends badly."""

import csv
import datetime
import gzip
import json
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl  # type: ignore[import-untyped]
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

import gradmill
import table_files
from command_line import assert_clear, typed
from documents import ask, column, inspect, measure, retrain, rules
from table_files import written

pytestmark = pytest.mark.usefixtures("prefect_api")
HEAD = "area,city,garden,price\n"
ROWS = "101.5,Ulm,true,210\n80,Bonn,false,150\n,Ulm,true,190\n120,,false,230\n"
TABLE = pa.table(
    {
        "area": [101.5, 80, None, 120],
        "city": ["Ulm", "Bonn", "Ulm", None],
        "garden": [True, False, True, False],
        "price": [210.0, 150, 190, 230],
    }
)
FRAME = pd.DataFrame(TABLE.to_pydict())
NOON = datetime.datetime(2024, 2, 29, 12, 30)


def text(content: str | bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content.encode() if isinstance(content, str) else content)


def with_empty_group(path: Path) -> None:
    with pq.ParquetWriter(path, TABLE.schema) as writer:
        for rows in (TABLE, TABLE.slice(0, 0), TABLE):
            writer.write_table(rows)


def old_workbook(path: Path) -> None:
    """Sheets of Excel 97, the first of them hidden."""
    import xlwt

    book, day = xlwt.Workbook(), xlwt.easyxf(num_format_str="YYYY-MM-DD HH:MM")
    book.add_sheet("Old").visibility = 1
    sheet = book.add_sheet("Sold")
    for at, row in enumerate([TABLE.column_names, *(each.values() for each in TABLE.to_pylist())]):
        for place, value in enumerate(row):
            sheet.write(at, place, value)
        sheet.write(at, 4, NOON if at else "day", day if at else xlwt.Style.default_style)
    book.set_active_sheet(1)
    book.save(path)


def by_city(path: Path) -> None:
    for city in ("Ulm", "Bonn"):
        (path / f"city={city}").mkdir(parents=True)
        (path / f"city={city}" / "rows.csv").write_text("area,garden,price\n101.5,true,210\n80,false,150\n")


# What reads as missing, numbers as people write them, text that Arrow splits or dates, and tables of every format.
FILES: dict[str, Callable[[Path], object]] = {
    "missing in small letters.csv": text(HEAD + "nan,Ulm,true,210\n80,Bonn,false,150\n"),
    "missing in all spellings.csv": text(HEAD + "NaN,Ulm,true,210\nN/A,NA,false,150\nnull,null,true,180\n"),
    "hexadecimal.csv": text(HEAD + "0x50,Ulm,true,210\n80,Bonn,false,150\n"),
    "signs and points.csv": text(HEAD + "+80,Ulm,true,210\n.5,Bonn,false,150\n90.,Ulm,true,1\n1e2,Ulm,true,1\n"),
    "blanks.csv": text(HEAD + " 80 ,Ulm,true,210\n90,Bonn,false, 150 \n"),
    "a blank that does not break.csv": text(HEAD + "80\u00a0,Ulm,true,210\n90,Bonn,false,150\n"),
    "booleans as numbers.csv": text(HEAD + "80,Ulm,1,210\n90,Bonn,0,150\n"),
    "booleans in capitals.csv": text(HEAD + "80,Ulm,TRUE,210\n90,Bonn,False,150\n"),
    "a level that nobody knows.csv": text(HEAD + "80,Rome,true,210\n90,Bonn,false,150\n"),
    "a long row.csv": text(
        HEAD.replace("price", "price,note") + f"80,Ulm,true,210,{'x' * 3_000_000}\n9,Ulm,true,1,y\n"
    ),
    "quotes and lines.csv": text(HEAD + '"80","Ulm",true,210\n90,"Bo\nnn",false,150\n'),
    "a mark and semicolons.csv": text("\ufeff" + (HEAD + ROWS).replace(",", ";")),
    "for Excel, with more commas than semicolons.csv": text(
        "sep=;\narea;city;garden;price;a,b,c,d,e\n101.5;Ulm;true;210;1,2,3,4,5\n80;Bonn;false;150;5,4,3,2,1\n"
    ),
    "for Excel.csv": text("sep=;\r\n" + (HEAD + ROWS).replace(",", ";").replace("\n", "\r\n")),
    "old line ends but the last.csv": text((HEAD + ROWS).strip().replace("\n", "\r")),
    "empty lines after a mark.csv": text("\ufeff\r\n\n" + HEAD + ROWS),
    "packed.csv.gz": lambda path: path.write_bytes(gzip.compress((HEAD + ROWS).encode())),
    "another order.tsv": text("price\tcity\tgarden\tother\tarea\n210\tUlm\ttrue\tx\t80\n"),
    "null in a text.jsonl": text('{"area": 80, "city": "Ulm", "garden": true, "price": 210, "note": "} null {"}\n' * 2),
    "an empty row group.parquet": with_empty_group,
    "dictionaries.feather": lambda path: written(path, TABLE.set_column(1, "city", TABLE["city"].dictionary_encode())),
    "single precision.parquet": lambda path: written(path, TABLE.set_column(3, "price", [[16777217, 0.1, 1, 2]])),
    "one array.json": text(
        '[{"area": 80, "city": "Ulm", "garden": true, "price": 210},\n {"garden": false, "price": 1}]'
    ),
    "lines.jsonl": text('{"area": 80, "city": "Ulm", "garden": true, "price": 210}\n{"garden": false, "price": 1}\n'),
    "a workbook.xlsx": lambda path: FRAME.to_excel(path, index=False),
    "a workbook with row names and dates.xlsx": lambda path: FRAME.assign(day=pd.Timestamp("2024-02-29"), n=7).to_excel(
        path
    ),
    "a workbook.ods": lambda path: FRAME.to_excel(path, index=False, engine="odf"),
    "a workbook of Excel 97.xls": old_workbook,
    "folders": by_city,
}


@pytest.fixture(scope="module")
def houses(module_folder: Path) -> Path:
    """The store of a regression whose rows have gaps in number and category."""
    file = written(module_folder / "houses.parquet", table_files.houses(cities=["Bonn", "Ulm"]))
    retrain("linear-regression", "houses", file, target="price")
    return module_folder / "artifacts"


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_value_means_the_same_to_evaluate_and_to_predict(name: str, houses: Path, tmp_path: Path) -> None:
    FILES[name](tmp_path / name)
    by_evaluate, by_predict = measure("houses", tmp_path / name, tmp_path / "out", "--artifacts", houses)
    assert by_predict == pytest.approx(by_evaluate, rel=1e-6)


def gzipped(content: str, cut: int = 0, behind: bytes = b"") -> Callable[[Path], object]:
    packed = gzip.compress(content.encode())
    return lambda path: path.write_bytes(packed[: len(packed) - cut] + behind)


def half(path: Path) -> None:
    pq.write_table(TABLE, path)
    path.write_bytes(path.read_bytes()[:-30])


def bomb(path: Path) -> None:
    """A workbook of some MB that unpacks to 1.1 GB."""
    FRAME.to_excel(path, index=False)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as packed, packed.open("zeros", "w") as zeros:
        for _ in range(1100):
            zeros.write(bytes(10**6))


def with_far_cell(path: Path) -> None:
    """Of which the package that reads it would make a table of 17 billion cells."""
    book = openpyxl.Workbook()
    book.active["A1"], book.active["XFD1048576"] = "area", 1
    book.save(path)


def workbook(rows: list[list[Any]]) -> Callable[[Path], object]:
    """Formulas as a program writes them that computes nothing."""

    def write(path: Path) -> None:
        book = openpyxl.Workbook()
        for row in (HEAD.strip().split(","), *rows):
            book.active.append(row)
        book.save(path)

    return write


def edit_ods(path: Path, *changes: tuple[str, str]) -> Path:
    """Replace text in an OpenDocument workbook."""
    with zipfile.ZipFile(path) as packed:
        parts = {each: packed.read(each) for each in packed.namelist()}
    for old, new in changes:
        parts["content.xml"] = parts["content.xml"].replace(old.encode(), new.encode())
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in parts.items():
            packed.writestr(name, content)
    return path


def edited_ods(*changes: tuple[str, str]) -> Callable[[Path], object]:
    return lambda path: (FRAME.to_excel(path, index=False, engine="odf"), edit_ods(path, *changes))


def promising_xls(path: Path) -> None:
    """A workbook that says it has 281 trillion cells, for which the package that reads it would make room."""
    old_workbook(path)
    content = path.read_bytes()
    place = content.rindex(DIMENSIONS) + len(DIMENSIONS)
    path.write_bytes(content[:place] + struct.pack("<IIHH", 0, 2**32 - 1, 0, 2**16 - 1) + content[place + 12 :])


def latin_1(path: Path) -> None:
    """A file whose text column is no UTF-8."""
    offsets, content = pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"a\xe9")
    table = pa.table({"t": pa.StringArray.from_buffers(2, offsets, content)})
    (pq.write_table if path.suffix == ".parquet" else pyarrow.feather.write_feather)(table, path)


def no_such_level(path: Path) -> None:
    """A Feather file one of whose codes is outside of its dictionary, which would be read from other memory."""
    codes = pa.DictionaryArray.from_arrays(pa.array([0, 1, -5], pa.int32()), pa.array(["x", "y"]), safe=False)
    pyarrow.feather.write_feather(pa.table({"t": codes}), path, compression="uncompressed")


STYLE = "urn:oasis:names:tc:opendocument:xmlns:style:1.0"
DIMENSIONS = b"\x00\x02\x0e\x00"  # how a record of Excel 97 begins that says how many rows and columns a sheet has
DEEP = "[" * 10_000 + "]" * 10_000
MANY = ROWS * 60
NO_TEXT = "neither UTF-8 nor Windows-1252"
WIDE = ",".join(f"c{at}" for at in range(2000)) + ",price\n" + ",".join(["1"] * 2001)
# What each file is, and what is said of it; empty ones are in test_cli_checks.py.
BAD_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no line ends.csv": (text(HEAD.strip()), "it ends inside its header"),
    "for Excel, and blanks.csv": (text("sep=;\n\n\n"), ""),
    "a name twice.parquet": (lambda path: pq.write_table(TABLE.append_column("city", TABLE["city"]), path), "'city'"),
    "2001 columns.csv": (text(WIDE), "2,000"),
    "row names as R writes them.csv": (text("area,price\n" + "h1,1,2\n" * 9), "as R writes it, add one"),
    "a delimiter at the end of every row.csv": (
        text(HEAD + MANY.replace("\n", ",\n")),
        "remove the delimiter at the end",
    ),
    "a title above the header.csv": (text("Houses of 2024\n" + HEAD + MANY), "name its line, as with --header 2"),
    "a title above a header whose rows have decimal commas.csv": (
        text("Houses of 2024\n\n" + HEAD.replace(",", ";") + "80,5;Ulm;true;1,5\n" * 240),
        "name its line, as with --header 3",
    ),
    "a header with a quote left open.csv": (text(HEAD.replace("city", '"city') + ROWS), "header"),
    "a header of one endless name.csv": (text("a" * 140_000 + HEAD + ROWS), "header"),
    "NUL bytes.csv": (text(HEAD + "80,U\0lm,true,1\n"), "NUL"),
    "bytes.csv": (text(bytes(range(256)) * 40), "cannot be read"),
    "UTF-16 without a mark.csv": (text((HEAD + MANY).encode("utf-16-le")), "--encoding utf-16-le"),
    "Chinese in GBK.csv": (text("城市,price\n北京,1\n上海,2\n".encode("gbk")), NO_TEXT),
    "Korean in EUC-KR.csv": (text(HEAD.encode() + "80,남,true,1\n90,여,true,1\n".encode("euc_kr")), NO_TEXT),
    "Russian in Windows-1251.csv": (text(HEAD.encode() + "80,Да,true,1\n90,Нет,true,1\n".encode("cp1251")), NO_TEXT),
    "French in MacRoman.csv": (text((HEAD + "80,garçon,true,1\n").encode("mac_roman")), "--encoding"),
    "a header in UTF-8 and in Latin-1.csv": (text("price,é".encode() + b"\xe9\n1,2\n"), NO_TEXT),
    "no text far down.csv": (text(HEAD.encode() + b"80,Ulm,true,1\n" * 70_000 + b"80,K\x81ln,true,1\n"), NO_TEXT),
    "ragged.csv": (text(HEAD + MANY + "80,Ulm,true\n80,Ulm,true,1,2\n"), "the first is in line 242, with 3"),
    "a short row in the middle.csv": (text(HEAD + "1\n" + MANY), "the first is in line 2, with 1"),
    "a row that is cut.csv": (text(HEAD + MANY + "80,Ulm"), "it ends inside line 242, after 2 fields"),
    "a comma in every number.csv": (text(HEAD + "1,5,Ulm,true,1\n" * 3), "otherwise quote fields"),
    "a quote that is never closed.csv": (text(HEAD + MANY + '"80,Ulm,true,1\n' + MANY), ""),
    "a page.csv": (text("<!doctype html><html></html>"), "a web page"),
    "a workbook.csv": (text(b"PK\x03\x04" + (HEAD + MANY).encode()), "Excel"),
    "Parquet by another name.csv": (lambda path: pq.write_table(TABLE, path), ""),
    "cut.csv.gz": (gzipped(HEAD + MANY, cut=20), ""),
    "something behind.csv.gz": (gzipped(HEAD + MANY, behind=b"garbage"), ""),
    "not packed.csv.gz": (text(HEAD + MANY), ""),
    "cut.parquet": (half, ""),
    "text in Latin-1.parquet": (latin_1, "UTF8"),
    "text in Latin-1.feather": (latin_1, "UTF8"),
    "a code below zero.feather": (no_such_level, "out of bounds: -5"),
    "null among rows.jsonl": (text('{"area": 1, "city": "Ulm", "garden": true, "price": 1}\nnull\n'), ""),
    "null after a mark.jsonl": (text('\ufeffnull\n{"area": 1, "city": "Ulm", "garden": true, "price": 1}\n'), "null"),
    "null and more.jsonl": (text('null]{"area": 1}\n'), "row 1 is null"),
    "deep.jsonl": (text(f'{{"area": {DEEP}}}\n'), ""),
    "not UTF-8.jsonl": (text(b'{"area": 1, "city": "\xff", "garden": true, "price": 1}\n'), "--encoding"),
    "two kinds.jsonl": (text('{"area": 1, "city": "Ulm"}\n{"area": "wide", "city": "Ulm"}\n'), ""),
    "one array that is cut.json": (text('[{"area": 1}, {"area": 2}'), "it ends inside its array"),
    "two arrays.json": (text('[{"area": 1}] [{"area": 2}]'), "something comes after its array"),
    "null in an array.json": (text('[{"area": 1}, null]'), "row 2 is null"),
    "numbers in an array.json": (text("[1, 2]"), "one array of objects"),
    "a number.jsonl": (text("3\n"), ""),
    "a table in Avro.avro": (text("Obj\1"), ""),
    "text.xlsx": (text(HEAD + MANY), ""),
    "empty.xlsx": (lambda path: pd.DataFrame().to_excel(path, index=False), ""),
    "header alone.xlsx": (lambda path: pd.DataFrame(columns=TABLE.column_names).to_excel(path, index=False), ""),
    "a bomb.xlsx": (bomb, ""),
    "a cell far away.xlsx": (with_far_cell, ""),
    "a formula without a value.xlsx": (workbook([[80, "Ulm", True, "=A2*2"]]), ""),
    "encrypted.xlsx": (text(b"\xd0\xcf\x11\xe0" + bytes(2000)), "needs a password"),
    "text.xls": (text(HEAD + MANY), "it is no workbook"),
    "billions of cells.ods": (
        edited_ods(
            ("<table:table-row>", '<table:table-row table:number-rows-repeated="1000000">'),
            ("<table:table-cell ", '<table:table-cell table:number-columns-repeated="4000" '),
        ),
        "more than 2,048 MiB",
    ),
    "a formula without a value.ods": (
        edited_ods(('office:value-type="float" office:value="80.0"', 'table:formula="of:=[.A1]*2"')),
        "of:=[.A1]*2 is a formula without a value",
    ),
    "trillions of cells.xls": (promising_xls, ""),
    "a pickle.pkl": (text(HEAD + MANY), ""),
}
# How many rows of it a prediction rejects; the others are not read there either.
REJECTS = {
    "no text far down.csv": 1,
    "ragged.csv": 2,
    "a short row in the middle.csv": 1,
    "a row that is cut.csv": 1,
    "a comma in every number.csv": 3,
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_refused_by_name_with_what_is_wrong(name: str, tmp_path: Path) -> None:
    make, words = BAD_FILES[name]
    make(tmp_path / name)
    csv.field_size_limit(2**17)  # as in a process that has read nothing yet: an odd quote lifts it
    error = inspect(tmp_path / name, "--target", "price", code=4)["error"]
    assert words in json.dumps(error, ensure_ascii=False)
    assert name in error["found"]


def test_text_in_other_encodings_is_read_by_its_mark_or_by_the_option_which_is_kept_with_the_name(
    tmp_path: Path,
) -> None:
    rows = "".join(f"{at % 9 + 40},{['Łódź', 'Kraków'][at % 2]},{at % 9 * 2 + at % 3}\n" for at in range(300))
    for encoding in "utf-8", "utf-16", "utf-32", "utf-16-be", "cp1250":
        (tmp_path / f"{encoding}.csv").write_text("area,miasto,price\n" + rows, encoding=encoding)
    plain = inspect(tmp_path / "utf-8.csv", "--target", "price")["columns"]
    for options in ("utf-16.csv",), ("utf-32.csv",), ("utf-32.csv", "--encoding", "utf-32"):
        assert inspect(tmp_path / options[0], *options[1:], "--target", "price")["columns"] == plain
    for encoding in "utf-16-be", "cp1250":
        file = tmp_path / f"{encoding}.csv"
        assert inspect(file, "--target", "price", "--encoding", encoding)["columns"] == plain
    retrain("linear-regression", "polish", file, "--encoding", "cp1250", target="price")
    errors = {
        error for name in ("cp1250", "utf-16") for error in measure("polish", tmp_path / f"{name}.csv", tmp_path / name)
    }
    assert len({round(error, 9) for error in errors}) == 1
    assert "--encoding" in inspect(file, "--target", "price", "--encoding", "none", code=2)["error"]["found"]
    assert "text in ascii" in inspect(file, "--target", "price", "--encoding", "ascii", code=4)["error"]["expected"]


@pytest.mark.parametrize("words", [["CONCEIÇÃO", "ÅÄÖ"], ["„Übung“", "Café…"], ["«été»", "Þórður"]])
def test_words_whose_letters_and_signs_beyond_ascii_are_adjacent_are_windows_1252(
    words: list[str], tmp_path: Path
) -> None:
    rows = "".join(f"{at % 9},{words[at % 2]},{at % 7}\n" for at in range(90))
    (tmp_path / "t.csv").write_bytes(f"area,name,price\n{rows}".encode("cp1252"))
    assert column(inspect(tmp_path / "t.csv", "--target", "price"), "name")["levels"] == words


@pytest.mark.parametrize("suffix", [".xlsx", ".ods"])
def test_the_first_visible_sheet_is_read_unless_another_is_named(suffix: str, tmp_path: Path) -> None:
    book = tmp_path / f"t{suffix}"
    with pd.ExcelWriter(str(book)) as writer:
        for sheet, column_name in ("Old", "x"), ("Sold", "y"):
            frame = pd.DataFrame({column_name: range(300), "price": [at * 2 + at % 3 for at in range(300)]})
            frame.to_excel(writer, sheet_name=sheet, index=False)
        if suffix == ".xlsx":
            writer.book["Old"].sheet_state = "hidden"
            writer.book.active = 1
    if suffix == ".ods":
        hidden = '<style:style style:name="H" style:family="table"><style:table-properties table:display="false"/>'
        edit_ods(
            book,
            (
                "<office:automatic-styles/>",
                f'<office:automatic-styles xmlns:style="{STYLE}">{hidden}</style:style></office:automatic-styles>',
            ),
            ('table:name="Old"', 'table:name="Old" table:style-name="H"'),
        )
    for options, name in ((), "y"), (("--sheet", "Old"), "x"):
        shown = inspect(book, "--target", "price", *options)
        assert [each["name"] for each in shown["columns"]] == [name, "price"]


@pytest.mark.parametrize("suffix", [".csv", ".xlsx", ".ods"])
def test_errors_of_excel_are_missing_values_and_a_note_says_so_once(suffix: str, tmp_path: Path) -> None:
    errors = ["#N/A", "#DIV/0!", "#NAME?", "#NULL!", "#NUM!", "#REF!", "#VALUE!"]
    errors += ["#NV", "#WERT!", "#BEZUG!", "#ZAHL!", "#SPILL!", "#CALC!", "#GETTING_DATA"]
    frame = pd.DataFrame({"area": [*(at % 9 for at in range(300)), *errors], "city": ["Ulm", "Bonn"] * 150 + errors})
    frame["price"] = np.arange(len(frame)) % 7
    file, store = tmp_path / f"t{suffix}", ("--artifacts", tmp_path / "artifacts")
    frame.to_csv(file, index=False) if suffix == ".csv" else frame.to_excel(file, index=False)
    found = inspect(file, "--target", "price")
    for name, kind in ("area", "number"), ("city", "category"):
        assert (column(found, name)["kind"], column(found, name)["missing"]) == (kind, len(errors))
    assert rules(found, "note")["excel-errors"] == "errors of Excel, such as #BEZUG!, are read as missing values"
    retrain("linear-regression", "rooms", file, "--min-gain", "-9", *store, target="price")
    assert ask("predict", file, "--name", "rooms", "--output", tmp_path / "out", *store)["rejects"] == 0
    model = gradmill.load("rooms", tmp_path / "artifacts")
    rows = frame.to_dict("records")
    assert model.predict(rows[-14:]).tolist() == model.predict([{"area": None, "city": None}] * 14).tolist()
    typed_frame = frame.assign(area=pd.to_numeric(frame.area, errors="coerce"))
    typed_frame.to_parquet(tmp_path / "t.parquet")
    typed_frame.to_json(tmp_path / "t.jsonl", orient="records", lines=True)
    for name in "t.parquet", "t.jsonl":
        city = column(found_in := inspect(tmp_path / name, "--target", "price"), "city")
        assert (city["levels"], city["missing"]) == (["Ulm", "Bonn"], len(errors))
        assert "excel-errors" in rules(found_in, "note")
        options = "--unknown", "reject", "--output", tmp_path / f"{name}.out", *store
        assert ask("predict", tmp_path / name, "--name", "rooms", *options)["rejects"] == 0


def test_a_cell_with_an_error_of_a_later_excel_is_missing(tmp_path: Path) -> None:
    book, rows = tmp_path / "t.xlsx", [[at % 9, at % 7] for at in range(90)]
    pd.DataFrame([["#SPILL!", 1], ["#N/A", 2], ["#FIELD!", 3], *rows], columns=["area", "price"]).to_excel(
        book, index=False, sheet_name="Rooms"
    )
    with zipfile.ZipFile(book) as packed:
        parts = {name: packed.read(name) for name in packed.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    for place, name in ("A2", "#SPILL!"), ("A4", "#FIELD!"):
        cell = f'<c r="{place}" t="e"><f>A9</f><v>{name}</v></c>'.encode()
        parts[sheet], times = re.subn(rf'<c r="{place}"[^>]*>.*?</c>'.encode(), cell, parts[sheet])
        assert times == 1
    with zipfile.ZipFile(book, "w") as packed:
        for name, content in parts.items():
            packed.writestr(name, content)
    shown = inspect(book, "--target", "price")
    area = column(shown, "area")
    assert (shown["rows"], area["kind"], area["missing"]) == (93, "number", 3)
    assert "excel-errors" in rules(shown, "note")


def test_spaces_after_delimiters_are_no_part_of_a_value(tmp_path: Path) -> None:
    rows = [
        (at % 9 + 40, ["Ulm", '" Neu-Ulm, South"', "?"][at % 3], f"20{at % 20:02}-0{at % 9 + 1}-01")
        for at in range(300)
    ]
    for name, delimiter in ("plain.csv", ","), ("spaced.csv", ",  "):
        lines = [("area", "city", "sold", "price"), *((*row, row[0] * 2 + at % 3) for at, row in enumerate(rows))]
        (tmp_path / name).write_text("".join(f"{delimiter.join(map(str, line))}\n" for line in lines))
    plain, spaced = (
        inspect(tmp_path / name, "--target", "price", "--missing", "?") for name in ("plain.csv", "spaced.csv")
    )
    assert spaced["columns"] == plain["columns"]
    city = column(spaced, "city")
    assert (city["levels"], city["missing"]) == (["Ulm", " Neu-Ulm, South"], 100)


# Those whose rows may be rejected, and a few that each reader refuses; all others are refused by the same readers.
EVERYWHERE = (
    *REJECTS,
    *("a name twice.parquet", "2001 columns.csv", "UTF-16 without a mark.csv", "NUL bytes.csv", "cut.csv.gz"),
    *("a quote that is never closed.csv", "a page.csv", "bytes.csv", "text in Latin-1.parquet", "cut.parquet"),
    *("a code below zero.feather", "null among rows.jsonl", "two kinds.jsonl", "a bomb.xlsx"),
    *("a formula without a value.xlsx", "a pickle.pkl"),
)


@pytest.mark.slow  # two commands a file
@pytest.mark.parametrize("name", EVERYWHERE)
def test_a_bad_file_is_exit_4_wherever_it_is_read_or_its_bad_rows_are_rejected(
    name: str, houses: Path, tmp_path: Path
) -> None:
    BAD_FILES[name][0](tmp_path / name)
    store, output = ("--artifacts", houses), tmp_path / "out"
    ask("evaluate", "houses", tmp_path / name, *store, code=4)
    command = ("predict", tmp_path / name, "--name", "houses", "--max-rejects", "5", "--output", output, *store)
    if name in REJECTS:
        assert ask(*command)["rejects"] == REJECTS[name]
    else:
        assert_clear(typed(*command), 4)
        assert not list(output.glob("part-*"))


@pytest.mark.slow  # eight commands
def test_a_sheet_is_read_by_its_name_wherever_a_workbook_is(houses: Path, tmp_path: Path) -> None:
    """It is kept with the data, so that the next retrain reads it, and a job of one is none of another."""
    book, source = tmp_path / "book.xlsx", houses.parent / "houses.parquet"
    rows = pq.read_table(source).to_pandas()
    with pd.ExcelWriter(book) as writer:
        for name, frame in (("Read & me", rows[:0]), ("Sales <1>", rows), ("May", rows[:100])):
            frame.to_excel(writer, sheet_name=name, index=False)
    at = ("--artifacts", tmp_path / "artifacts")
    retrain("linear-regression", "sold", book, "--sheet", "Sales <1>", *at, target="price")
    assert ask("retrain", "sold", *at)["outcome"] == "unchanged"
    for sheet, expected in (("Sales <1>", 400), ("May", 100)):
        for command in (("inspect", "--target", "price"), ("evaluate", "sold"), ("predict", "--name", "sold")):
            assert ask(*command, book, "--sheet", sheet, *at)["rows"] == expected
    error = inspect(book, "--sheet", "June", "--target", "price", code=4)["error"]
    assert "it has no sheet June" in error["found"]
    assert "one of Read & me, Sales <1>, May" in error["expected"]
    inspect(source, "--sheet", "May", "--target", "price", code=2)
