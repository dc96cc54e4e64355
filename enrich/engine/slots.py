"""The slots of a grid on a device: many sequences in fixed places, all of them a token further at each step.

Knows where a sequence is and how long it may grow, and nothing of requests or of who comes next. Nothing here waits for
the device but `Told.wait`. Sequences are prefilled in buckets and decoded in grids of a few sizes; each of those is
one CUDA graph, or runs eagerly.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch

from enrich.engine.attention import attention_layers, give_slots, stored, take_slots
from enrich.engine.grid_shapes import Bucket, GridShapes
from enrich.engine.joined import Joints
from enrich.engine.model import Model
from enrich.engine.sampling import Sampling, choose

IDLE, BAD = -1, -2
"""Told in the place of a token: the slot has nothing to do; its logits are not finite, and it has ended."""

_MIN_GRID = 128
# Layers are compiled once a shape: each bucket, and each size of the grid.
_MAX_SHAPES = 64


@dataclass(frozen=True, slots=True)
class Placed:
    """A prompt for a slot: its ids after the common prefix, how many tokens may follow, and its noise."""

    slot: int
    ids: Sequence[int]
    limit: int
    noise: int


class Told:
    """Tokens on their way from the device: (steps, rows), of the rows' `slots`."""

    def __init__(
        self, slots: np.ndarray[Any, Any], tokens: torch.Tensor, started: Any, *, is_prefill: bool = False
    ) -> None:
        self.slots, self.is_prefill = slots, is_prefill
        self._started = started
        on_card = tokens.is_cuda
        self._host = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=on_card)
        self._host.copy_(tokens, non_blocking=on_card)
        self._ended = _now(on_card)

    def wait(self) -> np.ndarray[Any, Any]:
        """Waits for the device, and returns the tokens."""
        if isinstance(self._ended, torch.cuda.Event):
            self._ended.synchronize()
        return self._host.numpy()

    def seconds(self) -> float:
        """What the device spent on them; once waited for."""
        if isinstance(self._ended, torch.cuda.Event):
            return float(self._started.elapsed_time(self._ended)) / 1e3
        return float(self._ended - self._started)


def _now(on_card: bool) -> Any:
    if not on_card:
        return perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


@dataclass(slots=True)
class _Decode:
    """A grid of one size: which slots its rows are, the tokens of the last window, and a step of it."""

    slots: torch.Tensor
    tokens: torch.Tensor
    run: Callable[[], None]
    named: np.ndarray[Any, Any] | None = None


@dataclass(frozen=True, slots=True)
class _Prefill:
    """A bucket: slot, length, limit and noise of each row, then its ids; the first tokens; and the pass itself."""

    packed: torch.Tensor
    tokens: torch.Tensor
    run: Callable[[], None]


class Slots:
    """`shapes.slots` sequences, and a spare one for rows that are nobody's.

    To be used within `torch.no_grad()`, and released at the end. `sizes` are the grids that a decode may have, largest
    first; a row's numbers are the same in all of them.
    """

    def __init__(self, model: Model, shapes: GridShapes, prefix_ids: Sequence[int], sampling: Sampling) -> None:
        """Raises `NotServed` for a model that cannot run so, and whatever compiling, capturing and allocating raise."""
        self.shapes = shapes
        self._module, self._device, self._sampling = model.module, model.device, sampling
        self._prefix, self._spare = len(prefix_ids), shapes.slots
        self._eos = torch.tensor(model.eos_ids, device=model.device)
        self._lengths: torch.Tensor | None = None
        self._prefills: dict[Bucket, _Prefill] = {}
        self._decodes: dict[int, _Decode] = {}
        self._own_attention = self._module.config._attn_implementation
        self._joints = Joints()
        self._hook = self._module.get_output_embeddings().register_forward_pre_hook(self._keep_last)
        try:
            self._joints.join(self._module)
            give_slots(self._module, shapes.slots, shapes.positions)
            self._make_state(model.vocabulary)
            self._write_prefix(prefix_ids)
            if shapes.compiled:
                compile_layers(self._module)
            for size in (shapes.slots, *self._sizes_of_the_same_bits()):
                self._decodes[size] = self._make_decode(size)
            # Here, not when they are first needed: to compile takes seconds, in which a card would have nothing to do.
            self._prefills = {bucket: self._make_prefill(bucket) for bucket in shapes.buckets}
        except BaseException:
            self.release()
            raise

    @property
    def sizes(self) -> list[int]:
        """Rows of the grids that a decode may have."""
        return list(self._decodes)

    @property
    def prefix_tokens(self) -> int:
        """How many tokens all sequences have in common."""
        return self._prefix

    def release(self) -> None:
        """Gives the memory back, and the model its own attention."""
        self._hook.remove()
        self._prefills.clear()
        self._decodes.clear()
        release_layers(self._module)
        take_slots(self._module)
        self._module.config._attn_implementation = self._own_attention
        self._joints.undo()

    def prefill(self, bucket: Bucket, placed: Sequence[Placed]) -> Told:
        """Reads prompts into their slots; tells the first token of each."""
        prefill = self._prefills[bucket]
        started = _now(self._on_card)
        prefill.packed.copy_(self._pack(bucket, placed), non_blocking=self._on_card)
        prefill.run()
        slots = np.array([each.slot for each in placed])
        return Told(slots, prefill.tokens[:, : len(placed)], started, is_prefill=True)

    def decode(self, slots: np.ndarray[Any, Any]) -> Told:
        """Takes `slots` a window further: as many as one of `sizes`; those beyond the count of slots are the spare."""
        started = _now(self._on_card)
        decode = self._decodes[len(slots)]
        self._point(decode, slots)
        for _ in range(self.shapes.window):
            decode.run()
        return Told(slots, decode.tokens, started)

    def reset(self) -> None:
        """Leaves every slot with nothing to do and nothing in it but the common prefix."""
        for each in stored(self._module):
            each[:, :, self._prefix :].zero_()
        self._tokens.zero_()
        self._positions.fill_(self._prefix)
        self._left.zero_()

    def clear(self, slot: int) -> None:
        """Forgets what a slot holds: a number that is not finite would spoil every sequence that comes after it."""
        for each in stored(self._module):
            each[slot, :, self._prefix :].zero_()

    def logits_after(self, bucket: Bucket, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """For the self-test: reads own ids into the first slots; logits, (prompts, vocabulary) in float32."""
        placed = [Placed(slot, ids, 1, 0) for slot, ids in enumerate(prompts)]
        return self._read(self._pack(bucket, placed).to(self._device))[1][: len(prompts)].float()

    def logits_of(self, tokens: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        """For the self-test: a token more in each of the first slots, in the whole grid; logits as above."""
        self._tokens[: len(tokens)] = torch.tensor(tokens, device=self._device)
        self._positions[: len(tokens)] = torch.tensor(positions, device=self._device)
        slots = torch.arange(self.shapes.slots, device=self._device)
        return self._step(slots)[: len(tokens)].float()

    def first_of(self, logits: torch.Tensor) -> list[int]:
        """For the self-test: the tokens that begin completions whose noise is 0."""
        zeros = torch.zeros(len(logits), dtype=torch.long, device=self._device)
        said = torch.zeros_like(logits, dtype=torch.bool) if self._sampling.penalises else None
        tokens: list[int] = choose(logits, self._sampling, said, zeros, zeros)[0].tolist()
        return tokens

    @property
    def _on_card(self) -> bool:
        return self._device.type == "cuda"

    def _point(self, decode: _Decode, slots: np.ndarray[Any, Any]) -> None:
        # They seldom change. From memory that is not pinned a copy would wait for the device.
        if decode.named is None or not np.array_equal(decode.named, slots):
            named = torch.empty(len(slots), dtype=torch.long, pin_memory=self._on_card)
            named.numpy()[:] = slots
            decode.slots.copy_(named, non_blocking=self._on_card)
            decode.named = slots

    def _make_state(self, vocabulary: int) -> None:
        def column(value: int) -> torch.Tensor:
            return torch.full((self.shapes.slots + 1,), value, device=self._device)

        # Of each slot: the token to read next and its place, how many may follow, and what its noise comes from.
        self._tokens, self._positions, self._left = column(0), column(self._prefix), column(0)
        self._noise, self._steps = column(0), column(0)
        self._said = None
        if self._sampling.penalises:
            self._said = torch.zeros(self.shapes.slots + 1, vocabulary, dtype=torch.bool, device=self._device)
        self._true = torch.ones((), dtype=torch.bool, device=self._device)

    def _write_prefix(self, ids: Sequence[int]) -> None:
        if not ids:
            return
        spare = torch.tensor([self._spare], device=self._device)
        self._forward(torch.tensor([ids], device=self._device), self._places(0, len(ids))[None], slots=spare, prefix=0)
        for each in stored(self._module):
            each[:-1, :, : self._prefix] = each[-1:, :, : self._prefix]

    def _make_decode(self, size: int) -> _Decode:
        slots = torch.full((size,), self._spare, device=self._device)
        tokens = torch.full((self.shapes.window, size), IDLE, device=self._device)
        return _Decode(slots, tokens, self._ready(partial(self._decode, slots, tokens)))

    def _make_prefill(self, bucket: Bucket) -> _Prefill:
        packed = self._pack(bucket, []).to(self._device)
        tokens = torch.full((1, bucket.rows), IDLE, device=self._device)
        # All rows are the spare's while it warms up: no sequence notices.
        return _Prefill(packed, tokens, self._ready(partial(self._prefill, packed, tokens)))

    def _pack(self, bucket: Bucket, placed: Sequence[Placed]) -> torch.Tensor:
        """What a prefill reads, on the host: the rows, and for those that are nobody's the spare slot."""
        packed = torch.zeros(bucket.rows, 4 + bucket.length, dtype=torch.long, pin_memory=self._on_card)
        rows = packed.numpy()
        rows[:, 0], rows[:, 1] = self._spare, 1
        for row, each in zip(rows, placed, strict=False):
            row[:4] = each.slot, len(each.ids), each.limit, each.noise
            row[4 : 4 + len(each.ids)] = each.ids
        return packed

    def _ready(self, body: Callable[[], None]) -> Callable[[], None]:
        """The body as one launch, where graphs are used."""
        if not self.shapes.graphs:
            return body
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(2):
                body()
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            body()
        return graph.replay

    def _decode(self, slots: torch.Tensor, tokens: torch.Tensor) -> None:
        logits = self._step(slots)
        told = self._advance(slots, logits, self._positions[slots] + 1, self._left[slots])
        tokens.copy_(torch.cat([tokens[1:], told[None]]))

    def _step(self, slots: torch.Tensor) -> torch.Tensor:
        positions = self._positions[slots]
        return self._forward(
            self._tokens[slots][:, None], positions[:, None], slots=slots, prefix=self._prefix, slot_positions=positions
        )

    def _prefill(self, packed: torch.Tensor, tokens: torch.Tensor) -> None:
        slots, logits = self._read(packed)
        lengths, left, noise = packed[:, 1:4].unbind(1)
        self._noise.index_copy_(0, slots, noise)
        self._steps.index_fill_(0, slots, 0)
        if self._said is not None:
            self._said.index_fill_(0, slots, False)
        tokens.copy_(self._advance(slots, logits, lengths + self._prefix, left)[None])

    def _read(self, packed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The slots of the rows, and the logits after the last token of each."""
        slots = packed[:, 0].contiguous()
        ids = packed[:, 4:]
        places = self._places(self._prefix, ids.shape[1])[None].expand(len(ids), -1)
        self._lengths = packed[:, 1]
        try:
            return slots, self._forward(ids, places, slots=slots, prefix=self._prefix)
        finally:
            self._lengths = None

    def _keep_last(self, _: object, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor] | None:
        """Before the head, which is wide: of every row of a prefill only the last token goes on."""
        if self._lengths is None:
            return None
        rows = torch.arange(len(self._lengths), device=self._device)
        return (inputs[0][rows, self._lengths - 1][:, None],)

    def _forward(self, ids: torch.Tensor, places: torch.Tensor, *, prefix: int, **options: Any) -> torch.Tensor:
        output = self._module(input_ids=ids, position_ids=places, use_cache=False, slot_prefix=prefix, **options)
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _advance(
        self, slots: torch.Tensor, logits: torch.Tensor, places: torch.Tensor, left: torch.Tensor
    ) -> torch.Tensor:
        """Chooses a token for each row and notes what follows from it; what is told of the rows."""
        said = None if self._said is None else self._said[slots]
        steps = self._steps[slots]
        chosen, finite = choose(logits, self._sampling, said, self._noise[slots], steps)
        ends = (chosen[:, None] == self._eos).any(dim=1)
        left_after = torch.where(finite & ~ends, (left - 1).clamp(min=0), 0)
        self._tokens.index_copy_(0, slots, chosen)
        self._left.index_copy_(0, slots, left_after)
        self._steps.index_copy_(0, slots, steps + 1)
        # A slot with nothing to do stays where it costs least, and where the next prompt will write.
        self._positions.index_copy_(0, slots, torch.where(left_after > 0, places, self._prefix))
        if self._said is not None:
            self._said.index_put_((slots, chosen), self._true)
        return torch.where(left > 0, torch.where(finite, chosen, BAD), IDLE)

    def _places(self, start: int, count: int) -> torch.Tensor:
        return torch.arange(start, start + count, device=self._device)

    def _sizes_of_the_same_bits(self) -> list[int]:
        """The smaller grids that compute what the whole one does: another product may add up in another order.

        Tried on random sequences, tokens and places; nothing is in the slots yet.
        """
        sizes = self._smaller_sizes()
        if not sizes:
            return []
        dice = torch.Generator(device=self._device).manual_seed(0)
        for each in stored(self._module):
            each[:, :, self._prefix :].normal_(generator=dice)
        self._tokens.random_(0, self._module.config.vocab_size, generator=dice)
        self._positions.random_(self._prefix, self.shapes.positions, generator=dice)
        slots = self._places(0, self.shapes.slots)
        # A step writes where the next one writes before it reads, so that each finds the same.
        whole = self._step(slots)
        same = [size for size in sizes if torch.equal(whole[:size], self._step(slots[:size]))]
        self.reset()
        return same

    def _smaller_sizes(self) -> list[int]:
        """Half the slots, a quarter and so on: for the end of a run, when few sequences are left."""
        sizes, size = [], self.shapes.slots // 2
        while self.shapes.graphs and size >= _MIN_GRID:
            sizes.append(size)
            size //= 2
        return sizes


def compile_layers(module: Any) -> None:
    """Compiles every layer that attends: torch fuses what lies between its products."""
    import torch._dynamo as dynamo

    dynamo.config.recompile_limit = _MAX_SHAPES
    dynamo.config.allow_unspec_int_on_nn_module = True
    for layer in _layers(module):
        layer.compile(dynamic=False)


def release_layers(module: Any) -> None:
    """Makes the layers plain again."""
    for layer in _layers(module):
        layer._compiled_call_impl = None


def _layers(module: Any) -> list[Any]:
    attending = set(attention_layers(module))
    lists = (each for each in module.modules() if isinstance(each, torch.nn.ModuleList))
    return [layer for each in lists for layer in each if attending & set(layer.modules())]
