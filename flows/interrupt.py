"""Ctrl-C is recorded, because a library that is interrupted during its import may raise another error instead.

SIGTERM, on which Prefect raises an exception in a flow, is not lost either.

The module also records what remains done after an interruption, to tell the user.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

DOUBLE_SECONDS = 1.0  # a second press within these seconds counts as the same one
AGAIN_SECONDS = 0.05
done = ""  # what the command has achieved, whatever happens to the rest of it
_received: float | None = None  # time of the first Ctrl-C


def watch(leave: Callable[[], None]) -> None:
    """Raise ``KeyboardInterrupt`` on the first SIGINT, as Python does, and record it.

    A second exception would end the cleanup in a traceback: a user who presses again does not want to wait, so
    ``leave`` is called. Unfinished work is then left as after a kill.
    """

    def note(number: int, frame: FrameType | None) -> None:
        global _received
        if _received is None:
            _received = time.monotonic()
            signal.default_int_handler(number, frame)
        if time.monotonic() - _received > DOUBLE_SECONDS:
            leave()

    signal.signal(signal.SIGINT, note)
    sys.unraisablehook = _catch_dropped(sys.unraisablehook)


def note_achievement(what: str) -> None:
    """Record what to tell a user who interrupts the command from now on."""
    global done
    done = what


def is_interrupted() -> bool:
    """Whether the user has pressed Ctrl-C, even if the exception was lost."""
    return _received is not None


def _catch_dropped(before: "Callable[[UnraisableHookArgs], object]") -> "Callable[[UnraisableHookArgs], None]":
    """Send the signal again if Python drops its exception: in a finaliser or a weak reference's callback."""

    def resend_signal(what: "UnraisableHookArgs") -> None:
        global _received
        if issubclass(what.exc_type, KeyboardInterrupt):
            _received, number = None, signal.SIGINT
        elif what.exc_type.__name__ == "TerminationSignal":  # Prefect's type, compared by name to avoid the import
            number = signal.SIGTERM
        else:
            before(what)
            return
        again = threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()

    return resend_signal
