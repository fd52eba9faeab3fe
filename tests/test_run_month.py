"""A month of nights on data that grow, by the commands that ``make month`` types (docs/month.py)."""

import importlib.util
import signal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from command_line import gradmill
from tasks.store import artifact_paths, atomic, model_folder, verification, verified_files
from tasks.store.record_base import files_in
from victims import fork, run_until


@pytest.fixture(scope="module")
def month() -> ModuleType:
    spec = importlib.util.spec_from_file_location("month", Path(__file__).parent.parent / "docs" / "month.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.usefixtures("on_server")
def test_a_month_of_nights_is_published_stopped_refused_and_judged_as_its_data_deserve(
    month: ModuleType, artifacts: Path
) -> None:
    told = list(month.Month(artifacts, gradmill).nights())
    story = {(each.night, each.what): each for each in told}
    outcomes: dict[str, set[int]] = {}
    for each in told:
        outcomes.setdefault(each.outcome, set()).add(each.night)
    assert outcomes["unchanged"] == {9, 20, 21}
    assert outcomes["refused"] == {12}
    assert outcomes["exit 4"] == {17}
    assert outcomes["judged"] == {28}
    assert outcomes["published"] == {*range(2, 32)} - {9, 12, 17, 20, 21, 28}
    assert "baseline" in story[12, "a bad join: targets of other rows"].why
    assert "distance" in story[17, "distances in thousands of miles"].why
    (strike,) = (each for each in told if each.night == 22)
    assert "hour" in strike.why, "the drift is told, and stops nothing"
    by_night = {each.night: each.champion for each in told}
    assert by_night[12] == by_night[11], "the champion stays"
    assert by_night[17] == by_night[16]
    assert by_night[28] == by_night[27] < max(by_night[26], by_night[27] + 1), "rolled back from, and frozen"
    assert by_night[29] > by_night[28], "unfrozen"
    for number in model_folder.list_versions("late"):
        verification.verify_version("late", number)


KILLS = {  # where a night is killed, and whether it leaves a version
    "tasks.data.own_rows:write_digests": False,  # splits half written
    "tasks.fitting.progress:find_kept_epoch": False,
    "tasks.store.version_page:describe_version": False,  # the staged version half filled
    "tasks.store.pointer:point_to": True,  # after the rename, before the pointer
    "tasks.store.own_data:remember": True,  # after the pointer
}


def kept_files() -> dict[Path, str]:
    """Every file of every version, all of which verify, with the data that their manifests name."""
    files: dict[Path, str] = {}
    for number in model_folder.list_versions("late"):
        verification.verify_version("late", number)
        for file in files_in(model_folder.find_manifest("late", number).dataset.model_dump(mode="json")):
            if file.path.parent == artifact_paths.dataset("late"):
                verified_files.check(file)
        files |= {path: atomic.file_digest(path) for path in artifact_paths.version("late", number).iterdir()}
    return files


def next_number() -> int:
    return max(model_folder.list_versions("late")) + 1


def assert_right(told: Any, month: Any, number: int, days: range) -> None:
    """A night that published ``number``, of the labelled rows of these days."""
    assert (told.outcome, told.champion) == ("published", number), told
    dataset = model_folder.find_manifest("late", number).dataset
    assert dataset.num_train + dataset.num_test == sum(month.days[day].late.count() for day in days)


@pytest.mark.slow  # five nights are killed, and each has another after it
def test_a_killed_night_loses_no_version_and_the_next_is_right(
    month: ModuleType, server: str, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", server)
    walk, day = month.Month(artifacts, gradmill), 2
    assert next(walk.nights()).champion == 1
    for moment, leaves_one in KILLS.items():
        before, number, champion, day = kept_files(), next_number(), walk.champion(), day + 1
        walk.arrives(day)
        victim = fork(run_until, moment, ["retrain", "late", "--no-predict", "--artifacts", str(artifacts)])
        victim.join()
        assert victim.exitcode == -signal.SIGKILL, f"{moment} has come"
        assert before.items() <= kept_files().items()
        assert next_number() == number + leaves_one
        if moment.endswith("point_to"):
            assert walk.champion() == champion, "the pointer is that of yesterday"
            assert_right(walk.retrain(day, "the same files"), walk, number, range(1, day + 1))
        number, day = next_number(), day + 1
        walk.arrives(day)
        assert_right(walk.retrain(day, "the next night"), walk, number, range(1, day + 1))
        if leaves_one:
            again = walk.retrain(day, "once more")
            assert (again.outcome, again.champion) == ("unchanged", number)
        assert before.items() <= kept_files().items()
        assert not list(artifact_paths.model("late").glob(".staging-*")), "nothing is left over"
