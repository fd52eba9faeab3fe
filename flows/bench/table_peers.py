"""What training of tables is compared with, as their users write it: Vowpal Wabbit and scikit-learn."""

from pathlib import Path
from typing import Any

import numpy as np

from flows.bench import flights, measure
from tasks.errors import UsageError

PIECE = 500_000  # rows converted at once


def require_installed() -> None:
    """Fail before anything is measured.

    Raises:
        UsageError: a peer, or the data, are not installed.
    """
    flights.require_installed()
    for module in ("pandas", "sklearn", "vowpalwabbit"):
        try:
            __import__(module)
        except ImportError as error:
            raise UsageError(str(error), "the packages that tables are compared with", "run make bench") from error


def write_for_vowpal_wabbit(csv: Path) -> None:
    """Its own text files beside the CSV, training and test rows, which are no part of what is measured."""
    import pandas as pd  # type: ignore[import-untyped]

    for split in ("train", "test"):
        path = csv.with_suffix(f".{split}.vw")
        if path.exists():
            return
        with path.open("w") as file:
            for piece in pd.read_csv(csv, chunksize=PIECE):
                part = piece[piece[flights.SPLIT] == split]
                line = np.where(part[flights.TARGET] == "yes", "1", "-1") + " |c"
                for name in flights.CATEGORIES:
                    line = line + f" {name}=" + part[name].astype(str)
                line += " |n"
                for name in flights.NUMBERS:
                    line += f" {name}:" + (part[name] / 1000).round(6).astype(str)  # it wants numbers around one
                file.write("\n".join(line) + "\n")


def vowpal_wabbit(csv: Path) -> dict[str, float]:
    """Logistic, one pass over its own file: seconds of training, and log loss on the test rows."""
    import vowpalwabbit

    train, test, model, scores = (str(csv.with_suffix(end)) for end in (".train.vw", ".test.vw", ".model", ".scores"))

    def run(*arguments: str) -> None:
        vowpalwabbit.Workspace(arg_list=[*arguments, "--quiet"]).finish()

    seconds = measure.seconds(lambda: run("-d", train, "--loss_function", "logistic", "-b", "18", "-f", model))
    run("-d", test, "-t", "-i", model, "-p", scores, "--link", "logistic")
    chances = np.loadtxt(scores)
    is_late = np.array([line.startswith("1") for line in Path(test).read_text().splitlines()])
    return {"seconds": seconds, "log_loss": float(-np.log(np.where(is_late, chances, 1 - chances)).mean())}


def sgd() -> Any:
    """One pass and the next until its loss falls no more, its defaults."""
    from sklearn.linear_model import SGDClassifier

    return SGDClassifier(loss="log_loss", random_state=0)


def lbfgs() -> Any:
    """L-BFGS until it has converged."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=1000)


def scikit_learn(csv: Path, model: Any) -> dict[str, float]:
    """pandas, ``OneHotEncoder``, ``StandardScaler`` and a model: seconds from the CSV, log loss on the test rows."""
    import pandas as pd
    from sklearn.compose import make_column_transformer
    from sklearn.metrics import log_loss
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    encoder = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), list(flights.CATEGORIES)),
        (StandardScaler(), list(flights.NUMBERS)),
    )
    fitted = make_pipeline(encoder, model)

    def fit() -> Any:
        table = pd.read_csv(csv)
        train = table[table[flights.SPLIT] == "train"]
        fitted.fit(train, train[flights.TARGET])
        return table[table[flights.SPLIT] == "test"]

    seconds, test = measure.timed(fit)
    return {"seconds": seconds, "log_loss": float(log_loss(test[flights.TARGET], fitted.predict_proba(test)))}
