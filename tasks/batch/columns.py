"""What an own table's columns are like in the rows of a job, against what they were like where its model was trained.

Told, and no verdict: a column that moves moves the answers too, or does not matter.
"""

from collections.abc import Mapping

import numpy as np

from tasks.batch.version import Version
from tasks.data.readers import Chunk
from tasks.serving import drift

SAMPLE = 20_000  # rows of a job that are looked at, about: as many as are in a profile

Counts = Mapping[str, tuple[int, ...]]  # of each column, by the bins of its profile


def counted(chunk: Chunk, version: Version, job_rows: int) -> Counts:
    """Of every so-manieth row of a job, be they cut into chunks as they may."""
    if not version.columns or not len(chunk.rows):
        return {}
    from tasks.data.statistics import count_bins  # which jobs of other data need not import

    rows = np.asarray(chunk.values)[chunk.rows % max(1, job_rows // SAMPLE) == 0]
    return {each.name: count_bins(each, values) for each, values in zip(version.columns, rows.T, strict=True)}


def together(one: Counts, other: Counts) -> Counts:
    """Of both; parts that an older Gradmill has written count nothing."""
    both = {name: tuple(a + b for a, b in zip(one[name], other[name], strict=True)) for name in one if name in other}
    return {**one, **other, **both}


def moved(found: Counts, version: Version) -> dict[str, float]:
    """The population stability index of each column; none where too few rows were looked at."""
    return {
        each.name: drift.stability_index(each.counts, found[each.name])
        for each in version.columns
        if each.name in found and sum(each.counts) > 0 and sum(found[each.name]) >= drift.FEWEST_ROWS
    }
