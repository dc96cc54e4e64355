"""Attention over slots, for the unmodified models of transformers: the function that their interface calls.

Each attention module keeps the keys and values of all slots, (slots + 1, heads, positions, dim); the last slot is a
spare, for rows that are nobody's. The common prefix of all prompts lies in the first positions of every slot. Knows
nothing of texts, requests or schedules. `plain_attention.py` computes it, and on CUDA `kernels.py`.
"""

from typing import Any

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from enrich.engine import plain_attention
from enrich.engine.model import first_line, is_out_of_memory

try:
    from enrich.engine import kernels
except ImportError:  # Without Triton: on CPUs, and on some systems.
    kernels = None  # type: ignore[assignment]

NAME = "slots"
"""Under which transformers knows `attend`."""


class NotServed(Exception):
    """A model does something in its attention that is not done here."""


def has_kernels(device: torch.device) -> bool:
    """Whether attention runs in kernels of our own there."""
    return device.type == "cuda" and kernels is not None


def attend(
    module: Any,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: object,  # noqa: ARG001 (transformers builds none for a name that it does not know)
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    *,
    slots: torch.Tensor,
    slot_positions: torch.Tensor | None = None,
    slot_prefix: int,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Stores k and v (rows, heads, tokens, dim) in the rows' `slots` and attends, to (rows, tokens, query heads, dim).

    With `slot_positions` it is a decode: one token a row, at that position. Without, a prefill: the tokens after the
    common prefix, which is `slot_prefix` tokens long. Raises `NotServed`.
    """
    keys, values = module.slot_keys, module.slot_values
    if sliding_window is not None and sliding_window < keys.shape[2]:
        raise NotServed(f"a sliding window of {sliding_window} tokens, shorter than a slot")
    scale = q.shape[-1] ** -0.5 if scaling is None else scaling
    place: Any = kernels if has_kernels(q.device) else plain_attention
    if slot_positions is None:
        return place.prefill(q, k, v, keys, values, slots, slot_prefix, scale, softcap or 0.0), None
    return place.decode(q, k, v, keys, values, slots, slot_positions, slot_prefix, scale, softcap or 0.0), None


def give_slots(module: Any, count: int, positions: int) -> None:
    """Gives every module that attends room for `count` slots and a spare, and the model this attention.

    Raises `NotServed` for a model that does not ask transformers' interface for its attention, or whose attention
    changes in the midst of a slot.
    """
    _refuse_changes(module.config, positions)
    for layer, (heads, dim) in key_shapes(module).items():
        like = next(layer.parameters())
        for name in ("slot_keys", "slot_values"):
            room = torch.zeros(count + 1, heads, positions, dim, dtype=like.dtype, device=like.device)
            # Buffers, so that torch.compile makes the code of one layer serve all.
            layer.register_buffer(name, room, persistent=False)
    ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
    module.config._attn_implementation = NAME


def _refuse_changes(config: Any, positions: int) -> None:
    # A row's numbers would depend on the longest of its neighbours.
    rope = getattr(config, "rope_parameters", None) or {}
    own = getattr(config, "max_position_embeddings", None)
    limits = {
        "chunks": getattr(config, "attention_chunk_size", None),
        "longrope": getattr(config, "original_max_position_embeddings", None)
        or rope.get("original_max_position_embeddings"),
        "dynamic": own,
    }
    for kind in ("chunks", rope.get("rope_type")):
        limit = limits.get(str(kind))
        if limit and limit < positions:
            raise NotServed(f"attention that changes after {limit} tokens ({kind}), less than a slot")


def take_slots(module: Any) -> None:
    """Takes the slots away again; which attention the model has instead is for the caller to say."""
    for layer in module.modules():
        for name in ("slot_keys", "slot_values"):
            if hasattr(layer, name):
                delattr(layer, name)


def attention_layers(module: Any) -> list[Any]:
    """The modules that were given slots."""
    return [layer for layer in module.modules() if hasattr(layer, "slot_keys")]


def stored(module: Any) -> list[torch.Tensor]:
    """The keys and the values of every module that was given slots."""
    return [each for layer in attention_layers(module) for each in (layer.slot_keys, layer.slot_values)]


def key_shapes(module: Any) -> dict[Any, tuple[int, int]]:
    """The modules that attend, with the heads and the dim of their keys: found by running one token through.

    Raises `NotServed` as `give_slots` does.
    """
    found: dict[Any, tuple[int, int]] = {}

    def look(layer: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: object, **__: object) -> Any:
        if k.shape != v.shape:
            raise NotServed("values of another shape than keys")
        found[layer] = (k.shape[1], k.shape[3])
        return torch.zeros_like(q).transpose(1, 2), None

    own = module.config._attn_implementation
    ALL_ATTENTION_FUNCTIONS.register("look", look)
    module.config._attn_implementation = "look"
    try:
        one = torch.ones(1, 1, dtype=torch.long, device=next(module.parameters()).device)
        with torch.inference_mode():
            module(input_ids=one, position_ids=one, use_cache=False)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise NotServed(f"it needs more than transformers' interface hands over: {first_line(error)}") from None
    finally:
        module.config._attn_implementation = own
    if not found:
        raise NotServed("attention that does not go through transformers' interface")
    return found
