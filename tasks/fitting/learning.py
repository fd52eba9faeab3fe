"""The parts of the data that training sees, and its epochs by what was asked for."""

from collections.abc import Iterator, Sized
from typing import Generic, NamedTuple, TypeVar

import torch

from tasks.errors import UsageError
from tasks.fitting.splits import load_split
from tasks.networks.examples import Examples, Split
from tasks.networks.training import Measured, Network, Optimizer, learning_rates, stop_early, train
from tasks.parameters import Training
from tasks.records import PreparedDataset

MIN_EXAMPLES = 10  # a validation loss of fewer is noise, and so are weights


E_co = TypeVar("E_co", bound=Examples, covariant=True)


class Parts(NamedTuple, Generic[E_co]):
    """What weights are fitted to, what is watched meanwhile, and the test split; all on one device."""

    train: E_co
    validation: E_co | None
    test: E_co


class Learning(NamedTuple):
    """A network and the epochs that train it, once they are asked for; ``training`` has every value that was found."""

    net: Network
    epochs: Iterator[Measured]
    training: Training
    num_examples: int  # that weights are fitted to
    num_validation: int
    num_slots: int = 0  # whose effects are kept: behind them lie those of unknown codes
    collinear: tuple[str, ...] = ()  # columns that others determine


def parts(prepared: PreparedDataset, share: float, generator: torch.Generator, device: torch.device) -> Parts[Split]:
    """Read both splits onto ``device`` and hold a random ``share`` of the training split out.

    Raises:
        UsageError: so few examples are left for training, or held out, that they say nothing.
        DataError: a file is missing or has changed since it was prepared.
    """
    fitted, validation = fitted_and_validation(prepared, share, generator, device)
    return Parts(fitted, validation, load_split(prepared, "test").to(device))


def fitted_and_validation(
    prepared: PreparedDataset, share: float, generator: torch.Generator, device: torch.device
) -> tuple[Split, Split | None]:
    """The same without the test split, which is not read."""
    train_split = load_split(prepared, "train").to(device)
    if not share:
        return train_split, None
    fitted, validation = train_split.without(share, generator)
    require_enough(share, len(fitted), len(validation))
    return fitted, validation


def require_enough(share: float, num_examples: int, num_validation: int) -> None:
    """Refuse parts that say nothing.

    Raises:
        UsageError: so few examples are left for training, or held out.
    """
    if min(num_examples, num_validation) < MIN_EXAMPLES:
        total = num_examples + num_validation
        raise UsageError(
            f"--validation {share:g} of {total} training examples holds out {num_validation} and leaves {num_examples}",
            f"at least {MIN_EXAMPLES} of each",
            f"use a share such as {0.1 if total >= 10 * MIN_EXAMPLES else 0.5}, more data, or no --validation",
        )


def require_validation(training: Training, validation: Sized | None) -> None:
    """Refuse to choose by a validation part that says nothing; ``validation`` is one that the data themselves have.

    Raises:
        UsageError: they have too few such rows, or patience has nothing to watch.
    """
    if validation is None and training.patience and not training.validation:
        raise UsageError(
            "--patience, and no row is one of validation", "rows to watch", "hold some out: --validation 0.1"
        )
    chooses = training.patience or training.weight_decay == "auto"
    if validation is not None and chooses:
        require_rows_to_choose_by(validation)


def require_rows_to_choose_by(validation: Sized) -> None:
    """Refuse to choose by a validation part that says nothing.

    Raises:
        UsageError: it has too few rows.
    """
    if len(validation) < MIN_EXAMPLES:
        raise UsageError(
            f"{len(validation)} validation rows to choose by",
            f"at least {MIN_EXAMPLES}",
            "name more, or choose nothing by them: no --patience, and a number as --weight-decay",
        )


def require_rows_to_choose(num_rows: int, share: float) -> None:
    """Refuse to choose a weight decay on next to no rows.

    Raises:
        UsageError: ``share`` of them, or the others, are too few.
    """
    if num_rows * min(share, 1 - share) < MIN_EXAMPLES:
        raise UsageError(
            f"--weight-decay auto, and {num_rows} training rows",
            f"at least {MIN_EXAMPLES / min(share, 1 - share):.0f}: it is chosen on a part of {share:g} of them",
            "give a number, such as --weight-decay 0.01, or more data",
        )


def epochs(
    net: Network, optimizer: Optimizer, data: Parts[Examples], training: Training, generator: torch.Generator
) -> Iterator[Measured]:
    """Train ``net``, epoch by epoch, with patience until it is at an end."""
    measured = train(
        net,
        optimizer,
        data.train,
        data.test,
        learning_rates(training.schedule, training.steps.lr, training.steps.num_epochs),
        training.steps.batch_size,
        generator,
        data.validation,
    )
    return stop_early(measured, net, training.patience) if training.patience else measured
