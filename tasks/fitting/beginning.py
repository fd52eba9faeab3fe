"""What learns a data set: as the book does, or, of a user's own table or pictures, by rules of their own."""

import torch

from tasks.data.recipe import Columns
from tasks.fitting import image_learning, table_learning
from tasks.fitting.building import build
from tasks.fitting.learning import Learning, epochs, parts
from tasks.parameters import Training
from tasks.records import PreparedDataset


def begin(training: Training, prepared: PreparedDataset, generator: torch.Generator, device: torch.device) -> Learning:
    """Read the data onto ``device`` and build what learns them.

    Raises:
        UsageError: so few examples are left for training, or held out, that they say nothing.
        DataError: a file is missing or has changed since it was prepared.
    """
    recipe = prepared.recipe
    if isinstance(recipe, Columns) and recipe.target is not None:
        return table_learning.begin(training, prepared, recipe, generator, device)
    if prepared.is_own:
        return image_learning.begin(training, prepared, generator, device)
    net, optimizer = build(training, prepared, generator, device)
    data = parts(prepared, training.validation, generator, device)
    of_epochs = epochs(net, optimizer, data, training, generator)
    return Learning(net, of_epochs, training, len(data.train), len(data.validation) if data.validation else 0)
