"""Documents that commands print or keep, and what stands in them."""

import json
from pathlib import Path
from typing import Any

from command_line import ask as ask


def load(path: Path) -> Any:
    """A document that lies in the store."""
    return json.loads(path.read_text())


def inspect(source: Path | str, *options: str, code: int = 0) -> Any:
    """What is said of a table with the target ``y``, or whatever the options say."""
    named = any(each in options for each in ("--target", "--name"))
    return ask("inspect", source, *(() if named else ("--target", "y")), *options, code=code)


def column(found: Any, name: str) -> Any:
    (one,) = [each for each in found["columns"] if each["name"] == name]
    return one


def rules(found: Any, severity: str) -> dict[str, str]:
    """The findings of a severity: what was found, by rule and column."""
    said = [each for each in found["findings"] if each["severity"] == severity]
    return {f"{each['rule']} {each['column']}" if each["column"] else each["rule"]: each["found"] for each in said}


def retrain(model: str, name: str, source: Path | str, *options: str | Path, target: str = "y") -> Any:
    """The report of a model of a table that nothing is predicted by."""
    given = ("--name", name, "--data", source, "--target", target, "--no-predict")
    return ask("retrain", model, *given, *options)


def counts(found: Any) -> tuple[int, int, int]:
    return found["num_train"], found["num_validation"], found["num_test"]


def measure(name: str, source: Path, output: Path, *options: str | Path) -> list[float]:
    """The error of a model of numbers on all rows of a table, by ``evaluate`` and by ``predict``."""
    judged = ask("evaluate", name, source, *options)
    ask("predict", source, "--name", name, "--output", output, *options)
    job = load(output / "_job.json")
    assert job["rejects"] == 0
    return [judged["metrics"]["rmse"], job["metrics"]["rmse"]]
