"""Packed rows: several examples one behind the other, each of which sees itself alone.

Attention is told where examples end: no mask is built, and nothing is computed across examples. A mask grows with
the square of the row, and keeps attention off its fast kernels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface

NO_LOSS = -100
"""The label of a token that is not learnt."""

_NAME = "packed"
# Of the memory-efficient kernel: each example from its own first token on.
_CAUSAL = 1


@dataclass(frozen=True)
class Collator:
    """Packed sequences (`input_ids`, `labels`, `seq_lengths`) → the tensors of one row.

    With `row_tokens` every row has that many, pads at its end that nothing is learnt from: kernels are compiled for
    one shape. No example is longer than `sequence_tokens`, and no stretch of pads.

    `ends` are where the examples end, behind a 0; `predicting` are the positions whose next token is learnt, and
    `targets` these tokens. They are found here, on the host: found on the card, every step would wait for them.
    """

    sequence_tokens: int
    row_tokens: int | None

    def __call__(self, sequences: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        ids, labels = (np.concatenate([each[name] for each in sequences]) for name in ("input_ids", "labels"))
        lengths = [int(length) for each in sequences for length in each["seq_lengths"]]
        if self.row_tokens is not None:
            pads = self.row_tokens - len(ids)
            ids, labels = np.pad(ids, (0, pads)), np.pad(labels, (0, pads), constant_values=NO_LOSS)
            lengths += [min(self.sequence_tokens, pads - at) for at in range(0, pads, self.sequence_tokens)]
        ends = [0, *accumulate(lengths)]
        # Nothing of the same example stands before its first token.
        labels[ends[:-1]] = NO_LOSS
        learnt = np.flatnonzero(labels != NO_LOSS)
        return {
            "input_ids": torch.from_numpy(ids)[None],
            "labels": torch.from_numpy(labels)[None],
            "position_ids": torch.from_numpy(np.concatenate([np.arange(length) for length in lengths]))[None],
            "ends": torch.tensor(ends, dtype=torch.int32),
            "predicting": torch.from_numpy(learnt - 1),
            "targets": torch.from_numpy(labels[learnt]),
        }


def use_packed_attention(module: Any) -> None:
    """From now on `module` takes `ends` and `longest`, a bound of an example's tokens, in the place of a mask."""
    AttentionInterface.register(_NAME, _attention)
    AttentionMaskInterface.register(_NAME, lambda *_, **__: None)
    module.set_attn_implementation(_NAME)


def _attention(
    layer: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _: None,
    *,
    scaling: float,
    ends: torch.Tensor,
    longest: int,
    **__: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers calls it: (1, heads, tokens, width) of each → (1, tokens, heads, width).

    The kernels are those that PyTorch's own attention chooses from; only they can be told where examples end.
    """
    if not query.is_cuda:
        return _one_by_one(query, key, value, scaling, ends), None
    query, key, value = (each.transpose(1, 2) for each in (query, key, value))
    if query.dtype == torch.bfloat16:
        out = torch.ops.aten._flash_attention_forward(
            query[0], key[0], value[0], ends, ends, longest, longest, 0.0, True, False, scale=scaling
        )
        return out[0][None], None
    # The flash kernels take no float32, and nothing before Ampere. (Torch 2.11 cannot compile the backward of these.)
    key, value = (each.repeat_interleave(layer.num_key_value_groups, dim=2) for each in (key, value))
    # Its backward refuses a bound beyond the row.
    longest = min(longest, key.shape[1])
    out = torch.ops.aten._efficient_attention_forward(
        query, key, value, None, ends, ends, longest, longest, 0.0, _CAUSAL, True, scale=scaling
    )
    return out[0], None


def _one_by_one(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, ends: torch.Tensor
) -> torch.Tensor:
    lengths = ends.diff().tolist()
    examples = [
        torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
        for q, k, v in zip(*(torch.split(each, lengths, dim=2) for each in (query, key, value)), strict=True)
    ]
    return torch.cat(examples, dim=2).transpose(1, 2)
