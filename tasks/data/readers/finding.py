"""Which files an input stands for: a file, a folder, or a glob of either. What predictions have written is none."""

import fnmatch
import functools
import glob
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tasks.data.readers.formats import Format
from tasks.data.readers.image_formats import (
    IDX,
    IDX_LABELS,
    NPY,
    NPZ,
    PICTURE,
    PICTURES,
    SAFETENSORS,
    tells_of_labels,
)
from tasks.data.readers.tables import ARROW, CSV, JSON, PARQUET
from tasks.errors import DataError, GradmillError, UsageError
from tasks.machine.telling import tell
from tasks.machine.words import counted
from tasks.store import artifact_paths, predictions, regular_files
from tasks.store.regular_files import holds, shown

FORMATS = {each.name: each for each in (IDX, NPY, NPZ, SAFETENSORS, PARQUET, PICTURES, CSV, ARROW, JSON, PICTURE)}
BY_SUFFIX = {suffix: each for each in FORMATS.values() for suffix in each.suffixes}
IDX_IMAGES = "idx3"  # in the names of the files of MNIST and its relatives


def format_of(path: Path) -> Format:
    """How to read a file, by the longest suffix that is known; files without one are IDX, which have none."""
    known = [suffix for suffix in BY_SUFFIX if path.name.lower().endswith(suffix)]
    return BY_SUFFIX[max(known, key=len)] if known else IDX


def is_known(path: Path) -> bool:
    """Whether a file found in a folder is an input, by its name."""
    is_one = path.name.lower().endswith(tuple(BY_SUFFIX)) or IDX_IMAGES in path.name
    return is_one and IDX_LABELS not in path.name


def find(
    text: str,
    output: Path | None = None,
    known: Callable[[Path], bool] = is_known,
    suffixes: Iterable[str] = BY_SUFFIX,
    are_checked: bool = True,
) -> list[Path]:
    """The files that a path, a folder or a glob stands for, each once, sorted by name.

    Of a folder those that are ``known``, by their ``suffixes``. Unless they ``are_checked`` some may be empty.

    Left out is what lies in ``output`` and, below what ``text`` names, in artifacts/ or in the folder of a job: a job
    that found its own parts there would have another input each time. Links to files are files; links to folders are
    followed only where ``text`` itself names them, for below it they would give rows twice, or without end.

    Raises:
        UsageError: nothing is there, or all of it lies in ``output``.
        DataError: no file can be read, or the name of one is not UTF-8.
    """
    if not text:
        raise UsageError("an empty input", "a file, a folder or a glob", "name one; leave it out for the test split")
    if "://" in text:
        raise UsageError(f"the address {text}", "a file, a folder or a glob on this machine", "download it first")
    path = regular_files.absolute(text)
    search = _Search.of(path)
    search.tell()
    is_ours = _whether_ours(search.base, output)
    everything = search.named | search.below
    others = [each for each in sorted(everything) if not is_ours(each.parent)]
    files = [each for each in others if each in search.named or known(each)]
    if any(format_of(each) is PICTURE for each in files):  # what describes pictures lies among them
        files = [each for each in files if each in search.named or format_of(each) not in (CSV, JSON)]
    if left_out := len(everything) - len(others):
        tell(f"left out {counted(left_out, 'file')} of artifacts/ and of predictions")
    if ignored := sorted(each for each in {*others} - {*files} if not tells_of_labels(each)):
        tell(f"ignored {counted(len(ignored), 'file')} of no known kind, the first is {shown(ignored[0])}")
    if not files:
        raise _nothing(path, bool(search.below), suffixes, output if left_out and not others else None)
    for each in files:
        if shown(each) != str(each):
            raise DataError(f"the name of {shown(each)} is not UTF-8", "names in UTF-8", "rename it")
        if are_checked and format_of(each) is not PICTURE and not each.stat().st_size:
            raise empty(each)
    return files


def empty(path: Path) -> DataError:
    """The error of a file without a byte; of /proc, some of which wait for ever, too."""
    return DataError(f"{path} is empty, or no file on disk", "a file of rows", "write it again, or leave it out")


def base_of(path: Path) -> Path:
    """The folder in which everything lies that a path, absolute, stands for."""
    if path.is_dir():
        return path
    return path.parent if path.is_file() else next(each for each in path.parents if not glob.has_magic(str(each)))


@dataclass
class _Search:
    """What a path stands for: files that it names itself, and those in the folders that it names."""

    base: Path
    named: set[Path] = field(default_factory=set)
    below: set[Path] = field(default_factory=set)
    links: list[Path] = field(default_factory=list)
    irregular: list[Path] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, path: Path) -> "_Search":
        """Look at the disk.

        Raises:
            DataError: the path is a FIFO, a socket or a device.
        """
        search = cls(base_of(path))
        if path.is_file():
            search.named.add(path)
            return search
        if path.is_dir():
            search._look(path, ("**",), search.below)
            return search
        if path.exists():
            raise regular_files.irregular(shown(path))
        pattern = path.relative_to(search.base).parts
        if glob.has_magic(str(path)) and search.base.is_dir():
            search._look(search.base, pattern, search.named)
            search.below -= search.named
        return search

    def _look(self, folder: Path, pattern: tuple[str, ...], files: set[Path]) -> None:
        """Add what matches a pattern of one name or ``**`` a level."""
        name, rest = pattern[0], pattern[1:]
        any_depth = name == "**"
        for entry in self._entries(folder):
            if entry.name.startswith(".") and not name.startswith("."):
                continue
            if not any_depth and not fnmatch.fnmatchcase(entry.name, name):
                continue
            path = Path(entry.path)
            if holds(entry.is_dir):
                if entry.is_symlink():
                    self.links.append(path)
                elif any_depth:
                    self._look(path, pattern, files)
                else:
                    self._look(path, rest or ("**",), files if rest else self.below)
            elif not rest:
                files.add(path) if holds(entry.is_file) else self.irregular.append(path)
        if any_depth and rest:
            self._look(folder, rest, files)

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return list(entries)
        except OSError as error:
            self.closed.append(f"{shown(folder)}: {error.strerror}")
            return []

    def tell(self) -> None:
        """Say what was left out."""
        if links := sorted(set(self.links)):
            tell(f"links to folders are not followed, name them to read them: {len(links)}, first {shown(links[0])}")
        if irregular := sorted(set(self.irregular)):
            tell(f"left out what is no regular file: {len(irregular)}, first {shown(irregular[0])}")
        if closed := sorted(set(self.closed)):
            tell(f"left out folders that cannot be read: {len(closed)}, first {closed[0]}")


def _whether_ours(base: Path, output: Path | None) -> Callable[[Path], bool]:
    """Whether what lies in a folder was written by predictions and their like rather than to be predicted."""
    root, target = artifact_paths.root(), None if output is None else output.resolve()

    @functools.cache
    def is_ours(folder: Path) -> bool:
        if target is not None and folder.resolve().is_relative_to(target):
            return True
        if base in root.parents and folder.is_relative_to(root):
            return True
        return folder != base and predictions.holds_job(folder)

    return is_ours


def _nothing(path: Path, is_folder: bool, suffixes: Iterable[str], output: Path | None) -> GradmillError:
    if output is not None:
        return UsageError(f"the input {path} in the output folder {output}", "two places", "choose another --output")
    if is_folder or path.is_dir():
        return DataError(
            f"{path} holds nothing that can be read", f"files named *{' *'.join(suffixes)}", "name the file itself"
        )
    return UsageError(f"no file {shown(path)}", "a file, a folder or a glob of inputs", "check the path")
