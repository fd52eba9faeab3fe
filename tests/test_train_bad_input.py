"""What no model can be learned from, through ``gradmill retrain``: exit code, three lines, and nothing published."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import assert_clear, typed
from table_files import written
from tasks.store import reading

ROWS = 400
RNG = np.random.default_rng(0)
X = RNG.normal(size=ROWS)
Y = 3 * X + RNG.normal(size=ROWS)
CLASSES = np.where(X + RNG.normal(size=ROWS) > 0, "a", "b")
FAST = "--epochs 5 --batch-size 10"


def once(values: Any, value: Any, rows: int = 1) -> list[Any]:
    """The same with one value in the first rows."""
    return [value] * rows + list(values)[rows:]


# Model, columns, options, exit code and what is found; exit code 0: a model is published all the same.
CASES: dict[str, tuple[str, dict[str, Any], str, int, str]] = {
    "a learning rate that diverges": ("linear", {"x": X, "y": Y}, f"{FAST} --lr 1e3", 3, "train loss nan"),
    "one that diverges at once": ("linear", {"x": X, "y": Y}, f"{FAST} --lr 1e30 --implementation scratch", 3, "nan"),
    "one of classes": ("softmax", {"x": X, "y": CLASSES}, f"{FAST} --lr 1e30", 3, "at lr 1e+30"),
    "a penalty that leaves no weight": ("softmax", {"x": X, "y": CLASSES}, "--weight-decay 1e30", 3, "refused by"),
    "missing numbers": ("linear", {"x": once(X, np.nan, 50), "y": Y}, "", 0, ""),
    "an infinite value": ("linear", {"x": once(X, np.inf), "y": Y}, "", 4, "x is inf in row 0"),
    "a target of 1e30": ("linear", {"x": X, "y": Y * 1e30}, "", 0, ""),
    "a target of 1e-30": ("linear", {"x": X, "y": Y * 1e-30}, "", 0, ""),
    "values of 1e30": ("linear", {"x": X * 1e30, "y": Y}, "", 0, ""),
    "values of 1e-30": ("linear", {"x": X * 1e-30, "y": Y}, "", 0, ""),
    "balanced classes of two rows": (
        "softmax", {"x": X, "y": once(CLASSES, "rare", 2)}, "--class-weight balanced", 4, "class 'rare' has 2 rows"
    ),
    "more columns than rows": (
        "linear", {"y": Y} | {f"c{at}": RNG.normal(size=ROWS) for at in range(600)}, "", 3, "refused by"
    ),
    "9,000 levels": (
        "linear", {"c": [f"level {at % 9000}" for at in range(126_000)], "y": np.arange(126_000) % 9000 % 7}, "", 0, ""
    ),
    "levels that are all rare": (
        "linear", {"c": [f"{at % 900}x" for at in range(3_600)], "y": np.arange(3_600) % 900 % 7}, "", 3, "refused by"
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_learned_is_said_in_three_lines_and_nothing_is_published(
    case: str, prefect_api: str, artifacts: Path, tmp_path: Path
) -> None:
    model, columns, options, code, found = CASES[case]
    table = written(tmp_path / "t.parquet", columns)
    done = typed(
        *("retrain", f"{model}-regression", "--name", "m", "--data", table, "--target", "y"),
        *("--no-predict", *options.split()),
    )
    if code:
        assert_clear(done, code)
        assert found in done.stderr
    assert done.returncode == code, done.stderr
    assert reading.versions("m") == ([] if code else [1])
