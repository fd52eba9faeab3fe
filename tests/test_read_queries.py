"""Queries of databases: read as files are, always anew, by nobody who could write, and without a password on disk."""

import os
import secrets
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa
import pytest

from command_line import GRADMILL, assert_clear, in_own_mounts, typed
from documents import ask, column, inspect, retrain
from table_files import houses, written

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_api")]
ROWS, QUERY = 5_000, "select area, city, rooms, sold, price from sales"
SERVER = urlsplit(os.environ.get("GRADMILL_TEST_DATABASE_URL", ""))
needs_postgresql = pytest.mark.skipif(not SERVER.hostname, reason="GRADMILL_TEST_DATABASE_URL names no PostgreSQL")


def draw_sales() -> pa.Table:
    rng, drawn = np.random.default_rng(1), houses(ROWS)
    sold = pa.array(np.datetime64("2024-01-01") + rng.integers(0, 700, ROWS)).cast(pa.date32())
    rooms = rng.integers(1, 7, ROWS)
    return pa.table({name: drawn[name] for name in ("area", "city", "price")} | {"rooms": rooms, "sold": sold})


def write_sqlite(path: Path, rows: pa.Table) -> str:
    with closing(sqlite3.connect(path)) as connection:
        rows.to_pandas().astype({"sold": str}).to_sql("sales", connection, index=False)
    return f"sqlite:///{path}"


@pytest.fixture
def postgresql() -> Iterator[str]:
    """The address of a database with the sales, whose password is in the environment alone."""
    from adbc_driver_postgresql import dbapi  # type: ignore[import-untyped]

    address = f"postgresql://{SERVER.username}@{SERVER.hostname}:{SERVER.port}{SERVER.path}"
    with dbapi.connect(address) as connection, connection.cursor() as cursor:
        cursor.execute("drop table if exists sales")
        cursor.adbc_ingest("sales", draw_sales(), mode="create")
        cursor.execute("alter table sales alter price type numeric(12, 2), alter city type varchar(20)")
        connection.commit()
        yield address
        cursor.execute("drop table sales")
        connection.commit()


def check_alike(address: str, folder: Path) -> None:
    """Files of the same rows are the same data to every command, and a prediction has every row."""
    rows, query = draw_sales(), ("--query", QUERY)
    retrain("linear-regression", "sold", address, *query, target="price")
    workbook = folder / "sales.xlsx"
    pd.DataFrame(rows.to_pydict()).to_excel(workbook, index=False)
    for file in (written(folder / "sales.csv", rows), workbook, written(folder / "sales.parquet", rows)):
        assert ask("retrain", "sold", "--data", file)["outcome"] == "unchanged"
    assert inspect(address, *query, "--target", "price")["rows"] == ROWS
    judged = ask("evaluate", "sold", address, *query)["metrics"]
    assert ask("evaluate", "sold", folder / "sales.parquet")["metrics"] == judged
    for _ in range(2):
        ask("predict", address, *query, "--name", "sold", "--output", folder / "out.csv")
    predicted = pd.read_csv(folder / "out.csv")
    assert predicted["price"].tolist() == rows["price"].to_pylist()
    errors = predicted["prediction"] - predicted["price"]
    assert (errors**2).mean() ** 0.5 == pytest.approx(judged["rmse"], rel=1e-5)


@needs_postgresql
def test_postgresql_is_read_as_files_are_and_its_password_is_in_no_document(
    postgresql: str, artifacts: Path, tmp_path: Path
) -> None:
    check_alike(postgresql, tmp_path)
    assert SERVER.password
    texts = (path.read_bytes() for path in artifacts.rglob("*") if path.is_file())
    assert not any(SERVER.password.encode() in text for text in texts)


@needs_postgresql
def test_postgresql_runs_one_statement_that_reads_and_no_other_and_gives_no_money(
    postgresql: str, artifacts: Path
) -> None:
    for query in (
        f"{QUERY} -- the newest",
        f"-- the newest\n/* and\nall */ ({QUERY}) union all ({QUERY} limit 0);",
        f"WITH old AS ({QUERY}) TABLE old",
        f"values (1, 2), {', '.join(f'({at}, {at * 2 + at % 3})' for at in range(ROWS - 1))}",
    ):
        target = "column2" if query.startswith("values") else "price"
        assert inspect(postgresql, "--query", query, "--target", target)["rows"] == ROWS
    mark = Path(tempfile.gettempdir(), f"gradmill-{secrets.token_hex(8)}")  # where another user's server can write
    money = "select area, price::numeric::money as price from sales"
    action = inspect(postgresql, "--query", money, "--target", "price", code=4)["error"]["action"]
    assert action == "cast it to numeric in the query, as in price::numeric"
    money = f"with sold as ({money}) select area, price::numeric from sold"  # noqa: S608  # our own
    price = inspect(postgresql, "--query", money, "--target", "price")
    assert column(price, "price")["maximum"] == max(draw_sales()["price"].to_pylist())
    program = f"copy (select 1) to program 'touch {mark}'"
    for query in (
        program,
        f"/* /* */ select */ {program}",
        f"-- \r{program} /*\nselect 1 */",
        f"{QUERY}; {program}",
        f"select 1 as price) to program 'touch {mark}' --",
        "show all",
        "-- nothing",
    ):
        done = typed("inspect", postgresql, "--query", query, "--target", "price")
        assert_clear(done, 4)
    assert not mark.exists()
    assert "select, with, values or table" in done.stderr


def test_sqlite_is_read_as_files_are_and_anew_by_every_retrain_whatever_the_order_of_rows(
    artifacts: Path, tmp_path: Path
) -> None:
    address = write_sqlite(tmp_path / "shop.db", draw_sales())
    check_alike(address, tmp_path)
    with closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
        with connection:
            connection.execute("create table other as select * from sales order by price")
            connection.execute("drop table sales")
            connection.execute("alter table other rename to sales")
        assert ask("retrain", "sold", "--data", address, "--query", QUERY)["outcome"] == "unchanged"
        with connection:
            connection.execute("insert into sales values (100, 'Ulm', 330000, 3, '2025-12-01')")
    again = ask("retrain", "sold")
    assert (again["outcome"], again["version"]) == ("published", 2)


SHOP = ("sqlite:///shop.db", "--query")
BAD: dict[str, tuple[tuple[str, ...], int, str]] = {
    "a query that fails": ((*SHOP, "select nothing"), 4, "syntax error"),
    "no rows": ((*SHOP, f"{QUERY} where area < 0"), 4, "holds no rows"),
    "two columns of one name": ((*SHOP, "select area, area, price from sales"), 4, "area"),
    "a column without a use": ((*SHOP, "select x'00' as x, area, price from sales"), 4, "x holds"),
    "a statement that writes": ((*SHOP, "delete from sales"), 4, "not authorized"),
    "a copy elsewhere": ((*SHOP, "vacuum into 'copy.db'"), 4, "authorization denied"),
    "another database": ((*SHOP, "attach 'copy.db' as other"), 4, "not authorized"),
    "no such database": (("sqlite:///nope.db", "--query", QUERY), 4, "nope.db is missing"),
    "no database": (("sqlite:///sales.csv", "--query", QUERY), 4, "not a database"),
    "a file that is a database": (("shop.db",), 4, "it is a database"),
    "a database without a query": (("sqlite:///shop.db",), 2, "--query"),
    "a query of a file": (("sales.csv", "--query", QUERY), 2, "--query goes with"),
    "a sheet of a database": ((*SHOP, QUERY, "--sheet", "May"), 2, "--sheet goes with"),
    "a password": (("postgresql://me:hidden@localhost/shop", "--query", QUERY), 2, "credentials"),
    "no server": (("postgresql://me@127.0.0.1:9/shop", "--query", QUERY), 4, "127.0.0.1"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_query_that_cannot_be_read_is_three_lines(
    name: str, artifacts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_sqlite(tmp_path / "shop.db", draw_sales()[:100])
    written(tmp_path / "sales.csv", draw_sales()[:100])
    given, code, found = BAD[name]
    done = typed("inspect", *given, "--target", "price")
    assert_clear(done, code)
    assert found in done.stderr
    assert "hidden" not in done.stderr
    assert not (tmp_path / "copy.db").exists()


def test_a_column_may_be_empty_in_many_rows_and_whole_numbers_and_fractions_in_others(
    artifacts: Path, tmp_path: Path, on_server: None
) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as connection, connection:
        connection.execute("create table sales (area, rooms, price)")
        for at in range(21_000):
            row = (None, at % 7, at % 7 * 10 + at % 3) if at < 20_000 else (at / 7, 0.5, 5)
            connection.execute("insert into sales values (?, ?, ?)", row)
    address, query = f"sqlite:///{tmp_path / 'shop.db'}", ("--query", "select * from sales")
    retrain("linear-regression", "sold", address, *query, target="price")
    assert ask("predict", address, *query, "--name", "sold")["rows"] == 21_000
    seen = inspect(address, *query, "--target", "price")
    assert [each["kind"] for each in seen["columns"]] == ["number"] * 3
    full = in_own_mounts(f'mount -t tmpfs -o size=64k tmpfs "{artifacts}/predictions/.answers"')
    command = [*full, GRADMILL, "predict", address, *query, "--name", "sold"]
    assert_clear(subprocess.run(command, capture_output=True, text=True), 1, "No space left", "free space")
