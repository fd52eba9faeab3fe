"""A search for hyperparameters by the loss on a validation part: no trial reads the test split."""

import math
import statistics
import time

from tasks.fitting.search_space import describe_settings
from tasks.fitting.tune import SEEDS, TrialTraining, open_search, read_validation_parts
from tasks.judging.tuning_figures import draw_study
from tasks.machine import resources
from tasks.machine.run_messages import print_message
from tasks.machine.words import format_number, pluralize
from tasks.parameters import Search, Training
from tasks.records import PreparedDataset
from tasks.stage import gpu_lock, live_progress, shards, stage
from tasks.store.run_folder import RunFolder
from tasks.store.tuning_result import SearchResult, Trial, TunedSettings

FINAL = 0.2  # share of a limited time that is reserved for the best few trials with more seeds


@stage()
def tune(run: RunFolder, prepared: PreparedDataset, training: Training, search: Search, afresh: bool) -> SearchResult:
    """Train trials until their number or the time is reached; compare the best with the previous settings.

    ``training`` has the fixed settings and the starting point. Results are saved as soon as a trial ends, so that the
    same call continues after Ctrl-C, a kill or a timeout, unless it is to start ``afresh``.

    Raises:
        UsageError: the search space does not fit this model, or the time was over before any trial was complete.
        TrainingDiverged: all trials diverged.
        EnvironmentProblem: no Dask scheduler answers at the address.
        DeviceMissing: CUDA was requested and is not available.
    """
    shards.check_runner(search.runner, search.dask_address)
    timeout, started = search.timeout or math.inf, time.time()
    if training.weight_decay == "auto":  # which is a search of its own
        training = training.model_copy(update={"weight_decay": None})
    work = TrialTraining(prepared, training)
    num_at_once = min(work.num_at_once, search.workers or resources.count_cores())
    with (
        gpu_lock.hold(training.device),
        open_search(run.name, work, search, afresh) as trials,
        shards.open_workers(search, work, num_at_once) as submit,
    ):
        done = len(trials.trials)
        if done:
            print_message(f"{pluralize(done, 'trial')} {'was' if done == 1 else 'were'} already done")
        with live_progress.count_progress("tune", trials.num_wanted, "trials", done) as advance:

            def show(trial: Trial, best: Trial | None) -> None:
                advance()
                print_message(said := _describe_trial(trial, best), short=said.rpartition(": ")[0])

            trials.run(submit, num_at_once, started + (1 - FINAL) * timeout, show)
        if (done := len(trials.trials)) < trials.num_wanted:
            print_message(
                f"the time for trials ran out after {done} of {trials.num_wanted}; "
                "run the same command again to continue"
            )
        seeds = pluralize(SEEDS, "other seed")
        print_message(f"the best and the previous settings are trained with {seeds} each", short=seeds)
        with live_progress.count_progress("tune", SEEDS, "seeds", 0) as advance:
            tuned = trials.compare(submit, started + timeout, advance, run.path.name)
        losses = _describe_losses(tuned)
        best = f"the best of {pluralize(tuned.num_trials, 'trial')}: {describe_settings(tuned.settings)}; {losses}"
        worse = "" if tuned.is_better else ": no better than the previous settings; nothing is kept"
        print_message(f"{best}{worse}", short=losses)
        read_validation_parts.cache_clear()
        return SearchResult(trials=trials.trials, tuned=tuned, pictures=draw_study(trials.study, run))


def _describe_trial(trial: Trial, best: Trial | None) -> str:
    """``trial 7: loss 0.4312 after 14 epochs, 0.8 s (best 0.4301, trial 3): lr 0.21, batch size 256``."""
    how = {"complete": "", "pruned": ", given up", "diverged": "diverged"}[trial.outcome]
    loss = "" if trial.validation_loss is None else f"loss {format_number(trial.validation_loss)}"
    after = f"after {pluralize(trial.epochs, 'epoch')}, {trial.seconds:.2g} s"
    so_far = f" (best {format_number(best.validation_loss or 0.0)}, trial {best.number})" if best else ""
    return f"trial {trial.number}: {loss}{how} {after}{so_far}: {describe_settings(trial.settings)}"


def _describe_losses(tuned: TunedSettings) -> str:
    found, before = (
        format_number(statistics.fmean(each)) if each else "none"
        for each in (tuned.validation_losses, tuned.default_losses)
    )
    return f"validation loss {found}, without a search {before}"
