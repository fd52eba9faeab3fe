"""A search for settings: Optuna asks for trials in waves, and each is trained where only training rows are seen.

Which settings a trial gets, and whether it is pruned, depends on its number, the seed and the trials of earlier waves:
not on the number of cores, on which of a wave ends first, nor on how often the search was interrupted.
"""

import json
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optuna
import torch
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from tasks.errors import TrainingDiverged, UsageError
from tasks.fitting import devices
from tasks.fitting.search_space import Settings, Space, find_given, list_grid, list_space, narrow_space, shorten
from tasks.fitting.trainer import VALIDATION, Parts, Trainer, make_trainer, require_rows_to_choose_by
from tasks.machine.run_messages import print_message
from tasks.parameters import Implementation, Search, Training
from tasks.records import PreparedDataset
from tasks.store import artifact_paths, atomic, locks, verified_files
from tasks.store.tuning_result import Trial, TunedSettings

FORMAT = "2"  # the format of the study; until c692a25 it was another one
STUDY, TRIAL = "search", "trial"
WAVE = 4  # trials that are asked for at once, whatever the number of cores
SHORT = 0.15  # the share of its epochs that a trial is trained for at first
BEST = 5.0  # percent: a trial must then be among the best of the earlier ones to get all its epochs
LATE = 5  # the last fifth of the epochs counts
FINALISTS = 2
SEEDS = 5  # that each finalist is trained with; the search's own seed, by which it became a finalist, is not among them
SMALLER = "search smaller rates, such as --space lr=0.001:0.01; what was learned is kept"


class TrialSpec(NamedTuple):
    """What a process needs to know about a trial, besides what all trials have in common."""

    number: int
    settings: Settings
    seed: int
    deadline: float  # in seconds since 1970
    most: float | None = None  # the loss after short training above which it is pruned; None: no such training


class TrialResult(NamedTuple):
    """The outcome of a trial, and its loss after its short training, if it had one."""

    trial: Trial
    short_loss: float | None


Submit = Callable[[TrialSpec], "Future[TrialResult | None]"]


@dataclass(frozen=True)
class TrialTraining:
    """Trains trials in any process; ``base`` says what all trials have in common and which rows are held out."""

    prepared: PreparedDataset
    base: Training

    def __call__(self, spec: TrialSpec) -> TrialResult | None:
        """Train one trial; None if the deadline passed before it ended.

        First for a few of its epochs, in which its learning rate takes its whole course: losses in the middle of a
        course say little, for rates that are best at its end are the worst there.

        Trials are compared by the mean loss of the last fifth of their epochs, or by the last one where training
        converges. Where the loss leaps from epoch to epoch, the best last epoch of many trials is luck: of 64 on
        Fashion-MNIST the winner had 0.431 after 0.488, and with other seeds a test accuracy of 0.79 to 0.84.
        """
        started, outcome, short_loss = time.perf_counter(), "complete", None
        (trainer, parts), training = read_validation_parts(self.prepared, self.base), self.apply(spec.settings)
        # Both implementations learn the same weights, and this one takes less time.
        if self.prepared.task == "classification":
            training = training.model_copy(update={"implementation": Implementation.SCRATCH})
        trainer, lengths = trainer.with_training(training), [training.num_epochs]
        if spec.most is not None and not trainer.converges:
            last = trainer.find_hyperparameters(len(parts.fitted)).num_epochs
            lengths = [*dict.fromkeys([math.ceil(SHORT * last), *lengths])]
        for length in lengths:
            this = trainer.with_training(training.model_copy(update={"num_epochs": length}))
            losses = this.list_validation_losses(parts, spec.seed, spec.deadline)
            if not losses:
                return None
            loss = losses[-1] if trainer.converges else statistics.fmean(losses[-math.ceil(len(losses) / LATE) :])
            if not math.isfinite(losses[-1]):
                outcome, short_loss = "diverged", None
                break
            if length != lengths[-1] and spec.most is not None:
                outcome, short_loss = "pruned" if loss > spec.most else "complete", loss
                if outcome == "pruned":
                    break
        finite = tuple(filter(math.isfinite, losses))
        trial = Trial.model_validate(
            {
                "number": spec.number,
                "settings": spec.settings,
                "validation_loss": None if outcome == "diverged" else loss,
                "losses": finite,
                "epochs": len(finite),
                "seconds": round(time.perf_counter() - started, 3),
                "outcome": outcome,
            }
        )
        return TrialResult(trial, short_loss)

    @property
    def num_at_once(self) -> int:
        """How many trials one machine trains side by side: a wave, but one on a GPU."""
        return 1 if devices.resolve(self.base.device).type == "cuda" else WAVE

    def apply(self, settings: Settings) -> Training:
        """The training of a trial with these settings; only the search itself prunes it."""
        values = self.base.model_dump() | {"defaults": self.base.defaults, "patience": None} | settings
        return Training.model_validate(values)


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


class HyperparameterSearch:
    """The trials of one search, in a study that outlives the process."""

    def __init__(self, study: optuna.Study, space: Space, training: TrialTraining, num_trials: int) -> None:
        """A space with no more settings than ``num_trials`` is a grid: each of its settings is tried once."""
        self._study, self._space, self._training = study, space, training
        grid = list_grid(space)
        self._grid = grid if len(grid) <= num_trials else []
        self.num_wanted = len(study.trials) + len(self._list_untried()) if self._grid else num_trials

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The trials that have ended, by number."""
        return _read_trials(self._study)

    def run(self, submit: Submit, deadline: float, on_trial: Callable[[Trial, Trial | None], None]) -> None:
        """Train wave after wave until there are as many trials as wanted, or the deadline passes.

        Each trial is kept as soon as it and those before it have ended; then ``on_trial`` is called with it and with
        the best so far. The rest of a wave that was interrupted is trained with the settings that it had.
        """
        while (done := len(self._study.trials)) < self.num_wanted and time.time() < deadline:
            first = done - done % WAVE
            earlier = self._study.get_trials(deepcopy=False)[:first]
            losses = [loss for each in earlier for loss in each.intermediate_values.values()]
            most = float(np.percentile(losses, BEST)) if len(losses) >= WAVE else math.inf
            asked = self._list_untried()[: WAVE - done % WAVE] or self._ask(first, earlier)[done - first :]
            seed = self._training.base.seed_number
            specs = [
                TrialSpec(done + at, shorten(self._space, params), seed, deadline, most)
                for at, params in enumerate(asked)
            ]
            futures = [submit(spec) for spec in specs]
            for params, future in zip(asked, futures, strict=True):
                result = future.result()
                if result is None:
                    return
                self._keep(params, result)
                on_trial(result.trial, next(iter(self._rank()), None))

    def _list_untried(self) -> list[Settings]:
        """The settings of the grid that no trial had: an earlier call with fewer trials chose its own."""
        tried = [each.params for each in self._study.get_trials(deepcopy=False)]
        return [settings for settings in self._grid if settings not in tried]

    def _ask(self, first: int, earlier: list[FrozenTrial]) -> list[Settings]:
        """The settings of the wave that begins with the trial ``first``.

        The very first trial has the settings of the training before, as far as they lie in the space.
        """
        asking = optuna.create_study()
        asking.add_trials(earlier)
        params = []
        for number in range(first, min(first + WAVE, self.num_wanted)):
            seed = int(np.random.SeedSequence([self._training.base.seed_number, number]).generate_state(1)[0])
            asking.sampler = TPESampler(seed=seed, n_startup_trials=WAVE, constant_liar=True)
            if number == 0:
                asking.enqueue_trial(find_given(self._space, self._training.base))
            params.append(asking.ask(self._space).params)
        return params

    def _keep(self, params: Settings, result: TrialResult) -> None:
        trial, short_loss = result
        is_complete = trial.outcome == "complete"
        self._study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if is_complete else TrialState.PRUNED,
                value=trial.validation_loss if is_complete else None,
                params=params,
                distributions=self._space,
                user_attrs={TRIAL: trial.model_dump(mode="json")},
                # A trial that has diverged has none: Optuna treats it as the worst.
                intermediate_values={} if short_loss is None else {1: short_loss},
            )
        )

    def compare(self, submit: Submit, deadline: float, on_trial: Callable[[], object], run_name: str) -> TunedSettings:
        """Train the best trials, and the previous settings, with more seeds; the smallest mean loss wins.

        Of two trials, the one that was trained with more seeds is better. Seeds that the deadline cuts off do not
        count; if it leaves none, the losses of the search decide.

        Raises:
            TrainingDiverged: no trial was completed, because losses were not finite.
            UsageError: there is no trial.
        """
        prepared, base = self._training.prepared, self._training.base
        num_seeds, finalists = self.num_seeds, self._find_finalists()
        # Values that are found by rule when not given are left out.
        before: Settings = base.model_dump(mode="json", include=set(finalists[0].settings), exclude_none=True)
        every = [*(trial.settings for trial in finalists), before]
        seeds = range(base.seed_number + 1, base.seed_number + 1 + num_seeds)
        futures = [[submit(TrialSpec(at, each, seed, deadline)) for at, each in enumerate(every)] for seed in seeds]
        by_seed = list[list[float | None]]()
        for of_seed in futures:
            results = [future.result() for future in of_seed]
            on_trial()
            if None not in results:
                by_seed.append([result.trial.validation_loss for result in results if result])
        if len(by_seed) < num_seeds:
            print_message(f"time ran out after {len(by_seed)} of {num_seeds} seeds")
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

    @property
    def num_seeds(self) -> int:
        """How many seeds finalists are trained with: one where any seed gives the same weights."""
        trainer, _ = read_validation_parts(self._training.prepared, self._training.base)
        settings = next((trial.settings for trial in self._rank()), {})
        return 1 if trainer.with_training(self._training.apply(settings)).is_deterministic else SEEDS

    def _rank(self) -> list[Trial]:
        """The trials that came to their end, the smallest loss first."""
        complete = [trial for trial in self.trials if trial.outcome == "complete"]
        return sorted(complete, key=lambda trial: trial.validation_loss or 0.0)

    def _find_finalists(self) -> list[Trial]:
        """The best trials, each combination of settings once; only one trial where any seed gives the same weights."""
        different = dict[str, Trial]()
        for trial in self._rank():
            different.setdefault(json.dumps(trial.settings), trial)
        if different:
            return [*different.values()][: min(FINALISTS, self.num_seeds)]
        if self.trials:
            raise TrainingDiverged(f"all {len(self.trials)} trials diverged", "a loss that stays finite", SMALLER)
        found = "time ran out before a trial was complete"
        raise UsageError(found, "time for at least one trial", "raise --timeout")


def _read_trials(study: optuna.Study) -> tuple[Trial, ...]:
    return tuple(
        Trial.model_validate_json(json.dumps(each.user_attrs[TRIAL])) for each in study.get_trials(deepcopy=False)
    )


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
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with locks.hold_lock(artifact_paths.lock_of_study(path), "the same search is running; waiting for it"):
        path.parent.mkdir(parents=True, exist_ok=True)
        Path(f"{path}.lock").unlink(missing_ok=True)  # Optuna's own, which a killed search leaves behind
        study = _open_study(path, about, afresh)
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
