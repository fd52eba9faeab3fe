"""What a table would cost is said, or refused, before it is paid."""

import csv
import io
import resource
import subprocess
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from command_line import GRADMILL, assert_clear
from tasks.data.io.csv import FAULT, csv_batches
from tasks.data.io.tabular import Selection


@pytest.fixture(scope="module")
def many_equal_rows(module_folder: Path) -> Path:
    """60 million rows in less than a megabyte."""
    path, rows = module_folder / "many.parquet", pa.table({"x": np.zeros(6_000_000), "y": np.ones(6_000_000)})
    with pq.ParquetWriter(path, rows.schema, compression="zstd") as writer:
        for _ in range(10):
            writer.write_table(rows, row_group_size=len(rows))
    assert path.stat().st_size < 10**6
    return path


def test_the_memory_that_many_rows_take_is_said_before_they_are_read(many_equal_rows: Path) -> None:
    command = [GRADMILL, "inspect", str(many_equal_rows), "--target", "y"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        line = next(line for line in process.stdout if "rows" in line)
        process.kill()
    assert line.startswith("60,000,000 rows take about 4.9 GiB of memory")


def test_more_rows_than_fit_into_memory_are_refused_before_they_are_read(many_equal_rows: Path) -> None:
    memory = 4 * 2**30
    done = subprocess.run(
        [GRADMILL, "inspect", str(many_equal_rows), "--target", "y"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (memory, memory)),
        check=False,
    )
    assert_clear(done, 4, "60,000,000 rows", "4 GiB of memory")


def read_csv(content: str) -> pa.Table:
    batches = [*csv_batches(io.BytesIO(content.encode()), "t.csv", Selection(), "reject")][1:]
    return pa.Table.from_batches([batch.select(["a", "b", FAULT]) for batch in batches])


def test_ragged_rows_are_read_at_a_tenth_of_the_speed_of_sound_ones_or_better() -> None:
    def measure(end: str) -> float:
        content, start = "a,b\n" + "".join(f"{at},{at % 7}{end}\n" for at in range(300_000)), time.process_time()
        assert read_csv(content).num_rows == 300_000
        return time.process_time() - start

    assert min(measure(",1") for _ in range(3)) < 10 * min(measure("") for _ in range(3))


@pytest.mark.parametrize("stray", ["", '5" pipe,x\n'])
def test_ragged_rows_are_rejected_in_their_places_whatever_is_quoted(stray: str) -> None:
    rows = ['"1,5",2\n', '"two\nlines",""\n', '"say ""a,b""",7\n', "1\n", "1,2,3\n", '"a,b","c,d",1\n', "\n"]
    content = "a,b\n" + "".join(rows[at % 7] for at in range(700)) + stray + "9,9\n"
    fields = [len(row) for row in csv.reader(io.StringIO(content)) if row][1:]
    faults = {1: "1 field, expected 2", 2: None, 3: "3 fields, expected 2"}
    assert read_csv(content)[FAULT].to_pylist() == [faults[count] for count in fields]
