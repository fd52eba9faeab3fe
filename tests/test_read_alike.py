"""The commands that read files read alike: one value means the same to all, and no bad file ends badly."""

import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import openpyxl  # type: ignore[import-untyped]
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from command_line import assert_clear, typed
from prefect_api import use_server

if TYPE_CHECKING:
    from prefect.settings import Settings

pytestmark = pytest.mark.usefixtures("prefect_api")
LONG = "x" * 3_000_000
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


def text(content: str | bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content.encode() if isinstance(content, str) else content)


def with_empty_group(path: Path) -> None:
    with pq.ParquetWriter(path, TABLE.schema) as writer:
        for rows in (TABLE, TABLE.slice(0, 0), TABLE):
            writer.write_table(rows)


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
    "packed.csv.gz": lambda path: path.write_bytes(gzip.compress((HEAD + ROWS).encode())),
    "another order.tsv": text("price\tcity\tgarden\tother\tarea\n210\tUlm\ttrue\tx\t80\n"),
    "null in a text.jsonl": text('{"area": 80, "city": "Ulm", "garden": true, "price": 210, "note": "} null {"}\n' * 2),
    "an empty row group.parquet": with_empty_group,
    "dictionaries.feather": lambda path: pyarrow.feather.write_feather(
        TABLE.set_column(1, "city", TABLE["city"].dictionary_encode()), str(path)
    ),
    "single precision.parquet": lambda path: pq.write_table(
        TABLE.set_column(3, "price", pa.array(np.array([16777217, 0.1, 1, 2]))), path
    ),
    "lines.jsonl": text('{"area": 80, "city": "Ulm", "garden": true, "price": 210}\n{"garden": false, "price": 1}\n'),
    "a workbook.xlsx": lambda path: pd.DataFrame(TABLE.to_pydict()).to_excel(path, index=False),
    "a workbook with row names and dates.xlsx": lambda path: (
        pd.DataFrame(TABLE.to_pydict()).assign(day=pd.Timestamp("2024-02-29"), n=7).to_excel(path)
    ),
    "folders": by_city,
}


@pytest.fixture(scope="module")
def houses(server_settings: "Settings", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a regression whose rows have gaps in number and category."""
    folder = tmp_path_factory.mktemp("houses")
    rng = np.random.default_rng(0)
    area, city, garden = rng.normal(100, 20, 400), rng.choice(["Ulm", "Bonn"], 400), rng.random(400) < 0.5
    price = 2 * area + 30 * (city == "Ulm") + 9 * garden + rng.normal(0, 1, 400)
    gaps = rng.random((2, 400)) < 0.1
    table = {"area": pa.array(area, mask=gaps[0]), "city": pa.array(city, mask=gaps[1]), "garden": garden}
    pq.write_table(pa.table(table | {"price": price}), folder / "houses.parquet")
    with use_server(server_settings):
        done = typed(
            *("retrain", "linear-regression", "--name", "houses", "--data", folder / "houses.parquet"),
            *("--target", "price", "--no-predict", "--artifacts", folder / "artifacts", "--json"),
        )
    assert done.returncode == 0, done.stderr
    return folder / "artifacts"


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_value_means_the_same_to_evaluate_and_to_predict(name: str, houses: Path, tmp_path: Path) -> None:
    FILES[name](tmp_path / name)
    store = ("--artifacts", houses, "--json")
    judged = typed("evaluate", "houses", tmp_path / name, *store)
    assert judged.returncode == 0, judged.stderr
    output = tmp_path / "out"
    done = typed("predict", tmp_path / name, "--name", "houses", "--unknown", "average", "--output", output, *store)
    assert done.returncode == 0, done.stderr
    job = json.loads((output / "_job.json").read_text())
    metrics = json.loads(judged.stdout)["metrics"]
    assert job["rejects"] == 0
    assert job["metrics"]["rmse"] == pytest.approx(metrics["rmse"], rel=1e-6)


def gzipped(content: str, cut: int = 0, behind: bytes = b"") -> Callable[[Path], object]:
    packed = gzip.compress(content.encode())
    return lambda path: path.write_bytes(packed[: len(packed) - cut] + behind)


def half(path: Path) -> None:
    pq.write_table(TABLE, path)
    path.write_bytes(path.read_bytes()[:-30])


def with_name_twice(path: Path) -> None:
    frame = pd.DataFrame(TABLE.to_pydict())
    pd.concat([frame, frame], axis=1).to_excel(path, index=False)


def name_twice() -> pa.Table:
    return pa.table([*TABLE.columns, TABLE["city"]], [*TABLE.column_names, "city"])


def bomb(path: Path) -> None:
    """A workbook of some MB that unpacks to 1.1 GB."""
    pd.DataFrame(TABLE.to_pydict()).to_excel(path, index=False)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as packed, packed.open("zeros", "w") as zeros:
        for _ in range(1100):
            zeros.write(bytes(10**6))


def with_far_cell(path: Path) -> None:
    """Of which the package that reads it would make a table of 17 billion cells."""
    book = openpyxl.Workbook()
    book.active["A1"], book.active["XFD1048576"] = "area", 1
    book.save(path)


def with_formula(path: Path) -> None:
    """As a program writes it that computes nothing."""
    book = openpyxl.Workbook()
    for row in (["area", "city", "garden", "price"], [80, "Ulm", True, "=A2*2"]):
        book.active.append(row)
    book.save(path)


def with_merged_header(path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["area", None, "garden", "price"])
    book.active.merge_cells("A1:B1")
    book.active.append([80, "Ulm", True, 210])
    book.save(path)


DEEP = "[" * 10_000 + "]" * 10_000
MANY = ROWS * 60
# What each file is, and how many rows of it a prediction rejects; None: it is not read there either (exit 4).
BAD_FILES: dict[str, tuple[Callable[[Path], object], int | None]] = {
    "empty.csv": (text(""), None),
    "header alone.csv": (text(HEAD), None),
    "no line ends.csv": (text(HEAD.strip()), None),
    "for Excel, and nothing.csv": (text("sep=;\n"), None),
    "for Excel, and blanks.csv": (text("sep=;\n\n\n"), None),
    "a name twice.csv": (text("area,city,city,garden,price\n80,Ulm,Ulm,true,1\n"), None),
    "a name twice.parquet": (lambda path: pq.write_table(name_twice(), path), None),
    "a name twice.feather": (lambda path: pyarrow.feather.write_feather(name_twice(), path), None),
    "NUL bytes.csv": (text(HEAD + "80,U\0lm,true,1\n"), None),
    "UTF-16.csv": (text((HEAD + MANY).encode("utf-16")), None),
    "no text.csv": (text((HEAD + MANY).encode() + b"80,K\x81ln,true,1\n"), 1),
    "ragged.csv": (text(HEAD + MANY + "80,Ulm,true\n80,Ulm,true,1,2\n"), 2),
    "a quote that is never closed.csv": (text(HEAD + MANY + '"80,Ulm,true,1\n' + MANY), None),
    "a page.csv": (text("<!doctype html><html></html>"), None),
    "Parquet by another name.csv": (lambda path: pq.write_table(TABLE, path), None),
    "cut.csv.gz": (gzipped(HEAD + MANY, cut=20), None),
    "something behind.csv.gz": (gzipped(HEAD + MANY, behind=b"garbage"), None),
    "not packed.csv.gz": (text(HEAD + MANY), None),
    "cut.parquet": (half, None),
    "text.parquet": (text(HEAD + MANY), None),
    "null.jsonl": (text("null\n"), None),
    "null among rows.jsonl": (text('{"area": 1, "city": "Ulm", "garden": true, "price": 1}\nnull\n'), None),
    "deep.jsonl": (text(f'{{"area": {DEEP}}}\n'), None),
    "not UTF-8.jsonl": (text(b'{"area": 1, "city": "\xff", "garden": true, "price": 1}\n'), None),
    "two kinds.jsonl": (text('{"area": 1, "city": "Ulm"}\n{"area": "wide", "city": "Ulm"}\n'), None),
    "one array.json": (text('[{"area": 1}]'), None),
    "a number.jsonl": (text("3\n"), None),
    "a table in Avro.avro": (text("Obj\1"), None),
    "text.xlsx": (text(HEAD + MANY), None),
    "empty.xlsx": (lambda path: pd.DataFrame().to_excel(path, index=False), None),
    "header alone.xlsx": (lambda path: pd.DataFrame(columns=TABLE.column_names).to_excel(path, index=False), None),
    "a name twice.xlsx": (with_name_twice, None),
    "a bomb.xlsx": (bomb, None),
    "a cell far away.xlsx": (with_far_cell, None),
    "a formula without a value.xlsx": (with_formula, None),
    "a merged header.xlsx": (with_merged_header, None),
    "of Excel 97, or encrypted.xlsx": (text(b"\xd0\xcf\x11\xe0" + bytes(2000)), None),
    "a pickle.pkl": (text(HEAD + MANY), None),
}


@pytest.mark.slow  # four commands a file
@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_exit_4_wherever_it_is_read_or_its_bad_rows_are_rejected(
    name: str, houses: Path, tmp_path: Path
) -> None:
    make, rejects = BAD_FILES[name]
    make(tmp_path / name)
    store = ("--artifacts", houses, "--json")
    for command in (
        ("inspect", tmp_path / name, "--target", "price"),
        ("retrain", "houses", "--data", tmp_path / name, "--no-predict"),
        ("evaluate", "houses", tmp_path / name),
    ):
        done = typed(*command, *store)
        assert done.returncode == 4, (command[0], done.stderr)
        error = json.loads(done.stdout)["error"]
        assert error["exit_code"] == 4
        assert error["found"]
        assert error["action"]
        assert "Traceback" not in done.stderr
    output = tmp_path / "out"
    done = typed("predict", tmp_path / name, "--name", "houses", "--max-rejects", "5", "--output", output, *store[:2])
    if rejects is None:
        assert_clear(done, 4)
        assert not list(output.glob("part-*"))
    else:
        assert done.returncode == 0, done.stderr
        assert json.loads((output / "_job.json").read_text())["rejects"] == rejects
    assert not (houses / "models/houses/2").exists()


@pytest.mark.slow  # four commands
def test_a_sheet_is_read_by_its_name_wherever_a_workbook_is(houses: Path, tmp_path: Path) -> None:
    """It is kept with the data, so that the next retrain reads it, and a job of one is none of another."""
    book, rows = tmp_path / "book.xlsx", pq.read_table(houses.parent / "houses.parquet").to_pandas()
    with pd.ExcelWriter(book) as writer:
        pd.DataFrame({"about": ["these sales"]}).to_excel(writer, sheet_name="Read & me", index=False)
        rows.to_excel(writer, sheet_name="Sales <1>", index=False)
        rows[:100].to_excel(writer, sheet_name="May", index=False)
    at = ("--artifacts", tmp_path / "artifacts", "--json")
    new = typed(
        *("retrain", "linear-regression", "--name", "sold", "--data", book, "--sheet", "Sales <1>"),
        *("--target", "price", "--no-predict", *at),
    )
    assert json.loads(new.stdout)["outcome"] == "published", new.stderr
    again = typed("retrain", "sold", *at)
    assert json.loads(again.stdout)["outcome"] == "unchanged", again.stderr
    for sheet, expected in (("Sales <1>", 400), ("May", 100)):
        seen = typed("inspect", book, "--sheet", sheet, "--target", "price", *at)
        judged = typed("evaluate", "sold", book, "--sheet", sheet, *at)
        done = typed("predict", book, "--sheet", sheet, "--name", "sold", *at)
        assert json.loads(seen.stdout)["rows"] == expected
        assert json.loads(judged.stdout)["rows"] == expected
        assert json.loads(done.stdout)["rows"] == expected
    missing = typed("inspect", book, "--sheet", "June", "--target", "price")
    assert_clear(missing, 4)
    assert "it has no sheet June" in missing.stderr
    assert "one of Read & me, Sales <1>, May" in missing.stderr
    other = typed("inspect", houses.parent / "houses.parquet", "--sheet", "May", "--target", "price")
    assert_clear(other, 2)
