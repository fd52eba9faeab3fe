"""The command line ``gradmill …``: thin commands over flows and store. Imports torch and prefect only when needed."""

import functools
import inspect
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from importlib import metadata
from typing import Annotated, Any, get_args

import typer

from flows import interrupt
from flows.cli import copies, data, display, models, operate, predict, schedule, streams, train
from flows.cli.errors import CommandLineFault, as_gradmill_error, conclude, report_error
from flows.cli.options import Artifacts, Debug, Given, Json, choose, values
from flows.server import environment
from tasks.errors import EnvironmentProblem, UsageError

# Every command, in the order and under the headings of ``gradmill --help``.
PANELS: dict[str, tuple[Callable[..., Any], ...]] = {
    "Train": (train.retrain, data.inspect, train.tune),
    "Predict": (predict.predict, predict.evaluate, predict.demo),
    "Models": (
        models.models, models.show, models.compare, models.verify, models.history, models.report, models.rollback,
        models.promote, models.freeze, models.unfreeze, copies.prune, copies.remove,
    ),
    "Schedule and watch": (
        operate.up, operate.status, schedule.schedule, schedule.unschedule, operate.trigger, schedule.skip,
        schedule.pause, schedule.resume, operate.metrics, operate.register,
    ),
    "Machine, disk and copies": (operate.doctor, copies.maintain, copies.mirror),
}  # fmt: skip
MANY = 30  # options
ON_PREFECT = {*PANELS["Schedule and watch"], copies.remove} - {operate.metrics}

# For commands with very many options, those that their help shows first.
MOST_USED = (
    "--data", "--target", "--name", "--features", "--ignore", "--time-column", "--epochs", "--lr", "--device",
    "--no-predict",
)  # fmt: skip

app = typer.Typer(
    name="gradmill",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)


def _version(is_requested: bool) -> None:
    if is_requested:
        typer.echo(f"gradmill {metadata.version('gradmill')}")
        raise typer.Exit


def _gradmill(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Retrain the linear networks of Dive into Deep Learning and ship them as ONNX models.

    Start with [bold]gradmill retrain[/]: it downloads Fashion-MNIST, trains softmax regression, lets the gates judge
    it, publishes model.onnx under artifacts/models/ and labels the test images with it. It becomes the champion, the
    version that consumers should use: the newest that passed the gates, until somebody promotes another version or
    rolls back.

    Exit codes: 0 done · 2 wrong command or parameter · 3 refused by a gate, or diverged · 4 data broken or
    unavailable · 5 no such device · 130 interrupted · 1 anything else.
    """


def _unwrap_help(command: Callable[..., Any]) -> str:
    """The help of ``command`` with one line for each paragraph, which the terminal then wraps."""
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _common_options(artifacts: Artifacts = None, as_json: Json = False, debug: Debug = False) -> None:
    """Declare the options of every command."""


def _complete(command: Callable[..., Any]) -> Callable[..., None]:
    """Wrap ``command``: add the common options, and check the environment first.

    A command with the argument ``given`` gets an option for every field of its parameters. Its result is printed by
    ``conclude``; a command with the argument ``as_json`` prints it itself.
    """
    own, every = inspect.signature(command).parameters, inspect.signature(_common_options).parameters
    fields = [*values(get_args(own["given"].annotation)[1])] if "given" in own else []
    if len(fields) > MANY:
        first = [each._replace(panel=None) for flag in MOST_USED for each in fields if each.flag == flag]
        fields = [*first, *(each for each in fields if each.flag not in MOST_USED)]

    @functools.wraps(command)
    def complete(**options: Any) -> None:
        choose(options["artifacts"])
        if command is not operate.doctor:  # doctor reports what is wrong with the environment
            environment.require()
        if "quiet" in own and not (options["quiet"] or options["verbose"]):  # the command runs a flow
            display.wait("starting")
        if command in ON_PREFECT:
            environment.require_prefect()
        given: Given = {}
        for field in fields:
            field.put(options[field.name], given)
        answer = command(**{name: given if name == "given" else options[name] for name in own})
        display.end()
        if answer:
            conclude(answer, as_json=options["as_json"], quiet=options.get("quiet", False))

    parameters = [field.parameter() for field in fields]
    parameters += [each for name, each in own.items() if name not in ("given", *every)] + [*every.values()]
    for each in parameters:
        types: tuple[Any, ...] = get_args(each.annotation)
        for info in types[1:] if types and types[0] in (bool, bool | None) else ():
            info.metavar = ""  # a flag takes no value, and --help would say <bool>
    keywords = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in parameters]
    complete.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    return complete


for panel, commands in PANELS.items():
    for command in commands:
        app.command(help=_unwrap_help(command), rich_help_panel=panel)(_complete(command))
app.callback(help=_unwrap_help(_gradmill))(_gradmill)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; every error is one to three lines on stderr.

    If the reader of stdout has gone (as ``head`` does), nothing is printed, and the exit code is 1.
    """
    environment.spare_this_host()
    streams.document_written = False
    try:
        streams.require_output()
        code = _run(arguments)
        sys.stdout.flush()  # an error at the interpreter's end would be a traceback
    except OSError as error:
        if not streams.is_lost_output(error):
            raise
        streams.drop_output()
        if isinstance(error, BrokenPipeError):
            return EnvironmentProblem.exit_code
        return report_error(as_gradmill_error(error), as_json=False)
    return code


def _run(arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    asks_help = not {"-h", "--help"}.isdisjoint(arguments)
    try:
        with streams.document_alone() if "--json" in arguments and not asks_help else nullcontext():
            try:
                code = command.main(arguments, prog_name="gradmill", standalone_mode=False)
            finally:
                display.end()  # it restores stdout, too, so it must come first
    except (Exception, SystemExit) as caught:
        error = caught.__context__ if isinstance(caught, SystemExit) else caught  # typer's reaction to a broken pipe
        if interrupt.is_interrupted():
            raise KeyboardInterrupt from error
        if error is None or streams.is_lost_output(error):
            raise error or caught from None
        if isinstance(error, CommandLineFault) and not str(error):  # without a command, the help has been shown
            return UsageError.exit_code
        if "--debug" in arguments:
            traceback.print_exception(error)
        return report_error(as_gradmill_error(error), as_json=streams.asks_for_json(arguments))
    return code if isinstance(code, int) else 0
