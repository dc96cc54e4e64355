"""The slot grid: a sequence that ends is replaced at once, and every step has the same shape.

Half-precision numbers depend on the shape of a batch, not on the neighbours in it. A prompt's length alone decides the
bucket that it is prefilled in, and every sequence is decoded in a grid of the same size, or of a smaller one that was
shown to give the same bits; so a row's tokens never depend on its neighbours, on the order of the rows, or on an
interruption. Knows token ids only.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import numpy as np
import torch

from enrich.engine.beside import Inbox, beside
from enrich.engine.grid_shapes import Bucket
from enrich.engine.model import Model, is_out_of_memory
from enrich.engine.protocol import Completion, Figures, Request
from enrich.engine.sampling import Sampling
from enrich.engine.seats import Seats, Waiting
from enrich.engine.slots import Placed, Slots, Told
from enrich.errors import Stopped

_LOG = logging.getLogger("enrich")


class _Full(Exception):
    """The device has no more memory to give."""


class GridEngine:
    """A `Generator` over the slots of a model.

    `should_stop` is asked at every window and ends the run with `Stopped`, which abandons the sequences at hand. The
    device is fed from a thread of its own, while the caller writes prompts and reads texts. A further attempt at a
    request has noise of its own; where nothing is drawn by lot, it gives the same completion.
    """

    def __init__(
        self,
        model: Model,
        slots: Slots,
        *,
        prefix_ids: tuple[int, ...],
        max_new_tokens: int,
        sampling: Sampling,
        should_stop: Callable[[], bool],
        fewer: Callable[[Slots], Slots],
    ) -> None:
        """`fewer` turns slots that do not fit into memory into fewer that do, and raises when there are none."""
        self._slots, self._fewer = slots, fewer
        self._prefix = prefix_ids
        self._model = model
        self._max_new_tokens, self._sampling, self._should_stop = max_new_tokens, sampling, should_stop
        self._started = 0.0
        self.figures = Figures()

    @property
    def batch_rows(self) -> int:
        """A quarter of the slots: a fraction of a second's work on a card, few enough commits for the disk."""
        return max(1, self._slots.shapes.slots // 4)

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Yields one completion a request, as sequences end. Raises `Stopped`, and what the device raises.

        When memory runs out it goes on in fewer slots: whoever has not ended begins anew.
        """
        self._started, self.figures = 0.0, Figures()
        source = iter(requests)
        at_hand: dict[bytes, Request] = {}

        def pulled(again: list[Request]) -> Iterator[Request]:
            for request in chain(again, source):
                at_hand[request.key] = request
                yield request

        while True:
            try:
                for completion in beside(self._work, pulled(list(at_hand.values())), self._slots.shapes.slots):
                    del at_hand[completion.key]
                    yield completion
                    self.figures.seconds = time.monotonic() - self._started
                return
            except _Full:
                pass
            # In this thread: shapes are stored in a database that serves no other.
            self._slots = self._fewer(self._slots)

    def close(self) -> None:
        """Gives the slots back; the engine is of no use after it."""
        self._slots.release()

    @property
    def _work(self) -> Callable[[Inbox[Request]], Iterator[list[Completion]]]:
        num_threads = torch.get_num_threads()

        def work(inbox: Inbox[Request]) -> Iterator[list[Completion]]:
            # What torch keeps for each thread.
            torch.set_num_threads(num_threads)
            try:
                with torch.no_grad():
                    yield from self._serve(inbox)
                return
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            # Outside the handler, and with it the traceback, which keeps tensors alive.
            raise _Full

        return work

    def _serve(self, inbox: Inbox[Request]) -> Iterator[list[Completion]]:
        """The loop. While a window is under way, what ended in the one before is told and replaced."""
        seats = Seats(self._slots.shapes.slots, self._max_new_tokens, self._model.eos_ids)
        waiting = Waiting(self._slots.shapes.buckets)
        self._slots.reset()
        under_way: list[Told] = []
        while not inbox.is_over or waiting or under_way or seats.is_any_taken:
            if self._should_stop():
                raise Stopped("stopped while generating; finished texts are kept, run again to go on")
            idle = not under_way and not seats.is_any_taken
            yield self._sort(inbox.take(waiting.room, wait=idle), waiting)
            told = self._refill(seats, waiting, flush=inbox.is_over)
            told += self._decode(seats)
            for each in under_way:
                yield self._hear(each, seats)
            under_way = told

    def _sort(self, requests: list[Request], waiting: Waiting) -> list[Completion]:
        """Lets requests wait by their lengths; those that cannot be served have failed."""
        failed = []
        for request in requests:
            bucket = self._bucket(request)
            if bucket:
                waiting.add(bucket, request)
            else:
                failed.append(Completion(request.key, (), "failed"))
        return failed

    def _bucket(self, request: Request) -> Bucket | None:
        ids, common = request.prompt_ids, len(self._prefix)
        if len(ids) <= common or ids[:common] != self._prefix:
            return None
        if not self._model.knows(ids):
            return None
        return self._slots.shapes.bucket(len(ids) - common)

    def _refill(self, seats: Seats, waiting: Waiting, *, flush: bool) -> list[Told]:
        """Prefills waiting requests into free slots, for as long as a bucket is full and finds room."""
        told = []
        while found := waiting.take(seats.free, flush=flush):
            self._started = self._started or time.monotonic()
            bucket, requests = found
            placed = [self._placed(request, seats) for request in requests]
            told.append(self._slots.prefill(bucket, placed))
            self.figures.prompt_tokens += sum(len(each.ids) for each in placed)
            self.figures.padded_tokens += bucket.rows * bucket.length
        return told

    def _placed(self, request: Request, seats: Seats) -> Placed:
        limit = self._limit(request)
        noise = self._sampling.noise_of(request.key, request.attempt) if self._sampling.draws else 0
        return Placed(seats.seat(request, limit), request.prompt_ids[len(self._prefix) :], limit, noise)

    def _limit(self, _: Request) -> int:
        return self._max_new_tokens

    def _decode(self, seats: Seats) -> list[Told]:
        """A window of the smallest grid that holds every slot that is somebody's."""
        taken = seats.taken
        if not len(taken):
            return []
        size = min(size for size in self._slots.sizes if size >= len(taken))
        rows = np.arange(size)
        if size < self._slots.shapes.slots:
            rows = np.full(size, self._slots.shapes.slots)
            rows[: len(taken)] = taken
        self.figures.slot_steps += size * self._slots.shapes.window
        return [self._slots.decode(rows)]

    def _hear(self, told: Told, seats: Seats) -> list[Completion]:
        completions = []
        for slot, completion in seats.hear(told.slots, told.wait()):
            if completion.ended == "failed":
                _LOG.warning("row %s failed: its logits are not finite", completion.key.hex())
                self._slots.clear(slot)
            self.figures.tokens += len(completion.ids)
            completions.append(completion)
        self._clock(told)
        return completions

    def _clock(self, told: Told) -> None:
        if told.is_prefill:
            self.figures.prefill_seconds += told.seconds()
        else:
            self.figures.decode_seconds += told.seconds()
