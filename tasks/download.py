"""Stage 1: get the raw files, from wherever they can be had, verified."""

from typing import Any

from tasks.data.book_datasets import SourceUnreachable, find_dataset
from tasks.machine.run_messages import tell
from tasks.parameters import Data
from tasks.records import RawDataset
from tasks.stage import stage
from tasks.store.run_folder import RunFolder


def _nothing_answered(task: Any, task_run: Any, state: Any) -> bool:
    """Retry what may pass; a wrong digest stays wrong."""
    return isinstance(state.result(raise_on_failure=False), SourceUnreachable)


@stage(retries=2, retry_delay_seconds=[2, 8], retry_condition_fn=_nothing_answered)
def download(run: RunFolder, dataset: str, data: Data) -> RawDataset:
    """Bring the raw files of ``dataset`` into ``artifacts/datasets/``; a filled cache touches no network.

    Own data are found where they are, and it is noted how they look.

    Raises:
        DataError: no source has the files (after two more tries), or what they have fails its checksum.
    """
    raw = find_dataset(dataset, data).fetch()
    if not raw.files:
        tell(told := "own data stay where they are" if raw.look else "nothing: they are generated", short=told)
    return raw
