"""The shapes of a slot grid: everything that a row's numbers may depend on beside the row.

They follow from the model, the text settings and the machine, never from what is left to do, and are stored before they
are used: a resumed run computes in the shapes of the run that it continues.
"""

import json
from dataclasses import asdict, dataclass, replace
from itertools import pairwise

from enrich.engine.model import Model
from enrich.errors import SettingsError

_LENGTHS = (8, 16, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
# The most that was measured to pay: on an H100 2,048 slots write 5 % more than 1,024, on two cores 64 less than 32.
_MAX_SLOTS = {"cuda": 2048, "cpu": 32}
_PREFILL_ROWS = {"cuda": 64, "cpu": 8}
_WINDOW = {"cuda": 2, "cpu": 1}
# A prefill of more tokens gains nothing and keeps finished slots waiting.
_PREFILL_TOKENS = {"cuda": 4096, "cpu": 512}
# Of the memory that the weights leave: activations, and graphs, of which each keeps its own.
_SHARE_FOR_SLOTS = 0.6
_CPU_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Bucket:
    """A prefill: `rows` prompts at once, whose own tokens (without the common prefix) are padded to `length`."""

    length: int
    rows: int


@dataclass(frozen=True, slots=True)
class GridShapes:
    """`slots` sequences of `positions` tokens each, the `buckets` to fill them by (lengths ascending), the steps of a
    `window` between two looks at what has finished, and whether layers are `compiled` and steps run as `graphs`."""

    slots: int
    positions: int
    buckets: tuple[Bucket, ...]
    window: int
    compiled: bool = False
    graphs: bool = False

    def __post_init__(self) -> None:
        if self.slots < 1 or self.window < 1 or not self.buckets:
            raise SettingsError(f"shapes {self}: slots, window and buckets start at 1; remove the stored shapes")
        if any(a.length >= b.length for a, b in pairwise(self.buckets)) or any(
            not (0 < each.rows <= self.slots and 0 < each.length < self.positions) for each in self.buckets
        ):
            raise SettingsError(f"shapes {self}: the buckets do not fit the grid; remove the stored shapes")

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads back."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "GridShapes":
        """Raises `SettingsError` when `text` is not what `to_json` wrote."""
        try:
            fields = json.loads(text)
            buckets = tuple(Bucket(**each) for each in fields.pop("buckets"))
            return cls(**fields, buckets=buckets)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise SettingsError(f"shapes {text!r}: cannot be read; remove the stored shapes") from None

    def bucket(self, length: int) -> Bucket | None:
        """The tightest bucket for a prompt of `length` own tokens, or None when there is none."""
        return next((each for each in self.buckets if each.length >= length), None)

    def halved(self) -> "GridShapes":
        """The shapes of half as many slots. Raises `ValueError` at one slot."""
        slots = self.slots // 2
        if not slots:
            raise ValueError("one slot cannot be halved")
        buckets = tuple(Bucket(each.length, min(each.rows, slots)) for each in self.buckets)
        return replace(self, slots=slots, buckets=buckets)


def plan_shapes(
    model: Model,
    *,
    prefix_tokens: int,
    max_prompt_tokens: int,
    max_new_tokens: int,
    bytes_a_token: int,
    slots: int | None = None,
) -> GridShapes:
    """The shapes for a model on its device; `slots` overrides how many it has room for.

    `bytes_a_token` is what a position of a slot takes in all layers.
    """
    on_card = model.device.type == "cuda"
    kind = "cuda" if on_card else "cpu"
    positions = max_prompt_tokens + max_new_tokens
    room = _bytes_for_slots(model) // (bytes_a_token * positions)
    count = slots or max(1, min(_MAX_SLOTS[kind], _round_down(room)))
    longest = max_prompt_tokens - prefix_tokens
    lengths = (*(length for length in _LENGTHS if length < longest), longest)
    buckets = tuple(
        Bucket(each, min(count, _PREFILL_ROWS[kind], _rows(each, _PREFILL_TOKENS[kind]))) for each in lengths
    )
    return GridShapes(count, positions, buckets, _WINDOW[kind], compiled=on_card, graphs=on_card)


def _bytes_for_slots(model: Model) -> int:
    if model.device.type != "cuda":
        return _CPU_BYTES
    import torch

    # Of the whole card, not of what is free on it at the moment: the shapes must be the same tomorrow.
    whole = torch.cuda.get_device_properties(model.device).total_memory
    weights = sum(each.nbytes for each in model.module.parameters())
    return int((whole - weights) * _SHARE_FOR_SLOTS)


def _round_down(count: int) -> int:
    """To a power of two: products of such a height leave no part of a tile empty."""
    return 1 << (count.bit_length() - 1) if count > 0 else 0


def _rows(length: int, tokens: int) -> int:
    return max(1, _round_down(tokens // length))
