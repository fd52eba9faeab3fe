"""The page of a batch prediction: what has drifted and where to, the first rejected rows, and the last jobs."""

import re
from pathlib import Path

import pytest

import flows.cli.app
from candidate import Candidate
from flows.pages import run_pages
from flows.predict import predict
from prediction_jobs import FEATURES, NAME, predict_rows
from prefect_api import post
from tasks.errors import DataError
from tasks.parameters import PredictParameters
from tasks.store.page import render_markdown


def rows(path: Path, moved: float = 0, broken: int = 0) -> str:
    """A CSV of rows for the book's linear model; the first ``broken`` have no number in their second column."""
    lines = [f"{a + moved},{'' if number < broken else b}" for number, (a, b) in enumerate(FEATURES.tolist())]
    path.write_text("\n".join(["x1,x2", *lines]) + "\n")
    return str(path)


def test_a_page_names_input_rejects_and_the_last_jobs(
    prefect_api: str, candidates: list[Candidate], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    candidates[0].publish()
    predict_rows(input=rows(tmp_path / "monday.csv"))
    done = predict_rows(input=rows(tmp_path / "tuesday|.csv", moved=9, broken=12))
    page = render_markdown(run_pages.prediction_page(done))
    head, *_ = page.splitlines()
    shares = re.fullmatch(r"# DRIFT: prediction above (\S+) (\d+) % of rows, (\d+) % at training", head)
    assert shares, head
    assert int(shares[2]) > 90
    assert int(shares[3]) == 10, "a tenth of the test split lies above the last decile"
    for command in ("status", "metrics"):
        capsys.readouterr()
        assert flows.cli.app.run([command]) == 0
        assert head.removeprefix("# ") in " ".join(capsys.readouterr().out.split()), f"{command} says the same"
    assert f"`{tmp_path}/tuesday\\|.csv`" in page
    rejects = page.partition("## Rejected rows")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| tuesday\\\|.csv \| (\d+) \| (.*) \|$", rejects, re.MULTILINE)
    assert [int(row) for row, _ in listed] == list(range(10)), "the first ten of twelve"
    assert all(reason.startswith("x2 is ") for _, reason in listed)
    assert "All 12 are in" in rejects
    jobs = page.partition("## The last jobs")[2].splitlines()[4:]
    assert [line.split(" | ")[1:5] for line in jobs[:2]] == [
        ["1", "tuesday\\|.csv", "2,488", "12"],
        ["1", "monday.csv", "2,500", "0"],
    ]


def test_a_prediction_that_fails_has_a_page_that_says_what_to_do(
    prefect_api: str, candidates: list[Candidate], tmp_path: Path
) -> None:
    candidates[0].publish()
    source = rows(tmp_path / "broken.csv", broken=200)
    with pytest.raises(DataError, match="cannot be read"):
        predict(PredictParameters(name=NAME, input=source))
    wanted = {"artifacts": {"key": {"any_": [f"{NAME}-predictions"]}}, "sort": "CREATED_DESC"}
    page = post(prefect_api, "artifacts/filter", wanted)[0]["data"]
    assert page.startswith(f"# {NAME}: nothing was predicted")
    assert re.search(r"^\| \*\*Found\*\* \| .* of 2,500 rows cannot be read", page, re.MULTILINE)
    assert re.search(r"^\| \*\*To do\*\* \| .*--max-rejects", page, re.MULTILINE)
    assert f"| **Input** | `{source}` |" in page
