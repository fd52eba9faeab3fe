"""Which files an input stands for: a file, a folder, or a glob of either. What predictions have written is none."""

import functools
import glob
import os
from collections.abc import Callable
from pathlib import Path

from tasks import artifact_paths
from tasks.errors import DataError, GradmillError, UsageError
from tasks.predict.inputs.kinds import BY_SUFFIX, is_known
from tasks.predict.jobs import Job


def find(text: str, output: Path | None = None) -> list[Path]:
    """The files that a path, a folder or a glob stands for, each once, sorted by name.

    Left out is what lies in ``output`` and, below what ``text`` names, in artifacts/ or in the folder of a job: a job
    that found its own parts there would have another input each time.

    Raises:
        UsageError: nothing is there, or all of it lies in ``output``.
        DataError: no file can be read, or the name of one is not UTF-8.
    """
    if not text:
        raise UsageError("an empty input", "a file, a folder or a glob", "name one; leave it out for the test split")
    path = Path(text).expanduser().absolute()
    base, named, below = _matches(path)
    is_ours = _whether_ours(base, output)
    others = [each for each in sorted(named | below) if not is_ours(each.parent)]
    files = [each for each in others if each in named or is_known(each)]
    if left_out := len(named | below) - len(others):
        print(f"left out {left_out} files of artifacts/ and of predictions")
    if ignored := sorted(set(others) - set(files)):
        print(f"ignored {len(ignored)} files of no known kind, the first is {_shown(ignored[0])}")
    if not files:
        raise _nothing(path, bool(below), output if left_out and not others else None)
    for each in files:
        if _shown(each) != str(each):
            raise DataError(f"the name of {_shown(each)} is not UTF-8", "names in UTF-8", "rename it")
    return files


def _matches(path: Path) -> tuple[Path, set[Path], set[Path]]:
    """The folder to look into, the files that ``path`` itself names, and those in the folders that it names."""
    if path.is_file():
        return path.parent, {path}, set()
    if path.is_dir():
        return path, set(), _visible(path)
    base = next(each for each in path.parents if not glob.has_magic(str(each)))
    found = [Path(each) for each in glob.glob(str(path), recursive=True)]  # noqa: PTH207  (the pattern is absolute)
    named = {each for each in found if each.is_file()}
    return base, named, {file for each in found if each.is_dir() for file in _visible(each)} - named


def _visible(folder: Path) -> set[Path]:
    files = (each for each in folder.rglob("*") if each.is_file())
    return {each for each in files if not any(part.startswith(".") for part in each.relative_to(folder).parts)}


def _whether_ours(base: Path, output: Path | None) -> Callable[[Path], bool]:
    """Whether what lies in a folder was written by predictions and their like rather than to be predicted."""
    root, target = artifact_paths.root(), None if output is None else output.resolve()

    @functools.cache
    def is_ours(folder: Path) -> bool:
        if target is not None and folder.resolve().is_relative_to(target):
            return True
        if base in root.parents and folder.is_relative_to(root):
            return True
        return folder != base and Job.read(folder) is not None

    return is_ours


def _nothing(path: Path, is_folder: bool, output: Path | None) -> GradmillError:
    if output is not None:
        return UsageError(f"the input {path} in the output folder {output}", "two places", "choose another --output")
    if is_folder or path.is_dir():
        return DataError(
            f"{path} holds nothing that can be read", f"files named *{' *'.join(BY_SUFFIX)}", "name the file itself"
        )
    return UsageError(f"no file {_shown(path)}", "a file, a folder or a glob of inputs", "check the path")


def _shown(path: Path) -> str:
    """A path as it can be printed: names are bytes, and need not be UTF-8."""
    return os.fsencode(path).decode(errors="replace")
