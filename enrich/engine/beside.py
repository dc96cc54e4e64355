"""Work in a thread of its own, fed from a stream and answering in another, so that neither side waits for the other.

The stream that feeds it is pulled by the caller's thread, and no further than there is room. Knows nothing of what
flows.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Inbox(Generic[_In]):
    """What waits for the worker: at most `capacity` at a time."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._waiting: deque[_In] = deque()
        self._changed = threading.Condition()
        self._closed = False

    @property
    def is_over(self) -> bool:
        """Whether nothing waits and nothing will come."""
        with self._changed:
            return self._closed and not self._waiting

    def take(self, most: int, *, wait: bool) -> list[_In]:
        """What is there, `most` at most; with `wait`, as soon as there is something or nothing will come."""
        with self._changed:
            while wait and most and not self._waiting and not self._closed:
                self._changed.wait()
            return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def offer(self, item: _In) -> bool:
        """Puts it in, if there is room."""
        with self._changed:
            if len(self._waiting) >= self._capacity:
                return False
            self._waiting.append(item)
            self._changed.notify()
            return True

    def close(self) -> None:
        """Nothing more will come."""
        with self._changed:
            self._closed = True
            self._changed.notify()


def beside(work: Callable[[Inbox[_In]], Iterator[list[_Out]]], source: Iterable[_In], capacity: int) -> Iterator[_Out]:
    """Runs `work` in a thread; yields what it answers, and raises what it raises once all before that is out.

    When `source` raises, what was answered until then comes first. Abandoned, it ends the work at its next answer.
    """
    inbox: Inbox[_In] = Inbox(capacity)
    answers: SimpleQueue[list[_Out] | _End] = SimpleQueue()
    abandoned = threading.Event()

    def run() -> None:
        try:
            for answer in work(inbox):
                answers.put(answer)
                if abandoned.is_set():
                    break
            answers.put(_End(None))
        except BaseException as error:
            answers.put(_End(error))

    worker = threading.Thread(target=run, name="engine", daemon=True)
    worker.start()
    try:
        yield from _feed(source, inbox, answers)
        inbox.close()
        while True:
            yield from _answered(answers.get())
    except _Done:
        return
    finally:
        abandoned.set()
        inbox.close()
        worker.join()


class _Done(Exception):
    """The work has ended."""


class _End:
    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def _feed(source: Iterable[_In], inbox: Inbox[_In], answers: "SimpleQueue[list[_Out] | _End]") -> Iterator[_Out]:
    try:
        for item in source:
            while not inbox.offer(item):
                yield from _answered(answers.get())
            yield from _at_hand(answers)
    except GeneratorExit:
        raise
    except BaseException:
        yield from _at_hand(answers)
        raise


def _at_hand(answers: "SimpleQueue[list[_Out] | _End]") -> Iterator[_Out]:
    while True:
        try:
            answer = answers.get_nowait()
        except Empty:
            return
        yield from _answered(answer)


def _answered(answer: "list[_Out] | _End") -> list[_Out]:
    if not isinstance(answer, _End):
        return answer
    raise answer.error or _Done
