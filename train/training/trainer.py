"""TRL's `SFTTrainer` with a step in which the card never waits for the host."""

from importlib.util import find_spec
from typing import Any

import torch
from trl import SFTTrainer

from train.training.lora import use_lean_products
from train.training.loss import summed_loss
from train.training.packed import Collator, use_packed_attention


class PackedTrainer(SFTTrainer):  # type: ignore[misc]
    """Learns LoRA weights from the rows of a `Collator`.

    Of a step only the forward pass is its own. TRL's works the loss out of every metric it has and reads them back
    from the card each time; order, accumulation, optimiser, schedule, evaluations and checkpoints are TRL's.
    """

    def __init__(self, *, data_collator: Collator, **options: Any) -> None:
        super().__init__(data_collator=data_collator, **options)
        self._longest = data_collator.sequence_tokens
        base = self.model.get_base_model()
        use_packed_attention(base)
        use_lean_products(base)
        self._compiled = data_collator.row_tokens is not None
        if self._compiled:
            for layer in base.model.layers:
                # One by one: they are all alike, so that one is compiled, in seconds, and serves all.
                layer.compile()

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        base = model.get_base_model()
        if self._compiled:
            # Rows differ in how many examples they have; kernels are not to be compiled for each number.
            torch._dynamo.mark_dynamic(inputs["ends"], 0)
        hidden = base.model(
            input_ids=inputs["input_ids"],
            position_ids=inputs["position_ids"],
            ends=inputs["ends"],
            longest=self._longest,
            use_cache=False,
        ).last_hidden_state[0]
        learnt = hidden.index_select(0, inputs["predicting"])
        loss = summed_loss(learnt, base.get_output_embeddings().weight, inputs["targets"])
        loss = loss / (len(learnt) if num_items_in_batch is None else num_items_in_batch)
        return (loss, {}) if return_outputs else loss


def can_compile(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether rows of one shape pay: through Triton, where attention can be compiled along with the rest."""
    return device.type == "cuda" and dtype == torch.bfloat16 and find_spec("triton") is not None
