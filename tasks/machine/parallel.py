"""Work on all cores: in threads where numpy and pyarrow release Python's lock, otherwise in separate processes.

``python -m tasks.machine.parallel DESCRIPTOR`` is such a process. It imports what its work needs and nothing else, and
ends when its parent does, even if the parent is killed: then the other end of its connection closes. The processes of
libraries (concurrent.futures, loky) hold both ends of the connection, and outlive a parent that is killed.
"""

import functools
import queue
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from contextvars import copy_context
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from tasks.errors import EnvironmentProblem
from tasks.machine import resources

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """What ``work`` returns for each item, in the order of the items."""
    with ThreadPoolExecutor(resources.count_cores()) as pool:
        return list(pool.map(work, items))


def read_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The items, each made in a thread while the one before it is in use.

    What a thread prints belongs to the caller's Prefect run.
    """
    make_next = functools.partial(copy_context().run, next, items, None)
    with ThreadPoolExecutor(1) as pool:
        next_item = pool.submit(make_next)
        while (item := next_item.result()) is not None:
            next_item = pool.submit(make_next)
            yield item


def start(work: Callable[..., Result], *args: Any) -> Future[Result]:
    """The future result of ``work`` on its arguments, computed in a separate thread while this one goes on."""
    pool = ThreadPoolExecutor(1)
    found = pool.submit(work, *args)
    pool.shutdown(wait=False)
    return found


class Process(Generic[Item, Result]):
    """A process that does ``work``, which can be pickled, to one item after another."""

    def __init__(self, work: Callable[[Item], Result]) -> None:
        self._connection, there = Pipe()
        with there:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tasks.machine.parallel", str(there.fileno())],  # -P: not this folder's
                stdin=subprocess.DEVNULL,
                pass_fds=[there.fileno()],
                process_group=0,  # Ctrl-C is for the parent
            )
        self._connection.send(work)

    def __call__(self, item: Item) -> Result:
        """What ``work`` returns for the item; may be called by one thread at a time only.

        Raises:
            Exception: what ``work`` raised.
            EnvironmentProblem: the process has ended.
        """
        try:
            self._connection.send(item)
            done, result = self._connection.recv()
        except (EOFError, ConnectionError) as error:
            raise EnvironmentProblem(
                f"a worker process exited with code {self._process.wait()}",
                "a process that keeps running",
                "see that there is enough memory",
            ) from error
        if done:
            return result  # type: ignore[no-any-return]
        raise result

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.wait()


@contextmanager
def run_on_cores(
    work: Callable[[Item], Result], count: int, in_processes: bool
) -> Iterator[Callable[[Item], Future[Result]]]:
    """A function that has ``work`` done to an item; ``count`` at a time, one of them in this process.

    Work that has not begun when the block ends is never done.
    """
    idle = queue.SimpleQueue[Callable[[Item], Result]]()

    def run(item: Item) -> Result:
        worker = idle.get()
        try:
            return worker(item)
        finally:
            idle.put(worker)

    with ExitStack() as stack:
        idle.put(work)
        for _ in range(1, count):
            idle.put(stack.enter_context(closing(Process(work))) if in_processes else work)
        pool = stack.enter_context(ThreadPoolExecutor(count))
        stack.callback(pool.shutdown, cancel_futures=True)
        yield lambda item: pool.submit(run, item)


def main(descriptor: int) -> None:
    """Do what the parent asks for, until it asks no more."""
    with Connection(descriptor) as parent, suppress(EOFError, ConnectionError):
        work = parent.recv()
        while True:
            item = parent.recv()
            try:
                answer = True, work(item)
            except Exception as error:
                answer = False, error
            parent.send(answer)


if __name__ == "__main__":
    main(int(sys.argv[1]))
