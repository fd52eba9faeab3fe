"""Where a search keeps what it has learned, and what it comes to: the winner beside the settings of before."""

import hashlib
import json
import statistics
from collections.abc import Sequence
from contextlib import AbstractContextManager

from tasks.fitting.tuning import domains, finals, ridge, space, study
from tasks.fitting.tuning.batches import Batch, RunBatches, data_of
from tasks.fitting.tuning.domains import Choice
from tasks.fitting.tuning.space import Space
from tasks.fitting.tuning.study import Study
from tasks.machine.telling import tell
from tasks.machine.words import counted, readable
from tasks.parameters import Loss, Search, Training
from tasks.records import PreparedDataset
from tasks.store import artifact_paths
from tasks.store.run_folder import RunFolder
from tasks.store.tuned import Trial, Tuned


def opened(run: RunFolder, prepared: PreparedDataset, base: Training, search: Search) -> AbstractContextManager[Study]:
    """The study of a name, its data and options; an interrupted one goes on.

    Raises:
        UsageError: the search space names what is no parameter, or values that it cannot have.
    """
    narrowed = space.narrowed(base, search.space)
    searched = space.default(base, prepared) | narrowed
    decay = None if "weight_decay" in narrowed else _decay_of_squared(prepared, base, searched)
    if decay is not None and "loss" not in searched:  # each trial has this loss
        searched, decay = searched | {"weight_decay": Choice((decay,))}, None
    about = {"data": prepared.digest, "search space": repr(searched)}
    options = [run.name, sorted(search.space), base.model_dump(mode="json", exclude={"device", "patience"})]
    key = hashlib.sha256(json.dumps(options).encode()).hexdigest()[: artifact_paths.DIGEST_CHARACTERS]
    path = artifact_paths.study(prepared.name, key)
    return study.opened(path, about, searched, base, decay, afresh=run.force)


def _decay_of_squared(prepared: PreparedDataset, base: Training, searched: Space) -> float | None:
    """The weight decay of linear regression with a squared loss: the ridge path in closed form says it."""
    if not domains.has(searched.get("loss", Choice((base.loss.value,))), Loss.SQUARED.value):
        return None
    squared = base.model_copy(update={"loss": Loss.SQUARED})
    path = ridge.best(data_of(prepared, base), prepared, squared)
    if path is None:
        return None
    tell(f"weight decay {path.decay:.3g} of a squared loss, by cross-validation of the ridge path")
    return path.decay


def settle(run: RunFolder, trials: Sequence[Trial], blank: Batch, run_batches: RunBatches) -> Tuned:
    """The record of a search: its best few, and the settings of before, are tried out with more seeds.

    Raises:
        TrainingDiverged: no trial came to its end.
        UsageError: there is none.
    """
    final, base, prepared = finals.held(trials, blank, run_batches), blank.base, blank.prepared
    return Tuned(
        model=base.model,
        dataset=prepared.name,
        dataset_digest=prepared.digest,
        settings=final.best.settings,
        trial=final.best.number,
        validation_losses=final.losses,
        default_settings=final.before,
        default_losses=final.before_losses,
        num_trials=len(trials),
        num_validation=len(data_of(prepared, base).test),
        seed=base.seed_number,
        run=run.path.name,
    )


def sentence(tuned: Tuned) -> str:
    """The winner beside the settings of before, by the mean of their seeds."""
    of = counted(tuned.num_trials, "trial")
    said = f"the best of {of}: {space.in_words(tuned.settings)}; {losses(tuned)}"
    return said if tuned.is_better else f"{said}: no better, and nothing is kept"


def losses(tuned: Tuned) -> str:
    """The mean validation losses of the winner and of the settings of before."""
    found, before = (
        readable(statistics.fmean(each)) if each else "none" for each in (tuned.validation_losses, tuned.default_losses)
    )
    return f"validation loss {found}, without a search {before}"
