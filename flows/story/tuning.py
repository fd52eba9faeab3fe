"""What a search tells: a page with its pictures, in the run's folder and in the Prefect UI."""

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median

from flows.story.blocks import said, table
from flows.story.periods import between
from tasks.judging import tuning_figures
from tasks.judging.tuning_figures import name_setting
from tasks.machine.words import counted, readable
from tasks.stage.live import embed_picture
from tasks.store import artifact_paths, atomic
from tasks.store.run_folder import RunFolder
from tasks.store.tuned import Searched, Setting, Trial, Tuned, mean_interval

BEST = 10  # trials that are told
ROUNDING = 1e-6
TITLES = {
    artifact_paths.TUNING_WINNER: "What was found, beside the settings of before",
    artifact_paths.TUNING_HISTORY: "History",
    artifact_paths.TUNING_IMPORTANCES: "What mattered",
    artifact_paths.TUNING_SLICES: "Each setting by itself",
    artifact_paths.TUNING_PARALLEL: "All settings together",
}
Rows = list[tuple[str, ...]]


def told(run: RunFolder, searched: Searched) -> str:
    """Draw the pictures and write the page into the run's folder; return it with the pictures inside."""
    files = {file.path.name: file.path for file in tuning_figures.draw(searched.trials, searched.tuned, run.path)}
    drawn = {title: files[name] for name, title in TITLES.items() if name in files}
    said = page(run.name, searched)
    beside = [f"### {title}\n\n![{title}]({path.name})" for title, path in drawn.items()]
    atomic.write_bytes(run.file(artifact_paths.TUNING_PAGE), "\n\n".join([said, *beside, ""]).encode())
    return "\n\n".join([said, *(f"### {title}\n\n{embed_picture(path)}" for title, path in drawn.items())])


def page(name: str, searched: Searched) -> str:
    """What was found and how much better it is, the best trials, and how long one took."""
    tuned, trials = searched.tuned, searched.trials
    blocks = [
        f"# {name}: the best of {counted(len(trials), 'trial')}",
        f"By the loss of {counted(tuned.num_validation, 'validation example')}, on which the settings were chosen: how "
        f"good a model is, the gates tell, on the test split. {_use(name, tuned)}",
        table(("", "found", "before"), _beside(tuned)),
        _difference(tuned),
        f"## The best {min(BEST, len(trials))} trials\n\n{_best(trials, tuned.trial)}",
        f"## Trials\n\n{table(('', ''), _facts(trials))}",
    ]
    return "\n\n".join(blocks)


def _use(name: str, tuned: Tuned) -> str:
    if tuned.is_better:
        return f"`gradmill retrain {name} --tuned` uses what was found."
    return "**No trial is better than the settings of before by more than the seeds' chance: nothing is kept.**"


def _beside(tuned: Tuned) -> Rows:
    """Each setting, and the loss of both."""
    found, before = tuned.settings, tuned.default_settings
    rows: Rows = [(name_setting(field), _value(found[field]), _value(before.get(field, "by rule"))) for field in found]
    losses = tuned.validation_losses, tuned.default_losses
    seeds = max(map(len, losses))
    means = [mean_interval(each) if each else None for each in losses]
    rows.append(
        (f"validation loss, mean of {seeds} seeds", *(readable(each.mean) if each else "none" for each in means))
    )
    rows.append(("its 95 % interval", *(between(each[1:]) if each else "" for each in means)))
    return rows


def _difference(tuned: Tuned) -> str:
    """What the search has gained, where no seed diverged."""
    gain = tuned.difference
    if gain is None:
        return "Not every seed came to its end."
    if gain.high - gain.low <= ROUNDING * abs(gain.mean):  # training that starts at zero draws nothing
        return f"The difference is {gain.mean:+.3g} with every seed."
    beyond = "more" if gain.high < 0 or gain.low > 0 else "no more"
    between = f"95 %: {gain.low:+.3g} to {gain.high:+.3g}"
    return f"Seed by seed the difference is {gain.mean:+.3g} ({between}), {beyond} than the seeds' chance."


def _best(trials: Sequence[Trial], found: int | None) -> str:
    """A row for each of the best, the smallest loss first: those that were given up come after all others.

    The number ``found`` is that of the one that was best with other seeds, too.
    """
    told = [trial for trial in trials if trial.validation_loss is not None]
    told.sort(key=lambda trial: (trial.outcome != "complete", trial.validation_loss))
    fields = list(dict.fromkeys(field for trial in trials for field in trial.settings))
    rows: Rows = [
        (
            str(trial.number),
            readable(trial.validation_loss or 0.0),
            *(_value(trial.settings.get(field, "")) for field in fields),
            f"{trial.seconds:.2f}",
            _ending(trial) or "found" * (trial.number == found),
        )
        for trial in told[:BEST]
    ]
    return table(("trial", "validation loss", *map(name_setting, fields), "seconds", ""), rows)


def _ending(trial: Trial) -> str:
    return "" if trial.outcome == "complete" else f"{trial.outcome} after {counted(trial.epochs, 'epoch')}"


def _facts(trials: Sequence[Trial]) -> Iterator[tuple[str, str]]:
    """What became of the trials, and how long they took."""
    for outcome, number in Counter(trial.outcome for trial in trials).items():
        yield outcome, counted(number, "trial")
    seconds = [trial.seconds for trial in trials]
    yield "seconds of a trial", f"{median(seconds):.2f} (median), {min(seconds):.2f} to {max(seconds):.2f}"
    yield "epochs", f"{sum(trial.epochs for trial in trials):,}, which took {sum(seconds):.1f} s"


def _value(setting: Setting) -> str:
    return f"{setting:.3g}" if isinstance(setting, float) else said(str(setting))
