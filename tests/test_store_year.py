"""Night after night on data that grow: what is kept stays bounded, and stays judgeable."""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from candidate import plain
from store_state import age_demotions
from tasks.download import download
from tasks.evaluate import evaluate
from tasks.export import export
from tasks.judging import gates, parity, plots
from tasks.parameters import RetrainParameters
from tasks.preprocess import preprocess
from tasks.publish import publish
from tasks.records import PublishedModel
from tasks.stage import cache
from tasks.store import (
    artifact_paths,
    atomic,
    housekeeping,
    own_data,
    pointer,
    reading,
    verified,
)
from tasks.store.record import files_in
from tasks.store.run_folder import RunFolder
from tasks.train import train
from tasks.validate import validate

NAME = "growing"
NIGHTS = int(os.environ.get("GRADMILL_TEST_NIGHTS", "20"))
KEEP = int(os.environ.get("GRADMILL_TEST_KEEP", "3"))  # versions, and runs
DAY = 24 * 3600


class Nights:
    """Retrains without Prefect, each a day after the last."""

    def __init__(self, data: Path) -> None:
        self.data, self.number, self.days = data, 0, 0
        self.rng = np.random.default_rng(0)
        document = {
            "name": NAME,
            "training": {"model": "linear-regression"},
            "data": {"source": str(data), "target": "y", "time_column": "day"},
        }
        self.parameters = RetrainParameters.model_validate(document)
        data.mkdir()
        for _ in range(6):
            self.day()

    def day(self, rows: int = 100) -> None:
        """One more file."""
        self.days += 1
        x, level = self.rng.normal(size=rows), self.rng.choice(["a", "b"], rows)
        y = 3 * x + (level == "a") + self.rng.normal(0, 0.3, rows)
        moment = np.datetime64("2026-01-01") + np.full(rows, self.days)
        pq.write_table(pa.table({"x": x, "level": level, "day": moment, "y": y}), self.data / f"{self.days:04}.parquet")

    def retrain(self) -> PublishedModel:
        """The stages of a retrain, noted and reused as a run does it."""
        self.number += 1
        asked = self.parameters
        folder = f"{20260000 + self.number}T030000-{NAME}-{self.number:08x}"
        run = RunFolder.open(folder, asked.model_dump(mode="json", exclude=own_data.NOT_KEPT))
        with run.in_use():
            raw = self._stage(download, run, asked.dataset, asked.data)
            validated = self._stage(validate, run, raw, asked.data, "regression", own_data.fixed(NAME))
            prepared = self._stage(preprocess, run, validated, asked.data, 0)
            trained = self._stage(train, run, prepared, asked.training)
            evaluated = self._stage(evaluate, run, prepared, trained, asked.training, asked.gates)
            exported = self._stage(export, run, prepared, trained, asked.training, asked.gates)
            self.validated = validated
            started = time.perf_counter()
            published: PublishedModel = self._stage(publish, run, asked, prepared, trained, evaluated, exported)
            self.seconds = time.perf_counter() - started
        return published

    def _stage(self, stage: Any, run: RunFolder, *arguments: Any) -> Any:
        function, name = plain(stage), stage.__name__
        is_reusable = name not in ("download", "publish")
        key = cache.make_key(name, dict(enumerate(arguments))) if is_reusable else ""  # type: ignore[arg-type]
        kept = cache.find_record(key, function.__annotations__["return"]) if is_reusable else None
        record = kept or function(run, *arguments)
        if is_reusable and kept is None:
            cache.keep_record(key, record)
        run.note(stages={name: record.model_dump(mode="json")})
        return record

    def pass_a_day(self) -> None:
        """Everything is a day older, and maintenance has been there."""
        age_demotions(NAME)
        for pattern in ("runs/*/run.json", "datasets/*/*.*", ".stages/*.json"):
            for path in artifact_paths.root().glob(pattern):
                moment = path.stat().st_mtime - DAY - 1
                os.utime(path, (moment, moment))
        housekeeping.prune(NAME, KEEP)
        housekeeping.prune_runs(KEEP)
        housekeeping.prune_datasets()


@pytest.fixture
def nights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nights:
    """Without what takes long and leaves nothing behind that matters here: pictures, and a process to serve in."""
    monkeypatch.setattr(plots, "save", lambda figure, path: atomic.write_bytes(path, b"a picture"))
    served = gates.judge("servability", 0, maximum=0)
    monkeypatch.setattr(parity, "judge_servability", lambda *arguments: (served,))
    return Nights(tmp_path / "days")


def counts() -> dict[str, int]:
    places = {
        "runs": "runs/*",
        "prepared": "datasets/*/*.*",
        "records": ".stages/*",
        "versions": f"models/{NAME}/[0-9]*",
    }
    return {what: len(list(artifact_paths.root().glob(place))) for what, place in places.items()}


def size() -> int:
    """Of all files, bytes."""
    return sum(path.stat().st_size for path in artifact_paths.root().rglob("*") if path.is_file())


def assert_judgeable() -> None:
    """Every file that a kept version names is there as it was."""
    for number in reading.versions(NAME):
        dataset = reading.manifest(NAME, number).dataset
        assert dataset.rows is not None
        for file in files_in(dataset.model_dump(mode="json")):
            if file.path.parent.name == NAME:
                verified.check(file)


@pytest.mark.slow  # a month of nights, each of which trains
def test_a_year_of_nights_stays_bounded_and_every_kept_version_judgeable(nights: Nights) -> None:
    """Two nights in ten bring nothing new; in every twenty there are a rollback and some frozen nights."""
    outcomes, most, seconds = [], counts(), []
    for night in range(NIGHTS):
        if night % 10 not in (4, 5):
            nights.day()
        if night % 20 == 11:
            pointer.rollback(NAME, "a bad day")
        if night % 20 == 14:
            pointer.freeze(NAME, frozen=False)
        outcomes.append(nights.retrain().outcome)
        seconds.append(nights.seconds)
        nights.pass_a_day()
        found = counts()
        most = {what: max(most[what], count) for what, count in found.items()}
        if night % 10 == 9:
            assert_judgeable()
            shown = f"{size() / 2**20:.1f} MiB, {np.mean(seconds[-10:]):.2f} s under the lock"
            print(night + 1, found, shown, flush=True)
    assert {*outcomes} >= {"published", "unchanged", "judged"}
    assert most["versions"] <= KEEP + 2, "the newest, the champion, and the one that a rollback goes to"
    assert most["runs"] <= 2 * most["versions"] + KEEP, "with runs that they reused"
    assert most["prepared"] <= 5 * most["runs"]
    assert most["records"] <= 5 * most["runs"]
    assert all(file.path.is_file() for file in files_in(nights.validated.model_dump(mode="json"))), "the last run's"
