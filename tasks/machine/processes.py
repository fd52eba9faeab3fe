"""Work by all cores where the interpreter's lock lets one go on: the others in processes of their own.

``python -m tasks.machine.processes DESCRIPTOR`` is such a process. It imports what its work needs and nothing else,
and ends when its parent does, even if that is killed: then the other end of its connection closes. The libraries'
processes (concurrent.futures, loky) hold both ends, and outlive a parent that is killed.
"""

import queue
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from tasks.errors import EnvironmentProblem

Item = TypeVar("Item")
Result = TypeVar("Result")


class Process(Generic[Item, Result]):
    """A process that does ``work``, which can be pickled, to one item after another."""

    def __init__(self, work: Callable[[Item], Result]) -> None:
        self._connection, there = Pipe()
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tasks.machine.processes", str(there.fileno())],  # -P: not this folder's
                stdin=subprocess.DEVNULL,
                pass_fds=[there.fileno()],
                process_group=0,  # Ctrl-C is for the parent
            )
        self._connection.send(work)

    def __call__(self, item: Item) -> Result:
        """What becomes of the item; to be called by one thread at a time.

        Raises:
            Exception: what ``work`` raised.
            EnvironmentProblem: the process has ended.
        """
        try:
            self._connection.send(item)
            done, found = self._connection.recv()
        except (EOFError, ConnectionError) as error:
            found = f"a process that did a part of the work has ended, code {self._process.wait()}"
            raise EnvironmentProblem(found, "one that goes on", "see that there is enough memory") from error
        if done:
            return found  # type: ignore[no-any-return]
        raise found

    def close(self) -> None:
        """End it."""
        self._connection.close()
        self._process.wait()


@contextmanager
def by_all_cores(
    work: Callable[[Item], Result], count: int, in_processes: bool
) -> Iterator[Callable[[Item], Future[Result]]]:
    """A function that has ``work`` done to an item; ``count`` at a time, one of them in this process.

    What has not begun when the block ends never will.
    """
    idle: queue.SimpleQueue[Callable[[Item], Result]] = queue.SimpleQueue()

    def run(item: Item) -> Result:
        worker = idle.get()
        try:
            return worker(item)
        finally:
            idle.put(worker)

    with ExitStack() as stack:
        idle.put(work)
        for _ in range(1, count):
            worker = Process(work) if in_processes else work
            if isinstance(worker, Process):
                stack.callback(worker.close)
            idle.put(worker)
        pool = stack.enter_context(ThreadPoolExecutor(count))
        stack.callback(pool.shutdown, cancel_futures=True)
        yield lambda item: pool.submit(run, item)


def main(descriptor: int) -> None:
    """Do what the parent asks for, until it asks no more."""
    with Connection(descriptor) as parent, suppress(EOFError, ConnectionError):
        work: Callable[[Any], Any] = parent.recv()
        while True:
            item = parent.recv()
            try:
                answer = True, work(item)
            except Exception as error:
                answer = False, error
            parent.send(answer)


if __name__ == "__main__":
    main(int(sys.argv[1]))
