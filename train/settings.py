"""Presets: everything that decides how an adapter is trained, beside the data and the template.

A preset is a starting point that is known to run on its machine; rank, epochs and learning rate may be
overridden. Knows no torch: which preset fits the machine is asked of `finetune`.
"""

from dataclasses import dataclass, replace
from typing import Literal

from enrich.errors import UsageError

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
"""Every linear layer of a Llama block: LoRA on all of them learns as well as full fine-tuning (Dettmers et al.
2023, QLoRA, section 4)."""


@dataclass(frozen=True, slots=True)
class Preset:
    """How to train on one kind of machine.

    `half` is bfloat16, or float16 on cards before Ampere. An optimiser step learns from `sequences_per_step`
    packed sequences of `sequence_tokens` each, `batch_sequences` of them at a time, in one row.
    """

    name: str
    base: str
    quantize: Literal["none", "4bit"]
    dtype: Literal["float32", "half"]
    rank: int
    learning_rate: float
    epochs: float
    sequence_tokens: int
    sequences_per_step: int
    batch_sequences: int
    gradient_checkpointing: bool
    needs_cuda: bool

    @property
    def row_tokens(self) -> int:
        """What the model sees at a time."""
        return self.batch_sequences * self.sequence_tokens

    @property
    def alpha(self) -> int:
        """LoRA's scaling is alpha over rank: a constant 2, so that another rank needs no other learning rate."""
        return 2 * self.rank

    def overridden(self, *, rank: int | None, epochs: float | None, learning_rate: float | None) -> "Preset":
        """The preset with what the operator chose. Raises `UsageError` for what cannot be trained with."""
        chosen = replace(
            self,
            rank=self.rank if rank is None else rank,
            epochs=self.epochs if epochs is None else epochs,
            learning_rate=self.learning_rate if learning_rate is None else learning_rate,
        )
        if not 1 <= chosen.rank <= 256:
            raise UsageError(f"rank {rank}: from 1 to 256")
        if not (0 < chosen.epochs <= 1000 and 0 < chosen.learning_rate < 1):
            raise UsageError(f"epochs {epochs}, learning rate {learning_rate}: above 0, and the rate below 1")
        return chosen


# They differ in what the machine can hold and how long one may wait. The recipe is one: LoRA on every linear
# layer, AdamW, cosine.
PRESETS = {
    preset.name: preset
    for preset in (
        # 16 sequences a step, all at once: one row of 8,192 tokens keeps an H100 busy. Over four bits for the cards
        # that hold no more, which compute activations twice instead of keeping them (3 GB at most instead of 14).
        Preset("tinyllama-qlora", "tinyllama", "4bit", "half", 16, 2e-4, 3, 512, 16, 16, True, True),
        Preset("tinyllama-lora", "tinyllama", "none", "half", 16, 2e-4, 3, 512, 16, 16, False, True),
        # A CPU takes what it learns from in small steps.
        Preset("smollm2-cpu", "smollm2-135m", "none", "float32", 16, 2e-3, 1.5, 256, 4, 4, False, False),
        Preset("smollm2-gpu", "smollm2-135m", "none", "float32", 16, 2.5e-3, 3, 512, 4, 4, False, True),
    )
}
AUTO = "auto"

MIN_FREE_BYTES = 16 << 30
"""Under this much free memory on the card, `auto` takes the quantised preset."""


def choose_preset(name: str, free_cuda_bytes: int | None) -> Preset:
    """The preset of that name; `auto` goes by the free memory of the card, None when there is no card."""
    if name == AUTO:
        name = "smollm2-cpu" if free_cuda_bytes is None else _for_card(free_cuda_bytes)
    if name not in PRESETS:
        raise UsageError(f"{name}: no such preset; there are {AUTO}, {', '.join(PRESETS)}")
    return PRESETS[name]


def _for_card(free_bytes: int) -> str:
    return "tinyllama-lora" if free_bytes >= MIN_FREE_BYTES else "tinyllama-qlora"
