"""The engine for a model on a machine: the slot grid in the best form that computes rightly there, else the padded one.

Compiled layers and CUDA graphs → graphs → an eager grid → padded `generate`. Each form is tried on a few sequences and
held against the plain model before it writes a text; what fails is said, and the next one tried.
"""

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from enrich.engine.attention import NotServed, key_shapes
from enrich.engine.grid import GridEngine
from enrich.engine.grid_shapes import Bucket, GridShapes, plan_shapes
from enrich.engine.model import Model, first_line, is_out_of_memory, refuse_too_long
from enrich.engine.padded import DEFAULT_ROWS, PaddedEngine, Shapes, ladder
from enrich.engine.protocol import Generator
from enrich.engine.sampling import Sampling
from enrich.engine.slots import Placed, Slots
from enrich.errors import ModelUnavailable
from enrich.settings import Settings

_LOG = logging.getLogger("enrich")

_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest relative L2 distance of the logits from the plain model's. Measured in bfloat16: two right ways lay 2e-2
apart (TinyLlama's shape, random weights), a decode in the wrong place 1.3e-1 and more (the embedded model)."""
_PROBES = 4
_FURTHER = 2


@dataclass(frozen=True)
class Stored:
    """Where shapes are kept from one run to the next, by the name of an engine: None while there are none."""

    get: Callable[[str], str | None]
    put: Callable[[str, str], None]


@dataclass(frozen=True)
class Wish:
    """What an engine has to do: prompts of at most `max_prompt_tokens`, all of which begin with `prefix_ids`, and
    completions of at most `max_new_tokens`. `slots` and `batch_rows` are None where the machine decides."""

    prefix_ids: tuple[int, ...]
    max_prompt_tokens: int
    max_new_tokens: int
    sampling: Sampling
    slots: int | None = None
    batch_rows: int | None = None

    @classmethod
    def of(cls, settings: Settings, prefix_ids: tuple[int, ...], *, again: bool = False) -> "Wish":
        """What the settings say; with `again`, for further attempts."""
        text, machine = settings.text, settings.machine
        sampling = Sampling.of(text).again() if again else Sampling.of(text)
        return cls(prefix_ids, text.max_prompt_tokens, text.max_new_tokens, sampling, machine.slots, machine.batch_rows)


def open_engine(model: Model, wish: Wish, stored: Stored, should_stop: Callable[[], bool], *, kind: str) -> Generator:
    """`kind` is auto, grid or padded; grid raises `ModelUnavailable` where auto would go on with the padded engine.

    Raises `SettingsError` when prompt and completion together exceed what the model was built for.
    """
    refuse_too_long(model, wish.max_prompt_tokens, wish.max_new_tokens)
    if kind != "padded":
        grid = _Opening(model, wish, stored).grid(should_stop)
        if grid:
            return grid
        if kind == "grid":
            raise ModelUnavailable("engine grid: does not serve this model here, see above; take engine auto or padded")
    return _padded(model, wish, stored, should_stop)


def _padded(model: Model, wish: Wish, stored: Stored, should_stop: Callable[[], bool]) -> PaddedEngine:
    rows = wish.batch_rows or DEFAULT_ROWS.get(model.device.type, DEFAULT_ROWS["cpu"])
    name = f"padded {rows}"
    found = stored.get(name)
    shapes = Shapes.from_json(found) if found else ladder(wish.max_prompt_tokens, rows)
    # Stored before use: a resume must pad as the run that it continues, even after a step down.
    stored.put(name, shapes.to_json())
    _LOG.info("engine padded: batches of %d rows", shapes.rows)
    return PaddedEngine(
        model,
        shapes=shapes,
        max_new_tokens=wish.max_new_tokens,
        sampling=wish.sampling,
        should_stop=should_stop,
        on_step_down=lambda smaller: stored.put(name, smaller.to_json()),
    )


@dataclass(frozen=True)
class _Opening:
    model: Model
    wish: Wish
    stored: Stored

    def grid(self, should_stop: Callable[[], bool]) -> GridEngine | None:
        """None, and a line in the log, where no form of the grid serves."""
        try:
            shapes = self._shapes()
            slots = self._open(shapes)
        except NotServed as reason:
            _LOG.warning("engine grid: not for this model (%s)", reason)
            slots = None
        if slots is None:
            return None
        return GridEngine(
            self.model,
            slots,
            prefix_ids=self.wish.prefix_ids,
            max_new_tokens=self.wish.max_new_tokens,
            sampling=self.wish.sampling,
            should_stop=should_stop,
            fewer=self._fewer,
        )

    @property
    def _name(self) -> str:
        return f"grid {self.wish.slots or 'auto'}"

    def _shapes(self) -> GridShapes | None:
        found = self.stored.get(self._name)
        if found:
            return GridShapes.from_json(found)
        if getattr(self.model.module, "is_quantized", False) or hasattr(self.model.module, "peft_config"):
            _LOG.info("engine grid: not for packed weights")
            return None
        element = self.model.dtype.itemsize
        return plan_shapes(
            self.model,
            prefix_tokens=len(self.wish.prefix_ids),
            max_prompt_tokens=self.wish.max_prompt_tokens,
            max_new_tokens=self.wish.max_new_tokens,
            bytes_a_token=sum(2 * heads * dim * element for heads, dim in key_shapes(self.model.module).values()),
            slots=self.wish.slots,
        )

    def _open(self, shapes: GridShapes | None) -> Slots | None:
        """Slots in the first form, from `shapes` downwards, that fits and computes rightly."""
        while shapes:
            self.stored.put(self._name, shapes.to_json())
            slots, fault = self._try(shapes)
            if slots:
                _LOG.info("engine grid: %d slots of %d tokens, %s", shapes.slots, shapes.positions, _form(shapes))
                return slots
            _free_memory(self.model)
            shapes = self._next(shapes, fault)
        return None

    def _try(self, shapes: GridShapes) -> tuple[Slots | None, str]:
        """Slots, or what is wrong with them: nothing but that they do not fit, when that is empty."""
        slots: Slots | None = None
        try:
            with torch.no_grad():
                probe = _Probe.of(self.model, shapes, self.wish.prefix_ids)
                slots = Slots(self.model, shapes, self.wish.prefix_ids, self.wish.sampling)
                fault = probe.fault(slots)
        except Exception as error:
            if slots:
                slots.release()
            if isinstance(error, NotServed):
                raise
            return None, "" if is_out_of_memory(error) else first_line(error)
        if fault:
            slots.release()
            return None, fault
        return slots, ""

    def _next(self, shapes: GridShapes, fault: str) -> GridShapes | None:
        if not fault:
            return self._halved(shapes)
        lower = _lower(shapes)
        _LOG.warning(
            "engine grid, %s: %s; going on %s",
            _form(shapes),
            fault,
            _form(lower) if lower else "with the padded engine",
        )
        return lower

    def _halved(self, shapes: GridShapes) -> GridShapes:
        if shapes.slots == 1:
            raise ModelUnavailable(
                f"not enough memory for one row of {shapes.positions} tokens; "
                f"lower max_prompt_tokens or max_new_tokens, or quantize"
            )
        _LOG.warning("out of memory: going on with %d slots", shapes.slots // 2)
        return shapes.halved()

    def _fewer(self, slots: Slots) -> Slots:
        slots.release()
        _free_memory(self.model)
        fewer = self._open(self._halved(slots.shapes))
        if fewer is None:
            raise ModelUnavailable("engine grid: fails in fewer slots, see above; take engine padded")
        return fewer


def _form(shapes: GridShapes) -> str:
    if shapes.compiled:
        return "compiled, in CUDA graphs"
    return "in CUDA graphs" if shapes.graphs else "eager"


def _lower(shapes: GridShapes) -> GridShapes | None:
    if shapes.compiled:
        return replace(shapes, compiled=False)
    return replace(shapes, graphs=False) if shapes.graphs else None


def _free_memory(model: Model) -> None:
    gc.collect()
    if model.device.type == "cuda":
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class _Probe:
    """Prompts of several lengths for the smallest and the largest bucket, the tokens that follow them, and the plain
    model's logits for each bucket, (prompts, 1 + further, vocabulary)."""

    prompts: dict[Bucket, list[list[int]]]
    further: list[int]
    expected: dict[Bucket, torch.Tensor]
    tolerance: float

    @classmethod
    def of(cls, model: Model, shapes: GridShapes, prefix_ids: tuple[int, ...]) -> "_Probe":
        """Made-up ids after the common prefix."""
        dice = torch.Generator().manual_seed(0)

        def made(count: int) -> list[int]:
            ids: list[int] = torch.randint(model.vocabulary, (count,), generator=dice).tolist()
            return ids

        further = made(min(_FURTHER, shapes.positions - len(prefix_ids) - shapes.buckets[-1].length))
        prompts = {bucket: [made(length) for length in _lengths(bucket)] for bucket in _ends(shapes.buckets)}
        expected = {
            bucket: torch.stack([_plain_logits(model, [*prefix_ids, *ids], further) for ids in some])
            for bucket, some in prompts.items()
        }
        return cls(prompts, further, expected, _TOLERANCE[model.dtype])

    def fault(self, slots: Slots) -> str:
        """What is wrong with the slots; empty when nothing is."""
        faults = (self._fault(slots, bucket) for bucket in _ends(slots.shapes.buckets))
        return next(filter(None, faults), "")

    def _fault(self, slots: Slots, bucket: Bucket) -> str:
        prompts, expected = self.prompts[bucket], self.expected[bucket]
        found = [slots.logits_after(bucket, prompts)]
        for step, token in enumerate(self.further):
            places = [slots.prefix_tokens + len(prompt) + step for prompt in prompts]
            found.append(slots.logits_of([token] * len(places), places))
        distance = ((torch.stack(found, 1) - expected).norm() / expected.norm()).item()
        # Not a number is no distance either.
        if not distance <= self.tolerance:
            return f"logits are {distance:.1e} from the plain model's, {self.tolerance:.0e} is allowed"
        placed = [Placed(slot, prompt, 1, 0) for slot, prompt in enumerate(prompts)]
        told = slots.prefill(bucket, placed).wait()[0].tolist()
        return "" if told == slots.first_of(found[0]) else "a graph does not choose what its logits say"


def _ends(buckets: tuple[Bucket, ...]) -> tuple[Bucket, ...]:
    return (buckets[0], buckets[-1]) if len(buckets) > 1 else buckets


def _lengths(bucket: Bucket) -> list[int]:
    count = min(_PROBES, bucket.rows)
    return [max(1, bucket.length * (row + 1) // count) for row in range(count)]


def _plain_logits(model: Model, ids: list[int], further: list[int]) -> torch.Tensor:
    """After the last of `ids` and after each of `further`, (1 + further, vocabulary) in float32."""
    with torch.inference_mode():
        row = torch.tensor([[*ids, *further]], device=model.device)
        logits: torch.Tensor = model.module(input_ids=row, use_cache=False).logits[0, -1 - len(further) :]
    return logits.float()
