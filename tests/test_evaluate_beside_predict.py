"""One value means the same to ``evaluate`` and to ``predict``, in whatever file it stands."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest

from command_line import typed
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
    "for Excel.csv": text("sep=;\r\n" + (HEAD + ROWS).replace(",", ";").replace("\n", "\r\n")),
    "packed.csv.gz": lambda path: path.write_bytes(gzip.compress((HEAD + ROWS).encode())),
    "another order.tsv": text("price\tcity\tgarden\tother\tarea\n210\tUlm\ttrue\tx\t80\n"),
    "an empty row group.parquet": with_empty_group,
    "dictionaries.feather": lambda path: pyarrow.feather.write_feather(
        TABLE.set_column(1, "city", TABLE["city"].dictionary_encode()), str(path)
    ),
    "single precision.parquet": lambda path: pq.write_table(
        TABLE.set_column(3, "price", pa.array(np.array([16777217, 0.1, 1, 2]))), path
    ),
    "lines.jsonl": text('{"area": 80, "city": "Ulm", "garden": true, "price": 210}\n{"garden": false, "price": 1}\n'),
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
