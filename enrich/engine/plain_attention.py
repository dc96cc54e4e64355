"""Attention over slots in plain PyTorch, for CPUs and cards without Triton; `kernels.py` computes the same on CUDA.

Shapes as in `attention.py`. The tests hold the kernels against these functions.
"""

import torch
from torch.nn import functional


def decode(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: torch.Tensor,
    positions: torch.Tensor,
    prefix: int,  # noqa: ARG001 (of use to the kernel)
    scale: float,
    softcap: float,
) -> torch.Tensor:
    """One token a row, at its position, over the positions up to it; scores are softcap·tanh(q·k·scale / softcap), or
    without a cap where it is 0."""
    rows, heads, _, dim = q.shape
    keys[slots, :, positions], values[slots, :, positions] = k[:, :, 0], v[:, :, 0]
    # A grid of all slots holds them in their order: no copy.
    whole = rows == keys.shape[0] - 1
    own_keys, own_values = (keys[:rows], values[:rows]) if whole else (keys[slots], values[slots])
    visible = torch.arange(keys.shape[2], device=q.device) <= positions[:, None]
    grouped = q.reshape(rows, keys.shape[1], -1, dim)
    out = _softmax_product(grouped, own_keys, own_values, visible[:, None, None], scale, softcap)
    return out.reshape(rows, 1, heads, dim)


def prefill(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    slots: torch.Tensor,
    prefix: int,
    scale: float,
    softcap: float,
) -> torch.Tensor:
    """The tokens that follow the common prefix, each over the prefix and its row's tokens up to it."""
    rows, heads, length, dim = q.shape
    kv_heads = keys.shape[1]
    keys[:, :, prefix : prefix + length].index_copy_(0, slots, k)
    values[:, :, prefix : prefix + length].index_copy_(0, slots, v)
    all_keys, all_values = (
        torch.cat([stored[-1:, :, :prefix].expand(rows, -1, -1, -1), new], dim=2)
        for stored, new in ((keys, k), (values, v))
    )
    visible = torch.ones(length, prefix + length, dtype=torch.bool, device=q.device).tril(prefix)
    group = heads // kv_heads
    grouped = q.reshape(rows, kv_heads, group * length, dim)
    out = _softmax_product(grouped, all_keys, all_values, visible.repeat(group, 1), scale, softcap)
    return out.reshape(rows, heads, length, dim).transpose(1, 2)


def _softmax_product(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, visible: torch.Tensor, scale: float, softcap: float
) -> torch.Tensor:
    """Heads that share keys and values are rows of one product here, so that neither is copied for each."""
    if not softcap:
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=visible, scale=scale)
    scores = softcap * torch.tanh((q @ k.transpose(-1, -2)).float() * scale / softcap)
    weights = scores.masked_fill(~visible, float("-inf")).softmax(-1)
    return weights.to(v.dtype) @ v
