"""What has moved since a model was trained: answers, by class or range, and the columns of own tables."""

from collections.abc import Sequence

from flows.story.blocks import Bold, said, table
from tasks.batch.plan import Version
from tasks.data.recipe import Columns
from tasks.machine.words import readable
from tasks.serving import drift
from tasks.serving.contract import LABEL
from tasks.store.predictions import Job

COLUMNS = 10  # that are told


def most(job: Job, version: Version) -> str:
    """What has moved most of what the verdict is about: ``bag 68 % of rows, 10 % at training``.

    Of labels and their confidence the label is told, if it is above the limit too.
    """
    index = job.drift.index if job.drift else {}
    above = [name for name, value in index.items() if job.drift and value > job.drift.maximum]
    name = LABEL if LABEL in above else max(index, key=lambda each: index[each])
    expected, found = version.reference[name], (job.profile or {})[name].counts
    at = drift.find_most_moved(expected.counts, found)
    word = said(version.labels[at]) if name == LABEL else f"{name} {_between(expected.edges, at)}"
    here, then = found[at] / sum(found), expected.counts[at] / sum(expected.counts)
    return f"{word} {100 * here:.0f} % of rows, {100 * then:.0f} % at training"


def names(job: Job) -> list[str]:
    """The columns that have drifted, by the limit of the job, the most first."""
    limit = job.drift.maximum if job.drift else 0
    return [name for name, value in _by_index(job) if value > limit]


def _by_index(job: Job) -> list[tuple[str, float]]:
    return sorted(job.column_drift.items(), key=lambda each: -each[1])


def labels(job: Job, version: Version) -> str:
    """The share of each label among the rows and in the model's answers on the test split; empty for regression."""
    if not job.profile or LABEL not in version.reference:
        return ""
    found, expected = job.profile[LABEL].counts, version.reference[LABEL].counts
    rows = [
        (said(label), f"{here / max(1, sum(found)):.1%}", f"{there / max(1, sum(expected)):.1%}")
        for label, here, there in zip(version.labels, found, expected, strict=True)
    ]
    return "## Labels\n\n" + table(("label", "these rows", "test split"), rows)


def columns(job: Job, version: Version) -> str:
    """The columns of an own table that have moved most, and where to; empty where there is nothing to compare."""
    profiles = {each.name: each for each in version.columns}
    rows = []
    for name, index in _by_index(job)[:COLUMNS]:
        expected, found = profiles[name].counts, job.column_counts[name]
        at, drifted = drift.find_most_moved(expected, found), name in names(job)
        shares = f"{found[at] / sum(found):.1%}", f"{expected[at] / sum(expected):.1%}"
        word = Bold(said(name)) if drifted else said(name)
        rows.append((word, f"{index:.3f}", _bin(name, at, version), *shares))
    if not rows:
        return ""
    return "## Columns\n\n" + table(("column", "index", "moved most", "these rows", "at training"), rows)


def _bin(name: str, at: int, version: Version) -> str:
    """One of a column's bins: a number's ranges or a category's levels, all other levels, missing."""
    profile = next(each for each in version.columns if each.name == name)
    if at == len(profile.counts) - 1:
        return "missing"
    if not profile.levels:
        return _between(profile.edges, at)
    if at == len(profile.levels) or not isinstance(version.recipe, Columns):
        return "other levels"
    column = next(each for each in version.recipe.columns if each.name == name)
    return said(column.levels[profile.levels[at]])


def _between(edges: Sequence[float], at: int) -> str:
    """A bin of numbers in words."""
    if not edges:
        return "any"
    ends = [readable(edge, 3) for edge in edges]
    if at == 0:
        return f"up to {ends[0]}"
    return f"above {ends[-1]}" if at == len(edges) else f"{ends[at - 1]} to {ends[at]}"
