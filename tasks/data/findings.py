"""Findings by what they do: an error stops a run, a warning does not, a note explains."""

from tasks.data.report import Finding


def error(rule: str, column: str | None, found: str, expected: str, action: str) -> Finding:
    """What must be mended; ``column`` is None where it is of no single one."""
    return Finding(severity="error", rule=rule, column=column, found=found, expected=expected, action=action)


def warning(rule: str, column: str | None, found: str, action: str = "", expected: str = "") -> Finding:
    """What is odd, and may be meant."""
    return Finding(severity="warning", rule=rule, column=column, found=found, expected=expected, action=action)


def note(rule: str, column: str | None, found: str, action: str = "") -> Finding:
    """What was done, or may be of use."""
    return Finding(severity="note", rule=rule, column=column, found=found, action=action)
