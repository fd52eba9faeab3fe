"""How well a table can be learned, before anything is trained on it."""

from pathlib import Path

import numpy as np

from tasks.data.table import fitting, writing
from tasks.data.table.examining import Rows
from tasks.data.table.fixed import FixedRecipe
from tasks.judging.objective import Objective, balancing
from tasks.judging.standards import KeyedRows, Standards
from tasks.parameters import Loss
from tasks.serving.task import TASKS


def losses(
    recipe: FixedRecipe, rows: Rows, scratch: Path, class_weight: str = "none", weight_decay: float | None = None
) -> dict[str, float]:
    """The test losses of the best constant and of the converged fit, by the objective that training has.

    ``weight_decay`` None is the one that training takes by rule.

    Both splits are written to the folder ``scratch``, as a retrain would to the store, so that memory need not hold
    them and the figures are those of its gates.
    """
    train, test = (writing.arrays(rows, recipe, split, scratch) for split in ("train", "test"))
    fitted = fitting.fitted(recipe, train, rows.has_missing)
    truth = TASKS[recipe.task].target
    counts: tuple[int, ...] = ()
    objective = Objective(Loss.SQUARED, weight_decay or 0.0, scale=fitted.target.scale if fitted.target else 1.0)
    if recipe.class_names:
        counts = tuple(np.bincount(train[truth], minlength=len(recipe.class_names)).tolist())
        decay = 1 / len(train[truth]) if weight_decay is None else weight_decay
        objective = Objective(Loss.CROSS_ENTROPY, decay, balancing(counts) if class_weight == "balanced" else ())
    of_train, of_test = (KeyedRows(each["features"], each[truth], each["split_key"]) for each in (train, test))
    return Standards.between(of_train, of_test, fitted, counts, objective, recipe.split.rule == "time").metrics
