"""Ctrl-C, remembered: a library that is interrupted during its import may raise an error of its own instead.

SIGTERM, by which Prefect ends a flow with an exception, is not lost either.

Remembered too is what stays done then, for the user to be told.
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

DOUBLE_SECONDS = 1.0  # pressed twice within these, it is meant once
AGAIN_SECONDS = 0.05
done = ""  # what the command has achieved, whatever becomes of the rest of it
_received: float | None = None  # when


def watch(leave: Callable[[], None]) -> None:
    """Raise ``KeyboardInterrupt`` on SIGINT, as Python does, and remember it.

    Once only, for what has then begun to end would end in a traceback: who presses again does not want to wait for it,
    and ``leave`` is called. Whatever is left half-done then is what a kill leaves.
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
    """Note what a user who interrupts the command from now on has to know."""
    global done
    done = what


def is_interrupted() -> bool:
    """Whether the user has pressed Ctrl-C, whatever has become of the exception."""
    return _received is not None


def _catch_dropped(before: "Callable[[UnraisableHookArgs], object]") -> "Callable[[UnraisableHookArgs], None]":
    """Send the signal once more where Python drops its exception: in a finaliser or a weak reference's callback."""

    def dropped(what: "UnraisableHookArgs") -> None:
        global _received
        if issubclass(what.exc_type, KeyboardInterrupt):
            _received, number = None, signal.SIGINT
        elif what.exc_type.__name__ == "TerminationSignal":  # Prefect's, which need not be imported
            number = signal.SIGTERM
        else:
            before(what)
            return
        again = threading.Timer(AGAIN_SECONDS, os.kill, (os.getpid(), number))
        again.daemon = True
        again.start()

    return dropped
