"""The pages of runs: the verdict of a retrain, a batch prediction, an evaluation, a search."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from flows.pages.report import RetrainReport, TuneReport
from tasks.batch.plan import Version, read_version
from tasks.batch.results import locate_reject, read_footers
from tasks.errors import GradmillError
from tasks.judging.evaluation_result import EvaluationResult
from tasks.judging.gates import format_value
from tasks.machine.words import format_duration, format_number, format_setting, pluralize
from tasks.parameters.addresses import split_source
from tasks.records import Prediction
from tasks.serving import drift
from tasks.serving.contract import LABEL
from tasks.store import artifact_paths, model_folder, state
from tasks.store.model_folder import Manifest
from tasks.store.page_rendering import Code, Page, PagePicture, PageTable, Section, Strong, Text
from tasks.store.predictions import Job
from tasks.store.tuning_result import SearchResult, Trial, TunedSettings, mean_interval
from tasks.store.version_page import FIGURES, describe_interval, tabulate_gates, tabulate_periods

FEW = 10  # rows of a table
ROUNDING = 1e-6

# Retrains


def retrain_page(result: RetrainReport) -> Page:
    """The verdict on a candidate, with reasons, and its figures beside those of the previous champion.

    For a run that trained nothing, gates and figures are on the page of the run that made the version.
    """
    made = f"version {result.version}" if result.version else "candidate"
    intro: list[Text] = [(f"{result.model}, {result.kind}, on {result.device}. Evidence: ", Code(result.run))]
    intro += describe_hold(result)
    if result.model_path:
        intro.append(("Model: ", Code(result.model_path), ", SHA-256 ", Code(result.model_sha256 or "")))
    is_kept = result.outcome == "unchanged" and not result.was_trained
    if is_kept:
        intro.append("Nothing was trained: gates and figures are those of the version's own run.")
    changes = [(Strong(each.severity), each.sentence) for each in result.data_changes]
    seconds = [(stage, f"{seconds:.2f}") for stage, seconds in result.seconds.items()]
    of_candidate = (
        Section("Gates", (tabulate_gates(result.gates),)),
        Section("Figures", (_compare_with_champion(result, made),)),
        Section("By period", (tabulate_periods(result.metrics.get("periods") or ()),)),
    )
    sections = (
        Section("", intro),
        Section("Data", (PageTable(changes),)),
        *(() if is_kept else of_candidate),
        Section("Seconds", (PageTable(seconds, ("stage", "seconds")),)),
    )
    return Page(f"{result.name}: {result.describe()}", "", sections)


def name_retrain(result: RetrainReport) -> str:
    """What became of the candidate, with its main figure, for the run's name."""
    if result.outcome == "refused":
        gate, *others = [gate for gate in result.gates if not gate.passed]
        more = f" and {len(others)} more" if others else ""
        return f"refused by {gate.name} {format_value(gate)}{more}"
    version = f" version {result.version}" if result.version else ""
    known = ("test_accuracy", "rmse", "test_loss")
    name, value = next((name, result.metrics[name]) for name in known if result.metrics.get(name) is not None)
    return f"{result.outcome}{version}, {name.removeprefix('test_')} {format_number(value)}"


def describe_hold(result: RetrainReport) -> Iterator[Text]:
    """What retrains may not change, and the command that ends this."""
    if result.frozen:
        yield f"Frozen: version {result.champion} stays until ", Code(f"gradmill unfreeze {result.name}")
    with suppress(GradmillError):
        if (pointer := model_folder.find_champion(result.name)) and pointer.held:
            promote = Code(f"gradmill promote {result.name} VERSION")
            held = ", ".join(map(str, pointer.held))
            yield f"Held because of a rollback: {held}. ", promote, " ends the hold"


def _compare_with_champion(result: RetrainReport, version_label: str) -> PageTable:
    found = {name: value for name, value in result.metrics.items() if isinstance(value, float)}
    columns, head = [found], ["figure", version_label]
    if before := _champion_before(result):
        columns.append(before.metrics.model_dump(mode="json"))
        word = "the champion before" if result.outcome == "published" else "the champion"
        head.append(f"version {before.version}, {word}, when published")
    rows = [
        (
            name.replace("_", " "),
            *(format_number(each[name]) if isinstance(each.get(name), float) else "" for each in columns),
        )
        for name in found
    ]
    return PageTable(rows, head)


def _champion_before(result: RetrainReport) -> Manifest | None:
    """The champion that the candidate was to replace, if it is kept and not the same."""
    with suppress(GradmillError):
        if pointer := model_folder.find_champion(result.name):
            was_promoted = result.outcome == "published" and pointer.version == result.version
            number = pointer.previous if was_promoted else pointer.version
            return model_folder.find_manifest(result.name, number) if number and number != result.version else None
    return None


# Batch predictions


def prediction_page(result: Prediction) -> Page:
    """The result of a job, its drift since training, rejected rows, and the last jobs."""
    job = Job.read(result.path / artifact_paths.JOB)
    version = read_version(artifact_paths.version(result.name, result.version))
    sections = (
        Section("", (PageTable(tuple(_list_prediction_facts(result, job))),)),
        Section("Labels", (_tabulate_labels(job, version),)),
        Section("Rejected rows", tuple(_describe_rejects(result, job))),
        _list_last_jobs(result.name),
    )
    return Page(_describe_prediction(result, job), "", sections)


def failed_prediction_page(name: str, error: Exception, source: str | None) -> Page:
    """The page of a failed prediction: what was found, and what to do."""
    found, expected, action = f"{type(error).__name__}: {error}", "no such error", "see the log of the run"
    if isinstance(error, GradmillError):
        found, expected, action = error.found, error.expected, error.action
    told: dict[str, Text] = {"Found": found, "Expected": expected, "To do": action, "Input": Code(source or "")}
    facts = [(Strong(word), text) for word, text in told.items() if text]
    return Page(f"{name}: nothing was predicted", "", (Section("", (PageTable(facts),)), _list_last_jobs(name)))


def _describe_prediction(result: Prediction, job: Job) -> str:
    """The result in one line; if it has drifted or is worse than at publication, only that."""
    rejects = f", {result.rejects:,} rejected" if result.rejects else ""
    return describe_drift(job) or f"{pluralize(result.rows, 'row')} predicted{rejects}"


def describe_drift(job: Job) -> str:
    """The largest drift of a job, unless its version or profile was removed, and what is worse than at publication."""
    told = [f"WORSE: {job.worse}"] if job.worse else []
    if job.drift and job.drift.verdict == "drift":
        moved = ""
        with suppress(GradmillError, OSError, LookupError):
            version = read_version(artifact_paths.version(job.model.name, job.model.version))
            moved = f": {describe_most_moved(job, version)}"
        told.insert(0, f"DRIFT{moved}")
    return "; ".join(told)


def name_prediction(result: Prediction) -> str:
    """The result, for the run's name."""
    index = max(result.drift.index.values(), default=0)
    parts = [f"DRIFT {index:.2f}" if result.drift.verdict == "drift" else pluralize(result.rows, "row")]
    parts += [f"{result.rejects:,} rejected"] if result.rejects else []
    return ", ".join([*parts, *filter(None, [describe_quality(result)])])


def describe_most_moved(job: Job, version: Version) -> str:
    """The largest change behind the verdict: ``bag 68 % of rows, 10 % at training``.

    If both labels and their confidence have drifted, this is a label.
    """
    index = job.drift.index if job.drift else {}
    above = [name for name, value in index.items() if job.drift and value > job.drift.maximum]
    name = LABEL if LABEL in above else max(index, key=lambda each: index[each])
    expected, found = version.reference[name], (job.profile or {})[name]
    bins = version.labels if name == LABEL else [f"{name} {each}" for each in _name_ranges(expected.edges)]
    at = drift.find_most_moved(expected.counts, found.counts)
    here, then = found.counts[at] / sum(found.counts), expected.counts[at] / sum(expected.counts)
    return f"{bins[at]} {100 * here:.0f} % of rows, {100 * then:.0f} % at training"


def describe_quality(prediction: Job | Prediction) -> str:
    """The quality of predictions if the input has the truth, else empty. Older jobs have no ``metrics``."""
    measured = prediction.metrics or ({} if prediction.accuracy is None else {"accuracy": prediction.accuracy})
    return ", ".join(f"{name} {format_number(value)}" for name, value in measured.items())


def tabulate_jobs(jobs: Iterable[Job]) -> PageTable:
    """Batch predictions, one row each."""
    head = ("finished (UTC)", "version", "input", "rows", "rejected", "drift", "index", "against the truth")
    rows = [
        (
            (job.finished_at or "")[:16].replace("T", " "),
            str(job.model.version),
            "its own test split" if job.is_of_own_test_split else Path(split_source(job.input.path)[0]).name,
            f"{job.rows - (job.rejects or 0):,}",
            f"{job.rejects or 0:,}",
            job.drift.verdict if job.drift else "",
            job.drift.describe() if job.drift else "",
            describe_quality(job),
        )
        for job in jobs
    ]
    return PageTable(rows, head)


def _list_last_jobs(name: str) -> Section:
    return Section("The last jobs", (tabulate_jobs(state.read(name, only=["job"]).names[name].jobs),))


def _list_prediction_facts(result: Prediction, job: Job) -> Iterator[tuple[str, Text]]:
    place, files = split_source(job.input.path)[0], f", {job.input.files:,} files" if job.input.files > 1 else ""
    path = Path(place)
    yield "input", (f"{path.name}, ", Code(place if "://" in place else artifact_paths.root() / path), files)
    yield from list_prediction_facts(result)
    yield "model", ("SHA-256 ", Code(result.model_sha256))
    if job.notes:
        yield "noted", "; ".join(job.note_sentences)


def list_prediction_facts(result: Prediction) -> Iterator[tuple[str, str]]:
    """How many rows were predicted, how fast, how reliably, and where they are."""
    by = f"{result.name} version {result.version} ({result.provider}) in {format_duration(result.seconds)}"
    yield "predicted", f"{pluralize(result.rows, 'row')} by {by}"
    if result.rejects:
        yield "rejected", f"{pluralize(result.rejects, 'row')}: see the column rejected"
    if quality := describe_quality(result):
        yield "truth", quality
    index, maximum = result.drift.describe(), result.drift.maximum
    limit = f" (population stability index {index}; limit {maximum:g})" if index else ""
    yield "drift", f"{result.drift.verdict}{limit}"
    yield "output", str(result.file or f"{result.path} ({pluralize(result.parts, 'part')})")


def _describe_rejects(result: Prediction, job: Job) -> Iterator[Text | PageTable]:
    """The first rejected rows: file, row, and the reason, which names the column."""
    if not result.rejects:
        return
    footers = read_footers(result.path, job)
    first = sorted(reject for footer in footers.values() for reject in footer.first_rejects)[:FEW]
    ids = [*first[0].ids]
    rows = [
        (Path(each.source).name, locate_reject(each, job), *(each.ids[name] or "" for name in ids), each.reason)
        for each in first
    ]
    yield PageTable(rows, ("file", "where", *ids, "why"))
    if result.rejects > FEW:
        yield f"All {result.rejects:,} are in ", Code(result.path / "part-*.parquet"), "."


def _tabulate_labels(job: Job, version: Version) -> PageTable:
    """The share of each label among the rows, and among predictions on the test split."""
    if not job.profile or LABEL not in version.reference:
        return PageTable(())
    found, expected = job.profile[LABEL].counts, version.reference[LABEL].counts
    rows = [
        (label, f"{here / max(1, sum(found)):.1%}", f"{there / max(1, sum(expected)):.1%}")
        for label, here, there in zip(version.labels, found, expected, strict=True)
    ]
    return PageTable(rows, ("label", "these rows", "test split"))


def _name_ranges(edges: Sequence[float]) -> list[str]:
    ends = [format_number(edge, 3) for edge in edges]
    if not ends:
        return ["any"]
    between = (f"{low} to {high}" for low, high in itertools.pairwise(ends))
    return [f"up to {ends[0]}", *between, f"above {ends[-1]}"]


# Evaluations


def evaluation_page(result: EvaluationResult) -> Page:
    """The figures of a kept version on labelled rows, beside those at publication."""
    about = Section("", (PageTable(tuple(list_evaluation_facts(result))), tabulate_evaluation(result)))
    return Page(
        describe_evaluation(result),
        "",
        (about, Section("By period", (tabulate_periods([dict(each) for each in result.periods]),))),
    )


def describe_evaluation(result: EvaluationResult) -> str:
    """The version and the number of rows."""
    return f"{result.name} version {result.version} on {pluralize(result.rows, 'row')}"


def name_evaluation(result: EvaluationResult) -> str:
    """Whether it is worse, with its main figure, for the run's name."""
    name, value = next(iter(result.metrics.items()))
    verdict = "worse" if result.worse else "as published"
    return f"{verdict}, {FIGURES[name]} {format_number(value)}"


def list_evaluation_facts(result: EvaluationResult) -> Iterator[tuple[str, str]]:
    """What was left out, and what readers must know about the rows."""
    if result.unlabelled:
        yield "left out", f"{pluralize(result.unlabelled, 'row')} without a label"
    if result.broken:
        yield "broken", f"{pluralize(result.broken, 'image')} that cannot be used"
    if result.trained_on is None:
        yield "trained on", "not known which of these rows"
    elif result.unseen:
        yield "trained on", f"{pluralize(result.trained_on, 'row')}, which are left out"
    elif result.trained_on:
        yield "trained on", f"{result.trained_on:,} of these rows: --unseen leaves them out"
    else:
        yield "trained on", "none of these rows"
    if result.is_before_refit:
        yield "weights", "those fitted on the training rows; the published ones were fitted on these rows, too"
    for change in result.changes:
        yield "data", change.sentence
    if result.worse:
        figures = ", ".join(FIGURES[name] for name in result.worse)
        yield "worse", f"than at publication, beyond chance (95 %): {figures}"


def tabulate_evaluation(result: EvaluationResult) -> PageTable:
    """Each figure with its interval, and at publication; of many classes those with the smallest recall."""
    rows = [
        (FIGURES[name], value, result.intervals[name], result.published.get(name))
        for name, value in result.metrics.items()
    ]
    for name, value in sorted(result.recall.items(), key=lambda each: each[1])[:FEW]:
        rows.append((f"recall of {name}", value, result.recall_intervals[name], result.published_recall.get(name)))
    told = [
        (words, format_number(value), describe_interval(interval), "" if before is None else format_number(before))
        for words, value, interval, before in rows
    ]
    if (others := len(result.recall) - FEW) > 0:
        told.append((f"{others:,} other classes have no smaller recall", "", "", ""))
    return PageTable(told, ("", "now", "95 % interval", "at publication"))


# Searches


def search_page(name: str, searched: SearchResult, pictures: Sequence[PagePicture]) -> Page:
    """The settings found, their gain, and the best trials."""
    tuned, trials = searched.tuned, searched.trials
    use: Text = Strong(
        "No trial is better than the previous settings by more than the variation between seeds: nothing is kept."
    )
    if tuned.is_better:
        use = Code(f"gradmill retrain {name} --tuned"), " uses what was found."
    examples = pluralize(tuned.num_validation, "validation example")
    sections = (
        Section(
            "",
            (
                f"Compared by the loss on {examples}, the same ones that the settings were chosen on; only the gates "
                "tell how good a model is.",
                use,
                tabulate_settings(tuned),
                _describe_gain(tuned),
            ),
        ),
        Section(f"The best {min(FEW, len(trials))} trials", (_tabulate_best(trials, tuned.trial),)),
        Section("Pictures", pictures),
    )
    return Page(f"{name}: the best of {pluralize(len(trials), 'trial')}", "", sections)


def tabulate_settings(tuned: TunedSettings | TuneReport) -> PageTable:
    """Each setting that was found beside the one before, and the losses with both."""
    before = tuned.default_settings
    rows: list[tuple[str, ...]] = [
        (field.replace("_", " "), format_setting(value), format_setting(before.get(field, "by rule")))
        for field, value in tuned.settings.items()
    ]
    losses = tuned.validation_losses, tuned.default_losses
    means = [mean_interval(each) if each else None for each in losses]
    seeds = max(map(len, losses))
    label = f"validation loss, mean of {seeds} seeds" if seeds > 1 else "validation loss"
    rows.append((label, *(format_number(each.mean) if each else "none" for each in means)))
    if seeds > 1:
        rows.append(("its 95 % interval", *(describe_interval(each[1:]) if each else "" for each in means)))
    return PageTable(rows, ("", "found", "before"))


def _describe_gain(tuned: TunedSettings) -> str:
    """The gain of the search, if no seed diverged."""
    gain = tuned.difference
    if gain is None:
        return "Not every seed completed its training."
    if gain.high - gain.low <= ROUNDING * abs(gain.mean):  # training that starts at zero uses no random numbers
        return f"The difference is {gain.mean:+.3g} with every seed."
    beyond = "more" if gain.high < 0 or gain.low > 0 else "no more"
    between = f"95 %: {gain.low:+.3g} to {gain.high:+.3g}"
    explained = f"{beyond} than the variation between seeds explains"
    return f"Seed by seed the difference is {gain.mean:+.3g} ({between}), {explained}."


def _tabulate_best(trials: Sequence[Trial], best: int | None) -> PageTable:
    """The best trials, one row each, by ascending loss; those that were given up come last.

    ``best`` is the number of the trial that was also best with other seeds.
    """
    measured = [trial for trial in trials if trial.validation_loss is not None]
    measured.sort(key=lambda trial: (trial.outcome != "complete", trial.validation_loss))
    fields = list(dict.fromkeys(field for trial in trials for field in trial.settings))
    rows = []
    for trial in measured[:FEW]:
        ended = f"{trial.outcome} after {pluralize(trial.epochs, 'epoch')}"
        rows.append(
            (
                str(trial.number),
                format_number(trial.validation_loss or 0.0),
                *(format_setting(trial.settings.get(field, "")) for field in fields),
                f"{trial.seconds:.2f}",
                "found" * (trial.number == best) if trial.outcome == "complete" else ended,
            )
        )
    return PageTable(rows, ("trial", "validation loss", *(field.replace("_", " ") for field in fields), "seconds", ""))
