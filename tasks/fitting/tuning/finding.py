"""Where a search keeps what it has learned, and what it comes to: the winner beside the settings of before."""

import hashlib
import json
import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from tasks.errors import TrainingDiverged, UsageError
from tasks.fitting.tuning import domains, ridge, space, study
from tasks.fitting.tuning.batches import Batch, data_of
from tasks.fitting.tuning.space import Space
from tasks.fitting.tuning.study import Asked, Study
from tasks.machine.telling import tell
from tasks.parameters import Loss, Search, Training
from tasks.records import PreparedDataset
from tasks.store import artifact_paths
from tasks.store.run_folder import RunFolder
from tasks.store.tuned import Trial, Tuned

SEEDS = 5  # that the winner and the default settings are trained with
SMALLER = "search smaller rates, such as --space lr=0.001:0.01; what was learned is kept"


def opened(run: RunFolder, prepared: PreparedDataset, base: Training, search: Search) -> AbstractContextManager[Study]:
    """The study of a name, its data and options; an interrupted one goes on.

    Raises:
        UsageError: the search space names what is no parameter, or values that it cannot have.
    """
    narrowed = space.narrowed(base, search.space)
    searched = space.default(base, prepared) | narrowed
    decay = None if "weight_decay" in narrowed else _decay_of_squared(prepared, base, searched)
    about = {"data": prepared.digest, "search space": repr(searched)}
    options = [run.name, sorted(search.space), base.model_dump(mode="json", exclude={"device", "patience"})]
    key = hashlib.sha256(json.dumps(options).encode()).hexdigest()[: artifact_paths.DIGEST_CHARACTERS]
    path = artifact_paths.study(prepared.name, key)
    return study.opened(path, about, searched, base, decay, afresh=run.force)


def _decay_of_squared(prepared: PreparedDataset, base: Training, searched: Space) -> float | None:
    """The weight decay of linear regression with a squared loss: the ridge path in closed form says it."""
    if "loss" not in searched or not domains.has(searched["loss"], Loss.SQUARED.value):
        return None
    squared = base.model_copy(update={"loss": Loss.SQUARED})
    path = ridge.best(data_of(prepared, base), prepared, squared)
    if path is None:
        return None
    tell(f"weight decay {path.decay:.3g} of a squared loss, by cross-validation of the ridge path")
    return path.decay


def settle(
    run: RunFolder,
    prepared: PreparedDataset,
    base: Training,
    trials: Sequence[Trial],
    try_out: Callable[[Sequence[Batch], Callable[[Trial], None]], None],
) -> Tuned:
    """The record of a search; its winner, and the settings of before, are tried out with five more seeds each.

    Raises:
        TrainingDiverged: no trial came to its end.
    """
    best = winner(trials)
    before = base.model_dump(mode="json", include=set(best.settings), exclude_none=True)  # what no rule finds
    seeds = range(base.seed_number, base.seed_number + SEEDS)
    pairs = [(Asked(2 * at, best.settings), Asked(2 * at + 1, before)) for at in range(SEEDS)]
    tried: list[Trial] = []
    try_out(
        [Batch(f"seed {seed}", prepared, base, pair, seed) for seed, pair in zip(seeds, pairs, strict=True)],
        tried.append,
    )
    tried.sort(key=lambda trial: trial.number)
    losses = [each.validation_loss for each in tried]
    return Tuned(
        model=base.model,
        dataset=prepared.name,
        dataset_digest=prepared.digest,
        settings=best.settings,
        validation_losses=tuple(loss for loss in losses[::2] if loss is not None),
        default_settings=before,
        default_losses=tuple(loss for loss in losses[1::2] if loss is not None),
        num_trials=len(trials),
        num_validation=len(data_of(prepared, base).test),
        seed=base.seed_number,
        run=run.path.name,
    )


def winner(trials: Sequence[Trial]) -> Trial:
    """The best of the trials.

    Raises:
        TrainingDiverged: none came to its end, for losses that are not finite.
        UsageError: there is none.
    """
    if found := study.best(trials):
        return found
    if trials:
        raise TrainingDiverged(f"all {len(trials)} trials diverged", "a loss that stays finite", SMALLER)
    raise UsageError(
        "the time was over before a trial came to its end",
        "time for one at least",
        "give more: the same command goes on",
    )


def sentence(tuned: Tuned) -> str:
    """The winner beside the settings of before, by the mean of their seeds."""
    losses = (
        f"{statistics.fmean(each):.4g}" if each else "diverged"
        for each in (tuned.validation_losses, tuned.default_losses)
    )
    return "the best of {} trials: {}; validation loss {}, without a search {}".format(
        tuned.num_trials, space.in_words(tuned.settings), *losses
    )
