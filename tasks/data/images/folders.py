"""A folder of pictures, one folder per class (torchvision's ``ImageFolder``), maybe below ``train/`` and ``test/``."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tasks.data import pictures
from tasks.data.images.source import Files, Source
from tasks.data.report import Finding, error, note
from tasks.data.sources import half_written
from tasks.data.split import TEST, TRAINING, VALIDATION
from tasks.store.regular_files import holds, shown

PARTS = {
    "train": TRAINING, "training": TRAINING, "test": TEST, "testing": TEST,
    "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION,
}  # fmt: skip
LONGEST = 5  # names that a message has


class _Folder(NamedTuple):
    """Pictures of one class that lie side by side."""

    path: str
    label: int
    side: int  # of the split
    names: NDArray[np.bytes_]


@dataclass
class _Search:
    """What lies below a folder."""

    classes: dict[str, int] = field(default_factory=dict)  # each with its number, in the order they were found
    folders: list[_Folder] = field(default_factory=list)
    look: Any = field(default_factory=hashlib.sha256)  # of all pictures so far: there may be millions
    strays: list[str] = field(default_factory=list)  # files among the folders of classes
    others: list[str] = field(default_factory=list)  # files of other kinds
    links: list[str] = field(default_factory=list)  # to folders
    closed: list[str] = field(default_factory=list)

    def part(self, folder: str, side: int) -> None:
        """Folders of classes; a link to one is followed, unless it leads to what it lies in."""
        for entry in self._entries(folder):
            if not holds(entry.is_dir):
                self.strays += [] if entry.name.startswith(".") else [entry.path]
            elif _leads_back(entry):
                self.links.append(entry.path)
            elif not entry.name.startswith((".", "__MACOSX")):
                self._class(entry.path, self.classes.setdefault(entry.name, len(self.classes)), side)

    def _class(self, folder: str, label: int, side: int) -> None:
        """The pictures of one class, however deep."""
        names = []
        for entry in self._entries(folder):
            if holds(entry.is_dir):
                if entry.is_symlink():
                    self.links.append(entry.path)
                elif not entry.name.startswith("."):
                    self._class(entry.path, label, side)
            elif entry.name.startswith(".") or not holds(entry.is_file):
                continue
            elif entry.name.lower().endswith(pictures.SUFFIXES):
                facts = os.stat(entry.path)  # noqa: PTH116  (an entry would keep its own)
                self.look.update(os.fsencode(f"{entry.path}\0{facts.st_size}\0{facts.st_mtime_ns}\0"))
                names.append(os.fsencode(entry.name))
            else:
                self.others.append(entry.path)
        self.folders.append(_Folder(folder, label, side, np.array(names, np.bytes_)))

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self.closed.append(f"{shown(folder)} ({error.strerror})")
            return []

    def findings(self) -> Iterator[Finding]:
        """What was left out."""
        left_out = {
            "stray-files": ("what lies beside the folders of classes or of parts", self.strays),
            "other-files": ("files of other kinds", self.others),
            "links": ("links to folders", self.links),
        }
        for rule, (words, paths) in left_out.items():
            if paths:
                yield note(rule, None, f"left out {words} ({len(paths):,}): {named(paths)}")
        if self.closed:
            found = f"folders that cannot be read: {', '.join(self.closed[:LONGEST])}"
            yield error("closed-folder", None, found, "readable ones", "see permissions")


def named(paths: list[str]) -> str:
    """The first of some paths, in a line."""
    more = f" and {len(paths) - LONGEST:,} more" if len(paths) > LONGEST else ""
    return ", ".join(" ".join(shown(path).split()) for path in paths[:LONGEST]) + more


def _leads_back(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a link to a folder that it lies in itself."""
    return entry.is_symlink() and Path(entry.path).parent.resolve().is_relative_to(Path(entry.path).resolve())


def _is_class(folder: Path) -> bool:
    """Whether a folder has pictures and no folders."""
    with os.scandir(folder) as entries:
        found = list(entries)
    has_pictures = any(entry.name.lower().endswith(pictures.SUFFIXES) for entry in found)
    return has_pictures and not any(holds(entry.is_dir) for entry in found)


def _parts(folder: Path) -> dict[Path, int]:
    """The folders of the splits and their sides; the folder itself where it has none, or ``train/`` alone.

    A folder of pictures and no folders is no part: a class may be called ``train``.
    """
    try:
        named = sorted(each for each in folder.iterdir() if each.name.lower() in PARTS)
        found = {each: PARTS[each.name.lower()] for each in named if each.is_dir() and not _is_class(each)}
    except OSError:
        found = {}
    if TRAINING not in found.values():
        return {folder: TRAINING}
    if TEST not in found.values():
        found = {each: TEST if side == VALIDATION else side for each, side in found.items()}
    return found


def find(folder: Path) -> Source:
    """The pictures below a folder, in the order of their own names, as numbers are where arrays were written out.

    Raises:
        DataError: files among them are half written.
    """
    search, parts = _Search(), _parts(folder)
    for part, side in parts.items():
        search.part(str(part), side)
    if folder not in parts:
        search.strays += [str(each) for each in sorted(folder.iterdir()) if each not in parts and each.name[0] != "."]
    half_written.refuse([*search.others, *search.strays])
    found = [each for each in search.folders if len(each.names)]
    names = np.concatenate([np.array([], np.bytes_), *(each.names for each in found)])
    order = np.argsort(names, kind="stable")
    number = np.repeat(np.arange(len(found), dtype=np.int32), [len(each.names) for each in found])[order]
    search.look.update(str([parts, sorted(search.classes)]).encode(errors="surrogateescape"))
    return Source(
        source=str(folder),
        look=search.look.hexdigest(),
        class_names=tuple(map(shown, search.classes)),
        labels=np.array([each.label for each in found], np.int64)[number],
        sides=np.array([each.side for each in found], np.uint8)[number] if len(parts) > 1 else None,
        findings=tuple(search.findings()),
        content=Files([each.path for each in found], number, names[order]),
    )
