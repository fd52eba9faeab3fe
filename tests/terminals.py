"""A terminal, and what stands on it in the end: enough of one for what commands write."""

import os
import pty
import re
import select
import struct
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from fcntl import ioctl
from termios import TIOCSWINSZ

SECONDS = 900  # also on a busy machine
TOKEN = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Terminal:
    """A command run at a terminal: all that it wrote, with what moves the cursor, and the lines that stand there.

    What is ``typed`` waits until the command asks.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None, typed: str = "") -> None:
        ours, its = pty.openpty()
        ioctl(its, TIOCSWINSZ, struct.pack("HHHH", 50, 80, 0, 0))
        here = {name: value for name, value in os.environ.items() if name not in ("CI", "COLUMNS", "NO_COLOR")}
        here |= {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"} | (environment or {})
        process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=here, close_fds=True)
        os.close(its)
        os.write(ours, typed.encode())
        self.stream = _read(ours, time.monotonic() + SECONDS)
        os.close(ours)
        self.returncode = process.wait(SECONDS)
        self.lines = shown_of(self.stream)


def shown_of(stream: str) -> list[str]:
    """What stands there in the end; the lines are as long as they were written."""
    shown, row, column = [""], 0, 0
    for numbers, order, control, text in TOKEN.findall(stream):
        if text:
            shown[row] = f"{shown[row][:column]:<{column}}{text}{shown[row][column + len(text) :]}"
            column += len(text)
        elif control == "\n":  # a terminal makes it begin the next line, too
            row, column = row + 1, 0
            shown += [""] * (row == len(shown))
        elif control or order == "G":
            column = 0
        elif order == "A":
            row = max(0, row - int(numbers or 1))
        elif order == "K":
            shown[row] = "" if numbers == "2" else shown[row][:column]
    return [line.rstrip() for line in shown]


def _read(descriptor: int, deadline: float) -> str:
    """All that is written until the last process that has the terminal open ends."""
    found = b""
    with suppress(OSError):  # Linux's way to say that nobody has it open any more
        while (left := deadline - time.monotonic()) > 0 and select.select([descriptor], [], [], left)[0]:
            found += os.read(descriptor, 65536)
    return found.decode()
