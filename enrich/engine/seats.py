"""Who sits in which slot, what each has said so far, and who waits for a seat. All of it on the host."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from enrich.engine.grid_shapes import Bucket
from enrich.engine.protocol import Completion, Request
from enrich.engine.slots import BAD, IDLE

_FREE = 0


class Waiting:
    """Requests by the bucket that their length gives them; a bucket is prefilled when it is full."""

    def __init__(self, buckets: Sequence[Bucket]) -> None:
        self._queues: dict[Bucket, deque[Request]] = {bucket: deque() for bucket in buckets}
        # With so many waiting, at least one bucket is full.
        self._most = 2 * sum(bucket.rows for bucket in buckets)

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    @property
    def room(self) -> int:
        """How many more may wait here."""
        return self._most - len(self)

    def add(self, bucket: Bucket, request: Request) -> None:
        """Puts it into its queue."""
        self._queues[bucket].append(request)

    def take(self, free: int, *, flush: bool) -> tuple[Bucket, list[Request]] | None:
        """A bucket full of requests, when `free` slots can hold them; with `flush`, when none is full, any rest."""
        bucket, queue = max(self._queues.items(), key=lambda each: len(each[1]) / each[0].rows)
        count = min(bucket.rows, len(queue))
        if not count or count > free or (count < bucket.rows and not flush):
            return None
        return bucket, [queue.popleft() for _ in range(count)]


class Seats:
    """The slots of a grid as the host knows them: up to two windows behind the device."""

    def __init__(self, count: int, max_new_tokens: int, eos_ids: Sequence[int]) -> None:
        self._owners: list[Request | None] = [None] * count
        self._free = list(range(count))
        self._ids = np.zeros((count + 1, max_new_tokens), np.int64)
        self._counts = np.zeros(count + 1, np.int64)
        self._limits = np.full(count + 1, _FREE)
        self._eos_ids = np.array(eos_ids)

    @property
    def free(self) -> int:
        """Slots that are nobody's."""
        return len(self._free)

    @property
    def is_any_taken(self) -> bool:
        """Whether somebody sits."""
        return len(self._free) < len(self._owners)

    @property
    def taken(self) -> np.ndarray[Any, Any]:
        """The slots that are somebody's, ascending."""
        return np.nonzero(self._limits)[0]

    def seat(self, request: Request, limit: int) -> int:
        """Gives it a free slot, for `limit` tokens at most."""
        slot = self._free.pop()
        self._owners[slot], self._limits[slot], self._counts[slot] = request, limit, 0
        return slot

    def hear(self, slots: np.ndarray[Any, Any], told: np.ndarray[Any, Any]) -> Iterator[tuple[int, Completion]]:
        """Notes what `slots` were told, (steps, rows); yields those that have ended, and frees them."""
        for tokens in told:
            spoken = tokens != IDLE
            own, said = slots[spoken], tokens[spoken]
            self._ids[own, self._counts[own]] = said
            self._counts[own] += 1
            ended = (said == BAD) | np.isin(said, self._eos_ids) | (self._counts[own] == self._limits[own])
            for slot in own[ended].tolist():
                yield slot, self._leave(slot)

    def _leave(self, slot: int) -> Completion:
        request = self._owners[slot]
        assert request is not None  # noqa: S101 (told of a slot that is nobody's)
        ids = self._ids[slot, : self._counts[slot]].tolist()
        self._owners[slot], self._limits[slot] = None, _FREE
        self._free.append(slot)
        if ids[-1] == BAD:
            return Completion(request.key, (), "failed")
        if ids[-1] in self._eos_ids:
            return Completion(request.key, tuple(ids[:-1]), "eos")
        return Completion(request.key, tuple(ids), "length")
