"""``gradmill retrain`` for a DataFrame, run in a separate process, so that the calling one does not matter."""

import fcntl
import hashlib
import html
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gradmill.errors import DataError, GradmillError, Refused
from gradmill.model import CHAMPION, Model, find_root, load

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
OURS = Path(__file__).parents[1]  # where this package's flows and tasks are


def fit(frame: Any, target: str, name: str, model: str | None = None, **options: Any) -> Model:
    """Train, judge and publish a model of a pandas or polars DataFrame, or an Arrow table.

    The target decides whether it is a regression or a classification, unless ``task="regression"`` or the book's name
    of such a ``model`` says so; a name keeps its task. ``options`` are those of ``gradmill retrain``:
    ``weight_decay="auto"`` means ``--weight-decay auto``, a list has whole names or values (text is split at commas),
    and True means an option without a value. The rows are stored in ``datasets/`` for later retrains of the name,
    without a DataFrame's index. ``Model.outcome`` is "published", "unchanged", or "judged" if the name is frozen or
    ``no_publish`` is given: the result is then the previous champion.

    Raises:
        TypeError: the rows have another type.
        Refused: a gate refused the model (the error has the verdicts), or training diverged (there are none).
        DataError: the data are not fit for training.
        GradmillError: an option is wrong, or something else failed.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"name {name!r} is not of lower-case letters a to z, digits and hyphens, at most 63")
    if "data" in options:
        raise GradmillError("a frame and --data", "one of the two", "leave data out, or run gradmill retrain")
    root = find_root(options.get("artifacts"))
    is_new = not (root / "models" / name / CHAMPION).is_file()
    if is_new and options.get("no_publish"):
        action = "leave no_publish out, or run gradmill retrain with --no-publish"
        raise GradmillError(f"no_publish, and no version of {name}", "a model that can be returned", action)
    with _hold_frames(root / "datasets" / name) as folder:
        path = _keep_frame(frame, folder)
        data = ["--data", str(path), "--target", target]
        try:
            chosen = [] if model is None else [model]
            answer = _run("retrain", *chosen, "--name", name, *data, *_as_options(options | {"artifacts": root}))
        finally:
            remove_frames(folder)
    fitted = load(name, root)
    fitted.outcome = answer["outcome"]
    return fitted


def _as_options(options: dict[str, Any]) -> list[str]:
    words = []
    for option, given in options.items():
        for value in map(_quote, given) if isinstance(given, list | tuple) else [given]:
            flag = f"--{option.replace('_', '-')}"
            if value is not None and value is not False:
                words.append(flag if value is True else f"{flag}={value}")
    return words


def _quote(value: Any) -> Any:
    """An element of a list, in quotes if it is text that the command would split or strip."""
    if isinstance(value, str) and re.search('^ |[,"\r\n]', value):
        return '"' + value.replace('"', '""') + '"'
    return value


@contextmanager
def _hold_frames(folder: Path) -> Iterator[Path]:
    """Create the folder of a name's frames, and keep other fits of the name from removing this one's."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".frames.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _keep_frame(frame: Any, folder: Path) -> Path:
    """Write a frame to a Parquet file named by its content; the previous one remains until this is trained on.

    Raises:
        TypeError: the rows have another type.
        DataError: Parquet cannot hold the rows.
    """
    if not any(hasattr(frame, name) for name in ("to_parquet", "write_parquet", "column_names")):
        raise TypeError(f"a frame is {type(frame).__name__}, not a pandas or polars DataFrame, or an Arrow table")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as temporary:
        written = Path(temporary) / "frame.parquet"
        try:
            _write_frame(frame, written)
        except (ImportError, OSError):
            raise
        except Exception as error:  # pandas, polars and pyarrow raise their own types
            found = f"the frame cannot be written to Parquet: {'; '.join(map(str, error.args))}"
            expected = "one type in each column, and columns with different names"
            raise DataError(found, expected, "convert or rename the columns, or leave them out") from error
        path = folder / f"frame-{hashlib.sha256(written.read_bytes()).hexdigest()[:16]}.parquet"
        return written.replace(path)


def _write_frame(frame: Any, path: Path) -> None:
    if hasattr(frame, "to_parquet"):
        frame.to_parquet(path, index=False)
    elif hasattr(frame, "write_parquet"):
        frame.write_parquet(path)
    else:
        from pyarrow import parquet

        parquet.write_table(frame, path)


def remove_frames(folder: Path) -> None:
    """Remove stored frames, except the one that ``source.json`` names for later retrains."""
    source = folder / "source.json"
    named = source.read_text() if source.is_file() else ""
    for frame in folder.glob("frame-*.parquet"):
        if frame.name not in named:
            frame.unlink()


def _show(lines: Iterable[str]) -> None:
    """Pass lines on to stderr or, in a notebook, to a single output below the cell."""
    from_ipython = getattr(sys.modules.get("IPython"), "get_ipython", None)
    if from_ipython is None or not hasattr(from_ipython(), "kernel"):  # a terminal, including IPython's
        for line in lines:
            sys.stderr.write(line)
        return
    from IPython.display import HTML, display

    text, place = "", display(HTML(""), display_id=True)
    for line in lines:
        text += line
        place.update(HTML(f"<pre>{html.escape(text)}</pre>"))


def _run(*arguments: str) -> dict[str, Any]:
    """The document that a command prints; its stderr is shown line by line.

    The process imports our ``flows`` and ``tasks``, whatever modules of these names exist here.
    """
    ours = os.pathsep.join(filter(None, [str(OURS), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": ours, "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-m", "flows", *arguments, "--json"]
    with (
        tempfile.TemporaryFile("w+") as out,
        subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True, env=environment) as process,
    ):
        try:
            _show(process.stderr or ())
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            raise
        process.wait()
        out.seek(0)
        text = out.read()
    try:
        document: dict[str, Any] = json.loads(text)
    except ValueError as error:
        found = f"gradmill {arguments[0]} exited with code {process.returncode} and printed no document"
        raise GradmillError(found, "gradmill with its extras train and cpu", "see what it said on stderr") from error
    if document.get("outcome") == "refused":
        failed = [
            f"{gate['name']} {gate['value']:.4g}: {gate['detail']}" for gate in document["gates"] if not gate["passed"]
        ]
        refused = Refused("; ".join(failed), "a model that passes every gate", "see gates.md, or give other options")
        refused.gates = tuple(document["gates"])
        raise refused
    if failure := document.get("error"):
        kinds = {kind.exit_code: kind for kind in (Refused, DataError)}
        kind = kinds.get(failure["exit_code"], GradmillError)
        raise kind(failure["found"], failure["expected"], failure["action"])
    return document
