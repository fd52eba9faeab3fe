"""What is asked of a table: options that contradict each other, or what version 1 of a name fixed, are refused."""

from tasks.data.recipe import SplitRule
from tasks.data.table.fixed import FixedRecipe
from tasks.errors import UsageError
from tasks.parameters.own_data import OwnData

BY_COLUMN = {"split_by": "group", "time_column": "time", "split_column": "column"}
OTHER_NAME = "leave the option out, or keep the new table under another --name"


def rule_asked(data: OwnData) -> tuple[str, str] | None:
    """The split rule that goes by a column, and the column."""
    asked = [(rule, column) for option, rule in BY_COLUMN.items() if (column := getattr(data, option)) is not None]
    return asked[0] if asked else None


def rule_kept(data: OwnData, kept: FixedRecipe | None) -> SplitRule | None:
    """The rule that holds because version 1 fixed it."""
    return None if kept is None or data.new_recipe else kept.split


def split_by(data: OwnData, kept: FixedRecipe | None) -> tuple[str, str | None] | None:
    """The rule that holds and its column; None where version 1 is to find one that goes by no column."""
    rule = rule_kept(data, kept)
    return (rule.rule, rule.column) if rule else rule_asked(data)


def target(data: OwnData, kept: FixedRecipe | None) -> str | None:
    """The column to predict."""
    return kept.target if kept else data.target


def ignored(data: OwnData, kept: FixedRecipe | None) -> frozenset[str]:
    """The columns that are not even read."""
    rule = split_by(data, kept)
    used = {target(data, kept), rule and rule[1], *data.features}
    return frozenset((*data.ignore, *(kept.ignored if kept else ()))) - used


def as_text(data: OwnData, kept: FixedRecipe | None, is_classification: bool) -> frozenset[str]:
    """The columns of names: a class or a group ``01`` is no number, whatever all the others look like."""
    of_kept = [column.name for column in kept.columns if column.kind == "category"] if kept else []
    rule, classes = split_by(data, kept), target(data, kept) if is_classification else None
    groups = rule[1] if rule and rule[0] != "time" else None
    return frozenset(name for name in (*data.category, *of_kept, classes, groups) if name) - ignored(data, kept)


def require_sound(data: OwnData, kept: FixedRecipe | None) -> None:
    """Let options pass that can be meant.

    Raises:
        UsageError: a column is asked for as two things, or as another one than version 1 took it for.
    """
    if kept:
        _require_kept(data, kept)
    rule = split_by(data, kept)
    parts = {"the target": (target(data, kept),), "to split by": (rule and rule[1],), "a feature": data.features}
    for part, names in parts.items():
        if both := [name for name in names if name in data.ignore]:
            said = f"{both[0]} is {part} and is to be ignored"
            raise UsageError(said, "one of the two", "leave it out of --ignore")
    if rule and rule[1] == target(data, kept):
        said = f"{rule[1]} is the target and is to split the rows"
        raise UsageError(said, "another column", "split by a column that is known before the target")


def _require_kept(data: OwnData, kept: FixedRecipe) -> None:
    if data.target not in (None, kept.target):
        raise UsageError(f"the target {data.target}", f"{kept.target}, as version 1 fixed it", OTHER_NAME)
    asked = rule_asked(data)
    if asked and not data.new_recipe and asked != (kept.split.rule, kept.split.column):
        expected = f"the rule that version 1 fixed: {described(kept.split)}"
        action = "leave the option out, or fix the rule anew with --new-recipe"
        raise UsageError(f"a split by {asked[1]}", expected, action)
    kinds = {column.name: column.kind for column in kept.columns}
    others = {*kept.left_out, kept.target, kept.split.column, asked and asked[1]}
    if data.features and set(data.features) - others != set(kinds):
        expected = f"those that version 1 fixed: {', '.join(kinds)}"
        raise UsageError(f"the features {', '.join(data.features)}", expected, OTHER_NAME)
    if retyped := [name for name in data.category if kinds.get(name, "category") != "category"]:
        expected = f"a {kinds[retyped[0]]}, as version 1 took it"
        raise UsageError(f"{retyped[0]} as a category", expected, OTHER_NAME)


def described(rule: SplitRule) -> str:
    """A split rule in words."""
    of = f"{100 * rule.test:g} % of"
    return {
        "rows": f"{of} the rows, by a hash of their {'features' if rule.features else 'pixels'}",
        "copies": f"{of} the rows, by a hash of features, target and the number of the copy",
        "group": f"{of} the groups of {rule.column}, by hash",
        "time": f"the latest {100 * rule.test:g} % by {rule.column}",
        "column": f"as {rule.column} says",
        "folders": "as the data are divided into parts for training and for testing",
    }[rule.rule]
