"""Numbers as people write them in text: thousands set apart, a decimal comma, a currency's sign, percents."""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.data.io.tabular import NUMBERS_WITH_TEXT, parse_form, parse_numbers
from tasks.data.levels import Levels
from tasks.data.recipe import decimal_of
from tasks.data.report import Finding, error, note
from tasks.machine.words import listed

PLAIN_FORMS = "1,234.5", "1 234.5", "1'234.5", "1.234,5", "1 234,5", "1'234,5"  # of a column the first that fits
SAMPLE = 1000  # rows
SIGNED = r"^[+-]?\s?(?P<before>\p{Sc}?)\s?[+-]?\s?\d[\d.,' \x{a0}\x{202f}]*(?P<after>[%\p{Sc}]?)$"


def may_be_numbers(column: pa.ChunkedArray) -> bool:
    """Whether some of a text column may be numbers, by a few values: most are not, and to count all takes a while."""
    some = column.slice(0, SAMPLE).cast(pa.string()).drop_null()
    return len(some) == 0 or 2 * pc.sum(pc.match_substring_regex(some, SIGNED)).as_py() >= len(some)


class Candidate(NamedTuple):
    """A form in which a column's text may have numbers."""

    form: str
    share: float  # of the rows that have a value

    @property
    def decimal(self) -> str:
        """Point or comma."""
        return decimal_of(self.form)


def find_candidates(levels: Levels, decimal: str | None = None) -> list[Candidate]:
    """The forms in which at least nine tenths of a text column are numbers, and more of it than are plain numbers.

    Where a ``decimal`` comma is known, what could be plain numbers may be meant with it.
    """
    texts, total = pc.utf8_trim_whitespace(pc.cast(levels.values, pa.string())), levels.counts.sum()

    def measure(numbers: pa.Array) -> float:
        return float(levels.counts[numbers.is_valid().to_numpy(zero_copy_only=False)].sum() / total)

    parts = pc.extract_regex(texts, SIGNED)
    affixes = pc.binary_join_element_wise(parts.field("before"), parts.field("after"), "1").dictionary_encode()
    known = affixes.is_valid().to_numpy(zero_copy_only=False)
    if not levels.counts[known].any():
        return []
    commonest = np.bincount(affixes.indices.drop_null().to_numpy(), levels.counts[known]).argmax()
    before, after = affixes.dictionary[commonest].as_py().split("1")
    forms = (f"{before}{form} {after}".strip() for form in PLAIN_FORMS)
    found = [Candidate(form, measure(parse_form(texts, form))) for form in forms]
    plain = measure(parse_numbers(texts))
    if plain == 1 and decimal == ",":
        return [each for each in found if each.share == 1 and each.decimal == ","]
    return [each for each in found if each.share >= NUMBERS_WITH_TEXT and each.share > plain]


def find_decimal(candidates: Mapping[str, list[Candidate]], delimiters: Collection[str]) -> str | None:
    """The decimal comma, if files whose fields no comma divides have a column that cannot be read otherwise."""
    of_columns = ({each.decimal for each in column if each.share == 1} for column in candidates.values())
    return "," if "," not in delimiters and any(each == {","} for each in of_columns) else None


def choose_form(
    name: str, candidates: list[Candidate], decimal: str | None, delimiters: Collection[str]
) -> str | Finding:
    """The form of a column's numbers, in which a few rows may not be, or why it cannot be told."""
    whole = [each for each in candidates if each.share == 1]
    if decimal is None and "," in delimiters and any(each.decimal == "." for each in whole):
        decimal = "."
    of_decimal = [each for each in whole if decimal in (None, each.decimal)]
    if len({each.decimal for each in of_decimal}) == 1 and not (decimal is None and "," in delimiters):
        return of_decimal[0].form
    if whole:
        ways = {each.decimal: each.form for each in reversed(whole)}
        found = f"{name} could be read as numbers written like {' or '.join(ways.values())}"
        return error("ambiguous-numbers", name, found, "one way to read them", "say --decimal , or --decimal .")
    fitting = [each for each in candidates if decimal in (None, each.decimal)] or candidates
    return max(fitting, key=lambda each: each.share).form


def tell_forms(forms: Mapping[str, str]) -> Iterator[Finding]:
    """What was understood."""
    for form in dict.fromkeys(forms.values()):
        names = [name for name, each in forms.items() if each == form]
        found = f"{listed(names, 5)}: read as numbers written like {form}"
        yield note("number-form", names[0] if len(names) == 1 else None, found)
