"""What validation reports about data: a document for programs, a page for people, and the error that stops the run."""

import math
import re
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import Literal

from pydantic import Field, PositiveFloat

from tasks.data.recipe import SplitRule, unless_empty
from tasks.errors import DataError
from tasks.machine.words import format_number, pluralize, quote_value
from tasks.parameters.addresses import split_source
from tasks.store.artifact_paths import CONTACT_SHEET
from tasks.store.documents import Document
from tasks.store.page_rendering import Page, PagePicture, PageTable, Section, Strong
from tasks.store.record_base import PersistedRecord

OF_CHAMPION = frozenset(
    {"turned-missing", "other-scale", "turned-constant", "fewer-rows", "drift", "new-levels"}
)  # rules that compare data with earlier data
Severity = Literal["error", "warning", "note"]
Role = Literal["feature", "target", "split", "left out"]
Medians = tuple[PositiveFloat, PositiveFloat]
MOST_LEVELS_SHOWN = 12


class Finding(PersistedRecord):
    """One thing that validation reports about a table: an error stops the run, a warning does not, a note explains."""

    severity: Severity
    rule: str  # such as "constant-target"
    column: str | None = None
    found: str  # with file and row, if there are any
    expected: str = ""
    action: str = ""
    accepted: bool = False  # it would have been an error, and the user let it through
    medians: Medians | None = unless_empty(None)  # magnitudes of numbers in another unit, before and now

    @property
    def is_error(self) -> bool:
        """Whether it stops a run."""
        return self.severity == "error"

    @property
    def sentence(self) -> str:
        """The whole finding in one line."""
        expected = f"expected {self.expected}" if self.expected else ""
        return " ".join("; ".join(filter(None, (self.found, expected, self.action))).split())


def make_finding(severity: Severity, rule: str, column: str | None, found: str, *advice: str) -> Finding:
    """A finding about a column, or about no single column (None).

    ``advice`` is what to do, or what was expected and what to do. Options in it that name the column can be copied.
    """
    *_, expected, action = "", "", *advice
    for option in ("--ignore", "--category", "--split-by", "--time-column") if column else ():
        action = action.replace(f"{option} {column}", f"{option} {quote_value(str(column))}")
    return Finding(severity=severity, rule=rule, column=column, found=found, expected=expected, action=action)


error = partial(make_finding, "error")  # something that must be fixed
warning = partial(make_finding, "warning")  # something odd that may be intended
note = partial(make_finding, "note")  # something that was done or may be useful


class AcceptedFinding(PersistedRecord):
    """What validation found and the user let through: the same finding in the same column stops no later night."""

    rule: str
    column: str | None = None
    medians: Medians | None = unless_empty(None)  # as in the finding; an older release did not keep them

    @property
    def in_words(self) -> str:
        """The column, and in what it differs from earlier data."""
        changes = {
            "other-scale": f"{power_between(*self.medians):g} times what it was" if self.medians else "in any unit",
            "turned-missing": "without values",
            "turned-constant": "with a single value",
        }
        return f"{self.column} {changes.get(self.rule, self.rule)}" if self.column else self.rule

    def covers(self, finding: Finding) -> bool:
        """Whether a finding is this one again: of numbers, whether they are in the unit that was accepted."""
        if finding.column is None or (finding.rule, finding.column) != (self.rule, self.column):
            return False
        return not (self.medians and finding.medians) or power_between(self.medians[1], finding.medians[1]) == 1


def power_between(before: float, after: float) -> float:
    """The power of ten by which one magnitude is nearly another."""
    return float(10.0 ** round(math.log10(after) - math.log10(before)))


class ColumnProfile(PersistedRecord):
    """What a column was like in all rows with a target, training and test, so that later data can be compared to it.

    Counts and medians are from a sample.
    """

    name: str
    part_of: str = unless_empty("")  # the column of dates that this is a part of
    missing: int = 0  # rows
    is_constant: bool = False
    magnitude: PositiveFloat | None = None  # the median of a number's non-zero magnitudes; None if there are hardly any
    levels: tuple[int, ...] = ()  # the codes of a category's most common levels, one bin each
    edges: tuple[float, ...] = ()  # between a number's bins; a value on an edge belongs to the bin below it
    counts: tuple[int, ...] = ()  # sampled rows in each bin, then those of all other levels, last missing ones


class ColumnReport(PersistedRecord):
    """One column as it was found in the data."""

    name: str
    role: Role
    kind: str  # number, boolean, category, date, id, text, or what the file calls it
    missing: int = 0  # rows
    minimum: float | None = None  # of numbers, if there are any
    maximum: float | None = None
    num_levels: int = 0
    levels: tuple[str, ...] = ()  # the first few

    @property
    def content(self) -> str:
        """The column's range or its levels, in a few words."""
        if self.minimum is not None and self.maximum is not None:
            return f"{format_number(self.minimum, 6)} … {format_number(self.maximum, 6)}"
        more = f", … ({self.num_levels:,})" if self.num_levels > len(self.levels) else ""
        return ", ".join(self.levels) + more


class ImageReport(PersistedRecord):
    """Images as they were found in the data."""

    shape: tuple[int, ...]  # to which they were converted
    sizes: dict[str, int]  # the number of images of each, such as ``640 by 480``, the most common first
    num_sizes: int
    modes: dict[str, int]  # images of each, as Pillow calls them
    broken: int  # that could not be read, and are left out
    copies: int  # that are equal to an earlier one
    brightness: float  # mean of all pixels, 0 to 255

    def facts(self) -> dict[str, str]:
        """The facts in words, by name."""
        more = f", … ({self.num_sizes:,})" if self.num_sizes > len(self.sizes) else ""
        return {
            "brought to": " by ".join(map(str, self.shape)),
            "sizes": _format_counts(self.sizes) + more,
            "modes": _format_counts(self.modes),
            "broken": f"{self.broken:,}",
            "copies": f"{self.copies:,}",
            "mean brightness": f"{self.brightness:.1f} of 255",
        }


class DataReport(Document):
    """``data-report.json``; for the book's data it has little more than ``summary``, one line."""

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
    outside: int = 0  # rows outside the window, which are left out too
    images: ImageReport | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop a run."""
        return tuple(each for each in self.findings if each.is_error)

    @property
    def changes(self) -> tuple[Finding, ...]:
        """What differs from earlier data, except what the user has accepted."""
        return tuple(each for each in self.findings if each.rule in OF_CHAMPION and each.severity != "note")

    @property
    def accepted_findings(self) -> tuple[AcceptedFinding, ...]:
        """What the user accepted for the first time."""
        return tuple(
            AcceptedFinding(rule=each.rule, column=each.column, medians=each.medians)
            for each in self.findings
            if each.accepted and each.severity != "note"
        )

    def without_places(self, source: str) -> "DataReport":
        """The report without where own data lie, which no version records: files go by name alone, save in errors."""
        source = split_source(source)[0]
        fixed = re.split(r"[*?\[]", source)[0]  # the fixed part of a glob
        folder = fixed[: fixed.rfind("/") + 1]

        def shorten(finding: Finding) -> Finding:
            found = finding.found.replace(f"{source}/", "")
            found = found.replace(folder, "") if len(folder) > 1 else found
            return finding if finding.is_error else finding.model_copy(update={"found": found})

        return self.model_copy(update={"findings": tuple(map(shorten, self.findings))})

    def page(self, sheet: bytes = b"") -> Page:
        """The report for people; ``sheet`` shows some images of each class, as PNG."""
        images = self.images.facts() if self.images else {}
        findings = tuple((Strong(each.severity), each.sentence) for each in self.findings)
        columns = tuple(map(self.cells, self.columns))
        classes = tuple((name, f"{count:,}") for name, count in self.classes.items())
        sections = (
            Section(
                "", (PageTable(findings), PageTable(columns, ("column", "role", "kind", "missing", "range or levels")))
            ),
            Section(
                "Images",
                (
                    PageTable(tuple(images.items())),
                    PagePicture("Some of each class", sheet, CONTACT_SHEET) if images else None,
                ),
            ),
            Section("Classes", (PageTable(classes, ("class", "rows")),)),
        )
        return Page(f"Data of {self.name}", self.summary, sections)

    def cells(self, column: ColumnReport) -> tuple[str, ...]:
        """A column in words: its name, role and kind, its missing values, and its range or levels."""
        share = f"{100 * column.missing / self.rows:.3g} %" if column.missing else ""
        return column.name, column.role, column.kind, share, column.content


class UnfitData(DataError):
    """Data in which validation found errors; each error has its own line, so that all can be fixed at once."""

    def __init__(self, errors: Sequence[Finding]) -> None:
        first = errors[0]
        super().__init__(first.found, first.expected, first.action)
        if len(errors) > 1:
            head = f"{pluralize(len(errors), 'fault')} in the data:"
            self.found = "\n- ".join([head, *(each.sentence for each in errors)])
            self.expected = "data without these faults"
            others = ", or leave columns out with --ignore" if any("--ignore" in each.action for each in errors) else ""
            self.action = f"fix them{others}"


def require_fit(findings: Iterable[Finding], ignored_rules: Collection[str] = ()) -> None:
    """Accept data in which nothing wrong was found, except by rules that are tolerated.

    Raises:
        UnfitData: something wrong was found; the message lists all of it.
    """
    if errors := [each for each in findings if each.is_error and each.rule not in ignored_rules]:
        raise UnfitData(errors)


def _format_counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count:,})" for name, count in counts.items())
