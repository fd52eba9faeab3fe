"""A month of nights on data that grow, by the commands that ``make month`` types (docs/month.py)."""

import runpy
import signal
from pathlib import Path

import pytest

from command_line import gradmill
from conftest import REPOSITORY
from store_state import leftovers, whole_files
from tasks.store import model_folder
from victims import fork, run_until

Month = runpy.run_path(str(REPOSITORY / "docs" / "month.py"))["Month"]


# Those on which something happens, and one before; the files of the days between come with the next.
NIGHTS = (8, 9, 10, 12, 13, 17, 18, 22, 27, 28, 29)


@pytest.mark.slow
@pytest.mark.usefixtures("on_server")
def test_a_month_of_nights_is_published_stopped_refused_and_judged_as_its_data_deserve(artifacts: Path) -> None:
    month = Month(artifacts, gradmill)
    told = {2: next(month.nights())}
    for day in range(3, 30):
        if day in NIGHTS:
            told |= {each.night: each for each in month.night(day)}
        else:
            month.arrives(day)
    stopped = {12: "refused", 17: "exit 4", 28: "judged"} | {9: "unchanged"}
    rolled_back = {27: "done"}
    assert {night: each.outcome for night, each in told.items() if each.outcome != "published"} == stopped | rolled_back
    for night, why in {12: "baseline", 17: "distance", 22: "hour"}.items():  # a drift, which stops nothing
        assert why in told[night].why
    for night in stopped.keys() | rolled_back:
        before = max(each for each in told if each < night)
        assert told[night].champion == told[before].champion, "the champion stays, or is that of the night before"
    assert told[29].champion > told[28].champion, "unfrozen"
    assert whole_files("late")


KILLS = {  # where a night is killed, and whether it leaves a version
    "tasks.data.own_rows:write_digests": False,  # splits half written
    "tasks.fitting.tables:measure_training": False,
    "tasks.store.version_page:describe_version": False,  # the staged version half filled
    "tasks.store.pointer:point_to": True,  # after the rename, before the pointer
    "tasks.publish:_report_outcome": True,  # after the pointer
}


@pytest.mark.slow  # five nights are killed, and each has another after it
def test_a_killed_night_loses_no_version_and_the_next_is_right(
    server: str, artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publishes(number: int, what: str) -> None:
        """Tonight, and of the labelled rows of all days."""
        told = walk.retrain(day, what)
        assert (told.outcome, told.champion) == ("published", number), told
        dataset = model_folder.find_manifest("late", number).dataset
        rows = sum(walk.days[each].late.count() for each in range(1, day + 1))
        assert dataset.num_train + dataset.num_test == rows

    monkeypatch.setenv("PREFECT_API_URL", server)
    walk, day, highest = Month(artifacts, gradmill), 2, 1
    assert next(walk.nights()).champion == highest
    for moment, leaves_one in KILLS.items():
        before, champion, day = whole_files("late"), walk.champion(), day + 1
        walk.arrives(day)
        victim = fork(run_until, moment, ["retrain", "late", "--no-predict", "--artifacts", str(artifacts)])
        victim.join()
        assert victim.exitcode == -signal.SIGKILL, f"{moment} has come"
        assert before.items() <= whole_files("late").items()
        highest += leaves_one
        assert model_folder.list_versions("late")[-1] == highest
        if moment.endswith("point_to"):
            assert walk.champion() == champion, "the pointer is that of yesterday"
            publishes(highest, "the same files")
        highest, day = highest + 1, day + 1
        walk.arrives(day)
        publishes(highest, "the next night")
        if leaves_one:
            again = walk.retrain(day, "once more")
            assert (again.outcome, again.champion) == ("unchanged", highest)
        assert before.items() <= whole_files("late").items()
        assert leftovers() == []
