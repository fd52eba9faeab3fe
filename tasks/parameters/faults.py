"""What pydantic expected of a value, in words that stand behind ``expected:``."""

import re

from pydantic import ValidationError

MEMBER = re.compile(r"<[\w.]+: ('.*?')>")  # pydantic's way of saying an enum's member

NUMBERS = {"a valid number, unable": "a number", "a valid integer, ": "a whole number"}


def expected(error: ValidationError) -> str:
    """Of the first fault."""
    first = error.errors()[0]
    if first["type"] == "extra_forbidden":
        return "a name that is among its parameters"
    if first["input"] in (None, ""):
        return "a value"
    return in_words(first["msg"].removeprefix("Value error, "))


def in_words(message: str) -> str:
    """What pydantic, or typer by it, says of a value, without their words for its type."""
    said = MEMBER.sub(r"\1", message.removeprefix("Input should be "))
    return next((words for theirs, words in NUMBERS.items() if said.startswith(theirs)), said)
