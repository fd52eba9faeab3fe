"""Print a sheet of the workbook on stdin as lines of JSON: what it is about, then each row.

Usage: ``python sheet_process.py SHEET BYTES``, where an empty sheet is the first visible one. This process, which may
take so many bytes of memory, ends in place of its caller: python-calamine makes room for as many cells as an .xls or
.ods file promises, and aborts where there is none.
"""

import io
import json
import resource
import sys
from datetime import timedelta
from typing import Any

from python_calamine import CalamineWorkbook, SheetTypeEnum, SheetVisibleEnum


def main() -> None:
    """Print the names of all sheets, visible ones first, and the first row that has cells; then rows from it on."""
    sheet, max_bytes = sys.argv[1], int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (max_bytes, max_bytes))
    workbook = CalamineWorkbook.from_filelike(io.BytesIO(sys.stdin.buffer.read()))
    worksheets = [each for each in workbook.sheets_metadata if each.typ == SheetTypeEnum.WorkSheet]
    worksheets.sort(key=lambda each: each.visible != SheetVisibleEnum.Visible)
    names = [each.name for each in worksheets]
    selected = sheet or names[0]
    first_row, rows = 0, list[list[Any]]()
    if selected in names:
        table = workbook.get_sheet_by_name(selected)
        first_row, _ = table.start or (0, 0)
        rows = table.to_python()
    for line in ({"sheets": names, "first_row": first_row}, *rows):
        sys.stdout.write(json.dumps(line, default=_tag_cell) + "\n")


def _tag_cell(cell: Any) -> dict[str, str | float]:
    """A date, a time, both, or a duration in seconds, below the name of its type."""
    value = cell.total_seconds() if isinstance(cell, timedelta) else cell.isoformat()
    return {type(cell).__name__: value}


if __name__ == "__main__":
    main()
