"""What to type when a package is missing: into this very environment, and from PyPI only what is published there."""

import shlex
import sys


def pip_install(*requirements: str) -> str:
    """The command that installs ``requirements`` where this process finds its packages."""
    return shlex.join([sys.executable, "-m", "pip", "install", *requirements])
