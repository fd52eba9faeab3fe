"""``python -m flows.bench.launched FILE COMMAND…``: a command of ours, and when it passes some points, into a file."""

import time

BEGUN = time.time()

import gc  # noqa: E402  (the first thing is the time)
import sys  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402


def main(file: Path, arguments: list[str]) -> None:
    """Run the command as ``gradmill`` does; a line of the file is a point and the time in seconds since 1970."""

    def mark(point: str, moment: float | None = None) -> None:
        with file.open("a") as stream:
            stream.write(f"{point} {moment or time.time()}\n")

    mark("interpreter", BEGUN)
    from flows import __main__ as gradmill

    gc.set_threshold(gradmill.NEW_OBJECTS)
    from flows.cli import app  # noqa: F401

    mark("imports")
    if arguments[0] in ("retrain", "predict"):
        _watch(mark)
    sys.argv = ["gradmill", *arguments]
    gradmill.main()


def _watch(mark: Any) -> None:
    """Let a run's server, the opening of its folder and its end be marked: what a flow goes through."""
    from flows.server import connection
    from tasks.store.run_folder import RunFolder

    served, opened = connection.prefect_api, RunFolder.open

    @contextmanager
    def prefect_api(*preload: str) -> Iterator[None]:
        mark("checks")
        with served(*preload):
            mark("server")
            yield
            mark("run")

    def opening(run: str, parameters: dict[str, Any]) -> RunFolder:
        folder = opened(run, parameters)
        mark("engine")
        return folder

    connection.prefect_api, RunFolder.open = prefect_api, opening  # type: ignore[method-assign]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
