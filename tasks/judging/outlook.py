"""How well own data can be learned, before anything is trained on them."""

from pathlib import Path

import numpy as np

from tasks.data import statistics
from tasks.data.image_dataset import ImageRows
from tasks.data.image_dataset import map_split as map_image_split
from tasks.data.prepared_splits import SPLIT_KEY, Arrays, PreviousSchema
from tasks.data.recipe import Recipe
from tasks.data.schema import ImageSchema, Schema
from tasks.data.table_rows import Rows, map_split
from tasks.judging.objective import Objective, balancing
from tasks.judging.standards import KeyedRows, Standards
from tasks.parameters import Loss
from tasks.serving.task import TASKS


def losses(
    recipe: Schema, rows: Rows, scratch: Path, class_weight: str = "none", weight_decay: float | None = None
) -> dict[str, float]:
    """The test losses of the best constant and of the converged fit, by the objective that training has.

    ``weight_decay`` None is the one that training takes by rule.

    Both splits are written to the folder ``scratch``, as a retrain would to the store, so that memory need not hold
    them and the figures are those of its gates.
    """
    train, test = (map_split(rows, recipe, split, scratch) for split in ("train", "test"))
    fitted = statistics.fit_recipe(recipe.columns, recipe.target, train, rows.has_missing)
    if recipe.class_names:
        return _of_classes(train, test, fitted, recipe, class_weight, weight_decay)
    objective = Objective(Loss.SQUARED, weight_decay or 0.0, scale=fitted.target.scale if fitted.target else 1.0)
    of_train, of_test = (_keyed(each, fitted, recipe) for each in (train, test))
    return Standards.between(of_train, of_test, fitted, (), objective, recipe.split.rule == "time").metrics


def of_images(
    fixed: ImageSchema,
    rows: ImageRows,
    scratch: Path,
    class_weight: str = "none",
    weight_decay: float | None = None,
) -> dict[str, float]:
    """The same of images; of those that are so many and so large that nothing is fitted to them, the first alone."""
    train, test = (map_image_split(split, rows, fixed, scratch) for split in ("train", "test"))
    return _of_classes(train, test, fixed.recipe, fixed, class_weight, weight_decay)


def _of_classes(
    train: Arrays, test: Arrays, recipe: Recipe, fixed: PreviousSchema, class_weight: str, weight_decay: float | None
) -> dict[str, float]:
    labels = train[TASKS[fixed.task].target]
    counts = tuple(np.bincount(labels, minlength=len(fixed.class_names)).tolist())
    decay = 1 / len(labels) if weight_decay is None else weight_decay
    objective = Objective(Loss.CROSS_ENTROPY, decay, balancing(counts) if class_weight == "balanced" else ())
    of_train, of_test = (_keyed(each, recipe, fixed) for each in (train, test))
    return Standards.between(of_train, of_test, recipe, counts, objective, fixed.split.rule == "time").metrics


def _keyed(arrays: Arrays, recipe: Recipe, fixed: PreviousSchema) -> KeyedRows:
    return KeyedRows(arrays[recipe.input.name], arrays[TASKS[fixed.task].target], arrays[SPLIT_KEY])
