"""What lies on other hosts and in databases is read once a run, however often its rows are looked at."""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from documents import ask, inspect, retrain
from served_folders import SilentHandler, serve
from table_files import houses, written

pytestmark = pytest.mark.usefixtures("prefect_api")
# Dates, numbers and a target that may be classes are found out only when all rows have been read.
DAYS = [f"{at % 28 + 1:02}.0{at % 9 + 1}.2024" for at in range(400)]
ROWS = [(day, f"$1,{at % 90 + 100}.50", "Ulm", at % 90 + at % 3) for at, day in enumerate(DAYS)]
openings = {"sqlite3.connect": "shop.db?mode=ro", "open": "sold.csv"}  # events of Python, and what is opened
opened: list[str] = []


def note_opening(event: str, arguments: tuple[Any, ...]) -> None:
    if event in openings and str(arguments[0]).endswith(openings[event]):
        opened.append(event)


sys.addaudithook(note_opening)


def test_a_query_runs_once(artifacts: Path, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as connection, connection:
        connection.execute("create table sales (sold, cost, city, y)")
        connection.executemany("insert into sales values (?, ?, ?, ?)", ROWS)
    source = f"sqlite:///{tmp_path}/shop.db", "--query", "select * from sales"
    for command in (
        lambda: inspect(*source),
        lambda: retrain("linear-regression", "sold", *source),
        lambda: ask("retrain", "sold", "--force", "--no-predict"),
        lambda: inspect(*source, "--name", "sold"),
        lambda: ask("evaluate", "sold", *source),
    ):
        opened.clear()
        command()
        assert opened == ["sqlite3.connect"]


def test_a_file_is_read_to_find_its_columns_to_see_their_numbers_as_text_and_to_parse_them(tmp_path: Path) -> None:
    lines = [f"{day};{at % 90},5;1.{at % 90 + 100},50 €;{at % 97}\n" for at, day in enumerate(DAYS)]
    (tmp_path / "sold.csv").write_text("sold;area;cost;y\n" + "".join(lines))
    opened.clear()
    found = inspect(tmp_path / "sold.csv")
    assert [each["kind"] for each in found["columns"]] == ["date", "number", "number", "number"]
    assert opened == ["open"] * (1 + 3), "first its state is noted"


class StatelessHandler(SilentHandler):
    """Says of no file in which state it is, and counts those that it sends."""

    sent: list[str] = []  # noqa: RUF012  (of all requests)

    def do_GET(self) -> None:  # noqa: N802
        self.sent.append(self.path)
        super().do_GET()

    def send_header(self, keyword: str, value: str) -> None:
        if keyword != "Last-Modified":
            super().send_header(keyword, value)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_of_a_host_that_says_nothing_of_its_state_is_downloaded_once(
    suffix: str, artifacts: Path, tmp_path: Path
) -> None:
    pytest.importorskip("aiohttp")
    table = houses(400).append_column("sold", [DAYS])
    written(tmp_path / f"sold{suffix}", table)
    with serve(tmp_path, StatelessHandler) as address:
        url = f"{address}/sold{suffix}"
        for command in (
            lambda: inspect(url, "--target", "price"),
            lambda: retrain("linear-regression", "sold", url, target="price"),
            lambda: ask("retrain", "sold", "--no-predict"),
            lambda: ask("evaluate", "sold", url),
        ):
            StatelessHandler.sent.clear()
            answer = command()
            assert StatelessHandler.sent == [f"/sold{suffix}"]
            assert answer.get("outcome") in (None, "published", "unchanged")
        written(tmp_path / f"sold{suffix}", table.slice(0, 390))
        assert ask("retrain", "sold", "--no-predict")["outcome"] == "published"
