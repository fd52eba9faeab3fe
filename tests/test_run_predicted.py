"""The page of a batch prediction: what has drifted and where to, the first rejected rows, and the last jobs."""

import json
import re
from pathlib import Path

import pytest

import flows.cli.app
from candidate import Candidate
from command_line import typed
from flows.pages import run_pages
from flows.pages.overview import headline
from flows.predict import predict
from prediction_jobs import FEATURES, NAME, predict_rows
from prefect_api import post
from tasks.errors import DataError
from tasks.parameters import PredictParameters
from tasks.store import artifact_paths, state
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


def test_a_job_counts_wherever_it_writes_and_its_figures_are_kept_without_its_paths(
    prefect_api: str, candidates: list[Candidate], tmp_path: Path
) -> None:
    candidates[0].publish()
    moved, second = rows(tmp_path / "moved.csv", moved=9), rows(tmp_path / "second.csv")
    for words in ([second], [moved], [second]):  # the last is done already, and older
        assert typed("predict", *words, "--name", NAME, "--output", tmp_path / Path(words[0]).stem).returncode == 0
    assert typed("predict", second, "--name", NAME, "--output", tmp_path / "second", "--max-drift", "9").returncode == 0
    for options in ((), ("--output", tmp_path / "split")):
        assert typed("predict", "--name", NAME, *options).returncode == 0, "of the test split, as each retrain does"

    def told() -> tuple[str, list[str]]:
        found = json.loads(typed("status", "--json").stdout)
        return str(found["models"][0]["drift"]), [each for each in found["attention"] if "done-elsewhere" in each]

    assert re.fullmatch(r"DRIFT: prediction above \S+ \d+ % of rows, 10 % at training", told()[0])
    assert told()[1] == []
    figures = typed("metrics").stdout
    assert f'gradmill_last_prediction_drift{{name="{NAME}"}} 1.0' in figures
    assert f'gradmill_prediction_jobs{{name="{NAME}",status="done"}} 3.0' in figures
    assert headline(state.read_name(NAME)).partition("; DRIFT in the prediction of ")[2]
    kept = {path.name: path for path in (artifact_paths.all_predictions() / ".done-elsewhere").iterdir()}
    assert kept.keys() == {f"{NAME}.input.json", f"{NAME}.test.json"}
    assert not any(str(tmp_path) in path.read_text() for path in kept.values())
    assert typed("maintain", "--keep", "1").returncode == 0
    assert told()[0].startswith("DRIFT")
    damaged = kept[f"{NAME}.input.json"]
    damaged.write_text("{")
    assert told() == ("None", [each for each in told()[1] if str(damaged) in each])
    assert typed("metrics").returncode == 4
    stable = typed("predict", second, "--name", NAME, "--output", tmp_path / "third")
    assert stable.returncode == 0
    assert told() == ("None", []), "the next job has written it anew"
    one = typed("predict", moved, "--name", NAME, "--output", tmp_path / "one.csv")
    assert one.returncode == 0
    assert told()[0].startswith("DRIFT")


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
