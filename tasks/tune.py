"""A search for hyperparameters, by the loss of a validation part: no trial reads the test split."""

import math
import time
from dataclasses import replace

from tasks.fitting.tuning import batches, finding
from tasks.fitting.tuning.batches import Batch
from tasks.machine.telling import tell
from tasks.machine.words import counted
from tasks.parameters import Search, Training
from tasks.records import PreparedDataset
from tasks.stage import gpu, runners, stage, trials
from tasks.store.run_folder import RunFolder
from tasks.store.tuned import Searched

FINAL = 0.2  # of the time, if it is limited, is for the best few with more seeds


@stage()
def tune(run: RunFolder, prepared: PreparedDataset, training: Training, search: Search) -> Searched:
    """Try settings out until there are as many trials as asked for, or the time is over; compare the best with before.

    ``training`` says what stays as it is, and where the search starts. What was learned is kept as soon as a trial has
    ended, so that the same call goes on from there after Ctrl-C, a kill or a timeout.

    Raises:
        UsageError: the search space is none for this model, or the time was over before any trial was complete.
        TrainingDiverged: all trials diverged.
        EnvironmentProblem: no Dask scheduler answers at the address.
        DeviceMissing: CUDA was asked for and is not there.
    """
    runners.check(search.runner, search.dask_address)
    timeout, started = search.timeout or math.inf, time.time()
    if training.weight_decay == "auto":  # a search of its own
        training = training.model_copy(update={"weight_decay": None})
    blank = Batch("", prepared, training, (), deadline=started + (1 - FINAL) * timeout)
    with gpu.turn(training.device), finding.opened(run, prepared, training, search) as study:
        if study.trials:
            tell(f"{counted(len(study.trials), 'trial')} {'is' if len(study.trials) == 1 else 'are'} there from before")
        with trials.runner(search) as try_out:
            trials.search(study, blank, search, try_out)
            final = replace(blank, deadline=started + timeout)
            tuned = finding.settle(run, study.trials, final, trials.shown(try_out))
        tell(finding.sentence(tuned), short=finding.losses(tuned))
        batches.forget()
        return Searched(trials=study.trials, tuned=tuned)
