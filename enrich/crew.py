"""The same function for many items on every core, the results in the order of the items.

Knows nothing of what it runs. How many processes there are can never be seen in a result.
"""

import os
import pickle
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import lru_cache
from multiprocessing import get_context
from types import TracebackType
from typing import Any, Self, TypeVar

import pyarrow as pa

from enrich.errors import IOFailure

_SECONDS_BETWEEN_LOOKS = 1.0

Item = TypeVar("Item")
Result = TypeVar("Result")


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Crew:
    """Processes that are started when they are first needed and stay, for one function after the other."""

    def __init__(self, num_processes: int) -> None:
        self._num_processes = num_processes
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def in_order(
        self, function: Callable[[Item], Result], items: Iterable[Item], *, alone: bool = False
    ) -> Iterator[Result]:
        """`map`, in all processes; in this one when `alone`. Takes few items more than it has given results.

        Function and items must be picklable; what the function keeps between items it keeps in each process.
        """
        if alone or self._num_processes < 2:
            yield from map(function, items)
            return
        pickled = pickle.dumps(function)
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                with _main_hidden():
                    waiting.append(self._processes().submit(_apply, pickled, item))
                while waiting and (waiting[0].done() or len(waiting) > 2 * self._num_processes):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            message = "a worker process was killed, perhaps for want of memory; free some and run again"
            raise IOFailure(message) from None

    def _processes(self) -> ProcessPoolExecutor:
        if self._pool is None:
            # Forking would copy whatever threads Arrow and the tokenizer have started, locked as they are.
            self._pool = ProcessPoolExecutor(self._num_processes, get_context("spawn"), _begin, (os.getpid(),))
        return self._pool


@contextmanager
def _main_hidden() -> Iterator[None]:
    """A process that is spawned imports the main module, and a script without a guard would run once more in each."""
    main = sys.modules["__main__"]
    kept: dict[str, Any] = {name: main.__dict__[name] for name in ("__file__", "__spec__") if name in main.__dict__}
    main.__dict__.update(dict.fromkeys(kept))
    try:
        yield
    finally:
        main.__dict__.update(kept)


def _begin(parent: int) -> None:
    # Ctrl-C reaches the whole group, and so does what stops a service: the parent decides what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    # As many threads in each process would only take turns.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    pa.set_cpu_count(1)


def _leave_with(parent: int) -> None:
    """Ends this process once its parent is gone: nobody would tell it, and it would wait for work for ever."""
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os._exit(0)


def _apply(pickled: bytes, item: Any) -> Any:
    return _function(pickled)(item)


# The last one alone: it is the same for all items of a pass, and so keeps what it has learnt.
@lru_cache(maxsize=1)
def _function(pickled: bytes) -> Callable[[Any], Any]:
    function: Callable[[Any], Any] = pickle.loads(pickled)  # noqa: S301 - our own, from the parent process
    return function
