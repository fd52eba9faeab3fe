"""A month of nights on data that grow, by the commands that ``make month`` types (docs/month.py)."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from command_line import gradmill
from tasks.store import reading, verification


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
    for number in reading.versions("late"):
        verification.verify_version("late", number)
