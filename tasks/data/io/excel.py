"""Workbooks (.xlsx, .xls, .ods): the first visible sheet or a named one, typed by its cells (extra ``[excel]``)."""

import functools
import html
import importlib.util
import io
import json
import posixpath
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from gradmill.rows import EXCEL_ERRORS, name_level
from tasks.data.io import headers
from tasks.data.io.discovery import broken_file, explain_file_errors
from tasks.data.io.tabular import BATCH_ROWS, Selection, add_matched, without_rows
from tasks.errors import DataError
from tasks.machine.words import format_names, pip_install
from tasks.parameters.addresses import A_WORKBOOK
from tasks.parameters.data import NO_HEADER

OLE = b"\xd0\xcf\x11\xe0"  # the first bytes of .xls and of encrypted files
ZIP = b"PK"
OPEN_DOCUMENT = "content.xml"  # the part of an .ods file that has all sheets
READER = Path(__file__).with_name("sheet_process.py")
READER_BYTES = 2**31  # of memory: a full sheet of Excel 97 takes about as many
FROM_TAGS: dict[str, Callable[[Any], Any]] = {
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "datetime": datetime.fromisoformat,
    "timedelta": lambda seconds: timedelta(seconds=seconds),
}  # how ``sheet_process.py`` writes cells that JSON has not
CELL = re.compile(rb"""<(?:\w+:)?c\b[^>]*?\br=["']([A-Z]{1,3})([0-9]{1,10})""")
# A cell whose formula has no value, or an empty one; an empty text is a value.
BARE_FORMULA = re.compile(
    rb"""<(?:\w+:)?c\b(?![^>]*\bt="str")[^>]*\br="([A-Z]+[0-9]+)"[^>]*>\s*<(?:\w+:)?f\b(?:[^>]*/>|[^>]*>[^<]*</[^>]*>)\s*"""
    rb"""(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v>\s*</[^>]*>)?\s*</(?:\w+:)?c>"""
)
_ATTRIBUTES = rb"""[^>"]*(?:"[^"]*"[^>"]*)*"""
BARE_FORMULA_OF_ODS = re.compile(
    rb"""<table:table-cell\b(?!%(_)s\boffice:value-type=)%(_)s\btable:formula="([^"]*)\"""" % {b"_": _ATTRIBUTES}
)
ERROR = re.compile(  # a cell whose value is one; it may have a formula
    rb"""<(?:\w+:)?c\b[^>]*\bt=["']e["'][^>]*>(?:<(?:\w+:)?f\b[^<]*(?:</[^>]*>)?)?<(?:\w+:)?v>([^<]*)<"""
)
READ_ERRORS = EXCEL_ERRORS[:7]  # that the package knows; any other makes it refuse the workbook
TAG = re.compile(rb"<(?:\w+:)?(?:sheet|Relationship)\b([^>]*)>")
ATTRIBUTE = re.compile(rb"""([\w:]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
MAX_CELLS = 2 * 10**7  # which take several GB
SHOWN = 20  # sheets that are listed
MAX_PACKED = 2**28
MAX_UNPACKED = 2**29  # bytes of XML: a full sheet of a million rows and eight columns has half of that
FIRST_ROW = b"first-row"  # a key in the schema metadata of the batch that has no rows: the number of the first


def excel_batches(stream: Any, name: str, selection: Selection) -> Iterator[pa.RecordBatch]:
    """The rows of a sheet, the first unless one is named, in all its columns, after a batch without rows.

    A column is float64, bool, timestamp or text, like all its cells that are not empty; if they differ, it is text.

    Raises:
        DataError: it is not such a file, is too large, or the package that reads it is not installed.
    """
    first_line, rows, errors = _read_rows(stream, name, selection.sheet, selection.header)
    if not rows and selection.header not in ("", NO_HEADER):
        raise DataError(f"{name} has no row {selection.header}", "a header in that row", "check --header")
    if not rows:
        which = f"its sheet {selection.sheet}" if selection.sheet else "its first visible sheet"
        raise broken_file(name, f"{which} is empty", "a header and rows", "name the table's sheet with --sheet")
    texts = [[*map(_format_cell, row)] for row in rows[: headers.SNIFFED_ROWS]]
    header = headers.read_header_row(texts, range(first_line, first_line + len(texts)), name, selection)
    body = rows[int(header.is_there) :]
    table = pa.table({each: _make_column([row[at] for row in body]) for at, each in enumerate(header.names)})
    matched = errors.union(*body).intersection(EXCEL_ERRORS)  # as values, and as text
    first_row = {FIRST_ROW: str(first_line + int(header.is_there))}
    table = table.replace_schema_metadata({**header.notes, **add_matched(table.schema, matched), **first_row})
    yield without_rows(table.schema)
    yield from table.to_batches(BATCH_ROWS)


def _read_rows(stream: Any, name: str, sheet: str, header: str) -> tuple[int, list[list[Any]], set[Any]]:
    """The cells of a sheet from its header on, row by row, if the file does not unpack to more than fits.

    The format is that of the content, whatever the file is called.

    Returns the number of the first row, as Excel shows it, the rows, and the errors of cells that are empty in them.
    """
    if importlib.util.find_spec("python_calamine") is None:
        to_do = f"install the extra [excel], or {pip_install('python-calamine')}; or save the sheet as CSV"
        raise broken_file(name, "it is a workbook", "the package python-calamine", to_do)
    content, to_do = stream.read(MAX_PACKED + 1), "save the sheet as Parquet or CSV"
    if len(content) > MAX_PACKED:
        raise broken_file(name, "the workbook is too large", f"at most {MAX_PACKED >> 20:,} MiB", to_do)
    with explain_file_errors(name, A_WORKBOOK, to_do):
        if not content.startswith((OLE, ZIP)):
            raise broken_file(name, "it is no workbook", A_WORKBOOK, "call it what it is, such as .csv if it is text")
        if content.startswith(OLE):
            first_line, rows, errors = *_read_in_process(content, name, sheet), set[str]()
        else:
            with zipfile.ZipFile(io.BytesIO(content)) as packed:
                unpacked = sum(each.file_size for each in packed.infolist())
                if unpacked > MAX_UNPACKED:
                    limit = f"at most {MAX_UNPACKED >> 20:,} MiB"
                    raise broken_file(name, f"it unpacks to {unpacked >> 20:,} MiB", limit, to_do)
                if damaged := packed.testzip():  # or the member is larger than it says
                    raise broken_file(name, f"its part {damaged} is damaged", A_WORKBOOK, "write it again")
                if OPEN_DOCUMENT in packed.namelist():
                    if bare := BARE_FORMULA_OF_ODS.search(packed.read(OPEN_DOCUMENT)):
                        raise _bare_formula(html.unescape(bare[1].decode()), name)
                    first_line, rows, errors = *_read_in_process(content, name, sheet), set[str]()
                else:
                    first_line, rows, errors = _read_xlsx(content, packed, name, sheet)
    num_above = 0 if header in ("", NO_HEADER) else max(0, int(header) - first_line)
    return first_line + num_above, rows[num_above:], errors


def _read_xlsx(content: bytes, packed: zipfile.ZipFile, name: str, sheet: str) -> tuple[int, list[list[Any]], set[str]]:
    from python_calamine import CalamineWorkbook

    parts = _find_sheets(packed)
    _require_sheet(sheet, [*parts], name)
    selected = sheet or next(iter(parts))
    xml = packed.read(parts[selected])
    if (cells := _count_cells(xml)) > MAX_CELLS:
        found = f"sheet {selected} reaches over {cells:,} cells, empty ones included"
        to_do = "delete what stands far from the table, or save it as CSV"
        raise broken_file(name, found, f"at most {MAX_CELLS:,}", to_do)
    if bare := BARE_FORMULA.search(xml):
        raise _bare_formula(f"cell {bare[1].decode()} of sheet {selected}", name)
    errors = {error.decode() for error in ERROR.findall(xml)}
    if errors.difference(READ_ERRORS):
        content = _replace_part(packed, parts[selected], ERROR.sub(_replace_error, xml))
    table = CalamineWorkbook.from_filelike(io.BytesIO(content)).get_sheet_by_name(selected)
    return (table.start or (0, 0))[0] + 1, list(table.to_python()), errors


def _replace_error(cell: re.Match[bytes]) -> bytes:
    """The beginning of a cell with an error that the package reads in place of its own."""
    return cell[0].removesuffix(cell[1] + b"<") + b"#N/A<"


def _replace_part(packed: zipfile.ZipFile, part: str, xml: bytes) -> bytes:
    """The workbook with other content of one of its parts."""
    copy = io.BytesIO()
    with zipfile.ZipFile(copy, "w") as written:
        for name in packed.namelist():
            written.writestr(name, xml if name == part else packed.read(name))
    return copy.getvalue()


def _read_in_process(content: bytes, name: str, sheet: str) -> tuple[int, list[list[Any]]]:
    """The number of a sheet's first row and its rows, read by a process whose memory is bounded."""
    command = [sys.executable, "-P", str(READER), sheet, str(READER_BYTES)]  # -P: not what lies beside it
    process = subprocess.run(command, input=content, capture_output=True, check=False)
    if process.returncode:
        reason = f"it is damaged, needs a password, or takes more than {READER_BYTES >> 20:,} MiB of memory"
        to_do = "save it as .xlsx without a password, or the sheet as CSV"
        raise broken_file(name, reason, A_WORKBOOK, to_do)
    facts, *rows = (json.loads(line, object_hook=_untag_cell) for line in process.stdout.splitlines())
    _require_sheet(sheet, facts["sheets"], name)
    return facts["first_row"] + 1, rows


def _untag_cell(tagged: dict[str, Any]) -> Any:
    [(kind, value)] = tagged.items() if len(tagged) == 1 else [("", tagged)]
    return FROM_TAGS[kind](value) if kind in FROM_TAGS else tagged


def _require_sheet(sheet: str, sheets: list[str], name: str) -> None:
    if sheet not in ("", *sheets):
        raise broken_file(name, f"it has no sheet {sheet}", f"one of {format_names(sheets, SHOWN)}", "check --sheet")


def _bare_formula(place: str, name: str) -> DataError:
    to_do = "open the workbook in a spreadsheet program, which computes the values, and save it there"
    return broken_file(name, f"{place} is a formula without a value", "a stored value for every formula", to_do)


def _find_sheets(packed: zipfile.ZipFile) -> dict[str, str]:
    """The part of each worksheet, by the names that people see: visible sheets in their order, then hidden ones."""

    def read_tags(part: str) -> list[dict[str, str]]:
        tags = (ATTRIBUTE.findall(each) for each in TAG.findall(packed.read(part)))
        return [{key.decode(): html.unescape((one or other).decode()) for key, one, other in tag} for tag in tags]

    places = {each["Id"]: each["Target"] for each in read_tags("xl/_rels/workbook.xml.rels")}
    parts = dict[str, str]()
    for sheet in sorted(read_tags("xl/workbook.xml"), key=lambda tag: tag.get("state", "visible") != "visible"):
        place = next(value for key, value in sheet.items() if key.endswith(":id"))
        parts[sheet["name"]] = posixpath.join("xl", places[place]).removeprefix("/")
    return {name: part for name, part in parts.items() if "/worksheets/" in part}  # a chart may be a sheet, too


def _count_cells(sheet: bytes) -> int:
    """The number of cells from a sheet's first column and row to the last: the package makes room for all of them."""
    places = CELL.findall(sheet)
    columns = {letters for letters, _ in places}
    last = max((len(each), each) for each in columns)[1] if columns else b""
    number = functools.reduce(lambda total, letter: 26 * total + letter - ord("A") + 1, last, 0)
    return number * max((int(row) for _, row in places), default=0)


def _make_column(cells: list[Any]) -> pa.Array:
    """The cells as an array of one type; empty cells and errors are null."""
    values = [None if cell in ("", *EXCEL_ERRORS) else _normalize_cell(cell) for cell in cells]
    if len({*map(type, values)} - {type(None)}) < 2:
        return pa.array(values)
    return pa.array([None if value is None else _format_cell(value) for value in values], pa.string())


def _normalize_cell(cell: Any) -> Any:
    """Convert whole numbers to floats, and dates to dates with times."""
    if type(cell) is date:
        return datetime.combine(cell, time())
    return float(cell) if type(cell) is int else cell


def _format_cell(cell: Any) -> str:
    """A cell as text, for the name of a level or of a column."""
    return cell if isinstance(cell, str) else name_level(cell)
