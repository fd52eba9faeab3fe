"""Work on arrays by all cores: numpy and pyarrow let other threads go on meanwhile."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from tasks.machine import cores

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """What ``work`` makes of each item, in their order."""
    count = min(cores.available(), len(items))
    if count < 2:
        return list(map(work, items))
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, items))


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The items, the first of which is made from now on, the next while one is used."""
    pool = ThreadPoolExecutor(1)
    return _following(pool, pool.submit(next, items, None), items)


def _following(pool: ThreadPoolExecutor, following: Future[Any], items: Iterator[Item]) -> Iterator[Item]:
    with pool:
        while (item := following.result()) is not None:
            following = pool.submit(next, items, None)
            yield item


def beside(work: Callable[..., Result], *args: Any) -> Future[Result]:
    """What ``work`` makes of its arguments, in a thread of its own, while this one goes on."""
    pool = ThreadPoolExecutor(1)
    found = pool.submit(work, *args)
    pool.shutdown(wait=False)
    return found
