"""What pydantic expected of a value, in words that stand behind ``expected:``."""

import re

from pydantic import ValidationError

MEMBER = re.compile(r"<[\w.]+: ('.*?')>")  # pydantic's way of saying an enum's member


def expected(error: ValidationError) -> str:
    """Of the first fault."""
    first = error.errors()[0]
    if first["type"] == "extra_forbidden":
        return "a name that is among its parameters"
    return MEMBER.sub(r"\1", first["msg"].removeprefix("Value error, ").removeprefix("Input should be "))
