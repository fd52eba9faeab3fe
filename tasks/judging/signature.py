"""Whether a model of today's data can stand where a kept version stands: what consumers rely on beyond the tensors."""

from collections.abc import Iterator
from itertools import zip_longest

from tasks.data.recipe import Column, Columns, Recipe
from tasks.records import PreparedDataset


def differences(recipe: Recipe, class_names: tuple[str, ...], prepared: PreparedDataset) -> tuple[str, ...]:
    """What of columns, codes and classes is not as a version had it; new levels may stand behind the old ones."""
    found = []
    if class_names != prepared.class_names:
        found.append(f"classes are {_some(prepared.class_names)}, and were {_some(class_names)}")
    if isinstance(recipe, Columns) and isinstance(prepared.recipe, Columns):
        found += _of_columns(recipe.columns, prepared.recipe.columns)
    elif recipe.kind != prepared.recipe.kind:
        found.append(f"inputs are {prepared.recipe.kind}, and were {recipe.kind}")
    return tuple(found)


def _of_columns(old: tuple[Column, ...], new: tuple[Column, ...]) -> Iterator[str]:
    for at, (was, now) in enumerate(zip_longest(old, new), start=1):
        if was is None or now is None or was.name != now.name:
            names = ("no column" if each is None else repr(each.name) for each in (now, was))
            yield "column {} is {}, and was {}".format(at, *names)
            return  # the others have only moved
        if was.kind != now.kind:
            yield f"column {now.name!r} is a {now.kind}, and was a {was.kind}"
        elif was.levels != now.levels[: len(was.levels)]:
            yield f"levels of {now.name!r} are {_some(now.levels)}, and were {_some(was.levels)}"


def _some(names: tuple[str, ...], count: int = 5) -> str:
    return ", ".join(map(repr, names[:count])) + (f", … ({len(names)})" if len(names) > count else "") or "none"
