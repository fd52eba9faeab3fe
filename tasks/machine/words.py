"""Numbers, durations and names in the form in which people read them."""

import csv
import difflib
import io
import re
import shlex
import sys
from collections.abc import Collection, Iterable

from gradmill.errors import escape_control_characters as escape_control_characters

# Characters to escape in Markdown; what stands between letters in a name, as in test_loss, needs no escape. Addresses
# would become links by themselves.
SPECIAL = re.compile(r"[\\`*\[\]<>|#!$~&@]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.")


def pluralize(count: int, noun: str) -> str:
    """A count with its noun: ``1 row``, ``2,000 rows``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def format_setting(value: object) -> str:
    """A setting as text: a number found by a search gets only the digits that matter."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def format_number(value: float, digits: int = 4) -> str:
    """A figure with this many significant digits, ``0.8322``, ``14,820``; a power of ten only far outside those."""
    rounded = float(f"{value:.{digits}g}")
    return f"{rounded:,.0f}" if 10**digits <= abs(rounded) < 1e15 else f"{value:.{digits}g}"


def tell_apart(value: float, *others: float | None) -> str:
    """A figure as in ``format_number``, with as many digits as tell it from others, such as its bounds."""
    unlike = [each for each in others if each is not None and each != value]
    digits = (n for n in range(4, 12) if format_number(value, n) not in {format_number(each, n) for each in unlike})
    return format_number(value, next(digits, 12))


def format_duration(seconds: float) -> str:
    """A duration, ``12 s``, ``1.2 s``, ``0.12 s``, ``12 ms``: as exact as somebody who waits wants to know."""
    if seconds < 0.1:
        return f"{1000 * seconds:.0f} ms" if seconds >= 0.001 else "< 1 ms"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s" if seconds >= 1 else f"{seconds:.2f} s"


def in_markdown(text: str) -> str:
    """``text``, which is a single line, escaped so that Markdown shows it exactly as it is written."""
    return SPECIAL.sub(r"\\\g<0>", escape_control_characters(text))


def suggest_spelling(mistyped: str, names: Iterable[str], default: str) -> str:
    """What to do about a name that does not exist: it may differ from a known one in a letter, or in case."""
    lower = {each.lower(): each for each in names}
    near = difflib.get_close_matches(mistyped.lower(), lower, n=1, cutoff=0.75)
    return f"did you mean {lower[near[0]]}?" if near else default


def format_names(names: Collection[str], most: int) -> str:
    """The first names, quoted where spaces around one would otherwise be invisible."""
    shown = [name if name == name.strip() else repr(name) for name in list(names)[:most]]
    return ", ".join(shown) + (", …" if len(names) > most else "")


def join_values(values: Collection[str]) -> str:
    """The values of an option that takes a list, as this option reads them."""
    text = io.StringIO()
    has_space = any(each[:1] == " " for each in values)
    writer = csv.writer(text, lineterminator="", quoting=csv.QUOTE_ALL if has_space else csv.QUOTE_MINIMAL)
    writer.writerow(values)
    return text.getvalue()


def quote_value(value: str) -> str:
    """The only value of an option that takes a list, as it is typed in a shell."""
    return shlex.quote(join_values([value]))


def pip_install(*requirements: str) -> str:
    """The command that installs ``requirements`` into the current environment."""
    return shlex.join([sys.executable, "-m", "pip", "install", *requirements])
