"""Stage 3: turn valid rows into two splits that a trainer can memory-map, and fit the recipe."""

from tasks.data.book_datasets import find_dataset
from tasks.data.prepared_splits import ValidatedDataset
from tasks.machine.run_messages import print_message
from tasks.parameters import Data
from tasks.records import PreparedDataset
from tasks.stage import stage
from tasks.store.run_folder import RunFolder


@stage()
def preprocess(run: RunFolder, validated: ValidatedDataset, data: Data, seed: int) -> PreparedDataset:
    """The training and test splits as model inputs, in safetensors, and their recipe.

    The recipe determines the inputs (``images`` ``(n, height, width)`` uint8; ``features`` ``(n, columns)`` float32),
    the task the truth (``labels`` ``(n,)`` uint8, wider for many classes; ``target`` ``(n,)`` float32, for own data
    float64). Own data also have a ``split_key`` ``(n,)`` uint64, by which a validation part is cut.

    Raises:
        DataError: a raw file is broken, or image and label counts differ.
    """
    prepared = find_dataset(validated.raw.name, data).prepare(validated, data, seed)
    sizes = f"{prepared.num_train:,} training and {prepared.num_test:,} test examples"
    print_message(f"{sizes}, digest {prepared.digest[:16]}", short=sizes)
    return prepared
