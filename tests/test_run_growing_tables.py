"""A table that grows night by night: stopped where a day is broken, let through where the user says so, and told."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flows.pages.report import RetrainReport
from flows.retrain import retrain
from prefect_api import wait_for
from tasks.errors import DataError
from tasks.parameters import RetrainParameters
from tasks.store import artifact_paths, own_data, reading
from written_tables import written

RNG = np.random.default_rng(0)
FIRST = {"training": {"model": "linear-regression"}, "predict": False}


def day(number: int, rows: int = 600, unit: float = 1.0, city: str = "Rom") -> pa.Table:
    distance = RNG.lognormal(6, 0.5, rows)
    where = RNG.choice(["Bonn", city], rows)
    at = pa.array(
        np.datetime64("2024-01-01T00", "us") + number * np.timedelta64(86_400_000_000, "us") + np.arange(rows)
    )
    y = distance / 8 + 20 * (where == "Bonn") + RNG.normal(0, 8, rows)
    return pa.table({"at": at, "distance": distance * unit, "where": where, "y": y})


def again(**given: Any) -> RetrainReport:
    return retrain(RetrainParameters.model_validate(own_data.again("trips", {"predict": False} | given)))


def was_stopped(is_stopped: bool, event: dict[str, Any]) -> bool:
    return bool(event["payload"]["stopped"]) is is_stopped


def manifest(version: int) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((artifact_paths.version("trips", version) / "manifest.json").read_text())
    return read


@pytest.mark.slow
def test_nights_are_stopped_accepted_and_told_and_a_window_is_repeated(
    artifacts: Path, prefect_api: str, tmp_path: Path
) -> None:
    folder = tmp_path / "nights"
    for number in range(2):
        written(folder / f"day-{number}.parquet", day(number))
    data = {"source": str(folder), "target": "y", "time_column": "at"}
    retrain(RetrainParameters.model_validate({"name": "trips", "data": data, **FIRST}))
    written(folder / "day-2.parquet", day(2, unit=1000, city="Oslo"))
    with pytest.raises(DataError, match=r"1000 times what it was.*600 new rows of day-2\.parquet"):
        again()
    assert reading.versions("trips") == [1]

    report = again(data={"accept_data": True, "window": "2d"})
    assert (report.outcome, report.version) == ("published", 2)
    assert {each.rule for each in report.data_changes} == {"new-levels", "drift", "other-scale"}
    kept = manifest(2)
    assert kept["dataset"]["accepted"] == [{"rule": "other-scale", "column": "distance"}]
    assert "accept_data" not in kept["parameters"]["data"]
    found = json.loads((artifact_paths.version("trips", 2) / "data-report.json").read_text())
    assert (found["outside"], [each["accepted"] for each in found["findings"] if each["rule"] == "other-scale"]) == (
        600,
        [True],
    )
    for file in artifact_paths.version("trips", 2).iterdir():
        assert str(tmp_path).encode() not in file.read_bytes(), file.name

    written(folder / "day-3.parquet", day(3, unit=1000))
    report = again()
    assert (report.outcome, manifest(3)["dataset"]["accepted"]) == ("published", kept["dataset"]["accepted"])
    assert manifest(3)["parameters"]["data"]["window"] == "2d"
    assert not [each for each in report.data_changes if each.rule == "other-scale"]

    def stopping(stops: bool) -> Callable[[Any], bool]:
        return lambda each: each["payload"]["stopped"] == stops

    wanted: dict[str, Any] = {"filter": {"event": {"name": ["gradmill.data"]}}}
    told = [
        wait_for(prefect_api, "events/filter", wanted, functools.partial(was_stopped, is_stopped))
        for is_stopped in (True, False)
    ]
    assert [each["resource"]["prefect.resource.id"] for each in told] == ["gradmill.model.trips"] * 2
    severities = [{each["rule"]: each["severity"] for each in one["payload"]["findings"]} for one in told]
    assert severities == [
        {"new-levels": "warning", "drift": "warning", "other-scale": "error"},
        {"new-levels": "warning", "drift": "warning", "other-scale": "warning"},
    ]
    verdicts = {"artifacts": {"key": {"any_": ["trips-verdict"]}}, "sort": "CREATED_DESC"}
    page = wait_for(prefect_api, "artifacts/filter", verdicts, lambda each: "version 2" in each["data"][:40])["data"]
    assert "where has new levels: Oslo" in page
    assert "; accepted" in page
