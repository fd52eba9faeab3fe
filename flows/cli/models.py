"""The contents of a name: versions, runs, history, pages; its champion, and freezing."""

import math
import os
import shlex
import sys
import webbrowser
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows import interrupt
from flows.cli import display
from flows.cli.display import draw_blocks, draw_facts
from flows.cli.errors import Answer, as_gradmill_error, report_faults
from flows.cli.options import ModelArgument, OnlyModel, Version, add_artifacts
from tasks.errors import DataError, EnvironmentProblem, GradmillError, UsageError, without_credentials
from tasks.machine.run_messages import Event
from tasks.machine.words import format_names, format_number, format_setting, pluralize, suggest_spelling
from tasks.parameters import is_name
from tasks.records import GateVerdict
from tasks.serving.task import TASKS
from tasks.store import (
    artifact_paths,
    mirror_sync,
    model_folder,
    pointer,
    run_folder,
    state,
    verification,
)
from tasks.store import history as changes_of_names
from tasks.store.atomic import file_digest
from tasks.store.model_folder import Manifest
from tasks.store.page_rendering import Page, PageTable, Section
from tasks.store.run_folder import RunSummary
from tasks.store.state import Kind, NameState

CHAMPION = "the newest that passed the gates, until somebody promotes another version or rolls back"
LISTED = 1000  # runs of a name
SHORT = {"num_epochs": "epochs", "batch_size": "batch"}
GRAPHICAL = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")  # else webbrowser may start a text browser
CURVES = ("train_loss", "validation_loss", "test_loss", "train_accuracy", "validation_accuracy", "test_accuracy")


Reason = Annotated[str | None, typer.Option(metavar="TEXT", help="Why; gradmill history shows it.")]


Order = Literal["date", "accuracy", "loss", "validation", "seconds"]  # the sort order of runs
TEST_FIGURES = "accuracy", "log loss", "RMSE"  # on the test split
FIGURES = {"accuracy": "test_accuracy", "loss": "test_loss", "validation": "validation_loss", "seconds": "seconds"}


def format_test_figures(accuracy: float | None, loss: float | None) -> tuple[str, str, str]:
    """The values for ``TEST_FIGURES``; a regression has no accuracy, and its loss is half its mean squared error.

    They have separate columns so that nobody compares nats with squared euros.
    """
    if loss is None:
        return "", "", ""
    if accuracy is None:
        return "", "", format_number(math.sqrt(2 * loss))
    return f"{accuracy:.4f}", format_number(loss), ""


def models(
    name: OnlyModel = None,
    is_of_runs: Annotated[
        bool, typer.Option("--runs", help="List the runs that trained a model: published, refused and unpublished.")
    ] = False,
    sort: Annotated[
        Order | None,
        typer.Option(
            metavar="WORD",
            help="By date, accuracy, loss, validation or seconds, the best of each model first \\[default: date].",
        ),
    ] = None,
) -> Answer:
    """List every version with its figures; * marks the champion, f a frozen one, h a held version.

    The champion is the newest version that passed the gates, until somebody promotes another version or rolls back. No
    retrain changes a frozen one until gradmill unfreeze.

    Example: [bold]gradmill models houses[/]
    """
    if is_of_runs:
        return _list_runs(name, sort or "date")
    if sort:
        expected = "versions in the order of their numbers"
        raise UsageError("--sort without --runs", expected, "add --runs, or leave it out")
    kept = model_folder.list_names()
    if name is not None:
        model_folder.require_versions(name)
    found, place = state.read(name), artifact_paths.models()
    failure = report_faults(found.faults, "champion", "version")
    listing = {each: of_name.rows for each, of_name in found.names.items() if each in kept}
    text = None if failure else f"no models in {place}; train one: gradmill retrain"
    document = {"path": place, "models": listing}
    return Answer(document, (lambda: _draw_versions(listing)) if any(listing.values()) else text, failure)


def _draw_versions(listing: dict[str, list[dict[str, Any]]]) -> Page:
    cells, notes = [], [f"in {artifact_paths.models()}", f"* the champion: {CHAMPION}"]
    if any(row["held"] for rows in listing.values() for row in rows):
        notes.append("h held: no retrain publishes it again")
    for name, rows in listing.items():
        for row in rows:
            if row["frozen"]:
                notes.append(f"f frozen: no retrain changes it until gradmill unfreeze {name}")
            if row["champion"] and row["accepted"]:
                accepted = format_names(row["accepted"], 10)
                notes.append(f"accepted in its data: {accepted}, until gradmill retrain {name} --forget-accepted")
            marks = " *" * row["champion"] + " f" * row["frozen"] + " h" * row["held"]
            figures = format_test_figures(row["test_accuracy"], row["test_loss"])
            parity, size = format_number(row["parity"], 2), f"{row['bytes'] / 1024:.1f}"
            data = f"{row['dataset']} {row['dataset_digest'][:8]}"
            cells.append((name, f"{row['version']}{marks}", *figures, parity, size, row["created_at"][:10], data))
    head = ("model", "version", *TEST_FIGURES, "parity", "KiB", "date", "data")
    table = PageTable(cells, head, spare=("parity", "KiB", "date", "log loss"))
    return draw_blocks(table, "; ".join(notes))


def _list_runs(name: str | None, order: Order) -> Answer:
    """List the runs of a name, or of all.

    Raises:
        UsageError: this name has no runs.
    """
    found = state.read(name, LISTED) if name is None or is_name(name) else state.StoreState()
    listed = sorted((run for each in found.names.values() for run in each.runs), key=lambda run: run.run, reverse=True)
    if name and not listed:
        if failure := report_faults(found.faults, "run"):
            raise failure
        known = [each for each, of_name in state.read().names.items() if of_name.runs]
        to_do = suggest_spelling(name, known, "see gradmill models --runs")
        raise UsageError(f"no run of {name}", f"one of: {', '.join(known) or 'none yet'}", to_do)

    def rank(run: RunSummary) -> tuple[str, bool, float]:
        figure = getattr(run, FIGURES[order])
        best_first = (figure or 0.0) * (-1 if order == "accuracy" else 1)
        return "" if order == "seconds" else run.name, figure is None, best_first  # losses on other data mean nothing

    if order != "date":  # by default they are in order, the newest first
        listed.sort(key=rank)
    report_faults(found.faults)
    place = artifact_paths.runs()
    nothing = f"no runs in {place}; gradmill retrain --no-publish makes one that leaves the store alone"
    return Answer({"path": place, "runs": listed}, (lambda: _draw_runs(listed, place)) if listed else nothing)


def _draw_runs(listed: list[RunSummary], folder: Path) -> Page:
    rows = []
    for run in listed:
        validation = "" if run.validation_loss is None else format_number(run.validation_loss)
        figures = format_test_figures(run.test_accuracy, run.test_loss)
        date, digits = run.date[5:16].replace("T", " "), run.run.rpartition("-")[2]  # most are of this year
        settings = ", ".join(
            f"{SHORT.get(key, key.replace('_', ' '))} {format_setting(value)}"
            for key, value in run.changed.items()
            if key not in ("model", "device")
        )
        rows.append((run.name, date, digits, run.in_words, *figures, validation, f"{run.seconds:.1f}", settings))
    head = ("model", "date", "id", "outcome", *TEST_FIGURES, "validation", "s", "settings")
    table = PageTable(rows, head, spare=("settings", "s", "validation", "log loss", "id"))
    note = "; only settings that differ from the default are listed" if any(row[-1] for row in rows) else ""
    return draw_blocks(table, f"in {folder}: a run's folder ends with its id{note}")


def history(name: OnlyModel = None) -> Answer:
    """Show who changed what, when and why: versions published, promoted, rolled back, frozen, unfrozen and pruned.

    For one model of own data it also shows which files each version was trained on.

    Example: [bold]gradmill history houses[/]
    """
    only: tuple[Kind, ...] = ("history",)
    if name is not None:
        model_folder.require_versions(name)
        only = ("history", "version", "source")
    found = state.read(name, only=only)
    failure = report_faults(found.faults, "history")
    for each in found.names.keys() - {fault.name for fault in found.faults if fault.kind == "history"}:
        changes_of_names.verify(each)  # it reports an incomplete last line
    changes = {each: of_name.changes[::-1] for each, of_name in found.names.items()}
    document = {"history": changes} | ({"files": {name: found.names[name].files}} if name else {})
    return Answer(document, lambda: Page(sections=[*_list_histories(found.names)]), failure)


def _list_histories(names: dict[str, NameState]) -> Iterator[Section]:
    from flows.pages.overview import tabulate_changes, tabulate_files

    for name, facts in names.items():
        yield Section(name, (tabulate_changes(facts.changes[::-1]),))
        yield Section("", (tabulate_files(facts),))


def show(
    name: ModelArgument,
    version: Version = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the path of the page and open nothing.")
    ] = False,
) -> Answer:
    """Open the page of the champion, or of a version: its curves, classes, weights, mistakes, gates and lineage.

    The page is one file that needs no server and no network; its path and the learning curve are shown here.

    Example: [bold]gradmill show houses[/]
    """
    display.wait("looking for the page")
    from tasks.store import version_page

    number = model_folder.resolve_version(name, version)
    path = version_page.find_html(name, number)
    display.end()
    has_desktop = sys.platform == "darwin" or any(map(os.environ.get, GRAPHICAL))
    wants = not no_browser and os.isatty(1) and has_desktop
    is_opened = wants and webbrowser.open(path.absolute().as_uri())
    facts = [("page", str(path)), ("", "opened in the browser" * is_opened)]
    document = {"name": name, "version": number, "path": path, "opened": is_opened}
    return Answer(document, lambda: draw_facts([*_list_facts(name, number), *facts]))


def _list_facts(name: str, number: int) -> Iterator[tuple[str, str]]:
    """The facts that ``show`` prints about a version, before the path of its page."""
    manifest, champion = model_folder.find_manifest(name, number), model_folder.find_champion(name)
    standing = ", the champion" if champion and champion.version == number else ""
    quality = TASKS[manifest.dataset.task].summary(manifest.metrics.model_dump())
    yield "model", f"{name} version {number}{standing}: {quality}"
    curve, label = run_folder.read_learning_curve(manifest.run), "learned"
    for figure in CURVES if len(curve) > 1 else ():
        first, last = curve[0].get(figure), curve[-1].get(figure)
        if first is not None and last is not None:
            yield label, f"{figure.replace('_', ' '):<20}{format_number(first, 3)} to {format_number(last, 3)}"
            label = ""
    trained = manifest.trained
    if trained.refit:
        yield "weights", trained.refit_sentence
    if trained.kept_epoch != trained.num_epochs:
        kept = f"the weights of epoch {trained.kept_epoch} of {trained.num_epochs}"
        yield "kept", f"{kept}, whose validation loss was the smallest"


def report(
    name: ModelArgument,
    output: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The file \\[default: NAME-overview.html].")
    ] = None,
) -> Answer:
    """Write one HTML file that shows what is live and how it has developed, and needs no server.

    Example: [bold]gradmill report houses[/]
    """
    if not is_name(name) or not (facts := state.read_name(name)).is_known:  # a name may have runs but no version
        model_folder.require_versions(name)
    display.wait("drawing how it has developed")
    from flows.pages.overview import format_headline, write_report

    path = (output or Path(f"{name}-overview.html")).absolute()
    write_report(facts, path)
    headline = format_headline(facts)
    return Answer({"name": name, "headline": headline, "path": path}, f"{name}: {headline}\n{path}")


def verify(
    name: OnlyModel = None,
    version: Version = None,
    every: Annotated[bool, typer.Option("--all", help="Check the whole store.")] = False,
) -> Answer:
    """Check every checksum, the pointer, the signature and the stored sample through onnxruntime.

    With --all this is done for the whole store; row digests, runs, jobs and settings are checked too. What is damaged
    or missing is named with what mends it.

    Example: [bold]gradmill verify houses[/]
    """
    if (name is None) is not every:
        raise UsageError(
            f"verify {name} --all" if name else "verify without a name", "either NAME or --all", "give one"
        )
    if name is None:
        return _verify_all()
    number = model_folder.resolve_version(name, version)
    checked, missing = verification.verify(name, number)
    document = {"name": name, "version": number, "checked": checked, "missing": missing}
    not_here = f"; not here: {', '.join(missing)}" if missing else ""
    return Answer(document, f"{name} version {number} is whole: {', '.join(checked)}{not_here}")


def _verify_all() -> Answer:
    display.wait("verifying every version")
    whole, faults = state.verify()
    versions = [{"name": name, "version": number} for name, number in whole]
    document = {"whole": versions, "faults": [fault._asdict() for fault in faults]}
    lines = [f"{name} version {number} is whole" for name, number in whole]
    lines += [f"! {fault.found}; to do: {fault.action}" for fault in faults]
    failure = None
    if faults:
        found = f"{artifact_paths.root()} has {pluralize(len(faults), 'fault')}"
        failure = DataError(found, "a whole store", "mend each as its line says, then run gradmill verify --all again")
    return Answer(document, "\n".join(lines) or "there is no version", failure)


def compare(
    name: ModelArgument,
    a: Annotated[int, typer.Argument(metavar="A", help="A version.")],
    b: Annotated[int, typer.Argument(metavar="B", help="Another version, which is judged against A.")],
) -> Answer:
    """Show two versions side by side: figures, data, settings that differ, the weights that moved most, and gates.

    The gates judge B as if it were a candidate beside A, on test rows of B that A was not trained on either.

    Example: [bold]gradmill compare houses 3 4[/]
    """
    display.wait("judging one beside the other")
    from tasks.judging.champion import judge_beside
    from tasks.serving.raw_units import list_coefficients

    first, second = both = [
        model_folder.find_manifest(name, model_folder.resolve_version(name, number)) for number in (a, b)
    ]
    settings = _pair(map(_list_settings, both))
    change = _subtract(*(_find_weights(each) for each in both))
    moved = list_coefficients({"weights": change}, second.recipe, first.dataset.class_names)
    gates: tuple[GateVerdict, ...] = ()
    why_none = "no gate compares them"
    try:
        gates = judge_beside(first, second)
    except (GradmillError, OSError) as error:
        why_none = error.found if isinstance(error, GradmillError) else str(error)
    document = {
        "name": name,
        "versions": (a, b),
        "figures": _pair({key: each for key, each in one.metrics if isinstance(each, float)} for one in both),
        "data": _pair(map(_describe_data, both)),
        "settings": {field: values for field, values in settings.items() if values[0] != values[1]},
        "weights": [each._asdict() for each in moved],
        "gates": gates,
        "not_judged": None if gates else why_none,
    }
    return Answer(document, lambda: _draw_comparison(document, both))


def _pair(facts: Iterable[dict[str, Any]]) -> dict[str, tuple[Any, Any]]:
    """The facts of two versions in pairs; None where one lacks a fact."""
    a, b = facts
    return {key: (a.get(key), b.get(key)) for key in a | b}


def _list_settings(manifest: Manifest) -> dict[str, Any]:
    """The options of training and of own data, by name."""
    asked = manifest.parameters.model_dump(mode="json")
    settings: dict[str, Any] = (asked.get("data") or {}) | asked["training"]
    return settings


def _describe_data(manifest: Manifest) -> dict[str, Any]:
    data = manifest.dataset
    return {
        "created_at": manifest.created_at[:16],
        "run": manifest.run,
        "data": f"{data.title or data.name} {data.digest[:8]}",
        "training_rows": data.num_train,
        "test_rows": data.num_test,
    }


def _find_weights(manifest: Manifest) -> Any:
    """Weights by column, and class or level; those of the book's regression are recorded in column order."""
    weights = manifest.metrics.model_dump().get("weights")
    return dict(zip(manifest.recipe.names, weights, strict=True)) if isinstance(weights, list) else weights


def _subtract(before: Any, after: Any) -> Any:
    """Changes of weights, by column, class or level, that both versions have; None for weights without names."""
    from tasks.serving.raw_units import is_curve

    if is_curve(before) or is_curve(after):
        return _subtract_curves(before, after)
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        return {key: _subtract(before[key], after[key]) for key in before if key in after}
    return after - before if isinstance(before, float) and isinstance(after, float) else None


def _subtract_curves(before: Any, after: Any) -> Any:
    """The change of a curve, at the points of both; where one of them is a line, it is compared by its slope."""
    import numpy as np

    curves = [curve for curve in (before, after) if isinstance(curve, Mapping)]
    at = np.unique(np.concatenate([curve["at"] for curve in curves]))

    def evaluate(weight: Any) -> Any:
        return weight * at if isinstance(weight, float) else np.interp(at, weight["at"], weight["adds"])

    change = evaluate(after) - evaluate(before)
    if len(curves) == 1:
        change -= change.mean()
    return {"at": at.tolist(), "adds": change.tolist()}


def _draw_comparison(document: dict[str, Any], manifests: Sequence[Manifest]) -> Page:
    a, b = (f"version {number}" for number in document["versions"])
    steps = _pair(each.trained.steps.model_dump() if each.trained.steps else {} for each in manifests)
    settings = {  # with the values that training found for settings that were not given
        field: [own if own is not None else found for own, found in zip(given, steps.get(field, given), strict=True)]
        for field, given in document["settings"].items()
    }
    facts = document["figures"] | document["data"] | settings
    rows = [(field.replace("_", " "), *map(_spell, pair)) for field, pair in facts.items()]
    head = ("weight that moved most", "by a unit, or the level", "by a deviation, or the level")
    moved = [
        (weight["name"], f"{weight['value']:+.4g}", f"{weight['size']:+.4g}")
        for weight in document["weights"]
        if weight["value"]
    ]
    no_weights = "no weight differs"
    if not document["weights"]:
        page = f"gradmill show {document['name']} VERSION"
        no_weights = f"these weights have no names; the pages that {page} opens draw them"
    gates = [(each.name, each.verdict, format_number(each.value), each.detail) for each in document["gates"]]
    not_judged = f"{b} is not judged beside {a}: {document['not_judged']}"
    sections = (
        Section("", (PageTable(rows, ("", a, b)),)),
        Section("", (PageTable(moved, head) if moved else no_weights,)),
        Section("", (PageTable(gates, (f"{b} beside {a}", "verdict", "found", "required")) if gates else not_judged,)),
    )
    return Page(sections=sections)


def _spell(fact: Any) -> str:
    return format_number(fact) if isinstance(fact, float) else "" if fact is None else str(fact)


def promote(
    name: ModelArgument,
    version: Annotated[int, typer.Argument(metavar="VERSION", help="The version to use from now on.")],
    reason: Reason = None,
) -> Answer:
    """Make a version the champion, and end its hold; a frozen name stays frozen.

    Example: [bold]gradmill promote houses 3[/]
    """
    mirror_sync.save_given_url()
    before = None
    with suppress(GradmillError):  # the present champion may be unknown
        before = model_folder.resolve_version(name, None)
    changed = pointer.promote(name, version, reason)
    done = f"{before or 'none'} → {version}" if changed else f"version {version} is the champion already"
    document = {"name": name, "champion": version, "before": before, "changed": changed}
    return _finish(f"{name}: {done}", document, Event.PROMOTED if changed else None)


def rollback(
    name: ModelArgument,
    reason: Reason = None,
    no_freeze: Annotated[bool, typer.Option("--no-freeze", help="Let the next retrain publish again.")] = False,
) -> Answer:
    """Go back to the previous champion, hold the version that was live, and freeze the name.

    Only promote brings a held version back; no retrain does. No retrain publishes until gradmill unfreeze, because a
    model trained on the next night's data would differ in bytes and could have the same fault.

    Example: [bold]gradmill rollback houses --reason 'the new prices are in doubt'[/]
    """
    mirror_sync.save_given_url()
    left, champion = pointer.rollback(name, reason, and_freeze=not no_freeze)
    done = f"{name}: {left} → {champion}, version {left} is held"
    document = {"name": name, "champion": champion, "before": left, "held": left, "frozen": pointer.is_frozen(name)}
    return _finish(done, document, Event.ROLLED_BACK)


def freeze(name: ModelArgument, reason: Reason = None) -> Answer:
    """Stop retrains from changing the champion: candidates are still trained and judged, but none is published.

    Example: [bold]gradmill freeze houses[/]
    """
    return _freeze(name, True, reason)


def unfreeze(name: ModelArgument, reason: Reason = None) -> Answer:
    """Let retrains publish again.

    Example: [bold]gradmill unfreeze houses[/]
    """
    return _freeze(name, False, reason)


def _freeze(name: str, frozen: bool, reason: str | None) -> Answer:
    mirror_sync.save_given_url()
    champion, changed = pointer.freeze(name, reason, frozen)
    done = f"{name}: version {champion} {'stays' if changed else 'is'} the champion"
    document = {"name": name, "champion": champion, "frozen": frozen, "changed": changed}
    event = Event.FROZEN if frozen else Event.UNFROZEN
    return _finish(done, document, event if changed else None)


def _finish(done: str, document: dict[str, Any], event: Event | None) -> Answer:
    """Mirror the champion if retrains do; report what was done, the mirror, and whether retrains may undo it.

    The ``event`` is sent last, because a server may be slow.
    """
    name, text = document["name"], done
    interrupt.note_achievement(done)
    failure = _mirror(done, document)
    if failure or "mirror" in document:
        text += f", mirror: {'FAILED' if failure else 'up to date'}"
    is_frozen = pointer.is_frozen(name)
    text += f", {'' if is_frozen else 'not '}frozen"
    if held := document.get("held"):
        text += f"\nheld: no retrain publishes version {held} again; only gradmill promote {name} {held} does"
    if is_frozen:
        text += f"\nfrozen: candidates are judged, and nothing is published until gradmill unfreeze {name}"

    def send_event(event: Event) -> None:
        from flows.server import connection  # late, because it imports Prefect

        path = artifact_paths.version(name, document["champion"]) / artifact_paths.ONNX
        payload = {"version": document["champion"], "sha256": file_digest(path), "path": str(path)}
        connection.send_model_event(event, name, payload)

    return Answer(document, text, failure, (lambda: send_event(event)) if event else None)


def _mirror(done: str, document: dict[str, Any]) -> EnvironmentProblem | None:
    """Add what was mirrored to the document, if the store has a mirror.

    If that fails, return an error with the command that makes up for it.
    """
    try:
        url = mirror_sync.find_url()
    except DataError as error:
        return EnvironmentProblem(f"{done}; the mirror was not updated: {error.found}", error.expected, error.action)
    if url is None:
        return None
    name, behind = document["name"], f"{done}; the mirror {url} was not updated"
    action = f"{add_artifacts(shlex.join(['gradmill', 'mirror', name, url]))}, once that is fixed"
    interrupt.note_achievement(without_credentials(f"{behind}; to do: {action}"))
    try:
        document["mirror"] = mirror_sync.copy_champion(name, url)
    except Exception as error:
        return EnvironmentProblem(f"{behind}: {as_gradmill_error(error).found}", "the same champion there", action)
    interrupt.note_achievement(done)
    return None
