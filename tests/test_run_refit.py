"""``gradmill retrain --refit``, from outside: all rows are in the published weights, and none in what is compared."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
import safetensors.numpy
from sklearn.linear_model import LogisticRegression, Ridge

import gradmill
from command_line import refused, typed
from documents import ask, load, retrain
from table_files import written
from tasks.fitting import tables

Array = np.ndarray[Any, Any]
pytestmark = pytest.mark.usefixtures("prefect_api")
ROWS, NUM_CITIES, DECAY = 1500, 40, 1e-3
PENALTY = ("--shape", "linear", "--weight-decay", str(DECAY))
COEFFICIENTS = {"weights", "bias"}


def sales(rows: int = ROWS) -> pd.DataFrame:
    """So many cities that a weight of a city says a lot about the rows that it was fitted to."""
    rng = np.random.default_rng(0)
    area, city = rng.normal(120, 30, rows).round(2), rng.integers(0, NUM_CITIES, rows)
    price = (2000 * area + 3000 * city + rng.normal(0, 40_000, rows)).round()
    kind = np.where(area + rng.normal(0, 20, rows) > 120, "large", "small")
    return pd.DataFrame({"area": area, "city": [f"city {code:02}" for code in city], "price": price, "kind": kind})


@pytest.fixture(scope="module")
def made(module_folder: Path) -> Path:
    """The same rows without and with a refit, and classes."""
    table = written(module_folder / "t.csv", sales())
    retrain("linear-regression", "plain", table, "--ignore", "kind", *PENALTY, target="price")
    retrain("linear-regression", "all", table, "--ignore", "kind", *PENALTY, "--refit", target="price")
    chosen = ("--features", "area", "--shape", "linear", "--refit")
    retrain("softmax-regression", "kinds", table, *chosen, target="kind")
    return module_folder


@pytest.fixture
def store(made: Path, artifacts: Path) -> Path:
    """A copy of the store, to be added to."""
    shutil.copytree(made / "artifacts", artifacts)
    return artifacts


def manifest(store: Path, name: str, version: int = 1) -> Any:
    return load(store / f"models/{name}/{version}/manifest.json")


def read_rows(store: Path, name: str, part: str, version: int = 1) -> tuple[Array, Array]:
    """The raw features and the truth of a part of a version's data."""
    arrays = safetensors.numpy.load_file(store / manifest(store, name, version)["dataset"][part]["path"])
    return arrays["features"].astype(np.float64), arrays["labels" if "labels" in arrays else "target"]


def encode(features: Array, train: Array) -> Array:
    """The standardised area and an indicator of each city; beyond the training part an area is its largest."""
    area = np.clip(features[:, 0], train[:, 0].min(), train[:, 0].max())
    columns = [(area - train[:, 0].mean()) / train[:, 0].std()]
    columns += [features[:, 1] == code for code in range(NUM_CITIES)] if features.shape[1] > 1 else []
    return np.stack(columns, axis=1).astype(float)


def fit_ridge(features: Array, price: Array, train: Array) -> Ridge:
    return Ridge(alpha=DECAY * len(price), tol=1e-12).fit(encode(features, train), price)


def test_the_published_weights_are_those_of_scikit_learn_on_all_rows(made: Path) -> None:
    store = made / "artifacts"
    train, test = (read_rows(store, "all", part) for part in ("train", "test"))
    X, y = (np.concatenate(both) for both in zip(train, test, strict=True))
    frame = sales()
    cities = next(column["levels"] for column in manifest(store, "all")["recipe"]["columns"] if column["levels"])
    everything = np.stack([frame.area, frame.city.map(cities.index)], axis=1).astype(np.float32).astype(float)
    expected = fit_ridge(X, y, train[0]).predict(encode(everything, train[0]))
    model, without = (gradmill.load(name, store) for name in ("all", "plain"))
    assert model.predict(frame) == pytest.approx(expected, rel=1e-5)
    assert model.explain(frame).sum(axis=1) == pytest.approx(expected, rel=1e-5)
    assert np.abs(without.predict(frame) - expected).max() > 100
    assert manifest(store, "all")["trained"]["refit"]["num_examples"] == len(y) == ROWS


def test_penalties_that_were_cross_validated_are_the_same_c_of_scikit_learn_on_all_rows(made: Path) -> None:
    store = made / "artifacts"
    train, test = (read_rows(store, "kinds", part) for part in ("train", "test"))
    X, y = (np.concatenate(both) for both in zip(train, test, strict=True))
    decay = manifest(store, "kinds")["trained"]["fit"]["penalties"]["slopes"]
    reference = LogisticRegression(C=2 / (decay * len(train[1])), tol=1e-12, solver="newton-cholesky")
    reference.fit(encode(X, train[0]), y)
    frame = sales()
    expected = reference.predict_proba(encode(frame[["area"]].to_numpy(), train[0]))
    assert gradmill.load("kinds", store).predict_proba(frame) == pytest.approx(expected, abs=1e-5)


def test_figures_and_the_model_that_they_are_of_are_those_of_the_run_without_and_documents_say_so(made: Path) -> None:
    store = made / "artifacts"
    plain, refit = (manifest(store, name) for name in ("plain", "all"))
    for name in plain["metrics"].keys() - COEFFICIENTS:
        assert refit["metrics"][name] == plain["metrics"][name], name
    assert refit["metrics"]["weights"] != plain["metrics"]["weights"], "those that are published"
    assert refit["files"]["evaluated.onnx"] == plain["files"]["model.onnx"] != refit["files"]["model.onnx"]
    assert "evaluated.onnx" not in plain["files"]
    assert "refit" not in plain["trained"].keys() | plain["parameters"]["training"].keys()
    said = (
        f"fitted on all 1,500 rows; the figures are those of the model fitted on the {num_train(refit)} training rows"
    )
    folder = store / "models/all/1"
    assert all(said in (folder / page).read_text() for page in ("README.md", "index.html"))
    shown = typed("show", "all", "--no-browser", "--artifacts", store)
    assert f"weights     {said}" in shown.stdout


def num_train(document: Any) -> str:
    return f"{document['dataset']['num_train']:,}"


def test_a_candidate_is_compared_by_its_training_part_with_that_of_the_champion(store: Path, tmp_path: Path) -> None:
    grown = written(tmp_path / "grown.csv", sales(2000))
    report = ask("retrain", "all", "--data", grown, "--no-predict")
    assert (report["version"], report["refit_rows"]) == (2, 2000), "the option is kept with the name"
    (gate,) = [each for each in report["gates"] if each["name"] == "champion_loss"]
    assert gate["value"] == pytest.approx(report["metrics"]["test_loss"])
    train, test = read_rows(store, "all", "train"), read_rows(store, "all", "test", version=2)
    features, price = (np.concatenate(both) for both in zip(train, read_rows(store, "all", "test"), strict=True))
    ridges = [fit_ridge(features, price, train[0]) for features, price in (train, (features, price))]
    losses = [np.mean((ridge.predict(encode(test[0], train[0])) - test[1]) ** 2) / 2 for ridge in ridges]
    against = float(re.findall(r"against ([\d,.]+) of version 1", gate["detail"])[0].replace(",", ""))
    assert against == pytest.approx(losses[0], rel=1e-3)
    assert losses[1] < 0.99 * losses[0]
    compared = ask("compare", "all", "1", "2")
    assert [each["value"] for each in compared["gates"] if each["name"] == "champion_loss"] == [
        pytest.approx(gate["value"])
    ]
    last = ask("retrain", "all", "--no-refit", "--no-predict")
    assert (last["version"], last["refit_rows"]) == (3, None)
    assert last["model_sha256"] == manifest(store, "all", 2)["files"]["evaluated.onnx"]
    assert ask("retrain", "all", "--no-predict")["outcome"] == "unchanged", "and so is its end"


def test_evaluate_measures_no_row_by_weights_that_were_fitted_to_it_without_a_word(store: Path, made: Path) -> None:
    judged = ask("evaluate", "all")
    assert judged["metrics"] == pytest.approx(judged["published"], rel=1e-5)
    assert (judged["is_before_refit"], judged["trained_on"]) == (True, 0)
    assert judged["model_sha256"] == manifest(store, "all")["files"]["evaluated.onnx"]
    assert "the published ones were fitted on these rows, too" in typed("evaluate", "all").stdout
    its_own = ask("evaluate", "all", made / "t.csv")
    assert (its_own["is_before_refit"], its_own["trained_on"], its_own["rows"]) == (False, ROWS, ROWS)
    refused(4, f"evaluate all {made / 't.csv'} --unseen", "the version was trained on every row")
    assert ask("evaluate", "plain", made / "t.csv")["trained_on"] == manifest(store, "plain")["dataset"]["num_train"]
    notes = {
        name: load(Path(ask("predict", "--name", name)["path"]) / "_job.json")["notes"] for name in ("all", "plain")
    }
    assert [*notes["all"]] == ["that the weights were fitted to: their figures say nothing about new rows"]
    assert notes["plain"] == {}


def test_a_refit_that_has_not_converged_is_refused_and_published_nowhere(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = tables.refit_table
    monkeypatch.setattr(tables, "refit_table", lambda *given: replace(fit(*given), gradient=0.01))
    done = typed("retrain", "all", "--force", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["outcome"]) == (3, "refused")
    (gate,) = [each for each in report["gates"] if not each["passed"]]
    assert (gate["name"], gate["value"]) == ("converged", 0.01)
    assert [path.name for path in (store / "models/all").glob("[0-9]*")] == ["1"]


def test_copies_have_the_model_that_was_evaluated_and_damage_to_it_is_noticed(store: Path, tmp_path: Path) -> None:
    assert typed("mirror", "all", tmp_path).returncode == 0
    copied = tmp_path / "all/1/evaluated.onnx"
    kept = store / "models/all/1/evaluated.onnx"
    assert copied.read_bytes() == kept.read_bytes()
    assert ask("verify", "all")["missing"] == []
    assert typed("report", "all", "--output", tmp_path / "report.html").returncode == 0
    kept.chmod(0o644)
    kept.write_bytes(b"damaged")
    refused(4, "verify all", "evaluated.onnx has changed")


@pytest.mark.slow  # three commands in processes of their own
def test_a_frame_is_refit_from_python_until_it_is_told_otherwise(artifacts: Path, on_server: None) -> None:
    frame = sales().drop(columns="kind")
    for option, is_refit in (("refit", True), ("no_refit", False)):
        options: dict[str, Any] = {"artifacts": artifacts, "shape": "linear", option: True}
        model = gradmill.fit(frame, "price", "all", **options)
        assert ("refit" in manifest(artifacts, "all", model.version)["trained"]) is is_refit
