"""Own tables as preprocess leaves them, made with numpy alone, with weights that somebody has trained."""

import hashlib
from typing import Any

import numpy as np
import safetensors.numpy

from tasks.data.prepared_splits import write_split
from tasks.data.recipe import Column, Columns, SplitRule, Target
from tasks.parameters import Hyperparameters
from tasks.records import Epoch, PreparedDataset, TrainedModel
from tasks.store import atomic
from tasks.store.run_folder import RunFolder

Array = np.ndarray[Any, Any]


def column(name: str, values: Array, levels: tuple[str, ...] = ()) -> Column:
    """A column as it is fitted to training values; with levels, values are codes."""
    given = values[~np.isnan(values)].astype(np.float64)
    missing = {"num_missing": len(values) - len(given), "has_missing": len(given) < len(values)}
    if levels:
        counts = np.bincount(given.astype(int), minlength=len(levels))
        return Column(name=name, kind="category", levels=levels, counts=tuple(counts.tolist()), **missing)
    return Column(name=name, mean=float(given.mean()), scale=float(given.std()) or 1.0, **missing)


def prepare(
    features: Array,
    truth: Array,
    class_names: tuple[str, ...] = (),
    levels: dict[int, tuple[str, ...]] | None = None,
    rule: str = "rows",
    key: Array | None = None,
) -> PreparedDataset:
    """A fifth of the rows, by a random key (or the largest ``key``), are the test split."""
    features = features.astype(np.float32)
    rng = np.random.default_rng(0)
    key = rng.integers(0, 2**63, len(truth)).astype(np.uint64) if key is None else key
    in_test = key > np.quantile(key, 0.8)
    names = tuple(f"x{at}" for at in range(features.shape[1]))
    train = features[~in_test]
    columns = tuple(column(name, train[:, at], (levels or {}).get(at, ())) for at, name in enumerate(names))
    spread = {} if class_names else {"mean": truth[~in_test].mean(), "scale": truth[~in_test].std()}
    target = "labels" if class_names else "target"
    truth = truth.astype(np.uint8 if class_names else np.float64)
    files = {
        name: write_split("own", name, {"features": features[of], target: truth[of], "split_key": key[of]})
        for name, of in (("train", ~in_test), ("test", in_test))
    }
    counts = np.bincount(truth[~in_test], minlength=len(class_names)) if class_names else np.empty(0)
    return PreparedDataset(
        name="own",
        title="Own",
        identifier="own",
        digest=hashlib.sha256((files["train"].sha256 + files["test"].sha256).encode()).hexdigest(),
        **files,
        raw_test=files["test"],
        num_train=int((~in_test).sum()),
        num_test=int(in_test.sum()),
        recipe=Columns(columns=columns, target=Target(name="y", **spread)),
        task="classification" if class_names else "regression",
        class_names=class_names,
        split=SplitRule.model_validate({"rule": rule, "test": 0.2, "features": sorted(names)}),
        class_counts=tuple(int(count) for count in counts),
    )


def trained(run: RunFolder, prepared: PreparedDataset, weights: dict[str, Array]) -> TrainedModel:
    """What the stage ``train`` would return of these weights."""
    content = safetensors.numpy.save({name: each.astype(np.float32) for name, each in weights.items()})
    file = atomic.write_bytes(run.file("weights.safetensors"), content)
    accuracy = {"train_accuracy": 0.5, "test_accuracy": 0.5} if prepared.class_names else {}
    return TrainedModel(
        weights=file,
        device="cpu",
        learning_curve=(Epoch(epoch=1, train_loss=1.0, test_loss=1.0, **accuracy),),
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
