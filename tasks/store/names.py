"""Names that gradmill alone gives: to what is not yet, or no longer, to be seen, and to the pictures of a run.

What is named otherwise is somebody else's.
"""

import re
import secrets
from pathlib import Path

RUN = re.compile(r"\d{8}T\d{6}-.+-[0-9a-f]{8}")
VERSION = re.compile(r"[1-9][0-9]{0,8}")
TEMPORARY = re.compile(r"\.gradmill-[0-9a-f]{16}\.partial")
CONTENT = re.compile(r"[0-9a-f]{64}")  # of a backup, by its SHA-256
STAGE_RECORD = re.compile(r"[0-9a-f]{64}\.json")
PREPARED = r"(?:train|test|validation)\.[0-9a-f]{16}\.safetensors|[0-9a-f]{16}\.rows"  # files of a data set, by content
CONDEMNED = re.compile(r"\.pruned-.+-[0-9a-f]{8}")
LEFTOVER = re.compile(r"\.staging-[0-9a-f]{16}|\.pruned-[1-9][0-9]{0,8}-[0-9a-f]{8}")  # in a model's folder
DOWNLOAD_PREFIX = ".scratch-"  # of a folder in that of a dataset, to download into
DOWNLOAD = re.compile(r"\.scratch-[a-z0-9_]{8}")  # as ``tempfile`` completes it


def temporary(folder: Path) -> Path:
    """Where a file is written before it takes its place in a folder."""
    return folder / f".gradmill-{secrets.token_hex(8)}.partial"


def staging(model: Path) -> Path:
    """Where a version is put together, before it gets its number."""
    return model / f".staging-{secrets.token_hex(8)}"


def condemned(folder: Path) -> Path:
    """Where a folder goes before it is deleted, so that nobody sees half of it."""
    return folder.with_name(f".pruned-{folder.name}-{secrets.token_hex(4)}")
