"""Tables made with numpy, prepared by hand as a run prepares own data: recipe, prepared splits, split keys."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from tasks.data.recipe import Column, Columns, SplitRule, Target
from tasks.records import PreparedDataset
from tasks.serving.contract import FEATURES
from tasks.serving.task import TASKS, TaskName
from tasks.store import artifact_paths, atomic
from tasks.store.record import FileRef

Array = NDArray[Any]


def column(name: str, values: Array, kind: Any = "number", num_levels: int = 0) -> Column:
    """What is fitted of the training rows of one column: ``values`` float32 with NaN where missing."""
    known = values[~np.isnan(values)].astype(np.float64)
    missing = {"num_missing": len(values) - len(known), "has_missing": len(known) < len(values)}
    if kind == "category":
        counts = np.bincount(known.astype(int), minlength=num_levels)
        levels = tuple(f"level {code}" for code in range(num_levels))
        return Column(name=name, kind=kind, levels=levels, counts=tuple(map(int, counts)), **missing)
    scale = float(known.std()) if kind == "number" else 1.0
    return Column(name=name, kind=kind, mean=float(known.mean()), scale=scale or 1.0, **missing)


def prepare(
    features: Array,
    truth: Array,
    is_test: NDArray[np.bool_],
    kinds: Sequence[str] = (),
    class_names: Sequence[str] = (),
    names: Sequence[str] = (),
    split_key: Array | None = None,
    is_validation: NDArray[np.bool_] | None = None,
) -> PreparedDataset:
    """Write the splits of a table; columns are numbers unless ``kinds`` says otherwise, codes have all levels."""
    features = features.astype(np.float32)
    watched = {} if is_validation is None else {"validation": is_validation}
    train = ~np.logical_or.reduce([is_test, *watched.values()])
    columns = []
    for at in range(features.shape[1]):
        kind = kinds[at] if kinds else "number"
        num_levels = int(np.nanmax(features[:, at])) + 1 if kind == "category" else 0
        columns.append(column(names[at] if names else f"x{at}", features[train, at], kind, num_levels))
    task: TaskName = "classification" if class_names else "regression"
    target, fitted = Target(name="y"), truth[train].astype(np.float64)
    if not class_names:
        target = Target(name="y", mean=float(fitted.mean()), scale=float(fitted.std()))
    keys = np.random.default_rng(0).integers(0, 2**63, len(truth)) if split_key is None else split_key
    files = {}
    for split, part in {"train": train, "test": is_test, **watched}.items():
        arrays = {
            FEATURES: features[part],
            TASKS[task].target: truth[part].astype(np.uint8 if class_names else np.float64),
            "split_key": keys[part].astype(np.uint64),
        }
        files[split] = _written(split, arrays)
    return PreparedDataset(
        name="own",
        digest="0" * 64,
        **files,
        raw_test=files["test"],
        num_train=int(train.sum()),
        num_test=int(is_test.sum()),
        recipe=Columns(columns=tuple(columns), target=target),
        task=task,
        class_names=tuple(class_names),
        class_counts=tuple(map(int, np.bincount(truth[train], minlength=len(class_names)))) if class_names else (),
        split=SplitRule(rule="rows", test=0.2),
    )


def _written(split: str, arrays: Mapping[str, Array]) -> FileRef:
    path = artifact_paths.split_file("own", split, "0" * 64)
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file({name: np.ascontiguousarray(each) for name, each in arrays.items()}, path)
    return FileRef(path=path, sha256=atomic.file_digest(path))
