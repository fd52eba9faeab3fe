"""docker/prometheus/: rules and dashboard name figures that there are, and alerts fire when they should."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import REPOSITORY
from flows.server.metrics import HELP

FOLDER = REPOSITORY / "docker" / "prometheus"
RULES = FOLDER / "alerts.yaml"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "grafana.json").read_text())
ASKED = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
ASKED += [note["expr"] for note in DASHBOARD["annotations"]["list"]]
FIRED = [rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed (Debian: promtool)"
)


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_query_names_figures_that_there_are() -> None:
    named = [re.findall(r"gradmill_(\w+)", query) for query in (*ASKED, *FIRED)]
    assert all(named)
    assert {figure for each in named for figure in each} == HELP.keys(), "and each figure is in a query"
    listed = [each["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    assert {*re.findall(r"gradmill_(\w+)", *listed)} <= HELP.keys()


@needs_promtool
def test_prometheus_itself_takes_every_query_and_the_configuration(tmp_path: Path) -> None:
    promtool("check", "config", FOLDER / "prometheus.yaml")
    queries = [query.replace("$name", "a|b") for query in ASKED]
    assert not [query for query in queries if "$" in query]
    rules = [{"record": f"query_{number}", "expr": query} for number, query in enumerate(queries)]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "rules.yaml")


NAME = 'name="softmax-regression"'
WELL = {
    'build_info{version="1"}': "1x600",
    f"last_success_timestamp_seconds{{{NAME}}}": "0x600",
    f"frozen{{{NAME}}}": "0x600",
    f"last_prediction_rows{{{NAME}}}": "1000x600",
    f"last_prediction_rejected_rows{{{NAME}}}": "10x600",
    f"last_prediction_drift{{{NAME}}}": "0x600",
    f"last_prediction_worse{{{NAME}}}": "0x600",
    f"mirror_behind{{{NAME}}}": "0x600",
    "disk_size_bytes{}": "100x600",
    "disk_free_bytes{}": "10x600",
    "damaged_documents{}": "0x600",
    f'last_run_outcome{{{NAME},outcome="refused"}}': "0x600",
}


@pytest.mark.slow
@needs_promtool
@pytest.mark.parametrize(
    ("changed", "hours", "alert"),
    [
        ({}, 26, None),
        ({}, 27, "GradmillNoSuccess"),
        ({"build_info": None}, 1, "GradmillNoFigures"),
        ({"last_run_outcome": "1x600"}, 1, "GradmillRefused"),
        ({"last_prediction_drift": "1x600"}, 1, "GradmillDrift"),
        ({"last_prediction_worse": "1x600"}, 1, "GradmillDrift"),
        ({"last_prediction_rejected_rows": "11x600"}, 1, "GradmillRejects"),
        ({"frozen": "1x600", "last_success_timestamp_seconds": "0+600x600"}, 71, None),
        ({"frozen": "1x600", "last_success_timestamp_seconds": "0+600x600"}, 73, "GradmillFrozen"),
        ({"mirror_behind": "1x600"}, 2, "GradmillMirrorBehind"),
        ({"disk_free_bytes": "9x600"}, 1, "GradmillDiskLow"),
        ({"damaged_documents": "1x600"}, 1, "GradmillDamaged"),
    ],
)  # fmt: skip
def test_an_alert_fires_once_and_when_it_should(
    changed: dict[str, str | None], hours: int, alert: str | None, tmp_path: Path
) -> None:
    values = {figure: changed.get(figure.partition("{")[0], value) for figure, value in WELL.items()}
    told = [
        {"series": f"gradmill_{figure}".replace("{", f'{{instance="{worker}",'), "values": value}
        for figure, value in values.items()
        for worker in "ab"  # two of them tell the same
        if value
    ]
    fired = {"labels": f"{{alertname='{alert}'}}", "value": 1}
    firing = {"expr": "count by (alertname) (ALERTS{alertstate='firing'})", "eval_time": f"{hours}h"}
    asked = firing | ({"exp_samples": [fired]} if alert else {})
    test = {"interval": "10m", "input_series": told, "promql_expr_test": [asked]}
    path = tmp_path / "test.yaml"
    path.write_text(yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "10m", "tests": [test]}))
    promtool("test", "rules", path)
