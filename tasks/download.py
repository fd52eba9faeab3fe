"""Stage 1: fetch the raw files from any available source, and verify them."""

from typing import Any

from tasks.data.book_datasets import SourceUnreachable, find_dataset
from tasks.machine.run_messages import print_message
from tasks.parameters import Data
from tasks.records import RawDataset
from tasks.stage import stage
from tasks.store.run_folder import RunFolder


def _nothing_answered(task: Any, task_run: Any, state: Any) -> bool:
    """Retry failures that may pass; a wrong digest stays wrong."""
    return isinstance(state.result(raise_on_failure=False), SourceUnreachable)


@stage(retries=2, retry_delay_seconds=[2, 8], retry_condition_fn=_nothing_answered)
def download(run: RunFolder, dataset: str, data: Data) -> RawDataset:
    """Fetch the raw files of ``dataset`` into ``artifacts/datasets/``; a filled cache needs no network.

    Own data stay where they are, and their state is recorded.

    Raises:
        DataError: no source has the files (after two retries), or they fail their checksum.
    """
    raw = find_dataset(dataset, data).fetch()
    if not raw.files:
        print_message(
            told := "your own data stay where they are" if raw.look else "nothing: they are generated", short=told
        )
    return raw
