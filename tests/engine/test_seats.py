"""Who sits, who waits, and who goes first: on the host alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enrich.engine.grid_shapes import Bucket
from enrich.engine.protocol import Completion, Request
from enrich.engine.seats import Seats, Waiting
from enrich.engine.slots import BAD, IDLE

EOS = 2
SHORT, LONG = Bucket(8, 4), Bucket(16, 2)


def request(number: int) -> Request:
    return Request(number.to_bytes(16, "big"), (number + 3,))


def hear(seats: Seats, slots: list[int], told: list[list[int]]) -> list[tuple[int, Completion]]:
    return list(seats.hear(np.array(slots), np.array(told)))


# Seats


def test_who_sits_hears_until_the_end_token() -> None:
    seats = Seats(3, 5, [EOS])
    slot = seats.seat(request(0), 5)
    assert (seats.free, seats.taken.tolist()) == (2, [slot])
    assert hear(seats, [slot], [[7], [8]]) == []
    assert hear(seats, [slot], [[EOS]]) == [(slot, Completion(request(0).key, (7, 8), "eos"))]
    assert (seats.free, seats.taken.tolist()) == (3, [])
    assert not seats.is_any_taken


@pytest.mark.parametrize(
    ("told", "ids", "ended"),
    [
        ([7, 8, 9], (7, 8, 9), "length"),
        ([7, 8, EOS], (7, 8), "eos"),
        ([EOS, IDLE, IDLE], (), "eos"),
        ([7, BAD, IDLE], (), "failed"),
        ([BAD, IDLE, IDLE], (), "failed"),
        ([7, 8, BAD], (), "failed"),
        ([IDLE, 7, EOS], (7,), "eos"),
    ],
)
def test_a_window_may_hold_a_whole_text(told: list[int], ids: tuple[int, ...], ended: str) -> None:
    seats = Seats(2, 8, [EOS, 5])
    slot = seats.seat(request(0), 3)
    ((left, completion),) = hear(seats, [slot], [[token] for token in told])
    assert (left, completion.key, completion.ids, completion.ended) == (slot, request(0).key, ids, ended)


def test_who_comes_next_hears_nothing_of_who_sat_there() -> None:
    seats = Seats(1, 4, [EOS])
    seats.seat(request(0), 4)
    hear(seats, [0], [[7], [8], [9], [10]])
    seats.seat(request(1), 2)
    assert hear(seats, [0], [[IDLE], [IDLE]]) == []
    assert hear(seats, [0], [[11], [12]]) == [(0, Completion(request(1).key, (11, 12), "length"))]


def test_the_spare_slot_is_nobody_s() -> None:
    seats = Seats(2, 4, [EOS])
    seats.seat(request(0), 1)
    assert hear(seats, [2, 2], [[IDLE, IDLE]]) == []
    assert seats.is_any_taken
    assert 2 not in seats.taken


@settings(deadline=None)
@given(st.data())
def test_everyone_hears_what_was_said_in_their_slot(data: st.DataObject) -> None:
    """Slots speak in any order and number; a script says beforehand what each request is told."""
    count = data.draw(st.integers(1, 5))
    tokens = st.lists(st.integers(3, 90), max_size=6)
    scripts = data.draw(st.lists(st.tuples(tokens, st.sampled_from(["eos", "length", "failed"])), max_size=12))
    seats = Seats(count, 8, [EOS])
    left: dict[int, list[int]] = {}
    expected: dict[bytes, Completion] = {}
    found: dict[bytes, Completion] = {}
    waiting = list(enumerate(scripts))
    while waiting or left:
        while waiting and seats.free:
            number, (ids, ended) = waiting.pop(0)
            said = [*ids, *{"eos": [EOS], "failed": [BAD], "length": [] if ids else [9]}[ended]]
            slot = seats.seat(request(number), len(said) if ended == "length" else 8)
            left[slot] = said
            kept = () if ended == "failed" else tuple(said if ended == "length" else ids)
            expected[request(number).key] = Completion(request(number).key, kept, ended)
        assert seats.taken.tolist() == sorted(left)
        speaking = data.draw(st.permutations(sorted(left)))[: data.draw(st.integers(1, len(left)))]
        slots = data.draw(st.permutations(range(count)))
        told = [left[slot].pop(0) if slot in speaking else IDLE for slot in slots]
        for slot, completion in hear(seats, slots, [told]):
            assert not left.pop(slot)
            assert completion.key not in found
            found[completion.key] = completion
    assert found == expected
    assert seats.free == count


# Waiting


def waiting_for(**counts: int) -> Waiting:
    waiting = Waiting([SHORT, LONG])
    for at in range(counts.get("short", 0)):
        waiting.add(SHORT, request(at))
    for at in range(counts.get("long", 0)):
        waiting.add(LONG, request(100 + at))
    return waiting


def test_a_bucket_is_taken_when_it_is_full() -> None:
    waiting = waiting_for(short=3, long=1)
    assert waiting.take(8, flush=False) is None
    waiting.add(LONG, request(7))
    assert waiting.take(8, flush=False) == (LONG, [request(100), request(7)])
    assert waiting.take(8, flush=False) is None
    assert len(waiting) == 3


def test_the_fullest_goes_first_and_in_order() -> None:
    waiting = waiting_for(short=5, long=4)
    assert waiting.take(8, flush=False) == (LONG, [request(100), request(101)])
    assert waiting.take(8, flush=False) == (SHORT, [request(at) for at in range(4)])
    assert waiting.take(8, flush=False) == (LONG, [request(102), request(103)])
    assert waiting.take(8, flush=False) is None
    assert waiting.take(8, flush=True) == (SHORT, [request(4)])


def test_it_waits_for_slots() -> None:
    waiting = waiting_for(short=4)
    assert waiting.take(3, flush=False) is None
    assert waiting.take(3, flush=True) is None
    assert waiting.take(4, flush=False) == (SHORT, [request(at) for at in range(4)])


def test_a_flush_takes_the_rest() -> None:
    waiting = waiting_for(short=3, long=1)
    assert waiting.take(3, flush=True) == (SHORT, [request(0), request(1), request(2)])
    assert waiting.take(0, flush=True) is None
    assert waiting.take(1, flush=True) == (LONG, [request(100)])
    assert waiting.take(4, flush=True) is None
    assert len(waiting) == 0


BUCKETS = st.lists(st.integers(1, 5), min_size=1, max_size=6).map(
    lambda rows: [Bucket(8 * (at + 1), each) for at, each in enumerate(rows)]
)


@settings(deadline=None)
@given(BUCKETS, st.data())
def test_with_no_room_left_a_bucket_is_full(buckets: list[Bucket], data: st.DataObject) -> None:
    waiting = Waiting(buckets)
    number = 0
    while waiting.room:
        waiting.add(data.draw(st.sampled_from(buckets)), request(number))
        number += 1
    found = waiting.take(max(bucket.rows for bucket in buckets), flush=False)
    assert found is not None
    assert len(found[1]) == found[0].rows
    assert waiting.room == found[0].rows


@settings(deadline=None)
@given(BUCKETS, st.data())
def test_everyone_is_taken_once_and_in_order_of_their_bucket(buckets: list[Bucket], data: st.DataObject) -> None:
    waiting = Waiting(buckets)
    added: dict[Bucket, list[Request]] = {bucket: [] for bucket in buckets}
    taken: dict[Bucket, list[Request]] = {bucket: [] for bucket in buckets}
    for number, bucket in enumerate(data.draw(st.lists(st.sampled_from(buckets), max_size=30))):
        waiting.add(bucket, request(number))
        added[bucket].append(request(number))
        found = waiting.take(data.draw(st.integers(0, 6)), flush=False)
        if found:
            taken[found[0]] += found[1]
        assert len(waiting) == sum(map(len, added.values())) - sum(map(len, taken.values()))
    while found := waiting.take(5, flush=True):
        taken[found[0]] += found[1]
    assert taken == added
