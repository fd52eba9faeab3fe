"""The best few trials, and the settings of before, once more with other seeds: luck is not what a search looks for."""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from tasks.errors import TrainingDiverged, UsageError
from tasks.fitting.tuning.batches import Batch, RunBatches, applied
from tasks.fitting.tuning.study import Asked
from tasks.machine.telling import tell
from tasks.store.tuned import Setting, Trial

FINALISTS = 4
SEEDS = 5  # that each is trained with; the search's own, by which it became a finalist, is none of them
SMALLER = "search smaller rates, such as --space lr=0.001:0.01; what was learned is kept"


class Final(NamedTuple):
    """The trial that has won, and its losses beside those of the settings of before: one a seed."""

    best: Trial
    losses: tuple[float, ...]
    before: dict[str, Setting]
    before_losses: tuple[float, ...]


def held(trials: Sequence[Trial], blank: Batch, run: RunBatches) -> Final:
    """Train the finalists with more seeds; that of the smallest mean loss has won. ``blank`` has no trials of its own.

    Seeds that its deadline cuts off do not count; of one at least there is what the search has seen.

    Raises:
        TrainingDiverged: no trial came to its end, for losses that are not finite.
        UsageError: there is none.
    """
    best = finalists(trials, blank)
    # None of what is found by rule where it is not given.
    before: dict[str, Setting] = blank.base.model_dump(mode="json", include=set(best[0].settings), exclude_none=True)
    every = [*(trial.settings for trial in best), before]
    few = "the best" if len(best) == 1 else f"the best {len(best)}"
    with_seeds = f"with {SEEDS} other seeds each"
    tell(f"{few}, and the settings of before, are trained {with_seeds}", short=f"{few} {with_seeds}")
    seeds = [blank.base.seed_number + 1 + at for at in range(SEEDS)]
    tried: dict[int, Trial] = {}
    run(
        [
            replace(
                blank,
                title=f"seed {seed}",
                asked=tuple(Asked(at * len(every) + place, settings, seed) for place, settings in enumerate(every)),
            )
            for at, seed in enumerate(seeds)
        ],
        lambda trial: tried.update({trial.number: trial}),
    )
    numbers = [range(at * len(every), (at + 1) * len(every)) for at in range(SEEDS)]
    complete = [[tried[number].validation_loss for number in each] for each in numbers if tried.keys() >= set(each)]
    if len(complete) < SEEDS:
        tell(f"the time is over after {len(complete)} of {SEEDS} seeds")
    if not complete:
        known = next((trial.validation_loss for trial in trials if trial.settings == before), None)
        complete = [[*(trial.validation_loss for trial in best), known]]
    losses = [tuple(loss for loss in each if loss is not None) for each in zip(*complete, strict=True)]
    won = min(range(len(best)), key=lambda place: (-len(losses[place]), statistics.fmean(losses[place] or [0.0])))
    return Final(best[won], losses[won], before, losses[-1])


def finalists(trials: Sequence[Trial], blank: Batch) -> list[Trial]:
    """The best of those that came to their end; a single one where it trains until it has converged, whatever the seed.

    Raises:
        TrainingDiverged: none came to its end, for losses that are not finite.
        UsageError: there is none.
    """
    ended = [trial for trial in trials if trial.outcome == "complete" and trial.validation_loss is not None]
    ended.sort(key=lambda trial: trial.validation_loss or 0.0)
    different = list({str(sorted(trial.settings.items())): trial for trial in reversed(ended)}.values())[::-1]
    if different:
        converges = applied(blank.base, different[0].settings).num_epochs is None
        return different[: 1 if converges else FINALISTS]
    if trials:
        raise TrainingDiverged(f"all {len(trials)} trials diverged", "a loss that stays finite", SMALLER)
    raise UsageError(
        "the time was over before a trial came to its end",
        "time for one at least",
        "give more",
    )
