"""Commands that are killed while they work."""

import importlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

import psutil

KILLS = int(os.environ.get("GRADMILL_TEST_KILLS", "6"))
PRELOADED = ["flows.cli.app", "flows.cli.display", "flows.server.connection", "flows.retrain", "flows.predict"]
PRELOADED += ["tasks.fitting.trainer", "tasks.judging.task"]


def run_silently(arguments: list[str]) -> None:
    """The body of a forked victim: the whole command line, its output thrown away."""
    from flows.cli import app

    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os._exit(app.run(arguments))


def run_until(moment: str, arguments: list[str]) -> None:
    """The same, killed as it is about to call ``module:function``: a moment that no clock hits."""
    module, function = moment.split(":")
    setattr(importlib.import_module(module), function, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    run_silently(arguments)


def die_before(number: int, *names: str) -> None:
    """Let this process kill itself before its ``number``-th call of these functions of ``os``."""
    left = iter(range(number))

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **options)

        return called

    for name in names:
        setattr(os, name, dying(getattr(os, name)))


def run_until_rename(number: int, arguments: list[str]) -> None:
    """The whole command line, killed before the ``number``-th time that it puts a file in its place."""
    die_before(number, "replace")
    run_silently(arguments)


def fork(body: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Run ``body`` in a process that has imported everything: kills fall into the work, not into the imports."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(PRELOADED)
    process = forks.Process(target=body, args=arguments)
    process.start()
    return process


@contextmanager
def cluster_with_victim(is_time: Callable[[], bool], **options: Any) -> Iterator[Any]:
    """A Dask cluster of two processes, of which one is killed once it is time."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, **options) as cluster:
        victim = psutil.Process(next(iter(cluster.workers.values())).pid)

        def kill() -> None:
            while not is_time():
                time.sleep(0.005)
            victim.kill()

        killer = threading.Thread(target=kill, daemon=True)  # if the test fails, it is never time
        killer.start()
        yield cluster
        killer.join()
        assert not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE
