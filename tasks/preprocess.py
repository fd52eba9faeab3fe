"""Stage 2: raw files to two splits that a trainer can map into memory, named by their content."""

from tasks.data import splits
from tasks.data.datasets import DATASETS
from tasks.machine.telling import tell
from tasks.parameters import Data
from tasks.records import PreparedDataset, RawDataset
from tasks.stage import stage
from tasks.store.run_folder import RunFolder


@stage(reusable=True)
def preprocess(run: RunFolder, raw: RawDataset, data: Data, seed: int) -> PreparedDataset:
    """Write the training and the test split as the model takes them, in safetensors.

    Inputs are as the recipe says (``images`` ``(n, height, width)`` uint8; ``features`` ``(n, columns)`` float32),
    the truth as the task does (``labels`` ``(n,)`` uint8; ``target`` ``(n,)`` float32).

    Raises:
        DataError: a raw file is broken, or image and label counts differ.
    """
    dataset = DATASETS[raw.name]
    prepared = splits.prepare(dataset, dataset.read(raw, data, seed))
    tell(f"{prepared.num_train} training and {prepared.num_test} test examples, digest {prepared.digest[:16]}")
    return prepared
