"""The fenced blocks of README and docs/, and a person who types those of one page in order at a terminal."""

import hashlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from conftest import REPOSITORY
from node_packages import node_modules
from terminals import Terminal

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
FENCED = re.compile(r"(?ms)^```(\w*)\n(.*?)^```$")
OMITTED = "…"
HOME = "/home/you/gradmill"  # what the pages call the checkout
PROMPTS = re.compile(r"^(?:(?:>>>|\.\.\.) ?)+")  # of Python
FOLDED = re.compile(r"(?<=/)\n *")  # within a path that is too long for a line
# What is another one at each turn: how full the disk is, tickets, durations, moments, names of runs, users, digests.
VARYING = [
    (re.compile(r"(?<=\?ticket=)\w+"), "TICKET"),
    (re.compile(r"(?s)the disk of .*?is\s+nearly\s+full: .*?\(\d+%\)"), ""),  # where the tests run
    (re.compile(r"(?:< )?\b\d+(?:\.\d+)? (?:ms|s|min)\b"), "DURATION"),
    (re.compile(r"\b\d{8}T\d{6}\b|\b(?:\d{4}-)?\d\d-\d\d(?:[T ]\d\d:\d\d)?(?: UTC)?\b|\b\d\d:\d\d:\d\d\b"), "MOMENT"),
    (re.compile(r"\b\d{1,2} (?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\b"), "MOMENT"),
    (re.compile(r"\b[0-9a-f]{8}(?:-?[0-9a-f]{4,})*\b"), "DIGEST"),
    (re.compile(r"\b[\w-]+@[\w-]+\b"), "USER"),
    (re.compile(r"(?<=,\d\d\d) +0(?:\.0\d+)?(?= +\d\.\d  )"), " PARITY"),  # of float32, as this processor adds
    (re.compile(r"\b\d(?:\.\d+)?e-1[4-9]\b"), "ROUNDING"),  # of float64, as this processor adds
]


class Block(NamedTuple):
    """One block, as it stands in its page."""

    page: Path
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}-{self.text.split(maxsplit=3)[:3]}"


def blocks(page: Path) -> Iterator[Block]:
    """Those of a page, in order."""
    for language, text in FENCED.findall(page.read_text()):
        yield Block(page, language, text)


def in_node(script: str) -> list[str | Path]:
    """The command that runs a script beside the packages of npm."""
    beside = node_modules().parent / f"documented-{hashlib.sha256(script.encode()).hexdigest()[:16]}.mjs"
    if not beside.exists():  # another test process may be running it
        beside.write_text(script)
    return ["node", beside]


def words(text: str) -> list[str]:
    """What was said, wherever the lines were broken, without what is another one at each turn."""
    text = FOLDED.sub("", text)
    for pattern, name in VARYING:
        text = pattern.sub(name, text)
    return text.split()


def in_millions(chinese: str) -> str:
    """Numbers that count in 万, ten thousands, as English writes them: 353 万 is 3.53 million."""
    return re.sub(r"(\d+) 万", lambda found: f"{int(found[1]) / 100:g} million", chinese)


class Typist:
    """Types blocks in one folder, each in a shell of its own that knows what was exported before."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.exported, self.said = "", ""
        self.up: subprocess.Popen[str] | None = None

    def type(self, block: Block) -> None:
        """Run it; ``said`` is then what stands at the terminal."""
        if block.text == "gradmill up\n":
            self.said = self._begin()
            return
        before = f"cd '{self.folder}'\n{self.exported}"
        # -i: what is pasted at its prompt is read line by line, as a person has it.
        typed = block.text if block.language == "sh" else f"python -qi <<'END OF PYTHON'\n{block.text}END OF PYTHON\n"
        terminal = Terminal(["bash", "-c", before + typed], environment=self.environment)
        lines = [PROMPTS.sub("", line) for line in terminal.lines]
        self.said = FOLDED.sub("", "\n".join(lines)).replace(str(self.folder), HOME)
        assert terminal.returncode == 0, self.said
        assert "Traceback (most recent call last)" not in self.said, self.said  # which ends no prompt of Python's
        if block.text.startswith("export "):
            self.exported += block.text

    def assert_said(self, quoted: str) -> None:
        """Every part between the marks of omission was said, in this order."""
        said = words(self.said)
        for part in quoted.split(f"{OMITTED}\n"):
            wanted = words(part)
            places = [at for at in range(len(said) - len(wanted) + 1) if said[at : at + len(wanted)] == wanted]
            assert places, f"not said:\n{part}\nbut\n{self.said}"
            said = said[places[0] + len(wanted) :]

    def _begin(self) -> str:
        """In a terminal of its own, until it says that it is up."""
        command = ["bash", "-c", f"cd '{self.folder}'\n{self.exported}exec gradmill up"]
        here = os.environ | self.environment
        self.up = subprocess.Popen(command, env=here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.up.stdout is not None
        said = ""
        for line in self.up.stdout:
            said += line
            if line.startswith("Ctrl-C"):
                return said.replace(str(self.folder), HOME)
        raise AssertionError(said)

    def end(self) -> None:
        """Ctrl-C on what is up."""
        if self.up is not None:
            self.up.send_signal(signal.SIGINT)
            self.up.communicate(timeout=60)
