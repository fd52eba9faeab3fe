"""Tables made with numpy, prepared by hand as a run prepares own data: recipe, prepared splits, split keys, weights."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from tasks.data.prepared_splits import write_split
from tasks.data.recipe import Column, Columns, Recipe, SplitRule, Target
from tasks.parameters import Hyperparameters
from tasks.records import Epoch, PreparedDataset, TableFit, TrainedModel
from tasks.serving.contract import FEATURES
from tasks.store import atomic
from tasks.store.run_folder import RunFolder

Array = NDArray[Any]


def column(name: str, values: Array, levels: Sequence[str] = (), kind: Any = "number") -> Column:
    """What is fitted of the training rows of one column, codes where it has levels; NaN is missing."""
    known = values[~np.isnan(values)].astype(np.float64)
    missing = {"num_missing": len(values) - len(known), "has_missing": len(known) < len(values)}
    if levels:
        counts = np.bincount(known.astype(int), minlength=len(levels))
        return Column(name=name, kind="category", levels=levels, counts=tuple(counts.tolist()), **missing)
    scale = float(known.std()) if kind == "number" else 1.0
    return Column(name=name, kind=kind, mean=float(known.mean()), scale=scale or 1.0, **missing)


def prepare(
    features: Array,
    truth: Array,
    is_test: NDArray[np.bool_] | None = None,
    kinds: Sequence[str] = (),
    class_names: Sequence[str] = (),
    names: Sequence[str] = (),
    split_key: Array | None = None,
    is_validation: NDArray[np.bool_] | None = None,
    levels: Mapping[int, tuple[str, ...]] | None = None,
) -> PreparedDataset:
    """Write the splits of a table; a fifth of the rows, by a random key, are tests unless ``is_test`` says otherwise.

    Columns are numbers unless ``kinds`` or ``levels`` say otherwise; codes without named levels have all to the last.
    """
    features = features.astype(np.float32)
    keys = np.random.default_rng(0).integers(0, 2**63, len(truth)) if split_key is None else split_key
    is_test = keys > np.quantile(keys, 0.8) if is_test is None else is_test
    watched = {} if is_validation is None else {"validation": is_validation}
    train = ~np.logical_or.reduce([is_test, *watched.values()])
    columns = []
    for at in range(features.shape[1]):
        kind, of_column = kinds[at] if kinds else "number", (levels or {}).get(at, ())
        if kind == "category":
            of_column = tuple(f"level {code}" for code in range(int(np.nanmax(features[:, at])) + 1))
        columns.append(column(names[at] if names else f"x{at}", features[train, at], of_column, kind))
    target, fitted = Target(name="y"), truth[train].astype(np.float64)
    if not class_names:
        target = Target(name="y", mean=float(fitted.mean()), scale=float(fitted.std()))
    arrays = {
        FEATURES: features,
        "labels" if class_names else "target": truth.astype(np.uint8 if class_names else np.float64),
        "split_key": keys.astype(np.uint64),
    }
    recipe = Columns(columns=tuple(columns), target=target)
    return write_prepared({"train": train, "test": is_test, **watched}, arrays, recipe, class_names)


def write_prepared(
    parts: Mapping[str, NDArray[np.bool_]],
    arrays: Mapping[str, Array],
    recipe: Recipe,
    class_names: Sequence[str],
    name: str = "own",
) -> PreparedDataset:
    """Write the rows of each part, and describe them as the stage ``preprocess`` does."""
    files = {
        split: write_split(name, split, {key: values[part] for key, values in arrays.items()})
        for split, part in parts.items()
    }
    counts = np.bincount(arrays["labels"][parts["train"]], minlength=len(class_names)).tolist() if class_names else ()
    features = tuple(sorted(recipe.names)) if isinstance(recipe, Columns) else ()
    return PreparedDataset(
        name=name,
        title=name,
        identifier=name,
        digest=hashlib.sha256((files["train"].sha256 + files["test"].sha256).encode()).hexdigest(),
        **files,
        raw_test=files["test"],
        num_train=int(parts["train"].sum()),
        num_test=int(parts["test"].sum()),
        recipe=recipe,
        task="classification" if class_names else "regression",
        class_names=tuple(class_names),
        class_counts=tuple(counts),
        split=SplitRule(rule="rows", test=0.2, features=features),
    )


def trained(run: RunFolder, prepared: PreparedDataset, weights: dict[str, Array]) -> TrainedModel:
    """What the stage ``train`` would return of these weights."""
    content = safetensors.numpy.save({name: each.astype(np.float32) for name, each in weights.items()})
    file = atomic.write_bytes(run.file("weights.safetensors"), content)
    if isinstance(prepared.recipe, Columns) and prepared.recipe.target:
        accuracy = 0.5 if prepared.class_names else None
        fit = TableFit(shape="linear", penalties={}, gradient=0.0, train_loss=1.0, train_accuracy=accuracy)
        return TrainedModel(weights=file, device="cpu", num_examples=prepared.num_train, fit=fit)
    accuracies = {"train_accuracy": 0.5, "test_accuracy": 0.5} if prepared.class_names else {}
    return TrainedModel(
        weights=file,
        device="cpu",
        learning_curve=(Epoch(epoch=1, train_loss=1.0, test_loss=1.0, **accuracies),),
        picture=file,
        kept_epoch=1,
        num_examples=prepared.num_train,
        num_validation=0,
        steps=Hyperparameters(
            num_epochs=1,
            batch_size=prepared.num_train,
            lr=0.5,
            weight_decay=1 / prepared.num_train if prepared.class_names else 0.0,
        ),
    )
