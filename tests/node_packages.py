"""Packages from npm that tests use, installed once beside the virtual environment."""

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from filelock import FileLock

from conftest import REPOSITORY

JAVASCRIPT = REPOSITORY / "tests" / "javascript"


@cache
def node_modules() -> Path:
    """Where they are; whoever asks is skipped where npm is missing, or cannot install them."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    folder = REPOSITORY / ".venv" / "javascript"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(JAVASCRIPT / "package.json", folder / "package.json")
    with FileLock(folder / ".lock"):  # of several test processes
        installed = subprocess.run(
            ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"],
            cwd=folder,
            env=os.environ | {"ONNXRUNTIME_NODE_INSTALL": "skip"},  # its postinstall would download CUDA libraries
            capture_output=True,
            text=True,
            timeout=600,
        )
    if installed.returncode:
        pytest.skip(f"npm cannot install them here: {installed.stderr.strip()[-300:]}")
    return folder / "node_modules"
