"""``gradmill retrain`` and ``tune``, and their output."""

import importlib
import shlex
import sys
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel

from flows.cli import display
from flows.cli.data import check_header, choose_model, is_there, suggest_name
from flows.cli.display import draw_facts, join_parts
from flows.cli.errors import Answer
from flows.cli.options import Given, Quiet, TaskOption, Verbose, as_typed, given_options, require, validate_document
from flows.server import connection
from tasks.data.io.discovery import find_table, is_table
from tasks.data.schema import Request, require_columns
from tasks.errors import DataError, UsageError
from tasks.machine import progress
from tasks.machine.words import pluralize
from tasks.parameters import LearningParameters, ModelName, RetrainParameters, Training, TuneParameters, Use, is_name
from tasks.parameters.addresses import source_options
from tasks.parameters.form import WORDS, ParameterModel
from tasks.parameters.runs import refuse_search, refuse_setting
from tasks.records import QUESTIONS, GateVerdict
from tasks.serving.task import TASKS, TaskName, find_task
from tasks.store import mirror_sync, model_folder, own_data, tuning_result, verification
from tasks.store.page_rendering import Page, PageTable, Section

if TYPE_CHECKING:
    from flows.pages.report import RetrainReport, TuneReport


# Slow imports, hidden by the start of the server; not needed if nothing is trained.
TO_TRAIN = "tasks.fitting.trainer", "tasks.judging.plots", "tasks.serving.onnx_graph"
TO_FIT = "tasks.fitting.tables", "tasks.judging.plots", "tasks.serving.onnx_graph"  # a table, without torch
TO_RUN = "prefect.flow_engine", "prefect.task_engine", "fastapi.encoders"  # the last for the run's parameters


def retrain(
    given: Annotated[Given, RetrainParameters], task: TaskOption = None, verbose: Verbose = False, quiet: Quiet = False
) -> Answer:
    """Download, preprocess, train, evaluate, export, publish and predict.

    A model that passes the gates becomes the champion, the version that consumers should use: the newest that passed
    them, until somebody promotes another version or rolls back. The test split is then labelled by the champion.

    Example: [bold]gradmill retrain --name houses --data houses.csv --target price[/]
    """
    given = _complete_model(given, task)
    parameters = validate_document(RetrainParameters, _complete_kept_name(given, "retrain"), "retrain")
    _check_training(given, parameters)
    tuning_result.take_found(parameters)  # report missing settings now; the run takes the newest
    mirror_sync.save_given_url()
    modules: tuple[str, ...] = ()
    if own_data.must_train(parameters):
        is_table = parameters.data.source and parameters.data.target
        modules = TO_FIT if is_table else TO_TRAIN
    report, failure = run_flow("retrain", parameters, verbose, quiet, modules)
    from flows.pages.run_pages import describe_hold

    if report.outcome == "refused":
        for line in describe_hold(report):
            print(join_parts(line), file=sys.stderr)
    owes_predictions = failure is not None and parameters.predict
    return Answer(report, lambda: draw_retrain(report, owes_predictions), failure)


def tune(given: Annotated[Given, TuneParameters], verbose: Verbose = False, quiet: Quiet = False) -> Answer:
    """Search for better settings by the loss on a validation part; the test split is not used.

    Nothing is published: gradmill retrain --tuned uses what was found, and its model must pass the gates. The same
    command continues an interrupted search. Training options that are given stay as they are. Tables need no search:
    every retrain chooses their penalties by cross-validation.

    Example: [bold]gradmill tune softmax-regression --trials 32[/]
    """
    from tasks.fitting.search_space import narrow_space

    _refuse_table(given)
    document = _complete_kept_name(given | {"tuned": False}, "tune")
    document.pop("tuned", None)
    document["search"] = document.get("search", {}) | {"space": _fix_given_options(given)}
    parameters = validate_document(TuneParameters, document, "tune")
    _check_training(given, parameters)
    narrow_space(parameters.training, parameters.search.space)  # report errors in it now
    report, failure = run_flow("tune", parameters, verbose, quiet)
    use = as_typed(_command_with(parameters, report.settings))
    return Answer(report, lambda: draw_search(report, use), failure)


def _refuse_table(given: dict[str, Any]) -> None:
    """Refuse a search for a table, whether it is data or a kept name.

    Raises:
        UsageError: it is a table.
    """
    named = given.get("training", {}).get("model")
    if named not in (None, *ModelName):
        if own_data.keeps_table(named):
            raise refuse_search(named)
        return
    from tasks.data.image_dataset import is_images

    data = given.get("data", {})
    source = data.get("source", "")
    has_target = "target" in data or named == ModelName.LINEAR_REGRESSION
    if source and (has_target or (is_there(source) and not is_images(source))):
        raise refuse_search(given.get("name", ""))


def _complete_model(given: dict[str, Any], task: TaskName | None) -> dict[str, Any]:
    """The parameters with the model of own data: that of the name, of the ``task``, or of the target's values.

    Raises:
        UsageError: ``task`` contradicts the model, the kept name or the kind of data.
        DataError: there are no such data, or the target is unfit.
    """
    data, training = given.get("data", {}), given.get("training", {})
    named, source = training.get("model"), data.get("source")
    if named is None and source and model_folder.list_versions(given.get("name", "")):
        named = given["name"]
    kept = own_data.find_newest(named) if named and named not in [*ModelName] else None
    known = kept.parameters.training.model if kept else named if named in [*ModelName] else None
    if task and not (source or kept):
        raise UsageError(f"--task {task}", "your own table: --data and --target", "leave --task out")
    if task and known and known != TASKS[task].model:
        expected = f"{find_task(known).name}, the task of {named}"
        raise UsageError(f"--task {task} with {named}", expected, "leave --task out, or give the model another --name")
    if named is None and source and "name" in given and "target" in data:
        named = TASKS[task].model if task else choose_model(data)
    elif task and "target" not in data and not kept:
        raise UsageError(f"--task {task} without --target", "the column to predict", "name it with --target")
    return given | {"training": training | {"model": named}} if named else given


def _complete_kept_name(given: dict[str, Any], command: str) -> dict[str, Any]:
    """The parameters, with those of a kept name that is given in place of a model, and absolute paths of data.

    Raises:
        UsageError: an option is missing, or does not fit the name.
        DataError: there are no such data.
    """
    data, named = given.get("data", {}), given.get("training", {}).get("model")
    is_of_book = named in (None, *ModelName)
    if "source" in data:
        source = data["source"]
        if source and "://" not in source and not is_there(source):  # reported before other errors
            from tasks.data.image_dataset import find_images

            is_of_table = "target" in data or named not in (None, ModelName.SOFTMAX_REGRESSION)
            find_table(source) if is_of_table or is_table(Path(source)) else find_images(source)
        if named == ModelName.LINEAR_REGRESSION and "target" not in data:
            wanted = "the column to predict; or images, which softmax-regression learns"
            to_do = f"name it with --target; gradmill inspect {source} shows the columns"
            raise UsageError(f"no --target for {source}", wanted, to_do)
        if is_of_book and "name" not in given:
            to_do = f"add --name {suggest_name(source)}"
            raise UsageError(f"no --name for {source}", "a name under which its model is kept", to_do)
    if is_of_book:
        return given
    if given.get("name", named) != named and model_folder.list_versions(named):
        found = f"{command} {named} --name {given['name']}"
        raise UsageError(found, "one name", f"gradmill {command} {named} trains {named} again")
    if not is_name(named) and is_there(named):
        target = ["--target", data["target"]] if "target" in data else []
        to_do = f"{as_typed(shlex.join(['inspect', named, *target]))} shows the command that trains on it"
        raise UsageError(f"{named} is data, not a model", f"{' or '.join(ModelName)}, or a kept name", to_do)
    training = {option: value for option, value in given["training"].items() if option != "model"}
    return own_data.repeat_parameters(named, given | {"training": training}, with_found=command == "tune")


def _check_training(given: dict[str, Any], parameters: LearningParameters) -> None:
    """Check options, name, device, and columns or images.

    Raises:
        UsageError: options have no effect, contradict each other, or differ from what the name keeps.
        DataError: there are no such data, or their first file lacks columns.
        DeviceMissing: the device is not available.
    """
    for part in ("data", "gates"):
        values: ParameterModel = getattr(parameters, part, parameters)
        for name in given.get(part, {}):
            if not (use := values.use_of(name)) & parameters.use:  # such as a gate of the other model
                flag = f"--{name.replace('_', '-')}"
                raise UsageError(
                    f"{flag} with {parameters.name}",
                    f"{WORDS[use]}, the only case that {flag} applies to",
                    f"leave {flag} out",
                )
    if parameters.use in Use.TABLES:  # defaults, too, which stored parameters may have
        for name in given.get("training", {}):
            if not Training.use_of(name) & parameters.use:
                raise refuse_setting(parameters, name)
    own_data.require_same_kind(parameters)
    data, previous = parameters.data, own_data.find_fixed(parameters.name)
    if data.source and data.use is Use.IMAGES:
        from tasks.data.image_dataset import find_images

        find_images(data.source)
        if previous:
            previous.require(data)
    elif data.source:
        request = Request(data, previous)
        request.require_sound()
        try:
            check = partial(require_columns, request=request)
            check_header(data.source, request, check)
        except DataError:
            for number in model_folder.list_versions(parameters.name)[-1:] if previous else ():
                verification.verify_version(parameters.name, number)  # a damaged version would fix wrong columns
            raise
    require(parameters.training.device)


def _command_with(parameters: TuneParameters, settings: Collection[str]) -> str:
    """The command that trains with the found settings on the same data."""
    if model_folder.list_versions(parameters.name):
        return shlex.join(["retrain", parameters.name, "--tuned"])
    training = parameters.training
    said = training.given_values.keys() - {"model", "defaults", *settings}
    options = source_options(parameters.data.source) if parameters.data.source else []
    options += given_options(parameters.data, {"source"})
    options += given_options(training, set(type(training).model_fields) - said)
    return shlex.join(["retrain", training.model, "--name", parameters.name, *options, "--tuned"])


def _fix_given_options(given: dict[str, Any]) -> list[str]:
    """The entries of ``--space``, and those of given training options, which are not searched.

    Raises:
        UsageError: an option is in both.
    """
    from tasks.fitting.search_space import OPTIONS

    items = list(given.get("search", {}).get("space", []))
    named = {item.partition("=")[0].strip() for item in items}
    for option, field in OPTIONS.items():
        value = given.get("training", {}).get(field)
        if value is not None and value != "auto":  # auto is a search too
            if option in named:
                raise UsageError(f"--{option} {value}, and {option} in --space", "one of the two", "leave one out")
            items.append(f"{option}={value}")
    return items


# A flow and its server


def run_flow(
    name: str, parameters: BaseModel, verbose: bool, quiet: bool, modules: tuple[str, ...] = ()
) -> tuple[Any, Exception | None]:
    """Run a flow and show its stages; the flow and other ``modules`` are imported while its server starts.

    Returns the result and, if an error has it as its ``report``, the error.
    """
    progress.is_watched &= not (quiet or verbose)
    server = connection.prefect_api(f"flows.{name}", *TO_RUN, *modules)
    with display.compact(verbose, stages=not quiet), server as is_lasting:
        if not (is_lasting or quiet or display.is_shown()):
            print(f"server     a temporary one; for one that stays, {connection.TO_HAVE_ONE}", file=sys.stderr)
        display.wait("waiting for the run to begin")
        flow = getattr(importlib.import_module(f"flows.{name}"), name)
        report, failure = None, None
        try:
            report = flow(parameters)
        except Exception as error:
            if (report := getattr(error, "report", None)) is None:
                raise
            failure = error
        display.wait("stopping the temporary server")
    return report, failure


def draw_gates(verdicts: Sequence[GateVerdict]) -> Section:
    """The verdicts and their bounds for a terminal; in a log each verdict already has its line."""
    if not progress.is_watched:
        return Section("", ())
    from tasks.store.version_page import tabulate_gates  # late, because it imports numpy

    refused = (verdict.name for verdict in verdicts if verdict.verdict == "refused")
    questions = (f"{name} asks: {QUESTIONS[name]}" for name in refused if name in QUESTIONS)
    rows, head, _ = tabulate_gates(verdicts)
    return Section("", (PageTable([row[:-1] for row in rows], head[:-1]), *questions))


def draw_retrain(result: "RetrainReport", owes_predictions: bool) -> Page:
    """What was trained, how good it is, where it is, and what to try next; of a refused candidate only the gates."""
    from flows.pages.run_pages import describe_hold

    if result.outcome == "refused":
        return Page(sections=(draw_gates(result.gates),))
    quality = find_task(result.model).summary(result.metrics)
    trained = f"{result.model} ({result.kind}) on {result.device}: {quality}"
    predictions = "none: the run failed before they were made" if owes_predictions else ""
    if predicted := result.prediction:
        by = f"version {predicted.version}{', the champion' * (predicted.version == result.champion)}"
        predictions = f"{predicted.path} ({pluralize(predicted.rows, 'row')} by {by}, {result.provider})"
    mirror = result.mirror
    facts = [
        ("trained" if result.was_trained else "kept", trained),
        (result.outcome, _describe_standing(result)),
        *(("", line) for line in describe_hold(result)),
        ("model", result.model_path or ""),
        ("mirrored", f"{mirror.url}: version {mirror.version} ({mirror.outcome})" if mirror else ""),
        ("predictions", predictions),
        ("evidence", result.run),
    ]
    page = draw_facts(facts, list_next_steps(result))
    gates = draw_gates(result.gates) if result.was_trained else Section("", ())
    return page._replace(sections=(gates, *page.sections))


def _describe_standing(result: "RetrainReport") -> str:
    """Whether the candidate became the champion: it may have been rolled back from, or replaced."""
    if result.version is None:
        return f"{result.name}: it {result.describe()}"
    version = f"{result.name} version {result.version}, {f'{result.detail}, ' if result.detail else ''}"
    if result.version != result.champion:
        champion = f"version {result.champion}" if result.champion else "none"
        return f"{version}not the champion: that is {champion}"
    from flows.pages.overview import find_headline_figure

    pointer = model_folder.read_pointer(result.name) if result.outcome == "published" else None
    if pointer is None or pointer.version != result.version or pointer.previous is None:
        return f"{version}the champion"
    # The previous champion may be better within the bounds of the gates, and with grown data it had other test rows.
    now, before = (
        find_headline_figure(model_folder.find_manifest(result.name, each))
        for each in (pointer.version, pointer.previous)
    )
    figures = f"{now}; version {pointer.previous} when published: {before}"
    return f"{version}the champion in place of version {pointer.previous} ({figures})"


def list_next_steps(result: "RetrainReport") -> list[str]:
    """The commands to type next after a retrain: publish, use, look at, promote."""
    name = result.name
    is_left = result.outcome == "unchanged" and result.version != result.champion  # rolled back from, or replaced
    if result.frozen:
        commands = [f"unfreeze {name}", *[f"promote {name} {result.version}"] * is_left, f"models {name}"]
    elif result.outcome == "judged" and not result.detail:  # --no-publish: the same command without it
        commands = [shlex.join(each for each in sys.argv[1:] if each != "--no-publish")]
    elif not result.champion:
        commands = []
    else:
        commands = [*([] if result.prediction else [f"predict --name {name}"]), f"show {name}"]
        if is_left or (result.outcome == "published" and result.version != result.champion):
            commands.append(f"promote {name} {result.version}")
        elif result.outcome == "unchanged" and not result.was_trained:
            commands.append(f"retrain {name} --force")
        else:
            commands.append(f"demo {name}")
        commands.append(f"models {name}" if result.champion > 1 else f"verify {name}")
    return [as_typed(command) for command in commands]


def draw_search(result: "TuneReport", use: str) -> Page:
    """The settings found, their gain over the previous settings, and the command to ``use`` them."""
    from flows.pages.run_pages import tabulate_settings

    facts = [
        (result.outcome, f"{result.name}: the best of {pluralize(len(result.trials), 'trial')}"),
        ("kept", result.path or "nothing: the previous settings are as good, or better"),
        ("evidence", result.run),
    ]
    page = draw_facts(facts, [] if result.retrained or not result.path else [use])
    following = draw_retrain(result.retrained, owes_predictions=False).sections if result.retrained else ()
    return Page(sections=(Section("", (tabulate_settings(result),)), *page.sections, *following))
