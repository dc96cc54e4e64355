"""Work in a thread of its own, fed from a stream and answering in another, so that neither side waits for the other.

The stream that feeds it is pulled by the caller's thread, and no further than there is room. Knows nothing of what
flows.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Inbox(Generic[_In]):
    """What waits for the worker: at most `capacity` at a time."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._waiting: deque[_In] = deque()
        self._is_closed = False
        self.changed = threading.Condition()

    @property
    def is_over(self) -> bool:
        """Whether nothing waits and nothing will come."""
        with self.changed:
            return self._is_closed and not self._waiting

    @property
    def has_room(self) -> bool:
        """Whether `offer` would succeed."""
        return not self._is_closed and len(self._waiting) < self._capacity

    def take(self, most: int, *, wait: bool) -> list[_In]:
        """What is there, `most` at most; with `wait`, as soon as there is something or nothing will come."""
        with self.changed:
            self.changed.wait_for(lambda: self._waiting or self._is_closed or not (wait and most))
            taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
            self.changed.notify_all()
            return taken

    def offer(self, item: _In) -> bool:
        """Puts it in, if there is room."""
        with self.changed:
            if not self.has_room:
                return False
            self._waiting.append(item)
            self.changed.notify_all()
            return True

    def close(self) -> None:
        """Nothing more will come."""
        with self.changed:
            self._is_closed = True
            self.changed.notify_all()


class _Outbox(Generic[_Out]):
    """What the worker answered, until it has ended."""

    def __init__(self, inbox: Inbox[_In]) -> None:
        self._inbox = inbox
        self._answers: deque[_Out] = deque()
        self._error: BaseException | None = None
        self.has_ended = False

    def put(self, answers: list[_Out]) -> None:
        with self._inbox.changed:
            self._answers.extend(answers)
            self._inbox.changed.notify_all()

    def end(self, error: BaseException | None = None) -> None:
        with self._inbox.changed:
            self._error, self.has_ended = error, True
            self._inbox.changed.notify_all()

    def take(self, *, wait: bool) -> Iterator[_Out]:
        """What is there; with `wait`, once there is something, or room to offer more, or the end.

        Raises the worker's error once all that it answered is taken.
        """
        with self._inbox.changed:
            if wait:
                self._inbox.changed.wait_for(lambda: self._answers or self.has_ended or self._inbox.has_room)
        # Read before the answers: once there is an error, the last of them is there.
        error = self._error
        while self._answers:
            yield self._answers.popleft()
        if error:
            raise error


def beside(work: Callable[[Inbox[_In]], Iterator[list[_Out]]], source: Iterable[_In], capacity: int) -> Iterator[_Out]:
    """Runs `work` in a thread; yields what it answers, and raises what it raises once all before that is out.

    When `source` raises, what was answered until then comes first. Abandoned, it ends the work at its next answer.
    """
    inbox: Inbox[_In] = Inbox(capacity)
    outbox: _Outbox[_Out] = _Outbox(inbox)
    abandoned = threading.Event()

    def run() -> None:
        try:
            for answers in work(inbox):
                outbox.put(answers)
                if abandoned.is_set():
                    break
            outbox.end()
        except BaseException as error:
            outbox.end(error)

    worker = threading.Thread(target=run, name="engine", daemon=True)
    worker.start()
    try:
        yield from _feed(source, inbox, outbox)
        inbox.close()
        while not outbox.has_ended:
            yield from outbox.take(wait=True)
        yield from outbox.take(wait=False)
    finally:
        abandoned.set()
        inbox.close()
        worker.join()


def _feed(source: Iterable[_In], inbox: Inbox[_In], outbox: _Outbox[_Out]) -> Iterator[_Out]:
    items = iter(source)
    while not outbox.has_ended:
        try:
            item = next(items)
        except StopIteration:
            return
        except BaseException:
            yield from outbox.take(wait=False)
            raise
        while not (outbox.has_ended or inbox.offer(item)):
            yield from outbox.take(wait=True)
        yield from outbox.take(wait=False)
