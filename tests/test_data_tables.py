"""Tables to train on: whatever their files are, the same rows; whatever is wrong with them, a word that helps."""

import csv
import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.data.io import discovery, tabular
from tasks.data.io import table as table_reader
from tasks.data.io.csv import csv_batches
from tasks.data.io.discovery import find_table
from tasks.data.io.table import Table, build_table
from tasks.data.io.tabular import Selection, json_batches
from tasks.data.prepared_splits import create_arrays
from tasks.errors import DataError, UsageError
from tasks.parameters.addresses import has_credentials
from tasks.parameters.data import OwnData
from written_tables import examined, recipe, rules, written


def read(source: Path | str, folder: Path, *as_text: str, ignore: tuple[str, ...] = ()) -> Table:
    selection = Selection(as_text=frozenset(as_text), ignore=frozenset(ignore))
    return build_table(find_table(str(source)), selection, folder / "spool")


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_text_of_too_many_levels_is_no_dictionary_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.data.io.tabular.MAX_LEVELS", 100)
    monkeypatch.setattr(tabular, "BLOCK_BYTES", 512)
    rows = pa.table({"id": [f"id {number % 150}" for number in range(400)]})
    found = read(written(tmp_path / "t.csv", rows), tmp_path)
    assert found.data["id"].type == pa.string()
    assert found.data.to_pydict() == rows.to_pydict()
    assert found.example_of_text("id").startswith("'id 0' in row 0 of ")


@given(
    st.lists(
        st.one_of(
            st.floats(allow_nan=False).map(repr),
            st.integers(-(10**30), 10**30).map(str),
            st.sampled_from(
                [" 1", "2 ", "nan", "NaN", "inf", "-Infinity", "+.5", "5.", "1e400", "", "-", "1,5", "0x10"]
            ),
            st.text("0123456789.eE+-naif ", max_size=6),
        )
    )
)
def test_text_reads_as_a_number_where_python_says_so_or_it_is_hexadecimal_and_alone_as_in_company(
    texts: list[str],
) -> None:
    found = tabular.parse_numbers(pa.array(texts, pa.string()))
    alone = [tabular.parse_numbers(pa.array([each], pa.string())) for each in texts]
    assert str(found.to_pylist()) == str([each[0].as_py() for each in alone])
    for each, value in zip(texts, found.to_pylist(), strict=True):
        try:
            expected: float | None = float(each)
        except ValueError:  # Arrow reads hexadecimal in CSV, so text is read like it
            expected = float(int(each, 16)) if re.fullmatch(r"\s*[+-]?0x[0-9a-f]+\s*", each) else None
        assert (value == expected) or (expected is not None and np.isnan([value, expected]).all())


TWO_ROWS = {"a": [1, 3], "b": [2, 4]}
SMALL = pa.table({"t": ["b"], "x": pa.array([2.5], pa.float32())})
FOLDERS: dict[str, tuple[dict[str, str | pa.Table], dict[str, list[Any]]]] = {
    "old ends but the last": ({"t.csv": "a,b\r1,2\r3,4"}, TWO_ROWS),
    "empty lines after a mark": ({"t.csv": "\ufeff\r\n\na,b\n1,2\n3,4\n"}, TWO_ROWS),
    "numbers of any size": ({"t.csv": "x\n1e400\n-1e999\n1\n"}, {"x": [np.inf, -np.inf, 1]}),
    "three formats, a column without a value": (
        {"1.csv": "x,t\n,\n", "2.jsonl": '{"x":1,"t":"a"}\n', "3.parquet": SMALL},
        {"x": [None, 1, 2.5], "t": [None, "a", "b"]},
    ),
    **{f"k={value}": ({f"k={value}/t.csv": "x\n1\n"}, {"x": [1], "k": [value]}) for value in ("²", "--5", "٣")},
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_gives_the_rows_of_its_tables(case: str, tmp_path: Path) -> None:
    files, expected = FOLDERS[case]
    for name, content in files.items():
        path = tmp_path / "data" / name
        write(path, content) if isinstance(content, str) else written(path, content)
    found = read(tmp_path / "data", tmp_path)
    assert found.data.to_pydict() == expected
    assert not found.findings


def test_everything_that_is_wrong_in_a_folder_is_told_at_once(tmp_path: Path) -> None:
    write(tmp_path / "data/1.csv", "price,size,only\n1,2,3\n")
    write(tmp_path / "data/2.csv", "price,size\n5,6\ncheap,2\n")
    write(tmp_path / "data/3.parquet", b"no Parquet at all")
    written(tmp_path / "data/4.parquet", {"price": [1.0], "size": ["big"], "only": [[1, 2]]})
    write(tmp_path / "data/5.csv", "")
    gone = write(tmp_path / "data/6.csv", "price,size,only\n1,2,3\n")
    files = find_table(str(tmp_path / "data"))
    gone.unlink()
    found = build_table(files, Selection(), tmp_path / "spool").findings
    unreadable = sorted(each.found for each in found if each.rule == "unreadable-file")
    for said, words in zip(unreadable, ("3.parquet", "5.csv is empty", "6.csv"), strict=True):
        assert words in said
    told = {(each.rule, each.column): each.found for each in found if each.rule != "unreadable-file"}
    assert set(told) == {
        ("nested-column", "only"), ("missing-column", "only"), ("retyped-column", "price"), ("retyped-column", "size")
    }  # fmt: skip
    assert "2.csv" in told["missing-column", "only"]
    assert f"'cheap' in row 1 of {tmp_path}/data/2.csv" in told["retyped-column", "price"]
    assert {each.severity for each in found} == {"error"}
    rules = {each.rule for each in read(tmp_path / "data", tmp_path, ignore=("only", "size")).findings}
    assert rules == {"unreadable-file", "retyped-column"}


def latin_1(writer: Callable[..., Any]) -> bytes:
    """A file whose text column is no UTF-8."""
    offsets, content = pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"a\xe9")
    stream = io.BytesIO()
    writer(pa.table({"t": pa.StringArray.from_buffers(2, offsets, content)}), stream)
    return stream.getvalue()


def no_such_level(code: int) -> bytes:
    """A Feather file one of whose codes is outside of its dictionary, which would be read from other memory."""
    codes = pa.DictionaryArray.from_arrays(pa.array([0, 1, code], pa.int32()), pa.array(["x", "y"]), safe=False)
    stream, table = io.BytesIO(), pa.table({"t": codes})
    with pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


BAD: dict[str, tuple[str, bytes, str]] = {
    "a comma in every number": ("t.csv", b"a,b\n8,1,234\n9,1,240\n8,2,117\n", "3 rows of 3 .*, with 3"),
    "a row that is cut": ("t.csv", b"a,b\n1,2\n3", r"it ends inside row 1 \(from 0\), after 1 field"),
    "a short row in the middle": ("t.csv", b"a,b\n1\n3,4", "the first is row 0, with 1"),
    "a short row at the end": ("t.csv", b"a,b\n1,2\n3\n", "the first is row 1, with 1"),
    "UTF-16 without a mark": ("t.csv", "a,b\n1,2\n".encode("utf-16-le"), "UTF-16"),
    "no text far down": ("t.csv", b"a,b\n" + b"1,e\n" * 70_000 + b"1,\x81\n", "neither UTF-8 nor Windows-1252"),
    "Chinese in GBK": ("t.csv", "城市,a\n北京,1\n上海,2\n".encode("gbk"), "neither UTF-8 nor Windows-1252"),
    "a header in UTF-8 and in Latin-1": ("t.csv", "a,é".encode() + b"\xe9\n1,2\n", "neither UTF-8 nor Windows-1252"),
    "a header with a quote left open": ("t.csv", b'a,"b\n1,2\n3,4\n', "header"),
    "a header of one endless name": ("t.csv", b"a" * 140_000 + b",b\n1,2\n", "header"),
    "Parquet with text in Latin-1": ("t.parquet", latin_1(pq.write_table), "UTF8"),
    "Feather with text in Latin-1": ("t.feather", latin_1(pyarrow.feather.write_feather), "UTF8"),
    "Feather with a code too large": ("t.feather", no_such_level(99), "out of bounds: 99"),
    "Feather with a code below zero": ("t.feather", no_such_level(-5), "out of bounds: -5"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_file_is_refused_by_name_with_what_is_wrong(tmp_path: Path, what: str) -> None:
    name, content, found = BAD[what]
    csv.field_size_limit(2**17)  # as in a process that has read nothing yet: an odd quote lifts it
    path = write(tmp_path / name, content)
    with pytest.raises(DataError, match=found) as refused:
        read(path, tmp_path)
    assert str(path) in refused.value.found
    assert refused.value.action


class Silent(SimpleHTTPRequestHandler):
    """Sends whole files only, whatever part is asked for."""

    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def served(folder: Path, handler: type[SimpleHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


class CutOff(Silent):
    """Promises a hundred bytes more than it sends."""

    def send_header(self, keyword: str, value: str) -> None:
        super().send_header(keyword, str(int(value) + 100) if keyword == "Content-Length" else value)


def test_a_download_that_is_cut_off_says_how_much_came(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    write(tmp_path / "t.csv", "a,b\n1,x\n")
    with served(tmp_path, CutOff) as address, pytest.raises(DataError, match=r"\(received 8 of 108 bytes\)"):
        read(f"{address}/t.csv", tmp_path)


@pytest.mark.parametrize("named", [(), ("code",)])
def test_no_value_of_json_lines_vanishes_where_numbers_turn_into_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: tuple[str, ...]
) -> None:
    monkeypatch.setattr(tabular, "BLOCK_BYTES", 512)
    values = [number % 5 for number in range(300)] + [None] * 100 + ["A", "B"] * 100
    lines = "".join(json.dumps({"row": row, "code": value}) + "\n" for row, value in enumerate(values))
    found = read(write(tmp_path / "t.jsonl", lines), tmp_path, *named)
    assert found.data["code"].to_pylist() == [None if value is None else str(value) for value in values]


def test_room_for_arrays_is_taken_before_they_are_written(tmp_path: Path) -> None:
    arrays = create_arrays(tmp_path / "t", {"features": (np.float32, (2**19, 3)), "labels": (np.uint8, (5,))})
    assert (tmp_path / "t").stat().st_blocks * 512 >= 2**19 * 12
    assert not arrays["features"].any()
    assert arrays["labels"].shape == (5,)


@pytest.mark.parametrize(
    ("name", "head", "words"), [("t.csv", b"a,b ", "a row of more"), ("t.json", b"\n [1 ", "array")]
)
def test_a_file_without_ends_of_lines_is_not_read_whole(
    monkeypatch: pytest.MonkeyPatch, name: str, head: bytes, words: str
) -> None:
    monkeypatch.setattr(tabular, "BLOCK_BYTES", 2**10)
    monkeypatch.setattr(tabular, "MAX_ROW_BYTES", 2**12)
    stream = io.BytesIO(head + b"x" * 2**20)
    read_some = json_batches if name == "t.json" else csv_batches
    with pytest.raises(DataError, match=words):
        list(read_some(stream, name, Selection()))
    assert stream.tell() <= 2**12


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array(["a", "b", None], pa.string_view()), ["a", "b", None, None]),
        (pa.array([0, 1, None], pa.timestamp("s")), [datetime(1970, 1, 1), datetime(1970, 1, 1, 0, 0, 1), None, None]),
        (pa.array([2.5, 1, None]), [2.5, 1, None, None]),
    ],
)
def test_dictionaries_of_any_kind_are_read(tmp_path: Path, values: pa.Array, expected: list[Any]) -> None:
    table = pa.table({"x": pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 2], pa.int8()), values)})
    with pa.OSFile(str(tmp_path / "t.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    assert read(tmp_path / "t.arrow", tmp_path).data.to_pydict() == {"x": expected}


ROWS_OF_TWO = {"a": np.arange(200.0), "b": np.arange(200) % 7, "y": np.arange(200.0) % 13}


def test_columns_that_are_not_asked_for_cannot_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_reader, "MAX_COLUMNS", 4)
    wide = {f"c{number}": np.zeros(200) for number in range(4)}
    written(tmp_path / "data/1.parquet", {**ROWS_OF_TWO, "c": [[1]] * 200, "d": [1] * 200})
    written(tmp_path / "data/2.parquet", {**ROWS_OF_TWO, "d": ["x"] * 200})
    written(tmp_path / "data/3.csv", {**ROWS_OF_TWO, **wide})
    written(tmp_path / "data/4.jsonl", {**ROWS_OF_TWO, "c": [{"e": 1}] * 200})
    found = examined(tmp_path / "data", features=["a", "b"])
    assert not found.report.errors, found.report.findings
    assert [column.name for column in recipe(found).columns] == ["a", "b"]
    assert set(recipe(found).ignored) == {"c", "d", *wide}  # which a version trained on more must know
    assert found.report.rows == 800
    assert rules(examined(tmp_path / "data", features=["a", "b", "d"]), "error")


FIRST = {"boolean": np.arange(200) % 2 == 0, "category": [f"{number % 5}" for number in range(200)]}
# What a column that was kept has in a later file, and whether it fits.
LATER: dict[str, tuple[str, str, Any, bool]] = {
    "0 and 1": ("boolean", "2.csv", [0, 1] * 100, True),
    "with a decimal point": ("boolean", "2.csv", [1.0, 0.0] * 100, True),
    "or missing": ("boolean", "2.csv", [None, 1] * 100, True),
    "true and false": ("boolean", "2.csv", [True, False] * 100, True),
    "in capitals": ("boolean", "2.csv", ["0", "TRUE"] * 100, True),
    "it counts": ("boolean", "2.csv", [0, 1] * 99 + [2, 3], False),
    "a word": ("boolean", "2.csv", ["0", "true"] * 99 + ["no", "1"], False),
    "numbers": ("category", "2.parquet", np.arange(200) % 5, True),
}


@pytest.mark.parametrize("case", LATER)
def test_a_kept_boolean_may_be_0_and_1_and_a_kept_category_a_number(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tabular, "BLOCK_BYTES", 512)
    kind, name, values, fits = LATER[case]
    first = written(tmp_path / "1.parquet", {**ROWS_OF_TWO, "b": FIRST[kind]})
    kept = recipe(examined(first, category=["b"] if kind == "category" else []))
    assert kept.columns[1].kind == kind
    written(tmp_path / name, {**ROWS_OF_TWO, "b": values})
    for source in (tmp_path / name, tmp_path):
        found = examined(source, task="regression", kept=kept)
        if fits:
            assert not found.report.errors, found.report.findings
            assert recipe(found).columns == kept.columns
        else:
            assert "retyped-column b" in rules(found, "error")


def test_a_file_that_changed_at_equal_size_is_noticed(tmp_path: Path) -> None:
    files = fsspec.filesystem("memory")
    content = b"a,b\n" + b"1,2\n" * 400_000
    for source, put in (
        ("memory://equal/t.csv", partial(files.pipe, "/equal/t.csv")),
        (f"{tmp_path}/t.csv", (tmp_path / "t.csv").write_bytes),
    ):
        put(content)
        first = find_table(source).digest
        assert find_table(source).digest == first
        put(content[:80_004] + b"3" + content[80_005:])
        assert find_table(source).digest != first
    files.rm("/equal", recursive=True)


def test_one_large_batch_is_read_in_small_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "MAX_BUFFERED", 2**20)
    monkeypatch.setattr(tabular, "BATCH_ROWS", 2**12)
    rows = pa.table({"x": np.arange(2.0**18), "t": pa.array([f"t{row % 9}" for row in range(2**18)])})
    rows = rows.append_column("level", rows["t"].combine_chunks().dictionary_encode())
    with pa.OSFile(str(tmp_path / "t.arrow"), "wb") as file, pa.ipc.new_file(file, rows.schema) as writer:
        writer.write_batch(rows.to_batches()[0])
    before, held, found = pa.total_allocated_bytes(), [0], []
    with find_table(str(tmp_path / "t.arrow")).files[0].open() as stream:
        for batch in tabular.arrow_batches(stream, "t.arrow", Selection()):
            held.append(pa.total_allocated_bytes() - before)
            found.append(np.asarray(batch["x"]).sum())
    assert max(held) < rows.nbytes / 10
    assert sum(found) == np.asarray(rows["x"]).sum()
    same = read(written(tmp_path / "t.parquet", rows), tmp_path).data
    assert read(tmp_path / "t.arrow", tmp_path).data.equals(same)


SECRET = [
    "https://me:secret@host/t.csv",
    "https://me:sec/secret@host/t.csv",
    "https://secret@host/t.csv",
    "https://host/t.csv?X-Amz-Signature=secret",
    "https://host/t.csv?a=1&X-Amz-Credential=secret",
    "https://host/t.csv?access_token=secret",
    "HTTPS://host/t.csv?apiKey=secret",
    "https://host/t.csv?AWSAccessKeyId=secret",
    "abfs://c@account/t.csv?sig=secret",
    "s3://k:secret@b/t",
    "simplecache::https://host/t.csv?token=secret",
    "zip://t.csv::simplecache::https://me:secret@host/t.zip",
    "https://host/t.csv?hmm=secret",
    "https://host/t.csv?secret",
    "https://host/t.csv?raw=1%26sas=secret",
    "https://host/t.csv?download=http://u:secret@h/",
    "https://host/t.csv;token=secret?raw=1",
    "https://host?jwt=secret",
]
HONEST = [
    "abfs://container@account.dfs.core.windows.net/t.csv",
    "hf://datasets/user/repo@main/t.csv",
    "https://cdn.jsdelivr.net/npm/vega-datasets@2/data/cars.csv",
    "sftp://bob@host/t.csv",
    "https://host/t.csv?raw=true&format=csv&version=2.1&rev=refs/heads/main&download",
    "http://[::1]:8000/t.csv",
    "simplecache::https://host/t.csv?dl=1",
    "/data/t@2?token=1.csv",
]


@pytest.mark.parametrize("url", SECRET)
def test_a_url_with_credentials_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(UsageError, match="credentials") as refused:
        find_table(url)
    assert "secret" not in str(refused.value)
    with pytest.raises(ValidationError, match="credentials"):
        OwnData(source=url)


@pytest.mark.parametrize("url", HONEST)
def test_a_url_without_credentials_is_taken(url: str) -> None:
    assert OwnData(source=url).source == url
    assert not has_credentials(url)
