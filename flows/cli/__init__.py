"""``gradmill …``: thin commands over the flows and the store. Imports neither torch nor prefect until it must."""

import traceback

import typer

from flows import interrupt, proxies
from flows.cli import operate, runs, store
from flows.cli.bench import bench
from flows.cli.doctor import doctor
from flows.cli.faults import CommandLineFault, as_gradmill_error, report_fault
from flows.cli.mirror import mirror
from tasks.errors import UsageError

app = typer.Typer(
    name="gradmill",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)


@app.callback()
def _gradmill() -> None:
    """Retrain the linear networks of Dive into Deep Learning and ship them as ONNX models.

    Start with [bold]gradmill retrain[/]: it downloads Fashion-MNIST, trains softmax regression, lets the gates judge
    it, publishes model.onnx under artifacts/models/ and labels the test images with it.

    Exit codes: 0 done · 2 wrong command or parameter · 3 refused by a gate, or diverged · 4 data broken or not to be
    had · 5 no such device · 130 interrupted · 1 anything else.
    """


for command in (
    runs.retrain,
    runs.predict,
    store.models,
    store.promote,
    store.rollback,
    store.prune,
    store.verify,
    store.maintain,
    doctor,
    operate.register,
    mirror,
    operate.up,
    operate.trigger,
    operate.status,
):
    app.command()(command)
app.add_typer(bench, name="bench")


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; every error is one to three lines on stderr."""
    proxies.spare_this_host()
    command = typer.main.get_command(app)
    try:
        code = command.main(arguments, prog_name="gradmill", standalone_mode=False)
    except Exception as error:
        if interrupt.received():
            raise KeyboardInterrupt from error
        if isinstance(error, CommandLineFault) and not str(error):  # no command at all: the help has been shown
            return UsageError.exit_code
        if "--debug" in arguments:
            traceback.print_exc()
        return report_fault(as_gradmill_error(error), as_json="--json" in arguments)
    return code if isinstance(code, int) else 0
