"""Own tables judged, from outside: what ``gradmill retrain`` refuses, compares and lets pass; what ``evaluate`` says.

Figures are worked out by numpy and scikit-learn from the rows themselves, or from the answers of ``gradmill predict``.
"""

import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from sklearn.linear_model import LinearRegression
from sklearn.metrics import accuracy_score, log_loss, r2_score, recall_score, root_mean_squared_error

from command_line import assert_clear, typed
from documents import ask, load, retrain
from table_files import written
from tasks.store import model_folder

Array = np.ndarray[Any, Any]
ROWS = 1200
pytestmark = pytest.mark.usefixtures("prefect_api")


def sales(count: int, seed: int = 0, start: str = "2024-01-01") -> pd.DataFrame:
    """Prices by area and city, on any of 300 days, of which the last sixty are the test part."""
    rng = np.random.default_rng(seed)
    day = rng.integers(0, 300, count)
    frame = pd.DataFrame({"area": rng.normal(120, 30, count).round(2), "city": rng.choice(["Ulm", "Köln"], count)})
    frame["sold"] = (pd.Timestamp(start) + pd.to_timedelta(day, "D")).strftime("%Y-%m-%d")
    frame["part"] = np.where(day < 240, "train", "test")
    frame["price"] = (2000 * frame.area + 30_000 * (frame.city == "Köln") + rng.normal(0, 20_000, count)).round()
    frame["kind"] = np.where(frame.price > 250_000, "dear", "cheap")
    return frame


def gates(report: Any) -> dict[str, Any]:
    return {each["name"]: each for each in report["gates"]}


class TrainedStore(NamedTuple):
    """What was trained on, and what the retrains printed."""

    folder: Path
    reports: dict[str, Any]


OPTIONS = {
    "prices": ["--target", "price", "--features", "area,city", "--time-column", "sold"],
    "kinds": ["--target", "kind", "--features", "area,city", "--split-column", "part"],
}


@pytest.fixture(scope="module")
def made(module_folder: Path) -> TrainedStore:
    """A regression whose rows are split by time, and a classifier."""
    reports, old = {}, written(module_folder / "old.csv", sales(ROWS))
    for name, model in (("prices", "linear-regression"), ("kinds", "softmax-regression")):
        reports[name] = ask("retrain", model, "--name", name, "--data", old, *OPTIONS[name], "--no-predict")
    return TrainedStore(module_folder, reports)


@pytest.fixture
def store(made: TrainedStore, monkeypatch: pytest.MonkeyPatch) -> TrainedStore:
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(made.folder / "artifacts"))
    return made


def split(frame: pd.DataFrame, share: float = 0.2) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Earlier and latest rows, cut at the day nearest to the share."""
    days = sorted(set(frame.sold))
    cut = min(days, key=lambda day: abs((frame.sold >= day).mean() - share))
    return frame[frame.sold < cut], frame[frame.sold >= cut]


def features(frame: pd.DataFrame) -> Array:
    return np.stack([(frame.area - 120) / 30, frame.city == "Köln", frame.city == "Ulm"], axis=1).astype(float)


# Baseline and reference


@pytest.mark.slow
def test_the_losses_are_those_of_numpy_and_scikit_learn_on_test_rows_and_of_inspect_on_training_rows(
    store: TrainedStore,
) -> None:
    train, test = split(sales(ROWS))
    trivial = np.mean((test.price - train.price.mean()) ** 2) / 2
    metrics = store.reports["prices"]["metrics"]
    assert metrics["baseline_loss"] == pytest.approx(trivial, rel=1e-6)
    fit = LinearRegression().fit(features(train), train.price)
    least = np.mean((test.price - fit.predict(features(test))) ** 2) / 2
    told = ask("inspect", store.folder / "old.csv", *OPTIONS["prices"])
    assert told["cv_losses"]["linear"] < 1.2 * least < told["baseline_loss"]
    assert (told["shape"] in told["cv_losses"], told["is_better"]) == (True, True)


def test_the_baseline_of_a_classifier_has_its_frequencies_and_of_a_class_that_came_late_there_is_no_reference(
    store: TrainedStore, tmp_path: Path
) -> None:
    frame = sales(ROWS)
    train, test = (frame[frame.part == part] for part in ("train", "test"))
    frequencies = np.tile([(train.kind == name).mean() for name in ("cheap", "dear")], (len(test), 1))
    expected = log_loss(test.kind, frequencies)
    assert store.reports["kinds"]["metrics"]["baseline_loss"] == pytest.approx(expected, rel=1e-6)
    late = written(tmp_path / "late.csv", frame.assign(kind=np.where(frame.sold > "2024-07-19", "late", frame.kind)))
    told = ask("inspect", late, "--target", "kind", "--features", "area", "--time-column", "sold")
    assert "reference_loss" not in told


# Champion and kept versions


@pytest.fixture
def kept(made: TrainedStore, artifacts: Path) -> TrainedStore:
    """A copy of the store, to be added to."""
    shutil.copytree(made.folder / "artifacts", artifacts)
    return made


@pytest.mark.usefixtures("kept")
def test_a_worse_candidate_is_refused_and_one_within_the_margin_passes_and_compare_shows_its_options(
    tmp_path: Path,
) -> None:
    train, test = split(sales(ROWS))
    for weight_decay, code in (("1", 3), ("0.001", 0)):
        report = ask("retrain", "prices", "--weight-decay", weight_decay, "--no-predict", code=code)
        found = gates(report)["champion_loss"]
        assert found["passed"] == (code == 0)
        assert f"of version 1 on {len(test)} test rows" in found["detail"]
        assert gates(report)["champion_signature"]["passed"]
    first, second = (find_loss(version, test, tmp_path) for version in (1, 2))
    maximum = 1.01 * first + (1e-3 * train.price.std(ddof=0)) ** 2 / 2
    assert (found["value"], found["maximum"]) == pytest.approx((second, maximum), rel=1e-5)
    assert ask("compare", "prices", "1", "2")["settings"] == {"weight_decay": [None, 0.001]}
    assert re.search(r"(?m)^weight decay +0\.001 *$", typed("compare", "prices", "1", "2").stdout)


@pytest.mark.slow
def test_a_version_is_measured_by_its_own_recipe_on_rows_with_levels_that_came_later(
    kept: TrainedStore, tmp_path: Path
) -> None:
    more = sales(600, seed=1)
    frame = pd.concat([sales(ROWS), more.assign(city=more.city.replace("Ulm", "Bonn"))])
    report = ask("retrain", "prices", "--data", written(tmp_path / "t.csv", frame), "--no-predict")
    (found,) = re.findall(r"against ([\d.,e+]+) of version 1", gates(report)["champion_loss"]["detail"])
    assert float(found.replace(",", "")) == pytest.approx(find_loss(1, split(frame)[1], tmp_path), rel=1e-3)


# Name, options, and what the gate says.
NOT_DECIDED = {
    "another loss": ("prices --loss huber", "version 1 was trained with loss squared"),
    "other weights of classes": ("kinds --class-weight balanced", "version 1 was trained with class weight none"),
    "no digests": ("prices --test 0.3 --new-recipe", "version 1 has no row digests"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", NOT_DECIDED)
@pytest.mark.usefixtures("kept")
def test_what_cannot_be_compared_decides_nothing_and_that_is_said(case: str, artifacts: Path) -> None:
    options, words = NOT_DECIDED[case]
    for path in (artifacts / "datasets/prices").glob("*.rows") if case == "no digests" else ():
        path.unlink()
    report = ask("retrain", *options.split(), "--no-predict")
    assert (report["version"], "champion_loss" in gates(report)) == (2, False)
    assert words in gates(report)["champion_not_compared"]["detail"]


RULES = [
    ["--test", "0.2"],
    ["--test", "0.5"],
    ["--time-column", "sold"],
    ["--split-by", "shop"],
    ["--split-column", "part"],
    ["--time-column", "sold", "--test", "0.5"],
]
AGAINST = re.compile(r"of version (\d+) on (\d+) test rows(?: \((\d+) left out: it was trained on them\))?")


def rows_of(artifacts: Path, version: int, part: str) -> list[tuple[float, ...]]:
    """The rows of a part of a version's data, as the store keeps them."""
    manifest = load(artifacts / f"models/own/{version}/manifest.json")
    arrays = safetensors.numpy.load_file(artifacts / manifest["dataset"][part]["path"])
    return [*map(tuple, np.column_stack([arrays["features"], arrays["target"]]).tolist())]


@pytest.mark.slow
def test_versions_are_compared_on_rows_that_neither_was_trained_on_whatever_rule_split_them(
    artifacts: Path, tmp_path: Path
) -> None:
    """The gate names the version against which the candidate does worst."""
    frame = sales(5000).drop_duplicates(["area", "city"])
    path = written(tmp_path / "t.csv", frame.assign(shop=np.arange(len(frame)) % 60))
    trained_on: dict[int, set[tuple[float, ...]]] = {}
    num_known = []
    for version, rule in enumerate(RULES, start=1):
        options = ("--features", "area,city", "--new-recipe", *rule)
        report = retrain("linear-regression", "own", path, *options, target="price")
        tests = rows_of(artifacts, version, "test")
        detail = gates(report)["champion_loss"]["detail"] if version > 1 else ""
        for number, rows, left_out in AGAINST.findall(detail):
            num_known.append(sum(row in trained_on[int(number)] for row in tests))
            assert (int(rows), int(left_out or 0)) == (len(tests) - num_known[-1], num_known[-1]), rule
        trained_on[version] = set(rows_of(artifacts, version, "train"))
        ask("prune", "own", "--keep", "1")
    assert len(num_known) >= len(RULES) - 1
    assert sum(each > 0 for each in num_known) >= 3


# Evaluation of kept versions


def predictions(path: Path, name: str, *options: str) -> pd.DataFrame:
    return pq.read_table(ask("predict", path, "--name", name, *options)["path"]).to_pandas()


def find_loss(version: int, frame: pd.DataFrame, tmp_path: Path) -> float:
    """That of a kept version of the prices, by its predictions."""
    path = written(tmp_path / f"rows for {version}.csv", frame)
    found = predictions(path, "prices", "--version", str(version)).prediction
    return float(np.square(found.to_numpy() - frame.price.to_numpy()).mean()) / 2


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_evaluate_judges_a_regression_by_rows_that_have_a_target_and_by_period(tmp_path: Path) -> None:
    new = sales(300, seed=1, start="2025-01-01")
    late = sales(20, seed=2, start="2025-01-01").assign(price=np.nan)
    path = written(tmp_path / "new.parquet", pd.concat([late, new]).assign(pool=1, **{" ": 2}))  # new columns, too
    predicted = predictions(path, "prices").prediction.to_numpy()[20:]
    judged = ask("evaluate", "prices", path, "--version", "1")
    assert [judged[name] for name in ("rows", "unlabelled", "trained_on", "worse")] == [300, 20, 0, []]
    figures = {"rmse": root_mean_squared_error(new.price, predicted), "r2": r2_score(new.price, predicted)}
    assert judged["metrics"] == pytest.approx(figures | {"loss": figures["rmse"] ** 2 / 2}, rel=1e-5)
    for name, (low, high) in judged["intervals"].items():
        assert low < judged["metrics"][name] < high
    errors = pd.Series(np.square(new.price.to_numpy() - predicted)).groupby(new.sold.str[:7].to_numpy())
    assert [(each["period"], each["rows"]) for each in judged["periods"]] == [*errors.size().items()]
    found = [each["metrics"]["rmse"] for each in judged["periods"]]
    assert found == pytest.approx([*np.sqrt(errors.mean())], rel=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_evaluate_says_what_is_worse_and_what_has_drifted(tmp_path: Path) -> None:
    """Areas are twice as large."""
    new = sales(1200, seed=1, start="2025-01-01")
    judged = ask("evaluate", "prices", written(tmp_path / "t.csv", new.assign(area=2 * new.area)))
    assert set(judged["worse"]) == {"rmse", "loss"}
    assert "area" in [each["column"] for each in judged["changes"] if each["rule"] == "drift"]


@pytest.mark.slow
def test_evaluate_counts_what_the_version_was_trained_on_and_leaves_it_out_where_asked(
    store: TrainedStore, tmp_path: Path
) -> None:
    (train, test), path = split(sales(ROWS)), store.folder / "old.csv"
    again = ask("evaluate", "prices", path)
    assert (again["rows"], again["trained_on"]) == (ROWS, len(train))
    without_time = ask("evaluate", "prices", written(tmp_path / "t.csv", test.drop(columns="sold")))
    assert without_time["trained_on"] is None, "nobody knows"
    kept = store.reports["prices"]["metrics"]
    for asked in ((path, "--unseen"), ()):
        judged = ask("evaluate", "prices", *asked)
        assert (judged["rows"], judged["worse"]) == (len(test), [])
        assert judged["metrics"] == pytest.approx(judged["published"], rel=1e-5)
        assert judged["published"]["rmse"] == pytest.approx(kept["rmse"])
        for found, before in zip(judged["periods"], kept["periods"], strict=True):
            assert (found["period"], found["rows"]) == (before["period"], before["rows"])
            assert found["metrics"] == pytest.approx(before["metrics"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_evaluate_judges_a_classifier_on_a_handful_of_rows_of_one_class(tmp_path: Path) -> None:
    new = sales(200, seed=1)
    path = written(tmp_path / "new.csv", new)
    found = predictions(path, "kinds")
    judged = ask("evaluate", "kinds", path, "--time-column", "sold")
    loss = log_loss(new.kind, found[["probability_cheap", "probability_dear"]])
    expected = {"accuracy": accuracy_score(new.kind, found.label_name), "loss": loss}
    assert judged["metrics"] == pytest.approx(expected, rel=1e-5)
    recalls = recall_score(new.kind, found.label_name, average=None, labels=["cheap", "dear"])
    assert judged["recall"] == pytest.approx(dict(zip(("cheap", "dear"), recalls, strict=True)))
    dear = new[new.kind == "dear"][:5].assign(city="Bonn")
    few = ask("evaluate", "kinds", written(tmp_path / "dear.csv", dear))
    assert (few["rows"], set(few["recall"])) == (5, {"dear"}), "the average stands in for a level that is new"
    assert_clear(typed("evaluate", "kinds", path, "--time-column=when"), 4)


@pytest.mark.slow
@pytest.mark.parametrize("unfit", [{"kind": "free"}, {"kind": np.nan}, {"area": np.inf}, {"area": "large"}])
@pytest.mark.usefixtures("store")
def test_advice_on_rows_that_evaluate_cannot_judge_by_names_no_option_of_a_retrain(
    unfit: dict[str, Any], tmp_path: Path
) -> None:
    rows = written(tmp_path / "unfit.csv", sales(20, seed=1).assign(**unfit))
    done = typed("evaluate", "kinds", rows)
    assert_clear(done, 4, "to do: remove these rows" if "free" in unfit.values() else "to do: correct the ")
    assert "--" not in done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_a_job_whose_truth_says_that_answers_are_much_worse_than_published_is_told_and_few_rows_tell_nothing(
    tmp_path: Path,
) -> None:
    new = sales(40, seed=7)
    labels = predictions(written(tmp_path / "new.csv", new), "kinds").label_name.to_numpy()
    others = np.where(labels == "dear", "cheap", "dear")
    for wrong in (5, 30):
        path = written(tmp_path / f"{wrong}.csv", new.assign(kind=np.where(np.arange(40) < wrong, others, labels)))
        assert ("accuracy" in ask("evaluate", "kinds", path)["worse"]) == (wrong == 30)
        done = typed("predict", path, "--name", "kinds")
        assert ("worse than at publication" in done.stdout + done.stderr) == (wrong == 30)
        told = {each["name"]: str(each["drift"]) for each in ask("status")["models"]}["kinds"]
        assert told.startswith("WORSE: accuracy 0.25 on 40 rows, ") == (wrong == 30)
    assert 'gradmill_last_prediction_worse{name="kinds"} 1.0' in typed("metrics").stdout
    copies = written(tmp_path / "copies.csv", pd.concat([pd.read_csv(path)[:1]] * 40))
    assert ask("evaluate", "kinds", copies)["worse"] == [], "they are one row"


# What no model can be learned from: exit code, three lines, and nothing published


RNG = np.random.default_rng(0)
X = RNG.normal(size=400)
Y = 3 * X + RNG.normal(size=400)
CLASSES = np.where(X + RNG.normal(size=400) > 0, "a", "b")


# Model, columns, options, exit code and what is found; exit code 0: a model is published all the same.
CASES: dict[str, tuple[str, dict[str, Any], str, int, str]] = {
    "a penalty that leaves no weight": ("softmax", {"x": X, "y": CLASSES}, "--weight-decay 1e30", 3, "refused by"),
    "next to no penalty of equal columns": ("linear", {"x": X, "z": X, "y": Y}, "--weight-decay 1e-20", 0, ""),
    "next to none of classes": ("softmax", {"x": X, "z": X, "y": CLASSES}, "--weight-decay 1e-13", 0, ""),
    "missing numbers": ("linear", {"x": np.where(np.arange(400) < 50, np.nan, X), "y": Y}, "", 0, ""),
    "a target of 1e30": ("linear", {"x": X, "y": Y * 1e30}, "", 0, ""),
    "values and a target of 1e-30": ("linear", {"x": X * 1e-30, "y": Y * 1e-30}, "", 0, ""),
    "values of 1e30": ("linear", {"x": X * 1e30, "y": Y}, "", 0, ""),
    "values of 1e-40": (
        "softmax", {"x": X * 1e-40, "y": CLASSES}, "", 3,
        "column 'x' loses most in float32: subtract an offset, change its unit, or leave it out with --ignore x",
    ),
    "seconds since 1970, which float32 rounds to 128": (
        "softmax", {"x": 1_700_000_000 + 9 * X.argsort().argsort(), "y": CLASSES}, "", 0, ""
    ),
    "balanced classes of two rows": (
        "softmax", {"x": X, "y": ["rare"] * 2 + [*CLASSES[2:]]}, "--class-weight balanced", 4, "class 'rare' has 2 rows"
    ),
    "more columns than rows": (
        "linear", {"y": Y} | {f"c{at}": RNG.normal(size=400) for at in range(600)}, "", 3, "refused by"
    ),
    "9,000 levels": (
        "linear", {"c": [f"level {at % 9000}" for at in range(126_000)], "y": np.arange(126_000) % 9000 % 7}, "", 0, ""
    ),
    "levels that are all rare": (
        "linear", {"c": [f"{at % 900}x" for at in range(3_600)], "y": np.arange(3_600) % 900 % 7}, "", 0, ""
    ),
}  # fmt: skip


def test_inspect_says_that_a_fit_is_no_better_than_the_constant(tmp_path: Path) -> None:
    noise = {f"c{at}": RNG.normal(size=400) for at in range(300)}
    for columns, is_worse in (({"x": X}, False), (noise, True)):
        told = typed("inspect", written(tmp_path / "t.parquet", columns | {"y": Y}), "--target", "y").stdout
        assert ("no better than the constant" in told) == is_worse
        assert ("try more rows or other columns" in told) == is_worse


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_learned_is_said_in_three_lines_and_nothing_is_published(case: str, tmp_path: Path) -> None:
    model, columns, options, code, found = CASES[case]
    given = ("--name", "m", "--data", written(tmp_path / "t.parquet", columns), "--target", "y", "--no-predict")
    done = typed("retrain", f"{model}-regression", *given, *options.split())
    assert done.returncode == code, done.stderr
    if code:
        assert_clear(done, code, found)
        assert_clear(
            typed("predict", "--name", "m"), 2, "no model named m", "to do: see why", "gradmill models m --runs"
        )
    assert model_folder.list_versions("m") == ([] if code else [1])
