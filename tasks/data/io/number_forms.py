"""Numbers as people write them in text: with thousands separators, decimal commas, currency signs, percent signs."""

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gradmill.rows import MINUS, SPACE, WHOLE_FORM
from tasks.data.io.tabular import NUMBERS_WITH_TEXT, parse_form, parse_numbers
from tasks.data.levels import find_levels
from tasks.data.recipe import decimal_of
from tasks.data.report import Finding, error, note, warning
from tasks.machine.arrays import Array
from tasks.machine.words import format_names

PLAIN_FORMS = "1,234.5", "1 234.5", "1'234.5", "1.234,5", "1 234,5", "1'234,5"  # the first that fits a column is used
CURRENCY = (  # signs, and codes and abbreviations; any three letters could be a code of products
    r"[A-Z]{0,2}\p{Sc}|AED|ARS|AUD|BGN|BRL|CAD|CHF|CLP|CNY|COP|CZK|DKK|EUR|Euro|GBP|HKD|HUF|IDR|ILS|INR|JPY|KRW|MXN|MYR|"
    r"NOK|NZD|PHP|PLN|RMB|RON|RUB|SAR|SEK|SGD|THB|TRY|TWD|UAH|USD|VND|ZAR|Rs\.?|S?Fr\.?|kr\.?|z\x{142}|K\x{10d}|Ft"
)
SIGN, END = rf"[-+{MINUS}(]?{SPACE}", rf"{SPACE}[-)]?"
DIGITS = r"[.,]?\d(?:[\d.,'\x{2019} \x{a0}\x{2007}\x{2009}\x{202f}]*\d)?(?:[eE][+-]?\d+)?"
SIGNED = rf"^{SIGN}(?P<before>(?:{CURRENCY})?){SPACE}{SIGN}{DIGITS}{END}{SPACE}(?P<after>(?:%|{CURRENCY})?){END}$"
DECIMAL_POINT = r"^[+-]?(?:\d*\.(?:\d{1,2}|\d{4,})|(?:0*|\d{4,})\.\d{3})(?:[eE][+-]?\d+)?$"
SAMPLE = 1000  # rows by which it is decided whether a full look is worth the time


class Candidates(NamedTuple):
    """The forms in which a column's text may have numbers."""

    shares: dict[str, float]  # for each form, the share of the rows with a value that are numbers in it
    has_separators: bool  # points or commas, without which decimal points and commas give the same numbers


def find_candidates(column: pa.ChunkedArray, decimals: str = "") -> Candidates:
    """The forms in which nine tenths of a text column, and more of it than are plain numbers, are numbers.

    Texts that could all be plain numbers may be meant with one of the ``decimals``, a point or a comma.
    """
    if not (forms := _guess_forms(column.slice(0, SAMPLE))):
        return Candidates({}, has_separators=False)
    total, plain, has_separators, counts = 0.0, 0.0, False, dict.fromkeys(forms, 0.0)
    for texts, weights in _count_texts(column):
        total += weights.sum()
        plain += _weigh(parse_numbers(texts), weights)
        has_separators |= bool(pc.any(pc.match_substring_regex(texts, "[.,]")).as_py())
        for form in forms:
            counts[form] += _weigh(parse_form(texts, form), weights)
    shares = {form: count / total for form, count in counts.items()}
    if plain == total and decimals:
        shares = {form: share for form, share in shares.items() if share == 1 and decimal_of(form) in decimals}
    else:
        shares = {form: share for form, share in shares.items() if share >= NUMBERS_WITH_TEXT and counts[form] > plain}
    return Candidates(shares, has_separators)


def _guess_forms(some: pa.ChunkedArray) -> tuple[str, ...]:
    """The forms with the sign that most of these texts have around a number; none if fewer than half have a number."""
    texts = pc.utf8_trim_whitespace(some.cast(pa.string()).combine_chunks().drop_null())
    parts = pc.extract_regex(texts, SIGNED).drop_null()
    if not len(parts) or 2 * len(parts) < len(texts):
        return ()
    affixes = pc.binary_join_element_wise(parts.field("before"), parts.field("after"), "1").dictionary_encode()
    before, after = affixes.dictionary[pc.mode(affixes.indices)[0]["mode"].as_py()].as_py().split("1")
    before += " " * before[-1:].isalpha()
    return tuple(f"{before}{form} {after}".strip() for form in PLAIN_FORMS)


def _count_texts(column: pa.ChunkedArray) -> Iterator[tuple[pa.Array, Array]]:
    """The texts of a column with their rows: each text once if they are levels, otherwise chunk by chunk."""
    if pa.types.is_dictionary(column.type):
        levels = find_levels(column)
        yield pc.utf8_trim_whitespace(pc.cast(levels.values, pa.string())), levels.counts
        return
    for chunk in column.chunks:
        texts = pc.utf8_trim_whitespace(chunk.drop_null())
        yield texts, np.ones(len(texts), np.int64)


def _weigh(numbers: pa.Array, weights: Array) -> float:
    """How many rows are numbers."""
    return float(weights[numbers.is_valid().to_numpy(zero_copy_only=False)].sum())


def find_decimal(candidates: Mapping[str, Candidates], decimal: str, delimiters: Collection[str]) -> str | None:
    """This decimal, if files not delimited by commas have a column that can only be read with it."""
    whole = ([decimal_of(form) for form, share in each.shares.items() if share == 1] for each in candidates.values())
    return decimal if "," not in delimiters and any({*each} == {decimal} for each in whole) else None


def may_have_thousands(numbers: Array) -> bool:
    """Whether numbers read with a decimal point could all be whole numbers whose points set thousands apart."""
    sizes = np.abs(numbers[~np.isnan(numbers)])
    is_whole = sizes == np.floor(sizes)
    has_three_digits = np.isclose(sizes * 1000, np.round(sizes * 1000), rtol=1e-12)
    return bool((is_whole | (has_three_digits & (sizes > 1) & (sizes < 1000))).all())


def find_decimal_point(column: pa.ChunkedArray) -> str:
    """A plain number in text with a point that cannot set thousands apart, such as 63.2 but not 1.234, or nothing."""
    found = (texts.filter(pc.match_substring_regex(texts, DECIMAL_POINT)) for texts, _ in _count_texts(column))
    return next((each[0].as_py() for each in found if len(each)), "")


def warn_of_points(columns: Mapping[str, pa.ChunkedArray]) -> Iterator[Finding]:
    """Report columns of numbers with decimal points in a file of decimal commas: they may be months, as in 01.2019."""
    for name, column in columns.items():
        if point := find_decimal_point(column):
            found = f"{name} is read with a decimal point, as in {point}, and other columns with a decimal comma"
            action = f"if they are not quantities, write dates as 2024-12-31, or use --category {name}"
            yield warning("decimal-points", name, found, action)


def choose_form(name: str, candidates: Candidates, decimal: str | None, delimiters: Collection[str]) -> str | Finding:
    """The form of a column's numbers, which a few rows may not have, or why it cannot be determined."""
    whole = [form for form, share in candidates.shares.items() if share == 1]
    wanted = decimal or ("." if "," in delimiters else None)
    if wanted is None and not candidates.has_separators:
        wanted = "," if ";" in delimiters else "."
    by_decimal = {decimal_of(form): form for form in reversed(whole)}  # the first form for each
    if wanted is None and len(by_decimal) == 1:
        (wanted,) = by_decimal
    if wanted in by_decimal:
        return by_decimal[wanted]
    if len(by_decimal) > 1:
        said = f"{name} could be read as numbers written like {' or '.join(by_decimal.values())}"
        return error("ambiguous-numbers", name, said, "one way to read them", "use --decimal , or --decimal .")
    if by_decimal and decimal:
        said = f"{name} has numbers written like {whole[0]}, and other columns decimal commas"
        action = f"write them alike, or leave it out with --ignore {name}"
        return error("ambiguous-numbers", name, said, f"the decimal {decimal} in all columns", action)
    if by_decimal:
        said = f"{name} has numbers written like {whole[0]}, and commas divide the fields"
        action = f"use --decimal , if all columns have them, or leave it out with --ignore {name}"
        return error("ambiguous-numbers", name, said, "decimal points", action)
    return max(candidates.shares, key=lambda form: candidates.shares[form])


def tell_forms(forms: Mapping[str, str]) -> Iterator[Finding]:
    """Report the forms that were recognised."""
    for form in dict.fromkeys(form for form in forms.values() if form != WHOLE_FORM):
        names = [name for name, each in forms.items() if each == form]
        found = f"{format_names(names, 5)}: read as numbers written like {form}"
        yield note("number-form", names[0] if len(names) == 1 else None, found)
