"""Words that depend on a number."""

from collections.abc import Collection


def counted(count: int, noun: str) -> str:
    """``1 row``, ``2,000 rows``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(names: Collection[str], most: int) -> str:
    """The first of them, quoted where spaces around one would not be seen."""
    shown = [name if name == name.strip() else repr(name) for name in list(names)[:most]]
    return ", ".join(shown) + (", …" if len(names) > most else "")
