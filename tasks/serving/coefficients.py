"""What a model of an own table has learned, in the units of the data, the largest first; plain numbers only."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tasks.data.recipe import Columns

SHOWN = 20


class Coefficient(NamedTuple):
    """How the prediction, or the log odds of a class, change: with a unit of a column, or at a level."""

    name: str
    value: float
    size: float  # with a standard deviation of the column, or at the level: what makes columns comparable


def largest(
    metrics: Mapping[str, Any], recipe: Columns, class_names: Sequence[str] = (), count: int = SHOWN
) -> list[Coefficient]:
    """The ``count`` coefficients of the largest size, by the metrics' ``weights``; of two classes those of the second.

    Empty where the metrics have none, as those of very wide models.
    """
    weights = metrics.get("weights")
    if not isinstance(weights, Mapping):
        return []
    found = list(_of_classes(weights, recipe, class_names) if class_names else _of_columns(weights, recipe))
    return sorted(found, key=lambda each: -abs(each.size))[:count]


def _of_classes(weights: Mapping[str, Any], recipe: Columns, class_names: Sequence[str]) -> Iterator[Coefficient]:
    """Against the mean of all classes' scores; of two classes the second's against the first's."""
    if len(class_names) == 2:
        first, second = (dict(_named(weights[name])) for name in class_names)
        yield from _sized(((name, value - first[name]) for name, value in second.items()), recipe)
        return
    for class_name in class_names:
        for each in _of_columns(weights[class_name], recipe):
            yield each._replace(name=f"{class_name}: {each.name}")


def _of_columns(weights: Mapping[str, Any], recipe: Columns) -> Iterator[Coefficient]:
    return _sized(_named(weights), recipe)


def _named(weights: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str | None], float]]:
    """Every number under its column and, of a category, its level."""
    for column, value in weights.items():
        if isinstance(value, Mapping):
            for level, effect in value.items():
                yield (column, level), effect
        else:
            yield (column, None), value


def _sized(named: Any, recipe: Columns) -> Iterator[Coefficient]:
    scales = {column.name: column.scale for column in recipe.columns}
    for (column, level), value in named:
        name = column if level is None else f"{column} = {level}"
        yield Coefficient(name, value, value if level is not None else value * scales[column])
