"""Work in a thread of its own: order, room, errors and the end."""

import threading
from collections import deque
from collections.abc import Callable, Iterator

import pytest

from enrich.engine.beside import Inbox, _Outbox, beside

CAPACITY = 3
PATIENCE = 5.0

Work = Callable[[Inbox[int]], Iterator[list[int]]]


class Odd(Exception):
    pass


def one_by_one(inbox: Inbox[int]) -> Iterator[list[int]]:
    while not inbox.is_over:
        yield [10 * item for item in inbox.take(1, wait=True)]


def at_once(inbox: Inbox[int]) -> Iterator[list[int]]:
    while not inbox.is_over:
        yield [10 * item for item in inbox.take(100, wait=True)]


def restless(inbox: Inbox[int]) -> Iterator[list[int]]:
    while not inbox.is_over:
        yield [10 * item for item in inbox.take(2, wait=False)]


def at_the_end(inbox: Inbox[int]) -> Iterator[list[int]]:
    taken = []
    while not inbox.is_over:
        taken += inbox.take(2, wait=True)
    yield [10 * item for item in taken]


def collect(answers: Iterator[int], into: list[int]) -> None:
    for answer in answers:
        into.append(answer)  # noqa: PERF402


def within(seconds: float, task: Callable[[], object]) -> None:
    """Fails instead of waiting for ever."""
    thread = threading.Thread(target=task, name="task", daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "it waits for ever"


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = threading.enumerate()
    yield
    assert not [each for each in threading.enumerate() if each.name == "engine" and each not in before]


# Everything, once, in order


@pytest.mark.parametrize("work", [one_by_one, at_once, restless])
@pytest.mark.parametrize("count", [0, 1, CAPACITY, 60])
def test_everything_is_answered_once_and_in_order(work: Work, count: int) -> None:
    assert list(beside(work, range(count), CAPACITY)) == [10 * item for item in range(count)]


@pytest.mark.parametrize("count", [0, 1, CAPACITY, CAPACITY + 1, 50])
def test_work_may_answer_only_when_the_source_is_over(count: int) -> None:
    found: list[int] = []
    within(PATIENCE, lambda: collect(beside(at_the_end, range(count), CAPACITY), found))
    assert found == [10 * item for item in range(count)]


def test_work_may_answer_more_than_it_is_given_and_less() -> None:
    def work(inbox: Inbox[int]) -> Iterator[list[int]]:
        yield [-1]
        while not inbox.is_over:
            for item in inbox.take(4, wait=True):
                yield [item] * (item % 3)
        yield [-2]

    assert list(beside(work, range(6), CAPACITY)) == [-1, 1, 2, 2, 4, 5, 5, -2]


def test_work_may_end_before_the_source() -> None:
    def work(inbox: Inbox[int]) -> Iterator[list[int]]:
        yield inbox.take(1, wait=True)

    assert list(beside(work, iter(range(10**9)), CAPACITY)) == [0]


# Room


def test_the_source_is_pulled_by_the_caller_and_no_further_than_there_is_room() -> None:
    pulled: list[threading.Thread] = []
    go = threading.Event()

    def source() -> Iterator[int]:
        for item in range(100):
            pulled.append(threading.current_thread())
            yield item

    def work(inbox: Inbox[int]) -> Iterator[list[int]]:
        yield inbox.take(2, wait=True)
        go.wait(PATIENCE)
        yield from at_once(inbox)

    answers = beside(work, source(), CAPACITY)
    assert not pulled
    next(answers)
    assert len(pulled) <= 2 + CAPACITY + 1
    go.set()
    assert len(list(answers)) >= 98
    assert set(pulled) == {threading.current_thread()}


def test_an_inbox_holds_as_much_as_it_can() -> None:
    inbox: Inbox[int] = Inbox(2)
    assert [inbox.offer(item) for item in range(3)] == [True, True, False]
    assert inbox.take(0, wait=True) == []
    assert inbox.take(1, wait=True) == [0]
    assert inbox.offer(3)
    inbox.close()
    assert not inbox.is_over
    assert inbox.take(5, wait=True) == [1, 3]
    assert inbox.is_over
    assert inbox.take(5, wait=True) == []


# Errors


def test_what_the_work_raises_comes_after_what_it_answered() -> None:
    def work(inbox: Inbox[int]) -> Iterator[list[int]]:
        for _ in range(5):
            yield inbox.take(1, wait=True)
        raise Odd

    found: list[int] = []
    with pytest.raises(Odd):
        collect(beside(work, iter(range(10**9)), CAPACITY), found)
    assert found == [0, 1, 2, 3, 4]


def test_what_the_work_raises_at_the_end_is_raised() -> None:
    def work(inbox: Inbox[int]) -> Iterator[list[int]]:
        yield from at_once(inbox)
        raise Odd

    found: list[int] = []
    with pytest.raises(Odd):
        collect(beside(work, range(4), CAPACITY), found)
    assert found == [0, 10, 20, 30]


def test_what_is_answered_while_answers_are_taken_comes_before_the_error() -> None:
    outbox: _Outbox[int] = _Outbox(Inbox[int](CAPACITY))

    class Late(deque[int]):
        def __bool__(self) -> bool:
            was_there = len(self) > 0
            if not outbox.has_ended:
                outbox.put([1])
                outbox.end(Odd())
            return was_there

    outbox._answers = Late()
    found: list[int] = []
    with pytest.raises(Odd):
        collect((answer for _ in range(2) for answer in outbox.take(wait=False)), found)
    assert found == [1]


def test_work_that_fails_before_its_first_answer_is_no_riddle() -> None:
    def work(_: Inbox[int]) -> Iterator[list[int]]:
        raise Odd

    with pytest.raises(Odd):
        next(beside(work, range(4), CAPACITY))


def test_what_the_source_raises_comes_after_what_was_answered() -> None:
    answered = threading.Event()

    def source() -> Iterator[int]:
        yield from range(3)
        assert answered.wait(PATIENCE)
        raise Odd

    def work(inbox: Inbox[int]) -> Iterator[list[int]]:
        taken: list[int] = []
        while len(taken) < 3:
            taken += inbox.take(1, wait=True)
        yield taken
        answered.set()
        yield inbox.take(1, wait=True)

    found: list[int] = []
    with pytest.raises(Odd):
        collect(beside(work, source(), CAPACITY), found)
    assert found == [0, 1, 2]


def test_what_the_source_raises_after_the_work_has_ended_is_raised() -> None:
    before = threading.enumerate()

    def source() -> Iterator[int]:
        yield 0
        for thread in set(threading.enumerate()) - set(before):
            thread.join(PATIENCE)
        raise Odd

    def work(inbox: Inbox[int]) -> Iterator[list[int]]:
        yield inbox.take(1, wait=True)

    found: list[int] = []
    with pytest.raises(Odd):
        collect(beside(work, source(), CAPACITY), found)
    assert found == [0]


# Abandoning


@pytest.mark.parametrize("work", [one_by_one, at_once, restless])
def test_abandoned_it_ends_its_work(work: Work) -> None:
    closed = threading.Event()

    def watched(inbox: Inbox[int]) -> Iterator[list[int]]:
        try:
            yield from work(inbox)
        finally:
            closed.set()

    answers = beside(watched, iter(range(10**9)), CAPACITY)
    assert [next(answers) for _ in range(5)] == [0, 10, 20, 30, 40]
    answers.close()  # type: ignore[attr-defined]
    assert closed.wait(PATIENCE)


def test_abandoned_while_the_work_waits_it_ends() -> None:
    def source() -> Iterator[int]:
        yield 0
        while True:
            yield 1

    def work(inbox: Inbox[int]) -> Iterator[list[int]]:
        yield [5]
        while True:
            inbox.take(1, wait=True)
            yield []
            if inbox.is_over:
                return

    answers = beside(work, source(), CAPACITY)
    assert next(answers) == 5
    within(PATIENCE, answers.close)  # type: ignore[attr-defined]


def test_never_asked_it_never_starts() -> None:
    before = threading.active_count()
    answers = beside(one_by_one, range(3), CAPACITY)
    assert threading.active_count() == before
    del answers
