"""What a table would cost is said, or refused, before it is paid."""

import resource
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from command_line import GRADMILL, assert_clear


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
