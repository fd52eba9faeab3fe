"""Stage 3: rows that are fit to two splits that a trainer can map into memory, and the recipe fitted to them."""

from tasks.data.book_datasets import find_dataset
from tasks.data.prepared_splits import ValidatedDataset
from tasks.machine.run_messages import tell
from tasks.parameters import Data
from tasks.records import PreparedDataset
from tasks.stage import stage
from tasks.store.run_folder import RunFolder


@stage(reusable=True)
def preprocess(run: RunFolder, validated: ValidatedDataset, data: Data, seed: int) -> PreparedDataset:
    """The training and the test split as the model takes them, in safetensors, and their recipe.

    Inputs are as the recipe says (``images`` ``(n, height, width)`` uint8; ``features`` ``(n, columns)`` float32),
    the truth as the task does (``labels`` ``(n,)`` uint8, of many classes wider; ``target`` ``(n,)`` float32, of own
    data float64). Own data have a ``split_key`` ``(n,)`` uint64 too, by which a validation part is cut.

    Raises:
        DataError: a raw file is broken, or image and label counts differ.
    """
    prepared = find_dataset(validated.raw.name, data).prepare(validated, data, seed)
    sizes = f"{prepared.num_train:,} training and {prepared.num_test:,} test examples"
    tell(f"{sizes}, digest {prepared.digest[:16]}", short=sizes)
    return prepared
