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
opened: list[str] = []


def note_opening(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "sqlite3.connect":
        opened.append(Path(str(arguments[0]).partition("?")[0]).name)


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
        assert opened.count("shop.db") == 1


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
