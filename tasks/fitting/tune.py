"""A search for settings by Optuna: each trial is trained where only training rows are seen, several side by side."""

import json
import math
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import optuna
import torch
from optuna.pruners import SuccessiveHalvingPruner
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from tasks.errors import TrainingDiverged, UsageError
from tasks.fitting import devices
from tasks.fitting.search_space import (
    Settings,
    Space,
    find_given,
    list_grid,
    list_space,
    narrow_space,
    suggest_settings,
)
from tasks.fitting.trainer import VALIDATION, Parts, Trainer, make_trainer, require_rows_to_choose_by
from tasks.machine.run_messages import print_message
from tasks.parameters import Implementation, Search, Training
from tasks.records import PreparedDataset
from tasks.store import artifact_paths, atomic, locks, verified_files
from tasks.store.tuning_result import Trial, TunedSettings

FORMAT = "3"  # of the study; other releases had others
STUDY, TRIAL = "search", "trial"
ENDED = TrialState.COMPLETE, TrialState.PRUNED
AT_ONCE = 4  # trials side by side; with many more, Optuna would choose their settings blindly
SHORT = 0.15  # the share of its epochs that a trial is trained for at first
BEST = 8  # one in so many of the trials so far gets all its epochs
LATE = 5  # the last fifth of the epochs counts
FINALISTS = 2
SEEDS = 5  # that each finalist is trained with; the search's own seed, by which it became a finalist, is not among them
SMALLER = "search smaller rates, such as --space lr=0.001:0.01; what was learned is kept"


class TrialSpec(NamedTuple):
    """What a process needs to know about one training, besides what all have in common."""

    settings: Settings
    seed: int
    deadline: float  # in seconds since 1970
    share: float = 1.0  # of its epochs


Submit = Callable[[TrialSpec], "Future[list[float]]"]


class DeadlinePassed(Exception):
    """The time ran out while a trial was trained."""


@dataclass(frozen=True)
class TrialTraining:
    """Trains trials in any process; ``base`` says what all trials have in common and which rows are held out."""

    prepared: PreparedDataset
    base: Training

    def __call__(self, spec: TrialSpec) -> list[float]:
        """The validation loss after each epoch, up to the first that is not finite; empty if the deadline passed."""
        trainer, parts = self.read_parts(spec.settings)
        if spec.share < 1:
            num_epochs = trainer.find_hyperparameters(len(parts.fitted)).num_epochs
            shortened = trainer.training.model_copy(update={"num_epochs": math.ceil(spec.share * num_epochs)})
            trainer = trainer.with_training(shortened)
        return trainer.list_validation_losses(parts, spec.seed, spec.deadline)

    def read_parts(self, settings: Settings) -> tuple[Trainer, Parts]:
        """The trainer of a trial with these settings, and the rows that it sees."""
        (trainer, parts), training = read_validation_parts(self.prepared, self.base), self.apply(settings)
        # Both implementations learn the same weights, and this one takes less time.
        if self.prepared.task == "classification":
            training = training.model_copy(update={"implementation": Implementation.SCRATCH})
        return trainer.with_training(training), parts

    def apply(self, settings: Settings) -> Training:
        """The training of a trial with these settings; only the search itself prunes it."""
        values = self.base.model_dump() | {"defaults": self.base.defaults, "patience": None} | settings
        return Training.model_validate(values)

    @property
    def num_at_once(self) -> int:
        """How many trials are trained side by side at most; on a GPU it is one."""
        return 1 if devices.resolve(self.base.device).type == "cuda" else AT_ONCE


@lru_cache(maxsize=1)
def read_validation_parts(prepared: PreparedDataset, base: Training) -> tuple[Trainer, Parts]:
    """A trainer, and the training rows without a share of ``base.validation`` (or else a fifth), and that share.

    For the book's data these are random rows, by the seed; for the user's own data they follow the rule of the split,
    or are the validation part that the data themselves have. The test split is not read, and no statistics see
    validation rows. A process reads them once.

    Raises:
        UsageError: so few rows are left for training, or held out, that results mean nothing.
        DataError: a file is missing or has changed since it was prepared.
    """
    generator = torch.Generator().manual_seed(base.seed_number)
    trainer = make_trainer(base, prepared, devices.resolve(base.device))
    trainer, parts = trainer.hold_out(base.validation or VALIDATION, generator)
    require_rows_to_choose_by(parts.validation)
    return trainer, parts


def summarize(losses: list[float]) -> float:
    """The loss by which trials are compared: the mean of the last fifth of the epochs, NaN if training diverged.

    Where the loss leaps from epoch to epoch, the best last epoch of many trials is luck: of 64 on Fashion-MNIST
    the winner had 0.431 after 0.488, and with other seeds a test accuracy of 0.79 to 0.84.
    """
    if not math.isfinite(losses[-1]):
        return math.nan
    return statistics.fmean(losses[-math.ceil(len(losses) / LATE) :])


class HyperparameterSearch:
    """The trials of one search, in a study that outlives the process."""

    def __init__(self, study: optuna.Study, space: Space, training: TrialTraining, num_trials: int) -> None:
        """A space with no more settings than ``num_trials`` is a grid: each of its settings is tried once.

        Otherwise the first trial has the settings of the training before, as far as they lie in the space. Trials that
        a kill interrupted are tried again.
        """
        self.study, self._space, self._training = study, space, training
        for interrupted in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study.tell(interrupted.number, state=TrialState.FAIL)
            study.enqueue_trial(interrupted.params)
        grid = list_grid(space)
        is_grid = 0 < len(grid) <= num_trials
        for settings in grid if is_grid else [find_given(space, training.base)]:
            study.enqueue_trial(settings, skip_if_exists=True)
        waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        self.num_wanted = len(self.trials) + len(waiting) if is_grid else num_trials

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The trials that have ended, by number."""
        return _read_trials(self.study)

    def run(
        self, submit: Submit, num_at_once: int, deadline: float, on_trial: Callable[[Trial, Trial | None], None]
    ) -> None:
        """Train trials until there are as many as wanted, or the deadline passes.

        ``on_trial`` is called with each that has ended, and with the best so far.
        """
        lock, context = threading.Lock(), copy_context()  # what is printed belongs to the caller's Prefect run

        def report(_: optuna.Study, ended: FrozenTrial) -> None:
            if ended.state in ENDED:
                with lock:
                    best = next(iter(self._rank()), None)
                    context.run(on_trial, Trial.model_validate_json(json.dumps(ended.user_attrs[TRIAL])), best)

        self.study.optimize(
            lambda trial: self._train(trial, submit, deadline),
            n_trials=max(0, self.num_wanted - len(self.trials)),
            timeout=None if math.isinf(deadline) else max(0.0, deadline - time.time()),
            n_jobs=num_at_once,
            catch=DeadlinePassed,
            callbacks=[report],
        )

    def _train(self, trial: optuna.Trial, submit: Submit, deadline: float) -> float:
        """The objective.

        A trial is first trained for a few of its epochs, in which its learning rate takes its whole course: losses in
        the middle of a course say little, for rates that are best at its end are the worst there.
        """
        settings, started = suggest_settings(trial, self._space), time.perf_counter()
        outcome: Literal["complete", "pruned", "diverged"] = "complete"
        for share in (SHORT, 1.0):
            losses = submit(TrialSpec(settings, self._training.base.seed_number, deadline, share)).result()
            if not losses:
                self.study.enqueue_trial(trial.params)
                raise DeadlinePassed
            loss = summarize(losses)
            if math.isnan(loss):
                outcome = "diverged"
                break
            if share < 1:
                trial.report(loss, step=1)
                if trial.should_prune():
                    outcome = "pruned"
                    break
        finite = tuple(filter(math.isfinite, losses))
        record = Trial(
            number=trial.number,
            settings=settings,
            validation_loss=None if outcome == "diverged" else loss,
            losses=finite,
            epochs=len(finite),
            seconds=round(time.perf_counter() - started, 3),
            outcome=outcome,
        )
        trial.set_user_attr(TRIAL, record.model_dump(mode="json"))
        if outcome != "complete":
            raise optuna.TrialPruned
        return loss

    def compare(self, submit: Submit, deadline: float, on_seed: Callable[[], object], run_name: str) -> TunedSettings:
        """Train the best trials, and the previous settings, with more seeds; the smallest mean loss wins.

        Of two trials, the one that was trained with more seeds is better. Seeds that the deadline cuts off do not
        count; if it leaves none, the losses of the search decide.

        Raises:
            TrainingDiverged: no trial was completed, because losses were not finite.
            UsageError: there is no trial.
        """
        prepared, base, finalists = self._training.prepared, self._training.base, self._find_finalists()
        # Values that are found by rule when not given are left out.
        before: Settings = base.model_dump(mode="json", include=set(finalists[0].settings), exclude_none=True)
        contestants = [*(trial.settings for trial in finalists), before]
        seeds = range(base.seed_number + 1, base.seed_number + 1 + SEEDS)
        futures = [[submit(TrialSpec(settings, seed, deadline)) for settings in contestants] for seed in seeds]
        by_seed = list[list[float | None]]()
        for of_seed in futures:
            results = [future.result() for future in of_seed]
            on_seed()
            if all(results):
                losses_by_contestant = map(summarize, results)
                by_seed.append([None if math.isnan(loss) else loss for loss in losses_by_contestant])
        if len(by_seed) < SEEDS:
            print_message(f"time ran out after {len(by_seed)} of {SEEDS} seeds")
        if not by_seed:
            known = next((trial.validation_loss for trial in self.trials if trial.settings == before), None)
            by_seed = [[*(trial.validation_loss for trial in finalists), known]]
        losses = [tuple(loss for loss in each if loss is not None) for each in zip(*by_seed, strict=True)]
        won = min(range(len(finalists)), key=lambda at: (-len(losses[at]), statistics.fmean(losses[at] or [0.0])))
        return TunedSettings(
            model=base.model,
            dataset=prepared.name,
            dataset_digest=prepared.digest,
            settings=finalists[won].settings,
            trial=finalists[won].number,
            validation_losses=losses[won],
            default_settings=before,
            default_losses=losses[-1],
            num_trials=len(self.trials),
            num_validation=len(read_validation_parts(prepared, base)[1].validation or ()),
            seed=base.seed_number,
            run=run_name,
        )

    def _rank(self) -> list[Trial]:
        """The trials that came to their end, the smallest loss first."""
        complete = [trial for trial in self.trials if trial.outcome == "complete"]
        return sorted(complete, key=lambda trial: trial.validation_loss or 0.0)

    def _find_finalists(self) -> list[Trial]:
        """The best trials, each combination of settings once."""
        different = dict[str, Trial]()
        for trial in self._rank():
            different.setdefault(json.dumps(trial.settings), trial)
        if different:
            return [*different.values()][:FINALISTS]
        if self.trials:
            raise TrainingDiverged(f"all {len(self.trials)} trials diverged", "a loss that stays finite", SMALLER)
        found = "time ran out before a trial was complete"
        raise UsageError(found, "time for at least one trial", "raise --timeout")


def _read_trials(study: optuna.Study) -> tuple[Trial, ...]:
    ended = study.get_trials(deepcopy=False, states=ENDED)
    return tuple(Trial.model_validate_json(json.dumps(trial.user_attrs[TRIAL])) for trial in ended)


@contextmanager
def open_search(name: str, training: TrialTraining, search: Search, afresh: bool) -> Iterator[HyperparameterSearch]:
    """The search with this name, data and options, open in one process at a time; an interrupted search goes on.

    Raises:
        UsageError: the search space names something that is no parameter, or values that it cannot have.
    """
    prepared, base = training.prepared, training.base
    space = list_space(prepared) | narrow_space(base, search.space)
    about = {"way of searching": FORMAT, "data": prepared.digest, "search space": repr(space)}
    options = [name, sorted(search.space), base.model_dump(mode="json", exclude={"device", "patience"})]
    digest = verified_files.sha256(json.dumps(options).encode())
    path = artifact_paths.study(prepared.name, digest[: artifact_paths.DIGEST_CHARACTERS])
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with locks.hold_lock(artifact_paths.lock_of_study(path), "the same search is running; waiting for it"):
        path.parent.mkdir(parents=True, exist_ok=True)
        Path(f"{path}.lock").unlink(missing_ok=True)  # Optuna's own, which a killed search leaves behind
        study = _open_study(path, about, afresh)
        study.sampler = TPESampler(seed=base.seed_number, n_startup_trials=AT_ONCE, constant_liar=True)
        study.pruner = SuccessiveHalvingPruner(min_resource=1, reduction_factor=BEST)
        path.touch()  # marks it as in use
        yield HyperparameterSearch(study, space, training, search.trials)
        atomic.sync(path)


def _open_study(path: Path, about: dict[str, str], afresh: bool) -> optuna.Study:
    """The study in a file, or a new one if there is none, it cannot be read or is about something else."""
    if path.exists() and not afresh:
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)  # a line that a power cut left half written
        try:
            study = optuna.load_study(study_name=STUDY, storage=JournalStorage(JournalFileBackend(str(path))))
            changed = [each for each in about if study.user_attrs.get(each) != about[each]]
            if not changed:
                _read_trials(study)
                return study
            print_message(f"the {changed[0]} changed since this search was begun: it starts afresh")
        except Exception as error:  # whatever a damaged journal makes Optuna raise
            print_message(f"{path} cannot be read ({type(error).__name__}): the search starts afresh")
    path.unlink(missing_ok=True)
    study = optuna.create_study(study_name=STUDY, storage=JournalStorage(JournalFileBackend(str(path))))
    for name, value in about.items():
        study.set_user_attr(name, value)
    return study
