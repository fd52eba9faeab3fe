"""``gradmill metrics``: figures for Prometheus, by command, as a file and over HTTP."""

import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from candidate import write_job
from command_line import GRADMILL, answer, assert_clear, output, typed
from documents import load
from duty import free_port
from flows.server.metrics import HELP
from store_state import damage
from tasks.records import ChampionGates, GateVerdict
from tasks.store import artifact_paths
from tasks.store.run_folder import RunFolder

NAME = "linear-regression"
REFUSED = GateVerdict(name="champion_loss", value=2.0, maximum=1.0, passed=False, detail="")


def printed() -> dict[tuple[str, ...], float]:
    """The value of each sample by its name and its labels' values, the model's first."""
    found = {}
    for family in text_string_to_metric_families(output("metrics")):
        for each in family.samples:
            of_name = [each.labels.pop("name")] if "name" in each.labels else []
            key = (each.name.removeprefix("gradmill_"), *of_name, *each.labels.values())
            assert key not in found
            found[key] = each.value
    return found


def ran(day: int, **stages: Any) -> RunFolder:
    """A retrain's folder, with what it noted of its stages."""
    asked = {"name": NAME, "gates": {}, "training": {"model": NAME}}
    run = RunFolder.open(f"202611{day:02}T030000-{NAME}-0000000{day}", asked)
    for stage, record in stages.items():
        run.note(seconds={stage: 1.5})
        run.note(stages={stage: record})
    return run


def timestamp(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


@pytest.fixture
def life(two_versions: None) -> None:
    """Two versions, the second frozen; a run that found nothing changed, one refused; two jobs."""
    output(f"freeze {NAME}")
    ran(1, unchanged={"version": 2})
    evaluated = {"metrics": {"test_loss": 0.25}, "gates": []}
    ran(2, evaluate=evaluated, publish=ChampionGates(gates=(REFUSED,)).model_dump())
    drift = {"index": {"prediction": 0.5}, "maximum": 0.2, "verdict": "drift"}
    for day, more in ((20, {"rejects": 1}), (21, {"rejects": 3, "drift": drift})):
        facts = {"finished_at": f"2026-11-{day}T06:00:00+00:00", "seconds": 2.5, "rows": 40, "shards": [[0, 0, 40]]}
        write_job(artifact_paths.predictions(f"{day:016}"), NAME, 1, **facts, **more)


@pytest.mark.usefixtures("life")
def test_figures_are_what_the_documents_say() -> None:
    with ran(3).in_use():
        found = printed()
    pointer = load(artifact_paths.champion(NAME))
    manifest = load(artifact_paths.version(NAME, 2) / "manifest.json")
    outcomes = ("published", "unchanged", "judged", "refused", "running", "failed", "unfinished")
    told: dict[tuple[str, ...], float] = {("last_run_outcome", each): each == "refused" for each in outcomes}
    told |= {
        ("champion_version",): 2, ("frozen",): 1,
        ("champion_promoted_timestamp_seconds",): timestamp(pointer["promoted_at"]),
        ("champion_metric", "test_loss"): manifest["metrics"]["test_loss"],
        ("last_success_timestamp_seconds",): timestamp("2026-11-01T03:00:00+00:00"),
        ("last_run_metric", "test_loss"): 0.25,
        ("last_prediction_rows",): 40, ("last_prediction_rejected_rows",): 3,
        ("last_prediction_drift",): 1, ("last_prediction_drift_bound",): 0.2,
        ("last_prediction_drift_index", "prediction"): 0.5, ("last_prediction_worse",): 0,
    }  # fmt: skip
    of_name = {(key[0], *key[2:]): value for key, value in found.items() if key[1:2] == (NAME,)}
    assert {key: of_name.get(key) for key in told} == told


@pytest.mark.usefixtures("life")
def test_a_file_for_the_node_exporter_is_replaced_whole_and_can_be_read_by_it(tmp_path: Path) -> None:
    path = tmp_path / "collected" / "gradmill.prom"
    path.parent.mkdir()
    path.write_text("old")
    with path.open() as old:
        output(f"metrics --output {path}")
        assert old.read() == "old", "whoever reads it reads the one or the other"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & stat.S_IROTH
    families = {family.name for family in text_string_to_metric_families(path.read_text())}
    assert families <= {f"gradmill_{name}" for name in HELP}


def test_an_empty_folder_has_figures_too_and_json_has_the_same(artifacts: Path) -> None:
    found, document = printed(), answer("metrics")
    assert found["damaged_documents",] == 0
    assert {family["name"] for family in document["metrics"]} == {f"gradmill_{key[0]}" for key in found}
    assert document["damaged"] == []
    for wrong in (("--port", "8080", "--output", "x"), ("--output", artifacts.parent / "nowhere" / "g.prom")):
        assert_clear(typed("metrics", *wrong), 2)
    assert not (artifacts.parent / "nowhere").exists()


@pytest.mark.usefixtures("life")
@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: promtool)")
def test_promtool_finds_nothing_to_say() -> None:
    text = output("metrics")
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@contextmanager
def served(*options: str) -> Iterator[tuple[int, Any]]:
    """The port of ``gradmill metrics --port`` in a process of its own, and what it says."""
    port = free_port()
    command = [GRADMILL, "metrics", "--port", str(port), *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert f":{port}/metrics" in process.stderr.readline()
        yield port, process.stderr
        process.kill()


@pytest.mark.slow
@pytest.mark.usefixtures("life")
def test_who_asks_over_http_gets_the_figures_of_the_moment_and_the_workers_health() -> None:
    with served() as (worker, _), served("--health", f"http://127.0.0.1:{worker}/health") as (port, told):
        url = f"http://127.0.0.1:{port}"
        before = httpx.get(f"{url}/metrics")
        assert f'gradmill_champion_version{{name="{NAME}"}} 2.0' in before.text
        assert before.headers["content-type"].startswith("text/plain; version=")
        output(f"promote {NAME} 1")
        damage(next(artifact_paths.root().glob("runs/20261102*/run.json")), 0, 0x40)
        after = httpx.get(f"{url}/metrics").text
        for figure in (f'gradmill_champion_version{{name="{NAME}"}} 1.0', "gradmill_damaged_documents 1.0"):
            assert figure in after
        assert "left out: " in told.readline()
        assert httpx.get(f"{url}/health").status_code == 200, "a health that is asked on"
        assert_clear(typed("metrics", "--port", str(port)), 2)
    with served("--health", f"http://127.0.0.1:{worker}/health") as (port, _):
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 503, "no worker is there"
