"""What a search has learned, in a journal that outlives the process: Optuna's study, asked and told.

Which settings a trial gets depends on its number, the seed, and the trials that had ended when its round began: not on
the order in which those of a round end, nor on how often the search was interrupted.
"""

import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from tasks.fitting.tuning import domains
from tasks.fitting.tuning import space as spaces
from tasks.fitting.tuning.domains import Choice
from tasks.fitting.tuning.space import Space
from tasks.machine.telling import tell
from tasks.parameters import Training
from tasks.store import artifact_paths, atomic, locks
from tasks.store.tuned import Setting, Trial

ROUND = 16  # trials that are suggested before any of them is trained: enough to share products, few enough to learn by
CURVES = 5  # of trials that went to their end, before others are given up for falling behind
STUDY = "search"
TRIED = "tried"  # the attribute with everything about a trial that Optuna does not ask for


class Asked(NamedTuple):
    """A trial to be trained: its number, its settings, fields of ``Training`` by name, and the seed of its start."""

    number: int
    settings: dict[str, Setting]
    seed: int


class _Journal(JournalFileBackend):
    """Without a lock, since one process at a time has it (``opened``), and without a sync of every line.

    A trial has ten, at 3 ms each. A kill of the process loses none of them; after a power cut the last may be missing,
    and a broken one is left out.
    """

    def __init__(self, path: Path) -> None:
        if path.exists() and (content := path.read_bytes()) and not content.endswith(b"\n"):
            with path.open("r+b") as stream:
                stream.truncate(content.rfind(b"\n") + 1)
        super().__init__(str(path))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with open(self._file_path, "ab") as stream:  # noqa: PTH123  (as its base has it)
            stream.write("".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode())


class Study:
    """The trials of one search."""

    def __init__(self, study: optuna.Study, space: Space, seed: int, squared_decay: float | None) -> None:
        self._study, self._space, self._seed, self._squared_decay = study, space, seed, squared_decay

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Those that have ended, by number."""
        ended = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        return tuple(_ended(each) for each in ended)

    def wanted(self, asked: int) -> int:
        """How many trials there are to be: where every field has one value there is nothing to choose."""
        is_one = all(isinstance(domain, Choice) and len(domain.values) == 1 for domain in self._space.values())
        return 1 if is_one else asked

    def next(self, up_to: int, ended: Callable[[Trial], None]) -> list[Asked]:
        """The trials of the next round, or what is left of one, of ``up_to`` in all; none when all are done.

        Settings that were tried before are not tried again: that trial has ``ended`` as the other did.
        """
        while waiting := self._waiting() or self._ask(up_to):
            known = {_key(trial.settings): trial for trial in self.trials}
            for asked in waiting:
                if same := known.get(_key(asked.settings)):
                    ended(same.model_copy(update={"number": asked.number, "seconds": 0.0}))
            new = {_key(asked.settings): asked for asked in reversed(waiting) if _key(asked.settings) not in known}
            if new:
                return list(reversed(new.values()))
        return []

    def tell(self, trial: Trial) -> None:
        """Note what came of a trial; one that has diverged is as bad as can be."""
        asked = self._trial(self._study.get_trials(deepcopy=False)[trial.number])
        asked.set_user_attr(TRIED, trial.model_dump(mode="json"))
        if trial.outcome == "pruned":
            asked.report(trial.losses[-1], len(trial.losses))
        is_complete = trial.outcome == "complete"
        state = TrialState.COMPLETE if is_complete else TrialState.PRUNED
        self._study.tell(asked, trial.validation_loss if is_complete else None, state)

    def limits(self, number: int) -> tuple[float, ...]:
        """Of each epoch, the loss above which trial ``number`` is given up: the median of earlier rounds' trials."""
        first = number - number % ROUND
        curves = [trial.losses for trial in self.trials if trial.number < first and trial.outcome == "complete"]
        limits = []
        for epoch in range(max(map(len, curves), default=0)):
            losses = [curve[epoch] for curve in curves if len(curve) > epoch]
            limits.append(statistics.median(losses) if len(losses) >= CURVES else math.inf)
        return tuple(limits)

    def _waiting(self) -> list[Asked]:
        """Trials that were begun and have not ended: whoever trained them was interrupted."""
        begun = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [Asked(each.number, self._suggest(self._trial(each)), self._seed) for each in begun]

    def _ask(self, up_to: int) -> list[Asked]:
        numbers = range(self._begun(), up_to)
        asked = []
        for number in numbers[: ROUND - self._begun() % ROUND]:
            self._study.sampler = self._sampler(number)
            asked.append(Asked(number, self._suggest(self._study.ask()), self._seed))
        return asked

    def _begun(self) -> int:
        return sum(each.state is not TrialState.WAITING for each in self._study.get_trials(deepcopy=False))

    def _trial(self, begun: FrozenTrial) -> optuna.Trial:
        """A trial as it was when it was asked for: what was suggested stays."""
        self._study.sampler = self._sampler(begun.number)
        return optuna.Trial(self._study, begun._trial_id)

    def _sampler(self, number: int) -> TPESampler:
        return TPESampler(seed=int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0]))

    def _suggest(self, trial: optuna.Trial) -> dict[str, Setting]:
        return spaces.suggest(self._space, trial, self._squared_decay)


def best(trials: Sequence[Trial]) -> Trial | None:
    """The first trial of those with the smallest loss; None where all diverged or were given up."""
    ended = [trial for trial in trials if trial.outcome == "complete" and trial.validation_loss is not None]
    return min(ended, key=lambda trial: trial.validation_loss or 0.0, default=None)


def _ended(trial: FrozenTrial) -> Trial:
    return Trial.model_validate_json(json.dumps(trial.user_attrs[TRIED]))


def _key(settings: dict[str, Setting]) -> str:
    return json.dumps(settings, sort_keys=True)


@contextmanager
def opened(
    path: Path, about: dict[str, str], space: Space, base: Training, squared_decay: float | None, afresh: bool
) -> Iterator[Study]:
    """The study in a file, alone; ``about`` is what its trials depend on, and if that has changed it starts afresh."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with locks.locked(artifact_paths.lock_of_study(path), "the same search is at work; waiting for it"):
        path.parent.mkdir(parents=True, exist_ok=True)
        if afresh:
            path.unlink(missing_ok=True)
        found = _read(path) if path.exists() else None
        if found and (changed := [each for each in about if found.user_attrs.get(each) != about[each]]):
            tell(f"the {changed[0]} changed since this search was begun: it starts afresh")
            found = None
        study = found or _begin(path, about, space, base)
        path.touch()  # it is in use
        yield Study(study, space, base.seed_number, squared_decay)
        atomic.sync(path)


def _read(path: Path) -> optuna.Study | None:
    try:
        study = optuna.load_study(study_name=STUDY, storage=JournalStorage(_Journal(path)))
        [_ended(each) for each in study.get_trials() if each.state.is_finished()]
    except Exception as error:  # whatever a damaged journal makes Optuna raise
        tell(f"{path} cannot be read ({type(error).__name__}): the search starts afresh")
        return None
    return study


def _begin(path: Path, about: dict[str, str], space: Space, base: Training) -> optuna.Study:
    path.unlink(missing_ok=True)
    study = optuna.create_study(study_name=STUDY, storage=JournalStorage(_Journal(path)))
    for name, value in about.items():
        study.set_user_attr(name, value)
    known = {field: getattr(base, field) for field in space}
    study.enqueue_trial({field: value for field, value in known.items() if domains.has(space[field], value)})
    return study
