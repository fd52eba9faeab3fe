"""What trials are fitted to and measured on: a training part and a validation part, and never the test split."""

from typing import TypeVar

import torch

from tasks.data.recipe import Columns
from tasks.fitting import image_learning, learning, rules, tables
from tasks.fitting.learning import Parts, require_rows_to_choose_by
from tasks.networks.examples import Split
from tasks.networks.tables import Table
from tasks.parameters import Training
from tasks.records import PreparedDataset

E = TypeVar("E", Split, Table)
TrialParts = Parts[Split] | Parts[Table]


def of(prepared: PreparedDataset, training: Training, device: torch.device) -> TrialParts:
    """The training part, and the validation part, which stands in the place of the test split too.

    A share of ``training.validation``, or else a fifth: of the book's data a random one, by the seed; of own data by
    the rule of their split, or the part that they have themselves. Tables are in float64.

    Raises:
        UsageError: so few examples are left for training, or held out, that they say nothing.
        DataError: a file is missing or has changed since it was prepared.
    """
    share, recipe = training.validation or rules.VALIDATION, prepared.recipe
    if isinstance(recipe, Columns) and recipe.target is not None:
        return _measured_on_validation(*_of_table(prepared, share, device))
    if prepared.is_own:
        return _measured_on_validation(*image_learning.fitted_and_validation(prepared, share, device))
    generator = torch.Generator().manual_seed(training.seed_number)
    return _measured_on_validation(*learning.fitted_and_validation(prepared, share, generator, device))


def _of_table(prepared: PreparedDataset, share: float, device: torch.device) -> tuple[Table, Table]:
    table = tables.load(prepared, prepared.train, torch.float64).to(device)
    if prepared.validation:
        return table, tables.load(prepared, prepared.validation, torch.float64).to(device)
    return tables.cut(share, prepared, table)


def _measured_on_validation(fitted: E, validation: E | None) -> Parts[E]:
    assert validation is not None  # noqa: S101  (the share is never 0)
    require_rows_to_choose_by(validation)
    return Parts(fitted, validation, validation)
