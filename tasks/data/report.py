"""What validation says of data: a document for programs, a page for people, and the error that stops the run."""

from typing import Literal

from pydantic import Field

from tasks.data.table.split_rule import SplitRule
from tasks.errors import DataError
from tasks.machine.words import counted
from tasks.store.documents import Document
from tasks.store.record import Lasting

Role = Literal["feature", "target", "split", "ignored", "left out"]
MOST_LEVELS_SHOWN = 12


class Finding(Lasting):
    """One thing that validation says of a table: an error stops the run, a warning does not, a note explains."""

    severity: Literal["error", "warning", "note"]
    rule: str  # such as "constant-target"
    column: str | None = None
    found: str  # with file and row where there is one
    expected: str = ""
    action: str = ""

    @property
    def sentence(self) -> str:
        """All of it in a line."""
        expected = f"expected {self.expected}" if self.expected else ""
        return " ".join("; ".join(filter(None, (self.found, expected, self.action))).split())


class ColumnReport(Lasting):
    """One column as it was found."""

    name: str
    role: Role
    kind: str  # number, boolean, category, date, id, or what the file calls it
    missing: int = 0  # rows
    minimum: float | None = None  # of numbers, where there are any
    maximum: float | None = None
    num_levels: int = 0
    levels: tuple[str, ...] = ()  # the first of them

    @property
    def content(self) -> str:
        """Its range or its levels, in a few words."""
        if self.minimum is not None and self.maximum is not None:
            return f"{self.minimum:.6g} … {self.maximum:.6g}"
        more = f", … ({self.num_levels:,})" if self.num_levels > len(self.levels) else ""
        return ", ".join(self.levels) + more


class DataReport(Document):
    """``data-report.json``; of the book's data hardly more than ``summary``, one line."""

    schema_version: Literal[1] = 1
    name: str
    summary: str
    rows: int = 0
    files: int = 0
    columns: tuple[ColumnReport, ...] = ()
    target: str | None = None
    classes: dict[str, int] = Field(default_factory=dict)  # rows of each
    split: SplitRule | None = None
    num_train: int = 0
    num_validation: int = 0
    num_test: int = 0
    unlabelled: int = 0  # rows without a target, which are left out
    findings: tuple[Finding, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop a run."""
        return tuple(each for each in self.findings if each.severity == "error")

    def require_fit(self) -> None:
        """Let data pass in which nothing wrong was found.

        Raises:
            UnfitData: something was; the message has all of it.
        """
        if self.errors:
            raise UnfitData(self.errors)

    def page(self) -> str:
        """The report as Markdown."""
        blocks = [f"# Data of {self.name}", self.summary]
        if self.findings:
            blocks.append("\n".join(f"- **{each.severity}** {each.sentence}" for each in self.findings))
        if self.columns:
            head = "| column | role | kind | missing | range or levels |\n|---|---|---|---|---|"
            blocks.append("\n".join([head, *map(self._row, self.columns)]))
        if self.classes:
            rows = (f"| {_cell(name)} | {count:,} |" for name, count in self.classes.items())
            blocks.append("\n".join(["| class | rows |\n|---|---|", *rows]))
        return "\n\n".join(blocks) + "\n"

    def _row(self, column: ColumnReport) -> str:
        share = f"{100 * column.missing / self.rows:.3g} %" if column.missing else ""
        cells = (column.name, column.role, column.kind, share, column.content)
        return "| " + " | ".join(map(_cell, cells)) + " |"


def split_sizes(num_train: int, num_validation: int, num_test: int) -> str:
    """How many rows are on each side, in words."""
    watched = f", {num_validation:,} validation" if num_validation else ""
    return f"{num_train:,} training{watched} and {counted(num_test, 'test row')}"


class UnfitData(DataError):
    """Data in which validation found errors; each has its own line, so that all can be mended at once."""

    def __init__(self, errors: tuple[Finding, ...]) -> None:
        first = errors[0]
        super().__init__(first.found, first.expected, first.action)
        if len(errors) > 1:
            self.found = "\n".join(
                [f"{counted(len(errors), 'fault')} in the data:", *(f"- {each.sentence}" for each in errors)]
            )
            self.expected = "data without these faults"
            self.action = "mend them, or leave columns out with --ignore; gradmill inspect shows the same list"


def _cell(text: str) -> str:
    """Text in a cell of a Markdown table."""
    return " ".join(text.split())[:200].replace("|", "\\|")
