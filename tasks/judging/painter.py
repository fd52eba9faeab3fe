"""Pictures drawn by a process of their own, which imports what draws (half a second) beside this one's other work.

It is ``python -m tasks.judging.painter``, and ends with the process that it draws for.
"""

import functools
import gc
import importlib
import inspect
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

MOST_SECONDS = 60.0  # for a picture, which takes one or two: then this process draws it

_at_hand: ContextVar["subprocess.Popen[bytes] | None"] = ContextVar("_at_hand", default=None)


@contextmanager
def at_hand() -> Iterator[None]:
    """Let it begin, and draw in the block.

    Where one is at hand, or what draws is imported already, or not installed, nothing begins.
    """
    if _at_hand.get() or "matplotlib.figure" in sys.modules or find_spec("matplotlib") is None:
        yield
        return
    try:
        painter = subprocess.Popen(
            [sys.executable, "-m", "tasks.judging.painter"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # what it cannot draw is drawn here, and what is wrong said then
            start_new_session=True,  # Ctrl-C is for this process
        )
    except OSError:  # no memory, or no more processes: then this one draws
        yield
        return
    mark = _at_hand.set(painter)
    try:
        yield
    finally:
        _at_hand.reset(mark)
        painter.kill()  # it has drawn all that it was asked for
        with suppress(OSError), painter:  # what it has not taken, if somebody has ended it, is written once more
            pass


def drawn(module: str, function: str, *arguments: Any) -> Any:
    """What a function of a module that draws returns: of the painter at hand, or of this process.

    Raises:
        ModuleNotFoundError: matplotlib, of the extra ``train``, is not installed.
    """
    painter = _at_hand.get()
    if painter and painter.stdin and painter.stdout:
        with suppress(OSError, EOFError, pickle.UnpicklingError), ExitStack() as limited:  # it has gone
            late = threading.Timer(MOST_SECONDS, painter.kill)
            late.daemon = True
            late.start()
            limited.callback(late.cancel)
            pickle.dump((module, function, arguments), painter.stdin)
            painter.stdin.flush()
            return pickle.load(painter.stdout)  # noqa: S301  (a child of ours)
    return _called(module, function, arguments)


def painted(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function that draws do so where it is called, but by the painter where one is at hand."""

    @functools.wraps(function)
    def drawing(*args: P.args, **kwargs: P.kwargs) -> R:
        if _at_hand.get() is None:
            return function(*args, **kwargs)
        given = inspect.signature(function).bind(*args, **kwargs)
        given.apply_defaults()
        result: R = drawn(function.__module__, function.__name__, *given.args)
        return result

    return drawing


def _called(module: str, function: str, arguments: tuple[Any, ...]) -> Any:
    return inspect.unwrap(getattr(importlib.import_module(module), function))(*arguments)


def main() -> None:
    """Draw what is asked for on stdin until that closes."""
    gc.disable()
    for module in ("tasks.judging.image_figures", "tasks.judging.trend_figures"):
        importlib.import_module(module)
    with suppress(EOFError):
        while True:
            module, function, arguments = pickle.load(sys.stdin.buffer)  # noqa: S301  (our parent)
            pickle.dump(_called(module, function, arguments), sys.stdout.buffer)
            sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
