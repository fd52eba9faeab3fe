"""Own tables judged, from outside: what ``gradmill retrain`` refuses, compares and lets pass; what ``evaluate`` says.

Figures are worked out by numpy and scikit-learn from the rows themselves, or from the answers of ``gradmill predict``.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
from filelock import FileLock
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score, log_loss, r2_score, recall_score, root_mean_squared_error

from command_line import GRADMILL, assert_clear, typed
from prefect_api import eventually, use_server

if TYPE_CHECKING:
    from prefect.settings import Settings

Array = np.ndarray[Any, Any]
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


def written(path: Path, frame: pd.DataFrame) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)
    return path


def answered(*command: str | Path, expected: int = 0) -> Any:
    """The document of a command."""
    done = typed(*command, "--json")
    assert done.returncode == expected, done.stderr
    return json.loads(done.stdout)


def gate(report: Any, name: str) -> Any:
    (one,) = [each for each in report["gates"] if each["name"] == name]
    return one


def verdicts(report: Any) -> dict[str, bool]:
    return {each["name"]: each["passed"] for each in report["gates"]}


class Store(NamedTuple):
    """What was trained on, and what the retrains printed."""

    folder: Path
    reports: dict[str, Any]


OPTIONS = {
    "prices": ["--target", "price", "--features", "area,city", "--time-column", "sold"],
    "kinds": ["--target", "kind", "--features", "area,city", "--split-column", "part"],
}


@pytest.fixture(scope="module")
def made(server_settings: "Settings", tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A regression whose rows are split by time, and a classifier."""
    folder, reports = tmp_path_factory.mktemp("judged"), {}
    old = written(folder / "old.csv", sales(1000))
    with pytest.MonkeyPatch.context() as patch, use_server(server_settings):
        patch.setenv("GRADMILL_ARTIFACTS", str(folder / "artifacts"))
        for name, model in (("prices", "linear-regression"), ("kinds", "softmax-regression")):
            reports[name] = answered("retrain", model, "--name", name, "--data", old, *OPTIONS[name], "--no-predict")
    return Store(folder, reports)


@pytest.fixture
def store(made: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("GRADMILL_ARTIFACTS", str(made.folder / "artifacts"))
    return made


def split(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and test rows, cut at the day nearest to a fifth."""
    days = sorted(set(frame.sold))
    cut = min(days, key=lambda day: abs((frame.sold >= day).mean() - 0.2))
    return frame[frame.sold < cut], frame[frame.sold >= cut]


def features(frame: pd.DataFrame) -> Array:
    return np.stack([(frame.area - 120) / 30, frame.city == "Köln", frame.city == "Ulm"], axis=1).astype(float)


# Baseline and reference


def test_the_losses_of_inspect_are_those_of_numpy_and_scikit_learn_and_of_the_retrain(store: Store) -> None:
    frame = sales(1000)
    train, test = split(frame)
    fit = LinearRegression().fit(features(train), train.price)
    told = answered("inspect", store.folder / "old.csv", *OPTIONS["prices"])
    assert told["baseline_loss"] == pytest.approx(np.mean((test.price - train.price.mean()) ** 2) / 2, rel=1e-6)
    assert told["reference_loss"] == pytest.approx(np.mean((test.price - fit.predict(features(test))) ** 2) / 2)
    of_retrain = store.reports["prices"]["metrics"]
    for name in ("baseline_loss", "reference_loss"):
        assert of_retrain[name] == pytest.approx(told[name], rel=1e-9)


def test_the_losses_of_a_classifier_are_those_of_frequencies_and_of_a_converged_fit(store: Store) -> None:
    frame = sales(1000)
    train, test = (frame[frame.part == part] for part in ("train", "test"))
    frequencies = np.tile([(train.kind == name).mean() for name in ("cheap", "dear")], (len(test), 1))
    inputs = (features(each) * [30 / train.area.std(ddof=0), 1, 1] for each in (train, test))
    of_train, of_test = inputs
    fit = LogisticRegression(C=2, tol=1e-9, max_iter=1000).fit(of_train, train.kind)
    told = answered("inspect", store.folder / "old.csv", *OPTIONS["kinds"])
    assert told["baseline_loss"] == pytest.approx(log_loss(test.kind, frequencies), rel=1e-6)
    assert told["reference_loss"] == pytest.approx(log_loss(test.kind, fit.predict_proba(of_test)), rel=1e-3)
    of_retrain = store.reports["kinds"]["metrics"]
    for name in ("baseline_loss", "reference_loss"):
        assert of_retrain[name] == pytest.approx(told[name], rel=1e-9)


@pytest.mark.parametrize("class_weight", ["none", "balanced"])
def test_a_sound_model_of_a_rare_class_passes_balanced_or_not(class_weight: str, tmp_path: Path) -> None:
    """By accuracy it could not be told from the majority class, and balanced its unweighted log loss is worse."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(5000, 3))
    score = rows @ [1.5, -1.0, 0.5] + rng.logistic(size=5000)
    frame = pd.DataFrame(rows, columns=["a", "b", "c"])
    frame["kind"] = np.where(score > np.quantile(score, 0.97), "rare", "often")
    frame["part"] = np.where(np.arange(5000) % 5, "train", "test")
    report = answered(
        *("retrain", "softmax-regression", "--name", "rare", "--data", written(tmp_path / "t.csv", frame)),
        *("--target", "kind", "--split-column", "part", "--class-weight", class_weight, "--no-predict"),
    )
    assert report["outcome"] == "published"
    assert verdicts(report)["baseline"]
    train, test = (frame[frame.part == part] for part in ("train", "test"))
    share = (train.kind == "rare").mean()
    trivial = log_loss(test.kind, np.tile([1 - share, share], (len(test), 1)))
    figures = report["metrics"]
    if class_weight == "none":
        assert figures["baseline_loss"] == pytest.approx(trivial, rel=1e-6)
        assert figures["test_accuracy"] < (test.kind == "often").mean() + 0.02
    else:
        assert figures["baseline_loss"] == pytest.approx(np.log(2))
        assert figures["recall"]["rare"] > 0.6
        assert figures["test_loss"] > trivial


def test_a_half_trained_model_passes_the_baseline_and_is_refused_by_the_reference(
    artifacts: Path, tmp_path: Path
) -> None:
    """A step of half a gradient goes half the way where columns are standardised and independent."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(1000, 2)), columns=["a", "b"])
    frame["y"] = 3 * frame.a - 2 * frame.b + rng.normal(0, 0.5, 1000)
    command = ["retrain", "linear-regression", "--name", "own", "--data", written(tmp_path / "t.csv", frame)]
    steps = ["--epochs", "1", "--batch-size", "1000", "--lr", "0.5"]
    report = answered(*command, "--target", "y", *steps, expected=3)
    assert report["outcome"] == "refused"
    assert verdicts(report) == {"baseline": True, "reference": False}
    assert not (artifacts / "models/own").exists()


FAR = {
    "seconds since 1970": lambda rng: 1_700_000_000 + rng.integers(0, 3600, 1000),
    "tiny": lambda rng: rng.normal(0, 1e-40, 1000),
}


@pytest.mark.parametrize("target", ["price", "kind"])
@pytest.mark.parametrize("case", FAR)
def test_a_column_that_float32_cannot_tell_apart_is_refused_by_name(
    case: str, target: str, artifacts: Path, tmp_path: Path
) -> None:
    built = FAR[case](np.random.default_rng(0))
    frame = sales(1000).assign(built=built)
    frame["price"] += (80_000 * (built - built.mean()) / built.std()).round()
    frame["kind"] = np.where(frame.price > frame.price.median(), "dear", "cheap")
    model = "linear-regression" if target == "price" else "softmax-regression"
    done = typed(
        *("retrain", model, "--name", "own", "--data", written(tmp_path / "t.csv", frame), "--target", target),
        *("--features", "area,city,built", "--json"),
    )
    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    assert not verdicts(report)["parity_float64"]
    advice = "subtract an offset, change its unit, or --ignore"
    assert f"column 'built' loses most in float32: {advice} 'built'" in gate(report, "parity_float64")["detail"]
    assert not (artifacts / "models/own").exists()


# What validation holds out


def test_a_validation_part_has_whole_groups(artifacts: Path, tmp_path: Path) -> None:
    frame = sales(1200).assign(shop=np.arange(1200) // 30)
    answered(
        *("retrain", "linear-regression", "--name", "own", "--data", written(tmp_path / "t.csv", frame)),
        *("--target", "price", "--features", "area,city", "--split-by", "shop", "--validation", "0.25"),
        *("--no-predict",),
    )
    manifest = json.loads((artifacts / "models/own/1/manifest.json").read_text())
    assert manifest["metrics"] == 0


def test_a_validation_part_has_the_latest_rows_of_the_training_part(tmp_path: Path) -> None:
    """Of which the model knows nothing: it is that of the rows before."""
    frame = sales(1000)
    train, _ = split(frame)
    latest = sorted(set(train.sold))[-60]
    frame.loc[frame.sold >= latest, "price"] *= 2
    report = answered(
        *("retrain", "linear-regression", "--name", "own", "--data", written(tmp_path / "t.csv", frame)),
        *(*OPTIONS["prices"], "--validation", "0.25", "--no-predict"),
    )
    assert report["metrics"] == 0


# Champion and kept versions


def test_a_candidate() -> None:
    pass


# Evaluation of kept versions


def predictions(path: Path, name: str) -> pd.DataFrame:
    return pq.read_table(answered("predict", path, "--name", name)["path"]).to_pandas()


def test_evaluate_judges_a_regression_by_rows_that_have_a_target_and_by_period(store: Store, tmp_path: Path) -> None:
    new = sales(300, seed=1, start="2025-01-01")
    late = sales(20, seed=2, start="2025-01-01").assign(price=np.nan)
    path = written(tmp_path / "new.csv", pd.concat([late, new]))
    predicted = predictions(path, "prices").prediction.to_numpy()[20:]
    judged = answered("evaluate", "prices", path, "--version", "1")
    assert (judged["rows"], judged["unlabelled"], judged["trained_on"]) == (300, 20, 0)
    expected = {"rmse": root_mean_squared_error(new.price, predicted), "r2": r2_score(new.price, predicted)}
    for name, figure in expected.items():
        assert judged["metrics"][name] == pytest.approx(figure, rel=1e-5)
        low, high = judged["intervals"][name]
        assert low < figure < high
    assert judged["worse"] == []
    months = new.sold.str[:7].to_numpy()
    assert [(each["period"], each["rows"]) for each in judged["periods"]] == [
        (month, (months == month).sum()) for month in sorted(set(months))
    ]
    for each in judged["periods"]:
        rows = months == each["period"]
        figure = root_mean_squared_error(new.price[rows], predicted[rows])
        assert each["metrics"]["rmse"] == pytest.approx(figure, rel=1e-5)


def test_evaluate_counts_what_the_version_was_trained_on_and_leaves_it_out_where_asked(store: Store) -> None:
    train, test = split(sales(1000))
    again = answered("evaluate", "prices", store.folder / "old.csv")
    assert (again["rows"], again["trained_on"]) == (1000, len(train))
    for asked in ((str(store.folder / "old.csv"), "--unseen"), ()):
        judged = answered("evaluate", "prices", *asked)
        assert judged["rows"] == len(test)
        assert judged["metrics"] == pytest.approx(judged["published"], rel=1e-5)
        assert judged["published"]["rmse"] == pytest.approx(store.reports["prices"]["metrics"]["rmse"])
        assert judged["worse"] == []


CHANGES: dict[str, tuple[Any, set[str], bool]] = {
    "dearer": (lambda frame: frame.assign(price=frame.price + 20_000), {"rmse", "loss"}, False),
    "one row": (lambda frame: frame.assign(price=frame.price + 20_000)[:1], set(), False),
    "twice as large": (lambda frame: pd.concat([frame.assign(area=2 * frame.area)] * 4), {"rmse", "loss"}, True),
}


@pytest.mark.parametrize("case", CHANGES)
def test_evaluate_says_what_is_worse_and_what_has_drifted(case: str, store: Store, tmp_path: Path) -> None:
    change, worse, has_drifted = CHANGES[case]
    path = written(tmp_path / "t.csv", change(sales(300, seed=1, start="2025-01-01")))
    judged = answered("evaluate", "prices", path)
    assert set(judged["worse"]) == worse
    assert ("area" in [each["column"] for each in judged["changes"] if each["rule"] == "drift"]) == has_drifted


UNFIT: dict[str, tuple[Any, tuple[str, ...], int, str]] = {
    "no target": (lambda frame: frame.assign(price=np.nan), (), 4, "price"),
    "text for a number": (lambda frame: frame.assign(area=["many", *frame.area[1:]]), (), 4, "'many'"),
    "a column gone": (lambda frame: frame.drop(columns="city"), (), 4, "column city is missing"),
    "no such time": (lambda frame: frame, ("--time-column", "when"), 4, "no column when"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_evaluate_says_what_is_wrong_with_rows(case: str, store: Store, tmp_path: Path) -> None:
    change, options, code, words = UNFIT[case]
    done = typed("evaluate", "prices", written(tmp_path / "t.csv", change(sales(50, seed=1))), *options)
    assert_clear(done, code)
    assert words in done.stderr


def test_evaluate_judges_a_classifier_on_a_handful_of_rows_of_one_class(store: Store, tmp_path: Path) -> None:
    new = sales(200, seed=1)
    new.loc[0, "city"] = "Bonn"
    known = new[1:]
    found = predictions(written(tmp_path / "known.csv", known), "kinds")
    judged = answered("evaluate", "kinds", tmp_path / "known.csv", "--time-column", "sold")
    chances = found[["probability_cheap", "probability_dear"]].to_numpy()
    assert judged["metrics"]["accuracy"] == pytest.approx(accuracy_score(known.kind, found.label_name))
    assert judged["metrics"]["loss"] == pytest.approx(log_loss(known.kind, chances), rel=1e-5)
    recalls = recall_score(known.kind, found.label_name, average=None, labels=["cheap", "dear"])
    assert judged["recall"] == pytest.approx(dict(zip(("cheap", "dear"), recalls, strict=True)))
    assert len(judged["periods"]) == 10
    assert answered("evaluate", "kinds", written(tmp_path / "new.csv", new))["rows"] == 200, "the average stands in"
    dear = known[known.kind == "dear"][:5]
    assert set(answered("evaluate", "kinds", written(tmp_path / "dear.csv", dear))["recall"]) == {"dear"}
    free = written(tmp_path / "free.csv", dear.assign(kind="free"))
    assert_clear(typed("evaluate", "kinds", free), 4)
