"""Ctrl-C, remembered: a library that is interrupted during its import may raise an error of its own instead.

Remembered too is what stays done then, for the user to be told.
"""

import signal
from types import FrameType

done = ""  # what the command has achieved, whatever becomes of the rest of it
_received = False


def watch() -> None:
    """Raise ``KeyboardInterrupt`` on SIGINT, as Python does, and remember it."""
    signal.signal(signal.SIGINT, _note)


def achieved(what: str) -> None:
    """Note what a user who interrupts the command from now on has to know."""
    global done
    done = what


def received() -> bool:
    """Whether the user has pressed Ctrl-C, whatever has become of the exception."""
    return _received


def _note(number: int, frame: FrameType | None) -> None:
    global _received
    _received = True
    signal.default_int_handler(number, frame)
