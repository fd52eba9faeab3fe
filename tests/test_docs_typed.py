"""Every line of README and docs/ that starts with ``gradmill`` does something, typed as it stands, page after page.

So do those that make keys for it.
"""

import io
import os
import re
import shlex
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from command_line import GRADMILL, gradmill
from fenced_blocks import PAGES, blocks

# Lines with these words are not typed here, for what is said.
NOT_HERE = {
    "gradmill up": "goes on until Ctrl-C: tests/test_docs_first_hour.py",
    "gradmill demo": "goes on until Ctrl-C: tests/test_serve_demo.py",
    "s3://": "a bucket: tests/test_store_mirror.py and tests/test_store_backup.py have one",
    "--artifacts new": "what was restored from that bucket",
    "gradmill skip": "a server that plans ahead: tests/test_operate_schedule.py",
    "postgresql://": "a server: tests/test_read_queries.py has one",
    "/data/today": "a folder of yours: tests/test_operate_registration.py",
}
# What must have happened before, as the pages say beside the line.
BEFORE = {
    "gradmill rollback houses": "head -n 100 labelled.csv | tail -n +2 >> houses.csv; gradmill retrain houses",
}
OF_A_SHELL = re.compile(r"[*?~$|<>;&`]")
TYPED = re.compile(r"(?m)^(?:gradmill|openssl) .*?(?=\s+#\s|$)")


def lines() -> list[str]:
    """Those of every page in order, each once; docs/first-hour.md has a test of its own."""
    found = [
        line
        for page in PAGES
        if page.name != "first-hour.md"
        for block in blocks(page)
        if not block.language
        for line in TYPED.findall(block.text)
    ]
    return [line for line in dict.fromkeys(found) if not any(words in line for words in NOT_HERE)]


def as_png(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


def fill(folder: Path) -> None:
    """The files that the pages name, which are the reader's own."""
    import pandas as pd  # type: ignore[import-untyped]

    rng = np.random.default_rng(0)
    houses = pd.DataFrame({"id": range(600), "area": rng.uniform(40, 200, 600), "age": rng.integers(0, 60, 600)})
    houses["price"] = 2500 * houses.area - 1200 * houses.age + rng.normal(0, 9000, 600)
    houses[:500].to_csv(folder / "houses.csv", index=False)
    with closing(sqlite3.connect(folder / "shop.db")) as shop, shop:
        houses.assign(city=rng.choice(["Ulm", "Bonn"], 600)).to_sql("sales", shop, index=False)
    houses[500:].drop(columns="price").to_csv(folder / "new-houses.csv", index=False)
    houses[500:].to_csv(folder / "labelled.csv", index=False)
    species = rng.choice(["setosa", "versicolor", "virginica"], 300)
    petal = pd.Series(species).map({"setosa": 1.0, "versicolor": 4.0, "virginica": 6.0}) + rng.normal(0, 0.4, 300)
    pd.DataFrame({"petal": petal, "species": species}).to_parquet(folder / "iris.parquet", index=False)
    pixels = rng.integers(0, 256, (200, 28, 28), np.uint8)
    np.save(folder / "images.npy", pixels)
    for day in (1, 2):
        structs = [{"bytes": as_png(each), "path": None} for each in pixels]
        pd.DataFrame({"image": structs}).to_parquet(folder / f"day-{day}.parquet")
    for at, each in enumerate(pixels):
        brighter = (each // 2 + 128 * (at % 2)).astype(np.uint8)  # of cats
        kind = ("dog", "cat")[at % 2]
        for place in (f"pets/{kind}", f"new-pictures/{kind}", "photos"):
            (folder / place).mkdir(parents=True, exist_ok=True)
            Image.fromarray(brighter).save(folder / place / f"{at:03}.png")


def type_line(line: str) -> "subprocess.CompletedProcess[str]":
    """A command of ours without a shell, which would import all anew for each; anything else in one."""
    prepared = "".join(f"{typed}\n" for words, typed in BEFORE.items() if line.startswith(words))
    if prepared or not line.startswith("gradmill ") or OF_A_SHELL.search(line):
        return subprocess.run(["bash", "-ec", prepared + line], capture_output=True, text=True, timeout=600)
    return gradmill(*shlex.split(line)[1:], timeout=600)


@pytest.mark.slow
@pytest.mark.usefixtures("fashion_mnist", "on_server")
def test_every_line_does_what_it_says(artifacts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(artifacts.parent)
    monkeypatch.chdir(artifacts.parent)
    monkeypatch.setenv("DISPLAY", "")
    monkeypatch.setenv("GRADMILL_HOME", str(Path(__file__).parents[1]))
    monkeypatch.setenv("PATH", f"{Path(GRADMILL).parent}:{os.environ['PATH']}")
    failed = {}
    for line in ["gradmill register", "gradmill retrain", *lines()]:
        done = type_line(line)
        print(f"$ {line}\n{done.stdout}{done.stderr}")
        if done.returncode:
            failed[line] = f"{done.returncode}: {done.stderr[-600:]}"
    assert not failed
