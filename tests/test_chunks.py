"""Whatever becomes of the workers, every product comes back once: written, or given up because it alone kills."""

import random
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrich.chunks import Board
from enrich.plan import Wanted
from enrich.products import Product


def wanted(*numbers: int) -> list[Wanted]:
    return [Wanted(number.to_bytes(4, "big"), Product(f"Product {number}")) for number in numbers]


def keys(*numbers: int) -> list[bytes]:
    return [each.key for each in wanted(*numbers)]


def board(*chunks: tuple[int, ...]) -> Board:
    return Board(iter([wanted(*chunk) for chunk in chunks]))


def given_to(found: Board, worker: str) -> list[bytes] | None:
    chunk = found.give(worker)
    return None if chunk is None else [each.key for each in chunk]


def test_no_more_is_taken_from_the_source_than_is_asked_for() -> None:
    taken = []

    def source() -> Iterator[list[Wanted]]:
        for number in range(9):
            taken.append(number)
            yield wanted(number)

    found = Board(source())
    found.give("a")
    found.give("a")
    assert taken == [0, 1]


def test_it_is_over_when_everything_came_back() -> None:
    found = board((1, 2))
    found.give("a")
    assert not found.is_over
    assert found.take(keys(1)) == set(keys(1))
    assert found.give("b") is not None
    assert not found.is_over
    assert found.take(keys(2)) == set(keys(2))
    assert given_to(found, "a") is None
    assert found.is_over


def test_of_two_answers_the_first_counts() -> None:
    found = board((1, 2))
    assert given_to(found, "a") == keys(1, 2)
    assert given_to(found, "b") == keys(2, 1)
    assert given_to(found, "c") is None
    assert found.take(keys(1, 2)) == set(keys(1, 2))
    assert found.take(keys(1, 2)) == set()


def test_a_copy_is_of_what_is_left_and_only_for_empty_hands() -> None:
    found = board((1, 2, 3), (4,))
    found.give("a")
    found.give("b")
    assert given_to(found, "b") is None
    found.take(keys(1, 4))
    assert given_to(found, "b") == keys(3, 2)


def test_what_a_dead_worker_had_in_hand_goes_to_an_empty_hand() -> None:
    found = board((1, 2), (3, 4), (5, 6))
    found.give("a")
    found.take(keys(1))
    given_to(found, "c")
    assert found.lose("a", killed=True) == []
    # A worker with something else in hand is not risked, nor is anything else with it.
    assert given_to(found, "c") == keys(5, 6)
    assert given_to(found, "b") == keys(2)
    assert given_to(found, "b") is None


def test_who_is_sent_away_leaves_no_suspicion() -> None:
    found = board((1, 2), (3, 4))
    found.give("a")
    for _ in range(5):
        found.lose("a", killed=False)
        assert given_to(found, "a") == keys(1, 2)
    assert given_to(found, "a") == keys(3, 4)


def test_what_kills_twice_is_cut_in_half_down_to_the_one_that_kills() -> None:
    found = board(tuple(range(8)))
    poison, done, deaths, given_up = keys(5)[0], set[bytes](), 0, []
    while not found.is_over:
        chunk = given_to(found, "a")
        if chunk is None:
            continue
        if poison in chunk:
            deaths += 1
            given_up += [each.key for each in found.lose("a", killed=True)]
        else:
            done |= found.take(chunk)
    assert given_up == [poison]
    assert done == set(keys(*range(8))) - {poison}
    assert deaths == 5


def test_a_copy_that_kills_one_worker_is_still_in_hand_of_the_other() -> None:
    found = board((1, 2))
    found.give("a")
    found.give("b")
    assert found.lose("a", killed=True) == []
    assert found.take(keys(1, 2)) == set(keys(1, 2))
    assert given_to(found, "c") is None
    assert found.is_over


@given(st.integers(0, 2**32), st.lists(st.integers(1, 20), max_size=12), st.sets(st.integers(0, 60), max_size=3))
def test_every_product_comes_back_once(seed: int, sizes: list[int], poison: set[int]) -> None:
    """Workers take, answer in parts, die of poison or of nothing, and are sent away, in any order."""
    chance, numbers = random.Random(seed), iter(range(10_000))
    chunks = [tuple(next(numbers) for _ in range(size)) for size in sizes]
    found, back, given_up = board(*chunks), Counter[bytes](), Counter[bytes]()
    deadly = set(keys(*poison))
    hands: dict[str, list[bytes]] = {name: [] for name in "abc"}
    for _ in range(5000):
        if found.is_over:
            break
        worker = chance.choice("abc")
        chunk = given_to(found, worker)
        if chunk is not None:
            hands[worker] += chunk
        if not hands[worker]:
            continue
        if chance.random() < 0.05:
            given_up.update(each.key for each in found.lose(worker, killed=False))
            hands[worker] = []
            continue
        some, hands[worker] = hands[worker][:5], hands[worker][5:]
        if deadly.intersection(some):
            given_up.update(each.key for each in found.lose(worker, killed=True))
            hands[worker] = []
        else:
            back.update(found.take(some))
    assert found.is_over
    assert {*back.values(), *given_up.values()} <= {1}
    assert set(given_up) <= deadly
    assert back.keys() | given_up.keys() == {key for chunk in chunks for key in keys(*chunk)}


def test_the_test_above_would_see_a_lost_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Board, "lose", lambda self, worker, **_: self._hands.pop(worker, []) and [])
    with pytest.raises(AssertionError):
        test_every_product_comes_back_once.hypothesis.inner_test(1, [5, 5, 5], {3})  # type: ignore[attr-defined]
