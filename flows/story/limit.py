"""The time limit of a run, also where Python drops the exception by which Prefect ends it."""

import functools
import signal
import sys
import threading
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

P = ParamSpec("P")
R = TypeVar("R")
AGAIN_SECONDS = 0.1


def heard(run: Callable[P, R]) -> Callable[P, R]:
    """Let the flow that ``run`` becomes end at its limit wherever the alarm strikes.

    Its exception ends nothing inside the callback of a weak reference or a finaliser: the alarm then rings again.
    """

    @functools.wraps(run)
    def running(*args: P.args, **kwargs: P.kwargs) -> R:
        with _ringing_again():
            return run(*args, **kwargs)

    return running


@contextmanager
def _ringing_again() -> Iterator[None]:
    before = sys.unraisablehook

    def dropped(what: "UnraisableHookArgs") -> None:
        is_alarm = issubclass(what.exc_type, CancelledError) and threading.current_thread() is threading.main_thread()
        if is_alarm and callable(signal.getsignal(signal.SIGALRM)):  # Prefect's, until the run has ended
            signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
        else:
            before(what)

    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = before
