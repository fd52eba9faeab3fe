"""Tables of several commands."""

from rich.console import Console
from rich.table import Table

WIDE = 160  # characters: a pipe has no width, and its reader wants whole names


def print_table(table: Table) -> None:
    """Print it whole, also where the output is no terminal."""
    console = Console()
    if not console.is_terminal:
        console.width = WIDE
    console.print(table)
